"""What others offer for the same work: Hugging Face's Trainer, and torch's own sparse formats."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from mediswift.choice import interleaved
from mediswift.flops import Shape
from mediswift.masks import make_mask


class TrainerSteps(TrainerCallback):
    """Steps of Hugging Face's Trainer on a model and one batch of ids (B, T + 1), timed by it, in
    mixed precision "bf16" or with "no"."""

    def __init__(self, model: nn.Module, ids: Tensor, precision: str = "no") -> None:
        self.precision = precision
        self.model, self.rows = model, [{"input_ids": row[:-1], "labels": row[:-1]} for row in ids]
        self.seconds: list[float] = []
        self.began = 0.0

    def steps(self, *, counted: bool, number: int = 3) -> None:
        """Train so many steps; the median of all but the first one counts."""
        taken: list[float] = []
        self.taken = taken
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own arguments
            arguments = TrainingArguments(
                output_dir=folder, max_steps=number, per_device_train_batch_size=len(self.rows),
                report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
                dataloader_pin_memory=False, optim="adamw_torch_fused", learning_rate=1e-4,
                use_cpu=self.rows[0]["input_ids"].device.type == "cpu",
                bf16=self.precision == "bf16",
            )  # fmt: skip
            rows = [{k: v.cpu() for k, v in row.items()} for row in self.rows] * (number + 1)
            trainer = Trainer(self.model, arguments, train_dataset=rows, callbacks=[self])
            trainer.remove_callback(PrinterCallback)  # our own output may be JSON
            trainer.train()
        if counted:
            self.seconds.append(statistics.median(taken[1:]))

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it, when the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.taken.append(time.perf_counter() - self.began)


def formats(shape: Shape, tokens: int, sparsity: float, device: torch.device) -> list[dict]:
    """Rows of torch's CSR and, in blocks of 16, BSR: the forward product of the widest matrix."""
    outputs, inputs = shape.n_inner, shape.n_embd
    x = torch.randn(inputs, tokens, device=device)
    weight = torch.randn(outputs, inputs, device=device)
    weights = {"dense": weight}
    for name, pattern in (("torch csr", "unstructured"), ("torch bsr", "16x16")):
        mask = make_mask((outputs, inputs), sparsity, pattern, seed=0, name="peer").to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "beta state"
            kept = weight * mask
            weights[name] = kept.to_sparse_csr() if "csr" in name else kept.to_sparse_bsr((16, 16))
    products = {name: partial(torch.matmul, weight, x) for name, weight in weights.items()}
    seconds = {name: statistics.median(t) for name, t in interleaved(products, device).items()}
    return [
        {
            "pattern": "16x16" if "bsr" in name else "unstructured", "sparsity": sparsity,
            "engine": name, "part": "product forward", "seconds": taken,
            "speedup": seconds["dense"] / taken,
        }
        for name, taken in seconds.items() if name != "dense"
    ]  # fmt: skip
