"""Executing notebooks: strict about parameters, honest about failures, and never twice."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mediswift import demo, records, runner

PARAMETERS = """\
sparsity: float = 0.75  # fraction removed
seed: int = 0
text: str = "sample:"
dense: bool = True
"""


def make_notebook(path, *cells, parameters=PARAMETERS):
    """Notebook with a parameters cell and code cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[new_markdown_cell("# Do it"), tagged, *map(new_code_cell, cells)])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def make_study(root, **content):
    path = root / "studies" / "two.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        yaml.safe_dump({"title": "Two", "notebooks": ["one", "two"]} | content, sort_keys=False)
    )
    return path


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


@pytest.fixture
def notebook(tmp_path):
    return make_notebook(
        tmp_path / "notebooks" / "one.ipynb", "print(repr((sparsity, seed, text)))"
    )


@pytest.fixture
def root(notebook, tmp_path):
    """A project of two notebooks; `two` does not declare a seed and reads the first's work."""
    make_notebook(notebook.parent / "two.ipynb", "print(text)", parameters='text: str = "demo:"\n')
    return tmp_path


# One notebook


def test_a_notebook_runs_with_its_parameters_beside_its_file(notebook, tmp_path, monkeypatch):
    make_notebook(notebook, "import os; print(sparsity + seed, os.path.basename(os.getcwd()))")
    output = tmp_path / "made" / "one.ipynb"
    monkeypatch.setattr(os, "environ", os.environ.copy())
    seconds = runner.run(notebook, {"sparsity": "0.5", "seed": 2}, output)
    assert outputs(output) == "2.5 notebooks\n"
    assert seconds >= runner.seconds_of(output) > 0
    assert [path for path in output.parent.iterdir() if path.suffix != ".lock"] == [output]


def test_a_failure_leaves_no_output_and_names_the_cell(notebook, tmp_path):
    make_notebook(notebook, "1 / seed")
    output = tmp_path / "one.ipynb"
    with pytest.raises(
        RuntimeError, match=r"one.ipynb, cell 2: ZeroDivisionError: division by zero"
    ):
        runner.run(notebook, {}, output)
    assert not output.exists()
    assert (tmp_path / "one.failed.ipynb").exists()
    runner.run(notebook, {"seed": 1}, output)
    assert output.exists()
    assert not (tmp_path / "one.failed.ipynb").exists()


def test_what_an_older_failure_left_is_gone_at_once(notebook, tmp_path, monkeypatch):
    stale = tmp_path / "one.failed.ipynb"
    stale.touch()

    def no_kernel(*_, **__):
        raise OSError("no kernel")

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(runner.papermill, "execute_notebook", no_kernel)
    with pytest.raises(OSError, match="no kernel"):
        runner.run(notebook, {}, tmp_path / "one.ipynb")
    assert not stale.exists()


def test_a_label_tells_the_parameters_and_is_one_file_name(notebook):
    chosen = {"seed": 1, "text": "jsonl:/a b/c.jsonl"}
    assert runner.label(notebook, {}) == "one"
    assert runner.label(notebook, chosen) == "one-seed1-textjsonl__a_b_c.jsonl"


def test_a_missing_notebook_is_named_beside_those_there_are(notebook):
    with pytest.raises(
        FileNotFoundError, match=r"no notebook .*three.ipynb; there are \['one.ipynb'\]"
    ):
        runner.run(notebook.with_name("three.ipynb"), {}, notebook)


# Its parameters


def test_parameters_are_declared_in_order(notebook):
    assert runner.declared(notebook) == {
        "sparsity": "float", "seed": "int", "text": "str", "dense": "bool"
    }  # fmt: skip


