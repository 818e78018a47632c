"""Full text against a BM25 of a dozen lines, in every state that an index can be in."""

import gc
import math
import random
import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import vecdataset as vd
from vecdataset.indexes.payload import LANGUAGES

WORDS = [
    "red", "shoe", "boot", "green", "hat", "blue", "fast", "slow", "run", "walk",
    "city", "park", "tree", "river", "stone", "light", "dark", "warm", "cold", "rain",
]  # fmt: skip
PLAIN = {"stem": False, "remove_stop_words": False}
LETTERS = re.compile(r"[^\W_]+")


# --------------------------------------------------------------- what is right


def cut(text):
    return [word.lower() for word in LETTERS.findall(text or "")]


def bm25(docs, query, k1=1.2, b=0.75):
    """Return id → score; documents without a word count for nothing."""
    tokens = {i: cut(t) for i, t in docs.items() if cut(t)}
    average = sum(map(len, tokens.values())) / len(tokens)
    out = {}
    for word in cut(query):
        n = sum(word in t for t in tokens.values())
        idf = math.log((len(tokens) - n + 0.5) / (n + 0.5) + 1)
        for i, t in tokens.items():
            tf = t.count(word)
            if tf:
                part = idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(t) / average))
                out[i] = out.get(i, 0.0) + part
    return out


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def holds_phrase(text, phrase):
    have, want = cut(text), cut(phrase)
    return any(have[i : i + len(want)] == want for i in range(len(have)))


def holds(text, query, kind):
    have, want = cut(text), cut(query)
    return {
        "or": lambda: any(w in have for w in want),
        "and": lambda: all(w in have for w in want),
        "phrase": lambda: holds_phrase(text, query),
        "fuzzy": lambda: any(edits(w, h) <= 1 for w in want for h in have),
        "fuzzy and": lambda: all(any(edits(w, h) <= 1 for h in have) for w in want),
    }[kind]()


OPTIONS = {
    "or": {},
    "and": {"operator": "and"},
    "phrase": {"phrase": True},
    "fuzzy": {"fuzziness": 1},
    "fuzzy and": {"fuzziness": 1, "operator": "and"},
}


# ----------------------------------------------------------------- collections


def create(**declared):
    return vd.create(f"memory://text-{uuid.uuid4().hex}", **{"vectors": vd.VectorParams(size=2), **declared})


def collection(docs, **index):
    """Return a collection of documents; indexed where options of an index are given."""
    made = create()
    made.upsert(points(docs))
    if index:
        made.create_payload_index("t", "text", **index)
    return made


def points(docs):
    return [{"id": i, "vector": [1.0, i], "n": i % 10, "t": t} for i, t in docs.items()]


def documents(rng, ids):
    sizes = [0, 1, 2, 3, 5, 8, 20]
    return {
        i: " ".join(rng.choices(WORDS, k=rng.choice(sizes))) if rng.random() > 0.05 else None for i in ids
    }


def scores(hits):
    return dict(zip(hits["id"].to_pylist(), hits["score"].to_pylist(), strict=True))


def same_scores(hits, expected, rel=1e-6):
    assert scores(hits) == pytest.approx(expected, rel=rel)
    assert (np.diff(hits["score"].to_numpy()) <= 0).all()


# ---------------------------------------------------------------------- scores


@pytest.fixture(
    scope="module",
    params=["no index", "indexed", "a third not indexed", "optimized", "replaced and compacted"],
)
def state(request):
    """A collection in one of the states of its index, and the documents in it."""
    rng = random.Random(11)
    docs = documents(rng, range(300))
    if request.param == "no index":
        return collection(docs), docs
    found = collection(docs, **PLAIN)
    if request.param != "indexed":
        more = documents(rng, range(200, 400) if request.param.startswith("replaced") else range(300, 450))
        found.upsert(points(more))
        docs |= more
    if request.param in {"optimized", "replaced and compacted"}:
        found.optimize()
    return found, docs


@pytest.mark.parametrize(
    "query", ["red", "red shoe", "warm cold rain", "red red shoe", "Red SHOE!", "absent"]
)
def test_scores_are_bm25_of_all_rows_whatever_the_index_covers(state, query):
    found, docs = state

    same_scores(found.text(query, limit=1000), bm25(docs, query))


