"""The tree of a query: what each step ranks by, and how it is read from Qdrant's JSON.

A `Step` is one node: a ranker (`nearest`, `recommend`, `discover`, `context`, `order_by`,
`fusion`, `formula`, `sample`, `text`), over which points (a filter, or the points that its
prefetches found), and how many. `pipeline.py` runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.filters import Filter
from vecdataset.fusion import FUSIONS
from vecdataset.indexes import SearchParams
from vecdataset.query import MAX_LIMIT
from vecdataset.reader import Reader
from vecdataset.text import TextQuery

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Points whose text matches, by BM25."""

    query: TextQuery


Ranker = Nearest | Recommend | Discover | OrderBy | Fusion | Formula | Sample | Text


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
    if isinstance(spec, TextQuery):
        return Text(query=spec)
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
    if "text" in spec:
        return Text(query=TextQuery.parse(spec["text"], **{k: v for k, v in spec.items() if k != "text"}))
    raise UnknownNameError(
        f"query {sorted(spec)!r} is not known",
        hint="nearest, recommend, discover, context, order_by, fusion, rrf, formula, sample and text are",
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
