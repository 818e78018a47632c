"""What keeps a collection fast: its indexes, small fragments merged, its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.indexes import build_params, default_kind, kinds
from vecdataset.indexes.payload import SECOND_PART, PayloadIndex, lost_indexes, payload_index
from vecdataset.indexes.training import Training
from vecdataset.infos import IndexInfo
from vecdataset.query import LANCE_METRIC
from vecdataset.reader import CONFIG, Host, Reader
from vecdataset.schema import vector_column

__all__ = [
    "configure",
    "create_index",
    "create_payload_index",
    "drop_index",
    "list_indexes",
    "optimize",
]

_ID_INDEX: Final = "id_idx"

Progress = Callable[[float], None]


def list_indexes(reader: Reader) -> list[IndexInfo]:
    """Return the indexes of a version, with what they cover."""
    columns = {column: name or "vector" for name, column in reader.schema.vector_columns.items()}
    out = []
    for index in reader.table.indexes:
        if index.name.endswith(SECOND_PART):
            continue  # shown with the first
        unindexed = reader.table.unindexed_rows(index)
        stored = reader.index_params(index.name)
        kind = stored.pop("kind", index.kind)
        out.append(IndexInfo(
            name=index.name, kind=kind, on=columns.get(index.column, index.column.partition(".")[0]),
            rows=reader.rows - unindexed, unindexed_rows=unindexed, params=stored,
        ))  # fmt: skip
    return out


def _named(reader: Reader, name: str) -> IndexInfo:
    return next(i for i in list_indexes(reader) if i.name == name)


def create_index(
    host: Host,
    kind: str | None,
    *,
    using: str | None = None,
    progress: Progress | None = None,
    params: Mapping[str, Any],
) -> IndexInfo:
    """Build an index over a vector; see `Collection.create_index`."""
    reader = host.writer()
    name, declared = reader.schema.vector(using)
    if kind is None:
        kind, defaults = default_kind(declared)
        params = {**defaults, **params}
    chosen = kinds.get(kind)
    reason = chosen.refuses(declared)
    if reason is not None:
        raise InvalidInputError(
            f"vector {name or 'vector'!r} of {reader.where} cannot have an index {kind!r}: {reason}"
        )
    built = build_params(params)
    build = chosen.build(declared, rows=max(1, reader.rows), params=built)
    if reader.schema.id_type is None or not _holds(reader, vector_column(name)):
        raise InvalidInputError(
            f"{reader.where} has no vectors {name or 'vector'!r} to index yet",
            hint="upsert first; optimize() then builds the index",
        )
    column = vector_column(name)
    index = f"{column}_idx"
    remember = json.dumps({"kind": chosen.name, **built}, separators=(",", ":"))
    # The settings first: a search between the two commits asks the old index with new settings at worst.
    reader.table.set_config({f"{CONFIG}index.{index}": remember})
    table = reader.table.create_index(
        column,
        build.kind,
        name=index,
        metric=LANCE_METRIC[declared.metric],
        options=build.options,
        progress=progress,
    )
    made = host.advance(table)
    trained = Training.of(reader.table, column, declared)
    made = host.advance(made.table.set_config({f"{CONFIG}trained.{index}": trained.to_json()}))
    return _named(made, index)


def create_payload_index(host: Host, key: str, kind: str | None, options: Mapping[str, Any]) -> IndexInfo:
    """Build an index over a payload column; see `Collection.create_payload_index`."""
    reader = host.writer()
    if key not in reader.schema.payload:
        hint = did_you_mean(key, reader.schema.payload, what="payload columns")
        if key in reader.extra_keys:
            hint = "its values are objects, or of several types; filters on it work without an index"
        raise UnknownNameError(f"{reader.where} has no payload column {key!r}", hint=hint)
    index = payload_index(reader.schema.payload[key], kind, options)
    return _named(_build(host, reader, index), index.name)


def _build(host: Host, reader: Reader, index: PayloadIndex) -> Reader:
    remember = json.dumps(index.to_json(), separators=(",", ":"))
    table = reader.table.set_config({f"{CONFIG}index.{index.name}": remember})
    for name, column in index.parts:
        table = table.create_scalar_index(column, index.lance, name=name, options=index.options)
    return host.advance(table)


def drop_index(host: Host, name: str) -> None:
    """Remove an index by name."""
    reader = host.writer()
    known = [i.name for i in reader.table.indexes if not i.name.endswith(SECOND_PART)]
    if name not in known:
        raise UnknownNameError(
            f"{reader.where} has no index {name!r}", hint=did_you_mean(name, known, what="indexes")
        )
    for each in [i.name for i in reader.table.indexes if i.name in (name, name + SECOND_PART)]:
        reader = host.advance(reader.table.drop_index(each))
    gone = dict.fromkeys([f"{CONFIG}index.{name}", f"{CONFIG}trained.{name}"])
    host.advance(reader.table.set_config(gone))


def optimize(host: Host, progress: Progress | None) -> None:
    """Merge small fragments, bring indexes up to date, build those that are due."""
    reader = host.writer()
    if reader.schema.id_type is None:
        return
    reader = host.advance(reader.table.compact())
    # An index over a vector that no point has any more cannot be trained again; it stays as it is.
    names = [i.name for i in reader.table.indexes if _holds(reader, i.column)]
    worn, reader = _worn(host, reader, names)
    rest = [n for n in names if n not in worn]
    if rest:
        reader = host.advance(reader.table.optimize_indexes(rest))
    for lost in _lost(reader):
        reader = _build(host, reader, lost)
    for index, vector in worn.items():
        params = reader.index_params(index)
        create_index(host, params.pop("kind"), using=vector, params=params)
    _build_due(host, progress)
    if progress is not None:
        progress(1.0)


def _build_due(host: Host, progress: Progress | None) -> None:
    """Index each vector that has none, once there are points enough, and the ids."""
    reader = host.writer()
    if reader.rows < max(1, reader.indexing_threshold):
        return
    have = {i.column for i in reader.table.indexes}
    due = [
        name
        for name, p in reader.schema.vectors.items()
        if vector_column(name) not in have
        and kinds.get(default_kind(p)[0]).refuses(p) is None
        and _holds(reader, vector_column(name))
    ]
    for at, name in enumerate(due):
        report = None if progress is None else _part(progress, at, len(due))
        create_index(host, None, using=name, progress=report, params={})
    if "id" not in have:
        host.advance(host.writer().table.create_scalar_index("id", "btree", name=_ID_INDEX))


def _worn(host: Host, reader: Reader, names: Sequence[str]) -> tuple[dict[str, str], Reader]:
    """Count rows that vector indexes do not cover yet; return those to build anew, with their vector."""
    worn: dict[str, str] = {}
    counts: dict[str, str | None] = {}
    vectors = {column: name for name, column in reader.schema.vector_columns.items()}
    for index in reader.table.indexes:
        name = vectors.get(index.column)
        if name is None or name not in reader.schema.vectors or index.name not in names:
            continue
        key, params = f"{CONFIG}trained.{index.name}", reader.schema.vectors[name]
        before = Training.parse(reader.table.config.get(key))
        known = before or Training.of(reader.table, index.column, params, index)
        now = known.with_new(reader.table, index, params)
        if now.due(reader.rows) and "kind" in reader.index_params(index.name):
            worn[index.name] = name
        elif now != before:
            counts[key] = now.to_json()
    return worn, host.advance(reader.table.set_config(counts)) if counts else reader


def _lost(reader: Reader) -> list[PayloadIndex]:
    names = [
        k.removeprefix(f"{CONFIG}index.") for k in reader.table.config if k.startswith(f"{CONFIG}index.")
    ]
    there = {i.name for i in reader.table.indexes}
    return lost_indexes({n: reader.index_params(n) for n in names}, there, reader.schema.payload)


def configure(host: Host, settings: Mapping[str, int | None]) -> None:
    """Change settings, stored with the collection; None leaves one as it is."""
    reader = host.writer()
    values: dict[str, str | None] = {}
    for key, value in settings.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidInputError(f"{key} is {value!r}; it must be an integer of at least 0")
        values[CONFIG + key] = str(value)
    host.advance(reader.table.set_config(values))


def _holds(reader: Reader, column: str) -> bool:
    """Return whether a point has a value in a column."""
    return len(reader.table.read(["id"], filter=f"`{column.replace('.', '`.`')}` IS NOT NULL", limit=1)) > 0


def _part(progress: Progress, at: int, of: int) -> Progress:
    return lambda share: progress((at + share) / of)
