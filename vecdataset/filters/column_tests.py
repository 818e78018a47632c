"""Qdrant's tests on columns, in Lance's SQL: which rows pass, and which do not.

A null column is a missing key. A list passes when one of its elements does; an element that is
null is a JSON null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from vecdataset.filters.columns import Kind, Scalar, element
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
from vecdataset.filters.expressions import CompareOp
from vecdataset.filters.geo import EARTH_RADIUS_M, GeoBox, GeoPolygon, GeoRadius
from vecdataset.filters.logic import (
    FALSE,
    TRUE,
    Undecidable,
    both,
    either,
    identifier,
    negated,
    not_true,
    string,
)
from vecdataset.filters.text_dates import compared_as_date, is_plain
from vecdataset.filters.values import Instant
from vecdataset.filters.words import words

Guards = list[str]


def scalar_test(scalar: Scalar, test: Test, guards: Guards, *, want: bool) -> str:
    """Return the rows whose value passes, or fails, a test."""
    match test:
        case FieldEmpty(to):
            return f"{scalar.sql} IS {'' if to is want else 'NOT '}NULL"
        case FieldNull(to):
            return FALSE if to is want else TRUE
        case ValuesCount():
            missing = FALSE if test.check(None) is not want else f"{scalar.sql} IS NULL"
            present = FALSE if test.check(0) is not want else f"{scalar.sql} IS NOT NULL"
            return TRUE if FALSE not in {missing, present} else either(missing, present)
        case MatchExcept(values):
            among = _among(scalar, values)
            if want:
                return f"{scalar.sql} IS NOT NULL" if among == FALSE else negated(among)
            return either(f"{scalar.sql} IS NULL", among)
    found = _passes(scalar, test, guards)
    if want:
        return found
    return TRUE if found == FALSE else either(f"{scalar.sql} IS NULL", negated(found))


def _passes(scalar: Scalar, test: Test, guards: Guards) -> str:
    if scalar.kind is Kind.OTHER:
        raise Undecidable
    match test:
        case MatchValue(Instant() as to) if scalar.kind is Kind.TEXT:
            return _dates(scalar, [("=", to)], guards)
        case MatchValue(to):
            return _among(scalar, [to])
        case MatchAny(values):
            return _among(scalar, values)
        case Range():
            return scalar.in_range(test) if scalar.kind in {Kind.INT, Kind.FLOAT} else FALSE
        case TimeRange() if scalar.kind is Kind.TEXT:
            return _dates(scalar, [(op, to) for op, to in bounds_of(test) if isinstance(to, Instant)], guards)
        case TimeRange():
            return scalar.in_range(test) if scalar.kind in {Kind.TIME, Kind.DATE} else FALSE
        case MatchText(kind, text):
            if scalar.kind is not Kind.TEXT:
                return FALSE
            if kind in {"prefix", "substring"}:
                return f"{'starts_with' if kind == 'prefix' else 'contains'}({scalar.sql}, {string(text)})"
            raise Undecidable(_may_hold(scalar, kind, text))
    return FALSE  # a place is an object


def bounds_of(test: Range | TimeRange) -> list[tuple[CompareOp, Any]]:
    """Return the bounds that a range has."""
    bounds: list[tuple[CompareOp, Any]] = [(">", test.gt), (">=", test.gte), ("<", test.lt), ("<=", test.lte)]
    return [(op, to) for op, to in bounds if to is not None]


def _dates(scalar: Scalar, bounds: Sequence[tuple[CompareOp, Instant]], guards: Guards) -> str:
    if not bounds:
        guards.append(is_plain(scalar.sql))
        return f"{scalar.sql} IS NOT NULL"
    found = []
    for op, to in bounds:
        sql, exact = compared_as_date(scalar.sql, op, to)
        found.append(sql)
        guards.extend(exact)
    return both(*found)


def _may_hold(scalar: Scalar, kind: str, text: str) -> str:
    """Return rows that hold the words as parts of words; only ASCII is sure to be lower-cased alike."""
    wanted = dict.fromkeys(words(text))
    found = [f"contains(lower({scalar.sql}), {string(w)})" for w in wanted if w.isascii()]
    if kind == "text_any":
        return either(*found) if len(found) == len(wanted) else f"{scalar.sql} IS NOT NULL"
    return both(f"{scalar.sql} IS NOT NULL", *found) if wanted else FALSE


def _among(scalar: Scalar, values: Iterable[Any]) -> str:
    literals = [scalar.literal_match(v) for v in values]
    return scalar.among([x for x in literals if x is not None])


# ------------------------------------------------------------------------- lists


def list_test(column: Scalar, item: pa.DataType, test: Test, guards: Guards, *, want: bool) -> str:
    """Return the rows where some element passes a test, or none does."""
    count = Scalar(f"cardinality({column.sql})", pa.int32())
    match test:
        case FieldEmpty(to):
            empty = either(f"{column.sql} IS NULL", f"{count.sql} = 0")
            return empty if to is want else f"{count.sql} > 0"
        case FieldNull(to):
            holds_null = _holds_null(column, item)
            return holds_null if to is want else not_true(holds_null)
        case ValuesCount():
            limits = {"lt": test.lt, "lte": test.lte, "gt": test.gt, "gte": test.gte}
            inside = count.in_range(Range(**{k: v for k, v in limits.items() if v is not None}))
            found = either(f"{column.sql} IS NULL", inside) if test.check(None) else inside
            return found if want else not_true(found)
        case MatchValue(to):
            found = either(list_has(column, item, to, as_match=True))
        case MatchAny(values):
            found = list_has_any(column, item, values, as_match=True)
        case MatchExcept(values):
            found = _has_other(column, item, values)
        case Range() | TimeRange():
            found = _some_in_range(column, item, test, guards)
        case _:
            if element(item) is None and not isinstance(test, MatchText) and _is_plain(item):
                return FALSE if want else TRUE
            raise Undecidable(f"{count.sql} > 0")
    return found if want else not_true(found)


def _is_plain(item: pa.DataType) -> bool:
    return Scalar("x", item).kind not in {Kind.OTHER, Kind.LIST}


def _holds_null(column: Scalar, item: pa.DataType) -> str:
    if not _is_plain(item):
        raise Undecidable
    return f"array_position({column.sql}, NULL) IS NOT NULL"


def list_has_any(column: Scalar, item: pa.DataType, values: Sequence[Any], *, as_match: bool = False) -> str:
    """Return the rows whose list holds one of the values."""
    if len(values) < 2 or item not in {pa.utf8(), pa.int64()}:
        return either(*(list_has(column, item, v, as_match=as_match) for v in values))
    inner = Scalar("x", item)
    literals = [inner.literal_match(v) if as_match else inner.literal_equal(v) for v in values]
    known = list(dict.fromkeys(x for x in literals if x is not None))
    return f"array_has_any({column.sql}, [{', '.join(known)}])" if known else FALSE


def list_has(column: Scalar, item: pa.DataType, value: Any, *, as_match: bool = False) -> str:
    """Return the rows whose list holds a value."""
    inner = Scalar("x", item)
    if not _is_plain(item) or item == pa.float16():
        raise Undecidable(f"cardinality({column.sql}) > 0")
    literal = inner.literal_match(value) if as_match else inner.literal_equal(value)
    if literal is None:
        return FALSE
    literals = [literal]
    if inner.kind is Kind.FLOAT and literal == "0.0":
        literals.append("-0.0")  # array_has tells them apart
    if inner.kind in {Kind.INT, Kind.FLOAT} and item not in {pa.int64(), pa.float64()}:
        literals = [f"arrow_cast({x}, '{inner.arrow_name}')" for x in literals]
    return either(*(f"array_has({column.sql}, {x})" for x in literals))


def _has_other(column: Scalar, item: pa.DataType, values: Sequence[Any]) -> str:
    some = f"cardinality({column.sql}) > 0"
    if item not in {pa.utf8(), pa.int64()} or pa.types.is_fixed_size_list(column.type):
        raise Undecidable(some)
    inner = Scalar("x", item)
    literals = [x for x in map(inner.literal_match, values) if x is not None]
    if not literals:
        raise Undecidable(some)
    rest = f"array_except({column.sql}, [{', '.join(literals)}])"
    # A null element is left over as well, once.
    no_null = f"array_position({column.sql}, NULL) IS NULL"
    return either(f"cardinality({rest}) > 1", both(f"cardinality({rest}) = 1", no_null))


def _some_in_range(column: Scalar, item: pa.DataType, test: Range | TimeRange, guards: Guards) -> str:
    inner = Scalar("x", item)
    numbers, times = {Kind.INT, Kind.FLOAT}, {Kind.TIME, Kind.DATE}
    if inner.kind not in numbers | times | {Kind.BOOL, Kind.TEXT}:
        raise Undecidable
    right = numbers if isinstance(test, Range) else times | {Kind.TEXT}
    if inner.kind not in right:
        return FALSE
    if inner.kind in {Kind.FLOAT, Kind.TEXT}:
        raise Undecidable(f"cardinality({column.sql}) > 0")
    most = Scalar(f"array_max({column.sql})", item)
    least = Scalar(f"array_min({column.sql})", item)
    above = most.in_range(type(test)(gt=test.gt, gte=test.gte))  # type: ignore[arg-type]  # its own bounds
    below = least.in_range(type(test)(lt=test.lt, lte=test.lte))  # type: ignore[arg-type]  # its own bounds
    if len({op[0] for op, _ in bounds_of(test)}) < 2:
        return both(above, below)
    # An end of the list inside the range is enough; ends on its two sides say nothing of what is between.
    over = most.in_range(type(test)(lt=test.lt, lte=test.lte))  # type: ignore[arg-type]  # its own bounds
    under = least.in_range(type(test)(gt=test.gt, gte=test.gte))  # type: ignore[arg-type]  # its own bounds
    guards.append(not_true(both(negated(over), negated(under))))
    return either(most.in_range(test), least.in_range(test))


# ----------------------------------------------------------------------- objects


def struct_test(path: Sequence[str], kind: pa.DataType, test: Test, *, want: bool) -> str:
    """Return the rows whose struct `{lat, lon}` passes a test of places."""
    if not isinstance(test, GeoBox | GeoRadius | GeoPolygon):
        raise Undecidable
    sides = {}
    for name in ("lat", "lon"):
        at = kind.get_field_index(name)
        if at < 0:
            return FALSE if want else TRUE
        sides[name] = Scalar(identifier([*path, name]), kind.field(at).type)
        if sides[name].kind not in {Kind.INT, Kind.FLOAT}:
            raise Undecidable
    lat, lon = sides["lat"], sides["lon"]
    if isinstance(test, GeoBox):
        south, north = test.bottom_right.lat, test.top_left.lat
        west, east = test.top_left.lon, test.bottom_right.lon
        if west > east:
            across = either(lon.in_range(Range(gt=west, lte=_MOST)), lon.in_range(Range(lt=east, gte=-_MOST)))
        else:
            across = lon.in_range(Range(gt=west, lt=east))
        found = both(lat.in_range(Range(gt=south, lt=north)), across)
        return found if want else not_true(found)
    raise Undecidable(_around(test, lat, lon))


_MOST = 1.7976931348623157e308


def _around(test: GeoRadius | GeoPolygon, lat: Scalar, lon: Scalar) -> str:
    """Return a box of latitudes and longitudes that surely holds the shape."""
    if isinstance(test, GeoPolygon):
        lats, lons = [p.lat for p in test.exterior], [p.lon for p in test.exterior]
        north_south, west_east = Range(gte=min(lats), lte=max(lats)), Range(gte=min(lons), lte=max(lons))
        return both(lat.in_range(north_south), lon.in_range(west_east))
    angle = max(test.radius_m, 0.0) / EARTH_RADIUS_M * 1.000001 + 1e-11
    at = math.radians(test.center.lat)
    if not abs(at) + angle < math.pi / 2 or abs(test.center.lon) > 180:
        return f"{lat.sql} IS NOT NULL"  # a pole is inside, and with it every longitude
    reach = math.degrees(angle)
    inside = lat.in_range(Range(gte=test.center.lat - reach, lte=test.center.lat + reach))
    # The meridians that touch a circle on the globe.
    aside = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(at)))) * 1.000001 + 1e-9
    west, east = test.center.lon - aside, test.center.lon + aside
    if west < -180 or east > 180:
        west, east = (west + 360, east) if west < -180 else (west, east - 360)
        beside = either(lon.in_range(Range(gte=west)), lon.in_range(Range(lte=east)))
    else:
        beside = lon.in_range(Range(gte=west, lte=east))
    # Degrees beyond the globe's come round again.
    beyond = (
        lat.in_range(Range(lt=-90.0)), lat.in_range(Range(gt=90.0)),
        lon.in_range(Range(lt=-180.0)), lon.in_range(Range(gt=180.0)),
    )  # fmt: skip
    return either(both(inside, beside), *beyond)
