"""A handle that holds its collection in memory answers as one that does not, and as freshly."""

import sys
import threading
import warnings

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
import vecdataset.query
import vecdataset.reader

ROWS = 600


def some_points(start, count, seed):
    rng = np.random.default_rng(seed)
    points = []
    for n in range(start, start + count):
        vector = {
            "text": np.round(rng.standard_normal(8), 1).tolist(),
            "image": np.round(rng.standard_normal(4), 1).tolist(),
            "spread": np.round(rng.standard_normal(3), 1).tolist(),
            "inner": rng.standard_normal(5).tolist(),
            "tokens": rng.standard_normal((int(rng.integers(1, 4)), 4)).tolist(),
            "words": {"indices": sorted({int(i) for i in rng.integers(0, 30, 4)}), "values": []},
        }
        vector["words"]["values"] = [1.0] * len(vector["words"]["indices"])
        if n % 5 == 0:
            del vector["image"]
        payload = {
            "n": int(rng.integers(0, 9)),
            "price": float(rng.random()),
            "lang": str(rng.choice(["de", "en", "fr"])),
            "tags": [str(t) for t in rng.choice(["a", "b", "c"], int(rng.integers(0, 3)))],
            "at": {"lat": float(rng.integers(-80, 80)), "lon": float(rng.integers(-170, 170))},
            "note": ["some red shoes", "a blue hat", "red hats, and shoes"][n % 3],
        }
        if n % 7 == 0:
            payload["lang"] = 5  # of another type: stays in `_extra`
        if n % 4 == 0:
            del payload["price"]
        points.append(vd.Point(n, vector, payload))
    return points


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("warm") / "things")
    made = vd.create(
        path,
        vectors={
            "text": vd.VectorParams(8, "Cosine"),
            "image": vd.VectorParams(4, "Euclid", "float16"),
            "spread": vd.VectorParams(3, "Manhattan"),
            "inner": vd.VectorParams(5, "Dot"),
            "tokens": vd.VectorParams(4, "Cosine", multivector=True),
        },
        sparse={"words": vd.SparseVectorParams()},
    )
    made.insert(some_points(0, ROWS, 1))
    made.upsert(some_points(ROWS - 40, 60, 2))
    made.delete([3, 5, 8])
    return path


@pytest.fixture(scope="module")
def cold(url):
    return vd.open(url)


@pytest.fixture(scope="module")
def warm(url):
    handle = vd.open(url)
    handle.warm()
    return handle


