"""Working copies: a collection brought near, written to there, and published to where it came from.

Files of a Lance dataset never change, and a version is a manifest that only one writer can create.
So a copy of one version is a collection of its own, and what is committed to it are versions that
could follow at the origin too. Publishing copies their new files, and then creates their manifests
there, one after the other, each only if it is absent: exactly as any commit does. If another writer
was first, nothing of his is touched and publishing ends with an error. In the other direction the
same brings a working copy up to date.

Two collections share a version where its manifests are the same, byte for byte: they name files,
times and transactions that no two commits have in common.
"""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from vecdataset import engine, ledger, storage
from vecdataset.copying import Share, files_at, move_file, refuse_within, room_for, sealed_at
from vecdataset.engine import Table
from vecdataset.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    CommitConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    NotSupportedError,
    VersionGoneError,
)
from vecdataset.origins import Origin, read_origin, write_origin
from vecdataset.reader import Reader, refuse_dropped
from vecdataset.sealing import THREADS, Progress
from vecdataset.storage import Files, Location

__all__ = ["Published", "bring", "check_out", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What publishing did."""

    url: str
    version: int
    """The newest version that both places have now."""
    versions: int
    """How many came; 0 where there was nothing new."""
    copied: int
    """Files that were moved."""
    size_bytes: int
    """Their bytes."""


def check_out(source: Reader, target: Location, *, progress: Progress | None = None) -> Published:
    """Make a working copy of a version, or bring the one at the target up to date.

    Raises:
        CommitConflictError: The copy there has versions that the source has not, and the source too.
        CollectionExistsError: Something else stands there.
    """
    origin = source.table.location
    if target.uri == origin.uri and target.shares_store(origin):
        raise InvalidInputError(f"{target.url} is the collection itself", hint="choose another place")
    done = bring(source, target, progress=progress)
    known = read_origin(target)
    # A copy of a copy keeps the origin that it has.
    if known is None or known.uri == origin.uri:
        write_origin(target, Origin(url=origin.url, uri=origin.uri, version=done.version))
    return done


def publish(
    source: Reader,
    url: Any = None,
    *,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Published:
    """Bring the versions of a working copy to its origin, or to the place given.

    Args:
        source: The working copy, up to the version that is to be published.
        url: Where to; None is the origin, where a collection must stand.
        filesystem: An fsspec filesystem to use instead of the URL's scheme.
        storage_options: fsspec's options of the filesystem.
        progress: Called with the share that is done, 0 to 1.
    """
    own = source.table.location
    known = read_origin(own)
    if url is None and known is None:
        raise InvalidInputError(
            f"{own.url} does not say where it was checked out from", hint="say where to: publish(url)"
        )
    place = url if known is None or url is not None else known.url
    target = storage.resolve(place, filesystem=filesystem, storage_options=storage_options)
    if target.uri == own.uri and target.shares_store(own):
        raise InvalidInputError(f"{target.url} is the collection itself", hint="publish it elsewhere")
    if url is None and known is not None and target.uri != known.uri:
        raise InvalidInputError(
            f"{own.url} was checked out from {known.url} in another filesystem than this one",
            hint="give publish() the filesystem and storage_options that the origin was opened with",
        )
    done = bring(source, target, anew=url is not None, progress=progress)
    if own.commit != "read-only" and (known is None or known.uri == target.uri):
        write_origin(own, Origin(url=target.url, uri=target.uri, version=done.version))
    return done


def bring(
    source: Reader, target: Location, *, anew: bool = True, progress: Progress | None = None
) -> Published:
    """Bring a version, and those that lead to it from the target's newest, to the target.

    Args:
        source: The version.
        target: Where to.
        anew: Where no version is there, bring this one; else that is an error.
        progress: Called with the share that is done, 0 to 1.

    Raises:
        CommitConflictError: The target went its own way.
        VersionGoneError: A version between is cleaned up.
        CorruptionError: A file is missing or not what was written.
    """
    refuse_within(source.table.location, target)
    here, there = engine.manifests(source.table.location), engine.manifests(target)
    if not there and not anew:
        raise CollectionNotFoundError(
            f"no collection stands at {target.url}, where {source.table.location.url} was checked out from",
            hint="publish(url) makes one anew",
        )
    if not there:
        return _first(source, here, target, progress)
    newest = max(there)
    base = _shared(source.table, here, target, there)
    if base == min(newest, source.table.version):
        if base == source.table.version:
            return Published(url=target.url, version=base, versions=0, copied=0, size_bytes=0)
        return _following(source, here, target, newest, progress)
    raise _parted(source, here, target, newest, base)


def _shared(source: Table, here: Mapping[int, str], target: Location, there: Mapping[int, str]) -> int:
    """Return the newest version that two places have in common, 0 for none; a few reads on each side.

    Those before a shared version are shared too: each builds on the one before.
    """
    ours, theirs = storage.files(source.location), storage.files(target)
    both = sorted(v for v in here if v in there and v <= source.version)

    def differs(version: int) -> bool:
        if here[version] != there[version]:
            return True
        return ours.read(here[version]) != theirs.read(there[version])

    if not both or not differs(both[-1]):
        return both[-1] if both else 0  # the common case, asked first
    first = bisect_left(both, True, key=differs)
    return both[first - 1] if first else 0


def _parted(
    source: Reader, here: Mapping[int, str], target: Location, newest: int, base: int
) -> CommitConflictError | VersionGoneError:
    refuse_dropped(Reader(engine.open_table(target), name=target.name))
    url = source.table.location.url
    if not base and newest < min(here):
        return VersionGoneError(
            f"{url} does not keep version {newest} any more, which is the newest of {target.url}",
            hint="bring it to another place",
        )
    since = f"since version {base}" if base else "and has no version in common with this one"
    return CommitConflictError(
        f"{target.url} went its own way {since}: it is at version {newest}, "
        f"{url} at {source.table.version}; nothing was written",
        hint="check it out anew, to another place, and repeat there what was done since; "
        "snapshots.diff(version) says what that was",
    )


# ------------------------------------------------------------------------- two ways


def _first(source: Reader, here: Mapping[int, str], target: Location, progress: Progress | None) -> Published:
    """Copy one version to a place where no version is."""
    table = source.table
    storage.require_writable(target)
    paths = set(table.files())
    have = files_at(target, ours=paths)
    known = _known(table.location)
    moved = _move(table, paths, known, target, have, progress)
    path = here[table.version]
    made = _commit(table, {table.version: path}, known, target)
    others = engine.manifests(target).keys() - {table.version}
    if others:
        # Somebody made a collection here at the same time; perhaps the same copy, and built on it already.
        if made and table.version + 1 not in others:
            storage.files(target).delete([path])
        raise CollectionExistsError(f"a collection came into being at {target.url} meanwhile")
    _finish(source, target, paths)
    ledger.carry(table.location, target, versions=[table.version], digests=moved)
    return _published(target, table.version, 1, moved)


def _following(
    source: Reader, here: Mapping[int, str], target: Location, newest: int, progress: Progress | None
) -> Published:
    """Bring the versions after the target's newest, which the source has too."""
    table = source.table
    versions = range(newest + 1, table.version + 1)
    gone = [v for v in versions if v not in here]
    if gone:
        raise VersionGoneError(
            f"{table.location.url} does not keep version {gone[0]} any more, and {target.url} needs it: "
            f"it is at version {newest}",
            hint="bring it to another place",
        )
    if target.kind == "shared-memory":
        raise NotSupportedError(
            f"{target.url} is in memory, where Lance alone can create a version", hint="bring it elsewhere"
        )
    storage.require_writable(target)
    needed = table.files_since(newest)
    paths = set().union(*(needed[v] for v in versions)) - needed[newest]
    have = _sizes(target, paths)
    known = _known(table.location)
    moved = _move(table, paths, known, target, have, progress)
    _commit(table, {v: here[v] for v in versions}, known, target)
    _finish(source, target, paths)
    ledger.carry(table.location, target, versions=versions, digests=moved)
    return _published(target, table.version, len(versions), moved)


def _published(
    target: Location, version: int, versions: int, moved: Mapping[str, ledger.Digest]
) -> Published:
    size = sum(size for size, _ in moved.values())
    return Published(url=target.url, version=version, versions=versions, copied=len(moved), size_bytes=size)


def _known(location: Location) -> dict[str, ledger.Digest]:
    """Return the digests that commits and snapshots have on record."""
    sealed = {f.path: (f.size, f.sha256) for f in sealed_at(location).values()}
    # Elsewhere no digests are kept, and the ledger is a request for each commit.
    recorded = ledger.read_ledger(location).digests if location.kind == "local" else {}
    return {**recorded, **sealed}


def _move(
    table: Table,
    paths: Iterable[str],
    known: Mapping[str, ledger.Digest],
    target: Location,
    have: Mapping[str, int],
    progress: Progress | None,
) -> dict[str, ledger.Digest]:
    """Copy files, manifests apart, each compared with what is on record; return those that moved."""
    here, there = storage.files(table.location), storage.files(target)
    wanted = {p for p in paths if not p.startswith(_LATE)}
    sizes = _sizes(table.location, wanted)
    order = sorted(wanted, key=lambda p: -sizes.get(p, 0))
    room_for(sum(sizes.get(path, 0) for path in wanted if path not in have), target)
    done = Share(sum(sizes.get(path, 0) for path in wanted), progress)
    with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:

        def move(path: str) -> tuple[str, ledger.Digest, bool]:
            digest, moved = move_file(path, known.get(path), here, there, have, folder)
            done.add(digest[0])
            return path, digest, moved

        with ThreadPoolExecutor(THREADS) as pool:
            return {path: digest for path, digest, moved in pool.map(move, order) if moved}


def _sizes(location: Location, paths: Iterable[str]) -> dict[str, int]:
    """Return the sizes of files, and of others in their folders; a request for each folder."""

    def listed(folder: str) -> list[tuple[str, int]]:
        place = location
        for name in folder.split("/"):
            place = place.child(name)
        return [(f"{folder}/{f.path}", f.size) for f in storage.files(place).list_files(recursive=False)]

    with ThreadPoolExecutor(THREADS) as pool:
        folders = sorted({path.rpartition("/")[0] for path in paths})
        return dict(item for found in pool.map(listed, folders) for item in found)


def _commit(
    table: Table, manifests: Mapping[int, str], known: Mapping[str, ledger.Digest], target: Location
) -> int:
    """Create the manifests, oldest first, each only if it is absent; return how many this call created."""
    here, there = storage.files(table.location), storage.files(target)
    first, made = min(manifests), 0
    for version, path in manifests.items():
        data = here.read(path)
        told = (len(data), hashlib.sha256(data).hexdigest())
        if known.get(path, told) != told:
            raise CorruptionError(f"{path} of {table.location.url} is damaged; the copy was not finished")
        if target.kind == "shared-memory":  # which no other process sees, and nothing stands there
            there.write(path, data)
            made += 1
            continue
        # A store that ignores the condition has one writing process; its own threads are met here.
        created = (target.commit == "atomic" or not there.exists(path)) and there.create(path, data)
        # The answer to a first attempt may have been lost on the way: then what stands there is ours.
        if not created and not _holds(there, path, data):
            done = "nothing came" if version == first else f"versions up to {version - 1} came"
            raise CommitConflictError(
                f"another writer committed version {version} to {target.url} meanwhile; {done}",
                hint="check it out anew, to another place, and repeat there what was done since",
            )
        made += created
    return made


def _holds(files: Files, path: str, data: bytes) -> bool:
    try:
        return files.read(path) == data
    except NotFoundError:
        return False


def _finish(source: Reader, target: Location, paths: set[str]) -> None:
    """Open what came, count its points, and have it on disk where that was asked."""
    rows = engine.open_table(target, version=source.table.version).count()
    if rows != source.rows:
        raise CorruptionError(f"{target.url} holds {rows} points; {source.rows} were brought")
    if source.table.location.durable or target.durable:
        storage.files(target).sync(sorted(paths))


_LATE: Final = ("_versions/", "_refs/")
