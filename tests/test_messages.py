"""Every message that a user can meet, read off the code.

None holds nothing, none names what is not there, each advice is tried.
"""

import ast
import re
import tomllib

import pandas as pd
import pytest
import yaml
from conftest import ROOT, run

MODULES = [path for path in sorted((ROOT / "leadscore").glob("*.py")) if path.name != "_modidx.py"]


def join(text: ast.JoinedStr, named: dict[str, str]) -> str:
    "An f-string; what is put in when it runs is `{}`, unless it is a name of a text."
    parts = []
    for value in text.values:
        if isinstance(value, ast.Constant):
            parts.append(value.value)
        else:
            parts.append(named.get(getattr(value.value, "id", ""), "{}"))
    return "".join(parts)


def read_text(node: ast.AST, named: dict[str, str]) -> str:
    "The longest text in a node."
    texts = [""]
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            texts.append(join(part, named))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            texts.append(part.value)
    return max(texts, key=len)


def name_texts(block: ast.AST, named: dict[str, str]) -> dict[str, str]:
    "Texts that a function or module gives a name to; messages are put together from them."
    named = dict(named)
    for node in ast.walk(block):
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Constant, ast.JoinedStr)):
            [target, *_] = node.targets
            if isinstance(target, ast.Name) and read_text(node.value, named):
                named[target.id] = f"{named.get(target.id, '')}{read_text(node.value, named)}"
    return named


def is_message(node: ast.AST) -> bool:
    "A text that is raised, or printed to stderr."
    if isinstance(node, ast.Raise):
        return node.exc is not None
    if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "print":
        return False
    return any(word.arg == "file" for word in node.keywords)


def list_messages(path) -> dict[str, str]:
    "Place -> text of each message of a module."
    tree = ast.parse(path.read_text())
    constants = ast.Module([node for node in tree.body if isinstance(node, ast.Assign)], [])
    outer, messages = name_texts(constants, {}), {}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        named = name_texts(function, outer)
        for node in filter(is_message, ast.walk(function)):
            messages[f"{path.name}:{node.lineno}"] = read_text(node, named)
    return messages


MESSAGES = {place: text for path in MODULES for place, text in list_messages(path).items()}


def constants() -> list[str]:
    "All other texts of the code that advise something, such as parts of messages that are put together."
    texts = []
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    for path in MODULES:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        first = [node.body[0] for node in nodes if isinstance(node, documented)]
        docstrings = {id(statement.value) for statement in first if isinstance(statement, ast.Expr)}
        strings = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        texts += [node.value for node in strings if id(node) not in docstrings]
    return texts


def test_messages_are_found():
    assert len(MESSAGES) > 80 and any("no such file; fix the path" in text for text in MESSAGES.values())


@pytest.mark.parametrize("place", MESSAGES)
def test_no_message_holds_nothing(place):
    assert not re.search(r"\bNone\b|\bnan\b|\bNaN\b", MESSAGES[place])


def test_messages_name_what_there_is():
    text = "\n".join(constants())
    commands = ["score", "check", "data", "bundle", "register", "champion", "verify"]
    helps = {command: run("leadscore", command, "--help", cwd=ROOT).stdout for command in commands}
    options = set(re.findall(r"--[a-z][a-z-]+", " ".join(helps.values())))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    keys = {f"{section}.{key}" for section, entries in params.items() for key in entries}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for message in MESSAGES.values():
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", message)) <= options, message
        assert set(re.findall(r"\bleadscore ([a-z]+)\b", message)) <= {*commands, "bundle", "made", "wrote"}, message
        assert set(re.findall(r"\brun make ([a-z]+)\b", message)) <= targets, message
        pairs = re.findall(r"(?<![\w/])([a-z]+)\.([a-z_]+)\b", message)
        named = {f"{section}.{key}" for section, key in pairs if section in params}
        assert named <= keys, message
        files = set(re.findall(r"\b(?:mappings|metrics|outputs)/[\w/.]+", message))
        assert all((ROOT / name).exists() or name.startswith("outputs/") for name in files), message
    named = set(re.findall(r"\.\[([a-z]+)\]", text))
    assert named and named <= set(extras)


