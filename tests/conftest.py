"""Fixtures that several test modules share: an S3 server, a stranger's plugins."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

# The same examples in every run: what fails for one fails for all. `--hypothesis-profile=wander` looks for others.
hypothesis.settings.register_profile("settled", derandomize=True, deadline=None)
hypothesis.settings.register_profile("wander", derandomize=False, deadline=None)
hypothesis.settings.load_profile("settled")

# gcsfs asks Google itself, over gRPC and for minutes, of what kind a bucket on an emulator is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

PLUGINS = Path(__file__).parent / "plugins"


@dataclass(frozen=True)
class S3Store:
    """A bucket of its own on a loopback server."""

    endpoint: str
    bucket: str

    @property
    def url(self):
        return f"s3://{self.bucket}"

    @property
    def options(self):
        """What a user would pass as `storage_options`."""
        return {"key": "test", "secret": "test-secret", "endpoint_url": self.endpoint}


@pytest.fixture(scope="session")
def s3_server():
    """The URL of an S3 server on loopback, moto in a process of its own."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        pytest.skip("moto[server] is not installed")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTHONWARNINGS"))}
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as server:
        port = next((m[1] for line in server.stderr if (m := re.search(r"127\.0\.0\.1:(\d+)", line))), None)
        assert port, "moto did not start"
        drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        yield f"http://127.0.0.1:{port}"
        server.terminate()
        drain.wait()


@pytest.fixture
def clean_aws(monkeypatch, tmp_path):
    """An environment without a word on AWS, and without its files."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_STORAGE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    return monkeypatch


@pytest.fixture
def s3(s3_server, clean_aws):
    """A fresh bucket on the S3 server."""
    store = S3Store(endpoint=s3_server, bucket=f"bucket-{uuid.uuid4().hex[:12]}")
    request = urllib.request.Request(f"{store.endpoint}/{store.bucket}", method="PUT")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
    return store


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory):
    """Folders that, put on the path, make `tests/plugins` an installed distribution.

    The metadata is what a wheel built from its pyproject would bring; no build tool and no
    network are needed.
    """
    project = tomllib.loads((PLUGINS / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("site")
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(groups))
    info.joinpath("RECORD").write_text("")
    return [str(site), str(PLUGINS)]
