"""The house style, held: ruff over all code, and how a library notebook is built.

`pytest tests/test_style.py -k 11_features` looks at one.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
VAGUE = {"found", "own", "again", "same", "few", "parts"}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
MOST_LINES, MOST_CELL_LINES, MOST_WIDTH = 40, 90, 120


def read_cells(notebook):
    "Kind and text of each cell."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def is_export(kind, text):
    return kind == "code" and re.match(r"#\| exporti?\b", text) is not None


def list_definitions(text):
    return [node for node in ast.parse(text).body if isinstance(node, DEFINITIONS)]


def list_cell_faults(cells, at):
    "What is wrong with an export cell and its place."
    kind, text = cells[at]
    public = [node.name for node in list_definitions(text) if not node.name.startswith("_")]
    lines = text.splitlines()
    faults = [f"line of {len(line)} characters: {line[:60]}" for line in lines if len(line) > MOST_WIDTH]
    if len(public) > 1:
        faults.append(f"{', '.join(public)}: several public names in a cell")
    if len(lines) > MOST_CELL_LINES:
        faults.append(f"{public}: a cell of {len(lines)} lines")
    if public and cells[at - 1][0] != "markdown":
        faults.append(f"{public[0]}: no prose before it")
    after = [text for kind, text in cells[at + 1 : at + 3] if kind == "code" and not is_export(kind, text)]
    if public and not any(re.search(rf"\b{public[0]}\b", text) for text in after):
        faults.append(f"{public[0]}: no example within two cells")
    return faults


def is_text_or_truth(node):
    "Whether an operand is a string, or true or false."
    text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return text or negation or isinstance(node, (ast.Compare, ast.BoolOp))


def list_names(node):
    "Names that a node gives to something."
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    if isinstance(node, ast.arg):
        return {node.arg}
    return {node.name} if isinstance(node, DEFINITIONS) else set()


def list_code_faults(node):
    "What is wrong with one node of the syntax tree."
    faults = [f"{name}: a vague name" for name in list_names(node) & VAGUE]
    if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MOST_LINES:
        faults.append(f"{node.name}: a function of {node.end_lineno - node.lineno + 1} lines")
    inside = list(ast.walk(node))[1:]
    if isinstance(node, COMPREHENSIONS) and any(isinstance(inner, COMPREHENSIONS) for inner in inside):
        faults.append(f"{ast.unparse(node)[:60]}: a comprehension in a comprehension")
    product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    if product and (is_text_or_truth(node.left) or is_text_or_truth(node.right)):
        faults.append(f"{ast.unparse(node)[:60]}: arithmetic on text or truth")
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.IfExp):
        faults.append(f"{ast.unparse(node)[:60]}: a conditional expression as a statement")
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
        faults.append(f"{ast.unparse(node)[:60]}: a lambda with a name")
    return faults


def list_faults(notebook):
    cells = read_cells(notebook)
    tagline = re.search(r"^> (.*)", cells[0][1], re.M)[1]  # the module's docstring
    faults = [f"tagline of {len(tagline)} characters"] if len(tagline) > MOST_WIDTH - 6 else []
    for at, (kind, text) in enumerate(cells):
        if is_export(kind, text):
            faults += list_cell_faults(cells, at)
            for node in ast.walk(ast.parse(text)):
                faults += list_code_faults(node)
    return faults


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook):
    assert list_faults(notebook) == []


def test_ruff():
    done = subprocess.run(["ruff", "check", "--output-format=concise", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
