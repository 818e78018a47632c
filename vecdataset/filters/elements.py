"""Values of one Arrow type as NumPy arrays, and the tests of filters on all of them at once.

`Elements` are the values of a column, or those that its lists hold, side by side. What it cannot
say raises `NotColumnar`, and the caller asks the reference meaning row by row. Texts are coded: a
test is made once for each distinct text, and looked up for each row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.filters.columns import Kind, kind_of
from vecdataset.filters.conditions import (
    MatchAny,
    MatchExcept,
    MatchText,
    MatchValue,
    Range,
    Test,
    TimeRange,
)
from vecdataset.filters.expressions import CompareOp
from vecdataset.filters.geo import GeoBox, GeoPolygon, GeoRadius
from vecdataset.filters.values import Instant, is_number, parse_instant
from vecdataset.filters.words import words

_UNIT_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
_DAY_NS: Final = 86_400 * 1_000_000_000
_KEPT_TABLES: Final = 32


class NotColumnar(Exception):  # noqa: N818  not an error: caught one level up
    """The arrays cannot say this."""


class Elements:
    """Values of one type; a null passes no test."""

    def __init__(self, array: pa.Array, *, json_number: bool = False) -> None:
        """Look at an Arrow array; numbers and times without a copy.

        Args:
            array: The values.
            json_number: Whether integral values of a float64 array are JSON ints.

        Raises:
            NotColumnar: The type has no form in NumPy that compares as its values do.
        """
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        self.kind = kind_of(array.type)
        if self.kind in {Kind.LIST, Kind.OTHER}:
            raise NotColumnar
        self.length = len(array)
        self.valid: np.ndarray | None = (
            array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        )
        self.json_number = json_number
        self._type = array.type
        self._texts: pa.Array | None = None
        self._tables: dict[Any, np.ndarray] = {}
        if self.kind is Kind.TEXT:
            coded = array.dictionary_encode()
            self._texts = coded.dictionary
            codes = _buffer(coded.indices, np.dtype(np.int32))
            # Narrow codes are compared several times as fast.
            width = np.min_scalar_type(max(0, len(coded.dictionary) - 1))
            self.data = codes.astype(width)
        elif self.kind is Kind.BOOL:
            # As numbers, which False and True are ordered like.
            self.data = pc.fill_null(array, False).to_numpy(zero_copy_only=False).view(np.uint8)
        else:
            data = _buffer(array, _numpy_type(array.type))
            self.data = data.astype(np.float64, copy=False) if self.kind is Kind.FLOAT else data

    @property
    def nbytes(self) -> int:
        """Bytes that are held beyond the Arrow array, about."""
        own = self.data.nbytes if self.kind in {Kind.TEXT, Kind.BOOL} else 0
        own += self.length if self.valid is not None else 0
        return own + sum(t.nbytes for t in list(self._tables.values()))

    # ------------------------------------------------------------------- tests

    def passes(self, test: Test, need: np.ndarray | None = None) -> np.ndarray:
        """Return which values pass a test of Qdrant's.

        Args:
            test: A test of single values.
            need: Which values matter; of the others, anything may be said.
        """
        match test:
            case MatchValue(to):
                found = self._matches(to)
            case MatchAny(values):
                found = self._among(values)
            case MatchExcept(values):
                found = ~self._among(values)
            case Range():
                found = self._between(test) if self.kind in {Kind.INT, Kind.FLOAT} else self.none
            case TimeRange() if self.kind is Kind.TEXT:
                found = self._of_texts(test, test.check, need)
            case TimeRange():
                found = self._between(test) if self.kind in {Kind.TIME, Kind.DATE} else self.none
            case MatchText():
                found = self._words(test, need) if self.kind is Kind.TEXT else self.none
            case GeoRadius() | GeoBox() | GeoPolygon():
                found = self.none  # a place is an object
            case _:
                raise NotColumnar
        return self.present(found)

    def compared(self, op: CompareOp, to: Any) -> np.ndarray | None:
        """Return for which values `value op to` holds, in SQL's logic; None where it is null for all."""
        if isinstance(to, tuple):
            return None  # a list
        match self.kind:
            case Kind.BOOL:
                found = _whole(self.data, op, int(to), int(to)) if isinstance(to, bool) else None
            case Kind.INT | Kind.FLOAT:
                found = self._number(op, to) if is_number(to) else None
            case Kind.TEXT if isinstance(to, Instant):
                raise NotColumnar
            case Kind.TEXT:
                found = self._text(op, to) if isinstance(to, str) else None
            case _:
                moment = parse_instant(to) if isinstance(to, str) else to
                found = self._moment(op, moment) if isinstance(moment, Instant) else None
        return None if found is None else self.present(found)

    def by_text(self, key: Any, check: Callable[[str], Any], need: np.ndarray | None) -> np.ndarray:
        """Return which texts pass a check, made once for each distinct one.

        Raises:
            NotColumnar: These are no texts.
        """
        if self.kind is not Kind.TEXT:
            raise NotColumnar
        return self.present(self._of_texts(key, check, need))

    def like(self, pattern: str) -> np.ndarray:
        """Return which texts match an SQL pattern."""
        # Arrow's patterns escape with a backslash, DuckDB's with nothing.
        return self.present(self._at_texts(pc.match_like(self.texts, pattern.replace("\\", "\\\\"))))

    @property
    def none(self) -> np.ndarray:
        """No value."""
        return np.zeros(self.length, bool)

    def present(self, found: np.ndarray) -> np.ndarray:
        """Return `found` without the nulls."""
        return found if self.valid is None else found & self.valid

    # ---------------------------------------------------------------- equality

    def _matches(self, to: Any) -> np.ndarray:
        if isinstance(to, bool) or self.kind is Kind.BOOL:
            same = self.kind is Kind.BOOL and isinstance(to, bool)
            return _whole(self.data, "=", int(to), int(to)) if same else self.none
        if self.kind is Kind.TEXT and isinstance(to, Instant):
            return self._of_texts(("=", to), MatchValue(to).check, None)
        if isinstance(to, int) and self.kind in {Kind.INT, Kind.FLOAT}:
            return self._number("=", to) if self._is_match_int(to) else self.none
        found = self.compared("=", to)
        return self.none if found is None else found

    def _is_match_int(self, to: int) -> bool:
        # A float is no int for Qdrant, unless it stands for one.
        return -(1 << 63) <= to < 1 << 63 and (self.kind is Kind.INT or self.json_number)

    def _among(self, values: Iterable[Any]) -> np.ndarray:
        match self.kind:
            case Kind.TEXT:
                codes = [c for v in values if isinstance(v, str) and (c := self._code(v)) >= 0]
                return self._at_codes(codes)
            case Kind.INT | Kind.FLOAT:
                return self.equal_any(
                    [v for v in values if type(v) is int and self._is_match_int(v)],
                )
            case Kind.TIME | Kind.DATE:
                return self._any(f for v in values if (f := self.compared("=", v)) is not None)
        return self.none

    def equal_any(self, numbers: Sequence[float]) -> np.ndarray:
        """Return which numbers equal one of these; nulls may be among them."""
        if len(numbers) < 8:
            return self._any(self._number("=", v) for v in numbers)
        if self.kind is Kind.FLOAT:
            exact = [f for v in numbers if (f := _as_exact_double(v)) is not None]
            return np.isin(self.data, np.array(exact, np.float64))
        least, most = _span(self.data)
        whole = [int(v) for v in numbers if v % 1 == 0 and least <= v <= most]
        return np.isin(self.data, np.array(whole, self.data.dtype))

    def _any(self, masks: Iterable[np.ndarray]) -> np.ndarray:
        out: np.ndarray | None = None
        for mask in masks:
            out = mask if out is None else np.logical_or(out, mask, out=out)
        return self.none if out is None else out

    # ------------------------------------------------------------------ orders

    def _number(self, op: CompareOp, to: float) -> np.ndarray:
        if self.kind is Kind.FLOAT:
            return _double(self.data, op, to)
        if math.isfinite(to):
            return _whole(self.data, op, math.floor(to), math.ceil(to))
        far = 1 << 64 if to != -math.inf else -(1 << 64)  # NaN is larger than any number
        return _whole(self.data, op, far, far)

    @cached_property
    def _doubles(self) -> np.ndarray:
        # Qdrant compares integers as doubles, which rounds those beyond 2**53.
        return self.data if self.kind is Kind.FLOAT else self.data.astype(np.float64)

    def _moment(self, op: CompareOp, to: Instant) -> np.ndarray:
        unit = _DAY_NS if self.kind is Kind.DATE else _UNIT_NS[self._type.unit]
        return _whole(self.data, op, to.ns // unit, -(-to.ns // unit))

    def _between(self, test: Range | TimeRange) -> np.ndarray:
        bounds: list[tuple[CompareOp, Any]] = [
            (">", test.gt), (">=", test.gte), ("<", test.lt), ("<=", test.lte),
        ]  # fmt: skip
        out: np.ndarray | None = None
        for op, to in bounds:
            if to is None:
                continue
            one = self._moment(op, to) if isinstance(to, Instant) else _double(self._doubles, op, to)
            out = one if out is None else np.logical_and(out, one, out=out)
        return np.ones(self.length, bool) if out is None else out

    # ------------------------------------------------------------------- texts

    @property
    def texts(self) -> pa.Array:
        """The distinct texts."""
        assert self._texts is not None
        return self._texts

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {text: code for code, text in enumerate(self.texts.to_pylist())}

    def _code(self, text: str) -> int:
        return self._codes.get(text, -1)

    def _at_codes(self, codes: list[int]) -> np.ndarray:
        if not codes:
            return self.none
        if len(codes) <= 4:
            return self._any(self.data == code for code in codes)
        table = np.zeros(len(self.texts), bool)
        table[codes] = True
        return self._at_table(table)

    def _at_table(self, table: np.ndarray) -> np.ndarray:
        if not len(table):
            return self.none
        codes = self.data if self.valid is None else np.where(self.valid, self.data, 0)
        found: np.ndarray = table[codes]
        return found

    def _at_texts(self, found: pa.BooleanArray) -> np.ndarray:
        return self._at_table(found.to_numpy(zero_copy_only=False))

    def _text(self, op: CompareOp, to: str) -> np.ndarray:
        if op in {"=", "<>"}:
            same = self._at_codes([c for c in [self._code(to)] if c >= 0])
            return same if op == "=" else ~same
        # UTF-8 sorts by bytes as by code points, which is how Python sorts.
        return self._at_texts(_TEXT_ORDERS[op](self.texts, to))

    def _words(self, test: MatchText, need: np.ndarray | None) -> np.ndarray:
        if test.kind == "prefix":
            return self._at_texts(pc.starts_with(self.texts, test.text))
        if test.kind == "substring":
            return self._at_texts(pc.match_substring(self.texts, test.text))
        known = self._tables.get(test)
        if known is not None:
            return self._at_table(known)
        # Only ASCII is sure to be lower-cased alike; such words narrow the texts down.
        wanted = [w for w in dict.fromkeys(words(test.text)) if w.isascii()]
        possible = None
        if test.kind != "text_any":
            lowered = pc.utf8_lower(self.texts) if wanted else None
            for word in wanted:
                holds = pc.match_substring(lowered, word)
                possible = holds if possible is None else pc.and_(possible, holds)
        narrowed = None if possible is None else possible.to_numpy(zero_copy_only=False)
        return self._of_texts(test, test.check, need, narrowed)

    def _of_texts(
        self,
        key: Any,
        check: Callable[[str], Any],
        need: np.ndarray | None,
        possible: np.ndarray | None = None,
    ) -> np.ndarray:
        table = self._tables.get(key)
        if table is None:
            table = np.zeros(len(self.texts), bool)
            if need is not None:
                used = np.zeros(len(self.texts), bool)
                used[self.data[need if self.valid is None else need & self.valid]] = True
                possible = used if possible is None else possible & used
            at = range(len(table)) if possible is None else np.flatnonzero(possible).tolist()
            texts = self.texts if possible is None else self.texts.filter(pa.array(possible))
            for place, text in zip(at, texts.to_pylist(), strict=True):
                table[place] = check(text) is True
            if need is None:
                if len(self._tables) >= _KEPT_TABLES:
                    self._tables.clear()
                self._tables[key] = table
        return self._at_table(table)


_TEXT_ORDERS: Final[dict[str, Callable[[pa.Array, str], pa.BooleanArray]]] = {
    "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip


def _numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    if pa.types.is_timestamp(kind):
        return np.dtype(np.int64)
    return np.dtype(np.int32) if pa.types.is_date32(kind) else np.dtype(kind.to_pandas_dtype())


def _buffer(array: pa.Array, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the values of an array of numbers as they lie in memory; under a null stands anything."""
    if not len(array):
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _as_exact_double(value: float) -> float | None:
    try:
        near = float(value)
    except OverflowError:
        return None
    return near if near == value else None


def _whole(data: np.ndarray, op: CompareOp, floor: int, ceiling: int) -> np.ndarray:
    """Compare whole numbers with a bound that lies between two of them, or is one."""
    match op:
        case "<":
            return _below(data, ceiling)
        case "<=":
            return _below(data, floor + 1)
        case ">":
            return ~_below(data, floor + 1)
        case ">=":
            return ~_below(data, ceiling)
    least, most = _span(data)
    inside = floor == ceiling and least <= floor <= most
    if not inside:
        return np.full(len(data), op == "<>")
    equal: np.ndarray = data == floor if op == "=" else data != floor
    return equal


def _below(data: np.ndarray, bound: int) -> np.ndarray:
    least, most = _span(data)
    if bound <= least or bound > most:
        return np.full(len(data), bound > most)
    below: np.ndarray = data < bound
    return below


def _span(data: np.ndarray) -> tuple[int, int]:
    info = np.iinfo(data.dtype)
    return int(info.min), int(info.max)


def _double(data: np.ndarray, op: CompareOp, to: float) -> np.ndarray:
    """Compare doubles with a number exactly; NaN is equal to itself and larger than any number."""
    found: np.ndarray
    if to != to:  # noqa: PLR0124  only NaN differs from itself
        found = np.isnan(data)
        if op in {"<", "<>"}:
            return ~found
        return np.full(len(data), op == "<=") if op in {"<=", ">"} else found
    try:
        near = float(to)
    except OverflowError:
        near = math.inf if to > 0 else -math.inf
    if near != to:  # an int that no double is: it lies between `near` and the next one
        if op in {"=", "<>"}:
            return np.full(len(data), op == "<>")
        op = ("<=" if op in {"<", "<="} else ">") if near < to else ("<" if op in {"<", "<="} else ">=")
    match op:
        case "<":
            found = data < near
        case "<=":
            found = data <= near
        case ">":
            found = ~(data <= near)  # true for NaN
        case ">=":
            found = ~(data < near)
        case "=":
            found = data == near
        case _:
            found = data != near
    return found
