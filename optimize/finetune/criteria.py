"""What fine-tuning hangs on, a function a criterion: its value on record, the threshold, and what
would meet it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from optimize.climb.findings import CONFLICTS, LEAKS
from optimize.climb.preflight import DIFFER, NOISY, Preflight
from optimize.climb.verdict import CONFIRMED, Family, contradicts_plateau
from optimize.config import RunConfig, command_line
from optimize.finetune import finetune_command
from optimize.finetune.steps import TraceCount
from optimize.scoring.failures import Diagnosis, Kind
from optimize.stats.intervals import smallest_gain
from optimize.stats.records import Record, ScoreRecord
from optimize.task import Task

# train rows: OpenAI's guide names 50 to 100 as the first to help; 500 is a rule of thumb
LEAST_ROWS, FEW_ROWS, GOOD_ROWS = 50, 100, 500
REASONING_ROWS = 1000  # the same for programs that reason before they answer
LEAST_A_LABEL = 5
LEAST_VAL = 8  # val rows that can tell one epoch from another
# failures that weights are the wrong remedy for
OUTSIDE: tuple[Kind, ...] = ("schema", "knowledge", "labels")
OUTSIDE_SHARE = 0.5  # of the points lost


class Criterion(Record):
    """One thing fine-tuning hangs on.

    passed: null where it is a warning. source: where the value comes from.
    """

    name: str
    passed: bool | None
    value: str
    threshold: str
    source: str
    advice: str = Field("", description="what would meet it, where it is not met")
    command: str = Field(default="", description="the command for that, where there is one")

    def __str__(self) -> str:
        return f"{self.name}: {self.value} ({self.threshold}). {self.remedy}".strip()

    @property
    def remedy(self) -> str:
        """What to do, in one or two sentences."""
        return " ".join(filter(None, [self.advice, self.command and f"Next: {self.command}"]))


@dataclass(frozen=True)
class Case:
    """What a gate judges, all of it on record. best: the corrected val score. on_test: probability,
    by the test rows alone, that the best program is at the target; None where they were not read.
    levers: gain of each rung that won.

    families: of the levers that were scored. reasons: the program reasons before it answers.
    teacher: another LM's val score with the same prompt, where it was asked. steps: the names of
    the program's steps whose outputs the rows do not label. traces: rows that can teach these; None
    where nobody has counted them. knobs: of the climb's run, as far as they differ from their
    defaults.
    """

    verdict: str
    target: float
    best: ScoreRecord
    on_test: float | None
    levers: Mapping[str, float]
    families: Sequence[Family]
    preflight: Preflight
    diagnosis: Diagnosis
    reasons: bool
    teacher: ScoreRecord | None = None
    steps: Sequence[str] = ()
    traces: TraceCount | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def command(self, name: str, task: Task, **changed: Any) -> str:
        """The command with the flags of the climb's run, some of them changed."""
        return command_line(name, task.name, {**self.knobs, **changed})

    @property
    def more_calls(self) -> int:
        """A cap on LM calls that is surely higher than the one that was too low."""
        default = RunConfig.model_fields["max_calls"].default
        return 2 * max(int(self.knobs.get("max_calls", default)), self.preflight.cost.plan.enough)


def verdict(task: Task, case: Case) -> Criterion:
    plateau = case.verdict == "plateau"
    passed = plateau and case.best.score < case.target
    run = case.command("run", task, max_calls=case.more_calls)
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
        value=f"{case.verdict}, {case.best} on val",
        threshold=f"a plateau below {case.target}",
        source="docs/verdict.md",
        advice="" if passed else advice,
        command="" if passed else command,
    )


def test_rows(case: Case) -> Criterion | None:
    """Rows that no choice has touched must not speak against the plateau."""
    if case.verdict != "plateau" or case.on_test is None:
        return None
    passed = not contradicts_plateau(case.on_test)
    return Criterion(
        name="test rows agree",
        passed=passed,
        value=f"the best program is below the target with a probability of {1 - case.on_test:.1%}",
        threshold=f"{CONFIRMED:.0%} at least",
        source="the test rows",
        advice="" if passed else "Val and test rows disagree. Add labelled rows, then run again.",
    )


def _credit(case: Case) -> str:
    if not case.levers:
        return " without any lever"
    name = max(case.levers, key=lambda lever: case.levers[lever])
    return f"; the lever that gained most was {name} ({case.levers[name]:+.3f})"


def retrieval(task: Task, case: Case) -> Criterion | None:
    if not task.corpus:
        return None
    passed = "retrieval" in case.families
    return Criterion(
        name="retrieval",
        passed=passed,
        value="scored" if passed else "not scored",
        threshold="tried where the task has a corpus",
        source="the climb",
        advice="" if passed else "Missing knowledge is no case for weights.",
        command="" if passed else case.command("run", task, max_calls=case.more_calls),
    )


def kind_of_failure(task: Task, case: Case) -> Criterion:
    """The kind that costs most decides the advice."""
    share, kinds = case.diagnosis.share(*OUTSIDE), case.diagnosis.kinds
    passed = share < OUTSIDE_SHARE
    worst = next((k for k in kinds if k.kind in OUTSIDE), None)
    look = case.command("check" if worst and worst.kind == "labels" else "run", task)
    return Criterion(
        name="kind of failure",
        passed=passed,
        value=", ".join(f"{k.kind} {k.count}" for k in kinds) or "none",
        threshold=f"less than {OUTSIDE_SHARE:.0%} of the points lost to {', '.join(OUTSIDE)}",
        source="the best prompt program's val rows",
        advice=f"What fits is {worst.lever}." if worst and not passed else "",
        command=look if worst and not passed else "",
    )


