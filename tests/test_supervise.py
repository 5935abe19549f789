"""Whoever stops the one that started a command stops all of the command, and loses nothing."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mediswift import runner, supervise

PATIENCE = 60
SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(1)
    open(sys.argv[1], "a").write("saved ")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1] + ".there", "w").close()
time.sleep(600)
"""
"""A process that needs a second when it is asked to stop, below a shell that does not wait."""


def start(path):
    child = [sys.executable, "-c", SAVES, str(path)]
    words = ["sh", "-c", 'exec 3>&1; "$@" & wait', "sh", *child]
    code = f"from mediswift.supervise import supervise; supervise({words!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(runner.ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_all_are_asked_once_and_waited_for(tmp_path, sent):
    path = tmp_path / "state"
    process = start(path)
    for _ in range(10 * PATIENCE):
        if path.with_name("state.there").exists():
            break
        time.sleep(0.1)
    members = psutil.Process(process.pid).children(recursive=True)
    assert len(members) == 2
    process.send_signal(sent)
    time.sleep(0.3)
    process.send_signal(sent)  # a second one changes nothing
    _, errors = process.communicate(timeout=PATIENCE)
    assert path.read_text() == "saved "
    assert "KeyboardInterrupt: stopped; call again to go on" in errors
    assert "asked to stop: waiting for what is at work" in errors
    assert not any(map(supervise._is_at_work, members))


def test_an_exit_code_is_handed_on(capfd):
    assert supervise.supervise([sys.executable, "-c", "print('hello'); raise SystemExit(7)"]) == 7
    assert capfd.readouterr().out == "hello\n"
