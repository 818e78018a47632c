"""Running the tree of a query: every step answers with row ids and scores, best first.

Steps under a fusion or a formula are answered first, and what they found is ranked again;
payload is fetched once, for the points of the root. The tree itself is in `steps.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset import scoring
from vecdataset.errors import InvalidInputError
from vecdataset.filters import Filter
from vecdataset.frames import ScoredPoints
from vecdataset.fusion import fuse
from vecdataset.ids import Id
from vecdataset.reader import Reader, Selection
from vecdataset.schema import Distance
from vecdataset.scroll import id_page, order_column
from vecdataset.spaces import Space, best_rows, lookup, space
from vecdataset.steps import Discover, Formula, Fusion, Nearest, OrderBy, Recommend, Sample, Step, Text
from vecdataset.text import text_plan, text_rows


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer of a step: row ids with scores, best first."""

    rows: np.ndarray
    scores: np.ndarray
    larger_is_better: bool = True


# -------------------------------------------------------------------------- running


def run(reader: Reader, step: Step, *, inherited: Filter | None = None) -> Ranked:
    """Return the rows of a step with scores: at most `offset + limit`, best first.

    A step's filter holds for its prefetches too, as in Qdrant.
    """
    filter = _both(inherited, step.filter)
    wanted = step.offset + step.limit
    lists = [run(reader, child, inherited=filter) for child in step.prefetch]
    if isinstance(step.rank, Fusion):
        ranked = _fused(step.rank, lists)
    elif step.rank is None:
        ranked = lists[0] if lists else _by_id(reader, reader.select(filter), wanted)
    else:
        selection = reader.select(filter)
        if lists:
            found = np.unique(np.concatenate([r.rows for r in lists]))
            selection = Selection(None, found, "prefetch")
        ranked = _rank(reader, step, selection, lists, wanted)
    return _cut(ranked, step.score_threshold, wanted)


def _both(a: Filter | None, b: Filter | None) -> Filter | None:
    return b if a is None else a if b is None else a & b


def _cut(ranked: Ranked, threshold: float | None, limit: int) -> Ranked:
    rows, scores = ranked.rows, ranked.scores
    if threshold is not None:
        keep = scores >= threshold if ranked.larger_is_better else scores <= threshold
        rows, scores = rows[keep], scores[keep]
    return Ranked(rows[:limit], scores[:limit], ranked.larger_is_better)


def _by_id(reader: Reader, selection: Selection, limit: int) -> Ranked:
    if reader.schema.id_type is None:
        return Ranked(np.zeros(0, np.uint64), np.zeros(0))
    rows = id_page(reader, selection, limit=limit)[0]
    return Ranked(rows, np.zeros(len(rows)))


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
    return Ranked(rows, scores)


def _rank(reader: Reader, step: Step, selection: Selection, lists: Sequence[Ranked], limit: int) -> Ranked:
    rank = step.rank
    if isinstance(rank, OrderBy):
        return _ordered(reader, rank, selection, limit)
    if isinstance(rank, Sample):
        rows = reader.table.row_ids(selection.sql) if selection.rows is None else selection.rows
        return _sampled(rows, rank, limit)
    if isinstance(rank, Text):
        return Ranked(*text_rows(reader, rank.query, selection, limit=limit))
    if isinstance(rank, Formula):
        from vecdataset.formula import evaluate

        rows, scores = evaluate(reader, rank.expression, rank.defaults, [(r.rows, r.scores) for r in lists])
        order = np.lexsort((rows, -scores))[:limit]
        return Ranked(rows[order], scores[order])
    own = space(reader, step.using)
    examples = _Examples(reader, own, step.lookup)
    if isinstance(rank, Nearest):
        return _nearest(step, rank, own, examples, selection, limit)
    if isinstance(rank, Recommend):
        return _recommend(step, rank, own, examples, selection, limit)
    assert isinstance(rank, Discover)
    return _discover(rank, own, examples, selection, limit)


