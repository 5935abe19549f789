"""`make faults`: kills, faults, made-up input and determinism, tried now, and their record.

    python tests/faults.py RESULTS [--kills 50] [--inputs 1000] [--seed 0]

Exits with 1 when something was lost, doubled or different, and leaves the record all the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from mediswift import records, runner

os.environ.update(runner.QUIET | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"})
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import breaks  # noqa: E402
import fuzz  # noqa: E402
import kills  # noqa: E402

SHARES = {
    "pre-training": 0.28, "fine-tuning": 0.28, "packing": 0.2, "download": 0.16, "study": 0.08,
}  # fmt: skip
"""Of the kills; a study takes longest."""


def main(argv: list[str]) -> int:
    """Exit code; the record lies in a folder of its own under the first word."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--inputs", type=int, default=1000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(argv)
    params = {"kills": chosen.kills, "inputs": chosen.inputs, "seed": chosen.seed}
    began = time.perf_counter()
    metrics = measure(params)
    metrics["seconds"] = time.perf_counter() - began
    name = records.run_id("faults", f"kills{chosen.kills}-seed{chosen.seed}", params)
    record = records.Record(
        id=name, kind="faults", params=params, metrics=metrics, data_fingerprint=""
    )
    print(records.write(record, chosen.results / name))
    if wrong := faulty(metrics):
        print("not as promised:", *wrong, sep="\n  ", file=sys.stderr)
    return int(bool(wrong))


def measure(params: dict[str, int]) -> dict[str, Any]:
    """What came of all of it; a line is printed for each part as it ends."""
    with tempfile.TemporaryDirectory() as place, kills.server():
        os.environ["MEDISWIFT_CACHE"] = f"{place}/cache"
        killed = []
        for work, count in shares(params["kills"]).items():
            killed.append(kills.kill(work, count, Path(place) / work, params["seed"]))
            told = (
                f"{killed[-1]['finished']} times finished, {killed[-1]['differences'] or 'equal'}"
            )
            print(f"{work}: killed {count} times, {told}", flush=True)
        table = breaks.table()
        print(f"faults: {sum(row['as_promised'] for row in table)} of {len(table)} as promised")
        threads = breaks.threads(Path(place) / "threads")
        print(f"threads: {threads}", flush=True)
        fed = []
        for reader in fuzz.READERS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Hypothesis, on long inputs
                fed.append(fuzz.feed(reader, params["inputs"], params["seed"]))
            print(f"{reader}: {fed[-1]['taken']} taken, {fed[-1]['refused']} refused", flush=True)
    return {"killed": killed, "table": table, "fed": fed, "determinism": threads}


def shares(count: int) -> dict[str, int]:
    """How many kills each work gets; the first gets what rounding leaves."""
    found = {work: round(count * share) for work, share in SHARES.items()}
    first = next(iter(found))
    return found | {first: found[first] + count - sum(found.values())}


def faulty(metrics: dict[str, Any]) -> list[str]:
    """What is not as it should be, a line each."""
    wrong = [f"{k['work']}: {d}" for k in metrics["killed"] for d in k["differences"]]
    wrong += [f"{row['fault']}: {row}" for row in metrics["table"] if not row["as_promised"]]
    if not metrics["determinism"]["same_threads_same_bits"]:
        wrong.append("two runs on as many threads differ")
    if metrics["determinism"]["validation_loss_difference_nats"] > breaks.TOLERANCE:
        wrong.append(f"one and two threads differ by more than {breaks.TOLERANCE} nats")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
