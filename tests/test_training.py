"""When an index is trained anew: rows that came in since are counted, and those far from the old ones."""

import json
import uuid

import numpy as np
import pytest

import vecdataset as vd

SIZE = 16


def normal(seed, rows, *, shift=5.0):
    return (np.random.default_rng(seed).normal(size=(rows, SIZE)) + shift).astype(np.float32)


@pytest.fixture(params=["Euclid", "Dot", "Cosine"])
def trained(request):
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(SIZE, request.param))
    made.upsert((range(1_000), normal(1, 1_000)))
    made.create_index("ivf_sq")
    return made


def training(collection):
    return json.loads(collection.to_lance().config()["vecdataset.trained.vector_idx"])


def test_an_index_remembers_what_it_was_trained_on(trained):
    found = training(trained)

    assert (found["rows"], found["added"], found["outside"]) == (1_000, 0, 0)
    assert len(found["low"]) == len(found["high"]) == 17


def test_new_points_among_the_old_ones_are_added(trained):
    for step in range(3):
        trained.upsert((range(2_000 + step * 100, 2_100 + step * 100), normal(2 + step, 100)))
        trained.optimize()

    found = training(trained)
    assert (found["rows"], found["added"]) == (1_000, 300)
    assert found["outside"] <= 3


def test_as_many_points_as_before_train_it_anew(trained):
    trained.upsert((range(2_000, 2_600), normal(2, 600)))
    trained.optimize()
    trained.upsert((range(400), normal(3, 400)))  # replaced points are new to the index, too

    trained.optimize()

    assert (training(trained)["rows"], training(trained)["added"]) == (1_600, 0)


def test_a_twentieth_of_far_points_trains_it_anew(trained):
    trained.upsert((range(2_000, 2_100), normal(2, 100, shift=-20)))

    trained.optimize()

    assert training(trained)["rows"] == 1_100


def test_far_points_that_come_in_small_steps_are_added_up(trained):
    rows = []
    for step in range(4):
        trained.upsert((range(2_000 + step * 20, 2_020 + step * 20), normal(2 + step, 20, shift=-20)))
        trained.optimize()
        rows.append(training(trained)["rows"])

    assert rows == [1_000, 1_000, 1_060, 1_060]


def test_optimize_without_new_points_commits_no_count(trained):
    trained.optimize()
    before = trained.version

    trained.optimize()

    assert (training(trained)["added"], trained.version) == (0, before)


def test_the_kind_and_its_params_stay():
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=vd.VectorParams(SIZE))
    made.upsert((range(500), normal(1, 500)))
    made.create_index("ivf_hnsw_sq", m=8, ef_construct=40)
    made.upsert((range(500, 1_000), normal(2, 500)))

    made.optimize()

    (index,) = made.indexes
    assert (index.kind, dict(index.params), index.unindexed_rows) == (
        "ivf_hnsw_sq", {"m": 8, "ef_construct": 40}, 0,
    )  # fmt: skip
    assert training(made)["rows"] == 1_000


def test_an_index_of_an_older_version_is_taken_as_trained_on_what_it_covers(trained):
    trained.to_lance().delete_config_keys(["vecdataset.trained.vector_idx"])
    trained.upsert((range(2_000, 2_100), normal(2, 100)))

    trained.optimize()

    assert (training(trained)["rows"], training(trained)["added"]) == (1_000, 100)


def test_a_dropped_index_is_forgotten(trained):
    trained.drop_index("vector_idx")

    assert "vecdataset.trained.vector_idx" not in trained.to_lance().config()


def test_points_without_the_vector_do_not_count():
    declared = {"a": vd.VectorParams(SIZE), "b": vd.VectorParams(SIZE)}
    made = vd.create(f"memory://{uuid.uuid4()}", vectors=declared)
    vectors = normal(1, 400)
    made.upsert([{"id": i, "vector": {"a" if i % 2 else "b": v.tolist()}} for i, v in enumerate(vectors)])
    made.create_index("ivf_flat", using="a")
    made.upsert(
        [{"id": 1_000 + i, "vector": {"b": v.tolist()}} for i, v in enumerate(normal(2, 300, shift=-50))]
    )

    made.optimize()

    found = json.loads(made.to_lance().config()["vecdataset.trained.a__vector_idx"])
    assert (found["rows"], found["added"], found["outside"]) == (200, 0, 0)
