"""Reading MEDLINE beside `pubmed_parser`: the same fields, and the clock.

Decisions: the sides read the same files in turns, in seconds of processor time; "ours, all fields"
is asked for everything that the peer keeps, "ours" for what a corpus needs. Memory is that of a
fresh process a side. With several processes the clock on the wall counts. What PubMed would take,
in hours and bytes, follows from whole runs from files to corpus, and from as many PMIDs.

    python -m mediswift.reading pubmed21n1298.xml.gz pubmed20n0014.xml.gz --out results
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from mediswift import jobs, mirror, records
from mediswift.agreement import agreement, everything, ours, theirs
from mediswift.records import Record, peak_bytes
from mediswift.stats import spread

BASELINE = 36_000_000
"""Citations of the baseline that is extrapolated to."""
SIDES: dict[str, Callable[[Path], Iterator[dict]]] = {
    "pubmed_parser": theirs,
    "ours": ours,
    "ours, all fields": everything,
}


def race(files: Sequence[Path], rounds: int = 3) -> list[dict[str, Any]]:
    """Rows, one a file and side: records per second of processor time, and how often the peer's."""
    rows = []
    for file in files:
        seconds: dict[str, list[float]] = {name: [] for name in SIDES}
        for _ in range(rounds):
            for name, side in SIDES.items():
                began = time.process_time()
                found = sum(not row.get("deleted") for row in side(file))
                seconds[name].append(time.process_time() - began)
        rows += [_row(file.name, name, found, seconds) for name in SIDES]
        print(*rows[-len(SIDES) :], sep="\n", flush=True)
    return rows


