"""Collections inside DuckDB: searched, joined, filtered and written in SQL.

    import duckdb, vecdataset.duckdb

    con = duckdb.connect()
    vecdataset.duckdb.attach(con, "path/to/collections")
    con.sql("FROM vec.search('products', [0.1, 0.2, 0.3], k := 5)")

`attach` makes a database of macros and views beside the user's own; nothing is written to theirs.
"""

from __future__ import annotations

from vecdataset.duckdb.attachment import attach, detach
from vecdataset.duckdb.rewrite import Statement, sql
from vecdataset.duckdb.session import run

__all__ = ["Statement", "attach", "detach", "run", "sql"]
