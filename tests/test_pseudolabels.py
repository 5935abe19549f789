"""Labels by a model: what it answers is what is written, and an exam is never relabeled."""

import json
from pathlib import Path

import pytest

from mediswift import demo, pseudolabels, pubmedqa, questions
from mediswift.runs import load_model, load_tokenizer


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory):
    """Path of the synthetic questions under other PMIDs, without labels, and with a rule."""
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    for item in items.values():
        item.update(RULE="sample", SOURCE="ours")
        del item["final_decision"]
    path = tmp_path_factory.mktemp("u") / "pqau.json"
    content = {f"x{pmid}": item for pmid, item in items.items()}
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
    assert found.unique("rule") == ["sample"]
    assert found.select_columns(same).to_list() == items.select_columns(same).to_list()


def test_the_record_names_its_parent_and_counts(record, tuned):
    assert (record.kind, record.parent) == ("labels", tuned.id)
    found = record.metrics
    assert sum(found[f"labeled_{a}"] for a in pubmedqa.ANSWERS) == found["questions"] == 200
    assert 1 / 3 <= found["mean_probability"] <= 1


def test_a_second_call_finds_the_labels(record, tuned, unlabeled, runs, monkeypatch):
    monkeypatch.setattr(pubmedqa, "evaluate", None)
    assert pseudolabels.label(tuned.id, unlabeled, runs) == record


def test_questions_of_an_exam_keep_their_labels(tuned, unlabeled, runs, tmp_path):
    items = json.loads(Path(unlabeled).read_text(encoding="utf-8"))
    (_, item) = items.popitem()
    path = tmp_path / "u.json"
    path.write_text(json.dumps(items | {"21645374": item}), encoding="utf-8")  # of PubMedQA's test
    with pytest.raises(ValueError, match="of the exam keep their labels; 1 of .* PMID 21645374"):
        pseudolabels.label(tuned.id, str(path), runs)


def test_questions_that_have_labels_are_not_labeled(tuned, record, runs):
    with pytest.raises(ValueError, match="has the label '(yes|no|maybe)'"):
        pseudolabels.label(tuned.id, pseudolabels.path_of(record, runs), runs)
