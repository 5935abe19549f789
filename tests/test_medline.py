"""MEDLINE XML: worked examples, each form of damage with the rest kept, malice, and chance."""

import gzip
import io
import subprocess
import sys
import time
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediswift import citations, medline
from mediswift.damage import Report

ARTICLE = """
<PubmedArticle><MedlineCitation><PMID Version="{version}">{pmid}</PMID><Article>
  <Journal><JournalIssue><PubDate><Year>{year}</Year></PubDate></JournalIssue></Journal>
  <ArticleTitle>{title}</ArticleTitle>
  <Abstract>{abstract}</Abstract><Language>{language}</Language>
</Article></MedlineCitation><PubmedData>{data}</PubmedData></PubmedArticle>"""
DELETED = "<DeleteCitation><PMID Version='1'>8</PMID>\n<PMID Version='2'>9</PMID></DeleteCitation>"
BOOK = "<PubmedBookArticle><BookDocument><PMID>3</PMID></BookDocument></PubmedBookArticle>"


def article(pmid="1", abstract="<AbstractText>It grows.</AbstractText>", **other) -> str:
    known = {"version": 1, "year": "2001", "title": "A title.", "language": "eng", "data": ""}
    return ARTICLE.format(pmid=pmid, abstract=abstract, **known | other)


def document(*articles: str, head: str = "") -> bytes:
    text = f"{head}<PubmedArticleSet>{''.join(articles)}\n</PubmedArticleSet>\n"
    return text.encode("utf-8", "surrogateescape")


def read(data: bytes, name: str = "some.xml") -> list[dict]:
    return list(medline.read(io.BytesIO(data), name))


def salvage(data: bytes) -> tuple[list[str], list]:
    """PMIDs, and the rows of the report."""
    report = Report()
    found = list(medline.read(io.BytesIO(data), "some.xml", report))
    return [row["pmid"] for row in found], report.rows


def test_citations_deletions_and_books_in_order():
    report = Report()
    data = document(article("1"), BOOK, article("2", version=3), DELETED)
    rows = list(medline.read(io.BytesIO(data), "some.xml", report))
    assert [(r["pmid"], r["version"], r["deleted"]) for r in rows] == [
        ("1", 1, False),
        ("2", 3, False),
        ("8", 1, True),
        ("9", 2, True),
    ]
    assert report == Report(citations=2, deletions=2, books=1)
    assert rows[0]["sections"] == [["", "It grows."]] and rows[0]["year"] == "2001"


def test_prefixes_of_the_dtd_need_no_declaration():
    title = "On <mml:math><mml:mi>x</mml:mi></mml:math>."
    assert read(document(article(title=title)))[0]["title"] == "On x."


def test_what_is_asked_for_is_what_is_parsed():
    seen = []

    def parse(element):
        seen.append(element.tag)
        return citations.read(element)

    data = document(article(data="<ArticleIdList/>"))
    for whole in (False, True):
        list(medline.read(io.BytesIO(data), "some.xml", None, parse, whole))
    assert seen == ["MedlineCitation", "PubmedArticle"]


