"""What is learned from: the task of an address, and parts that no exam is in."""

import pytest

from mediswift import hoc, lessons, pubmedqa
from mediswift.hallmarks import Report


@pytest.fixture(scope="module")
def others():
    """Questions that are in no exam: the synthetic ones under other PMIDs."""
    items = pubmedqa.load("sample:")
    return items.map(lambda row: row | {"pmid": f"x{row['pmid']}"}, load_from_cache_file=False)


def test_an_address_names_its_task():
    assert lessons.task_of("hoc:x.tar.zst") is hoc
    assert {lessons.task_of(a) for a in ("demo:", "sample:", "ori_pqal.json")} == {pubmedqa}
    assert len(lessons.load("sample:")) == 200


def test_the_part_train_is_the_official_split():
    items = pubmedqa.load("sample:")
    training, dev = lessons.parts("sample:", items, "train", 3)
    assert training["pmid"] == pubmedqa.split(items, "train", 3)["pmid"]
    assert dev["pmid"] == pubmedqa.split(items, "dev", 3)["pmid"]


def test_the_part_all_leaves_out_dev_alone(others, monkeypatch):
    training, dev = lessons.parts("x.json", others, "all", 0)
    assert sorted([*training["pmid"], *dev["pmid"]]) == sorted(others["pmid"])
    assert dev["pmid"] == pubmedqa.split(others, "dev", 0)["pmid"]
    monkeypatch.setattr(lessons, "DEV", 4)
    training, dev = lessons.parts("x.json", others, "all", 0)
    assert (len(training), len(dev)) == (196, 4)


def test_one_question_of_an_exam_is_enough_to_refuse(others):
    items = others.map(
        lambda row, i: row | ({"pmid": "21645374"} if i == 7 else {}),
        with_indices=True,
        load_from_cache_file=False,
    )  # a PMID of PubMedQA's test
    with pytest.raises(ValueError, match="1 of x.json, such as PMID 21645374. Use part='train'"):
        lessons.parts("x.json", items, "all", 0)


def test_hoc_has_no_items_outside_its_exam(others):
    with pytest.raises(ValueError, match="part='all' is for PubMedQA's items .* got hoc:x"):
        lessons.parts("hoc:x", others, "all", 0)


def test_a_headline_is_there():
    row = {"pmid": "1", "labels": [], "prediction": []}
    answer = {"pmid": "1", "label": "yes", "prediction": "no"}
    for report in (Report([row]), pubmedqa.Report([answer], "question_only")):
        assert all(hasattr(report, name) for name in lessons.headline(report))
