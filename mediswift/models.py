"""Named sizes, and the `transformers` causal language model that each stands for.

Decisions: the architecture is `BioGptForCausalLM` (GPT-2's with plain `nn.Linear`: learned
positions, GELU, pre-LayerNorm, tied head), so that a saved model loads with `AutoModelForCausalLM`
and nothing of ours. Dropout is 0, embeddings are not scaled and residual projections start
smaller, as in the GPTs that the paper builds on. `med` and `xl` are inferred from the paper's
parameter counts, `large` is one of two candidates (the other is 36 x 1280): the paper does not
print its shapes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import BioGptConfig, BioGptForCausalLM

from mediswift.flops import Shape

SIZES: dict[str, Shape] = {
    "tiny": Shape(n_layer=2, n_embd=64, n_head=2, context=512, vocab_size=512),
    "demo": Shape(n_layer=4, n_embd=128, n_head=4, context=512, vocab_size=4_096),
    "nano": Shape(n_layer=4, n_embd=64, n_head=2, context=256, vocab_size=2_048),
    "micro": Shape(n_layer=4, n_embd=128, n_head=4, context=256, vocab_size=2_048),
    "mini": Shape(n_layer=4, n_embd=256, n_head=4, context=256, vocab_size=2_048),
    "small": Shape(n_layer=12, n_embd=640, n_head=10, context=1024, vocab_size=16_384),
    "med": Shape(n_layer=24, n_embd=1024, n_head=16),
    "large": Shape(n_layer=24, n_embd=1536, n_head=16),
    "xl": Shape(n_layer=24, n_embd=2048, n_head=16),
}

END_OF_TEXT, PAD = 0, 1
"""Ids that `tokens.train_tokenizer` gives to its two special tokens."""


def shape(size: str, **changes: int) -> Shape:
    """Shape of a named size, with `changes` to its fields.

    >>> shape("xl", context=1024).context
    1024
    """
    if size not in SIZES:
        raise ValueError(f"a size is one of {', '.join(SIZES)}; got {size!r}")
    return replace(SIZES[size], **changes)


def build(shape: Shape, *, seed: int) -> BioGptForCausalLM:
    """Return a freshly initialized dense model; the same weights for the same shape and seed.

    Weights are normal(0, `initial_spread`), residual projections 1 / sqrt(2 n_layer) of that.

    >>> build(shape("demo"), seed=0).num_parameters() > 1_000_000
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BioGptForCausalLM(_config(shape))
    for name, weight in model.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight")):
            weight.data.mul_((2 * shape.n_layer) ** -0.5)
    return model


def initial_spread(shape: Shape) -> float:
    """Standard deviation of the initial weights: the GPTs' 0.02, and more for narrow models.

    0.02 suits a width of 1024 and up. At a width of 128 it starts so close to zero that a short
    run never leaves the unigram plateau, so below 1024 it grows as 1 / sqrt(width).

    >>> initial_spread(SIZES["xl"]), initial_spread(Shape(n_layer=1, n_embd=64, n_head=1))
    (0.02, 0.08)
    """
    return 0.02 * max(1.0, (1024 / shape.n_embd) ** 0.5)


def non_embedding_parameters(model: torch.nn.Module) -> int:
    """Count the parameters that are not in an embedding table, as `flops.parameters` does.

    A head that is tied to the input embedding is the same tensor, and is not counted either.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)


def _config(shape: Shape) -> BioGptConfig:
    return BioGptConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.n_embd,
        num_hidden_layers=shape.n_layer,
        num_attention_heads=shape.n_head,
        intermediate_size=shape.n_inner,
        max_position_embeddings=shape.context,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        scale_embedding=False,
        initializer_range=initial_spread(shape),
        bos_token_id=END_OF_TEXT,
        eos_token_id=END_OF_TEXT,
        pad_token_id=PAD,
    )
