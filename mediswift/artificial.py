"""PQA-A and PQA-U made from MEDLINE: questions of our own, each with its source, rule and PMID.

Decisions. One document gives one question at most, by the first rule that fits: a title that asks
("question", no label: PQA-U), a trial that doctors judged ("trial"), a title that states
("statement", and "hedged" with a "may"), a title "Effect of X on Y" ("effect"). The conclusion is
the long answer, the rest of the abstract the context. As in Jin et al. (2019) the abstract must
have sections; `last_sentence` takes the last sentence of one without, which gives several times as
many, but that sentence is often no conclusion, so it is off by default. PubMedQA's labeled PMIDs,
copies of their abstracts, and questions asked before never get in. A document without a PMID could
not be checked so, and is left out, unless `without_pmid` asks for it under a name made of its text.
Refused: balancing here. What is there is written; the trainer chooses.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from mediswift import contamination, evidence, polarity, records, sections, statements
from mediswift.questions import ANSWERS, RULED, to_official

RULES = ("statement", "hedged", "effect", "trial", "question")
PARTS = ("artificial", "unlabeled")
_LONGEST = 12_000
"""Characters of an abstract; more is an article's body."""
Item = dict[str, Any]


def build(
    documents: Dataset,
    tag: statements.Tag,
    *,
    trials: Mapping[str, list] | None = None,
    exam: Iterable[str] = (),
    last_sentence: bool = False,
    without_pmid: bool = False,
) -> tuple[list[Item], Counter]:
    """Items of both parts in the documents' order, and counts of what became of the documents.

    `documents` as `corpus.load` gives them, `tag` as `Tagger.tag`; `trials` {PMID: prompts} as
    `evidence.load` gives prompts; `exam`: questions that must not be asked. An item has the fields
    of `questions.load`, and `source` and `rule`; a label nobody gave is "".

    >>> nouns = lambda words: ["NOUN|-"] * len(words)
    >>> from mediswift import corpus
    >>> items, counts = build(corpus.load("sample:"), nouns)
    >>> counts["documents"]
    300
    """
    gone = {finding.row for finding in contamination.find(documents)}
    safe = documents.select([row for row in range(len(documents)) if row not in gone])
    counts = Counter(documents=len(documents), exam=len(gone))
    asked, items = {_key(question) for question in exam}, []
    for document in safe:
        item = _item(document, tag, trials or {}, last_sentence, without_pmid)
        fate = item if isinstance(item, str) else _admit(item, asked)
        counts[fate] += 1
        if fate == "kept":
            items.append(item)
    return items, counts


def part(items: Iterable[Item], name: str) -> list[Item]:
    """The "artificial" items, which have a label, or the "unlabeled" ones.

    Raises ValueError for another name.
    """
    if name not in PARTS:
        raise ValueError(f"a part is one of {', '.join(PARTS)}; got {name!r}")
    return [item for item in items if bool(item["label"]) == (name == "artificial")]


def write(items: Iterable[Item], path: str | Path) -> Path:
    """Path of a file like the official `ori_pqal.json` that now holds the items.

    Each has two fields more, SOURCE and RULE; `questions.load` reads it back with them. Raises
    ValueError for a PMID that comes twice, and for no items.
    """
    content: dict[str, Item] = {}
    for item in items:
        if item["pmid"] in content:
            raise ValueError(f"a PMID stands once in a file; {item['pmid']} comes twice. Drop one.")
        content[item["pmid"]] = to_official(item)
    if not content:
        raise ValueError("a file of questions needs one or more; no document gave any.")
    return records.write_json(Path(path), content)


def summary(items: Iterable[Item]) -> pd.DataFrame:
    """Counts by rule, a row each, and by label, a column each, with their sums.

    >>> summary([{"rule": "statement", "label": "no"}]).loc["statement", "no"].item()
    1
    """
    counts = Counter((item["rule"], item["label"] or "unlabeled") for item in items)
    rules = [rule for rule in RULES if any(rule == r for r, _ in counts)]
    table = pd.DataFrame(
        {label: [counts[rule, label] for rule in rules] for label in (*ANSWERS, "unlabeled")},
        index=rules,
    )
    table["all"] = table.sum(axis=1)
    table.loc["all"] = table.sum()
    return table


def label(questions: Dataset, predictions: Mapping[str, str], rule: str = "pseudo") -> Dataset:
    """PQA-U's questions with `predictions`, {PMID: answer}, for labels: the paper's pseudo-labels.

    Questions that have no prediction go, so that a caller may keep only what a model was sure of.
    `source` stays, `rule` says where the labels are from. Raises ValueError for a prediction that
    is no answer or is about no question here, for none, and for questions that have labels.
    """
    if wrong := sorted(set(predictions.values()) - set(ANSWERS)):
        raise ValueError(f"a label is one of {', '.join(ANSWERS)}; got {wrong[0]!r}")
    if strangers := sorted(set(predictions) - set(questions["pmid"])):
        raise ValueError(f"a prediction is about a question here; PMID {strangers[0]} is none")
    if any(questions["label"]):
        raise ValueError("pseudo-labels are for questions without labels; some here have theirs")
    if not predictions:
        raise ValueError(
            "pseudo-labels need one prediction or more; be content with less sure ones"
        )
    kept = [row for row in questions if row["pmid"] in predictions]
    rows = [{"source": "", **row, "label": predictions[row["pmid"]], "rule": rule} for row in kept]
    return Dataset.from_list(rows, features=RULED)


def _item(
    document: Item, tag: statements.Tag, trials: Mapping, last: bool, nameless: bool
) -> Item | str:
    """The document's item, or why there is none."""
    pmid, title, text = document["pmid"], document["title"], document["abstract"]
    if not pmid and not nameless:
        return "no PMID"
    if document.get("form"):  # its abstract is another document
        return "no abstract"
    if len(text) > _LONGEST or not (parts := sections.cut(text, last_sentence=last)):
        return "no conclusion"
    asked = (
        _if_asking(title, statements.ask, tag)
        or evidence.ask(trials.get(pmid, ()), " ".join(parts.contexts))
        or statements.ask(title, tag)
        or polarity.ask(title, parts.conclusion)
    )
    if not asked:
        return "no question"
    return {
        "pmid": pmid or "text-" + hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:12],
        "question": asked.question,
        "contexts": parts.contexts,
        "section_labels": parts.section_labels,
        "long_answer": parts.conclusion,
        "label": asked.label,
        "source": document["source"],
        "rule": asked.rule,
    }


def _if_asking(title: str, ask: Callable, tag: statements.Tag) -> statements.Asked | None:
    return ask(title, tag) if "?" in title else None


def _admit(item: Item, asked: set[str]) -> str:
    """ "kept", or "asked before" if the same question or document is there already."""
    keys = {_key(item["question"]), item["pmid"]}
    if keys & asked:
        return "asked before"
    asked |= keys
    return "kept"


def _key(question: str) -> str:
    return re.sub(r"\W+", "", question.casefold())
