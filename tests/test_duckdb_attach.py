"""Attaching: on every kind of database, in transactions, several times, under several names."""

import subprocess
import sys

import duckdb
import pytest

import vecdataset as vd
import vecdataset.duckdb


@pytest.fixture
def root(tmp_path):
    """A root with one small collection `books`."""
    root = tmp_path / "root"
    make(root, "books")
    return root


def make(root, name, points=3):
    c = vd.create(root / name, vectors=vd.VectorParams(size=2))
    c.upsert([{"id": i, "vector": [1, i], "payload": {"title": f"{name} {i}"}} for i in range(points)])
    return c


def titles(con, collection="books", name="vec"):
    rows = con.execute(f"SELECT title FROM {name}.search('{collection}', [1, 0]) ORDER BY _rank")
    return [r[0] for r in rows.fetchall()]


EXPECTED = ["books 0", "books 1", "books 2"]


def test_in_memory(root):
    con = duckdb.connect()

    vecdataset.duckdb.attach(con, root)

    assert titles(con) == EXPECTED


def test_a_file_database_is_left_as_it_was(root, tmp_path):
    with duckdb.connect(str(tmp_path / "own.db")) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS a")
    before = (tmp_path / "own.db").read_bytes()

    with duckdb.connect(str(tmp_path / "own.db")) as con:
        vecdataset.duckdb.attach(con, root)
        found = titles(con)

    assert found == EXPECTED
    assert (tmp_path / "own.db").read_bytes() == before
    with duckdb.connect(str(tmp_path / "own.db")) as con:
        assert con.execute(
            "SELECT count(*) FROM duckdb_databases() WHERE database_name = 'vec'"
        ).fetchone() == (0,)


def test_a_read_only_database(root, tmp_path):
    duckdb.connect(str(tmp_path / "own.db")).close()

    with duckdb.connect(str(tmp_path / "own.db"), read_only=True) as con:
        vecdataset.duckdb.attach(con, root)

        assert titles(con) == EXPECTED


def test_inside_a_transaction_that_has_written(root, tmp_path):
    con = duckdb.connect(str(tmp_path / "own.db"))
    con.execute("BEGIN")
    con.execute("CREATE TABLE t AS SELECT 1 AS a")

    vecdataset.duckdb.attach(con, root)
    found = titles(con)
    con.execute("ROLLBACK")

    assert found == EXPECTED
    assert titles(con) == EXPECTED
    assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 't'").fetchone() == (0,)
    con.close()


def test_every_cursor_sees_it_also_those_made_before(root):
    con = duckdb.connect()
    before = con.cursor()

    vecdataset.duckdb.attach(con, root)

    assert titles(before) == titles(con.cursor()) == EXPECTED


def test_attaching_again_replaces_what_was_there(root, tmp_path):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, root)
    make(tmp_path / "other", "films")

    vecdataset.duckdb.attach(con, root)
    vecdataset.duckdb.attach(con, tmp_path / "other")

    assert titles(con, "films") == ["films 0", "films 1", "films 2"]
    with pytest.raises(duckdb.Error, match="no collection 'books'"):
        titles(con)


def test_several_roots_under_several_names(root, tmp_path):
    con = duckdb.connect()
    make(tmp_path / "other", "books", points=1)

    vecdataset.duckdb.attach(con, root)
    vecdataset.duckdb.attach(con, tmp_path / "other", name="more books")

    assert (titles(con), titles(con, name='"more books"')) == (EXPECTED, ["books 0"])
    assert con.execute('SELECT count(*) FROM "more books".books, vec.books').fetchone() == (3,)


def test_a_catalog_a_collection_or_a_dict_can_be_given(root):
    con = duckdb.connect()
    books = vd.open(root / "books")

    vecdataset.duckdb.attach(con, vd.Catalog(root), name="a")
    vecdataset.duckdb.attach(con, books, name="b")
    vecdataset.duckdb.attach(con, {"my books": books}, name="c")

    assert titles(con, name="a") == titles(con, name="b") == titles(con, "my books", name="c") == EXPECTED
    assert con.execute('SELECT count(*) FROM c."my books"').fetchone() == (3,)
    assert con.execute('SELECT count(*) FROM c."my books".search([1, 0])').fetchone() == (3,)


def test_anything_else_is_refused(root):
    with pytest.raises(vd.InvalidInputError, match="'x' is of type int"):
        vecdataset.duckdb.attach(duckdb.connect(), {"x": 1})


def test_a_database_of_the_users_own_is_not_touched(root):
    con = duckdb.connect()
    con.execute("ATTACH ':memory:' AS vec")

    with pytest.raises(vd.AlreadyExistsError, match="'vec' is attached already"):
        vecdataset.duckdb.attach(con, root)
    with pytest.raises(vd.AlreadyExistsError):
        vecdataset.duckdb.detach(con)


