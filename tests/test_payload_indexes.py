"""Payload indexes: they are built for the column they stand over, and change no answer."""

import random
import re
import uuid
from datetime import UTC, datetime, timedelta

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
    if key in {"made", "day"}:
        bound = (START + timedelta(hours=rng.randrange(200))).isoformat()
        return {"key": key, "range": {rng.choice(["lt", "gte", "gt", "lte"]): bound}}
    return {"key": key, "range": {rng.choice(["lt", "gte", "gt", "lte"]): rng.choice([-1, 0, 0.1, 7, 50])}}


def some_sql(rng):
    """Return a filter in SQL."""
    one = rng.choice([
        "color = 'red'", "color <> 'red'", "color IN ('red', 'it''s')", "color LIKE 'gr%'", "color IS NULL",
        "starts_with(name, 'item-00')", "contains(name, '10')", "name > 'item-0050'", "name BETWEEN 'a' AND 'j'",
        "size < 0", "size <> 7", "size >= 9007199254740993", "price = 0", "price > 0", "price <= 0.1",
        "price IS NOT NULL", "stock", "NOT stock", "stock IS NULL", "made > '2024-01-03'", "day <= '2024-01-02'",
        "list_contains(tags, 'red')", "list_has_any(codes, [1, 2])", "NOT list_contains(tags, 'blue')",
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
        ("stock", "geo", vd.NotSupportedError, "cannot have an index 'geo' yet"),
        ("color", "keywrd", vd.UnknownNameError, "kind 'keywrd' is not known"),
        ("colour", "keyword", vd.UnknownNameError, "no payload column 'colour'"),
        ("place", "geo", vd.NotSupportedError, "'place' cannot have an index 'geo' yet"),
        ("place", "keyword", vd.UnknownNameError, "no payload column 'place'"),
    ],
)
def test_a_kind_that_does_not_fit_is_refused(key, kind, error, message):
    found = collection(random.Random(27), range(20))
    found.upsert([{"id": 900, "vector": [1, 1], "place": {"lat": 1.0, "lon": 2.0}}])

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
