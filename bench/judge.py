"""What the correction for an LM judge's errors is worth: coverage of corrected intervals, and how
often verdicts are wrong, with it and without, under laws that it was not made from. No LM.

It was made for errors that hang on nothing but whether an answer is good ("as assumed").

python -m bench.judge              # some ten minutes on one core; --climbs N, --law NAME for less
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import norm

from bench.printed import printed
from optimize.climb.verdict import Family, History, Tried, confirmed, contenders, decide
from optimize.commands.lm_judge import EACH, LEAST
from optimize.stats.intervals import Interval, mean_interval, paired_gain
from optimize.stats.judge import Confusion, chance_at_least, corrected, corrected_gain

Rng = np.random.Generator
Bools = Any  # arrays
RHO = 1.0  # how much rows differ in difficulty
ROWS, TEST = 150, 60
JUDGED = (60, 200)  # answers that people have judged
RUNGS: tuple[tuple[str, Family], ...] = (
    ("zero_shot", "baseline"),
    ("demo_search", "demos"),
    ("nearest_demos", "demos"),
    ("mipro", "instructions"),
    ("gepa", "instructions"),
)


@dataclass(frozen=True)
class Law:
    """How a judge errs. misses, lenience: share of good answers that it fails, of bad ones that it
    passes. hard: its errors grow with a row's difficulty. slice: rows of a kind on which it errs
    three times as often, a share of the judged answers and one of the task's rows. cluster: judged
    answers to one question, all judged in one way. people: share of human verdicts that are wrong.
    favour: points added to the chance that it passes a bad answer of one program, the best. drift:
    the same for all programs, not seen when people judged.
    """

    misses: float = 0.10
    lenience: float = 0.15
    hard: bool = False
    slice: tuple[float, float] = (0.0, 0.0)
    cluster: int = 1
    people: float = 0.0
    favour: float = 0.0
    drift: float = 0.0


LAWS = {
    "as assumed": Law(),
    "as assumed, lenient: passes 3 of 10 bad answers": Law(misses=0.03, lenience=0.3),
    "errs on hard rows": Law(hard=True),
    "errs on a kind of row, 20 % of judged, 20 % of rows": Law(slice=(0.2, 0.2)),
    "errs on a kind of row, 10 % of judged, 40 % of rows": Law(slice=(0.1, 0.4)),
    "five judged answers a question": Law(cluster=5),
    "people err in 5 %": Law(people=0.05),
    "favours the best program by 10 points": Law(favour=0.1),
    "10 points more lenient than when judged": Law(drift=0.1),
}


def answers(rng: Rng, scores: np.ndarray, rows: int) -> tuple[np.ndarray, Bools]:
    """(rows,) ease and (programs, rows) good or bad: a probit model, with these true scores."""
    ease = rng.standard_normal(rows)
    level = norm.ppf(scores)[:, None] * np.sqrt(1 + RHO**2)
    return ease, rng.random((len(scores), rows)) < norm.cdf(level + RHO * ease)


def verdicts(rng: Rng, law: Law, ease: np.ndarray, good: Bools, of_task: bool) -> np.ndarray:
    """(programs, rows) of 0 and 1: what the judge says. The first program is the favoured one."""
    factor = 2 * norm.cdf(-ease) if law.hard else np.ones(len(ease))
    odd = rng.random(len(ease)) < law.slice[of_task]
    factor = np.where(odd, 3.0, 1.0) * factor
    extra = np.zeros((len(good), 1))
    if of_task:
        extra += law.drift
        extra[0] += law.favour
    wrong = np.where(good, law.misses * factor, law.lenience * factor + extra)
    u = rng.random(good.shape)
    if law.cluster > 1 and not of_task:
        u = np.repeat(u[:, :: law.cluster], law.cluster, axis=1)[:, : u.shape[1]]
    return np.where(u < np.minimum(wrong, 0.95), ~good, good).astype(float)


def held_against_people(rng: Rng, law: Law, judged: int) -> Confusion | None:
    """None where the judge would be refused."""
    ease, good = answers(rng, np.array([0.5]), judged)
    if law.cluster > 1:  # one question's answers are as easy as each other
        ease = np.repeat(ease[:: law.cluster], law.cluster)[:judged]
        good = rng.random((1, judged)) < norm.cdf(RHO * ease)
    said = verdicts(rng, law, ease, good, of_task=False)[0] > 0
    people = np.where(rng.random(judged) < law.people, ~good[0], good[0])
    counts = Counter(zip(people.tolist(), said.tolist(), strict=True))
    pairs = ((True, True), (True, False), (False, True), (False, False))
    found = Confusion(*(counts[pair] for pair in pairs))
    if min(found.tp + found.fn, found.fp + found.tn) < EACH or found.youden.low <= LEAST:
        return None
    return found


def coverage(law: Law, judged: int, draws: int) -> dict[str, Any]:
    """Share of intervals that hold the true score, or the true gain, of two programs."""
    rng = np.random.default_rng(0)
    held, refused, width = Counter[str](), 0, 0.0
    for _ in range(draws):
        if (judge := held_against_people(rng, law, judged)) is None:
            refused += 1
            continue
        score = rng.uniform(0.4, 0.95)
        pair = np.array([score, max(0.05, score - rng.uniform(0, 0.3))])
        ease, good = answers(rng, pair, ROWS)
        said = verdicts(rng, law, ease, good, of_task=True).tolist()
        raw, gain = mean_interval(said[0]), paired_gain(said[1], said[0])
        true = corrected(raw, judge)
        shown = {"raw": raw, "corrected": true}
        held.update(name for name, i in shown.items() if within(i, pair[0]))
        gains = {"raw gain": gain, "corrected gain": corrected_gain(gain, judge)}
        held.update(name for name, i in gains.items() if within(i, pair[0] - pair[1]))
        width += (true.high - true.low) / (raw.high - raw.low)
    asked = max(1, draws - refused)
    names = ("raw", "corrected", "raw gain", "corrected gain")
    shares = {name: round(100 * held[name] / asked, 1) for name in names}
    return {**shares, "wider": round(width / asked, 2), "refused": round(100 * refused / draws, 1)}


def within(interval: Interval, value: float) -> bool:
    return bool(interval.low <= value <= interval.high)


def wrong_verdicts(law: Law, judged: int, climbs: int) -> dict[str, Any]:
    """Of all climbs, in percent: reached though the program that is kept is below the target;
    plateau though a program is at it; and how many end in either.
    """
    rng = np.random.default_rng(1)
    found = Counter[str]()
    done = 0
    while done < climbs:
        if (judge := held_against_people(rng, law, judged)) is None:
            continue
        done += 1
        scores = np.clip(
            rng.uniform(0.45, 0.85) + 0.06 * rng.standard_normal(len(RUNGS)), 0.1, 0.97
        )
        scores = np.sort(scores)[::-1]  # the best first, whom the judge may favour
        target = float(np.clip(scores[0] + rng.uniform(-0.15, 0.15), 0.05, 0.98))
        sides = []
        for rows in (ROWS, TEST):
            ease, good = answers(rng, scores, rows)
            sides.append(verdicts(rng, law, ease, good, of_task=True))
        order = rng.permutation(len(RUNGS))  # in which the rungs came
        tried = tuple(
            Tried(rung, family, tuple(sides[0][n].tolist()))
            for (rung, family), n in zip(RUNGS, order, strict=True)
        )
        history = History(tried, target, ROWS, 0, True)
        for name, seen in (("raw", None), ("corrected", judge)):
            best = order[contenders(tried, ROWS)[0]]
            decision = decide(replace(history, judge=seen))
            on_test = chance_at_least(target, sides[1][best].tolist(), seen)
            verdict = confirmed(decision, on_test, 1).verdict
            found[f"{name} {verdict}"] += 1
            found[f"{name} wrong reached"] += verdict == "reached" and scores[best] < target
            found[f"{name} wrong plateau"] += verdict == "plateau" and scores.max() >= target

    def share(*names: str) -> float:
        return round(100 * sum(int(found[name]) for name in names) / climbs, 1)

    return {
        f"{name} {what}": share(*(f"{name} {v}" for v in asked))
        for name in ("raw", "corrected")
        for what, asked in (
            ("wrong reached", ["wrong reached"]),
            ("wrong plateau", ["wrong plateau"]),
            ("decided", ["reached", "plateau"]),
        )
    }


def main(
    draws: int = 2000,
    climbs: int = 400,
    law: str = "",
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    intervals, ends = [], []
    for name, found in LAWS.items():
        for judged in JUDGED if law in name else ():
            first = {"law": name, "judged": judged}
            intervals.append(first | coverage(found, judged, draws))
            ends.append(first | wrong_verdicts(found, judged, climbs))
            print(intervals[-1], ends[-1], file=sys.stderr)
    printed(intervals, "intervals: share that hold the true value, in percent", json_)
    printed(ends, f"verdicts on {ROWS} rows and {TEST} test rows, percent of climbs", json_)


if __name__ == "__main__":
    typer.run(main)
