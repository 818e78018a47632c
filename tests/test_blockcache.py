"""Blocks on the local disk: the same bytes as without them, whatever happens to the folder."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import odd_filesystems
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vecdataset as vd
from vecdataset import storage
from vecdataset.errors import InvalidInputError
from vecdataset.storage import resolve
from vecdataset.storage.blockcache import BLOCK, BlockCache, CachedFile
from vecdataset.storage.bridge.route import _opened

FILE = CachedFile.of("a store", "a/path")
VECTORS = vd.VectorParams(size=8, distance="Euclid")
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _odd():
    odd_filesystems.register()
    odd_filesystems.Faulty.behave()


@pytest.fixture
def cache(tmp_path):
    return BlockCache(tmp_path / "blocks", limit_bytes=1 << 30)


def again(cache):
    """The same folder as another process sees it."""
    return BlockCache(cache.folder, limit_bytes=cache.limit_bytes)


def blocks(cache):
    return sorted(p for p in cache.folder.rglob("*") if re.search(r"\.\d+$", p.name))


def test_a_block_is_found_again_by_every_process(cache):
    cache.write(FILE, 0, b"0123456789", size=10)

    for seen in (cache, again(cache)):
        assert seen.read(FILE, 0, 2, 5, size=10) == b"234"
        assert seen.size(FILE) == 10
    assert cache.read(FILE, 1, 0, 1, size=BLOCK + 1) is None
    assert (cache.hits, cache.misses) == (1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: b"XXXX" + data[4:],
        lambda data: bytes(len(data)),
    ],
    ids=["short", "long", "empty", "flipped", "mark", "zeros"],
)
def test_a_damaged_block_is_no_block(cache, damage):
    cache.write(FILE, 0, b"0123456789", size=10)
    (path,) = blocks(cache)
    path.write_bytes(damage(path.read_bytes()))

    assert again(cache).read(FILE, 0, 0, 10, size=10) is None
    assert not path.exists()


def test_a_block_of_a_file_that_had_another_size_is_no_block(cache):
    cache.write(FILE, 0, b"0123456789", size=10)

    assert cache.read(FILE, 0, 0, 5, size=11) is None


def test_a_half_written_block_is_never_seen(cache, monkeypatch):
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    cache.write(FILE, 0, b"0123456789", size=10)

    assert cache.read(FILE, 0, 0, 10, size=10) is None
    assert [p for p in cache.folder.rglob("*") if p.is_file() and p.name != "lock"] == []


def test_the_budget_holds_and_the_oldest_go_first(tmp_path):
    cache = BlockCache(tmp_path / "blocks", limit_bytes=10 * BLOCK)
    for n in range(30):
        file = CachedFile.of("store", f"path {n}")
        cache.write(file, 0, bytes(BLOCK), size=BLOCK)
        os.utime(cache._block(file, 0), (n, n))
    cache.evict()

    assert cache.used_bytes() <= 10 * BLOCK
    assert cache.read(CachedFile.of("store", "path 29"), 0, 0, 1, size=BLOCK) == b"\0"
    assert cache.read(CachedFile.of("store", "path 0"), 0, 0, 1, size=BLOCK) is None


def test_what_a_crash_left_is_swept(cache):
    cache.write(FILE, 0, b"0", size=1)
    left = next(cache.folder.glob("??")) / "part-left"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    cache.evict()

    assert not left.exists()
    assert cache.read(FILE, 0, 0, 1, size=1) == b"0"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    tmp_path.joinpath("file").write_text("")

    with pytest.raises(InvalidInputError, match="cannot be made"):
        BlockCache(tmp_path / "file" / "blocks", limit_bytes=1)


def test_many_threads_over_a_small_budget_read_what_was_written(tmp_path):
    cache = BlockCache(tmp_path / "blocks", limit_bytes=4 * BLOCK)
    bodies = {n: bytes([n]) * (50_000 + n) for n in range(40)}

    def work(seed):
        for n in np.random.default_rng(seed).permutation(list(bodies)):
            file, body = CachedFile.of("s", str(n)), bodies[n]
            cache.write(file, 0, body, size=len(body))
            found = cache.read(file, 0, 10, 20, size=len(body))
            assert found in (None, body[10:20])
            if n % 7 == 0:
                cache.forget(file)
                cache.evict()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))


# ------------------------------------------------------------------------ behind the bridge


@pytest.fixture
def large(tmp_path):
    """The store of a file of three and a half blocks, its key and its bytes."""
    location = resolve(f"faulty://{tmp_path}/c", storage_options={"cache": str(tmp_path / "blocks")})
    body = np.random.default_rng(1).bytes(3 * BLOCK + BLOCK // 2)
    storage.files(location).write("data/x.lance", body)
    gateway, key = _opened(location)
    return gateway.store, f"{key}/data/x.lance", body


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.integers(0, 7 * BLOCK // 2), st.integers(0, 7 * BLOCK // 2)), min_size=1, max_size=5
    )
)
def test_every_range_is_the_same_with_and_without_blocks(large, ranges):
    store, key, body = large
    for pair in ranges:
        start, end = sorted(pair)
        assert bytes(store.read(key, start, end, size=len(body))) == body[start:end]


def test_a_block_that_many_want_is_fetched_once(large):
    store, key, body = large
    odd_filesystems.Faulty.behave(latency_s=0.02)
    before = store.counts["read"]

    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda n: store.read(key, n, n + 9, size=len(body)), range(0, 80, 10)))

    assert parts == [body[n : n + 9] for n in range(0, 80, 10)]
    assert store.counts["read"] == before + 1


def test_a_file_that_is_written_again_is_read_again(large, tmp_path):
    store, key, body = large
    store.read(key, 0, 10, size=len(body))
    files = storage.files(
        resolve(f"faulty://{tmp_path}/c", storage_options={"cache": str(tmp_path / "blocks")})
    )
    files.write("data/x.lance", b"another")

    assert files.read("data/x.lance") == b"another"


def filled(tmp_path, rows=3000):
    """A collection whose searches went through the cache; its URL and options."""
    options = {"cache": str(tmp_path / "blocks")}
    url = f"faulty://{tmp_path}/books"
    books = vd.create(url, vectors=VECTORS, storage_options=options)
    vectors = np.random.default_rng(2).random((rows, 8), np.float32)
    books.upsert((np.arange(rows), vectors))
    books.create_index("ivf_pq", num_partitions=4, num_sub_vectors=4)
    books.configure(full_scan_threshold=10)
    again = vd.open(url, storage_options=options)
    again.search(vectors[0], limit=3)
    return url, options, vectors


def test_only_immutable_files_are_kept(tmp_path):
    url, options, _ = filled(tmp_path)
    vd.open(url, storage_options=options).snapshots.create("one")
    vd.open(url, storage_options=options).snapshots.verify("one")
    gateway, _ = _opened(resolve(url, storage_options=options))
    kept = {p.name.partition(".")[0] for p in blocks(gateway.store.cache)}
    base = tmp_path / "books"
    found = {
        str(p.relative_to(base)).partition("/")[0]
        for p in base.rglob("*")
        if p.is_file() and CachedFile.of(gateway.store.name, str(p)).digest in kept
    }

    assert {"data", "_indices"} <= found <= {"data", "_indices", "_transactions", "_deletions"}


def test_a_collection_that_was_dropped_and_made_again_is_the_new_one(tmp_path):
    url, options, vectors = filled(tmp_path)
    storage.files(resolve(url, storage_options=options)).delete_tree()
    books = vd.create(url, vectors=VECTORS, storage_options=options)
    books.upsert((np.arange(5), vectors[:5] + 1))

    found = vd.open(url, storage_options=options)
    assert found.search(vectors[0] + 1, limit=1, with_vectors=True)["id"].to_pylist() == [0]
    assert len(found) == 5


@pytest.mark.slow
def test_a_fresh_process_reads_blocks_and_not_the_store(tmp_path):
    url, options, _ = filled(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import odd_filesystems; odd_filesystems.register()\n"
        "import vecdataset as vd\n"
        f"books = vd.open({url!r}, storage_options={options!r})\n"
        "books.search([0.5] * 8, limit=3)\n"
        "print(books.info().storage)"
    )
    first = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "0 not" not in first or "0 not" in second
    assert re.search(r"(\d+) blocks found, 0 not", second)
    assert str(tmp_path / "blocks") in second


def test_credentials_are_in_no_name_and_no_byte_of_the_cache(tmp_path):
    options = {"cache": str(tmp_path / "blocks"), "token": "very-secret-value"}
    import fsspec

    class Secretive(odd_filesystems.Faulty):
        protocol = "secretive"

        def __init__(self, token, **kwargs):
            super().__init__(**kwargs)

    fsspec.register_implementation("secretive", Secretive, clobber=True)
    books = vd.create(
        f"secretive://{tmp_path}/books", vectors=VECTORS, storage_options={**options, "single_writer": 1}
    )
    books.upsert((np.arange(5), np.zeros((5, 8), np.float32)))
    vd.open(books.url, storage_options=options).search([0] * 8, limit=1)
    stored = [p for p in tmp_path.joinpath("blocks").rglob("*") if p.is_file()]

    assert stored
    assert not [p for p in stored if "secret" in str(p) or b"very-secret-value" in p.read_bytes()]


def test_blocks_are_for_this_user_alone(cache):
    cache.write(FILE, 0, b"0", size=1)

    assert {oct(p.stat().st_mode & 0o777) for p in [cache.folder, *cache.folder.glob("??")]} == {"0o700"}
    assert {oct(p.stat().st_mode & 0o077) for p in cache.folder.rglob("*.0")} == {"0o0"}


def test_a_block_in_use_stays_young(cache):
    cache.write(FILE, 0, b"0", size=1)
    (path,) = blocks(cache)
    os.utime(path, (1, 1))
    cache.read(FILE, 0, 0, 1, size=1)

    assert time.time() - path.stat().st_mtime < 60
