"""Instructions: DSPy's optimizers that rewrite them. Each is sized by its share of calls and the
number of rows.
"""

from __future__ import annotations

import dspy

from optimize.climb.rungs.base import BOOTSTRAP, SEARCH, Context, fresh, hushed
from optimize.program.program import Program
from optimize.scoring.evaluate import feedback_metric, float_metric


def mipro(student: Program, context: Context) -> Program:
    """MIPROv2: proposed instructions and demo sets, searched with Bayesian optimization."""
    pool, search = context.halves()
    # the default program's evaluation, two demo sets, the proposals
    overhead = 2 * len(search) + 2 * BOOTSTRAP
    trials = context.affordable(len(search), least=2, most=6, overhead=overhead)
    optimizer = dspy.MIPROv2(
        metric=float_metric(context.task),
        prompt_model=context.teacher,
        teacher_settings={"lm": context.teacher},
        auto=None,
        num_candidates=3,
        max_bootstrapped_demos=2,
        max_labeled_demos=4,
        num_threads=context.threads,
        max_errors=len(context.train),
        seed=context.seed or 9,  # DSPy ignores 0
        verbose=False,
    )
    with hushed():
        compiled: Program = optimizer.compile(
            fresh(student),
            trainset=pool[:BOOTSTRAP],
            valset=search,
            num_trials=trials,
            minibatch=False,
            program_aware_proposer=False,
            view_data_batch_size=5,
        )
    return compiled


def simba(student: Program, context: Context) -> Program:
    """SIMBA: rules and demos drawn from the rows on which the program's answers vary most.

    A step asks a batch of each of its samples and of the programs made of them, one more; at the
    end the first program and each step's best are asked on all its rows, so that it gets only some.
    """
    pool, search = context.halves()
    rows = (search + pool)[: 2 * SEARCH]
    batch, candidates = min(16, len(rows)), 3
    made = candidates + 1
    steps = context.affordable(
        (candidates + made) * batch + made + len(rows), least=1, most=4, overhead=len(rows)
    )
    optimizer = dspy.SIMBA(
        metric=float_metric(context.task),
        bsize=batch,
        num_candidates=candidates,
        max_steps=steps,
        max_demos=2,
        prompt_model=context.teacher,
        num_threads=context.threads,
    )
    with hushed():
        compiled: Program = optimizer.compile(fresh(student), trainset=rows, seed=context.seed)
    return compiled


def gepa(student: Program, context: Context) -> Program:
    """GEPA: instructions evolved by reflection on the metric's feedback."""
    pool, search = context.halves()
    passes = context.affordable(len(search), least=3, most=20)
    optimizer = dspy.GEPA(
        metric=feedback_metric(context.task),
        # it may overshoot by one pass over the search rows
        max_metric_calls=(passes - 1) * len(search),
        reflection_lm=context.teacher,
        num_threads=context.threads,
        seed=context.seed,
    )
    with hushed():
        compiled: Program = optimizer.compile(fresh(student), trainset=pool, valset=search)
    return compiled


def copro(student: Program, context: Context) -> Program:
    """COPRO: instructions proposed and refined by coordinate ascent."""
    _, search = context.halves()
    breadth = 3
    depth = context.affordable(breadth * (len(search) + 1), least=1, most=3, overhead=len(search))
    optimizer = dspy.COPRO(
        prompt_model=context.teacher,
        metric=float_metric(context.task),
        breadth=breadth,
        depth=depth,
    )
    settings = {"num_threads": context.threads, "display_progress": False, "display_table": 0}
    with hushed(), dspy.context(max_errors=len(context.train)):
        compiled: Program = optimizer.compile(fresh(student), trainset=search, eval_kwargs=settings)
    return compiled
