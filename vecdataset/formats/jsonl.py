"""JSON, one point a line or one document: every JSON value as it was.

Both are read in the shapes of `json_shapes`, and written in Qdrant's: see `json_text`.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import pyarrow as pa

from vecdataset.formats import Reading, Source
from vecdataset.formats.json_points import JSON_OPTIONS, read_points
from vecdataset.formats.json_text import point_texts
from vecdataset.formats.json_values import document_records, is_document, is_lines, line_records
from vecdataset.points import Layout
from vecdataset.schema import CollectionSchema

__all__ = ["Json", "JsonLines"]


class JsonLines:
    """One JSON object a line."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")
    capabilities = frozenset({"read", "write", "stream"})
    options = JSON_OPTIONS

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the first line is a JSON object, as far as it can be seen."""
        return is_lines(head)

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,  # noqa: ARG002 - points come one by one
        layout: Layout | None,
        **options: Any,
    ) -> Reading:
        """Return the lines as dicts; `options` are those of `read_points`."""
        return read_points(line_records(source), source, unit="line", layout=layout, **options)

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:
        """Write one line a point."""
        schema = CollectionSchema.from_arrow(points.schema, url=name)
        for batch in points:
            if batch.num_rows:
                target.write("\n".join([*point_texts(batch, schema), ""]).encode())


class Json:
    """A JSON document: an array of points, or what a store's interface answers with."""

    name = "json"
    suffixes = (".json",)
    capabilities = frozenset({"read", "write", "stream"})
    options = JSON_OPTIONS

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the file begins as a JSON array or object that is not one line of many."""
        return is_document(head) and not is_lines(head)

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,  # noqa: ARG002 - points come one by one
        layout: Layout | None,
        **options: Any,
    ) -> Reading:
        """Return the records as dicts; `options` are those of `read_points`."""
        return read_points(document_records(source), source, unit="point", layout=layout, **options)

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:
        """Write an array of points, one a line."""
        schema = CollectionSchema.from_arrow(points.schema, url=name)
        between = "["
        for batch in points:
            for text in point_texts(batch, schema):
                target.write(f"{between}\n{text}".encode())
                between = ","
        target.write(b"[]\n" if between == "[" else b"\n]\n")
