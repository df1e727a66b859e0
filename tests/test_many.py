"""Many leads take the path of few: a folder of files gives what one file gives, side by side and on a Dask cluster.

Workers are killed on the way.
"""

import importlib.util
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import REAL, ROOT, environment, fails, run

from leadscore.clean import clean_labelled
from leadscore.recipe import Cleaner
from leadscore.sample import make_leads
from leadscore.table import load_table
from leadscore.text import list_files

MAIN = "import sys; from leadscore.cli import main; sys.exit(main())"
CLUSTER = """
from distributed import LocalCluster
with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
    print(cluster.scheduler_address, flush=True)
    input()
"""
FILES, SIZE = 8, 3000


def split(leads: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(leads)), FILES)):
        leads.iloc[rows].to_csv(folder / f"part-{number}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Leads as one file and as a folder; one lead has a bad cell, one stands in another file again."
    folder = tmp_path_factory.mktemp("many")
    leads = make_leads(FILES * SIZE).astype({"careers": object})
    leads.iloc[-5] = leads.iloc[7].where(leads.columns != "", leads.iloc[-5, 0])
    leads.loc[[3, 20_000], "careers"] = "x"
    leads.to_csv(folder / "leads.csv", index=False)
    split(leads, folder / "leads")
    return folder


def score(source, target, repo, *options, python=sys.executable, wait=True):
    model = ("--model", str(repo / "outputs/train/model"), "--max-unseen", "1")
    command = [python, "-c", MAIN, "score", str(source), "-o", str(target), *model, *options]
    if wait:
        return run(*command, cwd=ROOT)
    return subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), stderr=subprocess.PIPE, text=True)


def join(folder: Path) -> str:
    "The lists of a folder as one."
    texts = [path.read_text().partition("\n") for path in list_files(folder)]
    assert len({head for head, _, _ in texts}) == 1
    return texts[0][0] + "\n" + "".join(rows for _, _, rows in texts)


@pytest.fixture(scope="module")
def alone(folder, repo):
    "The list of all leads in one file."
    score(folder / "leads.csv", folder / "alone.csv", repo, "--no-reasons")
    return (folder / "alone.csv").read_text()


def clean(source: Path, target: Path) -> tuple[Cleaner, dict]:
    cleaner = Cleaner(load_table(ROOT / "leads.yaml"), 0.9)
    return cleaner, clean_labelled(source, target, cleaner, 0.05).counts


@pytest.mark.parametrize("source", ["made", *(["real"] if REAL.is_dir() else [])])
def test_a_folder_is_cleaned_as_one_file(folder, tmp_path, source):
    file, parts = folder / "leads.csv", folder / "leads"
    if source == "real":
        file = REAL / "leadscoring.csv"
        text = pd.read_csv(file, dtype=str, keep_default_na=False).rename(columns={"Unnamed: 0": ""})
        parts = split(text, tmp_path / "parts")
    one, many = clean(file, tmp_path / "one.parquet"), clean(parts, tmp_path / "many.parquet")
    assert one[1] == many[1] and (one[0].levels, one[0].seen) == (many[0].levels, many[0].seen)
    leads = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "many")]
    pd.testing.assert_frame_equal(*leads, check_exact=True)


def test_a_folder_is_scored_as_one_file(folder, repo, alone):
    done = score(folder / "leads", folder / "lists", repo, "--no-reasons", "--workers", "2")
    assert join(folder / "lists") == alone
    assert "2 lead(s) without a score" in done.stderr
    rejected = pd.read_csv(folder / "lists_rejected.csv")
    assert rejected[["file", "row"]].to_numpy().tolist() == [["part-0.csv", 5], ["part-6.csv", 2002]]


def test_a_number_in_two_files_is_refused(repo, tmp_path):
    split(make_leads(80).assign(**{"": [*range(79), 5]}).drop(columns="app_complete_flag"), tmp_path / "twice")
    model = ("--model", "outputs/train/model")
    message = fails("leadscore", "score", str(tmp_path / "twice"), "-o", str(tmp_path / "none"), *model, cwd=repo)
    assert message.endswith("twice: lead ID '5' appears in part-0.csv and part-7.csv; give each lead its own")
    assert [path.name for path in tmp_path.iterdir()] == ["twice"]


