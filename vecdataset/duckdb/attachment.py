"""Attaching collections to a DuckDB connection, and keeping what it shows up to date."""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, Final

import duckdb
import pyarrow as pa

from vecdataset.catalog import Catalog
from vecdataset.collection import Collection
from vecdataset.duckdb import facts, writes
from vecdataset.duckdb.answers import Answers, payload_schema
from vecdataset.duckdb.arguments import sql_errors
from vecdataset.duckdb.hits import GROUPED_HITS, HITS
from vecdataset.duckdb.macros import DISTANCES, collection_macros, generic_macros, literal, quoted
from vecdataset.duckdb.views import CollectionRows, scannable, select_list
from vecdataset.errors import (
    AlreadyExistsError,
    CollectionNotFoundError,
    InvalidInputError,
    UnknownNameError,
    VecDatasetError,
    did_you_mean,
)
from vecdataset.reader import DROPPED_TAG, Reader

_MARK: Final = "_vecdataset"
_TAKEN_SCHEMAS: Final = frozenset({"main", "information_schema", "pg_catalog", "temp", "system"})
RECENT_VERSIONS: Final = 10
"""So many versions, besides the snapshots, have a view of their own."""

_attached: dict[str, Attachment] = {}
_numbers = itertools.count(1)


def attach(
    con: duckdb.DuckDBPyConnection,
    root_or_collections: Any,
    *,
    name: str = "vec",
    **storage: Any,
) -> None:
    """Show collections in a DuckDB connection, as the database `name`.

    Args:
        con: A connection, in or outside a transaction; every cursor of its database sees the result.
        root_or_collections: A path or URL that holds collections, a `Catalog`, a `Collection`, or a dict of
            collections by name.
        name: The database's name; what was attached under it before is replaced.
        storage: `filesystem` and `storage_options` of the root.

    Raises:
        AlreadyExistsError: A database of this name is there, and is not one of ours.

    Nothing is written to the user's database. Collections made or changed later are seen after
    `SELECT vec.refresh()`; new points at once.
    """
    source = _source(root_or_collections, storage)
    cursor = con.cursor()
    token = _token(cursor, name)
    if token is not None:
        _drop(cursor, name, token)
    attachment = Attachment(cursor, name, source)
    try:
        attachment.open()
    except BaseException:
        attachment.close()
        raise
    _attached[attachment.token] = attachment


def detach(con: duckdb.DuckDBPyConnection, name: str = "vec") -> None:
    """Remove what `attach` made.

    Raises:
        UnknownNameError: Nothing is attached under this name.
    """
    cursor = con.cursor()
    token = _token(cursor, name)
    if token is None:
        raise UnknownNameError(f"no collections are attached as {name!r}")
    _drop(cursor, name, token)


def attachment_of(con: duckdb.DuckDBPyConnection, name: str) -> Attachment | None:
    """Return what is attached under a name, None where it is nothing of ours."""
    try:
        token = _token(con, name)
    except AlreadyExistsError:
        return None
    return None if token is None else _attached.get(token)


