"""The view of a collection answers every predicate as a DuckDB table of the same rows does."""

import datetime
import decimal
import math
import random
import uuid

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
import vecdataset.duckdb

ROWS = 3_000
hands_over_predicates = pytest.mark.skipif(
    duckdb.__version__ < "2", reason="before DuckDB 2.0, predicates are decided after reading"
)
SEED = 20_260


def some_lat(rng):
    return rng.choice([math.nan, math.inf, None, -0.0, rng.randrange(90) - 45.5])


def frame(rows=ROWS, seed=SEED):
    rng = random.Random(seed)
    day = datetime.date(2020, 1, 1)
    floats = [0.0, -0.0, 1.5, -2.25, math.nan, math.inf, -math.inf, 1e-300, 3.0, None]

    def some(values):
        return [rng.choice(values) for _ in range(rows)]

    return pa.table({
        "id": pa.array(range(rows), pa.uint64()),
        "vector": pa.array([[rng.random(), rng.random()] for _ in range(rows)], pa.list_(pa.float32(), 2)),
        "int": pa.array(some([*range(-5, 30), None]), pa.int64()),
        "small": pa.array(some([*range(-3, 9), None]), pa.int8()),
        "float": pa.array(some(floats), pa.float64()),
        "single": pa.array(some([*floats[:7], 0.1, None]), pa.float32()),
        "text": pa.array(some(["", "hat", "Hat", "it's", "naïve", "ha%t", "日本", None]), pa.string()),
        "flag": pa.array(some([True, False, None]), pa.bool_()),
        "day": pa.array([None if i % 7 == 0 else day + datetime.timedelta(i % 50) for i in range(rows)]),
        "moment": pa.array(
            [None if i % 9 == 0 else datetime.datetime.fromisoformat("2020-01-01") + datetime.timedelta(hours=i % 99) for i in range(rows)],
            pa.timestamp("us"),
        ),
        "geo": pa.array(
            [None if i % 11 == 0 else {"lat": some_lat(rng), "name": f"p{i % 5}", "deep": {"n": i % 8, "f": some_lat(rng)}} for i in range(rows)],
            pa.struct([("lat", pa.float64()), ("name", pa.string()), ("deep", pa.struct([("n", pa.int32()), ("f", pa.float32())]))]),
        ),
        "half": pa.array(some([0.5, 1.25, -3.0, math.nan, math.inf, None]), pa.float32()).cast(pa.float16()),
        "price": pa.array(some([decimal.Decimal("1.50"), decimal.Decimal("-2.25"), decimal.Decimal("99999.99"), None]), pa.decimal128(10, 2)),
        "big": pa.array(some([0, 1, 2**53 + 1, 2**63, 2**64 - 1, None]), pa.uint64()),
        "huge": pa.array(some([-(2**63), 2**63 - 1, 2**53, 0, None]), pa.int64()),
        "seconds": pa.array(some([None, *(datetime.datetime.fromisoformat("1969-12-31T23:59:58") + datetime.timedelta(seconds=n) for n in range(5))]), pa.timestamp("s")),
        "zoned": pa.array(some([None, *(datetime.datetime.fromisoformat("2020-06-01T12:00:00+00:00") + datetime.timedelta(hours=n) for n in range(5))]), pa.timestamp("us", "UTC")),
        "clock": pa.array(some([None, datetime.time(0, 0), datetime.time(12, 30), datetime.time(23, 59, 59)]), pa.time64("us")),
        "numbers": pa.array(some([[], [1, 2], [3], [None, 4], None]), pa.list_(pa.int32())),
        "tags": pa.array([None if i % 5 == 0 else [f"t{i % 3}", "x"] for i in range(rows)], pa.list_(pa.string())),
    })  # fmt: skip


@pytest.fixture(scope="module")
def con(tmp_path_factory):
    """A connection with the same rows as the view `vec.things` and the table `plain`."""
    root = tmp_path_factory.mktemp("root")
    things = vd.create(root / "things", vectors=vd.VectorParams(size=2, distance="Euclid"))
    things.insert(frame())
    things.create_payload_index("int")
    things.create_payload_index("text", "bitmap")
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, str(root))
    given = frame()
    half = given["half"].cast(pa.float32())  # DuckDB knows no float16
    con.register("given", given.set_column(given.schema.get_field_index("half"), "half", half))
    con.execute("CREATE TABLE plain AS FROM given")
    return con


