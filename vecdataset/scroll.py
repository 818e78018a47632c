"""Pages of points in id order or in the order of a payload value, and the cursors between them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError, NotSupportedError, UnknownNameError, did_you_mean
from vecdataset.reader import Reader, Selection, id_literal, id_sort_key

CURSOR: Final = "v1."


def cursor(reader: Reader, last: int | str | None, skip: int) -> str:
    """Return where the next page begins, version included, as opaque text."""
    text = json.dumps([reader.table.version, last, skip], separators=(",", ":"))
    return CURSOR + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def is_cursor(text: str) -> bool:
    """Return whether text is a cursor, and not an id that begins as one."""
    if not text.startswith(CURSOR):
        return False
    try:
        decode_cursor(text)
    except InvalidInputError:
        return False
    return True


def decode_cursor(text: str) -> tuple[int, Any, int]:
    """Return version, last stored id, and rows to leave out, of a cursor."""
    body = text.removeprefix(CURSOR)
    try:
        version, last, skip = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return int(version), last, int(skip)
    except (ValueError, TypeError):
        raise InvalidInputError(f"scroll offset {text!r} is not one that a scroll returned") from None


def id_page(
    reader: Reader, selection: Selection, *, limit: int, start: Any = None, inclusive: bool = False
) -> tuple[np.ndarray, int | str | None, bool]:
    """Return row ids of a page in id order, its last stored id, and whether there is more."""
    if reader.schema.id_type == "mixed":
        return _mixed_page(reader, selection, limit=limit, start=start, inclusive=inclusive)
    if selection.rows is None:
        conditions = [f"({selection.sql})"] if selection.sql else []
        if start is not None:
            conditions.append(f"id {'>=' if inclusive else '>'} {id_literal(start)}")
        found = reader.table.read(
            ["id"],
            filter=" AND ".join(conditions) or None,
            order_by=[("id", True)],
            limit=limit + 1,
            row_ids=True,
            indexed=selection.indexed,
        )
    else:
        batches = list(reader.stream(["id"], selection, row_ids=True))
        if not batches:
            return np.zeros(0, np.uint64), None, False
        found = pa.Table.from_batches(batches).sort_by("id")
        if start is not None:
            bound = pa.scalar(start, found["id"].type)
            compare = pc.greater_equal if inclusive else pc.greater
            found = found.filter(compare(found["id"], bound))
    page = found.slice(0, limit)
    last = page["id"][-1].as_py() if len(page) else None
    return page["_rowid"].to_numpy(), last, len(found) > limit


def _mixed_page(
    reader: Reader, selection: Selection, *, limit: int, start: Any, inclusive: bool
) -> tuple[np.ndarray, int | str | None, bool]:
    """As `_id_page`, for ids whose stored text does not sort as they do: all ids are looked at."""

    def key(text: str) -> tuple[int, int, str]:
        return id_sort_key(int(text) if text.isdigit() else text)

    entries: list[tuple[tuple[int, int, str], str, int]] = []
    floor = None if start is None else key(start)
    for batch in reader.stream(["id"], selection, row_ids=True):
        for text, row in zip(batch.column("id").to_pylist(), batch.column("_rowid").to_pylist(), strict=True):
            own = key(text)
            if floor is None or own > floor or (inclusive and own == floor):
                entries.append((own, text, row))
    entries.sort()
    page = entries[:limit]
    return (
        np.array([row for _, _, row in page], np.uint64),
        page[-1][1] if page else None,
        len(entries) > limit,
    )


def order_column(reader: Reader, key: str) -> str:
    """Return the column that orders points by a payload key, or say why none can."""
    if key not in reader.schema.payload:
        raise UnknownNameError(
            f"{reader.where} has no payload column {key!r} to order by",
            hint=did_you_mean(key, reader.schema.payload, what="payload columns"),
        )
    if key in reader.extra_keys and not reader.schema.payload[key].json_number:
        raise NotSupportedError(f"payload key {key!r} holds values of several types; it cannot order points")
    return key


def ordered_page(
    reader: Reader, selection: Selection, order_by: str | Mapping[str, Any], *, limit: int, skip: int
) -> tuple[np.ndarray, bool]:
    """Return row ids of a page in the order of a payload value, and whether there is more."""
    if isinstance(order_by, str):
        key, ascending = order_by, True
    else:
        unknown = set(order_by) - {"key", "direction"}
        if unknown or "key" not in order_by:
            raise InvalidInputError(
                f"order_by is {dict(order_by)!r}",
                hint="pass a key, or {'key': …, 'direction': 'asc' | 'desc'}",
            )
        key = order_by["key"]
        direction = order_by.get("direction", "asc")
        if direction not in ("asc", "desc"):
            raise InvalidInputError(f"order_by direction is {direction!r}; it must be 'asc' or 'desc'")
        ascending = direction == "asc"
    key = order_column(reader, key)
    order = [(key, ascending), ("id", True)]
    if selection.rows is None:
        sql = f"(`{key}` IS NOT NULL)" + (f" AND ({selection.sql})" if selection.sql else "")
        found = reader.table.read(
            [key, "id"],
            filter=sql,
            order_by=order,
            limit=limit + 1,
            offset=skip or None,
            row_ids=True,
            indexed=selection.indexed,
        )
        rows = found["_rowid"].to_numpy()
    else:
        batches = list(reader.stream([key, "id"], selection, row_ids=True))
        if not batches:
            return np.zeros(0, np.uint64), False
        table = pa.Table.from_batches(batches)
        table = table.filter(table[key].is_valid())
        names = [(n, "ascending" if up else "descending") for n, up in order]
        rows = table.sort_by(names)["_rowid"].to_numpy()[skip : skip + limit + 1]
    return rows[:limit], len(rows) > limit
