"""Every kind of file, and everything that can happen to it: named by verify, refused by restore."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset import ledger
from vecdataset.manifests import FOLDER, tag_path


def points(ids, seed=0):
    rng = np.random.default_rng(seed)
    return [{"id": int(i), "vector": rng.standard_normal(8), "n": int(i), "tag": f"t{i % 3}"} for i in ids]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A collection with files of every kind, two snapshots, and a newer version so that it opens."""
    folder = tmp_path_factory.mktemp("lake") / "books"
    books = vd.create(folder, vectors=vd.VectorParams(8), indexing_threshold=100)
    books.upsert(points(range(300)))
    books.optimize()
    books.upsert(points(range(300, 340), seed=1))
    books.delete(range(20))
    books.delete(range(305, 310))
    books.snapshots.create("first")
    books.upsert(points([1000]))
    books.create_payload_index("tag")
    books.snapshots.create("second")
    books.upsert(points([1001]))
    return folder


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])


def append(path, rng):
    path.write_bytes(path.read_bytes() + bytes(rng.integers(0, 256, 3, np.uint8)))


MUTATIONS = {"flip": flip, "truncate": truncate, "delete": lambda path, _: path.unlink(), "append": append}
KINDS = {
    "data": "data/", "deletion": "_deletions/", "Lance manifest": "_versions/", "index": "_indices/",
    "transaction": "_transactions/", "our manifest": f"{FOLDER}/", "tag": "_refs/tags/",
}  # fmt: skip
EACH = 8
"""Mutations of each kind by each means: 7 × 4 × 8 = 224, and the swaps beside them."""


def files_of(folder, kind):
    named = [f.path for f in vd.open(folder).snapshots.get("first").files]
    named.append(f"{FOLDER}/first.json")
    return [path for path in named if path.startswith(KINDS[kind])]


def said(report):
    return "\n".join([*report.missing, *report.truncated, *report.changed, *report.problems])


def must_be_found(folder, relative, name="first"):
    """Verify names the file; restore refuses, and writes nothing."""
    snapshots = vd.open(folder).snapshots
    report = snapshots.verify(name)

    assert not report, relative
    assert relative in said(report)
    with pytest.raises(vd.VecDatasetError, match=re.escape(relative)):
        snapshots.restore(name, into="restored")
    assert not (folder.parent / "restored").exists()
    before = vd.open(folder).version
    with pytest.raises(vd.VecDatasetError, match=re.escape(relative)):
        snapshots.restore(name)
    assert vd.open(folder).version == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_no_change_of_any_file_passes(sealed, tmp_path, kind, mutation):
    paths = files_of(sealed, kind)
    for seed in range(EACH):
        folder = tmp_path / str(seed) / "books"
        shutil.copytree(sealed, folder)
        relative = paths[seed % len(paths)]
        MUTATIONS[mutation](folder / relative, np.random.default_rng(seed))

        # Without its manifest a snapshot is known by its tag, and restore says that it is not there.
        if kind == "our manifest" and mutation == "delete":
            assert relative in said(vd.open(folder).snapshots.verify("first"))
            with pytest.raises(vd.CorruptionError, match=re.escape(relative)):
                vd.open(folder).snapshots.restore("first")
        else:
            must_be_found(folder, relative)
        shutil.rmtree(folder)


def swap(a, b):
    left, right = a.read_bytes(), b.read_bytes()
    a.write_bytes(right)
    b.write_bytes(left)


@pytest.mark.parametrize("kind", ["data", "deletion", "Lance manifest", "index", "transaction"])
def test_two_files_that_changed_places_are_both_named(sealed, tmp_path, kind):
    folder = tmp_path / "books"
    shutil.copytree(sealed, folder)
    here = files_of(folder, kind)
    others = {f.path for f in vd.open(folder).snapshots.get("second").files} - set(here)
    pair = [*here, *(p for p in others if p.startswith(KINDS[kind]))][:2]
    swap(*(folder / p for p in pair))

    for relative in set(pair) & set(here):
        must_be_found(folder, relative)


@pytest.mark.parametrize("pattern", [f"{FOLDER}/{{}}.json", "_refs/tags/{}.json"])
def test_manifests_and_tags_that_changed_places_are_both_named(sealed, tmp_path, pattern):
    folder = tmp_path / "books"
    shutil.copytree(sealed, folder)
    swap(folder / pattern.format("first"), folder / pattern.format("second"))

    must_be_found(folder, pattern.format("first"), "first")
    must_be_found(folder, pattern.format("second"), "second")


@pytest.mark.parametrize("change", [lambda t: t + b"\n", lambda t: t.replace(b",\n", b", \n", 1)])
def test_white_space_that_was_added_to_a_manifest_is_found(sealed, tmp_path, change):
    folder = tmp_path / "books"
    shutil.copytree(sealed, folder)
    path = folder / FOLDER / "first.json"
    path.write_bytes(change(path.read_bytes()))

    must_be_found(folder, f"{FOLDER}/first.json")


