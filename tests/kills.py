"""The kill harness: work is killed with SIGKILL at random moments, started again until it is done,
and compared with the same work that nobody disturbed.

Decisions. A process is forked from a server that has imported the libraries already, so that kills
fall into work and not into imports. The moments are drawn by a seed and spread evenly over the time
that undisturbed work takes. Killed is the process with all its children, as when a machine goes
down, or every other time of a study its topmost process alone, which leaves orphans behind.
Compared is every file: tensors bit by bit, records and metrics without the fields that tell time
and place. Called by `faults.py`; a few kills of each kind are in `test_kills.py`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
from safetensors import safe_open

from mediswift import checkpoints, demo, examine, finetune, materials, pretrain, runner

VOLATILE = {"seconds", "tokens_per_s", "created_utc", "env", "process_peak_memory_bytes"}
"""What two runs of one thing may differ in."""
IMPORTED = ["mediswift.examine", "mediswift.pretrain", "mediswift.runner", "safetensors", "psutil"]
ADDRESS = "address.txt"
"""No part of what was to be made."""
OPENED = os.O_WRONLY | os.O_CREAT | os.O_APPEND
LONGEST = 600
"""Seconds after which work counts as hung."""
CONFIG = replace(pretrain.profile("tiny"), tokens=40_960, validations=4)
WHEEL = random.Random(0).randbytes(3_000_000)
PIN = {
    "package": "fake", "version": "1.0", "filename": "fake-1.0-py3-none-any.whl",
    "sha256": hashlib.sha256(WHEEL).hexdigest(), "bytes": len(WHEEL), "members": [],
}  # fmt: skip
CELLS = {
    "one": "pretrain.pretrain(pretrain.profile('tiny', seed=seed), runs)",
    "two": "kills.tune(next(Path(runs).glob('pretrain-*/record.json')).parent.name, Path(runs))",
}


# The work


def tune(parent: str, runs: Path) -> None:
    """Fine-tune a run and examine it."""
    config = finetune.profile("tiny", parent=parent, questions="sample:", epochs=2)
    tuned = finetune.finetune(config, runs)
    examine.examine(examine.ExamConfig(parent=tuned.id, questions="sample:"), runs)


def _pretraining(folder: Path) -> None:
    pretrain.pretrain(CONFIG, folder)


def _fine_tuning(folder: Path) -> None:
    (parent,) = folder.glob("pretrain-*")
    tune(parent.name, folder)


def _packing(folder: Path) -> None:
    materials.prepare(
        f"jsonl:{folder.parent / 'base' / 'text.jsonl'}", vocab_size=1024, context=128, runs=folder
    )


def _download(folder: Path) -> None:
    demo.load_pins, demo.cache_dir = lambda: {"fake": PIN}, lambda: folder
    demo._find_url = lambda _: (folder / "address.txt").read_text()
    demo.fetch("fake")


def _study(folder: Path) -> None:
    if left := runner.run_study(folder / "studies" / "small.yaml", root=folder):
        raise RuntimeError(f"not done: {left}")


# What the work needs before it starts


def _with_parent(folder: Path) -> None:
    _pretraining(folder)


def _with_text(folder: Path) -> None:
    sample = (demo.DATA / "sample" / "abstracts.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in sample for word in line.split() if word.isalpha()})
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=120)) for _ in range(4_000)]
    lines = [
        json.dumps({"pmid": str(n), "title": t[:40], "abstract": t})
        for n, t in enumerate(texts, 9_000)
    ]
    (folder / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _with_notebooks(folder: Path) -> None:
    import nbformat

    head = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport kills\n"
    head += "from pathlib import Path\nfrom mediswift import pretrain"
    (folder / "notebooks").mkdir()
    (folder / "studies").mkdir()
    for name, cell in CELLS.items():
        notebook = nbformat.v4.new_notebook()
        parameters = nbformat.v4.new_code_cell("seed: int = 0\nruns: str = '../runs'")
        parameters.metadata["tags"] = ["parameters"]
        notebook.cells = [parameters, *map(nbformat.v4.new_code_cell, (head, cell))]
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    text = "notebooks: [one, two]\nparameters: {seed: 0}\n"
    (folder / "studies" / "small.yaml").write_text(text)


def _with_server(folder: Path) -> None:
    (folder / "address.txt").write_text(_Slow.address)


WORK: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "pre-training": (_pretraining, lambda folder: None),
    "fine-tuning": (_fine_tuning, _with_parent),
    "packing": (_packing, _with_text),
    "download": (_download, _with_server),
    "study": (_study, _with_notebooks),
}
"""What is killed: the work, and what has to be there before it."""


class _Slow(BaseHTTPRequestHandler):
    """Sends the wheel slowly, from where it is asked to."""

    address = ""

    def do_GET(self) -> None:
        rest = WHEEL[int(self.headers["Range"][6:-1]) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        for start in range(0, len(rest), 1 << 15):
            time.sleep(0.02)
            try:
                self.wfile.write(rest[start : start + (1 << 15)])
            except OSError:  # who asked is dead
                return

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server() -> Iterator[None]:
    """A server on this machine from which the wheel can be downloaded meanwhile."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    _Slow.address = f"http://127.0.0.1:{http.server_port}/fake.whl"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()


