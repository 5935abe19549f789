"""Checkpoints that a run continues from: parameters, Adam's moments and the step, without pickle.

Decisions: one safetensors file holds everything, and its header holds the step, so that a
checkpoint is one file that is moved into place whole. Only the newest is kept once it is complete.
Masks are not in it: they are a function of the run's parameters, and their digest is compared
instead.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mediswift.sharding import like, whole

FILE = "checkpoint.safetensors"
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

    Processes among which a model is sharded all call this, and one of them `writes`.
    """
    tensors = _tensors(model, optimizer, writes)
    if not writes:
        return
    partial = folder / f".{FILE}"  # one process writes: what a kill left is written over
    save_file(tensors, partial, metadata={"progress": json.dumps(asdict(progress))})
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, folder / FILE)


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> Progress:
    """Progress of the checkpoint in `folder`, after putting its state into `model` and `optimizer`.

    Without a checkpoint nothing changes and the progress is zero.
    Raises ValueError when the checkpoint is unreadable or belongs to another run.
    """
    path = folder / FILE
    if not path.exists():
        return Progress(fingerprint=fingerprint)
    try:
        with safe_open(path, "pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it to start the run again"
        ) from error
    if progress.fingerprint != fingerprint:
        raise ValueError(
            f"{path} belongs to a run of {progress.fingerprint}, this one is {fingerprint}: "
            "choose another folder, or delete that one"
        )
    _restore(tensors, model, optimizer)
    return progress


def restore(folder: Path, model: nn.Module) -> None:
    """Put the parameters of the checkpoint in `folder` into `model`, which is whole."""
    with safe_open(folder / FILE, "pt") as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(f"parameter/{name}"))


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer, keeps: bool) -> dict[str, Tensor]:
    tensors = {f"parameter/{name}": p.detach() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach()
    gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
    return {name: tensor.contiguous().cpu() for name, tensor in gathered if keeps}


def _restore(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(like(tensors[f"parameter/{name}"], parameter.data))
        if f"step/{name}" in tensors:
            state = {key: like(tensors[f"{key}/{name}"], parameter.data) for key in MOMENTS[1:]}
            count = tensors[f"step/{name}"].to(parameter.device)
            optimizer.state[parameter] = {"step": count} | state
