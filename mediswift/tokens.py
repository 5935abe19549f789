"""A byte-level BPE tokenizer trained on the corpus, and the packed rows that a model reads.

Decisions: `tokenizers` trains it and `transformers` wraps it, so that it travels with the model.
Every document is opened by one end-of-text token, which is also how a question will be opened
later. Rows lie in one flat file of 16- or 32-bit ids, memory-mapped; row i is `context` inputs and
the same shifted by one, so every token is a target once, and none is lost but the tail that fills
no row (counted).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from mediswift.records import read_json, write_json

ANSWERS = (" yes", " no", " maybe")
INFO = {"tokens", "documents", "bytes", "dtype", "sha256"}
"""What packed rows say of themselves."""
END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"  # ids 0 and 1, as `models` expects


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer of `vocab_size` entries in which each answer is a single token.

    Encoding a text puts one end-of-text token in front (`add_special_tokens=False` leaves it out).
    Raises ValueError when the corpus is too small for so many entries or the answers did not fit.

    >>> texts = ["zinc helps", "iron is safe", "no effect of lead"] * 9
    >>> train_tokenizer(texts, 270).vocab_size
    270
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_answers(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
    )
    _check(wrapped, vocab_size)
    return wrapped


@dataclass(frozen=True)
class Rows:
    """Packed rows on disk, read through a memory map."""

    folder: Path
    context: int
    """Tokens in a row, T."""
    info: dict[str, Any]
    """tokens, documents, bytes, dtype, sha256."""

    @cached_property
    def tokens(self) -> np.ndarray:
        """All token ids in order, (tokens,), memory-mapped and read-only."""
        return np.memmap(self.folder / "tokens.bin", dtype=self.info["dtype"], mode="r")

    def __len__(self) -> int:
        """Count the whole rows."""
        return max(0, (self.info["tokens"] - 1) // self.context)

    def __getitem__(self, row: int) -> np.ndarray:
        """Row of T + 1 ids: inputs are the first T, targets the last T."""
        if not 0 <= row < len(self):
            raise IndexError(f"rows go from 0 to {len(self) - 1}, got {row}")
        start = row * self.context
        return self.tokens[start : start + self.context + 1].astype(np.int64)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text for each token: what turns nats a token into bits a byte."""
        return self.info["bytes"] / self.info["tokens"]

    @property
    def fingerprint(self) -> str:
        """First twelve hex digits of the sha256 of the token file."""
        return self.info["sha256"][:12]

    def __str__(self) -> str:
        """One line: rows, tokens, documents, tail."""
        tail = self.info["tokens"] - 1 - len(self) * self.context
        return (
            f"{len(self):,} rows of {self.context} from {self.info['tokens']:,} tokens in "
            f"{self.info['documents']:,} documents; {tail} tokens fill no row; {self.fingerprint}"
        )


def pack(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, folder: str | Path, context: int
) -> Rows:
    """Rows of all `texts`, written to `folder`: complete, or not there at all.

    Raises FileExistsError when the folder is there already: rows are never overwritten.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"rows are never overwritten: {folder} exists; load or delete it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    partial = place / folder.name  # its own folder: nobody else may read what mkdtemp makes
    try:
        partial.mkdir()
        with open(partial / "tokens.bin", "wb") as file:
            info = _write(file, texts, tokenizer)
        write_json(partial / "rows.json", info)
        partial.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return load_rows(folder, context)


def load_rows(folder: str | Path, context: int) -> Rows:
    """Rows that `pack` wrote.

    Raises FileNotFoundError without a folder, ValueError when the file is not the one that was
    written.
    """
    folder = Path(folder)
    if missing := [n for n in ("rows.json", "tokens.bin") if not (folder / n).exists()]:
        raise FileNotFoundError(
            f"packed rows are rows.json and tokens.bin, {folder} has no {' and '.join(missing)}; "
            "delete what is there, and make them with tokens.pack"
        )
    info = read_json(folder / "rows.json")
    if not isinstance(info, dict) or not INFO <= info.keys():
        raise ValueError(
            f"{folder / 'rows.json'} must be an object of {', '.join(sorted(INFO))}, and is not; "
            "delete the folder and pack again"
        )
    with open(folder / "tokens.bin", "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != info["sha256"]:
        raise ValueError(
            f"{folder / 'tokens.bin'} should have sha256 {info['sha256']}, has {found}: the file "
            "was damaged or changed; delete the folder and pack again"
        )
    return Rows(folder, context, info)


def _with_answers(texts: Iterable[str]) -> Iterator[str]:
    # One extra line of answers a document makes their merges frequent enough to be learned early;
    # it costs a handful of merges and no special case in the tokenizer
    for text in texts:
        yield text
        yield "".join(ANSWERS)


def _check(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> None:
    if len(tokenizer) != vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} was asked for and the corpus gave {len(tokenizer)} entries: "
            "choose a smaller one, or read more text"
        )
    broken = [a for a in ANSWERS if len(tokenizer.encode(a, add_special_tokens=False)) != 1]
    if broken:
        raise ValueError(
            f"answers must be single tokens, {broken} are not at vocab_size={vocab_size}; "
            "choose a larger vocabulary"
        )


def _write(
    file: BinaryIO, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    dtype = "uint16" if len(tokenizer) <= 2**16 else "uint32"
    counts = {"tokens": 0, "documents": 0, "bytes": 0}
    digest, backend = hashlib.sha256(), _literal(tokenizer)
    for chunk in _chunks(tqdm(texts, "packing", unit=" documents", disable=None), 1000):
        encodings = backend.encode_batch_fast(chunk)
        ids = np.concatenate([encoding.ids for encoding in encodings]).astype(dtype)
        file.write(ids.tobytes())
        digest.update(ids.tobytes())
        counts["tokens"] += len(ids)
        counts["documents"] += len(chunk)
        counts["bytes"] += sum(len(text.encode()) for text in chunk)
    return counts | {"dtype": dtype, "sha256": digest.hexdigest()}


def _literal(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    # A document that happens to spell a special token must not end itself: it is read as plain
    # text. The copy keeps the caller's tokenizer as it was
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    return backend


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
