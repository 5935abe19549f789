"""A scaling law: is a known one found again, and is what cannot be known refused or told as wide.

Run with: pytest tests/test_law.py.
"""

import math
import random
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mediswift import law
from mediswift.law import Law

SIZES, SPARSITIES, TOKENS = (2e5, 8e5, 3.2e6), (0.0, 0.5, 0.75, 0.875), (4e5, 8e5, 1.6e6)
TRUE = Law(e=2.5, a=140.0, alpha=0.35, b=5300.0, beta=0.6, gamma=0.4)
NAMES = ("e", "a", "alpha", "b", "beta", "gamma")
FAR = (3e8, 1e11, 0.75)


def rows(true=TRUE, noise=0.005, seeds=2, sizes=SIZES, sparsities=SPARSITIES, tokens=TOKENS):
    """Runs whose log losses differ from the law's by `noise`."""
    rng = np.random.default_rng(0)
    return [
        {
            "n": n, "sparsity": s, "tokens": d, "seed": seed,
            "loss": float(true.loss(n, d, s) * math.exp(noise * rng.standard_normal())),
        }
        for n, s, d, seed in product(sizes, sparsities, tokens, range(seeds))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def noisy():
    return rows()


@pytest.fixture(scope="module")
def drawn(noisy):
    return law.bootstrap(noisy, draws=60)


def test_a_law_without_noise_is_found_again():
    found = law.fit(rows(noise=0, seeds=1))
    assert [getattr(found, n) for n in NAMES] == pytest.approx(
        [getattr(TRUE, n) for n in NAMES], rel=1e-3
    )
    assert found.at_limit == ()


def test_removing_weights_may_help():
    helps = replace(TRUE, gamma=-0.3)
    assert law.fit(rows(helps, noise=0, seeds=1)).gamma == pytest.approx(-0.3, rel=1e-3)


@pytest.mark.parametrize("place", [7, 40, 71])
def test_one_run_gone_wrong_hardly_moves_even_its_own_place(noisy, place):
    wrong = [dict(row) for row in noisy]
    wrong[place]["loss"] *= 1.5
    with_it, without = (law.loss_by(law.fit(some), noisy[place]) for some in (wrong, noisy))
    assert abs(with_it / without - 1) < 0.005  # 0.02 to 0.04 by squared errors


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_lie_in_their_intervals(name, noisy, drawn):
    low, high = drawn.interval(lambda one: getattr(one, name))
    assert low < getattr(TRUE, name) < high
    assert low < getattr(law.fit(noisy), name) < high


def test_predictions_lie_in_intervals_that_grow_with_distance(noisy, drawn):
    widths = []
    for place in ((8e5, 8e5, 0.5), FAR):
        low, high = drawn.interval(lambda one, place=place: one.loss(*place))
        assert low < TRUE.loss(*place) < high
        widths.append(high - low)
    assert widths[1] > 5 * widths[0]


def test_few_runs_have_wider_intervals(drawn):
    few = rows(sizes=SIZES[:2], sparsities=(0.0, 0.5, 0.75))
    wide = law.bootstrap(few, draws=30)
    assert wide.failed > drawn.failed

    def width(draws):
        low, high = draws.interval(lambda one: one.loss(*FAR))
        return high - low

    assert width(wide) > 1.5 * width(drawn)


def test_what_was_left_out_is_missed_by_about_the_noise(noisy):
    off = [other / row["loss"] - 1 for row, other in zip(noisy, law.held_out(noisy), strict=True)]
    assert 0.003 < np.std(off) < 0.015


def test_a_group_is_predicted_without_any_of_its_runs(noisy):
    changed = [
        row | {"loss": 2 * row["loss"]} if (row["n"], row["sparsity"]) == (8e5, 0.5) else row
        for row in noisy
    ]
    one, other = law.held_out(noisy), law.held_out(changed)
    same = [a == b for a, b in zip(one, other, strict=True)]
    assert same == [(row["n"], row["sparsity"]) == (8e5, 0.5) for row in noisy]


def test_a_group_that_the_law_cannot_do_without_is_not_predicted():
    corner = [row for row in rows() if row["n"] == 8e5 or (row["n"] == 2e5 and not row["sparsity"])]
    missing = [row["n"] for row, o in zip(corner, law.held_out(corner), strict=True) if o is None]
    assert missing == [2e5] * 6  # the only ones of another size


def test_the_order_of_runs_changes_nothing(noisy):
    shuffled = random.Random(0).sample(noisy, len(noisy))
    assert law.fit(shuffled) == law.fit(noisy)
    assert law.bootstrap(shuffled, draws=3).laws == law.bootstrap(noisy, draws=3).laws
    told = {tuple(r.values()): o for r, o in zip(noisy, law.held_out(noisy), strict=True)}
    assert [told[tuple(r.values())] for r in shuffled] == law.held_out(shuffled)


def test_a_resample_takes_groups_whole_in_number_and_leaves_others_out(noisy):
    size, groups = len(TOKENS) * 2, len(SIZES) * len(SPARSITIES)
    resample = next(law._resamples(noisy, seed=0))
    counts = Counter((row["n"], row["sparsity"]) for row in resample)
    assert len(resample) == size * groups and len(counts) < groups
    assert all(count % size == 0 for count in counts.values())
    assert any(resample.count(row) == 0 for row in noisy if (row["n"], row["sparsity"]) in counts)


def test_draws_are_those_of_their_seed(noisy):
    one, same, other = (law.bootstrap(noisy, draws=2, seed=s).laws for s in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": SIZES[:1]}, "12 points with 3 numbers of tokens and 4 pairs, of 1 sizes and 4"),
        ({"sparsities": (0.5,)}, "9 points with 3 .* 3 pairs, of 3 sizes and 1 sparsities; add"),
        ({"tokens": TOKENS[:2]}, "24 points with 2 numbers of tokens"),
        ({"sizes": SIZES[:2], "sparsities": (0.0,), "tokens": TOKENS[:2]}, "got 4 points"),
        ({"sizes": ()}, "six different points .* got 0 points"),
    ],
)
def test_runs_that_cannot_identify_a_law_are_refused(changes, message):
    for function in (law.fit, law.bootstrap):
        with pytest.raises(ValueError, match=message):
            function(rows(**changes))


