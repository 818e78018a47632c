"""5,000 random filters from a fixed seed: `Filter.matches`, Qdrant's engine and its client's local mode agree.

Where local mode is known to differ from the engine, by name below, the engine is right and asked alone.
"""

import json

import pytest
from filter_cases import CLAUSES, CONDITIONS, FilterCases
from test_filters_qdrant import Engine, LocalMode, matched

SEED = 20_261
CASES = 5_000
LOCAL_POINTS = 100
"""Of 250: local mode is slow."""

ORACLES_DISAGREE = {
    "a vowel sign is part of a word for the engine, and the end of one for local mode": (
        ("\\u0928", "\\u0926"),
        {"must": [{"key": "a", "match": {"text": "\u0926\u0941\u0928\u093f\u092f\u093e"}}]},
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941 \u0928\u093f\u092f\u093e",
    ),
    "integers beyond 2**53 are compared as doubles by the engine, and exactly by local mode": (
        ("e+300", "e+18", "e+15", "900719925474099", "92233720368547758"),
        {"must": [{"key": "a", "range": {"gt": float(2**53)}}]},
        2**53 + 1,
    ),
    "dates with one digit, with spaces or without seconds are read by the engine, and not by local mode": (
        ("0:0", ":00.5", '" 2023'),
        {"must": [{"key": "a", "range": {"gte": "2024-1-1 0:0"}}]},
        "2024-01-02",
    ),
}
"""Name → marks of it in a filter's JSON, and an example: a filter, and a value that it is asked about."""


def disagreement(spec):
    text = json.dumps(spec)
    return next(
        (name for name, (marks, _, _) in ORACLES_DISAGREE.items() if any(m in text for m in marks)), None
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(str(tmp_path_factory.mktemp("engine")))


@pytest.fixture(scope="module")
def local():
    mode = LocalMode(LOCAL_POINTS)
    yield mode
    mode.client.close()


def run(cases, engine, local, count):
    """Return filters that somebody answers differently, how many both were asked, and how many found some."""
    wrong, both, filled = [], 0, 0
    for _ in range(count):
        spec = cases.draw()
        ours = matched(spec)
        filled += 0 < len(ours) < 250
        if engine.found(spec) != ours:
            wrong.append(("engine", spec))
        if disagreement(spec) is None:
            both += 1
            if local.found(spec) != [i for i in ours if i < LOCAL_POINTS]:
                wrong.append(("local mode", spec))
    return wrong, both, filled


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_5000_filters_match_what_both_oracles_find(engine, local):
    cases = FilterCases(SEED)

    wrong, both, filled = run(cases, engine, local, CASES)

    assert wrong == []
    assert both > CASES * 0.6, "most filters are compared with both"
    assert filled > CASES / 4, "most filters say something"
    assert sum(n for depth, n in cases.depths.items() if depth >= 3) > CASES / 2
    assert min(cases.drawn[kind] for kind in (*CONDITIONS, *CLAUSES)) > 250, cases.drawn


def test_some_filters_match_what_both_oracles_find(engine, local):
    cases = FilterCases(SEED + 1)

    wrong, both, filled = run(cases, engine, local, 60)

    assert wrong == []
    assert min(both, filled) > 10


@pytest.mark.parametrize("name", ORACLES_DISAGREE)
def test_the_oracles_still_disagree(name, tmp_path):
    """As long as this holds, local mode cannot be asked about such filters."""
    edge = pytest.importorskip("qdrant_edge", reason="the engine comes with the extra 'qdrant'")
    client = pytest.importorskip("qdrant_client", reason="the local mode comes with qdrant-client")
    _, spec, value = ORACLES_DISAGREE[name]
    payload = {"a": value}
    config = edge.EdgeConfig(
        vectors={"v": edge.EdgeVectorParams(size=2, distance=edge.Distance.Dot)}, wal_enabled=False
    )
    shard = edge.EdgeShard.create(str(tmp_path), config)
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(1, {"v": [1.0, 2.0]}, payload)]))
    own = Engine.__new__(Engine)
    own.q, own.shard = edge, shard
    models = client.models
    mode = client.QdrantClient(":memory:")
    mode.create_collection("c", {"v": models.VectorParams(size=2, distance=models.Distance.DOT)})
    mode.upsert("c", [models.PointStruct(id=1, vector={"v": [1.0, 2.0]}, payload=payload)])
    try:
        theirs = [p.id for p in mode.scroll("c", scroll_filter=models.Filter.model_validate(spec))[0]]
    except ValueError:
        theirs = None  # not even a date, for its models
    mode.close()

    assert own.found(spec) != theirs
    assert disagreement(spec) == name
