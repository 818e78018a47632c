"""Stored points in the shapes that Qdrant takes: ids, vectors as lists, payload as JSON values.

Everything is checked before anything is sent or written: neither the engine nor a server does it all.
The engine stores NaN, takes a sparse index twice, and panics on lists of different lengths; a payload
nested more than 127 levels deep is stored and can never be read again (measured with the engine's
release 0.9.0, serde_json's limit); an integer beyond 64 bits becomes a float.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.errors import InvalidIdError, InvalidInputError
from vecdataset.formats.payload import payload_values
from vecdataset.ids import decode_ids
from vecdataset.schema import EXTRA, UNNAMED, CollectionSchema, Distance, VectorParams, vector_column
from vecdataset.sparse import fit_sparse
from vecdataset.vectors import fit_multivectors, fit_vectors, normalize

__all__ = ["ORIGINAL_ID", "Records", "qdrant_id", "records_of"]

ORIGINAL_ID: Final = "__id__"
"""The payload key of an id that Qdrant cannot have: text becomes a UUID (version 5, of the URL namespace),
as in Qdrant's own migration tool."""

_DEEPEST: Final = 127
_LONG_NUMBER: Final = re.compile(r"\d{19}")
_BRACKETS: Final = re.compile(r"[\[{]")
_EPSILON: Final = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Records:
    """Some points, side by side."""

    ids: list[int | str]
    """Unsigned integers, and UUIDs as text."""
    vectors: list[Any]
    """A list of numbers; or a dict of them by name; a multivector is a list of lists, a sparse vector
    `{"indices": […], "values": […]}`. What a point lacks is not there."""
    payloads: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[int | str, Any, dict[str, Any]]]:
        return zip(self.ids, self.vectors, self.payloads, strict=True)


def qdrant_id(given: int | str, id_type: str | None) -> int | str:
    """Return the id that a point gets in Qdrant."""
    if id_type == "string":
        return str(uuid.uuid5(uuid.NAMESPACE_URL, str(given)))
    return given


def records_of(
    batch: pa.RecordBatch, schema: CollectionSchema, *, where: str, names: Mapping[str, str] | None = None
) -> Records:
    """Return a batch of stored points in Qdrant's shapes.

    Args:
        batch: Columns as in the dataset.
        schema: Their declaration.
        where: Names the collection in errors.
        names: Our name of a vector to Qdrant's, where they differ.

    Raises:
        InvalidInputError: A point cannot be held by Qdrant; the message names it.
    """
    ids = decode_ids(batch.column("id"), schema.id_type)
    texts = batch.column(EXTRA)
    _refuse_texts(texts, ids)
    payloads = payload_values(batch, schema, ids)
    _refuse_payloads(payloads, texts, ids)
    vectors = _vectors(batch, schema, where, names or {})
    if schema.id_type == "string":
        for given, payload in zip(ids, payloads, strict=True):
            if payload.setdefault(ORIGINAL_ID, given) != given:
                raise InvalidIdError(
                    f"point {given!r} has a payload key {ORIGINAL_ID!r} of its own, {payload[ORIGINAL_ID]!r}",
                    hint="Qdrant has no text ids; the key is needed to keep the point's id: rename it",
                )
        ids = [qdrant_id(i, "string") for i in ids]
    return Records(ids, vectors, payloads)


# ------------------------------------------------------------------------------- vectors


def _vectors(
    batch: pa.RecordBatch, schema: CollectionSchema, where: str, names: Mapping[str, str]
) -> list[Any]:
    ids = batch.column("id")
    columns: dict[str, list[Any]] = {}
    for name, params in schema.vectors.items():
        values = batch.column(vector_column(name))
        fit = fit_multivectors if params.multivector else fit_vectors
        checked, _ = fit(values, name, params, ids=ids, where=where)
        columns[names.get(name, name)] = (
            _multi(checked, params) if params.multivector else _dense(checked, params)
        )
    for name in schema.sparse:
        checked = fit_sparse(batch.column(vector_column(name)), name, ids=ids, where=where)
        columns[names.get(name, name)] = checked.to_pylist()
    if set(columns) == {UNNAMED}:
        return [{} if v is None else v for v in columns[UNNAMED]]
    keys = list(columns)
    return [
        {k: v for k, v in zip(keys, row, strict=True) if v is not None}
        for row in zip(*columns.values(), strict=True)
    ]


def _dense(values: pa.Array, params: VectorParams) -> list[Any]:
    present = values.drop_null() if values.null_count else values
    matrix = present.flatten().to_numpy(zero_copy_only=False).reshape(-1, params.size)
    rows: list[Any] = _unit(matrix, params).tolist()
    if not values.null_count:
        return rows
    given = iter(rows)
    return [next(given) if there else None for there in values.is_valid().to_pylist()]


def _multi(values: pa.Array, params: VectorParams) -> list[Any]:
    present = values.drop_null() if values.null_count else values
    rows = iter(_dense(present.flatten(), params))
    counts = iter(np.diff(present.offsets.to_numpy()).tolist())
    return [
        [next(rows) for _ in range(next(counts))] if there else None
        for there in values.is_valid().to_pylist()
    ]


def _unit(matrix: np.ndarray, params: VectorParams) -> np.ndarray:
    """Return vectors of a Cosine space with those scaled that Qdrant would not scale rightly.

    It divides by the root of a sum of squares in float32, which overflows for large components (all
    become zero), and leaves vectors alone whose sum is below 1.2e-7. Its own scaling of the others
    stays its own: a point that came from there goes back bit for bit.
    """
    if params.metric is not Distance.COSINE or params.datatype == "uint8" or not len(matrix):
        return matrix
    wide = matrix.astype(np.float32, copy=False)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", wide, wide)
    odd = ~np.isfinite(squares) | (squares < _EPSILON)
    if not odd.any():
        return matrix
    out = wide.copy()
    out[odd] = normalize(wide[odd])
    return out


# ------------------------------------------------------------------------------- payload


def _refuse_texts(texts: pa.Array, ids: list[int | str]) -> None:
    """Refuse what would not even parse; a payload that is its own object is one level."""
    for row, text in enumerate(texts.to_pylist()):
        if text and len(_BRACKETS.findall(text)) > _DEEPEST and (deep := _text_depth(text)) > _DEEPEST:
            raise InvalidInputError(
                f"the payload of point {ids[row]!r} is nested {deep} levels deep; Qdrant reads {_DEEPEST}"
            )


def _text_depth(text: str) -> int:
    """Return how deep a JSON text is nested; brackets within strings do not count."""
    depth = deepest = 0
    for sign in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text, re.DOTALL):
        if sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


def _refuse_payloads(payloads: list[dict[str, Any]], texts: pa.Array, ids: list[int | str]) -> None:
    """Refuse integers that Qdrant would turn into floats; only `_extra` can hold them."""
    for row, text in enumerate(texts.to_pylist()):
        if not text or not _LONG_NUMBER.search(text):
            continue
        for key, value in payloads[row].items():
            large = _large(value)
            if large is not None:
                raise InvalidInputError(
                    f"payload key {key!r} of point {ids[row]!r} holds the integer {large}; Qdrant has those "
                    "from -2^63 to 2^64-1",
                    hint="store it as text, or as a float",
                )


def _large(value: Any) -> int | None:
    if isinstance(value, int):
        return None if -(1 << 63) <= value < 1 << 64 else value
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return next((found for v in inner if (found := _large(v)) is not None), None)
    return None
