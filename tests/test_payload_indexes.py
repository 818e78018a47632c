"""Payload indexes: they are built for the column they stand over, and change no answer."""

import random
import re
import uuid
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset.indexes.payload import lost_indexes, payload_index
from vecdataset.schema import PayloadColumn

KINDS = {
    "color": ["keyword", "btree", "bitmap", "ngram", "text"],
    "name": ["keyword", "btree", "bitmap", "ngram", "uuid"],
    "size": ["integer", "float", "btree", "bitmap"],
    "price": ["float", "btree", "bitmap"],
    "stock": ["bool", "btree", "bitmap"],
    "made": ["datetime", "btree", "bitmap"],
    "day": ["datetime", "btree", "bitmap"],
    "tags": ["keyword", "label_list", "text"],
    "codes": ["integer", "label_list"],
    "place": ["geo"],
}
COLORS = ["red", "green", "blue", "Grün", "", "it's", "back\\slash", "100%"]
START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([
    ("id", pa.uint64()),
    ("vector", pa.list_(pa.float32(), 2)),
    ("color", pa.string()),
    ("name", pa.string()),
    ("size", pa.int64()),
    ("price", pa.float64()),
    ("stock", pa.bool_()),
    ("made", pa.timestamp("us", tz="UTC")),
    ("day", pa.date32()),
    ("tags", pa.list_(pa.string())),
    ("codes", pa.list_(pa.int64())),
    ("place", pa.struct([("lat", pa.float64()), ("lon", pa.float64())])),
])  # fmt: skip


def rows(rng, ids):
    def maybe(value):
        return None if rng.random() < 0.1 else value

    out = []
    for i in ids:
        moment = START + timedelta(hours=rng.randrange(200))
        values = {
            "color": rng.choice(COLORS),
            "name": f"item-{i:04}",
            "size": rng.choice([-(2**63), -1, 0, 1, 7, 2**53 + 1, 2**63 - 1, rng.randrange(100)]),
            "price": rng.choice([-0.0, 0.0, 0.1, 1e300, float("nan"), rng.random() * 100]),
            "stock": rng.random() < 0.3,
            "made": moment,
            "day": moment.date(),
            "tags": [maybe(rng.choice(COLORS)) for _ in range(rng.randrange(4))],
            "codes": [rng.choice([0, 1, 2, 50]) for _ in range(rng.randrange(3))],
            "place": {
                "lat": rng.choice([-90.0, 0.0, 90.0, rng.uniform(-90, 90)]),
                "lon": rng.choice(
                    [-180.0, 179.9, 180.0, -179.9, rng.uniform(-180, 180), rng.uniform(-20, 20)]
                ),
            },
        }
        out.append({"id": i, "vector": [1.0, float(i)], **{k: maybe(v) for k, v in values.items()}})
    return pa.Table.from_pylist(out, schema=SCHEMA)


def some_filter(rng, depth=2):
    """Return a filter in Qdrant's JSON."""
    if depth and rng.random() < 0.5:
        clause = rng.choice(["must", "should", "must_not"])
        parts = [some_filter(rng, depth - 1) for _ in range(rng.randrange(1, 3))]
        return {clause: parts}
    key = rng.choice(list(KINDS))
    if key == "place" and rng.random() < 0.8:
        return {"key": key, **some_shape(rng)}
    values = {
        "color": COLORS, "name": ["item-0007", "item-0100", "nothing"], "size": [-(2**63), 0, 7, 2**53 + 1],
        "stock": [True, False], "tags": COLORS, "codes": [0, 1, 2, 3],
    }  # fmt: skip
    kind = rng.choice(["value", "any", "except", "range", "empty", "null", "count", "substring"])
    if kind in {"value", "any", "except"} and key in values:
        chosen = rng.sample(values[key], min(2, len(values[key])))
        if kind == "value" or key == "stock":
            return {"key": key, "match": {"value": chosen[0]}}
        return {"key": key, "match": {kind: chosen}}
    if kind == "substring" and key in {"color", "name"}:
        return {"key": key, "match": {"text": rng.choice(["re", "item", "00", "grün"])}}
    if kind == "empty":
        return {"is_empty": {"key": key}}
    if kind == "null":
        return {"is_null": {"key": key}}
    if kind == "count":
        return {"key": key, "values_count": {rng.choice(["lt", "gte"]): rng.randrange(3)}}
    if key == "place":
        return {"key": "place.lat", "range": {"gte": rng.uniform(-90, 90)}}
    if key in {"made", "day"}:
        bound = (START + timedelta(hours=rng.randrange(200))).isoformat()
        return {"key": key, "range": {rng.choice(["lt", "gte", "gt", "lte"]): bound}}
    return {"key": key, "range": {rng.choice(["lt", "gte", "gt", "lte"]): rng.choice([-1, 0, 0.1, 7, 50])}}


