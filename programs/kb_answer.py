"""Answer a customer from the knowledge base, citing article ids.

Knowledge is missing, so retrieval is the lever.
"""

import json
import re
from functools import cache
from pathlib import Path

import dspy

from optimize import Score, Task

DISPUTE = "I have passed this to our billing team, who will reply within one working day."
FORM = rf'^({DISPUTE[:-1]}[.]|\[KB-[0-9]{{4}}\] [^"\\\[\]\n]{{20,120}})$'
CORPUS = Path(__file__).parents[1] / "devsets" / "kb_answer" / "corpus.jsonl"


class Reply(dspy.Signature):
    # a backslash joins lines: the prompt has one line break, not one for each line here
    """Answer the customer in one short sentence behind the id of the knowledge-base article, \
like [KB-0000].
    To a billing dispute reply only: I have passed this to our billing team, who will reply \
within one working day."""

    message: str = dspy.InputField()
    reply: str = dspy.OutputField(pattern=FORM)


@cache
def known_ids() -> frozenset[str]:
    return frozenset(
        json.loads(line)["id"] for line in CORPUS.read_text(encoding="utf-8").split("\n") if line
    )


def cited(reply: str) -> set[str]:
    return set(re.findall(r"KB-\d+", reply))


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    """F1 of the cited ids; nothing for an invented id, for ids without an answer, or for arguing a
    dispute.
    """
    gold, found = cited(example.reply), cited(prediction.reply)
    if not gold:
        right = DISPUTE in prediction.reply and not found
        return Score(float(right), "" if right else f"A billing dispute: reply only {DISPUTE!r}")
    if invented := found - known_ids():
        return Score(0.0, f"No such article: {sorted(invented)}. Cite {sorted(gold)}.")
    if len(re.sub(r"\[?KB-\d+\]?", "", prediction.reply).split()) < 4:
        return Score(0.0, "Ids alone are no answer: say what the article says.")
    value = 2 * len(gold & found) / (len(gold) + len(found))
    return Score(
        value, "" if value == 1 else f"Cite {sorted(gold)}, not {sorted(found) or 'nothing'}."
    )


task = Task(signature=Reply, metric=metric, target=0.7, max_tokens=80)
