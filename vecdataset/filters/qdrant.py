"""Qdrant's filter JSON and `{key: value}`, read into the tree.

The shapes are those of Qdrant's REST interface (`Filter` in its OpenAPI description), with
a few wider doors: `field` for `key`, one condition where a list is due, a sub-filter as
`{"filter": …}` or `{"nested": …}` without a key, floats in `match`, dates as Python values,
and a radius as `{"latitude", "longitude", "radius_meters"}`.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from vecdataset.errors import InvalidFilterError, did_you_mean
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
from vecdataset.filters.expressions import Column, IsNullExpr
from vecdataset.filters.geo import GeoBox, GeoPolygon, GeoRadius, Place
from vecdataset.filters.tree import And, AtLeast, Node, Not, Path, all_of, any_of
from vecdataset.filters.values import Instant, is_number, json_value, parse_instant

CLAUSES: Final = frozenset({"must", "should", "must_not", "min_should"})
_FIELD_CONDITIONS: Final = (
    "match", "range", "datetime_range", "geo_radius", "geo_bounding_box", "geo_polygon",
    "values_count", "is_empty", "is_null",
)  # fmt: skip
_CONDITIONS: Final = frozenset({"is_empty", "is_null", "has_id", "has_vector", "nested", "filter"})
_TEXTS: Final = ("text", "text_any", "phrase", "prefix", "substring")
_BOUNDS: Final = ("lt", "lte", "gt", "gte")
_MAX_DEPTH: Final = 120

_T = TypeVar("_T")


# ----------------------------------------------------------------------- reading


def looks_like_qdrant(spec: Mapping[Any, Any]) -> bool:
    """Return whether a dict is Qdrant's JSON and not `{key: value}`."""
    given = {k: v for k, v in spec.items() if v is not None}
    if spec.keys() <= CLAUSES:
        return all(_clause_shaped(k, v) for k, v in given.items())
    return _condition_shaped(given)


def parse_condition(spec: Mapping[Any, Any]) -> Node:
    """Return the tree of a Qdrant filter, or of one condition of any kind."""
    return _condition(spec, "filter")


def _clause_shaped(name: str, value: Any) -> bool:
    if name == "min_should":
        return isinstance(value, Mapping) and "conditions" in value
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and all(isinstance(v, Mapping) for v in value)
    )


def _condition_shaped(spec: Mapping[Any, Any]) -> bool:
    if ("key" in spec) != ("field" in spec):
        rest = spec.keys() - {"key", "field"}
        return any(isinstance(spec[k], Mapping | bool) for k in rest & set(_FIELD_CONDITIONS))
    return len(spec) == 1 and all(k in _CONDITIONS and isinstance(v, Mapping) for k, v in spec.items())


def parse_filter(spec: Mapping[Any, Any], where: str = "filter") -> Node:
    """Return the tree of a Qdrant filter; a single condition is taken as well."""
    given = {k: v for k, v in spec.items() if v is not None}
    if where.count(".") > _MAX_DEPTH:
        raise InvalidFilterError(f"the filter has more than {_MAX_DEPTH} levels")
    if _condition_shaped(given):
        return _condition(given, where)
    _only(given, CLAUSES, where, "clauses")
    parts: list[Node] = [_condition(c, w) for c, w in _conditions(given, "must", where)]
    if should := [_condition(c, w) for c, w in _conditions(given, "should", where)]:
        parts.append(any_of(should))
    if "min_should" in given:
        parts.append(_min_should(given["min_should"], f"{where}.min_should"))
    parts += [Not(_condition(c, w)) for c, w in _conditions(given, "must_not", where)]
    return all_of(parts)


def _conditions(given: Mapping[str, Any], clause: str, where: str) -> Iterable[tuple[Mapping[str, Any], str]]:
    value = given.get(clause, [])
    where = f"{where}.{clause}"
    if isinstance(value, Mapping):
        return [(value, where)]
    return [(_dict(v, f"{where}[{i}]"), f"{where}[{i}]") for i, v in enumerate(_list(value, where))]


