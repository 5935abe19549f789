"""What the task files beside this one ask of mediswift: the rows of the official test, rendered."""

from mediswift import protocols, pubmedqa, stats

KEYS = {"source": "ours", "harness": "lm-eval"}


def test(questions="demo:", **_):
    """{"test": rows} at the address `questions`: each with its prompts, `source` and `harness`."""
    rows = pubmedqa.split(pubmedqa.load(questions), "test")
    return {"test": rows.map(_prompts)}


def macro_f1(pairs):
    """Macro-F1 of pairs (true, given) of positions among the answers."""
    gold, given = zip(*pairs, strict=True)
    return stats.macro_f1([str(i) for i in gold], [str(i) for i in given])


def _prompts(row):
    return {name: protocols.PROTOCOLS[key].prompt(row) for name, key in KEYS.items()}
