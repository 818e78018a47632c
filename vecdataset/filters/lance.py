"""Filters compiled to Lance's SQL, the dialect of DataFusion.

What SQL can decide for certain goes into `LanceFilter.clean`; the rows that it cannot decide
into `dirty`, for `Filter.matches` to look at one by one. Every node is compiled twice, for the
rows where it is true and for those where it is false, so that null never has to be negated.
Each compilation is a pair of bounds: SQL that is true only for rows that match, and SQL that is
true for at least those; a part that Lance cannot say is (`false`, `true`), and the rest of
the tree still narrows the rows down.

Some SQL is exact for some rows only: those whose `_extra` does not mention a key, those whose
integers do not overflow. Such rows are told apart by guards; the others are compiled once more,
with nothing believed of what the guard stood for.

Literals are rounded to the column's type before they are written, towards the side that keeps
the comparison exact. `columns.py` knows how; this module knows the tree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

import pyarrow as pa

from vecdataset.filters import calculations
from vecdataset.filters.column_tests import list_has, list_has_any, list_test, scalar_test, struct_test
from vecdataset.filters.columns import Kind, Scalar, element
from vecdataset.filters.conditions import (
    Field,
    FieldEmpty,
    FieldNull,
    HasId,
    HasVector,
    IsEmpty,
    IsNull,
    Nested,
    Test,
    ValuesCount,
    all_spellings,
    canonical_uuid,
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
)
from vecdataset.filters.logic import (
    FALSE,
    TRUE,
    Undecidable,
    both,
    depth,
    either,
    identifier,
    negated,
    not_true,
    string,
)
from vecdataset.filters.text_dates import compared_as_date
from vecdataset.filters.tree import And, AtLeast, Node, Not, Or, Path, Row, any_of, walk
from vecdataset.filters.values import Instant
from vecdataset.schema import PayloadColumn

_MAX_COMBINATIONS: Final = 128
_MAX_COMBINED_CHARS: Final = 20_000
_MAX_SQL_DEPTH: Final = 32  # of the 50 that Lance takes; guards are put around
_OPPOSITE: Final[Mapping[CompareOp, CompareOp]] = {
    "=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<",
}  # fmt: skip
_FLIPPED: Final[Mapping[CompareOp, CompareOp]] = {
    "=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<=",
}  # fmt: skip
_BOOLEAN: Final = (Compare, In, Like, IsNullExpr, IsBool)
_TESTS: Final = frozenset(
    {"contains", "starts_with", "ends_with", "list_contains", "list_has_any", "list_has_all"}
)
_NOWHERE: Final = Row({})

Bounds = tuple[str, str]
_UNKNOWN: Final[Bounds] = (FALSE, TRUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanceFilter:
    """A filter as far as Lance can say it."""

    clean: str
    """Rows for which this is true match for certain."""
    dirty: str | None
    """Rows to be decided one by one; none of them is in `clean`. None when there are none."""
    columns: tuple[str, ...] = ()
    """Payload columns that deciding needs, without `_extra` and `id`."""
    vectors: tuple[str, ...] = ()
    """Names of vectors whose presence deciding needs: `has_vector` asks for them."""


def compile_node(
    node: Node,
    *,
    columns: Mapping[str, PayloadColumn],
    extra_keys: Collection[str],
    id_type: str,
    vectors: Mapping[str, str],
) -> LanceFilter:
    """Return what Lance can decide of a tree."""
    keys = list(dict.fromkeys(n.key for n in walk(node) if n.key is not None))
    plain = _Compiler(columns, id_type, vectors)
    lower, upper = plain.bounds(node, want=True)
    mentioned = [f"contains(`_extra`, {string(_mention(k))})" for k in keys if k in extra_keys]
    guards = list(plain.guards)
    doubtful = [negated(g) for g in dict.fromkeys(guards)]
    if mentioned:
        guards.append(f"(`_extra` IS NULL OR NOT {either(*mentioned)})")
        doubtful.append(either(*mentioned))
    clean = both(lower, *guards)
    dirty = FALSE if lower == upper else both(upper, not_true(lower))
    if doubtful:
        careful = _Compiler(columns, id_type, vectors, unknown=frozenset(extra_keys), careful=True)
        _, possible = careful.bounds(node, want=True)
        if lower == FALSE and upper == possible:
            dirty = upper
        else:
            dirty = either(both(dirty, *guards), both(either(*doubtful), possible))
    if dirty == FALSE:
        return LanceFilter(clean=clean, dirty=None)
    asked = tuple(dict.fromkeys(n.name for n in walk(node) if isinstance(n, HasVector)))
    needed = tuple(columns[k].name for k in keys if k in columns)
    return LanceFilter(clean=clean, dirty=dirty, columns=needed, vectors=asked)


def _mention(key: str) -> str:
    return json.dumps(key, ensure_ascii=False) + ":"


@dataclass(frozen=True, slots=True)
class _Compiler:
    columns: Mapping[str, PayloadColumn]
    id_type: str
    vectors: Mapping[str, str]
    unknown: frozenset[str] = frozenset()
    """Keys whose columns say nothing about the rows at hand."""
    careful: bool = False
    """Whether the guards may not hold for the rows at hand."""
    guards: list[str] = field(default_factory=list)
    """SQL, never null, that is true of a row when what was compiled is exact for it."""

    # ---------------------------------------------------------- combinations

    def bounds(self, node: Node, *, want: bool) -> Bounds:
        """Return SQL below and above the rows where `node` is `want`."""
        lower, upper = self._bounds(node, want=want)
        return (
            lower if depth(lower) <= _MAX_SQL_DEPTH else FALSE,
            upper if depth(upper) <= _MAX_SQL_DEPTH else TRUE,
        )

    def _bounds(self, node: Node, *, want: bool) -> Bounds:
        match node:
            case And(items):
                return self._joined(items, want=want, every=want)
            case Or(items):
                return self._joined(items, want=want, every=not want)
            case Not(item):
                return self.bounds(item, want=not want)
            case AtLeast(count, items):
                return self._at_least(count, items, want=want)
            case IsBool(item, to):
                lower, upper = self.bounds(item, want=to)
                return (lower, upper) if want else (not_true(upper), not_true(lower))
            case IsNullExpr(item) if isinstance(item, _BOOLEAN) or not isinstance(item, Expression):
                yes, no = self.bounds(item, want=True), self.bounds(item, want=False)
                lower, upper = either(yes[0], no[0]), either(yes[1], no[1])
                return (not_true(upper), not_true(lower)) if want else (lower, upper)
            case In(left, items) if not all(isinstance(i, Constant) for i in items):
                return self.bounds(any_of(Compare("=", left, i) for i in items), want=want)
        if any(n.key in self.unknown for n in walk(node)):
            return _UNKNOWN
        before = len(self.guards)
        try:
            exact = self._leaf(node, want=want)
        except Undecidable as undecidable:
            del self.guards[before:]
            return (FALSE, undecidable.possible if want else TRUE)
        if self.careful and len(self.guards) > before:
            del self.guards[before:]
            return _UNKNOWN
        return (exact, exact)

    def _joined(self, items: Sequence[Node], *, want: bool, every: bool) -> Bounds:
        parts = [self.bounds(i, want=want) for i in items]
        join = both if every else either
        return (join(*(p[0] for p in parts)), join(*(p[1] for p in parts)))

    def _at_least(self, count: int, items: Sequence[Node], *, want: bool) -> Bounds:
        # Fewer than n of m are true where at least m - n + 1 are not true; conditions are two-valued.
        needed = count if want else len(items) - count + 1
        parts = [self.bounds(i, want=want) for i in items]
        some = (FALSE, either(*(p[1] for p in parts)) if needed > 0 else TRUE)
        if math.comb(len(items), max(needed, 0)) > _MAX_COMBINATIONS:
            return some
        chosen = list(combinations(parts, max(needed, 0)))
        lower, upper = (either(*(both(*(p[side] for p in c)) for c in chosen)) for side in (0, 1))
        # Each part stands in several combinations: nested, they would grow without bounds.
        return (lower, upper) if len(lower) + len(upper) < _MAX_COMBINED_CHARS else some

    # ---------------------------------------------------------------- leaves

    def _leaf(self, node: Node, *, want: bool) -> str:
        match node:
            case Field(path, test):
                return self._field(node, path, test, want=want)
            case IsEmpty(path):
                return self._field(node, path, FieldEmpty(True), want=want)
            case IsNull(path):
                return self._field(node, path, FieldNull(True), want=want)
            case Nested(path, _):
                kind = self._kind(path[:-1])
                if kind is None or not (pa.types.is_nested(kind)):
                    return FALSE if want else TRUE
                raise Undecidable
            case HasId(ids):
                return self._has_id(ids, want=want)
            case HasVector(name):
                if name not in self.vectors:
                    return FALSE if want else TRUE
                return f"{identifier([self.vectors[name]])} IS {'NOT ' if want else ''}NULL"
        return self._predicate(self._folded(node), want=want)

    def _has_id(self, ids: tuple[int | str, ...], *, want: bool) -> str:
        if self.id_type == "uint64":
            literals = [str(i) for i in ids if isinstance(i, int) and 0 <= i < 1 << 64]
        elif self.id_type == "mixed":
            # Digits stand for an integer id, so the text '5' is no id at all.
            texts = (str(i) if isinstance(i, int) else canonical_uuid(i) for i in ids)
            literals = [string(t) for t in texts if t is not None]
        else:
            literals = [string(i) for i in all_spellings(ids) if isinstance(i, str)]
        literals = list(dict.fromkeys(literals))
        if not literals:
            return FALSE if want else TRUE
        return f"`id` {'' if want else 'NOT '}IN ({', '.join(sorted(literals))})"

    # ------------------------------------------------------------ conditions

    def _kind(self, path: Path) -> pa.DataType | None:
        """Return the type under a path of keys; None where nothing can be."""
        column = self.columns.get(str(path[0]))
        if column is None:
            return None
        kind = column.type
        for step in path[1:]:
            if pa.types.is_map(kind) or (pa.types.is_nested(kind) and not isinstance(step, str)):
                raise Undecidable
            if not pa.types.is_struct(kind):
                if pa.types.is_nested(kind) or isinstance(kind, pa.DictionaryType | pa.ExtensionType):
                    raise Undecidable
                return None
            at = kind.get_field_index(step)
            if at < 0:
                return None
            kind = kind.field(at).type
        return kind

    def _field(self, node: Node, path: Path, test: Test, *, want: bool) -> str:
        elements = path[-1] is None
        if elements and isinstance(test, ValuesCount | FieldEmpty | FieldNull):
            raise Undecidable
        path = path[:-1] if elements else path
        kind = self._kind(path)
        if kind is None:
            return TRUE if node.value(_NOWHERE) is want else FALSE
        if len(path) > 1 and isinstance(test, ValuesCount | FieldEmpty | FieldNull):
            raise Undecidable  # a null inside a struct is a JSON null, not a missing key
        sql = identifier([str(p) for p in path])
        item = element(kind)
        if pa.types.is_struct(kind) and not elements:
            return struct_test([str(p) for p in path], kind, test, want=want)
        if item is None:
            if elements:
                return TRUE if node.value(_NOWHERE) is want else FALSE
            column = self.columns[str(path[0])]
            scalar = Scalar(sql, kind, json_number=column.json_number and len(path) == 1)
            return scalar_test(scalar, test, self.guards, want=want)
        return list_test(Scalar(sql, kind), item, test, self.guards, want=want)

    # ----------------------------------------------------------- expressions

    def _folded(self, node: Node) -> Node:
        """Return the expression with missing columns as null, and constants calculated."""
        if isinstance(node, Column):
            return node if self._kind(node.path) is not None else Constant(None)
        if isinstance(node, Constant | PointId):
            return node
        changes: dict[str, Any] = {}
        for name in node.__dataclass_fields__:  # type: ignore[attr-defined]  # every concrete node is one
            below = getattr(node, name)
            if isinstance(below, Node):
                changes[name] = self._folded(below)
            elif isinstance(below, tuple) and any(isinstance(b, Node) for b in below):
                changes[name] = tuple(self._folded(b) for b in below)
        node = replace(node, **changes)  # type: ignore[type-var]  # as above
        if any(isinstance(n, Column | PointId) for n in walk(node)):
            return node
        value = node.value(_NOWHERE)
        return Constant(tuple(value) if isinstance(value, list) else value)

    def _predicate(self, node: Node, *, want: bool) -> str:
        match node:
            case Constant(to):
                return TRUE if to is want else FALSE
            case Column():
                scalar = self._operand(node)
                if scalar.kind is Kind.OTHER:
                    raise Undecidable
                return f"{scalar.sql} = {str(want).lower()}" if scalar.kind is Kind.BOOL else FALSE
            case PointId():
                return FALSE
            case IsNullExpr(Column(path)):
                return f"{identifier(path)} IS {'' if want else 'NOT '}NULL"
            case IsNullExpr(PointId()):
                return FALSE if want else TRUE
            case IsNullExpr(Call() | Arithmetic() | Negative() as call):
                return f"{self._operand(call).sql} IS {'' if want else 'NOT '}NULL"
            case Compare(op, Constant() as left, right):
                return self._predicate(Compare(_FLIPPED[op], right, left), want=want)
            case Compare(op, left, Constant(to)):
                return self._compared(left, op if want else _OPPOSITE[op], to)
            case Compare(op, left, right):
                return self._against(left, op if want else _OPPOSITE[op], right)
            case In(left, items):
                return self._in(left, [i.to for i in items if isinstance(i, Constant)], want=want)
            case Like(left, Constant(pattern), ignore_case):
                return self._like(left, pattern, ignore_case=ignore_case, want=want)
            case Call(name, args):
                return self._call(name, args, want=want)
        raise Undecidable

    def _compared(self, left: Node, op: CompareOp, to: Any) -> str:
        if isinstance(left, PointId) and self.id_type == "mixed":
            return _mixed_id(op, to)
        scalar = self._operand(left)
        if scalar.kind is Kind.TEXT and isinstance(to, Instant):
            found, guards = compared_as_date(scalar.sql, op, to)
            self.guards.extend(guards)
            return found
        return scalar.compared(op, to)

    def _against(self, left: Node, op: CompareOp, right: Node) -> str:
        a, b = self._operand(left), self._operand(right)
        if Kind.FLOAT in {a.kind, b.kind} and {a.kind, b.kind} <= {Kind.FLOAT, Kind.INT}:
            return calculations.compared(op, a, b, self.guards)
        return a.against(b, op)

    def _in(self, left: Node, values: Sequence[Any], *, want: bool) -> str:
        if isinstance(left, PointId) and self.id_type == "mixed":
            parts = [_mixed_id("=" if want else "<>", v) for v in values]
            return either(*parts) if want else both(*parts)
        if not values:
            return FALSE if want else TRUE
        scalar = self._operand(left)
        literals = [scalar.literal_equal(v) for v in values]
        known = [x for x in literals if x is not None]
        if want:
            return scalar.among(known)
        if any(x is None and not scalar.comparable(v) for v, x in zip(values, literals, strict=True)):
            return FALSE
        return scalar.not_among(known)

    def _like(self, left: Node, pattern: Any, *, ignore_case: bool, want: bool) -> str:
        scalar = self._operand(left)
        if scalar.kind is Kind.OTHER:
            raise Undecidable
        if scalar.kind is not Kind.TEXT or not isinstance(pattern, str):
            return FALSE
        sql = scalar.sql
        if ignore_case:
            sql, pattern = f"lower({sql})", pattern.lower()
        # DataFusion's patterns escape with a backslash, DuckDB's with nothing.
        return f"{sql} {'' if want else 'NOT '}LIKE {string(pattern.replace(chr(92), chr(92) * 2))}"

    def _call(self, name: str, args: Sequence[Node], *, want: bool) -> str:
        if any(isinstance(a, Constant) and a.to is None for a in args) and name != "coalesce":
            return FALSE
        if len(args) != 2 or not isinstance(args[1], Constant) or name == "coalesce":
            raise Undecidable
        to = args[1].to
        if isinstance(args[0], Constant):
            raise Undecidable
        left = self._operand(args[0])
        item = element(left.type)
        if left.kind is Kind.OTHER or name not in _TESTS:
            raise Undecidable
        if name == "contains" and item is not None:
            name = "list_contains"
        if name in {"contains", "starts_with", "ends_with"}:
            if left.kind is not Kind.TEXT or not isinstance(to, str):
                return FALSE
            found = f"{name}({left.sql}, {string(to)})"
            return found if want else f"NOT {found}"
        wanted = (to,) if name == "list_contains" else to
        if item is None or not isinstance(wanted, tuple):
            return FALSE
        wanted = tuple(v for v in wanted if v is not None)
        if name == "list_has_all":
            found = both(*(list_has(left, item, v) for v in wanted))
        else:
            found = list_has_any(left, item, wanted)
        if found in {TRUE, FALSE}:
            return f"{left.sql} IS NOT NULL" if (found == TRUE) is want else FALSE
        return found if want else negated(found)

    def _operand(self, node: Node) -> Scalar:
        match node:
            case Column(path):
                kind = self._kind(path)
                if kind is None:
                    raise Undecidable
                number = len(path) == 1 and self.columns[path[0]].json_number
                return Scalar(identifier(path), kind, json_number=number)
            case PointId():
                if self.id_type == "mixed":
                    raise Undecidable
                return Scalar("`id`", pa.uint64() if self.id_type == "uint64" else pa.utf8())
            case Call("lower" | "upper" as name, (inner,)):
                scalar = self._operand(inner)
                if scalar.kind is Kind.TEXT:
                    return Scalar(f"{name}({scalar.sql})", pa.utf8())
            case Call("length", (inner,)):
                scalar = self._operand(inner)
                if scalar.kind is Kind.TEXT:
                    return Scalar(f"character_length({scalar.sql})", pa.int32())
                if element(scalar.type) is not None:
                    return Scalar(f"cardinality({scalar.sql})", pa.int32())
            case Call("abs", (inner,)):
                return calculations.absolute(self._operand(inner), self.guards)
            case Arithmetic(op, left, right):
                return calculations.combined(op, self._number(left), self._number(right))
            case Negative(inner):
                return calculations.opposite(self._number(inner))
            case Call("coalesce", (first, *rest)):
                return self._coalesced(self._operand(first), rest)
        raise Undecidable

    def _number(self, node: Node) -> Scalar:
        if isinstance(node, Constant):
            return calculations.constant(node.to)
        return calculations.operand(self._operand(node), self.guards)

    def _coalesced(self, first: Scalar, rest: Iterable[Node]) -> Scalar:
        if first.type not in {pa.utf8(), pa.int64(), pa.float64(), pa.bool_()}:
            raise Undecidable
        parts = [first.sql]
        for node in rest:
            if isinstance(node, Constant) and node.to is None:
                continue
            if isinstance(node, Constant):
                literal = first.literal_equal(node.to)
                if literal is None:
                    raise Undecidable
                parts.append(literal)
                continue
            other = self._operand(node)
            if other.type != first.type:
                raise Undecidable
            parts.append(other.sql)
        return Scalar(f"coalesce({', '.join(parts)})", first.type)


def _mixed_id(op: CompareOp, to: Any) -> str:
    # Integers as digits, UUIDs as 36 characters; the two never compare with each other.
    if op not in {"=", "<>"}:
        raise Undecidable
    if isinstance(to, bool) or not isinstance(to, int | float | str):
        return FALSE
    if isinstance(to, float) and not to.is_integer():
        return FALSE if op == "=" else "character_length(`id`) < 36"
    text = to if isinstance(to, str) else str(int(to))
    if op == "=":
        return FALSE if isinstance(to, str) and len(to) < 36 else f"`id` = {string(text)}"
    size = "character_length(`id`) = 36" if isinstance(to, str) else "character_length(`id`) < 36"
    return both(size, f"`id` <> {string(text)}")
