"""What the SQL functions answer: hits as references first, ids and payload when a statement uses them.

A hit is `(_rank, ref, score, _distance)`, where `ref` holds the version that was searched and the row
in it; further functions turn references into ids and payload. DuckDB drops those whose columns
are not used. Every function takes a whole chunk, up to 2,048 rows, and asks a collection once
for all the rows that share their options.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.duckdb.arguments import (
    filter_of,
    frozen,
    groups,
    json_of,
    limit_of,
    params_of,
    plain,
    values,
    vector_rows,
)
from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.ids import fit_ids
from vecdataset.indexes import SearchParams
from vecdataset.pipeline import distances_of, run
from vecdataset.query import Query, nearest_rows, query_vectors
from vecdataset.reader import EVERYTHING, Reader
from vecdataset.schema import EXTRA, Distance, VectorParams
from vecdataset.scroll import id_page, ordered_page
from vecdataset.spaces import lookup
from vecdataset.sparse import SparseVector
from vecdataset.steps import (
    Discover,
    Nearest,
    Ranker,
    Recommend,
    Step,
    check_strategy,
    pairs_of,
    parse_step,
)

REF: Final = "STRUCT(version UBIGINT, batch UBIGINT, row UBIGINT)"
HITS: Final = f"STRUCT(_rank INTEGER, ref {REF}, score FLOAT, _distance FLOAT)[]"
_READERS: Final = 64
_BATCHES: Final = 16
_CHUNK_ROWS: Final = 2_048
_SHARED_ROWS: Final = 16_384
_SHARED_BYTES: Final = 64 << 20

Hits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row ids, scores and distances of one query, best first."""


class Batch:
    """The distinct rows that a search for a whole chunk of queries found.

    DuckDB asks for the payload of 2,048 hits at a time; all the rows are read with the first of them.
    """

    def __init__(self, rows: np.ndarray, hits: int) -> None:
        """Take the rows, and how many hits refer to them."""
        self.rows = np.unique(rows)
        self._hits = hits
        self._served: dict[tuple[str, ...], int] = {}
        self._tables: dict[tuple[str, ...], pa.Table | None] = {}
        self._lock = Lock()

    def take(
        self, rows: np.ndarray, names: tuple[str, ...], read: Callable[[np.ndarray], pa.Table]
    ) -> pa.Table:
        """Return columns of some rows; `read` fetches those of all of them, once."""
        with self._lock:
            if names not in self._tables:
                table = read(self.rows)
                self._tables[names] = table if table.nbytes <= _SHARED_BYTES else None
            else:
                table = self._tables[names]
            self._served[names] = self._served.get(names, 0) + len(rows)
            if self._served[names] >= self._hits:
                self._tables[names] = None
        if table is None:
            return read(rows)
        return table.take(pa.array(np.searchsorted(self.rows, rows)))


