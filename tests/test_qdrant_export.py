"""Collections as Qdrant snapshots: what is in the archive, and that it gives back what went in."""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tarfile
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

edge = pytest.importorskip("qdrant_edge", reason="the extra qdrant is not installed")

from qdrant_archives import opened, points_of, unpack  # noqa: E402

import vecdataset as vd  # noqa: E402
from vecdataset.formats import export_points  # noqa: E402
from vecdataset.formats.qdrant.sparse_tar import Member, TarWriter  # noqa: E402

HOSTILE = {
    "null": None, "nested": {"a": [{"": {"b": [None, 1.5, True]}}], "": {}}, "u64": 2**64 - 1, "i64": -(2**63),
    "emoji 😀": "👩‍👩‍👧", "": "empty key", "huge": 1e300, "tiny": 5e-324, "negative zero": -0.0, "one": 1.0,
    "a.b": "dotted", "a[0]": 1, "nul\x00": "\x00", "list": [], "object": {}, "id": 7, "vector": [1], "NULL": "x",
}  # fmt: skip


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "books")


def exported(collection, tmp_path, name="books.snapshot"):
    target = tmp_path / "out"
    target.mkdir(exist_ok=True)
    collection.export(str(target / name))
    return target / name


SPACES = {
    "": vd.VectorParams(3, "Dot"),
    "half": vd.VectorParams(2, "Euclid", datatype="float16"),
    "bytes": vd.VectorParams(2, "Cosine", datatype="uint8"),
    "many": vd.VectorParams(2, "Manhattan", multivector=True),
}


def everything(url):
    """A collection with every kind of vector, and hostile payload."""
    made = vd.create(
        url,
        vectors=SPACES,
        sparse={"words": vd.SparseVectorParams("idf")},
        id_type="mixed",
    )
    made.upsert([
        {"id": 0, "vector": {"": [1, 2, 3], "half": [0.5, 65504], "bytes": [0, 255], "many": [[1, 2], [3, 4.5]],
                             "words": {"indices": [9, 1, 4294967295], "values": [0.5, -1, 2]}},
         "payload": HOSTILE},
        {"id": 2**64 - 1, "vector": {}, "payload": {}},
        {"id": "f47ac10b-58cc-4372-a567-0e02b2c3d479", "vector": {"": [3.4028235e38, 1e-45, -0.0]},
         "payload": {"n": 1}},
    ])  # fmt: skip
    return made


EVERYTHING = {
    0: ({"": [1, 2, 3], "half": [0.5, 65504], "bytes": [0, 255], "many": [[1, 2], [3, 4.5]],
         "words": {"indices": [1, 9, 4294967295], "values": [-1, 0.5, 2]}}, HOSTILE),
    2**64 - 1: ({}, {}),
    "f47ac10b-58cc-4372-a567-0e02b2c3d479": (
        {"": [float(np.float32(3.4028235e38)), float(np.float32(1e-45)), -0.0]}, {"n": 1}
    ),
}  # fmt: skip


# ------------------------------------------------------------------------- the archive


def test_all_kinds_of_vectors_ids_and_payload_come_back_from_the_engine(url, tmp_path):
    found = opened(exported(everything(url), tmp_path), tmp_path / "s")

    assert found == EVERYTHING
    assert {k: type(v) for k, v in found[0][1].items()} == {k: type(v) for k, v in HOSTILE.items()}


def test_the_archive_holds_what_a_server_asks_for_in_its_order(url, tmp_path):
    file = exported(everything(url), tmp_path)
    with tarfile.open(file) as archive:
        names = [m.name for m in archive]
        kinds = {m.type for m in archive}
        inner = tarfile.open(fileobj=archive.extractfile(names[0]))  # noqa: SIM115
        segment = {m.name: m.type for m in inner}
    _, files = unpack(file, tmp_path / "s")

    assert names[0].startswith("0/segments/")
    assert names[0].endswith(".tar")
    assert names[1:] == [
        "0/wal/closed-2", "0/replica_state.json", "0/shard_config.json", "version.info", "config.json",
        "payload_index.json",
    ]  # fmt: skip
    assert kinds == {tarfile.REGTYPE}
    assert set(segment.values()) <= {tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE}
    assert "snapshot/files/segment.json" in segment
    assert files["0/replica_state.json"] == {"is_local": True, "this_peer_id": 1, "peers": {"1": "Active"}}
    assert files["0/shard_config.json"] == {"type": "ReplicaSet"}
    assert file.stat().st_size < 1 << 20


