"""Dense, multi- and sparse vectors under one face: examples in, similarities and nearest rows out.

A `Space` is one vector of a collection at one version. Query kinds (recommend, discover, MMR …)
are written once, over the inner similarity of `scoring.py`, and work on every space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from vecdataset import scoring
from vecdataset.errors import InvalidInputError, InvalidVectorError, PointNotFoundError
from vecdataset.ids import fit_ids
from vecdataset.indexes import SearchParams
from vecdataset.postings import Postings
from vecdataset.query import Query, nearest_points, query_vectors
from vecdataset.reader import Reader, Selection
from vecdataset.schema import Distance, VectorParams, vector_column
from vecdataset.sparse import SparseVector, idf
from vecdataset.vectors import unit

Similarities = Iterator[tuple[np.ndarray, np.ndarray]]
"""Row ids `[n]` and inner similarities `[examples, n]`, batch by batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """The rows nearest to each of some examples, and how they were found."""

    hits: list[tuple[np.ndarray, np.ndarray]]
    """Row ids and scores an example, best first."""
    how: str
    """For plans."""
    compared: int | None
    """Vectors compared one by one, where that is known."""
    along: pa.Table | None = None
    """The columns asked for, a row for each hit, where an index read them along with the hits."""


class Space(Protocol):
    """One vector of a collection, of whatever kind."""

    name: str
    higher_is_better: bool
    """Whether a larger score, as it is returned, is a better one."""

    def example(self, item: Any) -> Any:
        """Return a vector that a caller gave, checked."""
        ...

    def stored(self, values: Sequence[Any]) -> list[Any]:
        """Return vectors read from the column as examples."""
        ...

    def nearest(
        self,
        examples: Sequence[Any],
        selection: Selection,
        *,
        limit: int,
        params: SearchParams,
        columns: Sequence[str] = (),
    ) -> Nearby:
        """Return the rows nearest to each example, and `columns` of theirs where that costs nothing."""
        ...

    def similarities(self, examples: Sequence[Any], selection: Selection) -> Similarities:
        """Yield the similarity of every selected row to every example."""
        ...

    def between(self, rows: np.ndarray, example: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return similarities of rows to an example `[n]`, and to each other `[n, n]`."""
        ...

    def average(self, positive: Sequence[Any], negative: Sequence[Any]) -> Any:
        """Return the one example that stands for all: avg(P), or 2·avg(P) − avg(N)."""
        ...


def space(reader: Reader, using: str | None) -> Space:
    """Return the space of the vector `using`."""
    if using is not None and using in reader.schema.sparse:
        return SparseSpace(reader, using)
    name, params = reader.schema.vector(using)
    return MultiSpace(reader, name, params) if params.multivector else DenseSpace(reader, name, params)


def lookup(reader: Reader, using: str, ids: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
    """Return stored vectors of points as the column gives them, and the points' row ids.

    Raises:
        PointNotFoundError: An id is not there.
        InvalidInputError: A point has no such vector.
    """
    stored, _ = fit_ids(list(ids), reader.schema.id_type, where=reader.where)
    return stored_vectors(reader, using, stored)


def stored_vectors(reader: Reader, using: str, stored: pa.Array) -> tuple[list[Any], np.ndarray]:
    """Return the same for ids as they are stored."""
    column = vector_column(using)
    found: dict[Any, tuple[int, Any]] = {}
    known = None if reader.schema.id_type is None else reader.known_rows(stored.to_pylist())
    if known is not None:
        rows = np.fromiter(known.values(), np.uint64, len(known))
        held = reader.held
        if held is not None and using in held.vectors:
            there = held.vectors_of(rows, using)
        else:
            there = reader.take(rows, [column])[column].to_pylist()
        found.update(zip(known, zip(known.values(), there, strict=True), strict=True))
    elif reader.schema.id_type is not None:
        for sql in reader.id_literals(stored):
            table = reader.table.read(["id", column], filter=sql, row_ids=True)
            pairs = zip(table["_rowid"].to_pylist(), table[column].to_pylist(), strict=True)
            found.update(zip(table["id"].to_pylist(), pairs, strict=True))
    vectors, row_ids = [], []
    for key in stored.to_pylist():
        if key not in found:
            raise PointNotFoundError(f"{reader.where} has no point {key!r} to search with")
        row, vector = found[key]
        if vector is None:
            raise InvalidInputError(f"point {key!r} of {reader.where} has no vector {using or 'vector'!r}")
        vectors.append(vector)
        row_ids.append(row)
    return vectors, np.array(row_ids, np.uint64)


def _stored_as_qdrant(vectors: Any, params: VectorParams) -> np.ndarray:
    """Return float64 `[n, size]`; of length one under Cosine: averages depend on it."""
    matrix = np.array(vectors, np.float64).reshape(-1, params.size)
    return unit(matrix) if params.metric is Distance.COSINE else matrix


def _score(metric: Distance, similarity: np.ndarray) -> np.ndarray:
    """Return the score that Qdrant returns for an inner similarity."""
    if metric is Distance.EUCLID:
        root: np.ndarray = np.sqrt(np.abs(similarity))
        return root
    return np.abs(similarity) if metric is Distance.MANHATTAN else similarity


# ----------------------------------------------------------------------------- dense


class DenseSpace:
    """One vector a point."""

    def __init__(self, reader: Reader, name: str, params: VectorParams) -> None:
        """Take the vector `name` of a reader."""
        self.name = name
        self.higher_is_better = params.metric.higher_is_better
        self._reader = reader
        self._params = params

    def example(self, item: Any) -> np.ndarray:
        """Return float64 `[size]`."""
        vector = query_vectors(item, self._params, name=self.name, where=self._reader.where)
        if len(vector) != 1:
            raise InvalidVectorError(f"one vector is needed here; {len(vector)} were given")
        example: np.ndarray = vector[0].astype(np.float64)
        return example

    def stored(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Return float64 `[size]` each; of length one under Cosine, as Qdrant stores them."""
        return list(_stored_as_qdrant(values, self._params))

    def nearest(
        self,
        examples: Sequence[np.ndarray],
        selection: Selection,
        *,
        limit: int,
        params: SearchParams,
        columns: Sequence[str] = (),
    ) -> Nearby:
        """Search, through the index where one serves; one call for all examples."""
        query = Query(vectors=np.array(examples, np.float32), using=self.name, limit=limit, params=params)
        found, plan, along = nearest_points(self._reader, query, selection, columns)
        metric = self._params.metric
        hits = []
        for rows, distance in found:
            if metric is Distance.COSINE:
                hits.append((rows, 1.0 - distance))
            else:
                hits.append((rows, -distance if metric is Distance.DOT else distance))
        how = f"index {plan.index} ({plan.kind})" if plan.index else f"exact, {plan.reason}"
        if plan.in_memory:
            how = f"in memory, {how}"
        compared = None if plan.index else plan.rows_scanned
        return Nearby(hits=hits, how=how, compared=compared, along=along)

    def similarities(self, examples: Sequence[np.ndarray], selection: Selection) -> Similarities:
        """Go through the column; float32 arithmetic."""
        narrow = np.array(examples, np.float32).reshape(-1, self._params.size)
        for rows, matrix in self._reader.matrices(self.name, selection):
            yield rows, scoring.similarity(self._params.metric, narrow, matrix)

    def between(self, rows: np.ndarray, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the rows; float64 arithmetic."""
        held = self._reader.held
        if held is not None and self.name in held.vectors:
            matrix = np.array(held.vectors_of(rows, self.name), np.float64)
        else:
            column = vector_column(self.name)
            stored = self._reader.take(rows, [column])[column].combine_chunks()
            flat = stored.flatten().to_numpy(zero_copy_only=False)
            matrix = flat.reshape(-1, self._params.size).astype(np.float64)
        metric = self._params.metric
        return (
            scoring.similarity(metric, example[None], matrix)[0],
            scoring.similarity(metric, matrix, matrix),
        )

    def average(self, positive: Sequence[np.ndarray], negative: Sequence[np.ndarray]) -> np.ndarray:
        """Return float64 `[size]`."""
        return scoring.average_vector(np.array(positive), np.array(negative))


def present(batch: pa.RecordBatch, column: str) -> tuple[np.ndarray, pa.Array]:
    """Return row ids and values of the rows that have the column."""
    rows, stored = batch.column("_rowid").to_numpy(), batch.column(column)
    if stored.null_count:
        rows = rows[stored.is_valid().to_numpy(zero_copy_only=False)]
        stored = stored.drop_null()
    return rows, stored


# ----------------------------------------------------------------------- multivectors


class MultiSpace:
    """Several vectors a point, compared by MaxSim: Σ over the query's of the best of the point's.

    Always exact: Lance's own scores of multivectors are wrong once an index is built.
    """

    def __init__(self, reader: Reader, name: str, params: VectorParams) -> None:
        """Take the multivector `name` of a reader."""
        self.name = name
        self.higher_is_better = params.metric.higher_is_better
        self._reader = reader
        self._params = params

    def example(self, item: Any) -> np.ndarray:
        """Return float64 `[vectors, size]`."""
        vectors = query_vectors(item, self._params, name=self.name, where=self._reader.where)
        return vectors.astype(np.float64)

    def stored(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Return float64 `[vectors, size]` each; of length one under Cosine."""
        return [_stored_as_qdrant(value, self._params) for value in values]

    def nearest(
        self,
        examples: Sequence[np.ndarray],
        selection: Selection,
        *,
        limit: int,
        params: SearchParams,  # noqa: ARG002  nothing to tune: always exact
        columns: Sequence[str] = (),  # noqa: ARG002  nothing reads them along
    ) -> Nearby:
        """Score every selected row."""
        hits, compared = [], 0
        for example in examples:
            best = best_rows(self.similarities([example], selection), lambda s: s[0], limit=limit)
            hits.append((best.rows, _score(self._params.metric, best.scores)))
            compared += best.scored
        return Nearby(hits=hits, how="exact, a multivector", compared=compared)

    def similarities(self, examples: Sequence[np.ndarray], selection: Selection) -> Similarities:
        """Stream the column."""
        column = vector_column(self.name)
        for batch in self._reader.stream([column], selection, batch_rows=1_024, row_ids=True):
            rows, stored = present(batch, column)
            if len(rows):
                starts, matrix = self._matrix(stored)
                yield rows, self._maxsim(examples, matrix, starts)

    def between(self, rows: np.ndarray, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the rows."""
        column = vector_column(self.name)
        stored = self._reader.take(rows, [column])[column].combine_chunks()
        starts, matrix = self._matrix(stored)
        wide = matrix.astype(np.float64)
        each = np.split(wide, starts[1:])
        return self._maxsim([example], wide, starts)[0], self._maxsim(each, wide, starts)

    def _matrix(self, stored: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return where each row's vectors begin, and all vectors under each other."""
        offsets = stored.offsets.to_numpy()
        flat = stored.flatten().flatten().to_numpy(zero_copy_only=False)
        matrix = flat.reshape(-1, self._params.size).astype(np.float32, copy=False)
        return offsets[:-1] - offsets[0], matrix

    def _maxsim(self, examples: Sequence[np.ndarray], matrix: np.ndarray, starts: np.ndarray) -> np.ndarray:
        out = np.empty((len(examples), len(starts)))
        for i, example in enumerate(examples):
            similarity = scoring.similarity(self._params.metric, example.astype(matrix.dtype), matrix)
            out[i] = np.maximum.reduceat(similarity, starts, axis=1).sum(axis=0)
        return out

    def average(self, positive: Sequence[np.ndarray], negative: Sequence[np.ndarray]) -> np.ndarray:
        """Return all positive vectors with all negative ones turned round, as Qdrant does."""
        if not positive:
            scoring.average_vector(np.zeros((0, 1)), np.zeros((0, 1)))
        return np.concatenate([*positive, *(-n for n in negative)])


# ---------------------------------------------------------------------------- sparse


class SparseSpace:
    """One sparse vector a point, compared by dot product; points that share no term are no hits."""

    higher_is_better = True

    def __init__(self, reader: Reader, name: str) -> None:
        """Take the sparse vector `name` of a reader."""
        self.name = name
        self._reader = reader
        self._idf = reader.schema.sparse[name].modifier == "idf"
        self._postings = Postings(reader.table, vector_column(name))

    def example(self, item: Any) -> SparseVector:
        """Return the sparse vector."""
        return SparseVector.parse(item)

    def stored(self, values: Sequence[Any]) -> list[SparseVector]:
        """Return sparse vectors from what the column holds."""
        return [SparseVector.parse(v) for v in values]

    def _weights(self, example: SparseVector) -> np.ndarray:
        weights = example.values.astype(np.float64)
        if self._idf:
            documents, frequencies = self._postings.frequencies(example)
            weights = weights * idf(documents, frequencies)
        return weights

    def _allowed(self, selection: Selection) -> np.ndarray | None:
        if selection.everything:
            return None
        if selection.rows is not None:
            return selection.rows
        return np.sort(self._reader.table.row_ids(selection.sql, indexed=selection.indexed))

    def nearest(
        self,
        examples: Sequence[SparseVector],
        selection: Selection,
        *,
        limit: int,
        params: SearchParams,  # noqa: ARG002  nothing to tune: always exact
        columns: Sequence[str] = (),  # noqa: ARG002  nothing reads them along
    ) -> Nearby:
        """Add up the postings of the query's terms."""
        allowed = self._allowed(selection)
        hits = [
            self._postings.top(example, k=limit, weights=self._weights(example), allowed=allowed)
            for example in examples
        ]
        return Nearby(hits=hits, how="exact, the postings of its terms", compared=None)

    def similarities(self, examples: Sequence[SparseVector], selection: Selection) -> Similarities:
        """Go through the postings block by block."""
        allowed = self._allowed(selection)
        weights = [self._weights(e) for e in examples]
        for rows, scores, touched in self._postings.scores(examples, weights, allowed=allowed):
            # A point that shares no term with any example is no hit.
            some = touched.any(axis=0)
            if some.any():
                yield rows[some], scores[:, some]

    def between(self, rows: np.ndarray, example: SparseVector) -> tuple[np.ndarray, np.ndarray]:
        """Take the rows."""
        column = vector_column(self.name)
        vectors = self.stored(self._reader.take(rows, [column])[column].to_pylist())
        each = np.array([[a.dot(b) for b in vectors] for a in vectors])
        return np.array([example.dot(v) for v in vectors]), each

    def average(self, positive: Sequence[SparseVector], negative: Sequence[SparseVector]) -> SparseVector:
        """Average over the union of the terms."""
        terms = np.unique(np.concatenate([v.indices for v in (*positive, *negative)]))

        def matrix(vectors: Sequence[SparseVector]) -> np.ndarray:
            out = np.zeros((len(vectors), len(terms)))
            for row, vector in zip(out, vectors, strict=True):
                row[np.searchsorted(terms, vector.indices)] = vector.values
            return out

        return SparseVector(terms, scoring.average_vector(matrix(positive), matrix(negative)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestRows:
    """The best rows of a stream."""

    rows: np.ndarray
    scores: np.ndarray
    scored: int
    """How many rows were looked at."""


def best_rows(
    batches: Similarities,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    limit: int,
    exclude: np.ndarray | None = None,
) -> BestRows:
    """Return the `limit` best rows of a stream, best first.

    Args:
        batches: Row ids and similarities `[examples, n]`.
        score: Makes scores `[n]` of similarities; larger is better.
        limit: How many to keep.
        exclude: Row ids that are no hits.
    """
    own = np.zeros(0, np.uint64) if exclude is None else exclude
    # Looking for the excluded in every batch costs more than to keep as many more, and to drop them last.
    most = limit + len(own)
    rows, scores, scored = np.zeros(0, np.uint64), np.zeros(0), 0
    worst = -np.inf
    for batch_rows, similarity in batches:
        found = score(similarity)
        scored += len(found)
        # All that are as good as the last one stay: of equal ones, the smallest row ids are hits.
        at = np.flatnonzero(~(found < worst))
        kept = found[at]
        kept[np.isnan(kept)] = -np.inf  # two that overflowed, subtracted
        if len(at) > most:
            best = kept >= np.partition(kept, len(at) - most)[len(at) - most]
            at, kept = at[best], kept[best]
        if not len(at):
            continue
        rows, scores = np.concatenate([rows, batch_rows[at]]), np.concatenate([scores, kept])
        order = np.lexsort((rows, -scores))[:most]
        rows, scores = rows[order], scores[order]
        if len(rows) == most:
            worst = scores[-1]
    if len(own):
        keep = ~np.isin(rows, own)
        rows, scores = rows[keep][:limit], scores[keep][:limit]
    return BestRows(rows=rows, scores=scores, scored=scored)
