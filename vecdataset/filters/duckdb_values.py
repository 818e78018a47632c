"""Payload values in DuckDB's SQL: columns, what lies inside them, and JSON.

A value is an expression with an Arrow type, or JSON of any type. `kinds` splits it into what filters
compare: one expression for each kind that the value may have, null where it has another. So the tests
above are written once, over columns and JSON alike, and never fail for a row.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from vecdataset.errors import NotSupportedError
from vecdataset.filters.columns import Kind, element
from vecdataset.filters.logic import FALSE, TRUE, string
from vecdataset.filters.tree import Path
from vecdataset.filters.values import Instant
from vecdataset.filters.words import word_class

NULL: Final = "NULL::BOOLEAN"
_UNIT_NS: Final = {"s": 1_000, "ms": 1_000, "us": 1_000, "ns": 1}
_DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Names:
    """Names for the variables of lambdas, each given once."""

    _count: Iterator[int] = field(default_factory=itertools.count)

    def new(self) -> str:
        """Return one more."""
        return f"v{next(self._count)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An SQL expression for one value."""

    sql: str
    type: pa.DataType | None
    """None for JSON."""
    there: str = TRUE
    """SQL for whether there is a value at all; a null inside an object or array is one."""
    json_number: bool = False
    """A double that is a JSON integer where it is whole."""

    @property
    def null(self) -> str:
        """SQL for whether the value that is there is null."""
        return f"json_type({self.sql}) = 'NULL'" if self.type is None else f"{self.sql} IS NULL"

    # -- inside

    def field(self, name: str) -> Value | None:
        """Return the value under a key; None where there never is one."""
        if self.type is None:
            found = json_at(self.sql, (name,))
            return Value(sql=found, type=None, there=f"{found} IS NOT NULL")
        if pa.types.is_struct(self.type):
            at = self.type.get_field_index(name)
            if at < 0:
                return None
            return Value(
                sql=f"{self.sql}.{quoted(name)}",
                type=self.type.field(at).type,
                there=f"{self.sql} IS NOT NULL",
            )
        return None

    def at(self, index: int) -> Value | None:
        """Return the value at a place of an array."""
        if self.type is None:
            found = json_at(self.sql, (index,))
            return Value(sql=found, type=None, there=f"{found} IS NOT NULL")
        item = element(self.type)
        if item is None:
            return None
        return Value(sql=f"{self.sql}[{index + 1}]", type=item, there=f"len({self.sql}) > {index}")

    @property
    def items(self) -> str | None:
        """SQL for the list of the elements, null where this is no array; None where it never is."""
        if self.type is None:
            return f"CASE WHEN json_type({self.sql}) = 'ARRAY' THEN json_extract({self.sql}, '$[*]') END"
        return None if element(self.type) is None else self.sql

    def item(self, name: str) -> Value:
        """Return the element that a lambda calls by this name."""
        return Value(sql=name, type=None if self.type is None else element(self.type))

    # -- kinds

    def kinds(self) -> dict[Kind, str]:
        """Return an expression for each kind that the value may have, null where it has another."""
        x, kind = self.sql, self.type
        if kind is None:
            return {
                Kind.TEXT: f"CASE WHEN json_type({x}) = 'VARCHAR' THEN {x} ->> '$' END",
                Kind.INT: (
                    f"CASE WHEN json_type({x}) IN ('UBIGINT', 'BIGINT') THEN TRY_CAST({x} AS HUGEINT) END"
                ),
                Kind.FLOAT: f"CASE WHEN json_type({x}) = 'DOUBLE' THEN TRY_CAST({x} AS DOUBLE) END",
                Kind.BOOL: f"CASE WHEN json_type({x}) = 'BOOLEAN' THEN ({x} ->> '$') = 'true' END",
            }
        types = pa.types
        if types.is_dictionary(kind):
            return Value(sql=x, type=kind.value_type).kinds()
        if types.is_boolean(kind):
            return {Kind.BOOL: x}
        if types.is_integer(kind):
            return {Kind.INT: x}
        if types.is_float64(kind):
            return {Kind.FLOAT: x}
        if types.is_floating(kind) or types.is_decimal(kind):
            return {Kind.FLOAT: f"CAST({x} AS DOUBLE)"}
        if types.is_string(kind) or types.is_large_string(kind):
            return {Kind.TEXT: x}
        if types.is_timestamp(kind):
            since = f"epoch_ns({x})" if kind.unit == "ns" else f"epoch_us({x})"
            return {Kind.TIME: f"CAST({since} AS HUGEINT) * {_UNIT_NS[kind.unit]}"}
        if types.is_date32(kind):
            return {Kind.TIME: f"CAST({x} - DATE '1970-01-01' AS HUGEINT) * {_DAY_NS}"}
        return {}

    def number(self) -> str | None:
        """Return the value as a double, null where it is no number; None where it never is."""
        kinds = self.kinds()
        parts = [f"CAST({kinds[k]} AS DOUBLE)" for k in (Kind.INT, Kind.FLOAT) if k in kinds]
        return coalesced(parts) if parts else None


