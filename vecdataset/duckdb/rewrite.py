"""`sql(con, text)`: statements that order a view by a distance, answered through the index.

    SELECT name FROM vec.products WHERE price < 10 ORDER BY vec.cosine_distance(vector, $q) LIMIT 5

is exact, and reads every vector. Here its view is replaced by the macro `_near`, which has the same columns
and holds the `LIMIT + OFFSET` points that a search with the WHERE as its filter finds. Everything else stays
as it was written, so that rows, order and columns mean the same; what may be lost is recall, and points that
have no vector. A statement of any other form, or with a WHERE that no filter says exactly, is left alone.

DuckDB's own parser does the work: `json_serialize_sql`, a look at the tree, `json_deserialize_sql`. The trees
of 1.5 and 2.0 write constants and arguments in two ways; both are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa

from vecdataset.duckdb.attachment import Attachment, attachment_of
from vecdataset.duckdb.macros import literal, quoted
from vecdataset.duckdb.relations import relation_of
from vecdataset.query import MAX_LIMIT
from vecdataset.reader import Reader
from vecdataset.schema import Distance

Tree = dict[str, Any]

_NEARER_FIRST: Final[Mapping[str, Distance]] = {
    "cosine_distance": Distance.COSINE,
    "list_cosine_distance": Distance.COSINE,
    "array_cosine_distance": Distance.COSINE,
    "<=>": Distance.COSINE,
    "l2_distance": Distance.EUCLID,
    "list_distance": Distance.EUCLID,
    "array_distance": Distance.EUCLID,
    "<->": Distance.EUCLID,
    "manhattan_distance": Distance.MANHATTAN,
    "list_negative_inner_product": Distance.DOT,
    "list_negative_dot_product": Distance.DOT,
    "array_negative_inner_product": Distance.DOT,
    "array_negative_dot_product": Distance.DOT,
}
_NEARER_LAST: Final[Mapping[str, Distance]] = {
    "list_cosine_similarity": Distance.COSINE,
    "array_cosine_similarity": Distance.COSINE,
    "inner_product": Distance.DOT,
    "list_inner_product": Distance.DOT,
    "list_dot_product": Distance.DOT,
    "array_inner_product": Distance.DOT,
    "array_dot_product": Distance.DOT,
}
_OURS: Final = ("cosine_distance", "l2_distance", "manhattan_distance", "inner_product")
_OTHER_ROWS: Final = ("unnest", "unlist", "generate_subscripts")
_COMPARISONS: Final = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "!=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_TURNED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement that has run, and how."""

    text: str
    """What has run."""
    rewritten: bool
    """Whether an index search stands in it now."""
    how: str
    """What was done, or why the statement was left as it was."""
    relation: Any = field(repr=False)
    """DuckDB's relation of the rows; None where the statement has none."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples."""
        return [] if self.relation is None else list(self.relation.fetchall())

    def to_arrow(self) -> pa.Table | None:
        """Return the rows as an Arrow table; None where the statement has none."""
        return None if self.relation is None else self.relation.to_arrow_table()


class _LeftAloneError(Exception):
    """The reason why a statement is not rewritten."""


def sql(con: duckdb.DuckDBPyConnection, text: str, params: Any = None) -> Statement:
    """Run a statement; where it orders a collection's view by a distance, through the index.

    Args:
        con: A connection to which collections are attached.
        text: One SQL statement.
        params: Its parameters, as `con.execute` takes them.

    Returns:
        The rows as `.relation`, and in `.how` what was done. A rewritten statement finds the same rows
        where the search is exact; through an index some of the nearest may be missing, as in every
        search. Points without the vector are no rows of it.
    """
    try:
        rewritten, how = _rewritten(con, text, params)
        relation = relation_of(con, rewritten, params)
        return Statement(text=rewritten, rewritten=True, how=how, relation=relation)
    except _LeftAloneError as exc:
        how = str(exc)
    except duckdb.BinderException as exc:
        how = f"DuckDB does not bind it as a search: {exc}"
    relation = relation_of(con, text, params)
    return Statement(text=text, rewritten=False, how=how, relation=relation)


