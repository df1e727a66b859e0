"""What people hit in their first week, tried from outside: commands, files and MLflow's own client."""

import os
import shutil
import stat
import subprocess
import sys

import mlflow
import pandas as pd
import pytest
import yaml
from conftest import REAL, environment, fails, run

from leadscore.sample import make_leads

MODEL = ("--model", "outputs/train/model")
LABEL = "app_complete_flag"
RULES = {"grades": [0.9, 0.6, 0.3], "cost_per_call": 150.0, "min_seen": 5}


def change(folder, **sections):
    "Change parameters in a copy's `params.yaml`."
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for section, keys in sections.items():
        params[section].update(keys)
    path.write_text(yaml.safe_dump(params))


def read_raw(path):
    "Leads as they stand in a file; the unnamed column is the lead's number."
    return pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns={"Unnamed: 0": ""})


def score(folder, leads, output, *options, cwd=None):
    "The list, and what the command said."
    command = ["leadscore", "score", str(leads), "-o", str(output), "--model", str(folder / "outputs/train/model")]
    done = run(*command, *options, cwd=cwd or folder)
    return pd.read_csv(output), done.stdout


@pytest.fixture
def own(repo, tmp_path):
    "A copy of the repo after a run, to be changed."
    return shutil.copytree(repo, tmp_path / "own", symlinks=True)


@pytest.fixture
def leads(repo):
    "A few leads to be scored, as a frame."
    return read_raw(repo / "data/leadscoring_inference.csv")


def test_a_missing_system_library_is_named(work, tmp_path):
    "LightGBM's own library asks for one that no machine has: the loader fails as without libgomp."
    import lightgbm

    package = work / "broken" / "lightgbm"
    shutil.copytree(os.path.dirname(lightgbm.__file__), package)
    [library] = package.rglob("lib_lightgbm.so")
    content = library.read_bytes()
    assert b"libgomp.so.1\0" in content
    library.write_bytes(content.replace(b"libgomp.so.1\0", b"libgomp.so.9\0"))
    command = ["leadscore", "score", "data/leadscoring_inference.csv", "-o", "scored.csv", *MODEL]
    message = fails(*command, cwd=work, PYTHONPATH=f"{work}/broken:{work}")
    mend = "install it (Debian: apt-get install libgomp9)"
    assert message == f"leadscore: libgomp.so.9, a library of the system, is missing; {mend}"


def test_the_lead_id_column_has_one_source(work, leads):
    "base.id_column counts for every command that reads leads; an option goes before it, and a model knows its own."
    leads.rename(columns={"": "number"}).to_csv(work / "numbered.csv", index=False)
    assert "column missing: ''" in fails("leadscore", "check", "numbered.csv", cwd=work)
    change(work, base={"id_column": "number"})
    run("leadscore", "check", "numbered.csv", cwd=work)
    listed, _ = score(work, "numbered.csv", work / "scored.csv")
    assert listed["lead_id"].astype(str).tolist() == leads[""].tolist()
    score(work, "data/leadscoring_inference.csv", work / "scored.csv", "--id-column", "")
    run("leadscore", "bundle", cwd=work)
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    again, _ = score(work, work / "numbered.csv", elsewhere / "scored.csv", cwd=elsewhere)
    pd.testing.assert_frame_equal(again, listed)


@pytest.mark.slow
def test_no_new_leads_give_an_empty_list_of_today(work, leads):
    leads.head(0).to_csv(work / "data/leadscoring_inference.csv", index=False)
    assert "0 leads" in run("leadscore", "check", "data/leadscoring_inference.csv", cwd=work).stdout
    for output in ("outputs/infer/scored_leads.csv", "outputs/infer/scored_leads.parquet"):
        done = run("leadscore", "score", "data/leadscoring_inference.csv", "-o", output, *MODEL, cwd=work)
        assert (done.stdout, done.stderr) == (f"{output}: 0 leads, 0 scored, 0 to call\n", "")
    listed = pd.read_csv(work / "outputs/infer/scored_leads.csv")
    assert len(listed) == 0 and listed.columns[0] == "lead_id"
    for stage in ("profile", "clean", "infer"):
        run("python", "-m", "leadscore.stage", stage, cwd=work)
    assert len(pd.read_csv(work / "outputs/infer/scored_leads.csv")) == 0
    leads.head(0).assign(**{LABEL: []}).to_csv(work / "data/leadscoring.csv", index=False)
    assert "a header but no leads" in fails("leadscore", "check", "data/leadscoring.csv", cwd=work)


