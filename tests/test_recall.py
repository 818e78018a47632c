"""Recall of every index kind on real text embeddings, as it is by default, with and without filters.

20,000 Debian packages, 60 questions, the ten nearest. The truth is NumPy's. `full_scan_threshold` is 0
and the plan must name the index, so that the index is what is measured.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import vecdataset as vd
from vecdataset.indexes import kinds

pytestmark = pytest.mark.slow

K = 10
LEAST = 0.95
KINDS = [kind.name for kind in kinds]
SHARES = [0.001, 0.01, 0.1, 0.5]
COLUMNS = ["id", "name", "section", "installed_size_kb", "download_bytes", "depends", "embedding"]


@pytest.fixture(scope="module")
def packages():
    return pq.read_table(data_folder() / "debian-packages-20k.parquet", columns=COLUMNS)


@pytest.fixture(scope="module")
def questions():
    return matrix(pq.read_table(data_folder() / "questions.parquet")["embedding"])


def data_folder():
    folder = os.environ.get("VECDATASET_TEST_DATA")
    if not folder:
        pytest.skip("VECDATASET_TEST_DATA names no folder with debian-packages-20k.parquet")
    return Path(folder)


def matrix(column):
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1).astype(np.float32)


@pytest.fixture(scope="module")
def collection(packages, tmp_path_factory):
    made = vd.create(
        tmp_path_factory.mktemp("recall") / "packages", vectors=vd.VectorParams(384), full_scan_threshold=0
    )
    made.upsert(packages, vectors={"": "embedding"})
    return made


@pytest.fixture(scope="module", params=KINDS)
def indexed(request, collection):
    """The collection with one kind after the other."""
    collection.create_index(request.param)
    return request.param, collection


@pytest.fixture(scope="module")
def similarities(packages, questions):
    vectors = matrix(packages["embedding"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return questions / np.linalg.norm(questions, axis=1, keepdims=True) @ vectors.T


def recall(found, similarities, inside):
    """The mean share of the true ten that were found; who ties with the tenth is one of them."""
    index, score = found["query_index"].to_numpy(), found["score"].to_numpy()
    shares = []
    for at, own in enumerate(similarities):
        tenth = np.sort(own[inside])[-K]
        shares.append((score[index == at] >= tenth - 1e-5).sum() / K)
    return float(np.mean(shares))


def assert_recall(indexed, questions, similarities, packages, inside, record_property, **arguments):
    kind, collection = indexed

    found = collection.search(questions, limit=K, columns=[], explain=True, **arguments)

    value = recall(found, similarities, inside)
    record_property("recall", value)
    print(f"{kind}: recall@{K} {value:.4f} with {inside.sum():,} of {inside.size:,} rows")  # noqa: T201
    assert (found.plan.index, found.plan.kind) == ("vector_idx", kind)
    assert np.bincount(found["query_index"].to_numpy()).tolist() == [K] * len(questions)
    assert np.isin(found["id"].to_numpy(), packages["id"].to_numpy()[inside]).all()
    assert value >= LEAST


def test_recall_by_default(indexed, questions, similarities, packages, record_property):
    inside = np.ones(packages.num_rows, bool)

    assert_recall(indexed, questions, similarities, packages, inside, record_property)


@pytest.mark.parametrize("share", SHARES)
def test_recall_with_a_filter_that_lets_a_share_through(
    indexed, questions, similarities, packages, record_property, share
):
    sizes = packages["download_bytes"].to_numpy()
    bound = int(np.sort(sizes)[round(share * len(sizes))])
    inside = sizes < bound
    assert inside.mean() == pytest.approx(share, rel=0.06)

    assert_recall(
        indexed,
        questions,
        similarities,
        packages,
        inside,
        record_property,
        filter=f"download_bytes < {bound}",
    )


@pytest.mark.parametrize("section", ["python", "math", "libs"])
def test_recall_with_a_filter_that_goes_with_the_meaning(
    indexed, questions, similarities, packages, record_property, section
):
    inside = pc.equal(packages["section"], section).to_numpy()

    assert_recall(
        indexed, questions, similarities, packages, inside, record_property, filter={"section": section}
    )


def test_recall_of_single_questions(indexed, questions, similarities, packages):
    kind, collection = indexed
    inside = np.ones(packages.num_rows, bool)

    values = [
        recall(collection.search(question, limit=K, columns=[]), similarities[[at]], inside)
        for at, question in enumerate(questions)
    ]

    assert np.mean(values) >= LEAST, kind


def test_the_collection_measures_the_same_recall(indexed):
    kind, collection = indexed

    own = collection.recall(k=K, sample=100)

    assert own.index == "vector_idx"
    assert own.value >= LEAST, kind
