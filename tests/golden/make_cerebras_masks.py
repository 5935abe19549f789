"""Write `cerebras_masks.json`: masks that the paper authors' own library makes.

Requirements, in an environment of its own (Python 3.11, Linux x86-64, about 6 GB); the tests only
read the JSON and need none of it. The wheel pins torch 2.4.0 and numpy 1.25.0:

    pip install cerebras_pytorch==2.10.0
    python tests/golden/make_cerebras_masks.py

Every mask goes through the public path, `Static(...).apply(layer)` and then `initialize()`, on the
library's CPU backend; before `initialize()` the library's masks are all ones. Two of its init
methods are recorded:

- `topk`: keep the k weights of largest magnitude; the scores written out below are the weights.
- `random`: keep the top k of `torch.rand_like(weight)`; the scores it drew are recorded beside the
  mask, because a bare seed would test the random number generator and not the rule.

The library's rule (its `sparse/utils.py`, `make_mask_topk_sparsity`): k = (1 - sparsity) * numel,
computed in float32 and truncated. Rounding in float32 puts k beside the exact floor at some decimal
sparsities (0.6 of 10 keeps 3, not 4); such cases are here, `exact_k` beside `k`. Among equal scores
the library promises no order (`torch.topk`): where `ties` is true, the boundary falls inside a
group of equal scores, and a test may compare k and the order, not which of the equals was kept.
"""

import json
import os
import re
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import cerebras.pytorch as cstorch
import torch

OUT = Path(__file__).with_name("cerebras_masks.json")

STAIRS_4X4 = [[7, 2, 9, 4], [12, 1, 16, 11], [3, 14, 6, 8], [15, 5, 10, 13]]
SIGNS_3X4 = [[-9, 2, 7, -4], [1, -12, 3, 8], [-6, 10, -5, 11]]
ODD_5X7 = [
    [31, 4, 17, 22, 9, 35, 12],
    [2, 28, 14, 7, 19, 24, 33],
    [16, 11, 30, 1, 26, 5, 20],
    [23, 34, 8, 13, 3, 29, 18],
    [10, 21, 6, 32, 15, 27, 25],
]
ROW_1X10 = [[5, 9, 1, 7, 3, 10, 2, 8, 6, 4]]
ROW_1X3 = [[2, 3, 1]]
COLUMN_6X1 = [[4], [6], [1], [5], [2], [3]]
EQUAL_4X4 = [[1] * 4] * 4
STEPS_3X4 = [[3, 1, 2, 2], [2, 3, 1, 1], [2, 2, 3, 1]]

TOPK_CASES = {
    "stairs 4x4": (STAIRS_4X4, [0.0, 0.5, 0.75, 0.875]),
    "signs 3x4": (SIGNS_3X4, [0.5, 0.75]),
    "odd 5x7": (ODD_5X7, [0.0, 0.3, 0.5, 0.6, 0.75, 0.875]),
    "row 1x10": (ROW_1X10, [0.3, 0.6, 0.75]),
    "row 1x3": (ROW_1X3, [0.5, 0.75]),
    "column 6x1": (COLUMN_6X1, [0.5, 0.75]),
    "equal 4x4": (EQUAL_4X4, [0.0, 0.5, 0.75]),
    "steps 3x4": (STEPS_3X4, [0.5, 0.75]),
}
RANDOM_CASES = [((4, 4), 0.75), ((5, 7), 0.75), ((1, 10), 0.5)]


def make_mask(weight: torch.Tensor, sparsity: float, init_method: str) -> torch.Tensor:
    """Boolean mask (True = kept) that the library gives a linear layer of this weight."""
    out_features, in_features = weight.shape
    layer = torch.nn.Linear(in_features, out_features, bias=False)
    layer.weight.data.copy_(weight)
    static = cstorch.sparse.Static(sparsity=sparsity, init_method=init_method)
    static.apply(layer)
    static.initialize()
    (sparse_parameter,) = static.sparse_params.values()
    return sparse_parameter.mask.cpu()


def make_case(name: str, method: str, scores: torch.Tensor, s: float, mask: torch.Tensor) -> dict:
    """One record of the file: scores, sparsity and mask, with what the mask was measured to be."""
    size = scores.abs()
    kept, dropped = size[mask], size[~mask]
    ties = bool(kept.numel() and dropped.numel() and kept.min() == dropped.max())
    exact_k = int((1 - Fraction(str(s))) * scores.numel())
    return {
        "name": f"{name}, sparsity {s}",
        "init_method": method,
        "sparsity": s,
        "k": int(mask.sum()),
        "exact_k": exact_k,
        "ties": ties,
        "scores": scores.tolist(),
        "mask": mask.int().tolist(),
    }


def make_topk_cases() -> list[dict]:
    """Cases whose scores are the written-out matrices above."""
    cases = []
    for name, (rows, sparsities) in TOPK_CASES.items():
        weight = torch.tensor(rows, dtype=torch.float32)
        for s in sparsities:
            cases.append(make_case(name, "topk", weight, s, make_mask(weight, s, "topk")))
    return cases


def make_random_cases() -> list[dict]:
    """Cases whose scores the library drew; the same seed draws them again for the record."""
    cases = []
    for shape, s in RANDOM_CASES:
        weight = torch.zeros(shape)
        scores: list[torch.Tensor] = []
        rand_like = torch.rand_like

        def recording(tensor, rand_like=rand_like, scores=scores, **kwargs):
            scores.append(rand_like(tensor, **kwargs))
            return scores[-1]

        torch.manual_seed(0)
        torch.rand_like = recording
        try:
            mask = make_mask(weight, s, "random")
        finally:
            torch.rand_like = rand_like
        (drawn,) = scores
        cases.append(make_case(f"random {shape[0]}x{shape[1]}", "random", drawn.detach(), s, mask))
    return cases


def write(cases: list[dict], path: Path) -> None:
    """Leave the file with one matrix row a line, so that a reader can see the masks."""
    packages = ("cerebras_pytorch", "torch")
    head = {"made_by": {name: version(name) for name in packages}, "cases": cases}
    innermost_list = re.compile(r"\[[^\[\]{}]*\]")
    text = innermost_list.sub(lambda m: json.dumps(json.loads(m[0])), json.dumps(head, indent=1))
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    cstorch.backend("CPU")
    write(make_topk_cases() + make_random_cases(), OUT)
    print(f"wrote {OUT.name}")