def test_the_checksum_stands_beside_the_file_as_servers_write_it(url, tmp_path):
    file = exported(everything(url), tmp_path)

    assert (tmp_path / "out" / "books.snapshot.checksum").read_text() == hashlib.sha256(
        file.read_bytes()
    ).hexdigest()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "books.snapshot",
        "books.snapshot.checksum",
    ]


def test_the_servers_own_unpacker_takes_the_shard(url, tmp_path):
    """`unpack_snapshot` is the server's code, and takes the archive of one shard."""
    with (
        tarfile.open(exported(everything(url), tmp_path)) as archive,
        (tmp_path / "shard.tar").open("wb") as out,
    ):
        shard = TarWriter(out, mtime=0)
        for member in archive:
            if member.name.startswith("0/"):
                shard.add(Member(member.name[2:], archive.extractfile(member).read()))
        shard.close()
    edge.EdgeShard.unpack_snapshot(str(tmp_path / "shard.tar"), str(tmp_path / "unpacked"))
    opened_shard = edge.EdgeShard.load(str(tmp_path / "unpacked"))

    assert points_of(opened_shard) == EVERYTHING
    opened_shard.close()


def test_an_old_version_is_exported_as_it_was(url, tmp_path):
    books = everything(url)
    books.snapshots.create("v1")
    books.delete([0])
    books.upsert([{"id": 5, "vector": {}, "payload": {"new": True}}])

    assert opened(exported(books.at("v1"), tmp_path), tmp_path / "v1") == EVERYTHING
    assert 0 not in opened(exported(books, tmp_path, "now.snapshot"), tmp_path / "now")


def test_an_empty_collection_is_exported(url, tmp_path):
    assert opened(exported(vd.create(url, vectors=vd.VectorParams(2)), tmp_path), tmp_path / "s") == {}


def test_it_goes_to_any_filesystem(url, s3):
    export_points(everything(url), f"{s3.url}/backup/books.snapshot", target_options=s3.options)
    import fsspec

    store = fsspec.filesystem("s3", **s3.options)
    data = store.cat(f"{s3.bucket}/backup/books.snapshot")

    assert (
        store.cat(f"{s3.bucket}/backup/books.snapshot.checksum").decode() == hashlib.sha256(data).hexdigest()
    )


# ----------------------------------------------------------------- what Qdrant is told


def test_thresholds_are_told_in_kilobytes_and_indexes_by_type(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(128, quantization="scalar"))
    made.upsert(pa.table({
        "id": [1], "vector": pa.array([[1.0] * 128], pa.list_(pa.float32(), 128)), "n": [1], "x": [1.5], "t": ["a"],
        "b": [True], "text": ["some words"], "when": pa.array([0], pa.timestamp("us", "UTC")), "tags": [["a"]],
        "two words": [3],
    }))  # fmt: skip
    for key in ("n", "x", "t", "b", "when", "tags", "two words"):
        made.create_payload_index(key)
    made.create_payload_index("text", "text")
    made.configure(full_scan_threshold=1_000, indexing_threshold=40_000)
    _, files = unpack(exported(made, tmp_path), tmp_path / "s")
    config = files["config.json"]

    assert config["params"]["vectors"] == {
        "size": 128, "distance": "Cosine", "quantization_config": {"scalar": {"type": "int8"}},
    }  # fmt: skip
    assert config["hnsw_config"]["full_scan_threshold"] == 500
    assert config["optimizer_config"]["indexing_threshold"] == 20_000
    assert files["payload_index.json"]["schema"] == {
        "n": "integer", "x": "float", "t": "keyword", "b": "bool", "when": "datetime", "tags": "keyword",
        '"two words"': "integer", "text": {"type": "text", "tokenizer": "word", "lowercase": True},
    }  # fmt: skip


