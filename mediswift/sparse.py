"""Making a model sparse, keeping it so, and making it dense again.

Decisions: `sparsify` puts a `SparseLinear`, which holds only kept weights, in the place of each
linear layer of each block; removed weights are nowhere, so nothing can move them. The model's state
dict stays the plain dense one, and the masks are saved beside it. `densify` puts dense layers back:
the removed weights start at zero and may move (SPDF). Matrices are chosen by the type and place of
their module, never by name: linear layers inside the stack of blocks, so that embeddings, norms,
biases and the head, tied or not, stay dense. Parameters are new ones after either: make the
optimizer afterwards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mediswift.linear import AUTO, SparseLinear
from mediswift.masks import make_mask, pack, unpack
from mediswift.patterns import parse

FILE = "masks.safetensors"


@dataclass(frozen=True)
class Masks:
    """The boolean masks of a model, True = kept, by parameter name and in the parameter's
    layout."""

    sparsity: float
    pattern: str
    seed: int
    masks: dict[str, Tensor]
    moved: bool = False
    """Whether they are others than those that were drawn: see `dynamic`."""

    @property
    def digest(self) -> str:
        """First twelve hex digits of a hash over names, shapes and bits; "" when nothing is
        masked."""
        sha = hashlib.sha256()
        for name, mask in sorted(self.masks.items()):
            sha.update(f"{name}{tuple(mask.shape)}".encode())
            sha.update(pack(mask).tobytes())
        return sha.hexdigest()[:12] if self.masks else ""

    def check(self, model: nn.Module) -> None:
        """Raise RuntimeError if a removed weight of `model` is no longer exactly zero."""
        weights = _holder(model).state_dict()
        for name, mask in self.masks.items():
            moved = int(weights[name][~mask.to(weights[name].device)].count_nonzero())
            if moved:
                raise RuntimeError(
                    f"removed weights stay exactly zero; {moved} of {name} moved: the model was "
                    "densified, or these are not its masks. sparse.attach(model, masks) before "
                    "training keeps them"
                )

    def removed(self, model: nn.Module) -> np.ndarray:
        """Values in `model` of all weights that the masks remove, one after the other."""
        weights = _holder(model).state_dict()
        return np.concatenate(
            [weights[name][~mask].cpu().numpy() for name, mask in self.masks.items()]
        )

    def save(self, folder: str | Path) -> Path:
        """Path of the file with all masks, eight weights to a byte, written into `folder`."""
        about = {"sparsity": self.sparsity, "pattern": self.pattern, "seed": self.seed}
        about |= {"moved": True} if self.moved else {}
        shapes = {name: list(mask.shape) for name, mask in self.masks.items()}
        bits = {name: pack(mask) for name, mask in self.masks.items()}
        path = Path(folder) / FILE
        path.write_bytes(save(bits, {"about": json.dumps(about), "shapes": json.dumps(shapes)}))
        return path

    def __str__(self) -> str:
        """Return a table: each kind of matrix, how many, its shape, what is kept."""
        kinds = Counter(
            (re.sub(r"\.\d+\.", ".*.", name), tuple(mask.shape), int(mask.sum()))
            for name, mask in self.masks.items()
        )
        width = max((len(name) for name, _, _ in kinds), default=6)
        lines = [f"{'matrix':<{width}}  count  {'shape':>12}  {'kept of each':>22}"]
        for (name, shape, kept), count in kinds.items():
            size = f"{shape[0]} x {shape[1]}"
            each = f"{kept:,} of {shape[0] * shape[1]:,}"
            lines.append(f"{name:<{width}}  {count:>5}  {size:>12}  {each:>22}")
        total, kept = self._totals()
        share = f"{1 - kept / total:.2%} removed" if total else "nothing removed"
        return "\n".join([*lines, f"{kept:,} of {total:,} kept: {share} ({self.pattern})"])

    def _totals(self) -> tuple[int, int]:
        return (
            sum(mask.numel() for mask in self.masks.values()),
            sum(int(mask.sum()) for mask in self.masks.values()),
        )


def sparsify(
    model: nn.Module,
    sparsity: float = 0.75,
    pattern: str = "unstructured",
    seed: int = 0,
    engine: str = AUTO,
) -> Masks:
    """Masks drawn for every linear layer of every block, after applying them to `model` in place.

    Works on any Hugging Face causal LM whose blocks hold `nn.Linear` or `Conv1D`; a fused matrix
    (GPT-2's query-key-value) counts as one. Sparsity 0 changes nothing. Source: SPDF, section 2:
    static, random at initialization, the same sparsity in every matrix. `engine` computes the
    layers: "auto" lets the first training step measure and choose, others are in `engines`.

    Raises ValueError on a model that is sparse already or has no such layer.

    >>> from mediswift import models
    >>> masks = sparsify(models.build(models.shape("demo"), seed=0), sparsity=0.75)
    >>> len(masks.masks)
    24
    """
    _refuse_twice(model)
    chosen = parse(pattern)  # a typo is an error in a dense run too
    if sparsity:
        chosen.check(sparsity)
    drawn = {
        name: _draw(module, sparsity, pattern, seed, name)
        for name, module in sparsifiable(model)
        if sparsity
    }
    masks = Masks(sparsity, pattern, seed, drawn)
    attach(model, masks, engine)
    return masks


def attach(model: nn.Module, masks: Masks, engine: str = AUTO) -> None:
    """Apply `masks` to `model` in place: what they remove is gone.

    Raises ValueError on a model that is sparse already, or when a name or shape does not fit.
    """
    _refuse_twice(model)
    modules = dict(sparsifiable(model))
    for name, mask in masks.masks.items():
        if name not in modules or modules[name].weight.shape != mask.shape:
            raise ValueError(
                f"every mask needs a weight of its name and shape; {name} {tuple(mask.shape)} has "
                "none in this model: the masks belong to another one"
            )
    for name, mask in masks.masks.items():
        place = name.removesuffix(".weight")
        model.set_submodule(place, _sparse(modules[name], mask, engine, masks.pattern))
    if masks.masks:
        model.sparse_masks = masks


def densify(model: nn.Module) -> nn.Module:
    """Return the model itself, plain again: same outputs, but removed weights may now move from
    zero."""
    for name, module in list(model.named_modules()):
        if isinstance(module, SparseLinear):
            model.set_submodule(name, _plain(module))
    if masks_of(model) is not None:
        del _holder(model).sparse_masks
    return model


def layers(model: nn.Module) -> list[SparseLinear]:
    """Sparse layers of a model, in its own order; none in a dense one."""
    return list(named_layers(model).values())


def named_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """Sparse layers by name, which is that of their mask without `.weight`."""
    modules = _holder(model).named_modules()
    return {name: module for name, module in modules if isinstance(module, SparseLinear)}


def replace_masks(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Say that `masks`, by parameter name, hold on `model`, whose layers keep them already."""
    holder = _holder(model)
    holder.sparse_masks = replace(holder.sparse_masks, masks=masks, moved=True)


def choose_engines(model: nn.Module, tokens: int, dtype: torch.dtype = torch.float32) -> str:
    """Let each layer whose engine is "auto" choose for so many tokens a call; one line on all.

    A choice is kept in the cache folder, also one that was measured while others used the machine.
    Raises ValueError for another layer's engine that cannot compute in `dtype` here.
    """
    for layer in layers(model):
        layer.choose(tokens, dtype)
    each = Counter(layer.current for layer in layers(model))
    named = ", ".join(f"{name} computes {count}" for name, count in each.items())
    kept = "chosen once by timing: engines.json in the cache folder, deleted, is measured anew"
    return f"of the sparse layers, {named} ({kept})" if named else ""


def masks_of(model: nn.Module) -> Masks | None:
    """Masks that hold on `model`, or on the model that it wraps, now; None for a dense one."""
    return getattr(_holder(model), "sparse_masks", None)


def load_masks(folder: str | Path) -> Masks | None:
    """Masks that `Masks.save` wrote into `folder`; None when the run was dense."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    with safe_open(path, "numpy") as file:
        about, shapes = (json.loads(file.metadata()[key]) for key in ("about", "shapes"))
        masks = {name: unpack(file.get_tensor(name), shape) for name, shape in shapes.items()}
    return Masks(**about, masks=masks)


def sparsifiable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name of the weight, and module, of each linear layer inside the model's stack of blocks."""
    head = model.get_output_embeddings()
    blocks = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    found = [
        (f"{name}.weight", module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not head
        and any(name.startswith(f"{block}.") for block in blocks)
    ]
    if not found:
        raise ValueError(
            f"a model to sparsify holds nn.Linear or Conv1D layers in an nn.ModuleList of blocks; "
            f"{type(model).__name__} has none"
        )
    yield from found


def _refuse_twice(model: nn.Module) -> None:
    if masks_of(model) is not None:
        raise ValueError("the model is sparse already: call sparse.densify(model) first")


def _holder(model: nn.Module) -> nn.Module:
    # A soft prompt wraps the model that was made sparse
    return next((m for m in model.modules() if hasattr(m, "sparse_masks")), model)


def _draw(module: nn.Module, sparsity: float, pattern: str, seed: int, name: str) -> Tensor:
    # Conv1D stores (inputs, outputs); masks are drawn as (outputs, inputs) and turned back
    turned = isinstance(module, Conv1D)
    shape = tuple(module.weight.shape)
    try:
        mask = make_mask(shape[::-1] if turned else shape, sparsity, pattern, seed=seed, name=name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return mask.T.contiguous() if turned else mask


def _sparse(module: nn.Module, mask: Tensor, engine: str, pattern: str) -> SparseLinear:
    turned = isinstance(module, Conv1D)
    weight, mask = (module.weight.T, mask.T) if turned else (module.weight, mask)
    layer = SparseLinear(weight, module.bias, mask, engine=engine, pattern=pattern, turned=turned)
    return layer.train(module.training)


def _plain(layer: SparseLinear) -> nn.Module:
    with torch.device("meta"):  # nothing is drawn, and no memory taken, for weights that go at once
        if layer.turned:
            module = Conv1D(layer.out_features, layer.in_features)
        else:
            module = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    module.weight = nn.Parameter(layer.weight.detach(), requires_grad=layer.values.requires_grad)
    module.bias = layer.bias
    return module.train(layer.training)


def movement(before: nn.Module, after: nn.Module, masks: Masks) -> list[dict[str, float | str]]:
    """How far dense fine-tuning moved each masked matrix: one row a matrix.

    `revived` and `kept` are root mean squares of the change of removed and of kept weights;
    `cosine_distance` is 1 - cos between the matrices before and after (SPDF, section 3.4).
    """
    old, new = _holder(before).state_dict(), _holder(after).state_dict()
    return [
        {"matrix": name} | _moved(old[name], new[name], mask) for name, mask in masks.masks.items()
    ]


def _moved(old: Tensor, new: Tensor, mask: Tensor) -> dict[str, float]:
    change = (new - old).double()
    cosine = torch.cosine_similarity(old.double().ravel(), new.double().ravel(), dim=0)
    return {
        "revived": change[~mask].square().mean().sqrt().item(),
        "kept": change[mask].square().mean().sqrt().item(),
        "cosine_distance": 1 - cosine.item(),
    }
