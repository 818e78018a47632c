"""The syntax tree of filters: points, nodes, and the combinations that all leaves share.

Two families of leaves stand under the same `And`, `Or`, `Not` and `AtLeast`:

- conditions (`conditions.py`) come from Qdrant's JSON and from `{key: value}`: they look into
  arrays, keep integers apart from floats, and are always true or false;
- expressions (`expressions.py`) come from SQL text: numbers are numbers, and null, a missing
  key or a mismatch of types makes them null.

`Node.value` is the reference meaning; the compiler in `lance.py` is tested against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from vecdataset.filters.values import json_value

Path = tuple[str | int | None, ...]
"""Steps into a payload: a key, an index into an array, or None for each element."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a filter looks at: one point, or one object inside it under `nested`."""

    payload: Mapping[str, Any]
    id: Any = None
    vectors: Any = None

    @classmethod
    def of(cls, point: Mapping[str, Any]) -> Row:
        """Return the row of a point, `{"id": …, "vector": …, "payload": {…}}`."""
        return cls(point.get("payload") or {}, json_value(point.get("id")), point.get("vector"))

    def has_vector(self, name: str) -> bool:
        """Return whether the point has this vector; a bare vector is the unnamed one."""
        if isinstance(self.vectors, Mapping):
            return self.vectors.get(name) is not None
        return name == "" and self.vectors is not None


def values_at(payload: Mapping[str, Any], path: Path) -> list[Any]:
    """Return the values that a path selects: none, one, or several through `[]`."""
    found: list[Any] = [payload]
    for step in path:
        following: list[Any] = []
        for value in found:
            if isinstance(step, str):
                if isinstance(value, Mapping) and step in value:
                    following.append(json_value(value[step]))
            elif isinstance(value, list):
                if step is None:
                    following += map(json_value, value)
                elif step < len(value):
                    following.append(json_value(value[step]))
        found = following
    return found


class Node:
    """One node of the tree; `value` is True, False or None for a row (any value, for an operand)."""

    __slots__ = ()

    def value(self, row: Row) -> Any:
        """Return what the node says about a row."""
        raise NotImplementedError

    @property
    def key(self) -> str | None:
        """The top-level payload key that a leaf looks at."""
        return None

    def parts(self) -> Iterator[Node]:
        """Yield the nodes directly below that look at the same row."""
        for f in fields(self):  # type: ignore[arg-type]  # every concrete node is a dataclass
            below = getattr(self, f.name)
            if isinstance(below, Node):
                yield below
            elif isinstance(below, tuple):
                yield from (b for b in below if isinstance(b, Node))


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it that look at the same row."""
    yield node
    for part in node.parts():
        yield from walk(part)


# ------------------------------------------------------------------ combinations


@dataclass(frozen=True, slots=True)
class And(Node):
    """All are true; of nothing: true."""

    items: tuple[Node, ...]

    def value(self, row: Row) -> bool | None:
        """False as soon as one is; null when one is null."""
        out: bool | None = True
        for item in self.items:
            v = item.value(row)
            if v is False:
                return False
            if v is not True:
                out = None
        return out


@dataclass(frozen=True, slots=True)
class Or(Node):
    """One is true; of nothing: false."""

    items: tuple[Node, ...]

    def value(self, row: Row) -> bool | None:
        """True as soon as one is; null when one is null."""
        out: bool | None = False
        for item in self.items:
            v = item.value(row)
            if v is True:
                return True
            if v is not False:
                out = None
        return out


@dataclass(frozen=True, slots=True)
class Not(Node):
    """The opposite; of null: null."""

    item: Node

    def value(self, row: Row) -> bool | None:
        """True for False and the reverse."""
        v = self.item.value(row)
        return (not v) if isinstance(v, bool) else None


@dataclass(frozen=True, slots=True)
class AtLeast(Node):
    """At least `count` are true."""

    count: int
    items: tuple[Node, ...]

    def value(self, row: Row) -> bool:
        """Count them."""
        found = 0
        for item in self.items:
            if found >= self.count:
                break
            found += item.value(row) is True
        return found >= self.count


def all_of(items: Iterable[Node]) -> Node:
    """Return the conjunction, flat, without a wrapper around one."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, And) else (item,)
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(items: Iterable[Node]) -> Node:
    """Return the disjunction, flat, without a wrapper around one."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Or) else (item,)
    return flat[0] if len(flat) == 1 else Or(tuple(flat))
