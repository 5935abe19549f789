"""Tests of mediswift.sheet and of the judged sheet. Run with: pytest tests/test_sheet.py."""

import json
import runpy
from collections import Counter

import pandas as pd
import pytest

from mediswift import demo, sheet

HOME = demo.DATA / "artificial"
ROW = dict(zip(sheet.FIELDS, ("1", "effect", "Is it?", "yes", "right", ""), strict=True))


def file_of(tmp_path, *rows):
    path = tmp_path / "sheet.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_draw_is_seeded_and_blind_to_order():
    items = [{"pmid": str(i), "rule": "ab"[i % 2]} for i in range(40)]
    drawn = sheet.draw(items, 10, seed=1)
    assert Counter(item["rule"] for item in drawn) == {"a": 10, "b": 10}
    assert drawn == sheet.draw(items[::-1], 10, seed=1) != sheet.draw(items, 10, seed=2)


@pytest.mark.parametrize(
    "rows",
    [
        [ROW | {"verdict": "good"}],
        [ROW | {"verdict": "wrong"}],
        [ROW | {"reason": "why?"}],
        [ROW, ROW],
        [{"pmid": "1"}],
    ],
)
def test_a_sheet_that_is_not_judged_whole_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="the verdict is right, or wrong with a reason"):
        sheet.load(file_of(tmp_path, *rows))


def test_rates_come_with_their_intervals(tmp_path):
    wrong = ROW | {"pmid": "2", "verdict": "wrong", "reason": "no"}
    table = sheet.error_rates(sheet.load(file_of(tmp_path, ROW, wrong)))
    row = table.loc["effect"]
    assert (row["read"], row["wrong"], row["rate"]) == (2, 1, 0.5)
    assert row["low"] < 0.5 < row["high"]


def test_the_tables_of_the_card_are_what_the_sheet_and_the_runs_say():
    made = runpy.run_path(str(HOME / "make_tables.py"))
    for name in ("rates", "counts", "worth"):
        shown = (HOME / f"{name}.csv").read_text(encoding="utf-8")
        assert made[name]().to_csv(index=False, lineterminator="\n") == shown


def test_every_rule_was_read_a_hundred_times_or_wholly():
    read = Counter(row["rule"] for row in sheet.load(HOME / "judged.jsonl"))
    counts = pd.read_csv(HOME / "counts.csv")
    there = counts[counts["options"] == "none"].set_index("rule")["all"]
    assert read == {rule: min(100, there[rule]) for rule in read} and len(read) == 5


def test_no_question_of_the_exam_is_on_the_sheet():
    labels = json.loads((demo.DATA / "pubmedqa_labels.json").read_text(encoding="utf-8"))
    assert not labels.keys() & {row["pmid"] for row in sheet.load(HOME / "judged.jsonl")}
