"""The exceptions of vecdataset, in one tree.

Classes are grouped by what a handler does next; each also inherits the built-in
that a caller would already catch::

    VecDatasetError
    ├── InvalidInputError (ValueError)         the caller changes the call
    │   ├── InvalidVectorError                 wrong size, NaN or infinite, unknown dtype
    │   ├── InvalidFilterError                 syntax (with position), unknown clause
    │   ├── UnknownNameError (also KeyError)   a column, vector or index that is not there
    │   └── InvalidIdError                     an id of the wrong type
    ├── NotFoundError (LookupError)            the caller looks elsewhere, or creates
    │   ├── CollectionNotFoundError (also FileNotFoundError)
    │   ├── PointNotFoundError (also KeyError)
    │   ├── VersionNotFoundError (also KeyError)
    │   │   └── VersionGoneError               it existed; clean-up has removed it
    │   └── SnapshotNotFoundError (also KeyError)
    ├── AlreadyExistsError (ValueError)        the caller picks another name, or upserts
    │   ├── CollectionExistsError (also FileExistsError)
    │   └── PointExistsError
    ├── ReadOnlyError (PermissionError)        the caller opens the latest version
    ├── NotSupportedError (NotImplementedError)
    ├── CommitConflictError (RuntimeError)     the caller tries again
    ├── StorageError (OSError)                 the operator looks at the store
    │   ├── StorageUnreachableError (also ConnectionError)
    │   ├── StoragePermissionError (also PermissionError)
    │   └── CorruptionError                    bytes are missing or changed
    ├── OperationTimeoutError (TimeoutError)
    ├── MissingDependencyError (ImportError)   the user installs an extra
    └── PluginError (RuntimeError)             a plugin failed to load or broke its protocol

A message says what was asked, what was found, and where. What to do about it is
the `hint`, kept as a note (PEP 678), so that tracebacks show both. `code` is the
gRPC status that a server would answer with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "AlreadyExistsError",
    "CollectionExistsError",
    "CollectionNotFoundError",
    "CommitConflictError",
    "CorruptionError",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidVectorError",
    "MissingDependencyError",
    "NotFoundError",
    "NotSupportedError",
    "OperationTimeoutError",
    "PluginError",
    "PointExistsError",
    "PointNotFoundError",
    "ReadOnlyError",
    "SnapshotNotFoundError",
    "StorageError",
    "StoragePermissionError",
    "StorageUnreachableError",
    "UnknownNameError",
    "VecDatasetError",
    "VersionGoneError",
    "VersionNotFoundError",
    "did_you_mean",
]


class VecDatasetError(Exception):
    """Base class of everything that vecdataset raises on purpose."""

    code: ClassVar[str] = "UNKNOWN"
    """The gRPC status code of this class."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    def __str__(self) -> str:
        # KeyError would print the repr of the message, OSError an errno tuple.
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.__dict__))


def _rebuild(
    cls: type[VecDatasetError], message: str, hint: str | None, state: dict[str, object]
) -> VecDatasetError:
    error = cls.__new__(cls, message)
    VecDatasetError.__init__(error, message, hint=hint)
    error.__dict__.update({k: v for k, v in state.items() if k != "__notes__"})
    return error


class InvalidInputError(VecDatasetError, ValueError):
    """What was asked cannot be done with these arguments; nothing was written."""

    code = "INVALID_ARGUMENT"


class InvalidVectorError(InvalidInputError):
    """A vector has the wrong size or dtype, or holds NaN or infinity."""


class InvalidFilterError(InvalidInputError):
    """A filter does not parse; `position` is the offset of the mistake in SQL text."""

    def __init__(self, message: str, *, hint: str | None = None, position: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.position = position


class UnknownNameError(InvalidInputError, KeyError):
    """A column, vector, index or option of this name does not exist."""


class InvalidIdError(InvalidInputError):
    """A point id is of another type than the collection's."""


class NotFoundError(VecDatasetError, LookupError):
    """What was asked for is not there."""

    code = "NOT_FOUND"


class CollectionNotFoundError(NotFoundError, FileNotFoundError):
    """No collection stands at this URL."""


class PointNotFoundError(NotFoundError, KeyError):
    """No point has this id."""


class VersionNotFoundError(NotFoundError, KeyError):
    """The collection has no such version."""


class VersionGoneError(VersionNotFoundError):
    """The version existed, and clean-up has removed its files."""


class SnapshotNotFoundError(NotFoundError, KeyError):
    """The collection has no snapshot of this name."""


class AlreadyExistsError(VecDatasetError, ValueError):
    """The name or id is taken."""

    code = "ALREADY_EXISTS"


class CollectionExistsError(AlreadyExistsError, FileExistsError):
    """A collection, or something else, already stands at this URL."""


class PointExistsError(AlreadyExistsError):
    """`insert` met an id that the collection already holds."""


class ReadOnlyError(VecDatasetError, PermissionError):
    """The handle shows a fixed version, or the store cannot be written to."""

    code = "FAILED_PRECONDITION"


class NotSupportedError(VecDatasetError, NotImplementedError):
    """The request makes sense, and this version or store does not offer it."""

    code = "UNIMPLEMENTED"


class LimitExceededError(VecDatasetError, RuntimeError):
    """The operator's limit on collections or points is reached; nothing was written."""

    code = "RESOURCE_EXHAUSTED"


class CommitConflictError(VecDatasetError, RuntimeError):
    """Other writers won every retry; nothing was written."""

    code = "ABORTED"


class StorageError(VecDatasetError, OSError):
    """The store failed."""

    code = "UNAVAILABLE"


class StorageUnreachableError(StorageError, ConnectionError):
    """The store does not answer."""


class StoragePermissionError(StorageError, PermissionError):
    """The store refuses these credentials, or there are none."""

    code = "PERMISSION_DENIED"


class CorruptionError(StorageError):
    """Bytes of the collection are missing or changed."""

    code = "DATA_LOSS"


class OperationTimeoutError(VecDatasetError, TimeoutError):
    """The operation did not end in time."""

    code = "DEADLINE_EXCEEDED"


class MissingDependencyError(VecDatasetError, ImportError):
    """An optional package is needed; the hint is the line that installs it."""

    code = "FAILED_PRECONDITION"

    @classmethod
    def of(cls, package: str, *, extra: str, purpose: str) -> MissingDependencyError:
        """Say that `purpose` needs `package`, which the extra `extra` brings."""
        return cls(f"{purpose} needs the package {package!r}", hint=f"pip install 'vecdataset[{extra}]'")


class PluginError(VecDatasetError, RuntimeError):
    """A plugin failed to load, or does not keep its protocol."""

    code = "INTERNAL"


def did_you_mean(name: str, known: Iterable[str], *, what: str = "known names") -> str:
    """Return a hint that names the closest of `known`, or all of them when none is close."""
    names = sorted(known)
    lowered = {n.lower(): n for n in names}
    close = [lowered[c] for c in difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.6)]
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not names:
        return f"there are no {what}"
    shown = ", ".join(repr(n) for n in names[:20]) + (", …" if len(names) > 20 else "")
    return f"{what}: {shown}"
