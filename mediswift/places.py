"""Where on this machine files are: those of a user, and what was made once and can be made again.

Decisions: one folder for all that was made, which the environment may name; what is made of files
is found under a name made of them. A file is taken by its place, whatever its name; of a folder,
the files whose names end as they should.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn


def cache_dir() -> Path:
    """Folder of downloads, made if missing: `$MEDISWIFT_CACHE`, else `~/.cache/mediswift`.

    >>> cache_dir()  # doctest: +SKIP
    PosixPath('/home/ada/.cache/mediswift')
    """
    path = Path(os.environ.get("MEDISWIFT_CACHE") or "~/.cache/mediswift").expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_files(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file at `path`; or all under that folder that end in `suffixes`, sorted by path.

    Capitals in names do not matter. Hidden files and folders are left out, since systems and
    editors put them beside the others; linked folders are not entered. Raises FileNotFoundError if
    there is no such file or folder, or nothing in the folder, and OSError for a folder, this one
    or below it, that cannot be read.

    >>> find_files("shared", (".jsonl", ".jsonl.gz", ".jsonl.zst"))  # doctest: +SKIP
    [PosixPath('shared/abstracts.jsonl.zst'), PosixPath('shared/fulltext.jsonl.zst')]
    """
    path = Path(path).expanduser()
    if path.is_file():
        return [path]
    files = sorted(p for p in _below(path) if p.name.lower().endswith(suffixes))
    if not files:
        raise FileNotFoundError(
            f"documents are read from a file, or a folder of {', '.join(suffixes)} files; "
            f"{str(path)!r} is neither. Check the path, or download the files first."
        )
    return files


def _below(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = (name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    """Half a corpus that looks whole is worse than none."""
    raise error


def cache_key(parts: list) -> str:
    """Name, in the cache folder, of what was made of `parts`: JSON values, and paths of files.

    A file counts by its place, size and time of change, so that a changed one is never served
    stale.

    >>> cache_key([1, "medline"]) == cache_key([1, "medline"]) != cache_key([2, "medline"])
    True
    """
    return hashlib.sha256(json.dumps(parts, default=_stamp).encode()).hexdigest()[:32]


def _stamp(file: Path) -> list:
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]