def _min_should(value: Any, where: str) -> Node:
    given = _dict(value, where)
    _only(given, {"conditions", "min_count"}, where, "keys")
    count = given.get("min_count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise InvalidFilterError(f"{where}.min_count is {count!r}; expected a number of conditions")
    items = tuple(_condition(c, w) for c, w in _conditions(given, "conditions", where))
    return AtLeast(count, items) if count else And(())


def _condition(given: Mapping[str, Any], where: str) -> Node:
    given = {k: v for k, v in given.items() if v is not None}
    if "key" in given or "field" in given:
        return _field(given, where)
    if given.keys() <= CLAUSES:
        return parse_filter(given, where)
    if len(given) != 1 or not given.keys() <= _CONDITIONS:
        unknown = next((k for k in given if k not in _CONDITIONS | CLAUSES), None)
        if unknown is None:
            raise InvalidFilterError(f"{where} has {_quoted(given)} together; expected one condition")
        known = {*_CONDITIONS, *CLAUSES, "key"}
        hint = did_you_mean(str(unknown), known, what="conditions")
        if unknown in _FIELD_CONDITIONS:
            hint = f"{unknown!r} stands beside a 'key'"
        raise InvalidFilterError(f"{where} has the unknown condition {unknown!r}", hint=hint)
    ((name, value),) = given.items()
    where = f"{where}.{name}"
    if name == "is_empty":
        return IsEmpty(_key(_dict(value, where), where))
    if name == "is_null":
        return IsNull(_key(_dict(value, where), where))
    if name == "has_id":
        return HasId(tuple(_id(i, where) for i in _list(value, where)))
    if name == "has_vector":
        return HasVector(_str(value, where))
    inner = _dict(value, where)
    if name == "nested" and ("key" in inner or "field" in inner):
        return _nested(inner, where)
    if name == "nested" and inner.keys() == {"filter"}:
        return parse_filter(_dict(inner["filter"], where), where)
    return parse_filter(inner, where)


def _nested(given: Mapping[str, Any], where: str) -> Node:
    _only(given, {"key", "field", "filter"}, where, "keys")
    path = _key({k: v for k, v in given.items() if k != "filter"}, where)
    inner = parse_filter(_dict(given.get("filter"), f"{where}.filter"), f"{where}.filter")
    return Nested(path if path[-1] is None else (*path, None), inner)


def _field(given: Mapping[str, Any], where: str) -> Node:
    _only(given, {"key", "field", *_FIELD_CONDITIONS}, where, "conditions")
    path = _key({k: v for k, v in given.items() if k in {"key", "field"}}, where)
    # The engine looks at these three first, and then at nothing else.
    for name, kind in (("values_count", None), ("is_empty", FieldEmpty), ("is_null", FieldNull)):
        if name in given:
            at = f"{where}.{name}"
            return Field(path, kind(_bool(given[name], at)) if kind else _values_count(given[name], at))
    tests: list[Node] = []
    for name, parse in _PARSERS.items():
        if name in given:
            inner = _dict(given[name], f"{where}.{name}")
            tests += [Field(path, test) for test in parse(inner, f"{where}.{name}")]
    if not tests:
        raise InvalidFilterError(
            f"{where} has a key and no condition", hint=f"conditions: {', '.join(_FIELD_CONDITIONS)}"
        )
    return any_of(tests)


def _match(given: Mapping[str, Any], where: str) -> list[Test]:
    given = {k: v for k, v in given.items() if v is not None}
    _only(given, {"value", "any", "except", *_TEXTS}, where, "kinds of match")
    if len(given) != 1:
        raise InvalidFilterError(f"{where} has {_quoted(given) or 'nothing'}; expected one kind of match")
    ((kind, value),) = given.items()
    where = f"{where}.{kind}"
    if kind == "value":
        return [_equal(_scalar(value, where))]
    if kind in _TEXTS:
        return [MatchText(kind, _str(value, where))]  # type: ignore[arg-type]  # one of _TEXTS
    values = [_scalar(v, where) for v in _list(value, where)]
    if kind == "any":
        return _any(values)
    if not (all(isinstance(v, str) for v in values) or all(_plain_int(v) for v in values)):
        raise InvalidFilterError(
            f"{where} holds {values!r}; expected only texts or only integers",
            hint="for other values, use must_not",
        )
    return [MatchExcept(tuple(values))]


def _any(values: Sequence[Any]) -> list[Test]:
    """Return one test for the texts, one for the integers, and one for each other value."""
    texts = tuple(v for v in values if isinstance(v, str))
    ints = tuple(v for v in values if _plain_int(v))
    others: list[Test] = [_equal(v) for v in values if not isinstance(v, str) and not _plain_int(v)]
    groups: list[Test] = [MatchAny(g) for g in (texts, ints) if g]
    return groups + others or [MatchAny(())]


def _equal(value: Any) -> Test:
    """Return the test for one value; floats and times equal whatever is as large or as late."""
    if isinstance(value, float):
        return Range(gte=value, lte=value)
    return TimeRange(gte=value, lte=value) if isinstance(value, Instant) else MatchValue(value)


def _plain_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _range(given: Mapping[str, Any], where: str) -> list[Test]:
    given = {k: v for k, v in given.items() if v is not None}
    _only(given, _BOUNDS, where, "bounds")
    if any(isinstance(v, str | dt.date) for v in given.values()):
        return _datetime_range(given, where)
    bounds = {k: _number(v, f"{where}.{k}") for k, v in given.items()}
    return [Range(**bounds)]


def _datetime_range(given: Mapping[str, Any], where: str) -> list[Test]:
    given = {k: v for k, v in given.items() if v is not None}
    _only(given, _BOUNDS, where, "bounds")
    return [TimeRange(**{k: _instant(v, f"{where}.{k}") for k, v in given.items()})]


def _values_count(value: Any, where: str) -> ValuesCount:
    given = {k: v for k, v in _dict(value, where).items() if v is not None}
    _only(given, _BOUNDS, where, "bounds")
    for bound, v in given.items():
        if not _plain_int(v) or v < 0:
            raise InvalidFilterError(f"{where}.{bound} is {v!r}; expected a number of values")
    return ValuesCount(**given)


def _geo_radius(given: Mapping[str, Any], where: str) -> list[Test]:
    if "radius_meters" in given:
        _only(given, {"latitude", "longitude", "radius_meters"}, where, "keys")
        center = {"lat": given.get("latitude"), "lon": given.get("longitude")}
        given = {"center": center, "radius": given["radius_meters"]}
    _only(given, {"center", "radius"}, where, "keys")
    radius = _number(given.get("radius"), f"{where}.radius")
    return [GeoRadius(_place(given.get("center"), f"{where}.center"), radius)]


def _geo_box(given: Mapping[str, Any], where: str) -> list[Test]:
    _only(given, {"top_left", "bottom_right"}, where, "corners")
    corners = [_place(given.get(c), f"{where}.{c}") for c in ("top_left", "bottom_right")]
    return [GeoBox(*corners)]


def _geo_polygon(given: Mapping[str, Any], where: str) -> list[Test]:
    _only(given, {"exterior", "interiors"}, where, "rings")
    holes = _list(given.get("interiors") or [], f"{where}.interiors")
    exterior = _ring(given.get("exterior"), f"{where}.exterior")
    return [GeoPolygon(exterior, tuple(_ring(h, f"{where}.interiors[{i}]") for i, h in enumerate(holes)))]


def _ring(value: Any, where: str) -> tuple[Place, ...]:
    given = _dict(value, where)
    _only(given, {"points"}, where, "keys")
    ring = tuple(_place(p, f"{where}.points") for p in _list(given.get("points"), f"{where}.points"))
    if len(ring) < 4 or ring[0] != ring[-1]:
        raise InvalidFilterError(
            f"{where} has {len(ring)} points; expected at least 4, the last equal to the first"
        )
    return ring


_PARSERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], list[Test]]]] = {
    "match": _match,
    "range": _range,
    "datetime_range": _datetime_range,
    "geo_radius": _geo_radius,
    "geo_bounding_box": _geo_box,
    "geo_polygon": _geo_polygon,
}


