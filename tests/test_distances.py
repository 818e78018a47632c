"""Scores and distances agree with NumPy in float64, whatever finds the points.

Exact searches differ from NumPy by the float32 of the answer alone. An index adds its own
arithmetic: float32 for float32 vectors; for float16 ones Lance also rounds the query to
float16, which is a relative 2^-11 of the lengths of query and vector.
"""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset.indexes import kinds

ROWS = 300
SIZE = 16
METRICS = ["Cosine", "Dot", "Euclid", "Manhattan"]
KINDS = [kind.name for kind in kinds]
STORED_AS = {"float32": np.float32, "float16": np.float16, "uint8": np.float16, "int8": np.float16}
EXACT = 1e-6
INDEXED = {"float32": 1e-5, "float16": 2e-3, "uint8": 2e-3, "int8": 2e-3}


def numpy_distances(metric, queries, vectors):
    """Float64 `[queries, vectors]`, by the definitions and nothing clever."""
    queries, vectors = np.asarray(queries, np.float32).astype(float), np.asarray(vectors).astype(float)
    differences = queries[:, None, :] - vectors[None, :, :]
    if metric == "Euclid":
        return np.sqrt((differences**2).sum(axis=-1))
    if metric == "Manhattan":
        return np.abs(differences).sum(axis=-1)
    dots = (queries[:, None, :] * vectors[None, :, :]).sum(axis=-1)
    if metric == "Dot":
        return -dots
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[None, :]
    return 1 - np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)


def numpy_score(metric, distance):
    return {"Cosine": 1 - distance, "Dot": -distance}.get(metric, distance)


def scale(metric, queries, vectors):
    """How large the terms of a distance are: what rounding is relative to."""
    if metric == "Cosine":
        return 1.0
    lengths = [np.linalg.norm(np.asarray(m, float), axis=1).max() for m in (queries, vectors)]
    return 1 + (lengths[0] * lengths[1] if metric == "Dot" else np.sqrt(SIZE) * sum(lengths))


def collection_of(vectors, *, metric, datatype="float32", kind=None, **options):
    size = next(len(v) for v in vectors if v is not None)
    made = vd.create(
        f"memory://distances/{uuid.uuid4()}",
        vectors=vd.VectorParams(size=size, distance=metric, datatype=datatype),
        full_scan_threshold=0,
    )
    made.upsert([vd.Point(i, v, {"even": i % 2 == 0}) for i, v in enumerate(vectors)])
    if kind is not None:
        made.create_index(kind, **options)
    return made


def random_vectors(datatype, *, size=SIZE, rows=ROWS, zeros=False):
    rng = np.random.default_rng(11)
    if datatype in ("uint8", "int8"):
        low, high = (0, 256) if datatype == "uint8" else (-128, 128)
        vectors = rng.integers(low, high, (rows, size)).astype(np.float16)
    else:
        vectors = rng.normal(size=(rows, size)).astype(STORED_AS[datatype])
        vectors[5] = vectors[6]
        vectors[7] *= 30
        vectors[8] /= 30
    if zeros:
        vectors[[0, 40]] = 0
    return vectors


def questions(vectors):
    rng = np.random.default_rng(12)
    return np.stack([*rng.normal(size=(3, vectors.shape[1])), vectors[6]]).astype(np.float32)


def assert_agrees(found, queries, vectors, metric, tolerance, *, limit):
    """Every hit has NumPy's distance and score, and they are the nearest, nearest first."""
    truth = numpy_distances(metric, queries, vectors)
    allowed = tolerance * scale(metric, queries, vectors)
    for at, own in enumerate(truth):
        hits = [h for h in found.to_pylist() if h["query_index"] == at]
        distance = np.array([h["_distance"] for h in hits])
        expected = own[[h["id"] for h in hits]]
        assert len({h["id"] for h in hits}) == len(hits) == min(limit, len(vectors))
        np.testing.assert_allclose(distance, expected, rtol=0, atol=allowed)
        np.testing.assert_allclose(
            [h["score"] for h in hits], numpy_score(metric, expected), rtol=0, atol=allowed
        )
        np.testing.assert_allclose(expected, np.sort(own)[:limit], rtol=0, atol=2 * allowed)
        assert (np.diff(distance) >= 0).all()


