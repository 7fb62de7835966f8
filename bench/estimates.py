"""What is left of a winner's optimism after correction, and what a race costs and how often it is
wrong. Simulated; no LM.

python bench/estimates.py          # half a minute; --json for machines
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from optimize.climb.verdict import errors_asked
from optimize.scoring.evaluate import BLOCK
from optimize.stats.race import hopeless
from optimize.stats.winner import corrected_best

SIZES = (20, 50, 100, 200, 400)
CHOICES = (2, 5, 15, 40)
SPREADS = (0.0, 0.05, 0.15)  # standard deviation of the programs' true scores around 0.65
ROWS = (48, 100, 200, 400)


def optimism(n: int, k: int, spread: float, climbs: int) -> dict[str, Any]:
    """Bias of the best of k programs' mean, raw and corrected, in points; how often the corrected
    interval holds the truth.
    """
    rng = np.random.default_rng([n, k, int(100 * spread)])
    raw, corrected, covered = [], [], []
    for _ in range(climbs):
        truth = np.clip(0.65 + spread * rng.standard_normal(k), 0.02, 0.98)
        latent = 0.6**0.5 * rng.standard_normal(n) + 0.4**0.5 * rng.standard_normal((k, n))
        scores = (latent < norm.ppf(truth)[:, None]).astype(float)
        best = int(scores.mean(axis=1).argmax())
        found = corrected_best(
            scores[best].tolist(), [s.tolist() for i, s in enumerate(scores) if i != best]
        ).interval
        raw.append(scores[best].mean() - truth[best])
        corrected.append(found.mean - truth[best])
        covered.append(found.low <= truth[best] <= found.high)
    points = {
        "raw bias": 100 * np.mean(raw),
        "corrected bias": 100 * np.mean(corrected),
        "covered %": 100 * np.mean(covered),
    }
    return {"spread": spread, "n": n, "k": k} | {
        name: round(float(value), 1) for name, value in points.items()
    }


def racing(rows: int, gain: float, races: int) -> dict[str, Any]:
    """Share of races stopped early and rows asked, for a program whose mean over all rows is
    exactly `gain` from the incumbent's.
    """
    rng = np.random.default_rng([rows, int(1000 + 100 * gain)])
    net = round(gain * rows)
    lost = (round(max(0.25, -gain) * rows) - net) // 2
    differences = [1.0] * (lost + net) + [-1.0] * lost + [0.0] * (rows - 2 * lost - net)
    stopped, asked = 0, 0
    for _ in range(races):
        order = rng.permutation(differences).tolist()
        looks, asked_for = range(BLOCK, rows, BLOCK), errors_asked(cheaper=False)
        end = next((n for n in looks if hopeless(order[:n], rows, asked_for)), rows)
        stopped += end < rows
        asked += end
    return {
        "rows": rows,
        "true gain": gain,
        "stopped early": round(stopped / races, 3),
        "rows asked": round(asked / races / rows, 2),
    }


def main(json_: Annotated[bool, typer.Option("--json")] = False, repeats: int = 200) -> None:
    tables = {
        "Optimism of the best of k, in points": [
            optimism(n, k, s, repeats) for s in SPREADS for n in SIZES for k in CHOICES
        ],
        "Races, a look after every block": [
            racing(n, g, 2 * repeats) for n in ROWS for g in (0.0, -0.05, -0.1, -0.2, -0.4)
        ],
    }
    if json_:
        print(json.dumps(tables, indent=1))
        return
    for title, rows in tables.items():
        table = Table(*rows[0], title=title)
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
