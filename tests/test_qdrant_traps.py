"""The traps of Qdrant's formats, on the way in; the numbers are those of the list they were found by.

Traps 3 to 6, 14, 15 and 17 to 19 concern the way out; 4 and 6 have a side that reading shows.
"""

import io
import json
import shutil
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

edge = pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")

from qdrant_snapshots import (  # noqa: E402
    Archive,
    add_shard,
    collection_config,
    contents,
    copy_sparse,
    make_shard,
    pack_collection,
    rich_points,
)

import vecdataset as vd  # noqa: E402

ONE = {"size": 4, "distance": "Dot"}


def few(count=10, start=0):
    rng = np.random.default_rng(start)
    return [(start + i, rng.normal(size=4).tolist(), {"n": i}) for i in range(count)]


def load(data, tmp_path, **options):
    return vd.load(io.BytesIO(data), tmp_path / "c", **options)


def points(collection):
    rows = collection.scroll(limit=10_000, with_vectors=True).to_pylist(layout="qdrant")
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_shard(tmp_path_factory.mktemp("traps") / "shard", few(), ONE)


@pytest.fixture
def shard(original, tmp_path):
    """A shard to be changed."""
    copy_sparse(original, tmp_path / "shard")
    return tmp_path / "shard"


def segment_of(folder):
    return next((folder / "segments").iterdir())


def test_trap_1_a_segment_whose_ids_are_elsewhere_is_refused(shard, tmp_path):
    for path in shard.rglob("mutable_id_tracker.*"):
        path.unlink()
    shutil.rmtree(shard / "wal")  # the engine would find the points in the log
    assert contents(shard) == {}, "the engine has learnt to see it: the check may go"

    with pytest.raises(vd.InvalidInputError, match="without an id tracker") as refused:
        load(pack_collection([shard], collection_config(ONE)), tmp_path)

    assert "make the snapshot again" in refused.value.hint
    assert not (tmp_path / "c").exists()


def test_trap_1_ids_in_rocksdb_are_recognised(shard, tmp_path):
    for path in shard.rglob("mutable_id_tracker.*"):
        path.unlink()
    backup = segment_of(shard) / "db_backup" / "private" / "1"
    backup.mkdir(parents=True)
    (backup / "CURRENT").write_text("MANIFEST-000005\n")

    with pytest.raises(vd.InvalidInputError, match=r"of Qdrant 1\.13: the ids stand in RocksDB") as refused:
        load(pack_collection([shard], collection_config(ONE)), tmp_path)

    assert "1.16 or 1.17" in refused.value.hint


def test_trap_2_payloads_in_rocksdb_are_recognised_and_not_left_to_the_engine(shard, tmp_path, monkeypatch):
    path = segment_of(shard) / "segment.json"
    config = json.loads(path.read_bytes())
    config["config"]["payload_storage_type"] = {"type": "on_disk"}
    path.write_text(json.dumps(config))
    monkeypatch.setitem(sys.modules, "rocksdict", None)

    with pytest.raises(vd.MissingDependencyError, match=r"before Qdrant 1\.13"):
        load(pack_collection([shard], collection_config(ONE)), tmp_path)


def test_trap_5_what_the_engine_let_in_is_refused_by_name(tmp_path):
    folder = make_shard(tmp_path / "nan", [*few(), (77, [1.0, float("nan"), 0.0, 0.0], None)], ONE)

    with pytest.raises(vd.InvalidVectorError, match="point 77 holds NaN"):
        load(pack_collection([folder], collection_config(ONE)), tmp_path)

    assert not (tmp_path / "c").exists()


def test_trap_5_duplicate_sparse_indices_are_refused_by_name(tmp_path):
    twice = edge.SparseVector([3, 3, 5], [1.0, 2.0, 3.0])
    folder = make_shard(tmp_path / "twice", [(8, {"s": twice}, None)], {}, ("s",), wal=False)

    with pytest.raises(vd.InvalidVectorError, match="point 8"):
        load(pack_collection([folder], collection_config({}, ("s",))), tmp_path)


def test_trap_7_ids_come_as_integers_and_lower_case_uuids(tmp_path):
    ids = [
        0,
        2**63,
        2**64 - 1,
        "urn:uuid:F9168C5E-CEB2-4FAA-B6BF-329BF39FA1E4",
        "936DA01F9ABD4D9D80C702AF85C822A8",
    ]
    folder = make_shard(tmp_path / "ids", [(i, [1.0, 0, 0, 0], None) for i in ids], ONE)

    collection = load(pack_collection([folder], collection_config(ONE)), tmp_path)

    assert list(points(collection)) == [
        0, 2**63, 2**64 - 1, "936da01f-9abd-4d9d-80c7-02af85c822a8", "f9168c5e-ceb2-4faa-b6bf-329bf39fa1e4",
    ]  # fmt: skip
    assert collection.schema.id_type == "mixed"


