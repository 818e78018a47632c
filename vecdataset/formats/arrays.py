"""Matrices of vectors: NumPy's `.npy` and `.npz`, TEXMEX's `.fvecs` and `.bvecs`, and HDF5.

A row is a vector; its number, from 0, is the id unless the file has ids. They are read only: a file
of these kinds holds neither payload nor declaration, and an export that loses both would be no
export.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.errors import InvalidInputError, MissingDependencyError, UnknownNameError, did_you_mean
from vecdataset.formats import Reading, Source
from vecdataset.points import Layout
from vecdataset.schema import Distance, VectorParams

__all__ = ["Hdf5", "Npy", "Npz", "Vecs"]

_DATATYPES: Final = {
    "float16": "float16",
    "float32": "float32",
    "float64": "float32",
    "uint8": "uint8",
    "int8": "int8",
}
_IDS: Final = ("id", "ids")
_METRICS: Final = {
    "angular": Distance.COSINE,
    "cosine": Distance.COSINE,
    "euclidean": Distance.EUCLID,
    "l2": Distance.EUCLID,
    "dot": Distance.DOT,
    "ip": Distance.DOT,
    "l1": Distance.MANHATTAN,
    "manhattan": Distance.MANHATTAN,
}
"""What files of ann-benchmarks and others call distances."""


class Npy:
    """One array of NumPy's, `[n, size]`, of floats or 8-bit integers."""

    name = "npy"
    suffixes = (".npy",)
    capabilities = frozenset({"read"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the file begins as NumPy's do."""
        return head[:6] == b"\x93NUMPY"

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:  # noqa: ARG002
        """Return the rows as they come; an array in column order is read whole."""
        try:
            version = np.lib.format.read_magic(source.file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, by_columns, dtype = header(source.file)
        except ValueError as exc:
            raise InvalidInputError(f"{source.name} cannot be read as .npy: {exc}") from None
        params = _params(shape, dtype, source.name)
        count, size = shape
        if by_columns:
            data = _exactly(source, count * size * dtype.itemsize)
            matrix = np.frombuffer(data, dtype).reshape(size, count).T
            parts: Iterator[np.ndarray] = (matrix[at : at + batch_rows] for at in range(0, count, batch_rows))
        else:
            parts = (
                np.frombuffer(_exactly(source, rows * size * dtype.itemsize), dtype).reshape(rows, size)
                for rows in _chunks(count, batch_rows)
            )
        return _numbered(parts, params)


class Npz:
    """NumPy's archive of arrays: one matrix of vectors, and arrays of ids and payload beside it.

    The arrays are read into memory.
    """

    name = "npz"
    suffixes = (".npz",)
    capabilities = frozenset({"read"})
    options = frozenset({"dataset"})

    def sniff(self, head: bytes, name: str) -> bool:
        """Return whether the file is a zip archive by this name; many other files are zip archives."""
        return head[:4] == b"PK\x03\x04" and name.endswith(".npz")

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,
        layout: Layout | None,  # noqa: ARG002
        dataset: str | None = None,
    ) -> Reading:
        """Return the rows of the matrix `dataset`; None takes the only one."""
        with source.seekable() as file:
            try:
                with np.load(file, allow_pickle=False) as found:
                    arrays = {name: found[name] for name in found.files}
            except (ValueError, OSError, EOFError) as exc:
                raise InvalidInputError(f"{source.name} cannot be read as .npz: {exc}") from None
        return _beside(arrays, dataset, batch_rows, source.name, None)


class Vecs:
    """The TEXMEX files of ANN benchmarks: each vector is its size, int32, and its components.

    (Source: http://corpus-texmex.irisa.fr, "Vector file formats".)
    """

    name = "vecs"
    suffixes = (".fvecs", ".bvecs")
    capabilities = frozenset({"read"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002
        """Return False: nothing in such a file tells it from another; its name must."""
        return False

    def read(self, source: Source, *, batch_rows: int, layout: Layout | None) -> Reading:  # noqa: ARG002
        """Return the vectors as they come.

        Raises:
            InvalidInputError: The vectors differ in size, or the last one is cut off.
        """
        component = np.dtype(np.uint8 if source.name.removesuffix(".gz").endswith(".bvecs") else "<f4")
        size = int(np.frombuffer(source.head[:4].ljust(4, b"\0"), "<i4")[0])
        if not 1 <= size <= 1 << 20:
            raise InvalidInputError(
                f"{source.name} begins with a vector of size {size}; it is no {self.name} file"
            )
        record = np.dtype([("size", "<i4"), ("vector", component, (size,))])

        def parts() -> Iterator[np.ndarray]:
            row = 0
            while data := source.file.read(record.itemsize * batch_rows):
                if len(data) % record.itemsize:
                    raise InvalidInputError(
                        f"{source.name} breaks off in vector {row + len(data) // record.itemsize}, "
                        "or its vectors differ in size"
                    )
                part = np.frombuffer(data, record)
                wrong = np.flatnonzero(part["size"] != size)
                if len(wrong):
                    found = part["size"][wrong[0]]
                    raise InvalidInputError(
                        f"vector {row + wrong[0]} of {source.name} has size {found}; the first has {size}"
                    )
                row += len(part)
                yield np.ascontiguousarray(part["vector"])

        return _numbered(parts(), VectorParams(size=size, datatype=_DATATYPES[component.name]))


class Hdf5:
    """HDF5, as ann-benchmarks has it (`train`) or with one matrix among its datasets."""

    name = "hdf5"
    suffixes = (".hdf5", ".h5")
    capabilities = frozenset({"read"})
    options = frozenset({"dataset"})

    def sniff(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the content says it
        """Return whether the file begins as HDF5 does."""
        return head[:8] == b"\x89HDF\r\n\x1a\n"

    def read(
        self,
        source: Source,
        *,
        batch_rows: int,
        layout: Layout | None,  # noqa: ARG002
        dataset: str | None = None,
    ) -> Reading:
        """Return the rows of a dataset, with the datasets of as many rows beside it as ids and payload.

        Args:
            source: The file.
            batch_rows: Rows read at a time.
            layout: Always flat.
            dataset: The matrix; None takes `train`, or the only one of floats.
        """
        try:
            import h5py
        except ImportError:
            raise MissingDependencyError(
                "HDF5 files need the package h5py", hint="pip install 'vecdataset[hdf5]'"
            ) from None
        seekable = source.seekable()
        try:
            file = h5py.File(seekable.__enter__(), "r")
        except OSError as exc:
            raise InvalidInputError(f"{source.name} cannot be read as HDF5: {exc}") from None
        arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        if dataset is None and "train" in arrays:
            dataset = "train"
        distance = _METRICS.get(str(file.attrs.get("distance", "")).lower())
        return _beside(arrays, dataset, batch_rows, source.name, distance)


# ------------------------------------------------------------------------------- the rows


def _params(shape: tuple[int, ...], dtype: Any, where: str, distance: Distance | None = None) -> VectorParams:
    datatype = _DATATYPES.get(dtype.name)
    if len(shape) != 2 or datatype is None or shape[1] < 1:
        raise InvalidInputError(
            f"{where} holds an array of {dtype.name}{list(shape)}; vectors are [n, size] of "
            f"{', '.join(_DATATYPES)}"
        )
    return VectorParams(size=shape[1], datatype=datatype, distance=distance or Distance.COSINE)


def _exactly(source: Source, count: int) -> bytes:
    data = source.file.read(count)
    if len(data) < count:
        raise InvalidInputError(f"{source.name} breaks off: {count - len(data):,} bytes are missing")
    return data


def _chunks(count: int, rows: int) -> Iterator[int]:
    for at in range(0, count, rows):
        yield min(rows, count - at)


def _numbered(parts: Iterator[np.ndarray], params: VectorParams) -> Reading:
    """Return matrices with the numbers of their rows as ids."""

    def batches() -> Iterator[pa.RecordBatch]:
        row = 0
        for part in parts:
            ids = np.arange(row, row + len(part), dtype=np.uint64)
            yield pa.RecordBatch.from_pydict({"id": pa.array(ids), "vector": _vectors(part)})
            row += len(part)

    return Reading(points=batches(), names=("id", "vector"), vectors={"vector": params}, layout="flat")


def _beside(
    arrays: Mapping[str, Any], dataset: str | None, batch_rows: int, where: str, distance: Distance | None
) -> Reading:
    """Return the rows of one matrix with what the arrays of as many rows beside it say of them."""
    if dataset is None:
        matrices = [n for n, a in arrays.items() if len(a.shape) == 2 and a.dtype.name in _DATATYPES]
        if len(matrices) != 1:
            raise InvalidInputError(
                f"{where} has {len(matrices) or 'no'} matrices that may be vectors"
                + (f": {', '.join(matrices)}" if matrices else ""),
                hint="say which: dataset='name'",
            )
        dataset = matrices[0]
    if dataset not in arrays:
        raise UnknownNameError(
            f"{where} has no array {dataset!r}", hint=did_you_mean(dataset, list(arrays), what="arrays")
        )
    matrix = arrays[dataset]
    params = _params(matrix.shape, matrix.dtype, f"{dataset!r} of {where}", distance)
    count = matrix.shape[0]
    columns = {
        n: a for n, a in arrays.items() if n != dataset and a.shape == (count,) and a.dtype.kind in "biufSUO"
    }
    ids = next((n for n in _IDS if n in columns), None)

    def batches() -> Iterator[pa.RecordBatch]:
        for at in range(0, count, batch_rows):
            part = slice(at, min(at + batch_rows, count))
            row: dict[str, Any] = {"id": pa.array(np.arange(part.start, part.stop, dtype=np.uint64))}
            row |= {"id" if n == ids else n: _column(a[part]) for n, a in columns.items()}
            yield pa.RecordBatch.from_pydict(row | {"vector": _vectors(np.asarray(matrix[part]))})

    names = ("id", "vector", *(n for n in columns if n != ids))
    return Reading(points=batches(), names=names, vectors={"vector": params}, layout="flat")


def _column(values: np.ndarray) -> pa.Array:
    if values.dtype.kind in "SO":  # HDF5's texts come as bytes
        return pa.array([v.decode() if isinstance(v, bytes) else v for v in values.tolist()])
    return pa.array(values.astype(values.dtype.newbyteorder("=")))


def _vectors(part: np.ndarray) -> pa.FixedSizeListArray:
    kind = _DATATYPES[part.dtype.name]
    flat = np.ascontiguousarray(part, dtype=kind).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), part.shape[1])
