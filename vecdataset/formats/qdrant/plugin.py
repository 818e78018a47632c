"""Qdrant's snapshots among the formats: `.snapshot` files, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from vecdataset.errors import NotSupportedError
from vecdataset.formats import Reading, Readings, Source
from vecdataset.formats.qdrant.archive import is_tar
from vecdataset.points import Layout

if TYPE_CHECKING:
    from vecdataset.collection import Collection

__all__ = ["Snapshot"]


class Snapshot:
    """Snapshots of a Qdrant collection, shard or whole storage; written is that of a collection."""

    name = "qdrant"
    suffixes = (".snapshot", ".qdrant")
    capabilities = frozenset({"read", "write", "several"})
    options = frozenset({"collection", "ignore_wal", "ignore_missing_shards"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the file begins as a tar does; which tar is a snapshot shows further in."""
        return is_tar(head)

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,  # noqa: ARG002 - the engine's pages decide
        layout: Layout | None,  # noqa: ARG002 - there is one
        collection: str | None = None,
        **options: Any,
    ) -> Reading:
        """Return the points of one collection.

        Args:
            source: The archive.
            batch_rows: Not used.
            layout: Not used.
            collection: Which one of a full-storage snapshot; None where there is but one.
            options: `ignore_wal`, `ignore_missing_shards`; see `read_all`.
        """
        found = self.read_all(source, **options)
        try:
            return found.one(collection)
        except BaseException:
            found.close()
            raise

    def read_all(self, source: Source, **options: Any) -> Readings:
        """Return all collections of a full-storage snapshot."""
        from vecdataset.formats.qdrant.reading import read_all

        return read_all(source, **options)

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:  # noqa: ARG002
        """Refuse: a snapshot is written from a collection, whose settings it holds."""
        raise NotSupportedError("a Qdrant snapshot is written from a collection, not from a stream")

    def write_collection(
        self,
        collection: Collection,
        target: BinaryIO,
        *,
        name: str,
        progress: Callable[[int], None] | None,
    ) -> Mapping[str, bytes]:
        """Write a snapshot; see `write_snapshot`."""
        from vecdataset.formats.qdrant.snapshot import write_snapshot

        return write_snapshot(collection, target, name=name, progress=progress)
