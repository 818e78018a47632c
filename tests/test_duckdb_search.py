"""Searches in SQL return what the same searches return in Python."""

from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vecdataset as vd
import vecdataset.duckdb
from vecdataset.demo import data_file
from vecdataset.duckdb import questions as questions_module


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with the 2,000 packages that the demo ships."""
    root = tmp_path_factory.mktemp("root")
    vd.load(data_file("packages.parquet"), root / "packages")
    return root


@pytest.fixture(scope="module")
def packages(root):
    return vd.open(root / "packages")


@pytest.fixture
def con(root):
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, str(root))
    return con


@pytest.fixture(scope="module")
def questions():
    table = pq.read_table(data_file("questions.parquet"))
    column = table["vector"] if "vector" in table.column_names else table["embedding"]
    return np.stack([np.array(v, np.float32) for v in column.to_pylist()])


def hits(result):
    """Id and score of hits as `Collection.search` gives them."""
    return list(zip(result["id"].to_pylist(), result["score"].to_pylist(), strict=True))


def ordered(con, statement, *args):
    return con.execute(f"SELECT id, score FROM ({statement}) ORDER BY _rank", *args).fetchall()


FILTER = "section = 'games' OR depends > 5"
QDRANT = '{"must": [{"key": "section", "match": {"value": "games"}}]}'

CALLS = [
    ("", {}),
    (", 3", {"limit": 3}),
    (", k := 25", {"limit": 25}),
    (", k => 2", {"limit": 2}),
    (f", filter := $${FILTER}$$", {"filter": FILTER}),
    (f", filter := '{QDRANT}', k := 5", {"filter": {"must": [{"key": "section", "match": {"value": "games"}}]}, "limit": 5}),
    (", filter := 'section = ''no such''' ", {"filter": "section = 'no such'"}),
    (", exact := true", {"exact": True}),
    (""", params := '{"ef": 64}'""", {"params": {"ef": 64}}),
    (", params := {'nprobes': 4, 'refine': 2}", {"params": {"nprobes": 4, "refine": 2}}),
    (', "using" := \'vector\'', {"using": "vector"}),
]  # fmt: skip

FORMS = {
    "generic": "FROM vec.search('packages', {q}{options})",
    "own": "FROM vec.packages.search({q}{options})",
}

VECTORS = {
    "parameter": ("$1", lambda v: [v.tolist()]),
    "literal": (None, lambda v: []),
    "array": ("$1::FLOAT[384]", lambda v: [v.tolist()]),
    "doubles": ("$1::DOUBLE[]", lambda v: [v.tolist()]),
    "subquery": ("(SELECT v FROM (SELECT $1::FLOAT[] AS v))", lambda v: [v.tolist()]),
    "variable": ("getvariable('q')", None),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("options", "same"), CALLS)
def test_a_search_with_options_is_the_python_search(con, packages, questions, form, options, same):
    statement = FORMS[form].format(q="$1", options=options)

    found = ordered(con, statement, [questions[0].tolist()])

    assert found == hits(packages.search(questions[0], **same))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", VECTORS)
def test_a_query_vector_can_be_given_in_many_ways(con, packages, questions, form, given):
    q, args = VECTORS[given]
    if given == "literal":
        q = repr([float(x) for x in questions[1]])
    if given == "variable":
        con.execute("SET VARIABLE q = $1::FLOAT[]", [questions[1].tolist()])

    found = ordered(con, FORMS[form].format(q=q, options=", k := 4"), args(questions[1]) if args else [])

    assert found == hits(packages.search(questions[1], limit=4))


def test_the_columns_are_typed_payload(con):
    shown = con.execute("DESCRIBE FROM vec.search('packages', NULL)").fetchall()

    assert [(c[0], c[1]) for c in shown[:5]] == [
        ("_rank", "INTEGER"), ("id", "UBIGINT"), ("score", "FLOAT"), ("_distance", "FLOAT"), ("name", "VARCHAR"),
    ]  # fmt: skip
    assert ("tags", "VARCHAR[]") in [(c[0], c[1]) for c in shown]


def test_payload_comes_with_its_hit(con, packages, questions):
    found = con.execute(
        "SELECT id, name, installed_size_kb, tags FROM vec.search('packages', $1, k := 20) ORDER BY _rank",
        [questions[2].tolist()],
    ).fetchall()

    rows = packages.search(questions[2], limit=20).to_arrow().to_pylist()

    assert found == [(r["id"], r["name"], r["installed_size_kb"], r["tags"]) for r in rows]


def test_null_has_no_hits(con):
    assert con.execute("FROM vec.search('packages', NULL)").fetchall() == []
    assert con.execute("FROM vec.search('packages', NULL::FLOAT[])").fetchall() == []
    assert con.execute("FROM vec.search_by_id('packages', NULL)").fetchall() == []


def test_a_point_is_no_hit_of_its_own_search(con, packages):
    found = ordered(con, "FROM vec.search_by_id('packages', 14600, k := 7, filter := 'depends > 1')")

    assert found == hits(packages.search(vd.Id(14600), limit=7, filter="depends > 1"))


# ------------------------------------------------------------------------------- lateral


@pytest.fixture
def queries(con, questions):
    """Forty query vectors, every tenth of them NULL, with a k and a filter each."""
    return make_queries(con, questions, 40)


def make_queries(con, questions, rows):
    base = np.resize(questions, (rows, questions.shape[1])).copy()
    base += np.random.default_rng(3).normal(0, 0.01, base.shape).astype(np.float32)
    vectors = [None if i % 10 == 9 else v.tolist() for i, v in enumerate(base)]
    given = pa.table({  # noqa: F841 - DuckDB finds it by name
        "n": range(rows),
        "e": pa.array(vectors, pa.list_(pa.float32())),
        "kk": pa.array([None if i % 7 == 0 else i % 5 + 1 for i in range(rows)], pa.int32()),
        "flt": [None if i % 3 == 0 else f"depends > {i % 4}" for i in range(rows)],
    })  # fmt: skip
    con.execute("CREATE TABLE queries AS SELECT * FROM given")
    return [
        (n, v, 10 if n % 7 == 0 else n % 5 + 1, None if n % 3 == 0 else f"depends > {n % 4}")
        for n, v in enumerate(vectors)
        if v is not None
    ]


def looped(packages, queries, **fixed):
    out = []
    for n, vector, k, filter in queries:
        found = packages.search(vector, **({"limit": k, "filter": filter} | fixed))
        out += [(n, r + 1, i) for r, i in enumerate(found["id"].to_pylist())]
    return out


@pytest.mark.parametrize("form", ["vec.search('packages', q.e", "vec.packages.search(q.e"])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_lateral_join_is_a_loop_of_searches(con, packages, queries, form, threads):
    con.execute(f"SET threads = {threads}")

    found = con.execute(
        f"SELECT q.n, r._rank, r.id FROM queries q, {form}, k := 3) r ORDER BY ALL"
    ).fetchall()

    assert found == looped(packages, queries, limit=3, filter=None)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_lateral_join_of_many_chunks_is_one_batch(con, packages, questions, threads):
    con.execute(f"SET threads = {threads}")
    queries = make_queries(con, questions, 5_000)
    batch = packages.search([v for _, v, _, _ in queries], limit=3)
    numbers = [queries[i][0] for i in batch["query_index"].to_pylist()]

    found = con.execute(
        "SELECT q.n, r.id FROM queries q, vec.search('packages', q.e, k := 3) r ORDER BY q.n, r._rank"
    ).fetchall()

    assert found == list(zip(numbers, batch["id"].to_pylist(), strict=True))


@pytest.mark.parametrize("form", ["vec.search('packages', q.e", "vec.packages.search(q.e"])
def test_each_row_can_have_its_k_and_filter(con, packages, queries, form):
    found = con.execute(
        f"SELECT q.n, r._rank, r.id FROM queries q, {form}, k := q.kk, filter := q.flt) r ORDER BY ALL"
    ).fetchall()

    assert found == looped(packages, queries)


def test_a_left_join_keeps_queries_without_hits(con, queries):
    found = con.execute(
        "SELECT count(DISTINCT q.n), count(r.id) FROM queries q "
        "LEFT JOIN vec.packages.search(q.e, filter := 'section = ''no such''') r ON true"
    ).fetchone()

    assert found == (40, 0)


def test_a_lateral_join_asks_once_for_each_chunk(con, packages, queries, monkeypatch):
    asked = []
    nearest = questions_module.nearest_points

    def watched(reader, query, *args):
        asked.append(len(query.vectors))
        return nearest(reader, query, *args)

    monkeypatch.setattr(questions_module, "nearest_points", watched)

    con.execute("SET threads = 1")
    con.execute("SELECT count(r.id) FROM queries q, vec.packages.search(q.e) r").fetchall()

    assert asked == [36]


def test_ids_can_be_joined_laterally(con, packages):
    found = con.execute(
        "SELECT p.id, r.id FROM (SELECT id FROM vec.packages ORDER BY id LIMIT 12) p, "
        "vec.search_by_id('packages', p.id, k := 2) r ORDER BY p.id, r._rank"
    ).fetchall()
    ids = packages.scroll(limit=12)["id"].to_pylist()

    expected = [(i, hit) for i in ids for hit in packages.search(vd.Id(i), limit=2)["id"].to_pylist()]

    assert found == expected


def taken_columns(monkeypatch):
    from vecdataset.reader import Reader

    taken = []
    take = Reader.take

    def watched(self, row_ids, columns):
        taken.append(tuple(columns))
        return take(self, row_ids, columns)

    monkeypatch.setattr(Reader, "take", watched)
    return taken


@pytest.mark.parametrize("columns", ["_distance", "score", "id"])
def test_a_statement_that_uses_no_payload_reads_none(con, questions, monkeypatch, columns):
    taken = taken_columns(monkeypatch)

    for _ in range(2):
        con.execute(f"SELECT {columns} FROM vec.search('packages', $1)", [questions[0].tolist()]).fetchall()

    assert taken == [("id",), ("id",)]


def test_a_statement_that_used_payload_before_reads_it_with_the_id(con, packages, questions, monkeypatch):
    query = questions[0].tolist()
    statement = "SELECT name FROM vec.search('packages', $1) ORDER BY _rank"
    first = con.execute(statement, [query]).fetchall()
    taken = taken_columns(monkeypatch)

    second = con.execute(statement, [query]).fetchall()

    assert taken == [("id", *packages.schema.payload)]
    assert first == second == [(n,) for n in packages.search(query)["name"].to_pylist()]


# ----------------------------------------------------------------------------- freshness


def test_a_prepared_statement_sees_new_points(tmp_path):
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(size=2))
    c.upsert([{"id": 1, "vector": [1, 0], "payload": {"n": 1}}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)
    con.execute("PREPARE ask AS SELECT id, n FROM vec.search('c', [1, 0]) ORDER BY _rank")
    before = con.execute("EXECUTE ask").fetchall()
    c.upsert([{"id": 2, "vector": [1, 0.1], "payload": {"n": 2}}])

    assert before == [(1, 1)]
    assert con.execute("EXECUTE ask").fetchall() == [(1, 1), (2, 2)]


def test_a_view_over_a_search_stays_fresh(tmp_path):
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(size=2))
    c.upsert([{"id": 1, "vector": [1, 0], "payload": {"n": 1}}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)
    con.execute("CREATE VIEW near AS SELECT id FROM vec.c.search([1, 0])")
    c.upsert([{"id": 2, "vector": [1, 0.1], "payload": {"n": 2}}])

    assert con.execute("SELECT count(*) FROM near").fetchone() == (2,)


def test_hits_keep_the_version_that_was_searched(tmp_path):
    """A point that changes between the search and the fetch of its payload is shown as it was found."""
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(size=2))
    c.upsert([{"id": 1, "vector": [1, 0], "payload": {"n": 1}}])
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)
    found = questions_module.nearest_points

    def changed_meanwhile(*args):
        out = found(*args)
        vd.open(tmp_path / "c").upsert([{"id": 1, "vector": [0, 1], "payload": {"n": 2}}])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions_module, "nearest_points", changed_meanwhile)

        assert con.execute("SELECT id, n FROM vec.search('c', [1, 0])").fetchall() == [(1, 1)]


@pytest.fixture
def small(tmp_path):
    """A collection of 3,000 points on a circle, and a connection."""
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(size=2))
    angles = np.linspace(0, np.pi, 3_000)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).tolist()
    c.upsert(pa.table({"id": pa.array(range(3_000), pa.uint64()), "vector": vectors, "n": range(3_000)}))
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)
    return c, con


def test_a_lateral_join_sees_one_version_from_beginning_to_end(small, monkeypatch):
    c, con = small
    version = c.version
    seen = []
    nearest = questions_module.nearest_points

    def changed_meanwhile(reader, *args):
        seen.append(reader.table.version)
        vd.open(c.url).delete(list(range(3_000)))
        return nearest(reader, *args)

    monkeypatch.setattr(questions_module, "nearest_points", changed_meanwhile)
    con.execute("SET threads = 1")

    found = con.execute(
        "SELECT count(*), count(r.n), sum(r.n) FROM vec.c q, vec.search('c', q.vector, k := 1) r"
    ).fetchone()

    assert set(seen) == {version}
    assert len(seen) == 2
    assert found == (3_000, 3_000, sum(range(3_000)))
    assert con.execute("SELECT count(*) FROM vec.search('c', [1, 0])").fetchone() == (0,)


def test_a_prepared_statement_sees_what_its_own_transaction_wrote(small):
    _, con = small
    con.execute("PREPARE ask AS SELECT count(*) FROM vec.search('c', [1, 0], filter := 'n = -1')")
    con.execute("BEGIN")

    before = con.execute("EXECUTE ask").fetchone()
    con.execute("FROM vec.upsert('c', 'SELECT 9000 AS id, [1.0, 0.0] AS vector, -1 AS n')").fetchall()
    after = con.execute("EXECUTE ask").fetchone()
    con.execute("SELECT vec.delete('c', ids := [9000])").fetchall()

    assert (before, after) == ((0,), (1,))
    assert con.execute("EXECUTE ask").fetchone() == (0,)


# ------------------------------------------------------------------------ other questions


OTHERS = [
    (
        "vec.text('packages', 'chess game', columns := ['description'], k := 4, filter := 'depends > 1')",
        lambda c: c.text("chess game", columns=["description"], limit=4, filter="depends > 1"),
    ),
    (
        "vec.packages.text('chess game', options := {'operator': 'and'}, k := 4)",
        lambda c: c.text("chess game", operator="and", limit=4),
    ),
    (
        "vec.hybrid('packages', (SELECT vector FROM vec.packages WHERE id = 14600), \"text\" := 'chess', k := 4)",
        lambda c: c.hybrid(c.get([14600], with_vectors=True)["vector"][0].as_py(), text="chess", limit=4),
    ),
    ("vec.recommend('packages', [14600, 25], negative := [23], k := 4)",
     lambda c: c.recommend([14600, 25], [23], limit=4)),
    ("vec.packages.recommend(14600, strategy := 'best_score', k := 4)",
     lambda c: c.recommend([14600], strategy="best_score", limit=4)),
    ("vec.discover('packages', 14600, [[25, 23]], k := 4)", lambda c: c.discover(14600, [(25, 23)], limit=4)),
    ("vec.context('packages', [{'positive': 25, 'negative': 23}], k := 4)",
     lambda c: c.context([(25, 23)], limit=4)),
    ("""vec.query('packages', '{"query": {"fusion": "rrf"}, "limit": 4,
        "prefetch": [{"query": 25}, {"query": 23}]}')""",
     lambda c: c.query({"fusion": "rrf"}, prefetch=[{"query": 25}, {"query": 23}], limit=4)),
    ("vec.query('packages', '{\"query\": 25}', k := 3, filter := 'depends > 2')",
     lambda c: c.query(25, limit=3, filter="depends > 2")),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "same"), OTHERS)
