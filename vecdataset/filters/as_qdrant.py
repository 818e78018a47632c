"""The tree written as Qdrant's filter JSON.

Conditions come out as they came in. Expressions of SQL text become the conditions that say
the same of keys whose values are scalars of one type, or of lists where the SQL asks for a list;
what has no such condition raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vecdataset.errors import NotSupportedError
from vecdataset.filters.conditions import (
    Field,
    FieldEmpty,
    FieldNull,
    HasId,
    HasVector,
    IsEmpty,
    IsNull,
    MatchAny,
    MatchExcept,
    MatchText,
    MatchValue,
    Nested,
    Range,
    Test,
    TimeRange,
    ValuesCount,
)
from vecdataset.filters.expressions import (
    Arithmetic,
    Call,
    Column,
    Compare,
    CompareOp,
    Constant,
    In,
    IsBool,
    IsNullExpr,
    Like,
    PointId,
    has_sql,
)
from vecdataset.filters.geo import GeoBox, GeoPolygon, GeoRadius, Place
from vecdataset.filters.tree import And, AtLeast, Node, Not, Or, Path, all_of, any_of
from vecdataset.filters.values import Instant, is_number, parse_instant

_FLIPPED: Final[Mapping[CompareOp, CompareOp]] = {
    "=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<=",
}  # fmt: skip
_OPPOSITE: Final[Mapping[CompareOp, CompareOp]] = {
    "=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<",
}  # fmt: skip
_BOUND: Final[Mapping[CompareOp, str]] = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_EXACT_INT: Final = 1 << 53


def write_filter(node: Node) -> dict[str, Any]:
    """Return the filter that matches the points for which `node` is true."""
    return _filter(conditions(node, want=True))


def _filter(node: Node) -> dict[str, Any]:
    must: list[Any] = []
    must_not: list[Any] = []
    out: dict[str, Any] = {}
    items = node.items if isinstance(node, And) else (node,)
    # A clause holds one disjunction and one count; where there are more, each is a filter of its own.
    disjunctions = sum(isinstance(i, Or) for i in items)
    counts = sum(isinstance(i, AtLeast) for i in items)
    for item in items:
        if isinstance(item, Not):
            must_not.append(write_condition(item.item))
        elif isinstance(item, Or) and item.items and disjunctions == 1:
            out["should"] = [write_condition(i) for i in item.items]
        elif isinstance(item, AtLeast) and counts == 1:
            out["min_should"] = _min_should(item)
        else:
            must.append(write_condition(item))
    out |= {"must": must} if must else {}
    out |= {"must_not": must_not} if must_not else {}
    return {clause: out[clause] for clause in ("must", "should", "min_should", "must_not") if clause in out}


def _min_should(node: AtLeast) -> dict[str, Any]:
    return {"conditions": [write_condition(i) for i in node.items], "min_count": node.count}


def write_condition(node: Node) -> dict[str, Any]:
    """Return one condition, as it stands in a clause, of a tree without expressions."""
    match node:
        case Field(path, test):
            return {"key": path_text(path), **_test(test)}
        case IsEmpty(path):
            return {"is_empty": {"key": path_text(path)}}
        case IsNull(path):
            return {"is_null": {"key": path_text(path)}}
        case HasId(ids):
            return {"has_id": list(ids)}
        case HasVector(name):
            return {"has_vector": name}
        case Nested(path, inner):
            return {"nested": {"key": path_text(path[:-1]), "filter": _filter(inner)}}
        case Or(()):
            return {"has_id": []}
        case _:
            return _filter(node)


def _test(test: Test) -> dict[str, Any]:
    match test:
        case MatchValue(float() | Instant() as to):
            return _test(Range(gte=to, lte=to) if isinstance(to, float) else TimeRange(gte=to, lte=to))
        case MatchValue(to):
            return {"match": {"value": to}}
        case MatchAny(values):
            return {"match": {"any": list(values)}}
        case MatchExcept(values):
            return {"match": {"except": list(values)}}
        case MatchText(kind, text):
            return {"match": {kind: text}}
        case Range():
            return {"range": _bounds(test)}
        case TimeRange():
            times = {k: v.isoformat() for k, v in _bounds(test).items()}
            return {"range" if times else "datetime_range": times}
        case ValuesCount():
            return {"values_count": _bounds(test)}
        case FieldEmpty(to):
            return {"is_empty": to}
        case FieldNull(to):
            return {"is_null": to}
        case GeoRadius(center, radius):
            return {"geo_radius": {"center": _place(center), "radius": radius}}
        case GeoBox(top_left, bottom_right):
            corners = {"top_left": _place(top_left), "bottom_right": _place(bottom_right)}
            return {"geo_bounding_box": corners}
        case GeoPolygon(exterior, interiors):
            rings = {"exterior": _ring(exterior)} | (
                {"interiors": [_ring(r) for r in interiors]} if interiors else {}
            )
            return {"geo_polygon": rings}


def _bounds(test: Range | TimeRange | ValuesCount) -> dict[str, Any]:
    given = {"lt": test.lt, "lte": test.lte, "gt": test.gt, "gte": test.gte}
    return {k: v for k, v in given.items() if v is not None}


def _place(place: Place) -> dict[str, float]:
    return {"lat": place.lat, "lon": place.lon}


def _ring(ring: tuple[Place, ...]) -> dict[str, Any]:
    return {"points": [_place(p) for p in ring]}


def path_text(path: Path) -> str:
    """Return the text of a path, quoted where it must be.

    Raises:
        NotSupportedError: A key holds a quote or a backslash, which Qdrant's paths cannot.
    """
    out = ""
    for step in path:
        if not isinstance(step, str):
            out += "[]" if step is None else f"[{step}]"
            continue
        if '"' in step or "\\" in step:
            raise NotSupportedError(f"the key {step!r} has no Qdrant form: its paths have no escapes")
        out += ("." if out else "") + (step if re.fullmatch(r"[\w-]+", step) else f'"{step}"')
    return out


# --------------------------------------------------------- expressions to conditions


def conditions(node: Node, *, want: bool) -> Node:
    """Return conditions that are true where `node` is `want`, which for SQL is not the same as not true."""
    if not has_sql(node):
        return node if want else Not(node)
    match node:
        case And(items) | Or(items):
            join = all_of if isinstance(node, And) is want else any_of
            return join(conditions(i, want=want) for i in items)
        case Not(item):
            return conditions(item, want=not want)
        case AtLeast(count, items):
            counted = AtLeast(count, tuple(conditions(i, want=True) for i in items))
            return counted if want else Not(counted)
        case Constant(bool() as to):
            return And(()) if to is want else Or(())
        case Constant(None):
            return Or(())
        case Column(path):
            return Field(path, MatchValue(want))
        case IsNullExpr(Column(path)):
            return IsEmpty(path) if want else Not(IsEmpty(path))
        case IsBool(item, to):
            held = conditions(item, want=to)
            return held if want else Not(held)
        case Compare(op, Constant() as left, right) if not isinstance(right, Constant):
            return conditions(Compare(_FLIPPED[op], right, left), want=want)
        case Compare(op, Column(path), Constant(to)):
            return _compared(path, op if want else _OPPOSITE[op], to)
        case Compare("=" | "<>" as op, PointId(), Constant(int() | str() as to)):
            held = HasId((to,))
            return held if (op == "=") is want else Not(held)
        case In(PointId(), items) if all(isinstance(i, Constant) for i in items):
            ids = HasId(tuple(i.to for i in items if isinstance(i, Constant) and isinstance(i.to, int | str)))
            return ids if want else Not(ids)
        case In(Column(path), items) if items and all(_is_text(i) for i in items):
            texts = tuple(i.to for i in items if isinstance(i, Constant))
            return Field(path, MatchAny(texts) if want else MatchExcept(texts))
        case In(left, items):
            join = any_of if want else all_of
            return join(conditions(Compare("=", left, i), want=want) for i in items)
        case Like(Column(path), Constant(str() as pattern), False):
            return _held(path, _like(pattern), want=want)
        case Call("starts_with", (Column(path), Constant(str() as text))):
            return _held(path, MatchText("prefix", text), want=want)
        case Call("contains", (Column(path), Constant(str() as text))):
            return _held(path, MatchText("substring", text), want=want)
        case Call("list_contains", (Column(path), Constant(to))) if to is not None:
            return _held(path, _equal(to), want=want)
        case Call("list_has_any" | "list_has_all" as name, (Column(path), Constant(tuple() as values))):
            tests = [Field(path, _equal(v)) for v in values if v is not None]
            joined = any_of(tests) if name == "list_has_any" else all_of(tests)
            return joined if want else all_of([Not(joined), Not(IsEmpty(path))])
        case _:
            raise NotSupportedError(f"{_name(node)} of SQL text has no form in Qdrant's filters")


def _is_text(node: Node) -> bool:
    return isinstance(node, Constant) and isinstance(node.to, str)


def _name(node: Node) -> str:
    match node:
        case Call(name, _):
            return f"the function {name}() with these arguments"
        case Like():
            return "ILIKE" if node.ignore_case else "LIKE with this pattern"
        case Compare(op, left, right):
            inner = next((n for n in (left, right) if not isinstance(n, Column | Constant | PointId)), None)
            return f"the comparison {op} of these operands" if inner is None else _name(inner)
        case Arithmetic(op, _, _):
            return f"the calculation {op}"
        case _:
            return f"this use of {type(node).__name__}"


def _held(path: Path, test: Test, *, want: bool) -> Node:
    held = Field(path, test)
    return held if want else all_of([Not(held), Not(IsEmpty(path))])


def _equal(to: Any) -> Test:
    if is_number(to) and abs(to) <= _EXACT_INT:
        return Range(gte=float(to), lte=float(to))
    return TimeRange(gte=to, lte=to) if isinstance(to, Instant) else MatchValue(to)


def _compared(path: Path, op: CompareOp, to: Any) -> Node:
    if to is None:
        return Or(())
    if op == "=":
        return Field(path, _equal(to))
    if isinstance(to, bool) and op == "<>":
        return Field(path, MatchValue(not to))
    if isinstance(to, str) and op == "<>":
        return Field(path, MatchExcept((to,)))
    if isinstance(to, str):
        to = parse_instant(to)
    if not is_number(to) and not isinstance(to, Instant):
        raise NotSupportedError(
            f"{path_text(path)} {op} … has no form in Qdrant's filters: its ranges hold numbers and dates"
        )
    kind: Any = TimeRange if isinstance(to, Instant) else Range
    if op == "<>":
        return any_of([Field(path, kind(lt=to)), Field(path, kind(gt=to))])
    return Field(path, kind(**{_BOUND[op]: to}))


def _like(pattern: str) -> Test:
    inner = pattern.strip("%")
    if re.search("[%_]", inner) is None:
        if pattern == inner:
            return MatchValue(inner)
        if pattern == inner + "%":
            return MatchText("prefix", inner)
        if pattern == f"%{inner}%":
            return MatchText("substring", inner)
    raise NotSupportedError(
        f"LIKE {pattern!r} has no form in Qdrant's filters", hint="'abc%' and '%abc%' have"
    )
