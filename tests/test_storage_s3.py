"""S3: what options become, what the environment cannot change, and how failures read."""

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import lance
import pyarrow as pa
import pytest

from vecdataset import storage
from vecdataset.errors import (
    InvalidInputError,
    MissingDependencyError,
    NotSupportedError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    UnknownNameError,
)
from vecdataset.storage import files, resolve
from vecdataset.storage.s3_options import S3Options, s3fs_options

ROWS = pa.table({"a": [1, 2]})
KEYS = {"key": "AKIDEXAMPLE", "secret": "very-secret-value"}
HTTP = "http://store.example:9000"


def options_of(*, bucket="bucket", **given):
    return dict(resolve(f"s3://{bucket}/x", storage_options={**KEYS, **given}).options)


def lance_options(location):
    return dict(location.options)


@pytest.fixture(autouse=True)
def _no_memory_of_other_tests():
    storage.filesystems.refresh()


# ------------------------------------------------------------------- option by option

ALWAYS = {
    "aws_access_key_id": "AKIDEXAMPLE",
    "aws_secret_access_key": "very-secret-value",
    "aws_skip_signature": "false",
    "aws_virtual_hosted_style_request": "false",
    "aws_unsigned_payload": "false",
    "aws_s3_express": "false",
    "aws_conditional_put": "etag",
    "aws_request_payer": "false",
    "allow_http": "false",
    "allow_invalid_certificates": "false",
    "connect_timeout": "3000ms",
    "timeout": "30000ms",
    "client_retry_timeout": "30",
    "client_max_retries": "2",
}

AT_HTTP = {
    "aws_endpoint": HTTP,
    "aws_endpoint_url_s3": HTTP,
    "aws_region": "us-east-1",
    "allow_http": "true",
}


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {}),
        ({"region_name": "eu-west-1"}, {"aws_region": "eu-west-1"}),
        ({"client_kwargs": {"region_name": "eu-west-1"}}, {"aws_region": "eu-west-1"}),
        ({"aws_region": "eu-west-1"}, {"aws_region": "eu-west-1"}),
        ({"token": "t"}, {"aws_session_token": "t"}),
        ({"aws_session_token": "t"}, {"aws_session_token": "t"}),
        ({"endpoint_url": HTTP}, AT_HTTP),
        ({"endpoint_url": HTTP + "/"}, AT_HTTP),
        ({"client_kwargs": {"endpoint_url": HTTP}}, AT_HTTP),
        ({"aws_endpoint": HTTP, "allow_http": "true"}, AT_HTTP),
        ({"aws_endpoint_url_s3": HTTP, "endpoint": HTTP}, AT_HTTP),
        (
            {"endpoint_url": "https://store.example"},
            {**AT_HTTP, "aws_endpoint": "https://store.example",
             "aws_endpoint_url_s3": "https://store.example", "allow_http": "false"},
        ),
        (
            {"endpoint_url": HTTP, "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
            {**AT_HTTP, "aws_endpoint": "http://bucket.store.example:9000",
             "aws_endpoint_url_s3": "http://bucket.store.example:9000",
             "aws_virtual_hosted_style_request": "true"},
        ),
        (
            {"aws_endpoint": "http://bucket.store.example:9000", "aws_virtual_hosted_style_request": "true"},
            {**AT_HTTP, "aws_endpoint": "http://bucket.store.example:9000",
             "aws_endpoint_url_s3": "http://bucket.store.example:9000",
             "aws_virtual_hosted_style_request": "true"},
        ),
        ({"config_kwargs": {"s3": {"addressing_style": "path"}}}, {}),
        (
            {"use_ssl": False},
            {"aws_endpoint": "http://s3.us-east-1.amazonaws.com", "allow_http": "true",
             "aws_endpoint_url_s3": "http://s3.us-east-1.amazonaws.com", "aws_region": "us-east-1"},
        ),
        ({"use_ssl": True}, {}),
        ({"client_kwargs": {"verify": False}}, {"allow_invalid_certificates": "true"}),
        ({"client_kwargs": {"verify": True}}, {}),
        ({"requester_pays": True}, {"aws_request_payer": "true"}),
        (
            {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k", "BucketKeyEnabled": True}},
            {"aws_server_side_encryption": "aws:kms", "aws_sse_kms_key_id": "k",
             "aws_sse_bucket_key_enabled": "true"},
        ),
        (
            {"config_kwargs": {"connect_timeout": 1.5, "read_timeout": 20}},
            {"connect_timeout": "1500ms", "timeout": "20000ms", "client_retry_timeout": "20"},
        ),
        ({"connect_timeout": "5s", "request_timeout": "250ms"},
         {"connect_timeout": "5000ms", "timeout": "250ms", "client_retry_timeout": "1"}),
        ({"config_kwargs": {"proxies": {"http": "http://p:1", "https": "http://p:1"}}}, {"proxy_url": "http://p:1"}),
        ({"config_kwargs": {"retries": {"max_attempts": 7, "mode": "standard"}}}, {"client_max_retries": "7"}),
        ({"config_kwargs": {"retries": {"total_max_attempts": 8}}}, {"client_max_retries": "7"}),
        ({"client_max_retries": 0}, {"client_max_retries": "0"}),
        ({"client_retry_timeout": "8.5s"}, {"client_retry_timeout": "9"}),  # Lance ignores all but whole numbers
        ({"config_kwargs": {"signature_version": "s3v4"}}, {}),
        ({"user_agent": "me"}, {"user_agent": "me"}),
        ({"lance_aimd_max_retries": 0, "pool_idle_timeout": "9s"},
         {"lance_aimd_max_retries": "0", "pool_idle_timeout": "9s"}),
        ({"anon": False, "endpoint_url": None, "asynchronous": False, "version_aware": False}, {}),
    ],
)  # fmt: skip
def test_options_of_either_dialect_become_lances(clean_aws, given, added):
    assert options_of(**given) == {**ALWAYS, **added}


