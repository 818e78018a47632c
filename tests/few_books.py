"""Twenty books on a line, indexed, on any filesystem."""

import odd_filesystems
import pytest

import vecdataset as vd

VECTORS = vd.VectorParams(size=2, distance="Euclid")
POINTS = [{"id": n, "vector": [n, 0], "title": f"book {n}"} for n in range(20)]


@pytest.fixture
def odd_schemes(monkeypatch, tmp_path):
    """The schemes of `odd_filesystems`, well-behaved, and a block cache of the test's own."""
    odd_filesystems.register()
    odd_filesystems.Faulty.behave()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def books_at(url, **how):
    books = vd.create(url, vectors=VECTORS, **how)
    books.upsert(POINTS)
    books.create_index("ivf_flat", num_partitions=1)
    return books


def content(books):
    return sorted(zip(*books.to_arrow().select(["id", "title"]).to_pydict().values(), strict=True))
