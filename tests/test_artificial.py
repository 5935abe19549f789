"""Tests of mediswift.artificial. Run with: pytest tests/test_artificial.py."""

import json

import pytest
from datasets import Dataset

from mediswift import artificial, corpus, finetune, questions, records

ABSTRACT = "METHODS: We gave zinc.\nRESULTS: The length of colds was less.\nCONCLUSION: {}"


def nouns(words):
    return ["NOUN|-"] * len(words)


def documents(*rows):
    """Documents of (PMID, title, conclusion)."""
    made = [
        {
            "pmid": pmid,
            "title": title,
            "abstract": ABSTRACT.format(said),
            "year": "2000",
            "source": "ours",
            "form": "",
        }
        for pmid, title, said in rows
    ]
    return Dataset.from_list(made, features=corpus.FEATURES)


ALL = documents(
    ("1", "Zinc reduces pain in colds", "Zinc reduces pain."),
    ("2", "Copper may reduce pain in colds", "Copper may reduce pain."),
    ("3", "Effect of iron on colds", "Iron did not reduce colds."),
    ("4", "Does silver reduce pain in colds?", "Silver reduces pain."),
    ("5", "Zinc in colds", "Zinc reduces pain."),
    ("6", "Zinc reduces pain in colds: a second trial", "It was so."),
    ("", "Gold reduces pain in colds", "Gold reduces pain."),
    ("21645374", "Lace plants reduce pain in colds", "It is in the exam."),
)


def test_each_document_has_one_fate():
    items, counts = artificial.build(ALL, nouns)
    assert [(i["pmid"], i["rule"], i["label"]) for i in items] == [
        ("1", "statement", "yes"),
        ("2", "hedged", "maybe"),
        ("3", "effect", "no"),
        ("4", "question", ""),
    ]
    fates = {"no question": 1, "asked before": 1, "no PMID": 1, "exam": 1}
    assert counts == fates | {"documents": 8, "kept": 4}
    assert items[0]["contexts"] == ["We gave zinc.", "The length of colds was less."]
    assert (items[0]["long_answer"], items[0]["source"]) == ("Zinc reduces pain.", "ours")


def test_a_trial_goes_before_the_title_and_a_question_before_the_trial():
    prompt = {"Intervention": "zinc", "Comparator": "placebo", "Outcome": "length of colds"}
    trials = {pmid: [(prompt, "no")] for pmid in "145"}
    items, _ = artificial.build(ALL, nouns, trials=trials)
    assert {i["pmid"]: i["rule"] for i in items if i["pmid"] in "145"} == {
        "1": "trial",
        "4": "question",  # 5 asks what 1 asked
    }


def test_a_question_of_the_exam_is_not_asked():
    items, counts = artificial.build(ALL, nouns, exam=["does ZINC reduce pain in colds ?"])
    assert "1" not in {item["pmid"] for item in items} and counts["asked before"] == 2


def test_a_full_text_asks_nothing_in_the_place_of_its_abstract():
    abstract = documents(("1", "Zinc reduces pain in colds", "Zinc reduces pain."))[0]
    body = abstract | {"form": "body", "abstract": ABSTRACT.format("No conflict is declared.")}
    items, counts = artificial.build(
        Dataset.from_list([body, abstract], features=corpus.FEATURES), nouns
    )
    assert [item["long_answer"] for item in items] == ["Zinc reduces pain."]
    assert counts["no abstract"] == 1


def test_a_document_without_a_pmid_is_named_by_its_text():
    items, counts = artificial.build(ALL, nouns, without_pmid=True)
    (named,) = [item["pmid"] for item in items if item["pmid"].startswith("text-")]
    assert len(named) == 17 and "no PMID" not in counts
    again, _ = artificial.build(ALL, nouns, without_pmid=True)
    assert again == items


def test_both_parts_are_read_back_as_they_were(tmp_path):
    items, _ = artificial.build(ALL, nouns)
    labeled, other = (artificial.part(items, name) for name in artificial.PARTS)
    path = artificial.write(labeled, tmp_path / "a.json")
    assert questions.load(path).to_list() == labeled
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]  # nothing half-written is left
    path = artificial.write(other, tmp_path / "u.json")
    assert questions.load(path, labeled=False).to_list() == other
    with pytest.raises(ValueError, match="labeled=False is for PQA-U"):
        questions.load(path)
    with pytest.raises(ValueError, match="PMID 1 of .* has the label 'yes'"):
        questions.load(tmp_path / "a.json", labeled=False)


