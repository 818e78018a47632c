"""Exports to Qdrant snapshots, against the engine alone, given points that are Python lists already.

pytest benchmarks/bench_qdrant_export.py --benchmark-enable -s
VECDATASET_BENCH_ROWS=1000000 pytest benchmarks/bench_qdrant_export.py --benchmark-enable -s -k memory
"""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import vecdataset as vd
from benchmarks.conftest import ROWS, SIZE, points

edge = pytest.importorskip("qdrant_edge")


@pytest.fixture(scope="module")
def collection(tmp_path_factory, table):
    made = vd.create(str(tmp_path_factory.mktemp("export") / "c"), vectors=vd.VectorParams(SIZE))
    made.upsert(table)
    return made


def alone(folder, prepared):
    """The engine's own time for the same points, in the same batches."""
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(SIZE, edge.Distance.Cosine), wal_enabled=False)
    shard = edge.EdgeShard.create(str(folder), config)
    for batch in prepared:
        shard.update(edge.UpdateOperation.upsert_points([edge.Point(*p) for p in batch]))
    shard.flush()
    shard.close()


def test_export_of_100_000(benchmark, collection, table, tmp_path):
    """Wall and processor time: on a shared machine the second says what the work is."""
    rows = table.to_pylist()
    prepared = [
        [(r["id"], r["vector"], {k: r[k] for k in ("price", "name", "stock")}) for r in rows[s : s + 1000]]
        for s in range(0, ROWS, 1000)
    ]
    figures = []
    for attempt in range(3):
        started, cpu = time.perf_counter(), time.process_time()
        alone(tmp_path / f"alone{attempt}", prepared)
        engine = time.perf_counter() - started, time.process_time() - cpu
        started, cpu = time.perf_counter(), time.process_time()
        collection.export(str(tmp_path / "c.snapshot"))
        figures.append((*engine, time.perf_counter() - started, time.process_time() - cpu))
    engine_wall, engine_cpu, wall, cpu = np.median(figures, axis=0)
    benchmark.pedantic(lambda: None)
    print(
        f"\nexport: {ROWS / wall:,.0f} points/s wall, {ROWS / cpu:,.0f} a processor second; "
        f"the engine alone {ROWS / engine_wall:,.0f} and {ROWS / engine_cpu:,.0f}; "
        f"ratio {wall / engine_wall:.2f} and {cpu / engine_cpu:.2f}"
    )


def anonymous_bytes():
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' account of memory")
def test_memory_of_an_export(benchmark, tmp_path):
    """Peak of anonymous memory; mapped files are not counted."""
    rows = int(os.environ.get("VECDATASET_BENCH_ROWS", ROWS))
    made = vd.create(str(tmp_path / "c"), vectors=vd.VectorParams(SIZE))
    parts = [np.arange(s, min(rows, s + 50_000)) for s in range(0, rows, 50_000)]
    made.upsert(batch for ids in parts for batch in points(ids, seed=int(ids[0])).to_batches())
    del made
    collection = vd.open(str(tmp_path / "c"))
    peak, done, before = 0, threading.Event(), anonymous_bytes()

    def watch():
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    collection.export(str(tmp_path / "c.snapshot"))
    took = time.perf_counter() - started
    done.set()
    watcher.join()
    benchmark.pedantic(lambda: None)
    print(f"\n{rows:,} points in {took:.0f} s; anonymous: {before >> 20} MB before, {peak >> 20} MB at most")
