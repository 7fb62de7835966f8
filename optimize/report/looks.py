"""How what is looked at reads in a terminal: runs, prompts, rows, this machine.

Rows, prompts and answers are nobody's but the user's and the LM's: they are never markup, and what
would steer a terminal is shown instead of sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimize.data.excerpts import INPUT, shown_fields
from optimize.files import to_text
from optimize.report.checkup import Checkup
from optimize.report.models import Models, models_section
from optimize.report.monitor import MonitorRecord
from optimize.report.recheck import (
    RecheckRecord,
    recheck_end,
    recheck_section,
    recheck_sentences,
)
from optimize.report.rungs import Answered, Changed, Difference, RowRecord, Shown, WrongRowsByKind
from optimize.report.runs import ID, Runs, runs_section
from optimize.report.sections import Section
from optimize.report.sentences import other_lm
from optimize.report.tasks import Tasks, tasks_section
from optimize.report.text import bullets, table
from optimize.report.watched import monitor_end, monitor_sections, monitor_sentences

DEMOS, DEMO = 3, 50  # of an answer's demos shown, and letters of each field


def runs_shown(found: Runs, width: int) -> RenderableType:
    if not found.runs:
        return "No run yet. Next: optimize run TASK (`optimize tasks` lists them)."
    return _listing(runs_section(found, width))


def tasks_shown(found: Tasks) -> RenderableType:
    return _listing(tasks_section(found), "!")


def models_shown(found: Models) -> RenderableType:
    return _listing(models_section(found))


def _listing(section: Section, mark: str = "·") -> RenderableType:
    """The table, and under it what is to be said of it."""
    return Group(table(section), *([bullets(section.lines, mark)] if section.lines else []))


def rechecked(found: RecheckRecord, today: date) -> RenderableType:
    section = recheck_section(found)
    style = "bold green" if found.at_target else "bold yellow"
    return Group(
        Text(section.title, style="bold"),
        table(section),
        "",
        bullets(recheck_sentences(found, today)),
        "",
        Text(recheck_end(found), style=style),
    )


WATCH_STYLES = {"ok": "bold green", "relabel": "bold yellow", "cannot tell": "bold yellow"}


def monitored(found: MonitorRecord, today: date) -> RenderableType:
    """The verdict first, then why, then the numbers."""
    style = WATCH_STYLES.get(found.verdict, "bold red")
    parts: list[RenderableType] = []
    for section in monitor_sections(found):
        parts += [Text(section.title, style="bold"), table(section), ""]
    return Group(
        Text(found.verdict.upper(), style=style),
        "",
        *parts,
        bullets([visible(line) for line in monitor_sentences(found, today)]),
        "",
        Text(monitor_end(found), style=style),
    )


def shown(found: Shown) -> RenderableType:
    """The prompt, then what it scored and how it is made."""
    knobs = ", ".join(f"{name} {to_text(value)}" for name, value in found.knobs.items())
    scores = [("val", found.val), ("test", found.test)]
    scored = ", ".join(f"{score.with_n} on {side}" for side, score in scores if score)
    return Group(
        Text("What the LM gets for the first val row:", style="dim"),
        *(_prompt_line(line) for line in found.prompt.splitlines()),
        "",
        Text(f"{found.task}~{found.rung}: {scored or 'no score'}", style="bold"),
        bullets([visible(knobs)]),
    )


def _prompt_line(line: str) -> Text:
    role = line.startswith("--- ") and line.endswith(" ---")
    return Text(visible(line), style="bold" if role else "")


DIFF_STYLES = {"---": "bold", "+++": "bold", "@@ ": "cyan", "+": "green", "-": "red"}


def difference(found: Difference, limit: int) -> RenderableType:
    """The prompts line by line, then so many of the rows that got better and worse; 0: all."""
    prompt = [_diff_line(line) for line in found.prompt] or [Text("The prompts are the same.")]
    return Group(
        *prompt,
        "",
        *_scores(found),
        *([bullets([visible(line) for line in told])] if (told := other_lm(found.lms)) else []),
        *_changed(f"Fixed: {_rows(found.fixed)} higher", "green", found.fixed, limit),
        *_changed(f"Broken: {_rows(found.broken)} lower", "red", found.broken, limit),
    )


def _diff_line(line: str) -> Text:
    style = next((s for begin, s in DIFF_STYLES.items() if line.startswith(begin)), "")
    return Text(visible(line), style=style)


def _scores(found: Difference) -> Iterator[RenderableType]:
    if found.gain is None:
        yield Text("They share no val row that both have scored.")
        return
    scores = Section(
        "",
        columns=("program", "val score [95 %]", "n", "gain"),
        rows=[
            [found.before, str(found.val_before), str(found.gain.n), ""],
            [found.after, str(found.val_after), str(found.gain.n), str(found.gain)],
        ],
    )
    yield table(scores)
    yield bullets([f"{found.gain.changed}."])


def _rows(found: Sequence[object]) -> str:
    return "1 row scores" if len(found) == 1 else f"{len(found)} rows score"


def _changed(
    title: str, style: str, found: Sequence[Changed], limit: int
) -> Iterator[RenderableType]:
    if not found:
        return
    yield Text(f"\n{title}", style=f"bold {style}")
    some = found[: limit or None]
    for row in some:
        graded = {row.score_before, row.score_after} != {0.0, 1.0}
        scores = f" ({row.score_before:.2f} → {row.score_after:.2f})" if graded else ""
        lines = [f"gold {shown_fields(row.gold)}{scores}"]
        yield _row(row, [*lines, f"before {_answer(row.before)}", f"after {_answer(row.after)}"])
    yield from _more(len(found) - len(some))


def wrong_rows(found: WrongRowsByKind, limit: int) -> RenderableType:
    """Each kind with what fits it, and so many of its rows; 0: all."""
    parts: list[RenderableType] = [
        Text(f"{found.task}~{found.rung}: {found.wrong} of {found.scored} val rows are not right")
    ]
    for kind in found.kinds:
        rows = f"{kind.count} row{'s' * (kind.count > 1)}, {kind.lost:.3g} points lost"
        title = f"\n{kind.kind} ({rows}): {kind.meaning}"
        parts += [Text(title, style="bold"), bullets([f"What fits: {kind.lever}."], style="dim")]
        some = kind.rows[: limit or None]
        for row in some:
            lines = [f"gold {shown_fields(row.gold)}", f"answer {_answer(row.answer)}"]
            lines += [f"feedback {visible(row.feedback)}"] if row.feedback else []
            parts += [_row(row, lines)]
        parts += _more(kind.count - len(some))
    if found.failed:
        parts += [Text(f"\nThe calls of {found.failed} more rows failed: they have no score.")]
    if found.gone:
        parts += [Text(f"\n{found.gone} rows of that run are not in the devset any more.")]
    return Group(*parts)


def _row(row: RowRecord | Changed, lines: Sequence[str]) -> RenderableType:
    """The row's inputs, and under them what is to be said of it."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(f"  {row.row[:8]}", style="dim"), Text(shown_fields(row.inputs, INPUT)))
    for line in lines:
        word, _, rest = line.partition(" ")
        grid.add_row(Text(word.rjust(10), style="dim"), Text(rest))
    return grid


