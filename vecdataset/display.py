"""Tables for people, as text and HTML: pure functions of plain data."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_CELL = 48
MAX_COLUMNS = 12


def cell(value: Any) -> str:
    """Return one value as short text on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.4g}"
    if isinstance(value, list | tuple) and len(value) > 4 and all(isinstance(v, float) for v in value[:4]):
        return "[" + ", ".join(f"{v:.3f}" for v in value[:3]) + f", … {len(value)}]"
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names)


def text_table(rows: Iterable[Mapping[str, Any]], *, total: int | None = None) -> str:
    """Return rows as an aligned text table; numbers stand on the right."""
    rows = list(rows)
    if not rows:
        return "(no rows)"
    names = _columns(rows)
    hidden = len(names) - MAX_COLUMNS
    names = names[:MAX_COLUMNS]
    cells = [[cell(row.get(n)) for n in names] for row in rows]
    widths = [max(len(n), *(len(line[i]) for line in cells)) for i, n in enumerate(names)]
    right = [all(isinstance(row.get(n), int | float) or row.get(n) is None for row in rows) for n in names]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    out = [line(names), "  ".join("─" * w for w in widths), *(line(c) for c in cells)]
    if total is not None and total > len(rows):
        out.append(f"… {total - len(rows):,} more rows")
    if hidden > 0:
        out.append(f"… {hidden} more columns")
    return "\n".join(out)


def html_table(rows: Iterable[Mapping[str, Any]], *, total: int | None = None) -> str:
    """Return rows as a plain HTML table: no script, no style sheet, everything escaped."""
    rows = list(rows)
    names = _columns(rows)[:MAX_COLUMNS]
    head = "".join(f"<th>{html.escape(n)}</th>" for n in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell(row.get(n)))}</td>" for n in names) + "</tr>" for row in rows
    )
    more = f"<p>… {total - len(rows):,} more rows</p>" if total is not None and total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
