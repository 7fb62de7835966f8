"""The use cases: run a climb, fine-tune or hand off from the last one. The only module that knows all the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import dspy

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.devset import Splits, load_splits
from optimize.errors import WorkbenchError
from optimize.evaluate import Evaluation, evaluate
from optimize.finetune import BACKENDS, aftercheck
from optimize.finetune.bundle import write_bundle
from optimize.finetune.gate import Gate, gate, winning_levers
from optimize.finetune.rows import chat_rows, tuned_student
from optimize.ladder import Attempt, Observer, Setup, climb
from optimize.lm.meter import Meter, MeteredLM
from optimize.program import Program, load, save, student
from optimize.report import AttemptRecord, ForgettingRecord, GainRecord, GateRecord, Report, ScoreRecord, TestRecord
from optimize.rungs import LADDER, Rung
from optimize.stats import paired_gain
from optimize.task import Task, load_task
from optimize.tracking import Run, last_run

GENERAL_TOKENS = 64  # room for an answer to a general question


@dataclass(frozen=True)
class Session:
    """Everything one command works with."""

    root: Path
    config: RunConfig
    task: Task
    splits: Splits
    meter: Meter
    lm: MeteredLM
    teacher: MeteredLM
    watch: Observer
    start: float = field(default_factory=time.perf_counter)

    @property
    def target(self) -> float:
        return self.task.target if self.config.target is None else self.config.target

    @property
    def teacher_name(self) -> str:
        return self.config.teacher or "the task LM itself"

    def folder(self, kind: str) -> Path:
        return self.root / "mlruns" / kind / self.task.name


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned program as an Attempt against the best prompt program, its LM and what it forgot."""

    attempt: Attempt
    adapter: Path
    forgetting: ForgettingRecord


def open_session(root: Path, name: str, config: RunConfig, watch: Observer) -> Session:
    """Load and check everything that needs no LM call, then the LMs. Raises WorkbenchError for what is wrong."""
    task = load_task(name, root)
    splits = load_splits(task).at_most(config.val_rows, config.test_rows)
    if config.finetune == "lora":
        check_lora(config)
    lms.configure(root)
    meter = Meter(config.max_calls)
    lm = lms.task_lm(config, meter, task.max_tokens)
    return Session(root, config, task, splits, meter, lm, lms.teacher_lm(config, meter), watch)


def check_lora(config: RunConfig) -> None:
    """Raises WorkbenchError where a LoRA could not be trained or served, before a call is spent on the way there."""
    missing = [name for name in ("torch", "transformers", "peft") if not find_spec(name)]
    if missing:
        raise WorkbenchError(
            f"LoRA training needs {', '.join(missing)}: pip install 'optimize-workbench[lora]' "
            "(without a GPU, install a CPU build of torch first)."
        )
    if not (config.lm == "embedded" or config.lm.startswith("gguf:")):
        raise WorkbenchError(f"LoRA trains weights in this process: 'embedded' or 'gguf:PATH', not {config.lm!r}. Use --finetune bundle.")


def run(session: Session, rungs: Sequence[Rung] = LADDER) -> Report:
    """Climb, decide, fine-tune or hand off if the gate opens, settle on test, record everything."""
    with _tracked(session, "run") as tracked, dspy.context(lm=session.lm):
        setup = Setup(
            session.task,
            session.splits,
            session.teacher,
            session.meter,
            session.target,
            session.config.threads,
            session.config.seed,
            after=_tuning_calls(session) if session.config.finetune == "lora" else 0,
        )
        found = climb(setup, rungs, _Both(tracked, session.watch))
        opened = gate(session.task, found, len(session.splits.train))
        tuned, files = None, []
        assert found.best.program and found.best.evaluation
        if opened.open and session.config.finetune == "lora":
            tuned = tune(session, found.best.program, found.best.evaluation, "lora")
            _Both(tracked, session.watch).finished(tuned.attempt)
        elif opened.open and session.config.finetune == "bundle":
            files = [bundle(session, found.best.program, found.decision.reason)]
        records = [AttemptRecord.of(a) for a in (*found.attempts, *([tuned.attempt] if tuned else []))]
        verdict = Verdict(found.decision.verdict, found.decision.reason, tuple(winning_levers(found)), opened)
        return _settle(session, tracked, verdict, records, found.best.program, tuned, files)


