"""The command of a score: kept by PMID, compared without its model, beside its yardsticks."""

import json

import pytest

from mediswift import demo, examine, pubmedqa, records, scoring
from mediswift.__main__ import main


@pytest.fixture(scope="module")
def model(runs, tuned):
    return str(runs / tuned.id / "model")


@pytest.fixture(scope="module")
def kept(model, tmp_path_factory):
    """Folders of two scores on the same questions, and of one in another setting."""
    out = tmp_path_factory.mktemp("kept")
    chosen = [{}, {"prior": "content_free"}, {"setting": "question_only"}]
    configs = [scoring.ScoreConfig(model=model, data="sample:", **more) for more in chosen]
    return [scoring.keep(c, scoring.score(c), out) for c in configs]


def printed(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def failed(capsys, *words):
    assert main([str(word) for word in words]) == 1
    return capsys.readouterr().err


def test_a_kept_score_reads_back_and_is_not_replaced(model, kept):
    config = scoring.ScoreConfig(model=model, data="sample:")
    report = scoring.score(config)
    assert examine.read_report(kept[0]).predictions == report.predictions
    with pytest.raises(FileExistsError, match="holds this score already"):
        scoring.keep(config, report, kept[0].parent)


def test_two_kept_scores_are_compared_question_by_question(capsys, kept):
    said = printed(capsys, "compare", kept[0], kept[0]).splitlines()
    assert said[2].startswith("A - B: +0.0 points") and said[2].endswith("not distinguishable")
    assert said[3] == "they answer 0.0% differently"
    assert "A - B" in printed(capsys, "compare", kept[0], kept[1])


def test_two_settings_are_not_compared(capsys, kept):
    assert "never mixed" in failed(capsys, "compare", kept[0], kept[2])
    assert "never mixed" in failed(capsys, "summary", kept[0], kept[2])


def test_runs_are_summarized(capsys, kept):
    said = printed(capsys, "summary", kept[0], kept[1])
    assert "n = 2 runs" in said and "over runs and 100 questions" in said
    assert "answered twice" in failed(capsys, "summary", "--pool", kept[0], kept[1])


def test_a_summary_is_kept(capsys, kept, tmp_path):
    said = printed(capsys, "summary", kept[0], kept[1], "--out", tmp_path).splitlines()
    record = records.load(tmp_path / said[-1] / "record.json")
    assert record.params["exams"] == [folder.name for folder in kept[:2]]
    assert [row["exam"] for row in record.metrics["rows"]] == record.params["exams"]
    mean = sum(row["accuracy"] for row in record.metrics["rows"]) / 2
    assert record.metrics["accuracy"]["mean"] == pytest.approx(mean)
    assert "two runs or more" in failed(capsys, "summary", kept[0], "--out", tmp_path)


def test_a_table_of_protocols_is_kept(capsys, model, tmp_path):
    words = ["protocols", "--model", model, "--data", "sample:", "--limit", "10"]
    table = json.loads(printed(capsys, *words, "--json", "--out", tmp_path))
    (path,) = tmp_path.glob("protocols-*/record.json")
    rows = {row.pop("protocol"): row for row in records.load(path).metrics["rows"]}
    assert rows.keys() == table.keys()
    for name, row in rows.items():
        assert row.pop("rows") == table[name].pop("rows")
        assert row == pytest.approx(table[name])


def test_what_is_no_kept_score_is_named(capsys, kept, tmp_path):
    assert "has no record.json" in failed(capsys, "compare", kept[0], tmp_path)
    (tmp_path / "record.json").write_text((kept[0] / "record.json").read_text())
    lines = (kept[0] / examine.PREDICTIONS).read_text().splitlines()
    (tmp_path / examine.PREDICTIONS).write_text("\n".join(lines[:-1]))
    assert "do not" in failed(capsys, "compare", kept[0], tmp_path)


def test_all_ten_folds_are_the_half_that_is_not_the_test(model):
    config = scoring.ScoreConfig(model=model, data="sample:", split="dev", fold="all")
    questions = pubmedqa.load("sample:")
    dev = [p for k in range(10) for p in pubmedqa.split(questions, "dev", k)["pmid"]]
    assert sorted(scoring.chosen(config)["pmid"]) == sorted(dev)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fold": "all"}, "--split dev"),
        ({"fold": "ten"}, "0 to 9 or all"),
        ({"fold": 99}, "0 to 9 or all, got '99'"),
        ({"fold": "all", "split": "dev", "prior": "marginal"}, "one fold's training questions"),
        ({"prior": "flat"}, "one of none, content_free, marginal"),
        ({"prior": "marginal", "generate": True}, "no scores to correct"),
    ],
)
def test_contradictions_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        scoring.ScoreConfig(model="x", data="sample:", **more)


def test_a_marginal_prior_sees_training_questions_only(model):
    plain = scoring.score(scoring.ScoreConfig(model=model, data="sample:"))
    fixed = scoring.score(scoring.ScoreConfig(model=model, data="sample:", prior="marginal"))
    shifts = [
        {a: p["scores"][a] - q["scores"][a] for a in pubmedqa.ANSWERS}
        for p, q in zip(plain.predictions, fixed.predictions, strict=True)
    ]
    assert shifts[0] == pytest.approx(shifts[-1])  # one number an answer, whatever the question


def test_generated_answers_are_scored_by_the_same_command(capsys, model):
    words = ["--model", model, "--data", "sample:", "--limit", 6, "--generate", "--json"]
    found = json.loads(printed(capsys, "evaluate", *words))
    assert found["n"] == 6 and "unanswered" in found and "calibration_error" not in found


def test_yardsticks_stand_beside_and_a_missing_one_says_why(capsys, model, monkeypatch):
    config = scoring.ScoreConfig(model=model, data="sample:")
    found, missing = scoring.yardsticks(config)
    assert all(report.baseline for report in found) and len(found) + bool(missing) > 0
    data = demo.DATA / "sample" / "questions.json"
    said = printed(capsys, "evaluate", "--model", model, "--data", data)
    assert "a yardstick is missing: Humans answered in the official file alone" in said


def test_five_protocols_as_json(capsys, model):
    words = ["--model", model, "--data", "sample:", "--limit", 4, "--json"]
    found = json.loads(printed(capsys, "protocols", *words))
    assert len(found) == 5 and found["HELM"]["rows"] == "all"
