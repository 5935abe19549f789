"""Checkpoints that a run continues from: parameters, Adam's moments and the step, without pickle.

Decisions: one safetensors file holds everything, and its header holds the step and a checksum of
all of it, so that a checkpoint is one file that is moved into place whole and that proves itself.
The newest is kept and the one before, which is used when the newest turns out to be damaged.
Masks are not in it: they are a function of the run's parameters, and their digest is compared
instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mediswift.sharding import like, whole

FILE = "checkpoint.safetensors"
BEFORE = "checkpoint.before.safetensors"
"""The one before the newest."""
DAMAGED = "checkpoint.damaged.safetensors"
"""Where a damaged newest one is set aside."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


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


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    writes: bool = True,
) -> None:
    """Write the run's state into `folder`: all of it or, after a crash, the state before.

    The checkpoint that was the newest is kept as the one before. Processes among which a model is
    sharded all call this, and one of them `writes`. Raises OSError when there is no room; then
    those that are there stay as they are.
    """
    tensors, said = _tensors(model, optimizer, writes), json.dumps(asdict(progress))
    if not writes:
        return
    partial = folder / f".{FILE}"  # one process writes: what a kill left is written over
    _write(tensors, partial, {"progress": said, "sha256": _checksum(tensors, said)})
    if (folder / FILE).exists():
        os.replace(folder / FILE, folder / BEFORE)
    os.replace(partial, folder / FILE)
    _to_disk(folder)


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> Progress:
    """Progress of the checkpoint in `folder`, after putting its state into `model` and `optimizer`.

    A damaged one is set aside with a line that says so, and the one before is used. Without a
    checkpoint nothing changes and the progress is zero.
    Raises ValueError when none is whole, or when it belongs to another run or another model.
    """
    path, progress, tensors = _newest(folder)
    if path is None:
        return Progress(fingerprint=fingerprint)
    if progress.fingerprint != fingerprint:
        raise ValueError(
            f"{path} belongs to a run of {progress.fingerprint}, this one is {fingerprint}: "
            "choose another folder, or delete that one"
        )
    _check_shapes(path, tensors, model)
    _restore(tensors, model, optimizer)
    return progress


def restore(folder: Path, model: nn.Module) -> None:
    """Put the parameters of the checkpoint in `folder` into `model`, which is whole."""
    _, _, tensors = _newest(folder)
    _fill(tensors, model)


def _write(tensors: dict[str, Tensor], partial: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, partial, metadata=metadata)
        _to_disk(partial)
    except (SafetensorError, OSError) as error:
        with suppress(OSError):  # what is half written takes the room that is missing
            partial.unlink()
        raise OSError(
            f"the checkpoint could not be written into {partial.parent} ({error}); the last one is "
            "untouched: make room, and call again to go on from it"
        ) from error


def _newest(folder: Path) -> tuple[Path | None, Progress, dict[str, Tensor]]:
    # A kill between the two moves of `save` leaves only the one before
    there = [folder / name for name in (FILE, BEFORE) if (folder / name).exists()]
    damaged: dict[Path, str] = {}
    for path in there:
        try:
            found = _read(path)
        except ValueError as error:
            damaged[path] = str(error)
            continue
        for newer, why in damaged.items():
            _set_aside(newer, why, f"going on from {path.name}, step {found[0].step}")
        return path, *found
    if damaged:
        told = "; ".join(f"{path} is damaged ({why})" for path, why in damaged.items())
        raise ValueError(f"{told}; delete {'it' if len(damaged) == 1 else 'both'} to start again")
    return None, Progress(), {}


def _read(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if {"progress", "sha256"} - said.keys():
        raise ValueError("it has no checksum, as those of earlier versions")
    if _checksum(tensors, said["progress"]) != said["sha256"]:
        raise ValueError("its content is not what its sha256 says")
    return Progress(**json.loads(said["progress"])), tensors


def _set_aside(path: Path, why: str, instead: str) -> None:
    # Out of the way, or the next `save` would keep it as the one before and drop the good one
    print(f"{path} is damaged ({why}); set aside as {DAMAGED}, {instead}", file=sys.stderr)
    with suppress(FileNotFoundError):  # another process of this job was faster
        os.replace(path, path.with_name(DAMAGED))


def _checksum(tensors: dict[str, Tensor], said: str) -> str:
    digest = hashlib.sha256(said.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    # A folder too: a name that was moved is safe only then
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _check_shapes(path: Path, tensors: dict[str, Tensor], model: nn.Module) -> None:
    start = "parameter/"
    has = {n.removeprefix(start): t.shape for n, t in tensors.items() if n.startswith(start)}
    if has != (wanted := {name: p.shape for name, p in model.named_parameters()}):
        other = sorted(n for n in has | wanted if has.get(n) != wanted.get(n))
        raise ValueError(
            f"{path} belongs to another model: {len(other)} parameters differ, the first is "
            f"{other[0]}; choose another folder, or delete that one"
        )


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer, keeps: bool) -> dict[str, Tensor]:
    tensors = {f"parameter/{name}": p.detach() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach()
    gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
    return {name: tensor.contiguous().cpu() for name, tensor in gathered if keeps}


def _fill(tensors: dict[str, Tensor], model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(like(tensors[f"parameter/{name}"], parameter.data))


def _restore(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    _fill(tensors, model)
    for name, parameter in model.named_parameters():
        if f"step/{name}" in tensors:
            state = {key: like(tensors[f"{key}/{name}"], parameter.data) for key in MOMENTS[1:]}
            count = tensors[f"step/{name}"].to(parameter.device)
            optimizer.state[parameter] = {"step": count} | state