def test_a_capacity_is_that_of_the_list(work, leads):
    "One morning's file over 24 hours has two dates, and the callers still manage 10 calls."
    hours = pd.date_range("2022-02-10 09:00", periods=len(leads), freq="14min")
    leads.assign(created_date=hours.strftime("%Y-%m-%d %H:%M:%S")).to_csv(work / "morning.csv", index=False)
    listed, said = score(work, "morning.csv", work / "scored.csv", "--capacity", "10")
    assert sorted(listed.loc[listed["call"] == "yes", "rank"]) == list(range(1, 11))
    assert said == f"{work}/scored.csv: 100 leads, 100 scored, 10 to call; capacity 10 (the model's: none)\n"


@pytest.mark.slow
def test_a_label_in_the_leads_to_be_scored_is_set_aside_and_said(work, leads):
    plain, _ = score(work, "data/leadscoring_inference.csv", work / "plain.csv")
    for label in (["0", "1"] * 50, [""] * 100, ["open"] * 100):
        leads.assign(**{LABEL: label}).to_csv(work / "labelled.csv", index=False)
        listed, said = score(work, "labelled.csv", work / "scored.csv")
        assert listed.equals(plain) and "app_complete_flag was set aside" in said
    shutil.copyfile(work / "labelled.csv", work / "data/leadscoring_inference.csv")
    for stage in ("clean", "infer"):
        run("python", "-m", "leadscore.stage", stage, cwd=work)
    assert pd.read_csv(work / "outputs/infer/scored_leads.csv").equals(plain)


@pytest.mark.slow
def test_the_same_leads_give_the_same_list_from_everywhere(repo, own, tmp_path, leads):
    "The rules travel in the model: pipeline, model folder elsewhere, champion and MLflow's model."
    change(own, infer=RULES)
    assert "Running stage 'train'" not in run("dvc", "repro", cwd=own).stdout  # a rule costs no training
    run("leadscore", "register", cwd=own)
    ours = (own / "outputs/infer/scored_leads.csv").read_bytes()
    grades = [pd.read_csv(folder / "outputs/infer/scored_leads.csv")["grade"] for folder in (own, repo)]
    assert (grades[0] != grades[1]).any()
    shutil.copytree(own / "outputs/train/model", tmp_path / "model")
    shutil.copyfile(own / "data/leadscoring_inference.csv", tmp_path / "leads.csv")
    (tmp_path / "params.yaml").write_text("learning_rate: 0.1\ninfer: {grades: none}\n")  # another tool's
    (tmp_path / "deeper").mkdir()
    for folder in (tmp_path, tmp_path / "deeper"):
        command = ["leadscore", "score", str(tmp_path / "leads.csv"), "-o", "scored.csv"]
        run(*command, "--model", str(tmp_path / "model"), cwd=folder)
        assert (folder / "scored.csv").read_bytes() == ours
    run("leadscore", "score", "data/leadscoring_inference.csv", "-o", str(tmp_path / "champion.csv"), cwd=own)
    assert (tmp_path / "champion.csv").read_bytes() == ours
    served = serve(own, leads.rename(columns={"": "lead_id"}))
    listed = pd.read_csv(own / "outputs/infer/scored_leads.csv")
    shown = ["grade", "call", "score"]
    assert served[shown].to_numpy().tolist() == listed[shown].to_numpy().tolist()
    run("dvc", "repro", cwd=own)
    assert "Data and pipelines are up to date" in run("dvc", "repro", cwd=own).stdout


def serve(repo, frame):
    "What MLflow's model of the champion gives."
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{repo}/mlflow.db")
    try:
        return mlflow.pyfunc.load_model("models:/leadscore@champion").predict(frame)
    finally:
        mlflow.set_tracking_uri(before)


