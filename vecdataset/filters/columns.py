"""Columns in Lance's SQL: literals of exactly a column's type, and comparisons with them.

A literal that the type cannot hold would be an error, or be rounded silently; here it is turned
into the nearest one that keeps the comparison exact (`int_column > 5.5` is `>= 6`).
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.filters.conditions import Range, TimeRange
from vecdataset.filters.expressions import CompareOp
from vecdataset.filters.logic import FALSE, Undecidable, both, either, negated, string
from vecdataset.filters.values import Instant, as_double, compare, is_number, parse_instant

_UNIT_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
_UNIT_NAMES: Final = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}
_DAY_NS: Final = 86_400 * 1_000_000_000


class Kind(enum.Enum):
    """What the values of a column compare with."""

    BOOL = enum.auto()
    INT = enum.auto()
    FLOAT = enum.auto()
    TEXT = enum.auto()
    TIME = enum.auto()
    DATE = enum.auto()
    LIST = enum.auto()
    OTHER = enum.auto()


def element(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of a list's elements; None if it is no list."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.value_type if is_list else None


def kind_of(kind: pa.DataType) -> Kind:
    """Return what values of an Arrow type compare with."""
    types = pa.types
    tests: list[tuple[Callable[[pa.DataType], bool], Kind]] = [
        (types.is_boolean, Kind.BOOL),
        (types.is_integer, Kind.INT),
        (types.is_floating, Kind.FLOAT),
        (types.is_string, Kind.TEXT),
        (types.is_large_string, Kind.TEXT),
        (types.is_timestamp, Kind.TIME),
        (types.is_date32, Kind.DATE),
        (lambda t: element(t) is not None, Kind.LIST),
    ]
    return next((k for test, k in tests if test(kind)), Kind.OTHER)


@dataclass(frozen=True, slots=True)
class Scalar:
    """An SQL expression of a known type."""

    sql: str
    type: pa.DataType
    json_number: bool = False
    span: tuple[int, int] | None = None
    """Between which its integers lie, where that is known."""

    @property
    def kind(self) -> Kind:
        """What it compares with."""
        return kind_of(self.type)

    @property
    def arrow_name(self) -> str:
        """The name of the type for `arrow_cast`."""
        if self.kind is Kind.TIME:
            zone = f'Some("{self.type.tz}")' if self.type.tz else "None"
            return f"Timestamp({_UNIT_NAMES[self.type.unit]}, {zone})"
        if self.kind is Kind.DATE:
            return "Date32"
        if self.kind is Kind.FLOAT:
            return f"Float{self.type.bit_width}"
        name = str(self.type)
        return name.capitalize() if name.startswith("int") else "UInt" + name.removeprefix("uint")

    def comparable(self, value: Any) -> bool:
        """Return whether a constant compares with this at all, and is not null instead."""
        match self.kind:
            case Kind.BOOL:
                return isinstance(value, bool)
            case Kind.INT | Kind.FLOAT:
                return is_number(value)
            case Kind.TEXT:
                if isinstance(value, Instant):
                    raise Undecidable  # each text would have to be read as a date
                return isinstance(value, str)
            case Kind.TIME | Kind.DATE:
                return self._instant(value) is not None
            case Kind.LIST:
                if isinstance(value, tuple):
                    raise Undecidable
                return False
        raise Undecidable

    @staticmethod
    def _instant(value: Any) -> Instant | None:
        found = parse_instant(value) if isinstance(value, str) else value
        return found if isinstance(found, Instant) else None

    # ------------------------------------------------------- whole numbers

    @property
    def domain(self) -> tuple[int, int]:
        """The least and the greatest stored value of a whole type."""
        if self.kind is Kind.DATE:
            return (-(1 << 31), (1 << 31) - 1)
        if self.kind is Kind.TIME:
            return (-(1 << 63), (1 << 63) - 1)
        bits = self.type.bit_width
        if pa.types.is_signed_integer(self.type):
            return (-(1 << bits - 1), (1 << bits - 1) - 1)
        return (0, (1 << bits) - 1)

    def value(self, stored: int) -> Any:
        """Return what a stored whole number means."""
        if self.kind is Kind.TIME:
            return Instant(stored * _UNIT_NS[self.type.unit])
        return Instant(stored * _DAY_NS) if self.kind is Kind.DATE else stored

    def _whole(self, stored: int) -> str:
        # Lance reads the least int64, written with digits, as a float.
        literal = str(stored) if stored > -(1 << 63) else f"arrow_cast('{stored}', 'Int64')"
        if self.kind in {Kind.TIME, Kind.DATE}:
            return f"arrow_cast({literal}, '{self.arrow_name}')"
        return literal

    def _stored(self, holds: Callable[[int], bool]) -> int:
        """Return the first stored value for which a monotone test holds; past the last if none."""
        low, high = self.domain
        high += 1
        while low < high:
            middle = (low + high) // 2
            if holds(middle):
                high = middle
            else:
                low = middle + 1
        return low

    def _between_whole(self, low: int, high: int) -> str:
        least, most = self.domain
        if low > high or low > most or high < least:
            return FALSE
        if low <= least and high >= most:
            return f"{self.sql} IS NOT NULL"
        if low == high:
            return f"{self.sql} = {self._whole(low)}"
        if low <= least:
            return f"{self.sql} <= {self._whole(high)}"
        if high >= most:
            return f"{self.sql} >= {self._whole(low)}"
        return f"{self.sql} >= {self._whole(low)} AND {self.sql} <= {self._whole(high)}"

    # -------------------------------------------------------------- floats

    def _rounded(self, bound: float) -> tuple[float, float]:
        """Return the values of the type just at or below, and at or above, a number."""
        return neighbours(bound, self.type.bit_width)

    @property
    def _least(self) -> str:
        """Negative infinity. Arrow sorts a NaN whose sign bit is set, as 0 / 0 makes it, before that."""
        return f"arrow_cast('-inf', '{self.arrow_name}')"

    def _above(self, bound: float, *, strictly: bool) -> str:
        down, up = self._rounded(bound)
        most = _largest(self.type.bit_width)
        if strictly:
            if down == math.inf:
                raise Undecidable
            return f"{self.sql} >= {-most!r}" if down == -math.inf else f"{self.sql} > {down + 0.0!r}"
        if up == -math.inf:
            raise Undecidable
        return f"{self.sql} > {most!r}" if up == math.inf else f"{self.sql} >= {_low_zero(up)!r}"

    def _below(self, bound: float, *, strictly: bool) -> str:
        down, up = self._rounded(bound)
        most = _largest(self.type.bit_width)
        if strictly:
            if up == -math.inf:
                raise Undecidable
            return f"{self.sql} <= {most!r}" if up == math.inf else f"{self.sql} < {_low_zero(up)!r}"
        if down == math.inf:
            raise Undecidable
        return f"{self.sql} < {-most!r}" if down == -math.inf else f"{self.sql} <= {down + 0.0!r}"

    def _within(self, bounds: Iterable[tuple[CompareOp, float]]) -> str:
        """Return the rows between bounds of which each is on one side."""
        above = [self._above(to, strictly=op == ">") for op, to in bounds if op in {">", ">="}]
        below = [self._below(to, strictly=op == "<") for op, to in bounds if op in {"<", "<="}]
        found = both(*above, *below)
        if self.json_number or (above and below):
            return found
        beyond = f"{self.sql} {'<' if above else '>='} {self._least}"
        return either(found, beyond) if above else both(found, beyond)

    # --------------------------------------------------------- comparisons

    def compared(self, op: CompareOp, to: Any) -> str:
        """Return the rows for which `self op to` is true, in SQL's logic."""
        if to is None or not self.comparable(to):
            return FALSE
        if op == "<>":
            if (literal := self.literal_equal(to)) is not None:
                return self.not_among([literal])
            return f"{self.sql} IS NOT NULL"
        if op == "=":
            literal = self.literal_equal(to)
            return FALSE if literal is None else self.among([literal])
        if self.kind is Kind.FLOAT:
            return self._within([(op, to)])
        if self.kind in {Kind.BOOL, Kind.TEXT}:
            return f"{self.sql} {op} {self._plain(to)}"
        to = to if self.kind is Kind.INT else self._instant(to)
        return self._between_whole(*self._ordered(op, lambda stored: compare(self.value(stored), to) or 0))

    def _ordered(self, op: CompareOp, order: Callable[[int], int]) -> tuple[int, int]:
        """Return the first and the last stored value that compare so."""
        least, most = self.domain
        match op:
            case ">=":
                return (self._stored(lambda x: order(x) >= 0), most)
            case ">":
                return (self._stored(lambda x: order(x) > 0), most)
            case "<=":
                return (least, self._stored(lambda x: order(x) > 0) - 1)
            case _:
                return (least, self._stored(lambda x: order(x) >= 0) - 1)

    def in_range(self, test: Range | TimeRange) -> str:
        """Return the rows within the bounds of a Qdrant range."""
        bounds: list[tuple[CompareOp, Any]] = [
            (">", test.gt), (">=", test.gte), ("<", test.lt), ("<=", test.lte),
        ]  # fmt: skip
        given = [(op, to) for op, to in bounds if to is not None]
        if not given:
            return f"{self.sql} IS NOT NULL"
        if self.kind is Kind.FLOAT:
            if test.gte is not None and test.gte == test.lte and len(given) == 2:
                return self.compared("=", test.gte)
            return self._within(given)
        # Qdrant compares integers as doubles, which rounds those beyond 2**53.
        order = _as_doubles if self.kind is Kind.INT else _as_instants
        low, high = self.domain
        for op, to in given:
            least, most = self._ordered(op, functools.partial(order, self, to))
            low, high = max(low, least), min(high, most)
        return self._between_whole(low, high)

    def against(self, other: Scalar, op: CompareOp) -> str:
        """Return the rows for which `self op other` is true; floats are for `numbers.py`."""
        a, b = self.kind, other.kind
        if Kind.OTHER in {a, b} or Kind.LIST in {a, b}:
            raise Undecidable
        if a is not b:
            if {a, b} <= {Kind.TEXT, Kind.TIME, Kind.DATE}:
                raise Undecidable
            return FALSE
        wide = pa.uint64() in {self.type, other.type} and self.type != other.type
        if wide or (a in {Kind.TIME, Kind.DATE} and self.type != other.type):
            raise Undecidable
        return f"{self.sql} {op} {other.sql}"

    # ------------------------------------------------------------ equality

    def _plain(self, value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else string(value)

    def literal_equal(self, value: Any) -> str | None:
        """Return the literal equal to a constant, by SQL's rules; None if no value of the type is."""
        if value is None or not self.comparable(value):
            return None
        if self.kind in {Kind.BOOL, Kind.TEXT}:
            return self._plain(value)
        if self.kind is Kind.FLOAT:
            down, up = self._rounded(value)
            if down != up:
                return None
            if not math.isfinite(down):
                raise Undecidable
            return repr(down + 0.0)
        stored = self._exactly(value)
        return None if stored is None else self._whole(stored)

    def _exactly(self, value: Any) -> int | None:
        """Return the stored whole number of this value, if there is one."""
        if self.kind is Kind.INT:
            stored, rest = (value, 0) if isinstance(value, int) else (value, value % 1)
        else:
            instant = self._instant(value)
            unit = _DAY_NS if self.kind is Kind.DATE else _UNIT_NS[self.type.unit]
            stored, rest = divmod(instant.ns if instant else 0, unit)
        least, most = self.domain
        # NaN and infinity leave a rest that is not zero.
        return int(stored) if rest == 0 and least <= stored <= most else None

    def literal_match(self, value: Any) -> str | None:
        """Return the literal equal to a constant, by the rules of Qdrant's `match`."""
        if not self.comparable(value):
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            if not -(1 << 63) <= value < 1 << 63:
                return None
            if self.kind is Kind.FLOAT and not self.json_number:
                return None
        return self.literal_equal(value)

    def among(self, literals: Sequence[str]) -> str:
        """Return the rows whose value is one of these literals."""
        zero = [x for x in literals if self._is_zero(x)]
        rest = list(dict.fromkeys(x for x in literals if x not in zero))
        parts = [f"{self.sql} >= -0.0 AND {self.sql} <= 0.0"] if zero else []
        if len(rest) == 1:
            parts.append(f"{self.sql} = {rest[0]}")
        elif rest:
            parts.append(f"{self.sql} IN ({', '.join(rest)})")
        return either(*parts)

    def not_among(self, literals: Sequence[str]) -> str:
        """Return the rows whose value is none of these literals, and not null."""
        among = self.among(literals)
        if among == FALSE:
            return f"{self.sql} IS NOT NULL"
        if len(literals) == 1 and not self._is_zero(literals[0]):
            return f"{self.sql} <> {literals[0]}"
        return negated(among)

    def _is_zero(self, literal: str) -> bool:
        return self.kind is Kind.FLOAT and literal == "0.0"


def _as_doubles(_: Scalar, to: float, stored: int) -> int:
    return compare(as_double(stored), to) or 0


def _as_instants(scalar: Scalar, to: Instant, stored: int) -> int:
    return compare(scalar.value(stored), to) or 0


def _low_zero(number: float) -> float:
    """Return -0.0 for a zero: Arrow may order it before 0.0."""
    return -0.0 if number == 0 else number


def _float_type(bits: int) -> Any:
    return {16: np.float16, 32: np.float32, 64: np.float64}[bits]


def _largest(bits: int) -> float:
    return float(np.finfo(_float_type(bits)).max)


def neighbours(bound: float, bits: int) -> tuple[float, float]:
    """Return the floats of so many bits just at or below, and at or above, a number."""
    kind = _float_type(bits)
    if math.isnan(as_double(bound)):
        raise Undecidable
    with np.errstate(over="ignore"):
        near = kind(as_double(bound))
    if (order := compare(float(near), bound)) == 0:
        return (float(near), float(near))
    # The rounded number lies on one side; its neighbour is on the other.
    with np.errstate(over="ignore"):
        other = np.nextafter(near, kind(-math.inf if order == 1 else math.inf))
    low, high = (other, near) if order == 1 else (near, other)
    return (float(low), float(high))
