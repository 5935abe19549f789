"""Selection: what goes and why, counted without a gap, and found once."""

import json
import random

import pytest
from datasets import Dataset

from mediswift import contamination, corpus, demo, selection

LONG = " ".join(f"word{random.Random(0).randrange(10**6) + i}" for i in range(60))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path / "cache"))


def make(*rows: tuple[str, str, str]) -> Dataset:
    names = ("pmid", "title", "abstract")
    rows = [
        dict(zip(names, row, strict=True)) | {"year": "", "source": "x", "form": ""} for row in rows
    ]
    return Dataset.from_list(rows, features=corpus.FEATURES)


@pytest.fixture
def documents():
    exam = next(iter(json.loads((demo.DATA / "pubmedqa_labels.json").read_text())))
    return make(
        ("1", "A", "Text one."),
        ("2", "B", ""),  # empty
        ("8", "Q", "Exam text."),  # a copy of the exam's, before it
        (exam, "Q", "Exam text."),
        ("1", "A", "Revised."),  # the same PMID
        ("3", "a", "TEXT  one"),  # the same text
        ("5", "Long", LONG),
        ("6", "Longer", LONG + " more."),  # nearly the same
        ("", "C", "No PMID."),
        ("", "D", "No PMID either."),
    )


def test_counts_add_up(documents):
    kept, counts = selection.prepare(documents)
    assert kept["title"][:] == ["A", "Longer", "C", "D"]
    assert counts == {
        "loaded": 10, "empty": 1, "contaminated": 2, "contaminated_by_pmid": 1,
        "contaminated_by_copy": 1, "contaminated_by_title": 0, "contaminated_by_conclusion": 0,
        "contaminated_by_context": 0, "contaminated_kept": 0, "duplicates": 2,
        "near_duplicates": 1, "kept": 4, "kept_without_pmid": 2,
    }  # fmt: skip


def test_contaminated_documents_stay_if_asked_for_and_duplicates_go_all_the_same(documents):
    kept, counts = selection.prepare(documents, keep_contaminated=True)
    assert kept["title"][:] == ["A", "Q", "Longer", "C", "D"]
    assert (counts["contaminated"], counts["contaminated_kept"]) == (0, 1)
    gone = ("empty", "contaminated", "duplicates", "near_duplicates", "kept")
    assert sum(counts[name] for name in gone) == counts["loaded"]


def test_what_was_found_is_found_again_without_looking(documents, monkeypatch):
    first = selection.choose(documents)
    monkeypatch.setattr(selection, "_find", lambda *_: pytest.fail("looked again"))
    assert selection.choose(documents) == first
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        selection.choose(documents, keep_contaminated=True)
    monkeypatch.setattr(selection, "VERSION", selection.VERSION + 1)
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        selection.choose(documents)


def test_another_text_is_looked_at_anew(documents):
    assert selection.choose(documents).loaded == 10
    assert selection.choose(documents.select(range(3))).loaded == 3


def test_the_digest_tells_what_went_by_the_newer_rules(documents):
    assert selection.choose(documents).digest
    assert selection.choose(documents.select(range(7))).digest == ""
    title = make(("1", "A", "Text."), ("2", "", "More."))
    assert selection.choose(title).digest == ""


def test_a_finding_by_text_changes_the_digest(monkeypatch):
    rows = make(("1", "A", "Text."), ("2", "Found", "More."))
    finding = contamination.Finding(1, "title", "9", 1.0)
    monkeypatch.setattr(contamination, "find", lambda *_: [finding])
    assert selection.choose(rows).digest
    assert selection.choose(rows, keep_contaminated=True).digest == ""


def test_examples_name_the_documents(documents):
    table = selection.choose(documents).examples(documents)
    assert table["rule"].tolist() == ["copy", "pmid", "near-duplicate"]
    assert table["pmid"].tolist()[2] == "5" and table["resembles"].tolist()[2] == "6"
    assert 0.75 <= table["share"].tolist()[2] < 1
    assert len(selection.choose(documents).examples(documents, n=1)) == 2


def test_keeping_nothing_is_refused():
    with pytest.raises(ValueError, match="none is left: {'loaded': 1, 'empty': 1"):
        selection.prepare(make(("1", "A", "")))
