"""Where files of points are read from and written to: paths, URLs, open files, standard streams.

A source is peeked at before anything is decided, and decompressed when its first bytes say
gzip. A target appears under its name only when it is complete: local files are written under
a temporary name and renamed, files on other stores are uploaded from a local one.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast

from vecdataset.errors import InvalidInputError, MissingDependencyError, NotFoundError, StorageError
from vecdataset.storage.location import redact
from vecdataset.storage.routes import check_path

__all__ = [
    "HEAD_BYTES",
    "STANDARD",
    "Source",
    "file_name",
    "is_folder",
    "open_source",
    "open_target",
    "stores",
    "translated",
    "write_beside",
]

HEAD_BYTES: Final = 64 << 10
STANDARD: Final = "-"
_GZIP: Final = b"\x1f\x8b"


class Source:
    """One open file of points."""

    def __init__(
        self,
        file: io.BufferedReader,
        *,
        name: str,
        head: bytes,
        origin: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Use `open_source` instead."""
        self.file = file
        """The bytes, decompressed, from the beginning; may be a pipe."""
        self.name = name
        """What messages call it; without credentials."""
        self.head = head
        """The first bytes, up to 64 KiB; not taken from `file`."""
        self._origin = origin
        self._options = options

    @property
    def has_folder(self) -> bool:
        """Whether other files can stand beside this one: it is no pipe and no open file."""
        return self._origin is not None

    @contextmanager
    def beside(self, path: str) -> Iterator[Source]:
        """Open another file of the same folder, such as the data that an index file names.

        Args:
            path: Relative to the folder, with `/`; it must stay beneath it.

        Raises:
            InvalidInputError: This source is no path or URL, or `path` leads out of its folder.
            NotFoundError: There is no such file.
        """
        if self._origin is None:
            raise InvalidInputError(
                f"{self.name} names the file {path!r} beside it, which a pipe or an open file does not have",
                hint="pass the path or URL of the folder",
            )
        with open_source(f"{_parent(self._origin)}/{check_path(path)}", options=self._options) as source:
            yield source

    @contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        """Give a file that can be read in any order: a pipe is copied to a temporary file."""
        if self.file.seekable() and not isinstance(self.file.raw, gzip.GzipFile):
            yield cast("BinaryIO", self.file)
            return
        with tempfile.TemporaryFile(prefix="vecdataset-") as copy:
            shutil.copyfileobj(self.file, copy, 1 << 20)
            copy.seek(0)
            yield cast("BinaryIO", copy)


def file_name(target: Any) -> str:
    """Return what messages and name endings go by."""
    if isinstance(target, str | os.PathLike):
        return redact(os.fspath(cast("str", target)))
    return str(getattr(target, "name", None) or f"<{type(target).__name__}>")


@contextmanager
def open_source(
    source: Any, *, options: Mapping[str, Any] | None = None, markers: Iterable[str] = ()
) -> Iterator[Source]:
    """Open a path, URL, binary file object, or `-` (standard input) for reading.

    Args:
        source: What to open.
        options: fsspec's options for a URL.
        markers: Names of files by which a folder is recognised: given the folder, that file is opened.

    Raises:
        NotFoundError: There is no such file.
        StorageError: It cannot be read.
    """
    if source != STANDARD and isinstance(source, str | os.PathLike):
        source = _marked(os.fspath(cast("str", source)), options, markers)
    name = "standard input" if source == STANDARD else file_name(source)
    origin = source if isinstance(source, str) and source != STANDARD else None
    with ExitStack() as stack:
        raw = _open_raw(source, name, options, stack)
        file = io.BufferedReader(raw, HEAD_BYTES)
        # A caller's file stays open: only what was opened here is closed.
        stack.callback(file.detach)
        head = file.peek(HEAD_BYTES)
        if head[:2] == _GZIP:
            unzipped = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
            file = io.BufferedReader(cast("io.RawIOBase", unzipped), HEAD_BYTES)
            stack.callback(file.detach)
            try:
                head = file.peek(HEAD_BYTES)
            except (OSError, EOFError) as exc:
                raise InvalidInputError(f"{name} begins as gzip and is not: {exc}") from None
        yield Source(file, name=name, head=head[:HEAD_BYTES], origin=origin, options=options)


def _marked(source: str, options: Mapping[str, Any] | None, markers: Iterable[str]) -> str:
    """Return the file that says what a folder holds, if `source` is a folder with one."""
    for marker in markers:
        path = f"{source.rstrip('/')}/{marker}"
        if _is_url(source):
            if PurePosixPath(source).suffix:
                continue  # a file by its name: asking for each marker would cost a request each
            with translated(redact(source)):
                store, inner = _fsspec().core.url_to_fs(path, **dict(options or {}))
                found = store.exists(inner)
        else:
            found = _local(path).is_file()
        if found:
            return path
    return source


def _parent(path: str) -> str:
    return path.rpartition("/")[0] if "/" in path else "."