def some_shape(rng):
    def corner():
        return {"lat": rng.uniform(-90, 90), "lon": rng.uniform(-180, 180)}

    if rng.random() < 0.5:
        center = corner() if rng.random() < 0.6 else {"lat": rng.choice([89.0, -60.0]), "lon": 179.5}
        return {"geo_radius": {"center": center, "radius": rng.choice([1e4, 1e6, 4e6, 1.2e7])}}
    a, b, c = corner(), corner(), corner()
    if rng.random() < 0.5:
        return {"geo_bounding_box": {"top_left": a, "bottom_right": b}}
    return {"geo_polygon": {"exterior": {"points": [a, b, c, a]}}}


def some_sql(rng):
    """Return a filter in SQL."""
    one = rng.choice([
        "color = 'red'", "color <> 'red'", "color IN ('red', 'it''s')", "color LIKE 'gr%'", "color IS NULL",
        "starts_with(name, 'item-00')", "contains(name, '10')", "name > 'item-0050'", "name BETWEEN 'a' AND 'j'",
        "size < 0", "size <> 7", "size >= 9007199254740993", "price = 0", "price > 0", "price <= 0.1",
        "price IS NOT NULL", "stock", "NOT stock", "stock IS NULL", "made > '2024-01-03'", "day <= '2024-01-02'",
        "place.lon > 100", "place.lat BETWEEN -10 AND 10", "list_contains(tags, 'red')", "list_has_any(codes, [1, 2])", "NOT list_contains(tags, 'blue')",
    ])  # fmt: skip
    if rng.random() < 0.4:
        return f"NOT ({one})" if rng.random() < 0.5 else f"({one}) OR ({some_sql(rng)})"
    return one if rng.random() < 0.5 else f"({one}) AND ({some_sql(rng)})"


def check(found, rng, filters=25):
    """Compare filters with what `Filter.matches` says of every point."""
    points = found.get(list(range(1000)), with_vectors=True).to_pylist(layout="qdrant")
    for _ in range(filters):
        spec = some_filter(rng) if rng.random() < 0.6 else some_sql(rng)
        filter = vd.Filter(spec)
        expected = {p["id"] for p in points if filter.matches(p)}

        hits = found.scan(filter=filter, columns=[], with_vectors=False).read_all()

        assert set(hits["id"].to_pylist()) == expected, spec
        assert found.count(filter) == len(expected)


def collection(rng, ids):
    made = vd.create(f"memory://payload-{uuid.uuid4().hex}", vectors=vd.VectorParams(size=2))
    made.upsert(rows(rng, ids))
    return made


