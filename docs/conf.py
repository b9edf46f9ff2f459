"""The documentation as a site: `make docs` builds it with warnings as errors."""

from importlib.metadata import version as installed_version

project = "lmoe-tune"
author = "The lmoe-tune authors"
copyright = author
release = installed_version("lmoe-tune")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "notebooks"]
nitpicky = False

html_theme = "furo"
html_title = f"lmoe-tune {release}"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "smartquotes"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
