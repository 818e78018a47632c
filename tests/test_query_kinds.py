"""Every kind of query: against Qdrant's engine, against plain Python, and with wrong input."""

import math

import numpy as np
import pytest
from query_cases import DISTANCES, Cases, difference

import vecdataset as vd
from vecdataset import fusion, scoring
from vecdataset.schema import Distance

KINDS = ["nearest", "mmr", "recommend", "discover", "context", "order_by", "fusion", "rescored", "formula"]
SIZE = 8
SEED = 20_260


def answer(found):
    return list(zip(found["id"].to_pylist(), found["score"].to_pylist(), strict=True))


# ------------------------------------------------------------------- the real engine


class Both:
    """The same points in Qdrant's engine and in a collection."""

    def __init__(self, folder, count):
        engine = pytest.importorskip(
            "qdrant_engine", reason="qdrant-edge-py is not installed", exc_type=ImportError
        )
        self.points = engine.some_points(SEED, count, SIZE)
        self.engine = engine.Engine(folder, self.points, SIZE)
        vectors = {d: vd.VectorParams(size=SIZE, distance=d) for d in DISTANCES}
        self.collection = vd.create(f"memory://query-kinds-{count}", vectors=vectors, exist_ok=True)
        self.collection.upsert(self.points, layout="qdrant")

    def differences(self, kind, count):
        """Return the requests that the two answer differently, with how, and how many gave points."""
        cases = Cases([SEED, KINDS.index(kind)], self.points, SIZE)
        wrong, filled = [], 0
        for _ in range(count):
            request = getattr(cases, kind)()
            ours, theirs = self.ours(request), self.theirs(request)
            filled += bool(ours)
            if ours is None or theirs is None:
                how = None if ours == theirs else f"an error in {'ours' if ours is None else 'theirs'} alone"
            else:
                how = difference(request, ours, theirs)
            if how is not None:
                wrong.append((how, request))
        return wrong, filled

    def ours(self, request):
        try:
            return answer(self.collection.query_qdrant(request))
        except vd.InvalidInputError:
            return None

    def theirs(self, request):
        try:
            return self.engine.query(request)
        except Exception as exc:  # the engine has no class of its own
            # Its words for a formula that fails at a point.
            if "cancelled" not in str(exc):
                raise
            return None


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return Both(tmp_path_factory.mktemp("edge"), 300)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return Both(tmp_path_factory.mktemp("edge"), 1_500)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_random_queries_are_answered_as_by_qdrant(both, kind):
    wrong, filled = both.differences(kind, 50)

    assert wrong == []
    assert filled > 25


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_queries_are_answered_as_by_qdrant(many, kind):
    wrong, _ = many.differences(kind, 600)

    assert wrong == []


@pytest.mark.parametrize("key", ["n", "ranks", "color", "tags", "stock", "code"])
def test_facets_are_those_of_qdrant(both, key):
    cases = Cases([SEED, 99], both.points, SIZE)
    for _ in range(10):
        filter = cases.filter()
        ours = both.collection.facet(key, filter=filter, limit=7)

        assert list(zip(*ours.to_arrow().to_pydict().values(), strict=True)) == both.engine.facet(
            key, filter=filter, limit=7
        )


def test_a_root_filter_and_one_of_a_prefetch_both_hold_although_qdrant_takes_either(both):
    """Where both are `should`, the engine joins the two lists into one: points of neither come through."""
    red, blue = ({"should": [{"key": "color", "match": {"value": c}}]} for c in ("red", "blue"))
    vector = [0.1] * SIZE
    request = {
        "query": {"fusion": "rrf"}, "using": "Dot", "filter": red,
        "prefetch": [{"query": vector, "using": "Dot", "filter": blue}],
    }  # fmt: skip

    assert both.ours(request) == []


def test_a_score_at_the_threshold_stays_although_the_engine_drops_it(both):
    best = both.ours({"query": [0.5] * SIZE, "using": "Dot", "limit": 5})
    request = {"query": [0.5] * SIZE, "using": "Dot", "limit": 5, "score_threshold": best[2][1]}

    assert [i for i, _ in both.ours(request)] == [i for i, _ in best[:3]]


# ------------------------------------------------------------------- formulas in plain


RNG = np.random.default_rng(SEED)
PLUS, MINUS = RNG.normal(size=(3, 20)), RNG.normal(size=(2, 20))


def sigmoid(x):
    return x / (1 + abs(x))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


