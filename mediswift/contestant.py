"""Any causal language model and its tokenizer, from a folder or a repository, ready to be scored.

Decisions: what Transformers can load as a causal language model is taken, ours (with its soft
prompt) or anybody's; weights come from safetensors only, and no code that comes with a model is
run. That the model is causal is tried out, not believed: an encoder loads through the same door,
and its scores would be nonsense that looks like numbers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mediswift import pretrained, prompts
from mediswift.likelihood import evaluating


def load(place: str | Path) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Model and tokenizer in the folder `place`, or of the repository OWNER/NAME on the hub.

    Raises FileNotFoundError or OSError where there is none, ValueError for weights that are not all
    there, a model that sees what follows or gives no numbers, and a tokenizer that is missing or
    uses more tokens than the model has.
    """
    remote = _is_repository(place)
    model = pretrained.load(place, remote=True) if remote else prompts.load(place)
    tokenizer = _tokenizer(place, remote)
    _check(model, tokenizer, place)
    return model, tokenizer


def label(place: str | Path) -> str:
    """Name for a model in the names of files: that of its folder, or of the run that made it.

    >>> label("models/gpt2"), label("runs/finetune-x/model")
    ('gpt2', 'finetune-x')
    """
    name = Path(place).name
    return name if name != "model" else Path(place).resolve().parent.name


def _is_repository(place: str | Path) -> bool:
    """True for OWNER/NAME that is no folder here; a path says so with a dot, a slash or a tilde."""
    words = str(place).split("/")
    return not Path(place).exists() and len(words) == 2 and not str(place).startswith((".", "~"))


def _tokenizer(place: str | Path, remote: bool) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(place), local_files_only=not remote, trust_remote_code=False
        )
    except ValueError as error:  # of many lines, which file was missing not among them
        why = f" ({str(error).splitlines()[0]})"
    else:
        if tokenizer("yes").input_ids:
            return tokenizer
        why = ""  # an empty one, made up where a file is missing
    raise ValueError(
        f"A model is scored with its own tokenizer, {place} has none that reads text{why}; save it "
        "there."
    )


def _check(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, place: str | Path) -> None:
    used = tokenizer("yes").input_ids  # with what the tokenizer puts around a text
    ids = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    needed = max(tokenizer.vocab_size, *(token + 1 for token in used))
    if ids is not None and needed > ids.num_embeddings:
        raise ValueError(
            f"A model knows every token of its tokenizer, {place} has {ids.num_embeddings} "
            f"embeddings for {needed} tokens; put the right tokenizer beside it."
        )
    first = _first_logits(model)
    if not first.isfinite().all():
        raise ValueError(
            f"A model gives a number to every token, {place} gives NaN or infinity: its training "
            "exploded, or its file is damaged; take another checkpoint."
        )
    if not _is_causal(*first, model):
        raise ValueError(
            f"A causal model does not see what follows, {place} does; take a model of a "
            "decoder, such as GPT-2, OPT, BioGPT or Llama."
        )


def _first_logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits (2, 2, V) of the same two tokens with two endings; reads four tokens twice."""
    device = next(model.parameters()).device
    endings = torch.tensor([[2, 3, 4, 5], [2, 3, 5, 4]], device=device)
    with evaluating(model):
        return model(input_ids=endings).logits[:, :2].float()


def _is_causal(one: torch.Tensor, other: torch.Tensor, model: torch.nn.Module) -> bool:
    """Whether the logits are equal but for rounding, which is coarser in half precision."""
    half = next(model.parameters()).dtype.itemsize < 4
    return bool((one - other).abs().max() <= (1e-2 if half else 1e-5) * one.abs().max())
