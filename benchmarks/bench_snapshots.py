"""Snapshots against what they must do anyway: hash the files, copy the files; and what commits pay for them.

pytest benchmarks/bench_snapshots.py --benchmark-enable -s
"""

import hashlib
import itertools
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from benchmarks.bench_overhead import interleaved, report
from vecdataset import ledger

ROWS, SIZE = 100_000, 384


def points(ids, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((len(ids), SIZE), dtype=np.float32)
    return pa.table(
        {
            "id": pa.array(ids, pa.uint64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), SIZE),
        }
    )


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    collection = vd.create(tmp_path_factory.mktemp("sealed") / "c", vectors=vd.VectorParams(SIZE))
    collection.insert(points(np.arange(ROWS), 1))
    collection.snapshots.create("first")
    return collection


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory):
    """The same rows in twenty files of 8 MB."""
    collection = vd.create(tmp_path_factory.mktemp("parts") / "c", vectors=vd.VectorParams(SIZE))
    for part in range(20):
        collection.insert(points(np.arange(ROWS // 20) + part * ROWS // 20, part))
    collection.snapshots.create("first")
    return collection


def hashed(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_second_snapshot(benchmark, sealed):
    """Of 100,000 x 384, after a change of one point."""
    times = []
    for i in range(7):
        sealed.upsert(points([i], seed=i))
        started = time.perf_counter()
        sealed.snapshots.create(f"after-{i}")
        times.append(time.perf_counter() - started)
    benchmark.pedantic(lambda: None)
    took = sorted(times)[len(times) // 2]
    print(f"\nsecond snapshot: {took * 1e3:.1f} ms")
    assert took < 0.050


def test_verify(benchmark, sealed):
    """Against two threads of hashlib over the same files."""
    folder = Path(sealed.url)
    files = [folder / f.path for f in sealed.snapshots.get("first").files]

    def raw():
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(hashed, files))

    a, b = interleaved(raw, lambda: sealed.snapshots.verify("first"), 9)
    benchmark.pedantic(lambda: sealed.snapshots.verify("first"), rounds=3)
    report(benchmark, "verify", a, b, least=0.7)


@pytest.mark.parametrize("shape", ["one file of 154 MB", "twenty files of 8 MB"])
def test_verified_copy(benchmark, sealed, in_parts, tmp_path, shape):
    """Against a plain copy of the same files, one after the other; the best of nine.

    SHA-256 takes a core more than twice as long as a copy does, and nothing shares one file's among
    cores: so a single file is held to what hashing it alone takes, which is 0.4 of a copy and a little.
    """
    collection = sealed if shape.startswith("one") else in_parts
    folder = Path(collection.url)
    files = [f.path for f in collection.snapshots.get("first").files]
    turn = itertools.count()

    def raw():
        target = tmp_path / f"raw-{next(turn)}"
        for path in files:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, target / path)

    def ours():
        collection.snapshots.copy("first", tmp_path / f"ours-{next(turn)}")

    def clear():
        for path in tmp_path.iterdir():
            shutil.rmtree(path)

    def alone():
        for path in files:
            hashed(folder / path)

    times = ([], [], [])
    for _ in range(9):
        for side, call in enumerate((raw, ours, alone)):
            started = time.perf_counter()
            call()
            times[side].append(time.perf_counter() - started)
        clear()
    benchmark.pedantic(ours, rounds=2)
    clear()
    a, b, c = map(min, times)
    one = shape.startswith("one")
    report(benchmark, f"verified copy of {shape}", a, b, least=None if one else 0.4)
    report(benchmark, f"verified copy of {shape}, against hashing it in one thread", c, b, most=1.15)


def without_records(work):
    """Do it with commits that put nothing on record."""
    kept, ledger.record = ledger.record, lambda *_, **__: None
    try:
        return work()
    finally:
        ledger.record = kept


def test_records_of_single_upserts(benchmark, tmp_path):
    """One point a call; with the record against without."""
    collections = [vd.create(tmp_path / name, vectors=vd.VectorParams(SIZE)) for name in ("raw", "ours")]
    for collection in collections:
        collection.upsert(points(np.arange(1000), 1))
    batches = [points([i], i) for i in range(200)]
    turns = [itertools.cycle(batches), itertools.cycle(batches)]
    a, b = interleaved(
        lambda: without_records(lambda: collections[0].upsert(next(turns[0]))),
        lambda: collections[1].upsert(next(turns[1])),
        200,
    )
    benchmark.pedantic(lambda: collections[1].upsert(batches[0]), rounds=3)
    report(benchmark, "record of a single upsert", a, b, most=1.15)


def test_records_of_a_bulk_load(benchmark, tmp_path):
    """100,000 x 384 in one call; the digest of the large file is made behind it, and waited for here.

    In seconds of the processor, which the digest takes wherever it runs; the call by the clock too.
    """
    rows = points(np.arange(ROWS), 1)
    turn = itertools.count()
    used, took = ([], []), ([], [])

    def load():
        collection = vd.create(tmp_path / f"load-{next(turn)}", vectors=vd.VectorParams(SIZE))
        collection.insert(rows)
        return collection

    for _ in range(6):
        for side, call in enumerate((lambda: without_records(load), load)):
            clock, processor = time.perf_counter(), time.process_time()
            collection = call()
            took[side].append(time.perf_counter() - clock)
            ledger.settle(collection._reader.table.location)
            used[side].append(time.process_time() - processor)
            shutil.rmtree(collection.url)
    benchmark.pedantic(lambda: None)
    print(f"\nbulk load, the call: {min(took[0]) * 1e3:.0f} ms, with record {min(took[1]) * 1e3:.0f} ms")
    report(benchmark, "bulk load, seconds of the processor, digest included", *map(min, used), most=1.5)


def test_durable_upserts(benchmark, tmp_path):
    """One point a call; forced to the disk against not."""
    collections = [
        vd.create(tmp_path / name, vectors=vd.VectorParams(SIZE), durable=name == "ours")
        for name in ("raw", "ours")
    ]
    for collection in collections:
        collection.upsert(points(np.arange(1000), 1))
    batches = [itertools.cycle([points([i], i) for i in range(100)]) for _ in range(2)]
    a, b = interleaved(
        lambda: collections[0].upsert(next(batches[0])), lambda: collections[1].upsert(next(batches[1])), 100
    )
    benchmark.pedantic(lambda: collections[1].upsert(next(batches[1])), rounds=3)
    report(benchmark, "durable upsert", a, b)
