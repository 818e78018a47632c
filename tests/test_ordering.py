"""Scrolling in the order of a payload value: nulls, arrays, paths, mixed numbers, pages."""

import itertools
import random
import uuid

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset.filters.qdrant import parse_path
from vecdataset.filters.tree import values_at

RNG = random.Random(41)


def some_value(*, arrays=True):
    roll = RNG.random()
    if roll < 0.15:
        return None
    if arrays and roll < 0.4:
        return [RNG.choice([None, RNG.randrange(30)]) for _ in range(RNG.randrange(4))]
    return RNG.choice([RNG.randrange(30), RNG.randrange(300) / 10])


def some_payload():
    payload = {
        "mixed": some_value(),
        "whole": RNG.choice([None, RNG.randrange(40)]),
        "word": RNG.choice([None, "", "a", "b", "Ä", "zz"]),
        "words": [RNG.choice(["a", "b", "c"]) for _ in range(RNG.randrange(3))],
        "o": {
            "n": some_value(arrays=False),
            "rows": [{"n": RNG.randrange(9)} for _ in range(RNG.randrange(3))],
        },
    }
    return {k: v for k, v in payload.items() if RNG.random() < 0.85}


PAYLOADS = [some_payload() for _ in range(200)]
KEYS = ["mixed", "whole", "word", "words", "o.n", "o.rows[].n"]


@pytest.fixture(scope="module")
def points():
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(2))
    for start in range(0, 200, 50):
        part = [{"id": i, "vector": [1, i], "payload": PAYLOADS[i]} for i in range(start, start + 50)]
        made.upsert(part, layout="qdrant")
    return made


def expected(key, *, descending=False, start=None, keep=lambda _: True):
    """Return ids in order, by the rules of Qdrant in plain Python."""
    rows = []
    for i, payload in enumerate(PAYLOADS):
        for value in values_at(payload, parse_path(key)):
            each = value if isinstance(value, list) else [value]
            rows += [(one, i) for one in each if one is not None and keep(i)]
    rows.sort(key=lambda r: r[1])
    rows.sort(key=lambda r: r[0], reverse=descending)
    return [i for v, i in rows if start is None or (v <= start if descending else v >= start)]


def pages(collection, **options):
    page = collection.scroll(**options)
    yield page["id"].to_pylist()
    while page.next_offset is not None:
        page = collection.scroll(**options, offset=page.next_offset)
        yield page["id"].to_pylist()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_each_value_stands_once_and_points_without_one_not_at_all(points, key, direction):
    found = points.scroll(limit=1_000, order_by={"key": key, "direction": direction})

    assert found["id"].to_pylist() == expected(key, descending=direction == "desc")
    assert found.next_offset is None


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "filter", [None, "id < 120", {"must_not": [{"key": "mixed", "match": {"value": 3}}]}]
)
def test_pages_fit_together(points, key, filter):
    whole = points.scroll(limit=1_000, order_by=key, filter=filter)["id"].to_pylist()
    parts = list(pages(points, limit=17, order_by=key, filter=filter))

    assert list(itertools.chain(*parts)) == whole
    assert all(len(p) == 17 for p in parts[:-1])


@pytest.mark.parametrize(("key", "start"), [("mixed", 12.5), ("whole", 20), ("word", "b"), ("o.n", 3)])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_an_order_starts_from_a_value_and_its_ties(points, key, start, direction):
    order = {"key": key, "direction": direction, "start_from": start}

    found = points.scroll(limit=1_000, order_by=order)["id"].to_pylist()

    assert found == expected(key, descending=direction == "desc", start=start)


def test_a_filter_that_is_decided_row_by_row_is_ordered_too(points):
    spec = {"must": [{"key": "o.rows[].n", "range": {"gte": 4}}]}
    parsed = vd.Filter(spec)

    found = points.scroll(limit=1_000, order_by="whole", filter=spec)["id"].to_pylist()

    assert found == expected("whole", keep=lambda i: parsed.matches({"id": i, "payload": PAYLOADS[i]}))


def test_columns_of_frames_are_ordered():
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(2))
    made.upsert(pa.table({
        "id": pa.array([1, 2, 3], pa.uint64()),
        "vector": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
        "at": pa.array([3, None, 1], pa.timestamp("us", "UTC")),
        "days": pa.array([[2, 1], [None], None], pa.list_(pa.date32())),
    }))  # fmt: skip

    assert made.scroll(order_by="at")["id"].to_pylist() == [3, 1]
    assert made.scroll(order_by={"key": "days", "direction": "desc"})["id"].to_pylist() == [1, 1]
    start = {"key": "at", "start_from": "1970-01-01T00:00:00.000002Z"}
    assert made.scroll(order_by=start)["id"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        ("wohle", vd.UnknownNameError, "'wohle'"),
        ("o", vd.NotSupportedError, "holds objects"),
        ({"key": "whole", "start_from": "x"}, vd.InvalidInputError, "starts from 'x'"),
        ({"key": "whole", "direction": "up"}, vd.InvalidInputError, "direction is 'up'"),
        ({"kye": "whole"}, vd.InvalidInputError, "order_by is"),
        (3, vd.InvalidInputError, "order_by is 3"),
        ("whole[", vd.InvalidInputError, "no path"),
    ],
)
def test_an_order_that_makes_no_sense_is_one_clear_error(points, order, error, words):
    with pytest.raises(error, match=words.replace("[", r"\[")):
        points.scroll(order_by=order)


def test_an_order_agrees_with_the_engine(tmp_path):
    engine = pytest.importorskip(
        "qdrant_engine", reason="qdrant-edge-py is not installed", exc_type=ImportError
    )
    given = engine.some_points(7, 300, 4)
    theirs = engine.Engine(tmp_path / "edge", given, 4)
    made = vd.create(f"memory://{uuid.uuid4()}", vectors={d: vd.VectorParams(4, d) for d in engine.DISTANCES})
    made.upsert(given, layout="qdrant")
    values = {p["id"]: p["payload"] for p in given}
    for key, direction in itertools.product(["n", "price", "when", "ranks"], ["asc", "desc"]):
        order = {"key": key, "direction": direction}
        found = [i for i, _ in theirs.query({"query": {"order_by": order}, "limit": 1_000})]
        ours = made.scroll(limit=1_000, order_by=order)["id"].to_pylist()

        # Ties stand in any order there: compare what they are ordered by.
        assert sorted(ours) == sorted(found), order
        if key != "ranks":
            assert [values[i][key] for i in ours] == [values[i][key] for i in found], order
    assert len(set(np.unique(found))) < len(found)
