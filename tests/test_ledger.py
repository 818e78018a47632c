"""What commits put on record: digests, deeds, notes; and commits that wait for the disk."""

import hashlib
import multiprocessing
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import vecdataset as vd
from vecdataset import ledger
from vecdataset.storage import local


def points(ids, seed=0, size=8):
    rng = np.random.default_rng(seed)
    return [{"id": int(i), "vector": rng.standard_normal(size), "n": int(i)} for i in ids]


@pytest.fixture
def books(tmp_path):
    return vd.create(tmp_path / "books", vectors=vd.VectorParams(8), indexing_threshold=100)


def everything(books):
    """Write in every way there is."""
    books.upsert(points(range(300)))
    books.insert(points([len(books) + 5_000]))
    books.upsert(points(range(5), seed=1))
    books.set_payload({"colour": "red"}, ids=[9])
    books.delete([7])
    books.delete(filter="n between 100 and 120")
    books.delete(list(range(200, 290)))
    books.upsert([{"id": 1, "vector": [0.5] * 8, "n": 0.5}])  # widens a column
    books.create_payload_index("colour")
    books.optimize()
    books.upsert(points([501]))
    books.optimize()
    books.drop_index("vector_idx")
    for i in range(40):
        books.upsert(points([1000 + i]))  # merges small fragments
    books.configure(full_scan_threshold=50)


def recorded(books):
    return ledger.read_ledger(books._reader.table.location).digests


@pytest.mark.slow
def test_every_file_of_every_version_that_a_call_ends_with_is_on_record(books):
    seen = []
    for step in (everything, everything):
        step(books)
        seen.append(books.refresh()._reader.table.files())

    digests = recorded(books)
    for path in {p for files in seen for p in files}:
        data = (Path(books.url) / path).read_bytes()
        assert digests[path] == (len(data), hashlib.sha256(data).hexdigest()), path
    assert not books.snapshots.verify(current=True).unrecorded


def test_large_files_are_on_record_once_asked_for(tmp_path):
    books = vd.create(tmp_path / "large", vectors=vd.VectorParams(256))
    rng = np.random.default_rng(0)
    books.insert((np.arange(20_000), rng.standard_normal((20_000, 256), dtype=np.float32)))

    assert set(books._reader.table.files()) <= set(recorded(books))


def test_versions_say_what_was_done_by_whom_and_why(books):
    with books.noted("the spring list"):
        books.upsert(points(range(10)))
    books.upsert(points([3, 77]))
    books.delete([1, 2])
    books.snapshots.create("sealed")

    last = books.versions().to_pylist()[-3:]
    assert [(v["operation"], v["inserted"], v["updated"], v["deleted"]) for v in last] == [
        ("upsert", 10, 0, 0), ("upsert", 1, 1, 0), ("delete", 0, 0, 2),
    ]  # fmt: skip
    assert [v["note"] for v in last] == ["the spring list", None, None]
    assert [v["snapshots"] for v in last] == [[], [], ["sealed"]]
    assert all(v["tool"].startswith("vecdataset ") and v["user"] for v in last)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_other_stores_keep_the_deeds_and_no_digests(kind, request):
    store = request.getfixturevalue("s3") if kind == "s3" else None
    url = f"{store.url}/books" if store else "memory://ledger/books"
    books = vd.create(url, vectors=vd.VectorParams(8), storage_options=store.options if store else None)
    with books.noted("why"):
        books.upsert(points(range(10)))

    last = books.versions().to_pylist()[-1]
    assert (last["operation"], last["inserted"], last["note"]) == ("upsert", 10, "why")
    assert recorded(books) == {}
    assert books.snapshots.create("sealed").rows == 10
    assert books.snapshots.verify("sealed", deep=True)


def test_where_each_entry_is_a_file_clean_up_makes_them_one(monkeypatch):
    monkeypatch.setattr(ledger, "FOLD_AT", 5)
    books = vd.create("memory://folded/books", vectors=vd.VectorParams(8))
    for i in range(12):
        books.upsert(points([i]))
    location = books._reader.table.location
    before = ledger.read_ledger(location)

    books.clean_up()
    assert len(ledger._names(location)) == 1
    assert ledger.read_ledger(location) == before

    books.clean_up(older_than=timedelta(0))
    assert [e.version for e in ledger.read_ledger(location).entries] == [books.version]


