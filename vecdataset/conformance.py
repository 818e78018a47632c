"""What every filesystem must pass before collections are trusted to it.

Subclass `FileSystemSuite`, give it a fixture `place`, and pytest runs every test::

    class TestMyStore(FileSystemSuite):
        @pytest.fixture
        def place(self):
            return Place(url="mine://bucket/folder", storage_options={…})

`place` is an empty folder, another one for each test. For a filesystem that is only read there is
`ReadOnlyFileSystemSuite`. The collection test compares everything a collection can do with the
same done on a local disk, so that no expected value is written down here.

This module needs pytest, which the extra `test` brings.
"""

# ruff: noqa: D102 - the names of the tests say what they claim

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

import vecdataset as vd
from vecdataset import storage
from vecdataset.storage import Location

__all__ = ["FileSystemSuite", "Place", "ReadOnlyFileSystemSuite", "every_operation"]

_ODD: Final = ("plain", "a b", "x=y", "50%20", "ü", "a~b", "a+b&c", "[x]{y}", "'q'")
_VECTORS: Final = vd.VectorParams(size=4, distance="Euclid")
_WAIT_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder on the filesystem under test."""

    url: str
    storage_options: Mapping[str, Any] | None = None
    filesystem: Any = None
    prepare: Callable[[], object] | None = None
    """Called first in other processes, for instance to register a protocol; a function of a module."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that must show up nowhere."""

    @property
    def how(self) -> dict[str, Any]:
        """Return the arguments of `vecdataset.open` and others beside the URL."""
        return {"storage_options": self.storage_options, "filesystem": self.filesystem}

    def at(self, name: str) -> str:
        """Return the URL of a name beneath it."""
        first, chain, rest = self.url.partition("::")
        return f"{first.rstrip('/')}/{name}{chain}{rest}"

    def location(self, name: str) -> Location:
        """Return the resolved location of a name beneath it."""
        return storage.resolve(self.at(name), **self.how)


