"""Running the tree of a query: every step answers with row ids and scores, best first.

Steps under a fusion or a formula are answered first, and what they found is ranked again;
payload is fetched once, for the points of the root. The tree itself is in `steps.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset import scoring
from vecdataset.errors import InvalidInputError, InvalidVectorError
from vecdataset.filters import Filter
from vecdataset.formula import evaluate
from vecdataset.frames import ScoredPoints
from vecdataset.fusion import fuse
from vecdataset.ids import Id
from vecdataset.ordering import Order, ordered_rows
from vecdataset.reader import Reader, Selection
from vecdataset.schema import Distance
from vecdataset.scroll import id_page
from vecdataset.spaces import Space, best_rows, lookup, space
from vecdataset.steps import (
    Discover,
    Formula,
    Fusion,
    Nearest,
    Ranker,
    Recommend,
    Sample,
    Step,
    Text,
)
from vecdataset.text import text_plan, text_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """How one step of a query ran, and the steps below it; `print(plan)` shows the tree."""

    kind: str
    """`nearest`, `recommend best_score`, `fusion rrf` …"""
    how: str
    """The index that was asked, or why every row was compared."""
    filter: str
    """How the filter ran: `none`, `sql`, `sql+rows` where some rows were decided one by one, or
    `prefetch` where the rows that the steps below found were ranked again."""
    candidates: int | None
    """Rows that were compared; None where an index chose them."""
    returned: int
    """Rows that the step gave."""
    elapsed_ms: float
    """Wall time, the steps below included."""
    children: tuple[StepPlan, ...] = ()
    """The steps whose rows this one ranked."""

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        looked = "" if self.candidates is None else f"{self.candidates:,} candidates, "
        line = f"{self.kind}: {self.how}; filter {self.filter}; {looked}{self.returned:,} returned"
        below = [f"  {text}" for child in self.children for text in str(child).splitlines()]
        return "\n".join([f"{line}, {self.elapsed_ms:.1f} ms", *below])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Row ids with scores, best first, and how they were found."""

    rows: np.ndarray
    scores: np.ndarray
    larger_is_better: bool = True
    how: str = ""
    """For the plan: what found them."""
    candidates: int | None = None
    along: pa.Table | None = None
    """The columns that were asked for, row for row, where the rows came with them."""
    plan: StepPlan | None = None
    """Set by `run`."""

    def part(self, keep: slice | np.ndarray) -> Ranked:
        """Return some of the rows: a window, where a mask is true, or by position."""
        along = self.along
        if isinstance(keep, slice):
            start, stop, _ = keep.indices(len(self.rows))
            if (start, stop) == (0, len(self.rows)):
                return self
            along = None if along is None else along.slice(start, max(0, stop - start))
        elif along is not None:
            along = along.filter(keep) if keep.dtype == bool else along.take(keep)
        return replace(self, rows=self.rows[keep], scores=self.scores[keep], along=along)


NO_ROWS: Final = np.zeros(0, np.uint64)


# -------------------------------------------------------------------------- running


def run(
    reader: Reader, step: Step, *, inherited: Filter | None = None, columns: Sequence[str] = ()
) -> Ranked:
    """Answer one step: at most `limit` rows after `offset`, best first, with the plan.

    A step's filter holds for its prefetches too, and points that are its examples are no hits of
    theirs either, as in Qdrant. `columns` of the rows come along where an index finds them anyway.
    """
    started = time.perf_counter()
    filter = _both(inherited, step.filter)
    below = _both(filter, _without_examples(reader, step)) if step.prefetch else None
    lists = [run(reader, child, inherited=below) for child in step.prefetch]
    if isinstance(step.rank, Fusion):
        ranked, how = _fused(step.rank, lists), "prefetch"
    elif step.rank is None and lists:
        ranked, how = replace(lists[0], how="the order of the prefetch", candidates=None), "prefetch"
    else:
        if lists:
            found = np.unique(np.concatenate([r.rows for r in lists]))
            selection = Selection(None, found, "prefetch")
        else:
            selection = reader.select(filter)
        ranked, how = _rank(reader, step, selection, lists, columns), selection.how
    ranked = _cut(ranked, step)
    plan = StepPlan(
        kind=_kind(step.rank),
        how=ranked.how,
        filter=how,
        candidates=ranked.candidates,
        returned=len(ranked.rows),
        elapsed_ms=(time.perf_counter() - started) * 1e3,
        children=tuple(child.plan for child in lists if child.plan is not None),
    )
    return replace(ranked, plan=plan)