def test_what_is_written_depends_on_the_documents_alone(tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file in files:
        artificial.write(artificial.part(artificial.build(ALL, nouns)[0], "artificial"), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_official_split_takes_what_was_made(tmp_path):
    rows = [(str(i), f"Drug{i} reduces pain in colds", "It does.") for i in range(30)]
    items, _ = artificial.build(documents(*rows), nouns)
    made = questions.load(artificial.write(items, tmp_path / "a.json"))
    assert len(questions.split(made, "train")) + len(questions.split(made, "dev")) == 15


def test_nothing_and_a_pmid_that_comes_twice_are_not_written(tmp_path):
    items, _ = artificial.build(ALL, nouns)
    for wrong, why in (([], "needs one or more"), (items[:1] * 2, "1 comes twice")):
        with pytest.raises(ValueError, match=why):
            artificial.write(wrong, tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    items, _ = artificial.build(ALL, nouns)
    path = artificial.write(items[:1], tmp_path / "a.json")
    before = path.read_text()
    monkeypatch.setattr(records.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        artificial.write(items, path)
    assert path.read_text() == before


def test_another_part_is_refused():
    with pytest.raises(ValueError, match="artificial, unlabeled; got 'labeled'"):
        artificial.part([], "labeled")


def test_the_summary_adds_up():
    items, counts = artificial.build(ALL, nouns)
    table = artificial.summary(items)
    assert table.loc["all", "all"] == counts["kept"] == table["all"][:-1].sum()
    assert table.loc["question", "unlabeled"] == 1


def unlabeled(tmp_path):
    items = artificial.part(artificial.build(ALL, nouns)[0], "unlabeled")
    return questions.load(artificial.write(items, tmp_path / "u.json"), labeled=False)


def test_predictions_become_labels(tmp_path):
    found = artificial.label(unlabeled(tmp_path), {"4": "maybe"}, rule="pseudo-run")
    assert found.features == questions.RULED
    assert [(r["pmid"], r["label"], r["rule"], r["source"]) for r in found] == [
        ("4", "maybe", "pseudo-run", "ours")
    ]


@pytest.mark.parametrize(
    ("predictions", "why"),
    [
        ({"4": "perhaps"}, "got 'perhaps'"),
        ({"99": "yes"}, "PMID 99 is none"),
        ({}, "need one prediction"),
    ],
)
def test_wrong_predictions_are_refused(tmp_path, predictions, why):
    with pytest.raises(ValueError, match=why):
        artificial.label(unlabeled(tmp_path), predictions)


def test_labels_are_not_written_over(tmp_path):
    labeled = artificial.label(unlabeled(tmp_path), {"4": "yes"})
    with pytest.raises(ValueError, match="some here have theirs"):
        artificial.label(labeled, {"4": "no"})


def test_a_local_folder_of_the_hubs_form_is_read(tmp_path):
    """The layout of qiaojin/PubMedQA: a README that names configurations, a parquet file each."""
    row = {
        "pubid": 7,
        "question": "Does zinc help?",
        "context": {"contexts": ["We gave zinc."], "labels": ["METHODS"], "meshes": ["Zinc"]},
        "long_answer": "Zinc helps.",
    }
    hub, card = tmp_path / "PubMedQA", ["---", "configs:"]
    for config, more in (("pqa_artificial", {"final_decision": "yes"}), ("pqa_unlabeled", {})):
        (hub / config).mkdir(parents=True)
        Dataset.from_list([row | more]).to_parquet(hub / config / "train-00000-of-00001.parquet")
        card += [f"- config_name: {config}", "  data_files:", "  - split: train"]
        card += [f"    path: {config}/train-*"]
    (hub / "README.md").write_text("\n".join([*card, "---", ""]))
    (made,) = questions.load(f"hf:{hub}:pqa_artificial")
    assert (made["pmid"], made["label"], made["contexts"]) == ("7", "yes", ["We gave zinc."])
    other = questions.load(f"hf:{hub}:pqa_unlabeled", labeled=False)
    assert other["label"] == [""]
    assert artificial.label(other, {"7": "no"})["label"] == ["no"]
    with pytest.raises(ValueError, match="labeled=False is for PQA-U"):
        questions.load(f"hf:{hub}:pqa_unlabeled")


def test_the_command_writes_the_file_and_says_what_is_in_it(tmp_path, monkeypatch, capsys):
    from mediswift import __main__, tagger

    small = tagger.Tagger({}, {}, ("NOUN|-",))
    monkeypatch.setattr(tagger, "load", lambda: small)
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({k: d[k] for k in ("pmid", "title", "abstract")}) for d in ALL]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    command = ["questions", "--corpus", f"jsonl:{tmp_path / 'c.jsonl'}"]
    assert __main__.main([*command, "--out", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "statement" in said and "3 asked before" not in said and "1 exam" in said
    assert sorted(questions.load(tmp_path / "a.json")["pmid"]) == ["1", "2", "3"]
    command += ["--json", "--part", "unlabeled", "--out", str(tmp_path / "u.json")]
    assert __main__.main(command) == 0
    assert json.loads(capsys.readouterr().out)["questions"]["all"]["all"] == 4
    assert questions.load(tmp_path / "u.json", labeled=False)["pmid"] == ["4"]


def test_a_model_is_tuned_on_what_was_made(tmp_path, pretrained, runs):
    rows = [(str(i), f"Drug{i} reduces pain in colds", "It does.") for i in range(40)]
    made, _ = artificial.build(documents(*rows), nouns)
    path = artificial.write(made, tmp_path / "a.json")
    config = finetune.profile("tiny", parent=pretrained.id, questions=str(path))
    assert finetune.finetune(config, runs).metrics["train_questions"] == 18  # of the half
