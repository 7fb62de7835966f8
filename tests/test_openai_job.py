"""Provider jobs against a server that speaks the API: the whole way, a failure at every step, a
crash at every step.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from optimize.climb.observer import Observer
from optimize.commands.run import run
from optimize.commands.session import open_session
from optimize.config import RunConfig
from optimize.errors import JobLeft, WorkbenchError
from optimize.finetune import openai_job
from optimize.finetune.job import TrainingJob
from optimize.finetune.openai_job import Job, check_config, train
from tests.test_climb import COLOURS
from tests.test_fallback import PROGRAM
from tests.test_lm import completion, served

Row = dict[str, Any]
BASE = "painter-2026"


def coloured(thing: str, tuned: bool) -> str:
    """What the LM says: the colour that the length gives away. The base model sees it where the
    length is a multiple of four, else it says red.
    """
    return COLOURS[len(thing) % 3] if tuned or len(thing) % 4 == 0 else "red"


class Provider:
    """Files, jobs and models in memory.

    fail: path → (status, message) that it answers instead, so many times.
    """

    def __init__(self) -> None:
        self.app = FastAPI()
        self.files: dict[str, list[Row]] = {}
        self.jobs: list[Row] = []
        self.fail: dict[str, list[tuple[int, str]]] = {}
        self.ends = "succeeded"
        self.looks = 0
        self.shutdown_date: str | None = None
        route = self.app.api_route("/v1/{path:path}", methods=["GET", "POST"])
        route(self.answer)

    async def answer(self, path: str, request: Request) -> Any:
        if self.fail.get(path):
            status, message = self.fail[path].pop()
            return JSONResponse(
                {"error": {"message": message, "type": "x", "code": "x"}}, status_code=status
            )
        if path == "files":
            head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
            (text,) = [
                p.get_payload(decode=True)
                for p in message_from_bytes(head + await request.body()).walk()
                if p.get_filename()
            ]
            name = f"file-{len(self.files)}"
            self.files[name] = [json.loads(line) for line in text.decode().splitlines()]
            return {
                "id": name,
                "object": "file",
                "bytes": 1,
                "created_at": 0,
                "filename": "x",
                "purpose": "fine-tune",
                "status": "processed",
            }
        if path == f"models/{BASE}":
            return {
                "id": BASE,
                "object": "model",
                "created": 0,
                "owned_by": "x",
                "shutdown_date": self.shutdown_date,
            }
        if path == "fine_tuning/jobs" and request.method == "POST":
            body = await request.json()
            self.jobs.append(body | {"id": f"ftjob-{len(self.jobs)}", "status": "validating_files"})
            return self.job(self.jobs[-1])
        if path == "fine_tuning/jobs":
            return {"object": "list", "data": [self.job(j) for j in self.jobs], "has_more": False}
        if path.startswith("fine_tuning/jobs/"):
            return self.one(*path.split("/")[2:])
        if path == "chat/completions":
            return self.chat(await request.json())
        return JSONResponse({"error": {"message": f"no {path}"}}, status_code=404)

    def one(self, name: str, what: str = "") -> Any:
        job = next(j for j in self.jobs if j["id"] == name)
        if what == "cancel":
            job["status"] = "cancelled"
        elif what == "events":
            self.looks += 1
            event = {
                "id": "e",
                "object": "fine_tuning.job.event",
                "created_at": 0,
                "level": "info",
                "message": f"look {self.looks}",
            }
            return {"object": "list", "data": [event], "has_more": False}
        elif job["status"] not in ("cancelled", self.ends):
            job["status"] = {"validating_files": "running"}.get(job["status"], self.ends)
        return self.job(job)

    def job(self, job: Row) -> Row:
        done = job["status"] == "succeeded"
        error = (
            {"code": "x", "message": "loss went to the moon", "param": None}
            if job["status"] == "failed"
            else None
        )
        facts = {
            "object": "fine_tuning.job",
            "created_at": 0,
            "organization_id": "o",
            "result_files": [],
            "hyperparameters": {},
            "seed": 0,
        }
        return (
            facts
            | job
            | {
                "fine_tuned_model": f"ft:{BASE}:1" if done else None,
                "error": error,
                "trained_tokens": None,
                "finished_at": None,
            }
        )

    def chat(self, body: Row) -> Row:
        """The tuned model knows that the length gives the colour away."""
        asked = body["messages"][-1]["content"]
        thing = asked.split("## thing ## ]]\n")[-1].split("\n")[0]
        colour = coloured(thing, body["model"].startswith("ft:"))
        schema = json.dumps(body.get("response_format") or {})
        text = f"[[ ## colour ## ]]\n{colour}" if "## thing" in asked else colour
        text = (
            json.dumps({"colour": colour})
            if '"properties"' in schema
            else json.dumps(colour)
            if '"enum"' in schema
            else text
        )
        return completion(body["model"], text)


@pytest.fixture
def provider() -> Iterator[tuple[Provider, str]]:
    made = Provider()
    with served(made.app) as url:
        yield made, url + "/v1"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_job, "FIRST_POLL", 0.01)


ROWS = [
    {"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "é"}]}
    for n in range(3)
]


TRAIN = """
import json, os, signal, sys
from pathlib import Path
from optimize.config import RunConfig
from optimize.finetune.job import TrainingJob
from optimize.finetune.openai_job import train

