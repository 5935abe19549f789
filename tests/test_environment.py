"""One environment, said in four files: pip's, conda's, make's and the package's own."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mediswift.runner import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
TORCH = "2.13.0"


def required(lines):
    """Version specifiers by canonical name."""
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


def locked():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return required(line.partition("#")[0] for line in lines if not re.match(r"\s*(#|$)", line))


LOCK = locked()
EXTRAS = PROJECT["optional-dependencies"].values()
DECLARED = required([*PROJECT["dependencies"], *(line for extra in EXTRAS for line in extra)])


def version(specifiers):
    """Return the one version that `==X` allows."""
    (only,) = specifiers
    assert only.operator == "=="
    return only.version


def test_the_lock_names_one_version_of_everything():
    assert all(version(specifiers) for specifiers in LOCK.values())


def test_what_the_package_declares_is_what_the_lock_has():
    extras = PROJECT["optional-dependencies"]
    peers = required(extras["peers"])  # heavy, and no test needs them
    pods = {name for name in required(extras["cluster"]) if "slurm" not in name}  # heavy too
    # pip comes with the environment
    assert DECLARED.keys() - peers.keys() - pods <= LOCK.keys() | {"pip"}
    for name in DECLARED.keys() & LOCK.keys():
        assert version(LOCK[name]) in DECLARED[name], name


def test_torch_is_the_same_everywhere():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert version(LOCK["torch"]) == version(DECLARED["torch"]) == TORCH
    assert set(re.findall(r"torch==([\d.]+\w*)", makefile)) == {TORCH}
    assert set(re.findall(r"torch (\d[\d.]*\d)", readme)) <= {TORCH}
    assert metadata.version("torch").partition("+")[0] == TORCH


def test_conda_takes_python_and_leaves_the_rest_to_the_lock():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert (content["name"], content["channels"]) == (PROJECT["name"], ["conda-forge"])
    python, pip, inner = content["dependencies"]
    assert python.partition("=")[2] in Requirement(f"python{PROJECT['requires-python']}").specifier
    assert (pip, inner) == ("pip", {"pip": ["-r requirements.txt", "-e ."]})


def test_make_installs_the_lock_and_the_package():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-r requirements.txt" in makefile
    assert re.search(r"^\$\(READY\): requirements.txt pyproject.toml$", makefile, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("ready", [True, False])
def test_a_build_of_torch_of_ones_own_is_installed_at_any_time(tmp_path, ready):
    if ready:
        (tmp_path / ".ready").touch()

    def planned(*words):
        command = ["make", "-n", "env", f"VENV={tmp_path}", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    told, untold = planned("TORCH_INDEX=place"), planned()
    assert any('--index-url "place"' in line for line in told)
    assert not any("--index-url" in line for line in untold)
    assert any("requirements.txt" in line for line in untold) is not ready


def imports(path):
    """Top-level names that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("folder", ["mediswift", "tests"])
def test_what_is_imported_is_declared(folder):
    paths = sorted((ROOT / folder).glob("*.py"))
    assert paths
    names = {name for path in paths for name in imports(path)}
    names -= sys.stdlib_module_names | {"mediswift"} | {path.stem for path in paths}
    allowed = DECLARED.keys() if folder == "mediswift" else DECLARED.keys() | LOCK.keys()
    assert {canonicalize_name(IMPORTED_AS.get(name, name)) for name in names} <= allowed


def test_the_lock_holds_no_address():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--" not in text
