"""All collections of a root, backed up to another place and brought back, each verified.

A backup is a root itself: each collection stands in it as a folder that can be opened, with its
snapshots. Beside them stand `manifest.json` for programs and `manifest.txt` for people. Running it
again to the same place moves only new files. One collection that fails does not stop the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from vecdataset import storage
from vecdataset.catalog import Catalog
from vecdataset.display import size
from vecdataset.errors import CorruptionError, NotFoundError, VecDatasetError
from vecdataset.snapshots import Copied

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one collection."""

    collection: str
    snapshot: str | None = None
    version: int | None = None
    rows: int | None = None
    size_bytes: int | None = None
    files: int | None = None
    root: str | None = None
    copied_files: int | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return self.error is None


def backup(
    root: Catalog, target: Catalog, *, names: Sequence[str] | None = None, told: Told | None = None
) -> list[Outcome]:
    """Seal each collection of `root`, and copy the snapshot to the same name beneath `target`.

    Args:
        root: Where the collections are.
        target: Where the backup is, or will be.
        names: Only these; None is all.
        told: Called with a line for each collection.

    Returns:
        One outcome each; look for `error`.
    """
    outcomes = []
    for name in root.list() if names is None else names:
        outcomes.append(_attempt(name, lambda n: _backed_up(root, target, n)))
        if told is not None:
            told(_line(outcomes[-1]))
    _write_manifests(root, target, outcomes)
    return outcomes


def _attempt(name: str, work: Callable[[str], Outcome]) -> Outcome:
    try:
        return work(name)
    except (VecDatasetError, OSError) as exc:
        return Outcome(collection=name, error=str(exc))


def _backed_up(root: Catalog, target: Catalog, name: str) -> Outcome:
    collection = root.open(name)
    snapshot = collection.snapshots.create(note="backup")
    copied: Copied = collection.snapshots.copy(snapshot.name, target.location(name))
    return Outcome(
        collection=name,
        snapshot=snapshot.name,
        version=snapshot.version,
        rows=snapshot.rows,
        size_bytes=snapshot.size_bytes,
        files=len(snapshot.files),
        root=snapshot.root,
        copied_files=copied.copied,
    )


def restore(
    source: Catalog, root: Catalog, *, names: Sequence[str] | None = None, told: Told | None = None
) -> list[Outcome]:
    """Bring collections of a backup back beneath `root`, where their names must be free.

    Args:
        source: The backup.
        root: Where to put them.
        names: Only these; None is all.
        told: Called with a line for each collection.

    Raises:
        NotFoundError: The place holds no backup.
        CorruptionError: Its manifest does not parse.
    """
    wanted = {o.collection: o for o in read_manifest(source) if o.ok}
    outcomes = []
    for name in wanted if names is None else names:
        outcomes.append(_attempt(name, lambda n: _restored(source, root, wanted, n)))
        if told is not None:
            told(_line(outcomes[-1]))
    return outcomes


def _restored(source: Catalog, root: Catalog, wanted: dict[str, Outcome], name: str) -> Outcome:
    if name not in wanted or wanted[name].snapshot is None:
        raise NotFoundError(f"the backup {source.url} holds no collection {name!r}")
    known = wanted[name]
    assert known.snapshot is not None
    snapshots = source.open(name).snapshots
    found = snapshots.get(known.snapshot)
    if found.root != known.root:
        raise CorruptionError(f"snapshot {known.snapshot!r} of {name!r} is not the one that was backed up")
    snapshots.restore(known.snapshot, into=root.location(name))
    restored = root.open(name)
    report = restored.snapshots.verify(known.snapshot)
    if not report or len(restored) != known.rows:
        raise CorruptionError(
            f"{name!r} was restored with {len(restored)} points; {known.rows} were backed up"
        )
    return known


def read_manifest(source: Catalog) -> list[Outcome]:
    """Return what a backup says it holds."""
    try:
        text = storage.files(source.root).read(MANIFEST)
    except NotFoundError as exc:
        raise NotFoundError(
            f"{source.url} holds no backup: there is no {MANIFEST}",
            hint="`vecdataset backup ROOT TARGET` makes one",
        ) from exc
    try:
        return [Outcome(**entry) for entry in json.loads(text)["collections"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptionError(f"{MANIFEST} of {source.url} does not parse: {exc}") from exc


def _write_manifests(root: Catalog, target: Catalog, outcomes: Sequence[Outcome]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    files = storage.files(target.root)
    body: dict[str, Any] = {
        "version": _FORMAT,
        "created_at": now,
        "root": root.url,
        "collections": [asdict(o) for o in outcomes],
    }
    lines = [
        "vecdataset Backup Manifest",
        f"Backup Date: {now}",
        f"Root: {root.url}",
        "",
        "Collections Backed Up:",
    ]
    lines += [f"  {_line(o)}" for o in outcomes]
    files.write("manifest.txt", ("\n".join(lines) + "\n").encode())
    files.write(MANIFEST, json.dumps(body, indent=1, ensure_ascii=False).encode())


def _line(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"{outcome.collection}: FAILED: {outcome.error}"
    return (
        f"{outcome.collection}: {outcome.rows:,} points, {size(outcome.size_bytes or 0)}, "
        f"snapshot {outcome.snapshot}, root {outcome.root}"
    )
