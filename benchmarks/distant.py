"""A stand-in for remote storage: a local disk behind 20 ms a request and 50 MB/s."""

import time
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

LATENCY_S, BYTES_PER_S = 0.020, 50e6


class Distant(LocalFileSystem):
    protocol = "distant"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("distant://"))

    def info(self, path, **kwargs):
        time.sleep(LATENCY_S)
        return super().info(path, **kwargs)

    def ls(self, path, detail=False, **kwargs):  # noqa: FBT002 - fsspec's
        time.sleep(LATENCY_S)
        return LocalFileSystem().ls(path, detail=detail, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        data = super().cat_file(path, start, end, **kwargs)
        time.sleep(LATENCY_S + len(data) / BYTES_PER_S)
        return data

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        time.sleep(LATENCY_S + len(value) / BYTES_PER_S)
        super().pipe_file(path, value, mode=mode, **kwargs)

    def get_file(self, rpath, lpath, **kwargs):
        super().get_file(rpath, lpath, **kwargs)
        time.sleep(LATENCY_S + Path(lpath).stat().st_size / BYTES_PER_S)

    def put_file(self, lpath, rpath, **kwargs):
        time.sleep(LATENCY_S + Path(lpath).stat().st_size / BYTES_PER_S)
        super().put_file(lpath, rpath, **kwargs)


def register():
    import fsspec

    fsspec.register_implementation("distant", Distant, clobber=True)
