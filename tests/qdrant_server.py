"""A small Qdrant server: the REST calls that backups, imports and exports need, over Qdrant's own engine.

Each collection is one shard of the engine; snapshots are packed and unpacked as a server does. Faults
can be asked for: the next requests of a kind fail in a given way.
"""

import contextlib
import gzip
import hashlib
import io
import json
import re
import shutil
import socket
import struct
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import qdrant_edge as edge
from qdrant_archives import unpack

from vecdataset.formats.qdrant.sparse_tar import Member, Packed, TarWriter, folder_members

KINDS = {
    "keyword": "Keyword", "integer": "Integer", "float": "Float", "bool": "Bool", "datetime": "Datetime",
    "uuid": "Uuid", "geo": "Geo", "text": "Text",
}  # fmt: skip
DATATYPES = {"float32": "Float32", "float16": "Float16", "uint8": "Uint8"}


@dataclass
class Fault:
    """What goes wrong, with requests that match, so many times."""

    match: str
    kind: str
    """`503`, `drop`, `hang`, `truncate`, `gzip`, `corrupt`, `lost answer`, `html`."""
    times: int = 1
    after: int = 0
    """How many of them go well first."""


class RefusedError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


@dataclass
class Stored:
    """One collection."""

    folder: Path
    config: dict
    shard: object
    payload_schema: dict = field(default_factory=dict)


class QdrantServer:
    """Runs in this process, on loopback, until it is closed."""

    def __init__(self, folder, *, api_key=None, version="1.20.0"):
        self.folder = Path(folder)
        self.api_key = api_key
        self.version = version
        self.collections = {}
        self.aliases = {}
        self.faults = []
        self.requests = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"qdrant": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self):
        return f"qdrant://{self.address}"

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for stored in self.collections.values():
            stored.shard.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fail(self, match, kind, times=1, after=0):
        self.faults.append(Fault(match, kind, times, after))

    def fault_of(self, request):
        with self.lock:
            for fault in self.faults:
                if not fault.times or not re.search(fault.match, request):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault.kind
        return None

    def snapshots(self, name):
        return self.folder / "snapshots" / name

    # -- what the calls do

    def create(self, name, body):
        if name in self.collections:
            raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
        config = {
            "params": {k: v for k, v in body.items() if k in ("vectors", "sparse_vectors", "shard_number",
                       "replication_factor", "write_consistency_factor", "on_disk_payload")},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000} | body.get("hnsw_config", {}),
            "optimizer_config": {"default_segment_number": 0, "flush_interval_sec": 5, "indexing_threshold": 10000}
            | body.get("optimizers_config", {}),
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0} | body.get("wal_config", {}),
            "quantization_config": body.get("quantization_config"),
        }  # fmt: skip
        if "optimizer_config" in body:
            raise RefusedError(400, "unknown field `optimizer_config`")
        config["params"].setdefault("shard_number", 1)
        place = self.folder / "collections" / uuid.uuid4().hex
        place.mkdir(parents=True)
        shard = edge.EdgeShard.create(str(place), edge.EdgeConfig(**_edge_config(config)))
        self.collections[name] = Stored(place, config, shard)

    def find(self, name):
        name = self.aliases.get(name, name)
        if name not in self.collections:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def drop(self, name):
        if name not in self.collections:
            return False
        self.collections.pop(name).shard.close()
        return True

    def index(self, stored, path, schema):
        kind = schema if isinstance(schema, str) else schema["type"]
        stored.shard.update(
            edge.UpdateOperation.create_field_index(path, getattr(edge.PayloadSchemaType, KINDS[kind]))
        )
        stored.payload_schema[path] = schema

    def describe(self, stored):
        count = stored.shard.count(edge.CountRequest(exact=True))
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": count,
            "indexed_vectors_count": 0,
            "segments_count": 1,
            "config": {k: v for k, v in stored.config.items() if k != "uuid"},
            "payload_schema": {
                path: {"data_type": s if isinstance(s, str) else s["type"], "points": count}
                | ({} if isinstance(s, str) else {"params": s})
                for path, s in stored.payload_schema.items()
            },
        }

    def snapshot(self, name):
        stored = self.find(name)
        stored.shard.flush()
        folder = self.snapshots(name)
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        file = folder / f"{name}-1-2026-01-02-03-04-{now % 100:02}-{now}.snapshot"
        with file.open("wb") as out:
            digest = pack(stored, out)
        Path(f"{file}.checksum").write_text(digest)
        return self.described(file)

    def described(self, file):
        checksum = Path(f"{file}.checksum")
        return {
            "name": file.name,
            "creation_time": "2026-01-02T03:04:05",
            "size": file.stat().st_size,
            "checksum": checksum.read_text() if checksum.exists() else None,
        }

    def recover(self, name, data, checksum):
        if checksum and hashlib.sha256(data).hexdigest() != checksum.strip().lower():
            raise RefusedError(400, "Wrong input: Snapshot checksum mismatch")
        folder = self.snapshots(name)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{uuid.uuid4().hex}.snapshot"
        kept.write_bytes(data)
        place = self.folder / "collections" / uuid.uuid4().hex
        try:
            shard_folder, files = unpack(kept, place)
        except Exception as exc:
            raise RefusedError(400, f"Wrong input: failed to unpack snapshot: {exc}") from exc
        config = files["config.json"]
        if not (shard_folder / "wal").is_dir() or not (shard_folder / "segments").is_dir():
            raise RefusedError(400, "Shard not in snapshot")
        if name in self.collections:
            have = self.collections[name].config["params"]
            if have["vectors"] != config["params"]["vectors"]:
                raise RefusedError(400, "Wrong input: Snapshot is not compatible with existing collection")
            self.drop(name)
        shard = edge.EdgeShard.load(str(shard_folder))
        stored = Stored(shard_folder, config, shard)
        self.collections[name] = stored
        for path, schema in files.get("payload_index.json", {"schema": {}})["schema"].items():
            self.index(stored, path, schema)


