"""A copy of PubMed as NLM ships it: baseline and update files, resolved into what is true today.

Decisions. NLM numbers the files of a year; a later file goes before an earlier one. A citation is a
PMID and a version: a later record of it replaces an earlier one, a deletion removes it, a later
file may bring it back, and of the versions that are left the highest is the article. Each file is
read once, by any of several processes, into a Parquet file in the cache folder: a loading that was
stopped goes on, and a new update file costs only itself. What is alive is then worked out from the
newest file to the oldest with one byte a PMID, so memory does not grow with PubMed.
The result does not depend on the number of processes.

    python -m mediswift.mirror FOLDER --processes 8
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from mediswift import damage, medline, places, records
from mediswift.damage import Report
from mediswift.documents import make_document
from mediswift.jobs import answer

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA = 2
"""Raise it whenever reading or cleaning changes, so that older Parquet files are not used again."""
BATCH = 1_000
PMIDS = 1 << 27
"""PMIDs below it take one byte each, 128 MiB in all; the highest real one is about 41 million.
PMIDs from there on, and versions other than the first, go into a set: right, but larger."""

_TERM = [("ui", pa.string()), ("name", pa.string()), ("major", pa.bool_())]
_MESH = pa.list_(pa.struct([*_TERM, ("qualifiers", pa.list_(pa.struct(_TERM)))]))
_TEXTS = ("pmid", "title", "abstract", "year", "source", "language", "copyright")
COLUMNS = pa.schema([(name, pa.string()) for name in _TEXTS] + [("version", pa.int16())])
COLUMNS = COLUMNS.append(pa.field("mesh", _MESH))
_KEPT = COLUMNS.append(pa.field("deleted", pa.bool_()))
_NUMBERED = re.compile(r"(?:pubmed|medline)(\d\d)n(\d+)\.xml(?:\.gz)?", re.IGNORECASE)


def load(
    path: str | Path, processes: int = 1, *, salvage: bool = False, language: str = "eng"
) -> Dataset:
    """Articles of a MEDLINE file or folder, memory-mapped, in the order of the files.

    Columns: `pmid, title, abstract, year, source`, as `corpus.load` gives them, and `version`,
    `language`, `copyright`, `mesh` (a list of headings with `ui`, `name`, `major`, `qualifiers`).
    Only articles in `language` are given, and those that name none; "" takes all. What articles
    lack of language, title, year and abstract is summed up and printed, with the first places.

    Raises FileNotFoundError if nothing is there; ValueError for no process, and, with a table, if
    anything is damaged. With `salvage` the table is printed instead, and the rest is given.

    >>> load("pubmed26", processes=8)[0]["mesh"][0]["name"]  # doctest: +SKIP
    'Cucumis sativus'
    """
    from datasets import Dataset  # seconds that no process which only reads needs to wait

    if processes < 1:
        raise ValueError(f"files are read by one process or more, got {processes}")
    files = in_order(places.find_files(path, medline.SUFFIXES))
    folder = places.cache_dir() / "medline"
    with records.alone(folder):
        read = _read_all(files, folder, processes)
        _tell(damage.total(map(_report, read)), salvage)
        target = folder / f"{places.cache_key([file.name for file in read] + [language])}.arrow"
        if not target.exists():
            _resolve(read, language, target)
    return Dataset.from_file(str(target))


def in_order(files: Sequence[Path]) -> list[Path]:
    """The files from the oldest to the newest, by the year and number that NLM gives them.

    Files with other names come first, sorted by path.

    >>> [p.name for p in in_order([Path("pubmed26n0002.xml.gz"), Path("pubmed25n1400.xml.gz")])]
    ['pubmed25n1400.xml.gz', 'pubmed26n0002.xml.gz']
    """
    return sorted(files, key=_place)


def _place(file: Path) -> tuple[int, int, str]:
    numbered = _NUMBERED.fullmatch(file.name)
    year, number = map(int, numbered.groups()) if numbered else (-1, -1)
    return year, number, str(file)


def _read_all(files: list[Path], folder: Path, processes: int) -> list[Path]:
    """Parquet files of all, in their order; those that are there are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"{places.cache_key([SCHEMA, file])}.parquet" for file in files]
    todo = [job for job in zip(files, targets, strict=True) if not _is_whole(job[1])]
    with tqdm(
        total=len(files),
        initial=len(files) - len(todo),
        desc="MEDLINE",
        unit=" files",
        disable=None,
    ) as bar:
        for _ in _work(todo, processes):
            bar.update()
    return targets


