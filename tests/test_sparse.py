"""Sparse vectors and multivectors, against brute force."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdataset as vd
from vecdataset import postings
from vecdataset.schema import SPARSE_TYPE
from vecdataset.sparse import fit_sparse

VOCABULARY = 60


def fresh(**declared):
    return vd.create(f"memory://sparse-{time.time_ns()}/c", **declared)


def random_sparse(rng, *, most=8):
    n = int(rng.integers(1, most))
    return vd.SparseVector(rng.choice(VOCABULARY, n, replace=False), rng.standard_normal(n))


@pytest.fixture
def filled():
    rng = np.random.default_rng(1)
    vectors = {i: random_sparse(rng) for i in range(400) if i % 7}
    collection = fresh(
        vectors={"d": vd.VectorParams(2)},
        sparse={"plain": vd.SparseVectorParams(), "scaled": vd.SparseVectorParams(modifier="idf")},
    )
    collection.upsert(
        [
            {
                "id": i,
                "vector": {
                    "d": [1, i],
                    **({"plain": vectors[i], "scaled": vectors[i]} if i in vectors else {}),
                },
                "payload": {"n": i},
            }
            for i in range(400)
        ]
    )
    return collection, vectors


def brute(vectors, query, k, *, weight=lambda _: 1.0, allowed=lambda _: True):
    scored = []
    for i, vector in vectors.items():
        shared = np.intersect1d(vector.indices, query.indices)
        if len(shared) and allowed(i):
            a = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
            b = dict(zip(query.indices.tolist(), query.values.tolist(), strict=True))
            scored.append((sum(a[t] * b[t] * weight(t) for t in shared.tolist()), i))
    return sorted(scored, reverse=True)[:k]


def same(found, expected):
    np.testing.assert_allclose(found["score"].to_numpy(), [s for s, _ in expected], rtol=1e-5, atol=1e-6)
    assert found["id"].to_pylist() == [i for _, i in expected]


def test_top_k_is_exact(filled):
    collection, vectors = filled
    rng = np.random.default_rng(2)
    for _ in range(20):
        query = random_sparse(rng, most=12)

        same(collection.search(query, using="plain", limit=10), brute(vectors, query, 10))


def test_idf_scales_the_query_by_how_rare_its_terms_are(filled):
    collection, vectors = filled
    n = len(vectors)
    df = np.zeros(VOCABULARY)
    for vector in vectors.values():
        df[vector.indices] += 1

    def weight(t):
        return float(np.log((n - df[t] + 0.5) / (df[t] + 0.5) + 1))

    query = random_sparse(np.random.default_rng(3), most=12)

    same(collection.search(query, using="scaled", limit=10), brute(vectors, query, 10, weight=weight))


def test_filters_come_before_the_ranking(filled):
    collection, vectors = filled
    query = random_sparse(np.random.default_rng(4), most=12)

    found = collection.search(query, using="plain", limit=5, filter="n < 100")

    same(found, brute(vectors, query, 5, allowed=lambda i: i < 100))


def test_postings_follow_new_versions(filled, monkeypatch):
    collection, vectors = filled
    query = random_sparse(np.random.default_rng(5), most=12)
    reads = []
    build = postings.Block.build
    monkeypatch.setattr(postings.Block, "build", lambda batches: reads.append(1) or build(batches))
    collection.search(query, using="plain")
    assert len(reads) == 1
    gone = [i for _, i in brute(vectors, query, 3)]
    collection.delete(gone)
    for i in gone:
        del vectors[i]

    same(collection.search(query, using="plain", limit=10), brute(vectors, query, 10))
    assert len(reads) == 1, "a deletion reads no postings again"

    vectors[1] = vd.SparseVector(query.indices, np.full(len(query), 9.0))
    collection.update_vectors([{"id": 1, "vector": {"plain": vectors[1]}}])

    same(collection.search(query, using="plain", limit=10), brute(vectors, query, 10))
    pinned = collection.at(collection.version - 1)
    assert pinned.search(query, using="plain", limit=1)["score"][0].as_py() != pytest.approx(
        collection.search(query, using="plain", limit=1)["score"][0].as_py()
    )


def test_postings_that_do_not_fit_are_streamed(filled, monkeypatch):
    collection, vectors = filled
    monkeypatch.setattr(postings, "_CACHE", postings._Cache())
    monkeypatch.setattr(postings, "BLOCK_BYTES", 1)
    monkeypatch.setattr(postings, "BATCH_ROWS", 50)
    query = random_sparse(np.random.default_rng(6), most=12)

    same(collection.search(query, using="plain", limit=10), brute(vectors, query, 10))
    assert not postings._CACHE._kept


def test_hybrid_steps_take_sparse_prefetches(filled):
    collection, _ = filled
    query = random_sparse(np.random.default_rng(7), most=12)

    found = collection.query(
        {"fusion": "rrf"},
        prefetch=[
            {"query": query, "using": "plain", "limit": 20},
            {"query": [1, 5], "using": "d", "limit": 20},
        ],
    )

    assert len(found) == 10
    assert (np.diff(found["score"].to_numpy()) <= 0).all()


def test_examples_by_id_are_left_out(filled):
    collection, _ = filled

    assert 1 not in collection.recommend([1], using="plain", limit=400)["id"].to_pylist()


@pytest.mark.parametrize(
    ("indices", "values", "said"),
    [
        ([1, 2], [1.0], "2 indices and 1 values"),
        ([1, 1], [1.0, 2.0], "index 1 stands twice"),
        ([-1], [1.0], "no integer from 0"),
        ([1], [float("nan")], "NaN"),
        ([1.5], [1.0], "no integer"),
    ],
)
def test_what_is_no_sparse_vector_is_refused(filled, indices, values, said):
    collection, _ = filled
    before = collection.version

    with pytest.raises(vd.InvalidVectorError, match=said) as caught:
        collection.upsert([{"id": 5, "vector": {"plain": {"indices": indices, "values": values}}}])

    assert "point 5" in str(caught.value)
    assert collection.version == before


sparse_vectors = st.dictionaries(st.integers(0, 2**32 - 1), st.floats(-1e6, 1e6, width=32), max_size=8).map(
    lambda d: vd.SparseVector(list(d), list(d.values()))
)


@given(st.lists(st.none() | sparse_vectors, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_stored_vectors_come_back(vectors):
    stored = fit_sparse(vectors, "s", ids=None, where="a test")

    assert stored.type == SPARSE_TYPE
    back = [None if v is None else vd.SparseVector.parse(v) for v in stored.to_pylist()]
    assert back == vectors
    assert fit_sparse(stored, "s", ids=None, where="a test").equals(stored)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_from_dense_keeps_what_is_above_the_threshold(dense, threshold):
    vector = vd.SparseVector.from_dense(dense, threshold=threshold)

    expected = np.array([v if abs(v) > np.float32(threshold) else 0 for v in dense], np.float32)
    np.testing.assert_array_equal(vector.to_dense(len(dense)), expected)


@given(sparse_vectors, sparse_vectors)
@settings(max_examples=60, deadline=None)
def test_dot_norm_and_cosine_agree_with_dictionaries(a, b):
    left = dict(zip(a.indices.tolist(), a.values.astype(float).tolist(), strict=True))
    right = dict(zip(b.indices.tolist(), b.values.astype(float).tolist(), strict=True))
    dot = sum(v * right.get(i, 0.0) for i, v in left.items())

    assert a.dot(b) == pytest.approx(dot, rel=1e-9, abs=1e-6)
    assert a.norm() == pytest.approx(np.sqrt(sum(v * v for v in left.values())), rel=1e-9)
    assert -1.0 - 1e-9 <= a.cosine(b) <= 1.0 + 1e-9


def test_lists_that_are_out_of_order_are_sorted():
    lists = pa.array([{"indices": [5, 2], "values": [1.0, 2.0]}, None], SPARSE_TYPE)

    assert fit_sparse(lists, "s", ids=None, where="a test").to_pylist() == [
        {"indices": [2, 5], "values": [2.0, 1.0]},
        None,
    ]


# ------------------------------------------------------------------------------- SciPy


class Matrix:
    """2,000 points over 500 terms, in a collection and in a SciPy matrix of the same rows."""

    def __init__(self):
        sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
        self.rng = np.random.default_rng(31)
        self.rows = sparse.random_array(
            (2_000, 500), density=0.02, rng=self.rng, dtype=np.float32, format="lil",
            data_sampler=lambda size: self.rng.standard_normal(size).astype(np.float32),
        )  # fmt: skip
        self.there = np.ones(2_000, bool)
        declared = {"plain": vd.SparseVectorParams(), "scaled": vd.SparseVectorParams(modifier="idf")}
        self.collection = fresh(vectors={"d": vd.VectorParams(2)}, sparse=declared)
        self.upsert(range(2_000))

    def upsert(self, ids):
        rows = self.rows.tocsr()
        self.collection.upsert([
            {"id": int(i), "vector": dict.fromkeys(["plain", "scaled"], self.stored(rows[[i]])), "payload": {"n": int(i)}}
            for i in ids
        ])  # fmt: skip

    @staticmethod
    def stored(row):
        return vd.SparseVector(row.indices, row.data)

    def change(self):
        """Replace a hundred rows, and delete a hundred."""
        chosen = self.rng.choice(2_000, 200, replace=False)
        for i in chosen[:100]:
            self.rows[[i]] = self.rows[[(i + 1) % 2_000]] * self.rng.uniform(0.5, 2)
        self.upsert(chosen[:100])
        self.collection.delete(chosen[100:].tolist())
        self.there[chosen[:100]], self.there[chosen[100:]] = True, False

    def expected(self, query, *, idf, below):
        rows = self.rows.tocsr()
        alive = np.flatnonzero(self.there)
        matrix = rows[alive].tocsc()[:, query.indices].astype(np.float64)
        weights = query.values.astype(np.float64)
        if idf:
            df, n = np.diff(matrix.indptr), np.count_nonzero(np.diff(rows[alive].indptr))
            weights = weights * np.log((n - df + 0.5) / (df + 0.5) + 1)
        scores = matrix @ weights
        touched = (np.diff(matrix.tocsr().indptr) > 0) & (alive < below)
        order = np.lexsort((alive[touched], -scores[touched]))[:10]
        return alive[touched][order].tolist(), scores[touched][order]

    def check(self):
        for _ in range(4):
            query = vd.SparseVector(self.rng.choice(500, 12, replace=False), self.rng.standard_normal(12))
            for using, idf in (("plain", False), ("scaled", True)):
                for below in (2_000, 150):
                    found = self.collection.search(query, using=using, limit=10, filter=f"n < {below}")
                    ids, scores = self.expected(query, idf=idf, below=below)
                    assert found["id"].to_pylist() == ids
                    np.testing.assert_allclose(found["score"].to_numpy(), scores, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def matrix():
    return Matrix()


@pytest.mark.slow
def test_top_k_is_that_of_a_scipy_product_and_stays_so_as_points_change(matrix):
    matrix.check()
    for _ in range(3):
        matrix.change()
        matrix.check()
    matrix.collection.optimize()
    matrix.check()


def test_top_k_is_that_of_a_scipy_product(matrix):
    matrix.check()


def test_a_stream_of_small_blocks_gives_the_top_k_of_scipy(matrix, monkeypatch):
    monkeypatch.setattr(postings, "_CACHE", postings._Cache())
    monkeypatch.setattr(postings, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(postings, "BATCH_ROWS", 64)

    matrix.check()

    assert postings._CACHE._bytes < 20_000


# ------------------------------------------------------------------------ multivectors


def similarity(distance, q, d):
    if distance == "Dot":
        return q @ d
    if distance == "Cosine":
        return q @ d / (np.linalg.norm(q) * np.linalg.norm(d))
    return -((q - d) ** 2).sum() if distance == "Euclid" else -np.abs(q - d).sum()


@pytest.mark.parametrize("distance", ["Cosine", "Dot", "Euclid", "Manhattan"])
def test_maxsim_sums_the_best_of_each_query_vector(distance):
    rng = np.random.default_rng(8)
    points = {i: rng.standard_normal((int(rng.integers(1, 5)), 6)).astype(np.float32) for i in range(150)}
    collection = fresh(vectors=vd.VectorParams(6, distance, multivector=True))
    collection.upsert([{"id": i, "vector": m, "payload": {"n": i}} for i, m in points.items()])
    query = rng.standard_normal((3, 6)).astype(np.float32)

    found = collection.search(query, limit=10, filter="n >= 50")

    inner = {
        i: sum(max(similarity(distance, q.astype(float), d.astype(float)) for d in m) for q in query)
        for i, m in points.items()
        if i >= 50
    }
    best = sorted(inner, key=lambda i: -inner[i])[:10]
    shown = {"Euclid": lambda s: np.sqrt(abs(s)), "Manhattan": abs}.get(distance, lambda s: s)
    assert found["id"].to_pylist() == best
    np.testing.assert_allclose(found["score"].to_numpy(), [shown(inner[i]) for i in best], rtol=1e-5)


def test_multivectors_come_back_as_they_were():
    collection = fresh(vectors=vd.VectorParams(2, "Dot", multivector=True))
    collection.upsert([{"id": 1, "vector": [[1, 2], [3, 4]]}, {"id": 2, "vector": None, "payload": {"a": 1}}])

    assert collection.get([1, 2], with_vectors=True).to_pylist(layout="qdrant") == [
        {"id": 1, "vector": [[1.0, 2.0], [3.0, 4.0]], "payload": {}},
        {"id": 2, "vector": None, "payload": {"a": 1}},
    ]


@pytest.mark.parametrize("wrong", [[], [[1, 2], [3]], [[1, float("inf")]]])
def test_what_is_no_multivector_is_refused(wrong):
    collection = fresh(vectors=vd.VectorParams(2, "Dot", multivector=True), id_type="uint64")
    before = collection.version

    with pytest.raises(vd.InvalidVectorError, match="point 7"):
        collection.upsert([{"id": 7, "vector": wrong}])

    assert collection.version == before


def test_optimize_builds_no_index_over_multivectors():
    rng = np.random.default_rng(9)
    collection = fresh(vectors=vd.VectorParams(4, multivector=True), indexing_threshold=10)
    collection.upsert([{"id": i, "vector": rng.standard_normal((2, 4))} for i in range(20)])

    assert [i.on for i in collection.optimize().indexes] == ["id"]


def test_filters_know_which_vectors_are_there_even_row_by_row():
    collection = fresh(vectors={"a": vd.VectorParams(2), "b": vd.VectorParams(2)})
    collection.upsert(
        [
            {"id": i, "vector": {"a": [1, i], **({"b": [i, 1]} if i % 2 else {})}, "payload": {"o": {"n": i}}}
            for i in range(20)
        ]
    )
    with_b_and_large = {"must": [{"has_vector": "b"}, {"key": "o.n", "range": {"gte": 10}}]}
    without_b_or_large = {
        "should": [{"must_not": [{"has_vector": "b"}]}, {"key": "o.n", "range": {"gte": 10}}]
    }

    assert collection.scroll(filter=with_b_and_large)["id"].to_pylist() == [11, 13, 15, 17, 19]
    assert collection.count(without_b_or_large) == 15
