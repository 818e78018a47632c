"""JSON Lines: one Qdrant-shaped point a line, or one flat object; every JSON value as it was.

Written: `{"id": 1, "vector": [0.1, …], "payload": {…}}`; named vectors as an object, sparse ones as
`{"indices": […], "values": […]}`, multivectors as lists of lists; `null` where a point has no
vector. Components are the shortest text that gives the stored float back. Payload types that
JSON does not have become text: times in ISO 8601, decimals in digits, bytes in base64.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError
from vecdataset.formats import Reading, Source
from vecdataset.formats.payload import payload_values
from vecdataset.ids import decode_ids
from vecdataset.points import Layout
from vecdataset.schema import UNNAMED, CollectionSchema, SparseVectorParams, VectorParams

__all__ = ["JsonLines"]

PEEK_ROWS: Final = 1_000
_POINT: Final = frozenset({"id", "vector", "payload"})
_RESULT: Final = frozenset({"score", "version", "shard_key", "order_value", "query_index"})
"""What Qdrant's answers, and ours, add to a point."""


class JsonLines:
    """One JSON object a line."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")
    capabilities = frozenset({"read", "write", "stream"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the first line is a JSON object, as far as it can be seen."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if not text.startswith(b"{"):
            return False
        line, end, _ = text.partition(b"\n")
        if not end and len(head) >= 1 << 16:
            return True  # a long line: its end is out of sight
        try:
            return isinstance(json.loads(line), dict)
        except ValueError:
            return False

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:  # noqa: ARG002
        """Return the lines as dicts; the first thousand tell layout and vectors."""
        rows = _rows(source)
        head = list(islice(rows, PEEK_ROWS))
        if layout is None:
            layout = "qdrant" if head and _is_point(head[0][1]) else "flat"
        names = tuple(dict.fromkeys(key for _, row in head for key in row))
        sparse: dict[str, SparseVectorParams] = {}
        if layout == "qdrant":
            vectors, sparse = _named_vectors(head)
        else:
            vectors = _vector_keys(head, names)
        compact = ("vector",) if layout == "qdrant" else tuple(vectors)
        points = _checked(chain(head, rows), source, layout, compact)
        return Reading(points=points, names=names, vectors=vectors, sparse=sparse, layout=layout)

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:
        """Write one line a point."""
        schema = CollectionSchema.from_arrow(points.schema, url=name)
        for batch in points:
            if batch.num_rows:
                target.write(_lines(batch, schema).encode())


# ------------------------------------------------------------------------------- reading


def _rows(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and objects; blank lines are passed over."""
    number = 0
    try:
        for number, raw in enumerate(source.file, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_constant=_no_constant)
            except (ValueError, RecursionError) as exc:
                raise InvalidInputError(
                    f"line {number} of {source.name} is not JSON: {exc}",
                    hint="each line holds one point, as a JSON object",
                ) from None
            if not isinstance(row, dict):
                raise InvalidInputError(
                    f"line {number} of {source.name} is a JSON {_json_type(row)}; a point is an object"
                )
            yield number, row
    except (EOFError, zlib.error, OSError) as exc:
        raise InvalidInputError(f"{source.name} breaks off after line {number}: {exc}") from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _json_type(value: Any) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _is_point(row: Mapping[str, Any]) -> bool:
    """Return whether an object has the shape of a Qdrant point rather than a payload's."""
    if not row.keys() <= _POINT | _RESULT or row.keys().isdisjoint(("payload", "vector")):
        return False
    payload = row.get("payload")
    vector = row.get("vector")
    if not (payload is None or isinstance(payload, dict)):
        return False
    return "payload" in row or isinstance(vector, dict) or row.keys() <= _POINT


def _checked(
    rows: Iterator[tuple[int, dict[str, Any]]], source: Source, layout: Layout, compact: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yield points with their vectors as arrays, a quarter of the size of Python's lists."""
    for number, row in rows:
        if layout == "qdrant":
            strange = row.keys() - _POINT - _RESULT
            if strange:
                raise InvalidInputError(
                    f"line {number} of {source.name} has the key {min(strange)!r} beside id, vector and "
                    "payload, which the lines before it do not",
                    hint="layout='flat' takes all keys as payload",
                )
        for key in compact:
            value = row.get(key)
            if isinstance(value, list):
                row[key] = _array(value)
            elif isinstance(value, dict):
                row[key] = {n: _array(v) if isinstance(v, list) else v for n, v in value.items()}
        yield row


def _array(values: list[Any]) -> Any:
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        return values
    return array if array.ndim == 1 and array.dtype.kind in "fi" else values


def _named_vectors(
    head: list[tuple[int, dict[str, Any]]],
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


def _vector_keys(head: list[tuple[int, dict[str, Any]]], names: tuple[str, ...]) -> dict[str, VectorParams]:
    """Return the keys whose values are lists of numbers, equally long in all of the first lines."""
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


# ------------------------------------------------------------------------------- writing


def _lines(batch: pa.RecordBatch, schema: CollectionSchema) -> str:
    ids = decode_ids(batch.column("id"), schema.id_type)
    vectors = _vector_texts(batch, schema)
    payloads = _payload_texts(batch, schema, ids)
    return "".join(
        f'{{"id":{json.dumps(i, ensure_ascii=False)},"vector":{v},"payload":{p}}}\n'
        for i, v, p in zip(ids, vectors, payloads, strict=True)
    )


def _vector_texts(batch: pa.RecordBatch, schema: CollectionSchema) -> list[str]:
    texts = {name: _texts(batch.column(column)) for name, column in schema.vector_columns.items()}
    if set(texts) == {UNNAMED}:
        return [t or "null" for t in texts[UNNAMED]]
    keys = [json.dumps(name) for name in texts]
    return [
        "{" + ",".join(f"{k}:{t}" for k, t in zip(keys, row, strict=True) if t is not None) + "}"
        for row in zip(*texts.values(), strict=True)
    ]


def _texts(vectors: pa.Array) -> list[str | None]:
    """Return each vector as JSON text, None where there is none; Arrow formats the numbers, all at once."""
    if pa.types.is_struct(vectors.type):
        parts = zip(*(_texts(vectors.field(name)) for name in ("indices", "values")), strict=True)
        valid = vectors.is_valid().to_pylist()
        return [
            f'{{"indices":{i},"values":{v}}}' if there else None
            for (i, v), there in zip(parts, valid, strict=True)
        ]
    present = vectors.drop_null()
    inner = present.flatten()
    if pa.types.is_fixed_size_list(inner.type):
        elements = pa.array(_texts(inner), pa.string())
    else:
        elements = _number_texts(inner)
    if pa.types.is_fixed_size_list(vectors.type):
        offsets = np.arange(len(present) + 1, dtype=np.int64) * vectors.type.list_size
    else:
        sizes = pc.list_value_length(present).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements)
    joined = iter(pc.binary_join(lists, ",").to_pylist())
    return [f"[{next(joined)}]" if there else None for there in vectors.is_valid().to_pylist()]


def _number_texts(values: pa.Array) -> pa.Array:
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    flat = values.cast(pa.float32())
    texts = flat.cast(pa.string())
    numbers = flat.to_numpy(zero_copy_only=False)
    negative_zero = (numbers == 0) & np.signbit(numbers)
    if negative_zero.any():  # "-0" would be read back as the integer 0
        texts = pc.if_else(pa.array(negative_zero), pa.scalar("-0.0"), texts)
    return texts


def _payload_texts(batch: pa.RecordBatch, schema: CollectionSchema, ids: list[int | str]) -> list[str]:
    return [
        json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        for payload in payload_values(batch, schema, ids)
    ]
