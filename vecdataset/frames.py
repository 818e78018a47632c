"""Any tabular data in, as batches of points; Arrow-backed results out.

In: everything that exports an Arrow stream (polars, pandas, pyarrow, DuckDB relations),
`(ids, array)`, dicts, `Point`s, and iterators of any of these. Out: `Frame` and
`ScoredPoints`, which export an Arrow stream themselves and import polars or pandas
only when asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.display import html_table, text_table
from vecdataset.errors import InvalidInputError, MissingDependencyError, UnknownNameError, did_you_mean
from vecdataset.ids import decode_ids
from vecdataset.points import Layout, Point, RawBatch, json_text
from vecdataset.schema import (
    EXTRA,
    UNNAMED,
    VECTOR_SUFFIX,
    CollectionSchema,
    IdType,
    payload_column,
    vector_column,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

DICTS_PER_BATCH: Final = 8_192
_QDRANT_KEYS: Final = frozenset({"id", "vector", "payload"})


# ------------------------------------------------------------------------------ in


def raw_batches(
    points: Any,
    schema: CollectionSchema,
    *,
    id: str = "id",
    vectors: Mapping[str, str] | None = None,
    layout: Layout | None = None,
    partial: bool = False,
) -> Iterator[RawBatch]:
    """Yield `points` batch by batch, in the shape that `PointBuffer` checks.

    Args:
        points: A frame, an Arrow stream, dicts, `Point`s, `(ids, array)`, or an iterator of these.
        schema: The collection's declaration.
        id: The column or key of the ids.
        vectors: Vector name to column or key; `""` is the unnamed vector.
        layout: `flat` or `qdrant`; None looks at the keys.
        partial: Vectors may be missing altogether (patches).

    Raises:
        InvalidInputError: The points are of no known shape, or a column is not there.
    """
    if layout not in (None, "flat", "qdrant"):
        raise InvalidInputError(f"layout is {layout!r}; it must be 'flat' or 'qdrant'")
    reader = _Adapter(schema, id=id, vectors=vectors, layout=layout, partial=partial)
    yield from reader.read(points)


class _Adapter:
    def __init__(
        self,
        schema: CollectionSchema,
        *,
        id: str,
        vectors: Mapping[str, str] | None,
        layout: Layout | None,
        partial: bool,
    ) -> None:
        self.schema = schema
        self.id = id
        self.layout = layout
        self.partial = partial
        self.mapping = dict(vectors or {})
        for name in self.mapping:
            if name not in schema.vector_types:
                raise UnknownNameError(
                    f"vector {name!r} is not declared",
                    hint=did_you_mean(name, [n or '""' for n in schema.vector_types], what="vectors"),
                )

    def read(self, points: Any) -> Iterator[RawBatch]:
        if isinstance(points, Mapping | Point):
            points = [points]
        if isinstance(points, tuple) and len(points) == 2 and not isinstance(points[0], Mapping | Point):
            yield self._pair(*points)
            return
        stream = _arrow_stream(points)
        if stream is not None:
            yield from self._arrow(stream)
            return
        if isinstance(points, str | bytes) or not isinstance(points, Iterable):
            raise InvalidInputError(
                f"points come as {type(points).__name__}",
                hint="pass a frame, an Arrow stream, a list of dicts or Points, or (ids, array)",
            )
        iterator = iter(points)
        for first in iterator:
            if isinstance(first, Mapping | Point):
                yield from self._dicts(first, iterator)
                return
            if isinstance(first, RawBatch):  # from a format that has them in the shape to be checked
                yield first
                continue
            if _arrow_stream(first) is None and not isinstance(first, tuple):
                raise InvalidInputError(
                    f"points come as {type(points).__name__} of {type(first).__name__}",
                    hint="pass dicts, Points, frames, Arrow batches, or (ids, array)",
                )
            yield from self.read(first)

    # -- ids and an array

    def _pair(self, ids: Any, array: Any) -> RawBatch:
        name, params = self.schema.vector(next(iter(self.mapping), None) if self.mapping else None)
        if not isinstance(array, pa.Array):
            array = np.asarray(array)
            if array.ndim != 2 or array.dtype == object:
                raise InvalidInputError(
                    f"(ids, array) has an array of shape {array.shape}; [n, {params.size}] is needed"
                )
        if len(ids) != len(array):
            raise InvalidInputError(f"(ids, array) has {len(ids)} ids and {len(array)} vectors")
        if isinstance(ids, range):
            ids = np.arange(ids.start, ids.stop, ids.step)
        return RawBatch(length=len(array), ids=ids, vectors={name: array}, columns={})

    # -- Arrow

    def _arrow(self, stream: pa.RecordBatchReader) -> Iterator[RawBatch]:
        names = stream.schema.names
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise InvalidInputError(f"column {min(twice)!r} stands twice in the points")
        if self.layout == "qdrant":
            for batch in stream:
                rows = batch.to_pylist()
                for row in rows:
                    if isinstance(row.get("payload"), str):
                        row["payload"] = _json(row["payload"], row.get("id"))
                yield self._qdrant(rows)
            return
        numbers = frozenset(f.name for f in stream.schema if payload_column(f).json_number)
        has_id = self.id in names
        if not has_id and (self.id != "id" or self.partial):
            raise UnknownNameError(
                f"the points have no column {self.id!r}", hint=did_you_mean(self.id, names, what="columns")
            )
        where = self._vector_sources(names)
        taken = {self.id, *where.values(), EXTRA}
        payload = [n for n in names if n not in taken and not n.startswith("__index_level_")]
        for batch in stream:
            yield RawBatch(
                length=batch.num_rows,
                ids=batch.column(self.id) if has_id else None,
                vectors={vector: batch.column(column) for vector, column in where.items()},
                columns={n: batch.column(n) for n in payload},
                extra=batch.column(EXTRA) if EXTRA in names else None,
                numbers=numbers,
            )

    def _vector_sources(self, names: Iterable[str]) -> dict[str, str]:
        """Return vector name to the column or key that holds it."""
        names = list(names)
        out: dict[str, str] = {}
        for name in self.schema.vector_types:
            asked = self.mapping.get(name)
            if asked is not None:
                if asked not in names:
                    raise UnknownNameError(
                        f"the points have no column {asked!r} for vector {name or 'vector'!r}",
                        hint=did_you_mean(asked, names, what="columns"),
                    )
                out[name] = asked
                continue
            for candidate in (vector_column(name), *((name,) if name else ())):
                if candidate in names and candidate not in self.mapping.values():
                    out[name] = candidate
                    break
        if not out and not self.partial:
            shown = next(iter(self.schema.vector_types))
            raise UnknownNameError(
                f"the points have no column {vector_column(shown)!r}",
                hint=f"say which column holds the vectors: vectors={{{shown!r}: 'embedding'}}"
                + (f"; columns: {', '.join(map(repr, names[:12]))}" if names else ""),
            )
        return out

    # -- dicts

    def _dicts(self, first: Any, rest: Iterator[Any]) -> Iterator[RawBatch]:
        chunk = [first, *islice(rest, DICTS_PER_BATCH - 1)]
        while chunk:
            yield self._chunk(chunk)
            chunk = list(islice(rest, DICTS_PER_BATCH))

    def _chunk(self, chunk: list[Any]) -> RawBatch:
        for item in chunk:
            if not isinstance(item, Mapping | Point):
                raise InvalidInputError(
                    f"a point is of type {type(item).__name__}; it must be a dict or a Point"
                )
        if all(isinstance(item, Point) for item in chunk) or self.layout == "qdrant":
            return self._qdrant(chunk)
        rows = [_as_dict(item) if isinstance(item, Point) else item for item in chunk]
        if (
            self.layout is None
            and all(row.keys() <= _QDRANT_KEYS and ("payload" in row or self.id == "id") for row in rows)
            and any("payload" in row or "vector" in row for row in rows)
        ):
            return self._qdrant(rows)
        return self._flat(rows)

    def _qdrant(self, items: list[Any]) -> RawBatch:
        rows = [_as_dict(item) if isinstance(item, Point) else item for item in items]
        ids = [row.get("id") for row in rows]
        found: dict[str, list[Any]] = {}
        for at, row in enumerate(rows):
            value = row.get("vector")
            if value is None:
                continue
            named = value if isinstance(value, Mapping) else {UNNAMED: value}
            for name, vector in named.items():
                if name not in self.schema.vector_types:
                    raise UnknownNameError(
                        f"vector {name or 'vector'!r} of point {ids[at]!r} is not declared",
                        hint=did_you_mean(
                            name, [n or "vector" for n in self.schema.vector_types], what="vectors"
                        ),
                    )
                found.setdefault(name, [None] * len(rows))[at] = vector
        payloads = []
        for at, row in enumerate(rows):
            payload = row.get("payload") or {}
            if not isinstance(payload, Mapping):
                raise InvalidInputError(
                    f"payload of point {ids[at]!r} is of type {type(payload).__name__}; it must be a dict"
                )
            payloads.append(payload)
        return RawBatch(
            length=len(rows), ids=_ids_or_none(ids), vectors=found, rows=None if self.partial else payloads
        )

    def _flat(self, rows: list[Mapping[str, Any]]) -> RawBatch:
        keys: dict[str, None] = {}
        for row in rows:
            keys.update(dict.fromkeys(row))
        where = self._vector_sources(keys)
        if self.id not in keys and (self.id != "id" or self.partial):
            raise UnknownNameError(
                f"the points have no key {self.id!r}", hint=did_you_mean(self.id, keys, what="keys")
            )
        taken = {self.id, *where.values(), EXTRA}
        texts = _extra_texts(rows) if EXTRA in keys else None
        return RawBatch(
            length=len(rows),
            ids=_ids_or_none([row.get(self.id) for row in rows]),
            vectors={name: [row.get(column) for row in rows] for name, column in where.items()},
            rows=[{k: v for k, v in row.items() if k not in taken} for row in rows],
            extra=texts,
        )


def _ids_or_none(ids: list[Any]) -> list[Any] | None:
    missing = sum(i is None for i in ids)
    if missing == len(ids):
        return None
    if missing:
        raise InvalidInputError(
            f"{missing} of {len(ids)} points have no id", hint="give each point an id, or none of them"
        )
    return ids


def _extra_texts(rows: list[Mapping[str, Any]]) -> pa.Array:
    # `to_pylist()` gives a dict here, Arrow the text.
    values = [row.get(EXTRA) for row in rows]
    texts = [json_text(v, key=EXTRA, where="the points") if isinstance(v, Mapping) else v for v in values]
    try:
        return pa.array(texts, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid) as exc:
        raise InvalidInputError(f"key {EXTRA!r} of the points is neither a dict nor text: {exc}") from None


def _json(text: str, id: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidInputError(f"payload of point {id!r} is not JSON: {exc}") from None


def _as_dict(point: Point) -> dict[str, Any]:
    return {"id": point.id, "vector": point.vector, "payload": point.payload}


def _arrow_stream(source: Any) -> pa.RecordBatchReader | None:
    """Return the Arrow stream of `source`, or None when it is something else."""
    if isinstance(source, pa.RecordBatchReader):
        return source
    if isinstance(source, pa.Table | pa.RecordBatch):
        table = source if isinstance(source, pa.Table) else pa.Table.from_batches([source])
        return table.to_reader()
    if hasattr(source, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(source)
    if hasattr(source, "scanner") and hasattr(source, "schema"):  # pyarrow and Lance datasets
        return source.scanner().to_reader()
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):  # a polars LazyFrame
        return pa.RecordBatchReader.from_stream(source.collect())
    return None


# ----------------------------------------------------------------------------- out


class Frame:
    """Rows of a collection: a thin, immutable face over an Arrow table."""

    def __init__(
        self,
        table: pa.Table,
        *,
        id_type: IdType | None = None,
        numbers: Iterable[str] = (),
        labels: Iterable[str] = (),
        next_offset: str | None = None,
    ) -> None:
        """Wrap a table.

        Args:
            table: The rows.
            id_type: How ids read back (`mixed` ones come back as int or str).
            numbers: float64 columns whose integral values are JSON ints.
            labels: Columns that stand beside the payload, such as the group of a hit.
            next_offset: Where the next page of a scroll begins; None at the end.
        """
        self._table = table
        self._id_type = id_type
        self._numbers = frozenset(numbers)
        self._labels = frozenset(labels)
        self.next_offset = next_offset
        """Pass it to `scroll(offset=…)` for the next page; None at the end."""

    def to_arrow(self) -> pa.Table:
        """Return the Arrow table; no copy."""
        return self._table

    def to_polars(self) -> pl.DataFrame:
        """Return a polars frame; needs the extra `polars`."""
        try:
            import polars
        except ImportError:
            raise MissingDependencyError.of("polars", extra="polars", purpose="to_polars()") from None
        frame = polars.from_arrow(self._table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame; needs the extra `pandas`."""
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise MissingDependencyError.of("pandas", extra="pandas", purpose="to_pandas()") from None
        return self._table.to_pandas()

    def to_pylist(self, *, layout: Layout = "flat") -> list[dict[str, Any]]:
        """Return one dict a row.

        Args:
            layout: `flat` names payload keys at top level, None where missing. `qdrant` gives
                `id`, `score` where there is one, `vector` where asked for, and `payload` with
                exactly the JSON that was stored.
        """
        rows: list[dict[str, Any]] = self._table.to_pylist()
        if self._id_type == "mixed" and "id" in self._table.column_names:
            for row, value in zip(rows, decode_ids(self._table["id"], "mixed"), strict=True):
                row["id"] = value
        for row in rows:
            _restore_numbers(row, self._numbers)
        shaped = _qdrant_row if layout == "qdrant" else _flat_row
        return [shaped(row, self._labels) for row in rows]

    @property
    def id_type(self) -> IdType | None:
        """How ids read back; None where the frame has none."""
        return self._id_type

    @property
    def numbers(self) -> frozenset[str]:
        """The float64 columns whose integral values are JSON ints."""
        return self._numbers

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self._table.column_names)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema."""
        return self._table.schema

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows as an Arrow stream."""
        return self._table.__arrow_c_stream__(requested_schema)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        if name not in self._table.column_names:
            raise UnknownNameError(
                f"the result has no column {name!r}",
                hint=did_you_mean(name, self._table.column_names, what="columns"),
            )
        return self._table[name]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows: {', '.join(self.column_names)})"

    def __str__(self) -> str:
        return text_table(self._shown(), total=len(self))

    def _repr_html_(self) -> str:
        return html_table(self._shown(), total=len(self))

    def _shown(self) -> list[dict[str, Any]]:
        head = Frame(
            self._table.slice(0, 20), id_type=self._id_type, numbers=self._numbers, labels=self._labels
        )
        return head.to_pylist()


