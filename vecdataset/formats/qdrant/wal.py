"""The write-ahead log of a shard: how much of it is pending, and whether it is whole.

A log is files `closed-<index of its first entry>` and `open-<number>`. A file begins with `wal`, a
format byte 0 and a random u32 seed; an entry is its length (u64), its bytes padded to a multiple of
eight, and a CRC-32C, seeded with that of the entry before, over all of it; the length of the padding
is such that entries stand at multiples of eight. `first-index` is JSON: `{"ack_index": N}`, the first
entry that the segments may not hold yet. All numbers are little-endian.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["Wal", "crc32c", "read_wal"]

_HEADER: Final = 8
_NAME: Final = re.compile(r"(open|closed)-(\d{1,20})")
_CASTAGNOLI: Final = 0x82F6_3B78
_LANE: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wal:
    """What a log holds."""

    entries: int = 0
    """Entries that are there."""
    pending: int = 0
    """Entries that the segments may not hold; the engine applies them when it loads the shard."""
    end: int = 0
    """The index after that of the last entry: the number of the next operation."""
    problem: str | None = None
    """Why it cannot be trusted."""


def read_wal(folder: Path) -> Wal:
    """Look through a log; every entry's CRC is checked, some 400 MB a second."""
    try:
        return _read(folder)
    except _DamagedError as exc:
        return Wal(problem=str(exc))


class _DamagedError(Exception):
    pass


def _read(folder: Path) -> Wal:
    closed: list[tuple[int, int]] = []
    opened = 0
    for path in sorted(folder.iterdir()):
        if path.name == "first-index" or path.name.startswith("tmp-"):
            continue
        found = _NAME.fullmatch(path.name)
        if found is None:
            raise _DamagedError(f"{path.name!r} is no file of a log")
        count = _entries(path)
        if found[1] == "closed":
            closed.append((int(found[2]), count))
        else:
            opened += count
    closed.sort()
    following = closed[0][0] if closed else 0
    first = following
    for start, count in closed:
        if start != following:
            raise _DamagedError(f"entries {following} to {start} are missing")
        following += count
    end = following + opened
    acknowledged = _first_index(folder / "first-index")
    return Wal(entries=end - first, end=end, pending=max(0, end - max(first, acknowledged)))


def _first_index(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        value = json.loads(path.read_bytes())["ack_index"]
    except (ValueError, KeyError, TypeError):
        raise _DamagedError("first-index does not parse") from None
    if not isinstance(value, int) or value < 0:
        raise _DamagedError(f"first-index states {value!r}")
    return value


def _entries(path: Path) -> int:
    """Return how many entries a file holds.

    Raises:
        _DamagedError: It holds something that is none.
    """
    size = path.stat().st_size & ~7
    if size < _HEADER:
        raise _DamagedError(f"{path.name} has {size} bytes")
    data = np.memmap(path, np.uint8, mode="r", shape=(size,))
    if bytes(data[:4]) != b"wal\0":
        raise _DamagedError(f"{path.name} begins with {bytes(data[:4])!r}")
    crc = int(data[4:8].view("<u4")[0])
    at, count = _HEADER, 0
    while at + _HEADER + 4 < size:
        length = int(data[at : at + 8].view("<u8")[0])
        # Length, bytes, padding and CRC together are a multiple of eight.
        padded = length + (4 - length) % 8
        end = at + _HEADER + padded
        stored = int(data[end : end + 4].view("<u4")[0]) if end + 4 <= size else -1
        if stored < 0 or stored != crc32c(data[at:end], _reversed(crc)):
            if not data[at : min(size, at + 64)].any():
                break  # what was never written to
            raise _DamagedError(f"entry {count} of {path.name} is damaged")
        crc, count, at = stored, count + 1, end + 4
    return count


def _reversed(crc: int) -> int:
    """Return the register that an entry begins with: the bits of the CRC before it, in reverse."""
    return int(f"{crc:032b}"[::-1], 2)


# ------------------------------------------------------------------------------ CRC-32C


@cache
def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_CASTAGNOLI), table >> 1).astype(np.uint32)
    return table


@cache
def _shift() -> np.ndarray:
    """Return what a lane of zero bytes does to a register, as four tables of 256, one a byte."""
    table = _table()
    register = np.concatenate([np.arange(256, dtype=np.uint32) << np.uint32(8 * i) for i in range(4)])
    for _ in range(_LANE):
        register = table[register & 0xFF] ^ (register >> np.uint32(8))
    return register.reshape(4, 256)


def crc32c(data: np.ndarray, register: int = 0xFFFF_FFFF) -> int:
    """Return the CRC-32C of bytes, begun with `register`.

    The bytes are cut into lanes, which advance side by side, and are joined by what a lane of zeros
    does to the register: CRCs are linear.
    """
    table = _table()
    whole = len(data) // _LANE
    if whole:
        lanes = np.zeros(whole, np.uint32)
        columns = np.ascontiguousarray(data[: whole * _LANE].reshape(whole, _LANE).T)
        for column in columns:
            lanes = table[(lanes ^ column) & 0xFF] ^ (lanes >> np.uint32(8))
        shift = _shift().tolist()
        for lane in lanes.tolist():
            a, b, c, d = register & 0xFF, register >> 8 & 0xFF, register >> 16 & 0xFF, register >> 24
            register = shift[0][a] ^ shift[1][b] ^ shift[2][c] ^ shift[3][d] ^ lane
    small = table.tolist() if whole * _LANE < len(data) else []
    for byte in data[whole * _LANE :].tolist():
        register = small[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFF_FFFF
