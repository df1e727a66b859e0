"""The whole way on 800 sample leads: what a user gets from `dvc repro`."""

import json
import shutil

import mlflow
import nbformat
import pandas as pd
import pytest
import yaml
from conftest import fails, run

from leadscore.params import STAGES
from leadscore.params import notebook_name


@pytest.fixture
def client(repo):
    return mlflow.MlflowClient(f"sqlite:///{repo}/mlflow.db")


def read(repo, name):
    return json.loads((repo / "metrics" / f"{name}.json").read_text())


def test_every_lead_has_one_score(repo):
    leads = pd.read_csv(repo / "data/leadscoring_inference.csv")
    scores = pd.read_csv(repo / "outputs/infer/scored_leads.csv")
    listed = ["lead_id", "probability", "score", "grade", "rank", "call", "unsure"]
    listed += ["reason_up_1", "reason_up_2", "reason_up_3", "reason_down_1", "reason_down_2"]
    assert scores.columns.tolist() == listed
    assert set(scores["grade"]) <= set("ABCD") and set(scores["call"]) <= {"yes", "no"}
    assert scores[["reason_up_1", "reason_down_1"]].notna().any(axis=1).all()
    assert scores["lead_id"].tolist() == leads.iloc[:, 0].tolist()
    assert scores["probability"].between(0, 1).all() and scores["score"].between(0, 100).all()
    assert sorted(scores["rank"]) == list(range(1, len(leads) + 1))
    table = pd.read_parquet(repo / "outputs/infer/scored_leads.parquet")
    pd.testing.assert_frame_equal(table, scores, check_dtype=False)


def test_leads_are_counted_through_the_stages(repo):
    clean = read(repo, "clean")
    assert clean["leads_in"] == 700
    assert clean["leads_in"] - clean["rejected"] - clean["duplicates"] == clean["leads_out"]
    assert clean["to_score_in"] == clean["to_score_out"] == read(repo, "infer")["leads_out"] == 100
    for stage in ("experiment", "train", "evaluate"):
        assert read(repo, stage)["leads_in"] == clean["leads_out"]


def test_metrics_stand_beside_the_recipe(repo):
    metrics = read(repo, "evaluate")
    names = {"accuracy", "auc", "recall", "precision", "f1", "kappa", "mcc", "log_loss", "brier", "ece"}
    names |= {"lift_10", "capture_20"}
    for model in ("leadscore", "recipe", "plain", "rates", "odoo"):
        assert set(metrics["folds"][model]) == set(metrics["forward"][model]) == set(metrics["holdout"][model]) == names
        measured = [*metrics["folds"][model].values(), *metrics["forward"][model].values()]
        assert all(set(value) == {"mean", "sd"} for value in measured)
    windows = pd.read_csv(repo / "metrics/windows.csv")
    assert len(windows) == 3 and windows["window"].is_monotonic_increasing
    promises = pd.read_csv(repo / "metrics/promises.csv")
    assert promises["leads"].sum() == windows["leads"].sum()


def test_database_holds_the_case_studys_tables(repo):
    url = f"sqlite:///{repo}/outputs/leads.db"
    clean = read(repo, "clean")
    assert len(pd.read_sql("loaded_data", url)) == clean["leads_in"]
    for table in ("city_tier_mapped", "categorical_variables_mapped", "interactions_mapped", "model_input"):
        assert len(pd.read_sql(table, url)) == clean["leads_out"]


def test_reports_show_their_plots(repo):
    for stage in STAGES:
        name = notebook_name(stage)
        source = "".join(cell.source for cell in nbformat.read(repo / f"nbs/pipeline/{name}.ipynb", 4).cells)
        report = nbformat.read(repo / f"reports/{name}.ipynb", 4)
        first, outputs = report.cells[0].source, [output for cell in report.cells for output in cell.get("outputs", [])]
        assert first.startswith(f"# {name[:2]} ") and "\n\n**Found.** " in first and report.cells[-1].outputs == []
        images = [output for output in outputs if "image/png" in output.get("data", {})]
        assert bool(images) == (".plot" in source or "subplots" in source), name
        assert not [output for output in outputs if output.get("name") == "stderr"]


def test_mlflow_holds_the_runs(repo, client):
    [experiment] = [found for found in client.search_experiments() if found.name == "leadscore"]
    runs = client.search_runs([experiment.experiment_id])
    stages = {run.data.tags["stage"]: run for run in runs if run.data.tags["stage"] in STAGES}
    assert set(stages) == set(STAGES) and {run.info.status for run in runs} == {"FINISHED"}
    for stage, stage_run in stages.items():
        assert f"{notebook_name(stage)}.ipynb" in [file.path for file in client.list_artifacts(stage_run.info.run_id)]
    assert {"fit", "03_train.ipynb"} <= {file.path for file in client.list_artifacts(stages["train"].info.run_id)}
    commit = run("git", "rev-parse", "HEAD~1", cwd=repo).stdout.strip()
    data = yaml.safe_load((repo / "data.dvc").read_text())["outs"][0]["md5"]
    tags = [stage_run.data.tags for stage_run in stages.values()]
    assert {(tag["mlflow.source.git.commit"], tag["data_md5"]) for tag in tags} == {(commit, data)}
    charts = [file.path for file in client.list_artifacts(stages["evaluate"].info.run_id, "charts")]
    assert charts[0] == "charts/04_evaluate_1.png" and len(charts) == 5
    for model in ("leadscore", "recipe"):
        assert len(client.get_metric_history(stages["evaluate"].info.run_id, f"window/auc_{model}")) == 3
    assert "data_sha256" in stages["train"].data.tags and stages["train"].data.params["folds"] == "3"
    assert stages["evaluate"].data.metrics["forward_pooled/leadscore.auc"] > 0.5
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == stages["experiment"].info.run_id]
    candidates = [f"{part}: {name}" for part in ("all", "relevant", "roles") for name in ("lightgbm", "lr")]
    tuned = ["tune: lightgbm", "tune: lightgbm_tuned"]
    assert sorted(run.info.run_name for run in nested) == sorted([*candidates, *tuned])
    assert all({"accuracy", "auc", "f1", "kappa", "mcc"} <= set(run.data.metrics) for run in nested)
    assert {model.name for model in client.search_logged_models([experiment.experiment_id])} == {"leadscore"}


