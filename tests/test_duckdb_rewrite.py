"""`vecdataset.duckdb.sql` answers through a search exactly what the statement says, or leaves it alone."""

import math
import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
import vecdataset.duckdb
from vecdataset.duckdb import questions

SIZE = 4
ROWS = 600


def points(seed=5):
    rng = random.Random(seed)
    vectors = np.random.default_rng(seed).standard_normal((ROWS, SIZE)).astype(np.float32)
    return pa.table({
        "id": pa.array(range(ROWS), pa.uint64()),
        "vector": pa.array(vectors.tolist(), pa.list_(pa.float32(), SIZE)),
        "second": pa.array(vectors[::-1].tolist(), pa.list_(pa.float32(), SIZE)),
        "n": [rng.choice([None, *range(-5, 6)]) for _ in range(ROWS)],
        "x": pa.array([rng.choice([None, math.nan, math.inf, -0.0, 0.0, 1.5, 2.0, -3.25]) for _ in range(ROWS)]),
        "s": [rng.choice([None, "", "a", "A", "é", "it's", "a%"]) for _ in range(ROWS)],
        "b": [rng.choice([None, True, False]) for _ in range(ROWS)],
        "short": pa.array([rng.choice([None, 1.5, 2.5]) for _ in range(ROWS)], pa.float32()),
    })  # fmt: skip


@pytest.fixture(scope="module")
def con(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    vectors = {"": vd.VectorParams(SIZE), "second": vd.VectorParams(SIZE, distance="Euclid")}
    c = vd.create(root / "exact things", vectors=vectors)
    c.upsert(points(), vectors={"": "vector", "second": "second"})
    c.upsert([{"id": 9_000, "vector": {}, "payload": {"n": 1, "s": "a", "mixed": 1}}])
    c.upsert([{"id": 9_001, "vector": {"": [0, 0, 0, 0]}, "payload": {"n": 1, "mixed": "one"}}])
    for name, distance in (("dots", "Dot"), ("blocks", "Manhattan")):
        vd.create(root / name, vectors=vd.VectorParams(SIZE, distance=distance)).upsert(
            points().drop_columns(["second"])
        )
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, root)
    return con


QUERY = [0.3, -1.0, 0.25, 0.5]
THINGS = 'vec."exact things"'

REWRITTEN = [
    (f"SELECT id, s FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) LIMIT 7", [QUERY]),
    (f"SELECT * FROM {THINGS} t ORDER BY vec.cosine_distance(t.vector, $q::FLOAT[4]) LIMIT $k", {"q": QUERY, "k": 5}),
    (f"SELECT n * 2 AS twice, id FROM {THINGS} ORDER BY vec.cosine_distance($1, vector) LIMIT 3 OFFSET 4", [QUERY]),
    (f"SELECT id FROM {THINGS} WHERE n > $2 ORDER BY vec.cosine_distance(vector, $1) LIMIT $3 OFFSET $4", [QUERY, 2, 4, 2]),
    (f"SELECT id, vec.main.cosine_distance(vector, [1, 2, 3, 4]) AS d FROM {THINGS} WHERE b ORDER BY d LIMIT 9", None),
    (f"SELECT id FROM {THINGS} WHERE s = 'it''s' ORDER BY vec.l2_distance(second__vector, $1) LIMIT 4", [QUERY]),
    ('FROM vec.main."exact things" ORDER BY vec.cosine_distance(vector, $1::FLOAT[4]) LIMIT 2', [QUERY]),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, (SELECT vector FROM {THINGS} WHERE id = 5)) LIMIT 3", None),
    (f"SELECT id FROM {THINGS} ORDER BY array_distance(second__vector, $1::FLOAT[4]) LIMIT 3", [QUERY]),
    ("SELECT id, s FROM vec.dots ORDER BY vec.inner_product(vector, $1) DESC LIMIT 4", [QUERY]),
    ("SELECT id FROM vec.dots ORDER BY list_negative_inner_product(vector, $1) LIMIT 4", [QUERY]),
    ("SELECT id FROM vec.blocks WHERE id BETWEEN 100 AND 200 ORDER BY vec.manhattan_distance(vector, $1) LIMIT 4", [QUERY]),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "params"), REWRITTEN)