class Answers:
    """Hits, ids and payload of the collections that one attachment shows."""

    def __init__(self, collection: Callable[[str], Collection]) -> None:
        """Take the function that finds a collection by name."""
        self._collection = collection
        self._readers: OrderedDict[tuple[str, int], Reader] = OrderedDict()
        self._batches: OrderedDict[int, Batch] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = Lock()

    # -- versions

    def reader(self, name: str) -> Reader:
        """Return the newest version of a collection, kept for the references that hits will bring."""
        reader = self._collection(name)._read()  # noqa: SLF001 - one layer down, and no wider door is needed
        self._keep(name, reader)
        return reader

    def _keep(self, name: str, reader: Reader) -> None:
        with self._lock:
            self._readers[name, reader.table.version] = reader
            self._readers.move_to_end((name, reader.table.version))
            while len(self._readers) > _READERS:
                self._readers.popitem(last=False)

    def _reader_at(self, name: str, version: int) -> Reader:
        with self._lock:
            found = self._readers.get((name, version))
        if found is None:
            found = self._collection(name).at(version)._read()  # noqa: SLF001
            self._keep(name, found)
        return found

    def _shared(self, answers: Sequence[Hits]) -> int:
        """Return the number of a batch for the rows of many hits; 0 where sharing would gain nothing."""
        hits = sum(len(rows) for rows, *_ in answers)
        if hits <= _CHUNK_ROWS:
            return 0
        batch = Batch(np.concatenate([rows for rows, *_ in answers]), hits)
        if len(batch.rows) > _SHARED_ROWS:
            return 0
        number = next(self._numbers)
        with self._lock:
            self._batches[number] = batch
            while len(self._batches) > _BATCHES:
                self._batches.popitem(last=False)
        return number

    # -- hits

    def search(
        self,
        collection: pa.ChunkedArray,
        query: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        exact: pa.ChunkedArray,
    ) -> pa.Array:
        """Return hits for a chunk of query vectors: one search for each group of equal options."""
        found = vector_rows(query)
        vectors: np.ndarray | None = None
        if found is None:
            given = values(query)
            rows = np.array([i for i, v in enumerate(given) if v is not None], np.int64)
        else:
            rows, vectors = found
            given = []
        options = [values(c) for c in (collection, k, filter, using, params, exact)]
        keys: list[Hashable] = [tuple(map(frozen, row)) for row in zip(*options, strict=True)]
        at = {int(row): i for i, row in enumerate(rows)}
        hits: list[Hits | None] = [None] * len(collection)
        versions, batches = np.zeros((2, len(collection)), np.uint64)
        for members in groups(map(int, rows), keys).values():
            name, k_, filter_, using_, params_, exact_ = (option[members[0]] for option in options)
            reader = self.reader(name)
            versions[members] = reader.table.version
            asked = (
                [given[row] for row in members] if vectors is None else vectors[[at[row] for row in members]]
            )
            answers = _nearest(
                reader, asked, limit_of(k_), filter_of(filter_), using_, _params(params_, exact=exact_)
            )
            batches[members] = self._shared(answers)
            for row, answer in zip(members, answers, strict=True):
                hits[row] = answer
        return _hits(hits, versions, batches)

    def search_by_id(
        self,
        collection: pa.ChunkedArray,
        id: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        exact: pa.ChunkedArray,
    ) -> pa.Array:
        """Return the points near stored points; a point is no hit of its own search."""
        ids = values(id)
        options = [values(c) for c in (collection, k, filter, using, params, exact)]
        keys: list[Hashable] = [tuple(map(frozen, row)) for row in zip(*options, strict=True)]
        hits: list[Hits | None] = [None] * len(collection)
        versions, batches = np.zeros((2, len(collection)), np.uint64)
        asked = [i for i, v in enumerate(ids) if v is not None]
        for members in groups(asked, keys).values():
            name, k_, filter_, using_, params_, exact_ = (option[members[0]] for option in options)
            reader = self.reader(name)
            versions[members] = reader.table.version
            using_ = _using(reader, using_, sparse=False)
            vectors, own = lookup(reader, using_, [ids[row] for row in members])
            answers = _nearest(
                reader,
                vectors,
                limit_of(k_) + 1,
                filter_of(filter_),
                using_,
                _params(params_, exact=exact_),
            )
            batches[members] = self._shared(answers)
            for row, mine, (rows, scores, distances) in zip(members, own, answers, strict=True):
                keep = rows != mine
                hits[row] = tuple(part[keep][: limit_of(k_)] for part in (rows, scores, distances))
        return _hits(hits, versions, batches)

    def ranked(
        self,
        verb: pa.ChunkedArray,
        collection: pa.ChunkedArray,
        first: pa.ChunkedArray,
        second: pa.ChunkedArray,
        third: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
    ) -> pa.Array:
        """Return hits of the other questions, one row after the other."""
        columns = [values(c) for c in (verb, collection, first, second, third, k, filter, using, params)]
        hits: list[Hits | None] = []
        versions = np.zeros(len(collection), np.uint64)
        for at, row in enumerate(zip(*columns, strict=True)):
            verb_, name, one, two, three, k_, filter_, using_, params_ = row
            if one is None and verb_ != "scroll":
                hits.append(None)
                continue
            reader = self.reader(name)
            versions[at] = reader.table.version
            if verb_ == "get":
                hits.append(_got(reader, one))
            elif verb_ == "scroll":
                hits.append(_page(reader, start=one, order_by=two, limit=limit_of(k_), filter=filter_))
            elif verb_ in ("text", "hybrid"):
                pinned = self._collection(name).at(reader.table.version)
                fixed = {"limit": limit_of(k_), "filter": filter_of(filter_)}
                if verb_ == "text":
                    given = _options(three, _TEXT_OPTIONS)
                    found = pinned.text(one, columns=two, with_payload=[], **fixed, **given)
                else:
                    vector, text, sparse = (one.get(part) for part in ("vector", "text", "sparse"))
                    if vector is None and text is None and sparse is None:
                        hits.append(None)
                        continue
                    given = _options(three, _HYBRID_OPTIONS)
                    found = pinned.hybrid(
                        vector, text=text, sparse=_sparse(sparse), fusion=two or "rrf", using=using_,
                        params=params_of(params_), columns=[], **fixed, **given,
                    )  # fmt: skip
                hits.append(_found(reader, found.to_arrow()))
            else:
                step = _step(reader, verb_, one, two, three, k_, filter_, using_, params_)
                hits.append(_ran(reader, step))
        return _hits(hits, versions, np.zeros(len(hits), np.uint64))

    # -- what hits refer to

    def ids(self, name: str, kind: pa.DataType, ref: pa.ChunkedArray) -> pa.Array:
        """Return the ids of hits."""
        return self._taken(name, pa.schema([("id", kind)]), ref).field("id")

    def payload(self, name: str, schema: pa.Schema, ref: pa.ChunkedArray) -> pa.StructArray:
        """Return columns of hits: NULL where the version that was searched has no such column."""
        return self._taken(name, schema, ref)

    def _taken(self, name: str, schema: pa.Schema, ref: pa.ChunkedArray) -> pa.StructArray:
        array = ref.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        version, number, rows = (array.field(n).fill_null(0).to_numpy() for n in ("version", "batch", "row"))
        parts, order = [], []
        for pair in np.unique(np.stack([version[valid], number[valid]]), axis=1).T:
            members = np.flatnonzero(valid & (version == pair[0]) & (number == pair[1]))
            reader = self._reader_at(name, int(pair[0]))

            def read(wanted: np.ndarray, reader: Reader = reader) -> pa.Table:
                there = [c for c in schema.names if c in reader.table.schema.names]
                return conform(reader.take(wanted, there), schema, where=reader.where)

            with self._lock:
                batch = self._batches.get(int(pair[1]))
            if batch is None:
                parts.append(read(rows[members]))
            else:
                parts.append(batch.take(rows[members], tuple(schema.names), read))
            order.append(members)
        if not parts:
            return pa.nulls(len(array), pa.struct(list(schema)))
        back = np.full(len(array), -1, np.int64)
        back[np.concatenate(order)] = np.arange(int(valid.sum()))
        joined = pa.concat_tables(parts).combine_chunks()
        if not np.array_equal(back, np.arange(len(array))):
            joined = joined.take(pa.array(back, mask=~valid)).combine_chunks()
        columns = [_one(joined[c]) for c in schema.names]
        return pa.StructArray.from_arrays(columns, fields=list(schema))


