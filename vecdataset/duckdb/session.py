"""One-off SQL over a root: what the shell's `sql` command runs."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from vecdataset.duckdb.attachment import attach, detach
from vecdataset.duckdb.macros import literal
from vecdataset.errors import InvalidInputError


def run(root: Any, text: str, *, output: str | None = None, **storage: Any) -> pa.Table | None:
    """Run SQL statements with the collections of `root` attached as `vec`.

    Args:
        root: A path or URL that holds collections.
        text: One or more statements.
        output: A file for the last statement's rows: `.parquet`, `.csv` or `.json`, by its ending.
        storage: `filesystem` and `storage_options` of the root.

    Returns:
        The rows of the last statement; None where it has none, or they went to a file.

    Raises:
        InvalidInputError: DuckDB refuses a statement; those before it have run.
    """
    with duckdb.connect() as con:
        attach(con, root, **storage)
        try:
            statements = con.extract_statements(text)
            if not statements:
                raise InvalidInputError("there is no SQL statement")
            for statement in statements[:-1]:
                con.execute(statement).fetchall()
            last = statements[-1].query.strip().rstrip(";")
            if output is not None:
                con.execute(f"COPY ({last}) TO {literal(output)}")
                return None
            rows = con.sql(last)
            return None if rows is None else rows.to_arrow_table()
        except duckdb.Error as exc:
            raise InvalidInputError(str(exc)) from exc
        finally:
            detach(con)
