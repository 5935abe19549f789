"""A job in a run folder: the only one there, and one that ends when it is asked to.

Decisions: the lock is the operating system's, so a killed job leaves none behind. Ctrl-C and
SIGTERM, which a cluster sends before it takes a node away, set a flag; who works looks at it where
stopping loses nothing. What it ends with is an exit code and a line, never a traceback.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

STOPPED = "stopped; call again to go on"
"""What is said when work was asked to stop, and has kept what it had done."""


def answer(name: str, work: Callable[[], int]) -> int:
    """Exit code of a command called `name`: that of `work`, 1 after an error that says what is
    wrong, 130 when it was asked to stop; the reason is one line on stderr.

    >>> answer("mediswift", lambda: 0)
    0
    """
    try:
        return work()
    except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{name}: {stop or 'interrupted; call again to go on'}", file=sys.stderr)
        return 130


@contextmanager
def sole_job(folder: Path, speaks: bool = True) -> Iterator[None]:
    """Hold `folder` for one job; of its processes the one that `speaks` does.

    Two jobs would each write over what the other one wrote. Raises RuntimeError when another one
    has it.
    """
    if not speaks:
        yield
        return
    try:
        with FileLock(folder / ".lock", blocking=False):
            yield
    except Timeout:
        raise RuntimeError(
            f"one job at a time trains in a folder, and another one trains in {folder}: wait for "
            "it, or choose another folder"
        ) from None


@contextmanager
def stop_politely(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Flag that `signals` set, by default Ctrl-C and SIGTERM; only the main thread hears them."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = signals or (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in heard}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
