"""Writing to collections from SQL: rows staged chunk by chunk, then committed once.

`FROM vec.upsert('books', 'staging')` runs the query inside the caller's own statement, so it sees
uncommitted rows and temporary tables. A function puts each chunk aside and returns a receipt;
an aggregate over the receipts commits. A query that fails never reaches the commit.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final

import pyarrow as pa

from vecdataset.catalog import Catalog
from vecdataset.collection import Collection
from vecdataset.duckdb.arguments import filter_of, json_of, params_of, values
from vecdataset.errors import InvalidInputError, NotSupportedError
from vecdataset.schema import SparseVectorParams, VectorParams

SPOOL_AFTER_BYTES: Final = 64 << 20
BATCH_BYTES: Final = 32 << 20
ABANDONED_AFTER_S: Final = 3_600.0
"""Chunks of a statement that failed are let go after so long, or with `detach`."""

WRITTEN: Final = "STRUCT(version BIGINT, inserted BIGINT, updated BIGINT, deleted BIGINT)[]"
_WRITTEN_ARROW: Final = pa.list_(
    pa.struct([(name, pa.int64()) for name in ("version", "inserted", "updated", "deleted")])
)
Chunk = Any
"""A `RecordBatch`, or the path of a file that holds one."""


class Staging:
    """Chunks of rows by receipt, in memory up to a limit, then in local files."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._chunks: dict[int, tuple[Chunk, float]] = {}
        self._numbers = itertools.count(1)
        self._bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = Lock()

    def put(self, rows: pa.RecordBatch) -> int:
        """Keep a chunk and return its receipt."""
        now = time.monotonic()
        with self._lock:
            for old in [r for r, (_, at) in self._chunks.items() if now - at > ABANDONED_AFTER_S]:
                self._release(old)
            receipt = next(self._numbers)
            chunk: Chunk = rows
            if self._bytes + rows.nbytes > SPOOL_AFTER_BYTES:
                chunk = self._path(receipt)
                with pa.ipc.new_file(str(chunk), rows.schema) as file:
                    file.write_batch(rows)
            else:
                self._bytes += rows.nbytes
            self._chunks[receipt] = (chunk, now)
        return receipt

    def _path(self, receipt: int) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="vecdataset-sql-")
        return Path(self._folder.name) / f"{receipt}.arrow"

    def _release(self, receipt: int) -> None:
        chunk, _ = self._chunks.pop(receipt)
        if isinstance(chunk, Path):
            chunk.unlink(missing_ok=True)
        else:
            self._bytes -= chunk.nbytes

    def release(self, receipts: list[int]) -> None:
        """Let go of chunks."""
        with self._lock:
            for receipt in receipts:
                if receipt in self._chunks:
                    self._release(receipt)

    def read(self, receipts: list[int]) -> Iterator[pa.RecordBatch]:
        """Yield chunks in the order in which they were staged.

        Raises:
            InvalidInputError: One is not there any more; the statement took longer than it is kept.
        """
        for receipt in sorted(receipts):
            with self._lock:
                found = self._chunks.get(receipt)
            if found is None:
                raise InvalidInputError("staged rows are gone; nothing was written", hint="run it again")
            chunk, _ = found
            if isinstance(chunk, Path):
                with pa.ipc.open_file(str(chunk)) as file:
                    yield file.get_batch(0)
            else:
                yield chunk

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._chunks.clear()
            self._bytes = 0
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None


