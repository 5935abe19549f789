"""The mirror: versions, deletions, order, processes, interruption, memory."""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_medline import CUT, article, document

from mediswift import corpus, damage, medline, mirror, places


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path / "cache"))


def deleted(*pmids: str, version: int = 1) -> str:
    inside = "".join(f'<PMID Version="{version}">{pmid}</PMID>' for pmid in pmids)
    return f"<DeleteCitation>{inside}</DeleteCitation>"


def make(folder: Path, *files: list[str], year: int = 26, start: int = 1) -> Path:
    """A folder of numbered files, each of some records."""
    folder.mkdir(exist_ok=True)
    for number, records in enumerate(files, start=start):
        packed = gzip.compress(document(*records), mtime=0)
        (folder / f"pubmed{year}n{number:04}.xml.gz").write_bytes(packed)
    return folder


def titles(folder: Path, **options) -> list[str]:
    return mirror.load(folder, **options)["title"][:]


def titled(pmid: str, title: str, **other) -> str:
    return article(pmid, title=title, **other)


def test_a_later_file_goes_before_an_earlier_one(tmp_path):
    make(tmp_path / "m", [titled("1", "old"), titled("2", "kept")], [titled("1", "new")])
    assert titles(tmp_path / "m") == ["kept", "new"]


def test_a_later_record_of_one_file_goes_before_an_earlier_one(tmp_path):
    make(tmp_path / "m", [titled("1", "old"), titled("1", "new")])
    assert titles(tmp_path / "m") == ["new"]


def test_the_highest_version_is_the_article(tmp_path):
    first = [titled("1", "two", version=2), titled("1", "one", version=1)]
    make(tmp_path / "m", first, [titled("1", "one, revised", version=1)])
    assert titles(tmp_path / "m") == ["two"]
    make(tmp_path / "m", [titled("1", "three", version=3)], start=3)
    assert titles(tmp_path / "m") == ["three"]


def test_without_its_highest_version_the_next_is_the_article(tmp_path):
    first = [titled("1", "one", version=1), titled("1", "two", version=2)]
    make(tmp_path / "m", first, [deleted("1", version=2)])
    assert titles(tmp_path / "m") == ["one"]


def test_deletions_remove_what_came_before(tmp_path):
    make(tmp_path / "m", [titled("1", "a"), titled("2", "b")], [deleted("1", "77")])
    assert titles(tmp_path / "m") == ["b"]
    make(tmp_path / "m", [titled("1", "back")], start=3)
    assert titles(tmp_path / "m") == ["b", "back"]
    make(tmp_path / "m", [titled("2", "b2"), deleted("2")], start=4)
    assert titles(tmp_path / "m") == ["back"]


def test_a_foreign_version_replaces_an_english_one(tmp_path):
    make(tmp_path / "m", [titled("1", "a")], [titled("1", "à", language="fre")])
    assert titles(tmp_path / "m") == []
    assert titles(tmp_path / "m", language="") == ["à"]


def test_large_pmids_are_known(tmp_path):
    large = str(mirror.PMIDS)
    make(tmp_path / "m", [titled("1", "x"), titled(large, "a")], [deleted(large)])
    assert titles(tmp_path / "m") == ["x"]
    huge = "9" * 15
    make(tmp_path / "n", [titled(huge, "a"), titled("1", "s")], [titled(huge, "b")])
    assert titles(tmp_path / "n") == ["s", "b"]


@pytest.mark.parametrize("pmid", ["", "abc"])
def test_a_record_without_a_number_is_damaged(tmp_path, capsys, pmid):
    make(tmp_path / "m", [titled("1", "a"), titled(pmid, "b")])
    with pytest.raises(ValueError, match=f"(?s)1 damaged.*n0001.*  2  .*number; got '{pmid}'"):
        mirror.load(tmp_path / "m")
    assert titles(tmp_path / "m", salvage=True) == ["a"]
    assert f"must be a number; got '{pmid}'" in capsys.readouterr().err


def test_an_unknown_language_is_not_foreign_and_is_told(tmp_path, capsys):
    silent = titled("7", "silent").replace("<Language>eng</Language>", "")
    make(tmp_path / "m", [titled("5", "à", language="fre"), silent], [titled("8", "a")])
    for _ in range(2):  # read anew, and out of the cache
        rows = corpus.load(f"medline:{tmp_path / 'm'}")
        assert rows["pmid"][:] == ["7", "8"]
        told = capsys.readouterr().err
        assert "3 citations, of which 1 has no language; none is left out" in told
        row = next(line for line in told.splitlines() if line.startswith("pubmed26n0001.xml.gz"))
        assert row.split()[2:] == ["2", "7", "no", "language"]
    assert titles(tmp_path / "m", language="fre") == ["à", "silent"]
    make(tmp_path / "m", [deleted("7")], start=2)
    assert titles(tmp_path / "m") == []


