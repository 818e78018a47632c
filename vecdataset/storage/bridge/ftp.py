"""FTP: transfers from an offset, and a folder as a lock, for the protocol has no exclusive write.

`MKD` fails where the folder exists, so that who makes `.vecdataset-part-<name>.lock` may look
and write. A writer that dies leaves the folder: one that does not change for `_LOCK_AGE_S`
seconds, watched by our own clock, is taken for left behind.
"""

# ruff: noqa: D102 - the methods are documented in `Dialect`

from __future__ import annotations

import ftplib
import io
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from vecdataset.storage.bridge.dialects import PART, Dialect, Entry

__all__ = ["FtpDialect"]

T = TypeVar("T")

_LOCK_AGE_S: Final = 20.0


class FtpDialect(Dialect):
    """fsspec's FTPFileSystem, by its ftplib connection."""

    protocols = ("ftp",)
    commit = "atomic"
    moves = True
    how = "writers take turns by a folder that one of them can make"

    def entry(self, fs: Any, path: str) -> Entry:
        def size() -> Any:
            fs.ftp.voidcmd("TYPE I")
            return fs.ftp.size(path)

        return Entry(path=path, size=int(_translated(path, size)), is_dir=False)

    def read(self, fs: Any, path: str, start: int, end: int) -> bytes:
        data = bytearray()
        with self._retrieved(fs, path, start) as chunks:
            for chunk in chunks:
                data += chunk
                if len(data) >= end - start:
                    break
        return bytes(data[: end - start])

    @contextmanager
    def _retrieved(self, fs: Any, path: str, start: int) -> Iterator[Iterator[bytes]]:
        def begin() -> Any:
            fs.ftp.voidcmd("TYPE I")
            return fs.ftp.transfercmd(f"RETR {path}", rest=start or None)

        connection = _translated(path, begin)
        try:
            yield iter(lambda: connection.recv(1 << 18), b"")
        finally:
            connection.close()
        with suppress(ftplib.Error):  # a transfer cut short is answered by 426 or 451
            fs.ftp.voidresp()

    def write(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        _translated(path, lambda: fs.ftp.storbinary(f"STOR {path}", io.BytesIO(data), blocksize=1 << 18))

    def move(self, fs: Any, source: str, target: str) -> None:
        _translated(target, lambda: fs.ftp.rename(source, target))

    def create(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        folder, _, name = path.rpartition("/")
        with self._locked(fs, folder, f"{PART}{name}.lock"):
            super().create(fs, path, data)

    @contextmanager
    def _locked(self, fs: Any, folder: str, name: str) -> Iterator[None]:
        lock, seen, since = f"{folder}/{name}", "", time.monotonic()
        while True:
            try:
                fs.ftp.mkd(lock)
                break
            except ftplib.error_perm as error:
                if not self._is_there(fs, folder):
                    raise FileNotFoundError(folder) from error
                held = next((e for e in self._listed(fs, folder) if e.path == lock), None)
                if held is None:
                    if time.monotonic() - since > _LOCK_AGE_S:
                        raise PermissionError(lock) from error
                elif held.etag != seen:
                    seen, since = held.etag, time.monotonic()
                elif time.monotonic() - since > _LOCK_AGE_S:
                    with suppress(ftplib.Error):
                        fs.ftp.rmd(lock)
                time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - no secret
        try:
            yield
        finally:
            fs.ftp.rmd(lock)

    def _is_there(self, fs: Any, folder: str) -> bool:
        here = fs.ftp.pwd()
        try:
            fs.ftp.cwd(folder)
        except ftplib.error_perm:
            return False
        fs.ftp.cwd(here)
        return True

    def upload(self, fs: Any, source: Path, path: str) -> None:
        def store() -> None:
            with source.open("rb") as file:
                fs.ftp.storbinary(f"STOR {path}", file, blocksize=1 << 18)

        _translated(path, store)

    def download(self, fs: Any, path: str, target: Path) -> None:
        with target.open("wb") as file, self._retrieved(fs, path, 0) as chunks:
            for chunk in chunks:
                file.write(chunk)

    def list_dir(self, fs: Any, path: str) -> list[Entry]:
        try:
            return self._listed(fs, path)
        except ftplib.error_perm as error:
            if str(error).startswith("550") or not self._is_there(fs, path):
                return []
            # A server without MLSD: fsspec reads what LIST prints.
            return super().list_dir(fs, path)

    def _listed(self, fs: Any, path: str) -> list[Entry]:
        return [
            Entry(
                path=f"{path.rstrip('/')}/{name}",
                size=int(facts.get("size", 0)),
                is_dir=facts.get("type") == "dir",
                etag=facts.get("modify", "") + facts.get("unique", ""),
            )
            for name, facts in fs.ftp.mlsd(path)
            if facts.get("type") in {"file", "dir"}
        ]

    def make_dir(self, fs: Any, path: str) -> None:
        parts = path.strip("/").split("/")
        for n in range(1, len(parts) + 1):
            with suppress(ftplib.error_perm):  # it exists; if not, the write that follows says so
                fs.ftp.mkd("/" + "/".join(parts[:n]))

    def delete(self, fs: Any, path: str) -> None:
        _translated(path, lambda: fs.ftp.delete(path))

    def delete_dir(self, fs: Any, path: str) -> None:
        _translated(path, lambda: fs.ftp.rmd(path))

    def close(self, fs: Any) -> None:
        fs.ftp.close()


def _translated(path: str, call: Callable[[], T]) -> T:
    """Return what `call` does; say what the server means in Python's own exceptions."""
    import errno

    try:
        return call()
    except ftplib.error_perm as error:
        text = str(error)
        if text.startswith("552") or "space" in text.lower():
            raise OSError(errno.ENOSPC, "No space left on device", path) from error
        if "denied" in text.lower() or "privilege" in text.lower() or text.startswith("530"):
            raise PermissionError(path) from error
        if text.startswith(("550", "553")):
            raise FileNotFoundError(path) from error
        raise
    except ftplib.Error as error:
        raise ConnectionError(str(error)) from error