def test_the_registered_model_takes_what_score_takes(repo, tmp_path, leads):
    frame = leads.rename(columns={"": "lead_id"})
    path = repo / "data/leadscoring_inference.csv"
    plain = serve(repo, frame)
    assert plain["score"].tolist() == pd.read_csv(repo / "outputs/infer/scored_leads.csv")["score"].tolist()
    typed = pd.read_csv(path).rename(columns={"Unnamed: 0": "lead_id"})
    whole = typed.assign(total_leads_droppped=typed["total_leads_droppped"].fillna(0).astype(int), careers=0)
    for name, other in {
        "as pandas reads it": typed,
        "whole numbers": whole,
        "missing optional fields": typed.dropna(axis="columns", how="all"),
        "a label": typed.assign(**{LABEL: 1}),
    }.items():
        served = serve(repo, other)
        if name != "whole numbers":
            assert served["score"].tolist() == plain["score"].tolist(), name
    texts = serve(repo, frame.assign(lead_id="L-" + frame["lead_id"]))
    assert texts["lead_id"].tolist() == ("L-" + frame["lead_id"]).tolist()
    assert texts["score"].tolist() == plain["score"].tolist()


@pytest.mark.slow
def test_the_database_is_checked_against_what_dvc_holds(own, tmp_path):
    "Deleted, of another run, or somewhere else since: the step after DVC fills it, or says why not."
    count = lambda url: len(pd.read_sql("loaded_data", url))  # noqa: E731
    here, there = f"sqlite:///{own}/outputs/leads.db", f"sqlite:///{tmp_path}/other.db"
    assert "database" not in run("leadscore", "register", cwd=own).stdout
    (own / "outputs/leads.db").unlink()
    assert "Data and pipelines are up to date" in run("dvc", "repro", cwd=own).stdout
    filled = "the database is filled with this run's leads"
    assert filled in run("leadscore", "register", cwd=own).stdout and count(here) == 700
    assert filled in run("leadscore", "register", cwd=own, LEADSCORE_DB_URL=there).stdout and count(there) == 700
    assert filled not in run("leadscore", "register", cwd=own, LEADSCORE_DB_URL=there).stdout
    make_leads(300).to_csv(own / "data/leadscoring.csv", index=False)  # a run of other leads leaves its tables
    run("python", "-m", "leadscore.stage", "clean", cwd=own)
    assert count(here) == 300
    run("git", "checkout", "--quiet", "--", "metrics", cwd=own)
    run("dvc", "checkout", "--quiet", "--force", cwd=own)
    assert filled in run("leadscore", "register", cwd=own).stdout and count(here) == 700
    nowhere = f"sqlite:///{tmp_path}/none/../other.db/leads.db"
    message = fails("leadscore", "register", cwd=own, LEADSCORE_DB_URL=nowhere)
    assert "fix it, or LEADSCORE_DB_URL" in message


def history(folder, days):
    "Labelled leads of so many days, and a few to be scored."
    folder.mkdir()
    made = make_leads(1500)
    dates = pd.date_range("2022-01-01", periods=len(made), freq=f"{days * 24 * 60 // len(made)}min")
    made = made.assign(created_date=dates.strftime("%Y-%m-%d %H:%M:%S"))
    made.to_csv(folder / "leadscoring.csv", index=False)
    made.tail(50).drop(columns=LABEL).to_csv(folder / "leadscoring_inference.csv", index=False)
    return folder


