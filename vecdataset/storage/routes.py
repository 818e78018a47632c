"""The routes to a store: what one must offer, which there are, and the files behind them.

`FileSystem` is the contract of a route, a plugin of the entry-point group
`vecdataset.filesystems`; `Files` is what it shows of the files beneath a location.
`files`, `check_reachable`, `probe_commit` and `translate_storage_error` go to the route
that made a location. Rows and versions are not seen here: they are Lance's.
"""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from vecdataset.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotSupportedError,
    ReadOnlyError,
    StorageError,
    VecDatasetError,
)
from vecdataset.registry import Registry
from vecdataset.storage.location import Location

__all__ = [
    "FileInfo",
    "FileSystem",
    "Files",
    "check_path",
    "check_reachable",
    "file_digest",
    "files",
    "filesystems",
    "probe_commit",
    "require_writable",
    "translate_storage_error",
]


class FileSystem(Protocol):
    """One route: from a URL and fsspec's options to a `Location`, and what stands there."""

    name: str
    """Its name in the registry, and in `Location.filesystem`."""

    schemes: tuple[str, ...]
    """URL schemes that take this route."""

    classes: tuple[str, ...]
    """Qualified names of fsspec classes whose objects this route stands in for, exactly."""

    capabilities: frozenset[str]
    """Facts: `write`, `remote`, `atomic-commit`, `atomic-rename`."""

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """Return where `url` leads.

        Args:
            url: With its scheme; a local path may come without.
            filesystem: An fsspec object of one of `classes`; its own options are in `options`.
            options: What the user gave. Each is used, or refused by name.
        """
        ...

    def files(self, location: Location) -> Files:
        """Return the files beneath a location of this route."""
        ...

    def check_reachable(self, location: Location) -> None:
        """Raise `StorageUnreachableError` within seconds if the store does not answer."""
        ...

    def probe_commit(self, location: Location) -> bool:
        """Tell by trying whether the store lets one of two writers of a new file win."""
        ...

    def translate_error(self, error: BaseException, location: Location) -> VecDatasetError | None:
        """Return what an error of Lance means for this store; None when it is not the store's."""
        ...


filesystems: Final[Registry[FileSystem]] = Registry(
    "filesystems",
    {
        "local": "vecdataset.storage.local:LocalFileSystem",
        "memory": "vecdataset.storage.memory:SharedMemoryFileSystem",
        "s3": "vecdataset.storage.s3:S3FileSystem",
        "bridge": "vecdataset.storage.bridge:BridgeFileSystem",
        "gs": "vecdataset.storage.clouds:GoogleFileSystem",
        "az": "vecdataset.storage.clouds:AzureFileSystem",
        "hf": "vecdataset.storage.clouds:HubFileSystem",
    },
    aliases={
        "file": "local",
        "shared-memory": "memory",
        "s3a": "s3",
        "gcs": "gs",
        "abfs": "az",
        "abfss": "az",
    },
    protocol=FileSystem,
)
"""Every route, by name."""


def files(location: Location) -> Files:
    """Return the files beneath a location."""
    return filesystems.get(location.filesystem).files(location)


def check_reachable(location: Location) -> None:
    """Return at once when the store answers.

    Raises:
        StorageUnreachableError: It does not, within seconds. Lance by itself would try for longer
            and then report its own internals.
    """
    filesystems.get(location.filesystem).check_reachable(location)


def probe_commit(location: Location) -> bool:
    """Return True when concurrent writers cannot overwrite each other's commits.

    To be asked before the first write, never when reading. Costs nothing unless
    `location.commit` is `unknown`; then a few requests, once per store.

    Raises:
        StorageError: The store lets both of two writers win.
    """
    if location.commit != "unknown" or filesystems.get(location.filesystem).probe_commit(location):
        return True
    raise StorageError(
        f"the store of {location.url!r} ignores the condition 'only if absent' on writes: "
        "of two writers committing at once, both would be told that they won, and one would lose its rows",
        hint="pass storage_options={'single_writer': True} if one process at a time writes here",
    )


def require_writable(location: Location) -> None:
    """Return when this process may write here, beside whoever else does.

    To be asked before a write, never when reading. Costs nothing where commits are atomic.

    Raises:
        ReadOnlyError: Nothing can be written here, or another process writes and the store
            cannot keep two apart.
        StorageError: The store lets both of two writers win, and nobody said that there is one.
    """
    if location.commit == "read-only":
        raise ReadOnlyError(f"{location.url} cannot be written to", hint=location.reason)
    probe_commit(location)
    if location.commit == "single-process":
        from vecdataset.storage.lease import hold

        hold(location)


