"""How a program did on each row of val, as the table that MLflow shows. Knows no store.

MLflow's own `log_table` writes the same file and tag, by way of pandas and five transactions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import dspy

from optimize import files
from optimize.data.rows import row_hash
from optimize.program.program import Program
from optimize.scoring.evaluation import Evaluation, Outcome

FILE = "examples.json"
TAG = {"mlflow.loggedArtifacts": json.dumps([{"path": FILE, "type": "table"}])}
INPUT = "input "  # before the name of an input that is called as a column of the table's own
GOLD = "gold "  # before the name of an output: what the row says, not what was answered
SHOWN, DEMO_CHARS = 2, 400  # of a row's demos


def row_table(program: Program, rows: Sequence[dspy.Example], evaluation: Evaluation) -> str:
    """The file's text: a column a field, and what became of each row."""
    task = program.task
    pairs = list(zip(rows, evaluation.outcomes, strict=False))
    demos = [program.demos_for(dict(e.inputs())) for e, _ in pairs]
    own: dict[str, list[Any]] = {
        "lm_text": ["\n---\n".join(o.said) for _, o in pairs],
        "answer": [files.to_text(o.answer) for _, o in pairs],
        "score": [o.score for _, o in pairs],
        "feedback": [o.feedback for _, o in pairs],
        "error": [o.error for _, o in pairs],
        "cut": [o.cut for _, o in pairs],
        "row": [row_hash(task, e)[:12] for e, _ in pairs],
        "seconds": [round(o.seconds, 3) for _, o in pairs],
        "tokens_in": [_each(o.usage.tokens_in, o) for _, o in pairs],
        "tokens_out": [_each(o.usage.tokens_out, o) for _, o in pairs],
        "cost_usd": [_each(o.usage.cost_usd, o) for _, o in pairs],
        "confidence": [o.confidence for _, o in pairs],
        "format": [program.format] * len(pairs),
        "demos": [len(d) for d in demos],
        "first demos": [files.to_text(d[:SHOWN])[:DEMO_CHARS] for d in demos],
    }
    table = {
        f"{INPUT}{name}" if name in own else name: [files.to_text(e[name]) for e, _ in pairs]
        for name in task.signature.input_fields
    }
    table |= {
        f"{GOLD}{name}": [files.to_text(e[name]) for e, _ in pairs]
        for name in task.signature.output_fields
    }
    table |= own
    cells = list(zip(*table.values(), strict=True))
    return json.dumps({"columns": list(table), "data": cells}, ensure_ascii=False, default=str)


def _each(used: float | None, outcome: Outcome) -> float | None:
    """Of one answer, where a row was asked repeatedly, or the cache knew some of its calls."""
    many = outcome.asked_anew
    return used / many if used is not None and many else used
