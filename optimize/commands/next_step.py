"""The command, or the step, that makes most sense after a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optimize.climb.rungs import LEFT_OUT
from optimize.climb.verdict import COVERAGE, FAMILIES
from optimize.commands.session import Session
from optimize.config import command_line
from optimize.data.judging_rows import judging_share
from optimize.data.split import SHARES
from optimize.finetune import finetune_command, untrainable
from optimize.finetune.criteria.case import higher_cap
from optimize.finetune.forgetting import replayable, replays
from optimize.report.record import Report
from optimize.store.open import is_shared

# general instructions that are advised where a tuned LM has forgotten too much; docs/results.md
REPLAYED = 100


@dataclass(frozen=True)
class Step:
    """A command that can be given as it is printed. first: what a person does before it. note: why
    this one.
    """

    command: str
    first: str = ""
    note: str = ""


def next_step(report: Report, session: Session) -> Step:
    """From all that the report says beside it."""
    again = command_line("run", report.task, report.knobs)
    # a server that has the runs shows them itself
    look = f"optimize report {report.task} --details" if is_shared() else "optimize ui"
    if report.verdict == "indecisive" and report.numbers.best.coverage < COVERAGE:
        note = "what it answered is cached; shorten or take out rows that it will never answer"
        return Step(again, "wait until the LM answers again", note)
    if report.decision:
        if step := _after_tuning(report, session):
            return step
    elif report.gate.open:
        return _tune_or_hand_off(report, session)
    elif report.verdict == "reached":
        return Step(look, note=f'or use it: optimize try {report.task} "…"')
    raised = report.knobs | higher_cap(report.preflight.cost.plan, report.cap, report.knobs)
    check = command_line("check", report.task, report.knobs)
    return {
        "budget": Step(command_line("run", report.task, raised)),
        "indecisive": _more_rows(report, session),
        "unconfirmed": _more_rows(report, session),
        "degenerate": Step(
            look,
            note="look at prompts and answers, then change the instruction, the output's fields "
            "or --lm",
        ),
        "plateau": Step(look) if report.gate.open else _open_the_gate(report),
        "no_headroom": Step(
            check, note="are the labels and the metric right? Else a stronger --lm"
        ),
        "exhausted": _levers_left_out(report)
        or Step(again, "choose a stronger LM that writes instructions (--teacher MODEL)"),
    }.get(report.verdict, Step(look))


def _tune_or_hand_off(report: Report, session: Session) -> Step:
    """Fine-tune here, if that can be done with this LM; rows for others otherwise."""
    elsewhere = command_line("handoff", report.task, report.knobs)
    if report.failed:  # what it was that failed is in the report
        told = "once what failed above is mended"
        if session.config.finetune == "bundle":
            return Step(elsewhere, note=told)
        return Step(finetune_command(report.task, report.knobs), note=told)
    if why := untrainable(session.config):
        return Step(elsewhere, note=f"rows to train elsewhere. {why}")
    folder = session.folder("handoff").relative_to(session.home)
    bundled = session.config.finetune == "bundle"
    note = f"or train elsewhere from {folder}" if bundled else ""
    if session.config.api_base:  # a server of one's own seldom trains
        other = f"train elsewhere from {folder}" if bundled else elsewhere
        note = f"if that server fine-tunes; else {other}"
    return Step(finetune_command(report.task, report.knobs), note=note)


def _open_the_gate(report: Report) -> Step:
    """What meets the first criterion that failed, or where all of them are told."""
    gate = Step(command_line("gate", report.task, report.knobs), note="what keeps it closed")
    first = next(iter(report.gate.failed), None)
    if first is None or not first.command:
        return gate
    return Step(first.command, note=f"{first.name}: {first.value}. {first.advice}".strip(" ."))


def _after_tuning(report: Report, session: Session) -> Step | None:
    """Forget less, where something broke that had to hold or that is all there is against the tuned
    LM; else more rows.
    """
    assert report.decision
    config, accepted = session.config, report.decision.accepted
    regressed = [f for f in report.forgetting if f.regressed]
    vetoed = any(f.named for f in regressed)
    replay = min(REPLAYED, len(replayable(session.root)))
    replayed = replays(config, len(session.splits.train), session.root)

    def again(**changed: Any) -> str:
        return finetune_command(report.task, report.knobs | changed)

    if regressed and (vetoed or accepted) and replay > replayed == 0:
        note = f"{regressed[0].name} got worse; this keeps more of what the LM could do"
        changed: dict[str, Any] = {"replay": replay}
        if untrainable(config.model_copy(update=changed)):  # OpenAI's preferences take no others
            changed["method"] = "sft"
        if not untrainable(config.model_copy(update=changed)):
            return Step(again(**changed), note=note)
    if vetoed and config.epochs > 1:
        return Step(again(epochs=config.epochs // 2), note="fewer passes forget less")
    if vetoed:
        look = f"optimize report {report.task} --details"
        return Step(look, note="what the tuned LM can no longer do, and which rows taught it")
    return None if accepted else _more_rows(report, session)


def _levers_left_out(report: Report) -> Step | None:
    """Where there are such that would do for those that are lacking, the climb with them."""
    left_out = [a.rung for a in report.attempts if a.skipped == LEFT_OUT and a.family in FAMILIES]
    if not left_out:
        return None
    # they may be left out by the project's file, which no flag takes back
    command = command_line("run", report.task, report.knobs | {"without": None})
    return Step(command, f"take back `without` ({', '.join(left_out)})")


def _more_rows(report: Report, session: Session) -> Step:
    """Those that the command left out; else new ones, of which a set that is one file gives a share
    to val.
    """
    splits, side = session.splits, "test" if report.verdict == "unconfirmed" else "val"
    whole = len((splits.whole or splits).sides()[side])
    again = command_line("run", report.task, report.knobs | {f"{side}_rows": None})
    if left := whole - len(splits.sides()[side]):
        # said by a flag, since the project's file may say otherwise
        more = command_line("run", report.task, report.knobs | {f"{side}_rows": whole})
        return Step(more, note=f"with the {left} {side} rows that were left out")
    numbers = report.numbers
    needed, judged = numbers.rows_needed, numbers.best.n
    if side == "test":
        needed, judged = numbers.test_rows_needed, report.test.prompt.n
    if not needed and report.verdict == "indecisive":
        note = "what goes wrong; another --lm or --target decides sooner than more rows"
        return Step(f"optimize failures {report.task}", note=note)
    if not needed:
        return Step(again, f"add labelled rows to devsets/{report.task}")
    some = f"some {needed - judged} more labelled {side} rows"
    if not splits.given:
        share = SHARES["test"] if side == "test" else judging_share(needed)
        rows = math.ceil((needed - judged) / share)
        some = f"some {rows} more labelled rows"
    return Step(again, f"add {some} to devsets/{report.task}")
