"""How often each stopping rule is wrong, on simulated climbs whose truth is known and on recorded
real ones. No LM.

The laws that gains are drawn from are not those the rule was made from: it assumes none.

python -m bench.verdict             # some minutes; --json for machines, --climbs N for more of them
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

from bench.printed import printed
from bench.verdict_climbs import JUDGING, LADDER, LAWS, Climb, Rng, Rows, clipped, drawn, simulated
from optimize.climb.judging import compared, still_reached
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
from optimize.scoring.evaluate import BLOCK
from optimize.stats.intervals import paired_gain
from optimize.stats.judge import chance_at_least
from optimize.stats.race import hopeless

SIZES = (20, 30, 50, 100, 200, 400)


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

    def ask(n: int, start: int, end: int) -> tuple[tuple[float, ...], int]:
        nonlocal asked
        asked += end - start
        return whole[n][start:end], 0

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
    on_test = chance_at_least(climb.target, tests[best], None)
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
                truth = clipped(height - abs(0.05 * rng.standard_normal()))
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


def main(
    json_: Annotated[bool, typer.Option("--json")] = False, climbs: int = 200, seed: int = 0
) -> None:
    rows, ours_all = [], []
    for kind in ("right or wrong", "graded", "fields", "noisy"):
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
