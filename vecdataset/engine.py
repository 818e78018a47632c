"""The one file that speaks Lance: open, scan, search, commit, tag, clean up.

A `Table` is one version of one Lance dataset. It never changes: reads on it see that
version from beginning to end, in any number of threads. Every write is a function on a
`Table` that commits on top of the *latest* version and returns the new one. Lance's
errors leave this file as ours.

Facts this file is built on were measured with pylance 14.0.2:

- Two writers that upsert the same new id make two rows, unless the id field is Lance's
  primary key *and* the merge does not use a scalar index; so every merge says
  `use_index(False)`. Without the index a merge also has no memory limit of its own.
- Lance's Python API spends a third of a search's time on copies of its own builder; `nearest`
  calls the binding with the builder's fields in the builder's order, and falls back to the
  public API where that order is not what it was.
- Small commits leave small fragments, and reads slow down with their number; `tidy` merges
  them in tiers, so that each row is rewritten once for every 32-fold growth.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

# Lance logs warnings of its own working to standard error; its errors reach the user as ours.
os.environ.setdefault("LANCE_LOG", "error")

import lance
import numpy as np
import pyarrow as pa
from lance.commit import CommitConflictError as LanceConflictError
from lance.dataset import ColumnOrdering, ScannerBuilder, serialize_row_addrs
from lance.file import LanceFileSession
from lance.query import CombinedFieldsQuery, FullTextOperator, MatchQuery, PhraseQuery
from lance.schema import LanceSchema

from vecdataset import ledger, storage
from vecdataset.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    CommitConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    PointExistsError,
    StorageError,
    StoragePermissionError,
    UnknownNameError,
    VecDatasetError,
    VersionGoneError,
    VersionNotFoundError,
)
from vecdataset.origins import read_origin
from vecdataset.schema import EXTRA, JSON_NUMBER, NARROWED, WIDENED, WIDENED_NUMBER, is_passing
from vecdataset.storage import Location

storage.register_lance_files(LanceFileSession)

KEEP_VERSIONS: Final = timedelta(days=7)
_VERSIONS: Final = "_versions"
_MANIFEST: Final = re.compile(r"(\d+)\.manifest")
_NEWEST_FIRST: Final = (1 << 64) - 1
"""Lance names manifests by this less the version, so that listings begin with the newest."""
SMALL_FRAGMENTS: Final = 32
_TIERS: Final = (1_024, 32_768, 1_048_576)
_CLEAN_UP_EVERY: Final = 256
HOLDS_S: Final = 300.0
"""For so long Lance uses credentials that expire before it asks for them again."""
RETRIES: Final = 40
"""How often a commit that lost a race is tried; with the pauses between, about twenty seconds."""


# -------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One committed version of a dataset."""

    number: int
    created_at: datetime
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LanceIndex:
    """One index of a dataset, as Lance lists it."""

    name: str
    kind: str
    """Lance's name, lower case: `ivf_rq`, `btree` …"""
    column: str
    fragments: frozenset[int]
    """Ids of the fragments that it covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A part of the rows that shares its files."""

    id: int
    files: tuple[str, ...]
    """Names of its data files: other values, other names."""
    deletions: str | None
    """Names what is deleted of it; None where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge did."""

    inserted: int
    updated: int
    table: Table


# ---------------------------------------------------------------------- the table


