"""Tests of mediswift.questions. Run with: pytest tests/test_questions.py."""

import json
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from mediswift import demo, questions

GOLDEN = Path(__file__).parent / "golden" / "test_ground_truth.json"  # official file, MIT
OFFICIAL = json.loads((demo.DATA / "pubmedqa_labels.json").read_text(encoding="utf-8"))
ITEM = {
    "QUESTION": "Does zinc help?",
    "CONTEXTS": ["We gave zinc.", "It helped."],
    "LABELS": ["METHODS", "RESULTS"],
    "LONG_ANSWER": "Zinc helps.",
    "final_decision": "yes",
}


def dataset(labels):
    """Questions with PMIDs and labels and nothing else of interest."""
    rows = [
        {
            "pmid": pmid,
            "question": "Does it?",
            "contexts": ["It may."],
            "section_labels": [],
            "long_answer": "",
            "label": label,
        }
        for pmid, label in labels.items()
    ]
    return Dataset.from_list(rows, features=questions.FEATURES)


def file_of(tmp_path, items):
    path = tmp_path / "questions.json"
    path.write_text(items if isinstance(items, str) else json.dumps(items), encoding="utf-8")
    return path


def test_the_official_split_is_reproduced_exactly():
    test = questions.official_split(OFFICIAL)["test"]
    assert {p: OFFICIAL[p] for p in test} == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_fold_zero_trains_on_the_items_that_others_published():
    # The demo archive holds fold 0's training items labeled yes or no, as its makers cut them.
    published = set(demo.load_pins()["pubmedqa_train"]["pmids"])
    train = questions.split(dataset(OFFICIAL), "train", fold=0)
    rows = zip(train["pmid"], train["label"], strict=True)
    assert {pmid for pmid, label in rows if label != "maybe"} == published


@pytest.mark.parametrize("fold", [0, 9])
def test_parts_have_the_published_sizes_and_do_not_meet(fold):
    parts = [questions.split(dataset(OFFICIAL), n, fold) for n in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [450, 50, 500]
    assert Counter(p for part in parts for p in part["pmid"]) == Counter(list(OFFICIAL))
    assert Counter(parts[2]["label"]) == {"yes": 276, "no": 169, "maybe": 55}


def test_the_dev_parts_of_the_folds_are_the_first_half():
    folds = [questions.split(dataset(OFFICIAL), "dev", fold)["pmid"] for fold in range(10)]
    union = Counter(pmid for fold in folds for pmid in fold)
    assert len(union) == 500 and set(union.values()) == {1}
    assert not union.keys() & json.loads(GOLDEN.read_text(encoding="utf-8")).keys()


def test_a_subset_falls_where_it_belongs_and_keeps_its_order():
    backwards = dict(reversed(OFFICIAL.items()))
    some = dataset({pmid: backwards[pmid] for pmid in list(backwards)[::3]})
    test = questions.split(some, "test")["pmid"]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert test == [pmid for pmid in some["pmid"] if pmid in golden]


def test_synthetic_questions_are_split_by_their_own_labels():
    sample = questions.load("sample:")
    parts = [questions.split(sample, n, 1) for n in ("train", "dev", "test")]
    assert sum(map(len, parts)) == len(sample) == 2 * len(parts[2])
    assert Counter(sample["label"]) == Counter(x for part in parts for x in part["label"])
    assert len(set(parts[2]["label"][:20])) > 1  # not sorted by label


def test_a_mixture_of_official_and_other_pmids_is_refused():
    mixture = dataset({"21645374": "yes", "S000001": "no", "S000002": "no"})
    with pytest.raises(ValueError, match="got 1 official ones and 2 others such as PMID S000001"):
        questions.split(mixture, "test")


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="got 'validation' of fold 0"):
        questions.split(dataset(OFFICIAL), "validation")
    with pytest.raises(ValueError, match="got 'dev' of fold 10"):
        questions.split(dataset(OFFICIAL), "dev", fold=10)
    with pytest.raises(ValueError, match="'dev' of fold 5 holds none of these 3"):
        questions.split(dataset({"S1": "yes", "S2": "no", "S3": "maybe"}), "dev", fold=5)


def test_limit_keeps_the_shares_of_the_labels():
    test = questions.split(dataset(OFFICIAL), "test")
    few = questions.limit(test, 50, seed=0)
    assert Counter(few["label"]) == {"yes": 28, "no": 17, "maybe": 5}  # 27.6, 16.9, 5.5
    places = [test["pmid"].index(pmid) for pmid in few["pmid"]]
    assert places == sorted(places)
    assert few["pmid"] == questions.limit(test, 50, seed=0)["pmid"]
    assert few["pmid"] != questions.limit(test, 50, seed=1)["pmid"]


