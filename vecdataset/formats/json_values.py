"""JSON as a stream of records: lines, arrays, and the documents that stores answer with.

A record is one point in the shape of some store (`json_shapes`). Two readers give records with
their numbers: `line_records`, one object a line, and `document_records`, which walks into

* an array of records, `[{…}, {…}]`;
* an object with the records under `points` (Qdrant), `vectors` (Pinecone), `objects` (Weaviate)
  or `rows` (Milvus), also within `result`, as Qdrant's scroll answers, and several such
  objects one after the other;
* an object of columns: Qdrant's `batch` (`ids`, `vectors`, `payloads`) and what Chroma's `get`
  returns (`ids`, `embeddings`, `documents`, `metadatas`);
* one record alone.

Records are decoded one at a time by the standard library's scanner; only columns need their
whole document in memory. Integers are exact whatever their size; NaN and Infinity, which are
not JSON, are refused.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from vecdataset.errors import InvalidInputError
from vecdataset.formats.files import HEAD_BYTES, Source

__all__ = ["Record", "document_records", "is_document", "is_lines", "line_records"]

Record = dict[str, Any]

_CHUNK: Final = 1 << 20
_LISTS: Final = frozenset({"points", "vectors", "objects", "rows"})
_COLUMNS: Final = {
    "vectors": "vector",
    "payloads": "payload",
    "embeddings": "embedding",
    "documents": "document",
    "metadatas": "metadata",
    "uris": "uri",
}
"""Columns of a document to the keys of its records."""
_CONTAINER: Final = re.compile(
    rb'\s*\{\s*"(?:(?:points|objects|rows)"\s*:\s*\[|vectors"\s*:\s*[\[{]\s*["{]|(?:result|batch)"\s*:\s*[\[{]'
    rb'|(?:time|status|usage)"\s*:|(?:ids|embeddings)"\s*:\s*\[)'
)
_BOM: Final = b"\xef\xbb\xbf"


def is_lines(head: bytes) -> bool:
    """Return whether a file's first line is one record, as far as it can be seen."""
    text = head.removeprefix(_BOM).lstrip()
    if not text.startswith(b"{") or _CONTAINER.match(text):
        return False
    line, end, _ = text.partition(b"\n")
    if not end and len(head) >= HEAD_BYTES:
        return True  # a long line: its end is out of sight
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def is_document(head: bytes) -> bool:
    """Return whether a file begins as a JSON array or object."""
    return head.removeprefix(_BOM).lstrip()[:1] in {b"{", b"["}


def line_records(source: Source) -> Iterator[tuple[int, Record]]:
    """Yield line numbers and objects; blank lines are passed over.

    Raises:
        InvalidInputError: A line is no JSON object, or the file breaks off.
    """
    number = 0
    try:
        for number, raw in enumerate(source.file, 1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_constant=_no_constant)
            except (ValueError, RecursionError) as exc:
                raise InvalidInputError(
                    f"line {number} of {source.name} is not JSON: {exc}",
                    hint="each line holds one point, as a JSON object",
                ) from None
            if not isinstance(row, dict):
                raise InvalidInputError(
                    f"line {number} of {source.name} is a JSON {_kind(row)}; a point is an object"
                )
            yield number, row
    except (EOFError, zlib.error, OSError) as exc:
        raise InvalidInputError(f"{source.name} breaks off after line {number}: {exc}") from None


def document_records(source: Source) -> Iterator[tuple[int, Record]]:
    """Yield numbers, from 1, and records of one or several JSON documents.

    Raises:
        InvalidInputError: The file is not JSON, breaks off, or a record is no object.
    """
    number = 0
    for number, row in enumerate(_documents(_Text(source)), 1):
        if not isinstance(row, dict):
            raise InvalidInputError(
                f"point {number} of {source.name} is a JSON {_kind(row)}; a point is an object"
            )
        yield number, row


def _documents(text: _Text) -> Iterator[Any]:
    while start := text.peek():
        if start == "[":
            yield from _array(text)
        elif start == "{":
            yield from _object(text)
        else:
            raise text.error("expecting an object or an array")