def run_at_random(seed, steps):
    rng = random.Random(seed)
    found = collection(rng, range(200))
    check(found, rng)
    for _ in range(steps):
        step = rng.choice(["index", "index", "upsert", "delete", "patch", "optimize", "drop"])
        if step == "index":
            key = rng.choice(list(KINDS))
            found.create_payload_index(key, rng.choice([None, *KINDS[key]]))
        elif step == "upsert":
            found.upsert(rows(rng, rng.sample(range(300), rng.choice([1, 20, 100]))))
        elif step == "delete":
            found.delete(rng.sample(range(300), 10))
        elif step == "patch":
            found.set_payload({"color": rng.choice(COLORS), "size": 7}, ids=rng.sample(range(300), 20))
        elif step == "optimize":
            found.optimize()
        elif found.indexes:
            found.drop_index(rng.choice(found.indexes).name)
        check(found, rng, filters=12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_answers_do_not_depend_on_indexes(seed):
    run_at_random(seed, steps=25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "kind"), [(k, kind) for k, kinds in KINDS.items() for kind in [None, *kinds]]
)
def test_each_kind_answers_as_no_index_does(key, kind):
    rng = random.Random(f"{key} {kind}")
    found = collection(rng, range(60))
    found.create_payload_index(key, kind)

    check(found, rng, filters=6)
    found.upsert(rows(rng, range(40, 80)))
    check(found, rng, filters=6)
    found.optimize()
    check(found, rng, filters=6)


def test_hits_of_a_search_do_not_depend_on_indexes():
    rng = random.Random(21)
    found = collection(rng, range(300))
    specs = [some_filter(rng) for _ in range(20)]

    before = [found.search([1, 5], filter=s, limit=20)["id"].to_pylist() for s in specs]
    for key in KINDS:
        found.create_payload_index(key)

    assert before == [found.search([1, 5], filter=s, limit=20)["id"].to_pylist() for s in specs]


# ------------------------------------------------------------------------- listing


def test_indexes_are_listed_by_the_kind_that_was_asked_for():
    found = collection(random.Random(22), range(50))
    for key, kind in (("color", "keyword"), ("color", "text"), ("size", None), ("tags", "label_list")):
        found.create_payload_index(key, kind)

    listed = {i.name: (i.kind, i.on, i.params["lance"], i.rows) for i in found.indexes}

    assert listed == {
        "color_idx": ("keyword", "color", "btree", 50),
        "color.text_idx": ("text", "color", "inverted", 50),
        "size_idx": ("btree", "size", "btree", 50),
        "tags_idx": ("label_list", "tags", "label_list", 50),
    }


def test_a_new_kind_takes_the_place_of_the_old_one():
    found = collection(random.Random(23), range(50))

    found.create_payload_index("color", "keyword")
    made = found.create_payload_index("color", "bitmap")

    assert [(i.name, i.kind) for i in found.indexes] == [("color_idx", "bitmap")]
    assert made.kind == "bitmap"


def test_a_dropped_index_is_gone():
    found = collection(random.Random(24), range(50))
    found.create_payload_index("color", "text")
    found.drop_index("color.text_idx")

    assert found.indexes == []
    found.optimize()
    assert found.indexes == []


def test_rows_written_later_are_unindexed_until_optimize():
    found = collection(random.Random(25), range(50))
    found.create_payload_index("color")
    found.upsert(rows(random.Random(26), range(50, 60)))
    before = found.indexes[0].unindexed_rows
    found.optimize()

    assert (before, found.indexes[0].unindexed_rows) == (10, 0)


def test_an_index_that_a_wider_column_lost_comes_back_with_optimize():
    found = vd.create(f"memory://payload-{uuid.uuid4().hex}", vectors=vd.VectorParams(size=2))
    found.upsert([{"id": i, "vector": [1, i], "size": i} for i in range(20)])
    found.create_payload_index("size", "integer")
    found.upsert([{"id": 20, "vector": [1, 1], "size": 1.5}])
    found.optimize()

    assert [(i.name, i.kind, i.unindexed_rows) for i in found.indexes] == [("size_idx", "integer", 0)]
    assert found.count("size > 1 AND size < 3") == 2