def _rewritten(con: duckdb.DuckDBPyConnection, text: str, params: Any) -> tuple[str, str]:
    cursor = con.cursor()
    tree = _parsed(cursor, text)
    if tree is None or len(tree["statements"]) != 1:
        raise _LeftAloneError("it is not one SELECT")
    node: Tree = tree["statements"][0]["node"]
    attachment, name = _collection(cursor, node)
    order, limit, offset = _modifiers(cursor, node)
    column, query, metric, own = _distance(
        order["expression"], node, descending=_descends(order), database=attachment.name
    )
    reader = attachment.reader(name)
    using = {c: n for n, c in reader.schema.vector_columns.items()}.get(column)
    declared = None if using is None else reader.schema.vectors.get(using)
    if using is None or declared is None or declared.multivector:
        raise _LeftAloneError(f"{column!r} is no vector of collection {name!r} with one vector a point")
    if declared.metric is not metric:
        raise _LeftAloneError(
            f"it orders by {metric.value} distance; vector {using or 'vector'!r} of collection {name!r} is "
            f"declared with {declared.metric.value}"
        )
    if using in reader.zero_vectors and not own:
        raise _LeftAloneError("zero vectors have no cosine for DuckDB; vec.cosine_distance gives 1")
    where = node.get("where_clause")
    filter_ = None if not where else _Condition(reader, _alias(node["from_table"]), params).text(where)
    wanted = _added(cursor, limit, offset)
    node["from_table"] = _near(
        cursor, attachment, name, query, wanted, filter_, using, alias=node["from_table"]
    )
    try:
        row = cursor.execute("SELECT json_deserialize_sql($1::JSON)", [json.dumps(tree)]).fetchone()
    except duckdb.Error as exc:
        raise _LeftAloneError(f"DuckDB cannot write it down again: {exc}") from exc
    assert row is not None
    how = f"the nearest points come from a search of collection {name!r}"
    return str(row[0]), how + (f", filtered by {filter_}" if filter_ else "")


def _parsed(cursor: duckdb.DuckDBPyConnection, text: str) -> Tree | None:
    row = cursor.execute("SELECT json_serialize_sql($1::VARCHAR)", [text]).fetchone()
    assert row is not None
    tree: Tree = json.loads(row[0])
    return None if tree["error"] else tree


# ---------------------------------------------------------------------------- the form


def _collection(cursor: duckdb.DuckDBPyConnection, node: Tree) -> tuple[Attachment, str]:
    if node.get("type") != "SELECT_NODE" or (node.get("cte_map") or {}).get("map"):
        raise _LeftAloneError("it is not a plain SELECT: set operations and WITH are left alone")
    grouped = node.get("aggregate_handling") != "STANDARD_HANDLING"
    if grouped or any(
        node.get(key) for key in ("group_expressions", "group_sets", "having", "qualify", "sample")
    ):
        raise _LeftAloneError("it groups, samples or qualifies, which looks at more than the nearest rows")
    table = node.get("from_table") or {}
    if table.get("type") != "BASE_TABLE" or table.get("sample") or table.get("column_name_alias"):
        raise _LeftAloneError("it does not read the view of one collection alone")
    schema, view = table.get("schema_name") or "", table.get("table_name") or ""
    database = table.get("catalog_name") or schema
    attachment = attachment_of(cursor, database) if database else None
    name = None if attachment is None else attachment.name_of(view)
    if attachment is None or name is None:
        raise _LeftAloneError(f"{view!r} is not the view of an attached collection, named with its database")
    for part in _parts(node["select_list"]):
        if part.get("class") == "WINDOW" or part.get("function_name") in _OTHER_ROWS:
            raise _LeftAloneError("a window function or unnest makes other rows than one for each point")
    return attachment, name


def _modifiers(cursor: duckdb.DuckDBPyConnection, node: Tree) -> tuple[Tree, Tree, Tree | None]:
    kinds = [m["type"] for m in node["modifiers"]]
    if sorted(kinds) != ["LIMIT_MODIFIER", "ORDER_MODIFIER"]:
        raise _LeftAloneError("it does not end in ORDER BY and LIMIT")
    order = node["modifiers"][kinds.index("ORDER_MODIFIER")]["orders"]
    window = node["modifiers"][kinds.index("LIMIT_MODIFIER")]
    if len(order) != 1:
        raise _LeftAloneError("it orders by more than one thing")
    nulls = order[0]["null_order"]
    if nulls == "ORDER_DEFAULT":
        row = cursor.execute("SELECT current_setting('default_null_order')").fetchone()
        nulls = "" if row is None else str(row[0])
    if "FIRST" in nulls.upper():
        raise _LeftAloneError("points without the vector come first in its order")
    limit, offset = window.get("limit"), window.get("offset")
    for part in (limit, offset):
        if part is not None and part.get("class") not in ("CONSTANT", "PARAMETER"):
            raise _LeftAloneError("its LIMIT is no number")
    if limit is None or window.get("limit_type", "ROW_COUNT") != "ROW_COUNT":
        raise _LeftAloneError("it has no LIMIT")
    numbers = [
        _constant(part) or 0 for part in (limit, offset) if part is not None and part["class"] == "CONSTANT"
    ]
    if limit["class"] == "CONSTANT" and not 1 <= sum(map(int, numbers)) <= MAX_LIMIT:
        raise _LeftAloneError(f"its LIMIT and OFFSET are not within 1 and {MAX_LIMIT:,}")
    return order[0], limit, offset


