"""The SQL text of an attached catalog: macros over the functions, and views over the collections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import duckdb

_OPTIONS: Final = 'filter := NULL, "using" := NULL, params := NULL'
_PASSED: Final = 'filter, "using", params'
STATEMENT: Final = "now(), current_query_id(), hash(current_query())"
"""What tells one statement from another: the start of its transaction changes where a prepared one is run
again, and its number where several are of one transaction. All three are constants within a statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A table macro that answers with points."""

    name: str
    parameters: str
    """Its parameters after the collection, with defaults."""
    call: str
    """The function that finds the hits, without its closing parenthesis, with `{collection}` for the name."""
    columns: str = "h._rank, h.{id} AS id, h.score, h._distance"
    """What it shows, before the payload."""
    payload: bool = True
    shown_by: str = "_scored"
    """The macro of a collection's schema that shows the columns of hits found elsewhere."""


_UNSCORED: Final = "h.{id} AS id"

VERBS: Final = (
    Verb(
        name="search",
        parameters=f"query, k := 10, {_OPTIONS}, exact := false",
        call=f"search({{collection}}, query, k, {_PASSED}, exact",
    ),
    Verb(
        name="search_by_id",
        parameters=f"id, k := 10, {_OPTIONS}, exact := false",
        call=f"search_by_id({{collection}}, id, k, {_PASSED}, exact",
    ),
    Verb(
        name="recommend",
        parameters=f"positive, negative := NULL, strategy := NULL, k := 10, {_OPTIONS}",
        call=f"ranked('recommend', {{collection}}, positive, negative, strategy, k, {_PASSED}",
    ),
    Verb(
        name="discover",
        parameters=f"target, context, k := 10, {_OPTIONS}",
        call=f"ranked('discover', {{collection}}, target, context, NULL, k, {_PASSED}",
    ),
    Verb(
        name="context",
        parameters=f"pairs, k := 10, {_OPTIONS}",
        call=f"ranked('context', {{collection}}, pairs, NULL, NULL, k, {_PASSED}",
    ),
    Verb(
        name="query",
        parameters=f"query, k := 10, {_OPTIONS}",
        call=f"ranked('query', {{collection}}, query, NULL, NULL, k, {_PASSED}",
    ),
    Verb(
        name="text",
        parameters='query, "columns" := NULL, k := 10, filter := NULL, options := NULL',
        call="ranked('text', {collection}, query, \"columns\", options, k, filter, NULL, NULL",
    ),
    Verb(
        name="hybrid",
        parameters="query := NULL, \"text\" := NULL, sparse := NULL, fusion := 'rrf', k := 10, "
        f"{_OPTIONS}, options := NULL",
        call="ranked('hybrid', {collection}, {'vector': query, 'text': \"text\", 'sparse': sparse}, "
        f"fusion, options, k, {_PASSED}",
    ),
    Verb(
        name="group",
        parameters=f'query, "by", k := 10, group_size := 3, {_OPTIONS}',
        call=f'group({{collection}}, query, "by", k, group_size, {_PASSED}',
        columns='h._rank, h."group", h.{id} AS id, h.score, h._distance',
        shown_by="_grouped",
    ),
    Verb(
        name="get",
        parameters="ids",
        call="ranked('get', {collection}, ids, NULL, NULL, NULL, NULL, NULL, NULL",
        columns=_UNSCORED,
        shown_by="_points",
    ),
    Verb(
        name="scroll",
        parameters="k := 10, start := NULL, order_by := NULL, filter := NULL",
        call="ranked('scroll', {collection}, start, order_by, NULL, k, filter, NULL, NULL",
        columns=_UNSCORED,
        shown_by="_points",
    ),
    Verb(
        name="facet",
        parameters="key, k := 10, filter := NULL",
        call="facet({collection}, key, k, filter",
        columns='h."value", h."count"',
        payload=False,
        shown_by="_facet",
    ),
    Verb(
        name="diff",
        parameters="old, new := NULL",
        call="diff({collection}, old, new",
        columns='h.change, h.{id} AS id, h."column"',
        payload=False,
        shown_by="_diff",
    ),
)
"""Every one is a macro of each collection's schema, and a generic one that takes the name first."""

_A: Final = "a::DOUBLE[]"
_B: Final = "b::DOUBLE[]"
_COSINE: Final = f"list_cosine_distance({_A}, {_B})"
_COSINE_OF_ZERO_IS_1: Final = (
    # Of a zero vector DuckDB 2.0 says NaN, the greatest number, and 1.5 what it says of opposite ones: 2.
    # In 2.0 the remainder by 3 turns 4 into 1 and leaves 0 to 2 as they are, so that the distance is written,
    # and computed, once. A subquery would become a join with each vector; a lambda takes no subqueries.
    f"CASE WHEN {_COSINE} = 2 AND list_inner_product({_A}, {_A}) * list_inner_product({_B}, {_B}) = 0 "
    f"THEN 1.0::DOUBLE ELSE {_COSINE} END"
    if duckdb.__version__.startswith("1.")
    else f"least({_COSINE}, 4.0::DOUBLE) % 3.0::DOUBLE"
)
DISTANCES: Final = tuple(
    # DuckDB's own refuse the NULLs that it puts under a NULL array when it makes it a list.
    f"CREATE OR REPLACE MACRO {name}(a, b) AS CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN {text} END"
    for name, text in {
        "cosine_distance": _COSINE_OF_ZERO_IS_1,
        "l2_distance": f"list_distance({_A}, {_B})",
        "inner_product": f"list_inner_product({_A}, {_B})",
        "manhattan_distance": f"CASE WHEN len({_A}) != len({_B}) "
        "THEN error('manhattan_distance: the vectors differ in size') ELSE "
        f"list_sum(list_transform(list_zip({_A}, {_B}), lambda p: abs(p[1] - p[2]))) END",
    }.items()
)