def test_an_unknown_parameter_is_named_with_the_nearest(notebook):
    wanted = (
        "one.ipynb declares sparsity, seed, text, dense; got 'sparcity'; did you mean 'sparsity'?"
    )
    with pytest.raises(ValueError) as caught:
        runner.strict(notebook, {"sparcity": 0.5})
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("seed", "3", 3),
        ("seed", 3.0, 3),
        ("sparsity", "5e-1", 0.5),
        ("sparsity", 0, 0.0),
        ("text", "demo:", "demo:"),
        ("text", 7, "7"),
        ("dense", "False", False),
        ("dense", "1", True),
        ("dense", False, False),
    ],
)
def test_values_become_the_declared_type(notebook, name, given, wanted):
    found = runner.strict(notebook, {name: given})[name]
    assert (found, type(found)) == (wanted, type(wanted))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("seed", "1.5"),
        ("seed", 1.5),
        ("seed", "one"),
        ("seed", True),
        ("seed", [0, 1]),
        ("sparsity", "most"),
        ("sparsity", "nan"),
        ("sparsity", None),
        ("text", None),
        ("text", ["sample:"]),
        ("dense", "maybe"),
        ("dense", 2),
    ],
)
def test_a_value_of_another_type_is_refused(notebook, name, given):
    with pytest.raises(ValueError, match=rf"parameter {name} is of type \w+; got "):
        runner.strict(notebook, {name: given})


@pytest.mark.parametrize("line", ["seed = 0", "seed: list = [0]"])
def test_a_parameter_without_a_plain_type_is_refused(notebook, line):
    make_notebook(notebook, parameters=line)
    with pytest.raises(ValueError, match="one of the types int, float, str, bool; seed does not"):
        runner.strict(notebook, {"seed": 1})


# A study


def test_a_grid_makes_a_job_of_each_point_that_a_notebook_declares(root):
    study = make_study(
        root, parameters={"text": "demo:"}, grid={"sparsity": [0.5, 0.75], "seed": [0, 1]}
    )
    jobs = runner.jobs(study, root)
    names = [f"one-sparsity{s}-seed{seed}" for s in (0.5, 0.75) for seed in (0, 1)]
    assert [job.name for job in jobs] == [*names, "two"]
    assert jobs[1].parameters == {"text": "demo:", "sparsity": 0.5, "seed": 1}
    assert jobs[4].parameters == {"text": "demo:"}
    folder = root / "runs" / "notebooks" / "two"
    assert jobs[4].after == tuple(folder / f"{name}.ipynb" for name in names)
    assert jobs[0].after == ()


def test_a_job_waits_for_its_own_point_alone(root):
    make_notebook(root / "notebooks" / "two.ipynb")
    first, second, *later = runner.jobs(make_study(root, grid={"seed": [0, 1]}), root)
    assert [job.after for job in later] == [(first.output,), (second.output,)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sweep": {}}, r"a study has the keys \['gpus', 'grid', 'notebooks', 'parameters', 'tit"),
        (
            {"parameters": {"sede": 1}},
            r"no notebook declares \['sede'\]; declared: \['dense', 'seed'",
        ),
        ({"grid": {"seeds": [1]}}, r"no notebook declares \['seeds'\]"),
        ({"grid": {"seed": 1}}, r"a grid has a list of values for each name; .* \['seed'\]"),
        ({"notebooks": ["../one"]}, "a study lists names of notebooks, without folders"),
        ({"notebooks": ["/tmp/one"]}, "a study lists names of notebooks, without folders"),
        ({"notebooks": "one"}, "a study lists names of notebooks"),
        ({"parameters": ["seed"]}, "parameters and grid are values by name"),
        ({"parameters": {"seed": [1]}}, "a parameter is a name and one text, number, true or"),
        ({"grid": {"seed": [*range(101)], "sparsity": [0.5] * 100}}, "has 10,100"),
        ({"grid": {"seed": ["x"]}}, "parameter seed is of type int; got 'x'"),
        (
            {"parameters": {"text": "jsonl:$NOWHERE/a.jsonl"}},
            "'jsonl:.NOWHERE/a.jsonl' needs a variable",
        ),
    ],
)
def test_a_broken_study_is_refused(root, monkeypatch, content, message):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ValueError, match=message):
        runner.jobs(make_study(root, **content), root)


def test_a_study_of_nothing_is_refused(root):
    path = root / "studies" / "empty.yaml"
    path.parent.mkdir()
    path.write_text("just words")
    with pytest.raises(ValueError, match="a study has the keys"):
        runner.jobs(path, root)
    with pytest.raises(FileNotFoundError, match=r"no study .*none.yaml; there are \[.*demo.yaml"):
        runner.jobs(path.with_name("none.yaml"), root)


@pytest.mark.parametrize("text", ["a: [", "- " * 3_000, "\x00"], ids=["open", "deep", "control"])
def test_a_study_that_is_no_yaml_is_refused(root, text):
    path = make_study(root)
    path.write_text(text)
    with pytest.raises(ValueError, match="a study is YAML"):
        runner.jobs(path, root)


