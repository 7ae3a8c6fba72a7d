"""
How Sphinx makes a site of the pages: ``make docs``.

The source is the whole tree, so a page has the path that it has in a clone, and its links lead on as they stand. What
only the site needs is in this folder, and not in the wheel.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Before anything imports Airflow: a setting of whoever builds would show as a default, and Airflow writes to its home.
for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ["AIRFLOW_HOME"] = str(ROOT / "build/docs-airflow")

from pacifica_provider import __version__  # noqa: E402 - not before Airflow's settings are gone

project = "airflow-provider-pacifica"
author = "The airflow-provider-pacifica maintainers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/site/index"
include_patterns = ["*.md", "docs/*.md", "docs/site/*"]
exclude_patterns = [".*", "build"]  # large, and nothing in them is a page
# Python would be guessed; a block without a language is for the shell.
highlight_language = "bash"

myst_heading_anchors = 3  # as forges make them

autodoc_member_order = "bysource"
maximum_signature_line_length = 60  # a parameter a line, with its type

html_theme = "furo"
html_title = f"{project} {release}"
html_logo = html_favicon = "../images/logo.svg"
html_show_copyright = False
html_extra_path = ["index.html"]
