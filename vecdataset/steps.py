"""The tree of a query: what each step ranks by, and how it is read from Qdrant's JSON.

A `Step` is one node: a ranker (`nearest`, `recommend`, `discover`, `context`, `order_by`,
`fusion`, `formula`, `sample`, `text`), over which points (a filter, or the points that its
prefetches found), and how many. `pipeline.py` runs it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, cast

import numpy as np

from vecdataset.errors import InvalidInputError, NotSupportedError, UnknownNameError, did_you_mean
from vecdataset.filters import Filter
from vecdataset.fusion import FUSIONS
from vecdataset.ids import Id
from vecdataset.indexes import SearchParams
from vecdataset.ordering import Order
from vecdataset.query import MAX_LIMIT, query_vectors
from vecdataset.reader import Reader
from vecdataset.sparse import SparseVector
from vecdataset.text import TextQuery

Strategy = Literal["average_vector", "best_score", "sum_scores"]
STRATEGIES: Final = ("average_vector", "best_score", "sum_scores")
_STEP_KEYS: Final = frozenset(
    {"query", "using", "filter", "limit", "offset", "params", "score_threshold", "prefetch", "lookup_from"}
)
_SPARSE_KEYS: Final = frozenset({"indices", "values"})


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


Ranker = Nearest | Recommend | Discover | Order | Fusion | Formula | Sample | Text


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
    limit, offset, threshold = (options.get(k) for k in ("limit", "offset", "score_threshold"))
    limit = 10 if limit is None else count_of(limit, "limit", least=1)
    offset = 0 if offset is None else count_of(offset, "offset", least=0)
    if limit + offset > MAX_LIMIT:
        raise InvalidInputError(f"limit + offset is {limit + offset:,}; at most {MAX_LIMIT:,} go")
    children = () if prefetch is None else prefetch
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
        using=options.get("using"),
        filter=reader.parse(options.get("filter")),
        limit=limit,
        offset=offset,
        params=SearchParams.parse(options.get("params")),
        score_threshold=None if threshold is None else _number(threshold, "score_threshold"),
        prefetch=steps,
        lookup=lookup,
    )


def nearest_steps(vector: Any, reader: Reader, *, using: str | None, **options: Any) -> list[Step]:
    """Return a step for each of the vectors that a search takes: one, `[n, size]`, or `Id`s."""
    if isinstance(vector, SparseVector) and using is None and len(reader.schema.sparse) == 1:
        using = next(iter(reader.schema.sparse))
    sparse = using is not None and using in reader.schema.sparse
    one = sparse or reader.schema.vector(using)[1].multivector
    many = [vector]
    if isinstance(vector, list | tuple) and vector and all(isinstance(v, Id) for v in vector):
        many = list(vector)
    elif not one and not isinstance(vector, Id):
        name, declared = reader.schema.vector(using)
        many = list(query_vectors(vector, declared, name=name, where=reader.where))
    return [parse_step(Nearest(vector=v), reader, qdrant=False, using=using, **options) for v in many]


def batch_step(spec: Any, reader: Reader, *, lookup: Reader | None) -> Step:
    """Return the step of one query in a batch: a dict of the arguments of `Collection.query`."""
    if not isinstance(spec, Mapping):
        raise InvalidInputError(
            f"a query of the batch is of type {type(spec).__name__}; it must be a dict",
            hint="such as {'query': [0.1, 0.2], 'limit': 5}",
        )
    misplaced = next((k for k in spec if k in _READERS), None)
    if misplaced is not None:
        raise InvalidInputError(
            f"a query of the batch has the key {misplaced!r}",
            hint=f"it stands one level deeper: {{'query': {{{misplaced!r}: …}}}}",
        )
    _only(spec, _STEP_KEYS, "a query of the batch")
    options = {k: v for k, v in spec.items() if k not in ("query", "lookup_from")}
    return parse_step(spec.get("query"), reader, qdrant=False, lookup=lookup, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class QdrantRequest:
    """A `points/query` request of Qdrant's, read."""

    step: Step
    columns: Sequence[str] | None
    with_vectors: bool | Sequence[str]


