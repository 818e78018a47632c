"""The tar writer: what it writes, every reader reads; holes stay holes; nothing but three kinds of entry."""

import hashlib
import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdataset.formats.qdrant.sparse_tar import Folder, Member, Packed, TarWriter, data_extents

GRAIN = 64 << 10


def written(*members):
    out = io.BytesIO()
    archive = TarWriter(out, mtime=1_700_000_000)
    for member in members:
        archive.add(member)
    digest = archive.close()
    assert digest == hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


def read(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return {m.name: archive.extractfile(m).read() if m.isfile() else None for m in archive}


def used(extents):
    """The entries of a map; Python's reader also lists the empty places behind them."""
    return [e for e in extents if e != (0, 0)]


def holey(path, runs, tail):
    """A file of 64 KiB pieces, each zeros or not, and some bytes more."""
    with path.open("wb") as file:
        for at, used in enumerate(runs):
            file.write(bytes([at % 255 + 1]) * GRAIN if used else bytes(GRAIN))
        file.write(tail)
    return path


@given(st.lists(st.booleans(), max_size=70), st.binary(max_size=1200))
@settings(max_examples=60, deadline=None)
def test_a_file_with_holes_comes_back_byte_for_byte(tmp_path_factory, runs, tail):
    path = holey(tmp_path_factory.mktemp("holes") / "page.dat", runs, tail)
    data = written(Member("a/page.dat", path), Member("after", b"x"))

    assert read(data) == {"a/page.dat": path.read_bytes(), "after": b"x"}


def test_every_extent_but_the_last_is_whole_blocks_and_the_last_ends_the_file(tmp_path):
    ends_in_hole = holey(tmp_path / "1", [1, 0, 1, 0, 0], b"")
    ends_in_data = holey(tmp_path / "2", [0, 1, 0], b"end")
    nothing = holey(tmp_path / "3", [0] * 9, b"")
    data = written(Member("1", ends_in_hole), Member("2", ends_in_data), Member("3", nothing))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        maps = {m.name: (used(m.sparse), m.size) for m in archive}

    assert maps == {
        "1": ([(0, GRAIN), (2 * GRAIN, GRAIN), (5 * GRAIN, 0)], 5 * GRAIN),
        "2": ([(GRAIN, GRAIN), (3 * GRAIN, 3)], 3 * GRAIN + 3),
        "3": ([(9 * GRAIN, 0)], 9 * GRAIN),
    }


@pytest.mark.parametrize("extents", [4, 5, 25, 26, 46, 47, 200])
def test_a_map_of_many_extents_goes_on_in_further_blocks(tmp_path, extents):
    path = holey(tmp_path / "page", [1, 0] * extents, b"")

    assert len(data_extents(path)) == extents
    assert read(written(Member("page", path), Member("after", b"x"))) == {
        "page": path.read_bytes(),
        "after": b"x",
    }


def test_an_archive_within_an_archive_has_the_length_that_its_header_says(tmp_path):
    path = holey(tmp_path / "page", [1, 0, 1, 0], b"tail")
    inner = [Member("snapshot/files/page", path), Folder("snapshot/files/empty/"), Member("small", b"1")]
    data = written(Packed("0/segments/x.tar", inner, 7), Member("config.json", b"{}"))
    outer = read(data)

    assert outer["config.json"] == b"{}"
    assert read(outer["0/segments/x.tar"]) == {
        "snapshot/files/page": path.read_bytes(), "snapshot/files/empty": None, "small": b"1",
    }  # fmt: skip


def test_long_and_foreign_names_come_back():
    names = ["snapshot/files/vector_storage-" + "n" * 200 + "/vectors/config.json", "größe-😀"]

    assert list(read(written(*(Member(n, b"x") for n in names)))) == names


def test_a_size_beyond_eight_gigabytes_is_written(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(9 << 30)
    member = object.__new__(Member)
    for key, value in {"name": "huge", "source": path, "size": 9 << 30, "extents": ()}.items():
        object.__setattr__(member, key, value)
    with tarfile.open(fileobj=io.BytesIO(written(member))) as archive:
        found = archive.next()

    assert (found.size, used(found.sparse)) == (9 << 30, [(9 << 30, 0)])


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar program")
def test_gnu_tar_reads_it_too(tmp_path):
    path = holey(tmp_path / "page", [0, 1] * 30 + [0], b"")
    (tmp_path / "x.tar").write_bytes(written(Member("d/page", path), Folder("d/empty/")))
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "x.tar", "-C", tmp_path / "out"], check=True)

    assert (tmp_path / "out" / "d" / "page").read_bytes() == path.read_bytes()
    assert (tmp_path / "out" / "d" / "empty").is_dir()


def test_a_name_stands_once():
    archive = TarWriter(io.BytesIO(), mtime=0)
    archive.add(Member("a", b""))

    with pytest.raises(AssertionError, match="a is in the archive already"):
        archive.add(Member("a", b""))
