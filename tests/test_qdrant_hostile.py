"""Archives made by someone who means harm, or damaged on the way: refused, and nothing is left behind."""

import gzip
import io
import json
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")

from qdrant_snapshots import (
    BLOCK,
    Archive,
    collection_config,
    make_shard,
    pack_collection,
    sparse_header,
)

import vecdataset as vd
from vecdataset.formats.inspection import inspect
from vecdataset.formats.qdrant import archive as limits
from vecdataset.formats.qdrant.archive import Tar
from vecdataset.formats.qdrant.unpack import unpack

ONE = {"size": 4, "distance": "Dot"}
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def tar_of(*members, format=tarfile.GNU_FORMAT):
    """Return a tar of `(name or TarInfo, content)`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


@pytest.fixture
def private(tmp_path, monkeypatch):
    """The folder that temporary folders are made in, with something beside it that must not change."""
    folder = tmp_path / "private"
    folder.mkdir()
    (tmp_path / "beside").write_text("untouched")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def refused(data, private, match):
    target = private.parent / "collection"
    with pytest.raises(vd.InvalidInputError, match=match):
        vd.load(io.BytesIO(data), target, format="qdrant")
    assert not target.exists()
    assert list(private.iterdir()) == []
    assert sorted(p.name for p in private.parent.iterdir()) == ["beside", "private"]
    assert (private.parent / "beside").read_text() == "untouched"


@pytest.mark.parametrize(
    "name",
    [
        "../beside",
        "a/../../beside",
        "/tmp/beside",
        "a\\..\\beside",
        "C:/beside",
        "0/segments/../../../beside",
        "x\ny",
    ],
)
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_names_that_lead_out_are_refused(private, name, format):
    refused(tar_of((name, b"x"), format=FORMATS[format]), private, "leads out of it")


def test_names_that_lead_out_of_a_segments_archive_are_refused(private):
    inner = tar_of(("snapshot/files/../../../../beside", b"x"))

    refused(tar_of(("0/segments/s.tar", inner)), private, "leads out of it")


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (special("a", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        (special("a", tarfile.LNKTYPE, "b"), "a hard link"),
        (special("a", tarfile.CHRTYPE), "a device"),
        (special("a", tarfile.BLKTYPE), "a device"),
        (special("a", tarfile.FIFOTYPE), "a pipe"),
        (special("a", b"V"), "an entry of type 'V'"),
    ],
)
def test_what_is_no_file_is_refused(private, member, what):
    refused(tar_of(("config.json", b"{}"), (member, b"")), private, f"holds {what}")


def test_global_headers_are_refused(private):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "../x"}) as tar:
        tar.addfile(tarfile.TarInfo("config.json"), io.BytesIO())

    refused(out.getvalue(), private, "PAX global header")


def test_a_name_that_stands_twice_is_refused(private):
    refused(tar_of(("a", b"1"), ("./a", b"2")), private, "holds 'a' twice")
    refused(
        tar_of(("0/segments/s.tar", tar_of(("snapshot/files/x", b"1"))), ("0/segments/s/files/x", b"2")),
        private, "twice",
    )  # fmt: skip
    refused(tar_of(("a", b"1"), ("a/b", b"2")), private, "as a file and as a folder")


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 700, 1023, 1024, 1500])
def test_an_archive_that_breaks_off_is_refused(private, cut):
    data = Archive()
    data.add("config.json", json.dumps(collection_config(ONE)).encode())
    whole = data.bytes()
    assert cut < len(whole) - 2 * BLOCK

    refused(whole[:cut], private, "breaks off")


def test_a_gzip_that_breaks_off_is_refused(private):
    data = gzip.compress(tar_of(("a", bytes(random.Random(0).randbytes(200_000)))))

    refused(data[: len(data) // 2], private, "breaks off")


def test_a_header_that_was_changed_is_refused(private):
    data = bytearray(tar_of(("config.json", b"{}")))
    data[3] ^= 1

    refused(bytes(data), private, "header is damaged")


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ([(0, 512), (256, 512)], 4096),
        ([(4096, 512)], 512),
        ([(1 << 60, 512)], (1 << 60) + 512),
    ],
)
def test_a_sparse_map_that_does_not_add_up_is_refused(private, parts, size):
    head = (
        sparse_header("a", min(size, (1 << 33) - 1), parts[:0])
        if size > 1 << 33
        else sparse_header("a", size, parts)
    )
    if size > 1 << 33:
        head = bytearray(head)
        head[483:495] = b"\x80" + size.to_bytes(11, "big")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)

    refused(bytes(head) + bytes(512 * len(parts)) + bytes(1024), private, "does not add up|overlap")


def test_sparse_files_as_pax_records_are_refused_with_the_remedy(private):
    info = tarfile.TarInfo("a")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}

    refused(tar_of((info, b""), format=tarfile.PAX_FORMAT), private, "sparse files as PAX records")


def test_a_header_that_states_much_takes_little_memory(private):
    info = tarfile.TarInfo("././@LongLink")
    info.type = b"L"
    info.size = 1 << 40
    refused(
        info.tobuf(tarfile.GNU_FORMAT) + bytes(4096),
        private,
        "a header of type 'L' of 1,099,511,627,776 bytes",
    )

    info = tarfile.TarInfo("big")
    info.size = 1 << 50
    refused(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096), private, "says that 'big' has")


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(private, monkeypatch):
    info = tarfile.TarInfo("0/segments/s/files/matrix.dat")
    info.size = 1 << 43

    with pytest.raises(vd.StorageError, match="are free in") as full:
        vd.load(
            io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), private.parent / "c", format="qdrant"
        )

    assert "TMPDIR" in full.value.hint
    assert list(private.iterdir()) == []


def test_more_entries_than_a_snapshot_has_are_refused(private, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ENTRIES", 100)

    refused(tar_of(*((f"{i}", b"") for i in range(101))), private, "more than 100 entries")


def test_deep_and_long_names_are_refused(private):
    refused(tar_of(("/".join("a" * 40), b"")), private, "folders")
    refused(tar_of(("a" * 2000, b"")), private, "a name of 2,000 characters")


@pytest.mark.slow
def test_a_bomb_takes_little_memory_and_little_disk(tmp_path):
    info = tarfile.TarInfo("0/wal/open-1")
    info.size = 1 << 30
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(info.size >> 24):
            file.write(bytes(1 << 24))
        file.write(bytes(1024))
    code = f"""