def qdrant_request(request: Any, reader: Reader) -> QdrantRequest:
    """Read the body of a `points/query` request, or the model of it of qdrant-client.

    Raises:
        NotSupportedError: It asks for another collection, or for a shard.
    """
    if not isinstance(request, Mapping) and hasattr(request, "model_dump"):
        request = request.model_dump(by_alias=True, exclude_none=True)
    known = {*_STEP_KEYS, "with_payload", "with_vector", "with_vectors", "shard_key"}
    given = {k: v for k, v in _dict(request, "the request", known).items() if v is not None}
    if "lookup_from" in given:
        raise NotSupportedError(
            f"the request looks examples up in {given['lookup_from']!r}, which this collection cannot reach",
            hint="collection.query(…, lookup_from=other) takes the other collection itself",
        )
    if "shard_key" in given:
        raise NotSupportedError(f"the request names the shard {given['shard_key']!r}; there are no shards")
    options = {k: v for k, v in given.items() if k in _STEP_KEYS and k != "query"}
    return QdrantRequest(
        step=parse_step(given.get("query"), reader, qdrant=True, **options),
        columns=_payload_columns(given.get("with_payload", False), reader),
        with_vectors=given.get("with_vector", given.get("with_vectors", False)),
    )


def _payload_columns(asked: Any, reader: Reader) -> list[str] | None:
    if isinstance(asked, bool):
        return None if asked else []
    exclude = False
    if isinstance(asked, Mapping):
        body = _dict(asked, "with_payload", {"include", "exclude"})
        exclude = body.get("exclude") is not None
        asked = body["exclude"] if exclude else body.get("include") or []
    if not isinstance(asked, Sequence) or isinstance(asked, str):
        raise InvalidInputError(f"with_payload is {asked!r}; it must be a bool, keys, include or exclude")
    for name in asked:
        if name not in reader.keys and ("." in name or "[" in name):
            raise NotSupportedError(
                f"with_payload names {name!r}, a part of a value", hint="whole payload keys can be chosen"
            )
    if not exclude:
        return [name for name in asked if name in reader.keys]
    return [name for name in sorted(reader.keys) if name not in asked]


def _prefetch(spec: Any, reader: Reader, *, qdrant: bool, lookup: Reader | None) -> Step:
    if not isinstance(spec, Mapping):
        raise InvalidInputError(f"a prefetch is of type {type(spec).__name__}; it must be a dict")
    _only(spec, _STEP_KEYS, "a prefetch")
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
    if not isinstance(spec, Mapping) or spec.keys() == _SPARSE_KEYS:
        return Nearest(vector=spec)
    kind = next((k for k in _READERS if k in spec), None)
    if kind is None:
        name = min(map(str, spec), default="")
        raise UnknownNameError(
            f"a query has the keys {sorted(map(str, spec))}; one of them must say its kind",
            hint=did_you_mean(name, _READERS, what="kinds"),
        )
    known, read = _READERS[kind]
    _only(spec, {kind, *known}, f"query {kind!r}")
    found = read(spec)
    if qdrant and isinstance(found, Fusion) and found.name == "rrf":
        return replace(found, name="qdrant_rrf")
    return found


def _nearest(spec: Mapping[str, Any]) -> Nearest:
    mmr = spec.get("mmr")
    if mmr is None:
        return Nearest(vector=spec["nearest"])
    mmr = _dict(mmr, "mmr", {"diversity", "candidates_limit"})
    diversity, candidates = mmr.get("diversity"), mmr.get("candidates_limit")
    diversity = 0.5 if diversity is None else _number(diversity, "diversity")
    if not 0.0 <= diversity <= 1.0:
        raise InvalidInputError(f"diversity is {diversity!r}; it must be 0 to 1")
    if candidates is not None:
        candidates = count_of(candidates, "candidates_limit", least=1)
    return Nearest(vector=spec["nearest"], diversity=diversity, candidates=candidates)


