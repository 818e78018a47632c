"""Who may write: stores that keep writers apart, those that cannot, and locks of the user's own."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import odd_filesystems
import pytest

import vecdataset as vd
from vecdataset import storage
from vecdataset.errors import ReadOnlyError
from vecdataset.storage import lease, resolve

VECTORS = vd.VectorParams(size=2, distance="Euclid")
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _own_schemes(monkeypatch, tmp_path):
    odd_filesystems.register()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def point(n):
    return {"id": n, "vector": [n, 0]}


def another_process(statement, *arguments):
    """Run a statement in a fresh process that knows the same schemes."""
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import odd_filesystems; odd_filesystems.register()\n"
        f"import vecdataset as vd\n{statement}"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=120
    )


WRITE = "vd.open(sys.argv[1]).upsert([{'id': 7, 'vector': [7, 0]}])"


def test_the_writers_of_a_place_are_told(tmp_path):
    assert resolve(f"plain://{tmp_path}").commit == "single-process"
    assert resolve(f"faulty://{tmp_path}").commit == "atomic"
    assert "one process may write" in resolve(f"plain://{tmp_path}").explain()


@pytest.mark.slow
def test_where_writers_cannot_be_kept_apart_the_second_is_refused(tmp_path):
    books = vd.create(f"plain://{tmp_path}/books", vectors=VECTORS)
    books.upsert([point(1)])

    done = another_process(WRITE, books.url)
    assert "ReadOnlyError: another process" in done.stderr
    assert f"({os.getpid()} on " in done.stderr
    read = another_process("print(len(vd.open(sys.argv[1])))", books.url)
    assert read.stdout == "1\n"
    books.upsert([point(2)])
    assert len(vd.open(books.url)) == 2


@pytest.mark.slow
def test_a_writer_that_ended_or_died_makes_room(tmp_path):
    url = f"plain://{tmp_path}/books"
    ended = another_process("vd.create(sys.argv[1], vectors=vd.VectorParams(size=2, distance='Euclid'))", url)
    assert (ended.returncode, Path(tmp_path, "books", lease.PATH).exists()) == (0, False)

    died = another_process(f"{WRITE}; import os; os._exit(1)", url)
    assert (died.returncode, Path(tmp_path, "books", lease.PATH).exists()) == (1, True)
    vd.open(url).upsert([point(1)])
    assert len(vd.open(url)) == 2


@pytest.mark.parametrize(("until", "refused"), [(60, True), (-1, False)])
def test_a_writer_elsewhere_counts_until_its_lease_ends(tmp_path, until, refused):
    vd.create(str(tmp_path / "books"), vectors=VECTORS)
    note = tmp_path / "books" / lease.PATH
    note.parent.mkdir()
    note.write_text(json.dumps({"id": "x", "host": "elsewhere", "pid": 1, "until": time.time() + until}))
    books = vd.open(f"plain://{tmp_path}/books")

    if refused:
        with pytest.raises(ReadOnlyError, match="1 on elsewhere"):
            books.upsert([point(1)])
        assert len(books) == 0
    else:
        assert books.upsert([point(1)]).inserted == 1


def test_threads_of_one_process_are_kept_apart_everywhere(tmp_path):
    books = vd.create(f"plain://{tmp_path}/books", vectors=VECTORS)
    threads = [
        threading.Thread(target=lambda n=n: [books.upsert([point(10 * n + i)]) for i in range(5)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(vd.open(books.url).to_arrow()["id"].to_pylist()) == [
        10 * n + i for n in range(4) for i in range(5)
    ]


def test_a_lock_of_the_users_own_is_held_at_every_commit(tmp_path):
    entered = []

    class Lock:
        def __enter__(self):
            entered.append("in")

        def __exit__(self, *exc):
            entered.append("out")

    options = {"commit_lock": Lock()}
    books = vd.create(f"plain://{tmp_path}/books", vectors=VECTORS, storage_options=options)
    before = len(entered)
    books.upsert([point(1)])

    assert resolve(books.url, storage_options=options).commit == "atomic"
    assert before > 0
    assert len(entered) > before
    assert entered == ["in", "out"] * (len(entered) // 2)
    assert not Path(tmp_path, "books", lease.PATH).exists()


def test_a_lock_may_be_made_for_the_version(tmp_path):
    versions = []

    def lock(version):
        versions.append(version)
        return threading.Lock()

    books = vd.create(f"plain://{tmp_path}/books", vectors=VECTORS, storage_options={"commit_lock": lock})
    books.upsert([point(1)])

    assert len(versions) >= 2
    assert all(isinstance(v, int) for v in versions)


def test_a_registered_strategy_lets_processes_write_at_once(tmp_path):
    location = resolve(f"faulty://{tmp_path}/x")
    storage.files(location).write("there", b"1")

    assert "its registered strategy" in location.reason
    assert storage.files(location).create("there", b"2") is False
    assert storage.files(location).read("there") == b"1"
