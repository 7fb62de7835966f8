"""Public labelled sets as a newcomer would bring them: own files, extra columns, another split
name. Skipped where absent.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from optimize.data.labels import agreement, duplicates, judge, possible_label_errors
from optimize.data.rows import load_splits
from optimize.data.split import near_graph
from optimize.files import read_jsonl
from optimize.task import load_task

SETS = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not SETS.is_dir(), reason="../shared/data is not beside this checkout"
)

LABELS = {
    "clinc_domain10": ("text", "label", None),
    "query_wellformedness": ("text", "label", '"well_formed", "not_well_formed"'),
    "svamp": ("question", "answer", None),
}
PROGRAM = '''
from typing import Literal
import dspy
from optimize.task import Score, Task

class Answer(dspy.Signature):
    """Answer."""
    {text}: str = dspy.InputField()
    {label}: {kind} = dspy.OutputField()

def metric(example, prediction):
    return Score(float(str(example.{label}) == str(prediction.{label})))

task = Task(signature=Answer, metric=metric)
'''


@pytest.mark.parametrize("name", LABELS)
def test_its_rows_load_as_they_are(name: str, tmp_path: Path) -> None:
    text, label, options = LABELS[name]
    shutil.copytree(SETS / name, tmp_path / "devsets" / name)
    (tmp_path / "programs").mkdir()
    kind = f"Literal[{options}]" if options else "str"
    (tmp_path / "programs" / f"{name}.py").write_text(
        PROGRAM.format(text=text, label=label, kind=kind)
    )
    task = load_task(name, tmp_path)
    splits = load_splits(task)
    for side, file in {"train": "train", "val": "dev", "test": "test"}.items():
        lines = sum(
            1 for line in (SETS / name / f"{file}.jsonl").open(encoding="utf-8") if line.strip()
        )
        assert len(splits.sides()[side]) == lines
    assert all(task.score(e, e).value == 1.0 for e in splits.test)


RATERS = {
    "xsum_raters": lambda row: list(row["type_ratings"].values()),
    "query_wellformedness": lambda row: (
        ["yes"] * row["votes_yes"] + ["no"] * (row["n_raters"] - row["votes_yes"])
    ),
}


def rows_of(name: str) -> list[dict[str, Any]]:
    return [
        row
        for side in ("train", "dev", "test")
        for _, row in read_jsonl(SETS / name / f"{side}.jsonl")
    ]


@pytest.mark.parametrize(
    ("name", "alpha", "person"),
    [("xsum_raters", 0.711, 0.836), ("query_wellformedness", 0.461, 0.772)],
)
def test_real_raters_agree_as_far_as_they_do(name: str, alpha: float, person: float) -> None:
    found = agreement([RATERS[name](row) for row in rows_of(name)])
    assert (
        found
        and found.rows == 800
        and (found.alpha, found.person)
        == (pytest.approx(alpha, abs=1e-3), pytest.approx(person, abs=1e-3))
    )


def test_planted_faults_in_a_real_set_are_found() -> None:
    """40 wrong labels among 800: at least 20 listed, nine in ten of the list right or at odds with
    their like before. Contradictions and duplicates: all, and nothing else."""
    rows, rng = rows_of("clinc_domain10"), random.Random(0)
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    before = {row for row, _ in possible_label_errors(judge(texts, labels))}
    wrong = set(rng.sample(range(len(rows)), 40))
    poisoned = [
        rng.choice(sorted(set(labels) - {label})) if n in wrong else label
        for n, label in enumerate(labels)
    ]
    listed = {row for row, _ in possible_label_errors(judge(texts, poisoned))}
    assert len(listed & wrong) >= 20 and len(before) <= 8
    assert len(listed - wrong - before) <= 0.15 * len(listed)
    others = [
        next(other for other in sorted(set(labels)) if other != label) for label in labels[10:20]
    ]
    copied = texts + [text.upper() + "  " for text in texts[:20]]
    inputs, everywhere = [(text,) for text in copied], ["train"] * len(copied)
    found = duplicates(inputs, labels + labels[:10] + others, everywhere, near_graph(inputs))
    assert found.same == tuple((n, 800 + n) for n in range(10)) and found.conflicts == tuple(
        (n, 800 + n) for n in range(10, 20)
    )


def test_where_texts_do_not_tell_the_label_a_real_set_has_no_suspects() -> None:
    rows = rows_of("query_wellformedness")
    assert (
        possible_label_errors(judge([row["text"] for row in rows], [row["label"] for row in rows]))
        == []
    )
