"""From what a user hands over – a URL, a path, a UPath, an fsspec object – to a `Location`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vecdataset.errors import InvalidInputError, NotSupportedError, did_you_mean
from vecdataset.storage.location import Location, redact
from vecdataset.storage.routes import FileSystem, filesystems

__all__ = ["resolve"]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?://|(?=/))")  # one letter is a drive


def resolve(
    url: object,
    *,
    filesystem: object | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Return where `url` leads and what Lance needs to go there. No request is made.

    Args:
        url: A URL, a local path, any `os.PathLike`, or a UPath (whose own storage options count).
        filesystem: An fsspec object; `url` is then a path on it, with or without scheme.
        storage_options: fsspec's options of the scheme, or Lance's. `single_writer=True` says
            that one process at a time writes, so that the store need not keep writers apart.

    Raises:
        InvalidInputError: Not a URL or path; or it carries credentials; or an option is unknown.
        NotSupportedError: A scheme, filesystem object or option without a route.
        StoragePermissionError: The store needs credentials and none were found.
    """
    options = dict(storage_options or {})
    single_writer = bool(options.pop("single_writer", False))
    if filesystem is None:
        text, own = _text(url)
        route = _route(text)
    else:
        route, text, own = _of_object(filesystem, _text(url)[0])
    both = sorted(set(own) & set(options))
    if both:
        raise InvalidInputError(
            f"storage option {both[0]!r} is given twice: by the path or filesystem object, "
            "and in storage_options"
        )
    location = route.locate(text, filesystem, {**own, **options})
    if single_writer and location.commit == "unknown":
        location = replace(location, commit="single-process")
    return location


def _text(url: object) -> tuple[str, Mapping[str, Any]]:
    """Return the URL as text, and the storage options it carries."""
    if isinstance(url, str):
        text, own = url, {}
    elif all(hasattr(url, a) for a in ("protocol", "path", "storage_options")):  # a UPath
        protocol, path = str(getattr(url, "protocol", "")), str(getattr(url, "path", ""))
        own = dict(getattr(url, "storage_options", {}))
        text = f"{protocol}://{path.removeprefix('/')}" if protocol not in {"", "file", "local"} else path
    elif isinstance(url, os.PathLike):
        text, own = os.fsdecode(url), {}
    else:
        raise InvalidInputError(f"a URL or path is a str or os.PathLike, not {type(url).__name__}")
    if not text.strip():
        raise InvalidInputError("a URL or path is needed; it is empty")
    return text, own


def _route(url: str) -> FileSystem:
    if "::" in url:
        raise NotSupportedError(f"chained URLs are not supported yet: {redact(url)!r}")
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else "file"
    if scheme in filesystems:
        return filesystems.get(scheme)
    known: list[str] = []
    for route in filesystems:
        if scheme in route.schemes:
            return route
        known += route.schemes
    raise NotSupportedError(
        f"the scheme {scheme!r} is not supported yet: {redact(url)!r}",
        hint=did_you_mean(scheme, known, what="supported schemes"),
    )


def _of_object(filesystem: object, path: str) -> tuple[FileSystem, str, Mapping[str, Any]]:
    """Return the route that stands in for an fsspec object, the URL, and the object's options."""
    cls = type(filesystem)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not hasattr(filesystem, "protocol") or not hasattr(filesystem, "storage_options"):
        raise InvalidInputError(f"a filesystem is an fsspec object, not {name}")
    route = next((r for r in filesystems if name in r.classes), None)
    if route is None:
        raise NotSupportedError(
            f"filesystem objects of class {name} are not supported yet",
            hint="pass a URL, with fsspec's options as storage_options",
        )
    if getattr(filesystem, "storage_args", ()):
        raise NotSupportedError(f"this {name} was made with positional arguments", hint="use keywords")
    if not _SCHEME.match(path):
        path = f"{route.schemes[0]}://{path.lstrip('/') if route.schemes[0] != 'file' else path}"
    return route, path, filesystem.storage_options
