"""The points of one shard, as the engine gives them out: loaded, scrolled, made columnar.

The engine applies the pending write-ahead log when it loads a shard, and gives each point in its
newest version, in the order of ids. Payloads come from it as Python values (some 250,000 points a
second); dense vectors would come as lists of floats, a quarter as fast, so that they are read where
they stand (`dense.py`), and compared with the engine's for a sample of each batch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.errors import InvalidInputError
from vecdataset.formats.qdrant.archive import damaged
from vecdataset.formats.qdrant.dense import DenseVectors, dense_vectors
from vecdataset.formats.qdrant.edge import edge
from vecdataset.formats.qdrant.tracker import Ids, TrackerError, live_ids
from vecdataset.points import RawBatch
from vecdataset.schema import SPARSE_TYPE, UNNAMED, CollectionSchema, IdType

__all__ = ["LoadedShard", "engine_errors"]

_PAGE: Final = 1_000
"""Points a scroll: 220,000 a second; 256 a page gives half of it, and 4,000 less again."""
_PAGES: Final = 4
_SAMPLE: Final = 4
_FIRST_SAMPLE: Final = 64

_log = logging.getLogger(__name__)


@contextmanager
def engine_errors(where: str) -> Iterator[None]:
    """Say in our words what the engine raises; its panics are no exceptions of Python's."""
    try:
        yield
    except InvalidInputError:
        raise
    except BaseException as exc:
        if type(exc).__name__ != "PanicException" and not type(exc).__module__.startswith(
            ("qdrant_edge", "builtins")
        ):
            raise
        if isinstance(exc, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
            raise
        text = " ".join(str(exc).split())
        raise damaged(where, f"cannot be loaded by Qdrant's engine: {text[:500]}") from None


class LoadedShard:
    """One shard, open in the engine; it writes into the folder."""

    def __init__(
        self, folder: Path, schema: CollectionSchema, names: Mapping[str, str], *, where: str
    ) -> None:
        """Load a shard, with its write-ahead log.

        Args:
            folder: The shard, a private copy.
            schema: What the collection declares.
            names: Qdrant's vector names to ours, where they differ.
            where: Names the shard in messages.
        """
        self._folder = folder
        self._schema = schema
        self._ours = dict(names)
        self._where = where
        self._edge = edge()
        _lighten(folder)
        with engine_errors(where):
            self._shard: Any = self._edge.EdgeShard.load(str(folder))
            # What the log brought reaches the files that are read here.
            self._shard.flush()
            self.points = int(self._shard.count(self._edge.CountRequest(exact=True)))
        self._fast = _Layout.find(folder, self.points)

    def close(self) -> None:
        """Let go of the shard."""
        with engine_errors(self._where):
            self._shard.close()

    def id_type(self) -> IdType | None:
        """Return which kinds of ids there are; None without points."""
        if self._fast is not None:
            numbers, uuids = len(self._fast.numbers) > 0, len(self._fast.uuids) > 0
        else:
            numbers = uuids = False
            for page in self._pages(with_payload=False, with_vector=False, limit=10_000):
                numbers = numbers or isinstance(page[0].id, int)
                uuids = uuids or not isinstance(page[-1].id, int)
        if numbers and uuids:
            return "mixed"
        return "uint64" if numbers else "uuid" if uuids else None

    def batches(self) -> Iterator[RawBatch]:
        """Yield all points, some thousands at a time.

        Where the files are not laid out as they seemed, all points come again, from the engine:
        within one write, the last of an id counts.
        """
        if self._fast is not None:
            try:
                yield from self._fast_batches(self._fast)
                return
            except _OtherLayoutError as exc:
                _log.warning("%s: reading vectors through the engine: %s", self._where, exc)
        pages: list[Any] = []
        count = 0
        for page in self._pages(with_payload=True, with_vector=True, limit=256):
            count += len(page)
            pages += page
            if len(pages) >= _PAGE * _PAGES:
                yield self._batch(pages)
                pages = []
        if pages:
            yield self._batch(pages)
        if count != self.points:
            raise damaged(self._where, f"gives {count:,} of {self.points:,} points")

    def _pages(self, *, with_payload: bool, with_vector: bool | list[str], limit: int) -> Iterator[list[Any]]:
        def scroll(offset: Any) -> tuple[list[Any], Any]:
            with engine_errors(self._where):
                found: tuple[list[Any], Any] = self._shard.scroll(
                    self._edge.ScrollRequest(
                        offset=offset, limit=limit, with_payload=with_payload, with_vector=with_vector
                    )
                )
                return found

        # The engine lets go of Python's lock: it looks for the next page while this one is used.
        with ThreadPoolExecutor(1, thread_name_prefix="vecdataset-scroll") as ahead:
            following = ahead.submit(scroll, None)
            while True:
                page, offset = following.result()
                if offset is not None:
                    following = ahead.submit(scroll, offset)
                if page:
                    yield page
                if offset is None:
                    return

    # -- through the engine

    def _batch(self, records: Sequence[Any]) -> RawBatch:
        ids = [r.id if isinstance(r.id, int) else str(r.id) for r in records]
        return RawBatch(
            length=len(records),
            ids=ids,
            vectors=self._listed(records, None),
            rows=[r.payload or {} for r in records],
        )

    def _listed(self, records: Sequence[Any], only: frozenset[str] | None) -> dict[str, Any]:
        """Return vectors by name, of all names or of some, from the engine's lists."""
        columns: dict[str, list[Any]] = {}
        for row, record in enumerate(records):
            vector = record.vector
            if vector is None:
                continue
            named = vector if isinstance(vector, dict) else {UNNAMED: vector}
            for theirs, value in named.items():
                if only is None or theirs in only:
                    columns.setdefault(theirs, [None] * len(records))[row] = value
        out = {}
        for theirs, values in columns.items():
            name = self._ours.get(theirs, theirs)
            if name in self._schema.sparse:
                out[name] = _sparse(values)
            elif name in self._schema.vectors:
                out[name] = values
            else:
                raise damaged(self._where, f"holds the vector {theirs!r}, which its config does not declare")
        return out

    # -- dense vectors from their files

    def _fast_batches(self, layout: _Layout) -> Iterator[RawBatch]:
        declared = {theirs: name for theirs, name in self._theirs().items() if name in self._schema.vectors}
        fast = layout.vectors([n for n in declared if not self._schema.vectors[declared[n]].multivector])
        slow = frozenset(self._theirs()) - set(fast)
        at, first = 0, True
        records: list[Any] = []
        for page in self._pages(with_payload=True, with_vector=sorted(slow) if slow else False, limit=_PAGE):
            records += page
            if len(records) < _PAGE * _PAGES and at + len(records) < len(layout):
                continue
            batch = self._fast_batch(layout, fast, declared, slow, records, at)
            self._compare(batch, fast, declared, records, _FIRST_SAMPLE if first else _SAMPLE)
            yield batch
            at, first = at + len(records), False
            records = []
        if records or at != len(layout):
            raise _OtherLayoutError(
                f"the engine gives {at + len(records):,} points, the files {len(layout):,}"
            )

    def _theirs(self) -> dict[str, str]:
        """Return Qdrant's vector names to ours, of all vectors."""
        back = {ours: theirs for theirs, ours in self._ours.items()}
        return {back.get(name, name): name for name in (*self._schema.vectors, *self._schema.sparse)}

    def _fast_batch(
        self,
        layout: _Layout,
        fast: Mapping[str, list[DenseVectors | None]],
        declared: Mapping[str, str],
        slow: frozenset[str],
        records: Sequence[Any],
        at: int,
    ) -> RawBatch:
        ids = layout.ids(records, at)
        segments, offsets = layout.places(at, len(records))
        vectors: dict[str, Any] = {}
        for theirs, parts in fast.items():
            params = self._schema.vectors[declared[theirs]]
            kind = {"float32": "<f4", "float16": "<f2"}.get(params.datatype, "u1")
            matrix = np.zeros((len(records), params.size), kind)
            there = np.zeros(len(records), bool)
            for number, part in enumerate(parts):
                rows = np.flatnonzero(segments == number)
                if part is not None and len(rows):
                    there[rows] = part.take(offsets[rows], matrix, rows)
            vectors[declared[theirs]] = _column(matrix, there)
        if slow:
            vectors |= self._listed(records, slow)
        return RawBatch(
            length=len(records), ids=ids, vectors=vectors, rows=[r.payload or {} for r in records]
        )

    def _compare(
        self,
        batch: RawBatch,
        fast: Mapping[str, Any],
        declared: Mapping[str, str],
        records: Sequence[Any],
        count: int,
    ) -> None:
        """Ask the engine for the vectors of some points, and see that they are the same."""
        if not fast:
            return
        rows = sorted({int(r) for r in np.linspace(0, len(records) - 1, min(count, len(records)))})
        with engine_errors(self._where):
            found = self._shard.retrieve([records[r].id for r in rows], False, sorted(fast))
        by_id = {r.id: r.vector for r in found}
        for row in rows:
            vector = by_id.get(records[row].id)
            named = vector if isinstance(vector, dict) else {} if vector is None else {UNNAMED: vector}
            for theirs in fast:
                have = batch.vectors[declared[theirs]][row].as_py()
                want = named.get(theirs)
                same = have == want if have is None or want is None else np.array_equal(have, want)
                if not same:
                    raise _OtherLayoutError(f"vector {theirs or 'vector'!r} of point {records[row].id}")


def _lighten(folder: Path) -> None:
    """Take graphs and quantized copies out of what the engine will load, and vectors out of its memory.

    An import asks neither, and the engine would hold both in memory. They are not even unpacked. Sparse
    vectors keep their index.
    """
    for path in folder.glob("segments/*/segment.json"):
        try:
            segment = json.loads(path.read_bytes())
            for params in segment["config"]["vector_data"].values():
                params["index"] = {"type": "plain", "options": {}}
                params["quantization_config"] = None
                params["storage_type"] = str(params["storage_type"]).removeprefix("InRam")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # the engine says what is wrong with it
        path.write_text(json.dumps(segment))


class _OtherLayoutError(Exception):
    """The files do not hold what the engine reads from them."""


@dataclass(slots=True, kw_only=True)
class _Layout:
    """Where each point stands: the newest of each id, in the order in which the engine scrolls."""

    segments: list[tuple[Path, Mapping[str, Any]]]
    numbers: np.ndarray
    uuids: np.ndarray
    segment: np.ndarray
    """Number of the segment, of numbers then UUIDs."""
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.segment)

    @classmethod
    def find(cls, folder: Path, points: int) -> _Layout | None:
        """Return the layout of a shard, None where an id tracker is of another kind."""
        segments: list[tuple[Path, Mapping[str, Any]]] = []
        ids: list[Ids] = []
        for path in sorted((folder / "segments").iterdir()):
            if not (path / "segment.json").exists():
                continue
            try:
                found = live_ids(path)
                config = json.loads((path / "segment.json").read_bytes())["config"]
            except (TrackerError, OSError, ValueError, KeyError):
                return None
            if found is None:
                return None
            ids.append(found)
            segments.append((path, config))
        numbers, number_at, number_offset = _newest(ids, "numbers")
        uuids, uuid_at, uuid_offset = _newest(ids, "uuids")
        if len(numbers) + len(uuids) != points:
            return None
        return cls(
            segments=segments,
            numbers=numbers,
            uuids=uuids,
            segment=np.concatenate([number_at, uuid_at]),
            offset=np.concatenate([number_offset, uuid_offset]),
        )

    def vectors(self, names: Sequence[str]) -> dict[str, list[DenseVectors | None]]:
        """Return for each name its vectors in each segment; names that stand in another way are left out."""
        out: dict[str, list[DenseVectors | None]] = {}
        for name in names:
            parts: list[DenseVectors | None] = []
            for path, config in self.segments:
                declared = (config.get("vector_data") or {}).get(name)
                if declared is None:
                    parts.append(None)  # no point of this segment has it
                    continue
                found = dense_vectors(path, name, declared)
                if found is None:
                    break
                parts.append(found)
            else:
                out[name] = parts
        return out

    def places(self, at: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return segment and offset of `count` points from `at` on."""
        return self.segment[at : at + count], self.offset[at : at + count]

    def ids(self, records: Sequence[Any], at: int) -> Any:
        """Return the ids of a batch, which must be those that the engine gave.

        Raises:
            _OtherLayoutError: They are not.
        """
        end = at + len(records)
        split = len(self.numbers)
        numbers = self.numbers[at : min(end, split)]
        uuids = self.uuids[max(0, at - split) : max(0, end - split)]
        given = [r.id for r in records]
        try:
            same = (
                given[: len(numbers)] == numbers.tolist()
                and b"".join(u.bytes for u in given[len(numbers) :]) == uuids.astype("S16").tobytes()
            )
        except AttributeError:
            same = False
        if not same:
            raise _OtherLayoutError(f"the ids from {given[0]} on")
        if not len(uuids):
            return numbers
        texts = [str(u) for u in given[len(numbers) :]]
        return pa.array(texts, pa.string()) if not len(numbers) else [*numbers.tolist(), *texts]


def _newest(ids: Sequence[Ids], kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids in order, each with segment and offset of its newest version."""
    keys = [getattr(i, kind) for i in ids]
    offsets = [i.number_offsets if kind == "numbers" else i.uuid_offsets for i in ids]
    if not keys or not sum(map(len, keys)):
        return (
            np.zeros(0, np.uint64 if kind == "numbers" else "S16"),
            np.zeros(0, np.uint16),
            np.zeros(0, np.uint32),
        )
    segment = np.repeat(np.arange(len(keys), dtype=np.uint32), [len(k) for k in keys])
    key, offset = np.concatenate(keys), np.concatenate(offsets)
    versions = np.concatenate([_versions_at(i, o) for i, o in zip(ids, offsets, strict=True)])
    order = np.lexsort((versions, key))
    ordered = key[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    chosen = order[last]
    return key[chosen], segment[chosen], offset[chosen]


def _versions_at(ids: Ids, offsets: np.ndarray) -> np.ndarray:
    out = np.zeros(len(offsets), np.uint64)
    known = offsets < len(ids.versions)
    out[known] = ids.versions[offsets[known]]
    return out


def _column(matrix: np.ndarray, there: np.ndarray) -> pa.Array:
    flat = pa.array(matrix.reshape(-1))
    mask = None if there.all() else pa.array(~there)
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1], mask=mask)


def _sparse(values: Sequence[Any]) -> pa.Array:
    """Return the engine's sparse vectors as a column."""
    lists = [([], []) if v is None else (v.indices, v.values) for v in values]
    offsets = pa.array(np.cumsum([0, *(len(i) for i, _ in lists)]), pa.int32())
    indices = pa.array([x for i, _ in lists for x in i], pa.uint32())
    weights = pa.array([x for _, w in lists for x in w], pa.float32())
    return pa.StructArray.from_arrays(
        [pa.ListArray.from_arrays(offsets, indices), pa.ListArray.from_arrays(offsets, weights)],
        fields=list(SPARSE_TYPE),
        mask=pa.array([v is None for v in values]),
    )
