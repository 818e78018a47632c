"""Tar archives with holes, as Qdrant's servers write and read them: the writing half.

Only plain files, folders and old-GNU sparse files ('S') occur: servers refuse every other kind of
entry. A server preallocates files of 32 MiB and hardly fills them, so a sparse archive of a small
collection is some thousand times smaller. A segment is a tar within the tar; since the length
of each member is known before it is written, nothing is written twice.

Layout of a sparse header: GNU tar, `struct oldgnu_header` and `struct sparse_header` of
<https://www.gnu.org/software/tar/manual/html_node/Standard.html>. The reader of the servers
(the crate tar) asks of the map that each extent but the last is a multiple of 512 bytes, that they
are in order, and that the last ends where the file does: a hole at the end is an empty extent there.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

__all__ = ["Folder", "Member", "Packed", "TarWriter", "data_extents", "folder_members"]

_BLOCK: Final = 512
_GRAIN: Final = 64 << 10
"""Holes smaller than this are written out: a map of many extents costs more than it saves."""
_PIECE: Final = 4 << 20
_IN_HEADER: Final = 4
_IN_EXTENSION: Final = 21
_END: Final = bytes(2 * _BLOCK)

Extents = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """An empty folder of an archive."""

    name: str

    def header(self, mtime: int) -> bytes:
        """Return the entry."""
        return _header(self.name, 0, tarfile.DIRTYPE, mtime)

    @property
    def data_bytes(self) -> int:
        """Bytes after the header."""
        return 0

    def data(self) -> Iterator[bytes]:
        """Yield nothing."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: bytes in memory, or a file on disk whose holes stay holes."""

    name: str
    source: bytes | Path
    extents: Extents = field(init=False)
    """Where the data is: offset and length of each part; one part is a plain file."""
    size: int = field(init=False)

    def __post_init__(self) -> None:
        extents: Extents
        if isinstance(self.source, bytes):
            size, extents = len(self.source), ((0, len(self.source)),)
        else:
            size = self.source.stat().st_size
            extents = data_extents(self.source)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "extents", extents)

    @property
    def data_bytes(self) -> int:
        """Bytes after the header, without padding."""
        return sum(length for _, length in self.extents)

    def header(self, mtime: int) -> bytes:
        """Return the header with its map of extents."""
        if self.extents == ((0, self.size),):
            return _header(self.name, self.size, tarfile.REGTYPE, mtime)
        extents = list(self.extents)
        if not extents or sum(extents[-1]) < self.size:
            extents.append((self.size, 0))
        return _sparse_header(self.name, self.data_bytes, self.size, extents, mtime)

    def data(self) -> Iterator[bytes]:
        """Yield what is not a hole."""
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb", buffering=0) as file:
            for offset, length in self.extents:
                file.seek(offset)
                left = length
                while left:
                    piece = file.read(min(left, _PIECE))
                    if not piece:
                        raise OSError(f"{self.source.name} became shorter while it was packed")
                    yield piece
                    left -= len(piece)


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive as a member of another one."""

    name: str
    members: Sequence[Folder | Member]
    mtime: int

    @property
    def data_bytes(self) -> int:
        """Length of the inner archive."""
        return sum(
            len(m.header(self.mtime)) + m.data_bytes + _padding(m.data_bytes) for m in self.members
        ) + len(_END)

    def header(self, mtime: int) -> bytes:
        """Return the header of the inner archive."""
        return _header(self.name, self.data_bytes, tarfile.REGTYPE, mtime)

    def data(self) -> Iterator[bytes]:
        """Yield the inner archive."""
        for member in self.members:
            yield from _entry(member, self.mtime)
        yield _END


class TarWriter:
    """Writes an archive front to back, and hashes what it writes."""

    def __init__(self, target: BinaryIO, *, mtime: int) -> None:
        """Begin.

        Args:
            target: Open for writing; never sought in, so a pipe will do.
            mtime: The time of every entry, in seconds since 1970.
        """
        self._target = target
        self._mtime = mtime
        self._names: set[str] = set()
        self._hash = hashlib.sha256()

    def add(self, member: Folder | Member | Packed) -> None:
        """Write one entry; a name can stand in an archive once."""
        assert member.name not in self._names, f"{member.name} is in the archive already"
        self._names.add(member.name)
        for piece in _entry(member, self._mtime):
            self._write(piece)

    def close(self) -> str:
        """Write the end, and return the SHA-256 of the archive in hex."""
        self._write(_END)
        return self._hash.hexdigest()

    def _write(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._target.write(piece)


def folder_members(folder: Path, prefix: str) -> Iterator[Folder | Member]:
    """Yield the files beneath a folder, and its empty folders, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        name = prefix + path.relative_to(folder).as_posix()
        if path.is_file():
            yield Member(name, path)
        elif not any(path.iterdir()):
            yield Folder(name + "/")


