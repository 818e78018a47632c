"""What a collection tells Qdrant of itself: `config.json`, `payload_index.json`, the body that creates it.

What an import kept of Qdrant's own config is given back, with the thresholds and vectors that the
collection has now; a collection that never saw Qdrant gets a server's defaults. Qdrant counts the
thresholds in KB. One shard: with more, points would have to be placed as the server's hash ring
places them, and a server splits a shard by itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from vecdataset.formats.qdrant.config import NEVER, kb_to_rows, kept_config, rows_to_kb
from vecdataset.schema import UNNAMED, PayloadColumn, VectorParams

if TYPE_CHECKING:
    from vecdataset.collection import Collection
    from vecdataset.infos import IndexInfo

__all__ = ["Settings", "creation_body", "settings_of"]

_HNSW: Final = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0}
_OPTIMIZER: Final[Mapping[str, Any]] = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1_000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10_000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
}
_WAL: Final = {"wal_capacity_mb": 32, "wal_segments_ahead": 0}
_PARAMS: Final = {
    "shard_number": 1,
    "replication_factor": 1,
    "write_consistency_factor": 1,
    "on_disk_payload": True,
}
_CREATED_WITH: Final = frozenset({*_PARAMS, "vectors", "sparse_vectors"})
_LARGEST_KB: Final = (1 << 53) - 1
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUANTIZATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "scalar": {"scalar": {"type": "int8"}},
    "product": {"product": {"compression": "x16"}},
    "binary": {"binary": {}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One collection in Qdrant's words."""

    config: Mapping[str, Any]
    """`config.json` of a snapshot."""
    payload_index: Mapping[str, Any]
    """JSON path of a payload key to its index, as in `payload_index.json`."""
    names: Mapping[str, str]
    """Our name of a vector to Qdrant's, where they differ."""
    losses: tuple[str, ...]
    """What Qdrant cannot say, one line each."""


def settings_of(collection: Collection) -> Settings:
    """Return what the version that a handle shows tells Qdrant."""
    kept = kept_config(collection)
    names = {ours: theirs for theirs, ours in kept.get("names", {}).items()}
    losses: list[str] = []
    config: dict[str, Any] = copy.deepcopy(kept.get("config") or {})
    params = {**_PARAMS, **(config.get("params") or {}), "shard_number": 1}
    params.pop("sharding_method", None)
    params["vectors"] = _vectors(collection, names, params.get("vectors") or {}, losses)
    before = params.pop("sparse_vectors", None) or {}
    sparse = {names.get(name, name): p for name, p in collection.schema.sparse.items()}
    if sparse:
        params["sparse_vectors"] = {
            name: {**before.get(name, {}), **({"modifier": p.modifier} if p.modifier else {})}
            for name, p in sparse.items()
        }
    config["params"] = params
    config["hnsw_config"] = {**_HNSW, **(config.get("hnsw_config") or {})}
    config["optimizer_config"] = {**_OPTIMIZER, **(config.get("optimizer_config") or {})}
    config["wal_config"] = {**_WAL, **(config.get("wal_config") or {})}
    config.setdefault("quantization_config", None)
    config["uuid"] = None
    _thresholds(collection, config)
    return Settings(
        config=config,
        payload_index=_payload_index(collection, kept.get("payload_index") or {}, losses),
        names=names,
        losses=tuple(losses),
    )


