"""Another team's leads: other names, words and dates, told by `leads.yaml` alone."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, run

from leadscore.bundle import fit_bundle
from leadscore.clean import clean_labelled, clean_unlabelled
from leadscore.experiment import ModelSpec
from leadscore.features import list_features
from leadscore.lists import score_file
from leadscore.measure import measure
from leadscore.model import Training
from leadscore.params import STAGES, Infer, SchemaError, notebook_name
from leadscore.recipe import Cleaner
from leadscore.sample import make_leads
from leadscore.schema import LABEL
from leadscore.table import Table, load_table

SALES = """
dialect: {delimiter: ";", decimalChar: ",", encoding: windows-1252}
missingValues: ["", "k. A."]
fields:
  - {name: Lead ID, role: id}
  - {name: Created On, role: created, format: ["%d.%m.%Y %H:%M", "%d.%m.%Y"]}
  - {name: Industry, role: category, kind: true}
  - {name: Region, role: category, groups: mappings/region.csv, otherGroup: elsewhere}
  - {name: Revenue (M€), role: number, title: revenue}
  - {name: Demo, role: flag, trueValues: ["Yes"], falseValues: ["No"], title: asked for a demo}
  - {name: Mails opened, role: count, group: contacts}
  - {name: Visits, role: count, group: contacts}
  - {name: Phone, role: carry}
  - {name: Close reason, role: after}
  - {name: Won, role: label, trueValues: ["Yes"], falseValues: ["No"]}
