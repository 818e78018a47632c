"""What filters mean, how they read and write themselves, and what they say of mistakes."""

import datetime as dt
import pickle
import random
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from test_filters_lance import make_rows, qdrant_filters, sql_filters

from vecdataset.errors import InvalidFilterError, NotSupportedError, UnknownNameError
from vecdataset.filters import Filter, check_names, compile_lance
from vecdataset.schema import PayloadColumn

UTC = dt.UTC
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=UTC)


POINTS = [{"id": i, "payload": p} for i, p in enumerate(make_rows(random.Random(3), 80)[0])]


def matched(parsed):
    return [p["id"] for p in POINTS if parsed.matches(p)]


def matches(spec, /, **payload):
    return Filter(spec).matches({"id": 1, "payload": payload})


def compiled(spec, columns=(), extra_keys=(), **options):
    found = {k: PayloadColumn(name=k, type=t) for k, t in dict(columns).items()}
    options = {"id_type": "uint64", "vectors": {}, **options}
    return compile_lance(Filter(spec), columns=found, extra_keys=extra_keys, **options)


# ------------------------------------------------------------------ what is what


@pytest.mark.parametrize(
    ("spec", "written"),
    [
        ({}, {}),
        ({"must": None}, {}),
        ({"must": {"key": "a", "match": {"value": 1}}}, {"must": [{"key": "a", "match": {"value": 1}}]}),
        ({"a": 1}, {"must": [{"key": "a", "match": {"value": 1}}]}),
        ({"a": 0.5}, {"must": [{"key": "a", "range": {"gte": 0.5, "lte": 0.5}}]}),
        ({"a": ["x", "y"]}, {"must": [{"key": "a", "match": {"any": ["x", "y"]}}]}),
        ({"must": "x"}, {"must": [{"key": "must", "match": {"value": "x"}}]}),
        ({"id": [3, 4]}, {"must": [{"has_id": [3, 4]}]}),
        ({"field": "a", "match": {"value": 1}}, {"must": [{"key": "a", "match": {"value": 1}}]}),
        ({"is_empty": {"key": "a"}}, {"must": [{"is_empty": {"key": "a"}}]}),
        ("a > 5 AND id = 2", {"must": [{"key": "a", "range": {"gt": 5}}, {"has_id": [2]}]}),
        ("a LIKE 'x%'", {"must": [{"key": "a", "match": {"prefix": "x"}}]}),
        ("a.b IN ('x', 'y')", {"must": [{"key": "a.b", "match": {"any": ["x", "y"]}}]}),
        ("a IS NULL", {"must": [{"is_empty": {"key": "a"}}]}),
        ("NOT a > 5", {"must": [{"key": "a", "range": {"lte": 5}}]}),
        (
            "a >= DATE '2024-01-01'",
            {"must": [{"key": "a", "range": {"gte": "2024-01-01T00:00:00Z"}}]},
        ),
    ],
)
def test_a_filter_is_read_for_what_it_is(spec, written):
    assert Filter(spec).to_qdrant() == written


def test_a_sub_filter_may_stand_in_three_ways():
    inner = {"should": [{"has_id": [1]}, {"has_id": [2]}]}

    found = [
        Filter({"must": [c]})
        for c in (inner, {"filter": inner}, {"nested": inner}, {"nested": {"filter": inner}})
    ]

    assert [Filter(inner)] * 4 == found


def test_a_radius_may_come_in_metres_and_whole_words():
    spec = {"must": [{"key": "p", "geo_radius": {"latitude": 1, "longitude": 2, "radius_meters": 5}}]}

    assert Filter(spec).to_qdrant()["must"][0]["geo_radius"] == {
        "center": {"lat": 1.0, "lon": 2.0},
        "radius": 5.0,
    }


@pytest.mark.slow
def test_models_of_the_qdrant_client_are_taken():
    models = pytest.importorskip("qdrant_client", reason="the models come with qdrant-client").models
    match = models.FieldCondition(key="a", match=models.MatchExcept(**{"except": ["x"]}))

    assert Filter({"must": [{"key": "a", "match": {"except": ["x"]}}]}) == Filter(models.Filter(must=[match]))


