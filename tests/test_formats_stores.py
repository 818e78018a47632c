"""Files of other systems: Arcaneum's exports, d-vecDB's data, vector-io's folders, matrices."""

import gzip
import io
import itertools
import json
import struct
import tarfile
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vecdataset as vd

fresh = (f"memory://formats-stores-{n}" for n in itertools.count())
U1, U2 = "6a4b1d2e-0000-4000-8000-000000000001", "6a4b1d2e-0000-4000-8000-000000000002"


def points(collection):
    return collection.scroll(limit=100, with_vectors=True).to_pylist(layout="qdrant")


# ------------------------------------------------------------------------------- Arcaneum

PATHS = ["/home/a/code/x.py", "/home/a/code/lib/y.md", None]


def arcexp(**header):
    msgpack = pytest.importorskip("msgpack")
    config = {"text": {"size": 2, "distance": "Distance.DOT"}}
    head = msgpack.packb({"collection_name": "code", "vector_config": config, "point_count": 3, **header})
    rows = [
        {
            "id": str(n),
            "vectors": {"text": np.array([n, 0.5], "<f4").tobytes()},
            "payload": {"n": n} if path is None else {"n": n, "file_path": path},
        }
        for n, path in enumerate(PATHS)
    ]
    body = b"".join(msgpack.packb(row) for row in [*rows, None])
    return b"ARCE" + struct.pack("<BI", 1, len(head)) + head + body


def test_an_arcexp_file_comes_in_with_names_distance_and_integer_ids():
    made = vd.load(io.BytesIO(gzip.compress(arcexp())), next(fresh))

    assert made.schema.vectors == {"text": vd.VectorParams(size=2, distance="Dot")}
    assert points(made)[0] == {
        "id": 0,
        "vector": {"text": [0.0, 0.5]},
        "payload": {"n": 0, "file_path": "/home/a/code/x.py"},
    }


@pytest.mark.parametrize(
    ("rules", "taken"),
    [
        ({"include": "*.py"}, [0, 2]),
        ({"include": ["*.py", "*/lib/*"], "exclude": "*.md"}, [0, 2]),
        ({"exclude": "/home/*"}, [2]),
        ({"include": "*.rs"}, [2]),
    ],
)
def test_globs_take_some_of_the_points(rules, taken):
    made = vd.load(io.BytesIO(arcexp()), next(fresh), **rules)

    assert made.scroll()["id"].to_pylist() == taken


def test_paths_are_fitted_to_another_machine():
    made = vd.load(io.BytesIO(arcexp()), next(fresh), remap={"/home/a/code": "/srv", "/home": "/never"})

    assert made.scroll()["file_path"].to_pylist() == ["/srv/x.py", "/srv/lib/y.md", None]


def test_relative_paths_are_put_beneath_a_folder(tmp_path):
    lines = [
        {"_header": True, "collection_name": "c", "vector_config": {"t": {"size": 2, "distance": "Cosine"}}},
        {"id": "1", "vector": {"t": [1, 0]}, "payload": {"file_path": "lib/y.md", "git_project_root": "."}},
        {"id": "2", "vector": {"t": [1, 0]}, "payload": {"file_path": "/absolute"}},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))

    made = vd.load(str(tmp_path / "c.jsonl"), next(fresh), attach_root="/srv/")

    assert made.scroll()["file_path"].to_pylist() == ["/srv/lib/y.md", "/absolute"]


def test_what_is_exported_to_arcexp_is_read_again(tmp_path):
    made = vd.create(
        next(fresh), vectors={"t": vd.VectorParams(size=2, distance="Dot"), "u": vd.VectorParams(size=3)}
    )
    made.upsert(
        [
            {
                "id": 2**64 - 1,
                "vector": {"t": [1, 0.1]},
                "payload": {"odd": {"a": [1, None, {}]}, "big": 2**63},
            },
            {"id": 7, "vector": {"u": [0, 1, 2]}, "payload": {}},
        ]
    )
    made.export(str(tmp_path / "x.arcexp"))

    again = vd.load(str(tmp_path / "x.arcexp"), next(fresh))

    assert (tmp_path / "x.arcexp").read_bytes()[:2] == b"\x1f\x8b"
    assert again.schema.vectors == made.schema.vectors
    assert points(again) == points(made)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (lambda: arcexp()[:-1], "breaks off after point 3: its end mark is missing"),
        (lambda: arcexp()[:40], "breaks off in its header"),
        (lambda: b"ARCE\x02" + arcexp()[5:], "of version 2; version 1 is known"),
        (lambda: b"ARCE" + struct.pack("<BI", 1, 2**31) + b"x", "claims 2,147,483,648 bytes"),
        (lambda: gzip.compress(arcexp())[:-30], "ended before the end-of-stream marker"),
        (lambda: arcexp(vector_config={"t": 7}), "does not describe its vectors"),
    ],
)
def test_damaged_arcexp_files_are_refused(data, match):
    with pytest.raises(vd.InvalidInputError, match=match):
        vd.load(io.BytesIO(data()), next(fresh))


