"""The SQL text of an attached catalog: macros over the functions, and views over the collections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_OPTIONS: Final = 'filter := NULL, "using" := NULL, params := NULL'
_PASSED: Final = 'filter, "using", params'


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A table macro that answers with points."""

    name: str
    parameters: str
    """Its parameters after the collection, with defaults."""
    call: str
    """The function that finds the hits, with `{collection}` for the name."""
    scored: bool = True
    """Whether `_rank`, `score` and `_distance` mean something."""

    @property
    def names(self) -> list[str]:
        """The parameters without defaults."""
        return [p.split(":=")[0].strip().strip('"') for p in self.parameters.split(", ")]


VERBS: Final = (
    Verb(
        name="search",
        parameters=f"query, k := 10, {_OPTIONS}, exact := false",
        call=f"search({{collection}}, query, k, {_PASSED}, exact)",
    ),
    Verb(
        name="search_by_id",
        parameters=f"id, k := 10, {_OPTIONS}, exact := false",
        call=f"search_by_id({{collection}}, id, k, {_PASSED}, exact)",
    ),
    Verb(
        name="recommend",
        parameters=f"positive, negative := NULL, strategy := NULL, k := 10, {_OPTIONS}",
        call=f"ranked('recommend', {{collection}}, positive, negative, strategy, k, {_PASSED})",
    ),
    Verb(
        name="discover",
        parameters=f"target, context, k := 10, {_OPTIONS}",
        call=f"ranked('discover', {{collection}}, target, context, NULL, k, {_PASSED})",
    ),
    Verb(
        name="context",
        parameters=f"pairs, k := 10, {_OPTIONS}",
        call=f"ranked('context', {{collection}}, pairs, NULL, NULL, k, {_PASSED})",
    ),
    Verb(
        name="query",
        parameters=f"query, k := 10, {_OPTIONS}",
        call=f"ranked('query', {{collection}}, query, NULL, NULL, k, {_PASSED})",
    ),
    Verb(
        name="text",
        parameters='query, "columns" := NULL, k := 10, filter := NULL, options := NULL',
        call="ranked('text', {collection}, query, \"columns\", options, k, filter, NULL, NULL)",
    ),
    Verb(
        name="hybrid",
        parameters="query := NULL, \"text\" := NULL, sparse := NULL, fusion := 'rrf', k := 10, "
        f"{_OPTIONS}, options := NULL",
        call="ranked('hybrid', {collection}, {'vector': query, 'text': \"text\", 'sparse': sparse}, "
        f"fusion, options, k, {_PASSED})",
    ),
    Verb(
        name="get",
        parameters="ids",
        call="ranked('get', {collection}, ids, NULL, NULL, NULL, NULL, NULL, NULL)",
        scored=False,
    ),
    Verb(
        name="scroll",
        parameters="k := 10, start := NULL, order_by := NULL, filter := NULL",
        call="ranked('scroll', {collection}, start, order_by, NULL, k, filter, NULL, NULL)",
        scored=False,
    ),
)
"""Every one is a macro of each collection's schema, and a generic one that takes the name first."""

DISTANCES: Final = (
    (
        "CREATE OR REPLACE MACRO cosine_distance(a, b) AS (SELECT CASE WHEN isnan(d) THEN 1.0::DOUBLE "
        "ELSE d END FROM (SELECT list_cosine_distance(a::DOUBLE[], b::DOUBLE[]) AS d))"
    ),
    "CREATE OR REPLACE MACRO l2_distance(a, b) AS list_distance(a::DOUBLE[], b::DOUBLE[])",
    "CREATE OR REPLACE MACRO inner_product(a, b) AS list_inner_product(a::DOUBLE[], b::DOUBLE[])",
    (
        "CREATE OR REPLACE MACRO manhattan_distance(a, b) AS CASE WHEN len(a::DOUBLE[]) != len(b::DOUBLE[]) "
        "THEN error('manhattan_distance: the vectors differ in size') ELSE "
        "list_sum(list_transform(list_zip(a::DOUBLE[], b::DOUBLE[]), lambda p: abs(p[1] - p[2]))) END"
    ),
)


def quoted(name: str) -> str:
    """Return a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def collection_macros(name: str, schema: str, prefix: str, *, ids: str, payload: str | None) -> Iterator[str]:
    """Yield the macros of one collection.

    Args:
        name: The collection.
        schema: The schema they go to.
        prefix: What the names of this attachment's functions begin with.
        ids: The function that turns references into ids.
        payload: The function that turns them into payload; None where there is none.
    """
    rest = "" if payload is None else f", unnest({payload}(ref))"
    for verb in VERBS:
        call = prefix + verb.call.replace("{collection}", literal(name))
        shown = (
            f"_rank, {ids}(ref) AS id, score, _distance{rest}" if verb.scored else f"{ids}(ref) AS id{rest}"
        )
        yield (
            f"CREATE OR REPLACE MACRO {quoted(schema)}.{verb.name}({verb.parameters}) AS TABLE "
            f"SELECT {shown} FROM (SELECT unnest({call}, max_depth := 2))"
        )


def generic_macros(
    catalog: str, schemas: Mapping[str, str], broken: Mapping[str, str], *, url: str
) -> Iterator[str]:
    """Yield the macros that take the collection's name first.

    Args:
        catalog: The attached database.
        schemas: Collection to schema.
        broken: Collection to the reason why it does not open.
        url: Where the collections are, for messages.
    """
    for verb in VERBS:
        passed = ", ".join(f"a.{quoted(n)}" for n in verb.names)
        bound = ", ".join(f"{quoted(n)} AS {quoted(n)}" for n in verb.names)
        cases = "".join(
            f" WHEN {literal(name)} THEN "
            + literal(f"FROM {quoted(catalog)}.{quoted(schema)}.{verb.name}({passed})")
            for name, schema in schemas.items()
        ) + "".join(f" WHEN {literal(name)} THEN error({literal(why)})" for name, why in broken.items())
        known = ", ".join(repr(n) for n in sorted(schemas)[:20]) + (", …" if len(schemas) > 20 else "")
        hint = f"collections: {known}" if schemas else "there are no collections"
        unknown = (
            f"error({literal('no collection ')} || coalesce('''' || collection || '''', 'NULL') || "
            f"{literal(f' in {url}')} || chr(10) || {literal(f'hint: {hint}')})"
        )
        text = f"CASE collection{cases} ELSE {unknown} END" if cases else unknown
        yield (
            f"CREATE OR REPLACE MACRO {verb.name}(collection, {verb.parameters}) AS TABLE "
            f"SELECT r.* FROM (SELECT {bound}) a, LATERAL (FROM query({text})) r"
        )