def test_other_questions_are_those_of_python(con, packages, statement, same):
    assert ordered(con, f"FROM {statement}") == hits(same(packages))


def test_hits_come_in_groups(con, packages, questions):
    query = questions[0].tolist()

    found = con.execute(
        "SELECT \"group\", id, score, name FROM vec.group('packages', $1, 'section', k := 3, group_size := 2, "
        "filter := 'depends > 1') ORDER BY _rank", [query],
    ).fetchall()  # fmt: skip

    same = packages.group(query, by="section", limit=3, group_size=2, filter="depends > 1")
    assert found == [(r["group"], r["id"], r["score"], r["name"]) for r in same.to_arrow().to_pylist()]


def test_recommend_takes_vectors_too(con, packages, questions):
    a, b = questions[0].tolist(), questions[1].tolist()

    found = ordered(con, "FROM vec.recommend('packages', [$1, $2], k := 4)", [a, b])

    assert found == hits(packages.recommend([a, b], limit=4))


def test_sparse_vectors_and_multivectors_can_be_searched(tmp_path):
    c = vd.create(
        tmp_path / "c",
        vectors={"": vd.VectorParams(size=2), "late": vd.VectorParams(size=2, multivector=True)},
        sparse={"words": vd.SparseVectorParams()},
    )
    sparse = [vd.SparseVector([1, 5], [1.0, 2.0]), vd.SparseVector([5], [0.5])]
    late = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]]]
    c.upsert([
        {"id": i, "vector": {"": [i, 1], "late": late[i], "words": sparse[i]}, "payload": {"n": i}} for i in (0, 1)
    ])  # fmt: skip
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, c)

    by_words = ordered(con, "FROM vec.search('c', {'indices': [5], 'values': [2.0]}, \"using\" := 'words')")
    by_late = ordered(con, "FROM vec.search('c', [[1.0, 0.2], [0.3, 1]], \"using\" := 'late')")

    assert by_words == hits(c.search(vd.SparseVector([5], [2.0]), using="words"))
    assert by_late == hits(c.search([[1.0, 0.2], [0.3, 1]], using="late"))


