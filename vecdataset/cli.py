"""The shell: `vecdataset`, each command a few lines over the library; `shell.py` has what they share."""


# ruff: noqa: D301 - click reads the backspace in a docstring as "do not wrap this"
# ruff: noqa: FBT001 - click passes flags by name

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

import vecdataset.cli_snapshots  # noqa: F401  its commands join the group
from vecdataset.shell import (
    as_json_of,
    at_option,
    bar,
    catalog_of,
    distance_option,
    emit,
    emit_table,
    filter_of,
    format_option,
    from_option,
    id_option,
    id_type_option,
    is_server,
    json_flag,
    json_of,
    line_of,
    main,
    names_of,
    note_option,
    numbers,
    open_at,
    options_of,
    reading_option,
    rows_target,
    source_option,
    storage_option,
    target_option,
    tell,
    values_of,
    vector_params,
)

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog
    from vecdataset.collection import Collection

__all__ = ["main"]

# ----------------------------------------------------------------------------- commands


@main.command()
@click.option("--dir", "folder", metavar="PATH", help="Where to work; else a temporary folder.")
@click.option("--keep", is_flag=True, help="Leave the collection there.")
def demo(folder: str | None, keep: bool) -> None:
    """Show the whole story on 2,000 real packages, in some seconds.

    \b
    Example:
      $ vecdataset demo --dir ./demo --keep
    """
    from vecdataset.demo import run

    run(folder, keep=keep)


