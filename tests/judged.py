"""An endpoint that answers questions, and one that judges the answers, with errors; and a project
whose task `reply` is scored by the task `verdict`.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from tests.faulty_server import FAULTS
from tests.test_lm import completion

REPLY = '''"""Say the first word of the question aloud."""

import dspy

from optimize import Task


class Reply(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    reply: str = dspy.OutputField()


task = Task(signature=Reply, judge="verdict", target=0.9, max_tokens=32)
'''
VERDICT = '''"""Does the reply answer the question? Rows: what people said of replies."""

from typing import Literal

import dspy

from optimize import Task


class Verdict(dspy.Signature):
    """Does the reply answer the question?"""

    question: str = dspy.InputField()
    reply: str = dspy.InputField()
    verdict: Literal["pass", "fail"] = dspy.OutputField()


def metric(example, prediction) -> float:
    return float(example.verdict == prediction.verdict)


task = Task(signature=Verdict, metric=metric, target=0.9, max_tokens=32)
'''
SKILL, SHOWN = 40, 80  # replies of a hundred that are right, without demos and with them
QUESTION = re.compile(r"say (\w+) of (\w+) (\w+)")


def question(n: int) -> str:
    """No two of them are nearly the same."""
    letters = "bcdfghjklmnprstvwz"
    a, b, c = (
        "".join(
            letters[zlib.crc32(f"{n} {w} {i}".encode()) % 18] + "aeiou"[i % 5] for i in range(5)
        )
        for w in range(3)
    )
    return f"say {a} of {b} {c}"


def right(asked: str) -> str:
    """The reply that people pass."""
    found = QUESTION.search(asked)
    assert found
    return found[1].upper()


def chance(text: str) -> int:
    """0…99, the same for the same text."""
    return zlib.crc32(text.encode()) % 100


def endpoint(wrong: int) -> FastAPI:
    """Answers as openai/writer, and judges as openai/judge: wrongly in so many of a hundred cases.
    openai/moody often fails to judge.

    app.state.asked: the model of every call.
    """
    app = FastAPI()
    app.state.asked = []

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        asked = await request.json()
        app.state.asked.append(asked["model"])
        messages = [m["content"] for m in asked["messages"]]
        found = [m for message in messages for m in QUESTION.finditer(message)]
        if not found:
            return completion(asked["model"], "Be exact.")
        last = max((m for m in QUESTION.finditer(messages[-1])), key=lambda m: m.start())
        if asked["model"] == "moody":
            if chance(last[0]) < 15:
                return FAULTS["too long"](asked["model"], "")
            if chance(last[0]) < 30:
                return completion(asked["model"], "Hm.")
        if asked["model"] != "writer":
            passed = right(last[0]) in messages[-1]
            passed ^= chance(f"judge {last[0]} {passed}") < wrong
            return completion(asked["model"], shaped(messages, "verdict", ("fail", "pass")[passed]))
        good = chance(last[0]) < (SHOWN if len({m[0] for m in found}) > 1 else SKILL)
        return completion(
            asked["model"], shaped(messages, "reply", right(last[0]) if good else "?")
        )

    return app


def shaped(messages: list[str], field: str, value: str) -> str:
    """An answer in the format that is asked for."""
    whole = "\n".join(messages)
    if "[[ ##" in whole:
        return f"[[ ## {field} ## ]]\n{value}\n\n[[ ## completed ## ]]"
    if f"<{field}>" in whole:
        return f"<{field}>{value}</{field}>"
    return json.dumps({field: value}) if "JSON" in whole else value


def write(root: Path, judged: int = 140, every: int = 2) -> None:
    """The project, with so many replies that people have judged; every so many-th is bad."""
    rows = [{"question": question(n), "reply": right(question(n))} for n in range(80)]
    people = [
        {"question": q, "reply": "?" if bad else right(q), "verdict": ("pass", "fail")[bad]}
        for n in range(judged)
        for q, bad in [(question(1000 + n), n % every == 0)]
    ]
    for name, program, found in (("reply", REPLY, rows), ("verdict", VERDICT, people)):
        (root / "programs").mkdir(exist_ok=True)
        (root / "programs" / f"{name}.py").write_text(program, encoding="utf-8")
        folder = root / "devsets" / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in found)
        (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
