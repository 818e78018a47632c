"""Full text search: what a text query says, and how a version of a collection answers it by BM25.

The score of a row is Σ idf · tf · (k1 + 1) / (tf + k1 · (1 − b + b · length / average)) over the words of the
query, with k1 = 1.2, b = 0.75 and idf = ln((N − n + ½) / (n + ½) + 1); N, lengths and their average
count the rows whose text has a word (Robertson and Zaragoza 2009; Lucene's idf).

Lance's inverted index cuts and stems words and finds the rows. This module decides which of three
ways a column goes, so that the answer does not depend on the state of its index:

- the index alone, where it covers every row;
- the index together with the rows it does not cover, all scored by the statistics of all rows: Lance's
  BM25F over the one column does that, while its plain match scores the two parts by different statistics
  (scores off by 36 % after replacing a tenth of the rows, pylance 14.0.2);
- a private index over the text of this version, in a temporary folder, kept as long as the version is read:
  where there is no index (Lance's own scan neither folds case nor stems), and for misspelt words while some
  rows are not indexed (Lance looks for those in the index alone).

Deleted and replaced rows stay in the index's statistics until compaction drops them; they are never found.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
import unicodedata
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from vecdataset.engine import LanceIndex, Table, private_table
from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.indexes.payload import TEXT, TEXT_DEFAULTS, TEXT_OPTIONS
from vecdataset.reader import Reader, Selection

Hits = tuple[np.ndarray, np.ndarray]
"""Row ids and BM25 scores."""

NO_HITS: Final[Hits] = (np.zeros(0, np.uint64), np.zeros(0))
_PHRASE_TAIL: Final = 0.1
"""Up to this share of unindexed rows a phrase is scored by statistics of the rest; it is found everywhere."""


# ------------------------------------------------------------------------------ value


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Words to look for, or clauses of such queries.

    >>> TextQuery("red shoes", operator="and").text
    'red shoes'
    """

    text: str | None = None
    """Words; one that stands twice counts twice. None where there are clauses."""
    _: KW_ONLY
    columns: Mapping[str, float] | Sequence[str] | str | None = None
    """Text columns, or each with the factor of its scores. None: of the clause above; at the top, all
    columns with a text index, or all columns of text where none has one."""
    operator: Literal["or", "and"] = "or"
    """Whether one word is enough, or one column must hold all of them."""
    phrase: bool = False
    """Whether the words stand side by side, in this order."""
    slop: int = 0
    """How many other words may stand between those of a phrase."""
    fuzziness: int | Literal["auto"] = 0
    """How many letters of a word may differ, 0 to 2; `auto` is none up to 2 letters, 1 up to 5, then 2."""
    combine: Literal["best", "blend"] = "best"
    """Several columns: the best one's score, or all as one text (BM25F; factors are at least 1 then)."""
    boost: float = 1.0
    """A factor of the score, for clauses."""
    must: Sequence[Any] = ()
    """Queries that must all match; scores add up."""
    should: Sequence[Any] = ()
    """Queries that add to the score; without `must`, one of them has to match."""
    must_not: Sequence[Any] = ()
    """Queries that must not match."""

    def __post_init__(self) -> None:
        clauses = {name: _clauses(name, getattr(self, name)) for name in _CLAUSES}
        for name, value in clauses.items():
            object.__setattr__(self, name, value)
        if self.columns is not None:
            object.__setattr__(self, "columns", _weights(self.columns))
        if self.text is None:
            if not clauses["must"] and not clauses["should"]:
                raise InvalidInputError("a text query needs text, or clauses under must or should")
        elif not isinstance(self.text, str):
            raise InvalidInputError(f"text is of type {type(self.text).__name__}; it must be a string")
        elif any(clauses.values()):
            raise InvalidInputError(
                "a text query has text or clauses, not both", hint="put the text into a clause"
            )
        _one_of("operator", self.operator, ("or", "and"))
        _one_of("combine", self.combine, ("best", "blend"))
        if self.fuzziness != "auto":
            _within("fuzziness", self.fuzziness, 2, " or 'auto'")
        _within("slop", self.slop, 100)
        if not isinstance(self.boost, int | float) or not 0 < self.boost < math.inf:
            raise InvalidInputError(f"boost is {self.boost!r}; it must be a positive number")
        if self.phrase and self.fuzziness:
            raise InvalidInputError("a phrase takes no fuzziness")
        if self.slop and not self.phrase:
            raise InvalidInputError("slop goes with phrase=True")
        if self.combine == "blend" and (self.phrase or self.fuzziness):
            raise InvalidInputError("combine='blend' takes no phrase and no fuzziness; 'best' does")
        weights = self.columns if isinstance(self.columns, Mapping) else {}
        if self.combine == "blend" and any(w < 1 for w in weights.values()):
            raise InvalidInputError("the factors of columns are at least 1 with combine='blend'")

    @classmethod
    def parse(cls, spec: Any, **options: Any) -> TextQuery:
        """Return the query of a text, a dict of the fields, or a query; `options` are further fields.

        Raises:
            InvalidInputError: A field is wrong, or given twice.
        """
        given = {k: v for k, v in options.items() if v is not None}
        if isinstance(spec, TextQuery) and not given:
            return spec
        if isinstance(spec, TextQuery):
            fields = {f: getattr(spec, f) for f in _FIELDS}
            fields = {k: v for k, v in fields.items() if v != _DEFAULTS[k]}
        elif isinstance(spec, Mapping):
            fields = dict(spec)
        else:
            fields = {"text": spec}
        twice = sorted(set(fields) & set(given))
        if twice:
            raise InvalidInputError(f"{twice[0]} is given twice, in the query and beside it")
        for name in (*fields, *given):
            if name not in _FIELDS:
                raise UnknownNameError(
                    f"text query field {name!r} is not known", hint=did_you_mean(name, _FIELDS, what="fields")
                )
        return cls(**fields, **given)


