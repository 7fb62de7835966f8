"""A task's best program as commands that look at it in use know it: asked again, on any LM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import dspy

from optimize import lm as lms
from optimize.climb.observer import Observer
from optimize.commands.load import kept, optimized_on
from optimize.commands.session import Session, check_price, open_session
from optimize.config import NO_ADDRESS, RunConfig, load_config
from optimize.data.rows import row_hash
from optimize.errors import WorkbenchError
from optimize.lm.batch.box import PRICE
from optimize.lm.reach import check_reachable
from optimize.lm.room import CHARS_A_TOKEN
from optimize.program.program import Program, parse_program, prompts
from optimize.report.record import Report
from optimize.report.rows import Answers, RowTable
from optimize.scoring.metric_code import metric_hash
from optimize.stats.records import RowScores
from optimize.store.champion import champion
from optimize.store.read import TEST_ROWS, TEST_SCORES, Found
from optimize.task import load_task

# knobs of a climb, which nothing that is asked afterwards hangs on
CLIMBING = {"teacher": None, "teacher_api_base": None, "finetune": "never", "replay": None}
WHOLE = {"val_rows": None, "test_rows": None, "no_regression_on": ()}
PRICED_ON = 20  # rows whose prompts are measured to tell what all will cost


@dataclass(frozen=True)
class Recorded:
    """The program on the test rows that judged it. gone: those that are not in the devset now."""

    rows: tuple[dspy.Example, ...]
    scores: tuple[float | None, ...]
    gone: int


@dataclass(frozen=True)
class InUse:
    """text: the program's file. lm: the one that it was optimized on. climbed: the report of its
    climb, where this version reads it.
    """

    session: Session
    run: Found
    text: str
    lm: str
    climbed: Report | None

    @property
    def report(self) -> Report:
        """Raises WorkbenchError, which says what to do, where this version does not read it."""
        return self.climbed or self.run.read("report.json", Report)

    @property
    def tuned(self) -> bool:
        """Whether it has weights of its own."""
        return self.report.final is self.report.test.tuned

    def at_work(self, session: Session) -> InUse:
        """The same in the session that has the task to itself, its judge's errors known.

        Raises WorkbenchError where what it has waited for has made another program the best one.
        """
        name = session.task.name
        if champion(session.root, name).id != self.run.id:
            raise WorkbenchError(
                f"While this waited, another program became the best one of {name!r}. Give the "
                "same command again. No call was made."
            )
        return replace(self, session=session).held_against_people()

    def held_against_people(self) -> InUse:
        """The same with its judge's errors known, where it has a judge: asks that one.

        Raises WorkbenchError where it is not the one of the climb, or the metric is not.
        """
        metrics = {self.run.metric, metric_hash(self.session.task)} - {""}
        if len(metrics) > 1:
            name = self.session.task.name
            raise WorkbenchError(
                f"The best program of {name!r} was scored by another metric than "
                f"programs/{name}.py has now. Their scores do not compare: `optimize run {name}` "
                "again."
            )
        now, before = self.session.judge, self.report.judge
        if now and before and now.told != before.judge:
            name = self.session.task.name
            raise WorkbenchError(
                f"The best program of {name!r} was judged by {before.judge}; now that would be "
                f"{now.told}. Their scores do not compare: `optimize run {name}` again."
            )
        return replace(self, session=self.session.held_against_people())

    def program(self, config: RunConfig) -> Program:
        """The program for the LM of that configuration. Tuned weights fit the LM that they were
        made from; any other gets the best prompt.
        """
        task, meter = self.session.task, self.session.meter
        found = kept(self.run, task, config.lm)

        def tuned_lm(tuned: str) -> dspy.LM:
            return lms.telling(lms.adapted_lm(config, meter, tuned, task.max_tokens))

        return parse_program(task, found.text, found.where, tuned_lm)

    @contextmanager
    def asking(self, config: RunConfig) -> Iterator[None]:
        """Within, programs without an LM of their own ask that of the configuration."""
        tokens = self.session.task.max_tokens
        first = (
            config.lm == self.session.config.lm and config.api_base == self.session.config.api_base
        )
        lm = self.session.lm if first else lms.task_lm(config, self.session.meter, tokens)
        with dspy.context(lm=lms.telling(lm)):
            yield

    def recorded(self) -> Recorded:
        """Raises WorkbenchError where none of these rows is left."""
        found: RowScores = self.run.read(TEST_SCORES, RowScores)
        splits, task = self.session.splits, self.session.task
        here = {row_hash(task, row): row for side in splits.sides().values() for row in side}
        final = zip(found.rows, found.programs["final"], strict=True)
        both = [(here[row], score) for row, score in final if row in here]
        if not both:
            raise WorkbenchError(
                f"None of the {len(found.rows)} test rows that judged the best program of "
                f"{task.name!r} is in {task.folder} now. Run `optimize run {task.name}` again."
            )
        rows, scores = zip(*both, strict=True)
        return Recorded(rows, scores, len(found.rows) - len(both))

    def answered(self) -> tuple[list[str], Answers] | None:
        """Hashes of the test rows and what the program answered to them; None where an older
        version of optimize made the run.
        """
        with suppress(WorkbenchError, KeyError):
            table: RowTable = self.run.read(TEST_ROWS, RowTable)
            return table.rows, table.programs["tuned" if self.tuned else "prompt"]
        return None


def in_use(
    root: Path,
    name: str,
    flags: dict[str, Any],
    watch: Observer,
    asked: Sequence[tuple[str | None, str | None]] = ((None, None),),
) -> tuple[InUse, list[RunConfig]]:
    """The task's best program, and a configuration for each LM to ask.

    asked: names and addresses; None: those on record. Raises WorkbenchError, before any call, where
    there is no such program, or an LM cannot be reached.
    """
    load_task(name, root)
    run = champion(root, name)
    text = run.text("program.json")
    recorded, climbed = optimized_on(text), _climbed(run)
    configs = []
    for lm, base in asked:
        own = {k: v for k, v in recorded.items() if lm is None or k == "temperature"}
        own |= {"target": climbed.target, **_judge_of(climbed, flags)} if climbed else {}
        given = flags | {"lm": lm, "api_base": base}
        config = load_config(root, own, **given).model_copy(update=CLIMBING)
        if base == NO_ADDRESS:
            config = config.model_copy(update={"api_base": None})
        lms.check_name(config.lm, config.api_base)
        check_price(config)
        check_reachable(config)
        configs.append(config)
    session = open_session(root, name, configs[0].model_copy(update=WHOLE), watch)
    lm = str(recorded.get("lm") or load_config(root).lm)
    return InUse(session, run, text, lm, climbed), configs


def _climbed(run: Found) -> Report | None:
    """The report of its climb, as far as this version reads it."""
    with suppress(WorkbenchError):
        found: Report = run.read("report.json", Report)
        return found
    return None


def _judge_of(report: Report, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The LM of the judge that a climb had, where it is served now; flags say where an LM is."""
    if not report.judge or flags.get("judge_lm"):
        return {}
    lm, knobs = report.judge.judge.rpartition(" on LM ")[2], report.knobs
    own = flags.get("api_base") or knobs.get("api_base")
    places = {knobs.get("teacher"): knobs.get("teacher_api_base"), report.lm: own}
    return {"judge_lm": lm, "judge_api_base": knobs.get("judge_api_base") or places.get(lm)}