@pytest.mark.parametrize(
    "pair",
    [
        {"username": "k", "password": "s"},
        {"aws_access_key_id": "k", "aws_secret_access_key": "s"},
        {"access_key_id": "k", "secret_access_key": "s"},
        {"client_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s"}},
    ],
)
def test_keys_have_many_names(clean_aws, pair):
    options = resolve("s3://bucket/x", storage_options=pair).options

    assert (options["aws_access_key_id"], options["aws_secret_access_key"]) == ("k", "s")


@pytest.mark.parametrize("given", [{"anon": True}, {"aws_skip_signature": "true"}])
def test_anonymous_requests_are_not_signed_and_carry_no_keys(clean_aws, given):
    clean_aws.setenv("AWS_ACCESS_KEY_ID", "k")
    clean_aws.setenv("AWS_SECRET_ACCESS_KEY", "s")
    location = resolve("s3://bucket/x", storage_options=given)

    assert location.options["aws_skip_signature"] == "true"
    assert not {"aws_access_key_id", "aws_secret_access_key"} & set(location.options)
    assert location.commit == "read-only"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"client_kwargs": {"verify": "/ca.pem"}}, "client_kwargs.verify"),
        ({"client_kwargs": {"api_version": "2006"}}, "client_kwargs.api_version"),
        ({"s3_additional_kwargs": {"ACL": "public-read"}}, "s3_additional_kwargs.ACL"),
        ({"s3_additional_kwargs": {"StorageClass": "GLACIER"}}, "s3_additional_kwargs.StorageClass"),
        (
            {"config_kwargs": {"s3": {"use_accelerate_endpoint": True}}},
            "config_kwargs.s3.use_accelerate_endpoint",
        ),
        ({"config_kwargs": {"signature_version": "s3"}}, "config_kwargs.signature_version"),
        ({"config_kwargs": {"proxies": {"http": "http://a", "https": "http://b"}}}, "config_kwargs.proxies"),
        ({"version_aware": True}, "version_aware"),
    ],
)
def test_what_only_s3fs_can_express_goes_by_the_bridge_and_says_why(clean_aws, given, name):
    location = resolve("s3://bucket/x", storage_options={**KEYS, **given})

    assert (location.kind, location.url, location.commit) == ("bridge", "s3://bucket/x", "unknown")
    assert f"'{name}'" in location.reason
    assert KEYS["secret"] not in repr(location) + location.explain()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"asynchronous": True}, "asynchronous"),
        ({"aws_conditional_put": "disabled"}, "aws_conditional_put"),
        ({"headers.x-extra": "1"}, "headers.x-extra"),
        ({"use_opendal": "true"}, "use_opendal"),
        ({"client_retry_timeout": "9s", "client_kwargs": {"verify": "/ca.pem"}}, "client_retry_timeout"),
    ],
)
def test_what_neither_can_express_is_refused_by_name(clean_aws, given, name):
    with pytest.raises(NotSupportedError) as caught:
        options_of(**given)

    assert f"'{name}'" in str(caught.value)


