"""Local paths: bare, `~`, `file://`, `os.PathLike`; Lance reads and writes the folder itself."""

# ruff: noqa: D102 - the methods of `Files` are documented there

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy looks at the systems that have it

__all__ = ["LocalFileSystem", "LocalFiles"]

_FSSPEC_DEFAULTS = frozenset(
    {"auto_mkdir", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"}
)

PART: Final = ".vecdataset-part-"  # files that a crash left half written are no files


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
            found = [e for e in entries if not e.name.startswith(PART)]
            return sorted(found, key=lambda entry: entry.name)
        return []

    def exists(self, path: str) -> bool:
        return self._path(path).is_file()

    def read(self, path: str) -> bytes:
        with _errors(self.location, path):
            return self._path(path).read_bytes()

    def digest(self, path: str) -> tuple[int, str]:
        with _errors(self.location, path):
            return file_digest(f"{self.location.uri}{os.sep}{check_path(path)}")

    def write(self, path: str, data: bytes) -> None:
        with self._replacing(path) as part:
            part.write_bytes(data)

    def create(self, path: str, data: bytes) -> bool:
        final = self._path(path)
        part = final.with_name(f"{PART}{uuid.uuid4().hex}")
        with _errors(self.location, path):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(data)
                final.hardlink_to(part)  # as Lance does: a name appears with its content, or not at all
            except FileExistsError:
                return False
            finally:
                part.unlink(missing_ok=True)
            return True

    def append(
        self,
        path: str,
        data: bytes,
        *,
        create: bool = True,
        rewrite: Callable[[bytes], bytes] | None = None,
    ) -> None:
        final = self._path(path)
        with _errors(self.location, path):
            if create and not final.parent.is_dir():
                final.parent.mkdir(exist_ok=True)  # not its parents: a collection that is gone stays gone
            with _locked(final.parent, alone=rewrite is not None):
                if rewrite is not None and final.exists():
                    part = final.with_name(f"{PART}{uuid.uuid4().hex}")
                    part.write_bytes(rewrite(final.read_bytes()))
                    part.replace(final)
                made = os.O_CREAT if create else 0
                log = os.open(final, os.O_WRONLY | os.O_APPEND | made, 0o666)
                try:
                    os.write(log, data)
                finally:
                    os.close(log)

    def sync(self, paths: Iterable[str]) -> None:
        # A file's name lives in its folder, and a folder's in the one above.
        root = Path(self.location.uri)
        found = [self._path(path) for path in paths]
        folders = {p for f in found for p in f.parents if p == root or root in p.parents}
        with _errors(self.location):
            for path in [*found, *sorted(folders, reverse=True), root.parent]:
                _fsync(path)

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

    def sweep(self, older_than: timedelta) -> int:
        limit, freed = time.time() - older_than.total_seconds(), 0
        with _errors(self.location):
            for folder, _, names in os.walk(self.location.uri):
                for name in names:
                    if not name.startswith((PART, ".tmp")):  # ours, and Lance's
                        continue
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        found = path.stat()
                        if found.st_mtime <= limit:
                            path.unlink()
                            freed += found.st_size
        return freed

    def copy_verified(self, path: str, target: Files, spool: Path) -> tuple[int, str]:
        if not isinstance(target, LocalFiles):
            return super().copy_verified(path, target, spool)
        with _errors(self.location, path), target._replacing(path) as part:  # noqa: SLF001 - of this class
            return _copied_and_hashed(self._path(path), part)

    def leads_outside(self, path: str) -> bool:
        root = os.path.realpath(self.location.uri)
        return not os.path.realpath(self._path(path)).startswith(root + os.sep)

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
        part = final.with_name(f"{PART}{uuid.uuid4().hex}")
        with _errors(self.location, path):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield part
                part.replace(final)
            finally:
                part.unlink(missing_ok=True)


def _copied_and_hashed(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file in one thread, and hash in this one what stands at the target so far.

    On two free cores this takes as long as hashing alone. What was written is read into a small buffer:
    mapped pages that another thread is just writing behind cost a third more.
    """
    written: SimpleQueue[int | BaseException] = SimpleQueue()

    def copy(read: int, write: int) -> None:
        try:
            while (moved := _moved(read, write)) > 0:
                written.put(moved)
            written.put(0)
        except BaseException as error:  # noqa: BLE001 - raised by the one who waits
            written.put(error)

    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_HASHED_BYTES))
    with ExitStack() as closing:
        inside = closing.enter_context(source.open("rb", buffering=0))
        outside = closing.enter_context(target.open("wb", buffering=0))
        back = closing.enter_context(target.open("rb", buffering=0))
        if os.fstat(inside.fileno()).st_size <= _MOVED_BYTES:
            copy(inside.fileno(), outside.fileno())  # a thread would take longer to begin
        else:
            copier = threading.Thread(target=copy, args=(inside.fileno(), outside.fileno()))
            copier.start()
            closing.callback(copier.join)
        while (moved := written.get()) != 0:
            if isinstance(moved, BaseException):
                raise moved
            end = size + moved
            while size < end:
                got = back.readinto(buffer[: end - size])
                if not got:
                    return size, digest.hexdigest()  # cut short by somebody: no digest that is expected
                digest.update(buffer[:got])
                size += got
    return size, digest.hexdigest()


def _moved(read: int, write: int) -> int:
    """Copy some bytes from where one file stands to where the other does; return how many, 0 at the end."""
    global _in_kernel  # noqa: PLW0603 - what the system offers is found out once
    if _in_kernel:
        try:
            return os.copy_file_range(read, write, _MOVED_BYTES)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
                raise
            _in_kernel = False
    data = os.read(read, _READ_BYTES)
    done = 0
    while done < len(data):
        done += os.write(write, data[done:])
    return done


_READ_BYTES: Final = 1 << 20
_MOVED_BYTES: Final = 1 << 20
_HASHED_BYTES: Final = 1 << 18
"""What is read back at once: it stays in the cache of the core that hashes it."""
_in_kernel = hasattr(os, "copy_file_range")


def _fsync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # replaced by a later commit, and removed
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the folder's lock, shared or alone, where the system has such locks."""
    if fcntl is None:
        yield  # type: ignore[unreachable]  # as above
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def _errors(location: Location, path: str = "") -> Iterator[None]:
    try:
        yield
    except VecDatasetError:
        raise
    except OSError as error:
        where = repr(str(Path(location.url, path)))
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFoundError(f"nothing stands at {where}") from error
        if isinstance(error, PermissionError):
            raise StoragePermissionError(f"the operating system refuses access to {where}") from error
        raise StorageError(f"{where}: {error.strerror or error}") from error
