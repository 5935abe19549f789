"""Tests of mediswift.models. Run with: pytest tests/test_models.py."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, BioGptForCausalLM, GPT2Config, GPT2LMHeadModel

from mediswift import flops, models
from mediswift.flops import Shape

NARROW = Shape(n_layer=2, n_embd=32, n_head=4, context=24, vocab_size=50)


@pytest.mark.parametrize(
    ("size", "printed"), [("med", 302_311_424), ("xl", 1_208_602_624), ("demo", None)]
)
def test_the_real_class_has_the_parameters_of_the_formula(size, printed):
    shape = models.shape(size)
    with torch.device("meta"):  # names and shapes only: XL is five gigabytes
        model = BioGptForCausalLM(models._config(shape))
    found = models.non_embedding_parameters(model)
    assert found == flops.parameters(shape) == (printed or found)


@pytest.mark.parametrize("size", models.SIZES)
def test_every_named_size_is_buildable(size):
    with torch.device("meta"):
        model = BioGptForCausalLM(models._config(models.shape(size)))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_another_architecture_is_counted_alike():
    config = GPT2Config(n_layer=3, n_embd=48, n_head=4, n_positions=64, vocab_size=99)
    model = GPT2LMHeadModel(config)
    shape = Shape(n_layer=3, n_embd=48, n_head=4, context=64, vocab_size=99)
    assert models.non_embedding_parameters(model) == flops.parameters(shape)


def test_a_seed_is_the_weights_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = models.build(NARROW, seed=7).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = models.build(NARROW, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)  # and the caller's draws are not disturbed
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = models.build(NARROW, seed=8).state_dict()
    assert not torch.equal(first["biogpt.embed_tokens.weight"], other["biogpt.embed_tokens.weight"])


@pytest.mark.parametrize(("width", "spread"), [(2048, 0.02), (1024, 0.02), (256, 0.04), (64, 0.08)])
def test_narrow_models_start_wider(width, spread):
    shape = Shape(n_layer=1, n_embd=width, n_head=1)
    assert models.initial_spread(shape) == pytest.approx(spread)


def test_residual_projections_start_smaller():
    shape = models.shape("demo")
    weights = dict(models.build(shape, seed=0).named_parameters())
    spread, block = models.initial_spread(shape), "biogpt.layers.1"
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "fc1"):
        assert weights[f"{block}.{name}.weight"].std().item() == pytest.approx(spread, rel=0.03)
    for name in ("self_attn.out_proj", "fc2"):
        small = spread / (2 * shape.n_layer) ** 0.5
        assert weights[f"{block}.{name}.weight"].std().item() == pytest.approx(small, rel=0.03)
    assert weights["biogpt.embed_tokens.weight"].std().item() == pytest.approx(spread, rel=0.03)


def test_a_fresh_model_is_about_as_unsure_as_a_uniform_guess():
    model = models.build(models.shape("demo"), seed=0)
    ids = torch.randint(0, 4096, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    assert loss.item() == pytest.approx(math.log(4096), abs=0.3)


def test_dropout_is_off_even_in_training():
    model = models.build(NARROW, seed=0).train()
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_saved_model_loads_with_nothing_of_ours(tmp_path):
    model = models.build(NARROW, seed=0).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(20)[None]
    assert type(loaded) is BioGptForCausalLM
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert not list(tmp_path.glob("*.bin")) and list(tmp_path.glob("*.safetensors"))


def test_an_unknown_size_names_the_known_ones():
    with pytest.raises(
        ValueError,
        match="one of tiny, demo, nano, micro, mini, small, med, large, xl; got 'medium'",
    ):
        models.shape("medium")
