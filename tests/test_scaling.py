"""Sparse against dense: which runs a study makes, and what it says of them."""

import math
from dataclasses import asdict, replace

import pytest

from mediswift import contest, flops, pretrain, records, scaling
from mediswift.__main__ import main
from mediswift.records import Record

BASE = pretrain.profile("tiny", lr=1e-3)
BEST = {0.0: 1e-3, 0.5: 2e-3, 0.75: 4e-3}
TUNING = BASE.batch_tokens
AT_ONCE = BASE.micro_batch * BASE.shape.context
EXPLODES = 5e-3
SPARED = 0.2
"""Of the seconds, at a sparsity of one."""


@pytest.fixture
def asked(monkeypatch):
    """Configurations that were trained; pretrain itself is replaced by a formula."""
    found = []

    def train(config, runs):
        found.append(config)
        if config.lr > EXPLODES:
            raise FloatingPointError("the rate is too high")
        bits = 2 + config.sparsity + 0.1 * config.seed + 1e3 / config.tokens
        off = abs(math.log2(config.lr / BEST[config.sparsity]))
        figures = dict.fromkeys(scaling.FIGURES, 1.0)
        figures |= {"bits_per_byte": bits, "validation_loss_nats": bits + off}
        seconds = config.tokens * (1 - config.sparsity * SPARED) * 1e-3
        figures |= {"tokens_trained": config.tokens, "seconds": seconds}
        name = f"{config.size}-{config.sparsity}-{config.lr:g}-{config.seed}-{config.tokens}"
        return Record(
            id=name, kind="pretrain", params=asdict(config), metrics=figures,
            data_fingerprint="f", env={},
        )  # fmt: skip

    monkeypatch.setattr(contest, "pretrain", train)
    monkeypatch.setattr(scaling, "pretrain", train)
    return found


@pytest.fixture
def record(asked, tmp_path):
    return scaling.study(BASE, [0.0, 0.5, 0.75], [0, 1], TUNING, runs=tmp_path)


def test_by_default_each_entry_is_tuned_on_all_of_its_tokens(asked, tmp_path):
    record = scaling.study(BASE, [0.0, 0.5], [0, 1], runs=tmp_path)
    lengths = {(row["sparsity"], row["tokens"]) for row in record.metrics["tuning"]}
    early = next(c for c, role, _ in scaling.entries(BASE, [0, 0.5]) if role == scaling.EARLY)
    assert lengths == {(0.0, BASE.tokens), (0.5, BASE.tokens), (0.0, early.tokens)}
    kept = {(c.sparsity, c.tokens) for c in asked}
    assert kept == lengths
    assert {row["lr"] for row in record.metrics["rows"]} == {BEST[0.0], BEST[0.5]}


def test_every_sparsity_runs_every_seed_at_its_own_rate(record):
    rates = {(row["sparsity"], row["lr"]) for row in record.metrics["rows"]}
    assert rates == set(BEST.items())
    seeds = {(row["role"], row["rival_of"], row["seed"]) for row in record.metrics["rows"]}
    roles = [(scaling.TOKENS, s) for s in BEST] + [(scaling.EARLY, s) for s in (0.5, 0.75)]
    assert seeds == {(*role, seed) for role in roles for seed in (0, 1)}


def test_rates_are_tuned_once_each_on_the_short_run(record, asked):
    tuning = [(c.sparsity, c.lr) for c in asked if c.tokens == TUNING]
    assert len(tuning) == len(set(tuning)) == len(record.metrics["tuning"])
    assert {c.seed for c in asked if c.tokens == TUNING} == {0}


@pytest.mark.parametrize("size", ["", "nano"])
def test_rivals_spend_the_same_flops_to_half_a_step(size):
    base = replace(BASE, size="micro", tokens=409_600)
    for config, role, sparsity in scaling.entries(base, [0.0, 0.5, 0.75], size):
        assert config.sparsity == (sparsity if role == scaling.TOKENS else 0)
        spent = flops.training(config.shape, config.tokens, config.sparsity).total
        budget = flops.training(base.shape, base.tokens, sparsity).total
        step = flops.training(config.shape, base.batch_tokens).total
        assert abs(spent - budget) <= step / 2
        assert config.size == (size if role == scaling.SMALLER else "micro")


