"""Sharing a model out among processes (FSDP2), and having it whole again where one is needed.

Decisions: torch's `fully_shard`, block by block, directly: Accelerate's own way works on GPUs alone
and pairs the entries of a state dict with parameters, which sparse layers do not allow. Every
tensor is cut along its first dimension, so that the parts, one after the other, are the whole.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model` itself, on `device`, each process of the job holding its part of every
    parameter; the optimizer is made afterwards.

    Parameters come together for a block's turn only, gradients and moments never. Must be called by
    all processes.
    """
    # our loss writes into no output of the model, of which torch warns
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    model.to(device)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    for block in (block for stack in stacks for block in stack):
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def rest(model: nn.Module) -> nn.Module:
    """Return `model` with no parameter together: after a forward pass with no backward, some are.

    >>> rest(nn.Linear(2, 1))
    Linear(in_features=2, out_features=1, bias=True)
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return model


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor that `tensor` is a part of: itself when it is not sharded.

    All processes that hold a part must ask.

    >>> whole(torch.ones(2))
    tensor([1., 1.])
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: Tensor) -> Tensor:
    """Return this process's part of `tensor`: all of it when it is not sharded.

    >>> own(torch.ones(2))
    tensor([1., 1.])
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def place_of(model: nn.Module) -> tuple[int, int]:
    """Which part of `model` this process holds, counted from 0, and of how many.

    >>> place_of(nn.Linear(2, 1))
    (0, 1)
    """
    first = next(model.parameters())
    if not isinstance(first, DTensor):
        return 0, 1
    return first.device_mesh.get_local_rank(), first.device_mesh.size()


def like(full: Tensor, wanted: Tensor) -> Tensor:
    """Return `full` as `wanted` is: on its device and, where that is sharded, this process's part.

    Every process has the same `full`; nothing is sent.

    >>> like(torch.ones(2), torch.zeros(2))
    tensor([1., 1.])
    """
    full = full.to(wanted.device)
    if not isinstance(wanted, DTensor):
        return full
    return distribute_tensor(full, wanted.device_mesh, wanted.placements, src_data_rank=None)
