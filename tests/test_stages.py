"""The way of the data as functions, on 300 leads: raw leads in, a list and its receipt out. Needs no notebook."""

from dataclasses import replace

import pandas as pd
import pytest
from conftest import ROOT

from leadscore.bundle import Bundle, fit_bundle
from leadscore.clean import clean_labelled, clean_unlabelled
from leadscore.experiment import ModelSpec
from leadscore.features import list_features
from leadscore.lists import Scoring, score_file
from leadscore.measure import measure
from leadscore.model import Training
from leadscore.params import Infer, SchemaError
from leadscore.receipt import verify_receipt, write_receipt
from leadscore.recipe import Cleaner
from leadscore.sample import write_sample
from leadscore.schema import ID, LABEL
from leadscore.score import score_leads
from leadscore.table import load_table

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Leads, cleaned leads and a model."
    folder = tmp_path_factory.mktemp("stages")
    write_sample(folder, 300, 60)
    cleaner = Cleaner(load_table(ROOT / "leads.yaml"), coverage=0.9)
    clean_labelled(folder / "leadscoring.csv", folder / "leads.parquet", cleaner, max_rejected=0.05)
    clean_unlabelled(folder / "leadscoring_inference.csv", folder / "inference.parquet", cleaner)
    leads = pd.read_parquet(folder / "leads.parquet")
    features, trees = list_features(leads, cleaner.table), {"n_estimators": 20, "num_leaves": 7}
    spec = ModelSpec(
        feature_set="roles", features=features, lightgbm=trees, linear_weight=0.5, tuned=False, cv_auc=0.7
    )
    bundle, oof = fit_bundle(leads, Training(spec, cleaner, folds=3))
    replace(bundle, rules=Infer()).save(folder / "model")
    oof.to_parquet(folder / "oof.parquet")
    return folder


def test_each_lead_is_cleaned_once(folder):
    raw, leads = pd.read_csv(folder / "leadscoring.csv"), pd.read_parquet(folder / "leads.parquet")
    assert leads[ID].is_unique and set(leads[ID]) <= set(raw.iloc[:, 0]) and len(leads) > 270
    assert len(pd.read_parquet(folder / "inference.parquet")) == 60


def test_the_model_is_better_than_chance_on_leads_it_was_not_fitted_to(folder):
    leads, oof = pd.read_parquet(folder / "leads.parquet"), pd.read_parquet(folder / "oof.parquet")
    assert measure(leads[LABEL], oof["probability"].to_numpy(), 0.5)["auc"] > 0.6


def test_a_file_and_its_cleaned_leads_get_the_same_scores(folder):
    score_file(folder / "leadscoring_inference.csv", folder / "scored.parquet", folder / "model")
    scores = pd.read_parquet(folder / "scored.parquet")
    cleaned = score_leads(pd.read_parquet(folder / "inference.parquet"), Bundle.load(folder / "model"))
    pd.testing.assert_frame_equal(scores, cleaned, check_dtype=False)
    assert scores[ID].tolist() == pd.read_csv(folder / "leadscoring_inference.csv").iloc[:, 0].tolist()
    assert sorted(scores["rank"]) == list(range(1, 61))


def test_scoring_asks_only_for_the_columns_that_the_model_reads(folder):
    raw = pd.read_csv(folder / "leadscoring_inference.csv").rename(columns={"Unnamed: 0": ""})
    clicks = Bundle.load(folder / "model").cleaner.table.optional
    assert len(clicks) == 37
    raw.drop(columns=clicks).to_csv(folder / "few.csv", index=False)
    for name in ("leadscoring_inference", "few"):
        score_file(folder / f"{name}.csv", folder / f"{name}_scored.csv", folder / "model")
    assert (folder / "few_scored.csv").read_bytes() == (folder / "leadscoring_inference_scored.csv").read_bytes()
    raw.drop(columns="city_mapped").to_csv(folder / "no_city.csv", index=False)
    with pytest.raises(SchemaError, match="column missing: 'city_mapped'; add it"):
        score_file(folder / "no_city.csv", folder / "no_city_scored.csv", folder / "model")


def test_the_list_is_verified(folder):
    score_file(folder / "leadscoring_inference.csv", folder / "scored.csv", folder / "model")
    scoring = Scoring(Bundle.load(folder / "model"), Infer(), None, [], reasons=True)
    receipt = write_receipt(folder / "scored.csv", folder / "leadscoring_inference.csv", folder / "model", scoring)
    assert verify_receipt(receipt) == []
