"""The use case `label`, first half: which rows of a file to label next."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import dspy

from optimize.climb.observer import Observer
from optimize.commands.in_use import Cost, InUse, check_cap, cost, in_use
from optimize.commands.lock import task_lock
from optimize.commands.session import load_task_and_rows
from optimize.config import RunConfig, load_config
from optimize.data.inputs import input_text
from optimize.data.pool import Pool, read_pool
from optimize.data.rows import Splits
from optimize.data.split import Inputs
from optimize.data.spread import spread
from optimize.data.stream import Rows
from optimize.errors import WorkbenchError
from optimize.program.program import Program, parse_program
from optimize.program.votes import sampled
from optimize.report.labelling import LEFT_OUT, Choice, ChosenRow, Why, label_plan
from optimize.scoring.disagreement import disagreement, told
from optimize.scoring.evaluate import evaluate
from optimize.scoring.evaluation import Evaluation
from optimize.scoring.metrics import scoring_labelled
from optimize.stats.intervals import known
from optimize.store.read import NoRun
from optimize.store.rungs import RungRun, rungs
from optimize.task import PLACE, Task, load_task

RIVALS = 2  # programs that are asked beside the champion
SAMPLES = 2  # answers beside the first one, where one program is all there is


@dataclass(frozen=True)
class Wish:
    """What is to be chosen. next: how many rows. ask: rows that the programs are asked at most.
    flags: knobs that were given; lm, api_base: another LM than the one on record.
    """

    task: str
    rows: Path
    next: int = 20
    ask: int = 200
    no_lm: bool = False
    lm: str | None = None
    api_base: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """guesses: what the champion answered to each chosen row; None: it was not asked, or failed."""

    choice: Choice
    guesses: list[dict[str, Any] | None]


def choose(root: Path, wish: Wish, watch: Observer, skipped: Sequence[Inputs] = ()) -> Chosen:
    """The rows to label next: those that the programs on record answer differently, spread over
    all kinds of rows; without a program, or an LM, spread alone.

    The programs are a committee (Seung, Opper & Sompolinsky 1992): the champion and the next best
    ones of its run. A champion alone is asked how sure it is of its answer (least confidence:
    Lewis & Gale 1994), or, of an LM that does not tell, three times. How rows are spread is said in
    optimize.data.spread. skipped: rows that nobody could label, by their inputs.

    Raises WorkbenchError where no row is left, or the LM cannot be asked.
    """
    Rows(wish.rows)  # before anything is loaded
    task = load_task(wish.task, root)
    found, config = None, load_config(root, **wish.flags)
    if not wish.no_lm:
        try:
            asked = [(wish.lm, wish.api_base)]
            found, (config,) = in_use(root, wish.task, wish.flags, watch, asked)
        except NoRun:
            watch.noted(f"No run of {task.name} yet: rows are chosen by being unlike, no LM asked.")
    splits = found.session.splits if found else load_task_and_rows(root, wish.task, config)[1]
    pool = _pool(task, wish, splits, skipped, config.seed)
    if found is None:
        return _spread_alone(task, wish, pool, config.seed)
    watch.counts(found.session.meter, config.in_flight)
    with task_lock(found.session, "label") as session:
        return _asked(replace(found, session=session), config, wish, pool)


def _pool(task: Task, wish: Wish, splits: Splits, skipped: Sequence[Inputs], seed: int) -> Pool:
    pool = read_pool(task, wish.rows, splits.whole or splits, skipped, seed)
    if pool.rows:
        return pool
    left = "; ".join(f"{n} {LEFT_OUT[why]}" for why, n in pool.left_out.items()) or "it is empty"
    problem = f" The first that cannot be read: {pool.problem}" if pool.problem else ""
    raise WorkbenchError(f"{wish.rows} has no row to label: {left}.{problem}")


def _spread_alone(task: Task, wish: Wish, pool: Pool, seed: int) -> Chosen:
    vectors = _words([input_text(task, row) for row in pool.rows])
    rows = spread(vectors, [1.0] * len(pool.rows), wish.next, seed)
    chosen = [_row(pool.rows[n], "spread", None) for n in rows]
    return Chosen(_choice(wish, pool, chosen, programs=[], by="words"), [None] * len(chosen))


def _words(texts: list[str]) -> Any:
    from optimize.data.words import Words

    return Words().fit_transform(texts)


def _choice(wish: Wish, pool: Pool, chosen: list[ChosenRow], **more: Any) -> Choice:
    return Choice(
        task=wish.task,
        file=str(wish.rows),
        rows=pool.total,
        sampled=pool.sampled,
        fit=len(pool.rows),
        left_out=dict(pool.left_out),
        problem=pool.problem,
        chosen=chosen,
        **more,
    )


def _row(row: dspy.Example, why: Why, apart: float | None) -> ChosenRow:
    columns = dict(row)
    return ChosenRow(place=getattr(row, PLACE), columns=columns, why=why, disagreement=apart)


def _asked(found: InUse, config: RunConfig, wish: Wish, pool: Pool) -> Chosen:
    """Of a random sample, which the programs are asked."""
    task, seed = found.session.task, config.seed
    at = sorted(random.Random(seed).sample(range(len(pool.rows)), min(wish.ask, len(pool.rows))))
    rows = [pool.rows[n] for n in at]
    if len(rows) < min(wish.next, len(pool.rows)):
        few = f"Chosen among the {len(rows)} rows that are asked; --ask {wish.next} asks more."
        found.session.watch.noted(few)
    with found.asking(config):
        programs = _programs(found, config)
        given = _answers(found, config, programs, rows)
        by, vectors = _vectors(found, programs[0][1], task, rows)
    answers = [[told(task, one.outcomes[n]) for one in given] for n in range(len(rows))]
    apart = [disagreement(task, row, some) for row, some in zip(rows, answers, strict=True)]
    sure = [outcome.confidence for outcome in given[0].outcomes]
    taken = picked(vectors, apart, sure, wish.next, seed)
    usage = found.session.meter.usage()
    choice = _choice(
        wish,
        pool,
        [_row(rows[n], why, apart[n]) for n, why in taken],
        programs=[name for name, _ in programs],
        asked=len(rows),
        failed=sum(a is None and s is None for a, s in zip(apart, sure, strict=True)),
        disagreed=sum(bool(a) for a in apart),
        by=by,
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
    )
    return Chosen(choice, [answers[n][0] for n, _ in taken])


def _programs(found: InUse, config: RunConfig) -> list[tuple[str, Program]]:
    """The champion, and the next best programs of its run that are others than it."""
    task, best = found.session.task, json.loads(found.text)
    programs = [("champion", found.program(config))]
    seen = [{**best, "lm": None}]
    for rung in sorted(_made(found), key=_val, reverse=True):
        state = json.loads(text := rung.text("program.json"))
        if state.get("tuned") or {**state, "lm": None} in seen:
            continue
        seen.append({**state, "lm": None})
        with suppress(WorkbenchError):  # for fields that the task no longer has
            programs.append((rung.rung, parse_program(task, text, rung.found.name, _no_weights)))
        if len(programs) > RIVALS:
            break
    return programs


def _made(found: InUse) -> list[RungRun]:
    """The rungs of the champion's run that made a program."""
    return [rung for rung in rungs(found.run) if not rung.why]


