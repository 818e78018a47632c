"""Qdrant snapshots in: what the engine wrote is what stands in the collection."""

import gzip
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")

from qdrant_snapshots import (
    RICH,
    collection_config,
    contents,
    make_shard,
    pack_collection,
    pack_shard,
    pack_storage,
    rich_points,
)

import vecdataset as vd
from vecdataset.formats import read_vectors
from vecdataset.formats.qdrant.config import kept_config

ONE = {"size": 4, "distance": "Dot"}


def few(count=10, start=0):
    rng = np.random.default_rng(start)
    return [(start + i, rng.normal(size=4).tolist(), {"n": i, "lang": "en"}) for i in range(count)]


def stored(collection):
    """Return every point as the engine's `contents` has it."""
    out = {}
    for row in collection.scroll(limit=10_000, with_vectors=True).to_pylist(layout="qdrant"):
        vector = row["vector"]
        if isinstance(vector, dict):
            vector = {name: v for name, v in vector.items() if v is not None}
        out[row["id"]] = (vector, row["payload"])
    return out


def loaded(data, tmp_path, name="c", **options):
    return vd.load(io.BytesIO(data), tmp_path / name, **options)


def same(expected, found):
    assert found.keys() == expected.keys()
    for id, (vector, payload) in expected.items():
        assert found[id] == (vector, payload), id


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A shard with two segments, indexes, updates, deletions, and its content."""
    folder = make_shard(
        tmp_path_factory.mktemp("rich") / "shard", rich_points(300) + rich_points(50, seed=1, start=100),
        RICH, ("s",), optimize=200, delete=[1, 2, 4],
    )  # fmt: skip
    assert len(list((folder / "segments").iterdir())) > 1
    return folder, contents(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = make_shard(tmp_path_factory.mktemp("plain") / "shard", few(), ONE)
    return folder, contents(folder)


@pytest.mark.parametrize("layout", ["regular", "streamable"])
def test_every_point_of_a_collection_snapshot_comes_as_it_was(rich, tmp_path, layout):
    folder, expected = rich
    data = pack_collection([folder], collection_config(RICH, ("s",)), layout=layout)

    collection = loaded(data, tmp_path)

    same(expected, stored(collection))
    assert collection.schema.id_type == "mixed"
    assert {
        n: (p.size, p.metric, p.datatype, p.multivector) for n, p in collection.schema.vectors.items()
    } == {
        "a": (8, "Cosine", "float32", False),
        "f16": (8, "Dot", "float16", False),
        "u8": (8, "Euclid", "uint8", False),
        "m": (4, "Dot", "float32", True),
    }


def test_the_engine_gives_the_same_points_as_the_files(rich, tmp_path, monkeypatch):
    from vecdataset.formats.qdrant import shard

    folder, expected = rich
    data = pack_collection([folder], collection_config(RICH, ("s",)))
    monkeypatch.setattr(shard._Layout, "find", lambda *_: None)

    same(expected, stored(loaded(data, tmp_path)))


def test_files_laid_out_in_another_way_are_read_through_the_engine(rich, tmp_path, monkeypatch, caplog):
    from vecdataset.formats.qdrant import dense

    folder, expected = rich
    data = pack_collection([folder], collection_config(RICH, ("s",)))
    monkeypatch.setattr(
        dense.DenseVectors, "take", lambda self, offsets, out, rows: np.ones(len(offsets), bool)
    )

    same(expected, stored(loaded(data, tmp_path)))
    assert "through the engine" in caplog.text


def test_updates_that_only_the_log_holds_are_applied(tmp_path):
    late = few(3, start=100)
    folder = make_shard(tmp_path / "shard", few(), ONE, late=late, flush=False)
    data = pack_collection([folder], collection_config(ONE))

    collection = loaded(data, tmp_path)

    assert sorted(stored(collection)) == [*range(10), 100, 101, 102]


def test_without_the_log_those_updates_are_not_there(tmp_path):
    folder = make_shard(tmp_path / "shard", few(), ONE, late=few(3, start=100), flush=False)
    data = pack_collection([folder], collection_config(ONE), wal=False)

    assert sorted(stored(loaded(data, tmp_path))) == list(range(10))


@pytest.mark.slow
def test_the_points_of_all_shards_come_together(tmp_path):
    folders = [make_shard(tmp_path / str(i), few(start=100 * i), ONE) for i in range(3)]
    data = pack_collection(folders, collection_config(ONE, shards=3))

    found = stored(loaded(data, tmp_path))

    same({k: v for f in folders for k, v in contents(f).items()}, found)


def test_ids_of_several_kinds_in_several_shards_make_mixed_ids(tmp_path):
    words = [(f"00000000-0000-4000-8000-00000000000{i}", [1.0, 0, 0, i], None) for i in range(3)]
    folders = [make_shard(tmp_path / "0", few(), ONE), make_shard(tmp_path / "1", words, ONE)]
    data = pack_collection(folders, collection_config(ONE, shards=2))

    collection = loaded(data, tmp_path)

    assert collection.schema.id_type == "mixed"
    assert len(collection) == 13


@pytest.mark.parametrize("layout", ["regular", "streamable"])
def test_a_shard_snapshot_says_what_it_does_not_say(rich, tmp_path, layout):
    folder, expected = rich

    with pytest.warns(vd.LossWarning, match="a shard snapshot does not say"):
        collection = loaded(pack_shard(folder, layout=layout), tmp_path)

    same(expected, stored(collection))


def test_a_full_storage_snapshot_fills_a_root(plain, tmp_path):
    folder, expected = plain
    one = pack_collection([folder], collection_config(ONE))
    words = make_shard(tmp_path / "words", few(3, start=50), ONE)
    data = pack_storage(
        {"books": one, "words": pack_collection([words], collection_config(ONE))}, {"now": "books"}
    )
    done = []

    catalog = vd.load_all(io.BytesIO(data), tmp_path / "root", progress=done.append)

    assert catalog.list() == ["books", "words"]
    assert catalog.aliases() == {"now": "books"}
    same(expected, stored(catalog.open("now")))
    assert len(catalog.open("words")) == 3
    assert done == sorted(done)
    assert done[-1] == 13


def test_one_collection_of_a_full_storage_snapshot_can_be_taken(plain, tmp_path):
    folder, expected = plain
    one = pack_collection([folder], collection_config(ONE))
    data = pack_storage({"books": one, "words": one})

    same(expected, stored(loaded(data, tmp_path, collection="words")))
    with pytest.raises(vd.InvalidInputError, match="of 2 collections: books, words"):
        loaded(data, tmp_path, "other")
    with pytest.raises(vd.UnknownNameError, match="no collection 'word'"):
        loaded(data, tmp_path, "other", collection="word")
    assert not (tmp_path / "other").exists()


def test_an_alias_that_is_a_collection_here_is_met_before_anything_is_written(plain, tmp_path):
    one = pack_collection([plain[0]], collection_config(ONE))
    vd.Catalog(tmp_path / "root").create("now", vectors=vd.VectorParams(4))

    with pytest.raises(vd.CollectionExistsError, match="alias 'now'"):
        vd.load_all(io.BytesIO(pack_storage({"books": one}, {"now": "books"})), tmp_path / "root")

    assert vd.Catalog(tmp_path / "root").list() == ["now"]


def test_qdrants_config_is_kept_and_its_thresholds_become_rows(plain, tmp_path):
    config = collection_config({**ONE, "size": 4}, metadata={"owner": "me"})
    data = pack_collection([plain[0]], config, payload_index={"lang": "keyword", "n": {"type": "integer"}})

    collection = loaded(data, tmp_path)

    info = collection.info()
    assert info.full_scan_threshold == 10_000 * 256 // 4
    assert info.indexing_threshold == 20_000 * 256 // 4
    assert kept_config(collection) == {
        "config": config,
        "payload_index": {"lang": "keyword", "n": {"type": "integer"}},
    }


def test_an_indexing_threshold_of_zero_means_never(plain, tmp_path):
    config = collection_config(ONE)
    config["optimizer_config"] = {**config["optimizer_config"], "indexing_threshold": 0}

    collection = loaded(pack_collection([plain[0]], config), tmp_path)

    assert collection.info().indexing_threshold > 1 << 60


def test_quantization_is_declared_where_there_is_one_like_it(plain, tmp_path):
    scalar = {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}
    collection = loaded(
        pack_collection([plain[0]], collection_config(ONE, quantization_config=scalar)), tmp_path
    )

    assert collection.schema.vectors[""].quantization == scalar

    with pytest.warns(vd.LossWarning, match="turbo quantization of vector 'vector' is not taken over"):
        other = loaded(
            pack_collection([plain[0]], collection_config(ONE, quantization_config={"turbo": {}})),
            tmp_path,
            "d",
        )
    assert other.schema.vectors[""].quantization is None


def test_a_snapshot_with_quantized_vectors_gives_the_originals(tmp_path):
    vectors = {**ONE, "quantization_config": {"scalar": {"type": "int8"}}}
    folder = make_shard(tmp_path / "shard", few(200), vectors, optimize=150)
    assert list(folder.rglob("quantized.data"))
    assert list(folder.rglob("graph.bin"))

    same(contents(folder), stored(loaded(pack_collection([folder], collection_config(vectors)), tmp_path)))


def test_vector_names_that_cannot_be_columns_are_changed_and_remembered(tmp_path):
    vectors = {"clip.b32 v2": ONE, "clip_b32_v2": ONE, "2nd": ONE}
    points = [(1, {name: [1.0, 2.0, 3.0, i] for i, name in enumerate(vectors)}, None)]
    folder = make_shard(tmp_path / "shard", points, vectors)

    with pytest.warns(vd.LossWarning) as said:
        collection = loaded(pack_collection([folder], collection_config(vectors)), tmp_path)

    assert [str(w.message) for w in said] == [
        "vector 'clip.b32 v2' is called 'clip_b32_v2-2' here",
        "vector '2nd' is called 'v2nd' here",
    ]
    assert kept_config(collection)["names"] == {"clip.b32 v2": "clip_b32_v2-2", "2nd": "v2nd"}
    assert stored(collection)[1][0] == {
        "clip_b32_v2-2": [1.0, 2.0, 3.0, 0.0], "clip_b32_v2": [1.0, 2.0, 3.0, 1.0], "v2nd": [1.0, 2.0, 3.0, 2.0],
    }  # fmt: skip


def test_shard_keys_are_said_to_be_lost(plain, tmp_path):
    data = pack_collection([plain[0]], collection_config(ONE), keys=[{"key": "berlin", "shard_ids": [0]}])

    with pytest.warns(vd.LossWarning, match="the shard keys berlin are not kept"):
        loaded(data, tmp_path)


# ----------------------------------------------------------------- sources and targets


def test_a_file_is_known_by_what_is_in_it(plain, tmp_path):
    data = pack_collection([plain[0]], collection_config(ONE))
    path = tmp_path / "backup.bin"
    path.write_bytes(gzip.compress(data))

    assert len(vd.load(path, tmp_path / "c")) == 10


def test_a_snapshot_is_read_from_any_filesystem(plain, tmp_path):
    import fsspec

    data = pack_collection([plain[0]], collection_config(ONE))
    with fsspec.open("memory://qdrant/books.snapshot", "wb") as file:
        file.write(data)
    with fsspec.open("memory://qdrant/books.snapshot.checksum", "wb") as file:
        file.write(hashlib.sha256(data).hexdigest().encode())

    assert len(vd.load("memory://qdrant/books.snapshot", tmp_path / "c")) == 10


def test_the_checksum_beside_a_snapshot_is_checked(plain, tmp_path):
    data = pack_collection([plain[0]], collection_config(ONE))
    path = tmp_path / "books.snapshot"
    path.write_bytes(data)
    beside = tmp_path / "books.snapshot.checksum"

    beside.write_text(hashlib.sha256(data).hexdigest().upper() + " \n")
    assert len(vd.load(path, tmp_path / "c")) == 10
    beside.write_text("0" * 64)
    with pytest.raises(vd.InvalidInputError, match="checksum file states"):
        vd.load(path, tmp_path / "d")
    beside.write_text("what")
    with pytest.raises(vd.InvalidInputError, match="holds no SHA-256"):
        vd.load(path, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_snapshot_is_upserted_into_a_collection_that_fits(plain, tmp_path):
    data = pack_collection([plain[0]], collection_config(ONE))
    collection = vd.create(tmp_path / "c", vectors=vd.VectorParams(4, "Dot"))
    collection.upsert(
        [{"id": 5, "vector": [9.0] * 4, "payload": {"old": True}}, {"id": 77, "vector": [1.0] * 4}]
    )

    loaded(data, tmp_path)

    found = stored(collection.refresh())
    assert sorted(found) == [*range(10), 77]
    assert found[5] == plain[1][5]


def test_a_collection_that_does_not_fit_is_refused_with_all_that_differs(rich, tmp_path):
    data = pack_collection([rich[0]], collection_config(RICH, ("s",)))
    vectors = {
        "a": vd.VectorParams(9, "Dot"), "f16": vd.VectorParams(8, "Dot"),
        "m": vd.VectorParams(4, "Dot"),
    }  # fmt: skip
    collection = vd.create(tmp_path / "c", vectors=vectors)

    with pytest.raises(vd.InvalidInputError) as refused:
        loaded(data, tmp_path)

    assert refused.value.message.partition(": ")[2].split("; ") == [
        "vector 'a' has size 8 there and 9 here",
        "vector 'a' has distance Cosine there and Dot here",
        "vector 'u8' is not declared here",
        "vector 'm' has multivector True there and False here",
        "sparse vector 's' is not declared here",
    ]
    assert collection.refresh().version == 1


def test_an_option_that_the_format_does_not_know_is_refused(plain, tmp_path):
    with pytest.raises(vd.UnknownNameError, match="has no option 'ignore_wall'"):
        loaded(pack_collection([plain[0]], collection_config(ONE)), tmp_path, ignore_wall=True)


def test_nothing_is_left_in_the_temporary_folder(plain, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    loaded(pack_collection([plain[0]], collection_config(ONE)), tmp_path)
    with pytest.raises(vd.InvalidInputError):
        loaded(pack_collection([plain[0]], {"params": {}}), tmp_path, "d")

    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_empty_collection_comes_as_an_empty_one(tmp_path):
    folder = make_shard(tmp_path / "shard", [], ONE)

    collection = loaded(pack_collection([folder], collection_config(ONE)), tmp_path)

    assert len(collection) == 0
    assert collection.schema.vectors[""].size == 4


# ----------------------------------------------------------------- the time of RocksDB


REAL = Path(os.environ.get("VECDATASET_TEST_DATA", "nowhere"), "qdrant-2023-12.snapshot.gz")
needs_real = pytest.mark.skipif(
    not REAL.exists(), reason="VECDATASET_TEST_DATA names no folder with a server's snapshot of 2023"
)


@needs_real
@pytest.mark.slow
def test_a_servers_snapshot_of_2023_comes_in_whole(tmp_path):
    pytest.importorskip("rocksdict", reason="needs the extra qdrant-legacy")
    catalog = vd.load_all(REAL, tmp_path / "root")

    assert catalog.list() == [
        "test_collection", "test_collection_product_x16", "test_collection_product_x32",
        "test_collection_product_x64", "test_collection_product_x8", "test_collection_scalar_int8",
    ]  # fmt: skip
    for name in catalog:
        collection = catalog.open(name)
        points = stored(collection)
        assert 98 <= len(points) <= 100
        assert collection.schema.sparse.keys() == {"text"}
        assert any("image" in v for v, _ in points.values())
        assert {key for _, payload in points.values() for key in payload} == {
            "boolean_field", "count_field", "float_field", "geo_field", "integer_field", "keyword_field", "text_field",
        }  # fmt: skip
        assert all(len(v["image"]) == 256 for v, _ in points.values() if "image" in v)
        assert sum("text" in v for v, _ in points.values()) > 50


def test_rocksdb_without_the_extra_is_refused_with_advice(tmp_path, plain, monkeypatch):
    import sys

    old = tmp_path / "old" / "segments" / "s"
    old.mkdir(parents=True)
    config = {
        "vector_data": {"": {**ONE, "storage_type": "Memory"}},
        "payload_storage_type": {"type": "on_disk"},
    }
    (old / "segment.json").write_text(json.dumps({"version": 3, "config": config}))
    (old / "version.info").write_text("0.6.0")
    monkeypatch.setitem(sys.modules, "rocksdict", None)

    with pytest.raises(vd.MissingDependencyError, match=r"before Qdrant 1\.13") as refused:
        loaded(pack_collection([tmp_path / "old"], collection_config(ONE)), tmp_path)

    assert "vecdataset[qdrant-legacy]" in refused.value.hint
    assert "1.16 or 1.17" in refused.value.hint


@pytest.mark.s3
def test_a_snapshot_goes_from_one_bucket_into_a_collection_in_another(plain, s3):
    import s3fs

    data = pack_collection([plain[0]], collection_config(ONE))
    store = s3fs.S3FileSystem(**s3.options)
    store.pipe_file(f"{s3.bucket}/backups/books.snapshot", data)
    store.pipe_file(f"{s3.bucket}/backups/books.snapshot.checksum", hashlib.sha256(data).hexdigest().encode())

    collection = vd.load(
        f"{s3.url}/backups/books.snapshot", f"{s3.url}/lake/books",
        source_options=s3.options, storage_options=s3.options,
    )  # fmt: skip

    same(plain[1], stored(collection))


# ----------------------------------------------------------------- folders of snapshots


def test_a_folder_of_snapshots_fills_a_root(plain, tmp_path):
    data = pack_collection([plain[0]], collection_config(ONE))
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "books-1-2026-01-01-00-00-00.snapshot").write_bytes(data)
    (folder / "words.snapshot").write_bytes(data)

    catalog = vd.load_all(folder, tmp_path / "root")

    assert catalog.list() == ["books", "words"]
    same(plain[1], stored(catalog.open("books")))


def test_a_snapshot_that_fails_does_not_stop_the_others(plain, tmp_path):
    data = pack_collection([plain[0]], collection_config(ONE))
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "a.snapshot").write_bytes(data[:5000])
    (folder / "b.snapshot").write_bytes(data)
    (folder / "c.snapshot").write_bytes(data)
    (folder / "c.snapshot.checksum").write_text("0" * 64)

    with pytest.raises(
        vd.InvalidInputError, match=r"2 of 3 snapshots of .* were not loaded: a: .*; c: .*checksum"
    ):
        vd.load_all(folder, tmp_path / "root")

    assert vd.Catalog(tmp_path / "root").list() == ["b"]


def test_a_manifest_names_collections_aliases_and_counts(plain, tmp_path):
    from vecdataset.formats.qdrant.shelf import Entry, write_manifests

    data = pack_collection([plain[0]], collection_config(ONE))
    folder = tmp_path / "backups"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.snapshot").write_bytes(data)
    entries = [
        Entry(collection="films", file="one.snapshot", points=10, aliases=("now",)),
        Entry(collection="short", file="two.snapshot", points=11),
    ]
    write_manifests(str(folder), entries, server="http://host:6333")

    with pytest.raises(vd.InvalidInputError, match=r"short: 10 points came in; the manifest of .* states 11"):
        vd.load_all(folder, tmp_path / "root")

    assert vd.Catalog(tmp_path / "root").aliases() == {"now": "films"}
    assert len(vd.Catalog(tmp_path / "root").open("now")) == 10


def test_a_folder_without_snapshots_is_said_to_have_none(tmp_path):
    with pytest.raises(vd.NotFoundError, match="holds no snapshot"):
        vd.load_all(tmp_path, tmp_path / "root")


def test_a_distance_of_ones_own_leaves_the_ids_as_they_are(tmp_path):
    rows = [*few(3), ("00000000-0000-4000-8000-000000000001", [1.0, 0, 0, 0], None)]
    folder = make_shard(tmp_path / "shard", rows, ONE)

    collection = loaded(pack_collection([folder], collection_config(ONE)), tmp_path, distance="Euclid")

    assert collection.schema.id_type == "mixed"
    assert collection.schema.vectors[""].distance == "Euclid"


def test_a_snapshot_is_no_file_of_queries(plain, tmp_path):
    path = tmp_path / "x.snapshot"
    path.write_bytes(pack_collection([plain[0]], collection_config(ONE)))

    with pytest.raises(vd.NotSupportedError, match="is an archive"):
        read_vectors(path)
