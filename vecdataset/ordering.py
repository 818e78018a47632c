"""Points in the order of a payload value, whatever holds it: a column, an array, an object, `_extra`.

The rules are Qdrant's: a point without the value, or with null, is left out; a point with several values
stands once for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError, NotSupportedError
from vecdataset.filters.values import parse_instant
from vecdataset.keys import Key
from vecdataset.reader import Reader, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By which payload value, in which direction, and from where on."""

    key: str
    ascending: bool = True
    start_from: Any = None
    """The first value that comes; of its ties, all."""

    @classmethod
    def parse(cls, given: Any) -> Order:
        """Read a key, or `{"key": …, "direction": "asc" | "desc", "start_from": …}`.

        Raises:
            InvalidInputError: It is neither.
        """
        if isinstance(given, str):
            return cls(key=given)
        known = {"key", "direction", "start_from"}
        if not isinstance(given, Mapping) or set(given) - known or not isinstance(given.get("key"), str):
            raise InvalidInputError(
                f"order_by is {given!r}",
                hint="pass a payload key, or {'key': …, 'direction': 'asc' | 'desc', 'start_from': …}",
            )
        direction = given.get("direction") or "asc"
        if direction not in ("asc", "desc"):
            raise InvalidInputError(f"order_by direction is {direction!r}; it must be 'asc' or 'desc'")
        return cls(key=given["key"], ascending=direction == "asc", start_from=given.get("start_from"))


def ordered_rows(
    reader: Reader, order: Order, selection: Selection, *, skip: int = 0, limit: int, by_id: bool = False
) -> tuple[np.ndarray, int]:
    """Return row ids in the order of a payload value, and how many values there are.

    Args:
        reader: The version.
        order: By what.
        selection: Only these rows.
        skip: Leave out so many first.
        limit: At most so many.
        by_id: Whether points of one value come in the order of their ids, and not as they are stored.

    Raises:
        UnknownNameError: No point has the key.
        NotSupportedError: Its values are objects, or of several types.
        InvalidInputError: `start_from` is of another type.

    Reads the key of every selected row.
    """
    key = Key(reader, order.key)
    rows: list[np.ndarray] = []
    values: list[pa.Array | list[Any]] = []
    ids: list[pa.Array] = []
    names = [*key.columns, *(["id"] if by_id else [])]
    for batch in reader.stream(names, selection, row_ids=True):
        at, found = key.elements(batch)
        rows.append(batch.column("_rowid").to_numpy()[at])
        values.append(found)
        if by_id:
            ids.append(batch.column("id").take(pa.array(at)))
    all_rows = np.concatenate([np.zeros(0, np.uint64), *rows])
    if not len(all_rows):
        return all_rows, 0
    table = pa.table({"row": pa.array(all_rows, pa.uint64()), "value": _one_type(reader, key, values)})
    if by_id:
        table = table.append_column("id", pa.chunked_array(ids))
    table = table.filter(table["value"].is_valid())
    if order.start_from is not None:
        table = table.filter(_reached(table["value"], order))
    direction = "ascending" if order.ascending else "descending"
    ranked = table.sort_by([("value", direction), ("id" if by_id else "row", "ascending")])
    return ranked["row"].to_numpy()[skip : skip + limit], len(all_rows)


def _one_type(reader: Reader, key: Key, values: Sequence[pa.Array | list[Any]]) -> pa.ChunkedArray:
    """Return values as one Arrow column."""
    try:
        if key.plain:
            return pa.chunked_array(values, key.element_type)
        one = pa.chunked_array([pa.array([v for part in values for v in part])])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        one = None
    if one is None or pa.types.is_nested(one.type):
        raise NotSupportedError(
            f"payload key {key.text!r} of {reader.where} holds objects, or values of several types; "
            "it cannot order points"
        )
    return one


def _reached(values: pa.ChunkedArray, order: Order) -> pa.ChunkedArray:
    """Return which values are at `start_from` or behind it."""
    start = order.start_from
    try:
        if pa.types.is_temporal(values.type) and isinstance(start, str):
            moment = parse_instant(start)
            if moment is not None:
                start = pa.scalar(moment.ns, pa.timestamp("ns", "UTC")).cast(values.type, safe=False)
        return (pc.greater_equal if order.ascending else pc.less_equal)(values, pa.scalar(start))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise InvalidInputError(
            f"order_by starts from {order.start_from!r}; "
            f"the values of {order.key!r} are of type {values.type}"
        ) from None


__all__ = ["Order", "ordered_rows"]
