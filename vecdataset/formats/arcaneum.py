"""Arcaneum's portable exports: `.arcexp`, and JSON lines that begin with a header.

An `.arcexp` file is a gzip stream of: the bytes `ARCE`; the version, one byte, 1; the length of the
header, four bytes, little-endian; the header, msgpack; the points, msgpack, one after the other;
nil. A point is `{"id": text, "vectors": {name: little-endian float32}, "payload": {…}}`. The unnamed
vector is called `_default`, ids are the digits of an integer or a UUID. The header has
`collection_name`, `vector_config` (`{name: {"size", "distance"}}`), `point_count`, `root_prefix`,
`detached` and `exported_at`. The JSON lines have the same header, marked by `"_header": true`, and
points with `vector` in place of `vectors`. (Source: the project's RDR-017 and its exporter.)

Payloads hold the paths of the indexed files. `PathRules` takes some of the points by their
paths, and fits the paths to another machine, as Arcaneum's own `--include`, `--exclude`,
`--attach` and `--remap` do.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa

from vecdataset.errors import InvalidInputError, MissingDependencyError, NotSupportedError
from vecdataset.formats import Reading, Source
from vecdataset.formats.payload import payload_values
from vecdataset.ids import decode_ids
from vecdataset.points import Layout
from vecdataset.schema import UNNAMED, CollectionSchema, Distance, VectorParams

__all__ = ["ArcExp", "Header", "PathRules", "header_of"]

_MAGIC: Final = b"ARCE"
_VERSION: Final = 1
_DEFAULT: Final = "_default"
_PATH_KEYS: Final = ("git_project_root",)
"""What is rewritten beside the path itself."""
_MAX_HEADER: Final = 1 << 20
_MAX_POINT: Final = 1 << 28


# ------------------------------------------------------------------------------ the paths


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRules:
    """Which points are taken, by a path in their payload, and what becomes of that path.

    Points without the path are taken, and left as they are.
    """

    include: tuple[str, ...] = ()
    """Globs in which `*` crosses folders; a path must match one, where there are any."""
    exclude: tuple[str, ...] = ()
    """Globs of which a path must match none."""
    attach_root: str | None = None
    """The folder that relative paths are put beneath."""
    remap: tuple[tuple[str, str], ...] = ()
    """Beginnings of paths, whole folders, and what replaces them; the first that fits counts."""
    path_key: str = "file_path"
    """The payload's key of the path."""

    @classmethod
    def parse(
        cls,
        *,
        include: Sequence[str] | str = (),
        exclude: Sequence[str] | str = (),
        attach_root: str | None = None,
        remap: Mapping[str, str] | None = None,
        path_key: str = "file_path",
    ) -> PathRules:
        """Return the rules as a user writes them: a glob or several, a dict of folders."""
        if attach_root is not None and remap:
            raise InvalidInputError(
                "both attach_root and remap rewrite the paths",
                hint="attach_root is for relative paths, remap for absolute ones",
            )
        return cls(
            include=(include,) if isinstance(include, str) else tuple(include),
            exclude=(exclude,) if isinstance(exclude, str) else tuple(exclude),
            attach_root=attach_root,
            remap=tuple((remap or {}).items()),
            path_key=path_key,
        )

    def apply(self, points: Iterator[dict[str, Any]], layout: Layout) -> Iterator[dict[str, Any]]:
        """Yield the points that are taken, with their paths rewritten."""
        if not (self.include or self.exclude or self.attach_root or self.remap):
            yield from points
            return
        for point in points:
            payload = point.get("payload") or {} if layout == "qdrant" else point
            if not self._takes(payload.get(self.path_key)):
                continue
            for key in (self.path_key, *_PATH_KEYS):
                if isinstance(payload.get(key), str):
                    payload[key] = self._rewritten(payload[key])
            yield point

    def _takes(self, path: Any) -> bool:
        if not isinstance(path, str) or not path:
            return True
        if self.include and not any(fnmatchcase(path, glob) for glob in self.include):
            return False
        return not any(fnmatchcase(path, glob) for glob in self.exclude)

    def _rewritten(self, path: str) -> str:
        if self.attach_root is not None:
            return path if path.startswith("/") else f"{self.attach_root.rstrip('/')}/{path}"
        for old, new in self.remap:
            rest = path.removeprefix(old.rstrip("/"))
            if path.startswith(old.rstrip("/")) and rest[:1] in {"", "/"}:
                return new.rstrip("/") + rest
        return path