@pytest.mark.parametrize("query", ["red", "red shoe", "warm cold rain", "red red shoe"])
def test_scores_are_those_of_the_package_bm25s(state, query):
    bm25s = pytest.importorskip("bm25s", reason="bm25s is not installed")
    found, docs = state
    ids = [i for i, t in docs.items() if cut(t)]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75, dtype="float64")
    index.index([cut(docs[i]) for i in ids], show_progress=False)

    # Lucene leaves out the factor k1 + 1, which is the same for every document.
    theirs = index.get_scores(cut(query)) * 2.2

    same_scores(
        found.text(query, limit=1000),
        {i: s for i, s in zip(ids, theirs.tolist(), strict=True) if s > 0},
        rel=1e-5,
    )


def test_scores_do_not_depend_on_the_filter(state):
    found, docs = state
    expected = {i: s for i, s in bm25(docs, "red shoe").items() if i % 10 < 4}

    same_scores(found.text("red shoe", limit=1000, filter="n < 4"), expected)


def test_deleted_rows_count_in_the_statistics_until_they_are_compacted():
    docs = documents(random.Random(12), range(300))
    found = collection(docs, **PLAIN)
    found.delete(list(range(30)))
    left = {i: t for i, t in docs.items() if i >= 30}

    before = found.text("red shoe", limit=1000)
    found.delete(list(range(30, 90)))
    found.optimize()
    after = found.text("red shoe", limit=1000)

    same_scores(before, {i: s for i, s in bm25(docs, "red shoe").items() if i >= 30})
    assert set(scores(before)) == set(bm25(left, "red shoe"))
    same_scores(after, bm25({i: t for i, t in left.items() if i >= 90}, "red shoe"))


def test_the_distance_is_the_negative_score():
    found = collection({1: "red shoe", 2: "red hat"})

    hits = found.text("shoe")

    assert hits["_distance"].to_pylist() == [-s for s in hits["score"].to_pylist()]


def test_three_rounds_of_upsert_and_optimize_keep_the_index_fresh():
    rng = random.Random(13)
    docs = documents(rng, range(200))
    found = collection(docs, **PLAIN)
    for _ in range(3):
        more = documents(rng, rng.sample(range(400), 150))
        docs |= more
        found.upsert(points(more))
        assert set(scores(found.text("red shoe", limit=1000))) == set(bm25(docs, "red shoe"))
        found.optimize()
        assert next(i for i in found.indexes if i.kind == "text").unindexed_rows == 0
        assert set(scores(found.text("red shoe", limit=1000))) == set(bm25(docs, "red shoe"))

        # Replaced rows stay in the statistics while they are less than a fifth of their fragment.
        same_scores(found.text("red shoe", limit=1000), bm25(docs, "red shoe"), rel=0.2)


# --------------------------------------------------------------------- matching


def test_all_rows_that_match_are_found_and_no_others(state):
    found, docs = state
    rng = random.Random(14)
    for kind, options in OPTIONS.items():
        query = " ".join(rng.choices(WORDS, k=2)) if "fuzzy" not in kind else "shoez ran"

        hits = found.text(query, limit=1000, **options)

        assert set(hits["id"].to_pylist()) == {i for i, t in docs.items() if holds(t, query, kind)}, kind


def test_k_hits_come_whenever_k_match(state):
    found, docs = state
    for filter, passes in (("n = 3", lambda i: i % 10 == 3), ("id < 40", lambda i: i < 40)):
        matching = sorted((s for i, s in bm25(docs, "red hat").items() if passes(i)), reverse=True)
        for limit in (1, 5, 10_000):
            hits = found.text("red hat", limit=limit, filter=filter)

            assert hits["score"].to_pylist() == pytest.approx(matching[:limit])


def test_clauses_require_add_and_exclude(state):
    found, docs = state
    red, shoe = bm25(docs, "red"), bm25(docs, "shoe")
    expected = {i: s + shoe.get(i, 0.0) for i, s in red.items() if "hat" not in cut(docs[i])}

    hits = found.text({"must": "red", "should": ["shoe"], "must_not": [{"text": "hat"}]}, limit=1000)

    same_scores(hits, expected)


