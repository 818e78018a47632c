"""Statements as DuckDB's relations, whatever its version."""

from __future__ import annotations

from typing import Any, Final

import duckdb

_LOSSLESS: Final = "arrow_lossless_conversion"
_HOLDS_LOCK: Final = duckdb.__version__.startswith("1.")


def relation_of(con: duckdb.DuckDBPyConnection, text: str, params: Any = None) -> Any:
    """Run a statement, or prepare to run it where it has no parameters.

    Returns:
        DuckDB's relation of its rows; None where it has none. DuckDB 2.0 counts there what a statement
        with parameters has changed.

    DuckDB 1.5 runs a statement with parameters at once, and holds Python's lock meanwhile: its threads
    then wait for the lock to call our functions, and it for them, for ever. So there it is executed,
    which lets go of the lock, and its rows are kept as an Arrow table; enums become texts.
    """
    if params is None:
        return con.sql(text)
    if not _HOLDS_LOCK:
        return con.sql(text, params=params)
    # The setting is the database's. A cursor sets it, and sets it back after an error too, which would
    # have aborted the transaction of `con`.
    beside = con.cursor()
    ((lossless,),) = beside.execute(f"SELECT current_setting('{_LOSSLESS}')").fetchall()
    beside.execute(f"SET {_LOSSLESS} = true")
    try:
        con.execute(text, params)
        names = [column[0] for column in con.description or ()]
        kind = con.extract_statements(text)[-1].type
        if not names or (names == ["Count"] and kind != duckdb.StatementType.SELECT):
            return None
        return con.from_arrow(con.to_arrow_table())
    finally:
        beside.execute(f"SET {_LOSSLESS} = {str(lossless).lower()}")
