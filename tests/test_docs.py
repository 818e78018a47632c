"""What the documents show is what happens: every block of Python and every command runs."""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import duckdb
import pytest

import vecdataset as vd
import vecdataset.duckdb

ROOT = Path(__file__).parent.parent
TABLES = {
    "search", "search_by_id", "recommend", "discover", "context", "query", "text", "hybrid", "group", "get", "scroll",
    "facet", "diff", "explain", "collections", "versions", "snapshots", "verify", "indexes", "upsert", "insert",
}  # fmt: skip
FILES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name):
    return BLOCK.findall((ROOT / name).read_text())


def commands(text):
    """Yield command and shown output of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


@pytest.fixture
def qdrant_url():
    """The server that the documents call $QDRANT_URL."""
    if importlib.util.find_spec("qdrant_edge") is None:
        pytest.skip("the extra qdrant is not installed")
    from qdrant_server import running

    with running() as server:
        yield server.url


def shell(command, folder, qdrant_url):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: PLW1510 - the caller looks at the status
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "QDRANT_URL": qdrant_url},
        capture_output=True,
        text=True,
        timeout=120,
    )


def settled(text):
    """Numbers of versions, and the last digits of scores, are not what the documents are about."""
    text = re.sub(r'"version": \d+', '"version": …', text)
    return re.sub(r"\d+\.\d{4,}", lambda m: f"{float(m[0]):.3f}", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_block_runs_and_shows_what_it_says(name, tmp_path, monkeypatch, qdrant_url):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__docs__"}
    for kind, text in blocks(name):
        if kind == "python":
            with warnings.catch_warnings(action="error"):
                exec(compile(text, name, "exec"), namespace)
            continue
        for command, shown in commands(text):
            if "vecdataset " not in command or command.startswith("python3 -m venv"):
                continue
            done = shell(command, tmp_path, qdrant_url)

            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            if shown:
                assert settled(done.stdout.replace(f"{tmp_path}/", "./")) == settled(shown), command


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The functions that `attach` makes, with their parameters, and the table functions' columns."""
    root = tmp_path_factory.mktemp("root")
    made = vd.create(root / "c", vectors=vd.VectorParams(size=2))
    made.upsert([{"id": 1, "vector": [1, 0]}])
    made.snapshots.create("s")
    con = duckdb.connect()
    vecdataset.duckdb.attach(con, str(root))
    listed = con.execute(
        "SELECT function_name, parameters FROM duckdb_functions() WHERE database_name = 'vec' "
        "AND schema_name = 'main' AND NOT starts_with(function_name, '_')"
    ).fetchall()
    return con, dict(listed)


def documented():
    """Name, call and second cell of each row of the tables of SQL functions."""
    text = (ROOT / "docs" / "sql.md").read_text().partition("## All functions")[2].partition("## ")[0]
    return [(m[1], m[2], m[3]) for m in re.finditer(r"^\| `(\w+)\((.*?)\)` \| (.*) \|$", text, re.MULTILINE)]


def test_the_tables_of_sql_functions_have_all_of_them_with_their_parameters(functions):
    written = {name: re.findall(r'"?(\w+)"?(?: := [^,]+)?(?:, |$)', call) for name, call, _ in documented()}

    assert written == functions[1]


def test_the_columns_of_sql_functions_are_those_that_are_documented(functions):
    con, _ = functions
    shown, last = {}, None
    for name, call, cell in documented():
        last = last if cell == "the same" else re.findall(r"`(\w+)`", cell)
        arguments = re.sub(
            r"collection", "'c'", ", ".join(a for a in call.split(", ") if a and ":=" not in a)
        )
        shown[name] = (arguments, last)
    values = {"query": "[1, 0]", "id": "1", "positive": "[1]", "target": "[1, 0]", "context": "[[[0, 1], [1, 1]]]",
              "pairs": "[[[0, 1], [1, 1]]]", "ids": "[1]", "key": "'x'", "old": "1", '"by"': "'x'",
              "source": "'SELECT 2 AS id, [1, 1] AS vector'"}  # fmt: skip
    tables = {name: found for name, found in shown.items() if found[1] and name in TABLES}

    for name, (arguments, columns) in tables.items():
        given = ", ".join(values.get(a, a) for a in arguments.split(", ")) if arguments else ""
        found = con.execute(f"DESCRIBE FROM vec.{name}({given})").fetchall()
        assert [c[0] for c in found][: len(columns)] == columns, name
    assert len(tables) == len(TABLES)


def test_readme_opens_with_two_commands_of_one_line():
    starts = [text for kind, text in blocks("README.md")[:2] if kind == "console"]

    assert [text.count("\n") for text in starts] == [1, 1]
    assert all(text.startswith("$ python3 -m venv .venv && .venv/bin/pip install ") for text in starts)
    assert starts[0].endswith(".venv/bin/vecdataset demo\n")
    assert starts[1].endswith(".venv/bin/pytest\n")


@pytest.mark.parametrize("name", [*FILES, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_to_files_that_are_there(name):
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)

    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("name", FILES)
def test_headings_that_links_name_are_there(name):
    text = (ROOT / name).read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-")
        for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
