"""Nearest-neighbour search over a reader: plan, run, shape.

The plan is one of two. *Exact* compares the query with every selected vector, read as a
stream: below `full_scan_threshold` rows, where no index covers the vector, where a filter lets
few rows through, and where an index cannot give the right answer (an all-zero query, or a
zero vector among the hits, under Cosine). *Index* asks Lance's index, which also compares rows that it
does not cover yet, one by one. The filter comes before the search in both; if an index
returns fewer hits than match, the search is run again exactly.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.engine import LanceIndex
from vecdataset.errors import InvalidInputError, InvalidVectorError
from vecdataset.exact import Matrix, Nearest
from vecdataset.frames import ScoredPoints
from vecdataset.held import Held
from vecdataset.indexes import SearchParams, kinds
from vecdataset.reader import Reader, Selection
from vecdataset.schema import Distance, VectorParams, vector_column

MAX_LIMIT: Final = 100_000
EXACT_MATCHES: Final = 5_000
"""A filter that lets fewer rows through is answered by comparing with each of them."""
LANCE_METRIC: Final = {Distance.COSINE: "cosine", Distance.DOT: "dot", Distance.EUCLID: "l2"}
"""Lance's names of the distances that it knows."""
GRAPH: Final = "hnsw in memory"
"""The kind of a graph, for plans."""
_GRAPH_FLOATS: Final = 1 << 20
"""Floats in memory that are compared in about the time that a graph takes to answer."""
_GRAPH_SHARE: Final = 0.2
"""Share of the rows below which a graph would meet too many that a filter leaves out."""
_MEMORY_FLOATS: Final = 8 << 20
"""Floats in memory that are compared in about the time that an index takes to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A batch of nearest-neighbour questions that share everything but the vector."""

    vectors: np.ndarray
    """float32 `[n, size]`."""
    using: str
    """The vector's name."""
    limit: int = 10
    offset: int = 0
    filter: Any = None
    params: SearchParams = field(default_factory=SearchParams)
    columns: Sequence[str] | None = None
    with_vectors: bool | Sequence[str] = False
    score_threshold: float | None = None
    exclude: Sequence[int | str] | None = None
    """Stored id per query that is left out of its own answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a search ran; `print(plan)` shows it."""

    strategy: str
    """`exact` or `index`."""
    reason: str
    """Why."""
    index: str | None
    """The index that was asked."""
    kind: str | None
    """Its kind."""
    filter: str
    """How the filter ran: `none`, `sql`, `sql+rows` where some rows were decided outside of Lance, or
    `mask` over columns in memory."""
    matched: int | None
    """Rows that the filter lets through; None where nobody had to count."""
    rows_scanned: int
    """Vectors compared one by one."""
    rows: int
    """Points in the collection."""
    version: int
    """The version that was searched."""
    queries: int
    """How many questions were answered."""
    probe: Mapping[str, Any]
    """What the index was told."""
    in_memory: bool
    """Whether the vectors that were compared are held in memory; see `Collection.warm`."""
    elapsed_ms: float
    """Wall time of the whole search."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        exact = "exact, in memory" if self.in_memory else "exact scan"
        how = f"index {self.index} ({self.kind})" if self.index else exact
        lines = [
            f"{how}: {self.reason}",
            f"  filter   {self.filter}"
            + (f", {self.matched:,} rows match" if self.matched is not None else ""),
            f"  scanned  {self.rows_scanned:,} of {self.rows:,} rows one by one",
            f"  version  {self.version}, {self.queries} quer{'y' if self.queries == 1 else 'ies'}",
            f"  time     {self.elapsed_ms:.1f} ms",
        ]
        if self.probe:
            shown = ", ".join(f"{k}={v}" for k, v in self.probe.items() if v is not None)
            lines.insert(1, f"  probe    {shown}")
        return "\n".join(lines)


# ------------------------------------------------------------------------- running


def search(reader: Reader, query: Query, *, explain: bool = False) -> ScoredPoints:
    """Answer a batch of questions on one version.

    Returns:
        Columns `query_index` (int32), `id`, `score` and `_distance` (float32), then payload and
        vectors as asked; best first within each query.
    """
    started = time.perf_counter()
    params = reader.schema.vectors[query.using]
    _check_window(query)
    columns, keys = reader.output(query.columns, with_vectors=query.with_vectors)
    wanted = query.limit + query.offset + (1 if query.exclude is not None else 0)
    selection = reader.select(query.filter)
    plan = _plan(reader, query, params, selection)
    hits: pa.Table | None = None
    if plan.index is not None and not plan.in_memory:
        hits, plan = _through_index(reader, query, params, selection, wanted, ["id", *columns], plan)
    if hits is None:
        hits, plan = _exactly(reader, query, selection, wanted, columns, plan)
    table = _finish(hits, query, params)
    table = reader.shape(table, keys)
    if explain:
        plan = replace(plan, elapsed_ms=(time.perf_counter() - started) * 1e3)
    return ScoredPoints(
        table,
        plan=plan if explain else None,
        id_type=reader.schema.id_type,
        numbers=reader.numbers,
    )


def nearest_points(
    reader: Reader, query: Query, selection: Selection, columns: Sequence[str]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], Plan, pa.Table | None]:
    """Return the nearest `limit` rows of each query, for steps that score or fuse before payload is read.

    `offset`, `columns`, `exclude` and `score_threshold` of the query are the caller's business.

    Returns:
        Row ids and distances a query, nearest first; how they were found; and `columns` of the hits, in
        their order, where the index read them along: None where the rows were found by comparing, and
        would have to be taken.
    """
    params = reader.schema.vectors[query.using]
    plan = _plan(reader, query, params, selection)
    if plan.index is not None and not plan.in_memory:
        wanted = ["_rowid", *columns]
        hits, plan = _through_index(reader, query, params, selection, query.limit, wanted, plan)
        if hits is not None:
            rows, distance = hits["_rowid"].to_numpy(), hits["_distance"].to_numpy().astype(np.float64)
            found = [(rows, distance)]
            if len(query.vectors) != 1:
                ends = np.searchsorted(hits["query_index"].to_numpy(), np.arange(1, len(query.vectors)))
                found = list(zip(np.split(rows, ends), np.split(distance, ends), strict=True))
            return found, plan, hits.select(columns) if columns else None
    best, plan = _compared(reader, query, selection, query.limit, plan)
    return best.hits, plan, None


def _check_window(query: Query) -> None:
    for name, value, least in (("limit", query.limit, 1), ("offset", query.offset, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InvalidInputError(f"{name} is {value!r}; it must be an integer of at least {least}")
    if query.limit + query.offset > MAX_LIMIT:
        raise InvalidInputError(f"limit + offset is {query.limit + query.offset:,}; at most {MAX_LIMIT:,} go")


def query_vectors(vector: Any, params: VectorParams, *, name: str, where: str) -> np.ndarray:
    """Return query vectors as float32 `[n, size]`.

    Raises:
        InvalidVectorError: Wrong size or shape, not numbers, NaN or infinite.
    """
    label = repr(name or "vector")
    if isinstance(vector, pa.Array | pa.ChunkedArray):
        vector = (
            vector.to_pylist()
            if not pa.types.is_floating(vector.type)
            else vector.to_numpy(zero_copy_only=False)
        )
    try:
        array = np.asarray(vector)
    except ValueError:
        raise InvalidVectorError(
            f"the query vectors for {label} differ in size; {where} declares {params.size}"
        ) from None
    if array.dtype.kind not in "fiu":
        raise InvalidVectorError(
            f"the query for vector {label} is of type {type(vector).__name__}"
            + (f" with elements of {array.dtype}" if array.size else "")
            + f"; {where} searches with {params.size} numbers"
        )
    if array.ndim not in (1, 2) or array.shape[-1] != params.size:
        raise InvalidVectorError(
            f"the query for vector {label} has shape {list(array.shape)}; "
            f"{where} declares size {params.size}",
            hint="a point that is stored is asked for by Id(…)" if array.ndim == 0 else None,
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        out = np.ascontiguousarray(np.atleast_2d(array), dtype=np.float32)
    if not np.isfinite(out).all():
        raise InvalidVectorError(f"the query for vector {label} holds NaN or infinity")
    return out


# ------------------------------------------------------------------------ planning


def _plan(reader: Reader, query: Query, params: VectorParams, selection: Selection) -> Plan:
    index, reason = _usable_index(reader, query, params)
    matched: int | None = None
    if selection.rows is not None:
        matched = len(selection.rows)
    if index is not None and not selection.everything:
        matched = reader.count(selection)
        if matched < min(reader.full_scan_threshold, EXACT_MATCHES):
            index, reason = None, f"the filter lets {matched:,} rows through"
    name = None if index is None else index.name
    kind = None if index is None else _kind_of(reader, index)
    held = reader.held
    in_memory = held is not None and query.using in held.vectors
    if held is not None and in_memory:
        compared = reader.rows if matched is None else matched
        if _by_graph(reader, held, query, params, selection, compared):
            name, kind, reason = (
                f"{vector_column(query.using)}_graph",
                GRAPH,
                "a graph in memory knows the rows",
            )
            matched = compared if not selection.everything else None
        elif name is not None and compared * params.size <= _MEMORY_FLOATS:
            name = kind = None
            reason = f"{compared:,} rows in memory are compared as fast as an index answers"
    return Plan(
        strategy="exact" if name is None else "index",
        reason=reason,
        index=name,
        kind=kind,
        filter=selection.how,
        matched=matched,
        rows_scanned=0,
        rows=reader.rows,
        version=reader.table.version,
        queries=len(query.vectors),
        probe={},
        in_memory=in_memory and (name is None or kind == GRAPH),
        elapsed_ms=0.0,
    )


def _by_graph(
    reader: Reader, held: Held, query: Query, params: VectorParams, selection: Selection, compared: int
) -> bool:
    """Return whether a graph in memory is asked: rather than all rows, or an index on disk."""
    rest = held.without_graph(query.using)
    if rest is None or query.params.exact or not len(query.vectors):
        return False
    if reader.rows < reader.full_scan_threshold or compared * params.size <= _GRAPH_FLOATS:
        return False
    if selection.sql is not None or rest * params.size > _MEMORY_FLOATS:
        return False
    if params.metric is Distance.COSINE and not np.einsum("ij,ij->i", query.vectors, query.vectors).all():
        return False
    return compared >= _GRAPH_SHARE * reader.rows


def _kind_of(reader: Reader, index: LanceIndex) -> str:
    kind = reader.index_params(index.name).get("kind", index.kind)
    return kind if kind in kinds else "ivf_flat"


def _usable_index(reader: Reader, query: Query, params: VectorParams) -> tuple[LanceIndex | None, str]:
    if query.params.exact:
        return None, "exact was asked for"
    if not len(query.vectors):
        return None, "there are no queries"
    if reader.rows < reader.full_scan_threshold:
        return None, f"{reader.rows:,} rows are below full_scan_threshold {reader.full_scan_threshold:,}"
    column = vector_column(query.using)
    found = next((i for i in reader.table.indexes if i.column == column and i.kind.startswith("ivf")), None)
    if found is None:
        return None, "no index covers the vector; optimize() builds one"
    if params.metric is Distance.COSINE and not np.einsum("ij,ij->i", query.vectors, query.vectors).all():
        return None, "a zero query has no direction that an index could follow"
    return found, "an index covers the vector"


# ---------------------------------------------------------------------- via an index


def _through_index(
    reader: Reader,
    query: Query,
    params: VectorParams,
    selection: Selection,
    wanted: int,
    columns: list[str],
    plan: Plan,
) -> tuple[pa.Table | None, Plan]:
    """Ask the index; None where it cannot give the right answer, with the reason in the plan."""
    assert plan.index is not None
    assert plan.kind is not None
    available = plan.rows if plan.matched is None else plan.matched
    expected = min(wanted, available)
    if expected == 0:
        return None, replace(plan, index=None, kind=None, reason="nothing matches")
    probe = kinds.get(plan.kind).probe(
        k=expected,
        selectivity=1.0 if plan.matched is None else plan.matched / max(plan.rows, 1),
        built=reader.index_params(plan.index),
        params=query.params,
    )
    n = len(query.vectors)
    vectors = (
        pa.array(query.vectors[0])
        if n == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(query.vectors.reshape(-1)), params.size)
    )
    filter, allow = selection.sql, selection.rows
    if n > 1 and filter is not None:
        # Lance would answer the filter again for every query of the batch.
        filter, allow = None, np.sort(reader.table.row_ids(filter, indexed=selection.indexed))
    hits = reader.table.nearest(
        vector_column(query.using),
        vectors,
        k=expected,
        columns=[*(["query_index"] if n > 1 else []), "_distance", *columns],
        filter=filter,
        allow=allow,
        # Named, or Lance takes L2 once all indexed rows are gone and only new ones are left.
        probe={**probe, "metric": LANCE_METRIC[params.metric]},
    )
    distance = hits["_distance"].to_numpy()
    short = len(hits) < expected * n
    if short or (
        # A zero vector scores 0 under Cosine; Lance leaves it out, so it matters once a hit is worse.
        params.metric is Distance.COSINE
        and query.using in reader.zero_vectors
        and bool((distance >= 1.0).any())
    ):
        if short and _missing_vectors(reader, query, selection, len(hits), expected, n):
            return _shape_distance(hits, distance, params, n), replace(plan, probe=probe)
        reason = "the index returned fewer hits than match" if short else "zero vectors are among the hits"
        return None, replace(plan, index=None, kind=None, reason=reason)
    return _shape_distance(hits, distance, params, n), replace(plan, probe=probe)


def _missing_vectors(
    reader: Reader, query: Query, selection: Selection, found: int, expected: int, n: int
) -> bool:
    """Return whether the hits are few only because matching points lack the vector."""
    if selection.rows is not None:
        return False
    present = f"{vector_column(query.using)} IS NOT NULL"
    sql = present if selection.sql is None else f"({selection.sql}) AND {present}"
    return found == min(expected, reader.table.count(sql)) * n


def _shape_distance(hits: pa.Table, distance: np.ndarray, params: VectorParams, n: int) -> pa.Table:
    """Return hits with `_distance` as this library means it."""
    if params.metric is Distance.EUCLID:
        distance = np.sqrt(np.maximum(distance, 0))  # Lance's L2 is squared.
    elif params.metric is Distance.DOT:
        distance = distance - np.float32(1)  # Lance's dot is 1 − q·x.
    hits = hits.set_column(hits.column_names.index("_distance"), "_distance", pa.array(distance))
    if n == 1:
        hits = hits.add_column(0, "query_index", pa.array(np.zeros(len(hits), np.int32)))
    return hits


# ------------------------------------------------------------------------- exactly


def _exactly(
    reader: Reader,
    query: Query,
    selection: Selection,
    wanted: int,
    columns: list[str],
    plan: Plan,
) -> tuple[pa.Table, Plan]:
    best, plan = _compared(reader, query, selection, wanted, plan)
    row_ids = np.concatenate([rows for rows, _ in best.hits]) if best.hits else np.zeros(0, np.uint64)
    distances = np.concatenate([d for _, d in best.hits]) if best.hits else np.zeros(0, np.float32)
    index = np.repeat(np.arange(len(best.hits), dtype=np.int32), [len(r) for r, _ in best.hits])
    taken = reader.take(row_ids, ["id", *columns])
    with np.errstate(over="ignore"):
        distances = distances.astype(np.float32)
    hits = taken.add_column(1, "_distance", pa.array(distances))
    hits = hits.add_column(0, "query_index", pa.array(index))
    return hits, plan


def _compared(reader: Reader, query: Query, selection: Selection, k: int, plan: Plan) -> tuple[Nearest, Plan]:
    """Return the nearest among the rows that a graph in memory proposes, or else among all."""
    if plan.index is not None and plan.in_memory:
        found = _through_graph(reader, query, selection, k, plan)
        if found is not None:
            return found, replace(plan, rows_scanned=found.scanned)
        plan = replace(plan, reason="the graph found fewer hits than match")
    best = nearest_exact(reader, query.using, query.vectors, selection, k)
    return best, replace(plan, strategy="exact", index=None, kind=None, rows_scanned=best.scanned)


def _through_graph(reader: Reader, query: Query, selection: Selection, k: int, plan: Plan) -> Nearest | None:
    memory = reader.in_memory(query.using, selection)
    if memory is None:
        return None
    held, places = memory
    params = reader.schema.vectors[query.using]
    share = 1.0 if plan.matched is None else plan.matched / max(1, plan.rows)
    nearest = Nearest(params.metric, query.vectors, k)
    there = held.compare_near(nearest, query.using, places, ef=query.params.ef, share=share)
    for rows, distances in nearest.hits:
        if len(rows) < min(k, there):
            return None
        # A graph knows no direction of a zero vector, which is at distance 1 under Cosine.
        if params.metric is Distance.COSINE and query.using in reader.zero_vectors and (distances >= 1).any():
            return None
    return nearest


def nearest_exact(reader: Reader, using: str, vectors: np.ndarray, selection: Selection, k: int) -> Nearest:
    """Return the `k` nearest selected rows of each query, by comparing with all of them.

    In memory where the vector is held. Else reads the column as a stream: memory is bounded by a few
    batches and `k` rows a query.
    Distances of the hits are computed in float64 from the stored values.
    """
    nearest = Nearest(reader.schema.vectors[using].metric, vectors, k)
    if k <= 0:
        return nearest
    memory = reader.in_memory(using, selection)
    if memory is not None:
        held, places = memory
        held.compare(nearest, using, places)
        return nearest
    for rows, matrix in reader.matrices(using, selection):
        nearest.offer(rows, Matrix(matrix))
    return nearest


# ------------------------------------------------------------------------ finishing


def _finish(hits: pa.Table, query: Query, params: VectorParams) -> pa.Table:
    """Return hits in order with `score`, without what offset, limit and threshold leave out."""
    names = [n for n in hits.column_names if n not in ("query_index", "id", "_distance")]
    distance = hits["_distance"].to_numpy()
    if params.metric is Distance.COSINE:
        score = np.float32(1) - distance
    elif params.metric is Distance.DOT:
        score = -distance
    else:
        score = distance
    columns = [hits["query_index"], hits["id"], pa.array(score), hits["_distance"], *(hits[n] for n in names)]
    out = pa.Table.from_arrays(columns, names=["query_index", "id", "score", "_distance", *names])
    if query.exclude is None and not query.offset and query.score_threshold is None:
        return out
    keep = np.ones(len(out), bool)
    index = out["query_index"].to_numpy()
    if query.exclude is not None:
        ids = out["id"].to_pylist()
        keep &= np.fromiter((ids[r] != query.exclude[index[r]] for r in range(len(out))), bool, len(out))
    if query.score_threshold is not None:
        keep &= (
            score >= query.score_threshold
            if params.metric.higher_is_better
            else score <= query.score_threshold
        )
    # Rank within its query among what is kept: offset and limit count those.
    starts = np.searchsorted(index, np.arange(len(query.vectors)))
    before = np.concatenate([[0], np.cumsum(keep)])
    rank = before[1:] - 1 - before[starts[index]] if len(out) else np.zeros(0, int)
    keep &= (rank >= query.offset) & (rank < query.offset + query.limit)
    return out.filter(pa.array(keep))
