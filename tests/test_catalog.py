"""Collections beneath a root: created, found, dropped and brought back, renamed, aliased."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import lance
import pyarrow as pa
import pytest

import vecdataset as vd

VECTORS = vd.VectorParams(size=2, distance="Euclid")
POINTS = [{"id": i, "vector": [i, 0], "n": i} for i in range(3)]


@pytest.fixture(params=["local", "memory"])
def catalog(request, tmp_path):
    return vd.Catalog(tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4()}")


@pytest.fixture
def books(catalog):
    made = catalog.create("books", vectors=VECTORS)
    made.upsert(POINTS)
    return made


def test_a_root_without_collections_is_an_empty_catalog(catalog):
    assert list(catalog) == catalog.list() == catalog.list(dropped=True) == []
    assert catalog.aliases() == {}
    assert "books" not in catalog


def test_a_catalog_lists_its_collections_in_order(catalog):
    for name in ("films", "books", "a b", "Ärzte.2024-x"):
        catalog.create(name, vectors=VECTORS)

    assert list(catalog) == ["a b", "books", "films", "Ärzte.2024-x"]
    assert "books" in catalog
    assert 7 not in catalog


def test_a_collection_is_the_same_by_catalog_and_by_url(catalog, books):
    assert catalog["books"].url == catalog.open("books").url == books.url
    assert vd.open(books.url).get([1]).to_pylist() == [{"id": 1, "n": 1}]


def test_folders_that_are_no_collections_are_not_listed(tmp_path):
    lake = vd.Catalog(tmp_path)
    lake.create("books", vectors=VECTORS)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    (tmp_path / "file.txt").write_text("a")
    lance.write_dataset(pa.table({"a": [1]}), str(tmp_path / "plain"))

    assert list(lake) == ["books"]


def test_a_damaged_collection_is_listed_and_says_so_when_opened(tmp_path):
    lake = vd.Catalog(tmp_path)
    lake.create("books", vectors=VECTORS)
    manifest = max((tmp_path / "books" / "_versions").glob("*.manifest"))
    manifest.write_bytes(b"")

    assert list(lake) == ["books"]
    with pytest.raises(vd.VecDatasetError):
        lake.open("books")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "_private", "a/b", "a\\b", "a:b", "a*", None, 7])
def test_a_name_that_cannot_be_a_folder_is_refused(catalog, name):
    with pytest.raises(vd.InvalidInputError, match="cannot name"):
        catalog.create(name, vectors=VECTORS)
    with pytest.raises(vd.InvalidInputError, match="cannot name"):
        catalog.open(name)

    assert list(catalog) == []


def test_an_unknown_name_is_guessed(catalog, books):
    with pytest.raises(vd.CollectionNotFoundError, match="no collection 'bokos'") as caught:
        catalog.open("bokos")

    assert caught.value.hint == "did you mean 'books'?"
    assert isinstance(caught.value, FileNotFoundError)


# ---------------------------------------------------------------------------------- create


def test_creating_what_exists_is_an_error_and_changes_nothing(catalog, books):
    before = books.version

    with pytest.raises(vd.CollectionExistsError, match="exists"):
        catalog.create("books", vectors=VECTORS)

    assert (books.version, len(books)) == (before, 3)


def test_exist_ok_returns_what_is_there(catalog, books):
    assert len(catalog.create("books", vectors=VECTORS, exist_ok=True)) == 3


@pytest.mark.parametrize("other", [vd.VectorParams(3), vd.VectorParams(2, "Dot"), {"text": VECTORS}])
def test_exist_ok_refuses_other_vectors(catalog, books, other):
    with pytest.raises(vd.CollectionExistsError, match="exists with vectors"):
        catalog.create("books", vectors=other, exist_ok=True)


def test_exist_ok_refuses_another_id_type(catalog, books):
    with pytest.raises(vd.CollectionExistsError, match="ids of type uint64"):
        catalog.create("books", vectors=VECTORS, id_type="string", exist_ok=True)


def test_of_many_that_create_one_name_one_succeeds(catalog):
    barrier = threading.Barrier(6)

    def create(_):
        barrier.wait()
        try:
            return catalog.create("books", vectors=VECTORS)
        except vd.CollectionExistsError:
            return None

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(create, range(6)))

    assert sum(m is not None for m in made) == 1


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "at least one vector"),
        ({"": 384}, "VectorParams"),
        (384, "VectorParams"),
        ({"a__b": VECTORS}, "cannot name a vector"),
        ({"1a": VECTORS}, "cannot name a vector"),
        ({"_a": VECTORS}, "cannot name a vector"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(catalog, vectors, message):
    with pytest.raises(vd.InvalidInputError, match=message):
        catalog.create("books", vectors=vectors)

    assert list(catalog) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0}, {"size": -1}, {"size": 2.0}, {"size": True}, {"size": 65_537}, {"size": 2, "distance": "cosin"},
        {"size": 2, "datatype": "float23"},
    ],
    ids=str,
)  # fmt: skip
def test_a_vector_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(vd.InvalidInputError):
        vd.VectorParams(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"index": "hnws"}, {"quantization": "binry"}, {"index": "ivf_rq"},
        {"quantization": {"type": "product", "options": {"num_segments": 5}}},
    ],
    ids=str,
)  # fmt: skip
def test_an_index_that_cannot_be_built_is_refused_before_anything_is_written(catalog, arguments):
    with pytest.raises(vd.InvalidInputError):
        catalog.create("books", vectors=vd.VectorParams(12, **arguments))

    assert list(catalog) == []


@pytest.mark.parametrize("content", ["a file", "a folder with files", "a Lance dataset"])
def test_a_path_that_holds_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "books"
    if content == "a file":
        path.write_text("mine")
    elif content == "a folder with files":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        lance.write_dataset(pa.table({"a": [1]}), str(path))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    with pytest.raises((vd.CollectionExistsError, vd.InvalidInputError)):
        vd.create(path, vectors=VECTORS)
    with pytest.raises(vd.InvalidInputError, match=r"not a (vecdataset )?collection"):
        vd.open(path)

    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_empty_folder_becomes_a_collection(tmp_path):
    (tmp_path / "books").mkdir()

    assert len(vd.create(tmp_path / "books", vectors=VECTORS)) == 0


def test_opening_what_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(vd.CollectionNotFoundError, match="no collection at") as caught:
        vd.open(tmp_path / "books")

    assert "create(" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------- drop and undrop


def test_a_dropped_collection_is_gone_and_comes_back_as_it_was(catalog, books):
    catalog.drop("books")
    assert (catalog.list(), catalog.list(dropped=True)) == ([], ["books"])

    back = catalog.undrop("books")

    assert (catalog.list(), catalog.list(dropped=True)) == (["books"], [])
    assert back.scroll(with_vectors=True).to_pylist() == POINTS
    back.upsert([{"id": 9, "vector": [9, 9]}])
    assert len(catalog.open("books")) == 4


@pytest.mark.parametrize("how", ["catalog", "url", "open handle"])
def test_a_dropped_collection_says_that_it_was_dropped(catalog, books, how):
    catalog.drop("books")

    with pytest.raises(vd.CollectionNotFoundError, match="was dropped at") as caught:
        {
            "catalog": lambda: catalog.open("books"),
            "url": lambda: vd.open(books.url),
            "open handle": books.count,
        }[how]()

    assert "undrop" in caught.value.hint


def test_a_handle_that_was_open_cannot_write_to_a_dropped_collection(catalog, books):
    catalog.drop("books")

    for _ in range(2):
        with pytest.raises(vd.CollectionNotFoundError, match="was dropped"):
            books.upsert(POINTS)
        with pytest.raises(vd.CollectionNotFoundError, match="was dropped"):
            books.set_payload({"a": 1}, ids=[1])

    assert len(catalog.undrop("books")) == 3


def test_a_name_is_free_again_after_a_drop(catalog, books):
    catalog.drop("books")

    new = catalog.create("books", vectors=vd.VectorParams(3))

    assert (len(new), new.schema.id_type, list(new.schema.payload)) == (0, None, [])
    new.upsert([{"id": "text", "vector": [1, 2, 3], "n": "text"}])
    assert catalog.open("books").get("text").to_pylist() == [{"id": "text", "n": "text"}]


def test_what_stood_there_before_a_drop_stays_reachable(catalog, books):
    books.configure(full_scan_threshold=7)
    catalog.drop("books")
    new = catalog.create("books", vectors=vd.VectorParams(3))

    (tag,) = new.to_lance().tags.list()
    old = new.at(tag)

    assert tag.startswith("dropped-")
    assert old.scroll().to_pylist() == [{"id": p["id"], "n": p["n"]} for p in POINTS]
    assert new.info().full_scan_threshold != 7


def test_undrop_does_not_overwrite_a_new_collection_of_the_name(catalog, books):
    catalog.drop("books")
    catalog.create("books", vectors=vd.VectorParams(3))

    with pytest.raises(vd.CollectionExistsError, match="is not dropped") as caught:
        catalog.undrop("books")

    assert "dropped-" in caught.value.hint


def test_undrop_of_what_was_never_there_says_so(catalog):
    with pytest.raises(vd.CollectionNotFoundError):
        catalog.undrop("books")


def test_drop_can_be_repeated(catalog, books):
    for _ in range(2):
        catalog.drop("books")
        catalog.undrop("books")

    assert len(catalog.open("books")) == 3


def test_dropping_what_is_not_there_says_so(catalog, books):
    with pytest.raises(vd.CollectionNotFoundError):
        catalog.drop("films")
    catalog.drop("books")
    with pytest.raises(vd.CollectionNotFoundError):
        catalog.drop("books")


def test_purge_removes_the_files(tmp_path):
    lake = vd.Catalog(tmp_path)
    lake.create("books", vectors=VECTORS).upsert(POINTS)
    lake.create("films", vectors=VECTORS)
    lake.drop("books")

    lake.drop("books", purge=True)
    lake.drop("films", purge=True)

    assert (lake.list(), lake.list(dropped=True)) == ([], [])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


# ------------------------------------------------------------------------- rename and alias


def test_a_renamed_collection_has_its_points_and_versions(catalog, books):
    before = books.version

    renamed = catalog.rename("books", "novels")

    assert list(catalog) == ["novels"]
    assert (renamed.name, renamed.version, len(renamed)) == ("novels", before, 3)
    renamed.upsert([{"id": 7, "vector": [0, 0]}])
    assert len(catalog.open("novels")) == 4


def test_a_rename_to_a_name_that_is_taken_changes_nothing(catalog, books):
    catalog.create("films", vectors=VECTORS)
    catalog.alias("current", "books")

    for taken in ("films", "current", "books"):
        with pytest.raises(vd.CollectionExistsError, match=f"'{taken}' exists"):
            catalog.rename("books", taken)

    assert list(catalog) == ["books", "films"]


def test_renaming_what_is_not_there_says_so(catalog):
    with pytest.raises(vd.CollectionNotFoundError):
        catalog.rename("books", "novels")


def test_aliases_follow_a_rename(catalog, books):
    catalog.alias("current", "books")

    catalog.rename("books", "novels")

    assert catalog.aliases() == {"current": "novels"}
    assert len(catalog.open("current")) == 3


def test_an_alias_opens_its_collection_and_is_not_listed(catalog, books):
    catalog.alias("current", "books")

    assert catalog.open("current").name == "books"
    assert list(catalog) == ["books"]


def test_an_alias_can_be_pointed_elsewhere(catalog, books):
    catalog.create("books-2", vectors=VECTORS)
    catalog.alias("current", "books")

    catalog.alias("current", "books-2")

    assert catalog.open("current").name == "books-2"
    assert catalog.aliases() == {"current": "books-2"}


def test_an_alias_is_removed_and_its_collection_stays(catalog, books):
    catalog.alias("current", "books")

    catalog.unalias("current")

    assert (catalog.aliases(), list(catalog)) == ({}, ["books"])
    with pytest.raises(vd.CollectionNotFoundError):
        catalog.open("current")


def test_an_alias_needs_a_collection(catalog):
    with pytest.raises(vd.CollectionNotFoundError):
        catalog.alias("current", "books")

    assert catalog.aliases() == {}


def test_a_name_is_an_alias_or_a_collection_and_never_both(catalog, books):
    catalog.alias("current", "books")

    with pytest.raises(vd.CollectionExistsError, match="is a collection"):
        catalog.alias("books", "books")
    with pytest.raises(vd.CollectionExistsError, match="is an alias"):
        catalog.create("current", vectors=VECTORS)


def test_dropping_by_an_alias_is_refused(catalog, books):
    catalog.alias("current", "books")

    with pytest.raises(vd.InvalidInputError, match="'current' is an alias of 'books'"):
        catalog.drop("current")

    assert list(catalog) == ["books"]


def test_removing_an_alias_that_is_not_there_is_guessed(catalog, books):
    catalog.alias("current", "books")

    with pytest.raises(vd.CollectionNotFoundError, match="no alias 'curent'") as caught:
        catalog.unalias("curent")

    assert caught.value.hint == "did you mean 'current'?"


# ------------------------------------------------------------------------------------ adopt


def lance_table(path, **columns):
    table = pa.table({
        "isbn": pa.array([3, 1, 2], pa.int64()),
        "embedding": pa.array([[3.0, 0], [1, 0], [2, 0]], pa.list_(pa.float32(), 2)),
        "title": ["c", "a", None],
        **columns,
    })  # fmt: skip
    lance.write_dataset(table, str(path))
    return path


def test_a_lance_dataset_becomes_a_collection_in_place(tmp_path):
    path = lance_table(tmp_path / "plain")
    data = sorted((path / "data").iterdir())

    adopted = vd.adopt(path, id="isbn", vectors=VECTORS)

    assert adopted.scroll(with_vectors=True).to_pylist(layout="qdrant") == [
        {"id": 1, "vector": [1, 0], "payload": {"title": "a"}},
        {"id": 2, "vector": [2, 0], "payload": {}},
        {"id": 3, "vector": [3, 0], "payload": {"title": "c"}},
    ]
    assert set(data) <= set((path / "data").iterdir())
    assert adopted.search([0, 0], limit=1)["id"].to_pylist() == [1]


def test_an_adopted_collection_is_written_to_like_any_other(tmp_path):
    path = lance_table(tmp_path / "plain")
    vd.adopt(path, id="isbn")

    books = vd.open(path)
    books.upsert([{"id": 2, "vector": [9, 9], "title": "b", "new": {"a": None}}, {"id": 4, "vector": [4, 0]}])
    with pytest.raises(vd.PointExistsError):
        books.insert([{"id": 3, "vector": [0, 0]}])

    found = books.scroll().to_pylist(layout="qdrant")
    assert [p["id"] for p in found] == [1, 2, 3, 4]
    assert found[1]["payload"] == {"title": "b", "new": {"a": None}}


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({}, {"id": "isbm"}, "no column 'isbm'"),
        ({"k": [1, 1, 2]}, {"id": "k"}, "id 1 stands twice"),
        ({"k": pa.array([1, None, 2])}, {"id": "k"}, "1 nulls"),
        ({"k": [-1, 1, 2]}, {"id": "k"}, "-1 is negative"),
        ({"k": [0.5, 1, 2]}, {"id": "k"}, "type double"),
        ({"score": [1, 2, 3]}, {"id": "isbn"}, "'score'"),
        ({"id": [1, 2, 3]}, {"id": "isbn"}, "'id'"),
        ({}, {"id": "isbn", "vectors": vd.VectorParams(3)}, r"float32\[3\] was declared"),
        ({}, {"id": "isbn", "vectors": "titel"}, "no column of vectors 'titel'"),
    ],
)
def test_a_dataset_that_cannot_be_adopted_is_left_as_it_was(tmp_path, columns, arguments, message):
    path = lance_table(tmp_path / "plain", **columns)
    before = lance.dataset(str(path)).version

    with pytest.raises(vd.InvalidInputError, match=message):
        vd.adopt(path, **arguments)

    assert lance.dataset(str(path)).version == before


def test_a_collection_cannot_be_adopted(tmp_path):
    vd.create(tmp_path / "books", vectors=VECTORS)

    with pytest.raises(vd.CollectionExistsError, match="is a collection already"):
        vd.adopt(tmp_path / "books", id="id")


def test_a_dataset_with_stable_row_ids_is_not_adopted(tmp_path):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0], pa.float32()), 2)
    table = pa.table({"key": pa.array([1], pa.uint64()), "vector": vectors})
    lance.write_dataset(table, str(tmp_path / "d"), enable_stable_row_ids=True)

    with pytest.raises(vd.NotSupportedError, match="stable row ids"):
        vd.adopt(tmp_path / "d", id="key")
