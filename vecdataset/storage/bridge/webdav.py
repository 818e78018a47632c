"""WebDAV: ranged GETs, and a MOVE that refuses to replace.

`MOVE` with `Overwrite: F` answers 412 where the target exists (RFC 4918 §9.9.3); wsgidav
let one of two clients win in 60 of 60 races. webdav4's file objects read ahead and ask for
the size at each opening, so that its client is used itself; it is safe in threads.
"""

# ruff: noqa: D102 - the methods are documented in `Dialect`

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from vecdataset.storage.bridge.dialects import Dialect, Entry, part_of

__all__ = ["WebdavDialect"]

T = TypeVar("T")


class WebdavDialect(Dialect):
    """webdav4's WebdavFileSystem, by its client."""

    protocols = ("webdav", "dav")
    shared = True
    commit = "atomic"
    root = ""
    moves = True
    how = "a file is moved into place only if the name is free"

    def entry(self, fs: Any, path: str) -> Entry:
        return _translated(path, lambda: super(WebdavDialect, self).entry(fs, path))

    def list_dir(self, fs: Any, path: str) -> list[Entry]:
        return _translated(path, lambda: super(WebdavDialect, self).list_dir(fs, path))

    def read(self, fs: Any, path: str, start: int, end: int) -> bytes:
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        answer = _translated(path, lambda: fs.client.request("GET", path, headers=wanted))
        data: bytes = answer.content
        return data if answer.status_code == 206 else data[start:end]

    def write(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        _translated(path, lambda: fs.client.request("PUT", path, content=bytes(data)))

    def move(self, fs: Any, source: str, target: str) -> None:
        _translated(target, lambda: fs.client.move(source, target, overwrite=True))

    def create(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        part = part_of(path)
        self.write(fs, part, data)
        try:
            _translated(path, lambda: fs.client.move(part, path, overwrite=False))
        except FileExistsError:
            with suppress(OSError):
                self.delete(fs, part)
            raise

    def upload(self, fs: Any, source: Path, path: str) -> None:
        def put() -> None:
            with source.open("rb") as file:
                headers = {"Content-Length": str(source.stat().st_size)}
                fs.client.request("PUT", path, content=iter(lambda: file.read(1 << 20), b""), headers=headers)

        _translated(path, put)

    def download(self, fs: Any, path: str, target: Path) -> None:
        _translated(path, lambda: fs.client.download_file(path, str(target)))

    def make_dir(self, fs: Any, path: str) -> None:
        parts = path.strip("/").split("/")
        for n in range(len(parts), 0, -1):  # most often only the last one is missing
            if _made(fs, "/".join(parts[:n])):
                for m in range(n + 1, len(parts) + 1):
                    _made(fs, "/".join(parts[:m]))
                return
        raise FileNotFoundError(path)

    def delete(self, fs: Any, path: str) -> None:
        _translated(path, lambda: fs.client.remove(path))

    def delete_dir(self, fs: Any, path: str) -> None:
        _translated(path, lambda: fs.client.remove(path))

    def close(self, fs: Any) -> None:
        fs.client.http.close()


def _made(fs: Any, path: str) -> bool:
    """Make one folder; False where the one above it is missing."""
    from webdav4.client import ResourceAlreadyExists, ResourceConflict

    try:
        fs.client.mkdir(path)
    except ResourceAlreadyExists:
        return True
    except ResourceConflict:
        return False
    return True


def _translated(path: str, call: Callable[[], T]) -> T:
    """Return what `call` does; say what the server means in Python's own exceptions."""
    import errno

    from webdav4.client import (
        ClientError,
        ForbiddenOperation,
        HTTPError,
        InsufficientStorage,
        ResourceAlreadyExists,
        ResourceConflict,
        ResourceNotFound,
    )

    try:
        return call()
    except (ResourceNotFound, ResourceConflict) as error:
        raise FileNotFoundError(path) from error
    except ResourceAlreadyExists as error:
        raise FileExistsError(path) from error
    except ForbiddenOperation as error:
        raise PermissionError(path) from error
    except InsufficientStorage as error:
        raise OSError(errno.ENOSPC, "No space left on device", path) from error
    except HTTPError as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise PermissionError(path) from error
        if status == 409:  # the folder is missing
            raise FileNotFoundError(path) from error
        if status == 501:
            raise NotImplementedError(str(error)) from error
        raise ConnectionError(str(error)) from error
    except ClientError as error:
        raise ConnectionError(str(error)) from error
