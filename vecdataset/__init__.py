"""Vector collections for the data lake: Lance datasets on any filesystem.

Names are imported when first used (PEP 562), so that `import vecdataset` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog
    from vecdataset.collection import Collection
    from vecdataset.errors import (
        AlreadyExistsError,
        CollectionExistsError,
        CollectionNotFoundError,
        CommitConflictError,
        CorruptionError,
        InvalidFilterError,
        InvalidIdError,
        InvalidInputError,
        InvalidVectorError,
        LimitExceededError,
        MissingDependencyError,
        NotFoundError,
        NotSupportedError,
        OperationTimeoutError,
        PluginError,
        PointExistsError,
        PointNotFoundError,
        ReadOnlyError,
        SnapshotNotFoundError,
        StorageError,
        StoragePermissionError,
        StorageUnreachableError,
        UnknownNameError,
        VecDatasetError,
        VersionGoneError,
        VersionNotFoundError,
    )
    from vecdataset.filters import Filter
    from vecdataset.formats import LossWarning, load, load_all
    from vecdataset.frames import Frame, ScoredPoints
    from vecdataset.ids import Id
    from vecdataset.indexes import SearchParams
    from vecdataset.infos import CollectionInfo, IndexInfo, Recall
    from vecdataset.multi import search_all
    from vecdataset.opening import adopt, create
    from vecdataset.opening import open_collection as open  # noqa: A004
    from vecdataset.pipeline import StepPlan
    from vecdataset.points import Point
    from vecdataset.query import Plan
    from vecdataset.schema import CollectionSchema, Distance, SparseVectorParams, VectorParams
    from vecdataset.sparse import SparseVector
    from vecdataset.text import TextQuery
    from vecdataset.vectors import normalize
    from vecdataset.warm import HeldInfo
    from vecdataset.writer import WriteResult

_HOMES = {
    "AlreadyExistsError": "errors",
    "Catalog": "catalog",
    "Collection": "collection",
    "CollectionExistsError": "errors",
    "CollectionInfo": "infos",
    "CollectionNotFoundError": "errors",
    "CollectionSchema": "schema",
    "CommitConflictError": "errors",
    "CorruptionError": "errors",
    "Distance": "schema",
    "Filter": "filters",
    "Frame": "frames",
    "HeldInfo": "warm",
    "Id": "ids",
    "IndexInfo": "infos",
    "InvalidFilterError": "errors",
    "InvalidIdError": "errors",
    "InvalidInputError": "errors",
    "InvalidVectorError": "errors",
    "LimitExceededError": "errors",
    "LossWarning": "formats",
    "MissingDependencyError": "errors",
    "NotFoundError": "errors",
    "NotSupportedError": "errors",
    "OperationTimeoutError": "errors",
    "Plan": "query",
    "PluginError": "errors",
    "Point": "points",
    "PointExistsError": "errors",
    "PointNotFoundError": "errors",
    "ReadOnlyError": "errors",
    "Recall": "infos",
    "ScoredPoints": "frames",
    "SearchParams": "indexes",
    "SnapshotNotFoundError": "errors",
    "SparseVector": "sparse",
    "SparseVectorParams": "schema",
    "StepPlan": "pipeline",
    "StorageError": "errors",
    "StoragePermissionError": "errors",
    "StorageUnreachableError": "errors",
    "TextQuery": "text",
    "UnknownNameError": "errors",
    "VecDatasetError": "errors",
    "VectorParams": "schema",
    "VersionGoneError": "errors",
    "VersionNotFoundError": "errors",
    "WriteResult": "writer",
    "adopt": "opening",
    "create": "opening",
    "load": "formats",
    "load_all": "formats",
    "normalize": "vectors",
    "open": "opening",
    "search_all": "multi",
}

__all__ = [
    "AlreadyExistsError",
    "Catalog",
    "Collection",
    "CollectionExistsError",
    "CollectionInfo",
    "CollectionNotFoundError",
    "CollectionSchema",
    "CommitConflictError",
    "CorruptionError",
    "Distance",
    "Filter",
    "Frame",
    "HeldInfo",
    "Id",
    "IndexInfo",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidVectorError",
    "LimitExceededError",
    "LossWarning",
    "MissingDependencyError",
    "NotFoundError",
    "NotSupportedError",
    "OperationTimeoutError",
    "Plan",
    "PluginError",
    "Point",
    "PointExistsError",
    "PointNotFoundError",
    "ReadOnlyError",
    "Recall",
    "ScoredPoints",
    "SearchParams",
    "SnapshotNotFoundError",
    "SparseVector",
    "SparseVectorParams",
    "StepPlan",
    "StorageError",
    "StoragePermissionError",
    "StorageUnreachableError",
    "TextQuery",
    "UnknownNameError",
    "VecDatasetError",
    "VectorParams",
    "VersionGoneError",
    "VersionNotFoundError",
    "WriteResult",
    "adopt",
    "create",
    "load",
    "load_all",
    "normalize",
    "open",
    "search_all",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vecdataset")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vecdataset' has no attribute {name!r}")
    value = getattr(import_module(f"vecdataset.{home}"), "open_collection" if name == "open" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
