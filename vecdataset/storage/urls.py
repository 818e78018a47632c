"""From what a user hands over – a URL, a path, a UPath, an fsspec object – to a `Location`.

The routes, in this order: a local path that Lance opens itself; a store that Lance speaks, when
it has a word for every option; the bridge for everything else that fsspec reaches. What the
bridge does better is peeled off: `dir::` becomes a longer path, and `simplecache::`,
`filecache::` and `blockcache::` become its own cache, because theirs would serve stale tags.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from vecdataset.errors import InvalidInputError, MissingDependencyError, NotSupportedError, did_you_mean
from vecdataset.storage.location import Location, redact
from vecdataset.storage.routes import FileSystem, filesystems

__all__ = ["resolve"]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?://|(?=/))")  # one letter is a drive

_CACHES: Final = frozenset({"simplecache", "filecache", "blockcache", "cached"})
_CACHE_CLASSES: Final = frozenset(
    {"SimpleCacheFileSystem", "WholeFileCacheFileSystem", "CachingFileSystem", "LocalTempFS"}
)
_CACHE_OPTIONS: Final = frozenset(
    {
        "cache_storage", "cache_check", "check_files", "expiry_time", "same_names", "compression", "version",
        "cache_mapper", "fs", "target_protocol", "target_options", "fo",
    }
)  # fmt: skip
_OURS: Final = ("cache", "cache_bytes", "commit_lock")

_ALWAYS_BRIDGED: Final = "fsspec+"
"""`fsspec+s3://…`: fsspec's class, whatever Lance speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is left of a request once wrappers are peeled off."""

    url: str
    filesystem: Any
    options: Mapping[str, Any]
    peeled: tuple[str, ...] = ()
    """Wrappers that were taken off, in a few words each."""


def resolve(
    url: object,
    *,
    filesystem: object | None = None,
    storage_options: Mapping[str, Any] | None = None,
    durable: bool = False,
) -> Location:
    """Return where `url` leads and what Lance needs to go there. No request is made.

    Only archives, such as `zip://`, are looked into, because fsspec does so when it opens them.

    Args:
        url: A URL, chained ones too, a local path, any `os.PathLike`, or a UPath (whose own
            storage options count).
        filesystem: An fsspec object; `url` is then a path on it, with or without scheme.
        storage_options: fsspec's options of the scheme, or Lance's, and for every store:
            `single_writer=True`, one process at a time writes, so that the store need not keep
            writers apart; `cache` (True, False or a folder) and `cache_bytes`, blocks on the local
            disk; `commit_lock`, held while a commit is written; `request_timeout`, seconds.
        durable: Commits wait until a local disk has them; see `Location.durable`.

    Raises:
        InvalidInputError: Not a URL or path; or it carries credentials; or an option is unknown.
        NotSupportedError: A scheme that neither Lance nor fsspec knows.
        MissingDependencyError: A scheme whose package is not installed.
        StoragePermissionError: The store needs credentials and none were found.
    """
    options = dict(storage_options or {})
    single_writer = bool(options.pop("single_writer", False))
    text, own = _text(url)
    both = sorted(set(own) & set(options))
    if both:
        raise InvalidInputError(
            f"storage option {both[0]!r} is given twice: by the path or filesystem object, "
            "and in storage_options"
        )
    asked = _peeled(_Asked(url=text, filesystem=filesystem, options={**own, **options}))
    location = _located(asked)
    if asked.peeled:
        location = replace(location, reason=f"{location.reason}; {', '.join(asked.peeled)}")
    if single_writer and location.commit == "unknown":
        location = replace(location, commit="single-process")
    if durable and location.kind == "shared-memory":
        raise InvalidInputError(
            f"durable=True was asked for {location.url}, which lives as long as this process",
            hint="use a path or the URL of a store",
        )
    return replace(location, durable=True) if durable else location


def _text(url: object) -> tuple[str, Mapping[str, Any]]:
    """Return the URL as text, and the storage options it carries."""
    if isinstance(url, str):
        text, own = url, {}
    elif all(hasattr(url, a) for a in ("protocol", "path", "storage_options")):  # a UPath
        protocol, path = str(getattr(url, "protocol", "")), str(getattr(url, "path", ""))
        own = dict(getattr(url, "storage_options", {}))
        if protocol in {"", "file", "local"} or path.startswith(f"{protocol}://"):
            text = path
        else:
            text = f"{protocol}://{path.removeprefix('/') if 'host' not in own else '/' + path.lstrip('/')}"
    elif isinstance(url, os.PathLike):
        text, own = os.fsdecode(url), {}
    else:
        raise InvalidInputError(f"a URL or path is a str or os.PathLike, not {type(url).__name__}")
    if not text.strip():
        raise InvalidInputError("a URL or path is needed; it is empty")
    return text, own