ATOMS = [
    lambda r: f"int {r.choice(['=', '!=', '<', '<=', '>', '>='])} {r.randint(-6, 31)}",
    lambda r: f"int BETWEEN {r.randint(-6, 10)} AND {r.randint(5, 31)}",
    lambda r: f"int {r.choice(['', 'NOT '])}IN ({r.randint(-6, 10)}, {r.randint(5, 31)}, 7)",
    lambda r: f"small {r.choice(['=', '!=', '<', '>='])} {r.randint(-4, 10)}",
    lambda r: (
        f"float {r.choice(['=', '!=', '<', '<=', '>', '>='])} {r.choice(['0', '-0.0', '1.5', '-2.25', '3', '1e-300'])}"
    ),
    lambda r: f"float {r.choice(['=', '!=', '<', '>'])} '{r.choice(['nan', 'inf', '-inf'])}'::DOUBLE",
    lambda r: f"float {r.choice(['', 'NOT '])}IN (1.5, 0.0, 3)",
    lambda r: f"float BETWEEN {r.choice(['-3', '0', '1'])} AND {r.choice(['1.5', '3', '1e9'])}",
    lambda r: (
        f"single {r.choice(['=', '!=', '<', '<=', '>', '>='])} {r.choice(['0.1', '0.1::FLOAT', '1.5', '0', '-2'])}"
    ),
    lambda r: f"isnan(float) = {r.choice(['true', 'false'])}",
    lambda r: "text {} '{}'".format(
        r.choice(["=", "!=", "<", ">", "<=", ">="]), r.choice(["", "hat", "it''s", "naïve", "日本", "zz"])
    ),
    lambda r: f"text {r.choice(['LIKE', 'NOT LIKE', 'ILIKE'])} '{r.choice(['ha%', '%t', '%a%', '_at'])}'",
    lambda r: f"text {r.choice(['', 'NOT '])}IN ('hat', 'it''s', '日本')",
    lambda r: f"length(text) {r.choice(['=', '>'])} 3",
    lambda r: (
        f"{r.choice(['int', 'float', 'text', 'flag', 'day', 'moment', 'geo', 'tags'])} IS {r.choice(['', 'NOT '])}NULL"
    ),
    lambda r: r.choice(["flag", "NOT flag", "flag = true", "flag IS NOT TRUE", "flag != false"]),
    lambda r: f"day {r.choice(['=', '<', '>=', '!='])} DATE '2020-01-{r.randint(1, 28):02}'",
    lambda r: (
        f"moment {r.choice(['<', '>=', '='])} TIMESTAMP '2020-01-0{r.randint(1, 5)} 0{r.randint(0, 9)}:00:00'"
    ),
    lambda r: f"moment::DATE = DATE '2020-01-0{r.randint(1, 5)}'",
    lambda r: f"geo.lat {r.choice(['<', '>', '<=', '=', '!='])} {r.choice(['0.5', '-20', '30.5'])}",
    lambda r: f"geo.name = 'p{r.randint(0, 6)}'",
    lambda r: f"list_contains(tags, 't{r.randint(0, 3)}')",
    lambda r: f"len(tags) = {r.randint(0, 3)}",
    lambda r: f"id {r.choice(['=', '<', '>', '!='])} {r.randint(0, ROWS)}",
    lambda r: f"id IN ({r.randint(0, ROWS)}, {r.randint(0, ROWS)})",
    lambda r: f"id % {r.randint(2, 9)} = 1",
    lambda r: f"int + small > {r.randint(-5, 30)}",
    lambda r: f"vector[1] > {r.random():.3f}",
    lambda r: f"coalesce(int, -1) = {r.randint(-2, 5)}",
    lambda r: f"geo.deep.n {r.choice(['=', '<', '>=', '!='])} {r.randint(0, 8)}",
    lambda r: f"geo.deep.f {r.choice(['=', '<', '>=', '!=', '>', '<='])} {r.choice(FLOATS)}",
    lambda r: f"geo.lat {r.choice(['=', '<', '>=', '!=', '>', '<='])} {r.choice(FLOATS)}",
    lambda r: f"geo.{r.choice(['lat', 'name', 'deep', 'deep.f'])} IS {r.choice(['', 'NOT '])}NULL",
    lambda r: f"half {r.choice(['=', '<', '>=', '!=', '>', '<='])} {r.choice(FLOATS)}",
    lambda r: (
        f"{r.choice(['float', 'single', 'half'])} {r.choice(['=', '<', '>=', '!=', '>', '<='])} {r.choice(FLOATS)}"
    ),
    lambda r: f"{r.choice(['float', 'single'])} BETWEEN {r.choice(FLOATS)} AND {r.choice(FLOATS)}",
    lambda r: (
        f"{r.choice(['float', 'single'])} {r.choice(['', 'NOT '])}IN ({r.choice(FLOATS)}, {r.choice(FLOATS)})"
    ),
    lambda r: (
        f"price {r.choice(['=', '<', '>=', '!='])} {r.choice(['1.5', '-2.25', '99999.99', '0', '1e9'])}"
    ),
    lambda r: (
        f"big {r.choice(['=', '<', '>=', '!='])} {r.choice(['0', '9007199254740993', '9223372036854775808', '18446744073709551615'])}"
    ),
    lambda r: f"big IN ({r.choice(['1', '9223372036854775808'])}, 18446744073709551615)",
    lambda r: (
        f"huge {r.choice(['=', '<=', '>', '!='])} {r.choice(['-9223372036854775808', '9223372036854775807', '9007199254740992'])}"
    ),
    lambda r: f"seconds {r.choice(['=', '<', '>=', '!='])} TIMESTAMP '1970-01-01 00:00:0{r.randint(0, 3)}'",
    lambda r: (
        f"zoned {r.choice(['=', '<', '>=', '!='])} TIMESTAMPTZ '2020-06-01 {r.randint(11, 16)}:00:00+00'"
    ),
    lambda r: (
        f"clock {r.choice(['=', '<', '>=', '!='])} TIME '{r.choice(['00:00:00', '12:30:00', '23:59:59', '13:00:00'])}'"
    ),
    lambda r: f"day BETWEEN DATE '2020-01-{r.randint(1, 20):02}' AND DATE '2020-02-{r.randint(1, 20):02}'",
    lambda r: f"day {r.choice(['', 'NOT '])}IN (DATE '2020-01-{r.randint(1, 28):02}', DATE '2020-02-03')",
    lambda r: f"day + INTERVAL {r.randint(1, 9)} DAY > DATE '2020-02-01'",
    lambda r: f"date_part('dow', day) = {r.randint(0, 6)}",
    lambda r: f"list_contains(numbers, {r.randint(1, 4)})",
    lambda r: f"numbers[1] {r.choice(['=', '>', '!='])} {r.randint(0, 4)}",
    lambda r: f"numbers = {r.choice(['[]', '[1, 2]', '[3]', '[NULL, 4]'])}",
    lambda r: f"tags IN (['t{r.randint(0, 3)}', 'x'], ['none'])",
    lambda r: (
        f"{r.choice(['int', 'small', 'big'])} {r.choice(['', 'NOT '])}IN ({r.randint(0, 5)}, NULL, {r.randint(0, 9)})"
    ),
    lambda r: f"text {r.choice(['', 'NOT '])}IN ('hat', NULL)",
    lambda r: f"int IS {r.choice(['', 'NOT '])}DISTINCT FROM {r.choice(['3', 'NULL', 'small'])}",
    lambda r: f"text IS {r.choice(['', 'NOT '])}DISTINCT FROM {r.choice([repr('hat'), 'NULL'])}",
    lambda r: (
        f"{r.choice(['int < small', 'int = small', 'float > single', 'big > int', 'text > geo.name', 'float >= int'])}"
    ),
    lambda r: f"text {r.choice(['LIKE', 'NOT LIKE'])} {r.choice(WORDS)}",
    lambda r: (
        f"{r.choice(['starts_with', 'ends_with', 'contains'])}(text, '{r.choice(['h', 'a', 't', '%', '日'])}')"
    ),
    lambda r: f"lower(text) = '{r.choice(['hat', ''])}'",
    lambda r: f"CASE WHEN flag THEN int ELSE small END > {r.randint(-3, 9)}",
    lambda r: f"vec.l2_distance(vector, [0.5, {r.random():.2f}]) < {r.random():.2f}",
    lambda r: f"int = {r.choice(['3.0', '3.5', '2.9999', '99999999999', 'NULL'])}",
    lambda r: f"int > {r.choice(['3.5', '-2.5'])} AND int < {r.choice(['9.5', '12'])}",
    lambda r: f"small {r.choice(['=', '<', '>='])} {r.choice(['300', '-300', '127', '2.5'])}",
    lambda r: f"flag {r.choice(['=', '!=', '<', '>='])} {r.choice(['true', 'false', 'NULL'])}",
]
FLOATS = [
    "0", "-0.0", "1.5", "-2.25", "3", "0.1", "0.1::FLOAT", "1e-300", "1e300",
    "'nan'::DOUBLE", "'inf'::DOUBLE", "'-inf'::DOUBLE", "'nan'::FLOAT", "'inf'::FLOAT",
]  # fmt: skip
WORDS = ["'hat'", "'h_t'", "'ha!%t' ESCAPE '!'", "'%'", "''", "'%日%'", "'na_ve'", "'H%'"]


