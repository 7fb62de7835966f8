"""What did the tuned LM forget?

General questions with programmatic checks, asked of base and tuned LM alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.files import read_jsonl, read_text
from optimize.lm.metered import MeteredLM
from optimize.scoring.evaluate import Progress
from optimize.stats.records import GainRecord, Record
from optimize.threads import in_threads

GENERAL = "general"  # what these questions are called where a task could stand
GENERAL_TOKENS = 64  # room for an answer to a general question
ROWS, REPLAY = "rows.jsonl", "replay.txt"
# of the train rows: so many general instructions kept what the tuning wiped out (docs/results.md)
SHARE = 0.3
OWN = Path("devsets/general")  # where a project may have files of its own in place of ours


class Question(BaseModel):
    """One question and what a right answer must hold; skill is what it asks of the LM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    check: Literal["contains", "number", "regex"]
    expected: list[str | int | float] = Field(min_length=1)
    skill: str

    @model_validator(mode="after")
    def _checkable(self) -> Question:
        """A check that could not run would be found out only after the training."""
        if self.check == "regex":
            try:
                re.compile(str(self.expected[0]))
            except re.error as error:
                raise ValueError(
                    f"{self.expected[0]!r} is not a regular expression: {error}"
                ) from None
        if self.check == "number":
            float(self.expected[0])
        return self

    def passes(self, answer: str) -> bool:
        """contains: any expected text as whole words. number: the last number. regex: a match
        anywhere.
        """
        text = answer.strip()
        if self.check == "regex":
            return bool(re.search(str(self.expected[0]), text, re.IGNORECASE | re.DOTALL))
        if self.check == "number":
            found = re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))
            return bool(found) and float(found[-1]) == float(self.expected[0])
        return any(
            re.search(rf"(?<!\w){re.escape(str(e))}(?!\w)", text, re.IGNORECASE)
            for e in self.expected
        )


class ForgettingRecord(Record):
    """The mean score of base and tuned LM on general questions, or on another task's val rows."""

    name: str
    named: bool = Field(description="whether the user said that this must not get worse")
    base: float
    tuned: float
    n: int
    drop: GainRecord = Field(description="tuned minus base, paired")
    regressed: bool = Field(description="surely worse")
    held: bool = Field(description="shown to be worse by no more than the margin")
    examples: list[str] = Field(description="of what got worse")


@dataclass(frozen=True)
class Answers:
    """A pass (1.0), a fail (0.0) or nothing (the call failed) for each question, with the answers
    themselves.
    """

    scores: tuple[float | None, ...]
    texts: tuple[str, ...]


def questions(root: Path) -> list[Question]:
    """The no-regression-on set: the project's own rows.jsonl, or the one that comes with optimize.

    Raises WorkbenchError naming the line that does not fit.
    """
    path = general_file(root, ROWS)
    found = []
    for number, row in read_jsonl(path):
        try:
            found.append(Question.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "row"
            raise WorkbenchError(
                f"{path}:{number}: not a question: {place}: {first['msg']}."
            ) from None
    if not found:
        raise WorkbenchError(f"{path} has no questions: write one a line, or delete the file.")
    return found


def replayable(root: Path) -> list[str]:
    """The general instructions that a training may rehearse, one a line: the project's own
    replay.txt, or the one that comes with optimize.

    None of the questions is among them: rehearsing what is asked afterwards would prove nothing.
    """
    asked = {q.question.strip().casefold() for q in questions(root)}
    lines = [line.strip() for line in read_text(general_file(root, REPLAY)).splitlines()]
    return [line for line in lines if line and line.casefold() not in asked]


def replays(config: RunConfig, train: int, root: Path) -> int:
    """How many of these are rehearsed beside so many train rows: as many as asked for; where the
    tuned LM must stay general, SHARE of the rows, as far as there are any.
    """
    if config.replay is not None:
        return config.replay
    # a provider trains on preferences or on answers, not on both
    alone = config.finetune == "openai" and config.method == "dpo"
    if alone or GENERAL not in config.no_regression_on:
        return 0
    return min(len(replayable(root)), round(SHARE * train))


def general_file(root: Path, name: str) -> Path:
    """ROWS or REPLAY: in the project's devsets/general/ if it has one there, else in the package.

    The package is a folder on disk (wheels are unpacked), so its files have paths.
    """
    own = root / OWN / name
    return own if own.is_file() else Path(str(files("optimize.finetune") / "general" / name))


def ask(lm: MeteredLM, asked: Sequence[Question], threads: int, progress: Progress) -> Answers:
    """Put every question to the LM as a plain user message."""

    def one(question: Question) -> tuple[float | None, str]:
        try:
            text = lm.say(question.question)
        except Exception as error:  # a failed call is missing, as in an evaluation
            return None, f"{type(error).__name__}: {error}"
        return float(question.passes(text)), text

    results = []
    for result in in_threads(one, asked, threads):
        results.append(result)
        progress(len(results), len(asked))
    return Answers(tuple(score for score, _ in results), tuple(text for _, text in results))
