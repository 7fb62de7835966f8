"""How a report and the checks before it read, in a terminal and in the MLflow UI. Knows no LM and no MLflow."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimize import diagnosis
from optimize.finetune.effects import EffectsRecord, OodRecord
from optimize.finetune.epoch import kept
from optimize.finetune.gate import GateRecord
from optimize.preflight import Preflight, told
from optimize.records import GainRecord, ScoreRecord
from optimize.report import AttemptRecord, Report


def score_text(record: ScoreRecord | None) -> str:
    return f"{record.score:.2f} [{record.low:.2f}, {record.high:.2f}]" if record else "–"


def with_n(record: ScoreRecord | None) -> str:
    """The score where no column of its own says how many rows it stands on."""
    return f"{score_text(record)} n={record.n}" if record else "–"


def gain_text(record: GainRecord | None) -> str:
    return f"{record.mean:+.2f} [{record.low:+.2f}, {record.high:+.2f}]" if record else ""


def changed_text(record: GainRecord) -> str:
    """How many rows changed each way, and how likely so uneven a change is by chance."""
    p = "" if record.p is None else f", p {'< 0.001' if record.p < 0.001 else f'= {record.p:.3f}'} (exact McNemar)"
    return f"{record.better} rows better, {record.worse} worse{p}"


def attempts_table(attempts: list[AttemptRecord]) -> Table:
    """A line a rung, narrow enough for 80 columns; ▲ marks those that became the incumbent."""
    table = Table("  rung", "val score", "n", "gain over incumbent", "calls", "s", box=None, pad_edge=False)
    for a in attempts:
        what = score_text(a.val) if a.val else "skipped" if a.skipped else "failed"
        name = f"{'▲' if a.promoted and a.gain else ' '} {a.rung}"
        table.add_row(name, what, str(a.val.n) if a.val else "", gain_text(a.gain), str(a.lm_calls), f"{a.seconds:.0f}")
    return table


def _why(attempts: list[AttemptRecord]) -> list[str]:
    """Why rungs have no score."""
    return [f"{a.rung}: {a.skipped or a.error}" for a in attempts if a.skipped or a.error]


def _test_table(report: Report) -> Table:
    test = report.test
    table = Table("  on test", "score", "n", "gain over the line above", box=None, pad_edge=False)
    for name, score in test.references.items():
        table.add_row(f"  no LM: {name}", score_text(score), str(score.n), style="dim")
    table.add_row("  zero-shot baseline", score_text(test.baseline), str(test.baseline.n))
    table.add_row("  best prompt program", score_text(test.prompt), str(test.prompt.n), gain_text(test.prompt_gain))
    if test.tuned:
        name = report.decision.tuned if report.decision else "tuned"
        table.add_row(f"  {name}", score_text(test.tuned), str(test.tuned.n), gain_text(test.tuned_gain))
    if test.tuned_other:
        other = next(a.rung for a in report.attempts if a.family == "weights" and (not report.decision or a.rung != report.decision.tuned))
        table.add_row(f"  {other}", score_text(test.tuned_other), str(test.tuned_other.n), "the other one on val")
    return table


def lines(report: Report) -> list[str]:
    """What the run means, a sentence a line."""
    final = report.final
    beaten = {name: s for name, s in report.test.references.items() if s.score >= min(report.target, final.score)}
    out = [f"Without an LM, {name} scores {with_n(s)} on test, the program kept {with_n(final)}." for name, s in beaten.items()]
    out += [f"{report.verdict.upper()}: {report.reason}"]
    if report.verdict == "reached" and report.test.prompt.score < report.target:
        out += [f"NOT CONFIRMED: on the held-out test rows it scores {with_n(report.test.prompt)}, below the target {report.target}."]
    out += [f"Levers that won: {', '.join(report.levers) or 'none'}."]
    out += [f"Best prompt program over zero-shot, on test: {changed_text(report.test.prompt_gain)}."]
    n = report.numbers
    out += [f"The val rows ({n.best.coverage:.0%} of them scored) show a gain of {n.smallest_gain:.2f} or more with 80 % probability."]
    out += _unsure(report)
    out += diagnosis.told(report.diagnosis)
    out += [f"Fine-tune gate {'open' if report.gate.open else 'closed'}: {' '.join(report.gate.reasons)}"]
    if report.decision and report.test.tuned_gain:
        outcome = "accepted" if report.decision.accepted else "reverted, the best prompt program stays"
        out += [f"The tuned LM ({report.decision.tuned}) is {outcome}: {changed_text(report.test.tuned_gain)}.", *report.decision.reasons]
        out += [f"Forgotten: {found.examples[0]}." for found in report.forgetting if found.broke and found.examples]
    if report.training:
        losses = " ".join(f"{e.train_loss:.2f}/{e.val_loss:.2f}" for e in report.training)
        out += [f"Losses on train/val rows, an epoch each: {losses}; kept: epoch {kept(report.training) + 1}."]
    if report.effects:
        out += _effects(report.effects)
    if report.chart:
        out += [f"Losses, confidence and costs as a picture: {report.chart}"]
    out += [f"Not mended in the rows: {f.count} {f.what}." for f in report.preflight.findings if f.problem]
    return out


def _effects(found: EffectsRecord) -> list[str]:
    """The worst slice, the classes, and what an answer takes."""
    out = []
    if found.slices:
        worst = found.slices[0]
        changed = f"{worst.before:.2f} to {worst.after:.2f}, {gain_text(worst.gain)}, n={worst.gain.n}"
        out += [f"Worst of {len(found.slices)} slices of the test rows, {worst.name}: {changed}."]
    if found.classes_before and found.classes_after:
        out += [f"Macro F1 on test: {found.classes_before.f1:.2f} before, {found.classes_after.f1:.2f} after the tuning."]
    if found.confidence_before and found.confidence_after:
        was, now = found.confidence_before, found.confidence_after
        out += [
            f"How sure the LM is and how right it is lie {was.ece:.2f} apart before, {now.ece:.2f} after (expected calibration error; "
            f"Brier {was.brier:.2f}, {now.brier:.2f}); the surer half of the answers scores {was.surest_half:.2f}, {now.surest_half:.2f}."
        ]
    if found.invented_after is not None:
        earlier = "none named" if found.invented_before is None else f"{found.invented_before:.0%}"
        out += [f"Of the ids that answers name, {earlier} before and {found.invented_after:.0%} after do not exist."]
    if found.ood:
        out += [_ood(found.ood)]
    before, after = found.price_before, found.price_after
    if before and after:
        out += [
            f"An answer took {before.tokens_in:.0f} tokens in and {before.seconds:.2f} s with the best prompt, {after.tokens_in:.0f} and "
            f"{after.seconds:.2f} s tuned; the training took {found.train_seconds:.0f} s"
            + (f", made up for after some {found.pays_after} answers." if found.pays_after else ", and no time is saved an answer.")
        ]
    return out


def _ood(found: OodRecord) -> str:
    """What the tuning did to rows out of the distribution."""
    told = f"Out of distribution ({found.n} rows): score {found.score_before:.2f} before, {found.score_after:.2f} after"
    if None in (found.sure_before, found.sure_after, found.told_apart_before, found.told_apart_after):
        return told + "."
    sure = f"mean confidence {found.sure_before:.2f}, {found.sure_after:.2f}"
    return f"{told}; {sure}; told apart from test rows by it (AUROC) {found.told_apart_before:.2f}, {found.told_apart_after:.2f}."


def _unsure(report: Report) -> list[str]:
    """What blurs the scores: failed calls, the LM's own noise; and what several answers or the teacher would reach."""
    out = []
    scores = [report.numbers.best, report.test.baseline, report.test.prompt]
    if (coverage := min(s.coverage for s in scores)) < 1:
        out += [f"Some LM calls failed for good: only {coverage:.0%} of the rows have a score where it is worst."]
    if report.test.prompt.lm_noise is not None:
        out += [f"Of the test score's standard error the LM's own noise makes {report.test.prompt.lm_noise:.3f}."]
    if found := report.headroom:
        teacher = f", the teacher with the same prompt {with_n(found.teacher)}" if found.teacher else ""
        out += [f"Headroom on val: the best of {found.answers} answers scores {with_n(found.best)}{teacher}."]
    return out


