"""What could not be read, said so that it can be found again: file, record, byte, PMID, reason.

Decisions. Damage does not stop a reader: it goes on to the end, so that one report names all of it,
and only then is the reading refused. Whoever wants the rest all the same says so, and is told what
the rest lacks. All damage is counted; of each file the first rows are kept, as a file of garbage
has as much damage as it has bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

ROWS = 100
"""Rows kept of one file; further damage is counted."""
SHOWN = 10


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
    """What came out of some files: citations, deletions and books seen, and all damage.

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

    def note(self, file: str, byte: int, record: int, pmid: str, what: str) -> None:
        """Count one damage, and keep its row if there is room."""
        self.damaged += 1
        if len(self.rows) < ROWS:
            self.rows.append(Damage(file, byte, record, pmid, what))

    def refuse(self) -> None:
        """Do nothing if all was whole. Raises ValueError with the table and the ways out if not."""
        if self.damaged:
            raise ValueError(
                f"a MEDLINE file must be whole; here it is not. {self}\nDownload what is named "
                "again and compare it with the .md5 file beside it. To go on with the rest, and "
                "without what is named here, read it by the address salvage:PATH."
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
        width = max((len(row.file) for row in self.rows), default=4)
        head = f"{'file':<{width}}  {'byte':>13}  {'record':>8}  {'PMID':>9}  what"
        more = self.damaged - len(self.rows[:SHOWN])
        lines = [f"{counts}; {self.damaged:,} damaged {places}", head, *map(str, self.rows[:SHOWN])]
        return "\n".join(lines + [f"... and {more:,} more"] * (more > 0))


def from_dict(content: dict[str, Any]) -> Report:
    """Report from `Report.as_dict`.

    >>> from_dict(Report(citations=3).as_dict()).citations
    3
    """
    return Report(**content | {"rows": [Damage(**row) for row in content["rows"]]})


def total(reports: Iterable[Report]) -> Report:
    """All of them as one: the sums, and the rows one after the other.

    >>> total([Report(citations=3), Report(citations=4)]).citations
    7
    """
    found = list(reports)
    names = ("citations", "deletions", "books", "damaged")
    sums = {name: sum(getattr(report, name) for report in found) for name in names}
    return Report(**sums, rows=[row for report in found for row in report.rows])
