"""The HoC task: which hallmarks of cancer an abstract is about, said in words.

Decisions. An abstract is one sequence in BioGPT's form: its text, then ` the type of this document
is resisting cell death|cellular energetics.`, or `empty` for none (BioGPT, `examples/DC-HoC`). A
model's answer is what it writes, greedily: only the whole sentence with known names counts, all
else names nothing. (Likelihoods would need one for each of 1,024 sets.) An abstract has the top
classes of all its sentences. The split is ours, by PMID: BioGPT's files hold single sentences, and
their `valid.tsv` is their `test.tsv`, byte by byte: what is chosen on one is chosen on the other.
Source: Baker et al. 2016. The corpus is GPL-3.0: it is read where it lies, and none is kept here.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import torch
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from mediswift.decoding import greedy
from mediswift.hallmarks import EMPTY, LABELS, Report
from mediswift.pubmedqa import Encoded, Rendered, front_ids, joiner, positions, text_ids

PHRASE = " the type of this document is"
SETTING = "document"
FOLDS = 10
MOST = 5
"""The most labels of one abstract in the corpus; room is kept for so many."""
FEATURES = Features(pmid=Value("string"), text=Value("string"), labels=List(Value("string")))
LARGEST = 1 << 20
"""Bytes of one file, at most: a text that is larger is none of the corpus."""

_MEMBER = re.compile(r"(?:\./)?(text|labels)/(\d+)\.txt")
_ANSWER = re.compile(rf"{PHRASE} ([^.]+)\.")


def load(address: str) -> Dataset:
    """Abstracts at `hoc:PATH`, by PMID: columns pmid, text, labels (names in `LABELS`' order).

    PATH is the corpus as an archive (.tar, .tar.gz or .tar.zst). It is read as a stream: nothing is
    unpacked, so no name in it can lead anywhere. Raises FileNotFoundError without such a file,
    ValueError for a damaged archive, an unknown label, or a text and labels that do not match.
    """
    kind, _, place = str(address).partition(":")
    path = Path(place).expanduser()
    if kind != "hoc" or not place or not path.is_file():
        raise FileNotFoundError(
            f"HoC comes from hoc:PATH, PATH a file like hoc.tar.zst; {str(address)!r} is none."
        )
    found: dict[str, dict[str, str]] = {"text": {}, "labels": {}}
    for part, pmid, content in _members(path):
        if pmid in found[part]:
            raise ValueError(f"A PMID stands once in an archive, {path.name} has {pmid} twice.")
        found[part][pmid] = content
    if not found["text"] or (alone := found["text"].keys() ^ found["labels"].keys()):
        raise ValueError(
            f"HoC has a file text/PMID.txt and a file labels/PMID.txt for each abstract; "
            f"{path.name} has {len(found['text'])} and {len(found['labels'])}"
            + (f", and {min(alone)} has one only." if found["text"] else ".")
        )
    rows = [_item(p, found["text"][p], found["labels"][p]) for p in sorted(found["text"], key=int)]
    return Dataset.from_list(rows, features=FEATURES)


def split(documents: Dataset, name: str, fold: int = 0) -> Dataset:
    """The "train", "dev" or "test" abstracts, in the order they came.

    A hash of the PMID decides: a fifth is the test, a tenth of the rest, `fold`, is dev. Company
    and order count for nothing. Raises ValueError for another name or fold, or an empty part.
    """
    if name not in ("train", "dev", "test") or fold not in range(FOLDS):
        raise ValueError(
            f"A part is train, dev or test of fold 0 to {FOLDS - 1}, got {name!r} of fold {fold}."
        )
    parts = [_part(pmid, fold) for pmid in documents["pmid"]]
    rows = [i for i, part in enumerate(parts) if part == name]
    if not rows:
        raise ValueError(
            f"A part must hold an abstract, {name!r} of fold {fold} holds none of these "
            f"{len(documents)}; take another fold or load more."
        )
    return documents.select(rows)


def render(document: Mapping[str, Any]) -> Rendered:
    """Source and target in BioGPT's wording, all white space made single spaces.

    >>> render({"text": "Cells died", "labels": ["resisting cell death"]}).target
    ' the type of this document is resisting cell death.'
    """
    text = " ".join(document["text"].split())
    return Rendered(text if text.endswith(".") else f"{text}.", _sentence(document["labels"]))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    document: Mapping[str, Any],
    setting: str = SETTING,
    max_length: int | None = None,
) -> Encoded:
    """Token ids of source and target, together at most `max_length`.

    The source opens with what the tokenizer itself puts in front of a text. Its end is cut until
    the longest answer fits: a cut that knew the answer would tell it. Raises ValueError for another
    setting, and when the answer leaves no room for a text.
    """
    _check(setting)
    rendered = render(document)
    source = front_ids(tokenizer) + text_ids(tokenizer, rendered.source)
    target = text_ids(tokenizer, rendered.target)
    if max_length is None:
        return Encoded(source, target, False)
    room = max_length - max(longest(tokenizer), len(target))
    if room < 1:
        raise ValueError(
            f"Text and answer must fit into max_length={max_length}, an answer takes up to "
            f"{max_length - room} tokens; use a longer context."
        )
    return Encoded(source[:room], target, len(source) > room)


def longest(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest answer of at most `MOST` names."""
    by_length = sorted(LABELS, key=lambda label: len(text_ids(tokenizer, f"|{label}")))
    return len(text_ids(tokenizer, _sentence(by_length[-MOST:])))


def evaluate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    documents: Dataset,
    setting: str = SETTING,
    batch_tokens: int = 8192,
    max_length: int | None = None,
) -> Report:
    """Report of what a causal language model, or a `prompts.SoftPrompt`, writes after `documents`.

    `batch_tokens` bounds rows x length of a batch, `max_length` a row (default: the model's number
    of positions).
    """
    room = positions(model, max_length)
    encoded = [encode(tokenizer, document, setting, room) for document in documents]
    written = greedy(
        model,
        [list(joiner(model)(item.source, [])) for item in encoded],
        longest(tokenizer),
        lambda ids: "." in tokenizer.decode(ids[-1:]),
        batch_tokens,
    )
    rows = [
        _prediction(document, tokenizer.decode(ids))
        for document, ids in zip(documents, written, strict=True)
    ]
    return Report(rows, sum(item.truncated for item in encoded))


