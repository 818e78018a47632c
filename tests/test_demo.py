"""The demo: it runs, checks itself, fails loudly, and leaves nothing behind."""

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import vecdataset as vd
from vecdataset.cli import main
from vecdataset.demo import data_file


def demo(*arguments):
    return CliRunner().invoke(main, ["demo", *arguments])


def test_the_data_is_small_and_knows_its_columns():
    files = [data_file("packages.parquet"), data_file("questions.parquet")]
    packages, questions = map(pq.read_table, files)

    assert sum(f.stat().st_size for f in files) < 3_000_000
    assert (len(packages), len(questions)) == (2000, 12)
    assert str(packages.schema.field("embedding").type) == "fixed_size_list<element: halffloat>[384]"
    assert len(set(packages["id"].to_pylist())) == 2000


@pytest.mark.slow
def test_the_demo_tells_its_story_and_leaves_nothing(tmp_path):
    done = demo("--dir", str(tmp_path))

    assert done.exit_code == 0, done.output
    assert "claims held" in done.output.splitlines()[-1]
    for part in (
        "A collection",
        "An index",
        "Questions",
        "The same questions in SQL",
        "A filter",
        "Changes",
        "Time travel",
        "A fresh process",
        "A snapshot, to Qdrant and back",
    ):
        assert f"\n{part}" in done.output
    assert "gnome-chess" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_the_extra_the_demo_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr("vecdataset.demo.find_spec", lambda _: None)
    done = demo("--dir", str(tmp_path))

    assert done.exit_code == 0, done.output
    assert "is left out: it needs pip install 'vecdataset[qdrant]'" in done.output


@pytest.mark.slow
def test_a_kept_demo_can_be_gone_on_with(tmp_path):
    demo("--dir", str(tmp_path), "--keep")

    assert vd.open(tmp_path / "packages").search(vd.Id(14600), limit=1, filter={"section": "games"})[
        "id"
    ].to_pylist() == [7508]


def test_the_demo_leaves_alone_what_is_there(tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "mine").write_text("x")
    done = demo("--dir", str(tmp_path))

    assert done.exit_code == 1
    assert "is there already" in done.stderr
    assert (tmp_path / "packages" / "mine").exists()


@pytest.mark.slow
def test_a_claim_that_does_not_hold_ends_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(vd.Collection, "delete", lambda *_, **__: vd.WriteResult(version=1, deleted=0))
    done = demo("--dir", str(tmp_path))

    assert done.exit_code == 1
    assert "the demo's own check failed" in done.stderr
    assert list(tmp_path.iterdir()) == []
