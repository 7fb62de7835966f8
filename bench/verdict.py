"""How often each stopping rule is wrong, on simulated climbs whose truth is known and on recorded
real ones. No LM.

python bench/verdict.py            # a minute; --json for machines, --climbs N for more of them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from optimize.climb.rungs import LADDER as RUNGS
from optimize.climb.verdict import History, Tried, best_of, decide, promotes
from optimize.stats.intervals import paired_gain

RECORDED = Path(__file__).parent / "climbs.jsonl"
# as for a task without a corpus
LADDER = [(rung.name, rung.family) for rung in RUNGS if rung.family != "retrieval"]
RECORDED_AS = {  # rung in the file → (optimizer, family)
    "zero_shot": ("zero_shot", "baseline"),
    "four_demos": ("drawn_demos", "demos"),
    "twelve_demos": ("drawn_demos", "demos"),
    "nearest_demos": ("nearest_demos", "demos"),
    "proposed_instruction": ("proposed_instruction", "instructions"),
    "hint": ("hint", "instructions"),
}
SIZES = (30, 50, 100, 150, 250, 400)


@dataclass(frozen=True)
class Climb:
    """Programs in the order of their rungs: scores[k, row], true scores, the target."""

    rungs: Sequence[tuple[str, str]]
    scores: np.ndarray
    truths: np.ndarray
    target: float


@dataclass(frozen=True)
class Stop:
    """After how many rungs a rule stopped, what it said, and the true score of the program it ends
    with.
    """

    rungs: int
    said: str
    truth: float


def simulated(rng: np.random.Generator, n: int, headroom: float | None = None) -> Climb:
    """A climb towards a ceiling that lies `headroom` above the target (below it, if negative),
    drawn if None.

    Each rung finds nothing with probability 0.4; else it takes a share (Beta(1, 1.5)) of what is
    left to the ceiling. Half of the rungs lose something instead (half-normal, 0.05). Rows have a
    common difficulty: two programs' errors correlate at 0.6.
    """
    headroom = float(rng.uniform(-0.25, 0.15)) if headroom is None else headroom
    ceiling = float(rng.uniform(0.55, 0.9))
    target = ceiling - headroom
    truth = ceiling - float(rng.uniform(0.05, 0.45))
    truths = [truth]
    for _ in LADDER:
        found = truth + (ceiling - truth) * (0 if rng.random() < 0.4 else rng.beta(1, 1.5))
        if rng.random() < 0.5:
            found -= abs(0.05 * rng.standard_normal())
        truths.append(found)
        truth = max(truth, found)
    true = np.clip(truths, 0.02, 0.98)
    difficulty = np.sqrt(0.6) * rng.standard_normal(n)
    ability = norm.ppf(true)[:, None]
    rungs = [("zero_shot", "baseline"), *LADDER]
    return Climb(
        rungs,
        (difficulty + np.sqrt(0.4) * rng.standard_normal((len(true), n)) < ability).astype(float),
        true,
        target,
    )


def recorded(rng: np.random.Generator, n: int) -> Iterator[Climb]:
    """Each recorded climb on n of its rows; the truth is the score on all of them, the target lies
    around the best one's.
    """
    for line in RECORDED.read_text().splitlines():
        rungs = json.loads(line)["scores"]
        scores = np.array([[float(c) for c in row] for row in rungs.values()])
        truths = scores.mean(axis=1)
        drawn = rng.permutation(scores.shape[1])[:n]
        yield Climb(
            [RECORDED_AS[r] for r in rungs],
            scores[:, drawn],
            truths,
            float(truths.max() + rng.uniform(-0.15, 0.25)),
        )


def ours(climb: Climb) -> Stop:
    """decide() after every rung, on programs promoted as the ladder does."""
    tried: list[Tried] = []
    incumbent = 0
    for k, (rung, family) in enumerate(climb.rungs):
        scores = tuple(climb.scores[k].tolist())
        promoted = k == 0 or promotes(paired_gain(tried[incumbent].scores, scores), cheaper=False)
        tried.append(Tried(rung, family, scores, promoted))
        incumbent = k if promoted else incumbent
        left = len(climb.rungs) - 1 - k
        found = decide(History(tuple(tried), climb.target, left, budget_left=True))
        if found.verdict != "improving":
            break
    return Stop(k, found.verdict, float(climb.truths[best_of(tried)]))


def patience(climb: Climb, rounds: int) -> Stop:
    """Stop at the raw best score at target, or after so many rungs that did not raise it (gepa's
    NoImprovementStopper).
    """
    means = climb.scores.mean(axis=1)
    best = since = 0
    for k in range(len(means)):
        best, since = (k, 0) if means[k] > means[best] else (best, since + (k > 0))
        if means[best] >= climb.target:
            return Stop(k, "reached", float(climb.truths[best]))
        if since >= rounds:
            break
    return Stop(k, "plateau", float(climb.truths[best]))


RULES: dict[str, Callable[[Climb], Stop]] = {
    "ours": ours,
    "patience 1": partial(patience, rounds=1),
    "patience 3": partial(patience, rounds=3),
    "raw best, all rungs": partial(patience, rounds=99),
}


def row(rule: str, n: int, climbs: Sequence[Climb]) -> dict[str, float | int | str]:
    """Rates over climbs. false_trigger: of climbs some rung of which truly reaches the target,
    those called plateau.

    missed_plateau: of climbs no rung of which comes within 10 points of the target, those not
    called plateau. wrong_reached: of all climbs, those called reached by a program that truly is
    below the target.
    """
    stops = [RULES[rule](climb) for climb in climbs]
    both = list(zip(climbs, stops, strict=True))
    reachable = [s for c, s in both if c.truths.max() >= c.target]
    hopeless = [s for c, s in both if c.truths.max() <= c.target - 0.1]
    return {
        "rule": rule,
        "n": n,
        "climbs": len(climbs),
        "false_trigger": _share([s.said == "plateau" for s in reachable]),
        "missed_plateau": _share([s.said != "plateau" for s in hopeless]),
        "wrong_reached": _share([s.said == "reached" and s.truth < c.target for c, s in both]),
        "indecisive": _share([s.said in ("indecisive", "exhausted") for s in stops]),
        "rungs": round(sum(s.rungs for s in stops) / len(stops), 2),
    }


def _share(hits: Sequence[bool]) -> float:
    return round(sum(hits) / len(hits), 3) if hits else 0.0


def main(
    json_: Annotated[bool, typer.Option("--json")] = False, climbs: int = 300, seed: int = 0
) -> None:
    tables: dict[str, list[dict[str, float | int | str]]] = {"simulated": [], "recorded": []}
    for n in SIZES:
        rng = np.random.default_rng([seed, n])
        drawn = [simulated(rng, n) for _ in range(climbs)]
        tables["simulated"] += [row(rule, n, drawn) for rule in RULES]
    for n in (30, 50) if RECORDED.is_file() else ():
        rng = np.random.default_rng([seed, n])
        drawn = [climb for _ in range(max(1, climbs // 40)) for climb in recorded(rng, n)]
        tables["recorded"] += [row(rule, n, drawn) for rule in RULES]
    if json_:
        print(
            json.dumps(
                [
                    {"climbs_from": source, **found}
                    for source, rows in tables.items()
                    for found in rows
                ],
                indent=1,
            )
        )
        return
    for source, rows in tables.items():
        # so that 80 columns hold them
        names = [name.split("_")[0] for name in rows[0]] if rows else []
        table = Table(*names, title=f"{source} climbs", box=None, title_justify="left")
        for found in rows:
            table.add_row(*map(str, found.values()))
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