# ----------------------------------------------------------------------- meaning


def test_integers_and_floats_are_kept_apart_by_match_and_not_by_sql():
    match = [matches({"a": 5}, a=v) for v in (5, 5.0, True, "5", [4, 5])]
    sql = [matches("a = 5", a=v) for v in (5, 5.0, True, "5", [4, 5])]

    assert match == [True, False, False, False, True]
    assert sql == [True, True, False, False, False]


def test_large_numbers_compare_exactly():
    assert matches("a > 9007199254740992.0", a=2**53 + 1)
    assert not matches("a = 9007199254740992.0", a=2**53 + 1)
    assert matches("a = 18446744073709551615", a=2**64 - 1)


@pytest.mark.parametrize(
    "value",
    [NOON, NOON.replace(tzinfo=None), "2024-01-01T13:00:00+01:00", np.datetime64(NOON.replace(tzinfo=None))],
)
def test_times_compare_as_instants_however_they_are_stored(value):
    assert matches({"key": "t", "range": {"gte": "2024-01-01T12:00:00Z", "lte": "2024-01-01 12:00"}}, t=value)
    assert matches("t = TIMESTAMP '2024-01-01 12:00:00'", t=value)
    assert matches({"t": NOON}, t=value)
    assert not matches("t > TIMESTAMP '2024-01-01 12:00:00'", t=value)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (Decimal("1.5"), 1.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (np.array([1, 2]), 2),
        (("a", "b"), "b"),
        (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_values_of_other_libraries_are_what_they_mean(stored, asked):
    assert matches({"a": asked}, a=stored)


def test_bytes_are_there_and_equal_nothing():
    assert not matches({"a": "x"}, a=b"x")
    assert matches({"must_not": [{"is_empty": {"key": "a"}}]}, a=b"x")
    assert not matches("a = 'x' OR a <> 'x'", a=b"x")


def test_none_asks_for_what_is_missing_or_null():
    assert [matches({"a": None}, **p) for p in ({}, {"a": None}, {"a": []}, {"a": 0})] == [
        True,
        True,
        False,
        False,
    ]
    assert matches({"a": ["x", None]}, b=1)


def test_uuids_are_the_same_in_every_spelling():
    plain = "550e8400-e29b-41d4-a716-446655440000"
    spellings = [plain.upper(), plain.replace("-", ""), f"urn:uuid:{plain}", f"{{{plain}}}", uuid.UUID(plain)]

    assert all(Filter({"must": [{"has_id": [s]}]}).matches({"id": plain}) for s in spellings)
    assert all(Filter({"must": [{"has_id": [plain]}]}).matches({"id": i}) for i in (plain, uuid.UUID(plain)))


def test_an_unnamed_vector_has_the_empty_name():
    has = Filter({"must": [{"has_vector": ""}]})

    assert [has.matches({"id": 1, "vector": v}) for v in ([0.5], None, {"image": [0.5]})] == [
        True,
        False,
        False,
    ]


def test_objects_in_an_array_are_told_apart_only_by_nested():
    parts = [{"kind": "sole", "count": 2}, {"kind": "lace", "count": 4}]
    kind, count = {"key": "kind", "match": {"value": "sole"}}, {"key": "count", "match": {"value": 4}}
    across = [{**kind, "key": "parts[].kind"}, {**count, "key": "parts[].count"}]

    assert matches({"must": across}, parts=parts)
    assert not matches(
        {"must": [{"nested": {"key": "parts", "filter": {"must": [kind, count]}}}]}, parts=parts
    )


# ----------------------------------------------------------------- joining, writing


def test_filters_are_joined_with_text_and_dicts():
    joined = (Filter("a > 1") & {"b": "x"}) | "c = 2"

    assert {"a", "b", "c"} == joined.keys
    assert joined.matches({"payload": {"a": 2, "b": "x"}})
    assert joined.matches({"payload": {"c": 2}})
    assert not joined.matches({"payload": {"a": 2}})


def test_not_keeps_null_in_sql_and_not_in_json():
    assert not (~Filter("a > 1")).matches({"payload": {}})
    assert (~Filter({"a": 1})).matches({"payload": {}})


def test_values_of_different_types_make_different_filters():
    assert len({Filter({"a": 1}), Filter({"a": 1.0}), Filter({"a": True}), Filter({"a": "1"})}) == 4
    assert Filter("a  =  1") == Filter("(a = 1)")


def test_a_filter_cannot_be_changed_and_can_be_sent():
    some = Filter("a > 1 AND matches('{\"has_id\": [1]}')")

    assert some == pickle.loads(pickle.dumps(some))
    with pytest.raises(AttributeError, match="immutable"):
        some._node = None


quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@quick
@given(spec=qdrant_filters)
def test_json_survives_being_written_and_read_again(spec):
    parsed = Filter(spec)
    again = Filter(parsed.to_qdrant())

    assert parsed.to_qdrant() == again.to_qdrant()
    assert again == eval(repr(again))
    assert matched(parsed) == matched(again) == matched(Filter(parsed.to_sql()))


@quick
@given(text=sql_filters)
def test_any_sql_text_survives_being_written_and_read_again(text):
    parsed = Filter(text)

    assert parsed == Filter(parsed.to_sql())
    assert parsed == eval(repr(parsed))


@pytest.mark.parametrize(
    "text",
    [
        "a = 1 OR b = 2 AND c = 3",
        "(a = 1 OR b = 2) AND c = 3",
        "NOT (a = 1 AND b = 2)",
        "a - (b - c) > -(-1.5)",
        "(a = 1) = (b = 2)",
        '"odd ""name""".x = \'it\'\'s\'',
        '"select" IS NOT NULL AND "IN" IN (\'a\', NULL)',
        "a NOT LIKE '%''%' AND NOT b AND a IN []",
        "list_has_any(tags, ['a', 1, NULL]) OR t < TIMESTAMP '2024-01-01 00:00:00.000000001'",
        "(a IS NULL) IS NOT TRUE",
        """matches('{"key": "a", "match": {"text": "it''s"}}') AND id IN (1, 'x')""",
    ],
)
def test_text_written_from_a_filter_parses_to_it(text):
    parsed = Filter(text)

    assert parsed == Filter(parsed.to_sql())
    assert parsed == eval(repr(parsed))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lower(a) = 'x'", r"lower\(\)"),
        ("a + 1 > 2", r"\+"),
        ("a LIKE 'a_b'", "LIKE"),
        ("a ILIKE 'x'", "ILIKE"),
        ("id > 5", "comparison >"),
        ("a < 'x'", "ranges hold numbers and dates"),
        ("a = b", "comparison ="),
        ("ends_with(a, 'x')", r"ends_with\(\)"),
    ],
)
def test_sql_without_a_form_in_qdrant_says_so(text, named):
    with pytest.raises(NotSupportedError, match=named):
        Filter(text).to_qdrant()


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("price >> 3", 7, "expected a value, found '>'"),
        ("price > ", 8, "found the end"),
        ("a = 'x", 4, "a quote that never closes"),
        ("a = 1 AND\n  (b = 2", 18, r"expected '\)'"),
        ("foo(1)", 0, "unknown function 'foo'"),
        ("lower(a, b) = 'x'", 0, "has 2 arguments"),
        ("d = DATE '2024-13-01'", 9, "cannot be read"),
        ("a BETWEEN 1 OR 2", 12, "expected 'AND' after BETWEEN"),
        ("a = 1 = 2", 6, "expected AND, OR or the end"),
        ("a = 1 anx b = 2", 6, "found 'anx'"),
        ("a = $1", 4, "unexpected character"),
        ("a[1] = 2", 1, "found '\\['"),
        ("12abc > 3", 2, "unexpected 'a' after the number"),
        ("a = 1e999", 4, "too large"),
        ("list_has_any(a, [b])", 16, "something else than values"),
        ("a IS 5", 5, "expected NULL, TRUE or FALSE"),
        ("matches('{')", 8, "no JSON"),
        ("", 0, "empty"),
        ("(" * 500 + "a" + ")" * 500, 61, "more than 60 levels"),
        ("a" + " + 1" * 500 + " > 2", 402, "more than 100 operators"),
    ],
)
def test_a_mistake_in_sql_text_says_where_it_is(text, position, message):
    with pytest.raises(InvalidFilterError, match=message) as caught:
        Filter(text)

    assert position == caught.value.position


