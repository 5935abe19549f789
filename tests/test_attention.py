"""Tests of mediswift.attention. Run with: pytest tests/test_attention.py."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mediswift import attention, models
from mediswift.attention import causal_in_runs, in_runs

SHAPE = models.shape("tiny", context=300)


def draw(tokens, dtype=torch.float64, width=8):
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(2, 3, tokens, width, generator=generator, dtype=dtype) for _ in range(4)]


@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 300])
def test_it_is_causal_attention_with_its_gradients(tokens):
    *given, grad = draw(tokens)
    given = [tensor.requires_grad_() for tensor in given]
    query, key, value = given
    wanted = scaled_dot_product_attention(query, key, value, is_causal=True)
    found = causal_in_runs(query * query.shape[-1] ** -0.5, key, value)
    torch.testing.assert_close(found, wanted)
    every = [torch.autograd.grad(y, given, grad) for y in (found, wanted)]
    for one, other in zip(*every, strict=True):  # sums over runs are in float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_it_is_as_close_as_torchs_own():
    *given, grad = draw(300, torch.bfloat16, 32)
    exact = [tensor.double().requires_grad_() for tensor in given]
    given = [tensor.requires_grad_() for tensor in given]
    own = causal_in_runs(given[0] * 32**-0.5, *given[1:])
    theirs = scaled_dot_product_attention(*given, is_causal=True)
    wanted = scaled_dot_product_attention(*exact, is_causal=True)
    of_wanted = torch.autograd.grad(wanted, exact, grad.double())
    errors = []
    for y in (own, theirs):
        found = [y, *torch.autograd.grad(y, given, grad)]
        pairs = zip(found, [wanted, *of_wanted], strict=True)
        errors.append([((a.double() - b).norm() / b.norm()).item() for a, b in pairs])
    assert all(a < 3 * b < 0.03 for a, b in zip(*errors, strict=True)), errors


def outputs(model, wanted, **given):
    """Hidden states, and a gradient, with and without."""
    model.zero_grad()
    with in_runs(model, wanted), torch.autocast("cpu", torch.bfloat16):
        y = model(**given, output_hidden_states=True).hidden_states[-1]
        y.float().square().sum().backward()
    return y.float(), next(model.parameters()).grad.clone()


@pytest.fixture
def asked(monkeypatch):
    """Which calls went in runs: shapes of their queries."""
    seen, own = [], attention.causal_in_runs

    def note(query, *rest):
        seen.append(tuple(query.shape))
        return own(query, *rest)

    monkeypatch.setattr(attention, "causal_in_runs", note)
    return seen


def test_a_model_attends_so_while_it_is_wanted(asked):
    model = models.build(SHAPE, seed=0)
    ids = torch.randint(2, SHAPE.vocab_size, (2, 300))
    usual = outputs(model, False, input_ids=ids)
    assert not asked
    runs = outputs(model, True, input_ids=ids)
    assert asked == SHAPE.n_layer * [(2, 2, 300, 32)]
    for one, other in zip(runs, usual, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
    assert model.config._attn_implementation == "sdpa"
    again = outputs(model, False, input_ids=ids)
    assert all(map(torch.equal, again, usual))


def test_a_mask_goes_to_the_usual_attention(asked):
    model = models.build(SHAPE, seed=0)
    ids = torch.randint(2, SHAPE.vocab_size, (2, 30))
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    one = outputs(model, True, input_ids=ids, attention_mask=mask)
    other = outputs(model, False, input_ids=ids, attention_mask=mask)
    assert not asked and all(map(torch.equal, one, other))


@pytest.mark.parametrize("kind", ["gpt2", "grouped queries", "long rows", "dropout"])
def test_other_models_are_as_they_were_or_as_close(asked, kind, monkeypatch):
    torch.manual_seed(0)
    size = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None}
    if kind == "grouped queries":
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
        config = LlamaConfig(hidden_size=32, intermediate_size=32, **heads, **size)
        model = LlamaForCausalLM(config)
    else:
        drop = 0.5 if kind == "dropout" else 0.0
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_head=2, n_layer=1, attn_pdrop=drop, **size))
    if kind == "long rows":
        monkeypatch.setattr(attention, "LONGEST", 29)
    model.train()
    one, other = (
        (torch.manual_seed(1), outputs(model, wanted, input_ids=torch.arange(60).view(2, 30)))[1]
        for wanted in (True, False)
    )
    assert bool(asked) == (kind == "gpt2")
    for a, b in zip(one, other, strict=True):
        assert (a - b).norm() <= (0.02 if asked else 0) * b.norm() + 1e-6 * b.norm()
