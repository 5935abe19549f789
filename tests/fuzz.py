"""Input made up by Hypothesis for every reader: what is refused is refused with a message.

Decisions. A reader may return, or raise ValueError or OSError with a text: nothing else, not even a
RecursionError; it may not take long, nor much memory. What is fed is half right, since pure noise
is refused at the first byte: values of any type under the true names, and a true file with bytes
changed, cut or nested. A further reader is one line in `READERS`. Called by `faults.py`, and with a
few examples by `test_fuzz.py`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from mediswift import corpus, demo, documents, medline, pretrain, questions, records, runner
from mediswift.typed import from_json

LONGEST = timedelta(seconds=20)
"""For one input, on a busy machine."""
REFUSED = (ValueError, OSError)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "yes", "..", "../../x", "/etc/passwd", "$HOME", "\ud800", "1e999", "nan"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
DEEP = st.sampled_from(["[", '{"a":', "- ", "{a: ", "[{"]).map(lambda start: start * 20_000)


def objects(names: list[str]) -> st.SearchStrategy[dict]:
    """Objects with some of the true names, some wrong ones, and any values."""
    keys = st.sampled_from(names) | st.text(max_size=6)
    return st.dictionaries(keys, VALUES, max_size=len(names))


def damaged(true: str) -> st.SearchStrategy[bytes]:
    """A true file with a few bytes changed, taken out or put in, or cut."""
    content = true.encode()
    edit = st.tuples(st.integers(0, len(content)), st.integers(0, 3), st.binary(max_size=4))

    def changed(edits: list[tuple[int, int, bytes]]) -> bytes:
        found = content
        for place, gone, new in edits:
            found = found[:place] + new + found[place + gone :]
        return found

    return st.lists(edit, max_size=4).map(changed) | st.integers(0, len(content)).map(
        lambda end: content[:end]
    )


def files(
    whole: st.SearchStrategy[Any], true: str, dump: Callable = json.dumps
) -> st.SearchStrategy:
    """Bytes of a file: an object of any values, a damaged true one, deep nesting, or noise."""
    made = whole.map(lambda content: dump(content).encode("utf-8", "surrogatepass"))
    return made | damaged(true) | DEEP.map(str.encode) | st.binary(max_size=40)


# Readers: what they are fed, and the call


def _questions(path: Path) -> None:
    questions.split(questions.load(path), "test")


def _documents(path: Path) -> None:
    list(documents.read_jsonl(path, "fuzz"))


def _corpus(path: Path) -> None:
    corpus.prepare(corpus.load(f"jsonl:{path}"))


def _record(path: Path) -> None:
    records.table([records.load(path)])


def _study(path: Path) -> None:
    runner.jobs(path)


def _parameters(path: Path) -> None:
    content = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    runner.strict(runner.ROOT / "notebooks" / "03_pretrain.ipynb", content)


def _citations(path: Path) -> None:
    with open(path, "rb") as stream:
        list(medline.read(stream, path.name))


def _configuration(path: Path) -> None:
    from_json(pretrain.PretrainConfig, path)


ITEM = ["QUESTION", "CONTEXTS", "LABELS", "LONG_ANSWER", "final_decision", "RULE", "SOURCE"]
GOOD = {"QUESTION": "Is it?", "CONTEXTS": ["We saw."], "LABELS": ["AIM"], "final_decision": "yes"}
NEARLY = st.tuples(st.sampled_from(ITEM), VALUES).map(lambda pair: GOOD | dict([pair]))
OFFICIAL = st.dictionaries(st.text(max_size=6), NEARLY | objects(ITEM), max_size=4)
DOCUMENT = ["pmid", "title", "abstract", "body", "text", "year", "source"]
RECORD = asdict(
    records.Record(id="a", kind="exam", params={"x": 1}, metrics={"y": 2.0}, data_fingerprint="")
)
RECORDS = st.tuples(st.sampled_from(sorted(RECORD)), VALUES).map(lambda pair: RECORD | dict([pair]))
CELLS = ["profile", "text", "sparsity", "pattern", "seed", "keep_contaminated", "runs"]
GIVEN = objects(CELLS)
STUDY = {"notebooks": ["03_pretrain"], "parameters": {"seed": 1}, "grid": {"sparsity": [0.5, 0.75]}}
STUDIES = st.tuples(
    st.sampled_from([*STUDY, "title"]),
    VALUES | objects(CELLS) | st.dictionaries(st.sampled_from(CELLS), st.lists(VALUES, max_size=3)),
).map(lambda pair: STUDY | dict([pair]))
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
LINES = st.lists(objects(DOCUMENT), max_size=3).map(lambda lines: "\n".join(map(json.dumps, lines)))
CONFIG = asdict(pretrain.profile("tiny"))
FIELDS = [field.name for field in fields(pretrain.PretrainConfig)]
CONFIGS = st.tuples(st.sampled_from(FIELDS), VALUES).map(lambda pair: CONFIG | dict([pair]))
TAGS = "PubmedArticle MedlineCitation PMID Article ArticleTitle Abstract AbstractText Language"
MARKUP = [f"<{end}{tag}>" for tag in [*TAGS.split(), "PubmedArticleSet"] for end in ("", "/")]
MARKUP += ["<!--", "-->", "<![CDATA[", "]]>", "<?", "&amp;", "&x;", "<!DOCTYPE a [", "]>"]
ARTICLE = (
    "<PubmedArticle><MedlineCitation><PMID Version='1'>{}</PMID><Article><ArticleTitle>A title"
    "</ArticleTitle><Abstract><AbstractText>It grows.</AbstractText></Abstract><Language>eng"
    "</Language></Article></MedlineCitation></PubmedArticle>"
)
MEDLINE = f"<PubmedArticleSet>{ARTICLE.format(1)}{ARTICLE.format(2)}</PubmedArticleSet>"
SHUFFLED = st.lists(st.sampled_from(MARKUP) | st.text(max_size=4), max_size=30).map("".join)
LAUGHS = "".join(
    f'<!ENTITY {name} "{f"&{before};" * 9}">'
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LAUGH = MEDLINE.replace("It grows.", "&i;")
LAUGH = f'<!DOCTYPE PubmedArticleSet [<!ENTITY a "ha">{LAUGHS}]>{LAUGH}'
SAMPLE = (demo.DATA / "sample" / "abstracts.jsonl").read_text(encoding="utf-8")[:1500]


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, allow_unicode=False)


READERS: dict[str, tuple[Callable[[Path], None], st.SearchStrategy[bytes]]] = {
    "PubMedQA's JSON": (_questions, files(OFFICIAL | VALUES, json.dumps({"1": GOOD, "2": GOOD}))),
    "JSONL documents": (_documents, files(LINES, SAMPLE, str)),
    "JSONL corpus": (_corpus, files(LINES, SAMPLE, str)),
    "run records": (_record, files(RECORDS | objects(sorted(RECORD)) | VALUES, json.dumps(RECORD))),
    "study files": (_study, files(STUDIES, _yaml(STUDY), _yaml) | st.just(BOMB.encode())),
    "MEDLINE XML": (_citations, files(SHUFFLED, MEDLINE, str) | st.just(LAUGH.encode())),
    "configurations": (
        _configuration,
        files(CONFIGS | objects(FIELDS) | VALUES, json.dumps(CONFIG)),
    ),
    "parameters": (_parameters, GIVEN.map(lambda c: json.dumps(c).encode())),
}
"""What is read, by whom, and what it is fed. Slow ones are fed less: see `SHARE`."""
SHARE = {"JSONL corpus": 0.1}


def feed(name: str, examples: int, number: int = 0) -> dict[str, Any]:
    """How many inputs the reader took and refused, its slowest second, and the memory it grew by.

    Raises what the reader must not raise, with the smallest input that does it.
    """
    read, inputs = READERS[name]
    counts = {"taken": 0, "refused": 0, "slowest_s": 0.0}
    before = records.peak_bytes()

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "input.yaml"

        @seed(number)
        @settings(
            max_examples=max(1, round(examples * SHARE.get(name, 1))),
            deadline=LONGEST,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def read_it(content: bytes) -> None:
            path.write_bytes(content)
            began = time.perf_counter()
            try:
                read(path)
                counts["taken"] += 1
            except REFUSED as error:
                assert str(error).strip(), "refused without a word"
                counts["refused"] += 1
            counts["slowest_s"] = max(counts["slowest_s"], time.perf_counter() - began)

        read_it()
    return {"reader": name, **counts, "grown_bytes": records.peak_bytes() - before}


if __name__ == "__main__":
    import sys
    import traceback
    import warnings

    warnings.simplefilter("ignore")

    for reader in sys.argv[2:] or READERS:
        try:
            print(feed(reader, int(sys.argv[1])))
        except Exception as failure:
            print("FAILED", reader, type(failure), str(failure)[:300])
            print("".join(traceback.format_exception(failure)[-6:])[-2500:])
