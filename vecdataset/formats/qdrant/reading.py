"""Snapshots as sources of points: unpacked, checked, then read shard by shard.

All that could be lost without a word is looked for first, in every shard; only then does the engine
load one. Nothing is read in place: the engine writes into the folders that it opens.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from vecdataset.errors import (
    InvalidInputError,
    MissingDependencyError,
    NotFoundError,
    StorageError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.formats import Reading, Readings, Source
from vecdataset.formats.qdrant import anatomy as look
from vecdataset.formats.qdrant.archive import damaged
from vecdataset.formats.qdrant.config import Declared, declared_by, settings_to_keep
from vecdataset.formats.qdrant.shard import LoadedShard
from vecdataset.formats.qdrant.unpack import Unpacked, unpack, verify_checksum
from vecdataset.points import RawBatch
from vecdataset.schema import IdType

__all__ = ["look_into", "read_all"]

CHECKSUM_SUFFIX: Final = ".checksum"


def read_all(source: Source, *, ignore_wal: bool = False, ignore_missing_shards: bool = False) -> Readings:
    """Unpack and check an archive, and return the collections in it.

    Args:
        source: The archive.
        ignore_wal: Go on without updates whose write-ahead log cannot be read.
        ignore_missing_shards: Go on without shards that are not in the archive.

    Raises:
        InvalidInputError: It is damaged, or no snapshot.
        StorageError: There is not enough space for it.
    """
    given = {"ignore_wal": ignore_wal, "ignore_missing_shards": ignore_missing_shards}
    ignored = frozenset(name for name, wanted in given.items() if wanted)
    folder = tempfile.TemporaryDirectory(prefix="vecdataset-qdrant-")
    try:
        unpacked = unpack(source.file, Path(folder.name), where=source.name, keep=look.is_needed_to_import)
        losses = _verified(source, unpacked)
        found = look.dissect(unpacked, where=source.name)
        parts = [_Part(c, folder.name, source.name, ignored, losses) for c in found.collections]
    except BaseException:
        folder.cleanup()
        raise
    return _Archive(found, parts, folder, source.name)


def _verified(source: Source, unpacked: Unpacked) -> tuple[str, ...]:
    """Compare the archive with the checksum file beside it; return what could not be done."""
    if not source.has_folder:
        return ()
    name = PurePosixPath(source.name).name
    for beside in dict.fromkeys((name, name.removesuffix(".gz"))):
        try:
            with source.beside(beside + CHECKSUM_SUFFIX) as file:
                verify_checksum(file.file.read(4_096), unpacked.sha256, where=source.name)
            return ()
        except NotFoundError:
            continue
        except StorageError as exc:
            return (f"the checksum file of {source.name} was not looked at: {exc}",)
    return ()


class _Archive(Readings):
    """An unpacked archive; the folder goes when the last reading is closed, or this is."""

    def __init__(
        self, found: look.Anatomy, parts: list[_Part], folder: tempfile.TemporaryDirectory[str], where: str
    ) -> None:
        self._found = found
        self._parts = parts
        self._folder = folder
        self._where = where

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self._parts if p.name is not None)

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._found.aliases

    def one(self, name: str | None) -> Reading:
        return self._reading(self._chosen(name), whole=True)

    def reading(self, name: str) -> Reading:
        return self._reading(self._chosen(name), whole=False)

    def check(self) -> None:
        for part in self._parts:
            part.check()

    def close(self) -> None:
        self._folder.cleanup()

    def _chosen(self, name: str | None) -> _Part:
        if name is None:
            if len(self._parts) == 1:
                return self._parts[0]
            raise InvalidInputError(
                f"{self._where} is a full-storage snapshot of {len(self._parts)} collections"
                + (f": {', '.join(self.names)}" if self._parts else ""),
                hint="load_all (shell: import --all) fills a root with them; collection= (shell: "
                "--format-option collection=NAME) takes one",
            )
        if self._found.kind != "full storage":
            raise InvalidInputError(
                f"{self._where} is the snapshot of one {self._found.kind}; it has no names to choose from",
                hint=f"leave out collection={name!r}",
            )
        for part in self._parts:
            if part.name == name:
                return part
        raise UnknownNameError(
            f"{self._where} holds no collection {name!r}",
            hint=did_you_mean(name, self.names, what="collections"),
        )

    def _reading(self, part: _Part, *, whole: bool) -> Reading:
        reading = part.reading()
        if not whole:
            return reading
        close = reading.close

        def close_all() -> None:
            close()
            self.close()

        return replace(reading, close=close_all)


@dataclass(slots=True)
class _Part:
    """One collection of an unpacked archive."""

    found: look.Collection
    root: str
    where: str
    ignored: frozenset[str]
    losses: tuple[str, ...]

    @property
    def name(self) -> str | None:
        return self.found.name

    def check(self) -> None:
        """Raise what would keep the collection from being imported, as far as it shows unread."""
        where = self._where()
        self._checked(where)
        declared_by(self._config(where), where=where)

    def _where(self) -> str:
        return self.where if self.name is None else f"{self.where}, collection {self.name!r}"

    def reading(self) -> Reading:
        """Check the collection, load its first shard, and return what is known of it."""
        where = self._where()
        losses, legacy = self._checked(where)
        declared = declared_by(self._config(where), where=where)
        shards = [s for s in self.found.shards if s.segments]
        points = _Points(Path(self.root), shards, declared, where, legacy=legacy, ignored=self.ignored)
        schema = replace(declared.schema, id_type=points.id_type())
        keys = sorted({s.key for s in shards if s.key is not None})
        if keys:
            losses.append(f"the shard keys {', '.join(keys)} are not kept: the collection is one")
        if self.found.config is None:
            losses.append("a shard snapshot does not say the collection's index settings and thresholds")
        return Reading(
            points=points,
            vectors=schema.vectors,
            sparse=schema.sparse,
            declared=schema,
            layout="qdrant",
            settings=settings_to_keep(declared, self.found.config, self.found.payload_index),
            losses=(*losses, *declared.losses),
            close=points.close,
        )

    def _checked(self, where: str) -> tuple[list[str], bool]:
        """Return what is left out because the caller said so, and whether RocksDB is to be read.

        Raises:
            InvalidInputError: Something would be lost without a word.
        """
        losses = list(self.losses)
        legacy = any(p.legacy for p in self.found.problems)
        for problem in self.found.problems:
            if problem.legacy:
                continue
            if problem.option is not None and problem.option in self.ignored:
                losses.append(f"{problem.what}; left out, as {problem.option} asks")
                continue
            remedy = problem.remedy
            if problem.option is not None and problem.option not in remedy:
                remedy += f"; {problem.option}=True (shell: --format-option {problem.option}=true) goes on"
            raise InvalidInputError(f"{where}: {problem.what}", hint=remedy)
        if not any(s.segments for s in self.found.shards):
            raise damaged(where, "holds no segments")
        if legacy:
            from vecdataset.formats.qdrant.legacy import require

            try:
                require()
            except MissingDependencyError as exc:
                first = next(p for p in self.found.problems if p.legacy)
                raise MissingDependencyError(f"{where}: {first.what}", hint=first.remedy) from exc
        return losses, legacy

    def _config(self, where: str) -> Mapping[str, Any]:
        """Return the collection's config; of a shard snapshot, one that says what its segments say."""
        if self.found.config is not None:
            return self.found.config
        vectors: dict[str, Any] = {}
        sparse: dict[str, Any] = {}
        for segment in self.found.segments:
            vectors |= segment.config.get("vector_data") or {}
            sparse |= segment.config.get("sparse_vector_data") or {}
        if not vectors and not sparse:
            raise damaged(where, "declares no vectors in any segment")
        plain = {
            name: {
                k: v for k, v in params.items() if k in ("size", "distance", "datatype", "multivector_config")
            }
            for name, params in vectors.items()
            if isinstance(params, dict)
        }
        return {"params": {"vectors": plain, "sparse_vectors": {name: {} for name in sparse}}}


