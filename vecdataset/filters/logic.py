"""The connectives and literals of Lance's SQL, as texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

TRUE: Final = "true"
FALSE: Final = "false"


class Undecidable(Exception):  # noqa: N818  not an error: caught one level up
    """Lance cannot say this; `possible` is true for at least the rows that match."""

    def __init__(self, possible: str = TRUE) -> None:
        super().__init__(possible)
        self.possible = possible


def both(*parts: str) -> str:
    """Return the conjunction; of nothing, true."""
    kept = list(dict.fromkeys(p for p in parts if p != TRUE))
    if FALSE in kept:
        return FALSE
    return " AND ".join(kept) if kept else TRUE


def either(*parts: str) -> str:
    """Return the disjunction, in parentheses; of nothing, false."""
    kept = list(dict.fromkeys(p for p in parts if p != FALSE))
    if TRUE in kept:
        return TRUE
    if len(kept) < 2:
        return kept[0] if kept else FALSE
    return "(" + " OR ".join(kept) + ")"


def negated(sql: str) -> str:
    """Return the opposite of SQL; null stays null."""
    if sql in {TRUE, FALSE}:
        return TRUE if sql == FALSE else FALSE
    return f"NOT ({sql})"


def not_true(sql: str) -> str:
    """Return the rows where SQL is false or null."""
    if sql in {TRUE, FALSE}:
        return TRUE if sql == FALSE else FALSE
    return f"({sql}) IS NOT TRUE"


def depth(sql: str) -> int:
    """Return how deep a parser goes that calls itself for every parenthesis and operator.

    Lance gives up at 50, and counts what stands to the right of an operator as inside it.
    """
    if sql.count("(") < 4:
        return 8
    most = 0
    levels = [(0, set[str]())]
    for found in _STRUCTURE.finditer(sql):
        part = found.group()
        base, pending = levels[-1]
        if part in "([":
            levels.append((base + len(pending) + 1, set()))
        elif part in ")]":
            levels.pop()
        elif part[0] not in "'`":
            pending.add(part)
        base, pending = levels[-1]
        most = max(most, base + len(pending))
    return most


_STRUCTURE: Final = re.compile(
    r"'(?:[^']|'')*'|`[^`]*`|[()\[\]]|\b(?:OR|AND|NOT|IS|IN|LIKE)\b|[<>=]+|[+*/%-]"
)


def identifier(path: Iterable[str]) -> str:
    """Return a column, or a field inside it, as an identifier."""
    steps = list(path)
    if any("`" in s or not s for s in steps):
        raise Undecidable  # Lance cannot filter on such names
    return ".".join(f"`{s}`" for s in steps)


def string(text: str) -> str:
    """Return a text as a literal; DataFusion knows no escape but the doubled quote."""
    return "'" + text.replace("'", "''") + "'"
