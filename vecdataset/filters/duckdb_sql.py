"""Filters as one expression of DuckDB's SQL, over a collection's columns or over payloads as JSON.

A value is looked for in its column, and in `_extra`, which wins, where some row ever had its key there.
A condition of Qdrant's is true for what matches, and false or null for the rest; an expression keeps
SQL's three truths. What is true is what `Filter.matches` says; what DuckDB has no words for is refused,
never answered otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from vecdataset.errors import NotSupportedError
from vecdataset.filters.columns import Kind, neighbours
from vecdataset.filters.conditions import (
    Field,
    FieldEmpty,
    FieldNull,
    HasId,
    HasVector,
    IsEmpty,
    IsNull,
    Nested,
    ValuesCount,
    all_spellings,
    canonical_uuid,
)
from vecdataset.filters.duckdb_tests import empty, field_test, null
from vecdataset.filters.duckdb_values import (
    NULL,
    Names,
    Value,
    any_item,
    both_of,
    coalesced,
    compared_to,
    double,
    either_of,
    inside,
    instant_of,
    json_at,
    literal,
    lowered,
    nanoseconds,
    quoted,
    some,
)
from vecdataset.filters.expressions import (
    Arithmetic,
    Call,
    Column,
    Compare,
    CompareOp,
    Constant,
    Expression,
    In,
    IsBool,
    IsNullExpr,
    Like,
    Negative,
    PointId,
    has_sql,
)
from vecdataset.filters.logic import FALSE, TRUE
from vecdataset.filters.tree import And, AtLeast, Node, Not, Or, Path, Row, any_of, walk
from vecdataset.filters.values import Instant, is_number, parse_instant
from vecdataset.schema import EXTRA, PayloadColumn

_EXACT: Final = 1 << 53
_HUGE: Final = 10**38
_FLIPPED: Final[Mapping[CompareOp, CompareOp]] = {
    "=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<=",
}  # fmt: skip
_PREDICATES: Final = (Compare, In, Like, IsNullExpr, IsBool)
_NOWHERE: Final = Row({})
_MAX_CHARS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a filter looks for keys: the columns of a collection, or one object."""

    columns: Mapping[str, PayloadColumn] = field(default_factory=dict)
    extra: str | None = None
    """SQL for the JSON object that holds what the columns do not."""
    extra_keys: Collection[str] | None = frozenset()
    """Keys that may stand in it; None is all."""
    object: Value | None = None
    """The object inside a point that `nested` looks at, instead."""
    id: str | None = None
    """SQL for the point's id; None where there is none."""
    id_type: str = "uint64"
    vectors: Mapping[str, str] = field(default_factory=dict)
    """Vector name to SQL that is not null where the point has it."""
    prefix: str = ""
    """The table's name and a dot, or nothing."""

    def values(self, key: str) -> list[tuple[str, Value]]:
        """Return where the value of a key may be: SQL for whether it is there, and it; the first wins."""
        if self.object is not None:
            found = self.object.field(key)
            return [] if found is None else [(found.there, found)]
        out = []
        if self.extra is not None and (self.extra_keys is None or key in self.extra_keys):
            json = json_at(self.extra, (key,))
            out.append((f"{json} IS NOT NULL", Value(sql=json, type=None, there=f"{json} IS NOT NULL")))
        column = self.columns.get(key)
        if column is not None:
            sql = self.prefix + quoted(column.name)
            there = f"{sql} IS NOT NULL"
            out.append((there, Value(sql=sql, type=column.type, there=there, json_number=column.json_number)))
        return out


def write_duckdb(node: Node, place: Place) -> str:
    """Return the expression that is true for the points that match.

    Raises:
        NotSupportedError: A part of the filter cannot be said; the message names it.
    """
    text = _Writer(place, Names()).whole(node, exact=False)
    if len(text) > _MAX_CHARS:
        raise NotSupportedError(f"the filter is {len(text):,} characters of DuckDB's SQL; 1,000,000 at most")
    return text


@dataclass(frozen=True, slots=True)
class _Operand:
    """The value of an expression: SQL for each kind that it may have, null where it has another."""

    kinds: Mapping[Kind, str]
    null: str
    """SQL for whether it is null."""
    lists: Sequence[tuple[str, Value]] = ()
    """SQL for the list that it is, null where it is none, with a value whose elements are its."""
    constant: Any = None