def test_trap_8_cosine_vectors_come_at_length_one_and_stay_so(tmp_path):
    vectors = {"size": 16, "distance": "Cosine"}
    rng = np.random.default_rng(8)
    given = rng.normal(size=(50, 16)).astype(np.float32) * 9
    folder = make_shard(tmp_path / "cosine", [(i, v.tolist(), None) for i, v in enumerate(given)], vectors)

    collection = load(pack_collection([folder], collection_config(vectors)), tmp_path)

    found = np.array([p["vector"] for p in points(collection).values()], np.float32)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.allclose(found, vd.normalize(given), atol=1e-6)
    again = make_shard(tmp_path / "again", [(i, v.tolist(), None) for i, v in enumerate(found)], vectors)
    assert np.array_equal(found, np.array([v for v, _ in contents(again).values()], np.float32))


def test_trap_8_bytes_and_half_floats_come_as_the_engine_keeps_them(tmp_path):
    vectors = {
        "u8": {"size": 4, "distance": "Dot", "datatype": "uint8"},
        "f16": {"size": 4, "distance": "Dot", "datatype": "float16"},
    }
    given = {"u8": [1.6, 300.0, -1.6, 255.0], "f16": [0.1, 1e-4, -3.3, 65000.0]}
    folder = make_shard(tmp_path / "types", [(1, given, None)], vectors)

    found = points(load(pack_collection([folder], collection_config(vectors)), tmp_path))[1]["vector"]

    assert found["u8"] == [1.0, 255.0, 0.0, 255.0]
    assert found["f16"] == np.array(given["f16"], np.float16).tolist()


def test_trap_9_sparse_vectors_come_sorted_and_any_vector_may_be_missing(tmp_path):
    back = edge.SparseVector([9, 2, 5], [0.9, 0.2, 0.5])
    rows = [(1, {"s": back}, None), (2, {"d": [1.0, 2.0, 3.0, 4.0]}, None), (3, {}, {"only": "payload"})]
    folder = make_shard(tmp_path / "sparse", rows, {"d": ONE}, ("s",))

    found = points(load(pack_collection([folder], collection_config({"d": ONE}, ("s",))), tmp_path))

    assert found[1]["vector"]["s"]["indices"] == [2, 5, 9]
    assert np.allclose(found[1]["vector"]["s"]["values"], [0.2, 0.5, 0.9])
    assert found[2]["vector"] == {"d": [1.0, 2.0, 3.0, 4.0]}
    assert found[3]["payload"] == {"only": "payload"}
    assert not found[3]["vector"]


def test_trap_10_what_the_version_files_say_decides_nothing(shard, tmp_path):
    (segment_of(shard) / "version.info").write_text("0.6.0")
    archive = Archive()
    add_shard(archive, shard, "0/")
    archive.add("version.info", b"9.9.9")
    archive.add("config.json", json.dumps(collection_config(ONE)).encode())

    assert len(load(archive.bytes(), tmp_path)) == 10


def test_trap_11_the_archive_is_not_changed_and_may_be_read_twice_at_once(shard, tmp_path):
    data = pack_collection([shard], collection_config(ONE))
    path = tmp_path / "x.snapshot"
    path.write_bytes(data)
    from vecdataset.formats.files import open_source
    from vecdataset.formats.qdrant.plugin import Snapshot

    with open_source(path) as one, open_source(path) as two:
        first = Snapshot().read(one, batch_rows=1, layout=None)
        second = Snapshot().read(two, batch_rows=1, layout=None)
        counts = [sum(b.length for b in reading.points) for reading in (first, second)]
        first.close()
        second.close()

    assert counts == [10, 10]
    assert path.read_bytes() == data


def test_trap_12_booleans_stay_booleans(tmp_path):
    folder = make_shard(
        tmp_path / "flags", [(1, [1.0, 0, 0, 0], {"flag": True, "one": 1, "float": 1.0})], ONE
    )

    payload = points(load(pack_collection([folder], collection_config(ONE)), tmp_path))[1]["payload"]

    assert {k: (type(v), v) for k, v in payload.items()} == {
        "flag": (bool, True), "one": (int, 1), "float": (float, 1.0),
    }  # fmt: skip


def test_trap_13_shards_of_other_nodes_are_missed_by_name(shard, tmp_path):
    away = json.dumps({"is_local": False, "this_peer_id": 1, "peers": {"2": "Active"}}).encode()
    archive = Archive()
    add_shard(archive, shard, "0/")
    archive.add("1/replica_state.json", away)
    archive.add("1/shard_config.json", b'{"type":"ReplicaSet"}')
    archive.add("config.json", json.dumps(collection_config(ONE, shards=2)).encode())

    with pytest.raises(vd.InvalidInputError, match="shard 1 stands on another node") as refused:
        load(archive.bytes(), tmp_path)
    assert "a snapshot on each node" in refused.value.hint
    with pytest.warns(vd.LossWarning, match="shard 1 stands on another node"):
        assert len(load(archive.bytes(), tmp_path, ignore_missing_shards=True)) == 10


