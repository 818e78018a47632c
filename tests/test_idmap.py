"""Points looked up by id again and again: the ids come into memory, and say the same as Lance."""

import random
import uuid

import numpy as np
import pyarrow as pa
import pytest

import vecdataset as vd
from vecdataset.idmap import IdMap, IdPositions


@pytest.mark.parametrize("kind", ["ascending", "shuffled", "large", "text", "uuid"])
def test_look_ups_that_come_again(tmp_path, kind):
    """Found, absent, deleted and replaced points: before the ids are in memory, and after."""
    ids = {
        "ascending": list(range(200)),
        "shuffled": random.Random(1).sample(range(10_000), 200),
        "large": [2**64 - 1 - 7 * i for i in range(200)],
        "text": [f"p{i}" for i in range(200)],
        "uuid": [str(uuid.UUID(int=i)) for i in range(200)],
    }[kind]
    absent = {"large": 5, "text": "p200", "uuid": str(uuid.UUID(int=500))}.get(kind, 20_000)
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((200, 4)).astype(np.float32)
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(4, "Dot"))
    column = pa.array(ids, pa.uint64() if isinstance(ids[0], int) else pa.string())
    c.insert(pa.table({"id": column, "vector": vectors.tolist(), "n": range(200)}))
    c.delete(ids[50:60])
    c.upsert([{"id": ids[70], "vector": [1.0, 2.0, 3.0, 4.0], "n": 1_000}])
    wanted = [ids[199], ids[55], absent, ids[70], ids[3], ids[3]]
    for _ in range(4):
        found = c.get(wanted, columns=["n"], with_vectors=True)
        assert found["n"].to_pylist() == [199, 1_000, 3]
        assert found["vector"].to_pylist() == [*vectors[[199]].tolist(), [1, 2, 3, 4], *vectors[[3]].tolist()]
        best = c.search(vd.Id(ids[70]), limit=1, exact=True)
        expected = int(np.argmax(np.delete(vectors @ [1, 2, 3, 4], [*range(50, 60), 70])))
        assert best["n"].to_pylist() == [[n for n in range(200) if n not in {*range(50, 60), 70}][expected]]
        with pytest.raises(vd.PointNotFoundError, match="no point"):
            c.search(vd.Id(absent))
    c.delete([ids[3]])
    assert c.get(wanted, columns=["n"])["n"].to_pylist() == [199, 1_000]


def test_the_column_is_read_once_and_late(tmp_path):
    """Not for the first look-up, and not again after the ids are there."""
    c = vd.create(tmp_path / "c", vectors=vd.VectorParams(2))
    c.insert(pa.table({"id": np.arange(25_000, dtype=np.uint64), "vector": [[1.0, 1.0]] * 25_000}))
    table, reads = c._read().table, []

    class Watched:
        rows = table.rows

        def read(self, columns):
            reads.append(columns)
            return table.read(columns)

    ids = IdMap(Watched(), "uint64")
    assert [ids.find([7]) is None for _ in range(4)] == [True, True, False, False]
    assert reads == [["id", "_rowid"]]
    assert IdMap(Watched(), None).find([7]) is None


@pytest.mark.parametrize("ids", [pa.array([], pa.uint64()), pa.array([], pa.string())])
def test_no_ids_at_all(ids):
    assert IdPositions(ids).find([1] if ids.type == pa.uint64() else ["a"]) == {}
