"""Files of points: recognised, read, written, and the same points afterwards."""

import gzip
import io
import itertools
import json
import math
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vecdataset as vd
from vecdataset.formats import Format, WritableFormat, formats
from vecdataset.formats.files import open_source, open_target

ENDINGS = ["parquet", "arrow", "arrows", "jsonl", "jsonl.gz"]
fresh = (f"memory://formats-{n}" for n in itertools.count())


def line(**point):
    return json.dumps(point).encode() + b"\n"


def exact(collection):
    """All points as text: 1 and 1.0, and null and nothing, differ."""
    rows = collection.scroll(limit=1000, with_vectors=True).to_pylist(layout="qdrant")
    return [json.dumps(row, sort_keys=True) for row in rows]


@pytest.fixture
def books(tmp_path):
    made = vd.create(str(tmp_path / "books"), vectors=vd.VectorParams(size=2, distance="Dot"))
    made.upsert(
        [
            {"id": 1, "vector": [1.0, 0.1], "payload": {"title": "Dune", "year": 1965, "price": 9}},
            {"id": 2, "vector": None, "payload": {"title": "Solaris", "tags": ["sf", "pl"], "price": 9.5}},
            {"id": 3, "vector": [-0.0, 1e-7], "payload": {"odd": {"a": [1, None, {}]}, "id": "x", "n": None}},
        ]
    )
    return made


# ------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("ending", ENDINGS)
def test_export_and_load_give_the_same_points(books, tmp_path, ending):
    count = books.export(str(tmp_path / f"books.{ending}"))
    again = vd.load(str(tmp_path / f"books.{ending}"), next(fresh))

    assert count == len(again) == 3
    assert exact(again) == exact(books)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "arrows"])
def test_columns_come_back_with_schema_and_types(books, tmp_path, ending):
    books.export(str(tmp_path / f"books.{ending}"))
    again = vd.load(str(tmp_path / f"books.{ending}"), next(fresh))

    assert again.schema == books.schema
    assert again.to_arrow().sort_by("id").equals(books.to_arrow().sort_by("id"))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_typed_columns_come_back_as_they_were(tmp_path, ending):
    table = pa.table(
        {
            "id": pa.array(["a", "b"]),
            "text__vector": pa.array([[1, 2], [3, 4]], pa.list_(pa.float16(), 2)),
            "image__vector": pa.array([None, [0, 255, 7]], pa.list_(pa.uint8(), 3)),
            "at": pa.array([1, None], pa.timestamp("ns", tz="Europe/Paris")),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(10, 2)),
            "small": pa.array([1, None], pa.int8()),
            "box": pa.array([{"w": 1, "h": None}, None], pa.struct({"w": pa.int32(), "h": pa.int32()})),
            "raw": pa.array([b"\x00\xff", b""], pa.binary()),
        }
    )
    vectors = {
        "text": vd.VectorParams(size=2, datatype="float16"),
        "image": vd.VectorParams(size=3, distance="Euclid", datatype="uint8"),
    }
    first = vd.create(next(fresh), vectors=vectors, id_type="string")
    first.upsert(table)
    first.export(str(tmp_path / f"typed.{ending}"))

    again = vd.load(str(tmp_path / f"typed.{ending}"), next(fresh))

    assert again.schema == first.schema
    assert again.to_arrow().sort_by("id").equals(first.to_arrow().sort_by("id"))


def test_jsonl_writes_types_that_json_lacks_as_text(tmp_path):
    first = vd.create(next(fresh), vectors=vd.VectorParams(size=2))
    first.upsert(
        pa.table(
            {
                "id": [1],
                "vector": pa.array([[1, 2]], pa.list_(pa.float32(), 2)),
                "at": pa.array([1_000_000_001], pa.timestamp("ns", tz="UTC")),
                "day": pa.array([19_000], pa.date32()),
                "price": pa.array([Decimal("1.10")], pa.decimal128(10, 2)),
                "raw": pa.array([b"\x00\xff"], pa.binary()),
            }
        )
    )
    first.export(str(tmp_path / "typed.jsonl"))

    assert json.loads((tmp_path / "typed.jsonl").read_text())["payload"] == {
        "at": "1970-01-01T00:00:01.000000001Z",
        "day": "2022-01-08",
        "price": "1.10",
        "raw": "AP8=",
    }


