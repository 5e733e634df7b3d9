"""Notebooks of the documentation run from the first to the last cell, each in a kernel of its own."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

DOCS = Path(__file__).resolve().parents[1] / "docs"


def _run(page: Path, folder: Path) -> nbformat.NotebookNode:
    notebook = jupytext.read(page)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return notebook


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow  # `make docs` runs the gallery too
def test_a_page_of_the_gallery_shows_objects_figures_and_numbers(tmp_path: Path) -> None:
    outputs = _outputs(_run(DOCS / "gallery" / "plot_classes.py", tmp_path))
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    assert any("PathwayCounter" in data.get("text/html", "") for data in shown)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert "where the network is right" in "".join(
        output.text for output in outputs if output.output_type == "stream"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figures"), [("plot_pathway", 2), ("plot_faithfulness", 1), ("plot_maps", 2)])
def test_further_pages_of_the_gallery_show_their_figures(tmp_path: Path, name: str, figures: int) -> None:
    outputs = _outputs(_run(DOCS / "gallery" / f"{name}.py", tmp_path))
    assert sum("image/png" in output.get("data", {}) for output in outputs) == figures


@pytest.mark.slow
def test_the_tutorial_is_a_notebook(tmp_path: Path) -> None:
    told = "".join(output.text for output in _outputs(_run(DOCS / "tutorial.md", tmp_path)) if "text" in output)
    assert "of random units" in told
    assert {file.name for file in tmp_path.glob("*.png")} == {"faithfulness.png", "maps.png", "pathway.png"}


def test_a_cell_that_fails_is_found(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise ValueError('seen')")])
    with pytest.raises(CellExecutionError, match="seen"):
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()
