"""Points on their way in and out: every shape that is taken, and nothing lost or changed on the way."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
import uuid

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdataset as vd
from vecdataset import points as points_module
from vecdataset.schema import MAX_PROMOTED

IDS = [3, 1, 2]
VECTORS = [[3.0, 0.5], [1.0, 0.5], [2.0, 0.5]]
NAMES = ["c", "a", "b"]
STORED = [
    {"id": 1, "vector": [1.0, 0.5], "payload": {"name": "a"}},
    {"id": 2, "vector": [2.0, 0.5], "payload": {"name": "b"}},
    {"id": 3, "vector": [3.0, 0.5], "payload": {"name": "c"}},
]


@pytest.fixture
def books(tmp_path):
    return vd.create(tmp_path / "books", vectors=vd.VectorParams(size=2, distance="Euclid"))


@pytest.fixture
def two_named(tmp_path):
    params = {"text": vd.VectorParams(size=2), "image": vd.VectorParams(size=3)}
    return vd.create(tmp_path / "two", vectors=params)


def everything(collection):
    return collection.scroll(limit=10_000, with_vectors=True).to_pylist(layout="qdrant")


def payloads(collection):
    found = collection.scroll(limit=10_000).to_pylist(layout="qdrant")
    return {point["id"]: point["payload"] for point in found}


def canonical(value):
    """JSON text tells 1 from 1.0 and from true, which `==` does not."""
    return json.dumps(value, sort_keys=True)


def table(**columns):
    return pa.table({"id": IDS, "vector": pa.array(VECTORS, pa.list_(pa.float32(), 2)), **columns})


# ------------------------------------------------------------------------------- input kinds


def flat_dicts():
    return [{"id": i, "vector": v, "name": n} for i, v, n in zip(IDS, VECTORS, NAMES, strict=True)]


def qdrant_dicts():
    return [
        {"id": i, "vector": v, "payload": {"name": n}} for i, v, n in zip(IDS, VECTORS, NAMES, strict=True)
    ]


def point_objects():
    return [vd.Point(i, v, {"name": n}) for i, v, n in zip(IDS, VECTORS, NAMES, strict=True)]


def polars_frame():
    return polars.DataFrame(
        {"id": IDS, "vector": VECTORS, "name": NAMES},
        schema_overrides={"vector": polars.Array(polars.Float32, 2)},
    )


def pandas_frame():
    return pandas.DataFrame({"id": IDS, "vector": VECTORS, "name": NAMES})


def duckdb_relation():
    connection = duckdb.connect()
    connection.register("t", table(name=NAMES))
    return connection.sql("SELECT * FROM t")


def with_vector_type(kind):
    return pa.table({"id": IDS, "vector": pa.array(VECTORS, kind), "name": NAMES})


def tensors():
    storage = pa.array(VECTORS, pa.list_(pa.float32(), 2))
    kind = pa.fixed_shape_tensor(pa.float32(), [2])
    return pa.table({"id": IDS, "vector": pa.ExtensionArray.from_storage(kind, storage), "name": NAMES})


INPUTS = {
    "flat dicts": flat_dicts,
    "one flat dict after the other": lambda: iter(flat_dicts()),
    "Qdrant dicts": qdrant_dicts,
    "points": point_objects,
    "a generator of points": lambda: (p for p in point_objects()),
    "points and dicts": lambda: [point_objects()[0], *qdrant_dicts()[1:]],
    "a tuple of dicts": lambda: tuple(flat_dicts()),
    "a polars frame": polars_frame,
    "a polars lazy frame": lambda: polars_frame().lazy(),
    "a polars frame with categories": lambda: polars_frame().cast({"name": polars.Categorical}),
    "a polars frame with an enum": lambda: polars_frame().cast({"name": polars.Enum(NAMES)}),
    "a polars frame of lists": lambda: polars_frame().cast({"vector": polars.List(polars.Float64)}),
    "a pandas frame": pandas_frame,
    "a pandas frame with an index": lambda: pandas_frame().set_index(pandas.Index([7, 8, 9])),
    "an Arrow table": lambda: table(name=NAMES),
    "an Arrow batch": lambda: table(name=NAMES).to_batches()[0],
    "an Arrow reader": lambda: table(name=NAMES).to_reader(),
    "a table in chunks": lambda: pa.concat_tables([table(name=NAMES).slice(i, 1) for i in range(3)]),
    "a DuckDB relation": duckdb_relation,
    "a generator of tables": lambda: (table(name=NAMES).slice(i, 1) for i in range(3)),
    "a generator of batches": lambda: iter(table(name=NAMES).to_batches(max_chunksize=2)),
    "a list of polars frames": lambda: [polars_frame()[:1], polars_frame()[1:]],
    "a slice of a longer table": lambda: pa.concat_tables([table(name=NAMES)] * 2).slice(3, 3),
    "dictionary-encoded text": lambda: table(name=pa.array(NAMES).dictionary_encode()),
    "string views": lambda: table(name=pa.array(NAMES, pa.string_view())),
    "large strings": lambda: table(name=pa.array(NAMES, pa.large_string())),
    "vectors as lists": lambda: with_vector_type(pa.list_(pa.float32())),
    "vectors as large lists": lambda: with_vector_type(pa.large_list(pa.float64())),
    "vectors as list views": lambda: with_vector_type(pa.list_view(pa.float32())),
    "vectors as float16": lambda: with_vector_type(pa.list_(pa.float16(), 2)),
    "vectors as float64": lambda: with_vector_type(pa.list_(pa.float64(), 2)),
    "vectors as tensors": tensors,
    "signed ids": lambda: table(name=NAMES).set_column(0, "id", pa.array(IDS, pa.int32())),
    "dictionary-encoded ids": lambda: table(name=NAMES).set_column(
        0, "id", pa.array(IDS).dictionary_encode()
    ),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_points_come_in_as(books, kind):
    books.upsert(INPUTS[kind]())

    assert everything(books) == STORED


@pytest.mark.parametrize("kind", INPUTS)
def test_a_collection_takes_what_an_iterator_gives_in_one_version(books, kind):
    books.upsert([{"id": 9, "vector": [0, 0], "name": "z"}])
    before = books.version

    books.upsert(INPUTS[kind]())

    assert books.version == before + 1
    assert len(books) == 4


@pytest.mark.parametrize(
    ("ids", "vectors"),
    [
        (IDS, np.array(VECTORS)),
        (np.array(IDS), np.array(VECTORS, np.float32)),
        (np.array(IDS, np.int16), np.array(VECTORS, np.float16)),
        (pa.array(IDS), pa.array(VECTORS, pa.list_(pa.float32(), 2))),
        (tuple(IDS), VECTORS),
    ],
    ids=["lists", "float32", "float16", "Arrow", "nested lists"],
)
def test_ids_and_an_array_are_points_without_payload(books, ids, vectors):
    books.upsert((ids, vectors))

    assert [{**p, "payload": {}} for p in STORED] == everything(books)


def test_a_range_names_the_rows_of_an_array(books):
    books.upsert((range(10, 16, 2), np.array(VECTORS)))

    assert [p["id"] for p in everything(books)] == [10, 12, 14]


def test_pairs_of_ids_and_arrays_may_come_one_after_the_other(books):
    books.upsert((([i], np.array([v])) for i, v in zip(IDS, VECTORS, strict=True)))

    assert [p["vector"] for p in everything(books)] == [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]


def test_another_column_can_hold_the_ids_and_the_vectors(books):
    frame = polars_frame().rename({"id": "isbn", "vector": "embedding"})

    books.upsert(frame, id="isbn", vectors={"": "embedding"})

    assert everything(books) == STORED


def test_named_vectors_come_under_their_names_or_as_columns(two_named):
    two_named.upsert([{"id": 1, "text": [1, 2], "image": [1, 2, 3], "n": 5}])
    two_named.upsert([vd.Point(2, {"text": [1, 2]}), vd.Point(3, {"image": [4, 5, 6]}, {"n": 6})])
    two_named.upsert(pa.table({"id": [4], "text__vector": pa.array([[7.0, 8.0]])}))

    assert everything(two_named) == [
        {"id": 1, "vector": {"text": [1, 2], "image": [1, 2, 3]}, "payload": {"n": 5}},
        {"id": 2, "vector": {"text": [1, 2]}, "payload": {}},
        {"id": 3, "vector": {"image": [4, 5, 6]}, "payload": {"n": 6}},
        {"id": 4, "vector": {"text": [7, 8]}, "payload": {}},
    ]


def test_an_unnamed_vector_beside_named_ones_has_the_empty_name(tmp_path):
    params = {"": vd.VectorParams(size=1), "text": vd.VectorParams(size=2)}
    both = vd.create(tmp_path / "both", vectors=params)
    both.upsert([vd.Point(1, {"": [1], "text": [1, 2]}), vd.Point(2, [2]), vd.Point(3, {"text": [3, 4]})])

    assert [p["vector"] for p in everything(both)] == [{"": [1], "text": [1, 2]}, {"": [2]}, {"text": [3, 4]}]
    assert both.get(1, with_vectors=["vector"]).to_pylist(layout="qdrant")[0]["vector"] == [1]


def test_points_without_vectors_are_kept_and_never_found(books):
    books.upsert([{"id": 1, "vector": None, "a": 1}, {"id": 2, "vector": [1, 1], "a": 2}])

    assert everything(books)[0] == {"id": 1, "vector": None, "payload": {"a": 1}}
    assert books.search([0, 0])["id"].to_pylist() == [2]


def test_points_without_ids_get_uuids(books):
    done = books.upsert([{"vector": v} for v in VECTORS])

    assert books.schema.id_type == "uuid"
    assert sorted(done.ids.to_pylist()) == [p["id"] for p in everything(books)]
    assert len({uuid.UUID(i) for i in done.ids.to_pylist()}) == 3


def test_flat_layout_takes_a_key_named_payload_as_payload(books):
    books.upsert([{"id": 1, "vector": [1, 1], "payload": {"a": 1}}], layout="flat")

    assert payloads(books) == {1: {"payload": {"a": 1}}}


def test_qdrant_layout_reads_structs_of_a_frame(books):
    rows = pa.table({"id": [1], "vector": [[1.0, 2.0]], "payload": ['{"a": [1, null]}']})

    books.upsert(rows, layout="qdrant")

    assert payloads(books) == {1: {"a": [1, None]}}


def test_qdrant_layout_refuses_a_payload_that_is_no_json(books):
    rows = pa.table({"id": [1], "vector": [[1.0, 2.0]], "payload": ["{"]})

    with pytest.raises(vd.InvalidInputError, match="payload of point 1 is not JSON"):
        books.upsert(rows, layout="qdrant")


def test_what_a_collection_gives_out_it_takes_back(books, tmp_path):
    odd = {"a": 1, "b": None, "": [{}], "vector": "v", "a.b": 2.0, "ID": {"id": 1}}
    books.upsert([vd.Point(1, [1, 2], odd), vd.Point(2, [3, 4], {"a": "text"}), vd.Point(3, None, {})])
    copy = vd.create(tmp_path / "copy", vectors=vd.VectorParams(size=2, distance="Euclid"))

    copy.upsert(books)

    assert canonical(everything(copy)) == canonical(everything(books))


def test_flat_rows_that_come_out_go_in_again(books, tmp_path):
    books.upsert([vd.Point(1, [1, 1], {"id": "mine", "score": None, "a": 2, "a.b": [3]})])
    copy = vd.create(tmp_path / "copy", vectors=vd.VectorParams(size=2))

    copy.upsert(books.scroll(with_vectors=True).to_pylist())

    assert payloads(copy) == payloads(books)


# --------------------------------------------------------------------------------------- ids

A_UUID = "6f1a2b3c-0000-4000-8000-00000000abcd"
ID_SHAPES = {
    "uint64": ([0, 2**64 - 1], [0, 2**64 - 1], "uint64"),
    "uuid objects": ([uuid.UUID(A_UUID)], [A_UUID], "uuid"),
    "upper-case uuids": ([A_UUID.upper()], [A_UUID], "uuid"),
    "uuids in braces": (["{" + A_UUID + "}"], [A_UUID], "uuid"),
    "uuid bytes": (pa.array([uuid.UUID(A_UUID).bytes], pa.binary(16)), [A_UUID], "uuid"),
    "an Arrow uuid column": (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(A_UUID).bytes], pa.binary(16))),
        [A_UUID],
        "uuid",
    ),
    "polars categories": (
        polars.Series(["b", "a"], dtype=polars.Categorical).to_arrow(),
        ["a", "b"],
        "string",
    ),
    "text": (["o'clock", "12", "ключ"], ["12", "o'clock", "ключ"], "string"),
    "string views": (pa.array(["b", "a"], pa.string_view()), ["a", "b"], "string"),
    "numbers and uuids": ([A_UUID, 10, 9], [9, 10, A_UUID], "mixed"),
    "numpy numbers": (np.array([2, 1], np.uint8), [1, 2], "uint64"),
}


@pytest.mark.parametrize("shape", ID_SHAPES)
def test_the_first_points_decide_the_id_type(books, shape):
    given_ids, stored, id_type = ID_SHAPES[shape]

    books.upsert((given_ids, np.zeros((len(given_ids), 2))))

    assert books.schema.id_type == id_type
    assert [p["id"] for p in everything(books)] == stored


@pytest.mark.parametrize("shape", ID_SHAPES)
def test_a_point_is_found_by_the_id_it_was_given(books, shape):
    given_ids, _, _ = ID_SHAPES[shape]
    books.upsert((given_ids, np.zeros((len(given_ids), 2))))

    assert len(books.get(given_ids)) == len(given_ids)
    assert books.delete(given_ids).deleted == len(given_ids)


def test_digits_name_the_integer_of_a_mixed_collection(tmp_path):
    mixed = vd.create(tmp_path / "m", vectors=vd.VectorParams(size=1), id_type="mixed")
    mixed.upsert([vd.Point(12, [1]), vd.Point(A_UUID.upper(), [3])])
    mixed.upsert([vd.Point("012", [2]), vd.Point("7", [3])])

    assert [p["id"] for p in everything(mixed)] == [7, 12, A_UUID]
    assert mixed.get("12").to_pylist()[0]["id"] == 12


# ------------------------------------------------------------------- one batch, many batches


def test_the_last_of_an_id_in_a_batch_wins(books):
    batch = [{"id": i, "vector": [i, k], "k": k} for k in range(3) for i in (7, 5)]

    done = books.upsert(batch)

    assert (done.inserted, len(books)) == (2, 2)
    assert payloads(books) == {5: {"k": 2}, 7: {"k": 2}}


def test_the_last_of_an_id_in_a_stream_of_batches_wins(books):
    books.upsert([{"id": 5, "vector": [0, 0], "k": -1}])

    books.upsert(table(k=[k] * 3) for k in range(4))

    assert payloads(books) == {1: {"k": 3}, 2: {"k": 3}, 3: {"k": 3}, 5: {"k": -1}}


def test_the_same_new_uuid_in_two_spellings_is_one_point(books):
    books.upsert([{"id": A_UUID, "vector": [1, 1]}, {"id": A_UUID.upper(), "vector": [2, 2]}])

    assert everything(books) == [{"id": A_UUID, "vector": [2, 2], "payload": {}}]


@pytest.mark.parametrize("spool_after", [1, 500, 10_000])
def test_a_stream_larger_than_the_spool_limit_is_one_commit_with_the_last_of_each_id(
    books, monkeypatch, spool_after
):
    monkeypatch.setattr(points_module, "SPOOL_AFTER_BYTES", spool_after)
    books.upsert([{"id": 0, "vector": [0, 0], "k": -1}])
    before = books.version

    books.upsert(
        pa.table({
            "id": np.arange(k * 50, k * 50 + 100),
            "vector": pa.array(np.full((100, 2), k).tolist(), pa.list_(pa.float32(), 2)),
            "k": [k] * 100,
        })
        for k in range(20)
    )  # fmt: skip

    stored = books.to_lance().to_table(columns=["id", "k", "vector"]).sort_by("id").to_pydict()
    assert books.version == before + 1
    assert stored["id"] == list(range(1050))
    assert stored["k"] == [min(i // 50, 19) for i in range(1050)]
    assert stored["vector"] == [[k, k] for k in stored["k"]]


def test_a_mistake_in_the_last_batch_leaves_nothing_of_a_spooled_stream(books, monkeypatch):
    monkeypatch.setattr(points_module, "SPOOL_AFTER_BYTES", 1)
    before = books.version
    good = ({"id": i, "vector": [i, i], "new": i} for i in range(20_000))

    with pytest.raises(vd.InvalidVectorError, match="'vector' of point 20000 holds NaN"):
        books.upsert([*good, {"id": 20_000, "vector": [0, float("nan")]}])

    assert books.version == before
    assert "new" not in books.schema.payload


def test_the_spool_leaves_no_file_behind(books, monkeypatch, tmp_path):
    monkeypatch.setattr(points_module, "SPOOL_AFTER_BYTES", 1)
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    books.upsert(table(name=NAMES) for _ in range(3))
    with pytest.raises(vd.InvalidIdError):
        books.upsert([table(name=NAMES), {"id": "text", "vector": [1, 1]}])

    assert list(folder.iterdir()) == []


def test_the_first_batch_need_not_bring_the_columns_of_the_next(books):
    books.upsert([table(a=[1, 2, 3]), pa.table({"id": [4], "vector": [[1.0, 1.0]], "b": ["x"]})])

    assert payloads(books) == {1: {"a": 2}, 2: {"a": 3}, 3: {"a": 1}, 4: {"b": "x"}}


def test_an_empty_stream_makes_no_version(books):
    before = books.version

    done = [books.upsert(empty) for empty in ([], iter(()), table(name=NAMES).slice(0, 0))]

    assert {(d.version, d.inserted, d.updated) for d in done} == {(before, 0, 0)}


# -------------------------------------------------------------------- JSON in, the same JSON out

KEYS = ["a", "b", "A", "a.b", "", "id", "ID", "vector", "payload", "score", "_extra", "_rowid", "x__vector",
        "ключ", "with space", 'quo"te', "o'clock", "back`tick", "line\nbreak", "nul\x00", "%s", "a" * 300]  # fmt: skip
numbers = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400]),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 5e-324, 1e308, 1e16, float(2**53), 0.1]),
    st.floats(allow_nan=False, allow_infinity=False),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=4))
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)
json_payloads = st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(batches=st.lists(st.lists(json_payloads, min_size=1, max_size=4), min_size=1, max_size=3))
def test_json_comes_back_as_the_same_json(batches):
    url = f"memory://points/{uuid.uuid4()}"
    collection = vd.create(url, vectors=vd.VectorParams(size=1))
    given_payloads = {}
    for batch in batches:
        numbered = dict(enumerate(batch, start=len(given_payloads)))
        collection.upsert([vd.Point(i, [1], payload) for i, payload in numbered.items()])
        given_payloads.update(numbered)

    assert canonical(payloads(collection)) == canonical(given_payloads)
    assert canonical(payloads(vd.open(url))) == canonical(given_payloads)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(values=st.lists(numbers, min_size=1, max_size=12), cuts=st.sets(st.integers(0, 12), max_size=3))
def test_numbers_of_one_key_come_back_as_int_or_float_as_they_were(values, cuts):
    collection = vd.create(f"memory://points/{uuid.uuid4()}", vectors=vd.VectorParams(size=1))
    points = [vd.Point(i, [1], {"n": v}) for i, v in enumerate(values)]
    edges = [0, *sorted(c for c in cuts if c < len(points)), len(points)]
    for low, high in itertools.pairwise(edges):
        collection.upsert(points[low:high])

    assert [canonical(p["n"]) for p in payloads(collection).values()] == [canonical(v) for v in values]


def test_an_integer_column_that_meets_a_float_widens_and_keeps_what_float64_cannot_hold(books):
    books.upsert([vd.Point(i, [1, 1], {"n": v}) for i, v in enumerate([1, 2**53 + 1, -(2**62) - 1])])
    assert books.schema.payload["n"].type == pa.int64()

    books.upsert([vd.Point(9, [1, 1], {"n": 0.5})])

    assert books.schema.payload["n"].type == pa.float64()
    assert [p["n"] for p in payloads(books).values()] == [1, 2**53 + 1, -(2**62) - 1, 0.5]
    column = books.to_lance().to_table(columns=["id", "n"]).sort_by("id")["n"].to_pylist()
    assert column == [1.0, float(2**53 + 1), float(-(2**62) - 1), 0.5]


def test_a_key_of_one_type_is_a_column_and_everything_else_lives_in_extra(books):
    books.upsert([vd.Point(1, [1, 1], {
        "n": 1, "x": 1.5, "t": "t", "b": True, "tags": ["a", "b"], "day": dt.date(2024, 2, 29),
        "object": {"a": 1}, "empty": [], "none": None, "huge": 2**64, "a.b": 1, "": 1, "mixed": [1, "a"],
    })])  # fmt: skip

    assert {c.name: c.type for c in books.schema.payload.values()} == {
        "n": pa.int64(), "x": pa.float64(), "t": pa.string(), "b": pa.bool_(),
        "tags": pa.list_(pa.string()), "day": pa.date32(),
    }  # fmt: skip


def test_a_missing_key_and_a_null_stay_two_things(books):
    books.upsert([vd.Point(1, [1, 1], {"a": None, "b": 1}), vd.Point(2, [1, 1], {"b": None})])

    assert payloads(books) == {1: {"a": None, "b": 1}, 2: {"b": None}}


def test_keys_beyond_the_most_columns_live_in_extra(books):
    wide = {f"k{i}": i for i in range(MAX_PROMOTED + 20)}

    books.upsert([vd.Point(1, [1, 1], wide)])

    assert payloads(books) == {1: wide}
    assert len(books.schema.payload) == MAX_PROMOTED


def test_dates_and_times_of_dicts_become_columns(books):
    moment = dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=dt.UTC)
    books.upsert([{"id": 1, "vector": [1, 1], "at": moment, "day": dt.date(1969, 7, 20)}])

    assert books.get(1).to_pylist() == [{"id": 1, "at": moment, "day": dt.date(1969, 7, 20)}]


def test_numpy_values_of_dicts_are_plain_values(books):
    books.upsert([{"id": np.int64(1), "vector": np.ones(2, np.float32), "n": np.float32(1.5), "k": np.arange(2),
                   "u": uuid.UUID(A_UUID), "t": (1, 2)}])  # fmt: skip

    assert payloads(books) == {1: {"n": 1.5, "k": [0, 1], "u": A_UUID, "t": [1, 2]}}


def test_flat_rows_put_reserved_keys_inside_extra(books):
    books.upsert([vd.Point(1, [1, 1], {"id": "mine", "score": 1, "a": 2, "a.b": 3})])

    assert books.get(1).to_pylist() == [{"id": 1, "a": 2, "a.b": 3, "_extra": {"id": "mine", "score": 1}}]


# ----------------------------------------------------------------- Arrow in, the same Arrow out

ARROW = {
    "int8": pa.array([1, None, -128], pa.int8()),
    "uint16": pa.array([1, None, 65535], pa.uint16()),
    "int64": pa.array([2**53 + 1, None, -(2**63)], pa.int64()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float16": pa.array(np.array([1.5, 0, 2], np.float16)),
    "float32": pa.array([0.1, None, float("inf")], pa.float32()),
    "float64": pa.array([0.1, None, -0.0], pa.float64()),
    "bool": pa.array([True, None, False]),
    "string": pa.array(["a", None, ""]),
    "large_string": pa.array(["a", None, "ü"], pa.large_string()),
    "binary": pa.array([b"a", None, b""]),
    "large_binary": pa.array([b"a", None, b""], pa.large_binary()),
    "fixed binary": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "date32": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1)]),
    "date64": pa.array([dt.date(2024, 2, 29), None, dt.date(1970, 1, 1)], pa.date64()),
    "timestamp s": pa.array([0, None, 1], pa.timestamp("s")),
    "timestamp ms": pa.array([0, None, 1], pa.timestamp("ms", tz="Europe/Berlin")),
    "timestamp us": pa.array([0, None, 1], pa.timestamp("us", tz="UTC")),
    "timestamp ns": pa.array([0, None, 2**60 + 1], pa.timestamp("ns")),
    "time32": pa.array([0, None, 1], pa.time32("ms")),
    "time64": pa.array([0, None, 1], pa.time64("us")),
    "duration": pa.array([0, None, 1], pa.duration("us")),
    "decimal128": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-2.00")], pa.decimal128(10, 2)),
    "list": pa.array([["a"], None, []], pa.list_(pa.string())),
    "list with nulls": pa.array([[1, None], None, []], pa.list_(pa.int32())),
    "large list": pa.array([[1.0], None, []], pa.large_list(pa.float64())),
    "list of lists": pa.array([[[1], []], None, []], pa.list_(pa.list_(pa.int8()))),
    "fixed list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
    "struct": pa.array([{"x": 1, "y": ["a"]}, None, {"x": None, "y": []}]),
    "list of structs": pa.array([[{"x": 1}, {"x": None}], None, []]),
}


@pytest.mark.parametrize("name", ARROW)
def test_arrow_comes_back_as_the_same_arrow(books, name):
    column = ARROW[name]

    books.upsert(table(value=column))

    back = books.to_arrow().sort_by("id")["value"].combine_chunks()
    assert back.type == column.type
    assert back.to_pylist() == column.take(pa.array([1, 2, 0])).to_pylist()


@pytest.mark.parametrize("name", ARROW)
def test_a_second_batch_of_a_type_fits_the_first(books, name):
    column = ARROW[name]
    books.upsert(table(value=column))
    before = books.version

    books.upsert(table(value=column.take(pa.array([2, 1, 0]))))

    assert books.version == before + 1
    assert books.schema.payload["value"].type == column.type


@pytest.mark.parametrize("name", ARROW)
def test_values_of_any_arrow_type_are_dicts_too(books, name):
    column = ARROW[name]
    books.upsert(table(value=column))

    found = {p["id"]: p["payload"] for p in everything(books)}
    for point, value in zip(IDS, column.to_pylist(), strict=True):
        assert found[point] == ({} if value is None else {"value": value})


def test_an_arrow_null_means_missing(books):
    books.upsert(table(a=pa.array([1, None, 2]), b=pa.nulls(3)))

    assert payloads(books) == {1: {}, 2: {"a": 2}, 3: {"a": 1}}


@pytest.mark.parametrize(
    ("first", "second", "wider"),
    [
        (pa.int8(), pa.int32(), pa.int64()),
        (pa.int64(), pa.int8(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.float64(), pa.float32(), pa.float64()),
        (pa.uint8(), pa.uint64(), pa.uint64()),
    ],
)
def test_a_typed_column_widens_for_the_next_frame(books, first, second, wider):
    books.upsert(table(n=pa.array([1, 2, 3], first)))

    books.upsert(pa.table({"id": [4], "vector": [[1.0, 1.0]], "n": pa.array([100], second)}))
    books.upsert(pa.table({"id": [5], "vector": [[1.0, 1.0]], "n": pa.array([255], pa.uint64())}))

    assert [p["n"] for p in payloads(books).values()] == [2, 3, 1, 100, 255]
    assert books.schema.payload["n"].type in (wider, first)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    kinds=st.lists(
        st.sampled_from(
            [pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()]
        ),
        min_size=2,
        max_size=4,
    ),
    data=st.data(),
)
def test_typed_columns_of_any_order_of_types_lose_nothing(kinds, data):
    collection = vd.create(f"memory://points/{uuid.uuid4()}", vectors=vd.VectorParams(size=1))
    expected = []
    for at, kind in enumerate(kinds):
        value = data.draw(arrow_value(kind))
        collection.upsert(pa.table({"id": [at], "vector": [[1.0]], "n": pa.array([value], kind)}))
        expected.append(value)

    assert [p["n"] for p in payloads(collection).values()] == expected


def arrow_value(kind):
    if pa.types.is_integer(kind):
        signed = pa.types.is_signed_integer(kind)
        bits = kind.bit_width
        return st.integers(-(1 << bits - 1) if signed else 0, (1 << bits - signed) - 1)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False, allow_infinity=False, width=kind.bit_width)
    return st.booleans() if pa.types.is_boolean(kind) else st.text(max_size=3)


def test_text_of_a_frame_meets_numbers_of_dicts(books):
    books.upsert(table(a=["x", "y", "z"]))
    books.upsert([vd.Point(4, [1, 1], {"a": 5}), vd.Point(5, [1, 1], {"a": {"b": 1}})])
    books.upsert(pa.table({"id": [6], "vector": [[1.0, 1.0]], "a": [2.5]}))

    assert [p["a"] for p in payloads(books).values()] == ["y", "z", "x", 5, {"b": 1}, 2.5]


def test_an_extra_column_of_json_text_is_payload(books):
    books.upsert(table(_extra=['{"a": 1}', None, '{"b": [null]}']))

    assert payloads(books) == {1: {}, 2: {"b": [None]}, 3: {"a": 1}}


# ------------------------------------------------------------------------------------ bad input

BAD = {
    "a vector of the wrong size": (
        [{"id": 7, "vector": [1, 2, 3]}], vd.InvalidVectorError, "point 7 has size 3.* 'books' declares 2",
    ),
    "an array of the wrong size": (([7], np.zeros((1, 3))), vd.InvalidVectorError, "point 7 has size 3"),
    "a column of the wrong size": (
        pa.table({"id": [7], "vector": pa.array([[1.0, 2, 3]], pa.list_(pa.float32(), 3))}),
        vd.InvalidVectorError, "point 7 has size 3",
    ),
    "a list column with one vector of the wrong size": (
        pa.table({"id": [6, 7], "vector": [[1.0, 2.0], [1.0]]}), vd.InvalidVectorError, "point 7 has size 1",
    ),
    "NaN": ([{"id": 7, "vector": [1, float("nan")]}], vd.InvalidVectorError, "point 7 holds NaN"),
    "infinity": (([7], np.array([[1, np.inf]])), vd.InvalidVectorError, "point 7 holds infinity"),
    "a component beyond float32": (([7], np.array([[1, 1e300]])), vd.InvalidVectorError, "point 7 does not fit"),
    "a null component": (
        pa.table({"id": [7], "vector": [[1.0, None]]}), vd.InvalidVectorError, "point 7 holds a null",
    ),
    "text for a vector": ([{"id": 7, "vector": "ab"}], vd.InvalidVectorError, "point 7 .*not a list of numbers"),
    "a number for a vector": ([{"id": 7, "vector": 1.0}], vd.InvalidVectorError, "point 7 is of type float"),
    "a text column for vectors": (
        pa.table({"id": [7], "vector": ["a"]}), vd.InvalidVectorError, "column of type string",
    ),
    "vectors one dimension deep": (([7, 8], np.zeros(2)), vd.InvalidInputError, r"shape \(2,\)"),
    "fewer vectors than ids": (([7, 8], np.zeros((1, 2))), vd.InvalidInputError, "2 ids and 1 vectors"),
    "an unknown vector name": (
        [vd.Point(7, {"txet": [1, 1]})], vd.UnknownNameError, "'txet' of point 7 is not declared",
    ),
    "no vector column": (pa.table({"id": [7], "embedding": [[1.0, 1.0]]}), vd.UnknownNameError, "no column 'vector'"),
    "no vector key": ([{"id": 7, "embedding": [1, 1]}], vd.UnknownNameError, "no column 'vector'"),
    "a text id": ([{"id": "seven", "vector": [1, 1]}], vd.InvalidIdError, "'seven' is a string"),
    "ids two dimensions deep": ((np.zeros((1, 2), int), np.zeros((1, 2))), vd.InvalidIdError, r"shape \(1, 2\)"),
    "a float id": ([{"id": 7.0, "vector": [1, 1]}], vd.InvalidIdError, "7.0 is of type float"),
    "a float id column": (pa.table({"id": [7.0], "vector": [[1.0, 1.0]]}), vd.InvalidIdError, "type double"),
    "a boolean id": ([{"id": True, "vector": [1, 1]}], vd.InvalidIdError, "True is of type bool"),
    "a negative id": ([{"id": -1, "vector": [1, 1]}], vd.InvalidIdError, "-1 is (out of range|negative)"),
    "a negative id in a column": (pa.table({"id": [-7], "vector": [[1.0, 1.0]]}), vd.InvalidIdError, "-7 is negative"),
    "an id beyond 64 bits": ([{"id": 2**64, "vector": [1, 1]}], vd.InvalidIdError, "out of range"),
    "a null id": (
        pa.table({"id": pa.array([7, None], pa.uint64()), "vector": [[1.0, 1.0]] * 2}),
        vd.InvalidIdError, "point 1 of the batch has no id",
    ),
    "one point without id": (
        [{"id": 7, "vector": [1, 1]}, {"vector": [1, 1]}], vd.InvalidInputError, "1 of 2 points have no id",
    ),
    "no ids where they are numbers": ([{"vector": [1, 1]}], vd.InvalidIdError, "bring no ids"),
    "a value that JSON cannot": ([vd.Point(7, [1, 1], {"k": object()})], vd.InvalidInputError, "'k'.*object"),
    "NaN inside a payload": ([vd.Point(7, [1, 1], {"k": [{"a": float("nan")}]})], vd.InvalidInputError, "'k'"),
    "bytes in a payload": ([vd.Point(7, [1, 1], {"k": b"a"})], vd.InvalidInputError, "'k'"),
    "half a surrogate pair": ([vd.Point(7, [1, 1], {"k": "\ud800"})], vd.InvalidInputError, "'k'"),
    "half a surrogate pair as a key": ([vd.Point(7, [1, 1], {"\ud800": 1})], vd.InvalidInputError, "key"),
    "a key that is no text": ([vd.Point(7, [1, 1], {7: 1})], vd.InvalidInputError, "key 7 is of type int"),
    "a payload that is no dict": ([vd.Point(7, [1, 1], [1])], vd.InvalidInputError, "payload of point 7"),
    "text for points": ("points", vd.InvalidInputError, "points come as str"),
    "a number for points": (7, vd.InvalidInputError, "points come as int"),
    "numbers for points": ([1, 2], vd.InvalidInputError, "list of int"),
    "a number among points": ([{"id": 7, "vector": [1, 1]}, 8], vd.InvalidInputError, "of type int"),
    "a column twice": (
        pa.Table.from_arrays([pa.array([7])] * 2 + [pa.array([[1.0, 1.0]])], names=["id", "id", "vector"]),
        vd.InvalidInputError, "'id' stands twice",
    ),
    "extra that is not JSON": (
        pa.table({"id": [7], "vector": [[1.0, 1.0]], "_extra": ["{"]}), vd.InvalidInputError, "'_extra'.*not JSON",
    ),
    "extra that is no object": (
        pa.table({"id": [7], "vector": [[1.0, 1.0]], "_extra": ["[1]"]}), vd.InvalidInputError, "not a JSON object",
    ),
    "extra that is no text": (
        pa.table({"id": [7], "vector": [[1.0, 1.0]], "_extra": [1]}), vd.InvalidInputError, "_extra",
    ),
    "a dict whose extra is a number": (
        [{"id": 7, "vector": [1.0, 1.0], "_extra": 1}], vd.InvalidInputError, "'_extra'.*neither a dict nor text",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("points", "error", "hint"),
    [
        ({"id": list(range(1000)), "vector": [[1, 1]] * 1000}, vd.InvalidIdError, "for columns pass a frame"),
        (
            {"id": np.arange(1000), "vector": np.ones((1000, 2))},
            vd.InvalidIdError,
            "for columns pass a frame",
        ),
        (np.ones((5, 2)), vd.InvalidInputError, "(ids, array)"),
    ],
)
def test_columns_that_come_as_no_frame_are_told_how_to(books, points, error, hint):
    with pytest.raises(error) as caught:
        books.upsert(points)

    assert hint in caught.value.hint
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("write", ["insert", "upsert"])
@pytest.mark.parametrize("case", BAD)
def test_one_clear_error_and_nothing_written_for(books, case, write):
    points, error, message = BAD[case]
    books.upsert([{"id": 1, "vector": [1, 1], "a": 1}])
    before = books.version

    with pytest.raises(error, match=message) as caught:
        getattr(books, write)(points)

    assert type(caught.value) is error
    assert (books.version, vd.open(books.url).version) == (before, before)
    assert everything(books) == [{"id": 1, "vector": [1, 1], "payload": {"a": 1}}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "isbm"}, "no (column|key) 'isbm'"),
        ({"vectors": {"": "embeding"}}, "no column 'embeding' for vector 'vector'"),
        ({"vectors": {"txet": "vector"}}, "vector 'txet' is not declared"),
    ],
)
@pytest.mark.parametrize("points", [flat_dicts, polars_frame])
def test_an_unknown_column_is_named(books, points, arguments, message):
    with pytest.raises(vd.UnknownNameError, match=message):
        books.upsert(points(), **arguments)

    assert len(books) == 0


def test_a_misspelt_column_is_guessed(books):
    with pytest.raises(vd.UnknownNameError) as caught:
        books.upsert(flat_dicts(), id="nmae")

    assert "did you mean 'name'" in caught.value.hint


def test_an_unknown_layout_is_refused(books):
    with pytest.raises(vd.InvalidInputError, match="layout is 'qdrnt'"):
        books.upsert(flat_dicts(), layout="qdrnt")


def test_insert_of_an_id_that_exists_names_it_and_writes_nothing(books):
    books.insert([{"id": 5, "vector": [5, 5], "a": 1}])
    before = books.version

    with pytest.raises(vd.PointExistsError, match="id 5 exists"):
        books.insert([{"id": 4, "vector": [4, 4]}, {"id": 5, "vector": [0, 0]}])

    assert books.version == before
    assert payloads(books) == {5: {"a": 1}}


@pytest.mark.parametrize(
    "payload", [{"new": 1}, {"a": 0.5}, {"a": {"b": 1}}], ids=["column", "wider", "extra"]
)
def test_insert_of_an_id_that_exists_leaves_the_schema_as_it_was(books, payload):
    books.insert([{"id": 5, "vector": [5, 5], "a": 1}])
    before = books.version

    with pytest.raises(vd.PointExistsError):
        books.insert([vd.Point(5, [0, 0], payload)])

    assert vd.open(books.url).version == before


def test_insert_of_an_id_twice_in_the_batch_names_it_and_writes_nothing(books):
    before = books.version

    with pytest.raises(vd.PointExistsError, match="id 4 stands twice"):
        books.insert([{"id": 4, "vector": [4, 4]}, {"id": 3, "vector": [4, 4]}, {"id": 4, "vector": [0, 0]}])

    assert books.version == before


@pytest.mark.parametrize(
    ("id_type", "wrong"),
    [("uuid", "seven"), ("uuid", 7), ("string", 7), ("mixed", "seven"), ("mixed", -1), ("uint64", A_UUID)],
)
def test_an_id_of_another_type_is_refused(tmp_path, id_type, wrong):
    strict = vd.create(tmp_path / "strict", vectors=vd.VectorParams(size=1), id_type=id_type)

    with pytest.raises(vd.InvalidIdError, match=str(wrong)):
        strict.upsert([vd.Point(wrong, [1])])
    with pytest.raises(vd.InvalidIdError, match=str(wrong)):
        strict.get(wrong)

    assert len(strict) == 0


@pytest.mark.parametrize("datatype", ["uint8", "int8", "float16"])
def test_a_component_outside_its_datatype_is_refused(tmp_path, datatype):
    small = vd.create(tmp_path / "small", vectors=vd.VectorParams(size=2, datatype=datatype))

    with pytest.raises(vd.InvalidVectorError, match="point 3"):
        small.upsert([vd.Point(2, [1, 2]), vd.Point(3, [0, 70_000])])

    assert len(small) == 0


@pytest.mark.parametrize("way", ["collection", "frame", "table"])
def test_json_numbers_stay_ints_and_floats_from_one_collection_into_another(tmp_path, way):
    stored = [{"a": 1}, {"a": 2.5}, {"a": 3.0}, {"a": 2**53 + 1}, {"a": "text"}, {"a": None}, {}]
    points = [{"id": i, "vector": [1, i], "payload": p} for i, p in enumerate(stored)]
    first = vd.create(tmp_path / "first", vectors=vd.VectorParams(2))
    second = vd.create(tmp_path / "second", vectors=vd.VectorParams(2))
    third = vd.create(tmp_path / "third", vectors=vd.VectorParams(2))
    first.upsert(points)
    third.upsert([{"id": 99, "vector": [0, 1], "a": "text from the beginning"}])
    source = {
        "collection": lambda: first,
        "frame": lambda: first.get(range(len(points)), with_vectors=True),
        "table": first.to_arrow,
    }[way]

    second.upsert(source())
    third.upsert(source())

    for other in (second, third):
        back = other.get(range(len(points))).to_pylist(layout="qdrant")
        assert [p["payload"] for p in back] == stored
        assert [type(p["payload"].get("a")) for p in back] == [type(p.get("a")) for p in stored]


def test_decimals_in_memory_that_lance_cannot_read_are_moved(tmp_path):
    # IPC pads buffers to 8 bytes, and Lance wants decimals at multiples of 16.
    prices = pa.array([decimal.Decimal("1.10"), decimal.Decimal("2.20")], pa.decimal128(10, 2))
    memory = np.zeros(64, np.uint8)
    start = (8 - memory.ctypes.data) % 16
    memory[start : start + 32] = np.frombuffer(prices.buffers()[1], np.uint8, 32)
    odd = pa.Array.from_buffers(prices.type, 2, [None, pa.py_buffer(memory[start : start + 32])])
    assert odd.buffers()[1].address % 16 == 8
    vectors = pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32(), 2))
    collection = vd.create(tmp_path / "c", vectors=vd.VectorParams(2))

    collection.upsert(pa.table({"id": pa.array([0, 1], pa.uint64()), "vector": vectors, "price": odd}))

    assert collection.scroll()["price"].to_pylist() == prices.to_pylist()
