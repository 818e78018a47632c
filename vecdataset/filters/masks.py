"""Filters as boolean masks over Arrow columns in memory.

`MaskRows` are some rows of a collection: a batch of a scan, or all of a version. `mask` says which
of them a filter matches, exactly as `Filter.matches` does. Leaves are decided on whole columns
(`elements.py`); what a column cannot decide goes row by row through the reference meaning: values in
`_extra`, objects, calculations. Of a conjunction the cheap parts come first, and the others
look only at the rows that are left.

A node's truth is a pair of masks: where it is true, and where it is null (None: nowhere, as for all
of Qdrant's conditions).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.filters.columns import Kind, element, kind_of
from vecdataset.filters.conditions import (
    Field,
    FieldEmpty,
    FieldNull,
    HasId,
    HasVector,
    IsEmpty,
    IsNull,
    MatchAny,
    MatchText,
    Nested,
    Test,
    TimeRange,
    ValuesCount,
)
from vecdataset.filters.elements import Elements, NotColumnar
from vecdataset.filters.expressions import (
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
    PointId,
)
from vecdataset.filters.geo import GeoBox, GeoPolygon, GeoRadius, inside, place_of
from vecdataset.filters.tree import And, AtLeast, Node, Not, Or, Path, Row, values_at, walk
from vecdataset.filters.values import Instant, is_number
from vecdataset.schema import EXTRA, PayloadColumn

Truth = tuple[np.ndarray, np.ndarray | None]
_FLIPPED: Final[Mapping[CompareOp, CompareOp]] = {
    "=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<=",
}  # fmt: skip
_BOOLEAN: Final = (Compare, In, Like, IsNullExpr, IsBool)
_VALUE_BYTES: Final = 200
"""What a parsed JSON value takes, about."""


class TooSlow(Exception):  # noqa: N818  a question of plan, not an error
    """More rows than allowed would have to be decided one by one."""


class MaskRows:
    """Rows of a collection as filters see them; what a filter needed is kept for the next one."""

    def __init__(
        self,
        table: pa.Table | pa.RecordBatch,
        *,
        columns: Mapping[str, PayloadColumn],
        extra_keys: Collection[str],
        id_type: str,
        vectors: Mapping[str, np.ndarray],
        keep: bool = False,
    ) -> None:
        """Look at rows.

        Args:
            table: Payload columns, `_extra` and `id`, as far as the filters need them; a payload column
                that is not there is null.
            columns: Payload key to its column.
            extra_keys: Every key that some row ever had in `_extra`.
            id_type: `uint64`, `uuid`, `string` or `mixed`.
            vectors: Vector name to whether each row has it.
            keep: Whether many filters will come: values of `_extra` are then parsed for all rows, once.
        """
        self.length: int = table.num_rows
        self._table = table
        self._columns = columns
        self._extra_keys = frozenset(extra_keys)
        self._id_type = id_type
        self._vectors = vectors
        self._keep = keep
        self._arrays: dict[str, pa.Array] = {}
        self._elements: dict[str, Elements] = {}
        self._lists: dict[str, _List] = {}
        self._mentions: dict[str, np.ndarray | None] = {}
        self._parsed: dict[str, dict[int, Any]] = {}
        self._places: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def seen_with(self, columns: Mapping[str, PayloadColumn], extra_keys: Collection[str]) -> MaskRows:
        """Return the same rows at a version with other columns; what is known of the same ones is kept."""
        extra = frozenset(extra_keys)
        if columns == self._columns and extra == self._extra_keys:
            return self
        out = MaskRows(
            self._table,
            columns=columns,
            extra_keys=extra,
            id_type=self._id_type,
            vectors=self._vectors,
            keep=self._keep,
        )
        same = {"id", EXTRA, *(k for k, column in columns.items() if self._columns.get(k) == column)}
        out._arrays.update({k: v for k, v in self._arrays.items() if k in same})
        out._elements.update({k: v for k, v in self._elements.items() if k in same})
        out._lists.update({k: v for k, v in self._lists.items() if k in same})
        out._mentions.update({k: v for k, v in self._mentions.items() if k in self._extra_keys & extra})
        out._parsed.update({k: v for k, v in self._parsed.items() if k in self._extra_keys & extra})
        return out

    @property
    def nbytes(self) -> int:
        """Bytes that earlier filters left behind, about."""
        return (
            sum(e.nbytes for e in list(self._elements.values()))
            + sum(one.nbytes for one in list(self._lists.values()))
            + sum(m.nbytes for m in list(self._mentions.values()) if m is not None)
            + sum(len(p) * _VALUE_BYTES for p in list(self._parsed.values()))
            + sum(a.nbytes for parts in list(self._places.values()) for a in parts)
        )

    def mask(self, node: Node, *, most_by_row: int | None = None) -> np.ndarray:
        """Return which rows a filter matches, bool `[n]`.

        Args:
            node: The filter's tree.
            most_by_row: How many decisions may be made row by row; None is all.

        Raises:
            TooSlow: It would be more.
        """
        return _Walk(self, most_by_row).truth(node, None)[0]

    # ------------------------------------------------------------------ columns

    def array(self, key: str) -> pa.Array:
        """Return the column of a key, as one array."""
        found = self._arrays.get(key)
        if found is None:
            name = key if key in ("id", EXTRA) else self._columns[key].name
            if name in self._table.schema.names:
                column = self._table.column(name)
                found = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
                if isinstance(found, pa.ChunkedArray):  # nothing to combine
                    found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.nulls(0, found.type)
            else:
                kind = pa.string() if key == EXTRA else self._columns[key].type
                found = pa.nulls(self.length, kind)
            self._arrays[key] = found
        return found

    def scalars(self, key: str) -> Elements:
        """Return the values of a column that holds no lists."""
        found = self._elements.get(key)
        if found is None:
            number = key != "id" and self._columns[key].json_number
            found = self._elements[key] = Elements(self.array(key), json_number=number)
        return found

    def lists(self, key: str) -> _List:
        """Return a column of lists."""
        found = self._lists.get(key)
        if found is None:
            found = self._lists[key] = _List(self.array(key))
        return found

    def kind(self, key: str) -> Kind | None:
        """Return what a key's column holds; None where there is none, or only nulls."""
        column = self._columns.get(key)
        if column is None or pa.types.is_null(column.type):
            return None
        kind = column.type
        return kind_of(kind.value_type if pa.types.is_dictionary(kind) else kind)

    def mentions(self, key: str) -> np.ndarray | None:
        """Return the rows whose `_extra` may hold a key; None where none does."""
        if key not in self._extra_keys:
            return None
        if key not in self._mentions:
            texts = self.array(EXTRA)
            found = None
            if texts.null_count < len(texts):
                marked = pc.match_substring(texts, json.dumps(key, ensure_ascii=False) + ":")
                rows = pc.fill_null(marked, False).to_numpy(zero_copy_only=False)
                found = rows if rows.any() else None
            self._mentions[key] = found
        return self._mentions[key]

    # --------------------------------------------------------------- row by row

    def rows(self, at: np.ndarray, node: Node) -> list[Row]:
        """Return what the reference meaning of a node looks at, for some rows."""
        payloads: list[dict[str, Any]] = [{} for _ in range(len(at))]
        nodes = list(walk(node))
        for key in dict.fromkeys(n.key for n in nodes if n.key is not None):
            for payload, value in zip(payloads, self._values(key, at), strict=True):
                if value is not _ABSENT:
                    payload[key] = value
        ids: Sequence[Any] = [None] * len(at)
        if any(isinstance(n, HasId | PointId) for n in nodes):
            ids = self.array("id").take(pa.array(at)).to_pylist()
            if self._id_type == "mixed":
                ids = [int(i) if i.isdigit() else i for i in ids]
        asked = [n.name for n in nodes if isinstance(n, HasVector) and n.name in self._vectors]
        vectors = [{n: True for n in asked if self._vectors[n][row]} for row in at.tolist()]
        return [Row(p, i, v) for p, i, v in zip(payloads, ids, vectors, strict=True)]

    def _values(self, key: str, at: np.ndarray) -> list[Any]:
        """Return the JSON values of a key, `_ABSENT` where there is none."""
        column = self._columns.get(key)
        if column is None:
            out: list[Any] = [_ABSENT] * len(at)
        else:
            out = self.array(key).take(pa.array(at)).to_pylist()
            number = column.json_number
            for place, value in enumerate(out):
                if value is None:
                    out[place] = _ABSENT
                elif number and value.is_integer():
                    out[place] = int(value)
        marked = self.mentions(key)
        if marked is None:
            return out
        if self._keep:
            parsed = self._all_parsed(key, marked)
            for place, row in enumerate(at.tolist()):
                if row in parsed:
                    out[place] = parsed[row]
            return out
        places = np.flatnonzero(marked[at])
        texts = self.array(EXTRA).take(pa.array(at[places])).to_pylist()
        for place, text in zip(places.tolist(), texts, strict=True):
            kept = json.loads(text)
            if key in kept:
                out[place] = kept[key]
        return out

    def _all_parsed(self, key: str, marked: np.ndarray) -> dict[int, Any]:
        found = self._parsed.get(key)
        if found is None:
            at = np.flatnonzero(marked)
            texts = self.array(EXTRA).take(pa.array(at)).to_pylist()
            found = {}
            for row, text in zip(at.tolist(), texts, strict=True):
                kept = json.loads(text)
                if key in kept:
                    found[row] = kept[key]
            self._parsed[key] = found
        return found

    def places(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return row, latitude and longitude of every place under a path; None unless they come fast."""
        plain = self._place_column(path)
        if plain is not None:
            return plain
        if not self._keep:
            return None
        found = self._places.get(path)
        if found is None:
            key = path[0]
            assert isinstance(key, str)
            some: list[tuple[int, float, float]] = []
            for row, value in enumerate(self._values(key, np.arange(self.length))):
                if value is _ABSENT:
                    continue
                for inner in values_at({key: value}, path):
                    for one in inner if isinstance(inner, list) else (inner,):
                        place = place_of(one)
                        if place is not None:
                            some.append((row, place.lat, place.lon))
            flat = np.array(some, np.float64).reshape(-1, 3)
            found = (flat[:, 0].astype(np.int64), flat[:, 1].copy(), flat[:, 2].copy())
            self._places[path] = found
        return found

    def _place_column(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return the places of a column that holds nothing else; None if it is no such column."""
        column = self._columns.get(str(path[0])) if len(path) == 1 else None
        if column is None or not pa.types.is_struct(column.type) or self.mentions(column.name) is not None:
            return None
        sides = [column.type.get_field_index(name) for name in ("lat", "lon")]
        if any(at < 0 or not pa.types.is_floating(column.type.field(at).type) for at in sides):
            return None
        array = self.array(column.name)
        lat, lon = (pc.cast(pc.struct_field(array, [at]), pa.float64()) for at in sides)
        # A null beneath a valid struct, or above it, is no place; NaN and infinity are none either.
        y, x = (pc.fill_null(side, math.nan).to_numpy(zero_copy_only=False) for side in (lat, lon))
        at = np.flatnonzero(np.isfinite(y) & np.isfinite(x))
        return at, y[at], x[at]

    # ------------------------------------------------------------ ids, vectors

    def has_id(self, node: HasId) -> np.ndarray:
        """Return the rows with one of these ids."""
        members = node.members
        if self._id_type == "uint64":
            wanted = [i for i in members if isinstance(i, int) and 0 <= i < 1 << 64]
            return np.isin(self.scalars("id").data, np.array(wanted, np.uint64))
        texts = [i for i in members if isinstance(i, str)]
        if self._id_type == "mixed":
            # Digits stand for an integer id, so the text '5' is no id at all.
            texts = [t for t in texts if not t.isdigit()]
            texts += [str(i) for i in members if isinstance(i, int) and not isinstance(i, bool)]
        found: np.ndarray = pc.is_in(self.array("id"), pa.array(texts, self.array("id").type)).to_numpy(
            zero_copy_only=False
        )
        return found

    def has_vector(self, name: str) -> np.ndarray:
        """Return the rows with a vector of this name."""
        there = self._vectors.get(name)
        return np.zeros(self.length, bool) if there is None else there

    def id_column(self) -> Elements:
        """Return the ids as values."""
        if self._id_type == "mixed":
            raise NotColumnar
        return self.scalars("id")


_ABSENT: Final = object()


class _List:
    """A column of lists: its elements side by side, and whose they are."""

    def __init__(self, array: pa.Array) -> None:
        item = element(array.type)
        assert item is not None
        if pa.types.is_fixed_size_list(array.type):
            array = array.cast(pa.list_(item))
        self._length = len(array)
        self.missing = ~array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        counts = pc.list_value_length(array)
        self.counts: np.ndarray = pc.fill_null(counts, 0).to_numpy(zero_copy_only=False)
        # Without nulls first: under the null of a list there may be elements.
        there = array.drop_null() if array.null_count else array
        self.parents: np.ndarray = pc.list_parent_indices(there).to_numpy(zero_copy_only=False)
        if self.missing is not None:
            self.parents = np.flatnonzero(~self.missing)[self.parents]
        self._flat = pc.list_flatten(there)
        if pa.types.is_dictionary(self._flat.type):
            self._flat = self._flat.dictionary_decode()

    @property
    def nbytes(self) -> int:
        own = self.elements.nbytes if "elements" in self.__dict__ else 0
        return own + self.parents.nbytes + self.counts.nbytes

    @cached_property
    def elements(self) -> Elements:
        return Elements(self._flat)

    @property
    def plain(self) -> bool:
        return kind_of(self._flat.type) not in {Kind.LIST, Kind.OTHER}

    def any(self, hits: np.ndarray) -> np.ndarray:
        """Return the rows of which an element is hit."""
        out = np.zeros(self._length, bool)
        out[self.parents[np.flatnonzero(hits)]] = True
        return out

    @cached_property
    def holds_null(self) -> np.ndarray:
        if not self.plain:
            raise NotColumnar
        return self.any(self._flat.is_null().to_numpy(zero_copy_only=False))

    def present(self, found: np.ndarray) -> np.ndarray:
        return found if self.missing is None else found & ~self.missing


class _Walk:
    """One filter over some rows."""

    def __init__(self, rows: MaskRows, most_by_row: int | None) -> None:
        self._rows = rows
        self._left = most_by_row

    # ------------------------------------------------------------ combinations

    def truth(self, node: Node, need: np.ndarray | None) -> Truth:
        """Return where a node is true and where it is null, at least for the rows that are needed."""
        match node:
            case And(items):
                return self._joined(items, need, every=True)
            case Or(items):
                return self._joined(items, need, every=False)
            case Not(item):
                true, null = self.truth(item, need)
                return (~true if null is None else ~(true | null), null)
            case AtLeast(count, items):
                return self._at_least(count, items, need)
            case IsBool(item, to):
                true, null = self.truth(item, need)
                if to:
                    return (true, None)
                return (~true if null is None else ~(true | null), None)
            case IsNullExpr(item) if isinstance(item, _BOOLEAN) or not isinstance(item, Expression):
                _, null = self.truth(item, need)
                return (self._none() if null is None else null, None)
        return self._leaf(node, need)

    def _joined(self, items: Sequence[Node], need: np.ndarray | None, *, every: bool) -> Truth:
        """Return a conjunction, or else a disjunction; one row decided is looked at no more."""
        true = np.full(self._rows.length, every)
        false = ~true
        null = False
        for item in sorted(items, key=self._cost) if len(items) > 1 else items:
            decided = false if every else true
            if self._cost(item):
                need = ~decided if need is None else need & ~decided
            one, unknown = self.truth(item, need)
            null = null or unknown is not None
            not_one = ~one if unknown is None else ~(one | unknown)
            if every:
                true, false = true & one, false | not_one
            else:
                true, false = true | one, false & not_one
        return (true, ~(true | false) if null else None)

    def _at_least(self, count: int, items: Sequence[Node], need: np.ndarray | None) -> Truth:
        found = np.zeros(self._rows.length, np.int32)
        for item in items:
            found += self.truth(item, need)[0]
        return (found >= count, None)

    def _cost(self, node: Node) -> int:
        """Return about how much a decision takes: 0 on columns, 1 each distinct text, 2 row by row."""
        if isinstance(node, And | Or | AtLeast):
            return max(map(self._cost, node.items), default=0)
        if isinstance(node, Not):
            return self._cost(node.item)
        nodes = list(walk(node))
        keys = {n.key for n in nodes if n.key is not None}
        if any(self._rows.mentions(k) is not None for k in keys):
            return 2
        if isinstance(node, Field) and isinstance(node.test, MatchText | TimeRange):
            return 1
        plain = (Field, IsEmpty, IsNull, HasId, HasVector, Compare, Column, Constant, PointId, In, IsNullExpr)
        return 0 if all(isinstance(n, plain) for n in nodes) and len(keys) < 2 else 1

    # ------------------------------------------------------------------ leaves

    def _leaf(self, node: Node, need: np.ndarray | None) -> Truth:
        if isinstance(node, Field) and isinstance(node.test, GeoRadius | GeoBox | GeoPolygon):
            places = self._rows.places(node.path)
            if places is not None:
                at, lat, lon = places
                found = self._none()
                found[at[inside(node.test, lat, lon)]] = True
                return (found, None)
        odd = None
        for key in {n.key for n in walk(node) if n.key is not None}:
            marked = self._rows.mentions(key)
            if marked is not None:
                odd = marked if odd is None else odd | marked
        try:
            true, null = self._columnar(node, need)
        except NotColumnar:
            return self._by_row(node, need, None)
        if odd is None:
            return (true, null)
        return self._by_row(node, odd if need is None else odd & need, (true, null))

    def _by_row(self, node: Node, need: np.ndarray | None, base: Truth | None) -> Truth:
        """Ask the reference meaning about some rows; the others keep what `base` says."""
        length = self._rows.length
        at = np.arange(length) if need is None else np.flatnonzero(need)
        true, null = (self._none(), None) if base is None else base
        if not len(at):
            return (true, null)
        if self._left is not None:
            self._left -= len(at)
            if self._left < 0:
                raise TooSlow
        values = [node.value(row) for row in self._rows.rows(at, node)]
        true = true.copy()
        true[at] = [v is True for v in values]
        unknown = np.fromiter((not isinstance(v, bool) for v in values), bool, len(values))
        if null is not None or unknown.any():
            null = self._none() if null is None else null.copy()
            null[at] = unknown
        return (true, null)

    def _none(self) -> np.ndarray:
        return np.zeros(self._rows.length, bool)

    def _all(self, value: Any) -> Truth:
        """Return a constant as the truth of every row."""
        null = None if isinstance(value, bool) else np.ones(self._rows.length, bool)
        return (np.full(self._rows.length, value is True), null)

    def _columnar(self, node: Node, need: np.ndarray | None) -> Truth:
        match node:
            case Field(path, test):
                return (self._field(node, path, test, need), None)
            case IsEmpty(path):
                return (self._field(node, path, FieldEmpty(True), need), None)
            case IsNull(path):
                return (self._field(node, path, FieldNull(True), need), None)
            case Nested(path, _):
                if self._holds(path[:-1]) in {None, *_SCALARS}:
                    return self._all(False)
                raise NotColumnar
            case HasId():
                return (self._rows.has_id(node), None)
            case HasVector(name):
                return (self._rows.has_vector(name), None)
            case Constant(to):
                return self._all(to)
            case PointId():
                return self._all(None)
            case Column(path):
                return self._column(path)
            case IsNullExpr(Column(path)):
                return (self._is_null(path), None)
            case IsNullExpr(PointId()):
                return self._all(False)
            case Compare(op, Constant(to), (Column() | PointId()) as right):
                return self._compared(right, _FLIPPED[op], to)
            case Compare(op, (Column() | PointId()) as left, Constant(to)):
                return self._compared(left, op, to)
            case In((Column() | PointId()) as left, items) if all(isinstance(i, Constant) for i in items):
                return self._in(left, [i.to for i in items if isinstance(i, Constant)])
            case Like(Column() as left, Constant(str() as pattern), False):
                return self._like(left, pattern)
            case Call(name, (Column(path), Constant(to))) if name in _LIST_TESTS:
                return self._list_has(name, path, to)
            case Call("contains", (Column(path), Constant(to))) if self._holds(path) is Kind.LIST:
                return self._list_has("list_contains", path, to)
        return self._of_one_text(node, need)

    def _holds(self, path: Path) -> Kind | None:
        """Return what the column under a path of keys holds; None where nothing can be."""
        key = path[0]
        assert isinstance(key, str)
        kind = self._rows.kind(key)
        if len(path) == 1 or kind is None:
            return kind
        if kind in _SCALARS:
            return None
        raise NotColumnar

    # -------------------------------------------------------------- conditions

    def _field(self, node: Node, path: Path, test: Test, need: np.ndarray | None) -> np.ndarray:
        elements = path[-1] is None
        key = path[0]
        assert isinstance(key, str)
        kind = self._holds(path[:-1] if elements and len(path) > 1 else path)
        if kind is None or (elements and kind in _SCALARS):
            return self._all(node.value(_NOWHERE))[0]
        if kind is Kind.OTHER or (elements and isinstance(test, ValuesCount | FieldEmpty | FieldNull)):
            raise NotColumnar
        if kind is Kind.LIST:
            return self._list(key, test, need)
        column = self._rows.scalars(key)
        match test:
            case FieldEmpty(to):
                present = column.present(np.ones(column.length, bool))
                return ~present if to else present
            case FieldNull(to):
                return self._all(not to)[0]
            case ValuesCount():
                present = column.present(np.ones(column.length, bool))
                missing, one = test.check(None), test.check(0)
                return np.where(present, one, missing)
        return column.passes(test, need)

    def _list(self, key: str, test: Test, need: np.ndarray | None) -> np.ndarray:
        column = self._rows.lists(key)
        match test:
            case FieldEmpty(to):
                return _same(column.counts == 0, to)
            case FieldNull(to):
                return _same(column.holds_null, to)
            case ValuesCount():
                least = max(0 if test.gt is None else test.gt + 1, 0 if test.gte is None else test.gte)
                most = min(_MOST if test.lt is None else test.lt - 1, _MOST if test.lte is None else test.lte)
                found: np.ndarray = (column.counts >= min(least, _MOST)) & (column.counts <= most)
                return found
        inner = None if need is None else need[column.parents]
        return column.any(column.elements.passes(test, inner))

    # ------------------------------------------------------------- expressions

    def _operand(self, node: Node) -> Elements | None:
        """Return the values of a column or of the ids; None where all are null."""
        if isinstance(node, PointId):
            return self._rows.id_column()
        assert isinstance(node, Column)
        kind = self._holds(node.path)
        if kind is None:
            return None
        if kind is Kind.OTHER:
            raise NotColumnar
        return self._rows.scalars(node.path[0])

    def _column(self, path: Path) -> Truth:
        kind = self._holds(path)
        if kind is Kind.OTHER:
            raise NotColumnar
        if kind is not Kind.BOOL:
            return self._all(None)
        column = self._rows.scalars(str(path[0]))
        return (column.present(column.data.view(bool)), None if column.valid is None else ~column.valid)

    def _is_null(self, path: Path) -> np.ndarray:
        if self._holds(path) is None:
            return np.ones(self._rows.length, bool)
        array = self._rows.array(str(path[0]))
        found: np.ndarray = array.is_null().to_numpy(zero_copy_only=False)
        return found

    def _compared(self, left: Node, op: CompareOp, to: Any) -> Truth:
        if isinstance(left, Column) and self._holds(left.path) is Kind.LIST:
            if isinstance(to, tuple):
                raise NotColumnar
            return self._all(None)
        column = self._operand(left)
        if column is None or to is None:
            return self._all(None)
        if isinstance(to, Instant) and column.kind is Kind.TEXT:
            raise NotColumnar
        found = column.compared(op, to)
        if found is None:
            return self._all(None)
        return (found, None if column.valid is None else ~column.valid)

    def _in(self, left: Node, values: Sequence[Any]) -> Truth:
        if not values:
            return self._all(False)
        if isinstance(left, Column) and self._holds(left.path) is Kind.LIST:
            raise NotColumnar
        column = self._operand(left)
        if column is None:
            return self._all(None)
        true, null = self._none(), False
        rest = list(values)
        if len(values) > 8 and column.kind is Kind.TEXT:
            texts = [v for v in values if isinstance(v, str)]
            true, rest = column.passes(MatchAny(tuple(texts))), [v for v in values if not isinstance(v, str)]
        elif len(values) > 8 and column.kind in {Kind.INT, Kind.FLOAT}:
            numbers = [v for v in values if is_number(v) and math.isfinite(v)]
            true = column.present(column.equal_any(numbers))
            rest = [v for v in values if not is_number(v) or not math.isfinite(v)]
        for value in rest:
            found = None if value is None else column.compared("=", value)
            if found is None:
                null = True
            else:
                true = true | found
        if null:
            return (true, ~true)
        return (true, None if column.valid is None else ~column.valid)

    def _like(self, left: Column, pattern: str) -> Truth:
        column = None if self._holds(left.path) is Kind.LIST else self._operand(left)
        if column is None or column.kind is not Kind.TEXT:
            return self._all(None)
        return (column.like(pattern), None if column.valid is None else ~column.valid)

    def _list_has(self, name: str, path: Path, to: Any) -> Truth:
        kind = self._holds(path)
        if kind is Kind.OTHER:
            raise NotColumnar
        if to is None or kind is not Kind.LIST:
            return self._all(None)
        wanted = (to,) if name == "list_contains" else to
        if not isinstance(wanted, tuple):
            return self._all(None)
        column = self._rows.lists(str(path[0]))
        if any(isinstance(w, tuple) for w in wanted):
            raise NotColumnar
        every = name == "list_has_all"
        out = np.full(self._rows.length, every)
        for value in wanted:
            if value is None:
                continue
            hits = column.elements.compared("=", value)
            one = self._none() if hits is None else column.any(hits)
            out = out & one if every else out | one
        return (column.present(out), column.missing)

    def _of_one_text(self, node: Node, need: np.ndarray | None) -> Truth:
        """Decide what looks at one column of texts alone, text by text."""
        nodes = list(walk(node))
        keys = {n.key for n in nodes if n.key is not None}
        others = any(isinstance(n, PointId | HasId | HasVector) for n in nodes)
        paths = {n.path for n in nodes if isinstance(n, Column)}
        if len(keys) != 1 or others or any(len(p) > 1 for p in paths):
            raise NotColumnar
        (key,) = keys
        kind = self._rows.kind(key)
        if kind is None:
            return self._all(node.value(_NOWHERE))
        if kind is not Kind.TEXT:
            raise NotColumnar
        column = self._rows.scalars(key)
        true = column.by_text((repr(node), True), lambda t: node.value(Row({key: t})), need)
        false = column.by_text((repr(node), False), lambda t: node.value(Row({key: t})) is False, need)
        if column.valid is not None:
            absent = node.value(_NOWHERE)
            true, false = (
                true | (~column.valid & (absent is True)),
                false | (~column.valid & (absent is False)),
            )
        null = ~(true | false)
        return (true, null if null.any() else None)


_NOWHERE: Final = Row({})
_LIST_TESTS: Final = frozenset({"list_contains", "list_has_any", "list_has_all"})
_SCALARS: Final = frozenset({Kind.BOOL, Kind.INT, Kind.FLOAT, Kind.TEXT, Kind.TIME, Kind.DATE})
_MOST: Final = (1 << 31) - 1


def _same(found: np.ndarray, to: bool) -> np.ndarray:  # noqa: FBT001  the value to compare with
    return found if to else ~found
