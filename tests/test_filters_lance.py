"""`compile_lance` against `Filter.matches`: on a real Lance dataset, over random filters."""

import datetime as dt
import json
import math
import random
from decimal import Decimal

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vecdataset.filters import Filter, LanceFilter, compile_lance
from vecdataset.schema import PayloadColumn

ODD = "we'ird \"ké"
UTC = dt.UTC
MISSING = object()

TYPES = {
    "i": pa.int64(),
    "u": pa.uint64(),
    "i8": pa.int8(),
    "f": pa.float64(),
    "n": pa.float64(),
    "f32": pa.float32(),
    "f16": pa.float16(),
    "s": pa.utf8(),
    "ls": pa.large_utf8(),
    ODD: pa.utf8(),
    "b": pa.bool_(),
    "t": pa.timestamp("us", tz="UTC"),
    "tb": pa.timestamp("s", tz="Europe/Berlin"),
    "tn": pa.timestamp("ms"),
    "d": pa.date32(),
    "tags": pa.list_(pa.utf8()),
    "nums": pa.list_(pa.int64()),
    "floats": pa.large_list(pa.float64()),
    "small": pa.list_(pa.int8(), 2),
    "st": pa.struct([("x", pa.int64()), ("y", pa.utf8())]),
    "place": pa.struct([("lat", pa.float64()), ("lon", pa.float32())]),
    "when": pa.utf8(),
    "i8s": pa.list_(pa.int8()),
    "f32s": pa.list_(pa.float32()),
    "bools": pa.large_list(pa.bool_()),
    "days": pa.list_(pa.date32()),
    "dec": pa.decimal128(10, 2),
    "bin": pa.binary(),
}
COLUMNS = {k: PayloadColumn(name=k, type=t, json_number=k == "n") for k, t in TYPES.items()}
FROM_JSON = {"i", "n", "s", "b", "tags", "nums", "when", ODD}
EXTRA = FROM_JSON | {"o", "x"}

