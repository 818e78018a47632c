"""A handle that holds its collection in memory against the same one on disk; and filters as masks.

    pytest benchmarks/bench_warm.py --benchmark-enable -s -p no:cacheprovider

Each pair of searches runs in turn in one process; the ratio of the medians is the figure.
"""

import itertools
import statistics
import time

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from benchmarks.bench_overhead import interleaved, report
from vecdataset.filters import Filter
from vecdataset.filters.masks import MaskRows
from vecdataset.schema import PayloadColumn

SHAPES = {"20,000 x 384": (20_000, 384), "100,000 x 128": (100_000, 128)}
MASK_ROWS = 100_000


def payload(rows, rng):
    return {
        "id": pa.array(np.arange(rows), pa.uint64()),
        "lang": rng.choice([f"l{n}" for n in range(20)], rows),
        "price": rng.random(rows),
        "stock": pa.array(rng.integers(0, 1000, rows), mask=rng.random(rows) < 0.1),
        "tags": pa.array([[f"t{t}" for t in rng.integers(0, 50, rng.integers(0, 6))] for _ in range(rows)]),
        "name": [f"item {n}" for n in range(rows)],
    }


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """The shape, two handles on one collection, and questions; without an index until a test builds one."""
    rows, size = SHAPES[request.param]
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((256, size)).astype(np.float32)
    vectors = centres[rng.integers(0, 256, rows)] + 0.4 * rng.standard_normal((rows, size), dtype=np.float32)
    cold = vd.create(tmp_path_factory.mktemp("warm") / "c", vectors=vd.VectorParams(size))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size)
    cold.insert(pa.table({**payload(rows, rng), "vector": column}))
    warm = vd.open(cold.url)
    warm.warm()
    queries = centres[rng.integers(0, 256, 64)] + 0.4 * rng.standard_normal((64, size), dtype=np.float32)
    return request.param, cold, warm, queries


FILTERS = {
    "no filter": None,
    "a keyword": "lang = 'l3'",
    "a conjunction": {
        "must": [{"key": "lang", "match": {"value": "l3"}}, {"key": "price", "range": {"lt": 0.1}}]
    },
}


@pytest.mark.parametrize("filtered", FILTERS)
def test_exact_search(benchmark, pair, filtered):
    """One question, id and score, every row compared: from disk against from memory."""
    name, cold, warm, queries = pair
    turn = itertools.cycle(queries)
    options = {"filter": FILTERS[filtered], "columns": [], "exact": True}
    a, b = interleaved(
        lambda: cold.search(next(turn), **options), lambda: warm.search(next(turn), **options), 25
    )
    benchmark.pedantic(lambda: warm.search(next(turn), **options), rounds=5)
    report(benchmark, f"{name}, exact, {filtered}", a, b, most=0.9)


def test_batch(benchmark, pair):
    """64 questions in one call."""
    name, cold, warm, queries = pair
    a, b = interleaved(
        lambda: cold.search(queries, columns=[], exact=True),
        lambda: warm.search(queries, columns=[], exact=True),
        3,
    )
    benchmark.pedantic(lambda: warm.search(queries, columns=[], exact=True), rounds=2)
    report(benchmark, f"{name}, exact, 64 questions", a, b, most=1.1)


def test_payload_and_pages(benchmark, pair):
    """What else a handle does: points by id, counts, and pages of a filter."""
    name, cold, warm, _ = pair
    calls = {
        "get of 10 points": lambda c: c.get(list(range(7, 1_000, 100))),
        "count of a filter": lambda c: c.count("lang = 'l3' AND stock >= 500"),
        "page of 10 of a filter": lambda c: c.scroll(filter="lang = 'l3' AND stock >= 500"),
    }
    for what, call in calls.items():
        a, b = interleaved(lambda call=call: call(cold), lambda call=call: call(warm), 25)
        report(benchmark, f"{name}, {what}", a, b)
    benchmark.pedantic(lambda: calls["count of a filter"](warm), rounds=5)


def test_after_a_commit(benchmark, pair):
    """The first search after an upsert of ten points, which brings the memory up to the version."""
    name, cold, warm, queries = pair

    def first(handle):
        started = time.perf_counter()
        handle.search(queries[0], columns=[], exact=True)
        return time.perf_counter() - started

    times = ([], [])
    for turn in range(12):
        cold.set_payload({"price": 0.5}, ids=list(range(turn * 10, turn * 10 + 10)))
        times[0].append(first(cold))
        times[1].append(first(warm))
    a, b = map(statistics.median, times)
    benchmark.pedantic(lambda: first(warm), rounds=2)
    report(benchmark, f"{name}, the first search after a commit", a, b)


