"""How many calls the caps of a run allow, and what a call takes, before one is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from optimize import lm as lms
from optimize.climb.rungs.demos import FEW, MANY, SOME
from optimize.climb.rungs.passages import SIZES
from optimize.config import RunConfig, flag
from optimize.data.rows import Splits
from optimize.files import to_json, to_text
from optimize.lm.room import CHARS_A_TOKEN, THOUGHT
from optimize.program.program import prompts, student
from optimize.program.retrieval import read_corpus
from optimize.task import Task

SAMPLE = 20  # val rows whose prompts are told by their letters
AROUND = 8  # tokens around an answer's values


@dataclass(frozen=True)
class Allowed:
    """calls: that the caps allow; knob: the cap that allows no more. each: what a call takes of
    every cap that is given.
    """

    calls: int
    knob: str
    each: dict[str, float]

    def for_calls(self, calls: int, config: RunConfig) -> str:
        """The caps that are too low for so many calls, as flags that allow them."""
        needed = {knob: took * calls for knob, took in self.each.items()}
        low = {knob: n for knob, n in needed.items() if n > getattr(config, knob)}
        return " ".join(
            flag(knob, calls if knob == "max_calls" else _round(n)) for knob, n in low.items()
        )


def allowed(
    task: Task, splits: Splits, config: RunConfig, per_minute: float | None = None
) -> Allowed:
    """per_minute: LM calls, where that is known; else a cap on minutes is taken to allow all."""
    read, wrote = _usual_prompt(task, splits, config), _usual_answer(task, splits, config)
    price = _price(task, config)
    each = {"max_calls": 1.0, "max_tokens": read + wrote}
    if price:
        each["budget_usd"] = read * price[0] + wrote * price[1]
    if per_minute:
        each["max_minutes"] = 1 / per_minute
    each = {knob: took for knob, took in each.items() if took and getattr(config, knob) is not None}
    calls = {knob: int(getattr(config, knob) / took) for knob, took in each.items()}
    knob = min(calls, key=lambda name: calls[name])
    return Allowed(calls[knob], knob, each)


def _round(n: float) -> float:
    """Upwards, to a number that a person would give."""
    digits = 1 - math.floor(math.log10(n))  # two of them tell enough
    found = math.ceil(n * 10.0**digits) / 10.0**digits
    return int(found) if digits <= 0 else found


def _usual_prompt(task: Task, splits: Splits, config: RunConfig) -> float:
    """Tokens of a prompt in a climb, on average: with the guide, and with as many demos as looked
    up and drawn ones are in the middle.
    """
    program = student(task)
    asked = [prompt for row in splits.val[:SAMPLE] for prompt in prompts(program, row)]
    shown = SOME * fmean(sum(len(to_text(r[f])) for f in task.fields) for r in splits.train)
    whole = (fmean(map(len, asked)) + len(task.guide) + shown) / CHARS_A_TOKEN
    return min(whole, lms.prompt_tokens(config, task.max_tokens))


def _usual_answer(task: Task, splits: Splits, config: RunConfig) -> float:
    """Tokens of an answer as rows have it, with thoughts where the LM has them."""
    names = list(task.signature.output_fields)
    thinks = any(lms.thinks(*lm) for lm in config.lms)
    answer = fmean(len(to_json({n: e[n] for n in names})) for e in splits.val[:SAMPLE])
    return answer / CHARS_A_TOKEN + AROUND * len(names) + THOUGHT * thinks


def _price(task: Task, config: RunConfig) -> tuple[float, float] | None:
    """US dollars a token in and out, of task LM and judge in equal parts; None: not known."""
    asked = ((config.lm, config.api_base), *judges(task, config))
    found = [lms.price(*lm) for lm in asked]
    known = [price for price in found if price]
    if len(known) < len(found):
        return None
    return fmean(into for into, _ in known), fmean(out for _, out in known)


def judges(task: Task, config: RunConfig) -> list[tuple[str, str | None]]:
    """The LM that judges the task's answers, by name and address; none where a metric does."""
    judge = config.judge_lm if task.judge else None
    return [(judge, config.judge_api_base)] if judge else []


def longest_prompt(task: Task, splits: Splits, config: RunConfig) -> int:
    """Tokens of a prompt with the guide, and as many demos as a rung may draw, or a few that show
    their passages; or as many as the LM has room for.
    """
    program = student(task)
    bare = max(len(prompt) for row in splits.val[:SAMPLE] for prompt in prompts(program, row))
    rows = sorted(sum(len(to_text(row[name])) for name in task.fields) for row in splits.train)
    shown = sum(rows[-MANY:])
    if task.corpus:
        longest = max(map(len, read_corpus(task.corpus).values()), default=0)
        shown = max(shown, sum(rows[-FEW:]) + SIZES[-1] * (1 + FEW) * longest)
    whole = bare + len(task.guide) + shown
    return min(whole // CHARS_A_TOKEN, lms.prompt_tokens(config, task.max_tokens))
