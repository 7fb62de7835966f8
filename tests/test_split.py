"""Which row goes to which side."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter

import pytest

from optimize.data.split import SHARES, apart_from, near_duplicate_groups, split_groups


def hashes(n: int) -> list[str]:
    return [hashlib.sha256(str(k).encode()).hexdigest() for k in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_means_nothing(seed: int) -> None:
    rows = list(zip(hashes(90), ["a", "b", "c"] * 30, [n // 2 for n in range(90)], strict=True))
    shuffled = random.Random(seed).sample(rows, len(rows))
    sides = [
        dict(
            zip([h for h, _, _ in rs], split_groups(*map(list, zip(*rs, strict=True))), strict=True)
        )
        for rs in (rows, shuffled)
    ]
    assert sides[0] == sides[1]


@pytest.mark.parametrize(
    "sizes",
    [{"only": 100}, {"a": 60, "b": 40}, {"a": 100, "rare": 7}, {str(n): 20 for n in range(12)}],
)
def test_each_label_is_divided_by_the_shares(sizes: dict[str, int]) -> None:
    labels = [label for label, n in sizes.items() for _ in range(n)]
    sides = split_groups(hashes(len(labels)), labels, list(range(len(labels))))
    counts = Counter(zip(labels, sides, strict=True))
    for label, n in sizes.items():
        for side, share in SHARES.items():
            assert counts[label, side] == pytest.approx(share * n, abs=1), (label, side)


@pytest.mark.parametrize("labels", [1, 6])
@pytest.mark.parametrize("added", [1, 10])
def test_rows_that_are_added_leave_the_others_on_their_side(labels: int, added: int) -> None:
    names = [str(n % labels) for n in range(300 + added)]
    before, after = (split_groups(hashes(n), names[:n], list(range(n))) for n in (300, 300 + added))
    moved = sum(one != other for one, other in zip(before, after, strict=False))
    assert moved <= 2 * added
    kept = sum(one == other == "test" for one, other in zip(before, after, strict=False))
    assert kept >= 0.9 * after.count("test")


def test_many_small_labels_do_not_all_round_the_same_way() -> None:
    names = [str(n // 3) for n in range(240)]
    sides = Counter(split_groups(hashes(240), names, list(range(240))))
    for side, share in SHARES.items():
        assert sides[side] == pytest.approx(share * 240, abs=20)


@pytest.mark.parametrize("rows", [54, 55, 56, 57, 60, 64])
@pytest.mark.parametrize("twins", [0, 3, 8])
def test_few_rows_are_enough_whatever_is_rounded(rows: int, twins: int) -> None:
    """A row more must not leave a side with too few."""
    groups = [n // 2 if n < 2 * twins else n for n in range(rows)]
    for labels in (1, 2, 5):
        sides = Counter(split_groups(hashes(rows), [str(n % labels) for n in range(rows)], groups))
        assert min(sides.values()) >= 8, sides


@pytest.mark.parametrize("large", [20, 50, 80])
def test_a_large_group_is_for_train_and_the_rest_still_has_all_sides(large: int) -> None:
    groups = [0] * large + list(range(1, 101 - large))
    sides = split_groups(hashes(100), ["x"] * 100, groups)
    assert set(sides[:large]) == {"train"}
    counts = Counter(sides)
    rest = min(1.0, (100 - large) / 40)
    assert counts["val"] == pytest.approx(15 * rest, abs=1.5)
    assert counts["test"] == pytest.approx(25 * rest, abs=1.5)


def test_a_group_is_never_divided() -> None:
    groups = [n % 25 for n in range(100)]
    sides = split_groups(hashes(100), ["x"] * 100, groups)
    assert len(set(zip(groups, sides, strict=True))) == 25
    assert set(sides) == set(SHARES)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("My parcel has not arrived yet.", "My parcel has not arrived yet.", True),
        ("My parcel has not arrived yet.", "my  parcel has NOT\narrived yet.", True),
        (
            "My parcel has not arrived yet, order 1234.",
            "My parcel has not arrived yet, order 1236.",
            True,
        ),
        ("My parcel has not arrived yet.", "The zip on my jacket broke.", False),
        ("Cancel my plan today.", "Please change the card on my account.", False),
    ],
)
def test_near_duplicates_share_a_group(one: str, other: str, same: bool) -> None:
    groups = near_duplicate_groups([(one,), ("Something else entirely about bicycles",), (other,)])
    assert (groups[0] == groups[2]) is same
    assert groups[1] not in (groups[0], groups[2])


def test_likeness_is_passed_on_along_a_chain() -> None:
    words = re.findall(
        r"\w+",
        "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november",
    )
    # neighbours share eight words, the ends four
    chain = [(" ".join(words[n : n + 9]),) for n in range(6)]
    assert len(set(near_duplicate_groups(chain, near=0.7))) == 1
    assert len(set(near_duplicate_groups([chain[0], chain[-1]], near=0.7))) == 2


CONTEXT = "You may cancel until noon of the day before; later ones cost a night. " * 6


def test_a_long_field_that_rows_share_does_not_make_their_short_ones_alike() -> None:
    asked = ["Is breakfast included?", "May I bring a dog?", "Where do I park?"]
    rows = [(text, CONTEXT) for text in [*asked, "MAY I  bring a dog?"]]
    joined = [(f"{text}\n{context}",) for text, context in rows]
    assert len(set(near_duplicate_groups(joined))) == 1, "as one text they are one"
    groups = near_duplicate_groups(rows)
    assert groups[1] == groups[3] and len(set(groups)) == 3
    assert apart_from(rows[:3], rows[3:]) == [0, 2]


def test_rows_that_differ_in_one_field_alone_are_other_rows() -> None:
    rows = [
        ("paris", "hotel near the river"),
        ("madrid", "hotel near the river"),
        ("rome", "a car"),
    ]
    assert len(set(near_duplicate_groups(rows))) == 3