class FileSystemSuite:
    """The claims that hold for every filesystem that is written to."""

    commit: ClassVar[str] = "atomic"
    """What `Location.commit` says, once it has been tried: `atomic` or `single-process`."""
    commits: ClassVar[int] = 20
    """How often each of four processes commits."""
    cannot_name: ClassVar[frozenset[str]] = frozenset()
    """Names that the filesystem's own class does not take as they are."""
    seen_by_other_processes: ClassVar[bool] = True
    """False for memory."""

    @pytest.fixture
    def place(self) -> Place:
        """Return an empty folder."""
        raise NotImplementedError("give the suite a fixture `place`")

    # -- files

    def test_the_location_says_where_it_is_and_how_it_is_reached(self, place: Place) -> None:
        location = place.location("books")

        assert location.name == "books"
        assert location.url in location.explain()
        assert location.reason in location.explain()
        assert place.location("books") == location
        assert place.location("x").child("books").uri == place.location("x/books").uri

    def test_an_empty_place_is_empty(self, place: Place) -> None:
        files = storage.files(place.location("empty"))

        assert (files.list_dirs(), list(files.list_files()), files.is_empty()) == ([], [], True)
        files.delete(["nothing"])
        files.delete_tree()

    @pytest.mark.parametrize("size", [0, 1, 70_000, 9 << 20])
    def test_what_is_written_is_read(self, place: Place, size: int) -> None:
        files, data = (
            storage.files(place.location("in")),
            bytes(range(251)) * (size // 251) + bytes(size % 251),
        )
        files.write("deep/er/file.bin", data)

        assert files.read("deep/er/file.bin") == data
        assert [(f.path, f.size) for f in files.list_files()] == [("deep/er/file.bin", size)]

    def test_a_file_that_is_written_again_is_the_new_one(self, place: Place) -> None:
        files = storage.files(place.location("in"))
        files.write("file", b"longer")
        files.write("file", b"new")

        assert files.read("file") == b"new"
        assert [f.path for f in files.list_files()] == ["file"]

    def test_listings_are_of_now(self, place: Place) -> None:
        files = storage.files(place.location("in"))
        files.write("a/1", b"")
        before = files.list_dirs()
        files.write("b/2", b"")
        files.write("3", b"")

        assert (before, files.list_dirs()) == (["a"], ["a", "b"])
        assert [f.path for f in files.list_files(recursive=False)] == ["3"]
        assert sorted(f.path for f in files.list_files()) == ["3", "a/1", "b/2"]

    def test_a_file_that_is_not_there_is_named(self, place: Place) -> None:
        files = storage.files(place.location("in"))
        files.write("there", b"x")

        assert (files.exists("there"), files.exists("missing")) == (True, False)
        with pytest.raises(vd.NotFoundError, match="missing"):
            files.read("missing")

    @pytest.mark.parametrize("name", _ODD)
    def test_names_of_folders_are_taken_as_they_are(self, place: Place, name: str) -> None:
        if name in self.cannot_name:
            pytest.skip(f"this filesystem's class cannot name {name!r}")
        location = place.location("root").child(name)
        storage.files(location).write("deep/file.bin", name.encode())

        assert storage.files(place.location("root")).list_dirs() == [name]
        assert storage.files(location).read("deep/file.bin") == name.encode()
        assert [f.path for f in storage.files(location).list_files()] == ["deep/file.bin"]

    def test_a_tree_is_deleted_without_its_neighbours(self, place: Place) -> None:
        for name in ("a", "ab"):
            storage.files(place.location(name)).write("x/file", b"1")
        storage.files(place.location("a")).delete_tree()

        assert storage.files(place.location("a")).is_empty()
        assert storage.files(place.location("ab")).read("x/file") == b"1"

    def test_files_come_and_go_through_local_ones(self, place: Place, tmp_path: Path) -> None:
        files, local = storage.files(place.location("in")), tmp_path / "local"
        local.write_bytes(b"123" * 1_000_000)
        files.upload(local, "up/file")
        files.download("up/file", tmp_path / "back")

        assert (tmp_path / "back").read_bytes() == local.read_bytes()
        assert files.digest("up/file") == storage.files(storage.resolve(tmp_path)).digest("local")

    # -- collections

    @pytest.mark.slow
    def test_everything_that_a_collection_does_is_done_as_on_a_local_disk(
        self, place: Place, tmp_path: Path
    ) -> None:
        there = every_operation(place.at("lib"), tmp_path / "there", **place.how)

        for step, expected in _on_a_local_disk().items():
            assert there[step] == expected, step

    def test_of_two_that_create_one_succeeds(self, place: Place) -> None:
        barrier = threading.Barrier(2)

        def create(_: int) -> str:
            barrier.wait(_WAIT_S)
            try:
                vd.create(place.at("books"), vectors=_VECTORS, **place.how)
            except vd.CollectionExistsError:
                return "exists"
            return "made"

        with ThreadPoolExecutor(2) as threads:
            assert sorted(threads.map(create, range(2))) == ["exists", "made"]

    def test_writers_in_threads_lose_nothing(self, place: Place) -> None:
        vd.create(place.at("books"), vectors=_VECTORS, id_type="uint64", **place.how)

        def write(writer: int) -> None:
            books = vd.open(place.at("books"), **place.how)
            for n in range(4):
                books.upsert([_point(100 * writer + n), _point(7)])

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(write, range(1, 4)))

        found = sorted(vd.open(place.at("books"), **place.how).to_arrow()["id"].to_pylist())
        assert found == [7, *(100 * w + n for w in range(1, 4) for n in range(4))]

    @pytest.mark.slow
    def test_writers_in_processes_lose_nothing_or_are_refused(self, place: Place) -> None:
        if not self.seen_by_other_processes:
            pytest.skip("other processes do not see it")
        vd.create(place.at("books"), vectors=_VECTORS, id_type="uint64", **place.how)
        before = len(vd.open(place.at("books"), **place.how).versions())
        spawn = multiprocessing.get_context("spawn")
        barrier, answers = spawn.Barrier(4), spawn.SimpleQueue()
        writers = [
            spawn.Process(
                target=_commit_many, args=(place, writer, self.commits, barrier, answers), daemon=True
            )
            for writer in range(1, 5)
        ]
        for process in writers:
            process.start()
        said = [answers.get() for _ in writers]
        for process in writers:
            process.join(_WAIT_S)

        books = vd.open(place.at("books"), **place.how)
        found = sorted(books.to_arrow()["id"].to_pylist())
        if self.commit == "atomic":
            assert said == ["done"] * 4
            assert found == [0, *(1000 * w + n for w in range(1, 5) for n in range(self.commits))]
            assert len(books.versions()) >= before + 4 * self.commits
        else:
            assert said == ["ReadOnlyError"] * 4
            assert found == []

    def test_it_keeps_writers_apart_or_says_that_it_cannot(self, place: Place) -> None:
        location = place.location("in")
        route = storage.filesystems.get(location.filesystem)

        assert route.probe_commit(location) is (self.commit == "atomic")
        assert location.commit in {self.commit, "unknown"}

    def test_no_text_holds_a_credential(self, place: Place) -> None:
        location = place.location("books")
        books = vd.create(place.at("books"), vectors=_VECTORS, **place.how)
        books.upsert([_point(1)])
        snapshot = books.snapshots.create("one")
        shown = [repr(location), str(location), location.explain(), repr(books), str(books.info())]
        shown += [repr(books.info()), repr(books.info().to_dict()), snapshot.to_json()]
        with pytest.raises(vd.CollectionNotFoundError) as caught:
            vd.open(place.at("nothing"), **place.how)
        shown += [str(caught.value), *caught.value.__notes__]
        files = storage.files(location)
        stored = b"".join(files.read(f.path) for f in files.list_files())

        for secret in place.secrets:
            assert not [text for text in shown if secret in text]
            assert secret.encode() not in stored


