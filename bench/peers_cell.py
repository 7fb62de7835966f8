"""One method of bench/peers.py on one set of rows, from fresh: a folder, a process of its own, and
at the end its program or prompt scored on held-out rows by the one scorer. Knows no table.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dspy
import httpx

from bench import peers_dspy, peers_others
from bench.peers_dspy import Format, loopback_lm, setting
from bench.peers_server import PATIENCE, Counted, Tally
from bench.public_sets import Rows
from optimize import load_program
from optimize.scoring.evaluate import Asking, evaluate
from optimize.task import Task, load_task

ROOT = Path(__file__).resolve().parents[1]
OURS = "optimize run"
OWN_TEST = 8  # of the train rows, which `optimize run` takes for its test rows: it insists on some
OVER = 1.5  # times the budget, beyond which calls are refused
STUCK = 10  # times the budget refused, retries among them: it will not end by itself
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "OPIK_TRACK_DISABLE": "true",
    "OPIK_SENTRY_ENABLE": "false",
    "OPIK_URL_OVERRIDE": "http://127.0.0.1:9/api",  # nothing listens there
    "TQDM_DISABLE": "1",
}
PROGRAM = '''"""{name}"""

from typing import Literal

import dspy

from optimize import Score, Task


class Answer(dspy.Signature):
    {question!r}

    text: str = dspy.InputField()
    label: Literal[{labels}] = dspy.OutputField()


def metric(example, prediction):
    right = prediction.label == example.label
    return Score(float(right), "" if right else f"The right label is {{example.label!r}}.")


task = Task(signature=Answer, metric=metric, max_tokens={tokens})
'''


@dataclass(frozen=True)
class Asked:
    """What every method of a bench is given alike.

    budget: LM calls. tokens: of a task's answer. minutes: until a method is stopped. python: that
    of the peers which are not in this environment. dspy_cache: whether DSPy keeps answers within a
    method's run.
    """

    counted: Counted
    url: str
    budget: int
    tokens: int
    threads: int
    minutes: float
    python: str | None
    form: Format
    dspy_cache: bool


@dataclass(frozen=True)
class TaskRows:
    """A task's question and labels, and its rows for one seed. test: nobody is given them."""

    name: str
    question: str
    labels: tuple[str, ...]
    train: Rows
    val: Rows
    test: Rows

    @property
    def instruction(self) -> str:
        return f"{self.question} Answer with one of: {', '.join(self.labels)}."


