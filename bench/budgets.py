"""One climb at several caps of calls: does more of them ever make a result worse?

    python -m bench.budgets [--lm NAME [--api-base URL]] [--sets NAME …] [--budgets 400 1500 5000]
        [--seed 0] --keep DIR

Each cap is an `optimize run` of its own in one project a set, smallest first, so that answers which
a smaller one has paid for are not asked again (they count as calls all the same). What each ends
with is scored on rows that no climb has seen. Goes on where it was stopped, from the projects'
stores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import dspy

from bench.peers_cell import QUIET, TaskRows, task_text
from bench.printed import printed
from bench.public_sets import NAMES, apart, plain_rows, public_set
from optimize import load_program
from optimize.catalogue import EMBEDDED
from optimize.files import read_jsonl, write_jsonl
from optimize.scoring.evaluate import Asking, evaluate
from optimize.stats.intervals import known, mean_interval, paired_gain
from optimize.store.listing import listed
from optimize.task import choices, load_task

TOKENS = 24  # of an answer
HELD = "held.jsonl"  # in a set's project


def main() -> None:
    given = arguments()
    table: list[dict[str, Any]] = []
    for name in given.sets:
        project = given.keep.resolve() / name
        if not project.is_dir():
            written(project, name, given)
        done: list[dict[str, Any]] = []
        for budget in given.budgets:
            kept = project / f"{budget}.json"
            if not kept.is_file():
                kept.write_text(json.dumps(climbed(project, name, budget, given)))
            done.append(json.loads(kept.read_text()))
        table += rows(name, given.budgets, done)
        printed(table, f"{given.lm}, {given.train} train, {given.val} val rows", given.json)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--lm", default=EMBEDDED)
    add("--api-base", help="address of a hosted LM's endpoint; its key is OPTIMIZE_API_KEY")
    add("--seed", type=int, default=0, help="of the rows that are drawn, and of the climb")
    add("--threads", type=int, default=4)
    add("--sets", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    add("--budgets", nargs="+", type=int, default=[400, 1500, 5000])
    add("--train", type=int, default=300)
    add("--val", type=int, default=100)
    add("--test", type=int, default=60)
    add("--held", type=int, default=100, help="rows beyond these, to score what a climb ends with")
    add("--keep", type=Path, required=True, help="the projects, a folder a set")
    add("--json", action="store_true")
    return parser.parse_args()


def written(project: Path, name: str, given: argparse.Namespace) -> None:
    data = public_set(name)
    learn, test = plain_rows(data)
    test, beyond = test[: given.test], test[given.test : given.test + given.held]
    learn = apart(learn, test + beyond)
    learn = random.Random(given.seed).sample(learn, min(len(learn), given.train + given.val))
    signature = data.task.signature
    labels = choices(signature.output_fields["label"].annotation)
    sides = {"val": learn[: given.val], "train": learn[given.val :], "test": test}
    devset = project / "devsets" / name
    devset.mkdir(parents=True)
    for side, some in sides.items():
        write_jsonl(devset / f"{side}.jsonl", some)
    write_jsonl(project / HELD, beyond)
    (project / "programs").mkdir()
    rows = TaskRows(name, signature.instructions, labels, train=[], val=[], test=[])
    (project / "programs" / f"{name}.py").write_text(task_text(rows, TOKENS))


def climbed(project: Path, name: str, budget: int, given: argparse.Namespace) -> dict[str, Any]:
    """The run's report, and its program's score on each held-out row."""
    words = f"-m optimize run {name} --lm {given.lm} --max-calls {budget} --target 1 --json"
    words += f" --finetune never --seed {given.seed} --threads {given.threads}"
    where = ["--api-base", given.api_base] if given.api_base else []
    command = [sys.executable, *words.split(), *where]
    ended = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, env=environment())
    if ended.returncode not in (0, 1):
        sys.exit(f"{name} at {budget} calls ended with {ended.returncode}")
    report = json.loads(ended.stdout)
    return {"report": report, "scores": scored(project, name, given.threads)}


def scored(project: Path, name: str, threads: int) -> tuple[float | None, ...]:
    saved = project / "mlruns/programs" / name / f"{listed(project, name)[0].found.id}.json"
    program = load_program(saved, root=project)
    rows = [dspy.Example(row).with_inputs("text") for _, row in read_jsonl(project / HELD)]
    return evaluate(program, rows, Asking(load_task(name, project), threads)).scores


def environment() -> dict[str, str]:
    return {**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parents[1])}


def rows(name: str, budgets: list[int], done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gains = ["", *(gain(some, more) for some, more in pairwise(done))]
    return [
        {
            "set": name,
            "cap": budget,
            "calls": found["report"]["lm_calls"],
            "verdict": found["report"]["verdict"],
            "levers tried": sum(a["val"] is not None for a in found["report"]["attempts"]),
            "built on last": found["report"]["numbers"]["rung"],
            "val": f"{found['report']['numbers']['best']['score']:.2f}",
            "held-out score": told(mean_interval(known(found["scores"]))),
            "more than the cap before": more,
        }
        for budget, found, more in zip(budgets, done, gains, strict=True)
    ]


def gain(some: dict[str, Any], more: dict[str, Any]) -> str:
    return told(paired_gain(some["scores"], more["scores"]), "+")


def told(found: Any, sign: str = "") -> str:
    return f"{found.mean:{sign}.2f} [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


if __name__ == "__main__":
    main()
