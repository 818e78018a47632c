"""What a vector index was trained on, so that `optimize()` knows when to train it anew.

Rows that come later enter an index under the centroids, bounds and code books of the rows it was built
with: vectors far from those are found badly (Lance's scalar quantiser clamps them), however exact the
distances are afterwards. Two counts are kept with the collection: rows that came in since, and those among
them that lie outside of what the training rows spanned. An index is due again once as many rows came in as
it was trained on, so that every row is trained on a bounded number of times, or once a twentieth of all
rows lies outside.

Outside is told by a few directions: the length of a vector and its products with fixed vectors of ±1, each
against the span of the training rows, widened by half to either side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np

from vecdataset.engine import LanceIndex, Table
from vecdataset.schema import Distance, VectorParams

SAMPLE_ROWS: Final = 1_024
OUTSIDE_SHARE: Final = 0.05
"""More rows than this share outside of the trained spans, and the index is trained anew."""
_DIRECTIONS: Final = 16
_WIDENED: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What an index was trained on, and what came in since."""

    rows: int
    """Rows that were there."""
    low: Sequence[float]
    """The least value of those rows in each direction."""
    high: Sequence[float]
    """The greatest one."""
    added: int = 0
    """Rows brought in since."""
    outside: int = 0
    """About how many of them lie outside."""

    @classmethod
    def of(cls, table: Table, column: str, params: VectorParams, index: LanceIndex | None = None) -> Training:
        """Look at the rows of a column, or at those that an index covers; some requests on a remote store."""
        fragments = None if index is None else sorted(index.fragments)
        count, sample = _sample(table, column, params, fragments)
        spans = _along(sample, params)
        return cls(rows=count, low=_shown(spans.min(axis=0)), high=_shown(spans.max(axis=0)))

    @classmethod
    def parse(cls, text: str | None) -> Training | None:
        """Read what `to_json` wrote; None where nothing was."""
        return None if text is None else cls(**json.loads(text))

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def with_new(self, table: Table, index: LanceIndex, params: VectorParams) -> Training:
        """Return it with the rows counted that the index does not cover yet."""
        there = {f.id for f in table.fragment_list()}
        count, sample = _sample(table, index.column, params, sorted(there - index.fragments))
        if not count:
            return self
        low, high = np.array(self.low), np.array(self.high)
        slack = _WIDENED * (high - low)
        spans = _along(sample, params)
        outside = ((spans < low - slack) | (spans > high + slack)).any(axis=1)
        share = float(outside.mean()) if len(outside) else 0.0
        return replace(self, added=self.added + count, outside=self.outside + round(share * count))

    def due(self, rows: int) -> bool:
        """Return whether an index over so many rows should be trained anew."""
        return self.added >= max(self.rows, 1) or self.outside > OUTSIDE_SHARE * rows


def _sample(
    table: Table, column: str, params: VectorParams, fragments: Sequence[int] | None
) -> tuple[int, np.ndarray]:
    """Return how many rows of the fragments have the vector, and some of the vectors."""
    row_ids = table.row_ids(f"`{column}` IS NOT NULL", fragments=fragments)
    if len(row_ids) > SAMPLE_ROWS:
        # Steps and not chance: the same rows give the same sample.
        chosen = row_ids[np.linspace(0, len(row_ids) - 1, SAMPLE_ROWS).astype(np.int64)]
    else:
        chosen = row_ids
    if not len(chosen):
        return 0, np.zeros((0, params.size), np.float32)
    stored = table.take(chosen, [column])[column].combine_chunks()
    matrix = stored.flatten().to_numpy(zero_copy_only=False).reshape(-1, params.size)
    return len(row_ids), matrix.astype(np.float32)


def _along(matrix: np.ndarray, params: VectorParams) -> np.ndarray:
    """Return the length of each row, and its value in each direction."""
    wide = matrix.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    if params.metric is Distance.COSINE:
        wide = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
        lengths = np.ones_like(lengths)
    spans: np.ndarray = np.hstack([lengths, wide @ _directions(params.size).T])
    return spans if len(spans) else np.zeros((1, spans.shape[1]))


def _directions(size: int) -> np.ndarray:
    # Bits of a hash, not of a generator: they are compared with what an older version wrote.
    bits = np.frombuffer(hashlib.shake_128(b"directions").digest(_DIRECTIONS * size // 8 + 1), np.uint8)
    signs: np.ndarray = np.unpackbits(bits)[: _DIRECTIONS * size].reshape(_DIRECTIONS, size) * 2.0 - 1.0
    return signs


def _shown(values: np.ndarray) -> list[float]:
    return [float(f"{v:.6g}") for v in values.tolist()]


__all__ = ["OUTSIDE_SHARE", "Training"]
