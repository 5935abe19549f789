"""Causal attention of short rows in bfloat16 on a CPU, where torch's own is the brake.

Decisions: torch's fused attention takes as long in bfloat16 as in float32 on a CPU. Plain products
of a run of queries with the keys up to them use what the processor has, and take half of the time
at 256 or 512 tokens a row, about as long at 2,048. The probabilities are made again for the
backward pass, so nothing quadratic is kept. It enters by the registry of `transformers`, by name,
and only while a model trains; whatever it is not made for goes to the usual attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME, USUAL = "mediswift_runs", "sdpa"
RUN = 128
"""Queries at a time."""
LONGEST = 1024
"""Tokens of a row beyond which torch's own is as fast."""


@contextmanager
def in_runs(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Within, attention of `model` goes in runs, if it is `wanted` and was torch's own."""
    config = getattr(model, "config", None)
    if not wanted or getattr(config, "_attn_implementation", "") != USUAL:
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = USUAL


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Outputs (B, T, H, D) of queries, keys and values (B, H, T, D), as `transformers` asks."""
    causal = getattr(module, "is_causal", False) and more.get("is_causal", True) is not False
    alike = query.shape == key.shape == value.shape and query.shape[2] <= LONGEST
    here = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    if not (causal and alike and here) or attention_mask is not None or dropout:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_in_runs(query * scale, key, value).transpose(1, 2), None


def causal_in_runs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Outputs (B, H, T, D) of causal attention; queries (B, H, T, D) are scaled already.

    >>> one = torch.ones(1, 1, 2, 1)
    >>> causal_in_runs(one, one, torch.tensor([[[[1.0], [3.0]]]])).flatten().tolist()
    [1.0, 2.0]
    """
    return _Runs.apply(query, key, value)


class _Runs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value):
        ctx.save_for_backward(query, key, value)
        y = torch.empty_like(value)
        for run, seen in _runs(query):
            y[:, :, run] = _probabilities(query[:, :, run], key[:, :, seen]) @ value[:, :, seen]
        return y

    @staticmethod
    def backward(ctx, grad):
        query, key, value = ctx.saved_tensors
        of_query = torch.empty_like(query)
        # sums over runs, which must not round each time
        of_key, of_value = (torch.zeros_like(t, dtype=torch.float32) for t in (key, value))
        for run, seen in _runs(query):
            q, g, k = query[:, :, run], grad[:, :, run], key[:, :, seen]
            p = _probabilities(q, k)
            of_value[:, :, seen] += p.mT @ g
            of_p = g @ value[:, :, seen].mT
            of_scores = torch.ops.aten._softmax_backward_data(of_p, p, -1, p.dtype)
            of_query[:, :, run] = of_scores @ k
            of_key[:, :, seen] += of_scores.mT @ q
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype)


def _runs(query: Tensor) -> Iterator[tuple[slice, slice]]:
    # Queries of a run, and the keys that the last one of them sees
    for first in range(0, query.shape[2], RUN):
        yield slice(first, first + RUN), slice(0, first + RUN)


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    scores = query @ key.mT
    count = query.shape[2]
    future = torch.full((count, count), -torch.inf, dtype=scores.dtype).triu(1)
    scores[..., -count:] += future
    return scores.softmax(-1)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