def test_a_mistake_is_shown_under_its_line():
    with pytest.raises(InvalidFilterError) as caught:
        Filter("price > 10\n  AND (a = = 2)")

    assert str(caught.value).splitlines()[1:] == ["    AND (a = = 2)", "             ^"]


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ({"musst": [{}]}, "holds an object", "did you mean 'must'"),
        ({"must": [{"key": "a", "match": {"value": 1}}], "lang": "en"}, "holds an object", "not both"),
        ({"must": [{"key": "a", "mach": {"value": 1}}]}, "'mach'", "did you mean 'match'"),
        ({"must": [{"key": "a", "match": {"vlaue": 1}}]}, "'vlaue'", "did you mean 'value'"),
        ({"must": [{"isempty": {"key": "a"}}]}, "'isempty'", "did you mean 'is_empty'"),
        ({"must": [{"match": {"value": 1}}]}, "'match'", "beside a 'key'"),
        ({"must": [{"key": "a b", "match": {"value": 1}}]}, "no path", "paths look like"),
        ({"must": [{"key": "a"}]}, "no condition", "conditions: match"),
        ({"must": [{"key": "a", "range": {"gt": True}}]}, "True; expected a number", None),
        ({"must": [{"key": "a", "range": {"gt": "soon"}}]}, "expected a date", "dates look like"),
        ({"must": [{"key": "a", "match": {"except": ["x", 1]}}]}, "only texts or only integers", "must_not"),
        ({"must": [{"key": "a", "match": {"value": 1, "any": [2]}}]}, "one kind of match", None),
        (
            {"must": [{"key": "a", "geo_radius": {"center": {"lat": 91, "lon": 0}, "radius": 1}}]},
            "lat 91",
            None,
        ),
        ({"must": [{"key": "a", "geo_polygon": {"exterior": {"points": []}}}]}, "at least 4", None),
        ({"must": [{"has_id": [1.5]}]}, "expected an id", None),
        ({"must": [{"has_id": [1], "has_vector": "x"}]}, "expected one condition", None),
        ({"min_should": {"conditions": []}}, "expected a number of conditions", None),
        (5, "expected SQL text", "price < 10"),
        (None, "expected SQL text", "price < 10"),
    ],
)
def test_a_mistake_in_json_says_what_and_where(spec, message, hint):
    with pytest.raises(InvalidFilterError, match=message) as caught:
        Filter(spec)

    assert hint is None or hint in caught.value.hint


