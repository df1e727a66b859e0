"""Builds the site into `_docs/`: checks that the reports are the sample's, makes pages of notebooks, README and docstrings, runs Sphinx."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # nbformat's schema checker would build its grammar of URLs for 2 s
import nbformat  # noqa: E402
import yaml  # noqa: E402
from sphinx.cmd.build import build_main  # noqa: E402

from leadscore.card import make_data_card, make_model_card  # noqa: E402
from leadscore.files import temporary_folder, write_whole
from leadscore.params import LeadscoreError, one_line  # noqa: E402
from leadscore.sample import is_sample  # noqa: E402

HIDDEN = re.compile(r"^#\|\s*(hide|default_exp)\b", re.M)
NO_CODE = re.compile(r"^#\|\s*echo:\s*false\b", re.M)
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)
WIDGET = "application/vnd.jupyter.widget-view+json"


def list_reports(root: Path) -> list[str]:
    "The reports that `dvc.yaml` declares; what else lies beside them was checked by nobody."
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    return [out for stage in stages.values() for out in stage["outs"] if str(out).startswith("reports/")]


def check_reports(root: Path) -> None:
    """Refuse reports that are not the sample's: the site is public, and real leads are nobody's business.

    Parameters
    ----------
    root : of the repo

    Raises
    ------
    LeadscoreError : reports are missing, come from other leads, or are not as `dvc.lock` says.
    """
    missing = [path for path in [*list_reports(root), "dvc.lock"] if not (root / path).is_file()]
    if missing:
        raise LeadscoreError(f"{', '.join(missing)}: missing; run make repro first")
    if not is_sample(root / "data"):
        raise LeadscoreError("data: not the sample's leads; run make data FROM=sample, then make repro")
    entries = [entry for entries in json.loads(_ask(root, sys.executable, "-m", "dvc", "status", "--json")).values() for entry in entries if isinstance(entry, dict)]
    changed = [path for entry in entries for paths in entry.values() for path in paths]
    changed = [path for path in changed if path.split("/")[0] in ("data", "outputs", "reports", "metrics", "plots")]
    if changed:  # code may have changed: that is what the site is for
        raise LeadscoreError(f"{changed[0]}: not what the pipeline made of the sample; run make repro first")


def _ask(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise LeadscoreError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def read_notebook(path: Path, folded: bool = False) -> nbformat.NotebookNode:
    """Read a notebook as a reader wants it: without hidden cells, directives and leftovers of widgets.

    Parameters
    ----------
    path : notebook
    folded : whether its code is folded away
    """
    notebook = nbformat.read(path, 4)
    given = any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    defaults = {"parameters"} if given else set()
    notebook.cells = [
        cell for cell in notebook.cells
        if cell.cell_type == "markdown" or (cell.cell_type == "code" and not HIDDEN.search(cell.source) and not defaults & set(cell.metadata.get("tags", [])))
    ]  # fmt: skip
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags = ["remove-input"] if NO_CODE.search(cell.source) else ["hide-input"] if folded else []
            cell.metadata = nbformat.from_dict({"tags": tags})
            cell.source = DIRECTIVE.sub("", cell.source).strip()
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    if folded:
        notebook.cells = _join_code(notebook.cells)
    return notebook


def _join_code(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    "Put code that shows nothing together with the code after it, so that there is less to unfold."
    joined = []
    for cell in cells:
        if joined and cell.cell_type == joined[-1].cell_type == "code" and not joined[-1].outputs:
            cell.source = f"{joined.pop().source}\n\n{cell.source}"
        joined.append(cell)
    return joined


def draw_pipeline(stages: dict) -> str:
    """Draw the stages as SVG, from left to right; an arrow that follows from others is left out.

    Parameters
    ----------
    stages : of `dvc.yaml`, each after those that it needs
    """
    outs = {name: [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]] for name, stage in stages.items()}
    needs, all_needs, column = {}, {}, {"data": 0}
    for name, stage in stages.items():
        needs[name] = {other for other in needs for out in outs[other] for dep in stage["deps"] if f"{dep}/".startswith(f"{out}/")}
        all_needs[name] = needs[name].union(*(all_needs[other] for other in needs[name]))
        column[name] = 1 + max((column[other] for other in needs[name]), default=0)
    needed = set().union(*needs.values())
    at = {}
    for name in sorted(column, key=lambda name: name not in needed):
        row = sum(x == 150 * column[name] for x, _ in at.values())
        at[name] = (150 * column[name], 70 * row)
    arrows = [(other, name) for name in stages for other in needs[name] or {"data"} if not any(other in all_needs[further] for further in needs[name])]
    lines = [f'<path d="M{at[a][0] + 104},{at[a][1] + 22} C{at[a][0] + 130},{at[a][1] + 22} {at[b][0] - 30},{at[b][1] + 22} {at[b][0] - 4},{at[b][1] + 22}"/>' for a, b in sorted(arrows)]
    boxes = [f'<rect x="{x}" y="{y}" width="104" height="44" rx="6"/><text x="{x + 52}" y="{y + 27}">{name}</text>' for name, (x, y) in at.items()]
    return (
        f'<svg class="pipeline" viewBox="-2 -2 {108 + max(x for x, _ in at.values())} {48 + max(y for _, y in at.values())}" role="img" aria-label="The stages, in the order in which they run">'
        '<marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0L8,4L0,8z"/></marker>'
        + "".join([*lines, *boxes]) + "</svg>\n"
    )  # fmt: skip


def write_pages(root: Path, folder: Path) -> None:
    """Write what Sphinx reads: the pages of `docs/`, and those made of notebooks, reports, modules and metrics.

    Parameters
    ----------
    root : of the repo
    folder : that is written, laid out as the repo, so that links between notebooks and README hold
    """
    shutil.copytree(root / "docs", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(root / "nbs/images", folder / "nbs/images")
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "params.yaml"):
        shutil.copyfile(root / name, folder / name)
    library, reports = [*sorted(root.glob("nbs/[0-9]*.ipynb")), root / "nbs/study.ipynb"], [root / path for path in list_reports(root)]
    for path in [*library, *reports]:
        target = folder / path.relative_to(root)
        target.parent.mkdir(exist_ok=True)
        nbformat.write(read_notebook(path, folded=path in reports), target)
    (folder / "pipeline.svg").write_text(draw_pipeline(yaml.safe_load((root / "dvc.yaml").read_text())["stages"]))
    (folder / "api").mkdir()
    for path in library[:-1]:
        number, module = path.stem.split("_", 1)
        constants = [name for name in importlib.import_module(f"leadscore.{module}").__all__ if name.isupper()]
        lines = [module, "=" * len(module), "", f"Notebook: :doc:`/nbs/{path.stem}`", "", f".. automodule:: leadscore.{module}", "   :members:", ""]
        lines += [*(["Constants", "---------", ""] if constants else []), *(f".. autodata:: leadscore.{module}.{name}" for name in constants), ""]
        (folder / f"api/{number}_{module}.rst").write_text("\n".join(lines))
    (folder / "cards").mkdir()
    (folder / "cards/model.md").write_text(make_model_card(root))
    (folder / "cards/data.md").write_text(make_data_card(root))


def build_site(root: Path) -> None:
    """Build `_docs/`, whole or not at all.

    Parameters
    ----------
    root : of the repo

    Raises
    ------
    LeadscoreError : the reports are not the sample's, or Sphinx warns of something, a link that leads nowhere for example.
    """
    check_reports(root)
    with temporary_folder() as temporary, write_whole(root / "_docs") as new:
        write_pages(root, temporary / "pages")
        options = ["--quiet", "--nitpicky", "--fail-on-warning", "-c", f"{root}/docs", "-d", f"{temporary}/doctrees"]
        if build_main([*options, f"{temporary}/pages", f"{temporary}/site"]):
            raise LeadscoreError("the site has mistakes, see above; _docs is as before")
        shutil.copytree(temporary / "site", new, ignore=shutil.ignore_patterns("_sources", ".buildinfo", "webpack-macros.html"))


if __name__ == "__main__":
    try:
        run = check_reports if sys.argv[1:] == ["--check"] else build_site
        run(Path(__file__).resolve().parents[1])
    except LeadscoreError as error:
        print(f"leadscore: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
