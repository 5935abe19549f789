"""BioGPT's soft prompt: learned vectors between a source and its target.

Decisions: virtual tokens are ids from `vocab_size` upward that stand in the sequence where the
prompt belongs. Their embeddings come from a small trained table; everything else (padding,
positions, logits, scoring) sees a sequence of ordinary length, so nothing has to be shifted. They
stand *between* source and target (BioGPT, section 3) or before both; the model beneath is trained
along or frozen. Positions count the tokens that are no padding, so a row means the same wherever it
is padded; PEFT's prompt tuning drops positions, and is wrong on left-padded rows of GPT-2's kind.
The vectors start random (BioGPT), as rows of the vocabulary, or as the words of a text (Lester et
al. 2021).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mediswift import pretrained

FILE = "soft_prompt.safetensors"
POSITIONS = ("between", "before")
INITIALIZATIONS = ("random", "vocabulary")


class SoftPrompt(nn.Module):
    """A causal language model with a soft prompt; called like the model itself.

    `num_virtual_tokens` vectors of the model's width, which start as `initial_vectors` says.
    `frozen=True` trains the prompt alone. Raises ValueError for a position, a count or an
    initialization that is none.

    >>> from mediswift import models
    >>> prompt = SoftPrompt(models.build(models.shape("demo"), seed=0), num_virtual_tokens=2)
    >>> prompt.assemble([7, 8], [9])
    [7, 8, 4096, 4097, 9]
    """

    def __init__(
        self,
        model: nn.Module,
        num_virtual_tokens: int = 9,
        position: str = "between",
        *,
        frozen: bool = False,
        seed: int = 0,
        initialization: str | Sequence[int] = "random",
    ) -> None:
        super().__init__()
        if num_virtual_tokens < 1:
            raise ValueError(
                f"a soft prompt has at least one virtual token, got {num_virtual_tokens}; "
                "use the model itself for none"
            )
        if position not in POSITIONS:
            raise ValueError(f"position is one of {', '.join(POSITIONS)}; got {position!r}")
        self.model, self.position = model, position
        self.first = model.get_input_embeddings().num_embeddings
        words = model.get_input_embeddings()
        self.prompt = nn.Parameter(initial_vectors(words, num_virtual_tokens, initialization, seed))
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        model.requires_grad_(not frozen)

    @property
    def config(self) -> Any:
        """The model's own configuration."""
        return self.model.config

    @property
    def num_virtual_tokens(self) -> int:
        """Count the virtual tokens, P."""
        return len(self.prompt)

    def assemble(self, source: list[int], target: list[int]) -> list[int]:
        """Ids of source, prompt and target in their order; the prompt's are `vocab_size` and up."""
        virtual = list(range(self.first, self.first + self.num_virtual_tokens))
        if self.position == "before":
            return virtual + source + target
        return source + virtual + target

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings (B, T, C) of ids (B, T), virtual ones included."""
        virtual = input_ids >= self.first
        words = self.model.get_input_embeddings()(input_ids.masked_fill(virtual, 0))
        learned = self.prompt[(input_ids - self.first).clamp(min=0)]
        return torch.where(virtual.unsqueeze(-1), learned.to(words.dtype), words)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logits_to_keep: int = 0,
        **options: Any,
    ) -> Any:
        """Return the model's output; `logits` are (B, T, V), aligned with `input_ids`.

        `logits_to_keep` leaves out all but the last so many positions; 0 keeps all. Other
        `options`, such as a cache, are the model's own.
        """
        if logits_to_keep:
            options["logits_to_keep"] = logits_to_keep
        if attention_mask is not None and self.takes_positions:
            options.setdefault("position_ids", positions_of(attention_mask))
        return self.model(
            inputs_embeds=self.embed(input_ids), attention_mask=attention_mask, **options
        )

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the model's head."""
        return self.model.get_output_embeddings()

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the model, plain, and the prompt beside it."""
        self.model.save_pretrained(folder)
        about = {"position": self.position}
        save_file({"prompt": self.prompt.detach().cpu()}, Path(folder) / FILE, metadata=about)


def initial_vectors(
    words: nn.Module, count: int, initialization: str | Sequence[int], seed: int
) -> Tensor:
    """Vectors (P, C) that a prompt of `count` = P virtual tokens starts from.

    `initialization`: "random", from normal(0, 0.02) by `seed`; "vocabulary", the embeddings of ids
    drawn by `seed`; or the ids of a text, repeated or cut to `count` as PEFT does it. `words` is
    the model's embedding layer. Raises ValueError for anything else.

    >>> initial_vectors(nn.Embedding(5, 2), 3, [4, 1], seed=0).shape
    torch.Size([3, 2])
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    if isinstance(initialization, str) and initialization == "random":
        return torch.randn(count, words.embedding_dim, generator=generator) * 0.02
    if isinstance(initialization, str) and initialization == "vocabulary":
        ids = torch.randint(words.num_embeddings, (count,), generator=generator)
    elif isinstance(initialization, str) or not len(initialization):
        raise ValueError(
            f"a soft prompt starts from {' or '.join(INITIALIZATIONS)}, or from the ids of a text "
            f"of one token or more; got {initialization!r}"
        )
    else:
        ids = torch.tensor(list(initialization) * count)[:count]
    with torch.no_grad():  # through the layer, whose rows some models scale
        return words(ids.to(words.weight.device)).float().clone()


def positions_of(attention_mask: Tensor) -> Tensor:
    """Positions (B, T) of the tokens of a mask (B, T): the padding before them is not counted.

    >>> positions_of(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist()
    [[0, 0, 0, 1], [0, 1, 2, 2]]
    """
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def load(folder: str | Path) -> nn.Module:
    """Causal language model in `folder`, wrapped in its soft prompt when it has one.

    Raises FileNotFoundError when there is no model, and what `pretrained.load` raises.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"a model folder holds config.json; {folder} has none")
    model = pretrained.load(folder)
    if not (folder / FILE).exists():
        return model
    with safe_open(folder / FILE, "pt") as file:
        prompt, position = file.get_tensor("prompt"), file.metadata()["position"]
    soft = SoftPrompt(model, len(prompt), position)
    soft.prompt.data.copy_(prompt)
    return soft
