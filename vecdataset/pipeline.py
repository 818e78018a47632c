"""The general query: one question, or a tree of them whose answers are scored again or fused.

A node of the tree is a `Step`: what ranks (`nearest`, `recommend`, `discover`, `context`,
`order_by`, `fusion`, `formula`, `sample`), over which points (a filter, or the points that its
prefetches found), and how many. Every step answers with row ids and scores; payload
is fetched once, for the points of the root.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset import scoring
from vecdataset.errors import (
    InvalidInputError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.filters import Filter
from vecdataset.frames import ScoredPoints
from vecdataset.fusion import FUSIONS, fuse
from vecdataset.ids import Id
from vecdataset.indexes import SearchParams
from vecdataset.query import MAX_LIMIT
from vecdataset.reader import Reader, Selection
from vecdataset.schema import Distance
from vecdataset.scroll import id_page, order_column
from vecdataset.spaces import Space, best_rows, lookup, space

Strategy = Literal["average_vector", "best_score", "sum_scores"]
STRATEGIES: Final = ("average_vector", "best_score", "sum_scores")
_STEP_KEYS: Final = frozenset(
    {"query", "using", "filter", "limit", "offset", "params", "score_threshold", "prefetch", "lookup_from"}
)


# ---------------------------------------------------------------------------- nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """Points near one vector; with `diversity`, chosen to differ from each other (MMR)."""

    vector: Any
    diversity: float | None = None
    candidates: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommend:
    """Points like the positive examples, and unlike the negative ones."""

    positive: Sequence[Any] = ()
    negative: Sequence[Any] = ()
    strategy: Strategy = "average_vector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discover:
    """Points near a target, within the region that pairs of examples mark out; without a target, context."""

    target: Any = None
    pairs: Sequence[tuple[Any, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBy:
    """Points by a payload value."""

    key: str
    ascending: bool = True
    start_from: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """The lists of the prefetches as one."""

    name: str
    k: int | None = None
    weights: Sequence[float] | None = None
    alpha: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A score computed from the prefetches' scores and the payload."""

    expression: Any
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Points at random."""

    seed: int | None = None


Ranker = Nearest | Recommend | Discover | OrderBy | Fusion | Formula | Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node of the tree."""

    rank: Ranker | None
    """None keeps the order of the only prefetch, or of ids."""
    using: str | None = None
    filter: Filter | None = None
    limit: int = 10
    offset: int = 0
    params: SearchParams = field(default_factory=SearchParams)
    score_threshold: float | None = None
    prefetch: tuple[Step, ...] = ()
    lookup: Reader | None = None
    """Where examples given by id are looked up; None is the collection itself."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer of a step: row ids with scores, best first."""

    rows: np.ndarray
    scores: np.ndarray
    larger_is_better: bool = True


# -------------------------------------------------------------------------- parsing


