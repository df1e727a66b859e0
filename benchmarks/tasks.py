"""What bench.py runs in a process of its own.

`tasks.py NAME ARGUMENT…` prints the seconds of the work, without imports, as the last line.
"""

import itertools
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PIECE = 240_000


def make_piece(number: int) -> str:
    from leadscore.sample import make_leads

    return make_leads(PIECE, first_id=number * PIECE).to_csv(index=False, header=number == 0, lineterminator="\n")


def make(folder: str) -> None:
    "Leads of `leadscore.sample`: 240,000 and 2,400,000, with and without label."
    with ProcessPoolExecutor(2) as pool:
        for number, text in enumerate(pool.map(make_piece, range(10))):
            unlabelled = "".join(line.rpartition(",")[0] + "\n" for line in text.splitlines())
            for name, lines in {"labelled": text, "unlabelled": unlabelled}.items():
                for size in ("240k", "2400k") if number == 0 else ("2400k",):
                    with open(f"{folder}/{name}_{size}.csv", "a", encoding="utf-8") as file:
                        file.write(lines)


def multiply(folder: str) -> None:
    "24,000,000 leads in 50 files, with and without label: ten times the same ones with numbers and years of their own."
    for kind in ("labelled", "unlabelled"):
        (Path(folder) / f"{kind}_24m").mkdir()
        for copy in range(10):
            with open(f"{folder}/{kind}_2400k.csv", encoding="utf-8") as file:
                header = next(file)
                for part in range(5):
                    with open(f"{folder}/{kind}_24m/part-{5 * copy + part:02d}.csv", "w", encoding="utf-8") as target:
                        target.write(header)
                        for line in itertools.islice(file, 2 * PIECE):
                            number, _, rest = line.partition(",")
                            target.write(f"{int(number) + copy * 10 * PIECE},{int(rest[:4]) + 2 * copy}{rest[4:]}")


def clean(source: str, target: str, url: str = "") -> None:
    "Labelled leads to Parquet, and into a database if there is a URL."
    from leadscore.clean import clean_labelled
    from leadscore.recipe import Cleaner
    from leadscore.table import load_table

    clean_labelled(Path(source), Path(target), Cleaner(load_table(Path("leads.yaml")), 0.9), 0.05, None, url)


def clean_stage(folder: str) -> None:
    "What stage `clean` does with the leads in data/, without notebook."
    from leadscore.clean import clean_labelled, clean_unlabelled
    from leadscore.recipe import Cleaner
    from leadscore.table import load_table

    cleaner = Cleaner(load_table(Path("leads.yaml")), 0.9)
    clean_labelled(Path("data/leadscoring.csv"), Path(folder) / "leads.parquet", cleaner, 0.05, None, f"sqlite:///{folder}/stage.db")
    clean_unlabelled(Path("data/leadscoring_inference.csv"), Path(folder) / "inference.parquet", cleaner)


def reference(source: str, database: str) -> None:
    from reference import clean as clean_slowly

    clean_slowly(Path(source), Path("mappings"), Path(database))


def compare(source: str, folder: str) -> None:
    "The slow reference finds the same features."
    import pandas as pd
    from reference import clean as clean_slowly

    from leadscore.recipe import Cleaner
    from leadscore.table import load_table

    slow = clean_slowly(Path(source), Path("mappings"), Path(folder) / "slow.db")
    slow = slow.sort_values("lead_id", ignore_index=True)
    clean(source, f"{folder}/fast.parquet")
    table = load_table(Path("leads.yaml"))
    fast = pd.read_parquet(f"{folder}/fast.parquet").sort_values("lead_id", ignore_index=True)
    fast = Cleaner(table, 0.9).fit(fast).map(fast).rename(columns={"label": table.sources["label"]})
    fast = fast[["lead_id", *table.recipe, table.sources["label"]]]
    pd.testing.assert_frame_equal(slow[fast.columns], fast, check_dtype=False)


def fit(folder: str) -> None:
    import pandas as pd

    from leadscore.bundle import fit_bundle
    from leadscore.experiment import read_spec
    from leadscore.model import Training
    from leadscore.recipe import Cleaner

    leads, spec = pd.read_parquet("outputs/clean/leads.parquet"), read_spec("outputs/experiment/model_spec.yaml")
    fit_bundle(leads, Training(spec, Cleaner.load(Path("outputs/clean/cleaner.json"))))


def fit_many(source: str) -> None:
    "Trees on all leads, linear part and calibration on a sample."
    import pandas as pd

    from leadscore.bundle import fit_bundle
    from leadscore.experiment import STUDIED, ModelSpec
    from leadscore.features import list_features
    from leadscore.model import Training
    from leadscore.recipe import Cleaner
    from leadscore.table import load_table

    leads, table = pd.read_parquet(source), load_table(Path("leads.yaml"))
    spec = ModelSpec(
        feature_set="roles", features=list_features(leads, table), lightgbm=STUDIED, linear_weight=0.3, tuned=False,
        cv_auc=0.8,
    )
    fit_bundle(leads, Training(spec, Cleaner(table, 0.9), threads=2))


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    task, _, times = name.partition(":")  # `clean:5` is the median of five after a warm-up
    seconds = []
    for _ in range(int(times) + 1 if times else 1):
        start = time.perf_counter()
        globals()[task](*arguments)
        seconds.append(time.perf_counter() - start)
    print(statistics.median(itertools.islice(seconds, 1 if times else 0, None)))
