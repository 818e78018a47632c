"""Running Qdrant servers: collections in and out over REST, with faults; a server over Qdrant's own engine."""

import json
import logging
import socket
import sys

import numpy as np
import pytest

pytest.importorskip("qdrant_edge", reason="the extra qdrant is not installed")
pytest.importorskip("httpx", reason="the extra qdrant is not installed")

from qdrant_server import running

import vecdataset as vd
from vecdataset.formats.qdrant import client as rest
from vecdataset.formats.qdrant.client import Address, Server, is_server

pytestmark = pytest.mark.slow  # a server of its own, for each test

KEY = "s3cret-key-that-nobody-may-see"


@pytest.fixture
def server():
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(rest, "FIRST_DELAY_S", 0.001)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)


@pytest.fixture
def books(tmp_path):
    made = vd.create(
        str(tmp_path / "books"),
        vectors={"": vd.VectorParams(4), "many": vd.VectorParams(2, "Dot", multivector=True)},
        sparse={"words": vd.SparseVectorParams("idf")},
        id_type="mixed",
    )
    rng = np.random.default_rng(7)
    rows = [
        {
            "id": i if i % 3 else f"00000000-0000-4000-8000-{i:012}",
            "vector": {"": rng.normal(size=4), "many": rng.normal(size=(2, 2)),
                       "words": {"indices": [i, i + 7], "values": [0.5, 1.5]}} if i % 10 else {},
            "payload": {"n": i, "lang": ["en", "fr"][i % 2], "deep": {"x": [None, {"": 2**63}]}, "maybe": None},
        }
        for i in range(250)
    ]  # fmt: skip
    made.upsert(rows)
    made.create_payload_index("lang")
    return made


def open_server(server, **options):
    return Server(Address.parse(server.url, options))


# -------------------------------------------------------------------------------- addresses


