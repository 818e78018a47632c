"""Snapshots: a tagged version of a collection with a sealed manifest of every file it needs.

Lance keeps versions and no checksums: most flipped bytes of a data file read back as other
values. A manifest names each file of the version with its size and SHA-256, and seals itself:

- `root` is the SHA-256 over the files, sorted by path, one line each of `path`, size and
  SHA-256 joined by NUL;
- `seal` is the SHA-256 over the manifest's own JSON (sorted keys, no spaces) without `seal`.

It stands beside the data as `_snapshots/<name>.json`. Making one copies nothing and blocks no
writer: the tag comes first, so that clean-up keeps the version while its files are hashed. Files never
change once written, so a digest that an earlier manifest sealed is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from vecdataset import engine, storage
from vecdataset.engine import Table
from vecdataset.errors import (
    AlreadyExistsError,
    CollectionExistsError,
    CorruptionError,
    InvalidInputError,
    InvalidVectorError,
    NotFoundError,
    NotSupportedError,
    SnapshotNotFoundError,
    StorageError,
    VecDatasetError,
    did_you_mean,
)
from vecdataset.frames import Frame
from vecdataset.reader import DROPPED_TAG, Reader
from vecdataset.schema import FORMAT_VERSION, vector_column
from vecdataset.storage import Files, Location
from vecdataset.vectors import fit_vectors

MANIFEST_VERSION: Final = 1
FOLDER: Final = "_snapshots"
THREADS: Final = 4
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KINDS: Final = ("_versions/", "_transactions/", "_deletions/", "_indices/", "data/")
_MAX_MANIFEST_BYTES: Final = 256 << 20

Progress = Callable[[float], None]


# -------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """One file that a snapshot needs."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A sealed manifest."""

    name: str
    collection: str
    version: int
    """The Lance version it holds."""
    created_at: str
    """UTC, ISO 8601."""
    rows: int
    size_bytes: int
    files: tuple[SealedFile, ...] = field(repr=False)
    root: str
    """SHA-256 over all files."""
    note: str | None = None
    format_version: int = FORMAT_VERSION
    schema: str = field(default="", repr=False)
    """The Arrow schema, for people."""

    def to_json(self) -> str:
        """Return the manifest as it is stored, seal included."""
        body = self._body()
        body["seal"] = _digest(body)
        return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)

    def _body(self) -> dict[str, Any]:
        return {
            "manifest_version": MANIFEST_VERSION,
            **asdict(self),
            "files": [asdict(f) for f in self.files],
        }

    @classmethod
    def from_json(cls, text: bytes, *, name: str, where: str) -> Snapshot:
        """Read a manifest, and refuse one that is damaged or hostile.

        Args:
            text: The stored bytes.
            name: What the snapshot must be called.
            where: Names the manifest in errors.

        Raises:
            CorruptionError: It does not parse, does not hold its seal, or is another snapshot's.
            NotSupportedError: A newer vecdataset wrote it.
        """
        try:
            body = json.loads(text)
            version, seal = int(body["manifest_version"]), body["seal"]
            sealed = {k: v for k, v in body.items() if k != "seal"}
            files = tuple(SealedFile(**f) for f in body["files"])
            fields = {k: v for k, v in sealed.items() if k not in ("manifest_version", "files")}
            snapshot = None if version > MANIFEST_VERSION else cls(files=files, **fields)
            for f in files:
                _check_file(f)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise CorruptionError(f"{where} is not a snapshot's manifest: {exc}") from exc
        if seal != _digest(sealed):
            raise CorruptionError(f"{where} does not hold its seal: it was changed after it was written")
        if snapshot is None:
            raise NotSupportedError(
                f"{where} has manifest version {version}; this vecdataset reads up to {MANIFEST_VERSION}",
                hint="pip install --upgrade vecdataset",
            )
        if snapshot.name != name:
            raise CorruptionError(f"{where} is the manifest of snapshot {snapshot.name!r}")
        if snapshot.root != _root(files) or len({f.path for f in files}) != len(files):
            raise CorruptionError(f"{where} does not agree with its own list of files")
        return snapshot


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _root(files: Iterable[SealedFile]) -> str:
    lines = (f"{f.path}\0{f.size}\0{f.sha256}\n" for f in sorted(files, key=lambda f: f.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_file(f: SealedFile) -> None:
    """Refuse a path that leaves the collection, or that no collection has."""
    storage.check_path(f.path)
    if not f.path.startswith(_KINDS) or f.size < 0 or not re.fullmatch("[0-9a-f]{64}", f.sha256):
        raise ValueError(f"{f.path!r} is not a file of a collection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a verification found; true when nothing is wrong."""

    snapshot: str
    version: int
    files: int
    """Files compared."""
    size_bytes: int
    """Bytes read."""
    missing: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    """Files of a copy that its manifest does not name."""
    problems: tuple[str, ...] = ()
    """What else is wrong: the manifest, the tag, or what the deep check found."""
    deep: bool = False
    elapsed_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.truncated or self.changed or self.extra or self.problems)

    def __bool__(self) -> bool:
        return self.ok

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        what = f"{self.files} files, {self.size_bytes:,} bytes"
        head = f"snapshot {self.snapshot!r}, version {self.version}: {what}"
        wrong = [
            f"  {what:<9} {path}"
            for what in ("missing", "truncated", "changed", "extra")
            for path in getattr(self, what)
        ]
        wrong += [f"  {p}" for p in self.problems]
        return "\n".join([head + (": verified" if self.ok else ": DAMAGED"), *wrong])


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy did."""

    url: str
    copied: int
    """Files that were moved."""
    skipped: int
    """Files that the target had already, verified."""
    size_bytes: int
    """Bytes moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed from one version to another."""

    added: Sequence[int | str]
    """Ids, as stored."""
    changed: Sequence[int | str]
    removed: Sequence[int | str]
    columns_added: Sequence[str]
    columns_removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.columns_added or self.columns_removed)


class Host(Protocol):
    """The collection that snapshots belong to."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def reader(self) -> Reader:
        """Return the version that it shows now."""
        ...

    def writer(self) -> Reader:
        """Return the newest version, or refuse where the handle is read-only."""
        ...

    def advance(self, table: Table) -> Reader:
        """Show a newer version."""
        ...


# ----------------------------------------------------------------------- snapshots


class Snapshots:
    """The snapshots of one collection."""

    def __init__(self, host: Host) -> None:
        """Use `Collection.snapshots` instead."""
        self._host = host

    @property
    def _files(self) -> Files:
        return storage.files(self._host.reader().table.location)

    def __iter__(self) -> Any:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._names())

    def create(
        self, name: str | None = None, *, note: str | None = None, progress: Progress | None = None
    ) -> Snapshot:
        """Seal the newest version.

        Args:
            name: Letters, digits, `.`, `_`, `-`, not all digits; None takes `{collection}_{unix seconds}`.
            note: Text for people, stored in the manifest.
            progress: Called with the share that is done, 0 to 1.

        Costs one tag, and the hashing of the files that no snapshot has sealed yet.

        Raises:
            AlreadyExistsError: A snapshot of this name is there.
        """
        reader = self._host.writer()
        tags = _tags(reader)
        chosen = _checked_name(name) if name is not None else _free_name(reader.name, tags)
        if chosen in tags:
            raise AlreadyExistsError(
                f"{reader.where} has a snapshot {chosen!r} already", hint="choose another name, or delete it"
            )
        reader.table.set_tag(chosen, reader.table.version)
        return self._seal(reader, chosen, note, progress)

    def _seal(self, reader: Reader, name: str, note: str | None, progress: Progress | None) -> Snapshot:
        files = self._files
        known = self._sealed_digests()
        paths = sorted(p for p in reader.table.files() if not p.startswith("_refs/"))
        sealed = _each(paths, lambda p: known.get(p) or _sealed(files, p), progress)
        snapshot = Snapshot(
            name=name,
            collection=reader.name,
            version=reader.table.version,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            rows=reader.rows,
            size_bytes=sum(f.size for f in sealed),
            files=tuple(sealed),
            root=_root(sealed),
            note=note,
            schema=reader.table.schema.to_string(show_field_metadata=False, show_schema_metadata=False),
        )
        files.write(f"{FOLDER}/{name}.json", snapshot.to_json().encode())
        return snapshot

    def _sealed_digests(self) -> dict[str, SealedFile]:
        """Return files that an undamaged manifest sealed: their names are never used twice."""
        known: dict[str, SealedFile] = {}
        for name in self._names():
            try:
                known |= {f.path: f for f in self.get(name).files}
            except VecDatasetError:  # a damaged one is verify's business; here it only saves work
                continue
        return known

    def _names(self) -> list[str]:
        prefix = f"{FOLDER}/"
        return sorted(
            f.path.removeprefix(prefix).removesuffix(".json")
            for f in self._files.list_files()
            if f.path.startswith(prefix) and f.path.endswith(".json")
        )

    def list(self) -> Frame:
        """Return the snapshots, newest first, with version, rows, bytes, time, note and state.

        A tag without a manifest, as a crash leaves it, is listed as `unsealed`; a manifest that does not
        hold its seal as `damaged`.
        """
        tags = _tags(self._host.reader())
        rows: list[dict[str, Any]] = []
        for name in sorted({*tags, *self._names()}):
            row = dict.fromkeys(_LISTED) | {"name": name, "version": tags.get(name), "state": "unsealed"}
            try:
                found = self.get(name)
                row |= {k: getattr(found, k) for k in _LISTED if k != "state"}
                row |= {"created_at": datetime.fromisoformat(found.created_at), "state": "sealed"}
            except CorruptionError:
                row["state"] = "damaged"
            except NotFoundError:
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
        path = f"{FOLDER}/{_checked_name(name)}.json"
        try:
            text = self._files.read(path)
        except NotFoundError as exc:
            raise self._not_found(name) from exc
        if len(text) > _MAX_MANIFEST_BYTES:
            raise CorruptionError(f"manifest {path} is {len(text):,} bytes long")
        return Snapshot.from_json(text, name=name, where=f"manifest {path} of collection {self._host.name!r}")

    def _not_found(self, name: str) -> SnapshotNotFoundError:
        return SnapshotNotFoundError(
            f"collection {self._host.name!r} has no snapshot {name!r}",
            hint=did_you_mean(name, self._names(), what="snapshots"),
        )

    def delete(self, name: str) -> None:
        """Remove a snapshot: its manifest and its tag; clean-up may then remove the version's files."""
        reader = self._host.writer()
        tagged = name in reader.table.tags()
        if not tagged and name not in self._names():
            raise self._not_found(name)
        self._files.delete([f"{FOLDER}/{_checked_name(name)}.json"])
        if tagged:
            reader.table.set_tag(name, None)

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
        self, name: str | None = None, *, deep: bool = False, progress: Progress | None = None
    ) -> Verification | Sequence[Verification]:
        """Compare every file of a snapshot with its manifest.

        Args:
            name: One snapshot; None verifies all, and returns a list.
            deep: Also read every value, count the rows, and look for ids that stand twice and for
                vectors that are not finite.
            progress: Called with the share that is done, 0 to 1.

        Returns:
            What was found; true when nothing is wrong.
        """
        if name is None:
            tags = _tags(self._host.reader())
            names = sorted({*tags, *self._names()})
            return [self._verify(n, deep=deep, progress=None) for n in names]
        return self._verify(name, deep=deep, progress=progress)

    def _verify(self, name: str, *, deep: bool, progress: Progress | None) -> Verification:
        started = time.perf_counter()
        reader = self._host.reader()
        version = reader.table.tags().get(name)
        try:
            snapshot = self.get(name)
        except SnapshotNotFoundError:
            if version is None:
                raise
            problem = f"missing   {FOLDER}/{name}.json"
            return Verification(snapshot=name, version=version, files=0, size_bytes=0, problems=(problem,))
        except (CorruptionError, NotSupportedError) as exc:
            return Verification(
                snapshot=name, version=version or 0, files=0, size_bytes=0, problems=(exc.message,)
            )
        problems = []
        if version is None:
            problems.append(f"missing   _refs/tags/{name}.json: clean-up may remove the version")
        elif version != snapshot.version:
            problems.append(
                f"changed   _refs/tags/{name}.json: it names version {version}, not {snapshot.version}"
            )
        found = compare(self._files, snapshot.files, progress)
        if deep and not any(found.values()):
            problems += _deep(Reader(reader.table.at(snapshot.version), name=reader.name), snapshot)
        return Verification(
            snapshot=name,
            version=snapshot.version,
            files=len(snapshot.files),
            size_bytes=snapshot.size_bytes,
            problems=tuple(problems),
            deep=deep,
            elapsed_s=time.perf_counter() - started,
            **found,
        )

    def _trusted(self, name: str) -> Snapshot:
        report = self._verify(name, deep=False, progress=None)
        if not report:
            raise CorruptionError(
                f"snapshot {name!r} of collection {self._host.name!r} is damaged and was not used:\n{report}",
                hint="restore another snapshot, or a copy of this one",
            )
        return self.get(name)

    # -- moving

    def restore(
        self, name: str, *, into: Any = None, storage_options: Mapping[str, Any] | None = None
    ) -> str:
        """Bring a snapshot back, after it has been verified; return the URL that holds it.

        Args:
            name: The snapshot.
            into: A name beside the collection, or a URL, that is free; None makes it the newest
                version of the collection itself. What was newest before is sealed first, as
                `before-restore-…`, and stays.
            storage_options: Of the target's filesystem.

        Raises:
            CorruptionError: The snapshot is damaged; nothing was written.
            CollectionExistsError: Something stands at `into`.
        """
        snapshot = self._trusted(name)
        if into is not None:
            return self._copied(snapshot, self._target(into, storage_options), fresh=True).url
        reader = self._host.writer()
        if reader.table.version != snapshot.version:
            safety = _free_name(f"before-restore-{reader.table.version}", reader.table.tags())
            reader.table.set_tag(safety, reader.table.version)
            self._seal(reader, safety, f"made before the restore of {name!r}", None)
            self._host.advance(reader.table.restore(snapshot.version))
        return reader.table.location.url

    def copy(self, name: str, url: Any, *, storage_options: Mapping[str, Any] | None = None) -> Copied:
        """Copy a snapshot to another place, as a collection of its own.

        A second copy to the same place moves only files that are not there, so an interrupted one goes
        on where it stopped. Each file is verified after it was written, so that a damaged one never counts
        as copied; Lance's manifest and ours come last.

        Raises:
            CorruptionError: A file of the snapshot is damaged.
            CollectionExistsError: Something else stands there.
        """
        return self._copied(self.get(name), self._target(url, storage_options), fresh=False)

    def _target(self, into: Any, options: Mapping[str, Any] | None) -> Location:
        own = self._host.reader().table.location
        if isinstance(into, Location):
            return into
        if isinstance(into, str) and not set(into) & set("/\\:"):
            return own.sibling(_checked_name(into, what="collection"))
        return storage.resolve(into, storage_options=options)

    def _copied(self, snapshot: Snapshot, target: Location, *, fresh: bool) -> Copied:
        source, there = self._files, storage.files(target)
        have = {f.path: f.size for f in there.list_files()}
        # A place is ours to go on with where every file is one that a snapshot of ours sealed.
        sealed = {*self._sealed_digests(), *(f.path for f in snapshot.files)}
        foreign = {p for p in have if p not in sealed and not p.startswith((f"{FOLDER}/", "_refs/"))}
        foreign -= {p for p in foreign if p.endswith("latest_version_hint.json")}
        if have and (fresh or foreign):
            raise CollectionExistsError(
                f"{target.url} holds something already", hint="nothing was written; choose another place"
            )
        _room_for(sum(f.size for f in snapshot.files if f.path not in have), target)
        # Versions last: until they are there, no reader sees a collection.
        order = sorted(snapshot.files, key=lambda f: (f.path.startswith("_versions/"), f.path))
        with tempfile.TemporaryDirectory(prefix="vecdataset-") as folder:

            def move(f: SealedFile) -> int:
                if have.get(f.path) == f.size and there.digest(f.path)[1] == f.sha256:
                    return -1
                spool = Path(folder) / hashlib.sha256(f.path.encode()).hexdigest()
                source.copy_file(f.path, there, spool)
                spool.unlink(missing_ok=True)
                if there.digest(f.path) != (f.size, f.sha256):
                    there.delete([f.path])
                    self._explain_loss(f, target)
                return f.size

            with ThreadPoolExecutor(THREADS) as pool:
                sizes = list(pool.map(move, order[:-1]))
            sizes.append(move(order[-1]))
        moved = [s for s in sizes if s >= 0]
        table = engine.open_table(target, version=snapshot.version)
        if snapshot.name not in table.tags():
            table.set_tag(snapshot.name, snapshot.version)
        there.write(f"{FOLDER}/{snapshot.name}.json", snapshot.to_json().encode())
        if table.count() != snapshot.rows:
            raise CorruptionError(
                f"{target.url} holds {table.count()} points; the snapshot says {snapshot.rows}"
            )
        return Copied(
            url=target.url, copied=len(moved), skipped=len(order) - len(moved), size_bytes=sum(moved)
        )

    def _explain_loss(self, f: SealedFile, target: Location) -> None:
        if self._files.digest(f.path) != (f.size, f.sha256):
            raise CorruptionError(
                f"{f.path} of collection {self._host.name!r} is damaged; the copy was not finished",
                hint="verify() names every damaged file",
            )
        raise StorageError(f"{f.path} did not arrive at {target.url} as it was sent", hint="copy again")

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


