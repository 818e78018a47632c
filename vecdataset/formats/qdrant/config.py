"""Qdrant's collection config, and what it declares in ours.

`config.json` of a snapshot (`params`, `hnsw_config`, `optimizer_config`, …) and the `config` of
`GET /collections/x` are the same object. What a declaration of ours can say is taken from it; the
whole of it is kept as JSON in the collection's settings, so that an export can give it back.

Qdrant counts `full_scan_threshold` and `indexing_threshold` in KB of float32 vectors (1 KB is 256
numbers); ours are rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vecdataset.errors import InvalidInputError, VecDatasetError
from vecdataset.indexes import check_declared
from vecdataset.reader import CONFIG
from vecdataset.schema import UNNAMED, CollectionSchema, SparseVectorParams, VectorParams, declare

if TYPE_CHECKING:
    from vecdataset.collection import Collection

__all__ = ["KEPT", "Declared", "declared_by", "kb_to_rows", "kept_config", "rows_to_kb", "settings_to_keep"]

KEPT: Final = "qdrant."
"""Settings of a collection that came from Qdrant: `qdrant.config`, `qdrant.payload_index`, `qdrant.names`."""

NEVER: Final = 1 << 62
"""Rows that no collection has: Qdrant's `indexing_threshold: 0` builds no index."""

