"""What changed from one version of a collection to another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vecdataset.reader import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed from one version to another."""

    added: Sequence[int | str]
    """Ids, as stored."""
    changed: Sequence[int | str]
    removed: Sequence[int | str]
    columns_added: Sequence[str]
    columns_removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.columns_added or self.columns_removed)


def difference(a: Reader, b: Reader) -> Difference:
    """Return what changed from `a` to `b`; rows of fragments that both share are not read."""
    before = {(f.files, f.deletions): f.id for f in a.table.fragment_list()}
    after = {(f.files, f.deletions): f.id for f in b.table.fragment_list()}
    shared = before.keys() & after.keys()
    old = _rows(a, [i for key, i in before.items() if key not in shared])
    new = _rows(b, [i for key, i in after.items() if key not in shared])
    return Difference(
        added=[i for i in new if i not in old],
        removed=[i for i in old if i not in new],
        changed=[i for i, row in new.items() if i in old and old[i] != row],
        columns_added=sorted(set(b.table.schema.names) - set(a.table.schema.names)),
        columns_removed=sorted(set(a.table.schema.names) - set(b.table.schema.names)),
    )


def _rows(reader: Reader, fragments: list[int]) -> dict[Any, bytes]:
    """Return a digest of each row by stored id; nulls, and columns that are not there, count alike."""
    out: dict[Any, bytes] = {}
    if not fragments or reader.schema.id_type is None:
        return out
    names = sorted(n for n in reader.table.schema.names if n != "id")
    for batch in reader.table.scan(["id", *names], fragments=fragments, batch_rows=2_048):
        ids = batch.column("id").to_pylist()
        columns = {n: batch.column(n).to_pylist() for n in names}
        for at, key in enumerate(ids):
            row = {n: values[at] for n, values in columns.items() if values[at] is not None}
            out[key] = hashlib.sha256(repr(row).encode()).digest()
    return out
