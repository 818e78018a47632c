"""Snapshots under fire: processes killed at every moment, writers that never stop, and years of commits.

Each matrix kills 20 processes, at moments spread evenly over the time that the work takes.
"""

import multiprocessing
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset import storage
from vecdataset.engine import manifests
from vecdataset.repair import repair

pytestmark = pytest.mark.slow

KILLS = 20
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["vecdataset.opening", "vecdataset.repair"])


def rows(ids, seed=0, size=64):
    ids = np.asarray(ids, np.uint64)
    vectors = np.random.default_rng(seed).standard_normal((len(ids), size), dtype=np.float32)
    return pa.table({
        "id": ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size),
        "n": ids.astype(np.int64),
    })  # fmt: skip


def content(collection):
    return collection.to_arrow().sort_by("id")


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """Twelve files of some hundred kilobytes, an index, deletions, and two snapshots."""
    books = vd.create(tmp_path_factory.mktemp("master") / "books", vectors=vd.VectorParams(64))
    for part in range(12):
        books.upsert(rows(range(1500 * part, 1500 * (part + 1)), seed=part))
    books.create_index("ivf_flat")
    books.delete(range(50))
    books.snapshots.create("one")
    books.upsert(rows(range(100), seed=77))
    books.snapshots.create("two")
    books.upsert(rows(range(200, 260), seed=78))
    return Path(books.url)


# -------------------------------------------------------------- what the processes do


def create(url, _):
    vd.open(url).snapshots.create("three")


def copy(url, target):
    vd.open(url).snapshots.copy("two", target)


def restore_into(url, target):
    vd.open(url).snapshots.restore("two", into=target)


def restore_in_place(url, _):
    vd.open(url).snapshots.restore("one")


def prune(url, _):
    vd.open(url).snapshots.prune(keep_last=1)


def mend(url, _):
    repair(storage.resolve(url), dry_run=False)


def worker(connection, work, url, target):
    connection.send("ready")
    connection.recv()
    work(url, target)
    connection.send("done")
    connection.recv()


class Job:
    """One process that has begun its work."""

    def __init__(self, work, url, target):
        self._pipe, theirs = FORKS.Pipe()
        self._process = FORKS.Process(target=worker, args=(theirs, work, str(url), str(target)))
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"
        self._pipe.send("go")

    def seconds(self):
        started = time.perf_counter()
        assert self._pipe.recv() == "done"
        took = time.perf_counter() - started
        self._pipe.send("end")
        self._process.join()
        return took

    def kill_after(self, delay):
        time.sleep(delay)
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


def rounds(master, tmp_path, work, prepare=lambda _: None):
    """Yield the folders of source and target after each kill."""
    whole = tmp_path / "whole" / "books"
    shutil.copytree(master, whole)
    prepare(whole)
    took = Job(work, whole, tmp_path / "whole" / "target").seconds()
    for number in range(KILLS):
        place = tmp_path / str(number)
        shutil.copytree(master, place / "books")
        prepare(place / "books")
        Job(work, place / "books", place / "target").kill_after(took * number / (KILLS - 1))
        yield place / "books", place / "target"
        shutil.rmtree(place)


def states(books):
    return {row["name"]: row["state"] for row in books.snapshots.list().to_pylist()}


def sound(books, *names):
    return all(books.snapshots.verify(name) for name in names)


# ----------------------------------------------------------------------------- kills


def test_a_snapshot_that_was_killed_is_absent_unsealed_or_whole(master, tmp_path):
    seen = set()
    for url, _ in rounds(master, tmp_path, create):
        books = vd.open(url)
        state = states(books).get("three", "absent")
        seen.add(state)

        assert sound(books, "one", "two")
        assert state in {"absent", "unsealed", "sealed"}
        if state == "unsealed":
            books.snapshots.delete("three")
        if state != "sealed":
            books.snapshots.create("three")
        assert books.snapshots.verify("three", deep=True)
    assert len(seen) > 1, "the moments were ill chosen"


@pytest.mark.parametrize("work", [copy, restore_into])
def test_a_copy_that_was_killed_is_absent_or_whole_and_goes_on(master, tmp_path, work):
    wanted = content(vd.open(master).at("two"))
    seen = set()
    for url, target in rounds(master, tmp_path, work):
        books = vd.open(url)
        assert sound(books, "one", "two")
        try:
            seen.add("whole")
            assert content(vd.open(target)).equals(wanted)
        except (vd.CollectionNotFoundError, vd.InvalidInputError):
            seen.add("begun" if target.exists() else "absent")

        if not (target / "_snapshots").exists():
            work(url, target)
        copied = vd.open(target)
        assert copied.snapshots.verify("two", deep=True)
        assert content(copied).equals(wanted)
    assert {"begun", "whole"} <= seen, "the moments were ill chosen"


def test_a_restore_in_place_that_was_killed_left_the_old_state_or_the_new(master, tmp_path):
    old, new = content(vd.open(master)), content(vd.open(master).at("one"))
    for url, _ in rounds(master, tmp_path, restore_in_place):
        books = vd.open(url)
        assert sound(books, "one", "two")
        assert content(books).equals(old) or content(books).equals(new)

        books.snapshots.restore("one")
        assert content(books).equals(new)
        assert any(content(books.at(n)).equals(old) for n in states(books) if n.startswith("before"))


