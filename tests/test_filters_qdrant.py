"""The meaning of Qdrant's filters, against its engine and against its client's local mode."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vecdataset.filters import Filter

TEXTS = [
    "",
    "a",
    "A",
    "red",
    "Red apple",
    "apple, red!",
    "it's",
    "Ünï cödé",
    "नमस्ते दुनिया",
    "2024-01-01",
    "x_y-z",
]
TIMES = [
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "2024-1-1 0:0",
    "2024-01-01T01:00:00+01:00",
    "2024-01-01 00:00:00.5",
    "2024-13-01",
    " 2023-12-31",
    "2024-02-30",
    "20240101",
    "2024-01-01T00:00",
]
INTS = [0, 1, -1, 2, 5, 2**53 + 1, 2**63 - 1, -(2**63), 2**63]
FLOATS = [0.0, 0.5, 1.0, 5.0, -2.5, 1e300]
PLACES = [
    {"lat": 52.5, "lon": 13.4},
    {"lat": 1, "lon": 179.5},
    {"lat": -1.0, "lon": -179.5},
    {"lat": "1", "lon": 2},
]
RING = [
    {"lat": 0, "lon": 0},
    {"lat": 0, "lon": 60},
    {"lat": 60, "lon": 60},
    {"lat": 60, "lon": 0},
    {"lat": 0, "lon": 0},
]
HOLE = [
    {"lat": 50, "lon": 10},
    {"lat": 50, "lon": 20},
    {"lat": 55, "lon": 20},
    {"lat": 55, "lon": 10},
    {"lat": 50, "lon": 10},
]


def some_value(rng: random.Random, depth: int = 0):
    roll = rng.random()
    if roll < 0.55 or depth > 2:
        return rng.choice([None, True, False, *INTS, *FLOATS, *TEXTS, *TIMES, *PLACES])
    if roll < 0.8:
        return [some_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {k: some_value(rng, depth + 1) for k in "abc" if rng.random() < 0.6}


def some_payload(rng: random.Random):
    keys = ["a", "b", "k-1", "odd key", "g"]
    payload = {k: some_value(rng) for k in keys if rng.random() < 0.7}
    if rng.random() < 0.5:
        payload["b"] = [{"a": some_value(rng, 2), "c": some_value(rng, 2)} for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        payload["g"] = rng.choice(PLACES)
    return payload


PAYLOADS = [some_payload(random.Random(seed)) for seed in range(250)]
POINTS = [
    {"id": i, "payload": p, "vector": {"v": [1.0, 2.0]} if i % 2 else {}} for i, p in enumerate(PAYLOADS)
]

paths = st.sampled_from(
    [
        "a",
        "b",
        "b[].a",
        "b[0].a",
        "b.a",
        "a[]",
        "a.a",
        "a.b",
        "a[].a",
        "k-1",
        '"odd key"',
        "g",
        "b[].c",
        "b[]",
    ]
)


def bounds(values):
    return st.dictionaries(st.sampled_from(["lt", "lte", "gt", "gte"]), values, min_size=1, max_size=2)


i64 = st.sampled_from(INTS[:-1])
good_times = st.sampled_from([t for t in TIMES if t not in {"2024-13-01", "2024-02-30", "20240101"}])
places = st.sampled_from(PLACES[:3])
texts = st.sampled_from([*TEXTS, "apple", "दुनिया", "RED", "y"])
tests = st.one_of(
    st.builds(lambda v: {"match": {"value": v}}, texts | i64),
    st.builds(
        lambda k, v: {"match": {k: v}}, st.sampled_from(["any", "except"]), st.lists(texts, max_size=3)
    ),
    st.builds(lambda k, v: {"match": {k: v}}, st.sampled_from(["any", "except"]), st.lists(i64, max_size=3)),
    st.builds(
        lambda k, v: {"match": {k: v}},
        st.sampled_from(["text", "text_any", "phrase", "prefix", "substring"]),
        texts,
    ),
    st.builds(lambda r: {"range": r}, bounds(st.sampled_from([*map(float, INTS), *FLOATS]))),
    st.builds(lambda r: {"range": r}, bounds(good_times)),
    st.builds(lambda r: {"values_count": r}, bounds(st.integers(0, 3))),
    st.builds(
        lambda c, r: {"geo_radius": {"center": c, "radius": r}}, places, st.sampled_from([1.0, 2e5, 1e7])
    ),
    st.builds(lambda a, b: {"geo_bounding_box": {"top_left": a, "bottom_right": b}}, places, places),
    st.just({"geo_polygon": {"exterior": {"points": RING}}}),
    st.just({"geo_polygon": {"exterior": {"points": RING}, "interiors": [{"points": HOLE}]}}),
)
state = st.builds(lambda k, v: {k: v}, st.sampled_from(["is_null", "is_empty"]), st.booleans())
plain_paths = st.sampled_from(["a", "b", "b[0].a", "b.a", "a.a", "k-1", '"odd key"', "g"])
leaves = st.one_of(
    st.builds(lambda key, test: {"key": key, **test}, paths, tests),
    st.builds(lambda key, test: {"key": key, **test}, paths, tests),
    st.builds(lambda key, test: {"key": key, **test}, plain_paths, state),
    st.builds(lambda k, v: {k: {"key": v}}, st.sampled_from(["is_null", "is_empty"]), paths),
    st.builds(lambda ids: {"has_id": ids}, st.lists(st.integers(0, 260), max_size=4)),
    st.builds(lambda n: {"has_vector": n}, st.sampled_from(["v", "w"])),
)


def groups(children):
    some = st.lists(children, min_size=1, max_size=3)
    counted = st.builds(lambda c, n: {"conditions": c, "min_count": n}, some, st.integers(1, 3))
    nested = st.builds(lambda f: {"nested": {"key": "b", "filter": {"must": [f]}}}, children)
    group = st.fixed_dictionaries(
        {}, optional={"must": some, "should": some, "must_not": some, "min_should": counted}
    )
    return group | nested


filters = st.builds(lambda f: f if f.keys() <= {"must", "should", "must_not", "min_should"} else {"must": [f]}, groups(st.recursive(leaves, groups, max_leaves=6)))  # fmt: skip
many_tests = st.builds(lambda key, a, b: {"must": [{"key": key, **a, **b}]}, paths, tests, tests)

quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))


def matched(spec) -> list[int]:
    parsed = Filter(spec)
    return [p["id"] for p in POINTS if parsed.matches(p)]


# ----------------------------------------------------------------------- engine


class Engine:
    """Qdrant's engine, without any payload index."""

    def __init__(self, path: str) -> None:
        self.q = q = pytest.importorskip("qdrant_edge", reason="the engine comes with the extra 'qdrant'")
        vectors = {"v": q.EdgeVectorParams(size=2, distance=q.Distance.Dot)}
        self.shard = q.EdgeShard.create(path, q.EdgeConfig(vectors=vectors, wal_enabled=False))
        points = [q.Point(p["id"], p["vector"], p["payload"]) for p in POINTS]
        self.shard.update(q.UpdateOperation.upsert_points(points))

    def found(self, spec) -> list[int]:
        points, _ = self.shard.scroll(self.q.ScrollRequest(limit=len(POINTS), filter=self.filter(spec)))
        return sorted(p.id for p in points)

    def filter(self, spec):
        clauses = {k: [self.condition(c) for c in v] for k, v in spec.items() if k != "min_should"}
        if counted := spec.get("min_should"):
            some = [self.condition(c) for c in counted["conditions"]]
            clauses["min_should"] = self.q.MinShould(some, counted["min_count"])
        return self.q.Filter(**clauses)

    def condition(self, spec):
        q = self.q
        if "key" in spec:
            return q.FieldCondition(
                spec["key"], **{k: self.test(k, v) for k, v in spec.items() if k != "key"}
            )
        if spec.keys() <= {"must", "should", "must_not", "min_should"}:
            return self.filter(spec)
        ((name, value),) = spec.items()
        if name == "nested":
            return q.NestedCondition(value["key"], self.filter(value["filter"]))
        kinds = {"is_null": q.IsNullCondition, "is_empty": q.IsEmptyCondition}
        if name in kinds:
            return kinds[name](value["key"])
        return q.HasIdCondition(set(value)) if name == "has_id" else q.HasVectorCondition(value)

    def test(self, name, value):
        q = self.q
        place = lambda p: q.GeoPoint(p["lon"], p["lat"])  # noqa: E731
        if name == "match":
            ((kind, to),) = value.items()
            return getattr(q, "Match" + "".join(w.capitalize() for w in kind.split("_")))(to)
        if name == "range":
            texts_given = any(isinstance(v, str) for v in value.values())
            return (q.RangeDateTime if texts_given else q.RangeFloat)(**value)
        if name == "values_count":
            return q.ValuesCount(**value)
        if name == "geo_radius":
            return q.GeoRadius(place(value["center"]), value["radius"])
        if name == "geo_bounding_box":
            return q.GeoBoundingBox(place(value["top_left"]), place(value["bottom_right"]))
        if name == "geo_polygon":
            rings = [[place(p) for p in r["points"]] for r in value.get("interiors", [])]
            return q.GeoPolygon([place(p) for p in value["exterior"]["points"]], rings)
        return value


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(str(tmp_path_factory.mktemp("engine")))