def test_one_damaged_tag_hides_no_other_snapshot_and_can_be_deleted(sealed, tmp_path):
    folder = tmp_path / "books"
    shutil.copytree(sealed, folder)
    (folder / tag_path("first")).write_bytes(b"{")
    snapshots = vd.open(folder).snapshots

    assert snapshots.verify("second")
    assert {r["name"]: r["version"] for r in snapshots.list().to_pylist()}.keys() == {"first", "second"}
    snapshots.delete("first")
    assert all(snapshots.verify())
    assert len(snapshots.verify()) == 1


# ------------------------------------------------------------------- rot before the seal


@pytest.mark.parametrize("kind", ["data", "deletion", "index", "Lance manifest", "transaction"])
def test_a_file_that_rots_between_its_commit_and_the_seal_is_refused_by_name(tmp_path, kind):
    books = vd.create(tmp_path / "books", vectors=vd.VectorParams(8))
    books.upsert(points(range(300)))
    books.create_index("ivf_flat")
    books.delete(range(20))
    handle = vd.open(books.url)
    relative = next(p for p in sorted(handle._reader.table.files()) if p.startswith(KINDS[kind]))
    flip(tmp_path / "books" / relative, np.random.default_rng(3))

    with pytest.raises(vd.CorruptionError, match=re.escape(relative)):
        handle.snapshots.create("late")

    assert len(handle.snapshots) == 0
    assert handle._reader.table.tags() == {}
    report = handle.snapshots.verify(current=True)
    assert [*report.changed, *report.truncated] == [relative]


def test_a_seal_without_records_reads_every_value(tmp_path):
    folder = tmp_path / "books"
    books = vd.create(folder, vectors=vd.VectorParams(8))
    books.upsert(points(range(300)))
    books.upsert(points(range(300, 600)))
    shutil.rmtree(folder / ledger.FOLDER)
    assert len(books.snapshots.verify(current=True).unrecorded) > 2
    data = max((folder / "data").iterdir(), key=lambda p: p.stat().st_size)
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(vd.CorruptionError, match="cannot be sealed"):
        vd.open(folder).snapshots.create("blind")

    data.write_bytes(whole)
    assert vd.open(folder).snapshots.create("whole").rows == 600


def test_a_vector_that_is_not_finite_is_not_sealed_without_records(tmp_path):
    folder = tmp_path / "books"
    books = vd.create(folder, vectors=vd.VectorParams(2))
    books.upsert([{"id": 1, "vector": [1.0, 2.0]}])
    books.snapshots.create("sound")
    rows = books.to_arrow()
    broken = pa.FixedSizeListArray.from_arrays(pa.array([float("nan"), 1.0], pa.float32()), 2)
    rows = rows.set_column(rows.schema.get_field_index("vector"), rows.schema.field("vector"), broken)
    books.to_lance().merge_insert("id").when_matched_update_all().execute(rows)

    with pytest.raises(vd.CorruptionError, match=r"cannot be sealed: vector .* of point 1 holds NaN"):
        vd.open(folder).snapshots.create("unsound")


def test_damage_that_was_sealed_before_is_named_by_every_later_snapshot(sealed, tmp_path):
    folder = tmp_path / "books"
    shutil.copytree(sealed, folder)
    relative = files_of(folder, "data")[0]
    flip(folder / relative, np.random.default_rng(0))
    books = vd.open(folder)

    books.snapshots.create("third")  # knows the digest from the first seal

    assert relative in said(books.snapshots.verify("third"))


def test_restore_in_place_goes_back_also_from_a_version_that_is_damaged(sealed, tmp_path):
    folder = tmp_path / "books"
    shutil.copytree(sealed, folder)
    books = vd.open(folder)
    good = books.at("second").to_arrow().sort_by("id")
    needed = {f.path for f in books.snapshots.get("second").files}
    newest = next(p for p in books._reader.table.files() if p.startswith("data/") and p not in needed)
    (folder / newest).write_bytes(b"lost")

    books.snapshots.restore("second")

    assert books.to_arrow().sort_by("id").equals(good)
    states = {r["name"]: r["state"] for r in books.snapshots.list().to_pylist()}
    assert [s for n, s in states.items() if n.startswith("before-restore")] == ["unsealed"]


def test_a_file_that_leads_out_of_the_collection_is_not_trusted(sealed, tmp_path):
    folder = tmp_path / "lake" / "books"
    shutil.copytree(sealed, folder)
    relative = files_of(folder, "data")[0]
    outside = tmp_path / "outside.lance"
    (folder / relative).rename(outside)
    (folder / relative).symlink_to(outside)

    must_be_found(folder, relative)
    with pytest.raises(vd.CorruptionError, match=r"by a link"):
        vd.open(folder).snapshots.copy("first", tmp_path / "copy")


def test_a_target_whose_folders_lead_elsewhere_is_refused(sealed, tmp_path):
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "copy"
    elsewhere.mkdir()
    vd.open(sealed).snapshots.copy("first", target)
    (target / "data").rename(tmp_path / "moved")
    (target / "data").symlink_to(elsewhere)

    with pytest.raises(vd.CollectionExistsError, match="by a link"):
        vd.open(sealed).snapshots.copy("second", target)

    assert not list(Path(elsewhere).iterdir())
