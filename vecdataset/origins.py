"""Where a working copy came from, and what both have: `_vecdataset/origin.json` beside its data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from vecdataset import storage
from vecdataset.errors import NotFoundError
from vecdataset.storage import Location

PATH: Final = "_vecdataset/origin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The collection that a working copy was made of."""

    url: str
    """As the user wrote it, without credentials."""
    uri: str
    """What Lance gets: tells two stores with the same URL apart, as far as their names do."""
    version: int
    """The newest version that both have; what follows is not published yet."""


def read_origin(location: Location) -> Origin | None:
    """Return where a collection came from; None where it is nobody's copy."""
    try:
        return Origin(**json.loads(storage.files(location).read(PATH)))
    except (NotFoundError, ValueError, TypeError):
        return None


def write_origin(location: Location, origin: Origin) -> None:
    """Remember where a collection came from."""
    storage.files(location).write(PATH, json.dumps(asdict(origin), indent=1).encode())