def test_untitled_articles_are_kept_and_summed_up(tmp_path, capsys):
    make(tmp_path / "m", [titled(str(n), "") for n in range(1, 61)], [titled("99", "")])
    assert titles(tmp_path / "m") == [""] * 61
    told = capsys.readouterr().err
    assert "61 have no title" in told and "... and 51 more" in told
    assert sum("no title" in line for line in told.splitlines()) == damage.SHOWN + 1
    make(tmp_path / "n", [titled("1", "a")])
    mirror.load(tmp_path / "n")
    assert "no title" not in capsys.readouterr().err


def test_the_order_of_files():
    names = "b.xml a.xml.gz pubmed26n1275.xml.gz pubmed26n0999.xml.gz medline17n0002.xml"
    given = [Path(name) for name in names.split()]
    found = [path.name for path in mirror.in_order(given)]
    assert found == ["a.xml.gz", "b.xml", "medline17n0002.xml", *names.split()[3:1:-1]]


def test_all_columns_and_the_five_of_a_corpus(tmp_path):
    mesh = '<MeshHeadingList><MeshHeading><DescriptorName UI="D1" MajorTopicYN="Y">Sleep'
    mesh += "</DescriptorName></MeshHeading></MeshHeadingList>"
    text = (
        '<AbstractText Label="AIM">To rest.</AbstractText><AbstractText Label="LEVEL"/>'
        "<CopyrightInformation>Ours.</CopyrightInformation>"
    )
    whole = article("7", text).replace("</Article>", f"</Article>{mesh}")
    make(tmp_path / "m", [whole])
    (row,) = mirror.load(tmp_path / "m").to_list()
    document = corpus.load(f"medline:{tmp_path / 'm'}").to_list()
    texts = {"pmid": "7", "title": "A title.", "abstract": "AIM: To rest.", "year": "2001"}
    assert document == [texts | {"source": "pubmed26n0001.xml.gz"}]
    heading = {"ui": "D1", "name": "Sleep", "major": True, "qualifiers": []}
    assert row == document[0] | {
        "language": "eng",
        "copyright": "Ours.",
        "version": 1,
        "mesh": [heading],
    }


def test_damage_is_refused_or_left_out(tmp_path, capsys):
    bad = [article("1"), CUT, article("3")]
    make(tmp_path / "m", [article("9")], bad, [article("4"), CUT])
    address = f"medline:{tmp_path / 'm'}"
    for _ in range(2):  # read anew, and out of the cache
        with pytest.raises(ValueError, match="(?s)2 damaged places.*n0002.*n0003.*salvage:"):
            corpus.load(address)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    rows = corpus.load(address.replace("medline:", "salvage:"))
    assert rows["pmid"][:] == ["9", "1", "3", "4"]
    assert "n0002" in capsys.readouterr().err


def test_a_repaired_file_is_read_again(tmp_path):
    make(tmp_path / "m", [CUT, article("3")])
    with pytest.raises(ValueError, match="damaged"):
        mirror.load(tmp_path / "m")
    make(tmp_path / "m", [article("2"), article("3")])
    assert len(mirror.load(tmp_path / "m")) == 2


def test_finished_files_are_not_read_again(tmp_path, monkeypatch):
    make(tmp_path / "m", [article("1")], [article("2")])
    mirror.load(tmp_path / "m")
    make(tmp_path / "m", [article("3")], start=3)
    names = []
    real = medline.read
    monkeypatch.setattr(medline, "read", lambda s, name, r: names.append(name) or real(s, name, r))
    assert mirror.load(tmp_path / "m")["pmid"][:] == ["1", "2", "3"]
    assert names == ["pubmed26n0003.xml.gz"]
    monkeypatch.setattr(mirror, "SCHEMA", mirror.SCHEMA + 1)
    mirror.load(tmp_path / "m")
    assert len(names) == 4


