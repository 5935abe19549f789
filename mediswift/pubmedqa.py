"""The PubMedQA task: a question in words, a model's answers to it, and how good they are.

Decisions. A question is BioGPT's sequence: `question: ... context: ...`, then ` the answer to the
question given the context is yes.` A model answers with the one of the three words that it finds
likeliest there: no generated text to parse, no threshold, no question without an answer. What is
too long loses the end of its context, never the question or the answer. A report keeps every
answer, so that two models can be compared question by question. Refused: an accuracy without its
interval and the majority class beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mediswift.likelihood import log_likelihoods
from mediswift.questions import ANSWERS, limit, load, load_official, official_split, split
from mediswift.report import Report

__all__ = ["ANSWERS", "Report", "encode", "evaluate", "humans", "render"]
__all__ += ["limit", "load", "official_split", "split"]

SETTINGS = ("reasoning_required", "reasoning_free", "question_only")
PHRASE = " the answer to the question given the context is"


class Rendered(NamedTuple):
    """A question in words: what the model reads, and how it should go on."""

    source: str
    target: str


def render(question: Mapping[str, Any], setting: str = "reasoning_required") -> Rendered:
    """Source and target in BioGPT's wording, all white space made single spaces.

    The target begins with its space, so that byte-level BPE sees the answer as " yes", " no" or
    " maybe". `setting`: the context is the abstract without its conclusion (reasoning_required),
    the conclusion alone (reasoning_free), or left out (question_only).
    Raises ValueError for another setting, or without a conclusion where one is needed.

    >>> render({"question": "Is it?", "contexts": ["We saw", "it."], "label": "yes"}).source
    'question: Is it? context: We saw it.'
    """
    words = _head(question, setting).split() + _context(question, setting).split()
    return Rendered(" ".join(words), f"{PHRASE} {question['label']}.")


class Encoded(NamedTuple):
    """A question in token ids."""

    source: list[int]
    target: list[int]
    truncated: bool


class Frame(NamedTuple):
    """What is the same around every question, in token ids."""

    front: list[int]
    targets: dict[str, list[int]]
    """The target of each answer."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Frame":
        """Frame that `tokenizer` makes."""
        targets = {a: continuation_ids(tokenizer, f"{PHRASE} {a}.") for a in ANSWERS}
        return cls(front_ids(tokenizer), targets)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    question: Mapping[str, Any],
    setting: str = "reasoning_required",
    max_length: int | None = None,
    frame: Frame | None = None,
) -> Encoded:
    """Token ids of source and target, together at most `max_length`, as `evaluate` reads them.

    The source opens with what the tokenizer itself puts in front of a text. Its end, which is the
    context's, is cut until the longest answer fits: a cut that knew the answer would tell it.
    `frame` saves making it again for each question. Raises ValueError, naming the PMID, when
    question and answer alone are too long.
    """
    frame = frame or Frame.of(tokenizer)
    rendered = render(question, setting)
    source = frame.front + text_ids(tokenizer, rendered.source)
    target = frame.targets.get(question["label"]) or continuation_ids(tokenizer, rendered.target)
    if max_length is None:
        return Encoded(source, target, False)
    room = max_length - max(map(len, frame.targets.values()))
    if room < len(source):
        _check_room(tokenizer, question, setting, room - len(frame.front))
    return Encoded(source[:room], target, len(source) > room)


def evaluate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
    setting: str = "reasoning_required",
    batch_tokens: int | None = None,
    max_length: int | None = None,
) -> Report:
    """Report of a causal language model, or of a `prompts.SoftPrompt`, on `questions`.

    A score is the log-likelihood in nats of " yes", " no" or " maybe"; a tie goes to the first.
    `batch_tokens` bounds rows x length of a batch, `max_length` a row (default: the model's number
    of positions). Raises ValueError for a question that is too long by itself or scored NaN.
    """
    room = positions(model, max_length)
    phrase, answers = answer_ids(tokenizer)
    frame, join = Frame.of(tokenizer), joiner(model)
    encoded = [encode(tokenizer, question, setting, room, frame) for question in questions]
    prefixes = [list(join(item.source, phrase)) for item in encoded]
    scores = log_likelihoods(model, prefixes, answers, batch_tokens)
    predictions = [prediction(*pair) for pair in zip(questions, scores, strict=True)]
    return Report(predictions, setting, sum(item.truncated for item in encoded))


def joiner(model: torch.nn.Module) -> Callable[[list[int], list[int]], list[int]]:
    """How `model` puts source and target together: a soft prompt comes between or before."""
    return getattr(model, "assemble", lambda source, target: [*source, *target])


