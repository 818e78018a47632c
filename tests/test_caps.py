"""What an operator's limits let through, and that nothing is written beyond them."""

import numpy as np
import pytest

import vecdataset as vd

VECTORS = vd.VectorParams(2)


@pytest.fixture
def books(tmp_path, monkeypatch):
    monkeypatch.setenv("VECDB_MAX_VECTORS_PER_COLLECTION", "5")
    return vd.create(tmp_path / "books", vectors=VECTORS, id_type="uint64")


def points(*ids):
    return np.array(ids), np.ones((len(ids), 2), np.float32)


def test_points_up_to_the_limit_are_taken_and_no_more(books):
    books.upsert(points(1, 2, 3))
    books.upsert(points(2, 3, 4, 5))
    version = books.version

    for write in (books.upsert, books.insert):
        with pytest.raises(
            vd.LimitExceededError, match=r"has 5 points, and .* allows 5: 2 more came"
        ) as caught:
            write(points(6, 7))
    assert "nothing was written" in caught.value.hint
    assert (books.count(), books.refresh().version) == (5, version)
    assert books.upsert(points(1, 2, 3, 4, 5, 5)).updated == 5
    books.delete([1])
    assert books.upsert(points(9)).inserted == 1


def test_of_many_points_only_the_new_ones_count(books, monkeypatch):
    monkeypatch.setenv("VECDB_MAX_VECTORS_PER_COLLECTION", "5_000")
    books.upsert(points(*range(4_000)))

    assert books.upsert(points(*range(1_000, 5_000))).inserted == 1_000
    with pytest.raises(vd.LimitExceededError, match="allows 5,000: 1 more came"):
        books.upsert(points(*range(2_500, 5_001)))


def test_a_first_write_is_counted_too(books):
    with pytest.raises(vd.LimitExceededError, match="has 0 points"):
        books.upsert(points(*range(6)))

    assert books.count() == 0


def test_a_root_takes_so_many_collections(tmp_path, monkeypatch):
    root = vd.Catalog(tmp_path)
    for name in ("a", "b"):
        root.create(name, vectors=VECTORS)
    monkeypatch.setenv("VECDB_MAX_COLLECTIONS", "2")

    with pytest.raises(vd.LimitExceededError, match="has 2 collections, and VECDB_MAX_COLLECTIONS allows 2"):
        root.create("c", vectors=VECTORS)
    assert root.create("a", vectors=VECTORS, exist_ok=True).name == "a"
    root.drop("b")
    assert root.create("c", vectors=VECTORS).name == "c"
    assert root.list() == ["a", "c"]


def test_without_a_word_nothing_is_limited(tmp_path, monkeypatch):
    monkeypatch.setenv("VECDB_MAX_VECTORS_PER_COLLECTION", "")

    assert vd.create(tmp_path / "books", vectors=VECTORS).upsert(points(*range(50))).inserted == 50


def test_a_limit_that_is_no_number_is_named(books, monkeypatch):
    monkeypatch.setenv("VECDB_MAX_VECTORS_PER_COLLECTION", "many")

    with pytest.raises(vd.InvalidInputError, match="VECDB_MAX_VECTORS_PER_COLLECTION is 'many'"):
        books.upsert(points(1))
    assert books.count() == 0