def test_detach_removes_everything(root):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, root)

    vecdataset.duckdb.detach(con)

    assert con.execute("SELECT count(*) FROM duckdb_databases() WHERE database_name = 'vec'").fetchone() == (
        0,
    )
    assert con.execute(
        "SELECT count(*) FROM duckdb_functions() WHERE regexp_matches(function_name, '^vec[0-9]')"
    ).fetchone() == (0,)
    with pytest.raises(vd.UnknownNameError, match="no collections are attached as 'vec'"):
        vecdataset.duckdb.detach(con)


def test_refresh_shows_new_collections_and_hides_dropped_ones(root):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, root)
    make(root, "films")
    vd.Catalog(root).drop("books")

    refreshed = con.execute("SELECT vec.refresh()").fetchone()

    assert refreshed == ("1 collection",)
    assert titles(con, "films") == ["films 0", "films 1", "films 2"]
    with pytest.raises(duckdb.Error, match="no collection 'books'"):
        titles(con)
    with pytest.raises(duckdb.Error, match="books"):
        con.execute("SELECT * FROM vec.books")


def test_an_empty_root_can_be_attached_and_filled(tmp_path):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, tmp_path)

    with pytest.raises(duckdb.Error, match="there are no collections"):
        titles(con)
    con.execute("SELECT vec.create('books', size := 2)")
    con.execute("FROM vec.upsert('books', 'SELECT 7 AS id, [1, 0] AS vector, ''t'' AS title')")

    assert titles(con) == ["t"]


def test_an_empty_collection_has_no_hits(tmp_path):
    vd.create(tmp_path / "books", vectors=vd.VectorParams(size=2))
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, tmp_path)

    assert con.execute("FROM vec.search('books', [1, 0])").fetchall() == []
    assert con.execute("FROM vec.books").fetchall() == []
    assert con.execute("FROM vec.scroll('books')").fetchall() == []


def test_an_alias_is_a_collection_of_its_own_name(root):
    vd.Catalog(root).alias("current", "books")
    con = duckdb.connect()

    vecdataset.duckdb.attach(con, root)

    assert titles(con, "current") == EXPECTED


@pytest.mark.parametrize("name", ["main", "Search", "select", "two words", "it's", "temp", "0.5-beta"])
def test_any_name_of_a_collection_works(tmp_path, name):
    make(tmp_path, name, points=1)
    con = duckdb.connect()

    vecdataset.duckdb.attach(con, tmp_path)
    quoted = name.replace("'", "''")

    assert titles(con, quoted) == [f"{name} 0"]
    assert con.execute(f'SELECT count(*) FROM vec."{name}"').fetchone() == (1,)


def test_names_that_differ_by_case_do_not_mix(tmp_path):
    first, second = make(tmp_path / "a", "Books", points=1), make(tmp_path / "b", "books", points=2)
    con = duckdb.connect()

    vecdataset.duckdb.attach(con, {"Books": first, "books": second})

    assert (titles(con, "Books"), titles(con, "books")) == (["Books 0"], ["books 0", "books 1"])


def test_a_damaged_collection_does_not_hide_the_others(root):
    make(root, "films")
    for manifest in (root / "films" / "_versions").iterdir():
        manifest.write_bytes(b"nothing of use")
    con = duckdb.connect()

    vecdataset.duckdb.attach(con, root)

    assert titles(con) == EXPECTED
    listed = con.execute("SELECT name, error IS NULL FROM vec.collections() ORDER BY 1").fetchall()
    assert listed[0] == ("books", True)


@pytest.mark.slow
def test_the_process_ends_without_a_word(root):
    code = (
        "import duckdb, vecdataset.duckdb; con = duckdb.connect(); "
        f"vecdataset.duckdb.attach(con, {str(root)!r}); print(con.execute(\"SELECT vec.count('books')\").fetchone())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("(3,)\n", "")


@pytest.mark.slow
@pytest.mark.s3
def test_collections_on_an_object_store(s3):
    c = vd.create(f"{s3.url}/root/books", vectors=vd.VectorParams(size=2), storage_options=s3.options)
    c.upsert([{"id": 1, "vector": [1, 0], "payload": {"title": "books 0"}}])
    con = duckdb.connect()

    vecdataset.duckdb.attach(con, f"{s3.url}/root", storage_options=s3.options)

    assert titles(con) == ["books 0"]


@pytest.mark.parametrize("read_only", [False, True])
def test_detaching_from_a_file_database(root, tmp_path, read_only):
    duckdb.connect(str(tmp_path / "own.db")).close()

    with duckdb.connect(str(tmp_path / "own.db"), read_only=read_only) as con:
        vecdataset.duckdb.attach(con, root)
        vecdataset.duckdb.attach(con, root)
        vecdataset.duckdb.detach(con)

        assert con.execute(
            "SELECT count(*) FROM duckdb_databases() WHERE database_name = 'vec'"
        ).fetchone() == (0,)