@quick
@given(spec=filters | many_tests)
def test_a_filter_matches_what_the_engine_finds(engine, spec):
    assert engine.found(spec) == matched(spec)


@pytest.mark.slow
@thorough
@given(spec=filters | many_tests)
def test_many_filters_match_what_the_engine_finds(engine, spec):
    assert engine.found(spec) == matched(spec)


# ------------------------------------------------------------------- local mode


class LocalMode:
    """The re-implementation inside qdrant-client."""

    def __init__(self, count: int = len(POINTS)) -> None:
        client = pytest.importorskip("qdrant_client", reason="the local mode comes with qdrant-client")
        self.models = m = client.models
        self.client = client.QdrantClient(":memory:")
        self.client.create_collection("c", {"v": m.VectorParams(size=2, distance=m.Distance.DOT)})
        points = [m.PointStruct(id=p["id"], vector=p["vector"], payload=p["payload"]) for p in POINTS]
        self.client.upsert("c", points[:count])

    def found(self, spec) -> list[int]:
        asked = self.models.Filter.model_validate(spec)
        points, _ = self.client.scroll("c", scroll_filter=asked, limit=len(POINTS))
        return sorted(p.id for p in points)


@pytest.fixture(scope="module")
def local():
    mode = LocalMode()
    yield mode
    mode.client.close()


def _disagrees(spec) -> bool:
    """Return whether local mode is known to differ: vowel signs, integers beyond 2**53, lenient dates."""
    text = json.dumps(spec)
    odd = (
        "\\u0928",
        "\\u0926",
        "e+300",
        "e+18",
        "e+15",
        "900719925474099",
        "92233720368547758",
        "0:0",
        ":00.5",
        '" 2023',
    )
    return any(o in text for o in odd)


@pytest.mark.slow
@quick
@given(spec=filters.filter(lambda f: not _disagrees(f)))
def test_a_filter_matches_what_local_mode_finds(local, spec):
    assert local.found(spec) == matched(spec)


@pytest.mark.slow
@thorough
@given(spec=filters.filter(lambda f: not _disagrees(f)))
def test_many_filters_match_what_local_mode_finds(local, spec):
    assert local.found(spec) == matched(spec)