def run_all(reader: Reader, steps: Sequence[Step], *, columns: Sequence[str] = ()) -> list[Ranked]:
    """Answer several steps as `run` does; nearest searches that differ in the vector alone share one call."""
    out: dict[int, Ranked] = {}
    together: dict[Any, list[int]] = {}
    for at, step in enumerate(steps):
        if isinstance(step.rank, Nearest) and step.rank.diversity is None and not step.prefetch:
            key = (step.using, step.filter, step.params, id(step.lookup))
            together.setdefault(key, []).append(at)
        else:
            out[at] = run(reader, step, columns=columns)
    for places in together.values():
        out.update(zip(places, _run_nearest(reader, [steps[at] for at in places], columns), strict=True))
    return [out[at] for at in range(len(steps))]


def _run_nearest(reader: Reader, steps: Sequence[Step], columns: Sequence[str]) -> list[Ranked]:
    started = time.perf_counter()
    first = steps[0]
    selection = reader.select(first.filter)
    own = space(reader, first.using)
    examples = Examples(reader, own, first.lookup)
    vectors = examples.add([step.rank.vector for step in steps if isinstance(step.rank, Nearest)])
    # An example given by id is no hit of its own: one more is asked for.
    limit = max(step.offset + step.limit for step in steps) + int(any(r is not None for r in examples.rows))
    found = own.nearest(vectors, selection, limit=limit, params=first.params, columns=columns)
    elapsed_ms = (time.perf_counter() - started) * 1e3
    shared = "" if len(steps) == 1 else f", one call for {len(steps)} queries"
    out, start = [], 0
    for step, (rows, scores), own_row in zip(steps, found.hits, examples.rows, strict=True):
        along = None if found.along is None else found.along.slice(start, len(rows))
        start += len(rows)
        ranked = Ranked(rows=rows, scores=scores, larger_is_better=own.higher_is_better, along=along)
        ranked = _cut(ranked if own_row is None else ranked.part(rows != own_row), step)
        plan = StepPlan(
            kind="nearest",
            how=found.how + shared,
            filter=selection.how,
            candidates=found.compared,
            returned=len(ranked.rows),
            elapsed_ms=elapsed_ms,
        )
        out.append(replace(ranked, plan=plan))
    return out


def _kind(rank: Ranker | None) -> str:
    """Return what a step does, for plans."""
    if isinstance(rank, Nearest):
        return "nearest" if rank.diversity is None else f"nearest, diversity {rank.diversity:g}"
    if isinstance(rank, Recommend):
        return f"recommend {rank.strategy}"
    if isinstance(rank, Discover):
        return "context" if rank.target is None else "discover"
    if isinstance(rank, Order):
        return f"order_by {rank.key} {'asc' if rank.ascending else 'desc'}"
    if isinstance(rank, Fusion):
        return f"fusion {rank.name}"
    return "id" if rank is None else type(rank).__name__.lower()


def _both(a: Filter | None, b: Filter | None) -> Filter | None:
    return b if a is None else a if b is None else a & b


def _without_examples(reader: Reader, step: Step) -> Filter | None:
    rank = step.rank
    examples: list[Any] = []
    if isinstance(rank, Nearest):
        examples = [rank.vector]
    elif isinstance(rank, Recommend):
        examples = [*rank.positive, *rank.negative]
    elif isinstance(rank, Discover):
        examples = [rank.target, *(example for pair in rank.pairs for example in pair)]
    ids = [i for i in map(_example_id, examples) if i is not None]
    if not ids or (step.lookup is not None and step.lookup is not reader):
        return None
    return Filter({"must_not": [{"has_id": ids}]})


