"""The shell: what each command prints, what it exits with, and that the documents know it."""

import ast
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import vecdataset as vd
from vecdataset import cli, cli_snapshots

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"
COMMANDS = sorted(cli.main.commands)


def run(*arguments, stdin=None):
    return CliRunner().invoke(cli.main, list(arguments), input=stdin)


def rows(*arguments, stdin=None):
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def books(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = vd.create("books", vectors=vd.VectorParams(size=2))
    made.upsert(
        [
            {"id": 1, "vector": [1, 0], "title": "Dune", "year": 1965, "lang": "en"},
            {"id": 2, "vector": [0.6, 0.8], "title": "Solaris", "year": 1961, "lang": "pl"},
            {"id": 3, "vector": [0, 1], "title": "Emma", "year": 1815, "lang": "en"},
        ]
    )
    return made


# ---------------------------------------------------------------------------- documents


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_in_its_help_and_a_line_in_the_documents(name):
    text = DOCS.read_text()

    assert re.search(rf"Example:\n +\$ .*vecdataset {name}\b", run(name, "--help").output)
    assert f"[`vecdataset {name}`](#{name})" in text
    assert re.search(rf"^\$ .*vecdataset {name}\b", text, re.MULTILINE)


GROUPED = [f"snapshot {name}" for name in sorted(cli.main.commands["snapshot"].commands)]


@pytest.mark.parametrize("name", sorted({*COMMANDS, *GROUPED} - {"demo", "snapshot"}))
def test_every_command_takes_json(name):
    assert "--json" in run(*name.split(), "--help").output


def test_the_documents_know_no_other_command():
    assert set(re.findall(r"\[`vecdataset ([\w-]+)`\]", DOCS.read_text())) == set(COMMANDS)


def test_a_command_is_a_few_lines_over_the_library():
    named = {c.callback.__name__ for c in cli.main.commands.values()}
    lengths = {}
    for module in (cli, cli_snapshots):
        tree = ast.parse(Path(module.__file__).read_text())
        functions = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name in named]
        lengths |= {f.name: f.body[-1].end_lineno - f.body[0].end_lineno for f in functions}

    assert len(lengths) == len(COMMANDS)
    assert {name: n for name, n in lengths.items() if n > 15} == {}


def test_help_imports_click_alone():
    code = "import sys; from vecdataset.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert not {"lance", "pyarrow", "numpy", "duckdb", "tqdm", "fsspec"} & set(loaded.split())


def test_the_version_is_the_packages():
    assert run("--version").output == f"vecdataset, version {vd.__version__}\n"


# --------------------------------------------------------------------------- collections


def test_create_takes_one_vector(tmp_path):
    assert rows("create", str(tmp_path / "x"), "--size", "3", "--distance", "l2")[0]["version"] == 1
    assert vd.open(tmp_path / "x").schema.vectors == {"": vd.VectorParams(size=3, distance="Euclid")}


def test_create_takes_named_and_sparse_vectors(tmp_path):
    rows("create", str(tmp_path / "x"), "--vector", "a:3", "--vector", "b:4:Dot:float16", "--sparse", "w:idf")
    schema = vd.open(tmp_path / "x").schema

    assert schema.vectors == {"a": vd.VectorParams(3), "b": vd.VectorParams(4, "Dot", "float16")}
    assert schema.sparse == {"w": vd.SparseVectorParams("idf")}


