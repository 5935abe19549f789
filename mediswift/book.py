"""Rendering the book: executed notebooks become its chapters, and Jupyter Book its pages.

Decisions: the book never runs code, so what a page shows is what was run; every warning is an
error; the figure on the README is taken out of the book, never drawn a second time.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from mediswift import endurance, runner
from mediswift.runner import ROOT

CHAPTERS = ROOT / "book" / "notebooks"
FRONT = CHAPTERS / "front.png"
GLUED = "application/papermill.record/"


def collect(study: Path) -> list[Path]:
    """Chapters that were copied into `book/notebooks` because they changed.

    The front page's figure is taken out of the last one; the tables of the page on faults are made
    from its record. A study with a grid has many executed copies of a notebook; the first becomes
    the chapter.
    """
    pages: dict[str, Path] = {}
    for job in runner.jobs(study):
        pages.setdefault(job.notebook.stem, job.output)
    CHAPTERS.mkdir(exist_ok=True)
    endurance.write(ROOT / "results", CHAPTERS)
    if results := pages.get("07_results"):
        save_picture(FRONT, results, "figure_accuracies")
    chapters = [(output, CHAPTERS / f"{stem}.ipynb") for stem, output in pages.items()]
    return [Path(shutil.copyfile(*pair)) for pair in chapters if _differ(*pair)]


def render() -> Path:
    """Path of the front page of the book, rendered with every warning an error.

    Raises RuntimeError, with what Jupyter Book said, when it fails.
    """
    page = ROOT / "book" / "_build" / "html" / "index.html"
    # it cannot be run as a module; its command lies beside this environment's python
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT / "book")]
    options = ["-n", "-W", "--keep-going", "--quiet"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode or not page.exists():
        raise RuntimeError(f"the book did not build:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return page


def save_picture(target: Path, chapter: Path, name: str) -> Path:
    """Path of the PNG of the figure that the executed `chapter` glued under `name`.

    Raises ValueError when it glued none.
    """
    notebook = nbformat.read(chapter, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.get("metadata", {}).get("scrapbook", {}).get("name", "").endswith(name):
            picture = base64.b64decode(output["data"][f"{GLUED}image/png"])
            if not target.exists() or target.read_bytes() != picture:
                target.write_bytes(picture)
            return target
    raise ValueError(f"a picture is a figure glued as {name!r}; {chapter.name} has none")


def _differ(output: Path, chapter: Path) -> bool:
    return not chapter.exists() or chapter.read_bytes() != output.read_bytes()