PLAIN_SIMILARITY = {
    "Dot": dot,
    "Cosine": lambda a, b: dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)),
    "Euclid": lambda a, b: -sum((x - y) ** 2 for x, y in zip(a, b, strict=True)),
    "Manhattan": lambda a, b: -sum(abs(x - y) for x, y in zip(a, b, strict=True)),
}


@pytest.mark.parametrize("metric", DISTANCES)
def test_similarity_is_larger_for_nearer(metric):
    examples, rows = RNG.normal(size=(3, 5)), RNG.normal(size=(7, 5))
    plain = [[PLAIN_SIMILARITY[metric](e, r) for r in rows] for e in examples]

    assert np.allclose(scoring.similarity(Distance(metric), examples, rows), plain, rtol=1e-12)


def test_the_cosine_of_a_zero_vector_is_zero():
    found = scoring.similarity(Distance.COSINE, np.array([[1.0, 0.0]]), np.zeros((1, 2)))

    assert found.tolist() == [[0.0]]


def test_average_vector_is_twice_the_positive_mean_less_the_negative_one():
    found = scoring.average_vector(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 1.0]]))

    assert found.tolist() == [3.0, 5.0]


def test_best_score_follows_the_nearest_example():
    best, worst = PLUS.max(axis=0), MINUS.max(axis=0)
    plain = [
        0.5 * (sigmoid(b) + 1) if b > w else -0.5 * (sigmoid(w) + 1) for b, w in zip(best, worst, strict=True)
    ]

    assert np.allclose(scoring.best_score(PLUS, MINUS), plain, rtol=1e-12)
    assert (scoring.best_score(np.zeros((0, 20)), MINUS) < 0).all()
    assert (scoring.best_score(PLUS, np.zeros((0, 20))) > 0).all()


def test_sum_scores_adds_and_subtracts():
    plain = [sum(p) - sum(m) for p, m in zip(PLUS.T, MINUS.T, strict=True)]

    assert np.allclose(scoring.sum_scores(PLUS, MINUS), plain, rtol=1e-12)


def test_discover_ranks_by_pairs_first():
    target, plus, minus = PLUS[0], PLUS[1:], MINUS
    plain = [
        sum(math.copysign(1, p - m) for p, m in zip(ps, ms, strict=True)) + 0.5 * (sigmoid(t) + 1)
        for t, ps, ms in zip(target, plus.T, minus.T, strict=True)
    ]

    assert np.allclose(scoring.discover(target, plus, minus), plain, rtol=1e-12)


def test_context_is_zero_where_every_positive_is_nearer():
    plain = [
        sum(sigmoid(min(p - m - scoring.EPSILON, 0)) for p, m in zip(ps, ms, strict=True))
        for ps, ms in zip(PLUS[:2].T, MINUS.T, strict=True)
    ]

    assert np.allclose(scoring.context(PLUS[:2], MINUS), plain, rtol=1e-12)
    assert scoring.context(np.array([[2.0]]), np.array([[1.0]])).tolist() == [0.0]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
def test_mmr_takes_the_best_trade_each_time(diversity):
    relevance = RNG.normal(size=9)
    vectors = RNG.normal(size=(9, 4))
    between = vectors @ vectors.T
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < 6:
        left = [i for i in range(9) if i not in chosen]
        trade = {
            i: (1 - diversity) * relevance[i] - diversity * max(between[i, j] for j in chosen) for i in left
        }
        chosen.append(max(left, key=trade.get))

    assert scoring.mmr(relevance, between, diversity=diversity, limit=6).tolist() == chosen


LISTS = [
    (np.array([4, 2, 7], np.uint64), np.array([9.0, 6.0, 1.5])),
    (np.array([7, 5], np.uint64), np.array([0.8, 0.2])),
]


def relative(scores):
    return [(s - min(scores)) / (max(scores) - min(scores)) for s in scores]


def by_deviation(scores):
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
    return [(s - (mean - 3 * deviation)) / (6 * deviation) for s in scores]


def added(parts):
    total = {}
    for (rows, _), values in zip(LISTS, parts, strict=True):
        for row, value in zip(rows.tolist(), values, strict=True):
            total[row] = total.get(row, 0) + value
    return total


def counted(one):
    return [[one(rank, i) for rank in range(1, len(rows) + 1)] for i, (rows, _) in enumerate(LISTS)]


