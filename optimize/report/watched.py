"""What newly collected rows say of a program in use, as tables and sentences. Knows no screen."""

from __future__ import annotations

from datetime import date

from optimize.climb.holding import ALARM
from optimize.report.monitor import DriftTest, MonitorRecord
from optimize.report.retired import retirement_sentence
from optimize.report.sections import Section
from optimize.report.text import duration
from optimize.stats.records import percent

SHARES = 10  # labels shown, those whose share has moved most
NAMED = 10  # rows to label that are named on the screen


def monitor_sections(found: MonitorRecord) -> list[Section]:
    """The score, each test, and where the answers' mix or the score has moved; empty ones left
    out.
    """
    scores = [["test rows, on record", str(found.before), str(found.before.n), ""]]
    if found.score and found.change:
        change = str(found.change)
        scores += [["new labelled rows", str(found.score), str(found.score.n), change]]
    tests = [
        [test.kind, *_compared(test), str(test.n), f"{test.p_all:.3f}", _seen(test)]
        for test in found.tests
    ]
    columns = ("new rows against known ones", "known", "new", "n", "p, all tests", "")
    moved = sorted(found.shares.items(), key=lambda s: -abs(s[1][1] - s[1][0]))[:SHARES]
    shares = [[label, f"{before:.0%}", f"{now:.0%}"] for label, (before, now) in moved]
    answers = any(test.kind == "answers" for test in found.drifted)
    labels = [
        [c.label, f"{c.before:.2f}", f"{c.after:.2f}", str(c.change), f"{c.n_before}, {c.n}"]
        for c in found.by_label
        if c.change.high < 0 or c.change.low > 0
    ]
    sections = [
        Section("Score", (), ("rows", "score [95 %]", "n", "change"), scores),
        Section("Drift", (), columns, tests),
        Section("Answers", (), ("label", "on record", "now"), shares if answers else []),
        Section(
            "Labels whose score has surely changed",
            (),
            ("label", "on record", "now", "change", "n"),
            labels,
        ),
    ]
    return [section for section in sections if section.rows]


def _compared(test: DriftTest) -> tuple[str, str]:
    if test.kind == "inputs":
        return "", f"AUC {test.after:.2f}"
    if test.before is None or test.after is None:
        return "", ""
    form = ".1%" if test.kind == "unknown words" else ".2f"
    return format(test.before, form), format(test.after, form)


def _seen(test: DriftTest) -> str:
    return "drifted" if test.drifted else ""


WHY = {
    "inputs": "a classifier tells them from the task's rows (AUC {auc:.2f}; 0.5 is by chance)",
    "unknown words": "more of their words are in none of the task's rows",
    "answers": "the program answers them with another mix of labels",
    "confidence": "the LM is less sure of its answers to them",
}


def monitor_sentences(found: MonitorRecord, today: date) -> list[str]:
    """Why the verdict is what it is, the decisive thing first; then what the tests can see."""
    out = [_why(found), *_rest(found)]
    if found.words and any(t.kind == "unknown words" for t in found.drifted):
        out += [f"Words that no known row has: {', '.join(found.words)}."]
    if found.to_label:
        rest = len(found.to_label) - NAMED
        more = f", and {rest} more (--json lists them)" if rest > 0 else ""
        out += [
            f"Label these {len(found.to_label)} rows, a random sample, and run this again: "
            f"{', '.join(found.to_label[:NAMED])}{more}."
        ]
    out += _limits(found)
    return out + (
        [retirement_sentence(found.lm, found.retires, today, found.task)] if found.retires else []
    )


def _why(found: MonitorRecord) -> str:
    drift = ", and ".join(_told(test) for test in found.drifted)
    if found.verdict in ("re-optimize", "retrain"):
        cure = {
            "re-optimize": "climb again with rows like these",
            "retrain": "the weights were tuned on other rows; climb and tune again with rows "
            "like these",
        }[found.verdict]
        also = f" The rows are of another kind as well: {drift}." if drift else ""
        return f"{_worse(found)}: {cure}.{also}"
    if found.verdict == "cannot tell" and not found.tests:
        return "There is nothing to hold the new rows against."
    if found.verdict == "cannot tell":
        return (
            "Too many labelled rows have no answer: what the others score is not what such rows "
            "score."
        )
    if found.verdict == "relabel":
        return (
            f"The new rows are of another kind: {drift}. Whether that hurts is not known: "
            f"{_unlabelled(found)}."
        )
    if drift:
        return f"The new rows are of another kind ({drift}), but the score holds."
    if found.score:
        return "The score holds, and the new rows are of the kind that the task's rows are."
    answers = ", or the answers to them," if found.asked else ""
    return f"No test tells the new rows{answers} from those on record."