def some(
    value: Value, path: Path, names: Names, test: Callable[[Value], str], *, present: bool = False
) -> str:
    """Return SQL for whether some value that a path selects passes a test.

    Args:
        value: Where the path begins.
        path: Keys, indices, and None for each element.
        names: For lambdas.
        test: Makes SQL of a value; of one that is not there it is null or false, or `present` says so.
        present: Ask first whether the value is there.
    """
    if not path:
        return both_of(value.there, test(value)) if present else test(value)
    step, rest = path[0], path[1:]
    if step is None:
        items = value.items
        if items is None:
            refuse_map(value)
            return FALSE
        return any_item(items, names, lambda v: some(value.item(v), rest, names, test, present=present))
    inside = value.field(step) if isinstance(step, str) else value.at(step)
    if inside is None:
        refuse_map(value)
        return FALSE
    return some(inside, rest, names, test, present=present)


def any_item(items: str, names: Names, test: Callable[[str], str]) -> str:
    """Return SQL for whether some element of a list passes a test; null for no list."""
    name = names.new()
    return f"len(list_filter({items}, lambda {name}: {test(name)})) > 0"


def refuse_map(value: Value) -> None:
    """Say that DuckDB does not see into a value's type, where it does not."""
    if value.type is not None and (pa.types.is_map(value.type) or pa.types.is_union(value.type)):
        raise NotSupportedError(f"values of type {value.type} cannot be looked into in DuckDB's SQL")


# ------------------------------------------------------------------------- text of SQL


def literal(text: str) -> str:
    """Return a text as DuckDB reads it; the parser of 1.5 stops at a NUL."""
    parts = [string(part) for part in text.split("\0")]
    return parts[0] if len(parts) == 1 else f"({' || chr(0) || '.join(parts)})"


def quoted(name: str) -> str:
    """Return a name as DuckDB reads it."""
    return '"' + name.replace('"', '""') + '"'


def both_of(*parts: str) -> str:
    """Return the conjunction of parts, each in parentheses where it needs them."""
    kept = list(dict.fromkeys(p for p in parts if p != TRUE))
    if FALSE in kept:
        return FALSE
    return _joined(" AND ", kept) if kept else TRUE


def either_of(*parts: str) -> str:
    """Return the disjunction of parts, each in parentheses where it needs them."""
    kept = list(dict.fromkeys(p for p in parts if p != FALSE))
    if TRUE in kept:
        return TRUE
    return _joined(" OR ", kept) if kept else FALSE


