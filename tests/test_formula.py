"""Formulas: the rules of Qdrant's engine one by one, and what they say when they fail."""

import datetime as dt
import math

import pyarrow as pa
import pytest

import vecdataset as vd

PAYLOAD = {
    "a": 5, "text": "x", "yes": True, "two": [1, 2], "one": [7], "null": None, "none": [], "nested": [[5]],
    "nulls": [None], "deep": {"x": 3, "list": [{"y": 4}]}, "big": 2**63 + 5, "digits": "5",
    "place": {"lat": 10.0, "lon": 20.0}, "places": [{"lat": 1.0, "lon": 2.0}], "nowhere": {"lat": 100.0, "lon": 20.0},
    "when": "2024-01-01T00:00:00.250Z", "day": "2024-01-01", "seconds": 1_700_000_000,
    "days": ["2024-01-01", "2024-01-02"],
}  # fmt: skip
ORIGIN = {"lat": 0.0, "lon": 0.0}
HUGE = {"sum": [1e38, 1e38, 1e38, 1e38]}


def div(left, right, **more):
    return {"div": {"left": left, "right": right, **more}}


def power(base, exponent):
    return {"pow": {"base": base, "exponent": exponent}}


def metres(to):
    return {"geo_distance": {"origin": ORIGIN, "to": to}}


def since(key):
    # Less the seconds up to 2024, or float32 would round the rest away.
    return {"sum": [{"datetime_key": key}, -1_704_067_200]}


