"""What was committed, by whom, and the SHA-256 of every file it brought.

Lance keeps no checksums. The process that commits writes down the digests of its new files right
after the commit, while they are still in memory as they were written; a snapshot is sealed only if
its files are still what was written down. So a file that rots between its commit and a seal is
named, instead of being certified as it is.

The ledger stands beside the data in `_records/`, one line an entry: 16 hexadecimal digits of the
SHA-256 of what follows, a blank, and JSON. On local disks all entries are lines of one log, appended
by one write each, so that processes never tear each other's. Elsewhere each entry is a file of its
own. A line that does not hold its digest is passed over, and its files count as never recorded.

Entries are notes about commits and never part of one: that a note could not be written is
logged, and the commit stands.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from vecdataset import storage
from vecdataset.errors import NotFoundError, VecDatasetError
from vecdataset.storage import Location

__all__ = [
    "FOLDER",
    "Digest",
    "Entry",
    "Ledger",
    "carry",
    "noted",
    "read_ledger",
    "record",
    "settle",
    "tool",
    "trim",
]

FOLDER: Final = "_records"
LOG: Final = "log"
AT_ONCE_BYTES: Final = 4 << 20
"""New files up to this size are hashed before the commit returns (3 ms); larger ones behind it."""

FOLD_AT: Final = 64
"""So many files of single entries, on stores without appends, become one at the next clean-up."""

logging.getLogger("vecdataset").addHandler(logging.NullHandler())  # whoever wants to hear adds another
_log = logging.getLogger(__name__)
_note: ContextVar[str | None] = ContextVar("note", default=None)

Digest = tuple[int, str]
"""Size and SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One commit."""

    version: int
    at: str
    """UTC, ISO 8601."""
    action: str
    """What this library did: `upsert`, `delete`, `compact` …"""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    tool: str
    """The library, its version, and the program that used it."""
    user: str
    """The name at the operating system."""
    note: str | None = None
    files: Sequence[tuple[str, int, str]] = ()
    """Path, size and SHA-256 of each file that came with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All entries of a collection."""

    entries: Sequence[Entry]
    """In the order written."""
    damaged: int
    """Lines that do not hold their digest."""

    @property
    def digests(self) -> Mapping[str, Digest]:
        """Return the digests of files: the earliest, for later ones may be of what became of a file.

        A Lance manifest is the exception: its name comes again once `repair` has put a torn one aside.
        """
        found: dict[str, Digest] = {}
        for entry in self.entries:
            for path, size, sha256 in entry.files:
                if path not in found or path.startswith("_versions/"):
                    found[path] = (size, sha256)
        return found


_FIELDS: Final = tuple(f.name for f in fields(Entry))


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Keep `note` with every commit of this thread until the block ends."""
    token = _note.set(note)
    try:
        yield
    finally:
        _note.reset(token)


# ------------------------------------------------------------------------- writing


