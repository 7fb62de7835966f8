"""Which learning rate, and which share of the blocks, a LoRA of few or many steps learns most with,
on public sets.

    python -m bench.lora_recipes OUT.jsonl [--lms NAME …] [--sets NAME …] [--rates 0.001 …]
        [--shares 0.5 …] [--trains 60 240] [--val 16] [--held 100] [--epochs 4] [--seeds 2]

Every rate with every share; held-out answers of each pair, paired with those of the first. Goes on
where it was stopped: finished trainings are lines of OUT.jsonl, adapters and answers lie in the
folder OUT beside it.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.tuning_table import LMS, METER, SETS, Bench, Cell, lines, worked
from optimize import lm as lms
from optimize.finetune.epoch import TrainingLog, kept
from optimize.finetune.lora.recipe import Recipe
from optimize.finetune.lora.train import curve
from optimize.stats.intervals import known, mean_interval, paired_gain
from optimize.stats.records import GainRecord, ScoreRecord

SAME = "lm", "set", "train"  # one table row
Pair = tuple[float, float]  # learning rate, share of the blocks


def main() -> None:
    given = arguments()
    folder = given.out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    lms.configure(folder, METER)
    pairs = list(product(given.rates, given.shares))
    cells = product(given.lms, given.trains, range(given.seeds), given.sets, pairs)
    for lm, train, seed, name, (rate, share) in cells:
        asked = {"lm": lm, "set": name, "train": train, "seed": seed, "rate": rate, "share": share}
        if not any(asked.items() <= line.items() for line in lines(given.out)):
            cell = Cell(lm, name, seed, "sft", train, *sizes(given))
            found = measured(cell, folder, Recipe(rate, share=share))
            with given.out.open("a") as file:
                file.write(json.dumps(asked | found) + "\n")
    print(table(lines(given.out), pairs))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lms", nargs="+", choices=LMS, default=LMS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 2e-3, 3e-3])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5])
    parser.add_argument("--trains", nargs="+", type=int, default=[60, 240])
    for name, value in {"val": 16, "held": 100, "epochs": 4, "seeds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def sizes(given: argparse.Namespace) -> tuple[int, int, int, int]:
    return given.val, given.held, 0, given.epochs


def measured(cell: Cell, folder: Path, recipe: Recipe) -> dict[str, Any]:
    bench, start = Bench(cell, folder), worked()
    adapter = bench.trainings(bench.gold()).train(recipe, TrainingLog())
    seconds = worked() - start
    held = bench.asked(bench.short, bench.tuned(adapter), bench.held)
    epochs = curve(adapter)
    kept_one = {"epoch_kept": kept(epochs) + 1, "epochs": len(epochs)}
    return {"scores": held.scores, "train_s": seconds, **kept_one}


def table(found: list[dict[str, Any]], pairs: list[Pair]) -> str:
    """Markdown: a row for an LM, set and number of train rows, its seeds' rows together."""
    heads = (f"rate {rate:g}, {share:.0%} of the blocks" for rate, share in pairs)
    head = ["LM", "set", "train rows", *heads]
    told = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for key in dict.fromkeys(tuple(line[k] for k in SAME) for line in found):
        mine = [line for line in found if tuple(line[k] for k in SAME) == key]
        cells, first = list(map(str, key)), _scores(mine, pairs[0])
        for pair in pairs:
            scores = _scores(mine, pair)
            score = str(ScoreRecord.of(mean_interval(known(scores)))) if scores else "–"
            paired = scores and pair != pairs[0] and len(scores) == len(first)
            over = f", {GainRecord.of(paired_gain(first, scores))}" if paired else ""
            seconds = [line["train_s"] for line in mine if _pair(line) == pair]
            cells.append(f"{score}{over}; {fmean(seconds):.0f} CPU s" if scores else score)
        told.append(f"| {' | '.join(cells)} |")
    return "\n".join(told)


def _scores(some: list[dict[str, Any]], pair: Pair) -> list[float | None]:
    return [s for line in some if _pair(line) == pair for s in line["scores"]]


def _pair(line: dict[str, Any]) -> Pair:
    return line["rate"], line["share"]


if __name__ == "__main__":
    main()