rows, base, out, url = json.loads(sys.argv[1]), *sys.argv[2:]
config = RunConfig(lm=f"openai/{base}", api_base=url, api_key="k")
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
train(TrainingJob(rows, rows[:1], base, Path(out), config, kill))
"""


def ask(
    url: str, out: Path, progress: Callable[[int, int, str], None] = lambda *_: None, **knobs: Any
) -> str:
    config = RunConfig(lm=f"openai/{BASE}", api_base=url, api_key="k", **knobs)
    return train(TrainingJob(ROWS, ROWS[:1], BASE, out, config, progress))


def test_the_whole_way_and_nothing_twice(provider: tuple[Provider, str], tmp_path: Path) -> None:
    there, url = provider
    notes: list[str] = []
    assert (
        ask(url, tmp_path, lambda done, total, note: notes.append(note), seed=3, epochs=2)
        == f"ft:{BASE}:1"
    )
    assert there.files == {"file-0": ROWS, "file-1": ROWS[:1]}
    (job,) = there.jobs
    assert (
        job["model"],
        job["training_file"],
        job["validation_file"],
        job["seed"],
        job["suffix"],
    ) == (
        BASE,
        "file-0",
        "file-1",
        3,
        "optimize",
    )
    assert job["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2}},
    }
    assert "running. look 1" in notes[0] and "succeeded" in notes[-1]
    (record,) = tmp_path.iterdir()
    assert (
        Job.model_validate_json(record.read_text()).tuned == f"ft:{BASE}:1"
        and "k" not in record.read_text().split("painter")[0]
    )
    looks = there.looks
    assert ask(url, tmp_path, seed=3, epochs=2) == f"ft:{BASE}:1" and (
        len(there.jobs),
        len(there.files),
        there.looks,
    ) == (1, 2, looks)
    ask(url, tmp_path, seed=4, epochs=2)
    assert len(there.jobs) == 2, "another recipe is another job"


def test_preferences_go_in_the_providers_own_form(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    there, url = provider
    said = [{"role": role, "content": role} for role in ("user", "assistant")]
    pair = {"prompt": said[:1], "chosen": said[1:], "rejected": [said[1] | {"content": "no"}]}
    config = RunConfig(lm=f"openai/{BASE}", api_base=url, api_key="k", method="dpo")
    made = train(TrainingJob([pair], ROWS[:1], BASE, tmp_path, config, lambda *_: None))
    assert made == f"ft:{BASE}:1"
    theirs = {
        "input": {"messages": pair["prompt"]},
        "preferred_output": pair["chosen"],
        "non_preferred_output": pair["rejected"],
    }
    assert (
        there.files == {"file-0": [theirs]}
        and there.jobs[0]["method"]["type"] == "dpo"
        and "validation_file" not in there.jobs[0]
    )
    with pytest.raises(WorkbenchError, match="--replay"):
        check_config(config.model_copy(update={"replay": 5}))


@pytest.mark.parametrize("lost", [(), ("id",), ("id", "val_file")])
def test_after_a_crash_the_same_job_goes_on(
    provider: tuple[Provider, str], tmp_path: Path, lost: tuple[str, ...]
) -> None:
    """The process is killed while it polls; or before it wrote down the job, or the second file."""
    there, url = provider
    died = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(ROWS), BASE, str(tmp_path), url],
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    (record,) = tmp_path.iterdir()
    known = Job.model_validate_json(record.read_text())
    assert known.id == "ftjob-0" and known.tuned is None, "on record before the first look"
    record.write_text(known.model_copy(update=dict.fromkeys(lost)).model_dump_json())
    assert ask(url, tmp_path) == f"ft:{BASE}:1"
    assert len(there.jobs) == 1, "nothing is paid twice"


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("files", 401, "refuses the key"),
        ("files", 400, "400: no such format"),
        (f"models/{BASE}", 404, "knows no model"),
        ("fine_tuning/jobs", 403, "ends it for all on 2027-01-06"),
        ("fine_tuning/jobs/ftjob-0", 404, "404: no such format. The same command goes on"),
    ],
)
def test_a_refusal_at_any_step_is_a_sentence_and_the_next_try_goes_on(
    provider: tuple[Provider, str], tmp_path: Path, path: str, status: int, told: str
) -> None:
    there, url = provider
    there.fail[path] = [(status, "no such format")]
    with pytest.raises(WorkbenchError, match=told):
        ask(url, tmp_path)
    assert ask(url, tmp_path) == f"ft:{BASE}:1"
    assert len(there.jobs) == 1 and len(there.files) == 2


def test_a_busy_provider_is_asked_again(provider: tuple[Provider, str], tmp_path: Path) -> None:
    there, url = provider
    there.fail |= {"files": [(500, "busy")], "fine_tuning/jobs/ftjob-0": [(429, "slowly")]}
    assert ask(url, tmp_path) == f"ft:{BASE}:1"


def test_a_failed_job_is_told_and_the_next_try_is_a_new_one(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    there, url = provider
    there.ends = "failed"
    with pytest.raises(WorkbenchError, match="ftjob-0 has failed: loss went to the moon"):
        ask(url, tmp_path)
    there.ends = "succeeded"
    assert ask(url, tmp_path) == f"ft:{BASE}:1" and [j["id"] for j in there.jobs] == [
        "ftjob-0",
        "ftjob-1",
    ]
    assert len(there.files) == 2


def test_a_retired_base_is_told_with_its_day_before_anything_is_uploaded(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    there, url = provider
    there.shutdown_date = "2026-01-14"
    with pytest.raises(WorkbenchError, match="retired 'painter-2026' on 2026-01-14"):
        ask(url, tmp_path)
    assert not there.files
    there.shutdown_date = "2099-01-14"
    assert ask(url, tmp_path)


def test_ctrl_c_leaves_the_job_and_can_cancel_it(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    there, url = provider

    def pressed(done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(JobLeft) as left:
        ask(url, tmp_path, pressed)
    assert left.value.job == "ftjob-0" and there.jobs[0]["status"] == "running"
    left.value.cancel()
    assert there.jobs[0]["status"] == "cancelled"


def test_a_provider_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_job, "RETRIES", 0)
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        ask("http://127.0.0.1:9/v1", tmp_path)


def test_what_could_not_be_trained_is_refused_before_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(WorkbenchError, match="trains a hosted LM"):
        check_config(RunConfig(lm="embedded", api_key="k"))
    with pytest.raises(WorkbenchError, match="needs a key"):
        check_config(RunConfig(lm="openai/gpt-4.1-mini"))
    check_config(RunConfig(lm="openai/gpt-4.1-mini", api_key="k"))


def write_project(root: Path) -> None:
    """A task whose colours hang on the length of the text, and four general questions."""
    rng = random.Random(1)
    things = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=rng.randint(12, 24))).strip()
        for _ in range(240)
    ]
    rows = [{"thing": thing, "colour": COLOURS[len(thing) % 3]} for thing in things]
    questions = [
        {"question": f"What is {n} + {n}?", "check": "number", "expected": [2 * n], "skill": "sums"}
        for n in range(1, 5)
    ]
    (root / "programs").mkdir()
    (root / "programs" / "paint.py").write_text(PROGRAM)
    for name, lines in (("paint", rows), ("general", questions)):
        (root / "devsets" / name).mkdir(parents=True)
        (root / "devsets" / name / "rows.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )


def test_from_a_plateau_to_the_accepted_tuned_model(
    provider: tuple[Provider, str], tmp_path: Path
) -> None:
    """Which colour it is hangs on the length of the text: prompts do not teach that, the tuned
    model knows it.
    """
    there, url = provider
    write_project(tmp_path)
    config = RunConfig(lm=f"openai/{BASE}", api_base=url, api_key="k", finetune="openai")
    report = run(open_session(tmp_path, "paint", config, Observer()))
    assert (report.verdict, report.gate.open) == ("plateau", True), report.gate.reasons
    assert len(there.jobs) == 1 and report.decision and report.decision.accepted, report.decision
    assert (
        report.test.tuned
        and report.test.tuned.score == 1.0
        and report.target_met
        and report.cost_usd is None
    )
    saved = json.loads((tmp_path / report.program).read_text())
    assert saved["tuned"] == f"ft:{BASE}:1"
    (levers,) = [a for a in report.attempts if a.rung == "openai, levers"]
    assert levers.skipped == "the tuned LM is right on every val row"