class ReadOnlyFileSystemSuite:
    """The claims that hold for a filesystem that is only read."""

    @pytest.fixture
    def published(self, tmp_path: Path) -> Place:
        """Return `source(tmp_path)`, shown by the filesystem."""
        raise NotImplementedError("give the suite a fixture `published`")

    @staticmethod
    def source(folder: Path) -> Path:
        """Return a local folder with a collection `books` of five points and a snapshot `one`."""
        books = vd.create(folder / "source" / "books", vectors=_VECTORS)
        books.upsert([_point(n) for n in range(5)])
        books.snapshots.create("one")
        books.delete([0])
        return folder / "source"

    def test_it_is_known_to_be_read_only(self, published: Place) -> None:
        assert published.location("books").commit == "read-only"

    def test_a_collection_is_read_and_verified(self, published: Place) -> None:
        books = vd.open(published.at("books"), **published.how)

        assert books.search([3, 0, 0, 0], limit=1)["id"].to_pylist() == [3]
        assert (books.count(), books.at("one").count()) == (4, 5)
        assert books.snapshots.verify("one")

    def test_it_is_copied_to_a_place_that_is_written(self, published: Place, tmp_path: Path) -> None:
        vd.open(published.at("books"), **published.how).snapshots.copy("one", str(tmp_path / "copy"))

        assert vd.open(tmp_path / "copy").count() == 5

    def test_it_is_checked_out_and_nothing_is_published(self, published: Place, tmp_path: Path) -> None:
        work = vd.open(published.at("books"), **published.how).checkout(tmp_path / "work")
        work.delete([2])

        assert work.count() == 3
        with pytest.raises(vd.ReadOnlyError):
            work.publish(**published.how)

    def test_nothing_is_written(self, published: Place) -> None:
        books = vd.open(published.at("books"), **published.how)

        with pytest.raises(vd.ReadOnlyError):
            books.delete([1])
        with pytest.raises(vd.ReadOnlyError):
            vd.create(published.at("new"), vectors=_VECTORS, **published.how)


