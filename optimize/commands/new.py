"""A new task from nothing: one program file and one folder of rows that run as they are."""

from __future__ import annotations

import json
import keyword
from collections.abc import Iterable, Mapping
from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.task import LONGEST_NAME, named_well

PROGRAM = '''"""Is a product review positive or negative? Replace this with your task."""

from typing import Literal

import dspy

from optimize import Score, Task


class Review(dspy.Signature):
    """Judge the review."""

    text: str = dspy.InputField()
    verdict: Literal["positive", "negative"] = dspy.OutputField()


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    if prediction.verdict == example.verdict:
        return Score(1.0)
    return Score(0.0, f"The right verdict is {example.verdict!r}.")


task = Task(signature=Review, metric=metric, target=0.9, max_tokens=32)
'''
POSITIVE = (
    "Works on the first try and has not let me down since.",
    "My daughter uses it every single day, money well spent.",
    "Quiet, quick and it looks good on the shelf.",
    "Better than the one I paid twice as much for.",
    "The battery lasts a whole week, I am impressed.",
    "Setup took two minutes and the manual is clear.",
    "Feels solid, and support answered within the hour.",
    "Exactly what the pictures promised, would buy again.",
    "Even my grumpy neighbour asked where I got it.",
    "The colours are lovely and it washes well.",
    "A small thing that makes mornings easier.",
    "Came a day early and fits perfectly.",
    "I was sceptical, but it really does save time.",
    "Three years old now and still like new.",
    "Light enough to carry up four flights of stairs.",
    "Great sound for such a little box.",
    "It just works, which is all I wanted.",
    "The best gift I have given in years.",
    "Sturdy wheels, smooth ride, happy customer.",
    "I bought a second one for my parents.",
    "Keeps coffee hot until lunch, brilliant.",
    "Soft, warm and true to size.",
    "The update fixed the only thing I disliked.",
    "Charges fast and never gets hot.",
)
NEGATIVE = (
    "Broke after four days, and now nobody answers my mails.",
    "The zip came off in my hand the first morning.",
    "Smells of chemicals even after three washes.",
    "Half the size it looks in the pictures.",
    "It stops working whenever the phone is in another room.",
    "The instructions are a bad joke and so is the hinge.",
    "I would give it zero stars if I could.",
    "Loud as a tractor and just as elegant.",
    "Paid for express and waited two weeks.",
    "The handle wobbles and the lid does not close.",
    "Battery is dead by noon every day.",
    "Scratched on arrival, and returning it costs extra.",
    "My old one from the flea market was better.",
    "The app wants an account just to switch on a lamp.",
    "Leaks from the bottom, ruined a table.",
    "Colour faded after one week in the sun.",
    "Do not believe the reviews, it is flimsy plastic.",
    "It burned the toast and then itself.",
    "Wrong plug, no adapter, no reply.",
    "The seat is so hard that nobody uses it.",
    "Shrank two sizes in a cold wash.",
    "The remote works when it feels like it.",
    "Assembled it twice, still leans to the left.",
    "A waste of money and of cardboard.",
)


def write_task(root: Path, name: str) -> list[Path]:
    """Write programs/NAME.py and devsets/NAME/{rows.jsonl, README.md}; raises WorkbenchError rather
    than overwrite.
    """
    if not named_well(name) or keyword.iskeyword(name) or name.startswith("_"):
        raise WorkbenchError(
            f"{name!r} cannot name a task: use up to {LONGEST_NAME} letters, digits and "
            "underscores, such as 'refund_reason'."
        )
    program, folder = root / "programs" / f"{name}.py", root / "devsets" / name
    rows = [
        {"text": t, "verdict": v}
        for pair in zip(POSITIVE, NEGATIVE, strict=True)
        for t, v in zip(pair, ("positive", "negative"), strict=True)
    ]
    origin = f"# {name}\n\nOrigin and licence of the rows, and how they were labelled.\n"
    contents = {
        program: PROGRAM,
        folder / "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        folder / "README.md": origin,
    }
    return write_new({path: text.encode() for path, text in contents.items()}, [folder])


def write_new(contents: Mapping[Path, bytes], folders: Iterable[Path] = ()) -> list[Path]:
    """Write files, all or none of them. Gives their paths.

    folders: that must not exist either. Raises WorkbenchError, naming what is there already or
    cannot be written.
    """
    for path in (*contents, *folders):
        if path.exists():
            raise WorkbenchError(f"{path} exists already; choose another name or remove it.")
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise WorkbenchError(f"{path} cannot be written: {error.strerror}.") from None
    return list(contents)
