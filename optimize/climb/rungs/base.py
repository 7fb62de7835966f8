"""What every rung is given, and how it declines. A rung never sees val or test rows."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import dspy

from optimize.errors import ShareExhausted, WorkbenchError
from optimize.lm.dspy_door import uncompiled
from optimize.lm.embedder import Embedder
from optimize.lm.metered import MeteredLM
from optimize.lm.room import room_of
from optimize.program.program import Program, prompts, student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.scoring.evaluation import Evaluation, alike
from optimize.stats.intervals import differences
from optimize.stats.race import evidence_below
from optimize.task import Task
from optimize.threads import in_threads

# train rows on which a rung compares its own candidates, at most a third of train: the fewest are
# enough for a handful, more are taken where the calls allow it
SEARCH, MOST_SEARCH = 24, 100
# passes over these rows: with which most rungs can do something, and MIPROv2's light search, the
# smallest that any optimizer's authors name
PASSES, WANTED = 4, 12
CANDIDATES = 64  # that a race has at most
# of a share that `compare` may take, which rounds each round's rows up; a rung is stopped further
# beyond it
ROUNDED = 1.1
# evidence against a candidate that drops it at once: wrong once in three, which halving is more
# often
SURE = 3.0
# train rows a bootstrapping teacher may be asked on for one demo set, and the demos in one: a weak
# teacher is asked on all of them, a good one on little more than these
BOOTSTRAP, SHOWN = 24, 4


def searched(train: int, answers: int = 0) -> int:
    """On how many of so many train rows a rung compares its candidates, if it has the calls for so
    many answers.
    """
    return min(train // 3, MOST_SEARCH, max(SEARCH, answers // WANTED))


def unheld(search: int) -> int:
    """The same for a lever that holds none of them back, which gives few train rows a say as well.

    search: rows that others compare on.
    """
    return max(search, min(SEARCH, 3 * search))


def compared_on(candidates: int, rows: int) -> int:
    """Examples that `Context.compare` asks for so many candidates on so many rows at most."""
    asked, upto, alive = 0, 0, candidates
    for left in reversed(range(_rounds(candidates))):
        further = math.ceil(rows / 2**left)
        asked += alive * (further - upto)
        upto, alive = further, math.ceil(alive / 2)
    return asked


def _rounds(candidates: int) -> int:
    return max(1, (candidates - 1).bit_length())


def steps(task: Task) -> int:
    """LM calls that one answer of the task's program takes at least."""
    return max(1, len(student(task).predictors()))


def least_calls(task: Task) -> int:
    """The same with its score: a judge takes one more."""
    return steps(task) + bool(task.judge)


def rows_a_set(right: float, demos: int = SHOWN) -> int:
    """Train rows that a teacher is asked until so many of its answers are right. right: the share
    of them that is; 0: not known.
    """
    return min(BOOTSTRAP, math.ceil(demos / right)) if right > 0 else BOOTSTRAP


class Skip(Exception):
    """This rung cannot help this task; the message says why."""


class Starved(Skip):
    """This rung would need more LM calls than its share."""


