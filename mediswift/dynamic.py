"""Masks that move while a model trains: SET (Mocanu et al. 2018) and RigL (Evci et al. 2020).

Decisions: every so many steps each matrix drops its weakest kept weights and grows as many others:
random ones (SET), or those with the largest gradient, of the loss of that step, by the dense matrix
(RigL, algorithm 1). The fraction that moves falls along a cosine to zero. A weight that was just
dropped may grow again, as in the authors' code, and then keeps its value; others start at zero,
and so do Adam's moments of all that grow. What moves is a function of (weights, gradients, seed,
step, name), so a run that goes on moves alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mediswift.linear import SparseLinear
from mediswift.masks import pack, scores_of, unpack
from mediswift.schedule import RIGL, Config
from mediswift.sparse import masks_of, named_layers, replace_masks


def moved(mask: Tensor, weight: Tensor, grown: Tensor, count: int) -> Tensor:
    """Mask after dropping the `count` kept weights of smallest magnitude, and growing as many.

    `mask` (O, I) bool; `grown` scores the weights that may grow, the highest first: all that are
    not kept after the drop. Ties go to the first.

    >>> mask = torch.tensor([[True, True, False, False]])
    >>> moved(mask, torch.tensor([[3.0, 1.0, 0, 0]]), torch.tensor([[0.0, 1, 3, 2]]), 1).tolist()
    [[True, False, True, False]]
    """
    strength = weight.abs().masked_fill(~mask, -1).flatten()
    kept = int(mask.sum()) - count
    held = torch.zeros_like(mask).flatten()
    held[strength.argsort(descending=True, stable=True)[:kept]] = True
    wish = grown.flatten().masked_fill(held, -math.inf)
    held[wish.argsort(descending=True, stable=True)[:count]] = True
    return held.view_as(mask)


@contextmanager
def moving(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: Config,
    step: int,
    together: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Inside, step `step` (from 1) is taken; afterwards masks move, if they do at this step.

    `together` sums a gradient over the processes of the job.
    """
    share = config.moves.moving(step, config.steps) if config.moves else 0.0
    with watched(model, bool(share) and config.moves.name == RIGL) as gradients:
        yield
    if share:
        whole_batch = {name: together(each) for name, each in gradients.items()}
        move(model, optimizer, share, config.seed, step, whole_batch)


@contextmanager
def watched(model: nn.Module, watch: bool = True) -> Iterator[dict[str, Tensor]]:
    """Gradients (O, I) of the dense matrix of each sparse layer, by name, summed over the backward
    passes inside; removed weights have one too. Nothing when not to `watch`.
    """
    found: dict[str, Tensor] = {}
    watched_ones = named_layers(model).items() if watch else ()
    handles = [_listen(layer, found, name) for name, layer in watched_ones]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def move(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fraction: float,
    seed: int,
    step: int,
    gradients: Mapping[str, Tensor],
) -> None:
    """Move `fraction` of each matrix's kept weights, by the `gradients`, or at random without."""
    for name, layer in named_layers(model).items():
        if name in gradients:
            grown = gradients[name].abs().cpu()
        else:
            grown = scores_of(layer.layout.mask.shape, seed, f"{step}/{name}")
        weight = (layer.weight.T if layer.turned else layer.weight).detach().cpu()
        count = int(fraction * int(layer.layout.mask.sum()))
        rewire(layer, moved(layer.layout.mask, weight, grown, count), optimizer)
    replace_masks(model, _masks(model))


def rewire(layer: SparseLinear, mask: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Let `layer` keep the weights of `mask` (O, I), and its moments follow."""
    state = optimizer.state.get(layer.values, {})
    full = {key: layer.spread(value) for key, value in state.items() if value.dim()}
    layer.rewire(mask)
    for key, value in full.items():
        state[key] = layer.gather(value)


def to_keep(model: nn.Module) -> dict[str, Tensor]:
    """Masks of `model` that have moved, `mask/<layer>`: eight weights to a byte; else {}."""
    masks = masks_of(model)
    if masks is None or not masks.moved:
        return {}
    each = named_layers(model).items()
    return {f"mask/{name}": torch.from_numpy(pack(layer.layout.mask)) for name, layer in each}


def put_back(kept: Mapping[str, Tensor], model: nn.Module) -> None:
    """Let `model` keep the weights of the masks that `to_keep` gave, if it gave some."""
    if not (each := {n: m for n, m in named_layers(model).items() if f"mask/{n}" in kept}):
        return
    for name, layer in each.items():
        layer.rewire(unpack(kept[f"mask/{name}"].numpy(), layer.layout.mask.shape))
    replace_masks(model, _masks(model))


def _masks(model: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.weight": layer.mask for name, layer in named_layers(model).items()}


def _listen(layer: SparseLinear, found: dict[str, Tensor], name: str) -> RemovableHandle:
    def hear(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:
            return
        x = inputs[0].detach().reshape(-1, layer.in_features)

        def add(grad: Tensor) -> None:
            more = (grad.reshape(-1, layer.out_features).T @ x.to(grad.dtype)).float()
            found[name] = found[name] + more if name in found else more

        output.register_hook(add)

    return layer.register_forward_hook(hear)
