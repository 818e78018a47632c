"""Relevance of vector, text and hybrid search: NDCG@10 over the labelled questions, and milliseconds.

The labels (`relevance/labels.json`) were committed before this file; packages without tags are not
judged, so every search is filtered to those with tags. Everything runs with the library's defaults.

    VECDATASET_TEST_DATA=… pytest benchmarks/bench_hybrid.py --benchmark-enable -s -p no:cacheprovider
"""

import json
import math
import os
import statistics
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import vecdataset as vd

JUDGED = {"must": [{"key": "tags", "values_count": {"gt": 0}}]}
COLUMNS = ["name", "summary", "description"]


def ndcg(found, relevant, k=10):
    gained = sum(1 / math.log2(rank + 2) for rank, i in enumerate(found[:k]) if i in relevant)
    return gained / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))


@pytest.fixture(scope="module")
def data():
    folder = os.environ.get("VECDATASET_TEST_DATA")
    if not folder:
        pytest.skip("VECDATASET_TEST_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="module")
def packages(data, tmp_path_factory):
    collection = vd.create(tmp_path_factory.mktemp("hybrid") / "packages", vectors=vd.VectorParams(384))
    table = pq.read_table(data / "debian-packages-20k.parquet", columns=["id", *COLUMNS, "tags", "embedding"])
    collection.insert(table, vectors={"": "embedding"})
    for column in COLUMNS:
        collection.create_payload_index(column, "text")
    return collection


@pytest.fixture(scope="module")
def questions(data):
    table = pq.read_table(data / "questions.parquet")
    vectors = dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    labels = json.loads(Path(__file__).with_name("relevance").joinpath("labels.json").read_text())
    return [(q["question"], vectors[q["id"]], set(q["relevant"])) for q in labels]


def alone(**options):
    return lambda c, text, _: c.text(text, filter=JUDGED, with_payload=False, **options)


def fused(fusion):
    return lambda c, text, vector: c.hybrid(vector, text=text, fusion=fusion, filter=JUDGED, columns=[])


METHODS = {
    "vector alone": lambda c, _, vector: c.search(vector, filter=JUDGED, columns=[]),
    "text alone, best column": alone(),
    "text alone, columns blended": alone(combine="blend"),
    **{f"hybrid {fusion}": fused(fusion) for fusion in ("rrf", "rsf", "dbsf")},
}


@pytest.mark.parametrize("method", METHODS)
def test_relevance(benchmark, packages, questions, method):
    values, times = [], []
    for text, vector, relevant in questions:
        started = time.perf_counter()
        hits = METHODS[method](packages, text, vector)
        times.append(time.perf_counter() - started)
        values.append(ndcg(hits["id"].to_pylist(), relevant))
    text, vector, _ = questions[0]
    benchmark.pedantic(lambda: METHODS[method](packages, text, vector), rounds=20)
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    benchmark.extra_info.update(ndcg_at_10=mean, standard_error=error, per_question=values)
    print(f"\n{method}: NDCG@10 {mean:.3f} ± {error:.3f}, median {statistics.median(times) * 1e3:.1f} ms")

    assert 0 < mean < 1
