"""A task's best program as a folder for those who have nothing of ours: to run, to serve by MLflow,
to read, or to evaluate by another tool. Train and val rows alone are in it, never test rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dspy

from optimize import lm as lms
from optimize.catalogue import base_of
from optimize.commands.eval_files import asked_options, openai_eval, promptfoo
from optimize.commands.load import saved
from optimize.commands.vendored import vendor
from optimize.config import is_local
from optimize.data.rows import Splits, load_splits
from optimize.errors import WorkbenchError
from optimize.files import plain
from optimize.gguf_header import read_header
from optimize.lm.addresses import addresses
from optimize.program.exported import GOLDEN, prompt
from optimize.program.folder import write_project
from optimize.program.program import Program, parse_program
from optimize.program.template import templates
from optimize.report.export import Exported, prompt_text, readme
from optimize.report.record import Report
from optimize.store.champion import champion
from optimize.store.model import write_model

Form = Literal["folder", "mlflow", "prompt", "openai-eval", "promptfoo", "peft"]
ROWS = 3  # golden ones
PREDICT = '''"""Answers task {task}: `python predict.py '{{"{field}": …}}'`, or import `program`."""

import json
import sys
from pathlib import Path

from optimize.program.exported import answer, load

program = load(Path(__file__).parent)  # a DSPy module; load(…, lm=dspy.LM(…)) asks another LM

if __name__ == "__main__":
    print(json.dumps(answer(program, json.loads(sys.argv[1])), ensure_ascii=False))
'''
TEST = '''\
"""Three train rows: each is sent as it was when the program was measured, its right answer is
read back as itself, and the LM, where one can be reached, answers in the right form.
"""

import json
import unittest
from pathlib import Path

import dspy

from optimize.errors import WorkbenchError
from optimize.program.exported import answer, load, prompt, read_back

HERE = Path(__file__).parent
ROWS = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))


class Golden(unittest.TestCase):
    def test_the_prompt_is_the_one_that_was_measured(self):
        program = load(HERE, dspy.LM("openai/not-asked"))
        for row in ROWS:
            self.assertEqual(prompt(program, row["inputs"]), row["prompt"])

    def test_a_right_answer_is_read_back(self):
        program = load(HERE, dspy.LM("openai/not-asked"))
        for row in ROWS:
            self.assertEqual(read_back(program, row["outputs"]), row["outputs"])

    def test_the_lm_answers(self):
        try:
            found = [answer(load(HERE), row["inputs"]) for row in ROWS]
        except (WorkbenchError, dspy.LMError) as error:
            self.skipTest(f"no LM can be reached: {error}")
        for row, outputs in zip(ROWS, found):
            self.assertEqual(outputs.keys(), row["outputs"].keys())


if __name__ == "__main__":
    unittest.main()
'''


@dataclass(frozen=True)
class Champion:
    """A task's best program with what is known of it. knobs: of the LM it was optimized on, without
    a path of this machine or a file of addresses.
    """

    program: Program
    report: Report
    run: str
    splits: Splits
    knobs: dict[str, Any]

    @property
    def asked(self) -> dict[str, Any]:
        """The knobs of the LM that it asks: a tuned one that is hosted has another name."""
        tuned = self.program.tuned
        hosted = tuned and not tuned.endswith(".gguf")
        own = {"lm": f"openai/{tuned}"} if hosted else {}
        return {"lm": self.report.lm, **self.knobs, **own}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The golden rows: inputs, outputs, and the prompt that the inputs are sent as."""
        task, found = self.program.task, []
        for row in self.splits.train[:ROWS]:
            inputs = plain({name: row[name] for name in task.signature.input_fields})
            outputs = plain({name: row[name] for name in task.signature.output_fields})
            sent = prompt(self.program, inputs)
            found.append({"inputs": inputs, "outputs": outputs, "prompt": sent})
        return found


