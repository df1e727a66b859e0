"""What the files of the repo promise each other."""

import ast
import json

import nbformat
import pandas as pd
import pytest
import yaml
from conftest import REAL, ROOT, run
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from leadscore.audit import cross_fit_baselines
from leadscore.model import Training
from leadscore.params import STAGES, load_params, notebook_name, stage_params
from leadscore.read import load_leads
from leadscore.recipe import Cleaner
from leadscore.sample import make_leads, measure_facts, write_sample
from leadscore.schema import ID, LABEL
from leadscore.table import load_table

TABLE = load_table(ROOT / "leads.yaml")
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())


def notebook(stage):
    return nbformat.read(ROOT / f"nbs/pipeline/{notebook_name(stage)}.ipynb", 4)


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_cell_equals_params_yaml(stage):
    [cell] = [cell for cell in notebook(stage).cells if "parameters" in cell.metadata.get("tags", [])]
    literals = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
    assert literals == stage_params(load_params(ROOT / "params.yaml"), stage)
    assert PIPELINE["stages"][stage]["params"] == ["base", stage, *(["infer.grades"] if stage == "evaluate" else [])]


def imports(source: str) -> set[str]:
    "Our modules that a source imports at its top level."
    found = set()
    for line in ast.parse(source).body:
        if isinstance(line, ast.ImportFrom) and line.module and (line.level or line.module.startswith("leadscore.")):
            found.add(line.module.removeprefix("leadscore."))
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_modules_that_a_stage_imports(stage):
    cells = [cell.source for cell in notebook(stage).cells if cell.cell_type == "code"]
    waiting, modules = set().union(*map(imports, cells)), set()
    while waiting:
        module = waiting.pop()
        modules.add(module)
        waiting |= imports((ROOT / f"leadscore/{module}.py").read_text()) - modules
    deps = PIPELINE["stages"][stage]["deps"]
    assert {dep for dep in deps if dep.startswith("leadscore/")} == {f"leadscore/{module}.py" for module in modules}
    assert f"nbs/pipeline/{notebook_name(stage)}.ipynb" in deps
    assert not [dep for dep in deps if dep.startswith("reports")]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_notebooks_are_as_the_house_style_says(stage):
    cells = notebook(stage).cells
    assert cells[0].source.startswith(f"# {notebook_name(stage)[:2]} {stage.capitalize()}\n\n> ")
    assert not any(cell.get("outputs") for cell in cells)
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def test_git_holds_no_data_but_the_samples(tmp_path):
    tracked = run("git", "ls-files", "dvcstore", "data", cwd=ROOT).stdout.split()
    digest = yaml.safe_load(run("git", "show", "HEAD:data.dvc", cwd=ROOT).stdout)["outs"][0]["md5"]
    listing = ROOT / "dvcstore/files/md5" / digest[:2] / digest[2:]
    objects = [digest, *(entry["md5"] for entry in json.loads(listing.read_text()))]
    assert sorted(tracked) == sorted(f"dvcstore/files/md5/{md5[:2]}/{md5[2:]}" for md5 in objects)
    write_sample(tmp_path / "data")
    for entry in json.loads(listing.read_text()):
        stored = ROOT / "dvcstore/files/md5" / entry["md5"][:2] / entry["md5"][2:]
        assert stored.read_bytes() == (tmp_path / "data" / entry["relpath"]).read_bytes()
    other = ROOT / "dvcstore/files/md5/00/real"
    assert run("git", "check-ignore", str(other), cwd=ROOT).returncode == 0


def test_the_lock_names_no_host():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))
    assert not any("://" in line for line in lines)


def cross_validate_recipe(leads: pd.DataFrame) -> tuple[float, float]:
    "AUC and accuracy of the case study's recipe over ten folds, as published."
    cleaner = Cleaner(TABLE, coverage=0.9).fit(leads)
    cleaned = cleaner.transform(leads)
    folds = pd.DataFrame({LABEL: cleaned[LABEL], "fold": 0, "logit": 0.0, "probability": 0.5})
    for fold, (_, test) in enumerate(StratifiedKFold(10, shuffle=True, random_state=42).split(cleaned, cleaned[LABEL])):
        folds.loc[test, "fold"] = fold
    baselines = cross_fit_baselines(cleaned, folds, Training(None, cleaner))  # which read no specification
    parts = [rows for _, rows in baselines.groupby("fold")]
    auc = sum(roc_auc_score(rows[LABEL], rows["recipe"]) for rows in parts) / len(parts)
    return auc, sum(accuracy_score(rows[LABEL], rows["recipe"] > 0.5) for rows in parts) / len(parts)


def test_the_recipe_on_sample_and_real_leads_is_as_published(tmp_path):
    write_sample(tmp_path / "data")
    sample, _ = load_leads(tmp_path / "data/leadscoring.csv", TABLE)
    auc, _ = cross_validate_recipe(sample)
    assert abs(auc - 0.8220) < 0.02
    if REAL.is_dir():
        auc, accuracy = cross_validate_recipe(load_leads(REAL / "leadscoring.csv", TABLE)[0])
        assert (round(auc, 3), round(accuracy, 3)) == (0.822, 0.743)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real leads are not at hand")
def test_facts_are_those_of_the_real_leads():
    leads, _ = load_leads(REAL / "leadscoring.csv", TABLE)
    to_score, _ = load_leads(REAL / "leadscoring_inference.csv", TABLE, labelled=False)
    names = {key: name for key, name in TABLE.sources.items() if key != ID}
    frames = [frame.drop(columns="fault").rename(columns=names) for frame in (leads, to_score)]
    tiers = pd.Series(TABLE.grouped["city_mapped"].groups).astype(float)
    facts = measure_facts(*frames, tiers)
    stored = json.loads((ROOT / "leadscore/facts.json").read_text())
    assert json.loads(json.dumps(facts), parse_float=lambda number: round(float(number), 6)) == stored


def test_sample_is_shaped_as_the_real_leads():
    sample = make_leads(20_000)
    missing = sample.isna().mean()
    assert 0.03 < missing["city_mapped"] < 0.05 and 0.002 < missing["referred_lead"] < 0.006
    assert missing["download_button_clicked"] > 0.998
    assert 1 <= sample.iloc[:, 1:].duplicated().sum() <= 20
    levels = sample[["first_platform_c", "first_utm_medium_c", "first_utm_source_c"]].nunique()
    assert levels.tolist() == pytest.approx([42, 333, 116], rel=0.1)
