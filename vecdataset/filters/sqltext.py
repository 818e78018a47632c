"""SQL text, a published subset of DuckDB's expressions, read into the tree and written from it.

The grammar stands in docs/filters.md. The parser is a recursive descent over tokens,
one method for each level of precedence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from vecdataset.errors import InvalidFilterError, did_you_mean
from vecdataset.filters.as_qdrant import write_condition
from vecdataset.filters.conditions import HasId
from vecdataset.filters.expressions import (
    ALIASES,
    FUNCTIONS,
    Arithmetic,
    Call,
    Column,
    Compare,
    CompareOp,
    Constant,
    In,
    IsBool,
    IsNullExpr,
    Like,
    Negative,
    PointId,
)
from vecdataset.filters.qdrant import parse_condition
from vecdataset.filters.tree import And, Node, Not, Or, all_of, any_of
from vecdataset.filters.values import Instant, is_number, parse_instant

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<word>[^\W\d]\w*)
      | (?P<symbol><>|!=|==|<=|>=|[-+*/%=<>(),.\[\]])
    """,
    re.VERBOSE,
)
_KEYWORDS: Final = frozenset(
    "AND OR NOT IN IS NULL TRUE FALSE BETWEEN LIKE ILIKE".split()  # noqa: SIM905  reads as the list it is
)
_COMPARE: Final[dict[str, CompareOp]] = {
    "=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_MAX_DEPTH: Final = 60  # ten Python calls each
_MAX_CHAIN: Final = 100


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind, its text (a keyword in capitals), and where it begins."""

    kind: str
    text: str
    at: int


def parse_sql(text: str) -> Node:
    """Return the tree of a condition in SQL text.

    Raises:
        InvalidFilterError: The text is not in the grammar; `position` says where.
    """
    return _Parser(text).parse()


class _Parser:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.next = 0
        self.depth = 0

    def _tokens(self) -> Iterator[Token]:
        at = 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if found is None:
                self._unreadable(at)
            kind, text = str(found.lastgroup), found.group()
            if kind == "word" and text.upper() in _KEYWORDS:
                kind, text = "keyword", text.upper()
            if kind == "number" and re.match(r"\w", self.text[found.end() :]):
                self._fail(f"unexpected {self.text[found.end()]!r} after the number {text}", found.end())
            if kind != "space":
                yield Token(kind, text, at)
            at = found.end()
        yield Token("end", "", len(self.text))

    def _unreadable(self, at: int) -> NoReturn:
        c = self.text[at]
        hints = {
            "'": "text ends with a single quote; a quote inside is doubled: 'it''s'",
            '"': 'names end with a double quote; one inside is doubled: "a ""b"""',
            "`": 'names with odd characters stand in double quotes: "odd name"',
            "?": "put the value into the text, or use {key: value}",
            "$": "put the value into the text, or use {key: value}",
            ";": "a filter is one expression, without a semicolon",
            "&": "write AND",
            "|": "write OR",
            "!": "write NOT, or <> for not equal",
        }
        what = "a quote that never closes" if c in "'\"" else f"unexpected character {c!r}"
        self._fail(what, at, hint=hints.get(c))

    def _fail(self, message: str, at: int, *, hint: str | None = None) -> NoReturn:
        start = self.text.rfind("\n", 0, at) + 1
        line = self.text[start:].partition("\n")[0].replace("\t", " ")
        # A long line is cut to what stands around the mistake.
        left = max(0, at - start - 60)
        shown = ("…" if left else "") + line[left : at - start + 40]
        caret = " " * (at - start - left + bool(left)) + "^"
        raise InvalidFilterError(
            f"{message}, at position {at} of the filter\n  {shown}\n  {caret}", hint=hint, position=at
        )

    # ------------------------------------------------------------------ tokens

    @property
    def here(self) -> Token:
        return self.tokens[self.next]

    def advance(self) -> Token:
        token = self.here
        self.next += 1
        return token

    def take(self, *texts: str) -> Token | None:
        """Return the next token and step over it, if it is one of these keywords or symbols."""
        here = self.here
        return self.advance() if here.kind in {"keyword", "symbol"} and here.text in texts else None

    def expect(self, text: str, *, after: str) -> Token:
        taken = self.take(text)
        if taken is None:
            self._fail(f"expected {text!r} after {after}, found {self._found()}", self.here.at)
        return taken

    def _found(self) -> str:
        return "the end" if self.here.kind == "end" else repr(self.here.text)

    def _chained(self, *texts: str) -> Iterator[Token]:
        """Yield operators as long as they come; each makes the tree one level deeper."""
        for _ in range(_MAX_CHAIN):
            if (taken := self.take(*texts)) is None:
                return
            yield taken
        self._fail(f"more than {_MAX_CHAIN} operators in a row", self.here.at)

    # ----------------------------------------------------------------- grammar

    def parse(self) -> Node:
        if self.here.kind == "end":
            raise InvalidFilterError(
                "the filter is empty", hint="leave the filter out to match every point", position=0
            )
        node = self.disjunction()
        if self.here.kind != "end":
            self._trailing()
        return node

    def _trailing(self) -> NoReturn:
        here = self.here
        hint = None
        if here.kind == "word":
            hint = did_you_mean(here.text.upper(), _KEYWORDS, what="keywords")
        elif here.text == "[":
            hint = "elements have no index here; use list_contains, or Qdrant's JSON with 'a[0]'"
        elif here.kind == "symbol" and here.text in _COMPARE:
            hint = "join comparisons with AND"
        self._fail(f"expected AND, OR or the end, found {self._found()}", here.at, hint=hint)

    def disjunction(self) -> Node:
        items = [self.conjunction()]
        while self.take("OR"):
            items.append(self.conjunction())
        return any_of(items) if len(items) > 1 else items[0]

    def conjunction(self) -> Node:
        items = [self.negation()]
        while self.take("AND"):
            items.append(self.negation())
        return all_of(items) if len(items) > 1 else items[0]

    def negation(self) -> Node:
        if not self.take("NOT"):
            return self.test()
        self._deeper()
        node = Not(self.negation())
        self.depth -= 1
        return node

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self._fail(f"more than {_MAX_DEPTH} levels", self.here.at)

    def test(self) -> Node:
        node = self.comparison()
        for _ in self._chained("IS"):
            negated = self.take("NOT") is not None
            if self.take("NULL"):
                node = IsNullExpr(node)
            elif found := self.take("TRUE", "FALSE"):
                node = IsBool(node, found.text == "TRUE")
            else:
                self._fail(f"expected NULL, TRUE or FALSE after IS, found {self._found()}", self.here.at)
            node = Not(node) if negated else node
        return node

    def comparison(self) -> Node:
        left = self.predicate()
        if op := self.take(*_COMPARE):
            return Compare(_COMPARE[op.text], left, self.predicate())
        return left

    def predicate(self) -> Node:
        left = self.sum()
        for _ in range(_MAX_CHAIN):
            negated = False
            if self.here.text == "NOT" and self.tokens[self.next + 1].text in {
                "IN",
                "LIKE",
                "ILIKE",
                "BETWEEN",
            }:
                negated = self.take("NOT") is not None
            if self.take("IN"):
                node: Node = In(left, self._in_items())
            elif found := self.take("LIKE", "ILIKE"):
                node = Like(left, self.sum(), found.text == "ILIKE")
            elif self.take("BETWEEN"):
                low = self.sum()
                self.expect("AND", after="BETWEEN and its lower bound")
                node = And((Compare(">=", left, low), Compare("<=", left, self.sum())))
            else:
                return left
            left = Not(node) if negated else node
        return self._fail(f"more than {_MAX_CHAIN} operators in a row", self.here.at)

    def _in_items(self) -> tuple[Node, ...]:
        if self.here.text == "[":
            items = self._list_items()
            return tuple(items)
        self.expect("(", after="IN")
        items = [self.disjunction()]
        while self.take(","):
            items.append(self.disjunction())
        self.expect(")", after="the values of IN")
        return tuple(items)

    def sum(self) -> Node:
        left = self.product()
        for op in self._chained("+", "-"):
            left = Arithmetic(op.text, left, self.product())  # type: ignore[arg-type]  # one of the two
        return left

    def product(self) -> Node:
        left = self.unary()
        for op in self._chained("*", "/", "%"):
            left = Arithmetic(op.text, left, self.unary())  # type: ignore[arg-type]  # one of the three
        return left

    def unary(self) -> Node:
        if self.take("+"):
            return self.unary()
        if not self.take("-"):
            return self.primary()
        self._deeper()
        item = self.unary()
        self.depth -= 1
        if isinstance(item, Constant) and is_number(item.to):
            return Constant(-item.to)
        return Negative(item)

    def primary(self) -> Node:
        token = self.advance()
        if token.kind == "number":
            return Constant(self._number(token))
        if token.kind == "text":
            return Constant(_unquoted(token.text))
        if token.kind == "keyword" and token.text in {"TRUE", "FALSE", "NULL"}:
            return Constant({"TRUE": True, "FALSE": False, "NULL": None}[token.text])
        if token.kind == "symbol" and token.text == "(":
            self._deeper()
            node = self.disjunction()
            self.depth -= 1
            self.expect(")", after="the expression in parentheses")
            return node
        if token.kind == "symbol" and token.text == "[":
            self.next -= 1
            return self._list()
        if token.kind in {"word", "quoted"}:
            return self._name(token)
        self.next -= 1
        compares = token.kind == "symbol" and token.text in _COMPARE
        hint = "a comparison needs a value on both sides" if compares else None
        return self._fail(f"expected a value, found {self._found()}", token.at, hint=hint)

    def _number(self, token: Token) -> float:
        if re.fullmatch(r"[0-9]+", token.text):
            if len(token.text) > 400:
                self._fail("this number has too many digits", token.at)
            return int(token.text)
        number = float(token.text)
        if math.isinf(number):
            self._fail(f"the number {token.text} is too large", token.at)
        return number

    def _list(self) -> Node:
        at = self.here.at
        items = self._list_items()
        if not all(isinstance(i, Constant) for i in items):
            self._fail("a list holds something else than values", at)
        return Constant(tuple(i.to for i in items if isinstance(i, Constant)))

    def _list_items(self) -> list[Node]:
        self.expect("[", after="a list")
        self._deeper()
        items: list[Node] = []
        while not self.take("]"):
            if items:
                self.expect(",", after="a value of the list")
            items.append(self.sum())
        self.depth -= 1
        return items

    def _name(self, token: Token) -> Node:
        name = token.text if token.kind == "word" else token.text[1:-1].replace('""', '"')
        if token.kind == "word" and self.here.text == "(":
            return self._call(token)
        if (
            token.kind == "word"
            and self.here.kind == "text"
            and name.upper() in {"DATE", "TIMESTAMP", "TIMESTAMPTZ"}
        ):
            return Constant(self._time(name.upper()))
        path = [name]
        while self.take("."):
            step = self.advance()
            if step.kind not in {"word", "quoted", "keyword"}:
                self.next -= 1
                self._fail(f"expected a name after '.', found {self._found()}", self.here.at)
            raw = self.text[step.at : step.at + len(step.text)]
            path.append(raw if step.kind != "quoted" else step.text[1:-1].replace('""', '"'))
        return PointId() if path == ["id"] else Column(tuple(path))

    def _time(self, kind: str) -> Instant:
        token = self.advance()
        text = _unquoted(token.text)
        found = parse_instant(text)
        if found is None or (kind == "DATE" and re.search("[Tt: ]", text.strip())):
            self._fail(
                f"{kind} {token.text} cannot be read",
                token.at,
                hint="DATE '2024-12-31', TIMESTAMP '2024-12-31 23:59:59' or TIMESTAMP '2024-12-31T23:59:00Z'",
            )
        return found

    def _call(self, token: Token) -> Node:
        name = token.text.lower()
        name = ALIASES.get(name, name)
        self.expect("(", after=token.text)
        self._deeper()
        at = self.here.at
        args: list[Node] = []
        while not self.take(")"):
            if args:
                self.expect(",", after=f"an argument of {token.text}")
            args.append(self.disjunction())
        self.depth -= 1
        if name == "matches":
            return self._matches(args, at)
        function = FUNCTIONS.get(name)
        if function is None:
            hint = did_you_mean(name, {*FUNCTIONS, *ALIASES, "matches"}, what="functions")
            self._fail(f"unknown function {token.text!r}", token.at, hint=hint)
        wanted = list(function.arguments)
        rest = wanted[-1] == "..."
        if len(args) < len(wanted) - rest or (len(args) > len(wanted) and not rest):
            self._fail(f"{token.text}({', '.join(wanted)}) has {len(args)} arguments here", token.at)
        return Call(name, tuple(args))

    def _matches(self, args: list[Node], at: int) -> Node:
        if len(args) != 1 or not isinstance(args[0], Constant) or not isinstance(args[0].to, str):
            self._fail("matches() takes one text: a Qdrant filter as JSON", at)
        try:
            spec = json.loads(args[0].to)
        except ValueError as exc:
            self._fail(f"matches() holds no JSON: {exc}", at)
        if not isinstance(spec, dict):
            self._fail("matches() takes a JSON object", at)
        return parse_condition(spec)


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")


