"""Points as JSON text: `{"id": 1, "vector": [0.1, …], "payload": {…}}`.

Named vectors are an object, sparse ones `{"indices": […], "values": […]}`, multivectors lists of
lists; `{}` stands where a point has no vector, because null is what a dump without vectors has.
Components are the shortest text that gives the stored float back.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.formats.payload import payload_values
from vecdataset.ids import decode_ids
from vecdataset.schema import UNNAMED, CollectionSchema

__all__ = ["point_texts"]


def point_texts(batch: pa.RecordBatch, schema: CollectionSchema) -> list[str]:
    """Return each point as one JSON object, on one line."""
    ids = decode_ids(batch.column("id"), schema.id_type)
    vectors = _vector_texts(batch, schema)
    texts = _payload_texts(batch, schema, ids)
    return [
        f'{{"id":{json.dumps(i, ensure_ascii=False)},"vector":{v},"payload":{p}}}'
        for i, v, p in zip(ids, vectors, texts, strict=True)
    ]


def _vector_texts(batch: pa.RecordBatch, schema: CollectionSchema) -> list[str]:
    texts = {name: _texts(batch.column(column)) for name, column in schema.vector_columns.items()}
    if set(texts) == {UNNAMED}:
        return [t or "{}" for t in texts[UNNAMED]]
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
        json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for payload in payload_values(batch, schema, ids)
    ]