@dataclass(frozen=True, slots=True)
class _Writer:
    place: Place
    names: Names

    # ---------------------------------------------------------------- combinations

    def whole(self, node: Node, *, exact: bool) -> str:
        """Return SQL for a node; `exact` asks conditions for false, and not null, where they do not hold."""
        match node:
            case And(items):
                return both_of(*(self.whole(i, exact=exact) for i in items))
            case Or(items):
                return either_of(*(self.whole(i, exact=exact) for i in items))
            case Not(item):
                if not has_sql(item):
                    return _not_true(self.whole(item, exact=False))
                return _negated(self.whole(item, exact=True))
            case AtLeast(count, items):
                parts = [f"CAST({_true(self.whole(i, exact=False))} AS INTEGER)" for i in items]
                return f"{' + '.join(parts) or '0'} >= {count}"
            case Expression():
                return self.predicate(node)
        found = self.condition(node)
        return _true(found) if exact else found

    # ------------------------------------------------------------------ conditions

    def condition(self, node: Node) -> str:
        match node:
            case Field(path, ValuesCount() | FieldEmpty() | FieldNull() as test):
                passing = self.some(path, lambda v: field_test(v, test, self.names), present=True)
                if node.value(_NOWHERE):
                    return either_of(passing, _not_true(self.some(path, lambda _: TRUE, present=True)))
                return passing
            case Field(path, test):
                return self.some(path, lambda v: field_test(v, test, self.names))
            case IsEmpty(path):
                return _not_true(self.some(path, lambda v: f"NOT ({empty(v)})", present=True))
            case IsNull(path):
                return self.some(path, lambda v: null(v, self.names), present=True)
            case Nested(path, filter):
                return self.some(path, lambda v: self.nested(v, filter))
            case HasId(ids):
                return self.has_id(ids)
            case HasVector(name):
                sql = self.place.vectors.get(name)
                return FALSE if sql is None else f"{sql} IS NOT NULL"
        raise NotSupportedError(f"a condition of type {type(node).__name__} cannot be said in DuckDB's SQL")

    def nested(self, value: Value, filter: Node) -> str:
        if value.type is not None and not pa.types.is_struct(value.type):
            return FALSE
        own = _Writer(Place(object=value), self.names).whole(filter, exact=False)
        if value.type is None:
            return both_of(f"json_type({value.sql}) = 'OBJECT'", own)
        return both_of(f"{value.sql} IS NOT NULL", own)

    def some(self, path: Path, test: Any, *, present: bool = False) -> str:
        """Return SQL for whether some value under a path passes a test."""
        key, rest = path[0], path[1:]
        places = self.place.values(str(key))
        found = [(there, some(v, rest, self.names, test, present=present)) for there, v in places]
        if not found:
            return FALSE
        if len(found) == 1:
            return found[0][1]
        return f"CASE WHEN {found[0][0]} THEN {found[0][1]} ELSE {found[1][1]} END"

    def has_id(self, ids: tuple[int | str, ...]) -> str:
        if self.place.id is None:
            return FALSE
        if self.place.id_type == "uint64":
            literals = [str(i) for i in ids if isinstance(i, int) and 0 <= i < 1 << 64]
        elif self.place.id_type == "mixed":
            texts = (str(i) if isinstance(i, int) else canonical_uuid(i) for i in ids)
            literals = [literal(t) for t in texts if t is not None]
        else:
            literals = [literal(i) for i in all_spellings(ids) if isinstance(i, str)]
        literals = sorted(set(literals))
        return f"{self.place.id} IN ({', '.join(literals)})" if literals else FALSE

    # ----------------------------------------------------------------- expressions

    def predicate(self, node: Node) -> str:
        node = _folded(node)
        match node:
            case Constant(to):
                return str(to).lower() if isinstance(to, bool) else NULL
            case IsBool(item, to):
                return f"{inside(self.whole(item, exact=True))} IS {'TRUE' if to else 'FALSE'}"
            case IsNullExpr(item) if isinstance(item, _PREDICATES) or not isinstance(item, Expression):
                return f"{inside(self.whole(item, exact=True))} IS NULL"
            case IsNullExpr(item):
                return self.operand(item).null
            case Compare(op, left, right):
                return self.compared(op, self.operand(left), self.operand(right))
            case In(left, items):
                return self.among(left, items)
            case Like(left, pattern, ignore_case):
                return self.like(self.operand(left), self.operand(pattern), ignore_case=ignore_case)
        return self.operand(node).kinds.get(Kind.BOOL, NULL)

    def compared(self, op: CompareOp, a: _Operand, b: _Operand) -> str:
        if isinstance(a.constant, tuple) or isinstance(b.constant, tuple) or (a.lists and b.lists):
            return self.same_list(op, a, b)
        if a.constant is not None and b.constant is None:
            return self.compared(_FLIPPED[op], b, a)
        found = []
        for left, x in a.kinds.items():
            for right, y in b.kinds.items():
                sql = self.pair(op, (left, x, a.constant), (right, y, b.constant))
                if sql is not None:
                    found.append(sql)
        return coalesced(found) if found else NULL

    def pair(self, op: CompareOp, a: tuple[Kind, str, Any], b: tuple[Kind, str, Any]) -> str | None:
        (left, x, _), (right, y, constant) = a, b
        numbers = {Kind.INT, Kind.FLOAT}
        if {left, right} <= numbers:
            if is_number(constant):
                return _against_number(op, left, x, constant)
            if left is right:
                return f"{inside(x)} {op} {inside(y)}"
            return _int_with_double(op, x, y) if left is Kind.INT else _int_with_double(_FLIPPED[op], y, x)
        if left is right:
            return f"{inside(x)} {op} {y if constant is not None else inside(y)}"
        if {left, right} == {Kind.TIME, Kind.TEXT}:
            if isinstance(constant, str):
                moment = parse_instant(constant)
                return None if moment is None else f"{inside(x)} {op} {nanoseconds(moment)}"
            sides = [
                inside(instant_of(s, self.names)) if k is Kind.TEXT else inside(s)
                for k, s in ((left, x), (right, y))
            ]
            return f"{sides[0]} {op} {sides[1]}"
        return None

    def same_list(self, op: CompareOp, a: _Operand, b: _Operand) -> str:
        if a.constant is not None:
            a, b = b, a
        items = b.constant
        texts = isinstance(items, tuple) and all(v is None or isinstance(v, str) for v in items)
        if op not in {"=", "<>"}:
            return NULL
        if texts and len(a.lists) == 1 and a.lists[0][1].type is not None:
            sql, value = a.lists[0]
            if pa.types.is_string(value.item("x").type) or pa.types.is_large_string(value.item("x").type):
                listed = ", ".join("NULL" if v is None else literal(v) for v in items)
                return f"{inside(sql)} {op} [{listed}]::VARCHAR[]"
        if not a.lists and not (a.constant is not None and b.lists):
            return NULL
        raise NotSupportedError(
            "lists cannot be compared whole in DuckDB's SQL, but for lists of text with a constant",
            hint="list_has_all() and len() say the same of most lists",
        )

    def among(self, left: Node, items: Sequence[Node]) -> str:
        values = [i.to for i in items if isinstance(i, Constant)]
        if not items:
            return FALSE
        plain = len(values) == len(items) and len(values) > 1
        if plain and all(isinstance(v, str) for v in values):
            kinds = self.operand(left).kinds
            if set(kinds) == {Kind.TEXT}:
                return f"{inside(kinds[Kind.TEXT])} IN ({', '.join(map(literal, dict.fromkeys(values)))})"
        if plain and all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < _EXACT for v in values):
            kinds = self.operand(left).kinds
            if len(kinds) == 1 and set(kinds) <= {Kind.INT, Kind.FLOAT}:
                (sql,) = kinds.values()
                return f"{inside(sql)} IN ({', '.join(map(str, dict.fromkeys(values)))})"
        return self.whole(any_of(Compare("=", left, i) for i in items), exact=True)

    def like(self, text: _Operand, pattern: _Operand, *, ignore_case: bool) -> str:
        if Kind.TEXT not in text.kinds or Kind.TEXT not in pattern.kinds:
            return NULL
        a, b = text.kinds[Kind.TEXT], pattern.kinds[Kind.TEXT]
        if ignore_case:
            a = lowered(a)
            b = literal(pattern.constant.lower()) if isinstance(pattern.constant, str) else lowered(b)
        return f"{inside(a)} LIKE {inside(b)}"

    # -------------------------------------------------------------------- operands

    def operand(self, node: Node) -> _Operand:
        node = _folded(node)
        match node:
            case Constant(to):
                return _constant(to)
            case Column(path):
                return self.column(path)
            case PointId():
                return self.point_id()
            case Arithmetic(op, left, right):
                return _calculated(op, self.operand(left), self.operand(right))
            case Negative(item):
                inner = self.operand(item).kinds
                kinds = {k: f"-{inside(inner[k])}" for k in (Kind.INT, Kind.FLOAT) if k in inner}
                if Kind.INT in kinds:
                    kinds[Kind.INT] = f"-CAST({inner[Kind.INT]} AS HUGEINT)"
                return _of(kinds)
            case Call(name, args):
                return self.call(name, [self.operand(a) for a in args])
        return _of({Kind.BOOL: self.whole(node, exact=True)})

    def column(self, path: tuple[str, ...]) -> _Operand:
        found: list[tuple[str, Value]] = []
        for there, top in self.place.values(path[0]):
            value: Value | None = top
            for step in path[1:]:
                value = None if value is None else value.field(step)
            if value is not None:
                found.append((there, value))
            elif top.type is None:
                raise AssertionError  # JSON may hold anything
        if not found:
            return _of({})
        known: dict[Kind, list[str]] = {}
        lists: list[tuple[str, Value]] = []
        nulls = []
        before: list[str] = []
        for there, value in found:
            guard = both_of(*(f"NOT ({b})" for b in before))
            for kind, sql in _numbers_apart(value).items():
                known.setdefault(kind, []).append(_when(guard, sql))
            if value.items is not None:
                lists.append((_when(guard, value.items), value))
            own = f"{value.sql} IS NULL"
            if value.type is None:
                own = f"coalesce({value.null}, true)"
            nulls.append((there, own))
            before.append(there)
        null = nulls[0][1]
        if len(nulls) > 1:
            null = f"CASE WHEN {nulls[0][0]} THEN {nulls[0][1]} ELSE {nulls[1][1]} END"
        return _Operand({k: coalesced(parts) for k, parts in known.items()}, null, lists)

    def point_id(self) -> _Operand:
        sql = self.place.id
        if sql is None:
            return _of({})
        if self.place.id_type == "uint64":
            return _of({Kind.INT: sql})
        if self.place.id_type == "mixed":
            return _of({
                Kind.INT: f"CASE WHEN length({sql}) < 36 THEN TRY_CAST({sql} AS HUGEINT) END",
                Kind.TEXT: f"CASE WHEN length({sql}) = 36 THEN {sql} END",
            })  # fmt: skip
        return _of({Kind.TEXT: sql})

    def call(self, name: str, args: list[_Operand]) -> _Operand:
        text = args[0].kinds.get(Kind.TEXT)
        match name:
            case "coalesce":
                return _first(args)
            case "lower":
                return _of({} if text is None else {Kind.TEXT: lowered(text)})
            case "upper":
                return _of({} if text is None else {Kind.TEXT: _raised(text, self.names)})
            case "length":
                parts = [] if text is None else [f"length({text})"]
                parts += [f"len({sql})" for sql, _ in args[0].lists]
                return _of({Kind.INT: coalesced(parts)} if parts else {})
            case "abs":
                kinds = {k: f"abs({args[0].kinds[k]})" for k in (Kind.FLOAT,) if k in args[0].kinds}
                if Kind.INT in args[0].kinds:
                    kinds[Kind.INT] = f"abs(CAST({args[0].kinds[Kind.INT]} AS HUGEINT))"
                return _of(kinds)
            case "contains" | "starts_with" | "ends_with":
                other = args[1].kinds.get(Kind.TEXT)
                parts = [] if text is None or other is None else [f"{name}({text}, {other})"]
                if name == "contains" and args[0].lists:
                    parts.insert(0, self.holds(args[0], args[1]))
                return _of({Kind.BOOL: coalesced(parts)} if parts else {})
            case "list_contains":
                return _of({Kind.BOOL: self.holds(args[0], args[1])} if args[0].lists else {})
            case "list_has_any" | "list_has_all":
                return self.has(args[0], args[1], every=name == "list_has_all")
        raise NotSupportedError(f"{name}() cannot be said in DuckDB's SQL")

    def holds(self, items: _Operand, wanted: _Operand) -> str:
        """Return whether a list holds a value; null where one of them is null or no list."""
        if wanted.null == TRUE:
            return NULL
        if isinstance(wanted.constant, tuple) or wanted.lists:
            raise NotSupportedError("lists inside of lists cannot be compared in DuckDB's SQL")
        parts = []
        for sql, value in items.lists:
            found = any_item(sql, self.names, lambda v, value=value: self.element_is(value.item(v), wanted))  # type: ignore[misc]  # bound now
            parts.append(found if wanted.null == FALSE else f"CASE WHEN NOT ({wanted.null}) THEN {found} END")
        return coalesced(parts)

    def element_is(self, item: Value, wanted: _Operand) -> str:
        return self.compared("=", _Operand(_numbers_apart(item), item.null), wanted)

    def has(self, items: _Operand, wanted: _Operand, *, every: bool) -> _Operand:
        if not items.lists:
            return _of({})
        if not isinstance(wanted.constant, tuple):
            raise NotSupportedError("list_has_any() and list_has_all() take a constant list in DuckDB's SQL")
        each = [self.holds(items, _constant(v)) for v in wanted.constant if v is not None]
        found = (both_of if every else either_of)(*each)
        there = either_of(*(f"({sql}) IS NOT NULL" for sql, _ in items.lists))
        return _of({Kind.BOOL: f"CASE WHEN {there} THEN {found} END"})