@pytest.mark.slow
def test_a_short_history_is_said_before_it_costs_minutes(own, tmp_path):
    days = {30: "2 of 3", 200: "3 of 3"}
    for number, windows in days.items():
        said = run("leadscore", "data", str(history(tmp_path / f"{number} days", number)), cwd=own).stdout
        assert f"{windows} forward windows of 14 days can be measured" in said
    run("leadscore", "data", str(tmp_path / "30 days"), cwd=own)
    run("dvc", "repro", "evaluate", cwd=own)
    assert len(pd.read_csv(own / "metrics/windows.csv")) == 2
    before = (own / "data.dvc").read_bytes()
    message = fails("leadscore", "data", str(history(tmp_path / "20 days", 20)), cwd=own)
    assert "only 1 of 3 windows of 14 days can be measured (20 days of history" in message
    assert "lower base.holdout_days" in message
    assert (own / "data.dvc").read_bytes() == before
    change(own, base={"holdout_days": 5})  # the advice
    assert "3 of 3 forward windows of 5 days" in run("leadscore", "data", str(tmp_path / "20 days"), cwd=own).stdout


@pytest.mark.parametrize("year", ["2091", "2012"])
def test_a_date_far_from_all_others_is_a_rejected_cell(work, leads, year):
    leads.loc[4, "created_date"] = leads.loc[4, "created_date"].replace("2021", year).replace("2022", year)
    leads.to_csv(work / "leads.csv", index=False)
    done = run("leadscore", "check", "leads.csv", cwd=work, ok=False)
    assert done.returncode == 1 and "is more than two years from all other dates" in done.stdout
    listed, _ = score(work, "leads.csv", work / "scored.csv")
    assert listed.index[listed["score"].isna()].tolist() == [4]
    labelled = read_raw(work / "data/leadscoring.csv")
    labelled.loc[7, "created_date"] = f"{year}-07-01 10:00:00"
    labelled.to_csv(work / "data/leadscoring.csv", index=False)
    run("python", "-m", "leadscore.stage", "clean", cwd=work)
    rejected = pd.read_csv(work / "outputs/clean/rejected.csv")
    assert rejected[["row", "column"]].to_numpy().tolist() == [[9, "created_date"]]
    assert pd.read_parquet(work / "outputs/clean/leads.parquet")["created"].dt.year.isin([2021, 2022]).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real leads are not at hand")
def test_no_date_of_the_real_leads_is_far(work):
    for name in ("leadscoring.csv", "leadscoring_inference.csv"):
        assert ", 0 with a bad cell" in run("leadscore", "check", str(REAL / name), cwd=work).stdout


ISO = ["%Y-%m-%dT%H:%M:%S.000+0000", "%Y-%m-%d %H:%M:%S.0000000", "%Y-%m-%dT%H:%M:%SZ"]
FORMS = ["%m/%d/%Y %H:%M", "%d.%m.%Y"]


@pytest.mark.parametrize("form", ISO)
def test_dates_by_iso_8601_are_read(work, leads, form):
    leads.to_csv(work / "plain.csv", index=False)
    dates = pd.to_datetime(leads["created_date"]).dt.strftime(form)
    leads.assign(created_date=dates).to_csv(work / "iso.csv", index=False)
    plain, iso = (score(work, f"{name}.csv", work / f"{name}_scored.csv")[0] for name in ("plain", "iso"))
    assert iso.equals(plain) and iso["score"].notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_dates_as_other_tools_write_them_are_named(work, form):
    labelled = read_raw(work / "data/leadscoring.csv")
    labelled["created_date"] = pd.to_datetime(labelled["created_date"]).dt.strftime(form)
    labelled.to_csv(work / "data/leadscoring.csv", index=False)
    message = fails("leadscore", "data", "data", cwd=work)
    cells = labelled["created_date"].drop_duplicates().head(3)
    assert "100.0% of the leads have a bad cell" in message
    assert "column 'created_date' is not a date YYYY-MM-DD HH:MM:SS" in message
    assert ", ".join(map(repr, cells)) in message
    assert "created_date" in fails("python", "-m", "leadscore.stage", "clean", cwd=work)
    labelled.drop(columns=LABEL).to_csv(work / "leads.csv", index=False)
    done = run("leadscore", "score", "leads.csv", "-o", "scored.csv", *MODEL, cwd=work)
    assert "700 lead(s) without a score" in done.stderr and ", ".join(map(repr, cells)) in done.stderr


