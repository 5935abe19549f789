"""Stages: data in, chains of runs out, each the parent of the next, and what a stage is worth."""

import json
from dataclasses import replace

import pytest

from mediswift import demo, finetune, pseudolabels, stages, train
from mediswift.__main__ import main
from mediswift.runs import lineage, load_run


@pytest.fixture(scope="module")
def place(tmp_path_factory, runs, pretrained):
    """Folder of runs that holds the parent alone, and questions of two kinds beside it."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / pretrained.id).symlink_to(runs / pretrained.id)
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    for kind, rows in (("a", list(items.items())[:60]), ("u", list(items.items())[60:120])):
        drop = "final_decision" if kind == "u" else None
        named = {kind + k: {f: v for f, v in i.items() if f != drop} for k, i in rows}
        (folder / f"{kind}.json").write_text(json.dumps(named), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def chosen(place):
    addresses = [str(place / f"{kind}.json") for kind in "au"]
    return stages.pqa("sample:", *addresses, epochs=(1, 1, 1))


@pytest.fixture(scope="module")
def base(pretrained):
    return finetune.profile(
        "tiny", parent=pretrained.id, questions="sample:", batch=30, max_length=160
    )


@pytest.fixture(scope="module")
def record(chosen, base, place):
    return stages.study(chosen, base, [0], runs=place)


def test_every_stage_is_on_and_off(record):
    rows = record.metrics["rows"]
    assert [row["chain"] for row in rows] == ["L", "U>L", "A>L", "A>U>L"]
    assert len({row["run"] for row in rows}) == 4
    for row, chain in zip(rows, record.metrics["chains"], strict=True):
        assert (row["chain"], row["accuracy"]) == (chain["chain"], chain["accuracy"])
    assert record.metrics["chains"][0].keys() == {"chain", "accuracy", "seeds"}


def test_each_run_of_a_chain_starts_from_the_one_before(record, chosen, base, place, pretrained):
    last = next(row["run"] for row in record.metrics["rows"] if row["chain"] == "A>U>L")
    line = lineage(last, place)
    assert [run.kind for run in line] == ["pretrain", "finetune", "finetune", "finetune"]
    assert [run.params.get("part") for run in line[1:]] == ["all", "all", "train"]
    assert line[1].params["questions"] == chosen[0].questions
    assert line[2].params["questions"].endswith(pseudolabels.FILE)
    shared = next(row["run"] for row in record.metrics["rows"] if row["chain"] == "A>L")
    assert lineage(shared, place)[1] == line[1]  # the stage A of both


def test_the_teacher_has_the_other_stages_and_reads_the_conclusion(record, place):
    last = next(row["run"] for row in record.metrics["rows"] if row["chain"] == "A>U>L")
    labels = load_run(lineage(last, place)[2].params["questions"].split("/")[-2], place)
    taught = lineage(labels.parent, place)[1:]
    assert [run.params["setting"] for run in taught] == ["reasoning_free"] * 2
    assert [run.params["part"] for run in taught] == ["all", "train"]
    assert labels.params["setting"] == "reasoning_free"


def test_a_second_study_finds_all_its_runs(record, chosen, base, place, monkeypatch):
    monkeypatch.setattr(train, "fit", None)
    again = stages.study(chosen, base, [0], runs=place)
    assert (again.id, again.metrics) == (record.id, record.metrics)


def test_the_stage_before_may_label(chosen, base, place):
    made = stages.train(chosen[:2], base, "", place)
    labels = load_run(made[1].params["questions"].split("/")[-2], place)
    assert labels.parent == made[0].id
    with pytest.raises(ValueError, match="from the stage before, and U>L has none; put one"):
        stages.train(chosen[1:], base, "", place)


def test_a_soft_prompt_goes_through_all_stages(chosen, base, place):
    prompted = replace(base, virtual_tokens=2, initialization="vocabulary")
    made = stages.train([chosen[0], chosen[2]], prompted, runs=place)
    assert [run.params["initialization"] for run in made] == ["vocabulary", "random"]
    assert [run.params["virtual_tokens"] for run in made] == [2, 2]


def test_stages_without_an_address_are_left_out():
    assert stages.name(stages.pqa("l.json")) == "L"
    assert [stages.name(chain) for chain in stages.chains(stages.pqa("l.json"))] == ["L"]


def test_what_a_stage_is_worth_by_hand():
    correct = {
        ("L", 0): [True, False, False, False], ("L", 1): [True, True, False, False],
        ("A>L", 0): [True, True, True, False], ("A>L", 1): [True, True, True, True],
    }  # fmt: skip
    first, second = stages.worth(correct)
    assert first == {"chain": "L", "accuracy": 0.375, "seeds": 2}
    assert (second["accuracy"], second["difference"]) == (0.875, 0.5)
    assert second["low"] == second["high"] == 0.5  # both seeds gain two of four
    assert 0 <= second["questions_low"] < 0.5 < second["questions_high"] <= 1
    lone = {key: value for key, value in correct.items() if key[1] == 0}
    assert stages.worth(lone)[1]["low"] is None


def test_the_command_line_says_the_same(record, chosen, base, place, pretrained, capsys):
    words = ["stages", "--parent", pretrained.id, "--runs", str(place), "--labeled", "sample:"]
    words += ["--artificial", chosen[0].questions, "--epochs", "1", "1", "1", "--seeds", "1"]
    assert main([*words, "--batch", "30", "--micro-batch", "4", "--max-length", "160"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("stages-AL-") and "majority" in lines[-2]
    assert any(line.startswith("A>L") and "over questions" in line for line in lines)
