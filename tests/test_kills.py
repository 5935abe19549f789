"""Killed work ends as if nobody had killed it; `make faults` kills it fifty times."""

import kills
import pytest


@pytest.mark.parametrize("work", ["download", "pre-training"])
def test_killed_work_ends_as_undisturbed_work_does(tmp_path, work):
    with kills.server():
        found = kills.kill(work, 2, tmp_path / "work", seed=1)
    assert len(found["kills"]) == 2 and found["finished"] >= 1
    assert found["differences"] == []


@pytest.mark.slow
@pytest.mark.parametrize("work", ["fine-tuning", "packing", "study"])
def test_longer_work_too(tmp_path, work):
    found = kills.kill(work, 2, tmp_path / "work", seed=1)
    assert len(found["kills"]) == 2 and found["differences"] == []


def test_the_comparison_sees_a_changed_bit_a_lost_file_and_a_doubled_line(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tokens.bin").write_bytes(b"12")
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 1}\n')
    wanted = kills.picture(folder)
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 2}\n')
    assert kills.differences(wanted, kills.picture(folder)) == []
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 2}\n' * 2)
    (folder / "tokens.bin").write_bytes(b"13")
    assert kills.differences(wanted, kills.picture(folder)) == ["metrics.jsonl", "tokens.bin"]
    (folder / "tokens.bin").unlink()
    assert "tokens.bin" in kills.differences(wanted, kills.picture(folder))
