"""Killed, out of disk, alone, and all at once: whole files or none, and the next run goes on.

One stage in make test, all in make slow, more kills in make torture.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
import psutil
import pytest
from conftest import environment, fails, run

from leadscore.files import hash_file
from leadscore.params import STAGES

SCORE = ["leadscore", "score", "data/leadscoring_inference.csv", "--model", "outputs/train/model", "-o"]
slow = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@pytest.fixture(scope="module")
def torn(repo, tmp_path_factory):
    "A copy of the whole repo, its cache and its history, to be killed in; with temporary files of its own."
    folder = tmp_path_factory.mktemp("torn") / "repo"
    shutil.copytree(repo, folder, symlinks=True)
    for name in ("mlflow.db", "mlruns"):  # of the other folder
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    (folder.parent / "tmp").mkdir()
    return folder


def start(*command: str, cwd: Path, **variables: str) -> subprocess.Popen:
    own = {"TMPDIR": str(cwd.parent / "tmp"), **variables}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(cwd, **own), start_new_session=True, **pipes)


def let_run(process: subprocess.Popen, seconds: float) -> list[float]:
    """Wait; the seconds if the process runs still, so that to kill it is to kill something.

    One that ends by itself must end well.
    """
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return [seconds]
    assert process.returncode == 0, process.stdout.read()
    return []


def kill(process: subprocess.Popen, orphans: bool) -> None:
    "SIGKILL a process and its group; its kernel, which has a session of its own, only sometimes."
    kernels = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for victim in [process.pid, *([kernel.pid for kernel in kernels] if not orphans else [])]:
        with suppress(ProcessLookupError):
            end = os.killpg if victim == process.pid else os.kill
            end(victim, signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(kernels, timeout=20)


def leftovers(folder: Path) -> list[str]:
    "Half-written files, in the repo and among its temporary ones."
    halves = ["-name", "*.new", "-o", "-name", "*.old", "-o", "-name", "*-journal"]
    done = subprocess.run(["find", ".", "../tmp", *halves], cwd=folder, capture_output=True, text=True)
    return done.stdout.split()


def hashes(folder: Path) -> dict[str, str]:
    kept = [folder / name for name in ("outputs", "reports", "metrics", "plots")]
    files = [path for kind in kept for path in sorted(kind.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hash_file(path) for path in files if path.suffix not in (".db", ".html")}


@pytest.mark.parametrize("stage", ["clean", *(pytest.param(stage, marks=slow) for stage in STAGES if stage != "clean")])
def test_a_killed_stage_is_run_again(torn, request, stage):
    before, lock = hashes(torn), (torn / "dvc.lock").read_bytes()
    command = ["dvc", "repro", "--single-item", "--force", stage]
    started = time.monotonic()
    moments = []
    while len(moments) < request.config.getoption("--kills"):
        process = start(*command, cwd=torn)
        moments += let_run(process, random.uniform(1, 10))
        kill(process, orphans=len(moments) % 2 == 0)
        if (torn / "dvc.lock").read_bytes() != lock:  # DVC writes it in place
            run("git", "checkout", "--quiet", "dvc.lock", cwd=torn)
        halves = {name: digest for name, digest in hashes(torn).items() if "/." not in name and before[name] != digest}
        assert not halves, (moments, halves)
    process = start(*command, cwd=torn)
    assert process.wait() == 0, process.stdout.read()
    waited = ", ".join(f"{moment:.1f}" for moment in moments)
    print(f"{stage}: killed after {waited} s; {time.monotonic() - started:.0f} s in all")
    assert (torn / "dvc.lock").read_bytes() == lock and hashes(torn) == before
    assert run("git", "status", "--porcelain", cwd=torn).stdout == "" and leftovers(torn) == []
    client = mlflow.MlflowClient(f"sqlite:///{torn}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.stage = '{stage}'")
    assert {run.info.status for run in runs} == {"FINISHED"}


@slow
def test_killed_scoring_is_run_again(torn, request):
    target, moments = torn / "lists" / "scored.csv", []
    while len(moments) < request.config.getoption("--kills"):
        process = start(*SCORE, str(target), cwd=torn)
        moments += let_run(process, random.uniform(0.5, 5))
        kill(process, orphans=False)
        assert not target.exists() or target.read_bytes() == (torn / "outputs/infer/scored_leads.csv").read_bytes()
    process = start(*SCORE, str(target), cwd=torn)
    assert process.wait() == 0, process.stdout.read()
    written = sorted(path.name for path in target.parent.iterdir())
    assert written == ["scored.csv", "scored_receipt.json"] and leftovers(torn) == []
    assert target.read_bytes() == (torn / "outputs/infer/scored_leads.csv").read_bytes()
    shutil.rmtree(target.parent)


def read_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@slow
def test_a_killed_swap_of_data_is_run_again(torn, tmp_path, request):
    shutil.copytree(torn / "data", tmp_path / "others")
    path = tmp_path / "others/leadscoring.csv"
    path.write_text(path.read_text().replace("mumbai", "pune"))
    both = [read_files(folder) for folder in (torn / "data", tmp_path / "others")]
    moments = []
    while len(moments) < request.config.getoption("--kills"):
        process = start("leadscore", "data", str(tmp_path / "others"), cwd=torn)
        moments += let_run(process, random.uniform(0.5, 5))
        kill(process, orphans=False)
        assert not (torn / "data").exists() or read_files(torn / "data") in both
    run("leadscore", "data", str(tmp_path / "others"), cwd=torn)
    assert read_files(torn / "data") == both[1]
    assert run("git", "status", "--porcelain", cwd=torn).stdout == " M data.dvc\n" and leftovers(torn) == []
    run("git", "checkout", "--quiet", "data.dvc", cwd=torn)
    run("dvc", "checkout", "--quiet", "data.dvc", cwd=torn)


@contextmanager
def small_disk(folder: Path, options: str):
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@slow
@as_root
@pytest.mark.parametrize("options, fault", [("size=16k", "No space left on device"), ("ro", "Read-only file system")])
def test_a_full_or_read_only_disk_is_said_in_a_line(work, options, fault):
    for name in ("outputs/clean", "lists"):
        with small_disk(work / name, options):
            if name == "lists":
                message = fails(*SCORE, "lists/scored.csv", cwd=work)
            else:
                message = fails("python", "-m", "leadscore.stage", "clean", cwd=work)
            left = [path for path in (work / name).iterdir() if path.name.startswith(".") or path.suffix != ".csv"]
            assert fault in message and "None" not in message
            half_written = [path for path in left if not path.stat().st_size]
            assert left == [] or (name == "outputs/clean" and not half_written), (message, left)
            assert not list((work / name).glob(".*"))
    run("python", "-m", "leadscore.stage", "clean", cwd=work)
    run(*SCORE, "lists/scored.csv", cwd=work)


@slow
@as_root
def test_the_database_on_a_full_disk(work):
    with small_disk(work / "db", "size=32k"):
        url = f"sqlite:///{work}/db/leads.db"
        message = fails("python", "-m", "leadscore.stage", "clean", cwd=work, LEADSCORE_DB_URL=url)
        assert "clean.db_url: sqlite:////" in message and "disk is full" in message


@slow
def test_without_mlflow_the_pipeline_goes_on(torn):
    lost = {"MLFLOW_TRACKING_URI": "http://ada:s3cret@127.0.0.1:9"}
    done = run("dvc", "repro", "--single-item", "--force", "experiment", cwd=torn, **lost)
    assert "not in MLflow" in done.stderr and "leadscore register logs it later" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert run("git", "status", "--porcelain", cwd=torn).stdout == ""
    message = fails("leadscore", "register", cwd=torn, **lost)
    assert "MLflow: API request to" in message and "s3cret" not in message
    back = {"MLFLOW_TRACKING_URI": f"sqlite:///{torn.parent}/back.db"}
    said = run("leadscore", "register", cwd=torn, **back).stdout
    assert f"added to MLflow: {', '.join(STAGES)}" in said
    assert "version 1 of leadscore, registered; champion" in said
    client = mlflow.MlflowClient(back["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sorted(run.info.run_name for run in runs if run.data.tags["stage"] in STAGES) == sorted(STAGES)
    assert "missing" not in run("leadscore", "register", cwd=torn, **back).stdout


@slow
def test_two_at_once(torn):
    "The second waits, or says that it can't; no file is of both."
    both = [start("dvc", "repro", "--single-item", "--force", "clean", cwd=torn) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes and all(code == 0 or "lock" in text for code, text in zip(codes, said)), said
    assert run("git", "status", "--porcelain", cwd=torn).stdout == ""

    both = [start(*SCORE, "two.csv", "--capacity", capacity, cwd=torn) for capacity in ("1", "2")]
    assert [process.wait() for process in both] == [0, 0]
    found, alone = (torn / "two.csv").read_bytes(), []
    for capacity in ("1", "2"):
        run(*SCORE, "two.csv", "--capacity", capacity, cwd=torn)
        alone.append((torn / "two.csv").read_bytes())
    assert alone[0] != alone[1] and found in alone
    (torn / "two.csv").unlink()

    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{torn.parent}/both.db"}
    both = [start("leadscore", "register", cwd=torn, **store) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("already registered" in text for text in said) == [False, True]
    assert len(mlflow.MlflowClient(store["MLFLOW_TRACKING_URI"]).search_model_versions("name = 'leadscore'")) == 1