@main.command()
@click.argument("url")
@click.option("--size", type=click.IntRange(1), help="Dimensions of the only vector.")
@distance_option
@click.option("--datatype", type=click.Choice(["float32", "float16", "uint8", "int8"]), default="float32")
@click.option(
    "--vector", "named", multiple=True, callback=vector_params, metavar="NAME:SIZE[:DISTANCE[:DATATYPE]]",
    help="A named vector; repeatable.",
)  # fmt: skip
@click.option("--sparse", multiple=True, metavar="NAME[:idf]", help="A sparse vector; repeatable.")
@id_type_option
@click.option("--exist-ok", is_flag=True, help="Accept one that is there with the same vectors.")
@storage_option
@json_flag
def create(
    url: str, size: int | None, distance: str | None, datatype: str, named: dict[str, Any],
    sparse: Sequence[str], id_type: str | None, exist_ok: bool, storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Make an empty collection.

    \b
    Example:
      $ vecdataset create ./books --size 384 --distance Cosine
      $ vecdataset create ./shop --vector text:384 --vector image:512:Dot:float16
    """
    import vecdataset as vd

    if (size is not None) + bool(named or sparse) != 1:
        raise click.UsageError("give --size, or --vector and --sparse for each named vector")
    one = {} if size is None else {"": {"size": size, "distance": distance or "Cosine", "datatype": datatype}}
    vectors = {name: vd.VectorParams(**spec) for name, spec in (one or named).items()}
    extra = {n: vd.SparseVectorParams(m or None) for n, _, m in (text.partition(":") for text in sparse)}  # type: ignore[arg-type]  # checked there
    made = vd.create(
        url, vectors=vectors, sparse=extra, id_type=id_type, exist_ok=exist_ok, storage_options=storage
    )
    tell(f"made {made.url}", {"url": made.url, "version": made.version}, as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--id", "id_column", required=True, metavar="COLUMN", help="The column of the ids.")
@click.option(
    "--vector", "columns", multiple=True, metavar="COLUMN[:DISTANCE]",
    help="A column of vectors; repeatable. Else every fixed-size list of floats, with Cosine.",
)  # fmt: skip
@storage_option
@json_flag
def adopt(
    url: str, id_column: str, columns: Sequence[str], storage: dict[str, Any], as_json: bool
) -> None:  # fmt: skip
    """Make a Lance dataset that exists a collection, in place.

    \b
    Example:
      $ vecdataset adopt ./table.lance --id key --vector embedding:Dot
    """
    import vecdataset as vd

    named = {c: d or None for c, _, d in (text.partition(":") for text in columns)} or None
    made = vd.adopt(url, id=id_column, vectors=named, storage_options=storage)  # type: ignore[arg-type]  # None: the default
    tell(str(made.info()), {"url": made.url, "points": len(made)}, as_json=as_json)


@main.command()
@click.argument("root", default=".")
@click.option("--dropped", is_flag=True, help="List the dropped ones, which undrop brings back.")
@click.option("--snapshots", is_flag=True, help="List files of Qdrant snapshots instead, newest first.")
@storage_option
@json_flag
def ls(
    root: str, dropped: bool, snapshots: bool, storage: dict[str, Any], as_json: bool
) -> None:  # fmt: skip
    """List the collections beneath ROOT, or of a Qdrant server.

    \b
    Example:
      $ vecdataset ls s3://lake
      $ vecdataset ls s3://bucket/qdrant --snapshots
      $ vecdataset ls qdrant://localhost:6333
    """
    if snapshots or is_server(root):
        rows = _snapshot_files(root, storage) if snapshots else _on_server(root, storage)
        emit(rows, as_json=as_json)
        return
    from vecdataset.catalog import Catalog

    catalog = Catalog(root, storage_options=storage)
    names = catalog.list(dropped=dropped)
    aliases = {} if dropped else catalog.aliases()
    found = ({"name": n} if dropped else _summary(catalog, n, aliases) for n in names)
    emit(found, as_json=as_json)


def _snapshot_files(root: str, storage: Mapping[str, Any]) -> list[dict[str, Any]]:
    from vecdataset.formats.qdrant.shelf import snapshot_files

    return [asdict(f) for f in snapshot_files(root, options=storage)]


def _on_server(url: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    from vecdataset.formats.qdrant.live import overview

    return overview(url, options=options)


def _summary(catalog: Catalog, name: str, aliases: Mapping[str, str]) -> dict[str, Any]:
    from vecdataset.errors import VecDatasetError

    row: dict[str, Any] = {"name": name, "points": None, "vectors": None, "version": None}
    try:
        found = catalog.open(name)
        row |= {"points": len(found), "version": found.version}
    except VecDatasetError as error:  # one that is damaged does not hide the others
        return row | {"error": str(error)}
    vectors: dict[str, Any] = {n or "vector": p.size for n, p in found.schema.vectors.items()}
    row["vectors"] = vectors | dict.fromkeys(found.schema.sparse, "sparse")
    named = sorted(a for a, target in aliases.items() if target == name)
    return row | ({"aliases": named} if named else {})


@main.command()
@click.argument("url")
@at_option
@storage_option
@json_flag
def info(url: str, at: str | None, storage: dict[str, Any], as_json: bool) -> None:
    """Show points, vectors, payload, indexes and versions.

    \b
    Example:
      $ vecdataset info s3://lake/books --storage-option anon=true
    """
    found = open_at(url, storage, at).info()
    tell(str(found), found.to_dict(), as_json=as_json)


@main.command("import")
@click.argument("source")
@click.argument("url")
@format_option
@from_option
@id_option
@distance_option
@id_type_option
@source_option
@reading_option
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Load all of a full-storage snapshot, or of a folder of them; URL is where they go.",
)
@note_option
@storage_option
@json_flag
def import_(
    source: str, url: str, format: str | None, vectors_from: Any, id_column: str, distance: str | None,
    id_type: str | None, source_options: dict[str, Any], reading: dict[str, Any], everything: bool,
    note: str, storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Upsert a file (or `-`) into a collection, made if it is not there.

    \b
    Example:
      $ vecdataset import books.parquet s3://lake/books --vectors-from embedding
      $ cat points.jsonl | vecdataset import - ./books
      $ vecdataset import s3://backups/books.snapshot s3://lake/books
      $ vecdataset import full.snapshot s3://lake --all
    """
    import vecdataset as vd
    from vecdataset.ledger import noted

    common = {"format": format, "storage_options": storage, "source_options": source_options, **reading}
    with bar("import") as progress, noted(note):
        if everything:
            catalog = vd.load_all(source, url, progress=progress, **common)
            emit(({"name": n, "points": len(catalog.open(n))} for n in catalog.list()), as_json=as_json)
            return
        made = vd.load(
            source, url, progress=progress, vectors_from=vectors_from, id=id_column, distance=distance,
            id_type=id_type, **common,
        )  # fmt: skip
    data = {"url": made.url, "points": len(made), "version": made.version}
    tell(f"{made.url} holds {len(made):,} points, version {made.version}", data, as_json=as_json)


@main.command()
@click.argument("file")
@format_option
@click.option("--verify", is_flag=True, help="Also compare it with the checksum file beside it.")
@source_option
@json_flag
def inspect(
    file: str, format: str | None, verify: bool, source_options: dict[str, Any], as_json: bool
) -> None:
    """Show what is in a file of points, or a Qdrant snapshot, without importing it.

    \b
    Example:
      $ vecdataset inspect s3://backups/books.snapshot --verify
    """
    from vecdataset.formats.inspection import inspect as look

    found = look(file, format=format, verify=verify, source_options=source_options)
    tell(str(found), found.to_dict(), as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("target")
@format_option
@at_option
@target_option
@storage_option
@json_flag
def export(
    url: str, target: str, format: str | None, at: str | None, target_options: dict[str, Any],
    storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Write all points to a file, to a Qdrant server, or to a pipe (TARGET `-`) as JSON lines.

    \b
    Example:
      $ vecdataset export ./books books.parquet
      $ vecdataset export ./books books.snapshot --at before-reindex
      $ vecdataset export ./books qdrant://localhost:6333/books --target-option checkpoint=export.json
      $ vecdataset export ./books - --at 3 | gzip > books.jsonl.gz
    """
    found = open_at(url, storage, at)
    with bar("export") as progress:
        given = options_of(target, target_options, {} if is_server(target) else storage)
        count = found.export(target, format=format, progress=progress, target_options=given)
    if target != "-":
        data = {"target": target, "points": count, "version": found.version}
        tell(f"wrote {count:,} points to {target}", data, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("source", default="-")
@format_option
@from_option
@id_option
@source_option
@reading_option
@note_option
@storage_option
@json_flag
def upsert(
    url: str, source: str, format: str | None, vectors_from: Any, id_column: str,
    source_options: dict[str, Any], reading: dict[str, Any], note: str, storage: dict[str, Any],
    as_json: bool,
) -> None:  # fmt: skip
    """Add or replace points of a collection that exists, from a file or `-`.

    \b
    Example:
      $ echo '{"id": 7, "vector": [0.1, 0.2], "payload": {"lang": "en"}}' | vecdataset upsert ./books
    """
    from vecdataset.formats import upsert_file

    collection = open_at(url, storage)
    with bar("upsert") as progress, collection.noted(note):
        done = upsert_file(
            collection, source, format=format, progress=progress, vectors_from=vectors_from,
            id=id_column, source_options=source_options, **reading,
        )  # fmt: skip
    data = {"inserted": done.inserted, "updated": done.updated, "version": done.version}
    tell(", ".join(f"{k} {v:,}" for k, v in data.items()), data, as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--vector", metavar="JSON", help="The query as JSON, or several; `-` reads standard input.")
@click.option("--like", multiple=True, metavar="ID", help="Search with a point's vector; repeatable.")
@click.option("--from-file", metavar="FILE[:COLUMN]", help="Search with every vector of a file.")
@click.option("--filter", callback=filter_of, metavar="FILTER", help="SQL text, Qdrant's JSON, or KEY=VALUE.")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Hits a query.")
@click.option("--using", metavar="VECTOR", help="The vector to search, where there are several.")
@click.option("--columns", callback=names_of, metavar="A,B", help="Payload to return; all by default.")
@click.option("--param", "params", multiple=True, callback=numbers, metavar="KEY=VALUE",
              help="ef, nprobes or refine; repeatable.")  # fmt: skip
@click.option("--exact", is_flag=True, help="Compare with every vector.")
@click.option("--explain", is_flag=True, help="Say on standard error how the search ran.")
@click.option("--with-vectors", is_flag=True, help="Return vectors too.")
@at_option
@storage_option
@json_flag
def search(
    url: str, vector: str | None, like: Sequence[str], from_file: str | None, limit: int, explain: bool,
    at: str | None, storage: dict[str, Any], as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Find the points nearest to a vector, a point, or a file's vectors.

    JSON has one hit a line: id, score and payload as they were stored.

    \b
    Example:
      $ vecdataset search ./books --like 42 --filter "year > 1950 and lang in ('en', 'fr')"
      $ vecdataset search ./books --vector '[0.1, 0.2]' --filter lang=en --limit 3 --explain
    """
    found = open_at(url, storage, at)
    query = _query(found, vector, like, from_file)
    hits = found.search(query, limit=limit, explain=explain, **options)
    emit(_hits(hits, as_json=as_json), as_json=as_json)
    if explain:
        click.echo(
            line_of({"plan": hits.plan.to_dict()}) if as_json_of(as_json) else str(hits.plan), err=True
        )


def _query(found: Collection, vector: str | None, like: Sequence[str], from_file: str | None) -> Any:
    if (vector is not None) + bool(like) + (from_file is not None) != 1:
        raise click.UsageError("give one of --vector, --like and --from-file")
    if vector is not None:
        from vecdataset.sparse import SparseVector

        query = json_of(sys.stdin.read() if vector == "-" else vector)
        return SparseVector.parse(query) if isinstance(query, dict) else query
    if from_file is not None:
        from vecdataset.formats import read_vectors

        name, column = re.fullmatch(r"(.+?)(?::([^:/\\]+))?", from_file).groups()  # type: ignore[union-attr]  # matches all
        return read_vectors(name, column=column)
    from vecdataset.ids import Id

    numeric = found.schema.id_type in ("uint64", "mixed", None)
    return [Id(int(text) if numeric and text.isdigit() else text) for text in like]


def _hits(hits: Any, *, as_json: bool) -> list[dict[str, Any]]:
    import numpy as np

    rows: list[dict[str, Any]] = hits.to_pylist(layout="qdrant" if as_json_of(as_json) else "flat")
    for row in rows:  # the shortest text of the float32, not of the double that it became
        row["score"] = float(str(np.float32(row["score"])))
    several = len({row["query_index"] for row in rows}) > 1
    hidden = {"_distance"} if several else {"_distance", "query_index"}
    return [{k: v for k, v in row.items() if k not in hidden} for row in rows]


@main.command()
@click.argument("root")
@click.argument("statement", required=False)
@click.option("--file", type=click.File(), help="Read the statements from a file; `-` is standard input.")
@click.option("--param", "params", multiple=True, callback=values_of, metavar="NAME=VALUE",
              help="The value of $NAME in the last statement, as JSON or text; repeatable.")  # fmt: skip
@click.option("--output", metavar="FILE", help="Write the rows there: .parquet, .csv, .json or .jsonl.")
@click.option("--format", type=click.Choice(["table", "json", "csv", "parquet"]),
              help="Else by the file's name; a table on a terminal, JSON lines in a pipe.")  # fmt: skip
@storage_option
@json_flag
def sql(
    root: str, statement: str | None, file: Any, params: dict[str, Any], output: str | None,
    format: str | None, storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Run SQL over the collections beneath ROOT, attached to DuckDB as `vec`.

    STATEMENT may be several, with semicolons, and `-` reads standard input; the rows of the last
    one are printed, or written to a file.

    \b
    Example:
      $ vecdataset sql . "SELECT section, count(*) AS n FROM vec.packages GROUP BY ALL ORDER BY n DESC"
      $ vecdataset sql . 'SELECT name FROM vec.search_by_id($c, $id, k := 3)' --param c=packages --param id=23
      $ vecdataset sql . --file report.sql --output report.parquet
      $ vecdataset sql . - --format csv < report.sql
    """
    if (statement is None) == (file is None):
        raise click.UsageError("give a STATEMENT or --file")
    target, how = rows_target(output, format, as_json=as_json)
    import vecdataset.duckdb

    text = file.read() if statement is None else sys.stdin.read() if statement == "-" else statement
    rows = vecdataset.duckdb.run(
        root, text, parameters=params, output=target, format=how, storage_options=storage
    )
    if rows is not None:
        emit_table(rows.to_pylist())


@main.command()
@click.argument("url")
@click.option("--kind", metavar="NAME", help="ivf_rq, ivf_flat, hnsw …; `vecdataset plugins` lists them.")
@click.option("--using", metavar="VECTOR", help="The vector to index, where there are several.")
@click.option("--payload", metavar="KEY", help="Index a payload key instead, for filters.")
@click.option("--drop", metavar="NAME", help="Remove an index instead.")
@click.option("--param", "params", multiple=True, callback=numbers, metavar="KEY=VALUE",
              help="m, ef_construct, num_partitions, preset …; repeatable.")  # fmt: skip
@storage_option
@json_flag
def index(
    url: str, kind: str | None, using: str | None, payload: str | None, drop: str | None,
    params: dict[str, Any], storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Index a vector or a payload key, and list the indexes.

    \b
    Example:
      $ vecdataset index ./books --kind hnsw --param m=32
      $ vecdataset index ./books --payload year
    """
    found = open_at(url, storage)
    if drop is not None:
        found.drop_index(drop)
    elif payload is not None:
        found.create_payload_index(payload, kind)
    else:
        with bar("index", share=True) as progress:
            found.create_index(kind, using=using, progress=progress, **params)
    rows = [{"name": i.name, "kind": i.kind, "on": i.on, "rows": i.rows, "unindexed_rows": i.unindexed_rows,
             "params": dict(i.params)} for i in found.indexes]  # fmt: skip
    emit(rows, as_json=as_json)


@main.command()
@click.argument("url")
@storage_option
@json_flag
def optimize(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """Merge small files, bring indexes up to date, build those that are due.

    \b
    Example:
      $ vecdataset optimize s3://lake/books
    """
    with bar("optimize", share=True) as progress:
        after = open_at(url, storage).optimize(progress=progress)
    tell(str(after), after.to_dict(), as_json=as_json)


@main.command()
@click.argument("url")
@storage_option
@json_flag
def versions(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """List the versions that --at can show, oldest first.

    \b
    Example:
      $ vecdataset versions ./books
    """
    emit(open_at(url, storage).versions().to_pylist(), as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--purge", is_flag=True, help="Delete the files, for good.")
@click.option("--yes", is_flag=True, help="Do not ask before a purge.")
@storage_option
@json_flag
def drop(url: str, purge: bool, yes: bool, storage: dict[str, Any], as_json: bool) -> None:
    """Drop a collection; `undrop` brings it back.

    \b
    Example:
      $ vecdataset drop s3://lake/books
    """
    catalog, name = catalog_of(url, storage)
    if purge and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--purge deletes files for good; add --yes")
        click.confirm(f"Delete {url} for good?", abort=True, err=True)
    catalog.drop(name, purge=purge)
    tell(f"{'purged' if purge else 'dropped'} {url}", {"dropped": url, "purged": purge}, as_json=as_json)


@main.command()
@click.argument("url")
@storage_option
@json_flag
def undrop(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """Bring a dropped collection back as it was.

    \b
    Example:
      $ vecdataset undrop s3://lake/books
    """
    catalog, name = catalog_of(url, storage)
    back = catalog.undrop(name)
    tell(f"{back.url} is back: {len(back):,} points", {"url": back.url, "points": len(back)}, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("new_name")
@storage_option
@json_flag
def rename(url: str, new_name: str, storage: dict[str, Any], as_json: bool) -> None:
    """Rename a collection within its folder; its aliases follow.

    \b
    Example:
      $ vecdataset rename ./books library
    """
    catalog, name = catalog_of(url, storage)
    moved = catalog.rename(name, new_name)
    tell(f"{url} is now {moved.url}", {"url": moved.url}, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Remove the alias NAME; URL is the folder of the collections.")
@storage_option
@json_flag
def alias(url: str, name: str, remove: bool, storage: dict[str, Any], as_json: bool) -> None:
    """Let NAME stand for a collection, beside it.

    \b
    Example:
      $ vecdataset alias s3://lake/books-2024 books
      $ vecdataset alias s3://lake books --remove
    """
    if remove:
        from vecdataset.catalog import Catalog

        Catalog(url, storage_options=storage).unalias(name)
        tell(f"removed alias {name}", {"removed": name}, as_json=as_json)
        return
    catalog, target = catalog_of(url, storage)
    catalog.alias(name, target)
    tell(f"{name} stands for {target}", {"alias": name, "collection": target}, as_json=as_json)


@main.command()
@json_flag
def plugins(as_json: bool) -> None:
    """List filesystems, index kinds and formats, and what ails them.

    \b
    Example:
      $ vecdataset plugins
    """
    from vecdataset.formats import formats
    from vecdataset.indexes import kinds
    from vecdataset.storage import filesystems

    rows = [
        {"family": p.family, "name": p.name, "origin": p.origin, "version": p.version, "state": p.state,
         "capabilities": " ".join(p.capabilities), "aliases": " ".join(p.aliases), "reason": p.reason,
         "install": p.install}
        for family in (filesystems, kinds, formats)
        for p in family.describe()
    ]  # fmt: skip
    troubled = any(row["reason"] for row in rows)
    shown = ["family", "name", "origin", "version", "state", "capabilities"]
    emit(rows, as_json=as_json, shown=[*shown, "reason", "install"] if troubled else shown)


if __name__ == "__main__":
    main()