def test_costs_are_taken_seed_by_seed(record):
    lines = {(line["sparsity"], line["rival"]): line for line in scaling.costs(record)}
    rivals = (scaling.TOKENS, scaling.EARLY, scaling.SECONDS)
    assert set(lines) == {(s, r) for s in (0.5, 0.75) for r in rivals}
    equal = lines[0.75, scaling.TOKENS]
    assert equal["difference"] == pytest.approx(0.75)
    assert (equal["low"], equal["high"]) == pytest.approx((0.75, 0.75))  # seeds differ alike
    early = next(c for c, role, s in scaling.entries(BASE, [0, 0.75]) if role == scaling.EARLY)
    gained = 0.75 + 1e3 / BASE.tokens - 1e3 / early.tokens
    assert lines[0.75, scaling.EARLY]["difference"] == pytest.approx(gained)


def test_equal_seconds_lie_between_dense_runs_of_other_lengths(record):
    (line,) = (
        line
        for line in scaling.costs(record)
        if (line["sparsity"], line["rival"]) == (0.5, scaling.SECONDS)
    )
    early = next(c for c, role, s in scaling.entries(BASE, [0, 0.5]) if role == scaling.EARLY)
    same = (1 - 0.5 * SPARED) * BASE.tokens
    assert early.tokens < same < BASE.tokens
    lengths = {row["tokens_trained"] for row in record.metrics["rows"] if not row["sparsity"]}
    dense = 0.0  # Lagrange's parabola through the three lengths
    for own in lengths:
        others = lengths - {own}
        parts = [math.log(same / other) / math.log(own / other) for other in others]
        dense += 1e3 / own * math.prod(parts)
    assert line["difference"] == pytest.approx(0.5 + 1e3 / BASE.tokens - dense)


def timed(tokens: int = 0, device: str = "cpu", threads: int = 1, **changes) -> Record:
    """A bench of the sizes and sparsities of `record`; a peer and another pattern run along."""
    speedups = {("dense", 0.0): 1.0, ("unstructured", 0.5): 3.0, ("unstructured", 0.75): 1.5}
    rows = [
        {"size": BASE.size, "pattern": pattern, "sparsity": sparsity, "part": part, "seconds": 3.0}
        | {"speedup": speedup, "gflops": 1.0}
        for (pattern, sparsity), speedup in (speedups | {("16x16", 0.5): 9.0}).items()
        for part in ("step", "forward")
    ]
    rows.append({k: v for k, v in rows[0].items() if k != "gflops"} | {"seconds": 5.0})
    return Record(
        id="bench", kind="bench", params={"tokens": tokens or AT_ONCE} | changes,
        metrics={"rows": rows}, data_fingerprint="", env={"device": device, "threads": threads},
    )  # fmt: skip


@pytest.fixture
def quiet(record):
    """A study whose steps are what a bench times: one pass each."""
    record.env.update(device="cpu", threads=1)
    record.params["batch_tokens"] = AT_ONCE
    return record