class Table:
    """One version of one Lance dataset."""

    def __init__(self, dataset: lance.LanceDataset, location: Location) -> None:
        self._ds = dataset
        self.location = location
        self.version: int = dataset.version
        self.schema: pa.Schema = dataset.schema
        self._log: lance.LanceDataset | None = None
        self._log_lock = threading.Lock()
        self._indexes: list[LanceIndex] | None = None
        self._config: dict[str, str] | None = None
        self._rows: int | None = None

    # -- facts

    @property
    def rows(self) -> int:
        """Number of rows; from the manifest, so it costs microseconds."""
        if self._rows is None:
            with _translated(self.location):
                self._rows = int(self._ds.count_rows())
        return self._rows

    @property
    def config(self) -> dict[str, str]:
        """The key-value pairs stored with this version."""
        if self._config is None:
            self._config = dict(self._ds.config())
        return self._config

    @property
    def field_ids(self) -> dict[str, int]:
        """Column to what Lance knows its data by: another column of the same name has another number."""
        return {f.name(): f.id() for f in self._ds.lance_schema.fields()}

    @property
    def indexes(self) -> list[LanceIndex]:
        """The indexes of this version."""
        if self._indexes is None:
            with _translated(self.location):
                self._indexes = [
                    LanceIndex(
                        name=i.name,
                        kind=str(i.index_type).lower(),
                        column=i.field_names[0],
                        fragments=frozenset(f for part in i.segments for f in part.fragment_ids),
                    )
                    for i in self._ds.describe_indices()
                ]
        return self._indexes

    def unindexed_rows(self, index: LanceIndex) -> int:
        """Return how many rows the index does not cover yet."""
        with _translated(self.location):
            rest = [f for f in self._ds.get_fragments() if f.fragment_id not in index.fragments]
            return sum(int(f.count_rows()) for f in rest)

    def latest_version(self) -> int:
        """Return the number of the newest version; a file name lookup, or one request on a remote store."""
        with _translated(self.location):
            return int(self._ds.latest_version)

    def versions(self) -> list[Version]:
        """Return all versions, oldest first."""
        with _translated(self.location):
            found = self._ds.versions()
        return [
            Version(
                number=int(v["version"]),
                created_at=v["timestamp"].astimezone(UTC),
                rows=int(v["metadata"].get("total_rows", 0)),
                size_bytes=int(v["metadata"].get("total_files_size", 0)),
            )
            for v in found
        ]

    def operation(self, version: int) -> str:
        """Return what Lance calls the commit that made this version, or `unknown`."""
        # pylance 14.0.2 lends the whole dataset to this one call: every other call on it, a search in
        # another thread too, fails with "Already mutably borrowed" meanwhile. So it has its own.
        try:
            with self._log_lock:
                if self._log is None:
                    self._log = self._ds.checkout_version(self.version)
                found = self._log.read_transaction(version)
        except (OSError, ValueError):
            return "unknown"
        except TypeError:
            return "rewrite"  # of an indexed dataset: pylance 14.0.2 cannot build its own RewrittenIndex
        return "unknown" if found is None else type(found.operation).__name__.lower()

    def tags(self) -> dict[str, int]:
        """Return tag names with the versions they hold; a tag whose file is damaged is left out."""
        try:
            return {name: int(tag["version"]) for name, tag in self._ds.tags.list().items()}
        except (OSError, ValueError, RuntimeError):
            # One file that does not parse hides all tags from Lance. It also stops its clean-up.
            return dict(self._tags_one_by_one())

    def _tags_one_by_one(self) -> Iterator[tuple[str, int]]:
        files = storage.files(self.location.child("_refs").child("tags"))
        for file in files.list_files(recursive=False):
            try:
                yield file.path.removesuffix(".json"), int(json.loads(files.read(file.path))["version"])
            except (ValueError, KeyError, TypeError, NotFoundError):
                continue

    def size_bytes(self) -> int:
        """Return the bytes of this version's data files."""
        current = [v for v in self.versions() if v.number == self.version]
        return current[0].size_bytes if current else 0

    # -- other versions

    def at(self, version: int) -> Table:
        """Return another version of the same dataset."""
        if version == self.version:
            return self
        try:
            with _translated(self.location, version=version):
                return Table(self._ds.checkout_version(version), self.location)
        except VersionNotFoundError as exc:
            if not 1 <= version < self.version:
                raise
            raise VersionGoneError(
                f"version {version} of {self.location.url} has been cleaned up",
                hint="versions that a snapshot holds are kept",
            ) from exc

    def latest(self) -> Table:
        """Return the newest version; this object where it is the newest."""
        number = self.latest_version()
        return self if number == self.version else self.at(number)

    # -- reads

    def scan(
        self,
        columns: Sequence[str] | None = None,
        *,
        filter: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        order_by: Sequence[tuple[str, bool]] = (),
        batch_rows: int | None = None,
        row_ids: bool = False,
        fragments: Sequence[int] | None = None,
        indexed: bool = True,
    ) -> pa.RecordBatchReader:
        """Return rows as a stream, in storage order unless ordered.

        Args:
            columns: Column names; None is all.
            filter: Lance SQL that this library has compiled.
            limit: At most so many rows.
            offset: Leave out so many rows first.
            order_by: Column and whether ascending.
            batch_rows: At most so many rows a batch.
            row_ids: Add Lance's `_rowid`.
            fragments: Only rows of the fragments with these ids.
            indexed: Whether scalar indexes are asked; without, the columns of the filter are read.
        """
        names = None if columns is None else list(columns)
        with _translated(self.location):
            if _DIRECT is not None and not order_by and fragments is None:
                source = self._directly(
                    _columns=names, _filter=filter, _limit=limit, _offset=offset, _batch_size=batch_rows,
                    _with_row_id=row_ids, _use_scalar_index=indexed,
                )  # fmt: skip
                return _Guarded(source, self.location).reader()
            scanner = self._ds.scanner(
                columns=names,
                filter=filter,
                limit=limit,
                offset=offset,
                batch_size=batch_rows,
                with_row_id=row_ids,
                order_by=[ColumnOrdering(name, ascending=up) for name, up in order_by] or None,
                fragments=None if fragments is None else [self._ds.get_fragment(i) for i in fragments],
                use_scalar_index=indexed,
            )
            return _Guarded(scanner.to_reader(), self.location).reader()

    def read(self, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        """Return rows as one table; the options of `scan`."""
        with _translated(self.location):
            return self.scan(columns, **options).read_all()

    def sample(self, columns: Sequence[str], *, runs: int, rows: int) -> pa.Table:
        """Return runs of so many rows each, spread over the dataset; all rows where they are fewer."""
        starts = np.linspace(0, max(0, self.rows - rows), runs).astype(np.int64)
        offsets = np.unique(np.add.outer(starts, np.arange(min(rows, self.rows))))
        with _translated(self.location):
            return self._ds.take(offsets.tolist(), columns=list(columns))

    def count(self, filter: str | None = None, *, indexed: bool = True) -> int:
        """Return how many rows match; `indexed` as for `scan`."""
        if filter is None:
            return self.rows
        with _translated(self.location):
            if indexed:
                return int(self._ds.count_rows(filter))
            return int(self._ds.scanner(filter=filter, use_scalar_index=False).count_rows())

    def row_ids(
        self, filter: str | None, *, fragments: Sequence[int] | None = None, indexed: bool = True
    ) -> np.ndarray:
        """Return Lance's row ids of the rows that match, as uint64; `indexed` as for `scan`."""
        table = self.read(["_rowid"], filter=filter, fragments=fragments, indexed=indexed)
        row_ids: np.ndarray = table["_rowid"].to_numpy()
        return row_ids

    def take(self, row_ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return the rows with these row ids, in their order."""
        with _translated(self.location):
            # The public take() wants offsets; only this one knows row ids.
            return self._ds._take_rows(row_ids.tolist(), columns=list(columns))  # noqa: SLF001

    def nearest(
        self,
        column: str,
        query: pa.Array,
        *,
        k: int,
        columns: Sequence[str],
        filter: str | None = None,
        allow: np.ndarray | None = None,
        probe: Mapping[str, Any],
    ) -> pa.Table:
        """Return the `k` rows nearest to `query` through the column's index.

        Args:
            column: The vector column.
            query: float32 array, or a fixed-size list array for a batch.
            k: Rows a query.
            columns: Columns to return, `_distance` among them.
            filter: Lance SQL, applied before the search.
            allow: Row ids that may be returned.
            probe: `nprobes`, `ef`, `refine_factor`, `search_effort`, `metric` … as Lance names them.
        """
        nearest = {**_NEAREST, "column": column, "q": query, "k": k, **probe}
        allowed = None if allow is None else serialize_row_addrs(allow)
        with _translated(self.location):
            if _DIRECT is None:
                return self._ds.scanner(
                    columns=list(columns),
                    filter=filter,
                    nearest={name: v for name, v in nearest.items() if v is not None},
                    prefilter=True,
                    disable_scoring_autoprojection=True,
                    row_addr_allowlist=allowed,
                ).to_table()
            return self._directly(
                _columns=list(columns), _filter=filter, _prefilter=True, _nearest=nearest,
                _disable_scoring_autoprojection=True, _row_addr_allowlist=allowed,
            ).read_all()  # fmt: skip

    def _directly(self, **fields: Any) -> pa.RecordBatchReader:
        """Scan without the builder, which copies all it was told: 0.1 ms of a call that may take one."""
        assert _DIRECT is not None
        scanner = self._ds._ds.scanner(*{**_DIRECT, **fields}.values())  # noqa: SLF001
        stream: pa.RecordBatchReader = scanner.to_pyarrow()
        return stream

    def text_search(
        self,
        columns: Mapping[str, float],
        text: str,
        *,
        every: bool = False,
        phrase: bool = False,
        slop: int = 0,
        fuzziness: int = 0,
        blend: bool = False,
        filter: str | None = None,
        allow: np.ndarray | None = None,
        limit: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return row ids and BM25 scores of the rows that hold words of `text`, best first.

        Args:
            columns: One column with an inverted index; with `blend` several, each with its weight.
            text: Words; the index cuts, folds and stems them as it did the rows.
            every: Whether all words must be there.
            phrase: Whether the words must stand side by side; the index needs positions.
            slop: Words that may stand between those of a phrase.
            fuzziness: Letters that a word may differ in; looks into the index alone.
            blend: Score with the statistics of all rows, those outside of the index too (BM25F).
            filter: Lance SQL, applied before the ranking.
            allow: Row ids that may be returned.
            limit: At most so many rows; None is all.
        """
        names, operator = list(columns), FullTextOperator.AND if every else FullTextOperator.OR
        query: Any
        if phrase:
            query = PhraseQuery(text, names[0], slop=slop)
        elif blend:
            weights = [float(w) for w in columns.values()]
            query = CombinedFieldsQuery(text, names, boosts=weights, operator=operator)
        else:
            query = MatchQuery(text, names[0], fuzziness=fuzziness, operator=operator)
        with _translated(self.location):
            found = self._ds.scanner(
                columns=["_rowid", "_score"],
                filter=filter,
                prefilter=True,
                full_text_query=query,
                limit=limit,
                disable_scoring_autoprojection=True,
                row_addr_allowlist=None if allow is None else serialize_row_addrs(allow),
            ).to_table()
        rows: np.ndarray = found["_rowid"].to_numpy()
        scores: np.ndarray = found["_score"].to_numpy().astype(np.float64)
        order = np.lexsort((rows, -scores))
        rows, scores = rows[order], scores[order]
        if blend and len(rows):
            # Lance's BM25F still finds rows of fragments that are gone (pylance 14.0.2); a row id begins
            # with its fragment's.
            fragments = [f.fragment_id for f in self._ds.get_fragments()]
            there = np.isin(rows >> np.uint64(32), np.array(fragments, np.uint64))
            if not there.all():
                if limit is not None:
                    found_all = self.text_search(
                        columns, text, every=every, blend=True, filter=filter, allow=allow
                    )
                    return found_all[0][:limit], found_all[1][:limit]
                rows, scores = rows[there], scores[there]
        return rows, scores

    def text_params(self, index: LanceIndex) -> dict[str, Any]:
        """Return how an inverted index cuts, folds and stems text, under Lance's names."""
        with _translated(self.location):
            stats = self._ds.stats.index_stats(index.name)
        parts = stats.get("indices") or [{}]
        return dict(parts[0].get("params") or {})

    # -- writes

    def merge(
        self,
        source: Callable[[Table], pa.RecordBatchReader],
        *,
        insert: bool,
        update: bool,
        based_on_reads: bool = False,
    ) -> Merged:
        """Commit a stream of rows by id, as one version.

        Args:
            source: Makes the stream for the version it will be merged into; called again after
                a conflict.
            insert: Whether ids that are not there are added.
            update: Whether ids that are there are replaced; with `insert` alone one of them is
                an error and nothing is written.
            based_on_reads: The rows were computed from this very version: a concurrent change
                of the same rows is a conflict for the caller, not something to write over.

        Raises:
            PointExistsError: `update` is False and an id is there.
            CommitConflictError: Other writers won every retry.
        """
        done: dict[str, int] = {}
        started: list[Table] = []

        def once(base: Table) -> Table:
            started[:] = [base]
            # A handle of its own: executing moves it to the new version.
            dataset = base._ds.checkout_version(base.version)
            builder = dataset.merge_insert("id").use_index(False)
            builder = builder.when_matched_update_all() if update else builder.when_matched_fail()
            if insert:
                builder = builder.when_not_matched_insert_all()
            # Lance rebases what did not touch the same rows; the rest starts over here, where the
            # schema is looked at again, and not in Lance, which would keep a copy of the stream.
            done.update(builder.conflict_retries(0).execute(source(base)))
            return Table(_reopened(dataset), self.location)

        if based_on_reads:
            with _translated(self.location):
                table = once(self)
        else:
            table = self._retried(once)
        inserted, updated = int(done["num_inserted_rows"]), int(done["num_updated_rows"])
        action = "upsert" if insert and update else "insert" if insert else "update"
        table.acknowledge(started[0], action, inserted=inserted, updated=updated)
        return Merged(inserted=inserted, updated=updated, table=table)

    def delete_ids(self, ids: pa.Array | pa.ChunkedArray) -> tuple[int, Table]:
        """Delete rows by stored id on the latest version; return how many, and the new version."""
        done: dict[str, int] = {}
        started: list[Table] = []

        def once(base: Table) -> Table:
            started[:] = [base]
            dataset = base._ds.checkout_version(base.version)
            builder = dataset.merge_insert("id").use_index(False).when_matched_delete()
            source = pa.table({"id": ids}, schema=pa.schema([base.schema.field("id")]))
            done.update(builder.conflict_retries(0).execute(source))
            return Table(_reopened(dataset), self.location)

        table = self._retried(once)
        deleted = int(done["num_deleted_rows"])
        table.acknowledge(started[0], "delete", deleted=deleted)
        return deleted, table

    def delete(self, filter: str) -> tuple[int, Table]:
        """Delete the rows that match on the latest version; return how many, and the new version."""
        base = self.latest()
        with _translated(self.location):
            dataset = base._ds.checkout_version(base.version)  # noqa: SLF001
            done = dataset.delete(filter, conflict_retries=RETRIES)
            table = Table(_reopened(dataset), self.location)
        deleted = int(done["num_deleted_rows"])
        table.acknowledge(base, "delete", deleted=deleted)
        return deleted, table

    def change(self, edit: Callable[[lance.LanceDataset], object], *, action: str = "change") -> Table:
        """Commit a change of schema, config or indexes on the latest version.

        Lance refuses such a change when it raced another; it is cheap, so it is tried again.
        """
        started: list[Table] = []

        def once(base: Table) -> Table:
            started[:] = [base]
            dataset = base._ds.checkout_version(base.version)
            edit(dataset)
            return Table(_reopened(dataset), self.location)

        table = self._retried(once)
        table.acknowledge(started[0], action)
        return table

    def acknowledge(self, base: Table | None, action: str, **counts: int) -> None:
        """Do what follows the commit that made this version: on disk for certain where asked, and on record.

        Args:
            base: The version that the commit began with; None where it made the first.
            action: What was done, for the ledger.
            counts: `inserted`, `updated`, `deleted` points.
        """
        if base is not None and base.version == self.version:
            return
        if self.location.durable and self.location.kind == "local":
            _sync(self)
        ledger.record(
            self.location,
            version=self.version,
            action=action,
            paths=lambda: self._added_since(base),
            counts=counts,
        )

    def _added_since(self, base: Table | None) -> list[str]:
        """Return the files that came with the commit that made this version.

        The transaction of a merge or delete names them in microseconds; others do not name all, and
        the files of both versions are compared: milliseconds that grow with the number of versions.
        """
        try:
            made = None if base is None else self._ds.read_transaction(self.version)
        except (OSError, ValueError, TypeError):
            made = None
        operation = lance.LanceOperation
        if (
            base is None
            or made is None
            or not isinstance(made.operation, operation.Update | operation.Delete | operation.UpdateConfig)
        ):
            needed = self.files_since(1 if base is None else base.version)
            old = set() if base is None else needed.get(base.version, set())
            return sorted(needed[self.version] - old)
        paths = [f"_transactions/{made.read_version}-{made.uuid}.txn", self.manifest_path()]
        for fragment in getattr(made.operation, "new_fragments", ()):
            paths += [f"data/{file.path}" for file in fragment.files]
        for fragment in getattr(made.operation, "updated_fragments", ()):
            before = base._ds.get_fragment(fragment.id)  # noqa: SLF001 - of this class
            have = {f.path for f in before.metadata.files} if before is not None else set()
            paths += [f"data/{file.path}" for file in fragment.files if file.path not in have]
            if fragment.deletion_file is not None:
                paths.append(_deletion_path(fragment.id, fragment.deletion_file))
        return paths

    def manifest_path(self) -> str:
        """Return the path of this version's Lance manifest."""
        newest_first = f"{_VERSIONS}/{_NEWEST_FIRST - self.version:020d}.manifest"
        if self.location.kind == "local" and not os.path.exists(f"{self.location.uri}/{newest_first}"):  # noqa: PTH110 - for each commit
            return f"{_VERSIONS}/{self.version}.manifest"  # datasets of older Lance simply count
        return newest_first

    def _retried(self, once: Callable[[Table], Table]) -> Table:
        storage.require_writable(self.location)
        for attempt in range(RETRIES):
            try:
                with _translated(self.location):
                    return once(self.latest())
            except CommitConflictError:
                if attempt == RETRIES - 1:
                    raise
                back_off(attempt)
        raise AssertionError

    def add_columns(self, fields: Sequence[pa.Field]) -> Table:
        """Add null columns, unless the latest version has them already; only metadata is written."""

        def edit(dataset: lance.LanceDataset) -> None:
            missing = [f for f in fields if f.name not in dataset.schema.names]
            if missing:
                dataset.add_columns(pa.schema(missing))

        return self.change(edit, action=f"add {', '.join(f.name for f in fields)}")

    def add_key_column(self, field: pa.Field) -> Table:
        """Add a primary key column to a dataset without rows.

        Raises:
            CommitConflictError: Another writer added one first, or wrote rows.
        """

        def once(base: Table) -> Table:
            if field.name in base.schema.names:
                return base
            # `add_columns` makes nullable columns only, and a key must not be; a Merge of no
            # fragments commits the schema alone, and conflicts with every concurrent writer.
            schema = pa.schema([*base.schema, field], metadata=base.schema.metadata)
            operation = lance.LanceOperation.Merge([], LanceSchema.from_pyarrow(schema))
            dataset = lance.LanceDataset.commit(
                base._ds.uri, operation, read_version=base.version, **_reach(self.location)
            )
            return Table(_lasting(dataset, self.location), self.location)

        table = self._retried(once)
        table.acknowledge(self, "set id type")
        return table

    @property
    def settled(self) -> bool:
        """Whether no column is on its way to another type; see `widen`."""
        return not any(map(is_passing, self.schema.names))

    def widen(self, field: pa.Field) -> Table:
        """Give a numeric column a wider type, from exactly this version.

        Lance cannot cast in place. A copy is added, which conflicts with every write since this
        version; then the two change names in one commit, so that readers see either. In between
        nobody may write rows, for they would have no value in the copy: whoever wants to calls
        `settle` first.

        Raises:
            CommitConflictError: Others wrote since this version; nothing was changed.
        """
        spare = field.name + (WIDENED_NUMBER if field.metadata else WIDENED)
        sql = {
            pa.float64(): "double", pa.float32(): "float",
            pa.int64(): "bigint", pa.uint64(): "bigint unsigned",
        }[field.type]  # fmt: skip
        with _translated(self.location):
            dataset = self._ds.checkout_version(self.version)
            dataset.add_columns({spare: f"cast({_quoted(field.name)} as {sql})"})
            added = Table(_reopened(dataset), self.location)
        added.acknowledge(self, f"widen {field.name}")
        return added.settle()

    def settle(self) -> Table:
        """Finish what `widen` began, here or in a process that did not live to finish it."""
        if self.settled:
            return self

        def edit(dataset: lance.LanceDataset) -> None:
            _drop_narrowed(dataset)
            for spare in dataset.schema.names:
                if not spare.endswith((WIDENED, WIDENED_NUMBER)):
                    continue
                name = spare.removesuffix(WIDENED_NUMBER).removesuffix(WIDENED)
                if spare.endswith(WIDENED_NUMBER):
                    dataset.update_field_metadata({spare: JSON_NUMBER})
                names = dataset.schema.names  # that commit moved the handle: others may have finished
                renamed = {name: name + NARROWED, spare: name} if spare in names else {}
                changes = [{"path": a, "name": b} for a, b in renamed.items() if a in names]
                if changes:
                    dataset.alter_columns(*changes)
            _drop_narrowed(dataset)

        return self.change(edit, action="settle columns")

    def set_config(self, values: Mapping[str, str | None]) -> Table:
        """Set keys of the config; None removes one."""

        def edit(dataset: lance.LanceDataset) -> None:
            have = dataset.config()
            gone = [k for k, v in values.items() if v is None and k in have]
            new = {k: v for k, v in values.items() if v is not None and have.get(k) != v}
            if new:
                dataset.update_config(new)
            if gone:
                dataset.delete_config_keys(gone)

        return self.change(edit, action="configure")

    def claim(self, key: str) -> Table:
        """Remove a config key that must be there: of several that try, one succeeds.

        Raises:
            CollectionExistsError: Somebody else removed it first.
        """

        def edit(dataset: lance.LanceDataset) -> None:
            if key not in dataset.config():
                raise CollectionExistsError(f"a collection exists already at {self.location.url}")
            dataset.delete_config_keys([key])

        return self.change(edit, action="claim")

    def overwrite(self, schema: pa.Schema) -> Table:
        """Commit an empty dataset of another schema on top of this one; older versions stay."""
        with _translated(self.location):
            dataset = lance.write_dataset(
                schema.empty_table(),
                self.location.uri,
                mode="overwrite",
                schema=schema,
                **_reach(self.location),
            )
            for key in list(dataset.config()):
                if key.startswith("vecdataset."):
                    dataset.delete_config_keys([key])
            table = Table(_lasting(dataset, self.location), self.location)
        table.acknowledge(self, "create")
        return table

    def restore(self, version: int) -> Table:
        """Commit an older version as the newest."""
        with _translated(self.location, version=version):
            dataset = self.latest()._ds.checkout_version(version)  # noqa: SLF001
            old = Table(_reopened(dataset), self.location)
            dataset.restore()
            table = Table(dataset, self.location)
        table.acknowledge(old, f"restore version {version}")
        return table

    def set_tag(self, name: str, version: int | None) -> None:
        """Tag a version, so that clean-up keeps it; None removes the tag."""
        storage.require_writable(self.location)
        with _translated(self.location):
            if version is None:
                self._ds.tags.delete(name)
            else:
                self._ds.tags.create(name, version)

    # -- indexes and maintenance

    def create_index(
        self,
        column: str,
        kind: str,
        *,
        name: str,
        metric: str,
        options: Mapping[str, Any],
        progress: Callable[[float], None] | None = None,
    ) -> Table:
        """Build a vector index of Lance's `kind` over a column; an older one serves until then."""
        extra = {} if progress is None else {"progress_callback": _progress(progress)}

        def edit(dataset: lance.LanceDataset) -> None:
            dataset.create_index(
                column, kind.upper(), name=name, metric=metric, replace=True, **options, **extra
            )

        return self.change(edit, action=f"create index {name}")

    def create_scalar_index(
        self, column: str, kind: str, *, name: str, options: Mapping[str, Any] | None = None
    ) -> Table:
        """Build a scalar or inverted index over a column; `options` are Lance's."""
        given = dict(options or {})
        return self.change(
            lambda dataset: dataset.create_scalar_index(
                column, kind.upper(), name=name, replace=True, **given
            ),
            action=f"create index {name}",
        )

    def drop_index(self, name: str) -> Table:
        """Remove an index; the rows stay."""
        return self.change(lambda dataset: dataset.drop_index(name), action=f"drop index {name}")

    def optimize_indexes(self, names: Sequence[str]) -> Table:
        """Bring the rows that these indexes do not cover yet into them."""
        # Never num_indices_to_merge=0: its deltas gave stale answers on scalar indexes.
        return self.change(
            lambda dataset: dataset.optimize.optimize_indices(index_names=list(names)),
            action="optimize indexes",
        )

    def compact(self, *, rows_per_fragment: int = _TIERS[-1]) -> Table:
        """Merge small fragments, and drop deleted rows where they are a fifth of their fragment."""
        return self.change(
            lambda dataset: dataset.optimize.compact_files(
                target_rows_per_fragment=rows_per_fragment,
                materialize_deletions=True,
                materialize_deletions_threshold=0.2,
            ),
            action="compact",
        )

    def tidy(self) -> Table:
        """After a commit: merge small fragments once there are 32, and clean up every 256 versions.

        Never raises: the commit before it is acknowledged, and the next one tries again.
        """
        table = self
        try:
            sizes = [f.metadata.physical_rows for f in self._ds.get_fragments()]
            for tier in _TIERS:
                if sum(s < tier for s in sizes) >= SMALL_FRAGMENTS:
                    table = self._compacted_once(tier)
                    break
            if self.version % _CLEAN_UP_EVERY == 0:
                self.clean_up()
        except (VecDatasetError, OSError, ValueError, RuntimeError):
            return self
        return table

    def _compacted_once(self, tier: int) -> Table:
        with _translated(self.location):
            dataset = self._ds.checkout_version(self.version)
            dataset.optimize.compact_files(target_rows_per_fragment=tier, materialize_deletions=False)
            table = Table(_reopened(dataset), self.location)
        table.acknowledge(self, "compact")
        return table

    def clean_up(self, *, older_than: timedelta = KEEP_VERSIONS, orphans: bool = False) -> int:
        """Remove versions older than `older_than` that no tag holds; return the bytes freed.

        Those of a working copy that are not published yet stay, whatever their age.

        Args:
            older_than: Versions, and what crashes left half written, must be older.
            orphans: Also remove files that no version names, whatever their age; a writer at work has
                some. Without it they must be seven days old.

        Raises:
            CorruptionError: A snapshot has lost its tag, so that its files would go; nothing was removed.
        """
        files = storage.files(self.location)
        sealed = storage.files(self.location.child("_snapshots")).list_files(recursive=False)
        lost = {f.path.removesuffix(".json") for f in sealed if f.path.endswith(".json")} - self.tags().keys()
        if lost:
            raise CorruptionError(
                f"snapshot {min(lost)!r} of {self.location.url} has no tag that keeps its version; "
                "nothing was cleaned up",
                hint="copy it to another place, then delete it",
            )
        with _translated(self.location):
            done = self._ds.cleanup_old_versions(
                older_than=older_than,
                retain_versions=self._unpublished(),
                error_if_tagged_old_versions=False,
                delete_unverified=orphans,
            )
            ledger.trim(self.location, [int(v["version"]) for v in self._ds.versions()])
        swept = files.sweep(timedelta(0) if orphans else max(older_than, KEEP_VERSIONS))
        return int(done.bytes_removed) + swept

    def _unpublished(self) -> int | None:
        """Return how many versions a working copy must keep: that of its origin, and what follows."""
        origin = read_origin(self.location)
        return None if origin is None else max(1, self.latest_version() - origin.version + 1)

    def files(self) -> list[str]:
        """Return the paths of all files that this version needs, relative to the dataset."""
        return sorted(self.files_since(self.version)[self.version])

    def files_since(self, version: int) -> dict[int, set[str]]:
        """Return the paths of all files that each version needs, from `version` to this one."""
        needed: dict[int, set[str]] = {}
        with _translated(self.location):
            for batch in self._ds.tracked_files(min_version=version):
                rows = zip(batch["version"].to_pylist(), batch["path"].to_pylist(), strict=True)
                for number, path in rows:
                    if number <= self.version:
                        needed.setdefault(number, set()).add(path)
        return needed

    def fragment_list(self) -> list[Fragment]:
        """Return the fragments in storage order; from the manifest, so it costs microseconds each."""
        out = []
        for f in self._ds.get_fragments():
            deletions = f.metadata.deletion_file
            out.append(
                Fragment(
                    id=f.fragment_id,
                    files=tuple(file.path for file in f.metadata.files),
                    deletions=None if deletions is None else f"{deletions.read_version}-{deletions.id}",
                )
            )
        return out

    @property
    def fragments(self) -> int:
        """How many fragments the rows stand in."""
        return len(self._ds.get_fragments())

    @property
    def dataset(self) -> lance.LanceDataset:
        """The Lance dataset itself, at this version: for `to_lance()`."""
        return self._ds

    def alter(self, changes: Sequence[Mapping[str, Any]], metadata: Mapping[str, Mapping[str, str]]) -> Table:
        """Rename columns, change their nullability or type, and set field metadata (for `adopt`)."""

        def edit(dataset: lance.LanceDataset) -> None:
            for change in changes:
                dataset.alter_columns(dict(change))
            if metadata:
                dataset.update_field_metadata({k: dict(v) for k, v in metadata.items()})

        return self.change(edit, action="adopt")

    def set_schema_metadata(self, metadata: Mapping[bytes, bytes]) -> Table:
        """Add keys to the schema metadata."""
        values = {k.decode(): v.decode() for k, v in metadata.items()}
        return self.change(lambda dataset: dataset.update_schema_metadata(values), action="adopt")


def back_off(attempt: int) -> None:
    """Wait a random time, longer from try to try, so that two writers do not meet again."""
    time.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 7)))  # noqa: S311