def test_arcexp_refuses_what_it_cannot_hold(tmp_path):
    made = vd.create(next(fresh), vectors=vd.VectorParams(size=2), sparse={"words": vd.SparseVectorParams()})

    with pytest.raises(vd.NotSupportedError, match="dense vectors only; 'words'"):
        made.export(str(tmp_path / "x.arcexp"))

    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------- d-vecDB


def record(id, vector, metadata):
    text = b"" if metadata is None else json.dumps(metadata).encode()
    tail = b"\0" if metadata is None else b"\1" + struct.pack("<Q", len(text)) + text
    data = np.array(vector, "<f4").tobytes()
    return struct.pack("<Q", 16) + UUID(id).bytes + struct.pack("<Q", len(vector)) + data + tail


RECORDS = [
    record(U1, [1, 0], {"title": "Dune"}),
    record(U2, [0, 1], None),
    record(U1, [2, 1], {"title": "Emma"}),
]
FOUND = [
    {"id": U1, "vector": [2.0, 1.0], "payload": {"title": "Emma"}},
    {"id": U2, "vector": [0.0, 1.0], "payload": {}},
]
PREFIXED = b"".join(struct.pack("<I", len(r)) + r for r in RECORDS)
CONFIG = {
    "name": "c",
    "dimension": 2,
    "distance_metric": "DotProduct",
    "vector_type": "Float32",
    "index_config": {},
}


@pytest.mark.parametrize(
    "data",
    [PREFIXED, PREFIXED + bytes(100_000), b"".join(RECORDS), b"".join(RECORDS) + bytes(5000)],
    ids=["with lengths", "with room to grow", "without lengths", "without lengths, with room"],
)
def test_a_left_vectors_bin_is_read_and_the_last_record_of_an_id_counts(data, tmp_path):
    (tmp_path / "vectors.bin").write_bytes(data)

    made = vd.load(str(tmp_path / "vectors.bin"), next(fresh))

    assert points(made) == FOUND


def test_a_data_folder_tells_size_and_distance(tmp_path):
    (tmp_path / "vectors.bin").write_bytes(PREFIXED)
    (tmp_path / "metadata.json").write_text(json.dumps(CONFIG))

    made = vd.load(str(tmp_path), next(fresh))

    assert made.schema.vectors == {"": vd.VectorParams(size=2, distance="Dot")}
    assert points(made) == FOUND


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["vectors.bin", "metadata.json", "snapshot.json"]))
)
def test_a_snapshot_archive_is_recognised_whatever_the_order_of_its_files(order, tmp_path):
    files = {"vectors.bin": PREFIXED, "metadata.json": json.dumps(CONFIG).encode(), "snapshot.json": b"{}"}
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        for name in order:
            member = tarfile.TarInfo(f"c_1700000000/{name}")
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))

    made = vd.load(str(tmp_path / "c.tar.gz"), next(fresh))

    assert made.schema.vectors == {"": vd.VectorParams(size=2, distance="Dot")}
    assert points(made) == FOUND


def test_a_torn_last_record_is_left_out_with_a_warning(tmp_path):
    (tmp_path / "vectors.bin").write_bytes(PREFIXED[:-3])

    with pytest.warns(UserWarning, match="breaks off in record 2"):
        made = vd.load(str(tmp_path / "vectors.bin"), next(fresh))

    assert len(made) == 2


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (record(U1, [1, 0], None)[:-1] + b"\7", "its metadata is marked 7"),
        (record(U1, [1, 0], None)[:-1] + b"\1" + struct.pack("<Q", 3) + b"abc", "is no JSON text"),
        (record(U1, [1, 0], None)[:24] + struct.pack("<Q", 2**40) + bytes(20), "is damaged: it has 52 bytes"),
    ],
)
def test_damaged_records_are_named(body, match, tmp_path):
    (tmp_path / "vectors.bin").write_bytes(struct.pack("<I", len(body)) + body)

    with pytest.raises(vd.InvalidInputError, match=match):
        vd.load(str(tmp_path / "vectors.bin"), next(fresh))


# --------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path):
    """A folder as vector-io writes it: two indexes, one of two files."""
    root = tmp_path / "vdf_20240101_000000_abc"
    meta = {
        "version": "0.1.0",
        "file_structure": [],
        "author": "x",
        "exported_from": "pinecone",
        "indexes": {},
    }
    for index, files in {"books": [[U1], [U2]], "films": [[U1]]}.items():
        (root / index).mkdir(parents=True)
        for number, ids in enumerate(files, 1):
            vectors = pa.array([[1.0, number]] * len(ids), pa.list_(pa.float64()))
            table = pa.table({"id": ids, "vector": vectors, "title": [f"{index} {number}"] * len(ids)})
            pq.write_table(table, root / index / f"{number}.parquet")
            meta["file_structure"].append(f"{root.name}/{index}/{number}.parquet")
        meta["indexes"][index] = [
            {
                "namespace": "",
                "index_name": index,
                "dimensions": 2,
                "vector_columns": ["vector"],
                "data_path": index,
                "metric": "Euclid",
            }
        ]
    (root / "VDF_META.json").write_text(json.dumps(meta))
    return root


