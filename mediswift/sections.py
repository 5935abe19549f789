"""The sections of an abstract, and which of them is the conclusion.

Decisions. An abstract comes as text with a section a line, "LABEL: text" (see `documents`), or with
its headings inside a line, as many exports have it: both are read. A heading is one of the words
that journals use (`_STEMS`), so that a colon in a sentence is none. Registrations, funding and the
like are neither context nor conclusion, and go.
"""

import re
from typing import NamedTuple

_STEMS = (
    "background introduction context rationale aim objective purpose hypothesis goal importance "
    "method material design setting patient participant subject sample population intervention "
    "measure outcome procedure result finding observation conclu interpretation discussion "
    "limitation summary case significance implication relevance data analys presentation main "
    "registration funding supplementary conflict keyword evidence slides"
).split()
_CONCLUSION = re.compile(r"conclu|interpretation", re.IGNORECASE)
_MIXED = re.compile(r"result|finding|discussion|method", re.IGNORECASE)
_ASIDE = re.compile(
    r"registration|funding|supplementary|conflict|keyword|level of evidence|virtual slides|"
    r"competing|registry|abbreviation",
    re.IGNORECASE,
)
_HEADING = re.compile(r"(?:^|(?<=[.;!?)\]] ))([A-Z][A-Za-z][A-Za-z ,/&()'-]{1,58}?): +(?=\S)")
_SENTENCE = re.compile(r"(?<=[a-z\d)\]%][.!?])\s+(?=[A-Z])")


class Parts(NamedTuple):
    """An abstract cut in two: what was done and found, and what follows from it."""

    contexts: list[str]
    section_labels: list[str]
    conclusion: str


def read(abstract: str) -> list[tuple[str, str]]:
    """Sections (label, text) in their order; the label is "" where there is no heading.

    >>> read("AIM: To rest. METHODS: We did: twice.")
    [('AIM', 'To rest.'), ('METHODS', 'We did: twice.')]
    """
    found = []
    for line in abstract.split("\n"):
        pieces = [m for m in _HEADING.finditer(line) if _is_heading(m[1])]
        ends = [*(m.start() for m in pieces), len(line)]
        found.append(("", line[: ends[0]].strip()))
        for piece, end in zip(pieces, ends[1:], strict=True):
            found.append((piece[1].strip(), line[piece.end() : end].strip()))
    return [(label, text) for label, text in found if text]


def cut(abstract: str, *, last_sentence: bool = False) -> Parts | None:
    """Contexts and conclusion, or None where there is no conclusion, or nothing before it.

    With `last_sentence`, the last sentence of an abstract that has no headings is its conclusion.

    >>> cut("AIM: To rest. CONCLUSION: Rest is good.")
    Parts(contexts=['To rest.'], section_labels=['AIM'], conclusion='Rest is good.')
    >>> cut("We rested. We slept. Rest is good.", last_sentence=True).conclusion
    'Rest is good.'
    """
    sections = [pair for pair in read(abstract) if not _ASIDE.search(pair[0])]
    ends = [text for label, text in sections if _concludes(label)]
    rest = [(label, text) for label, text in sections if not _concludes(label)]
    if last_sentence and not any(label for label, _ in sections) and sections:
        *before, last = _SENTENCE.split(sections[-1][1])
        rest, ends = [*sections[:-1], ("", " ".join(before))], [last] if len(before) > 1 else []
    if not ends or not rest or not all(text for _, text in rest):
        return None
    labels, contexts = map(list, zip(*rest, strict=True))
    return Parts(contexts, labels, " ".join(ends))


def _is_heading(label: str) -> bool:
    """Whether a journal's heading: its words begin with a stem, or it is written in capitals."""
    words = re.findall(r"[a-z]+", label.lower())
    known = any(word.startswith(stem) for word in words for stem in _STEMS)
    return known and (label.isupper() or len(words) <= 6)


def _concludes(label: str) -> bool:
    """Whether the section says what follows, and nothing else."""
    return bool(_CONCLUSION.search(label)) and not (
        _MIXED.search(label) and not re.search("discussion", label, re.IGNORECASE)
    )