RNG = np.random.default_rng(9)
TEXT, IMAGE, SPREAD, INNER = (RNG.standard_normal(size) for size in (8, 4, 3, 5))
NEAR = {"must": [{"key": "at", "geo_radius": {"center": {"lat": 10, "lon": 10}, "radius": 4e6}}]}
CALLS = {
    "cosine": lambda c: c.search(TEXT, using="text"),
    "euclid, some without": lambda c: c.search(IMAGE, using="image", limit=1_000),
    "manhattan": lambda c: c.search(SPREAD, using="spread", limit=70, offset=5),
    "dot": lambda c: c.search(INNER, using="inner", score_threshold=1.0, limit=50),
    "a batch": lambda c: c.search(RNG_BATCH, using="text", filter="n > 2", limit=7),
    "by a stored point": lambda c: c.search([vd.Id(9), vd.Id(11)], using="image"),
    "exact": lambda c: c.search(TEXT, using="text", exact=True, columns=["n", "lang"], filter={"lang": "en"}),
    "with vectors": lambda c: c.search(TEXT, using="text", with_vectors=["image"], limit=4),
    "few matches": lambda c: c.search(TEXT, using="text", filter="id IN (9, 11, 12, 4) AND n >= 0"),
    "values in _extra": lambda c: c.search(TEXT, using="text", filter={"lang": 5}, limit=40),
    "places": lambda c: c.search(TEXT, using="text", filter=NEAR, limit=40),
    "those with a vector": lambda c: c.search(INNER, using="inner", filter={"must": [{"has_vector": "image"}]}),
    "those with a sparse vector": lambda c: c.search(
        INNER, using="inner", filter={"must": [{"has_vector": "words"}]}
    ),
    "a calculation": lambda c: c.search(TEXT, using="text", filter="price * n > 1.5", limit=30),
    "multivector": lambda c: c.search(np.ones((2, 4)), using="tokens", filter="n = 3"),
    "sparse": lambda c: c.search(vd.SparseVector([1, 4], [1, 2]), using="words", filter="n < 5"),
    "recommend": lambda c: c.recommend([1, 2], [4], using="text", filter={"tags": "a"}),
    "best score": lambda c: c.recommend([1, 2], [4], using="image", strategy="best_score"),
    "sum of scores": lambda c: c.recommend([TEXT.tolist(), 2], using="text", strategy="sum_scores"),
    "discover": lambda c: c.discover(1, [(2, 4)], using="text", filter="price < 0.5"),
    "context": lambda c: c.context([(2, 4)], using="spread"),
    "mmr": lambda c: c.query({"nearest": TEXT.tolist(), "mmr": {"diversity": 0.6}}, using="text"),
    "fusion": lambda c: c.query(
        {"fusion": "rrf"},
        prefetch=[{"query": TEXT.tolist(), "using": "text"}, {"query": IMAGE.tolist(), "using": "image"}],
        filter="n <> 4",
    ),
    "formula": lambda c: c.query(
        {"formula": {"sum": ["$score", {"mult": [0.5, "price"]}]}, "defaults": {"price": 0}},
        prefetch={"query": TEXT.tolist(), "using": "text", "limit": 60},
    ),
    "order": lambda c: c.query({"order_by": "price"}, filter={"tags": ["a", "b"]}, using="text"),
    "group": lambda c: c.group(TEXT, by="lang", using="text", limit=4),
    "text": lambda c: c.text("red shoes", columns="note", filter="n > 1"),
    "hybrid": lambda c: c.hybrid(TEXT, text="red", using="text", text_columns="note", filter="lang = 'de'"),
    "facet": lambda c: c.facet("tags", filter="n < 5"),
    "get": lambda c: c.get([7, 2, 7, 3, 99_999, 11]),
    "get vectors": lambda c: c.get([7, 2], with_vectors=True),
    "scroll": lambda c: c.scroll(filter="n = 2 OR lang = 'fr'", limit=25, offset=50),
    "scroll by value": lambda c: c.scroll(order_by={"key": "price", "direction": "desc"}, filter="n > 5"),
    "scan": lambda c: vd.Frame(c.scan(filter="n > 3", with_vectors=["text"]).read_all()),
    "scan payload": lambda c: vd.Frame(c.scan(with_vectors=False).read_all()),
    "batch of kinds": lambda c: c.query_batch(
        [{"query": TEXT.tolist(), "using": "text", "filter": "n = 1"}, {"query": {"sample": "random", "seed": 4}}]
    ),
}  # fmt: skip
RNG_BATCH = np.random.default_rng(10).standard_normal((5, 8))


@pytest.mark.parametrize("name", CALLS)
def test_answers_are_those_of_a_cold_handle(cold, warm, name):
    a, b = CALLS[name](cold), CALLS[name](warm)

    assert a.column_names == b.column_names
    assert a.schema.types == b.schema.types
    assert len(a) > 0
    for one, other in zip(a.to_pylist(), b.to_pylist(), strict=True):
        for key, value in one.items():
            expected = pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
            assert other[key] == expected


def test_counts_are_those_of_a_cold_handle(cold, warm):
    filters = ["n = 3", NEAR, {"lang": 5}, "price IS NULL", {"must_not": [{"has_id": [1, 2]}]}, "n + 1 = 2"]

    assert [warm.count(f) for f in filters] == [cold.count(f) for f in filters]


