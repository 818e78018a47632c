"""Random queries in Qdrant's JSON, of every kind, and what makes two answers the same."""

import numpy as np

DISTANCES = ["Cosine", "Dot", "Euclid", "Manhattan"]
COLORS = ["red", "green", "blue", "grey"]
# Whole quarters: float32, in which Qdrant keeps constants of a formula, holds them exactly.
NUMBERS = [-2.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0, 40.0]


class Cases:
    """Draws queries over `some_points` of `qdrant_engine.py`."""

    def __init__(self, seed, points, size):
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.ids = [p["id"] for p in points if p["vector"]]

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def chance(self, share):
        return bool(self.rng.random() < share)

    def vector(self):
        return self.rng.normal(size=self.size).astype(np.float32).tolist()

    def example(self):
        return self.pick(self.ids) if self.chance(0.5) else self.vector()

    def examples(self, least, most):
        return [self.example() for _ in range(self.rng.integers(least, most + 1))]

    def condition(self):
        # None on booleans: the engine's Python binding reads True as the integer 1.
        kind = self.rng.integers(3)
        if kind == 0:
            return {"key": "color", "match": {"value": self.pick(COLORS)}}
        if kind == 1:
            return {"key": "tags", "match": {"any": [self.pick("abcdef"), self.pick("abcdef")]}}
        return {"key": "price", "range": {"gte": float(self.rng.integers(0, 60)), "lt": 90.0}}

    def filter(self):
        clause = self.pick(["must", "should", "must_not"])
        return {clause: [self.condition() for _ in range(self.rng.integers(1, 3))]}

    # -- steps

    def step(self, query, *, share=0.4, limit=15):
        out = {"query": query, "using": self.pick(DISTANCES), "limit": int(self.rng.integers(1, limit))}
        return out | ({"filter": self.filter()} if self.chance(share) else {})

    def root(self, query):
        out = self.step(query)
        return out | ({"offset": int(self.rng.integers(1, 6))} if self.chance(0.3) else {})

    def nearest(self):
        out = self.root(self.example() if self.chance(0.5) else {"nearest": self.example()})
        if self.chance(0.5):
            low, high = {"Cosine": (-0.5, 0.8), "Dot": (-3, 4), "Euclid": (2, 5), "Manhattan": (5, 11)}[
                out["using"]
            ]
            out["score_threshold"] = float(self.rng.uniform(low, high))
        return out

    def mmr(self):
        mmr = {"diversity": float(self.rng.uniform())} | (
            {"candidates_limit": int(self.rng.integers(1, 40))} if self.chance(0.7) else {}
        )
        return self.root({"nearest": self.example(), "mmr": mmr})

    def recommend(self):
        strategy = self.pick(["average_vector", "best_score", "sum_scores"])
        positive = self.examples(1 if strategy == "average_vector" else 0, 3)
        negative = self.examples(0 if positive else 1, 3)
        body = {"positive": positive, "negative": negative, "strategy": strategy}
        return self.root({"recommend": body})

    def pairs(self, least):
        return [
            {"positive": self.example(), "negative": self.example()}
            for _ in range(self.rng.integers(least, 4))
        ]

    def discover(self):
        return self.root({"discover": {"target": self.example(), "context": self.pairs(0)}})

    def context(self):
        return self.root({"context": self.pairs(1)})

    def order_by(self):
        key = self.pick(["n", "n", "price", "when", "ranks"])
        body = {"key": key, "direction": self.pick(["asc", "desc"])}
        if self.chance(0.3):
            start = {"price": 50.0, "when": "2018-01-01T00:00:00Z"}.get(key, 150)
            body["start_from"] = start
        return self.root({"order_by": body}) | {"limit": 1_000, "offset": 0}

    def leaf(self):
        kind = self.pick(["nearest", "nearest", "recommend", "discover", "order_by"])
        if kind == "order_by":
            # One value a point, and no ties: the ranks are what a fusion adds up.
            return self.step({"order_by": {"key": "n", "direction": self.pick(["asc", "desc"])}})
        out = getattr(self, kind)()
        out.pop("offset", None)
        return out

    def prefetch(self, depth=1):
        if depth and self.chance(0.25):
            return self.step(self.example()) | {
                "prefetch": [self.leaf() | {"limit": 25}, self.leaf() | {"limit": 25}]
            }
        return self.leaf() | {"limit": int(self.rng.integers(3, 25))}

    def fusion(self):
        prefetch = [self.prefetch() for _ in range(self.rng.integers(1, 4))]
        weights = [float(w) for w in self.rng.choice([0.0, 0.5, 1.0, 2.5], len(prefetch))]
        query = [
            {"fusion": "rrf"},
            {"fusion": "dbsf"},
            {"rrf": {"k": int(self.rng.integers(1, 80))}},
            {"rrf": {"k": int(self.rng.integers(1, 80)), "weights": weights}},
        ][int(self.rng.integers(4))]
        if query == {"fusion": "dbsf"}:
            # The engine puts points that an order_by found before all others, whatever the score.
            prefetch = [p if "order_by" not in str(p) else self.step(self.vector()) for p in prefetch]
        return self.root(query) | {"prefetch": prefetch}

    def rescored(self):
        return self.nearest() | {"prefetch": [self.prefetch()], "limit": 20}

    def formula(self):
        prefetch = [self.prefetch() for _ in range(self.rng.integers(1, 3))]
        query = {"formula": self.expression(3)}
        if self.chance(0.8):
            query["defaults"] = {
                "price": self.pick(NUMBERS), "when": "2020-02-02", "deep.weight": 1.5, "$score[1]": self.pick(NUMBERS),
            }  # fmt: skip
        return self.root(query) | {"prefetch": prefetch, "limit": 40}

    def expression(self, depth):
        if not depth or self.chance(0.2):
            leaves = [self.pick(NUMBERS), "$score", "$score[1]", "price", "n", "deep.weight", self.condition(),
                      {"geo_distance": {"origin": {"lat": 10.0, "lon": 20.0}, "to": "place"}},
                      {"datetime": "2019-03-01T10:00:00Z"}, {"datetime_key": "when"}]  # fmt: skip
            return self.pick(leaves)
        kind = self.pick(["sum", "mult", "max", "min", "neg", "abs", "sqrt", "exp", "log10", "ln", "acosh", "div",
                          "pow", "lin_decay", "exp_decay", "gauss_decay"])  # fmt: skip
        below = [self.expression(depth - 1) for _ in range(self.rng.integers(1, 4))]
        if kind in ("sum", "mult", "max", "min"):
            return {kind: below}
        if kind == "div":
            by_zero = {"by_zero_default": self.pick(NUMBERS)} if self.chance(0.7) else {}
            return {kind: {"left": below[0], "right": below[-1]} | by_zero}
        if kind == "pow":
            return {kind: {"base": below[0], "exponent": self.pick(NUMBERS)}}
        if kind.endswith("_decay"):
            body = {
                "x": below[0],
                "target": below[-1],
                "scale": self.pick([0.5, 20.0, 1e6]),
                "midpoint": 0.25,
            }
            return {kind: {k: v for k, v in body.items() if k == "x" or self.chance(0.6)}}
        return {kind: below[0]}


def difference(request, ours, theirs, *, rtol=1e-5, atol=1e-5):
    """Return how two answers differ, None where they do not: points of one score in any order.

    Of points whose score is the first or the last one, offset and limit may have kept any.
    """
    if len(ours) != len(theirs):
        return f"{len(ours)} points and {len(theirs)}"
    ids, scores = [i for i, _ in ours], np.array([s for _, s in ours])
    other, expected = [i for i, _ in theirs], np.array([s for _, s in theirs])
    wrong = np.flatnonzero(~np.isclose(scores, expected, rtol=rtol, atol=atol))
    if len(wrong):
        return f"score {scores[wrong[0]]} and {expected[wrong[0]]} at {wrong[0]}"
    near = np.isclose(expected[1:], expected[:-1], rtol=rtol, atol=atol)
    starts = [0, *(np.flatnonzero(~near) + 1).tolist()]
    parts = list(zip(starts, [*starts[1:], len(ids)], strict=True))
    first, last = bool(request.get("offset")), len(ids) >= request.get("limit", 10)
    for start, end in parts[first : len(parts) - last]:
        if sorted(ids[start:end]) != sorted(other[start:end]):
            return f"points {ids[start:end]} and {other[start:end]} from {start}"
    return None