W = [3.0, 0.5]
FUSED = {
    "rrf": ({}, added(counted(lambda rank, _: 1 / (60 + rank)))),
    "rrf k": ({"k": 7}, added(counted(lambda rank, _: 1 / (7 + rank)))),
    "rrf weights": ({"weights": W}, added(counted(lambda rank, i: W[i] / (60 + rank)))),
    "qdrant_rrf": ({}, added(counted(lambda rank, _: 1 / (rank + 1)))),
    "qdrant_rrf k weights": ({"k": 7, "weights": W}, added(counted(lambda rank, i: 1 / (rank / W[i] + 6)))),
    "qdrant_rrf off": ({"weights": [1, 0]}, added(counted(lambda rank, i: 0 if i else 1 / (rank + 1)))),
    "dbsf": ({}, added([by_deviation(s.tolist()) for _, s in LISTS])),
    "rsf": ({}, added([[w * v for v in relative(s.tolist())] for w, (_, s) in zip([0.7, 0.3], LISTS, strict=True)])),
    "rsf alpha": (
        {"alpha": 0.2},
        added([[w * v for v in relative(s.tolist())] for w, (_, s) in zip([0.2, 0.8], LISTS, strict=True)]),
    ),
    "product": ({}, {7: 1.5 * 0.8}),
}  # fmt: skip


@pytest.mark.parametrize("case", FUSED)
def test_fusions_are_their_formulas(case):
    options, plain = FUSED[case]
    rows, scores = fusion.fuse(LISTS, case.split()[0], **options)

    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == pytest.approx(plain, rel=1e-12)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


@pytest.mark.parametrize("name", ["dbsf", "rsf"])
def test_equal_scores_fuse_to_a_half(name):
    same = [(np.array([1, 2], np.uint64), np.array([3.0, 3.0]))]

    assert fusion.fuse(same, name)[1].tolist() == [0.5, 0.5]


# ---------------------------------------------------------------------- what queries do


@pytest.fixture(scope="module")
def shop():
    collection = vd.create(
        "memory://query-kinds-shop", vectors=vd.VectorParams(size=2, distance="Dot"), exist_ok=True
    )
    collection.upsert([
        {"id": i, "vector": [1.0 + i, 10.0 - i], "price": i, "colors": ["red", "blue"][: i % 3],
         "sale": None if i == 5 else i * 1.5, "odd": i if i % 2 else str(i)}
        for i in range(10)
    ])  # fmt: skip
    return collection


def ids(found):
    return found["id"].to_pylist()


def test_filters_of_the_root_hold_for_prefetches(shop):
    prefetch = [{"query": [1.0, 0.0], "limit": 3}, {"query": [0.0, 1.0], "limit": 3, "filter": "price > 2"}]
    found = shop.query({"fusion": "rrf"}, prefetch=prefetch, filter={"price": [1, 2, 3, 4, 8]})

    # Each list has as many points as it asked for: the filter came before the limit.
    assert sorted(ids(found)) == [3, 4, 8]
    assert len(shop.query({"fusion": "rrf"}, prefetch=prefetch[:1], filter="price < 4")) == 3


def test_examples_of_the_root_are_no_hits_of_its_prefetches(shop):
    found = shop.query(vd.Id(9), prefetch=[{"query": [1.0, 0.0], "limit": 2}])

    assert ids(found) == [8, 7]


def test_an_offset_in_a_prefetch_leaves_points_out(shop):
    found = shop.query([1.0, 0.0], prefetch=[{"query": [1.0, 0.0], "limit": 2, "offset": 3}])

    assert ids(found) == [6, 5]


def test_order_by_goes_into_arrays_and_keys_with_nulls(shop):
    assert ids(shop.query({"order_by": {"key": "sale", "direction": "desc"}}, limit=3)) == [9, 8, 7]
    assert ids(shop.query({"order_by": "sale"}, limit=20)) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert ids(shop.query({"order_by": {"key": "colors"}}, limit=20)) == [2, 5, 8, 1, 2, 4, 5, 7, 8]
    assert ids(shop.query({"order_by": {"key": "price", "start_from": 7.5}})) == [8, 9]
    assert set(shop.query({"order_by": "price"})["score"].to_pylist()) == {1.0}


def test_a_sample_is_drawn_again_by_its_seed(shop):
    first, again = (ids(shop.query({"sample": "random", "seed": 4}, limit=4)) for _ in range(2))

    assert first == again
    assert len(set(first)) == 4
    assert ids(shop.query({"sample": "random"}, limit=20, filter="price > 7")) in ([8, 9], [9, 8])


