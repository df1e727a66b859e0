"""Builds the site into `_docs/`: checks that the reports are the sample's, writes the pages, runs Sphinx."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # nbformat's schema checker would build its grammar of URLs for 2 s
import jinja2  # noqa: E402
import nbformat  # noqa: E402
import networkx  # noqa: E402
import yaml  # noqa: E402
from sphinx.cmd.build import build_main  # noqa: E402

from leadscore.card import make_data_card, make_model_card  # noqa: E402
from leadscore.files import temporary_folder, write_whole  # noqa: E402
from leadscore.params import LeadscoreError, one_line  # noqa: E402
from leadscore.sample import is_sample  # noqa: E402

HIDDEN = re.compile(r"^#\|\s*(hide|default_exp)\b", re.M)
NO_CODE = re.compile(r"^#\|\s*echo:\s*false\b", re.M)
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)
WIDGET = "application/vnd.jupyter.widget-view+json"
ROOT_PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "params.yaml"]
SVG = Path(__file__).with_name("pipeline.svg.j2")


def read_stages(root: Path) -> dict:
    "The stages of `dvc.yaml`."
    return yaml.safe_load((root / "dvc.yaml").read_text())["stages"]


def list_outs(stage: dict) -> list[str]:
    "Paths that a stage writes; those with settings are a dict in `dvc.yaml`."
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]


def list_reports(root: Path) -> list[str]:
    "The reports that `dvc.yaml` declares; what else lies beside them was checked by nobody."
    outs = [out for stage in read_stages(root).values() for out in list_outs(stage)]
    return [out for out in outs if out.startswith("reports/")]


def check_reports(root: Path) -> None:
    """Refuse reports that are not the sample's: the site is public, and real leads are nobody's business.

    Parameters
    ----------
    root : Path
        Of the repo.

    Raises
    ------
    LeadscoreError
        Reports are missing, come from other leads, or are not as `dvc.lock` says.
    """
    missing = [path for path in [*list_reports(root), "dvc.lock"] if not (root / path).is_file()]
    if missing:
        raise LeadscoreError(f"{', '.join(missing)}: missing; run make repro first")
    if not is_sample(root / "data"):
        raise LeadscoreError("data: not the sample's leads; run make data FROM=sample, then make repro")
    changed = list_changed(root)
    if changed:
        raise LeadscoreError(f"{changed[0]}: not what the pipeline made of the sample; run make repro first")


def list_changed(root: Path) -> list[str]:
    "Data and results that are not as `dvc.lock` says. Code may have changed: that is what the site is for."
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise LeadscoreError(f"{' '.join(command)}: {done.stderr}")
    changes = [change for stage in json.loads(done.stdout).values() for change in stage if isinstance(change, dict)]
    paths = [path for change in changes for changed in change.values() for path in changed]
    return [path for path in paths if path.split("/")[0] in ("data", "outputs", "reports", "metrics", "plots")]


def read_notebook(path: Path, folded: bool = False) -> nbformat.NotebookNode:
    """Read a notebook as a reader wants it: without what is for nbdev, and leftovers of widgets.

    Parameters
    ----------
    path : Path
        Of the notebook. Tags of its cells that myst-nb knows (`hide-input`, `remove-cell`, …) count.
    folded : bool
        Whether its code is folded away.
    """
    notebook = nbformat.read(path, 4)
    shown = [cell for cell in notebook.cells if cell.cell_type != "raw" and not HIDDEN.search(cell.source)]
    if any("injected-parameters" in list_tags(cell) for cell in shown):  # papermill's, in place of the defaults
        shown = [cell for cell in shown if "parameters" not in list_tags(cell)]
    for cell in shown:
        if cell.cell_type == "code":
            cell.metadata["tags"] = list_tags(cell) + choose_tags(cell, folded)
            cell.source = DIRECTIVE.sub("", cell.source).strip()
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    notebook.cells = join_code(shown) if folded else shown
    return notebook


def list_tags(cell: nbformat.NotebookNode) -> list[str]:
    "Tags of a cell, those of papermill and of myst-nb."
    return cell.metadata.get("tags", [])


def choose_tags(cell: nbformat.NotebookNode, folded: bool) -> list[str]:
    "Tags by which myst-nb drops or folds the code of a cell."
    if NO_CODE.search(cell.source):
        return ["remove-input"]
    return ["hide-input"] if folded else []


def join_code(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    "Put code that shows nothing together with the code after it, so that there is less to unfold."
    joined = []
    for cell in cells:
        last = joined[-1] if joined else None
        if last and cell.cell_type == last.cell_type == "code" and not last.outputs:
            cell.source = f"{last.source}\n\n{cell.source}"
            joined.pop()
        joined.append(cell)
    return joined


def draw_pipeline(stages: dict) -> str:
    """Draw the stages as SVG, from left to right; an arrow that follows from others is left out.

    Parameters
    ----------
    stages : dict
        Of `dvc.yaml`: name -> `deps` and `outs`.
    """
    graph = networkx.DiGraph()
    for name, stage in stages.items():
        needs = [other for other in stages if is_read(list_outs(stages[other]), stage["deps"])]
        graph.add_edges_from((other, name) for other in needs or ["data"])
    graph = networkx.transitive_reduction(graph)
    boxes = {}
    for column, names in enumerate(networkx.topological_generations(graph)):
        for row, name in enumerate(sorted(names, key=lambda name: graph.out_degree(name) == 0)):
            boxes[name] = {"x": 150 * column, "y": 70 * row}
    template = jinja2.Template(SVG.read_text(), trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=True)
    return template.render(
        boxes=boxes,
        arrows=[(boxes[start], boxes[end]) for start, end in sorted(graph.edges)],
        width=108 + max(box["x"] for box in boxes.values()),
        height=48 + max(box["y"] for box in boxes.values()),
    )


def is_read(outs: list[str], deps: list[str]) -> bool:
    "Whether one of the outs is a dependency, or the folder of one."
    return any(f"{dep}/".startswith(f"{out}/") for dep in deps for out in outs)


def write_pages(root: Path, folder: Path) -> None:
    """Write what Sphinx reads: the pages of `docs/`, and those made of notebooks, reports, modules and metrics.

    Parameters
    ----------
    root : Path
        Of the repo.
    folder : Path
        Is written, laid out as the repo, so that links between notebooks and README hold.
    """
    shutil.copytree(root / "docs", folder, ignore=shutil.ignore_patterns("*.py", "*.j2", "__pycache__"))
    shutil.copytree(root / "nbs/images", folder / "nbs/images")
    for name in ROOT_PAGES:
        shutil.copyfile(root / name, folder / name)
    for name in ("api", "cards", "reports"):
        (folder / name).mkdir()
    for path in [*sorted(root.glob("nbs/[0-9]*.ipynb")), root / "nbs/study.ipynb"]:
        nbformat.write(read_notebook(path), folder / "nbs" / path.name)
    for name in list_reports(root):
        nbformat.write(read_notebook(root / name, folded=True), folder / name)
    for path in root.glob("nbs/[0-9]*.ipynb"):
        (folder / f"api/{path.stem}.rst").write_text(describe_module(path.stem))
    (folder / "pipeline.svg").write_text(draw_pipeline(read_stages(root)))
    (folder / "cards/model.md").write_text(make_model_card(root))
    (folder / "cards/data.md").write_text(make_data_card(root))


def describe_module(notebook: str) -> str:
    "The page of the API of the module that a notebook exports, as reStructuredText; its constants come last."
    module = notebook.split("_", 1)[1]
    lines = [module, "=" * len(module), "", f"Notebook: :doc:`/nbs/{notebook}`", ""]
    lines += [f".. automodule:: leadscore.{module}", "   :members:", ""]
    constants = [name for name in importlib.import_module(f"leadscore.{module}").__all__ if name.isupper()]
    if constants:
        lines += ["Constants", "---------", ""]
    lines += [f".. autodata:: leadscore.{module}.{name}" for name in constants]
    return "\n".join([*lines, ""])


def build_site(root: Path) -> None:
    """Build `_docs/`, whole or not at all.

    Parameters
    ----------
    root : Path
        Of the repo.

    Raises
    ------
    LeadscoreError
        The reports are not the sample's, or Sphinx warns of something, a link that leads nowhere for example.
    """
    check_reports(root)
    with temporary_folder() as temporary, write_whole(root / "_docs") as new:
        write_pages(root, temporary / "pages")
        options = ["--quiet", "--nitpicky", "--fail-on-warning", "-c", f"{root}/docs", "-d", f"{temporary}/doctrees"]
        if build_main([*options, f"{temporary}/pages", f"{temporary}/site"]):
            raise LeadscoreError("the site has mistakes, see above; _docs is as before")
        unneeded = shutil.ignore_patterns("_sources", ".buildinfo", "webpack-macros.html")
        shutil.copytree(temporary / "site", new, ignore=unneeded)


if __name__ == "__main__":
    try:
        run = check_reports if sys.argv[1:] == ["--check"] else build_site
        run(Path(__file__).resolve().parents[1])
    except LeadscoreError as error:
        print(f"leadscore: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
