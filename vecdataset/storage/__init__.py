"""Any place a collection can stand, as one value: `resolve(url)` → `Location`.

Owned here: URLs, fsspec's option names and what they become for Lance, credentials, whole
files beneath a location, and what a store's failures mean. Left to the engine: everything
Lance does with a location; this package never imports it.
"""

from __future__ import annotations

from vecdataset.storage.bridge.dialects import register_commit_strategy
from vecdataset.storage.location import Location
from vecdataset.storage.memory import register_lance_files
from vecdataset.storage.routes import (
    FileInfo,
    Files,
    FileSystem,
    check_path,
    check_reachable,
    file_digest,
    files,
    filesystems,
    probe_commit,
    require_writable,
    translate_storage_error,
)
from vecdataset.storage.urls import resolve

__all__ = [
    "FileInfo",
    "FileSystem",
    "Files",
    "Location",
    "check_path",
    "check_reachable",
    "file_digest",
    "files",
    "filesystems",
    "probe_commit",
    "register_commit_strategy",
    "register_lance_files",
    "require_writable",
    "resolve",
    "translate_storage_error",
]
