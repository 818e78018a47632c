"""The bridge: what leads there, and that every filesystem of fsspec holds collections."""

import contextlib
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import fsspec
import lance
import numpy as np
import places
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from odd_filesystems import Disk, Plain

import vecdataset as vd
from vecdataset import storage
from vecdataset.errors import (
    InvalidInputError,
    NotSupportedError,
    ReadOnlyError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    UnknownNameError,
)
from vecdataset.storage import resolve
from vecdataset.storage.bridge import wire

VECTORS = vd.VectorParams(size=2, distance="Euclid")
POINTS = [{"id": n, "vector": [n, 0], "n": n} for n in range(5)]


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def memory():
    """fsspec's memory, emptied of what the test put there."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    with contextlib.suppress(FileNotFoundError):
        filesystem.rm("/bridge-test", recursive=True)


# ------------------------------------------------------------------------- resolving


def test_an_object_of_another_class_goes_by_the_bridge_and_says_why(memory):
    location = resolve("/bridge-test/books", filesystem=memory)

    assert (location.url, location.kind, location.name) == (
        "fsspec+memory://bridge-test/books",
        "bridge",
        "books",
    )
    assert (location.remote, location.commit) == (False, "atomic")
    assert "Lance does not speak this protocol" in location.explain()


@pytest.mark.slow
def test_the_same_filesystem_has_one_bridge_and_a_bucket_whose_name_is_stable(memory):
    first = resolve("/bridge-test/a", filesystem=memory)
    second = resolve("/bridge-test/b", filesystem=fsspec.filesystem("memory"))

    assert first.options == second.options
    code = (
        "from vecdataset.storage import resolve;"
        "print(resolve('sftp://me:secret@nowhere.invalid:23/lib/books').uri)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert resolve("sftp://me:other-secret@nowhere.invalid:23/lib/books").uri == done.stdout.strip()
    assert resolve("sftp://me@elsewhere.invalid:23/lib/books").uri != done.stdout.strip()


def test_a_scheme_may_ask_for_the_bridge(tmp_path):
    location = resolve(f"fsspec+file://{tmp_path}/books")

    assert (location.kind, location.url) == ("bridge", f"fsspec+file://{tmp_path}/books")
    assert (
        resolve("fsspec+memory://bridge-test/x").uri
        == resolve("/bridge-test/x", filesystem=fsspec.filesystem("memory")).uri
    )


def test_a_dir_filesystem_is_part_of_the_path(tmp_path, memory):
    local = DirFileSystem(str(tmp_path), LocalFileSystem())
    inside = DirFileSystem("/bridge-test/lib", memory)

    assert (resolve("books", filesystem=local).kind, resolve("books", filesystem=local).uri) == (
        "local",
        str(tmp_path / "books"),
    )
    assert resolve("/books", filesystem=inside).url == "fsspec+memory://bridge-test/lib/books"
    assert resolve(f"dir::file://{tmp_path}/books").uri == str(tmp_path / "books")
    assert resolve(f"dir://books::file://{tmp_path}").uri == str(tmp_path / "books")


@pytest.mark.parametrize("scheme", ["simplecache", "filecache", "blockcache"])
def test_caches_of_fsspec_become_the_block_cache(tmp_path, clean_aws, scheme):
    keys = {"key": "k", "secret": "very-secret-value", "endpoint_url": "http://store.example:9000"}
    location = resolve(
        f"{scheme}::s3://bucket/books",
        storage_options={"s3": keys, scheme: {"cache_storage": str(tmp_path / "kept"), "expiry_time": 5}},
    )

    assert (location.kind, location.url) == ("bridge", "s3://bucket/books")
    assert f"the block cache stands in for {scheme} (without use here: expiry_time)" in location.reason
    assert str(tmp_path / "kept" / "vecdataset-blocks") in location.explain()


def test_a_cache_in_front_of_a_local_disk_is_not_needed(tmp_path):
    assert resolve(f"simplecache::file://{tmp_path}/books").kind == "local"


def test_a_cache_object_is_peeled(tmp_path, memory):
    cached = fsspec.filesystem("simplecache", fs=memory, cache_storage=str(tmp_path / "kept"))
    location = resolve("/bridge-test/books", filesystem=cached)

    assert location.url == "fsspec+memory://bridge-test/books"
    assert "stands in for SimpleCacheFileSystem" in location.reason


@pytest.mark.parametrize(
    "options", [{"cache": True}, {"commit_lock": contextlib.nullcontext()}, {"cache_bytes": 5}]
)
def test_what_only_the_bridge_has_leads_there(clean_aws, options):
    keys = {"key": "k", "secret": "s", "endpoint_url": "http://store.example:9000"}
    location = resolve("s3://bucket/books", storage_options={**keys, **options})

    assert (location.kind, location.url) == ("bridge", "s3://bucket/books")
    assert resolve("s3://bucket/books", storage_options={**keys, "cache": False}).kind == "native"


def test_a_universal_path_is_its_filesystem():
    from upath import UPath

    path = UPath("ftp://127.0.0.1:2121/lib/books", username="me", password="very-secret-value")
    with_host = resolve("ftp://me:very-secret-value@127.0.0.1:2121/lib/books")

    assert resolve(path).uri == with_host.uri
    assert "very-secret-value" not in resolve(path).explain() + with_host.explain() + repr(with_host)


@pytest.mark.parametrize(
    ("url", "options", "name"),
    [
        ("ftp://host/x", {"passwrod": "s"}, "passwrod"),
        ("fsspec+file:///x", {"key": "s"}, "key"),
        ("ftp://host/x", {"cache": 7}, "cache"),
        ("ftp://host/x", {"cache_bytes": "many"}, "cache_bytes"),
        ("ftp://host/x", {"commit_lock": 7}, "commit_lock"),
        ("ftp://host/x", {"request_timeout": -1}, "request_timeout"),
        ("ftp://host/x", {"host": "another"}, "host"),
        ("/data", {"commit_lock": contextlib.nullcontext()}, "commit_lock"),
    ],
)
def test_no_option_is_ignored(url, options, name):
    with pytest.raises((UnknownNameError, InvalidInputError, NotSupportedError), match=f"'{name}'"):
        resolve(url, storage_options=options)


def test_options_beside_an_object_are_refused(memory):
    with pytest.raises(InvalidInputError, match="'key' is given beside a filesystem object"):
        resolve("/bridge-test/x", filesystem=memory, storage_options={"key": "x"})


@pytest.mark.parametrize(
    "url", ["http://me:very-secret-value@host/x", "http://host/x?token=very-secret-value"]
)
def test_credentials_do_not_stand_in_a_web_address(url):
    with pytest.raises(InvalidInputError) as caught:
        resolve(url)

    assert "very-secret-value" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host/a//b", "ftp://host/a/../b"])
def test_what_is_no_place_is_refused(url):
    with pytest.raises(InvalidInputError, match="segment"):
        resolve(url)


@pytest.mark.slow
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it():
    code = (
        "import sys; sys.modules['paramiko'] = None\n"
        "from vecdataset.storage import resolve\n"
        "try: resolve('sftp://host/x')\n"
        "except ImportError as error: print(type(error).__name__, error, error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("MissingDependencyError sftp:// needs the package 'paramiko'")
    assert "pip install 'vecdataset[sftp]'" in done.stdout


# ------------------------------------------------------------------------ the gateway


def ask(location, method, path, *, token=None, body=None, **headers):
    """Send one request past Lance."""
    options = location.options
    given = {"x-bridge-token": options["headers.x-bridge-token"] if token is None else token, **headers}
    request = urllib.request.Request(options["aws_endpoint"] + path, data=body, method=method, headers=given)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def place(memory):
    location = resolve("/bridge-test/in", filesystem=memory)
    storage.files(location).write("file", b"0123456789")
    memory.pipe("/bridge-test/out/file", b"secret")
    return location


def path_of(location, name):
    return f"/{location.uri.removeprefix('s3://')}/{name}"


def test_nobody_without_the_token_is_answered(place):
    assert ask(place, "GET", path_of(place, "file"))[0] == 200
    assert ask(place, "GET", path_of(place, "file"), token="guess")[0] == 403
    assert ask(place, "GET", path_of(place, "file"), token="")[0] == 403


def test_the_token_counts_as_the_access_key_of_a_signature(place):
    token = place.options["headers.x-bridge-token"]
    signed = f"AWS4-HMAC-SHA256 Credential={token}/20260101/us-east-1/s3/aws4_request, Signature=0"
    request = urllib.request.Request(
        place.options["aws_endpoint"] + path_of(place, "file"), headers={"Authorization": signed}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.read() == b"0123456789"


@pytest.mark.parametrize(
    "way", ["../out/file", "%2e%2e/out/file", "../../bridge-test/out/file", "./../out/file"]
)
def test_nothing_beside_what_was_opened_is_reached(place, way):
    bucket = place.uri.removeprefix("s3://").partition("/")[0]

    assert ask(place, "GET", f"/{bucket}/bridge-test/out/file")[0] == 403
    assert ask(place, "GET", path_of(place, way))[0] in {403, 404}
    assert ask(place, "GET", f"/{bucket}?list-type=2&prefix=bridge-test/")[0] == 403
    assert ask(place, "PUT", f"/{bucket}/bridge-test/out/new", body=b"x")[0] == 403
    assert ask(place, "DELETE", f"/{bucket}/bridge-test/out/file")[0] == 403
    body = b"<Delete><Object><Key>bridge-test/out/file</Key></Object></Delete>"
    assert ask(place, "POST", f"/{bucket}?delete", body=body)[0] == 403
    source = {"x-amz-copy-source": f"/{bucket}/bridge-test/out/file"}
    assert ask(place, "PUT", path_of(place, "stolen"), body=b"", **source)[0] == 403


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [("bytes=2-4", 206, b"234"), ("bytes=7-", 206, b"789"), ("bytes=-3", 206, b"789"), ("bytes=5-99", 206, b"56789"),
     ("bytes=10-", 416, b""), ("bytes=-0", 416, b"")],
)  # fmt: skip
def test_ranges_are_those_of_http(place, asked, status, body):
    assert ask(place, "GET", path_of(place, "file"), range=asked) == (status, body)


def test_a_second_exclusive_create_fails_and_changes_nothing(place):
    condition = {"if-none-match": "*"}

    assert ask(place, "PUT", path_of(place, "new"), body=b"1", **condition)[0] == 200
    assert ask(place, "PUT", path_of(place, "new"), body=b"2", **condition)[0] == 412
    assert storage.files(place).read("new") == b"1"


@pytest.mark.slow
def test_s3fs_uploads_in_parts_and_lists_pages(place):
    s3fs = pytest.importorskip("s3fs")
    options = place.options
    client = s3fs.S3FileSystem(
        key=options["headers.x-bridge-token"], secret="x", endpoint_url=options["aws_endpoint"],
        config_kwargs={"proxies": {}, "s3": {"addressing_style": "path"}}, skip_instance_cache=True,
    )  # fmt: skip
    base = place.uri.removeprefix("s3://")
    large = os.urandom(12 << 20)
    with client.open(f"{base}/large", "wb", block_size=5 << 20) as file:
        file.write(large)
    for n in range(1005):
        storage.files(place).write(f"many/{n:04}", b"")

    assert client.cat_file(f"{base}/large") == large
    assert len(client.ls(f"{base}/many")) == 1005


def test_a_proxy_and_endpoints_of_the_environment_mean_nothing_to_the_bridge(memory, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "false")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")

    books = vd.create("/bridge-test/books", vectors=VECTORS, filesystem=memory)
    books.upsert(POINTS)

    assert len(vd.open("/bridge-test/books", filesystem=memory)) == 5


@pytest.mark.slow
def test_a_process_that_used_the_bridge_ends_quietly():
    code = (
        "import fsspec, vecdataset as vd;"
        "c = vd.create('/x/books', filesystem=fsspec.filesystem('memory'), vectors=vd.VectorParams(size=1));"
        "c.upsert([{'id': 1, 'vector': [1]}]); print(len(c))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# ---------------------------------------------------------------- every kind of filesystem


def written(url, **how):
    books = vd.create(url, vectors=VECTORS, **how)
    books.upsert(POINTS)
    return books


def test_a_collection_in_fsspecs_memory_is_seen_by_fsspec(memory):
    books = written("/bridge-test/books", filesystem=memory)
    books.delete([0])

    again = vd.open("/bridge-test/books", filesystem=memory)
    assert again.search([1, 0], limit=1)["id"].to_pylist() == [1]
    assert memory.exists("/bridge-test/books/_versions")


def test_a_class_of_the_users_own_on_a_disk_opens_natively_too(tmp_path):
    written(str(tmp_path / "books"), filesystem=Disk())

    assert lance.dataset(tmp_path / "books").count_rows() == 5
    assert len(vd.open(tmp_path / "books")) == 5


class Masked(LocalFileSystem):
    """Keeps every byte turned round on the disk."""

    def cat_file(self, path, start=None, end=None, **kwargs):
        return bytes(b ^ 0xFF for b in super().cat_file(path, start, end, **kwargs))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, bytes(b ^ 0xFF for b in value), mode=mode, **kwargs)


@pytest.mark.parametrize("kind", [None, Masked])
def test_large_ranges_of_a_disk_are_those_that_its_class_gives(tmp_path, kind):
    """The kernel sends the file itself where nothing lies between the disk and what is read."""
    where = {"filesystem": kind()} if kind else {}
    url = str(tmp_path / "books") if kind else f"fsspec+file://{tmp_path}/books"
    vectors = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    books = vd.create(url, vectors=vd.VectorParams(size=16, distance="Euclid"), **where)

    books.upsert((np.arange(20_000), vectors))

    found = vd.open(url, **where).to_arrow().sort_by("id")
    assert np.array_equal(np.stack(found["vector"].to_numpy()), vectors)
    (data,) = (tmp_path / "books" / "data").iterdir()
    assert (vectors[7].tobytes() in data.read_bytes()) is (kind is None)


def test_a_range_of_a_file_that_was_cut_short_is_no_answer(tmp_path):
    """The client hears of it, because fewer bytes come than were announced."""
    (tmp_path / "f").write_bytes(b"x" * 1_000)
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "f").open("rb", buffering=0) as file:
        with pytest.raises(ConnectionError, match="cut short"):
            wire._send(
                ours, wire.Response(body=wire.FilePart(file=file, start=200, length=5_000)), head=False
            )
        ours.close()
        assert theirs.makefile("rb").read().partition(b"\r\n\r\n")[2] == b"x" * 800


@pytest.mark.slow
@pytest.mark.parametrize(
    "server", [places.sftp, places.smb, places.webdav, places.ftp], ids=lambda s: s.__name__
)
def test_a_collection_on_a_server_lives_a_whole_life(server, tmp_path):
    tmp_path.joinpath("served").mkdir()
    with server(tmp_path / "served") as spot:
        books = written(spot.at("books"), **spot.how)
        books.set_payload({"tag": "x"}, ids=[1])
        books.delete([0])
        snapshot = books.snapshots.create("one")
        again = vd.open(spot.at("books"), **spot.how)

        assert sorted(again.to_arrow()["id"].to_pylist()) == [1, 2, 3, 4]
        assert again.search([3, 0], limit=1, filter="n > 1")["id"].to_pylist() == [3]
        assert again.snapshots.verify(snapshot.name)
        assert len(vd.open(spot.folder / "books")) == 4
        assert places.PASSWORD not in again.info().storage + repr(again.info())
        with pytest.raises(vd.CollectionExistsError):
            written(spot.at("books"), **spot.how)


@pytest.mark.slow
def test_a_wrong_password_is_refused_though_the_right_one_is_in_use(tmp_path):
    tmp_path.joinpath("served").mkdir()
    with places.smb(tmp_path / "served") as spot:
        written(spot.at("books"), **spot.how)
        wrong = {**spot.options, "password": "another-secret-word"}
        with pytest.raises(vd.StoragePermissionError, match="refuses access") as caught:
            vd.open(spot.at("books"), storage_options=wrong)

        assert "another-secret-word" not in str(caught.value)
        assert "127.0.0.1/share/lib/books" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server_is_read_and_not_written(ranges, tmp_path):
    written(tmp_path / "books").snapshots.create("one")
    with places.web(tmp_path, ranges=ranges) as spot:
        books = vd.open(spot.at("books"))

        assert books.search([2, 0], limit=1)["id"].to_pylist() == [2]
        assert (len(books), books.at("one").count()) == (5, 5)
        assert resolve(spot.at("books")).commit == "read-only"
        with pytest.raises(ReadOnlyError):
            books.delete([1])
        with pytest.raises(ReadOnlyError):
            vd.create(spot.at("new"), vectors=VECTORS)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_and_not_written(compression, tmp_path):
    written(tmp_path / "books")
    with zipfile.ZipFile(tmp_path / "books.zip", "w", compression) as archive:
        for path in sorted(tmp_path.joinpath("books").rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    url = f"zip://books::file://{tmp_path}/books.zip"
    books = vd.open(url)

    assert (books.name, books.url) == ("books", url)
    assert books.search([2, 0], limit=1)["id"].to_pylist() == [2]
    with pytest.raises(ReadOnlyError):
        books.upsert(POINTS)


def test_an_archive_that_is_not_there_says_so(tmp_path):
    with pytest.raises(vd.NotFoundError, match="nothing stands at"):
        resolve(f"zip://books::file://{tmp_path}/no.zip")


def test_a_host_that_does_not_answer_is_named_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]

    with pytest.raises(StorageUnreachableError, match="does not answer") as caught:
        vd.open(f"ftp://me:very-secret-value@127.0.0.1:{port}/books")
    assert "very-secret-value" not in str(caught.value)


@pytest.mark.slow
def test_a_wrong_password_is_named_and_not_shown(tmp_path):
    with (
        places.ftp(tmp_path) as spot,
        pytest.raises(StoragePermissionError, match="refuses access") as caught,
    ):
        vd.open(spot.at("books"), storage_options={**spot.options, "password": "very-wrong-secret"})

    assert "very-wrong-secret" not in str(caught.value)


class Broken(LocalFileSystem):
    """Fails as told, when told."""

    protocol = "brokenfs"
    error = None

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if self.error is not None:
            raise self.error
        return super().pipe_file(path, value, mode=mode, **kwargs)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(28, "No space left on device"), StorageError, "no space is left"),
        (PermissionError(13, "Permission denied"), StoragePermissionError, "refuses access"),
        (NotImplementedError("no"), NotSupportedError, "does not offer"),
        (RuntimeError("odd"), StorageError, "RuntimeError: odd"),
    ],
)
def test_the_filesystems_own_exception_is_the_cause_of_ours(error, kind, text, tmp_path, monkeypatch):
    books = written(str(tmp_path / "books"), filesystem=Broken())
    monkeypatch.setattr(Broken, "error", error)

    with pytest.raises(kind, match=text) as caught:
        books.upsert(POINTS)

    assert caught.value.__cause__ is error
    assert "127.0.0.1" not in str(caught.value)
    monkeypatch.setattr(Broken, "error", None)
    assert len(vd.open(str(tmp_path / "books"), filesystem=Broken())) == 5
    assert books.upsert([{"id": 9, "vector": [9, 9]}]).inserted == 1


def test_a_clone_of_its_own_is_used_and_the_users_object_is_left_alone(tmp_path):
    mine = Plain()
    resolve(str(tmp_path / "x"), filesystem=mine)
    Path(tmp_path, "x").mkdir()

    assert mine.dircache.use_listings_cache is LocalFileSystem().dircache.use_listings_cache
