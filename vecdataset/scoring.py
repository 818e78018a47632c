"""Scores of points against several examples at once: recommend, discover, context, MMR.

All formulas are Qdrant's (lib/segment/src/vector_storage/query and lib/shard/src/query/mmr of
its source, version 1.19) over the *inner similarity* s, which is larger for nearer: q·x for Dot, the
cosine for Cosine, −Σ(q−x)² for Euclid, −Σ|q−x| for Manhattan.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from vecdataset.errors import InvalidInputError
from vecdataset.schema import Distance
from vecdataset.vectors import unit

EPSILON: Final = float(np.finfo(np.float32).eps)


def dots(examples: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the dot product of each example with each row.

    Args:
        examples: `[m, size]`.
        matrix: `[n, size]` of the same dtype.

    Returns:
        `[m, n]`.

    BLAS shares larger products among threads. Where other work keeps the cores busy, a call
    then waits for all of them, for tens of milliseconds, so that it has to be worth it.
    """
    m, n = len(examples), len(matrix)
    if m >= _SHARED_EXAMPLES and n >= _SHARED_ROWS:
        shared: np.ndarray = examples @ matrix.T
        return shared
    out = np.empty((m, n), np.result_type(examples, matrix))
    width = max(1, m * matrix.shape[1])
    step = max(1, _ALONE // width)
    if width <= _NARROW:
        # Rows times columns that lie in order is what BLAS does three times as fast as the other way round.
        columns = np.ascontiguousarray(examples.T)
        for start in range(0, n, step):
            out[:, start : start + step] = np.matmul(matrix[start : start + step], columns).T
        return out
    for start in range(0, n, step):
        np.matmul(examples, matrix[start : start + step].T, out=out[:, start : start + step])
    return out


_ALONE: Final = 1 << 18
"""Multiplications that OpenBLAS does in one thread: 65,536 times GEMM_MULTITHREAD_THRESHOLD."""
_NARROW: Final = 2_048
"""Floats of examples up to which a step has rows enough that its own cost does not show."""
_SHARED_EXAMPLES: Final = 16
_SHARED_ROWS: Final = 16_384


def similarity(metric: Distance, examples: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the inner similarity of each example to each row.

    Args:
        metric: The vector's distance.
        examples: `[m, size]`.
        matrix: `[n, size]` stored vectors.

    Returns:
        `[m, n]`, of the wider dtype of the two.
    """
    if metric is Distance.DOT:
        return dots(examples, matrix)
    if metric is Distance.COSINE:
        cosine = dots(unit(examples), matrix)
        norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
        with np.errstate(divide="ignore"):
            inverse = np.reciprocal(norms, out=norms)
        inverse[np.isinf(inverse)] = 0.0
        cosine *= inverse
        return cosine
    out = np.empty((len(examples), len(matrix)), np.result_type(examples, matrix))
    spare = np.empty(matrix.shape, out.dtype)
    for i, example in enumerate(examples):
        np.subtract(matrix, example, out=spare)
        if metric is Distance.EUCLID:
            np.einsum("ij,ij->i", spare, spare, out=out[i])
        else:
            np.abs(spare, out=spare)
            np.sum(spare, axis=1, out=out[i])
    return -out


def _sigmoid(x: np.ndarray) -> np.ndarray:
    value: np.ndarray = x / (1.0 + np.abs(x))
    return value


def _scaled_sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (_sigmoid(x) + 1.0)


def average_vector(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return the one vector that stands for the examples: avg(P), or 2·avg(P) − avg(N)."""
    if not len(positive):
        raise InvalidInputError(
            "recommend by average_vector needs at least one positive example",
            hint="strategy='best_score' and 'sum_scores' work with negative examples alone",
        )
    mean: np.ndarray = positive.mean(axis=0)
    if len(negative):
        mean = 2.0 * mean - negative.mean(axis=0)
    return mean


def best_score(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return Qdrant's best-score rule for similarities `[examples, n]`: nearest example decides."""
    n = positive.shape[1]
    best = positive.max(axis=0) if len(positive) else np.full(n, -np.inf)
    worst = negative.max(axis=0) if len(negative) else np.full(n, -np.inf)
    with np.errstate(invalid="ignore"):
        return np.where(best > worst, _scaled_sigmoid(best), -_scaled_sigmoid(worst))


def sum_scores(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return Σ s(positive) − Σ s(negative)."""
    total: np.ndarray = positive.sum(axis=0) - negative.sum(axis=0)
    return total


def discover(target: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return Σ over pairs of sign(s⁺ − s⁻), plus the scaled sigmoid of s(target).

    Args:
        target: `[n]`.
        positive: `[pairs, n]`.
        negative: `[pairs, n]`.
    """
    rank: np.ndarray = np.sign(positive - negative).sum(axis=0) + _scaled_sigmoid(target)
    return rank


def context(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return Σ over pairs of σ(min(s⁺ − s⁻ − ε, 0)): 0 where every positive is nearer."""
    loss: np.ndarray = _sigmoid(np.minimum(positive - negative - EPSILON, 0.0)).sum(axis=0)
    return loss


def mmr(relevance: np.ndarray, between: np.ndarray, *, diversity: float, limit: int) -> np.ndarray:
    """Return positions of up to `limit` candidates in order of maximal marginal relevance.

    Args:
        relevance: `[n]` inner similarity to the query.
        between: `[n, n]` inner similarity of the candidates.
        diversity: 0 orders by relevance alone, 1 by difference alone.
        limit: How many to choose.
    """
    if not 0.0 <= diversity <= 1.0:
        raise InvalidInputError(f"diversity is {diversity!r}; it must be 0 to 1")
    n = len(relevance)
    if not n:
        return np.zeros(0, np.int64)
    weight = 1.0 - diversity
    chosen = [int(np.argmax(relevance))]
    left = np.ones(n, bool)
    left[chosen[0]] = False
    nearest_chosen = between[chosen[0]].copy()
    while len(chosen) < min(limit, n):
        value = weight * relevance - (1.0 - weight) * nearest_chosen
        value[~left] = -np.inf
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        np.maximum(nearest_chosen, between[best], out=nearest_chosen)
    return np.array(chosen)
