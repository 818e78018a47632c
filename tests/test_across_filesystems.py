"""Collections that go from one filesystem to another, and faces that do not notice where one lives."""

import logging

import duckdb
import fsspec
import places
import pytest
from few_books import POINTS, VECTORS, books_at, content, odd_schemes  # noqa: F401

import vecdataset as vd
import vecdataset.duckdb
from vecdataset import backup

pytestmark = pytest.mark.usefixtures("odd_schemes")


def test_a_snapshot_is_copied_from_anywhere_to_anywhere(tmp_path):
    books = books_at(f"faulty://{tmp_path}/there/books")
    books.snapshots.create("one")
    books.snapshots.copy("one", str(tmp_path / "here"))
    vd.open(tmp_path / "here").snapshots.copy("one", f"fsspec+file://{tmp_path}/bridged")
    vd.open(tmp_path / "bridged").snapshots.copy("one", "memory://across/books")

    for url in (tmp_path / "here", tmp_path / "bridged", "memory://across/books", books.url):
        found = vd.open(url)
        assert found.snapshots.verify("one", deep=True)
        assert (content(found), [i.kind for i in found.indexes]) == (content(books), ["ivf_flat"])


def test_a_snapshot_is_restored_into_another_filesystem(tmp_path):
    books = books_at(str(tmp_path / "books"))
    books.snapshots.create("one")
    books.snapshots.restore("one", into=f"faulty://{tmp_path}/away/books")

    assert content(vd.open(f"faulty://{tmp_path}/away/books")) == content(books)


def test_all_collections_of_a_root_are_backed_up_to_another_filesystem_and_brought_back(tmp_path):
    root = vd.Catalog(f"fsspec+file://{tmp_path}/root")
    for name in ("a", "b"):
        root.create(name, vectors=VECTORS).upsert(POINTS)
    away = vd.Catalog(f"faulty://{tmp_path}/backup")
    again = vd.Catalog(str(tmp_path / "again"))

    assert [o.ok for o in backup.backup(root, away)] == [True, True]
    assert [o.copied_files for o in backup.backup(root, away)] < [3, 3]
    assert [o.ok for o in backup.restore(away, again)] == [True, True]
    assert content(again.open("b")) == content(root.open("b"))


def test_duckdb_sees_a_bridged_collection_like_any_other(tmp_path):
    books_at(f"faulty://{tmp_path}/lib/books")
    connection = duckdb.connect()
    vecdataset.duckdb.attach(connection, f"faulty://{tmp_path}/lib", name="vec")

    nearest = connection.execute("SELECT id, title FROM vec.search('books', [7.1, 0], k := 2)").fetchall()
    assert nearest == [(7, "book 7"), (8, "book 8")]
    assert connection.execute("SELECT count(*) FROM vec.books WHERE id >= 15").fetchall() == [(5,)]


def test_frames_come_out_of_a_bridged_collection_like_any_other(tmp_path):
    polars = pytest.importorskip("polars")
    books = books_at(f"faulty://{tmp_path}/books")

    assert books.to_polars().filter(polars.col("id") > 17)["title"].sort().to_list() == ["book 18", "book 19"]
    assert books.search([3.1, 0], limit=2).to_polars()["id"].to_list() == [3, 4]
    assert books.to_lance().count_rows() == 20


def test_a_file_is_loaded_into_a_filesystem_object(tmp_path):
    books_at(str(tmp_path / "books")).export(str(tmp_path / "books.parquet"))
    memory = fsspec.filesystem("memory")
    made = vd.create("/across/books", vectors=VECTORS, filesystem=memory)
    made.upsert(vd.load(str(tmp_path / "books.parquet"), str(tmp_path / "loaded")).to_arrow())

    assert len(vd.open("/across/books", filesystem=memory)) == 20
    memory.rm("/across", recursive=True)


@pytest.mark.slow
def test_credentials_are_in_no_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with places.webdav(tmp_path) as spot:
        books = books_at(spot.at("books"), **spot.how)
        token = books._reader.table.location.options["headers.x-bridge-token"]
        with pytest.raises(vd.StorageError) as caught:
            vd.open(
                spot.at("books"), storage_options={**spot.options, "auth": ("reader", "another-secret-word")}
            )
        shown = [str(caught.value), repr(books), str(books.info())]

    shown += [r.getMessage() for r in caplog.records if r.name.startswith("vecdataset")]
    for secret in (places.PASSWORD, "another-secret-word", token):
        assert not [text for text in shown if secret in text]
