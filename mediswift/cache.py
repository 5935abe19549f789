"""Prefixes that a causal language model has read, and goes on from without reading them again.

Decisions. Rows are padded on the right, because left padding shifts learned positions: what comes
later stands behind the padding in the model's cache, and a mask and positions say where it really
is. While the prefixes are read no mask is needed, since a causal model never looks that way.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicLayer


def remembers(model: torch.nn.Module) -> bool:
    """Whether `model` keeps all that it read, each token in its place, as most causal models do.

    Tried out on two tokens. Where a window slides, or a state stands for what was read, the padding
    behind a shorter row would count.
    """
    inner = model.model if hasattr(model, "takes_positions") else model  # a soft prompt's
    known = inspect.signature(inner.forward).parameters.keys()
    if not {"position_ids", "past_key_values"} <= known:
        return False
    if "local" in getattr(inner.config, "attention_layers", ()):
        return False  # GPT-Neo: the window is in its masks, and its cache does not tell
    ids = torch.tensor([[2, 3]], device=next(model.parameters()).device)
    with torch.no_grad():
        memory = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    return all(type(layer) is DynamicLayer for layer in getattr(memory, "layers", [None]))


def keeping(model: torch.nn.Module, count: int) -> dict[str, int]:
    """Options by which `model` gives the logits of the last `count` positions only, if it can.

    Most models can leave out the others: a third of the time of a small one, and with a large
    vocabulary most of the memory.
    """
    can = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if can else {}


class Reading:
    """A batch of prefixes that `model` has read; `logits` (B, V) are what it expects next.

    >>> reading = Reading(model, [[3, 1, 4], [1, 5]])  # doctest: +SKIP
    >>> reading.go_on(torch.tensor([[9], [2]])).shape  # doctest: +SKIP
    torch.Size([2, 1, 42384])
    """

    def __init__(self, model: torch.nn.Module, prefixes: Sequence[Sequence[int]]) -> None:
        """Read `prefixes`, of one token or more each; `model` must be one that `remembers`."""
        device = next(model.parameters()).device
        self.model = model
        self.lengths = torch.tensor([len(prefix) for prefix in prefixes], device=device)
        ids = pad_sequence([torch.tensor(list(p)) for p in prefixes], batch_first=True).to(device)
        keep = keeping(model, ids.shape[1] - int(self.lengths.min()) + 1)
        output = model(input_ids=ids, attention_mask=None, use_cache=True, **keep)
        ends = self.lengths - ids.shape[1] - 1  # from the end, where logits may be all that is left
        self.logits: Tensor = output.logits[torch.arange(len(ids)), ends]
        self.memory = output.past_key_values
        self.seen = torch.arange(ids.shape[1], device=device) < self.lengths[:, None]  # (B, T)

    def repeat(self, times: int) -> Reading:
        """Return the same, each row so many times in a row."""
        self.memory.batch_repeat_interleave(times)
        for name in ("lengths", "logits", "seen"):
            setattr(self, name, getattr(self, name).repeat_interleave(times, 0))
        return self

    def go_on(self, ids: Tensor) -> Tensor:
        """Logits (B, L, V) at the positions of `ids` (B, L), which come next and are remembered."""
        self.seen = torch.cat([self.seen, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        places = self.lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        self.lengths = self.lengths + ids.shape[1]
        return self.model(
            input_ids=ids,
            attention_mask=self.seen.long(),
            position_ids=places,
            past_key_values=self.memory,
            use_cache=True,
        ).logits
