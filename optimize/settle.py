"""Settle: read the test rows, once, with the programs found; keep the best, write and register the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from optimize.devset import row_hash
from optimize.diagnosis import Diagnosis
from optimize.evaluate import Evaluation, evaluate
from optimize.finetune.gate import GateRecord
from optimize.ladder import Attempt
from optimize.plateau import COVERAGE
from optimize.preflight import Preflight
from optimize.program import Program, save, student
from optimize.records import GainRecord, RowScores, ScoreRecord
from optimize.references import references
from optimize.report import AttemptRecord, ForgettingRecord, HeadroomRecord, Report, TestRecord, VerdictRecord, score_record
from optimize.session import Session
from optimize.tracking.run import Run


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned program as an Attempt against the best prompt program, its LM and what it forgot."""

    attempt: Attempt
    adapter: Path
    forgetting: ForgettingRecord


@dataclass(frozen=True)
class Findings:
    """What a command knows before the test rows are read. best_val: the best prompt program's outcomes on val."""

    verdict: str
    reason: str
    target: float
    numbers: VerdictRecord
    preflight: Preflight
    diagnosis: Diagnosis
    levers: tuple[str, ...]
    attempts: tuple[AttemptRecord, ...]
    best: Program
    best_val: Evaluation
    headroom: HeadroomRecord | None = None
    tuned: Tuned | None = None


def settle(session: Session, tracked: Run, findings: Findings, opened: GateRecord) -> Report:
    """Baseline, best prompt program and tuned program on test; the tuned one is kept if it wins on val and on test."""
    tuned = findings.tuned
    programs = {"baseline": student(session.task), "prompt": findings.best}
    if tuned and tuned.attempt.program:
        programs["tuned"] = tuned.attempt.program
    found = {}
    for name, program in programs.items():
        session.watch.started(f"{name} on test")
        found[name] = evaluate(program, session.splits.test, session.asking)
    test = _test_record(session, found)
    kept = None
    if tuned and tuned.attempt.gain and test.tuned_gain:
        kept = tuned.attempt.gain.mean > 0 and test.tuned_gain.low > 0
    final = tuned.attempt.program if tuned and kept and tuned.attempt.program else findings.best
    path = session.folder("programs") / f"{tracked.id}.json"
    save(final, path)
    report = _report(session, findings, opened, test, kept, path)
    val = {"prompt": findings.best_val, **({"tuned": tuned.attempt.evaluation} if tuned and tuned.attempt.evaluation else {})}
    for side, evaluated in (("val", val), ("test", found)):
        evaluated = evaluated | {"final": evaluated["tuned" if kept else "prompt"]}
        rows = [row_hash(session.task, e) for e in session.splits.sides()[side]]
        tracked.scores(side, RowScores(rows=rows, programs={name: list(e.scores) for name, e in evaluated.items()}))
    tracked.settle(report, final, findings.best)
    if tuned:
        tracked.attach(tuned.adapter)
    return report


def _report(session: Session, findings: Findings, opened: GateRecord, test: TestRecord, kept: bool | None, path: Path) -> Report:
    usage = session.meter.usage()
    return Report(
        task=session.task.name,
        verdict=findings.verdict,
        reason=findings.reason,
        target=findings.target,
        target_met=test.final(kept).score >= session.target,
        numbers=findings.numbers,
        preflight=findings.preflight,
        diagnosis=findings.diagnosis,
        headroom=findings.headroom,
        levers=list(findings.levers),
        test=test,
        attempts=list(findings.attempts),
        gate=opened,
        tuned_kept=kept,
        forgetting=findings.tuned.forgetting if findings.tuned else None,
        lm=session.config.lm,
        teacher=session.teacher_name,
        seed=session.config.seed,
        rows={name: len(rows) for name, rows in session.splits.sides().items()},
        data_hash=session.splits.digest,
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - session.start, 1),
        program=str(path.relative_to(session.root)),
        next=_next(session, findings, opened.open, kept),
    )


def _test_record(session: Session, found: dict[str, Evaluation]) -> TestRecord:
    return TestRecord(
        **{name: score_record(e) for name, e in found.items()},
        prompt_gain=GainRecord.between(found["baseline"].scores, found["prompt"].scores),
        tuned_gain=GainRecord.between(found["prompt"].scores, found["tuned"].scores) if "tuned" in found else None,
        references={n: ScoreRecord.of(s) for n, s in references(session.task, session.splits.train, session.splits.test).items()},
    )


def _next(session: Session, findings: Findings, opened: bool, kept: bool | None) -> str:
    """The command, or the step, that makes most sense now."""
    task, finetune = session.task.name, session.config.finetune
    rows = findings.numbers.rows_needed
    if findings.verdict == "indecisive" and findings.best_val.coverage < COVERAGE:
        return f"optimize run {task}, once the LM answers again: what it answered is cached"
    some = f"some {rows - len(session.splits.val)} more labelled val rows" if rows else "labelled rows"
    more_rows = f"add {some} to devsets/{task}, then optimize run {task}"
    if opened and findings.tuned is None:
        elsewhere = f"   (or train elsewhere from {session.folder('handoff').relative_to(session.root)})"
        return f"optimize finetune {task} --backend lora" + (elsewhere if finetune == "bundle" else "")
    if kept is False:
        return more_rows + f" --finetune {finetune}"
    return {
        "budget": f"optimize run {task} --max-calls {2 * session.config.max_calls}",
        "indecisive": more_rows,
        "no_headroom": f"optimize check {task} (are the labels and the metric right?), then a stronger --lm",
        "exhausted": f"optimize run {task} --teacher openai/… (a stronger LM to write instructions)",
    }.get(findings.verdict, "optimize ui")
