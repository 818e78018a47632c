"""Google's, Azure's and the Hub's stores: what becomes of options, and a collection on a real Blob server."""

import json
import os
from pathlib import Path

import numpy as np
import places
import pytest
from places import AZURE_KEY as KEY

import vecdataset as vd
from vecdataset.storage import files, resolve

SECRETS = {"account_key": "c2VjcmV0", "sas_token": "?sv=1&sig=secret", "client_secret": "secret"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("AZURE_", "GOOGLE_", "HF_")):
            monkeypatch.delenv(name)


def lance(url, **options):
    return dict(resolve(url, storage_options=options).options)


# ---------------------------------------------------------------------------------- Google


def key_file(tmp_path, kind):
    path = tmp_path / f"{kind}.json"
    path.write_text(json.dumps({"type": kind, "private_key": "secret"}))
    return str(path)


@pytest.mark.parametrize("scheme", ["gs", "gcs"])
def test_gcsfs_schemes_lead_to_lances_google_client(scheme):
    found = resolve(f"{scheme}://bucket/a b/c")

    assert (found.url, found.uri) == ("gs://bucket/a b/c", "gs://bucket/a%20b/c")
    assert (found.kind, found.commit) == ("native", "atomic")


def test_gcsfs_tokens_become_lances(tmp_path):
    account, user = key_file(tmp_path, "service_account"), key_file(tmp_path, "authorized_user")

    assert lance("gs://b/c", token=account)["google_service_account"] == account
    assert lance("gs://b/c", token=user)["google_application_credentials"] == user
    assert (
        "secret"
        in lance("gs://b/c", token=json.loads(Path(account).read_text()))["google_service_account_key"]
    )
    assert lance("gs://b/c", token="cloud")["google_skip_signature"] == "false"
    assert lance("gs://b/c", token="anon")["google_skip_signature"] == "true"


def test_who_is_anonymous_cannot_write():
    assert resolve("gs://b/c", storage_options={"token": "anon"}).commit == "read-only"


def test_an_endpoint_on_this_machine_is_not_sent_through_a_proxy(tmp_path):
    found = lance(
        "gs://b/c", endpoint_url="http://localhost:4443", token=key_file(tmp_path, "service_account")
    )

    assert found["google_base_url"] == "http://localhost:4443"
    assert found["allow_http"] == "true"
    assert found["proxy_excludes"] == "localhost"


def test_nobody_at_an_endpoint_of_its_own_may_want_to_write_and_takes_the_bridge():
    found = resolve("gs://b/c", storage_options={"endpoint_url": "http://localhost:4443", "token": "anon"})

    assert (found.kind, found.commit, found.url) == ("bridge", "unknown", "gs://b/c")
    assert "without a signature" in found.reason


def test_a_key_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(vd.InvalidInputError, match="there is no such file"):
        lance("gs://b/c", token=str(tmp_path / "none.json"))


# ----------------------------------------------------------------------------------- Azure


def test_adlfs_options_become_lances():
    found = lance("az://c/d", account_name="acc", **SECRETS, client_id="i", tenant_id="t")

    assert found["azure_storage_account_name"] == "acc"
    assert found["azure_storage_sas_token"] == "sv=1&sig=secret"
    assert found["azure_storage_client_secret"] == "secret"
    assert found["azure_storage_use_emulator"] == "false"


@pytest.mark.parametrize("url", ["abfs://c/d", "abfss://c@acc.dfs.core.windows.net/d", "az://c/d"])
def test_the_three_ways_to_write_a_blob_url_lead_to_one_place(url):
    found = resolve(url, storage_options={"account_name": "acc"})

    assert (found.url, found.uri) == ("az://c/d", "az://c/d")
    assert found.options["azure_storage_account_name"] == "acc"


def test_a_connection_string_is_taken_apart():
    text = f"DefaultEndpointsProtocol=http;AccountName=dev;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/dev;"

    found = lance("az://c/d", connection_string=text)

    assert found["azure_storage_account_key"] == KEY
    assert found["azure_storage_endpoint"] == "http://127.0.0.1:10000/dev"
    assert found["allow_http"] == "true"


