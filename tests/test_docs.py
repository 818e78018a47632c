"""What the documents show is what happens: every block of Python and every command runs."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name):
    return BLOCK.findall((ROOT / name).read_text())


def commands(text):
    """Yield command and shown output of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def shell(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: PLW1510 - the caller looks at the status
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
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
def test_every_block_runs_and_shows_what_it_says(name, tmp_path, monkeypatch):
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
            done = shell(command, tmp_path)

            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            if shown:
                assert settled(done.stdout.replace(f"{tmp_path}/", "./")) == settled(shown), command


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
