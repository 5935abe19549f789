"""Each fault gives one clear line, keeps the last good checkpoint, and is mended by it."""

import breaks
import pytest

QUICK = ["file limit", "flipped checkpoint", "two jobs"]


def test_a_few_faults():
    rows = breaks.table(QUICK)
    assert [row["fault"] for row in rows] == QUICK
    assert [row for row in rows if not row["as_promised"]] == []


@pytest.mark.slow
def test_all_faults():
    rows = breaks.table()
    assert [row for row in rows if not row["as_promised"]] == []
    assert all(row["message"] for row in rows if row["exit_code"])
    assert not any("[Errno" in row["message"] for row in rows)  # ours says what to do


def test_threads_change_the_last_bits_alone(tmp_path):
    found = breaks.threads(tmp_path / "threads")
    assert found["same_threads_same_bits"]
    assert found["validation_loss_difference_nats"] < breaks.TOLERANCE
