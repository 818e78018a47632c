"""Places: what a user may hand over, and the files beneath, on disk, in memory and on S3."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from lance.file import LanceFileSession

from vecdataset import storage
from vecdataset.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    NotSupportedError,
    StoragePermissionError,
    UnknownNameError,
)
from vecdataset.storage import FileInfo, files, resolve

storage.register_lance_files(LanceFileSession)

ROWS = pa.table({"a": [1, 2]})
ODD = ["plain", "a b", "x=y", "50%20", "ü", "a~b", "a#b", "a+b&c", "[x]{y}", "'q'"]


@dataclass
class UniversalPath:
    """What is used of a UPath: three attributes."""

    protocol: str
    path: str
    storage_options: dict = field(default_factory=dict)


# ------------------------------------------------------------------------- resolving


def test_a_bare_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    location = resolve("books/../lib")

    assert (location.url, location.uri, location.kind) == (str(tmp_path / "lib"),) * 2 + ("local",)
    assert (location.remote, location.commit, location.name) == (False, "atomic", "lib")


@pytest.mark.parametrize(
    "given",
    ["/data/books", "/data/books/", "file:///data/books", "local:///data/books", Path("/data/books"),
     UniversalPath("", "/data/books"), UniversalPath("file", "/data/books")],
)  # fmt: skip
def test_every_way_to_write_a_local_path_is_the_same_place(given):
    assert resolve(given).uri == str(Path("/data/books"))


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert resolve("~/books").uri == str(tmp_path / "books")


def test_percent_signs_of_local_urls_are_literal_as_in_fsspec():
    assert resolve("file:///data/a%20b").uri == "/data/a%20b"


def test_a_local_filesystem_object_is_taken(tmp_path):
    import fsspec

    assert resolve(str(tmp_path), filesystem=fsspec.filesystem("file")).uri == str(tmp_path)


@pytest.mark.parametrize("url", ["memory://lib/books", "memory:///lib/books", "memory://lib/books/"])
def test_memory_urls_lead_to_shared_memory(url):
    location = resolve(url)

    assert (location.url, location.uri) == ("memory://lib/books", "shared-memory://lib/books")
    assert (location.kind, location.remote, location.commit) == ("shared-memory", False, "atomic")


def test_a_universal_path_into_memory_is_the_same_place_as_its_url():
    assert resolve(UniversalPath("memory", "/lib/books")) == resolve("memory://lib/books")


@pytest.mark.parametrize("url", ["s4://host/books", "zip://x::s4://host/y.zip", "gopher://host/books"])
def test_a_scheme_that_nobody_knows_is_refused(url):
    with pytest.raises(NotSupportedError, match=r"scheme '(s4|gopher)' .*known"):
        resolve(url)


def test_the_schemes_that_look_like_an_unknown_one_are_named():
    with pytest.raises(NotSupportedError) as caught:
        resolve("stfp://host/books")

    assert "'sftp'" in caught.value.hint


def test_every_scheme_of_a_built_in_route_is_a_name_of_it():
    for route in storage.filesystems:
        assert {storage.filesystems.get(s).name for s in route.schemes} <= {route.name}


def test_a_wrapper_of_nothing_is_refused():
    with pytest.raises(NotSupportedError, match="says nothing of what it wraps"):
        resolve("dir://books")


@pytest.mark.parametrize("url", ["", "  ", "a\nb", "memory://", "memory://a//b", "memory://a/../b", None, 7])
def test_what_is_no_place_is_refused(url):
    with pytest.raises(InvalidInputError):
        resolve(url)


def test_an_object_that_is_no_filesystem_is_refused():
    with pytest.raises(InvalidInputError, match=r"not builtins\.object"):
        resolve("/books", filesystem=object())


def test_a_refused_url_is_shown_without_its_secrets():
    with pytest.raises(NotSupportedError) as caught:
        resolve("s4://user:pass/word@host/x?token=abc")

    assert "pass" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("url", ["/data", "memory://data"])
def test_an_option_that_means_nothing_here_is_refused(url):
    with pytest.raises(UnknownNameError, match="'key'"):
        resolve(url, storage_options={"key": "x"})


def test_an_option_said_by_the_path_and_beside_it_is_refused():
    with pytest.raises(InvalidInputError, match="given twice"):
        resolve(UniversalPath("file", "/x", {"auto_mkdir": True}), storage_options={"auto_mkdir": False})


def test_explain_says_who_does_the_work():
    assert resolve("memory://lib/a b").explain().splitlines() == [
        "memory://lib/a b",
        "  route      memory (shared-memory): Lance's store in the memory of this process",
        "  Lance URI  shared-memory://lib/a=20b",
        "  requests   are local",
        "  writers    many processes may write at once",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
@pytest.mark.parametrize("root", ["/data", "memory://data"])
def test_a_child_stays_beneath_its_parent(root, name):
    with pytest.raises(InvalidInputError):
        resolve(root).child(name)


# ------------------------------------------------------------------------------ files


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def root(request, tmp_path):
    """An empty place, once for each route."""
    if request.param == "s3":
        store = request.getfixturevalue("s3")
        return resolve(f"{store.url}/root", storage_options=store.options)
    return resolve(tmp_path / "root" if request.param == "local" else f"memory://{tmp_path.name}")


def write(location):
    lance.write_dataset(ROWS, location.uri, storage_options=dict(location.options) or None)


def count(location):
    return lance.dataset(location.uri, storage_options=dict(location.options) or None).count_rows()


def test_a_place_without_files_is_empty(root):
    place = files(root)

    assert (place.list_dirs(), list(place.list_files()), place.is_empty()) == ([], [], True)


def test_what_is_written_is_read(root):
    files(root).write("deep/er/file.bin", b"\0data")
    files(root).write("deep/empty", b"")

    assert files(root).read("deep/er/file.bin") == b"\0data"
    assert files(root).read("deep/empty") == b""
    assert list(files(root).list_files()) == [
        FileInfo(path="deep/empty", size=0),
        FileInfo(path="deep/er/file.bin", size=5),
    ]


def test_writing_again_replaces(root):
    files(root).write("file", b"longer")
    files(root).write("file", b"new")

    assert files(root).read("file") == b"new"
    assert [f.path for f in files(root).list_files()] == ["file"]


def test_a_missing_file_is_named(root):
    files(root).write("there", b"x")

    assert (files(root).exists("there"), files(root).exists("missing")) == (True, False)
    with pytest.raises(NotFoundError, match="missing"):
        files(root).read("missing")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "", "a/./b", "a\\b"])
def test_no_path_leads_out_of_a_place(root, path):
    with pytest.raises(InvalidInputError):
        files(root).read(path)
    with pytest.raises(InvalidInputError):
        files(root).write(path, b"")


def test_a_listing_tells_files_from_folders(root):
    files(root).write("one", b"1")
    files(root).write("sub/two", b"22")

    assert files(root).list_dirs() == ["sub"]
    assert list(files(root).list_files(recursive=False)) == [FileInfo(path="one", size=1)]


def test_deleting_what_is_not_there_is_no_error(root):
    files(root).write("one", b"1")
    files(root).delete(["one", "two"])

    assert files(root).is_empty()


def test_upload_and_download_go_through_local_files(root, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(70_000))
    files(root).upload(source, "big")
    files(root).download("big", target)

    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", ODD)
def test_lance_and_listings_agree_on_odd_names(root, name):
    write(root.child(name))

    assert files(root).list_dirs() == [name]
    assert any("_versions/" in f.path for f in files(root.child(name)).list_files())
    assert count(root.child(name)) == 2


def test_a_copy_opens_and_the_original_stays(root):
    write(root.child("a"))
    copied = files(root.child("a")).copy_tree(root.child("b"))

    assert copied == len(list(files(root.child("a")).list_files()))
    assert (count(root.child("a")), count(root.child("b"))) == (2, 2)


def test_a_copy_goes_between_routes_and_back(root, tmp_path):
    write(root.child("a"))
    elsewhere = resolve(tmp_path / "elsewhere")
    files(root.child("a")).copy_tree(elsewhere)
    files(elsewhere).copy_tree(root.child("back"))

    assert (count(elsewhere), count(root.child("back"))) == (2, 2)


def test_versions_are_copied_last(root, monkeypatch):
    write(root.child("a"))
    order = []
    original = type(files(root)).copy_file

    def spy(self, path, target, spool):
        order.append(path.partition("/")[0])
        original(self, path, target, spool)

    monkeypatch.setattr(type(files(root)), "copy_file", spy)
    files(root.child("a")).copy_tree(root.child("b"))

    assert order.index("_versions") == len(order) - order.count("_versions")


def test_renaming_moves_everything(root):
    write(root.child("a"))
    files(root.child("a")).rename_tree(root.child("b"))

    assert files(root).list_dirs() == ["b"]
    assert count(root.child("b")) == 2


def test_nothing_is_copied_or_moved_over_something(root):
    write(root.child("a"))
    write(root.child("b"))

    with pytest.raises(AlreadyExistsError):
        files(root.child("a")).copy_tree(root.child("b"))
    with pytest.raises(AlreadyExistsError):
        files(root.child("a")).rename_tree(root.child("b"))
    assert files(root).list_dirs() == ["a", "b"]


def test_delete_tree_leaves_the_neighbours(root):
    write(root.child("a"))
    write(root.child("ab"))
    files(root.child("a")).delete_tree()

    assert files(root).list_dirs() == ["ab"]


def test_a_local_rename_is_one_step(tmp_path, monkeypatch):
    source, target = resolve(tmp_path / "a"), resolve(tmp_path / "deep" / "b")
    write(source)
    monkeypatch.setattr("shutil.copyfile", None)
    files(source).rename_tree(target)

    assert count(target) == 2


def test_half_written_local_files_are_no_files(tmp_path):
    tmp_path.joinpath(".vecdataset-part-1234").write_bytes(b"half")

    assert files(resolve(tmp_path)).is_empty()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_says_so(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(StoragePermissionError, match="refuses access"):
        files(resolve(tmp_path)).write("file", b"")


def test_memory_is_shared_by_every_handle_of_a_process():
    write(resolve("memory://shared/books"))

    assert count(resolve("memory://shared/books")) == 2
    assert count(resolve("shared-memory://shared/books")) == 2
    assert files(resolve("memory://shared")).list_dirs() == ["books"]


def test_a_local_place_is_reached_and_written_without_a_request(tmp_path):
    location = resolve(tmp_path)

    assert storage.check_reachable(location) is None
    assert storage.probe_commit(location) is True
    assert list(tmp_path.iterdir()) == []
