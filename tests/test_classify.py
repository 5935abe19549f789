"""HoC over seeds: every figure from the answers, beside the baselines, without the corpus."""

import json

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")

from mediswift import classify, finetune, hoc
from mediswift.__main__ import main


@pytest.fixture(scope="module")
def base(hoc_corpus, pretrained):
    return finetune.profile("tiny", parent=pretrained.id, questions=hoc_corpus, setting="document")


@pytest.fixture(scope="module")
def record(base, place):
    return classify.classify(base, [0, 1], place)


def test_a_record_holds_all_seeds_and_baselines(record, base, hoc_corpus, pretrained):
    assert (record.kind, record.parent) == ("hoc", pretrained.id)
    assert [row["name"] for row in record.metrics["rows"]] == ["seed 0", "seed 1"]
    names = [row["name"] for row in record.metrics["baselines"]]
    assert names == ["no label", "all labels", "commonest label", "bag of words"]
    n = len(hoc.split(hoc.load(hoc_corpus), "test"))
    assert {row["n"] for row in [*record.metrics["rows"], *record.metrics["baselines"]]} == {n}


def test_answers_are_kept_without_the_corpus(record, place, hoc_corpus):
    lines = (place / record.id / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2 * len(hoc.split(hoc.load(hoc_corpus), "test"))
    assert set(rows[0]) == {"name", "pmid", "labels", "prediction", "parsed"}


def test_a_second_call_finds_the_record(record, base, place, monkeypatch):
    monkeypatch.setattr(hoc, "evaluate", None)
    assert classify.classify(base, [0, 1], place) == record


def test_the_command_line_prints_the_table(record, base, place, hoc_corpus, pretrained, capsys):
    words = ["hoc", "--parent", pretrained.id, "--data", hoc_corpus, "--runs", str(place)]
    words += ["--epochs", "1", "--seeds", "2", "--micro-batch", "4"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert record.id in out and "micro-F1 over seeds" in out and "no label" in out


def test_another_task_is_refused(pretrained, place):
    config = finetune.profile("tiny", parent=pretrained.id, questions="sample:")
    with pytest.raises(ValueError, match="HoC has an address hoc:PATH, got 'sample:'"):
        classify.classify(config, [0], place)


def test_a_missing_library_is_named_before_training(base, place, monkeypatch):
    monkeypatch.setattr(classify, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="needs scikit-learn: pip install"):
        classify.classify(base, [5], place)
