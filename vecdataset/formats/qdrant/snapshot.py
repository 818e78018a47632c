"""A collection as a Qdrant snapshot: the archive that a server restores.

The engine writes the points into a shard in a private folder, without a log and without indexes: a
server builds those itself, and plain appendable segments are what every release since 1.14 reads.
Around the shard goes what a server asks of a collection snapshot
(`lib/collection/src/collection/snapshots.rs`). The archive is then opened again and compared with
what went in; only then does it appear under its name, with its SHA-256 beside it.

Verified with the engine's releases 0.6 to 0.9 (the servers 1.17 to 1.20), whose shards have the same
layout as a server's.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from vecdataset.display import size
from vecdataset.errors import InvalidInputError, StorageError
from vecdataset.formats import LossWarning, stored_points
from vecdataset.formats.qdrant.edge import edge
from vecdataset.formats.qdrant.proof import Proof, Stored
from vecdataset.formats.qdrant.records import Records, records_of
from vecdataset.formats.qdrant.settings import Settings, settings_of
from vecdataset.formats.qdrant.sparse_tar import Member, Packed, TarWriter, folder_members
from vecdataset.schema import CollectionSchema, VectorParams

if TYPE_CHECKING:
    from vecdataset.collection import Collection

__all__ = ["write_snapshot"]

BATCH: Final = 1_000
FLUSH_EVERY: Final = 50
"""Batches: what is not flushed the engine keeps in memory (81 MB for 400,000 points, and 48 MB with this)."""
_PAGE: Final = 10_000
_SHARD: Final = "0"
_PEER: Final = 1
_CRATE_VERSION: Final = b"0.4.2"
"""Version of the server's crate `collection`: the same from 1.0 to 1.19, and never compared."""
_EMPTY_WAL_SEGMENT: Final = b"wal\0\0\0\0\0"
_SPARE_BYTES: Final = 256 << 20
"""Free space that must remain: the engine writes through memory maps, and a full disk kills the process."""


def write_snapshot(
    collection: Collection,
    target: BinaryIO,
    *,
    name: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, bytes]:
    """Write all points of one version as a collection snapshot; return what stands beside the file.

    Args:
        collection: A handle on the version.
        target: An open file. One that can be read again is compared in place; another gets the archive
            once it has been compared.
        name: The file's name, for messages.
        progress: Called with the number of points written so far.

    Returns:
        `{".checksum": SHA-256 of the archive, 64 hex digits}`.

    Raises:
        InvalidInputError: A point cannot be held by Qdrant.
        StorageError: The disk is full.
        CorruptionError: The archive does not give back what went in.
    """
    engine = edge("writing a Qdrant snapshot")
    if name.endswith(".gz"):
        raise InvalidInputError(
            f"{name} would be compressed, and servers read plain archives", hint="leave .gz out of the name"
        )
    settings = settings_of(collection)
    schema = collection.schema
    with tempfile.TemporaryDirectory(prefix="vecdataset-qdrant-") as folder:
        place = Path(folder)
        _check_space(place, _estimate(collection))
        proof = Proof(schema, names=settings.names)
        _fill(engine, place / "shard", schema, settings, _records(collection, settings, proof, progress))
        with _archive(target, place / "archive") as archive:
            digest = _pack(place / "shard", settings, archive)
            shutil.rmtree(place / "shard")
            _verify(engine, archive, place / "check", proof, name)
    for loss in settings.losses:
        warnings.warn(loss, LossWarning, stacklevel=2)
    return {".checksum": digest.encode()}


@contextmanager
def _archive(target: BinaryIO, spool: Path) -> Iterator[BinaryIO]:
    """Give a file that can be read again: the target, or one that is copied to it in the end."""
    if target.seekable() and target.readable() and target.tell() == 0:
        yield target
        return
    with spool.open("w+b") as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, target, 4 << 20)


# ----------------------------------------------------------------------------- the shard


def _records(
    collection: Collection, settings: Settings, proof: Proof, progress: Callable[[int], None] | None
) -> Iterator[Records]:
    done = 0
    for batch in stored_points(collection, batch_rows=BATCH):
        records = records_of(batch, collection.schema, where=collection.name, names=settings.names)
        proof.add(records)
        yield records
        done += len(records)
        if progress is not None:
            progress(done)


def _fill(
    engine: Any, folder: Path, schema: CollectionSchema, settings: Settings, points: Iterable[Records]
) -> None:
    """Write the points into a shard. No log: the points are durable once, when the shard is closed."""
    names = settings.names
    config = engine.EdgeConfig(
        vectors={names.get(n, n): _edge_vector(engine, p) for n, p in schema.vectors.items()},
        sparse_vectors={
            names.get(n, n): engine.EdgeSparseVectorParams(
                modifier=engine.Modifier.Idf if p.modifier == "idf" else None
            )
            for n, p in schema.sparse.items()
        },
        wal_enabled=False,
    )
    sparse = [names.get(n, n) for n in schema.sparse]
    folder.mkdir()
    shard = engine.EdgeShard.create(str(folder), config)
    try:
        for number, records in enumerate(points, 1):
            _check_space(folder, 0)
            shard.update(engine.UpdateOperation.upsert_points(_edge_points(engine, records, sparse)))
            if number % FLUSH_EVERY == 0:
                shard.flush()
        shard.flush()
    finally:
        shard.close()