def _array(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            return


def _members(text: _Text) -> Iterator[str]:
    """Yield the keys of an object; the caller takes each value before it asks for the next."""
    text.take("{")
    if text.peek() == "}":
        text.take("}")
        return
    while True:
        if text.peek() != '"':
            raise text.error("expecting a key in double quotes")
        key = text.value()
        text.take(":")
        yield key
        if text.take(",}") == "}":
            return


def _object(text: _Text) -> Iterator[Any]:
    rest: Record = {}
    walked = False
    for key in _members(text):
        start = text.peek()
        if key in _LISTS and start == "[" and rest.keys().isdisjoint(("id", "ids")):
            yield from _array(text)
        elif key == "vectors" and start == "{" and rest.keys().isdisjoint(("id", "ids")):
            for _ in _members(text):  # by id, as Pinecone's fetch answers
                yield text.value()
        elif key == "result" and start in {"[", "{"}:
            yield from _array(text) if start == "[" else _object(text)
        else:
            rest[key] = text.value()
            continue
        walked = True
    if walked:
        return
    batch = rest.get("batch")
    columns = batch if isinstance(batch, dict) else rest
    if isinstance(columns.get("ids"), list):
        yield from _rows(columns, text)
    else:
        yield rest


def _rows(columns: Mapping[str, Any], text: _Text) -> Iterator[Record]:
    """Yield the records of a document of columns."""
    ids = columns["ids"]
    found: dict[str, list[Any]] = {"id": ids}
    for name, key in _COLUMNS.items():
        values = columns.get(name)
        if values is None:
            continue
        named = values if isinstance(values, dict) else {None: values}
        for column in named.values():
            if not isinstance(column, list) or len(column) != len(ids):
                size = f"{len(column)} values" if isinstance(column, list) else f"a JSON {_kind(column)}"
                raise InvalidInputError(f"{name!r} of {text.name} holds {size} for {len(ids)} ids")
        if isinstance(values, dict):
            values = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        found[key] = values
    for row in zip(*found.values(), strict=True):
        yield dict(zip(found, row, strict=True))


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _kind(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )


class _Text:
    """JSON text that is read as it is needed."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._file = source.file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder(parse_constant=_no_constant).raw_decode
        self._held = ""
        self._at = 0
        self._before = 0
        self._ended = False

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\n\r":
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._fill():
                return ""

    def take(self, expected: str) -> str:
        """Return the next character, which must be one of `expected`."""
        found = self.peek()
        if not found or found not in expected:
            raise self.error("expecting " + " or ".join(repr(c) for c in expected))
        self._at += 1
        return found

    def value(self) -> Any:
        """Return the next value, whole."""
        if not self.peek():
            raise self.error("expecting a value")
        while True:
            try:
                value, end = self._scan(self._held, self._at)
            except json.JSONDecodeError as exc:
                # Perhaps only the rest is missing; a file without end is not read to its end for it.
                if self._fill():
                    continue
                self._at = exc.pos
                raise self.error(exc.msg) from None
            except (ValueError, RecursionError) as exc:
                raise self.error(str(exc)) from None
            if end < len(self._held) or not self._fill():
                self._at = end
                return value

    def error(self, what: str) -> InvalidInputError:
        """Return an error that says where reading stopped."""
        where = (
            "at its end" if self._ended and self._at >= len(self._held) else f"at {self._before + self._at}"
        )
        return InvalidInputError(
            f"{self.name} is not JSON {where}: {what}", hint="the place is counted in characters"
        )

    def _fill(self) -> bool:
        """Read more, as much again as is waiting; return whether there was more."""
        if self._ended:
            return False
        try:
            data = self._file.read(max(_CHUNK, len(self._held) - self._at))
            more = self._decode.decode(data, final=not data)
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"{self.name} is not UTF-8: {exc.reason}") from None
        except (EOFError, zlib.error, OSError) as exc:
            raise InvalidInputError(f"{self.name} breaks off: {exc}") from None
        self._ended = not data
        self._before += self._at
        self._held = self._held[self._at :] + more
        self._at = 0
        return bool(data)
