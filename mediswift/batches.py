"""Examples as padded tensors: what a training step and a validation read.

Decisions: inputs and targets are shifted here, once, so that a target sits at the position that
predicts it; padding is on the right, because left padding shifts learned positions; positions
without a loss carry the target `IGNORED`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""Target of a position that no loss is taken of."""


@dataclass(frozen=True)
class Batch:
    """Examples as ids and next-token targets, both (B, T), padded on the right.

    No mask is made of the padding: a causal model never looks that way, and without one attention
    takes its fast path.
    """

    input_ids: Tensor
    targets: Tensor
    padding: int = 0
    """Count of the ids that are padding."""
    unscored: int = 0
    """Count of the targets that carry no loss: known here, so that no device is waited for."""

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on `device`."""
        return replace(self, input_ids=self.input_ids.to(device), targets=self.targets.to(device))

    @property
    def tokens(self) -> int:
        """Count the ids that are no padding."""
        return self.input_ids.numel() - self.padding

    @property
    def count(self) -> int:
        """Count the targets that carry a loss."""
        return self.targets.numel() - self.unscored


class Examples(Protocol):
    """What the training loop reads."""

    def __len__(self) -> int:
        """Count the examples."""

    def batch(self, indices: np.ndarray) -> Batch:
        """Batch of the examples at `indices`."""


@dataclass(frozen=True)
class PackedExamples:
    """Packed rows of T + 1 ids each: every position is a target, nothing is padded."""

    rows: Sequence[np.ndarray]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> Batch:
        """Inputs and targets of the rows at `indices`, each (B, T)."""
        rows = torch.from_numpy(np.stack([self.rows[int(i)] for i in indices]))
        return Batch(rows[:, :-1], rows[:, 1:])


@dataclass(frozen=True)
class Head:
    """The first `size` of other examples; 0 = all of them."""

    examples: Examples
    size: int

    def __len__(self) -> int:
        """Count the examples."""
        return min(self.size or len(self.examples), len(self.examples))

    def batch(self, indices: np.ndarray) -> Batch:
        """Batch of the examples at `indices`."""
        return self.examples.batch(indices)


@dataclass(frozen=True)
class AnswerExamples:
    """Sequences of unequal length with a loss from position `start` on.

    `vocab_size` marks where virtual tokens begin: nobody predicts them, so they are never targets.
    """

    sequences: list[tuple[list[int], int]]
    """Pairs of ids and the index of the first id that is a target."""
    vocab_size: int

    def __len__(self) -> int:
        """Count the sequences."""
        return len(self.sequences)

    def batch(self, indices: np.ndarray) -> Batch:
        """Batch of the sequences at `indices`, padded to the longest of them."""
        pairs = [self._shifted(*self.sequences[int(i)]) for i in indices]
        inputs = pad_sequence([x for x, _ in pairs], batch_first=True, padding_value=0)
        targets = pad_sequence([y for _, y in pairs], batch_first=True, padding_value=IGNORED)
        padding = inputs.numel() - sum(len(x) for x, _ in pairs)
        return Batch(inputs, targets, padding, int((targets == IGNORED).sum()))

    def _shifted(self, ids: list[int], start: int) -> tuple[Tensor, Tensor]:
        inputs, targets = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        targets[: max(0, start - 1)] = IGNORED
        return inputs, targets.masked_fill(targets >= self.vocab_size, IGNORED)


def in_order(examples: Examples, size: int) -> Iterator[Batch]:
    """All examples, in order, in batches of at most `size`."""
    for start in range(0, len(examples), size):
        yield examples.batch(np.arange(start, min(start + size, len(examples))))
