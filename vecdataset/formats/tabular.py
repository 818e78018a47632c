"""Parquet and Arrow IPC: columns as they stand in the dataset, with the declaration beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import CorruptionError, InvalidInputError
from vecdataset.formats import Reading, Source
from vecdataset.points import Layout
from vecdataset.schema import METADATA_KEY, CollectionSchema, VectorParams

__all__ = ["Arrow", "Parquet"]

ROW_GROUP_BYTES: Final = 32 << 20
_DATATYPES: Final = {
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float32",
    pa.uint8(): "uint8",
    pa.int8(): "int8",
}


class Parquet:
    """Apache Parquet; written with zstd and page checksums, which are checked where a file has them."""

    name = "parquet"
    suffixes = (".parquet", ".pq")
    capabilities = frozenset({"read", "write"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the file begins as Parquet does."""
        return head[:4] == b"PAR1"

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:
        """Return the row groups as a stream of batches."""
        import pyarrow.parquet as pq

        seekable = source.seekable()
        file = seekable.__enter__()
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            schema = parquet.schema_arrow
        except (pa.ArrowException, OSError, EOFError) as exc:
            raise _unreadable(source, "Parquet", exc) from None

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                # One row group after the other, and nothing read ahead: pyarrow would keep all of the
                # file in memory until its end (1.4 GB for a file of 1.2 GB, and 0.2 GB this way).
                for group in range(parquet.num_row_groups):
                    yield from parquet.iter_batches(batch_size=batch_rows, row_groups=[group])
            finally:
                seekable.__exit__(None, None, None)

        return _reading(source, "Parquet", schema, batches(), layout)

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:  # noqa: ARG002
        """Write row groups of some 32 MB each."""
        import pyarrow.parquet as pq

        with pq.ParquetWriter(target, points.schema, compression="zstd", write_page_checksum=True) as writer:
            held: list[pa.RecordBatch] = []
            size = 0
            for batch in points:
                held.append(batch)
                size += batch.nbytes
                if size >= ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held))
                    held, size = [], 0
            if held:
                writer.write_table(pa.Table.from_batches(held))


class Arrow:
    """Arrow IPC, the file (`.arrow`, `.feather`) and the stream (`.arrows`, pipes)."""

    name = "arrow"
    suffixes = (".arrow", ".arrows", ".feather", ".ipc")
    capabilities = frozenset({"read", "write", "stream"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether this is an Arrow file, or a stream that begins with a schema."""
        return head[:6] == b"ARROW1" or (head[:4] == b"\xff\xff\xff\xff" and len(head) >= 8)

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:
        """Return the batches as they were written, cut to `batch_rows`."""
        if source.head[:6] != b"ARROW1":
            try:
                stream = pa.ipc.open_stream(source.file)
            except (pa.ArrowException, OSError, EOFError) as exc:
                raise _unreadable(source, "an Arrow stream", exc) from None
            return _reading(source, "an Arrow stream", stream.schema, _cut(stream, batch_rows), layout)
        seekable = source.seekable()
        file = seekable.__enter__()
        try:
            opened = pa.ipc.open_file(file)
        except (pa.ArrowException, OSError, EOFError) as exc:
            raise _unreadable(source, "an Arrow file", exc) from None

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for at in range(opened.num_record_batches):
                    yield from _cut([opened.get_batch(at)], batch_rows)
            finally:
                seekable.__exit__(None, None, None)

        return _reading(source, "an Arrow file", opened.schema, batches(), layout)

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:
        """Write a file, or a stream where the name says so or nothing can be sought."""
        whole = name.removesuffix(".gz").lower().endswith((".arrow", ".feather", ".ipc"))
        new = pa.ipc.new_file if whole else pa.ipc.new_stream
        with new(target, points.schema) as writer:
            for batch in points:
                writer.write_batch(batch)


# ------------------------------------------------------------------------------- reading


def _unreadable(source: Source, kind: str, exc: BaseException) -> InvalidInputError:
    return InvalidInputError(f"{source.name} cannot be read as {kind}: {' '.join(str(exc).split())}")


def _cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _reading(
    source: Source,
    kind: str,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    layout: Layout | None,
) -> Reading:
    def read() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except (pa.ArrowException, OSError, EOFError) as exc:
            raise _unreadable(source, kind, exc) from None

    stream = read()
    first = next(stream, None)
    points: Iterable[pa.RecordBatch] = stream if first is None else chain([first], stream)
    return Reading(
        points=points,
        names=tuple(schema.names),
        vectors=_vectors(schema, first),
        declared=_declared(schema, source),
        layout=layout or "flat",
    )


def _declared(schema: pa.Schema, source: Source) -> CollectionSchema | None:
    """Return the declaration that an export carries, unless the columns no longer fit it."""
    if METADATA_KEY not in (schema.metadata or {}):
        return None
    try:
        found = CollectionSchema.from_arrow(schema, url=source.name)
    except CorruptionError as exc:
        raise InvalidInputError(f"{exc}", hint="pass vectors= to declare them anew") from None
    types = {f.name: f.type for f in schema}
    fits = all(types.get(found.vector_columns[n]) == t for n, t in found.vector_types.items())
    return found if fits else None


def _vectors(schema: pa.Schema, first: pa.RecordBatch | None) -> dict[str, VectorParams]:
    """Return the columns of equally long lists of numbers, as the first batch has them."""
    out: dict[str, VectorParams] = {}
    for f in schema:
        kind: Any = f.type.storage_type if isinstance(f.type, pa.BaseExtensionType) else f.type
        several = pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type)
        kind = kind.value_type if several else kind
        if pa.types.is_fixed_size_list(kind):
            datatype, size = _DATATYPES.get(kind.value_type), kind.list_size
        elif (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and first is not None:
            # Bytes in lists are seldom vectors unless their length is declared.
            datatype = _DATATYPES.get(kind.value_type) if pa.types.is_floating(kind.value_type) else None
            sizes = pc.unique(pc.list_value_length(first.column(f.name)).drop_null()).to_pylist()
            size = sizes[0] if len(sizes) == 1 else 0
        else:
            continue
        if datatype is not None and size >= 2:
            out[f.name] = VectorParams(size=size, datatype=datatype, multivector=several)
    return out
