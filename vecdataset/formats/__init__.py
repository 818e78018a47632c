"""File formats of points: how a file is recognised, read and written; `load` and export.

A format is a plugin of the entry-point group `vecdataset.formats`. A file is recognised
by its first bytes, then by the ending of its name. Reading gives a stream of batches
and what the file says of itself (`Reading`); writing takes an Arrow stream whose
schema carries the collection's declaration. Opening, decompressing and renaming are done
for the formats in `files.py`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast, runtime_checkable

import pyarrow as pa

from vecdataset.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidInputError,
    NotSupportedError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.formats.files import (
    STANDARD,
    Source,
    file_name,
    is_folder,
    open_source,
    open_target,
    write_beside,
)
from vecdataset.formats.qdrant.client import is_server
from vecdataset.points import Layout
from vecdataset.registry import PluginWarning, Registry
from vecdataset.schema import (
    UNNAMED,
    VECTOR_SUFFIX,
    CollectionSchema,
    Distance,
    SparseVectorParams,
    VectorParams,
    declare,
    vector_column,
)

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog
    from vecdataset.collection import Collection
    from vecdataset.writer import WriteResult

__all__ = [
    "CollectionFormat",
    "Format",
    "LossWarning",
    "Reading",
    "Readings",
    "Source",
    "WritableFormat",
    "export_points",
    "formats",
    "load",
    "load_all",
    "load_into",
    "read_vectors",
    "stored_points",
    "upsert_file",
]

BATCH_ROWS: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An open file: its points, and what it says of them."""

    points: Iterable[Any]
    """Arrow record batches, `RawBatch`es or dicts; read once, from the beginning to the end."""
    names: tuple[str, ...] = ()
    """Columns or keys, for messages."""
    vectors: Mapping[str, VectorParams] = field(default_factory=dict)
    """What looks like vectors: column, or vector name in the layout `qdrant`, to its shape."""
    sparse: Mapping[str, SparseVectorParams] = field(default_factory=dict)
    """Sparse vectors, by name, in the layout `qdrant`."""
    declared: CollectionSchema | None = None
    """The declaration of the collection that was exported, where the file carries it."""
    layout: Layout | None = None
    """`flat` or `qdrant`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings for a collection that is made for these points."""
    losses: tuple[str, ...] = ()
    """What the source holds and the collection will not, one line each: a `LossWarning` each."""
    close: Callable[[], None] = lambda: None
    """Lets go of what was opened; called when the points have been read, or will not be."""


class LossWarning(UserWarning):
    """Something that a source holds, and the collection made of it does not."""


