"""Configurations of pre-training: what they derive, and what they refuse."""

from dataclasses import replace

import pytest

from mediswift import configs, pretrain
from mediswift.schedule import Rule

TINY = configs.profile("tiny")


def test_tokens_are_rounded_up_to_whole_steps():
    config = replace(TINY, tokens=2_049)
    assert (config.steps, config.loop.batch) == (3, 2)


@pytest.mark.parametrize("name", configs.PROFILES)
def test_every_profile_is_a_loop(name):
    config = configs.profile(name)
    assert config.loop.batch * config.shape.context == config.batch_tokens
    assert config.steps * config.batch_tokens >= config.tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 75}, r"got 75.0; did you mean 0\.75"),
        ({"pattern": "2of4"}, "2of4"),
        ({"pattern": "2of4", "sparsity": 0.0}, "2of4"),
        ({"pattern": "2:4"}, r"pattern 2:4 fixes the sparsity at 0\.5, got 0\.75"),
        ({"precision": "fp8"}, "precision is no or bf16; got 'fp8'"),
        ({"moves": "gmp"}, "masks move by set or rigl; got 'gmp'"),
        ({"moves": "set", "pattern": "16x16"}, "masks that move are unstructured, .*'16x16'"),
        ({"moves": "rigl", "sharded": True}, "in whole matrices; .*sharded=True"),
        ({"size": "huge"}, "a size is one of tiny, demo"),
        ({"batch_tokens": 1_000}, "multiple of the context 512 .* batch_tokens=1000"),
        ({"tokens": 512}, "at most tokens, got batch_tokens=1024 and tokens=512"),
        ({"batch_tokens": 0}, "a positive multiple of the context 512 .* batch_tokens=0"),
        ({"tokens": 10**40}, "tokens are at most 4611686018427387904, got"),
        ({"validations": -3}, "validations and validation_rows are 0 or more"),
        ({"validation_rows": -5}, "validations and validation_rows are 0 or more"),
        ({"warmup": 1.5}, "warmup is a fraction"),
        ({"warmup": -0.001}, "warmup is a fraction"),
        ({"seed": 2**63}, "below 2"),
        ({"engine": "bogus"}, "an engine is one of auto, masked"),
    ],
)
def test_a_bad_choice_is_refused_before_the_corpus_is_read(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_a_dense_run_is_one_whatever_would_shape_it_if_it_were_sparse():
    dense = configs.profile("tiny", sparsity=0)
    assert configs.profile("tiny", sparsity=0, pattern="2:4", density_scaling=True) == dense
    assert not dense.density_scaling and not dense.loop.density_scaling
    assert configs.profile("tiny", sparsity=0, moves="rigl", moves_every=7) == dense


def test_the_loop_is_told_of_density_scaling():
    told = [replace(TINY, density_scaling=scaled).loop for scaled in (False, True)]
    assert told == [TINY.loop, replace(TINY.loop, density_scaling=True)]


def test_the_loop_is_told_how_masks_move_if_they_do():
    assert replace(TINY, moves_every=7, moves_fraction=0.2) == TINY
    moving = replace(TINY, moves="set", moves_every=7, moves_fraction=0.2).loop
    assert moving.moves == Rule(name="set", every=7, fraction=0.2)


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(ValueError, match="a profile is one of tiny, demo, .*; got 'big'"):
        configs.profile("big")


@pytest.mark.parametrize(
    "name", ["HOW", "LATER", "PROFILES", "RECIPE", "PretrainConfig", "profile"]
)
def test_each_name_is_reached_from_pretrain_too(name):
    assert getattr(pretrain, name) is getattr(configs, name)
