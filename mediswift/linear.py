"""A linear layer that holds only its kept weights.

Decisions: `values`, the kept weights, is the parameter, so gradients, Adam's moments, clipping and
checkpoints shrink with it, and a removed weight cannot move: there is none. To the outside the
layer is a dense one: its state dict has a dense `weight`, in and out, so saved models are plain.
Which engine multiplies may change at any time; with "auto" the first training step measures and
chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mediswift import choice
from mediswift.engines import AUTO, ENGINES, check_name, computed_in, dense
from mediswift.layouts import layout
from mediswift.sharding import like, whole

GPU_ENGINES = ("triton", "2:4")


class SparseLinear(nn.Module):
    """Inputs (..., I) to outputs (..., O) by the kept weights of a dense (O, I) weight, and a bias.

    `turned` says that the state dict's weight is (I, O), as Conv1D of GPT-2 has it. Raises
    ValueError for an engine that does not exist or cannot compute this matrix.

    >>> mask = torch.tensor([[True, False], [False, True]])
    >>> layer = SparseLinear(torch.ones(2, 2), None, mask, engine="masked")
    >>> layer(torch.tensor([[3.0, 5.0]])).tolist(), layer.values.numel()
    ([[3.0, 5.0]], 2)
    """

    def __init__(
        self,
        weight: Tensor,
        bias: nn.Parameter | None,
        mask: Tensor,
        *,
        engine: str = AUTO,
        pattern: str = "",
        turned: bool = False,
    ) -> None:
        super().__init__()
        if weight.shape != mask.shape:
            raise ValueError(
                f"mask and weight have one shape, got {tuple(mask.shape)} and "
                f"{tuple(weight.shape)}: the mask belongs to another matrix"
            )
        self.out_features, self.in_features = mask.shape
        self.layout, self.pattern, self.turned = layout(mask), pattern, turned
        kept = self._kept(weight.detach())
        self.values = nn.Parameter(kept, requires_grad=weight.requires_grad)
        self.bias = bias
        self.engine = self.current = ""
        self.use(engine)

    def use(self, engine: str) -> SparseLinear:
        """Return the layer itself, from now on computing with `engine`, or choosing at its next
        training step when that is "auto"."""
        check_name(engine)
        device, dtype = self.values.device.type, self.values.dtype
        if engine in GPU_ENGINES:  # the layer may yet move to a GPU, half precision is there
            device, dtype = "cuda", torch.bfloat16
        self._check(engine, device, dtype)
        self.engine = engine
        self._prepare("masked" if engine == AUTO else engine)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., O) of inputs (..., I), in x's type or autocast's."""
        flat = x.reshape(-1, self.in_features)
        if self.engine == AUTO and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.choose(len(flat), computed_in(x))
        y = ENGINES[self.current].product(
            flat, self.values, self.bias, self._index(), self.out_features
        )
        return y.view(*x.shape[:-1], self.out_features)

    def choose(self, tokens: int, dtype: torch.dtype = torch.float32) -> None:
        """Fix the engine to the fastest one for so many tokens a call: see `choice.fastest`.

        Raises ValueError when it is fixed already to one that cannot compute in `dtype` here.
        """
        if self.engine != AUTO:
            return self._check(self.engine, self.values.device.type, dtype)
        self.engine = choice.fastest(
            self.layout, self.pattern, tokens, self.values.device, dtype, self.bias is not None
        )
        self._prepare(self.engine)

    @property
    def weight(self) -> Tensor:
        """Dense weight, as the state dict has it: (O, I), or (I, O) when turned; differentiable."""
        return self.spread(whole(self.values))

    @property
    def mask(self) -> Tensor:
        """Mask of the kept weights, True = kept, in the shape of `weight`, on the CPU."""
        return self.layout.mask.T.contiguous() if self.turned else self.layout.mask

    def spread(self, values: Tensor) -> Tensor:
        """Matrix of the shape of `weight` with `values`, one a kept weight, and zeros elsewhere."""
        order = self.layout.order().to(values.device)
        full = dense(values, order, self.out_features, self.in_features)
        return full.T.contiguous() if self.turned else full

    def gather(self, full: Tensor) -> Tensor:
        """Kept weights of a matrix of the shape of `weight`, as `values` holds them."""
        return self._kept(full.T if self.turned else full)

    def rewire(self, mask: Tensor) -> None:
        """Keep the weights of `mask` from now on, (O, I) and as many as before: those that were
        kept stay as they are, the others start at zero."""
        if mask.shape != self.layout.mask.shape or mask.sum() != self.layout.mask.sum():
            raise ValueError(
                f"a layer keeps as many weights as before, {int(self.layout.mask.sum())} of "
                f"{tuple(self.layout.mask.shape)}; got {int(mask.sum())} of {tuple(mask.shape)}"
            )
        full = self.weight.detach()
        self.layout = layout(mask)
        self.values.data = self.gather(full).view_as(self.values)
        self._prepare(self.current)

    def extra_repr(self) -> str:
        """Sizes, pattern, how much is kept, and the engine."""
        kept = int(self.layout.mask.sum())
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, kept={kept}, pattern={self.pattern!r}, "
            f"engine={self.engine!r}"
        )

    def _check(self, engine: str, device: str, dtype: torch.dtype) -> None:
        if engine != AUTO and (why_not := ENGINES[engine].refuses(self.layout, device, dtype)):
            raise ValueError(
                f"engine {engine!r} cannot compute this layer: {why_not}; use {AUTO!r} or 'masked'"
            )

    def _kept(self, full: Tensor) -> Tensor:
        # of a matrix (O, I), whether turned or not
        return full.reshape(-1)[self.layout.order().to(full.device)]

    def _prepare(self, engine: str) -> None:
        for name in [name for name, _ in self.named_buffers(recurse=False)]:
            delattr(self, name)
        self.current = engine
        for i, tensor in enumerate(ENGINES[engine].index(self.layout)):
            self.register_buffer(f"index_{i}", tensor.to(self.values.device), persistent=False)

    def _index(self) -> list[Tensor]:
        return list(self._buffers.values())

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}weight"] = self.weight.detach()
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(
        self, state_dict, prefix, metadata, strict, missing, unexpected, errors
    ):
        weight = state_dict.pop(f"{prefix}weight", None)
        if weight is None:
            missing.append(f"{prefix}weight")
            return
        full = whole(weight.T if self.turned else weight).detach()
        if full.shape != self.layout.mask.shape:
            errors.append(f"{prefix}weight has shape {tuple(weight.shape)}: of another layer")
            return
        removed = int(full.cpu()[~self.layout.mask].count_nonzero())
        if removed:
            errors.append(
                f"{prefix}weight has {removed} weights where the mask removes them; load it into "
                "a dense model (sparse.densify), or apply its own masks"
            )
            return
        own = dict(state_dict) | {f"{prefix}values": like(self._kept(full), self.values)}
        super()._load_from_state_dict(own, prefix, metadata, strict, missing, unexpected, errors)
        state_dict[f"{prefix}weight"] = weight