class Writes:
    """The functions behind `vec.upsert` and the other writing macros."""

    def __init__(
        self,
        collection: Callable[[str], Collection],
        catalog: Catalog | None,
        refresh: Callable[[], None],
        follow: Callable[[str], None],
        unpin: Callable[[int], None],
    ) -> None:
        """Take what is outside of here.

        Args:
            collection: Finds a collection.
            catalog: Where new ones are made.
            refresh: Shows them.
            follow: Shows what has changed in one.
            unpin: Lets later statements of a transaction, known by its beginning, see what was written.
        """
        self._collection = collection
        self._catalog = catalog
        self._refresh = refresh
        self._follow = follow
        self._unpin = unpin
        self.staging = Staging()

    def stage(self, rows: pa.ChunkedArray) -> pa.Array:
        """Put a chunk of rows, as structs, aside; every row gets the chunk's receipt."""
        whole = pa.Table.from_struct_array(rows).combine_chunks()
        for at, field in enumerate(whole.schema):
            if _is_decimals(field.type):  # what `[0.1, 0.2]` is for DuckDB, and no vector for us
                whole = whole.set_column(at, field.name, whole[field.name].cast(pa.list_(pa.float64())))
        batches = whole.to_batches()
        if not batches:
            return pa.nulls(0, pa.int64())
        receipt = self.staging.put(batches[0])
        return pa.array([receipt] * len(rows), pa.int64())

    def write(
        self,
        verb: pa.ChunkedArray,
        collection: pa.ChunkedArray,
        receipts: pa.ChunkedArray,
        id: pa.ChunkedArray,
        vectors: pa.ChunkedArray,
        at: pa.ChunkedArray,
    ) -> pa.Array:
        """Commit staged rows as one version."""
        out = []
        for how, name, staged, key, named in zip(
            *map(values, (verb, collection, receipts, id, vectors)), strict=True
        ):
            found = self._collection(name)
            chunks = sorted(staged or [])
            if not chunks:
                out.append([_counts(found.version, 0, 0, 0)])
                continue
            try:
                batches = _joined(self.staging.read(chunks))
                first = next(batches)
                stream = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], batches))
                act = found.insert if how == "insert" else found.upsert
                done = act(stream, id=key or "id", vectors=_mapping(named))
            finally:
                self.staging.release(chunks)
            out.append([_counts(done.version, done.inserted, done.updated, done.deleted)])
        self._written(collection, at)
        return pa.array(out, _WRITTEN_ARROW)

    def _written(self, collection: pa.ChunkedArray, at: pa.ChunkedArray) -> None:
        for beginning in set(values(at)):
            self._unpin(beginning)
        for name in set(values(collection)):
            self._follow(name)

    def delete(
        self,
        collection: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        ids: pa.ChunkedArray,
        at: pa.ChunkedArray,
    ) -> pa.Array:
        """Delete points, and return how many."""
        out = []
        for name, condition, points in zip(*map(values, (collection, filter, ids)), strict=True):
            done = self._collection(name).delete(points, filter=filter_of(condition))
            out.append(done.deleted)
        self._written(collection, at)
        return pa.array(out, pa.int64())

    def create(
        self,
        name: pa.ChunkedArray,
        size: pa.ChunkedArray,
        distance: pa.ChunkedArray,
        datatype: pa.ChunkedArray,
        vectors: pa.ChunkedArray,
        sparse: pa.ChunkedArray,
        id_type: pa.ChunkedArray,
    ) -> pa.Array:
        """Make collections, and return their URLs."""
        if self._catalog is None:
            raise NotSupportedError(
                "collections given one by one have no root where another could be made",
                hint="attach a root: attach(con, 'path/to/collections')",
            )
        out = []
        for label, one_size, metric, kind, many, light, ids in zip(
            *map(values, (name, size, distance, datatype, vectors, sparse, id_type)), strict=True
        ):
            declared: Any = {
                key: VectorParams(**spec) for key, spec in (json_of(many, what="vectors") or {}).items()
            }
            if one_size is not None:
                declared[""] = VectorParams(
                    size=one_size, distance=metric or "Cosine", datatype=kind or "float32"
                )
            lights = {
                key: SparseVectorParams(**(spec or {}))
                for key, spec in (json_of(light, what="sparse") or {}).items()
            }
            made = self._catalog.create(label, vectors=declared, sparse=lights or None, id_type=ids)
            out.append(made.url)
        self._refresh()
        return pa.array(out, pa.string())

    def create_index(
        self,
        collection: pa.ChunkedArray,
        kind: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
    ) -> pa.Array:
        """Build indexes over vectors, and return their names."""
        out = []
        for name, which, vector, options in zip(*map(values, (collection, kind, using, params)), strict=True):
            built = self._collection(name).create_index(which, using=vector, **(params_of(options) or {}))
            out.append(built.name)
            self._follow(name)
        return pa.array(out, pa.string())

    def create_payload_index(
        self, collection: pa.ChunkedArray, key: pa.ChunkedArray, kind: pa.ChunkedArray
    ) -> pa.Array:
        """Build indexes over payload columns, and return their names."""
        columns = map(values, (collection, key, kind))
        return pa.array(
            [
                self._collection(name).create_payload_index(column, which).name
                for name, column, which in zip(*columns, strict=True)
            ],
            pa.string(),
        )

    def snapshot(self, collection: pa.ChunkedArray, name: pa.ChunkedArray, note: pa.ChunkedArray) -> pa.Array:
        """Seal the newest versions, and return the names of the snapshots."""
        columns = map(values, (collection, name, note))
        out = [
            self._collection(which).snapshots.create(label, note=text).name
            for which, label, text in zip(*columns, strict=True)
        ]
        for which in set(values(collection)):
            self._follow(which)
        return pa.array(out, pa.string())

    def restore(
        self, collection: pa.ChunkedArray, name: pa.ChunkedArray, target: pa.ChunkedArray, at: pa.ChunkedArray
    ) -> pa.Array:
        """Bring snapshots back, and return the URLs that hold them."""
        columns = map(values, (collection, name, target))
        out = [
            self._collection(which).snapshots.restore(snapshot, into=into)
            for which, snapshot, into in zip(*columns, strict=True)
        ]
        self._written(collection, at)
        if any(into is not None for into in values(target)):
            self._refresh()
        return pa.array(out, pa.string())

    def optimize(self, collection: pa.ChunkedArray) -> pa.Array:
        """Bring indexes and files in order, and return the versions."""
        out = []
        for name in values(collection):
            out.append(self._collection(name).optimize().version)
            self._follow(name)
        return pa.array(out, pa.int64())