# ------------------------------------------------------------------------------- pieces


def _folded(node: Node) -> Node:
    """Return an expression that looks at no row as the constant that it is."""
    if isinstance(node, Constant) or any(not isinstance(n, Expression) or _looks(n) for n in walk(node)):
        return node
    value = node.value(_NOWHERE)
    return Constant(tuple(value) if isinstance(value, list) else value)


def _looks(node: Node) -> bool:
    return isinstance(node, Column | PointId)


def _negated(sql: str) -> str:
    return {TRUE: FALSE, FALSE: TRUE, NULL: NULL}.get(sql, f"NOT {inside(sql)}")


def _not_true(sql: str) -> str:
    return {TRUE: FALSE, FALSE: TRUE}.get(sql, f"{inside(sql)} IS NOT TRUE")


def _true(sql: str) -> str:
    return sql if sql in {TRUE, FALSE} else f"{inside(sql)} IS TRUE"


def _when(guard: str, sql: str) -> str:
    return sql if guard == TRUE else f"CASE WHEN {guard} THEN {sql} END"


def _of(kinds: Mapping[Kind, str]) -> _Operand:
    if not kinds:
        return _Operand({}, TRUE)
    return _Operand(kinds, both_of(*(f"{inside(sql)} IS NULL" for sql in kinds.values())))


