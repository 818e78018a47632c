"""d-vecDB: snapshot archives, data folders, and `vectors.bin` files that were left behind.

`vectors.bin` holds records, each after its length (u32, little-endian), up to a length of zero or the
end; older versions wrote them without lengths. A record is a `Vector` as bincode 1 writes it:
u64 16 and the 16 bytes of a UUID; u64 n and n float32; one byte, and if it is 1 u64 and as many
bytes of JSON, the metadata. Files of versions that wrote the metadata as a bincode map
cannot be read by anyone, d-vecDB included: the types of its values are not in the file.
`metadata.json` beside it is the collection's configuration. A snapshot archive is a tar file with both
in one folder. (Source: `storage/src/{mmap,snapshot}.rs` and `common/src/types.rs` of d-vecDB 0.2.)

d-vecDB appends for every change and never deletes: of several records of one id the last counts, and
points that were deleted are there again, as they are after a restart of d-vecDB itself.
"""

from __future__ import annotations

import json
import struct
import tarfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import PurePosixPath
from typing import IO, Any, Final
from uuid import UUID

import numpy as np

from vecdataset.errors import InvalidInputError, NotFoundError, UnknownNameError
from vecdataset.formats import Reading, Source
from vecdataset.points import Layout
from vecdataset.schema import UNNAMED, Distance, VectorParams

__all__ = ["DVecDB"]

_DATA: Final = "vectors.bin"
_CONFIG: Final = "metadata.json"
_MEMBERS: Final = frozenset({_DATA, _CONFIG, "wal.log", "snapshot.json"})
_MAX_RECORD: Final = 1 << 28
_UUID_LENGTH: Final = struct.pack("<Q", 16)


class DVecDB:
    """What d-vecDB keeps on disk."""

    name = "dvecdb"
    suffixes = ()
    capabilities = frozenset({"read"})
    marker = _DATA

    def sniff(self, head: bytes, name: str) -> bool:
        """Return whether this is a `vectors.bin`, or a tar file whose first members are a snapshot's."""
        if PurePosixPath(name).name == _DATA:
            return True
        return head[257:262] == b"ustar" and any(
            len(path.parts) == 2 and path.name in _MEMBERS for path in _members(head)
        )

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:  # noqa: ARG002
        """Return the records as dicts.

        Raises:
            InvalidInputError: The file is damaged, or holds metadata that nobody can decode.
        """
        if source.head[257:262] == b"ustar":
            return self._archive(source)
        config = b""
        with suppress(NotFoundError, InvalidInputError), source.beside(_CONFIG) as found:
            config = found.file.read()
        return _reading(source.file, source.name, _declared(config, source.name), ExitStack())

    def _archive(self, source: Source) -> Reading:
        with ExitStack() as stack:
            whole = stack.enter_context(source.seekable())
            try:
                archive = tarfile.TarFile(fileobj=whole)  # reads only; the stack closes the file
                found = {PurePosixPath(m.name).name: m for m in archive if m.isfile()}
            except (tarfile.TarError, OSError, EOFError) as exc:
                raise InvalidInputError(f"{source.name} cannot be read as a tar archive: {exc}") from None
            if _DATA not in found:
                raise InvalidInputError(
                    f"{source.name} holds no {_DATA}", hint="it was taken of an empty collection"
                )
            config = archive.extractfile(found[_CONFIG]) if _CONFIG in found else None
            data = archive.extractfile(found[_DATA])
            assert data is not None  # it is a file
            wal = found.get("wal.log")
            if wal is not None and wal.size:
                warnings.warn(
                    f"{source.name} has a log of {wal.size:,} bytes beside its data; it is not read",
                    stacklevel=2,
                )
            declared = _declared(config.read() if config else b"", source.name)
            return _reading(data, f"{_DATA} of {source.name}", declared, stack.pop_all())
        raise AssertionError  # pragma: no cover - no exception is swallowed


