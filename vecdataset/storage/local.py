"""Local paths: bare, `~`, `file://`, `os.PathLike`; Lance reads and writes the folder itself."""

# ruff: noqa: D102 - the methods of `Files` are documented there

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from vecdataset.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StoragePermissionError,
    UnknownNameError,
    VecDatasetError,
)
from vecdataset.storage.location import Location
from vecdataset.storage.routes import FileInfo, Files, check_path, file_digest

__all__ = ["LocalFileSystem", "LocalFiles"]

_FSSPEC_DEFAULTS = frozenset(
    {"auto_mkdir", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"}
)

_PART: Final = ".vecdataset-part-"  # files that a crash left half written are no files


class LocalFileSystem:
    """The route of local folders."""

    name = "local"
    schemes = ("file", "local")
    classes = ("fsspec.implementations.local.LocalFileSystem",)
    capabilities = frozenset({"atomic-commit", "atomic-rename", "write"})

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """Return the absolute path of `url`, percent signs taken as they stand, as in fsspec."""
        del filesystem
        unknown = sorted(set(options) - _FSSPEC_DEFAULTS)
        if unknown:
            raise UnknownNameError(
                f"storage option {unknown[0]!r} is not known for local paths", hint="leave it out"
            )
        path = url
        for scheme in self.schemes:
            path = path.removeprefix(f"{scheme}://").removeprefix(f"{scheme}:")
        if not path.isprintable():  # Lance refuses control characters in a path
            raise InvalidInputError(f"{url!r} is not a path: it holds a control character")
        path = str(Path(path).expanduser())
        path = os.path.abspath(path)  # noqa: PTH100 - links stay links, only dots are resolved
        return Location(
            url=path,
            uri=path,
            filesystem=self.name,
            kind="local",
            remote=False,
            commit="atomic",
            reason="a local path, which Lance opens itself",
        )

    def files(self, location: Location) -> Files:
        """Return the files of the folder."""
        return LocalFiles(location)

    def check_reachable(self, location: Location) -> None:
        """Do nothing: a local disk answers at once."""

    def probe_commit(self, location: Location) -> bool:
        """Return True: Lance links a manifest into place only if none is there."""
        return location.commit == "atomic"

    def translate_error(self, error: BaseException, location: Location) -> VecDatasetError | None:
        """Name what the operating system refused, if it did."""
        text = str(error)
        if isinstance(error, PermissionError) or "Permission denied" in text or "Read-only file" in text:
            return StoragePermissionError(f"the operating system refuses access to {location.url!r}")
        if "No space left" in text:
            return StorageError(f"there is no space left at {location.url!r}")
        return None


class LocalFiles(Files):
    """The files of a local folder."""

    def list_dirs(self) -> list[str]:
        return [entry.name for entry in self._scan("") if entry.is_dir()]

    def list_files(self, *, recursive: bool = True) -> Iterator[FileInfo]:
        pending = [""]
        while pending:
            prefix = pending.pop()
            for entry in self._scan(prefix):
                if entry.is_dir():
                    if recursive and not entry.is_symlink():
                        pending.append(f"{prefix}{entry.name}/")
                else:
                    with suppress(FileNotFoundError):  # deleted while we list
                        yield FileInfo(path=prefix + entry.name, size=entry.stat().st_size)

    def _scan(self, prefix: str) -> list[os.DirEntry[str]]:
        folder = Path(self.location.uri, prefix)
        with (
            _errors(self.location),
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folder) as entries,
        ):
            found = [e for e in entries if not e.name.startswith(_PART)]
            return sorted(found, key=lambda entry: entry.name)
        return []

    def exists(self, path: str) -> bool:
        return self._path(path).is_file()

    def read(self, path: str) -> bytes:
        with _errors(self.location, path):
            return self._path(path).read_bytes()

    def digest(self, path: str) -> tuple[int, str]:
        with _errors(self.location, path):
            return file_digest(self._path(path))

    def write(self, path: str, data: bytes) -> None:
        with self._replacing(path) as part:
            part.write_bytes(data)

    def download(self, path: str, target: Path) -> None:
        with _errors(self.location, path):
            shutil.copyfile(self._path(path), target)

    def upload(self, source: Path, path: str) -> None:
        with self._replacing(path) as part:
            shutil.copyfile(source, part)

    def delete(self, paths: Iterable[str]) -> None:
        with _errors(self.location):
            for path in paths:
                self._path(path).unlink(missing_ok=True)

    def delete_tree(self) -> None:
        super().delete_tree()
        with _errors(self.location), suppress(FileNotFoundError):
            shutil.rmtree(self.location.uri)

    def copy_file(self, path: str, target: Files, spool: Path) -> None:
        del spool
        target.upload(self._path(path), path)

    def rename_tree(self, target: Location) -> None:
        if target.kind != "local":
            super().rename_tree(target)
            return
        new = Path(target.uri)
        if os.path.lexists(new):
            raise AlreadyExistsError(f"{target.url!r} exists already")
        with _errors(self.location):
            new.parent.mkdir(parents=True, exist_ok=True)
            try:
                Path(self.location.uri).rename(new)
            except OSError as error:
                if error.errno != errno.EXDEV:  # another disk
                    raise
                super().rename_tree(target)

    def _path(self, path: str) -> Path:
        return Path(self.location.uri, check_path(path))

    @contextmanager
    def _replacing(self, path: str) -> Iterator[Path]:
        final = self._path(path)
        part = final.with_name(f"{_PART}{uuid.uuid4().hex}")
        with _errors(self.location, path):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield part
                part.replace(final)
            finally:
                part.unlink(missing_ok=True)


@contextmanager
def _errors(location: Location, path: str = "") -> Iterator[None]:
    where = repr(str(Path(location.url, path)))
    try:
        yield
    except VecDatasetError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"nothing stands at {where}") from error
    except PermissionError as error:
        raise StoragePermissionError(f"the operating system refuses access to {where}") from error
    except OSError as error:
        raise StorageError(f"{where}: {error.strerror or error}") from error
