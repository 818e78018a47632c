"""The route to any filesystem of fsspec: a gateway on loopback that Lance takes for S3.

There is one gateway for each filesystem with its credentials, made when a location on it is
first resolved. Its bucket's name is the same in every process, a hash of what names the
filesystem; keys are absolute paths. No request is made before a collection is opened, except
where making fsspec's object itself asks: archives read their index.
"""

from __future__ import annotations

import atexit
import hashlib
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from vecdataset.errors import (
    InvalidInputError,
    StorageUnreachableError,
    VecDatasetError,
)
from vecdataset.storage.blockcache import BlockCache, default_folder
from vecdataset.storage.bridge.clones import Clones
from vecdataset.storage.bridge.dialects import Dialect, dialect_of
from vecdataset.storage.bridge.failures import meaning, translated
from vecdataset.storage.bridge.files import BridgedFiles
from vecdataset.storage.bridge.gateway import Gateway
from vecdataset.storage.bridge.sources import Source, class_of, of_chain, of_class, of_object
from vecdataset.storage.bridge.store import CommitLock, Store
from vecdataset.storage.location import Commit, Location, redact
from vecdataset.storage.routes import Files

__all__ = ["BridgeFileSystem", "BridgeOptions", "locate"]

DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_CACHE_BYTES: Final = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """What a user may say to the bridge, in `storage_options`."""

    cache: bool | str | Path | None = None
    """Whether, or in which folder, blocks are kept; None: on remote stores, in the user's cache folder."""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    """The budget of that folder."""
    commit_lock: CommitLock | None = None
    """Held while a commit is written: a context manager, or a function of the version that returns one."""
    request_timeout: float = DEFAULT_TIMEOUT_S
    """Seconds for one request with its repetitions."""

    NAMES = ("cache", "cache_bytes", "commit_lock", "request_timeout")

    @classmethod
    def take(cls, options: dict[str, Any]) -> BridgeOptions:
        """Remove ours from `options`, and return them.

        Raises:
            InvalidInputError: One has a value of the wrong kind.
        """
        found = {n: options.pop(n) for n in cls.NAMES if options.get(n) is not None}
        for name in cls.NAMES:
            options.pop(name, None)
        cache = found.get("cache")
        if isinstance(cache, str) and cache.lower() in {"true", "false"}:
            found["cache"] = cache.lower() == "true"
        elif cache is not None and not isinstance(cache, bool | str | Path):
            raise InvalidInputError(
                f"storage option 'cache' is a bool or the path of a folder, not {type(cache).__name__}"
            )
        for name, kind in (("cache_bytes", int), ("request_timeout", float)):
            if name in found:
                try:
                    found[name] = kind(str(found[name]).removesuffix("s"))
                except ValueError:
                    raise InvalidInputError(
                        f"storage option {name!r} is a number, not {found[name]!r}"
                    ) from None
                if not found[name] > 0:
                    raise InvalidInputError(f"storage option {name!r} is positive, not {found[name]!r}")
        lock = found.get("commit_lock")
        if lock is not None and not callable(lock) and not hasattr(lock, "__enter__"):
            raise InvalidInputError(
                f"storage option 'commit_lock' is a context manager or makes one, not {type(lock).__name__}"
            )
        return cls(**found)


_gateways: dict[object, Gateway] = {}
_lock = threading.Lock()


@atexit.register
def _close_all() -> None:
    for gateway in _gateways.values():
        with suppress(Exception):
            gateway.close()