INTS = [0, 1, -1, 2, 5, 127, -128, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
BIG = [*INTS, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30]
FLOATS = [
    0.0,
    -0.0,
    0.5,
    1.0,
    -1.0,
    5.0,
    0.1,
    float(np.float32(0.1)),
    1e-10,
    5e-324,
    1e16,
    1e300,
    -1e300,
    65504.0,
]
FLOATS += [2.0**53, 2.0**63, 2.0**64, 3.4028234663852886e38, 1.7976931348623157e308]
TEXTS = [
    "",
    "a",
    "A",
    "b",
    "ab",
    "it's",
    'say "hi"',
    "100%",
    "a_b",
    "a\\b",
    "a\\%",
    "Ünï cödé",
    "line\nbreak",
    "5",
    "İ",
    "Red Apple, big",
]
TEXTS += ["2024-01-01", "2024-01-01T00:00:00Z", '"x":', "nul\0"]
TIMES = [
    dt.datetime(2024, 1, 1, tzinfo=UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
    dt.datetime(2024, 7, 1, 12, tzinfo=UTC),
]


DATES = [
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "2024-01-01T00:00:00.000000001Z",
    "2024-07-01T14:00:00+02:00",
    "1969-12-31T23:59:59.5",
    "2024-02-29T12:00:00",
    "2024-02-30",
    "2024-7-1",
    "2024-12-31 23:59",
]
NEGATIVE_NAN = math.copysign(math.nan, -1)  # what 0 / 0 makes on many processors


def regular(rng: random.Random, key: str):
    """Return a value that the column gives back exactly."""
    ints = rng.choice(INTS + list(range(-3, 7)))
    time = rng.choice(TIMES)
    floats = FLOATS + [-f for f in FLOATS]
    makers = {
        "i": lambda: ints,
        "u": lambda: rng.choice([v for v in BIG if 0 <= v < 2**64]),
        "i8": lambda: rng.choice([-128, -1, 0, 1, 5, 127]),
        "f": lambda: rng.choice([*floats, math.inf, -math.inf, math.nan, NEGATIVE_NAN]),
        "n": lambda: rng.choice([v for v in INTS if abs(v) <= 2**53] + [0.5, 0.1, -2.25]),
        "f32": lambda: float(
            np.float32(rng.choice([0.0, -0.0, 0.1, 0.5, 1.0, 3.4e38, math.inf, NEGATIVE_NAN]))
        ),
        "f16": lambda: float(np.float16(rng.choice([0.0, -0.0, 0.1, 0.5, 1.0, 65504.0, float("inf")]))),
        "b": lambda: rng.random() < 0.5,
        "t": lambda: time,
        "tb": lambda: time.replace(microsecond=0),
        "tn": lambda: time.replace(tzinfo=None),
        "d": time.date,
        "tags": lambda: [rng.choice([*TEXTS[:8], None]) for _ in range(rng.randrange(4))],
        "nums": lambda: [rng.choice([*INTS, None]) for _ in range(rng.randrange(4))],
        "floats": lambda: [rng.choice([*floats, None]) for _ in range(rng.randrange(4))],
        "small": lambda: [rng.choice([-128, 0, 5, None]) for _ in range(2)],
        "st": lambda: {"x": rng.choice([*INTS, None]), "y": rng.choice([*TEXTS, None])},
        "place": lambda: {"lat": rng.choice([1.0, 1.5, 52.5, None]), "lon": rng.choice([2.0, 13.5, 179.5])},
        "when": lambda: rng.choice([*DATES, *TEXTS]),
        "i8s": lambda: [rng.choice([-128, -1, 0, 5, 127, None]) for _ in range(rng.randrange(4))],
        "f32s": lambda: [
            rng.choice([float(np.float32(0.1)), 0.0, -0.0, 5.0, None]) for _ in range(rng.randrange(4))
        ],
        "bools": lambda: [rng.choice([True, False, None]) for _ in range(rng.randrange(3))],
        "days": lambda: [rng.choice([t.date() for t in TIMES]) for _ in range(rng.randrange(3))],
        "dec": lambda: Decimal(rng.choice(["0.10", "5.00", "-1.25"])),
        "bin": lambda: b"a",
    }
    return makers.get(key, lambda: rng.choice(TEXTS))()


def irregular(rng: random.Random):
    """Return any JSON value."""
    scalars = [None, True, False, *INTS, 2**63, 0.5, 5.0, -0.0, 1e300, *TEXTS]
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(scalars)
    if kind < 0.75:
        return [rng.choice([*scalars, ["a"], {"b": 1}]) for _ in range(rng.randrange(4))]
    inner = {
        "b": rng.choice(scalars),
        "c": [{"d": rng.choice(scalars)}, {"d": rng.choice(scalars)}],
        "lat": 1.5,
        "lon": 2,
    }
    return {k: v for k, v in inner.items() if rng.random() < 0.8}


def make_rows(rng: random.Random, count: int):
    """Return payloads, column values, and `_extra` texts."""
    payloads, stored, extras = [], [], []
    for _ in range(count):
        payload, row, extra = {}, {}, {}
        for key in TYPES:
            roll = rng.random()
            if key in FROM_JSON and roll < 0.15:
                payload[key] = extra[key] = irregular(rng)
                row[key] = None if rng.random() < 0.5 else regular(rng, key)
            elif roll < 0.75:
                payload[key] = row[key] = regular(rng, key)
        for key in ("o", "x"):
            if rng.random() < 0.3:
                payload[key] = extra[key] = irregular(rng)
        payloads.append(payload)
        stored.append(row)
        extras.append(json.dumps(extra, separators=(",", ":"), ensure_ascii=False) if extra else None)
    return payloads, stored, extras


class Stored:
    """One dataset, and the points it stands for."""

    def __init__(self, path: str, seed: int, id_type: str) -> None:
        rng = random.Random(seed)
        payloads, stored, extras = make_rows(rng, 120)
        uuids = [f"{n:032x}" for n in range(len(payloads))]
        uuids = [f"{u[:8]}-{u[8:12]}-{u[12:16]}-{u[16:20]}-{u[20:]}" for u in uuids]
        self.ids = {
            "uint64": [i if i % 7 else 2**64 - 1 - i for i in range(len(payloads))],
            "uuid": uuids,
            "string": [
                f"it's {i}" if i % 2 else uuids[i].replace("-", "").upper() for i in range(len(payloads))
            ],
            "mixed": [i if i % 2 else uuids[i] for i in range(len(payloads))],
        }[id_type]
        self.id_type = id_type
        vectors = [[1.0, 2.0] if rng.random() < 0.5 else None for _ in payloads]
        table = {
            "id": pa.array(self.ids, pa.uint64()) if id_type == "uint64" else pa.array(map(str, self.ids))
        }
        for key, kind in TYPES.items():
            values = [row.get(key) for row in stored]
            if kind == pa.float16():
                values = [None if v is None else np.float16(v) for v in values]
            table[key] = pa.array(values, kind)
        table["_extra"] = pa.array(extras, pa.utf8())
        table["image__vector"] = pa.array(vectors, pa.list_(pa.float32(), 2))
        self.dataset = lance.write_dataset(pa.table(table), path)
        self.points = [
            {"id": i, "payload": p, "vector": {"image": v}}
            for i, p, v in zip(self.ids, payloads, vectors, strict=True)
        ]

    def compile(self, filter: Filter) -> LanceFilter:
        return compile_lance(
            filter,
            columns=COLUMNS,
            extra_keys=EXTRA,
            id_type=self.id_type,
            vectors={"image": "image__vector"},
        )

    def rows(self, sql: str) -> list[int]:
        table = self.dataset.to_table(columns=[], filter=sql, with_row_id=True)
        return table["_rowid"].to_pylist()

    def found(self, filter: Filter) -> list[int]:
        compiled = self.compile(filter)
        clean = self.rows(compiled.clean)
        dirty = self.rows(compiled.dirty) if compiled.dirty is not None else []
        assert not set(clean) & set(dirty), compiled
        return sorted(clean + [r for r in dirty if filter.matches(self.points[r])])

    def expected(self, filter: Filter) -> list[int]:
        return [r for r, point in enumerate(self.points) if filter.matches(point)]


@pytest.fixture(scope="module", params=["uint64", "uuid", "string", "mixed"])
def stored(request, tmp_path_factory):
    return Stored(str(tmp_path_factory.mktemp("filters") / "rows.lance"), 7, request.param)


# ------------------------------------------------------------------- strategies

ANY_KEY = [*TYPES, "o", "x", "nowhere"]
PATHS = [
    *(k for k in ANY_KEY if k != ODD),
    "o.b",
    "o.c[].d",
    "o.c",
    "st.x",
    "st.y",
    "st.z",
    "tags[]",
    "nums[]",
    "nums[0]",
    "i.j",
    "place.lat",
    "i8s[]",
    "x[]",
]
numbers = st.sampled_from([*BIG, *FLOATS, *(-f for f in FLOATS)]) | st.integers(-6, 6) | st.floats(-6, 6)
texts = st.sampled_from(TEXTS) | st.text(max_size=3)
times = st.sampled_from(
    [
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "2024-07-01T14:00:00+02:00",
        "1969-12-31T23:59:59.5Z",
        "2024-01-01 00:00:00.000000001",
        "0001-01-01",
        "+99999-01-01",
    ]
)
some_ids = st.lists(
    st.integers(-1, 130)
    | st.just(2**64 - 1)
    | st.sampled_from(
        [
            "it's 1",
            "5",
            "x",
            "00000000-0000-0000-0000-000000000004",
            "{00000000-0000-0000-0000-000000000006}",
            "0000000000000000000000000000000A",
        ]
    ),
    max_size=5,
)


def bounds(values):
    return st.dictionaries(st.sampled_from(["lt", "lte", "gt", "gte"]), values, max_size=3)


places = st.fixed_dictionaries(
    {"lat": st.sampled_from([-10.0, 1.0, 1.5, 3, 60]), "lon": st.sampled_from([-20.0, 2, 2.5, 100])}
)
matches = st.one_of(
    st.builds(lambda v: {"value": v}, numbers | texts | st.booleans()),
    st.builds(lambda v: {"any": v}, st.lists(texts, max_size=4) | st.lists(st.sampled_from(BIG), max_size=4)),
    st.builds(
        lambda v: {"except": v}, st.lists(texts, max_size=3) | st.lists(st.sampled_from(BIG), max_size=3)
    ),
    st.builds(
        lambda k, v: {k: v}, st.sampled_from(["text", "text_any", "phrase", "prefix", "substring"]), texts
    ),
)
tests = st.one_of(
    st.builds(lambda m: {"match": m}, matches),
    st.builds(lambda r: {"range": r}, bounds(numbers) | bounds(times)),
    st.builds(lambda c: {"values_count": c}, bounds(st.integers(0, 4))),
    st.builds(lambda k, v: {k: v}, st.sampled_from(["is_null", "is_empty"]), st.booleans()),
    st.builds(lambda a, b: {"geo_bounding_box": {"top_left": a, "bottom_right": b}}, places, places),
    st.builds(
        lambda c, r: {"geo_radius": {"center": c, "radius": r}}, places, st.sampled_from([1, 1e5, 1e7])
    ),
)
fields = st.builds(lambda key, test: {"key": key, **test}, st.sampled_from(PATHS), tests) | st.builds(
    lambda key, test: {"key": key, **test}, st.sampled_from(["s", "when", "nums", "f", "place"]), tests
)
leaves = st.one_of(
    fields,
    fields,
    st.builds(lambda k, v: {k: {"key": v}}, st.sampled_from(["is_null", "is_empty"]), st.sampled_from(PATHS)),
    st.builds(lambda ids: {"has_id": ids}, some_ids),
    st.builds(lambda n: {"has_vector": n}, st.sampled_from(["image", "other", ""])),
    st.builds(
        lambda f: {"nested": {"key": "o.c", "filter": {"must": [f]}}},
        st.builds(lambda t: {"key": "d", **t}, tests),
    ),
)


def groups(children):
    some = st.lists(children, min_size=1, max_size=3)
    counted = st.builds(lambda c, n: {"conditions": c, "min_count": n}, some, st.integers(0, 3))
    return st.fixed_dictionaries(
        {}, optional={"must": some, "should": some, "must_not": some, "min_should": counted}
    )


qdrant_filters = groups(st.recursive(leaves, groups, max_leaves=6))

SQL_KEYS = ["i", "u", "i8", "f", "n", "f32", "f16", "s", "ls", '"we\'ird ""ké"', "b", "t", "tb", "tn", "d", "tags", "nums", "st.x", "st.y", "dec", "bin", "when", "i8s", "f32s", "bools", "days", "place.lat", "o", "o.b", "x", "nowhere", "id"]  # fmt: skip


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sql_literal(value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    return quote(value) if isinstance(value, str) else repr(value)


constants = st.one_of(
    numbers.map(repr),
    texts.map(quote),
    times.map(lambda t: f"TIMESTAMP '{t}'"),
    times.map(quote),
    st.sampled_from(["TRUE", "FALSE", "NULL", "[1, 5]", "['a']"]),
)
sql_keys = st.sampled_from(SQL_KEYS)
operands = st.recursive(
    sql_keys | sql_keys | constants,
    lambda inner: st.one_of(
        st.builds(
            lambda f, x: f"{f}({x})", st.sampled_from(["lower", "upper", "length", "abs", "len"]), inner
        ),
        st.builds(lambda a, b: f"coalesce({a}, {b})", inner, inner),
        st.builds(lambda a, o, b: f"({a} {o} {b})", inner, st.sampled_from("+-*/%"), inner),
        st.builds(lambda a: f"-({a})", inner),
    ),
    max_leaves=3,
)
compare_ops = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
lists = st.lists(constants, min_size=1, max_size=4).map(", ".join)
list_constants = st.lists(texts.map(quote) | st.sampled_from(BIG).map(str), max_size=3).map(
    lambda v: f"[{', '.join(v)}]"
)
sql_leaves = st.one_of(
    st.builds(lambda a, o, b: f"{a} {o} {b}", sql_keys, compare_ops, constants),
    st.builds(lambda a, o, b: f"{a} {o} {b}", operands, compare_ops, operands),
    st.builds(lambda a, n, v: f"{a} {n}IN ({v})", sql_keys, st.sampled_from(["", "NOT "]), lists),
    st.builds(lambda a, x, y: f"{a} BETWEEN {x} AND {y}", sql_keys, constants, constants),
    st.builds(
        lambda a, n, p: f"{a} {n} {quote(p)}",
        sql_keys,
        st.sampled_from(["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]),
        st.sampled_from(
            ["a%", "%b", "%a%", "_", "a_b", "100%", "a\\%", "%\\%", "ün%", "", "%'%", "%\n%", "%"]
        )
        | texts,
    ),
    st.builds(lambda a, n: f"{a} IS {n}NULL", operands, st.sampled_from(["", "NOT "])),
    st.builds(
        lambda a, n: f"{a} IS {n}", sql_keys, st.sampled_from(["TRUE", "NOT TRUE", "FALSE", "NOT FALSE"])
    ),
    st.builds(
        lambda f, a, v: f"{f}({a}, {v})",
        st.sampled_from(["contains", "starts_with", "ends_with", "list_contains"]),
        sql_keys,
        texts.map(quote) | st.sampled_from(["5", "NULL", "0.5", "TRUE", "0"]),
    ),
    st.builds(
        lambda f, a, v: f"{f}({a}, {v})",
        st.sampled_from(["list_has_any", "list_has_all"]),
        sql_keys,
        list_constants,
    ),
    st.sampled_from(["b", "NOT b", "TRUE", "s"]),
)
sql_filters = st.recursive(
    sql_leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, o, b: f"({a}) {o} ({b})", inner, st.sampled_from(["AND", "OR"]), inner),
        st.builds(lambda a: f"NOT ({a})", inner),
        st.builds(
            lambda a, w: f"({a}) IS {w}", inner, st.sampled_from(["NULL", "NOT NULL", "TRUE", "NOT FALSE"])
        ),
    ),
    max_leaves=5,
)

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(spec=qdrant_filters)
def test_lance_finds_what_a_qdrant_filter_matches(stored, spec):
    parsed = Filter(spec)

    assert stored.expected(parsed) == stored.found(parsed)


@quick
@given(text=sql_filters)
def test_lance_finds_what_sql_text_matches(stored, text):
    parsed = Filter(text)

    assert stored.expected(parsed) == stored.found(parsed)


@pytest.mark.slow
@thorough
@given(spec=qdrant_filters)
def test_lance_finds_what_many_qdrant_filters_match(stored, spec):
    parsed = Filter(spec)

    assert stored.expected(parsed) == stored.found(parsed)


@pytest.mark.slow
@thorough
@given(text=sql_filters)
def test_lance_finds_what_much_sql_text_matches(stored, text):
    parsed = Filter(text)

    assert stored.expected(parsed) == stored.found(parsed)
