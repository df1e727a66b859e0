"""`leadscore scale` with 1, 2 and 4 Dask workers on this machine; `bench.py scale` runs it in a venv with the extra `scale`.

`scale.py FOLDER` reads 24,000,000 leads in `FOLDER/labelled_24m` and `FOLDER/unlabelled_24m` and writes rows of the table as JSON on its last line.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from leadscore.clean import Cleaner, read_mappings
from leadscore.config import Infer
from leadscore.experiment import STUDIED, ModelSpec
from leadscore.features import RICH
from leadscore.scale import clean_parts, connect, infer_parts, list_parts, train_parts

LEADS, FEW = 24_000_000, 2_400_000  # training grows as the leads do, and is measured with each number of workers on few
SPEC = ModelSpec(feature_set="rich", features=RICH, lightgbm=STUDIED, linear_weight=0.3, tuned=False, cv_auc=0.8)


def watch(run: Callable[[], object]) -> tuple[float, float]:
    "Seconds, and the peak memory (GB) of the largest child of this process."
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


def main(folder: Path) -> list[dict]:
    "Clean, train and score the leads."
    rows = []

    def measure(step: str, n: int, leads: int, run: Callable[[], object]) -> None:
        seconds, memory = watch(run)
        name = f"scale {step}, {leads:,} leads, {n} worker{'s' * (n > 1)}"
        rows.extend([{"name": name, "unit": "leads/s", "value": round(leads / seconds)}, {"name": f"{name}, memory of a worker", "unit": "GB", "value": round(memory, 2)}])
        print(f"{name}: {round(leads / seconds):,} leads/s, {memory:.2f} GB a worker", flush=True)

    for n in (1, 2, 4):
        with connect(n) as client:
            train = partial(train_parts, client=client, spec=SPEC, folds=3, threshold=0.5, seed=42, threads=1)
            infer = partial(infer_parts, folder / "unlabelled_24m", client=client, rules=Infer(), reasons=False)
            cleaned = folder / f"cleaned-{n}"
            measure("clean", n, LEADS, lambda: clean_parts(folder / "labelled_24m", cleaned, client, Cleaner(*read_mappings(Path("mappings")), 0.9)))  # noqa: B023
            few = folder / f"few-{n}"
            few.mkdir()
            parts = list_parts(cleaned)
            for path in [cleaned / "cleaner.json", *parts[: len(parts) * FEW // LEADS]]:
                (few / path.name).symlink_to(path)
            measure("train", n, FEW, lambda: train(few).save(folder / "model"))  # noqa: B023
            measure("infer without reasons", n, LEADS, lambda: infer(folder / f"scored-{n}", model=folder / "model"))  # noqa: B023
            if n == 2:
                measure("train", n, LEADS, lambda: train(cleaned).save(folder / "large"))  # noqa: B023
                measure("infer without reasons by the model of all leads", n, LEADS, lambda: infer(folder / "scored-large", model=folder / "large"))  # noqa: B023
    return rows


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
