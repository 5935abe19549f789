"""The ledger: verdicts follow from records by rules, and no rule can only say yes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mediswift import claims, records
from mediswift.claims import CONSISTENT, CONTRADICTED, NOT_SHOWN, REPRODUCED
from mediswift.records import Record

RESULTS = Path(__file__).parent.parent / "results"


def study(*ends, able=True):
    """Ablation whose differences have these intervals, over seeds and over questions alike."""
    low, high = (0.6, 0.7) if able else (0.5, 0.6)
    first = {"variant": "0", "accuracy": 0.65, "seeds": 2}
    others = [
        first
        | {"variant": str(i), "difference": (a + b) / 2, "low": a, "high": b}
        | {"questions_low": a, "questions_high": b}
        for i, (a, b) in enumerate(ends, 1)
    ]
    row = {"variant": "0", "low": low, "high": high, "majority_accuracy": 0.55}
    return Record(
        id="ablation-x", kind="ablation", params={"field": "x"},
        metrics={"rows": [row], "variants": [first, *others]}, data_fingerprint="f", env={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([(-0.01, 0.01)], CONSISTENT),
        ([(-0.01, 0.01), (0.02, 0.05)], CONSISTENT),
        ([(-0.03, 0.01)], NOT_SHOWN),
        ([(-0.01, 0.01), (-0.03, 0.01)], NOT_SHOWN),
        ([(-0.05, -0.03)], CONTRADICTED),
        ([(-0.01, 0.01), (-0.05, -0.03)], CONTRADICTED),
        ([(-0.019, -0.01)], CONSISTENT),
    ],
)
def test_kept_means_no_loss_beyond_the_margin(ends, verdict):
    assert claims.kept(study(*ends)) == verdict
    assert claims.kept(study(*ends, able=False)) == NOT_SHOWN


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([(0.01, 0.02)], CONSISTENT),
        ([(0.01, 0.02), (-0.01, 0.02)], NOT_SHOWN),
        ([(-0.01, 0.02)], NOT_SHOWN),
        ([(-0.02, -0.01), (-0.03, -0.02)], CONTRADICTED),
        ([(-0.02, -0.01), (0.01, 0.02)], NOT_SHOWN),
    ],
)
def test_helped_means_every_variant_is_better(ends, verdict):
    assert claims.helped(study(*ends)) == verdict
    assert claims.helped(study(*ends, able=False)) == NOT_SHOWN


@pytest.mark.parametrize("judge", [claims.kept, claims.helped])
def test_both_intervals_count_and_one_seed_shows_nothing(judge):
    record = study((0.01, 0.02))
    first, other = record.metrics["variants"]
    for changed in ({"questions_low": -0.5}, {"low": -0.5}, {"low": None, "high": None}):
        variants = [first, other | changed]
        assert judge(replace(record, metrics=record.metrics | {"variants": variants})) == NOT_SHOWN


def test_the_ledger_names_the_records_it_stands_on():
    table = claims.ledger(RESULTS)
    assert set(table["verdict"]) <= {REPRODUCED, CONSISTENT, NOT_SHOWN, CONTRADICTED}
    assert set(table["known"]) <= {"read", "second-hand", "inferred"}
    assert (table.loc[0, "verdict"], table.loc[0, "record"]) == (REPRODUCED, "")
    for name in filter(None, table["record"]):
        assert records.load(RESULTS / name / "record.json").kind in ("ablation", "downstream")


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"name": "all labels", "micro_f1": 0.59}, CONSISTENT),
        ({"name": "all labels", "micro_f1": 0.61}, NOT_SHOWN),
        ({"name": "bag of words", "micro_f1": 0.99}, CONSISTENT),  # it reads: no floor
    ],
)
def test_a_model_that_reads_beats_every_constant_answer(row, verdict):
    found = study((-0.01, 0.01))
    baselines = [{"name": "no label", "micro_f1": 0.0}, row]
    assert claims.kept(replace(found, metrics=found.metrics | {"baselines": baselines})) == verdict


def test_a_model_reads_when_all_its_seeds_do():
    found = study((-0.01, 0.01))
    (good,) = found.metrics["rows"]
    rows = [good, good | {"variant": "1"}, good | {"variant": "1", "low": 0.5}]
    for shown, verdict in ((rows, CONSISTENT), (rows[1:], NOT_SHOWN)):
        assert claims.kept(replace(found, metrics=found.metrics | {"rows": shown})) == verdict


def test_what_the_paper_does_not_claim_is_no_evidence(tmp_path):
    ends = [(-0.01, 0.01), (-0.09, -0.05)]
    found = study(*ends)
    for row, sparsity in zip(found.metrics["variants"], ("0", "0.75", "0.875"), strict=True):
        row["variant"] = sparsity
    for row in found.metrics["rows"]:
        row["run"] = "finetune-nano-s0-dense-seed0-0123456789"
    bad = found.metrics["rows"][0] | {"low": 0.5}
    reads = found.metrics["rows"][0] | {"variant": "0.875"}
    found = replace(found, params={"field": "sparsity"})
    records.write(found, tmp_path / found.id)
    assert claims.kept(found) == CONTRADICTED
    said, verdict, name = claims._removed("ablation", "accuracy")(tmp_path)
    assert (verdict, name) == (CONSISTENT, found.id)
    assert said.startswith("nano: accuracy 0: 65.0 %, 0.75: 65.0 %") and "0.875" not in said
    assert said.endswith("an answer that is always the same: 55.0 %")
    found = replace(found, metrics=found.metrics | {"rows": [bad, reads]})  # only 87.5 % reads
    records.write(found, tmp_path / found.id)
    assert claims._removed("ablation", "accuracy")(tmp_path)[1] == NOT_SHOWN


def test_arithmetic_can_contradict(monkeypatch):
    monkeypatch.setattr(claims.flops, "reduction", lambda shape, sparsity: 3.0)
    assert claims.ledger(RESULTS).loc[0, "verdict"] == CONTRADICTED


def test_a_missing_record_is_an_error(tmp_path):
    shutil.copy(RESULTS / "published.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="ablation"):
        claims.ledger(tmp_path)
