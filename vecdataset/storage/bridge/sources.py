"""Which filesystem is meant: a class of fsspec with its arguments, its name, its secrets."""

from __future__ import annotations

import inspect
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vecdataset.errors import (
    InvalidInputError,
    MissingDependencyError,
    NotSupportedError,
    UnknownNameError,
    did_you_mean,
)
from vecdataset.storage.location import redact

__all__ = ["Source", "class_of", "known_protocol", "of_class", "of_object"]

_SECRET: Final = re.compile(
    r"pass|secret|token|key|auth|cred|sas|sign|cookie|header|connection_string|account$|acct|cert|bearer",
    re.IGNORECASE,
)
_TUNING: Final = frozenset(
    {"skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths", "asynchronous", "loop"}
)
_IGNORES_UNKNOWN: Final = frozenset({"memory", "ftp", "zip", "tar", "libarchive", "file", "local", "github"})
"""Classes that take any keyword and do nothing with those they do not know."""

_EXTRAS: Final = {
    "sftp": ("paramiko", "sftp"), "ssh": ("paramiko", "sftp"),
    "smb": ("smbprotocol", "smb"),
    "webdav": ("webdav4", "webdav"), "dav": ("webdav4", "webdav"),
    "s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"),
    "http": ("aiohttp", "http"), "https": ("aiohttp", "http"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One filesystem."""

    protocols: tuple[str, ...]
    """fsspec's names of it."""
    cls: type[Any]
    make: Callable[[], Any] = field(repr=False)
    """Makes an instance of its own, without a listing cache."""
    identity: str = field(repr=False)
    """The same for the same filesystem with the same credentials, in this process; a digest."""
    name: str
    """The same for the same filesystem in every process, without credentials."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that must not be shown."""
    local: bool = False
    """Whether it is an archive on this machine."""

    @property
    def protocol(self) -> str:
        """The first of the protocols."""
        return self.protocols[0]

    def clean(self, text: str) -> str:
        """Return a text of the filesystem's without credentials."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return redact(text)


def known_protocol(protocol: str) -> bool:
    """Tell whether fsspec has a class for a URL scheme."""
    from fsspec import available_protocols
    from fsspec.registry import registry

    return protocol in registry or protocol in available_protocols()


def class_of(protocol: str) -> type[Any]:
    """Return fsspec's class of a URL scheme.

    Raises:
        MissingDependencyError: The package that it needs is not installed.
    """
    from fsspec import get_filesystem_class

    try:
        found: type[Any] = get_filesystem_class(protocol)
    except ImportError as error:
        if protocol in _EXTRAS:
            package, extra = _EXTRAS[protocol]
            raise MissingDependencyError.of(package, extra=extra, purpose=f"{protocol}://") from error
        raise MissingDependencyError(f"{protocol}:// needs a package: {error}") from error
    return found


def of_class(protocol: str, options: Mapping[str, Any]) -> Source:
    """Return the filesystem that fsspec would make for a URL scheme and options."""
    cls = class_of(protocol)
    kwargs = {k: v for k, v in options.items() if k not in _TUNING}
    _check_options(protocol, cls, kwargs)
    return _source(_protocols(cls, protocol), cls, (), kwargs)


def of_object(filesystem: Any) -> Source:
    """Return the filesystem of an fsspec object; it is cloned as its own pickling would."""
    cls = type(filesystem)
    if not hasattr(filesystem, "protocol") or not hasattr(filesystem, "storage_options"):
        raise InvalidInputError(f"a filesystem is an fsspec object, not {cls.__module__}.{cls.__qualname__}")
    protocols = _protocols(cls, "")
    if "memory" in protocols:  # its files are in the object or in the class: never clone
        return Source(
            protocols=protocols,
            cls=cls,
            make=lambda: filesystem,
            identity=f"memory {id(filesystem.store)}",
            name=f"memory {secrets.token_hex(8)}",
        )
    kwargs = {k: v for k, v in filesystem.storage_options.items() if k not in _TUNING}
    return _source(protocols, cls, tuple(getattr(filesystem, "storage_args", ())), kwargs)


def _source(
    protocols: tuple[str, ...], cls: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Source:
    from fsspec.utils import tokenize

    def make() -> Any:
        instance = cls(*args, skip_instance_cache=True, **kwargs)
        # As an argument it would go to the constructor, which hands it to paramiko.
        if hasattr(instance, "dircache"):
            instance.dircache.use_listings_cache = False
            instance.dircache.clear()
        return instance

    return Source(
        protocols=protocols,
        cls=cls,
        make=make,
        identity=tokenize(cls, args, sorted(kwargs.items(), key=lambda i: i[0])),
        name=_public_name(protocols[0], args, kwargs),
        secrets=tuple(_secrets({"": list(args), **kwargs})),
        local=str(kwargs.get("target_protocol", "")) in {"file", "local"},
    )


def _protocols(cls: type[Any], preferred: str) -> tuple[str, ...]:
    own = cls.protocol if isinstance(cls.protocol, tuple | list) else (cls.protocol,)
    return tuple(dict.fromkeys([*([preferred] if preferred else []), *map(str, own)]))


def _check_options(protocol: str, cls: type[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse an option that the class would take and do nothing with, or not take."""
    known: set[str] = set()
    takes_any = False
    for base in cls.__mro__:
        if "__init__" in base.__dict__ and base is not object:
            found = inspect.signature(base.__dict__["__init__"]).parameters.values()
            known |= {p.name for p in found if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}}
            if base is cls or not known:
                takes_any = any(p.kind is p.VAR_KEYWORD for p in found)
    if takes_any and protocol not in _IGNORES_UNKNOWN:
        return
    unknown = sorted(set(kwargs) - known)
    if unknown:
        raise UnknownNameError(
            f"storage option {unknown[0]!r} is not known for {protocol}",
            hint=did_you_mean(unknown[0], known - {"self", *_TUNING}, what=f"options of {protocol}"),
        )


