"""What changed from one version of a collection to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.reader import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed from one version to another."""

    added: Sequence[int | str]
    """Ids, as stored."""
    changed: Sequence[int | str]
    removed: Sequence[int | str]
    columns_added: Sequence[str]
    columns_removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.columns_added or self.columns_removed)


def difference(a: Reader, b: Reader) -> Difference:
    """Return what changed from `a` to `b`.

    Fragments that both have alike are not looked at; of the others the ids are read, and only of rows that
    stand in other files than before the values, 20,000 at a time. A null, and a column that is not there,
    count alike; so do an integer and a float that are equal, as after a column was widened.
    """
    was, now = set(a.table.schema.names), set(b.table.schema.names)
    numbers: dict[tuple[str, ...], int] = {}
    old, new = _Side.of(a, b, numbers), _Side.of(b, a, numbers)
    changed: list[int | str] = []
    if len(old.ids) and len(new.ids):
        at = pc.index_in(new.ids, value_set=old.ids)
        rows = pc.indices_nonzero(at.is_valid()).to_numpy()
        at = at.drop_null().to_numpy()
        moved = np.flatnonzero(old.files[at] != new.files[rows])
        for start in range(0, len(moved), _AT_ONCE):
            part = moved[start : start + _AT_ONCE]
            differ = np.zeros(len(part), bool)
            left = a.table.take(old.rows[at[part]], sorted(was - {"id"}))
            right = b.table.take(new.rows[rows[part]], sorted(now - {"id"}))
            for name in (was | now) - {"id"}:
                differ |= _unequal(_of(left, name), _of(right, name), len(part))
            changed += new.ids.take(pa.array(rows[part][differ])).to_pylist()
    return Difference(
        added=new.ids.filter(pc.invert(pc.is_in(new.ids, value_set=old.ids))).to_pylist(),
        removed=old.ids.filter(pc.invert(pc.is_in(old.ids, value_set=new.ids))).to_pylist(),
        changed=changed,
        columns_added=sorted(now - was),
        columns_removed=sorted(was - now),
    )


_AT_ONCE: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The rows of one version that may be others in the other."""

    ids: pa.Array
    rows: np.ndarray
    """Lance's row ids, uint64."""
    files: np.ndarray
    """For each row a number that stands for the files of its fragment, the same on both sides."""

    @classmethod
    def of(cls, reader: Reader, other: Reader, numbers: dict[tuple[str, ...], int]) -> _Side:
        theirs = {(f.files, f.deletions) for f in other.table.fragment_list()}
        own = {f.id: f for f in reader.table.fragment_list() if (f.files, f.deletions) not in theirs}
        kind = reader.schema.id_arrow_type if reader.schema.id_type else other.schema.id_arrow_type
        if not own or reader.schema.id_type is None:
            none = np.zeros(0, np.uint64)
            return cls(ids=pa.nulls(0, kind), rows=none, files=none)
        read = reader.table.read(["id", "_rowid"], fragments=list(own)).combine_chunks()
        rows = read["_rowid"].to_numpy()
        fragments, place = np.unique(rows >> np.uint64(32), return_inverse=True)
        names = np.array([numbers.setdefault(own[int(f)].files, len(numbers)) for f in fragments], np.uint64)
        return cls(ids=read["id"].chunk(0) if len(read) else pa.nulls(0, kind), rows=rows, files=names[place])


def _of(table: pa.Table, name: str) -> pa.Array | None:
    if name not in table.schema.names:
        return None
    column = table[name].combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _unequal(a: pa.Array | None, b: pa.Array | None, rows: int) -> np.ndarray:
    """Tell for each row whether two columns differ; bits of floats are compared, so that NaN is NaN."""
    if a is None or b is None:
        there = b if a is None else a
        return np.zeros(rows, bool) if there is None else _flags(there.is_valid())
    if a.type != b.type:
        types = (a.type, b.type)
        floats = [t for t in types if pa.types.is_floating(t)]
        if not floats or not all(t in floats or pa.types.is_integer(t) for t in types):
            return _one_by_one(a, b)
        a, b = (side.cast(pa.float64(), safe=False) for side in (a, b))
    nulls = _flags(pc.xor(a.is_null(), b.is_null()))
    if pa.types.is_fixed_size_list(a.type) and a.type.value_type.bit_width % 8 == 0:
        left, right = (_bytes(side) for side in (a, b))
        valid = _flags(pc.and_(a.is_valid(), b.is_valid()))
        unequal: np.ndarray = nulls | (valid & (left != right).any(axis=1))
        return unequal
    if a.type in _BITS:
        a, b = a.view(_BITS[a.type]), b.view(_BITS[b.type])
    try:
        differ: np.ndarray = nulls | _flags(pc.fill_null(pc.not_equal(a, b), fill_value=False))
    except pa.ArrowNotImplementedError:  # lists, structs
        return _one_by_one(a, b)
    return differ


_BITS: Final = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}


def _bytes(vectors: pa.FixedSizeListArray) -> np.ndarray:
    """Return `[rows, bytes]`, nulls as whatever stands there."""
    kind = vectors.type
    width = kind.list_size * kind.value_type.bit_width // 8
    values = vectors.values.slice(vectors.offset * kind.list_size, len(vectors) * kind.list_size)
    data = np.frombuffer(values.buffers()[1] or b"", np.uint8)
    start = values.offset * kind.value_type.bit_width // 8
    return data[start : start + len(vectors) * width].reshape(len(vectors), width)


def _flags(array: pa.Array) -> np.ndarray:
    flags: np.ndarray = array.to_numpy(zero_copy_only=False).astype(bool)
    return flags


def _one_by_one(a: pa.Array, b: pa.Array) -> np.ndarray:
    pairs = zip(a.to_pylist(), b.to_pylist(), strict=True)
    return np.fromiter((repr(x) != repr(y) for x, y in pairs), bool, len(a))
