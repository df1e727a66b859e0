"""MLflow's store and registry: the repo moves, things are deleted on MLflow's page, or other leads are trained on."""

import shutil

import mlflow
import pandas as pd
import pytest
import yaml
from conftest import fails, run

pytestmark = pytest.mark.slow
SCORE = ("leadscore", "score", "data/leadscoring_inference.csv", "-o", "tmp/list.csv")
CLEAN = ("python", "-m", "leadscore.stage", "clean")


def copy(source, target):
    return shutil.copytree(source, target, symlinks=True)


def open_store(folder):
    return mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")


def list_champion(folder):
    "What `leadscore champion` prints, line by line."
    return run("leadscore", "champion", cwd=folder).stdout.splitlines()


def retrain(folder, capacity):
    "Make another bundle: with another rule, of the leads in `data/`."
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["infer"]["capacity"] = capacity
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run("dvc", "repro", "bundle", cwd=folder)


def change_leads(source, target):
    "Leads of which one differs."
    copy(source / "data", target)
    leads = pd.read_csv(target / "leadscoring_inference.csv", dtype=str).rename(columns={"Unnamed: 0": ""})
    leads.loc[0, "city_mapped"] = "our own town"
    leads.to_csv(target / "leadscoring_inference.csv", index=False)
    return target


