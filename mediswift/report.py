"""What was answered to PubMedQA's questions, how good that is, and how sure one can be.

Decisions: a report holds predictions, and every figure follows from them, so that any two can be
compared question by question later, without their models. It prints itself beside the majority
class, because an accuracy alone says nothing.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mediswift import stats
from mediswift.questions import ANSWERS


@dataclass(frozen=True)
class Report:
    """What was answered, and how good that is. Shares are of 1; it prints as a table in percent."""

    predictions: list[dict[str, Any]]
    """One a question: pmid, label, prediction, scores {answer: nats} where a model gave them."""
    setting: str
    truncated: int = 0
    """Questions whose context was cut to fit."""
    name: str = "model"
    """Who answered, for print."""

    def __post_init__(self) -> None:
        """Refuse a report on nothing."""
        if not self.predictions:
            raise ValueError("A report needs one question or more, got none; check the split.")

    @property
    def n(self) -> int:
        """Number of questions."""
        return len(self.predictions)

    @cached_property
    def labels(self) -> list[str]:
        """True answers."""
        return [row["label"] for row in self.predictions]

    @cached_property
    def answers(self) -> list[str]:
        """Given answers."""
        return [row["prediction"] for row in self.predictions]

    @cached_property
    def correct(self) -> dict[str, bool]:
        """Whether each PMID was answered truly."""
        return {row["pmid"]: row["label"] == row["prediction"] for row in self.predictions}

    @property
    def accuracy(self) -> float:
        """Share of questions answered truly."""
        return sum(self.correct.values()) / self.n

    @property
    def low(self) -> float:
        """Lower end of accuracy's 95 % Wilson interval."""
        return stats.wilson(sum(self.correct.values()), self.n)[0]

    @property
    def high(self) -> float:
        """Upper end of accuracy's 95 % Wilson interval."""
        return stats.wilson(sum(self.correct.values()), self.n)[1]

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the answers that occur."""
        return stats.macro_f1(self.labels, self.answers)

    @property
    def recall(self) -> dict[str, float]:
        """{answer: share of its questions that were answered so}."""
        return stats.recall(self.labels, self.answers)

    @property
    def confusion(self) -> np.ndarray:
        """Counts of shape (true, given), both in the order yes, no, maybe."""
        return stats.confusion(self.labels, self.answers, ANSWERS)

    @property
    def majority(self) -> float:
        """Accuracy of always giving the most frequent true answer."""
        return self._majority().accuracy

    def difference(self, other: "Report") -> stats.Difference:
        """This accuracy minus the other's, question by question.

        Raises ValueError when the two are not about the same PMIDs.
        """
        if apart := self.correct.keys() ^ other.correct.keys():
            raise ValueError(
                f"Two reports are compared on the same questions, {len(apart)} PMIDs such as "
                f"{min(apart)} are in one only; evaluate both on one data set."
            )
        theirs = [other.correct[pmid] for pmid in self.correct]
        return stats.paired_difference(list(self.correct.values()), theirs)

    def metrics(self) -> dict[str, Any]:
        """All figures as plain JSON; the confusion's rows are true, its columns given answers."""
        names = ("accuracy", "low", "high", "macro_f1", "n", "truncated")
        recalls = {f"recall_{answer}": share for answer, share in self.recall.items()}
        figures = {name: getattr(self, name) for name in names}
        others = {"majority_accuracy": self.majority, "confusion": self.confusion.tolist()}
        return figures | others | recalls

    def __str__(self) -> str:
        """Print ours, the majority class, whether they can be told apart, and the confusion."""
        majority = self._majority()
        width = max(map(len, (self.name, majority.name))) + 2
        head = f"{'':{width}}{'accuracy':20}{'macro-F1':>9}{'n':>6}"
        verdict = f"{self.name} - majority: {self.difference(majority)}"
        table = [head, self._line(width), majority._line(width), verdict, self._note()]
        return "\n".join([*table, *self._confusion_lines()])

    def _line(self, width: int) -> str:
        share, low, high = (f"{100 * x:.1f}" for x in (self.accuracy, self.low, self.high))
        interval = f"{share} [{low}, {high}]"
        return f"{self.name:{width}}{interval:20}{100 * self.macro_f1:9.1f}{self.n:6}"

    def _note(self) -> str:
        return f"{self.setting}; 95 % Wilson intervals; {self.truncated} contexts cut to fit"

    def _confusion_lines(self) -> list[str]:
        head = f"{'true':8}" + "".join(f"{answer:>7}" for answer in ANSWERS) + "  given"
        rows = zip(ANSWERS, self.confusion, strict=True)
        return [head, *(f"{a:8}" + "".join(f"{n:7}" for n in row) for a, row in rows)]

    def _majority(self) -> "Report":
        answer = Counter(self.labels).most_common(1)[0][0]
        rows = [row | {"prediction": answer} for row in self.predictions]
        return Report(rows, self.setting, name="majority")
