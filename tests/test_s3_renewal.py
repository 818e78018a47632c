"""Credentials that expire while a collection is open: Lance and s3fs go on with those that hold."""

import json
import re
import sys
from urllib.parse import urlsplit

import numpy as np
import places
import pytest

import vecdataset as vd
from vecdataset import engine
from vecdataset.storage import files, resolve

pytest.importorskip("botocore")
pytestmark = pytest.mark.s3

VECTORS = vd.VectorParams(4, "Euclid")

PROCESS = """
import datetime, json, pathlib, sys
count = pathlib.Path(sys.argv[1])
number = int(count.read_text()) + 1
count.write_text(str(number))
if pathlib.Path(sys.argv[1] + ".broken").exists():
    sys.exit("please log in again")
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=int(sys.argv[2]))
print(json.dumps({"Version": 1, "AccessKeyId": f"KEY{number}", "SecretAccessKey": "S", "SessionToken": "T",
                  "Expiration": until.isoformat()}))
"""


class Sniffer(places.Plug):
    """A forwarder that reads along with whose keys requests are signed."""

    def __init__(self, port):
        self.seen = []
        super().__init__(port)

    def heard(self, data):
        self.seen += [int(n) for n in re.findall(rb"Credential=KEY(\d+)/", data)]

    def of(self, call):
        """Return the numbers of the keys that a call was signed with."""
        before = len(self.seen)
        call()
        return set(self.seen[before:])


@pytest.fixture
def sniffer(s3):
    found = Sniffer(urlsplit(s3.endpoint).port)
    yield found
    found.close()


@pytest.fixture
def profile(clean_aws, tmp_path, sniffer, monkeypatch):
    """Profiles whose process hands out another key at each call; its counter.

    The keys of `lab` last eight minutes, less than what botocore insists on: it asks anew each time.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    script, count = tmp_path / "credentials.py", tmp_path / "count"
    script.write_text(PROCESS)
    count.write_text("0")
    (tmp_path / "aws-config").write_text(
        "".join(
            f"[profile {name}]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{sniffer.port}\n"
            f"credential_process = {sys.executable} {script} {count} {minutes}\n"
            for name, minutes in {"lab": 8, "hour": 60}.items()
        )
    )
    clean_aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    return count


def points(first):
    return np.arange(first, first + 3), np.random.default_rng(first).random((3, 4), np.float32)


@pytest.mark.slow
def test_an_open_collection_goes_on_with_new_keys(s3, sniffer, profile, monkeypatch):
    monkeypatch.setattr(engine, "HOLDS_S", 1.0)
    options = {"profile": "lab"}
    books = vd.create(f"{s3.url}/books", vectors=VECTORS, storage_options=options)
    books.upsert(points(0))
    assert "renewed by botocore" in books.info().storage

    first = sniffer.of(lambda: books.upsert(points(10)))
    second = sniffer.of(lambda: books.upsert(points(20)))
    then = sniffer.of(lambda: vd.open(books.url, storage_options=options).search([0, 0, 0, 0], limit=3))
    sealed = sniffer.of(lambda: books.snapshots.create("one"))

    assert max(first) < max(second) < max(then) < max(sealed)
    assert min(second) > min(first)
    assert sorted(books.to_arrow()["id"].to_pylist()) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert books.at("one").count() == 9


@pytest.mark.slow
def test_keys_that_hold_are_not_asked_for_again(s3, sniffer, profile):
    books = vd.create(f"{s3.url}/books", vectors=VECTORS, storage_options={"profile": "hour"})
    for n in range(5):
        books.upsert(points(10 * n))
        books.search([0, 0, 0, 0], limit=3)

    assert profile.read_text() == "1"
    assert set(sniffer.seen) == {1}


@pytest.mark.slow
def test_a_dropped_and_recreated_collection_keeps_on_renewing(s3, sniffer, profile, monkeypatch):
    monkeypatch.setattr(engine, "HOLDS_S", 1.0)
    catalog = vd.Catalog(s3.url, storage_options={"profile": "lab"})
    catalog.create("books", vectors=VECTORS).upsert(points(0))
    catalog.drop("books")
    books = catalog.create("books", vectors=VECTORS)
    first = sniffer.of(lambda: books.upsert(points(0)))

    assert min(sniffer.of(lambda: books.upsert(points(10)))) > min(first)
    assert books.count() == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["profile", "aws_profile"])
def test_the_bridge_goes_on_with_new_keys(s3, sniffer, profile, tmp_path, name):
    options = {name: "lab", "cache": str(tmp_path / "blocks")}
    books = vd.create(f"{s3.url}/books", vectors=VECTORS, storage_options=options)
    first = sniffer.of(lambda: books.upsert(points(0)))
    second = sniffer.of(lambda: books.upsert(points(10)))

    assert resolve(books.url, storage_options=options).kind == "bridge"
    assert min(second) > min(first)
    assert books.count() == 6


def test_credentials_without_an_end_are_taken_once(clean_aws, tmp_path):
    script = tmp_path / "credentials.py"
    script.write_text(f"print({json.dumps({'Version': 1, 'AccessKeyId': 'K', 'SecretAccessKey': 'S'})!r})")
    (tmp_path / "aws-config").write_text(f"[profile lab]\ncredential_process = {sys.executable} {script}\n")
    clean_aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))

    found = resolve("s3://bucket/books", storage_options={"profile": "lab"})

    assert found.renew is None
    assert found.current()["aws_access_key_id"] == "K"


@pytest.mark.slow
def test_a_renewal_that_fails_is_the_reason_given(s3, sniffer, profile, monkeypatch):
    monkeypatch.setattr(engine, "HOLDS_S", 1.0)
    books = vd.create(f"{s3.url}/books", vectors=VECTORS, storage_options={"profile": "lab"})
    books.upsert(points(0))
    location = books._reader.table.location
    profile.with_name("count.broken").write_text("")

    assert files(location).exists("_versions") is False  # the last keys are still good for this server
    assert "please log in again" in str(location.renew.failed)
    refused = "LanceError(IO): Generic S3 error: 403 Forbidden: <Code>ExpiredToken</Code>"
    meant = vd.storage.translate_storage_error(OSError(refused), location)
    assert isinstance(meant, vd.StoragePermissionError)
    assert "could not be renewed from profile 'lab'" in str(meant)
    assert "please log in again" in str(meant)
    assert "log in again" in meant.hint
    profile.with_name("count.broken").unlink()
    books.upsert(points(10))
    assert books.count() == 6
