"""Filters: SQL text, Qdrant's JSON or `{key: value}`, as one value.

A `Filter` says which points match. `Filter.matches` is its reference meaning, in plain
Python; `compile_lance` says the same to Lance. The modules below: `values.py` compares single
values, `tree.py` holds the syntax tree and its meaning, `qdrant.py` and `as_qdrant.py` read
and write JSON, `sqltext.py` reads and writes SQL text, `lance.py` and `duckdb_sql.py` compile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vecdataset.errors import InvalidFilterError, NotSupportedError, UnknownNameError, did_you_mean
from vecdataset.filters.as_qdrant import write_filter
from vecdataset.filters.conditions import Field
from vecdataset.filters.duckdb_sql import collection_place, payload_place, write_duckdb
from vecdataset.filters.expressions import Column, has_sql
from vecdataset.filters.lance import LanceFilter, compile_node
from vecdataset.filters.qdrant import looks_like_qdrant, parse_filter, parse_flat
from vecdataset.filters.sqltext import parse_sql, write_sql
from vecdataset.filters.tree import Node, Not, Row, all_of, any_of, walk
from vecdataset.schema import PayloadColumn

__all__ = ["Filter", "LanceFilter", "check_names", "compile_duckdb", "compile_lance"]


class Filter:
    """Which points match; immutable, and joined with `&`, `|` and `~`.

    Args:
        spec: SQL text, a Qdrant filter (or one condition), `{key: value}`, or a `Filter`.

    Raises:
        InvalidFilterError: The text does not parse (`position` says where), or a clause is unknown.

    A dict that has only Qdrant's clauses (`must`, `should`, `must_not`, `min_should`) is Qdrant's
    JSON; any other maps payload keys to the value, or the list of values, that they must hold.
    `~` is SQL's NOT where the filter is SQL text: what was null stays unmatched.

    >>> cheap = Filter("price < 10 AND lang IN ('en', 'fr')")
    >>> cheap.matches({"id": 1, "payload": {"price": 7.5, "lang": "fr"}})
    True
    >>> ~cheap
    Filter("NOT (price < 10 AND lang IN ('en', 'fr'))")
    >>> (Filter({"lang": "en"}) & {"stock": True}).to_qdrant()["must"][1]
    {'key': 'stock', 'match': {'value': True}}
    """

    __slots__ = ("_node",)
    _node: Node

    def __init__(self, spec: Any) -> None:
        object.__setattr__(self, "_node", _parse(spec))

    @classmethod
    def parse(cls, spec: Any) -> Filter:
        """Return the filter that `spec` describes; a `Filter` is returned as it is."""
        return spec if isinstance(spec, Filter) else cls(spec)

    @classmethod
    def _of(cls, node: Node) -> Filter:
        out = cls.__new__(cls)
        object.__setattr__(out, "_node", node)
        return out

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Filter is immutable; {name!r} was not set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Filter is immutable; {name!r} was not deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (self._node,))

    @property
    def node(self) -> Node:
        """The root of the syntax tree."""
        return self._node

    @property
    def keys(self) -> frozenset[str]:
        """The top-level payload keys that the filter looks at."""
        return frozenset(n.key for n in walk(self._node) if n.key is not None)

    @property
    def from_sql(self) -> bool:
        """Whether some part is SQL text, and so knows null."""
        return has_sql(self._node)

    def matches(self, point: Mapping[str, Any]) -> bool:
        """Return whether a point matches: `{"id": …, "vector": …, "payload": {…}}`.

        Payload values may be plain JSON or what Arrow and NumPy return: dates and times compare
        as instants (without a zone, UTC), a `Decimal` as a float; bytes equal nothing.
        """
        return self._node.value(Row.of(point)) is True

    def to_sql(self) -> str:
        """Return SQL text for which `Filter(text)` matches the same points.

        Conditions from JSON stand in it as `matches('…')`.

        Raises:
            NotSupportedError: A key holds a quote or a backslash, which JSON paths cannot.
        """
        return write_sql(self._node)

    def to_duckdb(self, payload: str = "payload") -> str:
        """Return DuckDB's SQL for a table whose payloads are JSON: true for those that match.

        Args:
            payload: The column of type JSON, or an expression, as it stands in the statement.

        Raises:
            NotSupportedError: A part cannot be said; the message names it. Ids and vectors match nothing.

        `Collection.where(filter)` says the same over a collection's own columns.
        """
        return write_duckdb(self._node, payload_place(payload))

    def to_qdrant(self) -> dict[str, Any]:
        """Return Qdrant's JSON.

        Parts from SQL text come out as the conditions that match the same points wherever a key
        holds scalars of one type.

        Raises:
            NotSupportedError: A part of SQL text has no such condition; the message names it.
        """
        return write_filter(self._node)

    def __and__(self, other: Any) -> Filter:
        return Filter._of(all_of([self._node, Filter.parse(other).node]))

    def __rand__(self, other: Any) -> Filter:
        return Filter.parse(other) & self

    def __or__(self, other: Any) -> Filter:
        return Filter._of(any_of([self._node, Filter.parse(other).node]))

    def __ror__(self, other: Any) -> Filter:
        return Filter.parse(other) | self

    def __invert__(self) -> Filter:
        return Filter._of(Not(self._node))

    def __eq__(self, other: object) -> bool:
        # By repr, because 1 == 1.0 == True for Python, and not for filters.
        return isinstance(other, Filter) and repr(self._node) == repr(other.node)

    def __hash__(self) -> int:
        return hash(repr(self._node))

    def __repr__(self) -> str:
        try:
            return f"Filter({self.to_sql() if self.from_sql else self.to_qdrant()!r})"
        except NotSupportedError:
            return f"Filter._of({self._node!r})"


def _rebuilt(node: Node) -> Filter:
    return Filter._of(node)  # noqa: SLF001  its own module


def _parse(spec: Any) -> Node:
    if isinstance(spec, Filter):
        return spec.node
    if isinstance(spec, str):
        return parse_sql(spec)
    if not isinstance(spec, Mapping) and hasattr(spec, "model_dump"):
        spec = spec.model_dump(by_alias=True, exclude_none=True)  # the models of qdrant-client
    if not isinstance(spec, Mapping):
        raise InvalidFilterError(
            f"filter is {spec!r}; expected SQL text, a Qdrant filter or {{key: value}}",
            hint="Filter(\"price < 10\"), Filter({'must': [{'key': 'price', 'range': {'lt': 10}}]}), "
            "Filter({'lang': 'en'})",
        )
    return parse_filter(spec) if looks_like_qdrant(spec) else parse_flat(spec)


def check_names(filter: Filter, known: Collection[str]) -> None:
    """Raise where SQL text or `{key: value}` names a payload key that is not known.

    Qdrant's JSON may name any key: there, a missing key is an answer, not a mistake.

    Raises:
        UnknownNameError: With the closest of the known names.
    """
    for node in walk(filter.node):
        if isinstance(node, Column) or (isinstance(node, Field) and node.named):
            name = node.path[0]
            if name not in known and name != "id":
                hint = did_you_mean(str(name), known, what="keys")
                if isinstance(node, Column):
                    hint += "; text stands in single quotes"
                raise UnknownNameError(f"the filter names {name!r}, which no point has", hint=hint)


def compile_lance(
    filter: Filter,
    *,
    columns: Mapping[str, PayloadColumn],
    extra_keys: Collection[str],
    id_type: str,
    vectors: Mapping[str, str],
    has_extra: bool = True,
) -> LanceFilter:
    """Return what Lance can decide of a filter, and which rows are left to `Filter.matches`.

    Args:
        filter: The filter.
        columns: Payload key to its column.
        extra_keys: Every key that some row ever had in `_extra`.
        id_type: `uint64`, `uuid`, `string` or `mixed`.
        vectors: Vector name to its physical column.
        has_extra: Whether the dataset has the column `_extra`.
    """
    return compile_node(
        filter.node,
        columns=columns,
        extra_keys=extra_keys if has_extra else (),
        id_type=id_type,
        vectors=vectors,
    )


def compile_duckdb(
    filter: Filter,
    *,
    columns: Mapping[str, PayloadColumn],
    extra_keys: Collection[str],
    id_type: str,
    vectors: Mapping[str, str],
    table: str | None = None,
) -> str:
    """Return a filter as an expression of DuckDB's SQL over a collection's columns.

    Args:
        filter: The filter.
        columns: Payload key to its column.
        extra_keys: Every key that some row ever had in `_extra`.
        id_type: `uint64`, `uuid`, `string` or `mixed`.
        vectors: Vector name to its physical column.
        table: The table's name or alias, written before every column.

    Raises:
        NotSupportedError: A part cannot be said; the message names it.
    """
    place = collection_place(
        columns=columns, extra_keys=extra_keys, id_type=id_type, vectors=vectors, table=table
    )
    return write_duckdb(filter.node, place)
