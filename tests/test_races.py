"""Writers that meet: processes and threads at once on the same new ids, and processes that are killed.

A round lets every writer go at one barrier. What it may say afterwards: done, or `PointExistsError`
where it inserted. Whatever was acknowledged is there, once, as one of the writers gave it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd

SPAWN = multiprocessing.get_context("spawn")
VECTORS = vd.VectorParams(size=4, distance="Euclid", index="ivf_flat")
WAIT_S = 120
ROUNDS_A_COLLECTION = 5


# --------------------------------------------------------------- what runs in the processes


def serve(connection, barrier):
    while (job := connection.recv()) is not None:
        function, arguments = job
        connection.send(function(barrier, **arguments))


def race(barrier, *, urls, options, verb, writer, rounds):
    """Write the points of each round as `writer`; return what came of it, round by round."""
    outcomes = []
    handles = {}
    for number in range(rounds):
        url = urls[number // ROUNDS_A_COLLECTION]
        if url not in handles:
            handles[url] = vd.open(url, storage_options=options)
        points = points_of(verb, writer, number)
        barrier.wait(WAIT_S)
        try:
            call = handles[url].insert if verb in ("insert", "load") else handles[url].upsert
            call(points)
        except Exception as error:  # noqa: BLE001  judged by the test
            outcomes.append(f"{type(error).__name__}: {error}")
        else:
            outcomes.append("done")
    return outcomes


def ids_of(verb, writer, number):
    """The writers' ids overlap: half of each one's are the other's too."""
    start = number * 10_000 + (0 if writer == 0 else 20)
    return range(start, start + (4000 if verb == "load" else 40))


def points_of(verb, writer, number):
    ids = ids_of(verb, writer, number)
    if verb == "load":
        vectors = np.full((len(ids), 4), writer, np.float32)
        return pa.table({
            "id": np.array(ids, np.uint64),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 4),
            "by": [writer] * len(ids),
        })  # fmt: skip
    # In each collection's first rounds the writers bring columns of their own, and one of two types.
    odd = 0.5 if writer else "text"
    return [vd.Point(i, [writer] * 4, {"by": writer, f"only{writer}": i, "odd": odd}) for i in ids]


def commit_many(barrier, *, url, writer, commits):
    books = vd.open(url)
    barrier.wait(WAIT_S)
    for number in range(commits):
        own = 1000 * (writer + 1) + number
        books.upsert([vd.Point(own, [writer] * 4, {"by": writer}), vd.Point(0, [writer] * 4, {"by": writer})])
        books.set_payload({f"w{writer}": number}, ids=[1])
    return "done"


