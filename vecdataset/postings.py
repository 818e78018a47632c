"""Postings of a sparse vector in memory, kept from version to version, or streamed where they do not fit.

Fragments of a dataset never change: one that a version shares with an older one is not read again.
What a version deleted is left out by the row ids that are still there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from vecdataset.engine import Fragment, Table
from vecdataset.sparse import Block, SparseVector, contained

CACHE_BYTES: Final = 1 << 30
"""Postings kept in memory by one process; the least recently used go first."""
BLOCK_BYTES: Final = 256 << 20
"""A fragment whose postings would be larger is read as a stream of smaller blocks, and not kept."""
BATCH_ROWS: Final = 8_192

_Key = tuple[object, ...]


class _Cache:
    """Blocks and live row ids by what they were made of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Block | np.ndarray] = OrderedDict()
        self._bytes = 0

    def get(self, key: _Key) -> Block | np.ndarray | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: _Key, value: Block | np.ndarray) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = value
            self._bytes += value.nbytes
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= gone.nbytes


_CACHE: Final = _Cache()


class Postings:
    """The postings of one sparse column at one version."""

    def __init__(self, table: Table, column: str) -> None:
        """Look at a column; nothing is read yet."""
        self._table = table
        self._column = column

    def frequencies(self, query: SparseVector) -> tuple[int, np.ndarray]:
        """Return how many points have the vector, and in how many of them each term of the query occurs."""
        documents, out = 0, np.zeros(len(query), np.int64)
        for block, live in self._blocks():
            if live is None:
                documents += len(block.row_ids)
                out += block.frequencies(query)
                continue
            documents += int(live.sum())
            for q, part in block.lists(query):
                out[q] += int(live[block.rows[part]].sum())
        return documents, out

    def top(
        self, query: SparseVector, *, k: int, weights: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return row ids and dot products of the `k` best rows that share a term with the query."""
        rows, scores = np.zeros(0, np.uint64), np.zeros(0)
        for row_ids, found, touched in self.scores([query], [weights], allowed=allowed):
            at = np.flatnonzero(touched[0])
            if len(at) > k:
                at = at[np.argpartition(-found[0, at], k - 1)[:k]]
            rows, scores = np.concatenate([rows, row_ids[at]]), np.concatenate([scores, found[0, at]])
            order = np.lexsort((rows, -scores))[:k]
            rows, scores = rows[order], scores[order]
        return rows, scores

    def scores(
        self,
        queries: Sequence[SparseVector],
        weights: Sequence[np.ndarray],
        *,
        allowed: np.ndarray | None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield row ids `[n]`, dot products `[queries, n]` and which share a term, block by block."""
        for block, live in self._blocks():
            scored = [block.scores(q, w) for q, w in zip(queries, weights, strict=True)]
            dots, touched = np.array([s for s, _ in scored]), np.array([t for _, t in scored])
            if live is not None:
                touched &= live
            if allowed is not None:
                touched &= contained(block.row_ids, allowed)
            yield block.row_ids, dots, touched

    def _blocks(self) -> Iterator[tuple[Block, np.ndarray | None]]:
        """Yield blocks, each with which of its rows are still there (None: all)."""
        for fragment in self._table.fragment_list():
            key: _Key = (self._table.location.uri, self._column, fragment.id, fragment.files)
            kept = _CACHE.get(key)
            if kept is None:
                yield from self._read(fragment, key)
                continue
            assert isinstance(kept, Block)
            yield kept, self._live(kept, fragment, key)

    def _live(self, block: Block, fragment: Fragment, key: _Key) -> np.ndarray | None:
        if fragment.deletions is None:
            return None
        own = (*key, fragment.deletions)
        live = _CACHE.get(own)
        if live is None:
            there = np.sort(self._table.row_ids(None, fragments=[fragment.id]))
            live = contained(block.row_ids, there)
            _CACHE.put(own, live)
        assert isinstance(live, np.ndarray)
        return live

    def _read(self, fragment: Fragment, key: _Key) -> Iterator[tuple[Block, np.ndarray | None]]:
        waiting: list[tuple[np.ndarray, pa.Array]] = []
        size, whole = 0, True
        stream = self._table.scan(
            [self._column],
            filter=f"{self._column} IS NOT NULL",
            row_ids=True,
            fragments=[fragment.id],
            batch_rows=BATCH_ROWS,
        )
        for batch in stream:
            if size > BLOCK_BYTES:
                yield Block.build(waiting), None
                waiting, size, whole = [], 0, False
            waiting.append((batch.column("_rowid").to_numpy(), batch.column(self._column)))
            size += batch.nbytes
        block = Block.build(waiting)
        if whole:
            # Rows deleted before now are not in it, and can never come back.
            _CACHE.put(key, block)
        yield block, None
