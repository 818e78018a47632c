"""Conditions: the leaves of Qdrant's filters, true or false for every point.

The rules are those of Qdrant 1.20 without payload indexes (`lib/segment/src/payload_storage/
condition_checker.rs` and `query_checker.rs`), checked against its engine.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from vecdataset.filters.geo import GeoBox, GeoPolygon, GeoRadius
from vecdataset.filters.tree import Node, Path, Row, values_at
from vecdataset.filters.values import Instant, as_double, compare, is_number, json_value, parse_instant
from vecdataset.filters.words import has_phrase, words


@dataclass(frozen=True, slots=True)
class MatchValue:
    """Equal and of the same type."""

    to: Any
    """A bool, int or str; code may also ask for a float, equal to any number of its size, or an `Instant`."""

    def check(self, value: Any) -> bool:
        """Test one value."""
        if isinstance(self.to, bool) or isinstance(value, bool):
            return self.to is value
        if isinstance(self.to, int):
            return isinstance(value, int) and value == self.to and -(1 << 63) <= value < 1 << 63
        return compare(value, self.to) == 0


@dataclass(frozen=True, slots=True)
class MatchAny:
    """Equal to one of the list."""

    to: tuple[Any, ...]
    """Texts, or integers, never both."""
    _members: frozenset[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_members", frozenset(self.to))

    def check(self, value: Any) -> bool:
        """Test one value."""
        return _is_member(value, self._members)


@dataclass(frozen=True, slots=True)
class MatchExcept:
    """Anything but null and the values of the list."""

    to: tuple[Any, ...]
    """Texts, or integers, never both."""
    _members: frozenset[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_members", frozenset(self.to))

    def check(self, value: Any) -> bool:
        """Test one value."""
        return value is not None and not _is_member(value, self._members)


def _is_member(value: Any, members: frozenset[Any]) -> bool:
    if isinstance(value, str):
        return value in members
    if isinstance(value, int) and not isinstance(value, bool):
        return value in members and -(1 << 63) <= value < 1 << 63
    # Only instants still have something to be equal to: a text that names them.
    return isinstance(value, Instant) and any(compare(value, to) == 0 for to in members)


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


class _AtPath(Node):
    __slots__ = ()
    path: Path

    @property
    def key(self) -> str | None:
        """The first step of the path."""
        first = self.path[0]
        return first if isinstance(first, str) else None


@dataclass(frozen=True, slots=True)
class Field(_AtPath):
    """A test of the values under a path; arrays pass when one of their elements does."""

    path: Path
    test: Test
    named: bool = field(default=False, repr=False, compare=False)
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
class IsEmpty(_AtPath):
    """Every value under the path is null or `[]`, or there is none."""

    path: Path

    def value(self, row: Row) -> bool:
        """Test every value that the path selects."""
        return all(map(is_empty, values_at(row.payload, self.path)))


@dataclass(frozen=True, slots=True)
class IsNull(_AtPath):
    """Some value under the path is null, or an array with a null in it."""

    path: Path

    def value(self, row: Row) -> bool:
        """Test every value that the path selects."""
        return any(map(is_null, values_at(row.payload, self.path)))


def canonical_uuid(text: str) -> str | None:
    """Return the lower-case form of a UUID spelled in one of the ways that Qdrant takes."""
    return str(uuid.UUID(text)) if _UUID.fullmatch(text) else None


_HYPHENATED: Final = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_UUID: Final = re.compile(rf"[0-9a-fA-F]{{32}}|(?:urn:uuid:)?{_HYPHENATED}|\{{{_HYPHENATED}\}}")


@dataclass(frozen=True, slots=True)
class HasId(Node):
    """The point's id is one of these."""

    ids: tuple[int | str, ...]
    _members: frozenset[int | str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_members", all_spellings(self.ids))

    @property
    def members(self) -> frozenset[int | str]:
        """The ids, UUIDs in their canonical form too."""
        return self._members

    def value(self, row: Row) -> bool:
        """Look the id up; UUIDs are the same in every spelling."""
        return isinstance(row.id, int | str) and row.id in self._members


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
class Nested(_AtPath):
    """Some single object in the array under the path passes the whole filter."""

    path: Path
    """Ends with None: the elements."""
    filter: Node

    def value(self, row: Row) -> bool:
        """Test each object; ids and vectors are not to be found inside."""
        objects = values_at(row.payload, self.path)
        return any(self.filter.value(Row(o)) is True for o in objects if isinstance(o, dict))

    def parts(self) -> Iterator[Node]:
        """Yield nothing: the filter inside looks at other rows."""
        return iter(())
