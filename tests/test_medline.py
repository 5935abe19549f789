"""MEDLINE XML: a worked example, then damage and malice."""

import gzip
import io

import pytest

from mediswift import medline

ARTICLE = """
<PubmedArticle><MedlineCitation><PMID Version="1">{pmid}</PMID><Article>
  <Journal><JournalIssue><PubDate>{date}</PubDate></JournalIssue></Journal>
  <ArticleTitle>Effect of H<sub>2</sub>O on
     <i>E. coli</i>.</ArticleTitle>
  <Abstract>{abstract}</Abstract><Language>{language}</Language>
</Article></MedlineCitation></PubmedArticle>"""


def article(pmid="1", date="<Year>2001</Year>", language="eng", abstract=None) -> str:
    abstract = "<AbstractText>It grows.</AbstractText>" if abstract is None else abstract
    return ARTICLE.format(pmid=pmid, date=date, language=language, abstract=abstract)


def document(*articles: str, head: str = "") -> bytes:
    return f"{head}<PubmedArticleSet>{''.join(articles)}</PubmedArticleSet>".encode()


def read(data: bytes, name: str = "some.xml", **options) -> list[dict]:
    return list(medline.read_articles(io.BytesIO(data), name, **options))


def test_worked_example():
    abstract = (
        '<AbstractText Label="AIM">To test <b>p&lt;0.05</b>.<!-- no --></AbstractText>'
        '<AbstractText Label="UNLABELLED">All  &#945;.</AbstractText><AbstractText/>'
        "<CopyrightInformation>Not ours</CopyrightInformation>"
    )
    date = "<MedlineDate>1998 Dec-1999 Jan</MedlineDate>"
    assert read(document(article("17", date, "eng", abstract))) == [
        {
            "pmid": "17",
            "title": "Effect of H2O on E. coli.",
            "sections": [["AIM", "To test p<0.05."], ["", "All α."]],
            "year": "1998",
            "language": "eng",
        }
    ]


def test_english_only_by_option():
    data = document(article("1", language="fre"), article("2"))
    assert [a["pmid"] for a in read(data)] == ["2"]
    assert [a["pmid"] for a in read(data, english_only=False)] == ["1", "2"]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.xml").write_bytes(document(article("2")))
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(document(article("1"), article("3"))))
    (tmp_path / "a.xml.gz.md5").write_text("not XML")
    assert [a["pmid"] for a in medline.load_articles(tmp_path)] == ["1", "3", "2"]
    assert [a["pmid"] for a in medline.load_articles(tmp_path / "b.xml")] == ["2"]


def test_missing_path_and_empty_folder(tmp_path):
    for path in (tmp_path / "none.xml.gz", tmp_path):
        with pytest.raises(FileNotFoundError, match="MEDLINE is read from"):
            list(medline.load_articles(path))


def test_no_abstract_no_language_no_year():
    bare = "<PubmedArticle><MedlineCitation><PMID>5</PMID></MedlineCitation></PubmedArticle>"
    (only,) = read(document(bare), english_only=False)
    assert only == {"pmid": "5", "title": "", "sections": [], "year": "", "language": ""}


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_truncation_is_an_error_that_names_the_file(keep):
    whole = document(*(article(str(n)) for n in range(300)))
    packed = gzip.compress(whole)
    for data, name in ((packed, "cut.xml.gz"), (whole, "cut.xml")):
        with pytest.raises(ValueError, match=f"'{name}' is damaged or cut short"):
            read(data[: int(len(data) * keep)], name)


def test_damaged_bytes_and_foreign_files():
    broken = bytearray(gzip.compress(document(*(article(str(n)) for n in range(300)))))
    broken[len(broken) // 2] ^= 0xFF
    with pytest.raises(ValueError, match="bad.xml.gz"):
        read(bytes(broken), "bad.xml.gz")
    with pytest.raises(ValueError, match="damaged"):
        read(b"not gzip at all", "bad.xml.gz")
    with pytest.raises(ValueError, match="'other.xml' has none"):
        read(b"<html/>", "other.xml")


def test_entities_and_files_are_not_expanded(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    head = f'<!DOCTYPE x [<!ENTITY a "boom"><!ENTITY f SYSTEM "{secret.as_uri()}">]>'
    text = "<AbstractText>&a;&f; safe</AbstractText>"
    (only,) = read(document(article(abstract=text), head=head))
    assert "boom" not in str(only) and "the secret" not in str(only) and "safe" in str(only)


def test_memory_stays_flat_because_the_tree_is_emptied_while_reading():
    data = document(*(article(str(n)) for n in range(50)))
    for count, element in enumerate(medline._elements(io.BytesIO(data))):
        last = element.getprevious()
        assert (last is None) == (count == 0)
        assert last is None or (len(last) == 0 and last.getprevious() is None)
