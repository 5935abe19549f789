"""Titles that say what was looked at, and conclusions that say what was seen.

Decisions. "Effect of X on Y" asks whether X affects Y; the answer is in the conclusion. It is "no"
where the conclusion denies and affirms nothing, "yes" where it affirms and denies nothing, and
"maybe" where it says itself that the evidence does not decide. Where both are said ("X improved A
but not B"), nobody knows which of them the title means: such a paper gives no question. The words
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
    rf"\b(?:no|without)(?: (?:\w+|[\w-]+,)){{0,4}}? (?:{_THING}|{_CHANGE}\w*)\b"
    rf"|\b(?:not|n't|never)(?: \w+){{0,4}}? (?:{_CHANGE}\w*|{_THING}|effective|superior|better)\b"
    r"|\b(?:neither|ineffective|unaffected|unrelated|unchanged|fail(?:s|ed)? to|little effect)\b"
    r"|\bindependent of\b|\bsimilar\b|\bcomparable\b|\bequivalent\b|\bnot\b",
    re.IGNORECASE,
)
_AFFIRMS = re.compile(
    rf"\b{_CHANGE}(?:e?s|e?d|ing|e|ies|ied)?\b|\b(?:effective|efficacious|beneficial|superior|"
    r"useful|better|higher|greater|worse|more|less|promising|important role|significant effects?)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:inconclusive|unclear|insufficient (?:evidence|data)|uncertain|conflicting|"
    r"inconsistent|remains? to be|cannot be (?:concluded|drawn)|limited evidence|"
    r"no (?:firm |definit\w+ )?conclusions?|not (?:clear|conclusive)|equivocal)\b",
    re.IGNORECASE,
)


def ask(title: str, conclusion: str) -> Asked | None:
    """The question of a title "Effect of X on Y" and the conclusion's answer, or None.

    >>> ask("Effect of zinc on colds: a trial", "Zinc did not shorten colds.")
    Asked(question='Does zinc affect colds?', label='no', rule='effect')
    """
    main = main_part(trim(title))
    for pattern, kind in _TITLES:
        if found := pattern.match(main):
            label = answer(conclusion)
            asked = _question(kind, lower_first(found[1]), found[2])
            return Asked(asked, label, "effect") if label and len(asked.split()) < 40 else None
    return None


def answer(conclusion: str) -> str:
    """What a conclusion says, "yes", "no" or "maybe"; "" where it says several or none.

    >>> answer("Zinc shortened colds."), answer("It is unclear."), answer("Zinc was given.")
    ('yes', 'maybe', '')
    """
    if _OPEN.search(conclusion):
        return "maybe"
    denies = bool(_DENIES.search(conclusion))
    affirms = bool(_AFFIRMS.search(_DENIES.sub(" ", conclusion)))
    return {(True, False): "no", (False, True): "yes"}.get((denies, affirms), "")


def _question(kind: str, what: str, other: str) -> str:
    several = is_plural(what)
    do, be = ("Do", "Are") if several else ("Does", "Is")
    return {
        "affect": f"{do} {what} affect {other}?",
        "work": f"{be} {what} effective in {other}?",
        "relate": f"{be} {what} associated with {other}?",
    }[kind]
