"""Bad input from the command line: one line that names file, column and fix, exit code 1, nothing half-written."""

import shutil

import pandas as pd
from conftest import fails, run

MODEL = ("--model", "outputs/train/model")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_stage_stops_at_bad_parameters(work):
    edit(work / "params.yaml", "coverage: 0.9", "coverag: 0.9")
    message = fails("python", "-m", "leadscore.stage", "clean", cwd=work)
    assert "params.yaml: clean.coverag: unknown key; remove it" in message
    edit(work / "params.yaml", "coverag: 0.9", "coverage: much")
    message = fails("python", "-m", "leadscore.stage", "clean", cwd=work)
    assert "clean.coverage: Input should be a valid number" in message


def test_stage_stops_at_bad_leads_and_writes_nothing(work):
    before = (work / "outputs/clean/leads.parquet").read_bytes()
    edit(work / "data/leadscoring.csv", "city_mapped", "town")
    message = fails("python", "-m", "leadscore.stage", "clean", cwd=work)
    assert "leadscoring.csv: column missing: 'city_mapped'; add it; unexpected column 'town'; remove it" in message
    assert "[SchemaError in cell " in message
    assert "of nbs/pipeline/01_clean.ipynb; partly run copy: tmp/01_clean.ipynb]" in message
    assert (work / "tmp/01_clean.ipynb").exists() and not (work / "reports").exists()
    assert (work / "outputs/clean/leads.parquet").read_bytes() == before


def test_a_bad_cell_costs_one_score_and_no_lead(work):
    leads = pd.read_csv(work / "data/leadscoring_inference.csv", dtype=str)
    leads.loc[4, "total_leads_droppped"] = "two"
    leads.loc[7, "created_date"] = "yesterday"
    leads.rename(columns={"Unnamed: 0": ""}).to_csv(work / "data/leadscoring_inference.csv", index=False)
    for stage in ("clean", "infer"):
        run("python", "-m", "leadscore.stage", stage, cwd=work)
    scores = pd.read_csv(work / "outputs/infer/scored_leads.csv")
    assert scores["lead_id"].astype(str).tolist() == leads.iloc[:, 0].tolist()
    assert scores.index[scores["probability"].isna()].tolist() == [4, 7]
    rejected = pd.read_csv(work / "outputs/clean/rejected.csv")
    assert rejected[["file", "row", "column", "value"]].to_numpy().tolist() == [
        ["leadscoring_inference.csv", 6, "total_leads_droppped", "two"],
        ["leadscoring_inference.csv", 9, "created_date", "yesterday"],
    ]


def test_renamed_levels_stop_infer(work):
    path = work / "outputs/clean/inference.parquet"
    leads = pd.read_parquet(path)
    renamed = leads["first_platform_c"].str.replace("Level", "Stufe")
    leads.assign(first_platform_c=renamed).to_parquet(path, index=False)
    message = fails("python", "-m", "leadscore.stage", "infer", cwd=work)
    assert "first_platform_c has 100.0% unseen levels" in message and "infer.max_unseen" in message


def test_leads_sorted_by_label_stop_training(work):
    path = work / "outputs/clean/leads.parquet"
    pd.read_parquet(path).sort_values("label", kind="stable").to_parquet(path, index=False)
    before = (work / "outputs/train/model/meta.json").read_bytes()
    message = fails("python", "-m", "leadscore.stage", "train", cwd=work)
    assert "leak: order in the file alone tells the label" in message and "train.max_auc" in message
    assert (work / "outputs/train/model/meta.json").read_bytes() == before


def test_score_carries_columns_along(work):
    leads = pd.read_csv(work / "data/leadscoring_inference.csv", dtype=str).rename(columns={"Unnamed: 0": ""})
    leads.assign(name="Ada", phone="12 34").to_csv(work / "named.csv", index=False)
    score = ["leadscore", "score", "named.csv", "-o", "scored.csv", "--model", "outputs/train/model", "--capacity", "1"]
    unexpected = "named.csv: unexpected column 'name', 'phone'; remove it, or take it along by --carry"
    assert unexpected in fails(*score, cwd=work)
    run(*score, "--carry", "name,phone", cwd=work)
    scores = pd.read_csv(work / "scored.csv")
    assert scores.columns[-2:].tolist() == ["name", "phone"] and set(scores["name"]) == {"Ada"}
    assert "--capacity: Input should be greater" in fails(*score[:-1], "0", "--carry", "name,phone", cwd=work)


def test_score_refuses_a_model_that_is_incomplete_or_old(work):
    score = ["leadscore", "score", "data/leadscoring_inference.csv", "-o", "scored.csv", *MODEL]
    edit(work / "outputs/train/model/meta.json", '"schema_version": 5', '"schema_version": 0')
    assert "schema version 0, this code reads 5; train again" in fails(*score, cwd=work)
    edit(work / "outputs/train/model/meta.json", '"schema_version": 0', '"schema_version": 5')
    (work / "outputs/train/model/cleaner.json").unlink()
    assert "outputs/train/model: model bundle without cleaner.json" in fails(*score, cwd=work)
    assert not (work / "scored.csv").exists()


def test_score_says_which_lead_has_no_score(work):
    edit(work / "data/leadscoring_inference.csv", "2021-07", "2021/07")
    done = run("leadscore", "score", "data/leadscoring_inference.csv", "-o", "scored.csv", *MODEL, cwd=work)
    first = "column 'created_date' is not a date YYYY-MM-DD HH:MM:SS, first in row 2: '2021/07"
    said = f"1 lead(s) without a score; most often {first}"
    assert said in done.stderr and done.stderr.endswith("; all of them in scored_rejected.csv\n")
    assert len(pd.read_csv(work / "scored.csv")) == 100 and len(pd.read_csv(work / "scored_rejected.csv")) == 1


def test_data_is_swapped_whole_or_not_at_all(repo, tmp_path):
    bad, good = tmp_path / "bad", tmp_path / "good"
    for folder in (bad, good):
        shutil.copytree(repo / "data", folder)
    edit(bad / "leadscoring_inference.csv", "city_mapped", "town")
    before = {path.name: path.read_bytes() for path in (repo / "data").iterdir()}
    assert "leadscoring_inference.csv: column missing: 'city_mapped'" in fails("leadscore", "data", str(bad), cwd=repo)
    assert {path.name: path.read_bytes() for path in (repo / "data").iterdir()} == before
    edit(good / "leadscoring.csv", "mumbai", "pune")
    run("leadscore", "data", str(good), cwd=repo)
    assert run("git", "status", "--porcelain", cwd=repo).stdout == " M data.dvc\n"
    (good / "leadscoring.csv").write_bytes(before["leadscoring.csv"])
    run("leadscore", "data", str(good), cwd=repo)
    assert run("git", "status", "--porcelain", cwd=repo).stdout == ""
