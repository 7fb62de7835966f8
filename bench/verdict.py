"""How often each stopping rule is wrong, on simulated climbs whose truth is known and on recorded
real ones. No LM.

The laws that gains are drawn from are not those the rule was made from: it assumes none.

python bench/verdict.py            # some minutes; --json for machines, --climbs N for more of them
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import beta, norm

from bench.printed import printed
from optimize.climb.judging import compared, still_reached
from optimize.climb.rungs import LADDER as RUNGS
from optimize.climb.verdict import (
    History,
    Tried,
    confirmed,
    contenders,
    contradicts_plateau,
    decide,
    errors_asked,
    promotes,
)
from optimize.data.split import SHARES
from optimize.scoring.evaluate import BLOCK
from optimize.stats.intervals import at_least, paired_gain
from optimize.stats.race import hopeless

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
SIZES = (20, 30, 50, 100, 200, 400)
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

# --- rows: how programs of given true scores do on them


@dataclass
class Rows:
    """Rows of a common difficulty, on which programs' errors correlate. kind: right-or-wrong
    scores, graded ones (Beta, many near 0 and 1), or noisy ones (of an LM that answers anew).
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
    height = _clipped(base + np.clip(gains, 0, None).sum())
    if missing is None:
        missing = -rng.uniform(0, 0.15) if rng.random() < 0.5 else rng.uniform(0.02, 0.25)
    judged = val + min(2 * val, max(0, JUDGING - val))
    rows = Rows(rng, judged, kind)
    test = Rows(rng, round(val * SHARES["test"] / SHARES["val"]), kind)

    def program(rung: int, on: float) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        truth = _clipped(on + gains[rung]) if rung else base
        return truth, rows.scores(truth), test.scores(truth)

    return Climb(val, float(height + missing), LADDER, program)


def _clipped(truth: float) -> float:
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


# --- rules


@dataclass(frozen=True)
class Stop:
    """What a rule said, after how many rungs, of a program with this true score.

    highest: the true score of the best program of the ladder, had it been climbed to its end. rows:
    judging rows asked, as a share of val rows times rungs. sure: the stated probability of being at
    the target. corrected: the score that the rule states.
    """

    said: str
    rungs: int
    truth: float
    highest: float
    rows: float
    sure: float
    corrected: float


def ours(climb: Climb, rivals: tuple[tuple[float, ...], ...] = (), reads: int = 1) -> Stop:
    """The climb as optimize/climb/climb.py does it, with its own functions."""
    tried: list[Tried] = []
    truths, whole, tests = [], [], []
    incumbent = asked = 0
    stop = 0
    history = None

    def ask(n: int, start: int, end: int) -> tuple[float, ...]:
        nonlocal asked
        asked += end - start
        return whole[n][start:end]

    for k, (rung, family) in enumerate(climb.rungs):
        truth, scores, test = climb.program(k, truths[incumbent] if truths else 0.0)
        truths.append(truth)
        whole.append(scores)
        tests.append(test)
        if history and decide(history).verdict != "improving":
            continue  # the rest of the ladder, for the truth alone
        end = _raced(tried[incumbent].scores, scores, climb.val) if k else climb.val
        asked += end
        kept = scores[:end]
        promoted = k == 0 or (
            end == climb.val and promotes(paired_gain(tried[incumbent].scores, kept), False)
        )
        tried.append(Tried(rung, family, kept, promoted))
        incumbent, stop = (k if promoted else incumbent), k
        left = len(climb.rungs) - 1 - k
        history = History(tuple(tried), climb.target, climb.val, left, True, rivals=rivals)
        if max(t.mean() for t in tried) >= climb.target:  # else it cannot be reached
            history = still_reached(history, len(scores), ask)
        if not left:
            history = compared(history, len(scores), ask)
        tried = list(history.tried)
    assert history
    found, best = decide(history), contenders(history.tried, climb.val)[0]
    on_test = at_least(climb.target, tests[best])
    said: str = confirmed(found, on_test, reads).verdict
    if said == "plateau" and contradicts_plateau(on_test):
        said = "contradicted"
    rows = asked / (climb.val * len(climb.rungs))
    corrected = found.best.interval.mean
    return Stop(said, stop, truths[best], max(truths), rows, found.reached, corrected)


