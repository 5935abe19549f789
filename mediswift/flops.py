"""Theoretical parameters and training FLOPs of a GPT, in the terms that the papers print.

Decisions: the formula is SPDF's (Thangarasa et al. 2023, appendix), which reproduces its XL table
to four digits. Only the six block matrices are scaled by `1 - sparsity`; attention is counted over
the full T x T square (no causal halving); the output head is dense; the input embedding is a
lookup and costs nothing; backward costs twice forward. All of it is theory: seconds are measured
elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

BACKWARD = 2  # the backward pass costs two forward passes: one for inputs, one for weights


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that fix a GPT's size.

    >>> Shape(n_layer=24, n_embd=1024, n_head=16).n_inner
    4096
    """

    n_layer: int
    n_embd: int
    n_head: int
    context: int = 2048
    """Tokens in a row, T."""
    vocab_size: int = 42_384
    """Entries of the tied embedding and head, V (BioGPT's by default)."""

    def __post_init__(self) -> None:
        """Refuse a width that the heads cannot share evenly."""
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, got {self.n_embd} and {self.n_head}; "
                "change either"
            )

    @property
    def n_inner(self) -> int:
        """Width of the feed-forward layer: four times the model's."""
        return 4 * self.n_embd


@dataclass(frozen=True)
class Terms:
    """FLOPs split into the three printed terms; `total` is their sum."""

    linear: float
    """The six sparsifiable matrices of every block."""
    attention: float
    """Scores, softmax and weighted sum, over the full T x T square."""
    head: float
    """Logits over the vocabulary."""

    @property
    def total(self) -> float:
        """Sum of the three terms."""
        return self.linear + self.attention + self.head

    def __mul__(self, factor: float) -> Terms:
        """Every term times `factor`."""
        return Terms(self.linear * factor, self.attention * factor, self.head * factor)

    def __str__(self) -> str:
        """One aligned line a term, with its share of the total."""
        rows = asdict(self) | {"total": self.total}
        return "\n".join(f"{k:<10} {v:10.3e}  {v / self.total:6.1%}" for k, v in rows.items())


def parameters(shape: Shape) -> int:
    """Non-embedding parameters, biases and layer norms included.

    Only so do MediSwift's 302M for Med and 1.21B for XL come out (inferred).

    >>> parameters(Shape(n_layer=24, n_embd=1024, n_head=16))
    302311424
    """
    d, inner = shape.n_embd, shape.n_inner
    matrices = 4 * d * d + 2 * d * inner
    biases = 4 * d + inner + d
    norms = 2 * 2 * d
    return shape.n_layer * (matrices + biases + norms) + 2 * d


def forward(shape: Shape, sparsity: float = 0.0) -> Terms:
    """FLOPs of one forward pass over one row of `shape.context` tokens.

    A multiply-add counts as two. Source: SPDF, appendix; `mediswift.flops` module docstring.

    >>> f"{3 * forward(Shape(n_layer=24, n_embd=2048, n_head=16, vocab_size=50257)).total:.3e}"
    '1.860e+13'
    """
    check_sparsity(sparsity)
    t, d = shape.context, shape.n_embd
    linear = shape.n_layer * 2 * t * (4 * d * d + 2 * d * shape.n_inner)
    attention = shape.n_layer * (4 * t * t * d + 3 * shape.n_head * t * t)
    return Terms((1 - sparsity) * linear, float(attention), float(2 * t * d * shape.vocab_size))


def training(shape: Shape, tokens: float, sparsity: float = 0.0) -> Terms:
    """Theoretical training FLOPs (forward and backward) over `tokens` tokens.

    >>> xl = Shape(n_layer=24, n_embd=2048, n_head=16, vocab_size=50257)
    >>> f"{training(xl, 26e9, 0.75).total / 1e18:.2f} exaFLOPs"
    '94.76 exaFLOPs'
    """
    return forward(shape, sparsity) * ((1 + BACKWARD) * tokens / shape.context)


def reduction(shape: Shape, sparsity: float) -> float:
    """How many times fewer training FLOPs than dense, at equal tokens.

    >>> round(reduction(Shape(n_layer=24, n_embd=2048, n_head=16), 0.75), 2)
    2.53
    """
    return forward(shape).total / forward(shape, sparsity).total


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless `sparsity` is a fraction in [0, 1)."""
    if not 0 <= sparsity < 1:
        hint = f"; did you mean {sparsity / 100}?" if 1 < sparsity < 100 else ""
        raise ValueError(f"sparsity is a fraction of zeros in [0, 1), got {sparsity}{hint}")
