"""The hand-off's upload commands, run as they are in its README against a server that checks what
the providers' documentation asks for; and its rows by the rules that each of them documents.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from optimize.data.rows import load_splits
from optimize.finetune.handoff.bundle import write_bundle
from optimize.program.program import student
from optimize.task import Task
from tests.test_handoff import FACTS, lines
from tests.test_lm import served

Row = dict[str, Any]
KEY = "secret-of-nobody"


def roles(row: Row) -> list[str]:
    assert all(isinstance(m["content"], str) and m["content"] for m in row["messages"])
    return [m["role"] for m in row["messages"]]


def together(rows: list[Row]) -> None:
    """docs.together.ai/docs/fine-tuning/data-preparation: one format a file, the conversation
    starts with system or user and alternates from there.
    """
    for row in rows:
        assert set(row) == {"messages"}
        system, *turns = roles(row)
        turns = turns if system == "system" else [system, *turns]
        assert turns == ["user", "assistant"] * (len(turns) // 2) and turns


def fireworks(rows: list[Row]) -> None:
    """docs.fireworks.ai/fine-tuning/fine-tuning-models: at least 3 examples; role, content and
    weight alone in a message; system first, if at all.
    """
    assert 3 <= len(rows) <= 3_000_000
    for row in rows:
        assert all(set(m) <= {"role", "content", "weight"} for m in row["messages"])
        assert set(roles(row)) <= {"system", "user", "assistant"}
        assert "system" not in roles(row)[1:]


def nebius(rows: list[Row]) -> None:
    """docs.tokenfactory.nebius.com/post-training/datasets: the last message is the assistant's."""
    assert all(roles(row)[-1] == "assistant" for row in rows)


@pytest.fixture
def folder(tiny: Callable[..., Task], mood_rows: list[Row], tmp_path: Path) -> Path:
    task = tiny(rows=mood_rows)
    write_bundle(tmp_path / "out", student(task), load_splits(task), FACTS)
    return tmp_path / "out"


@pytest.mark.parametrize("rules", [together, fireworks, nebius])
def test_rows_are_as_the_provider_documents_them(
    folder: Path, rules: Callable[[list[Row]], None]
) -> None:
    for side in ("train", "val"):
        rules(lines(folder / "chat" / f"{side}.jsonl"))


def uploaded(request: Request, body: bytes) -> tuple[list[Row], str]:
    """The rows of a multipart form's file, and what else the form says."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts = [p for p in message_from_bytes(head + body).walk() if not p.is_multipart()]
    (file,) = [p.get_payload(decode=True) for p in parts if p.get_filename()]
    rest = b" ".join(p.get_payload(decode=True) for p in parts if not p.get_filename())
    return [json.loads(line) for line in file.decode().splitlines()], rest.decode()


class Providers:
    """Fireworks' and Nebius' endpoints, as far as the commands use them."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.sets: dict[str, Row] = {}
        self.files: dict[str, list[Row]] = {}
        self.jobs: list[Row] = []
        self.app.api_route("/{path:path}", methods=["POST"])(self.answer)

    async def answer(self, path: str, request: Request) -> Any:
        if request.headers["authorization"] != f"Bearer {KEY}":
            return JSONResponse({"error": "no such key"}, 401)
        if path.endswith("/datasets"):
            body = await request.json()
            assert re.fullmatch(r"[a-z0-9-]+", body["datasetId"])
            assert body["dataset"]["userUploaded"] == {} and body["dataset"]["format"] == "CHAT"
            self.sets[body["datasetId"]] = body["dataset"]
            return {"name": body["datasetId"]}
        if path.endswith(":upload"):
            name = path.removesuffix(":upload").rsplit("/", 1)[1]
            self.files[name], _ = uploaded(request, await request.body())
            assert self.sets[name]["exampleCount"] == str(len(self.files[name]))
            fireworks(self.files[name])
            return {}
        if path == "v1/files":
            rows, rest = uploaded(request, await request.body())
            assert rest == "fine-tune"
            nebius(rows)
            self.files[f"file-{len(self.files)}"] = rows
            return {"id": f"file-{len(self.files) - 1}", "object": "file"}
        self.jobs.append(await request.json() | {"path": path})
        return {"id": "ftjob-1"}


@pytest.fixture
def providers() -> Iterator[tuple[Providers, str]]:
    made = Providers()
    with served(made.app) as url:
        yield made, url


def block(folder: Path, starts: str) -> str:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert KEY not in text and not re.search(r"USD|€|\$\d+[.,]\d", text), "no key, no price"
    return re.search(rf"^{starts}.*?\n```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]  # type: ignore[index]


def run(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    return subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=clean | env, capture_output=True, text=True
    )


def test_the_commands_for_fireworks(folder: Path, providers: tuple[Providers, str]) -> None:
    there, url = providers
    script = block(folder, "Fireworks AI").replace("https://api.fireworks.ai", url)
    env = {"FIREWORKS_ACCOUNT": "us", "BASE": "accounts/fireworks/models/b"}
    unset = run(script, folder, **env)
    assert unset.returncode and "FIREWORKS_API_KEY" in unset.stderr and not there.sets
    done = run(script, folder, FIREWORKS_API_KEY=KEY, **env)
    assert done.returncode == 0, done.stderr
    train = lines(folder / "chat" / "train.jsonl")
    assert there.files == {"tiny-train": train, "tiny-val": lines(folder / "chat" / "val.jsonl")}
    assert there.jobs == [
        {
            "dataset": "accounts/us/datasets/tiny-train",
            "evaluationDataset": "accounts/us/datasets/tiny-val",
            "baseModel": "accounts/fireworks/models/b",
            "outputModel": "accounts/us/models/tiny",
            "epochs": 4,
            "loraRank": 16,
            "path": "v1/accounts/us/supervisedFineTuningJobs",
        }
    ]


def test_the_commands_for_nebius(folder: Path, providers: tuple[Providers, str]) -> None:
    there, url = providers
    script = block(folder, "Nebius").replace("https://api.tokenfactory.nebius.com", url)
    done = run(script, folder, NEBIUS_API_KEY=KEY, BASE="meta/b")
    assert done.returncode == 0, done.stderr
    (job,) = there.jobs
    assert (job["path"], job["model"]) == ("v1/fine_tuning/jobs", "meta/b")
    assert there.files[job["training_file"]] == lines(folder / "chat" / "train.jsonl")
    assert there.files[job["validation_file"]] == lines(folder / "chat" / "val.jsonl")
    assert job["hyperparameters"] == {"n_epochs": 4, "lora": True, "lora_r": 16, "lora_alpha": 32}


def test_the_command_for_together(folder: Path, tmp_path: Path) -> None:
    """Its own client does the upload: here one that writes down what it is asked, with the flags of
    together 3.1.1.
    """
    tg = tmp_path / "bin" / "tg"
    tg.parent.mkdir()
    tg.write_text('#!/bin/sh\necho "$@"\n')
    tg.chmod(0o755)
    script = block(folder, "Together AI")
    done = run(script, folder, BASE="meta/b", PATH=f"{tg.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("fine-tuning", "create", "--training-file", "chat/train.jsonl"),
        *("--validation-file", "chat/val.jsonl", "--n-evals", "4", "--model", "meta/b"),
        *("--lora", "--n-epochs", "4", "--suffix", "tiny"),
    ]
    assert all((folder / word).is_file() for word in done.stdout.split() if "jsonl" in word)