class Prompted(dspy.Module):
    """A peer's final prompt, asked and read as the peer would."""

    def __init__(self, prompt: dict[str, Any], asked: Asked, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.prompt, self.asked, self.labels = prompt, asked, labels

    def forward(self, text: str) -> dspy.Prediction:
        messages = [
            {"role": role, "content": said.replace("{text}", text) if role == "user" else said}
            for role, said in self.prompt["messages"]
        ]
        body = {"model": self.asked.counted.model, "messages": messages}
        body |= {"temperature": 0.0, "max_tokens": self.asked.tokens}
        reply = httpx.post(f"{self.asked.url}/chat/completions", json=body, timeout=PATIENCE)
        answer = reply.raise_for_status().json()["choices"][0]["message"]["content"]
        read = peers_others.READERS[self.prompt["reader"]]
        return dspy.Prediction(label=read(answer or "", self.labels))


@cache  # asked again for every method
def version(package: str, python: str) -> str | None:
    """Of a package in an environment; None where it is not there."""
    told = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", told], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def python_of(method: str, peers: str | None) -> tuple[str, str]:
    """The Python that has a method's package, and its version. Raises LookupError with why not."""
    if method == OURS:
        return sys.executable, version("optimize-workbench", sys.executable) or "here"
    package = "dspy" if method in peers_dspy.METHODS else peers_others.METHODS[method][1]
    if not package:
        return sys.executable, ""
    for python in filter(None, (sys.executable, peers)):
        if found := version(package, python):
            return python, f"{package} {found}"
    raise LookupError(
        f"{package} is not installed; give --peers-python of an environment that has it"
    )


def measured(asked: Asked, rows: TaskRows, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """What the method took, and its winner's scores on the test rows; null where it ended without a
    program, with why in `error`.
    """
    python, packaged = python_of(method, asked.python)
    project = written(folder, rows, asked.tokens)
    tally = asked.counted.begin(round(OVER * asked.budget))
    start = time.perf_counter()
    if method == OURS:
        error = _worked(_ours(asked, rows, seed), asked, tally, project)
    else:
        job = _job(asked, rows, method, seed, project)
        (folder / "job.json").write_text(json.dumps(job))
        error = _worked([python, *_script(method)], asked, tally, folder)
    seconds = time.perf_counter() - start
    asking = asked.counted.begin()
    scores, why = _scores(asked, rows, method, folder)
    return {
        **tally.numbers(),
        "seconds": round(seconds, 1),
        "packaged": packaged,
        "error": (error or why) if scores is None else "",
        "scores": scores,
        "scoring": asking.numbers(),
    }


def written(folder: Path, rows: TaskRows, tokens: int) -> Path:
    """A project with the task and its rows, as `optimize run` wants them; DSPy's optimizers take
    the task from there too.
    """
    project = folder / "project"
    devset = project / "devsets" / rows.name
    devset.mkdir(parents=True)
    (project / "programs").mkdir()
    (project / "programs" / f"{rows.name}.py").write_text(task_text(rows, tokens))
    sides = {"test": rows.train[:OWN_TEST], "train": rows.train[OWN_TEST:], "val": rows.val}
    for side, some in sides.items():
        (devset / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return project


def task_text(rows: TaskRows, tokens: int) -> str:
    """The task's file. tokens: of an answer."""
    labels = ", ".join(map(repr, rows.labels))
    return PROGRAM.format(name=rows.name, question=rows.question, labels=labels, tokens=tokens)


def _job(asked: Asked, rows: TaskRows, method: str, seed: int, project: Path) -> dict[str, Any]:
    return {
        "method": method,
        "task": rows.name,
        "project": str(project),
        "url": asked.url,
        "model": asked.counted.model,
        "labels": rows.labels,
        "instruction": rows.instruction,
        "train": rows.train,
        "val": rows.val,
        "budget": asked.budget,
        "seed": seed,
        "threads": asked.threads,
        "tokens": asked.tokens,
        "room": asked.counted.room,
        "format": asked.form,
        "dspy_cache": asked.dspy_cache,
    }


def _script(method: str) -> list[str]:
    if method in peers_dspy.METHODS:
        return ["-m", "bench.peers_dspy", "job.json", "found.json"]
    return [str(Path(peers_others.__file__)), "job.json", "found.json"]


def _ours(asked: Asked, rows: TaskRows, seed: int) -> list[str]:
    """The command as anyone would type it; a target of 1 keeps it looking, as the others do."""
    words = f"-m optimize run {rows.name} --lm openai/{asked.counted.model} --api-base {asked.url}"
    words += f" --max-calls {asked.budget} --seed {seed} --threads {asked.threads} --target 1"
    return [sys.executable, *words.split(), "--finetune", "never"]


def _worked(command: list[str], asked: Asked, tally: Tally, folder: Path) -> str:
    """Run a method in its folder, until it ends or has to be stopped; why it failed, or ""."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "OPTIMIZE_"))}
    there = {"OPENAI_BASE_URL": asked.url, "OPENAI_API_BASE": asked.url, "OPENAI_API_KEY": "none"}
    there |= {"DSPY_CACHEDIR": str(folder / "dspy"), "PYTHONPATH": str(ROOT)}
    there |= {"OPTIMIZE_API_KEY": "none", "MLFLOW_GENAI_EVAL_MAX_WORKERS": str(asked.threads)}
    stopped = ""
    end = time.monotonic() + 60 * asked.minutes
    with (folder / "log.txt").open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=folder, env=kept | QUIET | there, stdout=log, stderr=log
        )
        try:
            while worker.poll() is None and not stopped:
                time.sleep(0.2)
                if time.monotonic() > end:
                    stopped = f"stopped after {asked.minutes:g} minutes"
                elif tally.refused > STUCK * asked.budget:
                    stopped = "over budget, and asked on"
        finally:
            worker.kill()
            worker.wait()
    if stopped or (worker.returncode in (0, 1) and command[1:3] == ["-m", "optimize"]):
        return stopped
    return _last_error(folder / "log.txt", worker.returncode) if worker.returncode else ""


def _last_error(log: Path, code: int) -> str:
    """The last line that looks like an exception, or the last of all."""
    lines = log.read_text(errors="replace").strip().splitlines()
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exhausted)\b", line)]
    return (raised or lines or ["it said nothing"])[-1].strip()[:300] + f" (exit {code})"


def _scores(
    asked: Asked, rows: TaskRows, method: str, folder: Path
) -> tuple[list[float | None] | None, str]:
    """The winner's score on each test row, by the task's metric; None and why where it has none."""
    project = folder / "project"
    form: Format = "compact" if method == OURS else asked.form
    lm = loopback_lm(asked.url, asked.counted.model, asked.tokens, form, cache=False)
    test = [dspy.Example(**row).with_inputs("text") for row in rows.test]
    try:
        task = load_task(rows.name, project)
        found = folder / "found.json"
        if method != OURS and not found.is_file():
            return None, "it left no program"
        program = (
            load_program(rows.name, lm=lm, root=project)
            if method == OURS
            else _loaded(json.loads(found.read_text()), task, asked, rows)
        )
        # a program of ours brings its own format
        with setting(lm, "chat" if method == OURS else form):
            return list(evaluate(program, test, Asking(task, asked.threads)).scores), ""
    except Exception as error:  # a program that cannot be loaded or asked is what the method left
        return None, f"{type(error).__name__}: {error}"[:300]


def _loaded(found: dict[str, Any], task: Task, asked: Asked, rows: TaskRows) -> dspy.Module:
    if "prompt" in found:
        return Prompted(found["prompt"], asked, rows.labels)
    program = dspy.Predict(task.signature)
    program.load_state(found["program"])
    return program
