import json
import math
from dataclasses import asdict

import pytest

from mediswift.configs import PretrainConfig, profile
from mediswift.continuation import ContinueConfig
from mediswift.finetune import FinetuneConfig
from mediswift.plan import PlanConfig
from mediswift.scoring import ScoreConfig
from mediswift.typed import from_json, settle, typed

MEANT = [
    ("int", 3, 3), ("int", "3", 3), ("int", 3.0, 3), ("int", 2**60 + 1, 2**60 + 1),
    ("float", 1, 1.0), ("float", "1e-3", 1e-3), ("str", 5, "5"), ("str", "", ""),
    ("bool", "false", False), ("bool", "True", True), ("bool", 0, False), ("bool", True, True),
]  # fmt: skip
MEANINGLESS = [
    ("int", 1.5), ("int", "x"), ("int", True), ("int", math.inf), ("int", None), ("int", [1]),
    ("float", math.nan), ("float", "inf"), ("float", False), ("float", None), ("float", {}),
    ("str", None), ("str", ["a"]), ("bool", "no"), ("bool", 2), ("bool", None), ("bool", ""),
]  # fmt: skip


def of(**changes):
    return asdict(profile("tiny")) | changes


def written(folder, content):
    path = folder / "c.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(("kind", "value", "wanted"), MEANT)
def test_what_means_a_value_becomes_it(kind, value, wanted):
    found = typed("x", value, kind)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(("kind", "value"), MEANINGLESS)
def test_what_means_none_is_refused(kind, value):
    with pytest.raises(ValueError, match=rf"x is of type {kind}; got "):
        typed("x", value, kind)


def test_a_configuration_is_the_same_however_its_numbers_are_written():
    one = profile("tiny", lr=1.0, warmup=0.0, sharded=False, seed=1)
    other = profile("tiny", lr=1, warmup="0", sharded="false", seed=1.0)
    assert json.dumps(asdict(one)) == json.dumps(asdict(other))


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (PretrainConfig, of(sharded="no"), "sharded is of type bool"),
        (PretrainConfig, of(tokens="many"), "tokens is of type int"),
        (PretrainConfig, of(lr=math.nan), "lr is of type float"),
        (PretrainConfig, of(size=None), "size is of type str"),
        (FinetuneConfig, {"parent": "p", "questions": "q", "dense": "no"}, "dense is of type bool"),
        (ContinueConfig, {"parent": "p", "tokens": 1.5, "lr": 1}, "tokens is of type int"),
        (PlanConfig, {"size": "med", "tokens": "x"}, "tokens is of type float"),
        (ScoreConfig, {"model": "m", "data": "d", "limit": "few"}, "limit is of type int"),
    ],
)
def test_every_configuration_refuses_a_field_of_another_type(kind, fields, named):
    with pytest.raises(ValueError, match=named):
        kind(**fields)


def test_a_field_that_is_no_plain_value_is_let_alone():
    config = profile("tiny").loop
    before = asdict(config)
    settle(config)
    assert asdict(config) == before


def test_json_makes_the_configuration_that_was_written(tmp_path):
    config = profile("tiny", sharded=True)
    assert from_json(PretrainConfig, written(tmp_path, asdict(config))) == config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "must be a JSON object of fields; got list"),
        ("{", "must be JSON, and is not"),
        (of(sparsty=0.5), "has 'sparsty', which is no field.*did you mean 'sparsity'"),
        (of(zzzz=1), "has 'zzzz', which is no field.*it knows size, corpus"),
        ({"size": "tiny"}, "lacks corpus, tokens, batch_tokens, lr, which PretrainConfig needs"),
    ],
)
def test_a_json_file_that_is_no_configuration_is_refused(tmp_path, content, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        from_json(PretrainConfig, written(tmp_path, content))


@pytest.mark.parametrize("changes", [{"lr": 0}, {"lr": -1e-3}])
def test_a_rate_that_teaches_nothing_is_refused(changes):
    with pytest.raises(ValueError, match="a rate is above 0"):
        profile("tiny", **changes)