# ----------------------------------------------------------------------- writing

_OR, _AND, _NOT, _TEST, _COMPARISON, _PREDICATE, _SUM, _PRODUCT, _UNARY, _PRIMARY = range(10)


def write_sql(node: Node) -> str:
    """Return SQL text that parses to a tree of the same meaning."""
    return _write(node)[0]


def _at(node: Node, level: int) -> str:
    """Return the text of a node, in parentheses where it binds less tightly than `level`."""
    text, own = _write(node)
    return text if own >= level else f"({text})"


def _write(node: Node) -> tuple[str, int]:
    match node:
        case And(items) if items:
            return " AND ".join(_at(i, _NOT) for i in items), _AND
        case Or(items) if items:
            return " OR ".join(_at(i, _AND) for i in items), _OR
        case Not(In(left, items)) if items:
            return f"{_at(left, _SUM)} NOT IN ({_comma(items)})", _PREDICATE
        case Not(Like(left, pattern, ignore_case)):
            word = "ILIKE" if ignore_case else "LIKE"
            return f"{_at(left, _SUM)} NOT {word} {_at(pattern, _SUM)}", _PREDICATE
        case Not(IsNullExpr(item)):
            return f"{_at(item, _COMPARISON)} IS NOT NULL", _TEST
        case Not(IsBool(item, to)):
            return f"{_at(item, _COMPARISON)} IS NOT {'TRUE' if to else 'FALSE'}", _TEST
        case Not(item):
            return f"NOT {_at(item, _NOT)}", _NOT
        case In(left, ()):
            return f"{_at(left, _SUM)} IN []", _PREDICATE
        case In(left, items):
            return f"{_at(left, _SUM)} IN ({_comma(items)})", _PREDICATE
        case Like(left, pattern, ignore_case):
            return f"{_at(left, _SUM)} {'ILIKE' if ignore_case else 'LIKE'} {_at(pattern, _SUM)}", _PREDICATE
        case IsNullExpr(item):
            return f"{_at(item, _COMPARISON)} IS NULL", _TEST
        case IsBool(item, to):
            return f"{_at(item, _COMPARISON)} IS {'TRUE' if to else 'FALSE'}", _TEST
        case Compare(op, left, right):
            return f"{_at(left, _PREDICATE)} {op} {_at(right, _PREDICATE)}", _COMPARISON
        case Arithmetic("+" | "-" as op, left, right):
            return f"{_at(left, _SUM)} {op} {_at(right, _PRODUCT)}", _SUM
        case Arithmetic(op, left, right):
            return f"{_at(left, _PRODUCT)} {op} {_at(right, _UNARY)}", _PRODUCT
        case Negative(item):
            return f"- {_at(item, _PRIMARY)}", _UNARY
        case Call(name, args):
            return f"{name}({_comma(args)})", _PRIMARY
        case Constant(to):
            return _constant(to), _UNARY if is_number(to) and math.copysign(1, to) < 0 else _PRIMARY
        case Column(path):
            return ".".join(map(_identifier, path)), _PRIMARY
        case PointId():
            return "id", _PRIMARY
        case HasId(ids) if ids and not any(isinstance(i, str) for i in ids):
            return f"id IN ({', '.join(map(str, ids))})", _PREDICATE
        case _:
            return f"matches({_constant(json.dumps(write_condition(node), ensure_ascii=False))})", _PRIMARY


def _comma(items: tuple[Node, ...]) -> str:
    return ", ".join(_at(i, _SUM) for i in items)


def _identifier(name: str) -> str:
    if re.fullmatch(r"[^\W\d]\w*", name) and name.upper() not in _KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def _constant(to: Any) -> str:
    match to:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if to else "FALSE"
        case str():
            return "'" + to.replace("'", "''") + "'"
        case Instant():
            return f"TIMESTAMP '{to.isoformat()}'"
        case tuple():
            return "[" + ", ".join(map(_constant, to)) + "]"
        case _:
            return repr(to)
