"""Settle: read the test rows, once, with the programs found; keep the best, write and register the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from optimize.evaluate import Evaluation, evaluate
from optimize.finetune.gate import Gate
from optimize.ladder import Attempt
from optimize.program import Program, save, student
from optimize.report import AttemptRecord, ForgettingRecord, GainRecord, GateRecord, Report, ScoreRecord, TestRecord
from optimize.session import Session
from optimize.stats import paired_gain
from optimize.tracking import Run


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned program as an Attempt against the best prompt program, its LM and what it forgot."""

    attempt: Attempt
    adapter: Path
    forgetting: ForgettingRecord


@dataclass(frozen=True)
class Findings:
    """What a command knows before the test rows are read. files: what it wrote for other trainers."""

    verdict: str
    reason: str
    levers: tuple[str, ...]
    gate: Gate
    attempts: tuple[AttemptRecord, ...]
    best: Program
    tuned: Tuned | None = None
    files: tuple[Path, ...] = ()


def settle(session: Session, tracked: Run, findings: Findings) -> Report:
    """Baseline, best prompt program and tuned program on test; the tuned one is kept if it wins on val and on test."""
    tuned = findings.tuned
    programs = {"baseline": student(session.task), "prompt": findings.best}
    if tuned and tuned.attempt.program:
        programs["tuned"] = tuned.attempt.program
    found = {}
    for name, program in programs.items():
        session.watch.started(f"{name} on test")
        found[name] = evaluate(program, session.splits.test, session.task, session.config.threads, session.watch.scored)
    test = _test_record(found)
    kept = None
    if tuned and tuned.attempt.gain and test.tuned_gain:
        kept = tuned.attempt.gain.mean > 0 and test.tuned_gain.low > 0
    final = tuned.attempt.program if tuned and kept and tuned.attempt.program else findings.best
    score = test.tuned if kept and test.tuned else test.prompt
    path = session.folder("programs") / f"{tracked.id}.json"
    save(final, path)
    usage = session.meter.usage()
    report = Report(
        task=session.task.name,
        verdict=findings.verdict,
        reason=findings.reason,
        target=session.target,
        target_met=score.score >= session.target,
        levers=list(findings.levers),
        test=test,
        attempts=list(findings.attempts),
        gate=GateRecord(open=findings.gate.open, reasons=list(findings.gate.reasons)),
        tuned_kept=kept,
        forgetting=tuned.forgetting if tuned else None,
        lm=session.config.lm,
        teacher=session.teacher_name,
        seed=session.config.seed,
        rows={name: len(rows) for name, rows in session.splits.sides().items()},
        data_hash=session.splits.digest,
        notes=[*session.splits.notes, *_notes(findings, score, session.target)],
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - session.start, 1),
        program=str(path.relative_to(session.root)),
        next=_next(session, findings, kept),
    )
    tracked.settle(report, final, findings.best, [*findings.files, *([tuned.adapter] if tuned else [])])
    return report


def _test_record(found: dict[str, Evaluation]) -> TestRecord:
    scores = {name: ScoreRecord.of(e.interval) for name, e in found.items()}
    prompt_gain = GainRecord.of(paired_gain(found["baseline"].scores, found["prompt"].scores))
    tuned_gain = GainRecord.of(paired_gain(found["prompt"].scores, found["tuned"].scores)) if "tuned" in found else None
    return TestRecord(**scores, prompt_gain=prompt_gain, tuned_gain=tuned_gain)


def _notes(findings: Findings, score: ScoreRecord, target: float) -> list[str]:
    if findings.verdict == "reached" and score.score < target:
        return ["val says the target is reached, the held-out test rows do not confirm it: the gap is noise and selection"]
    return []


def _next(session: Session, findings: Findings, kept: bool | None) -> str:
    """The command, or the step, that makes most sense now."""
    task, finetune = session.task.name, session.config.finetune
    more_rows = f"add labelled rows to devsets/{task}, then optimize run {task}"
    if findings.gate.open and findings.tuned is None:
        elsewhere = f"   (or train elsewhere from {session.folder('handoff').relative_to(session.root)})"
        return f"optimize finetune {task} --backend lora" + (elsewhere if finetune == "bundle" else "")
    if kept is False:
        return more_rows + f" --finetune {finetune}"
    return {
        "budget": f"optimize run {task} --max-calls {2 * session.config.max_calls}",
        "indecisive": more_rows,
        "exhausted": f"optimize run {task} --teacher openai/… (a stronger LM to write instructions)",
    }.get(findings.verdict, "optimize ui")