def _reopened(dataset: lance.LanceDataset) -> lance.LanceDataset:
    # A pinned copy of where the write left its handle: nobody else moves it.
    return dataset.checkout_version(dataset.version)


def _deletion_path(fragment: int, deletions: Any) -> str:
    ending = "bin" if deletions.file_type == "bitmap" else "arrow"
    return f"_deletions/{fragment}-{deletions.read_version}-{deletions.id}.{ending}"


_synced: Final[dict[str, set[str]]] = {}
"""Files that this process has seen on disk for certain, by location."""


def _sync(table: Table) -> None:
    """Have every file that a version needs on disk, whoever wrote it, before the commit is acknowledged."""
    files = set(table.files())
    known = _synced.get(table.location.uri, set())
    storage.files(table.location).sync(sorted(files - known))
    _synced[table.location.uri] = files


def _drop_narrowed(dataset: lance.LanceDataset) -> None:
    old = [name for name in dataset.schema.names if name.endswith(NARROWED)]
    if old:
        dataset.drop_columns(old)


def _quoted(name: str) -> str:
    return f"`{name}`"


_STAGES: Final = {
    "train_ivf": (0.0, 0.2), "train_quantizer": (0.2, 0.1),
    "shuffle": (0.3, 0.2), "merge_partitions": (0.5, 0.5),
}  # fmt: skip
"""Where each stage of an index build begins, and its share of the whole, about."""


