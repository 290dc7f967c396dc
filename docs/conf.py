"""Configuration of the documentation's site.

uv run --group docs sphinx-build -W --keep-going docs docs/_build/html
"""

import importlib.metadata
import re

project = "talkjax"
author = "The talkjax authors"
copyright = author
version = release = importlib.metadata.version("talkjax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "sphinx_book_theme"
html_title = "talkjax"
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2, "navbar_persistent": []}

# Pages are Markdown that GitHub shows as well, and link to headings as GitHub names them.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
# results.md is a collection: each of its models has a heading of the first level.
suppress_warnings = ["myst.header"]

# Notebooks need minutes, and some an accelerator; tests/notebooks runs them.
nb_execution_mode = "off"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "literal"  # what single backticks mean in our docstrings

# Links that are right in the repository, and what they are on the site.
_MOVED = (
    (re.compile(r"\[`([^`]+)`\]\(\.\./notebooks/(\w+)\.ipynb\)"), r"{doc}`\1 </notebooks/\2>`"),
    (re.compile(r"\]\(\.\./talkjax/assets/\w+/README\.md"), "](model_cards.md"),
)
_PLURAL = re.compile(r"(`[^`]+`)(?=\w)")  # `Record`s


def _rewrite_page(app, name, source):
    """Makes a page that is written for GitHub one of the site."""
    for pattern, replacement in _MOVED:
        source[0] = pattern.sub(replacement, source[0])


def _rewrite_docstring(app, what, name, obj, options, lines):
    """Makes reStructuredText of a docstring of plain text.

    Indented lines after a blank one, except those of a section such as `Args:`, are code or a
    table. A bar is a bar.
    """
    made, code = [], False
    for before, line in zip(["", *lines], lines, strict=False):
        indented = line.startswith("    ")
        if indented and not before.strip() and not code and made and _after_prose(made):
            made += ["::", ""]
            code = True
        elif line.strip() and not indented:
            code = False
        made.append(line if code else _PLURAL.sub(r"\1\\ ", line.replace("|", r"\|")))
    lines[:] = made


def _after_prose(lines):
    last = next((line for line in reversed(lines) if line.strip()), "")
    return bool(last) and not last.startswith(" ")


def setup(app):
    """Connects what rewrites pages and docstrings."""
    app.connect("source-read", _rewrite_page)
    app.connect("autodoc-process-docstring", _rewrite_docstring, priority=400)  # before napoleon