def test_without_a_query_points_come_by_id(shop):
    assert ids(shop.query(limit=3, offset=1, filter="price != 2")) == [1, 3, 4]


def test_a_batch_answers_each_query_as_it_is_answered_alone(shop):
    queries = [
        {"query": [1.0, 0.0], "limit": 4, "offset": 2},
        {"query": {"recommend": {"positive": [1], "strategy": "best_score"}}, "filter": "price > 3"},
        {"query": vd.Id(3), "limit": 2},
        {"query": [0.0, 1.0], "filter": {"colors": "red"}, "score_threshold": 5},
        {"query": {"fusion": "dbsf"}, "prefetch": [{"query": [1.0, 1.0]}, {"query": 3}], "limit": 3},
        {"query": [1.0, 0.5]},
    ]  # fmt: skip
    batch = shop.query_batch(queries)
    alone = [shop.query(**q) for q in queries]
    rows = list(zip(batch["query_index"].to_pylist(), answer(batch), strict=True))

    assert rows == [(i, row) for i, found in enumerate(alone) for row in answer(found)]


def test_a_batch_of_nothing_is_an_empty_answer(shop):
    assert shop.query_batch([]).to_pylist() == []


def test_nearest_queries_of_a_batch_share_one_call(shop):
    queries = [{"query": [1.0, float(i)]} for i in range(3)] + [{"query": [1.0, 0.0], "filter": "price > 1"}]
    plan = shop.query_batch(queries, explain=True).plan

    assert [("one call for 3 queries" in child.how) for child in plan.children] == [True, True, True, False]


def test_explain_shows_the_tree(shop):
    prefetch = [
        {"query": [1.0, 0.0], "limit": 4, "filter": "price > 2"},
        {"query": {"recommend": {"positive": [1], "strategy": "sum_scores"}}, "limit": 3},
    ]
    plan = shop.query({"fusion": "rrf"}, prefetch=prefetch, explain=True).plan
    lines = str(plan).splitlines()

    assert isinstance(plan, vd.StepPlan)
    assert [line.split(":")[0] for line in lines] == ["fusion rrf", "  nearest", "  recommend sum_scores"]
    assert [(c.filter, c.candidates, c.returned) for c in plan.children] == [("sql", 7, 4), ("none", 10, 3)]
    assert plan.to_dict()["children"][0]["kind"] == "nearest"
    assert plan.elapsed_ms >= max(c.elapsed_ms for c in plan.children)


def test_examples_can_stand_in_another_collection(shop):
    other = vd.create(
        "memory://query-kinds-other", vectors=vd.VectorParams(size=2, distance="Dot"), exist_ok=True
    )
    other.upsert([{"id": 3, "vector": [0.0, 5.0]}])
    found = shop.recommend([3], lookup_from=other, limit=3)

    # By the other's vector, and the point of the same id here is a hit like any other.
    assert ids(found) == [0, 1, 2]
    assert 3 in ids(shop.recommend([3], lookup_from=other, limit=10))


def test_a_lookup_needs_vectors_of_the_same_shape(shop):
    other = vd.create("memory://query-kinds-wide", vectors=vd.VectorParams(size=4), exist_ok=True)
    other.upsert([{"id": 3, "vector": [0.0, 5.0, 1.0, 1.0]}])

    with pytest.raises(vd.InvalidVectorError, match="of another shape"):
        shop.recommend([3], lookup_from=other)


# ------------------------------------------------------------------ Qdrant's requests


def test_a_qdrant_request_gives_payload_only_where_it_is_asked_for(shop):
    request = {"query": [1.0, 0.0], "limit": 1}

    def payload(**more):
        return shop.query_qdrant(request | more).to_pylist(layout="qdrant")[0]["payload"]

    assert payload() == {}
    assert payload(with_payload=True) == {"price": 9, "sale": 13.5, "odd": 9, "colors": []}
    assert payload(with_payload=["price", "nowhere"]) == {"price": 9}
    assert payload(with_payload={"include": ["odd"]}) == {"odd": 9}
    assert payload(with_payload={"exclude": ["odd", "colors"]}) == {"price": 9, "sale": 13.5}


def test_a_qdrant_request_gives_vectors_where_it_asks(shop):
    (point,) = shop.query_qdrant({"query": 3, "limit": 1, "with_vector": True}).to_pylist(layout="qdrant")

    assert point["vector"] == [1.0, 10.0]


