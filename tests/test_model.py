"""A collection and a dictionary are driven through the same random steps, and never differ.

The model is a dict of id to (vector, payload), and NumPy for distances. After every step all
points are compared; versions are remembered and looked at again later. Collections cross
`full_scan_threshold` and `indexing_threshold`, both 50, so that searches go through an index.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import vecdataset as vd

THRESHOLD = 50
STEPS_PER_RUN = 50
SLOW_STEPS = 5_000

# ------------------------------------------------------------------------------------ data

CONFIGS = st.fixed_dictionaries(
    {
        "store": st.sampled_from(["local", "memory"]),
        "id_type": st.sampled_from(["uint64", "uuid", "string", "mixed"]),
        "declared": st.booleans(),
        "warm": st.booleans(),
        "begin": st.sampled_from(["empty", "loaded", "indexed", "indexed"]),
        "vectors": st.sampled_from(
            [
                {"": vd.VectorParams(8, "Cosine")},
                {"": vd.VectorParams(8, "Cosine", "float16")},
                {"": vd.VectorParams(5, "Cosine")},
                {"": vd.VectorParams(8, "Dot", index="ivf_flat")},
                {"": vd.VectorParams(3, "Dot", index="ivf_sq")},
                {"": vd.VectorParams(8, "Euclid", index="ivf_hnsw_flat")},
                {"": vd.VectorParams(8, "Euclid", "float16", index="hnsw")},
                {"": vd.VectorParams(8, "Euclid", "uint8")},
                {"": vd.VectorParams(8, "Cosine", "int8", index="ivf_hnsw_sq")},
                {"": vd.VectorParams(1, "Manhattan", "float16")},
                {
                    "text": vd.VectorParams(8, "Cosine"),
                    "image": vd.VectorParams(4, "Euclid", index="ivf_flat"),
                },
                {"a": vd.VectorParams(8, "Dot"), "": vd.VectorParams(4, "Manhattan")},
            ]
        ),
    }
)
SPECIAL_IDS = {
    "uint64": [0, 1, 2, 3, 2**53 + 1, 2**63, 2**64 - 1],
    "uuid": [str(uuid.UUID(int=k << 100)) for k in range(7)],
    "string": ["a", "b", "o'clock", 'quo"te', "12", "ключ", "%"],
    "mixed": [0, 1, 10, 2**64 - 1, str(uuid.UUID(int=5)), str(uuid.UUID(int=9 << 90)), 2**63],
}
KEYS = [
    "n",
    "t",
    "a",
    "A",
    "a.b",
    "",
    "ID",
    "id",
    "vector",
    "payload",
    "_extra",
    "ключ",
    'quo"te',
    "two words",
]
FILTER_KEYS = ["n", "t", "a", "A", "a.b", "ID", "ключ", "two words"]
TEXTS = ["x", "y", "", "o'clock", 'q"uote', "ключ", "x y"]
NUMBERS = [0, 1, 2, 3, -1, 2**53, 2**53 + 1, -(2**62) - 1, 2**63, 0.0, -0.0, 1.0, 2.5, 1e16, 1e300]

scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(-3, 9), st.sampled_from(TEXTS)
)
values = st.one_of(
    scalars,
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(KEYS), st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=2),
)
payloads = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
vector_seeds = st.one_of(st.none(), st.integers(0, 400))
places = st.integers(0, 6)
entries = st.lists(st.tuples(places, vector_seeds, payloads), min_size=1, max_size=4)
handles = st.integers(0, 1)

# ---------------------------------------------------------------------------------- filters

MISSING = object()


def path_text(key):
    plain = key.isascii() and key.isidentifier()
    return key if plain else f'"{key}"'


def elements(payload, key):
    value = payload.get(key, MISSING)
    if value is MISSING:
        return []
    return value if isinstance(value, list) else [value]


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(value, wanted):
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(wanted, int):
        return isinstance(value, int) and value == wanted and -(2**63) <= value < 2**63
    return type(value) is type(wanted) and value == wanted


def match_value(key, wanted):
    return (
        {"key": path_text(key), "match": {"value": wanted}},
        lambda _, p: any(equal(v, wanted) for v in elements(p, key)),
    )


def match_any(key, wanted):
    return (
        {"key": path_text(key), "match": {"any": wanted}},
        lambda _, p: any(equal(v, w) for v in elements(p, key) for w in wanted),
    )


def match_except(key, unwanted):
    return (
        {"key": path_text(key), "match": {"except": unwanted}},
        lambda _, p: any(v is not None and not any(equal(v, w) for w in unwanted) for v in elements(p, key)),
    )


def within(key, low, high):
    return (
        {"key": path_text(key), "range": {"gte": low, "lt": high}},
        lambda _, p: any(is_number(v) and low <= float(v) < high for v in elements(p, key)),
    )


def is_empty(key):
    return {"is_empty": {"key": path_text(key)}}, lambda _, p: p.get(key) in (None, [])


def is_null(key):
    return {"is_null": {"key": path_text(key)}}, lambda _, p: any(v is None for v in elements(p, key))


def has_id(ids):
    return {"has_id": ids}, lambda i, _: i in ids


def clause(kind, conditions):
    specs, tests = [c[0] for c in conditions], [c[1] for c in conditions]
    if kind == "must":
        return {"must": specs}, lambda i, p: all(t(i, p) for t in tests)
    if kind == "should":
        return {"should": specs}, lambda i, p: any(t(i, p) for t in tests)
    return {"must_not": specs}, lambda i, p: not any(t(i, p) for t in tests)


filter_keys = st.sampled_from(FILTER_KEYS)
texts_or_ints = st.one_of(
    st.lists(st.sampled_from(TEXTS), max_size=2), st.lists(st.integers(0, 3), max_size=2)
)


@st.composite
def json_filters(draw, ids):
    condition = st.one_of(
        st.builds(
            match_value, filter_keys, st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(TEXTS))
        ),
        st.builds(match_any, filter_keys, texts_or_ints),
        st.builds(match_except, filter_keys, texts_or_ints),
        st.builds(
            within, filter_keys, st.sampled_from([-5, 0, 1.5]), st.sampled_from([2, 60, 2**53 + 2, 1e301])
        ),
        st.builds(is_empty, filter_keys),
        st.builds(is_null, filter_keys),
        st.builds(has_id, st.lists(st.sampled_from(ids), max_size=3)),
    )
    kind = st.sampled_from(["must", "should", "must_not"])
    conditions = st.lists(condition, min_size=1, max_size=2)
    if draw(st.integers(0, 3)) == 0:
        inner = clause(draw(kind), draw(conditions))
        return clause(draw(kind), [inner, draw(condition)])
    return clause(draw(kind), draw(conditions))


SQL = [
    "n >= 1 AND n < 30", "n = 2 OR t = 'x'", "NOT (n > 2)", "t IN ('x', 'y')", "t <> 'x'", "a IS NULL",
    "n IS NOT NULL AND a IS NOT NULL", "n BETWEEN 0 AND 10.5", "t LIKE 'x%'", '"a.b" = 1', "n <> 1.0",
]  # fmt: skip


def sql_columns(text):
    return {key for key in ("n", "t", "a", "a.b") if key in text.replace("'x'", "").replace("AND", "").split('"')
            or any(key == word.strip("()") for word in text.split())}  # fmt: skip


# --------------------------------------------------------------------------------- distances

ELEMENT = {"float32": np.float32, "float16": np.float16, "uint8": np.float16, "int8": np.float16}


def draw_vectors(seed, declared):
    """One vector each, or None; of several, some are missing."""
    if seed is None:
        return dict.fromkeys(declared)
    return {
        name: None if len(declared) > 1 and (seed + at) % 5 == 0 else draw_vector(seed + 31 * at, params)
        for at, (name, params) in enumerate(declared.items())
    }


def as_json(vectors):
    """Vectors as a point gives them out."""
    if vectors.keys() == {""}:
        return None if vectors[""] is None else vectors[""].tolist()
    return {name: v.tolist() for name, v in vectors.items() if v is not None}


def draw_vector(seed, params):
    """Some on a coarse grid, so that there are ties and zero vectors; some anywhere."""
    rng = np.random.default_rng(seed)
    if seed == 0:
        return np.zeros(params.size)
    if params.datatype in ("uint8", "int8"):
        return rng.integers(0, 128, params.size).astype(float)
    grid = rng.integers(-2, 3, params.size) / 2
    return grid if seed % 4 else rng.normal(size=params.size).astype(ELEMENT[params.datatype]).astype(float)


def distances(params, query, matrix):
    query = query.astype(np.float32).astype(float)
    if params.distance == "Dot":
        return -(matrix @ query)
    if params.distance == "Euclid":
        return np.sqrt(((matrix - query) ** 2).sum(axis=1))
    if params.distance == "Manhattan":
        return np.abs(matrix - query).sum(axis=1)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
    return 1 - np.divide(matrix @ query, norms, out=np.zeros(len(matrix)), where=norms > 0)


def score_of(params, distance):
    if params.distance == "Dot":
        return -distance
    return 1 - distance if params.distance == "Cosine" else distance


def canonical(payload):
    return json.dumps(payload, sort_keys=True)


def id_order(value):
    return (0, value, "") if isinstance(value, int) else (1, 0, value)


# ------------------------------------------------------------------------------- the machine


class Machine(RuleBasedStateMachine):
    steps_done: ClassVar[int] = 0
    index_searches: ClassVar[int] = 0

    def __init__(self):
        super().__init__()
        self.folder = None
        self.points = {}
        self.history = {}
        self.keys_seen = set()

    @initialize(config=CONFIGS)
    def create(self, config):
        self.declared = config["vectors"]
        self.id_type = config["id_type"]
        self.ids = SPECIAL_IDS[self.id_type]
        if config["store"] == "memory":
            self.url = f"memory://model/{uuid.uuid4()}"
        else:
            self.folder = Path(tempfile.mkdtemp(prefix="vecdataset-model-"))
            self.url = str(self.folder / "points")
        # Only integers and UUIDs together say by themselves that ids are mixed.
        declared = config["declared"] or self.id_type == "mixed"
        first = vd.create(
            self.url,
            vectors=self.declared,
            id_type=self.id_type if declared else None,
            full_scan_threshold=THRESHOLD,
            indexing_threshold=THRESHOLD,
        )
        self.handles = [first, vd.open(self.url)]
        if config["warm"]:
            self.handles[1].warm()
        if config["begin"] != "empty":
            self.load(first, start=0, count=70, seed=7, verb="upsert")
        if config["begin"] == "indexed":
            first.optimize()

    def teardown(self):
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @invariant()
    def every_point_is_as_in_the_model(self):
        if not hasattr(self, "handles"):
            return
        Machine.steps_done += 1
        self.same(self.handles[0], self.points)
        assert len(self.handles[1]) == len(self.points)

    # ------------------------------------------------------------------------- comparisons

    def same(self, handle, points):
        found = handle.scroll(limit=10_000, with_vectors=True).to_pylist(layout="qdrant")
        assert [p["id"] for p in found] == sorted(points, key=id_order)
        for point in found:
            vectors, payload = points[point["id"]]
            assert canonical(point["payload"]) == canonical(payload)
            assert point["vector"] == as_json(vectors)

    def written(self, handle, done, points):
        self.points = points
        self.history[done.version] = self.history[handle.version] = points
        for _, payload in points.values():
            self.keys_seen.update(payload)

    def bulk_ids(self, start, count):
        make = {
            "uint64": lambda k: 100 + k,
            "uuid": lambda k: str(uuid.UUID(int=100 + k)),
            "string": lambda k: f"s{k}",
            "mixed": lambda k: 100 + k if k % 2 else str(uuid.UUID(int=100 + k)),
        }[self.id_type]
        return [make(k) for k in range(start, start + count)]

    def choose(self, data, *, some=False):
        """Ids that may or may not be there."""
        there = sorted(self.points, key=id_order)
        known = st.sampled_from(there[:: max(1, len(there) // 20)]) if there else st.sampled_from(self.ids)
        chosen = data.draw(
            st.lists(st.one_of(st.sampled_from(self.ids), known), min_size=int(some), max_size=4)
        )
        return list(dict.fromkeys(chosen))

    def draw_filter(self, data):
        if data.draw(st.booleans()):
            spec, test = data.draw(json_filters(self.ids))
            parsed = vd.Filter.parse(spec)
            matching = {i for i, (_, p) in self.points.items() if test(i, p)}
            assert matching == {
                i for i, (_, p) in self.points.items() if parsed.matches({"id": i, "payload": p})
            }
            return spec, matching
        spec = data.draw(
            st.sampled_from([s for s in SQL if sql_columns(s) <= self.keys_seen] or ["id IS NOT NULL"])
        )
        parsed = vd.Filter.parse(spec)
        return spec, {i for i, (_, p) in self.points.items() if parsed.matches({"id": i, "payload": p})}

    def selection(self, data):
        """Keyword arguments of a patch or a delete, and the ids that they reach."""
        if data.draw(st.integers(0, 3)):
            ids = self.choose(data)
            return {"ids": ids}, {i for i in ids if i in self.points}
        spec, matching = self.draw_filter(data)
        return {"filter": spec}, matching

    # ------------------------------------------------------------------------------ writes

    def batch(self, given):
        new = {}
        points = []
        for place, seed, payload in given:
            vectors = draw_vectors(seed, self.declared)
            points.append(vd.Point(self.ids[place], as_json(vectors), payload))
            new[self.ids[place]] = (vectors, payload)
        return points, new

    @rule(which=handles, given=entries, as_dicts=st.booleans())
    def upsert(self, which, given, as_dicts):
        points, new = self.batch(given)
        if as_dicts:
            points = [{"id": p.id, "vector": p.vector, "payload": p.payload} for p in points]
        handle = self.handles[which]

        done = handle.upsert(points)

        assert (done.inserted, done.updated) == (len(new.keys() - self.points), len(new.keys() & self.points))
        assert done.version <= handle.version
        self.written(handle, done, {**self.points, **new})

    @rule(which=handles, given=entries)
    def insert(self, which, given):
        points, new = self.batch(given)
        handle = self.handles[which]
        if len(new) < len(points) or new.keys() & self.points:
            before = handle.version
            with pytest.raises(vd.PointExistsError):
                handle.insert(points)
            assert handle.version == before
            return

        done = handle.insert(points)

        assert (done.inserted, done.updated) == (len(new), 0)
        self.written(handle, done, {**self.points, **new})

    @rule(
        which=handles,
        start=st.integers(0, 60),
        count=st.integers(10, 90),
        seed=st.integers(0, 99),
        verb=st.sampled_from(["upsert", "upsert frame", "insert"]),
    )
    def load_many(self, which, start, count, seed, verb):
        self.load(self.handles[which], start=start, count=count, seed=seed, verb=verb)

    def load(self, handle, *, start, count, seed, verb):
        rng = np.random.default_rng(seed)
        ids = self.bulk_ids(start, count)
        vectors = [draw_vectors(int(s), self.declared) for s in rng.integers(0, 400, count)]
        numbers = [None if n == 0 else int(n) for n in rng.integers(0, 60, count)]
        words = [TEXTS[k] for k in rng.integers(0, len(TEXTS), count)]
        rows = zip(numbers, words, strict=True)
        rows = [{"t": t} if n is None else {"n": n, "t": t} for n, t in rows]
        new = {i: (v, p) for i, v, p in zip(ids, vectors, rows, strict=True)}
        points = [vd.Point(i, as_json(v), p) for i, (v, p) in new.items()]
        if verb == "insert" and new.keys() & self.points:
            with pytest.raises(vd.PointExistsError):
                handle.insert(points)
            return
        if verb == "upsert frame":
            points = pa.table({
                "id": pa.array(ids if self.id_type != "mixed" else map(str, ids)),
                "n": pa.array(numbers, pa.int32()),
                "t": pa.array(words),
                **{f"{name}__vector" if name else "vector": pa.array([v[name] for v in vectors], pa.list_(pa.float64()))
                   for name in self.declared},
            })  # fmt: skip

        done = handle.insert(points) if verb == "insert" else handle.upsert(points)

        assert (done.inserted, done.updated) == (len(new.keys() - self.points), len(new.keys() & self.points))
        self.written(handle, done, {**self.points, **new})

    @rule(which=handles, data=st.data())
    def delete(self, which, data):
        arguments, reached = self.selection(data)
        handle = self.handles[which]

        done = handle.delete(**arguments)

        assert done.deleted == len(reached)
        self.written(handle, done, {i: v for i, v in self.points.items() if i not in reached})

    def patch(self, data, which, call, change):
        arguments, reached = self.selection(data)
        handle = self.handles[which]
        before = handle.version

        done = call(handle, arguments)

        assert done.updated == len(reached)
        assert reached or handle.version == before
        changed = {i: change(*self.points[i]) for i in reached}
        self.written(handle, done, {**self.points, **changed})

    @rule(which=handles, data=st.data(), payload=payloads)
    def set_payload(self, which, data, payload):
        def change(vector, old):
            merged = {**old, **payload}
            return vector, {k: v for k, v in merged.items() if k not in payload or v is not None}

        self.patch(data, which, lambda h, selected: h.set_payload(payload, **selected), change)

    @rule(which=handles, data=st.data(), payload=payloads)
    def overwrite_payload(self, which, data, payload):
        kept = {k: v for k, v in payload.items() if v is not None}
        self.patch(data, which, lambda h, s: h.overwrite_payload(payload, **s), lambda v, _: (v, kept))

    @rule(which=handles, data=st.data(), keys=st.lists(st.sampled_from(KEYS), max_size=3))
    def delete_payload(self, which, data, keys):
        self.patch(
            data,
            which,
            lambda h, selected: h.delete_payload(keys, **selected),
            lambda v, p: (v, {k: x for k, x in p.items() if k not in keys}),
        )

    @rule(which=handles, data=st.data())
    def clear_payload(self, which, data):
        self.patch(data, which, lambda h, selected: h.clear_payload(**selected), lambda v, _: (v, {}))

    @rule(which=handles, data=st.data())
    def delete_vectors(self, which, data):
        name = data.draw(st.sampled_from(sorted(self.declared)))
        self.patch(
            data,
            which,
            lambda h, selected: h.delete_vectors(name or "vector", **selected),
            lambda v, p: ({**v, name: None}, p),
        )

    @rule(which=handles, data=st.data(), seeds=st.lists(st.integers(0, 400), min_size=4, max_size=4))
    def update_vectors(self, which, data, seeds):
        ids = self.choose(data, some=True)
        name = data.draw(st.sampled_from(sorted(self.declared)))
        new = {i: draw_vector(s, self.declared[name]) for i, s in zip(ids, seeds, strict=False)}
        points = [vd.Point(i, {name: v} if name else v) for i, v in new.items()]
        handle = self.handles[which]
        if new.keys() - self.points:
            before = handle.version
            with pytest.raises(vd.PointNotFoundError):
                handle.update_vectors(points)
            assert handle.version == before
            return

        done = handle.update_vectors(points)

        assert done.updated == len(new)
        changed = {i: ({**self.points[i][0], name: v}, self.points[i][1]) for i, v in new.items()}
        self.written(handle, done, {**self.points, **changed})

    @rule(which=handles, given=entries, bad=st.sampled_from([[1.0], "text", [float("nan")]]))
    def a_mistake_anywhere_writes_nothing(self, which, given, bad):
        points, _ = self.batch(given)
        name, params = next(iter(self.declared.items()))
        vector = bad * params.size if bad != [1.0] else [1.0] * (params.size + 1)
        handle = self.handles[which]
        before = handle.version

        with pytest.raises(vd.InvalidVectorError):
            handle.upsert([*points, vd.Point(self.ids[0], {name: vector}, {"new key": 1})])

        assert handle.version == before

    # ------------------------------------------------------------------------------- reads

    @rule(which=handles, data=st.data())
    def get(self, which, data):
        ids = self.choose(data)

        found = self.handles[which].get(ids, with_vectors=True).to_pylist(layout="qdrant")

        assert [p["id"] for p in found] == [i for i in ids if i in self.points]
        for point in found:
            vectors, payload = self.points[point["id"]]
            assert canonical(point["payload"]) == canonical(payload)
            assert point["vector"] == as_json(vectors)

    @rule(which=handles, data=st.data())
    def count(self, which, data):
        spec, matching = self.draw_filter(data)

        assert self.handles[which].count(spec) == len(matching)

    @rule(which=handles, data=st.data(), limit=st.sampled_from([3, 17, 1000]))
    def scroll(self, which, data, limit):
        spec, matching = self.draw_filter(data)
        handle = self.handles[which]
        found, offset = [], None
        while True:
            page = handle.scroll(limit=limit, offset=offset, filter=spec)
            found += page.to_pylist(layout="qdrant")
            offset = page.next_offset
            if offset is None or len(found) > 40:
                break

        expected = sorted(matching, key=id_order)
        assert [p["id"] for p in found] == (expected if offset is None else expected[: len(found)])
        assert all(canonical(p["payload"]) == canonical(self.points[p["id"]][1]) for p in found)

    def check_hits(self, hits, query, matching, window, *, name, exact, points=None):
        points = self.points if points is None else points
        params = self.declared[name]
        limit, offset = window
        ids = [i for i in sorted(matching, key=id_order) if points[i][0][name] is not None]
        matrix = np.array([points[i][0][name] for i in ids]).reshape(len(ids), params.size)
        truth = dict(zip(ids, distances(params, query, matrix), strict=True))
        found = [h["id"] for h in hits]
        own = np.array([truth[i] for i in found])
        assert len(found) == min(limit, max(0, len(ids) - offset))
        assert len(set(found)) == len(found)
        tolerance = 1e-4 if exact or params.datatype == "float32" else 2e-3
        close = {"rtol": tolerance, "atol": tolerance}
        np.testing.assert_allclose([h["_distance"] for h in hits], own, **close)
        np.testing.assert_allclose([h["score"] for h in hits], score_of(params, own), **close)
        assert (np.diff([h["_distance"] for h in hits]) >= 0).all()
        if exact:
            best = np.sort(list(truth.values()))[offset : offset + limit]
            np.testing.assert_allclose(own, best, rtol=1e-5, atol=1e-5)

    def planned(self, found):
        """Count, and check, what went through an index; return whether the search was exact."""
        Machine.index_searches += found.plan.index is not None
        assert found.plan.index is None or len(self.points) >= THRESHOLD
        return found.plan.index is None

    @rule(
        which=handles,
        data=st.data(),
        seed=st.integers(0, 400),
        window=st.sampled_from([(1, 0), (5, 0), (10, 3), (100, 0), (7, 20)]),
        exact=st.sampled_from([False, False, False, True]),
        filtered=st.booleans(),
    )
    def search(self, which, data, seed, window, exact, filtered):
        spec, matching = self.draw_filter(data) if filtered else (None, set(self.points))
        name = data.draw(st.sampled_from(sorted(self.declared)))
        query = draw_vector(seed, self.declared[name])

        found = self.handles[which].search(
            query, using=name, limit=window[0], offset=window[1], filter=spec, exact=exact, explain=True
        )

        self.check_hits(found.to_pylist(), query, matching, window, name=name, exact=self.planned(found))
        for hit in found.to_pylist(layout="qdrant"):
            assert canonical(hit["payload"]) == canonical(self.points[hit["id"]][1])

    @rule(which=handles, data=st.data(), seeds=st.lists(st.integers(0, 400), min_size=2, max_size=4))
    def search_a_batch(self, which, data, seeds):
        name = data.draw(st.sampled_from(sorted(self.declared)))
        queries = np.array([draw_vector(s, self.declared[name]) for s in seeds])

        found = self.handles[which].search(queries, using=name, limit=6, explain=True)

        exact = self.planned(found)
        for at, query in enumerate(queries):
            own = [h for h in found.to_pylist() if h["query_index"] == at]
            self.check_hits(own, query, set(self.points), (6, 0), name=name, exact=exact)

    @rule(which=handles, data=st.data())
    def search_with_a_stored_point(self, which, data):
        name = data.draw(st.sampled_from(sorted(self.declared)))
        there = [i for i in sorted(self.points, key=id_order) if self.points[i][0][name] is not None]
        if not there:
            return
        chosen = data.draw(st.sampled_from(there))

        found = self.handles[which].search(vd.Id(chosen), using=name, limit=5, explain=True)

        query, others = self.points[chosen][0][name], set(self.points) - {chosen}
        self.check_hits(found.to_pylist(), query, others, (5, 0), name=name, exact=self.planned(found))

    # ------------------------------------------------------------- versions and maintenance

    @rule(which=handles)
    def reopen(self, which):
        self.handles[which] = vd.open(self.url)

    @rule(which=handles, data=st.data())
    def hold_in_memory(self, which, data):
        handle = self.handles[which]
        keys = sorted(handle.info().payload)
        columns = data.draw(st.none() | st.lists(st.sampled_from(keys), unique=True)) if keys else None

        held = handle.warm(columns=columns)

        assert held.rows == len(self.points)
        assert handle.info().held.version == handle.version

    @rule(which=handles)
    def let_go(self, which):
        self.handles[which].cool()

        assert self.handles[which].info().held is None

    @precondition(lambda self: self.history)
    @rule(which=handles, data=st.data(), seed=st.integers(0, 400))
    def look_back(self, which, data, seed):
        version = data.draw(st.sampled_from(sorted(self.history)))
        then = self.handles[which].at(version)
        points = self.history[version]

        self.same(then, points)
        name, params = next(iter(self.declared.items()))
        query = draw_vector(seed, params)
        hits = then.search(query, using=name, limit=5, exact=True).to_pylist()
        self.check_hits(hits, query, set(points), (5, 0), name=name, exact=True, points=points)
        with pytest.raises(vd.ReadOnlyError):
            then.delete(ids=self.ids)

    @rule(which=handles)
    def optimize(self, which):
        info = self.handles[which].optimize()

        indexed = {i.on for i in info.indexes}
        due = {
            name or "vector"
            for name, params in self.declared.items()
            if params.distance != "Manhattan" and any(v[name] is not None for v, _ in self.points.values())
        }
        assert due <= indexed or len(self.points) < THRESHOLD
        assert info.rows == len(self.points)

    @rule(which=handles, key=st.sampled_from(["n", "t", "a", "two words"]))
    def index_a_payload_column(self, which, key):
        handle = self.handles[which]
        if key in handle.schema.payload:
            assert handle.create_payload_index(key).on == key


def run(examples):
    Machine.steps_done = Machine.index_searches = 0
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Machine.steps_done} steps, {Machine.index_searches} searches through an index")  # noqa: T201


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_a_collection_never_differs_from_a_dictionary():
    run(examples=6)

    assert Machine.steps_done >= 100


@pytest.mark.slow
def test_a_collection_never_differs_from_a_dictionary_in_5000_steps():
    run(examples=SLOW_STEPS // STEPS_PER_RUN * 6 // 5)

    assert Machine.steps_done >= SLOW_STEPS
    assert Machine.index_searches >= 20
