"""Sphinx's settings for the workbook as a site; `build.py` brings its pages together and calls it."""

import ast
import inspect
import re
import sys
import textwrap
import tomllib
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the API is read from this repository's package, wherever Sphinx is installed

from colt_core.version import __version__  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = "The COLT workbook"
author = PROJECT["authors"][0]["name"]
copyright = f"{author}, {PROJECT['license']} licence"
version = release = __version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
extensions += ["sphinxcontrib.lightbox2"]  # a click on a picture shows it as large as the window allows, without a net
exclude_patterns = ["README.md"]  # its parts are on the first page
suppress_warnings = ["ref.python"]  # a name in backticks may be a method of several classes

# --- notebooks: what is committed is shown, nothing is run ---
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # tables too
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False  # $5 and $6 are no formula
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

# --- the API ---
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "model_config, model_post_init"}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several names may share a line
python_maximum_signature_line_length = 88

# --- what it looks like ---
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
html_math_renderer = "mathml"  # browsers draw it themselves: nothing is loaded
html_theme_options = {
    "repository_url": PROJECT["urls"]["Repository"],
    "repository_branch": "main",
    "path_to_docs": "",
    "use_repository_button": True,
    "use_download_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    "home_page_in_toc": True,
    "navbar_start": [],  # the theme's header would be a second place to search from
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
lightbox2_fade_duration = lightbox2_image_fade_duration = lightbox2_resize_duration = 0
lightbox2_wrap_around = False

_CODE = re.compile(r"(`[^`]*`)")  # what stands between backticks is code, and stays
_BLOCK = re.compile(r"(?<=\n\n)((?:    .*\n|\n(?=    ))+)")  # what is indented after an empty line
_PLAIN: dict[str, list[str]] = {}
_ARXIV = re.compile(r"(?<![\w./])(\d{4}\.\d{5})(?![\w.]*\d)")


def as_text(app, what, name, obj, options, lines):
    """Our docstrings are plain text with `code`: nothing else in them is markup, and code that is indented is shown."""
    # Sphinx has taken away what all lines but the first are indented by: of a module that may be a block of code.
    text = f"{obj.__doc__.strip()}\n" if what == "module" else "\n".join(lines)
    pieces = _BLOCK.split(text) if what == "module" else [text]  # text, block, text, ...
    for i in range(0, len(pieces), 2):
        pieces[i] = "".join(part if part[:1] == "`" else plain(part) for part in _CODE.split(pieces[i]))
    for i in range(1, len(pieces), 2):
        pieces[i] = f"::\n\n{pieces[i]}"
    lines[:] = "".join(pieces).split("\n")
    if what in ("attribute", "data", "property"):
        _PLAIN[name] = list(lines)


def not_typed(app, what, name, obj, options, lines):
    """Undo what napoleon does to attributes: it takes what stands before a colon for their type."""
    lines[:] = _PLAIN.pop(name, lines)


def plain(text):
    """Return text in which nothing is markup but links to arXiv."""
    escaped = re.sub(r"[*|]|(?<=\w)_(?=\W|$)", r"\\\g<0>", text)
    return _ARXIV.sub(r"`\1 <https://arxiv.org/abs/\1>`__", escaped)


def as_written(app, what, name, obj, options, signature, returns):
    """Give the fields of a settings class the types that stand in its code, without what they are checked by."""
    if what != "class" or not issubclass(obj, BaseModel) or not signature:
        return None
    written = {}
    for base in reversed([base for base in obj.__mro__ if base.__module__.startswith("colt_core")]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        written |= {node.target.id: ast.unparse(node.annotation) for node in body if isinstance(node, ast.AnnAssign)}
    fields = [(key, written[key], field) for key, field in obj.model_fields.items() if key in written]
    defaults = [
        "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}" for *_, field in fields
    ]
    return f"(*, {', '.join(f'{k}: {kind}{d}' for (k, kind, _), d in zip(fields, defaults, strict=True))})", None


def show_formula(self, node):
    """Write a formula as MathML, in a box that scrolls where a phone is too narrow for it."""
    block = isinstance(node, nodes.math_block)
    text = latex2mathml.converter.convert(node.astext(), display="block" if block else "inline")
    self.body.append(f'<div class="formula">{text}</div>' if block else text)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (show_formula, None), (show_formula, None))
    app.connect("autodoc-process-docstring", as_text, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", not_typed, priority=900)
    app.connect("autodoc-process-signature", as_written)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