"""


def make_sales(n: int) -> pd.DataFrame:
    "Leads of a company that sells to others, as its CRM exports them."
    rng = np.random.default_rng(7)
    industry = rng.choice(["Metall", "Bäcker", "IT", "k. A."], n)
    revenue = rng.lognormal(1, 1, n).round(2)
    demo, visits = rng.random(n) < 0.3, rng.poisson(1, n)
    odds = -1.5 + 1.2 * (industry == "IT") + 1.5 * demo + 0.4 * visits
    won = rng.random(n) < 1 / (1 + np.exp(-odds))
    days = np.sort(rng.integers(0, 400, n))
    created = (pd.Timestamp("2024-01-01") + pd.to_timedelta(days, unit="D")).strftime("%d.%m.%Y")
    leads = pd.DataFrame({"Lead ID": [f"00Q{number:05d}" for number in range(n)], "Created On": created})
    leads["Industry"] = industry
    leads["Region"] = rng.choice(["Nord", "Süd", "West"], n)
    leads["Revenue (M€)"] = pd.Series(revenue).map("{:.2f}".format).str.replace(".", ",")
    leads["Demo"] = np.where(demo, "Yes", "No")
    leads["Mails opened"] = rng.poisson(2, n)
    leads["Visits"] = visits
    leads["Phone"] = "+49 30 1234567"
    leads["Close reason"] = np.where(won, "signed", "no budget")
    return leads.assign(Won=np.where(won, "Yes", "No"))


@pytest.fixture(scope="module")
def sales(tmp_path_factory):
    "A folder with leads.yaml, a table of groups and both files."
    folder = tmp_path_factory.mktemp("sales")
    (folder / "leads.yaml").write_text(SALES, encoding="utf-8")
    (folder / "mappings").mkdir()
    (folder / "mappings/region.csv").write_text("Region,area\nNord,north\nSüd,south\n", encoding="utf-8")
    made, options = make_sales(1500), {"sep": ";", "encoding": "windows-1252", "index": False}
    made.head(1400).to_csv(folder / "leadscoring.csv", **options)
    made.tail(100).drop(columns="Won").to_csv(folder / "leadscoring_inference.csv", **options)
    return folder


@pytest.fixture(scope="module")
def model(sales):
    cleaner = Cleaner(load_table(sales / "leads.yaml"), coverage=0.9)
    clean_labelled(sales / "leadscoring.csv", sales / "leads.parquet", cleaner, max_rejected=0.0)
    leads = pd.read_parquet(sales / "leads.parquet")
    features, trees = list_features(leads, cleaner.table), {"n_estimators": 50, "num_leaves": 7}
    spec = ModelSpec(feature_set="roles", features=features, lightgbm=trees, linear_weight=0.3, tuned=False, cv_auc=0.7)
    bundle, oof = fit_bundle(leads, Training(spec, cleaner, folds=3))
    replace(bundle, rules=Infer()).save(sales / "model")
    return bundle, oof


def test_the_guides_table_is_valid():
    [code] = re.findall(r"```yaml\n(dialect.*?)```", (ROOT / "docs/use/leads.md").read_text(), re.DOTALL)
    table = Table.model_validate(yaml.safe_load(code))
    assert {field.role for field in table.fields} >= {"id", "created", "label", "category", "number", "flag", "count"}


def test_no_file_of_ours_knows_a_column_by_name():
    names = {field.name for field in load_table(ROOT / "leads.yaml").fields} - {""}
    ours = [path for path in (ROOT / "leadscore").iterdir() if path.suffix in (".py", ".j2") and path.stem != "sample"]
    ours += [ROOT / f"nbs/pipeline/{notebook_name(stage)}.ipynb" for stage in STAGES]
    texts = {path.name: path.read_text(encoding="utf-8") for path in ours}
    known = [(file, name) for file, text in texts.items() for name in names if re.search(rf"['\"`]{name}['\"`]", text)]
    assert len(texts) > 30 and known == []


def test_a_model_is_made_of_another_teams_leads(sales, model):
    bundle, oof = model
    leads = pd.read_parquet(sales / "leads.parquet")
    assert leads["contacts"].sum() > 0 and set(leads["Demo"]) == {0.0, 1.0} and leads["Industry"].isna().mean() > 0.2
    assert not {"Phone", "Close reason"} & {*leads.columns, *bundle.blend.encoder.features}
    assert measure(oof[LABEL], oof["probability"], 0.5)["auc"] > 0.65  # what the odds above allow: .75
    assert set(bundle.cleaner.map(leads)["area"]) == {"north", "south", "elsewhere"}


def test_its_list_speaks_its_words(sales, model):
    print(score_file(sales / "leadscoring_inference.csv", sales / "scored.csv", sales / "model"))
    scores = pd.read_csv(sales / "scored.csv")
    assert scores["lead_id"].tolist() == [f"00Q{number:05d}" for number in range(1400, 1500)]
    reasons = " ".join(scores.filter(like="reason").stack())
    assert all(words in reasons for words in ("not asked for a demo: ", "Industry IT: ", "contacts: ", "revenue: "))
    said = str(score_file(sales / "leadscoring.csv", sales / "all.csv", sales / "model"))
    assert said.startswith("1,400 leads, 1,400 scored") and "Won was set aside" in said


def test_a_model_refuses_the_leads_of_another_table(sales, model, tmp_path):
    make_leads(20).to_csv(tmp_path / "leads.csv", index=False)
    with pytest.raises(SchemaError, match='declare dialect: {delimiter: ","}'):
        score_file(tmp_path / "leads.csv", tmp_path / "scored.csv", sales / "model")
    make_leads(20).to_csv(tmp_path / "leads.csv", index=False, sep=";")
    with pytest.raises(SchemaError, match="column missing: 'Lead ID', 'Created On', 'Industry', 'Region', 'Revenue"):
        score_file(tmp_path / "leads.csv", tmp_path / "scored.csv", sales / "model")
    assert not (tmp_path / "scored.csv").exists()


def test_a_bad_cell_is_named_by_its_own_column(sales, model, tmp_path):
    leads = make_sales(30).astype(str)
    leads.loc[3, "Revenue (M€)"] = "much"
    leads.loc[5, "Created On"] = "2024-01-05"
    leads.drop(columns="Won").to_csv(tmp_path / "leads.csv", index=False, sep=";", encoding="windows-1252")
    score_file(tmp_path / "leads.csv", tmp_path / "scored.csv", sales / "model")
    unsure = pd.read_csv(tmp_path / "scored.csv")["unsure"]
    assert unsure[3] == "no score: Revenue (M€) is not a number"
    assert unsure[5] == "no score: Created On is not a date DD.MM.YYYY HH:MM or DD.MM.YYYY"


def test_leads_to_be_scored_are_all_kept(sales, model):
    bundle, _ = model
    cleaned = clean_unlabelled(sales / "leadscoring_inference.csv", sales / "inference.parquet", bundle.cleaner)
    assert cleaned.counts == {"leads_in": 100, "rejected": 0, "leads_out": 100}


@pytest.mark.slow
def test_the_pipeline_runs_on_another_teams_leads(work, sales):
    shutil.rmtree(work / "data")
    (work / "data").mkdir()
    for name in ("leadscoring.csv", "leadscoring_inference.csv"):
        shutil.copyfile(sales / name, work / "data" / name)
    shutil.copyfile(sales / "leads.yaml", work / "leads.yaml")
    shutil.copyfile(sales / "mappings/region.csv", work / "mappings/region.csv")
    params = yaml.safe_load((work / "params.yaml").read_text())
    params["clean"]["db_url"] = "sqlite:///sales.db"
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in STAGES[:4]:
        run("python", "-m", "leadscore.stage", stage, cwd=work)
    run("leadscore", "bundle", cwd=work)
    for stage in STAGES[4:]:
        run("python", "-m", "leadscore.stage", stage, cwd=work)
    scores = pd.read_csv(work / "outputs/infer/scored_leads.csv")
    assert len(scores) == 100 and scores["score"].notna().all()
    assert {"Won", "area", "contacts"} <= set(pd.read_sql("select * from model_input", f"sqlite:///{work}/sales.db"))
    assert "+49" not in (work / "outputs/train/model/history.json").read_text()
