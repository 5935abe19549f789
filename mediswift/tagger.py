"""Parts of speech of English words, by an averaged perceptron that others trained on open data.

Decisions. The model is `denckring-en-pos`, trained on the Universal Dependencies English Web
Treebank 2.18 (CC BY-SA 4.0), whose authors measured 0.949 F1 on finite verbs. It is plain JSON in a
wheel, pinned by sha256 in `data/demo.json`: read as data, never installed, and none of its code
runs. Only the features that its weights are named after are ours to compute. It reads words without
punctuation, as it was trained to.
Refused: taggers whose models are pickles, and those that need a data hub.
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mediswift import demo

FINITE = ("VERB|Fin", "AUX|Fin")
_WORD = re.compile(r"\w(?:[\w\-'’/+.,]*\w)?")


@dataclass(frozen=True)
class Tagger:
    """Weights {feature: {tag: weight}}, words that have one tag always, and all tags, sorted."""

    weights: Mapping[str, Mapping[str, float]]
    sure: Mapping[str, str]
    tags: tuple[str, ...]

    def tag(self, words: Sequence[str]) -> list[str]:
        """One tag a word, "UPOS|VerbForm", as "NOUN|-" or "VERB|Fin"; greedy, left to right.

        >>> small = Tagger({"suf2 es": {"VERB|Fin": 1.0}}, {"it": "PRON|-"}, ("NOUN|-",))
        >>> small.tag(["It", "goes"])
        ['PRON|-', 'VERB|Fin']
        """
        found, lower = ["<s>", "<s>"], [word.lower() for word in words]
        around = ["<s>", "<s>", *lower, "</s>", "</s>"]
        for place, word in enumerate(words):
            known = self.sure.get(lower[place])
            found.append(known or self._best(_features(word, around[place : place + 5], found)))
        return found[2:]

    def _best(self, features: list[str]) -> str:
        scores = dict.fromkeys(self.tags, 0.0)
        for feature in features:
            for tag, weight in self.weights.get(feature, {}).items():
                scores[tag] = scores.get(tag, 0.0) + weight
        return max(scores, key=lambda tag: (scores[tag], tag))


@cache
def load() -> Tagger:
    """Return the pinned tagger, downloaded once (1 MB). Raises what `demo.fetch` raises.

    >>> load().tag(["Zinc", "increases", "survival"])  # doctest: +SKIP
    ['PROPN|-', 'VERB|Fin', 'NOUN|-']
    """
    (member,) = demo.load_pins()["tagger"]["members"]
    with gzip.open(demo.open_member("tagger", member)) as stream:
        model = json.load(stream)
    return Tagger(model["weights"], model["tagdict"], tuple(sorted(model["classes"])))


def words(text: str) -> list[str]:
    """Words of a text, its punctuation left out.

    >>> words("IL-6's role (in mice), p = 0.05.")
    ["IL-6's", 'role', 'in', 'mice', 'p', '0.05']
    """
    return _WORD.findall(text)


def _features(word: str, around: list[str], found: list[str]) -> list[str]:
    """Names of what the model looks at: the word, two neighbors a side, the last two tags."""
    before2, before, lower, after, after2 = around
    tag2, tag = found[-2:]
    shape = ("X" if word[:1].isupper() else "x") + "d" * any(c.isdigit() for c in word)
    ends = [f"suf{size} {lower[-size:]}" for size in (3, 2, 1)]
    named = [f"pre1 {lower[:1]}", f"shape {shape}", f"w {lower}", f"t-1 {tag}", f"t-2 {tag2}"]
    pairs = [f"t-1t-2 {tag} {tag2}", f"t-1 w {tag} {lower}"]
    near = [f"w-1 {before}", f"w-2 {before2}", f"w+1 {after}", f"w+2 {after2}"]
    return ["bias", *ends, *named, *pairs, *near]