@pytest.mark.parametrize(
    "hidden",
    [
        "<!-- </PubmedArticle> -->",
        "<!-- <PubmedArticle> -->",
        "<![CDATA[</MedlineCitation></PubmedArticle><PubmedArticle>]]>",
        "<?x </PubmedArticle>?>",
        "<!-- &bad; < -->",
    ],
)
def test_tags_in_comments_cdata_and_instructions_are_no_tags(hidden):
    abstract = f"<AbstractText>It {hidden}grows.</AbstractText>"
    data = document(article("1", abstract), article("2"), article("3", data=hidden))
    rows = read(data)
    assert [row["pmid"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["sections"][0][1].startswith("It ")
    assert rows[0]["sections"][0][1].endswith("grows.")


def test_a_record_in_a_comment_is_none():
    data = document(article("1"), f"<!-- {article('2')} -->", "<?x <PubmedArticle>?>", article("3"))
    assert [row["pmid"] for row in read(data)] == ["1", "3"]


CUT = article("5").removesuffix("</PubmedArticle>")
FAULTS = {
    "unclosed": (CUT, "no end"),
    "unclosed, short": (CUT[: len(CUT) // 2], "no end"),
    "no start": (article("5").replace("<PubmedArticle>", ""), "outside of any record"),
    "mismatched": (article("5", "<AbstractText>a<b>c</i></AbstractText>"), "tag mismatch"),
    "latin-1, not UTF-8": (article("5", "<AbstractText>caf\udce9</AbstractText>"), "encoding"),
    "control character": (article("5", "<AbstractText>a\x01</AbstractText>"), "har"),
    "unknown entity": (article("5", "<AbstractText>&nbsp;</AbstractText>"), "nbsp"),
    "unclosed comment": (article("5", "<AbstractText><!-- a</AbstractText>"), ""),
    "unclosed CDATA": (article("5", "<AbstractText><![CDATA[a</AbstractText>"), ""),
    "DOCTYPE inside": (article("5", "<!DOCTYPE x><AbstractText/>"), ""),
    "unclosed book": (BOOK.replace("3", "5").removesuffix("</PubmedBookArticle>"), "no end"),
}


@pytest.mark.parametrize("end", ["xml", "gz"])
@pytest.mark.parametrize("fault", FAULTS)
def test_damage_takes_one_record_and_is_found_again(fault, end):
    bad, why = FAULTS[fault]
    text = document(article("4"), bad, article("6"), article("7"), DELETED)
    data = gzip.compress(text) if end == "gz" else text
    pmids, (row,) = salvage(data)
    assert pmids == ["4", "6", "7", "8", "9"]
    assert row.file == "some.xml" and row.pmid == "5" and why in row.what
    assert text.index(b">4<") < row.byte < text.index(b">6<")
    assert row.record == (1 if fault == "no start" else 2)
    with pytest.raises(ValueError, match=r"(?s)must be whole.*some\.xml.* 5 .*salvage:"):
        read(data)


COMMENT = "<CommentsCorrectionsList><CommentsCorrections><PMID>9</PMID></CommentsCorrections>"
COMMENT += "</CommentsCorrectionsList>"
NUMBERLESS = {
    "none": (article("5").replace('<PMID Version="1">5</PMID>', ""), ""),
    "empty": (article(""), ""),
    "letters": (article("abc"), "abc"),
    "foreign digits": (article("٣"), "٣"),
    "two": (article("5 6"), "5 6"),
    "zero": (article("000"), ""),
    "no citation": ("<PubmedArticle><PubmedData/></PubmedArticle>", ""),
    "a deletion": ("<DeleteCitation><PMID>S1</PMID></DeleteCitation>", "S1"),
    "only another's": (article("").replace("</Article>", f"</Article>{COMMENT}"), ""),
}


@pytest.mark.parametrize("form", NUMBERLESS)
def test_a_pmid_that_is_no_number_is_damage(form):
    bad, got = NUMBERLESS[form]
    data = document(article("4"), bad, article("6"))
    pmids, (row,) = salvage(data)
    assert pmids == ["4", "6"] and row.what == f"its PMID must be a number; got {got!r}"
    assert (row.file, row.record, row.pmid) == ("some.xml", 2, "")
    assert row.byte == data.index(bad.strip().encode())
    with pytest.raises(ValueError, match=r"(?s)must be whole.*PMID must be a number.*salvage:"):
        read(data)


def test_what_else_is_missing_is_noted_and_the_record_kept():
    silent = article("5", language="").replace("<Language></Language>", "")
    untitled = article("6", title=" ").replace("<Year>2001</Year>", "")
    bare = "<PubmedArticle><MedlineCitation><PMID>7</PMID></MedlineCitation></PubmedArticle>"
    data, report = document(article("4"), silent, untitled, bare, DELETED), Report()
    rows = list(medline.read(io.BytesIO(data), "some.xml", report))
    assert [row["pmid"] for row in rows] == ["4", "5", "6", "7", "8", "9"] and not report.damaged
    assert [(gap.record, gap.pmid, gap.what) for gap in report.gaps] == [
        (2, "5", "no language"),
        (3, "6", "no title"),
        (3, "6", "no year"),
        (4, "7", "no language"),
        (4, "7", "no title"),
        (4, "7", "no year"),
        (4, "7", "no abstract"),
    ]
    assert data[report.gaps[0].byte :].startswith(silent.strip().encode())
    assert read(data) == rows


def test_damage_is_raised_after_all_that_is_readable():
    rows = medline.read(io.BytesIO(document(CUT, article("6"))), "some.xml")
    assert next(rows)["pmid"] == "6"
    with pytest.raises(ValueError, match="must be whole"):
        next(rows)


def test_several_records_without_an_end():
    pmids, rows = salvage(document(CUT, CUT, article("6"), CUT))
    assert pmids == ["6"] and [row.record for row in rows] == [1, 2, 4]


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_truncation_keeps_what_came_before(keep):
    whole = document(*(article(str(n)) for n in range(1, 301)))
    for data in (whole, gzip.compress(whole)):  # packed, much of it may stand at the end
        pmids, rows = salvage(data[: int(len(data) * keep)])
        assert pmids == [str(n) for n in range(1, len(pmids) + 1)] and 1 <= len(rows) <= 2
        assert data is not whole or len(pmids) > 290 * keep
    pmids, rows = salvage(whole[: whole.rindex(b"</PubmedArticleSet")])
    assert len(pmids) == 300 and "before its root" in rows[0].what


def test_foreign_files():
    for data in (b"<html/>", b"", b"not gzip at all", b"\x1f\x8b", b"<PubmedArticleSet/>"):
        with pytest.raises(ValueError, match=r"other\.xml"):
            read(data, "other.xml")


def test_a_file_of_deletions_only_is_whole():
    assert len(read(document(DELETED))) == 2


@pytest.mark.parametrize("name", ["latin-1", "utf-16", "windows-1252"])
def test_the_declared_encoding_is_used(name):
    text = document(article(title="Café"), head=f'<?xml version="1.0" encoding="{name}"?>')
    assert read(text.decode().encode(name))[0]["title"] == "Café"


def test_entities_are_not_expanded_and_no_file_is_opened(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    bomb = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 20))
    file = f'<!ENTITY f SYSTEM "{secret.as_uri()}"><!ENTITY % p SYSTEM "{secret.as_uri()}">%p;'
    head = f'<!DOCTYPE x [<!-- ]> --><!ENTITY a0 "<PubmedArticle/>">{bomb}{file}]>'
    texts = [f"<AbstractText>&{name};</AbstractText>" for name in ("a19", "f", "#945")]
    data = document(*(article(str(n), text) for n, text in enumerate(texts, 1)), head=head)
    began = time.process_time()
    pmids, rows = salvage(data)
    assert time.process_time() - began < 1
    assert pmids == ["3"] and "declarations of its own" in rows[0].what
    assert [(row.pmid, row.what[:6]) for row in rows[1:]] == [("1", "Entity"), ("2", "Entity")]
    with pytest.raises(ValueError, match="Entity"):
        read(data)


def test_the_real_doctype_is_no_damage():
    public = '"-//NLM//DTD PubMedArticle, 1st January 2019//EN" "https://dtd.nlm.nih.gov/x.dtd"'
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet PUBLIC {public}>\n'
    assert len(read(document(article(), head=head))) == 1


def test_a_record_that_is_too_large_is_left_out(monkeypatch):
    monkeypatch.setattr(medline, "LARGEST", 1 << 20)
    huge = article("5", "<AbstractText>" + "long " * 1_000_000 + "</AbstractText>")
    pmids, (row,) = salvage(document(article("4"), huge, article("6")))
    assert pmids == ["4", "6"] and row.pmid == "5" and "larger than 1,048,576" in row.what


@pytest.mark.parametrize(
    "evil",
    [
        b"<PubmedArticle>" * 100_000,
        b"<PubmedArticle>" * 100_000 + b"</PubmedArticle>",
        b"<PubmedArticle><!--</PubmedArticle>" * 3_000,
        b"<!-- " * 20_000,
        b"<!DOCTYPE x [" + b"<!-- a -->" * 3_000,
        b"<" * 300_000,
        b"<a " * 100_000,
    ],
)
def test_no_file_can_make_reading_slow(evil):
    began = time.process_time()
    pmids, rows = salvage(evil)
    assert pmids == [] and rows and time.process_time() - began < 4


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
def test_memory_does_not_grow_with_the_file():
    code = (
        "import io, sys\n"
        "from mediswift import medline\n"
        "from mediswift.damage import Report\n"
        "class Endless(io.RawIOBase):\n"
        "    left = int(sys.argv[1])\n"
        "    def read(self, size=-1):\n"
        "        self.left -= 1\n"
        "        return RECORDS if self.left >= 0 else b''\n"
        "RECORDS = sys.argv[2].encode() * 100\n"
        "rows = medline.read(Endless(), 'some.xml', Report())\n"
        "count = sum(1 for _ in rows)\n"
        "import re  # ru_maxrss would be that of pytest, which started this process\n"
        "print(count, re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )

    def measure(pieces: int) -> tuple[int, int]:
        command = [sys.executable, "-c", code, str(pieces), article()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return tuple(map(int, done.stdout.split()))

    (few, small), (many, large) = measure(20), measure(200)
    assert (few, many) == (2_000, 20_000)
    assert large - small < 4 * 1024  # kilobytes


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
texts = words.map(lambda text: " ".join(text.split())).filter(
    lambda text: not set(text) & {"\ufffe", "\uffff"}
)
known = st.fixed_dictionaries(
    {
        "pmid": st.integers(1, 10**8).map(str),
        "version": st.integers(1, 9),
        "title": texts,
        "sections": st.lists(st.tuples(st.sampled_from(["", "AIM", "A & B"]), texts), max_size=3),
        "year": st.integers(1000, 9999).map(str),
        "language": st.sampled_from(["eng", "fre"]),
    }
)


def write(citation: dict) -> str:
    quoted = {'"': "&quot;"}
    sections = "".join(
        f'<AbstractText Label="{escape(label, quoted)}">{escape(text)}</AbstractText>'
        for label, text in citation["sections"]
    )
    return article(**citation | {"abstract": sections, "title": escape(citation["title"])})


def expected(citation: dict) -> dict:
    sections = [[label, text] for label, text in citation["sections"] if label or text]
    return citations.blank() | citation | {"sections": sections}


@settings(max_examples=40, deadline=None)
@given(st.lists(known, min_size=1, max_size=5), st.sampled_from(["utf-8", "utf-16"]), st.booleans())
def test_any_citations_survive_writing_and_reading(many, encoding, is_packed):
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    data = document(*map(write, many), head=head).decode().encode(encoding)
    assert read(gzip.compress(data) if is_packed else data) == list(map(expected, many))


WHOLE = document(*(article(str(n), title=f"Title {n}.") for n in range(1, 13)), DELETED)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_one_wrong_byte_takes_at_most_its_record_and_a_neighbor(place, change):
    data = bytearray(WHOLE)
    data[place] ^= change
    report = Report()
    found = list(medline.read(io.BytesIO(bytes(data)), "some.xml", report))
    right = [row for row in read(WHOLE) if row in found]
    assert len(right) >= 10
    assert report.damaged or len(found) >= 14 or place < WHOLE.index(b"<PubmedArticle>")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_of_the_packed_bytes_is_reported(data):
    packed = bytearray(gzip.compress(WHOLE))
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        packed[data.draw(st.integers(10, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    report = Report()
    found = list(medline.read(io.BytesIO(bytes(packed)), "some.xml", report))
    assert report.damaged or found == read(WHOLE)  # a few bits of a stream are never read


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
def test_no_bytes_crash_the_reader(noise, place):
    report = Report()
    data = WHOLE[:place] + noise + WHOLE[place:]
    list(medline.read(io.BytesIO(data), "some.xml", report))
    list(medline.read(io.BytesIO(noise), "some.xml", report))
    assert report.damaged
