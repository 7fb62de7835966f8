"""A champion as a folder: run by strangers with DSPy alone, read, served, evaluated elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from optimize import load_program
from optimize.cli import app
from optimize.commands.eval_files import openai_eval, promptfoo
from optimize.commands.export import export
from optimize.commands.new import NEGATIVE, POSITIVE
from optimize.data.rows import Splits, load_splits
from optimize.errors import WorkbenchError
from optimize.lm.embedder import Embedder
from optimize.program.formats import FORMATS
from optimize.program.guide import Guide
from optimize.program.program import student
from optimize.program.retrieval import Neighbours
from optimize.task import Task, load_task
from tests.conftest import Mood
from tests.deployed import improved, lm, root

__all__ = ["lm", "root"]  # fixtures
ENDINGS = (".py", ".json", ".md", ".txt")
KEY = "sk-never-in-a-folder"
# runs a script of the folder as Python would, where nothing is installed but what is required
STRANGER = """
import importlib.abc, importlib.util, json, re, runpy, sys
from importlib import metadata
from pathlib import Path

folder, script = Path.cwd(), sys.argv[1]
sys.path[0] = str(folder)
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
allowed, new = set(), [line.split("==")[0] for line in open("requirements.txt")]
while new:
    name = plain(new.pop())
    if name not in allowed:
        allowed.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        new += [re.match(r"[\\w.-]+", need)[0] for need in needs if "extra ==" not in need]
