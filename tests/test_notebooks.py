"""The notebooks run in a real kernel, and every cell's own claims hold."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture
def nbclient():
    return pytest.importorskip("nbclient")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the kernel's own messaging warns of itself
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_its_claims_hold(path, nbclient, tmp_path):
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [o for cell in code for o in cell.outputs if o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_valid_small_and_asserts_what_it_claims(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert path.stat().st_size < 200_000
    assert sum("assert " in cell.source for cell in notebook.cells) >= 8
    assert any("text/html" in o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", []))
    assert "/tmp/" not in path.read_text()
