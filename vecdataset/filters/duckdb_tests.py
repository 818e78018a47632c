"""Qdrant's tests in DuckDB's SQL: true for the values that pass, false or null for the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

from vecdataset.filters.columns import Kind, neighbours
from vecdataset.filters.conditions import (
    FieldEmpty,
    FieldNull,
    MatchAny,
    MatchExcept,
    MatchText,
    MatchValue,
    Range,
    Test,
    TimeRange,
    ValuesCount,
)
from vecdataset.filters.duckdb_values import (
    Names,
    Value,
    any_item,
    both_of,
    compared_to,
    double,
    either_of,
    inside,
    instant_of,
    literal,
    nanoseconds,
    words_of,
)
from vecdataset.filters.geo import EARTH_RADIUS_M, GeoBox, GeoPolygon, GeoRadius, Place
from vecdataset.filters.logic import FALSE
from vecdataset.filters.values import Instant, parse_instant
from vecdataset.filters.words import words

_I64: Final = 1 << 63
_EXACT: Final = 1 << 53


def field_test(value: Value, test: Test, names: Names) -> str:
    """Return SQL for whether a value passes a test; of an array, whether one element does."""
    match test:
        case ValuesCount():
            return _counted(value, test)
        case FieldEmpty(to):
            return empty(value) if to else f"NOT ({empty(value)})"
        case FieldNull(to):
            return null(value, names) if to else f"({null(value, names)}) IS NOT TRUE"
    items = value.items
    if items is None:
        return passes(value, test, names)
    if value.type is None:
        # One list for both, so that the test is written once.
        items = f"{items.removesuffix(' END')} ELSE [{value.sql}] END"
    return any_item(items, names, lambda v: passes(value.item(v), test, names))


def empty(value: Value) -> str:
    """Return SQL for whether a value that is there is null or an empty array."""
    if value.type is None:
        length = f"json_array_length({value.sql}) = 0"
        return f"{value.null} OR (json_type({value.sql}) = 'ARRAY' AND {length})"
    if value.items is None:
        return value.null
    return f"{value.null} OR len({value.sql}) = 0"


def null(value: Value, names: Names) -> str:
    """Return SQL for whether a value that is there is null or an array with a null in it."""
    if value.items is None:
        return value.null
    return either_of(value.null, any_item(value.items, names, lambda v: value.item(v).null))


def _counted(value: Value, test: ValuesCount) -> str:
    if value.type is None:
        kinds = f"WHEN 'NULL' THEN 0 WHEN 'ARRAY' THEN json_array_length({value.sql}) ELSE 1"
        count = f"CASE json_type({value.sql}) {kinds} END"
    elif value.items is None:
        count = f"CASE WHEN {value.null} THEN 0 ELSE 1 END"
    else:
        count = f"coalesce(len({value.sql}), 0)"
    bounds = [(">", test.gt), (">=", test.gte), ("<", test.lt), ("<=", test.lte)]
    return both_of(*(f"({count}) {op} {to}" for op, to in bounds if to is not None))


def passes(value: Value, test: Test, names: Names) -> str:
    """Return SQL for whether a value that is no array passes a test."""
    match test:
        case MatchValue(to):
            return _equal(value, [to], names)
        case MatchAny(to):
            return _equal(value, to, names)
        case MatchExcept(to):
            return both_of(f"NOT ({value.null})", f"({_equal(value, to, names)}) IS NOT TRUE")
        case MatchText():
            return _text(value, test, names)
        case Range():
            return _in_range(value, test)
        case TimeRange():
            return _in_time(value, test, names)
        case GeoBox() | GeoRadius() | GeoPolygon():
            return _on_globe(value, test, names)
    return FALSE


def _equal(value: Value, members: Iterable[Any], names: Names) -> str:
    """Return SQL for whether a value is one of these, and of its type."""
    kinds = value.kinds()
    texts: list[str] = []
    ints: list[int] = []
    found: list[str] = []
    for to in members:
        if isinstance(to, bool):
            if Kind.BOOL in kinds:
                found.append(kinds[Kind.BOOL] if to else f"NOT ({kinds[Kind.BOOL]})")
        elif isinstance(to, str):
            texts.append(to)
            moment = parse_instant(to)
            if Kind.TIME in kinds and moment is not None:
                found.append(f"{kinds[Kind.TIME]} = {nanoseconds(moment)}")
        elif isinstance(to, Instant):
            found += [f"{ns} = {nanoseconds(to)}" for ns in _moments(value, names)]
        elif isinstance(to, int):
            ints += [to] if -_I64 <= to < _I64 else []
        elif isinstance(to, float):
            found += _numbers_equal(value, to)
    if texts and Kind.TEXT in kinds:
        found.append(_among(kinds[Kind.TEXT], [literal(t) for t in texts]))
    if ints and Kind.INT in kinds:
        found.append(_among(kinds[Kind.INT], [str(i) for i in ints]))
    if ints and value.json_number:
        whole = [double(float(i)) for i in ints if float(i) == i]
        found += [_among(value.sql, whole)] if whole else []
    return either_of(*found)


def _among(sql: str, literals: Sequence[str]) -> str:
    literals = list(dict.fromkeys(literals))
    return (
        f"{inside(sql)} = {literals[0]}"
        if len(literals) == 1
        else f"{inside(sql)} IN ({', '.join(literals)})"
    )


def _moments(value: Value, names: Names) -> list[str]:
    kinds = value.kinds()
    found = [kinds[Kind.TIME]] if Kind.TIME in kinds else []
    return [*found, instant_of(kinds[Kind.TEXT], names)] if Kind.TEXT in kinds else found


def _numbers_equal(value: Value, to: float) -> list[str]:
    kinds = value.kinds()
    found = [f"{inside(kinds[Kind.FLOAT])} = {double(to)}"] if Kind.FLOAT in kinds else []
    if Kind.INT in kinds and math.isfinite(to) and to.is_integer() and abs(to) < 1e38:
        found.append(f"{inside(kinds[Kind.INT])} = {int(to)}")
    return found


def _in_range(value: Value, test: Range) -> str:
    kinds = value.kinds()
    bounds = [(op, to) for op, to in (
        (">", test.gt), (">=", test.gte), ("<", test.lt), ("<=", test.lte),
    ) if to is not None]  # fmt: skip
    found = []
    if Kind.INT in kinds:
        sql = inside(kinds[Kind.INT])
        # Qdrant compares integers as doubles; below 2**53 that is the same as comparing integers.
        whole = all(abs(to) < _EXACT for _, to in bounds)
        if whole:
            parts = [f"{sql} {_whole(op, to)}" for op, to in bounds]
        else:
            parts = [f"CAST({sql} AS DOUBLE) {_as_double(op, to)}" for op, to in bounds]
        found.append(both_of(*parts) if parts else f"{sql} IS NOT NULL")
    if Kind.FLOAT in kinds:
        sql = inside(kinds[Kind.FLOAT])
        parts = [f"{sql} {_as_double(op, to)}" for op, to in bounds]
        found.append(both_of(*parts) if parts else f"{sql} IS NOT NULL")
    return either_of(*found)


def _whole(op: str, to: float) -> str:
    """Return the comparison of an integer with a number as one with an integer."""
    if op in {">", "<="}:
        return f"{op} {math.floor(to)}"
    return f"{op} {math.ceil(to)}"


def _as_double(op: str, to: float) -> str:
    """Return the comparison of a double with a number that need not be one."""
    down, up = neighbours(to, 64)
    if down == up:
        return f"{op} {compared_to(down)}"
    return f">= {compared_to(up)}" if op in {">", ">="} else f"<= {compared_to(down)}"


def _in_time(value: Value, test: TimeRange, names: Names) -> str:
    bounds = [(op, to) for op, to in (
        (">", test.gt), (">=", test.gte), ("<", test.lt), ("<=", test.lte),
    ) if to is not None]  # fmt: skip
    plain = _plain_time(value, bounds)
    if plain is not None:
        return plain
    found = []
    for ns in _moments(value, names):
        if len(bounds) > 1:
            name = names.new()
            tests = both_of(*(f"{name} {op} {nanoseconds(to)}" for op, to in bounds))
            found.append(f"list_transform([{ns}], lambda {name}: {tests})[1]")
        else:
            found += [f"({ns}) {op} {nanoseconds(to)}" for op, to in bounds] or [f"({ns}) IS NOT NULL"]
    return either_of(*found)


def _plain_time(value: Value, bounds: Sequence[tuple[str, Instant]]) -> str | None:
    """Return a column of times compared as it is, for DuckDB to push down; None if that is not exact."""
    kind = value.type
    if kind is None or not pa.types.is_timestamp(kind) or kind.unit != "us" or not bounds:
        return None
    name = "TIMESTAMPTZ" if kind.tz else "TIMESTAMP"
    zone = "+00" if kind.tz else ""
    parts = []
    for op, to in bounds:
        text = to.isoformat().removesuffix("Z")
        if to.ns % 1_000 or not _four_digits(text):
            return None
        parts.append(f"{value.sql} {op} {name} '{text.replace('T', ' ')}{zone}'")
    return both_of(*parts)


def _four_digits(text: str) -> bool:
    """Return whether a date has a year of four digits after Christ, which every reader knows."""
    return text[:4].isdigit() and text[:4] != "0000" and text[4] == "-"


def _text(value: Value, test: MatchText, names: Names) -> str:
    kinds = value.kinds()
    if Kind.TEXT not in kinds:
        return FALSE
    sql = kinds[Kind.TEXT]
    if test.kind in {"prefix", "substring"}:
        name = "starts_with" if test.kind == "prefix" else "contains"
        return f"{name}({sql}, {literal(test.text)})"
    want = words(test.text)
    if not want:
        return FALSE
    have = words_of(sql, names)
    if test.kind == "phrase":
        phrase = literal(f" {' '.join(want)} ")
        return f"contains(' ' || array_to_string({have}, ' ') || ' ', {phrase})"
    listed = ", ".join(map(literal, dict.fromkeys(want)))
    return f"list_has_{'any' if test.kind == 'text_any' else 'all'}({have}, [{listed}])"


# ------------------------------------------------------------------------------ places


def _on_globe(value: Value, test: GeoBox | GeoRadius | GeoPolygon, names: Names) -> str:
    lat, lon = value.field("lat"), value.field("lon")
    sides = [None if side is None else side.number() for side in (lat, lon)]
    if sides[0] is None or sides[1] is None:
        return FALSE
    name = names.new()
    y, x = f"{name}.lat", f"{name}.lon"
    match test:
        case GeoBox():
            tested = _in_box(test, y, x)
        case GeoRadius():
            tested = _in_radius(test, y, x)
        case GeoPolygon():
            tested = _in_polygon(test, y, x)
    finite = both_of(f"isfinite({name}.lat)", f"isfinite({name}.lon)")
    place = f"struct_pack(lat := {sides[0]}, lon := {sides[1]})"
    return f"list_transform([{place}], lambda {name}: {both_of(finite, tested)})[1]"


def _in_box(box: GeoBox, lat: str, lon: str) -> str:
    south, north = _d(box.bottom_right.lat), _d(box.top_left.lat)
    west, east = box.top_left.lon, box.bottom_right.lon
    parts = f"{lon} > {_d(west)}", f"{lon} < {_d(east)}"
    across = either_of(*parts) if west > east else both_of(*parts)
    return both_of(f"{lat} > {south}", f"{lat} < {north}", across)


def _in_radius(circle: GeoRadius, lat: str, lon: str) -> str:
    at, to = math.radians(circle.center.lat), math.radians(circle.center.lon)
    half = f"pow(sin((radians({lat}) - {_d(at)}) / 2), 2)"
    across = f"pow(sin((radians({lon}) - {_d(to)}) / 2), 2)"
    h = f"{half} + {_d(math.cos(at))} * cos(radians({lat})) * {across}"
    return f"{_d(EARTH_RADIUS_M)} * 2 * asin(sqrt(least(1e0, {h}))) < {_d(circle.radius_m)}"


def _in_polygon(shape: GeoPolygon, lat: str, lon: str) -> str:
    edge, within = _ring(shape.exterior, lat, lon)
    parts = [f"NOT ({edge})", f"({within}) % 2 = 1"]
    for hole in shape.interiors:
        edge, within = _ring(hole, lat, lon)
        parts += [f"NOT ({edge})", f"({within}) % 2 = 0"]
    return both_of(*parts)


def _ring(ring: Sequence[Place], lat: str, lon: str) -> tuple[str, str]:
    """Return whether a place is on an edge of a ring, and how many edges lie to its east (`geo.py`)."""
    on, crossed = [], []
    for a, b in itertools.pairwise(ring):
        cross = f"{_d(b.lon - a.lon)} * ({lat} - {_d(a.lat)}) - {_d(b.lat - a.lat)} * ({lon} - {_d(a.lon)})"
        near = [
            f"{side} BETWEEN {_d(min(x, y))} AND {_d(max(x, y))}"
            for side, x, y in ((lon, a.lon, b.lon), (lat, a.lat, b.lat))
        ]
        on.append(both_of(f"{cross} = 0", *near))
        sides = f"({_d(a.lat)} > {lat}) <> ({_d(b.lat)} > {lat})"
        turned = f"({cross} > 0)" if b.lat > a.lat else f"NOT ({cross} > 0)"
        crossed.append(f"CAST({both_of(sides, turned)} AS INTEGER)")
    return either_of(*on), " + ".join(crossed)


def _d(number: float) -> str:
    return f"({double(number)})" if number < 0 else double(number)