def test_rrf_of_a_qdrant_request_is_qdrants(shop):
    prefetch = [{"query": [1.0, 0.0]}, {"query": [0.0, 1.0]}]
    request = {"query": {"fusion": "rrf"}, "prefetch": prefetch, "limit": 1}
    own = shop.query({"fusion": "rrf"}, prefetch=prefetch, limit=1)

    assert shop.query_qdrant(request)["score"].to_pylist() == pytest.approx([1 / 2 + 1 / 11])
    assert own["score"].to_pylist() == pytest.approx([1 / 61 + 1 / 70])


@pytest.mark.slow
def test_the_models_of_qdrant_client_are_requests(shop):
    models = pytest.importorskip("qdrant_client.models", reason="qdrant-client is not installed")
    request = models.QueryRequest(
        query=models.RecommendQuery(recommend=models.RecommendInput(positive=[1], negative=[9])),
        filter=models.Filter(must=[models.FieldCondition(key="price", range=models.Range(gte=3))]),
        limit=2,
        with_payload=True,
    )
    plain = {"query": {"recommend": {"positive": [1], "negative": [9]}}, "limit": 2, "with_payload": True,
             "filter": {"must": [{"key": "price", "range": {"gte": 3}}]}}  # fmt: skip

    assert shop.query_qdrant(request).to_pylist() == shop.query_qdrant(plain).to_pylist()


# ---------------------------------------------------------------- several collections


def test_a_search_over_collections_is_merged_by_score(shop):
    other = vd.create(
        "memory://query-kinds-more", vectors=vd.VectorParams(size=2, distance="Dot"), exist_ok=True
    )
    other.upsert(
        [{"id": f"p{i}", "vector": [0.5 + i, 1.0], "price": i / 2, "collection": "own"} for i in range(12)]
    )
    found = vd.search_all([shop, other], [[1.0, 0.0], [0.0, 1.0]], limit=3, offset=1)

    assert list(zip(found["query_index"].to_pylist(), found["collection"].to_pylist(), ids(found), strict=True)) == [
        (0, other.name, "p10"), (0, shop.name, "9"), (0, other.name, "p9"),
        (1, shop.name, "1"), (1, shop.name, "2"), (1, shop.name, "3"),
    ]  # fmt: skip
    assert found.to_pylist(layout="qdrant")[0]["payload"] == {"price": 5.0, "collection": "own"}
    assert [c.kind for c in vd.search_all([shop, other], [1.0, 0.0], explain=True).plan.children] == [
        f"nearest in {shop.name}", f"nearest in {other.name}",
    ]  # fmt: skip


def test_what_cannot_be_merged_is_refused(shop):
    euclid = vd.create(
        "memory://query-kinds-l2", vectors=vd.VectorParams(size=2, distance="Euclid"), exist_ok=True
    )
    texts = vd.create(
        "memory://query-kinds-text", vectors=vd.VectorParams(size=2, distance="Dot"), exist_ok=True
    )
    texts.upsert([{"id": 1, "vector": [1.0, 1.0], "price": "cheap"}])

    with pytest.raises(vd.InvalidInputError, match="different distances"):
        vd.search_all([shop, euclid], [1.0, 0.0])
    with pytest.raises(
        vd.InvalidInputError, match="column 'price' is int64 in collection 'query-kinds-shop'"
    ):
        vd.search_all([shop, texts], [1.0, 0.0])
    with pytest.raises(vd.InvalidInputError, match="takes a list of collections"):
        vd.search_all([], [1.0, 0.0])
    with pytest.raises(vd.InvalidInputError, match="names a point of one collection"):
        vd.search_all([shop], vd.Id(1))
    assert len(vd.search_all([shop, texts], [1.0, 0.0], columns=[], limit=20)) == 11


# ------------------------------------------------------------------------- bad input


