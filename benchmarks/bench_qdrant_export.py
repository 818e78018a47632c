"""Exports to Qdrant snapshots, against the engine alone, given points that are Python lists already.

pytest benchmarks/bench_qdrant_export.py --benchmark-enable -s
VECDATASET_BENCH_ROWS=1000000 pytest benchmarks/bench_qdrant_export.py --benchmark-enable -s -k memory
"""

import os
import subprocess
import sys
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


MEASURED = """
import re, sys, threading, time
import vecdataset as vd
peak = 0
def watch():
    global peak
    while True:
        with open("/proc/self/status") as file:
            peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", file.read())[1]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
collection = vd.open(sys.argv[1])
began = time.perf_counter()
collection.export(sys.argv[2])
took = time.perf_counter() - began
print(f"{len(collection):,} points in {took:.1f} s ({len(collection) / took:,.0f}/s), "
      f"peak anonymous memory {peak / 1024:.0f} MB")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' account of memory")
def test_memory_of_an_export(benchmark, tmp_path):
    """Peak of anonymous memory of a process that does nothing else; mapped files are not counted."""
    rows = int(os.environ.get("VECDATASET_BENCH_ROWS", ROWS))
    made = vd.create(str(tmp_path / "c"), vectors=vd.VectorParams(SIZE))
    parts = [np.arange(s, min(rows, s + 50_000)) for s in range(0, rows, 50_000)]
    made.upsert(batch for ids in parts for batch in points(ids, seed=int(ids[0])).to_batches())
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "c"), str(tmp_path / "c.snapshot")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    benchmark.pedantic(lambda: None)
    print(f"\n{done.stdout.strip()}")
    assert int(done.stdout.split()[-2]) < 500
