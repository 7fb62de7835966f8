"""Our levers that look for demos against DSPy's optimizers: same LM, prompt format, rows and seeds;
held-out score and LM calls.

    python -m bench.search [--lm NAME [--api-base URL]] [--seeds 5] [--methods NAME …]
        [--sets NAME …]

Over an hour on two slow cores; goes on where it was stopped (search.jsonl).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy

from bench.printed import printed
from bench.public_sets import NAMES, PublicSet, hotpotqa, public_set
from optimize import lm as lms
from optimize.catalogue import EMBEDDED
from optimize.climb.rungs import Context
from optimize.climb.rungs.base import fresh, hushed
from optimize.climb.rungs.demos import SOME, nearest
from optimize.climb.rungs.search import candidates
from optimize.config import RunConfig
from optimize.data.rows import load_splits
from optimize.lm.meter import Meter
from optimize.program.program import Program, student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.scoring.metrics import feedback_metric, float_metric
from optimize.stats.intervals import mean_interval, paired_gain
from optimize.task import load_task

FILE = Path(__file__).parent / "search.jsonl"
SETS = ("clinc_domain10", "banking77_12")
# rows to draw demos from, to compare candidates on; at most, to score the winner on
ROWS = dict.fromkeys(NAMES, (80, 40)) | {"hotpotqa": (40, 20), "extract": (80, 40)}
TEST = 100
DSPY_CANDIDATES = 8
RACED = 16  # candidates of our own search
GEPA_CALLS = 480  # of the metric, about what the other two take


def raced(
    program: Program, context: Context, pool: list[dspy.Example], search: list[dspy.Example]
) -> Program:
    stream = candidates(program, context, pool, search)
    return context.best([next(stream) for _ in range(RACED)], search)


def random_search(
    program: Program, context: Context, pool: list[dspy.Example], search: list[dspy.Example]
) -> Program:
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=float_metric(context.task),
        max_bootstrapped_demos=4,
        max_labeled_demos=SOME,
        num_candidate_programs=DSPY_CANDIDATES,
        num_threads=context.threads,
        max_errors=1000,
    )
    shuffled = random.Random(context.seed).sample(pool, len(pool))  # its own seeds are fixed
    found: Program = optimizer.compile(fresh(program), trainset=shuffled, valset=search)
    return found


def mipro(
    program: Program, context: Context, pool: list[dspy.Example], search: list[dspy.Example]
) -> Program:
    optimizer = dspy.MIPROv2(
        metric=float_metric(context.task),
        prompt_model=context.teacher,
        auto=None,
        num_candidates=5,
        max_bootstrapped_demos=4,
        max_labeled_demos=SOME,
        num_threads=context.threads,
        max_errors=1000,
        seed=context.seed + 1,
        verbose=False,
    )
    arguments = {
        "num_trials": DSPY_CANDIDATES,
        "minibatch": False,
        "program_aware_proposer": False,
        "view_data_batch_size": 5,
    }
    found: Program = optimizer.compile(fresh(program), trainset=pool, valset=search, **arguments)
    return found


def gepa(
    program: Program, context: Context, pool: list[dspy.Example], search: list[dspy.Example]
) -> Program:
    optimizer = dspy.GEPA(
        metric=feedback_metric(context.task),
        max_metric_calls=GEPA_CALLS,
        reflection_lm=context.teacher,
        num_threads=context.threads,
        seed=context.seed,
    )
    found: Program = optimizer.compile(fresh(program), trainset=pool, valset=search)
    return found


def nearest_rows(
    program: Program, context: Context, pool: list[dspy.Example], search: list[dspy.Example]
) -> Program:
    return nearest(program, replace(context, search=len(search)))


Search = Callable[[Program, Context, list[dspy.Example], list[dspy.Example]], Program]
METHODS: dict[str, Search] = {
    "nearest demos (ours)": nearest_rows,
    "raced search (ours)": raced,
    "BootstrapFewShotWithRandomSearch": random_search,
    "MIPROv2": mipro,
    "GEPA": gepa,
}


def loaded(name: str) -> PublicSet:
    """A set of labels, hotpotqa with its passages given, or a task of this project."""
    if name in NAMES or name == "hotpotqa":
        return hotpotqa() if name == "hotpotqa" else public_set(name)
    task = load_task(name, FILE.parents[1])
    splits = load_splits(task)
    return PublicSet(task, (*splits.train, *splits.val), splits.test)


def measured(
    data: PublicSet, method: str, seed: int, lm_name: str, api_base: str | None
) -> dict[str, Any]:
    """One search from a fresh cache: the calls it asked for, and its winner's scores on the
    held-out rows.
    """
    most, compared = ROWS[data.task.name]
    rows = random.Random(seed).sample(data.learn, most + compared)
    pool, search = rows[:most], rows[most:]
    meter = Meter(100_000)
    with tempfile.TemporaryDirectory() as folder:
        lms.configure(Path(folder))
        config = RunConfig(lm=lm_name)
        lm, teacher = (
            lms.resolve(lm_name, api_base, config, meter, tokens)
            for tokens in (data.task.max_tokens, lms.PROPOSAL_TOKENS)
        )
        context = Context(data.task, tuple(rows), teacher, 100_000, 1.0, 4, seed)
        program = student(data.task)
        program.format = "compact"
        with dspy.context(lm=lm), hushed():
            best = METHODS[method](program, context, pool, search)
            calls = meter.usage().asked
            scores = evaluate(best, data.score[:TEST], Asking(data.task, threads=4)).scores
    return {
        "lm": lm_name,
        "task": data.task.name,
        "method": method,
        "seed": seed,
        "calls": calls,
        "scores": scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lm", default=EMBEDDED)
    parser.add_argument("--api-base", help="its address; the key is OPTIMIZE_API_KEY")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sets", nargs="+", choices=ROWS, default=SETS)
    parser.add_argument("--file", type=Path, default=FILE, help="what is kept")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    kept: Path = given.file
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    sets = {name: loaded(name) for name in given.sets}
    for seed in range(given.seeds):
        for name, data in sets.items():
            for method in given.methods:
                which = (given.lm, name, method, seed)
                if not any((d["lm"], d["task"], d["method"], d["seed"]) == which for d in done):
                    done.append(measured(data, method, seed, given.lm, given.api_base))
                    with kept.open("a") as file:
                        file.write(json.dumps(done[-1]) + "\n")
    asked = [d for d in done if d["seed"] < given.seeds and d["lm"] == given.lm]
    rows = [row(asked, name, method) for name in given.sets for method in given.methods]
    printed(rows, f"{given.lm}, {given.seeds} seeds, at most {TEST} held-out rows", given.json)


def row(done: list[dict[str, Any]], task: str, method: str) -> dict[str, str | float]:
    """Means over seeds.

    gain: our nearest demos over this method, each row's score averaged over the seeds, paired.
    """

    def by_row(name: str) -> list[float]:
        runs = [d["scores"] for d in done if (d["task"], d["method"]) == (task, name)]
        return [sum(s or 0 for s in scores) / len(scores) for scores in zip(*runs, strict=True)]

    calls = [d["calls"] for d in done if (d["task"], d["method"]) == (task, method)]
    first = next(iter(METHODS))
    theirs, ours = by_row(method), by_row(first)
    score, gain = mean_interval(theirs), paired_gain(theirs, ours) if ours else None
    return {
        "task": task,
        "method": method,
        "test score": f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]",
        "LM calls": round(sum(calls) / len(calls)),
        f"{first} minus this": ""
        if gain is None or method == first
        else f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
    }


if __name__ == "__main__":
    main()