def test_named_vectors_come_back_under_their_names(tmp_path):
    vectors = {"text": vd.VectorParams(size=2), "image": vd.VectorParams(size=3)}
    first = vd.create(next(fresh), vectors=vectors)
    first.upsert(
        [
            {"id": 1, "vector": {"text": [1, 2], "image": [1, 2, 3]}, "payload": {}},
            {"id": 2, "vector": {"text": [0.5, 2]}, "payload": {}},
        ]
    )
    first.export(str(tmp_path / "named.jsonl"))
    again = vd.load(str(tmp_path / "named.jsonl"), next(fresh))

    assert again.schema.vectors == first.schema.vectors
    assert exact(again) == exact(first)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "jsonl"])
def test_sparse_vectors_and_multivectors_come_back(tmp_path, ending):
    vectors = {"many": vd.VectorParams(size=2, multivector=True), "one": vd.VectorParams(size=2)}
    first = vd.create(next(fresh), vectors=vectors, sparse={"words": vd.SparseVectorParams()})
    first.upsert(
        [
            {"id": 1, "vector": {"many": [[1, 2], [3, 4]], "words": {"indices": [9, 2], "values": [0.5, 1]}}},
            {"id": 2, "vector": {"one": [0, 1], "many": [[5, 6]]}},
            {"id": 3, "vector": {"words": {"indices": [], "values": []}}},
        ],
        layout="qdrant",
    )
    first.export(str(tmp_path / f"all.{ending}"))
    again = vd.load(str(tmp_path / f"all.{ending}"), next(fresh))

    assert again.schema.vectors == first.schema.vectors
    assert again.schema.sparse == first.schema.sparse
    assert exact(again) == exact(first)


def test_a_fixed_version_is_exported_while_others_write(books, tmp_path):
    old = books.at(books.version)
    books.delete([1])

    assert old.export(str(tmp_path / "old.jsonl")) == 3


def test_an_empty_collection_keeps_its_declaration(tmp_path):
    empty = vd.create(next(fresh), vectors=vd.VectorParams(size=7, distance="Manhattan"))

    assert empty.export(str(tmp_path / "none.parquet")) == 0
    assert vd.load(str(tmp_path / "none.parquet"), next(fresh)).schema == empty.schema


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63, 2**64, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1.0, 1e300, 5e-324])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
keys = st.sampled_from(["a", "A", "b", "n", "id", "vector", "payload", "_extra", "score", "x.y", "", "é"])
payloads = st.dictionaries(keys, json_values, max_size=5)
vectors = st.none() | st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2
)
ids = st.integers(0, 2**64 - 1) | st.uuids().map(str)
points = st.lists(
    st.fixed_dictionaries({"id": ids, "vector": vectors, "payload": payloads}),
    min_size=1,
    max_size=6,
    unique_by=lambda p: p["id"],
)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=points)
def test_any_json_payload_survives_export_and_load(points, ending, tmp_path):
    first = vd.create(next(fresh), vectors=vd.VectorParams(size=2, distance="Dot"), id_type="mixed")
    first.upsert(points, layout="qdrant")
    first.export(str(tmp_path / f"any.{ending}"))
    again = vd.load(
        str(tmp_path / f"any.{ending}"),
        next(fresh),
        vectors=vd.VectorParams(size=2, distance="Dot"),
        id_type="mixed",
    )

    stored = {
        json.dumps(row["id"]): row
        for row in again.scroll(limit=100, with_vectors=True).to_pylist(layout="qdrant")
    }
    assert exact(again) == exact(first)
    assert {k: json.dumps(v["payload"], sort_keys=True) for k, v in stored.items()} == {
        json.dumps(p["id"]): json.dumps(p["payload"], sort_keys=True) for p in points
    }


# ------------------------------------------------------------------------- what is read


