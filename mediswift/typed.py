"""Values of the plain types that configurations and notebooks declare: int, float, str, bool.

Decisions: what comes from a command line or a YAML file may be text, and JSON writes 1 for 1.0, so
a value that means one of the declared type becomes it, and any other is refused. A run's id is made
of these values: 1 and 1.0 must not be two runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from mediswift.records import read_json

T = TypeVar("T")


def typed(name: str, value: Any, kind: str) -> Any:
    """`value` as the type of name `kind`. Raises ValueError for one that means none, or NaN.

    >>> typed("seed", "3", "int"), typed("lr", 1, "float"), typed("dense", "false", "bool")
    (3, 1.0, False)
    """
    try:
        return READERS[kind](value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} is of type {kind}; got {value!r:.200}") from None


def settle(config: Any) -> None:
    """Give every field of a dataclass, in place, the plain type that it declares.

    Raises ValueError, naming the field, for a value that means none of that type.
    """
    for field in fields(config):
        if field.type in READERS:
            value = typed(field.name, getattr(config, field.name), field.type)
            object.__setattr__(config, field.name, value)  # frozen, once it is made


def from_json(kind: Callable[..., T], path: str | Path) -> T:
    """Configuration of a dataclass, from a JSON file of its fields.

    Raises FileNotFoundError for no file, ValueError for one that is no JSON object, and for fields
    unknown or missing.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no configuration at {path}: give a JSON file of {kind.__name__}")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object of fields; got {type(content).__name__}")
    known = {field.name: field.default is MISSING for field in fields(kind)}
    if strange := sorted(content.keys() - known.keys()):
        near = get_close_matches(strange[0], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(known)}"
        raise ValueError(f"{path} has {strange[0]!r}, which is no field of {kind.__name__}{hint}")
    needed = (name for name, required in known.items() if required)
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"{path} lacks {', '.join(missing)}, which {kind.__name__} needs; add it")
    return kind(**content)


def _whole(value: Any) -> int:
    # text has no number to lose: int() reads whole ones alone
    if isinstance(value, bool) or not isinstance(value, str) and int(value) != value:
        raise ValueError(value)
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise ValueError(value)
    return str(value)


def _boolean(value: Any) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


READERS: dict[str, Callable[[Any], Any]] = {
    "int": _whole, "float": _real, "str": _text, "bool": _boolean,
}  # fmt: skip
"""What reads a value of each type."""