def test_clauses_nest_and_have_factors():
    docs = documents(random.Random(15), range(200))
    found = collection(docs, **PLAIN)
    red, walk = bm25(docs, "red"), bm25(docs, "walk")
    either = {i: red.get(i, 0) + 3 * walk.get(i, 0) for i in red.keys() | walk.keys()}
    cold = bm25(docs, "cold")
    query = vd.TextQuery(
        must=["cold", vd.TextQuery(should=["red", vd.TextQuery("walk", boost=3)])], must_not=["rain"]
    )

    same_scores(
        found.text(query, limit=1000),
        {i: s + cold[i] for i, s in either.items() if i in cold and "rain" not in cut(docs[i])},
    )


def test_a_phrase_may_have_other_words_between():
    found = collection({1: "red warm shoe", 2: "red shoe", 3: "shoe red", 4: "red a b shoe"}, **PLAIN)

    assert scores(found.text("red shoe", phrase=True)).keys() == {2}
    assert scores(found.text("red shoe", phrase=True, slop=1)).keys() == {1, 2}
    assert scores(found.text("red shoe", phrase=True, slop=2)).keys() == {1, 2, 4}


def test_auto_fuzziness_grows_with_the_word():
    docs = {1: "an", 2: "tree", 3: "library", 4: "on"}
    found = collection(docs, **PLAIN)

    assert scores(found.text("am", fuzziness="auto")).keys() == set()
    assert scores(found.text("trae", fuzziness="auto")).keys() == {2}
    assert scores(found.text("trxx", fuzziness="auto")).keys() == set()
    assert scores(found.text("librxxy", fuzziness="auto")).keys() == {3}
    assert scores(found.text("trae librxxy an", fuzziness="auto")).keys() == {1, 2, 3}
    assert scores(found.text("trae librxxy", fuzziness="auto", operator="and")).keys() == set()


def test_misspelt_words_are_found_in_rows_that_no_index_covers():
    found = collection({1: "quick", 2: "slow"}, **PLAIN)
    found.upsert(points({3: "quick"}))

    assert scores(found.text("quik", fuzziness=1)).keys() == {1, 3}


def test_rows_of_a_fragment_that_was_replaced_whole_are_not_found():
    # Lance's BM25F, which counts rows outside of the index, still finds rows of vanished fragments.
    found = collection(dict.fromkeys(range(5), "warm red"), **PLAIN)
    found.upsert(points(dict.fromkeys(range(5, 30), "warm")))
    found.delete([0, 1, 2, 3])
    found.create_payload_index("t", "text", **PLAIN)
    found.upsert(points({4: "cold", 31: "warm"}))

    assert scores(found.text("warm", limit=100)).keys() == set(range(5, 30)) | {31}
    assert len(found.text("warm", limit=26)) == 26


def run_at_random(seed, steps):
    """Drive a collection and a dictionary through the same random steps."""
    rng = random.Random(seed)
    found = create()
    docs = {}

    def put(ids):
        more = documents(rng, ids)
        docs.update(more)
        found.upsert([p | {"mixed": p["id"] if p["id"] % 3 else "x"} for p in points(more)])

    put(range(rng.choice([5, 50, 300])))
    found.upsert(points({999: "red"}))
    docs[999] = "red"
    for _ in range(steps):
        step = rng.choice(["put", "patch", "delete", "optimize", "index", "drop"])
        if step == "put":
            put(rng.sample(range(400), rng.choice([1, 3, 30, 100])))
        elif step == "patch":
            ids = rng.sample(sorted(docs), min(len(docs), rng.choice([1, 10])))
            found.set_payload({"t": "red rain"}, ids=ids)
            docs.update(dict.fromkeys(ids, "red rain"))
        elif step == "delete":
            ids = rng.sample(sorted(docs), min(len(docs) - 2, rng.choice([1, 10])))
            found.delete(ids)
            docs = {i: t for i, t in docs.items() if i not in ids}
        elif step == "optimize":
            found.optimize()
        elif step == "index":
            found.create_payload_index("t", "text", **PLAIN)
        elif any(i.kind == "text" for i in found.indexes):
            found.drop_index("t.text_idx")
        for kind, options in OPTIONS.items():
            query = " ".join(rng.choices(WORDS, k=rng.choice([1, 2, 3])))
            query = query.replace("e", "z") if "fuzzy" in kind else query
            filter, passes = rng.choice([
                (None, lambda _: True),
                ("n < 4", lambda i: i % 10 < 4),
                ({"mixed": "x"}, lambda i: i % 3 == 0 and i != 999),
            ])  # fmt: skip
            expected = {i for i, t in docs.items() if passes(i) and holds(t, query, kind)}

            hits = found.text(query, limit=1000, filter=filter, columns="t", **options)

            assert set(hits["id"].to_pylist()) == expected, (seed, step, kind, query, filter)
            assert len(hits) == len(expected)
            top = found.text(query, limit=3, filter=filter, columns="t", **options)
            assert top["score"].to_pylist() == pytest.approx(hits["score"].to_pylist()[:3])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_writes_never_make_answers_stale(seed):
    run_at_random(seed, steps=20)


