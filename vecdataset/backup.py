"""All collections of a root, backed up to another place and brought back, each verified.

A backup is a root itself: each collection stands in it as a folder that can be opened, with its
snapshots. Beside them stand `manifest.json` for programs and `manifest.txt` for people. Running it
again to the same place moves only new files. One collection that fails does not stop the others, and
what an earlier run brought of it stays the one to restore.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vecdataset import storage
from vecdataset.catalog import Catalog
from vecdataset.collection import Collection
from vecdataset.display import size
from vecdataset.errors import (
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    VecDatasetError,
)
from vecdataset.sealing import Progress
from vecdataset.snapshots import Copied, Snapshot

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_NOTE: Final = "backup"
"""Tells the snapshots that backups made from those that people did."""

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
    created_at: str | None = None
    """When the snapshot was sealed; UTC, ISO 8601."""
    pruned: int = 0
    """Snapshots of earlier backups that went from the target."""

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return self.error is None


def backup(
    root: Catalog,
    target: Catalog,
    *,
    names: Sequence[str] | None = None,
    keep_last: int | None = None,
    told: Told | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Seal each collection of `root`, and copy the snapshot to the same name beneath `target`.

    Args:
        root: Where the collections are.
        target: Where the backup is, or will be.
        names: Only these; None is all. What the target has of others stays.
        keep_last: Then keep so many of the snapshots that backups made, here and there, and remove the files
            at the target that no snapshot needs any more. Snapshots made by hand stay. None keeps all.
        told: Called with a line for each collection.
        progress: Called with the share that is done, 0 to 1.

    Returns:
        One outcome each; look for `error`.
    """
    if root.url == target.url:
        raise InvalidInputError(f"{root.url} cannot be its own backup", hint="choose another place")
    outcomes: list[Outcome] = []
    chosen = list(root.list() if names is None else names)
    for at, name in enumerate(chosen):
        share = _part(progress, at, len(chosen))
        outcomes.append(_attempt(name, lambda n, p=share: _backed_up(root, target, n, keep_last, p)))  # type: ignore[misc]
        if told is not None:
            told(_line(outcomes[-1]))
    _write_manifests(root, target, outcomes)
    return outcomes


def _attempt(name: str, work: Callable[[str], Outcome]) -> Outcome:
    try:
        return work(name)
    except (VecDatasetError, OSError) as exc:
        return Outcome(collection=name, error=str(exc))


def _part(progress: Progress | None, at: int, of: int) -> Progress | None:
    return None if progress is None else (lambda share: progress((at + share) / of))


def _backed_up(
    root: Catalog, target: Catalog, name: str, keep_last: int | None, progress: Progress | None
) -> Outcome:
    collection = root.open(name)
    snapshot = _newest(collection) or collection.snapshots.create(note=_NOTE)
    copied: Copied = collection.snapshots.copy(snapshot.name, target.location(name), progress=progress)
    pruned = 0
    if keep_last is not None:
        _prune(collection, keep_last)
        pruned = _prune(target.open(name), keep_last)
        if pruned:
            # Nobody writes there: what no snapshot holds is not needed, however young it is.
            target.open(name).clean_up(older_than=timedelta(0), orphans=True)
    return Outcome(
        collection=name,
        snapshot=snapshot.name,
        version=snapshot.version,
        rows=snapshot.rows,
        size_bytes=snapshot.size_bytes,
        files=len(snapshot.files),
        root=snapshot.root,
        copied_files=copied.copied,
        created_at=snapshot.created_at,
        pruned=pruned,
    )


def _made_by_backups(collection: Collection) -> list[dict[str, Any]]:
    return [s for s in collection.snapshots if s["state"] == "sealed" and s["note"] == _NOTE]


def _newest(collection: Collection) -> Snapshot | None:
    """Return the last backup's snapshot if nothing was written since."""
    last = next(iter(_made_by_backups(collection)), None)
    if last is None or last["version"] != collection.refresh().version:
        return None
    return collection.snapshots.get(last["name"])


def _prune(collection: Collection, keep_last: int) -> int:
    going = _made_by_backups(collection)[max(1, keep_last) :]
    for old in going:
        collection.snapshots.delete(old["name"])
    return len(going)


