"""What the SQL suite expects, worked out from the shipped files with NumPy and plain Python alone.

Nothing here imports the library. A ranking whose order hangs on the last bits of a float is refused,
so that every expected row is certain.
"""

import json
import math
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

DATA = Path(__file__).parent.parent / "vecdataset" / "data"
EPSILON = float(np.finfo(np.float32).eps)
CERTAIN = 1e-6
LETTERS = re.compile(r"[^\W_]+")


def _read():
    table = pq.read_table(DATA / "packages.parquet")
    vectors = np.stack([np.array(v, np.float64) for v in table["embedding"].to_pylist()])
    rows = table.drop(["embedding"]).to_pylist()
    return [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]


PACKAGES = _read()
BY_ID = {p["id"]: p for p in PACKAGES}
MATRIX = np.stack([p["vector"] for p in PACKAGES])
UNIT = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
PLACE = {p["id"]: n for n, p in enumerate(PACKAGES)}

_questions = pq.read_table(DATA / "questions.parquet")
_words = [
    "audio", "store", "excel", "fonts", "recover", "sequence",
    "backup", "astronomy", "password", "chess", "proxy", "accounting",
]  # fmt: skip
QUESTIONS = {
    word: np.array(vector, np.float32)
    for word, vector in zip(_words, _questions["embedding"].to_pylist(), strict=True)
}
"""The questions' vectors by a word of theirs, in the order of the file."""


# --------------------------------------------------------------------------- choosing


def matching(where=None, points=None):
    """Return the points for which an expression over their payload holds; None compares with nothing."""
    if where is None:
        return list(PACKAGES if points is None else points)
    code = compile(where, "where", "eval")

    def holds(point):
        try:
            return bool(eval(code, {"len": len, "any": any}, point))
        except TypeError:
            return False

    return [p for p in (PACKAGES if points is None else points) if holds(p)]


def count(where=None):
    return len(matching(where))


def top(scored, k, *, larger=True, ties=False):
    """Return the best `k` of (point, score), with `_rank` and `score`; certain of their order."""
    sign = -1 if larger else 1
    best = sorted(scored, key=lambda pair: (sign * pair[1], pair[0]["id"]))[: k + 1]
    for (_, one), (_, two) in pairwise(best):
        assert ties or abs(one - two) > CERTAIN, f"{one} and {two} are too near to tell which is first"
    return [p | {"score": s, "_rank": n} for n, (p, s) in enumerate(best[:k], 1)]


# ---------------------------------------------------------------------------- vectors


def cosine(a, b):
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


SIMILARITIES = {
    "Cosine": cosine,
    "Dot": lambda a, b: float(a @ b),
    "Euclid": lambda a, b: -float(np.linalg.norm(a - b)),
    "Manhattan": lambda a, b: -float(np.abs(a - b).sum()),
}
"""Larger is nearer."""


def nearest(query, k=10, where=None, *, metric="Cosine", using="vector", points=None, leave=()):
    """Return the points nearest to a vector, with score and `_distance` as the library defines them."""
    query = np.array(query, np.float64)
    near = SIMILARITIES[metric]
    if points is None:
        hits = top([pair for pair in _ranked(query.tobytes(), where) if pair[0]["id"] not in leave], k)
    else:
        chosen = [p for p in matching(where, points) if p["id"] not in leave and p.get(using) is not None]
        hits = top([(p, near(query, p[using])) for p in chosen], k)
    for hit in hits:
        similarity = hit["score"]
        hit["_distance"] = 1 - similarity if metric == "Cosine" else -similarity
        hit["score"] = similarity if metric in ("Cosine", "Dot") else -similarity
    return hits


@cache
def _ranked(query, where):
    """Return the packages that match with their cosine, best first; the vector comes as bytes."""
    vector = np.frombuffer(query)
    similar = UNIT @ (vector / np.linalg.norm(vector))
    scored = [(p, float(similar[PLACE[p["id"]]])) for p in matching(where)]
    return sorted(scored, key=lambda pair: -pair[1])


def near(id, k=10, where=None):
    return nearest(BY_ID[id]["vector"], k, where, leave={id})


def _vector(example):
    return BY_ID[example]["vector"] if isinstance(example, int) else np.array(example, np.float64)