def parse_flat(spec: Mapping[Any, Any]) -> Node:
    """Return the tree of `{key: value}`: every key holds its value, or one of its list."""
    parts: list[Node] = []
    for key, value in spec.items():
        if not isinstance(key, str):
            raise InvalidFilterError(f"filter has the key {key!r}; expected text")
        parts.append(_flat(key, json_value(value)))
    return all_of(parts)


def _flat(key: str, value: Any) -> Node:
    where = f"filter[{key!r}]"
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
        hint = did_you_mean(key, CLAUSES, what="clauses")
        if key in CLAUSES:
            hint = "a filter has either Qdrant's clauses or keys and values, not both"
        raise InvalidFilterError(f"{where} holds an object; expected a value or a list of values", hint=hint)
    values = value if isinstance(value, list) else [value]
    if key == "id":
        return HasId(tuple(_id(v, where) for v in values))
    try:
        path = parse_path(key)
    except ValueError:
        path = (key,)
    tests = _any([_scalar(v, where) for v in values if v is not None])
    parts: list[Node] = [Field(path, test, named=True) for test in _simpler(tests)]
    if None in values:
        # Missing or null, but not []: no condition of Qdrant's says just this.
        names = tuple(step for step in path if isinstance(step, str))
        if len(names) < len(path):
            raise InvalidFilterError(f"{where} asks for null inside an array", hint="use is_null")
        missing: Node = IsNullExpr(Column(names))
        parts = [missing] if len(values) == 1 else [*parts, missing]
    return any_of(parts)