# ----------------------------------------------------------------------------- the header


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an export says of the collection it came from."""

    collection: str
    """Its name."""
    vectors: Mapping[str, VectorParams] = field(default_factory=dict)
    """Its vectors; empty where the collection had only the unnamed one, which is not written down."""
    points: int | None = None
    """How many points it had; an export of some of them has fewer."""

    def point(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point of the file in Qdrant's shape.

        Raises:
            InvalidInputError: It is not shaped as the exporter writes points.
        """
        vectors = row.get("vectors", row.get("vector"))
        payload = row.get("payload")
        if "id" not in row or not isinstance(vectors, Mapping) or not isinstance(payload, Mapping | None):
            raise InvalidInputError(
                f"a point of the export of {self.collection!r} has the keys "
                f"{', '.join(map(repr, row)) or 'none'}; it should have an id, vectors by name and a payload"
            )
        named = {UNNAMED if n == _DEFAULT else n: self._vector(n, v) for n, v in vectors.items()}
        id = row["id"]
        # Qdrant's ids are integers or UUIDs, and the exporter writes both as text.
        return {
            "id": int(id) if isinstance(id, str) and id.isascii() and id.isdigit() else id,
            "vector": named,
            "payload": dict(payload or {}),
        }

    def _vector(self, name: str, value: Any) -> Any:
        if isinstance(value, bytes):
            if len(value) % 4:
                raise InvalidInputError(
                    f"vector {name!r} of a point of {self.collection!r} has {len(value)} bytes, "
                    "which is no multiple of 4"
                )
            return np.frombuffer(value, "<f4")
        return value


def header_of(row: Mapping[str, Any], name: str) -> Header | None:
    """Return the header that a first line holds; None where it is a point."""
    return _header(row, name) if row.get("_header") is True else None


def _header(row: Mapping[str, Any], name: str) -> Header:
    config = row.get("vector_config") or {}
    try:
        vectors = {
            UNNAMED if n == _DEFAULT else n: VectorParams(
                size=params["size"],
                # Some versions wrote the name of the enum's member, "Distance.COSINE".
                distance=Distance.parse(str(params.get("distance", "Cosine")).rpartition(".")[2]),
            )
            for n, params in config.items()
        }
    except (AttributeError, KeyError, TypeError) as exc:
        raise InvalidInputError(f"the header of {name} does not describe its vectors: {exc!r}") from None
    count = row.get("point_count")
    return Header(
        collection=str(row.get("collection_name") or "?"),
        vectors=vectors,
        points=count if isinstance(count, int) else None,
    )


# ----------------------------------------------------------------------------- the format


