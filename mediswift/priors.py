"""Scores corrected for what a model would answer to anything: an option, never the default.

Decisions: a prior is one number of nats an answer; it is subtracted from the scores, and the
likeliest answer is found anew. Two priors are offered. `content_free` is contextual calibration
(Zhao et al. 2021): the scores of a question without content; the same difference is Holtzman et
al.'s (2021) domain PMI. `marginal` is fitted on training questions: it shifts the mean
probabilities given there to the labels' own shares (Saerens et al. 2002, run backwards; Zhou et
al. 2024 shift them to equal ones). No test label is seen. Refused: a threshold tuned on the test.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mediswift.likelihood import log_likelihoods
from mediswift.pubmedqa import answer_ids, front_ids, joiner, render, text_ids
from mediswift.questions import ANSWERS
from mediswift.report import Report

EMPTY = {"question": "", "contexts": [""], "long_answer": "", "label": ""}
ROUNDS = 200


def content_free(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, setting: str
) -> np.ndarray:
    """Scores in nats, (3,), of the question that asks nothing about no text."""
    readable = "question_only" if setting == "question_only" else "reasoning_required"
    words = text_ids(tokenizer, render(EMPTY, readable).source)
    phrase, answers = answer_ids(tokenizer)
    prefix = joiner(model)(front_ids(tokenizer) + words, phrase)
    return log_likelihoods(model, [prefix], answers)[0]


def marginal(training: Report) -> np.ndarray:
    """Nats, (3,), that bring the mean probabilities on training questions to the labels' shares.

    An answer that occurs in no label is left as it is. Raises ValueError without scores.
    """
    nats = np.log(np.maximum(training.probabilities, 1e-300))
    shares = np.array([training.labels.count(answer) for answer in ANSWERS]) / training.n
    prior, seen = np.zeros(len(ANSWERS)), shares > 0
    for _ in range(ROUNDS):
        given = np.exp(nats - prior)
        mean = (given / given.sum(1, keepdims=True)).mean(0)
        prior[seen] += np.log(mean[seen] / shares[seen])
    return prior


def corrected(report: Report, prior: np.ndarray, how: str) -> Report:
    """The report with `prior` subtracted from its scores; its name ends in `how`.

    >>> row = {"pmid": "1", "label": "no", "prediction": "yes"}
    >>> row["scores"] = {"yes": -1.0, "no": -2.0, "maybe": -9.0}
    >>> corrected(Report([row], "question_only"), np.array([2.0, 0.0, 0.0]), "x").answers
    ['no']
    """
    if not report.scored:
        raise ValueError(f"A prior is subtracted from scores, {report.name} has answers only.")
    rows = []
    for row in report.predictions:
        nats = {a: row["scores"][a] - float(p) for a, p in zip(ANSWERS, prior, strict=True)}
        rows.append(row | {"scores": nats, "prediction": max(ANSWERS, key=nats.__getitem__)})
    return Report(rows, report.setting, report.truncated, f"{report.name}, {how}", report.baseline)
