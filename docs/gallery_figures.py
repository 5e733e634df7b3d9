"""Figures of the gallery's pages: what a block of code binds to a name, as nothing here is drawn with pyplot."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def scrape(block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Save the figures that a block of a page made.

    Args:
        block: The block.
        variables: Names that the page has defined so far, and where its pictures go.
        settings: Settings of sphinx-gallery.

    Returns:
        The part of the page that shows them.
    """
    files = []
    for value in list(variables["example_globals"].values()):
        if isinstance(value, Figure) and not getattr(value, "_is_in_gallery", False):
            files.append(next(variables["image_path_iterator"]))
            value.savefig(files[-1], dpi=110)
            value._is_in_gallery = True
    return figure_rst(files, settings["src_dir"]) if files else ""
