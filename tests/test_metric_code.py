"""Two metrics are two judges: which change of a task's file makes another one, and that what they
say is not held against each other.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dspy
import pytest
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.compare import side
from optimize.commands.new import write_task
from optimize.errors import WorkbenchError
from optimize.scoring.metric_code import metric_hash
from optimize.store.champion import champion
from optimize.store.read import find_run
from optimize.task import Score, Task, load_task
from tests.stored import stored_run
from tests.test_lm import chat_app, served

CODE = '''
"""Moods."""
import dspy
from optimize import Score, Task
from texts import folded

class Judge(dspy.Signature):
    """Tell the mood."""
    text: str = dspy.InputField()
    mood: str = dspy.OutputField()

LEAST = 0.5

def close(a, b):
    return float(folded(a) == folded(b))

def unused(a):
    return a

def metric(example, prediction):
    """Equal but for case."""
    return Score(max(LEAST, close(example.mood, prediction.mood)), "as labelled")

task = Task(signature=Judge, metric=metric, target=0.8)
'''
HELPER = "def folded(text):\n    return text.lower()\n"


def hashed(root: Path, code: str, helper: str = HELPER) -> str:
    (root / "texts.py").write_text(helper)
    (root / "programs").mkdir(exist_ok=True)
    (root / "programs" / "mood.py").write_text(code)
    return metric_hash(load_task("mood", root))


@pytest.mark.parametrize(
    ("old", "new", "another"),
    [
        ("Equal but for case.", "Equal, whatever the case.", False),
        ("LEAST = 0.5", "LEAST = 0.5  # of all", False),
        ("return Score(max", "return Score(\n        max", False),
        ("target=0.8", "target=0.9", False),
        ("Tell the mood.", "Say what mood it is.", False),
        ("return a\n", "return a + a\n", False),
        ("LEAST = 0.5", "LEAST = 0.25", True),
        ("float(folded(a) == folded(b))", "float(a == b)", True),
        ("metric=metric", "metric=lambda e, p: 1.0", True),
        ("text.lower()", "text.strip()", True),
        ("def folded(text):", 'def folded(text):\n    """In small letters."""', False),
    ],
)
def test_another_metric_is_what_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, another: bool
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    before = hashed(tmp_path, CODE)
    after = hashed(tmp_path, CODE.replace(old, new), HELPER.replace(old, new))
    assert before and (before != after) is another


LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "star": ("from helper import *", {"helper.py": "MARK"}),
    "tried": (
        "try:\n    from helper import m\nexcept ImportError:\n    m = None",
        {"helper.py": "MARK"},
    ),
    "branch": ("if True:\n    MARK", {}),
    "package": ("from lib import m", {"lib/__init__.py": "MARK"}),
    "of a package": ("from lib.a import m", {"lib/__init__.py": "", "lib/a.py": "MARK"}),
    "relative": (
        "from lib.a import m",
        {"lib/__init__.py": "", "lib/a.py": "from .b import m", "lib/b.py": "MARK"},
    ),
    "relative, above": (
        "from lib.a.c import m",
        {
            "lib/__init__.py": "",
            "lib/a/__init__.py": "",
            "lib/a/c.py": "from ..b import m",
            "lib/b.py": "MARK",
        },
    ),
    "each other": (
        "from one import m",
        {"one.py": "import two\nMARK", "two.py": "import one\n"},
    ),
    "inside": ("def m(e, p):\n    from helper import m\n    return m(e, p)", {"helper.py": "MARK"}),
    "changed later": ("LIMIT = [0]\nLIMIT[0] = 1  # MARK\ndef m(e, p): return LIMIT[0]", {}),
    "saved before": ("MARK\nold = m\ndef m(e, p): return old(e, p)", {}),
    "latin-1": ("from helper import m", {"helper.py": "# coding: latin-1\n# é\nMARK"}),
    "broken": ("from helper import m\nMARK", {"helper.py": "def ("}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_a_metric_is_written_its_change_is_seen(tmp_path: Path, layout: str) -> None:
    (tmp_path / "programs").mkdir()
    task = Task(signature=dspy.Signature("a -> b"), metric=lambda e, p: Score(0.0), name="t")
    task = replace(task, root=tmp_path)

    def written(says: str, target: float) -> str:
        code, files = LAYOUTS[layout]
        made = f"task: Task = Task(signature='a -> b', metric=m, target={target})\n"
        for name, text in {"programs/t.py": f"{code}\n{made}", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = text.replace("LIMIT[0] = 1  # MARK", f"LIMIT[0] = {says}")
            text = text.replace("MARK", f"def m(e, p): return {says}")
            path.write_bytes(text.encode("latin-1" if "latin" in text else "utf-8"))
        return metric_hash(task)

    before = written("1", 0.5)
    assert written("1", 0.75) == before != written("2", 0.5)


def test_a_judges_scores_are_told_apart_by_the_judge(tmp_path: Path) -> None:
    judged = CODE.replace("metric=metric", 'judge="verdict"').replace("from texts", "# from texts")
    assert hashed(tmp_path, judged) == ""


@pytest.mark.parametrize("metric", ["the-one", "another", ""])
def test_scores_of_two_metrics_are_not_held_against_each_other(project: Path, metric: str) -> None:
    """The second run scores less: it takes over only where that says nothing."""
    first = stored_run(project, "review", 8, metric="the-one")
    second = stored_run(project, "review", 7, metric=metric)
    now = champion(project, "review").id
    runs = find_run(project, first), find_run(project, second)
    if metric == "another":
        assert now == second
        with pytest.raises(WorkbenchError, match="were scored by different metrics"):
            side(*runs, "test")
    else:
        assert now == first and side(*runs, "test")


def test_a_metric_that_changed_is_told_before_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "review")
    monkeypatch.chdir(tmp_path)
    stored_run(tmp_path, "review", 8, metric="another", lm="openai/judge", target=0.7)
    server = chat_app(lambda text: "positive")
    with served(server) as url:
        done = CliRunner().invoke(app, ["recheck", "review", "--api-base", f"{url}/v1"])
    assert done.exit_code == 2 and server.state.bodies == []
    assert "another metric than programs/review.py has now" in " ".join(done.stderr.split())


def test_modules_of_one_package_are_all_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "__init__.py").touch()
    for name in ("one", "two"):
        (tmp_path / "words" / f"{name}.py").write_text(HELPER)
    code = CODE.replace("from texts import folded", "import words.one, words.two").replace(
        "folded(a)", "words.two.folded(a)"
    )
    code = code.replace("== folded(b)", "== words.one.folded(b)")
    before = hashed(tmp_path, code)
    assert hashed(tmp_path, code) == before
    (tmp_path / "words" / "two.py").write_text(HELPER.replace("lower", "strip"))
    assert hashed(tmp_path, code) != before
