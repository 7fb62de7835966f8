"""Fine-tune from the last climb, without climbing again."""

from __future__ import annotations

import dspy

from optimize.commands.finish import Findings, settle
from optimize.commands.gate import last_climb
from optimize.commands.session import Both, Session, tracked_run
from optimize.commands.tune import tune
from optimize.errors import WorkbenchError
from optimize.finetune import BACKENDS
from optimize.report.record import Report
from optimize.scoring.evaluate import evaluate


def finetune_last(session: Session) -> Report:
    """Fine-tune from the last climb, without climbing again;

    its calls are answered from the cache.
    """
    if session.config.finetune not in BACKENDS:
        raise WorkbenchError(
            f"{session.config.finetune!r} trains nothing: {', '.join(BACKENDS)}. `optimize "
            "handoff` writes rows for trainers elsewhere."
        )
    session, last, opened, best = last_climb(session)
    with tracked_run(session, "finetune") as tracked, dspy.context(lm=session.lm):
        session.watch.started("best prompt program")
        evaluation = evaluate(best, session.splits.val, session.asking)
        tuned = tune(session, best, evaluation)
        for attempt in tuned.attempts:
            Both(tracked, session.watch).finished(attempt)
        findings = Findings(
            verdict=last.verdict,
            reason=last.reason,
            target=session.target,
            numbers=last.numbers,
            preflight=last.preflight,
            diagnosis=last.diagnosis,
            levers=tuple(last.levers),
            attempts=tuple(a for a in last.attempts if a.family != "weights"),
            best=best,
            best_val=evaluation,
            headroom=last.headroom,
            tuned=tuned,
        )
        return settle(session, tracked, findings, opened)
