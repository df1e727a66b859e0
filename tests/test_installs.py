"""Each documented way to install, into a fresh venv; without the lock, the bounds of pyproject.toml must be enough."""

import re
import shutil
import sys
import tomllib

import pandas as pd
import pytest
from conftest import ROOT, run
from test_many import start_cluster

pytestmark = pytest.mark.slow
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {"dvc", "jupyterlab", "mlflow", "nbdev", "optuna", "papermill"}
HEAVY |= {"pycaret", "pycaret-core", "scikit-learn", "sphinx"}
LOCKED = ("--constraint", str(ROOT / "requirements.lock"))


def install(repo, folder, what, *options):
    "A fresh venv with the repo in it: the folder of its commands."
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"), cwd=folder)
    run("uv", "pip", "install", "--quiet", "--python", f"{folder}/venv/bin/python", *options, what, cwd=repo)
    return folder / "venv/bin"


def call(bin, *command, cwd, exit_code=0):
    "Run a command of a venv with no code but the installed one; what succeeds says nothing on stderr."
    done = run(str(bin / command[0]), *map(str, command[1:]), cwd=cwd, ok=False, PYTHONPATH="")
    assert done.returncode == exit_code, f"{command}:\n{done.stdout}\n{done.stderr}"
    assert exit_code or not done.stderr, done.stderr
    return done


def imports(bin, names, cwd):
    call(bin, "python", "-c", f"import {names}", cwd=cwd)


def take_table(repo, folder):
    "What `leadscore check` reads: leads.yaml and its tables of groups."
    shutil.copyfile(repo / "leads.yaml", folder / "leads.yaml")
    shutil.copytree(repo / "mappings", folder / "mappings")


def score_and_check(bin, repo, folder):
    "Score the sample into `scored.csv`, check it, and a file with a cell that can't be read."
    take_table(repo, folder)
    call(bin, "leadscore", "score", repo / "data/leadscoring_inference.csv", "-o", "scored.csv",
         "--model", repo / "outputs/train/model", cwd=folder)  # fmt: skip
    call(bin, "leadscore", "check", repo / "data/leadscoring.csv", cwd=folder)
    leads = pd.read_csv(repo / "data/leadscoring.csv", dtype=str, keep_default_na=False, nrows=9)
    leads.loc[3, "careers"] = "x"
    leads.rename(columns={"Unnamed: 0": ""}).to_csv(folder / "spoilt.csv", index=False)
    checked = call(bin, "leadscore", "check", "spoilt.csv", cwd=folder, exit_code=1).stdout
    assert "9 leads with label, 1 with a bad cell" in checked
    return folder / "scored.csv"


def same_list(path, repo):
    "The pipeline's list, up to the last digits, which may change with the packages."
    pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(repo / "outputs/infer/scored_leads.csv"), rtol=1e-9)


def test_pip_install_scores(repo, tmp_path):
    run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    run(str(tmp_path / "venv/bin/pip"), "install", "--quiet", ".", cwd=repo)
    same_list(score_and_check(tmp_path / "venv/bin", repo, tmp_path), repo)


def test_the_oldest_packages_within_the_bounds_score(repo, tmp_path):
    bin = install(repo, tmp_path, ".", "--resolution", "lowest-direct")
    same_list(score_and_check(bin, repo, tmp_path), repo)


def test_scoring_install_is_small_and_with_the_lock_gives_the_same_bytes(repo, tmp_path):
    bin = install(repo, tmp_path, ".", *LOCKED)
    listed = run("uv", "pip", "list", "--python", str(bin / "python"), "--format", "freeze", cwd=tmp_path).stdout
    names = {line.split("==")[0] for line in listed.lower().split()}
    assert not names & HEAVY
    assert {line.split(">")[0].replace(".", "-") for line in PROJECT["dependencies"]} <= names
    scored = score_and_check(bin, repo, tmp_path)
    assert scored.read_bytes() == (repo / "outputs/infer/scored_leads.csv").read_bytes()
    command = ["leadscore", "score", repo / "data/leadscoring_inference.csv", "-o", "none.csv"]
    refused = call(bin, *command, cwd=tmp_path, exit_code=1)
    assert "MLflow is not installed here" in refused.stderr
    call(bin, "leadscore", "verify", "outputs/infer/scored_leads_receipt.json", cwd=repo)
    commands = ["leadscore champion", "leadscore register", "leadscore champion --revert"]
    mend = r"leadscore: \w+ is not installed here; pip install '\.\[(experiment|pipeline)\]' in the repo\n"
    for command in (*commands, "python -m leadscore.stage clean"):
        refused = call(bin, *command.split(), cwd=repo, exit_code=1).stderr
        assert re.fullmatch(mend, refused), refused


