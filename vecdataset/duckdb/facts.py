"""What SQL can ask about collections: counts, versions, indexes, plans, and filters as predicates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa

from vecdataset.collection import Collection
from vecdataset.duckdb.arguments import (
    filter_of,
    frozen,
    json_of,
    limit_of,
    params_of,
    values,
)
from vecdataset.duckdb.findings import Findings, statement_of
from vecdataset.duckdb.macros import STATEMENT
from vecdataset.duckdb.questions import texts
from vecdataset.filters import Filter
from vecdataset.grouping import facet
from vecdataset.ids import Id
from vecdataset.snapshots import Verification
from vecdataset.sparse import SparseVector

_TYPES: Final = {
    "VARCHAR": pa.string(),
    "VARCHAR[]": pa.list_(pa.string()),
    "BOOLEAN": pa.bool_(),
    "BIGINT": pa.int64(),
    "UBIGINT": pa.uint64(),
    "TIMESTAMP": pa.timestamp("us"),  # in UTC: with a zone, Python would need the package pytz to read it
}
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "collections": {
        "name": "VARCHAR",
        "points": "BIGINT",
        "version": "BIGINT",
        "id_type": "VARCHAR",
        "vectors": "VARCHAR",
        "url": "VARCHAR",
        "error": "VARCHAR",
    },
    "versions": {
        "version": "BIGINT",
        "created_at": "TIMESTAMP",
        "operation": "VARCHAR",
        "rows": "BIGINT",
        "inserted": "BIGINT",
        "updated": "BIGINT",
        "deleted": "BIGINT",
        "size_bytes": "BIGINT",
        "tool": "VARCHAR",
        "user": "VARCHAR",
        "note": "VARCHAR",
        "snapshots": "VARCHAR[]",
    },
    "snapshots": {
        "name": "VARCHAR",
        "version": "BIGINT",
        "rows": "BIGINT",
        "size_bytes": "BIGINT",
        "created_at": "TIMESTAMP",
        "note": "VARCHAR",
        "state": "VARCHAR",
    },
    "verify": {
        "name": "VARCHAR",
        "version": "BIGINT",
        "ok": "BOOLEAN",
        "files": "BIGINT",
        "size_bytes": "BIGINT",
        "missing": "VARCHAR[]",
        "truncated": "VARCHAR[]",
        "changed": "VARCHAR[]",
        "problems": "VARCHAR[]",
    },
    "facet": {"value": "VARCHAR", "count": "BIGINT"},
    "diff": {"change": "VARCHAR", "number": "UBIGINT", "label": "VARCHAR", "column": "VARCHAR"},
    "indexes": {
        "name": "VARCHAR",
        "kind": "VARCHAR",
        "on": "VARCHAR",
        "rows": "BIGINT",
        "unindexed_rows": "BIGINT",
        "params": "VARCHAR",
    },
}
"""The columns of each listing, with their DuckDB types."""


def duckdb_type(listing: str) -> str:
    """Return the DuckDB type of a listing: a list of structs."""
    return "STRUCT(" + ", ".join(f'"{n}" {t}' for n, t in COLUMNS[listing].items()) + ")[]"


def _arrow(listing: str, rows: list[list[dict[str, Any]]]) -> pa.Array:
    fields = [(name, _TYPES[kind]) for name, kind in COLUMNS[listing].items()]
    return pa.array(rows, pa.list_(pa.struct(fields)))


class Facts:
    """The functions behind the listings, `vec.count`, `vec.explain` and `vec.matches`."""

    def __init__(
        self,
        collection: Callable[[str], Collection],
        names: Callable[[], Mapping[str, str | None]],
        findings: Findings,
    ) -> None:
        """Take what there is.

        Args:
            collection: Finds a collection.
            names: Lists them, with the reason why one does not open.
            findings: Knows the versions that statements see.
        """
        self._collection = collection
        self._names = names
        self._findings = findings

    def count(
        self, collection: pa.ChunkedArray, filter: pa.ChunkedArray, *statement: pa.ChunkedArray
    ) -> pa.Array:
        """Return how many points match."""
        asking = statement_of(*statement)
        known: dict[tuple[str, Any], int] = {}
        out = []
        for name, condition in zip(values(collection), map(frozen, values(filter)), strict=True):
            if (name, condition) not in known:
                text = condition if condition is None else str(condition)
                reader = self._findings.reader(name, asking)
                known[name, condition] = reader.count(reader.select(filter_of(text)))
            out.append(known[name, condition])
        return pa.array(out, pa.int64())

    def facet(
        self,
        collection: pa.ChunkedArray,
        key: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        *statement: pa.ChunkedArray,
    ) -> pa.Array:
        """Return the values of payload keys, as text, with how many points hold each."""
        out: list[list[dict[str, Any]]] = []
        asking = statement_of(*statement)
        for name, path, limit, condition in zip(*map(values, (collection, key, k, filter)), strict=True):
            if path is None:
                out.append([])
                continue
            reader = self._findings.reader(name, asking)
            found = facet(reader, path, filter=filter_of(condition), limit=limit_of(limit)).to_pylist()
            shown = texts([row["value"] for row in found])
            out.append([{"value": v, "count": row["count"]} for v, row in zip(shown, found, strict=True)])
        return _arrow("facet", out)

    def collections(self, once: pa.ChunkedArray) -> pa.Array:
        """Return the collections."""
        rows: list[dict[str, Any]] = []
        for name, error in sorted(self._names().items()):
            if error is not None:
                rows.append({"name": name, "error": error})
                continue
            found = self._collection(name)
            schema = found.schema
            rows.append({
                "name": name,
                "points": len(found),
                "version": found.version,
                "id_type": schema.id_type,
                "vectors": json.dumps(
                    {n or "vector": p.to_json() for n, p in schema.vectors.items()}
                    | {n: {"sparse": True, "modifier": p.modifier} for n, p in schema.sparse.items()}
                ),
                "url": found.url,
            })  # fmt: skip
        return _arrow("collections", [rows] * len(once))

    def versions(self, collection: pa.ChunkedArray) -> pa.Array:
        """Return the versions: what was done, when, by whom, and the snapshots that hold them."""
        out = []
        for name in values(collection):
            rows = self._collection(name).versions().to_arrow().to_pylist()
            out.append([row | {"created_at": row["created_at"].replace(tzinfo=None)} for row in rows])
        return _arrow("versions", out)

    def snapshots(self, collection: pa.ChunkedArray) -> pa.Array:
        """Return the snapshots, newest first."""
        names = COLUMNS["snapshots"]
        out = []
        for name in values(collection):
            rows = self._collection(name).snapshots.list().to_arrow().to_pylist()
            shown = [{key: row.get(key) for key in names} for row in rows]
            for row in shown:
                row["created_at"] = row["created_at"] and row["created_at"].replace(tzinfo=None)
            out.append(shown)
        return _arrow("snapshots", out)

    def verify(self, collection: pa.ChunkedArray, name: pa.ChunkedArray, deep: pa.ChunkedArray) -> pa.Array:
        """Return what the verification of one snapshot, or of all, has found."""
        out = []
        for which, snapshot, deeply in zip(*map(values, (collection, name, deep)), strict=True):
            found = self._collection(which).snapshots.verify(snapshot, deep=bool(deeply))
            reports = [found] if isinstance(found, Verification) else found
            out.append([
                {
                    "name": r.snapshot, "version": r.version, "ok": r.ok, "files": r.files,
                    "size_bytes": r.size_bytes, "missing": r.missing, "truncated": r.truncated,
                    "changed": r.changed, "problems": r.problems,
                }
                for r in reports
            ])  # fmt: skip
        return _arrow("verify", out)

    def diff(
        self,
        collection: pa.ChunkedArray,
        old: pa.ChunkedArray,
        new: pa.ChunkedArray,
        *_: pa.ChunkedArray,
    ) -> pa.Array:
        """Return the points and columns that differ between two snapshots or versions."""
        out: list[list[dict[str, Any]]] = []
        for name, a, b in zip(*map(values, (collection, old, new)), strict=True):
            if a is None:
                out.append([])
                continue
            found = self._collection(name).snapshots.diff(a, b)
            rows: list[dict[str, Any]] = [
                {"change": change, "number" if isinstance(id, int) else "label": id}
                for change in ("added", "changed", "removed")
                for id in getattr(found, change)
            ]
            rows += [{"change": "column added", "column": c} for c in found.columns_added]
            rows += [{"change": "column removed", "column": c} for c in found.columns_removed]
            out.append(rows)
        return _arrow("diff", out)

    def indexes(self, collection: pa.ChunkedArray) -> pa.Array:
        """Return the indexes."""
        return _arrow(
            "indexes",
            [
                [
                    {
                        "name": i.name,
                        "kind": i.kind,
                        "on": i.on,
                        "rows": i.rows,
                        "unindexed_rows": i.unindexed_rows,
                        "params": json.dumps(dict(i.params)),
                    }
                    for i in self._collection(name).indexes
                ]
                for name in values(collection)
            ],
        )

    def explain(
        self,
        collection: pa.ChunkedArray,
        query: pa.ChunkedArray,
        k: pa.ChunkedArray,
        filter: pa.ChunkedArray,
        using: pa.ChunkedArray,
        params: pa.ChunkedArray,
        exact: pa.ChunkedArray,
    ) -> pa.Array:
        """Return how a search would run, by running it; a number or text is the id of a point."""
        out = []
        columns = map(values, (collection, query, k, filter, using, params, exact))
        for name, vector, limit, condition, vector_name, options, exactly in zip(*columns, strict=True):
            asked: Any = vector
            if isinstance(vector, dict):
                asked = SparseVector.parse(vector)
            elif not isinstance(vector, list):
                asked = Id(vector)
            found = self._collection(name).search(
                asked,
                limit=limit_of(limit),
                filter=filter_of(condition),
                using=vector_name,
                params=params_of(options),
                exact=bool(exactly),
                columns=[],
                explain=True,
            )
            out.append(str(found.plan) if not isinstance(found.plan, dict) else json.dumps(found.plan))
        return pa.array(out, pa.string())

    @staticmethod
    def matches(filter: pa.ChunkedArray, payload: pa.ChunkedArray) -> pa.Array:
        """Return whether payloads, as JSON text or structs, pass a filter; NULL where one is NULL."""
        known: dict[Any, Filter] = {}
        out: list[bool | None] = []
        for condition, given in zip(map(frozen, values(filter)), values(payload), strict=True):
            if condition is None or given is None:
                out.append(None)
                continue
            if condition not in known:
                known[condition] = Filter.parse(filter_of(str(condition)))
            point = json_of(given, what="payload")
            out.append(known[condition].matches({"id": point.get("id"), "payload": point}))
        return pa.array(out, pa.bool_())


MACROS: Final = (
    f"CREATE MACRO count(collection, filter := NULL) AS {{prefix}}count(collection, filter, {STATEMENT})",
    "CREATE MACRO matches(filter, payload) AS {prefix}matches(filter, payload)",
    "CREATE MACRO collections() AS TABLE SELECT unnest({prefix}collections(1), max_depth := 2)",
    "CREATE MACRO versions(collection) AS TABLE SELECT unnest({prefix}versions(collection), max_depth := 2)",
    (
        "CREATE MACRO snapshots(collection) AS TABLE "
        "SELECT unnest({prefix}snapshots(collection), max_depth := 2)"
    ),
    (
        "CREATE MACRO verify(collection, name := NULL, deep := false) AS TABLE "
        "SELECT unnest({prefix}verify(collection, name, deep), max_depth := 2)"
    ),
    "CREATE MACRO indexes(collection) AS TABLE SELECT unnest({prefix}indexes(collection), max_depth := 2)",
    (
        'CREATE MACRO explain(collection, query, k := 10, filter := NULL, "using" := NULL, params := NULL, '
        "exact := false) AS TABLE SELECT unnest(string_split("
        '{prefix}explain(collection, query, k, filter, "using", params, exact), chr(10))) AS plan'
    ),
)
"""`{prefix}` is what the names of an attachment's functions begin with."""
