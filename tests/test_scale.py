"""What `leadscore scale` gives on Dask workers, beside pandas on the same leads in one file; workers and runs are killed on the way."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from conftest import REAL, ROOT, environment, run
from sklearn.metrics import roc_auc_score

from leadscore.clean import Cleaner, read_mappings
from leadscore.config import load_params
from leadscore.data import drop_duplicates, drop_rejected, fill_missing, load_leads
from leadscore.experiment import STUDIED, ModelSpec, write_spec
from leadscore.features import RICH
from leadscore.model import Bundle, fit_bundle
from leadscore.sample import make_leads
from leadscore.scale import clean_parts, list_parts
from leadscore.schema import LABEL
from leadscore.score import score_file

pytestmark = pytest.mark.xdist_group("scale")  # one cluster
PARTS, SIZE, FOLDS = 8, 3000, 2
SPEC = ModelSpec(feature_set="rich", features=RICH, lightgbm=STUDIED, linear_weight=0.3, tuned=False, cv_auc=0.8)
MAIN = "import sys; from leadscore.cli import main; sys.exit(main())"
CLUSTER = """
from distributed import LocalCluster
with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
    print(cluster.scheduler_address, flush=True)
    input()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    "A Python with Dask; the lock has none."
    if importlib.util.find_spec("distributed"):
        return sys.executable
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=ROOT)
    run("uv", "pip", "install", "--quiet", "--python", f"{folder}/bin/python", "--constraint", "requirements.lock", "-r", "pyproject.toml", "--extra", "scale", cwd=ROOT)
    return f"{folder}/bin/python"