def _progress(report: Callable[[float], None]) -> Callable[[Any], None]:
    reached = 0.0

    def callback(step: Any) -> None:
        nonlocal reached
        begin, share = _STAGES.get(getattr(step, "stage", ""), (0.0, 0.0))
        done, total = getattr(step, "completed", None), getattr(step, "total", None)
        part = 1.0 if getattr(step, "event", "") == "complete" else done / total if done and total else 0.0
        reached = max(reached, begin + share * min(1.0, part))
        report(reached)

    return callback


class _Guarded:
    """A stream whose errors are translated while it is read."""

    def __init__(self, source: pa.RecordBatchReader, location: Location) -> None:
        self._source = source
        self._location = location

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._source.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with _translated(self._location):
            yield from self._source


# ------------------------------------------------------------------ open and create


def open_table(location: Location, *, version: int | None = None) -> Table:
    """Open the dataset at a location.

    Raises:
        CollectionNotFoundError: Nothing is there.
        InvalidInputError: Something else is there.
        VersionNotFoundError: The dataset has no such version.
    """
    storage.check_reachable(location)
    with _translated(location, version=version):
        return Table(_opened(location, version), location)


def _opened(location: Location, version: int | None) -> lance.LanceDataset:
    if location.renew is None:
        return lance.dataset(location.uri, version=version, **_reach(location))
    return lance.dataset(version=version, namespace_client=_vending(location), table_id=[location.name])