class Readings(Protocol):
    """An open file of several collections, for formats that can `read_all`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The collections; empty where the file holds one that it does not name."""
        ...

    @property
    def aliases(self) -> Mapping[str, str]:
        """Alias to collection."""
        ...

    def check(self) -> None:
        """Raise what would keep a collection from being read, as far as it shows without reading it."""
        ...

    def one(self, name: str | None) -> Reading:
        """Return one collection, None being the only one; closing it closes the file."""
        ...

    def reading(self, name: str) -> Reading:
        """Return one collection; others can be read after it."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


@runtime_checkable
class Format(Protocol):
    """One file format of points. Implementations hold no state."""

    name: str
    suffixes: tuple[str, ...]
    """Endings of file names, with the dot; `.gz` may follow in a name and is dealt with before."""
    capabilities: frozenset[str]
    """`read`, `write`, `stream` (to and from pipes), `several` (collections in a file: `read_all`)."""

    # Two attributes are optional, so that a format that needs neither need not name them:
    # `options: frozenset[str]`, further keywords of `read`, which `load` hands on; and
    # `marker: str`, the name of the file by which a folder of this format is recognised.

    def sniff(self, head: bytes, name: str) -> bool:
        """Return whether the first bytes of a file (decompressed) are of this format."""
        ...

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:
        """Return what is in an open file, without reading all of it.

        Args:
            source: The file; it stays open until the points have been read.
            batch_rows: Rows a batch, where the format has batches.
            layout: What the caller said of the points, if anything.

        Raises:
            InvalidInputError: The file is damaged, or is not of this format.
        """
        ...


@runtime_checkable
class WritableFormat(Format, Protocol):
    """A format with the capability `write`."""

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:
        """Write all points.

        Args:
            points: Columns as in the dataset; the schema's metadata carries the declaration
                (`CollectionSchema.from_arrow`).
            target: An open file, perhaps a pipe.
            name: The file's name, where its ending decides a variant.
        """
        ...


@runtime_checkable
class CollectionFormat(Format, Protocol):
    """A format that holds more of a collection than its points: settings, indexes."""

    def write_collection(
        self,
        collection: Collection,
        target: BinaryIO,
        *,
        name: str,
        progress: Callable[[int], None] | None,
    ) -> Mapping[str, bytes]:
        """Write the version that a read-only handle shows, instead of `write`.

        Returns:
            Small files that stand beside the target: the ending of their name, and their content.
        """
        ...


formats: Final[Registry[Format]] = Registry(
    "formats",
    builtins={
        "parquet": "vecdataset.formats.tabular:Parquet",
        "arrow": "vecdataset.formats.tabular:Arrow",
        "vdf": "vecdataset.formats.vdf:VectorDatasetFolder",  # its description is JSON, too
        "jsonl": "vecdataset.formats.jsonl:JsonLines",
        "json": "vecdataset.formats.jsonl:Json",
        "arcexp": "vecdataset.formats.arcaneum:ArcExp",
        "dvecdb": "vecdataset.formats.dvecdb:DVecDB",
        "npy": "vecdataset.formats.arrays:Npy",
        "npz": "vecdataset.formats.arrays:Npz",
        "vecs": "vecdataset.formats.arrays:Vecs",
        "hdf5": "vecdataset.formats.arrays:Hdf5",
        "qdrant": "vecdataset.formats.qdrant.plugin:Snapshot",
    },
    aliases={"feather": "arrow", "ipc": "arrow", "ndjson": "jsonl"},
    protocol=Format,
)
"""Every file format, by name."""


# --------------------------------------------------------------------------- which one


def _suffix(name: str) -> str:
    return PurePosixPath(name.removesuffix(".gz")).suffix.lower()


def _by_suffix(name: str) -> Format | None:
    ending = _suffix(name)
    return next((f for f in formats if ending in f.suffixes), None)


def _by_content(source: Source) -> Format | None:
    for candidate in formats:
        try:
            if candidate.sniff(source.head, source.name):
                return candidate
        except Exception as error:  # noqa: BLE001 - a stranger's code; the others may know the file
            warnings.warn(
                f"format {candidate.name!r} failed to look at {source.name}: {error}",
                PluginWarning,
                stacklevel=3,
            )
    return None


def _format_of(source: Source, format: str | None) -> Format:
    found = formats.get(format) if format else (_by_content(source) or _by_suffix(source.name))
    if found is None:
        what = "is empty" if not source.head else "is of no known format"
        raise InvalidInputError(f"{source.name} {what}", hint=f"formats: {', '.join(formats.names())}")
    if "read" not in found.capabilities:
        raise NotSupportedError(f"format {found.name!r} cannot be read")
    return found


def _read(
    source: Source, format: str | None, batch_rows: int, layout: Layout | None, options: Mapping[str, Any]
) -> Reading:
    """Return what is in an open file, by the format it is of."""
    chosen = _format_of(source, format)
    known = _known_options(chosen, source, options)
    return chosen.read(source, batch_rows=batch_rows, layout=layout, **known)


def _known_options(chosen: Format, source: Source, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a call, if the format knows all of them."""
    known: frozenset[str] = getattr(chosen, "options", frozenset())
    for name in options:
        if name not in known:
            raise UnknownNameError(
                f"format {chosen.name!r} of {source.name} has no option {name!r}",
                hint=did_you_mean(name, sorted(known), what="options") if known else "it takes none",
            )
    return options


def _markers() -> dict[str, str]:
    """Return the files by which folders are recognised, with the names of the formats."""
    return {f.marker: f.name for f in formats if isinstance(getattr(f, "marker", None), str)}  # type: ignore[attr-defined]  # optional