def _raced(incumbent: Sequence[float | None], scores: Sequence[float], val: int) -> int:
    """After how many rows the race is stopped."""
    known = [b - (a or 0.0) for a, b in zip(incumbent, scores[:val], strict=False)]
    looks = range(BLOCK, val, BLOCK)
    return next((n for n in looks if hopeless(known[:n], val, errors_asked(False))), val)


def patience(climb: Climb, rounds: int) -> Stop:
    """Stop at the raw best score at target, or after so many rungs that did not raise it (gepa's
    NoImprovementStopper).
    """
    means: list[float] = []
    truths: list[float] = []
    best = since = stop = 0
    said = ""
    for k in range(len(climb.rungs)):
        truth, scores, _ = climb.program(k, truths[best] if truths else 0.0)
        truths.append(truth)
        if said:
            continue
        means.append(float(np.mean(scores[: climb.val])))
        best, since = (k, 0) if means[k] > means[best] else (best, since + (k > 0))
        stop = k
        said = "reached" if means[best] >= climb.target else "plateau" if since >= rounds else ""
    rows = (stop + 1) / len(climb.rungs)
    sure = float(said == "reached")
    return Stop(said or "plateau", stop, truths[best], max(truths), rows, sure, means[best])


RULES: dict[str, Callable[[Climb], Stop]] = {
    "ours": ours,
    "patience 1": partial(patience, rounds=1),
    "patience 3": partial(patience, rounds=3),
    "raw best, all rungs": partial(patience, rounds=99),
}


def row(rule: str, law: str, n: int, stops: Sequence[tuple[Climb, Stop]]) -> dict[str, Any]:
    """Rates. false_plateau: of climbs some rung of which truly reaches the target. wrong_reached:
    of those called reached, the ones whose program truly is below the target. missed_plateau: of
    climbs no rung of which comes within 10 points of the target, those not called plateau.
    """
    reachable = [s for c, s in stops if s.highest >= c.target]
    reached = [s.truth < c.target for c, s in stops if s.said == "reached"]
    hopeless = [s for c, s in stops if s.highest <= c.target - 0.095]
    return {
        "rule": rule,
        "law": law,
        "n": n,
        "false_plateau": _share([s.said == "plateau" for s in reachable]),
        "wrong_reached": _share(reached),
        "missed_plateau": _share([s.said != "plateau" for s in hopeless]),
        "indecisive": _share([s.said not in ("reached", "plateau") for _, s in stops]),
        "rungs": round(sum(s.rungs for _, s in stops) / len(stops), 2),
        "rows_asked": round(sum(s.rows for _, s in stops) / len(stops), 2),
        "reachable": len(reachable),
        "reached": len(reached),
        "bias": round(100 * float(np.mean([s.corrected - s.truth for _, s in stops])), 1),
    }


def pooled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each law's rates over all sizes of 30 rows and more, for each rule."""
    out = []
    for rule, law in dict.fromkeys((r["rule"], r["law"]) for r in rows):
        some = [r for r in rows if (r["rule"], r["law"]) == (rule, law) and r["n"] >= 30]

        def rate(key: str, of: str, some: list[dict[str, Any]] = some) -> float | None:
            total = sum(r[of] for r in some)
            return round(sum((r[key] or 0) * r[of] for r in some) / total, 3) if total else None

        out.append(
            {
                "rule": rule,
                "law": law,
                "false_plateau": rate("false_plateau", "reachable"),
                "of": sum(r["reachable"] for r in some),
                "wrong_reached": rate("wrong_reached", "reached"),
                "of_reached": sum(r["reached"] for r in some),
            }
        )
    return out


def _share(hits: Sequence[bool]) -> float | None:
    return round(sum(hits) / len(hits), 3) if hits else None


