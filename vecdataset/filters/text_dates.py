"""Texts compared as dates in Lance's SQL, where they are spelled in a way that sorts.

Of the many spellings that `parse_instant` reads, two sort like the instants they name:
`2024-12-31`, and `2024-12-31T23:59:59` with or without a fraction and a Z. Texts in any other
spelling, and those in the very second of a bound that is not whole, are left to Python.
"""

from __future__ import annotations

from typing import Final

from vecdataset.filters.expressions import CompareOp
from vecdataset.filters.logic import FALSE, TRUE, Undecidable, both, either, not_true, string
from vecdataset.filters.values import Instant, parse_instant

_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS
_DAY: Final = (
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_CLOCK: Final = r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?Z?"


def is_plain(sql: str) -> str:
    """Return the rows whose text, if there is one, is spelled in one of the two ways."""
    return f"({sql} IS NULL OR regexp_like({sql}, '^{_DAY}({_CLOCK})?$'))"


def compared_as_date(sql: str, op: CompareOp, to: Instant) -> tuple[str, list[str]]:
    """Return the rows for which a text as a date is `op to`, and guards for those where that is exact."""
    least, most = parse_instant("0000-01-01"), parse_instant("9999-12-31")
    if least is None or most is None or not least.ns <= to.ns < most.ns:
        raise Undecidable  # years of more digits do not sort
    guards = [is_plain(sql)]
    length, clock = f"character_length({sql})", f"left({sql}, 19)"
    second = string(Instant(to.ns // _SECOND_NS * _SECOND_NS).isoformat()[:19])
    if to.ns % _SECOND_NS == 0 and op in {">=", "<"}:
        times = f"{clock} {op} {second}"
    else:
        times = {"=": FALSE, "<>": TRUE}.get(op) or f"{clock} {op[0]} {second}"
        guards.append(not_true(f"{clock} = {second}"))
    days = both(f"{length} = 10", _days_compared(sql, op, to))
    return either(days, both(f"{length} > 10", times)), guards


def _days_compared(sql: str, op: CompareOp, to: Instant) -> str:
    down = to.ns // _DAY_NS
    whole = to.ns % _DAY_NS == 0
    if op in {"=", "<>"} and not whole:
        return FALSE if op == "=" else TRUE
    # d >= x is d >= the next midnight; d > x is d > the last one.
    days = down if whole or op in {">", "<="} else down + 1
    return f"{sql} {op} {string(Instant(days * _DAY_NS).isoformat()[:10])}"
