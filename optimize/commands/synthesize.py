"""The use case `synthesize`: the teacher writes rows, and those that pass every check are kept as
synthetic train rows.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import dspy

from optimize import lm as lms
from optimize.climb.rungs.base import least_calls, reads
from optimize.commands.lock import task_lock
from optimize.commands.session import Session
from optimize.commands.synthesizing.checks import ASKED, Checks, Written, outcomes
from optimize.config import caps
from optimize.data.judging_rows import lent
from optimize.data.synthetic import (
    Mark,
    append,
    next_number,
    read_synthetic,
    seed_name,
    synthetic_file,
    with_synthetic,
)
from optimize.errors import WorkbenchError
from optimize.lm.reach import check_reachable
from optimize.lm.room import CHARS_A_TOKEN
from optimize.program.program import Program, render
from optimize.program.retrieval import read_corpus
from optimize.program.writing import Draw, asked, drawn, label_of, wanted_labels, writer
from optimize.report.synthesis import Synthesis, SynthesisPlan, plan_lines
from optimize.scoring.evaluate import Asking
from optimize.scoring.evaluation import UNPARSABLE
from optimize.task import Task

HEAT = 1.0  # temperature of the writer
TRIES = 5  # candidates for each row wanted, at most
HOPE = 0.5  # share of candidates that survive, until it is known; never taken to be below LEAST
LEAST = 0.2
AGAIN = 2  # an answer that cannot be read is asked for once more


@dataclass(frozen=True)
class Writing:
    """What a command of this session will write, and how. learn: rows that may be shown: no row
    that judges is among them, nor one that judges in a climb until its verdict is in.
    """

    session: Session
    wanted: int

    @cached_property
    def learn(self) -> tuple[dspy.Example, ...]:
        splits = self.session.splits
        return lent(self.session.task, splits.whole or splits)[0]

    @cached_property
    def known(self) -> list[dspy.Example]:
        """All synthetic rows there are, those that are left out as well."""
        return read_synthetic(self.session.task)

    @cached_property
    def program(self) -> Program:
        return writer(self.session.task, self.learn)

    @property
    def missing(self) -> int:
        return max(0, self.wanted - len(self.session.splits.synthetic))

    @property
    def most(self) -> int:
        return TRIES * self.missing

    @cached_property
    def start(self) -> int:
        """The first draw that no row was kept of."""
        return next_number(self.session.task, self.known)

    def draws(self) -> list[Draw]:
        """All draws that the command may come to, in order."""
        task, seed = self.session.task, self.session.config.seed
        counts = Counter(
            label or "" for e in self.session.splits.train if (label := label_of(task, e))
        )
        passages = list(read_corpus(task.corpus).values()) if task.corpus else []
        labels = itertools.islice(wanted_labels(task, counts), self.start, self.start + self.most)
        return [
            self._fitting(drawn(task, self.learn, self.start + n, label, seed, passages))
            for n, label in enumerate(labels)
        ]

    def _fitting(self, draw: Draw) -> Draw:
        """The draw with as many rows to look at as the teacher has room for."""
        task = self.session.task
        with dspy.context(lm=self.session.teacher):
            while not reads(self.program, asked(task, draw)):
                if not draw.seeds:
                    raise WorkbenchError(
                        f"The guide of task {task.name!r} alone is longer than the prompts of "
                        f"{self.session.teacher_name} may be. Shorten it, or give another "
                        "--teacher."
                    )
                draw = draw.fewer()
        return draw

    def prompt(self, draw: Draw) -> str:
        return render(self.program, asked(self.session.task, draw))


def plan(session: Session, rows: int) -> tuple[SynthesisPlan, str]:
    """What `synthesize` would do, and its first prompt; empty where there is nothing to do."""
    writing = Writing(session, rows)
    draws = writing.draws()
    return _plan(writing, draws), writing.prompt(draws[0]) if draws else ""


def synthesize(session: Session, rows: int) -> Synthesis:
    """Have rows written until `rows` usable synthetic ones are in the task's folder; each round of
    them is in the file when it has passed all checks.

    Raises WorkbenchError where most calls fail, BudgetExhausted where a cap other than that on
    calls is met.
    """
    check_reachable(session.config)
    with task_lock(session, "synthesize") as session:
        bare = replace(session.splits, synthetic=())
        session = replace(session, splits=with_synthetic(session.task, bare))
        writing = Writing(session, rows)
        draws = writing.draws()
        found = Synthesis(
            task=session.task.name,
            teacher=session.config.lms[-1][0],
            file=str(synthetic_file(session.task).relative_to(session.root)),
            wanted=rows,
            total=len(session.splits.synthetic),
        )
        if draws:
            for line in plan_lines(_plan(writing, draws)):
                session.watch.noted(line)
            found = _written(writing, draws, found)
        used = session.meter.usage()
        return found.model_copy(
            update={
                "calls": used.calls,
                "cached_calls": used.cached,
                "tokens": used.tokens_in + used.tokens_out,
                "cost_usd": used.cost_usd,
                "seconds": time.perf_counter() - session.start,
            }
        )


def _each(task: Task) -> int:
    """LM calls that a candidate takes: it is written, and answered and scored ASKED times."""
    return 1 + ASKED * least_calls(task)


def _plan(writing: Writing, draws: Sequence[Draw]) -> SynthesisPlan:
    session = writing.session
    task, calls = session.task, len(draws) * _each(session.task)
    shown = len(writing.prompt(draws[0])) if draws else 0
    tokens_in = calls * shown // CHARS_A_TOKEN
    teacher = session.config.lms[-1]
    tokens_out = calls * lms.answer_tokens(*teacher, task.max_tokens)
    price = lms.price(*teacher)
    return SynthesisPlan(
        rows=writing.missing,
        there=len(session.splits.synthetic),
        written=len(draws),
        asked=ASKED,
        calls=calls,
        cap=session.config.max_calls,
        tokens=tokens_in + tokens_out,
        usd=tokens_in * price[0] + tokens_out * price[1] if price else None,
        labels=dict(Counter(d.label for d in draws if d.label is not None)),
    )


def _written(writing: Writing, draws: list[Draw], found: Synthesis) -> Synthesis:
    """Round after round: as many candidates as the rows missing will take, if they fare as those
    before them did.
    """
    session, known = writing.session, list(writing.known)
    checks = Checks(session, writing.learn)
    left, tally, ended = list(draws), Counter[str](), ""
    labels = {d.label: Counter[str]() for d in draws if d.label is not None}
    while (missing := writing.missing - tally["kept"]) > 0:
        rate = max(LEAST, tally["kept"] / tally["written"]) if tally["written"] else HOPE
        payable = session.meter.remaining() // (AGAIN * _each(session.task))
        size = min(math.ceil(missing / rate), len(left), payable)
        if size < 1:
            short = f"too few calls are left under {' '.join(caps(session.config))}"
            ended = short if left else f"{len(draws)} candidates were tried, {TRIES} a row"
            break
        batch, left = left[:size], left[size:]
        judged = checks.judged(candidates(writing, batch), known)
        sound = [w for w in judged if not w.fault]
        kept = sound[:missing]
        append(session.task, [(w.row, _mark(session, w.draw)) for w in kept if w.row])
        known += [w.row for w in kept if w.row]
        tally.update({"written": size, "kept": len(kept), "spare": len(sound) - len(kept)})
        tally.update(w.fault for w in judged if w.fault)
        for what, these in (("written", judged), ("kept", kept)):
            for w in these:
                if w.draw.label is not None:
                    labels[w.draw.label][what] += 1
        session.watch.noted(f"{tally['kept']} of {writing.missing} rows, of {tally['written']}")
    told = {label: (n["written"], n["kept"]) for label, n in labels.items()}
    total = found.total + tally["kept"]
    return found.model_copy(update={**tally, "labels": told, "ended": ended, "total": total})


def candidates(writing: Writing, draws: Sequence[Draw]) -> list[Written]:
    """A candidate for each draw, not checked yet but for being readable."""
    session, program = writing.session, writing.program
    session.watch.started("writing rows")
    asking = Asking(program.task, session.config.in_flight, progress=session.watch.scored)
    with dspy.context(lm=session.teacher.copy(temperature=HEAT)):
        found = outcomes(program, [asked(session.task, draw) for draw in draws], asking)
    return [
        Written(
            draw, o.answer, "failed" if o.score is None else "invalid" * (o.error == UNPARSABLE)
        )
        for draw, o in zip(draws, found, strict=True)
    ]


def _mark(session: Session, draw: Draw) -> Mark:
    seeds = tuple(seed_name(session.task, e) for e in draw.seeds)
    return Mark(draw.number, session.config.lms[-1][0], seeds, draw.style, ASKED)
