"""Do rows that `optimize label` chooses teach more than rows drawn at random? Public rows; no LM.

python -m bench.label --seeds 24    # five minutes on a core of its own
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import dspy
import typer
from rich.console import Console
from rich.table import Table
from sklearn.naive_bayes import ComplementNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from bench.drift import CLINC, FEW, rows_of
from bench.public_sets import _metric, _signature
from optimize.commands.label import picked
from optimize.data.labels import classifier
from optimize.data.spread import spread
from optimize.data.words import Words
from optimize.scoring.disagreement import disagreement
from optimize.stats.intervals import paired_gain
from optimize.task import Task

START, STEP, ROUNDS = 60, 20, 3  # train rows at first; chosen a round; rounds
ASKED = 200  # rows of the pool that the programs answer, a round
TEST = 400
Row = dict[str, str]


SETS: dict[str, list[Row]] = {
    "12 intents of banking77": FEW,
    "clinc_domain10": CLINC,
    "query_wellformedness": rows_of("query_wellformedness", "train", "dev", "test"),
}


@dataclass
class State:
    """What may be learnt from, what may be chosen, and a seed of the round's own."""

    task: Task
    train: list[Row]
    pool: list[Row]
    seed: int


Choose = Callable[[State], list[int]]


def texts(rows: Sequence[Row]) -> list[str]:
    return [row["text"] for row in rows]


def labels(rows: Sequence[Row]) -> list[str]:
    return [row["label"] for row in rows]


def programs() -> list[Any]:
    """Three that differ as a climb's programs do; the first one is the best."""
    near = KNeighborsClassifier(1, metric="cosine")
    return [classifier(), make_pipeline(Words(), near), make_pipeline(Words(), ComplementNB())]


def drawn(state: State) -> list[int]:
    return random.Random(state.seed).sample(range(len(state.pool)), STEP)


def spread_alone(state: State) -> list[int]:
    at = random.Random(state.seed).sample(range(len(state.pool)), min(2000, len(state.pool)))
    found = Words().fit_transform([state.pool[n]["text"] for n in at])
    return [at[n] for n in spread(found, [1.0] * len(at), STEP, state.seed)]


def _asked(state: State) -> list[int]:
    return random.Random(state.seed).sample(range(len(state.pool)), min(ASKED, len(state.pool)))


def _apart(state: State, rows: list[Row]) -> list[float | None]:
    answers = [
        model.fit(texts(state.train), labels(state.train)).predict(texts(rows))
        for model in programs()
    ]
    given = [[{"label": str(said[n])} for said in answers] for n in range(len(rows))]
    return [
        disagreement(state.task, dspy.Example(**row), some)
        for row, some in zip(rows, given, strict=True)
    ]


def committee(state: State) -> list[int]:
    """As the command chooses where a run has three programs."""
    at = _asked(state)
    rows = [state.pool[n] for n in at]
    nobody: list[float | None] = [None] * len(rows)
    vectors = Words().fit_transform(texts(rows))
    return [at[n] for n, _ in picked(vectors, _apart(state, rows), nobody, STEP, state.seed)]


def without_spread(state: State) -> list[int]:
    """The same, but those that most disagree, however alike."""
    at = _asked(state)
    apart = _apart(state, [state.pool[n] for n in at])
    order = sorted(range(len(at)), key=lambda n: -(apart[n] or 0.0))
    return [at[n] for n in order[:STEP]]


def champion_alone(state: State) -> list[int]:
    """As the command chooses where one program tells how sure it is."""
    at = _asked(state)
    rows = [state.pool[n] for n in at]
    model = classifier().fit(texts(state.train), labels(state.train))
    sure = [float(max(p)) for p in model.predict_proba(texts(rows))]
    nothing: list[float | None] = [None] * len(rows)
    vectors = Words().fit_transform(texts(rows))
    return [at[n] for n, _ in picked(vectors, nothing, sure, STEP, state.seed)]


WAYS: dict[str, Choose] = {
    "at random": drawn,
    "spread alone (--no-lm)": spread_alone,
    "three programs, spread": committee,
    "three programs, not spread": without_spread,
    "one program, how sure": champion_alone,
}


def learnt(name: str, way: str, seed: int) -> dict[tuple[str, int], float]:
    """Accuracy of each model after each round."""
    rng = random.Random(f"{name} {seed}")
    rows = rng.sample(SETS[name], len(SETS[name]))
    test, train, pool = rows[:TEST], rows[TEST : TEST + START], rows[TEST + START :]
    task = Task(
        signature=_signature("", tuple(sorted(set(labels(rows))))), metric=_metric, name="bench"
    )
    found = {}
    for number in range(1, ROUNDS + 1):
        taken = set(WAYS[way](State(task, train, pool, seed * 100 + number)))
        train = train + [pool[n] for n in sorted(taken)]
        pool = [row for n, row in enumerate(pool) if n not in taken]
        for model, fitted in zip(("regression", "nearest"), programs()[:2], strict=True):
            answers = fitted.fit(texts(train), labels(train)).predict(texts(test))
            right = [a == g for a, g in zip(answers, labels(test), strict=True)]
            found[model, number * STEP] = fmean(right)
    return found


def main(seeds: int = 40, name: str = "") -> None:
    table = Table("set, model", "rows chosen", *WAYS, box=None)
    for one in SETS:
        if name not in one:
            continue
        by_way = {way: [learnt(one, way, seed) for seed in range(seeds)] for way in WAYS}
        first, *others = WAYS
        for model, many in by_way[first][0]:
            base, *rest = ([run[model, many] for run in by_way[way]] for way in (first, *others))
            gains = [paired_gain(base, scores) for scores in rest]
            cells = [
                f"{100 * g.mean:+.1f} [{100 * g.low:+.1f}, {100 * g.high:+.1f}]" for g in gains
            ]
            table.add_row(f"{one}, {model}", str(many), f"{100 * fmean(base):.1f}", *cells)
            print(one, model, many, fmean(base), cells, file=sys.stderr)
    Console(width=190).print(table)


if __name__ == "__main__":
    typer.run(main)
