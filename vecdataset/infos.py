"""What a collection tells of itself: its indexes, its state, how well an index finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vecdataset.display import html_table, size
from vecdataset.warm import HeldInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """One index of a collection."""

    name: str
    kind: str
    """`ivf_rq`, `btree` …"""
    on: str
    """The vector's name (`vector` when unnamed) or the payload key."""
    rows: int
    """Points it covers."""
    unindexed_rows: int
    """Points it does not cover yet; searches compare them one by one."""
    params: Mapping[str, Any]
    """What it was built with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """What `info()` tells."""

    name: str
    url: str
    rows: int
    indexed_rows: int
    unindexed_rows: int
    size_bytes: int
    version: int
    versions: int
    vectors: Mapping[str, Mapping[str, Any]]
    id_type: str | None
    payload: Mapping[str, str]
    indexes: Sequence[IndexInfo]
    snapshots: Sequence[str]
    full_scan_threshold: int
    indexing_threshold: int
    fragments: int
    storage: str
    held: HeldInfo | None = None
    """What this handle holds in memory; see `Collection.warm`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        vectors = ", ".join(
            f"{name or 'vector'}: "
            + ("sparse" if "sparse" in v else f"{v['datatype']}[{v['size']}] {v['distance']}")
            for name, v in self.vectors.items()
        )
        lines = [
            f"{self.name}  {self.url}",
            f"  points    {self.rows:,} ({self.indexed_rows:,} indexed), {size(self.size_bytes)}",
            f"  vectors   {vectors}",
            f"  ids       {self.id_type or 'decided by the first points'}",
            f"  payload   {', '.join(f'{k} {t}' for k, t in self.payload.items()) or '-'}",
            f"  indexes   {', '.join(f'{i.name} ({i.kind})' for i in self.indexes) or '-'}",
            f"  version   {self.version} of {self.versions}, {self.fragments} fragments",
            f"  snapshots {', '.join(self.snapshots) or '-'}",
            f"  storage   {self.storage}",
        ]
        if self.held is not None:
            vectors = ", ".join(name or "vector" for name in self.held.vectors)
            lines.append(f"  in memory {size(self.held.size_bytes)}: {vectors or 'no vectors'}, "
                         f"{len(self.held.columns)} columns, version {self.held.version}")  # fmt: skip
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shown = [
            {"": k, "value": v}
            for k, v in self.to_dict().items()
            if not isinstance(v, Mapping | list | tuple)
        ]
        return html_table(shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How many of the true neighbours an index finds."""

    value: float
    """Mean share of the exact top `k` that the index returned, 0 to 1."""
    k: int
    sample: int
    """Stored vectors that were asked for."""
    index: str | None
    """None where searches are exact, and recall is 1 by definition."""

    def __float__(self) -> float:
        return self.value
