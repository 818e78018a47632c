"""Payload of stored points as JSON values: what the columns hold, and what `_extra` knows better."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError
from vecdataset.schema import EXTRA, CollectionSchema, PayloadColumn

__all__ = ["payload_values"]


def payload_values(
    batch: pa.RecordBatch, schema: CollectionSchema, ids: list[int | str]
) -> list[dict[str, Any]]:
    """Return the payload of each point as values that JSON has.

    Types that JSON does not have become text: times in ISO 8601, to the last nanosecond; decimals and
    durations in digits; bytes in base64.

    Raises:
        InvalidInputError: A payload holds NaN or infinity; the message names the point.
    """
    columns = {name: _column(batch.column(name), column, ids) for name, column in schema.payload.items()}
    out: list[dict[str, Any]] = []
    names = list(columns)
    rows: Iterator[tuple[Any, ...]] = zip(*columns.values(), strict=True)
    for row, extra in enumerate(batch.column(EXTRA).to_pylist()):
        payload = {n: v for n, v in zip(names, next(rows), strict=True) if v is not None} if names else {}
        if extra:
            try:
                payload.update(json.loads(extra))
            except RecursionError:
                raise InvalidInputError(
                    f"the payload of point {ids[row]!r} is nested too deeply to be read"
                ) from None
        out.append(payload)
    return out


def _column(values: pa.Array, column: PayloadColumn, ids: list[int | str]) -> list[Any]:
    _refuse_endless(values, column.name, ids)
    listed: list[Any] = _iso_times(values).to_pylist()
    if column.json_number:
        return [int(v) if v is not None and v.is_integer() else v for v in listed]
    return listed if _is_json(values.type) else [_plain(v) for v in listed]


def _refuse_endless(values: pa.Array, name: str, ids: list[int | str]) -> None:
    row: int | None = None
    if pa.types.is_floating(values.type):
        finite = pc.is_finite(values)
        if pc.all(finite).as_py() is False:  # None where all are null
            row = int(np.flatnonzero(~finite.fill_null(True).to_numpy(zero_copy_only=False))[0])
    elif _has_floats(values.type):
        row = next((i for i, v in enumerate(values.to_pylist()) if not _is_finite(v)), None)
    if row is not None:
        raise InvalidInputError(
            f"payload key {name!r} of point {ids[row]!r} holds NaN or infinity, which JSON does not have",
            hint="export to parquet or arrow",
        )


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _has_floats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind)) or any(_has_floats(f.type) for f in _children(kind))


def _is_json(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) or _is_list(kind):
        return all(_is_json(f.type) for f in _children(kind))
    return any(
        test(kind)
        for test in (
            pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string,
            pa.types.is_large_string,
        )
    )  # fmt: skip


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _children(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(i) for i in range(kind.num_fields)]


def _iso_times(values: pa.Array) -> pa.Array:
    """Return times as ISO text, to the last nanosecond, which Python's own times do not have."""
    if not pa.types.is_timestamp(values.type):
        return values
    if values.type.tz:
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    return pc.replace_substring(values.cast(pa.string()), " ", "T", max_replacements=1)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)
