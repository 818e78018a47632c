"""Payload indexes: which of Lance's scalar indexes stands for a kind, and over which columns it can.

A payload index changes the speed of filters, never their answers; `text` also serves
`Collection.text`. Kinds have Qdrant's names, or Lance's. What was measured on 20,000 and 120,000
packages decided the choices: a btree beats a scan of the column up to a selectivity of about one
half and loses at most 3 ms beyond; a bitmap is as fast on few values and four times slower than no
index at all for ranges over many, so only booleans get one unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from vecdataset.errors import InvalidInputError, UnknownNameError, did_you_mean
from vecdataset.schema import PayloadColumn

TEXT: Final = "inverted"
"""Lance's name of the index behind the kind `text`."""

LANGUAGES: Final = (
    "Arabic", "Danish", "Dutch", "English", "Finnish", "French", "German", "Greek", "Hungarian",
    "Italian", "Norwegian", "Portuguese", "Romanian", "Russian", "Spanish", "Swedish", "Tamil", "Turkish",
)  # fmt: skip
"""Languages with a stemmer."""

TOKENIZERS: Final = ("simple", "whitespace", "raw", "ngram", "icu", "icu/split")

TEXT_DEFAULTS: Final[Mapping[str, Any]] = {"with_position": True}
"""Where this library differs from Lance: without positions there are no phrases."""