def test_the_only_list_of_floats_is_the_vector(tmp_path):
    table = pa.table(
        {
            "id": [1, 2],
            "embedding": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64())),
            "tags": pa.array([["a"], []], pa.list_(pa.string())),
            "counts": pa.array([[1], [1, 2]], pa.list_(pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")

    made = vd.load(str(tmp_path / "x.parquet"), next(fresh), distance="l2")

    assert made.schema.vectors == {"": vd.VectorParams(size=2, distance="Euclid")}
    assert list(made.schema.payload) == ["tags", "counts"]


def test_a_second_load_upserts(books, tmp_path):
    (tmp_path / "more.jsonl").write_bytes(line(id=3, vector=[1, 1]) + line(id=4, vector=[1, 1]))

    vd.load(str(tmp_path / "more.jsonl"), books.url)

    assert books.scroll()["id"].to_pylist() == [1, 2, 3, 4]
    assert books.get([3]).to_pylist(layout="qdrant")[0]["payload"] == {}


def test_several_candidates_are_named(tmp_path):
    vector = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"id": [1], "title": vector, "body": vector}), tmp_path / "x.parquet")

    with pytest.raises(vd.InvalidInputError, match=r"'title' \(float32\[2\]\), 'body'") as error:
        vd.load(str(tmp_path / "x.parquet"), next(fresh))

    assert "vectors_from={'': 'title'}" in error.value.hint


@pytest.mark.parametrize("argument", ["vectors", "vectors_from"])
def test_columns_of_vectors_can_be_named(tmp_path, argument):
    vector = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"key": ["a"], "title": vector, "body": vector}), tmp_path / "x.parquet")

    made = vd.load(
        str(tmp_path / "x.parquet"), next(fresh), id="key", **{argument: {"t": "title", "b": "body"}}
    )

    assert set(made.schema.vectors) == {"t", "b"}
    assert made.get(["a"], with_vectors=["t"])["t__vector"].to_pylist() == [[1.0, 2.0]]


def test_a_declaration_finds_the_column_that_fits(tmp_path):
    table = pa.table(
        {
            "id": [1],
            "place": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
            "embedding": pa.array([[1.0, 2.0, 3.0]], pa.list_(pa.float32(), 3)),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")

    made = vd.load(
        str(tmp_path / "x.parquet"), next(fresh), vectors=vd.VectorParams(size=3, datatype="float16")
    )

    assert made.schema.vectors[""].datatype == "float16"
    assert list(made.schema.payload) == ["place"]


def test_a_file_without_vectors_is_refused(tmp_path):
    pq.write_table(pa.table({"id": [1], "title": ["x"]}), tmp_path / "x.parquet")

    with pytest.raises(vd.InvalidInputError, match="no column of equally long lists"):
        vd.load(str(tmp_path / "x.parquet"), next(fresh))


def test_flat_lines_are_read_too():
    lines = line(id="a", embedding=[1, 2.5], title="x") + line(id="b", embedding=[0, 1], year=2)

    made = vd.load(io.BytesIO(lines), next(fresh))

    assert exact(made) == [
        '{"id": "a", "payload": {"title": "x"}, "vector": [1.0, 2.5]}',
        '{"id": "b", "payload": {"year": 2}, "vector": [0.0, 1.0]}',
    ]


def test_answers_of_a_scroll_are_read_as_points():
    lines = line(id=1, vector=[1, 2], payload={"a": 1}, score=0.5, version=3)

    assert exact(vd.load(io.BytesIO(lines), next(fresh))) == [
        '{"id": 1, "payload": {"a": 1}, "vector": [1.0, 2.0]}'
    ]


def test_a_key_beside_the_payload_is_never_lost_silently():
    lines = line(id=1, vector=[1, 2], payload={}) + line(id=2, vector=[1, 2], title="x")
    url = next(fresh)

    with pytest.raises(vd.InvalidInputError, match="line 2 of <BytesIO> has the key 'title'"):
        vd.load(io.BytesIO(lines), url)
    with pytest.raises(vd.CollectionNotFoundError):
        vd.open(url)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello", "is of no known format"),
        (line(id=1, vector=[1, 2]) + b"{", "line 2 of .* is not JSON"),
        (line(id=1, vector=[1, 2]) + b"[1]", "line 2 of .* is a JSON array"),
        (line(id=1, vector=[1, 2]) + b'{"id":2,"vector":[1,NaN]}', "line 2 of .* NaN is not a JSON number"),
        (line(id=1, vector=[1, 2]) + line(id=2, vector=[1]), "point 2 has size 1"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b"ARROW1 and no more", "cannot be read as an Arrow file"),
        (b"\xff\xff\xff\xff\x10\x00\x00\x00 and no more", "cannot be read as an Arrow stream"),
        (gzip.compress(line(id=1, vector=[1, 2]) * 9000)[:-20], "breaks off after line"),
    ],
)
def test_a_damaged_file_is_one_error_and_leaves_nothing(content, said):
    url = next(fresh)

    with pytest.raises(vd.InvalidInputError, match=said):
        vd.load(io.BytesIO(content), url)
    with pytest.raises(vd.CollectionNotFoundError):
        vd.open(url)


