"""What a collection does: reads, writes, versions, settings, and the traps of the engine beneath it."""

from __future__ import annotations

import datetime as dt
import time
import uuid

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset import engine, writer

VECTORS = vd.VectorParams(size=2, distance="Euclid")
POINTS = [
    {"id": 1, "vector": [1, 0], "n": 10, "t": "x", "tags": ["a", "b"]},
    {"id": 2, "vector": [2, 0], "n": 20, "t": "y"},
    {"id": 3, "vector": [3, 0], "n": 30, "t": "x", "tags": []},
    {"id": 4, "vector": [4, 0], "t": "z", "mixed": 1},
    {"id": 5, "vector": [5, 0], "mixed": "one"},
]
AN_HOUR = 3600


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path):
    return str(tmp_path / "books") if request.param == "local" else f"memory://{uuid.uuid4()}/books"


@pytest.fixture
def books(url):
    made = vd.create(url, vectors=VECTORS)
    made.upsert(POINTS)
    return made


@pytest.fixture
def many():
    """2,000 points with vectors that are easy to reason about."""
    made = vd.create(f"memory://{uuid.uuid4()}/many", vectors=VECTORS, id_type="uint64")
    made.upsert(line(2000))
    return made


def line(count, start=0, **columns):
    ids = np.arange(start, start + count)
    vectors = np.stack([ids, np.zeros(count)], axis=1).astype(np.float32)
    return pa.table({
        "id": ids.astype(np.uint64),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 2),
        "n": ids,
        **columns,
    })  # fmt: skip


def ids(frame):
    return frame["id"].to_pylist()


def payloads(collection):
    found = collection.scroll(limit=10_000).to_pylist(layout="qdrant")
    return {point["id"]: point["payload"] for point in found}


def stored_ids(collection):
    """Round the code under test: what Lance itself reads."""
    return sorted(collection.to_lance().to_table(columns=["id"])["id"].to_pylist())


# ------------------------------------------------------------------------------------- get


def test_get_returns_points_in_the_order_asked_and_leaves_out_what_is_not_there(books):
    assert ids(books.get([4, 99, 1, 4, 2])) == [4, 1, 2]


@pytest.mark.parametrize(
    "asked",
    [
        2,
        [2],
        (2,),
        {2},
        range(2, 3),
        np.array([2]),
        pa.array([2]),
        pa.chunked_array([[2]]),
        np.uint64(2),
    ],
    ids=lambda a: type(a).__name__,
)
def test_get_takes_one_id_or_any_list_of_ids(books, asked):
    assert ids(books.get(asked)) == [2]


def test_get_takes_the_ids_of_a_result_or_an_iterator(books):
    assert ids(books.get(iter([2, 1]))) == [2, 1]
    assert ids(books.get(books.search([5, 0], limit=2))) == [5, 4]


def test_get_needs_ids(books):
    with pytest.raises(vd.InvalidIdError, match="None"):
        books.get(None)


def test_get_of_no_ids_is_an_empty_frame_with_all_columns(books):
    assert len(books.get([])) == 0
    assert books.get([]).column_names == books.get([1]).column_names


def test_get_returns_the_columns_asked_for(books):
    assert books.get(1, columns=["n"]).to_pylist() == [{"id": 1, "n": 10}]
    assert books.get(1, columns=[]).to_pylist() == [{"id": 1}]
    assert books.get(1, columns=["n"], with_vectors=True).to_pylist() == [
        {"id": 1, "n": 10, "vector": [1, 0]}
    ]
    assert books.get(5, columns=["mixed", "t"]).to_pylist(layout="qdrant") == [
        {"id": 5, "payload": {"mixed": "one"}}
    ]


def test_get_of_many_thousand_ids(many):
    asked = list(range(1999, -1, -1)) * 3 + list(range(5000, 9000))

    assert ids(many.get(asked)) == list(range(1999, -1, -1))


@pytest.mark.parametrize("verb", ["get", "delete"])
def test_an_empty_collection_has_nothing_to_get_or_delete(url, verb):
    empty = vd.create(url, vectors=VECTORS)

    before = empty.version
    result = getattr(empty, verb)([1, 2])

    assert (len(result) if verb == "get" else result.deleted) == 0
    assert (empty.version, len(empty), empty.count()) == (before, 0, 0)
    assert empty.scroll().to_pylist() == list(empty.iter_batches()) == []


# ---------------------------------------------------------------------------------- scroll


def test_scroll_pages_through_all_points_in_id_order(many):
    found, offset = [], None
    for _ in range(7):
        page = many.scroll(limit=300, offset=offset)
        found += ids(page)
        offset = page.next_offset

    assert found == list(range(2000))
    assert offset is None


def test_a_page_that_ends_with_the_last_point_is_the_last(books):
    assert books.scroll(limit=5).next_offset is None
    assert books.scroll(limit=4).next_offset is not None


def test_scroll_stays_on_its_version_whatever_is_written(books):
    first = books.scroll(limit=2)
    books.delete([3, 4])
    books.upsert([{"id": 0, "vector": [0, 0]}, {"id": 5, "vector": [9, 9], "t": "new"}])

    rest = books.scroll(limit=10, offset=first.next_offset)

    assert ids(rest) == [3, 4, 5]
    assert rest.to_pylist(layout="qdrant")[2]["payload"] == {"mixed": "one"}


def test_scroll_begins_at_an_id(books):
    assert ids(books.scroll(offset=3)) == [3, 4, 5]
    assert ids(books.scroll(offset=3, filter="t = 'x'")) == [3]


