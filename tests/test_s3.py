"""Collections on an S3-protocol server: every operation once, and what goes wrong."""

import time

import numpy as np
import pytest

import vecdataset as vd

pytestmark = pytest.mark.s3


def books(s3, name="books", **options):
    return vd.create(
        f"{s3.url}/{name}", vectors=vd.VectorParams(4, "Euclid"), storage_options=s3.options, **options
    )


def filled(s3, name="books", rows=60):
    collection = books(s3, name, full_scan_threshold=50, indexing_threshold=50)
    matrix = np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)
    collection.upsert([{"id": i, "vector": v, "n": i, "tag": f"t{i % 3}"} for i, v in enumerate(matrix)])
    return collection, matrix


def nearest(matrix, q, k):
    return np.argsort(((matrix - q) ** 2).sum(axis=1))[:k].tolist()


def test_every_operation_works_on_s3(s3):
    collection, matrix = filled(s3)

    collection.optimize()
    found = collection.search(matrix[7], limit=5, explain=True)
    assert found.plan.index is not None
    assert found["id"].to_pylist() == nearest(matrix, matrix[7], 5)
    assert collection.search(matrix[7], limit=3, filter="tag = 't1'")["id"].to_pylist()[0] == 7

    collection.set_payload({"n": "seven", "o": {"deep": 1}}, ids=[7])
    collection.insert([{"id": 1000, "vector": [9, 9, 9, 9], "n": 1.5}])
    assert collection.delete([1, 2]).deleted == 2
    collection.update_vectors([{"id": 3, "vector": [8, 8, 8, 8]}])
    assert collection.get([7]).to_pylist(layout="qdrant") == [
        {"id": 7, "payload": {"tag": "t1", "n": "seven", "o": {"deep": 1}}}
    ]
    assert collection.count("n IS NOT NULL") == 59

    pages, offset = [], None
    while True:
        page = collection.scroll(limit=25, offset=offset)
        pages += page["id"].to_pylist()
        offset = page.next_offset
        if offset is None:
            break
    assert pages == [0, *range(3, 60), 1000]

    again = vd.open(collection.url, storage_options=s3.options)
    assert len(again) == 59
    assert again.search([9, 9, 9, 9], limit=2)["id"].to_pylist() == [1000, 3]
    first = next(v["version"] for v in again.versions().to_pylist() if v["rows"] == 60)
    assert again.at(first).get([1]).to_pylist()[0]["n"] == 1


@pytest.mark.slow
def test_a_catalog_on_s3_lists_renames_drops_and_brings_back(s3):
    filled(s3, "lake/books")
    catalog = vd.Catalog(f"{s3.url}/lake", storage_options=s3.options)
    catalog.alias("current", "books")

    assert catalog.list() == ["books"]
    assert len(catalog.rename("books", "novels")) == 60
    assert catalog.list() == ["novels"]
    assert catalog.open("current").name == "novels"
    catalog.drop("novels")
    assert (catalog.list(), catalog.list(dropped=True)) == ([], ["novels"])
    assert len(catalog.undrop("novels")) == 60
    catalog.drop("novels", purge=True)
    assert catalog.list(dropped=True) == []


def test_others_commits_are_seen_after_the_staleness_bound(s3):
    writer = books(s3)
    reader = vd.open(writer.url, storage_options=s3.options, max_staleness_s=0.3)
    eager = vd.open(writer.url, storage_options=s3.options, max_staleness_s=3600)
    writer.upsert([{"id": 1, "vector": [1, 2, 3, 4]}])

    time.sleep(0.35)

    assert len(reader) == 1
    assert len(eager) == 0
    assert len(eager.refresh()) == 1


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"endpoint_url": "http://127.0.0.1:9"}, vd.StorageUnreachableError, "127.0.0.1:9"),
        ({"key": None, "secret": None}, vd.StoragePermissionError, "credentials"),
        ({"endpont_url": "x"}, vd.UnknownNameError, "endpont_url"),
    ],
    ids=["unreachable", "no credentials", "misspelt option"],
)
def test_a_store_that_cannot_be_used_is_named_within_five_seconds(s3, change, kind, said):
    options = {k: v for k, v in (s3.options | change).items() if v is not None}
    started = time.perf_counter()

    with pytest.raises(kind) as caught:
        vd.create(f"{s3.url}/books", vectors=vd.VectorParams(4), storage_options=options)

    assert time.perf_counter() - started < 5
    assert said in f"{caught.value} {caught.value.hint}"
    assert "test-secret" not in str(caught.value)


@pytest.mark.slow
def test_a_missing_bucket_and_a_missing_collection_are_told_apart(s3):
    with pytest.raises(vd.CollectionNotFoundError, match="books"):
        vd.open(f"{s3.url}/books", storage_options=s3.options)
    with pytest.raises(vd.StorageError, match="no-such-bucket"):
        vd.open("s3://no-such-bucket/books", storage_options=s3.options)


def test_files_move_between_the_store_and_local_disk(s3, tmp_path):
    collection, matrix = filled(s3)
    target = str(tmp_path / "books.parquet")

    assert collection.export(target) == 60
    copy = vd.load(target, f"{s3.url}/copy", storage_options=s3.options)

    assert len(copy) == 60
    assert copy.search(matrix[5], limit=3)["id"].to_pylist() == nearest(matrix, matrix[5], 3)