def data_extents(path: Path) -> Extents:
    """Return offset and length of the parts of a file that are not zeros, in steps of 64 KiB.

    The bytes are looked at, rather than the file system asked for its holes: not every one knows
    them, and equal files give equal archives everywhere. It runs at some GB/s.
    """
    size = path.stat().st_size
    if size <= _GRAIN:
        return ((0, size),)
    found: list[tuple[int, int]] = []
    with path.open("rb", buffering=0) as file:
        for start, used in _grains(file):
            if not used:
                continue
            length = min(_GRAIN, size - start)
            if found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], found[-1][1] + length)
            else:
                found.append((start, length))
    return tuple(found)


def _grains(file: BinaryIO | Iterable[bytes]) -> Iterator[tuple[int, bool]]:
    """Yield offset of each 64 KiB, and whether a byte of it is not zero."""
    buffer = bytearray(_PIECE)
    start = 0
    while count := file.readinto(buffer):  # type: ignore[union-attr]  # a raw file
        if count % _GRAIN:
            buffer[count:] = bytes(len(buffer) - count)
        words = np.frombuffer(buffer, np.uint64).reshape(-1, _GRAIN // 8)
        used = np.any(words, axis=1).tolist()
        for at in range(-(-count // _GRAIN)):
            yield start + at * _GRAIN, used[at]
        start += count


# ------------------------------------------------------------------------------- headers


def _entry(member: Folder | Member | Packed, mtime: int) -> Iterator[bytes]:
    yield member.header(mtime)
    yield from member.data()
    yield bytes(_padding(member.data_bytes))


def _padding(length: int) -> int:
    return -length % _BLOCK


def _header(name: str, size: int, kind: bytes, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mtime = size, kind, mtime
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _sparse_header(
    name: str, stored: int, real: int, extents: Sequence[tuple[int, int]], mtime: int
) -> bytes:
    plain = _header(name, stored, tarfile.GNUTYPE_SPARSE, mtime)
    block = bytearray(plain[-_BLOCK:])  # a long name stands before it, in entries of its own
    first, rest = extents[:_IN_HEADER], extents[_IN_HEADER:]
    block[386 : 386 + 24 * len(first)] = _map(first)
    block[482] = bool(rest)
    block[483:495] = _number(real)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    out = plain[:-_BLOCK] + block
    for at in range(0, len(rest), _IN_EXTENSION):
        part = _map(rest[at : at + _IN_EXTENSION])
        more = at + _IN_EXTENSION < len(rest)
        out += part.ljust(24 * _IN_EXTENSION, b"\0") + bytes([more]) + bytes(7)
    return out


def _map(extents: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(_number(offset) + _number(length) for offset, length in extents)


def _number(value: int) -> bytes:
    """Return 12 bytes: octal digits, or base 256 from 8 GiB on."""
    return b"%011o\0" % value if value < 1 << 33 else b"\x80" + value.to_bytes(11, "big")