def restore(
    source: Catalog,
    root: Catalog | None,
    *,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    deep: bool = False,
    told: Told | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Bring collections of a backup back beneath `root`, where their names must be free.

    Args:
        source: The backup.
        root: Where to put them; None only verifies every file of the backup.
        names: Only these; None is all, with their aliases.
        overwrite: A collection that stands there is moved aside, to a name that begins with its own and
            `before-restore`; nothing is deleted.
        dry_run: Verify, look whether names are free and room is there, and write nothing.
        deep: Also read every value when verifying.
        told: Called with a line for each collection.
        progress: Called with the share that is done, 0 to 1.

    Raises:
        NotFoundError: The place holds no backup.
        CorruptionError: Its manifest does not parse.
    """
    wanted = {o.collection: o for o in read_manifest(source) if o.ok}
    outcomes: list[Outcome] = []
    chosen = list(wanted if names is None else names)
    for at, name in enumerate(chosen):
        share = _part(progress, at, len(chosen))

        def work(n: str, p: Progress | None = share) -> Outcome:
            known = _sealed_outcome(source, wanted, n)
            if root is None or deep:
                _verified(source, known, deep=deep)
            if root is not None:
                _restored(source, root, known, overwrite=overwrite, dry_run=dry_run, progress=p)
            return known

        outcomes.append(_attempt(name, work))
        if told is not None:
            told(_line(outcomes[-1]))
    if root is not None and not dry_run:
        _restore_aliases(source, root, {o.collection for o in outcomes if o.ok})
    return outcomes


def _sealed_outcome(source: Catalog, wanted: dict[str, Outcome], name: str) -> Outcome:
    known = wanted.get(name)
    if known is None or known.snapshot is None:
        raise NotFoundError(f"the backup {source.url} holds no collection {name!r}")
    if source.open(name).snapshots.get(known.snapshot).root != known.root:
        raise CorruptionError(f"snapshot {known.snapshot!r} of {name!r} is not the one that was backed up")
    return known


def _verified(source: Catalog, known: Outcome, *, deep: bool) -> None:
    report = source.open(known.collection).snapshots.verify(known.snapshot, deep=deep)
    if not report:
        raise CorruptionError(str(report))


def _restored(
    source: Catalog,
    root: Catalog,
    known: Outcome,
    *,
    overwrite: bool,
    dry_run: bool,
    progress: Progress | None,
) -> None:
    assert known.snapshot is not None
    name = known.collection
    source.open(name).snapshots.restore(
        known.snapshot, into=root.location(name), overwrite=overwrite, dry_run=dry_run, progress=progress
    )
    if dry_run:
        return
    # The files were compared with their digests as they arrived: what is left is whether they open.
    restored = root.open(name)
    if len(restored) != known.rows:
        raise CorruptionError(
            f"{name!r} was restored with {len(restored)} points; {known.rows} were backed up"
        )


def _restore_aliases(source: Catalog, root: Catalog, restored: set[str]) -> None:
    taken = root.aliases()
    for alias, name in _read(source).get("aliases", {}).items():
        if name in restored and alias not in taken:
            with suppress(AlreadyExistsError):
                root.alias(alias, name)


def read_manifest(source: Catalog) -> list[Outcome]:
    """Return what a backup says it holds."""
    body = _read(source)
    try:
        return [Outcome(**entry) for entry in body["collections"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptionError(f"{MANIFEST} of {source.url} does not parse: {exc}") from exc


def _read(source: Catalog) -> dict[str, Any]:
    try:
        text = storage.files(source.root).read(MANIFEST)
    except NotFoundError as exc:
        raise NotFoundError(
            f"{source.url} holds no backup: there is no {MANIFEST}",
            hint="`vecdataset backup ROOT TARGET` makes one",
        ) from exc
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CorruptionError(f"{MANIFEST} of {source.url} does not parse: {exc}") from exc
    if not isinstance(body, dict) or not isinstance(body.get("aliases", {}), dict):
        raise CorruptionError(f"{MANIFEST} of {source.url} does not parse: no backup writes this")
    if "qdrant" in body and "collections" not in body:
        raise InvalidInputError(
            f"{source.url} is a backup of a Qdrant server, not of collections",
            hint="restore it to qdrant://HOST, or import its .snapshot files",
        )
    return body


def _write_manifests(root: Catalog, target: Catalog, outcomes: Sequence[Outcome]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    files = storage.files(target.root)
    held: dict[str, Outcome] = {}
    with suppress(NotFoundError, CorruptionError):
        held = {o.collection: o for o in read_manifest(target) if o.ok}
    held |= {o.collection: o for o in outcomes if o.ok}
    failed = [o for o in outcomes if not o.ok]
    body: dict[str, Any] = {
        "version": _FORMAT,
        "created_at": now,
        "root": root.url,
        "aliases": {a: n for a, n in root.aliases().items() if n in held},
        "collections": [asdict(held[name]) for name in sorted(held)],
        "failed": [{"collection": o.collection, "error": o.error} for o in failed],
    }
    lines = [
        "vecdataset Backup Manifest",
        f"Backup Date: {now}",
        f"Root: {root.url}",
        "",
        "Collections Backed Up:",
    ]
    lines += [f"  {_line(held[name])}" for name in sorted(held)]
    if failed:
        lines += ["", "Failed This Time:", *(f"  {_line(o)}" for o in failed)]
    files.write("manifest.txt", ("\n".join(lines) + "\n").encode())
    files.write(MANIFEST, json.dumps(body, indent=1, ensure_ascii=False).encode())


def _line(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"{outcome.collection}: FAILED: {outcome.error}"
    return (
        f"{outcome.collection}: {outcome.rows:,} points, {size(outcome.size_bytes or 0)}, "
        f"snapshot {outcome.snapshot} of {outcome.created_at}, root {outcome.root}"
    )
