"""Working copies: what is committed to one comes back whole, or not at all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import fsspec
import odd_filesystems
import places
import pytest
from few_books import POINTS, VECTORS, books_at, content, odd_schemes  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdataset as vd
from vecdataset import engine, storage
from vecdataset.origins import Origin, write_origin

pytestmark = pytest.mark.usefixtures("odd_schemes")


@pytest.fixture
def origin(tmp_path):
    return books_at(f"faulty://{tmp_path}/there/books")


@pytest.fixture
def work(origin, tmp_path):
    return origin.checkout(tmp_path / "work")


def point(n, title="new"):
    return {"id": n, "vector": [n, 0], "title": title}


def files_of(books):
    location = books._reader.table.location
    return {f.path: f.size for f in storage.files(location).list_files()}


# ----------------------------------------------------------------------------- there and back


def test_a_working_copy_is_the_collection_with_its_indexes(origin, work):
    assert content(work) == content(origin)
    assert work.version == origin.version
    assert work.origin == origin.url
    assert [(i.name, i.kind, i.rows) for i in work.indexes] == [("vector_idx", "ivf_flat", 20)]
    assert len(work.versions()) == 1


def test_what_is_committed_to_it_comes_back_as_versions_with_their_notes(origin, work):
    before = origin.version
    with work.noted("spring list"):
        work.upsert([point(100), point(3, "changed")])
    work.delete([4])
    work.optimize()
    done = work.publish()

    assert (done.url, done.version, done.versions) == (origin.url, work.version, work.version - before)
    assert origin.refresh().version == work.version
    assert content(origin) == content(work)
    assert origin.at(before).count() == 20
    told = {v["version"]: v for v in origin.versions().to_pylist()}
    assert told[before + 1]["note"] == "spring list"
    assert (told[before + 1]["inserted"], told[before + 1]["updated"]) == (1, 1)
    assert [v["version"] for v in work.versions().to_pylist()] == list(range(before, work.version + 1))
    assert origin.search([100, 0], limit=1)["id"].to_pylist() == [100]
    assert origin.snapshots.create("published").rows == 20
    assert origin.snapshots.verify("published", deep=True)


def test_only_new_files_are_moved(origin, work):
    had = files_of(origin)
    work.upsert([point(100)])
    done = work.publish()
    came = {p: s for p, s in files_of(origin).items() if p not in had}

    moved = {p: s for p, s in came.items() if not p.startswith(("_versions/", "_records/"))}
    assert (done.copied, done.size_bytes) == (len(moved), sum(moved.values()))
    assert sum(p.startswith("data/") for p in came) == 1
    assert {p: s for p, s in files_of(origin).items() if p in had} == had


def test_published_twice_the_second_moves_nothing(origin, work):
    work.upsert([point(100)])
    work.publish()

    assert (work.publish().versions, work.publish().copied) == (0, 0)
    assert origin.refresh().version == work.version


def test_the_origin_goes_on_after_a_publication(origin, work):
    work.upsert([point(100)])
    work.publish()
    origin.upsert([point(101)])
    origin.optimize()

    assert {100, 101} <= set(origin.to_arrow()["id"].to_pylist())
    assert origin.refresh().count() == 22


def test_checked_out_again_it_is_brought_up_to_date(origin, work, tmp_path):
    origin.upsert([point(100)])
    origin.delete([1])
    again = origin.checkout(tmp_path / "work")

    assert content(again) == content(origin)
    assert content(work.refresh()) == content(origin)
    assert work.snapshots.verify(current=True, deep=True)
    work.upsert([point(101)])
    assert work.publish().versions == 1


def test_a_copy_with_commits_of_its_own_keeps_them_where_the_origin_stood_still(origin, work, tmp_path):
    work.upsert([point(100)])

    assert 100 in origin.checkout(tmp_path / "work").to_arrow()["id"].to_pylist()


def test_a_version_or_snapshot_is_checked_out_as_it_was(origin, tmp_path):
    origin.snapshots.create("one")
    origin.delete([1, 2])

    then = origin.at("one").checkout(tmp_path / "then")

    assert then.count() == 20
    assert vd.open(tmp_path / "then").upsert([point(100)]).inserted == 1
    with pytest.raises(vd.CommitConflictError, match="went its own way since version"):
        then.refresh().publish()


def test_a_copy_of_a_copy_keeps_its_own_origin(origin, work, tmp_path):
    second = work.checkout(tmp_path / "second")
    second.upsert([point(100)])

    assert second.origin == str(tmp_path / "work")
    second.publish()
    assert work.refresh().origin == origin.url
    work.publish()
    assert content(origin.refresh()) == content(second)


@pytest.mark.slow
def test_every_pair_of_filesystems(tmp_path):
    memory = fsspec.filesystem("memory")
    ways = [
        (str(tmp_path / "a"), {}),
        (f"fsspec+file://{tmp_path}/b", {}),
        (f"faulty://{tmp_path}/c", {}),
        ("/checkouts/d", {"filesystem": memory}),
    ]
    try:
        for at, (url, how) in enumerate(ways):
            origin = books_at(url, **how)
            for other, (there, more) in enumerate(ways):
                place = f"{there}-work-{at}-{other}"
                work = origin.checkout(place, **more)
                work.upsert([point(100 + other)])
                work.publish(**how)
                assert content(vd.open(url, **how)) == content(work)
    finally:
        memory.rm("/checkouts", recursive=True)


def test_memory_takes_a_first_copy_and_says_why_no_more(origin):
    work = origin.checkout("memory://checkouts/work")
    work.upsert([point(100)])
    work.publish()
    origin.upsert([point(101)])

    assert origin.refresh().count() == 22
    with pytest.raises(vd.NotSupportedError, match="in memory"):
        origin.checkout("memory://checkouts/work")


# ------------------------------------------------------------------------------- refused


def test_an_origin_that_went_on_is_left_as_it_is(origin, work):
    origin.upsert([point(100, "theirs")])
    work.upsert([point(100, "ours")])
    before = files_of(origin)

    with pytest.raises(vd.CommitConflictError, match=f"since version {work.version - 1}: it is at") as caught:
        work.publish()

    assert "check it out anew" in caught.value.hint
    assert files_of(origin) == before
    assert (100, "theirs") in content(origin)
    assert (100, "ours") in content(work)


def test_a_copy_that_went_its_own_way_is_not_overwritten(origin, work, tmp_path):
    origin.upsert([point(100, "theirs")])
    work.upsert([point(100, "ours")])
    before = files_of(work)

    with pytest.raises(vd.CommitConflictError, match="went its own way"):
        origin.checkout(tmp_path / "work")

    assert files_of(work) == before


def test_another_collection_is_no_target(origin, work, tmp_path):
    other = books_at(str(tmp_path / "other"))

    with pytest.raises(vd.CommitConflictError, match="no version in common"):
        work.publish(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("dear")
    with pytest.raises(vd.CollectionExistsError, match="holds something already"):
        origin.checkout(tmp_path / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(vd.CollectionExistsError, match="is a file"):
        origin.checkout(tmp_path / "file")

    assert content(other) == sorted((p["id"], p["title"]) for p in POINTS)


def test_who_was_not_checked_out_must_say_where_to(origin, work):
    with pytest.raises(vd.InvalidInputError, match="does not say where it was checked out") as caught:
        origin.publish()
    assert "publish(url)" in caught.value.hint
    with pytest.raises(vd.InvalidInputError, match="is the collection itself"):
        work.publish(work.url)
    with pytest.raises(vd.InvalidInputError, match="is the collection itself"):
        work.checkout(work.url)
    with pytest.raises(vd.InvalidInputError, match="lies within"):
        work.checkout(f"{work.url}/copy")
    work.snapshots.create("one")
    with pytest.raises(vd.InvalidInputError, match="lies within"):
        work.snapshots.copy("one", f"{work.url}/copy")


def test_an_origin_that_is_gone_is_made_anew_only_when_it_is_named(origin, work):
    storage.files(origin._reader.table.location).delete_tree()

    with pytest.raises(vd.CollectionNotFoundError, match="no collection stands at"):
        work.publish()
    assert work.publish(origin.url).versions == 1
    assert content(vd.open(origin.url)) == content(work)


def test_an_origin_that_was_dropped_is_said_to_be(tmp_path):
    catalog = vd.Catalog(tmp_path / "root")
    work = catalog.create("books", vectors=VECTORS).checkout(tmp_path / "work")
    work.upsert([point(1)])
    catalog.drop("books")

    with pytest.raises(vd.CollectionNotFoundError, match="was dropped at"):
        work.publish()


def test_an_origin_in_an_object_needs_the_object(tmp_path):
    memory = fsspec.filesystem("memory")
    location = storage.resolve("/checkouts/e", filesystem=memory)
    work = books_at(str(tmp_path / "work"))
    write_origin(work._reader.table.location, Origin(url="memory://checkouts/e", uri=location.uri, version=1))

    with pytest.raises(vd.InvalidInputError, match="in another filesystem"):
        work.publish()


def test_from_a_read_only_place_it_is_checked_out_and_nothing_goes_back(origin, tmp_path):
    import zipfile

    local = origin.checkout(tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(Path(local.url).rglob("*")):
            archive.write(path, "books" / path.relative_to(local.url))
    packed = vd.open(f"zip://books::file://{tmp_path}/all.zip")
    assert packed.publish(tmp_path / "another").versions == 1
    work = packed.checkout(tmp_path / "work")
    work.upsert([point(100)])

    with pytest.raises(vd.ReadOnlyError):
        work.publish()
    assert content(work)[-1] == (100, "new")


def test_versions_that_were_cleaned_up_are_missed_by_name(origin, work, tmp_path):
    for n in range(3):
        origin.upsert([point(200 + n)])
    origin.clean_up(older_than=timedelta(0))

    with pytest.raises(vd.VersionGoneError, match="does not keep version"):
        origin.checkout(tmp_path / "work")
    assert work.count() == 20


def test_clean_up_keeps_what_is_not_published_yet(origin, work):
    for n in range(3):
        work.upsert([point(200 + n)])
    work.clean_up(older_than=timedelta(0))
    assert work.publish().versions == 3
    assert content(origin.refresh()) == content(work)

    work.clean_up(older_than=timedelta(0))
    assert len(work.versions()) == 1
    work.upsert([point(300)])
    assert work.publish().versions == 1


def test_a_damaged_file_is_not_published(origin, work):
    work.upsert([point(100)])
    before = files_of(origin)
    new = next(p for p in files_of(work) if p.startswith("data/") and p not in before)
    path = Path(work.url, new)
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)

    with pytest.raises(vd.CorruptionError, match=f"{new} of .* is damaged"):
        work.publish()
    assert origin.refresh().version == work.version - 1
    assert content(origin)[-1] == (19, "book 19")


def test_a_damaged_manifest_is_not_published(origin, work):
    work.upsert([point(100)])
    newest = engine.manifests(work._reader.table.location)[work.version]
    table = work._reader
    path = Path(work.url, newest)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)

    from vecdataset.checkouts import publish

    with pytest.raises(vd.CorruptionError):
        publish(table)
    assert origin.refresh().version == work.version - 1


# ------------------------------------------------------------------------- races and failures


def test_of_many_that_publish_at_once_one_wins(tmp_path):
    origin = books_at(f"fsspec+file://{tmp_path}/there")
    copies = [origin.checkout(tmp_path / f"work-{n}") for n in range(6)]
    for n, work in enumerate(copies):
        work.upsert([point(100 + n)])
        work.upsert([point(200 + n)])
    barrier = threading.Barrier(len(copies))

    def publish(work):
        barrier.wait(60)
        try:
            return work.publish().versions
        except vd.CommitConflictError:
            return 0

    with ThreadPoolExecutor(len(copies)) as threads:
        said = list(threads.map(publish, copies))

    winner = said.index(max(said))
    assert sorted(said) == [0, 0, 0, 0, 0, 2]
    assert content(origin.refresh()) == content(copies[winner])


def test_a_writer_who_commits_in_the_middle_wins(origin, work, monkeypatch):
    work.upsert([point(100, "ours")])
    work.upsert([point(101, "ours")])
    location = origin._reader.table.location
    create = type(storage.files(location)).create
    created = []

    def slow(files, path, data):
        if path.startswith("_versions/"):
            created.append(path)
            if len(created) == 2:
                vd.open(origin.url).upsert([point(102, "theirs")])
        return create(files, path, data)

    monkeypatch.setattr(type(storage.files(location)), "create", slow)
    with pytest.raises(vd.CommitConflictError, match=r"versions up to \d+ came"):
        work.publish()
    monkeypatch.undo()

    assert [c for c in content(vd.open(origin.url)) if c[0] >= 100] == [(100, "ours"), (102, "theirs")]
    assert [c for c in content(work) if c[0] >= 100] == [(100, "ours"), (101, "ours")]


@pytest.mark.parametrize("calls", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20, 2))])
def test_an_origin_that_fails_midway_is_whole_and_publishing_is_repeated(origin, work, calls):
    work.upsert([point(n) for n in range(100, 130)])
    work.delete([1])
    before = content(origin)
    odd_filesystems.Faulty.behave(fail_after=calls)
    try:
        done = work.publish()
    except (vd.VecDatasetError, OSError):
        done = None
    odd_filesystems.Faulty.behave()
    found = content(vd.open(origin.url))

    if done is None:
        versions = vd.open(origin.url).version
        assert found == (before if versions == work.version - 2 else content(work.at(versions)))
    assert work.publish().version == work.version
    assert content(origin.refresh()) == content(work)
    assert origin.snapshots.create("after")


def test_a_copy_that_was_built_on_meanwhile_keeps_its_base(origin, tmp_path, monkeypatch):
    manifests, done = engine.manifests, []

    def seen_late(location):
        if location.url == str(tmp_path / "work"):
            done.append(location)
            if len(done) == 2:  # the copy stands; whoever came to it first commits
                vd.open(tmp_path / "work").upsert([point(100)])
        return manifests(location)

    monkeypatch.setattr(engine, "manifests", seen_late)
    with pytest.raises(vd.CollectionExistsError, match="meanwhile"):
        origin.checkout(tmp_path / "work")
    monkeypatch.undo()

    work = vd.open(tmp_path / "work")
    assert len(work.versions()) == 2
    assert work.publish(origin.url).versions == 1


def test_a_checkout_that_failed_midway_goes_on(origin, tmp_path, monkeypatch):
    from vecdataset.storage.local import LocalFiles

    upload, done = LocalFiles.upload, []

    def failing(files, source, path):
        done.append(path)
        if len(done) == 3:
            raise OSError("the disk went away")
        upload(files, source, path)

    monkeypatch.setattr(LocalFiles, "upload", failing)
    with pytest.raises(OSError, match="went away"):
        origin.checkout(tmp_path / "work")
    with pytest.raises((vd.InvalidInputError, vd.CollectionNotFoundError)):
        vd.open(tmp_path / "work")
    monkeypatch.undo()

    work = origin.checkout(tmp_path / "work")
    assert content(work) == content(origin)
    assert work.snapshots.verify(current=True, deep=True)


# ------------------------------------------------------------------------------- an oracle


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["origin", "work", "publish", "update"]), min_size=3, max_size=9))
def test_it_does_what_two_lists_of_commits_would(steps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    origin = vd.create(folder / "origin", vectors=VECTORS, id_type="uint64")
    work = origin.checkout(folder / "work")
    there, here = [], []

    for at, step in enumerate(steps):
        if step == "origin":
            origin.upsert([point(at)])
            there.append(at)
        elif step == "work":
            work.upsert([point(at)])
            here.append(at)
        else:
            forward, back = (here, there) if step == "publish" else (there, here)
            parted = here[: len(there)] != there and there[: len(here)] != here
            if parted:
                with pytest.raises(vd.CommitConflictError):
                    work.publish() if step == "publish" else origin.checkout(folder / "work")
            else:
                work.publish() if step == "publish" else origin.checkout(folder / "work")
                if len(forward) > len(back):
                    back[:] = forward
        assert sorted(origin.refresh().to_arrow()["id"].to_pylist()) == sorted(there)
        assert sorted(work.refresh().to_arrow()["id"].to_pylist()) == sorted(here)


# -------------------------------------------------------------------------------- servers


@pytest.mark.slow
@pytest.mark.s3
def test_from_s3_to_a_disk_and_back(s3, tmp_path):
    origin = books_at(f"{s3.url}/books", storage_options=s3.options)
    work = origin.checkout(tmp_path / "work")
    work.upsert([point(100)])

    assert work.publish(storage_options=s3.options).versions == 1
    assert content(origin.refresh()) == content(work)
    origin.upsert([point(101)])
    work.upsert([point(102)])
    with pytest.raises(vd.CommitConflictError, match="went its own way"):
        work.publish(storage_options=s3.options)
    stored = b"".join(p.read_bytes() for p in Path(work.url).rglob("*") if p.is_file())
    assert s3.options["secret"].encode() not in stored


@pytest.mark.slow
def test_over_webdav_no_credential_stays_behind(tmp_path):
    (tmp_path / "served").mkdir()
    with places.webdav(tmp_path / "served") as spot:
        origin = books_at(spot.at("books"), **spot.how)
        work = origin.checkout(tmp_path / "work")
        work.upsert([point(100)])
        work.publish(storage_options=spot.options)

        assert content(origin.refresh()) == content(work)
    stored = b"".join(p.read_bytes() for p in (tmp_path / "work").rglob("*") if p.is_file())
    assert places.PASSWORD.encode() not in stored
