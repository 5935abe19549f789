"""What could not be read, or is missing, said so that it can be found again: file, byte, PMID.

Decisions. Damage does not stop a reader: it goes on to the end, so that one report names all of it,
and only then is the reading refused. Whoever wants the rest all the same says so, and is told what
the rest lacks. All damage is counted; of each file the first rows are kept, as a file of garbage
has as much damage as it has bytes. A field that is missing is no damage, as nothing else is lost
by it, and whole files lack some: the record stays, and what is missing is summed up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

ROWS = 100
"""Rows kept of one file; further damage is counted."""
SHOWN = 10
"""Rows that a table shows; so many are kept of one file for each field that is missing."""


@dataclass(frozen=True)
class Damage:
    """One thing wrong: `byte` and `record` count from 0 and 1, in the text as it was unpacked."""

    file: str
    byte: int
    record: int
    pmid: str
    what: str

    def __str__(self) -> str:
        """Return one line of the table."""
        return (
            f"{self.file}  {self.byte:>13,}  {self.record:>8,}  {self.pmid or '-':>9}  {self.what}"
        )


@dataclass
class Report:
    """What came out of some files: citations, deletions and books seen, all damage, all gaps.

    >>> report = Report(citations=2)
    >>> report.note("a.xml", 312, 2, "17", "it has no end")
    >>> print(report)
    2 citations, 0 deletions, 0 books; 1 damaged place
    file            byte    record       PMID  what
    a.xml            312         2         17  it has no end
    """

    citations: int = 0
    deletions: int = 0
    books: int = 0
    damaged: int = 0
    rows: list[Damage] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    gaps: list[Damage] = field(default_factory=list)

    def note(self, file: str, byte: int, record: int, pmid: str, what: str) -> None:
        """Count one damage, and keep its row if there is room."""
        self.damaged += 1
        if len(self.rows) < ROWS:
            self.rows.append(Damage(file, byte, record, pmid, what))

    def note_gap(self, file: str, byte: int, record: int, pmid: str, what: str) -> None:
        """Count one record that is kept and lacks something, "no title"; keep the first rows."""
        self.missing[what] = self.missing.get(what, 0) + 1
        if self.missing[what] <= SHOWN:
            self.gaps.append(Damage(file, byte, record, pmid, what))

    def tell_gaps(self) -> str:
        """Sums of what is missing, and a table that begins with the rarest; "" if nothing is.

        >>> report = Report(citations=2)
        >>> report.note_gap("a.xml", 312, 2, "17", "no title")
        >>> print(report.tell_gaps().splitlines()[0])
        2 citations, of which 1 has no title; none is left out for it, what is missing is empty
        """
        if not self.missing:
            return ""
        sums = sorted(self.missing.items(), key=lambda item: item[1])
        words = ", ".join(f"{n:,} {'has' if n == 1 else 'have'} {what}" for what, n in sums)
        kept = "none is left out for it, what is missing is empty"
        rows = sorted(self.gaps, key=lambda row: self.missing[row.what])
        table = _table(rows, sum(self.missing.values()))
        return "\n".join([f"{self.citations:,} citations, of which {words}; {kept}", *table])

    def refuse(self) -> None:
        """Do nothing if all was whole. Raises ValueError with the table and the ways out if not."""
        if self.damaged:
            raise ValueError(
                f"a MEDLINE file must be whole; here it is not. {self}\nDownload what is named "
                "again and compare it with the .md5 file beside it. To go on with the rest, and "
                "without what is named here, read it by the address salvage:PATH, or give "
                "mediswift.mirror --salvage."
            )

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the counts, and a table of the damage."""
        places = "place" if self.damaged == 1 else "places"
        counts = f"{self.citations:,} citations, {self.deletions:,} deletions, {self.books:,} books"
        if not self.damaged:
            return f"{counts}; no damage"
        first = f"{counts}; {self.damaged:,} damaged {places}"
        return "\n".join([first, *_table(self.rows, self.damaged)])


def _table(rows: list[Damage], count: int) -> list[str]:
    """Lines: a head, the first rows, and how many of so many there are besides."""
    width = max((len(row.file) for row in rows), default=4)
    head = f"{'file':<{width}}  {'byte':>13}  {'record':>8}  {'PMID':>9}  what"
    more = count - len(rows[:SHOWN])
    return [head, *map(str, rows[:SHOWN])] + [f"... and {more:,} more"] * (more > 0)


def from_dict(content: dict[str, Any]) -> Report:
    """Report from `Report.as_dict`.

    >>> from_dict(Report(citations=3).as_dict()).citations
    3
    """
    lists = {name: [Damage(**row) for row in content[name]] for name in ("rows", "gaps")}
    return Report(**content | lists)


def total(reports: Iterable[Report]) -> Report:
    """All of them as one: the sums, and the rows one after the other.

    >>> total([Report(citations=3), Report(citations=4)]).citations
    7
    """
    found = list(reports)
    names = ("citations", "deletions", "books", "damaged")
    sums = {name: sum(getattr(report, name) for report in found) for name in names}
    rows, gaps = ([row for report in found for row in getattr(report, n)] for n in ("rows", "gaps"))
    missing = sum((Counter(report.missing) for report in found), Counter())
    return Report(**sums, rows=rows, missing=dict(missing), gaps=gaps)