def test_a_spoiled_part_of_the_cache_is_made_again(tmp_path):
    make(tmp_path / "m", [article("1")], [article("2")])
    mirror.load(tmp_path / "m")
    for path in (tmp_path / "cache" / "medline").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "cache" / "medline").joinpath("x.part").write_bytes(b"half")
    make(tmp_path / "m", [article("3")], start=3)
    assert len(mirror.load(tmp_path / "m")) == 3


def chance(seed: int) -> list[list[str]]:
    """Files of citations, deletions and versions, drawn at random."""
    draw = random.Random(seed)
    files = []
    for file in range(4):
        records = [
            titled(str(draw.randrange(1, 30)), f"{file}.{n}", version=draw.choice([1, 1, 1, 2, 3]))
            for n in range(20)
        ]
        gone = [str(draw.randrange(1, 30)) for _ in range(6)]
        files.append([*records, deleted(*gone, version=draw.choice([1, 2]))])
    return files


def slowly(folder: Path) -> list[str]:
    """Titles by the rules as they are told: file after file, row after row."""
    alive: dict[tuple[str, int], str] = {}
    for file in mirror.in_order(places.find_files(folder, medline.SUFFIXES)):
        with file.open("rb") as stream:
            for row in medline.read(stream, file.name):
                alive.pop((row["pmid"], row["version"]), None)
                if not row["deleted"]:
                    alive[row["pmid"], row["version"]] = row["title"]
    highest = {pmid: max(v for p, v in alive if p == pmid) for pmid, _ in alive}
    return [title for (pmid, version), title in alive.items() if version == highest[pmid]]


@pytest.mark.parametrize("seed", range(5))
def test_it_follows_the_rules_as_they_are_told(tmp_path, seed):
    make(tmp_path / "m", *chance(seed))
    assert titles(tmp_path / "m") == slowly(tmp_path / "m")


def test_processes_do_not_change_the_result(tmp_path, monkeypatch):
    make(tmp_path / "m", *chance(1), [CUT, article("99")])
    one = mirror.load(tmp_path / "m", salvage=True)
    monkeypatch.setenv("MEDISWIFT_CACHE", str(tmp_path / "other"))
    two = mirror.load(tmp_path / "m", 2, salvage=True)
    assert one.to_list() == two.to_list()
    names = [sorted(p.name for p in (tmp_path / n).rglob("*.parquet")) for n in ("cache", "other")]
    assert names[0] == names[1] and len(names[0]) == 5


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_loading_goes_on_and_leaves_no_process(tmp_path, processes):
    big = [
        article(str(n), "<AbstractText>" + "word " * 300 + "</AbstractText>") for n in range(1, 801)
    ]
    make(tmp_path / "m", *([records] for records in map("".join, [big] * 12)))
    cache = tmp_path / "cache" / "medline"
    command = [sys.executable, "-m", "mediswift.mirror", str(tmp_path / "m")]
    command += ["--processes", str(processes)]
    running = subprocess.Popen(command, start_new_session=True)
    while running.poll() is None and not list(cache.glob("*.parquet")):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    for _ in range(500):  # its children notice
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("a process is left")
    done = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.parquet")}
    assert 0 < len(done) < 12
    assert len(mirror.load(tmp_path / "m")) == 800
    assert done.items() <= {p.name: p.stat().st_mtime_ns for p in cache.glob("*.parquet")}.items()


def test_a_dead_worker_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    make(tmp_path / "m", [article("1")], [article("2")])
    monkeypatch.setattr(mirror, "_read_file", os._exit)
    with pytest.raises(RuntimeError, match="with fewer processes"):
        list(mirror._work([(3,), (3,)], 2))


def test_the_door(tmp_path, capsys):
    make(tmp_path / "m", [article("1")], [deleted("1"), CUT])
    assert mirror.main([str(tmp_path / "m")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mediswift.mirror: a MEDLINE file must be whole") and "--salvage" in said
    assert mirror.main([str(tmp_path / "m"), "--salvage"]) == 0
    assert "0 articles" in capsys.readouterr().out
    assert mirror.main([str(tmp_path / "none")]) == 1
    assert "folder of .xml, .xml.gz files" in capsys.readouterr().err
    assert mirror.main([str(tmp_path / "m"), "--salvage", "--processes", "0"]) == 1
    assert "one process or more, got 0" in capsys.readouterr().err


def test_parts_are_written_in_small_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "BATCH", 2)
    make(tmp_path / "m", [article(str(n)) for n in range(1, 6)])
    mirror.load(tmp_path / "m")
    (part,) = (tmp_path / "cache").rglob("*.parquet")
    assert pq.ParquetFile(part).num_row_groups == 3
