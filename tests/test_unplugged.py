"""A store that goes away in the middle of a write: a clear error in time, and nothing is broken."""

import time
from urllib.parse import urlsplit

import numpy as np
import places
import pytest

import vecdataset as vd
from vecdataset.errors import StorageError

pytestmark = pytest.mark.slow

TIMEOUT_S = 2
VECTORS = vd.VectorParams(size=16, distance="Euclid")


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(params=["sftp", "smb", "webdav", "s3", "s3 by the bridge"])
def plugged(request, tmp_path):
    """A place whose requests go through a plug, and the plug."""
    if request.param.startswith("s3"):
        s3 = request.getfixturevalue("s3")
        plug = places.Plug(urlsplit(s3.endpoint).port)
        options = {**s3.options, "endpoint_url": f"http://127.0.0.1:{plug.port}"}
        if request.param != "s3":
            options["cache"] = True
        yield places.Spot(f"{s3.url}/lib", {**options, "request_timeout": TIMEOUT_S}), plug
        plug.close()
        return
    folder = tmp_path / "served"
    folder.mkdir()
    with getattr(places, request.param)(folder) as spot:
        if "port" in spot.options:
            plug = places.Plug(spot.options["port"])
            options = {**spot.options, "port": plug.port}
        else:
            plug = places.Plug(urlsplit(spot.options["base_url"]).port)
            options = {**spot.options, "base_url": f"http://127.0.0.1:{plug.port}"}
        yield places.Spot(spot.url, {**options, "request_timeout": TIMEOUT_S}), plug
        plug.close()


def ids_of(spot):
    return sorted(vd.open(spot.at("books"), **spot.how).to_arrow()["id"].to_pylist())


@pytest.mark.parametrize("mode", ["hang", "reset"])
@pytest.mark.parametrize("after_bytes", [0, 200_000])
def test_a_store_unplugged_in_mid_write_is_told_and_the_write_can_be_repeated(plugged, mode, after_bytes):
    spot, plug = plugged
    books = vd.create(spot.at("books"), vectors=VECTORS, id_type="uint64", **spot.how)
    books.upsert((np.arange(3), np.zeros((3, 16), np.float32)))
    more = (np.arange(3, 10_003), np.random.default_rng(0).random((10_000, 16), np.float32))
    plug.cut(mode, after_bytes=after_bytes)
    started = time.monotonic()
    with pytest.raises(StorageError, match="does not answer") as caught:
        books.upsert(more)
    waited = time.monotonic() - started
    plug.mend()

    assert spot.at("books") in str(caught.value)
    assert "127.0.0.1" not in str(caught.value) or "127.0.0.1" in spot.url
    assert places.PASSWORD not in str(caught.value)
    assert waited < 10 * TIMEOUT_S  # Lance asks for a list six times before it gives up
    assert ids_of(spot) == [0, 1, 2]
    assert books.upsert(more).inserted == 10_000
    assert ids_of(spot) == list(range(10_003))
