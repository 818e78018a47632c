"""Copying the files of a snapshot to another place, each verified, none twice."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vecdataset import engine, ledger, storage
from vecdataset.errors import (
    CollectionExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from vecdataset.manifests import (
    FOLDER,
    Copied,
    SealedFile,
    Snapshot,
    manifest_path,
    tag_path,
)
from vecdataset.sealing import THREADS, Progress
from vecdataset.storage import Files, Location, file_digest

_OURS = (f"{FOLDER}/", "_refs/", f"{ledger.FOLDER}/", "_vecdataset/")


def copy_snapshot(
    snapshot: Snapshot,
    source: Location,
    target: Location,
    *,
    ours: Mapping[str, SealedFile],
    fresh: bool,
    progress: Progress | None = None,
) -> Copied:
    """Copy the files that are not there yet; what stood before is verified, what arrives is too.

    Args:
        snapshot: What to copy.
        source: Its collection.
        target: Where to; a place with other files than those of `ours` is refused.
        ours: Files that snapshots of the source or of the target have sealed.
        fresh: The target must not hold a collection; what an interrupted copy left may be there.
        progress: Called with the share of bytes that is done, 0 to 1.

    Order: data first, then Lance's manifest, then the tag, then the sealed manifest: whoever looks
    meanwhile sees no collection, or a whole one.

    Raises:
        CorruptionError: A file of the snapshot is damaged.
        CollectionExistsError: Something else stands at the target.
    """
    refuse_within(source, target)
    have = check_target(snapshot, target, ours=ours, fresh=fresh)
    here, there = storage.files(source), storage.files(target)
    order = copy_order(snapshot)
    early = [f for f in order if not _late(f.path)]
    total = sum(f.size for f in order)
    done = Share(total, progress)
    with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:

        def move(f: SealedFile) -> int:
            _, moved = move_file(f.path, (f.size, f.sha256), here, there, have, folder)
            done.add(f.size)
            return f.size if moved else -1

        # Large files first: the last thread to finish then has little left to do.
        with ThreadPoolExecutor(THREADS) as pool:
            sizes = list(pool.map(move, sorted(early, key=lambda f: -f.size)))
        sizes += [move(f) for f in order if _late(f.path)]
    moved = [s for s in sizes if s >= 0]
    finish(snapshot, target, durable=source.durable)
    return Copied(url=target.url, copied=len(moved), skipped=len(order) - len(moved), size_bytes=sum(moved))


def copy_order(snapshot: Snapshot) -> list[SealedFile]:
    """Return the files in the order in which they may come: what makes a collection of the others last."""
    return sorted(snapshot.files, key=lambda f: (_late(f.path), f.path))


def finish(snapshot: Snapshot, target: Location, *, durable: bool = False) -> None:
    """Open what was copied, count its points, and write the sealed manifest."""
    there = storage.files(target)
    table = engine.open_table(target, version=snapshot.version)
    if not any(f.path == tag_path(snapshot.name) for f in snapshot.files) and (
        snapshot.name not in table.tags()
    ):
        table.set_tag(snapshot.name, snapshot.version)
    if table.count() != snapshot.rows:
        raise CorruptionError(f"{target.url} holds {table.count()} points; the snapshot says {snapshot.rows}")
    there.write(manifest_path(snapshot.name), snapshot.to_json().encode())
    if durable or target.durable:
        there.sync([*(f.path for f in snapshot.files), manifest_path(snapshot.name)])


def check_target(
    snapshot: Snapshot, target: Location, *, ours: Mapping[str, SealedFile], fresh: bool
) -> dict[str, int]:
    """Refuse a target that holds something else, or has no room; return the sizes of its files."""
    have = files_at(target, ours={*ours, *(f.path for f in snapshot.files)})
    # The sealed manifest comes last: without one, what stands there is a restore that did not end.
    if fresh and any(p.startswith(f"{FOLDER}/") for p in have):
        raise _occupied(target)
    room_for(sum(f.size for f in snapshot.files if f.path not in have), target)
    return have


def refuse_within(source: Location, target: Location) -> None:
    """Refuse a target in the collection's own folder, where clean-up would take it for left behind."""
    if source.shares_store(target) and target.uri.startswith(f"{source.uri.rstrip('/')}/"):
        raise InvalidInputError(f"{target.url} lies within {source.url}", hint="choose a place beside it")


