"""BioGPT's soft prompt: learned vectors between a source and its target.

Decisions: virtual tokens are ids from `vocab_size` upward that stand in the sequence where the
prompt belongs. Their embeddings come from a small trained table; everything else (padding,
positions, logits, scoring) sees a sequence of ordinary length, so nothing has to be shifted. They
stand *between* source and target (BioGPT, section 3) or before both; the model beneath is trained
along or frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

FILE = "soft_prompt.safetensors"
POSITIONS = ("between", "before")


class SoftPrompt(nn.Module):
    """A causal language model with a soft prompt; called like the model itself.

    `num_virtual_tokens` vectors of the model's width, drawn from normal(0, 0.02) by `seed`.
    `frozen=True` trains the prompt alone. Raises ValueError for a position or a count that is none.

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
        width = model.get_input_embeddings().embedding_dim
        generator = torch.Generator("cpu").manual_seed(seed)
        drawn = torch.randn(num_virtual_tokens, width, generator=generator) * 0.02
        self.prompt = nn.Parameter(drawn)
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
        self, input_ids: Tensor, attention_mask: Tensor | None = None, logits_to_keep: int = 0
    ) -> Any:
        """Return the model's output; `logits` are (B, T, V), aligned with `input_ids`.

        `logits_to_keep` leaves out all but the last so many positions; 0 keeps all.
        """
        options = {"logits_to_keep": logits_to_keep} if logits_to_keep else {}
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


def load(folder: str | Path) -> nn.Module:
    """Causal language model in `folder`, wrapped in its soft prompt when it has one.

    Raises FileNotFoundError when there is no model.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"a model folder holds config.json; {folder} has none")
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    if not (folder / FILE).exists():
        return model
    with safe_open(folder / FILE, "pt") as file:
        prompt, position = file.get_tensor("prompt"), file.metadata()["position"]
    soft = SoftPrompt(model, len(prompt), position)
    soft.prompt.data.copy_(prompt)
    return soft