def _room_for(size: int, target: Location) -> None:
    """Refuse to begin where a local disk has no room."""
    if target.kind != "local":
        return
    place = Path(target.uri)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise StorageError(f"{target.url} needs {size:,} bytes, and its disk has {free:,}")


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


def _each(
    items: Sequence[str], work: Callable[[str], SealedFile], progress: Progress | None
) -> list[SealedFile]:
    """Do the work for each in a few threads: hashing releases the interpreter."""
    with ThreadPoolExecutor(THREADS) as pool:
        done = []
        for at, result in enumerate(pool.map(work, items), 1):
            done.append(result)
            if progress is not None:
                progress(at / len(items))
    return done


def _sealed(files: Files, path: str) -> SealedFile:
    size, digest = files.digest(path)
    return SealedFile(path=path, size=size, sha256=digest)


def compare(
    files: Files, sealed: Sequence[SealedFile], progress: Progress | None = None
) -> dict[str, tuple[str, ...]]:
    """Return which files are missing, truncated or changed."""
    found: dict[str, list[str]] = {"missing": [], "truncated": [], "changed": []}
    by_path = {f.path: f for f in sealed}

    def look(path: str) -> SealedFile:
        try:
            return _sealed(files, path)
        except NotFoundError:
            return SealedFile(path=path, size=-1, sha256="")

    for now in _each(list(by_path), look, progress):
        before = by_path[now.path]
        if now.size < 0:
            found["missing"].append(now.path)
        elif now.size < before.size:
            found["truncated"].append(now.path)
        elif (now.size, now.sha256) != (before.size, before.sha256):
            found["changed"].append(now.path)
    return {what: tuple(sorted(paths)) for what, paths in found.items()}