def predicate(r, depth=0):
    roll = r.random()
    if depth > 2 or roll < 0.45:
        return r.choice(ATOMS)(r)
    if roll < 0.6:
        return f"NOT ({predicate(r, depth + 1)})"
    return f"({predicate(r, depth + 1)}) {r.choice(['AND', 'OR'])} ({predicate(r, depth + 1)})"


def answers(con, table, predicates, columns):
    """One statement for many predicates costs less than one for each; the scans are the same."""
    return [con.execute(f"SELECT {columns} FROM {table} WHERE {p}").fetchone() for p in predicates]


CHECK = "count(*), bit_xor(hash(id)), bit_xor(hash(text)), bit_xor(hash(int))"


def mismatches(con, seed, count):
    r = random.Random(seed)
    predicates = [predicate(r) for _ in range(count)]
    found = answers(con, "vec.things", predicates, CHECK)
    expected = answers(con, "plain", predicates, CHECK)
    return [(p, f, e) for p, f, e in zip(predicates, found, expected, strict=True) if f != e]


def test_forty_random_predicates_agree_with_a_table(con):
    assert mismatches(con, SEED, 40) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_predicates_agree_with_a_table(con, seed):
    assert mismatches(con, 1_000 + seed, 500) == []


@pytest.mark.parametrize("sign", ["=", "!=", "<=", ">"])
def test_the_least_integer_can_be_compared(con, sign):
    statement = f"SELECT count(*) FROM {{}} WHERE huge {sign} {-(2**63)}"

    found = con.execute(statement.format("vec.things")).fetchone()

    assert found == con.execute(statement.format("plain")).fetchone()


