"""Stages: data in, chains of runs out, each the parent of the next, and what a stage is worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mediswift import ablation, demo, pseudolabels, stages, train
from mediswift.__main__ import main
from mediswift.runs import lineage, load_run


def labels_of(run, place):
    """Record of the labels that a run learned from."""
    return load_run(Path(run.params["questions"]).parent.name, place)


@pytest.fixture(scope="module")
def place(place):
    """Folder of runs that holds the parent alone, and questions of two kinds beside it."""
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    for kind, rows in (("a", list(items.items())[:60]), ("u", list(items.items())[60:120])):
        drop = "final_decision" if kind == "u" else None
        named = {kind + k: {f: v for f, v in i.items() if f != drop} for k, i in rows}
        (place / f"{kind}.json").write_text(json.dumps(named), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def chosen(place):
    addresses = [str(place / f"{kind}.json") for kind in "au"]
    return stages.pqa("sample:", *addresses, epochs=(1, 1, 1))


@pytest.fixture(scope="module")
def record(chosen, base, place):
    """Study of U and L; A is costlier, and no other kind of stage."""
    return stages.study(chosen[1:], base, [0], runs=place)


def test_every_stage_is_on_and_off(record, pretrained):
    rows, chains = record.metrics["rows"], record.metrics["chains"]
    assert [row["chain"] for row in rows] == ["L", "U>L"]
    assert len({row["run"] for row in rows}) == 2
    assert [row["accuracy"] for row in rows] == [chain["accuracy"] for chain in chains]
    assert (record.kind, record.parent) == ("stages", pretrained.id)


def test_each_run_of_a_chain_starts_from_the_one_before(record, place):
    line = lineage(record.metrics["rows"][1]["run"], place)
    assert [run.kind for run in line] == ["pretrain", "finetune", "finetune"]
    assert [run.params["part"] for run in line[1:]] == ["all", "train"]
    assert line[1].params["questions"].endswith(pseudolabels.FILE)


def test_the_teacher_has_the_other_stages_and_reads_the_conclusion(record, place, pretrained):
    labels = labels_of(lineage(record.metrics["rows"][1]["run"], place)[1], place)
    (first, teacher) = lineage(labels.parent, place)
    assert first == pretrained
    assert (teacher.params["setting"], teacher.params["part"]) == ("reasoning_free", "train")
    assert labels.params["setting"] == "reasoning_free"


def test_a_second_study_finds_all_its_runs(record, chosen, base, place, monkeypatch):
    monkeypatch.setattr(train, "fit", None)
    again = stages.study(chosen[1:], base, [0], runs=place)
    assert (again.id, again.metrics) == (record.id, record.metrics)


def test_the_stage_before_may_label(chosen, base, place):
    prompted = replace(base, virtual_tokens=2, initialization="vocabulary")
    made = stages.train(chosen[:2], prompted, "", place)
    assert labels_of(made[1], place).parent == made[0].id == made[1].parent
    # the soft prompt of the first stage is the second's
    assert [run.params["initialization"] for run in made] == ["vocabulary", "random"]
    assert [run.params["virtual_tokens"] for run in made] == [2, 2]
    with pytest.raises(ValueError, match="from the stage before, and U>L has none; put one"):
        stages.train(chosen[1:], base, "", place)


def test_stages_without_an_address_are_left_out():
    assert stages.name(stages.pqa("l.json")) == "L"
    assert [stages.name(chain) for chain in stages.chains(stages.pqa("l.json"))] == ["L"]


def test_the_command_line_says_the_same(record, chosen, base, place, pretrained, capsys):
    words = ["stages", "--parent", pretrained.id, "--runs", str(place), "--labeled", "sample:"]
    words += ["--unlabeled", chosen[1].questions, "--epochs", "1", "1", "1", "--seeds", "1"]
    words += ["--batch", "30", "--micro-batch", "4", "--max-length", "160"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == record.id
    assert lines[-5:-1] == ablation.told(record, "chain").splitlines()
    assert "majority" in lines[-2] and lines[-3].count("[") == 2