def _work(jobs: list[tuple[Path, Path]], processes: int) -> Iterator[None]:
    if processes == 1 or len(jobs) < 2:
        yield from (_read_file(*job) for job in jobs)
        return
    # not by fork: a forked child of a process with threads may hang
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent)
    try:
        yield from (
            job.result() for job in as_completed([pool.submit(_read_file, *j) for j in jobs])
        )
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that read MEDLINE was killed, perhaps for want of memory. Files that were "
            "finished are kept: load again, with fewer processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A killed parent cannot say so; its children would wait for work forever."""
    parent = parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _read_file(file: Path, target: Path) -> None:
    """Write all rows of one file, and the report on it, into `target`: wholly, or not at all."""
    report, partial = Report(), target.with_suffix(".part")
    with file.open("rb") as stream, pq.ParquetWriter(partial, _KEPT, compression="zstd") as writer:
        rows = (_row(found, file.name) for found in medline.read(stream, file.name, report))
        while batch := list(islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=_KEPT))
        writer.add_key_value_metadata({"report": json.dumps(report.as_dict())})
    os.replace(partial, target)


def _row(found: dict[str, Any], source: str) -> dict[str, Any]:
    return found | make_document(found | {"abstract": found["sections"]}, source)


def _is_whole(target: Path) -> bool:
    try:
        return target.exists() and _report(target) is not None
    except (OSError, ValueError, KeyError):  # what a disk has spoiled is made again
        return False


def _report(target: Path) -> Report:
    return damage.from_dict(json.loads(pq.read_metadata(target).metadata[b"report"]))


def _tell(report: Report, salvage: bool) -> None:
    """Raise ValueError for damage, or print it; print what is missing."""
    if not salvage:
        report.refuse()
    elif report.damaged:
        print(report, file=sys.stderr)
    if report.missing:
        print(report.tell_gaps(), file=sys.stderr)


def _resolve(read: list[Path], language: str, target: Path) -> None:
    """Write the articles that are alive into one Arrow file."""
    alive, highest = find_alive(_keys(file) for file in reversed(read))
    partial = target.with_suffix(".part")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, COLUMNS) as writer:
        writer.write_table(COLUMNS.empty_table())
        for file, mask in zip(read, reversed(alive), strict=True):
            for batch in _select(file, mask, highest, language):
                writer.write_batch(batch)
    os.replace(partial, target)


def find_alive(
    newest_first: Iterator[tuple[list[str], list[int], list[bool]]],
) -> tuple[list[np.ndarray], dict[str, int]]:
    """Masks of the rows that no later row replaces or deletes, a file each, as the files came; and
    the highest living version of each PMID that has one above the first.

    A file is three lists: PMID, all digits; version; whether the row is a deletion.

    >>> find_alive(iter([(["7"], [1], [True]), (["7", "8", "8"], [1, 1, 2], [False] * 3)]))
    ([array([False]), array([False,  True,  True])], {'8': 2})
    """
    seen, others, highest = bytearray(PMIDS), set(), {}
    masks = []
    for pmids, versions, deleted in newest_first:
        mask = np.zeros(len(pmids), bool)
        for row in range(len(pmids) - 1, -1, -1):
            pmid, version = pmids[row], versions[row]
            number = int(pmid) if version == 1 and len(pmid) < 10 else PMIDS
            if number < PMIDS:
                is_old, seen[number] = seen[number], 1
            else:
                is_old = (pmid, version) in others
                others.add((pmid, version))
            mask[row] = not is_old and not deleted[row]
            if mask[row] and version > 1:
                highest[pmid] = max(version, highest.get(pmid, 0))
        masks.append(mask)
    return masks, highest


def _keys(file: Path) -> tuple[list, list, list]:
    table = pq.read_table(file, columns=["pmid", "version", "deleted"])
    return tuple(table[name].to_pylist() for name in ("pmid", "version", "deleted"))


def _select(
    file: Path, mask: np.ndarray, highest: dict[str, int], language: str
) -> Iterator[pa.RecordBatch]:
    """Living rows of one file, in the language or one unknown, that no higher version follows."""
    followed, start = pa.array(highest, pa.string()), 0
    for batch in pq.ParquetFile(file).iter_batches(BATCH):
        spoken = batch["language"]
        fits = pc.or_(pc.match_substring(spoken, language), pc.equal(spoken, ""))
        keep = mask[start : start + len(batch)] & np.asarray(fits)
        for row in np.flatnonzero(pc.is_in(batch["pmid"], followed)):
            keep[row] &= batch["version"][row].as_py() == highest[batch["pmid"][row].as_py()]
        start += len(batch)
        yield batch.select(COLUMNS.names).filter(pa.array(keep))


def main(argv: list[str] | None = None) -> int:
    """Exit code: read a folder into the cache, where `corpus.load` finds it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="a MEDLINE file, or the folder of them")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--salvage", action="store_true", help="leave out what is damaged")
    given = parser.parse_args(argv)
    return answer("mediswift.mirror", lambda: _show(given))


def _show(given: argparse.Namespace) -> int:
    articles = load(given.path, given.processes, salvage=given.salvage)
    print(f"{len(articles):,} articles: medline:{given.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
