"""What SECURITY.md promises."""

import json
import os
import pickle
import shutil
import sys

import pandas as pd
import pytest
from conftest import ROOT, fails, run

from leadscore.params import LeadscoreError, load_params
from leadscore.table import load_table
from leadscore.read import load_leads
from leadscore.bundle import Bundle
from leadscore.receipt import verify_receipt

SCORE = ["leadscore", "score", "leads.csv", "-o", "scored.csv", "--model", "outputs/train/model"]
WATCH = """
import sys

def watch(event, arguments):
    if event == "pickle.find_class":
        with open({log!r}, "a") as log:
            log.write(f"{{arguments}}\\n")

sys.addaudithook(watch)
"""
SERVE = """
import mlflow
import pandas as pd

leads = pd.read_csv("leads.csv").rename(columns={"Unnamed: 0": "lead_id"})
leads = leads.astype({name: float for name in leads.columns[6:]})
print(mlflow.pyfunc.load_model("models:/leadscore@champion").predict(leads).columns.tolist())
"""


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


RECEIPT = "outputs/infer/scored_leads_receipt.json"
READERS = {
    "outputs/train/model": lambda work: Bundle.load(work / "outputs/train/model"),
    "data/leadscoring.csv": lambda work: load_leads(work / "data/leadscoring.csv", load_table(work / "leads.yaml")),
    "mappings": lambda work: load_table(work / "leads.yaml"),
    "leads.yaml": lambda work: load_table(work / "leads.yaml"),
    "params.yaml": lambda work: load_params(work / "params.yaml"),
    RECEIPT: lambda work: verify_receipt(work / RECEIPT),
    "outputs/infer/scored_leads.csv": lambda work: verify_receipt(work / RECEIPT),
    "outputs/clean/inference.parquet": lambda work: verify_receipt(work / RECEIPT),
}


@pytest.mark.parametrize("place", READERS)
def test_a_pickle_is_no_input(work, place, monkeypatch):
    monkeypatch.chdir(work)
    files = sorted((work / place).iterdir()) if (work / place).is_dir() else [work / place]
    for file in files:
        good = file.read_bytes()
        file.write_bytes(pickle.dumps(Malicious()))
        if place.endswith((".parquet", "scored_leads.csv")):
            assert any("has changed" in difference for difference in READERS[place](work))
        else:
            with pytest.raises(LeadscoreError):
                READERS[place](work)
        file.write_bytes(good)
        assert not (work / "pwned").exists()
    READERS[place](work)