def every_operation(url: str, local: Path, **how: Any) -> dict[str, Any]:
    """Do once each what a collection and a catalog can do, and return what came of it, step by step.

    Args:
        url: Of a root without collections.
        local: A folder for exports, which is made.
        how: `storage_options` and `filesystem`.
    """
    local.mkdir()
    catalog = vd.Catalog(url, **how)
    books = catalog.create("books", vectors=_VECTORS, sparse={"words": vd.SparseVectorParams()})
    seen: dict[str, Any] = {}
    seen["insert"] = books.insert([_rich(n) for n in range(60)]).inserted
    seen["insert again"] = _error(lambda: books.insert([_rich(3)]))
    seen["upsert"] = books.upsert([_rich(59, title="zanzibar"), _rich(60)]).inserted
    seen["wrong"] = _error(lambda: books.upsert([{"id": 1, "vector": [1.0]}]))
    books.set_payload({"tag": "x"}, ids=[1, 2])
    books.overwrite_payload({"title": "alone", "n": 3}, ids=[3])
    books.delete_payload(["title"], ids=[4])
    books.clear_payload(ids=[5])
    books.update_vectors([{"id": 6, "vector": [60.0, 0, 0, 0]}])
    books.delete_vectors("words", ids=[7])
    books.delete([8])
    books.delete(filter="n = 9")
    seen["points"] = sorted(books.to_arrow().to_pylist(), key=lambda p: p["id"])
    seen["get"] = books.get([1, 3, 5, 8], with_vectors=True).to_pylist()
    seen["count"] = [books.count(), books.count("n < 10"), books.count({"tag": "x"})]
    pages = [books.scroll(limit=25)]
    while pages[-1].next_offset is not None:
        pages.append(books.scroll(limit=25, offset=pages[-1].next_offset))
    seen["scroll"] = [p["id"].to_pylist() for p in pages]
    seen["batches"] = sum(b.num_rows for b in books.iter_batches(batch_rows=10))
    seen["scan"] = books.scan(filter="n >= 50").read_all().num_rows
    seen["search"] = books.search([5.2, 0, 0, 0], limit=4, filter="n > 2", with_vectors=True).to_pylist()
    seen["batch"] = books.search([[1, 0, 0, 0], [50, 0, 0, 0]], limit=2)["id"].to_pylist()
    seen["sparse"] = books.search(vd.SparseVector([1, 2], [1.0, 1.0]), using="words", limit=3)[
        "id"
    ].to_pylist()
    seen["query"] = books.query([9, 0, 0, 0], prefetch={"query": [9, 0, 0, 0], "limit": 9}, limit=3)[
        "id"
    ].to_pylist()
    seen["recommend"] = books.recommend([10, 12], [40], limit=3)["id"].to_pylist()
    seen["discover"] = books.discover([20, 0, 0, 0], [(10, 40)], limit=3)["id"].to_pylist()
    seen["context"] = len(books.context([(10, 40)], limit=3))
    seen["facet"] = books.facet("genre").to_pylist()
    seen["group"] = books.group([5, 0, 0, 0], by="genre", limit=2, group_size=2)["id"].to_pylist()
    books.create_payload_index("n", "integer")
    books.create_payload_index("title", "text")
    books.create_index("ivf_flat", num_partitions=2)
    seen["indexes"] = sorted((i.kind, i.on) for i in books.indexes)
    seen["text"] = books.text("zanzibar", columns="title")["id"].to_pylist()
    seen["hybrid"] = books.hybrid([59, 0, 0, 0], text="zanzibar", limit=2, text_columns="title")[
        "id"
    ].to_pylist()
    books.configure(full_scan_threshold=10)
    seen["index search"] = books.search([30, 0, 0, 0], limit=2, params={"nprobes": 2})["id"].to_pylist()
    seen["recall"] = books.recall(k=3, sample=5).value
    books.upsert([_rich(n) for n in range(100, 130)])
    books.optimize()
    books.drop_index("n_idx" if "n_idx" in {i.name for i in books.indexes} else books.indexes[0].name)
    seen["versions"] = len(books.versions()) > 10
    seen["past"] = books.at(2).count()
    first = books.snapshots.create("first", note="a note")
    books.delete(filter="n > 100")
    books.snapshots.create("second")
    seen["verify"] = [bool(books.snapshots.verify(n, deep=True)) for n in ("first", "second")]
    seen["snapshots"] = [s["name"] for s in books.snapshots.list().to_pylist()]
    seen["sealed"] = (first.rows, books.snapshots.get("first").note)
    copied = books.snapshots.copy("first", local / "copy")
    seen["copy"] = (copied.copied > 3, vd.open(local / "copy").count())
    seen["at"] = books.at("first").count()
    books.snapshots.restore("first")
    seen["restored"] = books.count()
    books.snapshots.delete("second")
    work = books.checkout(local / "work")
    work.upsert([_rich(200)])
    # In Lance's memory Lance alone can create a version.
    to = (local / "elsewhere",) if storage.resolve(url, **how).kind == "shared-memory" else ()
    seen["published"] = work.publish(*to, **({} if to else how)).versions
    books.delete([200])
    seen["checked out"] = books.checkout(local / "again").count()
    books.export(str(local / "books.parquet"))
    seen["load"] = (
        vd.load(local / "books.parquet", _beneath(url, "loaded"), **_options(how)).count()
        if not how.get("filesystem")
        else books.count()
    )
    catalog.create("other", vectors=_VECTORS)
    catalog.alias("current", "books")
    catalog.rename("other", "renamed")
    catalog.drop("renamed")
    seen["dropped"] = catalog.list(dropped=True)
    catalog.undrop("renamed")
    seen["list"] = [n for n in catalog if n != "loaded"]
    seen["alias"] = catalog.open("current").count()
    again = vd.open(_beneath(url, "books"), **how)
    seen["info"] = (again.info().rows, "first" in again.info().snapshots)
    return seen


