"""Points on their way in: ids and vectors checked, payload fitted to columns, duplicates dropped.

A `PointBuffer` takes raw batches one after the other, validates each at once, and keeps
what it fitted in memory up to a limit, then in a local spool file. Nothing is written to
the collection before the last batch has been seen, so a mistake anywhere leaves it as it was.
The buffer can be read several times: a commit that loses a race starts over from it.
"""

from __future__ import annotations

import json
import math
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import (
    InvalidIdError,
    InvalidInputError,
    PointExistsError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.ids import PointId, decode_dictionary, describe, fit_ids
from vecdataset.schema import (
    EXTRA,
    MAX_PROMOTED,
    PLACE_TYPE,
    CollectionSchema,
    IdType,
    PayloadColumn,
    can_promote,
    id_field,
    vector_column,
)
from vecdataset.sparse import fit_sparse
from vecdataset.vectors import fit_multivectors, fit_vectors

SPOOL_AFTER_BYTES: Final = 128 << 20
MERGE_BATCH_ROWS: Final = 4_096
"""Lance merges a stream of small batches almost twice as fast as one of 100,000 rows."""
_EXACT_INT: Final = 1 << 53
_MISSING: Final = object()

_SIMPLE: Final = {pa.string(): str, pa.int64(): int, pa.float64(): float, pa.bool_(): bool}


@dataclass(frozen=True, slots=True)
class Point:
    """One point, as Qdrant shapes it."""

    id: PointId | None
    """An unsigned integer, a UUID or a string; None lets the collection make a UUID."""
    vector: Any = None
    """A vector, or a dict of named ones."""
    payload: Mapping[str, Any] | None = None
    """JSON values by key."""


@dataclass(slots=True, kw_only=True)
class RawBatch:
    """Some points before any check: what the adapters of `frames.py` yield."""

    length: int
    ids: Any = None
    """An Arrow array, a NumPy array or a list; None where the points bring no ids."""
    vectors: dict[str, Any] = field(default_factory=dict)
    """Vector name to an Arrow array, a 2-D array, or a list of vectors and None."""
    columns: dict[str, pa.Array] = field(default_factory=dict)
    """Typed payload."""
    rows: Sequence[Mapping[str, Any]] | None = None
    """JSON payload, one mapping a point; instead of `columns`."""
    extra: pa.Array | None = None
    """JSON text of further keys, as collections give it out."""
    numbers: frozenset[str] = frozenset()
    """Columns of JSON numbers, as collections give them out: an integral value is an int."""
    clear: Sequence[str] = ()
    """Of a patch: physical columns that become null unless the batch brings a value."""


# ----------------------------------------------------------------------- payload


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type that a column of `kind` is stored with; None if it cannot be one."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if kind == pa.string_view():
        return pa.string()
    if kind == pa.binary_view():
        return pa.binary()
    if pa.types.is_list_view(kind) or pa.types.is_list(kind):
        inner = plain_type(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_large_list_view(kind) or pa.types.is_large_list(kind):
        inner = plain_type(kind.value_type)
        return None if inner is None else pa.large_list(inner)
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_null(kind) or pa.types.is_union(kind):
        return None
    return kind


def json_text(value: Any, *, key: str, where: str) -> str:
    """Return the compact JSON of a payload value."""
    try:
        text = json.dumps(
            value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_json_default
        )
        text.encode()
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"payload key {key!r} of a point of {where} holds a value that JSON cannot: {exc}"
        ) from None
    return text


def _json_default(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _kind(value: Any) -> pa.DataType | None:
    """Return the column type that a JSON value alone would ask for; None if it must live in `_extra`."""
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(1 << 63) <= value < 1 << 63 else None
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, datetime):
        return pa.timestamp("us", tz="UTC" if value.tzinfo else None)
    if isinstance(value, date):
        return pa.date32()
    if isinstance(value, list) and value:
        kinds = {_kind(v) for v in value}
        if len(kinds) == 1:
            inner = kinds.pop()
            if inner is not None and not pa.types.is_nested(inner):
                return pa.list_(inner)
    return PLACE_TYPE if _is_place(value) else None


def _is_place(value: Any) -> bool:
    """Return whether a value is `{"lat": …, "lon": …}` of two floats: the one object that has a column."""
    return (
        isinstance(value, dict)
        and value.keys() == {"lat", "lon"}
        and isinstance(value["lat"], float)
        and isinstance(value["lon"], float)
    )


def _gives_back(value: Any, column: PayloadColumn) -> bool:
    """Return whether the column returns exactly this JSON value."""
    kind = column.type
    if isinstance(value, bool):
        return bool(pa.types.is_boolean(kind))
    if isinstance(value, int):
        if column.json_number:
            return abs(value) <= _EXACT_INT
        if not pa.types.is_integer(kind):
            return False
        bits = kind.bit_width
        low, high = (-(1 << bits - 1), 1 << bits - 1) if pa.types.is_signed_integer(kind) else (0, 1 << bits)
        return bool(low <= value < high)
    if isinstance(value, float):
        if column.json_number:
            return not value.is_integer()
        if kind == pa.float64():
            return True
        if kind == pa.float32():
            with np.errstate(over="ignore"):
                return bool(np.float32(value) == value or math.isnan(value))
        return False
    if isinstance(value, str):
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if isinstance(value, list):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return False
        inner = PayloadColumn(name=column.name, type=kind.value_type)
        return all(v is None or (not isinstance(v, list | dict) and _gives_back(v, inner)) for v in value)
    if isinstance(value, datetime):
        return bool(pa.types.is_timestamp(kind)) and (value.tzinfo is None) == (kind.tz is None)
    if isinstance(value, date):
        return bool(pa.types.is_date32(kind))
    if isinstance(value, dict):
        return kind == PLACE_TYPE and _is_place(value)
    try:
        return bool(pa.scalar(value, kind).as_py() == value)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError):
        return False


