"""Arithmetic in Lance's SQL, where it gives what Python gives.

DataFusion wraps integers around at 64 bits and divides them without a fraction. So every integer
carries the span in which it lies; where a column could leave it, the row is guarded (SQL that must
be true for the result to be exact), and the few rows outside are left to Python. Doubles follow
IEEE 754 on both sides.
"""

from __future__ import annotations

import math
from typing import Any, Final

import pyarrow as pa

from vecdataset.filters.columns import Kind, Scalar
from vecdataset.filters.expressions import ArithmeticOp, CompareOp
from vecdataset.filters.logic import Undecidable

_I64: Final = (1 << 63) - 1
_EXACT: Final = 1 << 53
_GUARD: Final = 1 << 31
_GUARD_JSON: Final = 1 << 26  # two of these multiply to an exact double

Guards = list[str]


def constant(value: Any) -> Scalar:
    """Return a number as an operand."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Undecidable
    if isinstance(value, int):
        if not -_I64 <= value <= _I64:
            raise Undecidable
        return Scalar(f"({value})" if value < 0 else str(value), pa.int64(), span=(value, value))
    if not math.isfinite(value):
        raise Undecidable
    return Scalar(f"({value!r})", pa.float64())


def operand(scalar: Scalar, guards: Guards) -> Scalar:
    """Return a column or function as an operand: an int64 of known span, or a double."""
    if scalar.kind is Kind.INT:
        if scalar.span is not None:
            return scalar
        if scalar.type.bit_width < 64:
            bits = scalar.type.bit_width
            low, high = (
                (0, 1 << bits)
                if pa.types.is_unsigned_integer(scalar.type)
                else (-(1 << bits - 1), 1 << bits - 1)
            )
            return Scalar(f"arrow_cast({scalar.sql}, 'Int64')", pa.int64(), span=(low, high - 1))
        if scalar.type == pa.uint64():
            raise Undecidable
        guards.append(_inside(scalar.sql, str(_GUARD)))
        return Scalar(scalar.sql, pa.int64(), span=(-_GUARD, _GUARD))
    if scalar.kind is not Kind.FLOAT:
        raise Undecidable
    if scalar.json_number and scalar.span is None:
        guards.append(_inside(scalar.sql, f"{_GUARD_JSON}.0"))
        return Scalar(scalar.sql, pa.float64(), json_number=True, span=(-_GUARD_JSON, _GUARD_JSON))
    return Scalar(_double(scalar), pa.float64(), json_number=scalar.json_number, span=scalar.span)


def _inside(sql: str, most: str) -> str:
    return f"({sql} IS NULL OR ({sql} >= -{most} AND {sql} <= {most}))"


def _double(scalar: Scalar) -> str:
    if scalar.type == pa.float64():
        return scalar.sql
    if scalar.kind is Kind.INT and (scalar.span is None or max(map(abs, scalar.span)) > _EXACT):
        raise Undecidable
    return f"arrow_cast({scalar.sql}, 'Float64')"


def combined(op: ArithmeticOp, a: Scalar, b: Scalar) -> Scalar:
    """Return the calculation of two operands."""
    if op == "/":
        return Scalar(f"({_double(a)} / {_double(b)})", pa.float64())
    if op == "%":
        return _remainder(a, b)
    span = None
    if a.span is not None and b.span is not None:
        corners = [_calculated(op, x, y) for x in a.span for y in b.span]
        span = (min(corners), max(corners))
    whole = a.kind is Kind.INT and b.kind is Kind.INT
    if span is not None and max(map(abs, span)) > (_I64 if whole else _EXACT):
        raise Undecidable
    if whole:
        return Scalar(f"({a.sql} {op} {b.sql})", pa.int64(), span=span)
    return Scalar(f"({_double(a)} {op} {_double(b)})", pa.float64(), span=span)


def _calculated(op: ArithmeticOp, x: int, y: int) -> int:
    return x + y if op == "+" else x - y if op == "-" else x * y


def _remainder(a: Scalar, b: Scalar) -> Scalar:
    # By a column, the divisor could be zero, which is an error for Lance; and by -1, the least integer.
    if b.span is None or b.span[0] != b.span[1] or b.span[0] in {0, -1}:
        raise Undecidable
    most = abs(b.span[0]) - 1
    whole = a.kind is Kind.INT
    left, right = (a.sql, b.sql) if whole else (_double(a), _double(b))
    span = None if a.span is None else (-most, most)
    return Scalar(f"({left} % {right})", pa.int64() if whole else pa.float64(), span=span)


def opposite(a: Scalar) -> Scalar:
    """Return the negative of an operand."""
    span = None if a.span is None else (-a.span[1], -a.span[0])
    if a.kind is Kind.INT:
        return Scalar(f"(0 - {a.sql})", pa.int64(), span=span)
    return Scalar(f"(-1.0 * {_double(a)})", pa.float64(), span=span)


def absolute(a: Scalar, guards: Guards) -> Scalar:
    """Return the distance from zero; Lance fails on that of the least integer, so integers go by doubles."""
    if a.kind is Kind.FLOAT:
        return Scalar(f"abs({a.sql})", a.type, json_number=a.json_number)
    if a.kind is not Kind.INT or a.type == pa.uint64():
        raise Undecidable
    if a.type == pa.int64() and a.span is None:
        guards.append(_inside(a.sql, str(_EXACT)))
        return Scalar(
            f"abs(arrow_cast({a.sql}, 'Float64'))", pa.float64(), json_number=True, span=(0, _EXACT)
        )
    inner = operand(a, guards)
    if inner.span is None or max(map(abs, inner.span)) > _EXACT:
        raise Undecidable
    most = max(map(abs, inner.span))
    return Scalar(f"abs({_double(inner)})", pa.float64(), json_number=True, span=(0, most))


def compared(op: CompareOp, a: Scalar, b: Scalar, guards: Guards) -> str:
    """Return the rows where one number is `op` the other, of which at least one is a double."""
    sides = []
    for side in (a, b):
        sql = side.sql
        if side.kind is Kind.INT and side.span is None:
            if side.type == pa.uint64():
                guards.append(f"({sql} IS NULL OR {sql} <= {_EXACT})")
            elif side.type == pa.int64():
                guards.append(_inside(sql, str(_EXACT)))
        elif side.kind is Kind.INT:
            _double(side)
        elif not side.json_number:
            guards.append(f"(isnan({sql})) IS NOT TRUE")
        cast = sql if side.type == pa.float64() else f"arrow_cast({sql}, 'Float64')"
        # Between columns, Arrow tells -0.0 from 0.0; adding zero makes them one.
        sides.append(f"({cast} + 0.0)")
    return f"{sides[0]} {op} {sides[1]}"