@cache
def _on_a_local_disk() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:
        return every_operation(f"{folder}/lib", Path(folder) / "exports")


def _rich(n: int, *, title: str | None = None) -> dict[str, Any]:
    words = {"indices": [n % 5, 7], "values": [1.0, 0.5 + n]}
    genre = ["sea", "sky", "land"][n % 3]
    return {
        "id": n,
        "vector": {"": [float(n), 0.0, 0.0, 0.0], "words": words},
        "payload": {"n": n, "title": title or f"book {n}", "genre": genre, "odd": [n, "x"]},
    }


def _point(n: int) -> dict[str, Any]:
    return {"id": n, "vector": [float(n), 0.0, 0.0, 0.0]}


def _beneath(url: str, name: str) -> str:
    first, chain, rest = url.partition("::")
    return f"{first.rstrip('/')}/{name}{chain}{rest}"


def _options(how: Mapping[str, Any]) -> dict[str, Any]:
    return {"storage_options": how["storage_options"]} if how.get("storage_options") else {}


def _error(call: Callable[[], object]) -> str:
    try:
        call()
    except vd.VecDatasetError as error:
        return type(error).__name__
    return "none"


def _commit_many(place: Place, writer: int, commits: int, barrier: Any, answers: Any) -> None:
    try:
        if place.prepare is not None:
            place.prepare()
        books = vd.open(place.at("books"), **place.how)
        barrier.wait(_WAIT_S)
        for n in range(commits):
            books.upsert([_point(1000 * writer + n), _point(0)])
    except Exception as error:  # noqa: BLE001 - judged by the test
        answers.put(type(error).__name__)
    else:
        answers.put("done")