@pytest.fixture(scope="module")
def settled(repo, tmp_path_factory):
    "A copy of the repo that knows where it lies."
    folder = copy(repo, tmp_path_factory.mktemp("settled") / "repo")
    run("leadscore", "champion", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def replaced(settled, tmp_path_factory):
    "A copy with two versions: the sample's, and the champion, of a team's own leads."
    folder = tmp_path_factory.mktemp("replaced")
    own = change_leads(settled, folder / "leads")
    copy(settled, folder / "repo")
    run("leadscore", "data", str(own), cwd=folder / "repo")
    retrain(folder / "repo", 5)
    return folder / "repo", run("leadscore", "register", cwd=folder / "repo")


def list_notes(done):
    return [line for line in done.stderr.splitlines() if line.startswith("note: ")]


def look(folder):
    "Size and time of each file that MLflow writes."
    paths = [folder / "mlflow.db", *(folder / "mlruns").rglob("*")]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_a_copy_shares_nothing_and_a_moved_repo_keeps_its_champion(settled, tmp_path):
    before = look(settled)
    other = copy(settled, tmp_path / "über #2 & co")
    [logged] = open_store(other).search_runs(["1"], "tags.stage = 'clean'")
    open_store(other).delete_run(logged.info.run_id)  # so that there is something to log
    settings = f"MLflow keeps its artifacts in {other}/mlruns now, not in {settled}/mlruns"
    note = f"note: the repo was moved or copied: {settings}"
    assert list_notes(run(*CLEAN, cwd=other)) == [note]
    assert set(look(other)) > set(before) == set(look(settled)) and look(settled) == before
    moved = other.rename(tmp_path / "moved")
    assert "moved or copied" in run(*SCORE, cwd=moved).stderr
    assert (moved / "tmp/list.csv").read_bytes() == (settled / "outputs/infer/scored_leads.csv").read_bytes()
    done = run("leadscore", "register", cwd=moved)
    assert (done.stdout, done.stderr) == ("version 1 of leadscore, already registered; champion\n", "")
    uris = [logged.info.artifact_uri for logged in open_store(moved).search_runs(["1"])]
    assert all(uri.startswith(f"file://{moved}/mlruns/") for uri in uris)
    assert not other.exists() and look(settled) == before


def test_a_store_elsewhere_is_left_alone(settled, tmp_path):
    other = copy(settled, tmp_path / "other")
    before = look(settled)
    shared = {"MLFLOW_TRACKING_URI": f"sqlite:///{settled}/mlflow.db"}
    assert run(*SCORE, cwd=other, **shared).stderr == ""
    assert look(settled) == before


def test_a_deleted_experiment_is_restored_and_a_deleted_run_logged_again(settled, tmp_path):
    folder = copy(settled, tmp_path / "repo")
    client = open_store(folder)
    client.delete_experiment("1")
    moved, restored = list_notes(run(*CLEAN, cwd=folder))
    assert "moved or copied" in moved
    assert restored == "note: the experiment leadscore was deleted in MLflow; it is restored, with its runs"
    client.delete_run(client.get_model_version("leadscore", "1").run_id)
    said = run("leadscore", "register", cwd=folder).stdout
    again = "version 1 of leadscore, already registered; champion\n"
    assert said == f"added to MLflow: train\n{again}"
    run(*SCORE, cwd=folder)


def lose_model(folder):
    open_store(folder).delete_registered_model("leadscore")


def lose_version(folder):
    open_store(folder).delete_model_version("leadscore", "1")


@pytest.mark.parametrize(
    ("lose", "command", "version"), [(lose_model, SCORE, 1), (lose_version, ("leadscore", "champion"), 2)]
)
def test_a_deleted_champion_is_registered_anew(lose, command, version, settled, tmp_path):
    folder = copy(settled, tmp_path / "repo")
    lose(folder)
    assert "there is no champion; run make repro first" in fails(*command, cwd=folder)
    assert run("leadscore", "register", cwd=folder).stdout == f"version {version} of leadscore, registered; champion\n"


def test_a_version_that_lost_its_files_is_registered_anew(settled, tmp_path):
    folder = copy(settled, tmp_path / "repo")
    shutil.rmtree(folder / "mlruns")
    assert "its files are gone from MLflow's artifacts; run leadscore register" in fails(*SCORE, cwd=folder)
    said = run("leadscore", "register", cwd=folder).stdout
    assert "version 2 of leadscore, registered; champion; nothing was compared: it is the bundle of version 1" in said
    run(*SCORE, cwd=folder)


def test_own_leads_replace_the_sample(replaced):
    folder, done = replaced
    why = "nothing was compared: version 1 is the sample's"
    assert f"version 2 of leadscore, registered; champion; {why}" in done.stdout
    assert list_champion(folder)[1][19:] == f"  version 2: made champion ({why}); champion: 2"
    versions = [open_store(folder).get_model_version("leadscore", number) for number in "12"]
    assert [version.tags["leads"] for version in versions] == ["sample", "own"]


def test_the_sample_never_replaces_own_leads(settled, replaced, tmp_path):
    folder = copy(replaced[0], tmp_path / "repo")
    message = fails("leadscore", "champion", "--revert", cwd=folder)
    assert "version 1, the champion before version 2, is the sample's" in message
    run("leadscore", "data", str(settled / "data"), cwd=folder)
    message = fails("leadscore", "register", cwd=folder)
    assert f"{folder}/data: not the leads that" in message and "run dvc repro first" in message
    retrain(folder, 6)
    reason = "it is the sample's, and version 2 is of your own leads"
    said = run("leadscore", "register", cwd=folder).stdout
    assert said.startswith(f"version 3 of leadscore, registered; not champion: {reason}\n")
    assert list_champion(folder)[-1].endswith(f"version 3: {reason}; champion: 2")


def test_same_leads_and_specification_are_not_compared(settled, tmp_path):
    folder = copy(settled, tmp_path / "repo")
    retrain(folder, 7)
    said = run("leadscore", "register", cwd=folder).stdout
    assert said == "version 2 of leadscore, registered; champion; nothing was compared: same leads and specification\n"


def test_a_revert_to_a_deleted_version_changes_nothing(replaced, tmp_path):
    folder = copy(replaced[0], tmp_path / "repo")
    open_store(folder).delete_model_version("leadscore", "1")
    before = list_champion(folder)
    message = fails("leadscore", "champion", "--revert", cwd=folder)
    assert "version 1, the champion before version 2, was deleted in MLflow" in message
    assert list_champion(folder) == before
    assert "version 2 of leadscore, already registered; champion\n" in run("leadscore", "register", cwd=folder).stdout


def test_a_missing_decision_is_put_in(replaced, tmp_path):
    folder = copy(replaced[0], tmp_path / "repo")
    client = open_store(folder)
    client.set_model_version_tag("leadscore", "1", "leads", "own")
    client.set_registered_model_alias("leadscore", "champion", "1")  # as a revert that was killed leaves it
    assert "not champion: it was reverted" in run("leadscore", "register", cwd=folder).stdout
    client.set_registered_model_alias("leadscore", "champion", "2")  # as a killed register leaves it
    assert "version 2 of leadscore, already registered; champion\n" in run("leadscore", "register", cwd=folder).stdout
    said = run("leadscore", "champion", "--revert", cwd=folder).stdout
    assert said == "version 1 of leadscore; champion again, in place of version 2\n"
    decided = ["made champion (nothing was compared: version 1 is the sample's); champion: 2"]
    decided += ["reverted (found afterwards); champion: 1", "made champion (found afterwards); champion: 2"]
    decided += ["reverted; champion: 1"]
    assert [line.split("version 2: ")[1] for line in list_champion(folder)[1:]] == decided


def test_messages_tell_a_store_that_is_away_from_one_that_is_wrong(settled, tmp_path):
    (tmp_path / "no.db").write_text("no database" * 1000)
    away, wrong = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, {"MLFLOW_TRACKING_URI": "ftp://host/leads"}
    assert "run this again when its store is back" in fails("leadscore", "champion", cwd=settled, **away)
    assert "run this again when its store is back, or name a folder" in fails(*SCORE, cwd=settled, **away)
    mend = "fix section mlflow of params.yaml, or the variable MLFLOW_TRACKING_URI"
    assert mend in fails("leadscore", "champion", cwd=settled, **wrong)
    broken = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/no.db"}
    assert f"file is not a database; {mend}" in fails(*SCORE, cwd=settled, **broken)
    message = fails(*SCORE, "--model", "models:/leadscore/99", cwd=settled)
    missing = "models:/leadscore/99: Model Version (name=leadscore, version=99) not found"
    assert f"{missing}; name one that MLflow has" in message


def test_commands_are_silent_where_nobody_watches(settled, tmp_path):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    folder = copy(settled, tmp_path / "repo")
    for command in (CLEAN, ("leadscore", "register"), ("leadscore", "champion"), SCORE):
        assert run(*command, cwd=folder, **store).stderr == "", command
