"""How a report and the checks before it read, in a terminal and in the MLflow UI.

Knows no LM and no MLflow. Rows and LM text are never markup: every cell is a `Text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimize.climb.findings import Finding
from optimize.climb.preflight import Preflight
from optimize.finetune.gate import GateRecord
from optimize.report import sections
from optimize.report.judged import judge_sentences
from optimize.report.record import Report
from optimize.report.retired import retirement_sentence
from optimize.report.sections import NONE, Section
from optimize.report.sentences import (
    decision_sentences,
    preflight_sentences,
    regression_sentence,
    synthetic_sentences,
    too_long_sentence,
)
from optimize.report.untrusted import prose
from optimize.stats.records import ScoreRecord, rows


def table(section: Section) -> Table:
    """The section's table, as narrow as its cells."""
    found = Table(box=None, pad_edge=False, header_style="dim")
    for column in section.columns:
        found.add_column(Text(column))
    for row in section.rows:
        style = "dim" if row[0].startswith("no LM") else ""
        found.add_row(*(Text(cell, style=style) for cell in row))
    return found


def bullets(lines: Sequence[str], mark: str = "·", style: str = "") -> Table:
    """A line each, with what does not fit below its own beginning."""
    found = Table.grid(padding=(0, 1))
    for line in lines:
        found.add_row(Text(mark, style=style), Text(line, style=style))
    return found


def warnings(report: Report) -> list[str]:
    """What a reader must not miss, before anything else."""
    out = [*report.failed, *filter(None, [too_long_sentence(report.roles)])]
    if day := report.lm_retires:
        out += [retirement_sentence(report.lm, day, date.today(), report.task)]
    baselines = report.test.baselines
    if name := max(baselines, key=lambda name: baselines[name].score, default=""):
        best = baselines[name]
        over = report.test.over_baseline
        tuned = report.decision and report.decision.accepted
        if best.score > 0 and best.score >= min(report.target, report.final.score):
            out.append(f"No LM needed? {name} scores {best} on test, {_held(best, report)}.")
        elif over and over.low <= 0 and not tuned:
            out.append(
                f"Not shown to beat {name}, which asks no LM and scores {best.with_n} on test: the "
                f"program kept scores {report.final.with_n}, {over} on the same rows."
            )
    return out + [regression_sentence(f) for f in report.forgetting if f.regressed]


def _held(baseline: ScoreRecord, report: Report) -> str:
    if report.final.score < report.target <= baseline.score:
        return f"at the target; the program kept, at {report.final}, is not"
    return f"the program kept {report.final}"


def why(report: Report) -> list[str]:
    """The three sentences that matter most, and what synthetic rows were worth where there are
    some.
    """
    out = [report.reason, _helped(report)]
    out += judge_sentences(report)[:1]
    out += synthetic_sentences(report.attempts)
    if report.decision and report.test.tuned_gain:
        changed = report.test.tuned_gain.changed
        out += decision_sentences(report.decision, report.forgetting, changed)[:1]
    elif report.diagnosis.kinds and not report.target_met:
        worst = report.diagnosis.kinds[0]
        out += [f"What goes wrong most: {worst.meaning} ({rows(worst.count, 'val')})."]
    return out


def _helped(report: Report) -> str:
    """What val says of the levers that the best program is made of, and whether test bears it out.
    A lever that gained nothing is there because an answer takes fewer calls with it.
    """
    if not report.levers:
        if any(a.val for a in report.attempts[1:]):
            return "What helped: nothing; the program is as it was written."
        return "No lever was tried: the program is as it was written."
    level = {a.rung for a in report.attempts if a.gain and a.gain.mean <= 0}
    named = _lever(report)
    helped = ", ".join(named(lever) for lever in report.levers if lever not in level)
    cheaper = ", ".join(named(lever) for lever in report.levers if lever in level)
    kept = f" Kept for fewer calls an answer: {cheaper}." if cheaper else ""
    gain = report.test.prompt_gain
    if not helped:
        return f"What helped: nothing.{kept}"
    if gain.low > 0:
        return f"What helped: {helped} ({gain.changed} on test).{kept}"
    told = f"Test rows do not show that it did: {gain.changed}."
    return f"What helped on val: {helped}. {told}{kept}"


