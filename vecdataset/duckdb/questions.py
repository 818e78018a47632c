"""The questions of SQL, asked of one version: arguments in, row ids and scores out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.duckdb.arguments import filter_of, json_of, limit_of, params_of
from vecdataset.duckdb.hits import Hits, unscored
from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.ids import fit_ids
from vecdataset.indexes import SearchParams
from vecdataset.ordering import Order
from vecdataset.pipeline import distances_of, run
from vecdataset.query import Query, nearest_points, query_vectors
from vecdataset.reader import EVERYTHING, Reader
from vecdataset.schema import Distance, VectorParams
from vecdataset.scroll import id_page, ordered_page
from vecdataset.sparse import SparseVector
from vecdataset.steps import Discover, Nearest, Ranker, Recommend, Step, check_strategy, pairs_of, parse_step

# ---------------------------------------------------------------------------- nearest


_EASY: Final = SearchParams()


def search_params(given: Any, *, exact: Any) -> SearchParams:
    """Return how hard to look, from `params :=` and `exact :=`."""
    if not isinstance(exact, bool | None):
        raise InvalidInputError(f"exact is {exact!r}; it must be true or false")
    params = _EASY if given is None else SearchParams.parse(params_of(given))
    return replace(params, exact=True) if exact else params


def vector_of(reader: Reader, using: str | None, *, sparse: bool) -> str:
    """Return the name of the vector that is asked."""
    if using is None and sparse and len(reader.schema.sparse) == 1:
        return next(iter(reader.schema.sparse))
    if using is not None and using in reader.schema.sparse:
        return using
    return reader.schema.vector(using)[0]


def nearest(
    reader: Reader,
    asked: Any,
    limit: int,
    filter: Any,
    using: str | None,
    params: SearchParams,
    *,
    along: Sequence[str] = (),
) -> tuple[list[Hits], pa.Table | None]:
    """Return the hits of each vector; one search for all of them where they are dense.

    Args:
        reader: The version.
        asked: Vectors, as `[n, size]` or as a list of what SQL has given.
        limit: Hits of each.
        filter: As collections take it.
        using: The vector's name.
        params: How hard to look.
        along: Columns to read with the search, where that costs next to nothing.

    Returns:
        Also a table of these columns, a row for each hit, or None.
    """
    sparse = len(asked) > 0 and isinstance(asked[0], dict | SparseVector)
    name = vector_of(reader, using, sparse=sparse)
    if name in reader.schema.sparse or reader.schema.vectors[name].multivector:
        hits = [
            ran(
                reader,
                Step(
                    rank=Nearest(vector=sparse_of(vector) if name in reader.schema.sparse else vector),
                    using=name,
                    filter=reader.parse(filter),
                    limit=limit,
                    params=params,
                ),
            )
            for vector in asked
        ]
        return hits, None
    declared = reader.schema.vectors[name]
    selection = EVERYTHING if filter is None else reader.select(filter)
    query = Query(vectors=_dense(asked, declared, name, reader.where), using=name, limit=limit, params=params)
    found, _, table = nearest_points(reader, query, selection, along)
    return [_scored(rows, distance, declared) for rows, distance in found], table


def _dense(asked: Any, declared: VectorParams, name: str, where: str) -> np.ndarray:
    if isinstance(asked, np.ndarray):
        one = asked[0] if asked.shape[1] != declared.size else asked  # the message shows one vector's shape
        return query_vectors(one, declared, name=name, where=where)
    # Vectors of several sizes, or something else: the first wrong one is named.
    return np.concatenate([query_vectors(v, declared, name=name, where=where) for v in asked])


def sparse_of(value: Any) -> Any:
    """Return a struct of indices and values as a sparse vector, anything else as it is."""
    return SparseVector.parse(value) if isinstance(value, dict) else value


def _scored(rows: np.ndarray, distance: np.ndarray, params: VectorParams) -> Hits:
    # As `Collection.search` does: the score is computed from the float32 distance.
    short = distance.astype(np.float32)
    if params.metric is Distance.COSINE:
        return rows, np.float32(1) - short, short
    return rows, (-short if params.metric is Distance.DOT else short), short


# ------------------------------------------------------------------------ other questions


def ran(reader: Reader, step: Step) -> Hits:
    """Return the hits of a step."""
    ranked = run(reader, step)
    return ranked.rows, ranked.scores, distances_of(reader, step, ranked)


def ask(
    reader: Reader,
    verb: str,
    one: Any,
    two: Any,
    three: Any,
    k: Any,
    filter: Any,
    using: str | None,
    params: Any,
) -> Hits | None:
    """Answer one question of another kind than `search`; None where it is NULL.

    Args:
        reader: The version.
        verb: The macro's name.
        one: Its first argument; the next two are the ones that it alone has.
        two: As `one`.
        three: As `one`.
        k: How many hits.
        filter: SQL text or JSON.
        using: The vector's name.
        params: How hard to look.
    """
    if one is None and verb != "scroll":
        return None
    if verb == "get":
        return _got(reader, one)
    if verb == "scroll":
        return _page(reader, start=one, order_by=two, limit=limit_of(k), filter=filter)
    if verb in ("text", "hybrid"):
        pinned = Collection(reader.table, name=reader.name, pinned=True)
        fixed = {"limit": limit_of(k), "filter": filter_of(filter)}
        if verb == "text":
            given = _options(three, _TEXT_OPTIONS)
            found = pinned.text(one, columns=two, with_payload=[], **fixed, **given)
        else:
            vector, text, sparse = (one.get(part) for part in ("vector", "text", "sparse"))
            if vector is None and text is None and sparse is None:
                return None
            given = _options(three, _HYBRID_OPTIONS)
            found = pinned.hybrid(
                vector, text=text, sparse=sparse_of(sparse), fusion=two or "rrf", using=using,
                params=params_of(params), columns=[], **fixed, **given,
            )  # fmt: skip
        return _found(reader, found.to_arrow())
    return ran(reader, _step(reader, verb, one, two, three, k, filter, using, params))


def grouped(
    reader: Reader,
    vector: Any,
    *,
    by: str,
    k: Any,
    group_size: Any,
    filter: Any,
    using: str | None,
    params: Any,
) -> tuple[Hits, list[str]]:
    """Return hits in groups, and the group of each as text; numbers and the like as JSON writes them."""
    pinned = Collection(reader.table, name=reader.name, pinned=True)
    sparse = isinstance(vector, dict)
    found = pinned.group(
        sparse_of(vector), by=by, limit=limit_of(k), group_size=3 if group_size is None else group_size,
        filter=filter_of(filter), using=vector_of(reader, using, sparse=sparse),
        params=params_of(params), columns=[],
    )  # fmt: skip
    return _found(reader, found.to_arrow()), texts([p["group"] for p in found.to_pylist()])


def texts(values: Sequence[Any]) -> list[str]:
    """Return payload values as text: text as it is, anything else as JSON writes it."""
    return [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=str) for v in values]


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


_TEXT_OPTIONS: Final = ("operator", "combine", "phrase", "slop", "fuzziness", "score_threshold")
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
    place = reader.rows_of(table["id"])
    rows = np.array([place[i] for i in table["id"].to_pylist()], np.uint64)
    return rows, table["score"].to_numpy(), table["_distance"].to_numpy()


def _page(reader: Reader, *, start: Any, order_by: str | None, limit: int, filter: Any) -> Hits:
    if reader.schema.id_type is None:
        return unscored(np.zeros(0, np.uint64))
    selection = reader.select(filter_of(filter))
    if order_by is not None:
        order = json_of(order_by, what="order_by") if order_by.lstrip().startswith("{") else order_by
        return unscored(ordered_page(reader, selection, Order.parse(order), limit=limit, skip=0)[0])
    if start is not None:
        start = fit_ids([start], reader.schema.id_type, where=reader.where)[0][0].as_py()
    rows = id_page(reader, selection, limit=limit, start=start, inclusive=start is not None)[0]
    return unscored(rows)


def _got(reader: Reader, ids: Any) -> Hits:
    ids = ids if isinstance(ids, list) else [ids]
    if reader.schema.id_type is None or not ids:
        return unscored(np.zeros(0, np.uint64))
    stored, _ = fit_ids(ids, reader.schema.id_type, where=reader.where)
    place = reader.rows_of(stored)
    rows = [place[i] for i in dict.fromkeys(stored.to_pylist()) if i in place]
    return unscored(np.array(rows, np.uint64))