def test_create_accepts_what_is_there_when_asked(books):
    assert run("create", "books", "--size", "2").exit_code == 1
    assert run("create", "books", "--size", "2", "--exist-ok").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x"),
        ("create", "x", "--size", "2", "--vector", "a:2"),
        ("create", "x", "--vector", "a"),
        ("create", "x", "--size", "2", "--storage-option", "key"),
        ("search", "books"),
        ("search", "books", "--vector", "[1, 0]", "--like", "1"),
        ("search", "books", "--vector", "[1, 0"),
        ("search", "books", "--vector", "[1, 0]", "--filter", "{"),
        ("search", "books", "--vector", "[1, 0]", "--limit", "0"),
        ("import", "x.parquet", "books", "--vectors-from", "a=", "--vectors-from", "b"),
        ("drop", "books", "--purge"),
        ("drop", "s3://bucket"),
        ("nothing",),
    ],
)
def test_a_wrong_command_line_exits_with_2(books, arguments):
    done = run(*arguments)

    assert done.exit_code == 2
    assert not done.stdout


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("info", "boks"), "no collection 'boks'", "did you mean 'books'?"),
        (("create", "books", "--size", "2"), "exists already", ""),
        (("search", "books", "--vector", "[1]"), "declares size 2", ""),
        (("search", "books", "--like", "7"), "no point 7", ""),
        (("search", "books", "--vector", "[1,0]", "--filter", "yaer > 1"), "'yaer'", "did you mean 'year'?"),
        (("search", "books", "--vector", "[1,0]", "--filter", "year >"), "position", ""),
        (("search", "books", "--vector", "[1,0]", "--at", "99"), "no version 99", ""),
        (("search", "books", "--from-file", "no.parquet"), "there is no file no.parquet", ""),
        (("import", "no.parquet", "books"), "there is no file no.parquet", ""),
        (("export", "books", "books.csv"), "names no format", ".parquet"),
        (("index", "books", "--kind", "tree"), "'tree'", "ivf_rq"),
        (("index", "books", "--param", "mm=3"), "'mm'", "did you mean"),
        (("undrop", "books"), "is not dropped", ""),
        (
            ("info", "s4://x/y"),
            "the scheme 's4' is known neither to Lance nor to fsspec",
            "supported schemes",
        ),
    ],
)
def test_a_failure_is_one_sentence_and_a_hint_on_standard_error(books, arguments, said, hint):
    done = run(*arguments)

    assert done.exit_code == 1
    assert not done.stdout
    assert done.stderr.startswith("error: ")
    assert said in done.stderr.splitlines()[0] or said in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_ls_and_info_tell_what_is_there(books):
    assert rows("ls") == [{"name": "books", "points": 3, "vectors": {"vector": 2}, "version": books.version}]
    assert rows("info", "books")[0]["payload"] == {"title": "string", "year": "int64", "lang": "string"}
    assert rows("info", "books", "--at", "1")[0]["rows"] == 0


def test_drop_and_undrop_split_the_url_into_root_and_name(books, tmp_path):
    assert rows("drop", f"{tmp_path}/books/") == [{"dropped": f"{tmp_path}/books/", "purged": False}]
    assert rows("ls", "--dropped") == [{"name": "books"}]
    assert "vecdataset undrop" in run("info", "books").stderr
    assert rows("undrop", "./books")[0]["points"] == 3


def test_a_purge_deletes_the_files(books, tmp_path):
    rows("drop", "books", "--purge", "--yes")

    assert not (tmp_path / "books").exists()


def test_rename_and_aliases(books):
    rows("alias", "books", "best")
    rows("rename", "books", "library")

    assert rows("info", "best")[0]["name"] == "library"
    assert rows("alias", ".", "best", "--remove") == [{"removed": "best"}]
    assert run("info", "best").exit_code == 1


def test_adopt_takes_a_lance_dataset(tmp_path):
    import lance

    table = pa.table({"key": ["a"], "e": pa.array([[1, 2]], pa.list_(pa.float32(), 2))})
    lance.write_dataset(table, str(tmp_path / "old.lance"))

    assert rows("adopt", str(tmp_path / "old.lance"), "--id", "key")[0]["points"] == 1


# -------------------------------------------------------------------------------- points


def test_upsert_reads_standard_input(books):
    lines = (
        '{"id": 4, "vector": [1, 1], "payload": {}}\n{"id": 1, "vector": [1, 1], "payload": {"n": null}}\n'
    )

    assert rows("upsert", "books", stdin=lines)[0] == {"inserted": 1, "updated": 1, "version": books.version}
    assert books.get([1]).to_pylist(layout="qdrant") == [{"id": 1, "payload": {"n": None}}]


def test_upsert_wants_a_collection(tmp_path):
    assert run("upsert", str(tmp_path / "no"), stdin='{"id": 1, "vector": [1]}').exit_code == 1


def test_import_makes_a_collection_from_named_columns(tmp_path):
    vector = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"key": ["a"], "one": vector, "two": vector}), tmp_path / "x.parquet")
    source, target = str(tmp_path / "x.parquet"), str(tmp_path / "made")

    assert run("import", source, target).exit_code == 1
    made = rows("import", source, target, "--id", "key", "--vectors-from", "one", "--distance", "Dot")
    assert made == [{"url": target, "points": 1, "version": made[0]["version"]}]
    assert vd.open(target).schema.vectors == {"": vd.VectorParams(2, "Dot")}