def test_s3fs_gets_what_only_it_understands_beside_the_rest(clean_aws):
    from vecdataset.storage.s3 import S3FileSystem

    given = {**KEYS, "endpoint_url": HTTP, "client_kwargs": {"verify": "/ca.pem", "region_name": "eu-west-1"}}
    made = S3FileSystem().fsspec_options("s3://bucket/x", given)

    assert made["client_kwargs"] == {"verify": "/ca.pem", "region_name": "eu-west-1"}
    assert (made["key"], made["secret"], made["endpoint_url"]) == (KEYS["key"], KEYS["secret"], HTTP)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("aws_acces_key", "aws_access_key_id"),
        ("endpoint_ur", "endpoint_url"),
        ("Anon", "anon"),
        ("regoin", "region"),
    ],
)
def test_an_unknown_option_is_met_with_a_suggestion(clean_aws, name, hint):
    with pytest.raises(UnknownNameError, match=f"'{name}' is not known for s3") as caught:
        options_of(**{name: "x"})

    assert f"'{hint}'" in caught.value.hint


@pytest.mark.parametrize(
    "given",
    [
        {"key": "k"},
        {"secret": "s"},
        {"token": "t"},
        {**KEYS, "anon": True},
        {**KEYS, "profile": "p"},
        {"anon": True, "profile": "p"},
        {**KEYS, "aws_access_key_id": "another"},
        {**KEYS, "endpoint_url": HTTP, "client_kwargs": {"endpoint_url": "http://other"}},
        {**KEYS, "endpoint_url": HTTP, "use_ssl": True},
        {**KEYS, "endpoint_url": HTTP, "allow_http": False},
        {**KEYS, "endpoint_url": "store.example:9000"},
        {**KEYS, "endpoint_url": "http://key:very-secret-value@store.example"},
        {**KEYS, "endpoint_url": "very-secret-value@store.example"},
        {**KEYS, "endpoint_url": 9000},
        {**KEYS, "anon": "perhaps"},
        {**KEYS, "connect_timeout": "soon"},
        {**KEYS, "client_max_retries": "many"},
        {**KEYS, "client_kwargs": "x"},
        {**KEYS, "config_kwargs": {"s3": {"addressing_style": "sideways"}}},
    ],
)
def test_what_contradicts_itself_is_refused_without_showing_values(clean_aws, given):
    with pytest.raises(InvalidInputError) as caught:
        resolve("s3://bucket/x", storage_options=given)

    assert "very-secret-value" not in str(caught.value)


def test_options_that_only_tune_s3fs_are_named_as_unused(clean_aws):
    location = resolve(
        "s3://bucket/x", storage_options={**KEYS, "default_block_size": 1, "max_concurrency": 2}
    )

    assert location.reason.endswith("; without use here: default_block_size, max_concurrency")


