"""One payload key of a version: where its values lie, and what they are, row by row.

A value may stand in a column of its own, inside an object, or in the JSON text of `_extra`, which
wins over the column. Facets, groups, orders and formulas read it here, so that all four see the
same values: those that Qdrant's filters see (`filters/tree.py`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.filters.qdrant import parse_path
from vecdataset.filters.tree import Path, values_at
from vecdataset.filters.values import Instant
from vecdataset.reader import Reader
from vecdataset.schema import EXTRA

_ABSENT: Final = object()
_SCALARS: Final = (
    pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
    pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary,
    pa.types.is_date, pa.types.is_timestamp,
)  # fmt: skip


class Key:
    """A payload key, or a JSON path into one (`a.b`, `a[].b`), of one version."""

    def __init__(self, reader: Reader, text: str, *, must_exist: bool = True) -> None:
        """Find the key.

        Args:
            reader: The version.
            text: The key, or a path.
            must_exist: Whether a key that no point ever had is a mistake.

        Raises:
            InvalidInputError: The text is no path.
            UnknownNameError: No point ever had the key.
        """
        self.text = text
        self.path = path_of(text, reader)
        top = self.path[0]
        assert isinstance(top, str)
        self.column = reader.schema.payload.get(top)
        """The column of the top-level key, if it has one."""
        self._top = top
        self._in_extra = top in reader.extra_keys
        if must_exist and reader.rows and self.column is None and not self._in_extra:
            raise UnknownNameError(
                f"{reader.where} has no payload key {top!r}",
                hint=did_you_mean(top, reader.keys, what="payload keys"),
            )

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [*([self._top] if self.column is not None else []), *([EXTRA] if self._in_extra else [])]

    @property
    def element_type(self) -> pa.DataType | None:
        """The Arrow type of one value, where a column alone decides it."""
        if self.column is None or len(self.path) > 1:
            return None
        kind = self.column.type
        return kind.value_type if _is_list(kind) else kind

    @property
    def plain(self) -> bool:
        """Whether one column holds all values, so that Arrow can work on them as they are."""
        kind = self.element_type
        return kind is not None and not self._in_extra and any(test(kind) for test in _SCALARS)

    @property
    def column_type(self) -> pa.DataType | None:
        """The Arrow type of the top-level key's column, if it has one."""
        return None if self.column is None else self.column.type

    def elements(self, batch: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, pa.Array | list[Any]]:
        """Return the values of a batch with the places of the rows that hold them.

        Elements of an array count one by one; a missing value not at all. Values are an Arrow array
        where the key is `plain`, and else the JSON values, None for null.
        """
        if self.plain:
            return _flat(_combined(batch, self._top))
        at: list[int] = []
        values: list[Any] = []
        for place, found in enumerate(self.rows(batch)):
            at += [place] * len(found)
            values += found
        return np.array(at, np.int64), values

    def rows(self, batch: pa.RecordBatch | pa.Table) -> list[list[Any]]:
        """Return the values under the path, row by row, as the JSON that was stored.

        An array is its elements, one level deep, unless the path ends with `[]` and says so itself.
        """
        tops = self._values(batch)
        if len(self.path) == 1:
            found = [[] if value is _ABSENT else [value] for value in tops]
        else:
            path = ("", *self.path[1:])
            found = [[] if value is _ABSENT else values_at({"": value}, path) for value in tops]
            found = [[_moment(value) for value in row] for row in found]
        if self.path[-1] is None:
            return found
        return [
            [item for value in row for item in (value if isinstance(value, list) else [value])]
            for row in found
        ]

    def _values(self, batch: pa.RecordBatch | pa.Table) -> list[Any]:
        if self.column is None:
            out: list[Any] = [_ABSENT] * batch.num_rows
        else:
            out = _combined(batch, self._top).to_pylist()
            integral = self.column.json_number
            for place, value in enumerate(out):
                if value is None:
                    out[place] = _ABSENT
                elif integral and value.is_integer():
                    out[place] = int(value)
        if self._in_extra:
            texts = _combined(batch, EXTRA)
            mentioned = pc.match_substring(texts, json.dumps(self._top, ensure_ascii=False) + ":")
            for place in np.flatnonzero(
                pc.fill_null(mentioned, False).to_numpy(zero_copy_only=False)
            ).tolist():
                kept = json.loads(texts[place].as_py())
                if self._top in kept:
                    out[place] = kept[self._top]
        return out


def path_of(text: str, reader: Reader) -> Path:
    """Return the steps of a path; a key that is none, such as `odd key`, stands for itself.

    Raises:
        InvalidInputError: It is neither.
    """
    if not isinstance(text, str) or not text:
        raise InvalidInputError(f"a payload key is {text!r}; it must be text")
    try:
        return parse_path(text)
    except ValueError:
        if text in reader.keys:
            return (text,)
        raise InvalidInputError(
            f"{text!r} is no path into a payload", hint='paths look like a.b, a[0], a[].b or "odd key".c'
        ) from None


def _moment(value: Any) -> Any:
    """Return an instant, which a path into a typed column gives, as the time that it was."""
    if not isinstance(value, Instant):
        return value
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value.ns // 1000)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _combined(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    column = batch.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _flat(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    at = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    # Without nulls first: under the null of a list there may be elements.
    array = array.drop_null() if array.null_count else array
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    if not _is_list(array.type):
        return at, array
    return at[pc.list_parent_indices(array).to_numpy(zero_copy_only=False)], pc.list_flatten(array)