def test_scroll_orders_by_a_payload_key_and_leaves_out_points_without_it(many):
    many.set_payload({"n": -5}, ids=[7])
    many.delete_payload(["n"], ids=[8])

    up = many.scroll(limit=3, order_by="n")
    down = many.scroll(limit=3, order_by={"key": "n", "direction": "desc"})
    next_page = many.scroll(limit=3, order_by="n", offset=up.next_offset)

    assert (ids(up), ids(down), ids(next_page)) == ([7, 0, 1], [1999, 1998, 1997], [2, 3, 4])
    assert 8 not in ids(many.scroll(limit=2000, order_by="n"))


def test_mixed_ids_scroll_as_in_qdrant_numbers_first(url):
    mixed = vd.create(url, vectors=VECTORS)
    keys = [str(uuid.UUID(int=9)), 10, 2, 2**64 - 1, str(uuid.UUID(int=3))]
    mixed.upsert([vd.Point(k, [0, 0]) for k in keys])

    pages = [mixed.scroll(limit=2)]
    while pages[-1].next_offset is not None:
        pages.append(mixed.scroll(limit=2, offset=pages[-1].next_offset))

    expected = [2, 10, 2**64 - 1, str(uuid.UUID(int=3)), str(uuid.UUID(int=9))]
    assert [p["id"] for page in pages for p in page.to_pylist()] == expected
    assert [p["id"] for p in mixed.scroll(offset=10).to_pylist()] == expected[1:]


