"""Hits as DuckDB gets them: rank, score, distance, and a reference to the row of the version searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

_ID: Final = "number UBIGINT, label VARCHAR"
_FIELDS: Final = f"_rank INTEGER, place UBIGINT, row_id UBIGINT, {_ID}, score FLOAT, _distance FLOAT"
HITS: Final = f"STRUCT({_FIELDS})[]"
"""`place` and `row_id` refer to the point; its id is `number` or `label`, whichever the collection has."""
GROUPED_HITS: Final = f'STRUCT({_FIELDS}, "group" VARCHAR)[]'
_BATCH_BITS: Final = 24
MAX_BATCH: Final = (1 << _BATCH_BITS) - 1

Hits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row ids, scores and distances of one query, best first."""


def unscored(rows: np.ndarray) -> Hits:
    """Return rows that no score has ranked."""
    return rows, np.zeros(len(rows)), np.zeros(len(rows))


def place_of(version: int, batch: int) -> int:
    """Return a version, and the number of what is kept of its answer, as one number."""
    return (version << _BATCH_BITS) | batch


def version_and_batch(place: int) -> tuple[int, int]:
    """Return what `place_of` put together."""
    return place >> _BATCH_BITS, place & MAX_BATCH


def hits_array(
    hits: Sequence[Hits | None],
    at: np.ndarray,
    ids: pa.Array,
    labels: Sequence[Sequence[str]] | None = None,
) -> pa.Array:
    """Return the hits of each row of a chunk.

    Args:
        hits: None where there was no question.
        at: The place of the answer, by `place_of`, a row of the chunk.
        ids: The id of each hit of all rows.
        labels: For each row the group of each hit; None for hits without groups.
    """
    present = [h for h in hits if h is not None]
    counts = np.array([0 if h is None else len(h[0]) for h in hits], np.int64)

    def joined(part: int, kind: Any) -> pa.Array:
        arrays = [h[part].astype(kind, copy=False) for h in present]
        return pa.array(arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, kind), *arrays]))

    starts = np.zeros(len(hits) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    rank = np.arange(1, starts[-1] + 1, dtype=np.int32)
    if len(hits) > 1:
        rank -= np.repeat(starts[:-1], counts)
    numeric = pa.types.is_integer(ids.type)
    columns = {
        "_rank": pa.array(rank),
        "place": pa.array(np.repeat(at, counts)),
        "row_id": joined(0, np.uint64),
        "number": ids if numeric else pa.nulls(len(ids), pa.uint64()),
        "label": pa.nulls(len(ids), pa.string()) if numeric else ids,
        "score": joined(1, np.float32),
        "_distance": joined(2, np.float32),
    }
    if labels is not None:
        columns["group"] = pa.array([label for row in labels for label in row], pa.string())
    rows = pa.StructArray.from_arrays(list(columns.values()), list(columns))
    return pa.ListArray.from_arrays(pa.array(starts), rows)