def _descends(order: Tree) -> bool:
    return str(order["type"]) in ("DESCENDING", "ORDER_DESCENDING")


def _distance(
    expression: Tree, node: Tree, *, descending: bool, database: str
) -> tuple[str, Tree, Distance, bool]:
    """Return vector column, query and metric of what a statement orders by; and whether it is our macro."""
    if expression.get("class") == "COLUMN_REF":  # the name of a distance in the select list
        named = [i for i in node["select_list"] if i.get("alias") == expression["column_names"][-1]]
        expression = named[0] if named else expression
    if expression.get("class") != "FUNCTION":
        raise _LeftAloneError("it does not order by a distance")
    function = expression["function_name"]
    home = expression.get("catalog") or expression.get("schema") or ""
    own = function in _OURS and home.lower() == database.lower()
    metric = (_NEARER_LAST if descending else _NEARER_FIRST).get(function)
    if not own and (function in _OURS or home not in ("", "main", "system")):
        metric = None  # somebody else's
    arguments = _arguments(expression)
    if metric is None or len(arguments) != 2:
        raise _LeftAloneError(f"{function} in this order is no distance, nearest first")
    alias = _alias(node["from_table"])
    for one, other in (arguments, arguments[::-1]):
        column = _column(one, alias)
        if column is not None and not any(p.get("class") == "COLUMN_REF" for p in _parts(other, inner=False)):
            return column, other, metric, own
    raise _LeftAloneError("its distance is not one of a column to one given vector")


# --------------------------------------------------------------------------- the filter


class _Condition:
    """A WHERE as the text of a filter, where that is the same to the last row."""

    def __init__(self, reader: Reader, alias: str, params: Any) -> None:
        self._reader = reader
        self._alias = alias
        self._params = params

    def text(self, node: Tree) -> str:
        """Return the filter.

        Raises:
            _LeftAloneError: There is none.
        """
        kind, parts = node["type"], node.get("children") or []
        if node["class"] == "CONJUNCTION":
            word = " AND " if kind == "CONJUNCTION_AND" else " OR "
            return word.join(f"({self.text(part)})" for part in parts)
        if kind == "OPERATOR_NOT":
            return f"NOT ({self.text(parts[0])})"
        if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            column, _ = self._column(parts[0])
            return f"{column} IS {'NOT ' if kind == 'OPERATOR_IS_NOT_NULL' else ''}NULL"
        if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            column, of = self._column(parts[0])
            several = ", ".join(self._value(part, of) for part in parts[1:])
            return f"{column} {'NOT ' if kind == 'COMPARE_NOT_IN' else ''}IN ({several})"
        if kind == "COMPARE_BETWEEN":
            column, of = self._column(node["input"])
            lower, upper = (self._value(node[end], of) for end in ("lower", "upper"))
            return f"{column} >= {lower} AND {column} <= {upper}"
        if kind in _COMPARISONS:
            left, right, op = node["left"], node["right"], _COMPARISONS[kind]
            if _column(left, self._alias) is None:
                left, right, op = right, left, _TURNED.get(op, op)
            column, of = self._column(left)
            return f"{column} {op} {self._value(right, of)}"
        if node["class"] == "COLUMN_REF":
            column, of = self._column(node)
            if pa.types.is_boolean(of):
                return f"{column} = true"
        raise _LeftAloneError("a filter cannot say its WHERE exactly; vec.search(…, filter := …) takes one")

    def _column(self, node: Tree) -> tuple[str, pa.DataType]:
        name = _column(node, self._alias)
        schema = self._reader.schema
        if name == "id":
            return "id", schema.id_arrow_type
        if name is None or name not in schema.payload:
            raise _LeftAloneError("its WHERE compares something else than columns with constants")
        if name in self._reader.extra_keys:
            raise _LeftAloneError(f"some values of {name!r} are no values of its column")
        return quoted(name), schema.payload[name].type

    def _value(self, node: Tree, kind: pa.DataType) -> str:
        given = self._given(node)
        if isinstance(given, bool):
            if pa.types.is_boolean(kind):
                return "true" if given else "false"
        elif isinstance(given, int) and (pa.types.is_integer(kind) or pa.types.is_float64(kind)):
            return str(given)
        elif isinstance(given, float | Decimal) and pa.types.is_float64(kind):
            number = repr(float(given))
            if number not in ("nan", "inf", "-inf"):
                return number
        elif isinstance(given, str) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return literal(given)
        raise _LeftAloneError("its WHERE compares a column with something of another type")

    def _given(self, node: Tree) -> Any:
        if node.get("class") != "PARAMETER":
            return _constant(node)
        key = node["identifier"]
        if isinstance(self._params, Mapping):
            return self._params.get(key)
        if isinstance(self._params, Sequence) and key.isdigit() and 1 <= int(key) <= len(self._params):
            return self._params[int(key) - 1]
        return None


