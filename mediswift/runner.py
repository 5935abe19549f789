"""Executing notebooks strictly: one, or a study's grid of them.

Decisions: a parameter that a notebook does not declare is an error that names the nearest one
(papermill only warns, runs the default and exits 0). A notebook that failed leaves its output
under another name, so that "there" means "done". A study is data; Snakemake decides what has to
run again, goes on after a failure and can hand the same jobs to a cluster.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError

from mediswift import demo, records
from mediswift.kernel import Kernel, handing_on
from mediswift.study import ROOT, read_study
from mediswift.supervise import supervise
from mediswift.typed import READERS, typed

QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # two threads that wait by spinning starve each other on a busy machine
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}
"""Executed pages are static: a progress bar would be a dead widget there. The loop prints plain
lines."""
LONGEST = 255
"""Bytes of a file's name, at most, on most file systems."""


@dataclass(frozen=True)
class Job:
    """One notebook of a study with its parameters."""

    name: str
    notebook: Path
    parameters: dict[str, Any]
    output: Path
    after: tuple[Path, ...]
    """Outputs of the study's earlier notebooks at the same point: they made the runs it reads."""


def run(notebook: Path, parameters: dict[str, Any], output: Path) -> float:
    """Seconds that executing `notebook` took; its executed copy is at `output`.

    Parameters may be strings; they become the declared types. Raises FileNotFoundError, ValueError
    for a parameter that is not declared or of another type, RuntimeError when a cell fails; the
    failed copy lies beside `output`.
    """
    values, asked = strict(notebook, parameters), time.time()
    with records.alone(output):  # a killed study leaves its last notebook running
        if _was_done(notebook, values, output, asked):
            return seconds_of(output)
        return _execute(notebook, values, output)


def run_apart(notebook: Path, parameters: dict[str, Any], output: Path) -> None:
    """Do what `run` does in a process of its own, whose main thread hears a cluster's SIGTERM.

    Raises RuntimeError when it failed; it has said why.
    """
    words = [sys.executable, "-m", "mediswift", "run", str(notebook), "--output", str(output)]
    for name, value in parameters.items():
        words += ["-p", name, str(value)]
    if code := subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode:
        raise RuntimeError(f"{notebook.name} ended with exit code {code}; it says why above")


def _was_done(notebook: Path, values: dict[str, Any], output: Path, asked: float) -> bool:
    # Whether another process has executed the same since we asked for it, while we waited
    if not output.exists() or output.stat().st_mtime < asked:
        return False
    about = nbformat.read(output, as_version=4).metadata.papermill
    return (about.input_path, about.parameters) == (str(notebook), values)


def _execute(notebook: Path, values: dict[str, Any], output: Path) -> float:
    copy = failed(output)
    copy.unlink(missing_ok=True)
    began = time.perf_counter()
    os.environ.update(QUIET)
    with handing_on() as stopped:
        try:
            papermill.execute_notebook(
                str(notebook), str(copy), values, cwd=str(notebook.parent), progress_bar=False,
                extra_arguments=["--log-level=ERROR"],
                kernel_name="python3", kernel_manager_class=Kernel,
            )  # fmt: skip
        except (papermill.PapermillExecutionError, DeadKernelError) as error:
            if stopped.is_set():
                why = getattr(error, "evalue", error)
                raise KeyboardInterrupt(f"{notebook.name} was asked to stop: {why}") from None
            raise RuntimeError(_told(notebook, error, copy)) from None
    os.replace(copy, output)
    return time.perf_counter() - began


def _told(notebook: Path, error: Exception, failed: Path) -> str:
    if isinstance(error, DeadKernelError):
        return f"{notebook.name}: its kernel died, as it does when memory runs out ({error})"
    return (
        f"{notebook.name}, cell {error.cell_index}: {error.ename}: {error.evalue}\n"
        f"the notebook up to there is {failed}"
    )


