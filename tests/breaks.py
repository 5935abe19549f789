"""The fault table: a run that was killed half-way meets one fault at a time, through its own door.

Decisions. The faults are real ones where a process can make them: a full file system, a limit of
the operating system, a user who may not write, flipped bits. Noted is what a user would see: exit
code and the last line on stderr; whether the last good checkpoint is still there, bit by bit; and,
after doing what the line says, whether the run ends in the same bits as one that nothing disturbed.
Called by `faults.py`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import kills
import torch

from mediswift import checkpoints, demo, machine, pretrain, train

HALF = 20
"""Step after whose checkpoint the fault comes; every fourth step has one."""
NOBODY = 65534
TOLERANCE = 1e-3
"""Nats by which the validation loss may differ between one and two threads."""


@dataclass(frozen=True)
class Fault:
    """One row of the table: how the fault is made, and what its message tells the user to do."""

    name: str
    how: str
    before: Callable[[Path], Any] = lambda folder: None
    """Done to the folder before the run is started again."""
    inside: Callable[[Path], Any] | None = None
    """Done inside of the process that runs."""
    mend: Callable[[Path], Any] = lambda folder: None
    """What the message says."""
    goes_on: bool = False
    """Whether the run can go on by itself, and its exit code is 0."""


def corpus(folder: Path) -> str:
    """Address of the text, which is a copy beside the folders."""
    return f"jsonl:{folder.parent / 'text.jsonl'}"


def door(folder: Path, inside: Callable[[Path], Any] | None = None) -> None:
    """`python -m mediswift.pretrain CONFIG.json RUNS`, with its exit code."""
    config = replace(kills.CONFIG, corpus=corpus(folder))
    path = folder.parent / f"{folder.name}.config.json"
    path.write_text(json.dumps(asdict(config)))
    if inside:
        inside(folder)
    code = pretrain.main([str(path), str(folder)])
    os.sys.stdout.flush()
    os.sys.stderr.flush()
    os._exit(code)


# Making faults


def at_step(step: int, do: Callable[[], None]) -> None:
    """Do something when training comes to a step; the count starts where the run goes on."""
    plain = train._step

    def watched(*given: Any) -> dict[str, Any]:
        if given[-1] == step:
            do()
        return plain(*given)

    train._step = watched


def killed(folder: Path) -> None:
    """Kill the run as it goes on from `HALF` for the second time."""
    at_step(HALF + 2, lambda: os.kill(os.getpid(), signal.SIGKILL))


def preempted(folder: Path) -> None:
    """What a scheduler sends before it takes the machine away."""
    at_step(HALF + 1, lambda: os.kill(os.getpid(), signal.SIGTERM))


def small_files(folder: Path) -> None:
    """No file may grow larger than half a checkpoint: EFBIG while it is written."""
    half = newest(folder).stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))


def nan(folder: Path) -> None:
    """The loss is not a number any more after the next checkpoint."""
    plain = train.summed_loss
    at_step(HALF + 5, lambda: setattr(train, "summed_loss", lambda *g: plain(*g) * float("nan")))


def as_nobody(folder: Path) -> None:
    """The process runs as a user who may not write here."""
    cache = Path(tempfile.mkdtemp(dir=folder.parent))  # a home of its own
    cache.chmod(0o777)
    os.environ |= {"HOME": str(cache), "MEDISWIFT_CACHE": str(cache / "cache")}
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def second_job(folder: Path) -> None:
    """A second loop in the folder, past the door that would let it wait."""
    machine.once = lambda folder, make: make()
    (run,) = folder.glob("pretrain-*")
    hold = f"import sys, filelock; lock = filelock.FileLock({str(run / '.lock')!r}); lock.acquire()"
    command = [os.sys.executable, "-c", f"{hold}; print(1, flush=True); sys.stdin.read()"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()


def newest(folder: Path, before: int = 0) -> Path:
    """The newest checkpoint of the run, or one so many before it."""
    (run,) = folder.glob("pretrain-*")
    return checkpoints.newest(run)[before][0]


def rows(folder: Path) -> Path:
    """The packed rows that it trains on."""
    (path,) = folder.glob("corpus-*/train/tokens.bin")
    return path


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    """Let a checkpoint claim to be the first of two parts."""
    path.rename(path.with_name(path.name.replace("1of1", "1of2")))


def tokenizer(folder: Path) -> Path:
    """The tokenizer that packed the rows."""
    (path,) = folder.glob("corpus-*/tokenizer/tokenizer.json")
    return path


def scribble(folder: Path) -> None:
    """Put bytes that are no text in front of the log."""
    (path,) = folder.glob("pretrain-*/metrics.jsonl")
    path.write_bytes(b"\xff\xfe5\n" + path.read_bytes())


def both(folder: Path) -> None:
    """Flip a bit of both checkpoints."""
    flip(newest(folder))
    flip(newest(folder, before=1))


def start_again(folder: Path) -> None:
    """Delete the checkpoints, as the message says."""
    for path in newest(folder).parent.glob("checkpoint*"):
        path.unlink()


def text(folder: Path) -> None:
    """Put the text where it was."""
    sample = demo.DATA / "sample" / "abstracts.jsonl"
    shutil.copyfile(sample, corpus(folder).partition(":")[2])


TABLE = [
    Fault("no fault", "started again after the kill", goes_on=True),
    Fault("file limit", "RLIMIT_FSIZE at half a checkpoint", inside=small_files),
    Fault("disk full", "a file system (tmpfs) with room for half a checkpoint"),
    Fault("truncated checkpoint", "the newest cut in half", lambda f: cut(newest(f)), goes_on=True),
    Fault("flipped checkpoint", "a bit of the newest", lambda f: flip(newest(f)), goes_on=True),
    Fault("a part is missing", "the newest is 1 of 2", lambda f: halve(newest(f)), goes_on=True),
    Fault("both checkpoints flipped", "a bit of each", both, mend=start_again),
    Fault(
        "corrupted rows", "a bit of tokens.bin", lambda f: flip(rows(f)),
        mend=lambda f: shutil.rmtree(rows(f).parent.parent),
    ),
    Fault(
        "corrupted tokenizer", "tokenizer.json cut in half", lambda f: cut(tokenizer(f)),
        mend=lambda f: shutil.rmtree(tokenizer(f).parent.parent),
    ),
    Fault("damaged log", "bytes that are no text in metrics.jsonl", scribble, goes_on=True),
    Fault(
        "vanished rows", "tokens.bin deleted", lambda f: rows(f).unlink(),
        mend=lambda f: shutil.rmtree(next(f.glob("corpus-*"))),
    ),
    Fault(
        "vanished text", "the JSONL file deleted",
        lambda f: Path(corpus(f).partition(":")[2]).unlink(), mend=text,
    ),
    Fault("two jobs", "a second loop in one run folder", inside=second_job),
    Fault("read-only folder", "run as a user who may not write there", inside=as_nobody),
    Fault("NaN loss", f"loss times NaN from step {HALF + 6}", inside=nan),
    Fault("SIGTERM", f"sent in step {HALF + 2}", inside=preempted),
]  # fmt: skip


# Trying them


def table(only: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of the fault table, each tried now in a folder of its own."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # for the user who may read and not write
        return _table(Path(place), only)


def _table(place: Path, only: list[str] | None) -> list[dict[str, Any]]:
    text(place / "any")
    whole, half = place / "whole", place / "half"
    for folder, inside in ((whole, None), (half, killed)):
        folder.mkdir()
        process = kills.start(folder, door, inside)
        process.join(kills.LONGEST)
        assert process.exitcode == (-signal.SIGKILL if inside else 0), process.exitcode
    chosen = [fault for fault in TABLE if only is None or fault.name in only]
    return [_tried(fault, half, kills.picture(whole)) for fault in chosen]


def _tried(fault: Fault, half: Path, wanted: dict[str, str]) -> dict[str, Any]:
    folder = half.parent / fault.name.replace(" ", "-")
    folder.mkdir()
    mounted = fault.name == "disk full" and _mount(folder, half)
    shutil.copytree(half, folder, dirs_exist_ok=True)
    fault.before(folder)
    good = _checkpoint(folder)
    try:
        code, line, traceback = _run(folder, fault.inside)
        kept = good and _checkpoint(folder, least=good[0]) is not None  # None: none was whole
        if mounted:
            _mount(folder, None)
        fault.mend(folder)
        again, _, _ = _run(folder, None)
        same = again == 0 and not kills.differences(wanted, kills.picture(folder))
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
    as_promised = not traceback and kept is not False and same and (code == 0) == fault.goes_on
    return {
        "fault": fault.name, "how": fault.how, "exit_code": code, "message": line,
        "traceback": traceback, "kept": kept, "same_bits_after": same, "as_promised": as_promised,
    }  # fmt: skip


def _run(folder: Path, inside: Callable[[Path], Any] | None) -> tuple[int, str, bool]:
    said = folder.parent / f"{folder.name}.errors.log"
    said.unlink(missing_ok=True)
    (folder.parent / f"{folder.name}.said.log").unlink(missing_ok=True)
    process = kills.start(folder, door, inside)
    process.join(kills.LONGEST)
    code, errors = process.exitcode, said.read_text()
    out = (folder.parent / f"{folder.name}.said.log").read_text()
    # a stopped run says so on stdout
    lines = (errors if errors.strip() else out if code else "").strip().splitlines() or [""]
    return code, _placeless(lines[-1], folder), "Traceback" in errors


def _placeless(line: str, folder: Path) -> str:
    # What is shown on a page does not tell where this machine keeps its files
    line = line.replace(str(folder), "runs").replace(str(folder.parent), "FOLDER")
    for path in folder.glob("*-tiny-*"):
        line = line.replace(path.name, "RUN")
    for path in folder.glob("corpus-*"):
        line = line.replace(path.name, "CORPUS")
    return line


def _checkpoint(folder: Path, least: int = 0) -> tuple[int, str] | None:
    # Step and content of the newest whole one, of at least so many steps
    for run in folder.glob("pretrain-*"):
        for files in checkpoints.newest(run):
            harm, progress = checkpoints._examined(files)
            if not harm:
                return (progress.step, kills._digest(files[0])) if progress.step >= least else None
    return None


def _mount(folder: Path, half: Path | None) -> bool:
    # A small file system, with room for what is there and half a checkpoint; None: make it large
    options = "remount,size=1g"
    if half:
        used = sum(-(-path.stat().st_size // 4096) * 4096 for path in half.rglob("*"))
        options = f"size={used + newest(half).stat().st_size // 2}"
    kind = ["-t", "tmpfs", "-o", options, "none", str(folder)]
    return subprocess.run(["mount", *kind], capture_output=True, check=False).returncode == 0


def threads(place: Path) -> dict[str, Any]:
    """How far runs on one and on two threads are from each other, and two runs on two threads."""
    place.mkdir(parents=True)
    text(place / "any")
    found = {}
    for name, count in (("one", 1), ("two", 2), ("again", 2)):
        (place / name).mkdir()
        process = kills.start(place / name, door, THREADS[count])
        process.join(kills.LONGEST)
        assert process.exitcode == 0
        found[name] = _weights(place / name)
    return {
        "same_threads_same_bits": _distance(found["two"], found["again"])[0] == 0.0,
        "largest_weight_difference": _distance(found["one"], found["two"])[0],
        "validation_loss_difference_nats": _distance(found["one"], found["two"])[1],
    }


def one_thread(folder: Path) -> None:
    """Compute on one thread."""
    torch.set_num_threads(1)


def two_threads(folder: Path) -> None:
    """Compute on two threads."""
    torch.set_num_threads(2)


THREADS = {1: one_thread, 2: two_threads}


def _weights(folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    from safetensors.torch import load_file

    (record,) = folder.glob("pretrain-*/record.json")
    loss = json.loads(record.read_text())["metrics"]["validation_loss_nats"]
    return load_file(record.with_name("model") / "model.safetensors"), loss


def _distance(one: tuple, other: tuple) -> tuple[float, float]:
    assert one[0].keys() == other[0].keys()
    return max(float((one[0][n] - other[0][n]).abs().max()) for n in one[0]), abs(one[1] - other[1])


if __name__ == "__main__":
    import sys

    with tempfile.TemporaryDirectory() as spot:
        os.environ["MEDISWIFT_CACHE"] = f"{spot}/cache"
        if sys.argv[1:] == ["threads"]:
            print(threads(Path(spot) / "threads"))
        else:
            print(json.dumps(table(sys.argv[1:] or None), indent=1))
