"""Backups of whole roots, and collections whose newest version is torn."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import vecdataset as vd
from vecdataset import storage
from vecdataset.backup import backup, read_manifest, restore
from vecdataset.engine import manifests
from vecdataset.repair import repair


def fill(catalog, name, rows):
    rng = np.random.default_rng(rows)
    collection = catalog.create(name, vectors=vd.VectorParams(4))
    collection.upsert([{"id": i, "vector": rng.standard_normal(4), "n": i} for i in range(rows)])
    return collection


@pytest.fixture
def lake(tmp_path):
    catalog = vd.Catalog(tmp_path / "lake")
    fill(catalog, "books", 50)
    fill(catalog, "films", 30)
    return catalog


def content(collection):
    return collection.to_arrow().sort_by("id").to_pylist()


def test_a_backup_can_be_restored_elsewhere(lake, tmp_path):
    told = []
    done = backup(lake, vd.Catalog(tmp_path / "backup"), told=told.append)

    assert [(o.collection, o.rows, o.ok) for o in done] == [("books", 50, True), ("films", 30, True)]
    assert len(told) == 2
    text = (tmp_path / "backup" / "manifest.txt").read_text()
    assert text.startswith("vecdataset Backup Manifest\nBackup Date: ")
    assert "books: 50 points" in text

    back = vd.Catalog(tmp_path / "back")
    assert all(o.ok for o in restore(vd.Catalog(tmp_path / "backup"), back))
    assert content(back["books"]) == content(lake["books"])
    assert content(back["films"]) == content(lake["films"])


def test_a_second_backup_moves_only_new_files(lake, tmp_path):
    target = vd.Catalog(tmp_path / "backup")
    first = backup(lake, target)
    lake["books"].upsert([{"id": 999, "vector": [1, 2, 3, 4]}])
    second = backup(lake, target)

    assert first[0].copied_files == first[0].files
    assert 0 < second[0].copied_files < second[0].files
    assert second[0].rows == 51
    assert [o.rows for o in read_manifest(target)] == [51, 30]


def test_a_collection_that_nobody_wrote_to_is_not_sealed_again(lake, tmp_path):
    target = vd.Catalog(tmp_path / "backup")
    first, second = backup(lake, target), backup(lake, target)

    assert [o.snapshot for o in first] == [o.snapshot for o in second]
    assert [o.copied_files for o in second] == [0, 0]
    assert len(lake["books"].snapshots) == 1


def test_keep_last_prunes_backups_and_leaves_what_people_made(lake, tmp_path):
    target = vd.Catalog(tmp_path / "backup")
    lake["books"].snapshots.create("by-hand")
    for night in range(4):
        fill_more(lake["books"], night)
        lake["books"].optimize()
        done = backup(lake, target, names=["books"], keep_last=2)

    assert done[0].pruned == 1
    assert len(lake["books"].snapshots) == 3
    assert lake["books"].snapshots.verify("by-hand")
    kept = target["books"].snapshots
    assert len(kept) == 2
    assert all(kept.verify(deep=True))
    needed = {f.path for s in kept for f in kept.get(s["name"]).files}
    there = {
        f.path for f in storage.files(target.location("books")).list_files() if f.path.startswith("data/")
    }
    assert there == {p for p in needed if p.startswith("data/")}


def fill_more(collection, night):
    collection.upsert([{"id": 1000 + night, "vector": [night, 1, 2, 3]}])


def test_what_an_earlier_run_brought_stays_the_one_to_restore(lake, tmp_path):
    target = vd.Catalog(tmp_path / "backup")
    before = content(lake["books"])
    backup(lake, target)
    backup(lake, target, names=["films"])
    fill_more(lake["books"], 1)
    newest = max((tmp_path / "lake" / "books" / "data").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(b"rot")
    failed = backup(lake, target)

    assert [o.ok for o in failed] == [False, True]
    assert newest.name in failed[0].error
    assert "Failed This Time:" in (tmp_path / "backup" / "manifest.txt").read_text()
    back = vd.Catalog(tmp_path / "back")
    assert [o.ok for o in restore(target, back)] == [True, True]
    assert content(back["books"]) == before


def test_aliases_travel_with_their_collections(lake, tmp_path):
    lake.alias("current", "books")
    backup(lake, vd.Catalog(tmp_path / "backup"))
    restore(vd.Catalog(tmp_path / "backup"), vd.Catalog(tmp_path / "back"))

    assert vd.Catalog(tmp_path / "back").aliases() == {"current": "books"}


def test_a_root_is_not_its_own_backup(lake, tmp_path):
    with pytest.raises(vd.InvalidInputError, match="its own backup"):
        backup(lake, vd.Catalog(tmp_path / "lake"))


def test_one_collection_that_fails_does_not_stop_the_others(lake, tmp_path):
    data = next((tmp_path / "lake" / "books" / "data").iterdir())
    lake["books"].snapshots.create("sound")
    data.write_bytes(b"x" * data.stat().st_size)

    done = backup(lake, vd.Catalog(tmp_path / "backup"))

    assert [o.ok for o in done] == [False, True]
    assert data.name in done[0].error
    restored = restore(
        vd.Catalog(tmp_path / "backup"), vd.Catalog(tmp_path / "back"), names=["books", "films"]
    )
    assert [o.ok for o in restored] == [False, True]
    assert "holds no collection 'books'" in restored[0].error


def test_a_restore_refuses_a_name_that_is_taken(lake, tmp_path):
    backup(lake, vd.Catalog(tmp_path / "backup"))
    before = content(lake["books"])

    done = restore(vd.Catalog(tmp_path / "backup"), lake, names=["books"])

    assert not done[0].ok
    assert "holds something already" in done[0].error
    assert content(lake["books"]) == before


def test_a_backup_that_was_tampered_with_is_refused(lake, tmp_path):
    backup(lake, vd.Catalog(tmp_path / "backup"))
    path = tmp_path / "backup" / "manifest.json"
    body = json.loads(path.read_text())
    body["collections"][0]["root"] = "0" * 64
    path.write_text(json.dumps(body))

    done = restore(vd.Catalog(tmp_path / "backup"), vd.Catalog(tmp_path / "back"))

    assert "not the one that was backed up" in done[0].error
    assert not (tmp_path / "back" / "books").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"collections": [{"evil": 1}]}', "[]"])
def test_what_is_no_backup_manifest_is_refused(tmp_path, text):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "manifest.json").write_text(text)

    with pytest.raises(vd.CorruptionError, match="does not parse"):
        restore(vd.Catalog(tmp_path / "backup"), vd.Catalog(tmp_path / "back"))


def test_a_place_without_a_backup_is_said(tmp_path):
    with pytest.raises(vd.NotFoundError, match="holds no backup"):
        restore(vd.Catalog(tmp_path / "nothing"), vd.Catalog(tmp_path / "back"))


# ---------------------------------------------------------------------------- repair


def newest(folder):
    found = manifests(storage.resolve(folder))
    return Path(folder) / next(iter(found.values()))


@pytest.mark.parametrize("keep", [0, 10, 200, -5])
def test_a_torn_newest_version_is_moved_aside(lake, tmp_path, keep):
    books = lake["books"]
    good = content(books)
    books.upsert([{"id": 999, "vector": [1, 2, 3, 4]}])
    path = newest(books.url)
    path.write_bytes(path.read_bytes()[:keep])
    # A new handle: an open one still holds the version in memory.
    with pytest.raises(vd.CorruptionError, match="newest version") as caught:
        vd.open(books.url)
    assert "vecdataset repair" in caught.value.hint

    location = storage.resolve(books.url)
    planned = repair(location)
    assert planned
    assert (planned.rows, planned.moved) == (50, [])
    assert path.exists()
    done = repair(location, dry_run=False)

    assert done.moved == [f"_damaged/{path.name}"]
    assert (Path(books.url) / "_damaged" / path.name).exists()
    assert content(vd.open(books.url)) == good
    assert not repair(location)


def test_where_nothing_can_be_read_nothing_is_moved(lake):
    folder = Path(lake["films"].url)
    for path in manifests(storage.resolve(folder)).values():
        os.truncate(folder / path, 3)
    before = sorted(p.name for p in (folder / "_versions").iterdir())

    with pytest.raises(vd.CorruptionError, match="no version"):
        repair(storage.resolve(folder), dry_run=False)

    assert sorted(p.name for p in (folder / "_versions").iterdir()) == before
    shutil.rmtree(folder)
    with pytest.raises(vd.CollectionNotFoundError):
        repair(storage.resolve(folder))