def finetune_last(session: Session, backend: str) -> Report:
    """Fine-tune from the last climb, without climbing again; its calls are answered from the cache."""
    last, best = _last(session)
    verdict = Verdict(last.verdict, last.reason, tuple(last.levers), Gate(last.gate.open, tuple(last.gate.reasons)))
    with _tracked(session, "finetune") as tracked, dspy.context(lm=session.lm):
        session.watch.started("best prompt program")
        evaluation = evaluate(best, session.splits.val, session.task, session.config.threads, session.watch.scored)
        tuned = tune(session, best, evaluation, backend)
        _Both(tracked, session.watch).finished(tuned.attempt)
        records = [a for a in last.attempts if a.family != "weights"] + [AttemptRecord.of(tuned.attempt)]
        return _settle(session, tracked, verdict, records, best, tuned, [])


def handoff_last(session: Session) -> Path:
    """Write the hand-off of the last climb's best prompt program; raises WorkbenchError where the gate is closed."""
    last, best = _last(session)
    return bundle(session, best, last.reason)


def bundle(session: Session, best: Program, reason: str) -> Path:
    facts = {"task": session.task.name, "lm": session.config.lm, "target": session.target, "verdict": reason, "seed": session.config.seed}
    return write_bundle(session.folder("handoff"), best, session.splits, facts)


def tune(session: Session, best: Program, prompt_val: Evaluation, backend: str) -> Tuned:
    """Train, then compare the tuned program with the best prompt program, paired, on val, and ask what it forgot."""
    base = lms.gguf_path(session.config.lm)
    if base is None or backend not in BACKENDS:
        raise WorkbenchError(f"No backend {backend!r} for LM {session.config.lm!r}. Backends: {', '.join(BACKENDS)}.")
    start, before = time.perf_counter(), session.meter.usage()
    session.watch.started(backend)
    program = tuned_student(best)
    rows, val_rows = (chat_rows(program, side) for side in (session.splits.train, session.splits.val))
    trainer = import_module(BACKENDS[backend])
    adapter: Path = trainer.train(rows, val_rows, base, session.folder("adapters"), session.config, session.watch.scored)
    program.tuned, program.lm = adapter, lms.local_lm(base, adapter, session.meter, session.task.max_tokens)
    session.watch.started("tuned program on val")
    evaluation = evaluate(program, session.splits.val, session.task, session.config.threads, session.watch.scored)
    gain = paired_gain(prompt_val.scores, evaluation.scores)
    usage, seconds = session.meter.usage() - before, time.perf_counter() - start
    attempt = Attempt(backend, "weights", program, evaluation, gain, usage, seconds)
    return Tuned(attempt, adapter, _forgetting(session, base, adapter))


def _tuning_calls(session: Session) -> int:
    """What comparing a tuned LM takes: val and test rows once, the general questions for base and tuned LM."""
    return len(session.splits.val) + len(session.splits.test) + 2 * len(aftercheck.questions(session.root))


def _forgetting(session: Session, base: Path, adapter: Path) -> ForgettingRecord:
    asked = aftercheck.questions(session.root)
    answers = []
    for name, file in (("base LM", None), ("tuned LM", adapter)):
        session.watch.started(f"general questions, {name}")
        lm = lms.local_lm(base, file, session.meter, GENERAL_TOKENS)
        answers.append(aftercheck.ask(lm, asked, session.config.threads, session.watch.scored))
    drop = paired_gain(answers[0].scores, answers[1].scores)
    both = [(b, t) for b, t in zip(answers[0].scores, answers[1].scores, strict=True) if b is not None and t is not None]
    base_rate, tuned_rate = (sum(side) / len(both) for side in zip(*both, strict=True))
    return ForgettingRecord(base=base_rate, tuned=tuned_rate, n=len(both), drop=GainRecord.of(drop))


@dataclass(frozen=True)
class Verdict:
    """How the climb ended."""

    verdict: str
    reason: str
    levers: tuple[str, ...]
    gate: Gate


