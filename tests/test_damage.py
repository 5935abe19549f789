"""The report on damage: counts, table, refusal, and the way through JSON."""

import json

import pytest

from mediswift import damage
from mediswift.damage import Report


def test_a_whole_file_is_not_refused():
    report = Report(citations=1_234, deletions=5)
    report.refuse()
    assert str(report) == "1,234 citations, 5 deletions, 0 books; no damage"


def test_refusal_says_where_what_and_the_ways_out():
    report = Report()
    report.note("pubmed26n0001.xml.gz", 12_345, 7, "", "it has no end")
    with pytest.raises(ValueError) as error:
        report.refuse()
    for word in ("must be whole", "pubmed26n0001.xml.gz", "12,345", "no end", ".md5", "salvage:"):
        assert word in str(error.value)


def test_all_is_counted_and_the_first_rows_are_kept():
    report = Report()
    for number in range(damage.ROWS + 5):
        report.note("a.xml", number, number, str(number), "bad")
    assert report.damaged == damage.ROWS + 5 and len(report.rows) == damage.ROWS
    assert str(report).endswith(f"... and {report.damaged - damage.SHOWN} more")


def test_gaps_are_summed_up_no_damage_and_the_rarest_come_first():
    report = Report(citations=5_000)
    for number in range(1_200):
        report.note_gap("a.xml", number, number, str(number), "no abstract")
    report.note_gap("a.xml", 9_999, 4_321, "17", "no language")
    report.refuse()
    first, _, row, *others, last = report.tell_gaps().splitlines()
    assert "5,000 citations, of which 1 has no language, 1,200 have no abstract; none is" in first
    assert row.split() == ["a.xml", "9,999", "4,321", "17", "no", "language"]
    assert len(others) == damage.SHOWN - 1 and last == "... and 1,191 more"
    assert len(report.gaps) == damage.SHOWN + 1
    assert Report(citations=1).tell_gaps() == ""


def test_reports_add_up_and_survive_json():
    one, two = Report(citations=2, books=1), Report(deletions=3)
    two.note("b.xml", 1, 1, "9", "bad")
    one.note_gap("a.xml", 1, 1, "8", "no title")
    two.note_gap("b.xml", 2, 2, "9", "no title")
    both = damage.total([one, two])
    assert both.missing == {"no title": 2} and [gap.pmid for gap in both.gaps] == ["8", "9"]
    assert (one.missing, two.missing) == ({"no title": 1}, {"no title": 1})
    assert (both.citations, both.deletions, both.books, both.damaged) == (2, 3, 1, 1)
    assert damage.from_dict(json.loads(json.dumps(both.as_dict()))) == both
