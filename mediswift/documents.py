"""One clean document out of a record, and documents out of JSON lines.

Decisions. Public text comes under a handful of field names and in two forms of abstract: they are
read here, once, and anything else is an error that shows what came. Cleaning changes no word:
Unicode is composed, spaces are made single, and NLM's mark of a truncated abstract goes. A full
text may come in a document apart from its abstract: `form` tells the two from two versions of one.
Refused: taking a field called `id` for the PMID. The abstracts behind exam questions are kept out
by PMID, so a wrong one would do harm without a sign.
"""

import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pyarrow

TEXT_FIELDS = ("abstract", "body", "text", "content", "contents")
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")

_PMID = re.compile(r"(?:pmid:?\s*)?0*(\d+)(?:\.0)?", re.IGNORECASE)  # pandas: 123.0 if some lack
_TRUNCATED = re.compile(r"\(ABSTRACT TRUNCATED[^)]*\)")  # NLM cut long abstracts until 2000


def make_document(record: dict, source: str) -> dict[str, str]:
    """One clean document, the texts `pmid, title, abstract, year, source, form`; "" where unknown.

    `abstract` is text or a list of `[label, text]`, made into one section a line, "LABEL: text";
    `body` is full text and follows it; `form` is "body" if it comes alone. If both are missing,
    `text`, `content` or `contents` serves. Capitals in names do not matter. The record's own `src`
    or `source` goes before `source`.

    Raises ValueError if there is neither a title nor any text field, or one has another form.

    >>> sections = [["AIM", "To  rest."], [None, "We did."]]
    >>> made = make_document({"PMID": 7, "abstract": sections}, "mine")
    >>> made["pmid"], made["abstract"], made["form"]
    ('7', 'AIM: To rest.\\nWe did.', '')
    """
    fields = {name.lower(): value for name, value in record.items()}
    if not fields.keys() & {"title", *TEXT_FIELDS}:
        raise ValueError(
            f"a document has one of the fields {', '.join(TEXT_FIELDS)}; "
            f"this one has {', '.join(map(repr, record)) or 'none'}. Rename its fields."
        )
    text, form = _join_texts(fields)
    return {
        "pmid": _normalize_pmid(fields.get("pmid")),
        "title": _one_line(_to_text(fields.get("title"))),
        "abstract": text,
        "year": _to_text(fields.get("year"))[:4],
        "source": _to_text(fields.get("src")) or _to_text(fields.get("source")) or source,
        "form": form,
    }


def clean(text: str) -> str:
    """The text in composed Unicode (NFC), one space between words, no empty lines.

    >>> clean(" Sleep  is\\u00a0good. (ABSTRACT TRUNCATED AT 250 WORDS)\\n\\n So  is rest.")
    'Sleep is good.\\nSo is rest.'
    """
    lines = _TRUNCATED.sub("", unicodedata.normalize("NFC", text)).split("\n")
    return "\n".join(filter(None, (" ".join(line.split()) for line in lines)))


def read_jsonl(path: Path, source: str) -> Iterator[dict[str, str]]:
    """Documents of a file with one JSON object a line: plain, .gz or .zst; `source` as above.

    Raises ValueError naming the file, and the line where there is one, if it is damaged, cut short
    or unfitting.
    """
    for number, line in enumerate(_read_lines(path), start=1):
        try:
            if line.strip():
                yield make_document(_parse_object(line), source)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def read_objects(path: Path) -> Iterator[dict]:
    """Objects of a file of JSON lines as they are, with fields that no document keeps."""
    return (_parse_object(line) for line in _read_lines(path) if line.strip())


def _read_lines(path: Path) -> Iterator[str]:
    """Arrow opens all three alike and, unlike zstandard's own reader, reports a file cut short."""
    try:
        with io.TextIOWrapper(pyarrow.input_stream(str(path)), "utf-8", newline="\n") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"a file of documents must be whole, and UTF-8; {path} is not: {error}. "
            "Copy or download it again."
        ) from error


def _parse_object(line: str) -> dict:
    try:
        record = json.loads(line)
    except RecursionError:
        raise ValueError(
            f"each line must be one JSON object of a few levels; got {line[:60]!r}. Flatten it."
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"each line must be one JSON object; got {line[:60]!r}, wrong at column "
            f"{error.colno}: {error.msg}. Write a document a line, with no line breaks inside."
        ) from error
    if not isinstance(record, dict):
        raise ValueError(
            f"each line must be one JSON object; got {line[:60].strip()!r}. "
            'Write {"pmid": ..., "title": ..., "abstract": ...}.'
        )
    return record


def _join_texts(fields: dict) -> tuple[str, str]:
    """Text of a document, and its form."""
    abstract, body = (_flatten(fields.get(name)) for name in TEXT_FIELDS[:2])
    other = filter(None, (_flatten(fields.get(name)) for name in TEXT_FIELDS[2:]))
    text = "\n".join(filter(None, (abstract, body))) or next(other, "")
    return text, "body" if body and not abstract else ""


def _flatten(value: object) -> str:
    """Clean text of an abstract or body, one section a line, each after its label if it has one."""
    if value is None or isinstance(value, str):
        return clean(value or "")
    if not isinstance(value, list):
        raise ValueError(
            f"an abstract must be text or a list of [label, text]; got {value!r:.60}. Convert it."
        )
    return "\n".join(filter(None, map(_flatten_section, value)))


def _flatten_section(section: object) -> str:
    match section:
        case [str() | None as label, str() as text]:
            label, text = _one_line(label or ""), _one_line(text)
            return f"{label}: {text}" if label and text else text
    raise ValueError(
        f"a section must be [label, text]; got {section!r:.60}. Use null for no label."
    )


def _one_line(text: str) -> str:
    return clean(text).replace("\n", " ")


def _normalize_pmid(value: object) -> str:
    word = _to_text(value)
    match = _PMID.fullmatch(word)
    return match[1] if match else word


def _to_text(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()  # NaN differs from itself
