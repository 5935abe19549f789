"""Priors: what a model answers to anything, taken off its scores."""

import numpy as np
import pytest
from test_pubmedqa import make_model, make_questions, make_tokenizer

from mediswift import priors, pubmedqa
from mediswift.report import Report


def make_report(rng, n=300, tilt=(0.0, 0.0, 0.0)):
    """A model whose scores are truth plus noise plus a tilt."""
    rows = []
    for i in range(n):
        label = ("yes", "no", "maybe")[rng.choice(3, p=[0.55, 0.34, 0.11])]
        nats = rng.normal(size=3) + np.array(tilt)
        scores = dict(zip(pubmedqa.ANSWERS, nats.tolist(), strict=True))
        scores[label] += 2
        given = max(scores, key=scores.get)
        rows.append({"pmid": f"S{i}", "label": label, "prediction": given, "scores": scores})
    return Report(rows, "reasoning_required")


def test_marginals_bring_mean_probabilities_to_the_labels_shares():
    report = make_report(np.random.default_rng(0), tilt=(0, 4, 0))
    fixed = priors.corrected(report, priors.marginal(report), "marginal")
    shares = [report.labels.count(answer) / report.n for answer in pubmedqa.ANSWERS]
    assert fixed.probabilities.mean(0) == pytest.approx(shares, abs=1e-3)
    assert fixed.accuracy > report.accuracy + 0.2
    assert fixed.name == "model, marginal"


def test_a_prior_fitted_on_other_questions_undoes_a_tilt():
    rng = np.random.default_rng(1)
    prior = priors.marginal(make_report(rng, tilt=(0, 4, 0)))
    test, plain = make_report(rng, tilt=(0, 4, 0)), make_report(rng)
    assert priors.corrected(test, prior, "x").accuracy == pytest.approx(plain.accuracy, abs=0.08)


def test_an_answer_that_no_label_has_is_left_as_it_is():
    report = make_report(np.random.default_rng(2))
    rows = [row for row in report.predictions if row["label"] != "maybe"]
    assert priors.marginal(Report(rows, "reasoning_required"))[2] == 0


@pytest.mark.parametrize("setting", pubmedqa.SETTINGS)
def test_content_free_is_the_score_of_an_empty_question(setting):
    model, tokenizer = make_model(), make_tokenizer()
    prior = priors.content_free(model, tokenizer, setting)
    assert prior.shape == (3,) and (prior < 0).all()
    empty = dict(make_questions(1)[0], question="", contexts=[""])
    if setting == "reasoning_required":
        from datasets import Dataset

        row = pubmedqa.evaluate(model, tokenizer, Dataset.from_list([empty])).predictions[0]
        assert list(row["scores"].values()) == pytest.approx(prior.tolist(), abs=1e-5)


def test_a_report_without_scores_is_refused():
    rows = [{"pmid": "1", "label": "yes", "prediction": "yes"}]
    with pytest.raises(ValueError, match="model has answers only"):
        priors.corrected(Report(rows, "question_only"), np.zeros(3), "x")
