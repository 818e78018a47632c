"""Exact nearest neighbours: which rows of matrices are nearest to some queries, whatever their order.

Every matrix is gone through once, with BLAS in float32: that gives each row a rough distance and a
bound of its error. Rows whose least possible distance is within that of the `k`-th best so far are
computed again in float64; the others cannot be hits. So the answer is that of float64 arithmetic, at
the speed of float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from vecdataset import scoring
from vecdataset.schema import Distance

_FLOATS: Final = 1 << 22
"""Rough distances that are computed at once: 16 MB."""
_TILE: Final = 1 << 18
"""Floats of rows that stay in the cache while one query goes over them."""
_FIRST: Final = 8_192
"""Rows of which the best bound the search before it begins."""
_PRECISE: Final = 8_192
_GATHER_AT_MOST: Final = 0.3
"""A share of the rows from which on all are compared, and not the wanted ones gathered."""


class Matrix:
    """Vectors of rows under each other, with their lengths, which every search needs."""

    def __init__(self, values: np.ndarray) -> None:
        """Take float32 `[n, size]`, C-contiguous and finite."""
        self.values = values
        self.size = values.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def squares(self) -> np.ndarray:
        """float32 `[n]`: the sum of squares of each row, which may have overflown."""
        with np.errstate(over="ignore", under="ignore"):
            sums: np.ndarray = np.einsum("ij,ij->i", self.values, self.values)
        return sums

    @cached_property
    def norms(self) -> np.ndarray:
        """float32 `[n]`: the length of each row."""
        lengths: np.ndarray = np.sqrt(self.squares)
        return lengths

    @cached_property
    def inverse(self) -> np.ndarray:
        """float32 `[n]`: minus one over the length; 0 for a row of zeros."""
        norms = self.norms
        inverse: np.ndarray = np.divide(-1, norms, out=np.zeros_like(norms), where=norms > 0)
        return inverse

    @cached_property
    def odd(self) -> np.ndarray:
        """Positions of rows whose squares are at the ends of float32: too large, or vanished."""
        return np.flatnonzero(~_safe(self.squares))

    def part(self, at: np.ndarray) -> Matrix:
        """Return some rows."""
        out = Matrix(self.values[at])
        out.__dict__.update({k: self.__dict__[k][at] for k in _LENGTHS if k in self.__dict__})
        return out

    @property
    def nbytes(self) -> int:
        """Bytes in memory, lengths included as far as they were needed."""
        own = sum(v.nbytes for v in list(self.__dict__.values()) if isinstance(v, np.ndarray))
        return int(own)


_LENGTHS: Final = ("squares", "norms", "inverse")


def _safe(squares: np.ndarray) -> np.ndarray:
    safe: np.ndarray = (squares > 1e-30) & (squares < 1e30)
    return safe


@dataclass(slots=True)
class _Best:
    """The nearest rows of one query so far, nearest first, then by row id."""

    rows: np.ndarray
    distances: np.ndarray


class Nearest:
    """The `k` nearest rows of each query among all that were offered."""

    def __init__(self, metric: Distance, queries: np.ndarray, k: int) -> None:
        """Begin with none.

        Args:
            metric: The distance.
            queries: float32 `[m, size]`, finite.
            k: Rows a query.
        """
        self._metric = metric
        self.queries = queries
        """float32 `[m, size]`."""
        self.k = k
        """How many rows a query has at most."""
        self._wide = queries.astype(np.float64)
        self._best = [_Best(np.zeros(0, np.uint64), np.zeros(0)) for _ in queries]
        self._lengths = np.sqrt(np.einsum("ij,ij->i", self._wide, self._wide))
        # What sums of `size` products may be off by, relative to the lengths; twice, to be sure.
        self._error = (2.0 * queries.shape[1] + 64.0) * float(np.finfo(np.float32).eps) / 2
        self._narrow = queries
        if metric is Distance.COSINE:
            scale = np.divide(1.0, self._lengths, out=np.zeros_like(self._lengths), where=self._lengths > 0)
            self._narrow = (self._wide * scale[:, None]).astype(np.float32)
        self.scanned = 0
        """Vectors that were compared."""

    @property
    def hits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Row ids (uint64) and distances (float64) a query, nearest first; equal ones by row id."""
        return [(best.rows, best.distances) for best in self._best]

    def offer(self, rows: np.ndarray, matrix: Matrix, at: np.ndarray | None = None) -> None:
        """Look at rows.

        Args:
            rows: Their row ids, uint64 `[n]`.
            matrix: Their vectors.
            at: Positions of those that count, ascending; None is all.
        """
        if self.k <= 0 or not len(self.queries) or not len(matrix):
            return
        self.scanned += len(matrix) if at is None else len(at)
        if at is not None and len(at) <= _GATHER_AT_MOST * len(matrix):
            step = max(1_024, _FLOATS // matrix.size)
            for start in range(0, len(at), step):
                part = at[start : start + step]
                self._offer(rows[part], matrix.part(part), None)
            return
        counts = None
        if at is not None and len(at) < len(matrix):
            counts = np.zeros(len(matrix), bool)
            counts[at] = True
        self._offer(rows, matrix, counts)

    @np.errstate(over="ignore", under="ignore", invalid="ignore")
    def _offer(self, rows: np.ndarray, matrix: Matrix, counts: np.ndarray | None) -> None:
        m = len(self.queries)
        step = max(1_024, _FLOATS // m)
        for start in range(0, len(matrix), step):
            span = slice(start, start + step)
            values = matrix.values[span]
            keys = None if self._metric is Distance.MANHATTAN else scoring.dots(self._narrow, values)
            odd = matrix.odd[(matrix.odd >= start) & (matrix.odd < start + step)] - start
            inside = None if counts is None else counts[span]
            for i in range(m):
                if keys is None or not self._trusts(i):
                    key, error = self._sums(i, values), None
                else:
                    key, error = self._keys(i, keys[i], matrix, span)
                    key[odd] = -np.inf
                if inside is not None:
                    key[~inside] = np.inf
                self._take(i, rows[span], values, key, error)

    def _trusts(self, i: int) -> bool:
        return self._metric is Distance.COSINE or bool(_safe(self._lengths[i] ** 2))

    # -------------------------------------------------------- rough distances

    def _keys(
        self, i: int, dots: np.ndarray, matrix: Matrix, span: slice
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Return keys that order as distances do, made in place of the dot products, and their errors."""
        if self._metric is Distance.COSINE:
            dots *= matrix.inverse[span]
            return dots, self._error
        length = np.float32(self._lengths[i])
        if self._metric is Distance.DOT:
            np.negative(dots, out=dots)
            return dots, (matrix.norms[span] * np.float32(self._error * length))
        dots *= np.float32(-2)
        dots += matrix.squares[span]
        dots += length * length
        error = matrix.norms[span] + length
        error *= error
        error *= np.float32(self._error)
        return dots, error

    def _sums(self, i: int, values: np.ndarray) -> np.ndarray:
        """Return Σ|difference|, or for queries at the ends of float32 nothing that is known of the rows."""
        if self._metric is not Distance.MANHATTAN:
            return np.full(len(values), -np.inf, np.float32)
        out = np.empty(len(values), np.float32)
        tile = max(64, _TILE // values.shape[1])
        spare = np.empty((min(tile, len(values)), values.shape[1]), np.float32)
        ones = np.ones(values.shape[1], np.float32)
        for start in range(0, len(values), tile):
            part = values[start : start + tile]
            difference = spare[: len(part)]
            np.subtract(part, self.queries[i], out=difference)
            np.abs(difference, out=difference)
            np.dot(difference, ones, out=out[start : start + len(part)])
        out[~np.isfinite(out)] = -np.inf
        return out

    def _bound(self, distance: float) -> float:
        """Return the key of a distance."""
        if self._metric is Distance.COSINE:
            return distance - 1.0
        return distance * distance if self._metric is Distance.EUCLID else distance

    # -------------------------------------------------------------- selection

    def _take(
        self, i: int, rows: np.ndarray, values: np.ndarray, key: np.ndarray, error: np.ndarray | float | None
    ) -> None:
        """Add the rows whose key, less its error, is within the worst of the best."""
        best = self._best[i]
        k = self.k
        if error is None:  # of a sum of sizes: relative to it
            error = np.where(np.isfinite(key), np.abs(key), 0) * np.float32(self._error)
        worst = best.distances[k - 1] if len(best.distances) >= k else self._first(i, values, key)
        bound = self._bound(float(worst))
        bound += abs(bound) * 1e-6
        at = np.flatnonzero(key - error <= bound if not isinstance(error, float) else key <= bound + error)
        at = at[key[at] != np.inf]
        if len(at) > 2 * k + 1_024:
            at = self._narrowed(i, at, values, key, error)
        if not len(at):
            return
        distances = np.concatenate([best.distances, self._precise(i, values, at)])
        ids = np.concatenate([best.rows, rows[at]])
        order = np.lexsort((ids, distances))[:k]
        self._best[i] = _Best(ids[order], distances[order])

    def _first(self, i: int, values: np.ndarray, key: np.ndarray) -> float:
        """Return a distance that at least `k` rows are within; infinite where there are not so many."""
        k = self.k
        some = np.flatnonzero(key[: max(_FIRST, 16 * k)] != np.inf)
        if len(some) < k:
            some = np.flatnonzero(key != np.inf)
            if len(some) < k:
                return np.inf
        if len(some) > k:
            some = some[np.argpartition(key[some], k - 1)[:k]]
        return float(self._precise(i, values, some).max())

    def _narrowed(
        self, i: int, at: np.ndarray, values: np.ndarray, key: np.ndarray, error: np.ndarray | float
    ) -> np.ndarray:
        """Return the candidates that are left once they are held against each other."""
        own = key[at].astype(np.float64)
        off = np.full(len(at), error) if isinstance(error, float) else error[at].astype(np.float64)
        if self._metric is Distance.EUCLID:
            # |a|² − 2ab + |b|² loses near neighbours of long vectors to rounding; differences do not.
            own = self._differences(i, at, values)
            off = own * self._error
        sure = np.where(np.isfinite(own), own + off, np.inf)
        limit = np.partition(sure, self.k - 1)[self.k - 1]
        left: np.ndarray = at[~(own - off > limit)]
        return left

    def _differences(self, i: int, at: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return Σ(difference)² of some rows, computed in float32; of no known value where that vanishes."""
        out = np.empty(len(at), np.float64)
        for start in range(0, len(at), _PRECISE):
            part = values[at[start : start + _PRECISE]] - self.queries[i]
            out[start : start + len(part)] = np.einsum("ij,ij->i", part, part)
        out[~_safe(out)] = -np.inf
        return out

    def _precise(self, i: int, values: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return float64 distances of some rows."""
        out = np.empty(len(at), np.float64)
        for start in range(0, len(at), _PRECISE):
            part = at[start : start + _PRECISE]
            out[start : start + len(part)] = self._distances(i, values[part].astype(np.float64))
        return out

    def _distances(self, i: int, wide: np.ndarray) -> np.ndarray:
        query = self._wide[i]
        # Sums of single rows, not BLAS: equal rows are at equal distances, wherever they stand.
        if self._metric is Distance.EUCLID:
            wide -= query
            distances: np.ndarray = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        elif self._metric is Distance.MANHATTAN:
            wide -= query
            distances = np.abs(wide).sum(axis=1)
        else:
            dots: np.ndarray = np.einsum("ij,j->i", wide, query)
            if self._metric is Distance.DOT:
                dots *= -1
                return dots
            norms = np.sqrt(np.einsum("ij,ij->i", wide, wide)) * self._lengths[i]
            distances = 1.0 - np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
        return distances
