"""Greedy writing: the same words with a cache as without, alone as in company."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from mediswift import models
from mediswift.decoding import greedy
from mediswift.flops import Shape
from mediswift.prompts import SoftPrompt

VOCABULARY = 40
PREFIXES = [[5], [6, 7, 8, 9, 10], [11, 12], [13] * 9]


def build(kind):
    """Tiny random model that does not repeat itself too soon."""
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": VOCABULARY}
    if kind == "biogpt":
        return models.build(Shape(**sizes, context=64), seed=0)
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**sizes, n_positions=64, initializer_range=0.5))
    same = {
        "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
        "num_attention_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64,
        "initializer_range": 0.5,
    }  # fmt: skip
    if kind == "sliding window":
        return MistralForCausalLM(MistralConfig(**same, num_key_value_heads=2, sliding_window=3))
    return LlamaForCausalLM(LlamaConfig(**same))


def by_hand(model, prefix, count):
    """The same without a cache, padding or company."""
    ids = list(prefix)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model.eval()(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prefix) :]


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
@pytest.mark.parametrize("kind", ["biogpt", "gpt2", "llama", "sliding window"])
def test_a_row_writes_in_company_what_it_writes_alone(kind, batch_tokens):
    model = build(kind)
    found = greedy(model, PREFIXES, 7, batch_tokens=batch_tokens)
    assert found == [by_hand(model, prefix, 7) for prefix in PREFIXES]
    assert len({tuple(ids) for ids in found}) > 1


@pytest.mark.parametrize("position", ["between", "before"])
def test_a_soft_prompt_writes_words_only(position):
    soft = SoftPrompt(build("gpt2"), 3, position)
    prefixes = [soft.assemble(prefix, []) for prefix in PREFIXES]
    found = greedy(soft, prefixes, 7)
    assert found == [by_hand(soft, prefix, 7) for prefix in prefixes]
    assert max(max(ids) for ids in found) < VOCABULARY


def test_a_row_ends_when_it_is_done():
    model = build("gpt2")
    whole = greedy(model, PREFIXES, 7)
    ended = greedy(model, PREFIXES, 7, done=lambda ids: ids[-1] == whole[1][2])
    for all_of_it, ids in zip(whole, ended, strict=True):
        stop = all_of_it.index(whole[1][2]) + 1 if whole[1][2] in all_of_it else 7
        assert ids == all_of_it[:stop]


def test_the_model_stays_in_its_mode():
    model = build("biogpt").train()
    greedy(model, PREFIXES, 1)
    assert model.training


@pytest.mark.parametrize(("prefixes", "count"), [([[1], []], 3), ([[1]], 0)])
def test_nothing_to_read_or_write_is_refused(prefixes, count):
    with pytest.raises(ValueError, match="a prefix of one token or more and max_new_tokens"):
        greedy(build("biogpt"), prefixes, count)
