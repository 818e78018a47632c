"""Remote storage: a stand-in of 20 ms and 50 MB/s behind the bridge, against a local disk.

pytest benchmarks/bench_storage.py --benchmark-enable -s
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vecdataset as vd
from benchmarks import distant
from benchmarks.bench_overhead import interleaved, report
from vecdataset.storage.bridge.route import _opened

ROOT = Path(__file__).parent.parent
SIZE = 128

FRESH = """
import json, sys, time
import lance, pyarrow, numpy, fsspec
import vecdataset as vd, vecdataset.engine, vecdataset.collection, vecdataset.opening
from vecdataset.storage.bridge import route
from benchmarks import distant
distant.register()
url, cache, queries = sys.argv[1], sys.argv[2], numpy.load(sys.argv[3])
times = []
started = time.perf_counter()
books = vd.open(url, storage_options={"cache": cache})
opened = time.perf_counter()
books.search(queries[0], limit=10)
ended = time.perf_counter()
store = route._opened(books._reader.table.location)[0].store
print(json.dumps({"open": opened - started, "search": ended - opened, "total": ended - started,
                  "calls": dict(store.counts)}))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory, table, queries):
    """The same indexed collection on the disk, and its folder; the cache is filled by 64 questions."""
    distant.register()
    folder = tmp_path_factory.mktemp("distant")
    books = vd.create(folder / "books", vectors=vd.VectorParams(SIZE, "Cosine"))
    books.insert(table)
    books.create_index("ivf_pq", num_partitions=64, num_sub_vectors=16)
    options = {"cache": str(folder / "blocks")}
    there = vd.open(f"distant://{folder}/books", storage_options=options)
    for query in queries:
        there.search(query, limit=10)
    np.save(folder / "queries.npy", queries)
    return folder, options, there


def test_warm_cache_search_against_local_cold_search(benchmark, places, queries):
    folder, _, there = places
    turn = iter(np.tile(queries, (10, 1)))

    def cold():
        vd.open(folder / "books").search(next(turn), limit=10)

    def warm():
        there.search(next(turn), limit=10)

    report(benchmark, "local cold, warm cache", *interleaved(cold, warm, rounds=40))
    benchmark.pedantic(lambda: None)


def fresh(folder, cache):
    arguments = [f"distant://{folder}/books", cache, folder / "queries.npy"]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)


def test_first_search_of_a_fresh_process(benchmark, places):
    folder, options, _ = places
    told = [fresh(folder, options["cache"]) for _ in range(5)]
    benchmark.pedantic(lambda: None)
    best = sorted(told, key=lambda t: t["total"])[2]
    print(f"\nfresh process, filled cache: open {best['open'] * 1e3:.0f} ms, "
          f"search {best['search'] * 1e3:.0f} ms, "
          f"together {best['total'] * 1e3:.0f} ms; {best['calls']}")  # fmt: skip
    shutil.rmtree(options["cache"])
    cold = fresh(folder, options["cache"])
    print(f"fresh process, empty cache: {cold['total'] * 1e3:.0f} ms; {cold['calls']}")


def test_bytes_and_requests_of_a_search(benchmark, places, queries):
    folder, options, _ = places
    for cache in (False, options["cache"]):
        books = vd.open(f"distant://{folder}/books", storage_options={"cache": cache}, max_staleness_s=1e9)
        gateway = _opened(books._reader.table.location)[0]
        for query in queries[:5]:
            books.search(query, limit=10)
        asked, counts = gateway.requests, gateway.store.counts.copy()
        started = time.perf_counter()
        for query in queries[5:45]:
            books.search(query, limit=10)
        took = (time.perf_counter() - started) / 40
        calls = gateway.store.counts - counts
        print(f"\ncache {bool(cache)}: {took * 1e3:.0f} ms a search; "
              f"{(gateway.requests - asked) / 40:.1f} requests of Lance, "
              f"{(calls['read'] + calls['info']) / 40:.1f} of the store, "
              f"{calls['bytes_read'] / 40 / 1e3:.0f} kB")  # fmt: skip
    benchmark.pedantic(lambda: None)


@pytest.mark.parametrize("rows", [100_000, 1_000_000])
def test_scan_by_the_bridge_against_native(benchmark, tmp_path, rows):
    vectors = np.random.default_rng(3).random((rows, SIZE), np.float32)
    vd.create(tmp_path / "books", vectors=vd.VectorParams(SIZE)).insert((np.arange(rows), vectors))
    native = vd.open(tmp_path / "books")
    bridged = vd.open(f"fsspec+file://{tmp_path}/books")

    times = interleaved(
        lambda: sum(b.num_rows for b in native.scan()),
        lambda: sum(b.num_rows for b in bridged.scan()),
        rounds=31 if rows < 1_000_000 else 9,
    )
    report(benchmark, f"scan of {rows:,}, native and bridge", *times)
    benchmark.pedantic(lambda: None)


def test_checkout_against_a_plain_copy(benchmark, places, tmp_path):
    folder, _, there = places
    turn = iter(range(100))
    books = vd.open(folder / "books")

    def plain():
        shutil.copytree(folder / "books", tmp_path / f"plain-{next(turn)}")

    def ours():
        books.checkout(tmp_path / f"work-{next(turn)}")

    report(benchmark, "plain copy, checkout", *interleaved(plain, ours, rounds=9))
    started = time.perf_counter()
    work = there.checkout(tmp_path / "work", progress=None)
    print(f"checkout from afar: {time.perf_counter() - started:.2f} s")
    benchmark.pedantic(lambda: None)
    work.close()


def test_publishing_a_commit_against_making_it_there(benchmark, places, tmp_path):
    folder, _, _ = places
    origin = vd.open(folder / "books").checkout(f"distant://{tmp_path}/there")
    work = origin.checkout(tmp_path / "work")
    vectors = np.random.default_rng(4).random((1_000, SIZE), np.float32)
    turn = iter(range(1_000_000, 2_000_000, 1_000))

    def there():
        vd.open(f"distant://{tmp_path}/there").upsert((next(turn) + np.arange(1_000), vectors))
        origin.checkout(tmp_path / "work")

    def here():
        work.upsert((next(turn) + np.arange(1_000), vectors))
        work.publish()

    raw, ours = [], []
    for _ in range(5):
        for call, times in ((there, raw), (here, ours)):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    print(f"\nupsert of 1,000 there and brought here {np.median(raw) * 1e3:.0f} ms, "
          f"here and published {np.median(ours) * 1e3:.0f} ms")  # fmt: skip
    benchmark.pedantic(lambda: None)


def test_requests_of_open(benchmark, places):
    folder, _, _ = places
    probe = vd.open(f"distant://{folder}/books", storage_options={"cache": False})
    gateway = _opened(probe._reader.table.location)[0]
    asked, calls = gateway.requests, sum(gateway.store.counts[k] for k in ("info", "list", "read"))
    vd.open(f"distant://{folder}/books", storage_options={"cache": False})
    benchmark.pedantic(lambda: None)
    told = sum(gateway.store.counts[k] for k in ("info", "list", "read")) - calls
    print(f"\nopen: {gateway.requests - asked} requests of Lance, {told} of the filesystem")
    assert re.match("distant", probe.url)
