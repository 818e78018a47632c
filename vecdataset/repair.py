"""A collection whose newest version cannot be read goes back to the last one that can.

Lance opens a dataset by its newest manifest. One that a power failure or a bad disk left torn
makes the whole dataset unopenable, although every older version is whole. `repair` moves such
manifests aside, into `_damaged/`, one after the other, until a version opens and counts
its rows. Nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vecdataset import engine, storage
from vecdataset.errors import CollectionNotFoundError, CorruptionError, StorageError, VecDatasetError
from vecdataset.reader import Reader
from vecdataset.storage import Location

ASIDE: Final = "_damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What stands in the way of opening a collection, and what was, or would be, done."""

    url: str
    damaged: Sequence[tuple[int, str]]
    """Versions that cannot be read, newest first, and why."""
    last_good: int | None
    """The newest version that can; None where no version can."""
    rows: int | None
    """Points in it."""
    moved: Sequence[str]
    """Files that were moved into `_damaged/`; empty in a dry run."""

    def __bool__(self) -> bool:
        return bool(self.damaged)

    def __str__(self) -> str:
        if not self.damaged:
            return f"{self.url}: version {self.last_good} can be read; there is nothing to repair"
        lines = [f"{self.url}: version {v} cannot be read: {why}" for v, why in self.damaged]
        if self.last_good is None:
            lines.append("no older version can be read")
        else:
            done = "went back" if self.moved else "would go back"
            lines.append(f"{done} to version {self.last_good}, which holds {self.rows:,} points")
        lines += [f"moved to {path}" for path in self.moved]
        return "\n".join(lines)


def repair(location: Location, *, dry_run: bool = True) -> Repair:
    """Look for a version that can be read, and go back to it.

    Args:
        location: The collection.
        dry_run: Only say what would be done.

    Raises:
        CollectionNotFoundError: There is no manifest at all.
        CorruptionError: No version can be read; nothing was moved.
    """
    on_disk = engine.manifests(location)
    if not on_disk:
        raise CollectionNotFoundError(f"no collection at {location.url}")
    damaged: list[tuple[int, str]] = []
    good: int | None = None
    rows: int | None = None
    for version in on_disk:
        try:
            rows = _readable(location, version)
        except StorageError as exc:
            if not isinstance(exc, CorruptionError):
                raise
            damaged.append((version, exc.message))
        except VecDatasetError as exc:
            damaged.append((version, exc.message))
        else:
            good = version
            break
    if good is None and not dry_run:
        raise CorruptionError(
            f"no version of {location.url} can be read", hint="restore a snapshot's copy; nothing was moved"
        )
    moved: list[str] = []
    if not dry_run:
        files = storage.files(location)
        for version, _ in damaged:
            path = on_disk[version]
            aside = f"{ASIDE}/{path.rpartition('/')[2]}"
            files.write(aside, files.read(path))
            files.delete([path])
            moved.append(aside)
    return Repair(url=location.url, damaged=damaged, last_good=good, rows=rows, moved=moved)


def _readable(location: Location, version: int) -> int:
    """Open a version by its number and read its ids; return how many."""
    table = engine.open_table(location, version=version)
    reader = Reader(table, name=location.name)
    if reader.schema.id_type is None:
        return 0
    return sum(batch.num_rows for batch in table.scan(["id"]))


def newest_is_damaged(location: Location) -> int | None:
    """Return the newest version on disk if it cannot be read, for a message; None if it can."""
    try:
        version = next(iter(engine.manifests(location)), None)
        if version is None:
            return None
        _readable(location, version)
    except VecDatasetError:
        return version
    return None
