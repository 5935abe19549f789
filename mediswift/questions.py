"""PubMedQA's questions: from an address, checked, in the official split, or a fair few of them.

Decisions. The split is regenerated from the official labels, by the authors' procedure, since row
slices of other copies of the data are other splits. A question is known by its PMID, so a copy with
fewer items or another order falls into the same parts. What is not one of the 1,000 official items
is split by the same procedure on its own labels. Refused: a silent fallback from one source to
another, and an item that is broken in any field that a score depends on.
"""

import json
import math
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, load_dataset

from mediswift import demo, records

ANSWERS = ("yes", "no", "maybe")
FOLDS = 10
_TEXT = Value("string")
FEATURES = Features(
    pmid=_TEXT,
    question=_TEXT,
    contexts=List(_TEXT),
    section_labels=List(_TEXT),
    long_answer=_TEXT,
    label=_TEXT,
)
RULED = Features(FEATURES | {"source": _TEXT, "rule": _TEXT})
"""Of questions that were made: where each is from, and by which rule."""


def load(address: str | Path, *, labeled: bool = True) -> Dataset:
    """Questions at an address: pmid, question, contexts, section_labels, long_answer, label.

    `address`: the path of a file like the official `ori_pqal.json`, or `sample:` (synthetic, ours),
    `demo:` (901 real items, no long answers) or `hf:REPO[:CONFIG]` (CONFIG = pqa_labeled,
    pqa_artificial or pqa_unlabeled; REPO may be a local folder of that form). What `artificial`
    wrote comes with `source` and `rule`. `labeled=False` is for PQA-U: every label is "", and an
    item that has one is refused, as an item without one is by default.
    Raises FileNotFoundError without such a file, ValueError for a broken item, naming its PMID.

    >>> load("sample:").num_rows
    200
    """
    kind, _, rest = str(address).partition(":")
    if str(address) == "demo:":
        items = demo.pubmedqa_items()
    elif kind == "hf" and rest:
        repo, _, config = rest.partition(":")
        items = map(_from_hub, load_dataset(repo, config or "pqa_labeled", split="train"))
    else:
        sample = demo.DATA / "sample" / "questions.json"
        official = load_official(sample if str(address) == "sample:" else address)
        items = (_from_official(pmid, item) for pmid, item in official.items())
    found = list(_checked(items, address, ANSWERS if labeled else ("",)))
    ruled = any("rule" in item for item in found)
    return Dataset.from_list(found, features=RULED if ruled else FEATURES)


def load_official(path: str | Path) -> dict[str, dict[str, Any]]:
    """{PMID: item} of an official JSON file, fields under their official names, in file order.

    Raises FileNotFoundError, and ValueError when the file is another kind or holds a PMID twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            "PubMedQA comes from the path of its JSON file, sample:, demo: or hf:REPO[:CONFIG]; "
            f"{str(path)!r} is none of them and no file. Check the spelling or fetch the file."
        )
    items = records.read_json(path, object_pairs_hook=lambda pairs: _unique(pairs, path))
    if not isinstance(items, dict) or not all(isinstance(item, dict) for item in items.values()):
        raise ValueError(
            f"An official file is one object of items by PMID, {path} is not; "
            "give the path of ori_pqal.json or of a file of its form."
        )
    return items


def split(questions: Dataset, name: str, fold: int = 0) -> Dataset:
    """The "train", "dev" or "test" questions of the official split, in the order they came.

    "test" is the second half; "dev" is part `fold`, 0 to 9, of the first half, "train" its rest.
    Raises ValueError for another name or fold, for a mixture of official and other PMIDs, for other
    labels than the official ones, and for a part that holds none of the questions. A test that is
    not whole is told.

    >>> split(load("sample:"), "test").num_rows
    100
    """
    if name not in ("train", "dev", "test") or fold not in range(FOLDS):
        raise ValueError(
            f"A part is train, dev or test of fold 0 to {FOLDS - 1}, got {name!r} of fold {fold}; "
            "name one of these."
        )
    parts = official_split(_labels(questions))
    train = {pmid for i, part in enumerate(parts["folds"]) if i != fold for pmid in part}
    wanted = {"train": train, "dev": set(parts["folds"][fold]), "test": set(parts["test"])}[name]
    rows = [i for i, pmid in enumerate(questions["pmid"]) if pmid in wanted]
    if not rows:
        raise ValueError(
            f"A part must hold a question, {name!r} of fold {fold} holds none of these "
            f"{len(questions)}; take another fold or load more questions."
        )
    if name == "test" and len(rows) < len(wanted):
        print(f"{len(rows)} of the {len(wanted)} test questions are here", file=sys.stderr)
    return questions.select(rows)


def official_split(labels: Mapping[str, str]) -> dict[str, list]:
    """{"test": PMIDs, "folds": ten lists of PMIDs} for `labels`, {PMID: label} in file order.

    One generator with seed 0 halves each label's PMIDs, then cuts the first half into ten. Source:
    `preprocess/split_dataset.py` of the PubMedQA authors, whose 500 test PMIDs this gives exactly.

    >>> len(official_split({str(i): "yes" for i in range(100)})["test"])
    50
    """
    generator = random.Random(0)
    pool, test = _cut(labels, 2, generator)
    return {"test": test, "folds": _cut({pmid: labels[pmid] for pmid in pool}, FOLDS, generator)}


def limit(questions: Dataset, n: int, seed: int) -> Dataset:
    """At most `n` of the questions, drawn in the labels' own shares, in the order they came.

    Raises ValueError for n < 1.

    >>> sorted(limit(load("sample:"), 4, seed=0)["label"])
    ['no', 'no', 'yes', 'yes']
    """
    if n < 1:
        raise ValueError(f"A limit is 1 question or more, got {n}; leave it out to keep all.")
    generator, labels = random.Random(seed), questions["label"]
    groups = [[i for i, label in enumerate(labels) if label == answer] for answer in ANSWERS]
    for group in groups:
        generator.shuffle(group)
    # Row k of a group of m stands at (k + 1/2) / m: the first n of all groups keep the shares.
    places = [((k + 0.5) / len(group), row) for group in groups for k, row in enumerate(group)]
    return questions.select(sorted(row for _, row in sorted(places)[:n]))


def _cut(labels: Mapping[str, str], k: int, generator: random.Random) -> list[list[str]]:
    """PMIDs in k parts with about equal shares of each label; the calls' order is the authors'."""
    parts: list[list[str]] = [[] for _ in range(k)]
    for answer in ANSWERS:
        group = [pmid for pmid, label in labels.items() if label == answer]
        generator.shuffle(group)
        size = math.ceil(len(group) / k)
        for i, part in enumerate(parts):
            part += group[i * size : (i + 1) * size]
    if len(parts[-1]) != len(parts[0]):  # ceil leaves the last part short: each other gives one
        for part in filter(None, parts[:-1]):
            parts[-1].append(part.pop(generator.randrange(len(part))))
    return parts


def _labels(questions: Dataset) -> dict[str, str]:
    """The table that decides the split: the official one, or the questions' own."""
    official, pmids = _official_labels(), questions["pmid"]
    known = [pmid for pmid in pmids if pmid in official]
    if not known:
        return dict(zip(pmids, questions["label"], strict=True))
    if len(known) < len(pmids):
        stranger = next(pmid for pmid in pmids if pmid not in official)
        raise ValueError(
            f"Questions are all official or none is, got {len(known)} official ones and "
            f"{len(pmids) - len(known)} others such as PMID {stranger}; split them apart first."
        )
    labels = zip(pmids, questions["label"], strict=True)
    if other := [pmid for pmid, label in labels if label not in ("", official[pmid])]:
        raise ValueError(
            f"Official questions have their official labels, {len(other)} of these {len(pmids)} "
            f"have others, the first is PMID {other[0]}; fetch the file again."
        )
    return official