def _lever(report: Report) -> Callable[[str], str]:
    """A lever by its name, and what it brought along: the best program of the guide may be one that
    shows demos too.
    """
    near = {a.rung: a.nearest for a in report.attempts if a.family == "guide"}
    return lambda name: f"{name} with {near[name]} nearest demos" if near.get(name) else name


def headline(report: Report) -> str:
    """The first line: the verdict, and whether a baseline without an LM makes weights needless."""
    verdict = report.verdict.upper().replace("_", " ")
    decision = report.decision
    if decision and decision.matched and decision.over_baseline:
        name, gain = decision.baseline, decision.over_baseline
        if gain.mean <= 0:
            return f"{verdict}. No LM needed? {name} does as well as the tuned LM."
        shown = f"{gain.n} test rows do not show that the tuned LM beats {name}"
        return f"{verdict}. No LM needed? {shown}."
    return verdict


def met(report: Report) -> str:
    """What is known of the target. A score on test that is at it is chance where val rows do not
    say the same.
    """
    if report.target_met:
        return "met"
    return "not shown to be met" if report.final.score >= report.target else "not met"


def verdict_line(report: Report) -> str:
    return f"Target {report.target} {met(report)}; on test: {report.final.with_n}."


def spent(report: Report) -> str:
    """Calls, money and time."""
    cost = "unknown price" if report.cost_usd is None else f"${report.cost_usd:.2f}"
    if not report.lm_calls:
        cost = "all answers came from the cache"
    return f"{report.lm_calls} LM calls ({cost}), {duration(report.seconds)}"


def terminal(report: Report, details: bool = False, run: str = "") -> RenderableType:
    """The end of a run as a person reads it, on one screen: verdict, scores, why, next command.

    details: everything else the report knows, before that. run: its name; default: its task's last.
    """
    style = "bold green" if report.target_met else "bold yellow"
    scores = sections.test_scores(report)
    more = "" if details else f" Everything else: optimize report {run or report.task} --details"
    return Group(
        *([_all_sections(report)] if details else []),
        Text(headline(report), style=style),
        "",
        Text(scores.title, style="bold"),
        table(scores),
        "",
        *([bullets(warned, "!", "bold red")] if (warned := warnings(report)) else []),
        bullets(why(report)),
        "",
        Text(verdict_line(report), style=style),
        Text(f"{spent(report)}. LM {report.lm}, teacher {report.teacher}.{more}", style="dim"),
        *([Text(f"Page: {report.page}", style="dim")] if report.page else []),
        *_following(report),
    )


def _following(report: Report) -> list[Text]:
    """What to do next: the command stands alone where prose comes before it."""
    first = f"Next: {report.next_first}, then\n" if report.next_first else "Next: "
    shown = [Text.assemble(first, (report.next, "bold"), style="" if report.next_first else "bold")]
    return shown + ([Text(f"({report.next_note})", style="dim")] if report.next_note else [])


def _all_sections(report: Report) -> RenderableType:
    shown: list[RenderableType] = []
    for section in sections.sections(report)[1:]:  # the scores follow, as without details
        shown += [Text(section.title, style="bold")]
        shown += [table(section)] if section.rows else []
        shown += [bullets(section.lines), Text("")]
    pictures = [Text(f"Pictures: {', '.join(report.charts)}"), Text("")] if report.charts else []
    return Group(*shown, *pictures)


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 12 min, 1 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def markdown(report: Report) -> str:
    """The run's description in the MLflow UI: the whole report."""
    lines = [f"**{headline(report).removesuffix('.')}. {verdict_line(report)}**", ""]
    lines += [f"- {prose(line)}" for line in (*warnings(report), *why(report))]
    first = f"{prose(report.next_first)}, then " if report.next_first else ""
    note = f" ({prose(report.next_note)})" if report.next_note else ""
    lines += [f"- Next: {first}`{report.next}`{note}", ""]
    for section in sections.sections(report):
        lines += _markdown(section)
    return "\n".join(lines)


