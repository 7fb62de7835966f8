"""Train, put the tuned LM into the program, compare it on val, climb on from it a little, and ask
base and tuned LM what must not have been forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import dspy

from optimize import lm as lms
from optimize.climb.observer import Attempt
from optimize.climb.rungs.base import least_calls
from optimize.climb.verdict import WEIGHTS
from optimize.commands.grid import chosen, grid_calls, val_calls
from optimize.commands.lessons import Pupil, lesson_calls, lessons, rehearsal
from optimize.commands.session import Session
from optimize.commands.traces import Traced
from optimize.commands.tuned_levers import lever_calls, levered
from optimize.config import RunConfig
from optimize.data.inputs import input_text
from optimize.errors import BudgetExhausted, WorkbenchError
from optimize.finetune import forgetting, trainer
from optimize.finetune.effects import Pair
from optimize.finetune.epoch import Epoch
from optimize.finetune.forgetting import GENERAL, GENERAL_TOKENS, Answers, ForgettingRecord
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora.recipe import GridRecord
from optimize.finetune.lora.trainings import Trainings
from optimize.finetune.training_rows import chat_rows, tuned_student
from optimize.finetune.tuned import Tuned, better
from optimize.lm.metered import MeteredLM
from optimize.lm.usage import Usage
from optimize.program.program import Program, parse_program, student
from optimize.scoring.evaluate import evaluate
from optimize.scoring.evaluation import Evaluation, alike
from optimize.scoring.metrics import scoring_labelled
from optimize.stats.intervals import paired_gain
from optimize.stats.records import GainRecord
from optimize.store.read import last_run
from optimize.store.write import Run
from optimize.task import Task

MARGIN = 0.05  # by which what must not get worse may get worse, in the mean
SHOWN = 3


@dataclass(frozen=True)
class Trained:
    """A tuned LM that nobody has asked yet. by: who trained it. short: the program it was trained
    for. seconds: of the training; None: it was done elsewhere. began, spent: the clock and the
    meter at its start, so that its cost is counted with it. rows, replayed, grid: as in Tuned.
    """

    tuned: str
    by: str
    short: Program
    began: float
    spent: Usage
    seconds: float | None = None
    epochs: tuple[Epoch, ...] = ()
    rows: int = 0
    replayed: int = 0
    grid: GridRecord | None = None


def tune(
    session: Session,
    tracked: Run,
    best: Program,
    prompt_val: Evaluation,
    traced: Traced | None = None,
) -> Tuned:
    """An LM tuned here, held against the best prompt program.

    tracked: the command's run, in which the training is one. prompt_val: the best prompt program's
    outcomes on val. traced: its right answers step by step, for a program whose steps have no
    labels.
    """
    return held_against(session, best, prompt_val, train(session, tracked, best, traced))


def train(session: Session, tracked: Run, best: Program, traced: Traced | None) -> Trained:
    """Rows made, and the task LM tuned on them by the backend that the configuration names; on
    record from its first step.
    """
    config, backend, watch = session.config, session.config.finetune, session.watch
    start, before = time.perf_counter(), session.meter.usage()
    pupil = Pupil(best, tuned_student(best), traced.traces if traced else None)
    training = trainer(backend)
    base = base_of(config)
    rows, general = lessons(session, pupil), rehearsal(session)
    val = chat_rows(pupil.short, session.splits.val, pupil.traces.val if pupil.traces else None)
    out = session.folder("adapters")
    made_of = {"base": base, "rows": len(rows), "rows_replayed": len(general)}
    watch.started(backend)
    job = TrainingJob([*rows, *general], val, base, out, config, watch.scored, watch.noted)
    counts = len(rows), len(general)
    if config.grid > 1:
        after = _calls_then(session) - val_calls(session)
        found = chosen(session, tracked, pupil.short, Trainings(job), made_of, after)
        seconds = max(time.perf_counter() - start, found.seconds)
        made = pupil.short, start, before, seconds, found.epochs, *counts, found.record
        return Trained(found.tuned, backend, *made)
    with tracked.training(backend, made_of | training.recipe(job)) as log:
        with session.meter.idle():
            tuned: str = training.train(job, log)
        epochs = tuple(training.curve(tuned, out))
        log.trained(tuned, epochs)
    # an adapter that was there has cost as much; a provider's queue is no training
    took = max(time.perf_counter() - start, sum(epoch.seconds for epoch in epochs))
    known = None if backend == "openai" else took
    return Trained(tuned, backend, pupil.short, start, before, known, epochs, *counts)


def base_of(config: RunConfig) -> str:
    """The weights that are tuned: a file, a folder, or a name."""
    return config.finetune_base or str(lms.gguf_path(config.lm) or config.lm.split("/", 1)[1])


def held_against(
    session: Session, best: Program, prompt_val: Evaluation, trained: Trained
) -> Tuned:
    """The tuned LM in two programs, with the short prompt it was trained on and with the best
    prompt, both on val; and where it is better there, in the one that a few levers make of the
    better of these.
    """
    attempts, start, before = list[Attempt](), trained.began, trained.spent
    by, both = trained.by, (trained.short, best.deepcopy())
    for name, program in zip((by, f"{by}, best prompt"), both, strict=True):
        attempt = _asked(session, name, program, trained.tuned, prompt_val)
        usage, took = session.meter.usage() - before, time.perf_counter() - start
        attempts.append(replace(attempt, usage=usage, seconds=took))
        start, before = time.perf_counter(), session.meter.usage()
    prompt_val, *held = alike([prompt_val, *(a.evaluation for a in attempts if a.evaluation)])
    attempts = [
        replace(attempt, evaluation=e, gain=paired_gain(prompt_val.scores, e.scores))
        for attempt, e in zip(attempts, held, strict=True)
    ]
    forgotten = tuple(_forgetting(session, trained.tuned))
    after = 2 * session.config.repeats * least_calls(session.task) * len(session.splits.ood)
    built = levered(session, f"{by}, levers", better(attempts), prompt_val, after)
    attempts.append(built.attempt)
    return Tuned(
        attempts=tuple(attempts),
        prompt_val=prompt_val,
        tuned=trained.tuned,
        train_seconds=trained.seconds,
        epochs=trained.epochs,
        forgetting=forgotten,
        ood=_out_of_distribution(session, best, better(attempts)),
        levers=built.levers,
        rows=trained.rows,
        replayed=trained.replayed,
        grid=trained.grid,
    )


def _asked(
    session: Session, name: str, program: Program, tuned: str, prompt_val: Evaluation
) -> Attempt:
    """The program on the tuned LM, on val."""
    program.tuned = tuned
    program.lm = lms.telling(tuned_lm(session, tuned, session.task.max_tokens))
    session.watch.started(f"{name} on val")
    before = session.meter.usage()
    evaluation = evaluate(program, session.splits.val, session.asking)
    asked = (session.meter.usage() - before).asked
    calls = asked / len(evaluation.outcomes) / session.config.repeats
    gain = paired_gain(prompt_val.scores, evaluation.scores)
    return Attempt(name, WEIGHTS, program, evaluation, gain, calls=calls)


def tuning_calls(session: Session) -> int:
    """What making its rows and comparing tuned LMs takes."""
    return lesson_calls(session) + grid_calls(session) + _calls_then(session)


def _calls_then(session: Session) -> int:
    """What comparing one tuned LM takes: val and test rows for each of two programs, val rows for
    each lever on it, the rest for base and tuned LM.
    """
    rows = len(session.splits.val) + len(session.splits.test)
    others = sum(len(splits.val) for _, splits in session.no_regression_on)
    rows += len(session.splits.ood)
    asked = least_calls(session.task) * session.config.repeats * rows
    both = asked + len(forgetting.questions(session.root)) + others
    return 2 * both + lever_calls(session)


def tuned_lm(session: Session, tuned: str, tokens: int) -> MeteredLM:
    """The LM of an adapter file, or of a provider's model."""
    return lms.adapted_lm(session.config, session.meter, tuned, tokens)


