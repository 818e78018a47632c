"""Random queries of every kind against qdrant-client's local mode, on all four distances.

The engine is asked the same in `test_query_kinds.py`. Three things are left out, where local mode goes its
own way: `using` beside a fusion, which it refuses; an offset beside MMR, which it takes from the
candidates; and a filter over prefetches, which it does not apply below.
"""

import pytest
from query_cases import DISTANCES, Cases, difference

import vecdataset as vd

KINDS = ["nearest", "mmr", "recommend", "discover", "context", "order_by", "fusion", "rescored", "formula"]
LEFT_OUT = {"mmr": {"offset"}, "fusion": {"using"}}
SEED, SIZE = 20_262, 8


def without_filters_over_prefetches(step):
    left_out = {"filter"} if "prefetch" in step else set()
    out = {k: v for k, v in step.items() if k not in left_out}
    if "prefetch" in out:
        out["prefetch"] = [without_filters_over_prefetches(p) for p in out["prefetch"]]
    return out


class Local:
    """The same points in qdrant-client's local mode and in a collection."""

    def __init__(self):
        engine = pytest.importorskip(
            "qdrant_engine", reason="qdrant-edge-py is not installed", exc_type=ImportError
        )
        client = pytest.importorskip("qdrant_client", reason="the local mode comes with qdrant-client")
        self.models = models = client.models
        self.points = engine.some_points(SEED, 300, SIZE)
        self.client = client.QdrantClient(":memory:")
        declared = {d: models.VectorParams(size=SIZE, distance=models.Distance(d)) for d in DISTANCES}
        self.client.create_collection("c", declared)
        self.client.upsert(
            "c",
            [models.PointStruct(id=p["id"], vector=p["vector"], payload=p["payload"]) for p in self.points],
        )
        vectors = {d: vd.VectorParams(size=SIZE, distance=d) for d in DISTANCES}
        self.collection = vd.create("memory://query-local-mode", vectors=vectors, exist_ok=True)
        self.collection.upsert(self.points, layout="qdrant")

    def ours(self, request):
        try:
            found = self.collection.query_qdrant(request)
        except vd.InvalidInputError:
            return None
        return list(zip(found["id"].to_pylist(), found["score"].to_pylist(), strict=True))

    def theirs(self, request):
        q = self.models.QueryRequest.model_validate(request)
        try:
            found = self.client.query_points(
                "c", query=q.query, using=q.using, prefetch=q.prefetch, query_filter=q.filter, limit=q.limit,
                offset=q.offset, score_threshold=q.score_threshold,
            )  # fmt: skip
        except (ValueError, ZeroDivisionError, OverflowError):  # a formula that fails at a point
            return None
        return [(p.id, p.score) for p in found.points]

    def differences(self, kind, count):
        """Return the requests that the two answer differently, and how many both answered with points."""
        cases = Cases([SEED, KINDS.index(kind)], self.points, SIZE)
        wrong, filled = [], 0
        for _ in range(count):
            drawn = without_filters_over_prefetches(getattr(cases, kind)())
            request = {k: v for k, v in drawn.items() if k not in LEFT_OUT.get(kind, ())}
            ours, theirs = self.ours(request), self.theirs(request)
            if ours is None or theirs is None:
                continue  # who fails on which formula is the engine's to say
            filled += bool(ours)
            how = difference(request, ours, theirs)
            if how is not None:
                wrong.append((how, request))
        return wrong, filled


@pytest.fixture(scope="module")
def local():
    mode = Local()
    yield mode
    mode.client.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_random_queries_are_answered_as_by_local_mode(local, kind):
    wrong, filled = local.differences(kind, 20)

    assert wrong == []
    assert filled >= 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_queries_are_answered_as_by_local_mode(local, kind):
    wrong, filled = local.differences(kind, 300)

    assert wrong == []
    assert filled > 120


@pytest.mark.parametrize("key", ["n", "ranks", "color", "tags", "code"])
def test_facets_are_those_of_local_mode(local, key):
    cases = Cases([SEED, 99], local.points, SIZE)
    for _ in range(10):
        filter = cases.filter()
        theirs = local.client.facet(
            "c", key, facet_filter=local.models.Filter.model_validate(filter), limit=7, exact=True
        )
        ours = local.collection.facet(key, filter=filter, limit=7).to_arrow().to_pydict()

        assert sorted(ours["count"], reverse=True) == sorted((h.count for h in theirs.hits), reverse=True)
