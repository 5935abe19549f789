"""Make `data/sample/`: small synthetic abstracts and questions in the shape of PubMed and PubMedQA.

Everything in them is invented: drugs, genes, diseases, places and findings. They only have the form
of biomedical English, so that every step of the book can run offline in seconds. They are evidence
about nothing, and each item says so twice (`synthetic: true`, and SYNTHETIC in its source).

Decisions

- A grammar (`sample_grammar.txt`), not a language model: the answer is known before the text is
  written, so it can always be read off the RESULTS.
- An abstract and a question are two views of one invented study. A question hides the conclusion,
  as PubMedQA does.
- Only `Random.random()` is drawn from: Python promises its sequence for every version, which it
  does not for `choice` and `shuffle`. So the bytes are the same on every machine.
- PMIDs begin with "S" and never meet a real one. The human prediction fields of the official file
  are left out: no human answered these.

Run `python data/make_sample.py` to write the two files again.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

DATA = Path(__file__).parent
SOURCE = "SYNTHETIC (invented by data/make_sample.py)"
SHARES = {"yes": 0.55, "no": 0.34, "maybe": 0.11}  # PubMedQA's 1,000 expert-labeled items
SECTIONS = ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"]
KINDS = ["trial", "risk", "test", "cell"]

Grammar = dict[str, list[str]]


def make_sample(documents: int = 300, questions: int = 200, seed: int = 0) -> tuple[str, str]:
    """Two file contents: the abstracts as JSON lines, the questions as one JSON object by PMID.

    >>> abstracts, questions = make_sample(documents=1, questions=1)
    >>> abstracts[:19], questions[4:11]
    ('{"src": "SYNTHETIC ', 'S100001')
    """
    random = Random(seed)
    studies = list(make_studies(documents, random)) + list(make_studies(questions, random))
    lines = [make_abstract(f"S{i:06d}", s) for i, s in enumerate(studies[:documents], 1)]
    items = {f"S{i:06d}": make_question(s) for i, s in enumerate(studies[documents:], 100_001)}
    return "".join(json.dumps(line) + "\n" for line in lines), json.dumps(items, indent=1) + "\n"


def make_abstract(pmid: str, study: dict[str, str]) -> dict:
    """One record of the corpus: a structured abstract with its four sections."""
    return {
        "src": SOURCE,
        "synthetic": True,
        "pmid": pmid,
        "year": study["year"],
        "title": study["title"] + ".",
        "abstract": [[label, study[label]] for label in SECTIONS],
    }


def make_question(study: dict[str, str]) -> dict:
    """One question in the fields of `ori_pqal.json`; the conclusion becomes the long answer."""
    return {
        "SOURCE": SOURCE,
        "synthetic": True,
        "QUESTION": study["question"],
        "CONTEXTS": [study[label] for label in SECTIONS[:-1]],
        "LABELS": SECTIONS[:-1],
        "MESHES": ["Humans", study["condition"].title()],
        "YEAR": study["year"],
        "final_decision": study["answer"],
        "LONG_ANSWER": study["CONCLUSIONS"],
    }


def make_studies(count: int, random: Random) -> Iterator[dict[str, str]]:
    """About `count` studies in random order, their answers in the proportions of `SHARES`."""
    grammar = load_grammar()
    answers = [answer for answer, share in SHARES.items() for _ in range(round(count * share))]
    for answer in sorted(answers, key=lambda _: random.random()):
        yield make_study(answer, grammar, random)


def make_study(answer: str, grammar: Grammar, random: Random) -> dict[str, str]:
    """The facts of one study, and its texts, whose RESULTS support `answer`."""
    facts = {"answer": answer}
    for rule in grammar:
        if rule.endswith("_"):
            facts[rule[:-1]] = expand(rule, facts, grammar, random)
    kind = pick(KINDS, random)
    rules = ("title", "question", "background", "methods", answer, f"conclusion {answer}")
    for part, rule in zip(["title", "question", *SECTIONS], rules, strict=True):
        facts[part] = sentence_case(expand(f"{kind} {rule}", facts, grammar, random))
    return facts


def load_grammar() -> Grammar:
    """The alternatives of each rule in `sample_grammar.txt`, whose first lines explain its form."""
    text = (DATA / "sample_grammar.txt").read_text(encoding="utf-8")
    rules = re.findall(r"^([\w ]+):\n((?:  .+\n)+)", text, re.MULTILINE)
    return {
        name: [option for line in body.splitlines() for option in line.strip().split("|")]
        for name, body in rules
    }


def expand(rule: str, facts: dict[str, str], grammar: Grammar, random: Random) -> str:
    """One alternative of the rule with its names in braces filled: by a fact, else by a rule."""
    option = pick(grammar[rule], random)
    low, dots, high = option.partition("..")
    if dots:
        return between(low, high, random)
    return re.sub(
        r"\{([\w ]+)\}",
        lambda name: facts.get(name[1]) or expand(name[1], facts, grammar, random),
        option,
    )


def pick(options: list[str], random: Random) -> str:
    """One of the options, each as likely as the others."""
    return options[int(random.random() * len(options))]


def between(low: str, high: str, random: Random) -> str:
    """A number from `low` to `high`, both included, with as many decimals as they have.

    >>> between("0.05", "0.05", Random(0))
    '0.05'
    """
    decimals = len(low.partition(".")[2])
    first, last = (int(bound.replace(".", "")) for bound in (low, high))
    return f"{(first + int(random.random() * (last - first + 1))) / 10**decimals:.{decimals}f}"


def sentence_case(text: str) -> str:
    """The text with a capital at the start of each sentence.

    >>> sentence_case("pain fell. sleep improved.")
    'Pain fell. Sleep improved.'
    """
    return re.sub(r"(^|[.?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def main() -> None:
    """Write both files, each under a temporary name first."""
    (DATA / "sample").mkdir(exist_ok=True)
    for name, content in zip(("abstracts.jsonl", "questions.json"), make_sample(), strict=True):
        draft = DATA / "sample" / f"{name}.new"
        draft.write_bytes(content.encode())
        os.replace(draft, DATA / "sample" / name)


if __name__ == "__main__":
    main()
