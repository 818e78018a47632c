"""Dense vectors: checked, and laid out as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidVectorError
from vecdataset.schema import Distance, VectorParams


def normalize(vectors: Any) -> np.ndarray:
    """Return vectors scaled to length one, as Qdrant scales them for Cosine; zero vectors stay.

    Args:
        vectors: `[size]` or `[n, size]` numbers.

    Returns:
        float32 of the same shape.

    >>> normalize([3.0, 4.0]).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    return unit(np.asarray(vectors, np.float64)).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return floats `[size]` or `[n, size]` scaled to length one, in their own dtype; zero vectors stay."""
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    scaled: np.ndarray = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled


def fit_vectors(
    values: Any, name: str, params: VectorParams, *, ids: pa.Array | None, where: str
) -> tuple[pa.Array, bool]:
    """Return vectors as they are stored, and whether one of them is all zeros.

    Args:
        values: `[n, size]` array, Arrow list array, or a list of vectors and None.
        name: The vector's name, for errors.
        params: Its declaration.
        ids: Stored ids, to name the point at fault.
        where: Names the collection in errors.

    Raises:
        InvalidVectorError: A size differs, a value is NaN, infinite or does not fit the datatype.
    """
    label = repr(name or "vector")

    def fail(row: int, found: str) -> InvalidVectorError:
        point = ids[row].as_py() if ids is not None and row < len(ids) else row
        return InvalidVectorError(
            f"vector {label} of point {point!r} {found}; {where} declares "
            f"{params.size} {params.datatype} components",
            hint="nothing was written",
        )

    flat, valid, length = _flatten(values, params, fail)
    matrix = flat.reshape(-1, params.size)
    zeros = _check(matrix, valid, params, fail)
    target = np.float32 if params.datatype == "float32" else np.float16
    if matrix.dtype != target:
        with np.errstate(over="ignore", invalid="ignore"):
            cast_flat = matrix.astype(target)
        bad = ~np.isfinite(cast_flat).all(axis=1)
        if bad.any():
            raise fail(_stored_row(int(np.flatnonzero(bad)[0]), valid), "does not fit the datatype")
        matrix = cast_flat
    if valid is None or valid.all():
        child = pa.array(np.ascontiguousarray(matrix).reshape(-1), params.element)
        return pa.FixedSizeListArray.from_arrays(child, params.size), zeros
    full = np.zeros((length, params.size), target)
    full[valid] = matrix
    child = pa.array(full.reshape(-1), params.element)
    return (
        pa.FixedSizeListArray.from_arrays(child, params.size, mask=pa.array(~valid)),
        zeros,
    )


def fit_multivectors(
    values: Any, name: str, params: VectorParams, *, ids: pa.Array | None, where: str
) -> tuple[pa.Array, bool]:
    """Return multivectors as they are stored; see `fit_vectors`.

    Args:
        values: Arrow lists of vectors, or a list of `[vectors, size]` and None.
        name: The vector's name, for errors.
        params: Its declaration.
        ids: Stored ids, to name the point at fault.
        where: Names the collection in errors.

    Raises:
        InvalidVectorError: As for `fit_vectors`, or a point brings an empty list.
    """
    rows = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    counts = np.array([-1 if row is None else len(row) for row in rows], np.int64)
    if (counts == 0).any():
        at = int(np.flatnonzero(counts == 0)[0])
        point = ids[at].as_py() if ids is not None else at
        raise InvalidVectorError(f"multivector {name or 'vector'!r} of point {point!r} of {where} is empty")
    owners = np.repeat(np.arange(len(rows)), np.maximum(counts, 0))
    own_ids = None if ids is None else ids.take(pa.array(owners))
    flat, zeros = fit_vectors(
        [vector for row in rows if row is not None for vector in row], name, params, ids=own_ids, where=where
    )
    offsets = np.concatenate([[0], np.cumsum(np.maximum(counts, 0))]).astype(np.int32)
    mask = pa.array(counts < 0)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=params.arrow_type, mask=mask), zeros


def _stored_row(row: int, valid: np.ndarray | None) -> int:
    return row if valid is None else int(np.flatnonzero(valid)[row])


def _flatten(values: Any, params: VectorParams, fail: Any) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return components of the vectors that are there, which are, and how many places there are."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        if values.ndim != 2:
            raise InvalidVectorError(f"vectors come as an array of shape {values.shape}; [n, size] is needed")
        if len(values) and values.shape[1] != params.size:
            raise fail(0, f"has size {values.shape[1]}")
        if values.dtype.kind not in "fiu":
            raise fail(0, f"has components of type {values.dtype}")
        return values.reshape(-1), None, len(values)
    if isinstance(values, pa.Array):
        return _flatten_arrow(values, params, fail)
    sizes = [-1 if v is None else _length(v, row, fail) for row, v in enumerate(values)]
    for row, size in enumerate(sizes):
        if size not in (-1, params.size):
            raise fail(row, f"has size {size}")
    present = [v for v in values if v is not None]
    valid = None if len(present) == len(sizes) else np.array([s >= 0 for s in sizes])
    try:
        flat = np.asarray(present)
    except ValueError:
        raise fail(0, "is not a list of numbers") from None
    if flat.size == 0:
        flat = np.zeros(0, np.float32)
    if flat.dtype.kind not in "fiu":
        row = next((r for r, v in enumerate(present) if np.asarray(v).dtype.kind not in "fiu"), 0)
        raise fail(_stored_row(row, valid), "is not a list of numbers")
    return flat.reshape(-1), valid, len(sizes)


def _length(value: Any, row: int, fail: Any) -> int:
    try:
        return len(value)
    except TypeError:
        raise fail(row, f"is of type {type(value).__name__}") from None


def _flatten_arrow(
    values: pa.Array, params: VectorParams, fail: Any
) -> tuple[np.ndarray, np.ndarray | None, int]:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    kind = values.type
    if not (
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    ) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        if pa.types.is_null(kind):
            return np.zeros(0, np.float32), np.zeros(len(values), bool), len(values)
        raise fail(0, f"comes from a column of type {kind}")
    valid = None
    if values.null_count:
        valid = values.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(kind):
        if kind.list_size != params.size and len(values) > values.null_count:
            raise fail(_stored_row(0, valid), f"has size {kind.list_size}")
        present = values if valid is None else values.drop_null()
    else:
        present = values if valid is None else values.drop_null()
        sizes = pc.list_value_length(present).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(sizes != params.size)
        if len(wrong):
            raise fail(_stored_row(int(wrong[0]), valid), f"has size {int(sizes[wrong[0]])}")
    flat = present.flatten()
    if flat.null_count:
        at = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0]) // params.size
        raise fail(_stored_row(at, valid), "holds a null component")
    return flat.to_numpy(zero_copy_only=False), valid, len(values)


def _check(matrix: np.ndarray, valid: np.ndarray | None, params: VectorParams, fail: Any) -> bool:
    """Refuse what is not finite or out of range; return whether a vector is all zeros."""
    if not len(matrix):
        return False
    if params.datatype in ("uint8", "int8"):
        low, high = (0, 255) if params.datatype == "uint8" else (-128, 127)
        with np.errstate(invalid="ignore"):
            bad = ((matrix < low) | (matrix > high) | (matrix != np.rint(matrix))).any(axis=1)
        if bad.any():
            raise fail(
                _stored_row(int(np.flatnonzero(bad)[0]), valid),
                f"holds a value that is not an integer of {low} to {high}",
            )
    zeros = False
    for start in range(0, len(matrix), 8192):
        part = matrix[start : start + 8192]
        if part.dtype.kind != "f":
            zeros = zeros or (params.metric is Distance.COSINE and not part.any(axis=1).all())
            continue
        if part.dtype == np.float16:
            part = part.astype(np.float32)
        # One pass answers both questions: a sum of squares is finite unless a component is not (or it
        # overflows, which the second look settles), and zero only if all are (or it underflows).
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            squares = np.einsum("ij,ij->i", part, part)
        suspect = np.flatnonzero(~np.isfinite(squares))
        if len(suspect):
            bad = ~np.isfinite(part[suspect]).all(axis=1)
            if bad.any():
                row = int(suspect[np.flatnonzero(bad)[0]])
                what = "NaN" if np.isnan(part[row]).any() else "infinity"
                raise fail(_stored_row(start + row, valid), f"holds {what}")
        if params.metric is Distance.COSINE and not squares.all():
            # Lance's cosine drops a vector whose squares underflow as it drops a zero one.
            zeros = True
    return bool(zeros)