def _sampled(rows: np.ndarray, rank: Sample, limit: int) -> Ranked:
    chosen = np.random.default_rng(rank.seed).permutation(rows)[:limit]
    return Ranked(chosen, np.zeros(len(chosen)))


def _nearest(
    step: Step, rank: Nearest, own: Space, examples: _Examples, selection: Selection, limit: int
) -> Ranked:
    (example,) = examples.add([rank.vector])
    if rank.diversity is None:
        return _by_example(step, own, example, examples, selection, limit)
    candidates = limit if rank.candidates is None else rank.candidates
    found = _by_example(step, own, example, examples, selection, candidates)
    if not len(found.rows):
        return found
    relevance, between = own.between(found.rows, example)
    order = scoring.mmr(relevance, between, diversity=rank.diversity, limit=limit)
    return Ranked(found.rows[order], found.scores[order], found.larger_is_better)


def _by_example(
    step: Step, own: Space, example: Any, examples: _Examples, selection: Selection, limit: int
) -> Ranked:
    # Examples given by id are no hits: as many more are asked for.
    exclude = examples.own_rows
    rows, scores = own.nearest(example, selection, limit=limit + len(exclude), params=step.params)
    if len(exclude):
        keep = ~np.isin(rows, exclude)
        rows, scores = rows[keep], scores[keep]
    return Ranked(rows[:limit], scores[:limit], own.higher_is_better)


def _recommend(
    step: Step, rank: Recommend, own: Space, examples: _Examples, selection: Selection, limit: int
) -> Ranked:
    if not len(rank.positive) and not len(rank.negative):
        raise InvalidInputError("recommend needs at least one example")
    positive, negative = examples.add(rank.positive), examples.add(rank.negative)
    if rank.strategy == "average_vector":
        if not positive:
            scoring.average_vector(np.zeros((0, 1)), np.zeros((0, 1)))
        return _by_example(step, own, own.average(positive, negative), examples, selection, limit)
    rule = scoring.best_score if rank.strategy == "best_score" else scoring.sum_scores

    def score(s: np.ndarray) -> np.ndarray:
        return rule(s[: len(positive)], s[len(positive) :])

    stream = own.similarities([*positive, *negative], selection)
    return Ranked(*best_rows(stream, score, limit=limit, exclude=examples.own_rows))


def _discover(rank: Discover, own: Space, examples: _Examples, selection: Selection, limit: int) -> Ranked:
    target = examples.add([] if rank.target is None else [rank.target])
    positive = examples.add([p for p, _ in rank.pairs])
    negative = examples.add([n for _, n in rank.pairs])
    if rank.target is None and not rank.pairs:
        raise InvalidInputError("context needs at least one pair")
    n, offset = len(positive), len(target)

    def score(s: np.ndarray) -> np.ndarray:
        plus, minus = s[offset : offset + n], s[offset + n :]
        return scoring.context(plus, minus) if not offset else scoring.discover(s[0], plus, minus)

    stream = own.similarities([*target, *positive, *negative], selection)
    return Ranked(*best_rows(stream, score, limit=limit, exclude=examples.own_rows))


class _Examples:
    """Vectors given as such or by point id, and the rows of the points, which are no answers."""

    def __init__(self, reader: Reader, own: Space, source: Reader | None) -> None:
        self._reader = reader
        self._source = source or reader
        self._space = own
        self._own: list[np.ndarray] = []

    @property
    def own_rows(self) -> np.ndarray:
        """Row ids, in this collection, of the examples given by id."""
        return np.unique(np.concatenate([np.zeros(0, np.uint64), *self._own]))

    def add(self, items: Sequence[Any]) -> list[Any]:
        """Return the examples as the space takes them."""
        ids = [_example_id(item) for item in items]
        asked = [i for i in ids if i is not None]
        known: Iterator[Any] = iter(())
        if asked:
            values, rows = lookup(self._source, self._space.name, asked)
            if self._source is self._reader:
                self._own.append(rows)
            known = iter(self._space.stored(values))
        return [
            self._space.example(item) if point is None else next(known)
            for item, point in zip(items, ids, strict=True)
        ]


