"""What an LM learns from, side by side on public sets: a prompt with demos, our SFT, TRL's, a
teacher's labels, preferences, a grid of trainings. Held-out score, forgetting, calibration, cost.

    python -m bench.tuning_table OUT.jsonl [--lms embedded …] [--sets NAME …] [--methods NAME …]
        [--train 80] [--val 24] [--held 60] [--general 24] [--epochs 4] [--seeds 1]
    python -m bench.tuning_table OUT.jsonl --table

A cell is one LM × set × seed × method, in a process of its own; goes on where it was stopped:
finished cells are lines of OUT.jsonl, adapters and answers lie in the folder OUT beside it.
Seconds are those of the processor, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dspy

from bench.lora import base_folder, trl_trained
from bench.public_sets import public_set
from optimize import lm as lms
from optimize.config import RunConfig
from optimize.finetune.effects import price
from optimize.finetune.epoch import TrainingLog, kept
from optimize.finetune.forgetting import GENERAL_TOKENS, ask, questions
from optimize.finetune.job import TrainingJob
from optimize.finetune.lora import train as lora
from optimize.finetune.lora.adapter_peft import to_gguf
from optimize.finetune.lora.recipe import choose, grid
from optimize.finetune.lora.train import curve
from optimize.finetune.lora.trainings import Trainings
from optimize.finetune.training_rows import chat_rows, preferences, tuned_student
from optimize.finetune.trl import train as trl
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.program.program import Program, student
from optimize.scoring.calibration import confidence
from optimize.scoring.evaluate import Asking, evaluate
from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import mean_interval, paired_gain
from optimize.stats.records import GainRecord, ScoreRecord

ROOT = Path(__file__).parents[1]
LMS = ("embedded", "qwen2.5-coder-0.5b")
SETS = ("banking77_12", "clinc_domain10")
TEACHER = "qwen2.5-coder-1.5b"
METHODS = {
    "prompt": "12 demos in the prompt",
    "sft": "SFT, ours",
    "trl": "SFT, TRL, all blocks",
    "distill": "labels of the 1.5B with 12 demos",
    "dpo": "SFT and DPO together",
    "after": "SFT, then DPO, TRL's",
    "grid": "SFT, ours, best rate of 3 by val",
}
COLUMNS = (
    *("learns from", "rows", "held-out [95 %]", "over SFT, paired", "general"),
    *("calibration error (by chance)", "tokens an answer", "CPU s an answer", "training, CPU s"),
)
DEMOS, THREADS = 12, 4
TOKENS = 24  # of an answer


@dataclass(frozen=True)
class Cell:
    """What is measured, and on how many rows; all of it is its name in the file."""

    lm: str
    set: str
    seed: int
    method: str
    train: int
    val: int
    held: int
    general: int
    epochs: int


@dataclass(frozen=True)
class Bench:
    """One cell at work. folder: of what it shares with the others."""

    cell: Cell
    folder: Path

    def __post_init__(self) -> None:
        cell, data = self.cell, public_set(self.cell.set)
        learn = random.Random(cell.seed).sample(data.learn, len(data.learn))
        demos = one_a_label(learn)
        rest = [row for row in learn if row not in demos]
        sides = {
            "task": data.task,
            "train": rest[: cell.train],
            "val": rest[cell.train : cell.train + cell.val],
            "held": list(data.score[: cell.held]),
            "config": RunConfig(lm=cell.lm, epochs=cell.epochs, seed=cell.seed, threads=THREADS),
        }
        prompt, short = student(data.task), tuned_student(student(data.task))
        prompt.format = "compact"
        for predictor in prompt.predictors():
            predictor.demos = demos
        for name, value in {**sides, "prompt": prompt, "short": short}.items():
            object.__setattr__(self, name, value)

    task: Any = None
    train: Any = ()
    val: Any = ()
    held: Any = ()
    config: Any = None
    prompt: Any = None
    short: Any = None

    @property
    def adapters(self) -> Path:
        return self.folder / f"{self.cell.lm}-{self.cell.set}-{self.cell.seed}"

    @property
    def base(self) -> Path:
        """The weights that ours and TRL's are trained on; much of the time that a small training
        takes is reading a GGUF file.
        """
        return base_folder(self.gguf, self.folder / f"{self.cell.lm}-base")

    @property
    def gguf(self) -> Path:
        found = lms.gguf_path(self.cell.lm)
        assert found
        return found

    def lm(self, name: str, tokens: int = TOKENS) -> MeteredLM:
        return lms.telling(lms.task_lm(self.config.model_copy(update={"lm": name}), METER, tokens))

    def tuned(self, adapter: str, tokens: int = TOKENS) -> MeteredLM:
        return lms.telling(lms.adapted_lm(self.config, METER, adapter, tokens))

    def asked(self, program: Program, lm: MeteredLM, rows: Sequence[dspy.Example]) -> Evaluation:
        with dspy.context(lm=lm):
            return evaluate(program, rows, Asking(self.task, THREADS))

    def gold(self) -> list[dict[str, Any]]:
        return chat_rows(self.short, self.train)

    def trainings(self, rows: Sequence[dict[str, Any]]) -> Trainings:
        return Trainings(self.job(rows, self.config))

    def job(self, rows: Sequence[dict[str, Any]], config: RunConfig) -> TrainingJob:
        val = chat_rows(self.short, self.val)
        return TrainingJob(rows, val, str(self.base), self.adapters, config, shown)


METER = Meter(1_000_000)


def shown(done: int, total: int, note: str) -> None:
    """Where a training is, for who looks at a long run."""
    print(f"\r{done}/{total} {note}   ", end="", file=sys.stderr)


def one_a_label(rows: Sequence[dspy.Example]) -> list[dspy.Example]:
    """Demos: the first row of each label, then of each again, DEMOS in all."""
    left, found = list(rows), list[dspy.Example]()
    while len(found) < DEMOS:
        seen: set[str] = set()
        for row in [r for r in left if not (r.label in seen or seen.add(r.label))]:
            found.append(row)
            left.remove(row)
    return found[:DEMOS]


Found = dict[str, Any]


def trained(bench: Bench, rows: Sequence[dict[str, Any]]) -> str:
    return lora.train(bench.job(rows, bench.config))


def sft(bench: Bench) -> tuple[str, Found]:
    rows = bench.gold()
    return trained(bench, rows), {"rows": len(rows)}


def distill(bench: Bench) -> tuple[str, Found]:
    """The teacher's labels of the same rows, right or wrong; those that cannot be read left out."""
    cpu = worked()
    outcomes = bench.asked(bench.prompt, bench.lm(TEACHER), bench.train)
    labelled = [
        row.copy(label=said)
        for row, o in zip(bench.train, outcomes.outcomes, strict=True)
        if (said := o.answer.get("label"))
    ]
    told = {"teacher": outcomes.scores, "teacher_s": worked() - cpu, "rows": len(labelled)}
    cost = price(outcomes)
    told |= {"teacher_tokens": cost and cost.tokens_in + cost.tokens_out}
    rows = chat_rows(bench.short, labelled)
    return trained(bench, rows), told


