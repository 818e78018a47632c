"""Collections as objects that DuckDB scans: only the columns and rows that a statement needs.

A predicate is handled twice. What Lance can say for certain narrows the rows down while they are
read; then Arrow decides all of it, exactly as DuckDB would, so that a predicate is never
answered wrongly. Rows are read in growing windows, because DuckDB tells no scan of a LIMIT: it
stops asking when it has enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from vecdataset.duckdb.answers import conform, payload_schema, taken_as
from vecdataset.duckdb.macros import quoted
from vecdataset.errors import VecDatasetError
from vecdataset.reader import Reader

try:  # DuckDB 2.0 and later: predicates come as trees, floats and structs included.
    from duckdb import _sources
    from duckdb._sources import nodes
    from duckdb._sources.to_arrow import to_arrow
except ImportError:  # DuckDB 1.5: a pyarrow Dataset gets them as expressions.
    _sources = None

FIRST_WINDOW: Final = 1_024
WINDOW_GROWTH: Final = 8
LAST_WINDOW: Final = 65_536
BATCH_ROWS: Final = 8_192


class CollectionRows:
    """The rows of a collection in a fixed Arrow schema, whatever its newest version looks like."""

    def __init__(self, read: Any, reader: Reader) -> None:
        """Take a function that returns the version to read, and a version whose columns to show."""
        self._read = read
        id_type = reader.schema.id_arrow_type
        vectors = [
            pa.field(column, taken_as(reader.schema.vector_types[name]))
            for name, column in reader.schema.vector_columns.items()
        ]
        self.schema = pa.schema([pa.field("id", id_type), *payload_schema(reader), *vectors])

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._read().rows)

    def batches(
        self, columns: Sequence[str], keep: Any | None, narrow: str | None, looked_at: frozenset[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of `columns`.

        Args:
            columns: Which, in which order.
            keep: A pyarrow expression over the schema; None keeps all rows.
            narrow: Lance SQL that is true for at least the rows that `keep` keeps.
            looked_at: The columns of `keep`; None where they are not known.
        """
        reader: Reader = self._read()
        if reader.schema.id_type is None:
            return
        shown = pa.schema([self.schema.field(c) for c in columns])
        needed = list(columns) if keep is None else self.schema.names
        if keep is not None and looked_at is not None:
            needed = [c for c in self.schema.names if c in columns or c in looked_at]
        whole = pa.schema([self.schema.field(c) for c in needed])
        for batch in _windows(reader, [c for c in needed if c in reader.table.schema.names], narrow):
            table = conform(pa.Table.from_batches([batch]), whole, where=reader.where)
            if keep is not None:
                table = table.filter(keep)
            yield from table.select(columns).cast(shown).to_batches()

    def stream(
        self,
        columns: Sequence[str],
        keep: Any | None = None,
        narrow: str | None = None,
        looked_at: frozenset[str] | None = None,
    ) -> pa.RecordBatchReader:
        """Return `batches` as an Arrow stream."""
        shown = pa.schema([self.schema.field(c) for c in columns])
        return pa.RecordBatchReader.from_batches(shown, self.batches(columns, keep, narrow, looked_at))


def _windows(reader: Reader, columns: list[str], narrow: str | None) -> Iterator[pa.RecordBatch]:
    names = columns or ["id"]
    if narrow is not None:
        yield from reader.table.scan(names, filter=narrow, batch_rows=BATCH_ROWS)
        return
    start, rows = 0, FIRST_WINDOW
    while rows <= LAST_WINDOW and start < reader.rows:
        yield from reader.table.scan(names, limit=rows, offset=start, batch_rows=rows)
        start, rows = start + rows, rows * WINDOW_GROWTH
    if start < reader.rows:
        yield from reader.table.scan(names, offset=start, batch_rows=BATCH_ROWS)


if _sources is not None:

    class ScanSource(_sources.ArrowScanSource):  # type: ignore[misc]  # duckdb has no types here
        """A collection for DuckDB 2's Arrow scan, which offers each predicate as a tree."""

        def __init__(self, rows: CollectionRows) -> None:
            super().__init__(None)
            self._rows = rows

        def rows(self) -> int | None:
            """Return the number of rows, for the optimizer."""
            try:
                return self._rows.rows
            except VecDatasetError:
                return None

        def __arrow_c_schema__(self) -> object:
            return self._rows.schema.__arrow_c_schema__()

        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            return self._rows.stream(self._rows.schema.names).__arrow_c_stream__(requested_schema)

        def accepts(self, predicate: Any) -> bool:
            """Return whether Arrow decides the predicate exactly as DuckDB does."""
            try:
                to_arrow(predicate, self._rows.schema)
            except nodes.Untranslatable:
                return False
            return True

        def stream(self, columns: Sequence[int] | None, filters: Sequence[Any]) -> tuple[object, bool]:
            """Return the rows that pass `filters`, and that they have exactly `columns`."""
            schema = self._rows.schema
            names = schema.names if columns is None else [schema.names[i] for i in columns]
            keep = None
            for predicate in filters:
                term = to_arrow(predicate, schema)
                keep = term if keep is None else keep & term
            narrow = _all([sql for f in filters if (sql := narrowing(f, schema)) is not None])
            looked_at = frozenset(name for f in filters for name in _columns(f))
            stream = self._rows.stream(names, keep, narrow, looked_at)
            return stream.__arrow_c_stream__(), columns is not None


