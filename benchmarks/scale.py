"""`leadscore scale` on this machine: throughput and memory with 1, 2 and 4 Dask workers. Needs the extra `scale`; makes itself a venv with it if it is not there."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def write_part(folder: Path, part: int, size: int) -> None:
    from leadscore.sample import make_leads

    make_leads(size, first_id=part * size).to_csv(folder / f"part-{part:05d}.csv", index=False)


def write_to_score(source: Path, target: Path) -> None:
    pd.read_csv(source, dtype=str, keep_default_na=False).drop(columns="app_complete_flag").rename(columns={"Unnamed: 0": ""}).to_csv(target, index=False)


def watch(run: Callable[[], object]) -> tuple[float, float]:
    "Seconds, and the peak memory (GB) of the largest child of this process."
    import psutil

    peak, over = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.1):
            for child in psutil.Process().children(recursive=True):
                try:
                    peak = max(peak, child.memory_info().rss)
                except psutil.Error:  # it ended while we looked
                    pass

    thread = threading.Thread(target=look)
    thread.start()
    start = time.perf_counter()
    try:
        run()
    finally:
        seconds = time.perf_counter() - start
        over.set()
        thread.join()
    return seconds, peak / 1e9


def bench(folder: Path, leads: int, parts: int, workers: list[int]) -> list[dict]:
    "Make parts of leads in `folder`, and clean, train and score them."
    from leadscore.clean import Cleaner, read_mappings
    from leadscore.config import Infer
    from leadscore.experiment import STUDIED, ModelSpec
    from leadscore.features import RICH
    from leadscore.scale import clean_parts, connect, infer_parts, list_parts, map_parts, train_parts

    rows, spec = [], ModelSpec(feature_set="rich", features=RICH, lightgbm=STUDIED, linear_weight=0.3, tuned=False, cv_auc=0.8)
    for name in ("leads", "to_score"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def add(step: str, n: int, run: Callable[[], object]) -> None:
        seconds, memory = watch(run)
        name = f"scale {step}, {leads:,} leads, {n} worker{'s' * (n > 1)}"
        for suffix, unit, value in (("", "leads/s", round(leads / seconds)), (", memory of a worker", "GB", round(memory, 2))):
            rows.append({"name": name + suffix, "unit": unit, "value": value, "target": None, "bound": "", "met": None})
            print(f"{name}{suffix}: {value} {unit}", flush=True)

    with connect(os.cpu_count()) as client:
        if not any((folder / "leads").iterdir()):
            map_parts(client, partial(write_part, folder / "leads"), list(range(parts)), [leads // parts] * parts)
        sources = list_parts(folder / "leads")
        if not any((folder / "to_score").iterdir()):
            map_parts(client, write_to_score, sources, [folder / "to_score" / path.name for path in sources])
    for n in workers:
        with connect(n) as client:
            add("clean", n, lambda: clean_parts(folder / "leads", folder / f"cleaned-{n}", client, Cleaner(*read_mappings(ROOT / "mappings"), 0.9)))
            add("train", n, lambda: train_parts(folder / f"cleaned-{n}", client, spec, 3, 0.5, 42, 1).save(folder / "model"))
            add("infer without reasons", n, lambda: infer_parts(folder / "to_score", folder / f"scored-{n}", client, folder / "model", Infer(), reasons=False))
    return rows


def main(leads: int = 2_400_000, parts: int = 24, workers: str = "1,2,4", folder: str = "") -> list[dict]:
    "Run in this Python if it has Dask, else in a venv of its own."
    with tempfile.TemporaryDirectory() as temporary:
        if importlib.util.find_spec("distributed"):
            return bench(Path(folder or temporary) / f"{leads}", leads, parts, [int(n) for n in workers.split(",")])
        venv, rows = Path(temporary) / "venv", Path(temporary) / "rows.json"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", f"{venv}/bin/python", "--constraint", "requirements.lock", "-r", "pyproject.toml", "--extra", "scale", "psutil"]
        subprocess.run(install, cwd=ROOT, check=True)
        command = [f"{venv}/bin/python", __file__, str(leads), str(parts), workers, folder, str(rows)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        return json.loads(rows.read_text())


if __name__ == "__main__":
    given = [*sys.argv[1:], *["2400000", "24", "1,2,4", "", ""][len(sys.argv) - 1 :]]
    table = main(int(given[0]), int(given[1]), given[2], given[3])
    if given[4]:
        Path(given[4]).write_text(json.dumps(table))
