"""A command that is asked to stop, with all its processes, when this one is.

Decisions: SIGTERM to whoever started a study reaches that process alone, and Snakemake's would go
on as orphans. So the command is a process group of its own, which hears SIGTERM once, for SIGTERM
and for Ctrl-C, and is waited for: a training loop in it may yet be writing its checkpoint. Kernels
of notebooks are in no group of ours; who executes them hands the signal on (`kernel`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from mediswift.jobs import STOPPED, stop_politely

PAUSE = 0.1


def supervise(words: Sequence[str]) -> int:
    """Exit code of the command that `words` are.

    Raises KeyboardInterrupt when this process was asked to stop, after all the command's have.

    >>> supervise([sys.executable, "-c", "raise SystemExit(3)"])
    3
    """
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with stop_politely(*heard) as stopped:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0)
        while child.poll() is None and not stopped.is_set():
            time.sleep(PAUSE)
        if stopped.is_set():
            _stop(child)
            raise KeyboardInterrupt(STOPPED)
    return child.returncode


def _stop(child: subprocess.Popen) -> None:
    print("asked to stop: waiting for what is at work to save its state", file=sys.stderr)
    members = _members(child.pid)
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.killpg(child.pid, signal.SIGTERM)
    while child.poll() is None or any(map(_is_at_work, members)):
        time.sleep(PAUSE)


def _members(group: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(group).children(recursive=True)
    return []


def _is_at_work(process: psutil.Process) -> bool:
    # one whose parent is gone may stay a zombie for as long as nobody asks for it
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