def parse(written: str) -> list[str] | None:
    """Names in a written answer, in `LABELS`' order, or None for what is no such sentence.

    >>> parse(" the type of this document is cellular energetics|resisting cell death. And")
    ['resisting cell death', 'cellular energetics']
    >>> parse(" the type of this document is empty."), parse(" the type of this document is fun.")
    ([], None)
    """
    match = _ANSWER.match(written)
    names = match[1].split("|") if match else []
    if names == [EMPTY]:
        return []
    if not names or len(set(names)) < len(names) or not set(names) <= set(LABELS):
        return None
    return [label for label in LABELS if label in names]


def _prediction(document: Mapping[str, Any], written: str) -> dict[str, Any]:
    named = parse(written)
    row = {"pmid": document["pmid"], "labels": document["labels"], "prediction": named or []}
    return row | {"parsed": named is not None}


def _sentence(labels: Sequence[str]) -> str:
    return f"{PHRASE} {'|'.join(labels) or EMPTY}."


def _check(setting: str) -> None:
    if setting != SETTING:
        raise ValueError(f"HoC has one setting, {SETTING!r}, got {setting!r}; name it.")


def _part(pmid: str, fold: int) -> str:
    fifth, rest = zlib.crc32(pmid.encode()) % 5, zlib.crc32(pmid.encode()) // 5
    return "test" if fifth == 0 else "dev" if rest % FOLDS == fold else "train"


def _members(path: Path) -> Iterator[tuple[str, str, str]]:
    """Part, PMID and content of each file that is one of the corpus; others are left alone."""
    try:
        with (
            pyarrow.input_stream(str(path)) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                match = _MEMBER.fullmatch(member.name)
                if match and member.isreg():
                    if member.size > LARGEST:
                        raise ValueError(f"{member.name} has {member.size:,} bytes")
                    yield match[1], match[2], archive.extractfile(member).read().decode("utf-8")
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise ValueError(
            f"HoC comes as a whole archive of small texts in UTF-8; {path.name} is not: {error}. "
            "Copy or download it again."
        ) from error


def _item(pmid: str, text: str, marks: str) -> dict[str, Any]:
    sentences, groups = text.strip("\n").split("\n"), marks.strip().split("<")[1:]
    names = {name for group in groups for name in _tops(group)}
    if len(sentences) != len(groups) or not names <= set(LABELS):
        raise ValueError(
            f"Each sentence has its labels, one of {', '.join(LABELS)}; PMID {pmid} has "
            f"{len(sentences)} sentences, {len(groups)} groups of labels, and "
            f"{sorted(names - set(LABELS)) or 'no unknown label'}."
        )
    labels = [label for label in LABELS if label in names]
    return {"pmid": pmid, "text": " ".join(sentences), "labels": labels}


def _tops(group: str) -> Iterator[str]:
    """Top classes of one sentence's marks, such as `Resisting cell death--Apoptosis ANDNULL`."""
    for mark in group.split("AND"):
        if name := mark.partition("--")[0].strip().lower().replace("null", ""):
            yield name