def positions(model: torch.nn.Module, max_length: int | None = None) -> int | None:
    """Tokens of text that fit: `max_length`, or the model's positions, less virtual tokens.

    None for a model without a bound.
    """
    if max_length is None:
        max_length = getattr(model.config, "max_position_embeddings", None)
    virtual = len(joiner(model)([0], [0])) - 2  # these take positions too
    return None if max_length is None else max_length - virtual


def humans(path: str | Path, setting: str = "reasoning_required") -> Report:
    """Report of the human annotator on the test half of the official file at `path`.

    Published: accuracy 78.0, macro-F1 72.2 (reasoning_required); 90.4 and 84.2 (reasoning_free).
    """
    items, field = load_official(path), f"{setting}_pred"
    if not all(field in item for item in items.values()):
        raise ValueError(
            f"Humans answered in the official file alone, {path} has no {field}; give "
            "ori_pqal.json, and reasoning_required or reasoning_free."
        )
    test = official_split({pmid: item["final_decision"] for pmid, item in items.items()})["test"]
    pairs = [(pmid, items[pmid]["final_decision"], items[pmid][field]) for pmid in test]
    rows = [{"pmid": p, "label": label, "prediction": said} for p, label, said in pairs]
    return Report(rows, setting, name="humans", baseline=True)


def _check_room(
    tokenizer: PreTrainedTokenizerBase, question: Mapping[str, Any], setting: str, room: int
) -> None:
    least = len(text_ids(tokenizer, _head(question, setting)))
    if room < least:
        raise ValueError(
            f"Question and answer must fit into max_length, PMID {question['pmid']} is "
            f"{least - room} tokens too long; use a longer context or leave this item out."
        )


def _head(question: Mapping[str, Any], setting: str) -> str:
    """The part of the source that is never cut."""
    words = " ".join(question["question"].split())
    return f"question: {words}" + ("" if setting == "question_only" else " context:")


def _context(question: Mapping[str, Any], setting: str) -> str:
    if setting not in SETTINGS:
        raise ValueError(f"A setting is one of {', '.join(SETTINGS)}, got {setting!r}; name one.")
    if setting == "reasoning_free" and not question["long_answer"].strip():
        raise ValueError(
            f"reasoning_free reads the long answer, PMID {question['pmid']} has none; "
            "use reasoning_required or another copy of the data."
        )
    sections = {"reasoning_required": "contexts", "reasoning_free": "long_answer"}.get(setting)
    text = question[sections] if sections else ""
    return text if isinstance(text, str) else " ".join(text)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` and of nothing around it."""
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def continuation_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` where it goes on from other text.

    SentencePiece puts a space before whatever it is given: tokenized alone, " yes" would have two.
    """
    before, whole = text_ids(tokenizer, "."), text_ids(tokenizer, f".{text}")
    goes_on = whole[: len(before)] == before
    return whole[len(before) :] if goes_on else text_ids(tokenizer, text)


def front_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts in front of a text; what it puts behind is not."""
    text = tokenizer("a", return_special_tokens_mask=True)
    pairs = zip(text.input_ids, text.special_tokens_mask, strict=True)
    return [token for token, _ in takewhile(lambda pair: pair[1], pairs)]


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, phrase: str = PHRASE, answers: Sequence[str] = ANSWERS
) -> tuple[list[int], list[list[int]]]:
    """The phrase's token ids, and those of each answer after it, of one token or more.

    What the answers share, such as a space, belongs to the phrase. Raises ValueError for a
    tokenizer that cannot tell the answers apart.
    """
    targets = [continuation_ids(tokenizer, f"{phrase} {answer}") for answer in answers]
    shared = sum(1 for _ in takewhile(lambda t: len(set(t)) == 1, zip(*targets, strict=False)))
    rests = [target[shared:] for target in targets]
    if not all(rests):
        raise ValueError(
            f"A tokenizer must tell {', '.join(answers[:-1])} and {answers[-1]} apart, this one "
            f"gives {targets}; train it on text that holds the words."
        )
    return targets[0][:shared], rests


def prediction(question: Mapping[str, Any], scores: np.ndarray) -> dict[str, Any]:
    """The likeliest answer to a question, with its PMID, label and scores in nats."""
    if np.isnan(scores).any():
        raise ValueError(
            f"A score is a number, PMID {question['pmid']} got {scores.tolist()}; "
            "look for NaN in the model's weights or for half precision that overflowed."
        )
    best = ANSWERS[int(scores.argmax())]
    named = dict(zip(ANSWERS, scores.tolist(), strict=True))
    row = {"pmid": question["pmid"], "label": question["label"], "prediction": best}
    return row | {"scores": named}
