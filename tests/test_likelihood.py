"""Tests of mediswift.likelihood. Run with: pytest tests/test_likelihood.py."""

import inspect

import numpy as np
import pytest
import torch
from transformers import (
    BioGptConfig,
    BioGptForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from mediswift.likelihood import log_likelihoods
from mediswift.prompts import SoftPrompt

PREFIXES = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3, 5], [8], [9, 7, 9, 3, 2]]
SHAPES = [[[7], [8], [9]], [[7, 2], [8], [7, 2, 5]], [[7, 2], [8, 1, 1], [9, 4]]]


def make_model(kind):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=16,
            n_positions=32,
            n_embd=16,
            n_layer=2,
            n_head=2,
            bos_token_id=None,
            eos_token_id=None,
        )
        return GPT2LMHeadModel(config)
    same = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2}
    same |= {"num_attention_heads": 2, "max_position_embeddings": 32}
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(intermediate_size=32, **same))
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(ffn_dim=32, word_embed_proj_dim=16, **same))
    if kind == "sliding window":
        window = {"num_key_value_heads": 1, "sliding_window": 3, "initializer_range": 0.5}
        return MistralForCausalLM(MistralConfig(intermediate_size=32, **same, **window))
    if kind == "local attention":
        kinds = {"attention_types": [[["global", "local"], 1]], "window_size": 3}
        sizes = {"vocab_size": 16, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
        return GPTNeoForCausalLM(GPTNeoConfig(**sizes, **kinds, initializer_range=0.5))
    if kind == "convolution":
        layers = {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 1}
        return Lfm2ForCausalLM(Lfm2Config(intermediate_size=32, **same, **layers))
    if kind == "soft prompt":
        return SoftPrompt(make_model("biogpt"), 2)
    config = BioGptConfig(
        vocab_size=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    return BioGptForCausalLM(config)


def one_by_one(model, prefix, answer):
    """Log p(answer | prefix) from an unpadded pass over the whole sequence."""
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prefix, *answer]])).logits[0]
    steps = logits.log_softmax(-1)[len(prefix) - 1 : -1]
    return sum(float(step[token]) for step, token in zip(steps, answer, strict=True))


KINDS = ["gpt2", "biogpt", "opt", "llama", "soft prompt"]
KINDS += ["sliding window", "local attention", "convolution"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answers", SHAPES)
@pytest.mark.parametrize("batch_tokens", [1, 20, 8192])
def test_batches_equal_one_by_one(kind, answers, batch_tokens):
    model = make_model(kind)
    scores = log_likelihoods(model, PREFIXES, answers, batch_tokens)
    wanted = [[one_by_one(model, prefix, answer) for answer in answers] for prefix in PREFIXES]
    assert scores == pytest.approx(np.array(wanted), abs=1e-5)


class Counting(torch.nn.Module):
    """A model without `logits_to_keep` that notes the shape of each batch."""

    def __init__(self):
        super().__init__()
        self.inner, self.shapes = make_model("gpt2"), []

    def forward(self, input_ids, attention_mask):
        self.shapes.append(tuple(input_ids.shape))
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize(("answers", "rows"), [(SHAPES[0], 1), (SHAPES[1], 1), (SHAPES[2], 3)])
def test_answers_that_begin_alike_share_a_row(answers, rows):
    # One-token answers need the prefix alone; [7, 2, 5] goes on from [7, 2] and its row serves [8].
    model = Counting()
    log_likelihoods(model, PREFIXES, answers)
    assert sum(shape[0] for shape in model.shapes) == rows * len(PREFIXES)


def test_a_prefix_is_read_once_whatever_follows(monkeypatch):
    model, read = make_model("biogpt"), []
    forward = type(model).forward

    def noted(self, input_ids, **options):
        read.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **options)

    noted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(type(model), "forward", noted)
    log_likelihoods(model, PREFIXES, SHAPES[2])
    # a trial of the cache; then three stems, of two tokens at most, after each of four
    assert read == [(1, 2), (4, 8), (12, 2)]


def test_a_model_without_logits_to_keep_scores_the_same():
    model = Counting()
    wanted = log_likelihoods(model.inner, PREFIXES, SHAPES[1])
    assert log_likelihoods(model, PREFIXES, SHAPES[1]) == pytest.approx(wanted, abs=1e-6)


def test_batches_go_from_long_to_short_within_the_bound():
    model = Counting()
    log_likelihoods(model, PREFIXES, SHAPES[0], batch_tokens=10)
    assert model.shapes == [(1, 8), (2, 5), (1, 1)]


def test_all_continuations_of_one_length_sum_to_one():
    pairs = [[a, b] for a in range(16) for b in range(16)]
    scores = log_likelihoods(make_model("gpt2"), PREFIXES, pairs)
    assert np.exp(scores).sum(1) == pytest.approx(np.ones(len(PREFIXES)), abs=1e-5)


def test_modes_and_gradients_are_left_as_they_were():
    model = make_model("biogpt").train()
    model.biogpt.layers[0].eval()
    before = [module.training for module in model.modules()]
    first = log_likelihoods(model, PREFIXES, SHAPES[0])
    assert [module.training for module in model.modules()] == before
    assert all(p.grad is None for p in model.parameters()) and torch.is_grad_enabled()
    assert np.array_equal(first, log_likelihoods(model, PREFIXES, SHAPES[0]))  # no dropout


def test_modes_come_back_after_an_error():
    model = make_model("gpt2").train()
    with pytest.raises(IndexError):
        log_likelihoods(model, [[99]], SHAPES[0])
    assert model.training


def test_probabilities_of_a_half_precision_model_are_taken_in_single():
    model = make_model("gpt2").to(torch.bfloat16)
    every = [[token] for token in range(16)]
    total = np.exp(log_likelihoods(model, PREFIXES, every)).sum(1)
    assert total == pytest.approx(np.ones(len(PREFIXES)), abs=1e-6)  # in bfloat16: 5e-3 off


@pytest.mark.parametrize(("prefixes", "answers"), [([[]], [[1]]), ([[1]], [[1], []])])
def test_an_empty_prefix_or_answer_is_refused(prefixes, answers):
    with pytest.raises(ValueError, match="one token or more, got an empty one"):
        log_likelihoods(make_model("gpt2"), prefixes, answers)