def test_a_filter_nested_too_deep_is_refused():
    spec = {"key": "a", "match": {"value": 1}}
    for _ in range(300):
        spec = {"must": [spec]}

    with pytest.raises(InvalidFilterError, match="levels"):
        Filter(spec)


def test_unknown_names_are_mistakes_in_text_and_in_flat_dicts_only():
    known = {"price", "author"}

    with pytest.raises(UnknownNameError, match="'prise'") as caught:
        check_names(Filter("author.name = 'x' AND prise < 3 AND id = 1"), known)
    assert "did you mean 'price'?" in caught.value.hint
    with pytest.raises(UnknownNameError, match="'lang'"):
        check_names(Filter({"lang": None}), known)
    check_names(Filter({"must": [{"key": "prise", "match": {"value": 3}}]}), known)
    check_names(Filter('price < 3 AND matches(\'{"key": "x", "match": {"value": 1}}\')'), known)


def test_double_quotes_around_a_text_get_a_hint():
    with pytest.raises(UnknownNameError) as caught:
        check_names(Filter('lang = "en"'), {"lang"})

    assert "single quotes" in caught.value.hint


# --------------------------------------------------------------------- compiling


def test_plain_comparisons_stay_plain_so_that_indexes_help():
    columns = {"i": pa.int64(), "s": pa.utf8(), "tags": pa.list_(pa.utf8())}

    assert compiled("i = 5 AND s LIKE 'a%'", columns).clean == "`i` = 5 AND `s` LIKE 'a%'"
    assert (
        compiled({"must": [{"key": "i", "range": {"gt": 5, "lte": 9.5}}]}, columns).clean
        == "`i` >= 6 AND `i` <= 9"
    )
    assert compiled({"tags": ["a", "b"]}, columns).clean == "array_has_any(`tags`, ['a', 'b'])"


