"""The rendered book needs no network, hides no error and shows what was run.

The page tests run twice: on a tiny book, built here in seconds with the real `_config.yml` and
`_static/`, and on the real book when it has been built (`make book`; another folder through the
environment variable MEDISWIFT_BOOK). A browser is not needed: what a page would fetch is read
from its HTML and its style sheets.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
BOOK = Path(os.environ.get("MEDISWIFT_BOOK", ROOT / "book"))
FETCHING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
ELSEWHERE = re.compile(r"^(?:https?:)?//")
STYLE_ELSEWHERE = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\s\"')]+")
WIDGET = "application/vnd.jupyter.widget"
ONE_PIXEL = (  # a PNG in base64
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

INDEX = r"""# A tiny book

Inline $s = 0.75$, a citation {cite}`someone2024`, {numref}`fig-dot` and a glued number,
{glue:text}`notebooks/01_tiny.ipynb::kept:.0f`.

$$
\hat W = m \odot W
$$ (eq-mask)

| size | layers |
| --- | ---: |
| xl | 24 |
"""
BIBLIOGRAPHY = "@misc{someone2024, title={A title}, author={Someone, A.}, year={2024}}\n"
TOC = {
    "format": "jb-book",
    "root": "index",
    "chapters": [{"file": "notebooks/01_tiny"}, {"file": "references"}],
}


class Page(HTMLParser):
    """One HTML page, read for what a browser would fetch and run."""

    def __init__(self, path: Path):
        """Read and parse the file at once."""
        super().__init__()
        self.path, self.fetched, self.classes, self.inline = path, [], [], ""
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Note the addresses and the classes of one element."""
        values = dict(attrs)
        self._inside = tag
        self.classes += (values.get("class") or "").split()
        navigation = tag == "link" and values.get("rel") in {"next", "prev", "canonical"}
        if values.get(FETCHING.get(tag, "")) and not navigation:
            self.fetched.append(values[FETCHING[tag]])

    def handle_endtag(self, tag: str) -> None:
        """Leave the element."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Keep the text of scripts and styles: it can fetch too."""
        if self._inside in {"script", "style"}:
            self.inline += data


def make_notebook(*outputs: dict, execution_count: int | None = 1) -> nbformat.NotebookNode:
    """Notebook with a parameters cell and one code cell that left these outputs."""
    parameters = nbformat.v4.new_code_cell("seed: int = 0  # masks, init and data order")
    parameters.metadata["tags"] = ["parameters"]
    parameters.execution_count = execution_count
    work = nbformat.v4.new_code_cell("work(seed)", outputs=[nbformat.from_dict(o) for o in outputs])
    work.execution_count = execution_count
    title = nbformat.v4.new_markdown_cell("# Tiny")
    figure = nbformat.v4.new_markdown_cell("```{glue:figure} dot\n:name: fig-dot\n\nA dot.\n```")
    language = {"name": "python", "pygments_lexer": "ipython3"}
    cells = [title, parameters, work, figure]
    return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": language})


def make_display(data: dict, key: str = "") -> dict:
    """Display output, glued under `key` if there is one."""
    metadata = {"scrapbook": {"name": key, "mime_prefix": ""}} if key else {}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


PRINTED = {"output_type": "stream", "name": "stdout", "text": "kept 4 of 16\n"}
STDERR = {"output_type": "stream", "name": "stderr", "text": "UserWarning: hm\n"}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["no"]}
WIDGET_VIEW = make_display({WIDGET + "-view+json": {"model_id": "0"}, "text/plain": "0%"})


