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
    process = psutil.Popen(command, shell=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
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
from leadscore.data import drop_duplicates, drop_rejected, load_data_to_db, read_leads, save_table, validate_leads

def clean():
    url = "sqlite:///outputs/bench.db"
    loaded, _ = load_data_to_db("data/leadscoring.csv", url)
    to_score, _ = validate_leads(read_leads("data/leadscoring_inference.csv", labelled=False), labelled=False)
    leads = drop_duplicates(drop_rejected(loaded, 0.05))
    cleaner = Cleaner(*read_mappings("mappings"), 0.9).fit(leads)
    tables = cleaner.steps(leads)
    for name, table in tables.items():
        save_table(table, name, url)
    save_table(tables["interactions_mapped"].drop(columns=["created_date", *(c for c in tables["interactions_mapped"] if c.endswith("_raw"))]), "model_input", url)
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


def bench(clone: Path) -> list[dict]:
    rows = []

    def add(name, unit, value, target):
        rows.append({"name": name, "unit": unit, "value": round(value, 2), "target": target, "met": value <= target})
        print(f"{name}: {value:.2f} {unit} (at most {target})", flush=True)

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
    return rows


if __name__ == "__main__":
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {'real leads' if REAL.is_dir() else 'sample'}"
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "leadscore"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        rows = [{**row, "machine": machine} for row in bench(clone)]
    (ROOT / "benchmarks/results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(pd.DataFrame(rows).to_string(index=False))