# ---------------------------------------------------------------------- peeling wrappers


def _peeled(asked: _Asked) -> _Asked:
    """Return the request without `dir` and cache wrappers, of URLs and of objects."""
    while (
        inner := _peeled_object(asked) if asked.filesystem is not None else _peeled_url(asked)
    ) is not None:
        asked = inner
    return asked


def _peeled_url(asked: _Asked) -> _Asked | None:
    first, chain, rest = asked.url.partition("::")
    scheme, _, path = first.partition("://")
    if scheme not in _CACHES and scheme != "dir":
        return None
    if not chain:
        raise NotSupportedError(
            f"{redact(asked.url)!r} says nothing of what it wraps", hint=f"write {scheme}::SCHEME://…"
        )
    options = dict(asked.options)
    options.update(options.pop(scheme, None) or {})
    if scheme == "dir":
        inner, more, deeper = rest.partition("::")
        joined = f"{inner.rstrip('/')}/{path.strip('/')}" if path.strip("/") else inner
        word = "dir:: is part of the path"
        url = f"{joined}{more}{deeper}"
    else:
        url, word = rest, _cache_of(scheme, options)
    target = url.partition("::")[0].partition("://")[0].lower()
    if "::" not in url:  # fsspec keeps the options of a link under its name
        options.update(options.pop(target, None) or {})
    return _Asked(url=url, filesystem=None, options=options, peeled=(*asked.peeled, word))


def _peeled_object(asked: _Asked) -> _Asked | None:
    filesystem = asked.filesystem
    kind = type(filesystem).__name__ if type(filesystem).__module__.startswith("fsspec.") else ""
    inner = getattr(filesystem, "fs", None)
    if inner is None:
        return None
    path = asked.url.partition("://")[2] if _SCHEME.match(asked.url) else asked.url
    if kind == "DirFileSystem":
        joined = f"{str(filesystem.path).rstrip('/')}/{path.strip('/')}".rstrip("/")
        return _Asked(
            url=joined,
            filesystem=inner,
            options=asked.options,
            peeled=(*asked.peeled, "DirFileSystem is part of the path"),
        )
    if kind in _CACHE_CLASSES:
        options = {**dict(filesystem.storage_options), **asked.options}
        word = _cache_of(kind, options)
        return _Asked(url=path, filesystem=inner, options=options, peeled=(*asked.peeled, word))
    return None


def _cache_of(scheme: str, options: dict[str, Any]) -> str:
    """Turn the options of one of fsspec's caches into ours; return what became of it."""
    given = {name: options.pop(name) for name in list(options) if name in _CACHE_OPTIONS}
    storage = given.get("cache_storage")
    folders = [storage] if isinstance(storage, str | Path) else list(storage or [])
    chosen = next((f for f in folders if f != "TMP"), None)
    if "cache" not in options:
        options["cache"] = True if chosen is None else Path(chosen) / "vecdataset-blocks"
    unused = sorted(
        n for n in given if n not in {"cache_storage", "fs", "target_protocol", "target_options", "fo"}
    )
    word = f"the block cache stands in for {scheme}"
    return f"{word} (without use here: {', '.join(unused)})" if unused else word


# ------------------------------------------------------------------------------ routes


def _located(asked: _Asked) -> Location:
    if asked.filesystem is not None:
        return _of_object(asked)
    url = asked.url
    if "::" in url:
        return _bridged(url, None, asked.options, "a chain of filesystems")
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else "file"
    if scheme.startswith(_ALWAYS_BRIDGED):
        plain = url[len(_ALWAYS_BRIDGED) :]
        if plain.startswith("memory:"):
            from fsspec import filesystem

            path = plain.partition(":")[2]
            return _bridged(path, filesystem("memory"), asked.options, "asked for by the scheme", shown=url)
        return _bridged(plain, None, asked.options, "asked for by the scheme", shown=redact(url))
    route = _route(scheme)
    if route is None:
        return _bridged(url, None, asked.options, "Lance does not speak this protocol")
    return _native_or_bridged(route, url, None, asked.options)