def _reach(location: Location) -> dict[str, Any]:
    """Return how Lance gets to a location now, for a single call."""
    return {"storage_options": location.current() or None}


def _lasting(dataset: lance.LanceDataset, location: Location) -> lance.LanceDataset:
    """Return a dataset whose credentials are renewed: what a commit returns has those of the commit."""
    return dataset if location.renew is None else _opened(location, dataset.version)


def _vending(location: Location) -> Any:
    """Return a namespace of one table, from which Lance has credentials that hold now.

    Lance asks for them a minute before those that it has are over (pylance 14.0.2), in any thread.
    botocore's own hold for ten minutes when it hands them out, so that a shorter time can be promised.
    """
    # Not above: this import takes as long as that of all of Lance.
    from lance.namespace import DescribeTableResponse, LanceNamespace

    class Vending(LanceNamespace):  # type: ignore[misc]  # Lance has no types
        def namespace_id(self) -> str:
            return "vecdataset"

        def describe_table(self, request: object) -> Any:
            del request  # there is one table
            until = int((time.time() + HOLDS_S) * 1000)
            options = location.current() | {"expires_at_millis": str(until)}
            return DescribeTableResponse(location=location.uri, storage_options=options)

    return Vending()


def manifests(location: Location) -> dict[int, str]:
    """Return the paths of the Lance manifests at a location by version, newest first; opens none."""
    found: dict[int, str] = {}
    for file in storage.files(location.child(_VERSIONS)).list_files(recursive=False):
        name = _MANIFEST.fullmatch(file.path)
        if name is not None:
            number = int(name[1])
            # Twenty digits count down from the newest; older datasets simply count.
            version = _NEWEST_FIRST - number if len(name[1]) == 20 else number
            found[version] = f"{_VERSIONS}/{file.path}"
    return dict(sorted(found.items(), reverse=True))