@dataclass(frozen=True)
class Context:
    """What a rung may use. budget: the LM calls it may make; it is stopped hard some way beyond.

    calls: how many calls the incumbent makes for one example (a format that does not parse asks
    twice). search: train rows on which candidates are compared. embedder: what finds rows and
    passages by meaning, if there is one. synthetic: rows that an LM wrote, for the one rung that
    may show them. right: share of answers that are wholly right; 0: not known. writes_chat: whether
    the task LM keeps to DSPy's chat format.
    """

    task: Task
    train: tuple[dspy.Example, ...]
    teacher: MeteredLM
    budget: int
    calls: float
    threads: int
    seed: int
    search: int = SEARCH
    embedder: Embedder | None = None
    synthetic: tuple[dspy.Example, ...] = ()
    right: float = 0.0
    writes_chat: bool = True

    def a_set(self, demos: int = SHOWN) -> int:
        """Train rows that the teacher is asked for a set of so many demos."""
        return rows_a_set(self.right, demos)

    def halves(self) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """(rows to learn from, rows to compare candidates on): the same for every rung, so that
        their calls are shared. A larger budget compares on more rows and learns from the same ones,
        so that what was asked under a smaller one is not asked again.
        """
        rows = list(self.train)
        random.Random(self.seed).shuffle(rows)
        third = len(rows) // 3
        return rows[third:], rows[: min(self.search, third)]

    def unheld_rows(self) -> list[dspy.Example]:
        """Rows to compare candidates on that show no row what it is asked about: those that other
        levers compare on, and where these are few as many more as have calls for some passes.
        """
        pool, search = self.halves()
        more = min(unheld(len(search)), self.passes(PASSES))
        return (search + pool)[: max(len(search), more)]

    @property
    def finders(self) -> tuple[Embedder | None, ...]:
        """What rows and passages may be found by, the likelier first; None: by their words."""
        return (self.embedder, None) if self.embedder else (None,)

    def passes(self, examples_each: int, overhead: int = 0) -> int:
        """How many passes over `examples_each` examples fit the budget, after `overhead` others."""
        return int((self.budget / self.calls - overhead) // max(1, examples_each))

    def affordable(self, examples_each: int, least: int, most: int, overhead: int = 0) -> int:
        """How many passes over `examples_each` examples fit the budget, at most `most`; raises
        Starved below `least`.

        overhead: examples that are answered once, whatever the number of passes.
        """
        self.check_pays(overhead + least * examples_each)
        return min(most, self.passes(examples_each, overhead))

    def check_pays(self, examples: int) -> None:
        """Raises Starved where the budget does not pay for so many."""
        if examples > self.budget / self.calls:
            need = math.ceil(examples * self.calls)
            raise Starved(f"needs {need} LM calls, its share is {self.budget}")

    def comparable(self, rows: int, most: int = CANDIDATES) -> int:
        """How many candidates the budget can compare on so many rows, by powers of two: at most
        `most`, and one where there are no calls for two.
        """
        found, asked = 1, ROUNDED * self.budget / self.calls
        while 2 * found <= most and compared_on(2 * found, rows) <= asked:
            found *= 2
        return found

    def compare(
        self, candidates: Sequence[Program], rows: list[dspy.Example]
    ) -> list[tuple[Program, Evaluation]]:
        """The candidates that last, one or two, each with its evaluation on the rows it took to
        find that out; more of them where the share of calls ends the race: those of its last whole
        round, the best first. Raises ShareExhausted where there is none.

        Sequential halving (Karnin et al., 2013): every round asks twice as many rows in all and
        keeps at most the better half of the candidates (the earlier ones on a tie), without those
        that are surely worse than the leader (optimize.stats.race, at SURE). Sixteen candidates
        cost about five passes over the rows. For choosing inside a rung only.
        """
        alive: list[tuple[Program, Evaluation]] = [
            (candidate, Evaluation(())) for candidate in candidates
        ]
        for left in reversed(range(_rounds(len(candidates)))):
            upto = math.ceil(len(rows) / 2**left)
            try:
                asked = self.asked(alive, rows[:upto])
            except ShareExhausted:  # answers had to be asked for again
                if not alive[0][1].outcomes:
                    raise
                break  # what is known decides
            alive = sorted(asked, key=lambda look: -look[1].mean)
            if left:
                leader = alive[0][1].scores
                lasting = [
                    a
                    for a in alive
                    if evidence_below(0.0, differences(leader, a[1].scores), len(rows)) < SURE
                ]
                alive = lasting[: math.ceil(len(alive) / 2)]
            if len(alive) == 1:
                break
        return alive

    def asked(
        self, looks: Sequence[tuple[Program, Evaluation]], rows: list[dspy.Example]
    ) -> list[tuple[Program, Evaluation]]:
        """The candidates with the rows they have not answered yet; one whose calls fail is dropped
        while another's do not.

        Candidates are asked side by side, the rows of each one after the other, so that an engine
        reads a prompt's beginning once.
        """
        asking = Asking(self.task, max(1, self.threads // len(looks)))

        def ask(look: tuple[Program, Evaluation]) -> tuple[Program, Evaluation] | WorkbenchError:
            candidate, so_far = look
            try:
                more = rows[len(so_far.outcomes) :]
                return candidate, evaluate(candidate, more, asking, so_far.outcomes)
            except WorkbenchError as error:
                return error

        found = list(in_threads(ask, looks, self.threads))
        failed = [error for error in found if isinstance(error, WorkbenchError)]
        if len(failed) == len(found):
            raise failed[0]
        lasting = [look for look in found if not isinstance(look, WorkbenchError)]
        held = alike([evaluation for _, evaluation in lasting])
        return [(candidate, e) for (candidate, _), e in zip(lasting, held, strict=True)]

    def best(self, candidates: Sequence[Program], rows: list[dspy.Example]) -> Program:
        """The candidate with the best mean score on train rows held back."""
        return (
            candidates[0]
            if len(candidates) == 1
            else max(self.compare(candidates, rows), key=lambda c: c[1].mean)[0]
        )

    def best_or_first(self, candidates: Sequence[Program], rows: list[dspy.Example]) -> Program:
        """The same of programs that are new to val, each of them: the first one where there are no
        calls to tell.
        """
        try:
            return self.best(candidates, rows)
        except ShareExhausted:
            return candidates[0]


def fits(program: Program, rows: Sequence[dspy.Example]) -> bool:
    """Whether each step's whole prompt is one that the task LM can read, for each of the rows; but
    for those that leave no room for anything beside them.
    """
    return all(reads(program, row) or not reads(bare(program), row) for row in rows)


def reads(program: Program, row: dspy.Example) -> bool:
    """Whether the task LM can read each step's whole prompt for this row."""
    room = room_of(dspy.settings.lm)
    return all(room.fits(p, p.count("\n--- ") + 1) for p in prompts(program, row))


def bare(program: Program) -> Program:
    """The program without what it shows beside its input, in its format."""
    plain = student(program.task)
    plain.format = program.format
    return plain


def fitting(
    candidates: Iterable[Program], rows: Sequence[dspy.Example], most: int | None = None
) -> list[Program]:
    """The first `most` candidates that fit, all by default; the first one where none does. No more
    of them are made and measured than it takes.
    """
    tried, again = itertools.tee(candidates)
    fit = itertools.islice((candidate for candidate in tried if fits(candidate, rows)), most)
    return list(fit) or list(itertools.islice(again, 1))


def fresh(student: Program) -> Program:
    """A copy an optimizer may compile: DSPy refuses a module that was compiled before."""
    copy: Program = student.deepcopy()
    uncompiled(copy)
    return copy


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """DSPy's optimizers print and log their progress; the climb has its own."""
    loggers = [logging.getLogger(name) for name in ("dspy", "optuna", "gepa")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