def payload_of(i):
    """Now and then a new key, and one of integers that meets its first float, so that columns come and widen."""
    block, half = divmod(i // 5, 8)
    return {"n": i, f"text{block}": "x", f"wide{block}": i + 0.5 if half >= 4 else 2**53 + i}


def write_until_killed(connection, url, first):
    """Write, and say what was acknowledged; now and then something larger is in the way of the kill."""
    connection.recv()
    books = vd.open(url)
    number = first
    while True:
        ids = list(range(number, number + 5))
        books.upsert([vd.Point(i, [i % 7] * 4, payload_of(i)) for i in ids])
        connection.send(("upserted", ids))
        if number % 15 == 0:
            books.delete([number + 4])
            connection.send(("deleted", [number + 4]))
        if number % 20 == 0:
            books.set_payload({"patched": number}, ids=[number])
            connection.send(("patched", [number]))
        if number % 35 == 0:
            books.optimize()
        number += 5


# ------------------------------------------------------------------------------- the parent


class Crew:
    """Some processes that wait for work, so that a test does not pay for their start."""

    def __init__(self, size):
        self.barrier = SPAWN.Barrier(size)
        self.pipes, self.processes = [], []
        for _ in range(size):
            mine, theirs = SPAWN.Pipe()
            process = SPAWN.Process(target=serve, args=(theirs, self.barrier), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, function, arguments):
        for pipe, own in zip(self.pipes, arguments, strict=True):
            pipe.send((function, own))
        return [pipe.recv() for pipe in self.pipes]

    def close(self):
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(WAIT_S)
            process.close()
        for pipe in self.pipes:
            pipe.close()


@pytest.fixture(scope="module")
def pair():
    crew = Crew(2)
    yield crew
    crew.close()


@pytest.fixture
def four():
    crew = Crew(4)
    yield crew
    crew.close()


def stored(url, options=None):
    """Round the code under test: every row that Lance itself reads."""
    dataset = vd.open(url, storage_options=options).to_lance()
    return dataset.to_table(columns=["id", "by"]).to_pydict()


def run_race(pair, base, verbs, rounds, options=None):
    urls = [f"{base}/{'-'.join(verbs)}-{n}" for n in range(-(-rounds // ROUNDS_A_COLLECTION))]
    for url in urls:
        vd.create(url, vectors=VECTORS, storage_options=options)
    shared = {"urls": urls, "options": options, "rounds": rounds}
    outcomes = pair.run(race, [{**shared, "verb": verb, "writer": w} for w, verb in enumerate(verbs)])
    tables = [stored(url, options) for url in urls]
    return outcomes, tables


def check_race(outcomes, tables, verbs, rounds):
    """Assert that nothing stands twice, nothing acknowledged is lost, and errors are explained."""
    for n, table in enumerate(tables):
        by = dict(zip(table["id"], table["by"], strict=True))
        assert [i for i, count in Counter(table["id"]).items() if count > 1] == []
        expected = {}
        for number in range(n * ROUNDS_A_COLLECTION, min(rounds, (n + 1) * ROUNDS_A_COLLECTION)):
            said = [outcomes[0][number], outcomes[1][number]]
            assert "done" in said
            for writer, verb in enumerate(verbs):
                if said[writer] == "done":
                    for i in ids_of(verb, writer, number):
                        expected.setdefault(i, set()).add(writer)
                else:
                    assert verb in ("insert", "load")
                    assert said[writer].startswith("PointExistsError: id ")
            if verbs == ("insert", "insert"):
                assert said.count("done") == 1
        for i, writers in expected.items():
            # An upsert that was acknowledged is never undone by an insert, which would have failed.
            upserted = {w for w in writers if verbs[w] == "upsert"}
            assert by[i] in (upserted or writers)
        assert by.keys() == expected.keys()


RACES = [("upsert", "upsert"), ("insert", "insert"), ("insert", "upsert"), ("load", "upsert")]
names = pytest.mark.parametrize("verbs", RACES, ids="/".join)


@pytest.mark.slow
@names
def test_two_processes_that_race_for_new_ids_make_each_once(pair, tmp_path, verbs):
    outcomes, tables = run_race(pair, tmp_path, verbs, rounds=4)

    check_race(outcomes, tables, verbs, rounds=4)


@pytest.mark.slow
@names
def test_two_processes_that_race_for_new_ids_make_each_once_in_50_rounds(pair, tmp_path, verbs):
    outcomes, tables = run_race(pair, tmp_path, verbs, rounds=50)

    check_race(outcomes, tables, verbs, rounds=50)


@pytest.mark.slow
@pytest.mark.s3
@names
def test_two_processes_that_race_on_an_object_store_make_each_once(pair, s3, verbs):
    outcomes, tables = run_race(pair, s3.url, verbs, rounds=4, options=s3.options)

    check_race(outcomes, tables, verbs, rounds=4)


@pytest.mark.slow
def test_four_processes_with_twenty_commits_each_lose_none(four, tmp_path):
    url = str(tmp_path / "books")
    books = vd.create(url, vectors=VECTORS)
    books.upsert([vd.Point(1, [1] * 4)])

    said = four.run(commit_many, [{"url": url, "writer": w, "commits": 20} for w in range(4)])

    assert said == ["done"] * 4
    table = stored(url)
    assert sorted(table["id"]) == sorted([0, 1, *(1000 * (w + 1) + n for w in range(4) for n in range(20))])
    assert books.get(1).to_pylist(layout="qdrant")[0]["payload"] == {f"w{w}": 19 for w in range(4)}
    assert books.info().fragments < 64


# ---------------------------------------------------------------------------------- threads


@pytest.fixture(params=["local", "memory"])
def books(request, tmp_path):
    url = tmp_path / "books" if request.param == "local" else f"memory://{tmp_path.name}"
    return vd.create(url, vectors=VECTORS)


def together(count, work):
    """Let threads go at once; return what each of them returned, or raise what one of them raised."""
    barrier = threading.Barrier(count)

    def one(number):
        barrier.wait(WAIT_S)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_threads_that_share_a_handle_upsert_each_id_once(books):
    together(
        6, lambda w: books.upsert([vd.Point(i, [w] * 4, {"by": w, f"k{w}": i}) for i in range(w, w + 20)])
    )

    table = stored(books.url)
    assert sorted(table["id"]) == list(range(25))


def test_of_threads_that_insert_the_same_id_one_succeeds(books):
    def insert(writer):
        try:
            books.insert([vd.Point(1, [writer] * 4, {"by": writer}), vd.Point(10 + writer, [0] * 4)])
        except vd.PointExistsError:
            return None
        return writer

    winners = [w for w in together(6, insert) if w is not None]

    assert len(winners) == 1
    assert sorted(stored(books.url)["id"]) == [1, 10 + winners[0]]
    assert books.get(1).to_pylist()[0]["by"] == winners[0]


def test_threads_that_set_different_keys_of_one_point_lose_no_update(books):
    books.upsert([vd.Point(1, [0] * 4, {"kept": [None]})])

    def set_keys(writer):
        for number in range(5):
            value = {"deep": number} if writer % 2 else number
            books.set_payload({f"w{writer}k{number}": value}, ids=[1])

    together(4, set_keys)

    expected = {f"w{w}k{n}": {"deep": n} if w % 2 else n for w in range(4) for n in range(5)}
    assert books.get(1).to_pylist(layout="qdrant")[0]["payload"] == {"kept": [None], **expected}


def test_threads_that_replace_vectors_and_payload_of_one_point_lose_neither(books):
    books.upsert([vd.Point(1, [0] * 4, {"n": 0})])

    def write(writer):
        for number in range(1, 6):
            if writer == 0:
                books.update_vectors([vd.Point(1, [number] * 4)])
            else:
                books.set_payload({"n": number}, ids=[1])

    together(2, write)

    assert books.get(1, with_vectors=True).to_pylist() == [{"id": 1, "n": 5, "vector": [5] * 4}]


VALUES = [1, 2**53 + 1, 0.5, "text", True, [1], {"a": 1}, None, 2**64]


def write_values_of_all_types(url, seed):
    """Four threads with handles of their own; return what was acknowledged and never touched again."""
    dice = random.Random(seed)
    plans = [
        [(dice.choice(["upsert"] * 3 + ["set", "delete"]), dice.randrange(6), dice.choice(VALUES), dice.choice(VALUES))
         for _ in range(6)]
        for _ in range(4)
    ]  # fmt: skip
    handles = [vd.open(url) for _ in plans]

    def work(writer):
        said = {}
        for number, (verb, shared, k, j) in enumerate(plans[writer]):
            own = 100 * (writer + 1) + number
            if verb == "upsert":
                points = [vd.Point(i, [writer] * 4, {"k": k, "j": j}) for i in (own, shared)]
                handles[writer].upsert(points)
                said[own] = {"k": k, "j": j}
            elif verb == "set":
                handles[writer].set_payload({f"own{writer}": k}, ids=[shared])
            else:
                handles[writer].delete([shared])
        return said

    return {i: payload for said in together(4, work) for i, payload in said.items()}


def check_values_of_all_types(base, seeds):
    for seed in seeds:
        url = f"{base}-{seed}"
        vd.create(url, vectors=VECTORS)
        acknowledged = write_values_of_all_types(url, seed)
        books = vd.open(url)
        rows = {p["id"]: p["payload"] for p in books.scroll(limit=1000).to_pylist(layout="qdrant")}
        raw = books.to_lance().to_table(columns=["id"])["id"].to_pylist()
        assert len(raw) == len(set(raw))
        for i, payload in acknowledged.items():
            assert json.dumps(rows[i], sort_keys=True) == json.dumps(payload, sort_keys=True), f"seed {seed}"


def test_threads_that_give_one_key_values_of_all_types_lose_none(tmp_path):
    check_values_of_all_types(f"memory://{tmp_path.name}", seeds=range(4))


@pytest.mark.slow
def test_threads_that_give_one_key_values_of_all_types_lose_none_in_100_rounds(tmp_path):
    check_values_of_all_types(f"memory://{tmp_path.name}", seeds=range(50))
    check_values_of_all_types(str(tmp_path / "books"), seeds=range(50, 100))


def test_readers_never_see_half_a_write(books):
    books.upsert([vd.Point(i, [0] * 4, {"n": 0}) for i in range(50)])
    seen = []

    def work(number):
        if number == 0:
            for n in range(1, 15):
                books.upsert([vd.Point(i, [n] * 4, {"n": n}) for i in range(50)])
            return
        for _ in range(25):
            rows = books.scroll(limit=100, with_vectors=True).to_pylist()
            seen.append({(row["n"], row["vector"][0]) for row in rows})
            hits = books.search([0] * 4, limit=50)
            seen.append(set(zip(hits["n"].to_pylist(), hits["n"].to_pylist(), strict=True)))

    together(3, work)

    assert {len(state) for state in seen} == {1}
    assert all(n == v for state in seen for n, v in state)


def test_versions_are_listed_in_threads_while_others_search(books):
    books.upsert([{"id": i, "vector": [1, i, 0, 0]} for i in range(500)])
    for i in range(10):
        books.upsert([{"id": i, "vector": [1, 1, 0, 0]}])
    handle = vd.open(books.url)
    tasks = [lambda: len(handle.versions()), lambda: len(handle.search([1, 1, 0, 0], limit=3))] * 40

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda task: task(), tasks))

    assert set(found[::2]) == {len(books.versions())}
    assert set(found[1::2]) == {3}


def test_writers_go_on_while_the_collection_is_optimized(books):
    books.configure(indexing_threshold=50, full_scan_threshold=50)
    books.upsert([vd.Point(i, [i] * 4, {"n": i}) for i in range(100)])

    def work(number):
        for n in range(6):
            if number == 0:
                books.optimize()
            else:
                books.upsert([vd.Point(1000 * number + n, [n] * 4), vd.Point(n, [-n] * 4, {"by": number})])
                books.delete([90 + n])

    together(3, work)

    expected = [*range(90), *range(96, 100), *range(1000, 1006), *range(2000, 2006)]
    assert sorted(books.to_lance().to_table(columns=["id"])["id"].to_pylist()) == expected
    assert books.search([-5] * 4, limit=1)["id"].to_pylist() == [5]


# ------------------------------------------------------------------------------------ kills


class Writer:
    """A process that writes from the word go until it is killed."""

    def __init__(self, url, first):
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=write_until_killed, args=(theirs, url, first), daemon=True)
        self.process.start()
        theirs.close()

    def go_and_be_killed_after(self, delay_s):
        """Return what was acknowledged; the delay counts from the first acknowledgement."""
        self.pipe.send("go")
        said = [self.pipe.recv()]
        time.sleep(delay_s)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(WAIT_S)
        self.process.close()
        try:
            while True:
                said.append(self.pipe.recv())
        except (EOFError, OSError):  # the last message may have been cut off
            self.pipe.close()
        return said


def kill_writers(url, kills, seed):
    dice = random.Random(seed)
    books = vd.create(url, vectors=VECTORS, indexing_threshold=20, full_scan_threshold=20)
    expected, patched = set(), {}
    following = Writer(url, 10_000)
    for number in range(1, kills + 1):
        writer = following
        if number < kills:  # the next one starts while this one works
            following = Writer(url, 10_000 * (number + 1))
        for verb, ids in writer.go_and_be_killed_after(dice.uniform(0, 0.3)):
            if verb == "upserted":
                expected.update(ids)
            elif verb == "deleted":
                expected.difference_update(ids)
            else:
                patched[ids[0]] = ids[0]
        # What was in flight may have landed, whole; from here on it is part of what must stay.
        expected = check_after_kill(url, expected, patched, 10_000 * number)
    books.upsert([vd.Point(1, [1] * 4)])
    assert len(books) == len(expected) + 1
    return len(expected)


def check_after_kill(url, expected, patched, first):
    books = vd.open(url)
    rows = {p["id"]: p["payload"] for p in books.scroll(limit=100_000).to_pylist(layout="qdrant")}
    raw = books.to_lance().to_table(columns=["id"])["id"].to_pylist()
    assert len(raw) == len(set(raw)) == len(rows) == len(books)
    in_flight = rows.keys() - expected
    lost = expected - rows.keys()
    assert len(in_flight) in (0, 5)
    assert len(lost) in (0, 1)
    assert all(i % 15 == 4 and i > first for i in lost), "only a delete that was in flight takes a point away"
    assert all(
        payload == {**payload_of(i), **{k: v for k, v in payload.items() if k == "patched"}}
        for i, payload in rows.items()
    )
    assert all(rows[i]["patched"] == value for i, value in patched.items())
    near = books.search([3] * 4, limit=5)
    assert len(near) == min(5, len(rows))
    return set(rows)


@pytest.mark.slow
def test_a_collection_opens_after_its_writer_was_killed_and_has_what_was_acknowledged(tmp_path):
    assert kill_writers(str(tmp_path / "books"), kills=2, seed=1) > 0


@pytest.mark.slow
def test_a_collection_opens_after_its_writer_was_killed_50_times_and_has_what_was_acknowledged(tmp_path):
    assert kill_writers(str(tmp_path / "books"), kills=50, seed=2) > 100
