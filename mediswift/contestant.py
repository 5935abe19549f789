"""Any causal language model and its tokenizer, from a folder or a repository, ready to be scored.

Decisions: what Transformers can load as a causal language model is taken, ours (with its soft
prompt) or anybody's; weights come from safetensors only, and no code that comes with a model is
run. That the model is causal is tried out, not believed: an encoder loads through the same door,
and its scores would be nonsense that looks like numbers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from mediswift import prompts
from mediswift.likelihood import evaluating


def load(place: str | Path) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Model and tokenizer in the folder `place`, or of the repository OWNER/NAME on the hub.

    Raises FileNotFoundError or OSError where there is none, ValueError for a model that sees what
    follows or whose vocabulary is smaller than its tokenizer's.
    """
    remote = _is_repository(place)
    if remote:
        model = AutoModelForCausalLM.from_pretrained(
            str(place), use_safetensors=True, trust_remote_code=False
        )
    else:
        model = prompts.load(place)
    tokenizer = AutoTokenizer.from_pretrained(
        str(place), local_files_only=not remote, trust_remote_code=False
    )
    _check(model, tokenizer, place)
    return model, tokenizer


def _is_repository(place: str | Path) -> bool:
    """True for OWNER/NAME that is no folder here; a path says so with a dot, a slash or a tilde."""
    words = str(place).split("/")
    return not Path(place).exists() and len(words) == 2 and not str(place).startswith((".", "~"))


def _check(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, place: str | Path) -> None:
    ids = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if ids is not None and tokenizer.vocab_size > ids.num_embeddings:
        raise ValueError(
            f"A model knows every token of its tokenizer, {place} has {ids.num_embeddings} "
            f"embeddings for {tokenizer.vocab_size} tokens; put the right tokenizer beside it."
        )
    if not _is_causal(model):
        raise ValueError(
            f"A causal model does not see what follows, {place} does; take a model of a "
            "decoder, such as GPT-2, OPT, BioGPT or Llama."
        )


def _is_causal(model: torch.nn.Module) -> bool:
    """Whether the first logits are the same with two endings; reads four tokens twice."""
    device = next(model.parameters()).device
    endings = torch.tensor([[2, 3, 4, 5], [2, 3, 5, 4]], device=device)
    with evaluating(model):
        one, other = model(input_ids=endings).logits[:, :2].float()
    # Equal but for rounding, which is coarser in half precision
    half = next(model.parameters()).dtype.itemsize < 4
    return bool((one - other).abs().max() <= (1e-2 if half else 1e-5) * one.abs().max())
