"""Name → plugin, built in or brought by another distribution, loaded when first used.

A family of plugins (`filesystems`, `indexes`, `formats`) is one protocol and one
`Registry`. Built-ins are a table of strings; strangers declare the same strings as
entry points of the group `vecdataset.<family>`; both go through one loader. A string
names a module attribute, `package.module:attribute`: a class is instantiated without
arguments, anything else is the plugin itself.

One broken plugin never breaks the rest: a listing that needs it warns once and goes
on, asking for it by name raises, and `describe` says what is wrong with it.

Besides the members of its protocol, a plugin may say what it needs at run time:
`requires`, a tuple of importable module names, and `extra`, the name of the
distribution's extra that brings them.

Left to others: what a plugin can do (its family's protocol) and whether it keeps its
word (its family's conformance class).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast

from vecdataset.errors import MissingDependencyError, PluginError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = ["PluginInfo", "PluginWarning", "Registry"]

T = TypeVar("T")

_BUILT_IN: Final = "vecdataset"


class PluginWarning(UserWarning):
    """A plugin was left out: it failed to load, or its name is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What is known of one plugin, whether or not it works."""

    family: str
    """`filesystems`, `indexes` or `formats`."""

    name: str
    """The name that asks for it."""

    aliases: tuple[str, ...] = ()
    """Other names that ask for it."""

    origin: str
    """The distribution that brings it; `vecdataset` for built-ins."""

    version: str
    """That distribution's version; empty when it is not installed as one."""

    capabilities: tuple[str, ...] = ()
    """What the plugin declares it can do, sorted; empty when it did not load."""

    state: Literal["ok", "failed", "missing extra"]
    """`missing extra`: it would work if a package were installed."""

    reason: str = ""
    """Why the state is not `ok`, in one sentence."""

    install: str = ""
    """The line that installs what is missing, where it is known."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one plugin comes from; nothing of it is imported yet."""

    name: str
    value: str
    extras: tuple[str, ...] = ()
    dist: Distribution | None = None
    clash: str = ""

    @property
    def origin(self) -> str:
        return _BUILT_IN if self.dist is None else self.dist.name

    @property
    def version(self) -> str:
        if self.dist is not None:
            return self.dist.version
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(_BUILT_IN)
        except PackageNotFoundError:  # run from a source tree
            return ""

    def install(self, extra: str | None) -> str:
        if extra is None:
            extra = self.extras[0] if self.extras else None
        return f"pip install '{self.origin}[{extra}]'" if extra else ""


