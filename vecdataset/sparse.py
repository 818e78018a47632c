"""Sparse vectors: the value, how it is stored, and exact top-k over postings.

A stored sparse vector is a struct of two lists, `indices` (uint32, ascending, each once) and
`values` (float32). Lance has no index for them, so `Postings` keeps, per fragment of the
dataset, the values of each term side by side in memory: a query adds up the few terms it has.
Fragments never change, so a new version reads only the fragments it added; rows deleted since
are left out by the row ids that are still there. `scan_top` does the same over the stream
where the postings would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vecdataset.errors import InvalidVectorError
from vecdataset.schema import SPARSE_TYPE


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """Indices and values of the components that are not zero, indices ascending.

    >>> SparseVector([7, 2], [0.5, 1.0])
    SparseVector(indices=[2, 7], values=[1.0, 0.5])
    """

    indices: np.ndarray
    """uint32, ascending, each once."""
    values: np.ndarray
    """float32, finite."""

    def __init__(self, indices: Any, values: Any) -> None:
        """Check and sort.

        Args:
            indices: Integers from 0 to 2^32-1, each once.
            values: As many finite numbers.

        Raises:
            InvalidVectorError: Lengths differ, an index stands twice or is out of range, or a value
                is NaN or infinite.
        """
        at, weights = np.asarray(indices), np.asarray(values)
        if at.ndim != 1 or weights.ndim != 1 or len(at) != len(weights):
            raise InvalidVectorError(
                f"a sparse vector has {at.size} indices and {weights.size} values; they must be as many"
            )
        if at.size and (at.dtype.kind not in "iu" or at.min() < 0 or at.max() >= 1 << 32):
            raise InvalidVectorError("an index of a sparse vector is no integer from 0 to 2^32-1")
        if weights.size and weights.dtype.kind not in "fiu":
            raise InvalidVectorError("a value of a sparse vector is not a number")
        order = np.argsort(at, kind="stable")
        at = at[order].astype(np.uint32)
        with np.errstate(over="ignore"):
            weights = weights[order].astype(np.float32)
        if (at[1:] == at[:-1]).any():
            twice = int(at[1:][at[1:] == at[:-1]][0])
            raise InvalidVectorError(f"index {twice} stands twice in a sparse vector")
        if not np.isfinite(weights).all():
            raise InvalidVectorError("a sparse vector holds NaN or infinity")
        object.__setattr__(self, "indices", at)
        object.__setattr__(self, "values", weights)

    @classmethod
    def from_dense(cls, dense: Any, *, threshold: float = 0.0) -> SparseVector:
        """Return the components of a dense vector whose absolute value is above `threshold`."""
        array = np.asarray(dense, np.float32)
        at = np.flatnonzero(np.abs(array) > threshold)
        return cls(at, array[at])

    @classmethod
    def parse(cls, value: Any) -> SparseVector:
        """Return a sparse vector from one, or from `{"indices": …, "values": …}`."""
        if isinstance(value, SparseVector):
            return value
        if isinstance(value, Mapping) and set(value) == {"indices", "values"}:
            return cls(value["indices"], value["values"])
        raise InvalidVectorError(
            f"a sparse vector comes as {type(value).__name__}",
            hint="pass SparseVector(indices, values) or {'indices': …, 'values': …}",
        )

    def to_dense(self, size: int | None = None) -> np.ndarray:
        """Return float32 `[size]`; the size reaches to the last index unless given."""
        least = int(self.indices[-1]) + 1 if len(self.indices) else 0
        if size is None:
            size = least
        if size < least:
            raise InvalidVectorError(f"size {size} does not reach index {least - 1}")
        out = np.zeros(size, np.float32)
        out[self.indices] = self.values
        return out

    def dot(self, other: SparseVector) -> float:
        """Return Σ of products over the indices that both have."""
        _, here, there = np.intersect1d(self.indices, other.indices, assume_unique=True, return_indices=True)
        return float(self.values[here].astype(np.float64) @ other.values[there].astype(np.float64))

    def norm(self, *, order: int = 2) -> float:
        """Return the L1 or L2 norm."""
        wide = self.values.astype(np.float64)
        return float(np.abs(wide).sum() if order == 1 else np.sqrt(wide @ wide))

    def normalized(self) -> SparseVector:
        """Return the vector scaled to length one; an empty or zero one stays."""
        norm = self.norm()
        return self if norm == 0 else SparseVector(self.indices, self.values / norm)

    def cosine(self, other: SparseVector) -> float:
        """Return the cosine of the angle to `other`; 0 where either is zero."""
        norms = self.norm() * other.norm()
        return self.dot(other) / norms if norms else 0.0

    def __len__(self) -> int:
        return len(self.indices)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseVector):
            return NotImplemented
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.indices.tobytes(), self.values.tobytes()))

    def __repr__(self) -> str:
        return f"SparseVector(indices={self.indices.tolist()}, values={self.values.tolist()})"


def fit_sparse(values: Any, name: str, *, ids: pa.Array | None, where: str) -> pa.Array:
    """Return sparse vectors as they are stored.

    Args:
        values: An Arrow struct array, or a sequence of `SparseVector`, dicts and None.
        name: The vector's name, for errors.
        ids: Stored ids, to name the point at fault.
        where: Names the collection in errors.

    Raises:
        InvalidVectorError: One does not hold; the message names the point.
    """
    if isinstance(values, pa.Array):
        stored = _as_stored(values)
        if stored is not None:
            return stored
        values = values.to_pylist()
    indices: list[np.ndarray | None] = []
    weights: list[np.ndarray | None] = []
    valid = np.ones(len(values), bool)
    for row, value in enumerate(values):
        if value is None:
            valid[row] = False
            indices.append(None)
            weights.append(None)
            continue
        try:
            vector = SparseVector.parse(value)
        except InvalidVectorError as exc:
            point = ids[row].as_py() if ids is not None else row
            raise InvalidVectorError(
                f"sparse vector {name!r} of point {point!r} of {where}: {exc.message}",
                hint=exc.hint or "nothing was written",
            ) from None
        indices.append(vector.indices)
        weights.append(vector.values)
    return pa.StructArray.from_arrays(
        [
            pa.array(indices, SPARSE_TYPE.field("indices").type),
            pa.array(weights, SPARSE_TYPE.field("values").type),
        ],
        fields=list(SPARSE_TYPE),
        mask=pa.array(~valid),
    )


def _as_stored(values: pa.Array) -> pa.Array | None:
    """Return an Arrow array that is in order already, cast; None where each vector needs a look."""
    try:
        cast = values.cast(SPARSE_TYPE)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    there = cast.drop_null() if cast.null_count else cast
    terms, weights = there.field("indices"), there.field("values")
    flat, numbers = terms.flatten(), weights.flatten()
    if terms.null_count or weights.null_count or flat.null_count or numbers.null_count:
        return None
    lengths = np.diff(terms.offsets.to_numpy())
    if not np.array_equal(lengths, np.diff(weights.offsets.to_numpy())):
        return None
    rising = np.diff(flat.to_numpy().astype(np.int64)) > 0
    starts = np.cumsum(lengths)[:-1]
    rising[starts[(starts > 0) & (starts < len(flat))] - 1] = True
    return cast if rising.all() and np.isfinite(numbers.to_numpy()).all() else None


# -------------------------------------------------------------------------- postings


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The postings of one fragment: the values of each term, side by side."""

    row_ids: np.ndarray
    """uint64, ascending: the rows that have the vector."""
    terms: np.ndarray
    """uint32, ascending: the terms that occur."""
    starts: np.ndarray
    """int64 `[terms + 1]`: where each term's postings begin."""
    rows: np.ndarray
    """int32: positions in `row_ids`."""
    values: np.ndarray
    """float32."""

    @classmethod
    def build(cls, batches: Iterable[tuple[np.ndarray, pa.Array]]) -> Block:
        """Make postings of row ids with their stored sparse vectors, in storage order."""
        row_ids, rows, terms, values = [], [], [], []
        count = 0
        for ids, stored in batches:
            at, lengths, flat_terms, flat_values = _flat(stored)
            row_ids.append(ids[at])
            rows.append(np.repeat(np.arange(count, count + len(at), dtype=np.int32), lengths))
            terms.append(flat_terms)
            values.append(flat_values)
            count += len(at)
        if not count:
            nothing = np.zeros(0, np.int32)
            return cls(
                np.zeros(0, np.uint64),
                np.zeros(0, np.uint32),
                np.zeros(1, np.int64),
                nothing,
                np.zeros(0, np.float32),
            )
        all_terms = np.concatenate(terms)
        order = np.argsort(all_terms, kind="stable")
        all_terms = all_terms[order]
        distinct, starts = np.unique(all_terms, return_index=True)
        return cls(
            np.concatenate(row_ids),
            distinct,
            np.append(starts, len(all_terms)),
            np.concatenate(rows)[order],
            np.concatenate(values)[order],
        )

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(a.nbytes for a in (self.row_ids, self.terms, self.starts, self.rows, self.values))

    def lists(self, query: SparseVector) -> list[tuple[int, slice]]:
        """Return, for each term of the query that occurs, its position in the query and its postings."""
        if not len(self.terms):
            return []
        at = np.searchsorted(self.terms, query.indices)
        at = np.minimum(at, len(self.terms) - 1)
        found = np.flatnonzero(self.terms[at] == query.indices)
        return [(int(q), slice(int(self.starts[at[q]]), int(self.starts[at[q] + 1]))) for q in found]

    def frequencies(self, query: SparseVector) -> np.ndarray:
        """Return in how many rows each term of the query occurs."""
        out = np.zeros(len(query), np.int64)
        for q, part in self.lists(query):
            out[q] = part.stop - part.start
        return out

    def scores(self, query: SparseVector, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return dot products of all rows, and which rows share a term with the query."""
        lists = self.lists(query)
        n = len(self.row_ids)
        if not lists:
            return np.zeros(n), np.zeros(n, bool)
        rows = np.concatenate([self.rows[part] for _, part in lists])
        products = np.concatenate([self.values[part] * weights[q] for q, part in lists])
        touched = np.zeros(n, bool)
        touched[rows] = True
        return np.bincount(rows, weights=products, minlength=n), touched


def _flat(stored: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return positions of the vectors that are there, their lengths, and all terms and values."""
    at = np.arange(len(stored))
    if stored.null_count:
        at = np.flatnonzero(stored.is_valid().to_numpy(zero_copy_only=False))
        stored = stored.drop_null()
    terms, values = stored.field("indices"), stored.field("values")
    lengths = np.diff(terms.offsets.to_numpy())
    return at, lengths, terms.flatten().to_numpy(), values.flatten().to_numpy()


def idf(documents: int, frequencies: np.ndarray) -> np.ndarray:
    """Return ln((N − df + 0.5)/(df + 0.5) + 1), the factor of Qdrant's `idf` modifier."""
    out: np.ndarray = np.log((documents - frequencies + 0.5) / (frequencies + 0.5) + 1.0)
    return out


def top(
    blocks: Sequence[Block],
    query: SparseVector,
    *,
    k: int,
    weights: np.ndarray,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return row ids and scores of the `k` rows with the largest dot product, best first.

    Only rows that share a term with the query are hits, as in Qdrant.

    Args:
        blocks: The postings.
        query: What to look for.
        k: How many.
        weights: The query's values, the idf factor included.
        allowed: Row ids, ascending, that may be hits; None is all.
    """
    rows, scores = [np.zeros(0, np.uint64)], [np.zeros(0)]
    for block in blocks:
        dots, touched = block.scores(query, weights)
        if allowed is not None:
            touched &= contained(block.row_ids, allowed)
        at = np.flatnonzero(touched)
        if len(at) > k:
            at = at[np.argpartition(-dots[at], k - 1)[:k]]
        rows.append(block.row_ids[at])
        scores.append(dots[at])
    all_rows, all_scores = np.concatenate(rows), np.concatenate(scores)
    order = np.lexsort((all_rows, -all_scores))[:k]
    return all_rows[order], all_scores[order]


def contained(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return which of the ascending `values` stand in the ascending `among`."""
    if not len(among):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    found: np.ndarray = among[at] == values
    return found