def paired(bench: Bench) -> tuple[list[dict[str, Any]], Found]:
    """Gold answers, preferred to the prompted base LM's where that was wrong, and the other ones,
    as `--method dpo` has them.
    """
    gold = bench.gold()
    outcomes = bench.asked(bench.prompt, bench.lm(bench.cell.lm), bench.train).outcomes
    pairs = preferences(bench.short, gold, outcomes)
    asked = [row["prompt"] for row in pairs]
    rows = [*pairs, *(row for row in gold if row["messages"][:-1] not in asked)]
    return rows, {"rows": len(rows), "pairs": len(pairs)}


def dpo(bench: Bench) -> tuple[str, Found]:
    rows, found = paired(bench)
    return trained(bench, rows), found


def dpo_after(bench: Bench) -> tuple[str, Found]:
    """By `--backend trl --method dpo`: two trainings, the second on the pairs alone."""
    rows, found = paired(bench)
    config = bench.config.model_copy(update={"method": "dpo", "finetune": "trl"})
    return trl.train(bench.job(rows, config)), found


def on_grid(bench: Bench) -> tuple[str, Found]:
    trainings, tried = bench.trainings(bench.gold()), list[tuple[str, Evaluation]]()
    recipes = grid(3, trainings.own.rate)
    for recipe in recipes:
        adapter = trainings.train(recipe, TrainingLog())
        tried.append((adapter, bench.asked(bench.short, bench.tuned(adapter), bench.val)))
    scores = [evaluation.scores for _, evaluation in tried]
    number = choose(scores, [Path(adapter).stat().st_size for adapter, _ in tried])
    points = [
        {"rate": recipe.rate, "val": evaluation.interval.mean}
        for recipe, (_, evaluation) in zip(recipes, tried, strict=True)
    ]
    return tried[number][0], {"rows": len(bench.train), "points": points, "chosen": number}


def by_trl(bench: Bench) -> tuple[str, Found]:
    """TRL's own defaults but for rank, batch, rate and epochs, which are ours; its last epoch."""
    out = bench.adapters / f"trl-{bench.cell.train}-{bench.cell.epochs}"
    target, rows, val = out.with_suffix(".gguf"), bench.gold(), chat_rows(bench.short, bench.val)
    if not target.is_file():
        trainer = trl_trained(rows, val, bench.base, out, bench.cell.epochs, bench.cell.seed)
        trainer.save_model(str(out / "adapter"))
        to_gguf(out / "adapter", bench.gguf, target)
    return str(target), {"rows": len(rows)}


TRAINED: dict[str, Callable[[Bench], tuple[str, Found]]] = {
    "sft": sft,
    "distill": distill,
    "dpo": dpo,
    "after": dpo_after,
    "grid": on_grid,
    "trl": by_trl,
}