import gzip, resource, sys
from pathlib import Path
from vecdataset.formats.qdrant.unpack import unpack
root = Path({str(tmp_path / "out")!r}); root.mkdir()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with gzip.open({str(path)!r}) as file:
    unpack(file, root, where="bomb")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown, sum(p.stat().st_blocks * 512 for p in root.rglob("*") if p.is_file()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown_kb, on_disk = map(int, done.stdout.split())

    assert path.stat().st_size < 10 << 20
    assert grown_kb < 64 << 10
    assert on_disk < 1 << 20


def test_json_that_nests_without_end_is_refused(private):
    data = tar_of(("config.json", b"[" * 100_000))

    refused(data, private, "does not parse")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"params": None}, "not Qdrant's"),
        ({"params": {"vectors": {"size": -1, "distance": "Dot"}}}, "vector size is -1"),
        ({"params": {"vectors": {"size": 10**9, "distance": "Dot"}}}, "vector size"),
        ({"params": {"vectors": {"a": {"distance": "Dot"}}}}, "does not parse"),
        ({"params": {"vectors": {"size": 4, "distance": "Chebyshev"}}}, "distance 'Chebyshev'"),
        ({"params": {"vectors": [4]}}, "not Qdrant's"),
        ({"params": {}}, "at least one vector"),
        ({"collections_mapping": {"a": "../beside"}}, "is not in it"),
        ({"collections_mapping": ["a"]}, "not an object of texts"),
        ([], "not a collection's"),
    ],
)
def test_a_config_that_is_none_is_refused(private, config, match):
    archive = Archive()
    archive.add("config.json", json.dumps(config).encode())
    archive.add("0/segments/s/files/segment.json", b"{}")
    archive.add("0/segments/s/files/mutable_id_tracker.mappings", b"")

    refused(archive.bytes(), private, match)


def test_random_bytes_are_no_tar():
    rng = random.Random(1)
    for _ in range(300):
        data = rng.randbytes(rng.randrange(0, 3000))
        with pytest.raises(vd.InvalidInputError):
            list(Tar(io.BytesIO(data), where="noise"))


