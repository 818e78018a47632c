"""Arguments of SQL calls: Arrow columns of any type, as the values that collections take."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, wraps
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError, InvalidVectorError, VecDatasetError
from vecdataset.query import MAX_LIMIT

P = ParamSpec("P")
R = TypeVar("R")
DEFAULT_LIMIT: Final = 10


def sql_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Let the errors of a SQL function carry their hint in the message: DuckDB drops notes."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except VecDatasetError as exc:
            if not exc.hint:
                raise
            raise type(exc)(f"{exc.message}\nhint: {exc.hint}") from None

    return guarded


def values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Return an argument's values, one a row; a constant is converted once.

    DuckDB hands decimals for `0.5`: they come back as floats.
    """
    count = len(column)
    if count == 0 or pa.types.is_null(column.type):
        return [None] * count
    if count > 1 and not pa.types.is_nested(column.type):
        distinct = pc.unique(column)
        if len(distinct) == 1:
            return [plain(distinct[0].as_py())] * count
    return [plain(v) for v in column.to_pylist()]


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, which costs nothing where it is one."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def plain(value: Any) -> Any:
    """Return a value with its decimals as floats."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def groups(rows: Iterable[int], keys: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Return the rows that share a key, by key."""
    out: dict[Hashable, list[int]] = {}
    for row in rows:
        out.setdefault(keys[row], []).append(row)
    return out


def frozen(value: Any) -> Hashable:
    """Return a value that can be a key of a dict, and that `thawed` turns back."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def limit_of(k: Any) -> int:
    """Return `k` checked; NULL is the default."""
    if k is None:
        return DEFAULT_LIMIT
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_LIMIT:
        raise InvalidInputError(f"k is {k!r}; it must be an integer from 1 to {MAX_LIMIT:,}")
    return k


@lru_cache(maxsize=256)
def filter_of(text: str | None) -> Any:
    """Return a filter argument, SQL text or JSON, as collections take it."""
    if text is None:
        return None
    if isinstance(text, str) and text.lstrip().startswith("{"):
        return json_of(text, what="filter")
    return text


def json_of(value: Any, *, what: str) -> Any:
    """Return an argument given as JSON text, or as a struct or list, as plain values."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as exc:
        raise InvalidInputError(f"{what} is not JSON: {exc}") from None


def params_of(value: Any) -> Mapping[str, Any] | None:
    """Return search parameters, given as JSON text or as a struct."""
    found = json_of(value, what="params")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise InvalidInputError(f"params is {value!r}; it must be JSON like '{{\"ef\": 128}}', or a struct")
    return {k: v for k, v in found.items() if v is not None}


def vector_rows(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the rows that hold a vector, and their vectors as float32 `[n, size]`.

    Returns:
        None where the column holds something else than lists of numbers of one length.

    Raises:
        InvalidVectorError: A component is NULL.
    """
    array = whole(column)
    kind = array.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    item = kind.value_type
    if not (pa.types.is_floating(item) or pa.types.is_integer(item) or pa.types.is_decimal(item)):
        return None
    if array.null_count:
        rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        present = array.drop_null()
    else:
        rows, present = np.arange(len(array)), array
    if not len(present):
        return rows, np.zeros((0, 0), np.float32)
    if len(present) > 1 and len(pc.unique(pc.list_value_length(present))) != 1:
        return None
    # flatten() asks the registry of functions, which a call with one vector would feel.
    flat = present[0].values if len(present) == 1 else present.flatten()
    if flat.null_count:
        raise InvalidVectorError("the query vector holds NULL")
    if pa.types.is_decimal(flat.type):
        flat = flat.cast(pa.float64())
    numbers = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return rows, numbers.reshape(len(present), -1)
