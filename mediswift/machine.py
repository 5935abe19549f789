"""The machine that a run is on: its device, its processes, its memory, and who may write where.

Decisions: a finished run is found, an unfinished one is continued, and only one job at a time may
do either; the lock is the operating system's, so a killed job leaves none behind. Of several
processes of one job the first one writes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from mediswift import records
from mediswift.records import Record

PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one to make the corpus."""


def fastest_device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def join_processes() -> PartialState:
    """Return Accelerate's hold on the processes of this job; without a GPU, gloo joins them."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


def once(folder: Path, make: Callable[[], None]) -> Record:
    """Record of the run in `folder`: the one that is there, or the one that `make` writes now.

    Every process of the job calls this, and `make` runs in each; another job waits meanwhile. What
    is there is read without the right to write.
    """
    process = join_processes()
    if process.num_processes == 1 and (folder / "record.json").exists():
        return records.load(folder / "record.json")
    if process.is_main_process:
        with records.alone(folder):
            return _made(process, folder, make)
    return _made(process, folder, make)


def environment() -> dict[str, Any]:
    """Where this process runs: what `records.environment` knows, device, processes, threads."""
    device = fastest_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    return records.environment() | {
        "device": name,
        "processes": join_processes().num_processes,
        "threads": torch.get_num_threads(),
    }


def keep_study(
    runs: str | Path, kind: str, label: str, determines: dict[str, Any], **fields: Any
) -> Record:
    """Record of a study of finished runs, written into `runs`: its id is a hash of `determines`,
    `fields` are the others of a `Record`."""
    name = records.run_id(kind, label, determines)
    record = Record(id=name, kind=kind, env=environment(), **fields)
    records.write(record, Path(runs) / name)
    return record


def keep_memory() -> None:
    """Let freed memory stay with the process: handing large buffers back and faulting their pages
    in again costs a training step on a CPU a tenth of its time. Does nothing without glibc."""
    trim, map_from = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of <malloc.h>
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option:
        set_option(map_from, 1 << 30) or set_option(map_from, 1 << 25)  # the most of some versions
        set_option(trim, (1 << 31) - 1)


def reset_peak_memory() -> None:
    """Start to measure the GPU's memory anew; a CPU cannot."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Bytes: the GPU's highest allocation since the reset, or this process's largest size ever."""
    if torch.cuda.is_available():
        return {"gpu_peak_memory_bytes": torch.cuda.max_memory_allocated()}
    return {"process_peak_memory_bytes": records.peak_bytes()}


def _made(process: PartialState, folder: Path, make: Callable[[], None]) -> Record:
    process.wait_for_everyone()  # nobody looks before the first one holds the folder
    if not (folder / "record.json").exists():
        make()
        process.wait_for_everyone()
    return records.load(folder / "record.json")