def test_an_id_that_looks_like_a_cursor_is_an_id(url):
    named = vd.create(url, vectors=VECTORS)
    named.upsert([vd.Point(i, [0, 0]) for i in ("v1.0", "v1.1", "v2.0")])

    assert ids(named.scroll(offset="v1.1")) == ["v1.1", "v2.0"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": 0}, {"limit": 100_001}, {"limit": True}, {"limit": "3"}, {"offset": "v1.nonsense"}, {"offset": -1},
        {"order_by": "nn"}, {"order_by": "mixed"}, {"order_by": {"key": "n", "direction": "up"}},
        {"order_by": {"kye": "n"}}, {"columns": ["nn"]}, {"with_vectors": ["txet"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_scroll_that_makes_no_sense_is_one_clear_error(books, arguments):
    with pytest.raises((vd.InvalidInputError, vd.NotSupportedError)):
        books.scroll(**arguments)


# --------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("n >= 20", [2, 3]),
        ("t = 'x' AND n < 20", [1]),
        ({"t": "x"}, [1, 3]),
        ({"must": [{"key": "tags", "match": {"value": "a"}}]}, [1]),
        ({"must_not": [{"key": "t", "match": {"value": "x"}}]}, [2, 4, 5]),
        ({"must": [{"key": "mixed", "match": {"value": "one"}}]}, [5]),
        ({"must": [{"has_id": [1, 5, 99]}]}, [1, 5]),
        ({"must": [{"is_empty": {"key": "tags"}}]}, [2, 3, 4, 5]),
        (vd.Filter("mixed IS NOT NULL"), [4, 5]),
        ("id > 3", [4, 5]),
    ],
    ids=str,
)
def test_a_filter_means_the_same_to_every_verb(books, filter, expected):
    others = sorted({1, 2, 3, 4, 5} - set(expected))

    assert ids(books.scroll(filter=filter)) == expected
    assert books.count(filter) == len(expected)
    assert sorted(ids(books.search([0, 0], filter=filter))) == expected
    assert books.set_payload({"seen": True}, filter=filter).updated == len(expected)
    assert books.count({"seen": True}) == len(expected)
    assert books.delete(filter=filter).deleted == len(expected)
    assert ids(books.scroll()) == others


@pytest.mark.parametrize("verb", ["count", "scroll", "search", "delete", "set_payload"])
@pytest.mark.parametrize(
    ("filter", "error", "message"),
    [
        ("nn > 3", vd.UnknownNameError, "'nn'"),
        ("n >", vd.InvalidFilterError, "at the end|position 3|end of"),
        ("n > 3 n", vd.InvalidFilterError, "'n'"),
        ({"must": [{"key": "n", "macht": {"value": 3}}]}, vd.InvalidFilterError, "macht"),
        (7, vd.InvalidFilterError, "filter is 7"),
    ],
    ids=["unknown column", "cut off", "two in a row", "unknown clause", "a number"],
)
def test_a_bad_filter_is_one_clear_error_and_nothing_is_written(books, verb, filter, error, message):
    before = books.version
    arguments = {"search": ([0, 0],), "set_payload": ({"a": 1},)}.get(verb, ())

    with pytest.raises(error, match=message):
        getattr(books, verb)(*arguments, filter=filter)

    assert books.version == before


def test_an_unknown_column_in_a_filter_is_guessed(books):
    with pytest.raises(vd.UnknownNameError) as caught:
        books.count("tgas IS NULL")

    assert "did you mean 'tags'" in caught.value.hint


def test_bad_filter_syntax_says_where(books):
    with pytest.raises(vd.InvalidFilterError) as caught:
        books.count("n > 3 AND AND t = 'x'")

    assert caught.value.position == 10


# --------------------------------------------------------------------------------- deletes


def test_deleting_ids_that_are_not_there_makes_no_version(books):
    before = books.version

    done = books.delete([77, 78])

    assert (done.deleted, done.version, books.version) == (0, before, before)


def test_deleting_by_a_filter_that_matches_nothing_makes_no_version(books):
    before = books.version

    assert books.delete(filter="n > 1000").deleted == 0
    assert books.delete(filter={"mixed": 2}).deleted == 0
    assert books.version == before


@pytest.mark.parametrize("verb", ["delete", "clear_payload"])
@pytest.mark.parametrize("arguments", [{}, {"ids": [1], "filter": "n > 1"}])
def test_points_are_named_by_ids_or_by_a_filter(books, verb, arguments):
    with pytest.raises(vd.InvalidInputError, match="ids or a filter"):
        getattr(books, verb)(**arguments)


def test_thousands_of_ids_are_deleted_in_one_version(many):
    many.upsert(line(8000, start=2000))
    before = many.version

    done = many.delete(range(1000, 9000))

    assert (done.deleted, done.version) == (8000, before + 1)
    assert stored_ids(many) == [*range(1000), *range(9000, 10_000)]


def test_an_emptied_collection_can_be_filled_again(books):
    books.delete(filter="id > 0")
    assert (len(books), books.search([0, 0]).to_pylist()) == (0, [])

    books.insert(POINTS)

    assert len(books) == 5


# --------------------------------------------------------------------------------- patches


def test_set_payload_merges_keys_and_none_removes_one(books):
    books.set_payload({"n": None, "t": "new", "odd": {"a": [None]}}, ids=[1, 99])

    assert payloads(books)[1] == {"t": "new", "tags": ["a", "b"], "odd": {"a": [None]}}
    assert payloads(books)[2] == {"n": 20, "t": "y"}


def test_overwrite_payload_replaces_all_of_it(books):
    books.overwrite_payload({"n": 0.5}, ids=[4, 5])

    assert payloads(books)[4] == payloads(books)[5] == {"n": 0.5}


def test_delete_payload_removes_keys_wherever_they_stand(books):
    books.delete_payload(["n", "mixed", "no such key"], filter="id >= 3")

    assert [payloads(books)[i] for i in (3, 4, 5)] == [{"t": "x", "tags": []}, {"t": "z"}, {}]
    assert payloads(books)[1]["n"] == 10


def test_clear_payload_leaves_the_points_and_vectors(books):
    books.clear_payload(ids=[1, 5])

    assert books.get([1, 5], with_vectors=True).to_pylist(layout="qdrant") == [
        {"id": 1, "vector": [1, 0], "payload": {}},
        {"id": 5, "vector": [5, 0], "payload": {}},
    ]


def test_a_patch_of_no_points_makes_no_version(books):
    before = books.version

    done = [
        books.set_payload({"a": 1}, ids=[77]),
        books.set_payload({"new column": 1}, filter="n > 1000"),
        books.delete_payload(["n"], ids=[]),
        books.delete_vectors("vector", ids=[78]),
    ]

    assert {(d.updated, d.version) for d in done} == {(0, before)}
    assert "new column" not in books.schema.payload


def test_a_patch_does_not_touch_the_vectors_nor_the_index(many):
    many.configure(full_scan_threshold=0, indexing_threshold=1)
    many.optimize()

    many.set_payload({"t": "new"}, filter="n < 1000")

    found = many.search([500, 0], limit=3, explain=True)
    assert found.plan.index == "vector_idx"
    assert sorted(ids(found)) == [499, 500, 501]
    assert many.count({"t": "new"}) == 1000


def test_update_vectors_keeps_the_payload(books):
    books.update_vectors([{"id": 1, "vector": [9, 9]}, vd.Point(2, [8, 8], {"ignored": 1})])
    books.update_vectors((np.array([3]), np.array([[7, 7]])))

    found = books.get([1, 2, 3], with_vectors=True).to_pylist(layout="qdrant")
    assert [p["vector"] for p in found] == [[9, 9], [8, 8], [7, 7]]
    assert found[1]["payload"] == {"n": 20, "t": "y"}


def test_update_vectors_of_a_point_that_is_not_there_writes_nothing(books):
    before = books.version

    with pytest.raises(vd.PointNotFoundError, match="no point 77"):
        books.update_vectors([{"id": 1, "vector": [9, 9]}, {"id": 77, "vector": [9, 9]}])

    assert books.version == before


def test_delete_vectors_takes_points_out_of_searches_only(books):
    books.delete_vectors("vector", filter="n <= 20")

    assert sorted(ids(books.search([0, 0]))) == [3, 4, 5]
    assert len(books) == 5


def test_one_of_several_vectors_can_be_replaced_or_deleted(url):
    both = vd.create(url, vectors={"text": VECTORS, "image": vd.VectorParams(1)})
    both.upsert([{"id": 1, "text": [1, 2], "image": [3], "a": 1}, {"id": 2, "text": [5, 6]}])

    both.update_vectors([{"id": 1, "image": [9]}])
    both.delete_vectors(["text"], ids=[1])

    assert both.get([1, 2], with_vectors=True).to_pylist(layout="qdrant") == [
        {"id": 1, "vector": {"image": [9]}, "payload": {"a": 1}},
        {"id": 2, "vector": {"text": [5, 6]}, "payload": {}},
    ]


def test_several_vectors_need_a_name_to_search(url):
    both = vd.create(url, vectors={"text": VECTORS, "image": vd.VectorParams(1)})
    both.upsert([{"id": 1, "text": [1, 2], "image": [3]}])

    with pytest.raises(vd.UnknownNameError, match="has 2 vectors"):
        both.search([1, 2])
    with pytest.raises(vd.UnknownNameError, match="'imgae'"):
        both.search([1], using="imgae")
    assert ids(both.search([1], using="image")) == [1]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.set_payload({7: 1}, ids=[1]), vd.InvalidInputError),
        (lambda c: c.set_payload({"a": object()}, ids=[1]), vd.InvalidInputError),
        (lambda c: c.delete_payload([7], ids=[1]), vd.InvalidInputError),
        (lambda c: c.set_payload({"a": 1}, ids=["one"]), vd.InvalidIdError),
        (lambda c: c.delete_vectors("txet", ids=[1]), vd.UnknownNameError),
        (lambda c: c.update_vectors([{"id": 1, "vector": [1, 2, 3]}]), vd.InvalidVectorError),
        (lambda c: c.update_vectors([{"vector": [1, 2]}]), vd.InvalidInputError),
        (lambda c: c.delete(ids="one"), vd.InvalidIdError),
    ],
)  # fmt: skip
def test_a_bad_patch_is_one_clear_error_and_nothing_is_written(books, call, error):
    before = books.version

    with pytest.raises(error):
        call(books)

    assert books.version == before


