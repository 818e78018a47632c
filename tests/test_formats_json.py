"""JSON in the shapes that stores write: the same points from each."""

import io
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdataset as vd
from vecdataset.formats.files import Source
from vecdataset.formats.json_values import document_records

fresh = (f"memory://formats-json-{n}" for n in itertools.count())

POINTS = [
    {"id": 1, "vector": [1.0, 0.5], "payload": {"title": "Dune", "year": 1965}},
    {"id": 2**64 - 1, "vector": [0.25, 2.0], "payload": {"nested": {"a": [1, None, {"b": 2.5}]}}},
]
IDS = [p["id"] for p in POINTS]
VECTORS = [p["vector"] for p in POINTS]
PAYLOADS = [p["payload"] for p in POINTS]


def page(points, offset):
    return {"result": {"points": points, "next_page_offset": offset}, "status": "ok", "time": 0.001}


def text(value):
    return json.dumps(value).encode()


def load(data, **options):
    return vd.load(io.BytesIO(data), next(fresh), **options)


def points(collection):
    return collection.scroll(limit=100, with_vectors=True).to_pylist(layout="qdrant")


SHAPES = {
    "array": text(POINTS),
    "array over several lines": json.dumps(POINTS, indent=2).encode(),
    "one point": text(POINTS[0]) + text(POINTS[1]),
    "points": text({"points": POINTS}),
    "a page of scroll": text(page(POINTS, None)),
    "pages of scroll": text(page(POINTS[:1], IDS[1])) + b"\n" + text(page(POINTS[1:], None)),
    "retrieved": text({"time": 0.1, "status": "ok", "result": POINTS}),
    "batch": text({"batch": {"ids": IDS, "vectors": VECTORS, "payloads": PAYLOADS}}),
    "columns": text({"ids": IDS, "vectors": VECTORS, "payloads": PAYLOADS}),
    "d-vecDB": text([{"id": p["id"], "data": p["vector"], "metadata": p["payload"]} for p in POINTS]),
    "d-vecDB's lines": b"\n".join(
        text({"id": p["id"], "data": p["vector"], "metadata": p["payload"]}) for p in POINTS
    ),
    "Arcaneum's lines": b"\n".join(
        [
            text(
                {
                    "_header": True,
                    "_version": 1,
                    "collection_name": "books",
                    "vector_config": {},
                    "point_count": 2,
                    "exported_at": "2026-01-01T00:00:00",
                }
            ),
            *(
                text({"id": str(p["id"]), "vector": {"_default": p["vector"]}, "payload": p["payload"]})
                for p in POINTS
            ),
        ]
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_gives_the_same_points(shape):
    assert points(load(SHAPES[shape])) == POINTS


def test_named_and_sparse_vectors_come_in_columns_too():
    batch = {
        "ids": [1, 2],
        "vectors": {"a": [[1, 0], [0, 1]], "words": [{"indices": [7], "values": [0.5]}, None]},
        "payloads": None,
    }

    found = points(load(text({"batch": batch})))

    assert [p["vector"] for p in found] == [
        {"a": [1.0, 0.0], "words": {"indices": [7], "values": [0.5]}},
        {"a": [0.0, 1.0]},
    ]


def test_pinecone_keeps_metadata_namespace_and_sparse_values():
    rows = [
        {"id": "a", "values": [1, 0], "metadata": {"genre": "sf"}, "namespace": "books"},
        {"id": "b", "values": [0, 1], "sparseValues": {"indices": [3, 1], "values": [0.5, 1.5]}},
    ]

    found = points(load(text({"vectors": rows, "namespace": "ignored"})))
    fetched = points(load(text({"vectors": {r["id"]: r for r in rows}})))

    assert found == fetched
    assert found[0]["payload"] == {"genre": "sf", "namespace": "books"}
    assert found[1]["vector"] == {"": [0.0, 1.0], "sparse_vector": {"indices": [1, 3], "values": [1.5, 0.5]}}


def test_weaviate_keeps_properties_class_and_named_vectors():
    uuid = "6a4b1d2e-0000-4000-8000-000000000001"
    rows = [
        {
            "class": "Book",
            "id": uuid,
            "properties": {"title": "Dune"},
            "vectors": {"t": [1, 0], "default": [2, 1, 0]},
        }
    ]

    found = points(load(text({"objects": rows})))

    assert found == [
        {
            "id": uuid,
            "vector": {"t": [1.0, 0.0], "": [2.0, 1.0, 0.0]},
            "payload": {"title": "Dune", "class": "Book"},
        }
    ]


def test_chroma_columns_become_points_with_their_documents():
    got = {
        "ids": ["a", "b"],
        "embeddings": [[1, 0], [0, 1]],
        "documents": ["spice", None],
        "metadatas": [{"year": 1965}, None],
        "uris": None,
        "data": None,
        "included": ["embeddings", "documents", "metadatas"],
    }

    found = points(load(text(got)))

    assert [p["payload"] for p in found] == [{"year": 1965, "document": "spice"}, {}]
    assert [p["vector"] for p in found] == [[1.0, 0.0], [0.0, 1.0]]


def test_milvus_rows_are_flat():
    rows = {
        "rows": [
            {"pk": 5, "embedding": [1.5, 0], "title": "Dune"},
            {"pk": 6, "embedding": [0, 1], "title": "Emma"},
        ]
    }

    made = load(text(rows), id="pk", vectors_from="embedding")

    assert made.scroll()["id"].to_pylist() == [5, 6]
    assert made.get([5], with_vectors=True).to_pylist() == [{"id": 5, "title": "Dune", "vector": [1.5, 0.0]}]


@pytest.mark.parametrize(
    "payload",
    [
        {"page_content": "spice", "metadata": {"source": "dune.txt", "page": 3}},
        {
            "_node_content": '{"id_": "n1", "text": "spice"}',
            "_node_type": "TextNode",
            "doc_id": "d",
            "ref_doc_id": "d",
        },
    ],
    ids=["LangChain", "LlamaIndex"],
)
def test_payloads_of_frameworks_stay_as_they_are(payload, tmp_path):
    made = load(text([{"id": 1, "vector": [1.5, 0], "payload": payload}]))
    made.export(str(tmp_path / "x.json"))

    again = vd.load(str(tmp_path / "x.json"), next(fresh))

    assert points(again) == [{"id": 1, "vector": [1.5, 0.0], "payload": payload}]


# ------------------------------------------------------------------------- what is refused


def refused(data, match, **options):
    target = next(fresh)
    with pytest.raises(vd.InvalidInputError, match=match) as error:
        vd.load(io.BytesIO(data), target, **options)
    with pytest.raises(vd.CollectionNotFoundError):
        vd.open(target)
    return error.value


def test_null_vectors_are_refused_and_nothing_is_written():
    rows = [*POINTS, {"id": 3, "vector": None, "payload": {}}]

    error = refused(text(rows), r"point 3 of .* has the vector null: nothing was written")

    assert "with_vector" in error.hint
    assert len(load(text(rows), allow_null_vectors=True)) == 3


def test_a_dump_without_vectors_does_not_wipe_a_collection(tmp_path):
    made = load(text(POINTS))

    with pytest.raises(vd.InvalidInputError, match=r"none of the 1 points of .* has a vector"):
        vd.load(io.BytesIO(text([{"id": 1, "payload": {"title": "Emma"}}])), made.url)

    assert points(vd.open(made.url)) == POINTS


def test_a_point_that_has_no_vector_is_written_so_and_read_again(tmp_path):
    made = vd.create(next(fresh), vectors=vd.VectorParams(size=2))
    made.upsert([{"id": 1, "vector": None, "payload": {"a": 1}}])
    made.export(str(tmp_path / "x.json"))

    again = vd.load(str(tmp_path / "x.json"), next(fresh), vectors=vd.VectorParams(size=2))

    assert json.loads((tmp_path / "x.json").read_text()) == [{"id": 1, "vector": {}, "payload": {"a": 1}}]
    assert points(again) == points(made)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b'[{"id": 1, "vector": [1.5, 2]}', "is not JSON at its end: expecting ',' or '\\]'"),
        (b'[{"id": 1, "vector": [1.5, 2], }]', "is not JSON at 32"),
        (b'[{"id": 1, "vector": [1.5, NaN]}]', "NaN is not a JSON number"),
        (b"[1, 2]", "point 1 of .* is a JSON number"),
        (b'{"points": [{"id": 1, "vector": [1.5, 2]}] "x": 1}', "expecting ',' or '}'"),
        (b'{"ids": [1, 2], "vectors": [[1, 2]]}', "'vectors' of .* holds 1 values for 2 ids"),
        (
            b'[{"id": 1, "vector": [1.5, 2]}, {"id": 2, "vector": [1, 2], "x": 1}]',
            "point 2 .* has the key 'x'",
        ),
        (
            b'[{"id": "a", "values": [1.5, 2], "metadata": {"namespace": "x"}, "namespace": "y"}]',
            "'namespace' both beside its metadata and in it",
        ),
        (b"[" * 100_000, "recursion"),
        (b'[{"id": 1, "vector": [1.5, 2], "payload": {"a": "\xff"}}]', "is not UTF-8"),
    ],
)
def test_damaged_documents_are_refused_by_place(data, match):
    refused(data, match)


def test_a_strange_header_is_refused():
    header = {"_header": True, "vector_config": {"t": {"distance": "Cosine"}}}

    refused(
        text(header) + b"\n" + text({"id": "1", "vector": {"t": [1]}, "payload": {}}), "does not describe"
    )


# ----------------------------------------------------------------------------- the reader

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
records = st.lists(
    st.dictionaries(st.text(max_size=5), values, max_size=4).map(lambda r: {"id": 1} | r), max_size=5
)


class Trickle(io.RawIOBase):
    """A file that gives a few bytes at a time, whatever is asked for."""

    def __init__(self, data, step):
        self._data, self._step = io.BytesIO(data), step

    def readable(self):
        return True

    def read(self, size=-1):
        return self._data.read(self._step)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(rows=records, step=st.integers(1, 40), ascii=st.booleans(), indent=st.none() | st.integers(0, 2))
def test_documents_are_read_the_same_in_whatever_pieces_they_come(rows, step, ascii, indent):
    data = json.dumps(
        {"status": "ok", "points": rows, "time": 12}, ensure_ascii=ascii, indent=indent
    ).encode()
    source = Source(Trickle(data, step), name="x", head=data[:100])

    assert [row for _, row in document_records(source)] == rows