def translate_storage_error(error: BaseException, location: Location) -> VecDatasetError | None:
    """Return what an error raised by Lance means, in one sentence; None when it is not the store's."""
    return filesystems.get(location.filesystem).translate_error(error, location)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One file of a listing."""

    path: str
    """Relative to the location."""

    size: int
    """Bytes."""


class Files(ABC):
    """The files beneath one location.

    A location without files is empty, never an error: object stores have no folders.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location.url}>"

    @abstractmethod
    def list_dirs(self) -> list[str]:
        """Return the names of the folders directly beneath the location, sorted."""

    @abstractmethod
    def list_files(self, *, recursive: bool = True) -> Iterator[FileInfo]:
        """Yield the files beneath the location; not recursive: those directly beneath it."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether a file stands at `path`."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write one file, whole or not at all, replacing the one that is there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write one file only if none is there, as far as the store can; tell whether it was written."""
        del data
        raise NotSupportedError(f"{self.location.url!r} stands in a store without exclusive writes: {path!r}")

    def append(
        self,
        path: str,
        data: bytes,
        *,
        create: bool = True,
        rewrite: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Add bytes to the end of a file, in one piece among other processes.

        Args:
            path: The file; its location must be there.
            data: What to add.
            create: Whether the file is made if need be.
            rewrite: First replace what the file holds by what this returns; nobody appends meanwhile.
        """
        del data, create, rewrite
        raise NotSupportedError(f"{self.location.url!r} stands in a store without appends: {path!r}")

    def sync(self, paths: Iterable[str]) -> None:  # noqa: B027 - nothing to do is an answer
        """Return once these files are where a power failure leaves them; a store does that by itself."""

    @abstractmethod
    def download(self, path: str, target: Path) -> None:
        """Copy one file to the local path `target`, whatever its size."""

    @abstractmethod
    def upload(self, source: Path, path: str) -> None:
        """Copy the local file `source` to `path`, whatever its size."""

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Delete files; one that is not there is no error."""

    def digest(self, path: str) -> tuple[int, str]:
        """Return size and SHA-256, in hexadecimal, of one file, whatever its size.

        Raises:
            NotFoundError: There is none.
        """
        with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:
            spool = Path(folder) / "file"
            self.download(path, spool)
            return file_digest(spool)

    def sweep(self, older_than: timedelta) -> int:
        """Remove what crashed writers left half written, if the store can have such; return the bytes."""
        del older_than
        return 0

    def copy_verified(self, path: str, target: Files, spool: Path) -> tuple[int, str]:
        """Copy one file as `copy_file` does; return size and SHA-256 of what then stands at the target.

        Raises:
            NotFoundError: There is none.
        """
        self.copy_file(path, target, spool)
        return target.digest(path)

    def leads_outside(self, path: str) -> bool:
        """Tell whether a symbolic link on the way to `path` leads out of the location."""
        del path
        return False

    def is_empty(self) -> bool:
        """Tell whether there is no file beneath the location."""
        return next(iter(self.list_files()), None) is None

    def delete_tree(self) -> None:
        """Delete every file beneath the location.

        Versions go first: a reader sees a collection that is gone, never one with holes.
        """
        paths = sorted((f.path for f in self.list_files()), key=_versions_last, reverse=True)
        self.delete(paths)

    def copy_tree(self, target: Location) -> int:
        """Copy every file to `target`, of any route, which must be empty; return their number.

        Versions go last: the copy is not seen before it is whole.

        Raises:
            AlreadyExistsError: Something stands there.
        """
        there = files(target)
        there.require_empty()
        paths = sorted((f.path for f in self.list_files()), key=_versions_last)
        with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:
            spool = Path(folder) / "file"
            for path in paths:
                self.copy_file(path, there, spool)
        return len(paths)

    def copy_file(self, path: str, target: Files, spool: Path) -> None:
        """Copy one file to the same path of `target`, through the local file `spool` if need be."""
        self.download(path, spool)
        target.upload(spool, path)

    def rename_tree(self, target: Location) -> None:
        """Move every file to `target`, which must be empty.

        Atomic on local disks; elsewhere all is copied, then deleted.

        Raises:
            AlreadyExistsError: Something stands there.
        """
        self.copy_tree(target)
        self.delete_tree()

    def require_empty(self) -> None:
        """Raise `AlreadyExistsError` if a file stands beneath the location."""
        if not self.is_empty():
            raise AlreadyExistsError(f"{self.location.url!r} is not empty")


def file_digest(path: Path | str) -> tuple[int, str]:
    """Return size and SHA-256 of a local file."""
    # `hashlib.file_digest` fills a quarter of a megabyte with zeros first: most of the time of a small file.
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much as the file
        head = file.read(_SMALL)
        digest = hashlib.sha256(head)
        if len(head) < _SMALL:
            return len(head), digest.hexdigest()
        digest = hashlib.file_digest(file, lambda: digest)
        return file.tell(), digest.hexdigest()


def check_path(path: str) -> str:
    """Return `path` if it is relative and stays beneath its location."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\\" in path or "\0" in path:
        raise InvalidInputError(f"{path!r} is not a path of a file beneath a collection")
    return path


_SMALL: Final = 1 << 16


def _versions_last(path: str) -> tuple[bool, str]:
    return "_versions" in PurePosixPath(path).parts, path
