"""One-off SQL over a root: what the shell's `sql` command runs."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb
import pyarrow as pa

from vecdataset.catalog import Catalog
from vecdataset.duckdb.attachment import attach, detach
from vecdataset.duckdb.macros import literal
from vecdataset.duckdb.relations import relation_of
from vecdataset.errors import CollectionNotFoundError, InvalidInputError
from vecdataset.opening import open_collection

FORMATS: Final = {"json": "FORMAT json", "csv": "FORMAT csv, HEADER", "parquet": "FORMAT parquet"}
"""What rows can be written as, with DuckDB's words for it; `json` is a line for each row."""

_ENDINGS: Final = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
_COPIED: Final = re.compile(r"(select|from|with|values|table)\b|\(", re.IGNORECASE)
"""What COPY takes as it is; of other statements (EXPLAIN, DESCRIBE …) the rows are few."""

_PREFIX: Final = re.compile(
    r"Invalid Input Error: (Python exception occurred while executing the UDF: (\w+: )?)?"
)


def run(
    root: Any,
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    output: str | BinaryIO | None = None,
    format: str | None = None,
    **storage: Any,
) -> pa.Table | None:
    """Run SQL statements with the collections of `root` attached as `vec`.

    Args:
        root: A path or URL that holds collections, or of one collection.
        text: One or more statements.
        parameters: Values of `$name` in the last statement.
        output: A file or binary stream for the rows of the last statement.
        format: `json`, `csv` or `parquet`; None goes by the ending of the file's name.
        storage: `filesystem` and `storage_options` of the root.

    Returns:
        The rows of the last statement; None where it has none, or they went to `output`.

    Raises:
        InvalidInputError: DuckDB refuses a statement; those before it have run. Or the ending of
            `output` says no format; then none has run.
    """
    how = None if output is None else FORMATS[format or _format_of(output)]
    with duckdb.connect() as con:
        attach(con, _collections(root, storage), **storage)
        try:
            statements = [s for s in con.extract_statements(text) if _bare(s.query)]
            if not statements:
                raise InvalidInputError("there is no SQL statement")
            for statement in statements[:-1]:
                con.execute(statement).fetchall()
            last = _bare(statements[-1].query)
            given = dict(parameters or {})
            if how is None or not _COPIED.match(last):
                found = relation_of(con, last, given or None)
                rows = None if found is None else found.to_arrow_table()
                if how is None or rows is None:
                    return rows
                con.register("_rows", rows)
                last, given = "FROM _rows", {}
            _copy(con, last, given, output, how)
            return None
        except duckdb.Error as exc:
            message, ours = _PREFIX.subn("", str(exc), count=1)
            if ours:  # where in the statement says nothing more
                message = message.partition("\n\nLINE 1:")[0]
            message, _, hint = message.partition("\nhint: ")
            raise InvalidInputError(message, hint=hint or None) from exc
        finally:
            detach(con)


def _bare(statement: str) -> str:
    """Return a statement without comments before it, and without semicolons and comments behind it."""
    text = statement.encode()  # places of tokens are those of bytes
    tokens = [
        at
        for at, kind in duckdb.tokenize(statement)
        if kind != duckdb.token_type.comment and text[at : at + 1] != b";"
    ]
    if not tokens:
        return ""
    behind = [at for at, _ in duckdb.tokenize(statement) if at > tokens[-1]]
    return text[tokens[0] : behind[0] if behind else None].decode().strip()


def _copy(con: duckdb.DuckDBPyConnection, query: str, given: dict[str, Any], output: Any, how: str) -> None:
    def copy(path: str) -> None:
        con.execute(f"COPY ({query}\n) TO {literal(path)} ({how})", given or None)

    if isinstance(output, str):
        copy(output)
        return
    # DuckDB writes to files by name only.
    with tempfile.TemporaryDirectory(prefix="vecdataset-sql-") as folder:
        path = Path(folder) / "rows"
        copy(str(path))
        with path.open("rb") as rows:
            shutil.copyfileobj(rows, output)
    output.flush()


def _format_of(output: str | BinaryIO) -> str:
    name = output if isinstance(output, str) else ""
    found = _ENDINGS.get(Path(name).suffix.lower())
    if found is None:
        raise InvalidInputError(
            f"the name {name!r} does not say in which format to write",
            hint=f"end it in {', '.join(_ENDINGS)}, or say format: {', '.join(FORMATS)}",
        )
    return found


def _collections(root: Any, storage: Mapping[str, Any]) -> Any:
    """Return what to attach: `root`, or the collection that it is itself."""
    if not isinstance(root, str | Path):
        return root
    catalog = Catalog(str(root), **storage)
    if catalog.list():
        return catalog
    try:
        found = open_collection(str(root), **storage)
    except CollectionNotFoundError:
        return catalog
    return {found.name: found}
