"""fsspec classes with a will of their own, on a local disk; processes of the tests import them too."""

import random
import threading
import time
import uuid
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem


class Disk(LocalFileSystem):
    """A class of the user's own."""

    protocol = "disk"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix(f"{cls.protocol}://"))


_PLAINLY = LocalFileSystem()


class Plain(Disk):
    """One that nobody taught an exclusive create."""

    protocol = "plain"


class Faulty(Disk):
    """Fails now and then, as networks do; the class attributes say how, for every instance.

    Its exclusive create is real: a hard link.
    """

    protocol = "faulty"
    latency_s = 0.0
    resets = 0.0
    """Share of calls that fail before they did anything."""
    lost_answers = 0.0
    """Share of writes that are done and then fail."""
    partial_reads = 0.0
    """Share of reads that bring less than was asked for."""
    error = None
    """Raised by every write."""
    fail_after = None
    """So many calls are answered, and then none."""
    seed = 0
    calls = 0
    _random = random.Random(0)
    _guard = threading.Lock()

    @classmethod
    def behave(cls, **how):
        """Forget earlier faults, and have these."""
        defaults = {
            "latency_s": 0.0, "resets": 0.0, "lost_answers": 0.0, "partial_reads": 0.0, "error": None,
            "fail_after": None,
        }  # fmt: skip
        for name, value in {**defaults, **how}.items():
            setattr(Faulty, name, value)
        Faulty._random = random.Random(cls.seed)
        Faulty.calls = 0

    def _fate(self, share):
        with Faulty._guard:
            return share > 0 and Faulty._random.random() < share

    def _before(self):
        Faulty.calls += 1
        if self.latency_s:
            time.sleep(self.latency_s)
        if Faulty.fail_after is not None and Faulty.calls > Faulty.fail_after:
            raise ConnectionResetError(104, "Connection reset by peer")
        if self._fate(self.resets):
            raise ConnectionResetError(104, "Connection reset by peer")

    def _after_write(self):
        if self._fate(self.lost_answers):
            raise ConnectionResetError(104, "Connection reset by peer")

    def info(self, path, **kwargs):
        self._before()
        return super().info(path, **kwargs)

    def ls(self, path, detail=False, **kwargs):
        self._before()
        return _PLAINLY.ls(path, detail=detail, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._before()
        data = super().cat_file(path, start, end, **kwargs)
        return data[: len(data) // 2] if len(data) > 1 and self._fate(self.partial_reads) else data

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self._before()
        if self.error is not None:
            raise self.error
        super().pipe_file(path, value, mode=mode, **kwargs)
        self._after_write()

    def put_file(self, lpath, rpath, **kwargs):
        self._before()
        if self.error is not None:
            raise self.error
        super().put_file(lpath, rpath, **kwargs)
        self._after_write()

    def rm_file(self, path):
        self._before()
        super().rm_file(path)


def create_faulty(fs, path, data):
    """Write a file only if it is absent; the bridge learns it by `register_commit_strategy`."""
    fs._before()
    if fs.error is not None:
        raise fs.error
    part = Path(path).with_name(f".vecdataset-part-{uuid.uuid4().hex}")
    part.write_bytes(data)
    try:
        Path(path).hardlink_to(part)
    finally:
        part.unlink()
    fs._after_write()


def register():
    """Make the schemes `disk://`, `plain://` and `faulty://` known in this process."""
    import fsspec

    from vecdataset.storage import register_commit_strategy

    for cls in (Disk, Plain, Faulty):
        fsspec.register_implementation(cls.protocol, cls, clobber=True)
    register_commit_strategy("faulty", create_faulty)


def register_at_odds():
    """The same, and misbehave: for processes of a test."""
    register()
    Faulty.behave(latency_s=0.001, resets=0.05, lost_answers=0.05, partial_reads=0.05)