def test_a_study_is_timed_anew_by_a_bench_of_its_steps(quiet):
    again = scaling.retimed(quiet, timed())
    for row, old in zip(again.metrics["rows"], quiet.metrics["rows"], strict=True):
        pace = {0.0: 3.0, 0.5: 1.0, 0.75: 2.0}[row["sparsity"]]
        assert row["seconds"] == pytest.approx(row["tokens_trained"] / AT_ONCE * pace)
        assert row | {"seconds": 0} == old | {"seconds": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": 1}, "tokens a step; bench has 1, "),
        ({"precision": "bf16"}, "precision; bench has bf16, "),
        ({"engine": "masked"}, "engine; bench has masked, "),
        ({"device": "NVIDIA"}, "device; bench has NVIDIA, "),
        ({"threads": 2}, "threads; bench has 2, "),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bench_of_other_steps_times_no_study(quiet, change, said):
    with pytest.raises(ValueError, match=f"a bench that times a study has its {said}"):
        scaling.retimed(quiet, timed(**change))


def test_a_study_whose_steps_no_bench_has_is_not_timed(quiet):
    quiet.params["recompute"] = True
    with pytest.raises(ValueError, match="its recomputation; bench has False"):
        scaling.retimed(quiet, timed())
    quiet.params.update(recompute=False, batch_tokens=2 * AT_ONCE)
    with pytest.raises(ValueError, match=f"its tokens at once; bench has {2 * AT_ONCE}"):
        scaling.retimed(quiet, timed(tokens=2 * AT_ONCE))


def test_a_bench_that_lacks_a_sparsity_times_no_study(quiet):
    lacking = timed()
    lacking.metrics["rows"] = [r for r in lacking.metrics["rows"] if r["sparsity"] != 0.75]
    with pytest.raises(ValueError, match=r"masks unstructured; bench lacks \[\('tiny', 0.75\)\]"):
        scaling.retimed(quiet, lacking)


def test_disturbed_short_runs_do_not_change_the_pace(record):
    before = scaling.costs(record)
    for row in record.metrics["rows"]:
        if row["role"] == scaling.EARLY:
            row["seconds"] *= 3
    assert scaling.costs(record) == before


def test_a_sparse_model_that_is_no_faster_has_no_rival_in_equal_seconds(record):
    for row in record.metrics["rows"]:
        row["seconds"] *= 1 + 2 * row["sparsity"]
    assert scaling.SECONDS not in {line["rival"] for line in scaling.costs(record)}


def test_a_sparse_model_that_is_faster_than_any_dense_run_is_short_has_none_either(record):
    for row in record.metrics["rows"]:
        row["seconds"] *= 0.1 if row["sparsity"] else 1
    assert scaling.SECONDS not in {line["rival"] for line in scaling.costs(record)}


def test_one_seed_has_no_interval(asked, tmp_path):
    record = scaling.study(BASE, [0.0, 0.5], [3], TUNING, runs=tmp_path)
    assert {line["low"] for line in scaling.costs(record)} == {None}
    assert scaling.told(record).splitlines()[1].endswith("+0.500")


def test_a_rate_that_explodes_has_no_loss_in_the_record(record):
    none = {row["lr"] for row in record.metrics["tuning"] if row["loss"] is None}
    assert none == {2 * BEST[0.75]}


def test_the_record_is_kept(record, tmp_path):
    assert records.load(tmp_path / record.id / "record.json") == record
    assert (record.kind, record.params["tuning_tokens"]) == ("scaling", TUNING)


@pytest.mark.parametrize(
    ("sparsities", "smaller", "message"),
    [
        ([0.5, 0.75], "", "0 is what the others are measured by; got \\[0.5, 0.75\\]"),
        ([0, 0.5, 0.5], "", "different ones"),
        ([0, 1.5], "", "fraction"),
        ([0, 0.5], "mini", "mini has context 256 and vocabulary 2048, tiny 512 and 512"),
        ([0, 0.5], "huge", "a size is one of"),
    ],
)
def test_a_bad_choice_is_refused_before_anything_runs(
    asked, tmp_path, sparsities, smaller, message
):
    with pytest.raises(ValueError, match=message):
        scaling.study(BASE, sparsities, [0], TUNING, smaller, tmp_path)
    assert not asked


def test_the_command_line_says_the_same(asked, tmp_path, capsys):
    words = ["scale", "--corpus", "sample:", "--size", "tiny", "--tokens", "20480"]
    words += ["--batch-tokens", "1024", "--tuning-tokens", "1024", "--lr", "1e-3"]
    words += ["--seeds", "2", "--runs", str(tmp_path)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    kept = records.load(tmp_path / lines[-1] / "record.json")
    assert lines[:-1] == scaling.told(kept).splitlines()
