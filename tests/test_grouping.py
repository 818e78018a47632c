"""Facets and groups, against brute force over the same points."""

import datetime as dt
import json
import random

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset import grouping

SIZE = 4
KEYS = ["number", "word", "words", "mixed", "deep.word", "items[].kind", "items[]", "rare", "wide"]


def some_payload(rng):
    payload = {
        "number": rng.choice([0, 1, 2, 5]),
        "word": rng.choice(["a", "b", "é", "b b", ""]),
        "words": rng.choices(["x", "y", "z", None], k=rng.randrange(4)),
        "mixed": rng.choice([1, 1.0, 2.5, True, False, "1", "true", None, [1, True], []]),
        "deep": rng.choice([{"word": "p"}, {"word": ["p", "q"]}, {"word": None}, {}, 3]),
        "items": [{"kind": rng.choice(["k", 7])} for _ in range(rng.randrange(3))] if rng.random() < 0.5 else rng.choice(["i", []]),
        "wide": rng.choice([1, 2, 2.0, 2.5]),
    }  # fmt: skip
    if rng.random() < 0.03:
        payload["rare"] = rng.choice(["r", "s"])
    return {k: v for k, v in payload.items() if rng.random() < 0.85}


def some_points(count, seed):
    rng = random.Random(seed)
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return [{"id": i, "vector": vectors[i].tolist(), "payload": some_payload(rng)} for i in range(count)]


def make(name, points, distance="Euclid"):
    vectors = vd.VectorParams(size=SIZE, distance=distance)
    collection = vd.create(f"memory://grouping-{name}", vectors=vectors, exist_ok=True)
    collection.upsert(points, layout="qdrant")
    return collection


POINTS = some_points(400, 7)


@pytest.fixture(scope="module")
def points():
    return make("mixed", POINTS)


# ----------------------------------------------------------------------- brute force


def under(value, steps):
    """Return the values under a path, without looking at the library."""
    if not steps:
        return [value]
    step, rest = steps[0], steps[1:]
    if step == "[]":
        return [v for item in value for v in under(item, rest)] if isinstance(value, list) else []
    return under(value[step], rest) if isinstance(value, dict) and step in value else []


def values_of(payload, key):
    """Return the distinct values of a point, as (kind, value)."""
    found = under(payload, key.replace("[]", ".[]").split("."))
    if not key.endswith("[]"):
        found = [item for value in found for item in (value if isinstance(value, list) else [value])]
    kinds = {str: "text", bool: "bool", int: "number", float: "number"}
    return {(kinds[type(v)], v) for v in found if v is not None}


def plain(values, kind_of_column):
    """Return what the column shows as (kind, value)."""
    if pa.types.is_string(kind_of_column):
        kinds = {str: "text", bool: "bool", int: "number", float: "number"}
        try:
            decoded = [json.loads(v) for v in values]
        except ValueError:
            return [("text", v) for v in values]
        return [(kinds[type(v)], v) for v in decoded]
    return [("bool" if pa.types.is_boolean(kind_of_column) else "number", v) for v in values]


ORDER = {"text": 0, "number": 1, "bool": 3}


def counted(points, key):
    counts = {}
    for point in points:
        for value in values_of(point["payload"], key):
            counts[value] = counts.get(value, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], ORDER[item[0][0]], item[0][1]))


def nearest(points, vector, *, threshold=np.inf):
    query = np.array(vector, np.float64)
    distances = [(float(np.linalg.norm(np.array(p["vector"]) - query)), p) for p in points if p.get("vector")]
    return sorted(((d, p) for d, p in distances if d <= threshold), key=lambda pair: pair[0])


def grouped(points, vector, key, *, limit, size, **options):
    groups = {}
    for _, point in nearest(points, vector, **options):
        for value in sorted(values_of(point["payload"], key), key=lambda v: (ORDER[v[0]], v[1])):
            groups.setdefault(value, []).append(point["id"])
    return [(value, ids[:size]) for value, ids in list(groups.items())[:limit]]


def shown(found):
    """Return groups with their ids, in order."""
    groups = plain(found["group"].to_pylist(), found.schema.field("group").type)
    out = {}
    for value, id in zip(groups, found["id"].to_pylist(), strict=True):
        out.setdefault(value, []).append(id)
    return list(out.items())


# --------------------------------------------------------------------------- facets


@pytest.mark.parametrize("key", [k for k in KEYS if k != "items[]"])
@pytest.mark.parametrize("limit", [3, 100])
def test_facets_count_each_point_once_a_value(points, key, limit):
    found = points.facet(key, limit=limit)
    values = plain(found["value"].to_pylist(), found.schema.field("value").type)

    assert list(zip(values, found["count"].to_pylist(), strict=True)) == counted(POINTS, key)[:limit]