def test_experiment_alone_reads_the_registry_and_compares(repo, tmp_path):
    bin = install(repo, tmp_path, ".[experiment]")
    assert "champion" in call(bin, "leadscore", "champion", cwd=repo).stdout
    imports(bin, "leadscore.tracking, leadscore.experiment, mlflow, optuna, pycaret.classification", tmp_path)


def test_pipeline_alone_runs_a_stage(repo, tmp_path, work):
    bin = install(repo, tmp_path, ".[pipeline]")
    shutil.rmtree(work / "outputs/clean")
    call(bin, "python", "-m", "leadscore.stage", "clean", cwd=work)
    assert (work / "outputs/clean/leads.parquet").read_bytes() == (repo / "outputs/clean/leads.parquet").read_bytes()
    call(bin, "dvc", "--version", cwd=work)
    imports(bin, "pycaret.classification, data_profiling", work)


def test_docs_alone_reads_the_settings_of_the_site(repo, tmp_path):
    bin = install(repo, tmp_path, ".[docs]")
    call(bin, "python", "docs/conf.py", cwd=repo)
    imports(bin, "sphinx, myst_nb, pydata_sphinx_theme", tmp_path)


def test_dev_alone_exports_and_tests(repo, tmp_path):
    bin = install(repo, tmp_path, ".[dev]")
    for command in ("nbdev_export", "nbdev_test", "pytest", "bandit", "pre-commit"):
        call(bin, command, "--help", cwd=tmp_path)
    imports(bin, "xdist, hypothesis, jupyterlab, playwright, psutil", tmp_path)


def test_scale_alone_scores_a_folder_on_a_cluster(repo, tmp_path):
    bin = install(repo, tmp_path, ".[scale]")
    (tmp_path / "leads").mkdir()
    lines = (repo / "data/leadscoring_inference.csv").read_text().splitlines(keepends=True)
    for name, rows in {"a": lines[1:51], "b": lines[51:]}.items():
        (tmp_path / f"leads/{name}.csv").write_text("".join([lines[0], *rows]))
    with start_cluster(str(bin / "python")) as (address, _):
        model = ("--model", repo / "outputs/train/model")
        command = ("leadscore", "score", tmp_path / "leads", "-o", tmp_path / "lists", *model, "--dask", address)
        assert "100 leads, 100 scored" in call(bin, *command, cwd=tmp_path).stdout
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["a.csv", "b.csv"]


def test_excel_alone_reads_a_workbook(repo, tmp_path):
    leads = pd.read_csv(repo / "data/leadscoring_inference.csv").rename(columns={"Unnamed: 0": ""})
    leads.to_excel(tmp_path / "leads.xlsx", index=False)
    take_table(repo, tmp_path)
    bin = install(repo, tmp_path, ".", *LOCKED)
    refused = call(bin, "leadscore", "check", "leads.xlsx", cwd=tmp_path, exit_code=1).stderr
    assert refused == "leadscore: python_calamine is not installed here; pip install '.[excel]' in the repo\n"
    bin = install(repo, tmp_path, ".[excel]", "--resolution", "lowest-direct")
    assert "100 leads" in call(bin, "leadscore", "check", "leads.xlsx", cwd=tmp_path).stdout


def test_setup_in_a_copied_folder_runs_the_code_of_the_copy(repo, tmp_path):
    first, copy = tmp_path / "first", tmp_path / "the copy"
    shutil.copytree(repo, first, ignore=shutil.ignore_patterns(".git", ".dvc", "mlruns", "outputs", "reports"))
    (first / "requirements.lock").write_text("")  # what is installed beside our code does not matter here
    run("make", "setup", cwd=first, PYTHONPATH="")
    shutil.copytree(first, copy, symlinks=True)
    for folder in (first, copy):
        run("make", "setup", cwd=folder, PYTHONPATH="")
        where = ["python", "-c", "import leadscore; print(leadscore.__file__)"]
        place = call(folder / ".venv/bin", *where, cwd=tmp_path).stdout
        assert place.strip() == str(folder / "leadscore/__init__.py")
        assert f"{folder}/.venv/bin" in (folder / ".venv/bin/leadscore").read_text()
        assert "Nothing to be done" in run("make", "setup", cwd=folder, PYTHONPATH="").stdout


def test_every_extra_is_tried():
    source = (ROOT / "tests/test_installs.py").read_text()
    assert [extra for extra in PROJECT["optional-dependencies"] if f'".[{extra}]"' not in source] == []