def wait_for_worker(process: psutil.Process, pattern: str, folder: Path) -> list[psutil.Process]:
    "The working processes of a command, once the first file is scored."
    end = time.monotonic() + 90
    while not list(folder.glob(pattern)) and time.monotonic() < end:
        time.sleep(0.005)
    return [child for child in process.children(recursive=True) if "resource_tracker" not in " ".join(child.cmdline())]


def test_a_killed_worker_costs_no_lead(folder, repo, alone):
    process = score(folder / "leads", folder / "killed", repo, "--workers", "2", wait=False)
    [worker, *_] = wait_for_worker(psutil.Process(process.pid), ".killed.*/.work/*.parquet", folder)
    worker.kill()
    _, said = process.communicate(timeout=120)
    [line] = [line for line in said.splitlines() if line.startswith("leadscore: ")]
    assert process.returncode == 1 and "a worker died" in line and "run this again" in line, said
    assert not list(folder.glob("*killed*")) and not (folder / "killed").exists()


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    "A Python with Dask; the lock has none."
    if importlib.util.find_spec("distributed"):
        return sys.executable
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=ROOT)
    install = ("uv", "pip", "install", "--quiet", "--python", f"{folder}/bin/python")
    run(*install, "--constraint", "requirements.lock", "-r", "pyproject.toml", "--extra", "scale", cwd=ROOT)
    return f"{folder}/bin/python"


@contextmanager
def start_cluster(python: str):
    "Two workers; the address of their scheduler and the process they belong to."
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([python, "-c", CLUSTER], env=environment(ROOT), **pipes)
    yield process.stdout.readline().strip(), psutil.Process(process.pid)
    process.communicate("\n", timeout=30)


def test_a_cluster_scores_the_same_though_a_worker_is_killed(folder, repo, alone, python):
    with start_cluster(python) as (address, owner):
        options = ("--no-reasons", "--dask", address)
        process = score(folder / "leads", folder / "on_dask", repo, *options, python=python, wait=False)
        [worker, *_] = wait_for_worker(owner, ".on_dask.*/.work/*.parquet", folder)
        worker.kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert join(folder / "on_dask") == alone


def test_without_dask_or_scheduler_one_line_says_what_to_do(folder, repo, python, tmp_path):
    model = ("--model", str(repo / "outputs/train/model"))
    arguments = ("score", str(folder / "leads"), "-o", str(tmp_path / "none"), *model)
    command = ("-c", MAIN, *arguments, "--dask", "tcp://127.0.0.1:1")
    assert "tcp://127.0.0.1:1: no Dask scheduler answers" in fails(python, *command, cwd=ROOT)
    if not importlib.util.find_spec("distributed"):
        assert fails(sys.executable, *command, cwd=ROOT).endswith("pip install '.[scale]' in the repo")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_reads_a_folder(repo, work):
    for name in ("leadscoring", "leadscoring_inference"):
        (work / "data" / name).mkdir()
        lines = (work / f"data/{name}.csv").read_text().splitlines(keepends=True)
        for part, rows in enumerate((lines[1:51], lines[51:])):
            (work / f"data/{name}/{part}.csv").write_text("".join([lines[0], *rows]))
    message = fails(sys.executable, "-m", "leadscore.stage", "clean", cwd=work)
    assert "there is a folder leadscoring beside it; keep one" in message
    for path in (work / "data").glob("*.csv"):
        path.unlink()
    shutil.rmtree(work / "outputs/clean")
    run(sys.executable, "-m", "leadscore.stage", "clean", cwd=work)
    for name in ("leads", "inference"):
        leads = [pd.read_parquet(root / f"outputs/clean/{name}.parquet") for root in (repo, work)]
        pd.testing.assert_frame_equal(*leads, check_exact=True)
