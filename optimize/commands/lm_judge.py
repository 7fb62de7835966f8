"""A task's LM judge: another task's program, which passes an answer or does not; and how it errs on
answers that people have judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import dspy

from optimize import lm as lms
from optimize.climb.observer import Observer
from optimize.commands.load import optimized_on
from optimize.config import RunConfig, is_local
from optimize.data.rows import Splits, load_splits, row_hash
from optimize.errors import WorkbenchError
from optimize.lm.heard import listening
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM, apart, one_example
from optimize.lm.reach import check_reachable
from optimize.program.program import Program, parse_program, student, to_text
from optimize.scoring.evaluate import Asking, evaluate
from optimize.scoring.evaluation import UNPARSABLE
from optimize.stats.judge import Confusion
from optimize.stats.records import RowScores
from optimize.store.champion import champion
from optimize.store.read import TEST_SCORES, NoRun
from optimize.task import Score, Task, load_task

GOLD = "gold_"  # before the name of an output: what the row says, not what was answered
PASS, FAIL = "pass", "fail"
FEWEST, EACH = 30, 10  # answers that people have judged, in all and of each verdict
LEAST = 0.3  # that sensitivity + specificity − 1 must surely exceed: bench/judge.py


@dataclass(frozen=True)
class Judge:
    """An LM judge, ready to be asked. task: its own. rows: answers that people have judged, drawn
    and not chosen, and that its program has neither learnt from nor been chosen by. origin: which
    program it is, in words. config: the run's, with the judge's LM as the task LM. text: the
    program's file, or what a zero-shot one's would be.
    """

    task: Task
    program: Program
    rows: tuple[dspy.Example, ...]
    origin: str
    config: RunConfig
    text: str

    @property
    def verdict(self) -> str:
        """Its output field."""
        return str(next(iter(self.task.signature.output_fields)))

    @property
    def told(self) -> str:
        """Which judge it is, in words."""
        return f"{self.task.name}, {self.origin}, on LM {self.config.lm}"

    def scoring(self, task: Task) -> Task:
        """The task with the judge as its metric: 1 for an answer that it passes, 0 for any other.
        A call that fails, or a verdict that cannot be read, leaves the score missing.
        """

        def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
            found = self._asked(_shown(self.task, task, example, prediction))
            why = str(found.get("reasoning") or "")
            passed = passes(found[self.verdict])
            return Score(float(passed), why or ("" if passed else "The judge does not pass it."))

        return replace(task, metric=metric)

    def _asked(self, inputs: Mapping[str, Any]) -> dspy.Prediction:
        # what it says is no answer of the task's, and no demo: an optimizer must not collect it
        with one_example(), apart(), listening(), dspy.context(trace=[]):
            found: dspy.Prediction = self.program(**inputs)
        return found

    def naming(self, splits: Splits) -> Splits:
        """The rows under a digest that is this judge's alone: scores that another one gave are no
        scores on the same rows.
        """
        rows, cut, counts = splits.digest.partition(":")
        own = hashlib.sha256(f"{rows} {self.config.lm} {self.text}".encode()).hexdigest()
        return replace(splits, digest=own + cut + counts)

    def confusion(self, watch: Observer) -> Confusion:
        """Its verdicts on the rows, counted against people's. Asks its LM.

        Raises WorkbenchError where most calls fail, or the judge cannot tell good answers from bad.
        """
        check_reachable(self.config)
        watch.started(f"{self.task.name} against people")
        asking = Asking(self.task, self.config.in_flight, progress=watch.scored)
        outcomes = evaluate(self.program, self.rows, asking).outcomes
        both = [
            (passes(row[self.verdict]), passes(o.answer[self.verdict]))
            for row, o in zip(self.rows, outcomes, strict=True)
            if o.score is not None and o.error != UNPARSABLE
        ]
        found = Confusion(*(both.count(p) for p in PAIRS))
        _check(self.task.name, found)
        return found


PAIRS = ((True, True), (True, False), (False, True), (False, False))  # people, judge


def open_judge(root: Path, task: Task, config: RunConfig, meter: Meter, asks: bool) -> Judge:
    """The judge of a task. Asks no LM.

    asks: False where none shall be loaded. Raises WorkbenchError where the judge does not fit the
    task, or too few answers were judged by people.
    """
    if task.judge == task.name:
        raise WorkbenchError(f"Task {task.name!r} cannot be its own judge.")
    own = load_task(task.judge, root)
    _check_fit(own, task)
    program = student(own)
    splits, run, text = load_splits(own), None, to_text(program)
    with suppress(NoRun):
        run = champion(root, own.name)
        text = run.text("program.json")
    config = _config(config, optimized_on(text))

    def tuned_lm(tuned: str) -> dspy.BaseLM:
        return lms.adapted_lm(config, meter, tuned, own.max_tokens) if asks else lm

    # as of any LM of a command that only checks: the cap of 0 calls holds it
    lm = MeteredLM("openai/unasked", meter=meter)
    # rows that were chosen for being hard would make it look worse than it is
    drawn = (e for rows in splits.sides().values() for e in rows)
    rows = tuple(e for e in drawn if row_hash(own, e) not in splits.chosen)
    origin = "its zero-shot program"
    if run:
        program = parse_program(own, text, f"program.json of run {run.id}", tuned_lm)
        scored: RowScores = run.read(TEST_SCORES, RowScores)
        rows = tuple(e for e in rows if row_hash(own, e) in scored.rows)
        origin = f"its best program so far (run {run.id[:8]})"
    if asks and not program.lm:
        lm = lms.task_lm(config, meter, own.max_tokens)
    program.lm = program.lm or lm
    if isinstance(program.lm, MeteredLM):
        program.lm.role = "judge"
    found = Judge(own, program, rows, origin, config, text)
    _check_rows(found, learnt=run is not None)
    return found


def passes(verdict: object) -> bool:
    return verdict is True or verdict == PASS


def _config(config: RunConfig, optimized: Mapping[str, Any]) -> RunConfig:
    """The configuration that the judge is asked by: with the LM that was asked for, else that which
    it was optimized on, else the teacher or the task LM.
    """
    lm, base = config.lms[-1]
    lm, base = optimized.get("lm", lm), optimized.get("api_base") if optimized else base
    if config.judge_lm:
        lm, base = config.judge_lm, config.judge_api_base
    given = {"lm": lm, "api_base": base, "teacher": None, "temperature": 0.0}
    if not is_local(lm) and (lm, base) != config.lms[0]:
        given["context"] = None  # that is the task LM's
    lms.check_name(lm, base)
    return config.model_copy(update=given)


def _check_fit(own: Task, task: Task) -> None:
    """Raises WorkbenchError for a judge that is not one, or wants to see what the task lacks."""
    outputs = [field.annotation for field in own.signature.output_fields.values()]
    words = get_args(outputs[0]) if get_origin(outputs[0]) is Literal else ()
    if len(outputs) != 1 or not (outputs[0] is bool or sorted(words) == [FAIL, PASS]):
        raise WorkbenchError(
            f"programs/{own.name}.py judges {task.name!r}, so its signature needs one output, "
            f'which says whether an answer passes: Literal["{PASS}", "{FAIL}"] or bool.'
        )
    if own.judge:
        raise WorkbenchError(
            f"Task {own.name!r} judges {task.name!r} and has a judge itself; a judge needs a "
            "metric: is its verdict that of people?"
        )
    known = [*task.fields, *(f"{GOLD}{name}" for name in task.signature.output_fields)]
    if lacking := sorted(own.signature.input_fields.keys() - known):
        raise WorkbenchError(
            f"programs/{own.name}.py asks for {lacking[0]!r}, which {task.name!r} does not have. A "
            f"judge sees these: {', '.join(known)} ({GOLD}…: as the row has it)."
        )


def _shown(
    own: Task, task: Task, example: dspy.Example, prediction: dspy.Prediction
) -> dict[str, Any]:
    """What the judge is asked: inputs of the row, what was answered, what the row says is right."""
    outputs, shown = task.signature.output_fields, {}
    for name in own.signature.input_fields:
        if name in outputs:
            shown[name] = prediction[name]
        elif name.removeprefix(GOLD) in outputs:
            shown[name] = example[name.removeprefix(GOLD)]
        else:
            shown[name] = example[name]
    return shown


def _check_rows(judge: Judge, learnt: bool) -> None:
    people = [passes(row[judge.verdict]) for row in judge.rows]
    good, bad = people.count(True), people.count(False)
    if good + bad >= FEWEST and min(good, bad) >= EACH:
        return
    which = "test rows of its climb, which it did not learn from" if learnt else "rows drawn"
    raise WorkbenchError(
        f"Judge {judge.task.name!r}: people passed {good} and failed {bad} of the answers in "
        f"{judge.task.folder} ({which}). {FEWEST} are needed, {EACH} of each, to know how it "
        "errs. Let people judge more answers, good and bad ones. No call was made."
    )


def _check(name: str, found: Confusion) -> None:
    told = (
        f"it passes {found.tp} of the {found.tp + found.fn} answers that people pass, and "
        f"{found.fp} of the {found.fp + found.tn} that they do not"
    )
    if min(found.tp + found.fn, found.fp + found.tn) < EACH:
        raise WorkbenchError(
            f"Judge {name!r} is not known well enough: {told}. Other calls of it failed."
        )
    youden = found.youden
    if youden.low <= LEAST:
        raise WorkbenchError(
            f"Judge {name!r} is too poor to tell good answers from bad: {told}. Sensitivity + "
            f"specificity − 1 is {youden.mean:.2f} [{youden.low:.2f}, {youden.high:.2f}], and must "
            f"surely be above {LEAST}. `optimize run {name}` looks for a better judge, --judge-lm "
            "takes a stronger LM, and more answers judged by people narrow the interval. The task "
            "itself was not asked."
        )
