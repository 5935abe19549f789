"""Count the verbs of biomedical abstracts: `python data/make_verbs.py ABSTRACTS.jsonl.zst`.

Writes `data/verbs.json`: {verb: [share, share]}, every verb that follows a modal or "does not"
eight times or more. The shares are those of its third-person form ("increases") and of its base
("increase") that stand after a word such as "the", "of" or "in", where only a noun can.
Frequencies are facts; no text is kept.
"""

import json
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from mediswift.documents import read_jsonl
from mediswift.records import write_text
from mediswift.statements import third_person

MODALS = set("may might can could should would must will cannot".split())
DO_NOT = {(word, "not") for word in "did does do could may can will should".split()}
BEFORE_NOUNS = set(
    "the these those of in for with no all any by on from as both such their its other "
    "significant more some many several an a between different two three our".split()
)
NEVER = set(
    "be have do not also only always the a an it we they he she i in of and or as than then well "
    "now soon often still thus actually potentially".split()
)
LEAST = 8


def main(path: str) -> None:
    """Count, select and write."""
    total, modal, noun = Counter(), Counter(), Counter()
    for document in read_jsonl(Path(path), ""):
        words = re.findall(r"[a-z]+|[^a-z\s]", document["abstract"].lower())
        total.update(words)
        for before, first, second in zip(["", *words], words, words[1:], strict=False):
            modal[second] += first in MODALS or (before, first) in DO_NOT
        noun.update(second for first, second in pairwise(words) if first in BEFORE_NOUNS)
    verbs = {}
    for word in sorted(word for word, count in modal.items() if count >= LEAST and len(word) > 2):
        form = third_person(word)
        if word.isalpha() and word not in NEVER and not word.endswith("ly") and total[form] >= 5:
            verbs[word] = [round(noun[w] / total[w], 2) for w in (form, word)]
    lines = ",\n".join(f'"{verb}": {json.dumps(shares)}' for verb, shares in verbs.items())
    write_text(Path(__file__).with_name("verbs.json"), "{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
