"""What a handle holds in memory: read once, then brought from version to version by what changed.

A dataset's fragments never change: of a new version only the fragments that it added are read, and
of those that it deleted from, which row ids are left. New rows become small blocks; blocks
of about one size are merged, so that there are few, and each row is copied a few times only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from vecdataset.display import size
from vecdataset.engine import Fragment, Table
from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.exact import Matrix
from vecdataset.filters.masks import MaskRows
from vecdataset.graphs import Graph, GraphParams, serves
from vecdataset.held import Block, Held, Part, Vectors
from vecdataset.schema import EXTRA, CollectionSchema, vector_column

_BATCH_BYTES: Final = 1 << 20
_BESIDE_BYTES: Final = 12
"""Lengths and the like that stand beside a vector."""
_SMALL: Final = 1_024
_DEAD_AT_MOST: Final = 0.3
_FRAGMENT_BITS: Final = np.uint64(32)
"""A row id is its fragment's, and below these bits the row's place in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInfo:
    """What is held in memory."""

    version: int
    rows: int
    size_bytes: int
    max_bytes: int
    columns: Sequence[str]
    vectors: Sequence[str]
    graphs: Sequence[str]
    """Vectors with a graph."""


class OutgrownError(InvalidInputError):
    """What is held needs more memory than it may."""