_CLAUSES: Final = ("must", "should", "must_not")
_FIELDS: Final = tuple(n for n in TextQuery.__dataclass_fields__ if n != "_")
_DEFAULTS: Final = {n: TextQuery.__dataclass_fields__[n].default for n in _FIELDS}


def _clauses(name: str, value: Any) -> tuple[TextQuery, ...]:
    if isinstance(value, str | Mapping | TextQuery):
        value = [value]
    if not isinstance(value, Sequence):
        raise InvalidInputError(
            f"{name} is of type {type(value).__name__}; it must be a list of text queries"
        )
    return tuple(TextQuery.parse(v) for v in value)


def _weights(columns: Any) -> dict[str, float]:
    if isinstance(columns, str):
        columns = [columns]
    if not isinstance(columns, Mapping):
        columns = dict.fromkeys(columns, 1.0)
    if not columns:
        raise InvalidInputError("columns is empty; name a text column, or leave it out")
    for name, weight in columns.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise InvalidInputError(
                f"the factor of column {name!r} is {weight!r}; it must be a positive number"
            )
    return {str(name): float(weight) for name, weight in columns.items()}


def _one_of(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownNameError(
            f"{name} {value!r} is not known", hint=did_you_mean(str(value), known, what=f"values of {name}")
        )


def _within(name: str, value: Any, most: int, also: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidInputError(f"{name} is {value!r}; it must be 0 to {most}{also}")


# ---------------------------------------------------------------------------- running


def text_rows(reader: Reader, query: TextQuery, selection: Selection, *, limit: int) -> Hits:
    """Return the `limit` selected rows that match best, with their scores, best first.

    Raises:
        InvalidInputError: A column is no text, or its index has no positions for a phrase.
        UnknownNameError: A column is not there.
    """
    if not reader.rows:
        return NO_HITS
    if selection.sql is not None and sum(len(_groups(q, c)) for q, c in _leaves(reader, query, None)) > 1:
        # Lance would answer the filter again for every column and clause.
        selection = Selection(None, np.sort(reader.table.row_ids(selection.sql)), selection.how)
    return _best(_hits(reader, query, _columns(reader, query.columns), selection, limit), limit)


def text_plan(reader: Reader, query: TextQuery) -> list[dict[str, Any]]:
    """Return which way each clause goes, column by column, without going it."""
    if not reader.rows:
        return []
    return [
        {"text": leaf.text, "columns": list(group), "through": _way(reader, group, leaf)[1]}
        for leaf, columns in _leaves(reader, query, None)
        for group in _groups(leaf, columns)
    ]


def _leaves(
    reader: Reader, query: TextQuery, inherited: Mapping[str, float] | None
) -> Iterator[tuple[TextQuery, Mapping[str, float]]]:
    columns = inherited if query.columns is None else _columns(reader, query.columns)
    if query.text is not None:
        yield query, _columns(reader, None) if columns is None else columns
    for name in _CLAUSES:
        for clause in getattr(query, name):
            yield from _leaves(reader, clause, columns)


def _groups(query: TextQuery, columns: Mapping[str, float]) -> list[dict[str, float]]:
    return [dict(columns)] if query.combine == "blend" else [{c: w} for c, w in columns.items()]


def _columns(reader: Reader, columns: Any) -> Mapping[str, float]:
    """Return the columns to search with their factors, checked."""
    payload = reader.schema.payload
    if columns is None:
        indexed = [c for c in payload if c in _indexes(reader)]
        found = indexed or [c.name for c in payload.values() if _is_text(c.type)]
        if not found:
            raise InvalidInputError(f"{reader.where} has no payload column of text")
        return dict.fromkeys(found, 1.0)
    for name in columns:
        if name in payload:
            kind = payload[name].type
            if not _is_text(kind) and not (_is_list(kind) and _is_text(kind.value_type)):
                raise InvalidInputError(f"payload key {name!r} holds {kind}; it cannot be searched as text")
        elif name in reader.extra_keys:
            raise InvalidInputError(
                f"payload key {name!r} of {reader.where} has no column of its own, so its text has no index "
                "and cannot be searched",
                hint="it was first seen with an object, null or values of several types; "
                "a filter with match text finds it",
            )
        else:
            raise UnknownNameError(
                f"{reader.where} has no payload column {name!r}",
                hint=did_you_mean(name, payload, what="payload columns"),
            )
    return dict(columns)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _hits(
    reader: Reader,
    query: TextQuery,
    columns: Mapping[str, float],
    selection: Selection,
    limit: int | None,
) -> Hits:
    """Return matching rows with scores, in any order; all of them, or at least the `limit` best."""
    if query.text is not None:
        parts = [
            (rows, scores * (query.boost * (1.0 if query.combine == "blend" else next(iter(group.values())))))
            for group in _groups(query, columns)
            for rows, scores in [_leaf(reader, query, group, selection, limit)]
        ]
        return _joined(parts, np.maximum)

    def asked(clause: TextQuery) -> Hits:
        own = columns if clause.columns is None else _columns(reader, clause.columns)
        return _hits(reader, clause, own, selection, None)

    must, should = [asked(c) for c in query.must], [asked(c) for c in query.should]
    rows, scores = _joined(must or should, np.add, every=bool(must))
    if must and should:
        more, added = _joined(should, np.add)
        at = np.searchsorted(more, rows).clip(max=max(len(more) - 1, 0))
        if len(more):
            scores = scores + np.where(more[at] == rows, added[at], 0.0)
    for clause in query.must_not:
        keep = ~np.isin(rows, asked(clause)[0])
        rows, scores = rows[keep], scores[keep]
    return rows, scores * query.boost


def _joined(parts: Sequence[Hits], combine: np.ufunc, *, every: bool = False) -> Hits:
    """Return the rows of some part, or of every part, ascending, with their scores combined."""
    if len(parts) == 1 and not every:
        order = np.argsort(parts[0][0])
        return parts[0][0][order], parts[0][1][order]
    rows, back, times = np.unique(
        np.concatenate([r for r, _ in parts]), return_inverse=True, return_counts=True
    )
    scores = np.zeros(len(rows))
    combine.at(scores, back, np.concatenate([s for _, s in parts]))
    keep = times == len(parts) if every else np.ones(len(rows), bool)
    return rows[keep], scores[keep]


def _best(hits: Hits, limit: int) -> Hits:
    order = np.lexsort((hits[0], -hits[1]))[:limit]
    return hits[0][order], hits[1][order]


def _leaf(
    reader: Reader, query: TextQuery, columns: Mapping[str, float], selection: Selection, limit: int | None
) -> Hits:
    """Return the hits of words or a phrase in one column, or in several blended."""
    assert query.text is not None
    source, _ = _way(reader, columns, query)
    table, filter, allow = reader.table, selection.sql, selection.rows
    private = _private(reader, tuple(columns)) if source == "private" else None
    if private is not None:
        table, filter, allow = private.table, None, private.allowed(reader, selection)
    if allow is not None and not len(allow):
        return NO_HITS
    blend = query.combine == "blend" or source == "all rows"
    words = _by_fuzziness(query)
    if source == "all rows":
        words = [(0, part) for _, text in words for part in _apart(text)]
    parts = [
        _searched(
            table,
            columns if query.combine == "blend" else dict.fromkeys(columns, 1.0),
            text,
            # Parts of one query are added up, so all their rows are needed.
            limit=limit if len(words) == 1 else None,
            every=query.operator == "and",
            phrase=query.phrase,
            slop=query.slop,
            fuzziness=fuzziness,
            blend=blend,
            filter=filter,
            allow=allow,
        )
        for fuzziness, text in words
    ]
    if not parts:
        return NO_HITS
    rows, scores = parts[0] if len(parts) == 1 else _joined(parts, np.add, every=query.operator == "and")
    return (rows if private is None else private.rows_of(rows)), scores


def _searched(
    table: Table, columns: Mapping[str, float], text: str, *, limit: int | None, **options: Any
) -> Hits:
    """Return all hits, or the `limit` best: of equal scores, those of the lowest row ids."""
    asked = None if limit is None else limit + 16
    while True:
        rows, scores = table.text_search(columns, text, limit=asked, **options)
        if limit is None or asked is None or len(rows) < asked or scores[limit - 1] != scores[-1]:
            return rows[:limit], scores[:limit]
        # Lance cuts a row of equal scores anywhere, and pages would not fit together.
        asked *= 8


def _apart(text: str) -> list[str]:
    """Return a text in parts so that no two words of a part begin alike, and so may have one stem.

    BM25F counts a word that stands twice once; an index alone counts it twice. Stemmers cut endings, and
    leave the first two letters but of a few words (dying, die).
    """
    parts: list[dict[str, str]] = []
    for word in text.split():
        begin = unicodedata.normalize("NFKD", word.casefold())[:2]
        part = next((p for p in parts if begin not in p), None)
        if part is None:
            parts.append(part := {})
        part[begin] = word
    return [" ".join(part.values()) for part in parts]


def _by_fuzziness(query: TextQuery) -> list[tuple[int, str]]:
    """Return the words grouped by how many letters may differ; Lance's own `auto` finds nothing."""
    assert query.text is not None
    if query.fuzziness != "auto":
        return [(query.fuzziness, query.text)] if query.text.strip() else []
    groups: dict[int, list[str]] = {}
    for word in query.text.split():
        letters = sum(c.isalnum() for c in word)
        groups.setdefault(0 if letters <= 2 else 1 if letters <= 5 else 2, []).append(word)
    return [(fuzziness, " ".join(words)) for fuzziness, words in groups.items()]


# ------------------------------------------------------------------------ which way

_ALONE: Final = "an index made for this version alone"


def _indexes(reader: Reader) -> dict[str, LanceIndex]:
    return {i.column: i for i in reader.table.indexes if i.kind == TEXT}


def _way(reader: Reader, columns: Mapping[str, float], query: TextQuery) -> tuple[str, str]:
    """Return how to search columns together: `index`, `all rows` or `private`; and in words, for plans."""
    indexes = _indexes(reader)
    without = [c for c in columns if c not in indexes]
    if without:
        return "private", f"{_ALONE}: {without[0]!r} has no text index"
    known = _known(reader)
    first = next(iter(columns))
    if len(columns) > 1:
        cuts = [_analysis(known.params(reader.table, indexes[c])) for c in columns]
        if any(c != cuts[0] for c in cuts):
            raise InvalidInputError(
                f"columns {sorted(columns)} cut words in different ways; they cannot be blended",
                hint="combine='best', or text indexes with the same options",
            )
    if query.phrase and not known.params(reader.table, indexes[first]).get("with_position"):
        raise InvalidInputError(
            f"the text index of {first!r} has no positions, which phrases need",
            hint=f"create_payload_index({first!r}, 'text', with_position=True)",
        )
    tail = max(known.unindexed(reader.table, indexes[c]) for c in columns)
    if not tail:
        return "index", "its text index"
    if query.fuzziness or (query.phrase and tail > _PHRASE_TAIL * reader.rows):
        return "private", f"{_ALONE}: {tail:,} rows are not indexed, until optimize()"
    return "index" if query.phrase else "all rows", f"its text index, and {tail:,} rows one by one"


def _analysis(params: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in params.items() if k != "with_position"}


@dataclass(slots=True)
class _Known:
    """What was found out about the text of one version, and its private indexes."""

    private: dict[tuple[str, ...], _Private] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _params: dict[str, dict[str, Any]] = field(default_factory=dict)
    _unindexed: dict[str, int] = field(default_factory=dict)

    def params(self, table: Table, index: LanceIndex) -> dict[str, Any]:
        """Return how an index analyses text."""
        if index.name not in self._params:
            self._params[index.name] = table.text_params(index)
        return self._params[index.name]

    def unindexed(self, table: Table, index: LanceIndex) -> int:
        """Return how many rows an index does not cover."""
        if index.name not in self._unindexed:
            self._unindexed[index.name] = table.unindexed_rows(index)
        return self._unindexed[index.name]


_versions: weakref.WeakKeyDictionary[Reader, _Known] = weakref.WeakKeyDictionary()
_versions_lock = threading.Lock()


def _known(reader: Reader) -> _Known:
    with _versions_lock:
        if reader not in _versions:
            _versions[reader] = _Known()
        return _versions[reader]


def _private(reader: Reader, columns: tuple[str, ...]) -> _Private:
    known = _known(reader)
    with known.lock:
        if columns not in known.private:
            indexes = _indexes(reader)
            like = next((known.params(reader.table, indexes[c]) for c in columns if c in indexes), {})
            known.private[columns] = _Private(reader, columns, like)
        return known.private[columns]


class _Private:
    """The text of one version, indexed in a temporary folder that goes with this object.

    20,000 package descriptions take half a second and, on disk, their own size and a third.
    """

    def __init__(self, reader: Reader, columns: tuple[str, ...], like: Mapping[str, Any]) -> None:
        """Copy the columns and index them.

        Args:
            reader: The version.
            columns: What to index.
            like: The analysis, as Lance tells it of an index; this library's defaults where empty.
        """
        started = time.perf_counter()
        folder = tempfile.mkdtemp(prefix="vecdataset-text-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        fields = [reader.table.schema.field(c).remove_metadata() for c in columns]
        schema = pa.schema([pa.field("id", pa.uint64()), *fields])
        table = private_table(
            pa.RecordBatchReader.from_batches(schema, _renamed(reader, columns, schema)),
            str(Path(folder, "text")),
        )
        options = {k: v for k, v in like.items() if k in TEXT_OPTIONS and v is not None}
        for column in columns:
            table = table.create_scalar_index(
                column, TEXT, name=f"{column}.text_idx", options={**options, **TEXT_DEFAULTS}
            )
        self.table = table
        ids = table.read(["id"], row_ids=True)
        self._own, self._theirs = ids["_rowid"].to_numpy(), ids["id"].to_numpy()
        self._order = np.argsort(self._theirs)
        self.took_s = time.perf_counter() - started

    def allowed(self, reader: Reader, selection: Selection) -> np.ndarray | None:
        """Return the selected rows by the ids of this copy; None for all."""
        if selection.everything:
            return None
        rows = selection.rows
        if rows is None:
            rows = reader.table.row_ids(selection.sql)
        at = np.searchsorted(self._theirs, rows, sorter=self._order)
        return np.sort(self._own[self._order[at]])

    def rows_of(self, own: np.ndarray) -> np.ndarray:
        """Return the row ids of the collection for those of this copy."""
        rows: np.ndarray = self._theirs[np.searchsorted(self._own, own)]
        return rows


def _renamed(reader: Reader, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in reader.table.scan(columns, row_ids=True):
        arrays = [batch.column("_rowid"), *(batch.column(c) for c in columns)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


__all__ = ["TextQuery", "text_plan", "text_rows"]