def _deep(reader: Reader, snapshot: Snapshot) -> list[str]:
    """Read every value of a version; return what is wrong with it."""
    problems: list[str] = []
    rows = 0
    ids: list[pa.Array] = []
    if reader.schema.id_type is None:
        return problems
    columns = [f.name for f in reader.table.schema]
    try:
        for batch in reader.table.scan(columns, batch_rows=8_192):
            rows += batch.num_rows
            ids.append(batch.column("id"))
            for name, params in reader.schema.vectors.items():
                if not params.multivector:
                    stored = batch.column(vector_column(name))
                    fit_vectors(stored, name, params, ids=batch.column("id"), where=reader.where)
    except InvalidVectorError as exc:
        problems.append(exc.message)
    except VecDatasetError as exc:
        problems.append(f"cannot be read: {exc.message}")
        return problems
    if rows != snapshot.rows:
        problems.append(f"{rows:,} points were read; the manifest says {snapshot.rows:,}")
    if ids:
        distinct = pc.count_distinct(pa.chunked_array(ids)).as_py()
        if distinct != rows:
            problems.append(f"{rows - distinct:,} ids stand more than once")
    return problems


def difference(a: Reader, b: Reader) -> Difference:
    """Return what changed from `a` to `b`; rows of fragments that both share are not read."""
    before = {(f.files, f.deletions): f.id for f in a.table.fragment_list()}
    after = {(f.files, f.deletions): f.id for f in b.table.fragment_list()}
    shared = before.keys() & after.keys()
    old = _rows(a, [i for key, i in before.items() if key not in shared])
    new = _rows(b, [i for key, i in after.items() if key not in shared])
    return Difference(
        added=[i for i in new if i not in old],
        removed=[i for i in old if i not in new],
        changed=[i for i, row in new.items() if i in old and old[i] != row],
        columns_added=sorted(set(b.table.schema.names) - set(a.table.schema.names)),
        columns_removed=sorted(set(a.table.schema.names) - set(b.table.schema.names)),
    )


def _rows(reader: Reader, fragments: list[int]) -> dict[Any, bytes]:
    """Return a digest of each row by stored id; nulls, and columns that are not there, count alike."""
    out: dict[Any, bytes] = {}
    if not fragments or reader.schema.id_type is None:
        return out
    names = sorted(n for n in reader.table.schema.names if n != "id")
    for batch in reader.table.scan(["id", *names], fragments=fragments, batch_rows=2_048):
        ids = batch.column("id").to_pylist()
        columns = {n: batch.column(n).to_pylist() for n in names}
        for at, key in enumerate(ids):
            row = {n: values[at] for n, values in columns.items() if values[at] is not None}
            out[key] = hashlib.sha256(repr(row).encode()).digest()
    return out
