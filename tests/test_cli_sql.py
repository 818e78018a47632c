"""`vecdataset sql`: statements against a root, and their rows as a table, JSON lines, CSV or Parquet."""

import io
import json

import duckdb
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import vecdataset as vd
import vecdataset.duckdb
from vecdataset import cli


@pytest.fixture
def root(tmp_path):
    """A root with one small collection `books`."""
    c = vd.create(tmp_path / "root" / "books", vectors=vd.VectorParams(size=2))
    c.upsert([{"id": i, "vector": [1, i], "title": f"books {i}", "price": i / 2} for i in range(3)])
    return tmp_path / "root"


def sql(*arguments, stdin=None):
    return CliRunner().invoke(cli.main, ["sql", *map(str, arguments)], input=stdin)


def test_the_shell_prints_rows_as_json_lines(root):
    done = sql(
        root, "SELECT id, title FROM vec.books WHERE id < 2 ORDER BY id; SELECT vec.count('books') AS n;"
    )

    assert (done.exit_code, done.stdout) == (0, '{"n":3}\n')


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "ndjson", "parquet"])
def test_the_shell_writes_rows_to_a_file(root, tmp_path, ending):
    (tmp_path / "report.sql").write_text("FROM vec.search('books', [1, 0], k := 2) ORDER BY _rank")

    done = sql(root, "--file", tmp_path / "report.sql", "--output", tmp_path / f"out.{ending}")

    assert (done.exit_code, done.stdout) == (0, "")
    written = duckdb.connect().execute(f"SELECT id, title FROM '{tmp_path}/out.{ending}' ORDER BY _rank")
    assert written.fetchall() == [(0, "books 0"), (1, "books 1")]


def test_the_shell_says_what_is_wrong_in_one_error(root):
    wrong, missing = sql(root, "SELECT vec.count('book')"), sql(root)

    assert (wrong.exit_code, missing.exit_code) == (1, 2)
    assert "no collection 'book'" in wrong.stderr
    assert "did you mean 'books'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_shell_can_write(root):
    done = sql(root, "FROM vec.upsert('books', 'SELECT 9 AS id, [1, 1] AS vector')")

    assert done.exit_code == 0
    assert vd.open(root / "books").count() == 4


FOUND = "SELECT id, title, price FROM vec.search('books', [1, 0], k := 2) ORDER BY _rank"


def test_rows_are_a_table(root):
    done = sql(root, FOUND, "--format", "table")

    assert done.stdout.splitlines() == [
        "id  title     price",
        "──  ───────  ──────",
        " 0  books 0  0.0000",
        " 1  books 1  0.5000",
    ]


def test_rows_are_json_lines(root):
    done = sql(root, FOUND, "--format", "json")

    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"id": 0, "title": "books 0", "price": 0.0},
        {"id": 1, "title": "books 1", "price": 0.5},
    ]


def test_rows_are_csv(root):
    done = sql(root, FOUND, "--format", "csv")

    assert done.stdout == "id,title,price\n0,books 0,0.0\n1,books 1,0.5\n"


def test_rows_are_parquet(root):
    done = sql(root, FOUND, "--format", "parquet")

    assert pq.read_table(io.BytesIO(done.stdout_bytes)).to_pydict() == {
        "id": [0, 1],
        "title": ["books 0", "books 1"],
        "price": [0.0, 0.5],
    }


def test_no_rows_still_have_columns(root):
    none = FOUND.replace("ORDER BY", "WHERE id > 5 ORDER BY")

    assert sql(root, none, "--format", "csv").stdout == "id,title,price\n"
    assert sql(root, none, "--format", "json").stdout == ""
    assert sql(root, none, "--format", "table").stdout == "(no rows)\n"


