"""What users get wrong, or others do to their files: one clear line, before any call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimize.climb.observer import Observer
from optimize.commands.new import write_task
from optimize.commands.session import load_task_and_rows, open_session
from optimize.config import RunConfig, load_config
from optimize.errors import WorkbenchError
from optimize.lm.meter import Meter
from optimize.lm.named import resolve
from optimize.lm.reach import check_reachable
from optimize.program.program import parse_program, student, to_text

GOOD = {"text": "fine", "verdict": "positive"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "bad \\ud800 one", "verdict": "positive"}', "is half a character"),
        (f'{{"text": {"9" * 5000}, "verdict": "positive"}}', "4300 digits"),
        (f'{{"text": {"[" * 100_000}', "nested too deeply"),
        (f'{{"text": "{"x" * 1_000_001}"}}', "a line may have 1,000,000"),
        ('{"text": "x"', "not JSON"),
        ("[1]", "a row is a JSON object, found list"),
        ('{"text": NaN, "verdict": "positive"}', "valid string"),
        ('{"text": null, "verdict": "positive"}', "valid string"),
        ('{"text": "a", "text": "b", "verdict": "positive"}', "'text' stands in it twice"),
    ],
    ids=["surrogate", "digits", "depth", "length", "cut", "list", "NaN", "null", "twice"],
)
def test_a_bad_row_is_named_by_file_and_line(project: Path, line: str, said: str) -> None:
    file = project / "devsets" / "review" / "rows.jsonl"
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(WorkbenchError, match=rf"rows.jsonl:49: .*{said}"):
        load_task_and_rows(project, "review", RunConfig())


def test_a_pair_of_surrogates_is_a_character(project: Path) -> None:
    file = project / "devsets" / "review" / "rows.jsonl"
    file.write_text(file.read_text() + json.dumps(GOOD | {"text": "fine 😀"}) + "\n")
    assert "\\ud83d" in file.read_text()
    _, splits = load_task_and_rows(project, "review", RunConfig())
    assert any("😀" in row.text for side in splits.sides().values() for row in side)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_tokens=32", "max_tokens=0", "max_tokens=0; give the number"),
        ("max_tokens=32", 'max_tokens="many"', "max_tokens='many'; give the number"),
        ("max_tokens=32", "max_tokens=True", "max_tokens=True; give the number"),
        ("max_tokens=32", "max_tokens=10**30", "at most 1,000,000"),
        ("max_tokens=32", "max_tokens=10**9999", "a number of thousands of digits; give"),
        ("signature=Review", 'signature="text -> x"', "is no class"),
        (" = dspy.OutputField()", ' = "positive"', "has no dspy.OutputField|not a Signature|Field"),
        ("import dspy", "import sys; sys.exit(3)\nimport dspy", "does not load: SystemExit: 3"),
        ("target=0.9", 'target=float("nan")', "is no score"),
    ],
)
def test_a_bad_task_file_is_told(project: Path, old: str, new: str, said: str) -> None:
    file = project / "programs" / "review.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(WorkbenchError, match=said):
        load_task_and_rows(project, "review", RunConfig())


@pytest.mark.parametrize("text", ["", '{"id": 1}\n', "no JSON\n", '{"id": 1}{\n'])
def test_a_broken_corpus_is_told_by_every_command(project: Path, text: str) -> None:
    (project / "devsets" / "review" / "corpus.jsonl").write_text(text)
    with pytest.raises(WorkbenchError, match=r"corpus\.jsonl"):
        load_task_and_rows(project, "review", RunConfig())


def test_a_name_too_long_for_a_file_is_told(project: Path) -> None:
    with pytest.raises(WorkbenchError, match="cannot name a task: use up to 100 letters"):
        write_task(project, "a" * 300)
    with pytest.raises(WorkbenchError, match="does not exist"):
        load_task_and_rows(project, "a" * 300, RunConfig())


@pytest.mark.parametrize("lm", ["openai/", "/x", "openai", "gpt-4.1"])
def test_a_name_that_is_no_lms_is_told_by_check_too(project: Path, lm: str) -> None:
    with pytest.raises(WorkbenchError, match="or a DSPy model string"):
        open_session(project, "review", RunConfig(lm=lm), Observer(), asks=False)


@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:x/v1",
        "ftp://a",
        "http://127.0.0.1:1/v1\r\nX: y",
        "http://127.0.0.1:1/v 1",
    ],
)
def test_an_address_that_is_none_is_told(base: str) -> None:
    with pytest.raises(WorkbenchError, match="is none; write it as"):
        check_reachable(RunConfig(lm="openai/any", api_base=base))


def test_configuration_that_cannot_be_read_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "optimize.toml").write_bytes(b"\xef\xbb\xbfthreads = 3\n")
    with pytest.raises(WorkbenchError, match="byte order mark"):
        load_config(project)
    (project / "optimize.toml").write_text("threads = 3\n")
    monkeypatch.setenv("OPTIMIZE_NO_REGRESSION_ON", "general")
    with pytest.raises(WorkbenchError, match=r"no_regression_on.* is JSON, such as"):
        load_config(project)
    monkeypatch.setenv("OPTIMIZE_NO_REGRESSION_ON", '["general"]')
    assert load_config(project).no_regression_on == ("general",)


def test_a_saved_program_does_not_choose_the_lm(project: Path) -> None:
    """It would be asked in place of --lm, and with the key of another."""
    task, _ = load_task_and_rows(project, "review", RunConfig())
    state = json.loads(to_text(student(task)))
    state["predictors"]["inner"]["lm"] = {"model": "openai/other", "api_base": "http://evil/v1"}
    program = parse_program(task, json.dumps(state), "it", lambda name: pytest.fail("not tuned"))
    assert [predictor.lm for predictor in program.predictors()] == [None]


def test_an_address_in_a_saved_program_gets_no_key(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", "sk-canary-0123456789")
    task, _ = load_task_and_rows(project, "review", RunConfig())
    state = json.loads(to_text(student(task)))
    embedder = {"name": "openai/any", "api_base": "http://evil/v1"}
    state["neighbours"] = {"k": 2, "rows": [GOOD], "embedder": embedder}

    def key() -> object:
        program = parse_program(task, json.dumps(state), "it", lambda name: pytest.fail("no"))
        assert program.neighbours and program.neighbours.embedder
        return program.neighbours.embedder.key

    assert key() is None
    monkeypatch.setenv("OPTIMIZE_EMBEDDER_API_BASE", "http://evil/v1")
    assert key()


def test_openais_key_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    lm = resolve("openai/any", "http://127.0.0.1:9/v1", RunConfig(), Meter(1), 40)
    assert lm.kwargs["api_key"] == "none"


@pytest.mark.parametrize("knob", ["lm", "teacher"])
def test_an_address_for_an_lm_in_this_process_is_refused(project: Path, knob: str) -> None:
    base = {"lm": "api_base", "teacher": "teacher_api_base"}[knob]
    with pytest.raises(WorkbenchError, match="runs in this process and has no address"):
        load_config(project, **{knob: "embedded", base: "http://127.0.0.1:9/v1"})
