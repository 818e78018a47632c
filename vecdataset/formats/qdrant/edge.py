"""Qdrant's own engine, `qdrant-edge-py`: loaded when first needed, and only in a version that can serve."""

from __future__ import annotations

from importlib import metadata
from typing import Any, Final

from vecdataset.errors import MissingDependencyError

__all__ = ["MINIMUM", "edge", "edge_version"]

MINIMUM: Final = (0, 9)
"""Older releases do not replay a server's write-ahead log on load: pending writes were lost."""


def edge_version() -> str | None:
    """Return the installed release of the engine, None where there is none."""
    try:
        return metadata.version("qdrant-edge-py")
    except metadata.PackageNotFoundError:
        return None


def edge(purpose: str = "reading a Qdrant snapshot") -> Any:
    """Return the module `qdrant_edge`.

    Args:
        purpose: What needs it, for the message.

    Raises:
        MissingDependencyError: The extra `qdrant` is not installed, or is too old.
    """
    try:
        import qdrant_edge
    except ImportError:
        raise MissingDependencyError.of("qdrant-edge-py", extra="qdrant", purpose=purpose) from None
    found = edge_version()
    numbers = tuple(int(part) for part in (found or "0").split(".")[:2] if part.isdigit())
    if numbers < MINIMUM:
        least = ".".join(map(str, MINIMUM))
        raise MissingDependencyError(
            f"{purpose} needs qdrant-edge-py {least} or newer; {found} is installed",
            hint="pip install --upgrade 'vecdataset[qdrant]'",
        )
    return qdrant_edge