def verdict_line(report: Report) -> str:
    met = "met" if report.target_met else "not met"
    return f"Target {report.target} {met} on test: {with_n(report.final)}."


def terminal(report: Report) -> RenderableType:
    """The end of a run as a person reads it: attempts, test scores, meaning, next command."""
    cost = "unknown price" if report.cost_usd is None else f"${report.cost_usd:.2f}"
    return Group(
        attempts_table(report.attempts),
        *[Text(line, style="dim") for line in _why(report.attempts)],
        "",
        _test_table(report),
        "",
        *[Text(line, style="bold red" if line.startswith("NOT CONFIRMED") else "") for line in lines(report)],
        "",
        Text(verdict_line(report), style="bold green" if report.target_met else "bold yellow"),
        Text(f"{report.lm_calls} LM calls ({cost}), {report.seconds:.0f} s. LM {report.lm}, teacher {report.teacher}."),
        Text(f"Next: {report.next}", style="bold"),
    )


def markdown(report: Report) -> str:
    """The run's description in the MLflow UI."""
    rows = [f"| {a.rung} | {with_n(a.val)} | {gain_text(a.gain)} | {a.skipped or a.error or ''} |" for a in report.attempts]
    test = report.test
    return "\n".join(
        [
            f"**{verdict_line(report)}**",
            "",
            *[f"- {line}" for line in lines(report)],
            f"- Test: baseline {with_n(test.baseline)}, prompt {with_n(test.prompt)}, tuned {with_n(test.tuned)}",
            *[f"- Test without an LM: {name} {with_n(score)}" for name, score in test.references.items()],
            f"- Next: `{report.next}`",
            "",
            "| rung | val | gain | |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def decision(report: Report) -> str:
    """The decision record on a tuned LM, for the file that stays: what was decided, on what grounds, and what would make it wrong."""
    assert report.decision
    found = report.decision
    slices = report.effects.slices if report.effects else []
    rows = [f"| {s.name} | {s.before:.3f} | {s.after:.3f} | {gain_text(s.gain)} | {s.gain.n} |" for s in slices]
    test = report.test
    scores = {"zero-shot": test.baseline, "best prompt program": test.prompt, found.tuned: test.tuned}
    scores["tuned, with the other prompt"] = test.tuned_other
    return "\n".join(
        [
            f"# {report.task}: the tuned LM is {'accepted' if found.accepted else 'not accepted'} ({found.decided})",
            "",
            *[f"- {line}" for line in found.reasons],
            *[f"- {line}" for line in (_effects(report.effects) if report.effects else [])],
            f"- Why it was trained: {report.reason}",
            f"- The gate: {' '.join(report.gate.reasons)}" + (f" Waived: {report.gate.waived}." if report.gate.waived else ""),
            "",
            "| on test | score |",
            "| --- | --- |",
            *[f"| {name} | {with_n(score)} |" for name, score in scores.items()],
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
    end = f"Fix {problems} things in devsets/{name} first." if problems else f"Next: optimize run {name}"
    return Group(
        Text(f"{name}: {rows} rows, all fit the signature. Target {target}."),
        *[Text(f"· {line}") for line in told(found, target)],
        "",
        Text(end, style="bold"),
    )


def criteria(found: GateRecord, name: str) -> RenderableType:
    """The gate as a person reads it: a line a criterion, then what is to be done."""
    table = Table("", "criterion", "found", "asked", box=None, pad_edge=False)
    for c in found.criteria:
        mark = {True: "✓", None: "!", False: "✗"}[c.passed]
        table.add_row(mark, c.name, c.value, c.threshold, style={True: "", None: "yellow", False: "red"}[c.passed])
    todo = [f"{'To open it' if c.passed is False else 'Mind'}: {c.advice}" for c in found.criteria if not c.passed and c.advice]
    end = f"Next: optimize finetune {name}, or optimize handoff {name}" if found.open else "The gate is closed."
    return Group(table, "", *[Text(line) for line in todo], Text(end, style="bold"))