ONE = [{"query": [1.0, 0.0]}]
BAD = {
    "unknown fusion": ({"query": {"fusion": "rff"}, "prefetch": ONE}, vd.UnknownNameError, "fusion 'rff'"),
    "weights": ({"query": {"fusion": "rrf", "weights": [1, 2]}, "prefetch": ONE}, vd.InvalidInputError, "2 weights"),
    "weight": ({"query": {"fusion": "rrf", "weights": ["x"]}, "prefetch": ONE}, vd.InvalidInputError, "weight"),
    "nan weight": ({"query": {"fusion": "rrf", "weights": [math.nan]}, "prefetch": ONE}, vd.InvalidInputError, "weight"),
    "k": ({"query": {"rrf": {"k": 0}}, "prefetch": ONE}, vd.InvalidInputError, "k is 0"),
    "dbsf k": ({"query": {"fusion": "dbsf", "k": 3}, "prefetch": ONE}, vd.InvalidInputError, "takes no k"),
    "alpha": ({"query": {"fusion": "rsf", "alpha": 2}, "prefetch": ONE}, vd.InvalidInputError, "alpha is 2"),
    "no prefetch": ({"query": {"fusion": "rrf"}}, vd.InvalidInputError, "none was given"),
    "two prefetches": ({"prefetch": ONE * 2}, vd.InvalidInputError, "ranks or fuses"),
    "prefetch": ({"query": [1.0, 0.0], "prefetch": [3]}, vd.InvalidInputError, "must be a dict"),
    "prefetch key": ({"query": [1.0, 0.0], "prefetch": [{"qery": 1}]}, vd.UnknownNameError, "'qery'"),
    "no positive": ({"query": {"recommend": {"negative": [1]}}}, vd.InvalidInputError, "at least one positive"),
    "no example": ({"query": {"recommend": {}}}, vd.InvalidInputError, "at least one example"),
    "strategy": (
        {"query": {"recommend": {"positive": [1], "strategy": "best"}}}, vd.UnknownNameError, "strategy 'best'"
    ),
    "no such point": ({"query": {"recommend": {"positive": [99]}}}, vd.PointNotFoundError, "no point 99"),
    "no pair": ({"query": {"context": []}}, vd.InvalidInputError, "at least one pair"),
    "half a pair": ({"query": {"context": [{"positive": 1}]}}, vd.InvalidInputError, "positive and negative"),
    "no target": ({"query": {"discover": {"context": []}}}, vd.InvalidInputError, "no target"),
    "limit": ({"query": [1.0, 0.0], "limit": 0}, vd.InvalidInputError, "limit is 0"),
    "window": ({"query": [1.0, 0.0], "limit": 99_999, "offset": 2}, vd.InvalidInputError, "limit . offset"),
    "threshold": ({"query": [1.0, 0.0], "score_threshold": "high"}, vd.InvalidInputError, "score_threshold"),
    "size": ({"query": [1.0]}, vd.InvalidVectorError, "size 2"),
    "two vectors": ({"query": [[1.0, 0.0], [0.0, 1.0]]}, vd.InvalidVectorError, "one vector"),
    "diversity": ({"query": {"nearest": 1, "mmr": {"diversity": 2}}}, vd.InvalidInputError, "diversity is 2"),
    "candidates": ({"query": {"nearest": 1, "mmr": {"candidates_limit": 0}}}, vd.InvalidInputError, "candidates_limit"),
    "kind": ({"query": {"nerest": 1}}, vd.UnknownNameError, "'nerest'"),
    "order": ({"query": {"order_by": "pirce"}}, vd.UnknownNameError, "'pirce'"),
    "order of several types": ({"query": {"order_by": "odd"}}, vd.NotSupportedError, "several types"),
    "order from": (
        {"query": {"order_by": {"key": "price", "start_from": "x"}}}, vd.InvalidInputError, "starts from 'x'"
    ),
    "direction": ({"query": {"order_by": {"key": "price", "direction": "up"}}}, vd.InvalidInputError, "'up'"),
    "sample": ({"query": {"sample": "best"}}, vd.InvalidInputError, "sample is 'best'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("way", ["query", "query_qdrant", "query_batch"])
def test_bad_input_is_one_clear_error(shop, case, way):
    request, error, words = BAD[case]
    ask = {
        "query": lambda: shop.query(**request),
        "query_qdrant": lambda: shop.query_qdrant(request),
        "query_batch": lambda: shop.query_batch([request]),
    }

    with pytest.raises(error, match=words):
        ask[way]()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"query": 1, "lookup_from": {"collection": "other"}}, "cannot reach"),
        ({"query": 1, "shard_key": "eu"}, "shard 'eu'"),
        ({"query": 1, "with_payload": ["price.net"]}, "part of a value"),
    ],
)
def test_what_a_qdrant_request_asks_of_others_is_not_supported(shop, request_, words):
    with pytest.raises(vd.NotSupportedError, match=words):
        shop.query_qdrant(request_)


def test_a_query_of_a_batch_stands_under_its_name(shop):
    with pytest.raises(vd.InvalidInputError, match="key 'nearest'") as caught:
        shop.query_batch([{"nearest": [1.0, 0.0]}])

    assert "one level deeper" in caught.value.hint
