"""Programs with steps that no row labels: what teaches them, what the gate says of them, and the
whole way to a hand-off and to a tuned LM. And what may fail after a climb without losing it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.climb.observer import Observer
from optimize.climb.preflight import preflight
from optimize.climb.rungs import LADDER
from optimize.commands.finetune import finetune_last
from optimize.commands.gate import gate_last
from optimize.commands.handoff import handoff_last
from optimize.commands.redraw import redraw
from optimize.commands.run import run
from optimize.commands.session import Session, open_session
from optimize.commands.traces import trace_calls
from optimize.config import RunConfig
from optimize.data.rows import load_splits
from optimize.errors import WorkbenchError
from optimize.finetune import openai_job
from optimize.finetune.criteria.learning import LEAST_ROWS
from optimize.finetune.handoff.manifest import verify
from optimize.finetune.steps import Call, Traces, count, labelled, right_calls, unlabelled
from optimize.finetune.training_rows import chat_rows, tuned_student
from optimize.program.formats import FORMATS
from optimize.program.program import Program, student
from optimize.report.text import warnings
from optimize.store.read import last_run
from optimize.task import Task
from tests.test_fallback import parsed
from tests.test_handoff import TwoSteps
from tests.test_lm import completion, served
from tests.test_openai_job import BASE, Provider, coloured

COLOURS = ("red", "green", "blue")
PROGRAM = '''
from typing import Literal

import dspy

from optimize.task import Score, Task


class Paint(dspy.Signature):
    """Which colour?"""

    thing: str = dspy.InputField()
    colour: Literal["red", "green", "blue"] = dspy.OutputField()


class Drafted(dspy.Module):
    def __init__(self, signature):
        super().__init__()
        self.draft = dspy.Predict("thing -> draft")
        self.answer = dspy.Predict(signature.append("draft", dspy.InputField(), str))

    def forward(self, thing):
        return self.answer(thing=thing, draft=self.draft(thing=thing).draft)


def metric(example, prediction):
    return Score(float(example.colour == prediction.colour))


task = Task(
    signature=Paint, metric=metric, program=MODULE, max_tokens=60, stability="stable", owner="us"
)
'''


VALUES = {"reasoning": "It looks warm.", "draft": "maybe red"}


class Thinker(Provider):
    """A provider whose LM gives every field it is asked for."""

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked = getattr(self, "asked", 0) + 1
        asked, schema = body["messages"][-1]["content"], json.dumps(body.get("response_format", ""))
        thing = re.split(r"thing ## \]\]\n|thing:\n|<thing>\n", asked)[-1].split("\n")[0]
        tuned = body["model"].startswith("ft:")
        values = VALUES | {"colour": coloured(thing, tuned)}
        named = asked.split("Respond with")[-1] if "Respond with" in asked else schema
        names = [name for name in values if re.search(rf"\W{name}\W", named)]
        more = set(re.findall(r"\[\[ ## (\w+) ## ", named)) - {"completed", *names}
        values, names = values | dict.fromkeys(more, "Say it in one word."), [*names, *more]
        if '"properties"' in schema:
            text = json.dumps({name: values[name] for name in names})
        elif "Respond with" in asked:
            marked = "<{0}>\n{1}\n</{0}>" if "XML" in asked else "[[ ## {0} ## ]]\n{1}\n"
            text = "\n".join(marked.format(name, values[name]) for name in names)
        else:
            text = json.dumps(values["colour"]) if '"enum"' in schema else "maybe red"
        return completion(body["model"], text)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_job, "FIRST_POLL", 0.01)


@pytest.fixture
def provider() -> Iterator[tuple[Thinker, str]]:
    made = Thinker()
    with served(made.app) as url:
        yield made, url + "/v1"


Project = Callable[..., Callable[..., Session]]


@pytest.fixture
def project(tmp_path: Path, provider: tuple[Thinker, str]) -> Project:
    """project(module, rows) writes the task and gives a maker of sessions over it."""

    def make(module: str, rows: int = 300) -> Callable[..., Session]:
        rng = random.Random(0)
        letters = "abcdefghijklmnopqrstuvwxyz"
        made = []
        for _ in range(rows):
            thing = "".join(rng.choices(letters, k=rng.randint(12, 24)))
            made.append({"thing": thing, "colour": COLOURS[len(thing) % 3]})
        questions = [{"question": "2 + 2?", "check": "number", "expected": [4], "skill": "sums"}]
        (tmp_path / "programs").mkdir()
        (tmp_path / "programs" / "paint.py").write_text(PROGRAM.replace("MODULE", module))
        for name, found in (("paint", made), ("general", questions)):
            (tmp_path / "devsets" / name).mkdir(parents=True)
            text = "".join(json.dumps(row) + "\n" for row in found)
            (tmp_path / "devsets" / name / "rows.jsonl").write_text(text)

        def opened(**knobs: Any) -> Session:
            base = {"lm": f"openai/{BASE}", "api_base": provider[1], "api_key": "k"}
            config = RunConfig(**(base | {"max_calls": 20_000} | knobs))
            return open_session(tmp_path, "paint", config, Observer())

        return opened

    return make


def opened_program(project: Project, module: str) -> tuple[Session, Program]:
    session = project(module)()
    return session, student(session.task)


def test_a_step_is_labelled_where_the_row_holds_all_of_it(project: Project) -> None:
    _, drafted = opened_program(project, "Drafted")
    assert unlabelled(drafted) == ["draft", "answer"], "the answer is given a draft"


@pytest.mark.parametrize(
    ("module", "steps"), [("dspy.ChainOfThought", ["predict"]), ("dspy.Predict", [])]
)
def test_reasoning_has_no_label(project: Project, module: str, steps: list[str]) -> None:
    session, program = opened_program(project, module)
    assert unlabelled(program) == steps
    assert (trace_calls(session) > 0) is bool(steps), "nothing is asked where nothing is missing"


def test_only_right_answers_teach_and_gold_stands_where_there_is_gold(project: Project) -> None:
    session, program = opened_program(project, "Drafted")
    with dspy.context(lm=session.lm):
        calls = right_calls(program, session.splits.train, session.asking)
    right = [e.colour == coloured(e.thing, tuned=False) for e in session.splits.train]
    assert [len(made) for made in calls] == [2 * hit for hit in right]
    traces = Traces(calls, ())
    assert count(program, traces).train == sum(right) and count(program, traces).val == 0
    short = tuned_student(program)
    rows = chat_rows(short, session.splits.train, calls)
    assert len(rows) == 2 * sum(right)
    said = {row["messages"][-1]["content"] for row in rows}
    assert said == {"maybe red", *map(json.dumps, COLOURS)}, "terse in each step"
    asked = rows[1]["messages"][-2]["content"]
    assert "draft:\nmaybe red" in asked and "thing:\n" in asked


def test_a_step_whose_outputs_are_labelled_learns_from_all_rows(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]]
) -> None:
    one = tiny(rows=mood_rows)
    task = replace(one, program=TwoSteps)
    program, splits = student(task), load_splits(task)
    assert unlabelled(program) == ["draft"]
    rows = chat_rows(tuned_student(program), splits.train, [()] * len(splits.train))
    assert [FORMATS["terse"].parse(task.signature, r["messages"][-1]["content"]) for r in rows] == [
        dict(e.labels()) for e in splits.train
    ]


def test_a_step_that_is_given_other_inputs_than_the_row_learns_on_those(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]]
) -> None:
    """A module may ask its last step by the row's names and mean what an earlier one made of it."""
    program = student(replace(tiny(rows=mood_rows), program=TwoSteps))
    train = load_splits(program.task).train[:3]
    place = [labelled(program, p) for p in program.predictors()].index(True)
    wrong = {"mood": next(m for m in ("good", "bad") if m != train[0].mood)}
    made = (Call(place, {"text": "said plainly"}, wrong),)
    (row,) = chat_rows(tuned_student(program), train, [made, (), ()])
    *asked, said = row["messages"]
    assert "said plainly" in asked[-1]["content"] and train[0].mood in said["content"]


