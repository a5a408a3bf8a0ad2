"""The docs site: Sphinx builds it from the Markdown pages here and from the code."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import mitoscope

sys.path.insert(0, str(Path(__file__).parent))
import generate

project = "mitoscope"
project_copyright = "the mitoscope developers, Apache-2.0"
version = release = mitoscope.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"mitoscope {release}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"


def setup(app: Sphinx) -> None:
    """Write the generated pages of the reference before Sphinx reads the others."""
    app.connect("builder-inited", lambda _: generate.write(Path(__file__).parent / "reference"))
