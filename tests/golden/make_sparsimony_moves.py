"""Write `sparsimony_moves.json`: how sparsimony's RigL moves masks.

In an environment with this project's torch; the tests only read the JSON:

    pip install --no-deps --target DIR sparsimony==0.1.0
    PYTHONPATH=DIR python tests/golden/make_sparsimony_moves.py

Each case is a mask, weights and dense gradients of distinct magnitudes, and the mask that
`UnstructuredMagnitudePruner` (the weakest kept weights go) and then `UnstructuredGradientGrower`
(the largest gradients come) make of it: the two that `sparsimony.dst.rigl.RigL` calls.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from sparsimony.pruners.unstructured import (
    UnstructuredGradientGrower,
    UnstructuredMagnitudePruner,
)

OUT = Path(__file__).with_name("sparsimony_moves.json")
SHAPES = [(1, 8), (4, 4), (5, 7), (16, 12)]
FRACTIONS = [0.1, 0.3, 0.5, 0.99]
SPARSITIES = [0.5, 0.75]


def distinct(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Whole numbers of distinct magnitudes and both signs."""
    size = shape[0] * shape[1]
    numbers = torch.randperm(size, generator=generator) + 1
    signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
    return (numbers * signs).view(shape).float()


def case(shape: tuple[int, int], sparsity: float, fraction: float, seed: int) -> dict:
    """One move."""
    generator = torch.Generator().manual_seed(seed)
    size = shape[0] * shape[1]
    kept = torch.randperm(size, generator=generator)[: round((1 - sparsity) * size)]
    mask = torch.zeros(size, dtype=torch.bool)
    mask[kept] = True
    mask = mask.view(shape)
    weight, grad = distinct(shape, generator), distinct(shape, generator)
    exact = 1 - float(mask.sum()) / size
    dropped = UnstructuredMagnitudePruner.calculate_mask(fraction, mask, weight)
    moved = UnstructuredGradientGrower.calculate_mask(exact, dropped, grad)
    tensors = {"mask": mask, "weight": weight, "grad": grad, "moved": moved}
    about = {"fraction": fraction, "count": int(mask.sum() * fraction)}
    return about | {name: tensor.int().tolist() for name, tensor in tensors.items()}


def main() -> None:
    """Write all cases."""
    cases = [
        case(shape, sparsity, fraction, seed)
        for seed, shape in enumerate(SHAPES)
        for sparsity in SPARSITIES
        for fraction in FRACTIONS
    ]
    about = {"sparsimony": version("sparsimony"), "torch": torch.__version__}
    OUT.write_text(json.dumps({"about": about, "cases": cases}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
