"""Index kinds: how a vector index is built, and how it is asked.

A kind is a plugin of the entry-point group `vecdataset.indexes`. Today every kind is one
that Lance builds and stores with the dataset; the kind decides which, with what options,
and how hard a search looks so that recall stays where users expect it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.registry import Registry
from vecdataset.schema import VectorParams

ALIASES: Final = {
    "max_connections": "m", "M": "m",
    "ef_construction": "ef_construct",
    "ef_search": "ef", "hnsw_ef": "ef",
    "max_layer": "max_level",
    "refine_factor": "refine",
    "num_segments": "num_sub_vectors",
    "bits_per_code": "num_bits",
    "lists": "num_partitions", "nlist": "num_partitions",
    "probes": "nprobes", "nprobe": "nprobes",
}  # fmt: skip
"""Other systems' names for the same options."""

PRESETS: Final[Mapping[str, Mapping[str, int]]] = {
    "high_accuracy": {"m": 48, "ef_construct": 200, "ef": 128},
    "balanced": {"m": 16, "ef_construct": 100, "ef": 64},
    "fast": {"m": 8, "ef_construct": 64, "ef": 32},
    "fast_indexing": {"m": 8, "ef_construct": 100, "ef": 100},
    "high_recall": {"m": 32, "ef_construct": 400, "ef": 200},
    "fast_search": {"m": 32, "ef_construct": 200, "ef": 50},
}
"""Named HNSW settings; an option given beside a preset wins."""

_BUILD_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "m": (2, 512),
    "ef_construct": (16, 2_000),
    "ef": (1, 10_000),
    "max_level": (1, 32),
    "nprobes": (1, 100_000),
    "refine": (1, 1_000),
    "num_partitions": (1, 100_000),
    "num_sub_vectors": (1, 65_536),
    "num_bits": (1, 9),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """How hard one search looks; the defaults are the index kind's."""

    ef: int | None = None
    """HNSW: candidates kept while walking the graph; at least the limit."""
    nprobes: int | None = None
    """IVF: partitions read."""
    refine: int | None = None
    """Quantised kinds: this many times the limit is fetched and scored with the stored vectors."""
    exact: bool = False
    """Compare with every vector."""

    @classmethod
    def parse(cls, params: SearchParams | Mapping[str, Any] | None) -> SearchParams:
        """Return search parameters from a dict in this library's, Qdrant's or d-vecDB's names."""
        if params is None:
            return _DEFAULT_SEARCH
        if isinstance(params, SearchParams):
            return params
        given = dict(params)
        quantization = given.pop("quantization", None)
        if isinstance(quantization, Mapping) and quantization.get("oversampling"):
            given.setdefault("refine", max(1, round(float(quantization["oversampling"]))))
        values: dict[str, Any] = {}
        for name, value in given.items():
            own = ALIASES.get(name, name)
            if own not in cls.__dataclass_fields__:
                raise UnknownNameError(
                    f"search parameter {name!r} is not known",
                    hint=did_you_mean(name, [*cls.__dataclass_fields__], what="search parameters"),
                )
            if own == "exact":
                values[own] = bool(value)
            elif value is not None:
                values[own] = _in_range(name, own, value)
        return cls(**values)


_DEFAULT_SEARCH: Final = SearchParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What Lance is told to build."""

    kind: str
    """Lance's name: `ivf_rq` …"""
    options: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class IndexKind(Protocol):
    """One way to index a vector column.

    Implementations hold no state; `capabilities` names facts that the planner and
    `vecdataset plugins` show, such as `ivf`, `hnsw`, `quantised`.
    """

    name: str
    capabilities: frozenset[str]

    def refuses(self, vector: VectorParams) -> str | None:
        """Return why this kind cannot index such vectors, or None when it can."""
        ...

    def build(self, vector: VectorParams, *, rows: int, params: Mapping[str, Any]) -> Build:
        """Return what to build over `rows` vectors; `params` has this library's names."""
        ...

    def probe(
        self, *, k: int, selectivity: float, built: Mapping[str, Any], params: SearchParams
    ) -> dict[str, Any]:
        """Return Lance's search options for `k` neighbours.

        Args:
            k: Neighbours wanted.
            selectivity: The share of rows that a filter lets through; 1.0 without one.
            built: The params the index was built with.
            params: What the caller asked for.
        """
        ...