@pytest.mark.parametrize(
    "given",
    [
        {**KEYS},
        {**KEYS, "token": "t", "client_kwargs": {"region_name": "eu-west-1"}},
        {**KEYS, "endpoint_url": HTTP, "requester_pays": True},
        {**KEYS, "endpoint_url": HTTP, "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
        {**KEYS, "endpoint_url": "http://127.0.0.1:1"},
        {
            **KEYS,
            "client_kwargs": {"verify": False},
            "s3_additional_kwargs": {"ServerSideEncryption": "AES256"},
        },
        {
            **KEYS,
            "config_kwargs": {"connect_timeout": 2, "read_timeout": 9, "proxies": {"https": "http://p:1"}},
        },
        {"anon": True},
    ],
)
def test_s3fs_reaches_the_same_store_as_lance(clean_aws, given):
    there = S3Options.read(given).for_lance("bucket")
    back = S3Options.read(s3fs_options(there, "bucket")).for_lance("bucket")

    assert back == there


# -------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "s3a://bucket/a/b", "S3://bucket/a/b/"])
def test_every_spelling_of_a_url_is_the_same_place(clean_aws, url):
    location = resolve(url, storage_options=KEYS)

    assert (location.url, location.uri, location.name) == ("s3://bucket/a/b", "s3://bucket/a/b", "b")
    assert (location.kind, location.remote, location.commit) == ("native", True, "atomic")


def test_a_bucket_is_a_place_too(clean_aws):
    location = resolve("s3://bucket", storage_options=KEYS)

    assert (location.url, location.name, location.child("a b").uri) == (
        "s3://bucket",
        "bucket",
        "s3://bucket/a%20b",
    )


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///key", "s3://bucket//key", "s3://bucket/a/../b", "s3://bucket/a?versionId=1", "s3://b!/x",
     "s3://AKID:very-secret-value@bucket/x", "s3://AKID:very-secret/value@bucket/x"],
)  # fmt: skip
def test_a_url_that_lance_would_read_otherwise_is_refused(clean_aws, url):
    with pytest.raises(InvalidInputError) as caught:
        resolve(url, storage_options=KEYS)

    assert "very-secret" not in str(caught.value) + str(caught.value.hint)


def test_an_s3fs_object_brings_its_options(clean_aws):
    s3fs = pytest.importorskip("s3fs")
    filesystem = s3fs.S3FileSystem(**KEYS, endpoint_url=HTTP, skip_instance_cache=True)
    location = resolve("bucket/x", filesystem=filesystem)

    assert location.url == "s3://bucket/x"
    assert location.options == {**ALWAYS, **AT_HTTP}


def test_credentials_appear_in_no_text(clean_aws):
    location = resolve("s3://bucket/x", storage_options={**KEYS, "token": "session-secret"})
    shown = f"{location!r} {location} {location.explain()} {location.child('c')!r} {location.reason}"
    options = S3Options.read({**KEYS, "token": "session-secret"})

    assert not [s for s in ("AKIDEXAMPLE", "very-secret", "session-secret") if s in f"{shown} {options!r}"]


@pytest.mark.parametrize(
    ("endpoint", "commit"),
    [
        (None, "atomic"),
        ("https://s3.eu-west-1.amazonaws.com", "atomic"),
        ("https://s3.amazonaws.com.evil.example", "unknown"),
        (HTTP, "unknown"),
    ],
)
def test_only_aws_is_trusted_to_keep_writers_apart(clean_aws, endpoint, commit):
    options = {**KEYS, "endpoint_url": endpoint}

    assert resolve("s3://bucket/x", storage_options=options).commit == commit


def test_a_single_writer_needs_no_such_trust(clean_aws):
    options = {**KEYS, "endpoint_url": HTTP, "single_writer": True}

    assert resolve("s3://bucket/x", storage_options=options).commit == "single-process"


# ------------------------------------------------------------------------- credentials

CONFIG = """
[default]
region = eu-north-1
[profile lab]
region = eu-west-3
aws_access_key_id = LABKEY
aws_secret_access_key = lab-secret
services = lab
[profile process]
credential_process = {process}
[profile broken]
credential_process = /bin/false
[services lab]
s3 =
  endpoint_url = http://lab.example
  addressing_style = path
"""


@pytest.fixture
def aws_config(clean_aws, tmp_path):
    pytest.importorskip("botocore")
    script = tmp_path / "credentials.py"
    found = {"Version": 1, "AccessKeyId": "PK", "SecretAccessKey": "PS", "SessionToken": "PT"}
    script.write_text(f"print({json.dumps(found)!r})")
    (tmp_path / "aws-config").write_text(CONFIG.format(process=f"{sys.executable} {script}"))
    return clean_aws


def keys_of(location):
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return tuple(location.options.get(n) for n in names)


def test_credentials_come_from_the_environment(clean_aws):
    for name, value in {
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
        "SESSION_TOKEN": "t",
        "REGION": "r",
    }.items():
        clean_aws.setenv(f"AWS_{name}", value)
    location = resolve("s3://bucket/x")

    assert keys_of(location) == ("k", "s", "t")
    assert location.options["aws_region"] == "r"
    assert "as environment variables" in location.reason


