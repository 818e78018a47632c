"""The tar inside a snapshot, read as a stream by someone who does not trust it.

Qdrant writes directories, regular files and old-GNU sparse files (type `S`), names over 100
characters as GNU long names or PAX records; anything else – links, devices, global headers – is
refused, as its own restore does. Names are relative, without `..`, and stand once. What a header
says is bounded before memory is taken for it: an archive of any size is read in blocks of 1 MiB.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from vecdataset.errors import InvalidInputError

__all__ = ["BLOCK", "CHUNK_BYTES", "Member", "Readable", "Tar", "damaged", "is_tar"]

BLOCK: Final = 512
CHUNK_BYTES: Final = 1 << 20
MAX_ENTRIES: Final = 500_000
MAX_EXTENTS: Final = 1_000_000
MAX_HEADER_BYTES: Final = 64 << 10
MAX_FILE_BYTES: Final = 1 << 44
MAX_NAME: Final = 1_024
MAX_DEPTH: Final = 32

_ZERO: Final = bytes(BLOCK)
_OCTAL: Final = re.compile(rb" *([0-7]*)[ \0]*")
_REFUSED: Final = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"g": "a PAX global header", b"K": "a long link",
}  # fmt: skip


class Readable(Protocol):
    """What an archive is read from: a file, a pipe, a member of another archive."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive."""

    name: str
    """Its path, relative and clean."""
    is_dir: bool
    stored_bytes: int
    """Bytes in the archive."""
    size_bytes: int
    """Bytes of the file, holes counted."""
    extents: tuple[tuple[int, int], ...] | None = None
    """Offset and length of what is stored of a sparse file; None where all is."""


def is_tar(head: bytes) -> bool:
    """Return whether these first bytes are a tar header whose checksum holds."""
    block = head[:BLOCK]
    if len(block) < BLOCK or block == _ZERO:
        return False
    stated = _number(block[148:156])
    return stated is not None and _sum(block) == stated


def damaged(where: str, what: str) -> InvalidInputError:
    """Return the error for an archive that cannot be trusted."""
    return InvalidInputError(f"{where} {what}", hint="nothing was written; fetch or make the snapshot again")