def faults(notebook: nbformat.NotebookNode) -> list[str]:
    """What would make this notebook unfit for a page; empty for a clean one.

    Example: `faults(make_notebook(PRINTED)) == []`.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    kinds = [o.get("name") if o.output_type == "stream" else o.output_type for o in outputs]
    found = [kind for kind in ("stderr", "error") if kind in kinds]
    if WIDGET in json.dumps(notebook):
        found.append("widget")
    if not outputs or any(cell.execution_count is None for cell in cells):
        found.append("not executed")
    return found


def build(folder: Path) -> subprocess.CompletedProcess:
    """Result of building the book in `folder` with every warning an error."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(folder), "-n", "-W", "--keep-going"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """HTML folder of a tiny book that has the real configuration and style."""
    folder = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "logo.svg", "references.md"):
        shutil.copy(ROOT / "book" / name, folder)
    shutil.copytree(ROOT / "book" / "_static", folder / "_static")
    (folder / "_toc.yml").write_text(yaml.safe_dump(TOC))
    (folder / "index.md").write_text(INDEX)
    (folder / "references.bib").write_text(BIBLIOGRAPHY)
    (folder / "notebooks").mkdir()
    kept = make_display({"text/plain": "4"}, "kept")
    dot = make_display({"image/png": ONE_PIXEL, "text/plain": "<Figure>"}, "dot")
    nbformat.write(make_notebook(PRINTED, kept, dot), folder / "notebooks" / "01_tiny.ipynb")
    result = build(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "_build" / "html"


@pytest.fixture(scope="session", params=["tiny", "built"])
def html(request) -> Path:
    """HTML folder of the tiny book, then of the real one if it has been built."""
    if request.param == "tiny":
        return request.getfixturevalue("tiny")
    built = BOOK / "_build" / "html"
    if not (built / "index.html").exists():
        pytest.skip("no built book; make one with: make book")
    return built


@pytest.fixture(scope="session")
def pages(html) -> list[Page]:
    """All pages of the book, parsed."""
    return [Page(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]


def test_pages_fetch_nothing_from_another_host(pages):
    """Scripts, styles, fonts, images and frames all come from the book's own folder."""
    elsewhere = [(p.path.name, a) for p in pages for a in p.fetched if ELSEWHERE.match(a)]
    assert elsewhere == []


def test_inline_scripts_and_styles_name_no_other_host(pages):
    """The text of a script tag can load what its attributes do not show."""
    assert [p.path.name for p in pages if re.search(r"https?://", p.inline)] == []


def test_style_sheets_fetch_nothing_from_another_host(html):
    """No web font and no imported sheet."""
    sheets = html.joinpath("_static").rglob("*.css")
    found = {s.name: STYLE_ELSEWHERE.findall(s.read_text(encoding="utf-8")) for s in sheets}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_what_pages_fetch_is_there(pages):
    """Every local address, the script for mathematics among them, leads to a file."""
    missing = []
    for page in pages:
        for address in page.fetched:
            path = unquote(urlsplit(address).path)
            if path and not ELSEWHERE.match(address) and not address.startswith("data:"):
                missing += [] if (page.path.parent / path).exists() else [(page.path.name, path)]
    assert missing == []


def test_pages_with_mathematics_load_the_local_mathjax(pages):
    """Without the script a reader would see raw TeX."""
    with_math = [page for page in pages if "math" in page.classes]
    assert with_math
    for page in with_math:
        assert any("_static/mathjax/" in address for address in page.fetched), page.path.name


def test_pages_hold_no_widget(html):
    """A widget needs a kernel; on a page it is a dead progress bar."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in html.rglob("*.html")}
    assert [name for name, text in texts.items() if WIDGET in text] == []


def test_pages_show_one_search_field(pages):
    """The theme's default shows two."""
    assert {page.path.name: page.classes.count("search-button-field") for page in pages} == {
        page.path.name: 1 for page in pages
    }


def test_parameters_can_be_told_from_other_cells(pages):
    """The style sheet finds the parameters cell by this class."""
    assert any("tag_parameters" in page.classes for page in pages)


def test_glued_number_and_figure_reach_the_page(tiny):
    """A number on a page comes from a notebook, and so does a figure."""
    assert '<span class="pasted-text">4</span>' in (tiny / "index.html").read_text()
    assert list((tiny / "_images").glob("*.png"))


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([PRINTED], []),
        ([PRINTED, STDERR], ["stderr"]),
        ([ERROR], ["error"]),
        ([WIDGET_VIEW], ["widget"]),
        ([], ["not executed"]),
    ],
)
def test_faults_names_each_kind(outputs, expected):
    """The check itself tells a clean notebook from each unclean one."""
    assert faults(make_notebook(*outputs)) == expected


def test_faults_sees_cells_that_did_not_run():
    """Outputs from before are no sign that the cells ran."""
    assert faults(make_notebook(PRINTED, execution_count=None)) == ["not executed"]


def test_executed_notebooks_are_clean():
    """Every notebook that arrived in the book was run to its end, without noise."""
    paths = sorted((BOOK / "notebooks").glob("*.ipynb"))
    if not paths:
        pytest.skip("no executed notebooks; make them with: make book")
    found = {path.name: faults(nbformat.read(path, as_version=4)) for path in paths}
    assert {name: faults_ for name, faults_ in found.items() if faults_} == {}


def test_table_of_contents_names_what_exists():
    """Each entry is a prose page of the book or a notebook of the project."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    files = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    prose = {path.stem for path in (ROOT / "book").glob("*.md")}
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(files) == prose | notebooks