def _joined(word: str, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else word.join(map(inside, parts))


def inside(sql: str) -> str:
    """Return SQL in parentheses unless it is one thing."""
    return sql if _ONE.fullmatch(sql) else f"({sql})"


_ONE: Final = re.compile(r"""(?:\w|\.|::|"(?:[^"]|"")*"|'(?:[^']|'')*')+|\w+\([^()']*\)""")


def coalesced(parts: list[str]) -> str:
    """Return the first of the parts that is not null."""
    return parts[0] if len(parts) == 1 else f"coalesce({', '.join(parts)})"


def json_at(sql: str, path: tuple[str | int, ...]) -> str:
    """Return the JSON under a path, null where nothing is there."""
    for step in path:
        if isinstance(step, int):
            where = f"$[{step}]"
        elif step and not set(step) & {'"', "\\", "*"}:  # DuckDB 1.5 takes "*" for any key
            where = f'$."{step}"'
        else:
            where = "/" + step.replace("~", "~0").replace("/", "~1")
        sql = f"json_extract({sql}, {literal(where)})"
    return sql


def double(number: float) -> str:
    """Return a double as a literal; DuckDB reads one without an exponent as a decimal."""
    if not math.isfinite(number):
        return f"'{number!r}'::DOUBLE"
    text = repr(number + 0.0)
    return text if "e" in text else text + "e0"


def compared_to(number: float) -> str:
    """Return a double as a literal beside a double: a whole one without the point."""
    return str(int(number)) if abs(number) < 1 << 53 and number.is_integer() else double(number)


def nanoseconds(instant: Instant) -> str:
    """Return an instant as a literal, in nanoseconds since 1970."""
    return f"({instant.ns})::HUGEINT"


# ------------------------------------------------------------------------------- words

_FINAL_SIGMA: Final = r"(\p{L}\p{M}*)Σ(\P{L}|$)"


def lowered(text: str) -> str:
    """Return a text in lower case, by Unicode's full mapping; DuckDB's own maps letter by letter."""
    simple = f"replace({text}, 'İ', 'i̇')"
    return f"lower(regexp_replace({simple}, {literal(_FINAL_SIGMA)}, '\\1ς\\2', 'g'))"


def words_of(text: str, names: Names) -> str:
    """Return the words of a text as Qdrant's tokenizer cuts them (`words.py`), lower-cased, as a list."""
    name = names.new()
    cut = literal(f"[\\p{{L}}\\p{{N}}{word_class()}]+")
    return f"list_transform(regexp_extract_all({text}, {cut}), lambda {name}: {lowered(name)})"


# ------------------------------------------------------------------------------- dates

_SPACE: Final = (
    r"[\s\x0b\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)
_DATE: Final = (
    rf"{_SPACE}*([+-][0-9]{{1,6}}|[0-9]{{1,4}})-([0-9]{{1,2}})-([0-9]{{1,2}})"
    rf"(?:(?:[Tt]|{_SPACE}+)([0-9]{{1,2}}):([0-9]{{1,2}})"
    rf"(?::([0-9]{{1,2}})(?:\.([0-9]+))?"
    rf"(?:{_SPACE}*(?:[Zz]|UTC|([+\-\x{{2212}}])([0-9]{{2}})(?::?([0-9]{{2}}))?){_SPACE}*)?)?)?"
)
"""As in `values.py`, with the spaces that Python's `\\s` knows spelled out."""
_PARTS: Final = ("y", "m", "d", "h", "mi", "s", "f", "sign", "zh", "zm")
_CLOCK: Final = ("h", "mi", "s", "zh", "zm")


def instant_of(text: str, names: Names) -> str:
    """Return the nanoseconds since 1970 of the date that a text names, null where it names none."""
    t, g, n = names.new(), names.new(), names.new()
    pattern = literal(_DATE)
    fields = ", ".join(f"'{p}'" for p in _PARTS)
    numbers = ", ".join(f"{p} := coalesce(TRY_CAST({g}.{p} AS BIGINT), 0)" for p in _CLOCK)
    fraction = f"CAST(rpad(left({g}.f, 9), 9, '0') AS BIGINT)"
    sign = f"CASE WHEN {g}.sign = '+' THEN 1 ELSE -1 END"
    year, month, day = (f"TRY_CAST({g}.{p} AS BIGINT)" for p in ("y", "m", "d"))
    days = f"TRY(make_date({year}, {month}, {day})) - DATE '1970-01-01'"
    unpacked = f"struct_pack(days := {days}, {numbers}, f := {fraction}, sign := {sign})"
    valid = f"greatest({n}.h - 23, {n}.mi - 59, {n}.s - 60, {n}.zh - 23, {n}.zm - 59) <= 0"
    zone = f"{n}.sign * ({n}.zh * 60 + {n}.zm)"
    seconds = f"(({n}.days * 24 + {n}.h) * 60 + {n}.mi - {zone}) * 60 + least({n}.s, 59)"
    rest = f"CASE WHEN {n}.s = 60 THEN 999999999 ELSE {n}.f END"
    total = f"CASE WHEN {valid} THEN CAST({seconds} AS HUGEINT) * 1000000000 + {rest} END"
    found = f"list_transform([{unpacked}], lambda {n}: {total})[1]"
    parts = f"list_transform([regexp_extract({t}, {pattern}, [{fields}])], lambda {g}: {found})[1]"
    whole = f"CASE WHEN regexp_full_match({t}, {pattern}) THEN {parts} END"
    return f"list_transform([{text}], lambda {t}: {whole})[1]"
