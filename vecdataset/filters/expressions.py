"""Expressions: the leaves of SQL text, in SQL's three-valued logic.

A missing key is null, and so is whatever compares or calculates with null or with a value of
another kind. Where DuckDB would raise for a row (a text compared with a number, a division
that overflows), the expression is null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

from vecdataset.filters.tree import Node, Row, values_at, walk
from vecdataset.filters.values import compare, is_number, json_value, same_list


class Expression(Node):
    """A node of SQL text."""

    __slots__ = ()


def has_sql(node: Node) -> bool:
    """Return whether any part of a tree is SQL text, and so may be null."""
    return any(isinstance(n, Expression) for n in walk(node))


@dataclass(frozen=True, slots=True)
class Constant(Expression):
    """A constant: None, bool, int, float, str, `Instant`, or a tuple of constants for a list."""

    to: Any

    def value(self, row: Row) -> Any:  # noqa: ARG002  a constant looks at no row
        """Return it."""
        return list(self.to) if isinstance(self.to, tuple) else self.to


@dataclass(frozen=True, slots=True)
class Column(Expression):
    """The payload value under a key, or inside its object; a missing one is null."""

    path: tuple[str, ...]

    def value(self, row: Row) -> Any:
        """Return it."""
        found = values_at(row.payload, self.path)
        return found[0] if found else None

    @property
    def key(self) -> str:
        """The first step of the path."""
        return self.path[0]


@dataclass(frozen=True, slots=True)
class PointId(Expression):
    """The point's id."""

    def value(self, row: Row) -> Any:
        """Return it."""
        return row.id


CompareOp = Literal["=", "<>", "<", "<=", ">", ">="]
_HOLDS: Final[Mapping[str, frozenset[int]]] = {
    "=": frozenset({0}),
    "<>": frozenset({-1, 1}),
    "<": frozenset({-1}),
    "<=": frozenset({-1, 0}),
    ">": frozenset({1}),
    ">=": frozenset({0, 1}),
}


@dataclass(frozen=True, slots=True)
class Compare(Expression):
    """A comparison; null unless both sides are of one kind."""

    op: CompareOp
    left: Node
    right: Node

    def value(self, row: Row) -> bool | None:
        """Compare the two."""
        return compared(self.op, self.left.value(row), self.right.value(row))


def compared(op: CompareOp, a: Any, b: Any) -> bool | None:
    """Return `a op b` in three-valued logic; lists know only `=` and `<>`."""
    if isinstance(a, list) and isinstance(b, list) and op in {"=", "<>"}:
        same = same_list(a, b)
        return None if same is None else same is (op == "=")
    order = compare(a, b)
    return None if order is None else order in _HOLDS[op]


@dataclass(frozen=True, slots=True)
class In(Expression):
    """Equal to one of the items."""

    left: Node
    items: tuple[Node, ...]
    _members: frozenset[Any] | None = field(init=False, repr=False, compare=False)
    """The texts and numbers, where there is nothing else but null: such lists may be long."""

    def __post_init__(self) -> None:
        values = [i.to if isinstance(i, Constant) else i for i in self.items]
        plain = all(v is None or isinstance(v, str) or (is_number(v) and v == v) for v in values)  # noqa: PLR0124  not NaN
        object.__setattr__(self, "_members", frozenset(values) if plain else None)

    def value(self, row: Row) -> bool | None:
        """True if one is equal, else null if a comparison was null."""
        left = self.left.value(row)
        if self._members is not None and (isinstance(left, str) or is_number(left)) and left in self._members:
            return True
        out: bool | None = False
        for item in self.items:
            same = compared("=", left, item.value(row))
            if same:
                return True
            if same is None:
                out = None
        return out


@dataclass(frozen=True, slots=True)
class Like(Expression):
    """A text against a pattern: `%` is any text, `_` any character."""

    left: Node
    pattern: Node
    ignore_case: bool = False

    def value(self, row: Row) -> bool | None:
        """Null unless both are texts."""
        text, pattern = self.left.value(row), self.pattern.value(row)
        if not isinstance(text, str) or not isinstance(pattern, str):
            return None
        if self.ignore_case:
            text, pattern = text.lower(), pattern.lower()
        return like_pattern(pattern).fullmatch(text) is not None