def _val(rung: RungRun) -> float:
    """The mean score on the val rows it was asked; that of none is 0."""
    with suppress(WorkbenchError):
        return fmean(known([row.score for row in rung.rows()]) or [0.0])
    return 0.0


def _no_weights(tuned: str) -> Any:
    raise WorkbenchError(f"{tuned} is not asked here.")


def _answers(
    found: InUse, config: RunConfig, programs: list[tuple[str, Program]], rows: list[dspy.Example]
) -> list[Evaluation]:
    """What each program answers; a single one of an LM that does not tell how sure it is, asked
    more than once.
    """
    session, total = found.session, Cost(0, 0.0)
    for _, program in programs:
        total += cost(program, rows, config)
    check_cap(total, config, "--ask")
    names = [name for name, _ in programs]
    session.watch.noted(label_plan(len(rows), names, total.calls, total.usd))
    asking = replace(session.asking, task=scoring_labelled(session.task), threads=config.in_flight)
    given = []
    for name, program in programs:
        session.watch.started(f"rows, {name}")
        given.append(evaluate(program, rows, asking))
    silent = all(outcome.confidence is None for outcome in given[0].outcomes)
    for number in range(1, SAMPLES + 1) if len(programs) == 1 and silent else ():
        session.watch.started(f"rows, once more ({number} of {SAMPLES})")
        program, lm = programs[0][1], programs[0][1].lm
        program.lm = sampled(lm or dspy.settings.lm, number)
        given.append(evaluate(program, rows, asking))
        program.lm = lm
    return given


def _vectors(
    found: InUse, champion: Program, task: Task, rows: list[dspy.Example]
) -> tuple[str, Any]:
    """What tells rows apart, and their vectors: the embedder of the program, or of the project."""
    texts, parts = [input_text(task, row) for row in rows], (champion.neighbours, champion.passages)
    used = [part.embedder for part in parts if part and part.embedder]
    if embedder := next(iter(used), found.session.embedder):
        return f"the embedder {embedder.name}", embedder.vectors(texts)
    return "words", _words(texts)


def picked(
    vectors: Any,
    apart: Sequence[float | None],
    sure: Sequence[float | None],
    k: int,
    seed: int,
) -> list[tuple[int, Why]]:
    """Numbers of the rows, and why. Where the programs differ on fewer than k rows, the rest are
    those of which the champion is less sure, or any.
    """
    first = spread(vectors, [a or 0.0 for a in apart], k, seed)
    found: list[tuple[int, Why]] = [(n, "disagree") for n in first]
    why: Why = "spread" if all(s is None for s in sure) else "unsure"
    taken = set(first)
    rest = [0.0 if n in taken else _unsure(s) for n, s in enumerate(sure)]
    if len(first) < k:
        found += [(n, why) for n in spread(vectors, rest, k - len(first), seed)]
    return sorted(found)


def _unsure(sure: float | None) -> float:
    """Never 0, so that every row may be taken."""
    return 1.0 if sure is None else max(1 - sure, 1e-6)
