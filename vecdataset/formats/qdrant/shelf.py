"""Folders and buckets of Qdrant snapshot files: listed, and described by manifests.

A backup of a server is such a folder: a file for each collection, `manifest.json` for programs and
`manifest.txt` for people. Both have the shape of Arcaneum's, whose own are read too; ours say
sizes, checksums and counts besides. A folder of files without either is read by their names.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from vecdataset.display import size
from vecdataset.errors import (
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from vecdataset.formats.files import open_source, open_target, stores, translated
from vecdataset.formats.qdrant.unpack import verify_checksum
from vecdataset.storage.location import redact

__all__ = ["Entry", "Fetched", "SnapshotFile", "fetch", "read_backup", "snapshot_files", "write_manifests"]

ENDING: Final = ".snapshot"
MANIFEST: Final = "manifest.json"
TEXT: Final = "manifest.txt"
_VERSION: Final = 1
_PIECE: Final = 8 << 20
_SERVERS_NAME: Final = re.compile(r"(.+?)-\d+-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d(-.*)?\.snapshot")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFile:
    """One `.snapshot` file."""

    name: str
    """Path beneath the place that was listed."""
    size_bytes: int
    modified: datetime | None
    """None where the store does not say."""
    checksum: bool
    """Whether its SHA-256 stands beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of one collection in a backup or restore, or what a manifest says of it."""

    collection: str
    snapshot: str | None = None
    """The name that the server gave it."""
    file: str | None = None
    """The file in the folder; never a path that leads elsewhere."""
    size_bytes: int | None = None
    sha256: str | None = None
    points: int | None = None
    """None where the collection was being written to, or the manifest does not say."""
    aliases: tuple[str, ...] = ()
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return self.error is None


def snapshot_files(root: str, *, options: Mapping[str, Any] | None = None) -> list[SnapshotFile]:
    """Return the `.snapshot` files beneath a folder or bucket, newest first.

    Args:
        root: A path or URL.
        options: fsspec's options for a URL.

    Raises:
        NotFoundError: There is no such place.
    """
    store, path = stores(root, options)
    found = store.find(path, detail=True)
    if not found and not store.exists(path):
        raise NotFoundError(f"there is no folder {root}")
    base = path.rstrip("/")
    out = [
        SnapshotFile(
            name=str(PurePosixPath(name).relative_to(base)),
            size_bytes=int(entry["size"]),
            modified=_time(entry),
            checksum=f"{name}.checksum" in found,
        )
        for name, entry in found.items()
        if name.endswith(ENDING)
    ]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(out, key=lambda f: (f.modified or oldest, f.name), reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A snapshot file that was brought to the disk."""

    file: str
    """Its path."""
    size_bytes: int
    sha256: str
    compared: bool
    """Whether a checksum stood beside it; it is brought too."""


