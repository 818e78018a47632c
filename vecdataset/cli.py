"""The shell: `vecdataset`, each command a few lines over the library.

Rows go through one function: a table on a terminal, JSON lines when piped or with `--json`.
Progress and what is said about a result go to standard error. Exit status: 0, 1 when it
failed, 2 when the command line is wrong. Only click is imported here; the library comes in
when a command runs, so that `--help` answers at once.
"""

# ruff: noqa: ARG001 - click's callbacks have the arguments that click gives them
# ruff: noqa: D301 - click reads the backspace in a docstring as "do not wrap this"
# ruff: noqa: FBT001 - click passes flags by name

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog
    from vecdataset.collection import Collection

__all__ = ["main"]


class _Commands(click.Group):
    """Says errors of the library in one sentence with a hint, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from vecdataset.errors import VecDatasetError

            if not isinstance(error, VecDatasetError | OSError):
                raise
            click.echo(f"error: {error}", err=True)
            if hint := getattr(error, "hint", None):
                click.echo(f"hint: {hint}", err=True)
            ctx.exit(1)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="vecdataset", prog_name="vecdataset")
def main() -> None:
    """Vector collections on any filesystem: make, fill, index and search them.

    A collection is named by its path or URL: ./books, s3://lake/books.
    """


# ------------------------------------------------------------------------ what goes in


def _pairs(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for text in values:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        # Keys and secrets may look like numbers: only what cannot be one of them is parsed.
        parse = value in ("true", "false") or value.startswith(("{", "["))
        out[key] = _json(value, param) if parse else value
    return out


def _numbers(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    return {k: int(v) if re.fullmatch(r"\d+", str(v)) else v for k, v in _pairs(ctx, param, values).items()}


def _json(text: str, param: click.Parameter | None = None) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(f"not JSON: {exc}", param=param) from None


def _filter(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """Take JSON where it begins with a brace, KEY=VALUE without blanks or quotes, else SQL text."""
    if text is None:
        return None
    if text.lstrip().startswith("{"):
        return _json(text, param)
    pair = re.fullmatch(r"([\w.-]+)=([^\s'\"()=<>]+)", text.strip())
    if pair is None:
        return text
    try:
        return {pair[1]: json.loads(pair[2])}
    except ValueError:
        return {pair[1]: pair[2]}


def _names(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _vector_params(
    ctx: click.Context,
    param: click.Parameter,
    values: Sequence[str],
) -> dict[str, Any]:
    """NAME:SIZE[:DISTANCE[:DATATYPE]]."""
    out: dict[str, Any] = {}
    for text in values:
        parts = text.split(":")
        if not 2 <= len(parts) <= 4 or not parts[1].isdigit():
            raise click.BadParameter(f"{text!r} is not NAME:SIZE[:DISTANCE[:DATATYPE]]")
        out[parts[0]] = dict(zip(("size", "distance", "datatype"), [int(parts[1]), *parts[2:]], strict=False))
    return out


def _columns_by_vector(
    ctx: click.Context,
    param: click.Parameter,
    values: Sequence[str],
) -> dict[str, str] | str | None:
    """COLUMN, or VECTOR=COLUMN for each of several."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return values[0]
    pairs = [text.partition("=") for text in values]
    if not all(sign and column for _, sign, column in pairs):
        raise click.BadParameter("give one COLUMN, or VECTOR=COLUMN for each")
    return {name: column for name, _, column in pairs}


def _split(url: str) -> tuple[str, str]:
    """Return root and name of a collection's path or URL."""
    text = url.rstrip("/")
    if "://" not in text:
        path = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - `..` is resolved, links are not
        return str(path.parent), path.name
    root, _, name = text.rpartition("/")
    if root.endswith((":", "/")):
        raise click.UsageError(f"{url!r} is the root of a store; a collection is a folder in it")
    return root, name


def _catalog(url: str, storage: Mapping[str, Any]) -> tuple[Catalog, str]:
    from vecdataset.catalog import Catalog

    root, name = _split(url)
    return Catalog(root, storage_options=storage), name


def _open(url: str, storage: Mapping[str, Any], at: str | None = None) -> Collection:
    """Open a collection, by alias too, perhaps as it was."""
    import vecdataset

    try:
        found = vecdataset.open(url, storage_options=storage)
    except vecdataset.CollectionNotFoundError:
        catalog, name = _catalog(url, storage)
        found = catalog.open(name)
    return found if at is None else found.at(_moment(at))


def _moment(text: str) -> Any:
    """Return a version number, a time, or a snapshot's name."""
    from datetime import datetime

    if text.isdigit():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


# ----------------------------------------------------------------------- what comes out


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _as_json(asked: bool) -> bool:
    return asked or not sys.stdout.isatty()