def create_table(location: Location, schema: pa.Schema) -> Table:
    """Create an empty dataset.

    Raises:
        CollectionExistsError: Something is there already.
    """
    storage.check_reachable(location)
    storage.require_writable(location)
    # Not `write_dataset(mode="create")`: of two that race it lets the second overwrite the first
    # (6 of 40 races). A commit without retries makes version 1 or fails.
    operation = lance.LanceOperation.Overwrite(LanceSchema.from_pyarrow(schema), [])
    try:
        with _translated(location):
            dataset = lance.LanceDataset.commit(
                location.uri,
                operation,
                max_retries=0,
                enable_v2_manifest_paths=True,
                **_reach(location),
            )
            dataset = _lasting(dataset, location)
    except (CollectionNotFoundError, CommitConflictError) as exc:
        # Where a dataset stands, Lance looks for the version before the first.
        raise CollectionExistsError(f"a collection exists already at {location.url}") from exc
    table = Table(dataset, location)
    table.acknowledge(None, "create")
    return table


def private_table(rows: pa.RecordBatchReader, folder: str) -> Table:
    """Write a stream into a dataset of nobody else's, in a local folder that the caller removes."""
    location = storage.resolve(folder)
    with _translated(location):
        return Table(lance.write_dataset(rows, location.uri, mode="create"), location)