# -------------------------------------------------------------- stale handles, other writers


POINTS_OF_TWO = {1: {"n": 10, "t": "x", "tags": ["a", "b"]}}


def two_handles(url, **staleness):
    made = vd.create(url, vectors=VECTORS)
    made.upsert(POINTS[:1])
    return vd.open(url, **staleness), vd.open(url, **staleness)


def test_a_handle_sees_others_writes_at_once_on_a_local_disk(url):
    one, two = two_handles(url)

    one.upsert(POINTS)

    assert len(two) == 5
    assert ids(two.scroll()) == [1, 2, 3, 4, 5]


def test_a_handle_that_may_be_stale_sees_its_own_writes_at_once_and_others_when_refreshed(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)
    one.upsert(POINTS[:3])

    assert (len(one), len(two)) == (3, 1)
    assert len(two.refresh()) == 3


def test_a_handle_is_stale_for_as_long_as_it_was_told(url):
    one, two = two_handles(url, max_staleness_s=0.3)
    one.upsert(POINTS)
    time.sleep(0.4)

    assert len(two) == 5


def test_stale_handles_that_upsert_the_same_new_id_make_one_point(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)

    one.upsert([{"id": 9, "vector": [1, 1], "by": "one"}])
    two.upsert([{"id": 9, "vector": [2, 2], "by": "two"}])

    assert stored_ids(vd.open(url)) == [1, 9]
    assert payloads(vd.open(url))[9] == {"by": "two"}


def test_a_stale_handle_does_not_insert_an_id_twice(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)
    one.insert([{"id": 9, "vector": [1, 1]}])

    with pytest.raises(vd.PointExistsError, match="id 9"):
        two.insert([{"id": 8, "vector": [2, 2]}, {"id": 9, "vector": [2, 2]}])

    assert stored_ids(vd.open(url)) == [1, 9]


def test_a_column_added_by_another_writer_does_not_stop_a_stale_handle(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)
    one.upsert([{"id": 2, "vector": [2, 2], "new": "a"}])

    two.upsert([{"id": 3, "vector": [3, 3], "other": 1.5}, {"id": 4, "vector": [4, 4], "new": "b"}])

    found = payloads(vd.open(url))
    assert (found[2], found[3], found[4]) == ({"new": "a"}, {"other": 1.5}, {"new": "b"})


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 0.5), (0.5, 1), ("text", 1), (1, "text"), ([1], "text"), (2**53 + 1, 0.5), (True, 1), ({"a": 1}, 1)],
    ids=str,
)
def test_stale_handles_that_give_one_new_key_two_types_lose_nothing(url, first, second):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)

    one.upsert([vd.Point(2, [2, 2], {"new": first})])
    two.upsert([vd.Point(3, [3, 3], {"new": second})])
    one.set_payload({"new": second}, ids=[1])

    found = payloads(vd.open(url))
    assert [repr(found[i]["new"]) for i in (1, 2, 3)] == [repr(second), repr(first), repr(second)]


def test_a_stale_handle_patches_the_point_as_it_is_now(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)
    one.set_payload({"n": 11, "new": "kept"}, ids=[1])

    two.set_payload({"t": "two"}, ids=[1])

    assert payloads(vd.open(url))[1] == {"n": 11, "t": "two", "tags": ["a", "b"], "new": "kept"}


def test_a_stale_handle_does_not_bring_a_deleted_point_back(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)
    one.delete([1])

    assert two.set_payload({"t": "two"}, ids=[1]).updated == 0
    with pytest.raises(vd.PointNotFoundError):
        two.update_vectors([{"id": 1, "vector": [0, 0]}])

    assert len(vd.open(url)) == 0


def test_a_stale_handle_deletes_by_what_matches_now(url):
    one, two = two_handles(url, max_staleness_s=AN_HOUR)
    one.upsert(POINTS)

    assert two.delete(filter="t = 'x'").deleted == 2
    assert stored_ids(vd.open(url)) == [2, 4, 5]


@pytest.mark.parametrize("mine", [7, 2**53 + 1, "text", 0.25], ids=str)
def test_a_column_that_widens_between_the_schema_and_the_points_costs_one_more_try(url, monkeypatch, mine):
    one, two = two_handles(url)
    merge, waits = engine.Table.merge, []

    def merge_after_another_writer(self, *arguments, **options):
        monkeypatch.setattr(engine.Table, "merge", merge)
        two.upsert([vd.Point(2, [2, 2], {"n": 0.5})])
        return merge(self, *arguments, **options)

    monkeypatch.setattr(engine.Table, "merge", merge_after_another_writer)
    monkeypatch.setattr(engine, "back_off", waits.append)
    monkeypatch.setattr(writer, "back_off", waits.append)

    one.upsert([vd.Point(3, [3, 3], {"n": mine, "new": [mine]})])

    assert payloads(one) == {1: POINTS_OF_TWO[1], 2: {"n": 0.5}, 3: {"n": mine, "new": [mine]}}
    assert len(waits) <= 2


