"""Criteria of what there is to learn from: rows, labels, and who answers for them."""

from __future__ import annotations

from optimize.climb.findings import CONFLICTS, LEAKS
from optimize.climb.preflight import NOISY
from optimize.finetune.criteria.case import Case, Criterion
from optimize.task import Task

# train rows: OpenAI's guide names 50 to 100 as the first to help; 500 is a rule of thumb
LEAST_ROWS, FEW_ROWS, GOOD_ROWS = 50, 100, 500
REASONING_ROWS = 1000  # the same for programs that reason before they answer
LEAST_A_LABEL = 5
LEAST_VAL = 8  # val rows that can tell one epoch from another


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


def declared(task: Task, case: Case, waived: str | None) -> Criterion:
    declared = task.declared
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