@cache
def _official_labels() -> dict[str, str]:
    return json.loads((demo.DATA / "pubmedqa_labels.json").read_text(encoding="utf-8"))


def _unique(pairs: list[tuple[str, Any]], path: str | Path) -> dict[str, Any]:
    # json.load alone would keep the last of two items and say nothing.
    if len(found := dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"A PMID stands once in a file, {path} has {twice} twice; delete one.")
    return found


def _from_official(pmid: str, item: dict[str, Any]) -> dict[str, Any]:
    return {
        "pmid": pmid,
        "question": item.get("QUESTION"),
        "contexts": item.get("CONTEXTS"),
        "section_labels": item.get("LABELS") or [],
        "long_answer": item.get("LONG_ANSWER") or "",
        "label": item.get("final_decision") or "",
        # the synthetic sample says its source too, and was made by no rule
        **({"source": item.get("SOURCE", ""), "rule": item["RULE"]} if "RULE" in item else {}),
    }


def to_official(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of `load` under the official file's names; without a label, it has no decision.

    >>> item = {"question": "Is it?", "contexts": ["We saw."], "section_labels": [], "label": "no"}
    >>> to_official(item | {"long_answer": ""})["final_decision"]
    'no'
    """
    named = {
        "QUESTION": item["question"],
        "CONTEXTS": item["contexts"],
        "LABELS": item["section_labels"],
        "LONG_ANSWER": item["long_answer"],
    }
    named |= {name.upper(): item[name] for name in ("source", "rule") if name in item}
    return named | ({"final_decision": item["label"]} if item["label"] else {})


def _from_hub(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "pmid": str(row["pubid"]),
        "question": row["question"],
        "contexts": row["context"]["contexts"],
        "section_labels": row["context"]["labels"],
        "long_answer": row["long_answer"],
        "label": row.get("final_decision") or "",
    }


def _checked(
    items: Iterable[dict[str, Any]], address: str | Path, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The items, or ValueError at the first broken one."""
    seen: set[str] = set()
    for item in items:
        if fault := _fault(item, seen, labels):
            wanted = f"one of the labels {', '.join(labels)}" if any(labels) else "no label"
            raise ValueError(
                f"An item of PubMedQA has a PMID of its own, a question, contexts and {wanted}; "
                f"PMID {item['pmid']} of {address} has {fault}. "
                "Correct the item or leave it out; labeled=False is for PQA-U."
            )
        seen.add(item["pmid"])
        yield item


def _fault(item: dict[str, Any], seen: set[str], labels: Sequence[str]) -> str:
    if item["pmid"] in seen:
        return "come before"
    lists = [item[name] for name in ("contexts", "section_labels")]
    texts = [v for name, v in item.items() if name not in ("contexts", "section_labels")]
    if not all(isinstance(value, list) for value in lists if value is not None):
        return "contexts or labels that are no list"
    if not all(isinstance(text, str | None) for text in [*texts, *sum(filter(None, lists), [])]):
        return "something else than text in a field"
    if not (item["question"] or "").strip():
        return "no question"
    if not item["contexts"] or not all((text or "").strip() for text in item["contexts"]):
        return "an empty context"
    if item["label"] not in labels:
        return f"the label {item['label']!r}"
    return ""
