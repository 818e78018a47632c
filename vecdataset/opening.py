"""Making, opening and adopting collections."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vecdataset import engine, storage
from vecdataset.adoption import adopt_table
from vecdataset.collection import Collection
from vecdataset.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    CorruptionError,
    InvalidInputError,
    StorageError,
)
from vecdataset.indexes import check_declared
from vecdataset.reader import CONFIG, Reader, refuse_dropped
from vecdataset.repair import newest_is_damaged
from vecdataset.schema import CollectionSchema, SparseVectorParams, VectorParams, declare
from vecdataset.storage import Location


def create(
    url: Any,
    *,
    vectors: VectorParams | Mapping[str, VectorParams],
    sparse: Mapping[str, SparseVectorParams] | None = None,
    id_type: str | None = None,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    exist_ok: bool = False,
    full_scan_threshold: int | None = None,
    indexing_threshold: int | None = None,
    durable: bool = False,
) -> Collection:
    """Make an empty collection.

    Args:
        url: A path or URL: the collection is this folder.
        vectors: One `VectorParams`, or a dict of them by name.
        sparse: Sparse vectors by name.
        id_type: `uint64`, `uuid`, `string` or `mixed`; None lets the first points decide.
        filesystem: An fsspec filesystem to use instead of the URL's scheme.
        storage_options: fsspec's options of the filesystem.
        exist_ok: Return the collection that is there, if its vectors are the same.
        full_scan_threshold: See `Collection.configure`.
        indexing_threshold: See `Collection.configure`.
        durable: See `open`; holds for this handle.

    Raises:
        CollectionExistsError: A collection, or something else, stands there.
    """
    schema = declare(vectors, sparse=sparse, id_type=id_type)
    for params in schema.vectors.values():
        check_declared(params)
    location = storage.resolve(url, filesystem=filesystem, storage_options=storage_options, durable=durable)
    return create_at(
        location, schema, exist_ok=exist_ok, thresholds=(full_scan_threshold, indexing_threshold)
    )


def create_at(
    location: Location,
    schema: CollectionSchema,
    *,
    exist_ok: bool,
    thresholds: tuple[int | None, int | None] = (None, None),
) -> Collection:
    """Make a collection at a resolved location; `create` and `Catalog.create` come here."""
    _refuse_other_content(location)
    try:
        table = engine.create_table(location, schema.to_arrow())
    except CollectionExistsError:
        table = engine.open_table(location)
        existing = Reader(table, name=location.name)
        if existing.dropped_at is not None:
            # The dropped one stays reachable: its last version is tagged, and this one stands on top.
            table = table.claim(f"{CONFIG}dropped_at").overwrite(schema.to_arrow())
        elif exist_ok:
            _check_same(existing, schema)
            return Collection(table, name=location.name)
        else:
            raise
    collection = Collection(table, name=location.name)
    if thresholds != (None, None):
        collection.configure(full_scan_threshold=thresholds[0], indexing_threshold=thresholds[1])
    return collection


def _refuse_other_content(location: Location) -> None:
    if location.kind != "local":
        return
    path = Path(location.uri)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "_versions").is_dir()):
        raise CollectionExistsError(
            f"{location.url} holds something that is not a collection",
            hint="choose another path; nothing was written",
        )


def _check_same(reader: Reader, schema: CollectionSchema) -> None:
    have = {n: p.to_json() for n, p in reader.schema.vectors.items()} | dict(reader.schema.sparse)
    want = {n: p.to_json() for n, p in schema.vectors.items()} | dict(schema.sparse)
    if have != want:
        raise CollectionExistsError(
            f"{reader.where} exists with vectors {have}; {want} were asked for",
            hint="open it as it is, or choose another name",
        )
    if schema.id_type is not None and reader.schema.id_type not in (None, schema.id_type):
        raise CollectionExistsError(
            f"{reader.where} exists with ids of type {reader.schema.id_type}; {schema.id_type} was asked for"
        )


def open_collection(
    url: Any,
    *,
    version: int | str | datetime | None = None,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    max_staleness_s: float | None = None,
    durable: bool = False,
) -> Collection:
    """Open a collection; public as `vecdataset.open`.

    Args:
        url: A path or URL.
        version: A version, snapshot or time to show, read-only; None is the newest.
        filesystem: An fsspec filesystem to use instead of the URL's scheme.
        storage_options: fsspec's options of the filesystem.
        max_staleness_s: Others' commits are seen after at most so many seconds; None is 0 on
            local disks and 1 on remote stores.
        durable: On a local disk, acknowledge a commit only when its files, those of the version that
            it builds on, and their folders have been forced to the disk, so that a power failure leaves
            it. Without it the operating system does so within about half a minute.

    Raises:
        CollectionNotFoundError: No collection is there.
        InvalidInputError: Something else is there.
    """
    location = storage.resolve(url, filesystem=filesystem, storage_options=storage_options, durable=durable)
    collection = open_at(location, max_staleness_s=max_staleness_s)
    return collection if version is None else collection.at(version)


def open_at(location: Location, *, max_staleness_s: float | None = None) -> Collection:
    """Open the collection at a resolved location."""
    if location.kind == "local" and Path(location.uri).is_file():
        raise _not_found(location)  # at once: Lance would try for two seconds
    try:
        table = engine.open_table(location)
    except CollectionNotFoundError as exc:
        raise _not_found(location) from exc
    except (StorageError, InvalidInputError) as exc:
        version = newest_is_damaged(location) if _speaks_of_content(exc) else None
        if version is None:
            raise
        raise CorruptionError(
            f"the newest version, {version}, of {location.url} cannot be read: {exc.message}",
            hint=f"`vecdataset repair {location.url}` says what would be lost; with --yes it goes back",
        ) from exc
    collection = Collection(table, name=location.name, max_staleness_s=max_staleness_s)
    refuse_dropped(collection._reader)  # noqa: SLF001
    return collection


def _speaks_of_content(error: Exception) -> bool:
    """Return whether bytes were read and made no sense, rather than not read at all."""
    return isinstance(error, CorruptionError | InvalidInputError)


def _not_found(location: Location) -> Exception:
    if location.kind == "local" and Path(location.uri).exists():
        return InvalidInputError(
            f"{location.url} exists, and is not a collection",
            hint="a collection is a folder that create() made",
        )
    return CollectionNotFoundError(
        f"no collection at {location.url}", hint=f"create({location.url!r}, vectors=…) makes one"
    )


def adopt(
    url: Any,
    *,
    id: str,
    vectors: VectorParams | Mapping[str, VectorParams] | str | Mapping[str, str] | None = None,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Collection:
    """Make an existing Lance dataset a collection, in place; only metadata is written.

    Columns keep their data and are renamed: the id column to `id`, vector columns to `vector` or
    `<name>__vector`. Everything else becomes payload.

    Args:
        url: The dataset.
        id: Its id column: unsigned integers, or text; without nulls and duplicates.
        vectors: Which columns are vectors. None takes every fixed-size list of floats, with Cosine;
            a dict maps column names to `VectorParams` (one column becomes the unnamed vector).
        filesystem: An fsspec filesystem to use instead of the URL's scheme.
        storage_options: fsspec's options of the filesystem.

    Raises:
        InvalidInputError: A column is missing or of a type that cannot serve.
    """
    location = storage.resolve(url, filesystem=filesystem, storage_options=storage_options)
    table = adopt_table(engine.open_table(location), id=id, vectors=vectors)
    return Collection(table, name=location.name)