def _row(file: str, name: str, records: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ratios = np.divide(seconds["pubmed_parser"], seconds[name])
    rate = records / statistics.median(seconds[name])
    found = {"file": file, "side": name, "records": records, "records_per_cpu_s": rate}
    return found | spread("ratio", ratios) | spread("seconds", seconds[name])


def race_together(
    files: Sequence[Path],
    processes: int,
    rounds: int = 3,
    names: Sequence[str] = ("pubmed_parser", "ours"),
) -> list[dict[str, Any]]:
    """Rows, one a side and number of processes: records per second on the clock on the wall."""
    counts = sorted({1, processes})
    seconds: dict[tuple[str, int], list[float]] = {(n, c): [] for n in names for c in counts}
    for _ in range(rounds):
        for name, count in seconds:
            with ProcessPoolExecutor(count, get_context("spawn")) as pool:
                list(pool.map(_count, [name] * count, [files[0]] * count))  # imports are done
                began = time.perf_counter()
                total = sum(pool.map(_count, [name] * len(files), files))
                seconds[name, count].append(time.perf_counter() - began)
    return [
        {"side": name, "processes": count, "records_per_s": total / statistics.median(found)}
        | spread("seconds", found)
        for (name, count), found in seconds.items()
    ]


def _count(name: str, file: Path) -> int:
    return sum(not row.get("deleted") for row in SIDES[name](file))


def peaks(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows, one a file and side: the largest size of a fresh process that reads the file."""
    return [
        {"file": file.name, "side": name, "peak_bytes": _run("--only", name, file)[1]}
        for file in files
        for name in SIDES
    ]


def corpora(files: Sequence[Path], processes: int, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows, one a number of processes: from files to a finished corpus, and what a baseline takes.

    Each file is given twice, so that two processes have work; `peak_bytes` is that of the first
    process, which does all of it if it is alone. `hours` and `gigabytes` are those of
    `BASELINE` citations like these.
    """
    found: dict[int, list[tuple[float, int]]] = {count: [] for count in sorted({1, processes})}
    with tempfile.TemporaryDirectory() as name:
        source, jobs = Path(name, "source"), [*files, *files]
        source.mkdir()
        for number, file in enumerate(jobs, start=1):
            shutil.copyfile(file, source / f"pubmed26n{number:04}.xml.gz")
        for turn in range(rounds):
            for count in found:
                cache = Path(name, f"{turn}-{count}")
                found[count].append(_run("--corpus", source, "--processes", count, cache=cache))
        total = sum(sum(not row["deleted"] for row in ours(file)) for file in jobs)
        disk = _disk(cache / "medline", total)
    return [
        {"processes": count, "citations": total, "peak_bytes": max(peak for _, peak in runs)}
        | spread("seconds", [seconds for seconds, _ in runs])
        | {"hours": BASELINE * statistics.median(s for s, _ in runs) / total / 3600}
        | disk
        for count, runs in found.items()
    ]


def _disk(cache: Path, citations: int) -> dict[str, float]:
    """Gigabytes of a baseline: as it was read, and as a corpus."""
    sizes = {
        kind: sum(p.stat().st_size for p in cache.glob(f"*.{kind}"))
        for kind in ("parquet", "arrow")
    }
    (arrow,) = cache.glob("*.arrow")
    articles = len(Dataset.from_file(str(arrow)))
    return {
        "read_gigabytes": BASELINE * sizes["parquet"] / citations / 1e9,
        "corpus_gigabytes": BASELINE * sizes["arrow"] / articles / 1e9,
    }


def resolution(rounds: int = 3) -> dict[str, float]:
    """Seconds and bytes to find out what is alive among `BASELINE` PMIDs of as many citations."""
    found = [_run("--resolve", BASELINE) for _ in range(rounds)]
    seconds = spread("seconds", [seconds for seconds, _ in found])
    return {"pmids": BASELINE, "peak_bytes": max(peak for _, peak in found)} | seconds


def resolve(pmids: int, each: int = 30_000) -> int:
    """How many of so many PMIDs are alive, if each file of `each` repeats one PMID of the next."""
    starts = range(pmids, 0, -each)
    files = ((list(map(str, range(max(s - each, 0), s + 1))), s) for s in starts)
    rows = ((names, [1] * len(names), [False] * len(names)) for names, _ in files)
    return sum(int(mask.sum()) for mask in mirror.find_alive(rows)[0])


def _run(*arguments: object, cache: Path | None = None) -> tuple[float, int]:
    """Seconds of this module in a fresh process, and its peak bytes, the last word that it prints.

    Raises RuntimeError if it failed.
    """
    command = [sys.executable, "-m", "mediswift.reading", *map(str, arguments)]
    here = os.environ | ({"MEDISWIFT_CACHE": str(cache)} if cache else {})
    began = time.perf_counter()
    done = subprocess.run(command, env=here, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a measurement needs its process to end well; {command} did not")
    return time.perf_counter() - began, int(done.stdout.split()[-1])


def record(files: Sequence[Path], rounds: int, processes: int) -> Record:
    """Record of kind "reading": all of the above."""
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    data = hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
    params = {"files": [file.name for file in files], "rounds": rounds, "workers": processes}
    params |= {"peer": f"pubmed_parser {metadata.version('pubmed_parser')}"}
    figures = {
        "load_average": os.getloadavg()[0],
        "fields": agreement(files),
        "rows": race(files, rounds),
        "together": race_together(files, processes, rounds),
        "peaks": peaks(files),
        "corpora": corpora(files, processes, rounds),
        "resolution": resolution(),
        "baseline": BASELINE,
    }
    name = records.run_id("reading", "pubmed_parser", params | {"data": data})
    return Record(id=name, kind="reading", params=params, metrics=figures, data_fingerprint=data)


def main(argv: list[str] | None = None) -> int:
    """Exit code: measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help=".xml.gz files of MEDLINE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder that gets the record")
    parser.add_argument("--only", choices=SIDES, help="read once, for its memory")
    parser.add_argument("--corpus", help="load this folder once, for its memory")
    parser.add_argument("--resolve", type=int, help="so many PMIDs, for its memory")
    given = parser.parse_args(argv)
    if given.only:
        print(sum(_count(given.only, file) for file in given.files), peak_bytes())
    elif given.corpus:
        print(len(mirror.load(given.corpus, given.processes)), peak_bytes())
    elif given.resolve:
        print(resolve(given.resolve), peak_bytes())
    else:
        kept = record(given.files, given.rounds, given.processes)
        print(records.write(kept, given.out / kept.id) if given.out else kept)
    return 0


if __name__ == "__main__":
    sys.exit(jobs.answer("mediswift.reading", main))
