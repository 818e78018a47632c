"""Data that several benchmarks share: 100,000 x 128 clustered float32, with three payload columns."""

import numpy as np
import pyarrow as pa
import pytest

ROWS, SIZE = 100_000, 128


def points(ids, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((256, SIZE)).astype(np.float32)
    vectors = centres[rng.integers(0, 256, len(ids))]
    vectors += 0.4 * rng.standard_normal((len(ids), SIZE), dtype=np.float32)
    return pa.table(
        {
            "id": pa.array(ids, pa.uint64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), SIZE),
            "price": rng.random(len(ids)),
            "name": [f"item {i}" for i in ids],
            "stock": rng.integers(0, 1000, len(ids)),
        }
    )


@pytest.fixture(scope="session")
def table():
    return points(np.arange(ROWS), seed=1)


@pytest.fixture(scope="session")
def queries():
    return points(np.arange(64), seed=2)["vector"].combine_chunks().flatten().to_numpy().reshape(-1, SIZE)
