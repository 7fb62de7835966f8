"""Climbs whose truth is known: simulated under laws of their own, and real ones on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import beta, norm

from optimize.climb.rungs import LADDER as RUNGS
from optimize.data.split import SHARES

RECORDED = Path(__file__).parent / "climbs.jsonl"
# as for a task without a corpus
LADDER = [("zero_shot", "baseline")] + [
    (rung.name, rung.family) for rung in RUNGS if rung.family != "retrieval"
]
RECORDED_AS = {  # rung in the file → its family
    "zero_shot": "baseline",
    "four_demos": "demos",
    "twelve_demos": "demos",
    "nearest_demos": "demos",
    "proposed_instruction": "instructions",
    "hint": "instructions",
}
JUDGING = 200  # val rows, and those that the climb borrows from train beside them
Rng = np.random.Generator


# --- laws: what each rung adds to the program it is built on


def late(rng: Rng, rungs: int) -> np.ndarray:
    return _one_wins(rng, rungs, rungs - 1)


def anywhere(rng: Rng, rungs: int) -> np.ndarray:
    return _one_wins(rng, rungs, int(rng.integers(rungs)))


def small_then_late(rng: Rng, rungs: int) -> np.ndarray:
    gains = _one_wins(rng, rungs, max(0, rungs - 2))
    gains[:3] += (0.05, 0.03, 0.02)
    return gains


def _one_wins(rng: Rng, rungs: int, winner: int) -> np.ndarray:
    gains = 0.01 * rng.standard_normal(rungs)
    gains[winner] = rng.uniform(0.15, 0.3)
    return gains


def normal(rng: Rng, rungs: int) -> np.ndarray:
    return np.asarray(0.02 + 0.06 * rng.standard_normal(rungs))


def spike_and_slab(rng: Rng, rungs: int) -> np.ndarray:
    return np.where(rng.random(rungs) < 0.8, 0.0, 0.12 + 0.1 * rng.standard_normal(rungs))


def student_t(rng: Rng, rungs: int) -> np.ndarray:
    return np.clip(0.03 * rng.standard_t(2, rungs), -0.4, 0.4)


def geometric(rng: Rng, rungs: int) -> np.ndarray:
    return np.asarray(rng.uniform(0.05, 0.2) * 0.5 ** np.arange(rungs))


def no_gain(rng: Rng, rungs: int) -> np.ndarray:
    return np.asarray(0.01 * rng.standard_normal(rungs))


LAWS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "winner last": late,
    "winner anywhere": anywhere,
    "small gains, then a late winner": small_then_late,
    "normal": normal,
    "spike and slab": spike_and_slab,
    "Student t, 2 degrees": student_t,
    "geometric": geometric,
    "nothing helps": no_gain,
}

NEARLY = 0.15  # share of the "fields" rows that score 0.9

# --- rows: how programs of given true scores do on them


@dataclass
class Rows:
    """Rows of a common difficulty, on which programs' errors correlate. kind: right-or-wrong
    scores, graded ones (Beta, many near 0 and 1), those of fields that are mostly all right, now
    and then nearly, or not to be read ("fields"), or noisy ones (of an LM that answers anew).
    """

    rng: Rng
    n: int
    kind: str = "right or wrong"
    difficulty: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.difficulty = self.rng.standard_normal(self.n)

    def scores(self, truth: float) -> tuple[float, ...]:
        common = 0.25 if self.kind == "noisy" else 0.6
        own = self.rng.standard_normal(self.n)
        latent = np.sqrt(common) * self.difficulty + np.sqrt(1 - common) * own
        if self.kind == "graded":
            found = beta.ppf(norm.cdf(-latent), 1.2 * truth, 1.2 * (1 - truth))
        elif self.kind == "fields":
            whole = max(0.0, truth - 0.9 * NEARLY)
            found = (latent < norm.ppf(whole)) * 0.1 + (latent < norm.ppf(whole + NEARLY)) * 0.9
        else:
            found = (latent < norm.ppf(truth)).astype(float)
        return tuple(found.tolist())


@dataclass
class Climb:
    """What a rule may find out: programs on val and spare rows, one a rung, and on test rows.

    program(rung, base): the scores of what a rung makes of the program with the true score base.
    """

    val: int
    target: float
    rungs: Sequence[tuple[str, str]]
    program: Callable[[int, float], tuple[float, tuple[float, ...], tuple[float, ...]]]


def simulated(rng: Rng, law: str, val: int, kind: str, missing: float | None = None) -> Climb:
    """A climb whose best rung lies `missing` below the target; drawn around it if None: at or up to
    15 points above it in half of the climbs, up to 25 points below it in the others.
    """
    gains = np.concatenate([[0.0], LAWS[law](rng, len(LADDER) - 1)])
    base = float(rng.uniform(0.2, 0.6))
    height = clipped(base + np.clip(gains, 0, None).sum())
    if missing is None:
        missing = -rng.uniform(0, 0.15) if rng.random() < 0.5 else rng.uniform(0.02, 0.25)
    judged = val + min(2 * val, max(0, JUDGING - val))
    rows = Rows(rng, judged, kind)
    test = Rows(rng, round(val * SHARES["test"] / SHARES["val"]), kind)

    def program(rung: int, on: float) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        truth = clipped(on + gains[rung]) if rung else base
        return truth, rows.scores(truth), test.scores(truth)

    return Climb(val, float(height + missing), LADDER, program)


def clipped(truth: float) -> float:
    return float(np.clip(truth, 0.02, 0.97))


def recorded(rng: Rng, val: int) -> Iterator[Climb]:
    """Each recorded climb in its own order, on rows drawn with replacement; the truth is the score
    on all of them.
    """
    for line in RECORDED.read_text().splitlines():
        found = json.loads(line)["scores"]
        scores = np.array([[float(c) if c != "?" else 0.0 for c in row] for row in found.values()])
        truths, count = scores.mean(axis=1), scores.shape[1]
        judged = val + min(2 * val, max(0, JUDGING - val))
        rows = rng.integers(count, size=judged)
        test = rng.integers(count, size=round(val * SHARES["test"] / SHARES["val"]))

        def program(
            rung: int,
            _: float,
            truths: np.ndarray = truths,
            scores: np.ndarray = scores,
            rows: np.ndarray = rows,
            test: np.ndarray = test,
        ) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
            return (
                float(truths[rung]),
                tuple(scores[rung, rows].tolist()),
                tuple(scores[rung, test].tolist()),
            )

        missing = -rng.uniform(0, 0.15) if rng.random() < 0.5 else rng.uniform(0.02, 0.25)
        ladder = [(rung, RECORDED_AS[rung]) for rung in found]
        yield Climb(val, float(truths.max() + missing), ladder, program)


def drawn(rng: Rng, law: str, n: int, climbs: int, kind: str) -> list[Callable[[], Climb]]:
    """Climbs that each rule may climb afresh, with the same draws."""
    if law == "recorded":
        one = len(RECORDED.read_text().splitlines())
        seeds = rng.integers(2**32, size=max(1, climbs // one))
        return [partial(_nth, int(s), n, i) for s in seeds for i in range(one)]
    return [
        partial(lambda s: simulated(np.random.default_rng(s), law, n, kind), int(s))
        for s in rng.integers(2**32, size=climbs)
    ]


def _nth(seed: int, n: int, number: int) -> Climb:
    return list(recorded(np.random.default_rng(seed), n))[number]
