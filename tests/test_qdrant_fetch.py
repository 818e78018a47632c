"""Snapshot files listed in a bucket, and brought to the disk whole or not at all."""

import hashlib
import json
import time

import pytest

import vecdataset as vd
from vecdataset.formats.qdrant import shelf

DATA = bytes(range(256)) * 40_000
SUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (there / "books.snapshot").write_bytes(DATA)
    (there / "books.snapshot.checksum").write_text(SUM)
    (tmp_path / "here").mkdir()
    return there


def test_a_file_comes_with_its_checksum(folder, tmp_path):
    told = []
    done = shelf.fetch(str(folder / "books.snapshot"), tmp_path / "here", progress=told.append)

    assert (done.size_bytes, done.sha256, done.compared) == (len(DATA), SUM, True)
    assert (tmp_path / "here" / "books.snapshot").read_bytes() == DATA
    assert (tmp_path / "here" / "books.snapshot.checksum").read_text() == SUM
    assert sorted(told) == told
    assert told[-1] == 1.0


def test_without_a_checksum_it_is_said_that_nothing_was_compared(folder, tmp_path):
    (folder / "books.snapshot.checksum").unlink()
    done = shelf.fetch(str(folder / "books.snapshot"), tmp_path / "here" / "other.snapshot")

    assert (done.compared, done.sha256) == (False, SUM)
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["other.snapshot"]


def test_a_file_that_is_damaged_is_not_left_behind(folder, tmp_path):
    (folder / "books.snapshot").write_bytes(DATA[:-1] + b"x")
    with pytest.raises(vd.InvalidInputError, match=f"not the {SUM}"):
        shelf.fetch(str(folder / "books.snapshot"), tmp_path / "here")

    assert list((tmp_path / "here").iterdir()) == []


def test_an_interrupt_leaves_nothing(folder, tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.fetch(str(folder / "books.snapshot"), tmp_path / "here", progress=interrupt)
    assert list((tmp_path / "here").iterdir()) == []


def test_nothing_is_overwritten_and_what_is_missing_is_named(folder, tmp_path):
    (tmp_path / "here" / "books.snapshot").write_text("mine")
    with pytest.raises(vd.AlreadyExistsError, match="is there already"):
        shelf.fetch(str(folder / "books.snapshot"), tmp_path / "here")
    with pytest.raises(vd.NotFoundError, match=r"there is no file .*nothing\.snapshot"):
        shelf.fetch(str(folder / "nothing.snapshot"), tmp_path / "here")
    assert (tmp_path / "here" / "books.snapshot").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.s3
def test_more_than_a_page_of_a_bucket_is_listed_newest_first_and_one_is_fetched(s3, tmp_path):
    import s3fs
    from click.testing import CliRunner

    from vecdataset.cli import main

    store = s3fs.S3FileSystem(**s3.options)
    store.pipe({f"{s3.bucket}/qdrant/{n:04}.snapshot": b"" for n in range(1_005)})
    time.sleep(1.1)  # the store tells whole seconds
    store.pipe_file(f"{s3.bucket}/qdrant/newest.snapshot", DATA)
    store.pipe_file(f"{s3.bucket}/qdrant/newest.snapshot.checksum", SUM.encode())
    options = [part for k, v in s3.options.items() for part in ("--storage-option", f"{k}={v}")]

    listed = CliRunner().invoke(main, ["ls", f"{s3.url}/qdrant", "--snapshots", "--json", *options])
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    fetched = CliRunner().invoke(
        main, ["snapshot", "fetch", f"{s3.url}/qdrant/newest.snapshot", str(tmp_path), "--json", *options]
    )

    assert (len(rows), rows[0]["name"], rows[0]["checksum"]) == (1_006, "newest.snapshot", True)
    assert json.loads(fetched.stdout)["compared"] is True
    assert (tmp_path / "newest.snapshot").read_bytes() == DATA
    assert "test-secret" not in fetched.output + listed.output


@pytest.mark.slow
@pytest.mark.s3
def test_variables_of_s3_stand_in_for_those_of_aws(s3, clean_aws):
    import os
    import subprocess
    import sys

    vd.create(f"{s3.url}/books", vectors=vd.VectorParams(2), storage_options=s3.options)
    given = {"S3_ACCESS_KEY_ID": "test", "S3_SECRET_ACCESS_KEY": "x", "S3_ENDPOINT_URL": s3.endpoint,
             "S3_REGION": "us-east-1"}  # fmt: skip
    command = [sys.executable, "-m", "vecdataset.cli", "ls", s3.url, "--json"]
    listed = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    wrong = {**os.environ, **given, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
    refused = subprocess.run(command, env=wrong, capture_output=True, text=True, check=False)

    assert json.loads(listed.stdout)["name"] == "books", listed.stderr
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr
