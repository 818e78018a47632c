"""Pages of points in id order or in the order of a payload value, and the cursors between them."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vecdataset.errors import InvalidInputError
from vecdataset.keys import Key
from vecdataset.ordering import Order, ordered_rows
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


def ordered_page(
    reader: Reader, selection: Selection, order: Order, *, limit: int, skip: int
) -> tuple[np.ndarray, bool]:
    """Return row ids of a page in the order of a payload value, and whether there is more."""
    key = Key(reader, order.key)
    scalars = key.plain and key.element_type == key.column_type
    if not scalars or selection.rows is not None or order.start_from is not None:
        rows, _ = ordered_rows(reader, order, selection, skip=skip, limit=limit + 1, by_id=True)
        return rows[:limit], len(rows) > limit
    # One column holds all values, one a point: Lance keeps no more than the page.
    sql = f"(`{order.key}` IS NOT NULL)" + (f" AND ({selection.sql})" if selection.sql else "")
    found = reader.table.read(
        [order.key, "id"],
        filter=sql,
        order_by=[(order.key, order.ascending), ("id", True)],
        limit=limit + 1,
        offset=skip or None,
        row_ids=True,
        indexed=selection.indexed,
    )
    rows = found["_rowid"].to_numpy()
    return rows[:limit], len(rows) > limit