def fetch(
    source: str,
    target: str | Path = ".",
    *,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fetched:
    """Bring a `.snapshot` file, and its checksum, from a folder or bucket to the disk.

    Args:
        source: Its path or URL.
        target: A folder, or a file name that is free.
        options: fsspec's options for a URL.
        progress: Called with the share that is done, 0 to 1.

    It appears under its name when it is whole; one that is broken off, by an interrupt too, leaves nothing.

    Raises:
        NotFoundError: There is no such file.
        AlreadyExistsError: A file of this name is there.
        InvalidInputError: It is not what its checksum says.
    """
    store, path = stores(source, options)
    final = Path(target)
    if final.is_dir():
        final /= PurePosixPath(path).name
    if final.exists():
        raise AlreadyExistsError(f"{final} is there already", hint="give another name, or remove it")
    with tempfile.TemporaryDirectory(prefix=".vecdataset-", dir=final.parent) as folder:
        part, digest, length = Path(folder) / "part", hashlib.sha256(), 0
        with translated(redact(source)):
            total = int(store.info(path)["size"])
            # Large pieces: on a remote store each is a request.
            with store.open(path, "rb", block_size=_PIECE) as remote, part.open("wb") as local:
                while piece := remote.read(_PIECE):
                    local.write(piece)
                    digest.update(piece)
                    length += len(piece)
                    if progress is not None:
                        progress(length / max(total, length))
        if length != total:
            raise StorageError(
                f"{length:,} of {total:,} bytes of {redact(source)} came", hint="fetch it again"
            )
        found = digest.hexdigest()
        text = read_if_there(f"{source}.checksum", options)
        compared = verify_checksum(text, found, where=redact(source))
        if compared and text is not None:
            final.with_name(f"{final.name}.checksum").write_bytes(text)
        part.replace(final)
    return Fetched(file=str(final), size_bytes=length, sha256=found, compared=compared)


def read_if_there(path: str, options: Mapping[str, Any] | None) -> bytes | None:
    """Return what a small file holds; None where there is none."""
    try:
        with open_source(path, options=options) as source:
            return source.file.read()
    except NotFoundError:
        return None


def _time(entry: Mapping[str, Any]) -> datetime | None:
    """Return when a file changed, under whichever name a filesystem gives it."""
    names = ("LastModified", "mtime", "last_modified", "updated", "created")
    found = next((entry[k] for k in names if k in entry), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found if isinstance(found, datetime) else None


def place(root: str, name: str) -> str:
    """Return the path or URL of a file in a folder."""
    return f"{root.rstrip('/')}/{name}"


# ---------------------------------------------------------------------------- manifests


def read_backup(root: str, *, options: Mapping[str, Any] | None = None) -> list[Entry]:
    """Return what a backup holds, by its manifests, or else by the names of its files.

    Raises:
        NotFoundError: There is no such place, or no snapshot in it.
        InvalidInputError: It is a backup of another kind.
        CorruptionError: The manifest does not parse.
    """
    text = _text(root, MANIFEST, options)
    if text is not None:
        entries = _from_json(text, root)
    else:
        files = [f.name for f in snapshot_files(root, options=options) if "/" not in f.name]
        listed = _text(root, TEXT, options)
        entries = _by_names(files) if listed is None else _from_text(listed, files)
    if not entries:
        raise NotFoundError(
            f"{root} holds no snapshot of a Qdrant server",
            hint="`vecdataset backup qdrant://HOST FOLDER` makes a backup",
        )
    return entries


def _text(root: str, name: str, options: Mapping[str, Any] | None) -> str | None:
    found = read_if_there(place(root, name), options)
    return None if found is None else found.decode("utf-8", "replace")


def _from_json(text: str, root: str) -> list[Entry]:
    try:
        found = json.loads(text)
        if "qdrant" not in found and "collections" in found:
            raise InvalidInputError(
                f"{root} is a backup of vecdataset's collections, not of a Qdrant server",
                hint="restore it to a folder, and export its collections to the server",
            )
        return [
            Entry(
                collection=str(e["collection"]),
                snapshot=e.get("snapshot"),
                file=_base(e.get("file") or e.get("snapshot")),
                size_bytes=e.get("size_bytes"),
                sha256=e.get("sha256"),
                points=e.get("points"),
                aliases=tuple(e.get("aliases") or ()),
                error=e.get("error"),
            )
            for e in found["qdrant"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        if isinstance(exc, InvalidInputError):
            raise
        raise CorruptionError(f"{MANIFEST} of {root} does not parse: {exc}") from exc


def _base(file: Any) -> str:
    """Return the name alone: a manifest must not lead out of its folder."""
    return PurePosixPath(str(file).replace("\\", "/")).name


def _from_text(text: str, files: Sequence[str]) -> list[Entry]:
    """Pair the collections that the text lists with the files that are there."""
    _, _, after = text.partition("Collections Backed Up:")
    listed, _, _ = after.partition("Snapshot Files:")
    names = [line.strip().lstrip("-*• ").partition(":")[0].strip() for line in listed.splitlines()]
    names = sorted((n for n in names if n), key=len, reverse=True)
    out = []
    for entry in _by_names(files):
        assert entry.file is not None
        own = next((n for n in names if entry.file == n + ENDING or entry.file.startswith(f"{n}-")), None)
        out.append(Entry(collection=own or entry.collection, file=entry.file))
    return sorted(out, key=lambda e: e.collection)


def _by_names(files: Sequence[str]) -> list[Entry]:
    """Return the newest file of each collection; a server's names are `NAME-PEER-TIME.snapshot`."""
    out: dict[str, Entry] = {}
    for file in files:
        found = _SERVERS_NAME.fullmatch(file)
        name = found[1] if found else file.removesuffix(ENDING)
        out.setdefault(name, Entry(collection=name, file=file))
    return sorted(out.values(), key=lambda e: e.collection)


def write_manifests(
    root: str, entries: Sequence[Entry], *, server: str, options: Mapping[str, Any] | None = None
) -> None:
    """Describe a backup: `manifest.txt`, then `manifest.json`, which makes it complete.

    Args:
        root: The folder.
        entries: What was backed up, and what was not.
        server: The server's URL, without its key.
        options: fsspec's options for a URL.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    good = [e for e in entries if e.ok]
    lines = [
        "Qdrant Backup Manifest",
        "======================",
        f"Backup Date: {now}",
        f"Qdrant Host: {server}",
        "Container: -",
        "",
        "Collections Backed Up:",
        *(f"  - {e.collection}" for e in good),
        "",
        "Snapshot Files:",
        *(f"  {size(e.size_bytes or 0):>10}  {e.file}" for e in good),
    ]
    if len(good) < len(entries):
        lines += ["", "Failed:", *(f"  - {e.collection}: {e.error}" for e in entries if not e.ok)]
    body = {
        "version": _VERSION,
        "created_at": now,
        "qdrant_url": server,
        "qdrant": [{k: v for k, v in asdict(e).items() if v not in (None, ())} for e in entries],
    }
    for name, text in ((TEXT, "\n".join(lines) + "\n"), (MANIFEST, json.dumps(body, indent=1) + "\n")):
        with open_target(place(root, name), options=options) as file:
            file.write(text.encode())