def test_sql_answers_from_memory_too(cold, warm):
    import duckdb

    import vecdataset.duckdb

    found = []
    for handle in (cold, warm):
        con = duckdb.connect()
        vecdataset.duckdb.attach(con, {"things": handle})
        found.append(
            con.execute(
                "FROM vec.search('things', $q, k := 6, filter := 'n > 2', \"using\" := 'text')",
                {"q": TEXT.tolist()},
            ).fetchall()
        )

    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_a_plan_says_what_was_done_in_memory(warm):
    plan = warm.search(TEXT, using="text", filter="n = 3", explain=True).plan
    tree = warm.query({"nearest": TEXT.tolist()}, using="text", filter="n = 3", explain=True).plan

    assert (plan.in_memory, plan.filter, plan.rows_scanned) == (True, "mask", plan.matched)
    assert str(plan).startswith("exact, in memory")
    assert tree.how.startswith("in memory, exact")


def test_what_would_be_decided_row_by_row_is_left_to_lance_where_it_can(url, cold, monkeypatch):
    handle = vd.open(url)
    handle.warm()
    monkeypatch.setattr(vecdataset.reader, "_BY_ROW_AT_MOST", 10)
    filters = {
        "abs(price) > 0.5": "sql",
        "price * n > 1.5": "sql+rows",
        "n = 3": "mask",
        "length(at.lat) IS NULL": "mask",
    }

    for filter, how in filters.items():
        found = handle.search(INNER, using="inner", filter=filter, limit=20, explain=True)

        assert found.plan.filter == how
        expected = cold.search(INNER, using="inner", filter=filter, limit=20)
        assert found["id"].to_pylist() == expected["id"].to_pylist()


def test_info_says_what_is_held(cold, warm):
    held = warm.info().held

    assert cold.info().held is None
    assert held.rows == len(cold)
    assert held.vectors == ["image", "inner", "spread", "text"]
    assert {"id", "n", "tags", "_extra"} <= set(held.columns)
    assert held.size_bytes >= len(cold) * 4 * (8 + 3 + 5)
    assert "in memory" in str(warm.info())


def test_only_what_is_named_is_held(url, cold):
    handle = vd.open(url)

    held = handle.warm(columns=["n"], vectors=["text"])

    assert (held.columns, held.vectors) == (["id", "n"], ["text"])
    for name in ("cosine", "euclid, some without", "places", "few matches", "values in _extra"):
        assert CALLS[name](handle).to_pylist() == CALLS[name](cold).to_pylist()
    assert handle.search(TEXT, using="text", filter="lang = 'de'", explain=True).plan.filter == "sql+rows"


def test_a_version_can_be_held(url, cold):
    then = cold.at(cold.version)

    then.warm()

    assert CALLS["cosine"](then).to_pylist() == CALLS["cosine"](cold).to_pylist()
    assert then.info().held.version == cold.version


# -------------------------------------------------------------------------------- mistakes


def test_memory_that_is_too_little_is_refused(url, cold):
    handle = vd.open(url)

    with pytest.raises(
        vd.InvalidInputError, match=r"takes [\d,]+ bytes .* max_bytes allows 10,000"
    ) as caught:
        handle.warm(max_bytes=10_000)

    assert "columns=" in caught.value.hint
    assert handle.info().held is None
    assert CALLS["cosine"](handle).to_pylist() == CALLS["cosine"](cold).to_pylist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["prize"]}, "has no column 'prize'"),
        ({"columns": "price"}, "must be a list of names"),
        ({"vectors": ["txt"]}, "'txt' is not declared"),
        ({"vectors": ["words"]}, "is sparse"),
        ({"vectors": ["tokens"]}, "is a multivector"),
        ({"max_bytes": -1}, "max_bytes is -1"),
    ],
)
def test_mistakes_are_named(cold, arguments, message):
    with pytest.raises(vd.InvalidInputError, match=message):
        cold.warm(**arguments)


