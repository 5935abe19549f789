"""Pre-training in several processes, from one that cannot be among them: a notebook.

Decisions: `torchrun` starts the processes, and what they made is found afterwards as any finished
run is, so that one process and several give the same record in the same place. Their lines are
printed as they come; what they complain of is one error.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mediswift import pretrain as recipe
from mediswift.jobs import STOPPED, stop_politely
from mediswift.pretrain import PretrainConfig
from mediswift.records import Record

PATIENCE = 3600
"""Seconds that processes have for a step and a checkpoint when they are asked to stop; torchrun's
own thirty are too few for a large model."""
SIGN = "mediswift.pretrain: "
"""How a line begins that says why a process ended."""


def pretrain(config: PretrainConfig, runs: str | Path = "runs", nproc: int = 1) -> Record:
    """Record of the run of `config`, trained in `nproc` processes unless it is there already.

    With 1 it is trained in this process. An interrupt reaches the others: they leave a checkpoint.
    Raises ValueError for fewer than 1 or more than there are GPUs, RuntimeError with the reason
    when a process failed.
    """
    check(nproc)
    if nproc > 1:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(json.dumps(asdict(config)), encoding="utf-8")
            _run(command(path, runs, nproc), Path(folder) / "errors.txt")
    return recipe.pretrain(config, runs)


def command(config: str | Path, runs: str | Path, nproc: int) -> list[str]:
    """Words that train the configuration in a JSON file in `nproc` processes of this machine.

    >>> command("c.json", "runs", 2)[1:6]
    ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    """
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    what = ["-m", "mediswift.pretrain", str(config), str(runs)]
    patience = ["--shutdown-timeout", str(PATIENCE)]
    return [*start, "--nproc-per-node", str(nproc), *patience, *what]


def check(nproc: int) -> None:
    """Refuse a number of processes that this machine does not have."""
    there = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if nproc < 1 or (there and nproc > there):
        raise ValueError(
            f"nproc is 1 or more and, with GPUs, one for each at most; got {nproc}, and this "
            f"machine has {there}: lower it, or start the run by torchrun on several machines"
        )


def _run(words: list[str], errors: Path) -> None:
    with (
        open(errors, "w", encoding="utf-8") as file,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=file, text=True, encoding="utf-8"
        ) as child,
    ):
        try:
            _tell(child)
        except KeyboardInterrupt as stop:
            with stop_politely(signal.SIGINT):  # a second one would leave them behind
                child.terminate()  # torchrun tells its processes, and waits for their checkpoint
                last = _tell(child)
                child.wait()
            raise KeyboardInterrupt(last or STOPPED) from stop
    if child.returncode:
        raise RuntimeError(f"{_why(errors)} (exit code {child.returncode} of torchrun)")


def _tell(child: subprocess.Popen) -> str:
    # What was printed last
    line = ""
    for line in child.stdout:
        print(line, end="", flush=True)
    return line.strip()


def _why(errors: Path) -> str:
    lines = errors.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.removeprefix(SIGN) for line in lines if line.startswith(SIGN)]
    return told[0] if told else "a process ended without a reason:\n" + "\n".join(lines[-20:])