# -------------------------------------------------------------------------------- exactly


@pytest.mark.parametrize("datatype", STORED_AS)
@pytest.mark.parametrize("metric", METRICS)
def test_an_exact_search_agrees_with_numpy(metric, datatype):
    vectors = random_vectors(datatype, zeros=True)
    queries = np.vstack([questions(vectors), np.zeros(SIZE)])
    exact = collection_of(vectors, metric=metric, datatype=datatype)

    for limit in (10, ROWS):
        found = exact.search(queries, limit=limit, exact=True)
        assert_agrees(found, queries, vectors, metric, EXACT, limit=limit)


@pytest.mark.parametrize("metric", METRICS)
def test_a_single_query_is_a_batch_of_one(metric):
    vectors = random_vectors("float32", zeros=True)
    exact = collection_of(vectors, metric=metric)
    queries = questions(vectors)

    batch = exact.search(queries, limit=7).to_arrow()

    for at, query in enumerate(queries):
        single = exact.search(query, limit=7).to_arrow()
        own = batch.filter(pa.array(batch["query_index"].to_numpy() == at))
        assert single["query_index"].to_pylist() == [0] * 7
        assert single.drop_columns("query_index").equals(own.drop_columns("query_index"))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 33, 257])
@pytest.mark.parametrize("metric", METRICS)
def test_any_size_agrees_with_numpy(metric, size):
    vectors = random_vectors("float32", size=size, rows=50)
    queries = questions(vectors)

    found = collection_of(vectors, metric=metric).search(queries, limit=10)

    assert_agrees(found, queries, vectors, metric, 3 * EXACT, limit=10)


@pytest.mark.parametrize("magnitude", [1e-30, 1e-15, 1e15, 1e30])
@pytest.mark.parametrize("metric", ["Cosine", "Euclid", "Manhattan"])
def test_very_small_and_very_large_vectors_keep_their_order(metric, magnitude):
    vectors = (random_vectors("float32", rows=40) * np.float32(magnitude)).astype(np.float32)
    queries = vectors[[6, 9]]

    found = collection_of(vectors, metric=metric).search(queries, limit=10, exact=True).to_pylist()

    for at, own in enumerate(numpy_distances(metric, queries, vectors)):
        hits = [h["_distance"] for h in found if h["query_index"] == at]
        np.testing.assert_allclose(hits, np.sort(own)[:10], rtol=1e-5, atol=1e-6 * own.max())


@pytest.mark.parametrize("metric", METRICS)
def test_a_distance_beyond_float32_is_infinite_and_no_warning(metric):
    vectors = np.array([[3e38] * 8, [1] * 8, [-3e38] * 8], np.float32)

    found = collection_of(vectors, metric=metric).search([3e38] * 8, exact=True).to_pylist()

    assert [h["id"] for h in found] == [0, 1, 2]


def test_vectors_whose_squares_leave_float32_are_compared_all_the_same():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 8)) * 10.0 ** rng.integers(-36, 37, 60)[:, None]
    vectors = vectors.astype(np.float32)
    query = rng.normal(size=8)

    found = collection_of(vectors, metric="Cosine").search(query, limit=60, exact=True)

    own = numpy_distances("Cosine", [query], vectors)[0]
    np.testing.assert_allclose(found["_distance"].to_numpy(), np.sort(own), atol=1e-6)


# ----------------------------------------------------------------------- through an index


