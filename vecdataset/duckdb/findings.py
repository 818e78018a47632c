"""What searches leave behind for the functions that ask next: versions, and rows of the points found.

DuckDB calls a function for the hits and their ids, then another for the payload of these hits, which it drops
where no statement uses the payload. Three things make that as cheap as one call:

- a statement sees one version of a collection from beginning to end, under the key `(at, statement)`:
  the start of its transaction and the number of its text;
- the payload of the hits of one call is read at once, with the first of them that is asked for;
- a text that has used payload before gets it with the search itself, which costs an index next to
  nothing. A text that has not reads none.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.duckdb.arguments import whole
from vecdataset.duckdb.hits import MAX_BATCH, Hits, hits_array, place_of
from vecdataset.reader import Reader
from vecdataset.schema import EXTRA

CHUNK_ROWS: Final = 2_048
"""DuckDB asks for the payload of so many hits at a time."""
_STATEMENTS: Final = 256
_READERS: Final = 64
_FOUND: Final = 32
_HABITS: Final = 1_024
_SHARED_ROWS: Final = 16_384
_SHARED_BYTES: Final = 8 << 20

K = TypeVar("K")
V = TypeVar("V")
Statement = tuple[int, int, int]
"""When its transaction began, its number, and the hash of its text."""


def payload_columns(reader: Reader) -> list[str]:
    """Return the payload columns that SQL shows of a version."""
    return [*reader.schema.payload, *([EXTRA] if reader.extra_keys else [])]


def statement_of(at: pa.ChunkedArray, number: pa.ChunkedArray, text: pa.ChunkedArray) -> Statement:
    """Return the statement that calls: it is the same for all rows."""
    # The time as a number: a datetime of Python's would need the names of time zones.
    return at[0].value, number[0].as_py(), text[0].as_py()


class Found:
    """The rows that one call has found, and their columns once somebody has asked for them."""

    def __init__(
        self, reader: Reader, rows: np.ndarray, *, text: int, columns: Sequence[str], table: pa.Table | None
    ) -> None:
        """Take what is known.

        Args:
            reader: The version.
            rows: A row id for each hit, in their order.
            text: Of the statement.
            columns: What to read with the first question, besides what it asks for.
            table: Columns that were read along, a row for each hit.
        """
        self.reader = reader
        self.text = text
        self._columns = columns
        self._table = table
        # Many hits of many queries share rows; the few of one query are asked for as they stand.
        self._rows = np.unique(rows) if table is None and len(rows) > CHUNK_ROWS else rows
        self._shared = len(self._rows) <= _SHARED_ROWS
        self._lock = Lock()

    def take(self, rows: np.ndarray, names: Sequence[str]) -> pa.Table:
        """Return those columns of some of the rows that the version has."""
        own = self.reader.table.schema.names
        names = [c for c in names if c in own]
        with self._lock:
            table = self._with(names)
        if table is None:
            return self.reader.take(rows, names)
        table = table.select(names)
        if len(rows) == len(self._rows) and np.array_equal(rows, self._rows):
            return table
        order = np.argsort(self._rows, kind="stable")
        return table.take(pa.array(order[np.searchsorted(self._rows, rows, sorter=order)]))

    def _with(self, names: Sequence[str]) -> pa.Table | None:
        """Return a table of all rows that has the columns, None where it would be too large to keep."""
        have = [] if self._table is None else self._table.column_names
        if all(name in have for name in names):
            return self._table
        if not self._shared:
            return None
        missing = [c for c in dict.fromkeys(["id", *names, *self._columns]) if c not in have]
        read = self.reader.take(self._rows, missing)
        if read.nbytes > _SHARED_BYTES:
            self._shared = False
            return None
        for name in have:
            read = read.append_column(name, self._table[name])  # type: ignore[index]  # `have` is empty then
        self._table = read
        return read


class Findings:
    """The versions, rows and habits of the statements that one attachment answers."""

    def __init__(self, collection: Callable[[str], Collection]) -> None:
        """Take the function that finds a collection by name."""
        self._collection = collection
        self._pinned: OrderedDict[tuple[int, int], dict[str, Reader]] = OrderedDict()
        self._readers: OrderedDict[tuple[str, int], Reader] = OrderedDict()
        self._found: OrderedDict[int, Found] = OrderedDict()
        self._habits: OrderedDict[int, bool] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = Lock()

    # -- versions

    def newest(self, name: str) -> Reader:
        """Return the newest version of a collection."""
        return self._collection(name)._read()  # noqa: SLF001 - one layer down, and no wider door is needed

    def reader(self, name: str, statement: Statement) -> Reader:
        """Return the version of a collection that a statement sees: the newest when it asked first."""
        key = statement[:2]
        with self._lock:
            pinned = self._pinned.get(key)
            if pinned is not None and name in pinned:
                self._pinned.move_to_end(key)
                return pinned[name]
        reader = self.newest(name)
        with self._lock:
            reader = _kept(self._pinned, key, {}, _STATEMENTS).setdefault(name, reader)
            return _kept(self._readers, (name, reader.table.version), reader, _READERS)

    def unpin(self, at: int) -> None:
        """Let the statements of a transaction see newer versions: it has written itself.

        Without it, a statement prepared once and run twice in one transaction would look like one.
        """
        with self._lock:
            for key in [k for k in self._pinned if k[0] == at]:
                del self._pinned[key]

    def reader_at(self, name: str, version: int) -> Reader:
        """Return the version that a reference names."""
        with self._lock:
            found = self._readers.get((name, version))
        if found is None:
            found = self._collection(name).at(version)._read()  # noqa: SLF001
            with self._lock:
                found = _kept(self._readers, (name, version), found, _READERS)
        return found

    # -- rows

    def keep(self, found: Found) -> int:
        """Return the number under which `found` answers, for a while."""
        number = next(self._numbers) & MAX_BATCH
        with self._lock:
            _kept(self._found, number, found, _FOUND)
        return number

    def found(self, number: int) -> Found | None:
        """Return what was kept, if it still is."""
        with self._lock:
            return self._found.get(number)

    # -- habits

    def uses_payload(self, text: int) -> bool:
        """Return whether a statement of this text has asked for payload before."""
        with self._lock:
            return self._habits.get(text, False)

    def payload_used(self, text: int) -> None:
        """Remember that a statement of this text asks for payload."""
        with self._lock:
            _kept(self._habits, text, True, _HABITS)


def _kept(among: OrderedDict[K, V], key: K, value: V, most: int) -> V:
    """Return what stands under a key, `value` where nothing did; the oldest of too many go."""
    value = among.setdefault(key, value)
    among.move_to_end(key)
    while len(among) > most:
        among.popitem(last=False)
    return value


class Chunk:
    """The hits of one call, collected row by row or group by group."""

    def __init__(self, findings: Findings, rows: int, statement: Statement) -> None:
        """Take the number of rows of the call."""
        self._findings = findings
        self._statement = statement
        self._hits: list[Hits | None] = [None] * rows
        self._labels: list[Sequence[str]] = [()] * rows
        self._members: dict[int, tuple[Reader, list[int]]] = {}
        self._table: pa.Table | None = None

    def reader(self, name: str) -> Reader:
        """Return the version of a collection to ask."""
        return self._findings.reader(name, self._statement)

    def along(self, reader: Reader, *, hits: int) -> list[str]:
        """Return the columns to read with a search that is the only one of this call."""
        if hits > CHUNK_ROWS:
            return []
        return ["id", *(payload_columns(reader) if self._uses_payload else [])]

    @property
    def _uses_payload(self) -> bool:
        return self._findings.uses_payload(self._statement[2])

    def add(
        self,
        members: Sequence[int],
        reader: Reader,
        answers: Sequence[Hits],
        table: pa.Table | None = None,
        labels: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Put in the answers of some rows, in ascending order; `table` has columns of all their hits."""
        for at, (row, answer) in enumerate(zip(members, answers, strict=True)):
            self._hits[row] = answer
            if labels is not None:
                self._labels[row] = labels[at]
        self._table = table
        self._members.setdefault(id(reader), (reader, []))[1].extend(members)

    def array(self, *, labelled: bool = False) -> pa.Array:
        """Return all hits with their ids, and keep the rows for who asks for payload next."""
        _, _, text = self._statement
        at = np.zeros(len(self._hits), np.uint64)
        parts, order = [], []
        for reader, members in self._members.values():
            members.sort()
            several = [self._rows(row) for row in members]
            rows = several[0] if len(several) == 1 else np.concatenate(several)
            columns = payload_columns(reader) if self._uses_payload else []
            table = self._table if self._table is not None and len(self._table) == len(rows) else None
            found = Found(reader, rows, text=text, columns=columns, table=table)
            at[members] = place_of(reader.table.version, self._findings.keep(found))
            parts.append(whole((found.take(rows, ["id"]) if table is None else table)["id"]))
            order.append(np.repeat(members, [len(one) for one in several]))
        ids = parts[0] if len(parts) == 1 else pa.concat_arrays(parts) if parts else pa.nulls(0, pa.uint64())
        if len(parts) > 1:
            ids = ids.take(pa.array(np.argsort(np.concatenate(order), kind="stable")))
        return hits_array(self._hits, at, ids, self._labels if labelled else None)

    def _rows(self, row: int) -> Any:
        hits = self._hits[row]
        assert hits is not None
        return hits[0].astype(np.uint64, copy=False)
