"""Commits: what must change in the schema first, then the points, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.caps import POINTS, cap
from vecdataset.engine import RETRIES, Merged, Table, back_off
from vecdataset.errors import (
    CommitConflictError,
    InvalidInputError,
    LimitExceededError,
    PointExistsError,
    PointNotFoundError,
)
from vecdataset.points import Evolution, PointBuffer, RawBatch, add_to_extra, wider
from vecdataset.reader import CONFIG, Reader, Selection
from vecdataset.schema import EXTRA, CollectionSchema, PayloadColumn, id_field

_LARGE: Final = 1 << 53
_BY_LITERALS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What a write did."""

    version: int
    """The version that holds it; a write that changes nothing makes none."""
    inserted: int = 0
    """Points that are new."""
    updated: int = 0
    """Points that were there."""
    deleted: int = 0
    """Points that are gone."""
    ids: pa.ChunkedArray | None = None
    """The stored ids of inserted and updated points, in the order given."""

    def __repr__(self) -> str:
        return (
            f"WriteResult(version={self.version}, inserted={self.inserted}, "
            f"updated={self.updated}, deleted={self.deleted})"
        )


def write_points(
    reader: Reader, batches: Iterator[RawBatch], *, insert: bool, update: bool
) -> tuple[WriteResult, Table]:
    """Validate all of `batches`, then commit them as one version.

    Args:
        reader: The collection as this writer sees it.
        batches: The points.
        insert: Whether new ids are added.
        update: Whether ids that are there are replaced; else one is an error.

    Returns:
        What was done, and the new version.
    """
    buffer = PointBuffer(reader.schema, where=reader.where, reject_duplicates=not update)
    try:
        for raw in batches:
            buffer.add(raw)
        if not len(buffer):
            return WriteResult(version=reader.table.version), reader.table
        limit = cap(POINTS) if insert else None
        if limit is not None:
            _keep_within(limit, reader, buffer)
        merged = _commit(reader.table, reader.name, buffer, insert=insert, update=update)
        return (
            WriteResult(
                version=merged.table.version,
                inserted=merged.inserted,
                updated=merged.updated,
                ids=buffer.ids(),
            ),
            merged.table.tidy(),
        )
    finally:
        buffer.close()


def _keep_within(limit: int, reader: Reader, buffer: PointBuffer) -> None:
    if reader.rows + len(buffer) <= limit:
        return
    new = len(pc.unique(buffer.ids())) - len(_existing(reader, buffer.ids()))
    if reader.rows + new > limit:
        raise LimitExceededError(
            f"{reader.where} has {reader.rows:,} points, and {POINTS} allows {limit:,}: {new:,} more came",
            hint="delete some, or raise the limit; nothing was written",
        )


class _ColumnsChangedError(Exception):
    """Points no longer fit: no conflict that the same merge could win at another try."""


def _commit(table: Table, name: str, buffer: PointBuffer, *, insert: bool, update: bool) -> Merged:
    refitted = buffer
    try:
        for attempt in range(RETRIES):
            latest = Reader(table.latest(), name=name)
            if not update:
                _refuse_existing(latest, refitted)
            latest = _evolve(latest, refitted)
            if not refitted.conforms(latest.schema):
                # Another writer gave a column another type meanwhile: fit the payload again.
                refitted = _refit(refitted, latest)
                continue

            def source(base: Table, fitted: PointBuffer = refitted) -> pa.RecordBatchReader:
                schema = CollectionSchema.from_arrow(base.schema, url=base.location.url)
                if not (base.settled and fitted.conforms(schema)):
                    raise _ColumnsChangedError
                return fitted.batches(schema)

            try:
                return latest.table.merge(source, insert=insert, update=update)
            except _ColumnsChangedError:
                continue
            except CommitConflictError:
                if attempt == RETRIES - 1:
                    raise
                back_off(attempt)
        raise CommitConflictError(f"other writers kept changing the columns of collection {name!r}")
    finally:
        if refitted is not buffer:
            refitted.close()


