"""A climb under way, a line a rung, none wider than the screen. Knows no clock and no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from optimize.climb.verdict import History, contenders, decide
from optimize.lm.usage import Usage
from optimize.report.record import AttemptRecord
from optimize.report.text import duration
from optimize.stats.records import ScoreRecord, percent

NAME = 21  # letters of a rung's name with its mark
NUMBERS = 38  # of what stands behind the bar
BAR = 30  # at most
DONE = 12  # letters of the bar of the work at hand


@dataclass(frozen=True)
class Work:
    """What is done just now. total None: nobody knows how much it is."""

    name: str
    done: int = 0
    total: int | None = None
    note: str = ""
    left: str = ""


def bar_width(width: int) -> int:
    """Letters of a bar on a screen of so many; 0: there is no room for one."""
    room = width - NAME - NUMBERS - 1
    return min(BAR, room) if room >= 8 else 0


def heading(width: int) -> Text:
    scale = "val score, 0 to 1"[: bar_width(width)].ljust(bar_width(width))
    numbers = f"{'':>5}{'gain':>7}{'calls':>8}{'cost':>9}{'time':>9}"
    return fitting(Text(f"{'  lever':{NAME}}{scale}{numbers}", style="dim"), width)


def rung_line(record: AttemptRecord, target: float | None, width: int) -> Text:
    """Name, score in its interval against the target, gain over the best so far, and its price."""
    mark = "▲" if record.promoted and record.gain else " "
    line = Text(f"{mark} {record.rung}")
    line.truncate(NAME - 1, overflow="ellipsis")
    line.pad_right(NAME - line.cell_len)
    if record.val is None:
        why = f"skipped: {record.skipped}" if record.skipped else f"failed: {record.error}"
        return fitting(line.append(" ".join(why.split()), style="dim"), width)
    line.append_text(score_bar(record.val, target, bar_width(width)))
    gain = f"{record.gain.mean:+.2f}" if record.gain else ""
    cost = "–" if record.cost_usd is None else f"${record.cost_usd:.2f}"
    spent = f"{record.lm_calls:>8}{cost:>9}{duration(record.seconds):>9}"
    return fitting(line.append(f"{record.val.score:>5.2f}{gain:>7}{spent}"), width)


def score_bar(score: ScoreRecord, target: float | None, width: int) -> Text:
    """From 0 to 1: ─ is the interval, ● the score in it, │ the target."""

    def at(value: float) -> int:
        return min(width - 1, int(value * width))

    line = Text()
    for n in range(width):
        inside = at(score.low) <= n <= at(score.high)
        if n == at(score.score):
            met = target is not None and score.score >= target
            line.append("●", style="bold green" if met else "bold")
        elif target is not None and n == at(target):
            line.append("┼" if inside else "│", style="yellow")
        else:
            line.append("─" if inside else "·", style="" if inside else "dim")
    return line


def work_line(work: Work, spinner: str, width: int) -> Text:
    """The rung at work, with a bar and the time it still takes."""
    line = Text(f"{spinner} {work.name}", style="bold")
    line.truncate(NAME - 1, overflow="ellipsis")
    line.pad_right(NAME - line.cell_len)
    if not work.total:
        return fitting(line.append(work.note), width)
    size = DONE if bar_width(width) else 0
    full = min(size, size * work.done // work.total)
    line.append("━" * full, style="green").append("━" * (size - full), style="dim")
    parts = (f"{work.done}/{work.total} {work.note}".strip(), work.left)
    return fitting(line.append(f" {', '.join(filter(None, parts))}", style="not bold"), width)


def spending_line(used: Usage, most: int, pace: float, threads: int, width: int) -> Text:
    """What the run has asked so far. pace: calls a second, of late."""
    cost = "" if used.cost_usd is None else f", ${used.cost_usd:.2f}"
    cached = f", {used.cached} from the cache" if used.cached else ""
    cached += f", {used.failed} failed" if used.failed else ""
    said = f"  {pace:.1f} calls/s, up to {threads} at once; {used.calls} of {most} calls"
    return fitting(Text(f"{said}{cost}{cached}", style="dim"), width)


def forming(history: History) -> list[str]:
    """The verdict so far: the best prompt program, and how likely it is at the target."""
    decision = decide(history)
    best = history.tried[contenders(history.tried, history.val)[0]]
    score = ScoreRecord.of(decision.best.interval)
    corrected = ", corrected for selection" if decision.best.optimism >= 0.0005 else ""
    return [
        f"Best so far: {best.rung} {score.with_n}{corrected}",
        f"Chance that it is at the target {history.target:g}: {percent(decision.chance)}",
    ]


def last_lines(lines: Sequence[Text], room: int) -> list[Text]:
    """As many of the last lines as there is room for, and how many more there are."""
    if len(lines) <= room:
        return list(lines)
    shown = lines[len(lines) - max(0, room - 1) :] if room > 1 else []
    return [Text(f"  … {len(lines) - len(shown)} before", style="dim"), *shown]


def fitting(line: Text, width: int) -> Text:
    """The line, cut where the screen ends."""
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line
