"""What `vecdataset inspect` says of a snapshot: plain values, and the rows of a table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vecdataset.errors import InvalidInputError
from vecdataset.formats import Source
from vecdataset.formats.qdrant.anatomy import Anatomy, Collection, Shard
from vecdataset.formats.qdrant.config import declared_by
from vecdataset.formats.qdrant.reading import look_into

__all__ = ["inspected"]


def inspected(source: Source, *, verify: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what a snapshot holds, as JSON values, and one row a segment.

    Args:
        source: The archive; all of it is read, and little of it unpacked.
        verify: Compare it with the checksum file beside it.

    Raises:
        InvalidInputError: It is damaged, or no snapshot.
    """
    with tempfile.TemporaryDirectory(prefix="vecdataset-inspect-") as folder:
        found = look_into(source, Path(folder), verify=verify)
    data: dict[str, Any] = {
        "format": "qdrant",
        "kind": found.kind,
        "layout": found.layout,
        "size_bytes": found.size_bytes,
        "sha256": found.sha256,
        "collections": [_collection(c, source.name) for c in found.collections],
    }
    if found.aliases:
        data["aliases"] = dict(found.aliases)
    return data, list(_rows(found))


def _collection(found: Collection, where: str) -> dict[str, Any]:
    out: dict[str, Any] = {"name": found.name} if found.name is not None else {}
    out["points"] = found.points
    problems = [_problem(p.what, p.remedy, p.option) for p in found.problems]
    if found.config is not None:
        try:
            declared = declared_by(found.config, where=where)
        except InvalidInputError as exc:
            problems.append(_problem(exc.message, exc.hint or "", None))
        else:
            out["vectors"] = {n: p.to_json() for n, p in declared.schema.vectors.items()}
            out["sparse"] = {n: {"modifier": p.modifier} for n, p in declared.schema.sparse.items()}
            out["losses"] = list(declared.losses)
        out["config"] = dict(found.config)
    out["payload_index"] = dict(found.payload_index)
    out["shards"] = [_shard(s) for s in found.shards]
    out["problems"] = problems
    return out


def _problem(what: str, remedy: str, option: str | None) -> dict[str, Any]:
    return {"what": what, "remedy": remedy} | ({"option": option} if option else {})


def _shard(found: Shard) -> dict[str, Any]:
    wal: dict[str, Any] = {"entries": found.wal.entries, "pending": found.wal.pending}
    if found.wal.problem is not None:
        wal = {"problem": found.wal.problem}
    return {
        "id": found.id,
        **({"key": found.key} if found.key is not None else {}),
        "is_local": found.is_local,
        "wal": wal,
        "segments": [
            {
                "id": s.id,
                "storage": s.storage,
                "points": s.points,
                "version": s.version,
                "size_bytes": s.size_bytes,
                "indexed": s.indexed,
            }
            for s in found.segments
        ],
    }


def _rows(found: Anatomy) -> Iterator[dict[str, Any]]:
    for collection in found.collections:
        for shard in collection.shards:
            pending = "damaged" if shard.wal.problem is not None else shard.wal.pending
            for segment in shard.segments:
                yield {
                    **({"collection": collection.name} if collection.name is not None else {}),
                    "shard": shard.id,
                    "segment": segment.id,
                    "points": segment.points,
                    "size_bytes": segment.size_bytes,
                    "storage": segment.storage,
                    "indexed": segment.indexed,
                    "log": pending,
                }
