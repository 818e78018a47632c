"""Filters as masks over columns match what `Filter.matches` matches, row by row."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from test_filters_lance import COLUMNS, EXTRA, Stored, qdrant_filters, sql_filters

from vecdataset.filters import Filter
from vecdataset.filters.masks import MaskRows, TooSlow
from vecdataset.schema import PayloadColumn

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))


class Masked(Stored):
    """The rows of the Lance tests, in memory."""

    def __init__(self, path, seed, id_type):
        super().__init__(path, seed, id_type)
        table = self.dataset.to_table()
        there = {"image": table["image__vector"].is_valid().to_numpy()}
        self.masks = [
            MaskRows(
                part,
                columns=COLUMNS,
                extra_keys=EXTRA,
                id_type=id_type,
                vectors={"image": there["image"][start : start + len(part)]},
                keep=keep,
            )
            for start, part, keep in [
                (0, table, True),
                (0, table.slice(0, 50), False),
                (50, table.slice(50), False),
            ]
        ]

    def found(self, filter):
        """Rows by the kept masks, and by those of two batches."""
        kept, first, rest = (np.flatnonzero(m.mask(filter.node)) for m in self.masks)
        assert kept.tolist() == [*first.tolist(), *(rest + 50).tolist()]
        return kept.tolist()


@pytest.fixture(scope="module", params=["uint64", "uuid", "string", "mixed"])
def masked(request, tmp_path_factory):
    return Masked(str(tmp_path_factory.mktemp("masks") / "rows.lance"), 11, request.param)


@quick
@given(spec=qdrant_filters)
def test_a_mask_holds_what_a_qdrant_filter_matches(masked, spec):
    parsed = Filter(spec)

    assert masked.expected(parsed) == masked.found(parsed)


@quick
@given(text=sql_filters)
def test_a_mask_holds_what_sql_text_matches(masked, text):
    parsed = Filter(text)

    assert masked.expected(parsed) == masked.found(parsed)


@pytest.mark.slow
@thorough
@given(spec=qdrant_filters)
def test_masks_hold_what_many_qdrant_filters_match(masked, spec):
    parsed = Filter(spec)

    assert masked.expected(parsed) == masked.found(parsed)


@pytest.mark.slow
@thorough
@given(text=sql_filters)
def test_masks_hold_what_much_sql_text_matches(masked, text):
    parsed = Filter(text)

    assert masked.expected(parsed) == masked.found(parsed)


ROWS = 1_000


def rows_of(table, *, keep=True, extra_keys=()):
    columns = {f.name: PayloadColumn(name=f.name, type=f.type) for f in table.schema}
    return MaskRows(table, columns=columns, extra_keys=extra_keys, id_type="uint64", vectors={}, keep=keep)


@pytest.fixture(scope="module")
def plain():
    rng = np.random.default_rng(3)
    langs = rng.choice(["de", "en", "fr", "ru"], ROWS)
    return rows_of(
        pa.table(
            {
                "id": pa.array(np.arange(ROWS), pa.uint64()),
                "lang": langs,
                "price": rng.random(ROWS),
                "stock": pa.array(rng.integers(0, 9, ROWS), mask=rng.random(ROWS) < 0.2),
                "tags": pa.array([["a", "b"][: n % 3] for n in range(ROWS)]),
            }
        )
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"must": [{"key": "lang", "match": {"value": "en"}}]},
        {"must": [{"key": "lang", "match": {"except": ["en", "fr"]}}], "must_not": [{"has_id": [1, 5]}]},
        {
            "must": [
                {"key": "price", "range": {"gte": 0.25, "lt": 0.5}},
                {"key": "tags", "match": {"any": ["b"]}},
            ]
        },
        {"should": [{"key": "tags", "values_count": {"gte": 2}}, {"is_empty": {"key": "stock"}}]},
        {"must": [{"key": "lang", "match": {"text": "EN"}}]},
        "price < 0.5 AND stock >= 3 AND lang IN ('en', 'de')",
        "NOT (stock = 3) AND lang LIKE 'f%' AND list_contains(tags, 'a')",
        "lower(lang) = 'ru' AND stock IS NOT NULL AND id > 20",
    ],
)
def test_plain_columns_are_decided_without_looking_at_rows(plain, spec):
    assert plain.mask(Filter(spec).node, most_by_row=0).any()


def test_what_columns_cannot_decide_is_asked_only_of_the_rows_that_are_left(plain):
    few = Filter("price + stock > 1 AND lang = 'en' AND price < 0.02")

    assert plain.mask(few.node, most_by_row=ROWS // 20).any()
    with pytest.raises(TooSlow):
        plain.mask(Filter("price + stock > 1").node, most_by_row=ROWS // 20)


@pytest.mark.parametrize(
    "shape",
    [
        {"geo_radius": {"center": {"lat": 52.5, "lon": 13.4}, "radius": 900_000}},
        {
            "geo_bounding_box": {
                "top_left": {"lat": 60, "lon": 170},
                "bottom_right": {"lat": -60, "lon": -170},
            }
        },
        {
            "geo_polygon": {
                "exterior": {
                    "points": [{"lat": a, "lon": o} for a, o in [(0, 0), (60, 5), (50, 60), (-5, 40), (0, 0)]]
                },
                "interiors": [
                    {
                        "points": [
                            {"lat": a, "lon": o}
                            for a, o in [(20, 20), (30, 20), (30, 30), (20, 30), (20, 20)]
                        ]
                    }
                ],
            }
        },
    ],
    ids=["radius", "box", "polygon"],
)
def test_places_are_compared_all_at_once(shape):
    rng = np.random.default_rng(5)
    lat, lon = rng.integers(-90, 91, ROWS), rng.integers(-180, 181, ROWS)
    near = rng.random(ROWS) < 0.5
    lat, lon = np.where(near, rng.integers(0, 61, ROWS), lat), np.where(near, rng.integers(0, 61, ROWS), lon)
    payloads = [
        {"at": [{"lat": a, "lon": o}, "nowhere"] if a % 3 else {"lat": a, "lon": o}}
        for a, o in zip(lat.tolist(), lon.tolist(), strict=True)
    ]
    table = pa.table(
        {
            "id": pa.array(np.arange(ROWS), pa.uint64()),
            "_extra": [json.dumps(p, separators=(",", ":")) for p in payloads],
        }
    )
    rows = MaskRows(table, columns={}, extra_keys={"at"}, id_type="uint64", vectors={}, keep=True)
    filter = Filter({"must": [{"key": "at", **shape}]})

    found = rows.mask(filter.node, most_by_row=0)

    assert [filter.matches({"id": 0, "payload": p}) for p in payloads] == found.tolist()
    assert 0 < found.sum() < ROWS