@pytest.mark.parametrize("format", FORMATS)
def test_pythons_own_archives_are_read(tmp_path, format):
    long = "0/segments/" + "n" * 90 + "/files/" + "v" * 40
    members = [("config.json", b"{}"), (long, bytes(3000)), ("empty", b"")]

    found = unpack(io.BytesIO(tar_of(*members, format=FORMATS[format])), tmp_path, where="tar")

    assert set(found.files) == {"config.json", long.replace("/files/", "/"), "empty"}
    assert (tmp_path / long.replace("/files/", "/")).read_bytes() == bytes(3000)


# ------------------------------------------------------------------------------- fuzzing

FUZZED = 20_000


def mutations(data, seed, count):
    """Yield `data` changed in one of several ways."""
    rng = random.Random(seed)
    headers = [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(count):
        kind = rng.randrange(6)
        changed = bytearray(data)
        if kind == 0:
            for _ in range(rng.randrange(1, 8)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        elif kind == 1:
            changed = changed[: rng.randrange(len(changed))]
        elif kind == 2:  # a header whose checksum holds all the same
            at = rng.choice(headers)
            changed[at + rng.choice([0, 5, 124, 130, 156, 386, 400, 482, 483, 490])] = rng.randrange(256)
            changed[at + 148 : at + 156] = b" " * 8
            changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + BLOCK])
        elif kind == 3:
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(2000)] = b""
        elif kind == 4:
            at = rng.randrange(len(changed))
            changed[at:at] = rng.randbytes(rng.randrange(600))
        else:
            at, to = rng.choice(headers), rng.choice(headers)
            changed[at : at + BLOCK] = data[to : to + BLOCK]
        yield bytes(changed)


def small_archive(tmp_path):
    """Return a snapshot of some hundred KB: the engine's, its large empty files cut to holes."""
    points = [(i, [1.0, 2.0, 3.0, float(i)], {"n": i}) for i in range(20)]
    return pack_collection([make_shard(tmp_path / "small", points, ONE)], collection_config(ONE))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_thousand_damaged_archives_are_looked_into_without_harm(tmp_path, monkeypatch):
    """All that stands before the engine: the tar, the layout, the config, trackers and logs."""
    shm = Path("/dev/shm")
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(dir=shm if shm.is_dir() else tmp_path))
    archive = Archive()
    with tarfile.open(fileobj=io.BytesIO(small_archive(tmp_path))) as source:
        for member in source:  # the log and the pages are most of the bytes, and of one kind
            content = source.extractfile(member).read()
            if member.name.endswith(".tar"):
                inner = Archive()
                with tarfile.open(fileobj=io.BytesIO(content)) as segment:
                    for part in segment:
                        inner.add(part.name, segment.extractfile(part).read()[:600])
                content = inner.bytes()
            archive.add(member.name, content[:1200] if "/wal/" in member.name else content)
    data = archive.bytes()
    assert len(data) < 200_000
    outcomes = {"read": 0, "refused": 0}

    for changed in mutations(data, seed=20_000, count=FUZZED):
        try:
            inspect(io.BytesIO(changed), format="qdrant")
        except (vd.InvalidInputError, vd.StorageError):
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1

    Path(tempfile.gettempdir()).rmdir()  # it is empty
    assert outcomes["refused"] > FUZZED // 2
    assert outcomes["read"] > FUZZED // 100  # what is changed in the points' own bytes does not show here
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KB


FUZZ = """
import io, sys, warnings
sys.path.insert(0, {tests!r})
import vecdataset as vd
from test_qdrant_hostile import mutations
warnings.simplefilter("ignore")
data = open({path!r}, "rb").read()
for number, changed in enumerate(mutations(data, seed={seed}, count={count})):
    target = "{out}/" + str(number)
    try:
        made = vd.load(io.BytesIO(changed), target, format="qdrant")
    except vd.VecDatasetError:
        import os
        assert not os.path.exists(target), number
        print("refused", flush=True)
    else:
        assert len(made) > 0, number
        print("read", flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_damaged_archives_that_reach_the_engine_give_all_points_or_none(tmp_path):
    path = tmp_path / "small.snapshot"
    path.write_bytes(small_archive(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    here = str(Path(__file__).parent)
    code = FUZZ.format(tests=here, path=str(path), seed=7, count=150, out=out)

    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=800
    )

    words = done.stdout.split()
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(words) == 150
    assert words.count("refused") > 75
