"""What a causal language model writes after a prefix, word for word its likeliest.

Decisions. Greedy and batched, with the model's own cache (`cache`), so that a row writes the same
alone and in company. The choice is between words of the vocabulary: virtual tokens are never
written.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mediswift.cache import Reading, remembers
from mediswift.likelihood import by_length, evaluating


def greedy(
    model: torch.nn.Module,
    prefixes: Sequence[Sequence[int]],
    max_new_tokens: int,
    done: Callable[[list[int]], bool] = lambda ids: False,
    batch_tokens: int = 8192,
) -> list[list[int]]:
    """Ids written after each of `prefixes`, at most `max_new_tokens` each.

    A row ends early when `done` says so of what it has written. `model` takes `position_ids` and a
    cache, as transformers' causal models and `prompts.SoftPrompt` do. `batch_tokens` bounds rows x
    length of a batch. Raises ValueError for an empty prefix or no token to write.
    """
    if max_new_tokens < 1 or not all(map(len, prefixes)):
        raise ValueError(
            "Writing needs a prefix of one token or more and max_new_tokens of at least 1, got "
            f"max_new_tokens={max_new_tokens} and a shortest prefix of {min(map(len, prefixes))}."
        )
    written: list[list[int]] = [[] for _ in prefixes]
    with evaluating(model):
        # a row alone has no padding that could be remembered
        bound = batch_tokens if remembers(model) else 1
        for rows in by_length(prefixes, max_new_tokens, bound):
            batch = [prefixes[i] for i in rows]
            for i, ids in zip(rows, _write(model, batch, max_new_tokens, done), strict=True):
                written[i] = ids
    return written


def _write(
    model: torch.nn.Module,
    batch: list[Sequence[int]],
    max_new_tokens: int,
    done: Callable[[list[int]], bool],
) -> list[list[int]]:
    reading = Reading(model, batch)
    best = reading.logits.argmax(-1)  # (B,)
    written: list[list[int]] = [[] for _ in batch]
    ended = [False] * len(batch)
    for step in range(max_new_tokens):
        _take(best, written, ended, done)
        if all(ended) or step == max_new_tokens - 1:
            break
        best = reading.go_on(best[:, None])[:, -1].argmax(-1)
    return written


def _take(
    best: Tensor, written: list[list[int]], ended: list[bool], done: Callable[[list[int]], bool]
) -> None:
    for row, token in enumerate(best.tolist()):
        if not ended[row]:
            written[row].append(token)
            ended[row] = done(written[row])
