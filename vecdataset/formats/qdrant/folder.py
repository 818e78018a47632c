"""Every snapshot of a folder or bucket, loaded beneath a root: a backup of a server becomes a lake.

Which file is which collection is said by the manifest that a backup has, else by the files' names. One
snapshot that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vecdataset.errors import CorruptionError, NotFoundError, VecDatasetError
from vecdataset.formats import load_into
from vecdataset.formats.qdrant.shelf import Entry, place, read_backup

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog

__all__ = ["load_folder"]


def load_folder(
    folder: str,
    catalog: Catalog,
    *,
    progress: Callable[[int], None] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Entry]:
    """Load each snapshot of a folder into a collection of its name, and set the aliases.

    Args:
        folder: A path or URL.
        catalog: Where the collections go.
        progress: Called with the number of points read so far, of all collections.
        source_options: fsspec's options for `folder`.
        options: What the format takes besides; see `read_all`.

    Returns:
        One entry each, with the points that came in; look for `error`.

    Raises:
        NotFoundError: There is no such place, or no snapshot in it.
    """
    out: list[Entry] = []
    done = 0
    for entry in read_backup(folder, options=source_options):

        def told(count: int, before: int = done) -> None:
            if progress is not None:
                progress(before + count)

        try:
            points = _load_one(folder, entry, catalog, told, source_options, options)
        except (VecDatasetError, OSError) as exc:
            out.append(replace(entry, error=str(exc)))
        else:
            done += points
            out.append(replace(entry, points=points))
    return out


def _load_one(
    folder: str,
    entry: Entry,
    catalog: Catalog,
    progress: Callable[[int], None],
    source_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> int:
    if entry.file is None:
        raise NotFoundError(f"{folder} holds no file of the collection {entry.collection!r}")
    before = _points(catalog, entry.collection)
    collection = load_into(
        catalog.location(entry.collection),
        place(folder, entry.file),
        format="qdrant",
        progress=progress,
        source_options=source_options,
        **options,
    )
    if before == 0 and entry.points is not None and len(collection) != entry.points:
        raise CorruptionError(
            f"{len(collection):,} points came in; the manifest of {folder} states {entry.points:,}",
            hint=f"the collection stands at {collection.url}",
        )
    for alias in entry.aliases:
        catalog.alias(alias, entry.collection)
    return len(collection)


def _points(catalog: Catalog, name: str) -> int:
    return len(catalog.open(name)) if name in catalog.list() else 0
