"""One picture of a tuning: its losses, how sure and how right the LM is, and when the training
pays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimize.finetune.epoch import kept
from optimize.report.record import Report

BEFORE, AFTER = "tab:blue", "tab:orange"


def tuning_chart(report: Report, path: Path) -> None:
    """Write the PNG: three panels, each saying so where its numbers are not known."""
    from matplotlib.figure import Figure  # no pyplot: it would look for a display

    figure = Figure(figsize=(13, 4), layout="constrained")
    losses, sure, pays = figure.subplots(1, 3)
    for axes, draw in ((losses, _losses), (sure, _sure), (pays, _pays)):
        if not draw(axes, report):
            axes.text(
                0.5,
                0.5,
                "not known",
                ha="center",
                va="center",
                transform=axes.transAxes,
                color="gray",
            )
    figure.suptitle(f"{report.task}: best prompt program (before) and tuned LM (after)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _losses(axes: Any, report: Report) -> bool:
    axes.set(title="Loss by epoch", xlabel="epoch", ylabel="loss on the answers")
    epochs = range(1, len(report.training) + 1)
    if not epochs:
        return False
    axes.plot(epochs, [e.train_loss for e in report.training], "o-", color="gray", label="train")
    axes.plot(epochs, [e.val_loss for e in report.training], "o-", color=AFTER, label="val")
    axes.axvline(kept(report.training) + 1, ls=":", color="gray", label="kept")
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
    axes.plot((0, 1), (0, 1), ls=":", color="gray", label="as right as sure")
    axes.legend()
    return True


def _pays(axes: Any, report: Report) -> bool:
    axes.set(title="When the training pays", xlabel="answers", ylabel="minutes of the machine")
    found = report.effects
    if not (found and found.price_before and found.price_after):
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
            found.pays_after, ls=":", color="gray", label=f"after {found.pays_after} answers"
        )
    axes.legend()
    return True