@pytest.mark.slow
@pytest.mark.parametrize("datatype", STORED_AS)
@pytest.mark.parametrize("metric", ["Cosine", "Dot", "Euclid"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_index_agrees_with_numpy(kind, metric, datatype):
    vectors = random_vectors(datatype)
    queries = questions(vectors)
    indexed = collection_of(vectors, metric=metric, datatype=datatype, kind=kind)

    for limit in (10, ROWS):
        batch = indexed.search(queries, limit=limit, params={"ef": 1000, "refine": 30}, explain=True)
        single = indexed.search(queries[0], limit=limit, params={"ef": 1000, "refine": 30}, explain=True)

        assert batch.plan.index == single.plan.index == "vector_idx"
        assert batch.plan.kind == kind
        assert_agrees(batch, queries, vectors, metric, INDEXED[datatype], limit=limit)
        assert_agrees(single, queries[:1], vectors, metric, INDEXED[datatype], limit=limit)


@pytest.mark.parametrize("metric", ["Cosine", "Dot", "Euclid"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_the_index_does_not_cover_are_scored_alike(kind, metric):
    vectors = random_vectors("float32")
    queries = questions(vectors)
    indexed = collection_of(vectors[:200], metric=metric, kind=kind)
    indexed.upsert((range(200, ROWS), vectors[200:]))
    indexed.upsert((range(50), vectors[:50]))

    found = indexed.search(queries, limit=ROWS, explain=True)

    assert found.plan.index == "vector_idx"
    assert_agrees(found, queries, vectors, metric, INDEXED["float32"], limit=ROWS)


@pytest.mark.parametrize("metric", ["Cosine", "Dot", "Euclid"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_stay_right_when_only_uncovered_rows_are_left(kind, metric):
    vectors = random_vectors("float32")
    queries = questions(vectors)
    indexed = collection_of(vectors, metric=metric, kind=kind)
    indexed.upsert((range(ROWS), vectors))

    found = indexed.search(queries, limit=10, explain=True)

    assert found.plan.index == "vector_idx"
    assert_agrees(found, queries, vectors, metric, INDEXED["float32"], limit=10)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_vectors_score_zero_under_cosine_and_are_found_beside_an_index(kind):
    vectors = random_vectors("float32", zeros=True)
    queries = np.vstack([questions(vectors), np.zeros(SIZE)])
    indexed = collection_of(vectors, metric="Cosine", kind=kind)

    everything = indexed.search(queries, limit=ROWS)
    nearest = indexed.search(queries[0], limit=10, explain=True)

    assert_agrees(everything, queries, vectors, "Cosine", INDEXED["float32"], limit=ROWS)
    assert {h["score"] for h in everything if h["id"] in (0, 40)} == {0.0}
    assert nearest.plan.index == "vector_idx"


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_whose_squares_vanish_are_found_beside_an_index(kind):
    vectors = random_vectors("float32")
    vectors[3] *= np.float32(1e-30)
    indexed = collection_of(vectors, metric="Cosine", kind=kind)

    found = indexed.search(vectors[9], limit=ROWS)

    assert_agrees(found, vectors[[9]], vectors, "Cosine", INDEXED["float32"], limit=ROWS)


@pytest.mark.parametrize("metric", ["Dot", "Euclid"])
@pytest.mark.parametrize("kind", KINDS)
def test_zero_vectors_and_zero_queries_are_ordinary_elsewhere(kind, metric):
    vectors = random_vectors("float32", zeros=True)
    queries = np.vstack([questions(vectors), np.zeros(SIZE)])
    indexed = collection_of(vectors, metric=metric, kind=kind)

    found = indexed.search(queries, limit=ROWS, explain=True)

    assert found.plan.index == "vector_idx"
    assert_agrees(found, queries, vectors, metric, INDEXED["float32"], limit=ROWS)


@pytest.mark.parametrize("size", [1, 3, 7, 33])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ivf_rq"])
def test_any_size_can_be_indexed(kind, size):
    vectors = random_vectors("float32", size=size, rows=100)
    queries = questions(vectors)

    found = collection_of(vectors, metric="Euclid", kind=kind).search(queries, limit=100, explain=True)

    assert found.plan.index == "vector_idx"
    assert_agrees(found, queries, vectors, "Euclid", INDEXED["float32"], limit=100)


def test_ivf_rq_refuses_a_size_that_is_no_multiple_of_eight():
    seven = collection_of(random_vectors("float32", size=7, rows=20), metric="Cosine")

    with pytest.raises(vd.InvalidInputError, match="multiple of 8"):
        seven.create_index("ivf_rq")


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_indexes_manhattan_and_says_so(kind):
    taxi = collection_of(random_vectors("float32", rows=20), metric="Manhattan")

    with pytest.raises(vd.InvalidInputError, match="Manhattan"):
        taxi.create_index(kind)
    with pytest.raises(vd.InvalidInputError, match="Manhattan"):
        vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(8, "Manhattan", index=kind))


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("metric", ["Cosine", "Dot", "Euclid"])
def test_points_without_the_vector_are_left_out_and_the_rest_is_complete(kind, metric):
    vectors = list(random_vectors("float32"))
    missing = {0, 17, 299}
    present = np.array([i for i in range(ROWS) if i not in missing])
    holes = collection_of(
        [None if i in missing else v for i, v in enumerate(vectors)], metric=metric, kind=kind
    )
    query = vectors[6]

    found = holes.search(query, limit=ROWS, explain=True)
    ten = holes.search(query, limit=10)

    assert sorted(found["id"].to_pylist()) == present.tolist()
    assert (found.plan.index is None) == (kind is None)
    own = numpy_distances(metric, [query], np.array(vectors)[present])[0]
    np.testing.assert_allclose(found["_distance"].to_numpy(), np.sort(own), atol=1e-4)
    assert len(ten) == 10


# ---------------------------------------------------------------------- around the search


@pytest.fixture(params=[None, "ivf_flat", "hnsw"], ids=["exact", "ivf_flat", "hnsw"])
def searched(request):
    return collection_of(random_vectors("float32"), metric="Euclid", kind=request.param)


def test_offset_leaves_out_the_nearest(searched):
    query = random_vectors("float32")[6]
    all_ids = searched.search(query, limit=40)["id"].to_pylist()

    assert searched.search(query, limit=10, offset=15)["id"].to_pylist() == all_ids[15:25]
    assert len(searched.search(query, limit=10, offset=ROWS - 4)) == 4
    assert len(searched.search(query, limit=10, offset=ROWS)) == 0


def test_offset_counts_within_each_query(searched):
    queries = questions(random_vectors("float32"))
    whole = searched.search(queries, limit=12).to_arrow()

    part = searched.search(queries, limit=5, offset=7).to_arrow()

    for at in range(len(queries)):
        own = whole.filter(pa.array(whole["query_index"].to_numpy() == at))["id"].to_pylist()
        assert part.filter(pa.array(part["query_index"].to_numpy() == at))["id"].to_pylist() == own[7:]


@pytest.mark.parametrize("kind", [None, "ivf_flat"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_score_threshold_keeps_what_is_at_least_as_good(metric, kind):
    vectors = random_vectors("float32")
    made = collection_of(vectors, metric=metric, kind=None if metric == "Manhattan" else kind)
    scores = made.search(vectors[6], limit=ROWS)["score"].to_numpy()
    threshold = float(scores[30])

    kept = made.search(vectors[6], limit=ROWS, score_threshold=threshold)["score"].to_numpy()

    better = scores >= threshold if metric in ("Cosine", "Dot") else scores <= threshold
    assert kept.tolist() == scores[better].tolist()
    assert 31 <= len(kept) < ROWS


def test_a_stored_point_is_left_out_of_its_own_answer(searched):
    vectors = random_vectors("float32")

    found = searched.search(vd.Id(5), limit=3)

    assert found["id"].to_pylist()[0] == 6
    assert 5 not in found["id"].to_pylist()
    assert (
        found["id"].to_pylist()
        == [i for i in searched.search(vectors[5], limit=4)["id"].to_pylist() if i != 5][:3]
    )


def test_a_list_of_stored_points_is_a_batch(searched):
    found = searched.search([vd.Id(5), vd.Id(9)], limit=3)

    hits = list(zip(found["query_index"].to_pylist(), found["id"].to_pylist(), strict=True))
    singles = [
        (at, i)
        for at, own in enumerate((5, 9))
        for i in searched.search(vd.Id(own), limit=3)["id"].to_pylist()
    ]
    assert hits == singles


def test_offset_does_not_count_the_point_itself(searched):
    whole = searched.search(vd.Id(5), limit=9)["id"].to_pylist()

    assert searched.search(vd.Id(5), limit=3, offset=4)["id"].to_pylist() == whole[4:7]


def test_a_search_returns_the_columns_asked_for_and_no_more(searched):
    query = random_vectors("float32")[6]

    assert searched.search(query, limit=2).column_names == ["query_index", "id", "score", "_distance", "even"]
    assert searched.search(query, limit=2, columns=[]).column_names == [
        "query_index",
        "id",
        "score",
        "_distance",
    ]
    assert searched.search(query, columns=["even", "vector"]).column_names[4:] == ["even", "vector"]


def test_a_search_returns_the_stored_vectors_when_asked(searched):
    vectors = random_vectors("float32")

    found = searched.search(vectors[6], limit=5, with_vectors=True)

    stored = np.array(found["vector"].to_pylist(), np.float32)
    assert np.array_equal(stored, vectors[found["id"].to_numpy()])


def test_results_have_the_types_that_the_face_promises(searched):
    schema = searched.search(np.zeros(SIZE)).schema

    assert [(f.name, f.type) for f in schema][:4] == [
        ("query_index", pa.int32()), ("id", pa.uint64()), ("score", pa.float32()), ("_distance", pa.float32()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        [0.5] * SIZE,
        tuple([0.5] * SIZE),
        np.full(SIZE, 0.5),
        np.full(SIZE, 0.5, np.float16),
        pa.array([0.5] * SIZE),
        pa.array([[0.5] * SIZE], pa.list_(pa.float32(), SIZE)),
        [[0.5] * SIZE],
    ],
    ids=["list", "tuple", "float64", "float16", "Arrow", "Arrow list", "nested list"],
)
def test_a_query_is_any_list_of_numbers(searched, query):
    assert searched.search(query)["id"].to_pylist() == searched.search([0.5] * SIZE)["id"].to_pylist()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([0.5] * 3, r"shape \[3\].*declares size 16"),
        (np.zeros((2, 3)), r"shape \[2, 3\]"),
        (np.zeros((1, 1, SIZE)), r"shape \[1, 1, 16\]"),
        ([[0.5] * SIZE, [0.5]], "differ in size"),
        ("text", "type str"),
        (None, "type NoneType"),
        ([None] * SIZE, "type list"),
        ([float("nan")] * SIZE, "NaN"),
        ([1e300] * SIZE, "infinity"),
        ([True] * SIZE, "type list"),
    ],
)
def test_a_bad_query_is_one_clear_error(searched, query, message):
    with pytest.raises(vd.InvalidVectorError, match=message):
        searched.search(query)


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": 0}, {"limit": -1}, {"limit": 1.5}, {"limit": True}, {"limit": 10**6},
        {"offset": -1}, {"offset": "2"}, {"using": "txet"}, {"columns": ["evne"]}, {"columns": "even"},
        {"params": {"nprobs": 3}}, {"params": {"ef": 0}}, {"with_vectors": ["txet"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_argument_is_one_clear_error(searched, arguments):
    with pytest.raises(vd.InvalidInputError):
        searched.search(np.zeros(SIZE), **arguments)


def test_a_search_with_a_point_that_is_not_there_says_so(searched):
    with pytest.raises(vd.PointNotFoundError, match="no point 1000"):
        searched.search(vd.Id(1000))


def test_a_search_with_a_point_without_vector_says_so(searched):
    searched.upsert([vd.Point(1000, None)])

    with pytest.raises(vd.InvalidInputError, match=r"point 1000 .* has no vector"):
        searched.search(vd.Id(1000))


def test_an_empty_batch_of_queries_has_no_hits(searched):
    assert len(searched.search(np.zeros((0, SIZE)))) == 0


def test_an_empty_collection_has_no_hits():
    empty = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(size=2))

    assert len(empty.search([1, 2])) == 0
    empty.upsert([{"id": 1, "vector": [1, 2]}])
    empty.delete([1])
    assert empty.search([1, 2]).to_pylist() == []


def test_nprobes_bounds_the_partitions_that_are_read(tmp_path):
    rng = np.random.default_rng(11)
    matrix = rng.standard_normal((4_000, 16)).astype(np.float32)
    collection = vd.create(tmp_path / "c", vectors=vd.VectorParams(16), full_scan_threshold=0)
    collection.upsert((range(4_000), matrix))
    collection.create_index("ivf_flat", num_partitions=16)

    one, all_of_them = (collection.recall(sample=100, params={"nprobes": n}).value for n in (1, 16))

    assert one < 0.8
    assert all_of_them == 1.0
