"""Instructions: DSPy's optimizers that rewrite them. Each is sized by its share of calls and the
number of rows.
"""

from __future__ import annotations

import dspy

from optimize.climb.rungs.base import BOOTSTRAP, Context, fresh, hushed
from optimize.program.program import Program
from optimize.scoring.metrics import feedback_metric, float_metric

# (candidates, trials, demos) of MIPROv2: its authors' medium and light searches, and the least
MIPRO = ((12, 18, 4), (6, 10, 4), (3, 6, 2))
# batch, candidates and steps of SIMBA's least search, and the examples of one such step
SIMBA = (16, 3, 4)
SIMBA_STEP = (2 * SIMBA[1] + 1) * SIMBA[0] + SIMBA[1] + 1


def mipro(student: Program, context: Context) -> Program:
    """MIPROv2: proposed instructions and demo sets, searched with Bayesian optimization."""
    pool, search = context.halves()

    def overhead(candidates: int) -> int:
        """The default program's evaluation and a last one, the demo sets, the proposals."""
        return 2 * len(search) + (candidates - 1) * context.a_set()

    sizes = [m for m in MIPRO if context.passes(len(search), overhead(m[0])) >= m[1]]
    candidates, most, demos = (sizes or MIPRO[-1:])[0]
    trials = context.affordable(len(search), least=2, most=most, overhead=overhead(candidates))
    optimizer = dspy.MIPROv2(
        metric=float_metric(context.task),
        prompt_model=context.teacher,
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
    # its authors' breadth, where two rounds of it can be paid
    breadth = 10 if context.passes(10 * (len(search) + 1), len(search)) >= 2 else 3
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
