"""The shapes in which stores write a point as JSON, and the same points in Qdrant's shape.

| shape | a record | the point |
|---|---|---|
| Qdrant | `id`, `vector`, `payload` | as it is |
| d-vecDB | `id`, `data`, `metadata` | `data` is the vector, `metadata` the payload |
| Pinecone | `id`, `values`, `sparse_values`, `metadata` | the sparse vector is `sparse_vector` |
| Weaviate | `id` or `uuid`, `properties`, `vector`, `vectors` | vector `default` is the unnamed one |
| Chroma | `id`, `embedding`, `document`, `metadata` | `document` becomes a key of the payload |

Keys of a record that its shape does not name (`namespace`, `class`, `tenant` …) become keys of the
payload, so that nothing is lost. Records in none of these shapes are flat: an id, vectors under
their keys, and the payload's keys beside them, as Milvus writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vecdataset.errors import InvalidInputError
from vecdataset.formats.json_values import Record
from vecdataset.schema import UNNAMED

__all__ = ["RESULT", "Shape", "is_point", "shape_of"]

RESULT: Final = frozenset({"score", "version", "shard_key", "order_value", "query_index"})
"""What Qdrant's answers, and ours, add to a point."""

_POINT: Final = frozenset({"id", "vector", "payload"})
_SPARSE_VECTOR: Final = "sparse_vector"
"""The name that Qdrant's own migration gives to Pinecone's sparse values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one store writes points."""

    name: str
    """The store."""

    fits: Callable[[Mapping[str, Any]], bool]
    """Whether a record has this shape and no other."""

    point: Callable[[Record], Record]
    """From a record, which it may take apart, to a Qdrant-shaped point."""


def shape_of(record: Mapping[str, Any]) -> Shape | None:
    """Return the shape of a record of another store; None where it is Qdrant's, or flat."""
    return None if is_point(record) else next((s for s in _SHAPES if s.fits(record)), None)


def is_point(record: Mapping[str, Any]) -> bool:
    """Return whether a record has the shape of a Qdrant point rather than a payload's."""
    if not record.keys() <= _POINT | RESULT or record.keys().isdisjoint(("payload", "vector")):
        return False
    payload = record.get("payload")
    if not (payload is None or isinstance(payload, dict)):
        return False
    return "payload" in record or isinstance(record.get("vector"), dict) or record.keys() <= _POINT


def _dvecdb(record: Record) -> Record:
    vector = record.pop("data")
    return {"id": record.pop("id", None), "vector": vector, "payload": _payload(record, "metadata")}


def _pinecone(record: Record) -> Record:
    values = record.pop("values", None)
    sparse = record.pop("sparse_values", None) or record.pop("sparseValues", None)
    record.pop("sparseValues", None)
    record.pop("score", None)
    vectors = {UNNAMED: values} if values else {}
    if sparse and sparse.get("indices"):
        vectors[_SPARSE_VECTOR] = {"indices": sparse["indices"], "values": sparse.get("values")}
    return {
        "id": record.pop("id", None),
        "vector": vectors or None,
        "payload": _payload(record, "metadata"),
    }


def _weaviate(record: Record) -> Record:
    id = record.pop("id", None)
    id = record.pop("uuid", None) if id is None else id
    vectors: Record = {}
    for found in (record.pop("vector", None), record.pop("vectors", None)):
        if found:
            vectors |= found if isinstance(found, dict) else {UNNAMED: found}
    if "default" in vectors:
        vectors.setdefault(UNNAMED, vectors.pop("default"))
    return {"id": id, "vector": vectors or None, "payload": _payload(record, "properties")}


def _chroma(record: Record) -> Record:
    vector = record.pop("embedding")
    if record.get("document") is None:
        record.pop("document", None)
    if record.get("uri") is None:
        record.pop("uri", None)
    return {"id": record.pop("id", None), "vector": vector, "payload": _payload(record, "metadata")}


def _payload(rest: Record, key: str) -> Record:
    """Return the payload under `key`, with what else is left of a record."""
    payload: Record = rest.pop(key, None) or {}
    for name, value in rest.items():
        if name in payload:
            raise InvalidInputError(
                f"a record has {name!r} both beside its {key} and in it: {value!r} and {payload[name]!r}",
                hint="rename one of the two before importing",
            )
    return payload | rest


def _holds(record: Mapping[str, Any], key: str, *kinds: type) -> bool:
    return isinstance(record.get(key), kinds)


def _has_payload(record: Mapping[str, Any], key: str) -> bool:
    return record.get(key) is None or isinstance(record[key], dict)


_SHAPES: Final = (
    Shape(
        name="d-vecDB",
        fits=lambda r: _holds(r, "data", list) and r.keys() <= {"id", "data", "metadata"} and len(r) > 1,
        point=_dvecdb,
    ),
    Shape(
        name="Pinecone",
        fits=lambda r: (
            r.keys() <= {"id", "values", "sparse_values", "sparseValues", "metadata", "namespace", "score"}
            and (
                _holds(r, "values", list)
                or _holds(r, "sparse_values", dict)
                or _holds(r, "sparseValues", dict)
            )
            and _has_payload(r, "metadata")
        ),
        point=_pinecone,
    ),
    Shape(
        name="Weaviate",
        fits=lambda r: _holds(r, "properties", dict) and not r.keys().isdisjoint(("vector", "vectors")),
        point=_weaviate,
    ),
    Shape(
        name="Chroma",
        fits=lambda r: (
            _holds(r, "embedding", list)
            and not r.keys().isdisjoint(("document", "metadata"))
            and r.keys() <= {"id", "embedding", "document", "metadata", "uri", "text_chunk"}
            and _has_payload(r, "metadata")
        ),
        point=_chroma,
    ),
)
