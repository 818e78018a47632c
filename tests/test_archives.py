"""Snapshots as one file: packed, unpacked, and everything an archive could try."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import vecdataset as vd
from vecdataset.archives import MEMBER, unpack


@pytest.fixture
def books(tmp_path):
    collection = vd.create(tmp_path / "books", vectors=vd.VectorParams(8))
    rng = np.random.default_rng(0)
    collection.upsert([{"id": i, "vector": rng.standard_normal(8), "n": i} for i in range(300)])
    collection.create_index("ivf_flat")
    collection.delete(range(20))
    collection.snapshots.create("first", note="packed")
    collection.upsert([{"id": 1000, "vector": rng.standard_normal(8)}])
    return collection


def content(collection):
    return collection.to_arrow().sort_by("id")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_a_packed_snapshot_comes_back_bit_for_bit(books, tmp_path, ending):
    shares = []
    archive = books.snapshots.pack("first", tmp_path / f"books.{ending}", progress=shares.append)

    made = unpack(archive, tmp_path / "again", progress=shares.append)

    assert made == books.snapshots.get("first")
    assert shares.count(1.0) == 2
    again = vd.open(tmp_path / "again")
    assert content(again).equals(content(books.at("first")))
    assert again.snapshots.verify("first", deep=True)
    for f in made.files:
        assert (tmp_path / "again" / f.path).read_bytes() == (Path(books.url) / f.path).read_bytes()
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
def test_an_archive_travels_over_s3(books, s3):
    archive = books.snapshots.pack("first", f"{s3.url}/packed/books.tar", storage_options=s3.options)
    unpack(archive, f"{s3.url}/again", storage_options=s3.options, target_options=s3.options)

    again = vd.open(f"{s3.url}/again", storage_options=s3.options)
    assert content(again).equals(content(books.at("first")))


def test_a_damaged_snapshot_is_not_packed(books, tmp_path):
    sealed = books.snapshots.get("first").files
    data = next(Path(books.url) / f.path for f in sealed if f.path.startswith("data/"))
    data.write_bytes(data.read_bytes()[:-1] + b"?")

    with pytest.raises(vd.CorruptionError, match=data.name):
        books.snapshots.pack("first", tmp_path / "books.tar")

    assert not (tmp_path / "books.tar").exists()


def test_an_ending_that_says_nothing_is_refused(books, tmp_path):
    with pytest.raises(vd.InvalidInputError, match=r"books\.zip"):
        books.snapshots.pack("first", tmp_path / "books.zip")


def test_a_place_that_is_taken_is_refused(books, tmp_path):
    archive = books.snapshots.pack("first", tmp_path / "books.tar")

    with pytest.raises(vd.CollectionExistsError):
        unpack(archive, books.url)
    with pytest.raises(vd.NotFoundError, match=r"no archive at .*none\.tar"):
        unpack(tmp_path / "none.tar", tmp_path / "x")


def test_what_an_interrupted_unpacking_left_is_gone_on_with(books, tmp_path):
    archive = books.snapshots.pack("first", tmp_path / "books.tar")
    unpack(archive, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "_snapshots")
    shutil.rmtree(tmp_path / "again" / "_versions")

    unpack(archive, tmp_path / "again")

    assert vd.open(tmp_path / "again").snapshots.verify("first")


def rewritten(archive, change):
    """Write the members again as `change` returns them."""
    with tarfile.open(archive) as packed:
        members = [(m, packed.extractfile(m).read()) for m in packed]
    with tarfile.open(archive, "w") as packed:
        for info, data in change(members):
            info.size = len(data) if info.isreg() else 0
            packed.addfile(info, io.BytesIO(data))


def renamed(name):
    def change(members):
        members[1][0].name = name
        return members

    return change


def linked(members):
    members[1][0].type, members[1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    return members


def flipped(members):
    info, data = members[1]
    return [members[0], (info, bytes([data[0] ^ 1]) + data[1:]), *members[2:]]


HOSTILE = {
    "leaves": renamed("../../evil"),
    "absolute": renamed("/tmp/evil"),
    "stranger": renamed("data/evil.lance"),
    "link": linked,
    "flipped": flipped,
    "shorter": lambda members: [members[0], (members[1][0], members[1][1][:-1]), *members[2:]],
    "missing": lambda members: members[:-1],
    "twice": lambda members: [*members, members[1]],
    "no manifest": lambda members: members[1:],
    "other manifest": lambda members: [(members[0][0], b'{"name": "x"}'), *members[1:]],
    "empty": lambda _: [],
}


@pytest.mark.parametrize("how", HOSTILE)
def test_an_archive_that_is_not_what_it_seals_is_refused(books, tmp_path, how):
    archive = books.snapshots.pack("first", tmp_path / "books.tar")
    rewritten(archive, HOSTILE[how])

    with pytest.raises(vd.CorruptionError):
        unpack(archive, tmp_path / "again" / "books")

    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "again" / "books" / "_snapshots").exists()
    with pytest.raises((vd.CollectionNotFoundError, vd.InvalidInputError)):
        vd.open(tmp_path / "again" / "books")


def test_members_may_come_in_any_order(books, tmp_path):
    archive = books.snapshots.pack("first", tmp_path / "books.tar")
    rewritten(archive, lambda members: [members[0], *reversed(members[1:])])

    unpack(archive, tmp_path / "again")

    assert vd.open(tmp_path / "again").snapshots.verify("first")


@pytest.mark.parametrize("keep", [0, 100, 5_000, -600])
@pytest.mark.parametrize("ending", ["tar", "tgz"])
def test_an_archive_that_was_cut_is_refused(books, tmp_path, keep, ending):
    archive = Path(books.snapshots.pack("first", tmp_path / f"books.{ending}"))
    archive.write_bytes(archive.read_bytes()[:keep])

    # The end of a tar file is padding: nothing is missing where only that was cut.
    if ending == "tar" and keep == -600:
        unpack(archive, tmp_path / "again")
    else:
        with pytest.raises(vd.CorruptionError, match=archive.name):
            unpack(archive, tmp_path / "again")
    assert MEMBER not in [p.name for p in tmp_path.iterdir()]
