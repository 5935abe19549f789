"""The machine: who makes a run when several want it, and what is known of where it was made."""

import subprocess
import sys

import pytest

from mediswift import machine, records
from mediswift.records import Record

RECORD = Record(id="x", kind="corpus", params={}, metrics={"n": 1}, data_fingerprint="f", env={})
RACER = """
import sys, time
from pathlib import Path
from mediswift import machine, records
from mediswift.records import Record

folder = Path(sys.argv[1])

def make():
    print("made", flush=True)
    time.sleep(0.3)  # longer than the other one needs to look
    made = Record(id="x", kind="corpus", params={}, metrics={}, data_fingerprint="", env={})
    records.write(made, folder)

print("ready", flush=True)
sys.stdin.readline()
print(machine.once(folder, make).id)
"""


KEEPER = """
import ctypes, resource
from mediswift import machine

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        buffer = libc.malloc(64 << 20)  # larger than what glibc would keep by itself
        ctypes.memset(buffer, 1, 64 << 20)
        libc.free(buffer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if not hasattr(libc, "mallopt"):
    print("no glibc")
else:
    freely = faults()
    machine.keep_memory()
    faults()  # the heap grows once
    print(freely, faults())
"""


def test_what_is_there_is_read_without_the_right_to_write(tmp_path, monkeypatch):
    def forbidden(folder):
        raise PermissionError(folder)

    records.write(RECORD, tmp_path / "x")
    monkeypatch.setattr(records, "alone", forbidden)
    assert machine.once(tmp_path / "x", lambda: None) == RECORD
    with pytest.raises(PermissionError):
        machine.once(tmp_path / "y", lambda: None)


def test_a_second_call_makes_nothing(tmp_path):
    folder, calls = tmp_path / "x", []

    def make():
        calls.append(folder)
        records.write(RECORD, folder)

    assert machine.once(folder, make) == RECORD
    assert machine.once(folder, make) == RECORD
    assert calls == [folder]


def test_a_run_that_failed_is_made_again(tmp_path):
    with pytest.raises(ZeroDivisionError):
        machine.once(tmp_path / "x", lambda: 1 / 0)
    made = machine.once(tmp_path / "x", lambda: records.write(RECORD, tmp_path / "x"))
    assert made == RECORD


def test_of_two_jobs_at_once_one_makes_and_the_other_finds(tmp_path):
    command, pipe = [sys.executable, "-c", RACER, tmp_path / "x"], subprocess.PIPE
    racers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in "ab"]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n", "ready\n"]
    for racer in racers:  # both stand at the line before either may start
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = sorted(racer.communicate(timeout=60)[0] for racer in racers)
    assert said == ["made\nx\n", "x\n"]


def test_the_environment_tells_what_numbers_and_times_depend_on():
    found = machine.environment()
    assert found.keys() == records.environment().keys() | {"device", "processes", "threads"}
    assert (found["device"], found["processes"], found["threads"]) == ("cpu", 1, 1)


def test_memory_says_whose_it_is():
    machine.reset_peak_memory()
    (name, size), *others = machine.peak_memory().items()
    assert (name, others) == ("process_peak_memory_bytes", [])
    assert 50 * 2**20 < size < 2**40  # torch alone is more than 50 MiB; kilobytes would be less


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_freed_memory_stays_with_the_process():
    done = subprocess.run([sys.executable, "-c", KEEPER], capture_output=True, text=True)
    if done.stdout == "no glibc\n":
        pytest.skip("no glibc")
    freely, kept = map(int, done.stdout.split())
    assert kept < freely / 10, done.stderr


def test_a_gpu_is_asked_for_its_own_memory(monkeypatch):
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine.torch.cuda, "max_memory_allocated", lambda: 7)
    assert machine.peak_memory() == {"gpu_peak_memory_bytes": 7}
