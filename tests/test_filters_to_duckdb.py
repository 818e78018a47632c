"""Filters written as DuckDB's SQL, against `Filter.matches`: over columns, and over payloads as JSON."""

import json

import duckdb
import pyarrow as pa
import pytest
import test_filters_lance as typed
import test_filters_qdrant as plain
from hypothesis import HealthCheck, given, settings

import vecdataset as vd
from vecdataset.filters import Filter, compile_duckdb

SLACK = list(HealthCheck)
quick = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=SLACK)
thorough = settings(max_examples=600, deadline=None, suppress_health_check=SLACK)


class Columns:
    """The rows of `test_filters_lance.py` in DuckDB."""

    def __init__(self, path, id_type):
        stored = typed.Stored(path, 7, id_type)
        self.points, self.id_type = stored.points, id_type
        rows = stored.dataset.to_table()
        at = rows.column_names.index("f16")
        rows = rows.set_column(at, "f16", rows["f16"].cast(pa.float32()))
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'Asia/Tokyo'")
        self.con.register("arrow", rows.append_column("_row", pa.array(range(len(rows)))))
        self.con.execute("CREATE TABLE t AS FROM arrow")

    def found(self, parsed):
        sql = compile_duckdb(
            parsed, columns=typed.COLUMNS, extra_keys=typed.EXTRA, id_type=self.id_type,
            vectors={"image": "image__vector"},
        )  # fmt: skip
        return [r for (r,) in self.con.execute(f"SELECT _row FROM t WHERE {sql} ORDER BY 1").fetchall()]

    def expected(self, parsed):
        return [r for r, point in enumerate(self.points) if parsed.matches(point)]


@pytest.fixture(scope="module", params=["uint64", "uuid", "string", "mixed"])
def columns(request, tmp_path_factory):
    return Columns(str(tmp_path_factory.mktemp("duck") / "rows.lance"), request.param)


@quick
@given(spec=typed.qdrant_filters)
def test_columns_give_what_a_qdrant_filter_matches(columns, spec):
    parsed = Filter(spec)

    assert columns.expected(parsed) == columns.found(parsed)


@pytest.mark.slow
@thorough
@given(spec=typed.qdrant_filters)
def test_columns_give_what_many_qdrant_filters_match(columns, spec):
    parsed = Filter(spec)

    assert columns.expected(parsed) == columns.found(parsed)


# ------------------------------------------------------------------------ SQL text


def found_or_refused(rows, parsed):
    try:
        return rows.found(parsed)
    except vd.NotSupportedError:
        return None


@quick
@given(text=typed.sql_filters)
def test_columns_give_what_sql_text_matches_or_it_is_refused(columns, text):
    parsed = Filter(text)

    assert found_or_refused(columns, parsed) in (None, columns.expected(parsed))


@pytest.mark.slow
@thorough
@given(text=typed.sql_filters)
def test_columns_give_what_much_sql_text_matches_or_it_is_refused(columns, text):
    parsed = Filter(text)

    assert found_or_refused(columns, parsed) in (None, columns.expected(parsed))


# ------------------------------------------------------------------------ payloads


class Payloads:
    """The payloads of `test_filters_qdrant.py` as a column of JSON."""

    def __init__(self):
        self.con = duckdb.connect()
        texts = [json.dumps(p["payload"]) for p in plain.POINTS]
        self.con.register("arrow", pa.table({"n": range(len(texts)), "text": texts}))
        self.con.execute("CREATE TABLE t AS SELECT n, text::JSON AS payload FROM arrow")

    def found(self, parsed):
        sql = parsed.to_duckdb()
        return [r for (r,) in self.con.execute(f"SELECT n FROM t WHERE {sql} ORDER BY 1").fetchall()]

    def expected(self, parsed):
        return [n for n, p in enumerate(plain.POINTS) if parsed.matches({"payload": p["payload"]})]


@pytest.fixture(scope="module")
def payloads():
    return Payloads()


@quick
@given(spec=plain.filters | plain.many_tests)
def test_payloads_give_what_a_filter_matches(payloads, spec):
    parsed = Filter(spec)

    assert payloads.expected(parsed) == payloads.found(parsed)


@pytest.mark.slow
@thorough
@given(spec=plain.filters | plain.many_tests)
def test_payloads_give_what_many_filters_match(payloads, spec):
    parsed = Filter(spec)

    assert payloads.expected(parsed) == payloads.found(parsed)


# -------------------------------------------------------------------------- by hand


def written(spec, **columns):
    payload = {k: vd.schema.PayloadColumn(name=k, type=t) for k, t in columns.items()}
    return compile_duckdb(Filter(spec), columns=payload, extra_keys=(), id_type="uint64", vectors={})


