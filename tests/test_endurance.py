"""The tables of the page on faults say what the record says."""

import pytest

from mediswift import endurance, records
from mediswift.records import Record

METRICS = {
    "killed": [
        {
            "work": work, "seconds": 4.0, "finished": 2, "differences": differ,
            "kills": [{"after_s": at, "alone": False} for at in (0.5, 3.25)],
        }
        for work, differ in (("packing", []), ("study", ["a", "b"]))
    ],
    "table": [
        {
            "fault": "SIGTERM", "how": "a | b", "exit_code": 130, "message": "stopped | here",
            "kept": None, "same_bits_after": False,
        },
        {
            "fault": "no fault", "how": "", "exit_code": 0, "message": "",
            "kept": True, "same_bits_after": True,
        },
    ],
    "fed": [
        {"reader": "JSON", "taken": 3, "refused": 97, "slowest_s": 0.1, "grown_bytes": 2_000_000}
    ],
    "determinism": {
        "same_threads_same_bits": True, "largest_weight_difference": 2e-6,
        "validation_loss_difference_nats": 3e-7,
    },
    "seconds": 120.0,
}  # fmt: skip
RECORD = Record(id="faults-x", kind="faults", params={}, metrics=METRICS, data_fingerprint="")


def test_kills_are_summed():
    rows = endurance.kills(RECORD).set_index("work")
    assert list(rows.index) == ["packing", "study", "all"]
    assert rows.loc["all"].to_dict() == {
        "seconds undisturbed": "", "kills": 4, "of them after, s": "", "finished": 4,
        "files that differ": 2,
    }  # fmt: skip
    assert rows.loc["packing", "of them after, s"] == "0.5 to 3.2"


def test_a_broken_promise_is_seen_and_a_missing_one_named():
    first = endurance.table(RECORD).iloc[0]
    assert first["same bits after"] == "**no**"
    assert first["last good checkpoint kept"] == "there was none"


def test_only_faults_with_a_line_are_among_the_lines():
    assert endurance.said(RECORD).to_dict("list") == {
        "fault": ["SIGTERM"], "line": ["`stopped | here`"]
    }  # fmt: skip


def test_made_up_input_is_counted():
    assert endurance.fed(RECORD).iloc[0].to_list() == ["JSON", 100, 3, 97, "0.10", "2"]


def test_a_file_for_each_table_and_no_bar_inside_a_cell(tmp_path):
    records.write(RECORD, tmp_path / "results" / RECORD.id)
    paths = endurance.write(tmp_path / "results", tmp_path / "pages")
    assert {path.name for path in paths} == {
        f"faults_{name}.txt" for name in ("kills", "table", "said", "fed", "told")
    }
    for path in paths[:4]:
        assert len({line.count("|") for line in path.read_text().splitlines()}) == 1
    assert "Two runs on two threads gave the same bits." in paths[4].read_text()


def test_without_a_record_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no record of kind 'faults'"):
        endurance.write(tmp_path, tmp_path)
