"""The knobs: who beats whom, and what a wrong one is told."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest

from optimize.climb.rungs import LADDER, SYNTHETIC
from optimize.commands.init import config_text
from optimize.config import Lever, RunConfig, command_line, find_root, load_config
from optimize.errors import WorkbenchError

SECRET = "sk-do-not-show"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as the current folder, and no knob in the environment."""
    (tmp_path / "programs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OPTIMIZE_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.mark.parametrize(
    ("flag", "env", "toml", "expected"),
    [
        (1, 2, 3, 1),
        (1, None, 3, 1),
        (None, 2, 3, 2),
        (None, None, 3, 3),
        (0, 2, 3, 0),  # a flag of zero is given, not missing
        (None, None, None, RunConfig.model_fields["seed"].default),
    ],
)
def test_a_flag_beats_the_environment_which_beats_the_file(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: int | None,
    env: int | None,
    toml: int | None,
    expected: int,
) -> None:
    if env is not None:
        monkeypatch.setenv("OPTIMIZE_SEED", str(env))
    if toml is not None:
        (project / "optimize.toml").write_text(f"seed = {toml}\nthreads = 7\n")
    config = load_config(seed=flag)
    assert config.seed == expected
    # what one source leaves out, the next gives
    assert config.in_flight == (4 if toml is None else 7)


def test_what_is_given_in_place_of_the_files_own_is_printed_also_where_it_is_a_default(
    project: Path,
) -> None:
    (project / "optimize.toml").write_text('lm = "openai/gpt-4.1-mini"\nrepeats = 3\nseed = 2\n')
    config = load_config(lm="embedded", repeats=1, seed=2)
    said = "optimize run t --lm embedded --seed 2 --repeats 1"
    assert command_line("run", "t", config.given) == said
    assert command_line("run", "t", config.model_copy(update={"threads": 2}).given) == (
        "optimize run t --lm embedded --threads 2 --seed 2 --repeats 1"
    )


def test_levers_have_the_names_of_the_ladder(project: Path) -> None:
    assert set(get_args(Lever)) == {rung.name for rung in (*LADDER, SYNTHETIC)}
    with pytest.raises(WorkbenchError, match=r"Option 'without': .*'votes' \(got 'vote'\)"):
        load_config(without=["gepa", "vote"])


def test_a_hosted_lm_is_asked_more_at_once() -> None:
    assert load_config(lm="openai/any").in_flight == 16
    assert load_config(lm="openai/any", threads=2).in_flight == 2


def test_the_file_of_the_project_root_holds_in_its_folders(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "optimize.toml").write_text("epochs = 9\n")
    (project / "devsets" / "deep").mkdir(parents=True)
    monkeypatch.chdir(project / "devsets" / "deep")
    assert load_config().epochs == 9


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("sead = 1", r"'sead': Extra inputs are not permitted\."),
        ('seed = "x"', r"'seed': .*valid integer.*\(got 'x'\)"),
        ("max_calls = 0", r"'max_calls': .*greater than or equal to 1.*\(got 0\)"),
        ("threads = 65", r"'threads': .*less than or equal to 64"),
        ("target = 1.5", r"'target': .*less than or equal to 1"),
        ("target = nan", r"'target': "),
        ("max_minutes = inf", r"'max_minutes': "),
        ("budget_usd = inf", r"'budget_usd': "),
        ("val_rows = 7", r"'val_rows': .*greater than or equal to 8"),
        (
            'finetune = "maybe"',
            r"'finetune': .*'bundle', 'lora', 'trl', 'openai' or "
            r"'never'.*OPTIMIZE_FINETUNE.*optimize\.toml",
        ),
        ('lm = ""', r"'lm': .*at least 1 character"),
        ("seed = ", r"optimize\.toml is not valid TOML: "),
    ],
)
def test_mistakes_in_the_file_name_the_knob(project: Path, toml: str, told: str) -> None:
    (project / "optimize.toml").write_text(toml)
    with pytest.raises(WorkbenchError, match=told):
        load_config()


def test_a_file_that_is_not_utf8_is_told(project: Path) -> None:
    (project / "optimize.toml").write_bytes(b'lm = "caf\xe9"\n')
    with pytest.raises(WorkbenchError, match=r"optimize\.toml"):
        load_config()


@pytest.mark.parametrize(("name", "value"), [("seed", "one"), ("threads", "0"), ("target", "high")])
def test_mistakes_in_the_environment_and_in_flags(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(WorkbenchError, match=f"'{name}'.*got '{value}'.*OPTIMIZE_{name.upper()}"):
        load_config(**{name: value})
    monkeypatch.setenv(f"OPTIMIZE_{name.upper()}", value)
    with pytest.raises(WorkbenchError, match=f"'{name}'.*got '{value}'"):
        load_config()


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", SECRET)
    config = load_config()
    assert config.api_key and config.api_key.get_secret_value() == SECRET
    assert SECRET not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


@pytest.mark.parametrize(
    "toml",
    [
        f'api_key = ["{SECRET}"]',
        f'apikey = "{SECRET}"',
        f'api_key = "{SECRET}',
        f'api_key = "{SECRET}" seed = 1',
    ],
)
def test_a_wrong_key_is_not_shown_in_the_error(project: Path, toml: str) -> None:
    (project / "optimize.toml").write_text(toml)
    with pytest.raises(WorkbenchError) as raised:
        load_config()
    assert SECRET not in str(raised.value)


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("mark", ["programs", "optimize.toml"])
@pytest.mark.parametrize("start", [".", "devsets/deep"])
def test_the_root_is_the_nearest_folder_with_programs_or_a_config(
    project: Path, start: str, mark: str
) -> None:
    inner = project / "inner"
    (inner / "devsets" / "deep").mkdir(parents=True)
    assert find_root(inner / start) == project
    (inner / mark).mkdir() if mark == "programs" else (inner / mark).touch()
    assert find_root(inner / start) == inner


def test_the_file_that_init_writes_names_every_knob_with_its_default(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", SECRET)
    text = config_text()
    knobs = re.findall(r"^# (\w+) = .*$", text, re.MULTILINE)
    assert set(knobs) == set(RunConfig.model_fields) - {"api_key"} and SECRET not in text
    (project / "optimize.toml").write_text(text)
    assert load_config() == RunConfig(), "as it is written it changes nothing"
    monkeypatch.delenv("OPTIMIZE_API_KEY")
    (project / "optimize.toml").write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    for name, field in RunConfig.model_fields.items():
        if name != "api_key":
            set_to = getattr(load_config(), name)
            assert set_to == (field.examples[0] if field.examples else field.default), name


def test_another_projects_file_is_read_where_it_is_named(project: Path) -> None:
    (project / "optimize.toml").write_text("seed = 1\n")
    other = project / "other"
    other.mkdir()
    (other / "optimize.toml").write_text("seed = 2\n")
    assert (load_config(other).seed, load_config().seed) == (2, 1)
    (other / "optimize.toml").write_text("seed = ")
    with pytest.raises(WorkbenchError, match=r"other/optimize\.toml is not valid TOML"):
        load_config(other)


def test_without_programs_the_root_is_the_current_folder(project: Path) -> None:
    (project / "programs").rmdir()
    assert find_root(project) == project
    assert find_root() == project
