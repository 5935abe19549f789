"""Tests of the house: who may import whom, how long a file is, what no file does.

Run with: pytest tests/test_house.py.
"""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import mediswift

HOUSE = Path(mediswift.__file__).parent
FILES = sorted(path.stem for path in HOUSE.rglob("*.py"))
FLOORS = [
    "places",
    "__init__ blocks cache citations damage demo documents flops jobs layouts metrics "
    "parts records rows sections sharding shingles stats study unpack window",
    "batches bibliography calibration contamination duplicates hallmarks law likelihood "
    "kernel machine medline models native parcel patterns pretrained questions supervise tagger "
    "tokens typed",
    "agreement decoding loss masks mirror products prompts report schedule selection sheet "
    "statements",
    "corpus engines evidence polarity reading",
    "artificial choice configs materials",
    "forecast linear planned",
    "sparse",
    "density dynamic",
    "checkpoints",
    "contestant folds plan pubmedqa train",
    "baselines generate hoc priors runs",
    "lessons",
    "examine finetune peers pretrain protocols pseudolabels",
    "ablation continuation launch",
    "bench classify contest harness scoring stages",
    "claims clock densification downstream endurance figures runner scaling",
    "book exam_figures",
    "studies verbs",
    "__main__",
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
EXECUTE = set("pickle cPickle dill cloudpickle joblib shelve marshal".split())
CALLS = set("eval exec os.system os.popen torch.load np.load pd.read_pickle yaml.load".split())
FLAGS = {"trust_remote_code", "allow_pickle", "shell"}
SAFE = {"trust_remote_code": "False", "use_safetensors": "True"}
"""Said aloud wherever something is loaded; a tokenizer has no weights."""
each_file = pytest.mark.parametrize("name", FILES)


def tree(name):
    return ast.parse((HOUSE / f"{name}.py").read_text(encoding="utf-8"))


def imported(nodes):
    """Dotted names of all that is imported, at the top or inside a function."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute: from mediswift.x import y"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenses(source):
    """What a file does that could execute what it reads, or a shell."""
    nodes = list(ast.walk(source))
    found = [name for name in imported(nodes) if name.split(".")[0] in EXECUTE]
    for node in nodes:
        if isinstance(node, ast.Call):
            found += [name for name in [ast.unparse(node.func)] if name in CALLS]
            said = {word.arg: ast.unparse(word.value) for word in node.keywords}
            found += [name for name in said if name in FLAGS and said[name] != SAFE.get(name)]
            found += missing(node.func, said)
    return found + [name for name in imported(nodes) if name in CALLS]


def missing(function, said):
    """Safe choices that a `from_pretrained` does not make."""
    if not isinstance(function, ast.Attribute) or function.attr != "from_pretrained":
        return []
    wanted = ["trust_remote_code"]
    if "Tokenizer" not in ast.unparse(function.value):
        wanted.append("use_safetensors")
    return [f"from_pretrained without {w}" for w in wanted if said.get(w) != SAFE[w]]


def public(node):
    """Definitions that a caller may use: of a module, and of its public classes."""
    for child in node.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(child, kinds) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_every_file_has_its_floor():
    assert sorted(FLOOR) == FILES


@each_file
def test_a_file_imports_from_lower_floors_only(name):
    ours = [i.split(".")[1] for i in imported(ast.walk(tree(name))) if i.startswith("mediswift.")]
    wrong = [other for other in ours if FLOOR[other] >= FLOOR[name]]
    assert not wrong, f"{name} is on floor {FLOOR[name]} and must not import {wrong}"


@each_file
def test_a_file_is_one_idea_of_at_most_300_lines(name):
    assert len((HOUSE / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 300


@each_file
def test_whatever_is_public_says_what_comes_out(name):
    module = tree(name)
    nameless = [node.name for node in public(module) if not ast.get_docstring(node)]
    assert ast.get_docstring(module) and not nameless


@each_file
def test_nothing_executes_what_it_loads(name):
    assert offenses(tree(name)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import torch; torch.load('x', weights_only=True)",
        "from torch import load",
        "import os; os.system('ls')",
        "import subprocess; subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained('x', use_safetensors=True, trust_remote_code=flag)",
        "AutoModel.from_pretrained('x', use_safetensors=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=False)",
        "AutoTokenizer.from_pretrained('x')",
        "AutoTokenizer.from_pretrained('x', trust_remote_code=0)",
        "load_dataset('x', trust_remote_code=True)",
        "np.load('x', allow_pickle=True)",
        "import yaml; yaml.load(text, yaml.Loader)",
    ],
)
def test_the_reader_sees_what_it_looks_for(line):
    assert offenses(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "AutoTokenizer.from_pretrained('x', trust_remote_code=False)",
        "AutoModel.from_pretrained('x', use_safetensors=True, trust_remote_code=False)",
        "import subprocess; subprocess.run(['ls'])",
    ],
)
def test_the_reader_lets_pass_what_is_safe(line):
    assert offenses(ast.parse(line)) == []


@each_file
def test_examples_in_docstrings_are_true(name):
    module = importlib.import_module(f"mediswift.{name}" if name != "__init__" else "mediswift")
    examples = [e for test in doctest.DocTestFinder().find(module) for e in test.examples]
    assert len(examples) == inspect.getsource(module).count(">>> ")  # none is overlooked
    assert doctest.testmod(module).failed == 0
