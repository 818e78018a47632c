"""Hits as DuckDB gets them: rank, score, distance, and a reference to the row of the version searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

REF: Final = "STRUCT(version UBIGINT, batch UBIGINT, row UBIGINT)"
"""`batch` is the number of what the search has left behind for those that ask next; 0 is nothing."""
HITS: Final = f"STRUCT(_rank INTEGER, ref {REF}, score FLOAT, _distance FLOAT)[]"
GROUPED_HITS: Final = f'STRUCT(_rank INTEGER, ref {REF}, score FLOAT, _distance FLOAT, "group" VARCHAR)[]'

Hits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row ids, scores and distances of one query, best first."""


def unscored(rows: np.ndarray) -> Hits:
    """Return rows that no score has ranked."""
    return rows, np.zeros(len(rows)), np.zeros(len(rows))


def hits_array(
    hits: Sequence[Hits | None],
    versions: np.ndarray,
    batches: np.ndarray,
    labels: Sequence[Sequence[str]] | None = None,
) -> pa.Array:
    """Return the hits of each row of a chunk.

    Args:
        hits: None where there was no question.
        versions: The version that was searched, a row of the chunk.
        batches: The number of what is kept of it.
        labels: For each row the group of each hit; None for hits without groups.
    """
    counts = np.array([0 if h is None else len(h[0]) for h in hits], np.int64)
    present = [h for h in hits if h is not None]

    def joined(at: int, kind: Any) -> np.ndarray:
        return np.concatenate([np.zeros(0, kind), *(h[at].astype(kind, copy=False) for h in present)])

    starts = np.concatenate([[0], np.cumsum(counts)])
    rank = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    ref = pa.StructArray.from_arrays(
        [
            pa.array(np.repeat(versions, counts)),
            pa.array(np.repeat(batches, counts)),
            pa.array(joined(0, np.uint64)),
        ],
        ["version", "batch", "row"],
    )
    columns = {
        "_rank": pa.array((rank + 1).astype(np.int32)),
        "ref": ref,
        "score": pa.array(joined(1, np.float32)),
        "_distance": pa.array(joined(2, np.float32)),
    }
    if labels is not None:
        columns["group"] = pa.array([label for row in labels for label in row], pa.string())
    rows = pa.StructArray.from_arrays(list(columns.values()), list(columns))
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), rows)
