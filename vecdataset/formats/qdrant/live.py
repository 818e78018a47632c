"""Collections of running servers: read by scroll, written by upsert, compared in the end.

Both can be given a checkpoint file: a run that was interrupted goes on from there. Upserting a point
twice is as good as once, so the points between the last checkpoint and the interruption do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vecdataset.errors import (
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    VecDatasetError,
)
from vecdataset.formats import Reading, stored_points
from vecdataset.formats.qdrant.client import (
    Address,
    Server,
    drop_checkpoint,
    part,
    read_checkpoint,
    write_checkpoint,
)
from vecdataset.formats.qdrant.config import Declared, declared_by, settings_to_keep
from vecdataset.formats.qdrant.proof import Proof
from vecdataset.formats.qdrant.records import Records, records_of
from vecdataset.formats.qdrant.settings import Settings, creation_body, settings_of
from vecdataset.schema import IdType

if TYPE_CHECKING:
    from vecdataset.collection import Collection

__all__ = ["overview", "pull", "push"]

PAGE: Final = 1_000
CHECKPOINT_POINTS: Final = 20_000
_FIRST_UUID: Final = "00000000-0000-0000-0000-000000000000"
BODY_BYTES: Final = 16 << 20
"""A server takes 32 MB by default."""
IDS_PAGE: Final = 10_000
UPSERT_TIMEOUT_S: Final = 60.0


def overview(url: str, *, options: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return name, points, vectors and status of the collections of a server, which tests the connection.

    Args:
        url: `qdrant://host[:port]`.
        options: `api_key`, `timeout_s`, `attempts`.
    """
    out = []
    with Server(Address.parse(url, options)) as server:
        server.version()
        for name in server.collections():
            found = server.collection(name)
            if found is None:  # dropped a moment ago
                continue
            shape = declared_by(found["config"], where=f"{url}/{name}").schema
            vectors: dict[str, Any] = {n or "vector": p.size for n, p in shape.vectors.items()}
            out.append({
                "name": name,
                "points": server.count(name),
                "vectors": vectors | dict.fromkeys(shape.sparse, "sparse"),
                "status": found.get("status"),
            })  # fmt: skip
    return out


# ------------------------------------------------------------------------------------ in


