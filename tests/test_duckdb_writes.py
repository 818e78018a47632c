"""Writes from SQL are one commit each, and a statement that fails writes nothing."""

import threading

import duckdb
import numpy as np
import pytest

import vecdataset as vd
import vecdataset.duckdb

STAGING = (
    "CREATE TABLE staging AS SELECT range AS id, [range, 1]::FLOAT[2] AS vector, 'n' || range AS title "
    "FROM range(5000)"
)


@pytest.fixture
def books(tmp_path):
    return vd.create(tmp_path / "root" / "books", vectors=vd.VectorParams(size=2, distance="Euclid"))


@pytest.fixture
def con(books, tmp_path):
    con = duckdb.connect(str(tmp_path / "own.db"))
    vecdataset.duckdb.attach(con, tmp_path / "root")
    con.execute(STAGING)
    yield con
    con.close()


def test_a_table_is_upserted_as_one_commit(con, books):
    con.execute("SELECT vec.refresh()")
    before = books.version

    done = con.execute("SELECT inserted, updated FROM vec.upsert('books', 'staging')").fetchall()
    again = con.execute("SELECT inserted, updated FROM vec.upsert('books', 'staging')").fetchall()

    assert (done, again) == ([(5_000, 0)], [(0, 5_000)])
    assert len(books) == 5_000
    operations = [v["operation"] for v in books.versions().to_pylist() if v["version"] > before]
    assert operations.count("Update") <= 2


SOURCES = {
    "a table": ("", "'staging'"),
    "a CTE": ("WITH few AS (FROM staging WHERE id < 10) ", "'few'"),
    "a query": ("", "'SELECT * FROM staging WHERE id < 10'"),
    "FROM first": ("", "'FROM staging WHERE id < 10'"),
    "a qualified name": ("", "'own.main.staging'"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_may_be(con, books, source):
    ctes, name = SOURCES[source]

    con.execute(f"{ctes}FROM vec.upsert('books', {name})").fetchall()

    assert len(books) in (10, 5_000)
    assert books.get([7]).to_pylist()[0]["title"] == "n7"


def test_the_callers_uncommitted_rows_and_temporary_tables_are_seen(con, books):
    con.execute("BEGIN")
    con.execute("DELETE FROM staging WHERE id >= 5")
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()
    con.execute("CREATE TEMP TABLE mine AS SELECT 100 AS id, [9, 9] AS vector")
    con.execute("FROM vec.upsert('books', 'mine')").fetchall()
    con.execute("ROLLBACK")

    assert sorted(books.scroll(limit=20)["id"].to_pylist()) == [0, 1, 2, 3, 4, 100]


def test_a_column_of_another_name_can_hold_the_vectors(con, books):
    con.execute(
        "FROM vec.upsert('books', 'SELECT 1 AS n, [3, 4] AS emb', id := 'n', vectors := 'emb')"
    ).fetchall()

    assert books.get([1], with_vectors=True).to_pylist() == [{"id": 1, "vector": [3.0, 4.0]}]


def test_named_vectors_are_mapped_by_a_struct(tmp_path):
    c = vd.create(tmp_path / "c", vectors={"a": vd.VectorParams(size=1), "b": vd.VectorParams(size=2)})
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)

    con.execute(
        "FROM vec.upsert('c', 'SELECT 1 AS id, [1] AS x, [2, 3] AS y', vectors := {'a': 'x', 'b': 'y'})"
    ).fetchall()

    assert c.get([1], with_vectors=True).to_pylist() == [
        {"id": 1, "a__vector": [1.0], "b__vector": [2.0, 3.0]}
    ]


def test_new_columns_are_shown_at_once(con):
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()

    assert con.execute("SELECT title FROM vec.books WHERE id = 3").fetchall() == [("n3",)]
    assert con.execute("SELECT title FROM vec.search('books', [3, 1], k := 1)").fetchall() == [("n3",)]


def test_insert_refuses_ids_that_are_there(con, books):
    con.execute("FROM vec.insert('books', 'SELECT * FROM staging WHERE id < 5')").fetchall()
    version = books.version

    with pytest.raises(duckdb.Error, match="exists already"):
        con.execute("FROM vec.insert('books', 'staging')").fetchall()

    assert (len(books), books.version) == (5, version)


FAILING = {
    "a query that fails at its last row": "SELECT *, CASE WHEN id = 4999 THEN error('late') END AS e FROM staging",
    "a wrong vector in the last row": "SELECT id, CASE WHEN id = 4999 THEN [1.0] ELSE [1.0, 2.0] END AS vector FROM staging",
    "a null id": "SELECT nullif(id, 4999) AS id, vector FROM staging",
    "no vectors": "SELECT id FROM staging",
    "a table that is not there": "FROM nowhere",
}


@pytest.mark.parametrize("failing", FAILING)
def test_nothing_is_written_by(con, books, failing):
    con.execute("FROM vec.upsert('books', 'SELECT * FROM staging WHERE id < 3')").fetchall()
    version = books.version

    with pytest.raises(duckdb.Error):
        con.execute(
            "FROM vec.upsert('books', $1)".replace("$1", "'" + FAILING[failing].replace("'", "''") + "'")
        ).fetchall()

    assert (len(books), books.version) == (3, version)
    assert con.execute("SELECT inserted FROM vec.upsert('books', 'staging')").fetchall() == [(4_997,)]


def test_an_empty_source_writes_nothing(con, books):
    done = con.execute("FROM vec.upsert('books', 'SELECT * FROM staging WHERE false')").fetchall()

    assert done == [(books.version, 0, 0, 0)]


def test_more_than_memory_is_staged_in_files(con, books, monkeypatch):
    from vecdataset.duckdb import writes

    monkeypatch.setattr(writes, "SPOOL_AFTER_BYTES", 1_000)

    con.execute("FROM vec.upsert('books', 'staging')").fetchall()

    assert len(books) == 5_000


def test_explain_writes_nothing(con, books):
    con.execute("EXPLAIN FROM vec.upsert('books', 'staging')").fetchall()
    con.execute("EXPLAIN SELECT vec.delete('books', filter := 'id >= 0')").fetchall()
    con.execute("PREPARE later AS FROM vec.upsert('books', 'staging')")

    assert len(books) == 0


def test_a_count_over_a_write_still_writes(con, books):
    con.execute("SELECT count(*) FROM vec.upsert('books', 'staging')").fetchall()

    assert len(books) == 5_000


def test_a_prepared_write_writes_each_time(con, books):
    con.execute("PREPARE once AS FROM vec.upsert('books', 'staging')")
    con.execute("EXECUTE once").fetchall()
    con.execute("UPDATE staging SET title = 'other'")
    con.execute("EXECUTE once").fetchall()

    assert books.count("title = 'other'") == 5_000


def test_points_are_deleted_by_filter_or_id(con, books):
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()

    by_filter = con.execute("SELECT vec.delete('books', filter := 'id >= 10')").fetchone()
    by_id = con.execute("SELECT vec.delete('books', ids := [1, 2, 77])").fetchone()

    assert (by_filter, by_id, len(books)) == ((4_990,), (2,), 8)
    with pytest.raises(duckdb.Error, match="delete takes ids or a filter; neither was given"):
        con.execute("SELECT vec.delete('books')")


def test_collections_are_created_in_the_root(con, tmp_path):
    con.execute("SELECT vec.create('films', size := 3, distance := 'Dot')")
    con.execute(
        'SELECT vec.create(\'songs\', vectors := $1, sparse := \'{"words": {"modifier": "idf"}}\')',
        ['{"sound": {"size": 4, "datatype": "float16"}, "": {"size": 2}}'],
    )

    films, songs = (vd.open(tmp_path / "root" / name) for name in ("films", "songs"))
    assert films.schema.vectors[""].metric is vd.Distance.DOT
    assert (list(songs.schema.vectors), list(songs.schema.sparse)) == (["sound", ""], ["words"])
    with pytest.raises(duckdb.Error, match="exists already"):
        con.execute("SELECT vec.create('films', size := 3)")


def test_a_collection_given_alone_has_no_root_for_others(books):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, books)

    with pytest.raises(duckdb.Error, match="no root"):
        con.execute("SELECT vec.create('films', size := 3)")


