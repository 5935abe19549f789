"""What else a `<PubmedArticle>` says: who, where, by whose money, and what it cites.

Decisions. Nothing that is trained or examined here needs it, so it is read only when asked for:
`medline.read(stream, name, parse=bibliography.read, whole=True)`. Names of fields are short, and
lists stay lists.
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from mediswift import citations
from mediswift.citations import text


def read(element: etree._Element) -> dict[str, Any]:
    """All that `citations.read` gives of a `<PubmedArticle>`, and its bibliography.

    Texts: `journal`, `abbreviation`, `volume`, `issue`, `pages`, `doi`, `pmc`, `vernacular_title`,
    `nlm_id`, `issn`, `country`. Lists of texts: `keywords`, `other_ids`. Lists of dicts: `authors`
    (`last`, `first`, `initials`, `collective`, `identifiers`, `affiliations`), `types` and
    `chemicals` (`ui`, `name`), `grants` (`id`, `acronym`, `agency`, `country`), `references`
    (`citation`, `pmid`).

    >>> xml = "<PubmedArticle><MedlineCitation><PMID>7</PMID><Article><Journal><Title>Sleep</Title>"
    >>> xml += "</Journal></Article></MedlineCitation></PubmedArticle>"
    >>> read(etree.fromstring(xml))["journal"]
    'Sleep'
    """
    citation = element.find("MedlineCitation")
    citation = etree.Element("MedlineCitation") if citation is None else citation
    article = citation.find("Article")
    article = etree.Element("Article") if article is None else article
    found = citations.read(element) | _source(citation, article) | _ids(element, citation, article)
    found["keywords"] = _texts(citation, "KeywordList/Keyword")
    found["types"] = _terms(article, "PublicationTypeList/PublicationType")
    found["chemicals"] = _terms(citation, "ChemicalList/Chemical/NameOfSubstance")
    found["authors"] = list(map(_author, article.iterfind("AuthorList/Author")))
    found["grants"] = list(map(_grant, article.iterfind("GrantList/Grant")))
    found["references"] = list(map(_reference, element.iter("Reference")))
    return found


def _source(citation: etree._Element, article: etree._Element) -> dict[str, str]:
    own = {
        "journal": "Journal/Title",
        "volume": "Journal/JournalIssue/Volume",
        "issue": "Journal/JournalIssue/Issue",
        "pages": "Pagination/MedlinePgn",
        "vernacular_title": "VernacularTitle",
    }
    general = {
        "abbreviation": "MedlineJournalInfo/MedlineTA",
        "nlm_id": "MedlineJournalInfo/NlmUniqueID",
        "issn": "MedlineJournalInfo/ISSNLinking",
        "country": "MedlineJournalInfo/Country",
    }
    found = {name: text(article.find(path)) for name, path in own.items()}
    return found | {name: text(citation.find(path)) for name, path in general.items()}


def _ids(
    element: etree._Element, citation: etree._Element, article: etree._Element
) -> dict[str, Any]:
    """The article's own identifiers; those of its references lie deeper and are not meant."""
    listed = element.findall("PubmedData/ArticleIdList/ArticleId")
    ids = {node.get("IdType"): text(node) for node in listed}
    doi = [text(n) for n in article.iterfind("ELocationID") if n.get("EIdType") == "doi"]
    other = _texts(citation, "OtherID")
    pmc = ids.get("pmc", "") or next((name for name in other if "PMC" in name), "")
    return {"doi": (doi or [ids.get("doi", "")])[0], "pmc": pmc, "other_ids": other}


def _texts(element: etree._Element, path: str) -> list[str]:
    return [found for found in map(text, element.iterfind(path)) if found]


def _terms(element: etree._Element, path: str) -> list[dict[str, str]]:
    return [{"ui": n.get("UI", ""), "name": text(n)} for n in element.iterfind(path)]


def _author(node: etree._Element) -> dict[str, Any]:
    return {
        "last": text(node.find("LastName")),
        "first": text(node.find("ForeName")),
        "initials": text(node.find("Initials")),
        "collective": text(node.find("CollectiveName")),
        "identifiers": _texts(node, "Identifier"),
        "affiliations": _texts(node, "AffiliationInfo/Affiliation"),
    }


def _grant(node: etree._Element) -> dict[str, str]:
    names = {"id": "GrantID", "acronym": "Acronym", "agency": "Agency", "country": "Country"}
    return {key: text(node.find(path)) for key, path in names.items()}


def _reference(node: etree._Element) -> dict[str, str]:
    ids = {n.get("IdType"): text(n) for n in node.iterfind("ArticleIdList/ArticleId")}
    return {"citation": text(node.find("Citation")), "pmid": ids.get("pubmed", "")}
