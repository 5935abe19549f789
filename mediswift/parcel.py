"""A corpus in one file: tokenizer, packed rows and their record, for a machine that only trains.

Decisions: text is read, cleaned and packed where it lies; what leaves is about a fifth of it, and
reading it needs neither the text nor the libraries that read text. A tar, packed by xz from the
standard library: the same rows give the same file. What comes out is under the name of its record,
so a run on it is the same run. Nothing but the files of a corpus is taken out of a parcel.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import tarfile
from pathlib import Path

from mediswift import records
from mediswift.records import Record

START = "packed:"
"""How the address of a parcel begins."""
NEEDED = ("record.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json") + tuple(
    f"{part}/{name}" for part in ("train", "validation") for name in ("rows.json", "tokens.bin")
)
"""Files of a corpus; a tokenizer may have more, of JSON."""
_MORE = re.compile(r"tokenizer/\w+\.json")
_NAME = re.compile(r"corpus-[\w-]+")


def pack(corpus: str | Path, output: str | Path) -> Path:
    """File that now holds the folder `corpus`, as `materials` makes it.

    Raises FileExistsError when `output` is there: no parcel is overwritten.
    """
    corpus, output = Path(corpus), Path(output)
    if output.exists():
        raise FileExistsError(f"a parcel is never overwritten: {output} exists; name another file")
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with tarfile.open(partial, "w:xz") as file:
            for path in sorted(path for path in corpus.rglob("*") if path.is_file()):
                file.add(path, path.relative_to(corpus).as_posix(), filter=_nobodys)
        os.link(partial, output)  # unlike a move, this never takes another's place
    finally:
        partial.unlink(missing_ok=True)
    return output


def unpack(parcel: str | Path, runs: str | Path) -> Path:
    """Folder under `runs` with the corpus of a parcel: taken out now, or there already.

    Raises FileNotFoundError without a file, ValueError for one that is damaged or no parcel; then
    nothing is left of it.
    """
    parcel, runs = Path(parcel).expanduser(), Path(runs)
    if not parcel.is_file():
        raise FileNotFoundError(f"a parcel must be where {START}FILE says; no file is at {parcel}")
    runs.mkdir(parents=True, exist_ok=True)
    partial = runs / f".parcel.{os.getpid()}"
    try:
        folder = runs / _take_out(parcel, partial).id
        with records.alone(folder):
            if not folder.exists():
                partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    # Owners and times would make two files of the same rows
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member


def _take_out(parcel: Path, folder: Path) -> Record:
    try:
        with tarfile.open(parcel, "r:xz") as file:
            _check(parcel, members := file.getmembers())
            file.extractall(folder, members, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(
            f"{parcel} is damaged or no parcel ({error}); copy it again, or make one: "
            "python -m mediswift pack"
        ) from error
    record = records.load(folder / "record.json")
    if record.kind != "corpus" or not _NAME.fullmatch(record.id):
        raise ValueError(f"{parcel} must hold a corpus, and holds {record.kind} {record.id!r:.80}")
    return record


def _check(parcel: Path, members: list[tarfile.TarInfo]) -> None:
    names = [member.name for member in members]
    missing = sorted(set(NEEDED) - set(names))
    known = {name for name in names if name in NEEDED or _MORE.fullmatch(name)}
    strange = sorted(m.name for m in members if m.name not in known or not m.isreg())
    if missing or strange or len(set(names)) < len(names):
        raise ValueError(
            f"a parcel holds the files of a corpus, each once; {parcel} lacks {missing} and has "
            f"{strange[:3]} besides: make one with python -m mediswift pack"
        )