def test_indexes_are_built_and_listed(con, books):
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()

    built = con.execute(
        "SELECT vec.create_index('books', 'ivf_flat', params := {'num_partitions': 4})"
    ).fetchone()
    con.execute("SELECT vec.create_payload_index('books', 'title')")
    version = con.execute("SELECT vec.optimize('books')").fetchone()

    assert built == ("vector_idx",)
    assert version == (books.version,)
    listed = con.execute("SELECT name, kind, rows FROM vec.indexes('books') ORDER BY 1").fetchall()
    assert listed == [("title_idx", "btree", 5_000), ("vector_idx", "ivf_flat", 5_000)]


def test_searches_go_through_an_index(con, books):
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()
    con.execute("SELECT vec.create_index('books', 'ivf_flat', params := {'num_partitions': 4})")
    books.configure(full_scan_threshold=0)

    plan = con.execute("FROM vec.explain('books', [3, 1])").fetchone()
    found = con.execute("SELECT id FROM vec.search('books', [3, 1], k := 3) ORDER BY _rank").fetchall()

    assert plan[0].startswith("index vector_idx (ivf_flat)")
    assert [r[0] for r in found] == books.search([3, 1], limit=3)["id"].to_pylist()


def test_writers_in_two_threads_both_write(con, books):
    def write(start):
        con.cursor().execute(
            f"FROM vec.upsert('books', 'SELECT id + {start} AS id, vector FROM own.main.staging WHERE id < 1000')"
        ).fetchall()

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(books) == 2_000


def test_what_is_written_is_what_python_writes(con, books):
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()

    stored = books.to_arrow().sort_by("id")

    assert stored["title"].to_pylist() == [f"n{i}" for i in range(5_000)]
    vectors = stored["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
    assert np.array_equal(vectors[:, 0], np.arange(5_000, dtype=np.float32))


def test_a_snapshot_is_made_listed_and_has_a_view(con, books):
    con.execute("FROM vec.upsert('books', 'SELECT * FROM staging WHERE id < 5')").fetchall()

    made = con.execute("SELECT vec.snapshot('books', 'v1', note := 'five')").fetchone()
    con.execute("FROM vec.upsert('books', 'staging')").fetchall()
    listed = con.execute("SELECT name, rows, note FROM vec.snapshots('books')").fetchall()

    assert (made, listed) == (("v1",), [("v1", 5, "five")])
    assert con.execute('SELECT count(*) FROM vec."books@v1"').fetchone() == (5,)