def test_get_and_scroll_return_points(con, packages):
    ids = packages.scroll(limit=4)["id"].to_pylist()

    got = con.execute("SELECT id, name FROM vec.get('packages', $1) ORDER BY id", [[*ids, 10**9]]).fetchall()
    page = con.execute(
        "SELECT id FROM vec.scroll('packages', k := 2, start := $1) ORDER BY id", [ids[1]]
    ).fetchall()
    sized = con.execute(
        "SELECT name FROM vec.scroll('packages', k := 3, order_by := 'name') ORDER BY name"
    ).fetchall()

    assert got == [(r["id"], r["name"]) for r in packages.get(ids).to_pylist()]
    assert page == [(ids[1],), (ids[2],)]
    assert [r[0] for r in sized] == packages.scroll(limit=3, order_by="name")["name"].to_pylist()


def test_counts_and_listings(con, packages):
    count = con.execute(
        "SELECT vec.count('packages'), vec.count('packages', $1), vec.count('packages', filter := $2)",
        [FILTER, QDRANT],
    ).fetchone()
    listed = con.execute("SELECT name, points, version, id_type, error FROM vec.collections()").fetchall()
    versions = con.execute("SELECT max(version), count(*) FROM vec.versions('packages')").fetchone()

    assert count == (2_000, packages.count(FILTER), packages.count("section = 'games'"))
    assert listed == [("packages", 2_000, packages.version, "uint64", None)]
    assert versions == (packages.version, packages.version)


