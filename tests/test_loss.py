"""Tests of mediswift.loss. Run with: pytest tests/test_loss.py.

Means over examples, and mixed precision, are in tests/test_train.py.
"""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GraniteConfig,
    LlamaConfig,
    OPTConfig,
)

from mediswift import loss
from mediswift.batches import IGNORED, AnswerExamples, Batch
from mediswift.loss import headless, summed_cross_entropy, summed_loss
from mediswift.prompts import SoftPrompt

VOCABULARY = 40
SIZE = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
LIKE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {"intermediate_size": 40, "num_key_value_heads": 1}
PLACES = {"max_position_embeddings": 32}
CONFIGS = {
    "gpt2, tied": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **SIZE),
    "opt, tied and projected": OPTConfig(
        ffn_dim=64, word_embed_proj_dim=8, **LIKE, **PLACES, **SIZE
    ),
    "biogpt, tied": BioGptConfig(intermediate_size=64, **LIKE, **PLACES, **SIZE),
    "llama": LlamaConfig(**LLAMA, **LIKE, **PLACES, **SIZE),
    "llama, tied": LlamaConfig(tie_word_embeddings=True, **LLAMA, **LIKE, **PLACES, **SIZE),
    "gpt-j, biased": GPTJConfig(
        n_embd=16, n_layer=2, n_head=2, n_positions=32, rotary_dim=4, **SIZE
    ),
    "gemma2, capped": Gemma2Config(
        head_dim=8, final_logit_softcapping=0.5, **LLAMA, **LIKE, **PLACES, **SIZE
    ),
    "granite, scaled": GraniteConfig(logits_scaling=8.0, **LLAMA, **LIKE, **PLACES, **SIZE),
}
WITH_HEAD = {"gpt-j, biased", "gemma2, capped", "granite, scaled"}
"""Whose logits are more than a product with the head, so that the plain loss is taken."""
each_family = pytest.mark.parametrize("family", CONFIGS)


@pytest.fixture(autouse=True)
def chunk(monkeypatch):
    """Chunks so small that every batch has several, the last of them shorter."""
    monkeypatch.setattr(loss, "CHUNK", 7)


def build(family):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def rows(size=3, length=9):
    return torch.randint(0, VOCABULARY, (size, length), generator=torch.Generator().manual_seed(0))


def gradients(model):
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def logits_taken(monkeypatch):
    """Shapes of what passes through torch's own cross entropy."""
    shapes = []

    def noted(logits, *rest, **options):
        shapes.append(tuple(logits.shape))
        return cross_entropy(logits, *rest, **options)

    monkeypatch.setattr(loss, "cross_entropy", noted)
    return shapes


@each_family
def test_loss_and_gradients_are_those_of_transformers(family, monkeypatch):
    model, ids = build(family), rows()
    labels = ids.clone()
    labels[0, 3:6] = labels[2] = IGNORED
    wanted = model(input_ids=ids, labels=labels).loss * int((labels[:, 1:] != IGNORED).sum())
    wanted.backward()
    of_wanted, shapes = gradients(model), logits_taken(monkeypatch)
    unscored = int((labels[:, 1:] == IGNORED).sum())
    found = summed_loss(model, Batch(ids[:, :-1], labels[:, 1:], unscored=unscored))
    found.backward()
    same(found, wanted)
    of_found = gradients(model)
    assert of_found.keys() == of_wanted.keys()
    for name in of_wanted:
        same(of_found[name], of_wanted[name])
    # positions without a loss have no logits
    assert shapes == ([(24 - unscored, VOCABULARY)] if family in WITH_HEAD else [])


def test_only_positions_with_a_loss_reach_the_head(monkeypatch):
    model, heights = build("gpt2, tied"), []

    def noted(hidden, *rest):
        heights.append(len(hidden))
        return summed_cross_entropy(hidden, *rest)

    monkeypatch.setattr(loss, "summed_cross_entropy", noted)
    batch = AnswerExamples([([5, 6, 7, 8], 2), ([5, 6], 1)], VOCABULARY).batch(range(2))
    summed_loss(model, batch)
    summed_loss(model, Batch(batch.input_ids, batch.input_ids))
    assert heights == [3, 6]


@each_family
def test_without_gradients_it_is_the_same_number(family, monkeypatch):
    model, ids = build(family), rows()
    batch = Batch(ids[:, :-1], ids[:, 1:])
    wanted, shapes = summed_loss(model, batch), logits_taken(monkeypatch)
    with torch.no_grad():
        found = summed_loss(model, batch)
    assert not found.requires_grad
    same(found, wanted.detach())
    chunks = [(7, VOCABULARY)] * 3 + [(3, VOCABULARY)]
    assert shapes == ([(24, VOCABULARY)] if family in WITH_HEAD else chunks)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("family", ["gpt2, tied", "llama", "gpt-j, biased"])