@pytest.mark.parametrize("number", [True, False], ids=["json", "typed"])
def test_a_column_left_in_the_middle_of_widening_is_read_as_before_and_finished_by_the_next_write(
    url, number
):
    books = vd.create(url, vectors=VECTORS)
    books.upsert(POINTS)
    copy = "n__widened_json" if number else "n__widened"
    books._reader.table.change(lambda dataset: dataset.add_columns({copy: "cast(n as double)"}))

    assert payloads(books)[1] == POINTS_OF_TWO[1]
    assert "n" in books.schema.payload
    assert not any("widened" in name for name in books.schema.payload)
    books.upsert([vd.Point(9, [9, 9], {"n": 7})])
    books.set_payload({"n": 8}, ids=[1])

    assert {i: p.get("n") for i, p in payloads(books).items()} == {1: 8, 2: 20, 3: 30, 4: None, 5: None, 9: 7}
    assert books.schema.payload["n"].type == pa.float64()
    assert not any("widened" in name or "narrowed" in name for name in books.to_lance().schema.names)


def test_keys_named_like_a_column_on_its_way_are_keys_like_any_other(books):
    payload = {"n__widened": 1, "n__widened_json": "a", "n__narrowed": [None]}
    books.upsert([vd.Point(9, [9, 9], payload)])
    books.upsert([vd.Point(10, [9, 9], {"n": 0.5})])

    assert payloads(books)[9] == payload
    assert ids(books.scroll(filter={"n__widened": 1})) == [9]


def test_two_stale_handles_that_write_the_first_points_agree_on_the_ids(url):
    vd.create(url, vectors=VECTORS)
    one, two = vd.open(url, max_staleness_s=AN_HOUR), vd.open(url, max_staleness_s=AN_HOUR)
    one.upsert([{"id": 1, "vector": [1, 1]}])

    with pytest.raises(vd.InvalidIdError, match="'text'"):
        two.upsert([{"id": "text", "vector": [2, 2]}])
    two.upsert([{"id": 2, "vector": [2, 2]}])

    assert stored_ids(vd.open(url)) == [1, 2]


# ----------------------------------------------------------------------- large batches


@pytest.fixture(scope="module")
def wide_batches():
    rng = np.random.default_rng(5)
    vectors = rng.random((95_000, 128), np.float32)
    return lambda start: (np.arange(start, start + 95_000), vectors)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["insert", "upsert"])
def test_a_batch_larger_than_the_merge_memory_of_lance_goes_in_beside_an_index_on_the_ids(
    tmp_path, wide_batches, verb
):
    wide = vd.create(tmp_path / "wide", vectors=vd.VectorParams(128, "Manhattan"), indexing_threshold=1)
    wide.upsert((range(1000), np.zeros((1000, 128))))
    wide.optimize()
    assert [i.name for i in wide.indexes] == ["id_idx"]

    done = getattr(wide, verb)(wide_batches(1000 if verb == "insert" else 500))

    assert done.inserted == (95_000 if verb == "insert" else 94_500)
    assert wide.count() == len(set(stored_ids(wide))) == 1000 + done.inserted


# -------------------------------------------------------------------------- small commits


@pytest.mark.slow
def test_small_commits_do_not_leave_small_fragments(books):
    for i in range(70):
        books.upsert([{"id": 100 + i, "vector": [i, i], "n": i}])
        assert books.info().fragments < 64

    assert len(books) == 75


@pytest.mark.slow
def test_four_hundred_single_upserts_leave_less_than_64_fragments_and_every_point(tmp_path):
    books = vd.create(tmp_path / "books", vectors=VECTORS)
    fragments = []
    for i in range(401):
        books.upsert([{"id": i, "vector": [i, i], "n": i}])
        fragments.append(books.info().fragments)

    assert max(fragments) < 64
    assert stored_ids(books) == list(range(401))
    assert books.search([400, 400], limit=2)["id"].to_pylist() == [400, 399]


def test_small_deletes_and_patches_do_not_leave_small_fragments(many):
    for i in range(80):
        many.set_payload({"n": -i}, ids=[i])
        many.delete([1000 + i])

    assert many.info().fragments < 64
    assert (len(many), many.count("n < 0")) == (1920, 79)


# -------------------------------------------------------------------------------- versions


def test_every_call_that_changes_something_is_one_version(books):
    calls = [
        lambda: books.upsert(POINTS),
        lambda: books.insert([{"id": 50 + i, "vector": [i, i]} for i in range(100)]),
        lambda: books.set_payload({"n": 1}, ids=[1]),
        lambda: books.overwrite_payload({"n": 1}, ids=[1]),
        lambda: books.delete_payload("n", ids=[1]),
        lambda: books.clear_payload(ids=[1]),
        lambda: books.update_vectors([{"id": 1, "vector": [0, 0]}]),
        lambda: books.delete_vectors("vector", ids=[1]),
        lambda: books.delete([1]),
        lambda: books.delete(filter="n > 20"),
    ]
    for call in calls:
        before = books.version
        assert call().version == books.version == before + 1


def test_an_older_version_shows_what_was_there(books):
    before = books.version
    books.delete([1, 2])
    books.upsert([{"id": 3, "vector": [0, 0], "new": 1}])

    then = books.at(before)

    assert payloads(then)[3] == {"n": 30, "t": "x", "tags": []}
    assert ids(then.search([0, 0])) == [1, 2, 3, 4, 5]
    assert "new" not in then.schema.payload
    assert vd.open(books.url, version=before).version == before
    assert then.at(then.version).version == before


def test_a_time_shows_the_version_of_then(books):
    before = books.version
    time.sleep(0.01)
    moment = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    books.delete([1])

    assert books.at(moment).version == before
    assert books.at(moment.replace(tzinfo=None)).version == before
    assert books.at(moment.astimezone(dt.timezone(dt.timedelta(hours=5)))).version == before
    assert books.at(dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).version == books.version


