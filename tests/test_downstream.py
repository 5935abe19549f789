"""HoC after pre-training of two kinds: differences by seed and by abstract, from kept answers."""

from dataclasses import replace

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from mediswift import classify, downstream, finetune, pretrain
from mediswift.__main__ import main
from mediswift.hallmarks import LABELS, Report
from mediswift.runs import load_run


def report(*right):
    """Report on abstracts of one label each, of which it names those that are `right`."""
    rows = [{"pmid": str(i), "labels": [LABELS[i % 10]]} for i in range(len(right))]
    return Report(
        [r | {"prediction": r["labels"] if ok else []} for r, ok in zip(rows, right, strict=True)]
    )


def test_a_kind_is_worth_what_its_seeds_differ_by():
    half, most, all_ = report(1, 1, 0, 0), report(1, 1, 1, 0), report(1, 1, 1, 1)
    rows = downstream.worth({("a", 0): half, ("a", 1): half, ("b", 0): most, ("b", 1): all_})
    assert rows[0] == {"variant": "a", "micro_f1": pytest.approx(2 / 3), "seeds": 2}
    by_seed = [most.micro_f1 - half.micro_f1, all_.micro_f1 - half.micro_f1]
    assert rows[1]["difference"] == pytest.approx(sum(by_seed) / 2)
    half_width = 12.706 * abs(by_seed[0] - by_seed[1]) / 2  # t of one degree of freedom
    assert rows[1]["high"] - rows[1]["low"] == pytest.approx(2 * half_width, rel=1e-4)


def test_intervals_over_abstracts_are_paired():
    same = report(1, 0, 1, 0, 1, 0)
    rows = downstream.worth({("a", 0): same, ("b", 0): same})
    assert (rows[1]["questions_low"], rows[1]["questions_high"]) == (0, 0)
    assert (rows[1]["low"], rows[1]["high"]) == (None, None)
    # one abstract of two decides: draws leave it out, or hold it alone
    rows = downstream.worth({("a", 0): report(1, 0), ("b", 0): report(1, 1)})
    assert (rows[1]["questions_low"], rows[1]["questions_high"]) == (0, 1)


@pytest.fixture(scope="module")
def dense(pretrained, place):
    """Another parent of the same seed."""
    config = replace(pretrain.PretrainConfig(**pretrained.params), sparsity=0.0, tokens=1_024)
    return pretrain.pretrain(config, place)


def test_the_command_line_tests_every_run(place, hoc_corpus, pretrained, dense, capsys):
    words = ["hoc", "--data", hoc_corpus, "--runs", str(place), "--epochs", "1"]
    words += ["--micro-batch", "4", "--what", "sparsity"]
    assert main([*words, "--of", "0", dense.id, "--of", "0.75", pretrained.id]) == 0
    out = capsys.readouterr().out.splitlines()
    record = load_run(out[-1], place)
    assert out[-len(downstream.told(record).splitlines()) - 1 : -1] == (
        downstream.told(record).splitlines()
    )
    assert (record.kind, record.params["field"]) == ("downstream", "sparsity")
    tests = [load_run(row["test"], place) for row in record.metrics["rows"]]
    assert [test.parent for test in tests] == [dense.id, pretrained.id]
    shown = [variant["micro_f1"] for variant in record.metrics["variants"]]
    assert shown == [test.metrics["rows"][0]["micro_f1"] for test in tests]
    assert "bag of words" in out[-2]


def test_kinds_named_twice_are_refused(place, hoc_corpus, pretrained, capsys):
    words = ["hoc", "--data", hoc_corpus, "--runs", str(place)]
    assert main([*words, "--of", "a", pretrained.id, "--of", "a", pretrained.id]) == 1
    assert "--of names each kind of parents once, got a, a" in capsys.readouterr().err


def test_other_seeds_are_refused_before_anything_runs(place, hoc_corpus, pretrained, monkeypatch):
    monkeypatch.setattr(classify, "classify", None)
    base = finetune.profile("tiny", parent="", questions=hoc_corpus, setting="document")
    with pytest.raises(ValueError, match="two kinds of parents or more"):
        downstream.study(base, {"a": [pretrained.id]}, "sparsity", place)
