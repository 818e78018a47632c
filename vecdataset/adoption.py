"""An existing Lance dataset becomes a collection, in place: names and metadata change, data does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.engine import Table
from vecdataset.errors import (
    CollectionExistsError,
    InvalidIdError,
    InvalidInputError,
    NotSupportedError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.ids import fit_ids
from vecdataset.reader import CONFIG
from vecdataset.schema import (
    EXTRA,
    METADATA_KEY,
    UNNAMED,
    CollectionSchema,
    Distance,
    IdType,
    VectorParams,
    can_promote,
    id_field,
    vector_column,
)
from vecdataset.vectors import fit_vectors

_DATATYPES: Final = {pa.float32(): "float32", pa.float16(): "float16"}


def adopt_table(
    table: Table, *, id: str, vectors: VectorParams | Mapping[str, Any] | str | None = None
) -> Table:
    """Return the dataset as a collection's table; see `vecdataset.adopt`.

    Everything is checked first: ids (present, unique, of one type), vectors (finite), names.
    """
    if METADATA_KEY in (table.schema.metadata or {}):
        raise CollectionExistsError(f"{table.location.url} is a collection already")
    if table.dataset.has_stable_row_ids:
        raise NotSupportedError(
            f"{table.location.url} was written with stable row ids, which collections do not use",
            hint="write it anew without enable_stable_row_ids, or upsert its rows into a collection",
        )
    if id not in table.schema.names:
        raise UnknownNameError(
            f"{table.location.url} has no column {id!r}",
            hint=did_you_mean(id, table.schema.names, what="columns"),
        )
    columns = _vector_columns(table, vectors)
    renamed = {id: "id"} | {column: vector_column(name) for name, (column, _) in columns.items()}
    for f in table.schema:
        new = renamed.get(f.name, f.name)
        clash = new != f.name and new in table.schema.names and new not in renamed
        if clash or (f.name not in renamed and not can_promote(f.name)):
            raise InvalidInputError(
                f"column {(new if clash else f.name)!r} of {table.location.url} "
                "has a name that collections keep to themselves",
                hint="rename it in the dataset first",
            )
    id_type = _check_ids(table, id)
    zeros = [
        name for name, (column, params) in columns.items() if _check_vectors(table, name, column, params, id)
    ]
    changes: list[dict[str, Any]] = []
    for f in table.schema:
        if f.name == id:
            wanted = id_field(id_type).type
            if f.type != wanted:
                changes.append({"path": f.name, "data_type": wanted})
            if f.nullable:
                changes.append({"path": f.name, "nullable": False})
        if renamed.get(f.name, f.name) != f.name:
            changes.append({"path": f.name, "name": renamed[f.name]})
    key = id_field(id_type)
    text = {k.decode(): v.decode() for k, v in key.metadata.items()}
    adopted = table.alter(changes, {"id": text}).add_columns([pa.field(EXTRA, pa.string())])
    if zeros:
        adopted = adopted.set_config({f"{CONFIG}zero.{name}": "1" for name in zeros})
    declared = CollectionSchema(vectors={name: p for name, (_, p) in columns.items()}, id_type=id_type)
    # The declaration comes last: until it is there, the dataset is not a collection.
    return adopted.set_schema_metadata(declared.metadata())


def _vector_columns(
    table: Table, vectors: VectorParams | Mapping[str, Any] | str | None
) -> dict[str, tuple[str, VectorParams]]:
    """Return vector name to column and declaration."""
    found = {
        f.name: f.type
        for f in table.schema
        if pa.types.is_fixed_size_list(f.type) and f.type.value_type in _DATATYPES
    }
    if isinstance(vectors, str):
        vectors = {vectors: None}
    if isinstance(vectors, VectorParams):
        if len(found) != 1:
            raise InvalidInputError(
                f"{table.location.url} has {len(found)} columns of vectors; which one is meant is not clear",
                hint=f"pass vectors={{column: VectorParams(…)}} for some of {sorted(found)}",
            )
        vectors = {next(iter(found)): vectors}
    if vectors is None:
        vectors = dict.fromkeys(found)
    if not vectors:
        raise InvalidInputError(
            f"{table.location.url} has no column of fixed-size lists of float32 or float16",
            hint="a collection needs at least one vector",
        )
    out: dict[str, tuple[str, VectorParams]] = {}
    for column, declared in vectors.items():
        if column not in found:
            raise UnknownNameError(
                f"{table.location.url} has no column of vectors {column!r}",
                hint=did_you_mean(column, found, what="columns of fixed-size lists of float32 or float16"),
            )
        kind = found[column]
        params = declared
        if not isinstance(params, VectorParams):
            params = VectorParams(
                size=kind.list_size,
                distance=declared or Distance.COSINE,
                datatype=_DATATYPES[kind.value_type],
            )
        if params.size != kind.list_size or params.element != kind.value_type:
            raise InvalidInputError(
                f"column {column!r} holds {kind}; {params.datatype}[{params.size}] was declared"
            )
        name = UNNAMED if len(vectors) == 1 else re.sub(r"__vector$", "", column)
        out[name] = (column, params)
    return out


def _check_ids(table: Table, id: str) -> IdType:
    ids = table.read([id])[id]
    if ids.null_count:
        raise InvalidIdError(
            f"column {id!r} of {table.location.url} holds {ids.null_count} nulls; ids cannot be null"
        )
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids.combine_chunks())
        twice = next(c["values"] for c in counts.to_pylist() if c["counts"] > 1)
        raise InvalidIdError(f"id {twice!r} stands twice in column {id!r} of {table.location.url}")
    stored, id_type = fit_ids(ids.combine_chunks(), None, where=table.location.url)
    if pa.types.is_string(stored.type) and not stored.equals(ids.combine_chunks().cast(pa.string())):
        # UUIDs in another spelling would have to be rewritten; as strings they stay what they are.
        return "string"
    if id_type == "mixed":
        return "string"
    if not (
        pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    ):
        raise NotSupportedError(
            f"column {id!r} of {table.location.url} has type {ids.type}; ids are integers or text"
        )
    return id_type


def _check_vectors(table: Table, name: str, column: str, params: VectorParams, id: str) -> bool:
    zeros = False
    for batch in table.scan([id, column]):
        _, some = fit_vectors(
            batch.column(column), name, params, ids=batch.column(id), where=table.location.url
        )
        zeros = zeros or some
    return zeros