def _native_or_bridged(
    route: FileSystem, url: str, filesystem: object | None, options: Mapping[str, Any]
) -> Location:
    """Let Lance go there itself if it has a word for every option, and nothing asks for the bridge."""
    own = {n: options[n] for n in _OURS if options.get(n) is not None}
    rest = {n: v for n, v in options.items() if n not in _OURS}
    is_remote = "remote" in route.capabilities
    if "cache_bytes" in own and "cache" not in own:
        own["cache"] = True
    wanted = [n for n in ("cache", "commit_lock") if n in own and own[n] not in {False, "false"}]
    if own and not is_remote:
        given = min(own)
        if wanted and wanted != ["cache"]:
            raise NotSupportedError(
                f"storage option {given!r} is not supported for {route.name}: commits are atomic"
            )
        wanted = []
    if not wanted:
        try:
            return route.locate(url, filesystem, rest)
        except NotSupportedError as error:
            if not is_remote:
                raise
            reason, cause = error.message, error
    else:
        reason, cause = f"storage option {wanted[0]!r} is the bridge's", None
    try:
        translate = getattr(route, "fsspec_options", None)
        spoken = rest if translate is None else translate(url, rest)
        if wanted or "cache" in own:
            spoken = {**spoken, **own}
        elif "cache" not in own:
            spoken = {**spoken, "cache": False}  # as with Lance's own client: only if asked for
        if "request_timeout" in rest:  # for the client below, and for the bridge that waits for it
            spoken = {**spoken, "request_timeout": rest["request_timeout"]}
        return _bridged(url, None, spoken, reason)
    except (MissingDependencyError, NotSupportedError) as error:
        raise error from cause


def _route(scheme: str) -> FileSystem | None:
    """Return the route that claims a scheme; None when fsspec knows it and no route does."""
    if scheme in filesystems:
        return filesystems.get(scheme)
    # Every scheme of a built-in is a name or an alias: none of them needs to be loaded to know.
    for route in filesystems.strangers():
        if scheme in route.schemes:
            return route
    from vecdataset.storage.bridge.sources import known_protocol

    if known_protocol(scheme):
        return None
    from fsspec import available_protocols

    known = [s for route in filesystems for s in route.schemes]
    raise NotSupportedError(
        f"the scheme {scheme!r} is known neither to Lance nor to fsspec",
        hint=did_you_mean(scheme, {*known, *available_protocols()}, what="supported schemes"),
    )


def _of_object(asked: _Asked) -> Location:
    """Return where a path on an fsspec object leads."""
    filesystem, path = asked.filesystem, asked.url
    if path.lower().startswith(_ALWAYS_BRIDGED):  # as `Collection.url` shows it
        path = path[len(_ALWAYS_BRIDGED) :]
    cls = type(filesystem)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if not hasattr(filesystem, "protocol") or not hasattr(filesystem, "storage_options"):
        raise InvalidInputError(f"a filesystem is an fsspec object, not {name}")
    route = next((r for r in filesystems if name in r.classes), None)
    why = "Lance does not speak this protocol"
    if route is not None and not getattr(filesystem, "storage_args", ()):
        text = path
        if not _SCHEME.match(path):
            text = f"{route.schemes[0]}://{path.lstrip('/') if route.schemes[0] != 'file' else path}"
        both = sorted(set(filesystem.storage_options) & set(asked.options))
        if both:
            raise InvalidInputError(
                f"storage option {both[0]!r} is given twice: by the path or filesystem object, "
                "and in storage_options"
            )
        own = {n: v for n, v in asked.options.items() if n in _OURS}
        try:
            options = {**filesystem.storage_options, **asked.options}
            if not own or "remote" not in route.capabilities:
                return _native_or_bridged(route, text, filesystem, options)
            why = f"storage option {min(own)!r} is the bridge's"
        except NotSupportedError as error:
            why = error.message
    elif route is not None:
        why = "the object was made with positional arguments"
    return _bridged(path, filesystem, asked.options, why)


def _bridged(
    url: str, filesystem: object | None, options: Mapping[str, Any], reason: str, *, shown: str | None = None
) -> Location:
    from vecdataset.storage.bridge import locate

    return locate(url, filesystem, options, reason=reason, shown=shown)
