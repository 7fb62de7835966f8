"""Public labelled sets as a newcomer would bring them: own files, extra columns, another split name. Skipped where absent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from optimize.devset import load_splits
from optimize.task import load_task

SETS = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SETS.is_dir(), reason="../shared/data is not beside this checkout")

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
    (tmp_path / "programs" / f"{name}.py").write_text(PROGRAM.format(text=text, label=label, kind=kind))
    task = load_task(name, tmp_path)
    splits = load_splits(task)
    for side, file in {"train": "train", "val": "dev", "test": "test"}.items():
        lines = sum(1 for line in (SETS / name / f"{file}.jsonl").open(encoding="utf-8") if line.strip())
        assert len(splits.sides()[side]) == lines
    assert all(task.score(e, e).value == 1.0 for e in splits.test)
