"""One model under five protocols: how far PubMedQA's number moves when only the convention does.

Decisions: each protocol is what its repository's code says, read at the version that `source`
names. It differs from ours in rows, prompt, or how an answer is read, and each is changed alone:
`answers` are our answers on its rows; `prompted` is its prompt with the likeliest of the three
answers; `read` is its prompt and its own way. Where a prompt does not fit, its beginning is cut, as
lm-evaluation-harness does. Refused: chat templates, so that one text serves all models;
inspect-evals sends its prompt as a chat, and a base model has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from mediswift import contestant, corpus, machine
from mediswift import questions as items
from mediswift.generate import greedy
from mediswift.likelihood import log_likelihoods
from mediswift.pubmedqa import (
    PHRASE,
    answer_ids,
    evaluate,
    front_ids,
    joiner,
    positions,
    prediction,
    render,
    text_ids,
)
from mediswift.questions import ANSWERS
from mediswift.records import Record
from mediswift.report import Report

LETTERS = dict(zip("ABC", ANSWERS, strict=True))
HELM = (
    "Answer A for yes, B for no or C for maybe. Do not include any explanation or additional text. "
    "Output only the letter on a single line."
)
INSPECT = (
    "Answer the following multiple choice question about medical knowledge given the context.\n"
    "The entire content of your response should be of the following format: 'ANSWER: $LETTER'\n"
    "(without quotes) where LETTER is one of A,B,C."
)
LETTER = re.compile(r"(?i)ANSWER\s*:\s*([ABC])(?![A-Za-z\d])")


@dataclass(frozen=True)
class Protocol:
    """A convention of scoring: which rows, which prompt, how the answer is read."""

    name: str
    source: str
    """Where it was read: repository, path, version."""
    rows: str
    """"test", the official 500, or "all" 1,000, training questions included."""
    prompt: Callable[[Mapping[str, Any]], str]
    answers: Sequence[str]
    """What stands for yes, no and maybe behind the prompt, each after a space."""
    tokens: int = 0
    """Most tokens that are generated greedily; 0 = the likeliest of the three is taken."""
    read: Callable[[str], str] = str
    """Answer of a generated text, "" for none."""
    cue: str = ""
    """What leads to the answer if one of three is to be chosen, where the model should write it."""


def _ours(item: Mapping[str, Any]) -> str:
    return render(item).source + PHRASE


def _harness(item: Mapping[str, Any]) -> str:
    return f"Abstract: {chr(10).join(item['contexts'])}\nQuestion: {item['question']}\nAnswer:"


def _helm(item: Mapping[str, Any]) -> str:
    labels = item["section_labels"] or [""] * len(item["contexts"])
    sections = zip(labels, item["contexts"], strict=True)
    passage = "\n".join(f"{label.title()}. {text}" for label, text in sections)
    options = "\n".join(f"{letter}. {answer}" for letter, answer in LETTERS.items())
    question = f"Context: {passage}\n\nQuestion: {item['question']}\n"
    return f"{HELM}\n\nQuestion: {question}\n{options}\nAnswer:"


def _lighteval(item: Mapping[str, Any]) -> str:
    return f"{item['question']}\n{list(item['contexts'])}\nAnswer: "


def _inspect(item: Mapping[str, Any]) -> str:
    text = f"**Context:** {' '.join(item['contexts'])}\n\n**Question:** {item['question']}"
    options = "\n".join(f"{letter}) {answer}" for letter, answer in LETTERS.items())
    return f"{INSPECT}\n\n{text}\n\n{options}\n\n"


def _helm_answer(text: str) -> str:
    return LETTERS.get(text.strip(), "")


def _word(text: str) -> str:
    return text.strip() if text.strip() in ANSWERS else ""


def _inspect_answer(text: str) -> str:
    found = LETTER.findall(text)
    return LETTERS[found[-1].upper()] if found else ""


PROTOCOLS = {
    "ours": Protocol(
        "ours",
        "the official 500 test questions, accuracy; BioGPT's wording",
        "test",
        _ours,
        ANSWERS,
    ),
    "lm-eval": Protocol(
        "lm-evaluation-harness",
        "EleutherAI/lm-evaluation-harness lm_eval/tasks/pubmedqa 4e7e0d4 (task 1.0, as in 0.4.13)",
        "test",
        _harness,
        ANSWERS,
    ),
    "helm": Protocol(
        "HELM",
        "stanford-crfm/helm src/helm/benchmark/scenarios/pubmed_qa_scenario.py, "
        "run_specs/medhelm_run_specs.py 63754d0 (exact match of one token)",
        "all",
        _helm,
        tuple(LETTERS),
        1,
        _helm_answer,
    ),
    "lighteval": Protocol(
        "lighteval",
        "huggingface/lighteval src/lighteval/tasks/tasks/pubmedqa.py 3fd1526 (exact match of one "
        "token; it asks for fields that the hub's table does not have)",
        "all",
        _lighteval,
        ANSWERS,
        1,
        _word,
    ),
    "inspect": Protocol(
        "inspect-evals",
        "UKGovernmentBEIS/inspect_evals inspect_evals/pubmedqa 0.26.0 (task 2-A), "
        "choice scorer of inspect_ai 0.3.285",
        "test",
        _inspect,
        tuple(LETTERS),
        16,
        _inspect_answer,
        "ANSWER:",
    ),
}


def prompted(
    protocol: Protocol,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
) -> Report:
    """Report of the likeliest of the three answers after the protocol's prompt."""
    phrase, answers = answer_ids(tokenizer, protocol.cue, protocol.answers)
    room = _room(model, len(phrase) + max(map(len, answers)))
    texts = [protocol.prompt(q).rstrip(" ") for q in questions]
    prefixes = [joiner(model)(*_cut(tokenizer, text, room, phrase)) for text in texts]
    scores = log_likelihoods(model, prefixes, answers)
    rows = [prediction(q, row) for q, row in zip(questions, scores, strict=True)]
    return Report(rows, "reasoning_required", name=f"{protocol.name}, likeliest")