def _cut(ranked: Ranked, step: Step) -> Ranked:
    # In Qdrant, orders that are no scores know no threshold.
    scored = not isinstance(step.rank, Order | Sample) and (step.rank is not None or step.prefetch)
    if step.score_threshold is not None and scored:
        ranked = _above(ranked, step.score_threshold)
    return ranked.part(slice(step.offset, step.offset + step.limit))


def _above(ranked: Ranked, threshold: float) -> Ranked:
    keep = ranked.scores >= threshold if ranked.larger_is_better else ranked.scores <= threshold
    return ranked.part(keep)


def _fused(fusion: Fusion, lists: Sequence[Ranked]) -> Ranked:
    rankings = []
    for ranked in lists:
        scores = ranked.scores
        if not ranked.larger_is_better:
            # Qdrant's dbsf takes distances as they were returned; ours turn them round.
            if fusion.name == "rsf":
                scores = -scores
            elif fusion.name == "product":
                scores = 1.0 / (1.0 + scores)
        rankings.append((ranked.rows, scores))
    rows, scores = fuse(rankings, fusion.name, k=fusion.k, weights=fusion.weights, alpha=fusion.alpha)
    return Ranked(rows=rows, scores=scores, how=f"{len(lists)} lists as one", candidates=len(rows))


def _rank(
    reader: Reader, step: Step, selection: Selection, lists: Sequence[Ranked], columns: Sequence[str]
) -> Ranked:
    rank, limit = step.rank, step.offset + step.limit
    if rank is None:
        return _by_id(reader, selection, limit)
    if isinstance(rank, Order):
        return _ordered(reader, rank, selection, limit)
    if isinstance(rank, Sample):
        return _sampled(reader, rank, selection, limit)
    if isinstance(rank, Text):
        rows, scores = text_rows(reader, rank.query, selection, limit=limit)
        ways = [f"{', '.join(p['columns'])} through {p['through']}" for p in text_plan(reader, rank.query)]
        return Ranked(rows=rows, scores=scores, how="; ".join(dict.fromkeys(ways)))
    if isinstance(rank, Formula):
        rows, scores = evaluate(reader, rank.expression, rank.defaults, [(r.rows, r.scores) for r in lists])
        order = np.lexsort((rows, -scores))[:limit]
        how = f"over {len(lists)} prefetch" + ("es" if len(lists) > 1 else "")
        return Ranked(rows=rows[order], scores=scores[order], how=how, candidates=len(rows))
    own = space(reader, step.using)
    examples = Examples(reader, own, step.lookup)
    if isinstance(rank, Nearest):
        return _nearest(step, rank, own, examples, selection, limit, columns)
    if isinstance(rank, Recommend):
        return _recommend(step, rank, own, examples, selection, limit, columns)
    assert isinstance(rank, Discover)
    return _discover(rank, own, examples, selection, limit)


def _by_id(reader: Reader, selection: Selection, limit: int) -> Ranked:
    rows = NO_ROWS if reader.schema.id_type is None else id_page(reader, selection, limit=limit)[0]
    return Ranked(rows=rows, scores=np.ones(len(rows)), how="the order of ids")


def _sampled(reader: Reader, rank: Sample, selection: Selection, limit: int) -> Ranked:
    if selection.rows is not None:
        rows = selection.rows
    else:
        rows = (
            reader.table.row_ids(selection.sql, indexed=selection.indexed)
            if reader.schema.id_type is not None
            else NO_ROWS
        )
    chosen = np.random.default_rng(rank.seed).permutation(rows)[:limit]
    return Ranked(rows=chosen, scores=np.ones(len(chosen)), how="drawn at random", candidates=len(rows))


def _nearest(
    step: Step,
    rank: Nearest,
    own: Space,
    examples: Examples,
    selection: Selection,
    limit: int,
    columns: Sequence[str],
) -> Ranked:
    (example,) = examples.add([rank.vector])
    if rank.diversity is None:
        return _by_example(step, own, example, examples, selection, limit, columns)
    candidates = limit if rank.candidates is None else rank.candidates
    found = _by_example(step, own, example, examples, selection, candidates)
    if step.score_threshold is not None:
        found = _above(found, step.score_threshold)
    if not len(found.rows):
        return found
    relevance, between = own.between(found.rows, example)
    order = scoring.mmr(relevance, between, diversity=rank.diversity, limit=limit)
    how = f"{len(found.rows):,} candidates by {found.how}"
    return replace(found.part(order), how=how)