def _constant(to: Any) -> _Operand:
    match to:
        case None:
            return _Operand({}, TRUE)
        case bool():
            return _Operand({Kind.BOOL: str(to).lower()}, FALSE, constant=to)
        case str():
            return _Operand({Kind.TEXT: literal(to)}, FALSE, constant=to)
        case Instant():
            return _Operand({Kind.TIME: nanoseconds(to)}, FALSE, constant=to)
        case tuple():
            return _Operand({}, FALSE, constant=to)
        case int() if abs(to) < _HUGE:
            return _Operand({Kind.INT: str(to) if to >= 0 else f"({to})"}, FALSE, constant=to)
        case _:
            sql = double(_to_double(to))
            return _Operand({Kind.FLOAT: sql if to >= 0 else f"({sql})"}, FALSE, constant=to)


def _to_double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _numbers_apart(value: Value) -> dict[Kind, str]:
    """Return the kinds of a value; a column of JSON numbers is an integer where it is whole."""
    kinds = value.kinds()
    if not value.json_number:
        return kinds
    whole = f"{value.sql} = trunc({value.sql}) AND abs({value.sql}) < 1e38"
    return {
        Kind.INT: f"CASE WHEN {whole} THEN TRY_CAST({value.sql} AS HUGEINT) END",
        Kind.FLOAT: f"CASE WHEN NOT ({whole}) THEN {value.sql} END",
    }


