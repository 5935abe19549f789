"""Articles out of NLM's MEDLINE/PubMed XML: yearly baseline, daily updates, PubMed's own export.

Decisions. One article at a time: a baseline file holds 30,000 citations and 200 MB of XML, so every
element is cleared once read and memory stays flat. Inline markup (`<i>`, `<sup>`, MathML) is
flattened: its text stays, its tags go. Only the main abstract is read; `OtherAbstract` repeats it
in another language or for another public.
Refused: entities, external DTDs, the network and `huge_tree`. Citations need none of them, and each
is a known way for a file to attack its reader. Refused too: skipping over damage. A file that ends
too early is an error, because half a corpus that looks whole is worse than none.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lxml import etree

SUFFIXES = (".xml", ".xml.gz")


def load_articles(path: str | Path, *, english_only: bool = True) -> Iterator[dict]:
    """Articles of a `.xml` or `.xml.gz` file, or of all those under a folder, sorted by name.

    Each is a dict: `pmid`, `title`, `year` ("" if unknown), `language` (NLM's three letters, such
    as "eng") and `sections`, a list of `[label, text]`: the label is "" where the abstract has no
    headings, the list is empty where there is no abstract. With `english_only`, articles in other
    languages are left out.

    Raises FileNotFoundError if nothing is there to read, ValueError naming the file if it is
    damaged or is no MEDLINE.
    Source: the PubMed DTD, https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_190101.dtd.

    >>> next(load_articles("pubmed21n1298.xml.gz"))["sections"]  # doctest: +SKIP
    [['BACKGROUND', 'Drugs of abuse have ...'], ['RESULTS', 'We present evidence ...']]
    """
    for file in find_files(path):
        with file.open("rb") as stream:
            yield from read_articles(stream, file.name, english_only=english_only)


def find_files(path: str | Path) -> list[Path]:
    """MEDLINE files at `path`: the file itself, or all those under the folder, sorted.

    Raises FileNotFoundError if there is no such file or folder, or no such file in the folder.
    """
    path = Path(path).expanduser()
    files = (
        sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    )
    if not files or not files[0].exists():
        raise FileNotFoundError(
            f"MEDLINE is read from a .xml or .xml.gz file, or a folder of them; {str(path)!r} is "
            "neither. Check the path, or download baseline files from NLM first."
        )
    return files


def read_articles(stream: BinaryIO, name: str, *, english_only: bool = True) -> Iterator[dict]:
    """Articles of one open binary file; gzip is recognized by `name`, which errors also mention.

    Raises ValueError if the file is damaged, or holds no article at all.
    """
    plain = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
    found = False
    try:
        for element in _elements(plain):
            found = True
            article = _article(element)
            if not english_only or "eng" in article["language"]:
                yield article
    except (EOFError, OSError, zlib.error, etree.XMLSyntaxError) as error:
        raise ValueError(
            f"a MEDLINE file must be whole: {name!r} is damaged or cut short ({error}). "
            "Download it again and compare it with the .md5 file beside it."
        ) from error
    if not found:
        raise ValueError(
            f"a MEDLINE file holds <PubmedArticle> elements; {name!r} has none. "
            "Point to NLM's baseline or update files, or to PubMed's own XML format."
        )


def _elements(stream: BinaryIO) -> Iterator[etree._Element]:
    """Every article of the file, emptied again as soon as the reader asks for the next."""
    safe = {"resolve_entities": False, "load_dtd": False, "no_network": True, "huge_tree": False}
    text_only = {"remove_comments": True, "remove_pis": True}
    for _, element in etree.iterparse(stream, tag="PubmedArticle", **safe, **text_only):
        yield element
        element.clear()
        while element.getprevious() is not None:  # the root keeps a stub of each article otherwise
            del element.getparent()[0]


def _article(element: etree._Element) -> dict:
    article = element.find("MedlineCitation/Article")
    empty = etree.Element("Article")
    article = empty if article is None else article
    return {
        "pmid": _text(element.find("MedlineCitation/PMID")),
        "title": _text(article.find("ArticleTitle")),
        "sections": [s for s in map(_section, article.iterfind("Abstract/AbstractText")) if s[1]],
        "year": _year(article),
        "language": " ".join(_text(node) for node in article.iterfind("Language")),
    }


def _section(node: etree._Element) -> list[str]:
    label = node.get("Label", "").strip()
    return ["" if label.upper() == "UNLABELLED" else label, _text(node)]


def _text(node: etree._Element | None) -> str:
    """All text inside, tags dropped, runs of whitespace made one space."""
    return "" if node is None else " ".join("".join(node.itertext()).split())


def _year(article: etree._Element) -> str:
    """Year of the issue, or first year of a free date ("1998 Dec-1999 Jan"), or of the e-print."""
    for path in (
        "Journal/JournalIssue/PubDate/Year",
        "Journal/JournalIssue/PubDate/MedlineDate",
        "ArticleDate/Year",
    ):
        for word in _text(article.find(path)).replace("-", " ").split():
            if len(word) == 4 and word.isdigit():
                return word
    return ""