def test_two_sizes_two_sparsities_and_three_numbers_of_tokens_are_enough():
    exact = law.fit(rows(noise=0, seeds=1, sizes=SIZES[:2], sparsities=(0.0, 0.75)))
    assert exact.loss(8e5, 8e5, 0.75) == pytest.approx(TRUE.loss(8e5, 8e5, 0.75), rel=1e-4)


def test_one_more_coefficient_than_points_is_refused_however_many_seeds():
    cross = [r for r in rows(seeds=9) if (r["n"], r["sparsity"], r["tokens"]) in {
        (2e5, 0.0, 4e5), (8e5, 0.0, 4e5), (8e5, 0.0, 8e5), (8e5, 0.0, 1.6e6), (8e5, 0.5, 4e5)
    }]  # fmt: skip
    with pytest.raises(ValueError, match="got 5 points"):
        law.fit(cross)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": math.inf}, {"loss": None}, {"loss": -1.0}, {"n": 0}, {"tokens": "many"},
        {"sparsity": 75}, {"sparsity": 1.0},
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_is_refused_with_what_it_says(noisy, changes):
    (value,) = changes.values()
    with pytest.raises(ValueError, match=f"above zero and a sparsity.*{value!r}.*run it again"):
        law.fit([*noisy, noisy[0] | changes])


def test_one_draw_is_no_interval(noisy):
    with pytest.raises(ValueError, match="two draws or more, got 1; take 400"):
        law.bootstrap(noisy, draws=1)


def test_a_bootstrap_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(law, "GIVE_UP", 3)
    corner = rows(seeds=1, sizes=SIZES[:2], sparsities=(0.0, 0.75))
    with pytest.raises(ValueError, match="add sizes, sparsities or seeds"):
        law.bootstrap(corner, draws=40)


def test_a_coefficient_at_the_end_of_the_search_is_named():
    endless = replace(TRUE, e=1e-9, a=2.0, alpha=0.02)  # hardly falls with size, and to zero
    assert "e" in law.fit(rows(endless, noise=0, seeds=1)).at_limit