def test_types_that_json_lacks_become_text(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(1, "Dot"))
    made.upsert(pa.table({
        "id": [1], "vector": pa.array([[1.0]], pa.list_(pa.float32(), 1)),
        "when": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")), "raw": pa.array([b"\xff"]),
        "place": pa.array([{"lat": 1.5, "lon": None}]), "day": pa.array([0], pa.date32()),
    }))  # fmt: skip

    assert opened(exported(made, tmp_path), tmp_path / "s")[1][1] == {
        "when": "2023-11-14T22:13:20.123456789Z", "raw": "/w==", "place": {"lat": 1.5, "lon": None},
        "day": "1970-01-01",
    }  # fmt: skip


def test_text_ids_become_uuids_and_stay_in_the_payload(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(1, "Dot"))
    made.upsert([{"id": "isbn:1", "vector": [1], "payload": {"n": 1}}])

    assert opened(exported(made, tmp_path), tmp_path / "s") == {
        str(uuid.uuid5(uuid.NAMESPACE_URL, "isbn:1")): ({"": [1.0]}, {"n": 1, "__id__": "isbn:1"})
    }


def test_int8_vectors_become_halves_with_a_warning(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(2, "Dot", datatype="int8"))
    made.upsert([{"id": 1, "vector": [-128, 127], "payload": {}}])
    with pytest.warns(UserWarning, match="'vector' is int8, which Qdrant does not have: it becomes float16"):
        file = exported(made, tmp_path)

    assert opened(file, tmp_path / "s")[1][0] == {"": [-128, 127]}


def test_cosine_vectors_come_back_of_length_one_also_where_qdrant_could_not_scale_them(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(2))
    made.upsert(
        [
            {"id": i, "vector": v, "payload": {}}
            for i, v in enumerate([[3, 4], [3e30, 4e30], [3e-20, 4e-20], [0, 0]])
        ]
    )
    found = opened(exported(made, tmp_path), tmp_path / "s")

    np.testing.assert_allclose(
        [v[""] for v, _ in found.values()], [[0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0, 0]], atol=1e-6
    )


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"a": {"b": [2**64]}}, "payload key 'a' of point 8 holds the integer 18446744073709551616"),
        ({"a": -(2**63) - 1}, "payload key 'a' of point 8 holds the integer -9223372036854775809"),
        (
            {"a": json.loads("[" * 127 + "]" * 127)},
            "payload of point 8 is nested 128 levels deep; Qdrant reads 127",
        ),
    ],
)
def test_what_qdrant_would_change_or_never_read_again_is_refused(url, tmp_path, payload, said):
    made = vd.create(url, vectors=vd.VectorParams(1))
    made.upsert(
        [{"id": 7, "vector": [1], "payload": {"a": json.loads("[" * 126 + "]" * 126), "b": "[" * 500}}]
    )
    exported(made, tmp_path, "before.snapshot")
    made.upsert([{"id": 8, "vector": [1], "payload": payload}])

    with pytest.raises(vd.InvalidInputError, match=said):
        exported(made, tmp_path)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "before.snapshot",
        "before.snapshot.checksum",
    ]