def _public_name(protocol: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a text that says which filesystem, without what opens it.

    With something in it that has no text, the name is good for this process alone.
    """
    try:
        shown = _public({"args": list(args), **kwargs})
        return f"{protocol} {json.dumps(shown, sort_keys=True)}"
    except TypeError:
        return f"{protocol} {secrets.token_hex(8)}"


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _public(v) for k, v in value.items() if not _SECRET.search(str(k)) and v is not None}
    if isinstance(value, list | tuple):
        return [_public(v) for v in value]
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bool | int | float) or value is None:
        return value
    raise TypeError


def _secrets(options: Mapping[str, Any], *, within: bool = False) -> Iterator[str]:
    for name, value in options.items():
        is_secret = within or bool(_SECRET.search(str(name)))
        if isinstance(value, Mapping):
            yield from _secrets(value, within=is_secret)
        elif isinstance(value, list | tuple):
            yield from _secrets({f"{name}.{n}": v for n, v in enumerate(value)}, within=is_secret)
        elif is_secret and isinstance(value, str) and len(value) >= 4:
            yield value


def of_chain(url: str, options: Mapping[str, Any]) -> tuple[Source, str]:
    """Return the filesystem of a chained URL, such as `zip://a::http://host/b.zip`, and the path on it.

    Raises:
        NotSupportedError: A link of the chain is unknown to fsspec.
    """
    from fsspec.core import url_to_fs

    for link in url.split("::"):
        scheme = link.partition("://")[0]
        if "://" in link and not known_protocol(scheme):
            raise NotSupportedError(f"the scheme {scheme!r} of {redact(url)!r} is not known to fsspec")
    first = url.partition("::")[0].partition("://")[0]
    class_of(first)
    try:
        made, path = url_to_fs(url, **options)
    except (OSError, EOFError):
        raise
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{redact(url)!r} does not make a filesystem: {type(error).__name__}"
        ) from error
    kwargs = dict(made.storage_options)
    source = _source(_protocols(type(made), first), type(made), tuple(made.storage_args), kwargs)
    return source, str(path)
