"""The chapters: thin, stripped, documented, and they run."""

import json
from pathlib import Path
from statistics import median

import papermill
import pytest

from mediswift import runner

FOLDER = runner.ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
HEADINGS = ("**What you will do.**", "**What you will learn**", "**What you need.**")


def cells(path: Path, kind: str) -> list[dict]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def lines(cell: dict) -> list[str]:
    return [line for line in "".join(cell["source"]).splitlines() if line.strip()]


def test_the_walk_has_seven_chapters():
    stems = [path.stem for path in NOTEBOOKS]
    assert [stem[:2] for stem in stems] == [f"0{i}" for i in range(1, 8)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_is_thin(path):
    code = cells(path, "code")
    sizes = [len(lines(cell)) for cell in code]
    text = [line for cell in code for line in lines(cell)]
    words = sum(len(line.split()) for cell in cells(path, "markdown") for line in lines(cell))
    assert median(sizes) <= 6
    assert max(sizes) <= 20
    assert words >= 4 * len(text)
    assert not [t for t in text if t.lstrip().startswith(("def ", "class ", "!", "%"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_executed_is_committed(path):
    assert not [c for c in cells(path, "code") if c["outputs"] or c["execution_count"]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_has_the_skeleton(path):
    prose = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    assert prose[0].startswith("# ")
    assert all(heading in prose[0] for heading in HEADINGS)
    assert any("## Check" in text for text in prose)
    assert "## In practice" in prose[-1]


def test_parameters_are_typed_explained_and_alike_everywhere():
    meanings = {}
    for path in NOTEBOOKS:
        tagged = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1, path.name
        found = papermill.inspect_notebook(str(path))
        assert len(found) == len(lines(tagged[0])), f"{path.name}: papermill does not see them all"
        for name, entry in found.items():
            assert entry["inferred_type_name"] in ("str", "int", "float", "bool"), name
            assert entry["help"], f"{path.name}: {name} has no comment"
            meaning = (entry["inferred_type_name"], entry["default"])
            assert meanings.setdefault(name, meaning) == meaning, f"{name} differs in {path.name}"


def test_pictures_have_words_for_those_who_cannot_see_them():
    for path in NOTEBOOKS:
        for cell in cells(path, "code"):
            source = "".join(cell["source"])
            if "figures." in source and "theme()" not in source:
                assert len(cell["metadata"]["mystnb"]["image"]["alt"]) > 40, source


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    """All seven chapters executed in order, on synthetic text."""
    folder = tmp_path_factory.mktemp("walk")
    for job in runner.jobs(runner.ROOT / "studies" / "tiny.yaml"):
        runs = {"runs": str(folder)} if "runs" in runner.declared(job.notebook) else {}
        runner.run(job.notebook, job.parameters | runs, folder / "pages" / f"{job.name}.ipynb")
    return folder


def test_the_walk_runs_and_leaves_records(walk):
    kinds = [p.parent.name.partition("-")[0] for p in walk.glob("*/record.json")]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "corpus": 1,
        "pretrain": 2,
        "finetune": 4,
        "exam": 4,
    }


def test_executed_pages_hold_nothing_that_a_book_cannot_show(walk):
    for page in sorted((walk / "pages").glob("*.ipynb")):
        outputs = [output for cell in cells(page, "code") for output in cell["outputs"]]
        assert outputs, page.name
        for output in outputs:
            assert output["output_type"] != "error", page.name
            assert output.get("name") != "stderr", "".join(output.get("text", ""))[:500]
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_the_demo_says_that_it_is_near_the_majority(walk):
    page = cells(walk / "pages" / "06_pubmedqa.ipynb", "code")
    printed = "".join("".join(o.get("text", "")) for cell in page for o in cell["outputs"])
    assert "majority" in printed and "distinguishable" in printed
