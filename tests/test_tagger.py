"""Tests of mediswift.tagger. Run with: pytest tests/test_tagger.py."""

import gzip
import io
import json

import pytest

from mediswift import demo, tagger

MODEL = {
    "weights": {
        "suf2 es": {"VERB|Fin": 1.0},
        "t-1 DET|-": {"NOUN|-": 3.0},
        "w+1 </s>": {"NOUN|-": 0.5},
        "t-1 w DET|- goes": {"NUM|-": 9.0},
    },
    "tagdict": {"the": "DET|-"},
    "classes": ["NOUN|-", "VERB|Fin", "DET|-", "NUM|-"],
    "vocabulary": [],
}
SMALL = tagger.Tagger(MODEL["weights"], MODEL["tagdict"], tuple(sorted(MODEL["classes"])))


def test_context_decides_what_an_ending_leaves_open():
    assert SMALL.tag(["The", "changes"]) == ["DET|-", "NOUN|-"]
    assert SMALL.tag(["changes", "x"])[0] == "VERB|Fin"
    assert SMALL.tag(["the", "Goes"])[1] == "NUM|-"


def test_ties_and_nothing_are_settled_the_same_way_everywhere():
    assert SMALL.tag(["zzz", "y"])[0] == "VERB|Fin"  # no weight at all: the last tag by name
    assert SMALL.tag([]) == []


def test_the_model_is_read_as_data_from_its_pinned_archive(monkeypatch):
    packed = gzip.compress(json.dumps(MODEL).encode())
    asked = []
    monkeypatch.setattr(
        demo, "open_member", lambda name, member: asked.append(member) or io.BytesIO(packed)
    )
    tagger.load.cache_clear()
    try:
        assert tagger.load().tag(["The", "changes"]) == ["DET|-", "NOUN|-"]
    finally:
        tagger.load.cache_clear()
    assert asked == demo.load_pins()["tagger"]["members"]


@pytest.mark.slow  # it is fetched: a megabyte
def test_the_real_model_sees_what_it_is_for():
    tags = tagger.load().tag("Zinc increases survival in children".split())
    assert tags[1] == "VERB|Fin" and tags[2] == "NOUN|-"


def test_words_keep_hyphens_and_lose_punctuation():
    assert tagger.words("IL-6, (not) TNF.") == ["IL-6", "not", "TNF"]