def _members(head: bytes) -> Iterator[PurePosixPath]:
    """Yield the names of the members whose headers stand in the first bytes of a tar file."""
    at = 0
    while at + 512 <= len(head) and head[at : at + 1] != b"\0":
        try:
            member = tarfile.TarInfo.frombuf(head[at : at + 512], "utf-8", "surrogateescape")
        except tarfile.TarError:
            return
        yield PurePosixPath(member.name)
        at += 512 + -(-member.size // 512) * 512


def _reading(file: IO[bytes], name: str, declared: Mapping[str, VectorParams], opened: ExitStack) -> Reading:
    """Return the records of a data file; `opened` is closed after the last of them."""

    def points() -> Iterator[dict[str, Any]]:
        with opened:
            yield from _records(file, name)

    rows = points()
    first = next(rows, None)
    size = 0 if first is None else len(first["vector"])
    return Reading(
        points=rows if first is None else chain([first], rows),
        names=("id", "vector", "payload"),
        vectors=declared or ({UNNAMED: VectorParams(size=size)} if size else {}),
        layout="qdrant",
    )


def _declared(config: bytes, name: str) -> dict[str, VectorParams]:
    if not config:
        return {}
    try:
        found = json.loads(config)
        distance = str(found.get("distance_metric", "Cosine"))
        return {
            UNNAMED: VectorParams(
                size=found["dimension"],
                distance=Distance.parse({"DotProduct": "Dot", "Euclidean": "Euclid"}.get(distance, distance)),
                datatype=str(found.get("vector_type", "Float32")).lower(),
            )
        }
    except (ValueError, KeyError, TypeError, AttributeError, UnknownNameError) as exc:
        raise InvalidInputError(f"{_CONFIG} beside {name} does not describe a collection: {exc!r}") from None


def _records(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    start = file.read(8)
    prefixed = start != _UUID_LENGTH
    pending = start
    number = 0

    def take(count: int) -> bytes:
        nonlocal pending
        data, pending = pending[:count], pending[count:]
        return data if len(data) == count else data + file.read(count - len(data))

    while True:
        if prefixed:
            head = take(4)
            length = int.from_bytes(head, "little")
            if len(head) < 4 or not length:
                return
            if length > _MAX_RECORD:
                raise InvalidInputError(
                    f"record {number} of {name} claims {length:,} bytes; none has so many"
                )
            body = take(length)
            if len(body) < length:
                warnings.warn(f"{name} breaks off in record {number}, which is left out", stacklevel=2)
                return
            yield _vector(body, number, name)
        else:
            head = take(32)
            if len(head) < 32 or head[:8] != _UUID_LENGTH:
                if head.strip(b"\0"):
                    warnings.warn(f"{name} breaks off in record {number}, which is left out", stacklevel=2)
                return
            body = head + take(min(int.from_bytes(head[24:], "little"), _MAX_RECORD // 4) * 4 + 1)
            if body[-1:] == b"\1":
                size = take(8)
                body += size + take(min(int.from_bytes(size, "little"), _MAX_RECORD))
            yield _vector(body, number, name)
        number += 1


def _vector(body: bytes, number: int, name: str) -> dict[str, Any]:
    """Return one record; every length in it is checked against what is there."""
    size = int.from_bytes(body[24:32], "little")
    end = 32 + size * 4
    if body[:8] != _UUID_LENGTH or len(body) <= end:
        raise InvalidInputError(f"record {number} of {name} is damaged: it has {len(body)} bytes")
    payload: Any = {}
    if body[end] not in {0, 1}:
        raise InvalidInputError(f"record {number} of {name} is damaged: its metadata is marked {body[end]}")
    if body[end]:
        text = body[end + 9 :]
        try:
            if int.from_bytes(body[end + 1 : end + 9], "little") != len(text):
                raise ValueError("its length is not that of a text")  # noqa: TRY301
            payload = json.loads(text)
        except ValueError as exc:
            raise InvalidInputError(
                f"the metadata of record {number} of {name} is no JSON text: {exc}",
                hint="versions before 0.2 wrote a form that cannot be decoded; export from a running d-vecDB",
            ) from None
    return {
        "id": str(UUID(bytes=body[8:24])),
        "vector": np.frombuffer(body, "<f4", size, 32),
        "payload": payload,
    }
