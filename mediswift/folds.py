"""Several runs of one recipe, by seed or by fold, as one number with an interval.

Decisions: runs that answered the same questions (ten folds on the official test, or seeds) have a
mean, Student's interval over the runs, and a bootstrap that draws runs and questions alike: the
first says what another training would give, the second also what another test would. Runs on
questions of their own (the ten dev parts: cross-validation, as the PubMedQA paper has it) are
pooled: every question is answered once, and the interval is Wilson's. A mixture is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mediswift import machine, stats
from mediswift.records import Record
from mediswift.report import Report, same_setting


@dataclass(frozen=True)
class Summary:
    """Accuracy and macro-F1 over runs that answered the same questions."""

    accuracy: stats.OverSeeds
    macro_f1: stats.OverSeeds
    low: float
    """Lower end of accuracy's 95 % bootstrap interval over runs and questions."""
    high: float
    n: int
    """Questions."""

    def __str__(self) -> str:
        """Print two lines."""
        both = f"[{self.low:.4g}, {self.high:.4g}]"
        return (
            f"accuracy {self.accuracy}; {both} over runs and {self.n} questions\n"
            f"macro-F1 {self.macro_f1}"
        )


def summarize(reports: Sequence[Report]) -> Summary:
    """Summary of runs that answered the same questions in one setting.

    Raises ValueError for no run, for two settings, or for other questions in one of them.
    """
    if not reports:
        raise ValueError("A summary needs one run or more, got none; name their folders.")
    same_setting(reports)
    for report in reports[1:]:
        reports[0].same_questions(report)
    pmids = list(reports[0].correct)
    correct = [[report.correct[pmid] for pmid in pmids] for report in reports]
    accuracy = stats.over_seeds([report.accuracy for report in reports])
    f1 = stats.over_seeds([report.macro_f1 for report in reports])
    return Summary(accuracy, f1, *stats.crossed_bootstrap(correct), len(pmids))


def pooled(reports: Sequence[Report], name: str = "ten folds") -> Report:
    """One report of runs that answered questions of their own: each fold's dev part.

    Raises ValueError for no run, for two settings, or when a question was answered twice.
    """
    same_setting(reports)
    rows = [row for report in reports for row in report.predictions]
    if len({row["pmid"] for row in rows}) < len(rows):
        raise ValueError(
            "Folds are pooled when each question is answered once, some are answered twice; "
            "use `summarize` for runs on the same questions."
        )
    if not reports:
        raise ValueError("A pool needs one run or more, got none; name their folders.")
    return Report(rows, reports[0].setting, sum(r.truncated for r in reports), name)


def keep(exams: Sequence[Record], summary: Summary, folder: str | Path) -> Record:
    """Record of a summary of two kept exams or more, written under `folder`.

    Raises ValueError for a lone one, which has no interval over runs.
    """
    if len(exams) < 2:
        raise ValueError("A summary is kept of two runs or more; a lone one is an exam already.")
    params = {"exams": [exam.id for exam in exams], "runs": [exam.parent for exam in exams]}
    rows = [{"exam": exam.id, "accuracy": exam.metrics["accuracy"]} for exam in exams]
    return machine.keep_study(
        folder,
        "summary",
        f"{len(exams)}-runs",
        params,
        params=params,
        metrics=asdict(summary) | {"rows": rows},
        data_fingerprint=exams[0].data_fingerprint,
    )
