"""Whether two readers of MEDLINE find the same: ours and `pubmed_parser`, field by field.

Decisions: the peer is optional (`pip install "mediswift[peers]"`), imported where it is used. A
field is lost where the peer's text is not part of ours, letter after letter, spaces aside. Where
ours has more, the peer dropped nested markup, all but one affiliation, or the like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mediswift import bibliography, medline

OPTIONS = {"parse_downto_mesh_subterms": True, "author_list": True, "reference_list": True}
"""Of the peer: to keep all it can."""


def theirs(path: str | Path, **options: bool) -> Iterator[dict[str, Any]]:
    """Citations as the peer reads them. Raises ModuleNotFoundError without `pubmed_parser`."""
    from pubmed_parser import parse_medline_xml

    return parse_medline_xml(str(path), **options)


def ours(path: str | Path) -> Iterator[dict[str, Any]]:
    """Citations and deletions as a corpus needs them."""
    with Path(path).open("rb") as stream:
        yield from medline.read(stream, Path(path).name)


def everything(path: str | Path) -> Iterator[dict[str, Any]]:
    """The same with the bibliography: all that the peer keeps."""
    with Path(path).open("rb") as stream:
        yield from medline.read(stream, Path(path).name, parse=bibliography.read, whole=True)


def their_fields(row: dict[str, Any]) -> dict[str, str]:
    """What the peer keeps of a citation, a text a field, read with `OPTIONS`."""
    names = ("pmid", "title", "journal", "pages", "doi", "languages", "country")
    names += ("vernacular_title", "medline_ta", "nlm_unique_id", "issn_linking", "keywords")
    people = ("lastname", "forename", "initials", "identifier", "affiliation")
    money = ("grant_id", "grant_acronym", "agency", "country")
    return {name: row[name] or "" for name in names} | {
        "year": row["pubdate"],
        "abstract": row["abstract"].replace("UNLABELLED", ""),  # NLM's word for no label
        "mesh_terms": row["mesh_terms"].replace("*", ""),
        "issue": row["issue"],
        "other_id": _listed([row["pmc"], *row["other_id"].split("; ")]),
        "publication_types": row["publication_types"],
        "chemicals": row["chemical_list"],
        "authors": _joined(row["authors"], people),
        "grants": _joined(row["grant_ids"], money),
        "references": _joined(row["references"], ("citation", "pmid")),
    }


def our_fields(row: dict[str, Any]) -> dict[str, str]:
    """The same fields of `everything`, in the peer's form."""
    mesh = [[heading, *heading["qualifiers"]] for heading in row["mesh"]]
    alike = {"medline_ta": "abbreviation", "nlm_unique_id": "nlm_id", "issn_linking": "issn"}
    same = ("pmid", "title", "journal", "pages", "doi", "country", "vernacular_title", "year")
    people = ("last", "first", "initials", "identifiers", "affiliations")
    return {name: row[alike.get(name, name)] for name in (*same, *alike)} | {
        "abstract": "".join(label + text for label, text in row["sections"]),
        "languages": row["language"].replace(" ", ";"),
        "keywords": "; ".join(row["keywords"]),
        "mesh_terms": "; ".join(" / ".join(map(_named, heading)) for heading in mesh),
        "issue": f"{row['volume']}({row['issue']})" if row["volume"] else "",
        "other_id": _listed(row["other_ids"]),
        "publication_types": "; ".join(map(_named, row["types"])),
        "chemicals": "; ".join(map(_named, row["chemicals"])),
        "authors": _joined(row["authors"], people),
        "grants": _joined(row["grants"], ("id", "acronym", "agency", "country")),
        "references": _joined(row["references"], ("citation", "pmid")),
    }


def agreement(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows, one a field: citations in which it is equal, in which ours has more, and is lost."""
    counts: dict[str, dict[str, int]] = {}
    for file in files:
        kept = (row for row in everything(file) if not row["deleted"])
        for their, our in zip(theirs(file, **OPTIONS), kept, strict=True):
            our = our_fields(our)
            for field, text in their_fields(their).items():
                found = counts.setdefault(field, {"equal": 0, "more": 0, "lost": 0})
                found[compare(text, our[field])] += 1
    return [{"field": field} | found for field, found in counts.items()]


def compare(their: str, our: str) -> str:
    """`equal`, `more` if all letters of theirs stand in ours in their order, else `lost`.

    >>> compare("On  H O.", "On H2O."), compare("On H2O.", "On H O.")
    ('more', 'lost')
    """
    their, our = "".join(their.split()), "".join(our.split())
    letters = iter(our)
    return "equal" if their == our else "more" if all(c in letters for c in their) else "lost"


def _joined(rows: list[dict[str, Any]], names: Sequence[str]) -> str:
    values = [row[name] or "" for row in rows for name in names]
    return "".join("".join(value) if isinstance(value, list) else value for value in values)


def _listed(names: list[str]) -> str:
    return "; ".join(sorted(filter(None, names)))


def _named(term: dict[str, Any]) -> str:
    return f"{term['ui']}:{term['name']}"