def _recommend(spec: Mapping[str, Any]) -> Recommend:
    body = _dict(spec["recommend"], "recommend", {"positive", "negative", "strategy"})
    strategy = body.get("strategy")
    return Recommend(
        positive=examples_of(body.get("positive")),
        negative=examples_of(body.get("negative")),
        strategy=check_strategy("average_vector" if strategy is None else strategy),
    )


def _discover(spec: Mapping[str, Any]) -> Discover:
    body = _dict(spec["discover"], "discover", {"target", "context"})
    if body.get("target") is None:
        raise InvalidInputError("discover has no target", hint="without one, the query is 'context'")
    return Discover(target=body["target"], pairs=pairs_of(body.get("context")))


def _context(spec: Mapping[str, Any]) -> Discover:
    return Discover(pairs=pairs_of(spec["context"]))


def _order_by(spec: Mapping[str, Any]) -> Order:
    return Order.parse(spec["order_by"])


def _fusion(spec: Mapping[str, Any]) -> Fusion:
    name = str(spec["fusion"]).lower()
    if name not in FUSIONS:
        raise UnknownNameError(
            f"fusion {name!r} is not known", hint=did_you_mean(name, FUSIONS, what="fusions")
        )
    return Fusion(name=name, k=spec.get("k"), weights=spec.get("weights"), alpha=spec.get("alpha"))


def _rrf(spec: Mapping[str, Any]) -> Fusion:
    body = _dict(spec["rrf"], "rrf", {"k", "weights"})
    return Fusion(name="qdrant_rrf", k=body.get("k"), weights=body.get("weights"))


def _formula(spec: Mapping[str, Any]) -> Formula:
    return Formula(expression=spec["formula"], defaults=_dict(spec.get("defaults") or {}, "defaults", None))


def _sample(spec: Mapping[str, Any]) -> Sample:
    if spec["sample"] != "random":
        raise InvalidInputError(f"sample is {spec['sample']!r}; it must be 'random'")
    return Sample(seed=spec.get("seed"))


def _text(spec: Mapping[str, Any]) -> Text:
    return Text(query=TextQuery.parse(spec["text"], **{k: v for k, v in spec.items() if k != "text"}))


_READERS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Ranker]]]] = {
    "nearest": (("mmr",), _nearest),
    "recommend": ((), _recommend),
    "discover": ((), _discover),
    "context": ((), _context),
    "order_by": ((), _order_by),
    "fusion": (("k", "weights", "alpha"), _fusion),
    "rrf": ((), _rrf),
    "formula": (("defaults",), _formula),
    "sample": (("seed",), _sample),
    "text": (tuple(f.name for f in fields(TextQuery)), _text),
}
"""Kind of query to the keys that may stand beside it, and what reads it."""


def _only(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for name, value in given.items():
        if name not in known and value is not None:
            raise UnknownNameError(
                f"{where} has the key {name!r}, which is not known",
                hint=did_you_mean(str(name), known, what="keys"),
            )


def _dict(value: Any, where: str, known: Collection[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{where} is {value!r}; it must be a dict")
    if known is not None:
        _only(value, known, where)
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InvalidInputError(f"{what} is {value!r}; it must be a number")
    return float(value)


def count_of(value: Any, what: str, *, least: int) -> int:
    """Return a limit, an offset or the like, checked."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MAX_LIMIT:
        raise InvalidInputError(f"{what} is {value!r}; it must be an integer from {least} to {MAX_LIMIT:,}")
    return int(value)


def examples_of(items: Any) -> list[Any]:
    """Return examples as a list; one id or one vector is a list of one."""
    if items is None:
        return []
    one = isinstance(items, Id | int | str | uuid.UUID | SparseVector | Mapping)
    if one or (isinstance(items, np.ndarray) and items.ndim == 1 and items.dtype.kind == "f"):
        return [items]
    items = list(items)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in items)
    return [items] if numbers and any(isinstance(v, float) for v in items) else items


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
    if context is None:
        return []
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
        elif isinstance(pair, Sequence | np.ndarray) and not isinstance(pair, str) and len(pair) == 2:
            out.append((pair[0], pair[1]))
        else:
            raise InvalidInputError(f"a context pair is {pair!r}; it must be (positive, negative)")
    return out