kinds: Final[Registry[IndexKind]] = Registry(
    "indexes",
    builtins={
        name: f"vecdataset.indexes.lance:{name.upper()}"
        for name in (
            "ivf_flat", "ivf_sq", "ivf_pq", "ivf_rq",
            "ivf_hnsw_flat", "ivf_hnsw_sq", "ivf_hnsw_pq", "hnsw",
        )
    },
    aliases={"flat": "ivf_flat", "sq": "ivf_sq", "pq": "ivf_pq", "rq": "ivf_rq", "hnsw_sq": "ivf_hnsw_sq"},
    protocol=IndexKind,
    noun="index kind",
)  # fmt: skip


def build_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return build parameters under this library's names, presets filled in, ranges checked."""
    given = dict(params)
    preset = given.pop("preset", None)
    out: dict[str, Any] = {}
    if preset is not None:
        if preset not in PRESETS:
            raise UnknownNameError(
                f"preset {preset!r} is not known", hint=did_you_mean(str(preset), PRESETS, what="presets")
            )
        out.update(PRESETS[preset])
    for name, value in given.items():
        own = ALIASES.get(name, name)
        if own not in _BUILD_RANGES:
            raise UnknownNameError(
                f"index parameter {name!r} is not known",
                hint=did_you_mean(name, [*_BUILD_RANGES, "preset"], what="index parameters"),
            )
        if value is not None:
            out[own] = _in_range(name, own, value)
    return out


def _in_range(name: str, own: str, value: Any) -> int:
    low, high = _BUILD_RANGES[own]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInputError(f"{name} is {value!r}; it must be an integer of {low:,} to {high:,}")
    return value


def default_kind(vector: VectorParams) -> tuple[str, dict[str, Any]]:
    """Return the kind, and its params, that `optimize()` builds for a vector.

    What was declared decides: `index`, then `quantization` (scalar, product, binary, in
    Qdrant's or d-vecDB's shape). Otherwise `ivf_rq`, the cheapest that reaches 0.95 recall,
    or `ivf_sq` where the size is no multiple of eight, which `ivf_rq` needs.
    """
    kind, params = _quantised(vector.quantization)
    if vector.index is not None:
        return kinds.get(vector.index).name, params
    if kind is not None:
        return kind, params
    return ("ivf_rq" if vector.size % 8 == 0 else "ivf_sq"), {}


def _quantised(quantization: Mapping[str, Any] | str | None) -> tuple[str | None, dict[str, Any]]:
    if quantization is None:
        return None, {}
    options: Mapping[str, Any] = {}
    if isinstance(quantization, Mapping):
        name = quantization.get("type")
        options = quantization.get("options") or {}
        if name is None:  # Qdrant: {"scalar": {"type": "int8", "quantile": 0.99}}
            name, options = next(iter(quantization.items()), ("", {}))
    else:
        name = quantization
    if name == "scalar":
        return "ivf_sq", {}
    if name == "product":
        known = {k: v for k, v in options.items() if k in ("num_segments", "bits_per_code")}
        return "ivf_pq", build_params(known)
    if name == "binary":
        return "ivf_rq", {"num_bits": 1}
    raise UnknownNameError(
        f"quantization {name!r} is not known",
        hint=did_you_mean(str(name), ["scalar", "product", "binary"], what="quantizations"),
    )


def check_declared(vector: VectorParams) -> None:
    """Refuse a declaration whose index or quantization cannot be built, before anything is written."""
    if vector.index is None and vector.quantization is None:
        return
    name, params = default_kind(vector)
    kind = kinds.get(name)
    reason = kind.refuses(vector)
    if reason is None:
        kind.build(vector, rows=1, params=params)
    else:
        raise InvalidInputError(f"index {name!r} cannot be built: {reason}")