def test_a_profile_brings_keys_region_and_endpoint(aws_config):
    location = resolve("s3://bucket/x", storage_options={"profile": "lab"})

    assert keys_of(location) == ("LABKEY", "lab-secret", None)
    assert location.options["aws_region"] == "eu-west-3"
    assert location.options["aws_endpoint"] == location.options["aws_endpoint_url_s3"] == "http://lab.example"
    assert "as profile 'lab'" in location.reason


def test_a_profile_that_is_asked_for_goes_before_the_environment(aws_config):
    aws_config.setenv("AWS_ACCESS_KEY_ID", "k")
    aws_config.setenv("AWS_SECRET_ACCESS_KEY", "s")
    aws_config.setenv("AWS_REGION", "us-west-2")
    aws_config.setenv("AWS_ENDPOINT_URL", "http://elsewhere.example")
    location = resolve("s3://bucket/x", storage_options={"profile": "lab"})

    assert keys_of(location)[0] == "LABKEY"
    assert location.options["aws_region"] == "eu-west-3"
    assert location.options["aws_endpoint"] == "http://lab.example"


def test_the_profile_of_the_environment_counts(aws_config):
    aws_config.setenv("AWS_PROFILE", "lab")

    assert keys_of(resolve("s3://bucket/x"))[0] == "LABKEY"


def test_a_process_may_bring_credentials(aws_config):
    location = resolve("s3://bucket/x", storage_options={"profile": "process"})

    assert keys_of(location) == ("PK", "PS", "PT")


def test_the_default_profile_brings_the_region_of_given_keys(aws_config):
    assert resolve("s3://bucket/x", storage_options=KEYS).options["aws_region"] == "eu-north-1"


def test_a_source_of_credentials_that_fails_is_named(aws_config):
    with pytest.raises(StoragePermissionError, match="profile 'broken'"):
        resolve("s3://bucket/x", storage_options={"profile": "broken"})


def test_an_unknown_profile_is_met_with_a_suggestion(aws_config):
    with pytest.raises(UnknownNameError, match="no profile 'labs'") as caught:
        resolve("s3://bucket/x", storage_options={"profile": "labs"})

    assert caught.value.hint == "did you mean 'lab'?"


def test_without_credentials_it_says_so_at_once(clean_aws):
    started = time.monotonic()
    with pytest.raises(StoragePermissionError, match="no S3 credentials") as caught:
        resolve("s3://bucket/x")

    assert time.monotonic() - started < 5
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert "'anon': True" in caught.value.hint


@pytest.fixture
def without_botocore(clean_aws):
    for name in [m for m in sys.modules if m.partition(".")[0] == "botocore"]:
        clean_aws.delitem(sys.modules, name)
    clean_aws.setitem(sys.modules, "botocore", None)
    clean_aws.setitem(sys.modules, "botocore.session", None)
    return clean_aws


def test_without_botocore_the_environment_still_counts(without_botocore):
    without_botocore.setenv("AWS_ACCESS_KEY_ID", "k")
    without_botocore.setenv("AWS_SECRET_ACCESS_KEY", "s")

    assert keys_of(resolve("s3://bucket/x"))[:2] == ("k", "s")


def test_without_botocore_a_profile_names_the_extra(without_botocore):
    with pytest.raises(MissingDependencyError) as caught:
        resolve("s3://bucket/x", storage_options={"profile": "lab"})

    assert caught.value.hint == "pip install 'vecdataset[s3]'"


def test_without_s3fs_files_name_the_extra(clean_aws):
    clean_aws.setitem(sys.modules, "s3fs", None)

    with pytest.raises(MissingDependencyError, match="listing and copying files on S3 needs") as caught:
        files(resolve("s3://bucket/x", storage_options=KEYS))
    assert caught.value.hint == "pip install 'vecdataset[s3]'"


