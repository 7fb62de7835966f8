"""Pictures of a run: the climb with its verdict, and what a tuning changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimize.climb.verdict import WEIGHTS
from optimize.finetune.epoch import kept
from optimize.report.record import Report
from optimize.stats.records import ScoreRecord

BEFORE, AFTER, GREY = "tab:blue", "tab:orange", "0.6"


def names(tuned: bool) -> list[str]:
    """The pictures of a run with or without a tuning."""
    return ["climb.png", "tuning.png"] if tuned else ["climb.png"]


def draw(report: Report, path: Path) -> None:
    """Write the picture that the file's name says (see `names`) as PNG."""
    from matplotlib.figure import Figure  # no pyplot: it would look for a display

    figure = Figure(figsize=(11, 4), layout="constrained")
    if path.stem == "climb":
        _climb(figure.subplots(), report)
    else:
        panels = figure.subplots(1, 3)
        for axes, panel in zip(panels, (_losses, _sure, _pays), strict=True):
            if not panel(axes, report):
                axes.text(0.5, 0.5, "not known", ha="center", transform=axes.transAxes, color=GREY)
        figure.suptitle(f"{report.task}: best prompt program (before) and tuned LM (after)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _climb(axes: Any, report: Report) -> None:
    """Each lever's val score with its interval, what the next one was built on as a step, then the
    test scores.
    """
    tried = [a for a in report.attempts if a.val]
    best: list[float] = []
    for place, a in enumerate(tried):
        assert a.val
        weights = a.family == WEIGHTS
        color = AFTER if weights else BEFORE if a.promoted else GREY
        _point(axes, place, a.val, color, "o")
        if not weights:
            best.append(a.val.score if a.promoted else best[-1])
    axes.step(range(len(best)), best, where="post", color=BEFORE, lw=1, label="built on, val")
    test = {"zero-shot": report.test.zero_shot, "best prompt": report.test.prompt}
    test |= {"tuned LM": report.test.tuned} if report.test.tuned else {}
    labels = [a.rung.replace("_", " ").replace(", ", ",\n") for a in tried]
    axes.axvline(len(tried) - 0.5, color=GREY, lw=0.8)
    for place, (name, score) in enumerate(test.items(), len(tried)):
        _point(axes, place, score, AFTER if name == "tuned LM" else BEFORE, "s")
        labels.append(f"{name}\non test")
    if report.test.baselines:
        name, score = max(report.test.baselines.items(), key=lambda item: item[1].score)
        axes.axhline(score.score, color=GREY, ls=":", lw=1, label=f"no LM: {name}, on test")
    axes.axhline(report.target, color="tab:green", ls="--", lw=1, label=f"target {report.target}")
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set(ylim=(-0.02, 1.02), ylabel="score [95 %]")
    axes.set_title(f"{report.task}: {report.verdict.replace('_', ' ')}", fontweight="bold")
    axes.legend(loc="best", fontsize="small")


def _point(axes: Any, place: int, found: ScoreRecord, color: str, marker: str) -> None:
    error = [[found.score - found.low], [found.high - found.score]]
    axes.errorbar(place, found.score, yerr=error, fmt=marker, color=color, capsize=3)
    where = (place, found.score)
    axes.annotate(f" {found.score:.2f}", where, fontsize="small", color=color, va="bottom")


def _losses(axes: Any, report: Report) -> bool:
    axes.set(title="Loss by epoch", xlabel="epoch", ylabel="loss on the answers")
    epochs = range(1, len(report.training) + 1)
    if not epochs:
        return False
    axes.plot(epochs, [e.train_loss for e in report.training], "o-", color=GREY, label="train")
    axes.plot(epochs, [e.val_loss for e in report.training], "o-", color=AFTER, label="val")
    axes.axvline(kept(report.training) + 1, ls=":", color=GREY, label="kept")
    axes.set_xticks(list(epochs))
    axes.legend()
    return True


def _sure(axes: Any, report: Report) -> bool:
    axes.set(
        title="How sure, how right (test rows)",
        xlabel="confidence",
        ylabel="score",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    effects = report.effects
    known = (effects.confidence_before, effects.confidence_after) if effects else ()
    if not any(known):
        return False
    for name, color, found in zip(("before", "after"), (BEFORE, AFTER), known, strict=False):
        if found:
            x, y = [b.confidence for b in found.bins], [b.score for b in found.bins]
            axes.plot(x, y, "o-", color=color, label=f"{name}: calibration error {found.ece:.2f}")
    axes.plot((0, 1), (0, 1), ls=":", color=GREY, label="as right as sure")
    axes.legend()
    return True


def _pays(axes: Any, report: Report) -> bool:
    axes.set(title="When the training pays", xlabel="answers", ylabel="minutes of the machine")
    found = report.effects
    if not (found and found.price_before and found.price_after):
        return False
    if found.train_seconds is None:  # trained elsewhere
        return False
    until = 2 * (found.pays_after or 1000)
    for name, color, start, price in (
        ("before", BEFORE, 0.0, found.price_before),
        ("after", AFTER, found.train_seconds, found.price_after),
    ):
        each = price.seconds / found.in_flight
        axes.plot(
            (0, until),
            (start / 60, (start + until * each) / 60),
            color=color,
            label=f"{name}: {each:.2f} s an answer",
        )
    if found.pays_after:
        axes.axvline(
            found.pays_after, ls=":", color=GREY, label=f"after {found.pays_after} answers"
        )
    axes.legend()
    return True
