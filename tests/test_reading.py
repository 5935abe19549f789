"""The measurement of reading: rows, the record, and that a failed process is no figure."""

import gzip
import runpy
import sys

import pytest
from test_medline import article, document

from mediswift import mirror, reading, records


@pytest.fixture
def file(tmp_path, monkeypatch):
    """One file, and ourselves in the place of the peer, which may not be installed."""
    path = tmp_path / "pubmed26n0001.xml.gz"
    path.write_bytes(gzip.compress(document(*(article(str(n)) for n in range(1, 50)))))
    monkeypatch.setattr(reading, "SIDES", {"pubmed_parser": reading.ours, "ours": reading.ours})
    return path


def test_a_race_counts_records_and_ratios(file):
    peer, ours = reading.race([file], rounds=3)
    assert peer["records"] == ours["records"] == 49 and peer["ratio"] == 1
    assert ours["ratio_low"] <= ours["ratio"] <= ours["ratio_high"]
    assert ours["records_per_cpu_s"] == pytest.approx(49 / ours["seconds"])


def test_memory_and_corpora_are_those_of_fresh_processes(file):
    one = reading.corpora([file], 1, rounds=1)
    assert one[0]["citations"] == 98 and one[0]["processes"] == 1
    assert one[0]["peak_bytes"] > 1 << 20 and one[0]["corpus_gigabytes"] > 0
    assert one[0]["hours"] == pytest.approx(reading.BASELINE * one[0]["seconds"] / 98 / 3600)
    small, large = (reading._run("--resolve", pmids)[1] for pmids in (1_000, 3_000_000))
    assert large - small > 1 << 22  # its own size, not that of the process that started it
    with pytest.raises(RuntimeError, match="needs its process to end well"):
        reading._run("--corpus", "none")


def test_processes_race_together(file):
    (row,) = reading.race_together([file], 1, rounds=1, names=["ours"])
    assert row["processes"] == 1 and row["records_per_s"] == pytest.approx(49 / row["seconds"])


def test_resolving_counts_each_pmid_once():
    assert reading.resolve(1_000, each=30) == 1_001  # from 0 to 1,000


def test_the_record_holds_all(file, tmp_path, monkeypatch, capsys):
    small = {"peaks": [], "corpora": [], "race_together": [], "resolution": {}, "agreement": []}
    for name, value in small.items():
        monkeypatch.setattr(reading, name, lambda *_, found=value: found)
    monkeypatch.setattr(reading.metadata, "version", lambda _: "0.5.1")
    assert reading.main([str(file), "--rounds", "1", "--out", str(tmp_path / "out")]) == 0
    found = records.newest(tmp_path / "out", "reading")
    assert found.params["peer"] == "pubmed_parser 0.5.1" and found.params["files"] == [file.name]
    assert len(found.metrics["rows"]) == 2 and found.metrics["baseline"] == reading.BASELINE
    assert reading.main([str(file), "--only", "ours"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "49"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_says_what_is_wrong_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reading", "none.xml.gz", "--only", "ours"])
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module("mediswift.reading", run_name="__main__")
    said = capsys.readouterr().err
    assert said.startswith("mediswift.reading: ") and said.count("\n") == 1


def test_pubmed_is_smaller_than_the_table_of_pmids():
    assert reading.BASELINE < mirror.PMIDS
