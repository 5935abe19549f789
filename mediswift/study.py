"""A study's file: which notebooks, with which parameters, over which grid; read and checked.

Decisions: YAML, read safely; what is wrong with it is one error that says what a study has. `$NAME`
in a value is replaced from the environment, so that a study names no folder of one machine.
"""

from __future__ import annotations

import math
import os
import re
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
KEYS = {"title", "notebooks", "parameters", "grid", "gpus"}
MOST_POINTS = 10_000
"""Of a grid: more is a slip of the pen."""


def read_study(study: Path) -> dict[str, Any]:
    """Content of a study's file: `title`, `notebooks`, `parameters`, `grid`, `gpus`.

    Raises FileNotFoundError for no such file, beside those there are, and ValueError for one that
    is no study.

    >>> read_study(ROOT / "studies" / "tiny.yaml")["parameters"]["text"]
    'sample:'
    """
    if not study.is_file():
        there = sorted(path.name for path in (ROOT / "studies").glob("*.yaml"))
        raise FileNotFoundError(f"no study {study}; there are {there}")
    content = _parsed(study)
    if not isinstance(content, dict) or not {"notebooks"} <= content.keys() <= KEYS:
        has = list(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"a study has the keys {sorted(KEYS)}; {study} has {has!r:.200}")
    given, grid = content.get("parameters") or {}, content.get("grid") or {}
    _check_study(study, content["notebooks"], given, grid)
    return content | {
        "gpus": _whole(study, content.get("gpus", 0)),
        "parameters": {name: _expanded(value) for name, value in given.items()},
        "grid": {name: [_expanded(value) for value in values] for name, values in grid.items()},
    }


def _parsed(study: Path) -> Any:
    try:
        return yaml.safe_load(study.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"a study is YAML, {study} is not: {why:.200}") from error
    except RecursionError:
        raise ValueError(f"a study is YAML of a few levels, {study} is nested deeper") from None


def _check_study(study: Path, notebooks: Any, given: Any, grid: Any) -> None:
    # A name with a folder in it would execute a notebook from anywhere
    if not isinstance(notebooks, list) or not all(map(_is_name, notebooks)):
        raise ValueError(f"a study lists names of notebooks, without folders; {study} does not")
    _check_order(study, notebooks)
    if not all(isinstance(part, dict) for part in (given, grid)):
        raise ValueError(f"parameters and grid are values by name; those of {study} are not")
    if none := [name for name, some in grid.items() if not (isinstance(some, list) and some)]:
        raise ValueError(f"a grid has a list of values for each name; {study} has none: {none}")
    values = [*given.values(), *chain.from_iterable(grid.values())]
    if not all(isinstance(name, str) for name in (*given, *grid)) or not all(map(_is_one, values)):
        raise ValueError(f"a parameter is a name and one text, number, true or false; see {study}")
    if (points := math.prod(map(len, grid.values()))) > MOST_POINTS:
        raise ValueError(f"a grid has at most {MOST_POINTS:,} points, {study} has {points:,}")


def _check_order(study: Path, notebooks: list[str]) -> None:
    # A job waits for those of the notebooks before it; names without a number may stand anywhere
    if not notebooks:
        raise ValueError(f"a study lists one notebook or more; {study} lists none")
    chapters = [name for name in notebooks if re.match(r"\d\d_", name)]
    if chapters != (ordered := sorted(chapters, key=lambda name: name[:2])):
        raise ValueError(
            "chapters are listed in their order, since each reads what earlier ones made; "
            f"{study} has {', '.join(chapters)}: write {', '.join(ordered)}"
        )


def _whole(study: Path, gpus: Any) -> int:
    if type(gpus) is not int or gpus < 0:
        raise ValueError(f"gpus is a whole number, 0 or more; {study} has {gpus!r}")
    return gpus


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) is not None


def _is_one(value: Any) -> bool:
    return isinstance(value, str | int | float)  # a bool is an int


def _expanded(value: Any) -> Any:
    if not isinstance(value, str) or "$" not in value:
        return value
    expanded = os.path.expandvars(value)
    if "$" in expanded:
        raise ValueError(f"{value!r} needs a variable that is not set: export it first")
    kind, colon, place = expanded.rpartition(":")
    return f"{kind}{colon}{Path(os.path.expanduser(place)).resolve()}"