def drop_table(location: Location) -> None:
    """Delete every file of the dataset at a location, for good."""
    storage.check_reachable(location)
    ledger.settle(location)
    with _translated(location):
        lance.LanceDataset.drop(location.uri, **_reach(location))


# -------------------------------------------------------------------------- errors

_EXISTING_ID: Final = re.compile(r"found matching row with key values: id = (.+?), /")
_CONFLICT: Final = (
    "Too many concurrent writers",
    "ommit conflict",
    "ncompatible transaction",
    "preempted by",
)
_PLACE: Final = re.compile(r",? (?:location: )?/\S+\.rs:\d+:\d+")


@contextmanager
def _translated(location: Location, *, version: int | None = None) -> Iterator[None]:
    """Turn what Lance raises into the tree of `errors.py`."""
    try:
        yield
    except VecDatasetError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as exc:
        meant = _error(exc, location, version)
        raise meant from (meant.__cause__ or exc)  # the bridge knows the filesystem's own exception
    except BaseException as exc:
        if type(exc).__name__ == "PanicException":
            raise CorruptionError(f"Lance stopped while working on {location.url}: {exc}") from exc
        raise


def _error(exc: Exception, location: Location, version: int | None) -> VecDatasetError:
    text = _PLACE.sub("", str(exc))
    url = location.url
    existing = _EXISTING_ID.search(str(exc))
    if existing:
        return PointExistsError(
            f"id {existing[1]} exists already in {url}", hint="nothing was written; upsert replaces points"
        )
    if isinstance(exc, LanceConflictError) or any(mark in text for mark in _CONFLICT):
        return CommitConflictError(
            f"other writers kept changing {url}", hint="nothing was written; try again"
        )
    if version is not None and ("not found" in text.lower() or "does not exist" in text.lower()):
        return VersionNotFoundError(f"{url} has no version {version}")
    if "Invalid range 0..0" in text:
        return CorruptionError(
            f"a file of {url} is empty, as after a power failure", hint="an older version may still open"
        )
    if "No space left" in text or "StorageFull" in text:
        return StorageError(f"no space is left for {url}", hint="nothing was committed")
    from_store = storage.translate_storage_error(exc, location)
    if from_store is not None:
        return from_store
    if "was not found" in text and "Dataset at path" in text:
        return CollectionNotFoundError(f"no collection at {url}")
    if "already exists" in text:
        return CollectionExistsError(f"a collection exists already at {url}")
    if "Permission denied" in text or "Read-only file system" in text:
        return StoragePermissionError(f"{url} cannot be read or written with these permissions")
    if "Not found" in text or "NotFound" in text:
        return VersionGoneError(
            f"a file of {url} is gone",
            hint="the version was cleaned up, or files were removed; open the collection again",
        )
    if isinstance(exc, OSError):
        return StorageError(f"{url}: {text}")
    if isinstance(exc, KeyError):
        return UnknownNameError(f"{url}: {text}")
    return InvalidInputError(f"{url}: {text}")


