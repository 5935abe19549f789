"""Titles that say what was looked at, and conclusions that say what was seen.

Decisions. "Effect of X on Y" asks whether X affects Y; the answer is in the conclusion. It is "no"
where the conclusion denies and affirms nothing, "yes" where it affirms and denies nothing, and
"maybe" where it says "may", or that the evidence does not decide. Where several are said ("X
improved A but not B"), nobody knows which the title means: such a paper gives no question. Advice
("further studies are needed") is no finding, and a plan ("this trial will") has none. The words
are few and plain; how often they are wrong is on the data card, from a reader's judgments.
Refused: a classifier, whose mistakes nobody could read.
"""

import re

from mediswift.statements import Asked, is_plural, lower_first, main_part, trim

_START = r"^(?:the |an? )?(?:[a-z-]+ )?"
_TITLES = (
    (re.compile(_START + r"(?:effects?|influence|impact) of (.+?) on (.+)$", re.I), "affect"),
    (re.compile(_START + r"(?:efficacy|effectiveness) of (.+?) (?:in|for) (.+)$", re.I), "work"),
    (re.compile(_START + r"(?:association|relationship) of (.+?) with (.+)$", re.I), "relate"),
    (re.compile(_START + r"(?:association|relationship) between (.+?) and (.+)$", re.I), "relate"),
)
_CHANGE = (
    r"(?:affect|alter|influenc|chang|improv|reduc|increas|decreas|enhanc|inhibit|prevent|induc|"
    r"promot|attenuat|modif|modulat|suppress|impair|stimulat|protect|benefit|differ|lower|"
    r"prolong|accelerat|worsen|lead|contribut|provid|predict|correlat|associat|relat|shorten)"
)
_THING = (
    r"(?:effects?|differences?|influence|impact|changes?|benefits?|improvements?|associations?|"
    r"advantages?|increases?|reductions?|decreases?|correlations?|relationships?|role|"
    r"superiority|evidence)"
)
_DENIES = re.compile(
    rf"\b(?:no|none)(?: (?:\w+|[\w-]+,)){{0,4}}? (?:{_THING}|{_CHANGE}\w*)\b"
    rf"|\b(?:not|n't|never|cannot)(?: \w+){{0,4}}? (?:{_CHANGE}\w*|{_THING}|effective|superior|"
    r"better)\b|\b(?:neither|ineffective|unaffected|unrelated|unchanged|fail(?:s|ed)? to)\b",
    re.IGNORECASE,
)
_QUALIFIES = re.compile(
    r"\b(?:similar\w*|comparable|equivalent|not|little|limited|no|independent\w*|neither|nor)\b",
    re.IGNORECASE,
)
_AFFIRMS = re.compile(
    rf"\b{_CHANGE}(?:e?s|e?d|ing|e|ies|ied|t?ions?|ations?|ement)?\b|\b(?:effective|efficacious|"
    r"beneficial|superior\w*|useful|better|higher|greater|worse|more|less|fewer|promising|"
    r"important role|effects?|impacts?|influences?)\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(r"\b(?:may|might|could)\b.*?(?:[,;]|$)", re.IGNORECASE)
_PLAINLY = re.compile(rf"\b(?!relat|associat|correlat){_CHANGE}(?:e?s|e?d)\b", re.IGNORECASE)
"""A finding beside a hedge: "it reduced pain, and may prevent more"."""
_OPEN = re.compile(
    r"\b(?:inconclusive|unclear|insufficient (?:evidence|data)|uncertain|conflicting|"
    r"inconsistent|cannot be (?:concluded|drawn|established|determined)|equivocal|"
    r"no (?:firm |definit\w+ )?conclusions?|not (?:clear|conclusive))\b",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"\b(?:further|future|should|needs?|needed|warrant\w*|recommend\w*|required?|more research)\b",
    re.IGNORECASE,
)
_COMPARES = re.compile(r"\b(?:versus|vs|compared|comparing|case|or|protocol)\b", re.IGNORECASE)
_TURNS = re.compile(r"\b(?:but|although|however|while|except|despite)\b", re.IGNORECASE)
_PLAN = re.compile(r"\bwill\b|\bcase\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.;])\s+")


def ask(title: str, conclusion: str) -> Asked | None:
    """The question of a title "Effect of X on Y" and the conclusion's answer, or None.

    >>> ask("Effect of zinc on colds: a trial", "Zinc did not shorten colds.")
    Asked(question='Does zinc affect colds?', label='no', rule='effect')
    """
    main = main_part(trim(title))
    for pattern, kind in _TITLES:
        found = pattern.match(main)
        if found and not _COMPARES.search(main) and not (kind == "work" and " on " in found[1]):
            label = answer(conclusion, f"{found[1]} {found[2]}")
            asked = _question(kind, lower_first(found[1]), found[2])
            return Asked(asked, label, "effect") if label and len(asked.split()) < 40 else None
    return None


def answer(conclusion: str, topic: str = "") -> str:
    """What a conclusion says, "yes", "no" or "maybe"; "" where it says several or none.

    Only sentences that share a word with the `topic` count, if there is one.

    >>> answer("Zinc shortened colds."), answer("It is unclear."), answer("Zinc was given.")
    ('yes', 'maybe', '')
    """
    if _PLAN.search(conclusion):
        return ""
    about = set(re.findall(r"[\w-]{4,}", topic.lower()))
    sentences = [s for s in _SENTENCE.split(conclusion) if not _ADVICE.search(s)]
    said = {_sentence(s) for s in sentences if not topic or any(w in s.lower() for w in about)}
    said.discard("")
    if said == {"yes", "maybe"}:
        return "yes"  # one sentence says plainly what another says with care
    return said.pop() if len(said) == 1 and "mixed" not in said else ""


def _sentence(text: str) -> str:
    """What one sentence says: yes, no, maybe, mixed or nothing."""
    if _OPEN.search(text):
        return "maybe"
    denies, rest = bool(_DENIES.search(text)), _DENIES.sub(" ", text)
    affirms = bool(_AFFIRMS.search(rest))
    if denies:
        return "mixed" if affirms or _TURNS.search(text) else "no"
    if not affirms:
        return ""
    if _QUALIFIES.search(text):
        return "mixed"
    if not _HEDGED.search(text):
        return "yes"
    return "yes" if _PLAINLY.search(_HEDGED.sub(" ", text)) else "maybe"


def _question(kind: str, what: str, other: str) -> str:
    several = is_plural(what)
    do, be = ("Do", "Are") if several else ("Does", "Is")
    return {
        "affect": f"{do} {what} affect {other}?",
        "work": f"{be} {what} effective in {other}?",
        "relate": f"{be} {what} associated with {other}?",
    }[kind]