# --------------------------------------------------------------------------------- versions


@pytest.fixture
def pair(tmp_path):
    """A writer, and a handle that holds what it writes."""
    writer = vd.create(tmp_path / "c", vectors=vd.VectorParams(4, "Euclid"))
    writer.insert([{"id": n, "vector": [n, 0, 0, 0], "n": n} for n in range(1_000)])
    reader = vd.open(writer.url)
    reader.warm()
    return writer, reader


def nearest(handle, x, **options):
    return handle.search([x, 0, 0, 0], limit=3, **options)["id"].to_pylist()


def test_a_commit_is_seen_at_once_and_old_rows_are_not_read_again(pair):
    writer, reader = pair
    (before,) = reader._read().held.parts

    writer.upsert(
        [{"id": 5_000, "vector": [4.1, 0, 0, 0], "n": 1}, {"id": 4, "vector": [900.2, 0, 0, 0], "n": 2.5}]
    )
    writer.delete([3])

    assert nearest(reader, 4) == [5_000, 5, 2]
    assert nearest(reader, 900, filter="n = 2.5 OR n = 899") == [4, 899]
    assert reader.get([3, 4]).to_pylist() == [{"id": 4, "n": 2.5}]
    held = reader._read().held
    assert held.version == writer.version
    assert sum(part.count for part in held.parts) == 1_000
    assert before.count == 1_000

    writer.upsert([{"id": 5_001, "vector": [0, 9, 0, 0], "new": "column"}])
    assert reader.search([0, 9, 0, 0], limit=1, filter={"new": "column"})["id"].to_pylist() == [5_001]
    assert reader._read().held.parts[0].block is held.parts[0].block


def test_many_commits_leave_few_parts(pair):
    writer, reader = pair
    for n in range(40):
        writer.upsert([{"id": n, "vector": [n, 1, 0, 0], "n": n}, {"id": 2_000 + n, "vector": [0, 0, n, 0]}])
        assert reader.count("n >= 0") == 1_000

    held = reader._read().held
    assert held.rows == 1_040
    assert len(held.parts) <= 8


def test_what_is_restored_comes_back(pair):
    writer, reader = pair
    writer.snapshots.create("full")
    writer.delete(filter="n < 500")
    assert nearest(reader, 4) == [500, 501, 502]

    writer.snapshots.restore("full")

    assert nearest(reader, 4) == [4, 3, 5]
    assert reader.info().held.rows == 1_000


def test_a_compacted_version_is_followed(pair):
    writer, reader = pair
    writer.delete(filter="n % 2 = 0")
    assert nearest(reader, 4) == [3, 5, 1]

    writer.optimize()

    assert nearest(reader, 4) == [3, 5, 1]
    assert reader._read().held.version == writer.version


def test_a_handle_that_outgrows_its_memory_goes_on_without(pair):
    writer, reader = pair
    reader.warm(max_bytes=reader.info().held.size_bytes + 20_000)
    writer.insert([{"id": 10_000 + n, "vector": [n, 5, 0, 0], "n": n} for n in range(900)])

    with pytest.warns(RuntimeWarning, match="no longer held"):
        first = nearest(reader, 4)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first == nearest(reader, 4) == [4, 3, 5]
    assert reader.info().held is None


def test_a_handle_lets_go(pair):
    _, reader = pair

    reader.cool()

    assert reader.info().held is None
    assert not reader.search([0, 0, 0, 0], explain=True).plan.in_memory
    with reader:
        reader.warm()
    assert reader.info().held is None


def test_an_empty_collection_fills_while_it_is_held(tmp_path):
    handle = vd.create(tmp_path / "c", vectors=vd.VectorParams(2))
    assert handle.warm().rows == 0
    assert len(handle.search([1, 0])) == 0

    handle.upsert([{"id": "a", "vector": [1, 0], "n": 1}, {"id": "b", "vector": [0, 1], "n": 2}])

    assert handle.search([1, 0], filter="n = 2", explain=True).plan.in_memory
    assert handle.search([0, 1])["id"].to_pylist() == ["b", "a"]