# Killing it


def kill(name: str, kills: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """What came of killing the work `name` so many times: moments, seconds, differences."""
    draw = random.Random(f"{name} {seed}")
    base = folder / "base"
    base.mkdir(parents=True)
    WORK[name][1](base)
    wanted, _ = _undisturbed(name, base, folder / "whole")  # compiles, and chooses engines
    same, seconds = _undisturbed(name, base, folder / "again")
    moments = [seconds * (n + draw.random()) / kills for n in range(kills)]
    draw.shuffle(moments)
    said = {"work": name, "seconds": seconds, "kills": [], "finished": 0, "hidden_files_left": 0}
    said["differences"] = [f"undisturbed: {d}" for d in differences(wanted, same)]
    while moments:
        cut = folder / "cut"
        shutil.copytree(base, cut)
        while (process := _start(name, cut)) and moments:
            process.join(moments[-1])
            if not process.is_alive():  # what is gone on with may end before: another moment
                moments[-1] = draw.uniform(0, seconds)
                break
            alone = name == "study" and len(moments) % 2 == 1
            _strike(process, alone)
            said["kills"].append({"after_s": moments.pop(), "alone": alone})
        _finish(name, process, cut)
        said["finished"] += 1
        said["differences"] += differences(wanted, picture(cut))
        said["hidden_files_left"] += len(_partial(cut))
        shutil.rmtree(cut)
    return said


def _undisturbed(name: str, base: Path, folder: Path) -> tuple[dict[str, str], float]:
    shutil.copytree(base, folder)
    began = time.perf_counter()
    _finish(name, _start(name, folder), folder)
    return picture(folder), time.perf_counter() - began


def _start(name: str, folder: Path) -> multiprocessing.Process:
    return start(folder, _work, name)


def start(folder: Path, work: Callable[..., None], *given: object) -> multiprocessing.Process:
    """A process, as fresh as a new one but for its imports, that does `work(folder, *given)`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_quietly, args=(work, folder, os.environ.copy(), given))
    process.start()
    return process


def _quietly(
    work: Callable[..., None], folder: Path, environment: dict[str, str], given: tuple
) -> None:
    os.environ.update(environment)
    for name, number in (("said.log", 1), ("errors.log", 2)):
        said = os.open(folder.parent / f"{folder.name}.{name}", OPENED, 0o666)
        os.dup2(said, number)
    work(folder, *given)


def _work(folder: Path, name: str) -> None:
    WORK[name][0](folder)


def _finish(name: str, process: multiprocessing.Process, folder: Path) -> None:
    process.join(LONGEST)
    if hangs := process.is_alive():
        _strike(process, alone=False)
    if hangs or process.exitcode:
        errors = (folder.parent / f"{folder.name}.errors.log").read_text()[-2000:]
        raise RuntimeError(f"{name} {'hangs' if hangs else 'failed'}: {errors}")


def _strike(process: multiprocessing.Process, alone: bool) -> None:
    below = [] if alone else psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in below:
        if child.is_running():
            child.kill()
    process.join()


# Comparing


def picture(folder: Path) -> dict[str, str]:
    """Digest of every file that a reader would use, by path: what must be equal."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder): path for path in paths}
    return {
        str(name): _digest(path)
        for name, path in named.items()
        if not any(part.startswith(".") for part in name.parts)
        and path.name != ADDRESS
        and path.suffix != checkpoints.DAMAGED
    }


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Paths that are missing, superfluous or of other content."""
    names = sorted(wanted.keys() | found.keys())
    return [name for name in names if wanted.get(name) != found.get(name)]


def _partial(folder: Path) -> list[Path]:
    hidden = (path for path in folder.rglob(".*") if path.is_file() and path.suffix != ".lock")
    return [path for path in hidden if ".snakemake" not in path.parts]


def _digest(path: Path) -> str:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            tensors = [(name, file.get_tensor(name)) for name in sorted(file.keys())]
        parts = [f"{n}{t.dtype}{list(t.shape)}".encode() + _bits(t) for n, t in tensors]
        return hashlib.sha256(b"".join(parts)).hexdigest()
    if path.suffix in (".json", ".jsonl"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        return hashlib.sha256("\n".join(map(_steady, lines)).encode()).hexdigest()
    # an executed page tells its times: that it is there, and no other, must do
    return "" if path.suffix == ".ipynb" else hashlib.sha256(path.read_bytes()).hexdigest()


def _bits(tensor: Any) -> bytes:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _steady(line: str) -> str:
    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if name not in VOLATILE}

    return json.dumps(json.loads(line, object_pairs_hook=kept), sort_keys=True)


if __name__ == "__main__":
    import sys
    import tempfile

    with server(), tempfile.TemporaryDirectory() as place:
        os.environ["MEDISWIFT_CACHE"] = f"{place}/cache"
        print(json.dumps(kill(sys.argv[1], int(sys.argv[2]), Path(place) / "work"), indent=1))
