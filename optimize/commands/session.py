"""What one command works with: task, rows, LMs and meter, all checked before the first LM call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.climb.observer import Attempt, Observer
from optimize.climb.setup import Setup
from optimize.climb.verdict import History
from optimize.commands.lm_judge import Judge, open_judge
from optimize.config import RunConfig
from optimize.data.baselines import Vectors
from optimize.data.rows import Splits, load_splits
from optimize.data.synthetic import with_synthetic
from optimize.errors import WorkbenchError
from optimize.finetune import BACKENDS, PREFERRING, forgetting, trainer
from optimize.finetune.forgetting import GENERAL
from optimize.finetune.steps import unlabelled
from optimize.lm.embedder import Embedder, embedder_of
from optimize.lm.limits import Limits, Purse
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.lm.weights import sha256
from optimize.program.program import student
from optimize.program.retrieval import read_corpus
from optimize.report.judged import judge_sentence
from optimize.scoring.evaluate import Asking
from optimize.scoring.metric_code import metric_hash
from optimize.store.write import Run
from optimize.task import Task, load_task

UNASKED = "openai/unasked"  # the LM of a session that only checks; the cap of 0 calls holds it


@dataclass(frozen=True)
class Own:
    """What a run has for itself that is one of many: it neither sees nor changes those beside it.

    home: below it lies its mlruns/. cache: below it lies its answer cache.
    """

    home: Path
    cache: Path
    purse: Purse | None = None


@dataclass(frozen=True)
class Session:
    """Everything one command works with.

    no_regression_on: other tasks, with their rows, that a tuned LM is asked as well. judge: where
    the task has one, which scores its answers; None: its metric does. own: of one run of many.
    """

    root: Path
    config: RunConfig
    task: Task
    splits: Splits
    meter: Meter
    lm: MeteredLM
    teacher: MeteredLM
    watch: Observer
    embedder: Embedder | None = None
    no_regression_on: tuple[tuple[Task, Splits], ...] = ()
    judge: Judge | None = None
    start: float = field(default_factory=time.perf_counter)
    own: Own | None = None

    @property
    def home(self) -> Path:
        """Below it lies mlruns/."""
        return self.own.home if self.own else self.root

    @property
    def target(self) -> float:
        return self.task.target

    @property
    def asking(self) -> Asking:
        """How val and test rows are asked."""
        return Asking(self.task, self.config.in_flight, self.config.repeats, self.watch.scored)

    @property
    def vectors(self) -> Vectors | None:
        """What baselines without an LM know texts by, beside their words."""
        return self.embedder.vectors if self.embedder else None

    @property
    def teacher_name(self) -> str:
        return self.config.teacher or "the task LM itself"

    def held_against_people(self) -> Session:
        """The session with its judge's errors known, where it has a judge: asks that one.

        Raises WorkbenchError where it is too poor to tell.
        """
        if not self.judge:
            return self
        found = self.judge.confusion(self.watch)
        self.watch.noted(judge_sentence(self.judge.told, found))
        return replace(self, task=replace(self.task, confusion=found))

    def setup(self, after: int, **known: Any) -> Setup:
        """What a climb of this session runs on; after and known as Setup has them."""
        return Setup(
            self.task,
            self.splits,
            self.teacher,
            self.meter,
            self.target,
            self.config.in_flight,
            self.config.seed,
            after,
            self.config.repeats,
            embedder=self.embedder,
            **known,
        )

    def folder(self, kind: str) -> Path:
        return self.home / "mlruns" / kind / self.task.name


def open_session(
    root: Path,
    name: str,
    config: RunConfig,
    watch: Observer,
    asks: bool = True,
    own: Own | None = None,
) -> Session:
    """Load and check everything that needs no LM call, then the LMs.

    asks: False for a session that only checks: its LMs are neither loaded nor reachable. own: of
    one run of many. Raises WorkbenchError for what is wrong.
    """
    task, splits = load_task_and_rows(root, name, config)
    for lm, base in config.lms:  # the task's module may have declared a provider
        lms.check_name(lm, base)
    check_price(config)
    check_method(config, task)
    if config.finetune in BACKENDS:  # before a call is spent on the way there
        trainer(config.finetune).check_config(config)
    others = tuple(
        load_task_and_rows(root, other, config.model_copy(update={"target": None}))
        for other in config.no_regression_on
        if other != GENERAL
    )
    if config.replay and config.replay > (known := len(forgetting.replayable(root))):
        raise WorkbenchError(
            f"--replay {config.replay}: {forgetting.general_file(root, forgetting.REPLAY)} has "
            f"{known} instructions to replay."
        )
    if judged := [other.name for other, _ in others if other.judge]:
        raise WorkbenchError(
            f"--no-regression-on {judged[0]}: its answers are scored by a judge; only a task with "
            "a metric can be asked beside another."
        )
    limits = Limits(config.max_tokens, config.budget_usd, config.max_minutes)
    meter = Meter(config.max_calls if asks else 0, limits, own.purse if own else None)
    found = embedder_of(config)
    if asks:
        lms.configure(own.cache if own else root, meter)
        lm = lms.task_lm(config, meter, task.max_tokens)
        teacher = lms.teacher_lm(config, meter, task.max_tokens)
    else:
        lm = teacher = MeteredLM(UNASKED, meter=meter)
    judge = open_judge(root, task, config, meter, asks) if task.judge else None
    if judge:
        check_price(judge.config)
        task, splits = judge.scoring(task), judge.naming(splits)
    # what costs money is not asked by a command that only checks
    free = found if asks or (found and found.local) else None
    return Session(
        root, config, task, splits, meter, lm, teacher, watch, free, others, judge, own=own
    )


def check_price(config: RunConfig) -> None:
    """Raises WorkbenchError for a budget that nobody could hold."""
    if not config.budget_usd:
        return
    unknown = [f"LM {lm!r}" for lm, base in config.lms if lms.price(lm, base) is None]
    embedder = embedder_of(config)
    if embedder and not embedder.priced:
        unknown.append(f"embedder {embedder.name!r}")
    if unknown:
        raise WorkbenchError(
            f"The price of {unknown[0]} is not known, so --budget-usd cannot be kept to. Use "
            "--max-calls or --max-tokens in its place. No call was made."
        )


def check_method(config: RunConfig, task: Task) -> None:
    """Raises WorkbenchError where the method could not teach this task's program, or nobody trains
    a grid.
    """
    if config.grid > 1 and config.finetune in BACKENDS and config.finetune != "lora":
        raise WorkbenchError(
            f"--grid {config.grid} is for LoRA trainings here (--finetune lora), not for "
            f"{config.finetune!r}. No call was made."
        )
    if config.method == "distill" and not config.teacher:
        raise WorkbenchError(
            "--method distill needs a teacher: give --teacher LM, or use --method sft."
        )
    if config.method == "kto" and config.finetune in BACKENDS and config.finetune != "trl":
        raise WorkbenchError(
            f"--method kto is TRL's: give --finetune trl (finetune --backend trl), or use --method "
            f"dpo with {config.finetune}."
        )
    if config.method in PREFERRING:
        check_one_step(task, f"--method {config.method}", "Use --method sft or distill.")


def check_one_step(task: Task, flag: str, advice: str) -> None:
    """Raises WorkbenchError where an answer is not what one predictor says: preferences compare
    whole answers.
    """
    program = student(task)
    if steps := unlabelled(program):
        raise WorkbenchError(
            f"{flag} compares whole answers, but {task.name!r} answers in steps without labels "
            f"({', '.join(steps)}). {advice}"
        )
    if (many := len(program.predictors())) != 1:
        raise WorkbenchError(
            f"{flag} compares whole answers, but {task.name!r} answers in {many} steps. {advice}"
        )


def load_task_and_rows(root: Path, name: str, config: RunConfig) -> tuple[Task, Splits]:
    """The task with the target asked for, and as many of its rows.

    Raises WorkbenchError where they do not load.
    """
    task = load_task(name, root)
    if config.target is not None:
        task = replace(task, target=config.target)
    if task.corpus:
        read_corpus(task.corpus)
    splits = with_synthetic(task, load_splits(task))
    return task, splits.at_most(config.val_rows, config.test_rows)


def tracked_run(session: Session, command: str) -> Run:
    file = session.root / "programs" / f"{session.task.name}.py"
    knobs = session.config.model_dump(exclude={"api_key", "target"}, exclude_none=True) | {
        "target": session.target,
        "task_file": sha256(file)[:12] if file.is_file() else "",
        "metric": metric_hash(session.task),
    }
    if session.splits.synthetic:
        knobs["synthetic_rows"] = len(session.splits.synthetic)
    return Run(session.home, session.task.name, command, knobs, session.splits)


class Both(Observer):
    """What the store and the screen are both told."""

    def __init__(self, tracked: Run, watch: Observer) -> None:
        self.tracked, self.watch = tracked, watch

    def counts(self, meter: Meter, threads: int) -> None:
        self.watch.counts(meter, threads)

    def noted(self, line: str) -> None:
        self.watch.noted(line)

    def started(self, rung: str) -> None:
        self.watch.started(rung)

    def scored(self, done: int, total: int, note: str = "") -> None:
        self.watch.scored(done, total, note)

    def finished(self, attempt: Attempt) -> None:
        self.tracked.finished(attempt)
        self.watch.finished(attempt)

    def decided(self, history: History) -> None:
        self.tracked.decided(history)
        self.watch.decided(history)
