"""Exact nearest neighbours are those of float64 arithmetic, however the rows are laid out."""

import numpy as np
import pytest

from vecdataset.exact import Matrix, Nearest
from vecdataset.schema import Distance


def distances(metric, query, matrix):
    q, x = query.astype(np.float64), matrix.astype(np.float64)
    if metric is Distance.EUCLID:
        return np.sqrt(((x - q) ** 2).sum(axis=1))
    if metric is Distance.MANHATTAN:
        return np.abs(x - q).sum(axis=1)
    dots = (x * q).sum(axis=1)
    if metric is Distance.DOT:
        return -dots
    norms = np.sqrt((x**2).sum(axis=1)) * np.sqrt((q**2).sum())
    return 1 - np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)


RNG = np.random.default_rng(11)
MATRICES = {
    "clusters": RNG.standard_normal((9, 24))[RNG.integers(0, 9, 3_000)]
    + 0.05 * RNG.standard_normal((3_000, 24)),
    "far from the origin": 1e4 + RNG.standard_normal((3_000, 24)),
    "a grid full of ties": RNG.integers(-1, 2, (3_000, 6)),
    "the same vector": np.ones((3_000, 5)),
    "lengths of all sizes": RNG.standard_normal((3_000, 24)) * 10.0 ** RNG.integers(-6, 7, (3_000, 1)),
    "the ends of float32": RNG.standard_normal((3_000, 4)) * 10.0 ** RNG.integers(-44, 38, (3_000, 1)),
    "zeros among them": RNG.standard_normal((3_000, 7)) * (RNG.random((3_000, 1)) < 0.5),
    "fewer than asked for": RNG.standard_normal((7, 3)),
}


@pytest.mark.parametrize("k", [1, 10, 1_500])
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("metric", list(Distance))
def test_the_nearest_are_those_of_float64(metric, name, k):
    matrix = MATRICES[name].astype(np.float32)
    queries = matrix[[0, -1]] * np.float32(1.01)
    queries[1] += matrix[1] / 3
    rows = RNG.permutation(len(matrix)).astype(np.uint64)
    nearest = Nearest(metric, queries, k)

    for start in range(0, len(matrix), 1_100):
        nearest.offer(rows[start : start + 1_100], Matrix(matrix[start : start + 1_100]))

    assert nearest.scanned == len(matrix)
    for query, (found, distance) in zip(queries, nearest.hits, strict=True):
        expected = distances(metric, query, matrix)
        order = np.lexsort((rows, expected))[:k]
        np.testing.assert_allclose(distance, expected[order], rtol=1e-12, atol=1e-14)
        here = np.argsort(rows)
        np.testing.assert_allclose(
            expected[here[np.searchsorted(rows, found, sorter=here)]], distance, rtol=1e-12, atol=1e-14
        )
        assert len(np.unique(found)) == min(k, len(matrix))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 1.0])
@pytest.mark.parametrize("metric", list(Distance))
def test_only_rows_that_count_are_found(metric, share):
    matrix = RNG.standard_normal((2_000, 8)).astype(np.float32)
    rows = np.arange(2_000, dtype=np.uint64) + 50
    at = np.flatnonzero(RNG.random(2_000) < share)
    nearest = Nearest(metric, matrix[:3], 20)

    nearest.offer(rows, Matrix(matrix), at)

    for query, (found, _) in zip(matrix[:3], nearest.hits, strict=True):
        expected = distances(metric, query, matrix[at])
        assert found.tolist() == rows[at][np.argsort(expected, kind="stable")[:20]].tolist()


def test_equal_distances_come_by_row_id():
    matrix = np.ones((500, 4), np.float32)
    nearest = Nearest(Distance.COSINE, matrix[:1], 5)

    nearest.offer(np.arange(500, 0, -1).astype(np.uint64), Matrix(matrix))

    assert nearest.hits[0][0].tolist() == [1, 2, 3, 4, 5]


def test_nothing_is_asked_for_or_offered():
    nothing = Nearest(Distance.DOT, np.ones((1, 2), np.float32), 0)
    empty = Nearest(Distance.DOT, np.ones((1, 2), np.float32), 3)

    nothing.offer(np.arange(2, dtype=np.uint64), Matrix(np.ones((2, 2), np.float32)))
    empty.offer(np.zeros(0, np.uint64), Matrix(np.ones((0, 2), np.float32)))

    assert [len(nothing.hits[0][0]), len(empty.hits[0][0])] == [0, 0]
