"""What is in a snapshot: collections, shards, segments, and what stands in the way of importing it.

Looked at without the engine, in a folder that `unpack` made. The checks are those that the engine
leaves out: it takes a segment whose ids are elsewhere for an empty one, and counts a damaged
write-ahead log as an empty one. Versions written in the files say nothing (they are the same in all
releases), so structure is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from vecdataset.formats.qdrant.archive import damaged
from vecdataset.formats.qdrant.tracker import TrackerError, has_tracker, live_points
from vecdataset.formats.qdrant.unpack import Unpacked
from vecdataset.formats.qdrant.wal import Wal, read_wal

__all__ = [
    "Anatomy",
    "Collection",
    "Problem",
    "Segment",
    "Shard",
    "dissect",
    "is_needed_to_import",
    "is_needed_to_look",
]

MAX_JSON_BYTES: Final = 32 << 20
Storage = Literal["files", "rocksdb", "hybrid", "unknown"]
Kind = Literal["collection", "shard", "full storage"]

_FACTS: Final = re.compile(
    r"(?:.+/)?(?:[^/]+\.json|version\.info|wal/[^/]+|(?:mutable_)?id_tracker\.[^/]+|segments/.+/status\.dat)"
)
_DERIVED: Final = re.compile(
    r"(?:.+/)?segments/[^/]+/"
    r"(?:vector_index[^/]*/(?:graph\.bin|links[^/]*|hnsw_config\.json)|vector_storage[^/]*/quantized\.[^/]+)"
)
_WITHOUT_LOG: Final = (
    "ignore_wal=True (shell: --format-option ignore_wal=true) imports what the segments hold"
)
_ROCKSDB_PAYLOADS: Final = frozenset({"in_memory", "on_disk"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that would be lost silently."""

    where: str
    """The shard or segment."""
    what: str
    """One sentence."""
    remedy: str
    """What to do about it."""
    option: str | None = None
    """The option of the import that goes on without what is lost."""
    legacy: bool = False
    """Whether the extra `qdrant-legacy` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a shard."""

    id: str
    path: str
    """Below the root."""
    storage: Storage
    """Where ids and payload stand: `files`; `rocksdb`, up to 1.12; `hybrid`, 1.13."""
    points: int | None
    """Live points; None where the files do not say without RocksDB."""
    version: int
    """The last operation that changed it."""
    size_bytes: int
    indexed: bool
    """Whether a graph stands in it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """`config` of `segment.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One shard of a collection."""

    id: str
    path: str
    segments: tuple[Segment, ...]
    wal: Wal
    is_local: bool
    key: str | None = None
    """The shard key, where shards are the user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One collection, or the shard that stands for it."""

    name: str | None
    """As the full-storage snapshot calls it, or None: an archive does not know its collection's name."""
    path: str
    """Below the root; empty for the root itself."""
    config: Mapping[str, Any] | None
    """`config.json`; None in a shard snapshot."""
    payload_index: Mapping[str, Any]
    shards: tuple[Shard, ...]
    problems: tuple[Problem, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of all shards."""
        return tuple(s for shard in self.shards for s in shard.segments)

    @property
    def points(self) -> int | None:
        """Points in all segments; one that an update moved may count twice. None where unknown."""
        counts = [s.points for s in self.segments]
        return None if None in counts else sum(c for c in counts if c is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What an archive holds."""

    kind: Kind
    layout: str
    collections: tuple[Collection, ...]
    aliases: Mapping[str, str]
    """Alias to collection."""
    sha256: str
    size_bytes: int
    """Of the files, holes not counted."""


def is_needed_to_import(path: str) -> bool:
    """Return whether a file holds something of the points, not a graph or a copy of them."""
    return _DERIVED.fullmatch(path) is None


def is_needed_to_look(path: str) -> bool:
    """Return whether a file has to be unpacked to look at an archive, rather than to import it."""
    return _FACTS.fullmatch(path) is not None


def dissect(unpacked: Unpacked, *, where: str) -> Anatomy:
    """Look at what an archive holds.

    Raises:
        InvalidInputError: It is no snapshot, or a file of it does not parse.
    """
    return _Dissection(unpacked, where).anatomy()


class _Dissection:
    def __init__(self, unpacked: Unpacked, where: str) -> None:
        self._files = unpacked.files
        self._root = unpacked.root
        self._unpacked = unpacked
        self._where = where

    def anatomy(self) -> Anatomy:
        config = self._json("config.json")
        aliases: Mapping[str, str] = {}
        kind: Kind
        if isinstance(config, dict) and "collections_mapping" in config:
            kind = "full storage"
            aliases = self._texts(config.get("collections_aliases") or {}, "collections_aliases")
            collections = self._full_storage(
                self._texts(config["collections_mapping"], "collections_mapping")
            )
            for alias, target in aliases.items():
                if target not in {c.name for c in collections}:
                    raise damaged(
                        self._where, f"has the alias {alias!r} of a collection {target!r} not in it"
                    )
        elif config is not None:
            kind, collections = "collection", (self._collection(None, ""),)
        elif self._below("segments/"):
            kind, collections = "shard", (self._shard_alone(),)
        else:
            raise damaged(
                self._where, "is a tar, and no Qdrant snapshot: it has no config.json and no segments/"
            )
        stored = sum(s for _, s in self._files.values())
        return Anatomy(
            kind=kind,
            layout=self._unpacked.layout,
            collections=collections,
            aliases=aliases,
            sha256=self._unpacked.sha256,
            size_bytes=stored,
        )

    # -- collections

    def _full_storage(self, mapping: Mapping[str, str]) -> tuple[Collection, ...]:
        missing = sorted(set(mapping.values()) - set(self._unpacked.snapshots))
        if missing:
            raise damaged(self._where, f"names the snapshot {missing[0]!r}, which is not in it")
        return tuple(self._collection(name, f"{file}/") for name, file in sorted(mapping.items()))

    def _collection(self, name: str | None, base: str) -> Collection:
        config = self._json(f"{base}config.json")
        if not isinstance(config, dict) or "params" not in config:
            raise damaged(self._where, f"holds a {base}config.json that is not a collection's")
        index = self._json(f"{base}payload_index.json")
        schema = index.get("schema") if isinstance(index, dict) else None
        keys = self._shard_keys(base)
        ids = sorted(
            {
                p[len(base) :].split("/", 1)[0]
                for p in self._files
                if p.startswith(base) and re.match(r"\d+/", p[len(base) :])
            },
            key=int,
        )
        shards = tuple(self._shard(i, f"{base}{i}/", keys.get(i)) for i in ids)
        return Collection(
            name=name,
            path=base,
            config=config,
            payload_index=schema if isinstance(schema, dict) else {},
            shards=shards,
            problems=(
                *self._missing_shards(config, keys, {s.id for s in shards}),
                *(p for s in shards for p in self._problems(s)),
            ),
        )

    def _missing_shards(
        self, config: Mapping[str, Any], keys: Mapping[str, str], have: set[str]
    ) -> list[Problem]:
        params = config["params"] if isinstance(config["params"], dict) else {}
        count = params.get("shard_number")
        wanted = set(keys)
        if not keys and isinstance(count, int) and 0 < count <= len(have) + 100_000:
            wanted = {str(i) for i in range(count)}
        return [
            Problem(
                where=f"shard {i}",
                what=f"shard {i} is not in the archive",
                remedy="take a snapshot on the node that holds it, and import both into one collection",
                option="ignore_missing_shards",
            )
            for i in sorted(wanted - have, key=int)
        ]

    def _shard_keys(self, base: str) -> dict[str, str]:
        """Return shard id to shard key: a list of `{key, shard_ids}` from 1.13 on, a map before."""
        given = self._json(f"{base}shard_key_mapping.json")
        pairs: list[tuple[Any, Any]] = []
        if isinstance(given, dict):
            pairs = list(given.items())
        elif isinstance(given, list):
            pairs = [(e.get("key"), e.get("shard_ids")) for e in given if isinstance(e, dict)]
        return {
            str(i): str(key) for key, ids in pairs if isinstance(ids, list) for i in ids if str(i).isdigit()
        }

    def _shard_alone(self) -> Collection:
        shard = self._shard("0", "", None)
        return Collection(
            name=None,
            path="",
            config=None,
            payload_index=self._indexed_fields(shard),
            shards=(shard,),
            problems=tuple(self._problems(shard)),
        )

    def _indexed_fields(self, shard: Shard) -> dict[str, Any]:
        """Return the payload indexes that the segments name, for want of a payload_index.json."""
        out: dict[str, Any] = {}
        for segment in shard.segments:
            given = self._json(f"{segment.path}/payload_index/config.json")
            fields = given.get("indexed_fields") if isinstance(given, dict) else None
            out |= fields if isinstance(fields, dict) else {}
        return out

    # -- shards

    def _shard(self, id: str, base: str, key: str | None) -> Shard:
        state = self._json(f"{base}replica_state.json")
        ids = sorted({p[len(base) + 9 :].split("/", 1)[0] for p in self._below(f"{base}segments/")})
        segments = tuple(
            self._segment(i, f"{base}segments/{i}") for i in ids if f"{base}segments/{i}" not in self._files
        )
        wal = read_wal(self._root / base / "wal") if self._below(f"{base}wal/") else Wal()
        local = state.get("is_local") if isinstance(state, dict) else True
        return Shard(id=id, path=base, segments=segments, wal=wal, is_local=local is not False, key=key)

    def _problems(self, shard: Shard) -> list[Problem]:
        where = f"shard {shard.id}"
        if not shard.is_local and not shard.segments:
            return [
                Problem(
                    where=where,
                    what=f"{where} stands on another node: a node's snapshot holds only its own shards",
                    remedy="take a snapshot on each node, and import all of them into one collection",
                    option="ignore_missing_shards",
                )
            ]
        if not shard.segments:
            return [
                Problem(
                    where=where, what=f"{where} has no segments", remedy="make the snapshot again",
                    option="ignore_missing_shards",
                )
            ]  # fmt: skip
        out = list(_troubles(shard.segments, where))
        if shard.wal.problem is not None:
            out.append(
                Problem(
                    where=where,
                    what=f"the write-ahead log of {where} cannot be read: {shard.wal.problem}",
                    remedy=_WITHOUT_LOG,
                    option="ignore_wal",
                )
            )
        elif any(s.storage == "rocksdb" for s in shard.segments):
            last = max(s.version for s in shard.segments)
            if shard.wal.pending and shard.wal.end - 1 > last:
                out.append(
                    Problem(
                        where=where,
                        what=f"the write-ahead log of {where} holds {shard.wal.end - 1 - last} updates that "
                        "are not in its segments, and only a server of that time can apply them",
                        remedy=_WITHOUT_LOG,
                        option="ignore_wal",
                    )
                )
        return out

    def _segment(self, id: str, path: str) -> Segment:
        below = self._below(f"{path}/")
        names = {p[len(path) + 1 :] for p in below}
        given = self._json(f"{path}/segment.json") or {}
        config = given.get("config") if isinstance(given, dict) else None
        config = config if isinstance(config, dict) else {}
        version = given.get("version") if isinstance(given, dict) else None
        storage = _storage(names, config)
        points = None
        if storage == "unknown" and self._never_written(path, names, version):
            storage, points = "files", 0
        elif storage == "files":
            try:
                points = live_points(self._root / path)
            except (TrackerError, OSError, ValueError) as exc:
                raise damaged(
                    self._where, f"has an id tracker in {path} that does not parse: {exc}"
                ) from None
        return Segment(
            id=id,
            path=path,
            storage=storage,
            points=points,
            version=version if isinstance(version, int) else 0,
            size_bytes=sum(self._files[p][1] for p in below),
            indexed=any(re.match(r"vector_index[^/]*/graph\.bin", n) for n in names),
            config=config,
        )

    def _never_written(self, path: str, names: set[str], version: Any) -> bool:
        """Return whether a segment is as it was made: an id tracker comes with the first point."""
        lengths = [n for n in names if n.endswith("/status.dat")]
        if not lengths or version or any(n.endswith("/matrix.dat") for n in names):
            return False
        return not any(any((self._root / path / n).read_bytes()[:8]) for n in lengths)

    # -- files

    def _below(self, prefix: str) -> list[str]:
        return [p for p in self._files if p.startswith(prefix)]

    def _json(self, path: str) -> Any:
        if path not in self._files:
            return None
        if self._files[path][0] > MAX_JSON_BYTES:
            raise damaged(self._where, f"holds a {path} of {self._files[path][0]:,} bytes")
        try:
            return json.loads((self._root / path).read_bytes())
        except (ValueError, RecursionError) as exc:
            raise damaged(self._where, f"holds a {path} that does not parse: {exc}") from None

    def _texts(self, given: Any, what: str) -> Mapping[str, str]:
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise damaged(self._where, f"holds a config.json whose {what} is not an object of texts")
        return given


def _storage(names: set[str], config: Mapping[str, Any]) -> Storage:
    payload = config.get("payload_storage_type")
    old_payload = isinstance(payload, dict) and payload.get("type") in _ROCKSDB_PAYLOADS
    rocksdb = any(n.startswith("db_backup/") or re.fullmatch(r"CURRENT|\d+\.sst", n) for n in names)
    if old_payload:
        return "rocksdb"
    if has_tracker(names):
        return "files"
    return "hybrid" if rocksdb else "unknown"


def _troubles(segments: tuple[Segment, ...], where: str) -> Iterator[Problem]:
    """Yield what the engine would make of segments whose ids are elsewhere: no points, and no error."""
    again = "restore it in a Qdrant server of 1.16 or 1.17, which converts it, and take a new snapshot"
    for storage, what, remedy in (
        (
            "rocksdb",
            "of the time before Qdrant 1.13: the points stand in RocksDB",
            f"pip install 'vecdataset[qdrant-legacy]' reads it; or {again}",
        ),
        ("hybrid", "of Qdrant 1.13: the ids stand in RocksDB, and the engine would see no points", again),
        ("unknown", "without an id tracker: the engine would see no points", "make the snapshot again"),
    ):
        found = [s.id for s in segments if s.storage == storage]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield Problem(
                where=where,
                what=f"segment {found[0]}{more} of {where} is {what}",
                remedy=remedy,
                legacy=storage == "rocksdb",
            )
