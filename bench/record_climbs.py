"""Record real climbs on the embedded LM: every program's score on every row, for bench/verdict.py
to replay.

python bench/record_climbs.py      # about two hours on two slow cores; goes on where it was
stopped; writes bench/climbs.jsonl
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dspy

from bench.public_sets import NAMES, PublicSet, public_set
from optimize import lm as lms
from optimize.climb.rungs import Context
from optimize.climb.rungs.base import fresh
from optimize.climb.rungs.demos import spread, with_demos, with_nearest
from optimize.climb.rungs.search import with_instructions
from optimize.lm import weights
from optimize.lm.meter import Meter
from optimize.program.program import Program, student
from optimize.scoring.evaluate import Asking, evaluate

FILE = Path(__file__).parent / "climbs.jsonl"
CLIMBS = {"banking77_12": 6, "clinc_domain10": 16, "query_wellformedness": 18}
# rows a climb learns from, drawn anew for each; rows it is scored on, the same for all
LEARN, ROWS = 150, 120
HINTS = (
    "Look for what the person wants, not for single words.",
    "Choose the most specific answer that fits.",
    "If two answers fit, choose the one a colleague would expect.",
    "Read the text to its end before you answer.",
    "Answer with exactly one of the choices.",
)


def main() -> None:
    done = (
        {(c["task"], c["seed"]) for c in map(json.loads, FILE.read_text().splitlines())}
        if FILE.is_file()
        else set()
    )
    base = weights.pull_embedded(print)
    sets = {name: public_set(name) for name in NAMES}
    for seed in range(max(CLIMBS.values())):
        for name in NAMES:
            if seed < CLIMBS[name] and (name, seed) not in done:
                with tempfile.TemporaryDirectory() as folder:
                    lms.configure(Path(folder))
                    lm = lms.local_lm(base, None, Meter(100_000), 24)
                    with dspy.context(lm=lm), FILE.open("a") as file:
                        scores = dict(attempts(sets[name], seed, lm))
                        file.write(
                            json.dumps({"task": name, "seed": seed, "scores": scores}) + "\n"
                        )
                print(
                    name,
                    seed,
                    {rung: round(row.count("1") / len(row), 2) for rung, row in scores.items()},
                    flush=True,
                )


def attempts(data: PublicSet, seed: int, lm: dspy.LM) -> Iterator[tuple[str, str]]:
    """(rung, its scores as a string of 0, 1 and ?

    for a failed call), each rung built on the best so far.
    """
    rng = random.Random(seed)
    learn, rows = rng.sample(data.learn, LEARN), data.score[:ROWS]
    best, highest = student(data.task), -1.0
    best.format = "compact"
    for rung in (
        "zero_shot",
        "four_demos",
        "proposed_instruction",
        "twelve_demos",
        "nearest_demos",
        "hint",
    ):
        program = pull(rung, best, data, learn, seed, lm)
        scores = evaluate(program, rows, Asking(data.task, threads=4)).scores
        yield rung, "".join("?" if s is None else str(int(s)) for s in scores)
        mean = sum(s or 0 for s in scores) / len(scores)
        if mean > highest:
            best, highest = program, mean


def pull(
    rung: str, best: Program, data: PublicSet, learn: list[dspy.Example], seed: int, lm: dspy.LM
) -> Program:
    rng = random.Random(f"{seed}{rung}")
    if rung in ("four_demos", "twelve_demos"):
        return with_demos(best, spread(learn, data.task, 4 if rung == "four_demos" else 12, rng))
    if rung == "nearest_demos":
        return with_nearest(best, Context(data.task, tuple(learn), lm, 1000, 1.0, 4, seed), 2)
    if rung == "zero_shot":
        return fresh(best)
    told = best.predictors()[0].signature.instructions
    hint = rng.choice(HINTS) if rung == "hint" else proposal(told, learn[:3], seed, lm)
    return with_instructions(best, f"{told} {hint}")


def proposal(told: str, examples: list[dspy.Example], seed: int, lm: dspy.LM) -> str:
    """One more sentence of instruction, as the LM itself would write it."""
    shown = "\n".join(f"{e.text} -> {e.label}" for e in examples)
    question = (
        f"An instruction says: {told}\nExamples:\n{shown}\nWrite one sentence that makes the "
        "instruction clearer."
    )
    return (
        str(lm(question, temperature=1.0, rollout_id=seed + 1, max_tokens=40)[0])
        .strip()
        .split("\n")[0]
    )


if __name__ == "__main__":
    main()
