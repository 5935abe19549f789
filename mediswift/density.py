"""Density scaling: the kept weights of a sparse matrix start larger and learn faster.

Decisions: this is the density part of SμPar, and only that. Of a matrix that keeps the fraction
rho of its weights, the kept ones start with rho ** -0.5 times the dense matrix's standard deviation
(its variance / rho), and their learning rate under Adam is 1 / rho times everyone else's. So what
the layer gives, and how far a step moves it, is on the scale of the dense layer; by the authors'
account a sparse model wants about the dense one's base rate then. Widths stay at the standard
parametrization: no rule for them, no multiplier on embeddings, attention or logits. rho is what
each mask really keeps. Weight decay keeps its coefficient, as in the authors' code, so a step of
AdamW takes rate * decay / rho from a kept weight. All of it is derived for random unstructured
masks; other patterns are scaled the same way, as an assumption.

Source: Dey, Bergsma, Hestness 2024, "Sparse maximal update parameterization", arXiv 2405.15743,
table 1, m_rho alone; the rules are read from the authors' code, branch `supar` of
EleutherAI/nanoGPT-mup.
"""

from __future__ import annotations

import torch
from torch import nn

from mediswift.linear import SparseLinear
from mediswift.sparse import layers


def density(layer: SparseLinear) -> float:
    """Fraction of its weights that a layer keeps, in (0, 1].

    >>> density(SparseLinear(torch.ones(2, 2), None, torch.eye(2, dtype=torch.bool)))
    0.5
    """
    mask = layer.layout.mask
    return int(mask.sum()) / mask.numel()


def scale_weights(model: nn.Module) -> nn.Module:
    """Return `model` itself, each kept weight times its layer's density ** -0.5.

    To be called once, on weights as they were drawn. Raises ValueError for a dense model.

    >>> layer = SparseLinear(torch.ones(2, 2), None, torch.tensor([[True, False], [False, False]]))
    >>> scale_weights(layer).values.tolist()
    [[2.0]]
    """
    with torch.no_grad():
        for layer in _scaled(model):
            layer.values.mul_(density(layer) ** -0.5)
    return model


def values_by_factor(model: nn.Module) -> dict[float, list[nn.Parameter]]:
    """Kept weights of all layers that train, by what their learning rate is multiplied with.

    Sharded ones too: the density is the whole layer's. Raises ValueError for a dense model.

    >>> weight = nn.Parameter(torch.ones(2, 2))
    >>> layer = SparseLinear(weight, None, torch.eye(2, dtype=torch.bool))
    >>> {factor: len(values) for factor, values in values_by_factor(layer).items()}
    {2.0: 1}
    """
    found: dict[float, list[nn.Parameter]] = {}
    for layer in _scaled(model):
        if layer.values.requires_grad:
            found.setdefault(1 / density(layer), []).append(layer.values)
    return found


def _scaled(model: nn.Module) -> list[SparseLinear]:
    found = layers(model)
    if not found:
        raise ValueError(
            f"density scaling is for sparse layers, and this {type(model).__name__} has none: "
            "sparse.sparsify(model) first, or leave density_scaling out"
        )
    return [layer for layer in found if layer.values.numel()]  # one may be too small to keep any
