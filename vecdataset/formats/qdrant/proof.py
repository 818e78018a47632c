"""Proof that points arrived: their number, the set of their ids, and a sample looked at value by value.

Kept while points go out; compared with what the other side then gives back. A digest over the sorted
ids needs 8 bytes a point (16 for a UUID) and finds a point that is missing, doubled or of another id.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from vecdataset.errors import CorruptionError
from vecdataset.formats.qdrant.records import Records
from vecdataset.schema import CollectionSchema, Distance, VectorParams
from vecdataset.vectors import normalize

__all__ = ["SAMPLE", "IdSet", "Proof", "Stored"]

SAMPLE: Final = 256
_TOLERANCE: Final = {"float32": 1e-6, "float16": 1e-3, "int8": 1e-3, "uint8": 0.0}
"""By how much a component of a vector may differ that Qdrant has scaled to length one."""

Stored = tuple[Any, Mapping[str, Any]]
"""Vector or vectors, and payload, as the other side gives them."""


class IdSet:
    """The ids of points, in any order."""

    def __init__(self) -> None:
        self._numbers: list[np.ndarray] = []
        self._uuids: list[np.ndarray] = []

    def add(self, ids: Sequence[int | str]) -> None:
        """Take some ids: unsigned integers, and UUIDs as text."""
        numbers = [i for i in ids if isinstance(i, int)]
        self._numbers.append(np.array(numbers, np.uint64))
        if len(numbers) < len(ids):
            digits = "".join(i for i in ids if isinstance(i, str)).replace("-", "")
            self._uuids.append(np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 2))

    def __len__(self) -> int:
        return sum(map(len, self._numbers)) + sum(map(len, self._uuids))

    def digest(self) -> str:
        """Return SHA-256 over the sorted ids, in hex; the same for equal sets."""
        found = hashlib.sha256()
        if self._numbers:
            self._numbers = [np.sort(np.concatenate(self._numbers))]
            found.update(self._numbers[0].astype("<u8", copy=False).data)
        found.update(b"|")
        if self._uuids:
            uuids = np.concatenate(self._uuids)
            self._uuids = [np.ascontiguousarray(uuids[np.lexsort((uuids[:, 1], uuids[:, 0]))])]
            found.update(self._uuids[0].data)
        return found.hexdigest()


class Proof:
    """What is remembered of the points that went out."""

    def __init__(self, schema: CollectionSchema, *, names: Mapping[str, str]) -> None:
        """Begin.

        Args:
            schema: The declaration of the points.
            names: Our name of a vector to Qdrant's, where they differ.
        """
        self._params = {names.get(name, name): p for name, p in schema.vectors.items()}
        self.ids = IdSet()
        self.sample: dict[int | str, Stored] = {}
        self._keys = np.zeros(0)
        self._rng = np.random.default_rng(0)

    def add(self, records: Records) -> None:
        """Remember some points: every point has the same chance to be in the sample."""
        self.ids.add(records.ids)
        keys = self._rng.random(len(records))
        if len(self._keys) == SAMPLE:
            rows = np.flatnonzero(keys < self._keys.max())
        else:
            rows = np.arange(len(records))
        held = list(self.sample.items()) + [
            (records.ids[r], (records.vectors[r], records.payloads[r])) for r in rows.tolist()
        ]
        every = np.concatenate([self._keys, keys[rows]])
        best = np.argsort(every, kind="stable")[:SAMPLE]
        self._keys = every[best]
        self.sample = dict(held[at] for at in best.tolist())

    def check(
        self,
        *,
        where: str,
        count: int,
        ids: Iterable[Sequence[int | str]],
        retrieve: Callable[[list[int | str]], Mapping[int | str, Stored]],
    ) -> None:
        """Compare with what arrived.

        Args:
            where: Names the other side in messages.
            count: How many points it says it has.
            ids: All its ids, in parts.
            retrieve: Gives vectors and payloads of some ids.

        Raises:
            CorruptionError: Something is not as it went out.
        """
        if count != len(self.ids):
            raise CorruptionError(f"{where} has {count:,} points; {len(self.ids):,} were written")
        arrived = IdSet()
        for part in ids:
            arrived.add(part)
        if arrived.digest() != self.ids.digest():
            raise CorruptionError(
                f"{where} has {count:,} points, and their ids are not those that were written"
            )
        found = retrieve(list(self.sample))
        for id, (vector, payload) in self.sample.items():
            if id not in found:
                raise CorruptionError(f"{where} does not give back point {id!r}")
            self._compare(id, (vector, payload), found[id], where)

    def _compare(self, id: int | str, sent: Stored, found: Stored, where: str) -> None:
        if not _alike(dict(sent[1]), dict(found[1] or {})):
            raise CorruptionError(f"the payload of point {id!r} changed on its way to {where}")
        ours, theirs = _named(sent[0]), _named(found[0])
        if set(ours) != set(theirs):
            raise CorruptionError(
                f"point {id!r} has the vectors {sorted(theirs)} in {where}; {sorted(ours)} were written"
            )
        for name, vector in ours.items():
            if not _same(vector, theirs[name], self._params.get(name)):
                raise CorruptionError(
                    f"vector {name or 'vector'!r} of point {id!r} changed on its way to {where}"
                )


def _named(vector: Any) -> dict[str, Any]:
    if isinstance(vector, Mapping) and vector.keys() != {"indices", "values"}:
        return dict(vector)
    return {} if vector is None else {"": vector}


def _alike(ours: Any, theirs: Any) -> bool:
    """Return whether JSON values are equal, an integer being no float.

    Floats may differ in the last place: Qdrant reads payload with serde_json's fast parser, which gives
    the neighbouring double for some texts of 16 or 17 digits (1.7976931348623155e308, measured).
    """
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, float):
        return bool(abs(ours - theirs) <= 2 * math.ulp(ours))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_alike(v, theirs[k]) for k, v in ours.items())
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    return bool(ours == theirs)


def _same(ours: Any, theirs: Any, params: VectorParams | None) -> bool:
    if params is None:  # sparse
        return all(
            np.array_equal(np.asarray(ours[k], kind), np.asarray(theirs[k], kind))
            for k, kind in (("indices", np.uint32), ("values", np.float32))
        )
    a, b = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    if a.shape != b.shape:
        return False
    if params.metric is Distance.COSINE and params.datatype != "uint8":
        return bool(np.allclose(normalize(a), normalize(b), rtol=0, atol=_TOLERANCE[params.datatype]))
    return bool(np.array_equal(a, b))
