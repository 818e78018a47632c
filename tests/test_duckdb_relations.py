"""Statements as relations: the same types and errors on every version of DuckDB."""

import duckdb
import pytest

from vecdataset.duckdb.relations import relation_of

TYPED = """SELECT 1::HUGEINT AS h, '10'::BIT AS b, uuid() AS u, TIME '10:00:00' AS t, INTERVAL 1 DAY AS i,
    {'a': 1::HUGEINT} AS s, [1::UHUGEINT] AS l, MAP {1: 2} AS m, 1.5::DECIMAL(9, 2) AS d, '{}'::JSON AS j, $1 AS p"""


def setting(con):
    return con.execute("SELECT current_setting('arrow_lossless_conversion')").fetchall()


def test_types_are_those_of_the_statement():
    con = duckdb.connect()
    before = setting(con)

    found = relation_of(con, TYPED, ["x"])

    described = con.execute(f"DESCRIBE {TYPED.replace('$1', chr(39) + 'x' + chr(39))}").fetchall()
    assert dict(zip(found.columns, map(str, found.types), strict=True)) == {
        row[0]: row[1] for row in described
    }
    assert found.fetchall()[0][-1] == "x"
    assert setting(con) == before


def test_a_statement_without_rows_has_run():
    """Its relation is None, or in DuckDB 2.0 the count of what it changed."""
    con = duckdb.connect()
    for text in ("CREATE TABLE t AS SELECT $1 AS x", "INSERT INTO t VALUES ($1 + 1)"):
        found = relation_of(con, text, [1])
        assert (None if found is None else found.fetchall()) == (
            None if duckdb.__version__.startswith("1.") else [(1,)]
        )
    assert relation_of(con, 'SELECT count(*) AS "Count" FROM t WHERE x < $1', [9]).fetchall() == [(2,)]
    assert relation_of(con, "FROM t").fetchall() == [(1,), (2,)]


def test_an_error_in_a_transaction_is_the_statements_own():
    con = duckdb.connect()
    before = setting(con)
    con.execute("BEGIN")

    with pytest.raises(duckdb.Error, match="my own"):
        relation_of(con, "SELECT error('my own' || x) FROM range($1) t(x)", [3]).fetchall()

    con.execute("ROLLBACK")
    assert setting(con) == before