def _by_example(
    step: Step,
    own: Space,
    example: Any,
    examples: Examples,
    selection: Selection,
    limit: int,
    columns: Sequence[str] = (),
) -> Ranked:
    # Examples given by id are no hits: as many more are asked for.
    exclude = examples.own_rows
    found = own.nearest([example], selection, limit=limit + len(exclude), params=step.params, columns=columns)
    ((rows, scores),) = found.hits
    ranked = Ranked(
        rows=rows,
        scores=scores,
        larger_is_better=own.higher_is_better,
        how=found.how,
        candidates=found.compared,
        along=found.along,
    )
    if not len(exclude):
        return ranked
    return ranked.part(np.flatnonzero(~np.isin(rows, exclude))[:limit])


def _recommend(
    step: Step,
    rank: Recommend,
    own: Space,
    examples: Examples,
    selection: Selection,
    limit: int,
    columns: Sequence[str],
) -> Ranked:
    if not len(rank.positive) and not len(rank.negative):
        raise InvalidInputError("recommend needs at least one example")
    both, cut = examples.add([*rank.positive, *rank.negative]), len(rank.positive)
    positive, negative = both[:cut], both[cut:]
    if rank.strategy == "average_vector":
        return _by_example(step, own, own.average(positive, negative), examples, selection, limit, columns)
    rule = scoring.best_score if rank.strategy == "best_score" else scoring.sum_scores

    def score(s: np.ndarray) -> np.ndarray:
        return rule(s[:cut], s[cut:])

    return _by_rule(own, both, score, examples, selection, limit)


def _discover(rank: Discover, own: Space, examples: Examples, selection: Selection, limit: int) -> Ranked:
    if rank.target is None and not rank.pairs:
        raise InvalidInputError("context needs at least one pair")
    target = [] if rank.target is None else [rank.target]
    vectors = examples.add([*target, *(p for p, _ in rank.pairs), *(n for _, n in rank.pairs)])
    offset, n = len(target), len(rank.pairs)

    def score(s: np.ndarray) -> np.ndarray:
        plus, minus = s[offset : offset + n], s[offset + n :]
        return scoring.context(plus, minus) if not offset else scoring.discover(s[0], plus, minus)

    return _by_rule(own, vectors, score, examples, selection, limit)


def _by_rule(
    own: Space,
    vectors: Sequence[Any],
    score: Callable[[np.ndarray], np.ndarray],
    examples: Examples,
    selection: Selection,
    limit: int,
) -> Ranked:
    stream = own.similarities(vectors, selection)
    best = best_rows(stream, score, limit=limit, exclude=examples.own_rows)
    return Ranked(
        rows=best.rows, scores=best.scores, how="exact, every match is scored", candidates=best.scored
    )


class Examples:
    """Vectors given as such or by point id, and the rows of the points, which are no answers."""

    def __init__(self, reader: Reader, own: Space, source: Reader | None) -> None:
        self._own = own
        self._elsewhere = source is not None and source is not reader
        self._source = reader if source is None else source
        self._there = _matching(reader, own, source) if source is not None and self._elsewhere else own
        self.rows: list[np.uint64 | None] = []
        """The row id in this collection, where there is one, of each example."""

    @property
    def own_rows(self) -> np.ndarray:
        """Row ids, in this collection, of the examples given by id."""
        return np.unique(np.array([r for r in self.rows if r is not None], np.uint64))

    def add(self, items: Sequence[Any]) -> list[Any]:
        """Return the examples as the space takes them."""
        ids = [_example_id(item) for item in items]
        asked = [i for i in ids if i is not None]
        known: Iterator[tuple[Any, Any]] = iter(())
        if asked:
            values, rows = lookup(self._source, self._there.name, asked)
            known = zip(self._there.stored(values), rows, strict=True)
        out = []
        for item, point in zip(items, ids, strict=True):
            vector, row = (self._own.example(item), None) if point is None else next(known)
            out.append(vector)
            self.rows.append(None if self._elsewhere else row)
        return out


