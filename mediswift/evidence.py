"""Questions with doctors' labels: the prompts of Evidence Inference 2.0 about randomized trials.

Decisions. A prompt asks what an intervention, compared with another, did to an outcome; doctors
answered from the article. Significant in either direction is "yes" to "does it change the
outcome?", no significant difference is "no". Kept are prompts on which all valid answers agree, and
one prompt an article, chosen by a hash, so that a PMID stays the name of one question. The outcome
must be named in what the model will read.
Source: DeYoung et al. 2020, "Evidence Inference 2.0: More Data, Better Models" (MIT license).
"""

import csv
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mediswift.documents import read_objects
from mediswift.statements import Asked, is_plural, lower_first, verbs

FILES = ("prompts_merged.csv", "v2_annotations.csv")
_LABELS = {"no significant difference": "no"} | dict.fromkeys(
    ("significantly increased", "significantly increase", "significantly decreased"), "yes"
)
_SMALL = set("of in at the a and to for from with by on or after per rate score level".split())

Prompt = Mapping[str, str]


def load(folder: str | Path, articles: str | Path) -> dict[str, list[tuple[Prompt, str]]]:
    """{PMID: [(prompt, label)]}, prompts of one article in an order that a hash decides.

    A prompt has the fields `PromptID`, `PMCID`, `Outcome`, `Intervention`, `Comparator`. It names
    its article by PMC number; `articles` is a file of JSON lines with `pmid` and `pmcid` that
    tells the PMID. Raises FileNotFoundError without the files, ValueError for a label that is none
    of the four.
    """
    prompts, answers = (_rows(Path(folder) / name) for name in FILES)
    said = defaultdict(set)
    for row in answers:
        if row["Valid Label"] == "True":
            said[row["PromptID"]].add(_label(row))
    pmids, found = _pmids(Path(articles)), defaultdict(list)
    for row in sorted(prompts, key=lambda row: zlib.crc32(row["PromptID"].encode())):
        pmid, labels = pmids.get(row["PMCID"]), said.get(row["PromptID"], ())
        if pmid and len(labels) == 1:
            found[pmid].append((row, next(iter(labels))))
    return dict(found)


def ask(prompts: Sequence[tuple[Prompt, str]], contexts: str) -> Asked | None:
    """The question of the first prompt whose outcome the contexts name, or None.

    >>> prompt = {"Intervention": "Zinc", "Comparator": "placebo", "Outcome": "Duration of colds"}
    >>> ask([(prompt, "no")], "Colds had a duration of seven days.").question
    'Does zinc, compared with placebo, change duration of colds?'
    """
    for prompt, label in prompts:
        texts = [_plain(prompt[name]) for name in ("Intervention", "Comparator", "Outcome")]
        if (
            all(texts)
            and not _acts(texts[0])
            and max(map(len, texts)) <= 120
            and _is_named(texts[2], contexts)
        ):
            what, than, outcome = (lower_first(text) for text in texts)
            front = "Do" if is_plural(what) else "Does"
            question = f"{front} {what}, compared with {than}, change {outcome}?"
            return Asked(question, label, "trial")
    return None


def _plain(text: str) -> str:
    """One line, without the size of a group: "zinc (n = 12)"."""
    return " ".join(re.sub(r"\(\s*n\s*=[^)]*\)", "", text).split()).rstrip(".;, ")


def _acts(text: str) -> bool:
    """Whether an intervention is told as a deed ("receive zinc"), which no "does" can go with."""
    first = text.split()[0].lower()
    return first in verbs() and verbs()[first][0] == first and verbs()[first][1] < 0.05


def _is_named(outcome: str, contexts: str) -> bool:
    """Whether the contexts hold two thirds of the outcome's words, or all of one or two."""
    words = set(re.findall(r"[a-z][a-z0-9-]+", outcome.lower())) - _SMALL
    text = contexts.lower()
    hits = sum(word.rstrip("s") in text for word in words)
    return bool(words) and hits >= max(min(2, len(words)), 2 * len(words) / 3)


def _label(row: Mapping[str, str]) -> str:
    if row["Label"] not in _LABELS:
        raise ValueError(
            f"a label is one of {', '.join(_LABELS)}; prompt {row['PromptID']} has "
            f"{row['Label']!r}. Use the files of Evidence Inference 2.0."
        )
    return _LABELS[row["Label"]]


def _pmids(articles: Path) -> dict[str, str]:
    """{PMC number: PMID}."""
    records = read_objects(articles)
    pairs = ((str(r.get("pmcid") or ""), str(r.get("pmid") or "")) for r in records)
    return {pmc.removeprefix("PMC"): pmid for pmc, pmid in pairs if pmc and pmid}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"Evidence Inference is a folder with {' and '.join(FILES)}; {str(path)!r} is no file."
        )
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