def test_scoring_evaluation_and_serving_unpickle_nothing(repo, work):
    "Python itself tells: its audit event of unpickling never comes."
    log = work / "unpickled"
    (work / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    run(sys.executable, "-c", "import collections, pickle; pickle.loads(pickle.dumps(collections.Counter()))", cwd=work)
    assert "Counter" in log.read_text()
    log.unlink()
    shutil.copyfile(work / "data/leadscoring_inference.csv", work / "leads.csv")
    run(*SCORE, cwd=work)
    for stage in ("evaluate", "infer"):
        run("python", "-m", "leadscore.stage", stage, cwd=work, MLFLOW_TRACKING_URI=f"sqlite:///{work}/mlflow.db")
    served = run(sys.executable, "-c", SERVE, cwd=work, MLFLOW_TRACKING_URI=f"sqlite:///{repo}/mlflow.db")
    assert "probability" in served.stdout
    assert not log.exists(), log.read_text()


def test_a_changed_byte_of_a_model_is_refused(work):
    shutil.copyfile(work / "data/leadscoring_inference.csv", work / "leads.csv")
    path = work / "outputs/train/model/linear.json"
    path.write_bytes(path.read_bytes().replace(b"0.3", b"0.4", 1))
    assert "linear.json: not the file that the model was written with; train again" in fails(*SCORE, cwd=work)
    assert not (work / "scored.csv").exists()


def test_cells_run_neither_in_a_spreadsheet_nor_in_a_database(work):
    leads = pd.read_csv(work / "data/leadscoring_inference.csv", dtype=str).rename(columns={"Unnamed: 0": ""})
    leads["phone"] = ["=cmd|' /C calc'!A0", "+49 30 123", "-1", "@sum(a)", "\t=1", *["12"] * 95]
    leads.loc[0, "careers"] = "=1+1"
    leads.to_csv(work / "leads.csv", index=False)
    run(*SCORE, "--carry", "phone", cwd=work)
    assert pd.read_csv(work / "scored.csv")["phone"].tolist()[:5] == ["'" + phone for phone in leads["phone"][:5]]
    assert pd.read_csv(work / "scored_rejected.csv")["value"].tolist() == ["'=1+1"]
    run(*[argument.replace("scored.csv", "scored.parquet") for argument in SCORE], "--carry", "phone", cwd=work)
    assert pd.read_parquet(work / "scored.parquet")["phone"].tolist() == leads["phone"].tolist()

    path, town = work / "data/leadscoring.csv", "'); drop table loaded_data; --"
    path.write_text(path.read_text().replace("mumbai", town))
    run("python", "-m", "leadscore.stage", "clean", cwd=work)
    cities = pd.read_sql("loaded_data", f"sqlite:///{work}/outputs/leads.db")["city_mapped"]
    leads_in = json.loads((work / "metrics/clean.json").read_text())["leads_in"]
    assert (cities == town).sum() > 10 and len(cities) == leads_in


def test_no_path_leaves_its_folder(work):
    receipt, path = json.loads((work / RECEIPT).read_text()), work / "outputs/infer/other_receipt.json"
    refused = {"scores": "../../../etc/passwd"}, "names a list that is not beside it"
    leads = {"leads": "/etc/passwd"}, "passwd has changed"
    model = {"model": "/etc/passwd"}, "not the same: /etc/passwd is another model now"
    for changed, message in (leads, model, refused):
        path.write_text(json.dumps({**receipt, **changed}))
        assert message in fails("leadscore", "verify", str(path), cwd=work)
    path.write_text(json.dumps({**receipt, "leads": "/dev/zero"}))
    assert "is gone" in fails("leadscore", "verify", str(path), cwd=work)
    sums = work / "outputs/train/model/SHA256SUMS"
    sums.write_text(sums.read_text().replace("  model.txt", "  ../model.txt"))
    assert "../train/model is another model now" in fails("leadscore", "verify", RECEIPT, cwd=work)
    shutil.copyfile(work / "data/leadscoring_inference.csv", work / "leads.csv")
    assert "not the file that the model was written with" in fails(*SCORE, cwd=work)


def test_passwords_stay_out_of_logs_reports_and_mlflow(work):
    clean, url = ("python", "-m", "leadscore.stage", "clean"), "postgresql://ada:s3cret@127.0.0.1:9/leads"
    params = (work / "params.yaml").read_text()
    (work / "params.yaml").write_text(params.replace("sqlite:///outputs/leads.db", url))
    message = fails(*clean, cwd=work)
    assert "clean.db_url: holds a password" in message and "s3cret" not in message
    (work / "params.yaml").write_text(params)
    message = fails(*clean, cwd=work, LEADSCORE_DB_URL=url)
    assert "postgresql://ada:***@127.0.0.1:9/leads" in message
    half = (work / "tmp/01_clean.ipynb").read_bytes()
    run("python", "-m", "leadscore.stage", "profile", cwd=work, LEADSCORE_DB_URL=url)
    assert (work / "tmp/01_clean.ipynb").read_bytes() == half
    written = [path for path in work.rglob("*") if path.is_file() and "nbs" not in path.parts]
    assert work / "mlflow.db" in written and work / "tmp/01_clean.ipynb" in written
    assert [path for path in written if b"s3cret" in path.read_bytes()] == []


def test_pages_are_served_to_this_machine_only():
    for target, option in {"lab": "--ip=127.0.0.1", "mlflow": "--host 127.0.0.1"}.items():
        assert option in run("make", "--dry-run", target, cwd=ROOT).stdout