def pack(stored, out):
    """Write a collection snapshot, its log included, as a server does."""
    archive = TarWriter(out, mtime=int(time.time()))
    for segment in sorted((stored.folder / "segments").iterdir()):
        archive.add(
            Packed(f"0/segments/{segment.name}.tar", list(folder_members(segment, "snapshot/files/")), 0)
        )
    for member in folder_members(stored.folder / "wal", "0/wal/"):
        archive.add(member)
    for name, content in (
        ("0/replica_state.json", {"is_local": True, "this_peer_id": 1, "peers": {"1": "Active"}}),
        ("0/shard_config.json", {"type": "ReplicaSet"}),
        ("config.json", stored.config | {"uuid": None}),
        ("shard_key_mapping.json", []),
        ("payload_index.json", {"schema": stored.payload_schema}),
    ):
        archive.add(Member(name, json.dumps(content).encode()))
    return archive.close()


# ------------------------------------------------------------------------ engine's words


def _edge_config(config):
    params = config["params"]
    vectors = params.get("vectors") or {}
    if "size" in vectors:
        vectors = {"": vectors}
    return {
        "vectors": {name: _vector(p) for name, p in vectors.items()},
        "sparse_vectors": {
            name: edge.EdgeSparseVectorParams(
                modifier=edge.Modifier.Idf if p.get("modifier") == "idf" else None
            )
            for name, p in (params.get("sparse_vectors") or {}).items()
        },
    }


def _vector(p):
    return edge.EdgeVectorParams(
        p["size"],
        getattr(edge.Distance, p["distance"]),
        datatype=getattr(edge.VectorStorageDatatype, DATATYPES[p.get("datatype") or "float32"]),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        if p.get("multivector_config")
        else None,
    )


def _point(p):
    return edge.Point(p["id"], _vectors(p.get("vector") or {}), p.get("payload") or {})


def _vectors(given):
    if isinstance(given, dict):
        return {n: edge.SparseVector(**v) if isinstance(v, dict) else v for n, v in given.items()}
    return given


