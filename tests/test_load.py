"""What a run has found, used from Python; and what an older version left in a store."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import dspy
import pytest

import optimize
from optimize import load_program
from optimize.commands.tasks import overview
from optimize.errors import WorkbenchError
from optimize.lm.metered import MeteredLM
from optimize.program.program import Program, save, student, to_text
from optimize.report.tasks import tasks_section
from optimize.stats.intervals import paired_gain
from optimize.store.champion import CHAMPION, takes_over
from optimize.store.open import client
from optimize.store.read import last_run
from optimize.task import load_task
from tests.test_cli import optimize as command

LM = {"lm": "openai/judge", "api_base": "http://127.0.0.1:9/v1", "temperature": 0.5}


@pytest.fixture
def saved(project: Path) -> Path:
    path = project / "kept" / "best.json"
    save(student(load_task("review", project)), path, LM)
    return path


def stored(project: Path, text: dict[str, str], **params: str) -> str:
    """A finished run of task `review` that keeps these files; its id."""
    store = client(project)
    known = store.get_experiment_by_name("review")
    place = (project / "mlruns" / "artifacts" / "review").as_uri()
    experiment = (
        known.experiment_id if known else store.create_experiment("review", artifact_location=place)
    )
    run = store.create_run(experiment, tags={"verdict": "plateau", "task": "review"}).info.run_id
    for name, value in params.items():
        store.log_param(run, name, value)
    for name, content in text.items():
        store.log_text(run, content, name)
    store.set_terminated(run, "FINISHED")
    return str(run)


def answers(program: dspy.Module, lm: dspy.BaseLM) -> str:
    with dspy.context(lm=lm):
        return str(program(text="Fine.").verdict)


def judge(verdict: str) -> dspy.BaseLM:
    return dspy.utils.DummyLM([{"verdict": verdict}] * 3)


def test_the_public_names_are_loaded_on_first_use() -> None:
    code = """