# An advice that names an option, a parameter, a command or a variable -> the test that takes it.
TRIED = {
    "--carry": "tests/test_faults.py::test_score_carries_columns_along",
    "--id-column": "tests/test_week_one.py::test_the_lead_id_column_has_one_source",
    "--max-unseen": "tests/test_messages.py::test_unseen_levels_are_let_through_as_advised",
    "--dask": "tests/test_many.py::test_a_cluster_scores_the_same_though_a_worker_is_killed",
    "--workers": "tests/test_many.py::test_a_folder_is_scored_as_one_file",
    "--model": "tests/test_week_one.py::test_a_model_folder_needs_nothing_else",
    "base.holdout_days": "tests/test_week_one.py::test_a_short_history_is_said_before_it_costs_minutes",
    "base.id_column": "tests/test_week_one.py::test_the_lead_id_column_has_one_source",
    "clean.max_rejected": "tests/test_messages.py::test_bad_leads_are_let_through_as_advised",
    "dialect: {delimiter": "tests/test_bad_files.py::test_a_dialect_is_declared_as_advised",
    "dialect: {encoding": "tests/test_bad_files.py::test_a_dialect_is_declared_as_advised",
    "dvc checkout": "tests/test_messages.py::test_what_is_gone_comes_back_as_advised",
    "dvc repro": "tests/test_messages.py::test_what_is_gone_comes_back_as_advised",
    "experiment.candidates": "nbs/12_experiment.ipynb",
    "experiment.min_relevance": "nbs/12_experiment.ipynb",
    "infer.max_unseen": "tests/test_messages.py::test_unseen_levels_are_let_through_as_advised",
    "leadscore bundle": "tests/test_week_one.py::test_settings_have_one_source",
    "leadscore champion": "tests/test_no_signal.py::test_the_commands_say_why_there_is_no_champion",
    "leadscore score": "tests/test_messages.py::test_unseen_levels_are_let_through_as_advised",
    "leadscore register": "tests/test_torture.py::test_without_mlflow_the_pipeline_goes_on",
    "make repro": "tests/conftest.py::repo",
    "pip install": "tests/test_installs.py::test_every_extra_is_tried",
    "train.max_auc": "tests/test_messages.py::test_a_true_column_is_let_through_as_advised",
    "LEADSCORE_DB_URL": "tests/test_week_one.py::test_the_database_is_checked_against_what_dvc_holds",
    "MLFLOW_TRACKING_PASSWORD": "MLflow's own variable",
}
WORDS = {"clean.db_url", "dvc add"}  # where it happened
ADVICE = (
    r"(?<![\w-])--[a-z][a-z-]+"
    r"|(?<![\w/.])(?:base|profile|clean|experiment|train|evaluate|infer|criteria|mlflow)\.[a-z_]+\b"
    r"|dialect: \{\w+|dvc \w+|leadscore (?:score|check|data|bundle|register|champion|verify)\b"
    r"|make (?:repro|data|mlflow)|pip install|[A-Z]+_[A-Z_]+[A-Z]"
)


def test_each_advice_is_tried():
    mends = [text for text in constants() if re.match("pip install|install it|, or ", text)]
    advised = {advice for message in [*MESSAGES.values(), *mends] for advice in re.findall(ADVICE, message)}
    assert advised - WORDS == set(TRIED)
    for place in TRIED.values():
        file, _, name = place.partition("::")
        assert "own variable" in place or (name or "test_") in (ROOT / file).read_text(), place


def make_bad(work, column, value, share=0.5):
    leads = pd.read_csv(work / "data/leadscoring.csv", dtype=str, keep_default_na=False)
    leads = leads.rename(columns={"Unnamed: 0": ""})
    leads[column] = leads[column].where(leads.index >= share * len(leads), value)
    return leads


def set_param(work, section, key, value):
    params = yaml.safe_load((work / "params.yaml").read_text())
    params[section][key] = value
    (work / "params.yaml").write_text(yaml.safe_dump(params))


def test_unseen_levels_are_let_through_as_advised(work):
    leads = make_bad(work, "first_platform_c", "Level9999", share=1).drop(columns="app_complete_flag")
    leads.to_csv(work / "data/leadscoring_inference.csv", index=False)
    command = ["leadscore", "score", "data/leadscoring_inference.csv", "-o", "scored.csv"]
    command += ["--model", "outputs/train/model"]
    assert "raise infer.max_unseen (--max-unseen of leadscore score)" in run(*command, cwd=work, ok=False).stderr
    run(*command, "--max-unseen", "1", cwd=work)
    set_param(work, "infer", "max_unseen", 1.0)
    run("leadscore", "bundle", cwd=work)
    run(*command, cwd=work)
    for stage in ("clean", "infer"):
        run("python", "-m", "leadscore.stage", stage, cwd=work)


def test_bad_leads_are_let_through_as_advised(work):
    make_bad(work, "careers", "-1", share=0.1).to_csv(work / "data/leadscoring.csv", index=False)
    assert "clean.max_rejected" in run("python", "-m", "leadscore.stage", "clean", cwd=work, ok=False).stderr
    set_param(work, "clean", "max_rejected", 0.2)
    run("python", "-m", "leadscore.stage", "clean", cwd=work)


def test_a_true_column_is_let_through_as_advised(work):
    path = work / "outputs/clean/leads.parquet"
    leads = pd.read_parquet(path)
    place = leads["label"].where(leads.index >= 10, 0.5)  # in the middle; else the AUC would be 1
    leads.iloc[place.argsort(kind="stable")].to_parquet(path, index=False)
    assert "train.max_auc" in run("python", "-m", "leadscore.stage", "train", cwd=work, ok=False).stderr
    set_param(work, "train", "max_auc", 1.0)
    run("python", "-m", "leadscore.stage", "train", cwd=work)


def test_what_is_gone_comes_back_as_advised(repo):
    gone = repo / "outputs/infer/scored_leads.csv"
    kept = gone.read_bytes()
    for mend in (["dvc", "checkout", "--quiet"], ["dvc", "repro"]):
        gone.unlink()
        message = run("leadscore", "verify", "outputs/infer/scored_leads_receipt.json", cwd=repo, ok=False).stderr
        assert "scored_leads.csv: is gone; bring it back, the pipeline's with dvc checkout or dvc repro" in message
        run(*mend, cwd=repo)
        assert gone.read_bytes() == kept
