"""`make bench`: what users wait for, beside the targets.

`python benchmarks/bench.py clean score` measures some of it only, in this checkout if it can.

Each command runs in a process of its own; short ones are the median of five after a warm-up, those of minutes run
once. Memory is the peak of the process and all its children.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks/results.json"
MEMORY = f"{psutil.virtual_memory().total / 2**30:.0f} GB"
LEADS = "real leads" if REAL.is_dir() else "sample"
MACHINE = f"{os.cpu_count()} cores, {MEMORY}, Python {sys.version.split()[0]}, {LEADS}"


def measure(command: str, cwd: Path, venv: Path | None = None) -> tuple[float, float, str]:
    "Seconds, peak memory (GB) and last line of a command that must succeed."
    hidden = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PATH"] = f"{venv or cwd / '.venv'}/bin:{os.environ['PATH']}"
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, shell=True, cwd=cwd, env=environment, stdout=output)  # nosec B604
        while process.poll() is None:
            with suppress(psutil.Error):  # a child ended while we looked
                peak = max(peak, sum(child.memory_info().rss for child in [process, *process.children(recursive=True)]))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        output.seek(0)
        lines = output.read().splitlines()
    if process.returncode:
        sys.exit(f"{command}: exit code {process.returncode}\n" + "\n".join(lines[-20:]))
    return seconds, peak / 1e9, lines[-1] if lines else ""


def median(command: str, cwd: Path, venv: Path | None = None, times: int = 5) -> float:
    "Median seconds after a warm-up."
    measure(command, cwd, venv)
    return statistics.median(measure(command, cwd, venv)[0] for _ in range(times))


class Bench:
    "Rows of the table, and what several benchmarks need."

    def __init__(self, repo: Path, folder: Path):
        self.repo, self.folder, self.rows = repo, folder, []

    def add(self, name: str, unit: str, value: float, target: float, at_least: bool = False) -> None:
        met = value >= target if at_least else value <= target
        bound, value = "at least" if at_least else "at most", round(value, 4 if abs(value) < 1 else 2)
        row = {"name": name, "unit": unit, "value": value, "target": target, "bound": bound, "met": met}
        self.rows.append({**row, "machine": MACHINE})
        print(f"{name}: {value} {unit} ({bound} {target}{'' if met else '; missed'})", flush=True)

    def note(self, name: str, unit: str, value: float) -> None:
        "A row without target."
        row = {"name": name, "unit": unit, "value": round(value, 2), "target": None, "bound": None, "met": None}
        self.rows.append({**row, "machine": MACHINE})
        print(f"{name}: {row['value']} {unit}", flush=True)

    def task(self, name: str, *arguments: object) -> tuple[float, float]:
        "Seconds of the work, and peak memory."
        words = " ".join(f"'{argument}'" for argument in arguments)
        _, memory, last = measure(f"python '{ROOT}/benchmarks/tasks.py' {name} {words}", self.repo)
        return float(last), memory

    def leads(self, name: str) -> Path:
        "Made leads, once."
        path = self.folder / name
        if not path.exists():
            self.task("multiply" if name.endswith("24m") else "make", self.folder)
            os.sync()  # or the disk is still busy with them
        return path

    @cached_property
    def cleaning(self) -> tuple[float, float]:
        "Seconds and peak memory of cleaning 2,400,000 leads, which others are measured against."
        return self.task("clean:5", self.leads("labelled_2400k.csv"), self.folder / "cleaned.parquet")

    def model(self) -> Path:
        model = self.repo / "outputs/train/model"
        if not model.is_dir():
            sys.exit(f"{model}: no model; run make repro, or name repro too")
        return model


def setup(bench: Bench) -> None:
    bench.add("make setup with an empty .venv", "s", measure("make setup", bench.repo)[0], 180)
    measure(f"leadscore data '{REAL}'" if REAL.is_dir() else "dvc pull --quiet data.dvc", bench.repo)


def repro(bench: Bench) -> None:
    repo = bench.repo
    seconds, memory, _ = measure("dvc repro --force", repo)
    bench.add("dvc repro of everything", "s", seconds, 150)
    bench.add("dvc repro of everything, peak memory", "GB", memory, 3)
    bench.add("dvc repro with nothing changed", "s", median("dvc repro", repo), 6)
    params, seconds = (repo / "params.yaml").read_text(), []
    for number in range(6):  # another number each time, or DVC would bring back what it has
        (repo / "params.yaml").write_text(params.replace("min_seen: 20", f"min_seen: {21 + number}"))
        seconds.append(measure("dvc repro", repo)[0])
    (repo / "params.yaml").write_text(params)
    measure("dvc repro", repo)
    bench.add("dvc repro with only infer changed", "s", statistics.median(seconds[1:]), 15)


def quality(bench: Bench) -> None:
    metrics = json.loads((bench.repo / "metrics/evaluate.json").read_text())
    folds, forward = metrics["folds"]["leadscore"], metrics["forward"]
    bench.add("random 10 folds, AUC", "", folds["auc"]["mean"], 0.8365, at_least=True)
    bench.add("random 10 folds, accuracy", "", folds["accuracy"]["mean"], 0.755, at_least=True)
    bench.add("random 10 folds, calibration error", "", metrics["folds_pooled"]["leadscore"]["ece"], 0.015)
    gain = forward["leadscore"]["auc"]["mean"] - forward["plain"]["auc"]["mean"]
    bench.add("forward windows, mean AUC over plain LightGBM's", "", gain, 0.01, at_least=True)
    bench.add("forward windows, calibration error", "", metrics["forward_pooled"]["leadscore"]["ece"], 0.04)


def fit(bench: Bench) -> None:
    bench.model()
    bench.add("fit, with its ten-fold calibration", "s", bench.task("fit", bench.folder)[0], 15)


def clean(bench: Bench) -> None:
    bench.add("clean stage without notebook start-up", "s", bench.task("clean_stage:5", bench.folder)[0], 1)
    bench.task("compare", bench.repo / "data/leadscoring.csv", bench.folder)
    source, target = bench.leads("labelled_240k.csv"), bench.folder / "cleaned.parquet"
    slow, _ = bench.task("reference", source, bench.folder / "slow.db")
    seconds, memory = bench.task("clean:5", source, target)
    bench.add("cleaning 240,000 leads, against the slow reference", "times as fast", slow / seconds, 40, at_least=True)
    bench.add("cleaning 240,000 leads, peak memory", "GB", memory, 0.6)
    seconds, memory = bench.cleaning
    bench.add("cleaning 2,400,000 leads", "s", seconds, 7)
    bench.add("cleaning 2,400,000 leads, peak memory", "GB", memory, 1)


def clean24m(bench: Bench) -> None:
    few, _ = bench.cleaning
    seconds, memory = bench.task("clean", bench.leads("labelled_24m"), bench.folder / "cleaned.parquet")
    bench.add("cleaning 24,000,000 leads in 50 files, time a lead against 2,400,000", "times", seconds / few / 10, 1.2)
    bench.add("cleaning 24,000,000 leads in 50 files, peak memory", "GB", memory, 2)


def database(bench: Bench) -> None:
    without, _ = bench.cleaning
    seconds, _ = bench.task("clean", bench.leads("labelled_2400k.csv"), bench.folder / "cleaned.parquet", f"sqlite:///{bench.folder}/leads.db")
    bench.add("leads.db for 2,400,000 leads", "s", seconds - without, 30)


def score(bench: Bench) -> None:
    command = f"leadscore score '{{}}' -o '{bench.folder}/scored.csv' --model '{bench.model()}' --max-unseen 1"
    seconds, memory, _ = measure(f"{command.format(bench.leads('unlabelled_2400k.csv'))} --no-reasons", bench.repo)
    bench.add("leadscore score, 2,400,000 leads", "leads/s", 2_400_000 / seconds, 94_000, at_least=True)
    bench.add("leadscore score, 2,400,000 leads, peak memory", "GB", memory, 1.5)
    seconds, _, _ = measure(command.format(bench.leads("unlabelled_240k.csv")), bench.repo)
    bench.add("leadscore score with reasons, 240,000 leads", "leads/s", 240_000 / seconds, 5_900, at_least=True)


def startup(bench: Bench) -> None:
    scoring, one = bench.folder / "scoring", bench.folder / "one.csv"
    install = f"uv pip install --quiet --python '{scoring}/bin/python' --constraint requirements.lock '{bench.repo}'"
    measure(f"python -m venv '{scoring}' && {install}", bench.repo)
    lines = (bench.repo / "data/leadscoring_inference.csv").read_text().splitlines(keepends=True)
    one.write_text("".join(lines[:2]))
    (bench.folder / "hundred.csv").write_text("".join(lines[:101]))
    seconds = median("python -c 'import leadscore.score'", scoring, scoring)
    bench.add("import leadscore.score, scoring-only install", "s", seconds, 1.5)
    heavy = "len({'dask', 'mlflow', 'pycaret'} & set(sys.modules))"
    _, _, last = measure(f'python -c "import sys, leadscore.score; print({heavy})"', scoring, bench.repo / ".venv")
    bench.add("import leadscore.score, of Dask, MLflow, PyCaret", "", int(last), 0)
    command = f"leadscore score '{{}}' -o '{bench.folder}/one_scored.csv' --model '{bench.model()}' --max-unseen 1"
    seconds = median(command.format(one), scoring, scoring)
    bench.add("leadscore score, one lead, scoring-only install", "s", seconds, 1.1)
    bench.add("leadscore score, one lead", "s", median(command.format(one), bench.repo), 4)
    bench.add("leadscore score, 100 leads", "s", median(command.format(bench.folder / "hundred.csv"), bench.repo), 4)


def folders(bench: Bench) -> None:
    "24,000,000 leads in 50 files, scored side by side, and a model of all of them. These rows have no target."
    bench.leads("labelled_2400k.csv")
    source, target = bench.leads("unlabelled_24m"), bench.folder / "lists"
    for workers in (1, 2):
        options = f"--model '{bench.model()}' --max-unseen 1 --no-reasons --workers {workers}"
        seconds, memory, _ = measure(f"leadscore score '{source}' -o '{target}' {options}", bench.repo)
        name = f"leadscore score, 24,000,000 leads in 50 files, {workers} process{'' if workers == 1 else 'es'}"
        bench.note(name, "leads/s", 24_000_000 / seconds)
        bench.note(f"{name}, peak memory", "GB", memory)
    cleaned = bench.folder / "cleaned_24m.parquet"
    bench.task("clean", bench.leads("labelled_24m"), cleaned)
    seconds, memory = bench.task("fit_many", cleaned)
    bench.note("fit on 24,000,000 leads, calibrated on a sample", "s", seconds)
    bench.note("fit on 24,000,000 leads, peak memory", "GB", memory)


def test(bench: Bench) -> None:
    bench.add("make quick", "s", measure("make quick", bench.repo)[0], 60)
    bench.add("make test", "s", measure("make test", bench.repo)[0], 300)


ALL = [setup, repro, quality, fit, clean, clean24m, database, score, startup, test, folders]


def main(names: list[str]) -> None:
    unknown = set(names) - {each.__name__ for each in ALL}
    if unknown:
        known = ", ".join(each.__name__ for each in ALL)
        sys.exit(f"{', '.join(sorted(unknown))}: no such benchmark; there are {known}")
    chosen = [each for each in ALL if not names or each.__name__ in names]
    with tempfile.TemporaryDirectory() as folder:
        repo = ROOT
        if setup in chosen or repro in chosen:
            repo = Path(folder) / "leadscore"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(repo)], check=True)
            if REAL.is_dir():  # for its tests
                (Path(folder) / "shared").symlink_to(REAL.parent)
            chosen = [setup, *(each for each in chosen if each is not setup)]
        bench = Bench(repo, Path(folder))
        last = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        before = last if names else []  # the whole starts anew
        for each in chosen:
            each(bench)
            rows = {row["name"]: row for row in [*before, *bench.rows]}
            RESULTS.write_text(json.dumps([*rows.values()], indent=1) + "\n")
    table = pd.DataFrame(bench.rows).drop(columns="machine")
    print(table.assign(last=table["name"].map({row["name"]: row["value"] for row in last})).to_string(index=False))


if __name__ == "__main__":
    main(sys.argv[1:])