def _apart(*examples):
    return {e for e in examples if isinstance(e, int)}


def sigmoid(x):
    return x / (1 + abs(x))


def recommend(positive, negative=(), k=10, where=None, *, strategy="average_vector"):
    plus, minus = [_vector(e) for e in positive], [_vector(e) for e in negative]
    leave = _apart(*positive, *negative)
    if strategy == "average_vector":
        average = np.mean(plus, axis=0)
        query = 2 * average - np.mean(minus, axis=0) if minus else average
        return nearest(query, k, where, leave=leave)

    def score(point):
        s_plus = [cosine(v, point["vector"]) for v in plus]
        s_minus = [cosine(v, point["vector"]) for v in minus]
        if strategy == "sum_scores":
            return sum(s_plus) - sum(s_minus)
        best, worst = max(s_plus, default=-math.inf), max(s_minus, default=-math.inf)
        return (sigmoid(best) + 1) / 2 if best > worst else -(sigmoid(worst) + 1) / 2

    return top([(p, score(p)) for p in matching(where) if p["id"] not in leave], k)


def discover(target, pairs, k=10, where=None):
    leave = _apart(target, *(e for pair in pairs for e in pair))
    pairs = [(_vector(a), _vector(b)) for a, b in pairs]
    goal = None if target is None else _vector(target)

    def score(point):
        v = point["vector"]
        ranks = [np.sign(cosine(a, v) - cosine(b, v)) for a, b in pairs]
        return float(sum(ranks)) + (sigmoid(cosine(goal, v)) + 1) / 2

    return top([(p, score(p)) for p in matching(where) if p["id"] not in leave], k)


def context(pairs, k=10, where=None):
    """Only the scores are certain: many points share the best one."""
    leave = _apart(*(e for pair in pairs for e in pair))
    pairs = [(_vector(a), _vector(b)) for a, b in pairs]

    def score(point):
        v = point["vector"]
        return sum(sigmoid(min(cosine(a, v) - cosine(b, v) - EPSILON, 0.0)) for a, b in pairs)

    return top([(p, score(p)) for p in matching(where) if p["id"] not in leave], k, ties=True)


# ------------------------------------------------------------------------------- text


def cut(text):
    return [word.lower() for word in LETTERS.findall(text or "")]


def text(query, k=10, where=None, *, column="summary", every=False, k1=1.2, b=0.75):
    """Return points by BM25 over one column, without stems and stop words."""
    documents = [(p, words) for p in PACKAGES if (words := cut(p[column]))]
    average = sum(len(words) for _, words in documents) / len(documents)
    chosen = {p["id"] for p in matching(where)}
    scores = {}
    for word in cut(query):
        n = sum(word in words for _, words in documents)
        idf = math.log((len(documents) - n + 0.5) / (n + 0.5) + 1)
        for p, words in documents:
            if tf := words.count(word):
                part = idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(words) / average))
                scores[p["id"]] = scores.get(p["id"], 0.0) + part
    if every:
        chosen &= {p["id"] for p, words in documents if set(cut(query)) <= set(words)}
    return top([(BY_ID[i], s) for i, s in scores.items() if i in chosen], k)


# ----------------------------------------------------------------------------- fusion


def rrf(*lists, k=10, constant=60, weights=None):
    scores = {}
    for hits, weight in zip(lists, weights or [1] * len(lists), strict=True):
        for hit in hits:
            scores[hit["id"]] = scores.get(hit["id"], 0.0) + weight / (constant + hit["_rank"])
    return top([(BY_ID[i], s) for i, s in scores.items()], k)


def rsf(first, second, *, k=10, alpha=0.7):
    scores = {}
    for hits, weight in ((first, alpha), (second, 1 - alpha)):
        values = [hit["score"] for hit in hits]
        low, high = min(values), max(values)
        for hit in hits:
            part = (hit["score"] - low) / (high - low)
            scores[hit["id"]] = scores.get(hit["id"], 0.0) + weight * part
    return top([(BY_ID[i], s) for i, s in scores.items()], k)


# ----------------------------------------------------------------------------- orders


def scroll(k=10, start=0, where=None):
    return sorted((p for p in matching(where) if p["id"] >= start), key=lambda p: p["id"])[:k]