def _settle(
    session: Session, tracked: Run, verdict: Verdict, records: list[AttemptRecord], best: Program, tuned: Tuned | None, files: list[Path]
) -> Report:
    """Baseline, best prompt program and tuned program on test, once; keep the best, write and register the report."""
    programs = {"baseline": student(session.task), "prompt": best}
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
    final = tuned.attempt.program if tuned and kept and tuned.attempt.program else best
    score = test.tuned if kept and test.tuned else test.prompt
    path = session.folder("programs") / f"{tracked.id}.json"
    save(final, path)
    usage = session.meter.usage()
    report = Report(
        task=session.task.name,
        verdict=verdict.verdict,
        reason=verdict.reason,
        target=session.target,
        target_met=score.score >= session.target,
        levers=list(verdict.levers),
        test=test,
        attempts=records,
        gate=GateRecord(open=verdict.gate.open, reasons=list(verdict.gate.reasons)),
        tuned_kept=kept,
        forgetting=tuned.forgetting if tuned else None,
        lm=session.config.lm,
        teacher=session.teacher_name,
        seed=session.config.seed,
        rows={name: len(rows) for name, rows in session.splits.sides().items()},
        data_hash=session.splits.digest,
        notes=[*session.splits.notes, *_notes(verdict, score, session.target)],
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - session.start, 1),
        program=str(path.relative_to(session.root)),
        next=_next(session, verdict, kept),
    )
    tracked.settle(report, final, best, [*files, *([tuned.adapter] if tuned else [])])
    return report


def _test_record(found: dict[str, Evaluation]) -> TestRecord:
    scores = {name: ScoreRecord.of(e.interval) for name, e in found.items()}
    prompt_gain = GainRecord.of(paired_gain(found["baseline"].scores, found["prompt"].scores))
    tuned_gain = GainRecord.of(paired_gain(found["prompt"].scores, found["tuned"].scores)) if "tuned" in found else None
    return TestRecord(**scores, prompt_gain=prompt_gain, tuned_gain=tuned_gain)


def _notes(verdict: Verdict, score: ScoreRecord, target: float) -> list[str]:
    if verdict.verdict == "reached" and score.score < target:
        return ["val says the target is reached, the held-out test rows do not confirm it: the gap is noise and selection"]
    return []


def _next(session: Session, verdict: Verdict, kept: bool | None) -> str:
    """The command, or the step, that makes most sense now."""
    task = session.task.name
    if verdict.gate.open and kept is None and session.config.finetune != "lora":
        return f"optimize finetune {task} --backend lora" + (
            f"   (or train elsewhere from {session.folder('handoff').relative_to(session.root)})"
            if session.config.finetune == "bundle"
            else ""
        )
    return {
        "budget": f"optimize run {task} --max-calls {2 * session.config.max_calls}",
        "indecisive": f"add labelled rows to devsets/{task}, then optimize run {task}",
        "exhausted": f"optimize run {task} --teacher openai/… (a stronger LM to write instructions)",
    }.get(verdict.verdict, "optimize ui")


def _last(session: Session) -> tuple[Report, Program]:
    """The last climb's report and best prompt program; raises WorkbenchError where they cannot be tuned from."""
    report, path = last_run(session.root, session.task.name, "prompt_program.json")
    if report.data_hash != session.splits.digest:
        raise WorkbenchError(
            f"The rows of {session.task.name!r} changed since the last climb; run `optimize run {session.task.name}` again."
        )
    if report.lm != session.config.lm:
        raise WorkbenchError(f"The last climb was on LM {report.lm!r}, not {session.config.lm!r}; give --lm {report.lm}.")
    best = load(session.task, path, lambda adapter: _tuned_lm(session, adapter))
    if not report.gate.open:
        raise WorkbenchError(f"The fine-tune gate of the last climb is closed: {' '.join(report.gate.reasons)}")
    return report, best


def _tuned_lm(session: Session, adapter: Path) -> dspy.LM:
    base = lms.gguf_path(session.config.lm)
    if base is None or not adapter.is_file():
        raise WorkbenchError(f"The program was tuned; its adapter {adapter} or the base weights are gone.")
    return lms.local_lm(base, adapter, session.meter, session.task.max_tokens)


def _tracked(session: Session, command: str) -> Run:
    knobs = session.config.model_dump(exclude={"api_key", "target"}, exclude_none=True) | {"target": session.target}
    return Run(session.root, session.task.name, command, knobs, session.splits)


class _Both(Observer):
    """What the store and the screen are both told."""

    def __init__(self, tracked: Run, watch: Observer) -> None:
        self.tracked, self.watch = tracked, watch

    def started(self, rung: str) -> None:
        self.watch.started(rung)

    def scored(self, done: int, total: int, note: str = "") -> None:
        self.watch.scored(done, total, note)

    def finished(self, attempt: Attempt) -> None:
        self.tracked.finished(attempt)
        self.watch.finished(attempt)
