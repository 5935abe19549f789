"""The command line: what it prints, and the exit code that tells how it went."""

import json

import pytest

from mediswift import book, demo, flops, models, pubmedqa, runner
from mediswift.__main__ import main
from mediswift.runs import load_model, load_tokenizer


def printed(capsys, *words):
    """What a command that went well printed."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


# flops


def test_flops_as_json(capsys):
    found = json.loads(printed(capsys, "flops", "--size", "xl", "--sparsity", "0.75", "--json"))
    shape = models.shape("xl")
    assert found.keys() == {"dense", "sparse", "reduction", "terms"}
    assert found["dense"] == flops.training(shape, shape.context).total
    assert found["sparse"] == pytest.approx(sum(found["terms"].values()))
    assert found["terms"].keys() == {"linear", "attention", "head"}
    assert found["reduction"] == pytest.approx(2.5, abs=0.05)  # what MediSwift claims


def test_flops_in_words(capsys):
    said = printed(capsys, "flops", "--size", "med")
    assert "302,311,424 non-embedding parameters" in said
    assert "2048 tokens" in said
    assert "reduction 2.0" in said


# evaluate


@pytest.fixture(scope="module")
def model(runs, tuned):
    return runs / tuned.id / "model"


def test_evaluate_as_json(capsys, model, runs, tuned):
    found = json.loads(printed(capsys, "evaluate", "--model", model, "--data", "sample:", "--json"))
    assert {"accuracy", "low", "high", "macro_f1", "n"} <= found.keys()
    test = pubmedqa.split(pubmedqa.load("sample:"), "test")
    parts = load_model(tuned.id, runs), load_tokenizer(tuned.id, runs)
    assert found == pubmedqa.evaluate(*parts, test).metrics()


def test_evaluate_in_words(capsys, model):
    said = printed(capsys, "evaluate", "--model", model, "--data", "sample:", "--split", "dev")
    assert said.split()[:3] == ["accuracy", "macro-F1", "n"]
    assert "model - majority" in said


def test_evaluate_can_be_short(capsys, model):
    words = ["--split", "all", "--limit", 12, "--setting", "question_only", "--json"]
    found = json.loads(printed(capsys, "evaluate", "--model", model, "--data", "sample:", *words))
    assert found["n"] == 12


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """The sample as the official file is: with a human's answers, here always yes."""
    items = json.loads((demo.DATA / "sample" / "questions.json").read_text(encoding="utf-8"))
    with_human = {pmid: item | {"reasoning_required_pred": "yes"} for pmid, item in items.items()}
    path = tmp_path_factory.mktemp("official") / "ori_pqal.json"
    path.write_text(json.dumps(with_human), encoding="utf-8")
    return path


def test_evaluate_tells_what_humans_score_on_the_same_questions(capsys, model, answered):
    said = printed(capsys, "evaluate", "--model", model, "--data", answered).splitlines()
    labels = list(pubmedqa.split(pubmedqa.load(answered), "test")["label"])
    assert said[-1] == f"humans, on the same questions: {labels.count('yes') / len(labels):.1%}"


@pytest.mark.parametrize("words", [["--split", "dev"], ["--limit", 12], ["--json"]])
def test_humans_are_not_compared_on_other_questions(capsys, model, answered, words):
    said = printed(capsys, "evaluate", "--model", model, "--data", answered, *words)
    assert "humans" not in said


def test_a_file_without_human_answers_is_scored_all_the_same(capsys, model):
    data = demo.DATA / "sample" / "questions.json"
    said = printed(capsys, "evaluate", "--model", model, "--data", data)
    assert "majority" in said and "humans" not in said


# run, study, book


def test_run_hands_its_words_to_the_runner(capsys, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(runner, "run", lambda *given: calls.append(given) or 2.0)
    words = ["-p", "seed", "1", "-p", "text", "demo:", "--output", tmp_path / "o.ipynb"]
    said = printed(capsys, "run", "notebooks/03_pretrain.ipynb", *words)
    ((notebook, parameters, output),) = calls
    assert (notebook.name, parameters) == ("03_pretrain.ipynb", {"seed": "1", "text": "demo:"})
    assert said == f"{output} (2 s)\n"


def test_a_notebook_run_by_hand_is_named_after_its_parameters(capsys, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_: 2.0)
    said = printed(capsys, "run", "notebooks/03_pretrain.ipynb", "-p", "seed", "1")
    output = runner.ROOT / "runs" / "notebooks" / "03_pretrain-seed1.ipynb"
    assert said == f"{output} (2 s)\n"


def test_a_study_that_failed_names_what_is_left(capsys, monkeypatch, tmp_path):
    jobs = [
        runner.Job(name, tmp_path, {}, tmp_path / f"{name}.ipynb", ()) for name in ("one", "two")
    ]
    (tmp_path / "one.failed.ipynb").touch()
    monkeypatch.setattr(runner, "run_study", lambda *_, **__: jobs)
    monkeypatch.setattr(book, "render", lambda: pytest.fail("there is nothing to read"))
    for verb in ("study", "book"):
        assert main([verb, "studies/tiny.yaml"]) == 1
        said = capsys.readouterr().err.splitlines()
        assert said == [f"one: failed: see {tmp_path / 'one.failed.ipynb'}", "two: not reached"]


# Exit codes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flops", "--size", "xl", "--sparsity", "75"], "got 75.0; did you mean 0.75?"),
        (["evaluate", "--model", "nowhere", "--data", "sample:"], "nowhere has none"),
        (["evaluate", "--model", "x", "--data", "smaple:"], "smaple:"),
        (["run", "notebooks/three.ipynb"], "no notebook notebooks/three.ipynb"),
        (["study", "studies/none.yaml"], "no study studies/none.yaml; there are"),
    ],
)
def test_what_fails_exits_1_and_says_why_in_a_line(capsys, words, message):
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mediswift: ")
    assert message in captured.err


def test_a_folder_without_weights_exits_1(capsys, model, tmp_path):
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    assert main(["evaluate", "--model", str(tmp_path), "--data", "sample:"]) == 1
    assert "mediswift: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "VERB"),
        (["sing"], "invalid choice: 'sing'"),
        (["flops"], "--size"),
        (["flops", "--size", "huge"], "invalid choice: 'huge'"),
        (["evaluate", "--model", "x", "--data", "sample:", "--split", "tset"], "'tset'"),
    ],
)
def test_wrong_words_exit_2(capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_interrupt_exits_130(capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt("stopped after step 4; call again to go on")

    monkeypatch.setattr(runner, "run", stop)
    assert main(["run", "notebooks/03_pretrain.ipynb"]) == 130
    assert capsys.readouterr().err == "mediswift: stopped after step 4; call again to go on\n"