def _answer(answer: Mapping[str, Any]) -> str:
    return shown_fields(answer) if answer else "none"


def _more(left: int, how: str = "--limit 0 shows all") -> Iterator[RenderableType]:
    if left > 0:
        yield Text(f"  … and {left} more; {how}.", style="dim")


def answered(found: Answered, prompt: bool) -> RenderableType:
    """The answer first, then what it stands on; prompt: with the prompt before all."""
    made = f"the best program so far, of run {(found.run or '')[:ID]}"
    zero = f"the zero-shot program, nothing is optimized yet: optimize run {found.task}"
    sure = "not told by this program or its LM"
    if found.confidence is not None:
        sure = f"{found.confidence:.2f}, the probability of just these words"
    lines = [f"confidence: {sure}"]
    lines += [f"program: {made if found.run else zero}", f"LM {found.lm}: {_spent(found)}"]
    lines += [f"demos in the prompt: {len(found.demos)}"] if found.demos else []
    return Group(
        *(_prompt_line(line) for line in found.prompt.splitlines() if prompt),
        *([""] if prompt else []),
        _outputs(found),
        "",
        bullets(lines),
        *(Text(f"  {shown_fields(demo, DEMO)}", style="dim") for demo in found.demos[:DEMOS]),
        *_more(len(found.demos) - DEMOS, "--prompt shows all"),
    )


def _spent(found: Answered) -> str:
    if not found.calls:
        return "asked before, answered from the cache, no call made"
    cost = "unknown price" if found.cost_usd is None else f"${found.cost_usd:.4f}"
    calls = f"{found.calls} call{'s' * (found.calls != 1)}"
    tokens = f"{found.tokens_in} tokens in, {found.tokens_out} out"
    return f"{calls}, {cost}, {found.seconds:.1f} s, {tokens}"


def _outputs(found: Answered) -> RenderableType:
    if found.unread is not None:
        said = f"The answer could not be read: {found.unread}"
        return Text(visible(said), style="bold red")
    values = {name: visible(to_text(value)) for name, value in found.answer.items()}
    if len(values) == 1:
        return Text(next(iter(values.values())), style="bold")
    grid = Table.grid(padding=(0, 1))
    for name, value in values.items():
        grid.add_row(Text(name, style="dim"), Text(value, style="bold"))
    return grid


MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


def checks_shown(found: Checkup) -> RenderableType:
    """A line a check, and under it what is to be done."""
    grid = Table.grid(padding=(0, 1))
    for check in found.checks:
        mark, style = MARKS[check.status]
        grid.add_row(Text(mark, style=style), Text(check.name), Text(visible(check.found)))
        if check.remedy:
            grid.add_row("", "", Text(f"→ {check.remedy}", style=style))
    failed = sum(check.status == "fail" for check in found.checks)
    end = (
        f"{failed} of {len(found.checks)} checks failed." if failed else "All that is needed works."
    )
    return Group(grid, "", Text(end, style="bold red" if failed else "bold green"))


def visible(text: str) -> str:
    """The text with what would steer a terminal shown as a sign: a row may hold escapes."""
    return text.translate(CONTROLS)


# U+2400 and on are pictures of the controls 0…31; those of 127…159 have none
CONTROLS = {n: chr(0x2400 + n) for n in range(32) if chr(n) not in "\n\t"} | {
    n: "\ufffd" for n in range(127, 160)
}