@pytest.mark.parametrize("filtered", FILTERS)
def test_against_an_index(benchmark, pair, filtered):
    """The same search, with an index there: memory compares all, or hands the index its mask."""
    name, cold, warm, queries = pair
    if not any(i.kind == "ivf_rq" for i in cold.indexes):
        cold.create_index("ivf_rq")
    turn = itertools.cycle(queries)
    options = {"filter": FILTERS[filtered], "columns": []}
    plan = warm.search(queries[0], **options, explain=True).plan
    a, b = interleaved(
        lambda: cold.search(next(turn), **options), lambda: warm.search(next(turn), **options), 50
    )
    benchmark.pedantic(lambda: warm.search(next(turn), **options), rounds=5)
    report(benchmark, f"{name}, {filtered}, {'index' if plan.index else 'in memory'} against the index", a, b)


@pytest.mark.parametrize("filtered", ["no filter", "half of the rows"])
def test_graph(benchmark, pair, filtered):
    """A graph in memory against the index on disk, and what share of the true neighbours each finds."""
    pytest.importorskip("usearch")
    name, cold, _, queries = pair
    if not any(i.kind == "ivf_rq" for i in cold.indexes):
        cold.create_index("ivf_rq")
    handle = GRAPHS.get(name)
    if handle is None:
        handle = GRAPHS[name] = vd.open(cold.url)
        started = time.perf_counter()
        handle.warm(graph=True)
        print(f"\n{name}: warm with a graph takes {time.perf_counter() - started:.1f} s")
    turn = itertools.cycle(queries)
    options = {"filter": None if filtered == "no filter" else "price < 0.5", "columns": []}
    plan = handle.search(queries[0], **options, explain=True).plan
    a, b = interleaved(
        lambda: cold.search(next(turn), **options), lambda: handle.search(next(turn), **options), 100
    )
    benchmark.pedantic(lambda: handle.search(next(turn), **options), rounds=5)
    found = [float(c.recall(10, 100, filter=options["filter"])) for c in (cold, handle)]
    print(f"\n{name}, {filtered}: {plan.index}, recall {found[0]:.3f} and {found[1]:.3f}")
    report(benchmark, f"{name}, {filtered}, a graph against the index", a, b)


GRAPHS = {}


def test_warming(benchmark, pair):
    """Reading it all."""
    name, cold, _, _ = pair
    handle = vd.open(cold.url)
    benchmark.pedantic(handle.warm, rounds=3)
    held = handle.info().held
    print(f"\n{name}: {held.size_bytes / 1e6:.0f} MB")


# --------------------------------------------------------------------------------- masks

MASKS = {
    "equality on a keyword": "lang = 'l3'",
    "range on a number": "price >= 0.1 AND price < 0.2",
    "range on integers with nulls": {"must": [{"key": "stock", "range": {"gt": 500}}]},
    "conjunction of three": "lang = 'l3' AND price < 0.5 AND stock >= 300",
    "array membership": {"must": [{"key": "tags", "match": {"value": "t7"}}]},
    "array membership, two values": {"must": [{"key": "tags", "match": {"any": ["t7", "t8"]}}]},
    "negated disjunction": "NOT (lang = 'l3' OR stock < 10)",
    "words of a text": {"must": [{"key": "name", "match": {"text": "item 77"}}]},
}


@pytest.fixture(scope="module")
def rows():
    table = pa.table(payload(MASK_ROWS, np.random.default_rng(4)))
    columns = {f.name: PayloadColumn(name=f.name, type=f.type) for f in table.schema}
    return MaskRows(table, columns=columns, extra_keys=(), id_type="uint64", vectors={}, keep=True)


@pytest.mark.parametrize("name", MASKS)
def test_mask(benchmark, rows, name):
    """A filter over 100,000 rows whose columns are in memory, once it has been asked before."""
    node = Filter(MASKS[name]).node
    rows.mask(node)
    times = []
    for _ in range(100):
        started = time.perf_counter()
        found = rows.mask(node)
        times.append(time.perf_counter() - started)
    took = statistics.median(times)
    benchmark.pedantic(lambda: rows.mask(node), rounds=20)
    print(f"\nmask, {name}: {took * 1e6:.0f} us, {int(found.sum()):,} rows match")
    assert took < 0.001