known = metadata.packages_distributions()
foreign = {top for top, names in known.items() if not {plain(n) for n in names} & allowed}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in foreign - {"optimize"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in foreign else find_spec(name, package)
)
assert {"mlflow", "typer", "pandas"} <= foreign and "pydantic" not in foreign
sys.meta_path.insert(0, Absent())
sys.argv = [script, *sys.argv[2:]]
runpy.run_path(script, run_name="__main__")
import optimize
assert Path(optimize.__file__).is_relative_to(folder), optimize.__file__
"""


def stranger(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OPTIMIZE_"))}
    own = {"DSPY_CACHEDIR": str(folder / "cache"), **env}
    command = [sys.executable, "-c", STRANGER, *words]
    return subprocess.run(command, cwd=folder, env=kept | own, capture_output=True, text=True)


def of_train(root: Path, *names: str) -> tuple[dict[str, Any], ...]:
    rows = load_splits(load_task("review", root)).train
    return tuple({name: row[name] for name in names} for row in rows[:9])


@pytest.mark.parametrize("looks_up", [False, True], ids=["plain", "retrieval"])
def test_a_stranger_gets_the_same_prompt_and_answer(
    root: Path, lm: tuple[str, FastAPI], looks_up: bool, tmp_path: Path
) -> None:
    url, server = lm
    rows = of_train(root, "text", "verdict")
    near = Neighbours(3, tuple(row["text"] for row in rows), rows) if looks_up else None
    guide = Guide("- Praise is positive.\n- Irony is negative.", k=int(looks_up))
    improved(root, url, neighbours=near, guide=guide, format="compact")
    folder = tmp_path / "out" / "review"
    found = export(root, "review", folder)
    needs = {pin.split("==")[0] for pin in found.needs}
    assert needs == {"dspy", "pydantic"} | (
        {"scikit-learn", "bm25s", "numpy"} if looks_up else set()
    )
    tested = stranger(folder, "test_predict.py", OPTIMIZE_API_KEY=KEY)
    assert "OK" in tested.stderr and "skipped" not in tested.stderr, tested.stderr
    theirs, asked = server.state.bodies[-1], json.loads((folder / "golden.json").read_text())[-1]
    ours = load_program("review", root=root)(**asked["inputs"])
    assert theirs == server.state.bodies[-1], "prompt, schema and knobs are the same"
    assert ("Irony" in json.dumps(theirs)) or looks_up
    if not looks_up:
        called = stranger(folder, "predict.py", json.dumps(asked["inputs"]))
        assert json.loads(called.stdout) == {"verdict": ours.verdict} == asked["outputs"]
    written = {p: p.read_text("utf-8") for p in folder.rglob("*") if p.suffix in ENDINGS}
    assert not [p for p in written if KEY in written[p]] and not list(folder.rglob("*.pkl"))
    assert not [p for p in written if str(root) in written[p] or "/home/" in written[p]]
    texts = json.dumps(
        [json.loads((folder / n).read_text()) for n in ("golden.json", "program.json")]
    )
    assert not [row for row in load_splits(load_task("review", root)).test if row.text in texts]
    told = (folder / "README.md").read_text()
    assert f"at ` {url} `. Another LM" in told
    assert "n = 12" in told and "test_predict.py" in told and "| best prompt program ◀ |" in told


def test_an_lm_of_the_process_has_to_be_served(
    root: Path, lm: tuple[str, FastAPI], tmp_path: Path
) -> None:
    improved(root, "", "gguf:/home/me/models/small.gguf", format="json")
    folder = tmp_path / "out"
    export(root, "review", folder)
    assert "/home/me" not in (folder / "program.json").read_text()
    assert "OPTIMIZE_API_BASE" in (folder / "README.md").read_text()
    lost = stranger(folder, "predict.py", '{"text": "Fine."}')
    assert "'gguf:small', which ran inside" in lost.stderr.replace("\n", " ")
    tested = stranger(folder, "test_predict.py")
    assert "OK (skipped=1)" in tested.stderr, tested.stderr


def test_what_cannot_be_exported_leaves_nothing_behind(
    root: Path, lm: tuple[str, FastAPI], tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "mine.txt").write_text("")
    with pytest.raises(WorkbenchError, match="not an empty folder"):
        export(root, "review", folder)
    rows = of_train(root, "text", "verdict")
    near = Neighbours(3, tuple(row["text"] for row in rows), rows, Embedder("minilm"))
    improved(root, lm[0], neighbours=near)
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, ["export", "review", str(tmp_path / "new")])
    assert done.exit_code == 2 and "--as mlflow" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_other_forms(root: Path, lm: tuple[str, FastAPI], tmp_path: Path) -> None:
    for form in ("mlflow", "prompt", "openai-eval", "promptfoo"):
        words = ["export", "review", str(tmp_path / form), "--as", form]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0 and "Next: " in done.stdout, done.stderr
    told = json.loads((tmp_path / "prompt" / "prompt.json").read_text())
    assert told["prompts"]["inner"][-1] == {"role": "user", "content": "{{text}}"}
    assert "--- user ---\n{{text}}\n" in (tmp_path / "prompt" / "prompt.txt").read_text()
    val = {row.text for row in load_splits(load_task("review", root)).val}
    samples = (tmp_path / "openai-eval" / "data" / "review" / "samples.jsonl").read_text()
    assert {json.loads(line)["input"][-1]["content"] for line in samples.splitlines()} == val
    config = json.loads((tmp_path / "promptfoo" / "promptfooconfig.json").read_text())
    assert config["providers"][0]["config"]["apiBaseUrl"] == lm[0]
    from mlflow import pyfunc

    model = pyfunc.load_model(str(tmp_path / "mlflow"))
    assert model.predict([{"text": POSITIVE[3]}]) == [{"verdict": "positive"}]


def test_a_tuned_lm_is_called_by_its_own_name(
    root: Path, lm: tuple[str, FastAPI], tmp_path: Path
) -> None:
    improved(root, lm[0], "embedded", tuned="order-slip", format="terse")
    for form in ("folder", "prompt", "promptfoo"):
        export(root, "review", tmp_path / form, form)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "prompt" / "prompt.json").read_text())["lm"] == (
        "openai/order-slip"
    )
    config = json.loads((tmp_path / "promptfoo" / "promptfooconfig.json").read_text())
    assert config["providers"][0]["id"] == "openai:chat:order-slip"
    told = (tmp_path / "folder" / "README.md").read_text()
    assert f"It asks ` openai/order-slip ` at ` {lm[0]} `" in told.replace("``", "`")
    assert "export OPTIMIZE_API_BASE" not in told and "ran in the workbench" not in told


def test_a_file_of_addresses_stays_here(
    root: Path, lm: tuple[str, FastAPI], tmp_path: Path
) -> None:
    servers = tmp_path / "servers.txt"
    servers.write_text(f"{lm[0]}\nhttp://127.0.0.1:9/v1\n")
    improved(root, f"@{servers}", format="compact")
    folder = tmp_path / "out"
    export(root, "review", folder)
    servers.unlink()
    assert json.loads((folder / "program.json").read_text())["lm"]["api_base"] == (
        f"{lm[0]},http://127.0.0.1:9/v1"
    )
    called = stranger(folder, "predict.py", json.dumps({"text": NEGATIVE[2]}))
    assert json.loads(called.stdout) == {"verdict": "negative"}


@pytest.mark.parametrize(
    ("knobs", "reasons", "provider", "options"),
    [
        ({"lm": "openai/any"}, False, "openai:chat:any", {"max_tokens": 256, "temperature": 0.0}),
        ({"lm": "openai/any"}, True, "openai:chat:any", {"max_tokens": 556, "temperature": 0.0}),
        ({"lm": "openai/gpt-5"}, False, "openai:chat:gpt-5", {"max_completion_tokens": 16_000}),
        (
            {"lm": "embedded"},
            False,
            "openai:chat:MODEL",
            {"max_tokens": 256, "temperature": 0.0, "apiBaseUrl": "http://HOST:PORT/v1"},
        ),
    ],
)
def test_an_eval_asks_as_the_champion_was_asked(
    tiny: Any, mood_rows: list[dict[str, Any]], tmp_path: Path,
    knobs: dict[str, Any], reasons: bool, provider: str, options: dict[str, Any],
) -> None:  # fmt: skip
    rows = tuple(dspy.Example(**row).with_inputs("text") for row in mood_rows)
    program = student(tiny(rows=mood_rows))
    if reasons:
        program.use_reasoning()
    promptfoo(program, Splits(rows, rows[:4], (), ""), tmp_path, knobs)
    (found,) = json.loads((tmp_path / "promptfooconfig.json").read_text())["providers"]
    assert found == {"id": provider, "config": options}


EVIL = "Good {{ 7*7 }} {% raw %} {# x #} {{{"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("reasons", [False, True])
def test_asserts_tell_the_right_label_in_every_format(
    form: str, reasons: bool, tiny: Any, mood_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    task: Task = tiny(rows=[{**mood_rows[0], "text": EVIL}, *mood_rows[1:]])
    rows = tuple(dspy.Example(**row).with_inputs("text") for row in mood_rows)
    evil = dspy.Example(text=EVIL, mood="good").with_inputs("text")
    splits = Splits(rows, (evil, *rows[1:4]), (), "")
    program = student(task)
    program.format = form
    if reasons:
        program.use_reasoning()
    assert promptfoo(program, splits, tmp_path, {"lm": "openai/any"}) == 4
    assert openai_eval(program, splits, tmp_path) == 4
    tests = [json.loads(line) for line in (tmp_path / "tests.jsonl").read_text().splitlines()]
    sent = tests[0]["vars"]["messages"]
    assert not re.search(r"\{[{%#]", sent) and EVIL in json.loads(sent)[-1]["content"]
    (predictor,) = program.predictors()
    samples = (tmp_path / "data" / "tiny" / "samples.jsonl").read_text().splitlines()
    for row, test, sample in zip(splits.val, tests, samples, strict=True):
        ideal = json.loads(sample)["ideal"]
        for mood in ("good", "bad"):
            given = {"mood": mood, **({"reasoning": "it is so"} if reasons else {})}
            said = FORMATS[form].format_assistant_message_content(predictor.signature, given)
            assert bool(re.search(test["assert"][0]["value"], said)) is (mood == row.mood), said
            assert any(part in said for part in ideal) is (mood == row.mood), (ideal, said)


class Order(dspy.Signature):
    """Which list?"""

    text: str = dspy.InputField()
    mood: Literal["order", "orders"] = dspy.OutputField()


def test_a_metric_that_is_more_than_a_label_is_refused(
    tiny: Any, mood_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    from dataclasses import replace

    rows = tuple(dspy.Example(**row).with_inputs("text") for row in mood_rows)
    splits, task = Splits(rows, rows[:4], (), ""), tiny(Mood, rows=mood_rows)
    lenient = replace(task, metric=lambda example, prediction: 0.5)
    with pytest.raises(WorkbenchError, match="more than whether one label"):
        promptfoo(student(lenient), splits, tmp_path, {})
    rows = tuple(
        dspy.Example(text=row["text"], mood=("order", "orders")[row["mood"] == "good"]).with_inputs(
            "text"
        )
        for row in mood_rows
    )
    program = student(replace(task, signature=Order))
    program.format = "compact"
    with pytest.raises(WorkbenchError, match="'orders' begins with 'order'"):
        openai_eval(program, Splits(rows, rows[:4], (), ""), tmp_path)
