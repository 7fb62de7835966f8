"""Criteria of what prompting has shown: the verdict, what goes wrong, what else would do."""

from __future__ import annotations

from optimize.climb.preflight import DIFFER
from optimize.climb.rungs.passages import without_corpus
from optimize.climb.verdict import CONFIRMED, contradicts_plateau
from optimize.finetune import finetune_command
from optimize.finetune.criteria.case import Case, Criterion
from optimize.scoring.failures import Kind
from optimize.stats.intervals import smallest_gain
from optimize.stats.records import percent
from optimize.task import Task

# failures that weights are the wrong remedy for
OUTSIDE: tuple[Kind, ...] = ("too_long", "cut", "schema", "knowledge", "labels")
OUTSIDE_SHARE = 0.5  # of the points lost


def verdict(task: Task, case: Case) -> Criterion:
    plateau = case.verdict == "plateau"
    passed = plateau and case.best.score < case.target
    run = case.command("run", task, **case.higher_cap)
    check = case.command("check", task)
    advice, command = {
        "plateau": ("At that target prompting is enough; weights need not change.", ""),
        "reached": (
            f"Prompting reached the target{_credit(case)}; weights need not change.",
            "",
        ),
        "budget": ("It is not shown that prompting cannot reach the target.", run),
        "no_headroom": ("Mend labels and metric, or take a stronger LM.", check),
        "degenerate": (
            "The LM answers without reading its input: look at prompts and answers in the MLflow "
            "UI, then change the signature's instruction, the output's fields or the LM.",
            "optimize ui",
        ),
        "unconfirmed": ("Val says that prompting reaches the target. Add labelled rows.", ""),
    }.get(
        case.verdict,
        (
            "It is not shown that prompting cannot reach the target: see the verdict for what "
            "would show it.",
            "",
        ),
    )
    return Criterion(
        name="verdict",
        passed=passed,
        value=f"{case.verdict}, {case.best.with_n}",
        threshold=f"a plateau below {case.target}",
        source="docs/verdict.md",
        advice="" if passed else advice,
        command="" if passed else command,
    )


def _credit(case: Case) -> str:
    if not case.levers:
        return " without any lever"
    name = max(case.levers, key=lambda lever: case.levers[lever])
    return f"; the lever that gained most was {name} ({case.levers[name]:+.3f})"


def test_rows(case: Case) -> Criterion | None:
    """Rows that no choice has touched must not speak against the plateau."""
    if case.verdict != "plateau":
        return None
    if case.on_test is None:
        passed, value = False, "too many of their calls failed to tell"
        advice = "Run again: what was answered is kept, and only the calls that failed are sent."
    else:
        passed = not contradicts_plateau(case.on_test)
        below = percent(1 - case.on_test)
        value = f"the best program is below the target with a probability of {below}"
        advice = "Val and test rows disagree. Add labelled rows, then run again."
    return Criterion(
        name="test rows agree",
        passed=passed,
        value=value,
        threshold=f"{percent(CONFIRMED)} at least",
        source="the test rows",
        advice="" if passed else advice,
    )


def retrieval(task: Task, case: Case) -> Criterion | None:
    if without_corpus(task):
        return None
    passed = "retrieval" in case.families
    without = list(case.knobs.get("without", ()))
    if left_out := "passages" in without:
        without.remove("passages")
    return Criterion(
        name="retrieval",
        passed=passed,
        value="scored" if passed else "not scored",
        threshold="tried where the task has a corpus",
        source="the climb",
        advice=""
        if passed
        else f"Missing knowledge is no case for weights.{' Take back `without`.' * left_out}",
        command="" if passed else case.command("run", task, **case.higher_cap, without=without),
    )


def left_out(task: Task, case: Case) -> Criterion | None:
    """A plateau says nothing of levers that were not to be tried."""
    levers = case.knobs.get("without", ())
    if case.verdict != "plateau" or not levers:
        return None
    return Criterion(
        name="levers left out",
        passed=None,
        value=", ".join(levers),
        threshold="a plateau says nothing of them",
        source="--without",
        advice="Take back `without`: trying them costs less than tuning.",
        command=case.command("run", task, without=None),
    )


def kind_of_failure(task: Task, case: Case) -> Criterion:
    """The kind that costs most decides the advice."""
    share, kinds = case.diagnosis.share(*OUTSIDE), case.diagnosis.kinds
    passed = share < OUTSIDE_SHARE
    worst = next((k for k in kinds if k.kind in OUTSIDE), None)
    look = case.command("check" if worst and worst.kind == "labels" else "run", task)
    fits = f"What fits is {worst.lever}." if worst and not passed else ""
    tried = "retrieval" in case.families and "passages" not in case.levers
    if fits and worst and worst.kind == "knowledge" and tried:
        by_meaning = "" if case.knobs.get("embedder") else ", or find them by meaning (--embedder)"
        fits = f"Passages were tried and not built on: mend the corpus{by_meaning}, then run again."
    return Criterion(
        name="kind of failure",
        passed=passed,
        value=", ".join(f"{k.kind} {k.count}" for k in kinds) or "none",
        threshold=f"less than {OUTSIDE_SHARE:.0%} of the points lost to {', '.join(OUTSIDE)}",
        source="the best prompt program's val rows",
        advice=fits,
        command=look if worst and not passed else "",
    )


def no_lm_needed(case: Case) -> Criterion | None:
    """A cheaper answer than weights."""
    if not case.preflight.baselines:
        return None
    name, score = max(case.preflight.baselines.items(), key=lambda item: item[1].score)
    passed = score.score < case.target
    return Criterion(
        name="no LM needed",
        passed=passed,
        value=f"{name} scores {score} (cross-validated)",
        threshold=f"below {case.target}",
        source="the preflight",
        advice="" if passed else f"Use {name} instead of an LM.",
    )


def gain_to_be_had(task: Task, case: Case) -> Criterion | None:
    """A gain that is not worth weights, or that the test rows could not show, could not be accepted
    either.
    """
    missing, seen = (
        case.target - case.best.score,
        smallest_gain(case.preflight.rows["test"], DIFFER),
    )
    if missing <= 0:
        return None
    passed = False if missing < task.least_gain else None if missing < seen else True
    small = (
        f"So little is not worth weights by Task(least_gain={task.least_gain}); lower that if it "
        "is."
    )
    return Criterion(
        name="gain to be had",
        passed=passed,
        value=f"{missing:.2f} short of the target",
        threshold=f"{task.least_gain} at least, better {seen:.2f}, what "
        f"{case.preflight.rows['test']} test rows show with 80 % probability",
        source="the corrected score",
        advice={
            False: small,
            None: "Add test rows: a gain of that size could not be shown.",
            True: "",
        }[passed],
    )


def teacher(task: Task, case: Case) -> Criterion | None:
    """Where a dearer LM is good enough, the cost is what is wrong."""
    if case.teacher is None or case.teacher.score < case.target:
        return None
    return Criterion(
        name="teacher",
        passed=None,
        value=f"scores {case.teacher} with the same prompt",
        threshold="below the target, or distil it",
        source="--headroom",
        advice="What is wrong is the cost. Use the teacher, or distil it.",
        command=finetune_command(task.name, {**case.knobs, "method": "distill"}),
    )
