"""The use case `guide`: an LM drafts the labelling guide that nobody has written, for a person to
edit.
"""

from __future__ import annotations

import random
from pathlib import Path

from optimize.climb.rungs.demos import spread
from optimize.commands.new import write_new
from optimize.commands.session import Session
from optimize.data.judging_rows import lent
from optimize.errors import WorkbenchError
from optimize.files import to_text
from optimize.lm.reach import check_reachable
from optimize.lm.room import estimated, room_of
from optimize.task import DRAFTED, GUIDE

DRAFT = "GUIDE.draft.md"  # no climb reads it: rules that nobody has checked are no rules
ROWS = 60  # that the LM is shown
ROOM = 800  # tokens of a draft
QUESTION = """People labelled these rows. The task: {task}

{rows}

Write the guide by which they must have labelled: the rules, one a line, that decide such rows, the
most important first, and how borderline cases go. Name no row."""


def draft_guide(session: Session) -> tuple[Path, int]:
    """Write a draft from train rows with one call of the teacher; its path, and how many rows were
    shown.

    Raises WorkbenchError where there is a guide or a draft, or the LM has nothing to say.
    """
    task = session.task
    if task.guide:
        raise WorkbenchError(f"{task.folder / GUIDE} is there already; nothing was asked.")
    if (path := task.folder / DRAFT).exists():
        told = f"edit it, then save it as {GUIDE}; or remove it for another draft"
        raise WorkbenchError(f"{path} is there already: {told}.")
    check_reachable(session.config)
    rows = _shown(session)
    asked = QUESTION.format(task=task.signature.instructions, rows="\n\n".join(rows))
    told = session.teacher.say(asked, max_tokens=ROOM)
    if not told:
        raise WorkbenchError(f"{session.teacher_name} gave an empty answer. Try another --teacher.")
    head = (
        f"{DRAFTED} {session.config.teacher or session.config.lm} from {len(rows)} train rows, "
        f"checked by nobody. Mend it, remove this line, save it as {GUIDE}.\n\n"
    )
    write_new({path: (head + told + "\n").encode()})
    return path, len(rows)


def _shown(session: Session) -> list[str]:
    """Train rows of every label in turn, up to ROWS and as many as a prompt has room for; none that
    judges levers.
    """
    task, (train, _) = session.task, lent(session.task, session.splits)
    texts, room = list[str](), room_of(session.teacher).tokens
    for row in spread(list(train), task, ROWS, random.Random(session.config.seed)):
        text = "\n".join(f"{name}: {to_text(row[name])}" for name in task.fields)
        if texts and sum(map(estimated, texts)) + estimated(text) > room:
            break
        texts.append(text)
    return texts