RULES = [
    5, "$score", "$score[0]", "$score[1]", "$score[7]",
    "a", "text", "yes", "two", "one", "null", "none", "nested", "nulls", "missing", "deep.x", "deep.list[].y",
    "deep.list[0].y", "deep.list.y", "two[0]", "two[]", "one[]", "nested[]", "nested[][]", "big", "digits", "place",
    {"sum": []}, {"mult": []}, {"max": [1, "a"]}, {"min": [1, "a"]}, {"neg": "a"}, {"abs": -5},
    {"mult": [0, "missing"]}, {"mult": ["missing", 0]}, {"mult": [0, {"sqrt": -1}]}, {"mult": ["a", -2, 0.5]},
    div(1, 0), div(0, 0), div(0, "missing"), div(1, 0, by_zero_default=9), div(0, 0, by_zero_default=9), div("a", 2),
    {"sqrt": -1}, {"sqrt": 4}, {"ln": 0}, {"ln": -1}, {"ln": 2}, {"log10": 0}, {"log10": 100}, {"exp": 1000},
    {"exp": -1000}, {"exp": 1}, {"acosh": 0.5}, {"acosh": 2}, power(-8, 0.5), power(0, -1), power(0, 0), power("a", 2),
    {"min": [HUGE, 1]}, HUGE, {"neg": HUGE}, {"mult": [HUGE, 0]},
    metres("place"), metres("places"), metres("places[0]"), metres("nowhere"), metres("a"), metres("missing"),
    since("when"), since("day"), since("days"), since("days[1]"), since("seconds"), since("text"), since("missing"),
    {"sum": [{"datetime": "2024-01-01T00:00:00.75Z"}, -1_704_067_200]}, {"datetime": "2024-01-01"},
    {"lin_decay": {"x": 0.5}}, {"exp_decay": {"x": 0.5}}, {"gauss_decay": {"x": 0.5}}, {"lin_decay": {"x": "a"}},
    {"exp_decay": {"x": "a", "target": 3, "scale": 2, "midpoint": 0.3}},
    {"gauss_decay": {"x": "a", "target": 3, "scale": 2, "midpoint": 0.3}},
    {"lin_decay": {"x": "a", "target": 3, "scale": 8, "midpoint": 0.3}},
    {"lin_decay": {"x": 1, "midpoint": 0}}, {"lin_decay": {"x": 1, "midpoint": 1}},
    {"key": "a", "match": {"value": 5}}, {"key": "a", "match": {"value": 6}}, {"has_id": [0]}, {"has_id": [1]},
    {"should": [{"key": "text", "match": {"value": "x"}}]},
]  # fmt: skip
DEFAULTS = [
    ("missing", {"missing": 3}), ("missing", {"missing": "x"}), ("missing", {"missing": [3]}),
    ("missing", {"missing": True}), ("text", {"text": 3}), ("null", {"null": 4}), ("none", {"none": 4}),
    ("two", {"two": 4}), ("$score[1]", {"$score[1]": 2.5}), ("$score[1]", {"$score": 2.5}),
    ("$score[1]", {"$score[1]": "x"}), ("$score[1]", {"$score[1]": True}), (metres("missing"), {"missing": ORIGIN}),
    (since("missing"), {"missing": "2024-01-01"}), (since("missing"), {"missing": 5}),
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    module = pytest.importorskip(
        "qdrant_engine", reason="qdrant-edge-py is not installed", exc_type=ImportError
    )
    point = {"id": 0, "vector": {"Dot": [1.0, 0.0]}, "payload": PAYLOAD}
    return module.Engine(tmp_path_factory.mktemp("edge"), [point], 2, indexes=False)


@pytest.fixture(scope="module")
def one():
    collection = vd.create(
        "memory://formula-one", vectors={"Dot": vd.VectorParams(size=2, distance="Dot")}, exist_ok=True
    )
    collection.upsert([{"id": 0, "vector": {"Dot": [1.0, 0.0]}, "payload": PAYLOAD}])
    return collection


def request(formula, defaults=None):
    query = {"formula": formula} | ({"defaults": defaults} if defaults else {})
    return {"query": query, "prefetch": [{"query": [1.0, 0.0], "using": "Dot"}]}


def score(ask, error):
    """Return the score of the only point, None for an error."""
    try:
        found = ask()
    except error:
        return None
    return found["score"][0] if isinstance(found, dict) else found[0][1]


@pytest.mark.parametrize(("formula", "defaults"), [(r, None) for r in RULES] + DEFAULTS, ids=str)
def test_each_rule_is_that_of_the_engine(engine, one, formula, defaults):
    asked = request(formula, defaults)
    expected = score(lambda: engine.query(asked), Exception)
    found = score(
        lambda: one.query_qdrant(asked).to_arrow().select(["id", "score"]).to_pydict(), vd.InvalidInputError
    )

    assert found == (None if expected is None else pytest.approx(expected, rel=1e-5))


def value(collection, formula, **defaults):
    found = collection.query(
        {"formula": formula, "defaults": defaults}, prefetch=[{"query": [1.0, 0.0], "limit": 99}]
    )
    return dict(zip(found["id"].to_pylist(), found["score"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def typed():
    """Typed columns from a frame, one of them with nulls, and JSON of several types beside them."""
    collection = vd.create(
        "memory://formula-typed", vectors=vd.VectorParams(size=2, distance="Dot"), exist_ok=True
    )
    moments = pa.array(
        [dt.datetime(2024, 1, day + 1, tzinfo=dt.UTC) for day in range(4)], pa.timestamp("us", "UTC")
    )
    collection.upsert(pa.table({
        "id": pa.array(range(4), pa.uint64()),
        "vector": pa.array([[float(i), 1.0] for i in range(4)], pa.list_(pa.float32(), 2)),
        "n": pa.array([1, None, 3, 4], pa.int16()),
        "when": moments,
    }))  # fmt: skip
    collection.upsert(
        [
            {"id": 9, "vector": [9.0, 1.0], "n": 2.5, "mixed": 1},
            {"id": 8, "vector": [8.0, 1.0], "mixed": "one"},
        ]
    )
    return collection


def test_columns_and_their_nulls_are_read(typed):
    assert value(typed, "n", n=-1) == {0: 1, 1: -1, 2: 3, 3: 4, 8: -1, 9: 2.5}


def test_timestamps_count_in_seconds(typed):
    days = {
        "div": {
            "left": {"sum": [{"datetime_key": "when"}, {"neg": {"datetime": "2024-01-01"}}]},
            "right": 86_400,
        }
    }

    assert value(typed, days, when="2024-01-11") == {0: 0, 1: 1, 2: 2, 3: 3, 8: 10, 9: 10}


def test_conditions_see_columns_and_what_is_beside_them(typed):
    one_of = {
        "sum": [
            {"key": "mixed", "match": {"value": "one"}},
            {"mult": [2, {"key": "mixed", "match": {"value": 1}}]},
        ]
    }

    assert value(typed, one_of) == {0: 0, 1: 0, 2: 0, 3: 0, 8: 1, 9: 2}
    assert value(typed, vd.Filter("n > 2")) == {0: 0, 1: 0, 2: 1, 3: 1, 8: 0, 9: 1}
    assert set(value(typed, {"has_vector": ""}).values()) == {1.0}


def test_scores_of_several_prefetches_meet(typed):
    prefetch = [{"query": [1.0, 0.0], "limit": 2}, {"query": [-1.0, 0.0], "limit": 2, "filter": "n > 0"}]
    found = typed.query({"formula": {"sum": ["$score", {"mult": [10, "$score[1]"]}]}}, prefetch=prefetch)

    assert list(zip(found["id"].to_pylist(), found["score"].to_pylist(), strict=True)) == [
        (9, 9.0),
        (8, 8.0),
        (0, 0.0),
        (2, -20.0),
    ]


def test_no_candidates_are_no_points(typed):
    prefetch = [{"query": [1.0, 0.0], "filter": "n > 99"}]

    assert len(typed.query({"formula": {"ln": "missing"}}, prefetch=prefetch)) == 0


def test_an_empty_collection_has_nothing_to_score():
    empty = vd.create("memory://formula-empty", vectors=vd.VectorParams(size=2), exist_ok=True)

    assert len(empty.query({"formula": "$score"}, prefetch=[{"query": [1.0, 0.0]}])) == 0


WRONG = {
    "operation": ({"sqr": 4}, "neither an expression nor a condition", "did you mean 'sqrt'"),
    "variable": ("$scores", r"'\$scores'", None),
    "index": ("$score[x]", "only variables", None),
    "empty variable": ("", "empty text", None),
    "path": ("a b", "no path into a payload", "paths look like"),
    "list": ([1, 2], "made of numbers", None),
    "null": (None, "made of numbers", None),
    "bool": (True, "made of numbers", None),
    "infinite": (math.inf, "finite number", None),
    "empty max": ({"max": []}, "at least one", None),
    "operands": ({"sum": 3}, "list of expressions", None),
    "two keys": ({"sum": [1], "mult": [2]}, "an expression has one", None),
    "half a quotient": ({"div": {"left": 1}}, "no 'right'", None),
    "key of a quotient": ({"div": {"left": 1, "right": 2, "by_zero": 3}}, "'by_zero'", "did you mean 'by_zero_default'"),
    "datetime": ({"datetime": "junk"}, "no date or time", None),
    "origin": ({"geo_distance": {"origin": {"lat": 91, "lon": 0}, "to": "p"}}, "-90 to 90", None),
    "scale": ({"gauss_decay": {"x": 1, "scale": 0}}, "greater than 0", None),
    "midpoint": ({"exp_decay": {"x": 1, "midpoint": 1.0}}, "between 0 and 1", None),
    "linear midpoint": ({"lin_decay": {"x": 1, "midpoint": 1.5}}, "0 to 1", None),
    "deep": ({"sum": [1, {"mult": [{"abs": {"neg": "$x"}}]}]}, r"formula\.sum\[1\]\.mult\[0\]\.abs\.neg", None),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_formula_that_does_not_parse_is_refused(typed, case):
    formula, words, hint = WRONG[case]

    with pytest.raises(vd.InvalidInputError, match=words) as caught:
        value(typed, formula)
    assert hint is None or hint in caught.value.hint


def test_a_default_of_no_variable_is_refused(typed):
    with pytest.raises(vd.InvalidInputError, match="defaults names"):
        typed.query({"formula": 1, "defaults": {"$scor": 1}}, prefetch=[{"query": [1.0, 0.0]}])


def test_a_failure_names_the_point_and_what_it_holds(typed):
    with pytest.raises(
        vd.InvalidInputError, match="point 1 of collection 'formula-typed': has nothing under 'n'"
    ) as caught:
        value(typed, "n")
    with pytest.raises(
        vd.InvalidInputError, match=r"point 8 .*: has 'one' under 'mixed'; the formula needs a number"
    ):
        value(typed, "mixed", mixed=0)
    with pytest.raises(vd.InvalidInputError, match=r"point 9 .*: 1.0 / 0.0 in the formula is inf"):
        value(typed, {"div": {"left": 1, "right": {"sum": [{"neg": "$score"}, 9]}}})

    assert caught.value.hint == "defaults={'n': …} says what then counts"
