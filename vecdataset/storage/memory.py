"""`memory://` and `shared-memory://`: collections that live as long as this process.

Lance's own `memory://` is a fresh, empty store at every opening; `shared-memory://` is
found again by its URL from every handle and thread (measured with pylance 14.0.2), so
both schemes lead there. Only Lance sees those files: its file sessions are handed in by
the module that owns Lance, through `register_lance_files`.

fsspec's `MemoryFileSystem` is another store; an object of that class is not taken here.
"""

# ruff: noqa: D102 - the methods of `Files` are documented there

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from vecdataset.errors import (
    InvalidInputError,
    NotFoundError,
    NotSupportedError,
    UnknownNameError,
    VecDatasetError,
)
from vecdataset.storage.location import Location, escape_memory, unescape_memory
from vecdataset.storage.routes import FileInfo, Files, check_path

__all__ = ["LanceFiles", "SharedMemoryFileSystem", "register_lance_files"]

_ALL: Final = 2**62  # read_range clips to the size of the file


class LanceSession(Protocol):
    """What is used of `lance.file.LanceFileSession`, whose paths are relative to its base."""

    def list(self, path: str | None = None) -> list[str]: ...
    def list_with_delimiter(self, path: str | None = None) -> Any: ...
    def contains(self, path: str) -> bool: ...
    def upload_file(self, local_path: str, remote_path: str) -> None: ...
    def delete_file(self, path: str) -> None: ...
    def read_range(self, path: str, offset: int, length: int) -> bytes: ...


_session: list[Callable[[str], LanceSession]] = []


def register_lance_files(session: Callable[[str], LanceSession]) -> None:
    """Say how to open Lance's file session at a URI; `LanceFileSession` itself fits."""
    _session[:] = [session]


class SharedMemoryFileSystem:
    """The route of stores in this process's memory."""

    name = "memory"
    schemes = ("memory", "shared-memory")
    classes = ()
    capabilities = frozenset({"atomic-commit", "write"})

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """Return the place of `memory://a/b`; as in fsspec, `memory:///a/b` is the same."""
        del filesystem
        if options:
            raise UnknownNameError(
                f"storage option {min(options)!r} is not known for memory", hint="leave it out"
            )
        scheme, _, path = url.partition("://")
        segments = path.strip("/").split("/")
        if any(s in {"", ".", ".."} or not s.isprintable() for s in segments):
            raise InvalidInputError(f"{url!r} names no place in memory", hint="write memory://name")
        encode = escape_memory if scheme == "memory" else _verbatim
        return Location(
            url=f"{scheme}://{'/'.join(segments)}",
            uri=f"shared-memory://{'/'.join(encode(s) for s in segments)}",
            filesystem=self.name,
            kind="shared-memory",
            remote=False,
            commit="atomic",
            reason="Lance's store in the memory of this process",
        )

    def files(self, location: Location) -> Files:
        """Return the files as Lance sees them."""
        return LanceFiles(location)

    def check_reachable(self, location: Location) -> None:
        """Do nothing: memory answers at once."""

    def probe_commit(self, location: Location) -> bool:
        """Return True: the store puts a manifest only if none is there."""
        return location.commit == "atomic"

    def translate_error(self, error: BaseException, location: Location) -> VecDatasetError | None:
        """Return None: memory refuses nothing."""
        del error, location
        return None


def _verbatim(segment: str) -> str:
    if escape_memory(segment) != segment:
        raise NotSupportedError(
            f"{segment!r} holds a character that Lance encodes in shared-memory URLs",
            hint="use letters, digits, '.', '_' and '-', or a memory:// URL",
        )
    return segment


class LanceFiles(Files):
    """Files seen through a file session of Lance.

    A listing has no sizes, so that each file is read for its own; memory is quick at that.
    """

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        if not _session:
            raise RuntimeError("no module has called register_lance_files")
        self._session = _session[0](location.uri)

    def list_dirs(self) -> list[str]:
        return sorted(unescape_memory(p) for p in self._session.list_with_delimiter().common_prefixes)

    def list_files(self, *, recursive: bool = True) -> Iterator[FileInfo]:
        paths = self._session.list() if recursive else self._session.list_with_delimiter().objects
        for path in sorted(paths):
            yield FileInfo(path=path, size=len(self.read(path)))

    def is_empty(self) -> bool:
        return not self._session.list()

    def exists(self, path: str) -> bool:
        return self._session.contains(check_path(path))

    def read(self, path: str) -> bytes:
        try:
            return self._session.read_range(check_path(path), 0, _ALL)
        except OSError as error:
            if self._session.contains(path):
                return b""  # Lance has no range to read in an empty file
            raise NotFoundError(f"nothing stands at {self.location.url + '/' + path!r}") from error

    def write(self, path: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(prefix="vecdataset-") as spool:
            spool.write(data)
            spool.flush()
            self.upload(Path(spool.name), path)

    def download(self, path: str, target: Path) -> None:
        target.write_bytes(self.read(path))

    def upload(self, source: Path, path: str) -> None:
        self._session.upload_file(str(source), check_path(path))

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._session.delete_file(check_path(path))
