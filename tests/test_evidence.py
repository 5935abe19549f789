"""Tests of mediswift.evidence. Run with: pytest tests/test_evidence.py."""

import csv
import json

import pytest

from mediswift import evidence

PROMPT = {"Intervention": "Zinc (n = 12)", "Comparator": "placebo", "Outcome": "Length of colds"}


def folder(tmp_path, answers):
    """Two prompts about one article and the `answers` to them, (prompt, label, valid) each."""
    prompts = [{"PromptID": i, "PMCID": "77", **PROMPT} for i in "12"]
    fields = ("PromptID", "Label", "Valid Label")
    rows = [dict(zip(fields, answer, strict=True)) for answer in answers]
    for name, content in zip(evidence.FILES, (prompts, rows), strict=True):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, content[0])
            writer.writeheader()
            writer.writerows(content)
    (tmp_path / "a.jsonl").write_text(json.dumps({"pmid": "9", "pmcid": "PMC77", "title": "Zinc"}))
    return tmp_path, tmp_path / "a.jsonl"


def test_agreed_answers_are_found_under_the_pmid(tmp_path):
    answers = [
        ("1", "significantly increased", "True"),
        ("1", "significantly decreased", "True"),  # either way it changes
        ("1", "no significant difference", "False"),  # not valid
        ("2", "no significant difference", "True"),
    ]
    found = evidence.load(*folder(tmp_path, answers))
    assert {row["PromptID"]: label for row, label in found["9"]} == {"1": "yes", "2": "no"}


def test_a_disagreement_is_no_answer(tmp_path):
    answers = [("1", "significantly increased", "True"), ("1", "no significant difference", "True")]
    assert evidence.load(*folder(tmp_path, answers)) == {}


def test_another_label_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="prompt 1 has 'perhaps'"):
        evidence.load(*folder(tmp_path, [("1", "perhaps", "True")]))
    with pytest.raises(FileNotFoundError, match="prompts_merged.csv and v2_annotations.csv"):
        evidence.load(tmp_path / "nowhere", tmp_path / "a.jsonl")


def test_a_prompt_becomes_a_question():
    asked = evidence.ask([(PROMPT, "no")], "The length of colds was equal.")
    assert asked == (
        "Does zinc, compared with placebo, change length of colds?",
        "no",
        "trial",
    )


@pytest.mark.parametrize(
    ("change", "contexts"),
    [
        ({}, "Nothing about it."),
        ({"Intervention": "receive zinc"}, "The length of colds."),
        ({"Comparator": ""}, "The length of colds."),
        ({"Outcome": "x" * 130}, "x" * 130),
    ],
)
def test_a_prompt_that_cannot_be_asked_or_answered_is_passed_over(change, contexts):
    assert evidence.ask([(PROMPT | change, "no")], contexts) is None
    assert evidence.ask([], contexts) is None