def test_a_reader_that_goes_early_ends_it_quietly(work, leads):
    leads.assign(careers="x").to_csv(work / "bad.csv", index=False)
    score_bad = ["score", "bad.csv", "-o", "scored.csv", *MODEL]
    for arguments in (["check", "bad.csv"], ["check", "data/leadscoring.csv"], ["--help"], score_bad):
        command = [sys.executable, "-m", "leadscore.cli", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=work, env=environment(work), **pipes)
        process.stdout.close()
        errors = process.stderr.read()
        process.wait()
        assert "BrokenPipe" not in errors and "Broken pipe" not in errors and "None" not in errors, errors


def test_a_list_that_is_written_again_stays_its_owners(work):
    (work / "lists").mkdir()
    for name in ("today.csv", "today.parquet"):
        target, link = work / "lists" / name, work / name
        target.touch()
        target.chmod(0o640)
        link.symlink_to(target)
        run("leadscore", "score", "data/leadscoring_inference.csv", "-o", name, *MODEL, cwd=work)
        assert link.is_symlink() and stat.S_IMODE(target.stat().st_mode) == 0o640 and target.stat().st_size > 1000
    report = work / "reports/01_clean.ipynb"
    report.parent.mkdir()
    report.touch()
    report.chmod(0o600)
    run("python", "-m", "leadscore.stage", "clean", cwd=work)
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    (work / "today.csv").unlink()
    run("leadscore", "score", "data/leadscoring_inference.csv", "-o", "today.csv", *MODEL, cwd=work)
    assert stat.S_IMODE((work / "today.csv").stat().st_mode) == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# option -> key of params.yaml -> where its value comes from if the option is not given
SETTINGS = {
    ("score", "--id-column"): ("base.id_column", "params.yaml of the repo, else the model"),
    ("check", "--id-column"): ("base.id_column", "params.yaml of the repo"),
    ("score", "--capacity"): ("infer.capacity", "the model"),
    ("score", "--cost-per-call"): ("infer.cost_per_call", "the model"),
    ("score", "--value-per-application"): ("infer.value_per_application", "the model"),
    ("score", "--min-seen"): ("infer.min_seen", "the model"),
    ("score", "--max-unseen"): ("infer.max_unseen", "the model"),
}


def test_settings_have_one_source(work, leads):
    """Each option that `params.yaml` has, too, stands in the table.

    The rules are the model's, whatever `params.yaml` says meanwhile.
    """
    params = yaml.safe_load((work / "params.yaml").read_text())
    keys = {f"{section}.{key}" for section, entries in params.items() for key in entries}
    names = {key.split(".")[1] for key in keys}
    commands = run("leadscore", "--help", cwd=work).stdout
    shared = set()
    for command in ("score", "check", "data", "bundle", "register", "champion", "verify"):
        assert command in commands
        words = run("leadscore", command, "--help", cwd=work).stdout.replace("[", " ").replace("]", " ").split()
        options = {word.rstrip(",") for word in words if word.startswith("--")}
        shared |= {(command, option) for option in options if option[2:].replace("-", "_") in names}
    assert shared == set(SETTINGS)
    assert {key for key, _ in SETTINGS.values()} <= keys
    before, said = score(work, "data/leadscoring_inference.csv", work / "scored.csv")
    rules = {"capacity": 1, "cost_per_call": 1.0, "value_per_application": 1.0}
    change(work, infer={**rules, "grades": [0.9, 0.8, 0.7], "min_seen": 10_000, "max_unseen": 0.5})
    after, _ = score(work, "data/leadscoring_inference.csv", work / "scored.csv")
    assert after.equals(before) and "the model's" not in said
    run("leadscore", "bundle", cwd=work)
    changed, _ = score(work, "data/leadscoring_inference.csv", work / "scored.csv")
    assert (changed["call"] == "yes").sum() == 1 and changed["unsure"].notna().all()


def test_a_model_folder_needs_nothing_else(work):
    (work / "params.yaml").rename(work / "params.old")
    (work / "params.yaml").write_text("train: {epochs: 3}\n")
    shutil.rmtree(work / "nbs")
    listed, _ = score(work, "data/leadscoring_inference.csv", work / "scored.csv")
    assert len(listed) == 100