def test_trap_13_a_shard_that_is_not_in_the_archive_at_all_is_missed_too(shard, tmp_path):
    data = pack_collection([shard], collection_config(ONE, shards=2))

    with pytest.raises(vd.InvalidInputError, match="shard 1 is not in the archive"):
        load(data, tmp_path)


@pytest.mark.parametrize(
    ("name", "damage", "what"),
    [
        (
            "first-index",
            lambda path: path.write_bytes(bytes(path.stat().st_size)),
            "first-index does not parse",
        ),
        ("open-1", lambda path: flip(path, 20), "entry 0 of open-1 is damaged"),
        ("open-1", lambda path: flip(path, 0), "open-1 begins with"),
    ],
)
def test_trap_16_a_damaged_log_is_refused_unless_it_may_be_ignored(shard, tmp_path, name, damage, what):
    damage(shard / "wal" / name)
    data = pack_collection([shard], collection_config(ONE))

    with pytest.raises(vd.InvalidInputError, match=what) as refused:
        load(data, tmp_path)
    assert "ignore_wal=True" in refused.value.hint
    with pytest.warns(vd.LossWarning, match="left out, as ignore_wal asks"):
        assert len(load(data, tmp_path, ignore_wal=True)) == 10


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


# -------------------------------------------------------------------- tracker and log


def test_the_id_tracker_is_read_as_the_engine_reads_it(tmp_path):
    from vecdataset.formats.qdrant.tracker import live_ids, live_points

    rows = rich_points(400)
    vectors = {"a": {"size": 8, "distance": "Dot"}}
    rows = [(id, {"a": v["a"]} if "a" in v else {}, None) for id, v, _ in rows]
    folder = make_shard(
        tmp_path / "ids", rows, vectors, optimize=300, delete=[rows[1][0], rows[2][0], rows[399][0]]
    )

    found = set()
    for segment in (folder / "segments").iterdir():
        ids = live_ids(segment)
        assert live_points(segment) == len(ids)
        found |= set(ids.numbers.tolist()) | {
            str(uuid.UUID(bytes=u.ljust(16, b"\0"))) for u in ids.uuids.tolist()
        }

    assert found == set(contents(folder))


def test_a_log_of_many_entries_is_whole(tmp_path):
    from vecdataset.formats.qdrant.wal import read_wal

    folder = make_shard(tmp_path / "shard", few(2_000), ONE)
    extra = tmp_path / "more"
    shutil.copytree(folder / "wal", extra)

    assert read_wal(extra).entries == 4
    assert read_wal(extra).problem is None
    (extra / "closed-99").write_bytes(b"wal\0" + bytes(1020))
    assert read_wal(extra).entries == 4
    (extra / "strange").write_bytes(b"")
    assert read_wal(extra).problem == "'strange' is no file of a log"


def test_the_checksum_of_the_log_is_crc32c():
    from vecdataset.formats.qdrant.wal import crc32c

    def slowly(data):
        register = 0xFFFFFFFF
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        return register ^ 0xFFFFFFFF

    rng = np.random.default_rng(32)
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
    for size in (0, 1, 1023, 1024, 1025, 5000):
        data = rng.integers(0, 256, size, dtype=np.uint8)
        assert crc32c(data) == slowly(data.tolist())


def test_the_home_of_the_engine_says_what_to_install(monkeypatch):
    from vecdataset.formats.qdrant.edge import edge as engine

    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    with pytest.raises(vd.MissingDependencyError) as missing:
        engine()

    assert missing.value.hint == "pip install 'vecdataset[qdrant]'"


def test_an_engine_that_forgets_the_log_is_refused(monkeypatch):
    from vecdataset.formats.qdrant import edge as home

    monkeypatch.setattr(home, "edge_version", lambda: "0.8.0")
    with pytest.raises(vd.MissingDependencyError, match=r"0\.9 or newer; 0\.8\.0 is installed"):
        home.edge()


# Ids and offsets of small numbers, so that inserts, moves and deletions meet.
OPERATIONS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(0, 6), st.integers(0, 20)), max_size=60
)


@given(OPERATIONS)
def test_a_log_of_ids_leaves_what_its_last_records_say(operations):
    from vecdataset.formats.qdrant.tracker import live_ids

    raw, expected = b"", {}
    for kind, id, offset in operations:
        number = kind in (1, 3)
        key = id.to_bytes(8, "little") if number else bytes([id]).rjust(16, b"\7")
        raw += bytes([kind]) + key + (offset.to_bytes(4, "little") if kind < 3 else b"")
        if kind < 3:
            expected[key] = offset
        else:
            expected.pop(key, None)

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mutable_id_tracker.mappings").write_bytes(
            raw + b"\1\2\3"
        )  # a crash cut the last record
        found = live_ids(Path(folder))

    numbers = zip(found.numbers.tolist(), found.number_offsets.tolist(), strict=True)
    uuids = zip((u.ljust(16, b"\0") for u in found.uuids.tolist()), found.uuid_offsets.tolist(), strict=True)
    assert expected == {n.to_bytes(8, "little"): o for n, o in numbers} | dict(uuids)
