"""The id tracker of a segment: which point stands at which offset, and which are gone.

Three kinds stand on disk, all little-endian, UUIDs as 16 bytes in text order:

- `mutable_id_tracker.mappings`, a log: kind (1 number, 2 UUID, 3 and 4 their deletion), the id
  (u64 or 16 bytes), and the offset (u32) unless it is a deletion; `mutable_id_tracker.versions`
  holds a u64 for each offset.
- `id_tracker.mappings`, of a segment that no longer grows: a u64 count, then for each offset kind
  (0 number, 1 UUID), id and offset; `id_tracker.deleted` is a bitmap; `id_tracker.versions` as above.
- `id_tracker.{i2e,e2i,is_uuid}` on disk alone (1.19 and later): here only counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["Ids", "TrackerError", "has_tracker", "live_ids", "live_points"]

MUTABLE: Final = "mutable_id_tracker.mappings"
IMMUTABLE: Final = "id_tracker.mappings"
ON_DISK: Final = "id_tracker.e2i"

_SIZES: Final = (0, 13, 21, 9, 17)
"""Bytes of a record of the log, by kind."""
_E2I_MAGIC: Final = 0x5144_5F45_3249_0001


class TrackerError(ValueError):
    """The files of an id tracker do not parse."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The live points of a segment."""

    numbers: np.ndarray
    """uint64 `[n]`: ids that are numbers, in no order."""
    number_offsets: np.ndarray
    """uint32 `[n]`: where they stand."""
    uuids: np.ndarray
    """S16 `[m]`: the others, bytes in text order."""
    uuid_offsets: np.ndarray
    """uint32 `[m]`."""
    versions: np.ndarray
    """uint64, by offset."""

    def __len__(self) -> int:
        return len(self.numbers) + len(self.uuids)


def has_tracker(names: frozenset[str] | set[str]) -> bool:
    """Return whether the files of a segment hold its ids; without, the engine sees no points at all."""
    return bool(names & {MUTABLE, IMMUTABLE, ON_DISK})


def live_points(folder: Path) -> int:
    """Return how many points a segment holds.

    Raises:
        TrackerError: Its files do not parse.
    """
    if (folder / ON_DISK).exists() and not (folder / IMMUTABLE).exists():
        head = np.fromfile(folder / ON_DISK, np.uint8, 32).tobytes()
        if len(head) < 32 or int.from_bytes(head[:8], "little") != _E2I_MAGIC:
            raise TrackerError(f"{ON_DISK} has no such header")
        total = int.from_bytes(head[16:24], "little") + int.from_bytes(head[24:32], "little")
        gone = folder / "id_tracker.deleted"
        return total - (int(np.unpackbits(np.fromfile(gone, np.uint8)).sum()) if gone.exists() else 0)
    found = live_ids(folder)
    return 0 if found is None else len(found)


def live_ids(folder: Path) -> Ids | None:
    """Return the live points of a segment; None for a tracker that stands on disk alone.

    Some 10 million records a second. Memory: four times the file.

    Raises:
        TrackerError: Its files do not parse.
    """
    if (folder / MUTABLE).exists():
        versions = _versions(folder / "mutable_id_tracker.versions")
        return _from_log(np.fromfile(folder / MUTABLE, np.uint8), versions)
    if (folder / IMMUTABLE).exists():
        gone = folder / "id_tracker.deleted"
        bits = np.fromfile(gone, np.uint8) if gone.exists() else np.zeros(0, np.uint8)
        deleted = np.unpackbits(bits, bitorder="little").astype(bool)
        versions = _versions(folder / "id_tracker.versions")
        return _from_list(np.fromfile(folder / IMMUTABLE, np.uint8), deleted, versions)
    return None


def _versions(path: Path) -> np.ndarray:
    if not path.exists():
        return np.zeros(0, np.uint64)
    raw = np.fromfile(path, np.uint8)
    return raw[: len(raw) // 8 * 8].view("<u8")


def _starts(data: np.ndarray, sizes: tuple[int, ...], begin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each record begins, and its kind."""
    starts: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    at, end = begin, len(data)
    while at < end:
        kind = int(data[at])
        step = sizes[kind] if kind < len(sizes) else 0
        if not step:
            raise TrackerError(f"a record of kind {kind} stands at byte {at}")
        # A run of records of one kind at a time: ids of one collection are seldom mixed.
        window = data[at : at + (step << 16) : step]
        other = np.flatnonzero(window != kind)
        count = int(other[0]) if len(other) else len(window)
        count = min(count, (end - at) // step)
        if not count:
            # The engine drops a last record that a crash cut off.
            break
        starts.append(at + step * np.arange(count))
        kinds.append(np.full(count, kind, np.uint8))
        at += step * count
    if not starts:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    return np.concatenate(starts), np.concatenate(kinds)


def _fields(data: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Return `width` bytes from each start, `[n, width]`."""
    out: np.ndarray = data[starts[:, None] + np.arange(width)]
    return out


def _from_log(data: np.ndarray, versions: np.ndarray) -> Ids:
    starts, kinds = _starts(data, _SIZES, 0)
    number = (kinds == 1) | (kinds == 3)
    return _ids(
        _latest(data, starts[number], kinds[number] == 1, 8),
        _latest(data, starts[~number], kinds[~number] == 2, 16),
        versions,
    )


def _latest(
    data: np.ndarray, starts: np.ndarray, alive: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and offsets that the last record of each key leaves alive."""
    keys = _keys(_fields(data, starts + 1, width))
    if len(keys) > 1 and not (width == 8 and (keys[1:] > keys[:-1]).all()):
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        chosen = order[last]
    else:
        chosen = np.arange(len(keys))
    chosen = chosen[alive[chosen]]
    offsets = _fields(data, starts[chosen] + 1 + width, 4).reshape(-1).view("<u4")
    return keys[chosen], offsets


def _from_list(data: np.ndarray, deleted: np.ndarray, versions: np.ndarray) -> Ids:
    if len(data) < 8:
        raise TrackerError(f"{IMMUTABLE} has {len(data)} bytes")
    count = int(data[:8].view("<u8")[0])
    starts, kinds = _starts(data, (13, 21), 8)
    if len(starts) < count:
        raise TrackerError(f"{IMMUTABLE} holds {len(starts):,} of {count:,} records")
    starts, kinds = starts[:count], kinds[:count]
    gone = np.zeros(count, bool)
    gone[: min(count, len(deleted))] = deleted[:count]
    parts = []
    for kind, width in ((0, 8), (1, 16)):
        chosen = starts[(kinds == kind) & ~gone]
        keys = _keys(_fields(data, chosen + 1, width))
        parts.append((keys, _fields(data, chosen + 1 + width, 4).reshape(-1).view("<u4")))
    return _ids(parts[0], parts[1], versions)


def _keys(raw: np.ndarray) -> np.ndarray:
    """Return u64 numbers, or UUIDs as 16-byte strings, which sort by their bytes."""
    flat = np.ascontiguousarray(raw).reshape(-1)
    return flat.view("<u8") if raw.shape[1] == 8 else flat.view("S16")


def _ids(
    numbers: tuple[np.ndarray, np.ndarray], uuids: tuple[np.ndarray, np.ndarray], versions: np.ndarray
) -> Ids:
    return Ids(numbers[0], numbers[1], uuids[0], uuids[1], versions)
