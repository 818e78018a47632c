"""One version of a collection in memory: which rows a filter matches, vectors to compare, payload to return.

Rows stand in blocks that never change; a version is some blocks, and which of their rows it
has. `warm.py` reads blocks and follows new versions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.engine import Fragment
from vecdataset.exact import Matrix, Nearest
from vecdataset.filters import Filter
from vecdataset.filters.conditions import HasVector
from vecdataset.filters.masks import MaskRows
from vecdataset.filters.tree import walk
from vecdataset.graphs import Graph
from vecdataset.idmap import IdPositions
from vecdataset.schema import EXTRA, CollectionSchema

Places = tuple[np.ndarray | None, ...]
"""Positions of rows in each part, ascending; None is all of the part's block."""

_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """One vector of the rows of a block."""

    matrix: Matrix
    at: np.ndarray | None
    """Positions of the rows that have it, ascending; None is all."""
    rows: np.ndarray
    """Row ids of those."""
    graph: Graph | None = None
    """Finds neighbours without comparing all rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Rows of some fragments, by row id; never changed."""

    rows: np.ndarray
    """Row ids, uint64, ascending."""
    table: pa.Table
    """`id`, payload columns and `_extra`, as far as they are held."""
    vectors: Mapping[str, Vectors]
    fragments: Mapping[int, Fragment]
    """The fragments they are of, as they were when they were read."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        vectors = sum(
            v.matrix.nbytes
            + (0 if v.at is None else v.at.nbytes + v.rows.nbytes)
            + (0 if v.graph is None else v.graph.nbytes)
            for v in self.vectors.values()
        )
        return int(self.rows.nbytes + self.table.nbytes + vectors)


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The rows of a block that a version has."""

    block: Block
    live: np.ndarray | None
    """Which; None is all."""
    masks: MaskRows
    """The block as filters see it."""
    state: Mapping[int, str | None] = field(default_factory=dict)
    """Fragment to what names its deletions; one that is not there is gone."""

    @cached_property
    def at(self) -> np.ndarray | None:
        """Positions of the rows; None is all."""
        return None if self.live is None else np.flatnonzero(self.live)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.block.rows) if self.at is None else len(self.at)

    def places(self, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of some row ids stand here, and where those stand."""
        rows = self.block.rows
        at = np.searchsorted(rows, row_ids)
        at[at == len(rows)] = 0
        here = rows[at] == row_ids if len(rows) else np.zeros(len(row_ids), bool)
        if self.live is not None and len(rows):
            here &= self.live[at]
        return here, at[here]

    @cached_property
    def by_id(self) -> IdPositions:
        """Where each id stands."""
        return IdPositions(self.block.table["id"].combine_chunks())


class Held:
    """One version in memory; immutable, safe in any number of threads."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        version: int,
        schema: CollectionSchema,
        extra_keys: frozenset[str],
        columns: frozenset[str],
        vectors: frozenset[str],
        fields: Mapping[str, int],
        arrow: pa.Schema,
    ) -> None:
        """Put the parts together.

        Args:
            parts: Blocks, and which of their rows the version has.
            version: Its number.
            schema: The declaration at this version.
            extra_keys: Every key that some row ever had in `_extra`.
            columns: Physical names of the columns that are held.
            vectors: Names of the vectors that are held.
            fields: What names each column's data: another number, other data.
            arrow: The dataset's schema.
        """
        self.parts = tuple(parts)
        self.version = version
        self.schema = schema
        self.extra_keys = extra_keys
        self.columns = columns
        self.vectors = vectors
        self.fields = fields
        self._arrow = arrow

    @cached_property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(part.count for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, with what filters have left behind."""
        return sum(part.block.nbytes + part.masks.nbytes for part in self.parts)

    # ----------------------------------------------------------------- filters

    def decides(self, filter: Filter) -> bool:
        """Return whether all that a filter looks at is held."""
        for key in filter.keys:
            if key in self.schema.payload and key not in self.columns:
                return False
            if key in self.extra_keys and EXTRA not in self.columns:
                return False
        asked = {n.name for n in walk(filter.node) if isinstance(n, HasVector)}
        return not (asked & set(self.schema.vector_columns)) - self.vectors

    def select(self, filter: Filter, *, most_by_row: int | None = None) -> Places:
        """Return the rows that a filter matches.

        Args:
            filter: A filter that `decides` is true for.
            most_by_row: How many decisions may be made row by row, in each part.

        Raises:
            TooSlow: It would be more.
        """
        out = []
        for part in self.parts:
            found = part.masks.mask(filter.node, most_by_row=most_by_row)
            out.append(np.flatnonzero(found if part.live is None else found & part.live))
        return tuple(out)

    def row_ids(self, places: Places) -> np.ndarray:
        """Return row ids, ascending."""
        each = [
            part.block.rows if at is None else part.block.rows[at]
            for part, at in zip(self.parts, places, strict=True)
        ]
        if len(each) == 1:
            return each[0]
        return np.sort(np.concatenate([np.zeros(0, np.uint64), *each]))

    @cached_property
    def all(self) -> Places:
        """Every row."""
        return tuple(part.at for part in self.parts)

    def places(self, row_ids: np.ndarray) -> Places:
        """Return where rows stand."""
        return tuple(np.sort(part.places(row_ids)[1]) for part in self.parts)

    # ----------------------------------------------------------------- payload

    def has(self, columns: Sequence[str]) -> bool:
        """Return whether columns, by their physical names, are held."""
        return self.columns.issuperset(columns)

    def take(self, row_ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return rows by row id, in their order."""
        found: list[pa.Table] = []
        order: list[np.ndarray] = []
        for part in self.parts:
            here, at = part.places(row_ids)
            if len(at):
                found.append(self._columns(part.block, columns).take(pa.array(at)))
                order.append(np.flatnonzero(here))
            if len(at) == len(row_ids):
                return found[-1]
        table = pa.concat_tables(found)
        assert len(table) == len(row_ids), "row ids of another version"
        return table.take(pa.array(np.argsort(np.concatenate(order), kind="stable")))

    def stream(
        self, columns: Sequence[str], places: Places, *, batch_rows: int | None, row_ids: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows, part by part."""
        for part, at in zip(self.parts, places, strict=True):
            table = self._columns(part.block, columns)
            if row_ids:
                table = table.append_column("_rowid", pa.array(part.block.rows))
            if at is None:
                yield from table.to_batches(max_chunksize=batch_rows)
                continue
            step = batch_rows or _ROWS_AT_ONCE
            for start in range(0, len(at), step):
                yield from table.take(pa.array(at[start : start + step])).to_batches()

    def _columns(self, block: Block, columns: Sequence[str]) -> pa.Table:
        have = block.table
        if all(c in have.schema.names for c in columns):
            return have.select(list(columns))
        # A column that came later is null in older rows.
        fields = [self._arrow.field(c).remove_metadata() for c in columns]
        arrays = [
            have[f.name] if f.name in have.schema.names else pa.nulls(len(have), f.type) for f in fields
        ]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def find(self, ids: Sequence[Any]) -> dict[Any, int]:
        """Return row ids of stored ids, as far as they are there."""
        found: dict[Any, int] = {}
        for part in self.parts:
            rows, live = part.block.rows, part.live
            for value, at in part.by_id.find(ids).items():
                if live is None or live[at]:
                    found[value] = int(rows[at])
        return found

    # ----------------------------------------------------------------- vectors

    def compare(self, nearest: Nearest, name: str, places: Places) -> None:
        """Offer the vectors of rows to a search."""
        for vectors, at in self._vectors(name, places):
            nearest.offer(vectors.rows, vectors.matrix, at)

    def without_graph(self, name: str) -> int | None:
        """Return how many rows no graph knows; None where there is no graph at all."""
        each = [part.block.vectors[name] for part in self.parts]
        if not any(vectors.graph is not None for vectors in each):
            return None
        return sum(len(vectors.rows) for vectors in each if vectors.graph is None)

    def compare_near(
        self, nearest: Nearest, name: str, places: Places, *, ef: int | None, share: float
    ) -> int:
        """Offer the rows that graphs say may be the nearest, and all that no graph knows.

        Args:
            nearest: The search.
            name: The vector.
            places: The rows that count.
            ef: Candidates a query; None is what the graph was built for.
            share: The share of the rows that count.

        Returns:
            How many rows count and have the vector, of which the hits may be fewer than there are.
        """
        there = 0
        for vectors, at in self._vectors(name, places):
            there += len(vectors.rows) if at is None else len(at)
            graph = vectors.graph
            if graph is None:
                nearest.offer(vectors.rows, vectors.matrix, at)
                continue
            wanted = max(graph.params.ef if ef is None else ef, nearest.k)
            found = graph.candidates(
                nearest.queries, math.ceil(1.2 * wanted / share) if share < 1 else wanted
            )
            if at is not None:
                found = found[np.isin(found, at, assume_unique=True)]
            nearest.offer(vectors.rows, vectors.matrix, found)
        return there

    def matrices(self, name: str, places: Places, *, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield row ids and vectors, float32 `[n, size]`, of rows that have them, at most `step` at once."""
        for vectors, at in self._vectors(name, places):
            for start in range(0, len(vectors.rows) if at is None else len(at), step):
                some: Any = slice(start, start + step) if at is None else at[start : start + step]
                yield vectors.rows[some], vectors.matrix.values[some]

    def _vectors(self, name: str, places: Places) -> Iterator[tuple[Vectors, np.ndarray | None]]:
        for part, at in zip(self.parts, places, strict=True):
            vectors = part.block.vectors[name]
            if at is not None and vectors.at is not None:
                place = np.searchsorted(vectors.at, at)
                inside = place < len(vectors.at)
                inside[inside] = vectors.at[place[inside]] == at[inside]
                at = place[inside]  # noqa: PLW2901  positions in the matrix
            yield vectors, at

    def vectors_of(self, row_ids: np.ndarray, name: str) -> list[np.ndarray | None]:
        """Return the vectors of rows, in their order; None where a row has none."""
        out: list[np.ndarray | None] = [None] * len(row_ids)
        for part in self.parts:
            here, at = part.places(row_ids)
            vectors = part.block.vectors[name]
            for place, row in zip(np.flatnonzero(here).tolist(), at.tolist(), strict=True):
                where = row
                if vectors.at is not None:
                    where = int(np.searchsorted(vectors.at, row))
                    if where == len(vectors.at) or vectors.at[where] != row:
                        continue
                out[place] = vectors.matrix.values[where]
        return out