def test_export_to_standard_output_is_import_from_standard_input(books, tmp_path):
    text = run("export", "books", "-").stdout

    assert len(text.splitlines()) == 3
    assert rows("import", "-", "copy", "--note", "from a pipe", stdin=text)[0]["points"] == 3
    assert vd.open("copy").versions()["note"].to_pylist()[-1] == "from a pipe"


def test_export_can_look_back(books):
    before = books.version
    books.delete([1])

    assert rows("export", "books", "x.parquet", "--at", str(before))[0]["points"] == 3
    assert rows("export", "books", "x.parquet")[0]["points"] == 2


def test_versions_are_listed(books):
    assert [r["version"] for r in rows("versions", "books")] == list(range(1, books.version + 1))


def test_versions_are_listed_after_files_with_an_index_were_merged(books):
    rows("upsert", "books", stdin='{"id": 4, "vector": [1, 1], "year": 1900}')
    rows("index", "books", "--payload", "year")
    rows("optimize", "books")

    assert "compact" in [r["operation"] for r in rows("versions", "books")]


# -------------------------------------------------------------------------------- search


def ids(*arguments, stdin=None):
    return [row["id"] for row in rows("search", "books", *arguments, stdin=stdin)]


def test_a_vector_comes_as_json_or_from_standard_input(books):
    assert ids("--vector", "[1, 0]") == [1, 2, 3]
    assert ids("--vector", "-", "--limit", "1", stdin="[0, 1]") == [3]


def test_points_and_files_can_be_queries(books):
    books.export("books.parquet")

    assert ids("--like", "1") == [2, 3]
    assert ids("--like", "1", "--like", "3", "--limit", "1") == [2, 2]
    assert ids("--from-file", "books.parquet", "--limit", "1") == [1, 2, 3]
    assert ids("--from-file", "books.parquet:vector", "--limit", "1") == [1, 2, 3]
    assert [
        r["query_index"] for r in rows("search", "books", "--like", "1", "--like", "3", "--limit", "1")
    ] == [0, 1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("year > 1900", [1, 2]),
        ("lang = 'en' AND year < 1900", [3]),
        ("lang=en", [1, 3]),
        ("year=1961", [2]),
        ('{"lang": "pl"}', [2]),
        ('{"must_not": [{"key": "lang", "match": {"value": "en"}}]}', [2]),
    ],
)
def test_filters_come_as_sql_json_or_pairs(books, text, found):
    assert ids("--vector", "[1, 0]", "--filter", text) == found


def test_a_hit_is_id_score_and_the_exact_payload(books):
    books.upsert([{"id": 4, "vector": [1, 0], "payload": {"n": None, "deep": {"a": [1, 1.0]}}}])

    assert rows("search", "books", "--vector", "[1, 0]", "--filter", "id = 4") == [
        {"id": 4, "score": 1.0, "payload": {"n": None, "deep": {"a": [1, 1.0]}}}
    ]
    assert rows("search", "books", "--vector", "[1, 0]", "--limit", "1", "--columns", "title,year")[0] == {
        "id": 1,
        "score": 1.0,
        "payload": {"title": "Dune", "year": 1965},
    }


def test_explain_goes_to_standard_error(books):
    done = run("search", "books", "--vector", "[1, 0]", "--explain", "--exact")

    assert len(done.stdout.splitlines()) == 3
    assert json.loads(done.stderr)["plan"]["reason"] == "exact was asked for"


def test_search_can_look_back_by_version_and_time(books):
    before = books.version
    books.delete([1])

    assert ids("--vector", "[1, 0]", "--limit", "1", "--at", str(before)) == [1]
    assert ids("--vector", "[1, 0]", "--limit", "1", "--at", "2999-01-01T00:00:00") == [2]


def test_indexes_are_built_listed_and_dropped(books):
    assert [r["name"] for r in rows("index", "books", "--kind", "ivf_flat")] == ["vector_idx"]
    assert [r["kind"] for r in rows("index", "books", "--payload", "year")] == ["ivf_flat", "btree"]
    assert [r["name"] for r in rows("index", "books", "--drop", "vector_idx")] == ["year_idx"]
    assert rows("optimize", "books")[0]["rows"] == 3


def test_options_of_the_store_are_passed_on():
    done = run("info", "s3://bucket/x", "--storage-option", "nonsense=1")

    assert done.exit_code == 1
    assert "nonsense" in done.stderr


# ------------------------------------------------------------------------------- plugins