def test_facets_follow_the_filter(points):
    few = [p for p in POINTS if p["payload"].get("number") == 5]

    assert dict(
        zip(*points.facet("word", filter="number = 5").to_arrow().to_pydict().values(), strict=True)
    ) == {value: count for (_, value), count in counted(few, "word")}


def test_facets_keep_the_type_of_the_key():
    day, moment = dt.date(2024, 2, 3), dt.datetime(2024, 2, 3, 4, tzinfo=dt.UTC)
    table = pa.table({
        "id": pa.array([1, 2, 3], pa.uint64()),
        "vector": pa.array([[0.0] * SIZE] * 3, pa.list_(pa.float32(), SIZE)),
        "small": pa.array([1, 1, None], pa.int8()),
        "real": pa.array([0.5, float("nan"), 0.5], pa.float32()),
        "day": pa.array([day, None, day], pa.date32()),
        "moments": pa.array([[moment, moment], [], None], pa.list_(pa.timestamp("us", "UTC"))),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "flag": pa.array([True, False, True]),
    })  # fmt: skip
    collection = vd.create("memory://grouping-typed", vectors=vd.VectorParams(size=SIZE), exist_ok=True)
    collection.upsert(table)
    found = {key: collection.facet(key) for key in ("small", "real", "day", "moments", "flag", "kind")}

    assert {k: f.to_pylist() for k, f in found.items()} == {
        "small": [{"value": 1, "count": 2}],
        "real": [{"value": 0.5, "count": 2}],
        "day": [{"value": day, "count": 2}],
        "moments": [{"value": moment, "count": 1}],
        "flag": [{"value": True, "count": 2}, {"value": False, "count": 1}],
        "kind": [{"value": "x", "count": 2}, {"value": "y", "count": 1}],
    }
    assert [str(found[k].schema.field("value").type) for k in ("small", "real", "day", "moments", "flag")] == [
        "int8", "float", "date32[day]", "timestamp[us, tz=UTC]", "bool",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shapes():
    days = [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (1, 2)]
    collection = vd.create("memory://grouping-shapes", vectors=vd.VectorParams(size=SIZE), exist_ok=True)
    collection.upsert(pa.table({
        "id": pa.array(range(4), pa.uint64()),
        "vector": pa.array([[1.0, i, 0.0, 0.0] for i in range(4)], pa.list_(pa.float32(), SIZE)),
        "pair": pa.array([[1, 2], None, [2, 2], [None, 3]], pa.list_(pa.int32(), 2)),
        "large": pa.array([["a"], None, [], ["a", "b"]], pa.large_list(pa.large_string())),
        "at": pa.array([{"t": days[0]}, None, {"t": None}, {"t": days[1]}], pa.struct({"t": pa.timestamp("us", "UTC")})),
        "items": pa.array([[{"k": "a"}, {"k": "b"}], [], None, [{"k": "b"}]], pa.list_(pa.struct({"k": pa.string()}))),
        "price": pa.array(["1.50", "2.00", "2.00", None]).cast(pa.decimal128(5, 2)),
        "raw": pa.array([b"x", None, b"y", None]),
    }))  # fmt: skip
    return collection


@pytest.mark.parametrize(("key", "groups", "ids"), [
    ("pair", [1, 2, 2, 3], [0, 0, 2, 3]), ("large", ["a", "a", "b"], [0, 3, 3]),
    ("items[].k", ["a", "b", "b"], [0, 0, 3]), ("price", [1.5, 2.0, 2.0], [0, 1, 2]), ("at.t", [1, 2], [0, 3]),
])  # fmt: skip
def test_values_in_lists_and_structs_of_frames_are_found(shapes, key, groups, ids):
    found = shapes.group([1.0, 0.0, 0.0, 0.0], by=key, group_size=2, columns=[])
    shown = [getattr(v, "day", v) for v in found["group"].to_pylist()]

    assert ([float(v) if key == "price" else v for v in shown], found["id"].to_pylist()) == (groups, ids)
    assert sum(shapes.facet(key)["count"].to_pylist()) == len(groups)
    assert sorted(set(shapes.query({"order_by": key})["id"].to_pylist())) == sorted(set(ids))


def test_bytes_are_no_groups(shapes):
    with pytest.raises(vd.InvalidInputError, match="holds bytes"):
        shapes.group([1.0, 0.0, 0.0, 0.0], by="raw")


def test_whole_numbers_beside_fractions_stay_whole(points):
    assert [type(row["value"]) for row in points.facet("wide")] == [int, int, float]


def test_facets_of_a_big_integer():
    payload = {"n": 2**63 + 1, "huge": 10**30}
    collection = make("big", [{"id": 1, "vector": [0.0] * SIZE, "payload": payload}])

    assert collection.facet("n").to_pylist() == [{"value": 2**63 + 1, "count": 1}]
    assert collection.facet("huge").to_pylist() == [{"value": str(10**30), "count": 1}]


def test_an_empty_collection_has_no_facets_and_no_groups():
    empty = vd.create("memory://grouping-empty", vectors=vd.VectorParams(size=SIZE), exist_ok=True)

    assert empty.facet("any").to_pylist() == []
    assert empty.group([0.0] * SIZE, by="any").to_pylist() == []


# --------------------------------------------------------------------------- groups


@pytest.mark.parametrize("key", [k for k in KEYS if k != "items[]"])
@pytest.mark.parametrize(("limit", "size"), [(1, 1), (2, 5), (3, 300), (50, 2)])
def test_groups_are_as_many_and_as_large_as_there_are(points, key, limit, size):
    rng = np.random.default_rng(limit)
    for vector in rng.normal(size=(3, SIZE)).tolist():
        found = points.group(vector, by=key, limit=limit, group_size=size, columns=[])

        assert shown(found) == grouped(POINTS, vector, key, limit=limit, size=size)


@pytest.mark.parametrize("key", ["number", "mixed"])
def test_groups_hold_under_filter_and_threshold(points, key):
    vector = [0.3] * SIZE
    some = [p for p in POINTS if p["payload"].get("word") in ("a", "b")]
    found = points.group(
        vector, by=key, limit=4, group_size=3, filter={"word": ["a", "b"]}, score_threshold=1.8
    )

    assert shown(found) == grouped(some, vector, key, limit=4, size=3, threshold=1.8)
    assert max(found["score"].to_pylist()) <= 1.8


@pytest.mark.parametrize("look_ahead", [1, 8])
def test_groups_are_exact_where_the_nearest_points_are_of_one_group(monkeypatch, look_ahead):
    monkeypatch.setattr(grouping, "_LOOK_AHEAD", look_ahead)
    rng = np.random.default_rng(5)
    crowd = [
        {"id": i, "vector": (rng.normal(size=SIZE) * 0.01).tolist(), "payload": {"g": "crowd", "l": ["crowd", f"s{i % 50}"]}}
        for i in range(600)
    ]  # fmt: skip
    far = [
        {"id": 1000 + i, "vector": (1 + i + rng.normal(size=SIZE) * 0.01).tolist(), "payload": {"g": f"far{i % 7}", "l": ["far"]}}
        for i in range(40)
    ]  # fmt: skip
    none = [
        {"id": 2000, "vector": [0.0] * SIZE, "payload": {}},
        {"id": 2001, "vector": {}, "payload": {"g": "bare"}},
    ]
    every = [*crowd, *far, *none]
    collection = make(f"crowd-{look_ahead}", every)

    for key, limit, size in (("g", 5, 3), ("g", 20, 2), ("l", 3, 4), ("l", 60, 13)):
        found = collection.group([0.0] * SIZE, by=key, limit=limit, group_size=size)

        assert shown(found) == grouped(every, [0.0] * SIZE, key, limit=limit, size=size)


@pytest.mark.parametrize("distance", ["Cosine", "Dot", "Euclid", "Manhattan"])
def test_scores_of_groups_are_those_of_a_search(monkeypatch, distance):
    monkeypatch.setattr(grouping, "_LOOK_AHEAD", 1)
    collection = make(f"scores-{distance}", POINTS[:150], distance)
    vector = [0.5, -1.0, 0.2, 2.0]
    scores = {r["id"]: (r["score"], r["_distance"]) for r in collection.search(vector, limit=200)}
    found = collection.group(vector, by="number", limit=3, group_size=4)
    best = [scores[found["id"][i].as_py()][1] for i in range(len(found)) if i % 4 == 0]

    assert [(r["score"], r["_distance"]) for r in found] == [pytest.approx(scores[r["id"]]) for r in found]
    assert best == sorted(best)


def test_groups_are_exact_through_an_index():
    every = [
        {**p, "payload": {"g": p["id"] % 90, "rare": "r"} if p["id"] % 300 == 0 else {"g": p["id"] % 90}}
        for p in some_points(3_000, 3)
    ]
    collection = make("indexed", every)
    collection.create_index("ivf_flat", num_partitions=4)
    collection.configure(full_scan_threshold=0)
    options = {"params": {"nprobes": 4}, "columns": []}

    for key, limit, size in (("g", 8, 3), ("g", 90, 20), ("rare", 3, 20)):
        found = collection.group([0.1] * SIZE, by=key, limit=limit, group_size=size, **options)

        assert shown(found) == grouped(every, [0.1] * SIZE, key, limit=limit, size=size)


def test_groups_come_for_each_query_of_a_batch(points):
    vectors = [[0.0] * SIZE, [1.0] * SIZE]
    found = points.group(vectors, by="number", limit=2, group_size=2, columns=["word"])
    alone = [points.group(v, by="number", limit=2, group_size=2, columns=["word"]) for v in vectors]

    assert found.column_names == ["query_index", "group", "id", "score", "_distance", "word"]
    assert found["query_index"].to_pylist() == [0] * 4 + [1] * 4
    assert found["id"].to_pylist() == [i for one in alone for i in one["id"].to_pylist()]


def test_a_point_that_asks_by_id_is_in_no_group(points):
    found = points.group([vd.Id(3), vd.Id(4)], by="number", limit=9, group_size=500)
    index, ids = found["query_index"].to_pylist(), found["id"].to_pylist()

    assert (0, 3) not in set(zip(index, ids, strict=True))
    assert (1, 4) not in set(zip(index, ids, strict=True))
    assert (0, 4) in set(zip(index, ids, strict=True)) or "number" not in POINTS[4]["payload"]


def test_a_payload_key_named_group_moves_aside():
    every = [
        {"id": i, "vector": [float(i)] * SIZE, "payload": {"group": i / 2, "by": i % 2}} for i in range(4)
    ]
    found = make("named", every).group([0.0] * SIZE, by="by", limit=1, group_size=2)

    assert found["group"].to_pylist() == [0, 0]
    assert [p["payload"] for p in found.to_pylist(layout="qdrant")] == [
        {"group": 0.0, "by": 0},
        {"group": 1.0, "by": 0},
    ]
    assert [p["group"] for p in found.to_pylist(layout="qdrant")] == [0, 0]


def test_sparse_vectors_and_multivectors_are_grouped():
    vectors, sparse = {"many": vd.VectorParams(size=2, multivector=True)}, {"terms": vd.SparseVectorParams()}
    collection = vd.create("memory://grouping-kinds", vectors=vectors, sparse=sparse, exist_ok=True)
    collection.upsert([
        {"id": i, "many": [[1.0, i], [0.0, 1.0]], "terms": vd.SparseVector([1, 2], [1.0, i]), "g": i % 2} for i in range(6)
    ])  # fmt: skip
    by_terms = collection.group(vd.SparseVector([2], [1.0]), by="g", limit=2, group_size=2)
    by_rows = collection.group([[1.0, 0.0]], using="many", by="g", limit=2, group_size=1)

    assert by_terms["id"].to_pylist() == [5, 3, 4, 2]
    assert by_rows["id"].to_pylist() == [0, 1]


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("key", ["items", "items[]", "deep"])
@pytest.mark.parametrize("ask", ["facet", "group"])
def test_objects_are_no_groups(points, key, ask):
    with pytest.raises(vd.InvalidInputError, match="holds an object") as caught:
        points.facet(key) if ask == "facet" else points.group([0.0] * SIZE, by=key, group_size=300)

    assert f"'{key}[].name'" in caught.value.hint


def test_arrays_inside_arrays_are_no_groups():
    collection = make("nested", [{"id": 1, "vector": [0.0] * SIZE, "payload": {"n": [[1], 2]}}])

    with pytest.raises(vd.InvalidInputError, match=r"point 1 .* holds an array inside an array"):
        collection.facet("n")


def test_an_unknown_key_is_named(points):
    with pytest.raises(vd.UnknownNameError, match="no payload key 'wrd'") as caught:
        points.facet("wrd")

    assert "'word'" in caught.value.hint
    with pytest.raises(vd.UnknownNameError, match="no payload key 'wrd'"):
        points.group([0.0] * SIZE, by="wrd")


@pytest.mark.parametrize(("options", "words"), [
    ({"limit": 0}, "limit is 0"), ({"group_size": 0}, "group_size is 0"),
    ({"limit": 1_000, "group_size": 1_000}, "limit × group_size"), ({"by": "a b[", "limit": 1}, "no path"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(points, options, words):
    with pytest.raises(vd.InvalidInputError, match=words):
        points.group([0.0] * SIZE, **{"by": "word"} | options)
    if "group_size" not in options:
        key = options.get("by", "word")
        with pytest.raises(vd.InvalidInputError, match=words):
            points.facet(key, limit=options["limit"])