def _markdown(section: Section) -> list[str]:
    out = [f"### {section.title}", ""]
    if section.rows:
        out += ["| " + " | ".join(_cell(c) for c in section.columns) + " |"]
        out += ["|" + " --- |" * len(section.columns)]
        out += ["| " + " | ".join(map(_cell, row)) + " |" for row in section.rows]
        out += [""]
    return [*out, *(f"- {prose(line)}" for line in section.lines), ""]


def _cell(text: str) -> str:
    return prose(text).replace("|", "\\|").replace("\n", " ")


def decision(report: Report) -> str:
    """The decision record on a tuned LM, for the file that stays: what was decided, on what
    grounds, and what would make it wrong.
    """
    assert report.decision
    found, test = report.decision, report.test
    val = {a.rung: a.val for a in report.attempts}
    first = report.attempts[0].rung
    best, other = report.levers[-1] if report.levers else first, sections.other_tuned(report)
    programs: dict[str, tuple[str, ScoreRecord | None]] = {
        "zero-shot": (first, test.zero_shot),
        f"best prompt program ({best})": (best, test.prompt),
        f"{found.tuned} (judged)": (found.tuned, test.tuned),
        other: (other, test.tuned_other),
    }
    rows = [
        [name, score.with_n if (score := val[rung]) else NONE, on_test.with_n if on_test else NONE]
        for name, (rung, on_test) in programs.items()
    ]
    accepted = "accepted" if found.accepted else "not accepted"
    lines = [f"# {report.task}: the tuned LM is {accepted} ({found.decided})", ""]
    lines += [f"Why it was trained: {report.reason}", ""]
    scores = Section("Scores", columns=("program", "on val", "on test"), rows=rows)
    for section in (scores, *sections.sections(report)[1:]):
        lines += _markdown(section)
    wrong = [f"- {line}" for line in found.wrong_if]
    return "\n".join([*lines, "### This decision is wrong as soon as", "", *wrong, ""])


def checks(
    found: Preflight,
    target: float,
    name: str,
    following: str,
    details: bool = False,
    more: Sequence[RenderableType] = (),
) -> RenderableType:
    """The checks as a person reads them; following: what comes next, details: every
    example of every finding, more: what else was asked for.
    """
    rows = ", ".join(f"{count} {side}" for side, count in found.rows.items())
    problems = sum(f.count for f in found.findings if f.problem)
    end = f"Fix the {problems} things above first." if problems else following
    return Group(
        Text(f"{name}: {rows} rows, all fit the signature. Target {target}."),
        bullets(preflight_sentences(found, target)),
        *(finding_list(finding) for finding in found.findings if details),
        *more,
        "",
        Text(end, style="bold"),
    )


def finding_list(found: Finding) -> RenderableType:
    """All that a finding found, one a line."""
    return Group("", Text(f"{found.count} {found.what}:"), bullets(found.examples))


def criteria(found: GateRecord, following: str) -> RenderableType:
    """The gate as a person reads it: a line a criterion, then what is to be done.

    following: the command that goes on where it is open.
    """
    table = Table("", "criterion", "found", "required", box=None, pad_edge=False)
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
        f"{'Closed by' if c.passed is False else 'Mind'} {c.name}: {c.remedy}"
        for c in found.criteria
        if not c.passed and c.remedy
    ]
    end = f"The gate is open. Next: {following}" if found.open else "The gate is closed."
    return Group(table, "", *[Text(line) for line in todo], Text(end, style="bold"))