def train_rows(case: Case) -> Criterion:
    """Rows of people: those that an LM wrote are told beside them and meet nothing."""
    rows, good = case.preflight.rows["train"], REASONING_ROWS if case.reasons else GOOD_ROWS
    passed = (
        False
        if rows < LEAST_ROWS
        else None
        if rows < (good if case.reasons else FEW_ROWS)
        else True
    )
    return Criterion(
        name="train rows",
        passed=passed,
        value=f"{rows} train rows to learn from{_synthetic(case)}",
        threshold=f"{LEAST_ROWS} at least, better {FEW_ROWS}, good {good}",
        source="the split",
        advice=""
        if passed
        else f"Label {max(FEW_ROWS, good if case.reasons else 0) - rows} more rows.",
    )


def _synthetic(case: Case) -> str:
    found = case.preflight.synthetic
    return f", and {found} synthetic ones that do not count" if found else ""


def steps(case: Case) -> Criterion | None:
    """Rows label what a program answers; its inner steps are taught from right answers."""
    if not case.steps:
        return None
    found, names = case.traces, ", ".join(case.steps)
    passed: bool | None = None
    value, advice = f"{names}: learned from answers that are right, not counted yet", ""
    if found and found.problem:
        passed, value = False, f"{names}: its traces cannot be had. {found.problem}"
        advice = "Mend that, or write the program as one step (dspy.Predict)."
    elif found:
        enough = found.train >= LEAST_ROWS and found.val >= LEAST_VAL
        passed = None if enough and found.train < FEW_ROWS else enough
        value = f"{names}: {found.train} train and {found.val} val rows answered right"
        advice = "" if passed else "Label more rows, or write the program as one step."
    return Criterion(
        name="steps without labels",
        passed=passed,
        value=value,
        threshold=f"{LEAST_ROWS} train and {LEAST_VAL} val rows at least, better {FEW_ROWS} train",
        source="the best prompt program's answers that score 1.0",
        advice=advice,
    )


def labels_covered(case: Case) -> Criterion | None:
    shown = case.preflight.label_rows
    if not shown:
        return None
    missing, few = (
        [name for name, n in shown.items() if n == 0],
        [name for name, n in shown.items() if 0 < n < LEAST_A_LABEL],
    )
    passed = False if missing else None if few else True
    return Criterion(
        name="labels covered",
        passed=passed,
        value=f"{len(shown) - len(missing)} of {len(shown)}, the rarest with {min(shown.values())} "
        "rows",
        threshold=f"every label, better with {LEAST_A_LABEL} train rows",
        source="the train rows",
        advice="" if passed else f"Add train rows for {', '.join((missing or few)[:5])}.",
    )


def contradictions(task: Task, case: Case) -> Criterion:
    advice = "Decide which label is right; the check lists them."
    return _none_of("contradictions", CONFLICTS, task, case, advice)


def overlap(task: Task, case: Case) -> Criterion:
    advice = (
        "Move or remove them; the check lists them. A single rows.jsonl is split without overlap."
    )
    return _none_of("overlap", LEAKS, task, case, advice)


def _none_of(name: str, what: str, task: Task, case: Case, advice: str) -> Criterion:
    found = case.preflight.count(what)
    return Criterion(
        name=name,
        passed=not found,
        value=f"{found} {what}",
        threshold="none",
        source="the preflight",
        advice=advice if found else "",
        command=f"{case.command('check', task)} --details" if found else "",
    )


def random_labels(task: Task, case: Case) -> Criterion | None:
    share = case.preflight.random_labels
    if share is None:
        return None
    passed = share.low <= NOISY
    return Criterion(
        name="random labels",
        passed=passed,
        value=f"{share.score:.0%} [{share.low:.0%}, {share.high:.0%}]",
        threshold=f"not surely above {NOISY:.0%}",
        source="the preflight (an estimate, some 5 to 12 points high)",
        advice=""
        if passed
        else "Mend the labels first, a tuned LM would learn them; the check lists possible label "
        "errors.",
        command="" if passed else case.command("check", task),
    )


def annotators(case: Case) -> Criterion | None:
    found = case.preflight.agreement
    if found is None:
        return None
    passed = found.person >= case.target
    return Criterion(
        name="annotators",
        passed=passed,
        value=f"a person scores {found.person:.2f} against the others (alpha {found.alpha:.2f})",
        threshold=f"the target, {case.target}",
        source="the raters' labels",
        advice=""
        if passed
        else "Sharpen the labelling rule, or lower the target to what a person reaches.",
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


def declared(task: Task, case: Case, waived: str | None) -> Criterion:
    declared = task.stability == "stable" and bool(task.owner)
    value = (
        f"{task.stability or 'stability not said'}, "
        f"{'owner ' + task.owner if task.owner else 'no owner'}"
    )
    return Criterion(
        name="stable and owned" if declared or not waived else "waived",
        passed=declared or bool(waived),
        value=value if declared or not waived else f"{value}; waived: {waived}",
        threshold="declared stable, with an owner who will mend and train it again",
        source=f"programs/{task.name}.py",
        advice=""
        if declared or waived
        else 'Say so in Task(stability="stable", owner="…"), or give --waive "reason".',
        command="" if declared or waived else case.command("gate", task),
    )