def worked() -> float:
    """Seconds of the processor, of all threads of this process and of those that it has ended."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def measured(cell: Cell, folder: Path) -> Found:
    """All of one cell; asks LMs and trains."""
    lms.configure(folder, METER)
    bench, adapter, found = Bench(cell, folder), None, Found()
    if cell.method in TRAINED:
        _ = bench.base  # written once for all
    start, clock = worked(), time.perf_counter()
    if cell.method in TRAINED:
        adapter, found = TRAINED[cell.method](bench)
        found |= {"train_s": worked() - start - found.get("teacher_s", 0.0)}
        found |= {"train_clock_s": time.perf_counter() - clock}
        if epochs := curve(adapter):
            found |= {"epochs": len(epochs), "epoch_kept": kept(epochs) + 1}
    general = questions(ROOT)[:: max(1, len(questions(ROOT)) // cell.general)][: cell.general]
    lm = bench.tuned(adapter) if adapter else bench.lm(cell.lm)
    program = bench.short if adapter else bench.prompt
    bench.asked(program, lm, bench.val[:THREADS])  # what loading takes is no answer's
    before = worked()
    evaluation = bench.asked(program, lm, bench.held)
    if all(outcome.asked_anew for outcome in evaluation.outcomes):  # else a stop came between
        found |= {"answer_s": (worked() - before) / len(bench.held)}
    wide = bench.tuned(adapter, GENERAL_TOKENS) if adapter else bench.lm(cell.lm, GENERAL_TOKENS)
    asked = ask(wide, general, THREADS, lambda done, total: None)
    cost, sure = price(evaluation), confidence(evaluation)
    return asdict(cell) | {
        **found,
        "scores": evaluation.scores,
        "forgotten": asked.scores,
        "tokens": cost and cost.tokens_in + cost.tokens_out,
        "ece": sure and sure.ece,
        "ece_floor": sure and sure.floor,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def lines(out: Path) -> list[Found]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def of(line: Found) -> Cell:
    return Cell(**{name: line[name] for name in Cell.__dataclass_fields__})


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    """Every method on both sets before the next one, every LM before the next one."""
    sizes = given.train, given.val, given.held, given.general, given.epochs
    for lm in given.lms:
        for seed in range(given.seeds):
            for method in given.methods:
                for name in given.sets:
                    yield Cell(lm, name, seed, method, *sizes)


def filled(out: Path, given: argparse.Namespace) -> None:
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells(given):
        if cell in map(of, lines(out)):
            continue
        told = json.dumps(asdict(cell))
        command = [sys.executable, "-m", "bench.tuning_table", str(out), "--alone", told]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"failed: {told}", file=sys.stderr)
            continue
        with out.open("a") as file:
            file.write(done.stdout.splitlines()[-1] + "\n")
        print(f"\n{time.strftime('%H:%M')} {cell.lm} {cell.set} {cell.method}", flush=True)


def table(out: Path) -> str:
    """Markdown: a table for each LM and set; the first seed's rows paired, all seeds' together."""
    found, told = lines(out), list[str]()
    for lm, name in dict.fromkeys((line["lm"], line["set"]) for line in found):
        some = [line for line in found if (line["lm"], line["set"]) == (lm, name)]
        n = len(some[0]["scores"])
        told += [f"\n{lm}, {name}, {n} held-out rows a seed:\n"]
        told += [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
        for method in METHODS:
            mine = [line for line in some if line["method"] == method]
            told += [_row(method, mine, some)] if mine else []
    return "\n".join(told)


def _row(method: str, mine: Sequence[Found], some: Sequence[Found]) -> str:
    def joined(which: str, key: str) -> list[float | None]:
        """Of the seeds that this method has as well, in their order."""
        seeds = {line["seed"]: line for line in some if line["method"] == which}
        return [s for one in mine if one["seed"] in seeds for s in seeds[one["seed"]][key]]

    def mean(key: str, form: str) -> str:
        values = [line[key] for line in mine if line.get(key) is not None]
        return format(sum(values) / len(values), form) if values else "–"

    scores, gold = joined(method, "scores"), joined("sft", "scores")
    over = GainRecord.of(paired_gain(gold, scores)) if gold and method != "sft" else ""
    base, tuned = joined("prompt", "forgotten"), joined(method, "forgotten")
    forgot = f"{_mean(base)} → {_mean(tuned)}" if method != "prompt" else _mean(base)
    score = ScoreRecord.of(mean_interval([s for s in scores if s is not None]))
    calibration = f"{mean('ece', '.2f')} ({mean('ece_floor', '.2f')})"
    costs = mean("tokens", ".0f"), mean("answer_s", ".2f"), mean("train_s", ".0f")
    cells = METHODS[method], mean("rows", ".0f"), score, over, forgot, calibration, *costs
    return f"| {' | '.join(map(str, cells))} |"


def _mean(scores: Sequence[float | None]) -> str:
    known = [s for s in scores if s is not None]
    return f"{sum(known) / len(known):.2f}" if known else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for name, choices in (("lms", LMS), ("sets", SETS), ("methods", tuple(METHODS))):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices)
    sizes = {"train": 80, "val": 24, "held": 60, "general": 24, "epochs": 4, "seeds": 1}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.table:
        print(table(given.out))
    elif given.alone:
        print(json.dumps(measured(Cell(**json.loads(given.alone)), given.out.with_suffix(""))))
    else:
        filled(given.out, given)


if __name__ == "__main__":
    main()