def test_a_soft_prompt_learns_as_from_all_logits(family, frozen):
    soft = SoftPrompt(build(family), 2, frozen=frozen)
    sequences = [(soft.assemble([5, 6, 7][:n], [8, 9, 10]), n + 2) for n in (1, 2, 3)]
    batch = AnswerExamples(sequences, VOCABULARY).batch(range(3))
    logits = soft(input_ids=batch.input_ids).logits
    wanted = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
    wanted.backward()
    of_wanted = gradients(soft)
    found = summed_loss(soft, batch)
    found.backward()
    same(found, wanted)
    of_found = gradients(soft)
    assert of_found.keys() == of_wanted.keys() and "prompt" in of_found
    assert (set(of_found) == {"prompt"}) == frozen
    for name in of_wanted:
        same(of_found[name], of_wanted[name])


# The head


class Halt(Exception):
    pass


def test_the_head_is_itself_again_whatever_happens(monkeypatch):
    model, ids = build("gpt2, tied"), rows()
    head, before = model.lm_head, model(input_ids=ids).logits
    summed_loss(model, Batch(ids, ids))
    assert "forward" not in vars(head)

    def halt(*_):
        raise Halt

    handle = model.transformer.ln_f.register_forward_hook(halt)
    with pytest.raises(Halt):
        summed_loss(model, Batch(ids, ids))
    handle.remove()
    assert "forward" not in vars(head)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_within_headless_the_input_comes_out_and_is_listed():
    head, hidden = nn.Linear(3, 5, bias=False), torch.rand(2, 3)
    with headless(head) as entered:
        assert head(hidden) is hidden
    assert entered[0] is hidden and head(hidden).shape == (2, 5)


# The sum


def draw(tokens, dtype=torch.float64):
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 6, generator=generator, dtype=dtype, requires_grad=True)
    head = torch.randn(11, 6, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, 11, (tokens,), generator=generator)
    targets[1::3] = IGNORED
    return hidden, head, targets


def plain(hidden, head, targets):
    return cross_entropy(hidden @ head.T, targets, ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("tokens", [0, 1, 6, 7, 8, 14, 50])
def test_any_number_of_tokens_sums_to_the_plain_loss(tokens):
    given = draw(tokens, torch.float32)
    wanted, found = plain(*given), summed_cross_entropy(*given)
    same(found, wanted)
    same(torch.autograd.grad(3 * found, given[:2]), torch.autograd.grad(3 * wanted, given[:2]))


@pytest.mark.parametrize("trained", [0, 1])
def test_only_what_is_asked_for_gets_a_gradient(trained):
    given = list(draw(9, torch.float32))
    given[1 - trained] = given[1 - trained].detach()
    wanted = torch.autograd.grad(plain(*given), given[trained])
    same(torch.autograd.grad(summed_cross_entropy(*given), given[trained]), wanted)


def test_nothing_but_ignored_targets_is_no_loss():
    hidden, head, targets = draw(9, torch.float32)
    found = summed_cross_entropy(hidden, head, targets.fill_(IGNORED))
    found.backward()
    assert found == 0 and not hidden.grad.any() and not head.grad.any()


def test_large_logits_do_not_overflow():
    hidden, head, targets = (
        1000 * t if t.is_floating_point() else t for t in draw(9, torch.float32)
    )
    found = summed_cross_entropy(hidden, head, targets)
    assert torch.isfinite(found)
    torch.testing.assert_close(found, plain(hidden, head, targets))


def test_no_more_than_a_chunk_of_logits_is_ever_held(monkeypatch):
    held = []
    whole = loss._into_gradient
    monkeypatch.setattr(
        loss, "_into_gradient", lambda logits, t: (held.append(len(logits)), whole(logits, t))[1]
    )
    summed_cross_entropy(*draw(50, torch.float32)).backward()
    assert held == [7] * 7 + [1]


def test_half_precision_multiplies_and_float32_sums():
    given = draw(50, torch.float32)
    wanted = plain(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = summed_cross_entropy(*given)
        with torch.no_grad():
            assert summed_cross_entropy(*given) == pytest.approx(found.item(), rel=1e-5)
    assert found.dtype == torch.float32 and found.item() != wanted.item()
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=0)
    pairs = zip(*(torch.autograd.grad(each, given[:2]) for each in (found, wanted)), strict=True)
    for one, other in pairs:
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.05 * other.abs().max().item())