def test_no_parameter_moves_a_page_out_of_its_folder(root):
    texts = ["../../up", "/etc/passwd", "jsonl:../x", ".."]
    folder = root / "runs" / "notebooks" / "two"
    jobs = runner.jobs(make_study(root, notebooks=["one"], grid={"text": texts}), root)
    assert {job.output.resolve().parent for job in jobs} == {folder.resolve()}


def test_one_notebook_is_executed_by_one_process_at_a_time(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_execute", lambda *_: 1.0)
    with ThreadPoolExecutor() as pool:
        with records.alone(tmp_path / "one.ipynb"):
            later = pool.submit(runner.run, notebook, {}, tmp_path / "one.ipynb")
            time.sleep(0.3)
            assert not later.done()
        assert later.result(timeout=20) == 1.0


@pytest.mark.parametrize("kind", ["", "jsonl:"])
def test_a_variable_becomes_a_whole_path(root, monkeypatch, kind):
    monkeypatch.setenv("HERE", "a folder/b")
    monkeypatch.chdir(root)
    study = make_study(root, parameters={"text": f"{kind}$HERE/c.json"})
    assert runner.jobs(study, root)[0].parameters["text"] == f"{kind}{root}/a folder/b/c.json"


def test_a_variable_in_a_grid_becomes_a_whole_path(root, monkeypatch):
    monkeypatch.setenv("HERE", str(root))
    study = make_study(root, notebooks=["one"], grid={"text": ["sample:", "jsonl:$HERE/c.json"]})
    found = [job.parameters["text"] for job in runner.jobs(study, root)]
    assert found == ["sample:", f"jsonl:{root}/c.json"]


@pytest.mark.parametrize(
    ("name", "values", "twice"),
    [
        ("seed", [1, 1.0], "1"),
        ("seed", [0, 1, "1"], "1"),
        ("sparsity", [0.5, "5e-1", 0.75], "0.5"),
        ("dense", [True, "true"], "True"),
        ("text", ["demo:", "demo:"], "'demo:'"),
    ],
)
def test_a_value_that_comes_twice_is_refused(root, name, values, twice):
    study = make_study(root, notebooks=["one"], grid={name: values})
    with pytest.raises(ValueError, match=f"once; two.yaml has {name} {twice} 2 times: leave it"):
        runner.jobs(study, root)


def test_a_name_tells_values_as_they_are_read(root):
    study = make_study(root, grid={"seed": [1.0, "2"], "sparsity": [0]})
    first, second, other = runner.jobs(study, root)
    assert [first.name, second.name] == ["one-seed1-sparsity0.0", "one-seed2-sparsity0.0"]
    assert other.after == (first.output, second.output)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_value_too_long_for_a_file_is_refused_by_name(root, letter):
    most = (runner.LONGEST - len("one-seed1-text.failed.ipynb")) // len(letter.encode())
    grid = {"seed": [1], "text": [letter * most]}
    job = runner.jobs(make_study(root, notebooks=["one"], grid=grid), root)[0]
    job.output.parent.mkdir(parents=True)
    with records.alone(job.output):  # its lock has a name of its own
        job.output.with_suffix(".failed.ipynb").touch()
    study = make_study(root, notebooks=["one"], grid=grid | {"text": [letter * (most + 1)]})
    with pytest.raises(ValueError, match=f"255 bytes; .* of {most + 1} characters for text: short"):
        runner.jobs(study, root)
    given = make_study(root, notebooks=["one"], parameters={"text": letter * 300})
    assert runner.jobs(given, root)[0].name == "one"


@pytest.mark.parametrize("values", [["jsonl:a", "jsonl_a"]])
def test_jobs_that_would_share_a_name_are_refused(root, values):
    study = make_study(root, notebooks=["one"], grid={"text": values})
    with pytest.raises(ValueError, match="two jobs would share the name one-text"):
        runner.jobs(study, root)


# Snakemake


def test_a_study_goes_on_after_a_failure_and_skips_what_is_done(root, capfd):
    count = "open('count.txt', 'a').write(f'{text}{seed} ')"
    make_notebook(root / "notebooks" / "one.ipynb", count, "1 / (seed - 1)")
    make_notebook(root / "notebooks" / "two.ipynb", "seed", parameters="seed: int = 0\n")
    study = make_study(root, grid={"seed": [0, 1]})
    counted = root / "notebooks" / "count.txt"

    left = runner.run_study(study, 2, root)
    assert [job.name for job in left] == ["one-seed1", "two-seed1"]
    assert left[0].output.with_suffix(".failed.ipynb").exists()
    assert (left[0].output.parent / "two-seed0.ipynb").exists()
    assert "one-seed1" in capfd.readouterr().err

    make_notebook(root / "notebooks" / "two.ipynb", "seed + 1", parameters="seed: int = 0\n")
    study = make_study(root, grid={"seed": [0]})
    assert runner.run_study(study, 2, root) == []
    assert sorted(counted.read_text().split()) == ["sample:0", "sample:1"]  # one ran once each
    said = capfd.readouterr().out
    assert "two-seed0 took" in said
    assert "one-seed0" not in said


def test_a_page_depends_on_every_record_that_it_may_show(root):
    study = make_study(root)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(runner.ROOT / "Snakefile")]
    command += ["--directory", str(root), "--dry-run", "--nolock", "all"]
    command += ["--config", f"study={study.resolve()}", f"root={root}"]
    planned = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = list((runner.ROOT / "results").rglob("*.json"))
    assert len(shown) > 1 and all(str(path) in planned for path in shown)