def export(root: Path, name: str, folder: Path, form: Form = "folder") -> Exported:
    """Write the champion of a task into a folder that is new or empty.

    Raises WorkbenchError where there is no champion, where the folder cannot be written, or where
    the form does not hold such a program; then nothing is left behind.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkbenchError(f"{folder} is there already and not an empty folder. Name a new one.")
    lms.configure(root)
    found = _champion(root, name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as made:
            inner = Path(made) / "made"
            inner.mkdir()
            said = FORMS[form](found, inner)
            inner.replace(folder)
    except OSError as error:
        raise WorkbenchError(f"{folder} cannot be written: {error.strerror}.") from None
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return Exported(
        task=name,
        run=found.run,
        form=form,
        folder=str(folder),
        files=files,
        score=found.report.final,
        votes=found.program.votes or 1,
        **said,
    )


def _champion(root: Path, name: str) -> Champion:
    run, kept = champion(root, name), saved(name, root)
    task = kept.task
    program = parse_program(task, kept.text, kept.where, lambda tuned: dspy.LM("openai/unasked"))
    program.lm = None
    knobs = dict(json.loads(kept.text).get("lm") or {})
    if str(knobs.get("lm", "")).startswith("gguf:"):
        knobs["lm"] = f"gguf:{Path(knobs['lm'].removeprefix('gguf:')).stem}"
    if base := knobs.get("api_base"):
        knobs["api_base"] = ",".join(place.url for place in addresses(base))
    report = run.read("report.json", Report)
    return Champion(program, report, run.id, load_splits(task), knobs)


def _as_folder(found: Champion, folder: Path) -> dict[str, Any]:
    task, program = found.program.task, found.program
    embedders = [part.embedder for part in (program.neighbours, program.passages) if part]
    if any(embedder and embedder.local for embedder in embedders):
        raise WorkbenchError(
            f"The champion of {task.name!r} looks rows or passages up by an embedder that runs in "
            "the workbench's process, so that it cannot run without it. --as mlflow writes a "
            "model that brings the workbench with it; a climb without --embedder needs neither."
        )
    address = found.knobs.get("api_base")
    thinks = lms.thinks(str(found.knobs.get("lm") or ""), address)
    # its answers tell, and they stay here
    write_project(folder, program, found.knobs | ({"thinks": True} if thinks else {}))
    rows = found.rows
    for name, text in {
        GOLDEN: _json(rows),
        "predict.py": PREDICT.format(task=task.name, field=next(iter(task.signature.input_fields))),
        "test_predict.py": TEST,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    pins = vendor(folder, task)
    (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins), "utf-8")
    text = readme(found.report, program, rows[0]["inputs"], found.asked["lm"], address)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {"needs": pins}


def _as_mlflow(found: Champion, folder: Path) -> dict[str, Any]:
    write_model(folder, found.program, found.knobs, found.splits.train[0])
    return {}


def _as_prompt(found: Champion, folder: Path) -> dict[str, Any]:
    program, prompts = found.program, templates(found.program)
    (folder / "prompt.txt").write_text(prompt_text(prompts), encoding="utf-8")
    told = {"task": program.task.name, "lm": found.asked["lm"]}
    told |= {**asked_options(program, found.asked), "votes": program.votes or 1, "prompts": prompts}
    (folder / "prompt.json").write_text(_json(told), encoding="utf-8")
    return {}


def _as_openai_eval(found: Champion, folder: Path) -> dict[str, Any]:
    return {"rows": openai_eval(found.program, found.splits, folder)}


def _as_promptfoo(found: Champion, folder: Path) -> dict[str, Any]:
    rows = promptfoo(found.program, found.splits, folder, found.asked)
    return {"rows": rows, "unserved": is_local(found.asked["lm"])}


def _as_peft(found: Champion, folder: Path) -> dict[str, Any]:
    name, tuned = found.report.lm, Path(found.program.tuned or "")
    base = lms.gguf_path(name) if is_local(name) else None
    if not (base and tuned.is_file() and read_header(tuned).adapts):
        raise WorkbenchError(
            f"The champion of {found.program.task.name!r} runs on no adapter of this project: "
            "there is nothing to write in PEFT's form."
        )
    from optimize.finetune.lora.adapter_peft import to_peft  # needs the lora extra

    to_peft(tuned, base, base_of(name) or base.stem, folder)
    return {}


# each with what else is to be said of it: fields of Exported
FORMS: dict[str, Callable[[Champion, Path], dict[str, Any]]] = {
    "folder": _as_folder,
    "mlflow": _as_mlflow,
    "prompt": _as_prompt,
    "openai-eval": _as_openai_eval,
    "promptfoo": _as_promptfoo,
    "peft": _as_peft,
}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
