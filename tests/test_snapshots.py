"""Snapshots: sealed, verified, restored, copied; and everything that can be done to their files."""

import shutil
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import vecdataset as vd
from vecdataset import storage
from vecdataset.manifests import FOLDER, SealedFile, Snapshot, _stored, digest_of, root_of


def points(ids, seed=0):
    rng = np.random.default_rng(seed)
    return [{"id": int(i), "vector": rng.standard_normal(8), "n": int(i), "tag": f"t{i % 3}"} for i in ids]


@pytest.fixture
def books(tmp_path):
    """300 points, an index, deletions, and one snapshot called `first`."""
    collection = vd.create(tmp_path / "lake" / "books", vectors=vd.VectorParams(8), indexing_threshold=100)
    collection.upsert(points(range(300)))
    collection.optimize()
    collection.delete(range(20))
    collection.snapshots.create("first", note="before the change")
    return collection


def content(collection):
    table = collection.to_arrow().sort_by("id")
    return table.to_pylist()


def test_a_snapshot_says_what_it_holds(books):
    found = books.snapshots.get("first")

    assert (found.rows, found.version, found.note) == (280, books.version, "before the change")
    assert found.size_bytes == sum(f.size for f in found.files)
    folder = Path(books.url)
    assert all((folder / f.path).stat().st_size == f.size for f in found.files)
    assert books.at("first").version == found.version


def test_names_are_made_of_collection_and_time_and_never_collide(books):
    names = [books.snapshots.create().name for _ in range(3)]

    assert len(set(names)) == 3
    assert all(n.startswith("books_") for n in names)
    assert books.snapshots.list()["name"].to_pylist()[-1] == "first"


@pytest.mark.parametrize("name", ["", "123", "a/b", "../x", "a b", ".hidden", "x..y", "ä"])
def test_a_name_that_is_no_file_name_is_refused(books, name):
    with pytest.raises(vd.InvalidInputError, match="cannot name a snapshot"):
        books.snapshots.create(name)


def test_a_name_is_given_once(books):
    with pytest.raises(vd.AlreadyExistsError, match="'first'"):
        books.snapshots.create("first")


def test_a_second_snapshot_hashes_only_new_files(books, monkeypatch):
    from vecdataset.storage.local import LocalFiles

    hashed = []
    digest = LocalFiles.digest
    monkeypatch.setattr(LocalFiles, "digest", lambda self, path: hashed.append(path) or digest(self, path))
    books.upsert(points([1000]))

    second = books.snapshots.create("second")

    before = {f.path for f in books.snapshots.get("first").files}
    assert set(hashed) == {f.path for f in second.files} - before


def test_restore_in_place_keeps_what_was_there(books):
    before = content(books)
    books.upsert(points(range(500, 520), seed=5))
    books.delete(range(100, 200))
    after = content(books)

    books.snapshots.restore("first")

    assert content(books) == before
    safety = next(n for n in books.snapshots.list()["name"].to_pylist() if n.startswith("before-restore"))
    assert content(books.at(safety)) == after
    assert all(books.snapshots.verify())


def test_a_version_without_a_snapshot_comes_back_too(books):
    before, version = content(books), books.version
    books.upsert(points([5000]))
    books.delete(filter="n >= 0")

    books.snapshots.restore(version + 1)
    assert len(books) == len(before) + 1
    with pytest.raises(vd.InvalidInputError, match="in place"):
        books.snapshots.restore(version, into="x")
    with pytest.raises(vd.VersionNotFoundError):
        books.snapshots.restore(99)
    books.delete(filter="n >= 0")
    lost = next(p for p in books.at(version + 1)._reader.table.files() if p.startswith("data/"))
    (Path(books.url) / lost).write_bytes(b"rot")
    with pytest.raises(vd.CorruptionError, match=lost):
        books.snapshots.restore(version + 1)


