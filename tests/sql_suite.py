"""Statements with the rows they must give, in the files of `tests/sql`; its README says how they are written.

python tests/sql_suite.py       writes the rows below each `oracle` line anew, from the oracle
"""

import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import sql_oracle

import vecdataset as vd
import vecdataset.duckdb

FOLDER = Path(__file__).parent / "sql"
KINDS = ("run", "query", "error", "python", "let", "open", "use")
LINES = ("let", "open", "use")
"""Kinds of a single line."""
WAYS = ("constant", "parameter", "subquery", "variable", "lateral")


@dataclass
class Record:
    """One thing that a file says."""

    line: int
    kind: str
    said: str
    """What stands behind the kind: a title, the pattern of an error, Python."""
    sql: str = ""
    oracle: str | None = None
    rows: list = field(default_factory=list)
    span: tuple = (0, 0)
    """The lines, from 0, of its rows."""


def read(path):
    """Return the records of a file."""
    lines = path.read_text().splitlines()
    records, at = [], 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        start, kind = at, lines[at].split()[0]
        assert kind in KINDS, f"{path.name}:{at + 1}: {kind!r} is none of {KINDS}"
        record = Record(at + 1, kind, lines[at][len(kind) :].strip())
        at += 1
        sql = []
        while kind not in LINES and at < len(lines) and lines[at].strip() and lines[at] != "----":
            if lines[at].startswith("oracle "):
                record.oracle = lines[at].removeprefix("oracle ")
            else:
                sql.append(lines[at])
            at += 1
        record.sql = "\n".join(sql)
        if at < len(lines) and lines[at] == "----":
            begin = at = at + 1
            while at < len(lines) and lines[at].strip():
                record.rows.append(json.loads(lines[at]))
                at += 1
            record.span = (begin, at)
        assert record.kind != "query" or record.span != (0, 0), f"{path.name}:{start + 1}: no ---- and rows"
        records.append(record)
    return records


def files():
    return sorted(FOLDER.glob("*.test"))


# ------------------------------------------------------------------------- statements

MACRO = re.compile(r"<(\w+)>\(")
ARGUMENT = re.compile(r"<<(.*?)>>", re.DOTALL)
VECTOR = re.compile(r"\{([a-z]+)\}")


def literal(vector):
    return "[" + ", ".join(repr(float(x)) for x in np.asarray(vector)) + "]"


def variants(sql):
    """Yield (what it is, statement, arguments): every way of writing one with `<macro>(` and `<<argument>>`.

    A macro is written with the collection's name as first argument, and in the collection's schema.
    An argument is a constant, a parameter, a scalar subquery, a variable, and a column of a table
    that stands to the left: a lateral join.
    """
    for own in (False, True) if MACRO.search(sql) else (None,):
        shaped = sql if own is None else _macro(sql, own=own)
        given = [_vector_names(a) for a in ARGUMENT.findall(shaped)]
        for way in WAYS if given else (None,):
            written = shaped
            for number in range(len(given)):
                before, after = ARGUMENT.split(written, maxsplit=1)[::2]
                written = before + _argument(way, number, given) + after
            if way == "lateral":
                written = _beside(written)
            what = ", ".join(w for w in ("own" if own else None, way) if w)
            yield what, _vector_names(written), (way, given)


def _beside(sql):
    """Put the table `asked` to the left of what a statement reads first."""
    told, count = re.subn(r"\bFROM (?=vec\.)", "FROM asked, ", sql, count=1)
    return told if count else f"{sql} FROM asked"


def _macro(sql, *, own):
    if own:
        return MACRO.sub(r"vec.packages.\1(", sql)
    return re.sub(r"(vec\.\w+\('packages'), \)", r"\1)", MACRO.sub(r"vec.\1('packages', ", sql))


def _vector_names(text):
    return VECTOR.sub(lambda m: literal(sql_oracle.QUESTIONS[m[1]]), text)


def _argument(way, number, given):
    return {
        "constant": given[number],
        "parameter": f"$given{number}",
        "subquery": f"(SELECT given{number} FROM asked)",
        "variable": f"getvariable('given{number}')",
        "lateral": f"asked.given{number}",
    }[way]


# ---------------------------------------------------------------------------- running


def fill(root):
    """Make the collections that the files ask: 2,000 packages, and a shelf of forty with every kind of vector."""
    packages = vd.load(sql_oracle.DATA / "packages.parquet", root / "packages")
    packages.create_payload_index("summary", "text", stem=False, remove_stop_words=False)
    distances = {"cosine": "Cosine", "dot": "Dot", "euclid": "Euclid", "manhattan": "Manhattan"}
    shelf = vd.create(
        root / "shelf",
        vectors={name: vd.VectorParams(size=8, distance=d) for name, d in distances.items()}
        | {"late": vd.VectorParams(size=4, multivector=True)},
        sparse={"words": vd.SparseVectorParams()},
    )
    shelf.upsert([
        {
            "id": p["id"],
            "vector": {n: p[n].tolist() for n in (*distances, "late")} | {"words": vd.SparseVector(**p["words"])},
            "payload": {n: p[n] for n in ("name", "section", "depends")},
        }
        for p in sql_oracle.SHELF
    ])  # fmt: skip
    return root


