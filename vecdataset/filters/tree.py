"""The syntax tree of filters, and what each node means for one point.

Two families of leaves stand under the same `And`, `Or`, `Not` and `AtLeast`:

- conditions (`Field`, `HasId`, …) come from Qdrant's JSON and from `{key: value}`: they look
  into arrays, keep integers apart from floats, and are always true or false;
- expressions (`Column`, `Compare`, `Call`, …) come from SQL text: numbers are numbers, and
  null, a missing key or a mismatch of types makes them null.

`Node.value` is the reference meaning; the compiler in `lance.py` is tested against it.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final, Literal

from vecdataset.filters.geo import GeoBox, GeoPolygon, GeoRadius
from vecdataset.filters.values import (
    Instant,
    as_double,
    compare,
    is_number,
    json_value,
    parse_instant,
    same_list,
)
from vecdataset.filters.words import has_phrase, words

Path = tuple[str | int | None, ...]
"""Steps into a payload: a key, an index into an array, or None for each element."""

_NOWHERE: Final = object()


@dataclass(frozen=True, slots=True)
class Row:
    """What a filter looks at: one point, or one object inside it under `nested`."""

    payload: Mapping[str, Any]
    id: Any = None
    vectors: Any = None

    @classmethod
    def of(cls, point: Mapping[str, Any]) -> Row:
        """Return the row of a point, `{"id": …, "vector": …, "payload": {…}}`."""
        return cls(point.get("payload") or {}, json_value(point.get("id")), point.get("vector"))

    def has_vector(self, name: str) -> bool:
        """Return whether the point has this vector; a bare vector is the unnamed one."""
        if isinstance(self.vectors, Mapping):
            return self.vectors.get(name) is not None
        return name == "" and self.vectors is not None


def values_at(payload: Mapping[str, Any], path: Path) -> list[Any]:
    """Return the values that a path selects: none, one, or several through `[]`."""
    found: list[Any] = [payload]
    for step in path:
        following: list[Any] = []
        for value in found:
            if isinstance(step, str):
                if isinstance(value, Mapping) and step in value:
                    following.append(json_value(value[step]))
            elif isinstance(value, list):
                if step is None:
                    following += map(json_value, value)
                elif step < len(value):
                    following.append(json_value(value[step]))
        found = following
    return found


def canonical_uuid(text: str) -> str | None:
    """Return the lower-case form of a UUID spelled in one of the ways that Qdrant takes."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None


_HYPHENATED: Final = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_UUID: Final = re.compile(rf"[0-9a-fA-F]{{32}}|(?:urn:uuid:)?{_HYPHENATED}|\{{{_HYPHENATED}\}}")