def _simpler(tests: Iterable[Test]) -> Iterable[Test]:
    return (MatchValue(t.to[0]) if isinstance(t, MatchAny) and len(t.to) == 1 else t for t in tests)


_KEY: Final = re.compile(r'([\w-]+)|"([^"\\]*)"')
_STEP: Final = re.compile(r'\.(?:([\w-]+)|"([^"\\]*)")|\[([0-9]*)\]')


def parse_path(text: str) -> Path:
    """Return the steps of a JSON path such as `a.b`, `a[0]`, `a[].b` or `"odd key".c`.

    Raises:
        ValueError: The text is no such path.
    """
    steps: list[str | int | None] = []
    at = 0
    while at < len(text) or not steps:
        found = (_STEP if steps else _KEY).match(text, at)
        if found is None:
            raise ValueError(text)
        raw, quoted, *index = found.groups()
        if raw is not None or quoted is not None:
            steps.append(raw if raw is not None else quoted)
        else:
            steps.append(int(index[0]) if index[0] else None)
        at = found.end()
    return tuple(steps)


def _key(given: Mapping[str, Any], where: str) -> Path:
    _only(given, {"key", "field"}, where, "keys")
    if len(given) != 1:
        raise InvalidFilterError(f"{where} has {_quoted(given) or 'no key'}; expected one key")
    ((name, value),) = given.items()
    text = _str(value, f"{where}.{name}")
    try:
        return parse_path(text)
    except ValueError:
        raise InvalidFilterError(
            f"{where}.{name} is {text!r}, which is no path into a payload",
            hint='paths look like a.b, a[0], a[].b or "odd key".c',
        ) from None


# ------------------------------------------------------------- one value at a time


def _only(given: Mapping[Any, Any], known: Iterable[str], where: str, what: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            raise InvalidFilterError(
                f"{where} has {name!r}, which is none of its {what}",
                hint=did_you_mean(str(name), known, what=what),
            )


def _quoted(names: Iterable[Any]) -> str:
    return " and ".join(repr(n) for n in names)


def _expect(value: Any, kind: type[_T] | tuple[type[_T], ...], where: str, what: str) -> _T:
    if not isinstance(value, kind):
        found = "nothing" if value is None else f"{value!r}"
        raise InvalidFilterError(f"{where} is {found}; expected {what}")
    return value


def _dict(value: Any, where: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _expect(value, Mapping, where, "an object")
    return found


def _list(value: Any, where: str) -> list[Any]:
    return list(_expect(json_value(value), list, where, "a list"))


def _str(value: Any, where: str) -> str:
    return _expect(value, str, where, "text")


def _bool(value: Any, where: str) -> bool:
    return _expect(value, bool, where, "true or false")


def _number(value: Any, where: str) -> float:
    found = json_value(value)
    if not is_number(found) or math.isnan(found):
        raise InvalidFilterError(f"{where} is {value!r}; expected a number")
    return float(found) if abs(found) < 1e308 or isinstance(found, float) else math.copysign(math.inf, found)


def _instant(value: Any, where: str) -> Instant:
    found = parse_instant(value) if isinstance(value, str) else json_value(value)
    if not isinstance(found, Instant):
        raise InvalidFilterError(
            f"{where} is {value!r}; expected a date or a time",
            hint="dates look like 2024-12-31, 2024-12-31T23:59:59Z or 2024-12-31 23:59:59.5+01:00",
        )
    return found


def _scalar(value: Any, where: str) -> Any:
    found = json_value(value)
    if not isinstance(found, bool | int | float | str | Instant):
        raise InvalidFilterError(f"{where} holds {value!r}; expected a text, a number, a boolean or a date")
    return found


def _id(value: Any, where: str) -> int | str:
    if isinstance(value, uuid.UUID):
        return str(value)
    found = json_value(value)
    if not isinstance(found, int | str) or isinstance(found, bool):
        raise InvalidFilterError(f"{where} holds {value!r}; expected an id: an integer or text")
    return found


def _place(value: Any, where: str) -> Place:
    given = _dict(value, where)
    _only(given, {"lat", "lon"}, where, "coordinates")
    place = Place(_number(given.get("lat"), f"{where}.lat"), _number(given.get("lon"), f"{where}.lon"))
    if not -90 <= place.lat <= 90 or not -180 <= place.lon <= 180:
        raise InvalidFilterError(
            f"{where} is at lat {place.lat}, lon {place.lon}; expected -90 to 90 and -180 to 180"
        )
    return place