def test_a_changed_byte_is_found_in_an_exported_parquet_file(tmp_path):
    made = vd.create(next(fresh), vectors=vd.VectorParams(size=8))
    made.upsert((range(5000), np.random.default_rng(1).random((5000, 8))))
    made.export(str(tmp_path / "x.parquet"))
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.parquet").write_bytes(data)

    with pytest.raises(vd.InvalidInputError, match="cannot be read as Parquet"):
        vd.load(str(tmp_path / "x.parquet"), next(fresh))


def test_content_wins_over_the_name(books, tmp_path):
    books.export(str(tmp_path / "x.parquet"))
    (tmp_path / "x.parquet").rename(tmp_path / "x.jsonl")

    assert len(vd.load(str(tmp_path / "x.jsonl"), next(fresh))) == 3


def test_a_source_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(vd.NotFoundError, match=r"there is no file .*gone\.parquet"):
        vd.load(str(tmp_path / "gone.parquet"), next(fresh))
    with pytest.raises(vd.InvalidInputError, match="is a folder"):
        vd.load(tmp_path, next(fresh))
    with pytest.raises(vd.InvalidInputError, match="not list"):
        vd.load([1], next(fresh))
    with pytest.raises(vd.UnknownNameError, match="format 'csv' is not known"):
        vd.load(io.BytesIO(b"x"), next(fresh), format="csv")


def test_fsspec_urls_are_read_and_written(books):
    books.export("memory://exports/books.jsonl.gz")

    assert exact(vd.load("memory://exports/books.jsonl.gz", next(fresh))) == exact(books)
    with pytest.raises(vd.NotFoundError, match="there is no file memory://exports/gone"):
        vd.load("memory://exports/gone.jsonl", next(fresh))


def test_progress_counts_points(books, tmp_path):
    seen = []
    books.export(str(tmp_path / "x.jsonl"), progress=seen.append)
    vd.load(str(tmp_path / "x.jsonl"), next(fresh), progress=seen.append)

    assert seen == [3, 3]


