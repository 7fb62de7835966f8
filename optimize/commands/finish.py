"""Settle: read the test rows, once, with the programs found; keep the best, write and register the
report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy

from optimize import lm as lms
from optimize.climb.preflight import Preflight
from optimize.commands.next_step import next_step
from optimize.commands.session import Session
from optimize.data.baselines import baseline_scores
from optimize.data.rows import row_hash
from optimize.finetune.accept import DecisionRecord, accept, level
from optimize.finetune.effects import EffectsRecord, effects
from optimize.finetune.gate import GateRecord
from optimize.finetune.tuned import Tuned
from optimize.program.program import Program, save, student
from optimize.report.chart import draw, names
from optimize.report.record import (
    AttemptRecord,
    HeadroomRecord,
    Report,
    TestRecord,
    VerdictRecord,
    score_record,
)
from optimize.scoring.evaluate import Evaluation, evaluate
from optimize.scoring.failures import Diagnosis
from optimize.stats.intervals import paired_gain
from optimize.stats.records import GainRecord, RowScores, ScoreRecord
from optimize.store.read import earlier_tunings
from optimize.store.write import Run


@dataclass(frozen=True)
class Findings:
    """What a command knows before the test rows are read.

    attempts: of the climb. best_val: the best prompt program's on val.
    """

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
    """All programs on test, once;

    the tuned LM is accepted if it wins on val and on test and nothing that must not has broken.
    """
    tuned = findings.tuned
    programs = {"zero_shot": student(session.task), "prompt": findings.best}
    for attempt in tuned.attempts if tuned else ():
        assert attempt.program
        programs["tuned" if tuned and attempt is tuned.chosen else "tuned_other"] = attempt.program
    found = {}
    for name, program in programs.items():
        session.watch.started(f"{name.replace('_', ' ')} on test")
        with dspy.context(lm=lms.telling(session.lm)):
            found[name] = evaluate(program, session.splits.test, session.asking)
    test = _test_record(session, found)
    hashes = {
        side: [row_hash(session.task, e) for e in session.splits.sides()[side]]
        for side in ("val", "test")
    }
    judged = _judged(session, tuned, found, hashes["test"]) if tuned else None
    kept = "tuned" if judged and judged.decision.accepted else "prompt"
    path = session.folder("programs") / f"{tracked.id}.json"
    save(programs[kept], path)
    report = _report(session, findings, opened, test, judged, path)
    val = {
        "prompt": findings.best_val,
        **({"tuned": tuned.chosen.evaluation} if tuned and tuned.chosen.evaluation else {}),
    }
    for side, evaluated in (("val", val), ("test", found)):
        scores = {
            name: list(e.scores) for name, e in (evaluated | {"final": evaluated[kept]}).items()
        }
        tracked.scores(side, RowScores(rows=hashes[side], programs=scores))
    tracked.settle(report, programs[kept], findings.best)
    for chart in report.charts:
        draw(report, session.root / chart)
        tracked.attach(session.root / chart)
    if tuned and Path(tuned.tuned).is_file():
        tracked.attach(Path(tuned.tuned))
    return report


@dataclass(frozen=True)
class _Judged:
    """What became of the tuned LM."""

    decision: DecisionRecord
    effects: EffectsRecord


def _judged(
    session: Session, tuned: Tuned, found: Mapping[str, Evaluation], rows: Sequence[str]
) -> _Judged:
    test = before, after = found["prompt"], found["tuned"]
    tunings = len({after.scores, *earlier_tunings(session.root, session.task.name, rows)})
    gain = paired_gain(before.scores, after.scores, level(tunings))
    assert tuned.chosen.gain
    seen = effects(
        session.task, session.splits, test, tuned.ood, tuned.train_seconds, session.config.threads
    )
    decision = accept(
        tuned.chosen.rung,
        tuned.chosen.gain,
        gain,
        tunings,
        tuned.forgetting,
        session.task.least_gain,
    )
    return _Judged(decision, seen)


def _report(
    session: Session,
    findings: Findings,
    opened: GateRecord,
    test: TestRecord,
    judged: _Judged | None,
    path: Path,
) -> Report:
    usage = session.meter.usage()
    final = test.tuned if judged and judged.decision.accepted and test.tuned else test.prompt
    report = Report(
        task=session.task.name,
        verdict=findings.verdict,
        reason=findings.reason,
        target=findings.target,
        target_met=final.score >= session.target,
        numbers=findings.numbers,
        preflight=findings.preflight,
        diagnosis=findings.diagnosis,
        headroom=findings.headroom,
        levers=list(findings.levers),
        test=test,
        attempts=[
            *findings.attempts,
            *map(AttemptRecord.of, findings.tuned.attempts if findings.tuned else ()),
        ],
        gate=opened,
        decision=judged.decision if judged else None,
        effects=judged.effects if judged else None,
        training=list(findings.tuned.epochs) if findings.tuned else [],
        forgetting=list(findings.tuned.forgetting) if findings.tuned else [],
        lm=session.config.lm,
        teacher=session.teacher_name,
        seed=session.config.seed,
        rows={name: len(rows) for name, rows in session.splits.sides().items()},
        data_hash=session.splits.digest,
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - session.start, 1),
        program=str(path.relative_to(session.root)),
        charts=[
            str(session.folder("charts").relative_to(session.root) / path.stem / name)
            for name in names(tuned=judged is not None)
        ],
        next="",
    )
    return report.model_copy(update={"next": next_step(report, session)})


def _test_record(session: Session, found: dict[str, Evaluation]) -> TestRecord:
    return TestRecord(
        **{name: score_record(e) for name, e in found.items()},
        prompt_gain=GainRecord.between(found["zero_shot"].scores, found["prompt"].scores),
        tuned_gain=GainRecord.between(found["prompt"].scores, found["tuned"].scores)
        if "tuned" in found
        else None,
        baselines={
            n: ScoreRecord.of(s)
            for n, s in baseline_scores(
                session.task, session.splits.train, session.splits.test
            ).items()
        },
    )
