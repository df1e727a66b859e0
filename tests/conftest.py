"""A small copy of the repo, run once from end to end, that the tests look at."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml

from leadscore.files import hold
from leadscore.params import load_params, stage_params

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"
SMALL = {
    "base": {"id_column": None},
    "profile": {"html": False},
    "experiment": {"candidates": ["lightgbm", "lr"], "folds": 2, "trials": 2},
    "train": {"folds": 3},
    "evaluate": {"windows": 3, "draws": 100},
    "criteria": {"min_auc": 0.5, "min_auc_over_recipe": -0.2, "max_log_loss": 0.8},
}


def environment(cwd: Path, **variables: str) -> dict[str, str]:
    "This environment's packages and the code of a copy of the repo."
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(cwd)}
    others = ("DVC_", "MLFLOW_", "LEADSCORE_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**inherited, **paths, **variables}


def run(*command: str, cwd: Path, ok: bool = True, **variables: str) -> subprocess.CompletedProcess:
    "Run a command in a copy of the repo."
    done = subprocess.run(command, cwd=cwd, env=environment(cwd, **variables), capture_output=True, text=True)
    assert done.returncode == 0 or not ok, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    holds_nothing = re.search(r"^leadscore: .*\b(None|nan)\b", done.stderr, re.M)  # no message of ours does
    assert not holds_nothing, done.stderr
    return done


def copy_repo(folder: Path, n_labelled: int = 700, n_unlabelled: int = 100) -> Path:
    "The working tree's tracked and new files as a Git repo of its own, with few leads and a small experiment."
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, keys in SMALL.items():
        params[section].update(keys)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for path in (folder / "nbs/pipeline").glob("*.ipynb"):  # so that a notebook run by hand does as its stage did
        notebook = nbformat.read(path, 4)
        used = stage_params(load_params(folder / "params.yaml"), path.stem.split("_")[1])
        [cell] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        cell.source = "\n".join(f"{name} = {value!r}" for name, value in used.items())
        nbformat.write(notebook, path)
    for name in ("dvc.lock", "metrics", "plots"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name, ignore_errors=True)
        else:
            (folder / name).unlink(missing_ok=True)
    from leadscore.sample import write_sample

    write_sample(folder / "data", n_labelled, n_unlabelled)
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    run("git", "config", "user.name", "test", cwd=folder)
    run("git", "config", "user.email", "test@leadscore.example", cwd=folder)
    run("dvc", "add", "--quiet", "data", cwd=folder)
    commit(folder)
    return folder


def fails(*command, cwd, **variables):
    "The message of a command that must fail with one line of ours."
    done = run(*command, cwd=cwd, ok=False, **variables)
    lines = [line for line in done.stderr.splitlines() if line.startswith("leadscore: ")]
    assert done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def wait_for(url: str, seconds: float = 60) -> None:
    "Wait until a server answers."
    end = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.3)


@pytest.fixture
def work(repo, tmp_path):
    "What a stage needs, without Git and DVC, to be spoilt."
    for name in ("data", "leadscore", "mappings", "nbs", "outputs", "metrics"):
        shutil.copytree(repo / name, tmp_path / name)
    for name in ("leads.yaml", "params.yaml"):
        shutil.copyfile(repo / name, tmp_path / name)
    return tmp_path


def commit(folder: Path) -> None:
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", "copy", cwd=folder)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=2, help="times that each stage and command is killed")
    parser.addoption("--examples", type=int, default=1000, help="bad files that are tried")


def pytest_collection_modifyitems(items):
    for item in items:
        if "repo" in item.fixturenames:
            item.add_marker(pytest.mark.pipeline)


@pytest.fixture(scope="session")
def repo(tmp_path_factory, worker_id) -> Path:
    "A copy of the repo after `dvc repro` and `leadscore register`, made once for all workers; tests change nothing."
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = shared / "a folder" / "repo"
    with hold(shared):
        if not (folder / "made").exists():
            folder.mkdir(parents=True)
            copy_repo(folder)
            run("dvc", "repro", cwd=folder)
            run("leadscore", "register", cwd=folder)
            commit(folder)
            (folder / ".git/info/exclude").write_text("made\n")
            (folder / "made").touch()
    copy = shutil.copytree(folder, tmp_path_factory.mktemp(f"a {worker_id}") / "repo", symlinks=True)
    run("leadscore", "champion", cwd=copy)  # MLflow's store follows
    return copy
