"""The command, or the step, that makes most sense after a run."""

from __future__ import annotations

from optimize.climb.verdict import COVERAGE
from optimize.commands.session import Session
from optimize.finetune import command
from optimize.finetune.forgetting import replayable
from optimize.report.record import Report

# general instructions that are advised where a tuned LM has forgotten too much; docs/results.md
REPLAYED = 100


def next_step(report: Report, session: Session) -> str:
    """From all that the report says beside it."""
    task, config = report.task, session.config
    if report.verdict == "indecisive" and report.numbers.best.coverage < COVERAGE:
        return f"optimize run {task}, once the LM answers again: what it answered is cached"
    if report.decision:
        if step := _after_tuning(report, session):
            return step
    elif report.gate.open:
        elsewhere = (
            f"   (or train elsewhere from {session.folder('handoff').relative_to(session.root)})"
        )
        return command(task, config.lm) + (elsewhere if config.finetune == "bundle" else "")
    elif report.final.low >= report.target:  # beyond its interval
        return "optimize ui"
    return {
        "budget": f"optimize run {task} --max-calls {2 * config.max_calls}",
        "indecisive": _more_rows(report),
        "no_headroom": f"optimize check {task} (are the labels and the metric right?), then a "
        "stronger --lm",
        "exhausted": f"optimize run {task} --teacher openai/… (a stronger LM to write "
        "instructions)",
    }.get(report.verdict, "optimize ui")


def _after_tuning(report: Report, session: Session) -> str:
    """Forget less, where something broke that had to hold or that is all there is against the tuned
    LM; else more rows.
    """
    assert report.decision
    config, accepted = session.config, report.decision.accepted
    regressed = [f for f in report.forgetting if f.regressed]
    vetoed, again = any(f.named for f in regressed), command(report.task, config.lm)
    replay = min(REPLAYED, len(replayable(session.root)))
    if regressed and (vetoed or accepted) and replay > config.replay == 0:
        return (
            f"{again} --replay {replay} ({regressed[0].name} got worse; this keeps more of "
            "what the LM "
            "could do)"
        )
    if vetoed:
        replayed = f" --replay {config.replay}" if config.replay else ""
        return f"{again}{replayed} --epochs {max(1, config.epochs // 2)} (fewer passes forget less)"
    return "" if accepted else f"{_more_rows(report)} --finetune {config.finetune}"


def _more_rows(report: Report) -> str:
    rows = report.numbers.rows_needed
    some = f"some {rows - report.rows['val']} more labelled val rows" if rows else "labelled rows"
    return f"add {some} to devsets/{report.task}, then optimize run {report.task}"