def locate(
    url: str,
    filesystem: object | None,
    options: Mapping[str, Any],
    *,
    reason: str,
    shown: str | None = None,
) -> Location:
    """Return the location of a URL, or of a path on an fsspec object, through the bridge.

    Args:
        url: With its scheme; or a path on `filesystem`.
        filesystem: An fsspec object.
        options: fsspec's, and those of `BridgeOptions`.
        reason: Why the bridge is taken.
        shown: The URL for messages, when it is not `url` without credentials.
    """
    rest = dict(options)
    own = BridgeOptions.take(rest)
    if filesystem is not None:
        if rest:
            raise InvalidInputError(
                f"storage option {min(rest)!r} is given beside a filesystem object, which has its own"
            )
        source = of_object(filesystem)
        path = str(filesystem._strip_protocol(url))  # type: ignore[attr-defined]  # noqa: SLF001 - as fsspec's own functions do
    elif "::" in url:
        try:
            source, path = of_chain(url, rest)
        except (OSError, EOFError) as error:
            raise meaning(error, redact(url), redact(str(error))) from error
    else:
        protocol = url.partition("://")[0].lower()
        cls = class_of(protocol)
        said = {k: v for k, v in cls._get_kwargs_from_urls(url).items() if v is not None}
        both = {k for k in said if k in rest and rest[k] != said[k]}
        if both:
            raise InvalidInputError(f"storage option {min(both)!r} and the URL say different things")
        source = of_class(protocol, {**said, **rest})
        path = str(cls._strip_protocol(url))
    dialect = dialect_of(source.protocols, source.cls)
    root, key = _key_of(dialect, source, path)
    gateway = _gateway(source, dialect, root, own)
    gateway.allow(key)
    store = gateway.store
    return Location(
        url=shown or _shown(url, source, filesystem, path),
        uri=f"s3://{gateway.bucket}/{quote(key)}".rstrip("/"),
        options=gateway.options(),
        filesystem=BridgeFileSystem.name,
        kind="bridge",
        remote=store.dialect.remote,
        commit=_commit(store.dialect, own),
        reason=f"{reason}; {_why(store.dialect, own)}",
        details=_Statistics(gateway),
    )


def _key_of(dialect: Dialect, source: Source, path: str) -> tuple[str, str]:
    """Return what stands in front of a key, and the key of a path."""
    root = dialect.root
    if source.protocol in {"http", "https"}:
        scheme, _, path = path.partition("://")
        root = f"{scheme}://"
        if "@" in path.partition("/")[0] or "?" in path:
            raise InvalidInputError(
                "an HTTP URL of a collection carries no credentials and no query",
                hint="pass storage_options={'client_kwargs': {'headers': …}}",
            )
    key = path.strip("/")
    if any(s in {"", ".", ".."} or not s.isprintable() for s in key.split("/") if key):
        raise InvalidInputError(f"{redact(path)!r} has an empty, dotted or unprintable segment")
    return root, key


def _shown(url: str, source: Source, filesystem: object | None, path: str) -> str:
    """Return the URL for people: the same for the same place, and without credentials."""
    if source.protocol == "memory":
        return f"fsspec+memory://{path.strip('/')}"
    if filesystem is not None and "://" not in url:
        host = getattr(filesystem, "host", None)
        return f"{source.protocol}://{host or ''}{'/' if host else ''}{path.strip('/')}"
    scheme, separator, rest = url.partition("://")
    host, slash, tail = rest.partition("/")
    user, at, host = host.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{host}{slash}{tail}".rstrip("/")


def _gateway(source: Source, dialect: Dialect, root: str, own: BridgeOptions) -> Gateway:
    folder = _cache_folder(source, dialect, own)
    lock = own.commit_lock
    identity = (source.identity, root, folder, own.cache_bytes, id(lock) if lock else 0, own.request_timeout)
    with _lock:
        found = _gateways.get(identity)
        if found is None:
            clones = Clones(
                source.make,
                shared=dialect.shared,
                timeout_s=own.request_timeout if dialect.remote else None,
                close=dialect.close,
            )
            cache = BlockCache(folder, limit_bytes=own.cache_bytes) if folder else None
            store = Store(name=source.name, dialect=dialect, clones=clones, root=root, cache=cache, lock=lock)
            told = hashlib.sha256(f"{source.name}\0{root}".encode()).hexdigest()[:16]
            label = "".join(c for c in source.protocol.lower() if c.isalnum()) or "fs"
            found = _gateways[identity] = Gateway(
                store, source=source, bucket=f"{label}-{told}", timeout_s=own.request_timeout
            )
    return found


