"""SQL statements over the shipped packages give the rows that NumPy and plain Python work out."""

import pytest
import sql_oracle
import sql_suite

FILES = sql_suite.files()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Files that statements write go to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return sql_suite.fill(tmp_path_factory.mktemp("root"))


def wrong(root, folder, path, *, every):
    session = sql_suite.Session(root, folder, every=every)
    try:
        return [f"{path.name}:{r.line}: {w}" for r in sql_suite.read(path) for w in session.check(r)]
    finally:
        session.close()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_statements_give_the_rows_that_are_expected(root, tmp_path, path):
    found = wrong(root, tmp_path, path, every=False)

    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_way_of_writing_a_statement_gives_these_rows(root, tmp_path, path):
    found = wrong(root, tmp_path, path, every=True)

    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_expected_rows_are_those_of_the_oracle(path):
    records = [r for r in sql_suite.read(path) if r.oracle]

    assert [r.line for r in records if not sql_suite.same(sql_oracle.answer(r.oracle), r.rows)] == []


def test_the_suite_holds_two_hundred_statements():
    """Each once, however many ways of writing it are tried."""
    records = [r for path in FILES for r in sql_suite.read(path)]

    assert sum(r.kind in ("query", "error") for r in records) >= 200
