"""Which rows judge beside val, and which programs are asked on them."""

from __future__ import annotations

from dataclasses import replace

import dspy

from optimize.climb.judging import CLEAR, compared, still_reached
from optimize.climb.verdict import History, Tried, decide
from optimize.data.judging_rows import JUDGING, lent
from optimize.data.rows import Splits, row_hash
from optimize.task import Task


class Shout(dspy.Signature):
    """Shout."""

    text: str = dspy.InputField()
    loud: str = dspy.OutputField()


TASK = Task(signature=Shout, metric=lambda row, answer: 1.0, name="shout")
WORDS = [
    "apple",
    "bridge",
    "candle",
    "dragon",
    "engine",
    "forest",
    "guitar",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "ladder",
]


def rows(start: int, n: int) -> tuple[dspy.Example, ...]:
    texts = [
        f"{WORDS[i % 12]} {WORDS[i // 12 % 12]} {WORDS[i // 144 % 12]} {i}" for i in range(9999)
    ]
    return tuple(
        dspy.Example(text=text, loud=text.upper()).with_inputs("text")
        for text in texts[start : start + n]
    )


def split(train: int, val: int) -> Splits:
    return Splits(rows(0, train), rows(2000, val), rows(4000, val), "digest")


def test_at_most_half_of_train_judges_and_no_more_rows_than_tell() -> None:
    for train, val, expected in ((60, 15, 30), (400, 60, JUDGING - 60), (400, JUDGING, 0)):
        learn, spare = lent(TASK, split(train, val))
        assert len(learn) + len(spare) == train
        assert expected - 3 <= len(spare) <= expected


def test_every_run_lends_the_same_rows_and_nearly_equal_ones_stay_together() -> None:
    splits = split(120, 30)
    twice = tuple(
        dspy.Example(text=e.text.title(), loud=e.loud).with_inputs("text")
        for e in splits.train[:20]
    )
    both = replace(splits, train=(*splits.train, *twice))
    learn, spare = lent(TASK, both)
    assert (learn, spare) == lent(TASK, both)
    judging = {e.text.lower() for e in spare}
    assert judging and not judging & {e.text.lower() for e in learn}
    assert not {row_hash(TASK, e) for e in spare} & {row_hash(TASK, e) for e in learn}


def test_a_split_of_the_users_own_and_a_cut_val_are_left_alone() -> None:
    splits = split(120, 30)
    assert lent(TASK, replace(splits, given=True)) == (splits.train, ())
    assert lent(TASK, splits.at_most(10, None)) == (splits.train, ())
    assert lent(TASK, splits.at_most(50, None))[1], "nothing was cut"


def history(*programs: tuple[float, ...], target: float = 0.9, left: int = 0) -> History:
    names = ("demo_search", "nearest_demos", "mipro", "gepa")
    families = ("demos", "demos", "instructions", "instructions")
    tried = tuple(
        Tried(rung, family, scores, promoted=True)
        for rung, family, scores in zip(names, families, programs, strict=False)
    )
    return History(tried, target, 20, left, True)


GOOD, HALF, BAD = (1.0,) * 20, (1.0, 0.0) * 10, (0.0,) * 20


def test_only_programs_that_may_be_the_best_are_asked_on_more_rows() -> None:
    asked: list[int] = []

    def ask(n: int, start: int, end: int) -> tuple[tuple[float, ...], int]:
        asked.append(n)
        return (((1.0, 0.0) * 100)[start:end] if n == 0 else (0.0,) * (end - start)), 0

    found = compared(history(HALF, HALF[::-1], BAD), 80, ask)
    assert set(asked) == {0, 1}
    assert len(found.tried[1].scores) < 80, "fallen behind, it is asked no more"
    assert found.tried[2].scores == BAD


def test_no_row_is_asked_where_one_program_is_clearly_below_the_target() -> None:
    def ask(n: int, start: int, end: int) -> tuple[tuple[float, ...], int]:
        raise AssertionError

    clear = history(HALF, BAD, BAD, target=0.95)
    assert decide(clear).chance <= CLEAR and compared(clear, 80, ask) == clear


def test_what_val_says_is_reached_must_hold_on_fresh_rows() -> None:
    def worse(n: int, start: int, end: int) -> tuple[tuple[float, ...], int]:
        return (0.0,) * (end - start), 0

    def as_good(n: int, start: int, end: int) -> tuple[tuple[float, ...], int]:
        return (1.0,) * (end - start), 0

    first = history(GOOD, target=0.8, left=3)
    assert decide(first).verdict == "reached"
    found = still_reached(first, 80, worse)
    assert decide(found).verdict == "improving" and len(found.tried[0].scores) == 32
    found = still_reached(first, 80, as_good)
    assert decide(found).verdict == "reached" and len(found.tried[0].scores) == 80


def test_where_calls_end_the_rows_so_far_decide() -> None:
    first = history(HALF, HALF[::-1], BAD)
    assert compared(first, 80, lambda n, start, end: None) == first
