"""A notebook's kernel that is asked to stop when the process that executes the notebook is.

Decisions: a cluster sends SIGTERM before it takes a node away. The process that executes a notebook
would die of it, and the kernel after it; here it stays, and interrupts the kernel until it is done,
so that a training loop in there leaves its checkpoint (`jobs.stop_politely`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jupyter_client import AsyncKernelManager

from mediswift.jobs import stop_politely

PAUSE = 1.0
"""Seconds between interrupts: one that comes between two cells is lost."""


class Kernel(AsyncKernelManager):
    """A kernel manager that can be found again: `running` holds all of this process."""

    running: list[Kernel] = []

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.running.append(self)

    def interrupt(self) -> None:
        """Send the interrupt of Ctrl-C, if there is somebody to hear it."""
        pid = getattr(self.provisioner, "pid", None)
        if pid is not None:
            os.kill(pid, signal.SIGINT)


@contextmanager
def handing_on() -> Iterator[threading.Event]:
    """Flag that SIGTERM sets; from then on kernels are interrupted until the block ends.

    Only the main thread hears signals; elsewhere nothing changes.
    """
    done = threading.Event()
    with stop_politely(signal.SIGTERM) as stopped:
        threading.Thread(target=_interrupt, args=(stopped, done), daemon=True).start()
        try:
            yield stopped
        finally:
            done.set()
            Kernel.running.clear()


def _interrupt(stopped: threading.Event, done: threading.Event) -> None:
    while not done.wait(PAUSE):
        for kernel in list(Kernel.running) if stopped.is_set() else ():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                kernel.interrupt()