class _Points:
    """The points of all shards, once; a shard is open at a time."""

    def __init__(
        self,
        root: Path,
        shards: list[look.Shard],
        declared: Declared,
        where: str,
        *,
        legacy: bool,
        ignored: frozenset[str],
    ) -> None:
        self._root = root
        self._shards = shards
        self._declared = declared
        self._where = where
        self._legacy = legacy
        self._ignored = ignored
        self._open: Any = None
        self._open_id: str | None = None

    def id_type(self) -> IdType | None:
        """Return the kinds of ids in all shards, each of which is loaded for it."""
        found = set()
        for shard in reversed(self._shards):  # the first one stays open, to be read first
            found.add(self._load(shard).id_type())
        found.discard(None)
        return found.pop() if len(found) == 1 else "mixed" if found else None

    def __iter__(self) -> Iterator[RawBatch]:
        try:
            for shard in self._shards:
                yield from self._load(shard).batches()
        finally:
            self.close()

    def close(self) -> None:
        if self._open is not None:
            opened, self._open, self._open_id = self._open, None, None
            opened.close()

    def _load(self, shard: look.Shard) -> Any:
        if self._open_id == shard.id:
            return self._open
        self.close()
        folder = self._root / shard.path
        where = f"{self._where}, shard {shard.id}"
        if self._legacy:
            from vecdataset.formats.qdrant.legacy import LegacyShard

            self._open = LegacyShard(folder, shard, self._declared, where=where)
        else:
            if shard.wal.problem is not None and "ignore_wal" in self._ignored:
                _remove_wal(folder / "wal")
            self._open = LoadedShard(folder, self._declared.schema, self._declared.names, where=where)
        self._open_id = shard.id
        return self._open


def _remove_wal(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108


def look_into(source: Source, folder: Path, *, verify: bool = False) -> look.Anatomy:
    """Look at a snapshot without importing it; only what is needed for that is unpacked.

    Args:
        source: The archive.
        folder: An empty folder, for the files that say something.
        verify: Compare with the checksum file beside it.
    """
    unpacked = unpack(source.file, folder, where=source.name, keep=look.is_needed_to_look)
    if verify:
        _verified(source, unpacked)
    return look.dissect(unpacked, where=source.name)