def _edge_vector(engine: Any, params: VectorParams) -> Any:
    datatypes = engine.VectorStorageDatatype
    return engine.EdgeVectorParams(
        params.size,
        getattr(engine.Distance, params.metric.value),
        datatype={"float32": datatypes.Float32, "uint8": datatypes.Uint8}.get(
            params.datatype, datatypes.Float16
        ),
        multivector_config=(
            engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim) if params.multivector else None
        ),
    )


def _edge_points(engine: Any, records: Records, sparse: Sequence[str]) -> list[Any]:
    point = engine.Point
    vectors = records.vectors
    if sparse:
        vectors = [
            v | {n: engine.SparseVector(**v[n]) for n in sparse if n in v}  # the sample keeps the others
            for v in vectors
        ]
    return [point(i, v, p) for i, v, p in zip(records.ids, vectors, records.payloads, strict=True)]


# --------------------------------------------------------------------------- the archive


def _pack(shard: Path, settings: Settings, target: BinaryIO) -> str:
    """Write the archive in the order in which a server writes it; return its SHA-256."""
    now = int(time.time())
    archive = TarWriter(target, mtime=now)
    version = 0
    for segment in sorted((shard / "segments").iterdir()):
        version = max(version, json.loads((segment / "segment.json").read_bytes())["version"] or 0)
        members = list(folder_members(segment, "snapshot/files/"))
        archive.add(Packed(f"{_SHARD}/segments/{segment.name}.tar", members, now))
    # Operations whose number is not above the version of a stored point are ignored. The number comes
    # from the log: an empty closed segment makes it start above all that is stored.
    archive.add(Member(f"{_SHARD}/wal/closed-{version + 1}", _EMPTY_WAL_SEGMENT))
    peers = {"is_local": True, "this_peer_id": _PEER, "peers": {str(_PEER): "Active"}}
    for name, content in (
        (f"{_SHARD}/replica_state.json", peers),
        (f"{_SHARD}/shard_config.json", {"type": "ReplicaSet"}),
        ("version.info", _CRATE_VERSION),
        ("config.json", settings.config),
        ("payload_index.json", {"schema": settings.payload_index}),
    ):
        archive.add(Member(name, content if isinstance(content, bytes) else json.dumps(content).encode()))
    return archive.close()


def _verify(engine: Any, archive: BinaryIO, folder: Path, proof: Proof, name: str) -> None:
    """Open the finished archive as a reader would, and compare."""
    archive.flush()
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r:") as outer:
        for member in outer:
            if member.name.startswith(f"{_SHARD}/segments/"):
                inner = outer.extractfile(member)
                with tarfile.open(fileobj=inner, mode="r:") as segment:
                    place = folder / "segments" / Path(member.name).stem
                    _extract(segment, place)
                    for part in (place / "snapshot" / "files").iterdir():
                        part.rename(place / part.name)
                    shutil.rmtree(place / "snapshot")
            elif member.name.startswith(f"{_SHARD}/wal/"):
                (folder / "wal").mkdir(parents=True, exist_ok=True)
                (folder / "wal" / Path(member.name).name).write_bytes(_content(outer, member))
    archive.seek(0, 2)
    shard = engine.EdgeShard.load(str(folder))
    try:
        proof.check(
            where=name,
            count=shard.count(engine.CountRequest(exact=True)),
            ids=_ids(engine, shard),
            retrieve=lambda ids: _retrieved(shard, ids),
        )
    finally:
        shard.close()


def _extract(archive: tarfile.TarFile, place: Path) -> None:
    # Python before 3.11.4 has no filters; the archive is the one written here a moment ago.
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(place, **options)  # noqa: S202


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _ids(engine: Any, shard: Any) -> Iterator[list[int | str]]:
    offset = None
    while True:
        page, offset = shard.scroll(
            engine.ScrollRequest(limit=_PAGE, offset=offset, with_payload=False, with_vector=False)
        )
        yield [r.id if isinstance(r.id, int) else str(r.id) for r in page]
        if offset is None:
            return


def _retrieved(shard: Any, ids: list[int | str]) -> Mapping[int | str, Stored]:
    found = {}
    for record in shard.retrieve(ids, True, True):
        vector = record.vector
        if isinstance(vector, Mapping):
            vector = {n: _plain(v) for n, v in vector.items()}
        found[record.id if isinstance(record.id, int) else str(record.id)] = (vector, record.payload or {})
    return found


def _plain(vector: Any) -> Any:
    if hasattr(vector, "indices"):
        return {"indices": vector.indices, "values": vector.values}
    return vector


# --------------------------------------------------------------------------------- space


def _estimate(collection: Collection) -> int:
    """Return the bytes that the shard will take at most, its copy in the archive not counted."""
    info = collection.info()
    dense = sum(4 * p.size for p in collection.schema.vectors.values())
    return max(info.rows * (dense + 64), info.size_bytes) * 2


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise StorageError(
            f"the disk of {tempfile.gettempdir()} has {size(free)} left; the export needs "
            f"{size(needed + _SPARE_BYTES)} there",
            hint="set TMPDIR to a folder on a larger disk",
        )