MEMORY = """
import sys
from vecdataset.formats import formats
from vecdataset.formats.files import open_source
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
def rows(path):
    with open_source(path) as source:
        reading = formats.get("parquet").read(source, batch_rows=8192, layout=None)
        return sum(batch.num_rows for batch in reading.points)
rows(sys.argv[2])
before = peak()
print(rows(sys.argv[1]), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_a_large_file_is_read_in_bounded_memory(tmp_path):
    rng = np.random.default_rng(0)
    schema = pa.schema({"id": pa.uint64(), "vector": pa.list_(pa.float32(), 512)})
    with pq.ParquetWriter(tmp_path / "large.parquet", schema, compression="none") as writer:
        for start in range(0, 300_000, 20_000):
            flat = pa.array(rng.random(20_000 * 512, np.float32))
            vectors = pa.FixedSizeListArray.from_arrays(flat, 512)
            ids = pa.array(np.arange(start, start + 20_000), pa.uint64())
            writer.write_table(pa.table([ids, vectors], schema=schema))
    pq.write_table(pa.table([ids, vectors], schema=schema).slice(0, 10), tmp_path / "small.parquet")
    files = [str(tmp_path / name) for name in ("large.parquet", "small.parquet")]

    done = subprocess.run([sys.executable, "-c", MEMORY, *files], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 300_000
    assert grown < 0.5 * (tmp_path / "large.parquet").stat().st_size


# ----------------------------------------------------------------------- what is written


def test_a_failed_export_leaves_the_old_file(tmp_path):
    made = vd.create(next(fresh), vectors=vd.VectorParams(size=2))
    made.upsert(
        pa.table({"id": [1], "vector": pa.array([[1, 2]], pa.list_(pa.float32(), 2)), "x": [math.nan]})
    )
    (tmp_path / "x.jsonl").write_text("before")

    with pytest.raises(vd.InvalidInputError, match="of point 1 holds NaN"):
        made.export(str(tmp_path / "x.jsonl"))

    assert (tmp_path / "x.jsonl").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]


def test_bad_targets_are_refused(books, tmp_path):
    with pytest.raises(vd.InvalidInputError, match="names no format"):
        books.export(str(tmp_path / "books.csv"))
    with pytest.raises(vd.InvalidInputError, match="is a folder"):
        books.export(books.url, format="parquet")
    with pytest.raises(vd.NotFoundError, match="there is no folder"):
        books.export(str(tmp_path / "no" / "x.parquet"))
    with pytest.raises(vd.InvalidInputError, match="cannot be written to a pipe"):
        books.export("-", format="parquet")


def test_equal_points_give_equal_bytes(books, tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        books.export(str(tmp_path / name))

    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_vector_components_are_written_short(tmp_path):
    made = vd.create(next(fresh), vectors=vd.VectorParams(size=3))
    made.upsert([{"id": str(uuid.UUID(int=1)), "vector": [0.1, 1, -0.0], "payload": {}}])
    made.export(str(tmp_path / "x.jsonl"))

    assert '"vector":[0.1,1,-0.0]' in (tmp_path / "x.jsonl").read_text()


# ------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("name", formats.names())
def test_a_format_keeps_its_protocol(name):
    found = formats.get(name)

    assert isinstance(found, Format)
    assert isinstance(found, WritableFormat) == ("write" in found.capabilities)
    assert found.name == name
    assert found.capabilities <= {"read", "write", "stream", "several"}
    assert all(s.startswith(".") for s in found.suffixes)
    assert not found.sniff(b"", "")


def test_a_pipe_can_be_parquet(books, tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

    books.export(str(tmp_path / "x.parquet"))
    pipe = Pipe((tmp_path / "x.parquet").read_bytes())

    assert len(vd.load(pipe, next(fresh))) == 3


def test_a_callers_file_stays_open(books):
    file = io.BytesIO()
    with open_target(file) as target:
        target.write(line(id=1, vector=[1, 2]))
    file.seek(0)
    with open_source(file) as source:
        assert source.head.startswith(b'{"id"')

    assert not file.closed


def test_times_are_kept_to_the_nanosecond(tmp_path):
    made = vd.create(next(fresh), vectors=vd.VectorParams(size=2))
    made.upsert([{"id": 1, "vector": [1, 2], "at": datetime(2020, 1, 2, tzinfo=UTC)}])
    made.export(str(tmp_path / "x.jsonl"))

    assert json.loads((tmp_path / "x.jsonl").read_text())["payload"] == {"at": "2020-01-02T00:00:00.000000Z"}


# ------------------------------------------------------------------------ options and folders


def test_an_option_that_the_format_does_not_know_is_refused_by_name(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(line(id=1, vector=[1, 0]))

    with pytest.raises(vd.UnknownNameError, match=r"format 'jsonl' of .* has no option 'colour'"):
        vd.load(str(tmp_path / "x.jsonl"), next(fresh), colour="red")


def test_files_beside_a_source_stay_beneath_its_folder(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}")
    (tmp_path / "b.jsonl").write_bytes(b"other")

    with open_source(str(tmp_path / "a.jsonl")) as source, source.beside("b.jsonl") as other:
        assert other.file.read() == b"other"
        with pytest.raises(vd.InvalidInputError, match="is not a path"), source.beside("../b.jsonl"):
            pass