def creation_body(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of `PUT /collections/x` for a `config.json`: the names differ, and the layout."""
    params = dict(config["params"])
    body: dict[str, Any] = {
        k: v for k, v in params.items() if not k.startswith("read_fan_out") and k != "payload"
    }
    body["hnsw_config"] = config["hnsw_config"]
    body["optimizers_config"] = {k: v for k, v in config["optimizer_config"].items() if v is not None}
    for key in ("quantization_config", "strict_mode_config", "metadata"):
        if config.get(key) is not None:
            body[key] = config[key]
    body["wal_config"] = {k: v for k, v in config["wal_config"].items() if k in _WAL}
    return body


# ------------------------------------------------------------------------------- vectors


def _vectors(
    collection: Collection, names: Mapping[str, str], kept: Mapping[str, Any], losses: list[str]
) -> dict[str, Any]:
    one = "size" in kept and not isinstance(kept["size"], Mapping)
    before = {UNNAMED: kept} if one else kept
    graphs = {i.on: i for i in collection.indexes}
    out = {}
    for name, params in collection.schema.vectors.items():
        theirs = names.get(name, name)
        out[theirs] = _dense(
            name, params, dict(before.get(theirs) or {}), graphs.get(name or "vector"), losses
        )
    return dict(out[UNNAMED]) if set(out) == {UNNAMED} else out


def _dense(
    name: str, params: VectorParams, kept: dict[str, Any], graph: IndexInfo | None, losses: list[str]
) -> dict[str, Any]:
    out = {**kept, "size": params.size, "distance": params.metric.value}
    if params.datatype == "int8":
        losses.append(f"vector {name or 'vector'!r} is int8, which Qdrant does not have: it becomes float16")
    if params.datatype != "float32":
        out["datatype"] = "uint8" if params.datatype == "uint8" else "float16"
    if params.multivector:
        out["multivector_config"] = {"comparator": "max_sim"}
    if "quantization_config" not in kept and params.quantization is not None:
        out["quantization_config"] = _quantization(params.quantization)
    chosen = {k: graph.params[k] for k in ("m", "ef_construct") if k in graph.params} if graph else {}
    if chosen:
        out["hnsw_config"] = {**(kept.get("hnsw_config") or {}), **chosen}
    return out


def _quantization(given: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(given, str):
        return dict(_QUANTIZATIONS[given])
    if "type" in given:  # d-vecDB's words
        return dict(_QUANTIZATIONS[str(given["type"])])
    return dict(given)


def _thresholds(collection: Collection, config: dict[str, Any]) -> None:
    """Set the thresholds in KB, where they are not what the kept ones already say."""
    size = max((p.size for p in collection.schema.vectors.values()), default=0)
    if not size:
        return
    info = collection.info()
    for section, key, rows in (
        ("hnsw_config", "full_scan_threshold", info.full_scan_threshold),
        ("optimizer_config", "indexing_threshold", info.indexing_threshold),
    ):
        have = config[section].get(key)
        if isinstance(have, int) and kb_to_rows(have, size) == rows:
            continue
        never = key == "indexing_threshold" and rows >= NEVER
        config[section][key] = 0 if never else min(rows_to_kb(rows, size), _LARGEST_KB)


# ------------------------------------------------------------------------------- payload


def _payload_index(collection: Collection, kept: Mapping[str, Any], losses: list[str]) -> dict[str, Any]:
    out = dict(kept.get("schema", kept))
    for index in collection.indexes:
        column = collection.schema.payload.get(index.on)
        if column is None:
            continue
        path = _path(index.on)
        kind = _index_type(column, index.kind)
        if path is None or kind is None:
            losses.append(f"the index {index.name!r} over payload key {index.on!r} has no like in Qdrant")
        else:
            out.setdefault(path, kind)
    return out


def _path(key: str) -> str | None:
    """Return a payload key as a JSON path of Qdrant's; None where there is none."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    return None if '"' in key else f'"{key}"'


def _index_type(column: PayloadColumn, kind: str) -> Any:
    item = column.type
    while pa.types.is_list(item) or pa.types.is_large_list(item):
        item = item.value_type
    if kind in ("text", "inverted"):
        return {"type": "text", "tokenizer": "word", "lowercase": True}
    if pa.types.is_string(item) or pa.types.is_large_string(item):
        return "uuid" if kind == "uuid" else None if kind == "ngram" else "keyword"
    if pa.types.is_boolean(item):
        return "bool"
    if pa.types.is_integer(item):
        return "integer"
    if pa.types.is_floating(item):
        return "float"
    return "datetime" if pa.types.is_timestamp(item) or pa.types.is_date(item) else None