def _token(cursor: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """Return the token of the attachment of this name, None where the name is free."""
    names = {
        row[0].lower() for row in cursor.execute("SELECT database_name FROM duckdb_databases()").fetchall()
    }
    if name.lower() not in names:
        return None
    ours = cursor.execute(
        "SELECT macro_definition FROM duckdb_functions() WHERE lower(database_name) = lower(?) "
        "AND function_name = ?",
        [name, _MARK],
    ).fetchone()
    if ours is None:
        raise AlreadyExistsError(
            f"a database {name!r} is attached already, and holds something else", hint="pass another name="
        )
    return str(ours[0]).strip("'")


def _drop(cursor: duckdb.DuckDBPyConnection, name: str, token: str) -> None:
    attachment = _attached.pop(token, None)
    if attachment is None:
        cursor.execute(f"DETACH {quoted(name)}")
    else:
        attachment.close()


@atexit.register
def _close_all() -> None:
    # Else DuckDB's binding reports every object that a function still holds as leaked.
    for attachment in list(_attached.values()):
        attachment.forget()
    _attached.clear()


# ----------------------------------------------------------------------- collections


@dataclass(slots=True)
class Source:
    """Where an attachment finds its collections."""

    url: str
    list: Callable[[], Sequence[str]]
    open: Callable[[str], Collection]
    catalog: Catalog | None = None


def _source(given: Any, storage: Mapping[str, Any]) -> Source:
    if isinstance(given, Collection):
        given = {given.name: given}
    if isinstance(given, Mapping):
        found: dict[str, Collection] = dict(given)
        for name, collection in found.items():
            if not isinstance(collection, Collection):
                raise InvalidInputError(
                    f"{name!r} is of type {type(collection).__name__}; it must be a Collection"
                )
        return Source("the collections given", lambda: list(found), found.__getitem__)
    catalog = given if isinstance(given, Catalog) else Catalog(given, **storage)
    return Source(catalog.url, lambda: [*catalog.list(), *catalog.aliases()], catalog.open, catalog)


@dataclass(slots=True)
class Shown:
    """A collection as the database shows it."""

    collection: Collection
    schema: str
    signature: tuple[Any, ...] | None = None
    views: dict[str, int | None] = field(default_factory=dict)
    """Views by name, with the version where they show a fixed one."""


class Attachment:
    """One database of macros, views and functions over the collections of one source."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, name: str, source: Source) -> None:
        """Use `attach` instead."""
        self.name = name
        self.token = f"vec{next(_numbers)}"
        self.source = source
        self._cursor: duckdb.DuckDBPyConnection | None = cursor
        self._lock = RLock()
        self._shown: dict[str, Shown] = {}
        self._broken: dict[str, str] = {}
        self._functions: list[str] = []
        self._generation = itertools.count(1)
        self._answers = Answers(self.collection)
        self._facts = facts.Facts(self.collection, self.names, self._answers.findings)
        self._writes = writes.Writes(
            self.collection, source.catalog, self.refresh, self.follow, self._answers.findings.unpin
        )

    def collection(self, name: str | None) -> Collection:
        """Return a collection that is shown.

        Raises:
            CollectionNotFoundError: There is none of this name.
        """
        shown = None if name is None else self._shown.get(name)
        if shown is None:
            asked = "NULL" if name is None else repr(name)
            raise CollectionNotFoundError(
                f"no collection {asked} in {self.source.url}",
                hint=did_you_mean(name or "", self._shown, what="collections"),
            )
        return shown.collection

    def names(self) -> dict[str, str | None]:
        """Return the collections, with the reason why one does not open."""
        return dict.fromkeys(self._shown, None) | self._broken

    def reader(self, name: str) -> Reader:
        """Return the newest version of a collection."""
        return self._answers.findings.newest(name)

    def name_of(self, view: str) -> str | None:
        """Return the collection whose newest version a view shows."""
        return next((n for n, s in self._shown.items() if _view_of(n, s).lower() == view.lower()), None)

    def schema_of(self, name: str) -> str:
        """Return the schema of a collection's macros."""
        return self._shown[name].schema

    # -- making and removing

    def open(self) -> None:
        """Make the database."""
        self._run(f"ATTACH ':memory:' AS {quoted(self.name)} (READ_WRITE)")
        self._run(f"USE {quoted(self.name)}")
        self._run(f"CREATE MACRO {_MARK}() AS {literal(self.token)}")
        answers = self._answers
        self.function("search", answers.search, HITS, volatile=True)
        self.function("search_by_id", answers.search_by_id, HITS, volatile=True)
        self.function("ranked", answers.ranked, HITS, volatile=True)
        self.function("group", answers.group, GROUPED_HITS, volatile=True)
        self.function("refresh", self._refresh_from_sql, "VARCHAR", volatile=True)
        asked = self._facts
        self.function("count", asked.count, "BIGINT", volatile=True)
        self.function("matches", asked.matches, "BOOLEAN", volatile=False)
        self.function("explain", asked.explain, "VARCHAR", volatile=True)
        for listing in facts.COLUMNS:
            self.function(listing, getattr(asked, listing), facts.duckdb_type(listing), volatile=True)
        written = self._writes
        self.function("stage", written.stage, "BIGINT", volatile=True)
        self.function("write", written.write, writes.WRITTEN, volatile=True)
        self.function("delete", written.delete, "BIGINT", volatile=True)
        self.function("optimize", written.optimize, "BIGINT", volatile=True)
        for name in ("create", "create_index", "create_payload_index", "snapshot", "restore"):
            self.function(name, getattr(written, name), "VARCHAR", volatile=True)
        self._run(f"CREATE MACRO refresh() AS {self.token}_refresh(1)")
        for sql in (*facts.MACROS, *writes.MACROS, *DISTANCES):
            self._run(sql.replace("{prefix}", f"{self.token}_"))
        self.refresh()

    def close(self) -> None:
        """Remove the database and its functions."""
        with self._lock:
            cursor, self._cursor = self._cursor, None
            if cursor is None:
                return
            found = cursor.execute(
                "SELECT database_name FROM duckdb_databases() "
                "WHERE NOT internal AND lower(database_name) != lower(?)",
                [self.name],
            ).fetchall()
            cursor.execute(f"USE {quoted(found[0][0])}")  # a database in use cannot go
            cursor.execute(f"DETACH DATABASE IF EXISTS {quoted(self.name)}")
            for name in self._functions:  # only the cursor that made them can
                cursor.remove_function(name)
            cursor.close()
            self._shown.clear()
            self._writes.staging.clear()

    def forget(self) -> None:
        """Let go of the connection, at the end of the process."""
        cursor, self._cursor = self._cursor, None
        self._writes.staging.clear()
        if cursor is not None:
            cursor.close()

    def _run(self, sql: str) -> duckdb.DuckDBPyConnection:
        assert self._cursor is not None
        return self._cursor.execute(sql)

    def function(
        self,
        name: str,
        body: Callable[..., Any],
        returns: Any,
        *,
        volatile: bool,
        parameters: list[str] | None = None,
    ) -> str:
        """Register a function over Arrow columns, and return its full name.

        Args:
            name: Its name, without the attachment's prefix.
            body: Takes `ChunkedArray`s.
            returns: A DuckDB type.
            volatile: Whether it must run each time: DuckDB would keep the answer of a prepared
                statement for ever. The others are dropped where their columns are not used.
            parameters: DuckDB types; None takes arguments of any type and number.
        """
        assert self._cursor is not None
        full = f"{self.token}_{name}"
        self._cursor.create_function(
            full,
            sql_errors(body),
            parameters,
            returns,
            type="arrow",
            null_handling="special",
            side_effects=volatile,
        )
        self._functions.append(full)
        return full

    # -- what is shown

    def _refresh_from_sql(self, *_: pa.ChunkedArray) -> pa.Array:
        self.refresh()
        shown = sum(1 for _ in self._shown)
        return pa.array([f"{shown} collection{'s' if shown != 1 else ''}"])

    def refresh(self) -> None:
        """Show collections that are new, hide those that are gone, and follow changed columns."""
        with self._lock:
            names = list(dict.fromkeys(self.source.list()))
            with ThreadPoolExecutor(8) as pool:
                opened = list(pool.map(self._opened, names))
            found: dict[str, Shown] = {}
            broken: dict[str, str] = {}
            taken: set[str] = set(_TAKEN_SCHEMAS)
            for name, result in zip(names, opened, strict=True):
                if isinstance(result, VecDatasetError):
                    broken[name] = str(result)
                    continue
                known = self._shown.get(name)
                schema = known.schema if known is not None else _free(name, taken)
                taken.add(schema.lower())
                shown = known or Shown(result, schema)
                shown.collection = result
                found[name] = shown
            for name in self._shown.keys() - found.keys():
                self._hide(self._shown[name])
            first = not self._shown and not self._broken
            changed = first or found.keys() != self._shown.keys() or broken != self._broken
            self._shown, self._broken = found, broken
            for name, shown in found.items():
                self._show(name, shown)
            if changed:
                schemas = {name: shown.schema for name, shown in found.items()}
                for sql in generic_macros(
                    self.name, schemas, broken, prefix=f"{self.token}_", url=self.source.url
                ):
                    self._run(sql)

    def follow(self, name: str) -> None:
        """Show what a write of ours has changed in a collection: one look at it, and none at the others."""
        with self._lock:
            written = self._shown.get(name)
            if written is None:
                return
            url = written.collection.url
            for known, shown in self._shown.items():  # an alias is another handle of the same collection
                if shown.collection.url == url:
                    shown.collection.refresh()
                    self._show(known, shown, latest_only=True)

    def _opened(self, name: str) -> Collection | VecDatasetError:
        known = self._shown.get(name)
        try:
            if known is not None:
                try:
                    return known.collection.refresh()
                except VecDatasetError:
                    pass
            return self.source.open(name)
        except VecDatasetError as exc:
            return exc

    def _hide(self, shown: Shown) -> None:
        self._run(f"DROP SCHEMA IF EXISTS {quoted(shown.schema)} CASCADE")
        for view in shown.views:
            self._run(f"DROP VIEW IF EXISTS main.{quoted(view)}")

    def _show(self, name: str, shown: Shown, *, latest_only: bool = False) -> None:
        reader: Reader = shown.collection._read()  # noqa: SLF001
        payload = payload_schema(reader)
        signature = (
            reader.schema.id_arrow_type,
            tuple((f.name, f.type) for f in payload),
            tuple(reader.schema.vector_types.items()),
        )
        if signature != shown.signature:
            number = next(self._generation)
            id = "number" if pa.types.is_integer(reader.schema.id_arrow_type) else "label"
            rest = self._payload_function(f"payload_{number}", name, payload) if len(payload) else None
            self._run(f"CREATE SCHEMA IF NOT EXISTS {quoted(shown.schema)}")
            rows = CollectionRows(partial(self._answers.findings.newest, name), reader)
            vectors = pa.schema([f for f in rows.schema if f.name != "id" and f.name not in payload.names])
            held = self._payload_function(f"vectors_{number}", name, vectors) if len(vectors) else None
            for sql in collection_macros(
                name, shown.schema, f"{self.token}_", id=id, payload=rest, vectors=held
            ):
                self._run(sql)
            self._view(shown, _view_of(name, shown), rows)
            shown.signature = signature
        self._version_views(name, shown, reader, latest_only=latest_only)

    def _version_views(self, name: str, shown: Shown, reader: Reader, *, latest_only: bool) -> None:
        """Make views of the snapshots and of the last versions, and drop those of others.

        To list the versions is to read a file of each, so a write adds its own and looks at no other.
        """
        newest = reader.table.version
        wanted = {
            f"{name}@{tag}": number
            for tag, number in reader.table.tags().items()
            if not tag.startswith(DROPPED_TAG)
        }
        if latest_only:
            numbers = [n for view, n in shown.views.items() if n is not None and view == f"{name}@{n}"]
            numbers = sorted({*numbers, newest})
        else:
            numbers = [v.number for v in reader.table.versions() if v.number <= newest]
        wanted |= {f"{name}@{number}": number for number in numbers[-RECENT_VERSIONS:]}
        for view in [v for v, number in shown.views.items() if number is not None and v not in wanted]:
            self._run(f"DROP VIEW IF EXISTS main.{quoted(view)}")
            del shown.views[view]
        for view, number in wanted.items():
            if shown.views.get(view) == number:
                continue
            try:
                pinned = Reader(reader.table.at(number), name=name)
            except VecDatasetError:
                continue  # the version has gone, or had no columns of ours yet
            self._view(shown, view, CollectionRows(lambda pinned=pinned: pinned, pinned))
            shown.views[view] = number

    def _view(self, shown: Shown, view: str, found: CollectionRows) -> None:
        """Make a view over Arrow: it holds the object, so that it is there for every cursor."""
        assert self._cursor is not None
        rows = scannable(found)
        self._cursor.sql(f"SELECT {select_list(found.schema)} FROM rows").create_view(view, replace=True)
        shown.views[view] = None
        del rows

    def _payload_function(self, name: str, collection: str, gives: pa.Schema) -> str:
        kinds = dict(zip(gives.names, self._duckdb_types(gives), strict=True))
        body = partial(self._answers.payload, collection, gives)
        returns = duckdb.struct_type(kinds)
        return self.function(name, body, returns, volatile=False, parameters=["UBIGINT", "UBIGINT"])

    def _duckdb_types(self, schema: pa.Schema) -> list[Any]:
        assert self._cursor is not None
        return list(self._cursor.from_arrow(schema.empty_table()).types)


def _view_of(name: str, shown: Shown) -> str:
    return name if name.lower() in _TAKEN_SCHEMAS else shown.schema


def _free(name: str, taken: set[str]) -> str:
    schema, number = name, 2
    while schema.lower() in taken:
        schema, number = f"{name}_{number}", number + 1
    return schema
