"""Tests of mediswift.prompts. Run with: pytest tests/test_prompts.py."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    BioGptForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from mediswift import models, prompts
from mediswift.flops import Shape
from mediswift.prompts import SoftPrompt
from mediswift.runs import load_model, load_tokenizer

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


LENGTHS = (1, 5, 9, 17)
"""Those of BioGPT's table of prompt lengths; 0 is the model itself."""


@both_positions
@pytest.mark.parametrize("kind", ["biogpt", "gpt2"])
def test_padding_on_the_left_changes_nothing(kind, position):
    soft = SoftPrompt(build(kind), 3, position)
    short, long = soft.assemble(SOURCE, TARGET), soft.assemble(SOURCE * 4, TARGET)
    pads = len(long) - len(short)
    ids = torch.tensor([[0] * pads + short, long])
    mask = torch.tensor([[0] * pads + [1] * len(short), [1] * len(long)])
    with torch.no_grad():
        together = soft(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(together[0, pads:], logits(soft, short)[0], atol=1e-6)
    assert torch.allclose(together[1], logits(soft, long)[0], atol=1e-6)


@both_positions
@pytest.mark.parametrize("count", LENGTHS)
def test_prompts_of_any_length_keep_the_logits_aligned(count, position):
    soft = SoftPrompt(build(), count, position)
    ids = soft.assemble(SOURCE, TARGET)
    assert len(ids) == len(SOURCE) + count + len(TARGET)
    assert logits(soft, ids).shape == (1, len(ids), VOCABULARY)


def test_vectors_from_the_vocabulary_are_rows_of_it():
    words = build().get_input_embeddings()
    one, same, other = (prompts.initial_vectors(words, 9, "vocabulary", s) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert all((row == words.weight).all(dim=1).any() for row in one)


@pytest.mark.parametrize(("count", "rows"), [(1, [7]), (2, [7, 8]), (5, [7, 8, 7, 8, 7])])
def test_vectors_from_a_text_are_its_words_repeated_or_cut(count, rows):
    words = build().get_input_embeddings()
    found = prompts.initial_vectors(words, count, [7, 8], seed=0)
    assert torch.equal(found, words.weight[rows])


def test_a_prompt_that_starts_as_words_reads_as_those_words():
    model = build()
    soft = SoftPrompt(model, 3, initialization=[20, 21, 22])
    found = logits(soft, soft.assemble(SOURCE, TARGET))
    assert torch.equal(found, logits(model, [*SOURCE, 20, 21, 22, *TARGET]))


def test_a_prompt_that_starts_as_words_leaves_them_alone():
    soft = SoftPrompt(build(), 2, frozen=True, initialization=[7, 8])
    before = soft.model.get_input_embeddings().weight.clone()
    assert step(soft) == {"prompt"}
    assert torch.equal(soft.model.get_input_embeddings().weight, before)


def test_words_that_the_model_scales_are_scaled_in_the_prompt():
    config = BioGptConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, scale_embedding=True,
    )  # fmt: skip
    words = BioGptForCausalLM(config).get_input_embeddings()
    found = prompts.initial_vectors(words, 1, [7], seed=0)
    assert torch.allclose(found[0], words.weight[7] * 4)  # sqrt(16)


# Beside PEFT

beside_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
"""PEFT asks models for what transformers will drop."""


@pytest.fixture
def tuning():
    """PEFT's prompt tuning, three virtual tokens before the source, around a model."""
    peft = pytest.importorskip("peft", reason="needs peft, of the extra `test`")

    def wrap(soft, kind):
        chosen = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        theirs = peft.get_peft_model(build(kind), chosen).eval()
        theirs.prompt_encoder["default"].embedding.weight.data.copy_(soft.prompt.data)
        return theirs

    return wrap


@beside_peft
@pytest.mark.parametrize("kind", ["biogpt", "gpt2"])
def test_logits_equal_those_of_peft_where_it_is_right(tuning, kind):
    soft = SoftPrompt(build(kind), 3, "before", seed=4)
    rows = SOURCE + TARGET, SOURCE * 3 + TARGET
    ours = logits(soft, *(soft.assemble(row, []) for row in rows))
    theirs = logits(tuning(soft, kind), *rows)
    for row, mine, peer in zip(rows, ours, theirs, strict=True):
        assert torch.allclose(mine[: 3 + len(row)], peer[: 3 + len(row)], atol=1e-6)


@beside_peft
def test_logits_are_right_where_those_of_peft_are_wrong(tuning):
    soft = SoftPrompt(build("gpt2"), 3, "before", seed=4)
    theirs, row = tuning(soft, "gpt2"), SOURCE + TARGET
    wanted = logits(soft, soft.assemble(row, []))[0, -1]
    assert torch.allclose(logits(theirs, row)[0, -1], wanted, atol=1e-6)  # nothing padded
    ids, mask = torch.tensor([[0] * 6 + row]), torch.tensor([[0] * 6 + [1] * len(row)])
    virtual = torch.tensor([soft.assemble([], [])])
    with torch.no_grad():
        peer = theirs(input_ids=ids, attention_mask=mask).logits[0, -1]
        padded = torch.cat([virtual, ids], dim=1)
        mine = soft(padded, torch.cat([torch.ones_like(virtual), mask], dim=1)).logits[0, -1]
    assert torch.allclose(mine, wanted, atol=1e-6)
    assert (peer - wanted).abs().max() > 1e-3


@beside_peft
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_text_starts_the_prompt_as_in_peft(tuning, count, pretrained, runs):
    peft = pytest.importorskip("peft")
    model = load_model(pretrained.id, runs)
    text, folder = "the answer to", str(runs / pretrained.id / "model")
    chosen = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=count, prompt_tuning_init="TEXT",
        prompt_tuning_init_text=text, tokenizer_name_or_path=folder,
    )  # fmt: skip
    ids = load_tokenizer(pretrained.id, runs)(text).input_ids
    ours = prompts.initial_vectors(model.get_input_embeddings(), count, ids, seed=0)
    theirs = peft.get_peft_model(model, chosen).prompt_encoder["default"].embedding.weight
    assert torch.equal(ours, theirs.detach())


# What it refuses


@pytest.mark.parametrize("initialization", ["zeros", [], ""])
def test_an_initialization_that_is_none_is_refused(initialization):
    with pytest.raises(ValueError, match="starts from random or vocabulary, or from the ids of"):
        SoftPrompt(build(), 3, initialization=initialization)


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
    with pytest.raises(ValueError, match="Weights are safetensors"):
        prompts.load(tmp_path)
