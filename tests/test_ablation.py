"""One field varied: the same seeds for every value, and differences with both their intervals."""

from dataclasses import replace

import pytest

from mediswift import ablation, pretrain, train
from mediswift.__main__ import main
from mediswift.runs import load_run

NAMES = ("low", "high", "questions_low", "questions_high")


@pytest.fixture(scope="module")
def record(base, place):
    return ablation.study(base, "virtual_tokens", ["0", "2"], [0], place)


def test_long_texts_are_cut_and_ids_are_not():
    run = "demo-s87.5-unstructured-scaled-seed0"
    assert ablation.short(f"pretrain-{run}-c6224f878a") == run
    assert (
        ablation.short("text:does the context answer the question")
        == "text:does the context answer ..."
    )


def test_variants_differ_in_one_field_alone(record, base, place):
    made = [load_run(row["run"], place).params for row in record.metrics["rows"]]
    assert [run["virtual_tokens"] for run in made] == [0, 2]
    assert made[0] | {"virtual_tokens": 2} == made[1]
    assert (record.kind, record.parent) == ("ablation", base.parent)
    assert (record.params["field"], record.params["values"]) == ("virtual_tokens", ["0", "2"])


def test_accuracy_is_that_of_the_examinations(record, place):
    exams = [load_run(row["exam"], place) for row in record.metrics["rows"]]
    assert [v["accuracy"] for v in record.metrics["variants"]] == [
        exam.metrics["accuracy"] for exam in exams
    ]


def test_a_second_study_finds_all_its_runs(record, base, place, monkeypatch):
    monkeypatch.setattr(train, "fit", None)
    again = ablation.study(base, "virtual_tokens", [0, 2], [0], place)
    assert (again.id, again.metrics) == (record.id, record.metrics)


def test_the_command_line_says_the_same(record, place, pretrained, capsys):
    words = ["ablate", "--parent", pretrained.id, "--runs", str(place), "--labeled", "sample:"]
    words += ["--vary", "virtual_tokens", "0", "2", "--seeds", "1", "--epochs", "1"]
    words += ["--batch", "30", "--micro-batch", "4", "--max-length", "160"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == record.id
    assert lines[-5:-1] == ablation.told(record).splitlines()
    assert "majority" in lines[-2] and lines[-3].count("[") == 2


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("virtual_token", ["0", "1"], "one of parent, .*; got 'virtual_token'"),
        ("seed", ["0", "1"], "one of parent, .*; got 'seed'"),
        ("loss", ["target"], "two different values or more"),
        ("loss", ["target", "target"], "two different values or more"),
        ("loss", ["target", "all"], "loss is one of target, sequence; got 'all'"),
        ("virtual_tokens", ["0", "many"], "virtual_tokens is of type int; got 'many'"),
        ("dense", ["True", "no"], "dense is of type bool; got 'no'"),
    ],
)
def test_a_bad_choice_is_refused_before_anything_runs(base, place, field, values, message):
    before = sorted(place.iterdir())
    with pytest.raises(ValueError, match=message):
        ablation.study(base, field, values, [0], place)
    assert sorted(place.iterdir()) == before


def test_words_become_the_type_of_the_field(base):
    varied = ablation.vary(base, "dense", ["True", "False"])
    assert [config.dense for config in varied.values()] == [True, False]
    assert ablation.vary(base, "lr", ["1e-3", 2e-3])["1e-3"].lr == 1e-3


@pytest.fixture(scope="module")
def dense(pretrained, runs, place):
    """Another parent of the same seed."""
    config = replace(pretrain.PretrainConfig(**pretrained.params), sparsity=0.0, tokens=1_024)
    return pretrain.pretrain(config, place)


def test_parents_lend_their_seeds(base, place, pretrained, dense, capsys):
    words = ["ablate", "--labeled", "sample:", "--runs", str(place), "--epochs", "1"]
    words += ["--batch", "30", "--micro-batch", "4", "--max-length", "160"]
    words += ["--of", "dense", dense.id, "--of", "sparse", pretrained.id, "--what", "sparsity"]
    assert main(words) == 0
    record = load_run(capsys.readouterr().out.splitlines()[-1], place)
    made = [load_run(row["run"], place) for row in record.metrics["rows"]]
    assert [run.parent for run in made] == [dense.id, pretrained.id]
    assert [v["variant"] for v in record.metrics["variants"]] == ["dense", "sparse"]
    assert (record.params["seeds"], record.params["field"]) == ([0], "sparsity")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([1], "two kinds of parents or more"),
        ([1, 0], "each of a run or more; got {'kind 0': \\['pretrain-.*'\\], 'kind 1': \\[\\]}"),
        ([1, 2], "the same seeds, each once"),
        ([2, 2], "the same seeds, each once"),
    ],
)
def test_parents_of_other_seeds_are_refused(base, place, pretrained, dense, kinds, message):
    both = [pretrained.id, dense.id]
    with pytest.raises(ValueError, match=message):
        ablation.parents(base, {f"kind {i}": both[:n] for i, n in enumerate(kinds)}, "x", place)


def test_what_a_variant_is_worth_by_hand():
    correct = {
        ("L", 0): [True, False, False, False], ("L", 1): [True, True, False, False],
        ("A>L", 0): [True, True, True, False], ("A>L", 1): [True, True, True, True],
    }  # fmt: skip
    first, second = ablation.worth(correct)
    assert first == {"variant": "L", "accuracy": 0.375, "seeds": 2}
    assert (second["accuracy"], second["difference"]) == (0.875, 0.5)
    assert second["low"] == second["high"] == 0.5  # both seeds gain two of four
    assert 0 <= second["questions_low"] < 0.5 < second["questions_high"] <= 1
    lone = {key: value for key, value in correct.items() if key[1] == 0}
    assert ablation.worth(lone)[1]["low"] is None


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((0.1, 0.3, 0.1, 0.2), "distinguishable"),
        ((-0.3, -0.1, -0.2, -0.1), "distinguishable"),
        ((-0.1, 0.3, 0.1, 0.2), "not distinguishable"),
        ((0.1, 0.3, 0.0, 0.2), "not distinguishable"),
        ((None, None, 0.1, 0.2), "not distinguishable"),
    ],
)
def test_both_intervals_must_leave_out_zero(ends, verdict, record):
    first = {"variant": "L", "accuracy": 0.5, "seeds": 1}
    names = ("low", "high", "questions_low", "questions_high")
    row = first | {"variant": "A>L", "difference": 0.2} | dict(zip(names, ends, strict=True))
    told = ablation.told(replace(record, metrics=record.metrics | {"variants": [first, row]}))
    assert ablation.verdict(row) == verdict
    starred = verdict == "distinguishable"
    assert told.splitlines()[2].endswith("] *" if starred else "]")
    assert (told.splitlines()[-1] == "* distinguishable: both intervals leave out zero") == starred
