"""Tests of mediswift.layouts. Run with: pytest tests/test_layouts.py."""

import re

import pytest
import torch

from mediswift import native
from mediswift.layouts import (
    CHUNK,
    COLUMNS,
    LINE,
    grouped_index,
    layout,
    scattered_index,
    turned,
)
from mediswift.masks import make_mask

PATTERNS = {
    "unstructured": 0.75,
    "fan-in": 0.9,
    "2:4": 0.5,
    "16x1": 0.75,
    "16x16": 0.5,
    "diagonal:4": 0.75,
}
GROUPED = ["16x1", "16x16", "diagonal:4"]
each_pattern = pytest.mark.parametrize("pattern", PATTERNS)


def draw(pattern, outputs=128, inputs=64):
    return make_mask((outputs, inputs), PATTERNS[pattern], pattern, seed=0, name="w")


def scattered(outputs, inputs):
    """Mask of which some rows are empty and one is full."""
    mask = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(0)) < 0.2
    mask[::5], mask[1 % outputs] = False, True
    return mask


@each_pattern
def test_the_order_names_each_kept_weight_once(pattern):
    mask = draw(pattern)
    plan = layout(mask)
    order = plan.order()
    assert order.dtype == torch.int64 and order.shape[1] == (LINE if pattern in GROUPED else 1)
    assert torch.equal(order.flatten().sort().values, mask.flatten().nonzero().flatten())
    assert (plan.groups is not None) == (pattern in GROUPED)


def test_scattered_weights_lie_row_after_row():
    mask = torch.tensor([[False, True, True], [True, False, False]])
    assert layout(mask).order().tolist() == [[1], [2], [3]]


def test_a_line_is_what_sixteen_outputs_keep_of_one_input():
    mask = torch.zeros(32, 3, dtype=torch.bool)
    mask[:16, 1] = mask[16:, 0] = mask[16:, 2] = True
    plan = layout(mask)
    assert plan.groups.tolist() == [0, 16]
    lines = [[3 * o + 1 for o in range(16)], *([3 * o + i for o in range(16, 32)] for i in (0, 2))]
    assert plan.order().tolist() == lines
    start, col, row = grouped_index(plan)
    assert (start.tolist(), col.tolist(), row.tolist()) == ([0, 1, 3], [1, 0, 2], [0, 16])
    assert {tensor.dtype for tensor in (start, col, row)} == {torch.int32}


def test_groups_with_equal_inputs_stand_side_by_side():
    kinds = torch.eye(3, dtype=torch.bool)[[2, 0, 2, 1, 0, 2]]
    plan = layout(kinds.repeat_interleave(LINE, 0))
    assert plan.groups.tolist() == [LINE * group for group in (0, 2, 5, 1, 4, 3)]


@pytest.mark.parametrize("change", ["one weight", "eight more outputs"])
def test_what_shares_no_inputs_is_scattered(change):
    mask = draw("16x1")
    if change == "one weight":
        mask[37, 5] ^= True
    else:
        mask = torch.cat([mask, mask[:8]])
    assert layout(mask).groups is None


def test_empty_groups_have_no_lines():
    mask = torch.zeros(48, 5, dtype=torch.bool)
    mask[16:32, 3] = True
    start, col, row = grouped_index(layout(mask))
    assert sorted(start.diff().tolist()) == [0, 0, 1]
    assert col.tolist() == [3] and sorted(row.tolist()) == [0, 16, 32]
    assert layout(torch.zeros(16, 5, dtype=torch.bool)).order().shape == (0, LINE)


SHAPES = [(1, 1), (7, 3), (3, COLUMNS), (5, 2 * COLUMNS + 1), (2 * CHUNK + 9, COLUMNS + 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_segments_hold_each_weight_once_ordered_by_chunk_block_and_length(shape):
    mask = scattered(*shape)
    row, start, count, col = scattered_index(mask)
    assert {tensor.dtype for tensor in (row, start, count, col)} == {torch.int32}
    blocks = -(-shape[1] // COLUMNS)
    assert len(row) == len(start) == len(count) == shape[0] * blocks
    assert torch.equal(col.long(), mask.nonzero()[:, 1])
    found, places = torch.zeros_like(mask), []
    for i, (r, first, length) in enumerate(zip(*(t.tolist() for t in (row, start, count)))):  # noqa: B905
        chunk, block = r // CHUNK, i % (blocks * CHUNK) // min(CHUNK, shape[0] - r // CHUNK * CHUNK)
        inputs = col[first : first + length].long()
        assert (inputs // COLUMNS == block).all() and not found[r, inputs].any()
        found[r, inputs] = True
        places.append((chunk, block, length))
    assert torch.equal(found, mask) and places == sorted(places)


def test_the_kernels_cut_matrices_as_the_layout_does():
    source = "".join(path.read_text() for path in sorted(native.FOLDER.glob("*.[ch]*")))
    said = {name: int(n) for name, n in re.findall(r"\b(TILE|CHUNK) = (\d+);", source)}
    assert said == {"TILE": LINE, "CHUNK": CHUNK}


@pytest.mark.parametrize("shape", SHAPES)
def test_turned_weights_are_those_of_the_transposed_mask(shape):
    mask = scattered(*shape)
    weight = torch.rand(shape)
    order = turned(mask)
    assert order.dtype == torch.int32
    assert torch.equal(weight[mask][order.long()], weight.T[mask.T])


@each_pattern
def test_a_layout_depends_on_the_mask_alone(pattern):
    mask = draw(pattern)
    odd = torch.stack([mask, ~mask], dim=2)[:, :, 0]  # the same, otherwise in memory
    assert not odd.is_contiguous()
    assert torch.equal(layout(mask).order(), layout(odd).order())