@pytest.mark.slow
def test_readers_see_whole_commits_while_they_are_written(pair):
    writer, reader = pair
    ids, done, wrong = list(range(100, 160)), threading.Event(), []

    def read():
        last = -1
        while not done.is_set() and not wrong:
            hits = reader.search([0, 7, 0, 0], limit=60, filter="turn >= 0").to_pylist()
            turns = {h["turn"] for h in hits}
            if len(turns) > 1 or (turns and (len(hits) != 60 or turns.pop() < last)):
                wrong.append(hits)
            last = hits[0]["turn"] if hits else last
            page = reader.scroll(limit=100, filter="turn >= 0").to_pylist()
            if page and (len({p["turn"] for p in page}) != 1 or len(page) != 60 or page[0]["turn"] < last):
                wrong.append(page)

    writer.upsert([{"id": n, "vector": [0, 7, n, 0], "turn": 0} for n in ids])
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(1, 25):
        writer.upsert([{"id": n, "vector": [0, 7, n, turn], "turn": turn} for n in ids])
    done.set()
    for thread in threads:
        thread.join()

    assert not wrong
    assert reader.count("turn = 24") == 60


# ----------------------------------------------------------------------------------- plans


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    rng = np.random.default_rng(2)
    made = vd.create(
        tmp_path_factory.mktemp("indexed") / "c", vectors=vd.VectorParams(8), full_scan_threshold=100
    )
    made.insert(
        pa.table(
            {
                "id": pa.array(range(20_000), pa.uint64()),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(rng.standard_normal(160_000), pa.float32()), 8
                ),
                "n": pa.array(rng.integers(0, 2, 20_000)),
            }
        )
    )
    made.create_index("ivf_flat")
    return made


def test_what_is_compared_in_memory_as_fast_as_an_index_answers_is_compared(indexed):
    handle = vd.open(indexed.url)
    assert handle.search(np.ones(8), explain=True).plan.index == "vector_idx"

    handle.warm()

    plan = handle.search(np.ones(8), explain=True).plan
    assert (plan.index, plan.in_memory, plan.rows_scanned) == (None, True, 20_000)


def test_a_mask_is_the_list_of_rows_that_an_index_may_return(indexed, monkeypatch):
    handle = vd.open(indexed.url)
    handle.warm()
    expected = handle.search(np.ones(8), filter="n = 1", exact=True, limit=20)
    monkeypatch.setattr(vecdataset.query, "_MEMORY_FLOATS", 0)

    found = handle.search(np.ones(8), filter="n = 1", params={"nprobes": 1_000}, limit=20, explain=True)

    assert (found.plan.index, found.plan.filter, found.plan.in_memory) == ("vector_idx", "mask", False)
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    assert found["n"].to_pylist() == [1] * 20


# ----------------------------------------------------------------------------------- graphs


GRAPH_ROWS = 9_000


@pytest.fixture(scope="module", params=["Cosine", "Dot", "Euclid"])
def graphed(request, tmp_path_factory):
    """A handle with a graph, and one without, on points that changed after it was built."""
    pytest.importorskip("usearch")
    rng = np.random.default_rng(8)
    centres = rng.standard_normal((60, 24))
    vectors = centres[rng.integers(0, 60, GRAPH_ROWS)] + 0.3 * rng.standard_normal((GRAPH_ROWS, 24))
    vectors[5] = 0
    plain = vd.create(
        tmp_path_factory.mktemp("graph") / "c",
        vectors=vd.VectorParams(24, request.param),
        full_scan_threshold=1_000,
    )
    plain.insert(
        pa.table(
            {
                "id": pa.array(range(GRAPH_ROWS), pa.uint64()),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), 24),
                "n": pa.array(rng.integers(0, 10, GRAPH_ROWS)),
            }
        )
    )
    handle = vd.open(plain.url)
    held = handle.warm(graph={"m": 16, "ef_construct": 100, "ef": 120})
    assert held.graphs == [""]
    plain.delete(list(range(100, 400)))
    plain.upsert([{"id": GRAPH_ROWS + n, "vector": centres[n] * 1.01, "n": n % 10} for n in range(40)])
    queries = centres[:40] + 0.2 * rng.standard_normal((40, 24))
    return handle, plain, queries