def _refuse_existing(reader: Reader, buffer: PointBuffer) -> None:
    """Meet ids that are there before the columns change for them; the merge meets those of a race."""
    if not reader.rows or not _evolution(reader, buffer):
        return
    found = _existing(reader, buffer.ids())
    if len(found):
        raise PointExistsError(
            f"id {found[0].as_py()!r} exists already in {reader.table.location.url}",
            hint="nothing was written; upsert replaces points",
        )


def _existing(reader: Reader, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return those ids that the collection has."""
    if not reader.rows:
        return ids.slice(0, 0)
    if len(ids) <= _BY_LITERALS:
        return reader.table.read(["id"], filter=next(reader.id_literals(ids)))["id"]
    found = reader.table.read(["id"])["id"]
    return found.filter(pc.is_in(found, value_set=ids))


def _refit(buffer: PointBuffer, reader: Reader) -> PointBuffer:
    assert buffer.id_type is not None
    own = buffer.fitted_schema()
    numbers = [c.name for c in own.payload.values() if c.json_number]
    again = PointBuffer(reader.schema, where=reader.where)
    for batch in buffer.batches(own):
        again.add(RawBatch(
            length=batch.num_rows,
            ids=batch.column("id"),
            vectors={n: batch.column(c) for n, c in own.vector_columns.items()},
            rows=_payload_rows(batch, own, numbers),
            extra=batch.column(EXTRA),
        ))  # fmt: skip
    return again


def _payload_rows(
    batch: pa.RecordBatch, schema: CollectionSchema, numbers: Sequence[str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.select(
        [c for c in schema.payload if c in batch.schema.names]
    ).to_pylist()
    for row in rows:
        for key in list(row):
            if row[key] is None:
                del row[key]
            elif key in numbers and row[key].is_integer():
                row[key] = int(row[key])
    return rows


def _evolution(reader: Reader, buffer: PointBuffer) -> Evolution:
    return buffer.evolution(reader.schema, known_extra=reader.extra_keys, known_zero=reader.zero_vectors)


def _evolve(reader: Reader, buffer: PointBuffer) -> Reader:
    """Commit what the points ask of the schema; columns first, so that a filter never misses a key."""
    if not reader.table.settled:
        reader = Reader(reader.table.settle(), name=reader.name)
    evolution = _evolution(reader, buffer)
    if not evolution:
        return reader
    table = reader.table
    if evolution.id_type is not None:
        table = table.add_key_column(id_field(evolution.id_type))
        after = Reader(table, name=reader.name)
        if after.schema.id_type != evolution.id_type:
            buffer.evolution(after.schema, known_extra=(), known_zero=())  # names the mismatch
    for column in evolution.widen:
        table = _widen(table, reader.name, column)
    if evolution.add:
        table = table.add_columns([c.to_field() for c in evolution.add])
    config: dict[str, str | None] = {f"{CONFIG}extra.{key}": "1" for key in evolution.extra_keys}
    config |= {f"{CONFIG}zero.{name}": "1" for name in evolution.zero_vectors}
    if config:
        table = table.set_config(config)
    return Reader(table, name=reader.name)


def _widen(table: Table, name: str, column: PayloadColumn) -> Table:
    for attempt in range(RETRIES):
        latest = Reader(table.latest().settle(), name=name)
        have = latest.schema.payload[column.name]
        if wider(have, column) == have:
            return latest.table  # another writer was faster, or took another type
        if column.json_number and _keep_large_integers(latest, column.name):
            continue
        try:
            return latest.table.widen(column.to_field())
        except CommitConflictError:
            if attempt == RETRIES - 1:
                raise
            back_off(attempt)
    raise CommitConflictError(f"other writers kept changing column {column.name!r} of collection {name!r}")


def _keep_large_integers(reader: Reader, column: str) -> bool:
    """Put integers of a column that float64 cannot hold into `_extra`; return whether some were not there."""
    kind = reader.schema.payload[column].type
    if kind.bit_width < 64:
        return False
    sql = f"`{column}` > {_LARGE}"
    if pa.types.is_signed_integer(kind):
        sql += f" OR `{column}` < -{_LARGE}"
    rows = reader.table.read([EXTRA, column], filter=sql)
    kept = [json.loads(text).get(column) if text else None for text in rows[EXTRA].to_pylist()]
    if kept == rows[column].to_pylist():
        return False
    table = reader.table.set_config({f"{CONFIG}extra.{column}": "1"})

    def patches(base: Table) -> pa.RecordBatchReader:
        if base.schema.field(column).type != kind or not base.settled:
            raise _ColumnsChangedError
        rows = base.read(["id", EXTRA, column], filter=sql)
        texts = [
            add_to_extra(text, column, value)
            for text, value in zip(rows[EXTRA].to_pylist(), rows[column].to_pylist(), strict=True)
        ]
        out = pa.table({"id": rows["id"], EXTRA: pa.array(texts, pa.string())})
        return out.cast(pa.schema([base.schema.field("id"), pa.field(EXTRA, pa.string())])).to_reader()

    with suppress(_ColumnsChangedError):
        table.merge(patches, insert=False, update=True)
    return True


# --------------------------------------------------------------------------- deletes


def delete_points(reader: Reader, ids: pa.Array | None, filter: Any) -> tuple[WriteResult, Table]:
    """Delete points by stored id, or by filter, as one commit."""
    table = reader.table
    if reader.schema.id_type is None:
        return WriteResult(version=table.version), table
    if ids is None:
        selection = reader.select(filter, in_memory=False)
        if selection.rows is None:
            if not reader.count(selection):
                return WriteResult(version=table.version), table
            deleted, after = table.delete(selection.sql or "true")
            return WriteResult(version=after.version, deleted=deleted), after.tidy()
        ids = reader.read(["id"], selection)["id"]
    if not len(ids):
        return WriteResult(version=table.version), table
    if len(ids) <= _BY_LITERALS:
        sql = next(reader.id_literals(ids))
        if not table.count(sql):
            return WriteResult(version=table.version), table
        deleted, after = table.delete(sql)
    else:
        if not pc.any(pc.is_in(table.read(["id"])["id"], value_set=ids)).as_py():
            return WriteResult(version=table.version), table
        deleted, after = table.delete_ids(ids)
    return WriteResult(version=after.version, deleted=deleted), after.tidy()


# --------------------------------------------------------------------------- patches


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A change of the payload or vectors of points that are there."""

    set: Mapping[str, Any] | None = None
    """Payload keys to set; None as a value removes the key, as in Qdrant."""
    clear: Sequence[str] | None = ()
    """Payload keys to remove first; None removes all."""
    clear_vectors: Sequence[str] = ()
    """Physical vector columns that become null."""


def patch_points(
    refresh: Callable[[], Reader], patch: Patch, select: Callable[[Reader], Selection]
) -> tuple[WriteResult, Table]:
    """Read the selected points, change them, and commit, starting over when they changed meanwhile."""
    for key in (*(patch.set or ()), *(patch.clear or ())):
        if not isinstance(key, str):
            raise InvalidInputError(f"payload key {key!r} is of type {type(key).__name__}; keys are strings")
    for attempt in range(RETRIES):
        reader = refresh()
        try:
            result, table = _patch_once(reader, patch, select(reader))
        except CommitConflictError:
            if attempt == RETRIES - 1:
                raise
            back_off(attempt)
            continue
        return result, table.tidy()
    raise AssertionError


def _patch_once(reader: Reader, patch: Patch, selection: Selection) -> tuple[WriteResult, Table]:
    if reader.schema.id_type is None:
        return WriteResult(version=reader.table.version), reader.table
    given = dict(patch.set or {})
    new = {k: v for k, v in given.items() if v is not None}
    everything = patch.clear is None
    gone = {*given, *(patch.clear or ())}
    payload = reader.schema.payload
    clear = [c for c in payload if everything or c in gone]
    touches_payload = everything or bool(gone)
    buffer = PointBuffer(reader.schema, where=reader.where, partial=True)
    try:
        for batch in reader.stream(["id", EXTRA], selection, batch_rows=65_536):
            texts = None
            if touches_payload:
                texts = pa.array(
                    [None if everything else _without(t, gone) for t in batch.column(EXTRA).to_pylist()],
                    pa.string(),
                )
            buffer.add(RawBatch(
                length=batch.num_rows,
                ids=batch.column("id"),
                rows=[new] * batch.num_rows,
                extra=texts,
                clear=[*clear, *patch.clear_vectors],
            ))  # fmt: skip
        return _commit_patch(reader, buffer)
    finally:
        buffer.close()


def _without(text: str | None, keys: set[str]) -> str | None:
    if not text:
        return None
    kept = {k: v for k, v in json.loads(text).items() if k not in keys}
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False) if kept else None


