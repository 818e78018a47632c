"""Several ranked lists become one.

| name | score of a point | source |
|---|---|---|
| `rrf` | Σ 1/(k + rank), rank from 1, k = 60 | Cormack, Clarke and Büttcher, SIGIR 2009 |
| `qdrant_rrf` | Σ 1/((pos + 1)/w + k − 1), pos from 0, k = 2 | Qdrant, reciprocal_rank_fusion.rs |
| `dbsf` | Σ (s − (μ − 3σ)) / 6σ, σ of the sample | Qdrant, score_fusion.rs |
| `rsf` | Σ weight · (s − min)/(max − min) | relative score fusion; two lists weigh α and 1 − α |
| `product` | Π of the scores; only points in every list | d-vecDB's "distribution based" |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean

FUSIONS: Final = ("rrf", "qdrant_rrf", "dbsf", "rsf", "product")
DEFAULT_ALPHA: Final = 0.7

Ranking = tuple[np.ndarray, np.ndarray]
"""Keys (each once) and scores of one list, best first; a larger score is better."""


def fuse(
    lists: Sequence[Ranking],
    fusion: str,
    *,
    k: int | None = None,
    weights: Sequence[float] | None = None,
    alpha: float | None = None,
) -> Ranking:
    """Return the keys of all lists with their fused scores, best first.

    Args:
        lists: The rankings.
        fusion: One of `FUSIONS`.
        k: The constant of the two reciprocal rank fusions; 60 and 2 unless given.
        weights: One a list, for the reciprocal rank fusions and `rsf`; 1 unless given.
        alpha: Of `rsf` over two lists: the weight of the first, 0.7 unless given.

    Raises:
        UnknownNameError: No such fusion.
        InvalidInputError: Weights of the wrong number, or an option the fusion does not take.
    """
    if fusion not in FUSIONS:
        raise UnknownNameError(
            f"fusion {fusion!r} is not known", hint=did_you_mean(fusion, FUSIONS, what="fusions")
        )
    w = _weights(lists, fusion, weights, alpha)
    if k is not None and fusion not in ("rrf", "qdrant_rrf"):
        raise InvalidInputError(f"fusion {fusion!r} takes no k; rrf and qdrant_rrf do")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise InvalidInputError(f"k is {k!r}; it must be an integer of at least 1")
    if not lists:
        return np.zeros(0, np.uint64), np.zeros(0)
    keys, place = np.unique(np.concatenate([r[0] for r in lists]), return_inverse=True)
    parts = np.split(place, np.cumsum([len(r[0]) for r in lists])[:-1])
    if fusion == "product":
        return _product(lists, keys, parts)
    total = np.zeros(len(keys))
    for (_, scores), at, weight in zip(lists, parts, w, strict=True):
        np.add.at(total, at, _contribution(np.asarray(scores, np.float64), fusion, k, weight))
    order = np.lexsort((keys, -total))
    return keys[order], total[order]


def _weights(
    lists: Sequence[Ranking], fusion: str, weights: Sequence[float] | None, alpha: float | None
) -> list[float]:
    if alpha is not None and (
        fusion != "rsf" or weights is not None or not _is_number(alpha) or not 0 <= alpha <= 1
    ):
        raise InvalidInputError(f"alpha is {alpha!r}; it goes with fusion='rsf' without weights, from 0 to 1")
    if weights is not None:
        if fusion in ("dbsf", "product"):
            raise InvalidInputError(f"fusion {fusion!r} takes no weights; rrf, qdrant_rrf and rsf do")
        if len(weights) != len(lists):
            raise InvalidInputError(f"{len(weights)} weights were given for {len(lists)} rankings")
        for weight in weights:
            if not _is_number(weight):
                raise InvalidInputError(f"a weight is {weight!r}; it must be a finite number")
        return [float(v) for v in weights]
    if fusion == "rsf":
        if len(lists) == 2:
            first = DEFAULT_ALPHA if alpha is None else alpha
            return [first, 1 - first]
        return [1 / max(len(lists), 1)] * len(lists)
    return [1.0] * len(lists)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )


def _contribution(scores: np.ndarray, fusion: str, k: int | None, weight: float) -> np.ndarray:
    """Return what one list adds to the score of each of its points."""
    position = np.arange(len(scores), dtype=np.float64)
    if fusion == "rrf":
        reciprocal: np.ndarray = weight / ((60 if k is None else k) + position + 1)
        return reciprocal
    if fusion == "qdrant_rrf":
        if weight <= 0:
            return np.zeros(len(scores))
        shared: np.ndarray = 1 / ((position + 1) / weight + (2 if k is None else k) - 1)
        return shared
    if fusion == "dbsf":
        deviation = scores.std(ddof=1) if len(scores) > 1 else 0.0
        if deviation == 0:
            return np.full(len(scores), 0.5)
        normal: np.ndarray = (scores - (scores.mean() - 3 * deviation)) / (6 * deviation)
        return normal
    spread = scores.max() - scores.min() if len(scores) else 0.0
    if spread == 0:
        return np.full(len(scores), 0.5 * weight)
    relative: np.ndarray = weight * (scores - scores.min()) / spread
    return relative


def _product(lists: Sequence[Ranking], keys: np.ndarray, parts: Sequence[np.ndarray]) -> Ranking:
    total = np.ones(len(keys))
    seen = np.zeros(len(keys), np.int64)
    for (_, scores), at in zip(lists, parts, strict=True):
        total[at] *= scores
        seen[at] += 1
    everywhere = seen == len(lists)
    keys, total = keys[everywhere], total[everywhere]
    order = np.lexsort((keys, -total))
    return keys[order], total[order]
