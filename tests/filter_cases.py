"""Random filters in Qdrant's JSON, of every condition and any depth, drawn from a seed."""

import random
from collections import Counter

from test_filters_qdrant import FLOATS, HOLE, INTS, PLACES, RING, TEXTS, TIMES

PATHS = [
    "a", "b", "b[].a", "b[0].a", "b.a", "a[]", "a.a", "a.b", "a[].a", "k-1", '"odd key"', "g", "b[].c", "b[]",
]  # fmt: skip
PLAIN = ["a", "b", "b[0].a", "b.a", "a.a", "k-1", '"odd key"', "g"]
ALL = {
    "ints": INTS[:-1],
    "floats": [*map(float, INTS), *FLOATS],
    "times": [t for t in TIMES if t not in {"2024-13-01", "2024-02-30", "20240101"}],
    "words": [*TEXTS, "apple", "दुनिया", "RED", "y"],
    "texts": TEXTS,
}
MILD = {
    "ints": [i for i in INTS if abs(i) < 2**53],
    "floats": [0.0, 1.0, -1.0, 2.0, *(f for f in FLOATS if f < 1e300)],
    "times": ["2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2023-12-31"],
    "words": [w for w in [*TEXTS, "apple", "RED", "y"] if "न" not in w],
    "texts": [t for t in TEXTS if "न" not in t],
}
"""Values about which the oracles agree."""
CONDITIONS = (
    "match.value", "match.any", "match.except", "match.text", "match.text_any", "match.phrase", "match.prefix",
    "match.substring", "range", "datetime_range", "values_count", "geo_radius", "geo_bounding_box", "geo_polygon",
    "field.is_null", "field.is_empty", "is_null", "is_empty", "has_id", "has_vector", "nested",
)  # fmt: skip
CLAUSES = ("must", "should", "must_not", "min_should")


class FilterCases:
    """Draws filters, and counts what it drew: conditions, clauses, and depths."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.drawn = Counter()
        self.depths = Counter()

    def draw(self):
        """Return one filter."""
        wanted = self.rng.choice([1, 2, 3, 3, 4, 5])
        self.deepest = 0
        self.values = MILD if self.rng.random() < 0.7 else ALL
        spec = self.group(wanted, 1)
        self.depths[self.deepest] += 1
        return spec

    def group(self, left, depth):
        self.deepest = max(self.deepest, depth)
        out = {}
        for clause in self.rng.sample(CLAUSES, self.rng.choice([1, 1, 2])):
            self.drawn[clause] += 1
            # One branch goes all the way down.
            below = [self.condition(left, depth)]
            below += [self.condition(self.rng.randrange(left), depth) for _ in range(self.rng.randrange(3))]
            self.rng.shuffle(below)
            if clause == "min_should":
                out[clause] = {"conditions": below, "min_count": self.rng.randrange(1, 4)}
            else:
                out[clause] = below
        return out

    def condition(self, left, depth):
        if left > 1:
            if self.rng.random() < 0.15:
                self.drawn["nested"] += 1
                self.deepest = max(self.deepest, depth + 1)
                return {"nested": {"key": "b", "filter": {"must": [self.condition(left - 2, depth + 1)]}}}
            return self.group(left - 1, depth + 1)
        kind = self.rng.choice(CONDITIONS)
        self.drawn[kind] += 1
        return self.leaf(kind)

    def leaf(self, kind):
        pick = self.rng.choice
        if kind == "nested":
            inner = pick([k for k in CONDITIONS if k not in ("nested", "has_id", "has_vector")])
            return {
                "nested": {"key": "b", "filter": {pick(("must", "should", "must_not")): [self.leaf(inner)]}}
            }
        if kind in ("is_null", "is_empty"):
            return {kind: {"key": pick(PATHS)}}
        if kind == "has_id":
            return {"has_id": [self.rng.randrange(260) for _ in range(self.rng.randrange(5))]}
        if kind == "has_vector":
            return {"has_vector": pick(["v", "w"])}
        if kind.startswith("field."):
            return {"key": pick(PLAIN), kind.removeprefix("field."): pick([True, False])}
        return {"key": pick(PATHS), **self.test(kind)}

    def test(self, kind):
        pick = self.rng.choice
        if kind == "match.value":
            return {"match": {"value": pick(self.values[pick(["texts", "ints"])])}}
        if kind in ("match.any", "match.except"):
            values = self.values[pick(["texts", "ints"])]
            return {
                "match": {kind.removeprefix("match."): [pick(values) for _ in range(self.rng.randrange(4))]}
            }
        if kind.startswith("match."):
            return {"match": {kind.removeprefix("match."): pick(self.values["words"])}}
        if kind == "range":
            return {"range": self.bounds(self.values["floats"])}
        if kind == "datetime_range":
            return {"range": self.bounds(self.values["times"])}
        if kind == "values_count":
            return {"values_count": self.bounds(range(4))}
        if kind == "geo_radius":
            return {"geo_radius": {"center": pick(PLACES[:3]), "radius": pick([1.0, 2e5, 1e7])}}
        if kind == "geo_bounding_box":
            return {"geo_bounding_box": {"top_left": pick(PLACES[:3]), "bottom_right": pick(PLACES[:3])}}
        holes = [{"interiors": [{"points": HOLE}]}, {}]
        return {"geo_polygon": {"exterior": {"points": RING}} | pick(holes)}

    def bounds(self, values):
        sides = self.rng.sample(["lt", "lte", "gt", "gte"], self.rng.choice([1, 2]))
        return {side: self.rng.choice(values) for side in sides}
