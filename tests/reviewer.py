"""An endpoint that judges the reviews of `optimize new`: half of them right without demos, most of
them with demos, one never in a form that can be parsed.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI, Request
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.new import NEGATIVE, POSITIVE
from tests.test_lm import completion, served

SKILL, SHOWN = 45, 85  # rows of a hundred that it gets right, without demos and with them
UNREADABLE = POSITIVE[18]  # a val row that it answers with something else than a verdict


def reviewer() -> FastAPI:
    server = FastAPI()

    @server.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        asked = await request.json()
        return completion(asked["model"], _answer([m["content"] for m in asked["messages"]]))

    return server


def _answer(messages: list[str]) -> str:
    last, whole = messages[-1], "\n".join(messages)
    known = [review for review in (*POSITIVE, *NEGATIVE) if review in last]
    review = max(known, key=last.rfind, default="")
    if review == UNREADABLE:
        return "Hm."
    demos = sum(other in whole for other in (*POSITIVE, *NEGATIVE)) > 1
    right = zlib.crc32(review.encode()) % 100 < (SHOWN if demos else SKILL)
    verdict = "positive" if (review in POSITIVE) == right else "negative"
    if "[[ ##" in whole:
        return f"[[ ## verdict ## ]]\n{verdict}\n\n[[ ## completed ## ]]"
    if "<verdict>" in whole:
        return f"<verdict>{verdict}</verdict>"
    return json.dumps({"verdict": verdict}) if "JSON" in whole else verdict


def run_twice(root: Path) -> None:
    """`optimize run review`, with few calls and with some more: a prompt that helps is found, and
    the calls end before the levers do.
    """
    with pytest.MonkeyPatch.context() as patch, served(reviewer()) as url:
        patch.chdir(root)
        patch.setattr(dspy, "cache", dspy.cache)  # the command's own does not outlive it
        for calls in ("64", "150"):
            flags = ["--lm", "openai/reviewer", "--api-base", f"{url}/v1", "--finetune", "never"]
            done = CliRunner().invoke(app, ["run", "review", *flags, "--max-calls", calls])
            assert done.exit_code == 1, done.stderr