@pytest.mark.parametrize(
    ("version", "error"),
    [
        (0, vd.VersionNotFoundError),
        (-1, vd.VersionNotFoundError),
        (10_000, vd.VersionNotFoundError),
        ("no such snapshot", vd.VersionNotFoundError),
        (dt.datetime(2001, 1, 1, tzinfo=dt.UTC), vd.VersionNotFoundError),
        (True, vd.InvalidInputError),
        (1.0, vd.InvalidInputError),
        (None, vd.InvalidInputError),
    ],
    ids=str,
)
def test_a_version_that_is_not_there_is_one_clear_error(books, version, error):
    with pytest.raises(error):
        books.at(version)


def test_versions_lists_them_with_rows_and_operations(books):
    books.delete([1])

    listed = books.versions().to_pylist()

    assert [v["version"] for v in listed] == list(range(1, books.version + 1))
    assert (listed[-2]["rows"], listed[-1]["rows"], listed[-1]["operation"]) == (5, 4, "delete")
    assert all(v["created_at"].tzinfo is not None for v in listed)
    assert len(books.at(2).versions()) == 2


WRITES = {
    "insert": lambda c: c.insert(POINTS),
    "upsert": lambda c: c.upsert(POINTS),
    "upsert nothing": lambda c: c.upsert([]),
    "delete": lambda c: c.delete([1]),
    "delete by filter": lambda c: c.delete(filter="n > 1"),
    "set_payload": lambda c: c.set_payload({"n": 1}, ids=[1]),
    "overwrite_payload": lambda c: c.overwrite_payload({"n": 1}, ids=[1]),
    "delete_payload": lambda c: c.delete_payload("n", ids=[1]),
    "clear_payload": lambda c: c.clear_payload(ids=[1]),
    "update_vectors": lambda c: c.update_vectors([{"id": 1, "vector": [0, 0]}]),
    "delete_vectors": lambda c: c.delete_vectors("vector", ids=[1]),
    "create_index": lambda c: c.create_index("ivf_flat"),
    "create_payload_index": lambda c: c.create_payload_index("n"),
    "drop_index": lambda c: c.drop_index("vector_idx"),
    "optimize": lambda c: c.optimize(),
    "configure": lambda c: c.configure(full_scan_threshold=1),
}


@pytest.mark.parametrize("verb", WRITES)
def test_a_handle_on_a_version_is_read_only(books, verb):
    books.create_index("ivf_flat")
    then = books.at(books.version)
    assert then.read_only

    with pytest.raises(vd.ReadOnlyError, match=f"shows version {then.version}") as caught:
        WRITES[verb](then)

    assert isinstance(caught.value, PermissionError)
    assert vd.open(books.url).version == then.version


def test_a_handle_on_a_version_does_not_move(books):
    then = books.at(books.version)
    books.delete([1])

    assert (len(then), len(then.refresh()), len(books)) == (5, 5, 4)


def test_a_version_that_clean_up_removed_is_gone(books):
    before = books.version
    page = books.scroll(limit=2)
    books.upsert([{"id": 9, "vector": [0, 0]}])
    books._reader.table.clean_up(older_than=dt.timedelta(0))

    with pytest.raises(vd.VersionGoneError, match=f"version {before} .* has been cleaned up"):
        books.at(before)
    with pytest.raises(vd.VersionGoneError):
        books.scroll(offset=page.next_offset)
    assert len(books) == 6


# ---------------------------------------------------------------- settings, indexes, recall


def test_settings_are_stored_with_the_collection(url):
    vd.create(url, vectors=VECTORS, full_scan_threshold=70, indexing_threshold=80)
    vd.open(url).configure(indexing_threshold=90)

    info = vd.open(url).info()

    assert (info.full_scan_threshold, info.indexing_threshold) == (70, 90)


@pytest.mark.parametrize("value", [-1, 1.5, True, "10"])
@pytest.mark.parametrize("setting", ["full_scan_threshold", "indexing_threshold"])
def test_a_setting_that_makes_no_sense_is_refused(books, setting, value):
    before = books.version

    with pytest.raises(vd.InvalidInputError, match=setting):
        books.configure(**{setting: value})

    assert books.version == before


def test_optimize_builds_an_index_from_the_threshold_on(many):
    many.configure(indexing_threshold=2001, full_scan_threshold=2001)
    assert many.optimize().indexes == []

    many.upsert(line(1, start=2000))
    info = many.optimize()

    assert {(i.name, i.kind, i.on, i.rows, i.unindexed_rows) for i in info.indexes} == {
        ("vector_idx", "ivf_sq", "vector", 2001, 0),
        ("id_idx", "btree", "id", 2001, 0),
    }
    assert (info.indexed_rows, info.unindexed_rows) == (2001, 0)


def test_searches_are_exact_below_the_full_scan_threshold_and_indexed_from_it_on(many):
    many.create_index("ivf_flat")

    many.configure(full_scan_threshold=2001)
    assert many.search([5, 0], explain=True).plan.index is None
    many.configure(full_scan_threshold=2000)
    assert many.search([5, 0], explain=True).plan.index == "vector_idx"
    assert many.search([5, 0], exact=True, explain=True).plan.index is None
    assert many.search([5, 0], params={"exact": True}, explain=True).plan.index is None


def test_optimize_brings_new_points_into_the_index(many):
    many.configure(full_scan_threshold=0)
    many.create_index("ivf_flat")
    many.upsert(line(500, start=2000))
    assert many.info().unindexed_rows == 500
    assert ids(many.search([2400, 0], limit=1)) == [2400]

    many.optimize()

    assert (many.info().unindexed_rows, many.info().indexed_rows) == (0, 2500)
    assert ids(many.search([2400, 0], limit=1)) == [2400]