class Warm:
    """The memory of one handle: `at` returns the version asked for, read as far as it must be."""

    def __init__(
        self,
        *,
        columns: Sequence[str] | None = None,
        vectors: Sequence[str] | None = None,
        max_bytes: int | None = None,
        graph: GraphParams | None = None,
        where: str,
    ) -> None:
        """Say what to hold.

        Args:
            columns: Payload keys; None is all.
            vectors: Names of vectors; None is all that hold one vector a point.
            max_bytes: What it may take; None is half of the machine's memory.
            graph: The graph to build over each vector; None is none.
            where: The collection, for messages.
        """
        self._columns = None if columns is None else list(columns)
        self._vectors = None if vectors is None else list(vectors)
        self.max_bytes = _half_of_memory() if max_bytes is None else max_bytes
        self._graph = graph
        self._where = where
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._released = False

    def at(self, table: Table, schema: CollectionSchema, extra_keys: frozenset[str]) -> Held | None:
        """Return a version in memory; None for one that is older than the newest that was asked for.

        Raises:
            OutgrownError: It needs more than `max_bytes`.
        """
        with self._lock:
            held = self._held
            if self._released:
                return None
            if held is None:
                held = self._load(table, schema, extra_keys)
            elif held.version == table.version:
                return held
            elif held.version > table.version:
                return None
            else:
                held = self._follow(held, table, schema, extra_keys)
                needed = sum(part.block.nbytes for part in held.parts)
                if needed > self.max_bytes:
                    raise self._outgrown(needed)
            self._held = held
            return held

    def release(self) -> bool:
        """Let go of everything, for good; return whether there was anything."""
        with self._lock:
            had, self._held, self._released = not self._released, None, True
            return had

    def info(self, held: Held) -> HeldInfo:
        """Describe what is held."""
        return HeldInfo(
            version=held.version,
            rows=held.rows,
            size_bytes=held.nbytes,
            max_bytes=self.max_bytes,
            columns=sorted(held.columns),
            vectors=sorted(held.vectors),
            graphs=[name for name in sorted(held.vectors) if held.without_graph(name) is not None],
        )

    # ------------------------------------------------------------ what to hold

    def check(self, schema: CollectionSchema, extra_keys: frozenset[str]) -> None:
        """Say which of the names asked for are not there.

        Raises:
            UnknownNameError: A column or vector is not there.
            InvalidInputError: A vector cannot be held.
        """
        keys = {*schema.payload, *extra_keys}
        for name in self._columns or ():
            if name not in keys:
                raise UnknownNameError(
                    f"{self._where} has no column {name!r}", hint=did_you_mean(name, keys, what="columns")
                )
        if self._vectors is None:
            return
        self._vectors = [schema.vector_name(name) for name in self._vectors]
        for name in self._vectors:
            if name not in _dense(schema):
                kind = "sparse" if name in schema.sparse else "a multivector"
                raise InvalidInputError(
                    f"vector {name!r} of {self._where} is {kind}; only vectors of one row a point are held"
                )

    def _wanted(
        self, table: Table, schema: CollectionSchema, extra_keys: frozenset[str]
    ) -> tuple[list[str], list[str]]:
        """Return the columns and the vectors to hold."""
        if schema.id_type is None:
            return [], []
        columns = ["id"]
        columns += [c for c in schema.payload if self._columns is None or c in self._columns]
        extra = self._columns is None or bool(extra_keys.intersection(self._columns))
        if extra and EXTRA in table.schema.names:
            columns.append(EXTRA)
        dense = _dense(schema)
        return columns, dense if self._vectors is None else [n for n in dense if n in self._vectors]

    def _held_of(
        self, parts: Sequence[Part], table: Table, schema: CollectionSchema, extra_keys: frozenset[str]
    ) -> Held:
        columns, vectors = self._wanted(table, schema, extra_keys)
        return Held(
            parts,
            version=table.version,
            schema=schema,
            extra_keys=extra_keys,
            columns=frozenset(columns),
            vectors=frozenset(vectors),
            fields=table.field_ids,
            arrow=table.schema,
        )

    # ----------------------------------------------------------------- reading

    def _load(self, table: Table, schema: CollectionSchema, extra_keys: frozenset[str]) -> Held:
        parts = []
        if schema.id_type is not None and table.rows:
            block = self._read(table, schema, extra_keys, table.fragment_list(), whole=True)
            if self._graph is not None:
                block = _with_graphs(block, schema, self._graph)
                if block.nbytes > self.max_bytes:
                    raise self._outgrown(block.nbytes)
            parts.append(_part(block, schema, extra_keys))
        return self._held_of(parts, table, schema, extra_keys)

    def _read(
        self,
        table: Table,
        schema: CollectionSchema,
        extra_keys: frozenset[str],
        fragments: Sequence[Fragment],
        *,
        whole: bool = False,
    ) -> Block:
        """Read rows of fragments into a block; of more than may be held, only how much they are."""
        columns, vectors = self._wanted(table, schema, extra_keys)
        sizes = {name: schema.vectors[name].size for name in vectors}
        stream = table.scan(
            [*columns, *(vector_column(name) for name in vectors)],
            row_ids=True,
            batch_rows=max(256, min(65_536, _BATCH_BYTES // (4 * max(1, sum(sizes.values()))))),
            fragments=None if whole else [f.id for f in fragments],
        )
        room = table.rows if whole else 0
        filling = {name: _Filling(at_least, room) for name, at_least in sizes.items()}
        needed = count = 0
        kept: list[pa.RecordBatch] = []
        rows: list[np.ndarray] = []
        for batch in stream:
            payload = batch.select(columns)
            needed += payload.nbytes + 8 * batch.num_rows
            for name, width in sizes.items():
                there = batch.num_rows - batch.column(vector_column(name)).null_count
                needed += there * (4 * width + _BESIDE_BYTES)
            if needed > self.max_bytes:
                kept.clear()
                filling.clear()
                continue
            kept.append(payload)
            rows.append(batch.column("_rowid").to_numpy())
            for name, one in filling.items():
                one.add(batch.column(vector_column(name)), count)
            count += batch.num_rows
        if needed > self.max_bytes:
            raise self._outgrown(needed)
        fields = [table.schema.field(c) for c in columns]
        own = pa.schema([f.remove_metadata() for f in fields])
        return _sorted(
            np.concatenate([np.zeros(0, np.uint64), *rows]),
            pa.Table.from_batches([b.cast(own) for b in kept], schema=own),
            {name: one.done() for name, one in filling.items()},
            {f.id: f for f in fragments},
        )

    def _outgrown(self, needed: int) -> OutgrownError:
        return OutgrownError(
            f"to hold {self._where} in memory takes {needed:,} bytes ({size(needed)}); "
            f"max_bytes allows {self.max_bytes:,} ({size(self.max_bytes)})",
            hint="name fewer columns= and vectors=, or allow more with max_bytes=",
        )

    # --------------------------------------------------------------- following

    def _follow(self, held: Held, table: Table, schema: CollectionSchema, extra_keys: frozenset[str]) -> Held:
        columns, vectors = self._wanted(table, schema, extra_keys)
        old, new = held.fields, table.field_ids
        names = [*columns, *(vector_column(v) for v in vectors)]
        numbers = set(old.values())
        same = all(old[n] == new.get(n) if n in old else new.get(n) not in numbers for n in names)
        had = held.vectors.issuperset(vectors) and ("id" in held.columns or not held.parts)
        # A column that was not held, and was there, has values that were not read.
        missed = [c for c in columns if c in old and c not in held.columns]
        if not same or not had or (missed and held.parts):
            return self._load(table, schema, extra_keys)
        there = {f.id: f for f in table.fragment_list()}
        known: set[int] = set()
        parts = []
        for part in held.parts:
            adjusted = _adjusted(part, table, there)
            known.update(adjusted.state)
            parts.append(_with_masks(adjusted, schema, extra_keys))
        added = [f for f in there.values() if f.id not in known]
        if added:
            parts.append(_part(self._read(table, schema, extra_keys, added), schema, extra_keys))
        return self._held_of(_few(parts, table.schema, schema, extra_keys), table, schema, extra_keys)


def _dense(schema: CollectionSchema) -> list[str]:
    return [name for name, params in schema.vectors.items() if not params.multivector]


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 4 << 30


class _Filling:
    """The vectors of one name, while rows are read."""

    def __init__(self, width: int, room: int) -> None:
        self._width = width
        self._values = np.empty((room, width), np.float32)
        self._count = 0
        self._rows = 0
        self._missing = False
        self._at: list[np.ndarray] = []

    def add(self, column: pa.Array, start: int) -> None:
        self._rows = start + len(column)
        at = np.arange(start, self._rows)
        if column.null_count:
            at = at[column.is_valid().to_numpy(zero_copy_only=False)]
            column = column.drop_null()
            self._missing = True
        self._at.append(at)
        if self._count + len(column) > len(self._values):
            longer = np.empty(
                (max(2 * len(self._values), self._count + len(column)), self._width), np.float32
            )
            longer[: self._count] = self._values[: self._count]
            self._values = longer
        flat = column.flatten().to_numpy(zero_copy_only=False)
        self._values[self._count : self._count + len(column)] = flat.reshape(-1, self._width)
        self._count += len(column)

    def done(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the vectors, and the positions of their rows; None is all."""
        at = np.concatenate(self._at) if self._missing else None
        return self._values[: self._count], at


def _sorted(
    rows: np.ndarray,
    table: pa.Table,
    vectors: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    fragments: Mapping[int, Fragment],
) -> Block:
    """Return a block, its rows brought into the order of their ids."""
    order = None
    if len(rows) > 1 and not bool((rows[1:] > rows[:-1]).all()):
        order = np.argsort(rows)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rows, table = rows[order], table.take(pa.array(order))
    made = {}
    for name, (given, where) in vectors.items():
        values, at = given, where
        if order is not None:
            if at is None:
                values = values[order]
            else:
                by_place = np.argsort(place[at])
                values, at = values[by_place], place[at][by_place]
        own = rows if at is None else rows[at]
        made[name] = Vectors(matrix=Matrix(np.ascontiguousarray(values)), at=at, rows=own)
    return Block(rows=rows, table=table.combine_chunks(), vectors=made, fragments=dict(fragments))


def _with_graphs(block: Block, schema: CollectionSchema, params: GraphParams) -> Block:
    made = {}
    for name, vectors in block.vectors.items():
        metric = schema.vectors[name].metric
        built = Graph(metric, vectors.matrix, params) if serves(metric, len(vectors.matrix)) else None
        made[name] = replace(vectors, graph=built)
    return replace(block, vectors=made)


def _part(block: Block, schema: CollectionSchema, extra_keys: frozenset[str]) -> Part:
    state = {f.id: f.deletions for f in block.fragments.values()}
    return Part(block=block, live=None, masks=_masks(block, schema, extra_keys), state=state)


def _masks(block: Block, schema: CollectionSchema, extra_keys: frozenset[str]) -> MaskRows:
    there: dict[str, np.ndarray] = {}
    for name, vectors in block.vectors.items():
        there[name] = np.full(len(block.rows), vectors.at is None)
        if vectors.at is not None:
            there[name][vectors.at] = True
    return MaskRows(
        block.table,
        columns=schema.payload,
        extra_keys=extra_keys,
        id_type=schema.id_type or "uint64",
        vectors=there,
        keep=True,
    )


def _with_masks(part: Part, schema: CollectionSchema, extra_keys: frozenset[str]) -> Part:
    """Return a part whose masks know the version's columns."""
    masks = part.masks.seen_with(schema.payload, extra_keys)
    if masks is part.masks:
        return part
    return Part(block=part.block, live=part.live, masks=masks, state=part.state)


def _adjusted(part: Part, table: Table, there: Mapping[int, Fragment]) -> Part:
    """Return a part without the rows that are gone; `state` names the fragments it has all rows of."""
    rows = part.block.rows
    state: dict[int, str | None] = {}
    live: np.ndarray | None = None
    for fragment in part.block.fragments.values():
        now = there.get(fragment.id)
        if now is not None and now.files != fragment.files:
            now = None
        had = fragment.id in part.state
        if now is None and not had:
            continue
        if now is not None and had and part.state[fragment.id] == now.deletions:
            state[fragment.id] = now.deletions
            continue
        if live is None:
            live = np.ones(len(rows), bool) if part.live is None else part.live.copy()
        ends = np.array([fragment.id, fragment.id + 1], np.uint64) << _FRAGMENT_BITS
        begin, end = np.searchsorted(rows, ends).tolist()
        live[begin:end] = False
        if now is None:
            continue
        left = np.sort(table.row_ids(None, fragments=[fragment.id]))
        own = rows[begin:end]
        at = np.searchsorted(own, left)
        if len(left) and (at[-1] >= len(own) or not np.array_equal(own[at], left)):
            continue  # rows came back that were deleted when it was read: it is read again
        live[begin + at] = True
        state[fragment.id] = now.deletions
    if live is None:
        return part
    return Part(block=part.block, live=None if live.all() else live, masks=part.masks, state=state)


def _few(
    parts: Sequence[Part], arrow: pa.Schema, schema: CollectionSchema, extra_keys: frozenset[str]
) -> list[Part]:
    """Return the parts with those of about one size as one, and without many dead rows."""
    out: list[Part] = []
    for part in parts:
        if not part.count:
            continue
        dead = len(part.block.rows) - part.count
        alone = dead > _SMALL and not _has_graph(part) and dead > _DEAD_AT_MOST * len(part.block.rows)
        out.append(_merged([part], arrow, schema, extra_keys) if alone else part)
        # A graph is not built anew for new rows: they stay beside it, until `warm` is called again.
        while len(out) > 1 and 2 * out[-1].count >= out[-2].count and not _has_graph(out[-2]):
            out[-2:] = [_merged(out[-2:], arrow, schema, extra_keys)]
    return out


def _has_graph(part: Part) -> bool:
    return any(vectors.graph is not None for vectors in part.block.vectors.values())


def _merged(
    parts: Sequence[Part], arrow: pa.Schema, schema: CollectionSchema, extra_keys: frozenset[str]
) -> Part:
    """Return the rows of parts that are there, as one."""
    names: list[str] = list(dict.fromkeys(n for part in parts for n in part.block.table.schema.names))
    own = pa.schema([arrow.field(n).remove_metadata() for n in names if n in arrow.names])
    tables, rows, start = [], [], 0
    vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    fragments: dict[int, Fragment] = {}
    state: dict[int, str | None] = {}
    for part in parts:
        block = part.block
        at = np.arange(len(block.rows)) if part.at is None else part.at
        place = np.full(len(block.rows), -1)
        place[at] = np.arange(start, start + len(at))
        table = block.table.take(pa.array(at))
        arrays = [table[f.name] if f.name in table.schema.names else pa.nulls(len(at), f.type) for f in own]
        tables.append(pa.Table.from_arrays(arrays, schema=own))
        rows.append(block.rows[at])
        for name, one in block.vectors.items():
            to = place if one.at is None else place[one.at]
            vectors.setdefault(name, []).append((one.matrix.values[to >= 0], to[to >= 0]))
        start += len(at)
        fragments.update({i: f for i, f in block.fragments.items() if i in part.state})
        state.update(part.state)
    joined: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for name, each in vectors.items():
        where = np.concatenate([at for _, at in each])
        joined[name] = (np.concatenate([v for v, _ in each]), None if len(where) == start else where)
    block = _sorted(np.concatenate(rows), pa.concat_tables(tables), joined, fragments)
    return Part(block=block, live=None, masks=_masks(block, schema, extra_keys), state=state)
