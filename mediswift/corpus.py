"""Documents to pre-train on, from an address; held-out ones.

Decisions. An address says in full where text comes from (`KINDS`); a wrong one is an error, never
another source. Documents are a memory-mapped `datasets.Dataset`, so a corpus may be larger than
memory. Its Arrow file lies in the cache folder under a name made of path, size and time of change:
a changed file is never served stale. Text is cleaned once, while loading; later steps only select
(see `selection`, whose functions are reached from here too).
Refused: holding out by order or by a seed. A document's side follows from its PMID alone.
"""

import difflib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets.exceptions import DatasetGenerationError

from mediswift import demo, medline, mirror, places
from mediswift.contamination import exam_pmids
from mediswift.documents import SUFFIXES, TEXT_FIELDS, make_document, read_jsonl
from mediswift.rows import fingerprint, keys, select
from mediswift.selection import choose, prepare

__all__ = ["KINDS", "exam_pmids", "fingerprint", "hold_out", "load", "parse_address"]
__all__ += ["choose", "prepare"]

KINDS = {
    "sample": "sample:",
    "demo": "demo:",
    "jsonl": "jsonl:PATH",
    "medline": "medline:PATH",
    "salvage": "salvage:PATH",
    "hf": "hf:REPO[:CONFIG]",
}
COLUMNS = ("pmid", "title", "abstract", "year", "source")
FEATURES = Features({name: Value("string") for name in (*COLUMNS, "form")})
SCHEMA = 3
"""Raise it whenever reading or cleaning changes, so that older Arrow files are not used again."""


def load(address: str) -> Dataset:
    """Documents in the order of their source: text columns `pmid, title, abstract, year, source`,
    and `form` (see `make_document`) except of `medline:` and `salvage:`, which have no full texts.

    `sample:` is our own synthetic text; `demo:` two real MEDLINE files, downloaded once;
    `jsonl:PATH` one JSON object a line, plain, .gz or .zst, a file or a folder of them, such as one
    of abstracts and one of full text; `medline:PATH` NLM's XML, likewise, of baseline and updates
    (see `mirror`); `salvage:PATH` the same without what is damaged, which is printed;
    `hf:REPO[:CONFIG]` a dataset of the Hugging Face hub, or a local folder of that form. What
    articles of MEDLINE lack is summed up and printed. What is unknown is "". `make_document` says
    which fields are read, and how.

    Raises ValueError for a wrong address and for a damaged, unfitting or empty file,
    FileNotFoundError for a missing path.

    >>> load("sample:").column_names
    ['pmid', 'title', 'abstract', 'year', 'source', 'form']
    """
    kind, place = parse_address(address)
    if kind == "demo":
        pin = demo.load_pins()["medline"]
        return _cache(address, _read_demo, [pin["sha256"], pin["members"]])
    if kind == "hf":
        rows = _load_hub(place)
        return _cache(
            address, lambda: (make_document(row, place) for row in rows), [rows._fingerprint]
        )
    if kind in ("medline", "salvage"):
        return mirror.load(place, salvage=kind == "salvage").select_columns(list(COLUMNS))
    if kind == "sample":
        place = str(demo.DATA / "sample" / "abstracts.jsonl")
    files = places.find_files(place, SUFFIXES)
    return _cache(address, lambda: (row for f in files for row in read_jsonl(f, f.name)), files)


def parse_address(address: str) -> tuple[str, str]:
    """Kind and place of an address: what stands before and after its first colon.

    Raises ValueError, with all kinds and the nearest, if it is none or lacks its place.

    >>> parse_address("jsonl:abstracts.jsonl.zst")
    ('jsonl', 'abstracts.jsonl.zst')
    """
    kind, colon, place = str(address or "").partition(":")
    if kind in KINDS and colon and bool(place) == (KINDS[kind] != f"{kind}:"):
        return kind, place
    near = difflib.get_close_matches(kind.lower(), KINDS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"an address is one of {', '.join(KINDS.values())}; got {address!r}. "
        f"The nearest is {KINDS[near]}. Training takes packed:FILE, too."
    )


def hold_out(documents: Dataset, fraction: float = 0.02) -> tuple[Dataset, Dataset]:
    """Training and validation documents; the latter are about `fraction` of all.

    A hash of the PMID decides, or of the text if there is none: never order, nor company.
    Raises ValueError if one of the two would be empty.

    >>> train, validation = hold_out(load("sample:"), fraction=0.1)
    >>> set(train["pmid"]) & set(validation["pmid"])
    set()
    """
    held = [zlib.crc32(pmid.encode() or text) < fraction * 2**32 for pmid, text in keys(documents)]
    if not 0 < sum(held) < len(held):
        raise ValueError(
            f"both sides of a hold-out need documents; fraction={fraction} puts {sum(held)} of "
            f"{len(held)} into validation. Take another fraction, or more documents."
        )
    return select(documents, (not is_held for is_held in held)), select(documents, held)


def _cache(address: str, read: Callable[[], Iterator[dict]], parts: list) -> Dataset:
    """What `read` yields, memory-mapped; read anew only if `parts`, files or not, have changed."""
    key = places.cache_key([SCHEMA, address, parts])
    folder = places.cache_dir() / "documents"
    try:
        return Dataset.from_generator(
            lambda: _some(read(), address),
            features=FEATURES,
            cache_dir=str(folder),
            fingerprint=key,
        )
    except DatasetGenerationError as error:  # says only that something failed; its cause says what
        raise (error.__cause__ or error) from None


def _some(rows: Iterator[dict], address: str) -> Iterator[dict]:
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise ValueError(f"a corpus has one document or more, {address} has none; add some")


def _read_demo() -> Iterator[dict]:
    for member in demo.load_pins()["medline"]["members"]:
        name = Path(member).name
        with demo.open_member("medline", member) as stream:
            rows = (row for row in medline.read(stream, name) if "eng" in row["language"])
            yield from (make_document(row | {"abstract": row["sections"]}, name) for row in rows)


def _load_hub(place: str) -> Dataset:
    """The `train` split, or the only one, of a dataset of the hub; its own code is never run."""
    repo, _, config = place.partition(":")
    if repo.startswith((".", "/", "~")):  # the hub's own error would speak of a bad repository name
        repo = str(Path(repo).expanduser())
        if not Path(repo).is_dir():
            raise FileNotFoundError(
                f"a local dataset is a folder of the hub's form; none is at {repo!r}. Check it."
            )
    splits: DatasetDict = load_dataset(repo, config or None)
    if "train" not in splits and len(splits) > 1:
        raise ValueError(
            f"documents come from a split named train; {place} has {', '.join(splits)}. Rename one."
        )
    rows = splits["train"] if "train" in splits else next(iter(splits.values()))
    if not {name.lower() for name in rows.column_names} & set(TEXT_FIELDS):
        raise ValueError(
            f"documents need a column {', '.join(TEXT_FIELDS)}; "
            f"{place} has {', '.join(rows.column_names)}. Rename one, or convert it to jsonl:PATH."
        )
    return rows
