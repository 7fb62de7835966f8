"""How often `optimize monitor` cries wolf over new rows, and how often it sees that they are of
another kind. Public rows; no LM.

python -m bench.drift --draws 40 --law "a label"    # one law; all of them take an hour on one core
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.public_sets import SETS
from optimize.climb.holding import ALARM
from optimize.data.drift import inputs_drift, words_drift
from optimize.data.labels import classifier
from optimize.files import read_jsonl
from optimize.stats.two_samples import holm, shares_differ

SIZES = (50, 100, 200, 400)
KNOWN = 300  # train, val and test rows together
HELD = 100  # of them, test rows
Row = dict[str, str]
Draw = Callable[[random.Random, int], tuple[list[Row], list[Row]]]


def rows_of(name: str, *files: str) -> list[Row]:
    return [row for f in files for _, row in read_jsonl(SETS / name / f"{f}.jsonl")]


CLINC = rows_of("clinc_domain10", "train", "dev", "test")
ODD = rows_of("clinc_domain10", "ood")
BANK = rows_of("banking77", "train", "dev", "test", "train_pool")
INTENTS = sorted({row["label"] for row in BANK})
FEW = [row for row in BANK if row["label"] in INTENTS[::6][:12]]
OTHERS = [row for row in BANK if row["label"] in INTENTS[1::6][:4]]


def mixed(rows: list[Row], odd: list[Row], share: float) -> Draw:
    """New rows of which a share comes from elsewhere."""

    def draw(rng: random.Random, n: int) -> tuple[list[Row], list[Row]]:
        drawn, k = rng.sample(rows, KNOWN + n), round(share * n)
        return drawn[:KNOWN], drawn[KNOWN : KNOWN + n - k] + rng.sample(odd, k)

    return draw


def tilted(rng: random.Random, n: int) -> tuple[list[Row], list[Row]]:
    """One label of twelve makes up a quarter of the new rows in place of a twelfth."""
    drawn = rng.sample(FEW, len(FEW))
    known, rest = drawn[:KNOWN], drawn[KNOWN:]
    label = INTENTS[0]
    much = [row for row in rest if row["label"] == label][: n // 4]
    return known, much + [row for row in rest if row["label"] != label][: n - len(much)]


def mistyped(rng: random.Random, n: int) -> tuple[list[Row], list[Row]]:
    """In a tenth of the words two letters have changed places."""

    def word(text: str) -> str:
        if len(text) < 4 or rng.random() > 0.1:
            return text
        at = rng.randrange(1, len(text) - 2)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]

    known, new = mixed(FEW, [], 0)(rng, n)
    texts = [" ".join(map(word, row["text"].split())) for row in new]
    return known, [row | {"text": text} for row, text in zip(new, texts, strict=True)]


LAWS: dict[str, Draw] = {
    "none, clinc": mixed(CLINC, [], 0),
    "none, banking": mixed(FEW, [], 0),
    "a tenth off topic, each of its own": mixed(CLINC, ODD, 0.1),
    "a quarter off topic, each of its own": mixed(CLINC, ODD, 0.25),
    "half off topic, each of its own": mixed(CLINC, ODD, 0.5),
    "a tenth of four new intents": mixed(FEW, OTHERS, 0.1),
    "a quarter of four new intents": mixed(FEW, OTHERS, 0.25),
    "a label three times as frequent": tilted,
    "typing errors in a tenth of the words": mistyped,
}


def tested(draw: Draw, n: int, seed: int) -> dict[str, float]:
    """p of each test, by name, as `optimize monitor` makes them. A classifier without an LM, learnt
    from the known rows that are not held back, stands for the program that answers.
    """
    known, new = draw(random.Random(f"{seed} {n}"), n)
    texts, asked = ([row["text"] for row in side] for side in (known, new))
    learnt, held = texts[:-HELD], texts[-HELD:]
    program = classifier().fit(learnt, [row["label"] for row in known[:-HELD]])
    answers = (list(program.predict(side)) for side in (held, asked))
    return {
        "inputs": inputs_drift(texts, asked, seed).p,
        "unknown words": words_drift(learnt, held, asked, seed).p,
        "answers": shares_differ(*answers, seed),
    }


def power(law: str, n: int, draws: int) -> dict[str, Any]:
    """Share of draws, in percent, in which each test alone, and all of them together, alarm."""
    found = [tested(LAWS[law], n, seed) for seed in range(draws)]
    alone = {name: sum(p[name] <= ALARM for p in found) for name in found[0]}
    together = sum(min(holm(list(p.values()))) <= ALARM for p in found)
    shares = {name: round(100 * k / draws, 1) for name, k in (alone | {"all": together}).items()}
    return {"drift": law, "new rows": n, **shares}


def main(
    draws: int = 200, json_: Annotated[bool, typer.Option("--json")] = False, law: str = ""
) -> None:
    found = []
    table = Table("drift", "new rows", "inputs", "unknown words", "answers", "all, %", box=None)
    for name in LAWS:
        for n in SIZES if law in name else ():
            found.append(power(name, n, draws))
            table.add_row(*map(str, found[-1].values()))
            print(found[-1], file=sys.stderr)
    if json_:
        print(json.dumps(found, indent=1))
    else:
        Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