@pytest.mark.parametrize("atom", range(len(ATOMS)))
def test_each_kind_of_predicate_agrees_with_a_table_also_negated(con, atom):
    r = random.Random(atom)
    predicates = [p for _ in range(3) for a in [ATOMS[atom](r)] for p in (a, f"NOT ({a})")]

    found = answers(con, "vec.things", predicates, CHECK)

    assert found == answers(con, "plain", predicates, CHECK)


def test_joins_groups_and_orders_agree_with_a_table(con):
    statement = (
        "SELECT a.flag, count(*), sum(b.small), max(a.text) FROM {0} a JOIN {0} b ON a.id = b.int "
        "WHERE a.float < 5 GROUP BY ALL ORDER BY ALL"
    )

    found = con.execute(statement.format("vec.things")).fetchall()

    assert found == con.execute(statement.format("plain")).fetchall()


ORDERS = [
    "int, id",
    "float DESC, id",
    "text NULLS FIRST, id DESC",
    "single, big DESC, id",
    "geo.lat DESC NULLS LAST, id",
]


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_of_an_order_agree_with_a_table(con, order):
    """DuckDB narrows such a scan while it runs."""
    statement = f"SELECT id FROM {{}} WHERE small < 7 ORDER BY {order} LIMIT 7"

    found = con.execute(statement.format("vec.things")).fetchall()

    assert found == con.execute(statement.format("plain")).fetchall()


@pytest.mark.parametrize("key", ["int", "text", "float", "day", "big", "geo.deep.n"])
def test_a_selective_join_agrees_with_a_table(con, key):
    """DuckDB hands what the small side holds to the scan of the large one."""
    statement = f"SELECT count(*), sum(a.id) FROM {{0}} a JOIN (SELECT * FROM plain WHERE id IN (7, 70, 700)) b ON a.{key} = b.{key}"

    found = con.execute(statement.format("vec.things")).fetchall()

    assert found == con.execute(statement.format("plain")).fetchall()


def test_all_columns_come_back_as_they_were(con):
    names = ", ".join(f'"{c[0]}"' for c in con.execute("DESCRIBE vec.things").fetchall())
    names = names.replace(
        '"zoned"', "epoch_us(zoned)"
    )  # to read such a time Python would need the package pytz
    found = con.execute(f"SELECT {names} FROM vec.things ORDER BY id").fetchall()

    expected = con.execute(f"SELECT {names} FROM plain ORDER BY id").fetchall()

    assert str(found) == str(expected)  # NaN is not equal to itself