def test_a_lost_index_that_no_longer_fits_stays_away():
    remembered = {
        "size_idx": {"kind": "integer", "lance": "btree"},
        "vector_idx": {"kind": "ivf_rq", "num_bits": 5},
        "gone_idx": {"kind": "keyword", "lance": "btree"},
        "name.text_idx": {"kind": "text", "lance": "inverted", "stem": False},
    }
    payload = {n: PayloadColumn(name=n, type=t) for n, t in (("size", pa.float64()), ("name", pa.string()))}

    (lost,) = lost_indexes(remembered, set(), payload)

    assert (lost.name, lost.lance, lost.options["stem"]) == ("name.text_idx", "inverted", False)


def test_a_list_from_a_parquet_file_uses_its_index():
    # DataFusion casts a list whose items are called "element", and then no index answers.
    found = vd.create(f"memory://payload-{uuid.uuid4().hex}", vectors=vd.VectorParams(size=2))
    element = pa.list_(pa.field("element", pa.string()))
    table = pa.table({
        "id": pa.array(range(3), pa.uint64()),
        "vector": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
        "tags": pa.array([["a"], ["b"], []], element),
    })  # fmt: skip
    found.upsert(table)
    found.create_payload_index("tags")

    plan = found.to_lance().scanner(filter="array_has(tags, 'a')").explain_plan()

    assert "ScalarIndexQuery" in plan


# -------------------------------------------------------------------------- places


def places(**places_by_id):
    made = vd.create(f"memory://payload-{uuid.uuid4().hex}", vectors=vd.VectorParams(size=2))
    made.upsert([{"id": int(i[1:]), "vector": [1, 1], "payload": {"at": p}} for i, p in places_by_id.items()])
    return made


BERLIN = {"must": [{"key": "at", "geo_radius": {"center": {"lat": 52.5, "lon": 13.4}, "radius": 50_000}}]}


def test_json_places_are_a_column_and_come_back_as_they_were():
    given = {"p1": {"lat": 52.52, "lon": 13.4}, "p2": {"lon": 2.35, "lat": 48.86}, "p3": {"lat": 52, "lon": 13},
             "p4": {"lat": 52.5, "lon": 13.4, "alt": 30.0}, "p5": [{"lat": 52.5, "lon": 13.4}], "p6": None,
             "p7": {"lat": 52.51, "lon": True}}  # fmt: skip
    made = places(**given)

    assert str(made.schema.payload["at"].type) == "struct<lat: double, lon: double>"
    stored = {f"p{p['id']}": p["payload"]["at"] for p in made.scroll().to_pylist(layout="qdrant")}
    assert stored == given
    assert type(stored["p3"]["lat"]) is int
    assert made.scroll(filter=BERLIN)["id"].to_pylist() == [1, 4, 5]


def test_one_index_of_places_is_two_of_lance_and_goes_as_one():
    made = places(p1={"lat": 52.52, "lon": 13.4}, p2={"lat": 48.86, "lon": 2.35})
    info = made.create_payload_index("at", "geo")

    assert (info.name, info.kind, info.on, info.rows) == ("at.geo_idx", "geo", "at", 2)
    assert [i.name for i in made.indexes] == ["at.geo_idx"]
    assert len(made.to_lance().describe_indices()) == 2
    assert made.count(BERLIN) == 1
    made.upsert([{"id": 3, "vector": [1, 1], "payload": {"at": {"lat": 52.4, "lon": 13.1}}}])
    assert made.indexes[0].unindexed_rows == 1
    made.optimize()
    assert (made.indexes[0].unindexed_rows, made.count(BERLIN)) == (0, 2)
    made.drop_index("at.geo_idx")
    assert made.to_lance().describe_indices() == []


def test_a_box_of_an_index_is_asked_of_lance():
    made = places(p1={"lat": 52.52, "lon": 13.4}, p2={"lat": 48.86, "lon": 2.35})
    made.create_payload_index("at")
    reader = made._read()
    compiled = vd.filters.compile_lance(
        vd.Filter(BERLIN), columns=reader.schema.payload, extra_keys=(), id_type="uint64", vectors={}
    )

    plan = made.to_lance().scanner(filter=compiled.dirty).explain_plan()

    assert plan.count("BTree") >= 2
    assert "full_filter" in plan


