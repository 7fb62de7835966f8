"""Are new rows, and the answers to them, of the kind that the record's are?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from optimize.commands.in_use import InUse
from optimize.data.drift import MOST, inputs_drift, words_drift
from optimize.data.inputs import input_text, input_texts
from optimize.data.rows import row_hash
from optimize.files import to_text
from optimize.report.monitor import DriftTest
from optimize.report.rows import Answers
from optimize.scoring.evaluation import Outcome
from optimize.stats.two_samples import higher, holm, shares_differ
from optimize.task import Task

LEAST = 8  # rows of a sample below which nothing is said of it
Rows = Sequence[dspy.Example]


def drift(
    found: InUse,
    rows: Rows,
    known: frozenset[tuple[str, ...]],
    answered: Sequence[tuple[dspy.Example, Outcome]],
) -> tuple[list[DriftTest], dict[str, Any]]:
    """The tests that can be made, each allowing for all, and what they have seen beside.

    known: inputs that came again, of which `rows` has none: what recurs is left out on both sides,
    or the devset would have it alone and the new rows look like another kind.
    """
    session = found.session
    task, seed = session.task, session.config.seed
    chosen = session.splits.chosen  # no random sample
    train = [e for e in session.splits.train if not chosen or row_hash(task, e) not in chosen]
    sides = session.splits.sides() | {"train": train}
    once = {
        name: [e for e in side if input_texts(task, e) not in known] for name, side in sides.items()
    }
    learnt = [input_text(task, e) for name in ("train", "val") for e in sides[name]]
    held = [input_text(task, e) for e in once["test"]]
    texts = [input_text(task, e) for e in rows]
    others = [input_text(task, e) for side in once.values() for e in side]
    tests, seen = list[dict[str, Any]](), dict[str, Any]()
    if len(others) >= LEAST:  # all of them may have come again
        inputs = inputs_drift(others, texts, seed)
        tests += [
            {"kind": "inputs", "n": min(len(texts), MOST), "after": inputs.auc, "p": inputs.p}
        ]
        seen["auc_shown"] = inputs.visible
    if len(held) >= LEAST:
        words = words_drift(learnt, held, texts, seed)
        means = {"before": words.known, "after": words.new}
        tests += [{"kind": "unknown words", "n": len(texts), "p": words.p, **means}]
        seen["words"] = list(words.words)
    shares: dict[str, tuple[float, float]] = {}
    # what another LM answers, and how sure it is, says nothing of the rows
    if session.config.lm == found.lm and (kept := found.answered()):
        given = [o for _, o in answered if o.score is not None]
        hashes = {row_hash(task, e) for e in once["test"]}
        before = [n for n, row in enumerate(kept[0]) if row in hashes]
        shares, more = _answers(task, kept[1], before, given, seed)
        tests += more
    adjusted = holm([test["p"] for test in tests])
    found_all = [DriftTest(**t, p_all=p) for t, p in zip(tests, adjusted, strict=True)]
    return found_all, {**seen, "shares": shares}


def _answers(
    task: Task, kept: Answers, rows: Sequence[int], given: Sequence[Outcome], seed: int
) -> tuple[dict[str, tuple[float, float]], list[dict[str, Any]]]:
    """The answers' mix, where they are labels, and how sure the LM was, where it told. rows: those
    of the answers kept that are compared.
    """
    there = [n for n in rows if kept.scores[n] is not None]
    sure = [c for n in there if (c := kept.confidence[n]) is not None]
    surely = [o.confidence for o in given if o.confidence is not None]
    shares, tests = dict[str, tuple[float, float]](), list[dict[str, Any]]()
    if task.label and min(len(there), len(given)) >= LEAST:
        before = [kept.fields[task.label][n] for n in there]
        now = [to_text(o.answer.get(task.label, "")) for o in given]
        shares = {
            label: (before.count(label) / len(before), now.count(label) / len(now))
            for label in sorted({*before, *now})
        }
        tests += [{"kind": "answers", "n": len(now), "p": shares_differ(before, now, seed)}]
    if min(len(sure), len(surely)) >= LEAST:
        means = {"before": sum(sure) / len(sure), "after": sum(surely) / len(surely)}
        p = higher([-c for c in sure], [-c for c in surely], seed)
        tests += [{"kind": "confidence", "n": len(surely), "p": p, **means}]
    return shares, tests