# ----------------------------------------------------------------------------- the tree


def _parts(node: Any, *, inner: bool = True) -> Iterator[Tree]:
    """Yield all nodes below one, itself first; not those of subqueries where `inner` is false."""
    if isinstance(node, list):
        for item in node:
            yield from _parts(item, inner=inner)
    elif isinstance(node, dict):
        if node.get("class") == "SUBQUERY" and not inner:
            return
        yield node
        for value in node.values():
            yield from _parts(value, inner=inner)


def _alias(table: Tree) -> str:
    return str(table.get("alias") or table.get("table_name") or "")


def _column(node: Tree, alias: str) -> str | None:
    """Return the column that a node names, None where it is something else."""
    if node.get("class") != "COLUMN_REF":
        return None
    *before, name = node["column_names"]
    return str(name) if before in ([], [alias]) else None


def _arguments(function: Tree) -> list[Tree]:
    if "arguments" in function:  # DuckDB 2.0
        return [a["expression"] for a in function["arguments"]]
    return list(function.get("children") or [])


def _constant(node: Tree) -> Any:
    """Return a constant's value, None where the node is none or its type is another."""
    if node.get("class") == "CAST" and (node.get("cast_type") or {}).get("id") == "BOOLEAN":  # `true` in 1.5
        return {"t": True, "f": False}.get(_constant(node["child"]))
    if node.get("class") != "CONSTANT":
        return None
    if "literal" in node:  # DuckDB 2.0
        kind, text = node["literal"]["kind"], node["literal"].get("text", "")
        if kind == "BOOLEAN":
            return text == "true"
        if kind == "STRING":
            return text
        return {"INTEGER": int, "NUMERIC": Decimal}[kind](text) if kind in ("INTEGER", "NUMERIC") else None
    value, kind = node["value"], node["value"]["type"]["id"]
    if value.get("is_null"):
        return None
    raw = value.get("value")
    if kind == "DECIMAL":
        return Decimal(int(raw or 0)).scaleb(-int(value["type"]["type_info"].get("scale", 0)))
    if kind == "DOUBLE":
        return float(raw or 0)
    if kind == "BOOLEAN":
        return bool(raw)
    if kind == "VARCHAR":
        return str(raw or "")
    return int(raw or 0) if kind in ("INTEGER", "BIGINT") else None


def _added(cursor: duckdb.DuckDBPyConnection, limit: Tree, offset: Tree | None) -> Tree:
    if offset is None:
        return limit
    added: Tree = _expression(cursor, "1 + 2")
    _put(added, 0, limit)
    _put(added, 1, offset)
    return added


def _near(
    cursor: duckdb.DuckDBPyConnection,
    attachment: Attachment,
    name: str,
    query: Tree,
    wanted: Tree,
    filter_: str | None,
    using: str,
    *,
    alias: Tree,
) -> Tree:
    schema = quoted(attachment.schema_of(name))
    given = "NULL" if filter_ is None else literal(filter_)
    named = "NULL" if not using else literal(using)
    text = (
        f"FROM {quoted(attachment.name)}.{schema}._near(NULL, 1, {given}, {named}) AS {quoted(_alias(alias))}"
    )
    parsed = _parsed(cursor, text)
    assert parsed is not None
    table: Tree = parsed["statements"][0]["node"]["from_table"]
    _put(table["function"], 0, query)
    _put(table["function"], 1, wanted)
    return table


def _expression(cursor: duckdb.DuckDBPyConnection, text: str) -> Tree:
    parsed = _parsed(cursor, f"SELECT {text}")
    assert parsed is not None
    expression: Tree = parsed["statements"][0]["node"]["select_list"][0]
    return expression


def _put(function: Tree, at: int, argument: Tree) -> None:
    argument = {**argument, "alias": ""}
    if "arguments" in function:
        function["arguments"][at]["expression"] = argument
    else:
        function["children"][at] = argument


__all__ = ["Statement", "sql"]
