"""`make bench`: what users wait for, beside the targets, measured in a fresh clone; on the real leads if they are at hand, else on the sample."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"


def measure(command: str, cwd: Path) -> tuple[float, float]:
    "Seconds and peak memory (GB, the process and all its children) of a command that must succeed."
    environment = {**os.environ, "PATH": f"{cwd}/.venv/bin:{os.environ['PATH']}"}
    start, peak = time.perf_counter(), 0
    process = psutil.Popen(command, shell=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)  # nosec B604
    while process.poll() is None:
        try:
            peak = max(peak, sum(child.memory_info().rss for child in [process, *process.children(recursive=True)]))
        except psutil.Error:  # a child ended while we looked
            pass
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{command}: exit code {process.returncode}")
    return time.perf_counter() - start, peak / 1e9


def median(command: str, cwd: Path, times: int = 5) -> float:
    "Median seconds after a warm-up."
    measure(command, cwd)
    return statistics.median(measure(command, cwd)[0] for _ in range(times))


CLEAN = """
import statistics, time
from leadscore.clean import Cleaner, read_mappings
from leadscore.config import write_json
from leadscore.data import drop_duplicates, drop_rejected, fill_missing, load_leads, save_tables

def clean():
    labelled, _ = load_leads("data/leadscoring.csv")
    to_score, _ = load_leads("data/leadscoring_inference.csv", labelled=False)
    good = fill_missing(drop_rejected(labelled, 0.05))
    leads = drop_duplicates(good)
    cleaner = Cleaner(*read_mappings("mappings"), 0.9).fit(leads)
    tables = cleaner.steps(leads)
    model_input = tables["interactions_mapped"].drop(columns=["created_date", *(c for c in tables["interactions_mapped"] if c.endswith("_raw"))])
    save_tables({"loaded_data": good, **tables, "model_input": model_input}, "sqlite:///outputs/bench.db")
    tables["interactions_mapped"].to_parquet("outputs/bench.parquet")
    cleaner.transform(to_score).to_parquet("outputs/bench.parquet")

clean()
times = []
for _ in range(5):
    start = time.perf_counter()
    clean()
    times.append(time.perf_counter() - start)
write_json(statistics.median(times), "outputs/bench.json")
"""


SCORES = """
import time
import pandas as pd
from leadscore.clean import Cleaner
from leadscore.config import write_json
from leadscore.experiment import read_spec
from leadscore.model import fit_bundle
from leadscore.score import score_leads

leads = pd.read_parquet("outputs/clean/leads.parquet")
spec = read_spec("outputs/experiment/model_spec.yaml")
start = time.perf_counter()
bundle, _ = fit_bundle(leads, spec, Cleaner.load("outputs/clean/cleaner.json"), 10, 0.5, 42, 1)
fit = time.perf_counter() - start
to_score = leads.drop(columns="app_complete_flag").assign(fault=None)
speeds = []
for reasons in (False, True):
    score_leads(to_score.head(1000), bundle, reasons=reasons)
    start = time.perf_counter()
    score_leads(to_score, bundle, reasons=reasons)
    speeds.append(len(to_score) / (time.perf_counter() - start))
write_json({"fit": fit, "plain": speeds[0], "reasons": speeds[1]}, "outputs/bench.json")
"""


def bench(clone: Path) -> list[dict]:
    rows = []

    def add(name, unit, value, target, at_least=False):
        met = value >= target if at_least else value <= target
        rows.append({"name": name, "unit": unit, "value": round(value, 4 if value < 1 else 2), "target": target, "bound": "at least" if at_least else "at most", "met": met})
        print(f"{name}: {rows[-1]['value']} {unit} ({rows[-1]['bound']} {target})", flush=True)

    add("make setup with an empty .venv", "s", measure("make setup", clone)[0], 180)
    if REAL.is_dir():
        measure(f"leadscore data '{REAL}'", clone)
    else:
        measure("dvc pull --quiet data.dvc", clone)
    seconds, memory = measure("dvc repro --force", clone)
    add("dvc repro of everything", "s", seconds, 240)
    add("dvc repro of everything, peak memory", "GB", memory, 3)
    add("dvc repro with nothing changed", "s", median("dvc repro", clone), 6)
    (clone / "bench_clean.py").write_text(CLEAN)
    measure("python bench_clean.py", clone)
    add("clean stage without notebook start-up", "s", json.loads((clone / "outputs/bench.json").read_text()), 1)
    leads = (clone / "data/leadscoring_inference.csv").read_text().splitlines(keepends=True)
    (clone / "hundred.csv").write_text("".join(leads[:101]))
    add("leadscore score, 100 leads", "s", median("leadscore score hundred.csv -o scored.csv --model outputs/train/model", clone), 4)
    metrics = json.loads((clone / "metrics/evaluate.json").read_text())
    folds, forward = metrics["folds"]["leadscore"], metrics["forward"]
    add("random 10 folds, AUC", "", folds["auc"]["mean"], 0.836, at_least=True)
    add("random 10 folds, accuracy", "", folds["accuracy"]["mean"], 0.755, at_least=True)
    add("random 10 folds, calibration error", "", metrics["folds_pooled"]["leadscore"]["ece"], 0.015)
    add("forward windows, mean AUC over plain LightGBM's", "", forward["leadscore"]["auc"]["mean"] - forward["plain"]["auc"]["mean"], 0.008, at_least=True)
    add("forward windows, calibration error", "", metrics["forward_pooled"]["leadscore"]["ece"], 0.04)
    (clone / "bench_scores.py").write_text(SCORES)
    measure("python bench_scores.py", clone)
    speeds = json.loads((clone / "outputs/bench.json").read_text())
    add("fit, with its ten-fold calibration", "s", speeds["fit"], 15)
    add("scoring without reasons", "leads/s", speeds["plain"], 50_000, at_least=True)
    add("scoring with reasons", "leads/s", speeds["reasons"], 3_000, at_least=True)
    return rows


if __name__ == "__main__":
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {'real leads' if REAL.is_dir() else 'sample'}"
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "leadscore"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        rows = [{**row, "machine": machine} for row in bench(clone)]
    (ROOT / "benchmarks/results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(pd.DataFrame(rows).to_string(index=False))
