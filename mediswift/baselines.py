"""Baselines: what a language model must beat to be worth anything.

Decisions: the majority class is the training questions' own, as a baseline must not see the test.
The bag of words is scikit-learn's TF-IDF of words and pairs of words under a logistic regression
with its default strength, trained on the fold's training questions; it reads what the setting lets
a model read. Its scores are logarithms of probabilities, so it is calibrated and compared like a
model. Each is a yardstick (`Report.baseline`), so question-only may stand beside the setting.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from datasets import Dataset

from mediswift.pubmedqa import render
from mediswift.questions import ANSWERS
from mediswift.report import Report


def majority(train: Dataset, test: Dataset, setting: str = "reasoning_required") -> Report:
    """Report of always giving the most frequent answer of the training questions."""
    answer = Counter(train["label"]).most_common(1)[0][0]
    rows = [
        {"pmid": pmid, "label": label, "prediction": answer}
        for pmid, label in zip(test["pmid"], test["label"], strict=True)
    ]
    return Report(rows, setting, name="majority of training", baseline=True)


def bag_of_words(train: Dataset, test: Dataset, setting: str = "reasoning_required") -> Report:
    """Report of TF-IDF and logistic regression, trained on `train`, on `test`.

    Raises ValueError for training questions with one answer only, or none, and
    ModuleNotFoundError without scikit-learn.
    """
    if len(set(train["label"])) < 2:
        raise ValueError(
            f"A classifier learns from two answers or more, the {len(train)} training questions "
            f"have {sorted(set(train['label']))}; take another fold or more questions."
        )
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    classifier = make_pipeline(words, LogisticRegression(max_iter=1000))
    classifier.fit([render(q, setting).source for q in train], train["label"])
    nats = classifier.predict_log_proba([render(q, setting).source for q in test])
    columns = {answer: i for i, answer in enumerate(classifier.classes_)}
    rows = [_row(q, row, columns) for q, row in zip(test, nats, strict=True)]
    read = "question only" if setting == "question_only" else "question and context"
    return Report(rows, setting, name=f"bag of words, {read}", baseline=True)


def _row(question: dict, nats: np.ndarray, columns: dict[str, int]) -> dict:
    """A prediction; an answer that no training question has is as good as impossible."""
    scores = {a: float(nats[columns[a]]) if a in columns else -745.0 for a in ANSWERS}
    given = max(ANSWERS, key=scores.__getitem__)
    own = {"pmid": question["pmid"], "label": question["label"]}
    return own | {"prediction": given, "scores": scores}