def _out_of_distribution(session: Session, best: Program, tuned: Attempt) -> Pair | None:
    """The ood rows asked of both programs, if there are any."""
    assert tuned.program
    if not session.splits.ood:
        return None
    found, asking = [], replace(session.asking, task=scoring_labelled(session.task))
    for name, program in (("best prompt program", best), ("tuned LM", tuned.program)):
        session.watch.started(f"ood rows, {name}")
        with dspy.context(lm=lms.telling(session.lm)):
            try:
                found.append(evaluate(program, session.splits.ood, asking))
            # the judgement does not rest on them
            except (WorkbenchError, BudgetExhausted) as error:
                session.watch.noted(f"The ood rows were not asked: {error}")
                return None
    return found[0], found[1]


def _forgetting(session: Session, tuned: str) -> Iterator[ForgettingRecord]:
    """The general questions, and each named task, asked of the base and of the tuned LM."""
    asked = forgetting.questions(session.root)

    def questioned(lm: MeteredLM) -> Answers:
        return forgetting.ask(lm, asked, session.config.in_flight, session.watch.scored)

    named = GENERAL in session.config.no_regression_on
    try:
        both = _both(session, tuned, GENERAL, GENERAL_TOKENS, questioned)
        yield _compared(GENERAL, named, [q.question for q in asked], *both)
    except (WorkbenchError, BudgetExhausted) as error:
        if named:
            raise
        session.watch.noted(f"What the tuned LM forgot is not known: {error}")
    for task, splits in session.no_regression_on:
        program = _best_or_student(session, task)

        def answered(
            lm: MeteredLM,
            task: Task = task,
            rows: Sequence[dspy.Example] = splits.val,
            program: Program = program,
        ) -> Answers:
            with dspy.context(lm=lm):
                outcomes = evaluate(
                    program, rows, replace(session.asking, task=task, repeats=1)
                ).outcomes
            return Answers(tuple(o.score for o in outcomes), tuple(str(o.answer) for o in outcomes))

        texts = [input_text(task, e.inputs()) for e in splits.val]
        both = _both(session, tuned, task.name, task.max_tokens, answered)
        yield _compared(task.name, True, texts, *both)