def _emit(rows: Iterable[Mapping[str, Any]], *, as_json: bool, shown: Sequence[str] | None = None) -> None:
    """Print rows: JSON lines, or on a terminal a table, of the columns `shown` where given."""
    if _as_json(as_json):
        for row in rows:
            click.echo(_line(row))
        return
    from vecdataset.display import text_table

    click.echo(text_table([{n: row.get(n) for n in shown} if shown else row for row in rows]))


def _tell(text: str, data: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what was done: a JSON object, or on a terminal a sentence."""
    click.echo(_line(data) if _as_json(as_json) else text)


@contextlib.contextmanager
def _bar(what: str, *, share: bool = False) -> Iterator[Callable[[float], None]]:
    """Give a function that shows progress on standard error if that is a terminal, counted or as a share."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm

    scale = 100 if share else 1
    unit = "%" if share else " points"
    with tqdm(desc=what, unit=unit, unit_scale=not share, total=scale if share else None, leave=False) as bar:
        yield lambda done: bar.update(done * scale - bar.n)


_storage = click.option(
    "--storage-option", "storage", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="An option of the filesystem, in fsspec's words, such as key=… or endpoint_url=…; repeatable.",
)  # fmt: skip
_json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
_at = click.option("--at", metavar="VERSION", help="A version number, a snapshot's name, or an ISO time.")
_format = click.option("--format", metavar="NAME", help="parquet, arrow, jsonl or a plugin's; else guessed.")
_from = click.option(
    "--vectors-from", multiple=True, callback=_columns_by_vector, metavar="[VECTOR=]COLUMN",
    help="The column or key that holds the vectors; repeatable for several.",
)  # fmt: skip
_id = click.option("--id", "id_column", default="id", metavar="COLUMN", help="The column or key of the ids.")
_source_option = click.option(
    "--source-option", "source_options", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="An option of the source's filesystem; repeatable.",
)  # fmt: skip
_distance = click.option("--distance", metavar="NAME", help="Cosine, Dot, Euclid or Manhattan.")
_id_type = click.option(
    "--id-type",
    type=click.Choice(["uint64", "uuid", "string", "mixed"]),
    help="Else the first points decide.",
)


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
@_distance
@click.option("--datatype", type=click.Choice(["float32", "float16", "uint8", "int8"]), default="float32")
@click.option(
    "--vector", "named", multiple=True, callback=_vector_params, metavar="NAME:SIZE[:DISTANCE[:DATATYPE]]",
    help="A named vector; repeatable.",
)  # fmt: skip
@click.option("--sparse", multiple=True, metavar="NAME[:idf]", help="A sparse vector; repeatable.")
@_id_type
@click.option("--exist-ok", is_flag=True, help="Accept one that is there with the same vectors.")
@_storage
@_json_flag
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
    _tell(f"made {made.url}", {"url": made.url, "version": made.version}, as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--id", "id_column", required=True, metavar="COLUMN", help="The column of the ids.")
@click.option(
    "--vector", "columns", multiple=True, metavar="COLUMN[:DISTANCE]",
    help="A column of vectors; repeatable. Else every fixed-size list of floats, with Cosine.",
)  # fmt: skip
@_storage
@_json_flag
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
    _tell(str(made.info()), {"url": made.url, "points": len(made)}, as_json=as_json)


@main.command()
@click.argument("root", default=".")
@click.option("--dropped", is_flag=True, help="List the dropped ones, which undrop brings back.")
@_storage
@_json_flag
def ls(root: str, dropped: bool, storage: dict[str, Any], as_json: bool) -> None:
    """List the collections beneath ROOT.

    \b
    Example:
      $ vecdataset ls s3://lake
    """
    from vecdataset.catalog import Catalog

    catalog = Catalog(root, storage_options=storage)
    names = catalog.list(dropped=dropped)
    aliases = {} if dropped else catalog.aliases()
    found = ({"name": n} if dropped else _summary(catalog, n, aliases) for n in names)
    _emit(found, as_json=as_json)


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
@_at
@_storage
@_json_flag
def info(url: str, at: str | None, storage: dict[str, Any], as_json: bool) -> None:
    """Show points, vectors, payload, indexes and versions.

    \b
    Example:
      $ vecdataset info s3://lake/books --storage-option anon=true
    """
    found = _open(url, storage, at).info()
    _tell(str(found), found.to_dict(), as_json=as_json)


@main.command("import")
@click.argument("source")
@click.argument("url")
@_format
@_from
@_id
@_distance
@_id_type
@_source_option
@_storage
@_json_flag
def import_(
    source: str, url: str, format: str | None, vectors_from: Any, id_column: str, distance: str | None,
    id_type: str | None, source_options: dict[str, Any], storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Upsert a file (or `-`) into a collection, made if it is not there.

    \b
    Example:
      $ vecdataset import books.parquet s3://lake/books --vectors-from embedding
      $ cat points.jsonl | vecdataset import - ./books
    """
    import vecdataset as vd

    with _bar("import") as progress:
        made = vd.load(
            source, url, format=format, progress=progress, vectors_from=vectors_from, id=id_column,
            distance=distance, id_type=id_type, storage_options=storage, source_options=source_options,
        )  # fmt: skip
    data = {"url": made.url, "points": len(made), "version": made.version}
    _tell(f"{made.url} holds {len(made):,} points, version {made.version}", data, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("target")
@_format
@_at
@_storage
@_json_flag
def export(
    url: str, target: str, format: str | None, at: str | None, storage: dict[str, Any], as_json: bool
) -> None:  # fmt: skip
    """Write all points to a file, or to a pipe (TARGET `-`) as JSON lines.

    \b
    Example:
      $ vecdataset export ./books books.parquet
      $ vecdataset export ./books - --at 3 | gzip > books.jsonl.gz
    """
    found = _open(url, storage, at)
    with _bar("export") as progress:
        count = found.export(target, format=format, progress=progress)
    if target != "-":
        data = {"target": target, "points": count, "version": found.version}
        _tell(f"wrote {count:,} points to {target}", data, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("source", default="-")
@_format
@_from
@_id
@_source_option
@_storage
@_json_flag
def upsert(
    url: str, source: str, format: str | None, vectors_from: Any, id_column: str,
    source_options: dict[str, Any], storage: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Add or replace points of a collection that exists, from a file or `-`.

    \b
    Example:
      $ echo '{"id": 7, "vector": [0.1, 0.2], "payload": {"lang": "en"}}' | vecdataset upsert ./books
    """
    from vecdataset.formats import upsert_file

    with _bar("upsert") as progress:
        done = upsert_file(
            _open(url, storage), source, format=format, progress=progress, vectors_from=vectors_from,
            id=id_column, source_options=source_options,
        )  # fmt: skip
    data = {"inserted": done.inserted, "updated": done.updated, "version": done.version}
    _tell(", ".join(f"{k} {v:,}" for k, v in data.items()), data, as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--vector", metavar="JSON", help="The query as JSON, or several; `-` reads standard input.")
@click.option("--like", multiple=True, metavar="ID", help="Search with a point's vector; repeatable.")
@click.option("--from-file", metavar="FILE[:COLUMN]", help="Search with every vector of a file.")
@click.option("--filter", callback=_filter, metavar="FILTER", help="SQL text, Qdrant's JSON, or KEY=VALUE.")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Hits a query.")
@click.option("--using", metavar="VECTOR", help="The vector to search, where there are several.")
@click.option("--columns", callback=_names, metavar="A,B", help="Payload to return; all by default.")
@click.option("--param", "params", multiple=True, callback=_numbers, metavar="KEY=VALUE",
              help="ef, nprobes or refine; repeatable.")  # fmt: skip
@click.option("--exact", is_flag=True, help="Compare with every vector.")
@click.option("--explain", is_flag=True, help="Say on standard error how the search ran.")
@click.option("--with-vectors", is_flag=True, help="Return vectors too.")
@_at
@_storage
@_json_flag
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
    found = _open(url, storage, at)
    query = _query(found, vector, like, from_file)
    hits = found.search(query, limit=limit, explain=explain, **options)
    _emit(_hits(hits, as_json=as_json), as_json=as_json)
    if explain:
        click.echo(_line({"plan": hits.plan.to_dict()}) if _as_json(as_json) else str(hits.plan), err=True)


def _query(found: Collection, vector: str | None, like: Sequence[str], from_file: str | None) -> Any:
    if (vector is not None) + bool(like) + (from_file is not None) != 1:
        raise click.UsageError("give one of --vector, --like and --from-file")
    if vector is not None:
        from vecdataset.sparse import SparseVector

        query = _json(sys.stdin.read() if vector == "-" else vector)
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

    rows: list[dict[str, Any]] = hits.to_pylist(layout="qdrant" if _as_json(as_json) else "flat")
    for row in rows:  # the shortest text of the float32, not of the double that it became
        row["score"] = float(str(np.float32(row["score"])))
    several = len({row["query_index"] for row in rows}) > 1
    hidden = {"_distance"} if several else {"_distance", "query_index"}
    return [{k: v for k, v in row.items() if k not in hidden} for row in rows]


@main.command()
@click.argument("root")
@click.argument("statement", required=False)
@click.option("--file", type=click.File(), help="Read the statements from a file; `-` is standard input.")
@click.option("--output", metavar="FILE", help="Write the rows there: .parquet, .csv or .json.")
@_storage
@_json_flag
def sql(
    root: str, statement: str | None, file: Any, output: str | None, storage: dict[str, Any], as_json: bool
) -> None:
    """Run SQL over the collections beneath ROOT, attached to DuckDB as `vec`.

    \b
    Example:
      $ vecdataset sql . "SELECT section, count(*) AS n FROM vec.packages GROUP BY ALL ORDER BY n DESC"
      $ vecdataset sql . --file report.sql --output report.parquet
    """
    if (statement is None) == (file is None):
        raise click.UsageError("give a STATEMENT or --file")
    import vecdataset.duckdb

    text = statement if statement is not None else file.read()
    rows = vecdataset.duckdb.run(root, text, output=output, storage_options=storage)
    if rows is not None:
        _emit(rows.to_pylist(), as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--kind", metavar="NAME", help="ivf_rq, ivf_flat, hnsw …; `vecdataset plugins` lists them.")
@click.option("--using", metavar="VECTOR", help="The vector to index, where there are several.")
@click.option("--payload", metavar="KEY", help="Index a payload key instead, for filters.")
@click.option("--drop", metavar="NAME", help="Remove an index instead.")
@click.option("--param", "params", multiple=True, callback=_numbers, metavar="KEY=VALUE",
              help="m, ef_construct, num_partitions, preset …; repeatable.")  # fmt: skip
@_storage
@_json_flag
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
    found = _open(url, storage)
    if drop is not None:
        found.drop_index(drop)
    elif payload is not None:
        found.create_payload_index(payload, kind)
    else:
        with _bar("index", share=True) as progress:
            found.create_index(kind, using=using, progress=progress, **params)
    rows = [{"name": i.name, "kind": i.kind, "on": i.on, "rows": i.rows, "unindexed_rows": i.unindexed_rows,
             "params": dict(i.params)} for i in found.indexes]  # fmt: skip
    _emit(rows, as_json=as_json)


@main.command()
@click.argument("url")
@_storage
@_json_flag
def optimize(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """Merge small files, bring indexes up to date, build those that are due.

    \b
    Example:
      $ vecdataset optimize s3://lake/books
    """
    with _bar("optimize", share=True) as progress:
        after = _open(url, storage).optimize(progress=progress)
    _tell(str(after), after.to_dict(), as_json=as_json)


@main.command()
@click.argument("url")
@_storage
@_json_flag
def versions(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """List the versions that --at can show, oldest first.

    \b
    Example:
      $ vecdataset versions ./books
    """
    _emit(_open(url, storage).versions().to_pylist(), as_json=as_json)


@main.command()
@click.argument("url")
@click.option("--purge", is_flag=True, help="Delete the files, for good.")
@click.option("--yes", is_flag=True, help="Do not ask before a purge.")
@_storage
@_json_flag
def drop(url: str, purge: bool, yes: bool, storage: dict[str, Any], as_json: bool) -> None:
    """Drop a collection; `undrop` brings it back.

    \b
    Example:
      $ vecdataset drop s3://lake/books
    """
    catalog, name = _catalog(url, storage)
    if purge and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--purge deletes files for good; add --yes")
        click.confirm(f"Delete {url} for good?", abort=True, err=True)
    catalog.drop(name, purge=purge)
    _tell(f"{'purged' if purge else 'dropped'} {url}", {"dropped": url, "purged": purge}, as_json=as_json)


@main.command()
@click.argument("url")
@_storage
@_json_flag
def undrop(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """Bring a dropped collection back as it was.

    \b
    Example:
      $ vecdataset undrop s3://lake/books
    """
    catalog, name = _catalog(url, storage)
    back = catalog.undrop(name)
    _tell(
        f"{back.url} is back: {len(back):,} points", {"url": back.url, "points": len(back)}, as_json=as_json
    )


@main.command()
@click.argument("url")
@click.argument("new_name")
@_storage
@_json_flag
def rename(url: str, new_name: str, storage: dict[str, Any], as_json: bool) -> None:
    """Rename a collection within its folder; its aliases follow.

    \b
    Example:
      $ vecdataset rename ./books library
    """
    catalog, name = _catalog(url, storage)
    moved = catalog.rename(name, new_name)
    _tell(f"{url} is now {moved.url}", {"url": moved.url}, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Remove the alias NAME; URL is the folder of the collections.")
@_storage
@_json_flag
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
        _tell(f"removed alias {name}", {"removed": name}, as_json=as_json)
        return
    catalog, target = _catalog(url, storage)
    catalog.alias(name, target)
    _tell(f"{name} stands for {target}", {"alias": name, "collection": target}, as_json=as_json)


@main.command()
@_json_flag
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
    _emit(rows, as_json=as_json, shown=[*shown, "reason", "install"] if troubled else shown)


if __name__ == "__main__":
    main()
