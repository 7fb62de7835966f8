"""What an exported folder says of itself, and what the command says that wrote it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from optimize.config import is_local
from optimize.program.program import Program
from optimize.report.record import AttemptRecord, Report
from optimize.report.runs import ID
from optimize.report.sections import test_scores
from optimize.report.text import spent, verdict_line
from optimize.report.untrusted import code, prose
from optimize.stats.records import Record, ScoreRecord

LONGEST = 200  # letters of an example that is shown


class Exported(Record):
    """A champion written into a folder."""

    task: str
    run: str
    form: str
    folder: str
    files: list[str]
    score: ScoreRecord = Field(description="on test, of the program that was exported")
    needs: list[str] = Field(default=[], description="packages with their versions")
    rows: int = Field(default=0, description="val rows in it")
    unserved: bool = Field(default=False, description="whether its LM ran in this process")
    votes: int = Field(default=1, description="answers, of which the program gives the commonest")


NEXT = {
    "folder": "cd {folder} && python test_predict.py",
    "mlflow": "mlflow models serve -m {folder} --env-manager local",
    "prompt": "cat {folder}/prompt.txt",
    "openai-eval": "oaieval MODEL {task} --registry_path {folder}",
    "promptfoo": "promptfoo eval -c {folder}/promptfooconfig.json",
    "peft": "vllm serve BASE --enable-lora --lora-modules {task}={folder}",
}
SHOWN = 10  # files


def exported_lines(found: Exported) -> list[str]:
    """What was written, where, and how to go on."""
    ours = sum(name.startswith("optimize/") for name in found.files)
    own = [name for name in found.files if not name.startswith("optimize/")]
    more = [f"{len(own) - SHOWN} more"] if len(own) > SHOWN else []
    modules = [f"{ours} modules of optimize"] if ours else []
    what = f"{found.task}, the program of run {found.run[:ID]}, {found.score.with_n} on test"
    lines = [f"Wrote {found.folder}: {what}."]
    lines += [f"It holds {', '.join([*own[:SHOWN], *more, *modules])}."]
    if found.needs:
        lines += [f"It needs {', '.join(found.needs)}."]
    if found.rows:
        lines += [f"{found.rows} val rows; test rows are never exported."]
        if found.votes > 1:
            lines += [f"The program takes {found.votes} votes an answer, these files ask once."]
    if found.unserved:
        lines += [
            "Its LM ran in the workbench's process: serve it, and fill in its name and address for "
            "MODEL and HOST:PORT in promptfooconfig.json."
        ]
    told = found.model_dump() | {"folder": shlex.quote(found.folder)}
    return [*lines, f"Next: {NEXT[found.form].format(**told)}"]


def readme(
    report: Report, program: Program, inputs: Mapping[str, Any], lm: str, address: str | None
) -> str:
    """The README.md of a folder that runs. inputs: of a train row. lm: that it asks. address: where
    that is served, if not by its provider.
    """
    inside = is_local(lm)
    parts = [
        [f"# {report.task}", "", prose(str(program.task.signature.instructions))],
        _fields(program),
        _use(lm, inputs, inside, address),
        _scores(report),
        ["## What it costs", "", " ".join(_costs(report, program))],
        ["## Limits", "", *_limits(report, program, inside)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _fields(program: Program) -> list[str]:
    signature = program.task.signature
    rows = []
    for kind, fields in (("in", signature.input_fields), ("out", signature.output_fields)):
        for name, field in fields.items():
            told = str((field.json_schema_extra or {}).get("desc", "")).replace(f"${{{name}}}", "")
            rows.append([kind, code(name), code(_type(field.annotation)), prose(told)])
    return _table(["", "field", "type", "what it is"], rows)


def _type(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not hasattr(annotation, "__origin__")
    return annotation.__name__ if plain else str(annotation).replace("typing.", "")


def _use(lm: str, inputs: Mapping[str, Any], inside: bool, address: str | None) -> list[str]:
    given = json.dumps(inputs, ensure_ascii=False)
    if len(given) > LONGEST:
        given = json.dumps(dict.fromkeys(inputs, "…"), ensure_ascii=False)
    at = f" at {code(address)}" if address else ""
    served = "export OPTIMIZE_API_BASE=http://127.0.0.1:8000/v1   # where the LM is served"
    return [
        "## Use it",
        "",
        "```",
        "pip install -r requirements.txt",
        *([served] if inside else []),
        f"python predict.py {shlex.quote(given)}",
        "python test_predict.py   # three train rows: the same prompts, answers that are read",
        "```",
        "",
        "From Python: `from predict import program`, a DSPy module that takes the fields above by "
        "name.",
        "",
        f"It asks {code(lm)}{at}. Another LM: `OPTIMIZE_LM` (a DSPy model string) and "
        "`OPTIMIZE_API_BASE` (an OpenAI-compatible address, which gets the key in "
        "`OPTIMIZE_API_KEY`), or `load(folder, lm=dspy.LM(…))`. A provider's own key comes from "
        "its usual variable, such as `OPENAI_API_KEY`. The folder holds no key.",
    ]


def _scores(report: Report) -> list[str]:
    found = test_scores(report)
    rows = [[prose(cell) for cell in row] for row in found.rows]
    return [
        "## How good it is",
        "",
        f"{verdict_line(report)} Verdict: {report.verdict}. {found.title}, asked once, after "
        "everything was chosen:",
        "",
        *_table(found.columns, rows),
    ]


def _costs(report: Report, program: Program) -> Iterator[str]:
    calls = (program.votes or 1) * len(program.predictors())
    each = f"{calls} LM calls" if calls > 1 else "One LM call"
    kept = report.decision.tuned if report.decision and report.decision.accepted else ""
    made = [a for a in report.attempts if a.rung == (kept or report.numbers.rung) and a.tokens_in]
    yield f"{each} an answer. {_measured(made[-1], calls) if made else 'Tokens were not measured.'}"
    yield f"Finding it took {spent(report)}."


def _measured(attempt: AttemptRecord, calls: int) -> str:
    n = attempt.lm_calls
    tokens = f"{attempt.tokens_in / n:.0f} tokens in and {attempt.tokens_out / n:.0f} out"
    said = f"While it was measured, its search included, a call took {tokens} on average"
    if attempt.cost_usd is None:
        return f"{said}; the price was not known."
    return f"{said}: ${1000 * calls * attempt.cost_usd / n:.2f} for 1,000 answers."


def _limits(report: Report, program: Program, inside: bool) -> Iterator[str]:
    yield f"- The scores are for rows like the test rows (n = {report.final.n}) and for this LM."
    yield (
        "- A call that fails raises `dspy.LMError`, an answer that cannot be read "
        "`dspy.AdapterParseError`."
    )
    yield (
        "- `program.json` and `golden.json` hold rows of the train set: share the folder with "
        "those alone who may see them."
    )
    if inside:
        yield (
            "- The LM ran in the workbench's process and is not in this folder: serve its weights "
            "at an OpenAI-compatible address (llama.cpp's server does)."
        )
    if program.tuned:
        yield (
            "- The LM is a tuned one"
            + (", by the LoRA `adapter.gguf` in this folder: " if inside else ": ")
            + "without its weights the scores do not hold."
        )
    if not program.tuned and report.final.score < report.target:
        yield f"- The target of {report.target} is not met."


def prompt_text(prompts: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Prompts as a person reads them: a heading a message, a place `{{field}}` for each input."""
    parts = []
    for name, messages in prompts.items():
        parts += [f"=== {name} ==="] if len(prompts) > 1 else []
        parts += [f"--- {m['role']} ---\n{m['content']}" for m in messages]
    return "\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
