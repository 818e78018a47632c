"""Counting, comparing, verifying and restoring in SQL is what the same calls do in Python."""

import duckdb
import pytest

import vecdataset as vd
import vecdataset.duckdb

COLOURS = ["red", "blue", "red", "green", "red", "blue"]


@pytest.fixture
def books(tmp_path):
    c = vd.create(tmp_path / "books", vectors=vd.VectorParams(size=2))
    c.upsert([
        {"id": i, "vector": [i, 1], "payload": {"colour": colour, "tags": ["a", colour], "n": i}}
        for i, colour in enumerate(COLOURS)
    ])  # fmt: skip
    return c


@pytest.fixture
def con(books, tmp_path):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, tmp_path)
    return con


@pytest.mark.parametrize("form", ["vec.facet('books', ", "vec.books.facet("])
def test_a_facet_counts_the_values_of_a_key(con, form):
    assert con.execute(f"FROM {form}'colour')").fetchall() == [("red", 3), ("blue", 2), ("green", 1)]
    assert con.execute(f"FROM {form}'tags', k := 1)").fetchall() == [("a", 6)]
    assert con.execute(f"FROM {form}'n', k := 2, filter := 'n > 3')").fetchall() == [("4", 1), ("5", 1)]
    assert con.execute(f"FROM {form}NULL)").fetchall() == []


def test_a_facet_can_be_joined_laterally(con):
    found = con.execute(
        "SELECT q.n, f.value, f.count FROM (VALUES (0), (2), (4)) q(n), "
        "vec.facet('books', 'colour', filter := 'n > ' || q.n, k := 1) f ORDER BY 1"
    ).fetchall()

    assert found == [(0, "blue", 2), (2, "blue", 1), (4, "blue", 1)]


@pytest.mark.parametrize("form", ["vec.diff('books', ", "vec.books.diff("])
def test_a_diff_names_points_and_columns(con, books, form):
    con.execute("SELECT vec.snapshot('books', 'monday')").fetchall()
    books.delete([0])
    books.upsert([{"id": 1, "vector": [9, 9], "payload": {"pages": 7}}, {"id": 77, "vector": [1, 2]}])
    later = books.version
    books.delete([2])

    changes = con.execute(f"FROM {form}'monday') ORDER BY ALL").fetchall()
    until = con.execute(f"SELECT id FROM {form}'monday', {later}) WHERE change = 'removed'").fetchall()

    assert changes == [
        ("added", 77, None),
        ("changed", 1, None),
        ("column added", None, "pages"),
        ("removed", 0, None),
        ("removed", 2, None),
    ]
    assert until == [(0,)]


def test_a_diff_of_text_ids_has_text_ids(tmp_path):
    c = vd.create(tmp_path / "texts", vectors=vd.VectorParams(size=2), id_type="string")
    c.upsert([{"id": "a", "vector": [1, 0]}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)
    before = c.version
    c.upsert([{"id": "b", "vector": [0, 1]}])

    assert con.execute("SELECT change, id FROM vec.diff('texts', $1)", [before]).fetchall() == [
        ("added", "b")
    ]


def test_verify_tells_what_is_damaged(con, books, tmp_path):
    con.execute("SELECT vec.snapshot('books', 'monday', note := 'before')").fetchall()
    good = con.execute("SELECT name, ok, missing FROM vec.verify('books', deep := true)").fetchall()
    (file,) = (tmp_path / "books" / "data").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")

    bad = con.execute("SELECT name, ok, changed FROM vec.verify('books', 'monday')").fetchall()

    assert good == [("monday", True, [])]
    assert bad == [("monday", False, [f"data/{file.name}"])]
    with pytest.raises(duckdb.Error, match="damaged and was not used"):
        con.execute("SELECT vec.restore('books', 'monday')").fetchall()
    assert con.execute("SELECT state, note FROM vec.snapshots('books')").fetchall() == [("sealed", "before")]


def test_restore_brings_a_snapshot_back(con, books):
    con.execute("SELECT vec.snapshot('books', 'monday')").fetchall()
    books.delete(list(range(6)))

    con.execute("SELECT vec.restore('books', 'monday')").fetchall()
    con.execute("SELECT vec.restore('books', 'monday', target := 'again')").fetchall()

    assert con.execute("SELECT vec.count('books'), vec.count('again')").fetchone() == (6, 6)
    assert con.execute("SELECT count(*) FROM vec.again.search([1, 0])").fetchone() == (6,)


def test_versions_tell_what_was_done(con, books):
    con.execute("SELECT vec.snapshot('books', 'monday')").fetchall()
    con.execute("SELECT vec.delete('books', ids := [0, 1])").fetchall()

    rows = con.execute(
        "SELECT operation, rows, inserted, deleted, snapshots FROM vec.versions('books') ORDER BY version DESC LIMIT 2"
    ).fetchall()

    assert rows[0][:2] == ("delete", 4)
    assert rows[0][3:] == (2, [])
    assert rows[1][4] == ["monday"]


def test_a_view_of_a_snapshot_follows_its_name(con, books):
    con.execute("SELECT vec.snapshot('books', 'monday')").fetchall()
    books.delete([0])
    books.snapshots.delete("monday")
    books.snapshots.create("monday")

    con.execute("SELECT vec.refresh()").fetchall()

    assert con.execute('SELECT count(*) FROM vec."books@monday"').fetchone() == (5,)


def test_old_versions_lose_their_views_and_snapshots_keep_them(con):
    con.execute("SELECT vec.snapshot('books', 'monday')").fetchall()
    for n in range(12):
        con.execute(f"SELECT vec.delete('books', ids := [{n}])").fetchall()
    views = [
        name
        for (name,) in con.execute(
            "SELECT view_name FROM duckdb_views() WHERE database_name = 'vec' AND view_name LIKE 'books@%'"
        ).fetchall()
    ]
    newest = con.execute("SELECT max(version) FROM vec.versions('books')").fetchone()[0]

    assert len(views) == 11
    assert {"books@monday", f"books@{newest}"} <= set(views)