def _both(
    session: Session, tuned: str, name: str, tokens: int, ask: Callable[[MeteredLM], Answers]
) -> tuple[Answers, Answers]:
    """The base LM's answers and the tuned LM's."""
    session.watch.started(f"{name}, base LM")
    before = ask(lms.task_lm(session.config, session.meter, tokens))
    session.watch.started(f"{name}, tuned LM")
    return before, ask(tuned_lm(session, tuned, tokens))


def _best_or_student(session: Session, task: Task) -> Program:
    """The task's best prompt program, or, where it was never climbed, its student in the format
    small LMs answer best.
    """
    try:
        _, run = last_run(session.home, task.name)
        text, where = run.text("prompt_program.json"), f"prompt_program.json of run {run.id}"
        return parse_program(
            task, text, where, lambda tuned: tuned_lm(session, tuned, task.max_tokens)
        )
    except WorkbenchError:
        program = student(task)
        program.format = "compact"
        return program


def _compared(
    name: str, named: bool, asked: Sequence[str], base: Answers, tuned: Answers
) -> ForgettingRecord:
    """Raises WorkbenchError where no question was answered by both."""
    both = [
        (b, t)
        for b, t in zip(base.scores, tuned.scores, strict=True)
        if b is not None and t is not None
    ]
    if not both:
        which, side = ("base", base) if None in base.scores else ("tuned", tuned)
        raise WorkbenchError(
            f"--no-regression-on {name} cannot be judged: none of {len(side.scores)} was answered "
            f"by both LMs; the {which} LM: {side.texts[side.scores.index(None)][:200]}"
        )
    drop = GainRecord.between(base.scores, tuned.scores)
    base_rate, tuned_rate = (sum(side) / len(both) for side in zip(*both, strict=True))
    lost = [
        n
        for n, (b, t) in enumerate(zip(base.scores, tuned.scores, strict=True))
        if b is not None and t is not None and t < b
    ]
    return ForgettingRecord(
        name=name,
        named=named,
        base=base_rate,
        tuned=tuned_rate,
        n=len(both),
        drop=drop,
        regressed=drop.high < 0,
        held=drop.low >= -MARGIN,
        examples=[
            f"{asked[n][:80]!r}: {base.texts[n].strip()[:60]!r} became "
            f"{tuned.texts[n].strip()[:60]!r}"
            for n in lost[:SHOWN]
        ],
    )