def _open_raw(source: Any, name: str, options: Mapping[str, Any] | None, stack: ExitStack) -> Any:
    if source == STANDARD:
        return sys.stdin.buffer
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "read"):
            raise InvalidInputError(
                f"a source is a path, a URL or a binary file, not {type(source).__name__}",
                hint="frames and dicts go to Collection.upsert",
            )
        return source
    if _is_url(source):
        with translated(name):
            return stack.enter_context(_fsspec().open(os.fspath(source), "rb", **dict(options or {})))
    path = _local(source)
    try:
        return stack.enter_context(path.open("rb", buffering=0))
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise InvalidInputError(
            f"{name} is a folder, not a file of points",
            hint="open() reads a collection; import its files one by one",
        ) from None
    except OSError as exc:
        raise StorageError(f"{name} cannot be read: {exc.strerror or exc}") from exc


@contextmanager
def open_target(target: Any, *, options: Mapping[str, Any] | None = None) -> Iterator[BinaryIO]:
    """Open a path, URL, binary file object, or `-` (standard output) for writing; `.gz` compresses.

    Raises:
        InvalidInputError: Something else than a file stands there.
        StorageError: It cannot be written.
    """
    name = file_name(target)
    with ExitStack() as stack:
        if target == STANDARD:
            file = cast("BinaryIO", sys.stdout.buffer)
            stack.callback(file.flush)
        elif not isinstance(target, str | os.PathLike):
            if not hasattr(target, "write"):
                raise InvalidInputError(f"a target is a path, a URL or a binary file, not {target!r}")
            file = target
        elif _is_url(target):
            file = stack.enter_context(_uploaded(os.fspath(cast("str", target)), name, options))
        else:
            file = stack.enter_context(_renamed(_local(target), name))
        if name.endswith(".gz"):
            # No name and no time in the header: equal points give equal bytes.
            file = cast("BinaryIO", stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)))
        yield file


def write_beside(
    target: str | os.PathLike[str], files: Mapping[str, bytes], *, options: Mapping[str, Any] | None = None
) -> None:
    """Write small files beside one that has just been written; if one fails, none is left.

    Args:
        target: The path or URL of that file.
        files: The ending of each name, such as `.checksum`, and the content.
        options: fsspec's options for a URL.
    """
    path = os.fspath(target)
    try:
        for ending, content in files.items():
            with open_target(path + ending, options=options) as file:
                file.write(content)
    except BaseException:
        with suppress(Exception):
            for ending in ("", *files):
                _remove(path + ending, options)
        raise


def stores(root: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Return the fsspec filesystem of a path or URL, and the path on it."""
    with translated(redact(root)):
        where = root if _is_url(root) else str(_local(root).absolute())
        store, path = _fsspec().core.url_to_fs(where, **(dict(options or {}) if _is_url(root) else {}))
    return store, path


def _remove(path: str, options: Mapping[str, Any] | None) -> None:
    if _is_url(path):
        store, inner = _fsspec().core.url_to_fs(path, **dict(options or {}))
        if store.exists(inner):
            store.rm_file(inner)
    else:
        _local(path).unlink(missing_ok=True)


@contextmanager
def _renamed(path: Path, name: str) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise InvalidInputError(f"{name} is a folder", hint="export writes one file")
    if path.exists() and not path.is_file():  # /dev/stdout, a named pipe
        with path.open("wb") as file:
            yield file
        return
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except FileNotFoundError:
        raise NotFoundError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to") from None
    except OSError as exc:
        raise StorageError(f"{name} cannot be written: {exc.strerror or exc}") from exc
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        # mkstemp makes files that only their owner can read; others' tools want to read this one.
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def _uploaded(url: str, name: str, options: Mapping[str, Any] | None) -> Iterator[BinaryIO]:
    with translated(name):
        store, path = _fsspec().core.url_to_fs(url, **dict(options or {}))
    with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:
        local = Path(folder, "export")
        with local.open("w+b") as file:
            yield file
        with translated(name):
            store.put_file(str(local), path)


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Say in our words what fsspec's filesystems raise."""
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {name}") from None
    except ImportError as exc:
        raise MissingDependencyError(
            f"{name} needs a package that is not installed: {exc}",
            hint="pip install 'vecdataset[s3]' for s3://, or the fsspec package that exc names",
        ) from None
    except (OSError, ValueError) as exc:
        raise StorageError(f"{name} cannot be reached: {redact(str(exc))}") from exc


def is_folder(source: Any) -> bool:
    """Return whether a source is a folder: one on the local disk, or a URL that ends in a slash."""
    if source == STANDARD or not isinstance(source, str | os.PathLike):
        return False
    return os.fspath(source).endswith("/") if _is_url(source) else _local(source).is_dir()


def _is_url(target: Any) -> bool:
    text = os.fspath(target)
    return "://" in text and not text.startswith("file://")


def _local(target: Any) -> Path:
    return Path(os.fspath(target).removeprefix("file://"))


def _fsspec() -> Any:
    import fsspec

    return fsspec