import sys, optimize
early = [name for name in ("dspy", "mlflow", "pydantic") if name in sys.modules]
from optimize import *
from optimize.commands.load import load_program as ours
print(early, Task.__module__, Score.__module__, load_program is ours)
print(set(optimize.__all__) <= set(dir(optimize)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "optimize.task", "optimize.task", "True", "True"]
    with pytest.raises(AttributeError, match="no attribute 'load_programme'"):
        _ = optimize.load_programme


def test_a_saved_program_runs_on_the_lm_it_was_optimized_on(project: Path, saved: Path) -> None:
    program = load_program(saved)  # its project is the one around it
    assert isinstance(program, Program) and isinstance(program.lm, MeteredLM)
    assert program.lm.model.endswith("/judge") and program.lm.kwargs["temperature"] == 0.5
    elsewhere = project.parent / "copied.json"
    elsewhere.write_bytes(saved.read_bytes())
    assert load_program(str(elsewhere), root=project).task.folder == project / "devsets" / "review"


def test_the_callers_lm_comes_first(project: Path, saved: Path) -> None:
    with dspy.context(lm=judge("positive")):
        program = load_program(saved)
    assert program.lm is None, "it follows the LM that DSPy is configured with"
    assert answers(program, judge("negative")) == "negative"
    pinned = load_program(saved, lm=judge("positive"))
    assert answers(pinned, judge("negative")) == "positive"
    named = load_program(saved, lm="openai/another")
    assert named.lm.model == "openai/another" and named.lm.kwargs["temperature"] == 0


def test_a_tuned_program_runs_on_its_weights_unless_an_lm_is_asked_for(
    project: Path, saved: Path
) -> None:
    program = student(load_task("review", project))
    program.tuned = "ft:judge:42"
    save(program, saved, LM)
    with dspy.context(lm=judge("positive")):
        assert load_program(saved).lm.model.endswith("/ft:judge:42")
        assert answers(load_program(saved, lm=judge("negative")), judge("positive")) == "negative"
    program.tuned = str(project / "gone.gguf")
    save(program, saved, {"lm": "embedded"})
    with pytest.raises(WorkbenchError, match=r"gone\.gguf or the base weights are gone"):
        load_program(saved)


def test_a_task_gives_the_program_of_its_champion(
    project: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "devsets")
    with pytest.raises(WorkbenchError, match="'review' has no best program in this store yet"):
        load_program("review")
    program = student(load_task("review", project))
    store = client(project)
    store.create_registered_model("review")
    for form in ("compact", "chat"):
        program.format = form
        save(program, saved, LM)
        run = stored(project, {"program.json": saved.read_text()})
        version = store.create_model_version("review", f"runs:/{run}/program.json", run)
        if form == "compact":
            store.set_registered_model_alias("review", CHAMPION, version.version)
    assert load_program("review").format == "compact", "the last one is not the best one"


@pytest.mark.parametrize(
    ("lm", "form", "asked"),
    [
        (None, "terse", "/ft:judge:42"),
        (LM["lm"], "terse", "/ft:judge:42"),
        ("openai/ft:judge:42", "terse", "/ft:judge:42"),
        ("openai/another", "json", "/another"),
        (dspy.LM("openai/another"), "json", "/another"),
        (dspy.LM("openai/ft:judge:42"), "terse", "/ft:judge:42"),
    ],
)
def test_tuned_weights_are_for_their_lm_and_another_gets_the_best_prompt(
    project: Path, lm: dspy.BaseLM | str | None, form: str, asked: str
) -> None:
    program = student(load_task("review", project))
    program.format = "json"
    prompt = to_text(program, LM)
    program.format, program.tuned = "terse", "ft:judge:42"
    texts = {"program.json": to_text(program, LM), "prompt_program.json": prompt}
    run, store = stored(project, texts), client(project)
    store.create_registered_model("review")
    version = store.create_model_version("review", f"runs:/{run}/program.json", run)
    store.set_registered_model_alias("review", CHAMPION, version.version)
    found = load_program("review", lm=lm, root=project)
    assert isinstance(found, Program) and found.lm
    assert found.format == form and found.lm.model.endswith(asked)


@pytest.mark.parametrize(
    ("champion", "rows", "n", "won", "takes"),
    [
        (None, "a", 8, None, True),
        (("a", 80), "a", 80, None, True),  # a champion whose scores nobody kept
        (("a", 80), "a", 80, 12, True),
        (("a", 80), "a", 80, 1, False),  # one row won and none lost: the rows' noise
        (("a", 80), "a", 80, 0, False),
        (("a", 80), "a:24:8", 8, 8, False),  # a trial on a few of the rows
        (("a:24:8", 8), "a", 80, 0, True),
        (("a", 80), "b", 80, None, True),  # other rows, other scores
        (("a", 80), "b", 80, 1, False),  # other train rows, the same test rows
        (("a", 80), "b", 8, 8, False),  # the same, and a trial on a few of them
        (("a:24:8", 8), "a:30:8", 8, 6, True),
        (("a:24:8", 8), "a", 80, -8, False),  # more rows, but surely worse on those of both
    ],
)
def test_who_is_the_champion(
    champion: tuple[str, int] | None, rows: str, n: int, won: int | None, takes: bool
) -> None:
    """won: test rows on which the new one is right and the champion is not; below 0: the other way
    round.
    """
    names = ("version_of_rows", "test_rows")
    gain = None
    if won is not None:
        told = [1.0] * abs(won) + [0.0] * (n - abs(won))
        gain = paired_gain([0.0] * n, told) if won >= 0 else paired_gain(told, [0.0] * n)
    shared = gain.n if gain else 0
    for before in (names, ("data_hash", "test_rows")):  # an older version registered it
        tags = dict(zip(before, map(str, champion), strict=True)) if champion else {}
        assert takes_over(dict(zip(names, (rows, n), strict=True)), tags, gain, shared) is takes


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("nosuch", None, "No task 'nosuch'"),
        ("none.json", None, r"none\.json cannot be read: No such file"),
        ("bad.json", "{", r"bad\.json is not a saved program: it names no task"),
        ("bad.json", "[1]", r"bad\.json is not a saved program: it names no task"),
        ("bad.json", '{"task": "nosuch"}', "No task 'nosuch'"),
        ("bad.json", '{"task": "review"}', "has version None"),
        ("bad.json", '{"task": "review", "version": 1}', r"bad\.json is not a saved program"),
        ("bad.json", '{"task": "review", "version": 1, "lm": 7}', "is not a saved program"),
    ],
)
def test_what_cannot_be_loaded_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, told: str
) -> None:
    monkeypatch.chdir(project)
    if text is not None:
        (project / name).write_text(text)
    with pytest.raises(WorkbenchError, match=told):
        load_program(name)


def test_fields_that_changed_since_are_told(project: Path, saved: Path) -> None:
    path = project / "programs" / "review.py"
    path.write_text(path.read_text().replace("verdict:", "judgement:"))
    with pytest.raises(WorkbenchError, match=r"other fields than programs/review\.py has now"):
        load_program(saved)


def test_a_report_of_an_older_version_is_told_not_passed_over(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    told = "written by optimize 0.1.0, which"
    run = stored(project, {"report.json": '{"version": 4}'}, optimize="0.1.0")
    with pytest.raises(WorkbenchError, match=told):
        last_run(project, "review")
    (known,) = overview(project).tasks
    assert told in str(known.problem) and "optimize run review" in str(known.problem)
    shown = command(project, "report", "review")
    assert shown.returncode == 2 and told in " ".join(shown.stderr.split())
    assert not list(Path(tempfile.gettempdir()).iterdir()), f"what was read of {run} is removed"


def test_a_task_without_a_run_is_not_run_yet(project: Path) -> None:
    (known,) = overview(project).tasks
    assert known.verdict is None and known.problem is None and known.rows["val"]
    assert "not run yet" in tasks_section(overview(project)).rows[0]


def test_an_address_that_a_program_from_elsewhere_names_gets_no_key(
    project: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", "sk-mine")
    own = project / "mlruns" / "best.json"  # as a run writes it
    own.parent.mkdir()
    own.write_bytes(saved.read_bytes())

    def key(path: Path) -> object:
        program = load_program(path, root=project)
        assert isinstance(program, Program) and isinstance(program.lm, MeteredLM)
        return program.lm.kwargs["api_key"]

    assert (key(saved), key(own)) == ("none", "sk-mine")
    (project / "optimize.toml").write_text(f'lm = "openai/any"\napi_base = "{LM["api_base"]}"\n')
    assert key(saved) == "sk-mine", "the project says that this address is its own"
