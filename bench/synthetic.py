"""What synthetic rows are worth to baselines without an LM.

python -m bench.synthetic --lm qwen2.5-coder-0.5b --rows 100: five rows a label of clinc_domain10
to learn from, synthetic ones written after them by this LM, and the gain of both baselines on the
400 test rows, beside that of as many more rows of people.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import dspy

from bench.public_sets import SETS
from optimize.climb.observer import Observer
from optimize.commands.session import Session, open_session
from optimize.commands.synthesize import Writing, candidates, synthesize
from optimize.commands.synthesizing.checks import Checks
from optimize.config import load_config
from optimize.data.baselines import baseline_scores
from optimize.data.synthetic import faults
from optimize.files import read_jsonl
from optimize.report.synthesis import synthesis_section
from optimize.stats.records import GainRecord

EACH = 5  # rows of people a label
PROGRAM = '''
from typing import Literal
import dspy
from optimize import Score, Task

class Domain(dspy.Signature):
    """Name the domain of the request."""
    text: str = dspy.InputField()
    label: Literal[{labels}] = dspy.OutputField()

def metric(example, prediction):
    return Score(float(prediction.label == example.label))

task = Task(signature=Domain, metric=metric, max_tokens=24)
'''
Row = dict[str, str]


class Told(Observer):
    def noted(self, line: str) -> None:
        print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)


def written(root: Path) -> list[Row]:
    """The project; and the rows of people that it does not learn from."""
    sides = {
        name: [{"text": r["text"], "label": r["label"]} for _, r in read_jsonl(SETS / SET / file)]
        for name, file in (("train", "train.jsonl"), ("val", "dev.jsonl"), ("test", "test.jsonl"))
    }
    seen: Counter[str] = Counter()
    few, spare = [], []
    for row in sides["train"]:
        (few if seen[row["label"]] < EACH else spare).append(row)
        seen[row["label"]] += 1
    folder = root / "devsets" / "domain"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "programs").mkdir(exist_ok=True)
    labels = ", ".join(map(repr, sorted(seen)))
    (root / "programs" / "domain.py").write_text(PROGRAM.format(labels=labels))
    for name, rows in (sides | {"train": few}).items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return spare


SET = "clinc_domain10"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lm", default="qwen2.5-coder-0.5b")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--max-calls", type=int, default=1000)
    parser.add_argument("--root", type=Path, required=True, help="folder of the project it makes")
    parser.add_argument(
        "--unconfirmed", type=int, default=0, help="stop before the labelling of so many candidates"
    )
    given = parser.parse_args()
    spare = written(given.root)
    config = load_config(given.root, lm=given.lm, max_calls=given.max_calls, threads=given.threads)
    if given.unconfirmed:
        return unconfirmed(open_session(given.root, "domain", config, Told()), given, spare)
    found = synthesize(open_session(given.root, "domain", config, Told()), given.rows)
    for name, n, share in synthesis_section(found).rows:
        print(f"{name:40} {n:>5} {share:>5}")
    print(f"{found.calls} calls, {found.cached_calls} cached, {found.seconds:.0f} s; {found.ended}")
    print("label: written, kept", found.labels)
    session = open_session(given.root, "domain", config, Observer(), asks=False)
    compared(session, session.splits.synthetic, spare)


def unconfirmed(session: Session, given: argparse.Namespace, spare: list[Row]) -> None:
    """The first candidates, through the checks that ask no LM."""
    writing = Writing(session, given.rows)
    checks = Checks(session, writing.learn)
    found = [checks.valid(w) for w in candidates(writing, writing.draws()[: given.unconfirmed])]
    rows = [w.row for w in found if w.row]
    told = faults(session.task, session.splits, [], rows)
    sound = [row for row, fault in zip(rows, told, strict=True) if not fault]
    print(Counter(w.fault or "a row" for w in found), Counter(told))
    for row in sound:
        print(f"  {row.label}: {row.text}")
    compared(session, sound, spare)


def compared(session: Session, synthetic: Sequence[dspy.Example], spare: Sequence[Row]) -> None:
    """The gain of each baseline from these rows, and from as many of people."""
    train, test = session.splits.train, session.splits.test
    real = [dspy.Example(**r).with_inputs("text") for r in spare[: len(synthetic)]]
    task = session.task
    alone = baseline_scores(task, train, test)
    for name, more in (("synthetic", synthetic), ("as many of people", real)):
        for baseline, scores in baseline_scores(task, [*train, *more], test).items():
            gain = GainRecord.between(alone[baseline], scores)
            mean = sum(alone[baseline]) / len(test)
            print(f"{len(more)} {name}: {baseline}: {mean:.3f}, gain {gain}, {gain.changed}")


if __name__ == "__main__":
    main()
