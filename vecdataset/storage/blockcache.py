"""Blocks of immutable remote files on the local disk, shared by the processes of one user.

One file a block, named by a hash of the store and the path, so that nothing of either can be
read from the names. A block begins with a header: its mark, the size of the whole file and a
CRC-32 of its bytes. It is written beside its name and renamed, never changed, and deleted
when the budget is spent, least recently used first; who has it open goes on reading. What a
crash or a full disk leaves behind fails the check of its length or its sum, and is fetched
again. Nothing here is ever the only copy.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecdataset.errors import InvalidInputError

__all__ = ["BLOCK", "BlockCache", "CachedFile", "default_folder"]

BLOCK: Final = 1 << 20
"""Bytes of a block."""

_HEADER: Final = struct.Struct("<4sIQ")  # mark, CRC-32, size of the file
_MARK: Final = b"VDB1"
_TOUCH_S: Final = 60.0
_STALE_PART_S: Final = 3600.0
_VERIFIED: Final = 200_000


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One remote file, by the hash under which its blocks stand."""

    digest: str

    @classmethod
    def of(cls, store: str, path: str) -> CachedFile:
        """Return the name of a path of a store."""
        return cls(hashlib.sha256(f"{store}\0{path}".encode()).hexdigest()[:40])


def default_folder() -> Path:
    """Return where blocks stand unless the user says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "vecdataset" / "blocks"


class BlockCache:
    """A folder of blocks.

    Args:
        folder: Made if it is not there, readable by this user alone.
        limit_bytes: The budget. Each process looks after it once it has written a 32nd of it, so
            that n processes exceed it by at most n 32nds.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._since = limit_bytes  # look at the first write
        self._verified: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise InvalidInputError(
                f"the folder of the block cache, {str(folder)!r}, cannot be made: {error.strerror}",
                hint="pass storage_options={'cache': another folder} or {'cache': False}",
            ) from error

    def size(self, file: CachedFile) -> int | None:
        """Return the size of a remote file, if a block of it is here to tell."""
        with suppress(OSError), self._sized(file).open("rb") as opened:
            text = opened.read(24)
            if text.endswith(b"\n"):
                return int(text)
        return None

    def holds(self, file: CachedFile, number: int) -> bool:
        """Tell whether a block is here, as far as its name says."""
        return self._block(file, number).exists()

    def read(self, file: CachedFile, number: int, start: int, end: int, *, size: int) -> bytes | None:
        """Return bytes `start` to `end` of block `number`; None when it is not here, whole.

        Some 0.02 ms; the first time in a process 0.5 ms more, for the sum.
        """
        path = self._block(file, number)
        data = self._checked(path, min(BLOCK, size - number * BLOCK), start, end, size)
        with self._lock:
            if data is None:
                self.misses += 1
            else:
                self.hits += 1
        return data

    def _checked(self, path: Path, length: int, start: int, end: int, size: int) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if found.st_size == _HEADER.size + length:
                if path.name in self._verified:
                    data = os.pread(descriptor, end - start, _HEADER.size + start)
                    self._touch(path, found.st_mtime)
                    return data
                whole = os.pread(descriptor, _HEADER.size + length, 0)
                mark, checksum, total = _HEADER.unpack_from(whole)
                body = memoryview(whole)[_HEADER.size :]
                if (mark, total) == (_MARK, size) and zlib.crc32(body) == checksum:
                    self._trust(path)
                    self._touch(path, found.st_mtime)
                    return bytes(body[start:end])
        except (OSError, struct.error):
            pass
        finally:
            os.close(descriptor)
        with suppress(OSError):
            path.unlink()  # damaged, or of a file of this name that had another size
        return None

    def _trust(self, path: Path) -> None:
        if len(self._verified) > _VERIFIED:
            self._verified.clear()
        self._verified.add(path.name)

    @staticmethod
    def _touch(path: Path, modified: float) -> None:
        if time.time() - modified > _TOUCH_S:
            with suppress(OSError):
                os.utime(path)

    def write(self, file: CachedFile, number: int, data: bytes | memoryview, *, size: int) -> None:
        """Keep a block. Never raises: without a cache everything works, slower."""
        path = self._block(file, number)
        header = _HEADER.pack(_MARK, zlib.crc32(data), size)
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True, mode=0o700)
            self._place(path, [header, data])
            sized = self._sized(file)
            if not sized.exists():
                self._place(sized, [b"%d\n" % size])
            self._trust(path)
        with self._lock:
            self._since += len(data)
            look = self._since >= self.limit_bytes // 32
            if look:
                self._since = 0
        if look:
            self.evict()

    @staticmethod
    def _place(path: Path, parts: list[bytes | memoryview]) -> None:
        descriptor, part = tempfile.mkstemp(prefix="part-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                for piece in parts:
                    opened.write(piece)
            os.replace(part, path)  # noqa: PTH105 - mkstemp speaks str
        except BaseException:
            with suppress(OSError):
                os.unlink(part)  # noqa: PTH108 - as above
            raise

    def forget(self, file: CachedFile) -> None:
        """Drop what is here of a file that is written or deleted."""
        if not self._sized(file).exists() and not self._block(file, 0).exists():
            return
        names: list[str] = []
        with suppress(OSError), os.scandir(self.folder / file.digest[:2]) as entries:
            names = [e.name for e in entries if e.name.startswith(file.digest)]
        for name in names:
            self._verified.discard(name)
            with suppress(OSError):
                (self.folder / file.digest[:2] / name).unlink()

    def used_bytes(self) -> int:
        """Return what all blocks take; looks at each, some 5 µs a block."""
        return sum(size for _, size, _ in self._blocks())

    def evict(self) -> None:
        """Delete least recently used blocks until nine tenths of the budget are left, if it is spent."""
        with self._alone() as mine:
            if not mine:
                return
            blocks = sorted(self._blocks())
            used = sum(size for _, size, _ in blocks)
            goal = self.limit_bytes * 9 // 10 if used > self.limit_bytes else used
            for modified, size, path in blocks:
                is_stale_part = "part-" in path and time.time() - modified > _STALE_PART_S
                if used <= goal and not is_stale_part:
                    continue
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - of scandir
                    used -= size

    def _blocks(self) -> Iterator[tuple[float, int, str]]:
        for folder in self._folders():
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        found = entry.stat()
                        yield found.st_mtime, found.st_size, entry.path

    def _folders(self) -> list[str]:
        with suppress(OSError), os.scandir(self.folder) as entries:
            return [e.path for e in entries if e.is_dir()]
        return []

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold off other processes; False when one of them is at it."""
        try:
            import fcntl
        except ImportError:  # not on this system: two may evict, which deletes a little more
            yield True
            return
        try:
            opened = (self.folder / "lock").open("wb")
        except OSError:
            yield False
            return
        with opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                mine = False
            else:
                mine = True
            yield mine

    def _block(self, file: CachedFile, number: int) -> Path:
        return self.folder / file.digest[:2] / f"{file.digest}.{number}"

    def _sized(self, file: CachedFile) -> Path:
        return self.folder / file.digest[:2] / f"{file.digest}.size"
