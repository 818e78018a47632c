"""`Collection`, the object users hold, and the functions that make or find one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa

from vecdataset import ledger, storage
from vecdataset.checkouts import Published, check_out, publish
from vecdataset.display import html_table
from vecdataset.engine import KEEP_VERSIONS, Table, open_table
from vecdataset.errors import (
    InvalidInputError,
    ReadOnlyError,
    UnknownNameError,
    VersionNotFoundError,
    did_you_mean,
)
from vecdataset.frames import Frame, ScoredPoints, raw_batches
from vecdataset.graphs import GraphParams
from vecdataset.grouping import facet, group
from vecdataset.ids import Id, PointId, fit_ids
from vecdataset.indexes import SearchParams, kinds
from vecdataset.infos import CollectionInfo, IndexInfo, Recall
from vecdataset.maintenance import (
    configure,
    create_index,
    create_payload_index,
    drop_index,
    list_indexes,
    optimize,
)
from vecdataset.ordering import Order
from vecdataset.origins import read_origin
from vecdataset.pipeline import answer
from vecdataset.points import Layout
from vecdataset.query import Query, nearest_exact, query_vectors, search
from vecdataset.reader import DROPPED_TAG, Reader, Selection, refuse_dropped
from vecdataset.schema import (
    JSON_NUMBER,
    CollectionSchema,
    vector_column,
)
from vecdataset.scroll import CURSOR, cursor, decode_cursor, id_page, is_cursor, ordered_page
from vecdataset.snapshots import Snapshots
from vecdataset.spaces import stored_vectors
from vecdataset.sparse import SparseVector
from vecdataset.steps import (
    Discover,
    Nearest,
    Recommend,
    batch_step,
    check_strategy,
    examples_of,
    nearest_steps,
    pairs_of,
    parse_step,
    qdrant_request,
)
from vecdataset.text import TextQuery
from vecdataset.warm import HeldInfo, Warm
from vecdataset.writer import Patch, WriteResult, delete_points, patch_points, update_vectors, write_points

if TYPE_CHECKING:
    import lance
    import pandas as pd
    import polars as pl

MAX_SCROLL: Final = 100_000
REMOTE_STALENESS_S: Final = 1.0
NO_ROWS: Final = np.zeros(0, np.uint64)


class Collection:
    """Points with vectors and payload in one Lance dataset.

    Safe in any number of threads. A handle sees its own writes at once, and others' after at
    most `max_staleness_s` seconds (0 on local disks). A handle from `at()` shows one
    version and cannot be written to.
    """

    def __init__(
        self, table: Table, *, name: str, max_staleness_s: float | None = None, pinned: bool = False
    ) -> None:
        """Use `create` or `open` instead."""
        self._name = name
        self._reader = Reader(table, name=name)
        self._pinned = pinned
        if max_staleness_s is None:
            max_staleness_s = REMOTE_STALENESS_S if table.location.remote else 0.0
        self._max_staleness_s = max_staleness_s
        self._checked_at = time.monotonic()
        self._lock = threading.Lock()
        self._warm: Warm | None = None

    # -- what it is

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self._name

    @property
    def url(self) -> str:
        """Where the collection lives, without credentials."""
        return self._reader.table.location.url

    @property
    def schema(self) -> CollectionSchema:
        """Vectors, id type and payload columns at the version that this handle sees."""
        return self._read().schema

    @property
    def version(self) -> int:
        """The number of the version that this handle sees."""
        return self._read().table.version

    @property
    def read_only(self) -> bool:
        """Whether this handle shows a fixed version."""
        return self._pinned

    def __len__(self) -> int:
        return self._read().rows

    def __repr__(self) -> str:
        reader = self._reader
        pinned = ", read-only" if self._pinned else ""
        return f"<Collection {self._name!r}: {reader.rows:,} points, version {reader.table.version}{pinned}>"

    def _repr_html_(self) -> str:
        head = self.scroll(limit=min(5, max(1, len(self)))) if len(self) else None
        rows = head.to_pylist() if head is not None else []
        import html

        return f"<p>{html.escape(repr(self))}</p>" + html_table(rows, total=len(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files and caches; the handle may be used again."""
        self.cool()

    def info(self) -> CollectionInfo:
        """Return counts, sizes, indexes, versions and settings; some requests on a remote store."""
        reader = self._read()
        table = reader.table
        indexes = self.indexes
        vector_indexes = [i for i in indexes if i.kind in kinds]
        versions = [v for v in table.versions() if v.number <= table.version]
        return CollectionInfo(
            name=self._name,
            url=self.url,
            rows=reader.rows,
            indexed_rows=min((i.rows for i in vector_indexes), default=0),
            unindexed_rows=max((i.unindexed_rows for i in vector_indexes), default=reader.rows),
            size_bytes=versions[-1].size_bytes if versions else 0,
            version=table.version,
            versions=len(versions),
            vectors={name: p.to_json() for name, p in reader.schema.vectors.items()}
            | {name: {"sparse": True, "modifier": p.modifier} for name, p in reader.schema.sparse.items()},
            id_type=reader.schema.id_type,
            payload={c.name: str(c.type) for c in reader.schema.payload.values()}
            | dict.fromkeys(sorted(reader.extra_keys - set(reader.schema.payload)), "json"),
            indexes=indexes,
            snapshots=sorted(t for t in table.tags() if not t.startswith(DROPPED_TAG)),
            full_scan_threshold=reader.full_scan_threshold,
            indexing_threshold=reader.indexing_threshold,
            fragments=table.fragments,
            storage=table.location.explain(),
            held=self._held_info(reader),
        )

    # -- freshness

    def _read(self) -> Reader:
        """Return the version to read from: the newest, looked up when it may be stale."""
        if self._pinned:
            return self._reader
        reader = self._reader
        if time.monotonic() - self._checked_at >= self._max_staleness_s:
            reader = self._fresh()
        return reader

    def _fresh(self) -> Reader:
        table = self._reader.table.latest()
        self._checked_at = time.monotonic()
        return self._advance(table)

    def _advance(self, table: Table) -> Reader:
        with self._lock:
            if table.version > self._reader.table.version:
                self._reader = Reader(table, name=self._name)
                self._reader.warm = self._warm
                refuse_dropped(self._reader)
            return self._reader

    def _newest(self) -> Reader:
        return self._reader if self._pinned else self._fresh()

    def refresh(self) -> Collection:
        """See others' commits now, whatever `max_staleness_s` says."""
        self._newest()
        return self

    # -- in memory

    def warm(
        self,
        *,
        columns: Sequence[str] | None = None,
        vectors: Sequence[str] | None = None,
        max_bytes: int | None = None,
        graph: bool | Mapping[str, int] = False,
    ) -> HeldInfo:
        """Hold vectors and payload in memory, for this handle; all its searches and filters use them.

        Args:
            columns: Payload keys to hold; None is all. Filters on others are left to Lance, and hits bring
                others from disk.
            vectors: Names of vectors; None is all that have one vector a point.
            max_bytes: What it may take; None is half of the machine's memory.
            graph: Build a graph (HNSW) over each vector, for collections above `full_scan_threshold`; a dict
                gives `m` (16), `ef_construct` (128) and `ef` (96). Needs the extra `indexes`; takes up
                to minutes for 100,000 points. Points that come later are compared one by one.

        Returns:
            What is held, with its size.

        Raises:
            InvalidInputError: It takes more than `max_bytes`; the message says how much. Nothing is held.

        Answers stay the same, and as fresh: the first call after a commit reads the rows that it added.
        Vectors are float32 in memory. If later versions outgrow `max_bytes`, a warning says so, and
        the handle goes on as it was before.
        """
        if max_bytes is not None and (
            isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0
        ):
            raise InvalidInputError(f"max_bytes is {max_bytes!r}; it must be an integer of at least 0")
        for what, names in (("columns", columns), ("vectors", vectors)):
            if isinstance(names, str):
                raise InvalidInputError(f"{what} is the string {names!r}; it must be a list of names")
        reader = self._read()
        warm = Warm(
            columns=columns,
            vectors=vectors,
            max_bytes=max_bytes,
            graph=GraphParams.parse(graph),
            where=reader.where,
        )
        warm.check(reader.schema, reader.extra_keys)
        held = warm.at(reader.table, reader.schema, reader.extra_keys)
        assert held is not None
        with self._lock:
            self._warm = warm
            self._reader = self._reader.holding(warm)
        return warm.info(held)

    def cool(self) -> None:
        """Let go of what `warm` holds."""
        with self._lock:
            if self._warm is not None:
                self._warm.release()
                self._warm = None
                self._reader = self._reader.holding(None)

    def _held_info(self, reader: Reader) -> HeldInfo | None:
        held, warm = reader.held, self._warm
        return None if held is None or warm is None else warm.info(held)

    def _writable(self) -> Reader:
        if self._pinned:
            raise ReadOnlyError(
                f"this handle shows version {self._reader.table.version} of collection {self._name!r} "
                "and cannot be written to",
                hint=f"open({self.url!r}) is the collection itself",
            )
        storage.require_writable(self._reader.table.location)
        return self._fresh()

    def _done(self, result: tuple[WriteResult, Table]) -> WriteResult:
        done, table = result
        self._advance(table)
        return done

    # -- points in

    def insert(
        self,
        points: Any,
        *,
        id: str = "id",
        vectors: Mapping[str, str] | None = None,
        layout: Layout | None = None,
    ) -> WriteResult:
        """Add new points, as one commit.

        Args:
            points: A frame, an Arrow stream, dicts, `Point`s, `(ids, array)`, or an iterator of
                these; may be larger than memory.
            id: The column or key of the ids; without ids the points get UUIDs.
            vectors: Vector name to column or key (`""` is the unnamed vector).
            layout: `flat` or `qdrant`; None looks at the keys.

        Raises:
            PointExistsError: An id exists, or stands twice in `points`; nothing was written.
            InvalidInputError: A point is wrong; the message names it, and nothing was written.
        """
        reader = self._writable()
        batches = raw_batches(points, reader.schema, id=id, vectors=vectors, layout=layout)
        return self._done(write_points(reader, batches, insert=True, update=False))

    def upsert(
        self,
        points: Any,
        *,
        id: str = "id",
        vectors: Mapping[str, str] | None = None,
        layout: Layout | None = None,
    ) -> WriteResult:
        """Add points, or replace whole points whose id exists, as one commit; the last of an id wins.

        Args:
            points: As for `insert`.
            id: The column or key of the ids; without ids the points get UUIDs.
            vectors: Vector name to column or key (`""` is the unnamed vector).
            layout: `flat` or `qdrant`; None looks at the keys.

        Raises:
            InvalidInputError: A point is wrong; the message names it, and nothing was written.
        """
        reader = self._writable()
        batches = raw_batches(points, reader.schema, id=id, vectors=vectors, layout=layout)
        return self._done(write_points(reader, batches, insert=True, update=True))

    def delete(self, ids: Any = None, *, filter: Any = None) -> WriteResult:
        """Delete points by id or by filter, as one commit; ids that are not there are passed over."""
        reader = self._writable()
        _one_of(ids, filter, "delete")
        return self._done(delete_points(reader, self._stored_ids(reader, ids), filter))

    def set_payload(self, payload: Mapping[str, Any], *, ids: Any = None, filter: Any = None) -> WriteResult:
        """Set payload keys of points; other keys stay, and a value of None removes its key."""
        return self._patch(Patch(set=dict(payload)), ids, filter, "set_payload")

    def overwrite_payload(
        self, payload: Mapping[str, Any], *, ids: Any = None, filter: Any = None
    ) -> WriteResult:
        """Replace the whole payload of points."""
        return self._patch(Patch(set=dict(payload), clear=None), ids, filter, "overwrite_payload")

    def delete_payload(self, keys: Sequence[str], *, ids: Any = None, filter: Any = None) -> WriteResult:
        """Remove payload keys of points."""
        keys = [keys] if isinstance(keys, str) else list(keys)
        return self._patch(Patch(clear=keys), ids, filter, "delete_payload")

    def clear_payload(self, *, ids: Any = None, filter: Any = None) -> WriteResult:
        """Remove the payload of points."""
        return self._patch(Patch(clear=None), ids, filter, "clear_payload")

    def update_vectors(
        self, points: Any, *, id: str = "id", vectors: Mapping[str, str] | None = None
    ) -> WriteResult:
        """Replace the vectors that `points` bring; payload and other vectors stay.

        Raises:
            PointNotFoundError: An id is not there; nothing was written.
        """
        reader = self._writable()
        return self._done(
            update_vectors(
                self._fresh, lambda: raw_batches(points, reader.schema, id=id, vectors=vectors, partial=True)
            )
        )

    def delete_vectors(
        self, vectors: str | Sequence[str], *, ids: Any = None, filter: Any = None
    ) -> WriteResult:
        """Remove vectors, by name, of points; the points stay."""
        reader = self._writable()
        names = [vectors] if isinstance(vectors, str) else list(vectors)
        columns = [vector_column(reader.schema.vector_name(n)) for n in names]
        return self._patch(Patch(clear_vectors=columns), ids, filter, "delete_vectors")

    def _patch(self, patch: Patch, ids: Any, filter: Any, verb: str) -> WriteResult:
        self._writable()
        _one_of(ids, filter, verb)

        def select(reader: Reader) -> Selection:
            if ids is None:
                return reader.select(filter, in_memory=False)
            return _by_ids(reader, self._stored_ids(reader, ids))

        return self._done(patch_points(self._fresh, patch, select))

    @staticmethod
    def _stored_ids(reader: Reader, ids: Any) -> pa.Array | None:
        if ids is None:
            return None
        if isinstance(ids, Frame):
            ids = ids["id"]
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        if isinstance(ids, set | frozenset | range | Iterator):
            ids = list(ids)
        if isinstance(ids, int | str) or not hasattr(ids, "__len__"):
            ids = [ids]
        if len(ids) == 0:
            return pa.nulls(0, reader.schema.id_arrow_type)
        return fit_ids(ids, reader.schema.id_type, where=reader.where)[0]

    # -- points out

    def get(
        self, ids: Any, *, columns: Sequence[str] | None = None, with_vectors: bool | Sequence[str] = False
    ) -> Frame:
        """Return points by id, in the order asked; ids that are not there are absent."""
        reader = self._read()
        names, keys = reader.output(columns, with_vectors=with_vectors)
        stored = self._stored_ids(reader, [None] if ids is None else ids)
        assert stored is not None
        if reader.schema.id_type is None or not len(stored):
            return reader.frame(reader.take(NO_ROWS, ["id", *names]))
        return reader.frame(reader.shape(reader.by_ids(stored, ["id", *names]), keys))

    def count(self, filter: Any = None) -> int:
        """Return how many points match; exact."""
        reader = self._read()
        return reader.count(reader.select(filter))

    def where(self, filter: Any, *, table: str | None = None) -> str:
        """Return a filter as DuckDB's SQL over the columns of this collection's view, true for what matches.

        Args:
            filter: SQL text, Qdrant's JSON, `{key: value}` or a `Filter`.
            table: The name or alias of the view in the statement, written before every column.

        Raises:
            NotSupportedError: DuckDB has no words for a part; the message names it.

        It names the columns of this version: what is written later may move a value into another.
        """
        return self._read().duckdb(filter, table=table)

    def scroll(
        self,
        *,
        limit: int = 10,
        offset: Any = None,
        filter: Any = None,
        order_by: str | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
    ) -> Frame:
        """Return a page of points in id order: integers numerically, then texts.

        Args:
            limit: Points a page, 1 to 100,000.
            offset: `next_offset` of the page before, which also pins its version, so that pages fit
                together whatever is written meanwhile; or the id to begin with.
            filter: Only points that match.
            order_by: A payload key or path, or `{"key": …, "direction": "asc" | "desc", "start_from": …}`:
                points in its order, those without it or with null left out; one with several values, in an
                array, stands once for each. Of equal values, by id.
            columns: Payload columns; None is all.
            with_vectors: True, or names of vectors.

        Returns:
            The points; `next_offset` is None on the last page.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_SCROLL:
            raise InvalidInputError(f"limit is {limit!r}; it must be 1 to {MAX_SCROLL:,}")
        reader = self._read()
        start: Any = None
        inclusive = False
        skip = 0
        names_ids = reader.schema.id_type == "string"
        if isinstance(offset, str) and (is_cursor(offset) if names_ids else offset.startswith(CURSOR)):
            version, start, skip = decode_cursor(offset)
            reader = (
                reader
                if version == reader.table.version
                else Reader(reader.table.at(version), name=self._name)
            )
        elif offset is not None:
            stored = self._stored_ids(reader, offset)
            assert stored is not None
            start, inclusive = stored[0].as_py(), True
        names, keys = reader.output(columns, with_vectors=with_vectors)
        selection = reader.select(filter)
        if reader.schema.id_type is None:
            return reader.frame(reader.take(NO_ROWS, ["id", *names]))
        if order_by is not None:
            row_ids, more = ordered_page(reader, selection, Order.parse(order_by), limit=limit, skip=skip)
            following = cursor(reader, None, skip + len(row_ids)) if more else None
        else:
            row_ids, last, more = id_page(reader, selection, limit=limit, start=start, inclusive=inclusive)
            following = cursor(reader, last, 0) if more else None
        page = reader.take(row_ids, ["id", *names])
        return reader.frame(reader.shape(page, keys), next_offset=following)

    def iter_batches(
        self,
        *,
        filter: Any = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        batch_rows: int = 8_192,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the points of one version as Arrow batches, in storage order, in bounded memory."""
        reader = self._read()
        names, _ = reader.output(columns, with_vectors=with_vectors)
        yield from reader.stream(["id", *names], reader.select(filter), batch_rows=batch_rows)

    def scan(
        self,
        *,
        filter: Any = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = True,
    ) -> pa.RecordBatchReader:
        """Return the points of one version as an Arrow stream, in storage order."""
        reader = self._read()
        names, _ = reader.output(columns, with_vectors=with_vectors)
        plain = reader.take(NO_ROWS, ["id", *names]).schema
        # A column of JSON numbers says so, and keeps its ints when it goes into another collection.
        schema = pa.schema([f.with_metadata(JSON_NUMBER) if f.name in reader.numbers else f for f in plain])
        return pa.RecordBatchReader.from_batches(
            schema,
            (pa.RecordBatch.from_arrays(b.columns, schema=schema)
             for b in reader.stream(["id", *names], reader.select(filter))),
        )  # fmt: skip

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the points of one version, vectors included, as an Arrow stream."""
        return self.scan().__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pa.Table:
        """Return all points, vectors included, as one Arrow table."""
        return self.scan().read_all()

    def to_polars(self) -> pl.DataFrame:
        """Return all points, vectors included, as a polars frame."""
        return Frame(self.to_arrow()).to_polars()

    def to_pandas(self) -> pd.DataFrame:
        """Return all points, vectors included, as a pandas frame."""
        return Frame(self.to_arrow()).to_pandas()

    def to_lance(self) -> lance.LanceDataset:
        """Return the Lance dataset behind this version."""
        return self._read().table.dataset

    # -- search

    def search(
        self,
        vector: Any,
        *,
        limit: int = 10,
        offset: int = 0,
        filter: Any = None,
        using: str | None = None,
        params: SearchParams | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
        exact: bool = False,
        explain: bool = False,
    ) -> ScoredPoints:
        """Return the points nearest to `vector`, best first.

        Args:
            vector: `[size]` numbers, `[n, size]` for a batch, or `Id(…)` of a point, which is then
                left out of its own answer (a list of `Id`s is a batch).
            limit: Hits a query.
            offset: Hits to leave out first.
            filter: SQL text, a Qdrant filter, `{key: value}` or a `Filter`; applied before the
                search, so that `limit` hits come whenever as many points match.
            using: The vector's name; not needed where there is one.
            params: `ef`, `nprobes`, `refine`, `exact`: how hard the index looks.
            columns: Payload columns; None is all.
            with_vectors: True, or names of vectors.
            score_threshold: Leave out worse scores.
            exact: Compare with every vector that the filter lets through.
            explain: Put how the search ran into `.plan`.

        Returns:
            Columns `query_index` (int32), `id`, `score` and `_distance` (float32), then payload.

        Raises:
            InvalidInputError: The vector, filter or a name is wrong.

        Exact below `full_scan_threshold` points, through the index above, rows that it does
        not cover yet included. One scan or one index call for the whole batch.
        """
        reader = self._read()
        if isinstance(vector, SparseVector) and using is None and len(reader.schema.sparse) == 1:
            using = next(iter(reader.schema.sparse))
        if using in reader.schema.sparse or reader.schema.vector(using)[1].multivector:
            # One query each: a sparse vector, or the rows of a multivector.
            return self.query(
                Nearest(vector=vector),
                using=using, filter=filter, limit=limit, offset=offset, params=params, columns=columns,
                with_vectors=with_vectors, score_threshold=score_threshold, explain=explain,
            )  # fmt: skip
        name, declared = reader.schema.vector(using)
        exclude: list[int | str] | None = None
        ids = _ids_of(vector)
        if ids is not None:
            vectors, exclude = self._vectors_of(reader, ids, name)
        else:
            vectors = query_vectors(vector, declared, name=name, where=reader.where)
        parsed = SearchParams.parse(params)
        if exact:
            parsed = replace(parsed, exact=True)
        return search(
            reader,
            Query(
                vectors=vectors,
                using=name,
                limit=limit,
                offset=offset,
                filter=filter,
                params=parsed,
                columns=columns,
                with_vectors=with_vectors,
                score_threshold=score_threshold,
                exclude=exclude,
            ),
            explain=explain,
        )

    def _vectors_of(
        self, reader: Reader, ids: list[PointId], name: str
    ) -> tuple[np.ndarray, list[int | str]]:
        stored = self._stored_ids(reader, ids)
        assert stored is not None
        vectors, _ = stored_vectors(reader, name, stored)
        return np.array(vectors, np.float32), stored.to_pylist()

    def recall(
        self, k: int = 10, sample: int = 200, *, using: str | None = None, filter: Any = None,
        params: SearchParams | Mapping[str, Any] | None = None, seed: int = 0,
    ) -> Recall:  # fmt: skip
        """Compare the index with the exact answer on stored vectors.

        Args:
            k: Neighbours to compare.
            sample: How many stored vectors to ask for.
            using: The vector's name.
            filter: Search under this filter.
            params: As for `search`.
            seed: Chooses the sample.
        """
        reader = self._read()
        name, _ = reader.schema.vector(using)
        column = vector_column(name)
        row_ids = (
            reader.table.row_ids(f"{column} IS NOT NULL") if reader.schema.id_type else np.zeros(0, np.uint64)
        )
        if not len(row_ids):
            return Recall(value=1.0, k=k, sample=0, index=None)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(row_ids, min(sample, len(row_ids)), replace=False))
        vectors = reader.table.take(chosen, [column])[column].combine_chunks()
        queries = vectors.flatten().to_numpy().reshape(len(chosen), -1).astype(np.float32)
        question = Query(
            vectors=queries, using=name, limit=k, filter=filter, columns=[], params=SearchParams.parse(params)
        )
        found = search(reader, question, explain=True)
        truth = nearest_exact(reader, name, queries, reader.select(filter), k)
        distances = found["_distance"].to_numpy()
        index = found["query_index"].to_numpy()
        hits = total = 0
        for i, (rows, exact) in enumerate(truth.hits):
            # A tie with the k-th distance counts: either point is a true neighbour.
            bound = exact[-1] + 1e-5 * (1 + abs(exact[-1])) if len(exact) else 0.0
            hits += min(int((distances[index == i] <= bound).sum()), len(rows))
            total += len(rows)
        return Recall(value=hits / max(total, 1), k=k, sample=len(chosen), index=found.plan.index)

    def query(
        self,
        query: Any = None,
        *,
        prefetch: Any = None,
        using: str | None = None,
        filter: Any = None,
        limit: int = 10,
        offset: int = 0,
        params: SearchParams | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
        lookup_from: Collection | None = None,
        explain: bool = False,
    ) -> ScoredPoints:
        """Answer the general query: one question, or a tree of them, scored again or fused.

        Args:
            query: What ranks: a vector or `Id` (nearest), or a dict in Qdrant's form: `nearest` (with
                `mmr`), `recommend`, `discover`, `context`, `order_by`, `fusion` (`rrf qdrant_rrf dbsf rsf
                product`, with `k`, `weights`, `alpha`), `rrf`, `formula`, `sample`. None: by id.
            prefetch: Steps whose points are ranked: dicts of `query`, `using`, `filter`, `limit`,
                `params`, `score_threshold` and further `prefetch`.
            using: The vector's name.
            filter: Holds for the prefetches too.
            limit: Points to return.
            offset: Points to leave out first.
            params: As for `search`.
            columns: Payload columns; None is all.
            with_vectors: True, or names of vectors.
            score_threshold: Leave out worse scores.
            lookup_from: Another collection in which examples given by id are looked up.
            explain: Put the tree into `.plan`.

        Returns:
            As `search`; `_distance` is the score turned so that smaller is better.
        """
        reader = self._read()
        step = parse_step(
            query,
            reader,
            qdrant=False,
            prefetch=prefetch,
            lookup=None if lookup_from is None else lookup_from._read(),  # noqa: SLF001
            using=using,
            filter=filter,
            limit=limit,
            offset=offset,
            params=params,
            score_threshold=score_threshold,
        )
        return answer(reader, [step], columns=columns, with_vectors=with_vectors, explain=explain)

    def query_batch(
        self,
        queries: Sequence[Mapping[str, Any]],
        *,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        explain: bool = False,
    ) -> ScoredPoints:
        """Answer several queries of any kinds on one version.

        Args:
            queries: A dict of the arguments of `query` each: `{"query": …, "filter": …, "limit": 5}`.
            columns: Payload columns; None is all.
            with_vectors: True, or names of vectors.
            explain: Put the trees into `.plan`.

        Returns:
            As `query`; `query_index` says which query found a point.

        Nearest searches that differ only in the vector, limit, offset and threshold share one call.
        """
        reader = self._read()
        steps = []
        for query in queries:
            other = query.get("lookup_from") if isinstance(query, Mapping) else None
            if other is not None and not isinstance(other, Collection):
                raise InvalidInputError(f"lookup_from is {other!r}; it must be a Collection")
            lookup = None if other is None else other._read()  # noqa: SLF001  of the same class
            steps.append(batch_step(query, reader, lookup=lookup))
        return answer(reader, steps, columns=columns, with_vectors=with_vectors, explain=explain)

    def query_qdrant(self, request: Any, *, explain: bool = False) -> ScoredPoints:
        """Answer the body of a Qdrant `points/query` request, with Qdrant's meaning and defaults.

        Args:
            request: The JSON as a dict, or qdrant-client's `QueryRequest`: `query`, `prefetch`, `using`,
                `filter`, `limit`, `offset`, `params`, `score_threshold`, `with_payload`, `with_vector`.
            explain: Put the tree into `.plan`.

        Returns:
            As `query`. `to_pylist(layout="qdrant")` gives the points as Qdrant would.

        Raises:
            NotSupportedError: `lookup_from` or `shard_key` is given.

        Other than in `query`, `{"fusion": "rrf"}` is Qdrant's own with k = 2, and payload comes
        only where `with_payload` asks for it.
        """
        reader = self._read()
        asked = qdrant_request(request, reader)
        return answer(
            reader, [asked.step], columns=asked.columns, with_vectors=asked.with_vectors, explain=explain
        )

    def recommend(
        self,
        positive: Any,
        negative: Any = (),
        *,
        strategy: str = "average_vector",
        **options: Any,
    ) -> ScoredPoints:
        """Return points like the positive examples and unlike the negative ones, by Qdrant's formulas.

        Args:
            positive: Ids of points or vectors, or a list of them.
            negative: The same.
            strategy: `average_vector` (one nearest search), `best_score` or `sum_scores` (every match
                is scored).
            options: The options of `query`: `limit`, `filter`, `using` …

        Points given by id are left out of the answer.
        """
        rank = Recommend(
            positive=examples_of(positive), negative=examples_of(negative), strategy=check_strategy(strategy)
        )
        return self.query(rank, **options)

    def discover(self, target: Any, context: Any, **options: Any) -> ScoredPoints:
        """Return points near `target` in the region that pairs of examples mark out.

        Args:
            target: An id or a vector.
            context: Pairs `(positive, negative)` of ids or vectors.
            options: The options of `query`.
        """
        return self.query(Discover(target=target, pairs=pairs_of(context)), **options)

    def context(self, pairs: Any, **options: Any) -> ScoredPoints:
        """Return points that are nearer to the positive than to the negative example of each pair.

        Args:
            pairs: `(positive, negative)` of ids or vectors.
            options: The options of `query`.
        """
        return self.query(Discover(pairs=pairs_of(pairs)), **options)

    def text(
        self,
        query: Any,
        *,
        columns: str | Sequence[str] | Mapping[str, float] | None = None,
        limit: int = 10,
        offset: int = 0,
        filter: Any = None,
        with_payload: bool | Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
        explain: bool = False,
        **options: Any,
    ) -> ScoredPoints:
        """Return the points whose text matches best, by BM25.

        Args:
            query: Words, a `TextQuery` or a dict of its fields; a list of them is a batch.
            columns: Text columns to search, or `{column: factor}`; None: those with a text index, or
                all columns of text where there is none.
            limit: Hits a query.
            offset: Hits to leave out first.
            filter: As for `search`; applied before the ranking.
            with_payload: Payload columns to return; None or True is all.
            with_vectors: True, or names of vectors.
            score_threshold: Leave out worse scores.
            explain: Put how the columns were searched into `.plan`.
            options: Fields of `TextQuery`: `operator="and"`, `phrase=True`, `fuzziness=1` …

        Returns:
            As `search`; `score` is BM25, larger is better, and `_distance` is its negative.

        Raises:
            InvalidInputError: A column is not text, or a field is wrong.

        Rows that no text index covers yet are found too. Without an index the text is indexed in a
        temporary folder, once for each version that is searched: half a second for 20,000 descriptions.
        """
        reader = self._read()
        queries = query if isinstance(query, list | tuple) else [query]
        steps = [
            parse_step(
                TextQuery.parse(q, columns=columns, **options), reader, qdrant=False,
                filter=filter, limit=limit, offset=offset, score_threshold=score_threshold,
            )
            for q in queries
        ]  # fmt: skip
        shown = _shown(with_payload)
        return answer(reader, steps, columns=shown, with_vectors=with_vectors, explain=explain)

    def hybrid(
        self,
        vector: Any = None,
        *,
        text: Any = None,
        sparse: Any = None,
        fusion: str = "rrf",
        limit: int = 10,
        offset: int = 0,
        candidates: int | None = None,
        filter: Any = None,
        using: str | None = None,
        sparse_using: str | None = None,
        text_columns: str | Sequence[str] | Mapping[str, float] | None = None,
        weights: Sequence[float] | None = None,
        alpha: float | None = None,
        k: int | None = None,
        params: SearchParams | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
        explain: bool = False,
    ) -> ScoredPoints:
        """Search by several of vector, text and sparse vector, and fuse the lists.

        Args:
            vector: A dense vector or an `Id`; None leaves it out.
            text: Words or a `TextQuery`; None leaves it out.
            sparse: A `SparseVector` or an `Id`; None leaves it out.
            fusion: `rrf`, `qdrant_rrf`, `dbsf`, `rsf` or `product`.
            limit: Points to return.
            offset: Points to leave out first.
            candidates: How long the list of each side is; None is 100, or `limit + offset` if that is more.
            filter: As for `search`; applied before every side.
            using: The dense vector's name.
            sparse_using: The sparse vector's name; not needed where there is one.
            text_columns: As `columns` of `text`.
            weights: One a side, in the order vector, text, sparse; for `rrf`, `qdrant_rrf` and `rsf`.
            alpha: Of `rsf` with two sides: the weight of the first, 0.7 unless given.
            k: The constant of `rrf` (60) and `qdrant_rrf` (2).
            params: As for `search`, for the vectors.
            columns: Payload columns; None is all.
            with_vectors: True, or names of vectors.
            score_threshold: Leave out worse fused scores.
            explain: Put the tree into `.plan`.

        Returns:
            As `search`; `score` is the fused one.

        Raises:
            InvalidInputError: No side was given, or an option does not go with the fusion.
        """
        reader = self._read()
        window = limit + offset if isinstance(limit, int) and isinstance(offset, int) else 0
        length = max(100, window) if candidates is None else candidates
        if isinstance(length, int) and length < window:
            raise InvalidInputError(f"candidates is {length}; it must be at least limit + offset, {window}")
        asked: list[tuple[Any, dict[str, Any]]] = [
            (vector, {"using": using, "params": params}),
            (None if text is None else TextQuery.parse(text, columns=text_columns), {}),
            (sparse, {} if sparse is None else {"using": _only_sparse(reader, sparse_using)}),
        ]  # fmt: skip
        sides = [
            parse_step(q, reader, qdrant=False, limit=length, **given) for q, given in asked if q is not None
        ]
        if not sides:
            raise InvalidInputError("hybrid takes a vector, text or a sparse vector; none was given")
        step = parse_step(
            {"fusion": fusion, "k": k, "weights": weights, "alpha": alpha}, reader, qdrant=False,
            prefetch=sides, filter=filter, limit=limit, offset=offset, score_threshold=score_threshold,
        )  # fmt: skip
        return answer(reader, [step], columns=columns, with_vectors=with_vectors, explain=explain)

    def facet(self, key: str, *, filter: Any = None, limit: int = 10, exact: bool = True) -> Frame:
        """Return the values of a payload key with how many points hold them, most frequent first.

        Args:
            key: A payload key, or a path such as `a.b` or `a[].b`.
            filter: Only points that match.
            limit: How many values.
            exact: Taken for Qdrant's sake: counts are always exact.

        Returns:
            Columns `value`, of the key's type (JSON text where it holds values of several types), and
            `count` (int64); values of one count in ascending order.

        Raises:
            InvalidInputError: The key holds objects.

        Texts, numbers, booleans and dates count; a point counts once for each distinct element of an array.
        """
        del exact
        return facet(self._read(), key, filter=filter, limit=limit)

    def group(
        self,
        vector: Any,
        *,
        by: str,
        limit: int = 10,
        group_size: int = 3,
        filter: Any = None,
        using: str | None = None,
        params: SearchParams | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        with_vectors: bool | Sequence[str] = False,
        score_threshold: float | None = None,
    ) -> ScoredPoints:
        """Return the points nearest to `vector` in groups by a payload key.

        Args:
            vector: As for `search`.
            by: A payload key of texts, numbers, booleans or dates, or arrays of these; or a path.
            limit: Groups a query.
            group_size: Hits a group.
            filter: As for `search`.
            using: The vector's name.
            params: As for `search`.
            columns: Payload columns; None is all.
            with_vectors: True, or names of vectors.
            score_threshold: Leave out worse scores.

        Returns:
            As `search`, with a column `group` after `query_index`: groups by their best hit, hits best first.
            A point with an array stands in each of its groups, one without the key in none.

        Raises:
            InvalidInputError: The key holds objects, or a number is out of range.

        As many groups and hits come as there are, up to `limit` and `group_size`; unlike in Qdrant,
        which gives up after some requests. Where the nearest points are of few groups, every
        match is scored.
        """
        reader = self._read()
        steps = nearest_steps(
            vector,
            reader,
            using=using,
            filter=filter,
            limit=limit,
            params=params,
            score_threshold=score_threshold,
        )
        return group(reader, steps, by=by, group_size=group_size, columns=columns, with_vectors=with_vectors)

    # -- indexes and settings

    @property
    def indexes(self) -> list[IndexInfo]:
        """The indexes, with what they cover."""
        return list_indexes(self._read())

    def create_index(
        self,
        kind: str | None = None,
        *,
        using: str | None = None,
        progress: Callable[[float], None] | None = None,
        **params: Any,
    ) -> IndexInfo:
        """Build an index over a vector; one that is there serves until the new one is committed.

        Args:
            kind: `ivf_flat`, `ivf_sq`, `ivf_pq`, `ivf_rq`, `ivf_hnsw_flat`, `ivf_hnsw_sq`, `ivf_hnsw_pq`,
                `hnsw`, or a plugin's; None takes what the vector declares, or `ivf_rq`.
            using: The vector's name.
            progress: Called with the share that is done, 0 to 1.
            params: `m`, `ef_construct`, `ef`, `num_partitions`, `num_bits` …, or `preset=`.

        Raises:
            InvalidInputError: The kind cannot index such vectors, or a parameter is wrong.
        """
        return create_index(_Host(self), kind, using=using, progress=progress, params=params)

    def create_payload_index(self, key: str, kind: str | None = None, **options: Any) -> IndexInfo:
        """Build an index over a payload column; it changes the speed of filters, never their answers.

        Args:
            key: A payload key that has a column of its own.
            kind: `keyword`, `integer`, `float`, `bool`, `datetime`, `geo`, `uuid` or `text`, or Lance's
                `btree`, `bitmap`, `label_list`, `ngram`, `inverted`; None chooses by the column's type.
            options: Of kind `text`: `language`, `stem`, `remove_stop_words`, `lower_case`, `ascii_folding`,
                `with_position`, `base_tokenizer` … as Lance names them.

        Raises:
            InvalidInputError: The column's type does not go with the kind.
        """
        return create_payload_index(_Host(self), key, kind, options)

    def drop_index(self, name: str) -> None:
        """Remove an index by name; searches are exact again."""
        drop_index(_Host(self), name)

    def optimize(self, *, progress: Callable[[float], None] | None = None) -> CollectionInfo:
        """Merge small fragments, bring new rows into the indexes, build indexes that are due.

        An index is due for each vector once as many points as `indexing_threshold` are there. One that is
        there is built anew, with the params it has, once as many points came in as it was trained on, or once
        a twentieth of all points lies outside of what those spanned. Readers and writers go on meanwhile.
        Returns `info()` afterwards.
        """
        optimize(_Host(self), progress)
        return self.info()

    def clean_up(self, *, older_than: timedelta = KEEP_VERSIONS, orphans: bool = False) -> int:
        """Remove old versions that no snapshot holds, and what crashes left; return the bytes freed.

        Commits do this by themselves every 256 versions.

        Args:
            older_than: Versions must be older than this; handles on those that go stop working.
            orphans: Also remove files that no version names, whatever their age. Only while nobody
                writes: a commit under way has such files. Without it they must be seven days old.

        Raises:
            CorruptionError: A snapshot has lost the tag that keeps its version; nothing was removed.
        """
        return self._writable().table.clean_up(older_than=older_than, orphans=orphans)

    def configure(
        self, *, full_scan_threshold: int | None = None, indexing_threshold: int | None = None
    ) -> None:
        """Change settings, stored with the collection; None leaves one as it is.

        Args:
            full_scan_threshold: Searches are exact below so many points, and filters that let fewer
                points through are answered exactly; 0 always asks the index.
            indexing_threshold: `optimize()` builds indexes from so many points on.
        """
        configure(
            _Host(self),
            {"full_scan_threshold": full_scan_threshold, "indexing_threshold": indexing_threshold},
        )

    # -- versions

    def versions(self) -> Frame:
        """Return the versions that this handle can show, oldest first: what was done, when, and by whom.

        Columns: `version`, `created_at`, `operation`, `rows` (points in all), `inserted`, `updated`,
        `deleted`, `size_bytes`, `tool`, `user`, `note` (see `noted`) and `snapshots`, the names of those
        that hold it. Versions that another tool made, and steps between that a write took, have Lance's
        word for the operation, and nulls where the ledger would say more.
        """
        table = self._read().table
        found = [v for v in table.versions() if v.number <= table.version]
        known = {e.version: e for e in ledger.read_ledger(table.location).entries}
        entries = [known.get(v.number) for v in found]
        held: dict[int, list[str]] = {}
        for name, number in sorted(table.tags().items()):
            held.setdefault(number, []).append(name)

        def of_entries(field: str) -> list[Any]:
            return [None if e is None else getattr(e, field) for e in entries]

        return Frame(pa.table({
            "version": pa.array([v.number for v in found], pa.int64()),
            "created_at": pa.array([v.created_at for v in found], pa.timestamp("us", tz="UTC")),
            "operation": pa.array(
                [table.operation(v.number) if e is None else e.action
                 for v, e in zip(found, entries, strict=True)],
                pa.string(),
            ),
            "rows": pa.array([v.rows for v in found], pa.int64()),
            "inserted": pa.array(of_entries("inserted"), pa.int64()),
            "updated": pa.array(of_entries("updated"), pa.int64()),
            "deleted": pa.array(of_entries("deleted"), pa.int64()),
            "size_bytes": pa.array([v.size_bytes for v in found], pa.int64()),
            "tool": pa.array(of_entries("tool"), pa.string()),
            "user": pa.array(of_entries("user"), pa.string()),
            "note": pa.array(of_entries("note"), pa.string()),
            "snapshots": pa.array([held.get(v.number, []) for v in found], pa.list_(pa.string())),
        }))  # fmt: skip

    @contextmanager
    def noted(self, note: str) -> Iterator[None]:
        """Keep a text for people with every version that this thread makes in the block.

        >>> import vecdataset as vd
        >>> books = vd.create("memory://doc-noted/books", vectors=vd.VectorParams(size=2))
        >>> with books.noted("the spring list"):
        ...     _ = books.upsert([{"id": 1, "vector": [0, 1]}])
        >>> books.versions()["note"].to_pylist()[-1]
        'the spring list'
        """
        with ledger.noted(note):
            yield

    def at(self, version: int | str | datetime) -> Collection:
        """Return a read-only handle on a version, a snapshot by name, or the state at a time.

        Args:
            version: A version number, a snapshot's name, or a time (naive is UTC).

        Raises:
            VersionNotFoundError: There is none.
        """
        table = self._read().table
        if isinstance(version, datetime):
            moment = version if version.tzinfo else version.replace(tzinfo=UTC)
            before = [v.number for v in table.versions() if v.created_at <= moment]
            if not before:
                raise VersionNotFoundError(
                    f"collection {self._name!r} has no version of {moment.isoformat()} or before"
                )
            number = before[-1]
        elif isinstance(version, str):
            tags = table.tags()
            if version not in tags:
                raise VersionNotFoundError(
                    f"collection {self._name!r} has no snapshot {version!r}",
                    hint=did_you_mean(version, tags, what="snapshots"),
                )
            number = tags[version]
        elif isinstance(version, bool) or not isinstance(version, int):
            raise InvalidInputError(
                f"at() takes a version number, a snapshot's name or a datetime, not {version!r}"
            )
        else:
            number = version
            if number > table.version or number < 1:
                raise VersionNotFoundError(
                    f"collection {self._name!r} has no version {number}",
                    hint=f"versions: 1 to {table.version}",
                )
        return Collection(table.at(number), name=self._name, pinned=True)

    # -- snapshots

    @property
    def snapshots(self) -> Snapshots:
        """Sealed versions: to create, list, verify, restore, copy, compare, delete and prune."""
        return Snapshots(_Host(self))

    # -- working copies

    def checkout(
        self,
        target: Any,
        *,
        filesystem: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Collection:
        """Copy this version to another place, to work on it there, and return the copy.

        Args:
            target: A path or URL. A free place gets a copy of one version, with its indexes and without
                snapshots; a copy that was made there before is brought up to date instead.
            filesystem: An fsspec filesystem to use instead of the target's scheme.
            storage_options: fsspec's options of the target's filesystem.
            progress: Called with the share that is done, 0 to 1.

        Each file is compared with what arrived. The copy remembers where it came from; `publish` brings
        back what is committed to it. To bring it up to date moves only files that it has not.

        Raises:
            CommitConflictError: The copy there has versions of its own, and this collection too.
            CollectionExistsError: Something else stands at the target.
            CorruptionError: A file is missing, or not what was written.
        """
        place = storage.resolve(target, filesystem=filesystem, storage_options=storage_options)
        check_out(self._newest(), place, progress=progress)
        return Collection(open_table(place), name=place.name)

    def publish(
        self,
        target: Any = None,
        *,
        filesystem: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Published:
        """Bring the versions of a working copy to where it was checked out from.

        Args:
            target: A path or URL; None is the origin. A free place gets a copy of the newest version.
            filesystem: An fsspec filesystem to use instead of the target's scheme.
            storage_options: fsspec's options of the target's filesystem; they are not remembered.
            progress: Called with the share that is done, 0 to 1.

        New files go first, each compared with what arrived. Then the versions appear, one after the
        other, as whole as when they were committed here. Where somebody wrote to the origin in the
        meantime nothing is published.

        Raises:
            CommitConflictError: The origin has versions that this copy has not.
            CollectionNotFoundError: Nothing stands at the origin any more.
            VersionGoneError: Versions between were cleaned up.
            CorruptionError: A file is missing, or not what was written.
        """
        return publish(
            self._newest(),
            target,
            filesystem=filesystem,
            storage_options=storage_options,
            progress=progress,
        )

    @property
    def origin(self) -> str | None:
        """The URL that this working copy was checked out from; None elsewhere."""
        known = read_origin(self._reader.table.location)
        return None if known is None else known.url

    # -- export

    def export(
        self,
        target: str,
        *,
        format: str | None = None,
        progress: Callable[[int], None] | None = None,
        target_options: Mapping[str, Any] | None = None,
    ) -> int:
        """Write all points of one version to a file or a Qdrant server; return how many.

        Args:
            target: A path or URL; `qdrant://host[:port]/collection` is a running server.
            format: `parquet`, `arrow`, `jsonl`, `qdrant`, or a plugin's; None goes by the name's ending.
            progress: Called with the number of points written so far.
            target_options: fsspec's options for a URL. Of a server: `api_key`, `timeout_s`, `attempts`,
                `batch_points`, and `checkpoint`, a file by which an interrupted export goes on.
        """
        from vecdataset.formats import export_points

        return export_points(self, target, format=format, progress=progress, target_options=target_options)


class _Host:
    """What those see of a collection who work on it."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    @property
    def name(self) -> str:
        return self._collection.name

    def reader(self) -> Reader:
        return self._collection._read()  # noqa: SLF001

    def writer(self) -> Reader:
        return self._collection._writable()  # noqa: SLF001

    def advance(self, table: Table) -> Reader:
        return self._collection._advance(table)  # noqa: SLF001