def test_restore_into_another_name_refuses_what_stands_there(books):
    before = content(books)
    url = books.snapshots.restore("first", into="copy")

    assert content(vd.open(url)) == before
    with pytest.raises(vd.CollectionExistsError, match="copy"):
        books.snapshots.restore("first", into="copy")
    restored = vd.open(url)
    restored.upsert(points([7]))
    assert len(restored) == len(before) + 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_a_copy_is_bit_for_bit_and_a_second_one_moves_only_new_files(books, tmp_path, kind, request):
    options = None
    if kind == "s3":
        store = request.getfixturevalue("s3")
        target, options = f"{store.url}/backup/books", store.options
    else:
        target = str(tmp_path / "backup") if kind == "local" else f"memory://backup-{time.time_ns()}/books"
    first = books.snapshots.copy("first", target, storage_options=options)
    books.upsert(points([1000]))
    books.snapshots.create("second")
    second = books.snapshots.copy("second", target, storage_options=options)
    again = books.snapshots.copy("second", target, storage_options=options)

    assert first.skipped == 0
    assert 0 < second.copied < first.copied
    assert (again.copied, again.size_bytes) == (0, 0)
    backup = vd.open(target, storage_options=options)
    assert content(backup) == content(books)
    assert content(backup.at("first")) == content(books.at("first"))
    assert all(backup.snapshots.verify(deep=True))
    back = backup.snapshots.copy("first", str(tmp_path / "back"))
    assert back.copied == first.copied
    for f in books.snapshots.get("first").files:
        assert (tmp_path / "back" / f.path).read_bytes() == (Path(books.url) / f.path).read_bytes()


def test_an_interrupted_copy_goes_on(books, tmp_path):
    target = tmp_path / "backup"
    books.snapshots.copy("first", target)
    files = books.snapshots.get("first").files
    shutil.rmtree(target / FOLDER)
    shutil.rmtree(target / "_refs")
    for f in files[1:3]:
        (target / f.path).unlink()
    torn = target / files[0].path
    torn.write_bytes(torn.read_bytes()[:-1])

    assert books.snapshots.copy("first", target).copied == 4  # the tag is one of them
    assert vd.open(target).snapshots.verify("first", deep=True)


def test_an_interrupted_copy_to_s3_goes_on(books, s3):
    target = f"{s3.url}/backup/books"
    books.snapshots.copy("first", target, storage_options=s3.options)
    there = storage.files(storage.resolve(target, storage_options=s3.options))
    files = [f.path for f in books.snapshots.get("first").files]
    data = [p for p in files if p.startswith("data/")]
    there.delete(
        [f"{FOLDER}/first.json", *(p for p in files if p.startswith(("_refs/", "_versions/"))), data[0]]
    )
    there.write(data[-1], b"half")

    again = books.snapshots.copy("first", target, storage_options=s3.options)

    assert again.copied == 2 + len({data[0], data[-1]})
    assert vd.open(target, storage_options=s3.options).snapshots.verify("first", deep=True)


