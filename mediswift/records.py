"""What a run leaves behind: one small JSON file, and reading many of them back as one table.

Decisions: JSON only, never pickle; units are in the names of metrics; an id is readable first and
ends in a hash of everything that determines the run's numbers, so that "is this done?" needs no
database; a file is written under another name and then moved, so that a half-written record cannot
exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run: what determined it, what came out, and where it ran."""

    id: str
    kind: str
    """What made it: see the list in `book/records.md`."""
    params: dict[str, Any]
    """Everything the user chose."""
    metrics: dict[str, Any]
    """Everything that was measured; units in the names."""
    data_fingerprint: str
    """Hash of the text that went in."""
    parent: str = ""
    """Id of the run this one started from."""
    mask_digest: str = ""
    """Hash of the masks; "" for a dense run."""
    env: dict[str, Any] = field(default_factory=lambda: environment())
    created_utc: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    schema: int = SCHEMA

    def __str__(self) -> str:
        """Return the id and an aligned table of the metrics."""
        width = max((len(name) for name in self.metrics), default=0)
        rows = (f"  {name:<{width}}  {_plain(value)}" for name, value in self.metrics.items())
        return "\n".join([self.id, *rows])


def run_id(kind: str, label: str, determines: dict[str, Any]) -> str:
    """Readable id ending in a hash of `determines`, the things that fix the run's numbers.

    >>> run_id("pretrain", "demo-s75-seed0", {"lr": 1e-3})
    'pretrain-demo-s75-seed0-bb90828f77'
    """
    text = json.dumps(determines, sort_keys=True, allow_nan=False)
    return f"{kind}-{label}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def determining(config: Any, later: Mapping[str, Any], but: Collection[str] = ()) -> dict[str, Any]:
    """Fields of a dataclass that fix a run's numbers: all, without those of `but`.

    `later` are fields that are younger than the first runs, with the values that say nothing new:
    at these they are left out, so that a run keeps the id that it had.
    """
    kept = {name: value for name, value in asdict(config).items() if name not in but}
    return {n: value for n, value in kept.items() if n not in later or value != later[n]}


def write(record: Record, folder: str | Path) -> Path:
    """Path of the `record.json` written into `folder`, which is made if it is not there."""
    return write_json(Path(folder) / "record.json", asdict(record))


def load(path: str | Path) -> Record:
    """Record from a JSON file.

    Raises ValueError when the file is no record of this schema.
    """
    content = read_json(path)
    names = {f.name for f in fields(Record)}
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or set(content) != names:
        raise ValueError(
            f"a record has schema {SCHEMA} and the fields {sorted(names)}; {path} does not: "
            "make it again with this version, or read it with the version that wrote it"
        )
    kinds = {"params": dict, "metrics": dict, "env": dict, "schema": int}
    if wrong := sorted(n for n in names if not isinstance(content[n], kinds.get(n, str))):
        raise ValueError(
            f"a record's params, metrics and env are objects, and what else it has is "
            f"text; {path} has others: {wrong}; make it again"
        )
    return Record(**content)


def read_json(path: str | Path, **options: Any) -> Any:
    """Content of a JSON file; `options` are those of `json.loads`.

    Raises ValueError, naming the file, when it is no JSON or is nested too deeply.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), **options)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be JSON, and is not: {error}; make it again") from error
    except RecursionError:
        raise ValueError(f"{path} must be JSON of a few levels, and is nested deeper") from None


def newest(folder: str | Path, kind: str, **params: Any) -> Record:
    """Return the record of a kind under `folder` that was made last, with these `params` if given.

    Raises FileNotFoundError when there is none.
    """
    found = of_kind(folder, kind, **params)
    if not found:
        asked = "".join(f", {name}={value!r}" for name, value in params.items())
        raise FileNotFoundError(
            f"{folder} holds no record of kind {kind!r}{asked}; see results/README.md for how to "
            "make one"
        )
    return found[-1]


def of_kind(folder: str | Path, kind: str, **params: Any) -> list[Record]:
    """Records of a kind under `folder`, with these `params` if given, the oldest first."""
    found = [load(path) for path in Path(folder).glob("*/record.json")]
    fits = [r for r in found if r.kind == kind and params.items() <= r.params.items()]
    return sorted(fits, key=lambda record: record.created_utc)


def steps(bench: Record) -> list[dict[str, Any]]:
    """Rows of our own whole training steps in a `bench` record; those of peers have no gflops."""
    return [row for row in bench.metrics["rows"] if row["part"] == "step" and "gflops" in row]


def frame(folder: str | Path, kind: str = "") -> pd.DataFrame:
    """Table of every record under `folder`: a row a run; columns are params, metrics, id, parent,
    env.

    `kind` keeps only the records of that kind. No record at all gives an empty table.
    """
    found = [load(path) for path in sorted(Path(folder).rglob("record.json"))]
    return table([record for record in found if kind in ("", record.kind)])


def table(found: list[Record]) -> pd.DataFrame:
    """Table of `found`, a row a run; see `frame`."""
    import pandas as pd

    return pd.DataFrame([_row(record) for record in found])


def beside(named: dict[str, Record], metrics: list[str]) -> pd.DataFrame:
    """Table of some `metrics` of a few runs, a column a run, as text that a reader can compare."""
    import pandas as pd

    columns = {name: [_plain(r.metrics[m]) for m in metrics] for name, r in named.items()}
    return pd.DataFrame(columns, index=metrics)


def published(path: str | Path) -> pd.DataFrame:
    """Table of the numbers of others (`results/published.json`), each with source and certainty."""
    import pandas as pd

    content = json.loads(Path(path).read_text(encoding="utf-8"))
    return pd.DataFrame(content["numbers"]).set_index("id")


def write_json(path: Path, content: Any) -> Path:
    """Path of the JSON file that now holds `content`: all of it or, after a crash, none of it."""
    return write_text(
        path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def write_text(path: Path, text: str) -> Path:
    """Path of the file that now holds `text`: all of it or, after a crash, none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Hold `folder` for one process at a time; others say that they wait until it is free.

    The lock is the operating system's: a killed process leaves none behind. Raises OSError where
    nothing can be written.
    """
    folder = Path(folder)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        print(f"another process works on {folder}; waiting until it is done", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        raise OSError(
            f"{folder.parent} must be a folder that can be written: {error.strerror}; choose "
            "another one, or ask for the right to write there"
        ) from error
    try:
        yield
    finally:
        lock.release()


def environment() -> dict[str, Any]:
    """Where this process runs: commit, versions, processor. JSON scalars only."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "numpy")},
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "platform": sys.platform,
    }


def peak_bytes() -> int:
    """Largest size of this process, in bytes. Linux's `ru_maxrss` would count its parent's, too.

    >>> peak_bytes() > 1_000_000
    True
    """
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024  # kilobytes, but for macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _row(record: Record) -> dict[str, Any]:
    own = {"id": record.id, "kind": record.kind, "parent": record.parent}
    if twice := set(record.params) & set(record.metrics):
        raise ValueError(f"params and metrics of {record.id} share {sorted(twice)}; rename one")
    return own | record.params | record.metrics | {"processor": record.env.get("processor", "")}


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _git(*command: str) -> str:
    # "" outside a checkout: an installed package has no commit, and its version is enough
    if not shutil.which("git"):
        return ""
    home = Path(__file__).parent.parent
    top = _say("git", "-C", str(home), "rev-parse", "--show-toplevel")
    # installed into an environment inside somebody's checkout, the commit there is not ours
    return _say("git", "-C", str(home), *command) if top and Path(top) == home else ""


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
