"""Labels by a model: what it answers is what is written, and an exam is never relabeled."""

import json

import pytest

from mediswift import demo, pseudolabels, pubmedqa, questions
from mediswift.runs import load_model, load_tokenizer


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory):
    """Path of the synthetic questions under other PMIDs, all but the first without a label."""
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    (first, *rest) = items.items()
    without = {k: {f: v for f, v in item.items() if f != "final_decision"} for k, item in rest}
    path = tmp_path_factory.mktemp("u") / "pqau.json"
    content = {f"x{pmid}": item for pmid, item in [first, *without.items()]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def record(tuned, unlabeled, runs):
    return pseudolabels.label(tuned.id, unlabeled, runs)


def test_the_labels_are_what_the_model_answers(record, tuned, unlabeled, runs):
    items = questions.load(unlabeled, labeled=False)
    model, tokenizer = load_model(tuned.id, runs), load_tokenizer(tuned.id, runs)
    answers = pubmedqa.evaluate(model, tokenizer, items).answers
    found = pubmedqa.load(pseudolabels.path_of(record, runs))
    assert found["label"] == answers
    same = [name for name in items.column_names if name != "label"]
    assert found.select_columns(same).to_list() == items.select_columns(same).to_list()


def test_the_record_names_its_parent_and_counts(record, tuned):
    assert (record.kind, record.parent) == ("labels", tuned.id)
    found = record.metrics
    assert sum(found[f"labeled_{a}"] for a in pubmedqa.ANSWERS) == found["questions"] == 200
    assert found["had_labels"] == 1 and found["agreed"] in (0, 1)
    assert 1 / 3 <= found["mean_probability"] <= 1


def test_a_second_call_finds_the_labels(record, tuned, unlabeled, runs, monkeypatch):
    monkeypatch.setattr(pubmedqa, "evaluate", None)
    assert pseudolabels.label(tuned.id, unlabeled, runs) == record


def test_questions_of_an_exam_keep_their_labels(tuned, runs):
    with pytest.raises(ValueError, match="questions of the exam keep their labels; 200 of sample:"):
        pseudolabels.label(tuned.id, "sample:", runs)


def test_questions_without_labels_are_no_exam(unlabeled):
    with pytest.raises(ValueError, match="has the label None"):
        questions.load(unlabeled)
    assert questions.load(unlabeled, labeled=False)["label"].count("") == 199
