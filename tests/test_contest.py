"""Tests of mediswift.contest. Run with: pytest tests/test_contest.py."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mediswift import contest, pretrain, records
from mediswift.__main__ import main
from mediswift.contest import differences, tuned
from mediswift.records import Record

BASE = pretrain.profile("tiny", lr=1e-3)
BEST = {"dense": 1e-3, "unstructured": 2e-3, "16x1": 5e-4, "16x1+scaled": 1.25e-4}
COST = {"dense": 3.0, "unstructured": 4.0, "16x1": 4.5, "16x1+scaled": 4.25}
TUNING = BASE.batch_tokens
RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture
def asked(monkeypatch):
    """Configurations that were trained, each once; pretrain itself is replaced by a formula."""
    found = {}

    def train(config, runs):
        name = config.pattern if config.sparsity else "dense"
        name += "+scaled" * config.density_scaling
        off = abs(math.log2(config.lr / BEST[name]))
        record = Record(
            id=f"{name}-{config.lr:g}-{config.seed}-{config.tokens}",
            kind="pretrain",
            params=asdict(config),
            metrics={"validation_loss_nats": COST[name] + 0.1 * config.seed + off},
            data_fingerprint="f",
            env={},
        )
        found[record.id] = config
        return record

    monkeypatch.setattr(contest, "pretrain", train)
    return found


@pytest.mark.parametrize("best", [-3, -1, 0, 1, 2, 5])
def test_the_rate_is_found_wherever_it_lies(best):
    tried = []

    def loss(lr):
        assert lr not in tried  # each is a run of hours
        tried.append(lr)
        return (math.log2(lr / 3e-4) - best - 0.1) ** 2

    found = tuned(loss, 3e-4)
    assert found == pytest.approx(3e-4 * 2**best)
    assert {found / 2, found, 2 * found} <= set(tried)
    assert len(tried) <= abs(best) + 3


def test_a_flat_loss_keeps_the_first_rate():
    assert tuned(lambda lr: 1.0, 1e-3) == 1e-3


def test_each_pattern_runs_every_seed_at_its_own_rate(asked, tmp_path):
    record = contest.contest(BASE, list(BEST), [0, 1], TUNING, tmp_path)
    rows = record.metrics["rows"]
    assert [(row["pattern"], row["lr"], row["seed"]) for row in rows] == [
        (name, lr, seed) for name, lr in BEST.items() for seed in (0, 1)
    ]
    for row in rows:
        config = asked[row["run"]]
        assert row["loss"] == pytest.approx(COST[row["pattern"]] + 0.1 * row["seed"])
        assert config.tokens == BASE.tokens and config.size == BASE.size
        assert config.sparsity == (0 if row["pattern"] == "dense" else BASE.sparsity)
        assert config.density_scaling == (row["pattern"] == "16x1+scaled")
    tuning = [config for config in asked.values() if config.tokens != BASE.tokens]
    assert {config.tokens for config in tuning} == {TUNING}
    assert {config.seed for config in tuning} == {0}
    assert records.load(tmp_path / record.id / "record.json") == record
    assert (record.kind, record.data_fingerprint) == ("contest", "f")


def test_the_id_is_of_everything_that_was_asked_for(asked, tmp_path):
    def run(patterns=("dense", "16x1"), seeds=(0,), tuning=TUNING):
        return contest.contest(BASE, patterns, seeds, tuning, tmp_path).id

    assert run() == run()
    others = [run(patterns=("16x1",)), run(seeds=(1,)), run(tuning=2 * TUNING)]
    assert len({run(), *others}) == 4


def test_a_rate_that_explodes_is_worse_than_any_other(monkeypatch, asked, tmp_path):
    train = contest.pretrain

    def explode(config, runs):
        if config.lr > 1.5e-3:
            raise FloatingPointError("step 3 has loss nan")
        return train(config, runs)

    monkeypatch.setattr(contest, "pretrain", explode)
    rows = contest.contest(BASE, ["unstructured"], [0], TUNING, tmp_path).metrics["rows"]
    assert [row["lr"] for row in rows] == [1e-3]


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        (["dense", "2:4"], "fixes the sparsity at 0.5"),
        (["dense", "2:4+scaled"], "fixes the sparsity at 0.5"),
        (["16x"], "a pattern is"),
        (["unstructured", "16x+scaled"], "a pattern is .*got '16x'"),
        (["unstructured", "unstructured+scale"], "'unstructured.scale' at sparsity 0.75: try"),
        (["unstructured+"], "a pattern with one of .scaled, .set, .rigl"),
        (["+scaled"], "a pattern is"),
        (["unstructured+scaled+scaled"], "a pattern with one of .scaled, .set, .rigl"),
        (["unstructured", "dense+scaled"], "which has to be sparse .*got 'dense.scaled'"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_before_anything_runs(asked, tmp_path, patterns, text):
    with pytest.raises(ValueError, match=text):
        contest.contest(BASE, patterns, [0], TUNING, tmp_path)
    assert not asked and not list(tmp_path.iterdir())


def test_a_dense_model_cannot_be_scaled_by_any_name():
    dense = replace(BASE, sparsity=0.0)
    with pytest.raises(ValueError, match="'unstructured.scaled' at sparsity 0: try"):
        contest.entry(dense, "unstructured+scaled")


@pytest.mark.parametrize("base", [BASE, replace(BASE, density_scaling=True)])
def test_the_name_alone_says_what_is_scaled(base):
    for name in (*BEST, "unstructured+set", "unstructured+rigl"):
        config = contest.entry(base, name)
        assert config.moves == ("" if name in BEST else name.partition("+")[2])
        assert config.density_scaling == name.endswith("+scaled")
        assert config == contest.entry(BASE, name)
    assert contest.entry(base, "unstructured") == BASE


def test_a_machine_without_half_precision_is_told_before_anything_runs(asked, tmp_path, no_bf16):
    with pytest.raises(ValueError, match="bf16' on a CPU that does not"):
        contest.contest(BASE, ["unstructured", "16x1+bf16"], [0], TUNING, tmp_path)
    assert not asked


def test_half_precision_is_for_the_dense_model_too():
    for name, sparsity in (("dense+bf16", 0.0), ("16x1+bf16", 0.75)):
        config = contest.entry(BASE, name)
        assert config == replace(contest.entry(BASE, name[:-5]), precision="bf16")
        assert config.sparsity == sparsity
    with pytest.raises(ValueError, match="all train in bf16 already, got '16x1.bf16'; leave out"):
        contest.entry(replace(BASE, precision="bf16"), "16x1+bf16")
    lines = differences(record_of({"dense": {0: 1.0}, "dense+bf16": {0: 1.1}}), "dense")
    assert [line["sparsity"] for line in lines] == [0, 0]


@pytest.mark.parametrize(
    ("names", "reference"),
    [(["dense", "unstructured"], "unstructured"), (["16x1", "16x1+scaled"], "16x1")],
)
def test_the_command_line_compares_with_unstructured_or_the_first(
    asked, tmp_path, capsys, names, reference, monkeypatch
):
    monkeypatch.setattr("mediswift.schedule.multiplies_bf16", lambda: True)  # no run is trained
    words = ["contest", "--corpus", "sample:", "--size", "tiny", "--tokens", "20480"]
    words += ["--batch-tokens", "1024", "--tuning-tokens", "1024", "--lr", "1e-3", "--seeds", "2"]
    words += ["--runs", str(tmp_path), "--precision", "bf16"]
    assert main([*words, "--patterns", *names]) == 0
    said, _, name = capsys.readouterr().out.strip().rpartition("\n")
    kept = records.load(tmp_path / name / "record.json")
    assert (kept.params["patterns"], kept.params["precision"]) == (names, "bf16")
    assert json.loads(said) == differences(kept, reference)
    assert [line["pattern"] for line in json.loads(said) if "difference" not in line] == [reference]


def record_of(losses):
    rows = [
        {"pattern": name, "lr": 1e-3, "seed": seed, "loss": loss}
        for name, each in losses.items()
        for seed, loss in each.items()
    ]
    return Record(
        id="x",
        kind="contest",
        params={"sparsity": 0.75},
        metrics={"rows": rows},
        data_fingerprint="f",
        env={},
    )


def test_differences_are_taken_seed_by_seed():
    losses = {
        "16x1": {2: 4.5, 0: 4.1, 1: 4.4},  # in whatever order
        "unstructured": {0: 4.0, 1: 4.2, 2: 4.2},
    }
    sixteen, reference = differences(record_of(losses))
    about = {"pattern": "unstructured", "sparsity": 0.75, "lr": 1e-3}
    assert reference == about | {"loss": pytest.approx(12.4 / 3)}
    assert (sixteen["pattern"], sixteen["lr"]) == ("16x1", 1e-3)
    assert sixteen["loss"] == pytest.approx(13.0 / 3)
    assert sixteen["difference"] == pytest.approx(0.2)  # of 0.1, 0.2, 0.3
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's t of two degrees of freedom
    assert sixteen["low"] == pytest.approx(0.2 - half, rel=1e-5)
    assert sixteen["high"] == pytest.approx(0.2 + half, rel=1e-5)


def test_another_reference_turns_the_sign():
    losses = {"a": {0: 1.0, 1: 1.2}, "b": {0: 1.5, 1: 1.6}}
    (_, above), (below, _) = (differences(record_of(losses), name) for name in "ab")
    assert above["difference"] == -below["difference"] == pytest.approx(0.45)


def test_a_scaled_pattern_has_the_density_of_the_plain_one():
    lines = differences(record_of({"unstructured": {0: 1.0}, "unstructured+scaled": {0: 0.9}}))
    assert [line["sparsity"] for line in lines] == [0.75, 0.75]


@pytest.mark.parametrize("name", sorted(p.name for p in RESULTS.glob("contest-*")))
def test_records_of_earlier_contests_are_still_told(name):
    record = records.load(RESULTS / name / "record.json")
    lines = differences(record)
    assert [line["pattern"] for line in lines] == record.params["patterns"]
    assert all(line["low"] < line["high"] for line in lines if line["pattern"] != "unstructured")


def test_one_seed_is_no_interval():
    lines = differences(record_of({"unstructured": {0: 1.0}, "16x1": {0: 1.5}}))
    assert [line.keys() for line in lines] == [{"pattern", "sparsity", "lr", "loss"}] * 2


def test_a_dense_model_has_nothing_removed():
    lines = differences(record_of({"unstructured": {0: 1.0}, "dense": {0: 0.9}}))
    assert [line["sparsity"] for line in lines] == [0.75, 0.0]