class Tar:
    """The members of one archive, in order; each is read, or passed over, before the next."""

    def __init__(self, file: Readable, *, where: str) -> None:
        """Begin at the first header.

        Args:
            file: The archive's bytes.
            where: Names the archive in messages.
        """
        self._file = file
        self._where = where
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield the members.

        Raises:
            InvalidInputError: The archive breaks off, is damaged, or holds what a snapshot never does.
        """
        seen: set[str] = set()
        for count in range(MAX_ENTRIES + 1):
            self.skip()
            member = self._next()
            if member is None:
                return
            if count == MAX_ENTRIES:
                raise damaged(self._where, f"holds more than {MAX_ENTRIES:,} entries")
            if member.name == ".":
                continue
            if member.name in seen and not member.is_dir:
                raise damaged(self._where, f"holds {member.name!r} twice")
            seen.add(member.name)
            yield member

    # -- the current member

    def read(self, size: int, /) -> bytes:
        """Return up to `size` stored bytes of the current member; none at its end."""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        data = self._take(wanted)
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Pass over what is left of the current member."""
        left = self._left + self._padding
        self._left = self._padding = 0
        while left:
            left -= len(self._take(min(left, CHUNK_BYTES)))

    def parts(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """Yield offsets and bytes of the current member's file, holes left out."""
        whole = ((0, member.size_bytes),)
        for start, length in whole if member.extents is None else member.extents:
            done = 0
            while done < length:
                data = self.read(min(CHUNK_BYTES, length - done))
                yield start + done, data
                done += len(data)

    def whole(self, member: Member, *, limit: int) -> bytes:
        """Return the current member's file, which must not be larger than `limit` bytes."""
        if member.size_bytes > limit:
            raise damaged(
                self._where,
                f"holds {member.name!r} of {member.size_bytes:,} bytes; at most {limit:,} are expected",
            )
        out = bytearray(member.size_bytes)
        for at, data in self.parts(member):
            out[at : at + len(data)] = data
        return bytes(out)

    def opened(self, member: Member) -> Readable:
        """Return the current member as a stream of its own, such as the archive of a segment."""
        return self if member.extents is None else _Expanded(self.parts(member), member.size_bytes)

    # -- headers

    def _take(self, size: int) -> bytes:
        """Return up to `size` bytes of the archive, at least one."""
        try:
            data = self._file.read(size)
        except (EOFError, zlib.error, OSError) as exc:
            raise damaged(self._where, f"breaks off: {exc}") from None
        if not data:
            raise damaged(self._where, "breaks off before its end")
        return data

    def _exactly(self, size: int) -> bytes:
        out = self._take(size)
        while len(out) < size:
            out += self._take(size - len(out))
        return out

    def _next(self) -> Member | None:
        long_name: str | None = None
        pax: dict[str, str] = {}
        while True:
            block = self._exactly(BLOCK)
            if block == _ZERO:
                if long_name is not None or pax:
                    raise damaged(self._where, "ends after a header that names a file")
                return None
            if _number(block[148:156]) != _sum(block):
                raise damaged(self._where, "has an entry whose header is damaged")
            kind = block[156:157]
            size = self._stated(block[124:136])
            if kind in (b"L", b"x"):
                text = self._header_text(kind, size)
                if kind == b"L":
                    long_name = self._name(text.rstrip(b"\0"))
                else:
                    pax = self._pax(text)
                continue
            name = pax.get("path", long_name)
            if name is None:
                short = block[:100].split(b"\0", 1)[0]
                prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
                name = self._name(prefix + b"/" + short if prefix else short)
            if "size" in pax:
                size = int(pax["size"]) if re.fullmatch(r"\d{1,18}", pax["size"]) else -1
            return self._member(block, kind, self._clean(name), size)

    def _member(self, block: bytes, kind: bytes, name: str, size: int) -> Member:
        if not 0 <= size <= MAX_FILE_BYTES:
            raise damaged(self._where, f"says that {name!r} has {size:,} bytes")
        if kind == b"5" or (kind in (b"0", b"\0") and block[:100].split(b"\0", 1)[0].endswith(b"/")):
            if size:
                raise damaged(self._where, f"says that the folder {name!r} has {size:,} bytes")
            return Member(name, is_dir=True, stored_bytes=0, size_bytes=0)
        if kind not in (b"0", b"\0", b"7", b"S"):
            what = _REFUSED.get(kind, f"an entry of type {kind.decode('latin-1')!r}")
            raise damaged(self._where, f"holds {what}, {name!r}, as no snapshot does")
        extents, real = None, size
        if kind == b"S":
            extents, real = self._sparse_map(block, name, size)
        self._left, self._padding = size, -size % BLOCK
        return Member(name, is_dir=False, stored_bytes=size, size_bytes=real, extents=extents)

    def _sparse_map(self, block: bytes, name: str, size: int) -> tuple[tuple[tuple[int, int], ...], int]:
        """Return the extents of an old-GNU sparse file, and its size."""
        real = self._stated(block[483:495])
        found: list[tuple[int, int]] = []
        table, more = block[386:482], block[482]
        while True:
            for at in range(0, len(table) - 23, 24):
                if table[at] in (0, 32):
                    break
                found.append((self._stated(table[at : at + 12]), self._stated(table[at + 12 : at + 24])))
            if not more:
                break
            if len(found) > MAX_EXTENTS:
                raise damaged(self._where, f"cuts {name!r} into more than {MAX_EXTENTS:,} pieces")
            extension = self._exactly(BLOCK)
            table, more = extension[:504], extension[504]
        end = 0
        for start, length in found:
            if start < end:
                raise damaged(self._where, f"has pieces of the sparse file {name!r} that overlap")
            end = start + length
        if end > real or real > MAX_FILE_BYTES or sum(length for _, length in found) != size:
            raise damaged(self._where, f"has a map of the sparse file {name!r} that does not add up")
        return tuple(e for e in found if e[1]), real

    def _header_text(self, kind: bytes, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise damaged(self._where, f"has a header of type {kind.decode()!r} of {size:,} bytes")
        text = self._exactly(size) if size else b""
        if size % BLOCK:
            self._exactly(-size % BLOCK)
        return text

    def _pax(self, text: bytes) -> dict[str, str]:
        out: dict[str, str] = {}
        while text.strip(b"\0"):
            head, _, _ = text.partition(b" ")
            length = int(head) if head.isdigit() and len(head) < 8 else 0
            record = text[len(head) + 1 : length]
            key, sign, value = record.removesuffix(b"\n").partition(b"=")
            if not length or length > len(text) or not sign:
                raise damaged(self._where, "has a PAX header that does not parse")
            text = text[length:]
            if key.startswith(b"GNU.sparse"):
                raise InvalidInputError(
                    f"{self._where} holds sparse files as PAX records, which Qdrant does not read either",
                    hint="pack it with `tar --format=gnu --sparse`",
                )
            if key in (b"path", b"size"):
                out[key.decode()] = self._name(value)
        return out

    def _stated(self, field: bytes) -> int:
        number = _number(field)
        if number is None:
            raise damaged(self._where, "has an entry whose header holds no number where one belongs")
        return number

    def _name(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise damaged(self._where, f"holds the name {raw[:80]!r}, which is not UTF-8") from None

    def _clean(self, name: str) -> str:
        """Return the name without `./` and a closing slash, if it stays inside the archive."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        outside = name.startswith("/") or ".." in parts or "\\" in name or ":" in (parts[:1] or [""])[0]
        if outside or not name.isprintable():
            raise damaged(self._where, f"holds the name {name[:200]!r}, which leads out of it")
        if len(name) > MAX_NAME or len(parts) > MAX_DEPTH:
            raise damaged(self._where, f"holds a name of {len(name):,} characters and {len(parts)} folders")
        return "/".join(parts) or "."


class _Expanded:
    """A sparse file as the stream of its bytes, holes as zeros."""

    def __init__(self, parts: Iterator[tuple[int, bytes]], size: int) -> None:
        self._parts = parts
        self._size = size
        self._at = 0
        self._next: tuple[int, bytes] | None = next(parts, None)

    def read(self, size: int, /) -> bytes:
        wanted = min(size, self._size - self._at, CHUNK_BYTES)
        if wanted <= 0:
            return b""
        if self._next is None or self._next[0] > self._at:
            until = self._size if self._next is None else self._next[0]
            out = bytes(min(wanted, until - self._at))
        else:
            start, data = self._next
            out = data[self._at - start : self._at - start + wanted]
            if self._at + len(out) == start + len(data):
                self._next = next(self._parts, None)
        self._at += len(out)
        return out


def _number(field: bytes) -> int | None:
    """Return an octal or base-256 number of a header, None where there is none."""
    if field and field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None
    found = _OCTAL.fullmatch(field)
    return None if found is None else int(found[1] or b"0", 8)


def _sum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 32
