"""The sealed manifest of a snapshot, and what verifying and copying one say.

A manifest names each file of a version with its size and SHA-256, and seals itself:

- `root` is the SHA-256 over the files, sorted by path, one line each of `path`, size and
  SHA-256 joined by NUL;
- `seal` is the SHA-256 over the manifest's own JSON (sorted keys, no spaces) without `seal`;
- the stored text is that JSON in one form only (sorted keys, indented by one), so that no byte of
  it can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from vecdataset import storage
from vecdataset.errors import CorruptionError, NotSupportedError
from vecdataset.schema import FORMAT_VERSION

MANIFEST_VERSION: Final = 1
FOLDER: Final = "_snapshots"
TAGS: Final = "_refs/tags/"
_KINDS: Final = ("_versions/", "_transactions/", "_deletions/", "_indices/", "data/")
MAX_MANIFEST_BYTES: Final = 256 << 20


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
    tool: str = ""
    """The library and its version."""

    def to_json(self) -> str:
        """Return the manifest as it is stored, seal included."""
        body = self._body()
        return _stored(body | {"seal": digest_of(body)})

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
            holds = seal == digest_of(sealed) and _stored(body).encode() == text
            snapshot = None if version > MANIFEST_VERSION else cls._of(sealed)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise CorruptionError(f"{where} is not a snapshot's manifest: {exc}") from exc
        if not holds:
            raise CorruptionError(f"{where} does not hold its seal: it was changed after it was written")
        if snapshot is None:
            raise NotSupportedError(
                f"{where} has manifest version {version}; this vecdataset reads up to {MANIFEST_VERSION}",
                hint="pip install --upgrade vecdataset",
            )
        if snapshot.name != name:
            raise CorruptionError(f"{where} is the manifest of snapshot {snapshot.name!r}")
        if snapshot.root != root_of(snapshot.files):
            raise CorruptionError(f"{where} does not agree with its own list of files")
        return snapshot

    @classmethod
    def _of(cls, body: Mapping[str, Any]) -> Snapshot:
        files = tuple(SealedFile(**f) for f in body["files"])
        fields = {k: v for k, v in body.items() if k not in ("manifest_version", "files")}
        snapshot = cls(files=files, **fields)
        for f in files:
            _check_file(f, snapshot.name)
        if len({f.path for f in files}) != len(files):
            raise ValueError("a file stands twice in its list")
        texts = (snapshot.name, snapshot.collection, snapshot.root, snapshot.schema, snapshot.tool)
        numbers = (snapshot.version, snapshot.rows, snapshot.size_bytes, snapshot.format_version)
        if not all(isinstance(t, str) for t in texts) or not all(type(n) is int for n in numbers):
            raise ValueError("a field is of another type")
        if datetime.fromisoformat(snapshot.created_at).tzinfo is None:
            raise ValueError("its time has no zone")
        return snapshot


def _stored(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the seal of a manifest's content."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def root_of(files: Iterable[SealedFile]) -> str:
    """Return the digest over a list of files."""
    lines = (f"{f.path}\0{f.size}\0{f.sha256}\n" for f in sorted(files, key=lambda f: f.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tag_path(name: str) -> str:
    """Return the path of the tag that keeps a snapshot's version."""
    return f"{TAGS}{name}.json"


def manifest_path(name: str) -> str:
    """Return the path of a snapshot's manifest."""
    return f"{FOLDER}/{name}.json"


def _check_file(f: SealedFile, name: str) -> None:
    """Refuse a path that leaves the collection, or that no collection has."""
    storage.check_path(f.path)
    known = f.path.startswith(_KINDS) or f.path == tag_path(name)
    if not known or type(f.size) is not int or f.size < 0 or not re.fullmatch("[0-9a-f]{64}", f.sha256):
        raise ValueError(f"{f.path!r} is not a file of a collection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a verification found; true when nothing is wrong."""

    snapshot: str | None
    """None where the newest version was compared with the ledger."""
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
    unrecorded: tuple[str, ...] = ()
    """Files of the newest version of which no digest is on record; no damage by itself."""
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
        which = "newest" if self.snapshot is None else f"snapshot {self.snapshot!r},"
        head = f"{which} version {self.version}: {what}"
        wrong = [
            f"  {what:<9} {path}"
            for what in ("missing", "truncated", "changed", "extra")
            for path in getattr(self, what)
        ]
        wrong += [f"  {p}" for p in self.problems]
        if self.unrecorded:
            wrong.append(f"  {len(self.unrecorded)} files have no digest on record: read with deep, if asked")
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