@pytest.fixture(scope="module")
def cluster(python):
    "Two workers; the address of their scheduler and the process they belong to."
    process = subprocess.Popen([python, "-c", CLUSTER], env=environment(ROOT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip(), psutil.Process(process.pid)
    process.communicate("\n", timeout=30)


@pytest.fixture(scope="module")
def scale(folder, python, cluster):
    "Run a step on the cluster, or start it."

    def start(*arguments, wait=True):
        command = [python, "-c", MAIN, "scale", *map(str, arguments), "--scheduler", cluster[0]]
        return run(*command, cwd=folder, ok=False, PYTHONPATH=str(ROOT)) if wait else subprocess.Popen(command, cwd=folder, env=environment(ROOT))

    return start


def write_parts(leads: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir()
    for k, rows in enumerate(np.array_split(np.arange(len(leads)), PARTS)):
        leads.iloc[rows].to_csv(folder / f"part-{k}.csv", index=False)
    return folder


def join(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(part) for part in list_parts(folder)], ignore_index=True)


def wait_for(folder: Path, pattern: str, n: int) -> None:
    end = time.time() + 60
    while len(list(folder.glob(pattern))) < n and time.time() < end:
        time.sleep(0.01)


def kill_worker(cluster, during: subprocess.Popen) -> None:
    workers = [child for child in cluster[1].children(recursive=True) if "resource_tracker" not in " ".join(child.cmdline())]
    workers[0].kill()
    assert during.poll() is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"]["folds"], params["scale"]["engine"] = FOLDS, "pandas"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("mappings", "nbs"):
        (folder / name).symlink_to(ROOT / name)
    leads = make_leads(PARTS * SIZE).astype({"careers": object})
    leads.iloc[-5] = leads.iloc[7].where(leads.columns != "", leads.iloc[-5, 0])
    leads.loc[[3, 20_000], "careers"] = "x"
    leads.to_csv(folder / "leads.csv", index=False)
    to_score = leads.iloc[::6].drop(columns=LABEL)
    to_score.to_csv(folder / "to_score.csv", index=False)
    write_parts(leads, folder / "leads")
    write_parts(to_score, folder / "to_score")
    write_spec(SPEC, folder / "spec.yaml")
    write_spec(SPEC.model_copy(update={"lightgbm": {"n_estimators": 30}, "linear_weight": 0.0}), folder / "small.yaml")
    return folder


def clean_alone(path: Path) -> tuple[pd.DataFrame, Cleaner]:
    leads = drop_duplicates(fill_missing(drop_rejected(*load_leads(path), 0.05)))
    cleaner = Cleaner(*read_mappings(ROOT / "mappings"), 0.9).fit(leads)
    return cleaner.transform(leads), cleaner


@pytest.fixture(scope="module")
def alone(folder):
    "What pandas gives on all leads in one file."
    cleaned, cleaner = clean_alone(folder / "leads.csv")
    bundle, _ = fit_bundle(cleaned, SPEC, cleaner, FOLDS, 0.5, 42, 1)
    return cleaned, cleaner, bundle


@pytest.fixture(scope="module")
def cleaned(folder, scale, cluster):
    "Cleaned on the cluster, while a worker was killed."
    process = scale("clean", folder / "leads", "-o", folder / "cleaned", wait=False)
    wait_for(folder / ".cleaned.work", "*.parquet.json", 1)
    kill_worker(cluster, process)
    assert process.wait(90) == 0
    return folder / "cleaned"


def test_cleaning_is_that_of_pandas_to_the_last_bit_though_a_worker_is_killed(folder, cleaned, alone):
    pd.testing.assert_frame_equal(join(cleaned), alone[0], check_exact=True)
    alone[1].save(folder / "cleaner.json")
    assert (cleaned / "cleaner.json").read_bytes() == (folder / "cleaner.json").read_bytes()
    assert pd.read_csv(cleaned / "rejected.csv")["lead_id"].tolist() == [3, 20_000]


@pytest.fixture(scope="module")
def model(folder, scale, cleaned):
    done = scale("train", cleaned, "-o", folder / "model", "--spec", folder / "spec.yaml")
    assert done.returncode == 0, done.stderr
    return folder / "model"


def test_training_has_the_auc_of_pandas_and_names_no_host(model, alone):
    fresh = make_leads(40_000, seed=7).rename(columns={"": "lead_id"})
    fresh = alone[1].transform(fresh.assign(created_date=pd.to_datetime(fresh["created_date"]), fault=None))
    aucs = [roc_auc_score(fresh[LABEL], bundle.predict(fresh)) for bundle in (Bundle.load(model), alone[2])]
    assert abs(aucs[0] - aucs[1]) < 0.002
    assert "127.0.0.1" not in "".join(path.read_text() for path in model.iterdir())


def test_scores_are_those_of_pandas_though_a_worker_and_then_the_run_are_killed(folder, scale, cluster, model):
    work, rules = folder / ".scored.work", load_params(ROOT / "params.yaml").infer
    command = ["infer", folder / "to_score", "-o", folder / "scored", "--model", model]
    process = scale(*command, wait=False)
    wait_for(work, "*.parquet.json", 1)
    kill_worker(cluster, process)
    wait_for(work, "*.parquet.json", 3)
    process.kill()
    process.wait()
    assert not (folder / "scored").exists()
    kept = {path: path.stat().st_mtime_ns for path in work.glob("*.parquet") if path.with_name(f"{path.name}.json").exists()}
    assert kept
    process = scale(*command, wait=False)
    wait_for(work / "out", "*.parquet.json", 1)
    changed = [path for path, when in kept.items() if path.exists() and path.stat().st_mtime_ns != when]
    assert process.wait(90) == 0 and not changed
    score_file(folder / "to_score.csv", folder / "alone.parquet", model, None, rules)
    ours, theirs = join(folder / "scored"), pd.read_parquet(folder / "alone.parquet")
    assert ours["probability"].sub(theirs["probability"]).abs().max() <= 1e-9
    pd.testing.assert_frame_equal(ours, theirs)  # each lead once, in order, with rank, call and reasons


def test_evaluation_on_workers(folder, scale, cleaned):
    done = scale("evaluate", cleaned, "-o", folder / "metrics.json", "--spec", folder / "small.yaml")
    found = pd.read_json(folder / "metrics.json", typ="series")
    assert done.returncode == 0 and found["leadscore"]["auc"] > found["rates"]["auc"] - 0.01 > 0.7


def test_a_lead_number_in_two_parts_is_refused(folder, scale, model):
    write_parts(make_leads(80).assign(**{"": [*range(79), 5]}).drop(columns=LABEL), folder / "twice")
    done = scale("infer", folder / "twice", "-o", folder / "none", "--model", model)
    assert (done.returncode, (folder / "none").exists()) == (1, False)
    assert done.stderr.splitlines()[-1] == "leadscore: lead number '5' twice, in part-0.csv row 7 and part-7.csv row 11 (1 repeated in all); give each lead its own"


def test_without_dask_pandas_does_it_or_one_line_says_how_to_install_it(folder, alone):
    command = [sys.executable, "-c", MAIN, "scale", "clean", str(folder / "leads"), "-o", str(folder / "by_pandas")]
    run(*command, cwd=folder)
    pd.testing.assert_frame_equal(join(folder / "by_pandas"), alone[0], check_exact=True)
    if not importlib.util.find_spec("distributed"):
        done = run(*command, cwd=ROOT, ok=False)
        assert done.stderr == "leadscore: Dask is not installed here; pip install '.[scale]' in the repo\n"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real leads are not at hand")
def test_real_leads_in_parts_are_cleaned_as_in_one_file(tmp_path):
    leads = pd.read_csv(REAL / "leadscoring.csv", dtype=str, keep_default_na=False).rename(columns={"Unnamed: 0": ""})
    clean_parts(write_parts(leads, tmp_path / "parts"), tmp_path / "cleaned", None, Cleaner(*read_mappings(ROOT / "mappings"), 0.9))
    pd.testing.assert_frame_equal(join(tmp_path / "cleaned"), clean_alone(REAL / "leadscoring.csv")[0], check_exact=True)
