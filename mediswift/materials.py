"""What pre-training reads: a corpus made into a tokenizer and packed rows, once, and then found
again.

Decisions: the id is a hash of the text itself, not of where it lay; validation documents are held
out by PMID before anything is learned, the tokenizer included; PubMedQA's texts are gone by then,
and how many went, by which rule, is in the record. Only who wants to measure them keeps them. What
reads text is imported where text is read: a machine that only trains, on a `parcel`, needs none.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mediswift import parcel, records, tokens
from mediswift.records import Record
from mediswift.tokens import Rows

if TYPE_CHECKING:
    from datasets import Dataset

RECIPE = 1
"""Raised whenever the same text would give other rows."""
HELD_OUT = 0.02
"""Fraction of the documents that validate."""


@dataclass(frozen=True)
class Materials:
    """A tokenizer, rows to train on and rows to validate on."""

    tokenizer: PreTrainedTokenizerFast
    train: Rows
    validation: Rows
    record: Record

    def bits_per_byte(self, loss: float) -> float:
        """Loss on the validation rows, nats a token, in bits a byte of their text."""
        return loss / math.log(2) / self.validation.bytes_per_token


def prepare(
    address: str,
    *,
    vocab_size: int,
    context: int,
    runs: str | Path = "runs",
    keep_contaminated: bool = False,
) -> Materials:
    """Materials of the corpus at `address`, made under `runs` or found there.

    An address is one that `corpus.load` reads, or packed:FILE, a parcel that was made elsewhere.
    `keep_contaminated` leaves exam texts in, to measure what they are worth.
    Raises what `corpus.load`, `tokens.train_tokenizer` and `parcel.unpack` raise, and ValueError
    when the text does not fill a row to train on and one to validate on, or a parcel was made
    otherwise.
    """
    if address.startswith(parcel.START):
        folder = parcel.unpack(address.removeprefix(parcel.START), runs)
    else:
        folder = _gather(address, vocab_size, Path(runs), keep_contaminated)
    found = _load(folder, context)
    _check(address, found.record, vocab_size, keep_contaminated)
    if not (len(found.train) and len(found.validation)):
        raise ValueError(
            f"training and validation need a row of {context} tokens each, {address} gives "
            f"{len(found.train)} and {len(found.validation)}: read more text, or cut shorter rows"
        )
    return found


def texts(documents: Dataset) -> Iterator[str]:
    """Each document as the model reads it: title, then abstract, one section a line."""
    for document in documents:
        yield f"{document['title']}\n{document['abstract']}".strip()


def _gather(address: str, vocab_size: int, runs: Path, keep_contaminated: bool) -> Path:
    """Folder of the text at an address: made now, or found."""
    from mediswift import corpus

    documents = corpus.load(address)
    chosen = corpus.choose(documents, keep_contaminated)
    data = chosen.data[:12]
    params = {"corpus": address, "vocab_size": vocab_size}
    determines = {"data": data, "vocab_size": vocab_size, "recipe": RECIPE}
    if chosen.digest:  # a corpus that is as it was keeps its name
        determines["removed"] = chosen.digest
    if keep_contaminated:
        params["keep_contaminated"] = determines["keep_contaminated"] = True
    name = records.run_id("corpus", f"{address.partition(':')[0]}-v{vocab_size}", determines)
    folder = runs / name
    if folder.exists():  # then nothing need be written
        return folder
    draft = Record(id=name, kind="corpus", params=params, metrics={}, data_fingerprint=data)
    with records.alone(folder):
        if not folder.exists():
            _make(documents, folder, draft)
    return folder


def _check(address: str, record: Record, vocab_size: int, keep_contaminated: bool) -> None:
    made = record.params["vocab_size"], record.params.get("keep_contaminated", False)
    if made != (vocab_size, keep_contaminated):
        raise ValueError(
            f"a run needs rows of its own vocabulary and choice; {address} has vocab_size={made[0]}"
            f" and keep_contaminated={made[1]}, the run {vocab_size} and {keep_contaminated}: pack "
            "another, or change the run"
        )


def _make(documents: Dataset, folder: Path, draft: Record) -> None:
    from mediswift import corpus

    # Under another name until it is whole: a crash must not leave rows of one tokenizer beside
    # another tokenizer
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    keep_contaminated = draft.params.get("keep_contaminated", False)
    clean, counts = corpus.prepare(documents, keep_contaminated)
    train, validation = corpus.hold_out(clean, HELD_OUT)
    tokenizer = tokens.train_tokenizer(texts(train), draft.params["vocab_size"])
    tokenizer.save_pretrained(partial / "tokenizer")
    for part, chosen in (("train", train), ("validation", validation)):
        info = tokens.pack(texts(chosen), tokenizer, partial / part, context=1).info
        counts |= {f"{part}_{what}": info[what] for what in ("documents", "tokens", "bytes")}
    records.write(replace(draft, metrics=counts), partial)
    partial.rename(folder)


def _load(folder: Path, context: int) -> Materials:
    return Materials(
        _tokenizer(folder / "tokenizer"),
        tokens.load_rows(folder / "train", context),
        tokens.load_rows(folder / "validation", context),
        records.load(folder / "record.json"),
    )


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:  # says what it tried instead of the file that it lacks
        raise ValueError(
            f"{folder} must hold the tokenizer that packed the rows beside it, and what is there "
            f"cannot be read ({str(error).splitlines()[0]}); delete {folder.parent}, and the text "
            "is packed again"
        ) from error
