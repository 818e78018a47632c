"""Qdrant's snapshots taken apart with Python's own tar reader, and asked with Qdrant's own engine."""

import json
import tarfile
import uuid
from pathlib import Path

import qdrant_edge as edge


def unpack(snapshot, folder):
    """Unpack a collection snapshot as a server does; return the folder of its shard, and its JSON files."""
    files = {}
    with tarfile.open(snapshot, "r:") as outer:
        for member in outer:
            path = Path(member.name)
            content = outer.extractfile(member)
            if path.parent.name == "segments" and path.suffix == ".tar":
                with tarfile.open(fileobj=content, mode="r:") as segment:
                    for part in segment:
                        # Python's reader of sparse members cannot be asked for less than all of a hole.
                        part.name = part.name.removeprefix("snapshot/files/")
                        segment.extract(part, folder / path.with_suffix(""), filter="data")
            elif member.isfile():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content.read())
                if path.suffix == ".json":
                    files[member.name] = json.loads((folder / path).read_bytes())
    return folder / "0", files


def points_of(shard):
    """Return all points of a shard, by id, in its order: vectors by name, and payload."""
    out, offset = {}, None
    while True:
        page, offset = shard.scroll(
            edge.ScrollRequest(limit=1000, offset=offset, with_payload=True, with_vector=True)
        )
        for r in page:
            key = str(r.id) if isinstance(r.id, uuid.UUID) else r.id
            # A point that has the unnamed vector only comes as a list.
            named = r.vector if isinstance(r.vector, dict) else {"": r.vector}
            out[key] = ({n: _plain(v) for n, v in named.items()}, r.payload or {})
        if offset is None:
            return out


def opened(snapshot, folder):
    """Return all points of a snapshot."""
    shard = edge.EdgeShard.load(str(unpack(snapshot, folder)[0]))
    try:
        return points_of(shard)
    finally:
        shard.close()


def _plain(vector):
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return vector
