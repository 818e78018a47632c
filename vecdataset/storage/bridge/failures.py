"""What a filesystem's own exceptions mean, in the words of `errors.py`."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from vecdataset.errors import (
    NotFoundError,
    NotSupportedError,
    StorageError,
    StoragePermissionError,
    StorageUnreachableError,
    VecDatasetError,
)
from vecdataset.storage.bridge.sources import Source

__all__ = ["meaning", "translated"]

_UNREACHABLE: Final = frozenset(
    {
        "SSHException", "NoValidConnectionsError", "EOFError", "error_temp", "EndpointConnectionError",
        "ConnectTimeoutError", "ReadTimeoutError", "ProxyConnectionError", "ConnectError", "ConnectTimeout",
        "ReadTimeout", "ReadError", "RemoteProtocolError", "ClientConnectorError", "ServerDisconnectedError",
        "FSTimeoutError", "ConnectionClosedError", "ConnectionTimeoutError", "ClientOSError",
        "SMBConnectionClosed",
    }
)  # fmt: skip
"""Errors of the wire, by name: they share no base class, and their packages may be missing."""

_WIRE: Final = (TimeoutError, ConnectionError, EOFError, socket.gaierror)

_REFUSED: Final = frozenset(
    {
        "AuthenticationException",
        "BadHostKeyException",
        "NoCredentialsError",
        "error_perm",
        "SMBAuthenticationError",
        "LogonFailure",
        "AccessDenied",
    }
)


def meaning(error: BaseException, where: str, text: str) -> VecDatasetError:
    """Return an exception of a filesystem in our words."""
    kind = type(error).__name__
    told = f"{kind}: {text}" if text else kind
    if isinstance(error, VecDatasetError):
        return error
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"nothing stands at {where!r}")
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"no space is left for {where!r}", hint="nothing was committed")
    if isinstance(error, PermissionError) or kind in _REFUSED or getattr(error, "errno", None) == errno.EROFS:
        return StoragePermissionError(
            f"the store refuses access to {where!r} ({told})",
            hint="check user, password or key, and permissions",
        )
    # smbprotocol says ValueError of what the operating system said first.
    wire = isinstance(error, _WIRE) or isinstance(error.__cause__, _WIRE)
    if wire or kind in _UNREACHABLE:
        return StorageUnreachableError(
            f"the store of {where!r} does not answer ({told})",
            hint="what was not acknowledged can be repeated",
        )
    if isinstance(error, NotImplementedError):
        return NotSupportedError(f"the filesystem of {where!r} does not offer what is needed ({told})")
    return StorageError(f"the store of {where!r} failed ({told})")


@contextmanager
def translated(source: Source, where: str) -> Iterator[None]:
    """Raise what the filesystem raises in our words, without its secrets."""
    try:
        yield
    except VecDatasetError:
        raise
    except Exception as error:
        raise meaning(error, where, source.clean(str(error))) from error