def test_the_environment_names_the_account(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")

    assert lance("az://c/d")["azure_storage_account_name"] == "acc"


def test_without_an_account_the_error_says_how_to_name_one():
    with pytest.raises(vd.StoragePermissionError, match="no account") as error:
        lance("az://c/d")

    assert "account_name" in error.value.hint


def test_no_secret_stands_in_what_is_printed():
    found = resolve("az://c/d", storage_options={"account_name": "acc", **SECRETS})

    assert [s for s in SECRETS.values() if s.lstrip("?") in repr(found) + found.explain()] == []


# ------------------------------------------------------------------------------------- Hub


def test_the_hub_is_read_only_and_a_revision_may_stand_in_the_url():
    found = resolve("hf://datasets/me/books@v1/lance", storage_options={"token": "secret"})

    assert found.commit == "read-only"
    assert found.uri == "hf://datasets/me/books/lance"
    assert found.options["hf_revision"] == "v1"
    assert "secret" not in repr(found) + found.explain()


# --------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("url", "options", "error", "match"),
    [
        ("gs://b/c", {"tokn": "x"}, vd.UnknownNameError, "'tokn' is not known for Google Cloud Storage"),
        ("az://c/d", {"account": "x"}, vd.UnknownNameError, "'account' is not known for Azure"),
        ("gs://user:pass@b/c", {}, vd.InvalidInputError, "a URL of Google Cloud Storage is"),
        ("gs://b/../c", {}, vd.InvalidInputError, "dotted"),
        (
            "az://c/d",
            {"account_name": "a", "azure_storage_account_name": "b"},
            vd.InvalidInputError,
            "'account_name' and 'azure_storage_account_name' say different things",
        ),
        ("hf://books/x", {}, vd.InvalidInputError, "is not hf://datasets/owner/name/path"),
    ],
)
def test_wrong_urls_and_options_are_refused(url, options, error, match):
    with pytest.raises(error, match=match):
        resolve(url, storage_options=options)


# --------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def azurite():
    """Microsoft's Blob server; its options for adlfs."""
    with places.azure() as spot:
        yield spot.options


@pytest.mark.slow
def test_a_collection_lives_on_a_blob_server(azurite):
    made = vd.create("az://lake/books", vectors=vd.VectorParams(size=4), storage_options=azurite)
    vectors = np.eye(4, dtype=np.float32)
    made.upsert((np.arange(4), vectors))
    made.set_payload({"lang": "en"}, ids=[1, 2])
    made.snapshots.create("first")
    made.delete([2])

    again = vd.open("abfs://lake/books", storage_options=azurite)

    assert again.search(vectors[1], limit=1)["id"].to_pylist() == [1]
    assert again.count({"lang": "en"}) == 1
    assert again.at("first").count({"lang": "en"}) == 2
    assert again.snapshots.verify("first").ok
    assert vd.Catalog("az://lake", storage_options=azurite).list() == ["books"]


@pytest.mark.slow
def test_a_wrong_key_is_said_to_be_one(azurite):
    wrong = azurite["connection_string"].replace(KEY, "d3Jvbmc=")

    with pytest.raises(vd.StoragePermissionError, match="refuses access to 'az://lake/books'") as error:
        vd.open("az://lake/books", storage_options={"connection_string": wrong})

    assert "d3Jvbmc=" not in str(error.value)


@pytest.mark.slow
def test_a_container_that_is_not_there_is_named(azurite):
    with pytest.raises(vd.StorageError, match="az://nowhere/books"):
        vd.create("az://nowhere/books", vectors=vd.VectorParams(size=4), storage_options=azurite)
    with pytest.raises(vd.StorageError, match="bucket of 'az://nowhere/books' does not exist"):
        files(resolve("az://nowhere/books", storage_options=azurite)).read("x")


@pytest.mark.slow
def test_of_two_writers_of_one_blob_one_wins(azurite):
    location = resolve("az://lake/race", storage_options=azurite)

    found = files(location)

    assert [found.create("x", b"1"), found.create("x", b"2")] == [True, False]
    assert found.read("x") == b"1"


@pytest.mark.slow
def test_what_lance_has_no_word_for_goes_over_the_bridge(azurite, tmp_path):
    options = {**azurite, "cache": tmp_path / "blocks"}
    made = vd.create("az://lake/bridged", vectors=vd.VectorParams(size=4), storage_options=options)
    made.upsert((np.arange(4), np.eye(4, dtype=np.float32)))

    native = vd.open("az://lake/bridged", storage_options=azurite)

    assert resolve("az://lake/bridged", storage_options=options).kind == "bridge"
    assert native.search(np.eye(4)[2], limit=1)["id"].to_pylist() == [2]