def _values_of(rows: Sequence[Mapping[str, Any]], key: str, *, plain: bool) -> list[Any]:
    """Return the values of a key, row by row; where all `plain` dicts have it, without Python's loop."""
    if plain:
        with suppress(KeyError):
            return list(map(itemgetter(key), rows))
    return [row.get(key, _MISSING) for row in rows]


def _uniform(values: Sequence[Any], kinds: set[type], column: PayloadColumn) -> bool:
    """Return whether the types alone say that the column gives back every value, lists included."""
    if column.json_number:
        return False
    simple = _SIMPLE.get(column.type)
    if simple is not None:
        return kinds <= {simple}
    if kinds != {list} or not pa.types.is_list(column.type):
        return False
    simple = _SIMPLE.get(column.type.value_type)
    elements = chain.from_iterable(v for v in values if v is not _MISSING)
    return simple is not None and set(map(type, elements)) <= {simple}


def _best(value: Any, column: PayloadColumn) -> Any:
    """Return what the column shows to SQL for a value that it cannot give back."""
    if column.type == pa.float64() and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


# ------------------------------------------------------------------------ buffer


@dataclass(slots=True, kw_only=True)
class Evolution:
    """What a commit of points asks of the schema first."""

    id_type: IdType | None = None
    """Set when the points decided the id type."""
    add: list[PayloadColumn] = field(default_factory=list)
    widen: list[PayloadColumn] = field(default_factory=list)
    """Columns by the type they must get."""
    extra_keys: set[str] = field(default_factory=set)
    """Keys that `_extra` holds for the first time."""
    zero_vectors: set[str] = field(default_factory=set)
    """Cosine vectors that hold an all-zero vector for the first time."""

    def __bool__(self) -> bool:
        return bool(self.id_type or self.add or self.widen or self.extra_keys or self.zero_vectors)


