"""Titles of papers made into questions, as PubMedQA's authors made PQA-A.

Decisions. A statement is a noun phrase with a present-tense verb (Jin et al. 2019, section 3.2);
its question moves "is" or "has" to the front or adds "does" or "do", and its label is "no" if the
verb is negated, else "yes". Verbs are those of `data/verbs.json`, counted in biomedical abstracts;
where a form is often a noun there ("increases"), the tagger decides. A title with "may", "might"
or "could" says that the answer is open: its label is "maybe", a rule of ours. A title that is a
yes/no question stays one, without a label. What is not plainly one of these is left out: relative
clauses, a second verb of another kind, lists, titles that begin with no noun phrase.
Refused: guessing from "neither", "only" or "rarely", whose answer is no plain yes or no.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from mediswift import demo
from mediswift.tagger import FINITE

Tag = Callable[[Sequence[str]], list[str]]
NOUN_SHARE = 0.05
"""A verb form that stands after a determiner more often than this needs the tagger's word."""

_ASKS = set(
    "is are was were does do did has have had can could should will would may might must".split()
)
_MODALS = {"may": "maybe", "might": "maybe", "could": "maybe"}
_CLAUSE = set(
    "that which who whom whose where when while how why what whether because if although though "
    "since until unless neither nor only rarely seldom hardly but as than vs versus".split()
)
_CLOSED = set("can cannot should will would must whether while whereas".split())
_NOT = {"not", "never"}
_FORMS = {"is": "be", "are": "be", "has": "have", "have": "have", "does": "do", "do": "do"}
_BAD_START = ("ADP|-", "SCONJ|-", "PRON|-", "CCONJ|-", "PART|-")
_NOISE = re.compile(r"\[[^\]]*\]|(?<=[a-z.)])\d{3,4}$|(?<=\.) \d{3,4}$")
_SUBTITLE = re.compile(r"(?::|\s[-\u2013\u2014]+|--|\u2014|;|(?<!\b[A-Z])\.)\s|--")
_QUOTES = re.compile('["\u201c\u201d]')
_AFTER_NOUNS = set("of after during before under among between for".split())
_AFTER_MANY = {"on", "in", "with", "and", "or", ""}
_TAKE_THEM = set("result depend differ correlate interact interfere associate".split())
_BEFORE_NOUNS = set("to of in for and the with by on or from as a an".split())
_LIMITS = range(4, 31)


class Asked(NamedTuple):
    """A question, its label ("" where nobody knows) and the rule that made it."""

    question: str
    label: str
    rule: str


def ask(title: str, tag: Tag) -> Asked | None:
    """The yes/no question of a title, or None where there is none; `tag` as `Tagger.tag`.

    >>> nouns = lambda words: ["NOUN|-"] * len(words)
    >>> ask("Zinc does not shorten colds: a trial.", nouns)
    Asked(question='Does zinc shorten colds?', label='no', rule='statement')
    >>> ask("Is zinc good for colds?", nouns)
    Asked(question='Is zinc good for colds?', label='', rule='question')
    """
    clean = trim(title)
    main = [part.split() for part in _SUBTITLE.split(clean)[:2]]
    if "?" in clean or clean.split(" ")[0].lower() in _ASKS:
        return _question(clean if "?" in clean else " ".join(main[0]))
    found = (_statement(words, tag) for words in main if len(words) in _LIMITS)
    return next(filter(None, found), None)


def trim(title: str) -> str:
    """The title without what indexers add to it: brackets, footnote numbers, the full stop.

    >>> trim("Zinc and colds. [Review] [23 refs]1837")
    'Zinc and colds'
    """
    return _NOISE.sub("", " ".join(_NOISE.sub("", title).split())).rstrip(". ")


def main_part(title: str) -> str:
    """What stands before the subtitle.

    >>> main_part("Ageing of C. elegans: a review")
    'Ageing of C. elegans'
    """
    return _SUBTITLE.split(title)[0]