@pytest.mark.parametrize(
    ("distance", "kind"),
    [
        ("Euclid", "ivf_flat"),
        ("Euclid", "ivf_sq"),
        ("Euclid", "ivf_rq"),
        ("Euclid", "ivf_hnsw_sq"),
        ("Cosine", "ivf_sq"),
    ],
)
def test_optimize_keeps_recall_when_new_points_lie_far_from_the_old(distance, kind):
    rng = np.random.default_rng(6)
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(16, distance), full_scan_threshold=0)
    made.upsert((range(1000), rng.normal(size=(1000, 16))))
    made.create_index(kind)
    far = rng.normal(size=(200, 16)) + 10
    made.upsert((range(1000, 1200), far))

    made.optimize()

    found = made.search(far[:50], limit=1, explain=True)
    assert found.plan.index == "vector_idx"
    assert np.mean(found["id"].to_numpy() == np.arange(1000, 1050)) >= 0.95


def test_a_batch_under_a_filter_gives_what_single_searches_give():
    rng = np.random.default_rng(7)
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(16), full_scan_threshold=0)
    for start in (0, 6_000):  # the second part is not in the index
        ids = np.arange(start, start + 6_000)
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(rng.normal(size=6_000 * 16).astype(np.float32)), 16
        )
        made.upsert(pa.table({"id": ids.astype(np.uint64), "vector": vectors, "n": rng.permutation(ids)}))
        if not start:
            made.create_index("ivf_rq", num_partitions=8)
    made.delete(list(range(100, 200)))
    queries = rng.normal(size=(12, 16))

    for filter in ("n % 2 = 0", "n < 11000"):
        batch = made.search(queries, filter=filter, limit=5, explain=True)
        singles = [made.search(q, filter=filter, limit=5)["id"].to_pylist() for q in queries]

        assert batch.plan.index == "vector_idx"
        assert np.array(batch["id"].to_pylist()).reshape(12, 5).tolist() == singles


def test_optimize_reports_progress_up_to_one(many):
    many.configure(indexing_threshold=1)
    seen = []

    many.optimize(progress=seen.append)

    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_optimize_twice_changes_nothing_more(many):
    many.configure(indexing_threshold=1)
    first = many.optimize()

    second = many.optimize()

    assert (second.rows, len(second.indexes), second.fragments) == (
        first.rows,
        len(first.indexes),
        first.fragments,
    )


def test_optimize_of_an_empty_collection_does_nothing(url):
    empty = vd.create(url, vectors=VECTORS, indexing_threshold=0)

    assert empty.optimize().indexes == []
    assert empty.version == 2


def test_optimize_leaves_vectors_alone_that_no_point_has(many):
    many.configure(indexing_threshold=1)
    many.optimize()
    many.delete_vectors("vector", filter="id >= 0")

    many.optimize()
    many.drop_index("vector_idx")
    many.optimize()

    assert [i.name for i in many.indexes] == ["id_idx"]


def test_a_vector_declares_the_index_that_optimize_builds(url):
    params = {
        "a": vd.VectorParams(8, index="hnsw"), "b": vd.VectorParams(8, quantization="product"),
        "c": vd.VectorParams(8, quantization={"scalar": {"type": "int8"}}), "d": vd.VectorParams(8),
        "e": vd.VectorParams(8, "Manhattan"), "f": vd.VectorParams(8, quantization="binary"),
    }  # fmt: skip
    made = vd.create(url, vectors=params, indexing_threshold=10)
    rng = np.random.default_rng(0)
    made.upsert([vd.Point(i, {name: rng.normal(size=8) for name in params}) for i in range(30)])

    made.optimize()

    assert {i.on: i.kind for i in made.indexes} == {
        "a": "hnsw", "b": "ivf_pq", "c": "ivf_sq", "d": "ivf_rq", "f": "ivf_rq", "id": "btree",
    }  # fmt: skip


def test_an_index_is_replaced_by_the_next_one_over_the_vector(many):
    many.create_index("ivf_flat")
    many.create_index("ivf_hnsw_sq", m=8, ef_construction=50)

    assert [(i.name, i.kind, i.params) for i in many.indexes] == [
        ("vector_idx", "ivf_hnsw_sq", {"m": 8, "ef_construct": 50})
    ]


def test_a_dropped_index_leaves_exact_searches(many):
    many.configure(full_scan_threshold=0)
    many.create_index("ivf_flat")

    many.drop_index("vector_idx")

    assert many.search([5, 0], explain=True).plan.index is None
    assert many.indexes == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.create_index("ivf_flatt"), "ivf_flatt"),
        (lambda c: c.create_index("ivf_flat", m=3), "takes no 'm'"),
        (lambda c: c.create_index("hnsw", mm=3), "'mm'"),
        (lambda c: c.create_index("hnsw", m=1), "m is 1"),
        (lambda c: c.create_index("hnsw", preset="fastt"), "'fastt'"),
        (lambda c: c.create_index(using="txet"), "'txet'"),
        (lambda c: c.create_payload_index("nn"), "'nn'"),
        (lambda c: c.create_payload_index("n", "btre"), "'btre'"),
        (lambda c: c.drop_index("vector_ixd"), "'vector_ixd'"),
    ],
)
def test_an_index_that_makes_no_sense_is_one_clear_error(many, call, message):
    before = many.version

    with pytest.raises(vd.InvalidInputError, match=message):
        call(many)

    assert (many.version, many.indexes) == (before, [])


def test_an_empty_collection_has_nothing_to_index(url):
    with pytest.raises(vd.InvalidInputError, match="index yet"):
        vd.create(url, vectors=VECTORS).create_index("ivf_flat")


