"""Whole servers backed up and restored through their own snapshots, with faults on the way."""

import hashlib
import json
import os
import time

import pytest
from click.testing import CliRunner

pytest.importorskip("qdrant_edge", reason="the extra qdrant is not installed")
pytest.importorskip("httpx", reason="the extra qdrant is not installed")

from qdrant_archives import points_of
from qdrant_server import running

import vecdataset as vd
from vecdataset.cli import main
from vecdataset.formats.qdrant import backups, shelf
from vecdataset.formats.qdrant import client as rest
from vecdataset.formats.qdrant.backups import back_up, put_back
from vecdataset.formats.qdrant.shelf import read_backup, snapshot_files

pytestmark = pytest.mark.slow  # a server of its own, for each test


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(rest, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(backups, "READY_PAUSE_S", 0.01)
    monkeypatch.setattr(backups, "SETTLE_S", 0.2)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)


def filled(server, names=("books", "films")):
    from qdrant_server import _point, edge

    for name in names:
        server.create(name, {"vectors": {"size": 2, "distance": "Dot"}})
        points = [{"id": i, "vector": [i, 1], "payload": {"of": name, "n": i}} for i in range(30)]
        server.find(name).shard.update(edge.UpdateOperation.upsert_points(list(map(_point, points))))
        server.index(server.find(name), "n", "integer")
    server.aliases["library"] = names[0]


@pytest.fixture
def server():
    with running() as made:
        filled(made)
        yield made


@pytest.fixture
def backup(server, tmp_path):
    assert all(e.ok for e in back_up(server.url, str(tmp_path / "backup")))
    return tmp_path / "backup"


# ------------------------------------------------------------------------------------ backup


def test_all_collections_of_a_server_come_into_a_folder(server, tmp_path):
    told, shares = [], []
    entries = back_up(server.url, str(tmp_path / "b"), told=told.append, progress=shares.append)

    assert [(e.collection, e.points, e.aliases, e.ok) for e in entries] == [
        ("books", 30, ("library",), True), ("films", 30, (), True),
    ]  # fmt: skip
    for entry in entries:
        data = (tmp_path / "b" / entry.file).read_bytes()
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert (tmp_path / "b" / f"{entry.file}.checksum").read_text() == entry.sha256
        assert entry.size_bytes == len(data)
    assert told[0].startswith("books: 30 points")
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_manifests_say_what_arcaneums_say_and_checksums_besides(server, backup):
    found = json.loads((backup / "manifest.json").read_text())
    text = (backup / "manifest.txt").read_text()

    assert (found["version"], found["qdrant_url"]) == (1, f"http://{server.address}")
    assert {"collection", "snapshot", "file", "sha256", "size_bytes", "points"} <= set(found["qdrant"][0])
    for line in (
        "Qdrant Backup Manifest",
        "Backup Date:",
        "Qdrant Host:",
        "Collections Backed Up:",
        "  - books",
        "Snapshot Files:",
    ):
        assert line in text


def test_the_snapshots_on_the_server_are_removed_unless_they_are_to_stay(server, tmp_path):
    back_up(server.url, str(tmp_path / "b"))
    assert not list(server.snapshots("books").glob("*"))
    back_up(server.url, str(tmp_path / "b"), keep=True, names=["books"])

    assert len(list(server.snapshots("books").glob("*.snapshot"))) == 1


@pytest.mark.slow
def test_a_backup_goes_to_a_bucket_and_comes_back(server, s3):
    url = f"{s3.url}/backups/monday"
    back_up(server.url, url, target_options=s3.options)
    with running() as other:
        entries = put_back(url, other.url, source_options=s3.options)

        assert [(e.collection, e.points, e.error) for e in entries] == [
            ("books", 30, None),
            ("films", 30, None),
        ]


def test_a_vecdataset_collection_is_made_from_a_backed_up_file(server, backup, tmp_path):
    file = next(backup.glob("books*.snapshot"))
    try:
        made = vd.load(str(file), str(tmp_path / "books"))
    except vd.NotSupportedError:
        pytest.skip("this version reads no snapshots")

    assert made.get([3]).to_pylist(layout="qdrant")[0]["payload"] == {"of": "books", "n": 3}


