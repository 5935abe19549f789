"""What counts as lost beside `pubmed_parser`; with it installed, that nothing is."""

import gzip

import pytest
from test_bibliography import WHOLE
from test_medline import DELETED, article, document

from mediswift import agreement

WHY = 'pubmed_parser is not installed: pip install "mediswift[peers]"'


@pytest.fixture
def file(tmp_path):
    labels = '<AbstractText Label="AIM" NlmCategory="OBJECTIVE">To <i>see <b>it</b></i>.'
    labels += '</AbstractText><AbstractText Label="LEVEL: 4"/>'
    path = tmp_path / "pubmed26n0001.xml.gz"
    path.write_bytes(gzip.compress(document(article("1", labels), WHOLE, DELETED)))
    return path


def test_spaces_do_not_count_and_order_does():
    assert agreement.compare("a b\n c", "ab c") == "equal"
    assert agreement.compare("ac", "abc") == "more"
    assert agreement.compare("ca", "abc") == "lost"


def test_our_fields_are_those_of_the_peer(file):
    rows = [row for row in agreement.everything(file) if not row["deleted"]]
    first, second = map(agreement.our_fields, rows)
    assert first["abstract"] == "AIMTo see it.LEVEL: 4" and first["year"] == "2001"
    assert second["issue"] == "12(3)" and second["chemicals"] == "D2:Caffeine"
    assert second["authors"].startswith("CurieMarieM0000ParisWarsaw")
    assert [row["pmid"] for row in agreement.ours(file)] == ["1", "7", "8", "9"]


def test_nothing_is_lost_that_the_peer_keeps(file):
    pytest.importorskip("pubmed_parser", reason=WHY)
    rows = {row["field"]: row for row in agreement.agreement([file])}
    assert not [name for name, row in rows.items() if row["lost"]]
    assert rows["abstract"] == {"field": "abstract", "equal": 1, "more": 1, "lost": 0}
    assert rows["pmid"]["equal"] == 2 and len(rows) == 22