def test_a_payload_index_changes_no_answer_whatever_is_written_afterwards(books):
    for key, kind in (("n", "btree"), ("t", "bitmap"), ("tags", "label_list")):
        assert books.create_payload_index(key).on == key
        assert books.create_payload_index(key, kind).kind == kind
    books.set_payload({"n": 99, "t": "new", "tags": ["c"]}, ids=[1, 2])
    books.optimize()
    books.upsert([{"id": 9, "vector": [0, 0], "n": 0.5, "t": 7, "tags": "none"}])
    books.optimize()

    assert ids(books.scroll(filter="n = 99")) == [1, 2]
    assert ids(books.scroll(filter="n < 20")) == [9]
    assert ids(books.scroll(filter={"t": "x"})) == [3]
    assert ids(books.scroll(filter={"t": 7})) == [9]
    assert ids(books.scroll(filter={"must": [{"key": "tags", "match": {"value": "c"}}]})) == [1, 2]


@pytest.mark.parametrize("matches", [1, 7, 40, 1000])
@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_sq", "hnsw"])
def test_a_filter_finds_exactly_k_hits_whenever_k_points_match(many, kind, matches):
    many.create_index(kind)
    many.configure(full_scan_threshold=0)

    found = many.search([1990, 0], limit=40, filter=f"n < {matches}")

    assert ids(found) == sorted(range(matches), reverse=True)[:40]


def test_recall_is_one_where_searches_are_exact(many):
    exact = many.recall(k=5, sample=20)

    assert (exact.value, exact.k, exact.sample, exact.index) == (1.0, 5, 20, None)
    assert float(exact) == 1.0


def test_recall_names_the_index_and_tells_a_bad_one_from_a_good_one():
    rng = np.random.default_rng(4)
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(16), full_scan_threshold=0)
    made.upsert((range(2000), rng.normal(size=(2000, 16))))
    made.create_index("ivf_flat", num_partitions=64)

    good = made.recall(k=10, sample=50, params={"nprobes": 64})
    bad = made.recall(k=10, sample=50, params={"nprobes": 1})

    assert good.index == bad.index == "vector_idx"
    assert good.value == 1.0
    assert 0.0 < bad.value < 0.9


def test_recall_of_an_empty_collection_is_one(url):
    assert vd.create(url, vectors=VECTORS).recall().value == 1.0


# ------------------------------------------------------------------- results and what is shown


def test_results_are_frames_of_every_kind(books):
    found = books.scroll(columns=["n"])

    assert found.to_polars().equals(polars.DataFrame(found))
    assert isinstance(found.to_pandas(), pandas.DataFrame)
    assert pa.table(found).equals(found.to_arrow())
    assert [row["id"] for row in found] == ids(found)
    assert found.schema.names == found.column_names == ["id", "n"]
    with pytest.raises(vd.UnknownNameError, match="'nn'"):
        found["nn"]


def test_a_collection_is_an_arrow_stream_of_its_points(books):
    table = pa.table(books)

    assert sorted(ids(table)) == [1, 2, 3, 4, 5]
    assert {"id", "vector", "n", "t", "tags"} <= set(table.column_names)
    assert books.to_arrow().equals(table)
    assert books.to_polars().height == len(books.to_pandas()) == 5
    assert books.scan(columns=["n"], with_vectors=False).read_all().column_names == ["id", "n"]


def test_iter_batches_is_one_version_in_bounded_batches(many):
    batches = many.iter_batches(columns=["n"], batch_rows=300)
    first = next(batches)
    many.delete(filter="n >= 0")

    rest = list(batches)

    assert first.num_rows <= 300
    assert first.num_rows + sum(b.num_rows for b in rest) == 2000


def test_a_result_shows_itself_as_text_and_as_html_with_everything_escaped(books):
    books.upsert([{"id": 9, "vector": [0, 0], "t": "<script>alert(1)</script>"}])

    found = books.get(9)

    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()
    assert "<script>" not in books._repr_html_()
    assert repr(found).startswith("Frame(1 rows: id")


def test_a_handle_is_one_line_with_name_rows_and_version(books):
    assert repr(books) == f"<Collection 'books': 5 points, version {books.version}>"
    assert repr(books.at(1)) == "<Collection 'books': 0 points, version 1, read-only>"


def test_info_tells_what_is_there(books):
    info = books.info()

    assert (info.name, info.rows, info.id_type, info.version) == ("books", 5, "uint64", books.version)
    assert info.payload == {
        "n": "int64",
        "t": "string",
        "tags": "list<item: string>",
        "mixed": info.payload["mixed"],
    }
    assert info.vectors == {"": {"size": 2, "distance": "Euclid", "datatype": "float32"}}
    assert info.size_bytes > 0
    assert "5" in str(info)
    assert info.to_dict()["rows"] == 5


def test_a_write_tells_what_it_did(books):
    done = books.upsert(
        [{"id": 9, "vector": [0, 0]}, {"id": 1, "vector": [0, 0]}, {"id": 9, "vector": [1, 1]}]
    )

    assert repr(done) == f"WriteResult(version={books.version}, inserted=1, updated=1, deleted=0)"
    assert sorted(done.ids.to_pylist()) == [1, 9]


def test_explain_tells_how_a_search_ran(many):
    many.create_index("ivf_flat")
    many.configure(full_scan_threshold=0)

    plan = many.search([5, 0], filter="n < 100", explain=True).plan
    exact = many.search([5, 0], exact=True, explain=True).plan

    assert (plan.strategy, plan.index, plan.kind, plan.filter, plan.matched) == (
        "index", "vector_idx", "ivf_flat", "sql", 100,
    )  # fmt: skip
    assert (exact.strategy, exact.index, exact.rows_scanned, exact.rows) == ("exact", None, 2000, 2000)
    assert plan.elapsed_ms > 0
    assert "vector_idx" in str(plan)
    assert many.search([5, 0]).plan is None


def test_a_collection_is_a_context_manager(url):
    with vd.create(url, vectors=VECTORS) as books:
        books.upsert(POINTS)

    assert len(vd.open(url)) == 5