def ordered(key, k=10, where=None, *, largest=False):
    chosen = [p for p in matching(where) if p[key] is not None]
    best = sorted(chosen, key=lambda p: (p[key], p["id"]), reverse=largest)[: k + 1]
    for one, two in pairwise(best):
        assert one[key] != two[key], f"{key} does not tell {one['id']} from {two['id']}"
    return best[:k]


def get(*ids):
    return [BY_ID[i] for i in ids]


def facet(key, k=10, where=None):
    counts = {}
    for p in matching(where):
        for value in set(p[key]) if isinstance(p[key], list) else {p[key]}:
            counts[value] = counts.get(value, 0) + 1
    return sorted(([v, n] for v, n in counts.items() if v is not None), key=lambda r: (-r[1], r[0]))[:k]


def grouped(hits, key, k, size):
    """Return the best `size` of the best `k` groups, group by group."""
    groups = {}
    for hit in hits:
        groups.setdefault(hit[key], []).append(hit)
    return [hit for group in list(groups.values())[:k] for hit in group[:size]]


def rows(points, names):
    """Return columns of points as rows; floats in four digits after the point."""
    out = [[p[name] for name in names.split()] for p in points]
    return [[round(float(v), 4) if isinstance(v, float) else v for v in row] for row in out]


def each(found, names, words=None):
    """Return the rows of `found(vector)` for every question, after the question's word."""
    return [[w, *row] for w in sorted(words or QUESTIONS) for row in rows(found(QUESTIONS[w]), names)]


# ------------------------------------------------------ a small collection of every kind


def _shelf():
    """Forty games and sound packages with a vector of every distance, sparse and late ones too."""
    out = []
    for p in matching("section in ('games', 'sound')")[:40]:
        v = p["vector"]
        words = sorted({(i * 7) % 50: float(round(abs(v[i]) * 10, 3)) for i in range(6)}.items())
        out.append(
            {"id": f"p{p['id']}", "name": p["name"], "section": p["section"], "depends": p["depends"]}
            | {
                "cosine": v[:8].astype(np.float32),
                "dot": v[8:16].astype(np.float32),
                "euclid": v[16:24].astype(np.float32),
                "manhattan": v[24:32].astype(np.float32),
                "late": np.stack([v[32:36], v[36:40]]).astype(np.float32),
                "words": {"indices": [i for i, _ in words], "values": [x for _, x in words]},
            }
        )
    return out


SHELF = _shelf()


def on_shelf(name):
    return next(p for p in SHELF if p["name"] == name)


def shelved(query, metric, using, k=10, where=None):
    return nearest(query, k, where, metric=metric, using=using, points=SHELF)


def sparse(query, k=10, where=None):
    def score(p):
        own = dict(zip(p["words"]["indices"], p["words"]["values"], strict=True))
        pairs = zip(query["indices"], query["values"], strict=True)
        return sum(own.get(i, 0.0) * x for i, x in pairs)

    found = [
        (p, score(p)) for p in matching(where, SHELF) if set(p["words"]["indices"]) & set(query["indices"])
    ]
    return top(found, k)


def late(query, k=10, where=None):
    """Σ over the query's vectors of the best cosine among the point's."""

    def score(p):
        return sum(max(cosine(np.array(q), v) for v in p["late"]) for q in query)

    return top([(p, score(p)) for p in matching(where, SHELF)], k)


# ------------------------------------------------------------------- what files may say

NAMES = {
    **QUESTIONS,
    **{
        f.__name__: f
        for f in (
            matching, count, nearest, near, recommend, discover, context, text, rrf, rsf, scroll, ordered,
            get, facet, rows, grouped, each, shelved, sparse, late, on_shelf, cosine, cut,
        )
    },
    "np": np,
    "json": json,
    "BY_ID": BY_ID,
    "PACKAGES": PACKAGES,
    "SHELF": SHELF,
    "QUESTIONS": QUESTIONS,
}  # fmt: skip


def answer(expression):
    """Return the rows that an `oracle` line stands for, as JSON would hold them."""
    return json.loads(json.dumps(eval(expression, dict(NAMES)), default=lambda x: np.asarray(x).tolist()))