def _format_for(target: Any, format: str | None) -> WritableFormat:
    if format is None and target == STANDARD:
        format = "jsonl"
    found = formats.get(format) if format else _by_suffix(file_name(target))
    if found is None:
        endings = sorted(s for f in formats if "write" in f.capabilities for s in f.suffixes)
        raise InvalidInputError(
            f"the ending of {file_name(target)!r} names no format",
            hint=f"pass format=, or end it in {', '.join(endings)}",
        )
    if "write" not in found.capabilities:
        raise NotSupportedError(f"format {found.name!r} cannot be written")
    return cast("WritableFormat", found)


# ---------------------------------------------------------------------------------- in


def load(
    source: Any,
    url: Any,
    *,
    format: str | None = None,
    progress: Callable[[int], None] | None = None,
    vectors: VectorParams | Mapping[str, VectorParams] | Mapping[str, str] | None = None,
    vectors_from: Mapping[str, str] | str | None = None,
    sparse: Mapping[str, SparseVectorParams] | None = None,
    id: str = "id",
    id_type: str | None = None,
    distance: Distance | str | None = None,
    layout: Layout | None = None,
    batch_rows: int = BATCH_ROWS,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Collection:
    """Upsert a file of points into a collection, which is created if it is not there; one commit.

    What the vectors of a new collection are is taken from `vectors`, else from the declaration
    that an exported file carries, else from the one column of equally long lists of
    numbers. The file is read as a stream, and may be larger than memory.

    Args:
        source: A path, a URL of any fsspec filesystem, a binary file, `-` for standard input, or
            `qdrant://host[:port]/collection`, a running server.
        url: The collection.
        format: `parquet`, `arrow`, `jsonl`, or a plugin's; None looks at the first bytes, then at
            the name's ending.
        progress: Called with the number of points read so far.
        vectors: The declaration of a new collection, as for `create`. A dict of texts is taken as
            `vectors_from`, so that what `upsert(vectors=…)` takes works here too.
        vectors_from: Vector name to column or key, `""` being the unnamed vector; one text is the
            column of the only vector.
        sparse: Sparse vectors of a new collection, as for `create`.
        id: The column or key of the ids; points of a file without it get UUIDs.
        id_type: The id type of a new collection; None lets the ids decide.
        distance: The distance of a new collection whose vectors are not declared; Cosine.
        layout: `flat` or `qdrant`; None looks at the keys.
        batch_rows: Rows read at a time.
        filesystem: An fsspec filesystem for `url`.
        storage_options: fsspec's options for `url`.
        source_options: fsspec's options for `source`; of a server `api_key`, `timeout_s`, `attempts`,
            `batch_points`, and `checkpoint`: a file by which an interrupted import goes on, and which
            makes it several commits.
        options: What the file's format takes besides; one that it does not know is refused by name.

    Returns:
        The collection.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: The file is damaged, a point is wrong, or it is not clear which column
            holds the vectors; nothing was written.

    >>> import io
    >>> lines = io.BytesIO(b'{"id": 1, "vector": [1.0, 0.0], "payload": {"lang": "en"}}')
    >>> load(lines, "memory://doc-load/books").get([1]).to_pylist()
    [{'id': 1, 'lang': 'en'}]
    """
    from vecdataset import storage

    declared, mapping = _declared_or_mapped(vectors, vectors_from)
    location = storage.resolve(url, filesystem=filesystem, storage_options=storage_options)
    if is_server(source):
        from vecdataset.formats.qdrant.live import pull

        def fill(reading: Reading, where: str, told: Callable[[int], None] | None) -> Collection:
            schema = _declaration(reading, declared, mapping, where, sparse, id_type, distance)
            return _fill(location, reading, where, lambda: schema, progress=told)

        given = {**(source_options or {}), **options}
        return pull(source, fill, target=location.url, options=given, progress=progress)
    with open_source(source, options=source_options, markers=_markers()) as file:
        reading = _read(file, format, batch_rows, layout, options)

        def declare_new() -> CollectionSchema:
            return _declaration(reading, declared, mapping, file.name, sparse, id_type, distance)

        return _fill(location, reading, file.name, declare_new, mapping=mapping, id=id, progress=progress)


def load_all(
    source: Any,
    root: Any,
    *,
    format: str | None = None,
    progress: Callable[[int], None] | None = None,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Catalog:
    """Load every collection of a file of several, such as Qdrant's full-storage snapshot, and its aliases.

    All are checked, and their names looked up, before the first is written. Each is one commit;
    the points go into a collection that is there, as with `load`.

    Args:
        source: As for `load`; or a folder or bucket of Qdrant snapshots, of which one that fails does
            not stop the others.
        root: Where the collections go, each under its name.
        format: As for `load`.
        progress: Called with the number of points read so far, of all collections.
        filesystem: An fsspec filesystem for `root`.
        storage_options: fsspec's options for `root`.
        source_options: fsspec's options for `source`.
        options: What the file's format takes besides.

    Raises:
        InvalidInputError: The file holds one collection without a name, or is damaged; or snapshots of a
            folder were not loaded, each named with the reason.
        AlreadyExistsError: An alias of it is the name of a collection here, or the other way round.
    """
    from vecdataset.catalog import Catalog

    catalog = Catalog(root, filesystem=filesystem, storage_options=storage_options)
    if is_folder(source):
        _load_folder(os.fspath(source), catalog, progress, source_options, options)
        return catalog
    with open_source(source, options=source_options, markers=_markers()) as file:
        chosen = _format_of(file, format)
        if "several" not in chosen.capabilities:
            raise InvalidInputError(
                f"{file.name} is of format {chosen.name!r}, which holds one collection", hint="use load()"
            )
        found: Readings = chosen.read_all(file, **_known_options(chosen, file, options))  # type: ignore[attr-defined]  # by its capability
        try:
            _check_names(found, catalog, file.name)
            done = 0
            for name in found.names:
                reading = found.reading(name)

                def told(count: int, before: int = done) -> None:
                    if progress is not None:
                        progress(before + count)

                schema = _declaration(reading, None, None, file.name, None, None, None)
                where = f"{file.name}, collection {name!r}"
                made = _fill(catalog.location(name), reading, where, lambda s=schema: s, progress=told)  # type: ignore[misc]  # a default of its type
                done += len(made)
            for alias, target in found.aliases.items():
                catalog.alias(alias, target)
        finally:
            found.close()
    return catalog


def _load_folder(
    folder: str,
    catalog: Catalog,
    progress: Callable[[int], None] | None,
    source_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> None:
    from vecdataset.formats.qdrant.folder import load_folder

    entries = load_folder(folder, catalog, progress=progress, source_options=source_options, **options)
    failed = [f"{e.collection}: {e.error}" for e in entries if not e.ok]
    if failed:
        raise InvalidInputError(
            f"{len(failed)} of {len(entries)} snapshots of {file_name(folder)} were not loaded: "
            + "; ".join(failed),
            hint="the others were; a load can be repeated",
        )


def load_into(
    location: Any,
    source: Any,
    *,
    format: str,
    progress: Callable[[int], None] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Collection:
    """Load one file, whose declaration is its own, into the collection at a resolved location."""
    with open_source(source, options=source_options) as file:
        reading = _read(file, format, BATCH_ROWS, None, options)

        def declare_new() -> CollectionSchema:
            return _declaration(reading, None, None, file.name, None, None, None)

        return _fill(location, reading, file.name, declare_new, progress=progress)


def _check_names(found: Readings, catalog: Catalog, where: str) -> None:
    """Refuse names that this root cannot have, before anything is written."""
    if not found.names:
        raise InvalidInputError(f"{where} holds one collection, without a name", hint="use load()")
    found.check()
    aliases, have = catalog.aliases(), set(catalog.list())
    for name in found.names:
        catalog.location(name)
        if name in aliases:
            raise CollectionExistsError(f"{name!r} of {where} is an alias in {catalog.url}")
    for alias in found.aliases:
        catalog.location(alias)
        if alias in have or alias in found.names:
            raise CollectionExistsError(f"the alias {alias!r} of {where} is a collection in {catalog.url}")


def _fill(
    location: Any,
    reading: Reading,
    where: str,
    declare_new: Callable[[], CollectionSchema],
    *,
    mapping: Mapping[str, str] | str | None = None,
    id: str = "id",
    progress: Callable[[int], None] | None = None,
) -> Collection:
    """Upsert what was read into the collection at a place, which is made if it is not there."""
    made = False
    try:
        collection = _existing(location)
        if collection is None:
            collection, made = _create(location, declare_new())
        else:
            _refuse_other_vectors(collection, reading, where)
        for line in reading.losses:
            warnings.warn(line, LossWarning, stacklevel=3)
        _upsert(collection, reading, mapping, where, id=id, progress=progress)
        if made and reading.settings:
            _keep(collection, reading.settings)
    except BaseException:
        if made and collection is not None and (collection.version == 1 or not len(collection)):
            from vecdataset import engine

            engine.drop_table(location)
        raise
    finally:
        reading.close()
    return collection


def _keep(collection: Collection, settings: Mapping[str, str]) -> None:
    """Keep what a source says beside its points; a commit of its own, after that of the points."""
    table = collection._writable().table  # noqa: SLF001  no user sets these
    collection._advance(table.set_config(dict(settings)))  # noqa: SLF001


def _refuse_other_vectors(collection: Collection, reading: Reading, where: str) -> None:
    """Refuse points whose vectors are not those of the collection, with all that differs."""
    if reading.declared is None or reading.layout != "qdrant":
        return
    have, want = collection.schema, reading.declared
    lines = []
    for name, params in want.vectors.items():
        shown, own = repr(name or "vector"), have.vectors.get(name)
        if own is None:
            lines.append(f"vector {shown} is not declared here")
            continue
        for what, theirs, ours in (
            ("size", params.size, own.size),
            ("distance", params.metric.value, own.metric.value),
            ("multivector", params.multivector, own.multivector),
        ):
            if theirs != ours:
                lines.append(f"vector {shown} has {what} {theirs} there and {ours} here")
    lines += [f"sparse vector {n!r} is not declared here" for n in want.sparse if n not in have.sparse]
    if lines:
        raise InvalidInputError(
            f"{where} does not fit collection {collection.name!r}: {'; '.join(lines)}",
            hint="nothing was written; load it into another collection",
        )


def upsert_file(
    collection: Collection,
    source: Any,
    *,
    format: str | None = None,
    progress: Callable[[int], None] | None = None,
    vectors_from: Mapping[str, str] | str | None = None,
    id: str = "id",
    layout: Layout | None = None,
    batch_rows: int = BATCH_ROWS,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> WriteResult:
    """Upsert a file of points into a collection, as one commit; the arguments are those of `load`."""
    with open_source(source, options=source_options, markers=_markers()) as file:
        reading = _read(file, format, batch_rows, layout, options)
        try:
            _refuse_other_vectors(collection, reading, file.name)
            for line in reading.losses:
                warnings.warn(line, LossWarning, stacklevel=2)
            return _upsert(collection, reading, vectors_from, file.name, id=id, progress=progress)
        finally:
            reading.close()


def _upsert(
    collection: Collection,
    reading: Reading,
    mapping: Mapping[str, str] | str | None,
    where: str,
    *,
    id: str,
    progress: Callable[[int], None] | None,
) -> WriteResult:
    return collection.upsert(
        _counted(reading.points, progress),
        id=id,
        vectors=_sources(reading, collection.schema, mapping, where),
        layout=reading.layout,
    )


def read_vectors(
    source: Any, *, column: str | None = None, source_options: Mapping[str, Any] | None = None
) -> list[Any]:
    """Return the vectors of a file, such as queries to search with, in its order.

    Args:
        source: As for `load`.
        column: The column or key of the vectors; None takes the only one.
        source_options: fsspec's options for `source`.

    Raises:
        InvalidInputError: It is not clear which column is meant, or a row has no vector in it.
    """
    with open_source(source, options=source_options) as file:
        if "several" in _format_of(file, None).capabilities:
            raise NotSupportedError(f"{file.name} is an archive, not a file of queries", hint="import it")
        reading = _read(file, None, BATCH_ROWS, "flat", {})
        name = column or (next(iter(reading.vectors)) if len(reading.vectors) == 1 else None)
        if name is None:
            raise _unclear(reading, file.name)
        if name not in reading.names:
            raise UnknownNameError(
                f"{file.name} has no column {name!r}", hint=did_you_mean(name, reading.names, what="columns")
            )
        out: list[Any] = []
        for item in reading.points:
            out += item.column(name).to_pylist() if isinstance(item, pa.RecordBatch) else [item.get(name)]
    missing = next((row for row, v in enumerate(out) if v is None), None)
    if missing is not None:
        raise InvalidInputError(f"row {missing} of {file.name} has no vector in {name!r}")
    return out


def _existing(location: Any) -> Collection | None:
    from vecdataset.opening import open_at

    try:
        return open_at(location)
    except CollectionNotFoundError:
        return None


def _create(location: Any, schema: CollectionSchema) -> tuple[Collection, bool]:
    from vecdataset.indexes import check_declared
    from vecdataset.opening import create_at, open_at

    for params in schema.vectors.values():
        check_declared(params)
    try:
        return create_at(location, schema, exist_ok=False), True
    except CollectionExistsError:
        return open_at(location), False  # another process was first


def _declared_or_mapped(
    vectors: Any, vectors_from: Mapping[str, str] | str | None
) -> tuple[VectorParams | Mapping[str, VectorParams] | None, Mapping[str, str] | str | None]:
    if isinstance(vectors, Mapping) and vectors and all(isinstance(v, str) for v in vectors.values()):
        if vectors_from is not None:
            raise InvalidInputError("both vectors and vectors_from name columns", hint="pass one of them")
        return None, vectors
    return vectors, vectors_from


def _declaration(
    reading: Reading,
    vectors: VectorParams | Mapping[str, VectorParams] | None,
    mapping: Mapping[str, str] | str | None,
    where: str,
    sparse: Mapping[str, SparseVectorParams] | None,
    id_type: str | None,
    distance: Distance | str | None,
) -> CollectionSchema:
    """Return what a new collection declares."""
    if vectors is not None:
        return declare(vectors, sparse=sparse, id_type=id_type)
    if reading.declared is not None and not (mapping or sparse or distance or id_type):
        return reading.declared
    found = _guessed(reading, mapping, where)
    if reading.declared is not None and reading.layout == "qdrant":
        id_type = id_type or reading.declared.id_type
    if distance is not None:
        found = {name: replace(params, distance=Distance.parse(distance)) for name, params in found.items()}
    return declare(found, sparse=reading.sparse if sparse is None else sparse, id_type=id_type)


def _guessed(
    reading: Reading, mapping: Mapping[str, str] | str | None, where: str
) -> Mapping[str, VectorParams]:
    """Return vector names with the shapes that the file's first points have."""
    if reading.layout == "qdrant":
        _refuse_mapping(mapping, where)
        if not reading.vectors and not reading.sparse:
            raise InvalidInputError(
                f"the first points of {where} have no vectors",
                hint="say what they are: vectors=VectorParams(size=…)",
            )
        return reading.vectors
    if isinstance(mapping, str):
        mapping = {UNNAMED: mapping}
    if mapping is None:
        mapping = _conventional(reading.vectors)
    if mapping is None:
        found = reading.vectors
        if len(found) != 1:
            raise _unclear(reading, where)
        mapping = {UNNAMED: next(iter(found))}
    for name, column in mapping.items():
        if column not in reading.vectors:
            known = reading.vectors if column in reading.names else reading.names
            raise UnknownNameError(
                f"{where} has no column {column!r}"
                + (" of equally long lists of numbers" if column in reading.names else "")
                + f" for vector {name or 'vector'!r}",
                hint=did_you_mean(column, known, what="columns"),
            )
    return {name: reading.vectors[column] for name, column in mapping.items()}


def _conventional(columns: Iterable[str]) -> dict[str, str] | None:
    """Return the columns that bear the names of vectors in a collection, if there are any."""
    found = {
        UNNAMED if c == "vector" else c.removesuffix(VECTOR_SUFFIX): c
        for c in columns
        if c == "vector" or (c.endswith(VECTOR_SUFFIX) and c != VECTOR_SUFFIX)
    }
    return found or None


def _unclear(reading: Reading, where: str) -> InvalidInputError:
    shapes = [f"{c!r} ({p.datatype}[{p.size}])" for c, p in reading.vectors.items()]
    if not shapes:
        names = ", ".join(repr(n) for n in reading.names[:12])
        return InvalidInputError(
            f"{where} has no column of equally long lists of numbers"
            + (f"; it has {names}" if names else ""),
            hint="vectors_from={'': column} names the column of the vectors",
        )
    return InvalidInputError(
        f"{where} has {len(shapes)} columns that may be vectors: {', '.join(shapes)}",
        hint=f"say which is: vectors_from={{'': {next(iter(reading.vectors))!r}}}",
    )


def _refuse_mapping(mapping: Mapping[str, str] | str | None, where: str) -> None:
    if mapping is not None:
        raise InvalidInputError(
            f"the points of {where} are Qdrant-shaped: their vectors have names, not columns",
            hint="leave vectors_from out, or pass layout='flat'",
        )


def _sources(
    reading: Reading, schema: CollectionSchema, mapping: Mapping[str, str] | str | None, where: str
) -> Mapping[str, str] | None:
    """Return vector name to column, for `upsert`; None where the names already say it."""
    if reading.layout == "qdrant":
        _refuse_mapping(mapping, where)
        return None
    if isinstance(mapping, str):
        return {schema.vector(None)[0]: mapping}
    if mapping is not None or len(schema.vectors) != 1 or schema.sparse:
        return mapping
    name, params = next(iter(schema.vectors.items()))
    if {vector_column(name), name} & set(reading.names):
        return None
    fitting = [c for c, p in reading.vectors.items() if p.size == params.size] or list(reading.vectors)
    if len(fitting) > 1:
        raise _unclear(reading, where)
    return {name: fitting[0]} if fitting else None


def _counted(points: Iterable[Any], progress: Callable[[int], None] | None) -> Iterator[Any]:
    done = told = 0
    for item in points:
        yield item
        done += item.num_rows if isinstance(item, pa.RecordBatch) else getattr(item, "length", 1)
        if progress is not None and done - told >= BATCH_ROWS // 8:
            progress(done)
            told = done
    if progress is not None and done != told:
        progress(done)


# --------------------------------------------------------------------------------- out


def export_points(
    collection: Collection,
    target: Any,
    *,
    format: str | None = None,
    progress: Callable[[int], None] | None = None,
    target_options: Mapping[str, Any] | None = None,
) -> int:
    """Write all points of one version to a file; return how many.

    Args:
        collection: What to export; a handle that follows new versions is pinned first.
        target: A path, a URL of any fsspec filesystem, a binary file, or `-` for standard output.
        format: `parquet`, `arrow`, `jsonl`, or a plugin's; None goes by the name's ending.
        progress: Called with the number of points written so far.
        target_options: fsspec's options for `target`, or those of a server.

    A target `qdrant://host[:port]/collection` is a collection of a running server; see
    `formats.qdrant.live.push`.
    """
    if is_server(target):
        from vecdataset.formats.qdrant.live import push

        return push(_pinned(collection), target, options=target_options, progress=progress)
    chosen = _format_for(target, format)
    if target == STANDARD and "stream" not in chosen.capabilities:
        raise InvalidInputError(
            f"format {chosen.name!r} cannot be written to a pipe", hint="use jsonl or arrow, or a file"
        )
    pinned = _pinned(collection)
    name = file_name(target)
    beside: Mapping[str, bytes] = {}
    with open_target(target, options=target_options) as file:
        if isinstance(chosen, CollectionFormat):
            beside = chosen.write_collection(pinned, file, name=name, progress=progress)
        else:
            batches = _counted(stored_points(pinned), progress)
            stream = pa.RecordBatchReader.from_batches(pinned.schema.to_arrow(), batches)
            chosen.write(stream, file, name=name)
    if beside and isinstance(target, str | os.PathLike):
        write_beside(target, beside, options=target_options)
    return len(pinned)


def _pinned(collection: Collection) -> Collection:
    return collection if collection.read_only else collection.at(collection.version)


def stored_points(collection: Collection, *, batch_rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """Yield all points of a version with the columns of its declaration, in storage order.

    Args:
        collection: A handle on one version.
        batch_rows: At most so many rows a batch.
    """
    schema = collection.schema.to_arrow()
    # Small batches, because Lance reads several ahead: 365 MB with 1,000 rows each, 455 MB with 8,192, of
    # a million 128-dimensional points.
    for batch in collection.iter_batches(with_vectors=True, batch_rows=batch_rows or BATCH_ROWS):
        columns = [
            batch.column(f.name) if f.name in batch.schema.names else pa.nulls(batch.num_rows, f.type)
            for f in schema
        ]
        whole = pa.RecordBatch.from_arrays(columns, schema=schema)
        step = batch_rows or max(1, whole.num_rows)
        for start in range(0, whole.num_rows, step):
            yield whole.slice(start, step)
