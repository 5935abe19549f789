"""Citations out of NLM's MEDLINE/PubMed XML: yearly baseline, daily updates, PubMed's own export.

Decisions. Records are cut out of the bytes one by one, at their tags, and only then parsed. So
memory is flat, a damaged record takes no other with it, and what nobody asked for is not parsed:
a large part of a new file is reference lists. Where the cut is not certain (comments, CDATA, a tag
that is missing) the parser decides: a record ends at the first end tag that makes it well-formed.
Refused: entities, DTDs, the network, `huge_tree`, records above `LARGEST`. Citations need none of
them, and each is a known way for a file to attack its reader. Refused too, unless asked for:
skipping over damage, because half a corpus that looks whole is worse than none. A record whose PMID
is no number is damaged, since NLM's DTD asks for one and no version, deletion or exam would find
the article again. What else is missing is noted, and the record kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, BinaryIO

from lxml import etree

from mediswift import citations, unpack
from mediswift.damage import Report
from mediswift.window import Window

SUFFIXES = (".xml", ".xml.gz")
LARGEST = 1 << 26
"""Bytes of the largest record that is read; real ones have some thousands, a few a million."""

_TOKEN = re.compile(
    rb"<(?:!--|!DOCTYPE|\?|(PubmedArticle|PubmedBookArticle|DeleteCitation|DeleteDocument)"
    rb"(?=[\s/>]))"
)
_DOCTYPE = re.compile(  # possessive, so that no file can make it try twice
    rb"<!DOCTYPE[^\[>]*+(\[(?>\"[^\"]*+\"|'[^']*+'|<!--.*?-->|[^\]\"'])*+\]\s*+)?>", re.DOTALL
)
_GAPS = {"language": "no language", "title": "no title", "year": "no year"}
_GAPS |= {"sections": "no abstract"}
_HEAD = 1 << 16
"""Bytes within which a comment or a DOCTYPE between records must end."""
_ENDS = 8
"""End tags that are tried for one record, where some may stand in comments or CDATA."""
_TAG = re.compile(rb"</?[\w.:-]+(?:\s[^<>]*)?>")
_PMID = re.compile(rb"<PMID[^<>]*>\s*(\d{1,20})\s*<")
# NLM's DTD gives these prefixes to every file, whether the file itself declares them or not
_OPEN = (
    b'<r xmlns:mml="http://www.w3.org/1998/Math/MathML" xmlns:xlink="http://www.w3.org/1999/xlink"'
    b' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
)
_PARSER = {"resolve_entities": False, "load_dtd": False, "no_network": True, "huge_tree": False}
_PARSER |= {"remove_comments": True, "remove_pis": True}


def read(
    stream: BinaryIO,
    name: str,
    report: Report | None = None,
    parse: Callable[[etree._Element], dict[str, Any]] = citations.read,
    whole: bool = False,
) -> Iterator[dict[str, Any]]:
    """Citations and deletions of one open binary file, in its order, gzipped or not.

    A citation is what `parse` makes of it, by default `citations.read`, whose fields it must have;
    it is given the `<MedlineCitation>`, or the whole `<PubmedArticle>` if `whole`. A deletion has
    them too, all empty but `pmid`, `version` and `deleted`, which is True. Books are counted, not
    read. A `pmid` is made of digits, always.

    Without a `report`, raises ValueError for damage, after all that is readable was handed out.
    With one, the damage is written into it, and nothing is raised; and so is what a citation lacks
    of language, title, year and abstract. `name` is for both.

    >>> import io
    >>> xml = b"<Set><DeleteCitation><PMID>5</PMID></DeleteCitation></Set>"
    >>> [(row["pmid"], row["deleted"]) for row in read(io.BytesIO(xml), "pubmed26n1300.xml")]
    [('5', True)]
    """
    found = Report() if report is None else report
    yield from _Reader(stream, name, found, parse, whole).rows()
    if report is None:
        found.refuse()


def _is_plain(piece: bytes) -> bool:
    """Whether no comment, CDATA or instruction can hide a tag; single bytes are found faster."""
    return not (b"!" in piece and b"<!" in piece or b"?" in piece and b"<?" in piece)


class _Reader:
    """One file, walked from record to record; every method leaves the window where it goes on."""

    def __init__(self, stream: BinaryIO, name: str, report: Report, parse: Callable, whole: bool):
        self.name, self.report, self.parse, self.whole = name, report, parse, whole
        self.window = Window(unpack.read(stream, self.note_broken), LARGEST)
        self.parser = etree.XMLParser(**_PARSER)
        self.record = 0
        self.is_stray = self.is_broken = self.has_ended = False

    def rows(self) -> Iterator[dict[str, Any]]:
        """Citations and deletions."""
        while token := self.next_token():
            if token[1] is None:
                self.skip(token[0])
            else:
                self.record += 1
                self.is_stray = self.has_ended = False
                yield from self.take(token[1])
        if not self.record:
            self.note("it holds no <PubmedArticle>, so it is no MEDLINE file")
        elif not self.has_ended and not self.is_broken:
            self.note("it ends before its root element does")

    def note(self, what: str, ahead: int = 0, text: bytes = b"") -> None:
        """Report damage so many bytes ahead; `text` may hold a PMID."""
        pmid = _PMID.search(text)
        number = pmid[1].decode() if pmid else ""
        self.report.note(self.name, self.window.offset + ahead, self.record, number, what)

    def note_broken(self, what: str) -> None:
        """Report that the bytes end here, before their time."""
        self.is_broken = True
        self.note(what, len(self.window))

    def next_token(self) -> re.Match | None:
        """The next record, comment, instruction or DOCTYPE; None at the end of the file."""
        window = self.window
        while True:
            token = _TOKEN.search(window.data, window.place)
            until = token.start() if token else window.last_tag()
            self.pass_over(window.data[window.place : until])
            window.place = until
            if token or not window.grow():
                break
        if not token:
            self.pass_over(window.data[window.place :])
        return token

    def pass_over(self, between: bytes) -> None:
        """Tags may stand between records, text may not: then one of them has lost its start."""
        if not between or between.isspace():
            return
        self.has_ended = self.has_ended or b"</" in between
        if not self.is_stray and (rest := _TAG.sub(b"", between).strip()):
            self.is_stray = True
            seen = rest[:30].decode(errors="replace")
            self.note(f"there is text outside of any record: {seen!r}", 0, between)

    def skip(self, token: bytes) -> None:
        """Go behind a comment, an instruction or a DOCTYPE."""
        window = self.window
        if token == b"<!DOCTYPE":
            window.fill(_HEAD)
            found = _DOCTYPE.match(window.data, window.place, window.place + _HEAD)
            end = found.end() - window.place if found else -1
            if found and found[1]:
                self.note("its DOCTYPE makes declarations of its own; they are not followed")
        else:
            close = b"-->" if token == b"<!--" else b"?>"
            end = window.find(close, len(token), _HEAD)
            end += len(close) if end >= 0 else 0
        if end < 0:
            self.is_stray = True
            self.note(f"{token.decode()} has no end")
        window.place += max(end, len(token))

    def take(self, kind: bytes) -> Iterator[dict[str, Any]]:
        """Rows of the record that starts here."""
        window, close = self.window, b"</%b>" % kind
        end = window.find(close, 1)
        if end < 0:
            self.give_up(kind)
            return
        piece = window.ahead(end + len(close))
        try:
            element = self.build(piece, kind, _is_plain(piece))
        except etree.XMLSyntaxError as error:
            piece, element = self.recover(piece, kind, error)
        if element is not None:
            yield from self.make_rows(kind, element)
        window.place += len(piece)

    def build(self, piece: bytes, kind: bytes, is_plain: bool) -> etree._Element:
        """The parsed record, or as much of it as is wanted; raises XMLSyntaxError."""
        if is_plain and not self.whole and kind == b"PubmedArticle":
            # from the first start to the last end: if it were two records, it would not parse
            start, end = piece.find(b"<MedlineCitation"), piece.rfind(b"</MedlineCitation>")
            piece = piece[start : end + 18] if 0 < start < end else piece
        return etree.fromstring(b"%b%b</r>" % (_OPEN, piece), self.parser)[0]

    def recover(
        self, piece: bytes, kind: bytes, error: etree.XMLSyntaxError
    ) -> tuple[bytes, etree._Element | None]:
        """What to pass over instead of `piece`, and the record if that is one after all."""
        if not _is_plain(piece) and (longer := self.read_on(piece, kind)):
            return longer
        starts = [0, *(token.start() for token in _TOKEN.finditer(piece, 1) if token[1])]
        for index, (here, there) in enumerate(pairwise(starts)):
            self.record += index > 0
            self.note("it has no end: another record begins", here, piece[here:there])
        if len(starts) == 1:
            self.note(" ".join(str(error.msg).split())[:120], 0, piece)
            return piece, None
        return piece[: starts[-1]], None

    def read_on(self, piece: bytes, kind: bytes) -> tuple[bytes, etree._Element] | None:
        """The record up to a later end tag, if the ones before stood in comments or CDATA."""
        close, size = b"</%b>" % kind, len(piece)
        for _ in range(_ENDS):
            end = self.window.find(close, size)
            if end < 0:
                break
            size = end + len(close)
            try:
                longer = self.window.ahead(size)
                return longer, self.build(longer, kind, is_plain=False)
            except etree.XMLSyntaxError:
                continue
        return None

    def give_up(self, kind: bytes) -> None:
        """Go behind the start tag of a record whose end is not found; others may lie inside."""
        is_large = len(self.window) > LARGEST
        reason = f"it is larger than {LARGEST:,} bytes" if is_large else "it has no end"
        self.note(reason, 0, self.window.ahead(1_000))
        self.is_stray, self.is_broken = True, self.is_broken or not is_large
        self.window.place += 1 + len(kind)

    def make_rows(self, kind: bytes, element: etree._Element) -> Iterator[dict[str, Any]]:
        """One citation, or one row a deletion; books are only counted."""
        if kind == b"PubmedBookArticle":
            self.report.books += 1
        elif kind == b"PubmedArticle":
            row = self.parse(element)
            if self.has_number(row):
                self.report.citations += 1
                self.note_gaps(row)
                yield row
        else:
            for node in element.iter("PMID"):
                row = citations.blank() | citations.read_pmid(node) | {"deleted": True}
                if self.has_number(row):
                    self.report.deletions += 1
                    yield row

    def has_number(self, row: dict[str, Any]) -> bool:
        """Whether its PMID is a number; if not, that is damage."""
        pmid = row["pmid"]
        is_number = pmid.isascii() and pmid.isdigit()
        if not is_number:
            self.note(f"its PMID must be a number; got {pmid[:30]!r}")
        return is_number

    def note_gaps(self, row: dict[str, Any]) -> None:
        """Report what the record that starts here lacks."""
        for field, what in _GAPS.items():
            if not row[field]:
                place = self.name, self.window.offset, self.record
                self.report.note_gap(*place, row["pmid"], what)