class Node:
    """One node of the tree; `value` is True, False or None for a row (any value, for an operand)."""

    __slots__ = ()

    def value(self, row: Row) -> Any:
        """Return what the node says about a row."""
        raise NotImplementedError

    def parts(self) -> Iterator[Node]:
        """Yield the nodes directly below."""
        for f in fields(self):  # type: ignore[arg-type]  # every concrete node is a dataclass
            below = getattr(self, f.name)
            if isinstance(below, Node):
                yield below
            elif isinstance(below, tuple):
                yield from (b for b in below if isinstance(b, Node))


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, except the filter inside a `nested`."""
    yield node
    if not isinstance(node, Nested):
        for part in node.parts():
            yield from walk(part)


# ------------------------------------------------------------------ combinations


@dataclass(frozen=True, slots=True)
class And(Node):
    """All are true; of nothing: true."""

    items: tuple[Node, ...]

    def value(self, row: Row) -> bool | None:
        """False as soon as one is; null when one is null."""
        out: bool | None = True
        for item in self.items:
            v = item.value(row)
            if v is False:
                return False
            if v is not True:
                out = None
        return out


@dataclass(frozen=True, slots=True)
class Or(Node):
    """One is true; of nothing: false."""

    items: tuple[Node, ...]

    def value(self, row: Row) -> bool | None:
        """True as soon as one is; null when one is null."""
        out: bool | None = False
        for item in self.items:
            v = item.value(row)
            if v is True:
                return True
            if v is not False:
                out = None
        return out


@dataclass(frozen=True, slots=True)
class Not(Node):
    """The opposite; of null: null."""

    item: Node

    def value(self, row: Row) -> bool | None:
        """True for False and the reverse."""
        v = self.item.value(row)
        return (not v) if isinstance(v, bool) else None


@dataclass(frozen=True, slots=True)
class AtLeast(Node):
    """At least `count` are true."""

    count: int
    items: tuple[Node, ...]

    def value(self, row: Row) -> bool:
        """Count them."""
        found = 0
        for item in self.items:
            if found >= self.count:
                break
            found += item.value(row) is True
        return found >= self.count


def all_of(items: Iterable[Node]) -> Node:
    """Return the conjunction, flat, without a wrapper around one."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, And) else (item,)
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(items: Iterable[Node]) -> Node:
    """Return the disjunction, flat, without a wrapper around one."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Or) else (item,)
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


# -------------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class MatchValue:
    """Equal and of the same type; a float equals any number of its size."""

    to: Any
    """A bool, int, str, float or `Instant`."""

    def check(self, value: Any) -> bool:
        """Test one value."""
        if isinstance(self.to, bool) or isinstance(value, bool):
            return self.to is value
        if isinstance(self.to, float):
            return is_number(value) and compare(value, self.to) == 0
        if isinstance(self.to, int):
            return isinstance(value, int) and value == self.to and -(1 << 63) <= value < 1 << 63
        return compare(value, self.to) == 0


@dataclass(frozen=True, slots=True)
class MatchAny:
    """Equal to one of the list."""

    to: tuple[Any, ...]

    def check(self, value: Any) -> bool:
        """Test one value."""
        return any(MatchValue(to).check(value) for to in self.to)


@dataclass(frozen=True, slots=True)
class MatchExcept:
    """Anything but null and the values of the list."""

    to: tuple[Any, ...]

    def check(self, value: Any) -> bool:
        """Test one value."""
        return value is not None and not any(MatchValue(to).check(value) for to in self.to)


TextKind = Literal["text", "text_any", "phrase", "prefix", "substring"]


@dataclass(frozen=True, slots=True)
class MatchText:
    """Words of a text, as Qdrant 1.20 splits them; `prefix` and `substring` are byte by byte."""

    kind: TextKind
    text: str

    def check(self, value: Any) -> bool:
        """Test one value."""
        if not isinstance(value, str):
            return False
        if self.kind == "prefix":
            return value.startswith(self.text)
        if self.kind == "substring":
            return self.text in value
        have, want = words(value), words(self.text)
        if self.kind == "phrase":
            return has_phrase(have, want)
        if self.kind == "text_any":
            return not set(want).isdisjoint(have)
        return bool(want) and set(want) <= set(have)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A number between bounds, compared as doubles; without bounds, any number."""

    lt: float | None = None
    lte: float | None = None
    gt: float | None = None
    gte: float | None = None

    def check(self, value: Any) -> bool:
        """Test one value."""
        return is_number(value) and _between(self, as_double(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """A date or time between bounds; texts are read as dates where they are one."""

    lt: Instant | None = None
    lte: Instant | None = None
    gt: Instant | None = None
    gte: Instant | None = None

    def check(self, value: Any) -> bool:
        """Test one value."""
        if isinstance(value, str):
            value = parse_instant(value)
        return isinstance(value, Instant) and _between(self, value)


def _between(bounds: Range | TimeRange | ValuesCount, value: Any) -> bool:
    return (
        (bounds.lt is None or compare(value, bounds.lt) == -1)
        and (bounds.lte is None or compare(value, bounds.lte) in {-1, 0})
        and (bounds.gt is None or compare(value, bounds.gt) == 1)
        and (bounds.gte is None or compare(value, bounds.gte) in {0, 1})
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesCount:
    """How many values a key holds: null none, an array its length, anything else one."""

    lt: int | None = None
    lte: int | None = None
    gt: int | None = None
    gte: int | None = None

    def check(self, value: Any) -> bool:
        """Test the whole value."""
        return _between(self, 0 if value is None else len(value) if isinstance(value, list) else 1)


@dataclass(frozen=True, slots=True)
class FieldEmpty:
    """Some value is empty (or, for False, some is not); missing counts as empty."""

    to: bool

    def check(self, value: Any) -> bool:
        """Test the whole value."""
        return is_empty(value) is self.to


@dataclass(frozen=True, slots=True)
class FieldNull:
    """Some value is null (or, for False, some is not); missing counts as not null."""

    to: bool

    def check(self, value: Any) -> bool:
        """Test the whole value."""
        return is_null(value) is self.to


Test = (
    MatchValue | MatchAny | MatchExcept | MatchText | Range | TimeRange
    | GeoRadius | GeoBox | GeoPolygon | ValuesCount | FieldEmpty | FieldNull
)  # fmt: skip


def is_empty(value: Any) -> bool:
    """Return whether a value is null or an empty array."""
    return value is None or (isinstance(value, list) and not value)


def is_null(value: Any) -> bool:
    """Return whether a value is null or an array with a null in it."""
    return value is None or (isinstance(value, list) and any(json_value(v) is None for v in value))


@dataclass(frozen=True, slots=True)
class Field(Node):
    """A test of the values under a path; arrays pass when one of their elements does."""

    path: Path
    test: Test
    named: bool = False
    """From `{key: value}`: an unknown key is a mistake, not a missing value."""

    def value(self, row: Row) -> bool:
        """Test every value that the path selects."""
        values = values_at(row.payload, self.path)
        test = self.test
        if isinstance(test, ValuesCount | FieldEmpty | FieldNull):
            return any(map(test.check, values)) if values else _without_value(test)
        check = test.check
        for v in values:
            if isinstance(v, list):
                if any(check(json_value(x)) for x in v):
                    return True
            elif check(v):
                return True
        return False


def _without_value(test: ValuesCount | FieldEmpty | FieldNull) -> bool:
    if isinstance(test, ValuesCount):
        return test.check(None)
    return test.to if isinstance(test, FieldEmpty) else not test.to


@dataclass(frozen=True, slots=True)
class IsEmpty(Node):
    """Every value under the path is null or `[]`, or there is none."""

    path: Path

    def value(self, row: Row) -> bool:
        """Test every value that the path selects."""
        return all(map(is_empty, values_at(row.payload, self.path)))


@dataclass(frozen=True, slots=True)
class IsNull(Node):
    """Some value under the path is null, or an array with a null in it."""

    path: Path

    def value(self, row: Row) -> bool:
        """Test every value that the path selects."""
        return any(map(is_null, values_at(row.payload, self.path)))


@dataclass(frozen=True, slots=True)
class HasId(Node):
    """The point's id is one of these."""

    ids: tuple[int | str, ...]

    def value(self, row: Row) -> bool:
        """Look the id up; UUIDs are the same in every spelling."""
        if isinstance(row.id, str):
            return row.id in all_spellings(self.ids)
        return isinstance(row.id, int) and row.id in self.ids


@cache
def all_spellings(ids: tuple[int | str, ...]) -> frozenset[int | str]:
    """Return the ids, and the canonical form of each that is a UUID."""
    texts = (canonical_uuid(i) for i in ids if isinstance(i, str))
    return frozenset(ids) | {t for t in texts if t is not None}


@dataclass(frozen=True, slots=True)
class HasVector(Node):
    """The point has the vector of this name."""

    name: str

    def value(self, row: Row) -> bool:
        """Look for it."""
        return row.has_vector(self.name)


@dataclass(frozen=True, slots=True)
class Nested(Node):
    """Some single object in the array under the path passes the whole filter."""

    path: Path
    """Ends with None: the elements."""
    filter: Node

    def value(self, row: Row) -> bool:
        """Test each object; ids and vectors are not to be found inside."""
        objects = values_at(row.payload, self.path)
        return any(self.filter.value(Row(o)) is True for o in objects if isinstance(o, dict))


def is_condition(node: Node) -> bool:
    """Return whether a node alone is two-valued: a combination, or a condition of Qdrant's."""
    return isinstance(node, And | Or | Not | AtLeast | Field | IsEmpty | IsNull | HasId | HasVector | Nested)


# ------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A constant: None, bool, int, float, str, `Instant`, or a tuple of constants for a list."""

    to: Any

    def value(self, row: Row) -> Any:  # noqa: ARG002  a constant looks at no row
        """Return it."""
        return list(self.to) if isinstance(self.to, tuple) else self.to


@dataclass(frozen=True, slots=True)
class Column(Node):
    """The payload value under a key, or inside its object; a missing one is null."""

    path: tuple[str, ...]

    def value(self, row: Row) -> Any:
        """Return it."""
        found = values_at(row.payload, self.path)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class PointId(Node):
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
class Compare(Node):
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
class In(Node):
    """Equal to one of the items."""

    left: Node
    items: tuple[Node, ...]

    def value(self, row: Row) -> bool | None:
        """True if one is equal, else null if a comparison was null."""
        left = self.left.value(row)
        out: bool | None = False
        for item in self.items:
            same = compared("=", left, item.value(row))
            if same:
                return True
            if same is None:
                out = None
        return out


@dataclass(frozen=True, slots=True)
class Like(Node):
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
class IsNullExpr(Node):
    """`x IS NULL`: never null itself."""

    item: Node

    def value(self, row: Row) -> bool:
        """Missing counts as null."""
        return self.item.value(row) is None


@dataclass(frozen=True, slots=True)
class IsBool(Node):
    """`x IS TRUE` or `x IS FALSE`: never null itself."""

    item: Node
    to: bool

    def value(self, row: Row) -> bool:
        """Anything that is no boolean is neither."""
        return self.item.value(row) is self.to


ArithmeticOp = Literal["+", "-", "*", "/", "%"]


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
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
class Negative(Node):
    """A number's opposite."""

    item: Node

    def value(self, row: Row) -> float | None:
        """Null unless it is a number."""
        v = self.item.value(row)
        return -v if is_number(v) else None


@dataclass(frozen=True, slots=True)
class Call(Node):
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
