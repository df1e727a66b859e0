"""Settings of Sphinx; `build_site.py` runs it."""

import ast
import importlib
import re
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes

import leadscore

ROOT = Path(__file__).resolve().parents[1]
ANNOTATED = re.compile(r"Annotated\[((?:[^\[\],]|\[[^\[\]]*\])+), (?:[^\[\]]|\[[^\[\]]*\])*\]")  # an innermost one

project, author = "leadscore", "the leadscore maintainers"
copyright = f"2026 {author}"
version = release = leadscore.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.linkcode"]
exclude_patterns = ["README.md"]
default_role = "name"
nitpick_ignore_regex = [("py:.*", r"(?!leadscore\b).*|leadscore|.*\._.*")]  # other packages' names are on the web

autodoc_default_options = {"exclude-members": "model_config"}
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Source"]
python_maximum_signature_line_length = 120
toc_object_entries_show_parents = "hide"

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = nb_code_prompt_hide = "Code"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = "leadscore"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_favicon = "_static/logo.svg"
html_copy_source = html_show_sourcelink = False
html_sidebars = {"index": [], "decisions": [], "CHANGELOG": []}
html_theme_options = {
    "logo": {"text": "leadscore", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "alt_text": ""},
    "header_links_before_dropdown": 8,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "back_to_top_button": False,
}


def list_names():
    "Each public name, and the full one."
    names = {}
    for path in sorted((ROOT / "leadscore").glob("[a-z]*.py")):
        module = importlib.import_module(f"leadscore.{path.stem}")
        names |= {name: f"{module.__name__}.{name}" for name in module.__all__}
    return names


def link_name(role, rawtext, text, lineno, inliner, options=None, content=()):
    "Single backticks are code, as in the notebooks; a name of ours leads to its entry. A plain word may mean a column."
    code = nodes.literal(rawtext, text)
    first, dot, rest = text.partition(".")
    is_name = re.search(r"[A-Z_.]", text) and first in {"leadscore", *NAMES}
    if not is_name:
        return [code], []
    target = text if first == "leadscore" else NAMES[first] + dot + rest
    kind = {"refdomain": "py", "reftype": "obj", "refexplicit": True, "refwarn": True}
    return [addnodes.pending_xref("", code, reftarget=target, **kind)], []


def read_source(app, what, name, obj, options, lines):
    "Make a section of a line `Source: …`, for napoleon; a constant without a docstring would have its type's."
    text = "" if what == "data" else "\n".join(lines)
    lines[:] = re.sub(r"^Source: ", "Source\n------\n", text, flags=re.M).splitlines()


def drop_limits(app, what, name, obj, options, signature, returns):
    "Of `Annotated[int, Ge(0)]` keep `int`: the limits are pydantic's, and `params.yaml` says more."
    while signature and ANNOTATED.search(signature):
        signature = ANNOTATED.sub(r"\1", signature)
    return signature, returns


def find_source(module: str, name: str) -> str:
    "The page and section of the notebook in which a name is defined: the last heading before its cell."
    source = Path(importlib.import_module(module).__file__).read_text()
    lines = [node.lineno for node in ast.parse(source).body if getattr(node, "name", "") == name]
    above = "\n".join(source.splitlines()[: lines[0]] if lines else source.splitlines())
    [*_, (path, defining)] = re.findall(r"^# %% \.\./(\S+)\.ipynb #(\w+)", above, re.M)
    heading = ""
    for cell in nbformat.read(ROOT / f"{path}.ipynb", 4).cells:
        first = re.search(r"^## (.*)", cell.source, re.M)
        if cell.cell_type == "markdown" and first:
            heading = first[1]
        if cell.id == defining:
            break
    return f"../{path}.html#{nodes.make_id(heading)}"


def linkcode_resolve(domain, info):
    "The notebook as the source of an entry of the API."
    return find_source(info["module"], info["fullname"].split(".")[0])


def name_images(app, doctree, docname):
    "Images without a text in their place get the heading above them; the figures of notebooks have none."
    for image in doctree.findall(nodes.image):
        if image.get("alt", "png") == "png":
            section = next((node for node in _ancestors(image) if isinstance(node, nodes.section)), None)
            image["alt"] = f"Figure: {section[0].astext() if section else docname}"


def _ancestors(node):
    while node.parent:
        node = node.parent
        yield node


def name_home(app, pagename, templatename, context, doctree):
    "The home page is not called by its name twice."
    if pagename == "index":
        context["docstitle"] = ""


NAMES = list_names()


def setup(app):
    app.add_role("name", link_name)
    app.connect("autodoc-process-docstring", read_source, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", drop_limits)
    app.connect("doctree-resolved", name_images)
    app.connect("html-page-context", name_home)
