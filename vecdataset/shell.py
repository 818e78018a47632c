"""What the shell's commands share: the group they join, options, and how results are printed.

Rows go through one function: a table on a terminal, JSON lines when piped or with `--json`.
Progress and what is said about a result go to standard error. Exit status: 0, 1 when it
failed, 2 when the command line is wrong. Only click is imported here; the library comes in
when a command runs, so that `--help` answers at once.
"""

# ruff: noqa: ARG001 - click's callbacks have the arguments that click gives them

# ruff: noqa: FBT001 - click passes flags by name

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog
    from vecdataset.collection import Collection


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning of the library as a line, without the place in the code that it comes from."""
    click.echo(f"warning: {message}", err=True)


_S3: Final = {
    "S3_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    "S3_SESSION_TOKEN": "AWS_SESSION_TOKEN",
    "S3_REGION": "AWS_REGION",
    "S3_ENDPOINT_URL": "AWS_ENDPOINT_URL_S3",
}
"""Variables of tools that speak to S3 alone, and AWS's own, which go before them."""


def _s3_variables() -> None:
    """Let `S3_…` stand in for `AWS_…`, in this process; not beside a word on AWS that says who we are."""
    env = os.environ
    who = [f"AWS_{n}" for n in ("PROFILE", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
    known = any(name in env for name in who)
    for name, own in _S3.items():
        if name in env and own not in env and not (known and own in who):
            env[own] = env[name]


class _Commands(click.Group):
    """Says errors of the library in one sentence with a hint, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        _s3_variables()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", UserWarning)
                warnings.showwarning = _say
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
        out[key] = json_of(value, param) if parse else value
    return out


def numbers(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE options whose values may be integers."""
    return {k: int(v) if re.fullmatch(r"\d+", str(v)) else v for k, v in _pairs(ctx, param, values).items()}


def options_of(url: str, *given: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first options that were given, for a URL; a local path needs none."""
    return next((g for g in given if g), None) if "://" in url else None


def json_of(text: str, param: click.Parameter | None = None) -> Any:
    """Read JSON, or say where it does not parse."""
    try:
        return json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(f"not JSON: {exc}", param=param) from None


def filter_of(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """Take JSON where it begins with a brace, KEY=VALUE without blanks or quotes, else SQL text."""
    if text is None:
        return None
    if text.lstrip().startswith("{"):
        return json_of(text, param)
    pair = re.fullmatch(r"([\w.-]+)=([^\s'\"()=<>]+)", text.strip())
    if pair is None:
        return text
    try:
        return {pair[1]: json.loads(pair[2])}
    except ValueError:
        return {pair[1]: pair[2]}


def values_of(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE options whose values are JSON, or else text."""
    out: dict[str, Any] = {}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def names_of(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    """Read names with commas between them."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def vector_params(
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


def catalog_of(url: str, storage: Mapping[str, Any]) -> tuple[Catalog, str]:
    """Return the catalog that a URL stands in, and the name in it."""
    from vecdataset.catalog import Catalog

    root, name = _split(url)
    return Catalog(root, storage_options=storage), name


def open_at(url: str, storage: Mapping[str, Any], at: str | None = None) -> Collection:
    """Open a collection, by alias too, perhaps as it was."""
    import vecdataset

    try:
        found = vecdataset.open(url, storage_options=storage)
    except vecdataset.CollectionNotFoundError:
        catalog, name = catalog_of(url, storage)
        found = catalog.open(name)
    return found if at is None else found.at(_moment(at))


def is_server(url: str) -> bool:
    """Return whether a URL names a Qdrant server."""
    from vecdataset.formats.qdrant.client import is_server as named

    return named(url)


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


def line_of(value: Any) -> str:
    """Return one value as a line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def as_json_of(asked: bool) -> bool:
    """Return whether to print JSON: asked for, or piped."""
    return asked or not sys.stdout.isatty()


def emit(rows: Iterable[Mapping[str, Any]], *, as_json: bool, shown: Sequence[str] | None = None) -> None:
    """Print rows: JSON lines, or on a terminal a table, of the columns `shown` where given."""
    if as_json_of(as_json):
        for row in rows:
            click.echo(line_of(row))
        return
    emit_table([{n: row.get(n) for n in shown} if shown else row for row in rows])


def rows_target(output: str | None, format: str | None, *, as_json: bool) -> tuple[Any, str | None]:
    """Return where rows go, a file's name or standard output, and the format; None for a table."""
    if as_json and format not in (None, "json"):
        raise click.UsageError(f"--json and --format {format} exclude each other")
    if output is not None:
        if format == "table":
            raise click.UsageError("a table goes to standard output: give no --output, or another --format")
        return output, "json" if as_json else format
    how = format or ("json" if as_json_of(as_json) else "table")
    if how == "table":
        return None, None
    if how == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet goes to a file or a pipe: give --output")
    return sys.stdout.buffer, how


def emit_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table."""
    from vecdataset.display import text_table

    click.echo(text_table(rows))


def tell(text: str, data: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what was done: a JSON object, or on a terminal a sentence."""
    click.echo(line_of(data) if as_json_of(as_json) else text)


@contextlib.contextmanager
def bar(what: str, *, share: bool = False) -> Iterator[Callable[[float], None]]:
    """Give a function that shows progress on standard error if that is a terminal, counted or as a share."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm

    scale = 100 if share else 1
    unit = "%" if share else " points"
    with tqdm(desc=what, unit=unit, unit_scale=not share, total=scale if share else None, leave=False) as bar:
        yield lambda done: bar.update(done * scale - bar.n)


storage_option = click.option(
    "--storage-option", "storage", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="An option of the filesystem, in fsspec's words, such as key=… or endpoint_url=…; repeatable.",
)  # fmt: skip
target_option = click.option(
    "--target-option", "target_options", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="An option of the target's filesystem, else --storage-option holds for both; of a Qdrant server "
    "api_key, timeout_s, attempts or checkpoint=FILE. Repeatable.",
)  # fmt: skip
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
at_option = click.option(
    "--at", metavar="VERSION", help="A version number, a snapshot's name, or an ISO time."
)
format_option = click.option(
    "--format", metavar="NAME", help="parquet, arrow, jsonl, json … (see `plugins`); else guessed."
)
from_option = click.option(
    "--vectors-from", multiple=True, callback=_columns_by_vector, metavar="[VECTOR=]COLUMN",
    help="The column or key that holds the vectors; repeatable for several.",
)  # fmt: skip
id_option = click.option(
    "--id", "id_column", default="id", metavar="COLUMN", help="The column or key of the ids."
)
source_option = click.option(
    "--source-option", "source_options", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="An option of the source's filesystem; repeatable.",
)  # fmt: skip
reading_option = click.option(
    "--format-option", "reading", multiple=True, callback=_pairs, metavar="KEY=VALUE",
    help="An option of the file's format, such as allow_null_vectors=true; repeatable.",
)  # fmt: skip
note_option = click.option("--note", default="", help="Text for people, shown by `versions`.")
distance_option = click.option("--distance", metavar="NAME", help="Cosine, Dot, Euclid or Manhattan.")
id_type_option = click.option(
    "--id-type",
    type=click.Choice(["uint64", "uuid", "string", "mixed"]),
    help="Else the first points decide.",
)