_MARK: Final = chr(31)
"""Stands between names."""
_NAME: Final = chr(30)
"""Stands for a name, in texts that it is put into."""


def quoted(name: str) -> str:
    """Return a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def collection_macros(
    name: str, schema: str, prefix: str, *, id: str, payload: str | None, vectors: str | None
) -> Iterator[str]:
    """Yield the macros of one collection.

    Args:
        name: The collection.
        schema: The schema they go to.
        prefix: What the names of this attachment's functions begin with.
        id: Which field of the hits is the id.
        payload: The function that turns hits into payload; None where there is none.
        vectors: The same for the vectors, which `_near` alone shows: it has the columns of the view.
    """
    rest = "" if payload is None else f", unnest({payload}(h.place, h.row_id))"
    at = quoted(schema)
    shapes = {}
    for verb in VERBS:
        call = f"{prefix}{verb.call.replace('{collection}', literal(name))}, {STATEMENT})"
        columns = verb.columns.replace("{id}", id) + (rest if verb.payload else "")
        yield (
            f"CREATE OR REPLACE MACRO {at}.{quoted(verb.name)}({verb.parameters}) AS TABLE "
            f"SELECT {columns} FROM (SELECT unnest({call}) AS h)"
        )
        shapes[verb.shown_by] = columns
    near = f'{prefix}search({literal(name)}, query, k, filter, "using", NULL, false, {STATEMENT})'
    held = "" if vectors is None else f", unnest({vectors}(h.place, h.row_id))"
    yield (
        f'CREATE OR REPLACE MACRO {at}._near(query, k := 10, filter := NULL, "using" := NULL) AS TABLE '
        f"SELECT h.{id} AS id{rest}{held} FROM (SELECT unnest({near}) AS h)"
    )
    for shown_by, columns in shapes.items():
        yield (
            f"CREATE OR REPLACE MACRO {at}.{shown_by}(hits) AS TABLE "
            f"SELECT {columns} FROM (SELECT unnest(hits) AS h)"
        )


def generic_macros(
    catalog: str, schemas: Mapping[str, str], broken: Mapping[str, str], *, prefix: str, url: str
) -> Iterator[str]:
    """Yield the macros that take the collection's name first.

    Their columns are those of the collection, so the name chooses the macro that shows the hits while the
    statement is bound. A name is looked up in one text, because a CASE of 200 names costs four milliseconds.

    Args:
        catalog: The attached database.
        schemas: Collection to schema.
        broken: Collection to the reason why it does not open.
        prefix: What the names of this attachment's functions begin with.
        url: Where the collections are, for messages.
    """
    known = ", ".join(repr(n) for n in sorted(schemas)[:20]) + (", …" if len(schemas) > 20 else "")
    hint = f"collections: {known}" if schemas else "there are no collections"
    # Every function and operator costs the binder some 20 µs a call; replace() does for a chain of them.
    sentence = f"no collection {{}} in {url}\nhint: {hint}"
    named, nameless = (literal(sentence.replace("{}", name, 1)) for name in (f"'{_NAME}'", "NULL"))
    unknown = f"error(coalesce(replace({named}, {literal(_NAME)}, collection), {nameless}))"
    plain = [n for n, schema in schemas.items() if n == schema and not {_MARK, _NAME, '"'} & set(n)]
    names = literal(_MARK + _MARK.join(plain) + _MARK)
    asked = f"replace({literal(_MARK + _NAME + _MARK)}, {literal(_NAME)}, collection)"
    for verb in VERBS:
        shown = f".{verb.shown_by}(a.hits)"
        start = f"FROM {quoted(catalog)}."
        cases = "".join(
            f" WHEN collection = {literal(name)} THEN {literal(start + quoted(schema) + shown)}"
            for name, schema in schemas.items()
            if name not in plain
        ) + "".join(
            f" WHEN collection = {literal(name)} THEN error({literal(why)})" for name, why in broken.items()
        )
        if plain:
            own = f"replace({literal(start + quoted(_NAME) + shown)}, {literal(_NAME)}, collection)"
            cases = f" WHEN contains({names}, {asked}) THEN {own}{cases}"
        text = f"CASE{cases} ELSE {unknown} END" if cases else unknown
        call = f"{prefix}{verb.call.replace('{collection}', 'collection')}, {STATEMENT})"
        yield (
            f"CREATE OR REPLACE MACRO {quoted(verb.name)}(collection, {verb.parameters}) AS TABLE "
            f"SELECT r.* FROM (SELECT {call} AS hits) a, system.main.query({text}) r"
        )
