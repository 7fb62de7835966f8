"""DSPy's optimizers as their documentation shows them, each sized to a budget of LM calls: a worker
of bench/peers.py.

    python -m bench.peers_dspy JOB.json PROGRAM.json

Knows neither the held-out rows nor the other methods.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dspy

from optimize.lm.endpoint import declare_endpoint
from optimize.program.formats import FORMATS
from optimize.scoring.metrics import feedback_metric, float_metric
from optimize.task import Task, load_task

Format = Literal["chat", "compact"]
Rows = list[dspy.Example]
ERRORS = 100_000  # of an LM, which a metric scores 0: no optimizer is to end by them


@dataclass(frozen=True)
class Job:
    """What one method works with. budget: LM calls. reflection: the same LM, with room to write."""

    task: Task
    train: Rows
    val: Rows
    budget: int
    seed: int
    threads: int
    reflection: dspy.LM


def random_search(student: dspy.Module, job: Job) -> dspy.Module:
    """A candidate is asked on the val rows, and some eight calls find its demos; three are free of
    demos of its own making.
    """
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=float_metric(job.task),
        max_bootstrapped_demos=4,
        max_labeled_demos=4,
        num_candidate_programs=max(1, job.budget // (len(job.val) + 8) - 3),
        num_threads=job.threads,
        max_errors=ERRORS,
    )
    # its own seeds are fixed: the order of the rows is what a seed changes
    shuffled = random.Random(job.seed).sample(job.train, len(job.train))
    return optimizer.compile(student, trainset=shuffled, valset=job.val)


def mipro(student: dspy.Module, job: Job) -> dspy.Module:
    """auto="light" sizes itself: ten trials for one predictor, so 11 passes over the val rows."""
    optimizer = dspy.MIPROv2(
        metric=float_metric(job.task),
        auto="light",
        num_threads=job.threads,
        max_errors=ERRORS,
        seed=job.seed + 1,  # it takes 0 for none
        prompt_model=job.reflection,
        verbose=False,
    )
    return optimizer.compile(student, trainset=job.train, valset=job.val)


def gepa(student: dspy.Module, job: Job) -> dspy.Module:
    optimizer = dspy.GEPA(
        metric=feedback_metric(job.task),
        max_metric_calls=job.budget,
        reflection_lm=job.reflection.copy(temperature=1.0),
        num_threads=job.threads,
        seed=job.seed,
    )
    return optimizer.compile(student, trainset=job.train, valset=job.val)


def simba(student: dspy.Module, job: Job) -> dspy.Module:
    """It takes one set, so all rows. A step asks a batch of each sample and of each program made of
    them, one more; at the end the first program and each step's best are asked on all rows.
    """
    rows = job.train + job.val

    def steps(batch: int, candidates: int) -> int:
        step = (2 * candidates + 1) * batch + candidates + 1
        return (job.budget - len(rows)) // (step + len(rows))

    batch, candidates = 32, 6  # its authors'
    if steps(batch, candidates) < 2:
        batch, candidates = min(16, len(rows)), 3
    optimizer = dspy.SIMBA(
        metric=float_metric(job.task),
        bsize=batch,
        num_candidates=candidates,
        max_steps=min(8, max(2, steps(batch, candidates))),
        max_demos=4,
        prompt_model=job.reflection,
        num_threads=job.threads,
    )
    return optimizer.compile(student, trainset=rows, seed=job.seed)


def as_it_is(student: dspy.Module, job: Job) -> dspy.Module:
    return student


Method = Callable[[dspy.Module, Job], dspy.Module]
METHODS: dict[str, Method] = {
    "DSPy, not optimized": as_it_is,
    "BootstrapFewShotWithRandomSearch": random_search,
    "MIPROv2 light": mipro,
    "DSPy GEPA": gepa,
    "SIMBA": simba,
}


def loopback_lm(url: str, model: str, tokens: int, form: Format, **options: Any) -> dspy.LM:
    """The LM at our address. In the compact format the server constrains the answer."""
    options = {"temperature": 0.0, "max_tokens": tokens, "api_key": "none", **options}
    if form == "chat":
        return dspy.LM(f"openai/{model}", api_base=url, **options)
    lm = dspy.LM(declare_endpoint(model, url), **options)
    lm.any_schema = True
    return lm


def setting(lm: dspy.LM, form: Format) -> Any:
    """DSPy's settings for a program: its own prompt format, or ours."""
    return dspy.context(lm=lm, **({"adapter": FORMATS[form]} if form != "chat" else {}))


def main() -> None:
    given, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    cached = bool(given["dspy_cache"])  # of a folder of this run's own
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=cached)
    task = load_task(given["task"], Path(given["project"]))
    url, model, form = given["url"], given["model"], given["format"]
    lm = loopback_lm(url, model, task.max_tokens, form, cache=cached)
    train, val = (
        [dspy.Example(**row).with_inputs("text") for row in given[side]]
        for side in ("train", "val")
    )
    job = Job(
        task=task,
        train=train,
        val=val,
        budget=given["budget"],
        seed=given["seed"],
        threads=given["threads"],
        reflection=loopback_lm(url, model, given["room"], "chat", cache=cached),
    )
    dspy.configure(max_errors=ERRORS)
    with setting(lm, form):
        found = METHODS[given["method"]](dspy.Predict(task.signature), job)
    out.write_text(json.dumps({"program": found.dump_state()}))


if __name__ == "__main__":
    main()
