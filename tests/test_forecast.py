"""A law through scaling records: which runs go in, what is refused, and what is told with doubts.

Run with: pytest tests/test_forecast.py.
"""

import math
import random
import zlib
from dataclasses import asdict, replace

import pandas as pd
import pytest

from mediswift import configs, contest, figures, flops, forecast, law, records, scaling
from mediswift.__main__ import main
from mediswift.law import Law
from mediswift.records import Record

TRUE = Law(e=2.5, a=140.0, alpha=0.35, b=5300.0, beta=0.6, gamma=0.4)
NOISE = 0.005
BASE = configs.profile(
    "tiny", size="micro", corpus="sample:", tokens=1_228_800, batch_tokens=4_096, lr=4e-3
)
TUNING = 409_000  # no whole number of steps
TRAINED = 409_600
DRAWS = 12


def train(config, runs):
    """Record of a run whose loss is the law's, with noise of its own, at its best rate."""
    name = f"{config.size}-{config.sparsity}-{config.lr:g}-{config.seed}-{config.tokens}"
    noise = random.Random(zlib.crc32(name.encode())).gauss(0, NOISE)
    n, tokens = flops.parameters(config.shape), config.steps * config.batch_tokens
    loss = float(TRUE.loss(n, tokens, config.sparsity) * math.exp(noise))
    worse = 0.3 * abs(math.log2(config.lr / 8e-3))
    if config.lr > 2e-2:
        raise FloatingPointError("the rate is too high")
    figures = dict.fromkeys(scaling.FIGURES, 1.0) | {
        "validation_loss_nats": loss + worse, "tokens_trained": tokens,
        "non_embedding_parameters": n,
    }  # fmt: skip
    return Record(
        id=name, kind="pretrain", params=asdict(config), metrics=figures, data_fingerprint="text",
        env={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Records of two sizes; the larger one has the smaller as a rival."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "pretrain", train)
        patch.setattr(scaling, "pretrain", train)
        studies = [("micro", "nano"), ("nano", "")]
        return [
            scaling.study(replace(BASE, size=s), [0, 0.5, 0.75], [3, 4], TUNING, smaller, runs)
            for s, smaller in studies
        ]


@pytest.fixture(scope="module")
def record(found, tmp_path_factory):
    return forecast.study(found, tmp_path_factory.mktemp("law"), DRAWS)


def test_each_run_counts_once(found):
    rows = forecast.runs_of(found)
    trained = {row["run"] for one in found for row in one.metrics["rows"]}
    named = [row["run"] for row in rows if row["run"]]
    assert sorted(named) == sorted(trained)
    assert forecast.runs_of([*found, found[0]]) == rows


def test_a_tuning_gives_its_best_run(found):
    rows = [row for row in forecast.runs_of(found) if not row["run"]]
    groups = [(row["size"], row["sparsity"]) for row in rows]
    assert groups == [(size, s) for size in ("nano", "micro") for s in (0.0, 0.5, 0.75)]
    assert {(row["lr"], row["seed"], row["tokens"]) for row in rows} == {(8e-3, 3, TRAINED)}
    for row in rows:
        expected = TRUE.loss(row["n"], TRAINED, row["sparsity"])
        assert row["loss"] == pytest.approx(expected, rel=4 * NOISE)


def test_a_tuning_as_long_as_its_entry_is_not_counted_twice(monkeypatch, tmp_path):
    for module in (contest, scaling):
        monkeypatch.setattr(module, "pretrain", train)
    long = scaling.study(BASE, [0, 0.5], [3, 4], smaller="nano", runs=tmp_path)
    assert len(long.metrics["tuning"]) > 4
    rows = forecast.runs_of([long])
    assert sorted(row["run"] for row in rows) == sorted({r["run"] for r in long.metrics["rows"]})


def test_a_tuning_of_an_older_record_has_the_tokens_of_its_study(found):
    tuning = [{k: v for k, v in r.items() if k != "tokens"} for r in found[1].metrics["tuning"]]
    older = replace(found[1], metrics=found[1].metrics | {"tuning": tuning})
    assert forecast.runs_of([older]) == forecast.runs_of([found[1]])


def test_of_two_tunings_the_better_one_counts(found):
    tuning = [row | {"loss": row["loss"] and row["loss"] - 1} for row in found[1].metrics["tuning"]]
    better = replace(found[1], metrics=found[1].metrics | {"tuning": tuning})
    one, other = (
        {
            row["loss"]
            for row in forecast.runs_of(chosen)
            if not row["run"] and row["size"] == "nano"
        }
        for chosen in ([found[1]], [found[1], better])
    )
    assert sorted(other) == pytest.approx(sorted(loss - 1 for loss in one))


def test_the_law_is_found_again_within_its_intervals(record):
    rows = {row["name"]: row for row in record.metrics["coefficients"]}
    assert list(rows) == ["e", "a", "alpha", "b", "beta", "gamma"]
    for name, row in rows.items():
        assert row["value_low"] <= getattr(TRUE, name) <= row["value_high"], name
        assert row["value_low"] <= row["value"] <= row["value_high"], name
    assert 0.25 * NOISE < record.metrics["seed_noise_nats"] / 4.5 < 4 * NOISE
    assert 0.25 * NOISE < record.metrics["held_out_error_nats"] / 4.5 < 4 * NOISE


def test_what_two_sizes_cannot_say_is_called_so(record):
    determined = {row["name"]: row["determined"] for row in record.metrics["coefficients"]}
    assert not determined["e"] and not determined["a"]
    said = forecast.told(record)
    assert "Not determined by these runs: e, a" in said
    assert "intervals are rather too narrow" in said
    most = max(row["tokens"] for row in record.metrics["rows"])
    times = f"1,523 times the size and {104_857_600_000 / most:,.0f} times the tokens"
    assert times in said
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["e"]]
    assert line.endswith("not determined")


@pytest.mark.parametrize(
    ("one", "other", "open_ones"),
    [
        ({}, {}, set()),
        ({}, {"alpha": 0.9}, {"alpha"}),
        ({"gamma": -0.1}, {"gamma": 0.3}, set()),  # wider than itself, and yet near nothing
        ({"gamma": -0.1}, {"gamma": 0.5}, {"gamma"}),
        ({"at_limit": ("e",)}, {"at_limit": ("e",)}, {"e"}),  # narrow for the wrong reason
    ],
)
def test_what_counts_as_determined(found, tmp_path, monkeypatch, one, other, open_ones):
    drawn = law.Draws((replace(TRUE, **one), replace(TRUE, **other)), failed=0)
    monkeypatch.setattr(law, "bootstrap", lambda *_: drawn)
    monkeypatch.setattr(law, "fit", lambda _: TRUE)
    record = forecast.study(found, tmp_path)
    rows = record.metrics["coefficients"]
    assert {row["name"] for row in rows if not row["determined"]} == open_ones
    said = forecast.told(record)
    assert ("Not determined" in said) == bool(open_ones)
    assert ("intervals end that rest on e." in said) == (open_ones == {"e"})
    assert "identified no law" not in forecast.told(record)


def test_the_error_is_a_mean_over_groups(record):
    table = pd.DataFrame(record.metrics["rows"])
    off = (table["held_out"] - table["loss"]).abs().groupby([table["n"], table["sparsity"]]).mean()
    assert record.metrics["held_out_error_nats"] == pytest.approx(off.mean())
    assert f"{off.mean():.3f} nats a token (6 of 6 could be)" in forecast.told(record)


def test_predictions_are_of_the_papers_models_at_its_tokens(record):
    rows = record.metrics["predictions"]
    assert [(row["size"], row["sparsity"]) for row in rows] == [
        (size, s) for size in ("med", "xl") for s in (0.0, 0.5, 0.75)
    ]
    assert {row["tokens"] for row in rows} == {104_857_600_000}
    fitted = Law(*(row["value"] for row in record.metrics["coefficients"]))
    for row in rows:
        place = row["n"], row["tokens"], row["sparsity"]
        assert row["loss"] == pytest.approx(fitted.loss(*place))
        assert row["loss_low"] <= TRUE.loss(*place) <= row["loss_high"]
        assert row["loss_high"] - row["loss_low"] > 0.5  # nobody may take it for a number
        assert row["dense_size"] == pytest.approx(fitted.dense_size(row["n"], row["sparsity"]))


def test_rows_hold_both_predictions_and_can_be_drawn(record):
    table = pd.DataFrame(record.metrics["rows"])
    rows = record.metrics["rows"]
    assert [row["held_out"] for row in rows] == law.held_out(rows)
    assert (table["loss"] - table["predicted"]).abs().max() < 0.1
    figure = figures.predicted_losses(table)
    figure.canvas.draw()
    drawn = [line for line in figure.axes[0].lines[1:] if len(line.get_xdata())]
    assert len(drawn) == 2 * 3  # filled and hollow, for each sparsity


def test_the_record_is_kept_and_the_order_of_records_changes_nothing(found, record, tmp_path):
    again = forecast.study(found[::-1], tmp_path, DRAWS)
    assert records.load(tmp_path / again.id / "record.json") == again
    assert (again.id, again.params, again.metrics) == (record.id, record.params, record.metrics)
    assert again.id.startswith("law-nano-micro-")
    assert (record.kind, record.data_fingerprint) == ("law", "text")
    assert record.params["records"] == sorted(one.id for one in found)
    assert records.table([record]).loc[0, "vocab_size"] == 2048


def test_one_study_alone_cannot_be_held_out_and_says_so(found, tmp_path):
    corner = forecast.study(found[:1], tmp_path, draws=2)
    assert corner.metrics["held_out_error_nats"] is None
    assert "cannot be told (0 of 4 could be)" in forecast.told(corner)
    assert "drawn again: intervals are far too narrow" in forecast.told(corner)


def test_lone_seeds_have_no_noise_to_tell(found, tmp_path):
    lone = [
        replace(
            one, metrics=one.metrics | {"rows": [r for r in one.metrics["rows"] if r["seed"] == 3]}
        )
        for one in found
    ]
    alone = forecast.study(lone, tmp_path, draws=2)
    assert alone.metrics["seed_noise_nats"] is None
    assert "seeds differ" not in forecast.told(alone)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pattern", "16x1", "'pattern': \\['16x1', 'unstructured'\\]"),
        ("batch_tokens", 8192, "'batch_tokens': \\['4096', '8192'\\]"),
        ("validation_rows", 7, "'validation_rows'.*leave out the records of the others"),
        ("keep_contaminated", True, "'keep_contaminated': \\['False', 'True'\\]"),
        ("moves", "set", "'moves': \\['', 'set'\\]"),
        ("density_scaling", True, "'density_scaling'"),
    ],
)
def test_runs_of_another_recipe_are_refused(found, name, value, message):
    other = replace(found[1], params=found[1].params | {name: value})
    with pytest.raises(ValueError, match=message):
        forecast.runs_of([found[0], other])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "other"}, "'data': \\['other', 'text'\\]"),
        ({"size": "demo"}, "'vocab_size': \\['2048', '4096'\\], 'context': \\['256', '512'\\]"),
    ],
)
def test_runs_of_another_text_or_vocabulary_are_refused(found, changes, message):
    rows = [row | changes for row in found[1].metrics["rows"]]
    other = replace(found[1], metrics=found[1].metrics | {"rows": rows})
    with pytest.raises(ValueError, match=message):
        forecast.runs_of([found[0], other])


def test_a_record_older_than_a_parameter_has_its_default(found):
    params = {k: v for k, v in found[1].params.items() if k not in configs.LATER}
    older = replace(found[1], params=params)
    assert forecast.setting([found[0], older]) == forecast.setting(found)


def test_too_few_runs_are_refused_by_the_command_line(found, tmp_path, capsys):
    records.write(found[1], tmp_path / "one")
    assert main(["law", str(tmp_path / "one"), "--runs", str(tmp_path / "out")]) == 1
    assert "six coefficients need" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_record_of_another_kind_is_refused(record, tmp_path, capsys):
    path = records.write(record, tmp_path)
    assert main(["law", str(path)]) == 1
    assert f"'scaling', {path} is of kind 'law'; make one with" in capsys.readouterr().err


def test_the_command_line_takes_folders_and_files_and_says_the_same(found, tmp_path, capsys):
    folder, file = tmp_path / found[0].id, records.write(found[1], tmp_path / found[1].id)
    records.write(found[0], folder)
    words = ["law", str(folder), str(file), "--runs", str(tmp_path), "--draws", str(DRAWS)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    kept = records.load(tmp_path / lines[-1] / "record.json")
    assert lines[:-1] == forecast.told(kept).splitlines()