@pytest.mark.parametrize("kind", ["drop", "truncate", "503"])
def test_trap_17_a_download_that_breaks_off_goes_on(server, tmp_path, kind):
    server.fail("GET .*/snapshots/books", kind, times=3)
    entries = back_up(server.url, str(tmp_path / "b"))

    assert all(e.ok for e in entries)


def test_a_download_that_ends_too_early_without_a_word_goes_on(server, tmp_path):
    server.fail("GET .*/snapshots/books", "cut", times=2)
    entries = back_up(server.url, str(tmp_path / "b"))

    assert all(e.ok for e in entries)
    assert sum("snapshots/books" in r for r in server.requests if r.startswith("GET")) == 3


@pytest.mark.parametrize(
    ("kind", "said"),
    [("gzip", "comes compressed"), ("corrupt", "arrived with SHA-256"), ("truncate", "cannot be reached")],
)
def test_trap_17_what_arrives_changed_is_refused_and_the_others_go_on(server, tmp_path, kind, said):
    server.fail("GET .*/snapshots/books", kind, times=999)
    entries = back_up(server.url, str(tmp_path / "b"))

    assert [e.ok for e in entries] == [False, True]
    assert said in entries[0].error
    assert not list((tmp_path / "b").glob("*books*"))
    assert [
        e["collection"]
        for e in json.loads((tmp_path / "b" / "manifest.json").read_text())["qdrant"]
        if "error" not in e
    ] == ["films"]


def test_trap_17_no_compression_is_asked_for(server, backup):
    """The server of these tests compresses as soon as it may, as Qdrant's do."""
    assert next(backup.glob("books*.snapshot")).read_bytes()[:2] != b"\x1f\x8b"


def test_a_snapshot_is_made_once_even_if_the_answer_is_lost(server, tmp_path):
    server.fail("POST .*books/snapshots", "lost answer", times=1)
    entries = back_up(server.url, str(tmp_path / "b"))

    assert [e.ok for e in entries] == [False, True]
    assert server.requests.count("POST /collections/books/snapshots") == 1


# ----------------------------------------------------------------------------------- restore


def test_a_backup_comes_back_with_points_indexes_and_aliases(backup, server):
    with running() as other:
        entries = put_back(str(backup), other.url)

        assert [(e.collection, e.points, e.error) for e in entries] == [
            ("books", 30, None),
            ("films", 30, None),
        ]
        assert points_of(other.find("books").shard) == points_of(server.find("books").shard)
        assert other.describe(other.find("books"))["payload_schema"]["n"]["data_type"] == "integer"
        assert other.aliases == {"library": "books"}


def test_an_exported_collection_is_restored_by_a_server_and_stays_up_to_date(tmp_path):
    made = vd.create(str(tmp_path / "c"), vectors=vd.VectorParams(2, "Dot"))
    made.upsert([{"id": i, "vector": [i, 1], "payload": {"n": i}} for i in range(2500)])
    (tmp_path / "out").mkdir()
    made.export(str(tmp_path / "out" / "books.snapshot"))
    with running() as server:
        entries = put_back(str(tmp_path / "out"), server.url)
        body = json.dumps({"points": [{"id": 1, "vector": [5, 5], "payload": {"new": True}}]}).encode()
        with rest.Server(rest.Address.parse(server.url)) as found:
            found.call("PUT", "/collections/books/points", body)

            assert (entries[0].collection, entries[0].points, entries[0].error) == ("books", 2500, None)
            assert found.retrieve("books", [1]) == {1: ([5.0, 5.0], {"new": True})}


def test_trap_18_the_copy_that_a_server_keeps_is_removed(backup):
    with running() as other:
        put_back(str(backup), other.url)

        assert not list(other.snapshots("books").glob("*"))


