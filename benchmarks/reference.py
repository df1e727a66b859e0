"""The slow reference: the case study's cleaning the way a plain pandas project does it, after its description.

A table is written and read again after each step.

Source: Lead_Scoring_Case_Study, "Data Pipeline" and "Data Pre-processing". It is mended where it lost leads: here the
number stays with its lead.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd

CATEGORIES = ["first_platform_c", "first_utm_medium_c", "first_utm_source_c"]
ATTRIBUTES = ["lead_id", "created_date", "city_tier", *CATEGORIES]
ATTRIBUTES += ["total_leads_droppped", "referred_lead", "app_complete_flag"]


def write_table(leads: pd.DataFrame, name: str, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        leads.to_sql(name, connection, if_exists="replace", index=False)


def read_table(name: str, database: Path) -> pd.DataFrame:
    with closing(sqlite3.connect(database)) as connection:
        return pd.read_sql(f"select * from {name}", connection)  # nosec B608


def load_leads(source: Path, database: Path) -> None:
    "CSV to table; missing counts are 0, repeated leads go."
    leads = pd.read_csv(source).rename(columns={"Unnamed: 0": "lead_id"})
    leads["total_leads_droppped"] = leads["total_leads_droppped"].fillna(0)
    leads["referred_lead"] = leads["referred_lead"].fillna(0)
    leads = leads[~leads.drop(columns="lead_id").duplicated()]
    write_table(leads, "loaded_data", database)


def map_city_tier(database: Path, mappings: Path) -> None:
    "City to tier, 3 where it is unknown."
    leads = read_table("loaded_data", database)
    tiers = pd.read_csv(mappings / "city_tier.csv").set_index("city_mapped")["city_tier"].to_dict()
    leads["city_tier"] = leads["city_mapped"].map(tiers).fillna(3.0)
    write_table(leads.drop(columns="city_mapped"), "city_tier_mapped", database)


def map_categorical_vars(database: Path) -> None:
    "Levels beyond 90 % of the leads become `others`."
    leads = read_table("city_tier_mapped", database)
    for column in CATEGORIES:
        counts = leads[column].value_counts().sort_index().sort_values(ascending=False, kind="stable")
        kept = counts.index[counts.cumsum() <= 0.9 * len(leads)]
        leads.loc[~leads[column].isin(kept), column] = "others"
    write_table(leads, "categorical_variables_mapped", database)


def map_interactions(database: Path, mappings: Path) -> None:
    "37 click columns to five kinds: melt, merge, pivot."
    leads = read_table("categorical_variables_mapped", database)
    mapping = pd.read_csv(mappings / "interactions.csv")
    clicks = leads.melt(id_vars=ATTRIBUTES, var_name="interaction_type", value_name="interaction_value")
    clicks["interaction_value"] = clicks["interaction_value"].fillna(0)
    clicks = clicks.merge(mapping, on="interaction_type", how="left").drop(columns="interaction_type")
    kinds = {"values": "interaction_value", "index": ATTRIBUTES, "columns": "interaction_mapping"}
    leads = clicks.pivot_table(**kinds, aggfunc="sum").reset_index()
    write_table(leads, "interactions_mapped", database)
    write_table(leads.drop(columns="created_date"), "model_input", database)


def clean(source: Path, mappings: Path, database: Path) -> pd.DataFrame:
    "All steps; the table `model_input`."
    load_leads(source, database)
    map_city_tier(database, mappings)
    map_categorical_vars(database)
    map_interactions(database, mappings)
    return read_table("model_input", database)


if __name__ == "__main__":
    clean(*map(Path, sys.argv[1:]))
