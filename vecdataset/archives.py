"""A snapshot as one file, for places where a folder cannot go: tar, or tar.gz by its name's ending.

The first member is the sealed manifest, `manifest.json`; then come the files it names, under their
paths and in the order in which they are written when the archive is unpacked. Everything is a regular
file; anything else is refused, and so is a member that the manifest does not name, whatever its path.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from vecdataset import storage
from vecdataset.copying import check_target, copy_order, finish, room_for
from vecdataset.errors import CorruptionError, InvalidInputError, NotFoundError
from vecdataset.manifests import MAX_MANIFEST_BYTES, SealedFile, Snapshot
from vecdataset.sealing import Progress
from vecdataset.storage import Location

MEMBER: Final = "manifest.json"
_ENDINGS: Final = {".tar": "", ".tar.gz": "gz", ".tgz": "gz"}
_CHUNK: Final = 1 << 20


def pack(
    snapshot: Snapshot,
    source: Location,
    target: Any,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> str:
    """Write a snapshot into one archive, each file compared with its digest on the way; return its URL.

    Args:
        snapshot: What to pack.
        source: Its collection.
        target: The path or URL of the archive, which is replaced; it ends in `.tar`, `.tar.gz` or `.tgz`.
        storage_options: Of the target's filesystem.
        progress: Called with the share of bytes that is done, 0 to 1.

    Raises:
        CorruptionError: A file of the snapshot is damaged; no archive was written.
    """
    place = storage.resolve(target, storage_options=storage_options)
    compression = _compression(place.name)
    folder, _, name = place.url.rpartition("/")
    around = storage.resolve(folder or "/", storage_options=storage_options)
    there = storage.files(around)
    if not compression:
        room_for(snapshot.size_bytes, around)
    done = 0
    total = max(1, sum(f.size for f in snapshot.files))
    # Beside its place on a local disk, which need not have as much room elsewhere.
    beside = folder if place.kind == "local" and Path(folder).is_dir() else None
    with tempfile.TemporaryDirectory(prefix=".vecdataset-", dir=beside) as work:
        spool, file = Path(work) / "archive", Path(work) / "file"
        with tarfile.open(str(spool), f"w|{compression}", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            _add(archive, snapshot, MEMBER, io.BytesIO(snapshot.to_json().encode()))
            for f in copy_order(snapshot):
                with _opened(source, f, file) as stream:
                    _add(archive, snapshot, f.path, stream, f)
                done += f.size
                if progress is not None:
                    progress(done / total)
        there.upload(spool, name)
    return place.url


def _compression(name: str) -> str:
    found = [kind for ending, kind in _ENDINGS.items() if name.endswith(ending)]
    if not found:
        raise InvalidInputError(
            f"{name!r} cannot name an archive", hint=f"end it in one of {', '.join(_ENDINGS)}"
        )
    return found[0]


@contextmanager
def _opened(source: Location, f: SealedFile, spool: Path) -> Iterator[IO[bytes]]:
    files = storage.files(source)
    if files.leads_outside(f.path):
        raise CorruptionError(f"{f.path} of {source.url} leads out of its collection, by a link")
    try:
        files.download(f.path, spool)
    except NotFoundError as exc:
        raise CorruptionError(f"{f.path} of {source.url} is missing; no archive was written") from exc
    with spool.open("rb") as stream:
        yield stream
    spool.unlink()


def _add(
    archive: tarfile.TarFile,
    snapshot: Snapshot,
    path: str,
    stream: IO[bytes],
    sealed: SealedFile | None = None,
) -> None:
    info = tarfile.TarInfo(path)
    info.size = stream.seek(0, 2)
    stream.seek(0)
    info.mtime = int(datetime.fromisoformat(snapshot.created_at).timestamp())
    reading = _Hashing(stream)
    archive.addfile(info, reading)
    if sealed is not None and (info.size, reading.digest.hexdigest()) != (sealed.size, sealed.sha256):
        raise CorruptionError(
            f"{path} of snapshot {snapshot.name!r} is damaged; no archive was written",
            hint="verify() names every damaged file",
        )


class _Hashing:
    """A stream that knows the SHA-256 of what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def unpack(
    archive: Any,
    url: Any,
    *,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Bring a packed snapshot to a free place, as a collection; return its manifest.

    Args:
        archive: The path or URL of what `pack` wrote.
        url: A free place; what an interrupted call left there is gone on with.
        storage_options: Of the archive's filesystem.
        target_options: Of the target's.
        progress: Called with the share of bytes that is done, 0 to 1.

    Each file is compared with its digest before it counts; Lance's manifest and ours come last.

    Raises:
        CorruptionError: The archive is damaged, or holds what its manifest does not name.
        CollectionExistsError: Something stands at `url`.
    """
    place = storage.resolve(archive, storage_options=storage_options)
    target = storage.resolve(url, storage_options=target_options)
    with tempfile.TemporaryDirectory(prefix="vecdataset-") as work, _damage(place):
        local = Path(place.uri)
        if place.kind != "local":
            folder, _, name = place.url.rpartition("/")
            local = Path(work) / "archive"
            storage.files(storage.resolve(folder, storage_options=storage_options)).download(name, local)
        if not local.is_file():
            raise NotFoundError(f"no archive at {place.url}")
        with tarfile.open(local, "r|*") as packed:
            snapshot = _manifest(packed, place)
            check_target(snapshot, target, ours={f.path: f for f in snapshot.files}, fresh=True)
            _bring(packed, snapshot, place, target, Path(work), progress)
    finish(snapshot, target)
    return snapshot


@contextmanager
def _damage(place: Location) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise CorruptionError(f"{place.url} is not a whole archive of a snapshot: {exc}") from exc


def _manifest(packed: tarfile.TarFile, place: Location) -> Snapshot:
    first = packed.next()
    if first is None or first.name != MEMBER or not first.isreg() or first.size > MAX_MANIFEST_BYTES:
        raise CorruptionError(f"{place.url} is no archive of a snapshot: it does not begin with {MEMBER}")
    stream = packed.extractfile(first)
    assert stream is not None
    text = stream.read()
    try:
        name = str(json.loads(text)["name"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise CorruptionError(f"{MEMBER} of {place.url} is not a snapshot's manifest: {exc}") from exc
    return Snapshot.from_json(text, name=name, where=f"{MEMBER} of {place.url}")


def _bring(
    packed: tarfile.TarFile,
    snapshot: Snapshot,
    place: Location,
    target: Location,
    work: Path,
    progress: Progress | None,
) -> None:
    """Write each file as it comes; what makes a collection of them when the archive has ended well."""
    there = storage.files(target)
    waiting = {f.path: f for f in snapshot.files}
    late = {f.path for f in snapshot.files if f.path.startswith(("_versions/", "_refs/"))}
    held: list[tuple[Path, str]] = []
    total, done = max(1, sum(f.size for f in snapshot.files)), 0
    while (member := packed.next()) is not None:
        f = waiting.pop(member.name, None)
        if f is None or not member.isreg() or member.size != f.size:
            raise CorruptionError(
                f"{place.url} holds {member.name!r}, which is not a file that its manifest names"
            )
        stream = packed.extractfile(member)
        assert stream is not None
        reading = _Hashing(stream)
        spool = work / (hashlib.sha256(f.path.encode()).hexdigest() if f.path in late else "file")
        with spool.open("wb") as out:
            while data := reading.read(_CHUNK):
                out.write(data)
        if reading.digest.hexdigest() != f.sha256:
            raise CorruptionError(f"{f.path} in {place.url} is damaged; the collection was not finished")
        if f.path in late:
            held.append((spool, f.path))
        else:
            there.upload(spool, f.path)
        done += f.size
        if progress is not None:
            progress(done / total)
    if waiting:
        raise CorruptionError(f"{place.url} ends before {min(waiting)!r}")
    for spool, path in held:
        there.upload(spool, path)