def test_a_text_cannot_leave_its_quotes():
    hostile = "x' OR true --"

    assert compiled({"s": hostile}, {"s": pa.utf8()}).clean == "`s` = 'x'' OR true --'"
    assert compiled({"a`b": 1}, {"a`b": pa.int64()}).dirty == "true"


def test_a_key_that_is_nowhere_costs_nothing():
    assert compiled("nowhere > 5").clean == "false"
    assert compiled({"must_not": [{"key": "nowhere", "match": {"value": 1}}]}).clean == "true"


def test_only_rows_that_mention_a_key_are_decided_one_by_one():
    found = compiled("i > 5 AND s = 'x'", {"i": pa.int64(), "s": pa.utf8()}, extra_keys={"s", "other"})

    assert (
        found.clean == """`i` >= 6 AND `s` = 'x' AND (`_extra` IS NULL OR NOT contains(`_extra`, '"s":'))"""
    )
    assert found.dirty == """contains(`_extra`, '"s":') AND `i` >= 6"""
    assert found.columns == ("i", "s")


def test_without_the_extra_column_there_are_no_extra_keys():
    assert compiled("s = 'x'", {"s": pa.utf8()}, extra_keys={"s"}, has_extra=False).dirty is None


def test_what_lance_cannot_say_is_narrowed_down_by_the_rest():
    text = {"key": "s", "match": {"text": "Red shoes"}}
    found = compiled({"must": [text, {"key": "i", "range": {"gt": 5}}]}, {"i": pa.int64(), "s": pa.utf8()})

    assert found.clean == "false"
    assert (
        found.dirty
        == "`s` IS NOT NULL AND contains(lower(`s`), 'red') AND contains(lower(`s`), 'shoes') AND `i` >= 6"
    )


def test_vectors_that_undecided_rows_need_are_named():
    has = {"must": [{"has_vector": "image"}, {"key": "o.b", "match": {"value": 1}}]}
    found = compiled(has, extra_keys={"o"}, vectors={"image": "image__vector"})

    assert found.dirty == """contains(`_extra`, '"o":') AND `image__vector` IS NOT NULL"""
    assert found.vectors == ("image",)


def test_long_lists_stay_one_condition():
    ids = list(range(10_000))

    assert compiled({"i": ids}, {"i": pa.int64()}).clean.startswith("`i` IN (0, 1, 2")
    assert compiled({"id": ids}).clean.startswith("`id` IN (")
    assert not Filter({"i": ids}).matches({"payload": {"i": 10_000}})


def test_nested_counts_do_not_grow_without_bounds():
    spec = {"key": "i", "range": {"gt": 5}}
    for n in range(30):
        others = [{"key": "i", "match": {"value": n}}, {"key": "s", "match": {"value": str(n)}}]
        spec = {"min_should": {"conditions": [spec, *others], "min_count": 2}}

    assert len(compiled(spec, {"i": pa.int64(), "s": pa.utf8()}).clean) < 100_000