def test_an_index_of_a_folder_is_read_over_all_its_files(folder):
    made = vd.load(str(folder), next(fresh), index="books")

    assert made.schema.vectors == {"": vd.VectorParams(size=2, distance="Euclid")}
    assert points(made) == [
        {"id": U1, "vector": [1.0, 1.0], "payload": {"title": "books 1"}},
        {"id": U2, "vector": [1.0, 2.0], "payload": {"title": "books 2"}},
    ]


def test_several_indexes_must_be_told_apart(folder):
    with pytest.raises(
        vd.InvalidInputError, match="2 namespaces, of which 2 are meant: index 'books'"
    ) as error:
        vd.load(str(folder), next(fresh))

    assert "index='name'" in error.value.hint


def test_a_folder_that_names_files_outside_is_refused(folder):
    meta = json.loads((folder / "VDF_META.json").read_text())
    meta["file_structure"] = ["x/../books/../../secret.parquet"]
    meta["indexes"]["books"][0]["data_path"] = ".."
    (folder / "VDF_META.json").write_text(json.dumps(meta))

    with pytest.raises(vd.InvalidInputError, match="is not a path"):
        vd.load(str(folder), next(fresh), index="books")


# -------------------------------------------------------------------------------- matrices

MATRIX = np.array([[1, 0, 2], [3, 4, 5]], np.float32)


def test_npy_rows_are_numbered(tmp_path):
    np.save(tmp_path / "x.npy", MATRIX)
    np.save(tmp_path / "f.npy", np.asfortranarray(MATRIX.astype(np.float16)))

    made = vd.load(str(tmp_path / "x.npy"), next(fresh), distance="Euclid", batch_rows=1)
    by_columns = vd.load(str(tmp_path / "f.npy"), next(fresh))

    assert points(made) == [
        {"id": 0, "vector": [1.0, 0.0, 2.0], "payload": {}},
        {"id": 1, "vector": [3.0, 4.0, 5.0], "payload": {}},
    ]
    assert points(by_columns) == points(made)
    assert by_columns.schema.vectors[""].datatype == "float16"


def test_npz_takes_ids_and_payload_from_the_arrays_beside(tmp_path):
    np.savez(tmp_path / "x.npz", vectors=MATRIX, ids=np.array([7, 9], np.uint64), lang=np.array(["en", "pl"]))

    made = vd.load(str(tmp_path / "x.npz"), next(fresh))

    assert points(made) == [
        {"id": 7, "vector": [1.0, 0.0, 2.0], "payload": {"lang": "en"}},
        {"id": 9, "vector": [3.0, 4.0, 5.0], "payload": {"lang": "pl"}},
    ]


@pytest.mark.parametrize(
    ("ending", "kind", "datatype"), [("fvecs", "<f4", "float32"), ("bvecs", "u1", "uint8")]
)
def test_texmex_files_are_read(ending, kind, datatype, tmp_path):
    rows = b"".join(struct.pack("<i", 3) + row.astype(kind).tobytes() for row in MATRIX)
    (tmp_path / f"x.{ending}").write_bytes(rows)

    made = vd.load(str(tmp_path / f"x.{ending}"), next(fresh), batch_rows=1)

    assert made.schema.vectors[""].datatype == datatype
    assert [p["vector"] for p in points(made)] == MATRIX.tolist()


def test_hdf5_in_the_manner_of_ann_benchmarks(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.attrs["distance"] = "angular"
        file["train"], file["test"], file["neighbors"] = MATRIX, MATRIX[:1], np.zeros((1, 2), np.int32)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["emb"], file["id"], file["lang"] = MATRIX, [5, 6], ["en", "pl"]

    train = vd.load(str(tmp_path / "x.hdf5"), next(fresh))
    other = vd.load(str(tmp_path / "y.h5"), next(fresh), batch_rows=1)

    assert train.schema.vectors[""].distance == "Cosine"
    assert [p["vector"] for p in points(train)] == MATRIX.tolist()
    assert [(p["id"], p["payload"]) for p in points(other)] == [(5, {"lang": "en"}), (6, {"lang": "pl"})]


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("x.npy", lambda: npy(MATRIX)[:-4], "breaks off: 4 bytes are missing"),
        ("x.npy", lambda: npy(np.zeros(3)), r"holds an array of float64\[3\]"),
        ("x.npy", lambda: npy(np.zeros((2, 2), np.int64)), r"array of int64\[2, 2\]"),
        ("x.npy", lambda: npy(np.array([{}], object)), "array of object"),
        ("x.fvecs", lambda: struct.pack("<i", 2) + bytes(7), "breaks off in vector 0"),
        (
            "x.fvecs",
            lambda: struct.pack("<iffiff", 2, 1, 1, 3, 1, 1),
            "vector 1 of .* has size 3; the first has 2",
        ),
        ("x.fvecs", lambda: bytes(40), "begins with a vector of size 0"),
    ],
)
def test_damaged_matrices_are_refused(name, data, match, tmp_path):
    (tmp_path / name).write_bytes(data())

    with pytest.raises(vd.InvalidInputError, match=match):
        vd.load(str(tmp_path / name), next(fresh))


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
