"""Baselines: what a model must beat; each is a yardstick that sees no test label."""

import pytest

from mediswift import baselines, pubmedqa


@pytest.fixture(scope="module")
def parts():
    questions = pubmedqa.load("sample:")
    return pubmedqa.split(questions, "train"), pubmedqa.split(questions, "test")


def test_majority_is_that_of_training(parts):
    train, test = parts
    report = baselines.majority(train.filter(lambda q: q["label"] == "maybe"), test)
    assert set(report.answers) == {"maybe"} and report.baseline
    assert report.labels == list(test["label"])


def test_a_bag_of_words_learns_what_words_tell(parts):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    train, _ = parts
    told = train.map(lambda q: {"contexts": [f"the result was {q['label']}ness indeed"]})
    report = baselines.bag_of_words(told, told)
    assert report.accuracy > 0.9 and report.baseline
    assert report.probabilities.sum(1) == pytest.approx(1)
    blind = baselines.bag_of_words(told, told, "question_only")
    assert blind.accuracy < report.accuracy and "question only" in blind.name


def test_an_answer_without_training_is_never_given(parts):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    train, test = parts
    report = baselines.bag_of_words(train.filter(lambda q: q["label"] != "maybe"), test)
    assert "maybe" not in report.answers


def test_one_answer_is_nothing_to_learn(parts):
    train, test = parts
    with pytest.raises(ValueError, match=r"have \['no'\]; take another fold"):
        baselines.bag_of_words(train.filter(lambda q: q["label"] == "no"), test)
