"""SMB: a rename that refuses to replace, one connection for each instance, files that others may read.

A rename on SMB says itself whether it may replace; without that the server refuses where the name
is in use (0 of 60 races of four had two winners on Samba 4.17). smbclient keeps its connections in
one pool for the process, where a second password for the same user is never asked for, and opens
files for itself alone unless told otherwise.
"""

# ruff: noqa: D102 - the methods are documented in `Dialect`

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from vecdataset.storage.bridge.dialects import Dialect, Entry, part_of

__all__ = ["SmbDialect"]

_CHUNK: Final = 1 << 20
_SHARED: Final = "rwd"

_ERRNO: Final[Mapping[int, int]] = {
    0xC0000022: errno.EACCES,  # ACCESS_DENIED
    0xC0000033: errno.EINVAL,  # OBJECT_NAME_INVALID
    0xC0000043: errno.EBUSY,  # SHARING_VIOLATION
    0xC0000044: errno.EDQUOT,  # QUOTA_EXCEEDED
    0xC0000056: errno.ENOENT,  # DELETE_PENDING
    0xC000006A: errno.EACCES,  # WRONG_PASSWORD
    0xC000006D: errno.EACCES,  # LOGON_FAILURE
    0xC000006E: errno.EACCES,  # ACCOUNT_RESTRICTION
    0xC0000071: errno.EACCES,  # PASSWORD_EXPIRED
    0xC0000072: errno.EACCES,  # ACCOUNT_DISABLED
    0xC000007F: errno.ENOSPC,  # DISK_FULL
    0xC00000A2: errno.EROFS,  # MEDIA_WRITE_PROTECTED
}
"""What smbprotocol has no number for, or another; of [MS-ERREF] 2.3.1."""


class SmbDialect(Dialect):
    """fsspec's SMBFileSystem, by the smbclient beneath it."""

    protocols = ("smb",)
    commit = "atomic"
    moves = True
    how = "a file is renamed into place only if the name is free"

    def entry(self, fs: Any, path: str) -> Entry:
        import smbclient

        with _translated(path):
            found = smbclient.stat(_unc(fs, path), **_how(fs))
        if found.st_file_attributes & _DIRECTORY:
            raise FileNotFoundError(path)
        return Entry(path=path, size=found.st_size, is_dir=False, etag=str(found.st_mtime_ns))

    def read(self, fs: Any, path: str, start: int, end: int) -> bytes:
        data = bytearray(end - start)
        view, have = memoryview(data), 0
        with _translated(path), self._open(fs, path, "rb") as file:
            file.seek(start)
            while have < len(data):
                got = file.readinto(view[have:])
                if not got:
                    break
                have += got
        return bytes(data) if have == len(data) else bytes(view[:have])

    def write(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        view, done = memoryview(data), 0
        with _translated(path), self._open(fs, path, "wb") as file:
            while done < len(view):
                done += file.write(view[done : done + _CHUNK])

    @contextmanager
    def _open(self, fs: Any, path: str, mode: str) -> Iterator[Any]:
        import smbclient

        file = smbclient.open_file(_unc(fs, path), mode, buffering=0, share_access=_SHARED, **_how(fs))
        try:
            yield file
        finally:
            try:
                file.close()
            except BaseException:
                # The handle went with its connection; smbprotocol would say later that it is still open.
                file.fd._connected = False  # noqa: SLF001
                raise

    def move(self, fs: Any, source: str, target: str) -> None:
        import smbclient

        with _translated(target):
            smbclient.replace(_unc(fs, source), _unc(fs, target), **_how(fs))

    def create(self, fs: Any, path: str, data: bytes | bytearray) -> None:
        import smbclient

        part = part_of(path)
        self.write(fs, part, data)
        try:
            with _translated(path):
                smbclient.rename(_unc(fs, part), _unc(fs, path), **_how(fs))
        except OSError:
            with suppress(OSError):
                self.delete(fs, part)
            raise

    def upload(self, fs: Any, source: Path, path: str) -> None:
        with _translated(path), source.open("rb") as local, self._open(fs, path, "wb") as file:
            while chunk := memoryview(local.read(_CHUNK)):
                done = 0
                while done < len(chunk):
                    done += file.write(chunk[done:])

    def download(self, fs: Any, path: str, target: Path) -> None:
        with _translated(path), self._open(fs, path, "rb") as file, target.open("wb") as local:
            shutil.copyfileobj(file, local, _CHUNK)

    def list_dir(self, fs: Any, path: str) -> list[Entry]:
        import smbclient

        try:
            with _translated(path):
                return [
                    Entry(
                        path=f"{path.rstrip('/')}/{e.name}",
                        size=e.smb_info.end_of_file,
                        is_dir=bool(e.smb_info.file_attributes & _DIRECTORY),
                        etag=str(e.smb_info.last_write_time),
                    )
                    for e in smbclient.scandir(_unc(fs, path), **_how(fs))
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def make_dir(self, fs: Any, path: str) -> None:
        import smbclient

        with _translated(path):
            smbclient.makedirs(_unc(fs, path), exist_ok=True, **_how(fs))

    def delete(self, fs: Any, path: str) -> None:
        import smbclient

        with _translated(path):
            smbclient.remove(_unc(fs, path), **_how(fs))

    def delete_dir(self, fs: Any, path: str) -> None:
        import smbclient

        with _translated(path):
            smbclient.rmdir(_unc(fs, path), **_how(fs))

    def close(self, fs: Any) -> None:
        import smbclient

        smbclient.reset_connection_cache(fail_on_error=False, connection_cache=_connections(fs))


_DIRECTORY: Final = 0x10
"""FILE_ATTRIBUTE_DIRECTORY."""


def _connections(fs: Any) -> dict[str, Any]:
    """Return the connections of this instance alone."""
    found: dict[str, Any] = vars(fs).setdefault("_vecdataset_connections", {})
    return found


def _how(fs: Any) -> dict[str, Any]:
    return {
        "username": fs.username,
        "password": fs.password,
        "port": 445 if fs.port is None else fs.port,
        "encrypt": fs.encrypt,
        "connection_timeout": fs.timeout,
        "connection_cache": _connections(fs),
    }


def _unc(fs: Any, path: str) -> str:
    backslashed = path.replace("/", "\\")
    return f"\\\\{fs.host}{backslashed}"


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Raise Python's own exception for a number that Windows gives."""
    from smbprotocol.exceptions import SMBOSError

    try:
        yield
    except SMBOSError as error:
        number = _ERRNO.get(error.ntstatus)
        # The class follows from the number: FileExistsError, PermissionError …
        if number is None:
            raise OSError(error.errno, error.strerror, path) from error
        raise OSError(number, os.strerror(number), path) from error