def files_at(target: Location, *, ours: Container[str]) -> dict[str, int]:
    """Return the sizes of the files at a place where nothing stands but files of `ours`, or refuse it."""
    there = storage.files(target)
    if target.kind == "local" and Path(target.uri).is_file():
        raise CollectionExistsError(f"{target.url} is a file", hint="nothing was written; name a folder")
    have = {f.path: f.size for f in there.list_files()}
    if strangers(have, ours):
        raise _occupied(target)
    if have:
        for folder in ("data", "_versions", "_transactions", "_deletions", "_indices", FOLDER):
            if there.leads_outside(folder):
                raise CollectionExistsError(f"{folder} in {target.url} leads to another place, by a link")
    return have


def _occupied(target: Location) -> CollectionExistsError:
    return CollectionExistsError(
        f"{target.url} holds something already", hint="nothing was written; choose another place"
    )


def strangers(paths: Iterable[str], sealed: Container[str]) -> list[str]:
    """Return the paths of files that no snapshot has sealed, and that are not of our own records."""
    return [
        path
        for path in paths
        if path not in sealed and not path.startswith(_OURS) and not path.endswith("latest_version_hint.json")
    ]


def room_for(size: int, target: Location) -> None:
    """Refuse to begin where a local disk has no room."""
    if target.kind != "local":
        return
    place = Path(target.uri)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise StorageError(f"{target.url} needs {size:,} bytes, and its disk has {free:,}")


def _late(path: str) -> int:
    """Return in which turn a file is copied."""
    return 2 if path.startswith("_refs/") else 1 if path.startswith("_versions/") else 0


def move_file(
    path: str, known: ledger.Digest | None, here: Files, there: Files, have: Mapping[str, int], folder: str
) -> tuple[ledger.Digest, bool]:
    """Copy one file unless it is there; return its size and SHA-256, and whether it moved.

    Args:
        path: The file.
        known: Its size and SHA-256; None where nobody wrote them down, so that what is sent is hashed.
        here: Where it is.
        there: Where it goes.
        have: Sizes of the files that are there.
        folder: On the local disk, for what cannot go straight.

    Raises:
        CorruptionError: It is missing, or not what was written down.
        StorageError: What arrived is not what was sent.
    """
    if known is not None and have.get(path) == known[0] and there.digest(path) == known:
        return known, False
    if here.leads_outside(path):
        raise CorruptionError(f"{path} of {here.location.url} leads out of its collection, by a link")
    spool = Path(folder) / hashlib.sha256(path.encode()).hexdigest()
    try:
        if known is not None:
            arrived = here.copy_verified(path, there, spool)
        else:
            here.download(path, spool)
            known = file_digest(spool)
            if have.get(path) == known[0] and there.digest(path) == known:
                return known, False
            there.upload(spool, path)
            arrived = there.digest(path)
    except NotFoundError as exc:
        raise CorruptionError(
            f"{path} of {here.location.url} is missing; the copy was not finished", hint=_NAMES_ALL
        ) from exc
    finally:
        spool.unlink(missing_ok=True)
    if arrived != known:
        there.delete([path])
        if here.digest(path) != known:
            raise CorruptionError(
                f"{path} of {here.location.url} is damaged; the copy was not finished", hint=_NAMES_ALL
            )
        raise StorageError(f"{path} did not arrive at {there.location.url} as it was sent", hint="copy again")
    return known, True


_NAMES_ALL = "verify() names every damaged file"


class Share:
    """Counts bytes that several threads move, and tells the share of `total`."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = max(1, total)
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count these too."""
        if self._progress is None:
            return
        with self._lock:
            self._done += size
            self._progress(min(1.0, self._done / self._total))


def manifest_sizes(location: Location) -> dict[str, int]:
    """Return the names of the sealed manifests at a place with their sizes, sorted."""
    there = storage.files(location.child(FOLDER)).list_files(recursive=False)
    return dict(sorted((f.path.removesuffix(".json"), f.size) for f in there if f.path.endswith(".json")))


def sealed_at(location: Location) -> dict[str, SealedFile]:
    """Return the files that undamaged manifests at a place have sealed: their names are never used twice."""
    found: dict[str, SealedFile] = {}
    files = storage.files(location)
    for name in manifest_sizes(location):
        try:
            text = files.read(manifest_path(name))
            found |= {f.path: f for f in Snapshot.from_json(text, name=name, where=name).files}
        except (CorruptionError, NotFoundError, NotImplementedError):
            continue  # a damaged one is verify's business; here it only saves work
    return found