@hands_over_predicates
def test_explain_shows_the_filter_and_the_columns_that_are_read(con):
    plan = con.execute("EXPLAIN SELECT id FROM vec.things WHERE int > 5 AND text = 'hat'").fetchall()[0][1]
    scan = plan[plan.index("PYTHON_ARROW_SCAN") :] if "PYTHON_ARROW_SCAN" in plan else plan

    assert "Filters" in scan
    assert "int" in scan
    assert "vector" not in scan


def read_columns(monkeypatch):
    from vecdataset.engine import Table

    seen = []
    scan = Table.scan

    def watched(self, columns=None, **options):
        seen.append((tuple(columns or ()), options.get("limit"), options.get("filter")))
        return scan(self, columns, **options)

    monkeypatch.setattr(Table, "scan", watched)
    return seen


def test_a_scan_reads_only_the_columns_that_are_used(con, monkeypatch):
    seen = read_columns(monkeypatch)

    con.execute("SELECT sum(int) FROM vec.things WHERE geo.lat > 3").fetchall()

    assert {c for columns, _, _ in seen for c in columns} == {"int", "geo"}


@hands_over_predicates
def test_lance_narrows_what_it_can_say_for_certain(con, monkeypatch):
    seen = read_columns(monkeypatch)

    con.execute("SELECT id FROM vec.things WHERE int > 5 AND single > 0.5").fetchall()

    assert [filter for *_, filter in seen] == ["(`int` > 5)"]


def test_a_limit_does_not_read_everything(tmp_path, monkeypatch):
    many = vd.create(tmp_path / "many", vectors=vd.VectorParams(size=2))
    rows = 400_000
    many.insert((range(rows), np.ones((rows, 2), np.float32)))
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, many)
    seen = read_columns(monkeypatch)

    con.execute("SELECT vector FROM vec.many LIMIT 10").fetchall()

    assert all(limit is not None for _, limit, _ in seen)
    assert sum(limit for _, limit, _ in seen) < rows / 4


def test_new_points_are_seen_at_once_and_new_columns_after_refresh(tmp_path):
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(size=2))
    books.upsert([{"id": 1, "vector": [1, 0], "title": "a"}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, str(tmp_path))
    books.upsert([{"id": 2, "vector": [0, 1], "title": "b", "year": 1999}])

    assert con.execute("SELECT id, title FROM vec.books ORDER BY id").fetchall() == [(1, "a"), (2, "b")]
    assert con.execute("SELECT vec.refresh()").fetchall() == [("1 collection",)]
    assert con.execute("SELECT id, year FROM vec.books ORDER BY id").fetchall() == [(1, None), (2, 1999)]


def test_a_version_has_a_view_of_its_own(tmp_path):
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(size=2))
    books.upsert([{"id": 1, "vector": [1, 0]}])
    version = books.version
    books.upsert([{"id": 2, "vector": [1, 0]}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, str(tmp_path))

    assert con.execute(f'SELECT id FROM vec."books@{version}"').fetchall() == [(1,)]
    assert con.execute("SELECT count(*) FROM vec.books").fetchall() == [(2,)]


@pytest.mark.parametrize(
    "ids", [["a", "b"], [str(uuid.UUID(int=1)), str(uuid.UUID(int=2))], [1, str(uuid.UUID(int=2))]]
)
def test_text_ids_are_text(tmp_path, ids):
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(size=2))
    c.upsert([{"id": i, "vector": [1, 0], "payload": {"n": n}} for n, i in enumerate(ids)])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)

    assert con.execute("SELECT id FROM vec.c ORDER BY n").fetchall() == [(str(i),) for i in ids]
    assert con.execute("SELECT count(*) FROM vec.c WHERE id = $1", [str(ids[1])]).fetchall() == [(1,)]


def test_json_that_has_no_column_stands_in_extra(tmp_path):
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(size=2))
    c.upsert([{"id": 1, "vector": [1, 0], "payload": {"a": {"b": [1, "x"]}, "n": 2}}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)

    assert con.execute("SELECT n, _extra::JSON->'$.a.b[1]' FROM vec.c").fetchall() == [(2, '"x"')]
    assert con.execute("SELECT n, _extra::JSON->>'$.a.b[0]' FROM vec.c.search([1, 0])").fetchall() == [
        (2, "1")
    ]