def pull(
    url: str,
    fill: Callable[[Reading, str, Callable[[int], None] | None], Collection],
    *,
    target: str,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Collection:
    """Read a collection of a server into one of ours.

    Without a checkpoint all points are one commit, and the count is compared before it. With one, some
    ten thousand points are a commit each, after which the checkpoint is written.

    Args:
        url: `qdrant://host[:port]/collection`.
        fill: Upserts what is read, into a collection that it makes if it is not there.
        target: That collection's URL, for the checkpoint.
        options: `api_key`, `timeout_s`, `attempts`; `checkpoint`: a file; `batch_points`: points a request.
        progress: Called with the number of points read so far.

    Raises:
        NotFoundError: The server has no such collection.
        CorruptionError: It gives another number of points than it says it has, or leaves out vectors.
    """
    given = dict(options or {})
    address = Address.parse(url, given)
    name, where = address.named(), address.url
    checkpoint = Path(given["checkpoint"]) if given.get("checkpoint") else None
    run = {"source": where, "target": target}
    with Server(address) as server:
        server.version()
        before = read_checkpoint(checkpoint, **run) if checkpoint else None
        done = int(before["points"]) if before else 0
        found = server.collection(name)
        if found is None:
            have = ", ".join(server.collections()) or "none"
            raise NotFoundError(f"there is no collection {where}", hint=f"collections there: {have}")
        declared = declared_by(found["config"], where=where)
        count = server.count(name)
        offset = before["offset"] if before else None
        pages = _pages(server, name, declared.names, offset, int(given.get("batch_points", PAGE)))
        reading = _reading(server, name, found, declared)
        if checkpoint is None:
            told = replace(reading, points=_all(server, name, pages, count))
            return fill(told, where, progress)
        collection = None
        for points, following in _parts(pages):
            part_of = replace(reading, points=points, losses=() if done else reading.losses)
            collection = fill(part_of, where, _beyond(progress, done))
            done += len(points)
            write_checkpoint(checkpoint, {**run, "offset": following, "points": done})
        _compare(server, name, count, done)
        drop_checkpoint(checkpoint)
        assert collection is not None  # there is one page at least
        return collection


def _reading(server: Server, name: str, found: Mapping[str, Any], declared: Declared) -> Reading:
    """Return what the server says of a collection; its points are still to come."""
    index = {
        path: schema.get("params") or schema["data_type"]
        for path, schema in (found.get("payload_schema") or {}).items()
    }
    schema = replace(declared.schema, id_type=_id_type(server, name))
    return Reading(
        points=(),
        vectors=schema.vectors,
        sparse=schema.sparse,
        declared=schema,
        layout="qdrant",
        settings=settings_to_keep(declared, found["config"], {"schema": index} if index else None),
        losses=declared.losses,
    )


def _id_type(server: Server, name: str) -> IdType | None:
    """Return what ids there are: a scroll gives integers first, then UUIDs."""
    first, _ = next(server.scroll(name, limit=1, full=False))
    if not first:
        return None
    if not isinstance(first[0]["id"], int):
        return "uuid"
    uuids, _ = next(server.scroll(name, limit=1, offset=_FIRST_UUID, full=False))
    return "mixed" if uuids else "uint64"


def _all(
    server: Server, name: str, pages: Iterator[tuple[list[dict[str, Any]], Any]], count: int
) -> Iterator[dict[str, Any]]:
    done = 0
    for points, _ in pages:
        yield from points
        done += len(points)
    _compare(server, name, count, done)


def _compare(server: Server, name: str, count: int, done: int) -> None:
    """Compare what came with what the server said before and says now."""
    now = server.count(name)
    if done not in range(min(count, now), max(count, now) + 1):
        raise CorruptionError(f"{server.address.url} says that it has {now:,} points, and gave {done:,}")


def _parts(
    pages: Iterator[tuple[list[dict[str, Any]], Any]],
) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """Yield pages as parts large enough for a commit."""
    held: list[dict[str, Any]] = []
    for points, following in pages:
        held += points
        if len(held) >= CHECKPOINT_POINTS or following is None:
            yield held, following
            held = []


def _beyond(progress: Callable[[int], None] | None, done: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda count: progress(done + count)


def _pages(
    server: Server, name: str, names: Mapping[str, str], offset: Any, page: int
) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    for points, following in server.scroll(name, limit=page, offset=offset):
        for point in points:
            vector = point.get("vector")
            if vector is None:  # not the same as none: {} says that
                raise CorruptionError(
                    f"{server.address.url} gives point {point['id']!r} without a word on its vectors",
                    hint="something between here and the server leaves them out",
                )
            if isinstance(vector, dict) and names:
                point["vector"] = {names.get(n, n): v for n, v in vector.items()}
        yield points, following


# ----------------------------------------------------------------------------------- out


def push(
    collection: Collection,
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write all points of one version into a new collection of a server; return how many.

    The collection is made from our declaration, filled, given its payload indexes, and compared: count,
    ids, a sample of vectors and payloads. If it fails, the collection is removed again, unless a
    checkpoint lets the next run go on with it.

    Args:
        collection: A handle on the version.
        url: `qdrant://host[:port]/collection`.
        options: `api_key`, `timeout_s`, `attempts`; `checkpoint`: a file; `batch_points`: points a request.
        progress: Called with the number of points written so far.

    Raises:
        AlreadyExistsError: The server has points in a collection of this name.
        InvalidInputError: A point cannot be held by Qdrant, or the server refuses it.
        CorruptionError: The server does not give back what was written.
    """
    given = dict(options or {})
    address = Address.parse(url, given)
    name = address.named()
    checkpoint = Path(given["checkpoint"]) if given.get("checkpoint") else None
    batch = int(given.get("batch_points", PAGE))
    settings = settings_of(collection)
    with Server(address) as server:
        server.version()
        run = {"source": f"{collection.url} version {collection.version}", "target": address.url}
        before = read_checkpoint(checkpoint, **run) if checkpoint else None
        done, made = int(before["points"]) if before else 0, False
        if before is None:
            _validate(collection, settings, batch)
            made = _create(server, name, settings)
        elif server.collection(name) is None:
            raise NotFoundError(
                f"{address.url} is gone since the checkpoint was written", hint=f"remove {checkpoint}"
            )
        try:
            proof = Proof(collection.schema, names=settings.names)
            total = 0
            for records in _records(collection, settings, batch):
                proof.add(records)
                total += len(records)
                if total <= done:
                    continue
                _upsert(server, name, records)
                if checkpoint:
                    write_checkpoint(checkpoint, {**run, "points": total})
                if progress is not None:
                    progress(total)
            proof.check(
                where=address.url,
                count=server.count(name),
                ids=([p["id"] for p in page] for page, _ in server.scroll(name, limit=IDS_PAGE, full=False)),
                retrieve=lambda ids: server.retrieve(name, ids),
            )
        except BaseException:
            if checkpoint is None and made:
                with suppress(VecDatasetError):  # what went wrong first is what is to be told
                    server.call("DELETE", f"/collections/{part(name)}")
            raise
        if checkpoint:
            drop_checkpoint(checkpoint)
    return total


def _records(collection: Collection, settings: Settings, batch: int) -> Iterator[Records]:
    for rows in stored_points(collection, batch_rows=batch):
        yield records_of(rows, collection.schema, where=collection.name, names=settings.names)


def _validate(collection: Collection, settings: Settings, batch: int) -> None:
    """Look at every point before the server hears of the first."""
    for _ in _records(collection, settings, batch):
        pass


def _create(server: Server, name: str, settings: Settings) -> bool:
    """Return whether the collection had to be made."""
    found = server.collection(name)
    body = creation_body(settings.config)
    if found is None:
        server.call("PUT", f"/collections/{part(name)}", body)
    else:
        count = server.count(name)
        if count:
            raise AlreadyExistsError(
                f"{server.address.url} is there and holds {count:,} points",
                hint="export to another name, or delete that collection first",
            )
        have = found["config"]["params"].get("vectors")
        if not _same_vectors(have, body["vectors"]):
            raise InvalidInputError(
                f"{server.address.url} is there, empty, and declares other vectors: {json.dumps(have)}",
                hint="export to another name, or delete that collection first",
            )
    for path, schema in settings.payload_index.items():
        request = {"field_name": path, "field_schema": schema}
        server.call("PUT", f"/collections/{part(name)}/index", request, query={"wait": "true"})
    return found is None


def _same_vectors(have: Any, want: Any) -> bool:
    def shape(vectors: Any) -> dict[str, tuple[Any, ...]]:
        named = {"": vectors} if "size" in (vectors or {}) else dict(vectors or {})
        return {
            n: (p["size"], p["distance"], p.get("datatype") or "float32", bool(p.get("multivector_config")))
            for n, p in named.items()
        }

    return shape(have) == shape(want)


def _upsert(server: Server, name: str, records: Records) -> None:
    path = f"/collections/{part(name)}/points"
    for body in _bodies(list(records)):
        server.call("PUT", path, body, query={"wait": "true"}, timeout_s=UPSERT_TIMEOUT_S)


def _bodies(points: list[tuple[int | str, Any, dict[str, Any]]]) -> Iterator[bytes]:
    """Yield requests for some points, none larger than a server takes unless one point alone is."""
    rows = ({"id": i, "vector": v, "payload": p} for i, v, p in points)
    body = json.dumps({"points": list(rows)}, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) <= BODY_BYTES or len(points) == 1:
        yield body
        return
    half = len(points) // 2
    yield from _bodies(list(islice(points, half)))
    yield from _bodies(points[half:])
