"""Which hallmarks of cancer were named for each abstract, and how good that is.

Decisions. A report holds predictions, and every figure follows from them. F1 is over the ten
hallmarks, micro (all decisions pooled) and macro (the mean over hallmarks); the micro-F1 that
counts "empty" as an eleventh class, as BioGPT's script does, stands beside it, since the two differ
by much. Intervals are bootstrapped over documents, whose labels belong together. An answer that is
no sentence of the task's form names nothing, and how many were so is said.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mediswift import stats

LABELS = (
    "sustaining proliferative signaling",
    "evading growth suppressors",
    "resisting cell death",
    "enabling replicative immortality",
    "inducing angiogenesis",
    "activating invasion and metastasis",
    "genomic instability and mutation",
    "tumor promoting inflammation",
    "cellular energetics",
    "avoiding immune destruction",
)
"""The ten hallmarks, in the order that a target names them (Hanahan and Weinberg 2011)."""
EMPTY = "empty"
CONSTANTS = ("no label", "all labels", "commonest label")
"""Names of those who read nothing."""
SEED = 0


@dataclass(frozen=True)
class Report:
    """What was named, and how good that is. Shares are of 1; it prints as a table in percent."""

    predictions: list[dict[str, Any]]
    """One a document: pmid, labels, prediction (lists of names), parsed where a model wrote."""
    truncated: int = 0
    """Documents whose text was cut to fit."""
    name: str = "model"
    """Who answered, for print."""

    def __post_init__(self) -> None:
        """Refuse a report on nothing, and a name that is no hallmark."""
        if not self.predictions:
            raise ValueError("A report needs one document or more, got none; check the split.")
        named = {x for row in self.predictions for x in [*row["labels"], *row["prediction"]]}
        if unknown := sorted(named - set(LABELS)):
            raise ValueError(f"A label is one of {', '.join(LABELS)}; got {', '.join(unknown)}.")

    @property
    def n(self) -> int:
        """Number of documents."""
        return len(self.predictions)

    @cached_property
    def labels(self) -> np.ndarray:
        """True labels, booleans of shape (documents, 10)."""
        return indicators([row["labels"] for row in self.predictions])

    @cached_property
    def answers(self) -> np.ndarray:
        """Named labels, booleans of shape (documents, 10)."""
        return indicators([row["prediction"] for row in self.predictions])

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions pooled."""
        return f1(*_pooled(self.labels, self.answers))

    @property
    def macro_f1(self) -> float:
        """Mean of the hallmarks' F1; one that nobody has and nobody named counts as 0."""
        return float(np.mean(list(self.f1_by_label.values())))

    @property
    def micro_f1_with_empty(self) -> float:
        """Micro-F1 that takes "empty" for an eleventh class, as BioGPT's script does."""
        return f1(*_pooled(_with_empty(self.labels), _with_empty(self.answers)))

    @property
    def f1_by_label(self) -> dict[str, float]:
        """{hallmark: F1}."""
        pairs = zip(LABELS, self.labels.T, self.answers.T, strict=True)
        return {name: f1(*_pooled(y, p)) for name, y, p in pairs}

    @property
    def exact(self) -> float:
        """Share of documents whose set of labels was named exactly."""
        return float((self.labels == self.answers).all(1).mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of micro-F1, bootstrapped over documents."""
        return stats.bootstrap(f1, *counts(self), seed=SEED)

    @property
    def low(self) -> float:
        """Lower end of micro-F1's interval."""
        return self.interval[0]

    @property
    def high(self) -> float:
        """Upper end of micro-F1's interval."""
        return self.interval[1]

    @property
    def unparsed(self) -> int:
        """Answers that were no sentence of the task's form."""
        return sum(not row.get("parsed", True) for row in self.predictions)

    def difference(self, other: "Report") -> tuple[float, float, float]:
        """This micro-F1 minus the other's, and its 95 % interval over documents, paired.

        Raises ValueError when the two are not about the same documents in the same order.
        """
        if [r["pmid"] for r in self.predictions] != [r["pmid"] for r in other.predictions]:
            raise ValueError("Two reports are compared on the same documents, in the same order.")
        columns = [*counts(self), *counts(other)]
        low, high = stats.bootstrap(lambda *c: f1(*c[:3]) - f1(*c[3:]), *columns, seed=SEED)
        return self.micro_f1 - other.micro_f1, low, high

    def metrics(self) -> dict[str, Any]:
        """All figures as plain JSON."""
        names = ("micro_f1", "low", "high", "macro_f1", "micro_f1_with_empty", "exact")
        names += ("n", "truncated", "unparsed", "f1_by_label")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        """Print the scores, and each hallmark's F1 beside how often it occurs and was named."""
        share = [f"{100 * x:.1f}" for x in (self.micro_f1, self.low, self.high, self.macro_f1)]
        head = f"{self.name}: micro-F1 {share[0]} [{share[1]}, {share[2]}], macro-F1 {share[3]}"
        note = f"n {self.n}, cut {self.truncated}, unparsed {self.unparsed}"
        counts = zip(self.f1_by_label.items(), self.labels.sum(0), self.answers.sum(0), strict=True)
        rows = [f"{name:36}{100 * x:6.1f}{y:6}{p:6}" for (name, x), y, p in counts]
        return "\n".join([f"{head}; {note}", f"{'':36}{'F1':>6}{'true':>6}{'named':>6}", *rows])


def indicators(sets: Sequence[Sequence[str]]) -> np.ndarray:
    """Booleans of shape (documents, 10): which hallmarks each document's set holds.

    >>> indicators([["cellular energetics"], []]).sum(1).tolist()
    [1, 0]
    """
    return np.array([[label in found for label in LABELS] for found in sets])


def f1(hits: Any, named: Any, true: Any) -> float:
    """F1 = 2 hits / (named + true), of numbers or of columns to be summed; 0 when nothing is.

    >>> f1([1, 0], [1, 1], [1, 0])
    0.6666666666666666
    """
    total = np.sum(named) + np.sum(true)
    return float(2 * np.sum(hits) / total) if total else 0.0


def counts(report: Report) -> list[np.ndarray]:
    """Hits, named and true labels of each document."""
    y, p = report.labels, report.answers
    return [(y & p).sum(1), p.sum(1), y.sum(1)]


def constants(documents: Any, training: Any) -> list[Report]:
    """Reports of those who read nothing: no label, all labels, the commonest label of `training`.

    Both are datasets with the columns `pmid` and `labels`.
    """
    commonest = Counter(label for found in training["labels"] for label in found).most_common(1)
    chosen = dict(zip(CONSTANTS, ([], list(LABELS), [commonest[0][0]]), strict=True))
    return [
        Report([{"pmid": p, "labels": y, "prediction": said} for p, y in rows], name=name)
        for name, said in chosen.items()
        for rows in [list(zip(documents["pmid"], documents["labels"], strict=True))]
    ]


def bag_of_words(documents: Any, training: Any) -> Report:
    """Report of a linear classifier on word counts, which a language model should beat.

    TF-IDF of words and pairs of words, and a logistic regression a hallmark, its classes balanced;
    nothing is tuned. Datasets with the columns `pmid`, `text`, `labels`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = OneVsRestClassifier(LogisticRegression(class_weight="balanced", max_iter=1000))
    pipeline = make_pipeline(words, model)
    pipeline.fit(training["text"], indicators(training["labels"]).astype(int))
    named = pipeline.predict(documents["text"])
    rows = zip(documents["pmid"], documents["labels"], named, strict=True)
    return Report(
        [{"pmid": pmid, "labels": y, "prediction": _names(said)} for pmid, y, said in rows],
        name="bag of words",
    )


def _names(row: np.ndarray) -> list[str]:
    return [label for label, is_in in zip(LABELS, row, strict=True) if is_in]


def _pooled(labels: np.ndarray, answers: np.ndarray) -> tuple[int, int, int]:
    return int((labels & answers).sum()), int(answers.sum()), int(labels.sum())


def _with_empty(found: np.ndarray) -> np.ndarray:
    return np.column_stack([found, ~found.any(1)])
