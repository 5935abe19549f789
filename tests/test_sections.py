"""Tests of mediswift.sections. Run with: pytest tests/test_sections.py."""

import pytest

from mediswift import sections

LINES = "BACKGROUND: We wondered.\nMETHODS: We gave zinc: daily.\nCONCLUSIONS: Zinc helps."


def test_a_section_a_line_is_cut_into_contexts_and_conclusion():
    parts = sections.cut(LINES)
    assert parts.contexts == ["We wondered.", "We gave zinc: daily."]
    assert parts.section_labels == ["BACKGROUND", "METHODS"]
    assert parts.conclusion == "Zinc helps."


def test_headings_inside_a_line_are_found():
    assert sections.cut(LINES.replace("\n", " ")) == sections.cut(LINES)


def test_a_colon_in_a_sentence_is_no_heading():
    text = "We saw this. Mice: they slept. Doses: 1 mg."
    assert sections.read(text) == [("", text)]


def test_registration_is_neither_context_nor_conclusion():
    parts = sections.cut(LINES + "\nTRIAL REGISTRATION: NCT00000001.\nFUNDING: None.")
    assert parts == sections.cut(LINES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Zinc helps.",
        "METHODS: We gave zinc.",
        "CONCLUSION: Zinc helps.",
        "METHODS: We gave zinc.\nRESULTS AND CONCLUSIONS: Zinc helped.",
    ],
)
def test_without_a_conclusion_or_a_context_there_is_nothing(text):
    assert sections.cut(text) is None


def test_the_last_sentence_concludes_only_where_nothing_else_does():
    text = "We gave zinc. Colds were shorter. Zinc helps."
    parts = sections.cut(text, last_sentence=True)
    assert (parts.contexts, parts.conclusion) == (
        ["We gave zinc. Colds were shorter."],
        "Zinc helps.",
    )
    assert sections.cut(text) is None
    assert sections.cut("Zinc helps.", last_sentence=True) is None
    assert sections.cut(LINES, last_sentence=True) == sections.cut(LINES)


def test_discussion_may_stand_beside_the_conclusion():
    parts = sections.cut("METHODS: We did.\nDiscussion and conclusion: It works.")
    assert parts.conclusion == "It works."
