"""Dense vectors of a segment, read where they stand: NumPy over mapped files, no list in between.

Two layouts are known, both little-endian, without compression, in the order of the segment's offsets:

- `vectors/chunk_N.mmap`, of a segment that grows: `config.json` says how many vectors a chunk holds,
  `status.dat` (u64) how many there are; `deleted/flags_a.dat` or `flags_b.dat` is a bitmap, and
  `deleted/status.dat` holds its length and which of the two is current (u64 each).
- `matrix.dat`, of one that does not: four bytes `data`, then the vectors; `deleted.dat` is four
  bytes `drop`, four more, then a bitmap.

A set bit means that the point has no such vector. Anything else is left to the engine; what is read
here is compared with what the engine says of a sample of every batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

__all__ = ["DenseVectors", "dense_vectors"]

_ELEMENTS: Final = {"float32": "<f4", "float16": "<f2", "uint8": "u1"}
_MATRIX_HEADER: Final = 4
_DROP_HEADER: Final = 8
_MAX_CHUNKS: Final = 1 << 20


class DenseVectors:
    """The vectors of one name in one segment."""

    def __init__(self, chunks: Sequence[np.ndarray], per_chunk: int, count: int, missing: np.ndarray) -> None:
        """Hold mapped chunks of `[per_chunk, size]` each, `count` vectors in all."""
        self._chunks = chunks
        self._per_chunk = per_chunk
        self._count = count
        self._missing = missing

    def take(self, offsets: np.ndarray, out: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Copy the vectors at `offsets` to `rows` of `out`; return which of them are there.

        Args:
            offsets: `[n]`, in any order.
            out: `[m, size]` of the stored type.
            rows: `[n]` rows of `out`.

        Returns:
            bool `[n]`.
        """
        there = offsets < self._count
        known = there & (offsets < len(self._missing))
        there[known] = ~self._missing[offsets[known]]
        number = offsets // self._per_chunk
        for chunk in np.unique(number[there]):
            chosen = there & (number == chunk)
            out[rows[chosen]] = self._chunks[chunk][offsets[chosen] - chunk * self._per_chunk]
        return there


def dense_vectors(segment: Path, name: str, declared: Mapping[str, Any]) -> DenseVectors | None:
    """Return the vectors of a segment, None where they stand in another way than is known here.

    Args:
        segment: The segment's folder.
        name: The vector's name, empty for the unnamed one.
        declared: What `segment.json` says of it.
    """
    element = _ELEMENTS.get(declared.get("datatype") or "float32")
    size = declared.get("size")
    if element is None or not isinstance(size, int) or size <= 0 or declared.get("multivector_config"):
        return None
    folder = segment / (f"vector_storage-{name}" if name else "vector_storage")
    kind = np.dtype((element, (size,)))
    try:
        if (folder / "matrix.dat").exists():
            return _matrix(folder, kind)
        if (folder / "vectors" / "config.json").exists():
            return _chunked(folder, kind)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # the engine says what is wrong with it
    return None


def _matrix(folder: Path, kind: np.dtype[Any]) -> DenseVectors | None:
    path = folder / "matrix.dat"
    count, rest = divmod(path.stat().st_size - _MATRIX_HEADER, kind.itemsize)
    if rest or count < 0 or np.fromfile(path, np.uint8, _MATRIX_HEADER).tobytes() != b"data":
        return None
    raw = (folder / "deleted.dat").read_bytes()
    if raw[:4] != b"drop":
        return None
    missing = _bits(np.frombuffer(raw, np.uint8)[_DROP_HEADER:])
    chunks = [np.memmap(path, kind.base, "r", _MATRIX_HEADER, (count, *kind.shape))] if count else []
    return DenseVectors(chunks, max(count, 1), count, missing)


def _chunked(folder: Path, kind: np.dtype[Any]) -> DenseVectors | None:
    vectors = folder / "vectors"
    config = json.loads((vectors / "config.json").read_bytes())
    per_chunk, dim = config["chunk_size_vectors"], config["dim"]
    if (dim,) != kind.shape or not isinstance(per_chunk, int) or per_chunk <= 0:
        return None
    count = int(np.fromfile(vectors / "status.dat", "<u8", 1)[0])
    number = -(-count // per_chunk)
    if number > _MAX_CHUNKS:
        return None
    chunks = [
        np.memmap(vectors / f"chunk_{i}.mmap", kind.base, "r", 0, (per_chunk, *kind.shape))
        for i in range(number)
    ]
    length, current = np.fromfile(folder / "deleted" / "status.dat", "<u8", 2).tolist()
    if current not in (0, 1):
        return None
    flags = np.fromfile(folder / "deleted" / f"flags_{'ab'[current]}.dat", np.uint8, -(-length // 8))
    return DenseVectors(chunks, per_chunk, count, _bits(flags)[:length])


def _bits(raw: np.ndarray) -> np.ndarray:
    return np.unpackbits(raw, bitorder="little").astype(bool)
