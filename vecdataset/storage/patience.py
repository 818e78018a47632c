"""How long Lance's own clients of stores wait, and how often they ask again."""

from __future__ import annotations

import math
from typing import Final

from vecdataset.errors import InvalidInputError

CONNECT_TIMEOUT_S: Final = 3.0
READ_TIMEOUT_S: Final = 30.0
RETRIES: Final = 2
"""With 2, Lance gives up on a refused connection after 4.1 s; with its default of 3, after 5.3 s."""


def seconds(name: str, value: object) -> float:
    """Return a time given as a number of seconds, `"20s"` or `"500ms"`.

    Raises:
        InvalidInputError: It is no such time, or not positive.
    """
    text = str(value).strip()
    number, factor = (text[:-2], 0.001) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        found = float(number) * factor
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise InvalidInputError(f"storage option {name!r} is a number of seconds, not {value!r}")
    return found


def whole_seconds(name: str, value: object) -> str:
    """Return a time as `client_retry_timeout` takes it: Lance ignores all but whole numbers there."""
    return str(math.ceil(seconds(name, value)))


def patience(
    *, connect_s: float | None = None, read_s: float | None = None, retries: int | None = None
) -> dict[str, str]:
    """Return Lance's options for how long to wait; None is the default.

    A request is not repeated after `read_s`: Lance asks several times itself, so that a store that
    hangs in the middle of a list is given up after some six of them, and not after eighteen.
    """
    read_s = read_s or READ_TIMEOUT_S
    return {
        "connect_timeout": _milliseconds(connect_s or CONNECT_TIMEOUT_S),
        # Lance takes `request_timeout` and does nothing with it (measured with pylance 14.0.2).
        "timeout": _milliseconds(read_s),
        "client_retry_timeout": str(math.ceil(read_s)),
        "client_max_retries": str(RETRIES if retries is None else retries),
    }


def _milliseconds(time_s: float) -> str:
    return f"{max(1, round(time_s * 1000))}ms"
