"""Files of a store that is reached through an fsspec filesystem."""

# ruff: noqa: D102 - the methods of `Files` are documented there

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vecdataset.errors import (
    NotFoundError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    VecDatasetError,
)
from vecdataset.storage.location import Location
from vecdataset.storage.routes import FileInfo, Files, check_path

__all__ = ["FsspecFiles"]

_BATCH: Final = 1000
"""Objects that one S3 request can delete."""

_UNREACHABLE: Final = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyConnectionError",
)
"""botocore's errors of the wire, by name: they share no base class with the built-in ones."""


class FsspecFiles(Files):
    """The files beneath `root` on `filesystem`, whose listing cache must be off."""

    def __init__(self, location: Location, filesystem: Any, root: str) -> None:
        super().__init__(location)
        self._fs = filesystem
        self._root = root.rstrip("/")

    def list_dirs(self) -> list[str]:
        return sorted(_name(e["name"]) for e in self._list() if e["type"] == "directory")

    def list_files(self, *, recursive: bool = True) -> Iterator[FileInfo]:
        if recursive:
            with self._errors():
                found = self._fs.find(self._root, detail=True).values()
        else:
            found = self._list()
        for entry in found:
            path = entry["name"][len(self._root) + 1 :]
            if entry["type"] == "file" and path:
                yield FileInfo(path=path, size=entry["size"])

    def _list(self) -> list[dict[str, Any]]:
        with self._errors():
            try:
                listed: list[dict[str, Any]] = self._fs.ls(self._root, detail=True)
            except FileNotFoundError as error:
                if _lacks_bucket(error):
                    raise
                return []
        # An object store lists an object of the very name beside the folder.
        return [e for e in listed if e["name"].rstrip("/") != self._root]

    def exists(self, path: str) -> bool:
        with self._errors(path):
            return bool(self._fs.isfile(self._path(path)))

    def read(self, path: str) -> bytes:
        with self._errors(path):
            data: bytes = self._fs.cat_file(self._path(path))
            return data

    def write(self, path: str, data: bytes) -> None:
        with self._errors(path):
            self._fs.pipe_file(self._path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        with self._errors(path):
            try:
                self._fs.pipe_file(self._path(path), data, mode="create")
            except FileExistsError:
                return False
            return True

    def download(self, path: str, target: Path) -> None:
        with self._errors(path):
            self._fs.get_file(self._path(path), str(target))

    def upload(self, source: Path, path: str) -> None:
        with self._errors(path):
            self._fs.put_file(str(source), self._path(path))

    def copy_file(self, path: str, target: Files, spool: Path) -> None:
        if isinstance(target, FsspecFiles) and target._fs is self._fs:  # noqa: SLF001 - of this class
            with self._errors(path):
                self._fs.cp_file(self._path(path), target._path(path))  # noqa: SLF001 - of this class
        else:
            super().copy_file(path, target, spool)

    def delete(self, paths: Iterable[str]) -> None:
        full = [self._path(path) for path in paths]
        for start in range(0, len(full), _BATCH):
            with self._errors(), _ignoring_absence():
                self._fs.rm(full[start : start + _BATCH])

    def _path(self, path: str) -> str:
        return f"{self._root}/{check_path(path)}"

    @contextmanager
    def _errors(self, path: str = "") -> Iterator[None]:
        where = f"{self.location.url}/{path}" if path else self.location.url
        try:
            yield
        except VecDatasetError:
            raise
        except FileNotFoundError as error:
            if _lacks_bucket(error):
                raise StorageError(
                    f"the bucket of {self.location.url!r} does not exist", hint="create it first"
                ) from error
            raise NotFoundError(f"nothing stands at {where!r}") from error
        except PermissionError as error:
            raise StoragePermissionError(f"the store refuses access to {where!r}") from error
        except (ConnectionError, TimeoutError) as error:
            raise StorageUnreachableError(
                f"the store of {where!r} does not answer", hint="check the endpoint and the network"
            ) from error
        except Exception as error:
            if type(error).__name__ in _UNREACHABLE:
                raise StorageUnreachableError(
                    f"the store of {where!r} does not answer", hint="check the endpoint and the network"
                ) from error
            raise StorageError(f"the store of {where!r} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _ignoring_absence() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return


def _lacks_bucket(error: BaseException) -> bool:
    """Tell a missing bucket from a missing file, where the cause is botocore's or Azure's error."""
    response = getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code == "NoSuchBucket" or getattr(error.__cause__, "error_code", None) == "ContainerNotFound"


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