def test_explain_tells_how_a_search_runs(con):
    lines = [
        r[0] for r in con.execute("FROM vec.explain('packages', 14600, filter := 'depends > 1')").fetchall()
    ]

    assert lines[0].startswith("exact scan")
    assert "  filter   sql" in lines


def test_matches_is_the_filter_of_collections_as_a_predicate(con, packages):
    found = con.execute(
        "SELECT count(*) FROM vec.packages WHERE vec.matches($1, {'section': section})", [QDRANT]
    ).fetchone()
    by_text = con.execute(
        """SELECT vec.matches('n > 1', '{"n": 2}'), vec.matches('n > 1', NULL), vec.matches('a.b = 1', '{"a": {"b": 2}}')"""
    ).fetchone()

    assert found == (packages.count("section = 'games'"),)
    assert by_text == (True, None, False)


@pytest.mark.parametrize("kind", ["FLOAT[3]", "DOUBLE[3]", "FLOAT[]", "DOUBLE[]"])
def test_distances_of_arrays_and_lists(con, kind):
    found = con.execute(
        f"SELECT vec.cosine_distance(a, b), vec.l2_distance(a, b), vec.manhattan_distance(a, b), vec.inner_product(a, b) "
        f"FROM (SELECT [1, 2, 3]::{kind} AS a, [3, 1, -1]::{kind} AS b)"
    ).fetchone()

    assert found == pytest.approx((1 - 2 / (14 * 11) ** 0.5, 21**0.5, 7, 2))