def test_a_rewritten_statement_has_the_same_rows(con, statement, params):
    plain = con.execute(statement, params) if params is not None else con.execute(statement)
    columns, rows = [(c[0], str(c[1])) for c in plain.description], plain.fetchall()

    found = vecdataset.duckdb.sql(con, statement, params)

    assert found.rewritten, found.how
    assert "_near" in found.text
    shown = zip(found.relation.columns, map(str, found.relation.types), strict=True)
    assert [c for c, _ in columns] == [c for c, _ in shown]
    assert repr(found.fetchall()) == repr(rows)


ATOMS = [
    lambda r: f"n {r.choice(['=', '!=', '<', '>', '<=', '>='])} {r.randint(-6, 6)}",
    lambda r: f"{r.randint(-6, 6)} {r.choice(['=', '<>', '<', '>'])} n",
    lambda r: (
        f"x {r.choice(['=', '!=', '<', '>', '<=', '>='])} {r.choice(['0', '1.5', '-0.0', '2', '1e300'])}"
    ),
    lambda r: f"s {r.choice(['=', '!=', '<', '>='])} {r.choice(['$$a$$', 'chr(97)', repr('é'), repr('')])}",
    lambda r: f"n {r.choice(['', 'NOT '])}IN ({r.randint(-5, 0)}, {r.randint(0, 5)})",
    lambda r: f"x {r.choice(['', 'NOT '])}BETWEEN {r.randint(-3, 0)} AND {r.randint(0, 3)}",
    lambda r: f"{r.choice(['n', 'x', 's', 'b', 'mixed', 'short'])} IS {r.choice(['', 'NOT '])}NULL",
    lambda r: r.choice(["b", "b = true", "b != false", "NOT b"]),
    lambda r: f"short > {r.choice(['1', '1.5'])}",
    lambda r: f"n > {r.choice(['1.5', '$$2$$'])}",
    lambda r: f"mixed = {r.choice(['1', '$$one$$'])}",
]


def where(rng, depth=2):
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(ATOMS)(rng)
    if rng.random() < 0.2:
        return f"NOT ({where(rng, depth - 1)})"
    return f"({where(rng, depth - 1)} {rng.choice(['AND', 'OR'])} {where(rng, depth - 1)})"


@pytest.mark.slow
def test_any_where_keeps_its_rows(con):
    rng = random.Random(11)
    rewritten = 0

    for _ in range(150):
        statement = (
            f"SELECT id, s FROM {THINGS} WHERE ({where(rng)}) AND vector IS NOT NULL "
            if rng.random() < 0.2
            else f"SELECT id, s FROM {THINGS} WHERE {where(rng)} "
        ) + f"ORDER BY vec.cosine_distance(vector, $1), id LIMIT {rng.randint(1, 40)}".replace(", id", "")
        try:
            rows = con.execute(statement, [QUERY]).fetchall()
        except duckdb.Error:
            continue  # a type that DuckDB itself refuses
        found = vecdataset.duckdb.sql(con, statement, [QUERY])
        rewritten += found.rewritten

        assert [r for r in rows if r[0] != 9_000] == [r for r in found.fetchall() if r[0] != 9_000], statement

    assert rewritten > 40