def read(
    protocol: Protocol,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
) -> Report:
    """Report of the answers as the protocol reads them, from text that the model writes."""
    if not protocol.tokens:
        return prompted(protocol, model, tokenizer, questions)
    room = _room(model, protocol.tokens)
    prefixes = [joiner(model)(*_cut(tokenizer, protocol.prompt(q), room, [])) for q in questions]
    said = greedy(model, prefixes, protocol.tokens)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in said]
    rows = [
        {"pmid": q["pmid"], "label": q["label"], "prediction": protocol.read(t), "text": t}
        for q, t in zip(questions, texts, strict=True)
    ]
    return Report(rows, "reasoning_required", name=protocol.name)


def compare(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Dataset,
    limit: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Table of the five protocols, by name, accuracies in percent.

    `questions` is the whole set; `limit` keeps so many of each protocol's rows, drawn stratified.
    Columns: rows, n; ours, low, high: our answers on its rows; likeliest; read, read_low,
    read_high: by its own way; unread: share without an answer; f1: macro-F1 of `read`.
    """
    parts = {"all": questions, "test": items.split(questions, "test")}
    if limit:
        parts = {name: items.limit(part, limit, seed) for name, part in parts.items()}
    known = {"all": evaluate(model, tokenizer, parts["all"])}
    # Without a limit the test's answers are among them.
    known["test"] = evaluate(model, tokenizer, parts["test"]) if limit else _of(known["all"], parts)
    rows = {}
    for key, protocol in PROTOCOLS.items():
        part, ours = parts[protocol.rows], known[protocol.rows]
        asked = ours if key == "ours" else prompted(protocol, model, tokenizer, part)
        own = read(protocol, model, tokenizer, part) if protocol.tokens else asked
        rows[protocol.name] = _row(protocol, ours, asked, own)
    return pd.DataFrame(rows).T.infer_objects()


def keep(table: pd.DataFrame, questions: Dataset, chosen: dict[str, Any], folder: Path) -> Record:
    """Record of a table of `compare`, written under `folder`; `chosen` is what the user chose."""
    data = corpus.fingerprint(questions)[:12]
    rows = [{"protocol": name} | row for name, row in table.to_dict("index").items()]
    return machine.keep_study(
        folder,
        "protocols",
        contestant.label(chosen["model"]),
        chosen | {"data": data},
        params=chosen,
        metrics={"rows": rows},
        data_fingerprint=data,
    )


def _of(report: Report, parts: dict[str, Dataset]) -> Report:
    wanted = set(parts["test"]["pmid"])
    rows = [row for row in report.predictions if row["pmid"] in wanted]
    return Report(rows, report.setting)


def _row(protocol: Protocol, ours: Report, asked: Report, own: Report) -> dict[str, Any]:
    shares = {"ours": ours.accuracy, "low": ours.low, "high": ours.high}
    shares |= {"likeliest": asked.accuracy, "read": own.accuracy}
    shares |= {"read_low": own.low, "read_high": own.high, "f1": own.macro_f1}
    shares["unread"] = own.unanswered / own.n
    percent = {name: 100 * share for name, share in shares.items()}
    return {"rows": protocol.rows, "n": own.n} | percent


def _room(model: torch.nn.Module, answer: int) -> int | None:
    bound = positions(model)
    return None if bound is None else bound - answer


def _cut(
    tokenizer: PreTrainedTokenizerBase, text: str, room: int | None, phrase: list[int]
) -> tuple[list[int], list[int]]:
    """Ids of the prompt, its last `room`, and the phrase; special tokens are the tokenizer's own in
    front, as the harness has it."""
    ids = front_ids(tokenizer) + text_ids(tokenizer, text)
    return (ids if room is None else ids[-room:]), phrase
