"""Point ids: unsigned integers, UUIDs and strings, as they are given and as they are stored."""

from __future__ import annotations

import reprlib
import uuid
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidIdError
from vecdataset.schema import IdType

PointId = int | str | uuid.UUID

_UUID_PATTERN: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


@dataclass(frozen=True, slots=True)
class Id:
    """Names a stored point where a vector could stand: `search(Id(42))`."""

    value: PointId


def fit_ids(values: Any, id_type: IdType | None, *, where: str) -> tuple[pa.Array, IdType]:
    """Return ids as they are stored, and the id type that they decided or kept.

    Args:
        values: An Arrow or NumPy array, or a sequence of int, str and UUID.
        id_type: The collection's; None lets the values decide.
        where: Names the collection in errors.

    Raises:
        InvalidIdError: An id is missing, negative, or of another type than the collection's.
    """
    array = values if isinstance(values, pa.Array) else _id_array(values, where=where)
    if array.null_count:
        at = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidIdError(f"point {at} of the batch has no id; {where} needs one for each point")
    if pa.types.is_dictionary(array.type):
        array = decode_dictionary(array)
    if pa.types.is_integer(array.type):
        if len(array) and pa.types.is_signed_integer(array.type):
            smallest = pc.min(array).as_py()
            if smallest < 0:
                raise InvalidIdError(f"id {smallest} is negative; {where} takes ids from 0 to 2^64-1")
        return _integer_ids(array, id_type, where=where)
    if (
        pa.types.is_string(array.type)
        or pa.types.is_large_string(array.type)
        or array.type == pa.string_view()
    ):
        return _text_ids(array.cast(pa.string()), id_type, where=where)
    if (pa.types.is_fixed_size_binary(array.type) and array.type.byte_width == 16) or (
        getattr(array.type, "extension_name", "") == "arrow.uuid"
    ):
        texts = pa.array(
            [str(v if isinstance(v, uuid.UUID) else uuid.UUID(bytes=v)) for v in array.to_pylist()]
        )
        return _text_ids(texts, id_type, where=where)
    raise InvalidIdError(
        f"ids have type {array.type}; {where} takes {describe(id_type)}",
        hint="cast the column, or name another with id=…",
    )


def decode_dictionary(array: pa.DictionaryArray) -> pa.Array:
    """Return the values; Arrow by itself cannot look up string views, which polars' categoricals hold."""
    if array.type.value_type == pa.string_view():
        array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string()))
    return array.dictionary_decode()


def describe(id_type: IdType | None) -> str:
    """Return what ids of this type are, for messages."""
    return {
        None: "unsigned integers, UUIDs or strings",
        "uint64": "unsigned integers",
        "uuid": "UUIDs",
        "string": "strings",
        "mixed": "unsigned integers and UUIDs",
    }[id_type]


def _id_array(values: Any, *, where: str) -> pa.Array:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InvalidIdError(f"ids come as an array of shape {values.shape}; {where} needs one a point")
        if values.dtype.kind in "iuUS":
            return pa.array(values)
        values = values.tolist()
    out: list[Any] = []
    kinds = set(map(type, values))
    if kinds <= {int}:
        try:
            return pa.array(values, pa.uint64())
        except (OverflowError, pa.ArrowInvalid):
            bad = next(v for v in values if not 0 <= v < 1 << 64)
            raise InvalidIdError(f"id {bad} is out of range; ids go from 0 to 2^64-1") from None
    if kinds <= {str}:
        return pa.array(values, pa.string())
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | str | uuid.UUID | np.integer):
            raise InvalidIdError(
                f"id {reprlib.repr(value)} is of type {type(value).__name__}; "
                f"{where} takes integers, UUIDs or strings",
                hint="a dict is one point; for columns pass a frame, pa.table({…}), or (ids, vectors)"
                if isinstance(value, list | tuple | np.ndarray)
                else None,
            )
        if isinstance(value, int | np.integer) and not 0 <= value < 1 << 64:
            raise InvalidIdError(f"id {value} is out of range; ids go from 0 to 2^64-1")
        out.append(value)
    if all(isinstance(v, int | np.integer) for v in out):
        return pa.array([int(v) for v in out], pa.uint64())
    if any(isinstance(v, int | np.integer) for v in out):
        # Mixed: UUIDs must be UUIDs here, or 12 and "12" would be one point.
        for v in out:
            if isinstance(v, str):
                _canonical_uuid(v, where=where)
    return pa.array([str(v).lower() if isinstance(v, uuid.UUID) else str(v) for v in out], pa.string())


def _integer_ids(array: pa.Array, id_type: IdType | None, *, where: str) -> tuple[pa.Array, IdType]:
    if id_type in (None, "uint64"):
        return array.cast(pa.uint64()), "uint64"
    if id_type == "mixed":
        return array.cast(pa.string()), "mixed"
    first = array[0].as_py() if len(array) else "?"
    raise InvalidIdError(f"id {first} is an integer; {where} has {describe(id_type)} as ids")


def _text_ids(array: pa.Array, id_type: IdType | None, *, where: str) -> tuple[pa.Array, IdType]:
    if id_type == "uint64":
        first = array[0].as_py() if len(array) else "?"
        raise InvalidIdError(
            f"id {first!r} is a string; {where} has unsigned integers as ids",
            hint="create the collection with id_type='mixed' to hold integers and UUIDs",
        )
    if id_type == "string":
        _refuse_empty(array, where=where)
        return array, "string"
    if pc.all(pc.match_substring_regex(array, _UUID_PATTERN)).as_py() in (True, None):
        return array, id_type or "uuid"
    if id_type is None:
        digits = pc.match_substring_regex(array, "^[0-9]+$")
        try:
            fitted = pa.array([_canonical_uuid(v, where=where) for v in array.to_pylist()], pa.string())
        except InvalidIdError:
            _refuse_empty(array, where=where)
            others = array.filter(pc.invert(digits))
            if (
                len(others)
                and len(others) < len(array)
                and pc.all(pc.match_substring_regex(others, _UUID_PATTERN)).as_py()
            ):
                return array, "mixed"
            return array, "string"
        return fitted, "uuid"
    return (
        pa.array(
            [_canonical(v, mixed=id_type == "mixed", where=where) for v in array.to_pylist()], pa.string()
        ),
        id_type,
    )


def _refuse_empty(array: pa.Array, *, where: str) -> None:
    if pc.any(pc.equal(array, "")).as_py():
        raise InvalidIdError(f"an id is the empty string; {where} needs one for each point")


def _canonical_uuid(text: str, *, where: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidIdError(f"id {text!r} is not a UUID; {where} has UUIDs as ids") from None


def _canonical(text: str, *, mixed: bool, where: str) -> str:
    if mixed and text.isascii() and text.isdigit() and len(text) < 32:
        number = int(text)
        if number >= 1 << 64:
            raise InvalidIdError(f"id {text} is out of range; integer ids go from 0 to 2^64-1")
        return str(number)
    return _canonical_uuid(text, where=where)


def decode_ids(array: pa.Array | pa.ChunkedArray, id_type: IdType | None) -> list[int | str]:
    """Return stored ids as the Python values that users gave."""
    values = array.to_pylist()
    if id_type == "mixed":
        return [int(v) if v.isdigit() else v for v in values]
    return cast("list[int | str]", values)