def test_a_collection_that_is_there_is_not_replaced_unasked(backup, server):
    from qdrant_server import edge

    server.find("books").shard.update(edge.UpdateOperation.delete_points(list(range(20))))
    refused = put_back(str(backup), server.url, names=["books"])
    count = server.describe(server.find("books"))["points_count"]
    done = put_back(str(backup), server.url, names=["books"], replace_existing=True)

    assert "has a collection 'books' with 10 points" in refused[0].error
    assert count == 10
    assert (done[0].points, done[0].error) == (30, None)


def damage(backup, how):
    file = next(backup.glob("books*.snapshot"))
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[700] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(data[:-5000])
    elif how == "gone":
        file.unlink()
    else:
        manifest = json.loads((backup / "manifest.json").read_text())
        manifest["qdrant"][0].pop("sha256")
        manifest["qdrant"][0].pop("size_bytes")
        (backup / "manifest.json").write_text(json.dumps(manifest))
        next(backup.glob("books*.checksum")).unlink()
        file.write_bytes(b"not a tar" * 1000 if how == "no tar" else data[:-5000])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("flip", "has SHA-256"),
        ("cut", "were backed up"),
        ("gone", "is not there, though the manifest names it"),
        ("no tar", "is no whole tar archive"),
        ("cut unknown", "is no whole tar archive"),
    ],
)
def test_a_damaged_file_is_found_before_the_server_hears_of_it(backup, how, said):
    damage(backup, how)
    with running() as other:
        entries = put_back(str(backup), other.url)

        assert [e.ok for e in entries] == [False, True]
        assert said in entries[0].error
        assert list(other.collections) == ["films"]
        assert not [r for r in other.requests if r.startswith("POST /collections/books/snapshots")]


def test_other_vectors_are_found_before_the_server_hears_of_it(backup):
    with running() as other:
        other.create("books", {"vectors": {"size": 3, "distance": "Dot"}})
        entries = put_back(str(backup), other.url, names=["books"], replace_existing=True)

        assert "declares other vectors" in entries[0].error
        assert not [r for r in other.requests if r.startswith("POST /collections/books/snapshots")]


def test_a_restore_that_brings_too_few_points_is_found_out(backup):
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["qdrant"][0]["points"] = 31
    (backup / "manifest.json").write_text(json.dumps(manifest))
    with running() as other:
        entries = put_back(str(backup), other.url, names=["books"])

    assert "was restored with 30 points; 31 were backed up" in entries[0].error


def test_an_upload_that_fails_is_sent_again(backup):
    with running() as other:
        other.fail("POST .*upload", "drop", times=2)

        assert all(e.ok for e in put_back(str(backup), other.url))


def test_a_server_that_starts_is_waited_for(backup):
    with running() as other:
        other.fail("readyz", "503", times=5)

        assert all(e.ok for e in put_back(str(backup), other.url))


# --------------------------------------------------------------------------- other manifests


def test_arcaneums_json_manifest_is_read(backup):
    ours = json.loads((backup / "manifest.json").read_text())
    theirs = {
        "version": 1, "created_at": "2025-11-01T10:00:00", "qdrant_url": "http://localhost:6333",
        "meilisearch_url": None, "protected": ["qdrant"], "not_protected": [], "meilisearch": [],
        "qdrant": [{k: e[k] for k in ("collection", "snapshot", "file")} for e in ours["qdrant"]],
    }  # fmt: skip
    (backup / "manifest.json").write_text(json.dumps(theirs))
    with running() as other:
        entries = put_back(str(backup), other.url)

    assert [(e.collection, e.points, e.error) for e in entries] == [("books", 30, None), ("films", 30, None)]


def test_arcaneums_text_manifest_is_read(backup):
    files = sorted(p.name for p in backup.glob("*.snapshot"))
    (backup / "manifest.json").unlink()
    (backup / "manifest.txt").write_text(
        "Qdrant Backup Manifest\n======\nBackup Date: Mon\nQdrant Host: http://localhost:6333\n"
        "Container: arcaneum-qdrant\n\nCollections Backed Up:\n  - books\n  - films\n\nSnapshot Files:\n"
        + "".join(f"-rw-r--r-- 1 u g 1.2M Nov 1 10:00 {f}\n" for f in files)
    )

    assert [(e.collection, e.file) for e in read_backup(str(backup))] == list(
        zip(["books", "films"], files, strict=True)
    )


