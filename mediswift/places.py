"""Where on this machine is kept what was made once and can be made again.

Decisions: one folder for all of it, which the environment may name; what is made of files is found
under a name made of them.
"""

import hashlib
import json
import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of downloads, made if missing: `$MEDISWIFT_CACHE`, else `~/.cache/mediswift`.

    >>> cache_dir()  # doctest: +SKIP
    PosixPath('/home/ada/.cache/mediswift')
    """
    path = Path(os.environ.get("MEDISWIFT_CACHE") or "~/.cache/mediswift").expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


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
