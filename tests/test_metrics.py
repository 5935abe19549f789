"""The rows of metrics: kept up to the checkpoint, and written as they come."""

import json

import pytest

from mediswift.metrics import FILE, Log


def row(step, **more):
    return {"step": step, "loss": 1 / step, "tokens_per_s": 1000.0} | more


def written(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
    """A log of three rows."""
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(row(step), steps=9)
    return log


def test_rows_are_on_disk_as_they_come(log, tmp_path):
    assert written(tmp_path) == log.rows == [row(1), row(2), row(3)]


def test_what_was_said_after_the_checkpoint_is_dropped(log, tmp_path):
    assert Log(tmp_path, 2).rows == written(tmp_path) == [row(1), row(2)]


def test_half_a_last_line_is_dropped(log, tmp_path):
    path = tmp_path / FILE
    path.write_text(path.read_text()[:-9])
    assert Log(tmp_path, 3).rows == written(tmp_path) == [row(1), row(2)]


def test_only_a_validation_is_said_in_words(log, capsys):
    assert capsys.readouterr().out == ""
    log.write(row(4, validation_loss=1.5), steps=9)
    said = "step      4 of 9  loss 0.250  validation 1.500  1,000 tokens/s\n"
    assert capsys.readouterr().out == said


def test_a_silent_log_keeps_rows_and_leaves_the_file_alone(log, tmp_path, capsys):
    silent = Log(tmp_path, 2, speaks=False)
    silent.write(row(3, validation_loss=1.0), steps=9)
    assert silent.rows == [row(1), row(2), row(3, validation_loss=1.0)]
    assert written(tmp_path) == [row(1), row(2), row(3)]
    assert capsys.readouterr().out == ""


def test_not_a_number_is_refused(log):
    with pytest.raises(ValueError, match="JSON"):
        log.write(row(4, validation_loss=float("nan")), steps=9)


@pytest.mark.parametrize("line", ["5", "[]", '{"loss": 1}', '{"step": "x"}', "{", "[" * 9_999])
def test_a_line_that_is_no_row_is_left_out(log, tmp_path, line):
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert Log(tmp_path, 3).rows == log.rows


def test_bytes_that_are_no_text_are_left_out(log, tmp_path):
    with open(tmp_path / FILE, "ab") as file:
        file.write(b"\xff\xfe\n")
    assert Log(tmp_path, 3).rows == log.rows


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_log_that_was_cut_gives_no_record(log, tmp_path, kept):
    assert log.end(3) == log.rows
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    (tmp_path / FILE).write_text("".join(lines[:kept]))
    with pytest.raises(ValueError, match=rf"is at step 3 .* ends at {kept}: it was cut"):
        Log(tmp_path, 3).end(3)
