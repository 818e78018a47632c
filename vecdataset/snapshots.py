"""Snapshots: tagged versions of a collection, each with a sealed manifest of every file it needs.

Lance keeps versions and no checksums: most flipped bytes of a data file read back as other
values. A manifest (see `manifests.py`) stands beside the data as `_snapshots/<name>.json`. Making
one copies nothing and blocks no writer: the tag comes first, so that clean-up keeps the version while its
files are hashed. Files never change once written, so a digest that an earlier manifest sealed is
not computed again, and the others are compared with what their commits put on record.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from vecdataset import ledger, storage
from vecdataset.archives import pack
from vecdataset.copying import check_target, copy_snapshot, manifest_sizes, sealed_at, strangers
from vecdataset.differences import Difference, difference
from vecdataset.errors import (
    AlreadyExistsError,
    CollectionExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    NotSupportedError,
    SnapshotNotFoundError,
    did_you_mean,
)
from vecdataset.frames import Frame
from vecdataset.manifests import (
    MAX_MANIFEST_BYTES,
    Copied,
    SealedFile,
    Snapshot,
    Verification,
    manifest_path,
    root_of,
    tag_path,
)
from vecdataset.reader import DROPPED_TAG, Host, Reader
from vecdataset.sealing import Progress, compare, data_paths, deep, seal_files, sealed_file
from vecdataset.storage import Files, Location

__all__ = ["Copied", "Difference", "Snapshot", "Snapshots", "Verification"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Snapshots:
    """The snapshots of one collection."""

    def __init__(self, host: Host) -> None:
        """Use `Collection.snapshots` instead."""
        self._host = host

    @property
    def _location(self) -> Location:
        return self._host.reader().table.location

    @property
    def _files(self) -> Files:
        return storage.files(self._location)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.list().to_pylist())

    def __len__(self) -> int:
        return len(self._sizes())

    def create(
        self, name: str | None = None, *, note: str | None = None, progress: Progress | None = None
    ) -> Snapshot:
        """Seal the newest version.

        Args:
            name: Letters, digits, `.`, `_`, `-`, not all digits; None takes `{collection}_{unix seconds}`.
            note: Text for people, stored in the manifest.
            progress: Called with the share that is done, 0 to 1.

        Costs one tag, and the hashing of the files that no snapshot has sealed yet. Files whose
        digests are not on record are also read to the last value.

        Raises:
            AlreadyExistsError: A snapshot of this name is there.
            CorruptionError: A file is not what was written; it is named, and nothing was sealed.
        """
        reader = self._host.writer()
        tags = _tags(reader)
        chosen = _checked_name(name) if name is not None else _free_name(reader.name, tags)
        if chosen in tags:
            sealed = chosen in self._sizes()
            raise AlreadyExistsError(
                f"{reader.where} has a snapshot {chosen!r} already",
                hint="choose another name, or delete it"
                if sealed
                else "it was never sealed: a crash came first; delete it, then create it again",
            )
        reader.table.set_tag(chosen, reader.table.version)
        try:
            return self._seal(reader, chosen, note, progress)
        except BaseException:
            self._remove(reader, chosen)
            raise

    def _seal(self, reader: Reader, name: str, note: str | None, progress: Progress | None) -> Snapshot:
        files = self._files
        sealed = seal_files(reader, self._sealed(), progress)
        sealed.append(sealed_file(files, tag_path(name)))
        snapshot = Snapshot(
            name=name,
            collection=reader.name,
            version=reader.table.version,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            rows=reader.rows,
            size_bytes=sum(f.size for f in sealed),
            files=tuple(sealed),
            root=root_of(sealed),
            note=note,
            schema=reader.table.schema.to_string(show_field_metadata=False, show_schema_metadata=False),
            tool=ledger.tool(),
        )
        files.write(manifest_path(name), snapshot.to_json().encode())
        if self._location.durable:
            files.sync([*(f.path for f in sealed), manifest_path(name)])
        return snapshot

    def _sealed(self) -> dict[str, SealedFile]:
        return sealed_at(self._location)

    def _sizes(self) -> dict[str, int]:
        return manifest_sizes(self._location)

    def list(self) -> Frame:
        """Return the snapshots, newest first, with version, rows, bytes, time, note and state.

        A tag without a manifest, as a crash leaves it, is listed as `unsealed`; a manifest that does not
        hold its seal as `damaged`.
        """
        tags = _tags(self._host.reader())
        rows: list[dict[str, Any]] = []
        for name in sorted({*tags, *self._sizes()}):
            row = dict.fromkeys(_LISTED) | {"name": name, "version": tags.get(name), "state": "unsealed"}
            try:
                found = self.get(name)
                row |= {k: getattr(found, k) for k in _LISTED if k != "state"}
                row |= {"created_at": datetime.fromisoformat(found.created_at), "state": "sealed"}
            except (CorruptionError, NotSupportedError):
                row["state"] = "damaged"
            except (NotFoundError, InvalidInputError):
                pass
            rows.append(row)
        newest = datetime.max.replace(tzinfo=UTC)
        rows.sort(key=lambda r: (r["created_at"] or newest, r["version"] or 0), reverse=True)
        return Frame(pa.Table.from_pylist(rows, schema=_LISTED_SCHEMA))

    def get(self, name: str) -> Snapshot:
        """Return a snapshot's manifest.

        Raises:
            SnapshotNotFoundError: There is none.
            CorruptionError: The manifest is damaged.
        """
        path = manifest_path(_checked_name(name))
        size = self._sizes().get(name)
        if size is None:
            raise self._not_found(name)
        if size > MAX_MANIFEST_BYTES:
            raise CorruptionError(f"{path} of collection {self._host.name!r} has {size:,} bytes: no manifest")
        try:
            text = self._files.read(path)
        except NotFoundError as exc:
            raise self._not_found(name) from exc
        return Snapshot.from_json(text, name=name, where=f"{path} of collection {self._host.name!r}")

    def _not_found(self, name: str) -> SnapshotNotFoundError:
        return SnapshotNotFoundError(
            f"collection {self._host.name!r} has no snapshot {name!r}",
            hint=did_you_mean(name, self._sizes(), what="snapshots"),
        )

    def delete(self, name: str) -> None:
        """Remove a snapshot: its manifest and its tag; clean-up may then remove the version's files."""
        reader = self._host.writer()
        if name not in _tags(reader) and not self._files.exists(manifest_path(_checked_name(name))):
            raise self._not_found(name)
        self._remove(reader, name)

    def _remove(self, reader: Reader, name: str) -> None:
        """Manifest first: after a crash in between the tag still keeps the version."""
        self._files.delete([manifest_path(name)])
        if name in reader.table.tags():
            reader.table.set_tag(name, None)
        else:
            self._files.delete([tag_path(name)])  # one that Lance cannot parse

    def prune(
        self,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
    ) -> Sequence[str]:
        """Delete snapshots, and return their names.

        Args:
            keep_last: The newest so many stay, whatever their age.
            older_than: Only snapshots older than this go.
            dry_run: Only say which would go.

        No file goes here: clean-up later removes those that no snapshot and no young version needs.
        """
        if keep_last is None and older_than is None:
            raise InvalidInputError("prune takes keep_last, older_than, or both; neither was given")
        if keep_last is not None and (
            isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 0
        ):
            raise InvalidInputError(f"keep_last is {keep_last!r}; it must be an integer of at least 0")
        sealed = [r for r in self.list().to_pylist() if r["state"] == "sealed"]
        going = sealed[keep_last or 0 :]
        if older_than is not None:
            limit = datetime.now(UTC) - older_than
            going = [r for r in going if r["created_at"] < limit]
        names = [r["name"] for r in going]
        if not dry_run:
            for name in names:
                self.delete(name)
        return names

    # -- trust

    def verify(
        self,
        name: str | None = None,
        *,
        current: bool = False,
        deep: bool = False,
        progress: Progress | None = None,
    ) -> Verification | Sequence[Verification]:
        """Compare every file of a snapshot with its manifest.

        Args:
            name: One snapshot; None verifies all, and returns a list.
            current: Instead compare the newest version with what its commits, and the snapshots, have
                on record.
            deep: Also read every value, count the rows, and look for ids that stand twice and for
                vectors that are not finite.
            progress: Called with the share that is done, 0 to 1.

        Returns:
            What was found; true when nothing is wrong.
        """
        if current:
            if name is not None:
                raise InvalidInputError(f"verify takes a snapshot, here {name!r}, or current, not both")
            return self._verify_records(self._host.reader(), read=deep, progress=progress)
        if name is not None:
            return self._verify(name, read=deep, progress=progress)
        names = sorted({*_tags(self._host.reader()), *self._sizes()})
        return [
            self._verify(n, read=deep, progress=_part(progress, at, len(names))) for at, n in enumerate(names)
        ]

    def _verify(self, name: str, *, read: bool, progress: Progress | None) -> Verification:
        started = time.perf_counter()
        reader = self._host.reader()
        version = reader.table.tags().get(name)
        try:
            snapshot = self.get(name)
        except SnapshotNotFoundError:
            if version is None:
                raise
            return _unusable(name, version, f"missing   {manifest_path(name)}")
        except (CorruptionError, NotSupportedError) as exc:
            return _unusable(name, version or 0, exc.message)
        problems = []
        if version is None:
            problems.append(f"missing   {tag_path(name)}: clean-up may remove the version")
        elif version != snapshot.version:
            problems.append(f"changed   {tag_path(name)}: it names version {version}, not {snapshot.version}")
        found = compare(self._files, snapshot.files, progress)
        if read and not any(found.values()):
            problems += deep(Reader(reader.table.at(snapshot.version), name=reader.name), rows=snapshot.rows)
        return Verification(
            snapshot=name,
            version=snapshot.version,
            files=len(snapshot.files),
            size_bytes=snapshot.size_bytes,
            extra=self._extra(),
            problems=tuple(problems),
            deep=read,
            elapsed_s=time.perf_counter() - started,
            **found,
        )

    def _extra(self) -> tuple[str, ...]:
        """Return files that no snapshot names, in a copy that nobody has written to since.

        Such a copy has sealed versions only, and no record of commits. Elsewhere a file without a name
        may be a writer's, on its way to a commit.
        """
        there, sealed = [f.path for f in self._files.list_files()], self._sealed()
        versions = [p for p in there if p.startswith("_versions/") and p.endswith(".manifest")]
        if any(p.startswith(f"{ledger.FOLDER}/") for p in there) or not sealed.keys() >= set(versions):
            return ()
        return tuple(sorted(strangers(there, sealed)))

    def _verify_records(self, reader: Reader, *, read: bool, progress: Progress | None) -> Verification:
        """Compare a version's files with what the snapshots and the commits have on record."""
        started = time.perf_counter()
        recorded, sealed = ledger.read_ledger(self._location).digests, self._sealed()
        expected, unrecorded = [], []
        for path in data_paths(reader):
            if path in sealed:
                expected.append(sealed[path])
            elif path in recorded:
                size, digest = recorded[path]
                expected.append(SealedFile(path=path, size=size, sha256=digest))
            else:
                unrecorded.append(path)
        found = compare(self._files, expected, progress)
        problems = deep(reader, rows=reader.rows) if read and not any(found.values()) else []
        return Verification(
            snapshot=None,
            version=reader.table.version,
            files=len(expected),
            size_bytes=sum(f.size for f in expected),
            problems=tuple(problems),
            unrecorded=tuple(unrecorded),
            deep=read,
            elapsed_s=time.perf_counter() - started,
            **found,
        )

    def _trusted(self, name: str, progress: Progress | None = None) -> Snapshot:
        # A file too many takes nothing away from those that the snapshot names.
        report = replace(self._verify(name, read=False, progress=progress), extra=())
        if not report:
            raise CorruptionError(
                f"snapshot {name!r} of collection {self._host.name!r} is damaged and was not used:\n{report}",
                hint="restore another snapshot, or a copy of this one",
            )
        return self.get(name)

    # -- moving

    def restore(
        self,
        name: str | int,
        *,
        into: Any = None,
        overwrite: bool = False,
        dry_run: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Bring a snapshot back, after it has been verified; return the URL that holds it.

        Args:
            name: The snapshot; or a version that is still there, in place alone, which is compared with
                what its commits, and the snapshots, have on record.
            into: A name beside the collection, or a URL, that is free; None makes it the newest
                version of the collection itself. What was newest before is sealed first, as
                `before-restore-…`, and stays; where it is damaged it stays as a version, unsealed.
            overwrite: What stands at `into` is moved aside first, to a name beside it that begins with
                its own and `before-restore`; nothing is deleted.
            dry_run: Verify, look whether the target is free and has room, and write nothing.
            storage_options: Of the target's filesystem.
            progress: Called with the share that is done, 0 to 1.

        Raises:
            CorruptionError: The snapshot is damaged; nothing was written.
            CollectionExistsError: Something stands at `into`.
        """
        if isinstance(name, int) and into is not None:
            raise InvalidInputError(
                f"version {name} is no snapshot, and is restored in place alone",
                hint="restore it, and create a snapshot",
            )
        if into is None:
            version = self._trusted_version(name, _part(progress, 0, 2))
            if not dry_run:
                self._restore_in_place(name, version)
            _told(progress)
            return self._location.url
        snapshot = self._trusted(str(name), _part(progress, 0, 2))
        target = self._target(into, storage_options)
        if target.url == self._location.url:
            raise InvalidInputError(f"{target.url} is the collection itself", hint="leave `into` out")
        ours = {f.path: f for f in snapshot.files}
        try:
            check_target(snapshot, target, ours=ours, fresh=True)
        except CollectionExistsError:
            if not overwrite:
                raise
            if not dry_run:
                _move_aside(target)
        if dry_run:
            return target.url
        copied = copy_snapshot(
            snapshot, self._location, target, ours=ours, fresh=True, progress=_part(progress, 1, 2)
        )
        return copied.url

    def _trusted_version(self, name: str | int, progress: Progress | None) -> int:
        if isinstance(name, str):
            return self._trusted(name, progress).version
        reader = self._host.reader()
        old = Reader(reader.table.at(name), name=reader.name)
        report = self._verify_records(old, read=False, progress=progress)
        if not report:
            raise CorruptionError(
                f"version {name} of collection {self._host.name!r} is damaged and was not used:\n{report}",
                hint="restore a snapshot",
            )
        return name

    def _restore_in_place(self, name: str | int, version: int) -> None:
        reader = self._host.writer()
        if reader.table.version == version:
            return
        safety = _free_name(f"before-restore-{reader.table.version}", reader.table.tags())
        reader.table.set_tag(safety, reader.table.version)
        try:
            self._seal(reader, safety, f"made before the restore of {name!r}", None)
        except (CorruptionError, NotFoundError):
            # What is damaged is what the restore is for: its version stays, tagged and never sealed.
            self._files.delete([manifest_path(safety)])
        self._host.advance(reader.table.restore(version))

    def copy(
        self,
        name: str,
        url: Any,
        *,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy a snapshot to another place, as a collection of its own.

        A second copy to the same place moves only files that are not there, so an interrupted one goes
        on where it stopped. Each file is verified after it was written, so that a damaged one never counts
        as copied; Lance's manifest and ours come last.

        Raises:
            CorruptionError: A file of the snapshot is damaged.
            CollectionExistsError: Something else stands there.
        """
        snapshot = self.get(name)
        target = self._target(url, storage_options)
        # A place is ours to go on with where every file is one that a snapshot sealed, here or there.
        ours = self._sealed() | sealed_at(target)
        return copy_snapshot(snapshot, self._location, target, ours=ours, fresh=False, progress=progress)

    def pack(
        self,
        name: str,
        archive: Any,
        *,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Write a snapshot into one file, `.tar`, `.tar.gz` or `.tgz`; return its URL.

        Each file is compared with its digest on the way. `vecdataset.archives.unpack` makes it a
        collection again.

        Raises:
            CorruptionError: A file of the snapshot is damaged; no archive was written.
        """
        return pack(
            self.get(name), self._location, archive, storage_options=storage_options, progress=progress
        )

    def _target(self, into: Any, options: Mapping[str, Any] | None) -> Location:
        if isinstance(into, Location):
            return into
        if isinstance(into, str) and not set(into) & set("/\\:"):
            return self._location.sibling(_checked_name(into, what="collection"))
        return storage.resolve(into, storage_options=options)

    # -- what changed

    def diff(self, old: str | int, new: str | int | None = None) -> Difference:
        """Return the points added, changed and removed from one snapshot or version to another.

        Args:
            old: A snapshot's name or a version.
            new: The same; None is the newest version.

        Only rows outside of the fragments that both share are read.
        """
        reader = self._host.reader()
        a, b = self._version(reader, old), reader if new is None else self._version(reader, new)
        return difference(a, b)

    def _version(self, reader: Reader, which: str | int) -> Reader:
        if isinstance(which, str):
            tags = reader.table.tags()
            if which not in tags:
                raise self._not_found(which)
            which = tags[which]
        return Reader(reader.table.at(which), name=reader.name)


_LISTED_SCHEMA: Final = pa.schema(
    [
        ("name", pa.string()), ("version", pa.int64()), ("created_at", pa.timestamp("us", tz="UTC")),
        ("rows", pa.int64()), ("size_bytes", pa.int64()), ("note", pa.string()), ("root", pa.string()),
        ("state", pa.string()),
    ]
)  # fmt: skip
_LISTED: Final = tuple(_LISTED_SCHEMA.names)


def _unusable(name: str, version: int, problem: str) -> Verification:
    return Verification(snapshot=name, version=version, files=0, size_bytes=0, problems=(problem,))


def _move_aside(target: Location) -> None:
    aside = target.sibling(f"{target.name}-before-restore-{int(time.time())}")
    storage.files(target).rename_tree(aside)


def _part(progress: Progress | None, at: int, of: int) -> Progress | None:
    return None if progress is None else (lambda share: progress((at + share) / of))


def _told(progress: Callable[[float], None] | None) -> None:
    if progress is not None:
        progress(1.0)


def _tags(reader: Reader) -> dict[str, int]:
    return {t: v for t, v in reader.table.tags().items() if not t.startswith(DROPPED_TAG)}


def _checked_name(name: str, *, what: str = "snapshot") -> str:
    hopeless = not isinstance(name, str) or not _NAME.fullmatch(name) or name.isdigit() or ".." in name
    if hopeless or name.startswith(DROPPED_TAG):
        raise InvalidInputError(
            f"{name!r} cannot name a {what}",
            hint="use letters, digits, '.', '_' and '-', beginning with a letter or digit, not digits alone",
        )
    return name


def _free_name(stem: str, taken: Iterable[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip("._-") or "snapshot"
    name = f"{stem}_{int(time.time())}"
    taken, number, chosen = set(taken), 1, name
    while chosen in taken:
        chosen, number = f"{name}-{number}", number + 1
    return chosen