def _against_number(op: CompareOp, kind: Kind, x: str, to: float) -> str:
    """Return the exact comparison of numbers with a constant."""
    x = inside(x)
    if kind is Kind.FLOAT:
        if to != to:  # noqa: PLR0124  NaN, which is the largest number and equal to itself
            return f"{x} {op} {double(to)}"
        down, up = neighbours(to, 64)
        if down == up:
            return f"{x} {op} {compared_to(down)}"
        if op in {"=", "<>"}:
            return f"{x} IS NULL AND NULL" if op == "=" else f"CASE WHEN {x} IS NOT NULL THEN true END"
        return f"{x} >= {compared_to(up)}" if op in {">", ">="} else f"{x} <= {compared_to(down)}"
    if isinstance(to, int) and abs(to) < _HUGE:
        return f"{x} {op} {to}"
    if isinstance(to, float) and abs(to) < _EXACT:
        return f"{x} {op} {compared_to(to)}"
    if isinstance(to, float) and abs(to) < 1e38:
        return f"{x} {op} {int(to)}"
    return f"CAST({x} AS DOUBLE) {op} {double(_to_double(to))}"


def _int_with_double(op: CompareOp, whole: str, number: str) -> str:
    """Return the exact comparison of an integer with a double."""
    a, b = inside(whole), inside(number)
    # Beyond 2**53 doubles are whole, and compare as integers; below, casting loses no order.
    return (
        f"CASE WHEN abs({b}) BETWEEN 9007199254740992e0 AND 1e38 THEN {a} {op} TRY_CAST({b} AS HUGEINT) "
        f"ELSE CAST({a} AS DOUBLE) {op} {b} END"
    )


