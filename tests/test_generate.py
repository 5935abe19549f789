"""Generated answers: greedy text is the same in a batch as alone, and is read strictly."""

import pytest
import torch
from test_pubmedqa import make_model, make_questions, make_tokenizer
from transformers import (
    BioGptConfig,
    BioGptForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from mediswift import generate, pubmedqa
from mediswift.prompts import SoftPrompt

SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PREFIXES = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 2], [11], [30, 40, 50, 60]]


def make(kind):
    torch.manual_seed(3)
    rest = {"max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "gpt2":
        return make_model()
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SMALL, **rest, intermediate_size=64))
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(**SMALL, **rest, ffn_dim=64, word_embed_proj_dim=32))
    model = BioGptForCausalLM(BioGptConfig(**SMALL, **rest, intermediate_size=64))
    return SoftPrompt(model, 3, seed=1) if kind == "prompt" else model


def one_by_one(model, prefix, tokens):
    """The likeliest next id, appended, again and again; no padding, no cache."""
    model.eval()
    ids, end = list(prefix), {1}
    for _ in range(tokens):
        with torch.no_grad():
            best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if best in end and getattr(model.config, "eos_token_id", None) == best:
            break
        ids.append(best)
    return ids[len(prefix) :]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "biogpt", "prompt"])
def test_a_batch_says_what_each_says_alone(kind):
    model = make(kind)
    prefixes = [model.assemble(p, []) for p in PREFIXES] if kind == "prompt" else PREFIXES
    said = generate.greedy(model, prefixes, 6)
    assert said == [one_by_one(model, prefix, 6) for prefix in prefixes]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" the answer to the question given the context is maybe.", "maybe"),
        ("so the answer to the question  given the context\nis Yes", "yes"),
        ("the answer to the question given the context is nothing", ""),
        ("the answer is yes", ""),
        ("", ""),
    ],
)
def test_only_the_fixed_phrase_is_read(text, answer):
    assert generate.answer(text) == answer


def test_what_cannot_be_read_is_wrong_and_is_counted():
    report = generate.spoken(make_model(), make_tokenizer(), make_questions())
    assert report.unanswered == report.n and report.accuracy == 0 and report.macro_f1 == 0
    assert "7 without an answer" in str(report)
    assert all(row["text"] for row in report.predictions)


def test_a_model_that_says_the_sentence_is_read(monkeypatch):
    tokenizer, questions = make_tokenizer(), make_questions()
    target = tokenizer(pubmedqa.render(questions[1]).target, add_special_tokens=False).input_ids
    monkeypatch.setattr(generate, "greedy", lambda model, prefixes, n: [target] * len(prefixes))
    report = generate.spoken(make_model(), tokenizer, questions)
    assert set(report.answers) == {"no"} and report.unanswered == 0
    likely = pubmedqa.evaluate(make_model(), tokenizer, questions)
    wanted = sum(a != "no" for a in likely.answers) / likely.n
    assert generate.disagreement(report, likely) == pytest.approx(wanted)
