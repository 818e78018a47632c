"""A snapshot's files, brought from any of its layouts into one, in a private folder.

Regular snapshots hold each segment as a tar of its own (`<shard>/segments/<id>.tar`, entries below
`snapshot/files/`), streamed ones its files (`<shard>/segments/<id>/files/…`), full-storage ones the
snapshots of the collections. Afterwards each segment is a folder `<shard>/segments/<id>` and each
collection of a full-storage snapshot a folder of its file's name: the layout that the engine loads.

Holes stay holes, and blocks of zeros become some: a write-ahead log of 32 MiB takes what is in it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vecdataset.display import size
from vecdataset.errors import InvalidInputError, StorageError
from vecdataset.formats.qdrant.archive import CHUNK_BYTES, Member, Readable, Tar, damaged

__all__ = ["Unpacked", "unpack", "verify_checksum"]

_HOLE_BYTES: Final = 64 << 10
_ZEROS: Final = bytes(CHUNK_BYTES)
_SEGMENT_TAR: Final = re.compile(r"(?:(?P<shard>.+)/)?segments/(?P<id>[^/]+)\.tar")
_SEGMENT_FILE: Final = re.compile(r"(?:(?P<shard>.+)/)?segments/(?P<id>[^/]+)/files/(?P<path>.+)")
_LOOK_AT_SPACE_BYTES: Final = 256 << 20


@dataclass(slots=True, kw_only=True)
class Unpacked:
    """What an archive holds."""

    root: Path
    """The private folder."""
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Path below the root to size and stored bytes, of all files, also of those not kept."""
    layout: str = "regular"
    """`regular`, or `streamable` where segments are no archives of their own."""
    sha256: str = ""
    """Of the archive, in hex."""
    snapshots: list[str] = field(default_factory=list)
    """Names of the collection snapshots in a full-storage snapshot."""


class _Hashed:
    """A stream whose bytes are hashed as they pass."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def unpack(
    file: Readable,
    root: Path,
    *,
    where: str,
    keep: Callable[[str], bool] = lambda _: True,
    progress: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpack a snapshot, from its first byte to its last.

    Args:
        file: The archive.
        root: An empty folder that nobody else writes to.
        where: Names the archive in messages.
        keep: Which files are written; all are listed.
        progress: Called with the bytes written so far.

    Raises:
        InvalidInputError: It is damaged, or holds what no snapshot does.
        StorageError: There is not enough space.
    """
    hashed = _Hashed(file)
    out = Unpacked(root=root)
    _Unpacker(out, keep, progress).archive(hashed, "", where, depth=0)
    while hashed.read(CHUNK_BYTES):
        pass  # the padding after the end counts for the checksum
    out.sha256 = hashed.digest.hexdigest()
    return out


class _Unpacker:
    def __init__(
        self, out: Unpacked, keep: Callable[[str], bool], progress: Callable[[int], None] | None
    ) -> None:
        self._out = out
        self._keep = keep
        self._progress = progress
        self._written = 0
        self._looked_at = -_LOOK_AT_SPACE_BYTES

    def archive(self, file: Readable, base: str, where: str, *, depth: int) -> None:
        """Unpack the archive of a storage (depth 0), a collection or a shard (0 or 1)."""
        tar = Tar(file, where=where)
        for member in tar:
            if member.is_dir:
                continue
            path = base + member.name
            if depth == 0 and "/" not in member.name and member.name.endswith(".snapshot"):
                self._out.snapshots.append(member.name)
                inner = f"{where}, {member.name}"
                self.archive(tar.opened(member), f"{member.name}/", inner, depth=1)
            elif found := _SEGMENT_TAR.fullmatch(member.name):
                folder = base + member.name.removesuffix(".tar")
                self._segment(tar.opened(member), folder, f"{where}, {found['id']}.tar")
            elif found := _SEGMENT_FILE.fullmatch(member.name):
                self._out.layout = "streamable"
                shard = f"{found['shard']}/" if found["shard"] else ""
                self._file(tar, member, f"{base}{shard}segments/{found['id']}/{found['path']}", where)
            else:
                self._file(tar, member, path, where)

    def _segment(self, file: Readable, folder: str, where: str) -> None:
        tar = Tar(file, where=where)
        for member in tar:
            if not member.is_dir:
                path = member.name.removeprefix("snapshot/").removeprefix("files/")
                self._file(tar, member, f"{folder}/{path}", where)

    def _file(self, tar: Tar, member: Member, path: str, where: str) -> None:
        if path in self._out.files:
            raise damaged(where, f"holds {path!r} twice")
        self._out.files[path] = (member.size_bytes, member.stored_bytes)
        if not self._keep(path):
            return
        self._check_space(member, where)
        target = self._out.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for at, data in tar.parts(member):
                    self._write(file, at, data)
                file.truncate(member.size_bytes)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise damaged(where, f"holds {path!r} as a file and as a folder") from None
        except InvalidInputError:
            raise
        except OSError as exc:
            raise StorageError(f"{path!r} of {where} cannot be unpacked: {exc.strerror or exc}") from exc

    def _write(self, file: Any, at: int, data: bytes) -> None:
        """Write what is not zero; the rest becomes a hole."""
        for start in range(0, len(data), _HOLE_BYTES):
            part = data[start : start + _HOLE_BYTES]
            if part != _ZEROS[: len(part)]:
                file.seek(at + start)
                file.write(part)
                self._written += len(part)
        if self._progress is not None:
            self._progress(self._written)

    def _check_space(self, member: Member, where: str) -> None:
        """Refuse what cannot fit before it is written."""
        if self._written - self._looked_at < _LOOK_AT_SPACE_BYTES and member.stored_bytes < CHUNK_BYTES:
            return
        self._looked_at = self._written
        free = shutil.disk_usage(self._out.root).free
        # A log of zeros is stored in full by old servers, and takes no space here.
        if member.stored_bytes > free and "/wal/" not in f"/{member.name}":
            raise StorageError(
                f"{member.name!r} of {where} has {size(member.stored_bytes)}; {size(free)} are free in "
                f"{self._out.root.parent}",
                hint="the environment variable TMPDIR names a folder with more space",
            )


def verify_checksum(text: bytes | None, sha256: str, *, where: str) -> bool:
    """Compare the checksum file that stands beside a snapshot; return whether there was one.

    Args:
        text: Its content, None where there is none: 64 hex digits, in any case, perhaps with blanks
            around them, or a line of `sha256sum`.
        sha256: What the archive has.
        where: Names the archive in messages.

    Raises:
        InvalidInputError: They differ.
    """
    if text is None:
        return False
    words = text.decode("ascii", "replace").split()
    stated = words[0].lower() if words else ""
    if not re.fullmatch(r"[0-9a-f]{64}", stated):
        raise InvalidInputError(
            f"the checksum file of {where} holds no SHA-256: {stated[:80]!r}",
            hint="remove the file to import without a check",
        )
    if stated != sha256:
        raise damaged(where, f"has the SHA-256 {sha256}, not the {stated} that its checksum file states")
    return True
