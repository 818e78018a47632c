"""Records of JSON files as points: which shape they have, what their vectors are, which are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

import numpy as np

from vecdataset.errors import InvalidInputError
from vecdataset.formats import Reading
from vecdataset.formats.arcaneum import Header, PathRules, header_of
from vecdataset.formats.files import Source
from vecdataset.formats.json_shapes import RESULT, Shape, is_point, shape_of
from vecdataset.formats.json_values import Record
from vecdataset.points import Layout
from vecdataset.schema import UNNAMED, SparseVectorParams, VectorParams

__all__ = ["JSON_OPTIONS", "read_points"]

JSON_OPTIONS: Final = frozenset(
    {"allow_null_vectors", "include", "exclude", "attach_root", "remap", "path_key"}
)
"""What `load` takes for JSON files besides: see `read_points`."""

_PEEK_ROWS: Final = 1_000
_POINT: Final = frozenset({"id", "vector", "payload"})

_Rows = Iterator[tuple[int, Record]]


def read_points(
    rows: _Rows,
    source: Source,
    *,
    unit: str,
    layout: Layout | None,
    allow_null_vectors: bool = False,
    include: Sequence[str] | str = (),
    exclude: Sequence[str] | str = (),
    attach_root: str | None = None,
    remap: Mapping[str, str] | None = None,
    path_key: str = "file_path",
) -> Reading:
    """Return the records of a file as points; the first thousand tell shape, layout and vectors.

    Args:
        rows: Numbers, for messages, and records.
        source: The file.
        unit: What the numbers count: `line` or `point`.
        layout: None looks at the first record; given, records are taken as they stand.
        allow_null_vectors: Take points whose vector is null or missing. Without it they are refused: they
            come from a dump that forgot the vectors (Qdrant's `with_vector` is off by default), and
            an upsert would wipe the vectors that a collection has. `{}` says that a point has none.
        include: Globs, of which the path in a payload must match one; see `PathRules`.
        exclude: Globs, of which it must match none.
        attach_root: A folder that relative paths are put beneath.
        remap: Beginnings of paths to what replaces them.
        path_key: The payload's key of the path.
    """
    rules = PathRules.parse(
        include=include, exclude=exclude, attach_root=attach_root, remap=remap, path_key=path_key
    )
    head = list(islice(rows, _PEEK_ROWS))
    header = header_of(head[0][1], source.name) if head else None
    shape: Shape | None = None
    if header is not None:
        del head[0]
        layout = layout or "qdrant"
        head, rows = list(_plain(iter(head), header)), _plain(rows, header)
    elif layout is None and head:
        shape = shape_of(head[0][1])
        layout = "qdrant" if shape or is_point(head[0][1]) else "flat"
    layout = layout or "flat"
    if shape is not None:
        head, rows = list(_shaped(iter(head), shape, source, unit)), _shaped(rows, shape, source, unit)
    names = tuple(dict.fromkeys(key for _, row in head for key in row))
    sparse: dict[str, SparseVectorParams] = {}
    if layout == "qdrant":
        vectors, sparse = _named_vectors(head)
    else:
        vectors = _vector_keys(head, names)
    compact = ("vector",) if layout == "qdrant" else tuple(vectors)
    points = _checked(chain(head, rows), source, unit, layout, compact, allow_null_vectors=allow_null_vectors)
    return Reading(
        points=rules.apply(points, layout),
        names=names,
        vectors=header.vectors if header is not None and header.vectors else vectors,
        sparse=sparse,
        layout=layout,
    )


def _plain(rows: _Rows, header: Header) -> _Rows:
    for number, row in rows:
        yield number, header.point(row)


def _shaped(rows: _Rows, shape: Shape, source: Source, unit: str) -> _Rows:
    for number, row in rows:
        try:
            yield number, shape.point(row)
        except KeyError as exc:
            raise InvalidInputError(
                f"{unit} {number} of {source.name} has no key {exc}, which the ones before it have: "
                f"they have the shape of {shape.name}",
                hint="layout='flat' takes all keys as payload",
            ) from None


def _checked(
    rows: _Rows,
    source: Source,
    unit: str,
    layout: Layout,
    compact: tuple[str, ...],
    *,
    allow_null_vectors: bool,
) -> Iterator[Record]:
    """Yield points with their vectors as arrays, a quarter of the size of Python's lists."""
    count = with_vectors = 0
    for number, row in rows:
        count += 1
        if layout == "qdrant":
            strange = row.keys() - _POINT - RESULT
            if strange:
                raise InvalidInputError(
                    f"{unit} {number} of {source.name} has the key {min(strange)!r} beside id, vector and "
                    f"payload, which the {unit}s before it do not",
                    hint="layout='flat' takes all keys as payload",
                )
            if "vector" in row:
                with_vectors += 1
                if row["vector"] is None and not allow_null_vectors:
                    raise _no_vectors(f"{unit} {number} of {source.name} has the vector null")
        for key in compact:
            value = row.get(key)
            if isinstance(value, list):
                row[key] = _array(value)
            elif isinstance(value, dict):
                row[key] = {n: _array(v) if isinstance(v, list) else v for n, v in value.items()}
        yield row
    if layout == "qdrant" and count and not with_vectors and not allow_null_vectors:
        raise _no_vectors(f"none of the {count} points of {source.name} has a vector")


def _no_vectors(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what}: nothing was written",
        hint="export again with vectors (Qdrant: with_vector=true), or pass allow_null_vectors=True",
    )


def _array(values: list[Any]) -> Any:
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        return values
    return array if array.ndim == 1 and array.dtype.kind in "fi" else values


def _named_vectors(
    head: list[tuple[int, Record]],
) -> tuple[dict[str, VectorParams], dict[str, SparseVectorParams]]:
    dense: dict[str, VectorParams] = {}
    sparse: dict[str, SparseVectorParams] = {}
    for _, row in head:
        value = row.get("vector")
        for name, vector in (value if isinstance(value, dict) else {UNNAMED: value}).items():
            if isinstance(vector, dict) and vector.keys() == {"indices", "values"}:
                sparse[name] = SparseVectorParams()
            elif name not in dense and isinstance(vector, list) and vector:
                several = isinstance(vector[0], list)
                size = len(vector[0]) if several else len(vector)
                if size and _is_number(vector[0][0] if several else vector[0]):
                    dense[name] = VectorParams(size=size, multivector=several)
    return dense, sparse


def _vector_keys(head: list[tuple[int, Record]], names: tuple[str, ...]) -> dict[str, VectorParams]:
    """Return the keys whose values are lists of numbers, equally long in all of the first records."""
    out: dict[str, VectorParams] = {}
    for key in names:
        values = [row[key] for _, row in head if row.get(key) is not None]
        if not values or not all(isinstance(v, list) for v in values):
            continue
        sizes = {len(v) for v in values}
        numeric = all(_is_number(x) for v in values for x in v)
        if len(sizes) == 1 and numeric and next(iter(sizes)) >= 2 and _has_float(values, key):
            out[key] = VectorParams(size=sizes.pop())
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_float(values: list[list[Any]], key: str) -> bool:
    """Lists of whole numbers are vectors only under a vector's name."""
    return key == "vector" or key.endswith("__vector") or any(isinstance(x, float) for v in values for x in v)