def test_data_is_fetched_before_the_first_notebook_needs_it(root, monkeypatch):
    fetched = []
    monkeypatch.setattr(demo, "fetch", fetched.append)
    monkeypatch.setattr(runner, "supervise", lambda _: 0)
    runner.run_study(make_study(root, parameters={"text": "sample:"}), root=root)
    assert fetched == []
    runner.run_study(make_study(root, parameters={"text": "demo:"}), root=root)
    assert fetched == list(demo.load_pins())


def test_a_failure_of_snakemake_itself_is_not_a_success(root, monkeypatch):
    study = make_study(root)
    for job in runner.jobs(study, root):
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.touch()
    monkeypatch.setattr(demo, "fetch", lambda _: None)
    monkeypatch.setattr(runner, "supervise", lambda _: 1)
    with pytest.raises(RuntimeError, match="Snakemake stopped with code 1; it says why above$"):
        runner.run_study(study, 2, root)
    # nor is what failed in an earlier call a failure of this one
    failed = runner.jobs(study, root)[0].output.with_suffix(".failed.ipynb")
    failed.touch()
    with pytest.raises(RuntimeError, match=r"says why above; an executor .*mediswift\[cluster\]"):
        runner.run_study(study, root=root, profile=runner.ROOT / "profiles" / "slurm")
    monkeypatch.setattr(runner, "supervise", lambda _: failed.write_text("anew"))
    assert [job.output for job in runner.run_study(study, 2, root)] == [
        failed.with_name(failed.name.replace(".failed", ""))
    ]


@pytest.mark.parametrize("cores", [0, -1])
def test_a_study_needs_a_core(root, monkeypatch, cores):
    monkeypatch.setattr(runner, "supervise", None)
    with pytest.raises(ValueError, match=f"one core or more, got --cores {cores}"):
        runner.run_study(make_study(root), cores, root)


@pytest.mark.parametrize("given", [{}, {"seed": 7}])
def test_who_waited_does_not_do_again_what_was_done_meanwhile(
    notebook, tmp_path, monkeypatch, given
):
    output, execute, again = tmp_path / "one.ipynb", runner._execute, []
    monkeypatch.setattr(runner, "_execute", lambda *words: again.append(words) or 1.0)
    with ThreadPoolExecutor() as pool:
        with records.alone(output):
            later = pool.submit(runner.run, notebook, given, output)
            time.sleep(0.3)
            execute(notebook, {}, output)
        assert later.result(timeout=20) > 0
    assert bool(again) == bool(given)  # other parameters are other work


@pytest.mark.parametrize(
    "study", sorted((runner.ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_study_that_ships_can_be_planned(study, monkeypatch):
    monkeypatch.setenv("MEDISWIFT_DATA", "data")
    jobs = runner.jobs(study)
    assert len({job.output for job in jobs}) == len(jobs) >= 1
    if study.stem == "folds":  # one pre-training serves all ten
        chapters = [job.notebook.stem[:2] for job in jobs]
        assert [chapters.count(n) for n in ("03", "04", "05", "06")] == [1, 10, 10, 10]