def test_a_prune_that_was_killed_keeps_what_is_kept_and_can_be_repeated(master, tmp_path):
    def more(url):
        for number in range(6):
            vd.open(url).snapshots.create(f"more{number}")

    for url, _ in rounds(master, tmp_path, prune, prepare=more):
        books = vd.open(url)
        found = states(books)
        assert sound(books, *(name for name, state in found.items() if state == "sealed"))
        assert books.snapshots.verify("more5", deep=True)

        books.snapshots.prune(keep_last=1)
        assert [name for name, state in states(books).items() if state == "sealed"] == ["more5"]


def test_a_repair_that_was_killed_can_be_repeated_and_deletes_nothing(master, tmp_path):
    torn = b"torn"

    def tear(url):
        newest = url / next(iter(manifests(storage.resolve(url)).values()))
        newest.write_bytes(torn)

    wanted = content(vd.open(master).at(vd.open(master).version - 1))
    for url, _ in rounds(master, tmp_path, mend, prepare=tear):
        repair(storage.resolve(url), dry_run=False)

        books = vd.open(url)
        assert content(books).equals(wanted)
        assert sound(books, "one", "two")
        assert [p.read_bytes() for p in (url / "_damaged").iterdir()] == [torn]


# --------------------------------------------------------------------- writers at work


def keep_writing(connection, url, writer):
    """Commit number n adds point n of this writer, drops the one 40 before, and says n in point 0."""
    books = vd.open(url)
    base = 1_000_000 * (writer + 1)
    number = 0
    while not connection.poll():
        number += 1
        points = [
            {"id": base, "vector": [number] * 4, "n": number},
            {"id": base + number, "vector": [number, writer, 0, 0], "n": number},
        ]
        books.upsert(points)
        if number % 40 == 0:
            books.delete(list(range(base + 1, base + number - 39)))
    connection.send(number)


def agrees_with_the_model(collection):
    found = collection.to_arrow()
    n = dict(zip(found["id"].to_pylist(), found["n"].to_pylist(), strict=True))
    for base in (1_000_000, 2_000_000):
        last = n.get(base, 0)
        # The deletion of a round of 40 is a commit of its own: it may not be in this version yet.
        first = max(1, last // 40 * 40 - 39)
        have = sorted(i - base for i in n if base < i < base + 1_000_000)
        begins = {first, max(1, first - 40)} if last % 40 == 0 else {first}
        assert have in [list(range(b, last + 1)) for b in begins], (base, last, have[:3], have[-3:])
        assert all(n[base + i] == i for i in have)


def test_snapshots_hold_the_model_at_their_version_while_two_writers_never_stop(tmp_path):
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(4))
    books.upsert([{"id": 1, "vector": [1, 2, 3, 4], "n": 1}])
    pipes, writers = [], []
    for writer in range(2):
        mine, theirs = FORKS.Pipe()
        writers.append(FORKS.Process(target=keep_writing, args=(theirs, books.url, writer)))
        writers[-1].start()
        pipes.append(mine)
    names = []
    until = time.monotonic() + 20
    while time.monotonic() < until or len(names) < 5:
        names.append(books.snapshots.create().name)
        assert books.snapshots.verify(names[-1])
        books.snapshots.copy(names[-1], tmp_path / "copy")
        agrees_with_the_model(books.at(names[-1]))
        agrees_with_the_model(vd.open(tmp_path / "copy").at(names[-1]))
    for pipe in pipes:
        pipe.send("stop")
    commits = [pipe.recv() for pipe in pipes]
    for process in writers:
        process.join()

    assert min(commits) > len(names)
    assert all(books.snapshots.verify(deep=True))
    assert all(vd.open(tmp_path / "copy").snapshots.verify())
    assert not books.refresh().snapshots.verify(current=True).unrecorded


def test_a_snapshot_can_be_restored_after_500_commits_compaction_indexes_clean_up_and_prune(tmp_path):
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(4), indexing_threshold=100)
    books.upsert(rows(range(400), size=4))
    books.optimize()
    books.snapshots.create("first")
    wanted = content(books)

    for number in range(500):
        books.upsert([{"id": number % 450, "vector": [number, 1, 2, 3], "n": -number}])
        if number % 100 == 99:
            books.delete(range(number - 90, number - 60))
            books.create_index("ivf_flat")
            books.optimize()
            books.snapshots.create(f"after-{number}")
    books.clean_up(older_than=timedelta(0), orphans=True)
    books.snapshots.prune(older_than=timedelta(0), keep_last=6)
    for name in [n for n in states(books) if n != "first"]:
        books.snapshots.delete(name)
    books.clean_up(older_than=timedelta(0), orphans=True)

    assert books.snapshots.verify("first", deep=True)
    assert content(vd.open(books.snapshots.restore("first", into="then"))).equals(wanted)
    books.snapshots.restore("first")
    assert content(books).equals(wanted)


def test_a_backup_goes_on_after_the_source_has_pruned_and_been_cleaned_up(tmp_path):
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(4))
    for night in range(4):
        books.upsert(rows(range(100 * night, 100 * night + 150), size=4, seed=night))
        books.optimize()
        books.snapshots.create(f"night-{night}")
        books.snapshots.copy(f"night-{night}", tmp_path / "backup")
        books.snapshots.prune(keep_last=1)
        books.clean_up(older_than=timedelta(0))

    copies = vd.open(tmp_path / "backup").snapshots
    assert len(copies) == 4
    assert all(copies.verify(deep=True))