def _record(r, with_payload, with_vector):
    vector = r.vector
    if isinstance(vector, dict):
        vector = {
            n: {"indices": v.indices, "values": v.values} if isinstance(v, edge.SparseVector) else v
            for n, v in vector.items()
        }
    out = {"id": r.id if isinstance(r.id, int) else str(r.id)}
    if with_payload:
        out["payload"] = r.payload or {}
    if with_vector:
        out["vector"] = {} if vector is None else vector
    return out


# ------------------------------------------------------------------------------- the calls


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    qdrant = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    do_PUT = do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815  the names that the base class calls

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunked()
        address = urlsplit(self.path)
        request = f"{self.command} {unquote(address.path)}"
        self.qdrant.requests.append(request)
        fault = self.qdrant.fault_of(request)
        if fault == "503":
            self._send(503, b"overloaded")
            return
        if fault == "html":
            self._send(200, b"<html>a proxy's page</html>")
            return
        if fault == "hang":
            time.sleep(1.5)
            self.close_connection = True
            return
        if fault == "drop":
            self._reset()
            return
        key = self.qdrant.api_key
        given = self.headers.get("api-key") or (self.headers.get("Authorization") or "").removeprefix(
            "Bearer "
        )
        if key is not None and given != key and address.path not in ("/readyz", "/healthz"):
            self._json(401 if not given else 403, {"status": {"error": "Invalid API key or JWT"}, "time": 0})
            return
        try:
            with self.qdrant.lock:
                found = self._route(self.command, unquote(address.path), parse_qs(address.query), body)
        except RefusedError as exc:
            self._json(exc.status, {"status": {"error": str(exc)}, "time": 0})
            return
        if fault == "lost answer":
            self._reset()
        elif isinstance(found, Path):
            self._file(found, fault)
        elif isinstance(found, bytes):
            self._send(200, found, "text/plain")
        else:
            self._json(200, found if "title" in found else {**found, "status": "ok", "time": 0.0})

    def _chunked(self):
        out = b""
        while size := int(self.rfile.readline(), 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def _reset(self):
        """Close so that the other side sees a connection that broke."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.rfile = self.wfile = io.BytesIO()

    def _json(self, status, value):
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status, data, kind="text/plain", **headers):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

    def _file(self, path, fault):
        data = path.read_bytes()
        start, status, headers = 0, 200, {"Accept_Ranges": "bytes"}
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(found[1]), 206
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        accepted = self.headers.get("Accept-Encoding") or ""
        if fault == "gzip" or "gzip" in accepted:  # as the servers do: trap 17
            self._send(200, gzip.compress(data), "application/tar", Content_Encoding="gzip")
            return
        if fault == "corrupt":
            data = data[:-3000] + b"\x01" + data[-2999:]
        part = data[start:]
        if fault in ("truncate", "cut"):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if fault == "truncate":
                self.send_header("Content-Length", str(len(part)))
            else:  # no length, so that the end looks like the end
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self._send(status, part, "application/tar", **headers)

    def _route(self, method, path, query, body):
        qdrant = self.qdrant
        parts = path.strip("/").split("/") if path != "/" else []
        value = (
            json.loads(body)
            if body and not (self.headers.get("Content-Type") or "").startswith("multipart")
            else {}
        )
        match (method, *parts):
            case ("GET",):
                return {"title": "qdrant - vector search engine", "version": qdrant.version}
            case ("GET", "readyz" | "healthz"):
                return b"all shards are ready"
            case ("GET", "collections"):
                return {"result": {"collections": [{"name": n} for n in qdrant.collections]}}
            case ("GET", "aliases"):
                found = [{"alias_name": a, "collection_name": c} for a, c in qdrant.aliases.items()]
                return {"result": {"aliases": found}}
            case ("POST", "collections", "aliases"):
                for action in value["actions"]:
                    made = action["create_alias"]
                    qdrant.aliases[made["alias_name"]] = made["collection_name"]
                return {"result": True}
            case ("GET", "collections", name):
                return {"result": qdrant.describe(qdrant.find(name))}
            case ("GET", "collections", name, "exists"):
                return {"result": {"exists": name in qdrant.collections}}
            case ("PUT", "collections", name):
                qdrant.create(name, value)
                return {"result": True}
            case ("DELETE", "collections", name):
                return {"result": qdrant.drop(name)}
            case (_, "collections", name, "snapshots", *rest):
                return self._snapshots(method, name, rest, query, body, value)
            case (_, "collections", name, *rest):
                return self._points(method, qdrant.find(name), rest, value)
        raise RefusedError(404, f"no such call: {method} {path}")

    def _points(self, method, stored, rest, value):
        shard = stored.shard
        match (method, *rest):
            case ("PUT", "index"):
                self.qdrant.index(stored, value["field_name"], value["field_schema"])
            case ("PUT", "points"):
                if "batch" in value:
                    b = value["batch"]
                    points = [
                        {"id": i, "vector": v, "payload": p}
                        for i, v, p in zip(
                            b["ids"], b["vectors"], b.get("payloads") or [None] * len(b["ids"]), strict=True
                        )
                    ]
                else:
                    points = value["points"]
                shard.update(edge.UpdateOperation.upsert_points([_point(p) for p in points]))
            case ("POST", "points", "delete"):
                shard.update(edge.UpdateOperation.delete_points(value["points"]))
            case ("POST", "points"):
                return {"result": self._found(shard.retrieve(value["ids"], True, True), value)}
            case ("POST", "points", "count"):
                return {"result": {"count": shard.count(edge.CountRequest(exact=value.get("exact", True)))}}
            case ("POST", "points", "scroll"):
                page, offset = shard.scroll(edge.ScrollRequest(
                    limit=value.get("limit") or 10, offset=value.get("offset"), with_payload=True,
                    with_vector=value.get("with_vector") or False,
                ))  # fmt: skip
                offset = offset if offset is None or isinstance(offset, int) else str(offset)
                return {"result": {"points": self._found(page, value), "next_page_offset": offset}}
            case _:
                raise RefusedError(404, f"no such call: {method} points {rest}")
        return {"result": {"operation_id": 0, "status": "completed"}}

    def _found(self, records, value):
        with_payload, with_vector = value.get("with_payload", True), value.get("with_vector") or False
        return [_record(r, with_payload, with_vector) for r in records]

    def _snapshots(self, method, name, rest, query, body, value):
        qdrant = self.qdrant
        folder = qdrant.snapshots(name)
        checksum = query.get("checksum", [None])[0]
        match (method, *rest):
            case ("POST",):
                return {"result": qdrant.snapshot(name)}
            case ("GET",):
                qdrant.find(name)
                return {"result": [qdrant.described(f) for f in sorted(folder.glob("*.snapshot"))]}
            case ("GET", file):
                if not (folder / file).is_file():
                    raise RefusedError(404, f"Not found: Snapshot {file} not found")
                return folder / file
            case ("DELETE", file):
                (folder / file).unlink()
                Path(f"{folder / file}.checksum").unlink(missing_ok=True)
                return {"result": True}
            case ("POST", "upload"):
                qdrant.recover(name, _part(self.headers["Content-Type"], body), checksum)
                return {"result": True}
            case ("PUT", "recover"):
                location = Path(value["location"].removeprefix("file://"))
                qdrant.recover(name, location.read_bytes(), value.get("checksum"))
                return {"result": True}
        raise RefusedError(404, f"no such call: {method} snapshots {rest}")


def _part(kind, body):
    """Return the content of the only part of a multipart body, which must be called `snapshot`."""
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    head, _, rest = body.partition(boundary)[2].partition(b"\r\n\r\n")
    if b'name="snapshot"' not in head:
        raise RefusedError(400, "Multipart error: field `snapshot` is missing")
    return rest[: rest.rindex(b"\r\n" + boundary)]


@contextlib.contextmanager
def running(**options):
    """A server in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="qdrant-server-")
    try:
        with QdrantServer(folder, **options) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)