class RowsDataset(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types here
    """A collection for DuckDB 1.5, which knows pyarrow's datasets."""

    def __init__(self, rows: CollectionRows) -> None:
        self._rows = rows

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._rows.schema

    def scanner(self, columns: Any = None, filter: Any = None, **_: Any) -> _Unread:
        """Return the rows that pass `filter`, as a scanner that reads nothing ahead."""
        names = list(self._rows.schema.names if columns is None else columns)
        return _Unread(self._rows.stream(names, filter))


class _Unread:
    """What DuckDB needs of a scanner: one of pyarrow's would read whole windows that a LIMIT spares."""

    def __init__(self, source: pa.RecordBatchReader) -> None:
        self._source = source

    def to_reader(self) -> pa.RecordBatchReader:
        return self._source


def scannable(rows: CollectionRows) -> Any:
    """Return what DuckDB can make a view over."""
    return RowsDataset(rows) if _sources is None else ScanSource(rows)


def select_list(schema: pa.Schema) -> str:
    """Return what a view selects from what it scans.

    DuckDB 1.5 leaves comparisons to pyarrow, for which NaN is no number and for DuckDB the greatest:
    `price >= 3` loses rows over any pyarrow dataset, and `id = 18446744073709551615` is an
    OverflowError. Under a CASE it compares what it has read, and still reads no other columns. Its CASE
    takes no arrays of a fixed size; TRY does.
    """
    if _sources is not None:
        return "*"
    return ", ".join(_hidden(quoted(field.name), field.type) for field in schema)


def _hidden(name: str, type: pa.DataType) -> str:
    value = (
        f"TRY({name})"
        if pa.types.is_fixed_size_list(type)
        else f"CASE WHEN {name} IS NULL THEN NULL ELSE {name} END"
    )
    return f"{value} AS {name}"


# --------------------------------------------------------------------- down to Lance


def _columns(node: Any) -> Iterator[str]:
    """Yield the columns that a predicate looks at."""
    if isinstance(node, nodes.Col):
        yield node.parts[0]
    for part in ("left", "right", "operand"):
        child = getattr(node, part, None)
        if child is not None:
            yield from _columns(child)


def _all(parts: Sequence[str]) -> str | None:
    return " AND ".join(f"({p})" for p in parts) if parts else None


def narrowing(node: Any, schema: pa.Schema) -> str | None:
    """Return Lance SQL that is true for at least the rows of a predicate; None where there is none."""
    if isinstance(node, nodes.Binary) and node.op in ("AND", "OR"):
        parts = [narrowing(node.left, schema), narrowing(node.right, schema)]
        if node.op == "AND":
            return _all([p for p in parts if p is not None])
        return None if None in parts else " OR ".join(f"({p})" for p in parts)
    if isinstance(node, nodes.Unary) and node.op == "NOT":
        exact = _exactly(node.operand, schema)
        return None if exact is None else f"NOT ({exact})"
    return _leaf(node, schema, negated=False)


def _exactly(node: Any, schema: pa.Schema) -> str | None:
    """Return Lance SQL with the very truth value of a predicate, null included, or None."""
    if isinstance(node, nodes.Binary) and node.op in ("AND", "OR"):
        left, right = _exactly(node.left, schema), _exactly(node.right, schema)
        return None if left is None or right is None else f"({left}) {node.op} ({right})"
    if isinstance(node, nodes.Unary) and node.op == "NOT":
        inner = _exactly(node.operand, schema)
        return None if inner is None else f"NOT ({inner})"
    return _leaf(node, schema, negated=True)


def _leaf(node: Any, schema: pa.Schema, *, negated: bool) -> str | None:
    column = getattr(node, "left", None) or getattr(node, "operand", None)
    if not isinstance(column, nodes.Col) or len(column.parts) != 1:
        return None
    name = column.parts[0]
    kind = schema.field(name).type
    quoted = f"`{name}`"
    if isinstance(node, nodes.Postfix):
        return f"{quoted} {node.op}"
    if isinstance(node, nodes.In):
        literals = [_literal(v, kind, negated=negated, op="=") for v in node.values]
        if any(text is None for text in literals):
            return None
        return f"{quoted} IN ({', '.join(str(text) for text in literals)})"
    if isinstance(node, nodes.Binary) and isinstance(node.right, nodes.Lit):
        literal = _literal(node.right, kind, negated=negated, op=node.op)
        return None if literal is None else f"{quoted} {node.op} {literal}"
    return None


def _literal(node: Any, kind: pa.DataType, *, negated: bool, op: str) -> str | None:
    """Return a constant as Lance writes it, where Lance compares it as DuckDB does.

    Floats only in `<`, `<=` and `=`, because NaN is the greatest number for DuckDB, and never
    zero, which has two signs for Lance.
    """
    value = getattr(node, "value", None)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and pa.types.is_integer(kind):
        # Lance reads the least int64 as the negative of a number that is none.
        return str(value) if value != -(2**63) else None
    if isinstance(value, str) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return "'" + value.replace("'", "''") + "'"
    if (
        isinstance(value, float)
        and pa.types.is_float64(kind)
        and not negated
        and op in ("<", "<=", "=")
        and math.isfinite(value)
        and value != 0.0
    ):
        return repr(value)
    return None
