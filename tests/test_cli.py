"""The command line: help without heavy imports, users' mistakes in one line, exit code 2."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optimize import __version__
from optimize.cli import app
from optimize.commands.init import write_project
from optimize.commands.new import write_task

ROOT = Path(__file__).parents[1]


def optimize(root: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "optimize", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | env)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project(tmp_path, [])
    write_task(tmp_path, "review")
    return tmp_path


def test_the_version(tmp_path: Path) -> None:
    done = optimize(tmp_path, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("dspy", "mlflow", "torch", "datasets", "pandas")
    code = f"""
import sys, optimize.cli
try:
    optimize.cli.app(["--help"])
except SystemExit:
    pass
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout
    assert "finetune" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nosuch"], "programs/nosuch.py does not exist. Tasks: review"),
        (["run", "review", "--target", "7"], "'target'"),
        (["run", "review", "--max-calls", "0"], "'max_calls'"),
        (["run", "review", "--finetune", "always"], "'finetune'"),
        (["run", "review", "--lm", "gguf:none.gguf"], "does not exist"),
        (["run", "review", "--lm", "gpt"], "DSPy model string"),
        (
            ["run", "review", "--lm", "openai/x", "--finetune", "lora"],
            "LoRA trains an LM that runs in this process",
        ),
        (
            ["run", "review", "--finetune", "lora", "--finetune-base", "devsets"],
            "neither a transformers folder",
        ),
        (["run", "review", "--method", "ppo"], "'method'"),
        (["run", "review", "--replay", "500"], "replay.txt has 120 instructions to replay"),
        (["finetune", "review", "--backend", "bundle"], "'bundle' trains nothing"),
        (["run", "review", "--repeats", "0"], "'repeats'"),
        (["run", "review", "--temperature", "9"], "'temperature'"),
        (["check", "nosuch"], "programs/nosuch.py does not exist"),
        (["check", "review", "--target", "7"], "'target'"),
        (["verdict", "review"], "no finished run yet"),
        (["verdict", "0123456789"], "No run '0123456789'"),
        (["compare", "review", "review~1"], "no finished run yet"),
        (["report", "review"], "no finished run yet"),
        (["handoff", "review"], "no finished run yet"),
        (["finetune", "review"], "no finished run yet"),
        (["init"], "optimize.toml exists already"),
        (["init", "--example", "nosuch"], "No example 'nosuch'. Examples: extract, kb_answer"),
        (["init", "programs/review.py"], "cannot be written"),
        (["new", "review"], "exists already"),
        (["new", "not a name"], "cannot name a task"),
        (["lm", "pull", "just-a-name"], "OWNER/REPO/FILE.gguf"),
    ],
)
def test_a_users_mistake_is_one_clear_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(project)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, (done.exit_code, done.stderr)
    error = next(line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert says in " ".join(done.stderr.split()) and error
    assert "Traceback" not in done.stderr and not done.stdout


def test_a_bad_row_is_named_before_anything_is_written(project: Path) -> None:
    path = project / "devsets" / "review" / "rows.jsonl"
    lines = path.read_text().splitlines()
    lines[16] = json.dumps({"text": "Fine.", "verdict": "pozitive"})
    path.write_text("\n".join(lines))
    done = optimize(project, "run", "review")
    assert done.returncode == 2
    assert (
        "rows.jsonl:17" in done.stderr
        and "'pozitive' is not one of 'positive', 'negative'" in done.stderr
    )
    assert not (project / "mlruns").exists()


def test_check_asks_no_lm_writes_nothing_and_ends_with_the_next_command(project: Path) -> None:
    done = optimize(project, "check", "review", "--lm", "openai/no-such-lm")
    assert done.returncode == 0, done.stderr
    assert "all fit the signature" in done.stdout and "unknown price" in done.stdout
    assert done.stdout.strip().endswith("Next: optimize run review --lm openai/no-such-lm")
    assert not (project / "mlruns").exists() and not (project / ".optimize").exists()
    path = project / "devsets" / "review" / "rows.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    first["verdict"] = "negative" if first["verdict"] == "positive" else "positive"
    with path.open("a") as file:
        fillers = [
            {
                "text": f"{chr(97 + n) * 9} {chr(122 - n) * 7}",
                "verdict": ("positive", "negative")[n % 2],
            }
            for n in range(16)
        ]
        file.write("".join(json.dumps(row) + "\n" for row in (first, *fillers)))
    found = optimize(project, "check", "review", "--json")
    assert found.returncode == 1
    assert (
        json.loads(found.stdout)["findings"][0]["what"] == "inputs labelled in contradictory ways"
    )


def test_settings_come_from_flag_then_environment_then_file(project: Path) -> None:
    (project / "optimize.toml").write_text('lm = "from-file"\n')
    assert "from-file" in optimize(project, "run", "review").stderr
    assert "from-env" in optimize(project, "run", "review", OPTIMIZE_LM="from-env").stderr
    assert (
        "from-flag"
        in optimize(project, "run", "review", "--lm", "from-flag", OPTIMIZE_LM="from-env").stderr
    )
    (project / "optimize.toml").write_text("lmm = 1\n")
    assert "'lmm'" in optimize(project, "run", "review").stderr


def test_debug_shows_the_traceback(project: Path) -> None:
    assert "Traceback" in optimize(project, "run", "nosuch", "--debug").stderr


def test_a_stopped_command_does_not_wait_for_work_in_its_queues() -> None:
    code = """
import time
from concurrent.futures import ThreadPoolExecutor
from optimize.cli.app import guarded

def work():
    pool = ThreadPoolExecutor(1)
    for _ in range(100):
        pool.submit(time.sleep, 1)
    raise KeyboardInterrupt

guarded(False, work)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 130
    assert done.stderr.startswith("Stopped.")


def enough(root: Path, *flags: str) -> int:
    wanted = "--max-calls", "10", "--waive", "a trial", "--json"  # so that the gate may open
    done = optimize(root, "check", "review", *wanted, *flags)
    assert done.returncode == 1 and json.loads(done.stdout)["low_cap"], done.stderr
    return int(json.loads(done.stdout)["cost"]["plan"]["enough"])


def test_check_prices_what_the_flags_add(project: Path) -> None:
    general = project / "devsets" / "general"
    general.mkdir()
    question = {"question": "Capital of Italy?", "check": "contains", "expected": ["Rome"]}
    (general / "rows.jsonl").write_text(json.dumps(question | {"skill": "knowledge"}) + "\n")
    (general / "replay.txt").write_text("".join(f"Say {n}.\n" for n in range(9)))
    bare, lora = enough(project), enough(project, "--finetune", "lora")
    assert enough(project, "--headroom") > bare
    assert lora > bare and enough(project, "--repeats", "3") > bare
    assert enough(project, "--finetune", "lora", "--replay", "5") == lora + 5
    wrong = optimize(project, "check", "review", "--finetune", "lora", "--lm", "openai/x")
    assert wrong.returncode == 2 and "LoRA trains an LM that runs in this process" in wrong.stderr


@pytest.mark.parametrize("where", ["programs/review.py", "./programs/review.py"])
def test_a_task_may_be_named_by_its_file(project: Path, where: str) -> None:
    done = optimize(project, "check", where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("Next: optimize run review")
    elsewhere = optimize(project, "check", "other.py")
    assert elsewhere.returncode == 2 and "other.py" in elsewhere.stderr


def test_every_example_of_a_finding_is_listed_when_it_is_asked_for(project: Path) -> None:
    path = project / "devsets" / "review" / "rows.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*rows, *rows[:5]]), encoding="utf-8")
    short, whole = (optimize(project, "check", "review", *f) for f in ((), ("--details",)))
    lines = [f"rows.jsonl:{n + 1} and" for n in range(5)]
    found = [" ".join(done.stdout.split()) for done in (short, whole)]
    # of each of its findings two: written more than once, and said alike on a side
    assert 2 <= sum(line in found[0] for line in lines) < 5 and "--details" in found[0]
    assert all(line in found[1] for line in lines)


def test_init_writes_a_project_and_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mlruns/\n*.log\n")
    (tmp_path / "programs").mkdir()
    done = optimize(tmp_path, "init", "--example", "tickets", "--example", "extract")
    assert done.returncode == 0 and done.stdout.endswith(
        ".gitignore was there already; add to it: .optimize/ .venv/\n"
        "Next:\n  optimize check tickets\n  optimize run tickets\n"
    )
    for name in ("tickets", "extract"):
        for path in (f"programs/{name}.py", f"devsets/{name}/rows.jsonl"):
            assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes()
    assert (tmp_path / ".gitignore").read_text() == "mlruns/\n*.log\n"
    more = optimize(tmp_path, "init", "--example", "kb_answer")
    assert more.returncode == 0 and (tmp_path / "devsets/kb_answer/corpus.jsonl").is_file()
    for name in ("GUIDE.md", "README.md", "rows.jsonl", "corpus.jsonl"):
        (tmp_path / "devsets/kb_answer" / name).unlink()
    (tmp_path / "programs/kb_answer.py").unlink()
    refused = optimize(tmp_path, "init", "--example", "kb_answer")
    assert refused.returncode == 2 and "devsets/kb_answer exists already" in refused.stderr
    assert not (tmp_path / "programs/kb_answer.py").exists(), "nothing is half written"


def test_init_gitignore_and_next_command(tmp_path: Path) -> None:
    done = optimize(tmp_path, "init", "shop")
    assert done.stdout.endswith(
        "Next:\n  cd shop\n  optimize new NAME     (or: optimize init --example tickets)\n"
    )
    assert (tmp_path / "shop/.gitignore").read_text() == "mlruns/\n.optimize/\n.venv/\n"
    assert (tmp_path / "shop/devsets").is_dir() and (tmp_path / "shop/programs").is_dir()


def test_a_run_becomes_a_check_by_its_name_alone() -> None:
    from optimize.cli.run import check, run

    assert inspect.signature(run).parameters.keys() <= inspect.signature(check).parameters.keys()
