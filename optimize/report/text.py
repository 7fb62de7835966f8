"""How a report and the checks before it read, in a terminal and in the MLflow UI.

Knows no LM and no MLflow.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimize.climb.preflight import Preflight
from optimize.finetune.epoch import kept
from optimize.finetune.gate import GateRecord
from optimize.report.record import AttemptRecord, Report
from optimize.report.sentences import effect_sentences, failure_sentences, preflight_sentences
from optimize.stats.records import GainRecord, ScoreRecord


def _text(gain: GainRecord | None) -> str:
    return str(gain) if gain else ""


def _with_n(record: ScoreRecord | None) -> str:
    return record.with_n if record else "–"


def attempts_table(attempts: list[AttemptRecord]) -> Table:
    """A line a rung, narrow enough for 80 columns; ▲ marks those that became the incumbent."""
    table = Table(
        "  rung", "val score", "n", "gain over incumbent", "calls", "s", box=None, pad_edge=False
    )
    for a in attempts:
        what = str(a.val) if a.val else "skipped" if a.skipped else "failed"
        name = f"{'▲' if a.promoted and a.gain else ' '} {a.rung}"
        table.add_row(
            name,
            what,
            str(a.val.n) if a.val else "",
            _text(a.gain),
            str(a.lm_calls),
            f"{a.seconds:.0f}",
        )
    return table


def _why(attempts: list[AttemptRecord]) -> list[str]:
    """Why rungs have no score."""
    return [f"{a.rung}: {a.skipped or a.error}" for a in attempts if a.skipped or a.error]


def _test_table(report: Report) -> Table:
    test = report.test
    table = Table("  on test", "score", "n", "gain over the line above", box=None, pad_edge=False)
    for name, score in test.baselines.items():
        table.add_row(f"  no LM: {name}", str(score), str(score.n), style="dim")
    table.add_row("  zero-shot baseline", str(test.zero_shot), str(test.zero_shot.n))
    table.add_row(
        "  best prompt program", str(test.prompt), str(test.prompt.n), str(test.prompt_gain)
    )
    if test.tuned:
        name = report.decision.tuned if report.decision else "tuned"
        table.add_row(f"  {name}", str(test.tuned), str(test.tuned.n), _text(test.tuned_gain))
    if test.tuned_other:
        table.add_row(
            f"  {_other_tuned(report)}",
            str(test.tuned_other),
            str(test.tuned_other.n),
            "the other one on val",
        )
    return table


def _other_tuned(report: Report) -> str:
    """The rung of the tuned program that val did not choose."""
    return next(
        a.rung
        for a in report.attempts
        if a.family == "weights" and (not report.decision or a.rung != report.decision.tuned)
    )


def lines(report: Report) -> list[str]:
    """What the run means, a sentence a line."""
    final = report.final
    beaten = {
        name: s
        for name, s in report.test.baselines.items()
        if s.score >= min(report.target, final.score)
    }
    out = [
        f"Without an LM, {name} scores {s.with_n} on test, the program kept {final.with_n}."
        for name, s in beaten.items()
    ]
    out += [f"{report.verdict.upper()}: {report.reason}"]
    if report.verdict == "reached" and report.test.prompt.score < report.target:
        out += [
            f"NOT CONFIRMED: on the held-out test rows it scores {report.test.prompt.with_n}, "
            f"below the target {report.target}."
        ]
    out += [f"Levers that won: {', '.join(report.levers) or 'none'}."]
    out += [f"Best prompt program over zero-shot, on test: {report.test.prompt_gain.changed}."]
    n = report.numbers
    out += [
        f"The val rows ({n.best.coverage:.0%} of them scored) show a gain of {n.smallest_gain:.2f} "
        "or more with 80 % probability."
    ]
    out += _unsure(report)
    out += failure_sentences(report.diagnosis)
    out += [
        f"Fine-tune gate {'open' if report.gate.open else 'closed'}: "
        f"{' '.join(report.gate.reasons)}"
    ]
    if report.decision and report.test.tuned_gain:
        outcome = (
            "accepted" if report.decision.accepted else "reverted, the best prompt program stays"
        )
        out += [
            f"The tuned LM ({report.decision.tuned}) is {outcome}: "
            f"{report.test.tuned_gain.changed}.",
            *report.decision.reasons,
        ]
        out += [
            f"Forgotten: {found.examples[0]}."
            for found in report.forgetting
            if found.regressed and found.examples
        ]
    if report.training:
        losses = " ".join(f"{e.train_loss:.2f}/{e.val_loss:.2f}" for e in report.training)
        out += [
            f"Losses on train/val rows, an epoch each: {losses}; kept: epoch "
            f"{kept(report.training) + 1}."
        ]
    if report.effects:
        out += effect_sentences(report.effects)
    if report.chart:
        out += [f"Losses, confidence and costs as a picture: {report.chart}"]
    out += [
        f"Not mended in the rows: {f.count} {f.what}."
        for f in report.preflight.findings
        if f.problem
    ]
    return out


def _unsure(report: Report) -> list[str]:
    """What blurs the scores: failed calls, the LM's own noise; and what several answers or the
    teacher would reach.
    """
    out = []
    scores = [report.numbers.best, report.test.zero_shot, report.test.prompt]
    if (coverage := min(s.coverage for s in scores)) < 1:
        out += [
            f"Some LM calls failed for good: only {coverage:.0%} of the rows have a score where it "
            "is worst."
        ]
    if report.test.prompt.lm_noise is not None:
        out += [
            "Of the test score's standard error the LM's own noise makes "
            f"{report.test.prompt.lm_noise:.3f}."
        ]
    if found := report.headroom:
        teacher = (
            f", the teacher with the same prompt {found.teacher.with_n}" if found.teacher else ""
        )
        out += [
            f"Headroom on val: the best of {found.answers} answers scores "
            f"{found.best.with_n}{teacher}."
        ]
    return out


def verdict_line(report: Report) -> str:
    met = "met" if report.target_met else "not met"
    return f"Target {report.target} {met} on test: {report.final.with_n}."


def terminal(report: Report) -> RenderableType:
    """The end of a run as a person reads it: attempts, test scores, meaning, next command."""
    cost = "unknown price" if report.cost_usd is None else f"${report.cost_usd:.2f}"
    return Group(
        attempts_table(report.attempts),
        *[Text(line, style="dim") for line in _why(report.attempts)],
        "",
        _test_table(report),
        "",
        *[
            Text(line, style="bold red" if line.startswith("NOT CONFIRMED") else "")
            for line in lines(report)
        ],
        "",
        Text(verdict_line(report), style="bold green" if report.target_met else "bold yellow"),
        Text(
            f"{report.lm_calls} LM calls ({cost}), {report.seconds:.0f} s. LM {report.lm}, teacher "
            f"{report.teacher}."
        ),
        Text(f"Next: {report.next}", style="bold"),
    )


def markdown(report: Report) -> str:
    """The run's description in the MLflow UI."""
    rows = [
        f"| {a.rung} | {_with_n(a.val)} | {_text(a.gain)} | {a.skipped or a.error or ''} |"
        for a in report.attempts
    ]
    test = report.test
    return "\n".join(
        [
            f"**{verdict_line(report)}**",
            "",
            *[f"- {line}" for line in lines(report)],
            f"- Test: baseline {test.zero_shot.with_n}, prompt {test.prompt.with_n}, tuned "
            f"{_with_n(test.tuned)}",
            *[
                f"- Test without an LM: {name} {score.with_n}"
                for name, score in test.baselines.items()
            ],
            f"- Next: `{report.next}`",
            "",
            "| rung | val | gain | |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def decision(report: Report) -> str:
    """The decision record on a tuned LM, for the file that stays: what was decided, on what
    grounds, and what would make it wrong.
    """
    assert report.decision
    found = report.decision
    slices = report.effects.slices if report.effects else []
    rows = [
        f"| {s.name} | {s.before:.3f} | {s.after:.3f} | {s.gain} | {s.gain.n} |" for s in slices
    ]
    test, val = report.test, {a.rung: a.val for a in report.attempts}
    first, best = (
        report.attempts[0].rung,
        report.levers[-1] if report.levers else report.attempts[0].rung,
    )
    other = _other_tuned(report)
    programs: dict[str, tuple[str, ScoreRecord | None]] = {
        "zero-shot": (first, test.zero_shot),
        f"best prompt program ({best})": (best, test.prompt),
        f"{found.tuned} (judged)": (found.tuned, test.tuned),
        other: (other, test.tuned_other),
    }
    return "\n".join(
        [
            f"# {report.task}: the tuned LM is {'accepted' if found.accepted else 'not accepted'} "
            f"({found.decided})",
            "",
            *[f"- {line}" for line in found.reasons],
            *[f"- {line}" for line in (effect_sentences(report.effects) if report.effects else [])],
            f"- Why it was trained: {report.reason}",
            f"- The gate: {' '.join(report.gate.reasons)}"
            + (f" Waived: {report.gate.waived}." if report.gate.waived else ""),
            "",
            "| program | on val | on test |",
            "| --- | --- | --- |",
            *[
                f"| {name} | {_with_n(val[rung])} | {_with_n(score)} |"
                for name, (rung, score) in programs.items()
            ],
            "",
            "| slice of the test rows | before | after | gain | n |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "What got worse: " + "; ".join(text for f in report.forgetting for text in f.examples),
            "",
            "This decision is wrong as soon as:",
            *[f"- {line}" for line in found.wrong_if],
            "",
        ]
    )


def checks(found: Preflight, target: float, name: str) -> RenderableType:
    """The checks as a person reads them."""
    rows = ", ".join(f"{count} {side}" for side, count in found.rows.items())
    problems = sum(f.count for f in found.findings if f.problem)
    end = (
        f"Fix {problems} things in devsets/{name} first."
        if problems
        else f"Next: optimize run {name}"
    )
    return Group(
        Text(f"{name}: {rows} rows, all fit the signature. Target {target}."),
        *[Text(f"· {line}") for line in preflight_sentences(found, target)],
        "",
        Text(end, style="bold"),
    )


def criteria(found: GateRecord, name: str) -> RenderableType:
    """The gate as a person reads it: a line a criterion, then what is to be done."""
    table = Table("", "criterion", "found", "asked", box=None, pad_edge=False)
    for c in found.criteria:
        mark = {True: "✓", None: "!", False: "✗"}[c.passed]
        table.add_row(
            mark,
            c.name,
            c.value,
            c.threshold,
            style={True: "", None: "yellow", False: "red"}[c.passed],
        )
    todo = [
        f"{'To open it' if c.passed is False else 'Mind'}: {c.advice}"
        for c in found.criteria
        if not c.passed and c.advice
    ]
    end = (
        f"Next: optimize finetune {name}, or optimize handoff {name}"
        if found.open
        else "The gate is closed."
    )
    return Group(table, "", *[Text(line) for line in todo], Text(end, style="bold"))
