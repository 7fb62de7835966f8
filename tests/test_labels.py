"""Planted duplicates, contradictions, wrong labels and raters, counted; and published agreement
figures.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from optimize.climb.preflight import NOISY
from optimize.data.labels import (
    Duplicates,
    agreement,
    duplicates,
    judge,
    possible_label_errors,
    random_share,
)
from optimize.data.rows import Splits
from optimize.data.split import near_graph
from optimize.task import Task

Shipped = Callable[[str], tuple[Task, Splits]]
TOPICS = {
    "cats": ["purr", "whisker", "litter", "kitten", "meow", "claw", "tabby", "catnip"],
    "cars": ["engine", "gear", "brake", "clutch", "petrol", "wheel", "garage", "bonnet"],
    "soup": ["broth", "ladle", "carrot", "simmer", "onion", "stock", "bowl", "leek"],
}


def rows(count: int = 120) -> tuple[list[str], list[str]]:
    rng = random.Random(1)
    labels = [list(TOPICS)[n % 3] for n in range(count)]
    filler = lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))  # noqa: E731
    return [
        " ".join([*rng.sample(TOPICS[label], 6), filler(), filler(), filler()]) for label in labels
    ], labels


def duplicated(texts: list[str], labels: list[str], sides: list[str]) -> Duplicates:
    inputs = [(text,) for text in texts]
    return duplicates(inputs, labels, sides, near_graph(inputs))


def listed(texts: list[str], labels: list[str]) -> list[tuple[int, str]]:
    judged = judge(texts, labels)
    return possible_label_errors(judged) if judged else []


def test_planted_duplicates_and_contradictions_are_all_found_and_nothing_else() -> None:
    texts, labels = rows()
    assert not any(vars(duplicated(texts, labels, ["train", "val"] * 60)).values())
    texts += [texts[0].upper(), f"  {texts[1]} ", texts[2], texts[2]]
    labels += [labels[0], "soup", "cars", labels[2]]
    found = duplicated(texts, labels, ["train"] * 122 + ["test", "val"])
    assert found.leaks == ((2, 122), (2, 123), (122, 123))
    assert found.same == ((0, 120),) and found.conflicts == ((1, 121), (2, 122, 123))


def test_nearly_equal_inputs_that_disagree_are_told_apart() -> None:
    texts, labels = rows()
    texts.append(texts[5] + "s")
    found = duplicated(texts, [*labels, "cars" if labels[5] != "cars" else "soup"], ["train"] * 121)
    assert found.near == ((5, 120),) and not found.conflicts


def test_planted_wrong_labels_are_listed_and_no_right_one() -> None:
    texts, labels = rows()
    wrong = [4, 40, 77]
    for row in wrong:
        labels[row] = list(TOPICS)[(row + 1) % 3]
    assert sorted(row for row, _ in listed(texts, labels)) == wrong
    assert {guess for row, guess in listed(texts, labels) if row == 4} == {list(TOPICS)[4 % 3]}


def test_where_texts_say_nothing_of_labels_nobody_is_accused() -> None:
    rng = random.Random(0)
    texts, labels = rows()
    rng.shuffle(labels)
    assert listed(texts, labels) == []
    assert (
        judge(["a", "b", "c"], ["x", "y", "x"]) is None
        and judge(texts, ["same"] * len(texts)) is None
    )


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_share_of_labels_drawn_at_random_is_estimated(shipped: Shipped, share: float) -> None:
    """On the hardest labels that ship: TF-IDF is right on 0.63 of them."""
    _, splits = shipped("tickets")
    rows, rng = [e for side in splits.sides().values() for e in side], random.Random(2)
    desks = sorted({e.desk for e in rows})
    labels = [
        rng.choice([d for d in desks if d != e.desk]) if rng.random() < share else e.desk
        for e in rows
    ]
    judged = judge([e.message for e in rows], labels)
    assert judged and (found := random_share(judged))
    assert found.high < NOISY if share == 0 else share <= found.mean <= share + 0.15


def test_right_labels_that_words_cannot_tell_are_not_called_random() -> None:
    """The letter of the right choice, as in a quiz: nothing in the words says which it is."""
    rng = random.Random(3)
    words = ["river", "engine", "window", "poem", "salt", "winter", "orbit", "ladder"]
    texts = [" ".join(rng.choices(words, k=6)) + f" {n}" for n in range(200)]
    judged = judge(texts, [rng.choice("ABCD") for _ in texts])
    assert judged and random_share(judged) is None


def test_too_few_classes_tell_no_share_of_random_labels() -> None:
    judged = judge(*rows())
    assert judged and random_share(judged) is None


def test_krippendorffs_alpha_as_published() -> None:
    """Krippendorff (2011), 'Computing Krippendorff's alpha-reliability', examples B (two observers)
    and C (four, with gaps).
    """
    two = ["ab", "aa", "bb", "bb", "db", "cc", "cc", "cc", "ee", "dd", "dd", "ad"]
    found = agreement([tuple(pair) for pair in two])
    assert found and found.alpha == pytest.approx(0.692, abs=5e-4)
    columns = [
        "1 1 - 1",
        "2 2 3 2",
        "3 3 3 3",
        "3 3 3 3",
        "2 2 2 2",
        "1 2 3 4",
        "4 4 4 4",
        "1 1 2 1",
        "2 2 2 2",
        "- 5 5 5",
        "- - 1 1",
        "- - 3 -",
    ]
    found = agreement([[v for v in column.split() if v != "-"] for column in columns])
    assert found and found.alpha == pytest.approx(0.743, abs=5e-4) and found.rows == 11


def test_what_a_person_scores_against_the_others() -> None:
    found = agreement([("a", "a", "a"), ("a", "a", "b")])
    assert found and found.person == pytest.approx((1 + 2 / 3 * 0.5) / 2), (
        "in the second row each 'a' meets a tie, 'b' never wins"
    )
    assert agreement([("a",), ()]) is None
    same = agreement([("a", "a"), ("a", "a")])
    assert same and same.alpha == 1.0