# ---------------------------------------------------------------------- analysis

STEMS = {
    "english": ("running shoes", "shoe"),
    "german": ("die Häuser", "haus"),
    "french": ("les chevaux mangeaient", "manger"),
    "spanish": ("corriendo rápidamente", "correr"),
    "italian": ("i gatti neri", "gatto"),
    "russian": ("красивые книги", "книга"),
    "swedish": ("flickorna springer", "flickor"),
    "dutch": ("de lopende honden", "hond"),
}


@pytest.mark.parametrize("language", STEMS)
def test_words_meet_by_their_stems(language):
    text, word = STEMS[language]
    found = collection({1: text, 2: "xyz"}, language=language)
    plain = collection({1: text, 2: "xyz"}, language=language, stem=False)

    assert scores(found.text(word)).keys() == {1}
    assert scores(plain.text(word)).keys() == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_builds_an_index(language):
    found = collection({1: "abcdef"}, language=language)

    assert scores(found.text("abcdef")).keys() == {1}


def test_accents_case_and_stop_words():
    docs = {1: "Café de la Paix", 2: "the best of the rest"}
    folded = collection(docs, ascii_folding=True)
    exact = collection(docs, ascii_folding=False, lower_case=False, stem=False, remove_stop_words=False)
    own = collection(docs, custom_stop_words=["paix"])

    assert scores(folded.text("CAFE")).keys() == {1}
    assert scores(folded.text("the")).keys() == set()
    assert scores(exact.text("cafe")).keys() == set()
    assert scores(exact.text("Café")).keys() == {1}
    assert scores(exact.text("the")).keys() == {2}
    assert scores(own.text("paix")).keys() == set()


@pytest.mark.parametrize(
    ("tokenizer", "query", "ids"),
    [
        ("icu", "東京", {1}),
        ("ngram", "ibrar", {2}),
        ("whitespace", "c++", {3}),
        ("simple", "c", {3}),
        ("raw", "my library", {2}),
    ],
)
def test_text_is_cut_as_asked(tokenizer, query, ids):
    docs = {1: "東京都に住んでいます", 2: "my library", 3: "c++ rocks"}
    options = {"base_tokenizer": tokenizer, "stem": False, "remove_stop_words": False}
    found = collection(docs, **options)

    assert scores(found.text(query)).keys() == ids


def test_an_index_changes_no_answer_of_a_collection_without_one():
    docs = {1: "Running shoes in RED", 2: "the red shoe", 3: "blue café", 4: None}
    without, indexed = collection(docs), collection(docs, stem=True)

    for query in ("run", "red shoes", "CAFE", "the", {"must": "red", "must_not": "run"}):
        assert scores(without.text(query)) == pytest.approx(scores(indexed.text(query)))


# ----------------------------------------------------------------------- columns


def two_columns():
    made = create()
    made.upsert([
        {"id": 1, "vector": [1, 0], "title": "red shoe", "body": "fast and light", "tags": ["warm", "red hat"]},
        {"id": 2, "vector": [0, 1], "title": "blue hat", "body": "red red laces and more words", "tags": []},
        {"id": 3, "vector": [1, 1], "title": "green", "body": None, "price": 5},
    ])  # fmt: skip
    return made


def test_the_best_column_counts_and_columns_have_factors():
    found = two_columns()
    title, body = scores(found.text("red", columns="title")), scores(found.text("red", columns="body"))

    assert scores(found.text("red", columns=["title", "body"])) == pytest.approx(title | body)
    weighted = scores(found.text("red", columns={"title": 1, "body": 5}))
    assert weighted == pytest.approx(title | {2: 5 * body[2]})