@pytest.mark.parametrize(
    ("spec", "sql"),
    [
        ("price < 10 AND lang = 'en'", """("price" < 10) AND ("lang" = 'en')"""),
        ({"key": "price", "range": {"gte": 2.5, "lt": 10}}, """("price" >= 2.5e0) AND ("price" < 10)"""),
        ({"key": "lang", "match": {"any": ["en", "it's"]}}, """"lang" IN ('en', 'it''s')"""),
        (
            {"must_not": [{"key": "lang", "match": {"value": "en"}}]},
            """("lang" = 'en') IS NOT TRUE""",
        ),
        ({"key": "at", "range": {"gte": "2024-01-01"}}, """"at" >= TIMESTAMP '2024-01-01 00:00:00'"""),
        ({"must": [{"has_id": [3, 1]}]}, '"id" IN (1, 3)'),
        ("list_contains(tags, 'red')", """len(list_filter("tags", lambda v0: v0 = 'red')) > 0"""),
        ("nowhere = 1", "NULL::BOOLEAN"),
        ("[1, 5] = [1, 5] OR 2 > 3", "true"),
        ("tags = ['a', 'it''s']", """"tags" = ['a', 'it''s']::VARCHAR[]"""),
        ("tags <> ['a', NULL]", """"tags" <> ['a', NULL]::VARCHAR[]"""),
    ],
)
def test_plain_filters_are_plain_sql(spec, sql):
    types = {
        "price": pa.float64(), "lang": pa.string(), "at": pa.timestamp("us"), "tags": pa.list_(pa.string()),
    }  # fmt: skip

    assert written(spec, **types) == sql


@pytest.mark.parametrize("key", ["", "a.b", 'say "hi"', "back\\slash", "0", "*", "$", "a/b~c", "it's", "ké"])
def test_any_key_is_found_in_a_payload(key):
    sql = Filter('"' + key.replace('"', '""') + '" = 5').to_duckdb("p")
    text = json.dumps({key: 5})
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {sql} FROM (SELECT ?::JSON AS p)", [text]).fetchone() == (True,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tags = scores", "lists cannot be compared whole"),
        ("list_has_any(tags, scores)", "take a constant list"),
        ("coalesce(tags, ['a']) = tags", "constant list"),
    ],
)
def test_what_duckdb_cannot_say_is_refused(text, words):
    with pytest.raises(vd.NotSupportedError, match=words):
        written(text, tags=pa.list_(pa.string()), scores=pa.list_(pa.int64()))


def test_whole_lists_of_text_are_compared_as_the_filter_does():
    tags = [["a", "it's"], ["a"], ["a", None], [], None, ["it's", "a"], ["a\0"]]
    table = pa.table({"n": range(len(tags)), "tags": pa.array(tags, pa.list_(pa.string()))})
    for text in ("tags = ['a', 'it''s']", "tags <> ['a']", "tags = []", "tags = ['a\0']"):
        sql = written(text, tags=pa.list_(pa.string()))
        with duckdb.connect() as con:
            found = con.register("t", table).execute(f"SELECT n FROM t WHERE {sql} ORDER BY n").fetchall()
        expected = [
            (n,) for n, value in enumerate(tags) if Filter(text).matches({"payload": {"tags": value}})
        ]
        assert found == expected, text


@pytest.mark.parametrize("text", ["İstanbul", "ΟΔΟΣ ΑΣ1 Σ", "straße ŉ ﬁ ΐ", "DŽ Ａ", "1Σ ΑΣΑ"])
def test_letters_change_case_as_in_python(text):
    with duckdb.connect() as con:
        for case in ("lower", "upper"):
            to = getattr(text, case)().replace("'", "''")
            sql = Filter(f"{case}(x) = '{to}'").to_duckdb("p")
            ask = f"SELECT {sql} FROM (SELECT ?::JSON AS p)"
            assert con.execute(ask, [json.dumps({"x": text})]).fetchone() == (True,), case


# ------------------------------------------------------------------------ in a view


def test_a_filter_stands_in_a_statement_over_a_view():
    import vecdataset.duckdb as sql

    shop = vd.create("memory://where-shop", vectors={"v": vd.VectorParams(2), "w": vd.VectorParams(2)})
    shop.upsert(
        [
            {
                "id": 1,
                "vector": {"v": [1, 2]},
                "payload": {"price": 5, "tags": ["a"], "o": {"deep": "Red Shoe"}},
            },
            {"id": 2, "vector": {"w": [1, 2]}, "payload": {"price": 7.5, "tags": [], "o": 3}},
            {"id": 3, "vector": {"v": [1, 2]}, "payload": {"price": "free", "tags": None}},
        ]
    )
    con = duckdb.connect()
    sql.attach(con, {"shop": shop})
    specs = [
        "price < 6", "price = 'free'", "price * 2 > 12 OR id = 1", {"tags": "a"}, {"must": [{"has_vector": "v"}]},
        {"must": [{"key": "o.deep", "match": {"text": "shoe"}}]}, {"must_not": [{"is_empty": {"key": "tags"}}]},
        {"must": [{"is_null": {"key": "tags"}}]}, None,
    ]  # fmt: skip

    for spec in specs:
        found = con.sql(
            f"SELECT id FROM vec.shop s WHERE {shop.where(spec, table='s')} ORDER BY id"
        ).fetchall()
        assert [i for (i,) in found] == shop.scroll(filter=spec)["id"].to_pylist(), spec
    assert shop.count(specs[0]) == 1


def test_a_filter_names_only_keys_that_are_there():
    shop = vd.create("memory://where-names", vectors=vd.VectorParams(2))
    shop.upsert([{"id": 1, "vector": [1, 2], "price": 5}])

    with pytest.raises(vd.UnknownNameError, match="'pirce'"):
        shop.where("pirce < 3")
