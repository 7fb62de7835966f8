"""The use case `recheck`: the best program's test rows asked again, today or of another LM."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from optimize import lm as lms
from optimize.climb.holding import held
from optimize.commands.applying.batches import boxed
from optimize.commands.in_use import Cost, InUse, Recorded, check_cap, cost
from optimize.commands.lock import task_lock
from optimize.commands.memory import tests_read
from optimize.commands.on_test import check_scored_batch
from optimize.commands.session import Session, tracked_run
from optimize.config import NO_ADDRESS, RunConfig, state_dir
from optimize.data.rows import row_hash
from optimize.errors import WorkbenchError
from optimize.files import write_whole
from optimize.finetune.effects import price
from optimize.lm.addresses import check_apart
from optimize.report.recheck import RecheckedLm, RecheckRecord, recheck_plan
from optimize.report.record import score_record
from optimize.report.rows import answers
from optimize.scoring.evaluate import Spread, evaluate
from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import known, mean_interval
from optimize.stats.judge import corrected
from optimize.stats.reads import readings
from optimize.stats.records import GainRecord, RowScores, ScoreRecord
from optimize.store.read import AT, rechecks
from optimize.threads import in_threads

Asked = list[tuple[str | None, str | None]]


def asked_lms(names: Sequence[str], bases: Sequence[str]) -> Asked:
    """Names and addresses of the LMs to ask, from the flags.

    Raises WorkbenchError where it is not clear which address is whose.
    """
    count = max(1, len(names))
    known: list[str | None] = list(bases) if count > 1 else [",".join(bases) or None]
    if len(known) not in (0, 1, count):
        raise WorkbenchError(
            f"{len(known)} --api-base for {count} --lm: give one for all, or one for each in their "
            f"order, {NO_ADDRESS!r} for an LM at its provider's own, several of one LM with commas "
            "between them."
        )
    addresses = known * count if len(known) == 1 else known or [None] * count
    check_apart((name, base) for name, base in zip(names, addresses, strict=False))
    return list(zip(list[str | None](names) or [None], addresses, strict=True))


def recheck(found: InUse, configs: Sequence[RunConfig]) -> RecheckRecord:
    """Ask the test rows again of each LM, hold it against the record, keep what comes of it.

    Raises WorkbenchError, before any call, for a cap that is too low, and a batch that no provider
    takes.
    """
    for config in configs:
        if config.batch:
            with found.asking(config):
                check_scored_batch(found.program(config), config)
    with task_lock(found.session, "recheck") as session:
        found = found.at_work(session)
        session = found.session
        recorded = _few(found.recorded(), configs[0].test_rows)
        rows = [row_hash(session.task, row) for row in recorded.rows]
        number = len(rechecks(session.root, session.task.name)) + 1
        anew, begun = _begun(session)
        earlier = tests_read(session)
        _planned(found, configs, recorded, readings(rows, earlier))
        evaluations = [
            (_by_batch if config.batch else _asked)(found, config, recorded, anew)
            for config in configs
        ]
        others = [  # to ask the same program again chooses nothing
            dict(zip(rows, e.scores, strict=True))
            for config, e in zip(configs, evaluations, strict=True)
            if config.lm != found.lm
        ]
        reads = readings(rows, [*earlier, *others])
        lines = [
            _line(found, config, recorded, evaluation, (len(configs), reads))
            for config, evaluation in zip(configs, evaluations, strict=True)
        ]
        record = _record(found, recorded, lines, reads, number)
        named = configs[0].model_copy(update={"lm": ", ".join(c.lm for c in configs)})
        with tracked_run(replace(session, config=named), "recheck") as tracked:
            scores = {_name(c): list(e.scores) for c, e in zip(configs, evaluations, strict=True)}
            tracked.scores("test", RowScores(rows=rows, programs=scores))
            tracked.rechecked(record)
        begun.unlink()
        return record


def _begun(session: Session) -> tuple[int, Path]:
    """What tells this recheck's answers from those of all before, in the cache, and where it is
    kept until it is done, so that one that was stopped goes on. Runs may be deleted, or be kept
    elsewhere by now: their number tells nothing.
    """
    path = state_dir(session.root) / "rechecks" / session.task.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        write_whole(path, str(time.time_ns() // 1_000_000))
    return int(path.read_text()), path


def _name(config: RunConfig) -> str:
    return f"{config.lm}{AT}{config.api_base}" if config.api_base else config.lm


def _few(found: Recorded, most: int | None) -> Recorded:
    return Recorded(found.rows[:most], found.scores[:most], found.gone)


def _planned(found: InUse, configs: Sequence[RunConfig], recorded: Recorded, reads: int) -> None:
    """Say what is about to be spent. Raises WorkbenchError where the cap does not allow it."""
    total = Cost(0, 0.0)
    for config in configs:
        with found.asking(config):
            total += cost(found.program(config), recorded.rows, config)
    check_cap(total, configs[0], "--test-rows")
    told = recheck_plan(len(recorded.rows), len(configs), total.calls, total.usd, reads)
    found.session.watch.noted(told)


def _by_batch(found: InUse, config: RunConfig, recorded: Recorded, anew: int) -> Evaluation:
    session, lm = found.session, sha256(_name(config).encode()).hexdigest()[:8]
    path = state_dir(session.root) / "batches" / f"{session.task.name}-{found.run.id[:8]}-{lm}"
    with boxed(path, config, session.meter, session.watch) as spread:
        return _asked(found, config, recorded, anew, spread)


def _asked(
    found: InUse, config: RunConfig, recorded: Recorded, anew: int, spread: Spread = in_threads
) -> Evaluation:
    session = found.session
    session.watch.started(f"test rows, {config.lm}")
    asking = replace(session.asking, threads=config.in_flight, anew=anew, spread=spread)
    with found.asking(config):
        asked = evaluate(found.program(config), recorded.rows, asking)
        return asked.held_to(recorded.scores)


def _line(
    found: InUse,
    config: RunConfig,
    recorded: Recorded,
    evaluation: Evaluation,
    read: tuple[int, int],
) -> RecheckedLm:
    """read: LMs asked side by side, and programs that these rows have judged."""
    judged = held(found.session.target, recorded.scores, evaluation.scores, *read, evaluation.judge)
    return RecheckedLm(
        lm=config.lm,
        api_base=config.api_base,
        score=score_record(evaluation),
        verdict=judged.verdict,
        gain=GainRecord.of(judged.gain),
        chance=judged.chance,
        at_target=judged.at_target,
        other_answers=_other_answers(found, recorded, evaluation),
        price=price(evaluation),
        calls=sum(o.usage.calls for o in evaluation.outcomes),
        retires=lms.retires(config.lm, config.api_base),
    )


def _other_answers(found: InUse, recorded: Recorded, evaluation: Evaluation) -> int | None:
    """Rows that were answered before and now, and not the same."""
    if (kept := found.answered()) is None:
        return None
    hashes, before = kept
    at = {row: n for n, row in enumerate(hashes)}
    task, now = found.session.task, answers(found.session.task, evaluation)
    changed = 0
    for n, row in enumerate(recorded.rows):
        old = at.get(row_hash(task, row))
        if old is None or None in (before.scores[old], now.scores[n]):
            continue
        changed += any(before.fields[f][old] != now.fields[f][n] for f in now.fields)
    return changed


def _record(
    found: InUse, recorded: Recorded, lines: list[RecheckedLm], reads: int, anew: int
) -> RecheckRecord:
    session, usage = found.session, found.session.meter.usage()
    return RecheckRecord(
        task=session.task.name,
        run=found.run.id,
        lm=found.lm,
        target=session.target,
        before=ScoreRecord.of(
            corrected(mean_interval(known(recorded.scores)), session.task.confusion)
        ),
        gone=recorded.gone,
        test_reads=reads,
        anew=anew,
        prompt_only=found.tuned and any(line.lm != found.lm for line in lines),
        lms=lines,
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - session.start, 1),
    )
