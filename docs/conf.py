"""Configuration of Sphinx, which makes the documentation's site: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
sys.path.insert(0, str(DOCS.parent))

from generated import write_notebook, write_pages  # noqa: E402
from source_links import lead_back  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import cpath  # noqa: E402

project = "cpath"
author = "The cpath developers"
copyright = author
release = cpath.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas without a request to any host
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "returns_style")]
default_role = "literal"  # docstrings quote names of Python in single backticks

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "reference/generated/gallery",
    "image_scrapers": ("gallery_figures.scrape",),
    "capture_repr": ("_repr_html_",),
    "ignore_repr_types": r"matplotlib|_Shown",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 3600,
    "write_computation_times": False,
    "reset_modules": (),
    "plot_gallery": "True",
}

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Types of Python are not looked up: a property called `bytes` would be found in place of the type.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"cpath {release}"
html_static_path = ["static"]
html_css_files = ["wide.css"]


def escape(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Have stars of shapes, as in (B, *site), and bars of magnitudes shown as they are.

    Args:
        app: Sphinx.
        what: Kind of the object.
        name: Its name.
        value: The object.
        options: Options of the directive.
        lines: Lines of its docstring, which are changed in place.
    """
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = re.sub(r"(?<![`*\w])\*(?=[\w.])|\|", r"\\\g<0>", line)


def lead_to_descriptions(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Have the pages of source code lead back to where an object is described.

    Args:
        app: Sphinx.
        page: Name of the page.
        template: Its template.
        context: What the template is given, which is changed in place.
        tree: Unused.
    """
    if page.startswith("_modules/"):
        described = {name: found.docname for name, found in app.env.domains.python_domain.objects.items()}
        context["body"] = lead_back(context["body"], described)


def setup(app: Sphinx) -> None:
    """Have docstrings escaped, before their sections are read, and links of source code mended.

    Args:
        app: Sphinx.
    """
    app.connect("autodoc-process-docstring", escape, priority=400)
    app.connect("html-page-context", lead_to_descriptions)


write_pages(DOCS / "reference" / "generated")
write_notebook(DOCS / "tutorial.md", DOCS / "reference" / "generated")
