"""Records: what is written is what is read, whole or not at all."""

import json
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from mediswift import records
from mediswift.records import Record

RECORD = Record(
    id="pretrain-x-000000",
    kind="pretrain",
    params={"size": "tiny", "lr": 1e-3},
    metrics={"loss_nats": 1.23456, "tokens": 20480, "engine": "masked"},
    data_fingerprint="abc",
    parent="corpus-x-000000",
)


def test_round_trip(tmp_path):
    path = records.write(RECORD, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "record.json"
    assert records.load(path) == RECORD


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "must be JSON, and is not"), ("[" * 9_000, "nested deeper"), ("\x00", "must be JSON")],
    ids=["open", "deep", "control"],
)
def test_what_is_no_json_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"record.json {said}|record.json .*{said}"):
        records.load(path)


@pytest.mark.parametrize("change", [{"id": 1}, {"params": []}, {"env": None}], ids=str)
def test_a_field_of_another_type_is_refused(tmp_path, change):
    path = records.write_json(tmp_path / "record.json", asdict(RECORD) | change)
    with pytest.raises(ValueError, match=rf"text; .* has others: \['{next(iter(change))}'\]"):
        records.load(path)


def test_who_waits_says_so_and_gets_its_turn(tmp_path, capsys):
    with ThreadPoolExecutor() as pool:
        with records.alone(tmp_path / "run"):
            later = pool.submit(lambda: records.alone(tmp_path / "run").__enter__())
            time.sleep(0.3)
            assert not later.done()
        later.result(timeout=20)
    assert f"another process works on {tmp_path / 'run'}; waiting" in capsys.readouterr().err


def test_where_nothing_can_be_written_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file must be a folder that can be written: .*; choose"):
        with records.alone(tmp_path / "file" / "run"):
            pass


def test_prints_as_a_table():
    assert str(RECORD) == (
        "pretrain-x-000000\n  loss_nats  1.235\n  tokens     20,480\n  engine     masked"
    )


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"schema": None}, {"colour": "red"}], ids=["newer", "none", "field"]
)
def test_another_schema_is_refused(tmp_path, change):
    path = records.write_json(tmp_path / "record.json", asdict(RECORD) | change)
    with pytest.raises(ValueError, match="a record has schema 1 and the fields .* make it again"):
        records.load(path)


def test_json_that_is_no_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a record has schema 1"):
        records.load(records.write_json(tmp_path / "list.json", [1, 2]))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_number_is_refused_and_the_old_record_stays(tmp_path, number):
    path = records.write(RECORD, tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        records.write(replace(RECORD, metrics={"loss_nats": number}), tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert records.load(path) == RECORD


def test_what_is_not_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        records.write_json(tmp_path / "new.json", {"path": tmp_path})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = records.write_json(tmp_path / "a.json", {"a": 1})

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr(records.os, "replace", crash)
    with pytest.raises(OSError, match="no space"):
        records.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_frame_has_a_row_a_run(tmp_path):
    records.write(RECORD, tmp_path / "one")
    records.write(replace(RECORD, id="exam-x", kind="exam"), tmp_path / "deeper" / "two")
    table = records.frame(tmp_path).set_index("id")
    assert set(table.columns) == {
        "kind", "parent", "size", "lr", "loss_nats", "tokens", "engine", "processor"
    }  # fmt: skip
    assert table.loc["exam-x", "tokens"] == 20480
    assert records.frame(tmp_path, "exam")["id"].tolist() == ["exam-x"]
    assert records.frame(tmp_path, "corpus").empty


def test_records_of_a_kind_come_from_the_oldest_to_the_newest(tmp_path):
    old, new, other, long = (
        replace(RECORD, id="a", created_utc="2026-02"),
        replace(RECORD, id="b", created_utc="2026-03"),
        replace(RECORD, id="c", created_utc="2026-04", kind="exam"),
        replace(RECORD, id="d", created_utc="2026-01", params={"size": "xl", "lr": 1e-3}),
    )
    for record in (new, old, other, long):
        records.write(record, tmp_path / record.id)
    assert records.of_kind(tmp_path, "pretrain") == [long, old, new]
    assert records.of_kind(tmp_path, "pretrain", size="tiny") == [old, new]
    assert records.newest(tmp_path, "pretrain", lr=1e-3) == new
    assert records.newest(tmp_path, "pretrain", size="xl") == long
    assert records.of_kind(tmp_path, "bench") == []
    with pytest.raises(FileNotFoundError, match="no record of kind 'pretrain', size='mini'"):
        records.newest(tmp_path, "pretrain", size="mini")


def test_a_name_with_two_meanings_is_refused(tmp_path):
    records.write(replace(RECORD, metrics={"lr": 2.0}), tmp_path)
    with pytest.raises(ValueError, match=r"share \['lr'\]; rename one"):
        records.frame(tmp_path)


def test_an_id_follows_from_content_alone():
    one = records.run_id("exam", "demo", {"a": 1, "b": [2]})
    assert one == records.run_id("exam", "demo", {"b": [2], "a": 1})
    assert one.startswith("exam-demo-")
    assert one != records.run_id("exam", "demo", {"a": 1, "b": [3]})


def test_the_environment_is_named():
    env = records.environment()
    assert env["torch"].startswith("2.13.0")
    assert env["processor"]
    assert len(env["commit"]) in (0, 40)  # none outside a checkout
    assert json.loads(json.dumps(env)) == env


def test_published_numbers_are_found_by_id(tmp_path):
    content = {"numbers": [{"id": "human", "value": 78.0, "source": "a paper"}]}
    table = records.published(records.write_json(tmp_path / "published.json", content))
    assert table.loc["human", "value"] == 78.0


def test_a_childs_largest_size_is_not_its_parents():
    held = bytearray(400 * 2**20)  # touched, so that it counts
    words = [sys.executable, "-c", "from mediswift.records import peak_bytes; print(peak_bytes())"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < records.peak_bytes()
    del held
