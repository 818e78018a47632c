"""Cursors in threads: every statement gives its rows, whatever the others do meanwhile."""

import random
import threading
import time

import duckdb
import pytest
import sql_oracle
import sql_suite

import vecdataset as vd
import vecdataset.duckdb

READING = ("search", "search_by_id", "examples", "text", "query", "points", "vectors", "views", "functions")
SECONDS = 30


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return sql_suite.fill(tmp_path_factory.mktemp("root"))


@pytest.fixture
def con(root, tmp_path):
    """A database in a file, with the shipped packages as `vec` and an empty root as `own`."""
    con = duckdb.connect(str(tmp_path / "data.db"))
    vecdataset.duckdb.attach(con, str(root))
    vecdataset.duckdb.attach(con, str(tmp_path / "own"), name="own")
    yield con
    con.close()


def together(*tasks):
    """Run tasks in threads that begin at once; raise what the first of them raised."""
    wrong, barrier = [], threading.Barrier(len(tasks))

    def work(task):
        barrier.wait()
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - raised below
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def statements(root, folder, con):
    """Return a session on a cursor of its own, and the statements that only read."""
    session = sql_suite.Session(root, folder, every=False, connection=con.cursor())
    records = [r for name in READING for r in sql_suite.read(sql_suite.FOLDER / f"{name}.test")]
    for record in records:
        if record.kind == "let":
            list(session.check(record))
    return session, [r for r in records if r.kind in ("query", "error")]


def test_two_cursors_in_two_threads_search_while_one_of_them_writes(con):
    con.execute("SELECT own.create('notes', size := 384, id_type := 'uint64')")
    first, second = con.cursor(), con.cursor()

    def write():
        for n in range(10):
            first.execute(
                f"FROM own.upsert('notes', 'SELECT {n} AS id, $$v$$ AS t, vector FROM vec.packages WHERE id = 23')"
            ).fetchall()

    def read():
        last = 0
        for _ in range(20):
            ids = [r[0] for r in second.execute("SELECT id FROM own.notes ORDER BY id").fetchall()]
            assert ids == list(range(len(ids)))  # whole commits, in their order
            assert len(ids) >= last
            last = len(ids)
            found = second.execute(
                "SELECT id FROM vec.search_by_id('packages', 14600, k := 2) ORDER BY _rank"
            )
            assert [r[0] for r in found.fetchall()] == [p["id"] for p in sql_oracle.near(14600, 2)]

    together(write, read)

    assert con.execute("SELECT own.count('notes')").fetchone() == (10,)


def test_each_thread_sees_its_own_transaction(con):
    def work(number):
        cursor = con.cursor()
        cursor.execute("BEGIN")
        cursor.execute(
            f"CREATE TABLE mine_{number} AS SELECT id FROM vec.packages.search_by_id(23, k := {number + 1})"
        )
        seen = cursor.execute(
            "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'mine_%'"
        ).fetchall()
        assert seen == [(f"mine_{number}",)]
        cursor.execute("ROLLBACK")

    together(*(lambda n=n: work(n) for n in range(4)))

    assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'mine_%'").fetchone() == (
        0,
    )


@pytest.mark.slow
def test_eight_threads_run_mixed_statements_for_half_a_minute(root, tmp_path, con):
    """Seven run the statements of the SQL suite that read; one writes to a collection and reads it back."""
    con.execute("SELECT own.create('notes', size := 2)")
    until = time.monotonic() + SECONDS
    done = [0] * 8

    def read(number):
        session, records = statements(root, tmp_path, con)
        chance = random.Random(number)
        while time.monotonic() < until:
            record = chance.choice(records)
            assert list(session.check(record)) == [], f"line {record.line}: {record.sql}"
            done[number] += 1

    def write():
        cursor = con.cursor()
        while time.monotonic() < until:
            n = done[7]
            source = f"SELECT range AS id, [range, {n}] AS vector, {n} AS n FROM range(500)"
            cursor.execute(f"FROM own.upsert('notes', '{source}')").fetchall()
            rows = cursor.execute("SELECT count(*), min(n), max(n) FROM own.notes").fetchall()
            assert rows == [(500, n, n)]
            found = cursor.execute("SELECT n FROM own.search('notes', [3, 4], k := 500)").fetchall()
            assert found == [(n,)] * 500
            done[7] += 1

    together(*(lambda n=n: read(n) for n in range(7)), write)

    assert all(done)
    assert vd.open(tmp_path / "own" / "notes").count(f"n = {done[7] - 1}") == 500
