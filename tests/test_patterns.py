"""Tests of mediswift.patterns. Run with: pytest tests/test_patterns.py.

Masks of the older patterns, and exact counts, are in tests/test_masks.py.
"""

import pytest
import torch

from mediswift.masks import make_mask
from mediswift.patterns import (
    NM,
    RUN,
    Block,
    BlockDiagonal,
    FanIn,
    Unstructured,
    alive,
    count,
    kept,
    parse,
)

STAIRS = torch.tensor([[7, 2, 9, 4], [12, 1, 16, 11], [3, 14, 6, 8], [15, 5, 10, 13]])
FORMS = {
    "unstructured": Unstructured(),
    "fan-in": FanIn(),
    "1:4": NM(1, 4),
    "16x1": Block(16, 1),
    "diagonal:4": BlockDiagonal(4),
}


def picture(mask):
    """Rows of a mask as text: # is kept, . is removed."""
    return ["".join(".#"[bit] for bit in row) for row in mask.tolist()]


def mask_of(*rows):
    """Mask of such rows."""
    return torch.tensor([[bit == "#" for bit in row] for row in rows])


@pytest.mark.parametrize("text", FORMS)
def test_a_pattern_is_read_from_its_string_form_and_printed_as_it(text):
    assert parse(text) == FORMS[text] and str(FORMS[text]) == text


@pytest.mark.parametrize(
    "text",
    ["fan_in", "Fan-in", "diagonal", "diagonal:", "diagonal:0", "diagonal:-2", "diagonal:2x"],
)
def test_a_mistyped_pattern_names_all_that_there_are(text):
    with pytest.raises(ValueError, match="'fan-in', N:M .*'diagonal:4'; got '"):
        parse(text)


@pytest.mark.parametrize(
    ("pattern", "sparsity", "wanted"),
    [
        (FanIn(), 0.5, ["#.#.", "#.#.", ".#.#", "#..#"]),
        (FanIn(), 0.75, ["..#.", "..#.", ".#..", "#..."]),
        (FanIn(), 0.3, ["#.#.", "#.#.", ".#.#", "#..#"]),  # 2.8 of four are two
        (NM(1, 4), 0.75, ["..#.", "..#.", ".#..", "#..."]),
        (Block(4, 1), 0.75, ["..#."] * 4),  # first scores 7 2 9 4
        # Inputs in the order of the first row are 1 3 0 2; pairs of outputs start with 7 and 3
        (BlockDiagonal(2), 0.5, ["#.#.", "#.#.", ".#.#", ".#.#"]),
        # Outputs in the order of the first column are 2 0 1 3
        (BlockDiagonal(4), 0.75, ["...#", "#...", ".#..", "..#."]),
        (BlockDiagonal(1), 0.0, ["####"] * 4),
    ],
)
def test_the_highest_scores_stay(pattern, sparsity, wanted):
    assert picture(pattern.keep(STAIRS, sparsity)) == wanted


# What this version draws: a checkpoint must still find its masks
DRAWN = {
    "fan-in": """
        .....#.#
        #....#..
        ..#...#.
        ##......
        ....#..#
        ..#..#..
        ...#.#..
        .....##.
    """,
    "1:4": """
        .#.....#
        #....#..
        ..#...#.
        #....#..
        #...#...
        ..#..#..
        ...#.#..
        ...#.#..
    """,
    "diagonal:4": """
        ..##....
        ..##....
        #...#...
        #...#...
        .#....#.
        .#....#.
        .....#.#
        .....#.#
    """,
}


@pytest.mark.parametrize("pattern", DRAWN)
def test_a_seed_still_means_the_same_mask(pattern):
    mask = make_mask((8, 8), 0.75, pattern, seed=0, name="h.0.q")
    assert picture(mask) == DRAWN[pattern].split()


def test_outputs_move_in_runs_where_they_divide_so():
    for outputs, run in ((4 * RUN, RUN), (4 * 24, 8), (12, 1)):
        mask = make_mask((outputs, 8), 0.75, "diagonal:4", seed=0, name="w")
        runs = mask.view(-1, run, 8)
        assert torch.equal(runs, runs[:, :1].expand_as(runs))
        assert len(torch.unique(mask, dim=0)) == 4


def test_a_diagonal_is_dense_groups_that_share_nothing():
    mask = make_mask((64, 24), 0.75, "diagonal:4", seed=0, name="w")
    inputs, outputs = torch.unique(mask, dim=0, return_counts=True)
    assert outputs.tolist() == [16] * 4 and inputs.sum(1).tolist() == [6] * 4
    assert inputs.sum(0).tolist() == [1] * 24
    other = make_mask((64, 24), 0.75, "diagonal:4", seed=0, name="v")
    assert not torch.equal(mask, other)  # what one keeps apart the next one mixes