@cache
def like_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a `LIKE` pattern."""
    wild = {"%": ".*", "_": "."}
    return re.compile("".join(wild.get(c) or re.escape(c) for c in pattern), re.DOTALL)


@dataclass(frozen=True, slots=True)
class IsNullExpr(Expression):
    """`x IS NULL`: never null itself."""

    item: Node

    def value(self, row: Row) -> bool:
        """Missing counts as null."""
        return self.item.value(row) is None


@dataclass(frozen=True, slots=True)
class IsBool(Expression):
    """`x IS TRUE` or `x IS FALSE`: never null itself."""

    item: Node
    to: bool

    def value(self, row: Row) -> bool:
        """Anything that is no boolean is neither."""
        return self.item.value(row) is self.to


ArithmeticOp = Literal["+", "-", "*", "/", "%"]


@dataclass(frozen=True, slots=True)
class Arithmetic(Expression):
    """A calculation; integers are exact, `/` is always a double, `%` by zero is null."""

    op: ArithmeticOp
    left: Node
    right: Node

    def value(self, row: Row) -> float | None:
        """Null unless both are numbers."""
        a, b = self.left.value(row), self.right.value(row)
        if not is_number(a) or not is_number(b):
            return None
        try:
            return _calculate(self.op, a, b)
        except OverflowError:
            return None


def _calculate(op: ArithmeticOp, a: float, b: float) -> float | None:
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    if op == "/":
        if b == 0:
            a = float(a)
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
        return a / b
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return (abs(a) % abs(b)) * (-1 if a < 0 else 1)
    return math.fmod(a, b) if math.isfinite(a) else math.nan


@dataclass(frozen=True, slots=True)
class Negative(Expression):
    """A number's opposite."""

    item: Node

    def value(self, row: Row) -> float | None:
        """Null unless it is a number."""
        v = self.item.value(row)
        return -v if is_number(v) else None


@dataclass(frozen=True, slots=True)
class Call(Expression):
    """A function of the published list."""

    name: str
    args: tuple[Node, ...]

    def value(self, row: Row) -> Any:
        """Null when an argument is null or of another type."""
        if self.name == "coalesce":
            return next((v for v in (a.value(row) for a in self.args) if v is not None), None)
        args = [a.value(row) for a in self.args]
        return None if any(a is None for a in args) else FUNCTIONS[self.name].call(*args)


def _text(function: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x) if isinstance(x, str) else None


def _texts(function: Callable[[str, str], bool]) -> Callable[[Any, Any], bool | None]:
    return lambda x, y: function(x, y) if isinstance(x, str) and isinstance(y, str) else None


def _length(x: Any) -> int | None:
    return len(x) if isinstance(x, str | list) else None


def _abs(x: Any) -> float | None:
    return abs(x) if is_number(x) else None


def _list_contains(items: Any, x: Any) -> bool | None:
    return any(compared("=", json_value(i), x) for i in items) if isinstance(items, list) else None


def _contains(x: Any, y: Any) -> bool | None:
    return _list_contains(x, y) if isinstance(x, list) else _texts(lambda a, b: b in a)(x, y)


def _list_has(quantifier: Callable[[Iterable[bool]], bool]) -> Callable[[Any, Any], bool | None]:
    def call(items: Any, wanted: Any) -> bool | None:
        if not isinstance(items, list) or not isinstance(wanted, list):
            return None
        return quantifier(bool(_list_contains(items, w)) for w in map(json_value, wanted) if w is not None)

    return call


@dataclass(frozen=True, slots=True)
class Function:
    """One function of SQL text."""

    arguments: Sequence[str]
    """Names, for messages; `...` at the end for any number more."""
    call: Callable[..., Any]


FUNCTIONS: Final[Mapping[str, Function]] = {
    "lower": Function(["text"], _text(str.lower)),
    "upper": Function(["text"], _text(str.upper)),
    "length": Function(["text_or_list"], _length),
    "abs": Function(["number"], _abs),
    "contains": Function(["text_or_list", "part"], _contains),
    "starts_with": Function(["text", "start"], _texts(str.startswith)),
    "ends_with": Function(["text", "end"], _texts(str.endswith)),
    "list_contains": Function(["list", "value"], _list_contains),
    "list_has_any": Function(["list", "list"], _list_has(any)),
    "list_has_all": Function(["list", "list"], _list_has(all)),
    "coalesce": Function(["value", "..."], lambda *_: None),
}

ALIASES: Final[Mapping[str, str]] = {
    "len": "length",
    "array_contains": "list_contains",
    "list_has": "list_contains",
    "array_has": "list_contains",
    "array_has_any": "list_has_any",
    "array_has_all": "list_has_all",
    "suffix": "ends_with",
    "prefix": "starts_with",
}
