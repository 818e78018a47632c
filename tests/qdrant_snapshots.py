"""Snapshots for tests: shards written by Qdrant's own engine, packed as a server packs them."""

import io
import json
import shutil
import tarfile
import uuid
from pathlib import Path

import numpy as np
import qdrant_edge as edge

BLOCK = 512
DEFAULTS = {
    "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0},
    "optimizer_config": {
        "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
        "max_segment_size": None, "memmap_threshold": None, "indexing_threshold": 20_000,
        "flush_interval_sec": 5, "max_optimization_threads": None,
    },
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
    "quantization_config": None,
}  # fmt: skip
RICH = {
    "a": {"size": 8, "distance": "Cosine"},
    "f16": {"size": 8, "distance": "Dot", "datatype": "float16"},
    "u8": {"size": 8, "distance": "Euclid", "datatype": "uint8"},
    "m": {"size": 4, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
}
_DATATYPES = {"float16": "Float16", "uint8": "Uint8"}


# --------------------------------------------------------------------------------- shards


def engine_config(vectors, sparse=(), *, wal=True, **optimizers):
    """Return the engine's config for vectors as `config.json` declares them."""
    if "size" in vectors:
        vectors = {"": vectors}
    dense = {
        name: edge.EdgeVectorParams(
            p["size"],
            getattr(edge.Distance, p["distance"]),
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
            if "multivector_config" in p
            else None,
            datatype=getattr(edge.VectorStorageDatatype, _DATATYPES[p["datatype"]])
            if "datatype" in p
            else None,
            quantization_config=edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8)
            if "quantization_config" in p
            else None,
        )
        for name, p in vectors.items()
    }
    return edge.EdgeConfig(
        vectors=dense,
        sparse_vectors={name: edge.EdgeSparseVectorParams() for name in sparse},
        wal_enabled=wal,
        optimizers=edge.EdgeOptimizersConfig(**optimizers) if optimizers else None,
    )


def make_shard(folder, points, vectors, sparse=(), *, wal=True, optimize=0, delete=(), flush=True, late=()):
    """Write points, `(id, vector, payload)`, with the engine; return the folder.

    `optimize` builds indexes after so many points; `late` come at last, and only the log holds them
    unless `flush`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    options = {"indexing_threshold": 1, "default_segment_number": 2} if optimize else {}
    shard = edge.EdgeShard.create(str(folder), engine_config(vectors, sparse, wal=wal, **options))
    written = [edge.Point(*p) for p in points]
    for start, end in ((0, optimize), (optimize, len(written))):
        for at in range(start, end, 500):
            shard.update(edge.UpdateOperation.upsert_points(written[at : min(at + 500, end)]))
        if optimize and end == optimize:
            assert shard.optimize()
    shard.flush()
    if delete:
        shard.update(edge.UpdateOperation.delete_points(list(delete)))
    if late:
        shard.flush()
        before = snapshot_of(folder / "segments")
        shard.update(edge.UpdateOperation.upsert_points([edge.Point(*p) for p in late]))
    if flush or not late:
        shard.flush()
    shard.close()
    if late and not flush:  # closing flushes too: the segments go back to what they were
        restore(folder / "segments", before)
    return folder


def snapshot_of(folder):
    """Copy a folder, holes included, and return where it is."""
    copy = folder.with_name(folder.name + "-before")
    copy_sparse(folder, copy)
    return copy


def restore(folder, copy):
    """Put a copy in the place of a folder."""
    shutil.rmtree(folder)
    copy.rename(folder)


def copy_sparse(source, target):
    """Copy a tree of sparse files."""
    for path in source.rglob("*"):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir(parents=True, exist_ok=True)
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as old, to.open("wb") as new:
            for start, length in extents(old, path.stat().st_size):
                old.seek(start)
                new.seek(start)
                new.write(old.read(length))
            new.truncate(path.stat().st_size)


def contents(folder):
    """Return every point of a shard as the engine gives it: `{id: (vector, payload)}`."""
    copy = Path(folder).with_name(Path(folder).name + "-read")
    copy_sparse(Path(folder), copy)
    shard = edge.EdgeShard.load(str(copy))
    out, offset = {}, None
    while True:
        page, offset = shard.scroll(
            edge.ScrollRequest(offset=offset, limit=1000, with_payload=True, with_vector=True)
        )
        for record in page:
            id = record.id if isinstance(record.id, int) else str(record.id)
            out[id] = (plain(record.vector), record.payload or {})
        if offset is None:
            break
    shard.close()
    shutil.rmtree(copy)
    return out


def plain(vector):
    """Return a vector of the engine's as JSON has it."""
    if isinstance(vector, dict):
        return {name: plain(v) for name, v in vector.items()}
    if hasattr(vector, "indices"):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return vector


def rich_points(count, seed=0, start=0):
    """Return points with every kind of vector, each of them missing here and there, and hostile payloads."""
    rng = np.random.default_rng(seed)
    payloads = [
        {"i": 1, "n": None, "deep": {"x": [1, 2.5, "é"], "y": {}}},
        {"big": 2**64 - 1, "small": -(2**63), "f": 1e300, "tiny": 5e-324, "one": 1.0},
        {"🦀": "emoji", "": "empty key", "list": [], "obj": {}, "mixed": [1, "a", None, True]},
        {"place": {"lat": 52.5, "lon": 13.4}, "when": "2024-02-29T12:00:00Z", "ok": False},
        None,
    ]
    out = []
    for i in range(start, start + count):
        id = i if i % 3 else str(uuid.UUID(int=(i * 7919 << 64) + i))
        vector = {}
        if i % 7:
            vector["a"] = rng.normal(size=8).tolist()
        if i % 5:
            vector["f16"] = rng.normal(size=8).tolist()
        if i % 4:
            vector["u8"] = rng.integers(0, 256, 8).astype(float).tolist()
        if i % 6:
            vector["m"] = rng.normal(size=(1 + i % 3, 4)).tolist()
        if i % 8:
            terms = sorted(rng.choice(100, 4, replace=False).tolist())
            vector["s"] = edge.SparseVector(terms, rng.normal(size=4).tolist())
        out.append((id, vector, payloads[i % len(payloads)]))
    return out