def test_a_copy_does_not_write_over_something_else(books, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")

    with pytest.raises(vd.CollectionExistsError, match="other"):
        books.snapshots.copy("first", tmp_path / "other")

    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_a_disk_without_room_is_said_before_anything_is_written(books, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(vd.StorageError, match="its disk has 10"):
        books.snapshots.copy("first", tmp_path / "full")

    assert not (tmp_path / "full").exists()


def test_a_damaged_file_is_not_copied(books, tmp_path):
    data = next((Path(books.url) / "data").iterdir())
    data.write_bytes(data.read_bytes()[:-1] + b"x")

    with pytest.raises(vd.CorruptionError, match=data.name):
        books.snapshots.copy("first", tmp_path / "copy")

    assert not (tmp_path / "copy" / "data" / data.name).exists()
    assert not (tmp_path / "copy" / "_versions").exists()


def test_diff_names_what_was_added_changed_and_removed(books):
    books.upsert(points([1000, 50], seed=9))
    books.set_payload({"colour": "red"}, ids=[60])
    books.delete([70, 71])

    found = books.snapshots.diff("first")

    assert sorted(found.added) == [1000]
    assert sorted(found.changed) == [50, 60]
    assert sorted(found.removed) == [70, 71]
    assert list(found.columns_added) == ["colour"]
    assert not books.snapshots.diff(books.version)


def test_prune_keeps_the_newest(books):
    names = ["first", *(books.snapshots.create(f"s{i}").name for i in range(3))]

    assert sorted(books.snapshots.prune(keep_last=2, dry_run=True)) == ["first", "s0"]
    assert len(books.snapshots) == 4
    assert books.snapshots.prune(keep_last=1, older_than=timedelta(days=1)) == []
    assert sorted(books.snapshots.prune(keep_last=2)) == ["first", "s0"]
    assert sorted(books.snapshots.list()["name"].to_pylist()) == names[2:]
    with pytest.raises(vd.VersionNotFoundError):
        books.at("first")


def test_a_snapshot_survives_commits_compaction_indexing_and_clean_up(books):
    before = content(books)
    for i in range(80):
        books.upsert(points([2000 + i], seed=i))
    books.create_index("ivf_flat")
    books.optimize()
    books._fresh().table.clean_up(older_than=timedelta(0))
    books.snapshots.create("later")
    books.snapshots.prune(keep_last=5)

    assert books.snapshots.verify("first", deep=True)
    assert content(vd.open(books.snapshots.restore("first", into="back"))) == before


def test_a_tag_without_a_manifest_is_listed_as_unsealed(books):
    (Path(books.url) / FOLDER / "first.json").unlink()

    assert books.snapshots.list().to_pylist()[0]["state"] == "unsealed"
    assert not books.snapshots.verify("first")
    books.snapshots.delete("first")
    assert len(books.snapshots.list()) == 0


def test_what_is_not_there_is_said(books):
    with pytest.raises(vd.SnapshotNotFoundError, match="frist") as caught:
        books.snapshots.restore("frist")

    assert "'first'" in caught.value.hint


# --------------------------------------------------------------- hostile and unreadable manifests


def resealed(books, change):
    """Write a manifest that holds its seal and root, with hostile content."""
    path = Path(books.url) / FOLDER / "first.json"
    found = books.snapshots.get("first")
    body = found._body()
    change(body)
    body["root"] = root_of(SealedFile(**f) for f in body["files"])
    body["seal"] = digest_of(body)
    path.write_text(_stored(body))


@pytest.mark.parametrize(
    "evil", ["../../etc/passwd", "/etc/passwd", "data/../../x", "home/x", "data\\..\\x", "data//x", ""]
)
def test_a_manifest_that_leaves_the_collection_is_refused(books, evil):
    resealed(books, lambda body: body["files"][0].update(path=evil))

    with pytest.raises(vd.CorruptionError):
        books.snapshots.restore("first", into="x")

    assert not books.snapshots.verify("first")


@pytest.mark.parametrize("size", [10**30, 2**63, 2**63 - 1, 10**15, -1, 1.5, True, "12", None])
def test_a_manifest_with_a_huge_or_odd_size_is_refused(books, tmp_path, size):
    """In one sentence, and without taking memory or room for it."""
    resealed(books, lambda body: body["files"][0].update(size=size))

    assert not books.snapshots.verify("first")
    with pytest.raises(vd.CorruptionError):
        books.snapshots.restore("first", into=tmp_path / "x")
    with pytest.raises((vd.CorruptionError, vd.StorageError)):
        books.snapshots.copy("first", tmp_path / "y")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y" / FOLDER).exists()


def test_a_manifest_that_is_a_huge_file_is_not_read(books):
    path = Path(books.url) / FOLDER / "first.json"
    with path.open("r+b") as file:
        file.truncate(1 << 30)

    with pytest.raises(vd.CorruptionError, match=r"first"):
        books.snapshots.get("first")
    assert not books.snapshots.verify("first")


def test_a_manifest_of_the_future_is_refused(books):
    resealed(books, lambda body: body.update(manifest_version=99))

    with pytest.raises(vd.NotSupportedError, match="99"):
        books.snapshots.get("first")


def test_what_is_no_manifest_is_refused():
    for text in (b"", b"[]", b"{}", b"null", b"\xff", b'{"manifest_version": "x", "seal": ""}'):
        with pytest.raises(vd.CorruptionError, match="a test"):
            Snapshot.from_json(text, name="x", where="a test")


def test_diff_agrees_with_rows_compared_one_by_one(tmp_path):
    rng = np.random.default_rng(5)
    books = vd.create(
        tmp_path / "varied",
        vectors={"": vd.VectorParams(4), "small": vd.VectorParams(3, datatype="float16")},
        sparse={"words": vd.SparseVectorParams()},
    )

    def some(ids):
        return [
            vd.Point(
                int(i),
                {"": rng.integers(0, 2, 4).astype(float) + 1, "small": [1, 2, 3], "words": {"indices": [1, 5], "values": [0.5, i]}},
                {"n": int(rng.integers(3)), "tags": ["a", "b"][: int(rng.integers(3))], "deep": {"x": int(i)}, "t": f"t{i % 2}"}
                | ({"f": float("nan")} if i % 5 == 0 else {"f": 1.5})
                | ({"only": 1} if i % 7 == 0 else {}),
            )
            for i in ids
        ]  # fmt: skip

    books.upsert(some(range(200)))
    books.snapshots.create("old")
    books.upsert(some(range(150, 260)))
    books.delete(range(10))
    books.set_payload({"n": 0.5}, ids=[20, 21])  # widens a column
    books.set_payload({"later": "x"}, ids=[30])
    books.delete_vectors("small", ids=[40])
    old, new = ({r["id"]: repr(r) for r in rows_of(c)} for c in (books.at("old"), books))

    found = books.snapshots.diff("old")

    assert sorted(found.added) == sorted(new.keys() - old.keys())
    assert sorted(found.removed) == sorted(old.keys() - new.keys())
    assert sorted(found.changed) == sorted(i for i in old.keys() & new.keys() if old[i] != new[i])
    assert not books.snapshots.diff("old", "old")


def rows_of(collection):
    """Points as they were given: without nulls, and with numbers by value."""
    for row in collection.scan(with_vectors=True).read_all().to_pylist():
        yield {
            k: float(v) if isinstance(v, int) and k == "n" else v
            for k, v in sorted(row.items())
            if v is not None
        }


def test_a_copy_onto_a_file_is_refused(tmp_path):
    """The file is left as it is, and the message names the target, not a file of the source."""
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(2))
    books.insert((np.arange(3), np.ones((3, 2), np.float32)))
    books.snapshots.create("a")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(vd.CollectionExistsError, match="there is a file"):
        books.snapshots.copy("a", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"


def test_a_file_that_a_copy_has_and_its_manifest_does_not_name_is_reported(tmp_path):
    """In the copy alone: beside the source a file may belong to a writer who has not committed yet."""
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(2))
    books.insert((np.arange(3), np.ones((3, 2), np.float32)))
    books.snapshots.create("a")
    books.snapshots.copy("a", tmp_path / "copy")
    for place in ("books", "copy"):
        (tmp_path / place / "data" / "stranger.lance").write_bytes(b"x")

    copy = vd.open(tmp_path / "copy")
    found = copy.snapshots.verify("a")

    assert not found
    assert found.extra == ("data/stranger.lance",)
    assert "extra     data/stranger.lance" in str(found)
    assert books.snapshots.verify("a").extra == ()
    assert len(vd.open(copy.snapshots.restore("a", into=tmp_path / "third"))) == 3  # no file of it is wrong
    (tmp_path / "copy" / "data" / "stranger.lance").unlink()
    assert copy.snapshots.verify("a")
    copy.insert((np.arange(3, 5), np.ones((2, 2), np.float32)))  # no mere copy any more
    assert copy.snapshots.verify("a")
    assert copy.snapshots.verify(current=True)
