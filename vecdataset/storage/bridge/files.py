"""Files beneath a location on the bridge, read and written without the detour over loopback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from vecdataset.storage.bridge.failures import translated
from vecdataset.storage.bridge.sources import Source
from vecdataset.storage.bridge.store import Store
from vecdataset.storage.location import Location
from vecdataset.storage.routes import FileInfo, Files, check_path

__all__ = ["BridgedFiles"]


class BridgedFiles(Files):
    """The files beneath a key of a gateway's store, without the detour over loopback."""

    def __init__(self, location: Location, store: Store, source: Source, key: str) -> None:
        super().__init__(location)
        self._store = store
        self._source = source
        self._base = f"{key}/" if key else ""

    def list_dirs(self) -> list[str]:
        """See `Files`."""
        with self._errors():
            found = self._store.entries(self._base.rstrip("/"), recursive=False)
        return sorted(e.path.rstrip("/").rpartition("/")[2] for e in found if e.is_dir)

    def list_files(self, *, recursive: bool = True) -> Iterator[FileInfo]:
        """See `Files`."""
        with self._errors():
            found = self._store.entries(self._base.rstrip("/"), recursive=recursive)
        start = len(self._store.path(self._base))
        for entry in found:
            if not entry.is_dir:
                size = entry.size
                if size is None:
                    with self._errors():
                        size = self._store.head(entry.path.removeprefix(self._store.path(""))).size
                yield FileInfo(path=entry.path[start:], size=size or 0)

    def exists(self, path: str) -> bool:
        """See `Files`."""
        with self._errors(path):
            try:
                self._store.head(self._key(path))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return False
            return True

    def read(self, path: str) -> bytes:
        """See `Files`."""
        with self._errors(path):
            size = self._store.head(self._key(path)).size or 0
            return bytes(self._store.read(self._key(path), 0, size, size=size))

    def write(self, path: str, data: bytes) -> None:
        """See `Files`."""
        with self._errors(path):
            self._store.put(self._key(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """See `Files`."""
        with self._errors(path):
            try:
                self._store.create(self._key(path), data)
            except FileExistsError:
                return False
            return True

    def download(self, path: str, target: Path) -> None:
        """See `Files`."""
        with self._errors(path):
            self._store.download(self._key(path), target)

    def upload(self, source: Path, path: str) -> None:
        """See `Files`."""
        with self._errors(path):
            self._store.upload(self._key(path), source)

    def delete(self, paths: Iterable[str]) -> None:
        """See `Files`."""
        with self._errors():
            self._store.delete([self._key(p) for p in paths])

    def delete_tree(self) -> None:
        """See `Files`; folders go too."""
        super().delete_tree()
        with self._errors():
            self._store.delete_tree(self._base.rstrip("/"))

    def _key(self, path: str) -> str:
        return f"{self._base}{check_path(path)}"

    def _errors(self, path: str = "") -> AbstractContextManager[None]:
        return translated(self._source, f"{self.location.url}/{path}" if path else self.location.url)