# ------------------------------------------------------------- the direct call

_NEAREST: Final[dict[str, Any]] = {
    "column": None, "q": None, "k": None, "metric": None, "nprobes": None,
    "minimum_nprobes": None, "maximum_nprobes": None, "refine_factor": None, "use_index": True,
    "ef": None, "query_parallelism": 0, "approx_mode": "normal", "search_effort": None,
    "distance_range": None,
}  # fmt: skip


def _direct_fields() -> dict[str, Any] | None:
    """Return the builder's fields with their defaults, in the order the binding takes them.

    The order is read from the code of `ScannerBuilder.to_scanner`: the names it touches between
    `scanner` and `LanceScanner`. None when it does not look as it did in pylance 14.
    """

    class _Nothing:
        _default_scan_options: Mapping[str, Any] | None = None
        _ds = None

    try:
        names = ScannerBuilder.to_scanner.__code__.co_names
        order = names[names.index("scanner") + 1 : names.index("LanceScanner")]
        defaults = vars(ScannerBuilder(_Nothing()))
    except (AttributeError, TypeError, ValueError, KeyError):
        return None
    known = {
        "_columns", "_filter", "_prefilter", "_nearest", "_row_addr_allowlist", "_limit", "_offset",
        "_batch_size", "_with_row_id", "_use_scalar_index", "_disable_scoring_autoprojection",
    }  # fmt: skip
    if len(order) != 34 or not known <= set(order) or not set(order) <= set(defaults):
        return None
    return {name: defaults[name] for name in order}


_DIRECT: Final = _direct_fields()

__all__ = [
    "EXTRA",
    "KEEP_VERSIONS",
    "RETRIES",
    "LanceIndex",
    "Merged",
    "Table",
    "Version",
    "back_off",
    "create_table",
    "drop_table",
    "open_table",
    "private_table",
]