@dataclass(frozen=True)
class Cost:
    """calls: at the least. usd: of these, the longest answer each; None: a price is not known."""

    calls: int
    usd: float | None

    def __add__(self, more: Cost) -> Cost:
        unknown = self.usd is None or more.usd is None
        return Cost(self.calls + more.calls, None if unknown else (self.usd or 0) + (more.usd or 0))


def cost(program: Program, rows: Sequence[dspy.Example], config: RunConfig) -> Cost:
    """What it takes to ask these rows of the LM in context. None is asked."""
    steps = len(program.predictors()) * (program.votes or 1)
    calls = len(rows) * config.repeats * steps
    price = lms.price(config.lm, config.api_base)
    if not calls or price is None or not any(price):
        return Cost(calls, None if price is None else 0.0)
    some = rows[:PRICED_ON]
    tokens = fmean(len(text) for row in some for text in prompts(program, row)) / CHARS_A_TOKEN
    share = PRICE if config.batch else 1.0
    answer = lms.answer_tokens(config.lm, config.api_base, program.task.max_tokens)
    each = tokens * price[0] + answer * price[1]
    return Cost(calls, calls * share * each)


def check_cap(needed: Cost, config: RunConfig, fewer: str) -> None:
    """Raises WorkbenchError for a cap on calls that cannot pay. fewer: the flag that needs less."""
    if needed.calls > config.max_calls:
        raise WorkbenchError(
            f"--max-calls {config.max_calls} cannot pay for this: it takes at least "
            f"{needed.calls} calls. Give more, or ask fewer rows with {fewer}. No call was made."
        )