def calibration(stops: Sequence[tuple[Climb, Stop]]) -> list[dict[str, Any]]:
    """How often the best program truly is at the target, by the probability stated for it."""
    edges = (0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 1.001)
    out = []
    for low, high in itertools.pairwise(edges):
        inside = [(s.sure, s.truth >= c.target) for c, s in stops if low <= s.sure < high]
        if inside:
            stated, true = np.mean(inside, axis=0)
            out.append({"stated": round(stated, 3), "true": round(true, 3), "climbs": len(inside)})
    return out


def reruns(rng: Rng, n: int, users: int, remembers: bool, runs: int = 10) -> dict[str, Any]:
    """The same user runs again with new seeds on the same rows, until a run says reached."""
    wrong = 0
    bias = []
    for _ in range(users):
        target = float(rng.uniform(0.55, 0.75))
        height = target - rng.uniform(0.0, 0.08)
        rows, test = Rows(rng, 3 * n), Rows(rng, round(n * 5 / 3))
        memory: tuple[tuple[float, ...], ...] = ()
        stops = []
        for run in range(runs):
            made: list[tuple[float, ...]] = []

            def program(
                rung: int,
                on: float,
                rows: Rows = rows,
                test: Rows = test,
                height: float = height,
                made: list[tuple[float, ...]] = made,
            ) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
                truth = _clipped(height - abs(0.05 * rng.standard_normal()))
                made.append(rows.scores(truth))
                return truth, made[-1], test.scores(truth)

            climb = Climb(n, target, LADDER, program)
            stops.append(ours(climb, memory if remembers else (), 1 + run if remembers else 1))
            memory += tuple(scores[:n] for scores in made)
        wrong += any(s.said == "reached" and s.truth < target for s in stops)
        best = max(stops, key=lambda s: s.corrected)
        bias.append(best.corrected - best.truth)
    return {
        "n": n,
        "remembers": remembers,
        "wrong_reached_in_some_run": round(wrong / users, 3),
        "bias_of_best": round(100 * float(np.mean(bias)), 1),
    }


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


def main(
    json_: Annotated[bool, typer.Option("--json")] = False, climbs: int = 200, seed: int = 0
) -> None:
    rows, ours_all = [], []
    for kind in ("right or wrong", "graded", "noisy"):
        laws = [*LAWS, "recorded"] if kind == "right or wrong" else ["winner anywhere"]
        for law in laws:
            for n in SIZES:
                rng = np.random.default_rng([seed, n])
                made = drawn(rng, law, n, climbs, kind)
                named = law if kind == "right or wrong" else f"{law}, {kind}"
                for rule, stopping in RULES.items():
                    stops = [(c, stopping(c)) for c in (make() for make in made)]
                    rows.append(row(rule, named, n, stops))
                    if rule == "ours" and n >= 30:
                        ours_all += stops
    tables = {
        "Pooled over n of 30 and more": pooled(rows),
        "Ten points below the target, 200 judging rows": [
            far_below(np.random.default_rng([seed, n]), n, climbs) for n in (50, 70, 100, 200)
        ],
        "Stated probability of being at the target": calibration(ours_all),
        "Ten runs on the same rows": [
            reruns(np.random.default_rng([seed, n]), n, max(5, climbs // 10), memory)
            for n in (30, 50)
            for memory in (False, True)
        ],
    }
    if json_:
        print(json.dumps(rows, indent=1))
        return
    for title, found in ({"Climbs": rows} | tables).items():
        printed(found, title, as_json=False)


def far_below(rng: Rng, n: int, climbs: int) -> dict[str, Any]:
    """How often a plateau whose best program lies exactly 10 points below the target is found."""
    seeds = rng.integers(2**32, size=climbs)
    found = [
        ours(simulated(np.random.default_rng(int(s)), "winner anywhere", n, "right or wrong", 0.1))
        for s in seeds
    ]
    return {"val": n, "judging": JUDGING, "found": _share([s.said == "plateau" for s in found])}


if __name__ == "__main__":
    typer.run(main)