def test_a_folder_of_files_is_read_by_their_names(tmp_path):
    for at, name in enumerate(
        ["a-b-123-2025-01-01-00-00-00.snapshot", "a-b-123-2025-02-01-00-00-00.snapshot", "plain.snapshot"]
    ):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (1_700_000_000 + at, 1_700_000_000 + at))

    assert [(e.collection, e.file) for e in read_backup(str(tmp_path))] == [
        ("a-b", "a-b-123-2025-02-01-00-00-00.snapshot"), ("plain", "plain.snapshot"),
    ]  # fmt: skip


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path):
    body = {"version": 1, "qdrant": [{"collection": "x", "snapshot": "s", "file": "../../etc/passwd"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(body))

    assert read_backup(str(tmp_path))[0].file == "passwd"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "does not parse"),
        ('{"collections": []}', "a backup of vecdataset's collections"),
        ('{"qdrant": [{}]}', "does not parse"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, said):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(vd.VecDatasetError, match=said):
        read_backup(str(tmp_path))


def test_snapshot_files_of_a_bucket_are_listed_newest_first(s3):
    import fsspec

    store = fsspec.filesystem("s3", **s3.options)
    for name in ("old.snapshot", "deep/new.snapshot", "new.snapshot.checksum", "other.txt"):
        store.pipe(f"{s3.bucket}/q/{name}", b"12345")
        if name == "old.snapshot":
            time.sleep(1.1)
    found = snapshot_files(f"{s3.url}/q", options=s3.options)

    assert [(f.name, f.size_bytes, f.checksum) for f in found] == [
        ("deep/new.snapshot", 5, False),
        ("old.snapshot", 5, False),
    ]
    assert found[0].modified > found[1].modified


# -------------------------------------------------------------------------------- the shell


def run(*arguments):
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.mark.slow
def test_the_shell_backs_up_lists_and_restores(server, tmp_path):
    folder = str(tmp_path / "b")
    made = run("backup", server.url, folder)
    with running() as other:
        unasked = run("restore", folder, other.url)
        done = run("restore", folder, other.url, "--yes")
        again = run("restore", folder, other.url, "--yes", "--only", "films")
        servers = run("ls", other.url)
    files = run("ls", folder, "--snapshots")

    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout.splitlines()[0])["points"] == 30
    assert unasked.exit_code == 2
    assert "add --yes" in unasked.output
    assert (done.exit_code, again.exit_code) == (0, 0), done.output
    assert [json.loads(line)["points"] for line in servers.stdout.splitlines()] == [30, 30]
    assert len(files.stdout.splitlines()) == 2


def test_the_shell_ends_with_1_when_one_collection_failed(server, backup):
    damage(backup, "flip")
    with running() as other:
        done = run("restore", str(backup), other.url, "--yes")

    assert done.exit_code == 1
    assert "has SHA-256" in done.output


def test_a_backup_of_a_server_is_not_one_of_collections(backup, tmp_path):
    done = run("restore", str(backup), str(tmp_path / "root"))

    assert done.exit_code == 1
    assert "is a backup of a Qdrant server" in done.output
    assert "restore it to qdrant://HOST" in done.output


@pytest.mark.parametrize(
    "arguments",
    [("backup", "qdrant://h", "x", "--keep-last", "3"), ("restore", "x", "qdrant://h", "--dry-run")],
)
def test_options_that_a_server_does_not_take_are_refused(arguments):
    done = run(*arguments)

    assert done.exit_code == 2
    assert "does not go with a Qdrant server" in done.output


def test_sizes_and_folders_are_shown(backup):
    assert shelf.place("s3://b/x/", "y") == "s3://b/x/y"
    assert [f.checksum for f in snapshot_files(str(backup))] == [True, True]
