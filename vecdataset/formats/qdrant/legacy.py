"""Segments of Qdrant up to 1.12, whose points stand in RocksDB; needs the extra `qdrant-legacy`.

A segment's archive holds a backup made by RocksDB's BackupEngine: `db_backup/private/N/*` and
`db_backup/shared_checksum/<number>_<…>.sst` are put together to a database again. Its column families:

- `mapping`: id → offset; the id is a u32 tag (0 number, 1 UUID), then a u64, or a u64 length and 16 bytes.
- `version`: id → u64, the operation that changed the point last.
- `payload`: CBOR of the offset → CBOR of a map.
- `vector`, `vector-<name>`: u32 offset → u8 deleted, u64 length, numbers; of sparse vectors two such
  lists, u32 and float32; of multivectors one list and the u64 size of a vector.

All little-endian. Dense vectors of larger segments stand in files, as they still do (`dense.py`).
"""

from __future__ import annotations

import re
import shutil
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.errors import MissingDependencyError
from vecdataset.formats.qdrant.anatomy import Segment, Shard
from vecdataset.formats.qdrant.archive import damaged
from vecdataset.formats.qdrant.config import Declared
from vecdataset.formats.qdrant.dense import DenseVectors, dense_vectors
from vecdataset.formats.qdrant.wal import crc32c
from vecdataset.points import RawBatch
from vecdataset.schema import IdType
from vecdataset.sparse import SparseVector

__all__ = ["LegacyShard", "require"]

_ROWS: Final = 2_000
_ELEMENTS: Final = {"float32": "<f4", "float16": "<f2", "uint8": "u1"}
_LISTED: Final = re.compile(r"((?:private/\d+|shared_checksum)/[^/]+) crc32 (\d+)")
_SST: Final = re.compile(r"(\d+)_[^/]*\.sst")

_Id = int | str


def require() -> None:
    """Raise unless the packages that read RocksDB are there."""
    for package in ("rocksdict", "cbor2"):
        try:
            __import__(package)
        except ImportError:
            raise MissingDependencyError.of(
                package, extra="qdrant-legacy", purpose="reading a snapshot of Qdrant 1.12 or older"
            ) from None


class LegacyShard:
    """One shard of that time; several segments may hold a point, and its newest version counts."""

    def __init__(self, folder: Path, shard: Shard, declared: Declared, *, where: str) -> None:
        """Open the databases of all segments.

        Args:
            folder: The shard, a private copy.
            shard: What is known of it.
            declared: What the collection declares.
            where: Names the shard in messages.
        """
        require()
        self._segments = [
            _LegacySegment(folder / "segments" / s.id, s, declared, where) for s in shard.segments
        ]
        self._newest: dict[_Id, tuple[int, int]] = {}
        for number, segment in enumerate(self._segments):
            for point, version in segment.versions():
                if point not in self._newest or self._newest[point][1] < version:
                    self._newest[point] = (number, version)

    def id_type(self) -> IdType | None:
        """Return which kinds of ids there are; None without points."""
        kinds = {type(i) for i in self._newest}
        if not kinds:
            return None
        return "mixed" if len(kinds) == 2 else "uint64" if kinds == {int} else "uuid"

    def batches(self) -> Iterator[RawBatch]:
        """Yield all points."""
        for number, segment in enumerate(self._segments):
            yield from segment.batches(lambda i, n=number: self._newest[i][0] == n)

    def close(self) -> None:
        """Let go of the databases."""
        for segment in self._segments:
            segment.close()


