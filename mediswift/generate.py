"""What a model says by itself: greedy text, and the answer read out of BioGPT's sentence.

Decisions: the likeliest token at each step, as BioGPT's inference has it with one beam. The library
generates; rows are padded on the left under a mask, from which it counts positions, so that all go
on at the same place. The answer is the word behind the fixed phrase, found by a regular expression;
a text without it has no answer, "", and is wrong. Refused: looking for a stray "yes" elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mediswift.likelihood import evaluating
from mediswift.pubmedqa import PHRASE, Frame, encode, joiner, positions
from mediswift.questions import ANSWERS
from mediswift.report import Report, same_setting

SENTENCE = re.compile(rf"{PHRASE.strip()} ({'|'.join(ANSWERS)})\b", re.IGNORECASE)
BATCH = 16


def answer(text: str) -> str:
    """Answer of a generated text, "" when the fixed phrase is not in it.

    >>> answer("the answer to the question given the context is No."), answer("yes")
    ('no', '')
    """
    found = SENTENCE.search(" ".join(text.split()))
    return found[1].lower() if found else ""


def spoken(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
    setting: str = "reasoning_required",
    max_length: int | None = None,
) -> Report:
    """Report of what is generated after each question; predictions keep the text.

    Raises what `pubmedqa.encode` raises.
    """
    room = positions(model, max_length)
    frame, join = Frame.of(tokenizer), joiner(model)
    encoded = [encode(tokenizer, question, setting, room, frame) for question in questions]
    prefixes = [join(item.source, []) for item in encoded]
    longest = max(len(item.target) for item in encoded) + 1  # "maybe" may take one more
    said = greedy(model, prefixes, min(longest, _left(model, prefixes)))
    rows = []
    for question, ids in zip(questions, said, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        own = {"pmid": question["pmid"], "label": question["label"]}
        rows.append(own | {"prediction": answer(text), "text": text})
    return Report(rows, setting, sum(item.truncated for item in encoded), "generated")


def greedy(
    model: torch.nn.Module, prefixes: Sequence[Sequence[int]], tokens: int, batch: int = BATCH
) -> list[list[int]]:
    """The `tokens` likeliest next ids after each prefix, fewer where the model ends its text."""
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))
    said: dict[int, list[int]] = {}
    with evaluating(model):
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            said |= zip(rows, _generate(model, [prefixes[i] for i in rows], tokens), strict=True)
    return [said[i] for i in range(len(prefixes))]


def disagreement(one: Report, other: Report) -> float:
    """Share of the questions that two reports answer differently, in [0, 1]."""
    same_setting([one, other])
    one.same_questions(other)
    theirs = {row["pmid"]: row["prediction"] for row in other.predictions}
    return sum(row["prediction"] != theirs[row["pmid"]] for row in one.predictions) / one.n


def _generate(model: torch.nn.Module, prefixes: list, tokens: int) -> list[list[int]]:
    """New ids of a batch, cut where the text ends."""
    device, width = next(model.parameters()).device, max(map(len, prefixes))
    # The padding is hidden by the mask; 0 is an id that every vocabulary has.
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in prefixes], device=device)
    lengths = torch.tensor([[len(row)] for row in prefixes], device=device)
    mask = (torch.arange(width, device=device) >= width - lengths).long()
    inner = getattr(model, "model", None) if hasattr(model, "embed") else None
    inputs = {"inputs_embeds": model.embed(ids)} if inner else {"input_ids": ids}
    plain = {"do_sample": False, "num_beams": 1, "max_new_tokens": tokens, "pad_token_id": 0}
    new = (inner or model).generate(**inputs, attention_mask=mask, **plain)
    new = new if inner else new[:, width:]
    ends = getattr((inner or model).generation_config, "eos_token_id", None)
    ends = set(ends if isinstance(ends, list) else [ends])
    return [_until(row, ends) for row in new.tolist()]


def _until(ids: list[int], ends: set) -> list[int]:
    place = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[:place]


def _left(model: torch.nn.Module, prefixes: Sequence[Sequence[int]]) -> int:
    bound = getattr(model.config, "max_position_embeddings", None)
    return max(1, bound - max(map(len, prefixes))) if bound else 1 << 20
