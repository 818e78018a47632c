"""Whole servers, backed up through their own snapshots, and brought back.

A backup makes a snapshot of each collection, fetches it, compares it with the server's checksum, and
removes it from the server again. A restore looks at a file before the server hears of it, uploads it, and
waits until the collection has the points that were backed up. One collection that fails does not stop
the others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from vecdataset.display import size
from vecdataset.errors import (
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    VecDatasetError,
)
from vecdataset.formats.files import open_source, open_target, write_beside
from vecdataset.formats.qdrant.client import SLOW_TIMEOUT_S, Address, Server, part
from vecdataset.formats.qdrant.shelf import (
    Entry,
    place,
    read_backup,
    read_if_there,
    snapshot_files,
    write_manifests,
)

__all__ = ["back_up", "occupied", "put_back"]

Told = Callable[[str], None]
Progress = Callable[[float], None]

READY_TRIES: Final = 30
READY_PAUSE_S: Final = 1.0
SETTLE_S: Final = 60.0
"""How long a restored collection may take to show all its points."""
_PIECE: Final = 4 << 20


# ------------------------------------------------------------------------------- backup


def back_up(
    url: str,
    root: str,
    *,
    names: Sequence[str] | None = None,
    keep: bool = False,
    server_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    told: Told | None = None,
    progress: Progress | None = None,
) -> list[Entry]:
    """Back up the collections of a server to a folder or bucket.

    Args:
        url: `qdrant://host[:port]`, or one of its collections.
        root: A path or URL of any fsspec filesystem; made if it is not there.
        names: Only these; None is all.
        keep: Leave the snapshots on the server too.
        server_options: `api_key`, `timeout_s`, `attempts`.
        target_options: fsspec's options for `root`.
        told: Called with a line for each collection.
        progress: Called with the share that is done, 0 to 1.

    Returns:
        One entry each; look for `error`.
    """
    address = Address.parse(url, server_options)
    with Server(address) as server:
        server.version()
        have = server.collections()
        wanted = list(names) if names is not None else [address.collection] if address.collection else have
        aliases = server.call("GET", "/aliases")["aliases"]
        if "://" not in root:
            Path(root).mkdir(parents=True, exist_ok=True)
        entries: list[Entry] = []
        for at, name in enumerate(wanted):
            share = _share(progress, at, len(wanted))
            work = partial(_fetched, server, name, root, target_options, keep=keep, progress=share)
            entries.append(_attempt(name, work))
            own = tuple(sorted(a["alias_name"] for a in aliases if a["collection_name"] == name))
            entries[-1] = replace(entries[-1], aliases=own)
            if told is not None:
                told(_line(entries[-1]))
        write_manifests(root, entries, server=replace(address, collection=None).base, options=target_options)
    return entries


def _fetched(
    server: Server,
    name: str,
    root: str,
    options: Mapping[str, Any] | None,
    *,
    keep: bool,
    progress: Progress,
) -> Entry:
    if server.collection(name) is None:
        raise NotFoundError(f"{server.address.url} has no collection {name!r}")
    before = server.count(name)
    path = f"/collections/{part(name)}/snapshots"
    # Not repeatable: each call makes another snapshot of all the data.
    made = server.call("POST", path, query={"wait": "true"}, timeout_s=SLOW_TIMEOUT_S, repeatable=False)
    file, length = str(made["name"]), int(made["size"])
    if "/" in file or "\\" in file or file.startswith("."):
        raise CorruptionError(f"{server.address.url} calls a snapshot {file!r}")
    try:
        target = place(root, file)
        with open_target(target, options=options) as out:
            digest = server.download(
                f"{path}/{part(file)}",
                out,
                size=length,
                progress=lambda done: progress(done / max(1, length)),
            )
            checksum = made.get("checksum")
            if checksum and checksum.strip().lower() != digest:
                raise CorruptionError(f"{file} arrived with SHA-256 {digest}; the server says {checksum}")
            _look_at(out, file)
            out.seek(0, 2)
        write_beside(target, {".checksum": digest.encode()}, options=options)
        after = server.count(name)
    finally:
        if not keep:
            with suppress(VecDatasetError):
                server.call("DELETE", f"{path}/{part(file)}", query={"wait": "true"})
    return Entry(
        collection=name, snapshot=file, file=file, size_bytes=length, sha256=digest,
        points=after if after == before else None,
    )  # fmt: skip


def _look_at(file: BinaryIO, name: str) -> dict[str, Any]:
    """Return the config of a collection snapshot whose shape is right, to its end.

    Raises:
        CorruptionError: It is cut off or damaged.
        InvalidInputError: It is a tar, and no collection snapshot.
    """
    file.seek(0)
    config: dict[str, Any] | None = None
    shards, parts = set(), set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                names = member.name.removeprefix("./").split("/")
                if names == ["config.json"]:
                    content = archive.extractfile(member)
                    config = json.loads(content.read()) if content is not None else None
                elif len(names) > 2:
                    shards.add(names[0])
                    parts.add((names[0], names[1]))
        # Python's reader takes an archive that is cut off between two members for a whole one.
        file.seek(-2 * tarfile.BLOCKSIZE, 2)
        if file.read().strip(b"\0"):
            raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, EOFError, ValueError, OSError) as exc:
        raise CorruptionError(f"{name} is no whole tar archive: {exc}") from None
    if not isinstance(config, dict) or "params" not in config:
        raise InvalidInputError(f"{name} is no snapshot of a Qdrant collection: it holds no config.json")
    missing = [f"{s}/{p}" for s in sorted(shards) for p in ("segments", "wal") if (s, p) not in parts]
    if missing or not shards:
        lacking = missing[0] if missing else "a shard"
        raise InvalidInputError(f"{name} lacks {lacking}: a server would restore nothing, without a word")
    return config


# ------------------------------------------------------------------------------ restore


def occupied(
    root: str,
    url: str,
    *,
    names: Sequence[str] | None = None,
    server_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
) -> tuple[list[str], list[str]]:
    """Return which collections a restore would bring, and which of them it would replace."""
    with Server(Address.parse(url, server_options)) as server:
        server.wait_until_ready(tries=READY_TRIES, pause_s=READY_PAUSE_S)
        server.version()
        have = set(server.collections())
    wanted = [e.collection for e in _wanted(root, names, source_options)]
    return wanted, [n for n in wanted if n in have]


def _wanted(root: str, names: Sequence[str] | None, options: Mapping[str, Any] | None) -> list[Entry]:
    entries = {e.collection: e for e in read_backup(root, options=options) if e.ok}
    for name in names or ():
        if name not in entries:
            raise NotFoundError(
                f"the backup {root} holds no collection {name!r}", hint=f"it holds {', '.join(entries)}"
            )
    return [e for n, e in entries.items() if names is None or n in names]


def put_back(
    root: str,
    url: str,
    *,
    names: Sequence[str] | None = None,
    replace_existing: bool = False,
    server_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    told: Told | None = None,
    progress: Progress | None = None,
) -> list[Entry]:
    """Bring the collections of a backup back to a server.

    Args:
        root: The backup: ours, Arcaneum's, or a folder of `.snapshot` files.
        url: `qdrant://host[:port]`.
        names: Only these; None is all.
        replace_existing: Whether collections that are there lose what they hold.
        server_options: `api_key`, `timeout_s`, `attempts`.
        source_options: fsspec's options for `root`.
        told: Called with a line for each collection.
        progress: Called with the share that is done, 0 to 1.

    Raises:
        NotFoundError: The place holds no backup, or not that collection.
        StorageUnreachableError: The server was not ready within half a minute.

    Returns:
        One entry each, with the points that were counted afterwards; look for `error`.
    """
    wanted = _wanted(root, names, source_options)
    lengths = {f.name: f.size_bytes for f in snapshot_files(root, options=source_options)}
    entries = []
    with Server(Address.parse(url, server_options)) as server:
        server.wait_until_ready(tries=READY_TRIES, pause_s=READY_PAUSE_S)
        server.version()
        for at, entry in enumerate(wanted):
            share = _share(progress, at, len(wanted))
            work = partial(
                _sent,
                server,
                entry,
                root,
                lengths,
                source_options,
                replace_existing=replace_existing,
                progress=share,
            )
            entries.append(_attempt(entry.collection, work))
            if told is not None:
                told(_line(entries[-1]))
    return entries


def _sent(
    server: Server,
    entry: Entry,
    root: str,
    lengths: Mapping[str, int],
    options: Mapping[str, Any] | None,
    *,
    replace_existing: bool,
    progress: Progress,
) -> Entry:
    name, file = entry.collection, str(entry.file)
    if file not in lengths:
        raise NotFoundError(f"{place(root, file)} is not there, though the manifest names it")
    if entry.size_bytes not in (None, lengths[file]):
        raise CorruptionError(f"{file} has {lengths[file]:,} bytes; {entry.size_bytes:,} were backed up")
    found = server.collection(name)
    if found is not None and not replace_existing:
        raise AlreadyExistsError(
            f"{server.address.url} has a collection {name!r} with {server.count(name):,} points",
            hint="allow it to be replaced, or delete it first",
        )
    with _local(place(root, file), options) as local:
        digest = _digest(local)
        known = entry.sha256
        if not known:
            told = read_if_there(f"{place(root, file)}.checksum", options) or b""
            known = told[:128].decode("ascii", "replace")
        if known and known.strip().lower() != digest:
            raise CorruptionError(f"{file} has SHA-256 {digest}; {known.strip()} was backed up")
        config = _look_at(local, file)
        if found is not None and found["config"]["params"].get("vectors") != config["params"].get("vectors"):
            raise InvalidInputError(
                f"{name!r} of {server.address.url} declares other vectors than {file}",
                hint="a server refuses that: delete the collection there first",
            )
        progress(0.1)
        _upload(server, name, local, file, digest)
        progress(0.9)
    count = _settled(server, name, entry.points)
    for alias in entry.aliases:
        action = {"create_alias": {"collection_name": name, "alias_name": alias}}
        server.call("POST", "/collections/aliases", {"actions": [action]})
    progress(1.0)
    return replace(entry, points=count, sha256=digest, size_bytes=lengths[file])


def _upload(server: Server, name: str, file: BinaryIO, file_name: str, digest: str) -> None:
    """Upload, and remove the copy that the server keeps of what it is given."""
    path = f"/collections/{part(name)}/snapshots"
    before = _listed(server, path)
    query = {"wait": "true", "priority": "snapshot", "checksum": digest}
    server.upload(f"{path}/upload", file, file_name, query=query)
    with suppress(VecDatasetError):
        for left in _listed(server, path) - before:
            server.call("DELETE", f"{path}/{part(left)}", query={"wait": "true"})


def _listed(server: Server, path: str) -> set[str]:
    try:
        return {s["name"] for s in server.call("GET", path)}
    except NotFoundError:
        return set()


def _settled(server: Server, name: str, points: int | None) -> int:
    """Return the count of a restored collection, once it is what was backed up."""
    until = time.monotonic() + SETTLE_S
    while True:
        found = server.collection(name)
        count = server.count(name) if found is not None else 0
        ready = found is not None and found.get("status") in ("green", "grey", "yellow")
        if ready and points in (None, count):
            return count
        if time.monotonic() > until:
            raise CorruptionError(
                f"{name!r} was restored with {count:,} points; {points:,} were backed up"
                if points is not None and ready
                else f"{name!r} was restored and is not ready after {SETTLE_S:.0f} s"
            )
        time.sleep(min(0.5, SETTLE_S / 10))


# ------------------------------------------------------------------------------- shared


def _attempt(name: str, work: Callable[[], Entry]) -> Entry:
    try:
        return work()
    except (VecDatasetError, OSError) as exc:
        hint = getattr(exc, "hint", None)
        return Entry(collection=name, error=f"{exc}" + (f" ({hint})" if hint else ""))


@contextmanager
def _local(path: str, options: Mapping[str, Any] | None) -> Iterator[BinaryIO]:
    """Give a file that can be sought; one on another store is fetched first."""
    with open_source(path, options=options) as source:
        if "://" not in path and source.file.seekable():
            with Path(path).open("rb") as file:
                yield file
            return
        with tempfile.TemporaryFile(prefix="vecdataset-restore-") as copy:
            shutil.copyfileobj(source.file, copy, _PIECE)
            yield copy


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()


def _share(progress: Progress | None, at: int, of: int) -> Progress:
    return lambda share: progress((at + min(1.0, share)) / of) if progress is not None else None


def _line(entry: Entry) -> str:
    if entry.error is not None:
        return f"{entry.collection}: FAILED: {entry.error}"
    count = "?" if entry.points is None else f"{entry.points:,}"
    return f"{entry.collection}: {count} points, {size(entry.size_bytes or 0)}, {entry.file}"