def test_limit_beyond_the_end_keeps_all_and_below_one_is_refused():
    some = dataset({"S1": "yes", "S2": "no"})
    assert questions.limit(some, 10, seed=0)["pmid"] == ["S1", "S2"]
    with pytest.raises(ValueError, match="got 0"):
        questions.limit(some, 0, seed=0)


def test_an_official_file_is_read_into_our_columns(tmp_path):
    found = questions.load(file_of(tmp_path, {"S1": ITEM}))
    assert found.to_list() == [
        {
            "pmid": "S1",
            "question": "Does zinc help?",
            "contexts": ["We gave zinc.", "It helped."],
            "section_labels": ["METHODS", "RESULTS"],
            "long_answer": "Zinc helps.",
            "label": "yes",
        }
    ]


def test_the_hub_gives_the_same_row_as_the_file(tmp_path, monkeypatch):
    row = {
        "pubid": 1,
        "question": ITEM["QUESTION"],
        "context": {"contexts": ITEM["CONTEXTS"], "labels": ITEM["LABELS"], "meshes": []},
        "long_answer": ITEM["LONG_ANSWER"],
        "final_decision": "yes",
    }
    asked = []
    monkeypatch.setattr(questions, "load_dataset", lambda *a, **k: asked.append((a, k)) or [row])
    ours = questions.load(file_of(tmp_path, {"1": ITEM})).to_list()
    assert questions.load("hf:qiaojin/PubMedQA").to_list() == ours
    assert questions.load("hf:qiaojin/PubMedQA:pqa_artificial").to_list() == ours
    assert [a[1] for a, _ in asked] == ["pqa_labeled", "pqa_artificial"]


def test_the_demo_address_reads_the_demo_items(monkeypatch):
    item = dataset({"21645374": "yes"}).to_list()
    monkeypatch.setattr(demo, "pubmedqa_items", lambda: item)
    assert questions.load("demo:").to_list() == item


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"final_decision": "perhaps"}, "the label 'perhaps'"),
        ({"final_decision": None}, "the label ''"),
        ({"CONTEXTS": []}, "an empty context"),
        ({"CONTEXTS": ["We gave zinc.", " "]}, "an empty context"),
        ({"QUESTION": ""}, "no question"),
    ],
)
def test_a_broken_item_is_refused_by_name(tmp_path, change, fault):
    path = file_of(tmp_path, {"S1": ITEM, "S2": ITEM | change})
    with pytest.raises(ValueError, match=f"PMID S2 of .* has {fault}"):
        questions.load(path)


def test_a_pmid_that_comes_twice_is_refused(tmp_path, monkeypatch):
    item = json.dumps(ITEM)
    with pytest.raises(ValueError, match="has S1 twice"):
        questions.load(file_of(tmp_path, f'{{"S1": {item}, "S2": {item}, "S1": {item}}}'))
    items = dataset({"S1": "yes"}).to_list() * 2
    monkeypatch.setattr(demo, "pubmedqa_items", lambda: items)
    with pytest.raises(ValueError, match="PMID S1 of demo: has come before"):
        questions.load("demo:")


@pytest.mark.parametrize("address", ["no_such.json", "jsonl:no_such", "sampel:", "hf:"])
def test_an_address_that_leads_nowhere_names_the_addresses(address):
    with pytest.raises(FileNotFoundError, match=f"hf:REPO.*'{address}' is none of them"):
        questions.load(address)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one object of items by PMID"):
        questions.load(file_of(tmp_path, [ITEM]))
    with pytest.raises(ValueError, match="give the path of ori_pqal.json"):
        questions.load(GOLDEN)


def test_another_label_than_the_official_one_is_refused():
    pmid = next(iter(OFFICIAL))
    flipped = OFFICIAL | {pmid: "no" if OFFICIAL[pmid] != "no" else "yes"}
    with pytest.raises(ValueError, match=f"1 of these 1000 have others, the first is PMID {pmid}"):
        questions.split(dataset(flipped), "test")


def test_a_test_that_is_not_whole_is_told(capsys):
    gone = questions.official_split(OFFICIAL)["test"][0]
    rest = {pmid: label for pmid, label in OFFICIAL.items() if pmid != gone}
    assert len(questions.split(dataset(rest), "test")) == 499
    assert "499 of the 500 test questions are here" in capsys.readouterr().err