def _commit_patch(reader: Reader, buffer: PointBuffer) -> tuple[WriteResult, Table]:
    if not len(buffer):
        return WriteResult(version=reader.table.version), reader.table
    evolved = _evolve(reader, buffer)
    if not (evolved.table.settled and buffer.conforms(evolved.schema)):
        raise CommitConflictError(f"the columns of {reader.where} changed meanwhile")
    base = reader.table
    if evolved is not reader:
        # The points were read before the schema commit: they must not have changed in between.
        base = evolved.table
        if base.version != reader.table.version and not _only_schema_changed(reader.table, base):
            raise CommitConflictError(f"{reader.where} changed meanwhile")
    merged = base.merge(
        lambda _: buffer.batches(evolved.schema), insert=False, update=True, based_on_reads=True
    )
    return (
        WriteResult(version=merged.table.version, updated=merged.updated, ids=buffer.ids()),
        merged.table,
    )


_SCHEMA_OPERATIONS: Final = frozenset({"merge", "project", "updateconfig", "baseoperation"})


def _only_schema_changed(before: Table, after: Table) -> bool:
    return all(after.operation(v) in _SCHEMA_OPERATIONS for v in range(before.version + 1, after.version + 1))


def update_vectors(
    refresh: Callable[[], Reader], batches: Callable[[], Iterator[RawBatch]]
) -> tuple[WriteResult, Table]:
    """Replace the vectors that `batches` bring; other vectors and the payload stay.

    Raises:
        PointNotFoundError: An id is not there; nothing was written.
    """
    reader = refresh()
    buffer = PointBuffer(reader.schema, where=reader.where, partial=True)
    try:
        for raw in batches():
            raw.columns, raw.rows, raw.extra = {}, None, None
            buffer.add(raw)
        for attempt in range(RETRIES):
            reader = refresh()
            if len(buffer):
                _must_exist(reader, buffer.ids())
            try:
                result, table = _commit_patch(reader, buffer)
            except CommitConflictError:
                if attempt == RETRIES - 1:
                    raise
                back_off(attempt)
                continue
            return result, table.tidy()
        raise AssertionError
    finally:
        buffer.close()


def _must_exist(reader: Reader, ids: pa.ChunkedArray) -> None:
    present: set[Any] = set()
    if reader.schema.id_type is not None:
        for sql in reader.id_literals(ids):
            present.update(reader.table.read(["id"], filter=sql)["id"].to_pylist())
    missing = [i for i in ids.to_pylist() if i not in present]
    if missing:
        raise PointNotFoundError(
            f"{reader.where} has no point {missing[0]!r}"
            + (f" (and {len(missing) - 1} more of the ids given)" if len(missing) > 1 else ""),
            hint="nothing was written; upsert adds points",
        )