class _Behind:
    """Work that goes on after its commit was acknowledged, by location."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: ThreadPoolExecutor | None = None
        self.pending: dict[str, list[Future[None]]] = {}

    def begin(self, uri: str, work: Callable[[], None]) -> None:
        with self.lock:
            self.pool = self.pool or ThreadPoolExecutor(1, thread_name_prefix="vecdataset-digests")
            running = [f for f in self.pending.get(uri, ()) if not f.done()]
            self.pending[uri] = [*running, self.pool.submit(work)]

    def end(self, uri: str) -> None:
        with self.lock:
            running = self.pending.pop(uri, [])
        wait(running)


_behind = _Behind()
if hasattr(os, "register_at_fork"):
    # A child has none of the threads, and would wait for their work for ever.
    os.register_at_fork(after_in_child=lambda: globals().update(_behind=_Behind()))


def record(
    location: Location,
    *,
    version: int,
    action: str,
    paths: Callable[[], Sequence[str]],
    counts: Mapping[str, int] | None = None,
) -> None:
    """Write down one commit; never raises.

    Args:
        location: The collection.
        version: What the commit made.
        action: What was done.
        paths: Names the files that came with it; asked on local disks alone, for elsewhere every
            digest would be a download.
        counts: `inserted`, `updated`, `deleted` points.

    The interpreter waits at its end for digests that are still under way.
    """
    given: Mapping[str, Any] = counts or {}
    entry = _entry(version, action, note=_note.get(), **given)
    with _forgiven(location):
        if location.kind != "local":
            _append(location, entry, ())
            return
        new = paths()
        if sum(_size(location, p) for p in new) <= AT_ONCE_BYTES:
            _append(location, entry, new)
        else:
            # The log is made now: what is written behind must not bring back a collection that was removed.
            storage.files(location).append(f"{FOLDER}/{LOG}", b"")
            _behind.begin(location.uri, lambda: _append_behind(location, entry, new))


def _entry(version: int, action: str, **more: Any) -> Entry:
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return Entry(version=version, at=at, action=action, tool=tool(), user=_user(), **more)


def _append_behind(location: Location, entry: Entry, paths: Sequence[str]) -> None:
    with _forgiven(location), suppress(NotFoundError):
        _append(location, entry, paths, create=False)


@contextmanager
def _forgiven(location: Location) -> Iterator[None]:
    try:
        yield
    except (VecDatasetError, OSError, RuntimeError) as error:
        _log.warning("a commit to %s is not in its ledger: %s", location.url, error)


def _append(location: Location, entry: Entry, paths: Sequence[str], *, create: bool = True) -> None:
    files = storage.files(location)
    sealed: list[tuple[str, int, str]] = []
    for path in paths:
        with suppress(NotFoundError):  # a later commit may have replaced and removed it
            sealed.append((path, *files.digest(path)))
    _write(location, entry.version, _line(replace(entry, files=sealed)), create=create)


def _write(location: Location, version: int, lines: bytes, *, create: bool = True) -> None:
    files = storage.files(location)
    if location.kind == "local":
        files.append(f"{FOLDER}/{LOG}", lines, create=create)
    else:
        files.write(f"{FOLDER}/{version:020d}-{uuid.uuid4().hex}", lines)


def _line(entry: Entry) -> bytes:
    body = {k: v for k in _FIELDS if (v := getattr(entry, k))} | {"files": entry.files}
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return f"{_sum(text)} {text}\n".encode()


def carry(
    source: Location, target: Location, *, versions: Sequence[int], digests: Mapping[str, Digest]
) -> None:
    """Put on record at a copy what the source has on record of some versions; never raises.

    Args:
        source: Where the versions came from.
        target: Where they are now.
        versions: Which.
        digests: Of files that came: where records are kept by file, those that no entry names go in too.
    """
    with _forgiven(target):
        settle(source)
        wanted = set(versions)
        # What was folded carries the number of the newest version in it.
        names = [n for n in _names(source) if n.endswith(LOG) or _number(n) >= min(versions)]
        lines = [
            line for line in _lines(source, names) if (e := _parsed(line)) is not None and e.version in wanted
        ]
        if target.kind == "local":
            named = {path for line in lines if (e := _parsed(line)) is not None for path, _, _ in e.files}
            files = [(path, *digest) for path, digest in sorted(digests.items()) if path not in named]
            # In front: of two entries of a version the later one says what was done.
            lines.insert(0, _line(_entry(max(versions), "checkout", files=files)).rstrip(b"\n"))
        if lines:
            _write(target, max(versions), b"\n".join([*lines, b""]))


def _number(name: str) -> int:
    text = name.rpartition("/")[2].partition("-")[0]
    return int(text) if text.isdigit() else 0


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _size(location: Location, path: str) -> int:
    try:
        return os.stat(f"{location.uri}{os.sep}{path}").st_size  # noqa: PTH116 - for each file of each commit
    except OSError:
        return 0


@cache
def tool() -> str:
    """Return the library, its version, and the program that uses it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("vecdataset")
    except PackageNotFoundError:
        number = "?"
    program = Path(sys.argv[0] if sys.argv else "").name
    return f"vecdataset {number}" + (f" ({program})" if program and not program.startswith("-") else "")


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


# ------------------------------------------------------------------------- reading


def settle(location: Location) -> None:
    """Wait for the digests of this process's commits."""
    _behind.end(location.uri)


def read_ledger(location: Location) -> Ledger:
    """Return what is on record; what cannot be read counts as not recorded."""
    settle(location)
    entries: list[Entry] = []
    damaged = 0
    for line in _lines(location, _names(location)):
        entry = _parsed(line)
        if entry is None:
            damaged += 1
        else:
            entries.append(entry)
    return Ledger(entries=entries, damaged=damaged)


def _names(location: Location) -> list[str]:
    if location.kind == "local":
        return [f"{FOLDER}/{LOG}"]
    there = storage.files(location.child(FOLDER)).list_files(recursive=False)
    return sorted(f"{FOLDER}/{f.path}" for f in there)


def _lines(location: Location, names: Sequence[str]) -> Iterable[bytes]:
    """Return the lines of all files, each once: an interrupted `trim` leaves some twice."""
    with ThreadPoolExecutor(16) as pool:  # each file is a request, where there are many
        texts = list(pool.map(lambda name: _read(location, name), names))
    return dict.fromkeys(line for text in texts for line in text.splitlines())


def _read(location: Location, name: str) -> bytes:
    try:
        return storage.files(location).read(name)
    except VecDatasetError:
        return b""


def _parsed(line: bytes) -> Entry | None:
    try:
        total, _, text = line.decode().partition(" ")
        if total != _sum(text):
            return None
        body: dict[str, Any] = json.loads(text)
        body["files"] = [(str(p), int(s), str(d)) for p, s, d in body["files"]]
        return Entry(**{"tool": "", "user": "", **body})
    except (ValueError, TypeError, KeyError):
        return None


def trim(location: Location, versions: Sequence[int]) -> None:
    """Drop entries of versions that are gone, unless one of their files is still there; never raises.

    Args:
        location: The collection.
        versions: Those that are left.
    """
    with _forgiven(location):
        files = storage.files(location)
        kept = set(versions)
        if location.kind != "local":
            names = _names(location)
            lines = list(_lines(location, names))
            young = [line for line in lines if (e := _parsed(line)) is not None and e.version in kept]
            if len(young) < len(lines) or len(names) > FOLD_AT:
                files.write(f"{FOLDER}/{max(kept):020d}-{uuid.uuid4().hex}", b"\n".join([*young, b""]))
                files.delete(names)
            return

        def still_needed(text: bytes) -> bytes:
            out = []
            for line in text.splitlines(keepends=True):
                entry = _parsed(line.rstrip(b"\n"))
                if entry is not None and (
                    entry.version in kept or any(files.exists(path) for path, _, _ in entry.files)
                ):
                    out.append(line)
            return b"".join(out)

        files.append(f"{FOLDER}/{LOG}", b"", rewrite=still_needed)
