"""Fixtures shared by the tests: the shipped tasks, and tiny tasks written into tmp_path."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest

from optimize.commands.init import write_project
from optimize.commands.new import write_task
from optimize.data.rows import Splits, load_splits
from optimize.lm.metered import count_others
from optimize.task import Score, Task, load_task

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Each worker keeps to its own cores, and so do its commands: two LMs that both use all of them
    stand in each other's way, and take many times as long.
    """
    worker, count = (
        os.environ.get("PYTEST_XDIST_WORKER"),
        os.environ.get("PYTEST_XDIST_WORKER_COUNT"),
    )
    if worker and count and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(worker.removeprefix("gw")) :: int(count)]
        os.sched_setaffinity(0, own or cores)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no worker begins one when the other is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the task that `optimize new review` writes."""
    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "review")
    return tmp_path


class Mood(dspy.Signature):
    """Judge the review."""

    text: str = dspy.InputField()
    mood: Literal["good", "bad"] = dspy.OutputField()


def exact(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    """The metric of the tiny tasks: every output as labelled."""
    return Score(float(dict(example.labels()) == dict(prediction)))


class Says:
    """An engine for `dspy.LM` that gives these answers at once, one after the other."""

    def __init__(self, answers: Iterable[str]) -> None:
        self.answers = iter(answers)

    def complete(self, request: dspy.lm15.Request) -> dspy.lm15.Response:
        return dspy.lm15.Response(
            id="x",
            model=request.model,
            message=dspy.lm15.Message.assistant([dspy.lm15.TextPart(next(self.answers))]),
            finish_reason="stop",
            usage=dspy.lm15.Usage(input_tokens=1, output_tokens=1),
        )


@pytest.fixture(autouse=True)
def own_meter() -> Iterator[None]:
    """A process runs one command, whose meter counts to its end; here a test is that long."""
    yield
    count_others(None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's own root."""
    return ROOT


@pytest.fixture(scope="session")
def shipped() -> Callable[[str], tuple[Task, Splits]]:
    """A shipped task with its rows, loaded once."""

    @cache
    def get(name: str) -> tuple[Task, Splits]:
        task = load_task(name, ROOT)
        return task, load_splits(task)

    return get


@pytest.fixture(scope="session")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose task `review` was run twice, on an endpoint that is gone since; its task
    `unrun` never was. Read only.
    """
    from tests.reviewer import run_twice

    root = tmp_path_factory.mktemp("reviewed")
    write_project(root, [])
    for name in ("review", "unrun"):
        write_task(root, name)
    run_twice(root)
    return root


@pytest.fixture
def mood_rows() -> list[dict[str, Any]]:
    """80 rows for Mood, half of them good, with no two texts alike."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    word = lambda n: (letters[n % 26] + letters[n * 7 // 3 % 26] + letters[n * 11 // 5 % 26]) * 2  # noqa: E731
    return [
        {
            "text": f"{word(3 * n)} {word(3 * n + 1)} {word(3 * n + 2)}",
            "mood": ("good", "bad")[n % 2],
        }
        for n in range(80)
    ]


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Task]:
    """tiny(file=rows-or-text-or-bytes …) writes devsets/tiny/file.jsonl … and gives the task over
    them.
    """

    def make(signature: type[dspy.Signature] = Mood, **files: Sequence[Any] | str | bytes) -> Task:
        folder = tmp_path / "devsets" / "tiny"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            stem, _, suffix = name.partition("_")
            path = folder / f"{stem}.{suffix or 'jsonl'}"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                text = (
                    content
                    if isinstance(content, str)
                    else "".join(json.dumps(row) + "\n" for row in content)
                )
                path.write_text(text, encoding="utf-8")
        return Task(signature=signature, metric=exact, name="tiny", root=tmp_path)

    return make
