"""Vector Dataset Format, the folders of vector-io: `VDF_META.json` and Parquet files.

`indexes` maps the name of an index to its namespaces, each with `data_path`, `vector_columns`,
`dimensions` and `metric`; `file_structure` lists the files, beneath the folder's own name;
`id_column` names the ids. Payload keys are columns. (Source: `vdf_io/meta_types.py` of vector-io.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa

from vecdataset.errors import InvalidInputError, NotFoundError, UnknownNameError, did_you_mean
from vecdataset.formats import Reading, Source
from vecdataset.formats.tabular import Parquet
from vecdataset.points import Layout
from vecdataset.schema import Distance, VectorParams

__all__ = ["VectorDatasetFolder"]

_MARKER: Final = "VDF_META.json"


class VectorDatasetFolder:
    """One index of a folder that vector-io wrote."""

    name = "vdf"
    suffixes = ()
    capabilities = frozenset({"read"})
    options = frozenset({"index", "namespace"})
    marker = _MARKER

    def sniff(self, head: bytes, name: str) -> bool:
        """Return whether this is the file that describes such a folder."""
        return PurePosixPath(name).name == _MARKER or (
            head.lstrip()[:1] == b"{" and b'"indexes"' in head and b'"file_structure"' in head
        )

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,
        layout: Layout | None,  # noqa: ARG002
        index: str | None = None,
        namespace: str | None = None,
    ) -> Reading:
        """Return the rows of one namespace's files.

        Args:
            source: `VDF_META.json`.
            batch_rows: Rows read at a time.
            layout: Always flat.
            index: The index to read, where the folder has several.
            namespace: Its namespace, where it has several.

        Raises:
            InvalidInputError: It is not clear which index is meant, or the description is damaged.
        """
        try:
            meta = json.loads(source.file.read())
            spaces = [_Space.parse(s, meta) for several in meta["indexes"].values() for s in several]
            id = str(meta.get("id_column") or "id")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InvalidInputError(f"{source.name} does not describe a folder of vectors: {exc!r}") from None
        found = _one(spaces, index, namespace, source.name)
        points = _batches(source, found.files, id, batch_rows)
        first = next(points, None)
        shapes: dict[str, VectorParams] = {}
        names: tuple[str, ...] = ("id",)
        if first is not None:
            names = tuple(first.schema.names)
            for column in found.columns:
                if column not in names:
                    raise UnknownNameError(
                        f"{source.name} says that the vectors are in {column!r}, which its files do not have",
                        hint=did_you_mean(column, names, what="columns"),
                    )
                lists = first.column(column).drop_null()
                size = len(lists[0]) if len(lists) else found.size
                shapes[column] = VectorParams(size=size, distance=found.distance)
        rows = points if first is None else chain([first], points)
        return Reading(points=rows, names=names, vectors=shapes, layout="flat")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Space:
    """One namespace of one index."""

    index: str
    namespace: str
    columns: tuple[str, ...]
    size: int
    distance: Distance
    files: tuple[str, ...]

    @classmethod
    def parse(cls, space: Mapping[str, Any], meta: Mapping[str, Any]) -> _Space:
        return cls(
            index=str(space["index_name"]),
            namespace=str(space.get("namespace") or ""),
            columns=tuple(str(c) for c in space.get("vector_columns") or ["vector"]),
            size=int(space.get("dimensions") or 0),
            distance=_distance(space.get("metric")),
            files=_files(meta, space),
        )


def _one(spaces: list[_Space], index: str | None, namespace: str | None, name: str) -> _Space:
    fitting = [s for s in spaces if index in {None, s.index} and namespace in {None, s.namespace}]
    if len(fitting) == 1:
        return fitting[0]
    there = [f"index {s.index!r} namespace {s.namespace!r}" for s in spaces]
    raise InvalidInputError(
        f"{name} describes {len(spaces)} namespaces, of which {len(fitting)} are meant: "
        + ("; ".join(there) or "none is there"),
        hint="say which: index='name', namespace='name'; load each into a collection of its own",
    )


def _files(meta: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the namespace's files, beneath the folder, in the order in which they were written."""
    folder = str(space["data_path"]).strip("/")
    out = []
    for path in meta.get("file_structure") or []:
        parts = PurePosixPath(str(path)).parts
        # Paths begin with the folder's own name, which may have changed since.
        inner = "/".join(parts[1:]) if len(parts) > 1 else str(path)
        if inner.endswith(".parquet") and (inner.startswith(f"{folder}/") or folder in {"", "."}):
            out.append(inner)
    return tuple(out) or (f"{folder}/1.parquet" if folder not in {"", "."} else "1.parquet",)


def _distance(metric: Any) -> Distance:
    try:
        return Distance.parse(str(metric or "Cosine").rpartition(".")[2])
    except UnknownNameError:
        return Distance.COSINE


def _batches(source: Source, files: tuple[str, ...], id: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for path in files:
        try:
            with source.beside(path) as file:
                for batch in Parquet().read(file, batch_rows=batch_rows, layout="flat").points:
                    names = ["id" if n == id else n for n in batch.schema.names]
                    yield pa.RecordBatch.from_arrays(batch.columns, names=names)
        except NotFoundError as exc:
            raise NotFoundError(f"{source.name} names the file {path!r}: {exc}") from None
