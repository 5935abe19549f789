"""A causal language model as it was saved: all of its weights, from safetensors, and nothing else.

Decisions: a weight that the file lacks would be drawn at random, and the model's numbers with it,
another time others; so it is refused, as are pickled weights, whose loading can run code.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load(place: str | Path, *, remote: bool = False) -> PreTrainedModel:
    """Model in the folder `place`, or of the repository OWNER/NAME on the hub if `remote`.

    Raises OSError where there is none, ValueError for weights that are pickled, damaged, or not all
    there.
    """
    if not remote:
        _refuse_pickles(Path(place))
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(place),
            local_files_only=not remote,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ValueError(
            f"Weights must be whole, those of {place} are damaged ({error}); fetch them again."
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"A model has all of its weights, {place} lacks {len(missing)}, the first is "
            f"{missing[0]}: save it as a causal language model, head included."
        )
    return model


def _refuse_pickles(folder: Path) -> None:
    pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"Weights are safetensors, {folder} has {pickled[0]}: a pickle can run code when it is "
            "loaded. Load it where you trust it, and save_pretrained it from there."
        )