# ------------------------------------------------------------------------------ archives


def extents(file, size):
    """Return offset and length of what is not zero, in steps of 64 KiB."""
    out = []
    step = 64 << 10
    file.seek(0)
    for at in range(0, size, step):
        if file.read(step).count(0) == min(step, size - at):
            continue
        length = min(step, size - at)
        if out and sum(out[-1]) == at:
            out[-1] = (out[-1][0], out[-1][1] + length)
        else:
            out.append((at, length))
    return out


def sparse_header(name, size, parts):
    """Return the header blocks of an old-GNU sparse file."""
    info = tarfile.TarInfo(name)
    info.size = sum(length for _, length in parts)
    info.type = b"S"
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    at = len(head) - BLOCK  # a long name stands before it
    parts = [*parts, (size, 0)]
    table = b"".join(b"%011o\0%011o\0" % part for part in parts)
    head[at + 386 : at + 482] = table[:96].ljust(96, b"\0")
    head[at + 482] = len(parts) > 4
    head[at + 483 : at + 495] = b"%011o\0" % size
    head[at + 148 : at + 156] = b" " * 8
    head[at + 148 : at + 156] = b"%06o\0 " % sum(head[at : at + BLOCK])
    rest = table[96:]
    while rest:
        piece, rest = rest[:504], rest[504:]
        head += piece.ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7)
    return bytes(head)


class Archive:
    """A tar, written as Qdrant writes it."""

    def __init__(self):
        self.out = io.BytesIO()

    def add(self, name, data):
        """Add bytes, or a file with its holes."""
        if isinstance(data, Path):
            size = data.stat().st_size
            with data.open("rb") as file:
                parts = extents(file, size)
                if sum(length for _, length in parts) < size:
                    self.out.write(sparse_header(name, size, parts))
                    for start, length in parts:
                        file.seek(start)
                        self._body(file.read(length))
                    return
            data = data.read_bytes()
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.out.write(info.tobuf(tarfile.GNU_FORMAT))
        self._body(data)

    def _body(self, data):
        self.out.write(data + bytes(-len(data) % BLOCK))

    def bytes(self):
        """End the archive."""
        return self.out.getvalue() + bytes(2 * BLOCK)


def add_shard(archive, folder, base, *, layout="regular", wal=True, extra=None):
    """Add a shard below `base`."""
    for segment in sorted((folder / "segments").iterdir()):
        files = [p for p in sorted(segment.rglob("*")) if p.is_file()]
        if layout == "streamable":
            for path in files:
                archive.add(f"{base}segments/{segment.name}/files/{path.relative_to(segment)}", path)
            continue
        inner = Archive()
        for path in files:
            inner.add(f"snapshot/files/{path.relative_to(segment)}", path)
        archive.add(f"{base}segments/{segment.name}.tar", inner.bytes())
    if wal and (folder / "wal").is_dir():
        for path in sorted((folder / "wal").iterdir()):
            archive.add(f"{base}wal/{path.name}", path)
    else:
        archive.add(f"{base}wal/closed-9", b"wal\0" + bytes(1020))
    state = {"is_local": True, "this_peer_id": 1, "peers": {"1": "Active"}}
    archive.add(f"{base}replica_state.json", json.dumps(state).encode())
    archive.add(f"{base}shard_config.json", b'{"type":"ReplicaSet"}')
    for name, data in (extra or {}).items():
        archive.add(base + name, data)


def collection_config(vectors, sparse=(), shards=1, **changes):
    """Return a `config.json`."""
    params = {
        "vectors": vectors, "shard_number": shards, "replication_factor": 1, "write_consistency_factor": 1,
        "on_disk_payload": True,
    }  # fmt: skip
    if sparse:
        params["sparse_vectors"] = {name: {} for name in sparse}
    return {"params": params, **DEFAULTS, "uuid": None, **changes}


def pack_collection(folders, config, *, payload_index=None, keys=(), **options):
    """Return the bytes of a collection snapshot."""
    archive = Archive()
    for number, folder in enumerate(folders):
        add_shard(archive, folder, f"{number}/", **options)
    archive.add("version.info", b"0.4.2")
    archive.add("config.json", json.dumps(config).encode())
    archive.add("shard_key_mapping.json", json.dumps(list(keys)).encode())
    archive.add("payload_index.json", json.dumps({"schema": payload_index or {}}).encode())
    return archive.bytes()


def pack_shard(folder, **options):
    """Return the bytes of a shard snapshot."""
    archive = Archive()
    add_shard(archive, folder, "", **options)
    return archive.bytes()


def pack_storage(collections, aliases=()):
    """Return the bytes of a full-storage snapshot: `{name: bytes of its snapshot}`."""
    archive = Archive()
    mapping = {}
    for name, data in collections.items():
        mapping[name] = f"{name}-1-2026-01-01-00-00-00.snapshot"
        archive.add(mapping[name], data)
    config = {"collections_mapping": mapping, "collections_aliases": dict(aliases)}
    archive.add("config.json", json.dumps(config).encode())
    return archive.bytes()