def test_register_is_done_once(repo, client, monkeypatch):
    assert str(client.get_model_version_by_alias("leadscore", "champion").version) == "1"
    assert "version 1 of leadscore, already registered; champion" in run("leadscore", "register", cwd=repo).stdout
    [version] = client.search_model_versions("name = 'leadscore'")
    assert version.description == client.get_registered_model("leadscore").description
    assert version.description.startswith("# Model card\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{repo}/mlflow.db")
    info = mlflow.models.get_model_info("models:/leadscore/1")
    assert info.signature.outputs.input_names()[:2] == ["lead_id", "probability"] and info.saved_input_example_info
    assert "inside an experiment" in run("leadscore", "register", cwd=repo, DVC_EXP_NAME="x").stdout


def test_champion_scores_as_the_pipeline_did_and_says_which_it_was(repo, tmp_path):
    run("leadscore", "score", "data/leadscoring_inference.csv", "-o", str(tmp_path / "scored.csv"), cwd=repo)
    assert (tmp_path / "scored.csv").read_bytes() == (repo / "outputs/infer/scored_leads.csv").read_bytes()
    receipt = tmp_path / "scored_receipt.json"
    assert json.loads(receipt.read_text())["model"] == "models:/leadscore/1"
    assert "every score is the same" in run("leadscore", "verify", str(receipt), cwd=repo).stdout


def test_receipt_is_verified(repo, tmp_path):
    receipt = "outputs/infer/scored_leads_receipt.json"
    assert "every score is the same" in run("leadscore", "verify", receipt, cwd=repo).stdout
    shutil.copytree(repo / "outputs", tmp_path / "outputs")
    table = tmp_path / "outputs/infer/scored_leads.csv"
    scores = pd.read_csv(table)
    scores.assign(score=scores["score"].where(scores.index != 3, 0.0)).to_csv(table, index=False)
    message = fails("leadscore", "verify", receipt, cwd=tmp_path)
    assert "scored_leads.csv has changed" in message
    assert f"1 of 100 leads differ, first lead_id {scores['lead_id'][3]}" in message


def test_champion_history(repo):
    assert "version 1: made champion; champion: 1" in run("leadscore", "champion", cwd=repo).stdout
    done = run("leadscore", "champion", "--revert", cwd=repo, ok=False)
    assert done.returncode == 1 and "there was no champion before version 1" in done.stderr


def test_a_second_repro_does_nothing(repo):
    assert "Data and pipelines are up to date" in run("dvc", "repro", cwd=repo).stdout


def test_dvc_shows(repo, tmp_path):
    assert "forward_pooled.leadscore.auc" in run("dvc", "metrics", "show", "--md", cwd=repo).stdout
    assert "experiment" in run("dvc", "dag", cwd=repo).stdout
    plots = run("dvc", "plots", "show", "--json", cwd=repo).stdout
    drawn = {"ROC", "precision-recall", "calibration", "gain", "confusion", "decision", "importance", "lift", "scores"}
    assert set(json.loads(plots)["data"]) == drawn


@pytest.mark.slow
def test_experiments_change_one_parameter(repo):
    before = (repo / "dvc.lock").read_bytes()
    run("dvc", "exp", "run", "--temp", "--name", "wider", "--set-param", "infer.max_unseen=0.35", cwd=repo)
    shown = json.loads(run("dvc", "exp", "show", "--json", cwd=repo).stdout)
    assert '"max_unseen": 0.35' in json.dumps(shown)
    assert (repo / "dvc.lock").read_bytes() == before


@pytest.mark.slow
def test_the_same_bytes_in_another_clone(repo, tmp_path):
    "Another folder, user, home, time zone, language, hash seed and number of threads."
    clone = tmp_path / "elsewhere" / "leads"
    run("git", "clone", "--quiet", str(repo), str(clone), cwd=tmp_path)
    shutil.copytree(repo / "data", clone / "data")
    (clone / "dvc.lock").unlink()
    (tmp_path / "home").mkdir()
    other = {"HOME": f"{tmp_path}/home", "USER": "ada", "LOGNAME": "ada", "TZ": "Asia/Kolkata", "LC_ALL": "C"}
    other |= {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    run("dvc", "repro", cwd=clone, **other)
    assert yaml.safe_load((clone / "dvc.lock").read_text()) == yaml.safe_load((repo / "dvc.lock").read_text())
    assert run("git", "status", "--porcelain", cwd=clone).stdout == ""
