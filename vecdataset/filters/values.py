"""What one payload value is to a filter: plain JSON, and instants for dates and times.

Everything that compares values does it here, so that Arrow, NumPy and JSON values of the
same meaning are the same value. Numbers compare exactly (`int` with `float` too), NaN is
equal to itself and larger than any number, as in DuckDB and Lance.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np

_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _NS
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """A point in time; dates are their midnight, and what has no zone is UTC."""

    ns: int
    """Nanoseconds since 1970-01-01T00:00:00Z."""

    def isoformat(self) -> str:
        """Return RFC 3339 text, with as many digits as are needed."""
        days, ns = divmod(self.ns, _DAY_NS)
        seconds, fraction = divmod(ns, _NS)
        digits = f"{fraction:09d}".rstrip("0")
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{_civil(days)}T{clock}{'.' + digits if digits else ''}Z"


class Opaque:
    """A value that no comparison knows, such as bytes: present, and equal to nothing."""


OPAQUE: Final = Opaque()


def json_value(value: Any) -> Any:
    """Return `value` as None, bool, int, float, str, list, dict, `Instant` or `OPAQUE`.

    Elements of lists and dicts are left as they are until they are looked at.
    """
    if value is None or isinstance(value, bool | int | float | str | list | dict | Instant):
        return value
    if isinstance(value, dt.date):
        return instant(value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else Instant(int(value.astype("datetime64[ns]").astype(np.int64)))
    if isinstance(value, np.timedelta64):
        return OPAQUE
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return OPAQUE


def instant(value: dt.date) -> Instant:
    """Return the instant of a `datetime` or `date`."""
    if not isinstance(value, dt.datetime):
        return Instant((value.toordinal() - _EPOCH.toordinal()) * _DAY_NS)
    aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    delta = aware - _EPOCH
    # A pandas Timestamp is a datetime with nanoseconds beside it.
    extra = int(getattr(value, "nanosecond", 0))
    return Instant((delta.days * 86_400 + delta.seconds) * _NS + delta.microseconds * 1000 + extra)


# What chrono reads in Qdrant, found by trying its engine: one or two digits, any number of
# fraction digits, a zone only after seconds, a leap second, the Unicode minus.
_DATETIME: Final = re.compile(
    r"\s*(?P<year>[+-][0-9]{1,6}|[0-9]{1,4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:(?:[Tt]|\s+)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})"
    r"(?::(?P<second>[0-9]{1,2})(?:\.(?P<fraction>[0-9]+))?"
    r"(?:\s*(?:[Zz]|UTC|(?P<sign>[+\-\u2212])(?P<zh>[0-9]{2})(?::?(?P<zm>[0-9]{2}))?)\s*)?)?)?"
)


def parse_instant(text: str) -> Instant | None:
    """Return the instant that a text names, as Qdrant reads it; None when it names none."""
    found = _DATETIME.fullmatch(text)
    if found is None:
        return None
    part = {k: v or "0" for k, v in found.groupdict().items()}
    year, month, day = int(part["year"]), int(part["month"]), int(part["day"])
    hour, minute, second = int(part["hour"]), int(part["minute"]), int(part["second"])
    zone_h, zone_m = int(part["zh"]), int(part["zm"])
    if not 1 <= month <= 12 or not 1 <= day <= _month_days(year, month):
        return None
    if hour > 23 or minute > 59 or second > 60 or zone_h > 23 or zone_m > 59:
        return None
    fraction = int(part["fraction"][:9].ljust(9, "0"))
    if second == 60:
        second, fraction = 59, _NS - 1
    offset = (zone_h * 60 + zone_m) * 60 * (1 if part["sign"] == "+" else -1)
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second - offset
    return Instant(seconds * _NS + fraction)


def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in {4, 6, 9, 11} else 31


def _days(year: int, month: int, day: int) -> int:
    # Days since 1970-01-01 for any year; Howard Hinnant, "chrono-compatible low-level date
    # algorithms", days_from_civil. Python's own dates end at the years 1 and 9999.
    y = year - (month <= 2)
    era, yoe = divmod(y, 400)
    doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719_468


def _civil(days: int) -> str:
    era, doe = divmod(days + 719_468, 146_097)
    yoe = (doe - doe // 1460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = mp + (3 if mp < 10 else -9)
    year = yoe + era * 400 + (month <= 2)
    shown = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    return f"{shown}-{month:02d}-{doy - (153 * mp + 2) // 5 + 1:02d}"


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_double(number: float) -> float:
    """Return a number as the double that Qdrant compares; integers beyond its range become infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def compare(a: Any, b: Any) -> int | None:
    """Return -1, 0 or 1 as `a` is before, equal to or after `b`; None when they do not compare."""
    a, b = json_value(a), json_value(b)
    if is_number(a) and is_number(b):
        return _order_numbers(a, b)
    if isinstance(a, Instant) or isinstance(b, Instant):
        a = parse_instant(a) if isinstance(a, str) else a
        b = parse_instant(b) if isinstance(b, str) else b
        return _order(a.ns, b.ns) if isinstance(a, Instant) and isinstance(b, Instant) else None
    if (isinstance(a, str) and isinstance(b, str)) or (isinstance(a, bool) and isinstance(b, bool)):
        return _order(a, b)
    return None


def _order(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


def _order_numbers(a: float, b: float) -> int:
    a_nan, b_nan = a != a, b != b  # noqa: PLR0124  only NaN differs from itself
    return _order(a_nan, b_nan) if a_nan or b_nan else _order(a, b)


def same_list(a: Any, b: Any) -> bool | None:
    """Return whether two lists are equal, element by element; None when an element does not compare.

    As in DuckDB, a null inside a list equals a null.
    """
    if len(a) != len(b):
        return False
    out: bool | None = True
    for x, y in zip(a, b, strict=True):
        x, y = json_value(x), json_value(y)  # noqa: PLW2901  the same value, normalised
        if x is None or y is None:
            same: bool | None = x is y
        elif isinstance(x, list) and isinstance(y, list):
            same = same_list(x, y)
        else:
            order = compare(x, y)
            same = None if order is None else order == 0
        if same is False:
            return False
        out = out and same
    return out