# ------------------------------------------------------------------------ which way


def test_indexes_are_asked_where_few_rows_match():
    rng = random.Random(31)
    made = vd.create(f"memory://payload-{uuid.uuid4().hex}", vectors=vd.VectorParams(size=2))
    count = 30_000
    made.upsert(pa.table({
        "id": pa.array(range(count), pa.uint64()),
        "vector": pa.array([[1.0, 2.0]] * count, pa.list_(pa.float32(), 2)),
        "price": pa.array([rng.random() for _ in range(count)]),
        "size": pa.array([rng.randrange(1_000) for _ in range(count)]),
        "free": pa.array([rng.random() for _ in range(count)]),
    }))  # fmt: skip
    made.create_payload_index("price")
    made.create_payload_index("size")
    reader = made._read()
    indexed = {
        text: reader.select(text).indexed
        for text in (
            "price < 0.01", "price < 0.9", "size = 7", "size <> 7", "price < 0.1 AND size < 100",
            "price < 0.9 AND size < 900", "price < 0.01 OR free < 0.9", "free < 0.9",
        )
    }  # fmt: skip

    assert [t for t, yes in indexed.items() if not yes] == [
        "price < 0.9", "size <> 7", "price < 0.9 AND size < 900",
    ]  # fmt: skip
    with duckdb.connect() as con:
        con.register("stored", made.to_arrow().select(["price", "size", "free"]))
        counts = {t: con.sql(f"SELECT count(*) FROM stored WHERE {t}").fetchall()[0][0] for t in indexed}
    assert {t: made.count(t) for t in indexed} == counts


# ------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("key", "kind", "error", "message"),
    [
        ("color", "integer", vd.InvalidInputError, "holds string; an index 'integer' takes integers"),
        ("color", "datetime", vd.InvalidInputError, "times in text are compared one by one"),
        ("size", "keyword", vd.InvalidInputError, "holds int64; an index 'keyword' takes text"),
        ("size", "text", vd.InvalidInputError, "takes text, or lists of it"),
        ("price", "integer", vd.InvalidInputError, "holds double"),
        ("tags", "btree", vd.InvalidInputError, "takes single values"),
        ("tags", "ngram", vd.InvalidInputError, "an index 'ngram' takes text"),
        ("color", "label_list", vd.InvalidInputError, "takes lists"),
        ("stock", "geo", vd.InvalidInputError, "an index 'geo' takes places"),
        ("place", "keyword", vd.InvalidInputError, "an index 'keyword' takes text"),
        ("place", "label_list", vd.InvalidInputError, "takes lists"),
        ("color", "keywrd", vd.UnknownNameError, "kind 'keywrd' is not known"),
        ("colour", "keyword", vd.UnknownNameError, "no payload column 'colour'"),
        ("address", "geo", vd.UnknownNameError, "no payload column 'address'"),
    ],
)
def test_a_kind_that_does_not_fit_is_refused(key, kind, error, message):
    found = collection(random.Random(27), range(20))
    found.upsert([{"id": 900, "vector": [1, 1], "address": {"city": "Berlin"}}])

    with pytest.raises(error, match=re.escape(message)):
        found.create_payload_index(key, kind)
    assert found.indexes == []


def test_only_text_has_options():
    found = collection(random.Random(28), range(20))

    with pytest.raises(vd.UnknownNameError, match="takes no option 'stem'"):
        found.create_payload_index("color", "keyword", stem=True)


def test_integers_that_are_stored_as_floats_are_integers():
    column = PayloadColumn(name="n", type=pa.float64(), json_number=True)

    assert payload_index(column, "integer", {}).lance == "btree"