class Session:
    """A connection with the collections attached, and what a file calls things."""

    def __init__(self, root, folder, *, every=True, connection=None):
        """With `every`, each statement runs in every way of writing it, else in one of them."""
        self.root, self.folder, self.every = root, folder, every
        self.names = {**sql_oracle.NAMES, "folder": str(folder)}
        self.values = {w: v.tolist() for w, v in sql_oracle.QUESTIONS.items()}
        self.values["folder"] = str(folder)
        self.connection = self.con = connection
        self.cursors = {}

    def open(self, how):
        """`memory`, `file` or `read-only`; with `copied`, the collections are the file's own."""
        words = how.split() or ["memory"]
        if "copied" in words:
            self.root = Path(shutil.copytree(self.root, self.folder / "root"))
        path = str(self.folder / "own.db")
        if "read-only" in words:
            with duckdb.connect(path) as con:
                con.execute(
                    "CREATE TABLE shelves AS SELECT * FROM (VALUES (7508, 'A'), (14600, 'B')) t(id, place)"
                )
        self.connection = duckdb.connect(
            ":memory:" if "memory" in words else path, read_only="read-only" in words
        )
        vecdataset.duckdb.attach(self.connection, str(self.root))
        self.cursors = {"": self.connection}
        self.con = self.connection
        self.names |= {"root": self.root, "vd": vd}
        self.names["connection"] = self.connection

    def close(self):
        if self.connection is not None:
            self.connection.close()

    def execute(self, sql, asked=(None, ())):
        way, given = asked
        values = dict(self.values)
        if way in ("subquery", "lateral"):
            columns = ", ".join(f"{g} AS given{n}" for n, g in enumerate(given))
            self.con.execute(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT {columns}")
        for number, expression in enumerate(given):
            if way == "parameter":
                values[f"given{number}"] = self.con.execute(f"SELECT {expression}").fetchone()[0]
            elif way == "variable":
                self.con.execute(f"SET VARIABLE given{number} = {expression}")
        named = {n: values[n] for n in re.findall(r"\$(\w+)", sql) if n in values}
        return self.con.execute(sql, named) if named else self.con.execute(sql)

    def check(self, record):
        """Yield what is wrong."""
        if record.said.startswith("slow") and not self.every:
            return
        act = getattr(self, f"_{record.kind}")
        yield from act(record)

    def _open(self, record):
        self.open(record.said)
        yield from ()

    def _use(self, record):
        self.con = self.cursors.setdefault(record.said, self.connection.cursor())
        yield from ()

    def _let(self, record):
        name, _, expression = record.said.partition("=")
        self.names[name.strip()] = self.values[name.strip()] = eval(expression, self.names)
        yield from ()

    def _python(self, record):
        exec(f"{record.said}\n{record.sql}", self.names)
        yield from ()

    def _variants(self, record):
        found = list(variants(record.sql))
        return found if self.every else [found[record.line % len(found)]]

    def _run(self, record):
        for what, sql, asked in self._variants(record):
            try:
                self.execute(sql, asked).fetchall()
            except duckdb.Error as error:
                yield f"{what}: {error}"

    def _query(self, record):
        for what, sql, asked in self._variants(record):
            try:
                found = [[plain(v) for v in row] for row in self.execute(sql, asked).fetchall()]
            except duckdb.Error as error:
                yield f"{what}: {error}"
                continue
            expected = record.rows
            if record.said.startswith("unordered"):
                found, expected = sorted(found, key=str), sorted(expected, key=str)
            if not same(found, expected):
                yield f"{what}: found {found}\n    expected {expected}"

    def _error(self, record):
        for what, sql, asked in self._variants(record):
            try:
                rows = self.execute(sql, asked).fetchall()
            except duckdb.Error as error:
                message = str(error)
                if not re.search(record.said.removeprefix("aborts "), message):
                    yield f"{what}: the error is {message!r}"
                if "Traceback" in message:
                    yield f"{what}: the error holds a traceback"
            else:
                yield f"{what}: no error, but {rows}"
            if not record.said.startswith("aborts") and self.con.execute("SELECT 1").fetchall() != [(1,)]:
                yield f"{what}: the connection is not usable afterwards"


def plain(value):
    """Return a value as JSON would hold it."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return float(value) if isinstance(value, Decimal) else str(value)


def same(one, two):
    """Return whether rows are equal, floats to four digits."""
    if isinstance(one, float) or isinstance(two, float):
        if not isinstance(one, int | float) or not isinstance(two, int | float):
            return False
        return one == two or abs(one - two) <= 1e-4 * max(1.0, abs(two))
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def write():
    """Write the rows of every record with an oracle."""
    for path in files():
        lines = path.read_text().splitlines()
        for record in reversed([r for r in read(path) if r.oracle]):
            try:
                found = sql_oracle.answer(record.oracle)
            except Exception as error:  # noqa: BLE001 - whatever a file says
                sys.stderr.write(f"{path.name}:{record.line}: {error!r}\n")
                continue
            lines[slice(*record.span)] = [json.dumps(row, ensure_ascii=False) for row in found]
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
    sys.stdout.write(f"{sum(len(read(p)) for p in files())} records\n")