_FLOATS_PER_KB: Final = 256
_DATATYPES: Final = frozenset({"float32", "float16", "uint8"})
_QUANTIZATIONS: Final = frozenset({"scalar", "product", "binary"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a Qdrant config says of a collection."""

    schema: CollectionSchema
    """The declaration, under names that a collection here can have."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Qdrant's vector name to ours, for those that had to change."""
    full_scan_threshold: int | None = None
    """Rows."""
    indexing_threshold: int | None = None
    """Rows."""
    losses: tuple[str, ...] = ()
    """What the declaration cannot say, one line each."""


def kb_to_rows(kb: float, size: int) -> int:
    """Return how many float32 vectors of `size` numbers fit into `kb` KB.

    >>> kb_to_rows(10_000, 128)
    20000
    """
    return int(kb * _FLOATS_PER_KB // size)


def rows_to_kb(rows: int, size: int) -> int:
    """Return the KB, rounded up, that `rows` float32 vectors of `size` numbers take.

    >>> rows_to_kb(20_000, 128)
    10000
    """
    return -(-rows * size // _FLOATS_PER_KB)


def declared_by(config: Mapping[str, Any], *, where: str) -> Declared:
    """Return what a collection config declares.

    Args:
        config: `config.json` of a snapshot, or `result.config` of `GET /collections/x`.
        where: Names the source in messages.

    Raises:
        InvalidInputError: It is not such a config.
    """
    try:
        params = config["params"]
        dense, sparse = _vectors(params.get("vectors") or {}), dict(params.get("sparse_vectors") or {})
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise InvalidInputError(
            f"the collection config of {where} is not Qdrant's: {type(exc).__name__}: {exc}"
        ) from None
    losses: list[str] = []
    names = _names([*dense, *sparse], losses)
    shared = config.get("quantization_config")
    vectors: dict[str, VectorParams] = {}
    for name, given in dense.items():
        try:
            vectors[names[name]] = _dense(name, given, shared, losses)
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidInputError(
                f"vector {name or 'vector'!r} in the collection config of {where} does not parse: "
                f"{type(exc).__name__}: {exc}"
            ) from None
    own_sparse = {names[name]: SparseVectorParams(_modifier(given)) for name, given in sparse.items()}
    largest = max((p.size for p in vectors.values()), default=0)
    full_scan, indexing = _thresholds(config, largest)
    return Declared(
        schema=declare(vectors, sparse=own_sparse),
        names={theirs: ours for theirs, ours in names.items() if theirs != ours},
        full_scan_threshold=full_scan,
        indexing_threshold=indexing,
        losses=tuple(losses),
    )


def _vectors(given: Any) -> dict[str, dict[str, Any]]:
    """Return the dense vectors by name; a config without names is that of the unnamed one."""
    if not isinstance(given, Mapping):
        raise TypeError("params.vectors is no object")
    if "size" in given and not isinstance(given["size"], Mapping):
        return {UNNAMED: dict(given)}
    return {str(name): dict(params) for name, params in given.items()}


def _dense(name: str, given: Mapping[str, Any], shared: Any, losses: list[str]) -> VectorParams:
    shown = name or "vector"
    datatype = given.get("datatype") or "float32"
    if datatype not in _DATATYPES:
        losses.append(f"vector {shown!r} is of datatype {datatype!r}; it is read as float32")
        datatype = "float32"
    multivector = given.get("multivector_config") is not None
    size, distance = given["size"], given["distance"]
    plain = VectorParams(size, distance, datatype=datatype, multivector=multivector)
    quantization = given.get("quantization_config") or shared
    if not quantization:
        return plain
    kind = next(iter(quantization))
    if kind in _QUANTIZATIONS:
        wanted = VectorParams(
            size, distance, datatype=datatype, multivector=multivector, quantization=dict(quantization)
        )
        try:
            check_declared(wanted)
        except VecDatasetError as exc:
            losses.append(f"the {kind} quantization of vector {shown!r} is not taken over: {exc}")
        else:
            return wanted
    else:
        losses.append(f"the {kind} quantization of vector {shown!r} is not taken over: there is no such one")
    return plain


def _modifier(given: Any) -> Any:
    modifier = given.get("modifier") if isinstance(given, Mapping) else None
    return "idf" if str(modifier).lower() == "idf" else None


def _thresholds(config: Mapping[str, Any], size: int) -> tuple[int | None, int | None]:
    if not size:
        return None, None
    scan = (config.get("hnsw_config") or {}).get("full_scan_threshold")
    optimizers = config.get("optimizer_config") or config.get("optimizers_config") or {}
    index = optimizers.get("indexing_threshold")
    full_scan = kb_to_rows(scan, size) if isinstance(scan, int | float) else None
    if not isinstance(index, int | float):
        return full_scan, None
    return full_scan, NEVER if index == 0 else kb_to_rows(index, size)


def _names(given: list[str], losses: list[str]) -> dict[str, str]:
    """Return a name of ours for each of Qdrant's, which may hold any text."""
    out: dict[str, str] = {}
    fitting = {name for name in given if _fits(name)}
    taken = set(fitting)
    for name in given:
        if name in fitting:
            out[name] = name
            continue
        stem = re.sub(r"_+", "_", re.sub(r"[^0-9A-Za-z-]", "_", name)).strip("_") or "v"
        stem = stem if stem[0].isalpha() else f"v{stem}"
        ours, number = stem, 1
        while ours in taken:
            number += 1
            ours = f"{stem}-{number}"
        taken.add(ours)
        out[name] = ours
        losses.append(f"vector {name!r} is called {ours!r} here")
    return out


def _fits(name: str) -> bool:
    try:
        declare({name: VectorParams(1)})
    except InvalidInputError:
        return False
    return True


def settings_to_keep(
    declared: Declared, config: Mapping[str, Any] | None, payload_index: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the settings of a collection that is made for Qdrant's points; see `kept_config`."""
    out: dict[str, str] = {}
    for key, value in (
        ("full_scan_threshold", declared.full_scan_threshold),
        ("indexing_threshold", declared.indexing_threshold),
    ):
        if value is not None:
            out[CONFIG + key] = str(value)
    for name, kept in (("config", config), ("payload_index", payload_index), ("names", declared.names)):
        if kept:
            out[f"{CONFIG}{KEPT}{name}"] = json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
    return out


def kept_config(collection: Collection) -> dict[str, Any]:
    """Return what was kept of Qdrant's own config when a collection was imported; empty for others.

    Keys are `config` (`config.json`), `payload_index` (`payload_index.json`) and `names` (Qdrant's
    vector name to ours), each only where there is something to say.
    """
    config = collection._reader.table.config  # noqa: SLF001  the settings of the version it shows
    prefix = CONFIG + KEPT
    found: dict[str, Any] = {}
    for key, text in config.items():
        if key.startswith(prefix):
            try:
                found[key.removeprefix(prefix)] = json.loads(text)
            except ValueError as exc:
                raise InvalidInputError(f"setting {key!r} of {collection.url} is not JSON: {exc}") from None
    return found