def parse_step(
    spec: Any,
    reader: Reader,
    *,
    qdrant: bool,
    prefetch: Any = None,
    lookup: Reader | None = None,
    **options: Any,
) -> Step:
    """Return the step that a query and its prefetches ask for.

    Args:
        spec: A vector, an `Id`, a dict in Qdrant's form, or None.
        reader: The collection.
        qdrant: Whether `rrf` means Qdrant's (in Qdrant JSON) or the usual one with k = 60.
        prefetch: Qdrant's prefetch dicts.
        lookup: Where examples given by id are looked up.
        options: `using`, `filter`, `limit`, `offset`, `params`, `score_threshold`.
    """
    using = options.get("using")
    limit = options.get("limit")
    limit = 10 if limit is None else limit
    offset = options.get("offset") or 0
    for name, value, least in (("limit", limit, 1), ("offset", offset, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_LIMIT:
            raise InvalidInputError(f"{name} is {value!r}; it must be {least} to {MAX_LIMIT:,}")
    children = prefetch or ()
    if isinstance(children, Mapping | Step):
        children = [children]
    steps = tuple(
        child if isinstance(child, Step) else _prefetch(child, reader, qdrant=qdrant, lookup=lookup)
        for child in children
    )
    rank = _ranker(spec, qdrant=qdrant)
    if isinstance(rank, Fusion | Formula) and not steps:
        raise InvalidInputError(
            "fusion and formula work on prefetches; none was given", hint="pass prefetch=[…]"
        )
    if rank is None and len(steps) > 1:
        raise InvalidInputError("several prefetches need a query that ranks or fuses them")
    return Step(
        rank=rank,
        using=using,
        filter=reader.parse(options.get("filter")),
        limit=limit,
        offset=offset,
        params=SearchParams.parse(options.get("params")),
        score_threshold=options.get("score_threshold"),
        prefetch=steps,
        lookup=lookup,
    )


def _prefetch(spec: Any, reader: Reader, *, qdrant: bool, lookup: Reader | None) -> Step:
    if not isinstance(spec, Mapping):
        raise InvalidInputError(f"a prefetch is of type {type(spec).__name__}; it must be a dict")
    unknown = set(spec) - _STEP_KEYS
    if unknown:
        name = min(unknown)
        raise UnknownNameError(
            f"prefetch key {name!r} is not known", hint=did_you_mean(name, _STEP_KEYS, what="keys")
        )
    if spec.get("lookup_from") is not None:
        raise InvalidInputError("lookup_from goes with the query, not with a prefetch")
    options = {k: v for k, v in spec.items() if k not in ("query", "prefetch", "lookup_from")}
    return parse_step(
        spec.get("query"), reader, qdrant=qdrant, prefetch=spec.get("prefetch"), lookup=lookup, **options
    )


def _ranker(spec: Any, *, qdrant: bool) -> Ranker | None:
    if spec is None or isinstance(spec, Ranker):
        return spec
    if not isinstance(spec, Mapping):
        return Nearest(vector=spec)
    if "nearest" in spec:
        mmr = spec.get("mmr")
        if mmr is None:
            return Nearest(vector=spec["nearest"])
        diversity = mmr.get("diversity")
        return Nearest(
            vector=spec["nearest"],
            diversity=0.5 if diversity is None else diversity,
            candidates=mmr.get("candidates_limit"),
        )
    if "recommend" in spec:
        body = spec["recommend"]
        strategy = body.get("strategy") or "average_vector"
        return Recommend(
            positive=body.get("positive") or (),
            negative=body.get("negative") or (),
            strategy=check_strategy(strategy),
        )
    if "discover" in spec:
        body = spec["discover"]
        return Discover(target=body["target"], pairs=pairs_of(body.get("context") or ()))
    if "context" in spec:
        return Discover(pairs=pairs_of(spec["context"]))
    if "order_by" in spec:
        body = spec["order_by"]
        body = {"key": body} if isinstance(body, str) else body
        direction = body.get("direction") or "asc"
        if direction not in ("asc", "desc"):
            raise InvalidInputError(f"order_by direction is {direction!r}; it must be 'asc' or 'desc'")
        return OrderBy(key=body["key"], ascending=direction == "asc", start_from=body.get("start_from"))
    if "fusion" in spec:
        name = str(spec["fusion"]).lower()
        if qdrant and name == "rrf":
            name = "qdrant_rrf"
        if name not in FUSIONS:
            raise UnknownNameError(
                f"fusion {name!r} is not known", hint=did_you_mean(name, FUSIONS, what="fusions")
            )
        return Fusion(name=name, k=spec.get("k"), weights=spec.get("weights"), alpha=spec.get("alpha"))
    if "rrf" in spec:
        body = spec["rrf"]
        return Fusion(name="qdrant_rrf", k=body.get("k"), weights=body.get("weights"))
    if "formula" in spec:
        return Formula(expression=spec["formula"], defaults=spec.get("defaults") or {})
    if "sample" in spec:
        return Sample(seed=spec.get("seed"))
    raise UnknownNameError(
        f"query {sorted(spec)!r} is not known",
        hint="nearest, recommend, discover, context, order_by, fusion, rrf, formula and sample are",
    )


def check_strategy(strategy: str) -> Strategy:
    """Return the strategy, or say which there are."""
    if strategy not in STRATEGIES:
        raise UnknownNameError(
            f"recommend strategy {strategy!r} is not known",
            hint=did_you_mean(strategy, STRATEGIES, what="strategies"),
        )
    return cast("Strategy", strategy)


def pairs_of(context: Any) -> list[tuple[Any, Any]]:
    """Return context pairs from `(positive, negative)` tuples or Qdrant's dicts."""
    if isinstance(context, Mapping):
        context = [context]
    out = []
    for pair in context:
        if isinstance(pair, Mapping):
            if set(pair) != {"positive", "negative"}:
                raise InvalidInputError(
                    f"a context pair has {sorted(pair)}; it must have positive and negative"
                )
            out.append((pair["positive"], pair["negative"]))
        elif isinstance(pair, Sequence) and len(pair) == 2:
            out.append((pair[0], pair[1]))
        else:
            raise InvalidInputError(f"a context pair is {pair!r}; it must be (positive, negative)")
    return out


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
        plan = {"steps": [describe(s) for s in steps], "elapsed_ms": (time.perf_counter() - started) * 1e3}
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


def describe(step: Step) -> dict[str, Any]:
    """Return a step and its prefetches as plain values, for plans."""
    out: dict[str, Any] = {"rank": type(step.rank).__name__.lower() if step.rank is not None else "id"}
    if isinstance(step.rank, Fusion):
        out["fusion"] = step.rank.name
    out |= {"limit": step.limit, "filter": None if step.filter is None else repr(step.filter)}
    if step.prefetch:
        out["prefetch"] = [describe(child) for child in step.prefetch]
    return out


__all__ = [
    "Discover",
    "Formula",
    "Fusion",
    "Nearest",
    "OrderBy",
    "Recommend",
    "Sample",
    "Step",
    "answer",
    "check_strategy",
    "pairs_of",
    "parse_step",
    "run",
]
