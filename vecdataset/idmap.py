"""Where ids stand among the rows of a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vecdataset.engine import Table

_INTEGERS: Final = 1_000_000
"""Integer ids that are kept at most: 16 MB."""
_TEXTS: Final = 100_000
"""Textual ids that are kept at most, 10 MB of keys."""
_INTEGERS_A_CALL: Final = 10_000
"""Integer ids that are read and sorted in what one look-up through Lance costs more than one here."""
_TEXTS_A_CALL: Final = 2_000


class IdPositions:
    """Positions of ids in an array of them."""

    def __init__(self, ids: pa.Array) -> None:
        """Take stored ids, each there once."""
        self._texts: Mapping[str, int] | None = None
        if pa.types.is_string(ids.type):
            self._texts = {text: at for at, text in enumerate(ids.to_pylist())}
            return
        values = ids.to_numpy()
        self._order: np.ndarray | None = None
        if len(values) > 1 and not bool((values[1:] > values[:-1]).all()):
            self._order = np.argsort(values, kind="stable")
            values = values[self._order]
        self._sorted = values

    def find(self, ids: Sequence[Any]) -> dict[Any, int]:
        """Return the positions of stored ids, as far as they are there."""
        if self._texts is not None:
            return {value: self._texts[value] for value in ids if value in self._texts}
        wanted = np.array(ids, np.uint64)
        at = np.searchsorted(self._sorted, wanted)
        at[at == len(self._sorted)] = 0
        here = self._sorted[at] == wanted if len(self._sorted) else np.zeros(len(wanted), bool)
        places = at[here] if self._order is None else self._order[at[here]]
        return dict(zip(wanted[here].tolist(), places.tolist(), strict=True))


class IdMap:
    """The row ids of a version's ids, kept once the look-ups before have cost as much as reading them.

    So one look-up reads what it needs and no more, and a thousand pay for the whole column once.
    """

    def __init__(self, table: Table, id_type: str | None) -> None:
        """Keep nothing yet."""
        self._table = table
        integers = id_type == "uint64"
        most, a_call = (_INTEGERS, _INTEGERS_A_CALL) if integers else (_TEXTS, _TEXTS_A_CALL)
        rows = table.rows
        self._after: float = float("inf") if id_type is None or rows > most else rows / a_call
        self._asked = 0
        self._known: tuple[IdPositions, np.ndarray] | None = None

    def find(self, ids: Sequence[Any]) -> dict[Any, int] | None:
        """Return the row ids of stored ids, as far as they are there; None while Lance is to be asked."""
        if self._known is None:
            self._asked += 1
            if self._asked <= self._after:
                return None
            read = self._table.read(["id", "_rowid"])
            self._known = IdPositions(read["id"].combine_chunks()), read["_rowid"].to_numpy()
        positions, rows = self._known
        return {value: int(rows[at]) for value, at in positions.find(ids).items()}