class ScoredPoints(Frame):
    """The hits of a search, best first within each query."""

    def __init__(self, table: pa.Table, *, plan: Any = None, **frame: Any) -> None:
        """Wrap hits together with the plan that found them."""
        super().__init__(table, **frame)
        self.plan = plan
        """How the search ran, when it was asked with `explain=True`."""


def _restore_numbers(row: dict[str, Any], numbers: frozenset[str]) -> None:
    for name in numbers:
        value = row.get(name)
        if isinstance(value, float) and value.is_integer():
            row[name] = int(value)


def _flat_row(row: dict[str, Any], labels: frozenset[str]) -> dict[str, Any]:
    text = row.pop(EXTRA, None)
    if text:
        kept: dict[str, Any] = {}
        for key, value in json.loads(text).items():
            if key in _RESULT_COLUMNS or key in labels or key.endswith(VECTOR_SUFFIX):
                kept[key] = value
            else:
                row[key] = value
        if kept:
            row[EXTRA] = kept
    return row


_RESULT_COLUMNS: Final = frozenset({"id", "score", "_distance", "_rank", "query_index", "vector", EXTRA})


def _qdrant_row(row: dict[str, Any], labels: frozenset[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"id": row.pop("id", None)}
    for name in ("score", "query_index", *sorted(labels)):
        if name in row:
            out[name] = row.pop(name)
    row.pop("_distance", None)
    row.pop("_rank", None)
    vectors = {n.removesuffix(VECTOR_SUFFIX): row.pop(n) for n in list(row) if n.endswith(VECTOR_SUFFIX)}
    if vectors:
        unnamed = {UNNAMED: row.pop("vector")} if "vector" in row else {}
        out["vector"] = {name: value for name, value in (unnamed | vectors).items() if value is not None}
    elif "vector" in row:
        out["vector"] = row.pop("vector")
    text = row.pop(EXTRA, None)
    payload = {key: value for key, value in row.items() if value is not None}
    if text:
        payload.update(json.loads(text))
    out["payload"] = payload
    return out


def labelled(
    table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray, *, numbers: Iterable[str] = ()
) -> pa.Table:
    """Return hits with a column after the first; a payload column of its name moves into `_extra`.

    Args:
        table: The hits.
        name: The new column's name.
        values: The new column.
        numbers: float64 columns whose integral values are JSON ints.
    """
    if name in table.column_names:
        own = table[name].to_pylist()
        if name in numbers:
            own = [int(v) if v is not None and v.is_integer() else v for v in own]
        texts = table[EXTRA].to_pylist() if EXTRA in table.column_names else [None] * len(own)
        for at, (value, text) in enumerate(zip(own, texts, strict=True)):
            kept = json.loads(text) if text else {}
            if value is not None:
                texts[at] = json_text({name: value, **kept}, key=name, where="the result")
        table = table.drop_columns([name, *([EXTRA] if EXTRA in table.column_names else [])])
        table = table.append_column(EXTRA, pa.array(texts, pa.string()))
    return table.add_column(1, name, values)