class Loopback(ThreadingHTTPServer):
    """A server of the test's own; `answer(handler)` returns status, headers and body."""

    daemon_threads = True

    def __init__(self, answer):
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self):
                self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
                seen.append((self.command, self.path, dict(self.headers)))
                status, headers, body = answer(self)
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815

            def log_message(self, *args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        self.server_close()


def refused_with(code, status=403):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>internals</Message></Error>".encode()
    return Loopback(lambda handler: (status, {"content-type": "application/xml"}, body))


@pytest.mark.s3
def test_the_role_of_a_container_is_left_to_lance_to_renew(s3):
    pytest.importorskip("botocore")
    found = {
        "AccessKeyId": "CK",
        "SecretAccessKey": "CS",
        "Token": "CT",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    with Loopback(
        lambda handler: (200, {"content-type": "application/json"}, json.dumps(found).encode())
    ) as source:
        os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{source.url}/keys"
        location = resolve(f"{s3.url}/x", storage_options={"endpoint_url": s3.endpoint})
        lance.write_dataset(ROWS, location.uri, storage_options=lance_options(location))
        del os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]

    assert keys_of(location) == (None, None, None)
    assert "refreshed by Lance" in location.reason
    assert len(source.seen) > 1


# ------------------------------------------------------------- against a real S3 server

HAZARDS = {
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT": "http://127.0.0.1:1",
    "AWS_SKIP_SIGNATURE": "true",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    "AWS_UNSIGNED_PAYLOAD": "true",
    "AWS_S3_EXPRESS": "true",
    "AWS_CONDITIONAL_PUT": "disabled",
    "AWS_REQUEST_PAYER": "true",
    "AWS_PROXY_URL": "http://127.0.0.1:1",
    "AWS_ALLOW_INVALID_CERTIFICATES": "true",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "ALL_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "wrong",
    "AWS_SECRET_ACCESS_KEY": "wrong",
    "AWS_REGION": "mars-1",
}


@pytest.mark.s3
@pytest.mark.parametrize(
    "variables", [{}, *({k: v} for k, v in HAZARDS.items()), HAZARDS], ids=lambda v: "+".join(v)[:40]
)
def test_no_variable_of_the_environment_changes_where_and_how_lance_writes(s3, clean_aws, variables):
    for name, value in variables.items():
        clean_aws.setenv(name, value)
    location = resolve(f"{s3.url}/x", storage_options=s3.options)
    lance.write_dataset(ROWS, location.uri, storage_options=lance_options(location))
    lance.write_dataset(ROWS, location.uri, storage_options=lance_options(location), mode="append")

    assert lance.dataset(location.uri, storage_options=lance_options(location)).count_rows() == 4
    assert files(location).list_dirs() == ["_transactions", "_versions", "data"]


@pytest.mark.parametrize("name", ["AWS_ALLOW_HTTP", "AZURE_STORAGE_ALLOW_HTTP", "AZURE_STORAGE_USE_HTTP"])
def test_a_variable_that_forbids_http_is_named(clean_aws, name):
    clean_aws.setenv(name, "false")

    with pytest.raises(InvalidInputError, match=f"{name}=false forbids"):
        options_of(endpoint_url=HTTP)
    assert options_of(endpoint_url="https://store.example")["allow_http"] == "false"


@pytest.mark.slow
@pytest.mark.s3
def test_a_stale_session_token_is_not_sent_beside_given_keys(clean_aws):
    clean_aws.setenv("AWS_SESSION_TOKEN", "stale")
    with refused_with("AccessDenied") as server:
        location = resolve("s3://bucket/x", storage_options={**KEYS, "endpoint_url": server.url})
        with pytest.raises(ValueError, match="AccessDenied"):
            lance.dataset(location.uri, storage_options=lance_options(location))

    assert {headers.get("x-amz-security-token") for _, _, headers in server.seen} == {""}


@pytest.mark.s3
def test_the_environments_endpoint_is_used_when_none_is_given(s3, clean_aws):
    clean_aws.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    location = resolve(f"{s3.url}/x", storage_options={"key": "k", "secret": "s"})
    lance.write_dataset(ROWS, location.uri, storage_options=lance_options(location))

    assert location.commit == "unknown"
    assert not files(location).is_empty()


# ---------------------------------------------------------------- stores that do not answer


def at(endpoint):
    return resolve("s3://bucket/books", storage_options={**KEYS, "endpoint_url": endpoint})


@pytest.mark.s3
def test_a_store_that_answers_is_asked_once_in_a_while(s3):
    location = resolve(s3.url, storage_options=s3.options)
    with Loopback(lambda handler: (403, {}, b"")) as server:
        storage.check_reachable(location)
        for _ in range(3):
            storage.check_reachable(at(server.url))

    assert [command for command, _, _ in server.seen] == ["HEAD"]


def test_a_refused_connection_is_known_at_once(clean_aws):
    started = time.monotonic()
    with pytest.raises(StorageUnreachableError, match=r"s3://bucket/books.*connection refused"):
        storage.check_reachable(at("http://127.0.0.1:1"))

    assert time.monotonic() - started < 1


def test_an_unknown_host_is_named(clean_aws):
    with pytest.raises(StorageUnreachableError, match=r"nowhere\.invalid: the host name is not known"):
        storage.check_reachable(at("http://nowhere.invalid"))


@pytest.mark.slow
def test_a_silent_store_is_given_up_within_five_seconds(clean_aws):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(StorageUnreachableError, match="no answer within 3 seconds"):
            storage.check_reachable(at(f"http://127.0.0.1:{silent.getsockname()[1]}"))

    assert time.monotonic() - started < 5


@pytest.mark.s3
def test_https_against_plain_http_is_told_apart(s3):
    with pytest.raises(StorageUnreachableError, match="no TLS connection"):
        storage.check_reachable(at(s3.endpoint.replace("http:", "https:")))


def test_behind_a_proxy_no_connection_is_tried(clean_aws):
    clean_aws.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    assert storage.check_reachable(at("https://store.invalid")) is None


@pytest.mark.slow
@pytest.mark.s3
def test_lance_itself_gives_up_within_five_seconds(clean_aws):
    location = at("http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(ValueError, match="Generic S3 error") as caught:
        lance.dataset(location.uri, storage_options=lance_options(location))

    assert time.monotonic() - started < 5
    meant = storage.translate_storage_error(caught.value, location)
    assert isinstance(meant, StorageUnreachableError)
    assert str(meant) == "the store of 's3://bucket/books' does not answer"


# --------------------------------------------------------------------------- error texts


INTERNALS = ("internals", "<Code>", "LanceError", ".rs:", "127.0.0.1")


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize(
    ("code", "status", "kind", "text"),
    [
        ("AccessDenied", 403, StoragePermissionError, "refuses access to 's3://bucket/books'"),
        ("NoSuchBucket", 404, StorageError, "the bucket 'bucket' of 's3://bucket/books' does not exist"),
        ("PermanentRedirect", 301, StorageError, "is not in the region 'us-east-1'"),
        ("Unheard", 500, StorageError, "failed: Unheard"),
    ],
)
def test_what_lance_says_of_a_store_becomes_one_sentence(clean_aws, code, status, kind, text):
    with refused_with(code, status) as server:
        location = at(server.url)
        with pytest.raises((ValueError, OSError)) as caught:
            lance.dataset(location.uri, storage_options=lance_options(location))

    meant = storage.translate_storage_error(caught.value, location)
    assert type(meant) is kind
    assert text in str(meant)
    assert not [s for s in INTERNALS if s in str(meant)]


@pytest.mark.parametrize(
    ("code", "status", "kind", "text"),
    [
        ("InvalidAccessKeyId", "403 Forbidden", StoragePermissionError, "does not know this access key"),
        ("SignatureDoesNotMatch", "403 Forbidden", StoragePermissionError, "key and secret do not match"),
        ("ExpiredToken", "400 Bad Request", StoragePermissionError, "session token"),
        ("RequestTimeTooSkewed", "403 Forbidden", StorageError, "the clock of this machine"),
        ("AuthorizationHeaderMalformed", "400 Bad Request", StorageError, "region"),
        ("SlowDown", "503 Service Unavailable", StorageError, "too busy"),
        ("NotImplemented", "501 Not Implemented", NotSupportedError, "does not implement"),
        ("Unheard", "403 Forbidden", StoragePermissionError, "refuses access"),
    ],
)
def test_every_code_of_a_store_has_its_sentence(clean_aws, code, status, kind, text):
    said = (  # as pylance 14.0.2 words it; the live test above holds the wording
        "LanceError(IO): Generic S3 error: Error performing list request: Error performing GET "
        f"http://127.0.0.1:1/bucket?list-type=2 in 4ms - Server returned non-2xx status code: {status}: "
        f"<Error><Code>{code}</Code><Message>internals</Message></Error>, /rust/object_store.rs:1576:42"
    )
    meant = storage.translate_storage_error(OSError(said), at(HTTP))

    assert type(meant) is kind
    assert text in str(meant)
    assert not [s for s in INTERNALS if s in str(meant)]


@pytest.mark.s3
def test_what_is_not_the_stores_doing_is_left_alone(s3):
    location = resolve(f"{s3.url}/nothing", storage_options=s3.options)
    with pytest.raises(ValueError, match="was not found") as caught:
        lance.dataset(location.uri, storage_options=lance_options(location))

    assert storage.translate_storage_error(caught.value, location) is None


@pytest.mark.s3
def test_a_missing_bucket_is_named_by_files(s3):
    place = files(resolve("s3://no-such-bucket/x", storage_options=s3.options))

    with pytest.raises(StorageError, match="the bucket of 's3://no-such-bucket/x' does not exist"):
        place.list_dirs()
    with pytest.raises(StorageError, match="does not exist"):
        place.write("file", b"")


@pytest.mark.s3
def test_a_whole_bucket_is_a_root(s3):
    root = resolve(s3.url, storage_options=s3.options)
    before = files(root).list_dirs()
    lance.write_dataset(ROWS, root.child("a b").uri, storage_options=lance_options(root))
    files(root).write("note", b"1")

    assert (before, files(root).list_dirs()) == ([], ["a b"])
    assert [f.path for f in files(root).list_files(recursive=False)] == ["note"]


@pytest.mark.s3
def test_files_tell_what_a_store_refuses(clean_aws):
    with (
        refused_with("AccessDenied") as server,
        pytest.raises(StoragePermissionError, match="refuses access to 's3://bucket/books/file'"),
    ):
        files(at(server.url)).read("file")


# ------------------------------------------------------------------- keeping writers apart


def careless_store():
    """Accept every PUT, whatever its condition, as some stores do."""
    deleted = b"<?xml version='1.0'?><DeleteResult/>"
    return Loopback(lambda handler: (200, {"etag": '"1"'}, deleted if handler.command == "POST" else b""))


@pytest.mark.s3
def test_a_store_that_honours_conditions_passes_and_is_asked_once(s3):
    location = resolve(f"{s3.url}/x", storage_options=s3.options)

    assert storage.probe_commit(location) is True
    assert files(location).is_empty()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vecdataset.storage.s3._probe", None)
        assert storage.probe_commit(location.child("another")) is True


@pytest.mark.s3
def test_a_store_that_ignores_conditions_is_refused_with_the_way_out(clean_aws):
    with careless_store() as server:
        with pytest.raises(StorageError, match="ignores the condition") as caught:
            storage.probe_commit(at(server.url))

        assert "'single_writer': True" in caught.value.hint
        conditions = [headers.get("If-None-Match") for command, _, headers in server.seen if command == "PUT"]
        assert conditions == ["*", "*"]


def test_a_single_writer_and_aws_are_not_probed(clean_aws):
    clean_aws.setattr("vecdataset.storage.s3._probe", None)

    assert storage.probe_commit(resolve("s3://bucket/x", storage_options=KEYS)) is True
    options = {**KEYS, "endpoint_url": HTTP, "single_writer": True}
    assert storage.probe_commit(resolve("s3://bucket/x", storage_options=options)) is True


@pytest.mark.s3
def test_reading_writes_nothing(s3):
    location = resolve(f"{s3.url}/x", storage_options=s3.options)
    lance.write_dataset(ROWS, location.uri, storage_options=lance_options(location))
    before = sorted(f.path for f in files(location).list_files())
    with Loopback(lambda handler: (403, {}, b"")) as server:
        storage.check_reachable(at(server.url))
    lance.dataset(location.uri, storage_options=lance_options(location)).to_table()

    assert sorted(f.path for f in files(location).list_files()) == before
    assert {command for command, _, _ in server.seen} == {"HEAD"}
