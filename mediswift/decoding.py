"""What a causal language model writes after a prefix, word for word its likeliest.

Decisions. Greedy and batched, with the model's own cache. Rows are padded on the right, because
left padding shifts learned positions: what a row writes stands behind its padding in the cache, and
masks and positions say where it really is. So a row writes the same alone and in company. The
choice is between words of the vocabulary: virtual tokens are never written.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mediswift.likelihood import evaluating, keeping


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
        for rows in _batches(prefixes, max_new_tokens, batch_tokens):
            batch = [list(prefixes[i]) for i in rows]
            for i, ids in zip(rows, _write(model, batch, max_new_tokens, done), strict=True):
                written[i] = ids
    return written


def _batches(
    prefixes: Sequence[Sequence[int]], more: int, batch_tokens: int
) -> Iterator[list[int]]:
    """Indices of rows of like length, the longest first, so that a batch too large fails at once"""
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]), reverse=True)
    while order:
        size = max(1, batch_tokens // (len(prefixes[order[0]]) + more))
        yield order[:size]
        order = order[size:]


def _write(
    model: torch.nn.Module,
    batch: list[list[int]],
    max_new_tokens: int,
    done: Callable[[list[int]], bool],
) -> list[list[int]]:
    device = next(model.parameters()).device
    lengths = torch.tensor([len(row) for row in batch], device=device)
    ids = pad_sequence([torch.tensor(row) for row in batch], batch_first=True).to(device)  # (B, T)
    positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
    mask = (positions < lengths[:, None]).long()
    keep = keeping(model, ids.shape[1] - int(lengths.min()) + 1)
    output = model(ids, attention_mask=mask, position_ids=positions, use_cache=True, **keep)
    ends = lengths - ids.shape[1] - 1  # from the end, where logits may be all that is left
    best = output.logits[torch.arange(len(batch)), ends].argmax(-1)  # (B,)
    written: list[list[int]] = [[] for _ in batch]
    ended = [False] * len(batch)
    for step in range(max_new_tokens):
        _take(best, written, ended, done)
        if all(ended) or step == max_new_tokens - 1:
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        output = model(
            input_ids=best[:, None],
            attention_mask=mask,
            position_ids=(lengths + step)[:, None],
            past_key_values=output.past_key_values,
            use_cache=True,
        )
        best = output.logits[:, -1].argmax(-1)
    return written


def _take(
    best: Tensor, written: list[list[int]], ended: list[bool], done: Callable[[list[int]], bool]
) -> None:
    for row, token in enumerate(best.tolist()):
        if not ended[row]:
            written[row].append(token)
            ended[row] = done(written[row])
