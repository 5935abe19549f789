"""Going on dense: who goes on how, at which rate, and what it is measured by."""

import math
from dataclasses import replace

import pytest

from mediswift import densification, pretrain, records
from mediswift.__main__ import main
from mediswift.configs import LATER
from mediswift.records import Record

GAINS = {"stay": 0.1, "zeros": 0.3, "initial": 0.2}
BEST = 2e-3
EXPLODES = 5e-3


@pytest.fixture
def runs(tmp_path):
    """Folder with parents of two seeds, sparse and dense."""
    for sparsity in (0.0, 0.75):
        for seed in (0, 1):
            keep(tmp_path, sparsity, seed)
    return tmp_path


def keep(folder, sparsity, seed, **changes):
    config = pretrain.profile("tiny", sparsity=sparsity, seed=seed, **changes)
    record = Record(
        id=f"pretrain-{sparsity}-{seed}", kind="pretrain", params=vars(config),
        metrics={"bits_per_byte": 2 + sparsity + 0.1 * seed}, data_fingerprint="f", env={},
    )  # fmt: skip
    records.write(record, folder / record.id)


@pytest.fixture
def asked(monkeypatch):
    """Configurations that went on; the training is replaced by a formula."""
    found = []

    def go_on(config, runs):
        found.append(config)
        if config.lr > EXPLODES:
            raise FloatingPointError("the rate is too high")
        parent = records.load(runs / config.parent / "record.json")
        before = parent.metrics["bits_per_byte"]
        bits = before - GAINS[config.removed] - 0.05 * config.moments + 0.01 * (not config.warmup)
        off = abs(math.log2(config.lr / BEST))
        figures = dict.fromkeys(densification.FIGURES, 1.0)
        figures |= {"bits_per_byte": bits, "bits_per_byte_before": before}
        figures |= {"validation_loss_nats": bits + off}
        words = (config.parent, config.removed, config.moments, config.warmup, config.lr)
        name = "-".join(map(str, words))
        return Record(
            id=name, kind="continue", params=vars(config), metrics=figures,
            data_fingerprint="f", env={},
        )  # fmt: skip

    monkeypatch.setattr(densification, "go_on", go_on)
    return found


def names(sparsity, seeds=(0, 1)):
    return [f"pretrain-{sparsity}-{seed}" for seed in seeds]


@pytest.fixture
def record(asked, runs):
    return densification.study(names(0.75), names(0.0), 1_024, 1e-3, runs)


def test_every_way_goes_on_from_every_seed_at_its_own_rate(record, asked):
    rows = {(row["way"], row["seed"], row["lr"]) for row in record.metrics["rows"]}
    ways = [densification.DENSE, *densification.WAYS]
    assert rows == {(way, seed, BEST) for way in ways for seed in (0, 1)}
    assert {config.tokens for config in asked} == {1_024}
    tuning = [config for config in asked if config.lr != BEST]
    assert {config.parent for config in tuning} == {"pretrain-0.0-0", "pretrain-0.75-0"}


def test_costs_are_above_the_runs_that_were_dense_all_along(record):
    lines = {line["way"]: line for line in densification.costs(record)}
    assert "difference" not in lines[densification.DENSE]
    assert lines[densification.DENSE]["before"] == pytest.approx(2.05)
    gained = {"stays sparse": 0.75, "zeros": 0.55, "initial values": 0.65}
    gained |= {"zeros, moments kept": 0.5, "zeros, no warm-up": 0.56}
    for way, wanted in gained.items():
        found = [lines[way][name] for name in ("difference", "low", "high")]
        assert found == pytest.approx([wanted] * 3)  # seeds differ alike


def test_gains_are_beside_what_stays_sparse(record):
    found = densification.gains(record)
    wanted = {"zeros": -0.2, "initial values": -0.1}
    wanted |= {"zeros, moments kept": -0.25, "zeros, no warm-up": -0.19}
    assert {way: row["difference"] for way, row in found.items()} == pytest.approx(wanted)
    lines = densification.told(record).splitlines()
    assert lines[-5].split() == "above what stays sparse".split()
    assert lines[-4].split(maxsplit=1) == ["zeros", "-0.200 [-0.200, -0.200]"]


def test_the_record_is_kept(record, runs):
    assert records.load(runs / record.id / "record.json") == record
    assert record.params["seeds"] == [0, 1]
    assert (record.params["sparsity"], record.params["continued_tokens"]) == (0.75, 1_024)


def test_a_parent_may_be_older_than_some_fields(asked, runs):
    old = records.load(runs / "pretrain-0.75-0" / "record.json")
    params = {k: v for k, v in old.params.items() if k not in LATER}
    records.write(replace(old, params=params), runs / old.id)
    assert densification.study(names(0.75), names(0.0), 1_024, 1e-3, runs).params["moves"] == ""


def test_one_seed_has_no_interval(asked, runs):
    one = densification.study(names(0.75, [1]), names(0.0, [1]), 1_024, 1e-3, runs)
    assert densification.told(one).splitlines()[2].endswith("+0.750")


@pytest.mark.parametrize(
    ("sparse", "dense", "changes"),
    [
        (names(0.75), names(0.0, [0]), {}),
        (names(0.75), names(0.75), {}),
        (names(0.0), names(0.0), {}),
        (names(0.75, [0, 2]), names(0.0, [0, 2]), {"tokens": 2_048}),
    ],
    ids=["seeds", "both sparse", "both dense", "tokens"],
)
def test_others_are_refused_before_anything_runs(asked, runs, sparse, dense, changes):
    for sparsity in (0.75, 0.0):
        keep(runs, sparsity, 2, **(changes if sparsity else {}))
    with pytest.raises(ValueError, match="the same seeds and differ in sparsity and learning rate"):
        densification.study(sparse, dense, 1_024, 1e-3, runs)
    assert not asked


def test_only_pre_training_runs_go_on(asked, runs):
    other = Record(id="x", kind="exam", params={"seed": 0}, metrics={}, data_fingerprint="")
    records.write(other, runs / "x")
    with pytest.raises(ValueError, match="are pre-training runs; got x"):
        densification.study(["x"], names(0.0), 1_024, 1e-3, runs)


def test_the_command_line_says_the_same(asked, runs, capsys):
    words = ["densify", "--sparse", *names(0.75), "--dense", *names(0.0), "--tokens", "1024"]
    assert main([*words, "--runs", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    kept = records.load(runs / lines[-1] / "record.json")
    assert lines[:-1] == densification.told(kept).splitlines()