class _LegacySegment:
    def __init__(self, folder: Path, segment: Segment, declared: Declared, where: str) -> None:
        import rocksdict

        self._where = f"{where}, segment {segment.id}"
        self._declared = declared
        self._config = segment.config
        self._folder = folder
        path = restored(folder, where=self._where)
        try:
            families = {name: rocksdict.Options(raw_mode=True) for name in rocksdict.Rdict.list_cf(str(path))}
            self._database = rocksdict.Rdict(
                str(path),
                options=rocksdict.Options(raw_mode=True),
                column_families=families,
                access_type=rocksdict.AccessType.read_only(),
            )
            self._families = {name: self._database.get_column_family(name) for name in families}
        except Exception as exc:  # noqa: BLE001 - rocksdict raises it itself
            raise damaged(self._where, f"holds a database that cannot be opened: {exc}") from None
        for name in ("mapping", "version", "payload"):
            if name not in self._families:
                raise damaged(self._where, f"holds a database without the column family {name!r}")

    def close(self) -> None:
        self._families = {}
        self._database.close()

    def versions(self) -> Iterator[tuple[_Id, int]]:
        """Yield each point with the operation that changed it last."""
        known = {key: int.from_bytes(value, "little") for key, value in self._items("version")}
        for key, _ in self._items("mapping"):
            yield self._id(key), known.get(key, 0)

    def batches(self, wanted: Any) -> Iterator[RawBatch]:
        """Yield the points whose ids are wanted."""
        places = (
            (point, int.from_bytes(value, "little"))
            for key, value in self._items("mapping")
            if wanted(point := self._id(key))
        )
        while part := list(islice(places, _ROWS)):
            offsets = [offset for _, offset in part]
            yield RawBatch(
                length=len(part),
                ids=[point for point, _ in part],
                vectors=self._vectors(offsets),
                rows=self._payloads(offsets),
            )

    def _items(self, family: str) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._families[family].items()
        except Exception as exc:  # noqa: BLE001 - rocksdict raises it itself
            raise damaged(self._where, f"holds a database that cannot be read: {exc}") from None

    def _get(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return list(self._families[family].get(list(keys)))
        except Exception as exc:  # noqa: BLE001 - rocksdict raises it itself
            raise damaged(self._where, f"holds a database that cannot be read: {exc}") from None

    def _id(self, key: bytes) -> _Id:
        if len(key) == 12 and key[:4] == b"\0\0\0\0":
            return int.from_bytes(key[4:], "little")
        if len(key) == 28 and key[:12] == struct.pack("<IQ", 1, 16):
            return str(uuid.UUID(bytes=key[12:]))
        raise damaged(self._where, f"holds the id {key[:40].hex()}, which is neither a number nor a UUID")

    def _payloads(self, offsets: Sequence[int]) -> list[dict[str, Any]]:
        import cbor2

        out = []
        for raw in self._get("payload", [cbor2.dumps(o) for o in offsets]):
            try:
                value = {} if raw is None else cbor2.loads(raw)
            except Exception as exc:  # noqa: BLE001 - as its decoder meets strange bytes
                raise damaged(self._where, f"holds a payload that does not parse: {exc}") from None
            if not isinstance(value, dict):
                raise damaged(self._where, f"holds a payload that is {type(value).__name__}")
            out.append(value)
        return out

    # -- vectors

    def _vectors(self, offsets: Sequence[int]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        dense: Mapping[str, Any] = self._config.get("vector_data") or {}
        sparse: Mapping[str, Any] = self._config.get("sparse_vector_data") or {}
        for theirs in (*dense, *sparse):
            name = self._declared.names.get(theirs, theirs)
            family = f"vector-{theirs}" if theirs else "vector"
            if family not in self._families:
                out[name] = self._from_files(theirs, dense.get(theirs), offsets)
                continue
            values = self._get(family, [struct.pack("<I", o) for o in offsets])
            read = self._sparse if theirs in sparse else self._dense
            out[name] = [None if v is None or v[:1] == b"\1" else read(v, name) for v in values]
        return out

    def _from_files(self, theirs: str, declared: Any, offsets: Sequence[int]) -> pa.Array:
        found: DenseVectors | None = dense_vectors(self._folder, theirs, declared) if declared else None
        if found is None:
            raise damaged(self._where, f"holds the vector {theirs or 'vector'!r} in a way that is not known")
        kind = _ELEMENTS[declared.get("datatype") or "float32"]
        matrix = np.zeros((len(offsets), declared["size"]), kind)
        there = found.take(np.array(offsets, np.int64), matrix, np.arange(len(offsets)))
        return [row if ok else None for row, ok in zip(matrix, there, strict=True)]

    def _dense(self, raw: bytes, name: str) -> Any:
        params = self._declared.schema.vectors.get(name)
        if params is None:
            raise damaged(self._where, f"holds the vector {name!r}, which the config does not declare")
        numbers, rest = self._list(raw[1:], _ELEMENTS[params.datatype])
        if not params.multivector:
            return numbers
        size = int.from_bytes(rest, "little")
        if size != params.size or len(numbers) % size:
            raise damaged(self._where, f"holds a multivector {name!r} of {len(numbers)} numbers, {size} each")
        return numbers.reshape(-1, size)

    def _sparse(self, raw: bytes, name: str) -> SparseVector:  # noqa: ARG002 - as `_dense`
        indices, rest = self._list(raw[1:], "<u4")
        values, _ = self._list(rest, "<f4")
        return SparseVector(indices, values)

    def _list(self, raw: bytes, kind: str) -> tuple[np.ndarray, bytes]:
        count = int.from_bytes(raw[:8], "little")
        end = 8 + count * np.dtype(kind).itemsize
        if len(raw) < end:
            raise damaged(self._where, f"holds a vector of {count:,} numbers in {len(raw):,} bytes")
        return np.frombuffer(raw[8:end], kind), raw[end:]


def restored(segment: Path, *, where: str) -> Path:
    """Put the database of a segment together from its backup; return its folder."""
    backup, target = segment / "db_backup", segment / "_database"
    numbers = [p for p in (backup / "private").glob("*") if p.name.isdigit()] if backup.is_dir() else []
    if not numbers:
        raise damaged(where, "holds no backup of a database")
    if target.exists():
        return target
    newest = max(numbers, key=lambda p: int(p.name))
    _check(backup, newest.name, where)
    target.mkdir()
    for path in newest.iterdir():
        shutil.move(path, target / path.name)
    for path in (backup / "shared_checksum").glob("*.sst"):
        found = _SST.fullmatch(path.name)
        if found is None:
            raise damaged(where, f"holds a table named {path.name!r}")
        shutil.move(path, target / f"{found[1]}.sst")
    return target


def _check(backup: Path, number: str, where: str) -> None:
    """Compare the files of a backup with the CRC-32C that its list states."""
    listed = backup / "meta" / number
    for line in listed.read_text("utf-8", "replace").splitlines() if listed.exists() else ():
        found = _LISTED.fullmatch(line)
        if found is None:
            continue
        path = backup / found[1]
        if not path.is_file():
            raise damaged(where, f"does not hold {found[1]!r}, which its backup lists")
        if crc32c(np.fromfile(path, np.uint8)) != int(found[2]):
            raise damaged(where, f"holds {found[1]!r}, which does not have the checksum of its backup's list")
