"""The notebook of the docs runs from its first cell to its last, offline, and prints its plan.

Needs a Jupyter kernel (the extra `test` brings ipykernel and nbclient); skipped without one.
"""

from pathlib import Path

import pytest

import kvpareto

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="no Jupyter kernel is installed")
FILE = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.filterwarnings("ignore")  # what the kernel's own libraries warn of
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nbformat

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # git keeps none
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )
    answer = kvpareto.plan("Qwen/Qwen3-8B", budget="12GB", context="16k", offline=True)
    assert printed.startswith(answer["recommended"]["config"] + "\n")
    assert all(config in printed for config in answer["shown"])
    assert "tokens at most, with" in printed
    assert "hint:" in printed
