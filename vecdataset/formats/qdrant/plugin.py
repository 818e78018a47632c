"""Qdrant's snapshots among the formats: `.snapshot` files, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from vecdataset.errors import NotSupportedError
from vecdataset.formats import Reading, Source
from vecdataset.points import Layout

if TYPE_CHECKING:
    from vecdataset.collection import Collection

__all__ = ["Snapshot"]


class Snapshot:
    """A collection snapshot of a Qdrant server."""

    name = "qdrant"
    suffixes = (".snapshot",)
    capabilities = frozenset({"write"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - reading comes with the archive reader
        """Return whether the file is such a snapshot."""
        return False

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:  # noqa: ARG002
        """Refuse: this version writes snapshots only."""
        raise NotSupportedError(f"{source.name}: Qdrant snapshots cannot be read yet")

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