def _calculated(op: str, a: _Operand, b: _Operand) -> _Operand:
    numbers = (Kind.INT, Kind.FLOAT)
    whole: list[str] = []
    broken: list[str] = []
    for left in numbers:
        for right in numbers:
            if left not in a.kinds or right not in b.kinds:
                continue
            x, y = inside(a.kinds[left]), inside(b.kinds[right])
            if left is Kind.INT and right is Kind.INT and op != "/":
                sql = f"CAST({x} AS HUGEINT) {op} {y}"
                whole.append(f"TRY({sql})" if op != "%" else f"CASE WHEN {y} <> 0 THEN {sql} END")
                continue
            sql = f"CAST({x} AS DOUBLE) {op} CAST({y} AS DOUBLE)"
            broken.append(sql if op != "%" else f"CASE WHEN {y} <> 0 THEN {sql} END")
    kinds = {}
    if whole:
        kinds[Kind.INT] = coalesced(whole)
    if broken:
        kinds[Kind.FLOAT] = coalesced(broken)
    return _of(kinds)


def _first(args: Sequence[_Operand]) -> _Operand:
    kinds: dict[Kind, list[str]] = {}
    lists: list[tuple[str, Value]] = []
    before: list[str] = []
    for arg in args:
        guard = both_of(*before)
        if guard == FALSE:
            break
        if isinstance(arg.constant, tuple):
            raise NotSupportedError("coalesce() takes no constant list in DuckDB's SQL")
        for kind, sql in arg.kinds.items():
            kinds.setdefault(kind, []).append(_when(guard, sql))
        lists += [(_when(guard, sql), value) for sql, value in arg.lists]
        before.append(arg.null)
    return _Operand({k: coalesced(parts) for k, parts in kinds.items()}, both_of(*before), lists)


def _raised(text: str, names: Names) -> str:
    """Return a text in upper case, by Unicode's full mapping; DuckDB's own maps letter to letter."""
    special = {chr(c): chr(c).upper() for c in _MANY}
    name = names.new()
    mapped = ", ".join(f"{literal(k)}: {literal(v)}" for k, v in special.items())
    each = f"lambda {name}: coalesce(MAP {{{mapped}}}[{name}], upper({name}))"
    odd = literal(f"[{''.join(special)}]")
    spelled = f"array_to_string(list_transform(string_split({text}, ''), {each}), '')"
    return f"CASE WHEN regexp_matches({text}, {odd}) THEN {spelled} ELSE upper({text}) END"


_ALPHABETS: Final = (range(0x600), range(0x1E00, 0x2000), range(0xFB00, 0xFB20))
_MANY: Final = [c for letters in _ALPHABETS for c in letters if len(chr(c).upper()) > 1]
"""Letters whose upper case is several."""


def collection_place(
    *,
    columns: Mapping[str, PayloadColumn],
    extra_keys: Collection[str],
    id_type: str,
    vectors: Mapping[str, str],
    table: str | None = None,
) -> Place:
    """Return the columns of a collection as a place to look into."""
    prefix = "" if table is None else f"{quoted(table)}."
    extra = f"{prefix}{quoted(EXTRA)}"
    return Place(
        columns=columns,
        extra=extra if extra_keys else None,
        extra_keys=frozenset(extra_keys),
        id=f"{prefix}{quoted('id')}",
        id_type=id_type,
        vectors={name: prefix + quoted(column) for name, column in vectors.items()},
        prefix=prefix,
    )


def payload_place(sql: str) -> Place:
    """Return payloads as JSON, a point's own id unknown, as a place to look into."""
    return Place(extra=sql, extra_keys=None)
