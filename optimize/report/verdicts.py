"""What a verdict means, in words that need no glossary."""

from __future__ import annotations

from optimize.climb.verdict import CONFIRMED, COVERAGE, MOST_ROWS, SAME, asked_of_test
from optimize.report.record import HeadroomRecord, VerdictRecord
from optimize.stats.records import percent


def verdict_sentences(
    verdict: str, target: float, found: VerdictRecord, headroom: HeadroomRecord | None = None
) -> str:
    """What the verdict says and the score it hangs on: two sentences."""
    below = found.best.score < target
    at = f"below the target {target}" if below else f"at the target {target}, but not surely so"
    chance = f"the chance that it is at the target is {percent(found.chance)}"
    if verdict == "no_headroom" and headroom:
        teacher = f", the teacher {headroom.teacher}" if headroom.teacher else ""
        first = (
            f"Prompting cannot reach the target {target}: the best of {headroom.answers} answers "
            f"scores {headroom.best} on val{teacher}."
        )
    elif verdict == "indecisive" and found.best.coverage < COVERAGE:
        first = f"Only {found.best.coverage:.0%} of the val rows have a score: calls failed."
    elif verdict == "indecisive":
        rows = (
            f"some {found.rows_needed} would"
            if found.rows_needed
            else f"nor would {MOST_ROWS} times as many: it scores too near the target"
        )
        first = (
            f"{found.best.n} rows cannot tell whether prompting reaches the target {target}, "
            f"{rows}. Every lever was tried{_but(found)}; the best program is {at}."
        )
    else:
        first = {
            "reached": f"Prompting reaches the target {target} with a probability of "
            f"{percent(found.reached)}.",
            "unconfirmed": f"Reached on val, not confirmed: val says that prompting reaches the "
            f"target {target} with a probability of {percent(found.reached)}, the test rows "
            f"{_on_test(found)}.",
            "plateau": f"Prompting stays below the target {target}: every lever was tried"
            f"{_but(found)}, and {chance}.",
            "degenerate": f"This climb proves nothing about prompting: {_not_reading(found)}.",
            "improving": f"Prompting is {at} so far; {chance}.",
            "budget": f"The cap that was given ended the climb {at}; {chance}. {_untried(found)}.",
            "exhausted": f"Every lever was tried{_but(found)}. Since {found.lacking}, it is not "
            f"known whether prompting reaches the target {target}.",
        }.get(verdict, "")
    return f"{first} {_best_sentence(found)}".strip()


def _best_sentence(found: VerdictRecord) -> str:
    corrected = (
        f", corrected by {found.correction:.3f} for selection (best of {found.chosen_from})"
        if found.correction <= -0.0005
        else ""
    ).replace("-", "−")
    close = f"; these rows cannot tell it from: {', '.join(found.close)}" if found.close else ""
    return (
        f"The best prompt program ({found.rung}) scores {found.best} on {found.best.n} "
        f"rows{corrected}{close}."
    )


def _on_test(found: VerdictRecord) -> str:
    if found.on_test is None:
        return "cannot tell, since too many of their calls failed"
    said, rows = percent(found.on_test), found.test_rows_needed
    said += f", where {asked_of_test(found.test_reads):.0%} is asked"
    if found.test_reads > 1:
        said += f" of the {_th(found.test_reads)} program that they judge"
    if rows is None:
        return said
    if rows:
        return f"{said}; some {rows} test rows would tell"
    if found.on_test < 1 - CONFIRMED:
        return f"{said}; that says that it is below"
    return f"{said}; {MOST_ROWS} times as many would not tell: it scores too near the target"


def _th(number: int) -> str:
    """2nd, 3rd, 4th."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ends.get(number % 10, 'th')}"


def _but(found: VerdictRecord) -> str:
    """Which levers were not, after "every lever was tried"."""
    names = list(found.untried)
    if found.left_out:
        names.append(f"{', '.join(found.left_out)} (left out)")
    return f" but {', '.join(names)}" if names else ""


def _untried(found: VerdictRecord) -> str:
    levers = found.rungs_left
    who = "One lever" if levers == 1 else f"{levers} levers"
    named = ", ".join(found.left)
    out = f" (left out: {', '.join(found.left_out)})" if found.left_out else ""
    return f"{who} had too few calls, or none{named and f': {named}'}{out}"


def _not_reading(found: VerdictRecord) -> str:
    """Why the best program is taken not to read its input."""
    if found.same >= SAME:
        return f"the best program gives the same answer to {found.same:.0%} of the rows"
    return (
        "the best program scores no better on val than the same answer to every row, "
        f"{found.constant:.2f}"
    )
