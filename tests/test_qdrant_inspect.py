"""`inspect`: what is in an archive, without importing it; and what the shell says on the way in."""

import hashlib
import json
import sys

import pytest
from click.testing import CliRunner

pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")

from qdrant_snapshots import collection_config, make_shard, pack_collection, pack_storage

import vecdataset as vd
from vecdataset.cli import main
from vecdataset.formats.inspection import inspect

ONE = {"size": 4, "distance": "Dot"}


def few(count):
    return [(i, [1.0, 2.0, 3.0, float(i)], {"n": i}) for i in range(count)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    shard = make_shard(folder / "shard", few(300), ONE, optimize=200)
    data = pack_collection(
        [shard], collection_config(ONE, shards=2), payload_index={"n": "integer"},
        keys=[{"key": "berlin", "shard_ids": [0]}],
    )  # fmt: skip
    path = folder / "books.snapshot"
    path.write_bytes(data)
    path.with_name("books.snapshot.checksum").write_text(hashlib.sha256(data).hexdigest())
    return path


def test_an_archive_is_looked_into_without_the_engine(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)

    found = inspect(archive, verify=True).to_dict()

    collection = found["collections"][0]
    assert (found["format"], found["kind"], found["layout"]) == ("qdrant", "collection", "regular")
    assert found["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert collection["vectors"] == {"": {"size": 4, "distance": "Dot", "datatype": "float32"}}
    assert collection["config"]["params"]["shard_number"] == 2
    assert collection["payload_index"] == {"n": "integer"}
    assert collection["points"] == sum(s["points"] for s in collection["shards"][0]["segments"])
    assert collection["points"] >= 300
    assert collection["shards"][0]["key"] == "berlin"
    assert any(s["indexed"] for s in collection["shards"][0]["segments"])
    assert collection["problems"] == []


def test_what_stands_in_the_way_is_said_with_its_remedy(archive, tmp_path):
    data = archive.read_bytes()
    shard = make_shard(tmp_path / "shard", few(3), ONE)
    (shard / "wal" / "first-index").write_bytes(bytes(15))
    path = tmp_path / "broken.snapshot"
    path.write_bytes(pack_storage({
        "broken": pack_collection([shard], collection_config(ONE)), "whole": data,
    }, {"now": "whole"}))  # fmt: skip

    found = inspect(path)

    broken, whole = found.data["collections"]
    assert found.data["kind"] == "full storage"
    assert found.data["aliases"] == {"now": "whole"}
    assert [p["what"] for p in broken["problems"]] == [
        "the write-ahead log of shard 0 cannot be read: first-index does not parse"
    ]
    assert broken["problems"][0]["option"] == "ignore_wal"
    assert whole["name"] == "whole"
    assert "first-index does not parse" in str(found)
    assert len(found.rows) == 1 + len(whole["shards"][0]["segments"])


def test_verify_compares_with_the_checksum_file(archive, tmp_path):
    path = tmp_path / "books.snapshot"
    path.write_bytes(archive.read_bytes())
    path.with_name("books.snapshot.checksum").write_text("0" * 64)

    assert inspect(path).data["kind"] == "collection"
    with pytest.raises(vd.InvalidInputError, match="checksum file states"):
        inspect(path, verify=True)


def test_other_files_are_looked_into_too(tmp_path):
    path = tmp_path / "points.jsonl"
    path.write_text('{"id": 1, "vector": [0.5, 1.0], "payload": {"n": 1}}\n')

    assert inspect(path).to_dict() == {
        "file": str(path),
        "format": "jsonl",
        "layout": "qdrant",
        "columns": ["id", "vector", "payload"],
        "vectors": {"": {"size": 2, "distance": "Cosine", "datatype": "float32"}},
    }


def test_the_shell_inspects_in_json(archive):
    done = CliRunner().invoke(main, ["inspect", str(archive), "--verify", "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["collections"][0]["points"] >= 300


def test_a_tar_that_is_no_snapshot_is_said_to_be_none(tmp_path):
    import tarfile

    path = tmp_path / "other.snapshot"
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "test.py")

    done = CliRunner().invoke(main, ["inspect", str(path)])

    assert done.exit_code == 1
    assert "no Qdrant snapshot" in done.stderr


def test_the_shell_imports_and_says_in_a_line_what_is_lost(archive, tmp_path):
    target = tmp_path / "books"
    refused = CliRunner().invoke(main, ["import", str(archive), str(target)])
    assert refused.exit_code == 0, refused.output
    assert json.loads(refused.stdout)["points"] == 300
    assert refused.stderr == "warning: the shard keys berlin are not kept: the collection is one\n"


def test_the_shell_fills_a_root(archive, tmp_path):
    path = tmp_path / "full.snapshot"
    path.write_bytes(pack_storage({"books": archive.read_bytes()}, {"now": "books"}))

    done = CliRunner().invoke(main, ["import", str(path), str(tmp_path / "root"), "--all"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"name": "books", "points": 300}
    assert vd.Catalog(tmp_path / "root").aliases() == {"now": "books"}
