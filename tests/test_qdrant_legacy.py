"""Segments of the time of RocksDB, written here as a server of that time wrote them."""

import io
import json
import struct
import uuid

import numpy as np
import pytest

rocksdict = pytest.importorskip("rocksdict", reason="needs the extra qdrant-legacy")
cbor2 = pytest.importorskip("cbor2", reason="needs the extra qdrant-legacy")
pytest.importorskip("qdrant_edge", reason="the helpers that pack archives use it")

from qdrant_snapshots import Archive, collection_config  # noqa: E402

import vecdataset as vd  # noqa: E402
from vecdataset.formats.qdrant.wal import crc32c  # noqa: E402

VECTORS = {
    "d": {"size": 3, "distance": "Dot"},
    "h": {"size": 3, "distance": "Dot", "datatype": "float16"},
    "m": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
}
WORD = "936da01f-9abd-4d9d-80c7-02af85c822a8"


def key_of(id):
    if isinstance(id, int):
        return struct.pack("<IQ", 0, id)
    return struct.pack("<IQ", 1, 16) + uuid.UUID(id).bytes


def dense(values, kind="<f4"):
    return b"\0" + struct.pack("<Q", len(values)) + np.array(values, kind).tobytes()


def sparse(indices, values):
    parts = (np.array(indices, "<u4").tobytes(), np.array(values, "<f4").tobytes())
    return b"\0" + b"".join(struct.pack("<Q", len(indices)) + p for p in parts)


def backup(folder, points):
    """Write `{id: (version, vectors, payload)}` into a database; return the files of its backup."""
    names = ("payload", "mapping", "version", *(f"vector-{n}" for n in ("d", "h", "m", "s")))
    raw = rocksdict.Options(raw_mode=True)
    raw.create_missing_column_families(True)
    raw.create_if_missing(True)
    families = {name: rocksdict.Options(raw_mode=True) for name in names}
    database = rocksdict.Rdict(str(folder), options=raw, column_families=families)
    for offset, (id, (version, vectors, payload)) in enumerate(points.items()):
        database.get_column_family("mapping")[key_of(id)] = struct.pack("<Q", offset)
        database.get_column_family("version")[key_of(id)] = struct.pack("<Q", version)
        if payload is not None:
            database.get_column_family("payload")[cbor2.dumps(offset)] = cbor2.dumps(payload)
        for name, value in vectors.items():
            database.get_column_family(f"vector-{name}")[struct.pack("<I", offset)] = value
    for name in names:
        family = database.get_column_family(name)
        family.flush()
        del family
    database.close()
    files = {}
    for path in folder.iterdir():
        if path.suffix == ".sst":
            files[f"shared_checksum/{path.stem}_s0_{path.stat().st_size}.sst"] = path.read_bytes()
        elif path.name.startswith(("CURRENT", "MANIFEST", "OPTIONS")):
            files[f"private/1/{path.name}"] = path.read_bytes()
    lines = [f"{name} crc32 {crc32c(np.frombuffer(data, np.uint8))}" for name, data in files.items()]
    files["meta/1"] = "\n".join(["1702481816", "500", str(len(lines)), *lines, ""]).encode()
    return files


def archive_of(segments, *, version=9, wal_end=None):
    archive = Archive()
    for number, files in enumerate(segments):
        inner = Archive()
        for name, data in files.items():
            inner.add(f"snapshot/db_backup/{name}", data)
        vectors = {n: {**p, "storage_type": "Memory", "index": {"type": "plain"}} for n, p in VECTORS.items()}
        config = {
            "vector_data": vectors, "sparse_vector_data": {"s": {"index": {"index_type": "MutableRam"}}},
            "payload_storage_type": {"type": "on_disk"},
        }  # fmt: skip
        inner.add("snapshot/files/segment.json", json.dumps({"version": version, "config": config}).encode())
        archive.add(f"0/segments/{uuid.UUID(int=number)}.tar", inner.bytes())
    if wal_end is not None:
        archive.add("0/wal/open-1", log(wal_end))
    archive.add("0/shard_config.json", b'{"type":"ReplicaSet"}')
    archive.add("config.json", json.dumps(collection_config(VECTORS, ("s",))).encode())
    return archive.bytes()


def log(entries):
    """Return a write-ahead log of so many entries."""
    out, seed = b"wal\0" + struct.pack("<I", 7), 7
    for _ in range(entries):
        body = struct.pack("<Q", 4) + b"abcd"
        register = int(f"{seed:032b}"[::-1], 2)
        seed = crc32c(np.frombuffer(body, np.uint8), register)
        out += body + struct.pack("<I", seed)
    return out + bytes(4096)


def load(data, tmp_path):
    return vd.load(io.BytesIO(data), tmp_path / "c")


def stored(collection):
    rows = collection.scroll(limit=100, with_vectors=True).to_pylist(layout="qdrant")
    return {r["id"]: ({n: v for n, v in r["vector"].items() if v is not None}, r["payload"]) for r in rows}


FIRST = {
    1: (
        3,
        {"d": dense([1, 2, 3]), "h": dense([0.5, 1, 2], "<f2")},
        {"n": 1, "deep": {"x": [None, 2**64 - 1]}},
    ),
    WORD: (4, {"m": dense([1, 2, 3, 4]) + struct.pack("<Q", 2), "s": sparse([3, 9], [0.25, 0.5])}, None),
    2: (5, {"d": b"\1" + dense([1, 1, 1])[1:]}, {"old": True}),
}


def test_every_kind_of_point_comes_as_it_was_and_its_newest_version_counts(tmp_path):
    later = {2: (8, {"d": dense([7, 8, 9])}, {"new": True}), 1: (2, {"d": dense([0, 0, 0])}, {"older": True})}
    segments = [backup(tmp_path / "a", FIRST), backup(tmp_path / "b", later)]

    found = stored(load(archive_of(segments), tmp_path))

    assert found == {
        1: ({"d": [1, 2, 3], "h": [0.5, 1, 2]}, {"n": 1, "deep": {"x": [None, 2**64 - 1]}}),
        2: ({"d": [7, 8, 9]}, {"new": True}),
        WORD: ({"m": [[1, 2], [3, 4]], "s": {"indices": [3, 9], "values": [0.25, 0.5]}}, {}),
    }


def test_a_log_that_only_a_server_could_apply_is_refused(tmp_path):
    segments = [backup(tmp_path / "a", FIRST)]

    assert len(load(archive_of(segments, version=9, wal_end=10), tmp_path)) == 3
    with pytest.raises(vd.InvalidInputError, match="holds 2 updates that are not in its segments"):
        vd.load(io.BytesIO(archive_of(segments, version=9, wal_end=12)), tmp_path / "d")
    with pytest.warns(vd.LossWarning, match="left out, as ignore_wal asks"):
        vd.load(io.BytesIO(archive_of(segments, version=9, wal_end=12)), tmp_path / "d", ignore_wal=True)


def test_a_backup_whose_files_changed_is_refused(tmp_path):
    files = backup(tmp_path / "a", FIRST)
    name = next(n for n in files if n.endswith(".sst"))
    files[name] = files[name][:40] + bytes([files[name][40] ^ 1]) + files[name][41:]

    with pytest.raises(vd.InvalidInputError, match="does not have the checksum"):
        load(archive_of([files]), tmp_path)
    assert not (tmp_path / "c").exists()
