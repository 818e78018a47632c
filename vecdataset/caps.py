"""Limits that an operator sets in the environment; without them nothing is limited.

`VECDB_MAX_COLLECTIONS` is the number of collections of a `Catalog`, `VECDB_MAX_VECTORS_PER_COLLECTION`
the number of points of a collection. They are looked at before anything is written, as this process
sees the collection then: two writers at the same moment can exceed them by what one of them brings.
"""

from __future__ import annotations

import os
from typing import Final

from vecdataset.errors import InvalidInputError

COLLECTIONS: Final = "VECDB_MAX_COLLECTIONS"
POINTS: Final = "VECDB_MAX_VECTORS_PER_COLLECTION"


def cap(variable: str) -> int | None:
    """Return a limit; None where it is not set.

    Raises:
        InvalidInputError: It is no number.
    """
    text = os.environ.get(variable, "").replace(",", "").replace("_", "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidInputError(
            f"the environment variable {variable} is {text!r}; it must be an integer of at least 0"
        )
    return int(text)
