"""The filesystem suite over every filesystem at hand, well-behaved ones and one that is not."""

import contextlib
import uuid
import zipfile

import fsspec
import odd_filesystems
import places
import pytest

from vecdataset.conformance import FileSystemSuite, Place, ReadOnlyFileSystemSuite


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


class TestLocal(FileSystemSuite):
    @pytest.fixture
    def place(self, tmp_path):
        return Place(url=str(tmp_path / "place"))


class TestMemory(FileSystemSuite):
    seen_by_other_processes = False

    @pytest.fixture
    def place(self):
        return Place(url=f"memory://{uuid.uuid4()}")


class TestMemoryOfFsspec(FileSystemSuite):
    seen_by_other_processes = False

    @pytest.fixture
    def place(self):
        filesystem = fsspec.filesystem("memory")
        folder = f"/suite-{uuid.uuid4().hex}"
        yield Place(url=folder, filesystem=filesystem)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm(folder, recursive=True)


class TestLocalByTheBridge(FileSystemSuite):
    @pytest.fixture
    def place(self, tmp_path):
        return Place(url=f"fsspec+file://{tmp_path}/place")


class TestOneThatNobodyTaughtExclusiveWrites(FileSystemSuite):
    commit = "single-process"

    @pytest.fixture
    def place(self, tmp_path):
        odd_filesystems.register()
        return Place(url=f"plain://{tmp_path}/place", prepare=odd_filesystems.register)


@pytest.mark.slow
class TestFaulty(FileSystemSuite):
    """Latency, resets, answers that are lost, reads that bring too little."""

    @pytest.fixture
    def place(self, tmp_path):
        odd_filesystems.register()
        odd_filesystems.Faulty.behave(latency_s=0.001, resets=0.05, lost_answers=0.05, partial_reads=0.05)
        yield Place(url=f"faulty://{tmp_path}/place", prepare=odd_filesystems.register_at_odds)
        odd_filesystems.Faulty.behave()


@pytest.mark.slow
@pytest.mark.s3
class TestS3(FileSystemSuite):
    cached = None

    @pytest.fixture
    def place(self, s3):
        return Place(
            url=f"{s3.url}/place",
            storage_options={**s3.options, "cache": self.cached},
            secrets=("test-secret",),
        )


@pytest.mark.slow
@pytest.mark.s3
class TestS3WithABlockCache(TestS3):
    cached = True


class Served:
    """A server for the class, a folder of its own for each test."""

    @pytest.fixture(scope="class")
    @classmethod
    def spot(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("served")
        with cls.server(folder) as spot:
            yield spot

    @pytest.fixture
    def place(self, spot):
        return Place(url=spot.at(uuid.uuid4().hex), storage_options=spot.options, secrets=(places.PASSWORD,))


@pytest.mark.slow
class TestSftp(Served, FileSystemSuite):
    server = staticmethod(places.sftp)


@pytest.mark.slow
class TestWebdav(Served, FileSystemSuite):
    server = staticmethod(places.webdav)
    cannot_name = frozenset({"50%20"})


@pytest.mark.slow
class TestFtp(Served, FileSystemSuite):
    server = staticmethod(places.ftp)


@pytest.mark.slow
class TestSmb(Served, FileSystemSuite):
    server = staticmethod(places.smb)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's, of gcsfs
class TestGoogle(Served, FileSystemSuite):
    @staticmethod
    def server(_):
        return places.gcs()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's, of adlfs
class TestAzure(Served, FileSystemSuite):
    @staticmethod
    def server(_):
        return places.azure()

    @pytest.fixture
    def place(self, spot):
        secrets = (places.AZURE_KEY,)
        return Place(url=spot.at(uuid.uuid4().hex), storage_options=spot.options, secrets=secrets)


# ---------------------------------------------------------------------------- read-only


@pytest.mark.slow
class TestWeb(ReadOnlyFileSystemSuite):
    @pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
    def published(self, tmp_path, request):
        with places.web(self.source(tmp_path), ranges=request.param) as spot:
            yield Place(url=spot.url)


class TestZip(ReadOnlyFileSystemSuite):
    @pytest.fixture
    def published(self, tmp_path):
        return Place(url=f"zip://inside::file://{zipped(self.source(tmp_path))}")


@pytest.mark.slow
class TestZipOnTheWeb(ReadOnlyFileSystemSuite):
    @pytest.fixture
    def published(self, tmp_path):
        zipped(self.source(tmp_path))
        with places.web(tmp_path) as spot:
            yield Place(url=f"zip://inside::{spot.at('all.zip')}")


def zipped(folder):
    """Put a folder into an archive beside it, as `inside`."""
    target = folder.parent / "all.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, "inside" / path.relative_to(folder))
    return target
