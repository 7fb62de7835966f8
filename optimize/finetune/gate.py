"""May this task be fine-tuned? A pure function of the record. Knows no LM and no rows."""

from __future__ import annotations

from optimize.finetune.criteria import learning, prompting
from optimize.finetune.criteria.case import Case, Criterion
from optimize.stats.records import Record
from optimize.task import Task


class GateRecord(Record):
    """Open only if no criterion failed.

    waived: the operator's reason for going on without a stable task or an owner.
    """

    open: bool
    criteria: list[Criterion]
    waived: str | None = None

    @property
    def reasons(self) -> list[str]:
        """Why it is closed, and what would open it; or what it stands on, and what to mind."""
        return [str(c) for c in self.failed] or [
            str(c) for c in self.criteria if c.passed is None or c.name in ("verdict", "train rows")
        ]

    @property
    def failed(self) -> list[Criterion]:
        return [c for c in self.criteria if c.passed is False]


def gate(task: Task, case: Case, waived: str | None = None) -> GateRecord:
    """Every criterion of the task's case.

    Only a plateau below target, of a kind that weights mend, on sound rows, opens it.
    """
    found = [
        prompting.verdict(task, case),
        prompting.test_rows(case),
        prompting.left_out(task, case),
        prompting.retrieval(task, case),
        prompting.kind_of_failure(task, case),
        learning.train_rows(case),
        learning.steps(case),
        learning.labels_covered(case),
        learning.contradictions(task, case),
        learning.overlap(task, case),
        learning.random_labels(task, case),
        learning.annotators(case),
        prompting.no_lm_needed(case),
        prompting.gain_to_be_had(task, case),
        prompting.teacher(task, case),
        learning.declared(task, case, waived),
    ]
    judged = [criterion for criterion in found if criterion]
    return GateRecord(
        open=all(c.passed is not False for c in judged), criteria=judged, waived=waived
    )