def test_values_of_every_type_are_json(root):
    done = sql(
        root,
        "SELECT 1.5 AS decimal, 2::HUGEINT AS huge, DATE '2024-02-29' AS day, [1, NULL] AS list, "
        "{'x': 1} AS struct, MAP {'k': 2} AS map, true AS flag, NULL AS nothing, 'é\"' AS text",
    )

    assert json.loads(done.stdout) == {
        "decimal": 1.5,
        "huge": 2,
        "day": "2024-02-29",
        "list": [1, None],
        "struct": {"x": 1},
        "map": {"k": 2},
        "flag": True,
        "nothing": None,
        "text": 'é"',
    }


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("EXPLAIN SELECT 1", "explain_value"),
        ("DESCRIBE vec.books", '"column_name":"title"'),
        ("SHOW ALL TABLES", '"name":"books"'),
        ("PRAGMA version", "library_version"),
        ("SUMMARIZE vec.books", '"column_name":"price"'),
    ],
)
def test_statements_of_other_kinds_have_rows_too(root, statement, shown):
    assert shown in sql(root, statement).stdout


def test_statements_are_read_from_standard_input(root):
    done = sql(
        root, "-", stdin="CREATE TABLE t AS SELECT 2 AS k; SELECT count(*) AS n FROM vec.books, t; -- end"
    )

    assert done.stdout == '{"n":3}\n'


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT '--;' AS a -- end",
        "SELECT '--;' AS a; -- end",
        "/* a */ -- first\nSELECT '--;' AS a;;\n/* end; */",
    ],
)
def test_comments_stand_where_they_like(root, statement):
    assert sql(root, statement).stdout == '{"a":"--;"}\n'


def test_parameters_are_json_or_text(root):
    done = sql(
        root, "SELECT id, $word AS word FROM vec.search($name, $q, k := $k)",
        "--param", "name=books", "--param", "q=[1, 5]", "--param", "k=1", "--param", "word=a=b",
    )  # fmt: skip

    assert json.loads(done.stdout) == {"id": 2, "word": "a=b"}


def test_the_root_may_be_the_collection(root):
    assert sql(root / "books", "SELECT vec.count('books') AS n").stdout == '{"n":3}\n'


def test_a_statement_with_output_runs_once(root, tmp_path):
    written = tmp_path / "done.csv"

    sql(
        root,
        "SELECT inserted, updated FROM vec.upsert('books', 'SELECT 9 AS id, [1, 1] AS vector')",
        "--output",
        written,
    )

    assert written.read_text() == "inserted,updated\n1,0\n"


WRONG = [
    (["SELEC 1"], 1, 'syntax error at or near "SELEC"'),
    ([""], 1, "there is no SQL statement"),
    (["FROM vec.search('books', [1, 2, 3])"], 1, "error: the query for vector 'vector' has shape [3]"),
    (["FROM vec.search('book', [1, 2])"], 1, "error: no collection 'book' in"),
    (["SELECT 1", "--output", "rows.txt"], 1, "end it in .json"),
    (["SELECT 1", "--output", "no/such/rows.csv"], 1, "No such file or directory"),
    (["SELECT 1", "--output", "rows.csv", "--format", "table"], 2, "a table goes to standard output"),
    (["SELECT 1", "--json", "--format", "csv"], 2, "exclude each other"),
    (["SELECT 1", "--param", "a"], 2, "'a' is not NAME=VALUE"),
    (["SELECT $a"], 1, "Values were not provided for the following"),
    (["SELECT 1", "--file", "no-such.sql"], 2, "No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), WRONG)
def test_a_mistake_is_one_clean_message(root, arguments, status, message):
    done = sql(root, *arguments)

    assert (done.exit_code, done.stdout) == (status, "")
    assert message in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "Python exception", "COPY"))


def test_an_output_whose_format_is_unknown_runs_nothing(root):
    sql(root, "SELECT vec.delete('books', filter := 'id >= 0')", "--output", "gone.txt")

    assert vd.open(root / "books").count() == 3


def test_python_runs_sql_too(root):
    rows = vecdataset.duckdb.run(root, FOUND.replace("2", "$k"), parameters={"k": 1})

    assert rows.to_pylist() == [{"id": 0, "title": "books 0", "price": 0.0}]