def _example_id(item: Any) -> Any:
    if isinstance(item, Id):
        return item.value
    if isinstance(item, bool):
        return None
    return item if isinstance(item, int | str | np.integer | uuid.UUID) else None


def _ordered(reader: Reader, rank: OrderBy, selection: Selection, limit: int) -> Ranked:
    column = order_column(reader, rank.key)
    batches = list(reader.stream([column], selection, row_ids=True))
    if not batches:
        return Ranked(np.zeros(0, np.uint64), np.zeros(0), not rank.ascending)
    table = pa.Table.from_batches(batches)
    table = table.filter(table[column].is_valid())
    if rank.start_from is not None:
        bound = pa.scalar(rank.start_from).cast(table[column].type)
        compare = pc.greater_equal if rank.ascending else pc.less_equal
        table = table.filter(compare(table[column], bound))
    direction = "ascending" if rank.ascending else "descending"
    table = table.sort_by([(column, direction), ("_rowid", "ascending")]).slice(0, limit)
    values = table[column]
    scores = (
        values.cast(pa.float64()).to_numpy()
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        else np.zeros(len(values))
    )
    return Ranked(table["_rowid"].to_numpy(), scores, not rank.ascending)


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
    answers = []
    for step in steps:
        ranked = run(reader, step)
        answers.append(
            Ranked(ranked.rows[step.offset :], ranked.scores[step.offset :], ranked.larger_is_better)
        )
    index = np.repeat(np.arange(len(answers), dtype=np.int32), [len(a.rows) for a in answers])
    rows = np.concatenate([a.rows for a in answers]) if answers else np.zeros(0, np.uint64)
    scores = np.concatenate([a.scores for a in answers]) if answers else np.zeros(0)
    distances = (
        np.concatenate([_distance(reader, step, a) for step, a in zip(steps, answers, strict=True)])
        if answers
        else np.zeros(0)
    )
    taken = reader.take(rows, ["id", *names])
    table = taken.add_column(1, "score", pa.array(scores.astype(np.float32)))
    table = table.add_column(2, "_distance", pa.array(distances.astype(np.float32)))
    table = reader.shape(table.add_column(0, "query_index", pa.array(index)), keys)
    plan = None
    if explain:
        plan = {
            "steps": [describe(reader, s) for s in steps],
            "elapsed_ms": (time.perf_counter() - started) * 1e3,
        }
    return ScoredPoints(table, plan=plan, id_type=reader.schema.id_type, numbers=reader.numbers)


def _distance(reader: Reader, step: Step, ranked: Ranked) -> np.ndarray:
    if step.using not in reader.schema.sparse and (
        isinstance(step.rank, Nearest)
        or (isinstance(step.rank, Recommend) and step.rank.strategy == "average_vector")
    ):
        _, params = reader.schema.vector(step.using)
        if params.metric is Distance.COSINE and not params.multivector:
            return 1.0 - ranked.scores
    return -ranked.scores if ranked.larger_is_better else ranked.scores


def describe(reader: Reader, step: Step) -> dict[str, Any]:
    """Return a step and its prefetches as plain values, for plans."""
    out: dict[str, Any] = {"rank": type(step.rank).__name__.lower() if step.rank is not None else "id"}
    if isinstance(step.rank, Fusion):
        out["fusion"] = step.rank.name
    if isinstance(step.rank, Text):
        out["text"] = text_plan(reader, step.rank.query)
    out |= {"limit": step.limit, "filter": None if step.filter is None else repr(step.filter)}
    if step.prefetch:
        out["prefetch"] = [describe(reader, child) for child in step.prefetch]
    return out