def _unlabelled(found: MonitorRecord) -> str:
    """Why labels do not tell."""
    if found.score:
        return f"the {found.score.n} labelled ones do not tell"
    return f"{found.labelled or 'none'} of them {'are' if found.labelled > 1 else 'is'} labelled"


def _told(test: DriftTest) -> str:
    return WHY[test.kind].format(auc=test.after or 0.0)


def _worse(found: MonitorRecord) -> str:
    assert found.change and found.chance is not None
    if found.worse:
        return f"Surely worse than on record, by {found.change}"
    return (
        f"The target {found.target:g} was reached on record, and is not on these rows: the chance "
        f"that it is is {percent(found.chance)}"
    )


def _rest(found: MonitorRecord) -> list[str]:
    out = []
    if found.chance is not None and not found.missed:
        out += [
            f"On rows like the new ones it is at the target {found.target:g} with a probability of "
            f"{percent(found.chance)}."
        ]
    if found.labelled and not found.asked:
        out += [f"{found.labelled} of the new rows are labelled; the LM was asked none (--ask 0)."]
    elif found.labelled and not found.score and found.verdict != "cannot tell":
        out += [f"{found.labelled} labelled rows, {found.asked} asked: too few for a score."]
    if found.failed:
        out += [f"{found.failed} of {found.asked} rows have no answer: their calls failed."]
    if found.known:
        out += [f"{found.known} rows are in the devset already; they were left out."]
    return out


def _limits(found: MonitorRecord) -> list[str]:
    """What these tests could have seen, and how often they err."""
    out = []
    if found.drop_shown is not None:
        out += [
            f"These labelled rows show a drop of {found.drop_shown:.2f} or more in 4 of 5 cases."
        ]
    if found.auc_shown is not None:
        out += [
            f"{found.rows} new rows show inputs that a classifier tells apart with an AUC of "
            f"{found.auc_shown:.2f} or more in 4 of 5 cases; a few odd ones among them stay unseen."
        ]
    else:
        out += [
            "Nearly all rows of the devset came again, so that none are left to hold the new "
            "inputs against: give the new rows alone."
        ]
    many = len(found.tests)
    if not many:
        return out
    return [
        *out,
        f"{many} tests of drift were made; p allows for all of them, so that one errs in at most "
        f"{ALARM:.0%} of the cases (Holm)." + " The score errs in 5 %." * bool(found.score),
    ]


def _relabel(found: MonitorRecord) -> str:
    if found.to_label:
        return "label the rows named above"
    if found.asked < found.labelled:
        return f"the same with --ask {found.labelled}: that many of them are labelled"
    return f"collect and label more such rows; these {found.asked} do not tell"


def monitor_end(found: MonitorRecord) -> str:
    cost = "unknown price" if found.cost_usd is None else f"${found.cost_usd:.2f}"
    spent = f"{found.lm_calls} LM calls ({cost}), {duration(found.seconds)}."
    climb = found.climb or f"optimize run {found.task}"  # in records of older versions
    rows = f"add the labelled rows to devsets/{found.task}, then {climb}"
    following = {
        "ok": "Nothing to do." if found.score else "Whether the score holds was not looked at.",
        "relabel": f"Next: {_relabel(found)}.",
        "cannot tell": "Next: the same command, once the LM answers again."
        if found.tests
        else "Next: the same command with the new rows alone.",
        "re-optimize": f"Next: {rows}",
        "retrain": f"Next: {rows}, and optimize finetune {found.task} where the gate opens",
    }
    return f"{spent} {following[found.verdict]}"


def monitor_plan(rows: int, labelled: int, asked: int, calls: int, usd: float | None) -> str:
    """What is about to be asked."""
    cost = "unknown price" if usd is None else f"some ${usd:.2f}"
    some = f"{asked} of them" if asked < rows else "all of them"
    how = f"Asks {some}: at least {calls} calls ({cost})." if asked else "Asks no LM."
    return f"{rows} new rows, {labelled} of them labelled. {how}"