TRIED = ("demo_search", "bootstrapped_demos", "nearest_demos", "copro")
RUNGS = [rung for rung in LADDER if rung.name in TRIED]


@pytest.mark.parametrize("module", ["dspy.ChainOfThought", "Drafted"])
def test_a_program_of_steps_is_handed_off_and_its_run_is_kept(
    project: Project, tmp_path: Path, module: str
) -> None:
    opened = project(module)
    report = run(opened(), RUNGS)
    assert (report.verdict, report.gate.open, report.failed) == ("plateau", True, [])
    assert report.traces and report.traces.train >= LEAST_ROWS and report.traces.val >= 8
    (criterion,) = [c for c in report.gate.criteria if c.name == "steps without labels"]
    assert f"{report.traces.train} train" in criterion.value
    assert criterion.passed is (True if report.traces.train >= 100 else None)
    folder = tmp_path / "mlruns" / "handoff" / "paint"
    assert verify(folder) == []
    rows = (folder / "chat" / "train.jsonl").read_text().splitlines()
    assert len(rows) >= report.traces.train
    names = {path.name for path in (folder / "json_schema").glob("*schema.json")}
    assert len(names) == (2 if module == "Drafted" else 1)
    for name in names:
        schema = json.loads((folder / "json_schema" / name).read_text())
        assert set(schema["properties"]) <= {"draft", "colour", "reasoning"}
    found, following = gate_last(tmp_path, "paint", RunConfig(api_key="k"))
    assert found.open and found == report.gate and "--backend openai" in following
    with pytest.raises(WorkbenchError, match="--pairs compares whole answers"):
        handoff_last(opened(), pairs=True)
    with pytest.raises(WorkbenchError, match="--method dpo compares whole answers"):
        opened(method="dpo")