_FLAGS: Final = ("stem", "remove_stop_words", "lower_case", "ascii_folding", "with_position", "prefix_only")
_SIZES: Final = {"max_token_length": 1_000, "min_ngram_length": 16, "max_ngram_length": 16}
TEXT_OPTIONS: Final = ("language", "base_tokenizer", "custom_stop_words", *_FLAGS, *_SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadIndex:
    """What to build for a payload index."""

    column: str
    """The payload key, which is the column's name."""
    kind: str
    """The kind as it was asked for, or Lance's name where nobody asked."""
    lance: str
    """Lance's name: `btree`, `bitmap`, `label_list`, `inverted`, `ngram` …"""
    name: str
    """The index's name; a key can have one index of each sort."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The names of Lance's indexes that it is, each with the column, or the part of one, beneath it."""
        if self.kind != "geo":
            return ((self.name, self.column),)
        return ((self.name, f"{self.column}.lat"), (f"{self.name}{SECOND_PART}", f"{self.column}.lon"))

    def to_json(self) -> dict[str, Any]:
        """Return what the collection remembers of it."""
        return {"kind": self.kind, "lance": self.lance, **self.options}


def payload_index(column: PayloadColumn, kind: str | None, options: Mapping[str, Any]) -> PayloadIndex:
    """Return the index of a kind over a column.

    Raises:
        UnknownNameError: No such kind or option.
        InvalidInputError: The column's type does not go with the kind, or an option is wrong.
    """
    asked = None if kind is None else str(kind).lower()
    if asked is not None and asked not in _KINDS:
        raise UnknownNameError(
            f"payload index kind {kind!r} is not known",
            hint=did_you_mean(asked, _KINDS, what="payload index kinds"),
        )
    item = _element(column.type)
    if asked is None:
        asked = "label_list" if item is not None else _unasked(column)
    lance, takes = _KINDS[asked].lance, _KINDS[asked].takes
    if item is not None and lance == "btree" and asked != "btree":
        lance = "label_list"
    listed = lance in (TEXT, "label_list") and takes is not _lists
    fits = takes(column, item if item is not None and listed else column.type)
    if not fits:
        raise InvalidInputError(
            f"payload key {column.name!r} holds {column.type}; an index {asked!r} takes {_KINDS[asked].says}"
        )
    checked = text_options(options) if lance == TEXT else _none(options, asked)
    name = column.name + _suffix(asked, lance)
    return PayloadIndex(column=column.name, kind=asked, lance=lance, name=name, options=checked)


def _unasked(column: PayloadColumn) -> str:
    if _place(column, column.type):
        return "geo"
    return "bitmap" if pa.types.is_boolean(column.type) else "btree"


_SUFFIXES: Final = {TEXT: ".text_idx", "ngram": ".ngram_idx", "geo": ".geo_idx"}
"""No key with a column has a dot, so these names meet no other key's."""
SECOND_PART: Final = ".lon"
"""Ends the name of the second of Lance's indexes that stand for a `geo` index."""


def _suffix(kind: str, lance: str) -> str:
    return _SUFFIXES.get("geo" if kind == "geo" else lance, "_idx")


def lost_indexes(
    remembered: Mapping[str, Mapping[str, Any]], there: Container[str], payload: Mapping[str, PayloadColumn]
) -> list[PayloadIndex]:
    """Return payload indexes that were made and are gone: Lance drops them when a column widens.

    Args:
        remembered: Index name to `PayloadIndex.to_json`, or to what other indexes remember.
        there: Names of the indexes that are there.
        payload: The payload columns.
    """
    out = []
    for name, stored in remembered.items():
        suffix = _suffix(stored.get("kind", ""), stored.get("lance", ""))
        column = payload.get(name.removesuffix(suffix))
        if name in there or "lance" not in stored or column is None:
            continue
        options = {k: v for k, v in stored.items() if k not in ("kind", "lance")}
        try:
            out.append(payload_index(column, stored["kind"], options))
        except InvalidInputError:
            continue  # the column has become one that the kind does not take
    return out


def text_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a text index under Lance's names, checked, with this library's defaults.

    `language`, `stem`, `remove_stop_words`, `custom_stop_words`, `lower_case`, `ascii_folding`,
    `with_position` (phrases need it), `base_tokenizer` (`simple`, `whitespace`, `raw`, `ngram`, `icu` …),
    `max_token_length`, `min_ngram_length`, `max_ngram_length`, `prefix_only`.
    """
    out = dict(TEXT_DEFAULTS)
    for name, value in options.items():
        if name not in TEXT_OPTIONS:
            raise UnknownNameError(
                f"text index option {name!r} is not known",
                hint=did_you_mean(name, TEXT_OPTIONS, what="text index options"),
            )
        if value is not None:
            out[name] = _checked(name, value)
    if out.get("min_ngram_length", 3) > out.get("max_ngram_length", 3):
        raise InvalidInputError("min_ngram_length is larger than max_ngram_length (3 unless given)")
    return out


def _checked(name: str, value: Any) -> Any:
    if name == "language":
        return _known(name, str(value).capitalize(), LANGUAGES, "icu or ngram cut other languages")
    if name == "base_tokenizer":
        return _known(name, str(value).lower(), TOKENIZERS)
    if name == "custom_stop_words":
        if isinstance(value, str):
            raise InvalidInputError(f"{name} is the string {value!r}; it must be a list of words")
        return [str(v) for v in value]
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise InvalidInputError(f"{name} is {value!r}; it must be True or False")
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _SIZES[name]:
        raise InvalidInputError(f"{name} is {value!r}; it must be 1 to {_SIZES[name]:,}")
    return value


def _known(name: str, value: str, known: tuple[str, ...], also: str | None = None) -> str:
    if value not in known:
        hint = did_you_mean(value, known, what=f"values of {name}")
        if also is not None:
            hint += f"; base_tokenizer {also}"
        raise UnknownNameError(f"{name} {value!r} is not known", hint=hint)
    return value


def _none(options: Mapping[str, Any], kind: str) -> dict[str, Any]:
    given = sorted(k for k, v in options.items() if v is not None)
    if given:
        raise UnknownNameError(
            f"a payload index {kind!r} takes no option {given[0]!r}", hint="only kind 'text' has options"
        )
    return {}


# ---------------------------------------------------------------------------- kinds

Takes = Callable[[PayloadColumn, pa.DataType], bool]


@dataclass(frozen=True, slots=True)
class _Kind:
    lance: str
    takes: Takes
    says: str


def _element(kind: pa.DataType) -> pa.DataType | None:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return kind.value_type if is_list else None


def _text(_: PayloadColumn, kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _integer(column: PayloadColumn, kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind)) or column.json_number


def _number(_: PayloadColumn, kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _boolean(_: PayloadColumn, kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind))


def _moment(_: PayloadColumn, kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _scalar(_: PayloadColumn, kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


def _place(_: PayloadColumn, kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    sides = [kind.get_field_index(name) for name in ("lat", "lon")]
    return all(at >= 0 and pa.types.is_floating(kind.field(at).type) for at in sides)


def _lists(_: PayloadColumn, kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind)) and not pa.types.is_struct(kind)


_KINDS: Final[Mapping[str, _Kind]] = {
    "keyword": _Kind("btree", _text, "text, or lists of it"),
    "integer": _Kind("btree", _integer, "integers, or lists of them"),
    "float": _Kind("btree", _number, "numbers, or lists of them"),
    "bool": _Kind("bitmap", _boolean, "booleans"),
    "datetime": _Kind("btree", _moment, "timestamps or dates; times in text are compared one by one"),
    "geo": _Kind("btree", _place, "places: {lat, lon}, both with a fraction"),
    "uuid": _Kind("btree", _text, "text, or lists of it"),
    "text": _Kind(TEXT, _text, "text, or lists of it"),
    "btree": _Kind("btree", _scalar, "single values"),
    "bitmap": _Kind("bitmap", _scalar, "single values"),
    "label_list": _Kind("label_list", _lists, "lists"),
    "inverted": _Kind(TEXT, _text, "text, or lists of it"),
    "fts": _Kind(TEXT, _text, "text, or lists of it"),
    "ngram": _Kind("ngram", _text, "text"),
}

__all__ = [
    "LANGUAGES",
    "SECOND_PART",
    "TEXT",
    "TEXT_DEFAULTS",
    "TEXT_OPTIONS",
    "PayloadIndex",
    "lost_indexes",
    "payload_index",
    "text_options",
]