class Registry(Generic[T]):
    """The plugins of one family, by name.

    Args:
        family: `filesystems`, `indexes` or `formats`; strangers' entry points are read from
            the group `vecdataset.<family>`.
        builtins: Name → `package.module:attribute`.
        protocol: The `typing.Protocol` of the family; a plugin without one of its members
            counts as failed.
        noun: What one plugin is called in messages, such as `index kind`.
        aliases: Other name → name.

    Iterating yields the plugins that load, in the order of `names`, and warns of the rest.

    >>> filesystems = Registry[object]("filesystems", {"errors": "vecdataset.errors:did_you_mean"})
    >>> filesystems.get("errors").__name__
    'did_you_mean'
    """

    def __init__(
        self,
        family: str,
        builtins: Mapping[str, str],
        *,
        protocol: type[Any] | None = None,
        noun: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.family = family
        self._noun = noun or family.removesuffix("s")
        self._builtins = {name: _Entry(name, value) for name, value in builtins.items()}
        self._aliases = dict(aliases or {})
        self._members = _protocol_members(protocol)
        self._loaded: dict[_Entry, T] = {}
        self._failed: dict[_Entry, BaseException] = {}
        self._warned: set[_Entry] = set()
        self._scanned: tuple[dict[str, _Entry], list[_Entry]] | None = None

    def __repr__(self) -> str:
        return f"<Registry {self.family}: {', '.join(self.names())}>"

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None if isinstance(name, str) else False

    def __len__(self) -> int:
        return len(self.names())

    def __iter__(self) -> Iterator[T]:
        yield from self._working(self._entries())

    def strangers(self) -> Iterator[T]:
        """Yield the plugins of other distributions that load; no built-in is loaded for it."""
        yield from self._working(list(self._scan()[0].values()))

    def _working(self, entries: list[_Entry]) -> Iterator[T]:
        for entry in entries:
            try:
                plugin = self._load(entry)
            except (PluginError, MissingDependencyError) as error:
                self._warn(entry, f"{error}; it is left out")
            else:
                yield plugin

    def names(self) -> list[str]:
        """Return every name that `get` knows, aliases left out: built-ins first, then by name."""
        return [entry.name for entry in self._entries()]

    def get(self, name: str) -> T:
        """Return the plugin of this name or alias, loading it if this is its first use.

        Raises:
            UnknownNameError: No plugin has this name.
            PluginError: It did not load, or lacks a member of its protocol; the cause is attached.
            MissingDependencyError: It says that it needs an extra.
        """
        entry = self._find(name)
        if entry is None:
            known = [*self.names(), *self._aliases]
            raise UnknownNameError(
                f"{self._noun} {name!r} is not known",
                hint=did_you_mean(name, known, what=f"known {self.family}"),
            )
        return self._load(entry)

    def describe(self) -> list[PluginInfo]:
        """Load every plugin and say how each fares; never raises for a broken one, never warns.

        A plugin whose name is taken appears too, as failed.
        """
        clashes = self._scan()[1]
        return [self._info(entry) for entry in [*self._entries(), *clashes]]

    def refresh(self) -> None:
        """Forget what was read and loaded, so that packages installed since are seen."""
        self._scanned = None
        self._loaded.clear()
        self._failed.clear()
        self._warned.clear()

    def _find(self, name: str) -> _Entry | None:
        name = self._aliases.get(name, name)
        # Built-ins first: reading entry points costs some 20 ms, and nobody may replace one.
        return self._builtins.get(name) or self._scan()[0].get(name)

    def _entries(self) -> list[_Entry]:
        return [*self._builtins.values(), *self._scan()[0].values()]

    def _scan(self) -> tuple[dict[str, _Entry], list[_Entry]]:
        """Return strangers' plugins by name, and those whose name was taken already."""
        if self._scanned is not None:
            return self._scanned
        from importlib.metadata import entry_points

        found = [
            _Entry(point.name, point.value.partition("[")[0].strip(), tuple(point.extras), point.dist)
            for point in entry_points(group=f"vecdataset.{self.family}")
            if point.dist is not None
        ]
        strangers: dict[str, _Entry] = {}
        clashes: list[_Entry] = []
        for entry in sorted(found, key=lambda e: (e.name, e.origin)):
            if entry.name in self._builtins or entry.name in self._aliases:
                owner = _BUILT_IN
            elif entry.name in strangers:
                owner = strangers[entry.name].origin
            else:
                strangers[entry.name] = entry
                continue
            if (entry.origin, entry.value) == (owner, self._value(entry.name, strangers)):
                continue  # the same distribution, found twice on the path
            reason = f"the name {entry.name!r} is taken by {owner!r}"
            clashes.append(_Entry(entry.name, entry.value, entry.extras, entry.dist, reason))
        self._scanned = strangers, clashes
        for entry in clashes:
            text = f"{self._noun} {entry.name!r} of {entry.origin!r} is left out: {entry.clash}"
            self._warn(entry, text)
        return self._scanned

    def _value(self, name: str, strangers: Mapping[str, _Entry]) -> str | None:
        entry = self._builtins.get(name) or strangers.get(name)
        return entry.value if entry else None

    def _warn(self, entry: _Entry, message: str) -> None:
        if entry not in self._warned:
            self._warned.add(entry)
            warnings.warn(message, PluginWarning, stacklevel=3)

    def _load(self, entry: _Entry) -> T:
        if entry in self._loaded:
            return self._loaded[entry]
        if entry not in self._failed:
            try:
                plugin = _resolve(entry.value)
                self._check(plugin)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - raised below, with its origin
                self._failed[entry] = error
            else:
                return self._loaded.setdefault(entry, cast("T", plugin))
        cause = self._failed[entry]
        if isinstance(cause, MissingDependencyError):
            raise cause
        raise PluginError(
            f"{self._noun} {entry.name!r} of {entry.origin!r} ({entry.value}) failed to load: "
            f"{_sentence(cause)}",
            hint=self._install_line(entry, cause) or None,
        ) from cause

    def _check(self, plugin: object) -> None:
        missing = [member for member in self._members if not hasattr(plugin, member)]
        if missing:
            raise AttributeError(f"it lacks {', '.join(repr(m) for m in missing)}")
        capabilities = getattr(plugin, "capabilities", ())
        if not isinstance(capabilities, (frozenset, tuple)):
            raise TypeError(f"its `capabilities` are a {type(capabilities).__name__}, not a frozenset")

    def _info(self, entry: _Entry) -> PluginInfo:
        def info(state: Literal["ok", "failed", "missing extra"], **more: Any) -> PluginInfo:
            return PluginInfo(
                family=self.family, name=entry.name, origin=entry.origin, version=entry.version,
                state=state, **more,
            )  # fmt: skip

        if entry.clash:
            return info("failed", reason=entry.clash)
        aliases = tuple(sorted(a for a, name in self._aliases.items() if name == entry.name))
        try:
            plugin = self._load(entry)
        except MissingDependencyError as error:
            return info("missing extra", aliases=aliases, reason=str(error), install=error.hint or "")
        except PluginError as error:
            cause = error.__cause__ or error
            state: Final = "missing extra" if _is_missing_package(cause, entry) else "failed"
            return info(
                state, aliases=aliases, reason=_sentence(cause), install=self._install_line(entry, cause)
            )
        capabilities = tuple(sorted(getattr(plugin, "capabilities", ())))
        absent = [m for m in getattr(plugin, "requires", ()) if not _is_importable(m)]
        if absent:
            return info(
                "missing extra",
                aliases=aliases,
                capabilities=capabilities,
                reason=f"needs the package {', '.join(repr(m) for m in absent)}",
                install=entry.install(getattr(plugin, "extra", None)),
            )
        return info("ok", aliases=aliases, capabilities=capabilities)

    def _install_line(self, entry: _Entry, cause: BaseException) -> str:
        return entry.install(None) if _is_missing_package(cause, entry) else ""


def _resolve(value: str) -> object:
    """Import what `package.module:attribute` names, and instantiate it if it is a class."""
    from importlib import import_module

    module, _, attribute = value.partition(":")
    found: object = import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found() if isinstance(found, type) else found


def _protocol_members(protocol: type[Any] | None) -> tuple[str, ...]:
    """Return the public members a `typing.Protocol` declares, in order of declaration.

    `typing.get_protocol_members` says the same from Python 3.13 on.
    """
    if protocol is None:
        return ()
    import inspect

    members: dict[str, None] = {}
    for cls in reversed(protocol.__mro__):
        if getattr(cls, "_is_protocol", False) and cls.__module__ != "typing":
            names = [*inspect.get_annotations(cls), *cls.__dict__]
            members.update(dict.fromkeys(n for n in names if not n.startswith("_")))
    return tuple(members)


def _is_missing_package(error: BaseException, entry: _Entry) -> bool:
    """Tell a package that is not installed from a plugin that is broken in itself."""
    own = entry.value.partition(":")[0].partition(".")[0]
    return isinstance(error, ModuleNotFoundError) and (error.name or own).partition(".")[0] != own


def _is_importable(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
