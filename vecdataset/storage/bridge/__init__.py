"""The bridge: what fsspec reaches, Lance reaches, by way of an S3 gateway on loopback.

- `route`: from a URL or an fsspec object to a location, and the files there.
- `sources`: which filesystem is meant, and what of its options is secret.
- `gateway`, `wire`, `multipart`: the S3 protocol, HTTP, uploads in parts.
- `store`: an object store over one filesystem.
- `dialects`, `sftp`, `webdav`, `ftp`: what each protocol does better than the common way.
- `clones`: instances for threads, repetitions, timeouts.
"""

from __future__ import annotations

from vecdataset.storage.bridge.dialects import register_commit_strategy
from vecdataset.storage.bridge.route import BridgeFileSystem, BridgeOptions, locate

__all__ = ["BridgeFileSystem", "BridgeOptions", "locate", "register_commit_strategy"]
