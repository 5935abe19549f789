"""How likely a causal language model finds each of a few answers after a prefix.

Decisions. Scores are sums over all tokens of an answer, so that an answer of several tokens is
neither favored nor cut. Rows are padded on the right, because left padding shifts learned
positions; a causal model never looks that way, so no mask is made, and attention takes its fast
path. A prefix is read once: answers that begin alike share its row, so those of one token cost one
row a prefix, and others go on from the model's cache, where it has one. Rows of like length go
together, the longest first, so that a batch too large fails at once. Log-softmax is in
float32 at the few positions that count, whatever the model's precision.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from mediswift.cache import Reading, keeping, remembers

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
    scores, stems = np.zeros((len(prefixes), len(answers))), _stems(answers)
    with evaluating(model):
        if len(stems) > 1 and remembers(model):
            for batch in by_length(prefixes, len(max(stems, key=len)), batch_tokens):
                scores[batch] = _continued(model, [prefixes[i] for i in batch], answers, stems)
            return scores
        rows = _rows(prefixes, answers, stems)
        for picked in by_length([row.ids for row in rows], 0, batch_tokens):
            batch = [rows[i] for i in picked]
            reads = [read for row in batch for read in row.reads]
            for read, value in zip(reads, _log_probabilities(model, batch), strict=True):
                scores[read.prefix, read.answer] += value
    return scores


def by_length(
    prefixes: Sequence[Sequence[int]], more: int, batch_tokens: int
) -> Iterator[list[int]]:
    """Indices of rows of like length, the longest first, so that a batch too large fails at once.

    A batch is one row, or rows x (length + `more`) <= `batch_tokens`.
    """
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]), reverse=True)
    while order:
        size = max(1, batch_tokens // (len(prefixes[order[0]]) + more))
        yield order[:size]
        order = order[size:]


def _stems(answers: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The answers without their last tokens, but for those that another continues."""
    stems = {tuple(answer[:-1]) for answer in answers}
    return sorted(s for s in stems if not any(t != s and t[: len(s)] == s for t in stems))


def _home(answer: Sequence[int], stems: list[tuple[int, ...]]) -> int:
    """Index of the stem that begins with all of an answer but its last token."""
    return next(i for i, s in enumerate(stems) if s[: len(answer) - 1] == tuple(answer[:-1]))


def _continued(
    model: torch.nn.Module,
    prefixes: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    stems: list[tuple[int, ...]],
) -> np.ndarray:
    """Log-likelihoods (B, answers): prefixes are read once, and each stem goes on from there."""
    reading = Reading(model, prefixes)
    first = reading.logits.float().log_softmax(-1)  # (B, V)
    rows = [torch.tensor(stem, dtype=torch.long) for stem in stems]
    more = pad_sequence(rows, batch_first=True).to(first.device).repeat(len(prefixes), 1)
    later = reading.repeat(len(stems)).go_on(more).float().log_softmax(-1)  # (B x S, L, V)
    later = later.view(len(prefixes), len(stems), *later.shape[1:])
    columns = [
        first[:, answer[0]]
        + sum(later[:, _home(answer, stems), j, token] for j, token in enumerate(answer[1:]))
        for answer in answers
    ]
    return torch.stack(columns, dim=1).double().cpu().numpy()


def _rows(
    prefixes: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    stems: list[tuple[int, ...]],
) -> list[_Row]:
    """Rows prefix + stem, one for each stem."""
    homes = [_home(answer, stems) for answer in answers]
    return [
        _Row(
            [*prefix, *stem],
            [
                _Read(p, a, len(prefix) - 1 + j, token)
                for a, answer in enumerate(answers)
                if homes[a] == i
                for j, token in enumerate(answer)
            ],
        )
        for p, prefix in enumerate(prefixes)
        for i, stem in enumerate(stems)
    ]


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
