"""One version of a collection, resolved: declaration, settings, and filters as row selections."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Protocol, cast

import numpy as np
import pyarrow as pa

from vecdataset.engine import Table
from vecdataset.errors import CollectionNotFoundError, InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.filters import Filter, LanceFilter, check_names, compile_duckdb, compile_lance
from vecdataset.filters.conditions import HasId
from vecdataset.filters.expressions import PointId
from vecdataset.filters.masks import MaskRows, TooSlow
from vecdataset.filters.tree import walk
from vecdataset.frames import Frame
from vecdataset.held import Held, Places
from vecdataset.idmap import IdMap
from vecdataset.schema import (
    DEFAULT_THRESHOLD,
    EXTRA,
    CollectionSchema,
    vector_column,
)
from vecdataset.selectivity import FEW, SMALL, indexes_pay, sample_of
from vecdataset.warm import OutgrownError, Warm

CONFIG: Final = "vecdataset."
DROPPED_TAG: Final = "dropped-"
"""Tags that keep the last version of a dropped collection; no snapshot is called so."""
DIRTY_BATCH_ROWS: Final = 8_192
_BATCH_BYTES: Final = 1 << 20
"""Vectors that are read at once: larger batches took several times as long."""
_MATRIX_BYTES: Final = 8 << 20
"""Vectors in memory that are looked at at once."""
_KEPT_COUNTS: Final = 256
_BY_ROW_AT_MOST: Final = 2_000
"""Decisions row by row, in memory, beyond which Lance is asked, where it can decide some of a filter."""
_TAKE_AT_MOST: Final = 0.1
"""Share of the rows from which on a scan of all is faster than taking single ones."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a filter lets through, as Lance SQL or as row ids."""

    sql: str | None
    """Lance SQL; None where `rows` says it, or everything matches."""
    rows: np.ndarray | None
    """Row ids, ascending, where the filter could not be said in SQL alone."""
    how: str
    """For plans: `none`, `sql`, `sql+rows`, `mask`."""
    places: Places | None = None
    """Where the rows stand in memory, where the filter was decided there."""
    filter: Filter | None = None
    """The filter, where it was decided in memory: for a scan, which would rather have SQL."""
    indexed: bool = True
    """Whether scans for it ask scalar indexes."""

    @property
    def everything(self) -> bool:
        """Whether there is no filter."""
        return self.sql is None and self.rows is None


EVERYTHING: Final = Selection(None, None, "none")


