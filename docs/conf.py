"""The documentation site: `sphinx-build -W --keep-going docs build/site`."""

import sys
from pathlib import Path

import rnnfast

sys.path.insert(0, str(Path(__file__).parent))

project = "rnnfast"
author = copyright = "The rnnfast developers"
version = release = rnnfast.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "_extension",
]
exclude_patterns = ["examples"]
default_role = "py:obj"  # what a docstring has in backticks is a link where it names something
nitpicky = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# Markdown: anchors as code hosts make them, so that links work in both places.
myst_heading_anchors = 3

# The site is built without these packages: what the docstrings say is all that is needed.
autodoc_mock_imports = ["jax", "sklearn", "torch"]
autodoc_mock_imports += ["rnnfast._core.tensors"]  # which asks PyTorch for pointers
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have types with shapes
autosummary_generate = False
numpydoc_show_class_members = False

smartquotes = False
highlight_language = "none"  # of a block that names no language

html_title = f"rnnfast {release}"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "logo": {"text": f"rnnfast {release}"},
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "show_toc_level": 2,
}
html_sidebars = {"index": [], "start": []}