def test_a_line_that_was_changed_is_passed_over(books):
    books.upsert(points(range(10)))
    log = Path(books.url) / ledger.FOLDER / ledger.LOG
    lines = log.read_bytes().splitlines(keepends=True)
    whole = len(ledger.read_ledger(books._reader.table.location).entries)
    lines[0] = lines[0].replace(b"create", b"delete")
    log.write_bytes(b"".join(lines)[:-10])

    read = ledger.read_ledger(books._reader.table.location)
    assert (len(read.entries), read.damaged) == (whole - 2, 2)


def test_a_ledger_that_cannot_be_written_stops_no_commit(books, caplog):
    (Path(books.url) / ledger.FOLDER / ledger.LOG).unlink()
    (Path(books.url) / ledger.FOLDER / ledger.LOG).mkdir()

    books.upsert(points(range(10)))

    assert len(vd.open(books.url)) == 10
    assert "is not in its ledger" in caplog.text


def test_clean_up_drops_entries_of_versions_that_are_gone(books):
    for i in range(20):
        books.upsert(points([i]))
    books.snapshots.create("kept")
    books.upsert(points([99]))
    before = len(ledger.read_ledger(books._reader.table.location).entries)

    books.clean_up(older_than=timedelta(0))

    read = ledger.read_ledger(books._reader.table.location)
    assert len(read.entries) < before
    assert not books.snapshots.verify(current=True).unrecorded
    assert books.snapshots.verify("kept")


def write(url, start):
    books = vd.open(url)
    for i in range(start, start + 15):
        books.upsert(points([i]))


@pytest.mark.slow
def test_processes_that_write_at_once_tear_no_line(books):
    books.upsert(points([0]))
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(books.url, 1000 * k)) for k in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)

    read = ledger.read_ledger(books._reader.table.location)
    assert read.damaged == 0
    assert sum(e.inserted for e in read.entries) == 31
    assert not vd.open(books.url).snapshots.verify(current=True).unrecorded
    assert books.snapshots.create("sealed").rows == 31


def test_what_a_crash_left_half_written_is_swept_up_by_clean_up(books):
    books.upsert(points(range(10)))
    left = [
        Path(books.url) / "data" / f"{local.PART}0123",
        Path(books.url) / "_deletions" / ".tmp_0-1-2.arrow",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")

    books.clean_up()
    assert all(p.exists() for p in left)  # as young as a write that goes on may be
    books.clean_up(older_than=timedelta(0), orphans=True)
    assert not any(p.exists() for p in left)
    assert len(vd.open(books.url)) == 10


# --------------------------------------------------------------------------- durable


def synced(monkeypatch):
    """Note what is forced to the disk."""
    seen = []
    fsync = local._fsync
    monkeypatch.setattr(local, "_fsync", lambda path: seen.append(Path(path)) or fsync(path))
    return seen


def test_a_durable_commit_forces_its_files_and_their_folders_to_the_disk(tmp_path, monkeypatch):
    seen = synced(monkeypatch)
    url = tmp_path / "books"
    books = vd.create(url, vectors=vd.VectorParams(8), durable=True)
    assert {url, url / "_versions", tmp_path} <= set(seen)
    books.upsert(points(range(10)))
    seen.clear()

    books.upsert(points([3]))

    new = {url / p for p in books._reader.table.files()}
    files = {p for p in seen if p.is_file()}
    assert files <= new
    assert {p.parent.name for p in files} == {"data", "_deletions", "_versions", "_transactions"}
    assert {url, url / "data", url / "_deletions", url / "_versions"} <= set(seen)


def test_a_durable_commit_answers_for_what_others_wrote_before_it(tmp_path, monkeypatch):
    url = tmp_path / "books"
    vd.create(url, vectors=vd.VectorParams(8)).upsert(points(range(10)))
    seen = synced(monkeypatch)

    durable = vd.open(url, durable=True)
    durable.upsert(points([77]))

    assert {url / p for p in durable._reader.table.files()} <= set(seen)


def test_a_commit_that_is_not_durable_forces_nothing(books, monkeypatch):
    seen = synced(monkeypatch)

    books.upsert(points(range(10)))

    assert seen == []


def test_memory_is_never_durable():
    with pytest.raises(vd.InvalidInputError, match="durable=True"):
        vd.create("memory://durable/books", vectors=vd.VectorParams(8), durable=True)


def test_a_collection_that_was_removed_stays_removed(tmp_path):
    books = vd.create(tmp_path / "large", vectors=vd.VectorParams(256))
    rng = np.random.default_rng(0)
    books.insert((np.arange(20_000), rng.standard_normal((20_000, 256), dtype=np.float32)))
    shutil.rmtree(books.url)

    ledger.settle(books._reader.table.location)

    assert not Path(books.url).exists()