def test_blended_columns_are_one_text():
    found = two_columns()
    as_one = {1: "red shoe fast and light", 2: "blue hat red red laces and more words", 3: "green"}
    found.create_payload_index("title", "text", **PLAIN)
    found.create_payload_index("body", "text", **PLAIN)

    hits = scores(found.text("red laces", columns=["title", "body"], combine="blend"))

    assert hits.keys() == bm25(as_one, "red laces").keys()
    assert hits[2] > hits[1]
    assert scores(
        found.text("shoe light", columns=["title", "body"], combine="blend", operator="and")
    ).keys() == {1}


def test_without_names_the_indexed_columns_are_searched_or_all_of_text():
    found = two_columns()
    everywhere = scores(found.text("red"))
    found.create_payload_index("title", "text")

    assert everywhere.keys() == {1, 2}
    assert scores(found.text("red")).keys() == {1}
    assert scores(found.text("red", columns=["title", "body"])).keys() == {1, 2}


def test_lists_of_text_are_one_text_a_row():
    found = two_columns()

    before = scores(found.text("hat", columns="tags"))
    found.create_payload_index("tags", "text")

    assert before == scores(found.text("hat", columns="tags"))
    assert before.keys() == {1}


def test_payload_columns_of_the_answer_are_chosen_apart():
    found = two_columns()
    system = ["query_index", "id", "score", "_distance"]

    assert found.text("red", with_payload=["price"]).column_names == [*system, "price"]
    assert found.text("red", with_payload=False).column_names == system
    assert "vector" in found.text("red", with_payload=False, with_vectors=True).column_names


def test_a_list_of_queries_is_a_batch():
    found = two_columns()

    hits = found.text(["green", {"text": "blue"}], columns="title")

    assert list(zip(hits["query_index"].to_pylist(), hits["id"].to_pylist(), strict=True)) == [(0, 3), (1, 2)]


def test_the_plan_says_which_way_each_column_went():
    found = two_columns()
    found.create_payload_index("title", "text")
    found.upsert([{"id": 4, "vector": [1, 0], "title": "red"}])

    plan = found.text("red", columns=["title", "body"], explain=True).plan

    assert str(plan).startswith("text: ")
    assert "title through its text index, and 1 rows one by one" in str(plan)
    assert "body through an index made for this version alone: 'body' has no text index" in str(plan)


def test_pages_fit_together_where_scores_are_equal():
    found = collection(dict.fromkeys(range(500), "red"), **PLAIN)

    pages = [found.text("red", limit=7, offset=7 * page)["id"].to_pylist() for page in range(72)]

    assert [i for page in pages for i in page] == list(range(500))


def test_offset_and_threshold_leave_hits_out():
    docs = documents(random.Random(16), range(100))
    found = collection(docs)
    everything = found.text("red", limit=1000)
    half = everything["score"][len(everything) // 2].as_py()

    assert found.text("red", offset=3, limit=2)["id"].to_pylist() == everything["id"].to_pylist()[3:5]
    worst = found.text("red", limit=1000, score_threshold=half)["score"].to_pylist()[-1]
    assert worst >= half


def test_older_versions_answer_as_they_did():
    found = collection({1: "red shoe"}, **PLAIN)
    version = found.version
    found.upsert(points({1: "blue", 2: "red"}))

    assert scores(found.at(version).text("red")).keys() == {1}
    assert scores(found.text("red")).keys() == {2}


def test_the_private_index_goes_with_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = collection({1: "red shoe"})
    found.text("red")
    before = list(tmp_path.iterdir())
    found.upsert(points({2: "blue"}))
    gc.collect()

    assert len(before) == 1
    assert list(tmp_path.iterdir()) == []


def test_threads_share_one_private_index(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = collection(documents(random.Random(18), range(200)))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: found.text("red shoe")["id"].to_pylist(), range(16)))

    assert answers == [answers[0]] * 16
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.s3
@pytest.mark.slow
def test_text_on_s3(s3):
    docs = {1: "red shoe", 2: "blue shoe", 3: "red hat"}
    found = vd.create(f"{s3.url}/text", vectors=vd.VectorParams(size=2), storage_options=s3.options)
    found.upsert(points(docs))
    same_scores(found.text("red shoe"), bm25(docs, "red shoe"))
    found.create_payload_index("t", "text")
    found.upsert(points({4: "shoe"}))

    same_scores(found.text("red shoe"), bm25(docs | {4: "shoe"}, "red shoe"))


