"""Instructions: DSPy's optimizers that rewrite them. Each is sized by its share of calls and the
number of rows.
"""

from __future__ import annotations

from functools import partial

import dspy

from optimize import lm as lms
from optimize.climb.rungs.base import Context
from optimize.climb.rungs.compiling import compiled
from optimize.climb.rungs.demos import to_bootstrap
from optimize.program.program import Program
from optimize.scoring.metrics import feedback_metric, float_metric

# (candidates, trials, demos) of MIPROv2: its authors' medium and light searches, and the least
MIPRO = ((12, 18, 4), (6, 10, 4), (3, 6, 2))
# batch, candidates and steps of SIMBA's least search, and the examples of one such step
SIMBA = (16, 3, 4)
SIMBA_STEP = (2 * SIMBA[1] + 1) * SIMBA[0] + SIMBA[1] + 1
# breadths of COPRO: its authors', where two rounds of it can be paid, and the least
COPRO = (10, 3)
# GEPA's and COPRO's authors have instructions written at 1 and 1.4; no reasoning model takes
# another temperature than 1, nor do Anthropic's models take more
HEAT = 1.0


def mipro(student: Program, context: Context) -> Program:
    """MIPROv2: proposed instructions and demo sets, searched with Bayesian optimization."""
    pool, search = context.halves()

    def overhead(candidates: int) -> int:
        """The default program's evaluation and a last one, the demo sets, the proposals."""
        return 2 * len(search) + (candidates - 1) * context.a_set()

    sizes = [m for m in MIPRO if context.passes(len(search), overhead(m[0])) >= m[1]]
    candidates, most, demos = (sizes or MIPRO[-1:])[0]
    trials = context.affordable(len(search), least=2, most=most, overhead=overhead(candidates))
    optimizer = partial(
        dspy.MIPROv2,
        metric=float_metric(context.task),
        prompt_model=lms.proposing(context.teacher),
        teacher_settings={"lm": context.teacher},
        auto=None,
        num_candidates=candidates,
        max_bootstrapped_demos=demos,
        max_labeled_demos=4,
        num_threads=context.threads,
        max_errors=len(context.train),
        seed=context.seed or 9,  # DSPy ignores 0
        verbose=False,
    )
    return compiled(
        optimizer,
        student,
        search,
        context,
        trainset=to_bootstrap(pool, context),
        valset=search,
        num_trials=trials,
        minibatch=False,
        program_aware_proposer=False,
        view_data_batch_size=5,
    )


def simba(student: Program, context: Context) -> Program:
    """SIMBA: rules and demos drawn from the rows on which the program's answers vary most.

    A step asks a batch of each of its samples and of the programs made of them, one more; at the
    end the first program and each step's best are asked on all its rows, so that it gets only some.
    """
    pool, search = context.halves()
    rows = (search + pool)[: 2 * len(search)]

    def step(batch: int, candidates: int) -> int:
        """Examples that one step asks."""
        made = candidates + 1
        return (candidates + made) * batch + made + len(rows)

    batch, candidates, most = 32, 6, 8  # its authors'
    if len(rows) < batch or context.passes(step(batch, candidates), len(rows)) < 2:
        batch, candidates, most = SIMBA
        batch = min(batch, len(rows))
    steps = context.affordable(step(batch, candidates), least=1, most=most, overhead=len(rows))
    optimizer = partial(
        dspy.SIMBA,
        metric=float_metric(context.task),
        bsize=batch,
        num_candidates=candidates,
        max_steps=steps,
        max_demos=2,
        prompt_model=lms.proposing(context.teacher),
        num_threads=context.threads,
    )
    return compiled(optimizer, student, rows, context, trainset=rows, seed=context.seed)


def gepa(student: Program, context: Context) -> Program:
    """GEPA: instructions evolved by reflection on the metric's feedback."""
    pool, search = context.halves()
    passes = context.affordable(len(search), least=3, most=20)
    optimizer = partial(
        dspy.GEPA,
        metric=feedback_metric(context.task),
        # it may overshoot by one pass over the search rows
        max_metric_calls=(passes - 1) * len(search),
        reflection_lm=lms.proposing(context.teacher, HEAT),
        num_threads=context.threads,
        seed=context.seed,
    )
    return compiled(optimizer, student, search, context, trainset=pool, valset=search)


def copro(student: Program, context: Context) -> Program:
    """COPRO: instructions proposed and refined by coordinate ascent."""
    _, search = context.halves()
    steps = len(student.predictors())

    def asked(breadth: int, depth: int) -> int:
        """Examples that it asks. Each depth proposes `breadth` instructions for each step; of a
        program of several steps it evaluates those of earlier depths once more.
        """
        evaluated = depth * (depth + 1) // 2 if steps > 1 else depth
        return steps * breadth * (evaluated * len(search) + depth)

    least = (COPRO[1], 1)
    sizes = ((COPRO[0], 3), (COPRO[0], 2), (COPRO[1], 3), (COPRO[1], 2))
    breadth, depth = next((s for s in sizes if context.passes(asked(*s))), least)
    context.check_pays(asked(breadth, depth))
    optimizer = partial(
        dspy.COPRO,
        prompt_model=lms.proposing(context.teacher),
        metric=float_metric(context.task),
        breadth=breadth,
        depth=depth,
        init_temperature=HEAT,
    )
    settings = {"num_threads": context.threads, "display_progress": False, "display_table": 0}
    return compiled(optimizer, student, search, context, trainset=search, eval_kwargs=settings)