@pytest.mark.parametrize("filter", [None, "n < 6", {"must_not": [{"key": "n", "match": {"value": 2}}]}])
def test_a_graph_finds_nearly_all_and_scores_them_exactly(graphed, filter, monkeypatch):
    handle, plain, queries = graphed
    monkeypatch.setattr(vecdataset.query, "_GRAPH_FLOATS", 0)
    truth = plain.search(queries, filter=filter, exact=True, limit=10).to_arrow().to_pylist()

    found = handle.search(queries, filter=filter, limit=10, explain=True)

    assert (found.plan.index, found.plan.kind, found.plan.in_memory) == (
        "vector_graph",
        "hnsw in memory",
        True,
    )
    assert found.plan.rows_scanned < len(plain)
    expected = {(hit["query_index"], hit["id"]): hit["score"] for hit in truth}
    same = [h for h in found.to_arrow().to_pylist() if (h["query_index"], h["id"]) in expected]
    assert len(same) >= 0.97 * len(expected)
    assert len(found) == len(truth)
    for hit in same:
        assert hit["score"] == pytest.approx(expected[hit["query_index"], hit["id"]], rel=1e-5, abs=1e-6)
    assert not {h["id"] for h in found.to_arrow().to_pylist()} & set(range(100, 400))


def test_one_question_and_the_other_kinds_of_query_use_a_graph(graphed, monkeypatch):
    handle, plain, queries = graphed
    monkeypatch.setattr(vecdataset.query, "_GRAPH_FLOATS", 0)

    one = handle.search(queries[0], limit=5, params={"ef": 400}, explain=True)
    recommended = handle.recommend([1, 2], limit=5, explain=True)

    assert one["id"].to_pylist() == plain.search(queries[0], limit=5, exact=True)["id"].to_pylist()
    assert "vector_graph" in recommended.plan.how
    assert float(handle.recall(k=10, sample=50)) > 0.95


def test_few_matches_and_exact_searches_compare_the_rows(graphed, monkeypatch):
    handle, _, queries = graphed
    monkeypatch.setattr(vecdataset.query, "_GRAPH_FLOATS", 0)

    plans = [
        handle.search(queries[0], filter="n = 3", explain=True).plan,
        handle.search(queries[0], exact=True, explain=True).plan,
        handle.search(np.zeros(24), exact=False, explain=True).plan
        if graphed[1].schema.vectors[""].distance == "Cosine"
        else None,
    ]

    assert [p.index for p in plans if p is not None] == [None] * sum(p is not None for p in plans)


def test_more_than_a_graph_knows_is_answered_in_full(graphed, monkeypatch):
    handle, plain, queries = graphed
    monkeypatch.setattr(vecdataset.query, "_GRAPH_FLOATS", 0)

    found = handle.search(queries[0], limit=len(plain), explain=True)

    assert len(found) == len(plain)


@pytest.mark.parametrize(
    ("graph", "message"),
    [({"M": 3}, "no parameter 'M'"), ({"m": 0}, "m of a graph is 0"), (5, "graph is 5")],
)
def test_mistakes_in_a_graph_are_named(cold, graph, message):
    with pytest.raises(vd.InvalidInputError, match=message):
        cold.warm(graph=graph)


def test_a_graph_without_its_package_says_what_to_install(cold, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)

    with pytest.raises(vd.MissingDependencyError) as caught:
        cold.warm(graph=True)

    assert caught.value.hint == "pip install 'vecdataset[indexes]'"
