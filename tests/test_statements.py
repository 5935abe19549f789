"""Tests of mediswift.statements. Run with: pytest tests/test_statements.py."""

import pytest

from mediswift import statements

FINITE = {"increases", "control", "act"}


def tag(words):
    """All nouns, but for a few closed words and the verbs that the tests need."""
    closed = {"in": "ADP|-", "with": "ADP|-", "we": "PRON|-", "you": "PRON|-"}
    return ["VERB|Fin" if w in FINITE else closed.get(w.lower(), "NOUN|-") for w in words]


@pytest.mark.parametrize(
    ("title", "question", "label"),
    [
        ("Zinc is good for colds.", "Is zinc good for colds?", "yes"),
        ("Statins are not associated with cancer", "Are statins associated with cancer?", "no"),
        ("Zinc is no longer useful in colds", "Is zinc useful in colds?", "no"),
        ("IL-6 reduces pain in mice", "Does IL-6 reduce pain in mice?", "yes"),
        ("Zinc increases survival in children", "Does zinc increase survival in children?", "yes"),
        ("Zinc has no effect on colds", "Does zinc have effect on colds?", "no"),
        ("Zinc has improved outcomes of colds", "Has zinc improved outcomes of colds?", "yes"),
        ("Zinc does not shorten colds: a trial", "Does zinc shorten colds?", "no"),
        ("Zinc fails to improve survival", "Does zinc improve survival?", "no"),
        ("Zinc shows no benefit in colds", "Does zinc show benefit in colds?", "no"),
        (
            "Zinc inhibits growth and promotes death of cells",
            "Does zinc inhibit growth and promote death of cells?",
            "yes",
        ),
        (
            "EGL-4 regulates ageing of C. elegans in the dark",
            "Does EGL-4 regulate ageing of C. elegans in the dark?",
            "yes",
        ),
        (
            "Colds and zinc: zinc reduces pain in colds",
            "Does zinc reduce pain in colds?",
            "yes",
        ),
    ],
)
def test_a_statement_becomes_its_question(title, question, label):
    assert statements.ask(title, tag) == (question, label, "statement")


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("Zinc may reduce pain in mice", "Does zinc reduce pain in mice?"),
        ("Zinc tablets could reduce pain", "Do zinc tablets reduce pain?"),
        ("Zinc might be useful in colds", "Is zinc useful in colds?"),
    ],
)
def test_a_title_with_may_is_open(title, question):
    assert statements.ask(title, tag) == (question, "maybe", "hedged")


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("Does zinc shorten colds? A trial", "Does zinc shorten colds?"),
        ("Zinc in colds: is it of any use?", "Zinc in colds: is it of any use?"),
        ("Does zinc shorten the common cold: a trial", "Does zinc shorten the common cold?"),
    ],
)
def test_a_title_that_asks_is_kept_without_a_label(title, question):
    assert statements.ask(title, tag) == (question, "", "question")


@pytest.mark.parametrize(
    "title",
    [
        "",
        "Zinc",
        "Zinc in the treatment of colds: a review",
        "Why does zinc work in colds?",
        "What is known? What is not known about zinc?",
        "Does zinc help or not in colds?",
        "Patients who take zinc reduce pain at home",  # a relative clause before the verb
        "In mice zinc reduces pain and fever",  # no noun phrase to begin with
        "Zinc reduces pain while copper is useless",  # a second clause
        "Zinc is good and reduces pain in colds",  # "is" cannot lead "reduce"
        "Zinc rarely reduces pain in colds",
        "Zinc effects on colds in children",
        "Increases of pain in mice with zinc",
        "Zinc is not good for colds but harmless",
        "Zinc can reduce pain in many mice",
        'Zinc is "good" for colds in mice',
    ],
)
def test_what_is_not_plainly_one_is_left_out(title):
    assert statements.ask(title, tag) is None


def test_what_indexers_add_is_taken_off():
    assert statements.trim("Zinc and colds [see comment].") == "Zinc and colds"
    assert statements.trim("Colds in the winter of 2009") == "Colds in the winter of 2009"


def test_every_verb_has_a_base_and_shares():
    assert statements.verbs()["inhibits"][0] == "inhibit"
    assert all(0 <= share <= 1 for _, share in statements.verbs().values())


def test_plurals_are_told_by_the_head():
    assert statements.is_plural("levels of zinc") and statements.is_plural("zinc and copper")
    assert not statements.is_plural("level of proteins") and not statements.is_plural("virus")
