"""A task's val rows with its champion's prompts, as files of tools that evaluate prompts: the
open-source `evals` of OpenAI, and promptfoo. Test rows stay sealed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy

from optimize import lm as lms
from optimize.data.gold import Unscorable, scores_alone
from optimize.data.rows import Splits
from optimize.errors import WorkbenchError
from optimize.files import plain
from optimize.lm.addresses import addresses
from optimize.lm.dspy_door import first_prompt
from optimize.program.formats import FORMATS
from optimize.program.program import Program
from optimize.task import Task, choices

CHECKED = 2  # rows of each label on which the metric is tried with every label
TO_FILL = "http://HOST:PORT/v1"
DONE = "[[ ## completed ## ]]"  # how DSPy's format ends an answer
TEMPLATE = re.compile(r"\{(?=[{%#])")  # where promptfoo's template language would begin


def openai_eval(program: Program, splits: Splits, folder: Path) -> int:
    """A registry of its own, for `oaieval MODEL TASK --registry_path FOLDER`; the rows in it."""
    label, task = _label(program, splits), program.task
    bare = _style(program) == "bare"
    labels = choices(task.signature.output_fields[label].annotation)
    # a bare answer is right there where it begins with the right one
    clash = [(a, b) for a in labels for b in labels if a != b and b.startswith(a)]
    if bare and clash:
        raise WorkbenchError(
            f"openai-eval takes an answer for right that begins with the right label, and label "
            f"{clash[0][1]!r} begins with {clash[0][0]!r}. Use --as promptfoo."
        )
    samples = [
        {"input": messages, "ideal": _forms(program, label, row)}
        for row, messages in zip(splits.val, _prompts(program, splits.val), strict=True)
    ]
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    _write(folder / "data" / task.name / "samples.jsonl", lines)
    kind = "match:Match" if bare else "includes:Includes"
    entry = {
        task.name: {"id": f"{task.name}.val.v0", "metrics": ["accuracy"]},
        f"{task.name}.val.v0": {
            "class": f"evals.elsuite.basic.{kind}",
            "args": {"samples_jsonl": f"{task.name}/samples.jsonl"},
        },
    }
    _write(folder / "evals" / f"{task.name}.yaml", _json(entry))  # JSON is YAML
    return len(samples)


def promptfoo(program: Program, splits: Splits, folder: Path, knobs: dict[str, Any]) -> int:
    """`promptfooconfig.json` and `tests.jsonl`, for `promptfoo eval`; the rows in it. knobs: of the
    LM; name and address of one that runs in the workbench's process are left to be filled in.
    """
    label, task = _label(program, splits), program.task
    tests = [
        {
            "vars": {"messages": TEMPLATE.sub(r"\\u007b", json.dumps(messages))},
            "assert": [{"type": "regex", "value": _pattern(program, label, row)}],
        }
        for row, messages in zip(splits.val, _prompts(program, splits.val), strict=True)
    ]
    lines = "".join(json.dumps(test, ensure_ascii=False) + "\n" for test in tests)
    _write(folder / "tests.jsonl", lines)
    options, base = asked_options(program, knobs), knobs.get("api_base")
    provider, _, model = str(knobs.get("lm", "")).partition("/")
    if base or not model:  # any OpenAI-compatible endpoint
        provider = "openai"
        options["apiBaseUrl"] = addresses(base)[0].url if base else TO_FILL
    config = {
        "description": f"{task.name}: val rows, as the champion asks them",
        "prompts": ["{{messages}}"],
        "providers": [{"id": f"{provider}:chat:{model or 'MODEL'}", "config": options}],
        "tests": "file://tests.jsonl",
    }
    _write(folder / "promptfooconfig.json", _json(config))
    return len(tests)


def asked_options(program: Program, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What the LM of these knobs is asked with for an answer of the program."""
    tokens = program.predictors()[0].config.get("max_tokens", program.task.max_tokens)
    name, heat = str(knobs.get("lm", "")), knobs.get("temperature", 0.0)
    return dict(lms.asked_with(name, knobs.get("api_base"), tokens, heat))


def _label(program: Program, splits: Splits) -> str:
    """The output that is compared. Raises WorkbenchError for a program that such a tool cannot ask,
    or a metric that is more than the equality of a label.
    """
    task = program.task
    if len(program.predictors()) != 1:
        raise WorkbenchError(
            f"The champion of {task.name!r} asks in {len(program.predictors())} steps; these tools "
            "send one prompt a row. Use the folder that `optimize export` writes without --as."
        )
    if not task.label or not _is_equality(task, task.label, splits.train):
        raise WorkbenchError(
            f"The metric of {task.name!r} is more than whether one label is the right one, which "
            "is all that these files can say. Use the folder that `optimize export` writes "
            "without --as."
        )
    return task.label


def _is_equality(task: Task, label: str, rows: Sequence[dspy.Example]) -> bool:
    """Whether the metric gives 1 to the row's own label and 0 to every other one: tried on some
    rows of each label.
    """
    labels = choices(task.signature.output_fields[label].annotation)
    values = {str(getattr(row[label], "value", row[label])): row[label] for row in rows}
    some = [
        row for value in values.values() for row in [r for r in rows if r[label] == value][:CHECKED]
    ]
    pairs = [(row, value) for row in some for value in values.values()]
    try:
        scores = scores_alone(task, [r for r, _ in pairs], [{label: v} for _, v in pairs])
    except Unscorable:
        return False
    right = [float(row[label] == value) for row, value in pairs]
    return values.keys() <= set(labels) and [s.value for s in scores] == right


def _prompts(program: Program, rows: Sequence[dspy.Example]) -> list[list[dict[str, Any]]]:
    return [first_prompt(lambda row=row: program(**row.inputs())) for row in rows]  # type: ignore[misc]


def _style(program: Program) -> str:
    """How an answer holds the label: bare, json, chat or xml."""
    if program.format not in ("compact", "terse"):
        return program.format
    (predictor,) = program.predictors()
    return "bare" if len(predictor.signature.output_fields) == 1 else "json"


def _said(program: Program, label: str, row: dspy.Example) -> str:
    """The right answer as the format writes it, without what the LM may add around it."""
    value = str(plain(row[label]))
    if _style(program) == "bare":
        return value
    if _style(program) == "json":
        return f"{json.dumps(label)}: {json.dumps(value, ensure_ascii=False)}"
    signature = program.task.signature
    said = FORMATS[program.format].format_assistant_message_content(signature, {label: row[label]})
    return str(said).replace(DONE, "").strip()


def _forms(program: Program, label: str, row: dspy.Example) -> list[str]:
    """What an answer holds, or where it is bare begins with, that is right."""
    said, style = _said(program, label, row), _style(program)
    also = {"bare": [json.dumps(said, ensure_ascii=False)], "json": [said.replace(": ", ":", 1)]}
    return [said + "\n"] if style == "chat" else [said, *also.get(style, [])]


def _pattern(program: Program, label: str, row: dspy.Example) -> str:
    """A regular expression for an answer that is right, whatever white space it has."""
    said, style = _spaced(_said(program, label, row)), _style(program)
    if style == "bare":
        return rf"""^\s*["'`]?{said}["'`.]*\s*$"""
    return said + r"\s*(\[\[|$)" if style == "chat" else said


def _spaced(text: str) -> str:
    parts = re.findall(r"\w+|[^\w\s]|\s+", text)
    return "".join(r"\s*" if part.isspace() else re.escape(part) for part in parts)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
