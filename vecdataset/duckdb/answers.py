"""What the SQL functions answer: hits with their ids first, payload when a statement uses it.

Every function takes a whole chunk, up to 2,048 rows, and asks a collection once for all the rows that share
their options.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.duckdb.arguments import filter_of, frozen, groups, limit_of, values, vector_rows, whole
from vecdataset.duckdb.findings import Chunk, Findings, payload_columns, statement_of
from vecdataset.duckdb.hits import version_and_batch
from vecdataset.duckdb.questions import ask, grouped, nearest, search_params, vector_of
from vecdataset.errors import InvalidInputError
from vecdataset.reader import Reader
from vecdataset.schema import EXTRA
from vecdataset.spaces import lookup


class Answers:
    """Hits, ids and payload of the collections that one attachment shows."""

    def __init__(self, collection: Callable[[str], Collection]) -> None:
        """Take the function that finds a collection by name."""
        self.findings = Findings(collection)

    # -- hits

    def search(
        self,
        collection: pa.ChunkedArray,
        query: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        exact: pa.ChunkedArray,
        *statement: pa.ChunkedArray,
    ) -> pa.Array:
        """Return hits for a chunk of query vectors: one search for each group of equal options."""
        chunk = Chunk(self.findings, len(collection), statement_of(*statement))
        found = vector_rows(query)
        vectors: np.ndarray | None = None
        if found is None:
            given = values(query)
            rows = np.array([i for i, v in enumerate(given) if v is not None], np.int64)
        else:
            rows, vectors = found
            given = []
        at = {int(row): i for i, row in enumerate(rows)}
        asked = _groups(list(at), collection, k, filter, using, params, exact)
        for members, (name, k_, filter_, using_, params_, exact_) in asked:
            reader, limit = chunk.reader(name), limit_of(k_)
            ours = [given[r] for r in members] if vectors is None else vectors[[at[r] for r in members]]
            along = chunk.along(reader, hits=limit * len(members)) if len(asked) == 1 else []
            hard = search_params(params_, exact=exact_)
            answers, table = nearest(reader, ours, limit, filter_of(filter_), using_, hard, along=along)
            chunk.add(members, reader, answers, table)
        return chunk.array()

    def search_by_id(
        self,
        collection: pa.ChunkedArray,
        id: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        exact: pa.ChunkedArray,
        *statement: pa.ChunkedArray,
    ) -> pa.Array:
        """Return the points near stored points; a point is no hit of its own search."""
        chunk = Chunk(self.findings, len(collection), statement_of(*statement))
        ids = values(id)
        rows = [i for i, v in enumerate(ids) if v is not None]
        asked = _groups(rows, collection, k, filter, using, params, exact)
        for members, (name, k_, filter_, using_, params_, exact_) in asked:
            reader, limit = chunk.reader(name), limit_of(k_)
            named = vector_of(reader, using_, sparse=False)
            vectors, own = lookup(reader, named, [ids[row] for row in members])
            along = chunk.along(reader, hits=(limit + 1) * len(members)) if len(asked) == 1 else []
            hard = search_params(params_, exact=exact_)
            near, table = nearest(reader, vectors, limit + 1, filter_of(filter_), named, hard, along=along)
            keep = [_first(answer[0] != mine, limit) for mine, answer in zip(own, near, strict=True)]
            answers = [
                (rows[kept], scores[kept], distances[kept])
                for (rows, scores, distances), kept in zip(near, keep, strict=True)
            ]
            if table is not None:
                table = table.filter(pa.array(np.concatenate(keep)))
            chunk.add(members, reader, answers, table)
        return chunk.array()

    def ranked(
        self,
        verb: pa.ChunkedArray,
        collection: pa.ChunkedArray,
        first: pa.ChunkedArray,
        second: pa.ChunkedArray,
        third: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        *statement: pa.ChunkedArray,
    ) -> pa.Array:
        """Return hits of the other questions, one row after the other."""
        chunk = Chunk(self.findings, len(collection), statement_of(*statement))
        columns = map(values, (verb, collection, first, second, third, k, filter, using, params))
        for row, (verb_, name, *asked) in enumerate(zip(*columns, strict=True)):
            reader = chunk.reader(name)
            answer = ask(reader, verb_, *asked)
            if answer is not None:
                chunk.add([row], reader, [answer])
        return chunk.array()

    def group(
        self,
        collection: pa.ChunkedArray,
        query: pa.ChunkedArray,
        by: pa.ChunkedArray,
        k: pa.ChunkedArray,
        group_size: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        *statement: pa.ChunkedArray,
    ) -> pa.Array:
        """Return hits in groups, one query after the other."""
        chunk = Chunk(self.findings, len(collection), statement_of(*statement))
        columns = map(values, (collection, query, by, k, group_size, filter, using, params))
        for row, (name, vector, key, k_, size, filter_, using_, params_) in enumerate(
            zip(*columns, strict=True)
        ):
            if vector is None or key is None:
                continue
            reader = chunk.reader(name)
            answer, labels = grouped(
                reader, vector, by=key, k=k_, group_size=size, filter=filter_, using=using_, params=params_
            )
            chunk.add([row], reader, [answer], labels=[labels])
        return chunk.array(labelled=True)

    # -- what hits refer to

    def payload(
        self, name: str, schema: pa.Schema, at: pa.ChunkedArray, row: pa.ChunkedArray
    ) -> pa.StructArray:
        """Return columns of hits: NULL where the version that was searched has no such column."""
        if not len(at):
            return pa.nulls(0, pa.struct(list(schema)))
        answers, rows = (column.to_numpy() for column in (at, row))
        there = None
        if at.null_count:
            there = np.flatnonzero(at.is_valid().to_numpy())
            answers, rows = (c.drop_null().to_numpy().astype(np.uint64) for c in (at, row))
        if there is None and (answers == answers[0]).all():
            joined = self._ofwhole(name, int(answers[0]), rows, schema)
        else:
            parts, order = [], []
            for one in np.unique(answers):
                members = np.flatnonzero(answers == one)
                parts.append(self._ofwhole(name, int(one), rows[members], schema))
                order.append(members if there is None else there[members])
            if not parts:
                return pa.nulls(len(at), pa.struct(list(schema)))
            back = np.full(len(at), -1, np.int64)
            back[np.concatenate(order)] = np.arange(len(answers))
            joined = pa.concat_tables(parts).combine_chunks().take(pa.array(back, mask=back < 0))
        columns = [whole(column) for column in joined.columns]
        return pa.StructArray.from_arrays(columns, fields=list(schema))

    def _ofwhole(self, name: str, at: int, rows: np.ndarray, schema: pa.Schema) -> pa.Table:
        """Return columns of the hits of one call, or of calls of which nothing is kept."""
        version, number = version_and_batch(at)
        found = self.findings.found(number)
        if found is None or found.reader.table.version != version:
            reader = self.findings.reader_at(name, version)
            there = [c for c in schema.names if c in reader.table.schema.names]
            return conform(reader.take(rows, there), schema, where=reader.where)
        self.findings.payload_used(found.text)
        return conform(found.take(rows, schema.names), schema, where=found.reader.where)


def _groups(rows: list[int], *options: pa.ChunkedArray) -> list[tuple[list[int], tuple[Any, ...]]]:
    """Return the rows that share all options, with these options."""
    columns = [values(c) for c in options]
    if len(rows) == 1:
        return [(rows, tuple(column[rows[0]] for column in columns))]
    keys: list[Hashable] = [tuple(map(frozen, row)) for row in zip(*columns, strict=True)]
    shared = groups(rows, keys).values()
    return [(members, tuple(column[members[0]] for column in columns)) for members in shared]


def _first(keep: np.ndarray, limit: int) -> np.ndarray:
    """Return a mask cut off after so many true values."""
    first: np.ndarray = keep & (np.cumsum(keep) <= limit)
    return first


def conform(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Return the columns of `schema`, cast; NULL where the table lacks one.

    Raises:
        InvalidInputError: A column has another type by now, and does not fit the one declared.
    """
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(len(table), field.type)]))
            continue
        column = table[field.name]
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
                raise InvalidInputError(
                    f"column {field.name!r} of {where} is {column.type} by now; it was {field.type}: {exc}",
                    hint="call refresh() of the attached catalog: SELECT vec.refresh()",
                ) from exc
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def payload_schema(reader: Reader) -> pa.Schema:
    """Return the payload columns of a version as DuckDB can take them."""
    kinds = {c.name: taken_as(c.type) for c in reader.schema.payload.values()} | {EXTRA: pa.string()}
    return pa.schema([pa.field(name, kinds[name]) for name in payload_columns(reader)])


def taken_as(kind: pa.DataType) -> pa.DataType:
    """Return the type that DuckDB gets for a stored one: it has no float16 and no dictionaries here."""
    if kind == pa.float16():
        return pa.float32()
    if pa.types.is_dictionary(kind):
        return taken_as(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(taken_as(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(taken_as(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(taken_as(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, taken_as(f.type)) for f in kind])
    return kind


__all__ = ["Answers", "conform", "payload_schema", "taken_as"]