def test_a_zero_vector_has_the_distance_that_searches_give_it(con):
    assert con.execute("SELECT vec.cosine_distance([0, 0], [1, 2])").fetchone() == (1.0,)


def test_order_by_a_distance_on_the_view_is_the_exact_search(con, packages, questions):
    found = con.execute(
        "SELECT id FROM vec.packages ORDER BY vec.cosine_distance(vector, $1) LIMIT 5",
        [questions[3].tolist()],
    ).fetchall()

    assert [r[0] for r in found] == packages.search(questions[3], limit=5, exact=True)["id"].to_pylist()


# --------------------------------------------------------------------------------- joins


def test_filter_comes_before_the_search_and_where_after_it(con, packages, questions):
    q = [questions[0].tolist()]

    before = con.execute(
        "SELECT count(*) FROM vec.search('packages', $1, filter := 'section = ''games''')", q
    )
    before = before.fetchone()
    after = con.execute(
        "SELECT count(*) FROM vec.search('packages', $1) WHERE section = 'games'", q
    ).fetchone()

    assert before == (10,)
    assert after[0] < 10


def test_a_predicate_on_a_joined_table_does_not_change_the_search(con, packages, questions):
    """DuckDB infers predicates through a join; they must not become filters of the search."""
    con.execute("CREATE TABLE orders AS SELECT id, id % 7 AS amount FROM vec.packages")
    hit_ids = packages.search(questions[0])["id"].to_pylist()
    bound = sorted(hit_ids)[3]

    found = con.execute(
        "SELECT id FROM vec.search('packages', $1) JOIN orders o USING (id) WHERE o.id < $2",
        [questions[0].tolist(), bound],
    ).fetchall()

    assert sorted(r[0] for r in found) == sorted(i for i in hit_ids if i < bound)