def _matching(reader: Reader, own: Space, source: Reader) -> Space:
    """Return the space of another collection in which examples of this one can be looked up."""
    there = source.schema
    alone = own.name not in there.vector_types and len(there.vectors) == 1
    name = next(iter(there.vectors)) if alone else there.vector_name(own.name)
    declared, found = reader.schema.vectors.get(own.name), there.vectors.get(name)
    if (declared is None) != (found is None) or (
        declared is not None
        and found is not None
        and (declared.size, declared.multivector) != (found.size, found.multivector)
    ):
        raise InvalidVectorError(
            f"vector {name or 'vector'!r} of {source.where} is of another shape than "
            f"{own.name or 'vector'!r} of {reader.where}; its points cannot be examples here"
        )
    return space(source, name)


def _example_id(item: Any) -> Any:
    if isinstance(item, Id):
        return item.value
    if isinstance(item, bool):
        return None
    return item if isinstance(item, int | str | np.integer | uuid.UUID) else None


def _ordered(reader: Reader, rank: Order, selection: Selection, limit: int) -> Ranked:
    rows, candidates = ordered_rows(reader, rank, selection, limit=limit)
    return Ranked(
        rows=rows, scores=np.ones(len(rows)), how=f"the order of {rank.key!r}", candidates=candidates
    )


# ------------------------------------------------------------------------- answering


def answer(
    reader: Reader,
    steps: Sequence[Step],
    *,
    columns: Sequence[str] | None,
    with_vectors: bool | Sequence[str],
    explain: bool = False,
) -> ScoredPoints:
    """Run steps and fetch the points they found, in one go.

    Returns:
        Columns `query_index`, `id`, `score`, `_distance`, then payload; `_distance` is the score turned
        so that smaller is better.
    """
    started = time.perf_counter()
    names, keys = reader.output(columns, with_vectors=with_vectors)
    wanted = ["id", *names]
    ranked = run_all(reader, steps, columns=wanted)
    index = np.repeat(np.arange(len(ranked), dtype=np.int32), [len(r.rows) for r in ranked])
    rows = np.concatenate([NO_ROWS, *(r.rows for r in ranked)])
    scores = np.concatenate([np.zeros(0), *(r.scores for r in ranked)])
    turned = [distances_of(reader, step, r) for step, r in zip(steps, ranked, strict=True)]
    along = [r.along for r in ranked if r.along is not None]
    taken = pa.concat_tables(along) if len(along) == len(ranked) > 0 else reader.take(rows, wanted)
    table = taken.add_column(1, "score", pa.array(scores.astype(np.float32)))
    table = table.add_column(2, "_distance", pa.array(np.concatenate([np.zeros(0), *turned]), pa.float32()))
    table = reader.shape(table.add_column(0, "query_index", pa.array(index)), keys)
    plan = None
    if explain:
        plans = [r.plan for r in ranked if r.plan is not None]
        plan = _explained(plans, elapsed_ms=(time.perf_counter() - started) * 1e3)
    return ScoredPoints(table, plan=plan, id_type=reader.schema.id_type, numbers=reader.numbers)


def _explained(plans: Sequence[StepPlan], *, elapsed_ms: float) -> StepPlan:
    if len(plans) == 1:
        return replace(plans[0], elapsed_ms=elapsed_ms)
    return StepPlan(
        kind="batch",
        how=f"{len(plans)} queries",
        filter="none",
        candidates=None,
        returned=sum(p.returned for p in plans),
        elapsed_ms=elapsed_ms,
        children=tuple(plans),
    )


def distances_of(reader: Reader, step: Step, ranked: Ranked) -> np.ndarray:
    """Return the scores of a step turned so that smaller is better."""
    if step.using not in reader.schema.sparse and (
        isinstance(step.rank, Nearest)
        or (isinstance(step.rank, Recommend) and step.rank.strategy == "average_vector")
    ):
        _, params = reader.schema.vector(step.using)
        if params.metric is Distance.COSINE and not params.multivector:
            return 1.0 - ranked.scores
    return -ranked.scores if ranked.larger_is_better else ranked.scores