def test_trap_5_what_the_engine_does_not_check_is_refused_first(tmp_path):
    """The engine stores NaN; whoever writes to the dataset by other means may have put it there."""
    import lance

    made = vd.create(str(tmp_path / "books"), vectors=vd.VectorParams(2))
    made.upsert([{"id": 1, "vector": [1, 2], "payload": {}}])
    behind = made.to_arrow().to_pydict() | {"id": [2], "vector": [[3, np.nan]], "_extra": [None]}
    table = pa.table(behind, schema=lance.dataset(made.url).schema)
    lance.write_dataset(table, made.url, mode="append")

    with pytest.raises(vd.InvalidVectorError, match="of point 2 holds NaN"):
        exported(made, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_payload_key_that_the_original_id_needs_is_refused(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(1))
    made.upsert([{"id": "a", "vector": [1], "payload": {"__id__": "b"}}])

    with pytest.raises(vd.InvalidIdError, match="point 'a' has a payload key '__id__' of its own"):
        exported(made, tmp_path)


def test_a_compressed_snapshot_is_refused(url, tmp_path):
    with pytest.raises(vd.InvalidInputError, match="servers read plain archives"):
        everything(url).export(str(tmp_path / "books.snapshot.gz"), format="qdrant")
    assert not (tmp_path / "books.snapshot.gz").exists()


def test_a_full_disk_is_noticed_before_the_engine_meets_it(url, tmp_path, monkeypatch):
    made = everything(url)
    monkeypatch.setattr("shutil.disk_usage", lambda _: __import__("types").SimpleNamespace(free=1 << 20))

    with pytest.raises(vd.StorageError, match=r"has 1.0 MB left; the export needs"):
        exported(made, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_that_does_not_give_back_what_went_in_never_appears(url, tmp_path, monkeypatch):
    from vecdataset.formats.qdrant import snapshot

    made = everything(url)
    pack = snapshot._pack

    def lose_a_vector(shard, *rest):
        page = next(shard.rglob("vector_storage/vectors/chunk_0.mmap"))
        with page.open("r+b") as file:
            file.write(struct.pack("<9f", *[99.0] * 9))
        return pack(shard, *rest)

    monkeypatch.setattr(snapshot, "_pack", lose_a_vector)

    with pytest.raises(vd.VecDatasetError, match=r"changed on its way to .*books.snapshot"):
        exported(made, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_without_the_extra_one_line_says_what_to_install(url, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    made = everything(url)

    with pytest.raises(vd.MissingDependencyError, match="writing a Qdrant snapshot needs") as caught:
        exported(made, tmp_path)
    assert caught.value.hint == "pip install 'vecdataset[qdrant]'"


# ------------------------------------------------------------------------------ the traps


def test_trap_3_an_update_after_the_restore_is_kept(url, tmp_path):
    folder, _ = unpack(exported(everything(url), tmp_path), tmp_path / "s")
    shard = edge.EdgeShard.load(str(folder))
    shard.update(edge.UpdateOperation.set_payload([0], {"new": 1}))
    shard.update(edge.UpdateOperation.delete_points([2**64 - 1]))
    shard.close()
    again = edge.EdgeShard.load(str(folder))

    assert points_of(again)[0][1] == {**HOSTILE, "new": 1}
    assert 2**64 - 1 not in points_of(again)
    again.close()


def test_trap_3_without_the_marker_the_update_would_be_lost(url, tmp_path):
    folder, _ = unpack(exported(everything(url), tmp_path), tmp_path / "s")
    next((folder / "wal").iterdir()).unlink()
    shard = edge.EdgeShard.load(str(folder))
    shard.update(edge.UpdateOperation.set_payload([0], {"new": 1}))

    assert "new" not in points_of(shard)[0][1]
    shard.close()


def test_trap_4_the_archive_has_a_wal_though_the_engine_wrote_none(url, tmp_path):
    folder, _ = unpack(exported(everything(url), tmp_path), tmp_path / "s")

    assert [p.name for p in (folder / "wal").iterdir()] == ["closed-2"]
    assert not (folder / "edge_config.json").exists()


def test_trap_6_payload_values_keep_their_types(url, tmp_path):
    made = vd.create(url, vectors=vd.VectorParams(1, "Dot"))
    mixed = [1, 1.0, True, None, "1", 2**63, 0.1, [1, 1.0], {"a": None}]
    made.upsert([{"id": i, "vector": [1], "payload": {"v": v}} for i, v in enumerate(mixed)])
    found = [p["v"] for _, p in opened(exported(made, tmp_path), tmp_path / "s").values()]

    assert json.dumps(found) == json.dumps(mixed)


def test_traps_14_and_15_there_is_one_shard_and_no_key_mapping(url, tmp_path):
    file = exported(everything(url), tmp_path)
    _, files = unpack(file, tmp_path / "s")

    assert files["config.json"]["params"]["shard_number"] == 1
    assert "shard_key_mapping.json" not in files
    with tarfile.open(file) as archive:
        assert {n.split("/")[0] for n in archive.getnames() if "/" in n} == {"0"}


def test_trap_19_the_archive_says_optimizer_and_the_request_optimizers(url):
    from vecdataset.formats.qdrant.settings import creation_body, settings_of

    config = settings_of(everything(url)).config

    assert "optimizer_config" in config
    assert "optimizers_config" not in config
    assert "optimizers_config" in creation_body(config)
    assert "optimizer_config" not in creation_body(config)


# --------------------------------------------------- what the engine does, and we provide for


@pytest.fixture
def shard(tmp_path):
    (tmp_path / "shard").mkdir()
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(2, edge.Distance.Cosine), wal_enabled=False)
    made = edge.EdgeShard.create(str(tmp_path / "shard"), config)
    yield made
    made.close()


def put(shard, id, vector, payload):
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(id, vector, payload)]))


