"""How each kind of filesystem reads a range, writes a file whole, and writes one only if absent.

A `Dialect` works on one fsspec object at a time and keeps no state; who holds the object
sees to threads, repetitions and time. The base class is what fsspec offers to all; a
subclass says what its protocol does better. What decides whether several processes may
write is `create`, and fsspec's own `exists()` then `write()` let both of two writers win in
51 to 60 of 60 races (measured over sftp, webdav, ftp and S3), so that a filesystem without a
real exclusive create counts as `single-process`.

`register_commit_strategy` teaches the bridge an exclusive create of another protocol.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from fsspec.implementations.local import LocalFileSystem

from vecdataset.storage.location import Commit

__all__ = ["PART", "CommitStrategy", "Dialect", "Entry", "dialect_of", "part_of", "register_commit_strategy"]

PART: Final = ".vecdataset-part-"
"""Names of files on their way to their own name; they are no files to anyone else."""

CommitStrategy = Callable[[Any, str, bytes], None]
"""Writes bytes to a path of an fsspec object, or raises `FileExistsError`; never both, never in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a folder."""

    path: str
    size: int | None
    """Bytes; None where the listing does not tell."""
    is_dir: bool
    etag: str = ""
    """Differs when the content does, as far as the listing tells."""


class Dialect:
    """What every fsspec filesystem can do."""

    protocols: tuple[str, ...] = ()
    """fsspec's names."""
    shared = False
    """Whether one instance serves many threads."""
    remote = True
    """Whether a call costs a round trip."""
    commit: Commit = "single-process"
    root = "/"
    """What stands before a key to make a path."""
    folders = True
    """Whether a file needs its folder made first."""
    moves = False
    """Whether `move` replaces a file in one step."""
    on_disk = False
    """Whether `open_local` may find files on this machine's disk."""
    how = "it has no write that fails if the file exists"
    """Why `commit` is what it is."""

    def entry(self, fs: Any, path: str) -> Entry:
        """Return what is known of one file.

        Raises:
            FileNotFoundError: No file of this name; folders are none.
        """
        found = _entry(fs.info(path))
        if found.is_dir:
            raise FileNotFoundError(path)
        return found

    def read(self, fs: Any, path: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end`, which is not past the end of the file."""
        data: bytes = fs.cat_file(path, start=start, end=end)
        return data

    def open_local(self, fs: Any, path: str) -> BinaryIO | None:
        """Return a file with just the bytes of `path`, open, or None; only where `on_disk`."""
        raise NotImplementedError

    def write(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        """Write a file whose name is not in use."""
        # fsspec says bytes, and some classes mean it: adlfs fails on a bytearray.
        fs.pipe_file(path, bytes(data))

    def move(self, fs: Any, source: str, target: str) -> None:
        """Rename a file, in one step, over the one that may be there; only where `moves`."""
        raise NotImplementedError

    def replace(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        """Write a file that may be there; where `moves`, readers see the old one or the new one."""
        if not self.moves:
            self.write(fs, path, data)
            return
        part = part_of(path)
        self.write(fs, part, data)
        self.move(fs, part, path)

    def create(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        """Write a file only if it is not there; raise `FileExistsError` if it is."""
        try:
            self.entry(fs, path)
        except FileNotFoundError:
            self.replace(fs, path, data)
        else:
            raise FileExistsError(path)

    def upload(self, fs: Any, source: Path, path: str) -> None:
        """Write a file of any size from a local one."""
        fs.put_file(str(source), path)

    def download(self, fs: Any, path: str, target: Path) -> None:
        """Copy a file of any size to a local one."""
        fs.get_file(path, str(target))

    def list_dir(self, fs: Any, path: str) -> list[Entry]:
        """Return what stands directly in a folder; nothing where there is none."""
        try:
            found = fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        own = path.strip("/")
        return [e for e in map(_entry, found) if e.path.strip("/") != own]

    def tree(self, fs: Any, path: str) -> list[Entry]:
        """Return every file beneath a path, by one call; only where there are no `folders`."""
        raise NotImplementedError

    def make_dir(self, fs: Any, path: str) -> None:
        """Make a folder and those above it."""
        fs.makedirs(path, exist_ok=True)

    def delete(self, fs: Any, path: str) -> None:
        """Delete one file."""
        fs.rm_file(path)

    def delete_dir(self, fs: Any, path: str) -> None:
        """Delete one empty folder."""
        fs.rmdir(path)

    def close(self, fs: Any) -> None:
        """Let go of connections."""


class LocalDialect(Dialect):
    """Disks, through a class of the user's own: the plain one is opened by Lance itself."""

    protocols = ("file", "local")
    shared = True
    remote = False
    commit = "atomic"
    moves = True
    on_disk = True
    how = "a hard link is made only if the name is free"

    def open_local(self, fs: Any, path: str) -> BinaryIO | None:
        # A class derived from it may keep something else on the disk than it reads.
        return open(path, "rb", buffering=0) if type(fs) is LocalFileSystem else None  # noqa: PTH123

    def move(self, fs: Any, source: str, target: str) -> None:
        del fs
        os.replace(source, target)  # noqa: PTH105 - these are fsspec's paths

    def create(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        part = part_of(path)
        fs.pipe_file(part, bytes(data))
        try:
            os.link(part, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part)  # noqa: PTH108 - as above


class MemoryDialect(Dialect):
    """fsspec's memory, seen by this process alone, whose threads the bridge keeps apart."""

    protocols = ("memory",)
    shared = True
    remote = False
    commit = "atomic"
    how = "only this process sees it"


class ObjectStoreDialect(Dialect):
    """Stores whose fsspec class creates a file only if it is absent."""

    protocols = ("s3", "s3a", "gs", "gcs", "abfs", "az", "abfss")
    shared = True
    commit = "atomic"
    root = ""
    folders = False
    how = "the store creates a file only if it is absent"

    def create(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        fs.pipe_file(path, bytes(data), mode="create")

    def tree(self, fs: Any, path: str) -> list[Entry]:
        found = fs.find(path, detail=True)
        return [_entry(e) for e in found.values() if e["name"].strip("/") != path.strip("/")]


class ReadOnlyDialect(Dialect):
    """Archives and the like."""

    protocols: tuple[str, ...] = (
        "zip",
        "tar",
        "libarchive",
        "reference",
        "github",
        "git",
        "gist",
        "data",
        "jupyter",
    )
    shared = True
    commit = "read-only"
    root = ""
    how = "it cannot be written"


class HttpDialect(ReadOnlyDialect):
    """Web servers that list their folders."""

    protocols = ("http", "https")

    def entry(self, fs: Any, path: str) -> Entry:
        if path.endswith("/"):
            raise FileNotFoundError(path)
        return super().entry(fs, path)

    def list_dir(self, fs: Any, path: str) -> list[Entry]:
        """Return the links of an index page that lead one step down."""
        base = path.rstrip("/") + "/"
        try:
            found = fs.ls(base, detail=False)
        except FileNotFoundError:
            return []
        below = {name for name in found if name.startswith(base)}
        return [
            Entry(path=name, size=None, is_dir=name.endswith("/"))
            for name in sorted(below)
            if re.fullmatch(r"[^/?#]+/?", name[len(base) :])
        ]


_CHANGES: Final = (
    "ETag", "etag", "generation", "mtime", "modified", "modify", "LastModified", "created",
)  # fmt: skip
"""What filesystems call that which tells one content of a file from the next."""


def part_of(path: str) -> str:
    """Return a name beside `path` that nobody else uses."""
    folder, _, _ = path.rpartition("/")
    return f"{folder}/{PART}{uuid.uuid4().hex}"


_strategies: dict[str, CommitStrategy] = {}


def register_commit_strategy(protocol: str, create: CommitStrategy) -> None:
    """Say how a protocol writes a file only if it is absent, whoever else tries at the same time.

    Args:
        protocol: fsspec's name of the filesystem.
        create: Called with an fsspec object, a path and the bytes. It writes all of them and
            returns, or leaves what is there and raises `FileExistsError`.

    Collections on that protocol count as `atomic` from then on: several processes may write.
    """
    _strategies[protocol] = create


def dialect_of(protocols: tuple[str, ...], cls: type[Any]) -> Dialect:
    """Return the dialect of a filesystem class, with the strategy that was registered for it."""
    from vecdataset.storage.bridge.ftp import FtpDialect
    from vecdataset.storage.bridge.sftp import SftpDialect
    from vecdataset.storage.bridge.smb import SmbDialect
    from vecdataset.storage.bridge.webdav import WebdavDialect

    known = (
        LocalDialect, MemoryDialect, ObjectStoreDialect, SftpDialect, WebdavDialect, FtpDialect,
        SmbDialect, HttpDialect, ReadOnlyDialect,
    )  # fmt: skip
    found: Dialect = next((d() for d in known if set(d.protocols) & set(protocols)), Dialect())
    if type(found) is Dialect and getattr(cls, "async_impl", False):
        found.shared = True
        found.root = getattr(cls, "root_marker", "") or ""
    strategy = next((_strategies[p] for p in protocols if p in _strategies), None)
    if strategy is not None:
        create = strategy
        found.create = lambda fs, path, data: create(fs, path, bytes(data))  # type: ignore[method-assign]  # its own
        found.commit, found.how = "atomic", "its registered strategy writes a file only if it is absent"
    return found


def _entry(info: dict[str, Any]) -> Entry:
    size = info.get("size")
    changed = next((info[k] for k in _CHANGES if info.get(k)), "")
    return Entry(
        path=info["name"],
        size=None if size is None else int(size),
        is_dir=info["type"] == "directory",
        etag=str(changed),
    )