def _only_sparse(reader: Reader, using: str | None) -> str:
    names = list(reader.schema.sparse)
    if using is None and len(names) == 1:
        return names[0]
    if using is None or using not in names:
        raise UnknownNameError(
            f"{reader.where} has {len(names)} sparse vectors, and "
            + ("none was named" if using is None else f"none is {using!r}"),
            hint=did_you_mean(using or "", names, what="sparse vectors"),
        )
    return using


def _shown(with_payload: bool | Sequence[str] | None) -> Sequence[str] | None:  # noqa: FBT001
    return None if with_payload is None or with_payload is True else with_payload or []


def _one_of(ids: Any, filter: Any, verb: str) -> None:
    if (ids is None) == (filter is None):
        raise InvalidInputError(
            f"{verb} takes ids or a filter" + (", not both" if ids is not None else "; neither was given")
        )


def _ids_of(vector: Any) -> list[PointId] | None:
    if isinstance(vector, Id):
        return [vector.value]
    if isinstance(vector, list | tuple) and vector and all(isinstance(v, Id) for v in vector):
        return [v.value for v in vector]
    return None


def _by_ids(reader: Reader, ids: pa.Array | None) -> Selection:
    assert ids is not None
    if reader.schema.id_type is None or not len(ids):
        return Selection("false", None, "sql")
    conditions = list(reader.id_literals(ids))
    if len(conditions) == 1:
        return Selection(conditions[0], None, "sql")
    rows = np.concatenate([reader.table.row_ids(sql) for sql in conditions])
    return Selection(None, np.unique(rows), "sql+rows")


__all__ = ["Collection"]
