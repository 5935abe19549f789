"""Checkpoints that a run continues from: parameters, Adam's moments and the step, without pickle.

Decisions: a checkpoint is the files of one step, one from each process that holds a part of the
model; their names tell how many belong to it, so it is there when all of them are, and no index is
needed. Any number of processes goes on from it. The two newest are kept: the one before is used
when the newest turns out to be damaged. Masks are not in it unless they move: they are a function
of the run's parameters, and their digest is compared instead.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mediswift import dynamic
from mediswift.parts import Whole, opened, proved, write
from mediswift.sharding import like, own, place_of

NAME = re.compile(r"checkpoint-(\d+)-(\d+)of(\d+)\.safetensors")
DAMAGED = ".damaged"
"""What the name of a file that is set aside ends in."""
KEPT = 2
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Tokens trained on."""
    seconds: float = 0.0
    """Time spent in training steps, over all sessions of the run."""
    fingerprint: str = ""
    """What the run is made of; a checkpoint of another run is refused."""


def paths(folder: Path, step: int, parts: int) -> list[Path]:
    """Files of one checkpoint, in the order of the processes.

    >>> [path.name for path in paths(Path(), 500, 1)]
    ['checkpoint-0000500-1of1.safetensors']
    """
    names = (f"checkpoint-{step:07d}-{part + 1}of{parts}.safetensors" for part in range(parts))
    return [folder / name for name in names]


def newest(folder: Path) -> list[list[Path]]:
    """Files of each checkpoint in `folder`, the newest first; one that lacks a file is none."""
    named = (NAME.fullmatch(path.name) for path in folder.iterdir())
    found = {(int(name[1]), int(name[3])) for name in named if name}
    each = (paths(folder, step, parts) for step, parts in sorted(found, reverse=True))
    return [files for files in each if all(path.is_file() for path in files)]


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write this process's part of the run's state into `folder`, beside what is there.

    Processes among which a model is sharded all call this, of others one; `tidy` follows. Raises
    OSError when there is no room; then the checkpoints that are there stay as they are.
    """
    part, parts = place_of(model)
    path = paths(folder, progress.step, parts)[part]
    write(path, _tensors(model, optimizer), json.dumps(asdict(progress)))


def tidy(folder: Path) -> None:
    """Delete all but the two newest checkpoints; to be called once, after all have saved."""
    kept = {path for files in newest(folder)[:KEPT] for path in files}
    for path in folder.iterdir():
        # what a kill left half-written has the same name, hidden
        if NAME.fullmatch(path.name.removeprefix(".")) and path not in kept:
            path.unlink()


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> Progress:
    """Progress of the checkpoint in `folder`, after putting its state into `model` and `optimizer`.

    A damaged one is set aside with a line that says so, and the one before is used. Without a
    whole one nothing changes and the progress is zero. One process of a job calls this before the
    others. Raises ValueError when none is whole, or it belongs to another run or another model.
    """
    files, progress = _sound(folder)
    _tell_unused(folder, progress.step)
    if not files:
        return Progress(fingerprint=fingerprint)
    if progress.fingerprint != fingerprint:
        raise ValueError(
            f"{files[0]} belongs to a run of {progress.fingerprint}, this one is {fingerprint}: "
            "choose another folder, or delete that one"
        )
    with opened(files) as tensors:
        _check_shapes(files[0], tensors, model)
        dynamic.put_back(tensors, model)
        _fill(tensors, model)
        carry(tensors, model, optimizer)
    return progress


def restore(folder: Path, model: nn.Module) -> None:
    """Put the parameters of the newest checkpoint in `folder` into `model`."""
    files, _ = _sound(folder)
    with opened(files) as tensors:
        _fill(tensors, model)


def read(folder: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Progress and tensors of the newest checkpoint in `folder`, whole: `parameter/<name>`, and
    `step`, `exp_avg` and `exp_avg_sq` of each."""
    files, progress = _sound(folder)
    with opened(files) as tensors:
        return progress, {name: tensors[name] for name in tensors.names}


def carry(
    tensors: Whole | Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Give `optimizer` the moments in `tensors`, named as `read` names them, of each parameter."""
    for name, parameter in model.named_parameters():
        if f"step/{name}" in tensors:
            state = {key: like(tensors[f"{key}/{name}"], parameter.data) for key in MOMENTS}
            count = tensors[f"step/{name}"].to(parameter.device)
            optimizer.state[parameter] = {"step": count} | state


def _sound(folder: Path) -> tuple[list[Path], Progress]:
    # The newest whose every file proves itself
    damaged: dict[Path, str] = {}
    for files in newest(folder):
        harm, progress = _examined(files)
        if not harm:
            for path, why in damaged.items():
                _set_aside(path, why, f"going on from step {progress.step}")
            return files, progress
        damaged |= harm
    if damaged:
        told = "; ".join(f"{path} is damaged ({why})" for path, why in damaged.items())
        raise ValueError(f"{told}; delete {'it' if len(damaged) == 1 else 'them'} to start again")
    return [], Progress()


def _examined(files: list[Path]) -> tuple[dict[Path, str], Progress]:
    # Why a file cannot be used, if any, and what the first one says
    harm, said = {}, []
    for path in files:
        try:
            said.append(Progress(**json.loads(proved(path))))
        except ValueError as error:
            harm[path] = str(error)
    if len({(each.step, each.fingerprint) for each in said}) > 1:
        harm[files[0]] = "it belongs to another run than the other parts"
    return harm, said[0] if said else Progress()


def _set_aside(path: Path, why: str, instead: str) -> None:
    # Out of the way, or it would be taken for one of the two to keep
    aside = path.with_name(path.name + DAMAGED)
    print(f"{path} is damaged ({why}); set aside as {aside.name}, {instead}", file=sys.stderr)
    os.replace(path, aside)


def _tell_unused(folder: Path, step: int) -> None:
    # Parts whose others never came, or what an earlier version wrote
    whole = {path for files in newest(folder) for path in files}
    # of a step whose damaged part was set aside, that has been said
    told = {_step(path) for path in folder.glob(f"checkpoint-*{DAMAGED}")}
    lone = (p for p in folder.glob("checkpoint*.safetensors") if p not in whole)
    if unused := sorted(p.name for p in lone if _step(p) not in told):
        print(
            f"{', '.join(unused)} in {folder}: no whole checkpoint of this version, not used; "
            f"going on from step {step}",
            file=sys.stderr,
        )


def _step(path: Path) -> int:
    named = NAME.match(path.name)
    return int(named[1]) if named else -1


def _check_shapes(path: Path, tensors: Whole, model: nn.Module) -> None:
    start = "parameter/"
    names = (name for name in tensors.names if name.startswith(start))
    has = {name.removeprefix(start): tensors.shape(name) for name in names}
    if has != (wanted := {name: p.shape for name, p in model.named_parameters()}):
        other = sorted(n for n in has | wanted if has.get(n) != wanted.get(n))
        raise ValueError(
            f"{path} belongs to another model: {len(other)} parameters differ, the first is "
            f"{other[0]}; choose another folder, or delete that one"
        )


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    named = dict(_state(model, optimizer)) | dynamic.to_keep(model)
    return {name: own(tensor.detach()).contiguous().cpu() for name, tensor in named.items()}


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        yield f"parameter/{name}", parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{key}/{name}", value


def _fill(tensors: Whole, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(like(tensors[f"parameter/{name}"], parameter.data))
