"""The view of a collection answers every predicate as a DuckDB table of the same rows does."""

import datetime
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
SEED = 20_260


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
            [None if i % 11 == 0 else {"lat": i % 90 - 45.5, "name": f"p{i % 5}"} for i in range(rows)],
            pa.struct([("lat", pa.float64()), ("name", pa.string())]),
        ),
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
    exported = things.to_arrow()
    con.register("exported", exported)
    con.execute("CREATE TABLE plain AS SELECT * FROM exported")
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
]


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
@pytest.mark.parametrize("seed", range(6))
def test_random_predicates_agree_with_a_table(con, seed):
    assert mismatches(con, 1_000 + seed, 500) == []


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


def test_all_columns_come_back_as_they_were(con):
    found = con.execute("SELECT * FROM vec.things ORDER BY id").fetchall()
    names = ", ".join(f'"{c[0]}"' for c in con.execute("DESCRIBE vec.things").fetchall())

    expected = con.execute(f"SELECT {names} FROM plain ORDER BY id").fetchall()

    assert str(found) == str(expected)  # NaN is not equal to itself


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
