"""Making a model sparse, keeping it so, and making it dense again.

Decisions: a sparse model keeps its plain modules and plain state dict. `sparsify` sets weights to
zero and hooks their gradients, so AdamW sees zero weight, zero gradient and zero moments there,
and leaves exact zeros: through weight decay, clipping, accumulation and `torch.compile`. The masks
ride along as non-persistent buffers (they follow the model to its device and stay out of
checkpoints) and are saved beside it. `densify` takes the hooks away: the removed weights start at
zero and may move (SPDF). Matrices are chosen by the type and place of their module, never by name:
linear layers inside the stack of blocks, so that embeddings, norms, biases and the head, tied or
not, stay dense. A masked dense product saves no time; this file makes sparsity true, not fast.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mediswift.masks import make_mask, parse

FILE = "masks.safetensors"


@dataclass(frozen=True)
class Masks:
    """The boolean masks of a model, True = kept, by parameter name and in the parameter's
    layout."""

    sparsity: float
    pattern: str
    seed: int
    masks: dict[str, Tensor]

    @property
    def digest(self) -> str:
        """First twelve hex digits of a hash over names, shapes and bits; "" when nothing is
        masked."""
        sha = hashlib.sha256()
        for name, mask in sorted(self.masks.items()):
            sha.update(f"{name}{tuple(mask.shape)}".encode())
            sha.update(_pack(mask).tobytes())
        return sha.hexdigest()[:12] if self.masks else ""

    def check(self, model: nn.Module) -> None:
        """Raise RuntimeError if a removed weight of `model` is no longer exactly zero."""
        parameters = dict(_holder(model).named_parameters())
        for name, mask in self.masks.items():
            moved = int(
                parameters[name].detach()[~mask.to(parameters[name].device)].count_nonzero()
            )
            if moved:
                raise RuntimeError(
                    f"removed weights stay exactly zero; {moved} of {name} moved. A copied "
                    "model loses its hooks: call sparse.attach(sparse.densify(copy), masks), then "
                    "make a new optimizer, for the old one's moments would move them again"
                )

    def removed(self, model: nn.Module) -> np.ndarray:
        """Values in `model` of all weights that the masks remove, one after the other."""
        parameters = dict(model.named_parameters())
        return np.concatenate(
            [parameters[name].detach()[~mask].numpy() for name, mask in self.masks.items()]
        )

    def save(self, folder: str | Path) -> Path:
        """Path of the file with all masks, eight weights to a byte, written into `folder`."""
        about = {"sparsity": self.sparsity, "pattern": self.pattern, "seed": self.seed}
        shapes = {name: list(mask.shape) for name, mask in self.masks.items()}
        bits = {name: _pack(mask) for name, mask in self.masks.items()}
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
    model: nn.Module, sparsity: float = 0.75, pattern: str = "unstructured", seed: int = 0
) -> Masks:
    """Masks drawn for every linear layer of every block, after applying them to `model` in place.

    Works on any Hugging Face causal LM whose blocks hold `nn.Linear` or `Conv1D`; a fused matrix
    (GPT-2's query-key-value) counts as one. Sparsity 0 changes nothing. Source: SPDF, section 2:
    static, random at initialization, the same sparsity in every matrix.

    Raises ValueError on a model that is sparse already or has no such layer.

    >>> from mediswift import models
    >>> masks = sparsify(models.build(models.shape("demo"), seed=0), sparsity=0.75)
    >>> len(masks.masks)
    24
    """
    chosen = parse(pattern)  # a typo is an error in a dense run too
    if sparsity:
        chosen.check(sparsity)
    drawn = {
        name: _draw(module, sparsity, pattern, seed, name)
        for name, module in sparsifiable(model)
        if sparsity
    }
    masks = Masks(sparsity, pattern, seed, drawn)
    attach(model, masks)
    return masks


def attach(model: nn.Module, masks: Masks) -> None:
    """Apply `masks` to `model` in place: zero what is removed and keep its gradient zero.

    Raises ValueError on a model that is sparse already, or when a name or shape does not fit.
    """
    if masks_of(model) is not None:
        raise ValueError("the model is sparse already: call sparse.densify(model) first")
    modules = dict(sparsifiable(model))
    for name, mask in masks.masks.items():
        if name not in modules or modules[name].weight.shape != mask.shape:
            raise ValueError(
                f"every mask needs a weight of its name and shape; {name} {tuple(mask.shape)} has "
                "none in this model: the masks belong to another one"
            )
        _hold(modules[name], mask)
    if masks.masks:
        model.sparse_masks = masks


def densify(model: nn.Module) -> nn.Module:
    """Return the model itself, plain again: same outputs, but removed weights may now move from
    zero."""
    for module in model.modules():
        if hasattr(module, "weight_mask"):
            module.unmask()
            del module.unmask, module.weight_mask
    if masks_of(model) is not None:
        del _holder(model).sparse_masks
    return model


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
        masks = {name: _unpack(file.get_tensor(name), shape) for name, shape in shapes.items()}
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


def _hold(module: nn.Module, mask: Tensor) -> None:
    module.register_buffer("weight_mask", mask.to(module.weight.device), persistent=False)
    with torch.no_grad():
        module.weight.masked_fill_(~module.weight_mask, 0.0)  # a product would leave -0.0
    module.unmask = module.weight.register_hook(_masked_gradient(module)).remove


def _masked_gradient(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * module.weight_mask


def _pack(mask: Tensor) -> np.ndarray:
    return np.packbits(mask.cpu().numpy().ravel())


def _unpack(bits: np.ndarray, shape: list[int]) -> Tensor:
    size = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(bits, count=size).astype(bool)).view(shape)


def movement(before: nn.Module, after: nn.Module, masks: Masks) -> list[dict[str, float | str]]:
    """How far dense fine-tuning moved each masked matrix: one row a matrix.

    `revived` and `kept` are root mean squares of the change of removed and of kept weights;
    `cosine_distance` is 1 - cos between the matrices before and after (SPDF, section 3.4).
    """
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    return [
        {"matrix": name} | _moved(old[name].detach(), new[name].detach(), mask)
        for name, mask in masks.masks.items()
    ]


def _moved(old: Tensor, new: Tensor, mask: Tensor) -> dict[str, float]:
    change = (new - old).double()
    cosine = torch.cosine_similarity(old.double().ravel(), new.double().ravel(), dim=0)
    return {
        "revived": change[~mask].square().mean().sqrt().item(),
        "kept": change[mask].square().mean().sqrt().item(),
        "cosine_distance": 1 - cosine.item(),
    }
