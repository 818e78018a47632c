"""One search over several collections, merged by score."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.errors import InvalidInputError
from vecdataset.frames import ScoredPoints, labelled
from vecdataset.ids import Id
from vecdataset.indexes import SearchParams
from vecdataset.pipeline import StepPlan
from vecdataset.query import Plan
from vecdataset.schema import Distance, IdType
from vecdataset.steps import count_of


def search_all(
    collections: Sequence[Collection],
    vector: Any,
    *,
    limit: int = 10,
    offset: int = 0,
    using: str | None = None,
    filter: Any = None,
    params: SearchParams | Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    with_vectors: bool | Sequence[str] = False,
    score_threshold: float | None = None,
    exact: bool = False,
    explain: bool = False,
) -> ScoredPoints:
    """Search several collections and return the best points of all, best first.

    Args:
        collections: Collections whose vectors are of one distance, size and meaning.
        vector: As for `Collection.search`, without `Id`s.
        limit: Hits a query, of all collections together.
        offset: Hits to leave out first.
        using: The vector's name, in every collection.
        filter: As for `Collection.search`.
        params: As for `Collection.search`.
        columns: Payload columns, of every collection; None is all of each.
        with_vectors: True, or names of vectors.
        score_threshold: Leave out worse scores.
        exact: Compare with every vector that the filter lets through.
        explain: Put how each collection was searched into `.plan`.

    Returns:
        As `Collection.search`, with the name of the point's collection in `collection` after
        `query_index`. Hits of one score keep the order of the collections.

    Raises:
        InvalidInputError: The distances differ, or columns of one name have types that do not go together.
    """
    started = time.perf_counter()
    collections = list(collections)
    if not collections or not all(isinstance(c, Collection) for c in collections):
        raise InvalidInputError("search_all takes a list of collections, at least one")
    if isinstance(vector, Id) or (
        isinstance(vector, list | tuple) and any(isinstance(v, Id) for v in vector)
    ):
        raise InvalidInputError(
            "an Id names a point of one collection; search_all takes vectors",
            hint="collection.get(id, with_vectors=True) returns its vector",
        )
    window = count_of(limit, "limit", least=1) + count_of(offset, "offset", least=0)
    names = [c.name for c in collections]
    names = [c.name if names.count(c.name) == 1 else c.url for c in collections]
    metrics = [_metric(c, using) for c in collections]
    if len(set(metrics)) > 1:
        shown = ", ".join(f"{name} {metric}" for name, metric in zip(names, metrics, strict=True))
        raise InvalidInputError(f"scores of different distances do not compare: {shown}")
    found = [
        c.search(
            vector, limit=window, using=using, filter=filter, params=params, columns=columns,
            with_vectors=with_vectors, score_threshold=score_threshold, exact=exact, explain=explain,
        )
        for c in collections
    ]  # fmt: skip
    merged = _merged(found, names, limit=limit, offset=offset)
    if not explain:
        return merged
    plans = tuple(_plan(f, name) for f, name in zip(found, names, strict=True))
    merged.plan = StepPlan(
        kind="search_all",
        how=f"{len(plans)} collections merged by score",
        filter="none",
        candidates=None,
        returned=len(merged),
        elapsed_ms=(time.perf_counter() - started) * 1e3,
        children=plans,
    )
    return merged


def _metric(collection: Collection, using: str | None) -> Distance:
    schema = collection.schema
    if schema.sparse and (using in schema.sparse or (using is None and not schema.vectors)):
        return Distance.DOT
    return schema.vector(using)[1].metric


def _plan(found: ScoredPoints, name: str) -> StepPlan:
    plan = found.plan
    if isinstance(plan, Plan):
        how = f"index {plan.index} ({plan.kind})" if plan.index else f"exact, {plan.reason}"
        plan = StepPlan(
            kind="nearest",
            how=how,
            filter=plan.filter,
            candidates=None if plan.index else plan.rows_scanned,
            returned=len(found),
            elapsed_ms=plan.elapsed_ms,
        )
    assert isinstance(plan, StepPlan)
    return replace(plan, kind=f"{plan.kind} in {name}")


def _merged(found: Sequence[ScoredPoints], names: Sequence[str], *, limit: int, offset: int) -> ScoredPoints:
    parts = [
        (labelled(f.to_arrow(), "collection", pa.array([name] * len(f), pa.string()), numbers=f.numbers), f)
        for f, name in zip(found, names, strict=True)
    ]
    filled = [(table, f) for table, f in parts if len(table)] or parts[:1]
    tables, id_type = _one_id_type([t for t, _ in filled], [f.id_type for _, f in filled])
    table = _concatenated(tables, [t["collection"][0].as_py() if len(t) else "" for t in tables])
    index, distance = table["query_index"].to_numpy(), table["_distance"].to_numpy()
    order = np.lexsort((np.arange(len(table)), distance, index))
    index = index[order]
    rank = np.arange(len(order)) - np.searchsorted(index, index)
    order = order[(rank >= offset) & (rank < offset + limit)]
    return ScoredPoints(
        table.take(pa.array(order)),
        labels=["collection"],
        id_type=id_type,
        numbers=frozenset().union(*(f.numbers for _, f in filled)) - {"collection"},
    )


def _one_id_type(
    tables: list[pa.Table], id_types: list[IdType | None]
) -> tuple[list[pa.Table], IdType | None]:
    """Return tables whose ids are of one type: mixed where integers meet UUIDs, else text."""
    if len(set(id_types)) == 1:
        return tables, id_types[0]
    at = [t.column_names.index("id") for t in tables]
    as_text = [t.set_column(i, "id", t["id"].cast(pa.string())) for t, i in zip(tables, at, strict=True)]
    return as_text, "string" if "string" in id_types else "mixed"


def _concatenated(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    types: dict[str, tuple[pa.DataType, str]] = {}
    for table, name in zip(tables, names, strict=True):
        for f in table.schema:
            kind, first = types.setdefault(f.name, (f.type, name))
            if kind != f.type and not (_is_number(kind) and _is_number(f.type)):
                raise InvalidInputError(
                    f"column {f.name!r} is {kind} in collection {first!r} and {f.type} in {name!r}",
                    hint="choose others with columns=[…]",
                )
    return pa.concat_tables(tables, promote_options="permissive")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


__all__ = ["search_all"]