@pytest.mark.parametrize(
    ("shape", "sparsity", "pattern", "text"),
    [
        ((6, 8), 0.75, "diagonal:4", r"multiples of 4, got \(6, 8\); change n_embd"),
        ((8, 6), 0.75, "diagonal:4", r"multiples of 4, got \(8, 6\)"),
        ((8, 8), 0.5, "diagonal:4", "diagonal:4 fixes the sparsity at 0.75, got 0.5"),
        ((8, 6), 0.75, "1:4", "multiple of 4, got 6"),
        ((8, 8), 75, "fan-in", "got 75; did you mean 0.75"),
        ((24, 8), 0.5, "16x1", r"whole blocks, got \(24, 8\)"),
    ],
)
def test_what_cannot_be_is_an_error(shape, sparsity, pattern, text):
    with pytest.raises(ValueError, match=text):
        make_mask(shape, sparsity, pattern, seed=0, name="w")


# Nobody is dead


@pytest.mark.parametrize(
    ("pattern", "dying", "wanted"),
    [
        # Rows first, then columns; the best place of a dead one is taken from the worst kept
        (Unstructured(), ["##..", "##..", "....", "...."], ["#...", "..#.", ".#..", "...#"]),
        (FanIn(), ["#..."] * 4, ["#...", "..#.", ".#..", "...#"]),
        (NM(1, 2), ["#.#."] * 4, ["#.#.", "#.#.", ".##.", "#..#"]),
        (Block(2, 2), ["####", "####", "....", "...."], ["##..", "##..", "..##", "..##"]),
    ],
)
def test_a_dead_row_or_column_gets_one_of_a_fuller_ones(pattern, dying, wanted):
    mask = mask_of(*dying)
    assert picture(alive(pattern, mask, STAIRS)) == wanted
    assert picture(mask) == dying  # the argument is left alone


def test_a_mask_without_dead_ones_is_not_touched():
    mask = mask_of("#.", ".#")
    assert torch.equal(alive(Unstructured(), mask, torch.rand(2, 2)), mask)


BARELY = [  # what barely suffices, so that chance alone leaves some dead
    ((64, 32), 1 - 66 / 2048, "unstructured"),
    ((32, 64), 1 - 64 / 2048, "unstructured"),
    ((48, 48), 1 - 48 / 2304, "unstructured"),
    ((24, 96), 1 - 4 / 96, "fan-in"),
    ((10, 64), 1 - 7 / 64, "fan-in"),
    ((6, 64), 0.75, "1:4"),
    ((4, 64), 0.75, "1:4"),
    ((5, 32), 0.75, "2:8"),
    ((256, 16), 1 - 16 / 256, "16x1"),
    ((48, 64), 1 - 16 / 96, "8x4"),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "sparsity", "text"), BARELY)
def test_every_row_and_column_lives_within_its_budget(shape, sparsity, text, seed):
    pattern = parse(text)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    before = pattern.keep(scores, sparsity)
    assert not (before.any(0).all() and before.any(1).all())  # or nothing is tested
    mask = alive(pattern, before, scores)
    assert mask.any(0).all() and mask.any(1).all()
    assert int(mask.sum()) == int(before.sum())
    if isinstance(pattern, FanIn):
        assert set(mask.sum(1).tolist()) == {kept(shape[1], sparsity)}
    if isinstance(pattern, NM):
        assert set(mask.view(-1, pattern.m).sum(1).tolist()) == {pattern.n}
    if isinstance(pattern, Block):
        tall, wide = pattern.rows, pattern.cols
        blocks = mask.view(shape[0] // tall, tall, shape[1] // wide, wide)
        assert torch.equal(blocks, blocks[:, :1, :, :1].expand_as(blocks))


def test_where_the_count_allows_no_more_as_many_live_as_are_kept():
    mask = make_mask((8, 16), 0.96, "unstructured", seed=0, name="w")
    assert int(mask.sum()) == int(mask.any(0).sum()) == int(mask.any(1).sum()) == 5
    wide = make_mask((8, 16), 0.9, "unstructured", seed=0, name="w")
    assert int(wide.sum()) == int(wide.any(0).sum()) == 12 and wide.any(1).all()


def test_nothing_kept_is_nothing_revived():
    assert not make_mask((4, 4), 0.95, "unstructured", seed=0, name="w").any()


@pytest.mark.parametrize(
    ("name", "sparsity"),
    [("unstructured", 0.7), ("fan-in", 0.7), ("2:4", 0.5), ("1:4", 0.75), ("16x1", 0.7)]
    + [("16x16", 0.6), ("diagonal:4", 0.75)],
)
@pytest.mark.parametrize("shape", [(64, 64), (192, 64), (64, 192)])
def test_what_a_mask_keeps_is_counted_without_it(name, sparsity, shape):
    mask = make_mask(shape, sparsity, name, seed=0, name="any")
    assert count(parse(name), shape, sparsity) == int(mask.sum())
