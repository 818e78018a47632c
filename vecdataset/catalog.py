"""The collections beneath one root, and aliases for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from vecdataset import engine, storage
from vecdataset.caps import COLLECTIONS, cap
from vecdataset.collection import Collection
from vecdataset.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    VecDatasetError,
    did_you_mean,
)
from vecdataset.indexes import check_declared
from vecdataset.opening import create_at, open_at
from vecdataset.reader import CONFIG, DROPPED_TAG, Reader
from vecdataset.schema import SparseVectorParams, VectorParams, declare
from vecdataset.storage import Location

_STATE: Final = "_vecdataset_catalog"
_ALIAS: Final = f"{CONFIG}alias."
_DROPPED: Final = f"{CONFIG}dropped_at"


class Catalog:
    """The collections that are folders of `root`.

    Aliases live in a small dataset of their own beside the collections, so that setting one is
    an atomic commit on every store.

    >>> catalog = Catalog("memory://doc-catalog")
    >>> _ = catalog.create("books", vectors=VectorParams(size=3))
    >>> catalog.alias("current", "books")
    >>> catalog.open("current").name, list(catalog)
    ('books', ['books'])
    """

    def __init__(
        self,
        root: Any,
        *,
        filesystem: Any = None,
        storage_options: Mapping[str, Any] | None = None,
        durable: bool = False,
    ) -> None:
        """Look at a root; nothing is read or written yet. `durable`: see `vecdataset.open`."""
        self.root = storage.resolve(
            root, filesystem=filesystem, storage_options=storage_options, durable=durable
        )
        """Where the catalog is."""

    @property
    def url(self) -> str:
        """The root, without credentials."""
        return self.root.url

    def __repr__(self) -> str:
        return f"Catalog({self.url!r})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.list())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.list()

    def create(
        self,
        name: str,
        *,
        vectors: VectorParams | Mapping[str, VectorParams],
        sparse: Mapping[str, SparseVectorParams] | None = None,
        id_type: str | None = None,
        exist_ok: bool = False,
        full_scan_threshold: int | None = None,
        indexing_threshold: int | None = None,
    ) -> Collection:
        """Make an empty collection under this root; see `vecdataset.create`."""
        schema = declare(vectors, sparse=sparse, id_type=id_type)
        for params in schema.vectors.values():
            check_declared(params)
        location = self.location(name)
        if name in self.aliases():
            raise CollectionExistsError(f"{name!r} is an alias in {self.url}", hint="choose another name")
        limit = cap(COLLECTIONS)
        if limit is not None:
            there = self.list()
            if len(there) >= limit and name not in there:
                raise LimitExceededError(
                    f"{self.url} has {len(there)} collections, and {COLLECTIONS} allows {limit}",
                    hint="drop one, or raise the limit; nothing was written",
                )
        return create_at(
            location, schema, exist_ok=exist_ok, thresholds=(full_scan_threshold, indexing_threshold)
        )

    def open(self, name: str, *, max_staleness_s: float | None = None) -> Collection:
        """Open a collection by name or alias."""
        try:
            return open_at(self.location(name), max_staleness_s=max_staleness_s)
        except CollectionNotFoundError as exc:
            target = self.aliases().get(name)
            if target is not None:
                return open_at(self.location(target), max_staleness_s=max_staleness_s)
            if exc.hint and "undrop" in exc.hint:
                raise
            raise CollectionNotFoundError(
                f"no collection {name!r} in {self.url}",
                hint=did_you_mean(name, [*self.list(), *self.aliases()], what="collections"),
            ) from exc

    def __getitem__(self, name: str) -> Collection:
        return self.open(name)

    def list(self, *, dropped: bool = False) -> list[str]:
        """Return the names of the collections, sorted; or of the dropped ones."""
        return sorted(name for name, is_dropped in self._states().items() if is_dropped is dropped)

    def _states(self) -> dict[str, bool]:
        """Return whether each collection is dropped; folders that are no collections are left out."""
        files = storage.files(self.root)
        names = [n for n in files.list_dirs() if not n.startswith(("_", "."))]

        def state(name: str) -> bool | None:
            try:
                table = engine.open_table(self.root.child(name))
                return Reader(table, name=name).dropped_at is not None
            except (NotFoundError, InvalidInputError):
                return None
            except VecDatasetError:
                return False  # damaged or unreadable now: still a collection, and open() says why

        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(names, pool.map(state, names), strict=True))
        return {name: s for name, s in found.items() if s is not None}

    def drop(self, name: str, *, purge: bool = False) -> None:
        """Drop a collection; `undrop` brings it back.

        A mark in the collection says so, and a tag keeps its last version: no file is moved or
        removed. `purge` deletes the files, for good.
        """
        location = self.location(name)
        if purge:
            engine.open_table(location)
            engine.drop_table(location)
            return
        collection = self.open(name)
        if collection.name != name:
            raise InvalidInputError(
                f"{name!r} is an alias of {collection.name!r}", hint="drop that, or unalias"
            )
        table = engine.open_table(location)
        now = datetime.now(UTC)
        tag = f"{DROPPED_TAG}{now:%Y%m%d-%H%M%S}-{table.version}"
        table.set_tag(tag, table.version)
        table.set_config({_DROPPED: now.isoformat(timespec="seconds")})

    def undrop(self, name: str) -> Collection:
        """Bring a dropped collection back as it was.

        Raises:
            CollectionExistsError: It was not dropped, or another was created in its place.
        """
        location = self.location(name)
        table = engine.open_table(location)
        if Reader(table, name=name).dropped_at is None:
            older = [t for t in table.tags() if t.startswith(DROPPED_TAG)]
            raise CollectionExistsError(
                f"collection {name!r} in {self.url} is not dropped",
                hint=f"the one dropped before it is open({location.url!r}).at({older[-1]!r})"
                if older
                else None,
            )
        return Collection(table.set_config({_DROPPED: None}), name=name)

    def rename(self, name: str, new_name: str) -> Collection:
        """Rename a collection: atomic on local disks, elsewhere its files are copied and then removed.

        Open handles on the old name stop working, and aliases follow.
        """
        source = self.location(name)
        target = self.location(new_name)
        open_at(source)
        if new_name in self._states() or new_name in self.aliases():
            raise CollectionExistsError(f"{new_name!r} exists already in {self.url}")
        storage.files(source).rename_tree(target)
        moved = {a: new_name for a, t in self.aliases().items() if t == name}
        if moved:
            self._set_aliases(dict(moved))
        return open_at(target)

    # -- aliases

    def aliases(self) -> dict[str, str]:
        """Return alias names with the collections they stand for."""
        try:
            table = engine.open_table(self.root.child(_STATE))
        except NotFoundError:
            return {}
        return {k.removeprefix(_ALIAS): v for k, v in table.config.items() if k.startswith(_ALIAS)}

    def alias(self, alias: str, name: str) -> None:
        """Let `alias` stand for the collection `name`, atomically; it may have stood for another."""
        self.location(alias)
        if alias in self._states():
            raise CollectionExistsError(
                f"{alias!r} is a collection in {self.url}", hint="choose another alias"
            )
        open_at(self.location(name))
        self._set_aliases({alias: name})

    def unalias(self, alias: str) -> None:
        """Remove an alias; the collection stays."""
        if alias not in self.aliases():
            raise CollectionNotFoundError(
                f"no alias {alias!r} in {self.url}", hint=did_you_mean(alias, self.aliases(), what="aliases")
            )
        self._set_aliases({alias: None})

    def _set_aliases(self, values: Mapping[str, str | None]) -> None:
        location = self.root.child(_STATE)
        try:
            table = engine.open_table(location)
        except NotFoundError:
            try:
                table = engine.create_table(location, pa.schema([pa.field("state", pa.string())]))
            except CollectionExistsError:
                table = engine.open_table(location)
        table.set_config({_ALIAS + k: v for k, v in values.items()})

    def location(self, name: str) -> Location:
        """Return where the collection `name` stands, or would stand."""
        if (
            not isinstance(name, str)
            or not name
            or name.startswith(("_", "."))
            or set(name) & set('/\\:*?"<>|')
        ):
            raise InvalidInputError(
                f"{name!r} cannot name a collection",
                hint="use letters, digits, '-', '_' and '.', not beginning with '_' or '.'",
            )
        return self.root.child(name)


__all__ = ["Catalog"]