def test_windows_ctes_and_copies_work_over_hits(con, questions, tmp_path):
    con.execute(
        "COPY (WITH near AS (FROM vec.search('packages', $1, k := 50)) "
        "SELECT section, id, row_number() OVER (PARTITION BY section ORDER BY _rank) AS place FROM near "
        f"QUALIFY place = 1) TO '{tmp_path / 'best.parquet'}'",
        [questions[0].tolist()],
    )

    best = pq.read_table(tmp_path / "best.parquet")

    assert len(best) == len(set(best["section"].to_pylist())) > 1


# -------------------------------------------------------------------------------- errors


ERRORS = [
    ("FROM vec.search('package', [1, 2])", "no collection 'package' in .*\n.*'packages'"),
    ("FROM vec.search(NULL, [1, 2])", "no collection NULL"),
    ("FROM vec.search('packages', [1.0, 2.0])", "has shape .2.; collection 'packages' declares size 384"),
    ("FROM vec.search('packages', [[1.0], [2.0]])", "declares size 384"),
    ("FROM vec.search('packages', 'text')", "query"),
    ("FROM vec.search('packages', list_value(1.0, NULL))", "NULL"),
    ("FROM vec.packages.search($1, k := 0)", "k is 0; it must be an integer from 1"),
    ("FROM vec.packages.search($1, k := 'x')", "k is 'x'"),
    ("FROM vec.packages.search($1, filter := 'sectoin = 1')", "'sectoin', which no point has\nhint: did you mean 'section'"),
    ("FROM vec.packages.search($1, filter := 'section =')", "InvalidFilterError"),
    ("FROM vec.packages.search($1, filter := '{\"must\": ')", "filter is not JSON"),
    ("FROM vec.packages.search($1, \"using\" := 'image')", "vector 'image' is not declared"),
    ("FROM vec.packages.search($1, params := '{\"ne\": 1}')", "ne"),
    ("FROM vec.packages.search($1, top := 3)", "does not support the supplied arguments(.|\n)*k := 10"),
    ("SELECT nam FROM vec.packages.search($1)", '"nam" not found(.|\n)*"name"'),
    ("FROM vec.search_by_id('packages', 1000000000)", "no point 1000000000"),
    ("FROM vec.query('packages', '{\"qury\": 1}')", "query key 'qury' is not known\nhint: did you mean 'query'"),
    ("SELECT vec.count('packge')", "no collection 'packge' in .*\nhint: did you mean 'packages'"),
    ("SELECT * FROM vec.package", "package"),
    ("SELECT vec.manhattan_distance([1, 2], [1])", "differ in size"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "message"), ERRORS)
def test_a_mistake_is_one_clean_error_and_the_connection_stays_usable(con, questions, statement, message):
    with pytest.raises(duckdb.Error, match=message) as caught:
        con.execute(statement, [questions[0].tolist()] if "$1" in statement else []).fetchall()

    assert "Traceback" not in str(caught.value)
    assert con.execute("SELECT vec.count('packages')").fetchone() == (2_000,)


def test_a_collection_cannot_be_injected_by_its_name(con):
    with pytest.raises(duckdb.Error, match="no collection"):
        con.execute("""FROM vec.search('packages"(NULL)) UNION SELECT 1 --', [1])""").fetchall()


# ------------------------------------------------------------------------------- threads


def test_cursors_in_threads_find_the_same(con, packages, questions):
    expected = [packages.search(q, limit=5)["id"].to_pylist() for q in questions[:8]]

    def ask(q):
        rows = con.cursor().execute(
            "SELECT id FROM vec.search('packages', $1, k := 5) ORDER BY _rank", [q.tolist()]
        )
        return [r[0] for r in rows.fetchall()]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, [q for _ in range(3) for q in questions[:8]]))

    assert found == expected * 3
