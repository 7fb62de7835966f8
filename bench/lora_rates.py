"""Which learning rate a LoRA of few or many steps learns most at, on public sets.

    python -m bench.lora_rates OUT.jsonl [--lms NAME …] [--sets NAME …] [--rates 0.001 …]
        [--trains 60 240] [--val 16] [--held 100] [--epochs 4] [--seeds 2]

Held-out answers of each rate, paired with those of the first. Goes on where it was stopped:
finished trainings are lines of OUT.jsonl, adapters and answers lie in the folder OUT beside it.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from bench.tuning_table import LMS, METER, SETS, Bench, Cell, lines
from optimize import lm as lms
from optimize.finetune.epoch import TrainingLog, kept
from optimize.finetune.lora.recipe import Recipe
from optimize.finetune.lora.train import curve
from optimize.stats.intervals import known, mean_interval, paired_gain
from optimize.stats.records import GainRecord, ScoreRecord

SAME = "lm", "set", "train"  # one table row


def main() -> None:
    given = arguments()
    folder = given.out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lms.configure(folder, METER)
    cells = product(given.lms, given.trains, range(given.seeds), given.sets, given.rates)
    for lm, train, seed, name, rate in cells:
        asked = {"lm": lm, "set": name, "train": train, "seed": seed, "rate": rate}
        if not any(asked.items() <= line.items() for line in lines(given.out)):
            found = measured(Cell(lm, name, seed, "sft", train, *sizes(given)), folder, rate)
            with given.out.open("a") as file:
                file.write(json.dumps(asked | found) + "\n")
    print(table(lines(given.out), given.rates))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lms", nargs="+", choices=LMS, default=LMS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 2e-3, 3e-3])
    parser.add_argument("--trains", nargs="+", type=int, default=[60, 240])
    for name, value in {"val": 16, "held": 100, "epochs": 4, "seeds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def sizes(given: argparse.Namespace) -> tuple[int, int, int, int]:
    return given.val, given.held, 0, given.epochs


def measured(cell: Cell, folder: Path, rate: float) -> dict[str, Any]:
    bench = Bench(cell, folder)
    adapter = bench.trainings(bench.gold()).train(Recipe(rate), TrainingLog())
    held = bench.asked(bench.short, bench.tuned(adapter), bench.held)
    epochs = curve(adapter)
    return {"scores": held.scores, "epoch_kept": kept(epochs) + 1, "epochs": len(epochs)}


def table(found: list[dict[str, Any]], rates: list[float]) -> str:
    """Markdown: a row for an LM, set and number of train rows, its seeds' rows together."""
    head = ["LM", "set", "train rows", *(f"rate {rate:g}" for rate in rates)]
    told = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for key in dict.fromkeys(tuple(line[k] for k in SAME) for line in found):
        mine = [line for line in found if tuple(line[k] for k in SAME) == key]
        cells, first = list(map(str, key)), _scores(mine, rates[0])
        for rate in rates:
            scores = _scores(mine, rate)
            score = str(ScoreRecord.of(mean_interval(known(scores)))) if scores else "–"
            paired = scores and rate != rates[0] and len(scores) == len(first)
            over = f", {GainRecord.of(paired_gain(first, scores))}" if paired else ""
            cells.append(score + over)
        told.append(f"| {' | '.join(cells)} |")
    return "\n".join(told)


def _scores(some: list[dict[str, Any]], rate: float) -> list[float | None]:
    return [s for line in some if line["rate"] == rate for s in line["scores"]]


if __name__ == "__main__":
    main()