class Reader:
    """A version of a collection to read from: immutable, safe in any number of threads."""

    def __init__(self, table: Table, *, name: str) -> None:
        """Resolve a table.

        Args:
            table: One version of the dataset.
            name: The collection's name, for messages.
        """
        self.table = table
        self.name = name
        self.schema = CollectionSchema.from_arrow(table.schema, url=table.location.url)
        config = table.config
        self.extra_keys = frozenset(
            key.removeprefix(f"{CONFIG}extra.") for key in config if key.startswith(f"{CONFIG}extra.")
        )
        self.zero_vectors = frozenset(
            key.removeprefix(f"{CONFIG}zero.") for key in config if key.startswith(f"{CONFIG}zero.")
        )
        self.full_scan_threshold = int(config.get(f"{CONFIG}full_scan_threshold", DEFAULT_THRESHOLD))
        self.indexing_threshold = int(config.get(f"{CONFIG}indexing_threshold", DEFAULT_THRESHOLD))
        self.dropped_at: str | None = config.get(f"{CONFIG}dropped_at")
        self._id_map = IdMap(table, self.schema.id_type)
        self._counts: dict[str, int] = {}
        self._pays: dict[LanceFilter, bool] = {}
        self.warm: Warm | None = None
        """The memory of the handle that this version belongs to."""
        self._held: Held | None = None

    def holding(self, warm: Warm | None) -> Reader:
        """Return the same version for a handle that holds it in memory, or that no longer does."""
        other = Reader(self.table, name=self.name)
        other.warm = warm
        return other

    @property
    def held(self) -> Held | None:
        """This version in memory, where the handle holds it."""
        warm = self.warm
        if warm is None:
            return None
        if self._held is None:
            try:
                self._held = warm.at(self.table, self.schema, self.extra_keys)
            except OutgrownError as exc:
                self.warm = None
                if warm.release():
                    warnings.warn(f"{exc.message}; it is no longer held", RuntimeWarning, stacklevel=2)
            if self._held is None:
                self.warm = None
        return self._held

    @property
    def where(self) -> str:
        """The collection as messages name it."""
        return f"collection {self.name!r}"

    @property
    def rows(self) -> int:
        """Number of points."""
        return self.table.rows if self.schema.id_type is not None else 0

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Columns whose integral values are JSON ints."""
        return tuple(c.name for c in self.schema.payload.values() if c.json_number)

    @cached_property
    def keys(self) -> frozenset[str]:
        """All payload keys ever seen."""
        return self.extra_keys | set(self.schema.payload)

    def index_params(self, index: str) -> dict[str, Any]:
        """Return kind and params that an index was created with."""
        text = self.table.config.get(f"{CONFIG}index.{index}")
        return dict(json.loads(text)) if text else {}

    # -- columns

    def output(
        self, columns: Sequence[str] | None, *, with_vectors: bool | Sequence[str]
    ) -> tuple[list[str], frozenset[str] | None]:
        """Return the physical columns to read after `id`, and the `_extra` keys asked for (None: all).

        Raises:
            UnknownNameError: A column or vector is not there.
        """
        out: list[str] = []
        keys: frozenset[str] | None = None
        if columns is None:
            out += self.schema.payload
            if self.extra_keys:
                out.append(EXTRA)
        else:
            if isinstance(columns, str):
                raise InvalidInputError(f"columns is the string {columns!r}; it must be a list of names")
            wanted = [
                c for c in dict.fromkeys(columns) if c not in ("id", "score", "_distance", "query_index")
            ]
            for name in wanted:
                if name in self.schema.vector_columns.values():
                    with_vectors = [*self._vector_names(with_vectors), *self._vector_names([name])]
                elif name in self.schema.payload:
                    out.append(name)
                elif name not in self.extra_keys and name != EXTRA:
                    raise UnknownNameError(
                        f"{self.where} has no column {name!r}",
                        hint=did_you_mean(name, self.keys, what="columns"),
                    )
            if EXTRA in wanted or any(name in self.extra_keys for name in wanted):
                out.append(EXTRA)
                keys = None if EXTRA in wanted else frozenset(wanted)
        out += [vector_column(n) for n in dict.fromkeys(self._vector_names(with_vectors))]
        return out, keys

    def _vector_names(self, with_vectors: object) -> list[str]:
        if with_vectors is True:
            return list(self.schema.vector_types)
        if not with_vectors:
            return []
        names = [with_vectors] if isinstance(with_vectors, str) else list(cast("Sequence[str]", with_vectors))
        physical = {column: name for name, column in self.schema.vector_columns.items()}
        return [self.schema.vector_name(physical.get(n, n)) for n in names]

    def shape(self, table: pa.Table, keys: frozenset[str] | None) -> pa.Table:
        """Return `table` with `_extra` cut down to the keys asked for, and without it when it is empty."""
        table = table.replace_schema_metadata(None)
        if EXTRA not in table.column_names:
            return table
        at = table.column_names.index(EXTRA)
        column = table[EXTRA]
        if keys is not None:
            texts = []
            for text in column.to_pylist():
                kept = {k: v for k, v in json.loads(text).items() if k in keys} if text else {}
                texts.append(json.dumps(kept, separators=(",", ":"), ensure_ascii=False) if kept else None)
            table = table.set_column(at, EXTRA, pa.array(texts, pa.string()))
        return table

    def frame(self, table: pa.Table, *, next_offset: str | None = None) -> Frame:
        """Wrap a table of this version's rows."""
        return Frame(table, id_type=self.schema.id_type, numbers=self.numbers, next_offset=next_offset)

    # -- filters

    def parse(self, filter: Any) -> Filter | None:
        """Return the filter, its names checked; None where there is none."""
        if filter is None:
            return None
        parsed = Filter.parse(filter)
        if self.rows:
            check_names(parsed, {"id", *self.keys})
        return parsed

    def select(self, filter: Any, *, in_memory: bool = True) -> Selection:
        """Return the rows that a filter lets through.

        Args:
            filter: SQL text, a Qdrant filter, `{key: value}` or a `Filter`.
            in_memory: Whether columns held in memory may decide; a writer would rather have SQL.

        In memory, a filter is a mask. Else one that Lance can answer costs nothing here, and the rest is
        decided on the columns of the rows that Lance cannot decide.
        """
        parsed = self.parse(filter)
        if parsed is None:
            return EVERYTHING
        held = self.held if in_memory else None
        if held is None or not held.decides(parsed):
            return self._selection(parsed)
        try:
            places = held.select(parsed, most_by_row=_BY_ROW_AT_MOST)
        except TooSlow:
            # Lance calculates faster than Python; what it knows nothing of, it would have read for Python.
            if self._compiled(parsed).clean != "false":
                return self._selection(parsed)
            places = held.select(parsed)
        return Selection(None, held.row_ids(places), "mask", places, parsed)

    def _compiled(self, parsed: Filter) -> LanceFilter:
        return compile_lance(
            parsed,
            columns=self.schema.payload,
            extra_keys=self.extra_keys,
            id_type=self.schema.id_type or "uint64",
            vectors=self.schema.vector_columns,
        )

    def _selection(self, parsed: Filter) -> Selection:
        if self.schema.id_type is None:
            return Selection("false", None, "sql")
        compiled = self._compiled(parsed)
        indexed = self._indexes_pay(parsed, compiled)
        if compiled.dirty is None:
            return Selection(compiled.clean, None, "sql", indexed=indexed)
        clean = np.zeros(0, np.uint64)
        if compiled.clean != "false":
            clean = self.table.row_ids(compiled.clean, indexed=indexed)
        dirty = self._decided(parsed, compiled, indexed=indexed)
        return Selection(None, np.union1d(clean, dirty), "sql+rows")

    def _indexes_pay(self, filter: Filter, compiled: LanceFilter) -> bool:
        """Return whether scalar indexes make a filter faster than reading its columns."""
        indexed = self._indexed_keys & filter.keys
        if not indexed or self.rows < SMALL:
            return True
        known = self._pays.get(compiled)
        if known is None:
            table = self._sampled(filter)
            known = indexes_pay(
                filter.node,
                self._sample_rows(table),
                lambda: self._sample_rows(table.take(np.linspace(0, len(table) - 1, FEW).astype(np.int64))),
                indexed=indexed,
                columns=self.schema.payload,
            )
            if len(self._pays) >= _KEPT_COUNTS:
                self._pays.clear()
            self._pays[compiled] = known
        return known

    @cached_property
    def _indexed_keys(self) -> frozenset[str]:
        return frozenset(i.column.partition(".")[0] for i in self.table.indexes) & set(self.schema.payload)

    def _sampled(self, filter: Filter) -> pa.Table:
        """Return a sample of this version with the columns that a filter looks at."""
        columns = sorted(filter.keys & set(self.schema.payload))
        return sample_of(self.table, ["id", *columns, *([EXTRA] if filter.keys & self.extra_keys else [])])

    def _sample_rows(self, table: pa.Table) -> MaskRows:
        there = np.ones(len(table), bool)
        return self.mask_rows(table, dict.fromkeys(self.schema.vector_columns, there))

    def _decided(self, parsed: Filter, compiled: LanceFilter, *, indexed: bool) -> np.ndarray:
        found: list[np.ndarray] = []
        # Each column costs about as much as finding the rows.
        names = [*dict.fromkeys(compiled.columns)]
        if any(isinstance(n, HasId | PointId) for n in walk(parsed.node)):
            names.append("id")
        if parsed.keys & self.extra_keys:
            names.append(EXTRA)
        filter = None if compiled.dirty == "true" else compiled.dirty
        # `has_vector` asks whether a vector is there: its rows are enough, its values are not read.
        there = {
            name: self.table.row_ids(f"`{self.schema.vector_columns[name]}` IS NOT NULL")
            for name in compiled.vectors
            if name in self.schema.vector_columns
        }
        stream = self.table.scan(
            names, filter=filter, row_ids=True, batch_rows=DIRTY_BATCH_ROWS, indexed=indexed
        )
        for batch in stream:
            row_ids = batch.column("_rowid").to_numpy()
            present = {name: np.isin(row_ids, rows) for name, rows in there.items()}
            found.append(row_ids[self.mask_rows(batch, present).mask(parsed.node)])
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.uint64)

    def mask_rows(
        self, table: pa.Table | pa.RecordBatch, vectors: Mapping[str, np.ndarray], *, keep: bool = False
    ) -> MaskRows:
        """Return rows of this version as filters see them.

        Args:
            table: The columns that the filters need, of those rows.
            vectors: Vector name to whether each row has it.
            keep: Whether many filters will come.
        """
        return MaskRows(
            table,
            columns=self.schema.payload,
            extra_keys=self.extra_keys,
            id_type=self.schema.id_type or "uint64",
            vectors=vectors,
            keep=keep,
        )

    def duckdb(self, filter: Any, *, table: str | None = None) -> str:
        """Return a filter as DuckDB's SQL over the columns of this version."""
        parsed = self.parse(filter)
        if parsed is None:
            return "true"
        return compile_duckdb(
            parsed,
            columns=self.schema.payload,
            extra_keys=self.extra_keys,
            id_type=self.schema.id_type or "uint64",
            vectors=self.schema.vector_columns,
            table=table,
        )

    def count(self, selection: Selection) -> int:
        """Return how many rows a selection holds."""
        if selection.rows is not None:
            return len(selection.rows)
        if selection.sql is None:
            return self.rows
        # A search counts before it scans: a millisecond of four, saved for filters that come again.
        known = self._counts.get(selection.sql)
        if known is None:
            if len(self._counts) >= _KEPT_COUNTS:
                self._counts.clear()
            known = self._counts[selection.sql] = self.table.count(selection.sql, indexed=selection.indexed)
        return known

    def stream(
        self,
        columns: Sequence[str],
        selection: Selection,
        *,
        batch_rows: int | None = None,
        row_ids: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the selected rows in storage order."""
        if self.schema.id_type is None:
            return
        held = self.held
        if (
            held is not None
            and columns
            and held.has(columns)
            and (selection.rows is not None or selection.everything)
        ):
            yield from held.stream(
                columns, self.places(held, selection), batch_rows=batch_rows, row_ids=row_ids
            )
            return
        if selection.filter is not None and len(selection.places or ()) and self._are_many(selection):
            selection = self._selection(selection.filter)
        if selection.rows is None:
            yield from self.table.scan(
                columns,
                filter=selection.sql,
                batch_rows=batch_rows,
                row_ids=row_ids,
                indexed=selection.indexed,
            )
            return
        step = batch_rows or DIRTY_BATCH_ROWS
        for start in range(0, len(selection.rows), step):
            part = selection.rows[start : start + step]
            taken = self.table.take(part, columns)
            if row_ids:
                taken = taken.append_column("_rowid", pa.array(part))
            yield from taken.to_batches()

    @staticmethod
    def places(held: Held, selection: Selection) -> Places:
        """Return where the selected rows stand in memory; the selection is not in SQL."""
        if selection.everything:
            return held.all
        if selection.places is not None:
            return selection.places
        assert selection.rows is not None
        return held.places(selection.rows)

    def in_memory(self, using: str, selection: Selection) -> tuple[Held, Places] | None:
        """Return where the selected vectors stand in memory; None where they are not held."""
        held = self.held
        if held is None or using not in held.vectors:
            return None
        if selection.sql is not None:
            rows = self.table.row_ids(selection.sql, indexed=selection.indexed)
            selection = Selection(None, np.sort(rows), selection.how)
        return held, self.places(held, selection)

    def matrices(self, using: str, selection: Selection) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield row ids and vectors, float32 `[n, size]`, of the selected rows that have the vector."""
        size = self.schema.vectors[using].size
        memory = self.in_memory(using, selection)
        if memory is not None:
            yield from memory[0].matrices(using, memory[1], step=max(256, _MATRIX_BYTES // (4 * size)))
            return
        column = vector_column(using)
        selected, keep = selection, None
        if self._are_many(selection):
            # Many single rows are slower to take than the column is to read.
            selected, keep = replace(selection, rows=None, places=None), selection.rows
        batch_rows = max(256, _BATCH_BYTES // (4 * size))
        for batch in self.stream([column], selected, batch_rows=batch_rows, row_ids=True):
            row_ids, stored = batch.column("_rowid").to_numpy(), batch.column(column)
            if stored.null_count:
                row_ids = row_ids[stored.is_valid().to_numpy(zero_copy_only=False)]
                stored = stored.drop_null()
            matrix = stored.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
            if keep is not None:
                inside = np.isin(row_ids, keep, assume_unique=True)
                row_ids, matrix = row_ids[inside], matrix[inside]
            if len(row_ids):
                yield row_ids, matrix.astype(np.float32, copy=False)

    def _are_many(self, selection: Selection) -> bool:
        return selection.rows is not None and len(selection.rows) > _TAKE_AT_MOST * self.rows

    def read(self, columns: Sequence[str], selection: Selection) -> pa.Table:
        """Return the selected rows as one table."""
        batches = list(self.stream(columns, selection))
        if batches:
            return pa.Table.from_batches(batches)
        fields = [self.table.schema.field(c) for c in columns if c in self.table.schema.names]
        return pa.schema([f.remove_metadata() for f in fields]).empty_table()

    def take(self, row_ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return rows by row id, in their order; one that stands several times is read once."""
        if not len(row_ids):
            own = self.table.schema
            fields = [pa.field("id", self.schema.id_arrow_type)] if "id" not in own.names else []
            fields += [own.field(c).remove_metadata() for c in columns if c in own.names]
            return pa.schema(fields).empty_table()
        held = self.held
        if held is not None and columns and held.has(columns):
            return held.take(row_ids, columns)
        distinct, back = np.unique(row_ids, return_inverse=True)
        taken = self.table.take(distinct, columns)
        return taken if np.array_equal(distinct, row_ids) else taken.take(pa.array(back))

    # -- ids

    def known_rows(self, ids: Sequence[Any]) -> dict[Any, int] | None:
        """Return row ids of stored ids, as far as they are there; None where memory does not say."""
        held = self.held
        return self._id_map.find(ids) if held is None else held.find(ids)

    def rows_of(self, ids: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
        """Return row ids of stored ids, as far as they are there."""
        known = self.known_rows(ids.to_pylist())
        if known is not None:
            return known
        found: dict[Any, int] = {}
        for sql in self.id_literals(ids):
            table = self.table.read(["id", "_rowid"], filter=sql)
            found.update(zip(table["id"].to_pylist(), table["_rowid"].to_pylist(), strict=True))
        return found

    def by_ids(self, ids: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Return the points of stored ids, in their order, each once; ids that are not there are absent."""
        wanted = list(dict.fromkeys(ids.to_pylist()))
        known = self.known_rows(wanted)
        if known is not None:
            rows = [known[value] for value in wanted if value in known]
            return self.take(np.array(rows, np.uint64), columns)
        found = pa.concat_tables([self.table.read(columns, filter=sql) for sql in self.id_literals(ids)])
        place = {value: at for at, value in enumerate(found["id"].to_pylist())}
        return found.take(pa.array([place[v] for v in wanted if v in place], pa.int64()))

    def id_literals(self, ids: pa.Array | pa.ChunkedArray) -> Iterator[str]:
        """Yield `id IN (…)` conditions for stored ids, some thousands each."""
        values = ids.to_pylist()
        for start in range(0, len(values), 4_096):
            part = values[start : start + 4_096]
            yield "id IN (" + ", ".join(map(id_literal, part)) + ")"


def id_literal(value: int | str) -> str:
    """Return a stored id as a Lance SQL literal."""
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def id_sort_key(value: int | str) -> tuple[int, int, str]:
    """Order ids as Qdrant scrolls: integers numerically, then everything else as text."""
    return (0, value, "") if isinstance(value, int) else (1, 0, value)


def refuse_dropped(reader: Reader) -> None:
    """Say that the collection was dropped, where it was."""
    if reader.dropped_at is not None:
        raise CollectionNotFoundError(
            f"{reader.where} was dropped at {reader.dropped_at}",
            hint="Catalog(root).undrop(name), or `vecdataset undrop`, brings it back",
        )


class Host(Protocol):
    """A collection, as those see it who work on it: snapshots, maintenance."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def reader(self) -> Reader:
        """Return the version that it shows now."""
        ...

    def writer(self) -> Reader:
        """Return the newest version, or refuse where the handle is read-only."""
        ...

    def advance(self, table: Table) -> Reader:
        """Show a newer version."""
        ...
