"""Counting the values of a payload key, and search results in groups by its values.

Both are exact. A grouped search looks at the nearest points first, which usually hold the whole
answer; where they hold too few groups, every match is scored once to find the best group hits, and
where a group has more members than were found, it is searched by itself. Memory stays within the
groups and hits that are asked for.

Values are compared as JSON: numbers with numbers (5 is 5.0), and neither with texts or booleans.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.errors import InvalidInputError
from vecdataset.filters import Filter
from vecdataset.filters.conditions import Field, MatchValue
from vecdataset.filters.tree import any_of
from vecdataset.filters.values import OPAQUE, json_value
from vecdataset.frames import Frame, ScoredPoints, labelled
from vecdataset.keys import Key
from vecdataset.pipeline import NO_ROWS, Examples, Ranked, distances_of
from vecdataset.query import MAX_LIMIT
from vecdataset.reader import Reader, Selection
from vecdataset.spaces import Space, space
from vecdataset.steps import Nearest, Step, count_of

_BATCH_ROWS: Final = 65_536
_LOOK_AHEAD: Final = 8
"""How many times the hits of the whole answer are looked at first."""
_CHUNK: Final = 1_024

Mark = tuple[int, Hashable]
"""A value as a key of a dict: 1, 1.0 and True are one key to Python, and not to us."""


# ---------------------------------------------------------------------------- values


def _mark(value: Any) -> Mark:
    # In the order of Qdrant's facet values: texts, numbers, and booleans last.
    kind = 0 if isinstance(value, str) else 3 if isinstance(value, bool) else 1
    if kind == 1 and not isinstance(value, int | float):
        kind = 2
    return kind, value


@dataclass(slots=True)
class _Coded:
    """Which rows of a batch hold which values: each pair once."""

    at: np.ndarray
    """Places of rows."""
    codes: np.ndarray
    """Places in `values`."""
    values: list[Any]


def _coded(reader: Reader, key: Key, batch: pa.RecordBatch | pa.Table, rows: np.ndarray) -> _Coded:
    """Return the values of a batch, whose row ids are `rows`, without nulls.

    Raises:
        InvalidInputError: A value is an object or an array.
    """
    at, found = key.elements(batch)
    if isinstance(found, pa.Array):
        encoded = found if pa.types.is_dictionary(found.type) else found.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        values = encoded.dictionary.to_pylist()
        if key.column is not None and key.column.json_number:
            values = [int(v) if v is not None and v.is_integer() else v for v in values]
        absent = [i for i, v in enumerate(values) if v is None or v != v]  # noqa: PLR0124  NaN
        codes[np.isin(codes, absent)] = -1
    else:
        values = []
        places: dict[Mark, int] = {}
        codes = np.empty(len(found), np.int64)
        for i, value in enumerate(found):
            if isinstance(value, Mapping | list) or json_value(value) is OPAQUE:
                raise _no_value(reader, key, rows[at[i]], value)
            if value is None or value != value:  # noqa: PLR0124  NaN
                codes[i] = -1
                continue
            code = places.setdefault(_mark(value), len(values))
            if code == len(values):
                values.append(value)
            codes[i] = code
    at, codes = at[codes >= 0], codes[codes >= 0]
    pairs = np.unique(at * max(1, len(values)) + codes)
    return _Coded(pairs // max(1, len(values)), pairs % max(1, len(values)), values)


def _no_value(reader: Reader, key: Key, row: Any, value: Any) -> InvalidInputError:
    (point,) = reader.frame(reader.take(np.array([row], np.uint64), ["id"])).to_pylist()
    what, hint = "an array inside an array", None
    if isinstance(value, Mapping):
        inside = f"{key.text}.name", f"{key.text}[].name"
        what, hint = "an object", f"a path leads into it: {inside[0]!r}, or {inside[1]!r} within an array"
    elif not isinstance(value, list):
        what = type(value).__name__
    return InvalidInputError(
        f"payload key {key.text!r} of point {point['id']!r} of {reader.where} holds {what}; texts, numbers, "
        "booleans and dates can be counted and grouped by",
        hint=hint,
    )


def _column(key: Key, values: Sequence[Any]) -> tuple[pa.Array, bool]:
    """Return values as an Arrow column, and whether its floats that are whole are JSON ints.

    The type is the key's where it can hold them all; values of several types become JSON text.
    """
    own = key.element_type
    if own is not None and not pa.types.is_nested(own):
        try:
            column = pa.array(values, own)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            column = None
        if column is not None and column.to_pylist() == list(values):
            return column, key.column is not None and key.column.json_number
    kinds = {_mark(v)[0] for v in values}
    if kinds == {1} and any(isinstance(v, int) for v in values):
        # Numbers: integers unless one of them is none.
        values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    types = {
        frozenset(): pa.string(),
        frozenset({0}): pa.string(),
        frozenset({2}): pa.timestamp("us", "UTC"),
        frozenset({3}): pa.bool_(),
    }
    kind = types.get(frozenset(kinds))
    if kinds == {1}:
        whole = all(isinstance(v, int) for v in values)
        kind = (pa.uint64() if max(values) >= 1 << 63 else pa.int64()) if whole else pa.float64()
    if kind is not None:
        try:
            return pa.array(values, kind), False
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass  # integers beyond 64 bits, dates beside decimals
    return pa.array([json.dumps(v, ensure_ascii=False, default=_text) for v in values], pa.string()), False


def _text(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


# ---------------------------------------------------------------------------- facets


def facet(reader: Reader, key: str, *, filter: Any, limit: int) -> Frame:
    """Return the values of a payload key with how many points hold them, most frequent first.

    Returns:
        Columns `value`, of the key's type (JSON text where a key holds values of several types), and
        `count` (int64); values of one count in ascending order.

    One pass over the key's column; memory grows with the number of distinct values.
    """
    limit = count_of(limit, "limit", least=1)
    by = Key(reader, key)
    counts: dict[Mark, list[Any]] = {}
    stream = reader.stream(by.columns, reader.select(filter), batch_rows=_BATCH_ROWS, row_ids=True)
    for batch in stream:
        found = _coded(reader, by, batch, batch.column("_rowid").to_numpy())
        held = np.bincount(found.codes, minlength=len(found.values)).tolist()
        for value, count in zip(found.values, held, strict=True):
            if count:
                counts.setdefault(_mark(value), [value, 0])[1] += count
    best = heapq.nsmallest(limit, counts.items(), key=lambda item: (-item[1][1], item[0]))
    values, whole = _column(by, [value for _, (value, _) in best])
    table = pa.table({"value": values, "count": pa.array([n for _, (_, n) in best], pa.int64())})
    return Frame(table, numbers=["value"] if whole else [])


# ---------------------------------------------------------------------------- groups


@dataclass(slots=True)
class _Group:
    """One group of an answer."""

    value: Any
    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def group(
    reader: Reader,
    steps: Sequence[Step],
    *,
    by: str,
    group_size: int,
    columns: Sequence[str] | None,
    with_vectors: bool | Sequence[str],
) -> ScoredPoints:
    """Answer nearest searches in groups: `limit` of each step counts groups.

    Returns:
        As a search, with a column `group` after `query_index`; the groups by their best hit, the hits
        of a group best first. A point whose key is an array stands in each of its groups.

    Raises:
        InvalidInputError: The key holds objects, or a number is out of range.
    """
    group_size = count_of(group_size, "group_size", least=1)
    if max((s.limit for s in steps), default=0) * group_size > MAX_LIMIT:
        raise InvalidInputError(f"limit × group_size is more than {MAX_LIMIT:,}")
    key = Key(reader, by)
    names, keys = reader.output(columns, with_vectors=with_vectors)
    parts = [_Search(reader, key, step, group_size).answer() for step in steps]
    index = np.repeat(np.arange(len(parts), dtype=np.int32), [sum(len(g.rows) for g in p) for p in parts])
    groups = [g for part in parts for g in part]
    rows = np.array([row for g in groups for row in g.rows], np.uint64)
    scores = np.array([score for g in groups for score in g.scores])
    values, whole = _column(key, [g.value for g in groups for _ in g.rows])
    turned = NO_ROWS.astype(np.float64)
    if steps:
        better = space(reader, steps[0].using).higher_is_better
        turned = distances_of(reader, steps[0], Ranked(rows=rows, scores=scores, larger_is_better=better))
    table = reader.take(rows, ["id", *names])
    table = table.add_column(1, "score", pa.array(scores.astype(np.float32)))
    table = table.add_column(2, "_distance", pa.array(turned.astype(np.float32)))
    table = reader.shape(table.add_column(0, "query_index", pa.array(index)), keys)
    return ScoredPoints(
        labelled(table, "group", values, numbers=reader.numbers),
        labels=["group"],
        id_type=reader.schema.id_type,
        numbers=[*(n for n in reader.numbers if n != "group"), *(["group"] if whole else [])],
    )


class _Search:
    """One search that is answered in groups."""

    def __init__(self, reader: Reader, key: Key, step: Step, group_size: int) -> None:
        assert isinstance(step.rank, Nearest)
        self._reader = reader
        self._key = key
        self._step = step
        self._size = group_size
        self._selection = reader.select(step.filter)
        self._space: Space = space(reader, step.using)
        examples = Examples(reader, self._space, step.lookup)
        (self._vector,) = examples.add([step.rank.vector])
        self._exclude = examples.own_rows

    def answer(self) -> list[_Group]:
        """Return at most `limit` groups, best first."""
        wanted = self._step.limit * self._size
        length = min(MAX_LIMIT, _LOOK_AHEAD * wanted)
        rows, scores, everything = self._nearest(self._selection, length)
        groups = self._grouped(rows, scores)
        if everything:
            return list(groups.values())
        if len(groups) < self._step.limit:
            groups = {mark: _Group(value) for mark, value in self._best_groups()}
        self._fill(groups)
        # Scores of the fallback are computed otherwise; the order is decided by the ones returned.
        filled = [g for g in groups.values() if g.rows]
        sign = -1 if self._space.higher_is_better else 1
        return sorted(filled, key=lambda g: (sign * g.scores[0], _mark(g.value)))

    def _nearest(self, selection: Selection, limit: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return rows and scores that pass the threshold, and whether there are no more of them."""
        limit += len(self._exclude)
        found = self._space.nearest([self._vector], selection, limit=limit, params=self._step.params)
        ((rows, scores),) = found.hits
        everything = len(rows) < limit
        keep = ~np.isin(rows, self._exclude)
        threshold = self._step.score_threshold
        if threshold is not None:
            passed = scores >= threshold if self._space.higher_is_better else scores <= threshold
            everything = everything or not passed.all()
            keep &= passed
        return rows[keep], scores[keep], everything

    def _coded(self, rows: np.ndarray) -> _Coded:
        return _coded(self._reader, self._key, self._reader.take(rows, ["id", *self._key.columns]), rows)

    def _grouped(self, rows: np.ndarray, scores: np.ndarray) -> dict[Mark, _Group]:
        """Return the first `limit` groups of hits, each with its first `group_size`."""
        found = self._coded(rows)
        marks = [_mark(value) for value in found.values]
        pairs = zip(found.at.tolist(), found.codes.tolist(), strict=True)
        groups: dict[Mark, _Group] = {}
        for at, mark, value in sorted((at, marks[c], found.values[c]) for at, c in pairs):
            if mark not in groups:
                if len(groups) >= self._step.limit:
                    continue
                groups[mark] = _Group(value)
            if len(groups[mark].rows) < self._size:
                groups[mark].rows.append(int(rows[at]))
                groups[mark].scores.append(float(scores[at]))
        return groups

    def _best_groups(self) -> Iterable[tuple[Mark, Any]]:
        """Return the `limit` groups with the best hits, by scoring every match.

        Only rows that beat the worst of the best groups so far are looked up: a group that has
        fallen out comes back with any row that is good enough.
        """
        best: dict[Mark, tuple[float, Any]] = {}
        bar = -np.inf
        for rows, similarity in self._space.similarities([self._vector], self._selection):
            scores = similarity[0]
            at = np.flatnonzero((scores > bar) & ~np.isin(rows, self._exclude))
            at = at[np.argsort(-scores[at], kind="stable")]
            for start in range(0, len(at), _CHUNK):
                chunk = at[start : start + _CHUNK]
                if scores[chunk[0]] <= bar:
                    break
                found = self._coded(rows[chunk])
                for place, code in zip(found.at.tolist(), found.codes.tolist(), strict=True):
                    value, score = found.values[code], float(scores[chunk[place]])
                    mark = _mark(value)
                    if mark not in best or score > best[mark][0]:
                        best[mark] = (score, value)
                if len(best) >= self._step.limit:
                    kept = heapq.nsmallest(self._step.limit, best, key=lambda m: (-best[m][0], m))
                    best = {mark: best[mark] for mark in kept}
                    bar = best[kept[-1]][0]
        return [(mark, value) for mark, (_, value) in best.items()]

    def _fill(self, groups: Mapping[Mark, _Group]) -> None:
        """Complete the groups that have more members than hits."""
        short = {mark: g for mark, g in groups.items() if len(g.rows) < self._size}
        if not short:
            return
        members = dict.fromkeys(short, 0)
        selection = self._members(list(short.values()))
        stream = self._reader.stream(self._key.columns, selection, batch_rows=_BATCH_ROWS, row_ids=True)
        for batch in stream:
            found = _coded(self._reader, self._key, batch, batch.column("_rowid").to_numpy())
            held = np.bincount(found.codes, minlength=len(found.values)).tolist()
            for value, count in zip(found.values, held, strict=True):
                if _mark(value) in members:
                    members[_mark(value)] += count
        for mark, one in short.items():
            if members[mark] > len(one.rows):
                rows, scores, _ = self._nearest(self._members([one]), self._size)
                one.rows, one.scores = rows.tolist()[: self._size], scores.tolist()[: self._size]

    def _members(self, groups: Sequence[_Group]) -> Selection:
        """Return the selected rows that are in one of the groups."""
        tests = [Field(self._key.path, MatchValue(to)) for g in groups for to in _spellings(g.value)]
        inside = Filter._of(any_of(tests))  # noqa: SLF001  a value need not have a spelling as text
        own = self._step.filter
        return self._reader.select(inside if own is None else own & inside)


def _spellings(value: Any) -> list[Any]:
    """Return what a filter must ask for to find a value: 5 is also 5.0."""
    value = json_value(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [value]
    # A float in a filter equals any number of its size.
    return [float(value)] if float(value) == value else [value]


__all__ = ["facet", "group"]
