"""An object store over one fsspec filesystem: ranges, listings, exclusive creation, no lies.

What Lance asks of a store, independent of the protocol that carries the question. Files
beneath `data/`, `_indices/`, `_deletions/` and `_transactions/` of a Lance dataset have
unique names and never change: their sizes are remembered, and their blocks may come from a
`BlockCache`. Manifests, tags and everything else are asked for each time, because their
names come back after a drop.
"""

from __future__ import annotations

import base64
import re
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from vecdataset.storage.blockcache import BLOCK, BlockCache, CachedFile
from vecdataset.storage.bridge.clones import DELAYS_S, Clones, is_final
from vecdataset.storage.bridge.dialects import PART, Dialect, Entry, part_of

__all__ = ["Listing", "Store"]

T = TypeVar("T")

CommitLock = Callable[[int], AbstractContextManager[Any]] | AbstractContextManager[Any]

_IMMUTABLE: Final = re.compile(
    r"(?:^|/)(?:data/[^/]+\.lance|_deletions/[^/]+\.(?:arrow|bin)|_transactions/[^/]+\.txn|_indices/[^/]+/.+)$"
)
_SIZES: Final = 100_000
_BY_KERNEL: Final = 128 << 10
"""Bytes from which on the kernel sends a file to the socket sooner than we read it and send it."""
_RUN: Final = 8 * BLOCK
_PAGE: Final = 1000
_PAGE_WITHOUT_SIZES: Final = 20
_VERSION: Final = re.compile(r"_versions/(\d+)\.manifest$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of names."""

    files: Sequence[Entry]
    folders: Sequence[str]
    token: str | None
    """Asks for the next page; None at the end."""


class Store:
    """The files of one filesystem, by key: its absolute path without what stands in front of it.

    Args:
        name: Says which filesystem, the same in every process, and nothing secret.
        dialect: How the filesystem is spoken to.
        clones: Its instances.
        root: What stands in front of a key to make a path.
        cache: Blocks of immutable files on the local disk.
        lock: The user's own, held while a manifest or a tag is created.
    """

    def __init__(
        self,
        *,
        name: str,
        dialect: Dialect,
        clones: Clones,
        root: str,
        cache: BlockCache | None,
        lock: CommitLock | None,
    ) -> None:
        self.name = name
        self.dialect = dialect
        self.clones = clones
        self.cache = cache
        self.counts: Counter[str] = Counter()
        """Calls of the filesystem by kind, and `bytes_read`, `bytes_written`."""
        self._root = root
        self._user_lock = lock
        self._creating = [threading.Lock() for _ in range(16)]
        self._sizes: OrderedDict[str, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, tuple[list[Entry], list[str]]] = OrderedDict()
        self._flights: dict[tuple[str, int], threading.Event] = {}

    # -- facts

    def path(self, key: str) -> str:
        """Return the path of a key on the filesystem."""
        return self._root + key

    def head(self, key: str) -> Entry:
        """Return size and etag of a file.

        Raises:
            FileNotFoundError: There is none.
        """
        known = self._known(key)
        if known is not None:
            return known
        path = self.path(key)
        found = self._call("info", lambda fs: self.dialect.entry(fs, path))
        if found.size is None:
            raise OSError(f"the filesystem does not tell the size of {path}")
        self._remember(key, found)
        return found

    def _known(self, key: str) -> Entry | None:
        with self._lock:
            known = self._sizes.get(key)
        if known is None and self.cache is not None and _IMMUTABLE.search(key):
            size = self.cache.size(self._cached(key))
            if size is not None:
                known = Entry(path=self.path(key), size=size, is_dir=False)
                self._remember(key, known)
        return known

    def _remember(self, key: str, entry: Entry) -> None:
        if not _IMMUTABLE.search(key):
            return
        with self._lock:
            self._sizes[key] = entry
            if len(self._sizes) > _SIZES:
                self._sizes.popitem(last=False)

    def _forget(self, key: str) -> None:
        with self._lock:
            self._sizes.pop(key, None)
        if self.cache is not None and _IMMUTABLE.search(key):
            self.cache.forget(self._cached(key))

    def _cached(self, key: str) -> CachedFile:
        return CachedFile.of(self.name, self.path(key))

    # -- reading

    def read(self, key: str, start: int, end: int, *, size: int) -> bytes:
        """Return bytes `start` to `end` of a file of `size` bytes."""
        if start >= end:
            return b""
        if self.cache is None or not _IMMUTABLE.search(key):
            return self._fetch(key, start, end, size)
        return self._read_blocks(self.cache, key, start, end, size)

    def open_local(self, key: str, start: int, end: int) -> BinaryIO | None:
        """Return an open file of this machine with these bytes of a key, where they are many; None else."""
        kept = self.cache is not None and _IMMUTABLE.search(key)
        if not self.dialect.on_disk or end - start < _BY_KERNEL or kept:
            return None
        path = self.path(key)
        file = self.clones.call(lambda fs: self.dialect.open_local(fs, path), repeat=False)
        if file is not None:
            self._count("read", 1)
            self._count("bytes_read", end - start)
        return file

    def _fetch(self, key: str, start: int, end: int, size: int) -> bytes:
        path = self.path(key)

        def read(fs: Any) -> bytes:
            data = self.dialect.read(fs, path, start, end)
            if len(data) == end - start:
                return data
            if len(data) == size:  # a server that does not know ranges
                return data[start:end]
            raise ConnectionError(f"{len(data)} bytes came instead of {end - start}")

        data = self._call("read", read)
        self._count("bytes_read", len(data))
        return data

    def _read_blocks(self, cache: BlockCache, key: str, start: int, end: int, size: int) -> bytes:
        file = self._cached(key)
        first, last = start // BLOCK, (end - 1) // BLOCK
        parts: list[bytes | memoryview] = []
        number = first
        while number <= last:
            begin = start - number * BLOCK if number == first else 0
            stop = min(BLOCK, end - number * BLOCK)
            part = cache.read(file, number, begin, stop, size=size)
            if part is not None:
                parts.append(part)
                number += 1
                continue
            for block in self._missing(cache, file, key, number, last, size):
                begin = start - number * BLOCK if number == first else 0
                parts.append(memoryview(block)[begin : min(BLOCK, end - number * BLOCK)])
                number += 1
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def _missing(
        self, cache: BlockCache, file: CachedFile, key: str, number: int, last: int, size: int
    ) -> Iterator[bytes | memoryview]:
        """Yield blocks from `number` on, at least one, fetched by one call or by another thread."""
        with self._lock:
            flight = self._flights.get((key, number))
            claimed = 0
            if flight is None:
                flight = threading.Event()
                while (
                    number + claimed <= last
                    and claimed * BLOCK < _RUN
                    and (key, number + claimed) not in self._flights
                    and (claimed == 0 or not cache.holds(file, number + claimed))
                ):
                    self._flights[key, number + claimed] = flight
                    claimed += 1
        if not claimed:
            flight.wait()
            begin = number * BLOCK
            kept = cache.read(file, number, 0, min(BLOCK, size - begin), size=size)
            yield self._fetch(key, begin, min(size, begin + BLOCK), size) if kept is None else kept
            return
        try:
            begin = number * BLOCK
            data = memoryview(self._fetch(key, begin, min(size, (number + claimed) * BLOCK), size))
            blocks = [data[n * BLOCK : (n + 1) * BLOCK] for n in range(claimed)]
            for n, block in enumerate(blocks):
                cache.write(file, number + n, block, size=size)
        finally:
            with self._lock:
                for n in range(claimed):
                    self._flights.pop((key, number + n), None)
            flight.set()
        yield from blocks

    def download(self, key: str, target: Path) -> None:
        """Copy a file to a local one."""
        path = self.path(key)
        self._call("read", lambda fs: self.dialect.download(fs, path, target))
        self._count("bytes_read", target.stat().st_size)

    # -- writing

    def put(self, key: str, data: bytes | bytearray) -> Entry:
        """Write a file, whole or not at all where the filesystem can."""
        self._forget(key)
        # Nobody reads an immutable file before a manifest names it.
        write = self.dialect.write if _IMMUTABLE.search(key) else self.dialect.replace
        self._in_folder(key, lambda fs: write(fs, self.path(key), data))
        return self._written(key, len(data))

    def upload(self, key: str, source: Path) -> Entry:
        """Write a file from a local one, whole or not at all where the filesystem can."""
        self._forget(key)
        path = self.path(key)

        def upload(fs: Any) -> None:
            if self.dialect.moves and not _IMMUTABLE.search(key):
                part = part_of(path)
                self.dialect.upload(fs, source, part)
                self.dialect.move(fs, part, path)
            else:
                self.dialect.upload(fs, source, path)

        self._in_folder(key, upload)
        return self._written(key, source.stat().st_size)

    def create(self, key: str, data: bytes | bytearray) -> Entry:
        """Write a file only if it is not there.

        An error of the wire says nothing about what happened: the file is then read back, and
        holds our bytes, another's, or is not there and may be tried again.

        Raises:
            FileExistsError: It is there.
        """
        path = self.path(key)
        with self._creating[hash(path) % len(self._creating)], self._users_lock(key):
            for delay in (*DELAYS_S, None):
                try:
                    self._in_folder(key, lambda fs: self._exclusive(fs, path, data), repeat=False)
                    break
                except FileExistsError:
                    # A client below may have repeated a request whose answer was lost.
                    if (delay == DELAYS_S[0] and not self._repeats_below(key)) or not self._holds(key, data):
                        raise
                    break
                except Exception as error:
                    if is_final(error):
                        raise
                    if self._holds(key, data):
                        break
                    if delay is None:
                        raise
                    time.sleep(delay)
        return self._written(key, len(data))

    def _exclusive(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        if self._user_lock is None:
            self.dialect.create(fs, path, data)
        else:
            Dialect.create(self.dialect, fs, path, data)

    def _users_lock(self, key: str) -> AbstractContextManager[Any]:
        if self._user_lock is None:
            return nullcontext()
        if not callable(self._user_lock):
            return self._user_lock
        version = _VERSION.search(key)
        return self._user_lock(int(version[1]) if version else 0)

    def _repeats_below(self, key: str) -> bool:
        return not self.dialect.folders and "_versions/" in key

    def _holds(self, key: str, data: bytes | bytearray) -> bool:
        try:
            return (
                self.read(key, 0, len(data), size=len(data)) == data
                if self._size(key) == len(data)
                else False
            )
        except FileNotFoundError:
            return False

    def _size(self, key: str) -> int | None:
        return self._call("info", lambda fs: self.dialect.entry(fs, self.path(key))).size

    def _written(self, key: str, size: int) -> Entry:
        self._count("bytes_written", size)
        entry = Entry(path=self.path(key), size=size, is_dir=False)
        self._remember(key, entry)
        return entry

    def _in_folder(self, key: str, write: Callable[[Any], T], *, repeat: bool = True) -> T:
        """Write; where the folder turns out to be missing, make it and write again."""
        if not self.dialect.folders:
            return self._call("write", write, repeat=repeat)
        try:
            return self._call("write", write, repeat=repeat)
        except FileNotFoundError:
            folder = self.path(key).rpartition("/")[0]
            self._call("mkdir", lambda fs: self.dialect.make_dir(fs, folder))
            return self._call("write", write, repeat=repeat)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files, and folders that are empty then; one that is not there is no error."""

        def delete(key: str) -> None:
            self._forget(key)
            with suppress(FileNotFoundError):
                self._call("delete", lambda fs: self.dialect.delete(fs, self.path(key)))

        if len(keys) == 1:
            delete(keys[0])
            return
        with ThreadPoolExecutor(4, thread_name_prefix="vecdataset-delete") as threads:
            for _ in threads.map(delete, keys):
                pass
        if self.dialect.folders:
            self._prune({key.rpartition("/")[0] for key in keys})

    def _prune(self, folders: set[str]) -> None:
        """Delete folders without files. Somebody may write into one meanwhile: then it stays."""
        for folder in sorted(map(self.path, folders), key=len, reverse=True):
            with suppress(Exception):
                self._call("delete", partial(self._prune_one, folder))

    def _prune_one(self, folder: str, fs: Any) -> None:
        if not self.dialect.list_dir(fs, folder):
            self.dialect.delete_dir(fs, folder)

    def delete_tree(self, key: str) -> None:
        """Delete the empty folders beneath a key, and itself, after its files."""
        if not self.dialect.folders:
            return
        with suppress(Exception):
            self._call("delete", lambda fs: fs.rm(self.path(key), recursive=True))

    def copy(self, source: str, target: str, *, exclusive: bool = False) -> Entry:
        """Copy a file."""
        with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:
            spool = Path(folder) / "file"
            self.download(source, spool)
            return self.create(target, spool.read_bytes()) if exclusive else self.upload(target, spool)

    # -- listing

    def entries(self, folder: str, *, recursive: bool) -> list[Entry]:
        """Return what stands beneath a folder, sorted by path; no folders if recursive."""
        pending, found = [self.path(folder)], list[Entry]()
        while pending:
            ask = partial(self._listed, pending.pop(), recursive and not self.dialect.folders)
            for entry in self._call("list", ask):
                if recursive and entry.is_dir:
                    pending.append(entry.path)
                else:
                    found.append(entry)
        # Repeated folder by folder: of a large tree, one call or another always fails.
        return sorted((e for e in found if PART not in e.path), key=lambda e: e.path.rstrip("/").encode())

    def _listed(self, path: str, whole: bool, fs: Any) -> Sequence[Entry]:  # noqa: FBT001 - of a partial
        return self.dialect.tree(fs, path) if whole else self.dialect.list_dir(fs, path)

    def page(
        self, prefix: str, *, delimiter: bool, after: str = "", limit: int = _PAGE, token: str = ""
    ) -> Listing:
        """Return a page of the keys that begin with `prefix`, in order.

        Args:
            prefix: Of keys.
            delimiter: Keys with a further slash count as folders.
            after: Only keys behind this one.
            limit: At most so many.
            token: That of the page before.
        """
        kept = self._pages.pop(token, None) if token else None
        if kept is None:
            if token:
                after = base64.urlsafe_b64decode(token.partition(".")[2]).decode()
            folder, _, begun = prefix.rpartition("/")
            entries = [
                (e.path.rstrip("/").removeprefix(self._root), e)
                for e in self.entries(folder, recursive=not delimiter)
            ]
            own = f"{folder}/{begun}" if folder else begun
            entries = [(k, e) for k, e in entries if k.startswith(own) and k > after]
            files = [e for _, e in entries if not e.is_dir]
            folders = [f"{k}/" for k, e in entries if e.is_dir]
        else:
            files, folders = kept
        limit = min(limit, _PAGE)
        if any(e.size is None for e in files[:limit]):
            limit = min(limit, _PAGE_WITHOUT_SIZES)
        page, rest = files[:limit], files[limit:]
        if any(e.size is None for e in page):
            with ThreadPoolExecutor(8, thread_name_prefix="vecdataset-size") as threads:
                page = list(threads.map(lambda e: self.head(e.path.removeprefix(self._root)), page))
        if not rest:
            return Listing(files=page, folders=folders, token=None)
        last = page[-1].path.removeprefix(self._root)
        told = base64.urlsafe_b64encode(last.encode()).decode()
        token = f"{threading.get_ident():x}{time.monotonic_ns():x}.{told}"
        self._pages[token] = rest, []
        while len(self._pages) > 32:
            with suppress(KeyError):
                self._pages.popitem(last=False)
        return Listing(files=page, folders=folders, token=token)

    # -- the filesystem

    def _call(self, kind: str, work: Callable[[Any], T], *, repeat: bool = True) -> T:
        self._count(kind, 1)
        return self.clones.call(work, repeat=repeat)

    def _count(self, kind: str, by: int) -> None:
        with self._lock:
            self.counts[kind] += by