def strict(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters in their declared types; see `run` for what is refused.

    >>> strict(ROOT / "notebooks" / "03_pretrain.ipynb", {"seed": "1"})
    {'seed': 1}
    """
    types = declared(notebook)
    for name in parameters:
        if name not in types:
            near = get_close_matches(name, types, n=1, cutoff=0)
            raise ValueError(
                f"{notebook.name} declares {', '.join(types)}; got {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
    return {name: _typed(name, value, types[name]) for name, value in parameters.items()}


def declared(notebook: Path) -> dict[str, str]:
    """Names and type names of a notebook's parameters, in their order."""
    if not notebook.is_file():
        there = sorted(path.name for path in notebook.parent.glob("*.ipynb"))
        raise FileNotFoundError(f"no notebook {notebook}; there are {there or 'none'}")
    found = papermill.inspect_notebook(str(notebook))
    return {name: entry["inferred_type_name"] for name, entry in found.items()}


def jobs(study: Path, root: Path = ROOT) -> list[Job]:
    """Jobs of a study, in order: every notebook with every combination of the grid that it
    declares.

    Notebooks are `root/notebooks`, outputs `root/runs/notebooks/<study>`. `$NAME` in a parameter
    is replaced from the environment. Raises ValueError for an unknown key, a parameter that no
    notebook of the study declares, a variable that is not set, a value that comes twice, or one
    too long for the name of a file.
    """
    content = read_study(study)
    given, grid = content["parameters"], content["grid"]
    notebooks = [root / "notebooks" / f"{name}.ipynb" for name in content["notebooks"]]
    types = {notebook: declared(notebook) for notebook in notebooks}
    known = {name for names in types.values() for name in names}
    if unknown := sorted((given.keys() | grid.keys()) - known):
        raise ValueError(f"{study.name}: no notebook declares {unknown}; declared: {sorted(known)}")
    folder = root / "runs" / "notebooks" / study.stem
    found: list[tuple[dict[str, Any], Job]] = []
    for notebook in notebooks:
        before = [pair for pair in found if pair[1].notebook != notebook]
        own = {k: v for k, v in grid.items() if k in types[notebook]}
        _refuse_twins(study, own, types[notebook])
        for point in _points(own):
            chosen = {k: v for k, v in given.items() if k in types[notebook]} | point
            after = tuple(job.output for other, job in before if _agree(other, point))
            values = strict(notebook, chosen)
            name = _name(study, notebook, {k: values[k] for k in point})
            found.append((point, Job(name, notebook, values, folder / f"{name}.ipynb", after)))
    names = [job.name for _, job in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{study.name}: two jobs would share the name {twice[0]}; change a value")
    return [job for _, job in found]


def gpus(study: Path) -> int:
    """GPUs that each notebook of a study takes, for whoever hands out machines; 0 = none.

    >>> gpus(ROOT / "studies" / "demo.yaml")
    0
    """
    return read_study(study)["gpus"]


def run_study(
    study: Path, cores: int = 1, root: Path = ROOT, profile: Path | None = None
) -> list[Job]:
    """Jobs of a study that failed or were not reached, after running what is not done yet.

    They run here, `cores` at a time, or where a Snakemake `profile` (a folder) sends them.
    Progress is Snakemake's; the executed notebooks lie where `jobs` says. Raises RuntimeError when
    Snakemake itself fails, FileNotFoundError for no such profile, ValueError for no core,
    KeyboardInterrupt when asked to stop, after all that is at work has saved its state.
    """
    if cores < 1:
        raise ValueError(f"a study takes one core or more, got --cores {cores}")
    todo = jobs(study, root)  # a broken study is an error before anything starts
    where = _profile_words(profile) if profile else ["--cores", str(cores), "--quiet", "all"]
    if any("demo:" in job.parameters.values() for job in todo):
        for name in demo.load_pins():
            demo.fetch(name)  # here, where a progress bar can be seen
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    options = ["--directory", str(root), *where, "--keep-going"]
    options += ["--nolock", "--rerun-incomplete"]  # its own lock would outlive a killed run
    config = ["--config", f"study={study.resolve()}", f"root={root}"]
    with records.alone(root / "runs" / "study"):
        before = [_changed(failed(job.output)) for job in todo]
        code = supervise([*command, *options, *config])
        after = [_changed(failed(job.output)) for job in todo]
    if code and before == after:  # no notebook failed, or an earlier call's did
        hint = '; an executor that it does not know: pip install "mediswift[cluster]"'
        why = f"Snakemake stopped with code {code}; it says why above"
        raise RuntimeError(why + hint if profile else why)
    return [job for job in todo if _is_open(job)] if code else []


def failed(output: Path) -> Path:
    """Where the executed copy of a notebook lies that failed instead of making `output`."""
    return output.with_suffix(".failed.ipynb")


def seconds_of(output: Path) -> float:
    """Seconds that an executed notebook took, as papermill wrote them into it."""
    return nbformat.read(output, as_version=4).metadata.papermill.duration


def label(notebook: Path, point: dict[str, Any]) -> str:
    """Name of an executed notebook that tells its parameters.

    >>> label(Path("03_pretrain.ipynb"), {"sparsity": 0.5, "seed": 1})
    '03_pretrain-sparsity0.5-seed1'
    """
    text = "-".join([notebook.stem, *(f"{name}{value}" for name, value in point.items())])
    return re.sub(r"[^\w.-]", "_", text)


def _profile_words(profile: Path) -> list[str]:
    if not (profile / "config.yaml").is_file():
        there = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))
        raise FileNotFoundError(f"no {profile}/config.yaml; profiles/ has {', '.join(there)}")
    # what a queue refuses is said by Snakemake alone
    return ["--profile", str(profile.resolve()), "--quiet", "rules", "reason", "host"]


def _typed(name: str, value: Any, kind: str) -> Any:
    if kind not in READERS:
        raise ValueError(
            f"a parameter declares one of the types {', '.join(READERS)}; {name} does not: "
            "write it as `seed: int = 0` in the notebook"
        )
    return typed(f"parameter {name}", value, kind)


def _refuse_twins(study: Path, grid: dict[str, list[Any]], types: dict[str, str]) -> None:
    # 1, 1.0 and "1" are one seed, and would be one run twice
    for name, values in grid.items():
        read = Counter(_typed(name, value, types[name]) for value in values)
        if twice := [value for value, times in read.items() if times > 1]:
            raise ValueError(
                f"a grid has each value of a parameter once; {study.name} has {name} "
                f"{twice[0]!r:.200} {read[twice[0]]} times: leave it once"
            )


def _name(study: Path, notebook: Path, point: dict[str, Any]) -> str:
    name = label(notebook, point)
    if len(os.fsencode(f"{name}.failed.ipynb")) > LONGEST:
        parts = {"the notebook's name": notebook.stem} | point
        longest = max(parts, key=lambda part: len(os.fsencode(str(parts[part]))))
        raise ValueError(
            f"values of a grid name a file of at most {LONGEST} bytes; {study.name} has one of "
            f"{len(str(parts[longest]))} characters for {longest}: shorten it, or give it under "
            "parameters, which name no file"
        )
    return name


def _points(grid: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    yield from (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _is_open(job: Job) -> bool:
    return not job.output.exists() or failed(job.output).exists()
