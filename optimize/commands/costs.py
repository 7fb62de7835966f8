"""What a task's program would take for many rows. Asks no LM."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from statistics import fmean

import dspy

from optimize import lm as lms
from optimize.commands.load import saved
from optimize.commands.session import Session
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.files import to_json
from optimize.lm.room import CHARS_A_TOKEN, THOUGHT
from optimize.program.program import Program, parse_program, prompts, student
from optimize.report.costs import MILLION, Costs, LmCost
from optimize.report.record import Report
from optimize.store.champion import champion

SAMPLE = 20  # val rows whose prompts are told by their letters
CALL = 1.0  # seconds that a call is taken to last where none was measured
ENOUGH = 20  # calls of a run that tell how long one takes
AROUND = 8  # tokens around an answer's values


def costs(session: Session, rows: int) -> Costs:
    """For the champion; for the zero-shot prompt where there is none."""
    task, config = session.task, session.config
    program, own, report = student(task), config, None
    with suppress(WorkbenchError):  # no finished run, or one of other fields
        found = saved(task.name, session.root)
        program = parse_program(task, found.text, found.where, lambda t: dspy.LM("openai/unasked"))
        own, report = found.config, champion(session.root, task.name).read("report.json", Report)
    program.lm = None
    calls = (program.votes or 1) * max(1, len(program.predictors()))
    read = calls * _letters(program, session) / CHARS_A_TOKEN
    wrote = calls * (_answer(session) / CHARS_A_TOKEN + AROUND + THOUGHT * (program.reasoning > 0))
    names = dict.fromkeys([(own.lm, own.api_base), *config.lms])
    return Costs(
        rows=rows,
        program="champion" if report else "zero-shot prompt",
        calls=calls,
        tokens_in=read,
        tokens_out=wrote,
        lms=[
            _lm_cost(name, base, rows, (calls, read, wrote), config, report if not n else None)
            for n, (name, base) in enumerate(names)
        ],
        tuned_saves=_tuned_saves(report),
    )


def _lm_cost(
    name: str,
    base: str | None,
    rows: int,
    each: tuple[float, float, float],
    config: RunConfig,
    report: Report | None,
) -> LmCost:
    """each: calls, tokens read and tokens written for a row. report: of this LM's last run."""
    price, measured = lms.price(name, base), call_rate(report)
    rate = measured or (1 if is_local(name) else config.in_flight_of(name)) / CALL
    calls, read, wrote = each
    wrote += calls * THOUGHT * lms.thinks(name, base)
    usd = rows * (read * price[0] + wrote * price[1]) if price else None
    seconds = rows * calls / rate
    return LmCost(lm=name, usd=usd, rate=rate, measured=bool(measured), seconds=seconds)


def call_rate(report: Report | None) -> float | None:
    """LM calls a second in the climb; None where too few were made."""
    asked = [a for a in report.attempts if a.lm_calls and a.seconds] if report else []
    calls = sum(a.lm_calls for a in asked)
    return calls / sum(a.seconds for a in asked) if calls >= ENOUGH else None


def _letters(program: Program, session: Session) -> float:
    """Of a prompt, on average; rows are looked up by their words, as an embedder may cost money."""
    if program.neighbours:
        program.neighbours = replace(program.neighbours, embedder=None)
    if program.passages:
        program.passages = replace(program.passages, embedder=None)
    rows = session.splits.val[:SAMPLE]
    return fmean(len(prompt) for row in rows for prompt in prompts(program, row))


def _answer(session: Session) -> float:
    names = list(session.task.signature.output_fields)
    return fmean(len(to_json({n: e[n] for n in names})) for e in session.splits.val[:SAMPLE])


def _tuned_saves(report: Report | None) -> float | None:
    effects = report.effects if report else None
    before, after = (effects.price_before, effects.price_after) if effects else (None, None)
    if not (before and after) or before.usd is None or after.usd is None:
        return None
    return MILLION * (before.usd - after.usd)
