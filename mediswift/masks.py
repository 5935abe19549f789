"""Boolean masks (True = kept) as pure functions of (seed, name, shape, sparsity, pattern).

Decisions: a mask never depends on call order, rank, device or process, so no mask is ever
broadcast. Scores are uniform, drawn from a hash of seed and name; the pattern says which of them
win.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mediswift.flops import check_sparsity
from mediswift.patterns import alive, parse


def make_mask(
    shape: tuple[int, int], sparsity: float, pattern: str, *, seed: int, name: str
) -> Tensor:
    """Boolean mask of `shape` (O, I), the same in every process for the same arguments.

    >>> int(make_mask((8, 8), 0.75, "unstructured", seed=0, name="h.0.q").sum())
    16
    """
    chosen, scores = parse(pattern), scores_of(shape, seed, name)
    return alive(chosen, chosen.keep(scores, sparsity), scores)


def can_have(shape: tuple[int, int], sparsity: float, pattern: str) -> bool:
    """Whether a matrix of `shape` (O, I) can have this pattern at this sparsity.

    Raises ValueError for what is no pattern, or no sparsity.

    >>> can_have((8, 8), 0.5, "2:4"), can_have((8, 8), 0.75, "2:4"), can_have((8, 6), 0.5, "2:4")
    (True, False, False)
    """
    chosen = parse(pattern)
    check_sparsity(sparsity)
    try:
        chosen.keep(torch.zeros(shape), sparsity)
    except ValueError:
        return False
    return True


def pack(mask: Tensor) -> np.ndarray:
    """Bits of a mask, eight weights to a byte: uint8, row by row."""
    return np.packbits(mask.cpu().numpy().ravel())


def unpack(bits: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Mask of `shape` that `pack` made the bits of.

    >>> unpack(pack(torch.eye(2, dtype=torch.bool)), [2, 2]).tolist()
    [[True, False], [False, True]]
    """
    size = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(bits, count=size).astype(bool)).view(shape)


def scores_of(shape: tuple[int, int], seed: int, name: str) -> Tensor:
    """Scores of `shape`, uniform in [0, 1), the same in every process for the same arguments.

    >>> scores_of((2, 2), seed=0, name="h.0.q").shape
    torch.Size([2, 2])
    """
    # blake2b, not hash(): Python's own differs from one process to the next
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little"))
    return torch.rand(shape, generator=generator)
