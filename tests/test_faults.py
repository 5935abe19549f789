"""What `make faults` writes, and when it fails."""

import faults
import pytest

from mediswift import records

GOOD = {
    "killed": [{"work": "packing", "differences": [], "finished": 1}],
    "table": [{"fault": "SIGTERM", "as_promised": True}],
    "fed": [],
    "determinism": {"same_threads_same_bits": True, "validation_loss_difference_nats": 0.0},
}


def test_every_kill_is_dealt_out():
    for count in (5, 50, 99):
        assert sum(faults.shares(count).values()) == count
    assert min(faults.shares(50).values()) >= 4


def test_the_record_is_written_and_tells_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "measure", lambda _: dict(GOOD))
    assert faults.main([str(tmp_path), "--kills", "5"]) == 0
    record = records.newest(tmp_path, "faults")
    assert record.params == {"kills": 5, "inputs": 1000, "seed": 0}
    assert record.metrics["table"] == GOOD["table"]


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("killed", [{"work": "packing", "differences": ["tokens.bin"]}], "packing: tokens.bin"),
        ("table", [{"fault": "SIGTERM", "as_promised": False}], "SIGTERM: "),
        (
            "determinism",
            {"same_threads_same_bits": False, "validation_loss_difference_nats": 0.0},
            "as many threads differ",
        ),
        (
            "determinism",
            {"same_threads_same_bits": True, "validation_loss_difference_nats": 1.0},
            "differ by more than",
        ),
    ],
)
def test_a_broken_promise_is_an_exit_code_and_a_line(
    tmp_path, monkeypatch, capsys, part, value, said
):
    monkeypatch.setattr(faults, "measure", lambda _: GOOD | {part: value})
    assert faults.main([str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert records.newest(tmp_path, "faults")
