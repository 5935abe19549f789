"""The examination: every answer is kept by PMID, and reads back as the same report."""

import json
import shutil
from dataclasses import replace

import pytest

from mediswift import demo, examine, pubmedqa
from mediswift.examine import ExamConfig
from mediswift.runs import load_model, load_tokenizer


@pytest.fixture(scope="module")
def config(tuned):
    return ExamConfig(parent=tuned.id, questions="sample:")


@pytest.fixture(scope="module")
def record(config, runs):
    return examine.examine(config, runs)


def test_the_report_reads_back_as_it_was(config, record, runs):
    test = pubmedqa.split(pubmedqa.load("sample:"), "test")
    model, tokenizer = load_model(config.parent, runs), load_tokenizer(config.parent, runs)
    wanted = pubmedqa.evaluate(model, tokenizer, test)
    found = examine.load_report(record, runs)
    assert found == wanted
    assert found.metrics() == record.metrics == wanted.metrics()
    assert str(found.difference(wanted)) == str(wanted.difference(wanted))


def test_every_test_question_is_answered_once_under_its_pmid(record, runs):
    test = pubmedqa.split(pubmedqa.load("sample:"), "test")
    lines = (runs / record.id / examine.PREDICTIONS).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["pmid"], row["label"]) for row in rows] == list(
        zip(test["pmid"], test["label"], strict=True)
    )
    assert all(max(row["scores"], key=row["scores"].get) == row["prediction"] for row in rows)


def test_a_report_can_be_named(record, runs):
    assert "ours - majority" in str(examine.load_report(record, runs, name="ours"))


def test_a_second_call_finds_the_answers(config, record, runs, monkeypatch):
    monkeypatch.setattr(pubmedqa, "evaluate", None)
    assert examine.examine(config, runs) == record


def test_another_setting_is_another_examination(config, record, runs):
    other = ExamConfig(parent=config.parent, questions="sample:", setting="question_only")
    found = examine.examine(other, runs)
    assert found.id != record.id
    assert examine.load_report(found, runs) != examine.load_report(record, runs)
    assert found.parent == record.parent


def test_a_pre_trained_run_is_examined_as_it_is(pretrained, runs):
    found = examine.examine(ExamConfig(parent=pretrained.id, questions="sample:"), runs)
    assert found.mask_digest == pretrained.mask_digest
    assert found.metrics["n"] == len(pubmedqa.split(pubmedqa.load("sample:"), "test"))


def test_examinations_are_found_by_parent_and_items(record, tuned, runs, tmp_path, monkeypatch):
    shutil.copyfile(demo.DATA / "sample" / "questions.json", tmp_path / "moved.json")
    moved = ExamConfig(parent="", questions=str(tmp_path / "moved.json"))
    absent = replace(tuned, id="finetune-absent")
    assert examine.find(moved, [absent, tuned], runs) == [record]
    assert examine.find(moved, [], runs) == []
    assert examine.find(replace(moved, setting="reasoning_free"), [tuned], runs) == []
    monkeypatch.setattr(examine, "RECIPE", examine.RECIPE + 1)
    assert examine.find(moved, [tuned], runs) == []


def test_examinations_on_other_questions_are_not_found(record, tuned, runs, tmp_path):
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    test = pubmedqa.split(pubmedqa.load("sample:"), "test")["pmid"]
    items[test[0]]["QUESTION"] += " Really?"
    (tmp_path / "other.json").write_text(json.dumps(items), encoding="utf-8")
    other = ExamConfig(parent="", questions=str(tmp_path / "other.json"))
    assert examine.find(other, [tuned], runs) == []


def test_a_crash_while_writing_leaves_no_predictions(record, runs, tmp_path):
    report = examine.load_report(record, runs)
    report.predictions[-1]["scores"] = {"yes": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        examine.write_predictions(report, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_parent_is_named(runs):
    with pytest.raises(FileNotFoundError, match="no finished run 'finetune-x' in .*; there are"):
        examine.examine(ExamConfig(parent="finetune-x", questions="sample:"), runs)
