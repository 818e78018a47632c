"""What vecdataset adds to the engine beneath: each pair runs side by side, in turn, in one process.

A machine's speed drifts, so the figure is the ratio of medians of interleaved runs, printed at the
end; pytest-benchmark keeps the absolute times of each side.

    pytest benchmarks --benchmark-enable -p no:cacheprovider
"""

import itertools
import shutil
import statistics
import subprocess
import sys
import time

import lance
import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from benchmarks.conftest import SIZE, points

PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}


def interleaved(raw, ours, rounds):
    """Return median seconds of both, measured in turn after one warm-up."""
    raw(), ours()
    times = ([], [])
    for _ in range(rounds):
        for side, call in enumerate((raw, ours)):
            started = time.perf_counter()
            call()
            times[side].append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def report(benchmark, name, raw, ours, *, least=None, most=None):
    """Keep both times with the benchmark, and hold the ratio to its promise."""
    ratio = ours / raw
    benchmark.extra_info.update(raw_ms=raw * 1e3, ours_ms=ours * 1e3, time_ratio=ratio)
    print(
        f"\n{name}: raw {raw * 1e3:.2f} ms, vecdataset {ours * 1e3:.2f} ms, "
        f"time x{ratio:.2f}, speed x{1 / ratio:.2f}"
    )
    assert most is None or ratio <= most
    assert least is None or 1 / ratio >= least


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, table):
    collection = vd.create(tmp_path_factory.mktemp("indexed") / "c", vectors=vd.VectorParams(SIZE))
    collection.insert(table)
    collection.create_index("ivf_rq")
    return collection


def test_search(benchmark, indexed, queries):
    """One search: same index, same refine, id and three columns."""
    columns = ["price", "name", "stock"]
    dataset = indexed.to_lance()
    turn = itertools.cycle(range(len(queries)))
    plan = indexed.search(queries[0], columns=columns, explain=True).plan
    assert plan.index is not None
    probe = {k: v for k, v in plan.probe.items() if v is not None}

    def raw():
        dataset.to_table(
            columns=["id", *columns, "_distance"],
            nearest={"column": "vector", "q": queries[next(turn)], "k": 10, **probe},
            disable_scoring_autoprojection=True,
        )

    def ours():
        indexed.search(queries[next(turn)], columns=columns)

    a, b = interleaved(raw, ours, 400)
    benchmark.pedantic(ours, rounds=50)
    report(benchmark, "search", a, b, most=1.15)


def test_batch_search(benchmark, indexed, queries):
    """64 questions in one call against 64 calls."""
    a, b = interleaved(
        lambda: [indexed.search(q, columns=[]) for q in queries],
        lambda: indexed.search(queries, columns=[]),
        7,
    )
    benchmark.pedantic(lambda: indexed.search(queries, columns=[]), rounds=5)
    report(benchmark, "batch of 64 against one by one", a, b, most=1.0)


def test_bulk_load(benchmark, tmp_path, table):
    """100,000 x 128 into an empty collection against write_dataset."""

    def raw():
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        lance.write_dataset(table, str(tmp_path / "raw"))

    def ours():
        shutil.rmtree(tmp_path / "ours", ignore_errors=True)
        vd.create(tmp_path / "ours", vectors=vd.VectorParams(SIZE)).insert(table)

    a, b = interleaved(raw, ours, 9)
    benchmark.pedantic(ours, rounds=3)
    report(benchmark, "bulk load of 100,000", a, b, least=0.8)


def test_upsert(benchmark, tmp_path, table):
    """10,000 rows, all of them there, against raw merge_insert: into the same files, and into Lance's own."""
    patch = points(np.arange(50_000, 60_000), seed=3)
    schema = pa.schema(
        [pa.field("id", pa.uint64(), nullable=False, metadata=PRIMARY_KEY), *list(table.schema)[1:]]
    )
    own = lance.write_dataset(table.cast(schema), str(tmp_path / "raw"), schema=schema)
    collection, twin = (vd.create(tmp_path / name, vectors=vd.VectorParams(SIZE)) for name in ("c", "twin"))
    collection.insert(table)
    twin.insert(table)
    same = lance.dataset(twin.url)
    complete = patch.append_column("_extra", pa.nulls(len(patch), pa.string()))
    sources = {id(own): patch.cast(schema), id(same): complete.select(same.schema.names).cast(same.schema)}

    def raw(dataset):
        merge = dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.use_index(False).execute(sources[id(dataset)])

    def ours():
        collection.upsert(patch)

    a, b = interleaved(lambda: raw(same), ours, 21)
    c, d = interleaved(lambda: raw(own), ours, 21)
    benchmark.pedantic(ours, rounds=5)
    report(benchmark, "upsert of 10,000, into files that Lance wrote at once", c, d)
    report(benchmark, "upsert of 10,000, into the same files", a, b, least=0.8)


def test_small_commits_do_not_rot(benchmark, tmp_path):
    """The 401st upsert of one point, and a search, against the first."""
    collection = vd.create(tmp_path / "c", vectors=vd.VectorParams(SIZE))
    collection.insert(points(np.arange(10_000), seed=4))
    one = points(np.arange(401), seed=5)
    question = one["vector"][0].values.to_numpy()

    def upsert(i):
        started = time.perf_counter()
        collection.upsert(one.slice(i, 1))
        return time.perf_counter() - started

    def ask():
        started = time.perf_counter()
        collection.search(question, columns=[])
        return time.perf_counter() - started

    upserts, searches = [upsert(0)], [ask() for _ in range(9)]
    first_upserts = [upsert(i) for i in range(1, 10)]
    for i in range(10, 391):
        upsert(i)
    last_upserts = [upsert(i) for i in range(391, 401)]
    last_searches = [ask() for _ in range(9)]
    benchmark.pedantic(lambda: collection.search(question, columns=[]), rounds=5)
    report(
        benchmark,
        "upsert of one, 401st",
        statistics.median([*upserts, *first_upserts]),
        statistics.median(last_upserts),
        most=3,
    )
    report(
        benchmark,
        "search after 401 upserts",
        statistics.median(searches),
        statistics.median(last_searches),
        most=3,
    )


def started_in(code, rounds=9):
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, *code], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def test_import(benchmark):
    """`import vecdataset`, less the interpreter's own start."""
    nothing, package = started_in(["-c", "pass"]), started_in(["-c", "import vecdataset"])
    benchmark.pedantic(lambda: None)
    cost = package - nothing
    print(f"\nimport vecdataset: {cost * 1e3:.1f} ms")
    benchmark.extra_info["import_ms"] = cost * 1e3
    assert cost < 0.030


def test_help(benchmark):
    """`vecdataset --help`, the interpreter included."""
    took = started_in(["-m", "vecdataset.cli", "--help"])
    benchmark.pedantic(lambda: None)
    print(f"\nvecdataset --help: {took * 1e3:.0f} ms")
    benchmark.extra_info["help_ms"] = took * 1e3
    assert took < 0.250
