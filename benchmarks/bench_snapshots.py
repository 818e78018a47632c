"""Snapshots against what they must do anyway: hash the files, copy the files.

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


def test_verified_copy(benchmark, sealed, tmp_path):
    """Against a plain copy of the same files."""
    folder = Path(sealed.url)
    turn = itertools.count()

    def raw():
        target = tmp_path / f"raw-{next(turn)}"
        for f in sealed.snapshots.get("first").files:
            (target / f.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f.path, target / f.path)
        shutil.rmtree(target)

    def ours():
        target = tmp_path / f"ours-{next(turn)}"
        sealed.snapshots.copy("first", target)
        shutil.rmtree(target)

    a, b = interleaved(raw, ours, 7)
    benchmark.pedantic(ours, rounds=2)
    report(benchmark, "verified copy", a, b, least=0.4)