def _one(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def conform(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Return the columns of `schema`, cast; NULL where the table lacks one.

    Raises:
        InvalidInputError: A column has another type by now, and does not fit the one declared.
    """
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(len(table), field.type)]))
            continue
        column = table[field.name]
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
                raise InvalidInputError(
                    f"column {field.name!r} of {where} is {column.type} by now; it was {field.type}: {exc}",
                    hint="call refresh() of the attached catalog: SELECT vec.refresh()",
                ) from exc
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


# ---------------------------------------------------------------------------- nearest


def _params(given: Any, *, exact: Any) -> SearchParams:
    params = SearchParams.parse(params_of(given))
    if not isinstance(exact, bool | None):
        raise InvalidInputError(f"exact is {exact!r}; it must be true or false")
    return replace(params, exact=True) if exact else params


def _using(reader: Reader, using: str | None, *, sparse: bool) -> str:
    if using is None and sparse and len(reader.schema.sparse) == 1:
        return next(iter(reader.schema.sparse))
    if using is not None and using in reader.schema.sparse:
        return using
    return reader.schema.vector(using)[0]


def _nearest(
    reader: Reader, asked: Any, limit: int, filter: Any, using: str | None, params: SearchParams
) -> list[Hits]:
    """Return the hits of each vector; one search for all of them where they are dense."""
    sparse = len(asked) > 0 and isinstance(asked[0], dict | SparseVector)
    name = _using(reader, using, sparse=sparse)
    if name in reader.schema.sparse or reader.schema.vectors[name].multivector:
        return [
            _ran(
                reader,
                Step(
                    rank=Nearest(vector=_sparse(vector) if name in reader.schema.sparse else vector),
                    using=name,
                    filter=reader.parse(filter),
                    limit=limit,
                    params=params,
                ),
            )
            for vector in asked
        ]
    declared = reader.schema.vectors[name]
    selection = EVERYTHING if filter is None else reader.select(filter)
    query = Query(vectors=_dense(asked, declared, name, reader.where), using=name, limit=limit, params=params)
    found, _ = nearest_rows(reader, query, selection)
    return [_scored(rows, distance, declared) for rows, distance in found]


def _dense(asked: Any, declared: VectorParams, name: str, where: str) -> np.ndarray:
    if isinstance(asked, np.ndarray):
        one = asked[0] if asked.shape[1] != declared.size else asked  # the message shows one vector's shape
        return query_vectors(one, declared, name=name, where=where)
    # Vectors of several sizes, or something else: the first wrong one is named.
    return np.concatenate([query_vectors(v, declared, name=name, where=where) for v in asked])


def _sparse(value: Any) -> Any:
    return SparseVector.parse(value) if isinstance(value, dict) else value


def _scored(rows: np.ndarray, distance: np.ndarray, params: VectorParams) -> Hits:
    # As `Collection.search` does: the score is computed from the float32 distance.
    short = distance.astype(np.float32)
    if params.metric is Distance.COSINE:
        return rows, np.float32(1) - short, short
    return rows, (-short if params.metric is Distance.DOT else short), short


# ------------------------------------------------------------------------ other questions


def _ran(reader: Reader, step: Step) -> Hits:
    ranked = run(reader, step)
    return ranked.rows, ranked.scores, distances_of(reader, step, ranked)


def _step(
    reader: Reader,
    verb: str,
    one: Any,
    two: Any,
    three: Any,
    k: Any,
    filter: Any,
    using: str | None,
    params: Any,
) -> Step:
    options = {
        "using": using,
        "filter": filter_of(filter),
        "limit": limit_of(k),
        "params": params_of(params),
    }
    if verb == "query":
        return _general(reader, json_of(one, what="query"), options)
    rank: Ranker
    if verb == "recommend":
        rank = Recommend(
            positive=_examples(one),
            negative=_examples(two),
            strategy=check_strategy(three or "average_vector"),
        )
    elif verb == "discover":
        rank = Discover(target=one, pairs=pairs_of(json_of(two, what="context") or ()))
    else:
        rank = Discover(pairs=pairs_of(json_of(one, what="context")))
    return parse_step(rank, reader, qdrant=False, **options)


_QUERY_KEYS: Final = ("query", "prefetch", "using", "filter", "limit", "offset", "params", "score_threshold")


def _general(reader: Reader, spec: Any, options: dict[str, Any]) -> Step:
    if not isinstance(spec, dict):
        raise InvalidInputError(
            f"the query is {spec!r}; it must be a JSON object", hint="""'{"query": …, "prefetch": […]}'"""
        )
    for key in spec:
        if key not in _QUERY_KEYS:
            raise UnknownNameError(
                f"query key {key!r} is not known", hint=did_you_mean(key, _QUERY_KEYS, what="keys")
            )
    given = {k: v for k, v in spec.items() if k not in ("query", "prefetch")}
    return parse_step(
        spec.get("query"), reader, qdrant=False, prefetch=spec.get("prefetch"), **{**options, **given}
    )


def _examples(items: Any) -> list[Any]:
    """Return examples; one id, or one vector of floats, is a list of one."""
    items = json_of(items, what="examples") if isinstance(items, str) and items[:1] == "[" else items
    if items is None:
        return []
    if not isinstance(items, list):
        return [items]
    return [items] if items and all(isinstance(v, float) for v in items) else items


_TEXT_OPTIONS: Final = ("operator", "phrase", "fuzziness", "score_threshold")
_HYBRID_OPTIONS: Final = (
    "candidates",
    "weights",
    "alpha",
    "k",
    "sparse_using",
    "text_columns",
    "score_threshold",
)


def _options(given: Any, known: Sequence[str]) -> dict[str, Any]:
    """Return further options, given as JSON or a struct."""
    options = params_of(given) or {}
    for name in options:
        if name not in known:
            raise UnknownNameError(
                f"option {name!r} is not known", hint=did_you_mean(name, known, what="options")
            )
    return dict(options)


def _found(reader: Reader, table: pa.Table) -> Hits:
    """Return hits that are known by id as row ids of the same version."""
    place = _places(reader, table["id"])
    rows = np.array([place[i] for i in table["id"].to_pylist()], np.uint64)
    return rows, table["score"].to_numpy(), table["_distance"].to_numpy()


def _places(reader: Reader, stored: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
    place: dict[Any, int] = {}
    if len(stored):
        for sql in reader.id_literals(stored):
            found = reader.table.read(["id", "_rowid"], filter=sql)
            place.update(zip(found["id"].to_pylist(), found["_rowid"].to_pylist(), strict=True))
    return place


def _page(reader: Reader, *, start: Any, order_by: str | None, limit: int, filter: Any) -> Hits:
    if reader.schema.id_type is None:
        return _unscored(np.zeros(0, np.uint64))
    selection = reader.select(filter_of(filter))
    if order_by is not None:
        order = json_of(order_by, what="order_by") if order_by.lstrip().startswith("{") else order_by
        return _unscored(ordered_page(reader, selection, order, limit=limit, skip=0)[0])
    if start is not None:
        start = fit_ids([start], reader.schema.id_type, where=reader.where)[0][0].as_py()
    rows = id_page(reader, selection, limit=limit, start=start, inclusive=start is not None)[0]
    return _unscored(rows)


def _got(reader: Reader, ids: Any) -> Hits:
    ids = ids if isinstance(ids, list) else [ids]
    if reader.schema.id_type is None or not ids:
        return _unscored(np.zeros(0, np.uint64))
    stored, _ = fit_ids(ids, reader.schema.id_type, where=reader.where)
    place = _places(reader, stored)
    rows = [place[i] for i in dict.fromkeys(stored.to_pylist()) if i in place]
    return _unscored(np.array(rows, np.uint64))


def _unscored(rows: np.ndarray) -> Hits:
    return rows, np.zeros(len(rows)), np.zeros(len(rows))


# ---------------------------------------------------------------------------- as Arrow


def _hits(hits: Sequence[Hits | None], versions: np.ndarray, batches: np.ndarray) -> pa.Array:
    counts = np.array([0 if h is None else len(h[0]) for h in hits], np.int64)
    present = [h for h in hits if h is not None]

    def joined(at: int, kind: Any) -> np.ndarray:
        return np.concatenate([np.zeros(0, kind), *(h[at].astype(kind, copy=False) for h in present)])

    starts = np.concatenate([[0], np.cumsum(counts)])
    rank = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    ref = pa.StructArray.from_arrays(
        [
            pa.array(np.repeat(versions, counts)),
            pa.array(np.repeat(batches, counts)),
            pa.array(joined(0, np.uint64)),
        ],
        ["version", "batch", "row"],
    )
    rows = pa.StructArray.from_arrays(
        [
            pa.array((rank + 1).astype(np.int32)),
            ref,
            pa.array(joined(1, np.float32)),
            pa.array(joined(2, np.float32)),
        ],
        ["_rank", "ref", "score", "_distance"],
    )
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), rows)


def payload_schema(reader: Reader) -> pa.Schema:
    """Return the payload columns of a version as DuckDB can take them."""
    fields = [pa.field(c.name, taken_as(c.type)) for c in reader.schema.payload.values()]
    if reader.extra_keys:
        fields.append(pa.field(EXTRA, pa.string()))
    return pa.schema(fields)


def taken_as(kind: pa.DataType) -> pa.DataType:
    """Return the type that DuckDB gets for a stored one: it has no float16 and no dictionaries here."""
    if kind == pa.float16():
        return pa.float32()
    if pa.types.is_dictionary(kind):
        return taken_as(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(taken_as(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(taken_as(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(taken_as(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, taken_as(f.type)) for f in kind])
    return kind


__all__ = ["HITS", "REF", "Answers", "conform", "payload_schema", "plain", "taken_as"]
