"""Tests of mediswift.polarity. Run with: pytest tests/test_polarity.py."""

import pytest

from mediswift import polarity


@pytest.mark.parametrize(
    ("conclusion", "label"),
    [
        ("Zinc reduced the length of colds.", "yes"),
        ("Zinc had no significant effect on colds.", "no"),
        ("Zinc did not shorten colds.", "no"),
        ("Zinc may reduce pain.", "maybe"),
        ("The evidence is inconclusive.", "maybe"),
        ("Zinc reduced pain. Further studies are needed, and may show more.", "yes"),
        ("Zinc reduced pain, and may prevent colds.", "yes"),
        ("Zinc reduced pain but did not shorten colds.", ""),
        ("Zinc improved sleep. It had no effect on pain.", ""),
        ("This trial will show whether zinc reduces pain.", ""),
        ("Colds are common.", ""),
        ("", ""),
    ],
)
def test_what_a_conclusion_says(conclusion, label):
    assert polarity.answer(conclusion) == label


def test_a_sentence_about_something_else_does_not_count():
    said = "Zinc reduced pain. Copper had no effect."
    assert polarity.answer(said) == ""
    assert polarity.answer(said, "zinc pain") == "yes"


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("Effects of zinc on colds: a trial", "Does zinc affect colds?"),
        ("The long-term impact of zinc tablets on colds.", "Do zinc tablets affect colds?"),
        ("Efficacy of zinc in colds", "Is zinc effective in colds?"),
        ("Association between zinc and colds", "Is zinc associated with colds?"),
    ],
)
def test_a_title_that_says_what_was_looked_at(title, question):
    found = polarity.ask(title, "Zinc reduced colds.")
    assert found == (question, "yes", "effect")


@pytest.mark.parametrize(
    ("title", "conclusion"),
    [
        ("Zinc and colds", "Zinc reduced colds."),
        ("Effect of zinc versus copper on colds", "Zinc reduced colds."),
        ("Effect of zinc on colds: a case", "This case shows zinc reduced colds."),
        ("Effect of zinc on colds", "We gave zinc."),
    ],
)
def test_no_question_without_a_plain_pair_and_a_plain_answer(title, conclusion):
    assert polarity.ask(title, conclusion) is None
