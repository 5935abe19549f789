"""Contamination: each rule finds what is planted for it, and nothing that is innocent."""

import json
import os
import random
from pathlib import Path

import pytest
from datasets import Dataset

from mediswift import contamination, corpus, demo, documents, questions
from mediswift.contamination import Finding, as_documents, find, load_exam, make_exam

CONTEXT = (
    "We gave {0} to forty mice of strain {0} and none to forty others and counted how many " * 3
)
CONCLUSION = (
    "Since {0} made mice sleep longer than others did it may be tried in people who do not."
)


def item(name: str, pmid: str) -> dict:
    return {
        "pmid": pmid,
        "question": f"Does {name} make mice sleep?",
        "contexts": [CONTEXT.format(name), "It helped."],
        "section_labels": ["METHODS", "RESULTS"],
        "long_answer": CONCLUSION.format(name),
    }


ITEMS = [item("valerian", "11"), item("hop", "12")]
EXAM = make_exam(ITEMS)
FILLER = " ".join(f"filler{i}" for i in range(200))


def make(*rows: tuple[str, str, str]) -> Dataset:
    columns = zip(*rows, strict=True)
    return Dataset.from_dict(dict(zip(("pmid", "title", "abstract"), columns, strict=True)))


def rules(*rows):
    return [(f.row, f.rule, f.exam_pmid) for f in find(make(*rows), EXAM)]


def test_every_rule_finds_its_own_and_the_first_counts():
    own = "All of the valerian text."
    assert rules(
        ("1", "Other", FILLER),
        ("11", "Does valerian make mice sleep?", own),
        ("2", "does VALERIAN make mice sleep", "Other words."),
        ("", "[Does hop make mice sleep?] A trial.", FILLER),
        ("3", "A review", FILLER + "\nCONCLUSION: " + CONCLUSION.format("hop") + "\n" + FILLER),
        ("4", "A data set", FILLER + CONTEXT.format("valerian")),
    ) == [
        (1, "pmid", "11"),
        (2, "title", "11"),
        (3, "title", "12"),
        (4, "conclusion", "12"),
        (5, "context", "11"),
    ]
    copied = ("", "Nothing", "A text that the exam's own page has.")
    assert rules(copied, ("12", *copied[1:])) == [(0, "copy", "12"), (1, "pmid", "12")]


@pytest.mark.parametrize(
    "row",
    [
        ("1", "", ""),
        ("", "Does magnesium make mice sleep?", "To the best of our knowledge, it does not."),
        ("110", "Valerian", "Since valerian made mice sleep longer than cats did, we stopped."),
        ("2", "?", CONCLUSION.format("hop")[:40]),
    ],
)
def test_the_innocent_stay(row):
    assert rules(row) == []


def test_the_share_is_of_the_exams_text_however_long_the_document():
    half = CONCLUSION.format("hop").split()[:12]
    (short,) = find(make(("1", "", " ".join(half))), EXAM)
    (long,) = find(make(("1", "", f"{FILLER * 20} {' '.join(half)}")), EXAM)
    assert short == long and short.rule == "conclusion" and 0.25 <= short.share < 1


def test_one_shared_shingle_is_no_evidence():
    tiny = [item("zinc", "13") | {"long_answer": "Zinc is good for all who sleep in trees."}]
    exam = make_exam(tiny)
    assert find(make(("1", "", "Zinc is good for all who sleep in beds.")), exam) == []
    assert [f.rule for f in find(make(("1", "", tiny[0]["long_answer"])), exam)] == ["conclusion"]


def test_an_exam_survives_its_file(tmp_path, monkeypatch):
    contamination.save_exam(EXAM, tmp_path / "exam.safetensors")
    monkeypatch.setattr(contamination, "FILE", tmp_path / "exam.safetensors")
    load_exam.cache_clear()
    read = load_exam()
    load_exam.cache_clear()
    assert read.titles.tolist() == EXAM.titles.tolist()
    for name in ("conclusions", "contexts"):
        for ours, theirs in zip(getattr(read, name), getattr(EXAM, name), strict=True):
            assert ours.tolist() == theirs.tolist()


def test_planting_gives_documents_that_every_rule_would_find():
    planted = [documents.make_document(row, "exam") for row in as_documents(ITEMS)]
    assert planted[0]["abstract"].startswith("METHODS: We gave valerian")
    assert planted[0]["abstract"].endswith("CONCLUSIONS: " + ITEMS[0]["long_answer"])
    anonymous = [row | {"pmid": "", "title": ""} for row in planted]
    assert [f.exam_pmid for f in find(Dataset.from_list(anonymous), EXAM)] == ["11", "12"]
    unlabeled = next(as_documents([ITEMS[0] | {"section_labels": []}]))
    assert unlabeled["abstract"][0] == ["", ITEMS[0]["contexts"][0]]


def test_the_committed_exam_is_of_a_thousand_items_and_of_hashes_only():
    exam = load_exam()
    labels = json.loads((demo.DATA / "pubmedqa_labels.json").read_text())
    assert exam.pmids[:1000] == list(labels) and len(exam.titles) == 1000
    assert len(set(exam.titles.tolist())) == 1000
    assert all(len(part.starts) == 1001 for part in (exam.conclusions, exam.contexts))
    assert contamination.exam_pmids() == set(exam.pmids) > set(labels)
    assert contamination.FILE.stat().st_size < 500_000


def test_no_exam_document_passes_in_any_order():
    exam = sorted(contamination.exam_pmids())
    rows = make(*((pmid, pmid, f"Text {pmid}.") for pmid in exam), ("1", "1", "Text."))
    for documents_ in (rows, rows.shuffle(seed=0)):
        found = {finding.row for finding in find(documents_)}
        left = [pmid for row, pmid in enumerate(documents_["pmid"]) if row not in found]
        assert left == ["1"]


def test_synthetic_text_is_judged_by_pmid_alone():
    assert find(corpus.load("sample:")) == []


OFFICIAL = Path(os.environ.get("MEDISWIFT_DATA", "none")) / "pubmedqa" / "ori_pqal.json"


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="needs PubMedQA's official file")
def test_on_the_official_file_conclusions_are_found_though_words_were_changed():
    items = {row["pmid"]: row for row in questions.load(OFFICIAL)}
    exam = load_exam()
    remade = make_exam([items[pmid] for pmid in exam.pmids[:1000]])
    assert remade.conclusions.hashes.tolist() == exam.conclusions.hashes.tolist()
    assert remade.contexts.hashes.tolist() == exam.contexts.hashes.tolist()
    generator = random.Random(0)
    for rate, least in ((0.0, 1.0), (0.05, 0.9)):
        texts = [
            " ".join("other" if generator.random() < rate else word for word in words.split())
            for words in (row["long_answer"] for row in items.values())
        ]
        found = find(make(*(("", "", f"{FILLER} {text}") for text in texts)))
        pmids = list(items)
        assert all(pmids[f.row] == f.exam_pmid for f in found)
        assert len(found) >= least * 1000


def test_a_finding_reads_as_what_it_is():
    assert Finding(0, "pmid", "1", 1.0)._fields == ("row", "rule", "exam_pmid", "share")