def _joined(chunks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in larger batches: Lance merges twice as fast from one as from ten."""
    held: list[pa.RecordBatch] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += chunk.nbytes
        if size >= BATCH_BYTES:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held, size = [], 0
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _is_decimals(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and bool(pa.types.is_decimal(kind.value_type))


def _counts(version: int, inserted: int, updated: int, deleted: int) -> dict[str, int]:
    return {"version": version, "inserted": inserted, "updated": updated, "deleted": deleted}


def _mapping(given: Any) -> dict[str, str] | None:
    """Return `vectors :=`: a column's name for the only vector, or JSON or a struct of them."""
    if given is None:
        return None
    if isinstance(given, str) and not given.lstrip().startswith("{"):
        return {"": given}
    found = json_of(given, what="vectors")
    return {k: v for k, v in found.items() if v is not None}


MACROS: Final = (
    *(
        f"CREATE MACRO {verb}(collection, source, id := 'id', vectors := NULL) AS TABLE "
        "SELECT unnest(written, max_depth := 2) FROM (SELECT "
        f"{{prefix}}write('{verb}', collection, list(DISTINCT receipt), id, vectors, epoch_us(now())) "
        "AS written "
        "FROM (SELECT {prefix}stage(__staged) AS receipt FROM system.main.query("
        "CASE WHEN regexp_matches(source, '^\\s*(select|from|with|values|table)\\s', 'i') "
        "THEN 'FROM (' || source || ')' ELSE 'FROM ' || source END) __staged))"
        for verb in ("upsert", "insert")
    ),
    (
        'CREATE MACRO "delete"(collection, filter := NULL, ids := NULL) AS '
        "{prefix}delete(collection, filter, ids, epoch_us(now()))"
    ),
    (
        "CREATE MACRO \"create\"(name, size := NULL, distance := 'Cosine', datatype := 'float32', "
        "vectors := NULL, sparse := NULL, id_type := NULL) AS "
        "{prefix}create(name, size, distance, datatype, vectors, sparse, id_type)"
    ),
    (
        'CREATE MACRO create_index(collection, kind := NULL, "using" := NULL, params := NULL) AS '
        '{prefix}create_index(collection, kind, "using", params)'
    ),
    (
        "CREATE MACRO create_payload_index(collection, key, kind := NULL) AS "
        "{prefix}create_payload_index(collection, key, kind)"
    ),
    (
        "CREATE MACRO snapshot(collection, name := NULL, note := NULL) AS "
        "{prefix}snapshot(collection, name, note)"
    ),
    (
        "CREATE MACRO restore(collection, name, target := NULL) AS "
        "{prefix}restore(collection, name, target, epoch_us(now()))"
    ),
    "CREATE MACRO optimize(collection) AS {prefix}optimize(collection)",
)
"""`{prefix}` is what the names of an attachment's functions begin with."""