def test_the_engine_stores_a_payload_that_it_cannot_read_again(shard):
    put(shard, 1, [1, 0], {"a": json.loads("[" * 126 + "]" * 126)})
    put(shard, 2, [1, 0], {"a": json.loads("[" * 127 + "]" * 127)})

    assert shard.retrieve([1], True, False)[0].payload["a"]
    with pytest.raises(Exception, match="recursion limit exceeded"):
        shard.retrieve([2], True, False)


def test_the_engine_reads_some_doubles_as_their_neighbour(shard):
    largest_but_one = 1.7976931348623155e308
    put(shard, 1, [1, 0], {"x": largest_but_one})

    assert shard.retrieve([1], True, False)[0].payload["x"] == np.nextafter(largest_but_one, np.inf)


def test_the_engine_loses_long_cosine_vectors_and_leaves_short_ones(shard):
    put(shard, 1, [3e30, 4e30], {})
    put(shard, 2, [3e-20, 4e-20], {})
    found = {r.id: r.vector for r in shard.retrieve([1, 2], False, True)}

    assert found[1] == [0.0, 0.0]
    assert found[2] == [float(np.float32(3e-20)), float(np.float32(4e-20))]


# ----------------------------------------------------------------------------- any points

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example takes a fifth of a second: making a failing one smaller would take minutes."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
F32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
IDS = st.integers(0, 2**64 - 1) | st.uuids().map(str)
POINTS = st.dictionaries(
    IDS,
    st.fixed_dictionaries({
        "vector": st.fixed_dictionaries({}, optional={
            "": st.lists(F32, min_size=3, max_size=3),
            "half": st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
            "bytes": st.lists(st.integers(0, 255), min_size=2, max_size=2),
            "many": st.lists(st.lists(F32, min_size=2, max_size=2), min_size=1, max_size=3),
            "words": st.dictionaries(st.integers(0, 2**32 - 1), F32, max_size=4).map(
                lambda d: {"indices": sorted(d), "values": [d[i] for i in sorted(d)]}
            ),
        }),
        "payload": st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    }),
    max_size=8,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=15, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(POINTS)
def test_any_points_come_back_from_the_engine(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("any")
    made = vd.create(
        str(folder / "c"),
        vectors=SPACES,
        sparse={"words": vd.SparseVectorParams()},
        id_type="mixed",
    )
    if points:
        made.upsert([{"id": i, **p} for i, p in points.items()], layout="qdrant")
    found = opened(exported(made, folder), folder / "s")

    wanted = {i: (as_stored(p["vector"]), p["payload"]) for i, p in points.items()}
    assert differences(found, wanted) == []


def as_stored(vectors):
    return {
        name: {"indices": v["indices"], "values": np.asarray(v["values"], np.float32).tolist()}
        if isinstance(v, dict)
        else np.asarray(v, np.float32).tolist()
        for name, v in vectors.items()
    }


def differences(found, wanted, at=()):
    """Return the places where two values differ; 1 and 1.0, and 0.0 and -0.0, do.

    A float may be the neighbour of a neighbour: Qdrant's reader of JSON changes the last place of some.
    """
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        return [d for k in wanted for d in differences(found[k], wanted[k], (*at, k))]
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple) and len(found) == len(wanted):
        return [
            d for i, (f, w) in enumerate(zip(found, wanted, strict=True)) for d in differences(f, w, (*at, i))
        ]
    if isinstance(found, float) and isinstance(wanted, float):
        same = math.copysign(1, found) == math.copysign(1, wanted)
        return [] if same and abs(found - wanted) <= 2 * math.ulp(wanted) else [(at, found, wanted)]
    return [] if type(found) is type(wanted) and found == wanted else [(at, found, wanted)]


# ------------------------------------------------------------------- and back, and elsewhere


def as_qdrant(collection):
    """Every point of a collection, by id: vectors by name, and payload."""
    rows = collection.scroll(limit=10_000, with_vectors=True).to_pylist(layout="qdrant")
    return {
        r["id"]: (
            {n: _listed(v) for n, v in r["vector"].items() if v is not None}
            if isinstance(r["vector"], dict)
            else r["vector"],
            r["payload"],
        )
        for r in rows
    }


def _listed(vector):
    if isinstance(vector, dict):
        return {k: np.asarray(v).tolist() for k, v in vector.items()}
    return np.asarray(vector).tolist()


@pytest.mark.slow
@settings(max_examples=12, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(POINTS)
def test_any_points_come_back_into_a_collection(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("round")
    made = vd.create(
        str(folder / "c"), vectors=SPACES, sparse={"words": vd.SparseVectorParams()}, id_type="mixed"
    )
    if points:
        made.upsert([{"id": i, **p} for i, p in points.items()], layout="qdrant")
    back = vd.load(str(exported(made, folder)), str(folder / "back"))

    assert differences(as_qdrant(back), as_qdrant(made)) == []
    assert (back.schema.vectors, back.schema.sparse) == (made.schema.vectors, made.schema.sparse)


def test_thresholds_indexes_and_names_survive_the_way_there_and_back(url, tmp_path):
    made = everything(url)
    made.configure(full_scan_threshold=2_560, indexing_threshold=5_120)
    _, first = unpack(exported(made, tmp_path), tmp_path / "first")
    back = vd.load(str(tmp_path / "out" / "books.snapshot"), str(tmp_path / "back"))
    _, second = unpack(exported(back, tmp_path, "again.snapshot"), tmp_path / "second")

    assert (back.info().full_scan_threshold, back.info().indexing_threshold) == (2_560, 5_120)
    assert second["config.json"] == first["config.json"]
    assert second["payload_index.json"] == first["payload_index.json"]


OTHER_RELEASE = """
import json, sys, uuid
import qdrant_edge as edge

def points(shard):
    out, offset = {}, None
    while True:
        page, offset = shard.scroll(edge.ScrollRequest(limit=100, offset=offset, with_payload=True, with_vector=True))
        for r in page:
            vectors = r.vector if isinstance(r.vector, dict) else {"": r.vector}
            out[str(r.id)] = [{n: {"indices": v.indices, "values": v.values} if isinstance(v, edge.SparseVector) else v
                               for n, v in vectors.items()}, r.payload or {}]
        if offset is None:
            return out

shard = edge.EdgeShard.load(sys.argv[1])
before = points(shard)
shard.update(edge.UpdateOperation.set_payload([0], {"new": 1}))
shard.update(edge.UpdateOperation.delete_points([2**64 - 1]))
shard.flush()
del shard
import gc; gc.collect()
again = edge.EdgeShard.load(sys.argv[1])
print(json.dumps([before, points(again)]))
"""


@pytest.fixture(scope="session")
def release(request, tmp_path_factory):
    """A folder with one release of the engine, apart from the installed one."""
    folder = tmp_path_factory.mktemp("release")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, f"qdrant-edge-py=={request.param}"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"qdrant-edge-py {request.param} is not to be had: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("release", ["0.6.*", "0.7.*", "0.8.*", "0.9.*"], indirect=True)
def test_trap_3_every_release_of_the_engine_reads_it_and_keeps_updates(release, url, tmp_path):
    folder, _ = unpack(exported(everything(url), tmp_path), tmp_path / "s")
    done = subprocess.run(
        [sys.executable, "-c", OTHER_RELEASE, folder],
        env={**os.environ, "PYTHONPATH": str(release)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    expected = {str(i): list(p) for i, p in EVERYTHING.items()}

    assert before == expected
    assert after.pop("0")[1] == {**HOSTILE, "new": 1}
    assert after.keys() == expected.keys() - {"0", str(2**64 - 1)}
