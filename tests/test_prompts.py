"""Tests of mediswift.prompts. Run with: pytest tests/test_prompts.py."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from mediswift import models, prompts
from mediswift.flops import Shape
from mediswift.prompts import SoftPrompt

VOCABULARY = 40
SOURCE, TARGET = [5, 6, 7, 8], [9, 10]
both_positions = pytest.mark.parametrize("position", prompts.POSITIONS)


def build(kind="biogpt"):
    """Tiny random model; both kinds have learned positions."""
    if kind == "biogpt":
        shape = Shape(n_layer=2, n_embd=16, n_head=2, context=32, vocab_size=VOCABULARY)
        return models.build(shape, seed=0).eval()
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=32, vocab_size=VOCABULARY)
    return GPT2LMHeadModel(config).eval()


def logits(model, *rows, **options):
    """Logits of rows of ids, padded on the right to the longest."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, **options).logits


def test_the_prompt_stands_where_it_is_told_to():
    between = SoftPrompt(build(), 3)
    before = SoftPrompt(build(), 3, "before")
    assert between.assemble(SOURCE, TARGET) == [5, 6, 7, 8, 40, 41, 42, 9, 10]
    assert before.assemble(SOURCE, TARGET) == [40, 41, 42, 5, 6, 7, 8, 9, 10]
    assert SoftPrompt(build()).assemble([], []) == list(range(40, 49))  # nine, as in BioGPT


@both_positions
@pytest.mark.parametrize("kind", ["biogpt", "gpt2"])
def test_logits_equal_those_of_embeddings_laid_by_hand(kind, position):
    model = build(kind)
    soft = SoftPrompt(model, 3, position, seed=4)
    words = model.get_input_embeddings()
    source, target = (words(torch.tensor(ids)) for ids in (SOURCE, TARGET))
    order = (
        [source, soft.prompt, target] if position == "between" else [soft.prompt, source, target]
    )
    with torch.no_grad():
        wanted = model(inputs_embeds=torch.cat(order)[None]).logits
    found = logits(soft, soft.assemble(SOURCE, TARGET))
    assert found.shape == (1, len(SOURCE) + 3 + len(TARGET), VOCABULARY)  # aligned with the ids
    assert torch.equal(found, wanted)


def test_ids_without_a_prompt_are_read_as_the_model_reads_them():
    model = build()
    assert torch.equal(logits(SoftPrompt(model, 3), SOURCE), logits(model, SOURCE))


@both_positions
def test_padding_on_the_right_changes_nothing(position):
    soft = SoftPrompt(build(), 3, position)
    short, long = soft.assemble(SOURCE, TARGET), soft.assemble(SOURCE * 4, TARGET)
    together = logits(soft, short, long)
    assert torch.allclose(together[0, : len(short)], logits(soft, short)[0], atol=1e-6)
    assert torch.allclose(together[1], logits(soft, long)[0], atol=1e-6)


def test_the_last_logits_alone_are_the_same():
    soft = SoftPrompt(build(), 3)
    ids = soft.assemble(SOURCE, TARGET)
    last = logits(soft, ids, logits_to_keep=2)
    assert last.shape == (1, 2, VOCABULARY)
    assert torch.allclose(last, logits(soft, ids)[:, -2:], atol=1e-6)


@both_positions
def test_saved_and_loaded_it_gives_the_same_logits(tmp_path, position):
    soft = SoftPrompt(build(), 3, position, seed=6)
    step(soft)
    soft.save_pretrained(tmp_path)
    loaded = prompts.load(tmp_path).eval()
    ids = soft.assemble(SOURCE, TARGET)
    assert isinstance(loaded, SoftPrompt) and loaded.assemble(SOURCE, TARGET) == ids
    assert torch.equal(logits(loaded, ids), logits(soft, ids))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()  # beside it, not inside it
    assert torch.equal(logits(plain, SOURCE), logits(soft, SOURCE))


def test_a_model_without_a_prompt_loads_as_it_is(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = prompts.load(tmp_path).eval()
    assert not isinstance(loaded, SoftPrompt)
    assert torch.equal(logits(loaded, SOURCE), logits(model, SOURCE))


def step(soft):
    """One AdamW step with a loss on the target; which parameters it changed, by name."""
    before = {name: p.detach().clone() for name, p in soft.named_parameters()}
    trained = [p for p in soft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    ids = torch.tensor([soft.assemble(SOURCE, TARGET)])
    predicted = soft(input_ids=ids).logits[0, -len(TARGET) - 1 : -1]
    cross_entropy(predicted, torch.tensor(TARGET)).backward()
    optimizer.step()
    return {n for n, p in soft.named_parameters() if not torch.equal(p.detach(), before[n])}


def test_frozen_trains_the_prompt_alone():
    assert step(SoftPrompt(build(), 3, frozen=True)) == {"prompt"}


def test_the_model_is_trained_along_unless_it_is_frozen():
    soft = SoftPrompt(build(), 3)
    assert step(soft) == {name for name, _ in soft.named_parameters()}


def test_the_seed_draws_the_vectors():
    one, same, other = (SoftPrompt(build(), 200, seed=seed).prompt for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (200, 16) and one.std().item() == pytest.approx(0.02, rel=0.05)


def test_errors_say_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="position is one of between, before; got 'after'"):
        SoftPrompt(build(), 3, "after")
    with pytest.raises(ValueError, match="at least one virtual token, got 0; use the model itself"):
        SoftPrompt(build(), 0)
    with pytest.raises(FileNotFoundError, match=r"a model folder holds config\.json"):
        prompts.load(tmp_path)


def test_weights_that_only_pickle_can_read_are_refused(tmp_path):
    model = build()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        prompts.load(tmp_path)
