"""What was answered to PubMedQA's questions, how good that is, and how sure one can be.

Decisions: a report holds predictions, and every figure follows from them, so that any two can be
compared question by question later, without their models. It prints itself beside the majority
class, because an accuracy alone says nothing. Settings are different tasks: reports of two are not
compared and not put into one table, unless one is a yardstick and says so. A question without an
answer, "", is wrong and counts in no class.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mediswift import calibration, stats
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
    baseline: bool = False
    """A yardstick: it may stand beside reports of any setting."""

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
        return float(_macro_f1(self._counts))

    @cached_property
    def f1_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of macro-F1 over questions."""
        # Drawing n questions with replacement is one multinomial draw of the confusion's cells.
        shares, rng = self._counts / self.n, np.random.default_rng(0)
        draws = rng.multinomial(self.n, shares.ravel(), size=4000)
        low, high = np.quantile(_macro_f1(draws.reshape(-1, *shares.shape)), [0.025, 0.975])
        return float(low), float(high)

    @cached_property
    def bootstrap_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of accuracy over questions: beside Wilson's, nearly the same."""
        return stats.crossed_bootstrap([list(self.correct.values())])

    @property
    def recall(self) -> dict[str, float]:
        """{answer: share of its questions that were answered so}."""
        return stats.recall(self.labels, self.answers)

    @property
    def unanswered(self) -> int:
        """Questions without an answer: a generated text that could not be read."""
        return self.answers.count("")

    @property
    def scored(self) -> bool:
        """Whether each answer comes with the three scores."""
        return all("scores" in row for row in self.predictions)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Shares of yes, no and maybe, (questions, 3). Raises ValueError without scores."""
        if not self.scored:
            raise ValueError(
                f"Probabilities come from scores, {self.name} has answers only; "
                "evaluate a model by likelihood."
            )
        return calibration.probabilities(
            [{answer: row["scores"][answer] for answer in ANSWERS} for row in self.predictions]
        )

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the answer that was given, (questions,)."""
        return self.probabilities.max(1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, 15 bins of equal width: see `calibration`."""
        return calibration.expected_error(self.confidence, list(self.correct.values()))

    @property
    def reliability(self) -> pd.DataFrame:
        """Confidence and accuracy by bin."""
        return calibration.reliability(self.confidence, list(self.correct.values()))

    @property
    def confusion(self) -> np.ndarray:
        """Counts of shape (true, given), both in the order yes, no, maybe."""
        return self._counts[: len(ANSWERS), : len(ANSWERS)]

    @cached_property
    def _counts(self) -> np.ndarray:
        return stats.confusion(self.labels, self.answers, (*ANSWERS, ""))

    @property
    def majority(self) -> float:
        """Accuracy of always giving the most frequent true answer."""
        return self._majority().accuracy

    def difference(self, other: "Report") -> stats.Difference:
        """This accuracy minus the other's, question by question.

        Raises ValueError when the two are not about the same PMIDs or not in the same setting.
        """
        same_setting([self, other])
        self.same_questions(other)
        theirs = [other.correct[pmid] for pmid in self.correct]
        return stats.paired_difference(list(self.correct.values()), theirs)

    def same_questions(self, other: "Report") -> None:
        """Raise ValueError when the two are not about the same PMIDs."""
        if apart := self.correct.keys() ^ other.correct.keys():
            raise ValueError(
                f"Two reports are compared on the same questions, {len(apart)} PMIDs such as "
                f"{min(apart)} are in one only; evaluate both on one data set."
            )

    def metrics(self) -> dict[str, Any]:
        """All figures as plain JSON; the confusion's rows are true, its columns given answers."""
        names = ("accuracy", "low", "high", "macro_f1", "n", "truncated", "unanswered")
        recalls = {f"recall_{answer}": share for answer, share in self.recall.items()}
        figures = {name: getattr(self, name) for name in names}
        others = {"majority_accuracy": self.majority, "confusion": self.confusion.tolist()}
        ends = zip(("low", "high"), self.f1_interval, strict=True)
        others |= {f"macro_f1_{end}": value for end, value in ends}
        if self.scored:
            others["calibration_error"] = self.calibration_error
        return figures | others | recalls

    def __str__(self) -> str:
        """Print ours, the majority class, whether they can be told apart, and the confusion."""
        majority = self._majority()
        width = max(map(len, (self.name, majority.name))) + 2
        head = f"{'':{width}}{'accuracy':20}{'macro-F1':>9}{'n':>6}"
        verdict = f"{self.name} - majority: {self.difference(majority)}"
        table = [head, self._line(width), majority._line(width), verdict, self._note()]
        return "\n".join([*table, *self._confusion_lines()])

    def line(self) -> str:
        """One line: name, accuracy with its interval, macro-F1, questions, setting."""
        share, low, high, f1 = (
            f"{100 * x:.1f}" for x in (self.accuracy, self.low, self.high, self.macro_f1)
        )
        return f"{self.name}: {share} [{low}, {high}], macro-F1 {f1}, n {self.n}, {self.setting}"

    def _line(self, width: int) -> str:
        share, low, high = (f"{100 * x:.1f}" for x in (self.accuracy, self.low, self.high))
        interval = f"{share} [{low}, {high}]"
        return f"{self.name:{width}}{interval:20}{100 * self.macro_f1:9.1f}{self.n:6}"

    def _note(self) -> str:
        sure = f"; calibration error {100 * self.calibration_error:.1f}" if self.scored else ""
        missed = f"; {self.unanswered} without an answer" if self.unanswered else ""
        cut = f"{self.truncated} contexts cut to fit"
        return f"{self.setting}; 95 % Wilson intervals; {cut}{sure}{missed}"

    def _confusion_lines(self) -> list[str]:
        head = f"{'true':8}" + "".join(f"{answer:>7}" for answer in ANSWERS) + "  given"
        rows = zip(ANSWERS, self.confusion, strict=True)
        return [head, *(f"{a:8}" + "".join(f"{n:7}" for n in row) for a, row in rows)]

    def _majority(self) -> "Report":
        answer = Counter(self.labels).most_common(1)[0][0]
        rows = [row | {"prediction": answer} for row in self.predictions]
        return Report(rows, self.setting, name="majority", baseline=True)


def table(reports: Sequence[Report]) -> pd.DataFrame:
    """Table of reports on the same questions, a row each, by name; shares in percent.

    Columns: accuracy with its Wilson interval (low, high), macro-F1 with its bootstrap interval,
    recall by answer, calibration error, questions. Raises ValueError for reports of two settings,
    baselines apart, for other questions, or for two of one name.
    """
    same_setting(reports)
    for report in reports[1:]:
        reports[0].same_questions(report)
    if twice := [name for name, k in Counter(r.name for r in reports).items() if k > 1]:
        raise ValueError(f"Rows are told apart by name, got {twice} twice; rename one.")
    return pd.DataFrame({r.name: _row(r) for r in reports}).T.infer_objects()


def _row(report: Report) -> dict[str, float]:
    low, high = report.f1_interval
    shares = {"accuracy": report.accuracy, "low": report.low, "high": report.high}
    shares |= {"macro_f1": report.macro_f1, "f1_low": low, "f1_high": high}
    shares |= {f"recall_{answer}": report.recall.get(answer, np.nan) for answer in ANSWERS}
    shares["calibration_error"] = report.calibration_error if report.scored else np.nan
    return {name: 100 * value for name, value in shares.items()} | {"n": report.n}


def same_setting(reports: Sequence[Report]) -> None:
    """Raise ValueError when reports, baselines apart, are of two settings."""
    settings = {report.setting for report in reports if not report.baseline}
    if len(settings) > 1:
        raise ValueError(
            f"Settings are different tasks and are never mixed, got {', '.join(sorted(settings))}; "
            "compare within one, or mark a yardstick with baseline=True."
        )


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 over the answers that occur, (...), of counts (..., 4, 4); "" is none of them."""
    total = (counts.sum(-1) + counts.sum(-2))[..., : len(ANSWERS)]
    hits = np.diagonal(counts, axis1=-2, axis2=-1)[..., : len(ANSWERS)]
    return (2 * hits / np.maximum(total, 1)).sum(-1) / (total > 0).sum(-1)