def test_plugins_lists_the_three_families():
    found = rows("plugins")

    assert {r["family"] for r in found} == {"filesystems", "indexes", "formats"}
    assert {"name": "jsonl", "state": "ok"}.items() <= next(r for r in found if r["name"] == "jsonl").items()


@pytest.mark.slow
def test_plugins_of_strangers_are_listed_and_a_broken_one_says_why(plugin_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(plugin_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "vecdataset.cli", "plugins", "--json"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    strangers = [r for r in map(json.loads, done.stdout.splitlines()) if r["origin"] != "vecdataset"]

    assert {r["state"] for r in strangers} >= {"ok", "failed"}
    assert all(r["reason"] for r in strangers if r["state"] != "ok")


# ------------------------------------------------------------------------------ terminal


def on_a_terminal(*arguments):
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    code = "from vecdataset.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=side, stdout=side, stderr=side, close_fds=True
    ) as process:
        os.close(side)
        out = b""
        while chunk := read(main):
            out += chunk
    os.close(main)
    return process.returncode, out.decode().replace("\r\n", "\n")


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.slow
def test_a_terminal_gets_tables_and_sentences(books):
    status, text = on_a_terminal("search", "books", "--vector", "[1, 0]", "--columns", "title", "--explain")

    assert status == 0
    assert text.splitlines()[:3] == ["id   score  title", "──  ──────  ───────", " 1  1.0000  Dune"]
    assert "exact scan" in text
    assert on_a_terminal("drop", "books") == (0, "dropped books\n")
    assert on_a_terminal("ls") == (0, "(no rows)\n")


@pytest.mark.slow
def test_a_terminal_gets_json_when_it_asks(books):
    _, text = on_a_terminal("search", "books", "--vector", "[1, 0]", "--limit", "1", "--json")

    assert json.loads(text)["payload"]["title"] == "Dune"


@pytest.mark.slow
def test_a_terminal_gets_progress_and_a_pipe_none(books):
    books.export("books.parquet")
    _, shown = on_a_terminal("import", "books.parquet", "copy")

    assert "import: " in shown
    assert run("import", "books.parquet", "copy").stderr == ""


# ----------------------------------------------------------------------------- snapshots


def test_snapshots_go_through_their_whole_life_in_the_shell(books):
    made = rows("snapshot", "create", "books", "first", "--note", "a note")[0]
    books.delete([1])

    assert (made["name"], made["rows"]) == ("first", 3)
    assert rows("snapshot", "list", "books")[0]["note"] == "a note"
    assert rows("snapshot", "diff", "books", "first")[0]["removed"] == [1]
    assert rows("verify", "books")[0]["ok"]
    assert rows("snapshot", "copy", "books", "first", "copy")[0]["skipped"] == 0
    assert rows("snapshot", "restore", "books", "first", "--into", "then")[0]["snapshot"] == "first"
    assert len(vd.open("then")) == 3
    assert run("snapshot", "restore", "books", "first").exit_code == 2
    rows("snapshot", "restore", "books", "first", "--yes")
    assert len(vd.open("books")) == 3
    assert rows("snapshot", "prune", "books", "--keep-last", "1", "--dry-run")[0]["deleted"] == ["first"]
    assert run("snapshot", "prune", "books").exit_code == 2
    assert run("snapshot", "prune", "books", "--older-than", "soon").exit_code == 2
    assert rows("snapshot", "delete", "books", "first", "--yes") == [{"deleted": "first"}]
    assert run("snapshot", "prune", "books", "--keep-last", "0").exit_code == 2  # nobody was asked
    assert len(rows("snapshot", "prune", "books", "--keep-last", "0", "--yes")[0]["deleted"]) == 1
    assert rows("snapshot", "list", "books") == []


def test_a_working_copy_is_checked_out_and_published_in_the_shell(books):
    made = rows("checkout", "books", "work")[0]
    vd.open("work").delete([1])
    done = rows("publish", "work")[0]

    assert (made["version"], made["rows"]) == (done["version"] - 1, 3)
    assert (done["url"], done["versions"]) == (str(Path("books").absolute()), 1)
    assert len(books.refresh()) == 2
    assert rows("checkout", "books", "then", "--at", str(made["version"]))[0]["rows"] == 3
    assert rows("publish", "work", "another")[0]["versions"] == 1
    books.delete([2])
    vd.open("work").delete([2])
    parted = run("publish", "work")
    assert parted.exit_code == 1
    assert "went its own way" in parted.stderr


def test_a_restore_can_be_tried_and_moves_aside_only_when_told(books):
    rows("snapshot", "create", "books", "first")
    vd.create("then", vectors=vd.VectorParams(2)).upsert([{"id": 7, "vector": [1, 2]}])

    tried = run("snapshot", "restore", "books", "first", "--into", "then", "--dry-run")
    free = rows("snapshot", "restore", "books", "first", "--into", "free", "--dry-run")[0]
    assert tried.exit_code == 1
    assert "holds something already" in tried.stderr
    assert (free["dry_run"], Path("free").exists()) == (True, False)
    assert run("snapshot", "restore", "books", "first", "--into", "then", "--overwrite").exit_code == 2

    rows("snapshot", "restore", "books", "first", "--into", "then", "--overwrite", "--yes")
    assert len(vd.open("then")) == 3
    aside = next(Path().glob("then-before-restore-*"))
    assert vd.open(str(aside)).get([7])["id"].to_pylist() == [7]


def test_a_snapshot_goes_into_one_file_and_comes_out(books):
    rows("snapshot", "create", "books", "first")

    assert rows("snapshot", "pack", "books", "first", "first.tgz")[0]["snapshot"] == "first"
    assert rows("snapshot", "unpack", "first.tgz", "again")[0]["rows"] == 3
    assert rows("verify", "again", "--deep")[0]["ok"]
    assert run("snapshot", "unpack", "first.tgz", "again").exit_code == 1


def test_the_newest_version_is_verified_with_what_its_commits_put_on_record(books):
    assert rows("verify", "books", "--current")[0]["snapshot"] is None
    data = next(Path("books/data").iterdir())
    data.write_bytes(data.read_bytes()[:-1] + b"?")

    done = run("verify", "books", "--current", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["changed"] == [f"data/{data.name}"]
    sealed = run("snapshot", "create", "books")
    assert sealed.exit_code == 1
    assert f"data/{data.name} of collection 'books' is not what was written" in sealed.stderr


def test_a_note_stays_with_its_version(books):
    run("upsert", "books", "--note", "from the shell", stdin='{"id": 77, "vector": [1, 2]}')

    last = rows("versions", "books")[-1]
    assert (last["note"], last["inserted"]) == ("from the shell", 1)


def test_clean_up_wants_to_be_sure(books):
    assert run("clean-up", "books").exit_code == 2
    assert rows("clean-up", "books", "--older-than", "0h", "--yes")[0]["freed_bytes"] > 0


def test_damage_is_an_exit_status(books):
    rows("snapshot", "create", "books", "first")
    data = next(Path("books/data").iterdir())
    data.write_bytes(data.read_bytes()[:-1])

    done = run("verify", "books", "--json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["truncated"] == [f"data/{data.name}"]


def test_a_backup_goes_out_and_comes_back(books):
    out = rows("backup", ".", "backup", "--only", "books")
    back = rows("restore", "backup", "back")

    assert (out[0]["rows"], out[0]["error"]) == (3, None)
    assert back[0]["root"] == out[0]["root"]
    assert len(vd.open("back/books")) == 3
    assert run("restore", "backup", "back").exit_code == 1
    assert run("restore", "backup").exit_code == 2
    assert rows("restore", "backup", "--verify-only", "--deep")[0]["rows"] == 3
    assert rows("restore", "backup", "elsewhere", "--dry-run")[0]["rows"] == 3
    assert not Path("elsewhere").exists()
    assert run("restore", "backup", "back", "--overwrite").exit_code == 2
    rows("restore", "backup", "back", "--overwrite", "--yes")
    assert len(vd.Catalog("back").list()) == 2
    data = next(Path("backup/books/data").iterdir())
    data.write_bytes(b"")
    failed = run("restore", "backup", "--verify-only")
    assert failed.exit_code == 1
    assert data.name in failed.stderr


def test_repair_says_first_and_does_when_told(books):
    newest = min(Path("books/_versions").glob("*.manifest"))
    newest.write_bytes(b"")

    failed = run("info", "books")
    planned = rows("repair", "books")[0]
    assert newest.exists()
    done = rows("repair", "books", "--yes")[0]

    assert failed.exit_code == 1
    assert "vecdataset repair books" in failed.stderr.replace(f"{Path.cwd()}/", "")
    assert (planned["moved"], len(done["moved"])) == ([], 1)
    assert run("info", "books").exit_code == 0
