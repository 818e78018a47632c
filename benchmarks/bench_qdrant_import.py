"""Qdrant snapshots in: 100,000 points x 128, four payload keys, beside the engine's own scroll.

    python -m pytest benchmarks/bench_qdrant_import.py --benchmark-enable

Memory: python benchmarks/bench_qdrant_import.py, which imports 1,000,000 points (ten shards) in a process
of its own and prints the peak of its anonymous memory; mapped files do not count.
"""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

edge = pytest.importorskip("qdrant_edge")

from qdrant_snapshots import Archive, add_shard, collection_config, copy_sparse, make_shard  # noqa: E402

import vecdataset as vd  # noqa: E402

ROWS, SIZE = 100_000, 128
VECTORS = {"size": SIZE, "distance": "Dot"}
_number = itertools.count()


def one_shard(folder):
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((ROWS, SIZE), dtype=np.float32).tolist()
    points = (
        (i, matrix[i], {"lang": "en", "year": 1900 + i % 100, "price": i / 4, "tags": ["a", "b"]})
        for i in range(ROWS)
    )
    return make_shard(folder / "shard", points, VECTORS, wal=False)


class OnDisk(Archive):
    """An archive too large for memory."""

    def __init__(self, path):
        self.out = path.open("w+b")

    def end(self):
        self.out.write(bytes(1024))
        self.out.close()


def pack(shard, path, shards=1):
    """Pack a shard, or several with the same points under other ids: only the log of ids is changed."""
    archive = OnDisk(path)
    for number in range(shards):
        copy = shard.with_name(f"copy-{number}")
        copy_sparse(shard, copy)
        for log in copy.rglob("mutable_id_tracker.mappings"):
            records = np.fromfile(log, np.uint8).reshape(-1, 13).copy()
            ids = records[:, 1:9].copy().view("<u8") + number * ROWS
            records[:, 1:9] = ids.view(np.uint8)
            records.tofile(log)
        add_shard(archive, copy, f"{number}/", wal=False)
        shutil.rmtree(copy)
    archive.add("config.json", json.dumps(collection_config(VECTORS, shards=shards)).encode())
    archive.end()


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return one_shard(tmp_path_factory.mktemp("qdrant"))


@pytest.mark.benchmark(group="Qdrant in")
def test_scroll_of_the_engine(benchmark, shard, tmp_path):
    """The engine's own scroll with payload and vectors, whose Python values are never looked at."""
    copy_sparse(shard, tmp_path / "copy")
    loaded = edge.EdgeShard.load(str(tmp_path / "copy"))

    def scroll():
        count, offset = 0, None
        while True:
            page, offset = loaded.scroll(
                edge.ScrollRequest(offset=offset, limit=1_000, with_payload=True, with_vector=True)
            )
            count += len(page)
            if offset is None:
                return count

    assert benchmark.pedantic(scroll, rounds=3) == ROWS


@pytest.mark.benchmark(group="Qdrant in")
def test_import_of_a_snapshot(benchmark, shard, tmp_path):
    """Unpack, check, load, read, fit, merge: from the file to a commit."""
    pack(shard, tmp_path / "x.snapshot")

    def load():
        return vd.load(tmp_path / "x.snapshot", tmp_path / f"c{next(_number)}")

    assert len(benchmark.pedantic(load, rounds=3)) == ROWS


MEASURED = """
import re, sys, threading, time
import vecdataset as vd
peak = 0
def anonymous():
    with open("/proc/self/status") as file:
        return int(re.search(r"RssAnon:\\s+(\\d+)", file.read())[1])
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
began, used = time.perf_counter(), time.process_time()
count = len(vd.load(sys.argv[1], sys.argv[2]))
took, used = time.perf_counter() - began, time.process_time() - used
print(f"{count:,} points in {took:.1f} s ({count / took:,.0f}/s), CPU {used:.1f} s, "
      f"peak anonymous memory {peak / 1024:.0f} MB")
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        pack(one_shard(path), path / "x.snapshot", shards=10)
        subprocess.run(
            [sys.executable, "-c", MEASURED, str(path / "x.snapshot"), str(path / "c")], check=True
        )


if __name__ == "__main__":
    main()