# ----------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.text("red", columns="titel"), vd.UnknownNameError, "no payload column 'titel'"),
        (lambda c: c.text("red", columns="price"), vd.InvalidInputError, "holds int64; it cannot be searched"),
        (lambda c: c.text("red", columns="made"), vd.InvalidInputError, "no column of its own"),
        (lambda c: c.text("red", columns=[]), vd.InvalidInputError, "columns is empty"),
        (lambda c: c.text("red", columns={"title": -1}), vd.InvalidInputError, "factor of column 'title' is -1"),
        (lambda c: c.text("red", operator="xor"), vd.UnknownNameError, "operator 'xor'"),
        (lambda c: c.text("red", fuzziness=3), vd.InvalidInputError, "fuzziness is 3; it must be 0 to 2 or"),
        (lambda c: c.text("red", fuzziness=1, phrase=True), vd.InvalidInputError, "a phrase takes no fuzziness"),
        (lambda c: c.text("red", slop=1), vd.InvalidInputError, "slop goes with phrase=True"),
        (lambda c: c.text("red", combine="blend", phrase=True), vd.InvalidInputError, "takes no phrase"),
        (lambda c: c.text("red", combine="sum"), vd.UnknownNameError, "combine 'sum'"),
        (lambda c: c.text("red", fuzzines=1), vd.UnknownNameError, "'fuzzines' is not known"),
        (lambda c: c.text({"must_not": ["red"]}), vd.InvalidInputError, "needs text, or clauses under must"),
        (lambda c: c.text({"text": "a", "must": ["b"]}), vd.InvalidInputError, "text or clauses, not both"),
        (lambda c: c.text({"text": "a", "phrase": True}, phrase=True), vd.InvalidInputError, "given twice"),
        (lambda c: c.text(3), vd.InvalidInputError, "text is of type int"),
        (lambda c: c.text("red", limit=0), vd.InvalidInputError, "limit is 0"),
        (lambda c: c.text("red", filter="titel = 'x'"), vd.UnknownNameError, "titel"),
        (lambda c: c.create_payload_index("title", "text", language="Klingon"), vd.UnknownNameError, "Klingon"),
        (lambda c: c.create_payload_index("title", "text", stemm=True), vd.UnknownNameError, "'stemm'"),
        (lambda c: c.create_payload_index("title", "text", stem=1), vd.InvalidInputError, "stem is 1"),
        (lambda c: c.create_payload_index("title", "text", custom_stop_words="a"), vd.InvalidInputError, "list of"),
        (lambda c: c.hybrid(), vd.InvalidInputError, "none was given"),
        (lambda c: c.hybrid([1, 0], text="red", fusion="sum"), vd.UnknownNameError, "fusion 'sum'"),
        (lambda c: c.hybrid([1, 0], text="red", weights=[1]), vd.InvalidInputError, "1 weights were given for 2"),
        (lambda c: c.hybrid([1, 0], text="red", alpha=0.5), vd.InvalidInputError, "alpha is 0.5"),
        (lambda c: c.hybrid([1, 0], candidates=5), vd.InvalidInputError, "candidates is 5"),
        (lambda c: c.hybrid(sparse={"indices": [1], "values": [1.0]}), vd.UnknownNameError, "0 sparse vectors"),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, error, message):
    found = two_columns()
    found.upsert([{"id": 9, "vector": [1, 0], "made": {"by": "hand"}}])

    with pytest.raises(error, match=re.escape(message)):
        call(found)


def test_a_phrase_needs_positions():
    found = collection({1: "red shoe"}, with_position=False)

    with pytest.raises(vd.InvalidInputError, match="has no positions") as caught:
        found.text("red shoe", phrase=True)
    assert "with_position=True" in caught.value.hint


def test_columns_that_cut_words_differently_are_not_blended():
    found = two_columns()
    found.create_payload_index("title", "text")
    found.create_payload_index("body", "text", stem=False)

    with pytest.raises(vd.InvalidInputError, match="cut words in different ways"):
        found.text("red", combine="blend")


def test_no_words_and_no_points_are_no_hits():
    assert len(create().text("red")) == 0
    assert len(collection({1: "red", 2: None, 3: ""}).text("blue")) == 0
    assert len(collection({1: "red"}).text("   ")) == 0
    assert len(collection({1: "the red"}).text("the of")) == 0


