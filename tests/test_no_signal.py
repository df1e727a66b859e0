"""Labels that are noise: the pipeline goes through, everything that is read says so, and nothing becomes champion."""

import json
import shutil

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import fails, run

pytestmark = pytest.mark.slow
CHANCE = "no better than chance on these leads: AUC 0."
SCORE = ("leadscore", "score", "data/leadscoring_inference.csv", "-o", "tmp/list.csv")


@pytest.fixture(scope="module")
def noise(repo, tmp_path_factory):
    "A copy of the repo whose champion is of the sample, after a run on the same leads with shuffled labels."
    folder = shutil.copytree(repo, tmp_path_factory.mktemp("noise") / "repo", symlinks=True)
    run("leadscore", "champion", cwd=folder)  # MLflow's store follows
    leads = pd.read_csv(folder / "data/leadscoring.csv", dtype=str, keep_default_na=False)
    leads["app_complete_flag"] = np.random.default_rng(1).permutation(leads["app_complete_flag"])
    shutil.copytree(folder / "data", folder / "tmp/shuffled")
    leads.rename(columns={"Unnamed: 0": ""}).to_csv(folder / "tmp/shuffled/leadscoring.csv", index=False)
    run("leadscore", "data", "tmp/shuffled", cwd=folder)
    run("dvc", "repro", cwd=folder)
    return folder


def test_report_and_metrics_say_so(noise):
    verdict = json.loads((noise / "metrics/evaluate.json").read_text())["verdict"]
    assert verdict["signal"] is False and verdict["says"].startswith(CHANCE)
    assert verdict["auc_low"] <= 0.5 or verdict["log_loss"] >= verdict["base_log_loss"]
    opening = nbformat.read(noise / "reports/04_evaluate.ipynb", 4).cells[0].source
    assert f"forward windows the score is {verdict['says']}" in opening
    assert f"the base rate's {verdict['base_log_loss']:.4f}" in opening
    assert json.loads((noise / "metrics/summary.json").read_text())["signal"] is False
    assert (noise / "outputs/infer/scored_leads.csv").is_file()


def test_the_champion_stays(noise, tmp_path):
    folder = shutil.copytree(noise, tmp_path / "repo", symlinks=True)
    said = run("leadscore", "register", cwd=folder).stdout
    assert f"version 2 of leadscore, registered; not champion: {CHANCE}" in said
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert str(client.get_model_version_by_alias("leadscore", "champion").version) == "1"
    card = client.get_model_version("leadscore", "2").description
    assert card.startswith(f"# Model card\n\n**The score is {CHANCE}")
    assert client.get_registered_model("leadscore").description.startswith("# Model card\n\nThe probability")


def test_the_commands_say_why_there_is_no_champion(noise, tmp_path):
    folder = shutil.copytree(noise, tmp_path / "repo", symlinks=True)
    run("leadscore", "champion", cwd=folder)
    mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").delete_registered_model("leadscore")
    said = run("leadscore", "register", cwd=folder).stdout
    assert f"version 1 of leadscore, registered; not champion: {CHANCE}" in said
    message = fails(*SCORE, cwd=folder)
    assert "there is no champion; run make repro first, or see leadscore champion, or name" in message
    decided = run("leadscore", "champion", cwd=folder, ok=False).stdout
    assert f"version 1: {CHANCE}" in decided and decided.endswith("; no champion\n")


def test_too_few_leads_are_refused(noise, tmp_path):
    few = shutil.copytree(noise / "data", tmp_path / "few")
    leads = pd.read_csv(few / "leadscoring.csv", dtype=str, keep_default_na=False).rename(columns={"Unnamed: 0": ""})
    completed = leads["app_complete_flag"] == "1"
    rule = "training needs 200 leads, and 40 of either outcome; add leads"
    for rows, counts in [
        (leads.head(150), f"150 labelled leads, of which {completed.head(150).sum()} completed"),
        (pd.concat([leads[~completed], leads[completed].head(39)]), "of which 39 completed"),
    ]:
        rows.to_csv(few / "leadscoring.csv", index=False)
        message = fails("leadscore", "data", str(few), cwd=noise)
        assert f"{few}/leadscoring.csv: " in message and counts in message and message.endswith(rule)