class ArcExp:
    """Arcaneum's binary export."""

    name = "arcexp"
    suffixes = (".arcexp",)
    capabilities = frozenset({"read", "write"})
    options = frozenset({"include", "exclude", "attach_root", "remap", "path_key"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the decompressed bytes begin as an export does."""
        return head[:4] == _MAGIC

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,  # noqa: ARG002
        layout: Layout | None,  # noqa: ARG002
        **rules: Any,
    ) -> Reading:
        """Return the points as dicts; the header tells the vectors, else the first point.

        Args:
            source: The file.
            batch_rows: Not used: points come one by one.
            layout: Always Qdrant's.
            rules: As for `PathRules.parse`.
        """
        taken = PathRules.parse(**rules)
        unpacker = _msgpack().Unpacker(raw=False, max_buffer_size=_MAX_POINT, strict_map_key=False)
        header = _read_header(source)
        rows = _read_points(source, unpacker, header)
        first = next(rows, None)
        vectors = header.vectors or ({} if first is None else _shapes(first))
        points = rows if first is None else chain([first], rows)
        return Reading(
            points=taken.apply(points, "qdrant"),
            names=("id", "vector", "payload"),
            vectors=vectors,
            layout="qdrant",
        )

    def write(self, points: pa.RecordBatchReader, target: BinaryIO, *, name: str) -> None:
        """Write an export that Arcaneum imports: dense vectors and whatever payload msgpack can hold.

        Raises:
            NotSupportedError: The collection has sparse vectors or multivectors.
            InvalidInputError: A payload holds what msgpack cannot: an integer of more than 64 bits.
        """
        import gzip

        schema = CollectionSchema.from_arrow(points.schema, url=name)
        others = [n for n, p in schema.vectors.items() if p.multivector] + list(schema.sparse)
        if others:
            raise NotSupportedError(
                f"an .arcexp file holds dense vectors only; {', '.join(map(repr, others))} are not",
                hint="export to jsonl or parquet",
            )
        pack = _msgpack().Packer(use_bin_type=True).pack
        stem = name.rpartition("/")[2].removesuffix(".gz").removesuffix(".arcexp")
        header = pack(
            {
                "collection_name": stem,
                "collection_type": None,
                "model": None,
                "vector_config": {
                    n or _DEFAULT: {"size": p.size, "distance": p.distance} for n, p in schema.vectors.items()
                },
                "point_count": 0,  # not known before the end; Arcaneum shows progress by it
                "root_prefix": None,
                "detached": False,
                "exported_at": datetime.now(UTC).replace(tzinfo=None).isoformat(),
                "version": _VERSION,
            }
        )
        # A name that ends in .gz is compressed by who opened the target.
        with gzip.GzipFile("", "wb", 6, target, mtime=0) as file:
            file.write(_MAGIC + struct.pack("<BI", _VERSION, len(header)) + header)
            for batch in points:
                file.writelines(_packed(batch, schema, pack))
            file.write(pack(None))


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError:
        raise MissingDependencyError(
            ".arcexp files need the package msgpack", hint="pip install 'vecdataset[arcexp]'"
        ) from None
    return msgpack


def _read_header(source: Source) -> Header:
    start = _take(source, 9)
    version, length = struct.unpack("<BI", start[4:])
    if start[:4] != _MAGIC or version != _VERSION:
        raise InvalidInputError(
            f"{source.name} is an .arcexp file of version {version}; version {_VERSION} is known"
            if start[:4] == _MAGIC
            else f"{source.name} is no .arcexp file: it does not begin with ARCE"
        )
    if length > _MAX_HEADER:
        raise InvalidInputError(f"the header of {source.name} claims {length:,} bytes; none has so many")
    try:
        row = _msgpack().unpackb(_take(source, length), raw=False)
    except ValueError as exc:
        raise InvalidInputError(f"the header of {source.name} cannot be read: {exc}") from None
    if not isinstance(row, dict):
        raise InvalidInputError(f"the header of {source.name} is no object")
    return _header(row, source.name)


def _take(source: Source, count: int) -> bytes:
    try:
        data = source.file.read(count)
    except (EOFError, zlib.error, OSError) as exc:
        raise InvalidInputError(f"{source.name} breaks off in its header: {exc}") from None
    if len(data) < count:
        raise InvalidInputError(f"{source.name} breaks off in its header")
    return data


def _read_points(source: Source, unpacker: Any, header: Header) -> Iterator[dict[str, Any]]:
    """Yield the points up to the nil that ends them; a file without it was cut off."""
    count = 0
    while True:
        try:
            data = source.file.read(1 << 18)
        except (EOFError, zlib.error, OSError) as exc:
            raise InvalidInputError(f"{source.name} breaks off after point {count}: {exc}") from None
        if not data:
            raise InvalidInputError(f"{source.name} breaks off after point {count}: its end mark is missing")
        try:
            unpacker.feed(data)
            for row in unpacker:
                if row is None:
                    return
                count += 1
                yield header.point(row if isinstance(row, dict) else {})
        except InvalidInputError:
            raise
        except Exception as exc:  # noqa: BLE001 - msgpack raises ValueError, its own, and struct's
            raise InvalidInputError(f"point {count + 1} of {source.name} cannot be read: {exc}") from None


def _shapes(point: Mapping[str, Any]) -> dict[str, VectorParams]:
    return {n: VectorParams(size=len(v)) for n, v in point["vector"].items() if len(v)}


def _packed(batch: pa.RecordBatch, schema: CollectionSchema, pack: Any) -> Iterator[bytes]:
    ids = decode_ids(batch.column("id"), schema.id_type)
    columns = {n or _DEFAULT: batch.column(c) for n, c in schema.vector_columns.items()}
    vectors = {n: (_float_bytes(a), a.is_valid().to_pylist()) for n, a in columns.items()}
    for row, (id, payload) in enumerate(zip(ids, payload_values(batch, schema, ids), strict=True)):
        found = {n: data[row] for n, (data, valid) in vectors.items() if valid[row]}
        try:
            yield pack({"id": str(id), "vectors": found, "payload": payload})
        except OverflowError:
            raise InvalidInputError(
                f"the payload of point {id!r} holds an integer of more than 64 bits, which msgpack lacks",
                hint="export to jsonl or parquet",
            ) from None


def _float_bytes(vectors: pa.FixedSizeListArray) -> list[bytes]:
    """Return each vector as little-endian float32; what stands for a null is not looked at."""
    size = vectors.type.list_size
    values = vectors.values.slice(vectors.offset * size, len(vectors) * size)
    matrix = np.asarray(values.to_numpy(zero_copy_only=False), "<f4").reshape(len(vectors), size)
    return [row.tobytes() for row in matrix]
