"""Whatever a file holds: it is read, or told in one sentence (WorkbenchError, UserCodeError), and
nothing else. `HYPOTHESIS_PROFILE=long` looks fifty times as hard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.new import write_task
from optimize.config import RunConfig, load_config
from optimize.data.rows import load_splits
from optimize.errors import UserCodeError, WorkbenchError
from optimize.finetune.handoff import manifest
from optimize.program.program import parse_program, student, to_text
from optimize.program.retrieval import read_corpus
from optimize.task import Task, load_task

own = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
common: dict[str, Any] = {"deadline": None, "suppress_health_check": own, "database": None}
settings.register_profile("quick", max_examples=40, derandomize=True, **common)
settings.register_profile("long", max_examples=2000, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

TOLD = (WorkbenchError, UserCodeError)
# what people's files hold that they should not
NASTY = st.sampled_from(
    ["", "\0", "\ufeff", "\ud800", "\x1b[31m", "\u2028", "NaN", "9" * 5000, "[" * 2000, "</script>"]
)
TEXT = st.one_of(st.text(max_size=40), NASTY)
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
FIELDS = st.sampled_from(["text", "verdict", "id", "source", "title", "Text", ""])
ROW = st.one_of(st.dictionaries(FIELDS, VALUE, max_size=4), VALUE)
LINE = st.one_of(ROW.map(json.dumps), TEXT)
GOOD = [json.dumps({"text": f"fine {n}", "verdict": "positive"}) for n in range(40)]


def told(work: Callable[[], object]) -> None:
    """Done, or refused in words: anything else is a bug."""
    try:
        work()
    except TOLD as error:
        said = str(error)
        assert said.strip() and len(said) < 2000, "one sentence, whatever the file holds"


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    path.write_bytes(data)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    (root / "programs").mkdir()
    write_task(root, "review")
    return root


@pytest.fixture(scope="module")
def task(project: Path) -> Task:
    return load_task("review", project)


@given(bad=st.lists(LINE, min_size=1, max_size=4), good=st.sampled_from([0, 40]))
def test_rows(task: Task, bad: list[str], good: int) -> None:
    put(task.folder / "rows.jsonl", "\n".join([*GOOD[:good], *bad]))
    told(lambda: load_splits(task))


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(st.lists(TEXT, max_size=3).map(",".join), max_size=4).map(
            lambda lines: "\n".join(["text,verdict", *lines]).encode(errors="surrogatepass")
        ),
    ),
    ending=st.sampled_from(["jsonl", "csv", "parquet"]),
)
def test_files_of_any_kind(task: Task, data: bytes, ending: str) -> None:
    for file in task.folder.glob("rows.*"):
        file.unlink()
    put(task.folder / f"rows.{ending}", data)
    told(lambda: load_splits(task))
    (task.folder / f"rows.{ending}").unlink()


@given(lines=st.lists(LINE, max_size=4))
def test_a_corpus(tmp_path: Path, lines: list[str]) -> None:
    put(tmp_path / "corpus.jsonl", "\n".join(lines))
    told(lambda: read_corpus(tmp_path / "corpus.jsonl"))


SOURCE = st.integers(0, 200), st.sampled_from(["", "0", "None", "(", "str", '"x"', "1 / 0", "\0"])


@given(place=SOURCE[0], new=SOURCE[1])
def test_a_task_file(project: Path, place: int, new: str) -> None:
    """Any one word of a task file that works, replaced."""
    known = (project / "programs" / "review.py").read_text()
    words = known.split(" ")
    words[place % len(words)] = new
    put(project / "programs" / "other.py", " ".join(words))
    put(project / "devsets" / "other" / "rows.jsonl", "\n".join(GOOD))

    def whole() -> None:
        found = load_task("other", project)
        rows = load_splits(found).val
        student(found)
        for row in rows[:2]:
            found.score(row, row)

    told(whole)


KNOB = st.sampled_from([*RunConfig.model_fields, "no_such_knob"])
LITERAL = st.one_of(
    st.booleans().map(lambda b: str(b).lower()),
    st.integers().map(str),
    st.floats(allow_nan=False).map(str),
    TEXT.map(lambda text: json.dumps(text)),
    TEXT,
    st.just("[]"),
)


@given(lines=st.lists(st.tuples(KNOB, LITERAL).map(" = ".join), max_size=3))
def test_a_configuration(tmp_path: Path, lines: list[str]) -> None:
    put(tmp_path / "optimize.toml", "\n".join(lines))
    told(lambda: load_config(tmp_path))


@given(
    keys=st.lists(st.sampled_from(["predictors", "inner", "demos", "signature", "format", "lm"])),
    value=VALUE,
)
def test_a_saved_program(task: Task, keys: list[str], value: Any) -> None:
    """Anything in place of any part of what `save` writes."""
    state = json.loads(to_text(student(task)))
    inside = state
    for key in keys:
        if isinstance(inside.get(key), dict):
            inside = inside[key]
        else:
            inside[key] = value
            break
    told(lambda: parse_program(task, json.dumps(state), "it", lambda name: pytest.fail("tuned")))
    told(lambda: parse_program(task, json.dumps(value), "it", lambda name: pytest.fail("tuned")))


@given(text=st.one_of(ROW.map(json.dumps), TEXT))
def test_a_manifest(tmp_path: Path, text: str) -> None:
    put(tmp_path / manifest.FILE, text)
    told(lambda: manifest.verify(tmp_path))


ARGUMENT = st.one_of(
    st.sampled_from(["review", "--val-rows", "--target", "--lm", "--max-calls", "--json", "8"]),
    TEXT,
)


@given(arguments=st.lists(ARGUMENT, max_size=4))
@settings(max_examples=15)
def test_a_command_line(
    project: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project / "devsets" / "review" / "rows.jsonl", "\n".join(GOOD))
    monkeypatch.chdir(project)
    with suppress(UnicodeEncodeError):  # no terminal hands on half a character
        "".join(arguments).encode()
        done = CliRunner().invoke(app, ["check", *arguments])
        assert done.exit_code in (0, 1, 2), done.output
        assert "Traceback" not in done.output
        assert done.exit_code != 70, done.output