class PointBuffer:
    """Validated points, fitted to one schema, ready to be merged as one commit."""

    def __init__(
        self,
        schema: CollectionSchema,
        *,
        where: str,
        partial: bool = False,
        reject_duplicates: bool = False,
    ) -> None:
        """Start an empty buffer.

        Args:
            schema: The collection's schema at the version the points will meet.
            where: Names the collection in errors, such as `collection 'books'`.
            partial: Points are patches: only the columns they bring are written.
            reject_duplicates: An id twice is an error (insert), not last-wins (upsert).
        """
        self._schema = schema
        self._where = where
        self._partial = partial
        self._reject_duplicates = reject_duplicates
        self._id_type = schema.id_type
        self._columns: dict[str, PayloadColumn] = dict(schema.payload)
        self._folded = {name.lower() for name in (*schema.payload, *schema.vector_columns.values())}
        self._spool = _Spool()
        self._ids: list[pa.Array] = []
        self._keep: list[np.ndarray | None] | None = None
        self.extra_keys: set[str] = set()
        self.zero_vectors: set[str] = set()
        self.rows_in = 0

    # -- filling

    def add(self, raw: RawBatch) -> None:
        """Check and keep one batch."""
        if raw.length == 0:
            return
        ids = self._fit_ids(raw)
        arrays: dict[str, pa.Array] = {"id": ids}
        for name, values in raw.vectors.items():
            if name not in self._schema.vector_types:
                raise UnknownNameError(
                    f"vector {name or 'vector'!r} is not declared in {self._where}",
                    hint=did_you_mean(
                        name, [n or "vector" for n in self._schema.vector_types], what="vectors"
                    ),
                )
            array, zeros = self._fit_vector(name, values, ids)
            if len(array) != raw.length:
                raise InvalidInputError(
                    f"{raw.length} points come with {len(array)} vectors {name or 'vector'!r}"
                )
            arrays[vector_column(name)] = array
            if zeros:
                self.zero_vectors.add(name)
        extra: dict[int, dict[str, Any]] = {}
        if raw.extra is not None:
            self._take_extra(raw.extra, extra)
        if raw.rows is not None:
            self._fit_rows(raw.rows, arrays, extra)
        else:
            for name, column in raw.columns.items():
                if name in raw.numbers and pa.types.is_float64(column.type):
                    self._fit_numbers(name, column, arrays, extra)
                else:
                    self._fit_column(name, column, arrays, extra)
        if extra or (self._partial and raw.extra is not None):
            self._write_extra(raw.length, extra, arrays)
        for name in raw.clear:
            if name not in arrays:
                arrays[name] = pa.nulls(raw.length, self._type_of(name))
        self.rows_in += raw.length
        self._ids.append(ids)
        self._spool.append(pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays)))

    def _fit_vector(self, name: str, values: Any, ids: pa.Array) -> tuple[pa.Array, bool]:
        if name in self._schema.sparse:
            return fit_sparse(values, name, ids=ids, where=self._where), False
        params = self._schema.vectors[name]
        fit = fit_multivectors if params.multivector else fit_vectors
        return fit(values, name, params, ids=ids, where=self._where)

    def _fit_ids(self, raw: RawBatch) -> pa.Array:
        if raw.ids is None:
            if self._id_type == "uint64":
                raise InvalidIdError(
                    f"the points bring no ids; {self._where} has unsigned integers as ids",
                    hint="give each point an 'id', or name its column with id=…",
                )
            self._id_type = self._id_type or "uuid"
            return pa.array([str(uuid.uuid4()) for _ in range(raw.length)], pa.string())
        ids, id_type = fit_ids(raw.ids, self._id_type, where=self._where)
        if len(ids) != raw.length:
            raise InvalidInputError(f"{len(ids)} ids come with {raw.length} points")
        self._id_type = id_type
        return ids

    def _take_extra(self, texts: pa.Array, extra: dict[int, dict[str, Any]]) -> None:
        for row, text in enumerate(texts.to_pylist()):
            if text:
                try:
                    value = json.loads(text)
                except (ValueError, TypeError) as exc:
                    raise InvalidInputError(f"column {EXTRA!r} of point {row} is not JSON: {exc}") from None
                if not isinstance(value, dict):
                    raise InvalidInputError(f"column {EXTRA!r} of point {row} is not a JSON object")
                extra.setdefault(row, {}).update(value)

    def _write_extra(
        self, length: int, extra: dict[int, dict[str, Any]], arrays: dict[str, pa.Array]
    ) -> None:
        texts: list[str | None] = [None] * length
        for row, values in extra.items():
            parts = [
                f"{json.dumps(key, ensure_ascii=False)}:{json_text(v, key=key, where=self._where)}"
                for key, v in values.items()
            ]
            texts[row] = "{" + ",".join(parts) + "}"
            self.extra_keys.update(values)
        try:
            arrays[EXTRA] = pa.array(texts, pa.string())
        except (UnicodeEncodeError, pa.ArrowInvalid) as exc:
            raise InvalidInputError(f"a payload key of {self._where} is not valid Unicode: {exc}") from None

    def _type_of(self, column: str) -> pa.DataType:
        for name, kind in self._schema.vector_types.items():
            if vector_column(name) == column:
                return kind
        return self._columns[column].type

    def _promote(self, name: str, kind: pa.DataType, *, number: bool = False) -> PayloadColumn | None:
        """Make a column for a new key, unless its name or their number forbids it."""
        if not can_promote(name) or name.lower() in self._folded or len(self._columns) >= MAX_PROMOTED:
            return None
        column = PayloadColumn(name=name, type=kind, json_number=number)
        self._columns[name] = column
        self._folded.add(name.lower())
        return column

    # -- JSON payload

    def _fit_rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        arrays: dict[str, pa.Array],
        extra: dict[int, dict[str, Any]],
    ) -> None:
        plain = set(map(type, rows)) == {dict}
        for key in dict.fromkeys(chain.from_iterable(rows)):
            if not isinstance(key, str):
                raise InvalidInputError(
                    f"payload key {key!r} is of type {type(key).__name__}; keys are strings"
                )
            self._fit_values(key, _values_of(rows, key, plain=plain), arrays, extra)

    def _fit_values(
        self, key: str, values: list[Any], arrays: dict[str, pa.Array], extra: dict[int, dict[str, Any]]
    ) -> None:
        kinds = set(map(type, values))
        if any(issubclass(k, np.generic | np.ndarray | tuple | uuid.UUID) for k in kinds):
            values = [_plain(v) for v in values]
            kinds = set(map(type, values))
        kinds.discard(object)
        if type(None) in kinds:
            for row, value in enumerate(values):
                if value is None:
                    extra.setdefault(row, {})[key] = None
        column = self._columns.get(key)
        if column is None:
            column = self._column_for(key, values)
        elif pa.types.is_integer(column.type) and float in kinds:
            column = self._widen_to_number(column)
        if column is None:
            for row, value in enumerate(values):
                if value is not _MISSING:
                    extra.setdefault(row, {})[key] = value
            return
        out: list[Any] = []
        if _uniform(values, kinds, column):
            # Every value is of the one Python type that the column gives back: no look at each.
            out = [None if v is _MISSING else v for v in values] if _MISSING in values else values
            try:
                arrays[key] = pa.array(out, column.type)
            except (OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
                out = []
            else:
                return
        for row, value in enumerate(values):
            if value is _MISSING or value is None:
                out.append(None)
            elif _gives_back(value, column):
                out.append(value)
            else:
                extra.setdefault(row, {})[key] = value
                out.append(_best(value, column))
        try:
            arrays[key] = pa.array(out, column.type)
        except (UnicodeEncodeError, pa.ArrowInvalid) as exc:
            raise InvalidInputError(f"payload key {key!r} of {self._where} cannot be stored: {exc}") from None

    def _column_for(self, key: str, values: list[Any]) -> PayloadColumn | None:
        counts: dict[pa.DataType, int] = {}
        for value in values:
            if value is _MISSING or value is None:
                continue
            kind = _kind(value)
            if kind is not None:
                counts[kind] = counts.get(kind, 0) + 1
        if not counts:
            return None
        if set(counts) == {pa.int64(), pa.float64()}:
            return self._promote(key, pa.float64(), number=True)
        return self._promote(key, max(counts, key=lambda k: counts[k]))

    def _widen_to_number(self, column: PayloadColumn) -> PayloadColumn:
        wider = replace(column, type=pa.float64(), json_number=True)
        self._columns[column.name] = wider
        return wider

    # -- typed payload

    def _fit_numbers(
        self, name: str, values: pa.Array, arrays: dict[str, pa.Array], extra: dict[int, dict[str, Any]]
    ) -> None:
        """Keep a column of JSON numbers as it is where ours is one too; else fit its values as JSON."""
        column = self._columns.get(name) or self._promote(name, pa.float64(), number=True)
        if column is not None and column.json_number:
            arrays[name] = values
            return
        listed = [
            # What `_extra` says of a row is exact; the column only shows it to SQL.
            _MISSING if v is None or name in extra.get(row, ()) else int(v) if v.is_integer() else v
            for row, v in enumerate(values.to_pylist())
        ]
        self._fit_values(name, listed, arrays, extra)

    def _fit_column(
        self, name: str, values: pa.Array, arrays: dict[str, pa.Array], extra: dict[int, dict[str, Any]]
    ) -> None:
        if pa.types.is_null(values.type):
            return
        kind = plain_type(values.type)
        if kind is not None and kind != values.type:
            values = decode_dictionary(values) if pa.types.is_dictionary(values.type) else values
            values = values.cast(kind)
        column = self._columns.get(name)
        if column is None and kind is not None:
            column = self._promote(name, kind)
        if column is not None and kind is not None:
            fitted = self._cast_to(values, column)
            if fitted is not None:
                arrays[name] = fitted
                return
            column = self._columns[name]
        nulls = values.is_null().to_pylist() if values.null_count else None
        listed = values.to_pylist()
        self._fit_values(
            name,
            [_MISSING if nulls and nulls[i] else v for i, v in enumerate(listed)],
            arrays,
            extra,
        )

    def _cast_to(self, values: pa.Array, column: PayloadColumn) -> pa.Array | None:
        """Return typed values as the column's type, widening the column if need be; None if neither can."""
        have, want = values.type, column.type
        if have == want and not column.json_number:
            return values
        ints = pa.types.is_integer(have)
        floats = pa.types.is_floating(have)
        if column.json_number:
            return None
        if ints and pa.types.is_integer(want):
            try:
                return values.cast(want)
            except pa.ArrowInvalid:
                unsigned = pa.types.is_unsigned_integer(have) and pa.types.is_unsigned_integer(want)
                wider = replace(column, type=pa.uint64() if unsigned else pa.int64())
                if want == wider.type or not _castable(column, wider):
                    return None
                try:
                    fitted = values.cast(wider.type)
                except pa.ArrowInvalid:  # a number beyond int64, where negative ones may stand
                    return None
                self._columns[column.name] = wider
                return fitted
        if floats and pa.types.is_floating(want):
            if have.bit_width > want.bit_width:
                self._columns[column.name] = replace(column, type=have)
                return values
            return values.cast(want)
        text = (pa.types.is_string, pa.types.is_large_string)
        if any(t(have) for t in text) and any(t(want) for t in text):
            return values.cast(want)
        if (
            pa.types.is_timestamp(have)
            and pa.types.is_timestamp(want)
            and (have.tz is None) == (want.tz is None)
        ):
            try:
                return values.cast(want)
            except pa.ArrowInvalid:
                return None
        return None

    # -- reading

    @property
    def id_type(self) -> IdType | None:
        """The id type that the points brought or met."""
        return self._id_type

    def __len__(self) -> int:
        """Return how many points will be written: duplicates count once."""
        self._deduplicate()
        assert self._keep is not None
        return sum(
            len(ids) if keep is None else int(keep.sum())
            for ids, keep in zip(self._ids, self._keep, strict=True)
        )

    def ids(self) -> pa.ChunkedArray:
        """Return the stored ids of all points that will be written."""
        self._deduplicate()
        assert self._keep is not None
        chunks = [
            ids if keep is None else ids.filter(pa.array(keep))
            for ids, keep in zip(self._ids, self._keep, strict=True)
        ]
        return pa.chunked_array(chunks, chunks[0].type if chunks else pa.uint64())

    def evolution(
        self, schema: CollectionSchema, *, known_extra: Iterable[str], known_zero: Iterable[str]
    ) -> Evolution:
        """Return what must change in `schema` (the latest one) before these points fit."""
        out = Evolution()
        if schema.id_type is None:
            out.id_type = self._id_type
        elif self._id_type != schema.id_type and self.rows_in:
            raise InvalidIdError(
                f"the points bring ids of type {self._id_type}; {self._where} has {describe(schema.id_type)}"
            )
        for name, column in self._columns.items():
            have = schema.payload.get(name)
            if have is None:
                if name not in self._schema.payload:
                    out.add.append(column)
            elif (have.type, have.json_number) != (column.type, column.json_number):
                wide = wider(have, column)
                if wide != have:
                    out.widen.append(wide)
        out.extra_keys = self.extra_keys - set(known_extra)
        out.zero_vectors = self.zero_vectors - set(known_zero)
        return out

    def conforms(self, schema: CollectionSchema) -> bool:
        """Return whether the points can be cast to `schema` without a second look at their payload."""
        for name, column in self._columns.items():
            have = schema.payload.get(name)
            if have is None:
                if name not in self._schema.payload:
                    return False
            elif have != column and not _castable(column, have):
                return False
        return True

    def fitted_schema(self) -> CollectionSchema:
        """Return the schema that these points were fitted to."""
        return replace(self._schema, id_type=self._id_type, payload=dict(self._columns))

    def batches(self, schema: CollectionSchema) -> pa.RecordBatchReader:
        """Return the points as one stream in the collection's schema; can be called again."""
        self._deduplicate()
        target = self._target(schema)
        return pa.RecordBatchReader.from_batches(target, self._iterate(target))

    def _target(self, schema: CollectionSchema) -> pa.Schema:
        assert schema.id_type is not None
        if not self._partial:
            return replace(schema, id_type=schema.id_type).to_arrow().remove_metadata()
        fields = [id_field(schema.id_type)]
        names = self._spool.names()
        fields += [
            pa.field(vector_column(n), kind)
            for n, kind in schema.vector_types.items()
            if vector_column(n) in names
        ]
        fields += [c.to_field() for c in schema.payload.values() if c.name in names]
        if EXTRA in names:
            fields.append(pa.field(EXTRA, pa.string()))
        return pa.schema(fields)

    def _iterate(self, target: pa.Schema) -> Iterator[pa.RecordBatch]:
        assert self._keep is not None
        for batch, keep in zip(self._spool, self._keep, strict=True):
            kept = batch if keep is None else batch.filter(pa.array(keep))
            fitted = _aligned(_conform(kept, target))
            for start in range(0, fitted.num_rows, MERGE_BATCH_ROWS):
                yield fitted.slice(start, MERGE_BATCH_ROWS)

    def _deduplicate(self) -> None:
        if self._keep is not None and len(self._keep) == len(self._ids):
            return
        self._keep = [None] * len(self._ids)
        if not self._ids:
            return
        everything = self._ids[0] if len(self._ids) == 1 else pa.concat_arrays(self._ids)
        if pa.types.is_uint64(everything.type):
            numbers = everything.to_numpy()
            if (numbers[1:] > numbers[:-1]).all():
                return
        if pc.count_distinct(everything).as_py() == len(everything):
            return
        codes = everything.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        last = np.zeros(len(codes), bool)
        _, first_reversed = np.unique(codes[::-1], return_index=True)
        last[len(codes) - 1 - first_reversed] = True
        if self._reject_duplicates:
            twice = everything[int(np.flatnonzero(~last)[0])].as_py()
            raise PointExistsError(
                f"id {twice!r} stands twice in the points to insert into {self._where}",
                hint="upsert keeps the last of them",
            )
        start = 0
        for i, ids in enumerate(self._ids):
            part = last[start : start + len(ids)]
            start += len(ids)
            self._keep[i] = None if part.all() else part

    def close(self) -> None:
        """Remove the spool file."""
        self._spool.close()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    return value


def _castable(have: PayloadColumn, want: PayloadColumn) -> bool:
    if have.type == want.type:
        return have.json_number == want.json_number
    if want.json_number:
        return bool(pa.types.is_integer(have.type) and have.type.bit_width <= 32)
    if pa.types.is_integer(have.type) and pa.types.is_integer(want.type):
        from_signed, to_signed = map(pa.types.is_signed_integer, (have.type, want.type))
        spare = want.type.bit_width - have.type.bit_width
        return bool(spare >= 0 if from_signed == to_signed else to_signed and spare > 0)
    both_float = pa.types.is_floating(have.type) and pa.types.is_floating(want.type)
    return bool(both_float and have.type.bit_width <= want.type.bit_width)


def wider(have: PayloadColumn, want: PayloadColumn) -> PayloadColumn:
    """Return the column that holds the values of both, or `have` where none does."""
    if want.json_number and pa.types.is_integer(have.type):
        return want
    if _castable(have, want) and not want.json_number:
        return want
    return have


def _conform(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    """Return the batch with exactly the target's columns, missing ones null."""
    arrays = []
    for f in target:
        index = batch.schema.get_field_index(f.name)
        if index < 0:
            arrays.append(pa.nulls(batch.num_rows, f.type))
            continue
        array = batch.column(index)
        if array.type != f.type and pa.types.is_integer(array.type) and pa.types.is_float64(f.type):
            batch, array = _number_column(batch, f.name)
        arrays.append(array if array.type == f.type else array.cast(f.type))
    at = target.get_field_index(EXTRA)
    if at >= 0 and batch.schema.get_field_index(EXTRA) >= 0:
        arrays[at] = batch.column(EXTRA)
    return pa.RecordBatch.from_arrays(arrays, schema=target)


def _aligned(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch in memory that Lance can read.

    IPC, files and our own spool alike, pads buffers to 8 bytes; Lance panics on a 16-byte decimal that
    starts between two multiples of 16 (pylance 14.0.2). From pyarrow 23 on, `ensure_alignment` does this.
    """
    buffers = (b for column in batch.columns for b in column.buffers())
    if all(b is None or b.address % 16 == 0 for b in buffers):
        return batch
    return batch.take(pa.array(np.arange(batch.num_rows)))


def _number_column(batch: pa.RecordBatch, name: str) -> tuple[pa.RecordBatch, pa.Array]:
    """Return an int column as float64, with the integers that it cannot hold moved to `_extra`."""
    array = batch.column(name)
    wide = array.cast(pa.float64(), safe=False)
    large = [i for i, v in enumerate(array.to_pylist()) if v is not None and abs(v) > _EXACT_INT]
    if not large:
        return batch, wide
    has_extra = batch.schema.get_field_index(EXTRA) >= 0
    texts = batch.column(EXTRA).to_pylist() if has_extra else [None] * batch.num_rows
    for i in large:
        texts[i] = add_to_extra(texts[i], name, array[i].as_py())
    columns = {n: batch.column(n) for n in batch.schema.names}
    columns[EXTRA] = pa.array(texts, pa.string())
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns)), wide


def add_to_extra(text: str | None, key: str, value: Any) -> str:
    """Return the `_extra` of a point with one key set."""
    values = json.loads(text) if text else {}
    values[key] = value
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


class _Spool:
    """Batches in memory up to a limit, then in a temporary file that disappears with the object."""

    def __init__(self) -> None:
        self._memory: list[pa.RecordBatch] = []
        self._bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: list[Path] = []
        self._names: dict[str, None] = {}

    def names(self) -> Sequence[str]:
        return list(self._names)

    def append(self, batch: pa.RecordBatch) -> None:
        self._names.update(dict.fromkeys(batch.schema.names))
        self._memory.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > SPOOL_AFTER_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vecdataset-spool-")
        for batch in self._memory:
            path = Path(self._folder.name) / f"{len(self._files):06}.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
            self._files.append(path)
        self._memory.clear()
        self._bytes = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for path in self._files:
            with pa.OSFile(str(path), "rb") as source:
                yield pa.ipc.open_file(source).get_batch(0)
        yield from self._memory

    def close(self) -> None:
        self._memory.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


Layout = Literal["flat", "qdrant"]
