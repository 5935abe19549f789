"""Numbers of others: complete, sourced, honest about certainty, recomputed where we say so."""

import json
import re
from pathlib import Path

import pytest

from mediswift import flops, records

ROOT = Path(__file__).parent.parent
PATH = ROOT / "results" / "published.json"
NUMBERS = json.loads(PATH.read_text(encoding="utf-8"))["numbers"]
TEXT = "id what unit model task setting protocol source where known".split()
LAYERS = 24
WIDTHS = {"med": 1024, "xl": 2048}


def numbers(prefix: str = "", **fields: str) -> list[dict]:
    """The numbers whose id starts with `prefix` and whose fields have these values."""
    return [
        number
        for number in NUMBERS
        if number["id"].startswith(prefix) and fields.items() <= number.items()
    ]


def test_ids_are_unique_and_readable():
    ids = [number["id"] for number in NUMBERS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number["id"])
def test_number_has_every_field_in_its_type(number):
    assert set(number) - {"plus_minus"} == {*TEXT, "value", "parameters"}
    assert all(isinstance(number[field], str) for field in TEXT)
    assert isinstance(number["value"], int | float) and number["value"] > 0
    assert number["parameters"] is None or number["parameters"] >= 1e6
    assert all(number[field] for field in ("what", "source", "where"))
    assert number["known"] in {"read", "second-hand", "recomputed", "inferred"}


def test_percentages_are_percentages():
    for number in numbers(unit="%"):
        assert 1 < number["value"] <= 100


def test_every_source_is_in_the_bibliography():
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),$", bibliography, re.MULTILINE)
    assert len(set(keys)) == len(keys)
    assert {number["source"] for number in NUMBERS} <= set(keys)


def test_only_one_accuracy_of_mediswift_is_known():
    scores = [
        number
        for number in NUMBERS
        if "mediswift" in (number["id"] + number["model"]).lower()
        and (number["unit"] == "%" or number["what"] in ("accuracy", "macro F1", "F1"))
    ]
    assert [number["id"] for number in scores] == ["mediswift-xl-dense-pubmedqa"]
    assert scores[0]["known"] == "read" and "dense" in scores[0]["model"]


def test_leaderboard_is_whole_and_in_order():
    rows = numbers(source="pubmedqa2024leaderboard", what="accuracy")
    ranks = {int(re.match(r"rank (\d+)", row["where"])[1]): row["value"] for row in rows}
    assert sorted(ranks) == list(range(1, 26))
    ordered = [ranks[rank] for rank in sorted(ranks)]
    assert ordered == sorted(ordered, reverse=True)


def test_second_hand_numbers_name_the_summary():
    assert all("summary at" in number["where"] for number in numbers(known="second-hand"))


def test_majority_is_what_the_test_set_says():
    counts = {number["id"].split("-")[-1]: number["value"] for number in numbers("pubmedqa-test-")}
    (majority,) = numbers("majority-pubmedqa")
    assert majority["value"] == pytest.approx(100 * counts["yes"] / sum(counts.values()))


@pytest.mark.parametrize(
    "number",
    numbers("mediswift-", known="recomputed"),
    ids=lambda number: number["id"],
)
def test_recomputed_mediswift_costs_are_recomputed(number):
    pattern = r"mediswift-(med|xl)-s(\d+)-context(\d+)-vocab(\d+)-(flops|reduction)"
    size, sparsity, context, vocabulary, what = re.fullmatch(pattern, number["id"]).groups()
    shape = flops.Shape(
        n_layer=LAYERS,
        n_embd=WIDTHS[size],
        n_head=16,
        context=int(context),
        vocab_size=int(vocabulary),
    )
    (tokens,) = numbers("mediswift-tokens-reading")
    expected = {
        "flops": flops.training(shape, tokens["value"], int(sparsity) / 100).total,
        "reduction": flops.reduction(shape, int(sparsity) / 100),
    }
    assert number["value"] == pytest.approx(expected[what], rel=4e-3)


def test_printed_fractions_of_spdf_follow_from_its_printed_flops():
    table = records.published(PATH)["value"]
    for model in ("gpt2-small", "gpt3-xl"):
        for sparsity in (50, 75):
            sparse, dense = (table[f"spdf-{model}-s{s}-flops"] for s in (sparsity, 0))
            printed = table[f"spdf-{model}-s{sparsity}-flops-fraction"]
            assert sparse / dense == pytest.approx(printed, abs=6e-4)


def test_totals_of_spdf_follow_from_its_tokens():
    table = records.published(PATH)["value"]
    rows = table["spdf-gpt3-xl-tokens"] / 2048  # its context
    for sparsity in (0, 50, 75):
        total, each = (table[f"spdf-gpt3-xl-s{sparsity}-flops{x}"] for x in ("", "-per-sequence"))
        assert rows * each == pytest.approx(total, rel=5e-3)
