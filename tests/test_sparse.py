"""Tests of mediswift.sparse. Run with: pytest tests/test_sparse.py."""

import copy
from itertools import product

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
)

from mediswift import sparse
from mediswift.masks import make_mask
from mediswift.prompts import SoftPrompt

VOCABULARY, WIDTH, LAYERS = 64, 16, 2
SIZE = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
LIKE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
PLACES = {"max_position_embeddings": 32}
CONFIGS = {
    "gpt2": GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=32, **SIZE),
    "opt": OPTConfig(ffn_dim=64, word_embed_proj_dim=8, **LIKE, **PLACES, **SIZE),
    "biogpt": BioGptConfig(intermediate_size=64, **LIKE, **PLACES, **SIZE),
    "llama": LlamaConfig(intermediate_size=40, num_key_value_heads=1, **LIKE, **PLACES, **SIZE),
    "llama, tied": LlamaConfig(
        intermediate_size=40, tie_word_embeddings=True, **LIKE, **PLACES, **SIZE
    ),
    "gpt-neox": GPTNeoXConfig(intermediate_size=64, **LIKE, **PLACES, **SIZE),
}
BART_LIKE = [f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")] + ["fc1", "fc2"]
LLAMA_LIKE = [f"self_attn.{part}_proj" for part in "qkvo"] + [
    f"mlp.{part}_proj" for part in ("gate", "up", "down")
]
MATRICES = {
    "gpt2": ("transformer.h", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "opt": ("model.decoder.layers", BART_LIKE),
    "biogpt": ("biogpt.layers", BART_LIKE),
    "llama": ("model.layers", LLAMA_LIKE),
    "llama, tied": ("model.layers", LLAMA_LIKE),
    "gpt-neox": (
        "gpt_neox.layers",
        ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
    ),
}
each_family = pytest.mark.parametrize("family", CONFIGS)


def build(family, seed=0):
    """Tiny random model; no dropout, and nothing starts at zero, so that any zero is ours."""
    torch.manual_seed(seed)
    config = copy.deepcopy(CONFIGS[family])
    for name in vars(config):
        if "dropout" in name or name.endswith("pdrop"):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return model


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def train(model, optimizer, steps=4, forward=None):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        ids = torch.randint(0, VOCABULARY, (2, 12), generator=generator)
        (forward or model.forward)(input_ids=ids, labels=ids).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(12)[None]).logits


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@each_family
def test_the_matrices_of_the_blocks_and_nothing_else(family):
    model = build(family)
    before, (blocks, matrices) = state(model), MATRICES[family]
    masks = sparse.sparsify(model, 0.75, seed=3)
    wanted = [f"{blocks}.{i}.{m}.weight" for i, m in product(range(LAYERS), matrices)]
    assert sorted(masks.masks) == sorted(wanted)
    for name, weight in model.state_dict().items():
        if name in masks.masks:
            assert int(masks.masks[name].sum()) * 4 == weight.numel()
            assert torch.equal(weight, before[name] * masks.masks[name])
        else:  # embeddings, positions, norms, biases, projections outside the blocks, the head
            assert torch.equal(weight, before[name]) and weight.all()


class Odd(nn.Module):
    """A model whose head stands in the stack of its blocks, or that has no stack at all."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.outside = nn.Linear(4, 4)

    def get_output_embeddings(self):
        return self.layers[-1] if self.layers else None


def test_a_head_is_found_by_what_it_is_not_by_where_it_stands():
    masks = sparse.sparsify(Odd(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 9)))
    assert list(masks.masks) == ["layers.0.weight"]
    with pytest.raises(ValueError, match=r"an nn\.ModuleList of blocks; Odd has none"):
        sparse.sparsify(Odd())


@each_family
def test_zeros_stay_zero_and_the_rest_trains(family):
    model = build(family)
    masks = sparse.sparsify(model, 0.75)
    before = state(model)
    optimizer = train(model, adamw(model))
    masks.check(model)
    for name, weight in model.state_dict().items():
        mask = masks.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert not weight[~mask].any()
        assert not torch.equal(weight[mask], before[name][mask]), name
    for layer in sparse.layers(model):  # gradients and moments exist for kept weights only
        moments = [optimizer.state[layer.values][key] for key in ("exp_avg", "exp_avg_sq")]
        assert {tensor.numel() for tensor in moments} == {int(layer.layout.mask.sum())}
        assert all(tensor.any() for tensor in moments)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own imports
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_zeros_stay_zero_in_a_compiled_model(backend):
    model = build("biogpt")
    masks = sparse.sparsify(model, 0.75)
    before = state(model)
    train(model, adamw(model), forward=torch.compile(model, backend=backend).forward)
    masks.check(model)
    after = model.state_dict()
    for name, mask in masks.masks.items():
        assert not torch.equal(after[name][mask], before[name][mask])


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "16x16"])
def test_sparsity_zero_is_the_dense_run_bit_by_bit(pattern):
    dense, zero = build("gpt2"), build("gpt2")
    masks = sparse.sparsify(zero, 0.0, pattern)
    assert masks.digest == "" and sparse.masks_of(zero) is None
    train(dense, adamw(dense)), train(zero, adamw(zero))
    assert_same(state(dense), state(zero))


@each_family
def test_densify_changes_no_output_and_frees_the_removed_weights(family):
    model = build(family).eval()
    plain = list(model.state_dict()), sorted(vars(model)), [n for n, _ in model.named_buffers()]
    masks = sparse.sparsify(model, 0.75)
    assert list(model.state_dict()) == plain[0]  # masks stay out of checkpoints
    sparse_logits = logits(model)
    assert sparse.densify(model) is model
    assert torch.equal(logits(model), sparse_logits) and sparse.masks_of(model) is None
    after = list(model.state_dict()), sorted(vars(model)), [n for n, _ in model.named_buffers()]
    assert after == plain
    train(model, adamw(model), steps=2)
    parameters = dict(model.named_parameters())
    revived = sum(int(parameters[n].detach()[~m].count_nonzero()) for n, m in masks.masks.items())
    # not all: a unit of OPT's ReLU that never fires gets no gradient
    assert revived > 0.9 * sum(int((~mask).sum()) for mask in masks.masks.values())
    with pytest.raises(RuntimeError, match="removed weights stay exactly zero; [1-9]"):
        masks.check(model)


def test_conv1d_is_drawn_as_outputs_by_inputs_and_turned():
    masks = sparse.sparsify(build("gpt2"), 0.5, "2:4", seed=5).masks
    name = "transformer.h.0.attn.c_attn.weight"
    assert tuple(masks[name].shape) == (WIDTH, 3 * WIDTH)  # as GPT-2 stores it: (inputs, outputs)
    drawn = make_mask((3 * WIDTH, WIDTH), 0.5, "2:4", seed=5, name=name)
    assert torch.equal(masks[name], drawn.T)
    along_inputs = masks[name].T.reshape(-1, 4).sum(1)
    along_outputs = masks[name].reshape(-1, 4).sum(1)
    assert set(along_inputs.tolist()) == {2} and set(along_outputs.tolist()) != {2}


def test_a_copied_model_stays_sparse():
    model = build("biogpt")
    masks = sparse.sparsify(model, 0.75)
    copied = copy.deepcopy(model)
    train(copied, adamw(copied))
    masks.check(copied)
    assert sparse.masks_of(copied).digest == masks.digest
    train(sparse.densify(model), adamw(model))
    masks.check(copied)  # the two share nothing


def test_a_saved_sparse_model_is_plain_and_its_masks_come_back(tmp_path):
    model = build("llama").eval()
    masks = sparse.sparsify(model, 0.75, seed=2)
    model.save_pretrained(tmp_path)
    path = masks.save(tmp_path)
    assert path.stat().st_size < sum(m.numel() for m in masks.masks.values()) / 8 + 4000
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model)) and sparse.masks_of(loaded) is None
    again = sparse.load_masks(tmp_path)
    assert again.digest == masks.digest and str(again) == str(masks)
    assert (again.sparsity, again.pattern, again.seed) == (0.75, "unstructured", 2)
    assert_same(again.masks, masks.masks)
    sparse.attach(loaded, again)
    train(loaded, adamw(loaded))
    again.check(loaded)
    assert sparse.load_masks(tmp_path / "nowhere") is None


def test_the_digest_is_the_masks():
    def digest(family="gpt2", **options):
        return sparse.sparsify(build(family, seed=9), **options).digest

    assert digest() == digest(sparsity=0.75, seed=0) == sparse.sparsify(build("gpt2")).digest
    others = [digest(seed=1), digest(sparsity=0.5), digest(pattern="1:4"), digest("opt")]
    assert len({digest(), *others}) == 5


def test_movement_is_measured_apart_for_revived_and_kept():
    model = build("biogpt")
    masks = sparse.sparsify(model, 0.75)
    moved = sparse.densify(copy.deepcopy(model))
    for name, mask in masks.masks.items():
        change = torch.where(mask, -0.25, 0.5)
        dict(moved.named_parameters())[name].data.add_(change)
    rows = sparse.movement(model, moved, masks)
    assert [row["matrix"] for row in rows] == list(masks.masks)
    for row in rows:
        assert row["revived"] == pytest.approx(0.5) and row["kept"] == pytest.approx(0.25, rel=1e-5)
        assert 0 < row["cosine_distance"] < 2
    still = sparse.movement(model, model, masks)
    assert all(row["revived"] == row["kept"] == 0 for row in still)
    assert all(row["cosine_distance"] == pytest.approx(0, abs=1e-12) for row in still)


def test_masks_are_checked_through_a_soft_prompt():
    model = build("biogpt")
    masks = sparse.sparsify(model, 0.5)
    soft = SoftPrompt(model, 2)
    assert sparse.masks_of(soft) is masks
    masks.check(soft)
    name, mask = next(iter(masks.masks.items()))
    sparse.densify(soft).model.get_parameter(name).data[~mask] = 1.0
    with pytest.raises(RuntimeError, match=f"{int((~mask).sum())} of {name} moved"):
        masks.check(model)


def test_masks_print_as_a_table():
    lines = str(sparse.sparsify(build("gpt2"), 0.75)).splitlines()
    assert lines[1].split() == "transformer.h.*.attn.c_attn.weight 2 16 x 48 192 of 768".split()
    assert lines[-1] == "1,536 of 6,144 kept: 75.00% removed (unstructured)"
    assert "nothing removed" in str(sparse.sparsify(build("gpt2"), 0.0))


def test_errors_say_the_way_out():
    model = build("gpt2")
    before = state(model)
    with pytest.raises(ValueError, match=r"h\.0\.attn\.c_attn\.weight: 32x32 blocks need"):
        sparse.sparsify(model, 0.5, "32x32")
    with pytest.raises(ValueError, match=r"got 75; did you mean 0\.75\?"):
        sparse.sparsify(model, 75)
    for sparsity in (0.0, 0.5):
        with pytest.raises(ValueError, match="a pattern is 'unstructured'"):
            sparse.sparsify(model, sparsity, "2;4")
    assert_same(state(model), before)  # what failed has changed nothing
    assert sparse.masks_of(model) is None
    masks = sparse.sparsify(model)
    with pytest.raises(ValueError, match=r"sparse already: call sparse\.densify\(model\) first"):
        sparse.sparsify(model)
    other = build("opt")
    with pytest.raises(ValueError, match="the masks belong to another one"):
        sparse.attach(other, masks)
    assert_same(state(other), state(build("opt")))
