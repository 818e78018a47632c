"""HNSW graphs over matrices in memory: which rows may be the nearest, for others to compare exactly.

The graph is usearch's, which the extra `indexes` brings. It refers to the vectors where they are, and
takes some hundred bytes a row on top.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from vecdataset.errors import InvalidInputError, MissingDependencyError, UnknownNameError, did_you_mean
from vecdataset.exact import Matrix
from vecdataset.schema import Distance

_METRICS: Final = {Distance.COSINE: "cos", Distance.DOT: "ip", Distance.EUCLID: "l2sq"}
LEAST_ROWS: Final = 4_096
"""Fewer rows are compared in less time than a graph is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphParams:
    """How a graph is built and searched."""

    m: int = 16
    """Neighbours a row."""
    ef_construct: int = 128
    """Candidates kept while building."""
    ef: int = 96
    """Candidates kept while searching, unless `params` of the search say otherwise."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 4_096:
                raise InvalidInputError(f"{f.name} of a graph is {value!r}; it must be 2 to 4,096")

    @classmethod
    def parse(cls, given: Any) -> GraphParams | None:
        """Return the parameters that a bool or a dict asks for; None is no graph.

        Raises:
            UnknownNameError: A name is not known.
            MissingDependencyError: The package is missing.
        """
        if given is None or given is False:
            return None
        if given is not True and not isinstance(given, Mapping | GraphParams):
            raise InvalidInputError(
                f"graph is {given!r}; it must be a bool, or a dict of m, ef_construct, ef"
            )
        _index_class()
        if isinstance(given, GraphParams):
            return given
        known = [f.name for f in fields(cls)]
        options = {} if given is True else dict(given)
        for name in options:
            if name not in known:
                raise UnknownNameError(
                    f"a graph has no parameter {name!r}",
                    hint=did_you_mean(str(name), known, what="parameters"),
                )
        return cls(**options)


def _index_class() -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise MissingDependencyError.of("usearch", extra="indexes", purpose="a graph in memory") from None
    return Index


def serves(metric: Distance, rows: int) -> bool:
    """Return whether a graph can be built over so many rows, and is worth it."""
    return metric in _METRICS and rows >= LEAST_ROWS


class Graph:
    """A graph over the rows of a matrix."""

    def __init__(self, metric: Distance, matrix: Matrix, params: GraphParams) -> None:
        """Build it, on all cores: seconds to minutes for 100,000 rows."""
        self.params = params
        self._lock = threading.Lock()
        self._index = _index_class()(
            ndim=matrix.size,
            metric=_METRICS[metric],
            dtype="f32",
            connectivity=params.m,
            expansion_add=params.ef_construct,
            expansion_search=params.ef,
        )
        # Without a copy: the index points into the matrix, which it keeps from being freed.
        self._matrix = matrix
        self._index.add(np.arange(len(matrix), dtype=np.uint64), matrix.values, copy=False)

    @property
    def nbytes(self) -> int:
        """Bytes beyond the vectors."""
        return int(self._index.memory_usage)

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return positions of rows that may be among the nearest of any of the queries, ascending.

        Args:
            queries: float32 `[m, size]`.
            count: Candidates a query; as many are kept while searching.
        """
        count = min(count, len(self._matrix))
        with self._lock:  # an index has as many places for searches as cores, and fails when all are taken
            found = self._index.search(np.ascontiguousarray(queries), count)
        if len(queries) == 1:
            keys = np.asarray(found.keys).reshape(-1)
        else:
            counts = np.asarray(found.counts)
            keys = np.asarray(found.keys)[np.arange(count)[None, :] < counts[:, None]]
        return np.unique(keys).astype(np.int64)
