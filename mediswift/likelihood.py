"""How likely a causal language model finds each of a few answers after a prefix.

Decisions. Scores are sums over all tokens of an answer, so that an answer of several tokens is
neither favored nor cut. Rows are padded on the right, because left padding shifts learned
positions; a causal model never looks that way, so no mask is made, and attention takes its fast
path. Answers that begin alike share a row: one-token answers cost one row a prefix. Rows of like
length go together, the longest first, so that a batch too large fails at once. Log-softmax is in
float32 at the few positions that count, whatever the model's precision.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

BATCH_TOKENS = {"cpu": 2048}
"""B x T of a batch by device: a CPU is fastest while a batch fits its cache."""
MOST_BATCH_TOKENS = 16_384
"""The same elsewhere."""


@dataclass(frozen=True)
class _Read:
    """One token's log-probability that belongs to one score."""

    prefix: int
    answer: int
    position: int
    """Position in the row whose logits predict the token."""
    token: int


@dataclass(frozen=True)
class _Row:
    """One sequence to be read by the model."""

    ids: list[int]
    reads: list[_Read]


def log_likelihoods(
    model: torch.nn.Module,
    prefixes: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    batch_tokens: int | None = None,
) -> np.ndarray:
    """Log-likelihoods in nats, of shape (prefixes, answers): log p(answer | prefix).

    `model(input_ids, attention_mask=None)` gives `.logits` of shape (B, T, V) and is causal.
    `batch_tokens` bounds B x T (default: by device). Nothing is trained, and each module's train
    or eval mode is left as it was.
    Raises ValueError for an empty prefix or answer.
    """
    if not all(map(len, prefixes)) or not all(map(len, answers)):
        raise ValueError(
            "A prefix and an answer need one token or more, got an empty one; "
            "check what the tokenizer makes of the text."
        )
    device = next(model.parameters()).device.type
    batch_tokens = batch_tokens or BATCH_TOKENS.get(device, MOST_BATCH_TOKENS)
    scores = np.zeros((len(prefixes), len(answers)))
    with evaluating(model):
        for batch in _batches(_rows(prefixes, answers), batch_tokens):
            reads = [read for row in batch for read in row.reads]
            for read, value in zip(reads, _log_probabilities(model, batch), strict=True):
                scores[read.prefix, read.answer] += value
    return scores


def _rows(prefixes: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[_Row]:
    """Rows prefix + answer without its last token, one for each stem that no other continues."""
    stems = {tuple(answer[:-1]) for answer in answers}
    kept = sorted(s for s in stems if not any(t != s and t[: len(s)] == s for t in stems))
    homes = [next(s for s in kept if s[: len(a) - 1] == tuple(a[:-1])) for a in answers]
    return [
        _Row(
            [*prefix, *stem],
            [
                _Read(p, a, len(prefix) - 1 + j, token)
                for a, answer in enumerate(answers)
                if homes[a] == stem
                for j, token in enumerate(answer)
            ],
        )
        for p, prefix in enumerate(prefixes)
        for stem in kept
    ]


def _batches(rows: list[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows from the longest to the shortest, in batches of B x T <= `batch_tokens` or one row."""
    rows = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    while rows:
        size = max(1, batch_tokens // len(rows[0].ids))
        yield rows[:size]
        rows = rows[size:]


def _log_probabilities(model: torch.nn.Module, batch: list[_Row]) -> list[float]:
    """The log-probability of each read of each row, in order."""
    device = next(model.parameters()).device
    rows = [torch.tensor(row.ids) for row in batch]
    ids = pad_sequence(rows, batch_first=True)  # (B, T); no real token looks at the padding
    where = [(b, read.position, read.token) for b, row in enumerate(batch) for read in row.reads]
    b, t, token = torch.tensor(where, device=device).T
    first = int(t.min())
    logits = _last_logits(model, ids.to(device), ids.shape[1] - first)
    scores = logits[b, t - first].float().log_softmax(-1)  # (reads, V)
    return scores.gather(-1, token[:, None])[:, 0].tolist()


def _last_logits(model: torch.nn.Module, ids: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits (B, keep, V) of the last positions."""
    return model(input_ids=ids, attention_mask=None, **keeping(model, keep)).logits[:, -keep:]


def keeping(model: torch.nn.Module, count: int) -> dict[str, int]:
    """Options by which `model` gives the logits of the last `count` positions only, if it can.

    Most models can leave out the others: a third of the time of a small one, and with a large
    vocabulary most of the memory.
    """
    can = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if can else {}


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module gets back its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
