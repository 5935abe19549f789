"""What `python -m mediswift evaluate`, `compare` and `protocols` do, and what they leave behind.

Decisions: a score that is kept (`--out`) is a record of kind "exam" with its predictions by PMID,
as chapter 6 leaves them, so any two can be compared later without their models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from mediswift import (
    baselines,
    contestant,
    corpus,
    examine,
    generate,
    machine,
    priors,
    pubmedqa,
    records,
)  # fmt: skip
from mediswift.questions import FOLDS
from mediswift.records import Record
from mediswift.report import Report
from mediswift.typed import settle

PRIORS = ("none", "content_free", "marginal")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Everything that determines a score."""

    model: str
    """Folder, or OWNER/NAME on the hub."""
    data: str
    """Address of the questions."""
    split: str = "test"
    """train | dev | test | all."""
    fold: str = "0"
    """0 to 9, or all: the dev parts of all ten folds, or their training questions' union."""
    setting: str = "reasoning_required"
    limit: int = 0
    """Stratified draw of so many questions; 0 = all."""
    prior: str = "none"
    """none | content_free | marginal: see `priors`."""
    generate: bool = False
    """Read the answer from generated text, as BioGPT does."""

    def __post_init__(self) -> None:
        """Refuse choices that contradict each other."""
        settle(self)
        if self.prior not in PRIORS:
            raise ValueError(f"A prior is one of {', '.join(PRIORS)}; got {self.prior!r}.")
        if self.generate and self.prior != "none":
            raise ValueError("Generated text has no scores to correct; leave out one of the two.")
        if self.fold not in ("all", *map(str, range(FOLDS))):
            raise ValueError(f"A fold is 0 to 9 or all, got {self.fold!r}; name one.")
        if self.fold == "all" and self.prior == "marginal":
            raise ValueError(
                "A marginal prior is fitted on one fold's training questions; name a fold, or "
                "another prior."
            )
        if self.fold == "all" and self.split != "dev":
            raise ValueError(
                f"All ten folds together are their dev parts, got split={self.split}; use "
                "--split dev, or one fold (the test is the same in all)."
            )


def chosen(config: ScoreConfig) -> Dataset:
    """The questions of `config`, in the order they came."""
    questions = pubmedqa.load(config.data)
    if config.fold == "all":
        test = set(pubmedqa.split(questions, "test")["pmid"])
        pool = [i for i, pmid in enumerate(questions["pmid"]) if pmid not in test]
        questions = questions.select(pool)
    elif config.split != "all":
        questions = pubmedqa.split(questions, config.split, int(config.fold))
    return pubmedqa.limit(questions, config.limit, seed=0) if config.limit else questions


def score(config: ScoreConfig) -> Report:
    """Report of the model on the questions, by likelihood or by what it writes."""
    questions = chosen(config)
    model, tokenizer = contestant.load(config.model)
    model.to(machine.fastest_device())
    if config.generate:
        return generate.spoken(model, tokenizer, questions, config.setting)
    report = pubmedqa.evaluate(model, tokenizer, questions, config.setting)
    if config.prior == "none":
        return report
    return priors.corrected(report, _prior(config, model, tokenizer), config.prior)


def keep(config: ScoreConfig, report: Report, folder: str | Path) -> Path:
    """Folder of the record and its predictions, made under `folder`; an old one is not replaced.

    Raises FileExistsError when this score is there already.
    """
    data = corpus.fingerprint(chosen(config))[:12]
    label = contestant.label(config.model)
    name = records.run_id("exam", label, asdict(config) | {"data": data, "recipe": examine.RECIPE})
    place = Path(folder) / name
    if (place / "record.json").exists():
        raise FileExistsError(f"{place} holds this score already; delete it or give another --out")
    examine.write_predictions(report, place)
    parameters, figures = asdict(config), report.metrics()
    record = Record(
        id=name, kind="exam", params=parameters, metrics=figures, data_fingerprint=data,
        env=machine.environment(),
    )  # fmt: skip
    records.write(record, place)
    return place


def yardsticks(config: ScoreConfig) -> tuple[list[Report], list[str]]:
    """Baselines on the test questions, and why any is missing.

    Bags of words need training questions and scikit-learn; humans answered in the official file.
    """
    if config.split != "test" or config.limit:
        return [], []
    settings = dict.fromkeys([config.setting, "question_only"])
    tries = [partial(_bag_of_words, config, setting) for setting in settings]
    if Path(config.data).is_file():
        tries.append(partial(pubmedqa.humans, config.data, config.setting))
    found, missing = [], []
    for make in tries:
        try:
            found.append(make())
        except (ValueError, ModuleNotFoundError) as reason:
            missing.append(f"a yardstick is missing: {reason}")
    return found, list(dict.fromkeys(missing))


def _bag_of_words(config: ScoreConfig, setting: str) -> Report:
    questions = pubmedqa.load(config.data)
    train = pubmedqa.split(questions, "train", int(config.fold))
    return baselines.bag_of_words(train, pubmedqa.split(questions, "test"), setting)


def compare(one: str | Path, other: str | Path) -> str:
    """What two kept scores say of each other: both reports' lines, and the paired difference.

    Raises FileNotFoundError for a folder without a record, ValueError for other questions or
    settings.
    """
    reports = [examine.read_report(place) for place in (one, other)]
    verdict = reports[0].difference(reports[1])
    apart = generate.disagreement(*reports)
    lines = [f"{name}: {report.line()}" for name, report in zip("AB", reports, strict=True)]
    return "\n".join([*lines, f"A - B: {verdict}", f"they answer {apart:.1%} differently"])


def as_json(reports: Sequence[Report]) -> str:
    """Metrics of a report as one line of JSON, or of several by name."""
    if len(reports) == 1:
        return json.dumps(reports[0].metrics())
    return json.dumps({report.name: report.metrics() for report in reports})


def _prior(config: ScoreConfig, model: nn.Module, tokenizer: PreTrainedTokenizerBase):
    if config.prior == "content_free":
        return priors.content_free(model, tokenizer, config.setting)
    train = pubmedqa.split(pubmedqa.load(config.data), "train", int(config.fold))
    return priors.marginal(pubmedqa.evaluate(model, tokenizer, train, config.setting))
