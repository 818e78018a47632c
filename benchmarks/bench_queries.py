"""Query kinds against the plain searches they are made of.

pytest benchmarks/bench_queries.py --benchmark-enable -s
"""

import itertools
import statistics
import time

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from benchmarks.bench_overhead import interleaved, report
from benchmarks.conftest import SIZE
from vecdataset.schema import SPARSE_TYPE

NONZERO, VOCABULARY = 100, 30_000


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, table):
    collection = vd.create(tmp_path_factory.mktemp("queries") / "c", vectors=vd.VectorParams(SIZE))
    collection.insert(table)
    collection.optimize()  # an index of the vectors, ivf_rq, and one of the ids
    return collection


def test_recommend_by_average(benchmark, indexed, queries):
    """The mean of three stored vectors, others each time, against one nearest search to a stored vector.

    Both look up what they are given by id. Against a search to a given vector it is shown, not held:
    a third of it is that look-up, one call of Lance.
    """
    turn, ids, id = itertools.cycle(range(len(queries))), itertools.count(1, 3), itertools.count(1, 3)

    def average():
        first = next(ids)
        indexed.recommend([first, first + 1], [first + 2], columns=[])

    a, b = interleaved(lambda: indexed.search(queries[next(turn)], columns=[]), average, 100)
    report(benchmark, "recommend, average_vector, examples by id, against a given vector", a, b)
    a, b = interleaved(lambda: indexed.search(vd.Id(next(id)), columns=[]), average, 200)
    benchmark.pedantic(average, rounds=5)
    report(benchmark, "recommend, average_vector, examples by id, against a search by id", a, b, most=1.3)


def test_recommend_by_average_of_given_vectors(benchmark, indexed, queries):
    """The same where the examples are vectors: nothing is looked up."""
    turn = itertools.cycle(range(len(queries)))

    def average():
        at = next(turn)
        indexed.recommend([queries[at], queries[at - 1]], [queries[at - 2]], columns=[])

    a, b = interleaved(lambda: indexed.search(queries[next(turn)], columns=[]), average, 200)
    benchmark.pedantic(average, rounds=5)
    report(benchmark, "recommend, average_vector, examples given", a, b, most=1.3)


@pytest.mark.parametrize("kind", ["best_score", "sum_scores", "discover", "context"])
def test_scoring_every_match(benchmark, indexed, queries, kind):
    """Two to four examples against one exact scan of the same points."""
    run = {
        "best_score": lambda: indexed.recommend([1, 2], [3], strategy="best_score", columns=[]),
        "sum_scores": lambda: indexed.recommend([1, 2], [3], strategy="sum_scores", columns=[]),
        "discover": lambda: indexed.discover(1, [(2, 3)], columns=[]),
        "context": lambda: indexed.context([(2, 3)], columns=[]),
    }[kind]
    a, b = interleaved(lambda: indexed.search(queries[0], exact=True, columns=[]), run, 15)
    benchmark.pedantic(run, rounds=3)
    report(benchmark, kind, a, b, most=1.3)


@pytest.mark.parametrize(("exact", "most"), [(False, 0.5), (True, 0.2)], ids=["index", "exact"])
def test_batch_with_a_filter(benchmark, indexed, exact, most):
    """100 questions that share a filter in one call against 100 calls."""
    questions = np.random.default_rng(5).standard_normal((100, SIZE)).astype(np.float32)

    def one_by_one():
        for q in questions[: 10 if exact else 100]:
            indexed.search(q, filter="price < 0.5", columns=[], exact=exact)

    def batch():
        indexed.search(questions[: 10 if exact else 100], filter="price < 0.5", columns=[], exact=exact)

    a, b = interleaved(one_by_one, batch, 3)
    benchmark.pedantic(batch, rounds=2)
    report(benchmark, f"batch with a filter, {'exact' if exact else 'index'}", a, b, most=most)


def test_sparse(benchmark, tmp_path):
    """Top 10 of 100,000 points of 100 terms each, queries of 30 and 100 terms."""
    rng = np.random.default_rng(6)
    rows = 100_000
    terms = np.sort(np.array([rng.choice(VOCABULARY, NONZERO, replace=False) for _ in range(rows)]), axis=1)
    offsets = pa.array(np.arange(0, rows * NONZERO + 1, NONZERO, dtype=np.int32))
    values = rng.random(rows * NONZERO, dtype=np.float32)
    stored = pa.StructArray.from_arrays(
        [
            pa.ListArray.from_arrays(offsets, pa.array(terms.reshape(-1).astype(np.uint32))),
            pa.ListArray.from_arrays(offsets, pa.array(values)),
        ],
        fields=list(SPARSE_TYPE),
    )
    collection = vd.create(tmp_path / "c", vectors=vd.VectorParams(2), sparse={"s": vd.SparseVectorParams()})
    collection.insert(pa.table({"id": pa.array(np.arange(rows), pa.uint64()), "s__vector": stored}))
    for terms_asked in (30, 100):
        asked = [
            vd.SparseVector(rng.choice(VOCABULARY, terms_asked, replace=False), rng.random(terms_asked))
            for _ in range(60)
        ]
        times = []
        for query in asked:
            started = time.perf_counter()
            collection.search(query, using="s", columns=[])
            times.append(time.perf_counter() - started)
        took = statistics.median(times)
        print(f"\nsparse top 10, {terms_asked} terms: {took * 1e3:.2f} ms")
        assert took < 0.002
    benchmark.pedantic(lambda: collection.search(asked[0], using="s", columns=[]), rounds=5)
