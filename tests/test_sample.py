"""The synthetic sample: remade byte for byte, marked as synthetic, answerable from its context."""

import json
import re
import runpy
from collections import Counter
from random import Random

import pytest

from mediswift import demo

SAMPLE = demo.DATA / "sample"


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(demo.DATA / "make_sample.py"))


@pytest.fixture(scope="module")
def abstracts():
    return [json.loads(line) for line in (SAMPLE / "abstracts.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def questions():
    return json.loads((SAMPLE / "questions.json").read_bytes())


def read_answer(results: str) -> str:
    """The answer as a reader would find it: from the P values of the RESULTS alone."""
    values = [float(value) for value in re.findall(r"P = (\d\.\d+)", results)]
    if all(value < 0.05 for value in values):
        return "yes"
    return "no" if all(value >= 0.2 for value in values) else "maybe"


def test_committed_files_are_what_the_generator_makes(generator):
    abstracts, questions = generator["make_sample"]()
    assert (SAMPLE / "abstracts.jsonl").read_bytes() == abstracts.encode()
    assert (SAMPLE / "questions.json").read_bytes() == questions.encode()


def test_another_seed_makes_another_sample(generator):
    first, second = (generator["make_sample"](5, 5, seed) for seed in (0, 1))
    assert first != second


def test_numbers_stay_inside_their_range_and_reach_both_ends(generator):
    random = Random(0)
    drawn = {generator["between"]("0.08", "0.11", random) for _ in range(200)}
    assert drawn == {"0.08", "0.09", "0.10", "0.11"}


def test_sample_is_small():
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) <= 1_000_000


def test_every_item_says_that_it_is_synthetic(abstracts, questions):
    assert all(item["synthetic"] is True for item in [*abstracts, *questions.values()])
    assert all("SYNTHETIC" in item["src"] for item in abstracts)
    assert all("SYNTHETIC" in item["SOURCE"] for item in questions.values())


def test_pmids_are_unique_and_cannot_be_real(abstracts, questions):
    pmids = [item["pmid"] for item in abstracts] + list(questions)
    assert len(set(pmids)) == len(pmids)
    assert all(re.fullmatch(r"S\d{6}", pmid) for pmid in pmids)


def test_labels_have_the_proportions_of_the_real_set(questions):
    real = Counter(json.loads((demo.DATA / "pubmedqa_labels.json").read_bytes()).values())
    ours = Counter(item["final_decision"] for item in questions.values())
    for label in ("yes", "no", "maybe"):
        assert ours[label] / len(questions) == pytest.approx(real[label] / 1000, abs=0.005)


def test_questions_have_the_fields_of_the_official_file_but_no_human_answers(questions):
    official = "QUESTION CONTEXTS LABELS MESHES YEAR final_decision LONG_ANSWER".split()
    for item in questions.values():
        assert set(item) == {*official, "SOURCE", "synthetic"}
        assert len(item["CONTEXTS"]) == len(item["LABELS"])
        assert item["LONG_ANSWER"] not in " ".join(item["CONTEXTS"])


def test_the_answer_can_be_read_off_the_results(questions):
    for item in questions.values():
        assert read_answer(item["CONTEXTS"][-1]) == item["final_decision"]


def test_no_rule_of_the_grammar_is_left_unfilled(abstracts, questions):
    texts = [text for item in abstracts for _, text in item["abstract"]]
    texts += [text for item in questions.values() for text in item["CONTEXTS"]]
    texts += [item["title"] for item in abstracts]
    texts += [item[field] for item in questions.values() for field in ("QUESTION", "LONG_ANSWER")]
    assert not [text for text in texts if re.search(r"[{}|_]|\.\.", text[:-1])]


def test_texts_are_varied_enough_to_train_a_tokenizer(abstracts):
    texts = [" ".join(text for _, text in item["abstract"]) for item in abstracts]
    assert len(set(re.findall(r"[a-z]+", " ".join(texts).lower()))) > 2000
    assert len({item["title"] for item in abstracts}) == len(abstracts)
