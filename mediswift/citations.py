"""One `<PubmedArticle>` as plain values: text with its labels, year, language, MeSH, copyright.

Decisions. Inline markup (`<i>`, `<sup>`, MathML) is flattened: its text stays, its tags go. What is
missing is "" or an empty list, since old citations lack nearly everything. Only the main abstract
is read; `OtherAbstract` repeats it in another language or for another public.
Refused: guesses. A year is four digits that stand in the citation, or "".
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

_YEAR = re.compile(r"\d{4}")
_DATES = ("Journal/JournalIssue/PubDate/Year", "Journal/JournalIssue/PubDate/MedlineDate")
_DATES += ("ArticleDate/Year",)


def blank() -> dict[str, Any]:
    """A citation of which nothing is known. Versions of one article count from 1.

    >>> blank()["sections"]
    []
    """
    empty = dict.fromkeys(("title", "year", "language", "copyright"), "")
    return {"pmid": "", "version": 1, "deleted": False} | empty | {"sections": [], "mesh": []}


def read(element: etree._Element) -> dict[str, Any]:
    """Fields of a `<PubmedArticle>` element, or of its `<MedlineCitation>`.

    `pmid`, `version`, `title`, `year` of the issue (of the e-print if it has none), `language`
    (NLM's three letters, "eng fre" if several); `sections`: `[label, text]`, the label "" where
    there is none, the text "" under a bare heading ("LEVEL OF EVIDENCE: 4"); `mesh`: a dict a
    heading, with `ui`, `name`, `major` and `qualifiers` of the same form; `copyright`: the
    publisher's note; `deleted`: False.
    Source: the PubMed DTD, https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_190101.dtd.

    >>> xml = "<PubmedArticle><MedlineCitation><PMID>7</PMID><Article><ArticleTitle>On H<sub>2"
    >>> xml += "</sub>O.</ArticleTitle></Article></MedlineCitation></PubmedArticle>"
    >>> read(etree.fromstring(xml))["title"]
    'On H2O.'
    """
    citation = element if element.tag == "MedlineCitation" else element.find("MedlineCitation")
    if citation is None:
        return blank()
    article = citation.find("Article")
    headings = citation.find("MeshHeadingList")
    found = blank() | read_pmid(citation.find("PMID"))
    found["mesh"] = [] if headings is None else list(map(_heading, headings))
    return found if article is None else found | _read_article(article)


def read_pmid(node: etree._Element | None) -> dict[str, Any]:
    """`pmid` and `version` of a `<PMID>` element; without a number of its own, version 1.

    >>> read_pmid(etree.fromstring('<PMID Version="2">17</PMID>'))
    {'pmid': '17', 'version': 2}
    """
    version = "" if node is None else node.get("Version", "")
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 5 else 1
    return {"pmid": text(node).lstrip("0"), "version": max(number, 1)}


def text(node: etree._Element | None) -> str:
    """All text inside, tags dropped, runs of whitespace made one space.

    >>> text(etree.fromstring("<p>p &lt; <i>0.05</i>,  all</p>"))
    'p < 0.05, all'
    """
    if node is None:
        return ""
    return " ".join(("".join(node.itertext()) if len(node) else node.text or "").split())


def _read_article(article: etree._Element) -> dict[str, Any]:
    abstract = article.find("Abstract")
    return {
        "title": text(article.find("ArticleTitle")),
        "sections": [] if abstract is None else _sections(abstract),
        "year": _year(article),
        "language": " ".join(map(text, article.iterfind("Language"))),
        "copyright": "" if abstract is None else text(abstract.find("CopyrightInformation")),
    }


def _sections(abstract: etree._Element) -> list[list[str]]:
    nodes = abstract.findall("AbstractText")
    if not nodes:  # before 2008 some files had the text right inside
        bare = text(abstract).removesuffix(text(abstract.find("CopyrightInformation"))).strip()
        return [["", bare]] if bare else []
    return [section for section in map(_section, nodes) if any(section)]


def _section(node: etree._Element) -> list[str]:
    label = node.get("Label", "").strip()
    return ["" if label.upper() == "UNLABELLED" else label, text(node)]


def _heading(node: etree._Element) -> dict[str, Any]:
    """One MeSH heading: the descriptor, and what narrows it."""
    terms = [_term(term) for term in node]
    first = terms[0] if terms else {"ui": "", "name": "", "major": False}
    return first | {"qualifiers": terms[1:]}


def _term(node: etree._Element) -> dict[str, Any]:
    major = node.get("MajorTopicYN") == "Y"
    return {"ui": node.get("UI", ""), "name": text(node), "major": major}


def _year(article: etree._Element) -> str:
    """The first four digits in the issue's date ("1998 Dec-1999 Jan"), or in the e-print's."""
    dates = (_YEAR.search(text(article.find(path))) for path in _DATES)
    return next((date[0] for date in dates if date), "")