def test_urls_name_servers_and_collections():
    assert Address.parse("qdrant://h").base == "http://h:6333"
    assert Address.parse("qdrants://h:1/c%20d").base == "https://h:1"
    assert Address.parse("qdrants://h:1/c%20d").collection == "c d"
    assert Address.parse("qdrant://[::1]:7/c").base == "http://[::1]:7"
    assert is_server("qdrant://h/c")
    assert not is_server("s3://qdrant/c")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("qdrant://key@h/c", "'qdrant://…@h/c' carries credentials"),
        ("qdrant://h/c?api-key=x", "carries credentials or a query"),
        ("qdrant://h:x/c", "is no number"),
        ("qdrant:///c", "is not qdrant://HOST"),
        ("qdrant://h/c/d", "is not qdrant://HOST"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_key(url, said):
    with pytest.raises(vd.InvalidInputError, match=said):
        Address.parse(url)


def test_an_unknown_option_is_named():
    with pytest.raises(vd.UnknownNameError, match="no option 'apikey'"):
        Address.parse("qdrant://h", {"apikey": "x"})


def test_the_key_is_shown_nowhere(books, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with running(api_key=KEY) as server:
        address = Address.parse(f"{server.url}/books")
        books.export(f"{server.url}/books", target_options={"checkpoint": str(tmp_path / "check.json")})
        server.fail("PUT .*points", "503", times=99)
        with pytest.raises(vd.StorageError) as caught:
            books.export(f"{server.url}/more", target_options={"checkpoint": str(tmp_path / "check.json")})
        shown = [repr(address), str(address), repr(Server(address)), str(caught.value), caplog.text]
        shown += [p.read_text() for p in tmp_path.glob("*.json")]

    assert KEY not in "".join(shown)
    assert "points" in shown[-1]


# ------------------------------------------------------------------------------------ calls


def test_a_wrong_key_is_said_to_be_wrong():
    with (
        running(api_key=KEY) as server,
        open_server(server, api_key="other") as wrong,
        pytest.raises(vd.VecDatasetError, match="refuses the key") as caught,
    ):
        wrong.version()
    assert isinstance(caught.value, PermissionError)
    assert "QDRANT_API_KEY" in caught.value.hint


def test_the_connection_is_tested_by_asking(server):
    with open_server(server) as found:
        assert found.version() == "1.20.0"


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(vd.MissingDependencyError, match="talking to a Qdrant server needs") as caught:
        Server(Address.parse("qdrant://h"))
    assert caught.value.hint == "pip install 'vecdataset[qdrant]'"


def test_a_server_that_is_none_is_noticed(server):
    server.fail("GET /$", "html")
    with open_server(server) as found, pytest.raises(vd.StorageError, match="something that is not JSON"):
        found.version()


def test_nobody_listening_is_one_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"qdrant://127.0.0.1:{taken.getsockname()[1]}"
    with (
        Server(Address.parse(url, {"attempts": 2})) as nobody,
        pytest.raises(ConnectionError, match="cannot be reached for GET /"),
    ):
        nobody.version()


@pytest.mark.parametrize("kind", ["503", "drop", "lost answer"])
def test_a_call_that_may_be_repeated_is_repeated(server, kind):
    server.fail("GET /collections", kind, times=3)
    with open_server(server) as found:
        assert found.collections() == []
    assert server.requests == ["GET /collections"] * 4


@pytest.mark.parametrize("kind", ["503", "drop"])
def test_a_call_that_must_not_be_repeated_is_not(server, kind):
    server.create("c", {"vectors": {"size": 2, "distance": "Dot"}})
    server.fail("POST .*snapshots", kind)
    with open_server(server) as found, pytest.raises(vd.StorageError):
        found.call("POST", "/collections/c/snapshots", repeatable=False)
    assert server.requests == ["POST /collections/c/snapshots"]


def test_it_gives_up_after_so_many_attempts(server):
    server.fail("GET /collections", "503", times=99)
    with (
        open_server(server, attempts=3) as found,
        pytest.raises(vd.StorageError, match="status 503, 3 times"),
    ):
        found.collections()


def test_a_server_that_hangs_is_given_up(server):
    server.fail("GET /collections", "hang", times=9)
    with (
        open_server(server, attempts=2, timeout_s=0.1) as found,
        pytest.raises(TimeoutError, match="did not answer GET /collections in time"),
    ):
        found.collections()


def test_waits_grow_and_differ(monkeypatch):
    monkeypatch.setattr(rest, "FIRST_DELAY_S", 0.1)
    waits = [[rest._delay(n) for _ in range(50)] for n in (1, 2, 3, 20)]

    assert all(
        low <= w <= high
        for ws, (low, high) in zip(waits, [(0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (5, 10)], strict=True)
        for w in ws
    )
    assert len(set(waits[0])) > 40


def test_ready_is_waited_for(server):
    server.fail("readyz", "503", times=2)
    with open_server(server) as found:
        found.wait_until_ready(tries=4, pause_s=0.01)
        server.fail("readyz", "drop", times=9)
        with pytest.raises(vd.StorageError, match="not ready after 2 tries"):
            found.wait_until_ready(tries=2, pause_s=0.01)


# ------------------------------------------------------------------------------------ export


def test_a_collection_goes_to_a_server_and_is_compared(books, server):
    told = []
    count = books.export(f"{server.url}/library", progress=told.append, target_options={"batch_points": 100})
    found = server.describe(server.find("library"))

    assert count == told[-1] == found["points_count"] == 250
    assert found["config"]["params"]["vectors"] == {
        "": {"size": 4, "distance": "Cosine"},
        "many": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
    }
    assert found["payload_schema"]["lang"]["data_type"] == "keyword"
    with open_server(server) as asked:
        assert asked.retrieve("library", [1])[1][1] == {
            "n": 1, "lang": "fr", "deep": {"x": [None, {"": 2**63}]}, "maybe": None,
        }  # fmt: skip


@pytest.mark.slow
def test_qdrants_own_client_reads_what_was_exported(books, server):
    qdrant_client = pytest.importorskip("qdrant_client")
    books.export(f"{server.url}/library")
    host, port = server.address.split(":")
    client = qdrant_client.QdrantClient(
        host=host, port=int(port), prefer_grpc=False, check_compatibility=False
    )
    page, _ = client.scroll("library", limit=3, with_vectors=True)

    assert client.count("library").count == 250
    assert [p.id for p in page] == [1, 2, 4]
    assert page[0].payload["n"] == 1
    client.close()


@pytest.mark.parametrize("kind", ["503", "drop", "lost answer"])
def test_faults_during_an_export_are_gone_over(books, server, kind):
    server.fail("PUT .*/points", kind, times=3)

    assert books.export(f"{server.url}/library", target_options={"batch_points": 100}) == 250


def test_an_export_that_fails_leaves_nothing(books, server):
    server.fail("PUT .*/points", "503", times=99)
    with pytest.raises(vd.StorageError):
        books.export(f"{server.url}/library", target_options={"attempts": 2})

    assert server.collections == {}


def test_a_point_that_qdrant_cannot_hold_is_found_before_the_server_hears_of_any(books, server):
    books.upsert([{"id": 9999, "vector": {}, "payload": {"n": 2**70}}])
    with pytest.raises(vd.InvalidInputError, match="point 9999"):
        books.export(f"{server.url}/library")

    assert not [r for r in server.requests if not r.startswith("GET")]


def test_a_collection_with_points_is_not_written_to(books, server):
    books.export(f"{server.url}/library")
    with pytest.raises(vd.AlreadyExistsError, match="is there and holds 250 points"):
        books.export(f"{server.url}/library")


def test_an_interrupted_export_goes_on_from_its_checkpoint(books, server, tmp_path):
    options = {"batch_points": 50, "checkpoint": str(tmp_path / "export.json"), "attempts": 1}
    seen = []

    def stop(count):
        seen.append(count)
        if count >= 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        books.export(f"{server.url}/library", target_options=options, progress=stop)
    assert json.loads((tmp_path / "export.json").read_text())["points"] == 150
    server.requests.clear()
    books.export(f"{server.url}/library", target_options=options)

    assert server.requests.count("PUT /collections/library/points") == 2
    assert server.describe(server.find("library"))["points_count"] == 250
    assert not (tmp_path / "export.json").exists()


def test_a_checkpoint_of_another_run_is_refused(books, server, tmp_path):
    (tmp_path / "export.json").write_text('{"source": "x", "target": "y", "points": 5}')
    with pytest.raises(vd.InvalidInputError, match="is of another run"):
        books.export(f"{server.url}/library", target_options={"checkpoint": str(tmp_path / "export.json")})


def test_a_server_that_loses_points_is_found_out(books, server, monkeypatch):
    import qdrant_edge as edge

    describe = server.find
    asked = []

    def forget(name):
        found = describe(name)
        if not asked and found.shard.count(edge.CountRequest(exact=True)) == 250:
            asked.append(found.shard.update(edge.UpdateOperation.delete_points([1])))
        return found

    monkeypatch.setattr(server, "find", forget)
    with pytest.raises(vd.VecDatasetError, match="has 249 points; 250 were written"):
        books.export(f"{server.url}/library")


def test_large_points_are_sent_in_several_requests(tmp_path, server, monkeypatch):
    from vecdataset.formats.qdrant import live

    monkeypatch.setattr(live, "BODY_BYTES", 4_000)
    made = vd.create(str(tmp_path / "c"), vectors=vd.VectorParams(2))
    made.upsert([{"id": i, "vector": [1, i], "payload": {"text": "x" * 900}} for i in range(20)])
    made.export(f"{server.url}/c")

    assert server.requests.count("PUT /collections/c/points") > 4


# ------------------------------------------------------------------------------------ import


@pytest.fixture
def there(books, server):
    """A server that holds the books."""
    books.export(f"{server.url}/library")
    return server


def points(collection):
    rows = collection.get(collection.to_arrow()["id"].to_pylist(), with_vectors=True).to_pylist(
        layout="qdrant"
    )
    return {row["id"]: row for row in rows}


def test_a_collection_comes_from_a_server_with_everything(books, there, tmp_path):
    told = []
    made = vd.load(f"{there.url}/library", str(tmp_path / "copy"), progress=told.append)
    ours, theirs = points(books), points(made)

    assert (len(made), told[-1], made.schema.id_type) == (250, 250, "mixed")
    assert made.schema.vectors == books.schema.vectors
    assert made.schema.sparse == books.schema.sparse
    assert {i: p["payload"] for i, p in theirs.items()} == {i: p["payload"] for i, p in ours.items()}
    for id in (1, "00000000-0000-4000-8000-000000000003"):
        assert theirs[id]["vector"]["words"] == ours[id]["vector"]["words"]
        np.testing.assert_allclose(theirs[id]["vector"]["many"], ours[id]["vector"]["many"])
        np.testing.assert_allclose(theirs[id]["vector"][""], vd.normalize(ours[id]["vector"][""]), atol=1e-6)


def test_what_qdrant_was_told_goes_back_there(there, tmp_path):
    made = vd.load(f"{there.url}/library", str(tmp_path / "copy"))
    made.export(f"{there.url}/again")

    assert there.describe(there.find("again"))["config"] == there.describe(there.find("library"))["config"]
    assert there.describe(there.find("again"))["payload_schema"].keys() == {"lang"}


@pytest.mark.parametrize("kind", ["503", "drop", "lost answer"])
def test_faults_during_an_import_are_gone_over(there, tmp_path, kind):
    there.fail("scroll", kind, times=3)

    assert (
        len(vd.load(f"{there.url}/library", str(tmp_path / "copy"), source_options={"batch_points": 50}))
        == 250
    )


def test_an_import_that_fails_leaves_nothing(there, tmp_path):
    there.requests.clear()
    there.fail("scroll", "503", times=99, after=4)
    with pytest.raises(vd.StorageError):
        vd.load(f"{there.url}/library", str(tmp_path / "copy"),
                source_options={"batch_points": 50, "attempts": 2})  # fmt: skip

    assert there.requests.count("POST /collections/library/points/scroll") == 6
    assert not (tmp_path / "copy").exists()


def test_an_interrupted_import_goes_on_from_its_checkpoint(there, tmp_path, monkeypatch):
    from vecdataset.formats.qdrant import live

    monkeypatch.setattr(live, "CHECKPOINT_POINTS", 100)
    options = {"batch_points": 50, "attempts": 1, "checkpoint": str(tmp_path / "import.json")}

    def stop(count):
        if count >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vd.load(f"{there.url}/library", str(tmp_path / "copy"), source_options=options, progress=stop)
    assert json.loads((tmp_path / "import.json").read_text())["points"] == 100
    there.requests.clear()
    made = vd.load(f"{there.url}/library", str(tmp_path / "copy"), source_options=options)

    assert len(made) == 250
    assert there.requests.count("POST /collections/library/points/scroll") == 5
    assert not (tmp_path / "import.json").exists()


def test_imp_5_points_without_their_vectors_are_refused(there, tmp_path, monkeypatch):
    import qdrant_server

    record = qdrant_server._record
    monkeypatch.setattr(qdrant_server, "_record", lambda r, with_payload, _: record(r, with_payload, False))
    with pytest.raises(vd.VecDatasetError, match="without a word on its vectors"):
        vd.load(f"{there.url}/library", str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_server_that_gives_too_few_points_is_found_out(there, tmp_path, monkeypatch):
    from qdrant_server import _Handler

    found = _Handler._found
    monkeypatch.setattr(_Handler, "_found", lambda self, records, value: found(self, records, value)[:40])
    with pytest.raises(vd.VecDatasetError, match="says that it has 250 points, and gave 40"):
        vd.load(f"{there.url}/library", str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_collection_that_is_not_there_is_said_to_be_missing(there, tmp_path):
    with pytest.raises(vd.NotFoundError, match=r"there is no collection qdrant://.*/nothing") as caught:
        vd.load(f"{there.url}/nothing", str(tmp_path / "copy"))
    assert caught.value.hint == "collections there: library"


def test_what_qdrants_own_client_wrote_is_imported(server, tmp_path):
    qdrant_client = pytest.importorskip("qdrant_client")
    models = qdrant_client.models
    host, port = server.address.split(":")
    client = qdrant_client.QdrantClient(
        host=host, port=int(port), prefer_grpc=False, check_compatibility=False
    )
    client.create_collection("c", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.upsert("c", [models.PointStruct(id=i, vector=[i, 1], payload={"n": i}) for i in range(5)])
    made = vd.load(f"{server.url}/c", str(tmp_path / "copy"))
    client.close()

    assert made.get([4], with_vectors=True).to_pylist(layout="qdrant") == [
        {"id": 4, "vector": [4.0, 1.0], "payload": {"n": 4}}
    ]


def test_the_shell_imports_and_exports(there, tmp_path):
    from click.testing import CliRunner

    from vecdataset.cli import main

    def run(*arguments):
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    made = run(
        "import", f"{there.url}/library", str(tmp_path / "copy"), "--source-option", "batch_points=100"
    )
    sent = run("export", str(tmp_path / "copy"), f"{there.url}/again", "--target-option", "attempts=2")

    assert (made.exit_code, sent.exit_code) == (0, 0), made.output + sent.output
    assert json.loads(made.stdout)["points"] == json.loads(sent.stdout)["points"] == 250