LEFT_ALONE = [
    (f"SELECT id FROM {THINGS} ORDER BY vec.l2_distance(vector, $1) LIMIT 3", "declared with Cosine"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) DESC LIMIT 3", "no distance, nearest first"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1)", "ORDER BY and LIMIT"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1), id LIMIT 3", "more than one thing"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) NULLS FIRST LIMIT 3", "come first"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) LIMIT 10%", "LIMIT"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) LIMIT 0", "LIMIT"),
    (f"SELECT DISTINCT n, vec.cosine_distance(vector, $1) d FROM {THINGS} ORDER BY d LIMIT 3", "ORDER BY and LIMIT"),
    (f"SELECT id, row_number() OVER () FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "window"),
    (f"SELECT unnest([1, 2]) FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "unnest"),
    (f"SELECT a.id FROM {THINGS} a, range(2) ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "one collection alone"),
    (f"WITH t AS (SELECT 1) SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "WITH"),
    (f"SELECT id FROM {THINGS} a ORDER BY vec.cosine_distance(vector, (SELECT a.second__vector || $1[:0])) LIMIT 3", "does not bind"),
    (f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, second__vector || $1[:0]) LIMIT 3", "one given vector"),
    (f"SELECT id FROM {THINGS} WHERE s LIKE 'a%' ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "WHERE"),
    (f"SELECT id FROM {THINGS} WHERE short > 1 ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "another type"),
    (f"SELECT id FROM {THINGS} WHERE mixed = 1 ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "no values of its column"),
    (f"SELECT id FROM {THINGS} WHERE n < id ORDER BY vec.cosine_distance(vector, $1) LIMIT 3", "another type"),
    ('SELECT id FROM vec."exact things@2" ORDER BY vec.cosine_distance(vector, $1) LIMIT 3', "is not the view"),
    (f"SELECT id FROM {THINGS} ORDER BY array_cosine_distance(vector, $1::FLOAT[4]) LIMIT 3", "have no cosine"),
    ("SELECT [1]::FLOAT[] v ORDER BY vec.cosine_distance(v, $1[:1]) LIMIT 3", "one collection alone"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "reason"), LEFT_ALONE)
def test_a_statement_that_is_left_alone_says_why(con, statement, reason):
    found = vecdataset.duckdb.sql(con, statement, [QUERY])

    assert not found.rewritten
    assert found.text == statement
    assert reason in found.how
    assert repr(sorted(found.fetchall())) == repr(sorted(con.execute(statement, [QUERY]).fetchall()))


def test_statements_without_rows_run_too(con):
    assert vecdataset.duckdb.sql(con, "CREATE TEMP TABLE made (n INTEGER)").fetchall() == []
    con.execute("INSERT INTO made VALUES (1)")
    assert vecdataset.duckdb.sql(con, "FROM made").to_arrow().to_pylist() == [{"n": 1}]


def test_a_mistake_is_the_error_of_duckdb(con):
    with pytest.raises(duckdb.ParserException):
        vecdataset.duckdb.sql(con, "SELECT FROM WHERE")
    with pytest.raises(duckdb.Error, match="declares size 4"):
        vecdataset.duckdb.sql(con, f"SELECT id FROM {THINGS} ORDER BY vec.cosine_distance(vector, [1, 2]) LIMIT 3").fetchall()  # fmt: skip


def test_one_search_answers_a_rewritten_statement(con, monkeypatch):
    asked = []
    nearest = questions.nearest_points

    def watched(reader, query, selection, *args):
        asked.append((query.limit, selection.sql))
        return nearest(reader, query, selection, *args)

    monkeypatch.setattr(questions, "nearest_points", watched)

    statement = (
        f"SELECT id FROM {THINGS} WHERE n > 3 ORDER BY vec.cosine_distance(vector, $1) LIMIT 5 OFFSET 2"
    )
    vecdataset.duckdb.sql(con, statement, [QUERY]).fetchall()

    assert [limit for limit, _ in asked] == [7]
    assert "n" in asked[0][1]


def test_explain_tells_an_exact_order_from_a_search(con):
    order = "ORDER BY vec.cosine_distance(vector, [1, 2, 3, 4]) LIMIT 3"
    exact = con.execute(f"EXPLAIN SELECT id FROM {THINGS} {order}").fetchall()[0][1].lower()
    searched = vecdataset.duckdb.sql(con, f"SELECT id FROM {THINGS} {order}").text

    through = con.execute(f"EXPLAIN {searched}").fetchall()[0][1].lower()

    assert "list_cosine_distance" in exact
    assert "arrow" in exact
    assert "unnest" in through
    assert "arrow" not in through


ODD_NAMES = ['it\'s "odd"', "main", "Books", "books", "exact params", "a,b"]


def test_collections_of_any_name_are_searched_and_rewritten(tmp_path):
    found = {}
    for at, name in enumerate(ODD_NAMES):
        c = vd.create(tmp_path / str(at), vectors=vd.VectorParams(size=2))
        c.upsert([{"id": 1, "vector": [1, 0], "payload": {"n": name}}])
        found[name] = c
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, found)
    order = "ORDER BY vec.cosine_distance(vector, [1, 0]) LIMIT 1"

    for name in ODD_NAMES:
        view = "books_2" if name == "books" else name.replace('"', '""')
        rewritten = vecdataset.duckdb.sql(con, f'SELECT n FROM vec."{view}" {order}')

        assert con.execute("SELECT n FROM vec.search($1, [1, 0])", [name]).fetchall() == [(name,)]
        assert rewritten.rewritten
        assert rewritten.fetchall() == [(name,)]


@pytest.mark.parametrize("name", ["", "\x1f", "a\x1f", "nope", None])
def test_names_that_no_collection_has_are_told(con, name):
    with pytest.raises(duckdb.Error, match="no collection"):
        con.execute("FROM vec.search($1, [1, 0])", [name])
