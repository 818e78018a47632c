"""Where a collection stands: the user's URL, what Lance gets, and by which route.

A `Location` is a plain value. It is made by `resolve` and carries the credentials of
its store in `options`, which appear in no text that this package prints.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, unquote

from vecdataset.errors import InvalidInputError

__all__ = ["Commit", "Kind", "Location", "escape_memory", "redact", "unescape_memory"]

Kind = Literal["local", "native", "bridge", "shared-memory"]
Commit = Literal["atomic", "single-process", "read-only", "unknown"]

_PLACES: Final = (
    "aws_endpoint", "azure_storage_account_name", "azure_storage_endpoint", "google_base_url",
)  # fmt: skip
"""Options of Lance that name a store, beside its URI."""

_COMMITS: Final[dict[Commit, str]] = {
    "atomic": "many processes may write at once",
    "single-process": "one process may write",
    "read-only": "nothing can be written",
    "unknown": "checked before the first write",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """One place in one store."""

    url: str
    """What the user wrote, normalised and without credentials; every message shows this."""

    uri: str
    """What Lance gets."""

    options: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    """Lance's `storage_options`. They hold credentials: never print them."""

    filesystem: str
    """The name of the route in `storage.filesystems`."""

    kind: Kind
    """`local`: a folder; `native`: Lance's own object store; `bridge`: fsspec's filesystem;
    `shared-memory`: this process."""

    remote: bool
    """Whether each request costs a round trip."""

    commit: Commit
    """What keeps concurrent writers apart."""

    reason: str
    """Why this route was taken, in one sentence."""

    details: Callable[[], list[str]] | None = field(default=None, repr=False, compare=False)
    """More lines for `explain`, as of now."""

    renew: Callable[[], Mapping[str, str]] | None = field(default=None, repr=False, compare=False)
    """Returns `options` as they are now, where they hold credentials that expire."""

    durable: bool = False
    """Whether a commit is acknowledged only once it would survive a power failure. Stores other than
    local disks keep that promise, or do not, by themselves."""

    @property
    def name(self) -> str:
        """The last segment of the path; empty at the root of a store."""
        if self.kind == "local":
            return Path(self.url).name
        return self.url.partition("::")[0].partition("://")[2].rpartition("/")[2]

    def current(self) -> dict[str, str]:
        """Return Lance's `storage_options` with credentials that hold now; never print them."""
        return dict(self.options if self.renew is None else self.renew())

    def shares_store(self, other: Location) -> bool:
        """Return whether equal URIs mean one place, by whatever credentials."""
        mine, its = self.options, other.options
        return self.filesystem == other.filesystem and all(mine.get(n) == its.get(n) for n in _PLACES)

    def child(self, name: str) -> Location:
        """Return the place called `name` directly beneath this one.

        Raises:
            InvalidInputError: `name` is empty, holds a separator, or is `.` or `..`.
        """
        separators = {"/", os.sep} if self.kind == "local" else {"/"}
        if name in {"", ".", ".."} or any(s in name for s in separators) or not name.isprintable():
            raise InvalidInputError(f"{name!r} cannot name a folder in {self.url!r}")
        if self.kind == "local":
            path = str(Path(self.uri, name))
            return replace(self, url=path, uri=path)
        encode = escape_memory if self.kind == "shared-memory" else quote
        return replace(self, url=_join(self.url, name), uri=_join(self.uri, encode(name)))

    def sibling(self, name: str) -> Location:
        """Return the place called `name` beside this one."""
        if self.kind == "local":
            parent = str(Path(self.uri).parent)
            return replace(self, url=parent, uri=parent).child(name)
        first, chain, rest = self.url.partition("::")
        url, uri = first.rpartition("/")[0] + chain + rest, self.uri.rpartition("/")[0]
        return replace(self, url=url, uri=uri).child(name)

    def explain(self) -> str:
        """Return a few lines on the route: who does the reading and writing, and how safely."""
        return "\n".join(
            [
                f"{self.url}",
                f"  route      {self.filesystem} ({self.kind}): {self.reason}",
                f"  Lance URI  {self.uri}",
                f"  requests   {'cost a round trip' if self.remote else 'are local'}",
                f"  writers    {_COMMITS[self.commit]}",
                *(self.details() if self.details is not None else ()),
            ]
        )


def redact(url: str) -> str:
    """Return `url` fit for a message: no user name, no password, no query."""
    url = re.sub(r"://\S*@", "://…@", url)
    return re.sub(r"\?.*", "?…", url, flags=re.DOTALL)


def escape_memory(segment: str) -> str:
    """Return a path segment as it stands in a `shared-memory://` URI.

    Lance encodes a reserved character once for a dataset and twice in a listing
    (measured with pylance 14.0.2: `a b` is listed as `a%2520b`), so that names would not
    survive a round trip. The escapes used here pass through unchanged.
    """
    return quote(segment, safe="").replace("~", "%7E").replace("=", "%3D").replace("%", "=")


def unescape_memory(segment: str) -> str:
    """Return what `escape_memory` was given."""
    return unquote(segment.replace("=", "%"))


def _join(base: str, name: str) -> str:
    first, chain, rest = base.partition("::")  # the path stands in the first link
    return f"{first}{name}{chain}{rest}" if first.endswith("/") else f"{first}/{name}{chain}{rest}"