def test_without_a_column_of_text_there_is_nothing_to_search():
    bare = create()
    bare.upsert([{"id": 1, "vector": [1, 0], "n": 1}])

    with pytest.raises(vd.InvalidInputError, match="has no payload column of text"):
        bare.text("red")


def test_a_query_reads_back_from_its_repr():
    query = vd.TextQuery(must=["red"], should=[vd.TextQuery("shoe", fuzziness=1)], columns=["t"])

    assert eval(repr(query), {"TextQuery": vd.TextQuery}) == query
    assert vd.TextQuery.parse({"text": "red", "phrase": True}) == vd.TextQuery("red", phrase=True)


# ------------------------------------------------------------------------- hybrid


@pytest.fixture(scope="module")
def shop():
    rng = random.Random(17)
    docs = documents(rng, range(200))
    made = create(vectors=vd.VectorParams(size=4))
    vectors = np.random.default_rng(17).standard_normal((200, 4))
    made.upsert([{"id": i, "vector": vectors[i], "n": i % 10, "t": docs[i]} for i in docs])
    return made


def test_one_side_alone_ranks_as_it_does_alone(shop):
    vector = [1, 0, 0, 0]

    assert shop.hybrid(vector)["id"].to_pylist() == shop.search(vector)["id"].to_pylist()
    assert shop.hybrid(text="red")["id"].to_pylist() == shop.text("red")["id"].to_pylist()


@pytest.mark.parametrize("fusion", ["rrf", "qdrant_rrf", "dbsf", "rsf", "product"])
def test_hybrid_fuses_the_lists_of_its_sides(shop, fusion):
    from vecdataset.fusion import fuse

    vector = [1, 0, 0, 0]
    lists = [
        (hits["id"].to_numpy().astype(np.uint64), hits["score"].to_numpy().astype(np.float64))
        for hits in (shop.search(vector, limit=100), shop.text("red rain", limit=100))
    ]
    ids, fused = fuse(lists, fusion)

    hits = shop.hybrid(vector, text="red rain", fusion=fusion)

    assert hits["score"].to_pylist() == pytest.approx(fused[:10].tolist(), rel=1e-5)
    assert dict(zip(ids.tolist(), fused.tolist(), strict=True)).keys() >= set(hits["id"].to_pylist())


def test_hybrid_filters_before_every_side(shop):
    hits = shop.hybrid([1, 0, 0, 0], text="red", filter="n = 3", limit=20)

    assert sorted(hits["id"].to_pylist()) == [i for i in range(200) if i % 10 == 3]


def test_weights_and_constants_reach_the_fusion(shop):
    vector, words = [1, 0, 0, 0], "red rain"

    heavy = shop.hybrid(vector, text=words, weights=[0, 1], limit=5)
    rsf = shop.hybrid(vector, text=words, fusion="rsf", alpha=0.0, limit=5)
    close = shop.hybrid(vector, text=words, k=1, limit=1)

    assert heavy["id"].to_pylist() == shop.text(words, limit=5)["id"].to_pylist()
    assert rsf["id"].to_pylist() == shop.text(words, limit=5)["id"].to_pylist()
    assert close["score"][0].as_py() >= 0.5


def test_text_stands_in_prefetch_trees(shop):
    tree = [
        {"query": [1, 0, 0, 0], "limit": 50},
        {"query": {"text": "red shoe", "columns": ["t"], "operator": "or"}, "filter": "n < 5", "limit": 50},
    ]
    hits = shop.query({"fusion": "rrf"}, prefetch=tree, limit=10)
    again = shop.query({"text": "red"}, prefetch={"query": [1, 0, 0, 0], "limit": 20}, limit=100)
    nearest = set(shop.search([1, 0, 0, 0], limit=20)["id"].to_pylist())

    assert len(hits) == 10
    assert set(again["id"].to_pylist()) == nearest & scores(shop.text("red", limit=1000)).keys()


def test_sparse_is_a_side_too():
    made = create(sparse={"words": vd.SparseVectorParams()})
    terms = {1: [1, 2], 2: [2, 3]}
    made.upsert([
        {"id": i, "vector": {"": [1, i], "words": vd.SparseVector(t, [1.0, 2.0])}, "payload": {"t": "red"}}
        for i, t in terms.items()
    ])  # fmt: skip

    hits = made.hybrid([0, 1], sparse=vd.SparseVector([3], [1.0]), text="red")

    assert hits["id"].to_pylist() == [2, 1]