def test_the_tuned_lm_of_a_program_of_steps_is_that_program(
    project: Project, tmp_path: Path, provider: tuple[Thinker, str]
) -> None:
    """Also `finetune` after a run that went no further: with the run's target, and a verdict."""
    opened = project("Drafted")
    climbed = run(opened(finetune="never", target=0.7), RUNGS)
    assert climbed.gate.open and climbed.traces is None and not provider[0].jobs
    parsed(climbed.next)
    assert "--target 0.7" in climbed.next and climbed.next.startswith("optimize finetune paint ")
    report = finetune_last(opened(finetune="openai"))
    assert report.decision and report.decision.accepted and report.test.tuned
    assert report.test.tuned.score == 1.0 and report.target == 0.7 and report.target_met
    saved = json.loads((tmp_path / report.program).read_text())
    assert saved["format"] == "terse" and saved["tuned"] == f"ft:{BASE}:1"
    steps = {json.dumps(row["messages"][0]) for row in provider[0].files["file-0"]}
    assert len(steps) == 2, "both steps are taught, each by its own instruction"
    redrawn = redraw(tmp_path, "paint")
    assert redrawn.verdict == climbed.verdict and redrawn.numbers == climbed.numbers
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    versions = {int(v.version): v.tags for v in client.search_model_versions("name='paint'")}
    assert float(versions[2]["score"]) == 1.0, "the score of what is registered"
    assert float(versions[1]["score"]) == pytest.approx(climbed.test.prompt.score, abs=1e-4)
    higher = finetune_last(opened(finetune="openai", target=0.95))
    assert higher.target == 0.95, "a target that is given counts"


def test_too_few_right_answers_close_the_gate_and_say_so(project: Project, tmp_path: Path) -> None:
    report = run(project("dspy.ChainOfThought", rows=100)(), RUNGS)
    assert [c.name for c in report.gate.failed] == ["steps without labels"]
    (criterion,) = report.gate.failed
    assert report.traces and f"{report.traces.train} train" in criterion.value
    assert not (tmp_path / "mlruns" / "handoff" / "paint").exists()
    assert report.next.startswith("optimize gate paint")


def test_traces_stay_below_the_cap(project: Project, provider: tuple[Thinker, str]) -> None:
    opened = project("dspy.ChainOfThought")
    report = run(opened(max_calls=2000), RUNGS)
    assert report.lm_calls <= provider[0].asked <= 2000
    plain = opened(finetune="never")
    after = trace_calls(plain)
    checks = [preflight(plain.task, plain.splits, plain.config, n) for n in (0, after)]
    assert checks[1].cost.plan.enough - checks[0].cost.plan.enough == after > 0
    assert report.preflight.cost.plan.enough == checks[1].cost.plan.enough


def status(root: Path) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "paint"]
    (found,) = [
        r for r in client.search_runs([experiment]) if "mlflow.parentRunId" not in r.data.tags
    ]
    return str(found.info.status)


def test_what_cannot_be_written_at_the_end_loses_nothing(project: Project, tmp_path: Path) -> None:
    opened = project("dspy.Predict")
    session = opened()
    (tmp_path / "mlruns").mkdir()
    for name in ("handoff", "charts"):
        (tmp_path / "mlruns" / name).write_text("a file where a folder should be")
    report = run(session, RUNGS)
    assert report.gate.open and report.page is None
    picture, page, handoff = (told.partition(" failed: ")[0] for told in report.failed)
    assert picture.endswith("climb.png") and (page, handoff) == ("The page", "The hand-off")
    kept, _ = last_run(tmp_path, "paint")
    assert kept == report and status(tmp_path) == "FINISHED"
    assert any("cannot be written" in line for line in warnings(report))
    assert report.next.startswith("optimize handoff paint --lm ")
    with pytest.raises(WorkbenchError, match="cannot be written"):
        handoff_last(opened(), pairs=False)
    (tmp_path / "mlruns" / "handoff").unlink()
    parsed(report.next)
    folder, manifest, _ = handoff_last(opened(), pairs=False)
    assert verify(folder) == [] and manifest.target == report.target


def test_a_trainer_that_fails_after_the_climb_loses_nothing(
    project: Project, tmp_path: Path, provider: tuple[Thinker, str]
) -> None:
    opened = project("dspy.Predict")
    provider[0].ends = "failed"
    report = run(opened(finetune="openai"), RUNGS)
    assert report.decision is None and report.gate.open and report.test.tuned is None
    assert ["loss went to the moon" in told for told in report.failed] == [True]
    assert status(tmp_path) == "FINISHED" and last_run(tmp_path, "paint")[0] == report
    assert report.next.startswith("optimize finetune paint --backend openai --lm ")
    provider[0].ends = "succeeded"
    again = finetune_last(opened(finetune="openai"))
    assert again.decision and again.decision.accepted and again.failed == []


def test_distilling_without_a_teacher_is_refused_before_any_call(
    project: Project, provider: tuple[Thinker, str]
) -> None:
    with pytest.raises(WorkbenchError, match="--method distill needs a teacher"):
        project("dspy.Predict")(method="distill")
    assert not hasattr(provider[0], "asked")
