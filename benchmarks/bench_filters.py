"""Filters by an index against the same filters without one, over 100,000 places.

pytest benchmarks/bench_filters.py --benchmark-enable -s
"""

import itertools

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from benchmarks.bench_overhead import interleaved, report

ROWS = 100_000
BERLIN = {"lat": 52.5, "lon": 13.4}


def box(north, west, south, east):
    return {
        "geo_bounding_box": {
            "top_left": {"lat": north, "lon": west},
            "bottom_right": {"lat": south, "lon": east},
        }
    }


# Another shape each time, by a hair: counts are remembered.
SHAPES = {
    "box of one degree": lambda i: box(53 + i * 1e-9, 13, 52, 14),
    "radius of 50 km": lambda i: {"geo_radius": {"center": BERLIN, "radius": 50_000 + i * 1e-6}},
    "box of nearly everything": lambda i: box(80 + i * 1e-9, -170, -80, 170),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Return two collections of the same places: with an index of them, and without."""
    rng = np.random.default_rng(9)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, ROWS)))
    place = pa.StructArray.from_arrays(
        [pa.array(lat), pa.array(rng.uniform(-180, 180, ROWS))], ["lat", "lon"]
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(ROWS * 2, np.float32)), 2)
    table = pa.table({"id": pa.array(np.arange(ROWS), pa.uint64()), "vector": vectors, "place": place})
    made = []
    for name in ("indexed", "plain"):
        collection = vd.create(tmp_path_factory.mktemp("places") / name, vectors=vd.VectorParams(2))
        collection.insert(table)
        made.append(collection)
    made[0].create_payload_index("place", "geo")
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_places(benchmark, places, shape):
    """Counts; an index of places is not asked where it does not pay."""
    indexed, plain = places
    turn = itertools.count()

    def count(collection):
        return collection.count({"must": [{"key": "place", **SHAPES[shape](next(turn))}]})

    assert count(indexed) == count(plain)
    a, b = interleaved(lambda: count(plain), lambda: count(indexed), 40)
    benchmark.pedantic(lambda: count(indexed), rounds=5)
    report(benchmark, shape, a, b, most=1.5)