def third_person(verb: str) -> str:
    """The form that goes with he, she, it.

    >>> [third_person(verb) for verb in ("reduce", "modify", "suppress")]
    ['reduces', 'modifies', 'suppresses']
    """
    if re.search(r"(?:s|x|z|ch|sh|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def lower_first(text: str) -> str:
    """The text with a small first letter, unless its first word is a name in capitals or digits.

    >>> lower_first("Zinc is"), lower_first("IL-6 is"), lower_first("Alzheimer's is")
    ('zinc is', 'IL-6 is', "Alzheimer's is")
    """
    first = text.split(" ", 1)[0]
    plain = re.fullmatch(r"[A-Z][a-z]+(?:-[a-z]+)*", first) or first == "A"
    return text[0].lower() + text[1:] if plain else text


@cache
def verbs() -> dict[str, tuple[str, float]]:
    """{form: (base verb, share of the form that is a noun)}, third person and base."""
    counted = json.loads((demo.DATA / "verbs.json").read_text(encoding="utf-8"))
    bases = {verb: (verb, shares[1]) for verb, shares in counted.items()}
    return bases | {third_person(verb): (verb, shares[0]) for verb, shares in counted.items()}


def _question(title: str) -> Asked | None:
    """The title up to its only question mark, if its last part asks for yes or no."""
    asked = title.split("?")[0].strip()
    last = re.split(r"(?<=[:.!]) |\s[-\u2013\u2014]+\s", asked)[-1].split()
    if title.count("?") > 1 or len(last) not in _LIMITS or last[0].lower() not in _ASKS:
        return None
    if re.search(r"\b(?:or not|either)\b", asked):
        return None
    return Asked(asked + "?", "", "question")


def _statement(title: list[str], tag: Tag) -> Asked | None:
    lower = [word.lower().strip("(),\"'") for word in title]
    if _QUOTES.search(" ".join(title)) or not any(map(_may_act, lower[1:])):
        return None
    tags = tag(lower[:1] + [word.strip("(),\"'") for word in title[1:]])
    place = _verb(title, lower, tags)
    if not place or not _is_subject(title[:place], lower[:place], tags[:place]):
        return None
    subject, verb = lower_first(" ".join(title[:place])), lower[place]
    rest, spoken = title[place + 1 :], lower[place + 1 :]
    if not rest or any(map(_is_closed, spoken)):  # another clause, which no question could hold
        return None
    if verb in _MODALS:
        return _hedged(subject, rest, spoken)
    return _plain(subject, verb, rest, spoken, tags[place + 1 :])


def _is_closed(word: str) -> bool:
    return word in _MODALS or word in _FORMS or word in _CLOSED


def _may_act(word: str) -> bool:
    return word in _FORMS or word in _MODALS or word in verbs()


def _is_subject(title: list[str], lower: list[str], tags: list[str]) -> bool:
    """Whether a plain noun phrase stands before the verb."""
    clause = (_CLAUSE | _CLOSED) & set(lower) or title[-1].endswith(",") or "PRON|-" in tags
    # rare nouns are tagged as verbs at the start, so that only closed classes count there
    return not clause and tags[0] not in _BAD_START and not _is_closed(lower[0])


def _verb(title: list[str], lower: list[str], tags: list[str]) -> int:
    """Place of the first present-tense verb that a subject stands before; 0 if there is none."""
    after = [*lower[1:], ""]
    for place in range(1, len(lower)):
        if lower[place] in _FORMS or lower[place] in _MODALS:
            return place
        apart = title[place - 1].endswith(",") or title[place][0] == "("
        if not apart and _acts(lower[place], tags[place], lower[place - 1], after[place]):
            return place
    return 0


def _acts(word: str, tag: str, before: str, after: str) -> bool:
    """Whether a word is a finite verb here."""
    base, share = verbs().get(word, ("", 0.0))
    if not base or before in _BEFORE_NOUNS or after in _AFTER_NOUNS:
        return False
    if after in _AFTER_MANY and base not in _TAKE_THEM:
        return word != base and share <= NOUN_SHARE and after != "and"
    if share > NOUN_SHARE:
        return tag in FINITE
    return word != base or tag in FINITE or is_plural(before)


def _plain(
    subject: str, verb: str, rest: list[str], lower: list[str], tags: list[str]
) -> Asked | None:
    no = "no" if lower[0] in _NOT or lower[:2] == ["no", "longer"] else "yes"
    kept = rest[1:] if lower[0] in _NOT else rest[2:] if lower[:2] == ["no", "longer"] else rest
    if not kept or (no == "no" and "but" in lower):
        return None
    if verb in ("is", "are"):
        return None if _infinitives(rest, lower, tags) != rest else _made(verb, subject, kept, no)
    if verb in ("does", "do"):
        return _made(verb, subject, kept, no) if no == "no" else None
    if verb in ("has", "have"):
        return _having(subject, verb, kept, lower, no)
    base = verbs()[verb][0]
    front = "Does" if base != verb else "Do"
    if front == "Do" and not is_plural(subject):
        return None
    kept = _infinitives(rest, lower, tags)
    if lower[0] == "no":
        return _made(front, subject, [base, *kept[1:]], "no")
    if base == "fail" and lower[0] == "to":
        return _made(front, subject, kept[1:], "no")
    return _made(front, subject, [base, *kept], "yes")


def _having(subject: str, verb: str, rest: list[str], lower: list[str], label: str) -> Asked | None:
    """Is it "has improved" (has X improved) or "has an effect" (does X have an effect)."""
    if lower[0] == "no":
        return _made("Does" if verb == "has" else "Do", subject, ["have", *rest[1:]], "no")
    if re.search(r"ed$|^been$", rest[0].lower()):
        return _made(verb, subject, rest, label)
    return _made("Does" if verb == "has" else "Do", subject, ["have", *rest], label)


def _hedged(subject: str, rest: list[str], lower: list[str]) -> Asked | None:
    """ "X may help" -> "Does X help?", maybe; "may be used" -> "Can X be used?"."""
    if lower[0] in _NOT or lower[0] == "have" or len(rest) < 2:
        return None
    if lower[0] == "be":
        return _made("Are" if is_plural(subject) else "Is", subject, rest[1:], "maybe", "hedged")
    return _made("Do" if is_plural(subject) else "Does", subject, rest, "maybe", "hedged")


def is_plural(subject: str) -> bool:
    """Whether the head of a noun phrase, the word before its first preposition, is a plural."""
    head = re.split(r" (?:of|in|for|with|to|by|on|from|at|after|during|between)\b", subject)[0]
    last = re.sub(r"\W*\([^)]*\)|\W+$", "", head).split(" ")[-1]
    several = re.search(r"\band\b", head) is not None
    return several or re.search(r"(?<![suiy])s$", last) is not None


def _infinitives(rest: list[str], lower: list[str], tags: list[str]) -> list[str]:
    """The rest with the verbs that "and" joins to the first in their base: "and reduces"."""
    words = list(rest)
    for i in range(1, len(words)):
        joined = lower[i - 1] in ("and", "or", "but") or (
            lower[i - 1].endswith("ly") and i > 1 and lower[i - 2] in ("and", "or", "but")
        )
        base, share = verbs().get(lower[i], ("", 1.0))
        after = lower[i + 1] if i + 1 < len(lower) else ""
        noun = share > NOUN_SHARE and after in (_AFTER_NOUNS | _AFTER_MANY)
        if joined and base and base != lower[i] and (tags[i] in FINITE or not noun):
            words[i] = base
    return words


def _made(front: str, subject: str, rest: list[str], label: str, rule: str = "statement") -> Asked:
    return Asked(f"{front.capitalize()} {subject} {' '.join(rest)}?", label, rule)
