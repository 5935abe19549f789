"""Cross entropy of a language model's head without ever holding all of its logits.

Decisions: the head's product, the softmax and both gradients are taken for some tokens at a time,
in one buffer, while the numbers are still in the cache; what is kept for the backward pass is the
gradients themselves. torch's own `linear_cross_entropy` in chunks saves the same memory, but on
a CPU it takes longer than the plain loss, and this takes less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from mediswift.batches import IGNORED, Batch, Examples, in_order

CHUNK = 512
"""Tokens whose logits are held at once."""


@torch.no_grad()
def mean_loss(model: nn.Module, examples: Examples, micro_batch: int, precision: str) -> float:
    """Mean cross entropy over every target of `examples`, in nats a token."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in in_order(examples, micro_batch):
        total += summed_loss(model, batch.to(device), precision).item()
        count += batch.count
    model.train(was_training)
    return total / count


def summed_loss(model: nn.Module, batch: Batch, precision: str = "no") -> Tensor:
    """Sum of the cross entropies of a batch's targets, a scalar in nats."""
    device = batch.input_ids.device.type
    head = getattr(model, "module", model).get_output_embeddings()
    # torch's own context instead of Accelerate's, whose precision holds for a whole process:
    # one notebook pre-trains in bf16 and fine-tunes without
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        if isinstance(head, nn.Linear) and head.bias is None:
            with headless(head) as entered:
                hidden = model(input_ids=batch.input_ids).logits
            if entered and hidden.data_ptr() == entered[-1].data_ptr():  # else logits are capped
                hidden, targets = _counted(hidden, batch)
                return summed_cross_entropy(hidden, head.weight, targets)
        logits, targets = _counted(model(input_ids=batch.input_ids).logits, batch)
        return cross_entropy(logits.float(), targets, reduction="sum")


def _counted(outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    # Where only an answer is learned, most positions have no loss, and need no logits
    outputs, targets = outputs.flatten(0, 1), batch.targets.flatten()
    if not batch.unscored:
        return outputs, targets
    counted = targets != IGNORED
    return outputs[counted], targets[counted]


def summed_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross entropies, a scalar in nats, of targets (T,) under hidden @ head.T.

    `hidden` (T, D), `head` (V, D). The logits are computed in their common type, and autocast's
    where it is on; the loss in float32. Targets equal to `IGNORED` carry no loss.

    >>> summed_cross_entropy(torch.zeros(3, 2), torch.zeros(5, 2), torch.tensor([1, 4, IGNORED]))
    tensor(3.2189)
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        half = torch.get_autocast_dtype(kind)
        hidden, head = hidden.to(half), head.to(half)
    if not torch.is_grad_enabled():
        return sum(
            cross_entropy(linear(h, head).float(), t, ignore_index=IGNORED, reduction="sum")
            for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
        )
    return _Summed.apply(hidden, head, targets)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, head, targets):
        of_hidden = torch.empty_like(hidden)
        # In float32 even of a head in half precision: a sum over chunks must not round each time
        exact = torch.promote_types(head.dtype, torch.float32)
        of_head = torch.zeros_like(head, dtype=exact) if ctx.needs_input_grad[1] else None
        loss = hidden.new_zeros((), dtype=torch.float32)
        for cut in range(0, len(hidden), CHUNK):
            part = slice(cut, cut + CHUNK)
            logits = linear(hidden[part], head).float()
            loss += _into_gradient(logits, targets[part])
            gradient = logits.to(hidden.dtype)
            torch.mm(gradient, head, out=of_hidden[part])
            if of_head is not None:
                if of_head.dtype == gradient.dtype:
                    of_head.addmm_(gradient.T, hidden[part])
                else:
                    of_head += gradient.T @ hidden[part]
        ctx.save_for_backward(of_hidden, of_head)
        return loss

    @staticmethod
    def backward(ctx, grad):
        of_hidden, of_head = ctx.saved_tensors
        scale = grad.to(of_hidden.dtype)
        return of_hidden * scale, None if of_head is None else of_head * scale, None


@contextmanager
def headless(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Within, `head` returns its input: the "logits" of its model are hidden states (B, T, D).

    What entered it is listed.
    """
    entered: list[Tensor] = []

    def passing(hidden: Tensor) -> Tensor:
        entered.append(hidden)
        return hidden

    head.forward = passing
    try:
        yield entered
    finally:
        del head.forward


def _into_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    # The loss; logits (t, V) become its gradient, in place: softmax minus one-hot, or zero
    counted = targets != IGNORED
    index = torch.where(counted, targets, 0)[:, None]
    logits -= logits.amax(1, keepdim=True)
    picked = logits.gather(1, index).squeeze(1)
    total = logits.exp_().sum(1)
    logits *= (counted / total)[:, None]
    logits.scatter_add_(1, index, -counted.to(logits.dtype)[:, None])
    return ((total.log() - picked) * counted).sum()