def _cache_folder(source: Source, dialect: Dialect, own: BridgeOptions) -> Path | None:
    if own.cache is None:
        return default_folder() if dialect.remote and not source.local else None
    if isinstance(own.cache, bool):
        return default_folder() if own.cache else None
    return Path(own.cache).expanduser().absolute()


def _commit(dialect: Dialect, own: BridgeOptions) -> Commit:
    if dialect.commit == "read-only":
        return "read-only"
    if own.commit_lock is not None:
        return "atomic"
    # What the class offers is one thing, what the store behind it does another.
    return dialect.commit if dialect.folders else "unknown"


def _why(dialect: Dialect, own: BridgeOptions) -> str:
    if own.commit_lock is not None and dialect.commit != "read-only":
        return "commits hold the lock that was given"
    return dialect.how


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Lines on what a gateway has done."""

    gateway: Gateway

    def __call__(self) -> list[str]:
        store, counts = self.gateway.store, self.gateway.store.counts
        calls = ", ".join(
            f"{counts[k]} {k}" for k in ("info", "list", "read", "write", "delete") if counts[k]
        )
        told = (
            f"  bridge     {self.gateway.requests} requests; of the filesystem: {calls or 'none'}; "
            f"{_bytes(counts['bytes_read'])} read, {_bytes(counts['bytes_written'])} written"
        )
        if store.cache is None:
            return [told, "  cache      off"]
        cache = store.cache
        kept = (
            f"  cache      {cache.folder}: {_bytes(cache.used_bytes())} of {_bytes(cache.limit_bytes)}; "
            f"{cache.hits} blocks found, {cache.misses} not"
        )
        return [told, kept]


def _bytes(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.4g} {unit}"
        size /= 1024  # type: ignore[assignment]  # for display
    raise AssertionError


class BridgeFileSystem:
    """The route of everything that Lance does not speak itself."""

    name = "bridge"
    schemes = ()
    classes = ()
    capabilities = frozenset({"remote", "write"})

    def locate(self, url: str, filesystem: object | None, options: Mapping[str, Any]) -> Location:
        """Return where `url` leads, through a gateway that is made now if there is none yet."""
        return locate(url, filesystem, options, reason="Lance does not speak this protocol")

    def files(self, location: Location) -> Files:
        """Return the files, by the gateway's own instances."""
        gateway, key = _opened(location)
        return BridgedFiles(location, gateway.store, gateway.source, key)

    def check_reachable(self, location: Location) -> None:
        """Connect, where the filesystem does."""
        gateway, _ = _opened(location)
        with translated(gateway.source, location.url):
            gateway.store.clones.connect()

    def probe_commit(self, location: Location) -> bool:
        """Create one file twice, only if absent: the second must fail. Once for each filesystem."""
        if location.commit != "unknown":
            return location.commit == "atomic"
        gateway, key = _opened(location)
        with translated(gateway.source, location.url):
            return gateway.keeps_writers_apart(f"{key}/_vecdataset/probe-{uuid.uuid4().hex}")

    def translate_error(self, error: BaseException, location: Location) -> VecDatasetError | None:
        """Return what the filesystem's own exception means; it becomes the cause."""
        gateway, _ = _opened(location)
        original = gateway.error_in(str(error))
        if original is None:
            text = str(error)
            if "operation timed out" in text or "error sending request" in text:
                return StorageUnreachableError(f"the store of {location.url!r} does not answer")
            return None
        meant = meaning(original, location.url, gateway.source.clean(str(original)))
        meant.__cause__ = original
        return meant


def _opened(location: Location) -> tuple[Gateway, str]:
    """Return the gateway of a location and its key, which may be asked for from now on."""
    assert isinstance(location.details, _Statistics)
    gateway = location.details.gateway
    key = unquote(location.uri.removeprefix(f"s3://{gateway.bucket}")).strip("/")
    gateway.allow(key)
    return gateway, key
