"""Qdrant's own engine as an oracle: it is asked in the same JSON as the library.

`qdrant-edge-py` runs the segments of the server in this process. What the server does above them is
done here: examples given by id become vectors and are left out of the answer, and `average_vector`
becomes a nearest query (lib/collection/src/recommendations.rs).
"""

import numpy as np
import qdrant_edge as edge

DISTANCES = ["Cosine", "Dot", "Euclid", "Manhattan"]
INDEXES = {
    "n": "Integer", "ranks": "Integer", "price": "Float", "when": "Datetime",
    "color": "Keyword", "tags": "Keyword", "stock": "Bool", "code": "Uuid",
}  # fmt: skip


def some_points(seed, count, size):
    """Return points in Qdrant's shape, one vector under the name of each distance.

    Each key holds values of one type, and may be missing.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    points = []
    for i in range(count):
        payload = {
            "n": int(order[i]),
            "price": float(rng.integers(0, 400) / 4),
            "color": str(rng.choice(["red", "green", "blue", "grey"])),
            "tags": [str(t) for t in rng.choice(list("abcdef"), rng.integers(0, 4))],
            "ranks": [int(r) for r in rng.integers(0, 10_000, rng.integers(0, 3))],
            "stock": bool(rng.integers(2)),
            "when": f"20{rng.integers(10, 25)}-{rng.integers(1, 13):02}-01T{rng.integers(24):02}:30:00Z",
            "place": {"lat": float(rng.integers(-80, 80)), "lon": float(rng.integers(-170, 170))},
            "code": f"00000000-0000-4000-8000-0000000000{rng.integers(10, 20)}",
            "deep": {"weight": float(rng.integers(1, 50) / 2)},
        }
        gone = [k for k in payload if k not in ("n", "place") and rng.random() < 0.15]
        for key in gone:
            del payload[key]
        vector = rng.normal(size=size).astype(np.float32).tolist()
        vectors = dict.fromkeys(DISTANCES, vector) if rng.random() < 0.97 else {}
        points.append({"id": i, "vector": vectors, "payload": payload})
    return points


class Engine:
    """A shard of Qdrant that holds the points."""

    def __init__(self, folder, points, size, *, indexes=True):
        params = {d: edge.EdgeVectorParams(size, getattr(edge.Distance, d)) for d in DISTANCES}
        self.shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=params, wal_enabled=False))
        rows = [edge.Point(p["id"], p["vector"], p["payload"]) for p in points]
        self.shard.update(edge.UpdateOperation.upsert_points(rows))
        for key, kind in INDEXES.items() if indexes else ():
            schema = getattr(edge.PayloadSchemaType, kind)
            self.shard.update(edge.UpdateOperation.create_field_index(key, schema))
        # As stored: under Cosine, of length one.
        found = self.shard.retrieve([p["id"] for p in points], False, True)
        self.vectors = {r.id: r.vector for r in found}

    def query(self, request):
        """Return ids and scores for the body of a `points/query` request."""
        body = self._step(request)
        return [
            (p.id, p.score) for p in self.shard.query(edge.QueryRequest(**body, offset=request.get("offset")))
        ]

    def facet(self, key, **options):
        """Return values and counts."""
        if "filter" in options:
            options["filter"] = filter_of(options["filter"])
        return [
            (h.value, h.count) for h in self.shard.facet(edge.FacetRequest(key, exact=True, **options)).hits
        ]

    def _step(self, spec):
        limit = spec.get("limit", 10)
        query, own = self._query(spec.get("query"), spec.get("using"), limit + spec.get("offset", 0))
        # One level deeper than given: the engine joins a step's `should` with that of its prefetch
        # into one list, so that either is enough; here both filters hold.
        conditions = {"must": [spec["filter"]]} if spec.get("filter") else {}
        if own:
            conditions["must_not"] = [{"has_id": own}]
        return {
            "limit": limit,
            "query": query,
            "prefetches": [edge.Prefetch(**self._step(p)) for p in spec.get("prefetch", [])],
            "filter": filter_of(conditions) if conditions else None,
            "score_threshold": spec.get("score_threshold"),
        }

    def _query(self, query, using, limit):
        if query is None:
            return None, []
        if not isinstance(query, dict):
            query = {"nearest": query}
        own = []
        if "nearest" in query:
            vector = self._vector(query["nearest"], using, own)
            if "mmr" not in query:
                return edge.Query.Nearest(vector, using), own
            mmr = query["mmr"]
            candidates = mmr.get("candidates_limit", limit)
            return edge.Mmr(vector, 1 - mmr.get("diversity", 0.5), candidates, using), own
        if "recommend" in query:
            body = query["recommend"]
            positive = [self._vector(v, using, own) for v in body.get("positive", [])]
            negative = [self._vector(v, using, own) for v in body.get("negative", [])]
            strategy = body.get("strategy", "average_vector")
            if strategy == "average_vector":
                mean = np.mean(positive, axis=0)
                mean = 2 * mean - np.mean(negative, axis=0) if negative else mean
                return edge.Query.Nearest(mean.tolist(), using), own
            kind = "RecommendBestScore" if strategy == "best_score" else "RecommendSumScores"
            return getattr(edge.Query, kind)(edge.RecommendQuery(positive, negative), using), own
        if "discover" in query or "context" in query:
            body = query.get("discover", query)
            pairs = [
                edge.ContextPair(*(self._vector(p[side], using, own) for side in ("positive", "negative")))
                for p in body["context"]
            ]
            if "context" in query:
                return edge.Query.Context(edge.ContextQuery(pairs), using), own
            return edge.Query.Discover(
                edge.DiscoverQuery(self._vector(body["target"], using, own), pairs), using
            ), own
        return _above_prefetch(query), own

    def _vector(self, given, using, own):
        if isinstance(given, int):
            own.append(given)
            return self.vectors[given][using]
        return given


def _above_prefetch(query):
    if "order_by" in query:
        body = query["order_by"]
        direction = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc}[body.get("direction", "asc")]
        return edge.OrderBy(body["key"], direction, body.get("start_from"))
    if "fusion" in query:
        return edge.Fusion.Rrf(k=2) if query["fusion"] == "rrf" else edge.Fusion.Dbsf()
    if "rrf" in query:
        return edge.Fusion.Rrf(k=query["rrf"].get("k", 2), weights=query["rrf"].get("weights"))
    if "formula" in query:
        return edge.Formula(expression_of(query["formula"]), query.get("defaults", {}))
    raise KeyError(sorted(query))


def expression_of(given):
    """Return the engine's object for a formula in JSON."""
    kinds = edge.Expression
    if isinstance(given, str):
        return kinds.Variable(given)
    if isinstance(given, int | float):
        return kinds.Constant(float(given))
    kind, body = next(iter(given.items()))
    if kind in ("sum", "mult", "max", "min"):
        return getattr(kinds, kind.capitalize())([expression_of(e) for e in body])
    if kind in ("neg", "abs", "sqrt", "exp", "log10", "ln", "acosh"):
        return getattr(kinds, kind.capitalize())(expression_of(body))
    if kind == "div":
        left, right = expression_of(body["left"]), expression_of(body["right"])
        return kinds.Div(left, right, body.get("by_zero_default"))
    if kind == "pow":
        return kinds.Pow(expression_of(body["base"]), expression_of(body["exponent"]))
    if kind == "geo_distance":
        return kinds.GeoDistance(edge.GeoPoint(**body["origin"]), body["to"])
    if kind == "datetime":
        return kinds.Datetime(body)
    if kind == "datetime_key":
        return kinds.DatetimeKey(body)
    if kind.endswith("_decay"):
        target = None if body.get("target") is None else expression_of(body["target"])
        name = kind.removesuffix("_decay").capitalize()
        return kinds.Decay(
            getattr(edge.DecayKind, name),
            expression_of(body["x"]),
            target,
            body.get("midpoint"),
            body.get("scale"),
        )
    return kinds.Condition(condition_of(given))


def filter_of(given):
    """Return the engine's object for a filter in JSON."""
    return edge.Filter(**{clause: [condition_of(c) for c in given[clause]] for clause in given})


def condition_of(given):
    """Return the engine's object for one condition in JSON."""
    if "has_id" in given:
        return edge.HasIdCondition(set(given["has_id"]))
    if "key" not in given:
        return filter_of(given)
    key = given["key"]
    if "range" in given:
        return edge.FieldCondition(key, range=edge.RangeFloat(**given["range"]))
    match = given["match"]
    if "any" in match:
        return edge.FieldCondition(key, match=edge.MatchAny(match["any"]))
    return edge.FieldCondition(key, match=edge.MatchValue(match["value"]))
